//! What shares are worth at a price: in micros of the account's currency, rounded towards zero.

use super::{Currency, MICROS};

/// What one unit of a listing's currency is worth in an account's, in micros, at `usd_cad` micros of CAD for one USD;
/// `None` when they are the same or the listing's is not known.
pub fn rate_micros(listing: &str, account: Currency, usd_cad: i64) -> Option<i64> {
    match (Currency::parse(listing)?, account) {
        (Currency::Usd, Currency::Cad) => Some(usd_cad),
        (Currency::Cad, Currency::Usd) if usd_cad > 0 => Some(MICROS * MICROS / usd_cad),
        _ => None,
    }
}

/// The value in micros of shares at a price of their listing's currency; `rate` as [`rate_micros`] gives it.
pub fn value_micros(quantity_e4: i64, price_e4: i64, rate: Option<i64>) -> i128 {
    let notional = i128::from(quantity_e4) * i128::from(price_e4) / 100;
    rate.map_or(notional, |rate| notional * i128::from(rate) / i128::from(MICROS))
}

/// What shares are worth, and what they gained since they were paid.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Worth {
    pub value_micros: i64,
    pub unrealized_micros: i64,
}

/// The worth of shares that cost `cost_micros`; a price of 0 is none, and nothing is gained or lost then.
pub fn worth(quantity_e4: i64, cost_micros: i64, price_e4: i64, rate: Option<i64>) -> Worth {
    let value_micros = i64::try_from(value_micros(quantity_e4, price_e4, rate)).unwrap_or(i64::MAX);
    let unrealized_micros = if price_e4 == 0 { 0 } else { value_micros.saturating_sub(cost_micros) };
    Worth { value_micros, unrealized_micros }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holding_is_valued_in_the_currency_of_its_account() {
        let of = |price_e4, rate| {
            let w = worth(100_000, 1_000_000_000, price_e4, rate);
            (w.value_micros, w.unrealized_micros)
        };
        assert_eq!(of(1_100_000, None), (1_100_000_000, 100_000_000));
        assert_eq!(of(1_100_000, Some(1_370_000)), (1_507_000_000, 507_000_000));
        assert_eq!(of(0, None), (0, 0), "without a price nothing is lost");
    }

    #[test]
    fn a_rate_changes_the_listings_currency_into_the_accounts() {
        let usd_cad = 1_370_000;
        assert_eq!(rate_micros("USD", Currency::Cad, usd_cad), Some(1_370_000));
        assert_eq!(rate_micros("CAD", Currency::Usd, usd_cad), Some(729_927));
        assert_eq!(rate_micros("CAD", Currency::Cad, usd_cad), None);
        assert_eq!(rate_micros("", Currency::Usd, usd_cad), None);
    }
}
