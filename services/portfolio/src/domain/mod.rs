//! Accounts, assets, exchange rates and the faults of settlement; what is
//! done with them (holds, the ledger, trades, statements, valuation, performance) has files of its own.
//!
//! Everything here is integer arithmetic without a clock, randomness or I/O. Amounts are micros of one currency,
//! quantities and prices have scale 10⁻⁴.

pub mod hold;
pub mod ledger;
pub mod performance;
pub mod settle;
pub mod statement;
pub mod valuation;

use fafnir_proto::id::{AccountId, UserId};
use fafnir_rules::limits::QUANTITY_E4_MAX;
use uuid::Uuid;

/// Key of an account inside the ledger.
pub type AccountKey = i64;
/// Key of a currency or symbol inside the ledger.
pub type AssetKey = i64;

/// The house account that paper money comes from.
pub const FUNDING: AccountKey = 1;
/// The house account that fees go to.
pub const FEES: AccountKey = 2;
/// The house account that changes currencies.
pub const FX: AccountKey = 3;
/// The house account that keeps what rounding leaves.
pub const ROUNDING: AccountKey = 4;

/// Most that one deposit or transfer may move: a billion of the currency.
pub const AMOUNT_MICROS_MAX: i64 = 1_000_000_000 * MICROS;
/// Most cash and shares that one endowment may move: market makers hold more than people.
pub const ENDOWMENT_MICROS_MAX: i64 = 100 * AMOUNT_MICROS_MAX;
pub const ENDOWMENT_E4_MAX: i64 = 1_000 * QUANTITY_E4_MAX;
/// Micros in one unit of a currency.
pub const MICROS: i64 = 1_000_000;

/// A currency that accounts and listings may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Currency {
    Usd,
    Cad,
}

impl Currency {
    pub const ALL: [Self; 2] = [Self::Usd, Self::Cad];

    pub fn parse(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.code() == code)
    }
    /// ISO 4217.
    pub fn code(self) -> &'static str {
        match self {
            Self::Usd => "USD",
            Self::Cad => "CAD",
        }
    }
    /// Its key as an asset; fixed by the first migration.
    pub fn asset(self) -> AssetKey {
        match self {
            Self::Usd => 1,
            Self::Cad => 2,
        }
    }
    pub fn of_asset(asset: AssetKey) -> Option<Self> {
        Self::ALL.into_iter().find(|c| c.asset() == asset)
    }
}

/// What an account is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Investment,
    Savings,
    Chequing,
    House,
}

impl Kind {
    /// The number of `fafnir.v1.AccountType`, which is also the stored one.
    pub fn number(self) -> i32 {
        match self {
            Self::Investment => 1,
            Self::Savings => 2,
            Self::Chequing => 3,
            Self::House => 4,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Investment, Self::Savings, Self::Chequing, Self::House]
            .into_iter()
            .find(|k| k.number() == number)
    }
}

/// Where an account is in its life. A closing one takes nothing new and closes when its last hold ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Closing,
    Closed,
}

impl State {
    pub fn number(self) -> i32 {
        match self {
            Self::Open => 0,
            Self::Closing => 1,
            Self::Closed => 2,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Open, Self::Closing, Self::Closed].into_iter().find(|s| s.number() == number)
    }
}

/// A client's account. House accounts are only keys: nobody reads them one by one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub key: AccountKey,
    pub id: AccountId,
    pub user: UserId,
    pub kind: Kind,
    pub currency: Currency,
    pub number: String,
    pub state: State,
    pub created_us: i64,
    pub updated_us: i64,
}

/// What the postings of an account in one asset amount to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Balance {
    pub posted: i64,
    pub held: i64,
    /// Shares: micros of the account's currency paid for what is there now.
    pub cost: i64,
    /// Shares: micros of the account's currency gained by sales.
    pub realized: i64,
    pub created_us: i64,
    pub updated_us: i64,
}

impl Balance {
    /// What can be spent: posted − held. Never negative for a client.
    pub fn available(&self) -> i64 {
        self.posted.saturating_sub(self.held)
    }

    /// Cost of one share in micros, rounded half up.
    pub fn average_cost(&self) -> i64 {
        if self.posted <= 0 {
            return 0;
        }
        let (cost, quantity) = (i128::from(self.cost), i128::from(self.posted));
        i64::try_from((2 * cost * 10_000 + quantity).div_euclid(2 * quantity)).unwrap_or(i64::MAX)
    }

    /// The part of the cost that `quantity` of the shares carries: proportional, what remains is rounded down, so that
    /// the last share takes the last micro with it.
    pub fn cost_of(&self, quantity: i64) -> i64 {
        if quantity >= self.posted {
            return self.cost;
        }
        let rest = i128::from(self.cost) * i128::from(self.posted - quantity) / i128::from(self.posted);
        self.cost - i64::try_from(rest).unwrap_or(self.cost)
    }
}

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

/// A fact that cannot be settled: it is kept as a dead letter and raises an alarm, it is never ignored.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    #[error("order {0:?} has no hold")]
    UnknownHold(String),
    #[error("order {0} is already terminal")]
    Terminal(Uuid),
    #[error("order {order} holds {held}, the trade is in {traded}")]
    WrongSymbol { order: Uuid, held: AssetKey, traded: AssetKey },
    #[error("order {0} is on the other side")]
    WrongSide(Uuid),
    #[error("quantity {0} and price {1} are not a trade that is exact in micros")]
    Inexact(i64, i64),
    #[error("{filled} filled of {open} open")]
    Overfilled { filled: i64, open: i64 },
    #[error("open quantity is {ours} here and {engine} at the engine")]
    OpenDiffers { ours: i64, engine: i64 },
    #[error("the two sides were listed in different currencies")]
    ListingDiffers,
    #[error("account {account} asset {asset}: posted {posted} would not cover held {held}")]
    Uncovered { account: AccountKey, asset: AssetKey, posted: i64, held: i64 },
    #[error("an amount is beyond 64 bits")]
    Overflow,
    #[error("the postings of asset {asset} sum to {sum}")]
    Unbalanced { asset: AssetKey, sum: i128 },
    #[error("more than {0} postings in one ledger transaction")]
    TooManyPostings(usize),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cost_basis_goes_with_the_shares_to_the_last_micro() {
        let mut b = Balance { posted: 3, cost: 10, ..Balance::default() };
        let mut removed = Vec::new();
        while b.posted > 0 {
            let cost = b.cost_of(1);
            removed.push(cost);
            b.cost -= cost;
            b.posted -= 1;
        }
        assert_eq!((removed.iter().sum::<i64>(), b.cost), (10, 0));
    }

    #[test]
    fn an_average_cost_is_per_share_rounded_half_up() {
        let b = Balance { posted: 30_000, cost: 1_000_000, ..Balance::default() };
        assert_eq!(b.average_cost(), 333_333);
        let b = Balance { posted: i64::MAX, cost: i64::MAX, ..Balance::default() };
        assert_eq!(b.average_cost(), 10_000);
    }

    #[test]
    fn a_conversion_there_and_back_never_creates_money() {
        for amount in [1, 2, 137, 999_999, 1_000_000, 73_456_789] {
            let there = Fx::between(Currency::Usd, Currency::Cad, 1_370_000);
            let back = Fx::between(Currency::Cad, Currency::Usd, 1_370_000);
            let (cad, _) = there.convert(amount).unwrap();
            let (usd, _) = back.convert(cad).unwrap();
            assert!(usd <= amount, "{amount} → {cad} → {usd}");
        }
    }
}
