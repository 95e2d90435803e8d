//! What is computed with: limits of the configuration, fee schedules and exchange rates. A rate and a schedule keep their
//! id for ever, and an order keeps those of its acceptance.

use crate::account::{Currency, MICROS};

const SECOND_US: i64 = 1_000_000;
/// Longest that a volatility pause may last, and the time within which it ends: an hour.
pub const PAUSE_US_MAX: i64 = 3_600 * SECOND_US;

/// The limits that the configuration names (exchange-rules §5). Amounts in micros of the account's currency.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// What a new account opens with.
    pub opening: i64,
    /// Open orders of a user, agents excepted.
    pub open_orders_max: u32,
    /// Of one deposit.
    pub deposit_max: i64,
    /// Of a user's deposits of one UTC day, in each currency.
    pub deposits_per_day_max: i64,
    /// Of an account's cash, for deposits into it.
    pub account_max: i64,
    /// Ids that are remembered.
    pub recent_ids: u32,
    /// How long a volatility pause lasts at least, and again where its auction would reopen too far away.
    pub volatility_pause_us: i64,
    /// Its auction runs within this from then on, at a moment that nobody chooses.
    pub volatility_end_us: i64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            opening: 500 * MICROS,
            open_orders_max: 1_000,
            deposit_max: 10_000_000 * MICROS,
            deposits_per_day_max: 100_000_000 * MICROS,
            account_max: 1_000_000_000 * MICROS,
            recent_ids: 262_144,
            volatility_pause_us: 120 * SECOND_US,
            volatility_end_us: 30 * SECOND_US,
        }
    }
}

/// A fee schedule in basis points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fees {
    pub maker_bp: u32,
    pub taker_bp: u32,
}

/// Highest fee in basis points: 10 %.
pub const FEE_BP_MAX: u32 = 1_000;
/// Lowest and highest rate in micros of CAD for one USD.
pub const RATE_MIN: i64 = MICROS / 100;
pub const RATE_MAX: i64 = 100 * MICROS;

/// Account currency for one unit of the listing's currency, as a fraction of positive integers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fx {
    pub numerator: i64,
    pub denominator: i64,
    /// Whether the two currencies differ, whatever the rate.
    pub foreign: bool,
}

impl Fx {
    /// Both currencies are the same.
    pub const LOCAL: Self = Self { numerator: 1, denominator: 1, foreign: false };

    /// From one currency to another at `usd_cad` micros of CAD for one USD.
    pub fn between(from: Currency, to: Currency, usd_cad: i64) -> Self {
        match (from, to) {
            (Currency::Usd, Currency::Cad) => Self { numerator: usd_cad, denominator: MICROS, foreign: true },
            (Currency::Cad, Currency::Usd) => Self { numerator: MICROS, denominator: usd_cad, foreign: true },
            _ => Self::LOCAL,
        }
    }

    /// An amount in the other currency, rounded down and up.
    pub fn convert(self, amount: i64) -> Option<(i64, i64)> {
        let product = i128::from(amount) * i128::from(self.numerator);
        let denominator = i128::from(self.denominator);
        Some((
            i64::try_from(product.div_euclid(denominator)).ok()?,
            i64::try_from(ceiling(product, denominator)).ok()?,
        ))
    }
}

/// `numerator / denominator` rounded up, for a positive denominator.
pub fn ceiling(numerator: i128, denominator: i128) -> i128 {
    -((-numerator).div_euclid(denominator))
}
