//! What shares are worth at a price: in micros of the account's currency, one division, rounded half to even.

use super::{Currency, MICROS};
use fafnir_rules::money::half_even;

/// `price_e4 × quantity_e4` has this many parts in a micro.
const PARTS: i128 = 100;

/// What one unit of a listing's currency is worth in an account's, as a fraction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    numerator: i64,
    denominator: i64,
}

impl Rate {
    /// Both are the same currency.
    pub const ONE: Self = Self { numerator: 1, denominator: 1 };

    /// From a listing's currency into an account's, at `usd_cad` micros of CAD for one USD. One, where they are the same
    /// or the listing's is not known.
    pub fn between(listing: Option<Currency>, account: Currency, usd_cad: i64) -> Self {
        match (listing, account) {
            (Some(Currency::Usd), Currency::Cad) => Self { numerator: usd_cad, denominator: MICROS },
            (Some(Currency::Cad), Currency::Usd) if usd_cad > 0 => {
                Self { numerator: MICROS, denominator: usd_cad }
            }
            _ => Self::ONE,
        }
    }
}

/// The value in micros of shares at a price of their listing's currency.
pub fn value_micros(quantity_e4: i64, price_e4: i64, rate: Rate) -> i128 {
    let parts = i128::from(quantity_e4) * i128::from(price_e4);
    half_even(parts.saturating_mul(i128::from(rate.numerator)), PARTS * i128::from(rate.denominator))
}

/// What shares are worth, and what they gained since they were paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worth {
    pub value_micros: i64,
    pub unrealized_micros: i64,
}

/// The worth of shares that cost `cost_micros`; a price of 0 is none, and nothing is gained or lost then.
pub fn worth(quantity_e4: i64, cost_micros: i64, price_e4: i64, rate: Rate) -> Worth {
    let value_micros = i64::try_from(value_micros(quantity_e4, price_e4, rate)).unwrap_or(i64::MAX);
    let unrealized_micros = if price_e4 == 0 { 0 } else { value_micros.saturating_sub(cost_micros) };
    Worth { value_micros, unrealized_micros }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holding_is_valued_in_the_currency_of_its_account() {
        let usd_cad = 1_370_000;
        let of = |price_e4, listing, account| {
            let w = worth(100_000, 1_000_000_000, price_e4, Rate::between(listing, account, usd_cad));
            (w.value_micros, w.unrealized_micros)
        };
        let (usd, cad) = (Currency::Usd, Currency::Cad);
        assert_eq!(of(1_100_000, Some(usd), usd), (1_100_000_000, 100_000_000));
        assert_eq!(of(1_100_000, None, cad), (1_100_000_000, 100_000_000));
        assert_eq!(of(1_100_000, Some(usd), cad), (1_507_000_000, 507_000_000));
        assert_eq!(of(0, Some(usd), usd), (0, 0), "without a price nothing is lost");
        // 10 x 137 CAD = 1370 CAD are 1000 USD to the micro: a rate of 0.729927 would make 999.99999 of it.
        assert_eq!(of(1_370_000, Some(cad), usd), (1_000_000_000, 0));
        // 1 / 1.37 = 0.72992700729...
        assert_eq!(value_micros(10_000, 10_000, Rate::between(Some(cad), usd, usd_cad)), 729_927);
        assert_eq!(value_micros(10_000_000, 10_000, Rate::between(Some(cad), usd, usd_cad)), 729_927_007);
    }
}
