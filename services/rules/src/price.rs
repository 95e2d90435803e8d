//! Prices around prices: steps, band, collar, the start of a trailing stop. All in e4, exact, through 128 bits.

use crate::{
    limits::{BAND_PERCENT, COLLAR_PER_MILLE, COLLAR_TICKS_MIN},
    order::Side,
};

/// How a trailing stop follows the market.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trail {
    AmountE4(i64),
    /// Percent at scale 10⁻⁴: 1.5 % = 15,000.
    PercentE4(i64),
}

/// True when a value is a whole number of steps (ticks or lots). Nothing is a multiple of a step that is not above 0.
pub const fn is_multiple(value_e4: i64, step_e4: i64) -> bool {
    step_e4 > 0 && value_e4 % step_e4 == 0
}

fn down(value: i128, tick: i128) -> i128 {
    value.div_euclid(tick) * tick
}

fn up(value: i128, tick: i128) -> i128 {
    -down(-value, tick)
}

/// True when a price is within [`BAND_PERCENT`] of the reference; the edges are.
pub fn is_in_band(price_e4: i64, reference_e4: i64) -> bool {
    let (price, reference) = (i128::from(price_e4), i128::from(reference_e4));
    (price - reference).abs() * 100 <= reference * i128::from(BAND_PERCENT)
}

/// Lowest and highest price on a tick inside the band; at most 64 bits.
pub fn band(reference_e4: i64, tick_e4: i64) -> (i64, i64) {
    let (reference, tick) = (i128::from(reference_e4), i128::from(tick_e4.max(1)));
    let edge = |percent: i64| reference * i128::from(percent);
    let low = up(edge(100 - BAND_PERCENT), 100 * tick) / 100;
    let high = down(edge(100 + BAND_PERCENT), 100 * tick) / 100;
    (i64::try_from(low).unwrap_or(i64::MAX), i64::try_from(high).unwrap_or(i64::MAX))
}

/// The worst price that an order without one of its own may trade at (exchange-rules §3): the price ± max(10 ticks,
/// 2.5 %), on the tick at the inner side, at least one tick. `None` beyond 64 bits.
pub fn collar(side: Side, price_e4: i64, tick_e4: i64) -> Option<i64> {
    let (price, tick) = (i128::from(price_e4), i128::from(tick_e4.max(1)));
    let share = (price * i128::from(COLLAR_PER_MILLE)).div_euclid(1_000);
    let distance = share.max(tick * i128::from(COLLAR_TICKS_MIN));
    let worst = match side {
        Side::Buy => down(price + distance, tick),
        Side::Sell => up(price - distance, tick),
    };
    i64::try_from(worst.max(tick)).ok()
}

/// Where a trailing stop starts: the trail behind the reference, on the tick at the far side, at least one tick. `None`
/// when the trail is wider than the band, or beyond 64 bits.
pub fn trailing_start(side: Side, trail: Trail, reference_e4: i64, tick_e4: i64) -> Option<i64> {
    let (reference, tick) = (i128::from(reference_e4), i128::from(tick_e4.max(1)));
    let distance = match trail {
        Trail::AmountE4(amount) => i128::from(amount),
        Trail::PercentE4(percent) => reference * i128::from(percent) / 1_000_000,
    };
    if distance * 100 > reference * i128::from(BAND_PERCENT) {
        return None;
    }
    let start = match side {
        Side::Buy => up(reference + distance, tick),
        Side::Sell => down(reference - distance, tick).max(tick),
    };
    i64::try_from(start).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_collar_is_ten_ticks_or_two_and_a_half_percent_rounded_inwards() {
        for (side, price, tick, worst) in [
            (Side::Buy, 2_310_000, 100, Some(2_367_700)), // 231.00 + 5.775 → 236.77
            (Side::Sell, 2_310_000, 100, Some(2_252_300)), // 231.00 − 5.775 → 225.23
            (Side::Buy, 10_000, 100, Some(11_000)),       // 1.00 + 10 ticks
            (Side::Sell, 10_000, 100, Some(9_000)),
            (Side::Sell, 500, 100, Some(100)), // never below one tick
            (Side::Buy, 2_310_050, 100, Some(2_367_800)),
            (Side::Buy, i64::MAX, 1, None),
        ] {
            assert_eq!(collar(side, price, tick), worst, "{side} {price}");
        }
    }

    #[test]
    fn a_band_is_told_on_the_tick_inside() {
        assert_eq!(band(2_000_000, 100), (1_000_000, 3_000_000));
        assert_eq!(band(2_310_500, 100), (1_155_300, 3_465_700));
        assert_eq!(band(3, 1), (2, 4));
    }

    #[test]
    fn nothing_is_a_multiple_of_no_step() {
        assert!(is_multiple(200, 100) && !is_multiple(250, 100));
        assert!(!is_multiple(200, 0) && !is_multiple(200, -100));
    }

    proptest! {
        #[test]
        fn the_band_that_is_told_is_the_band_that_is_checked(reference in 1i64..1 << 50, tick in 1i64..10_000) {
            let (low, high) = band(reference, tick);
            prop_assert!(low > high || (is_in_band(low, reference) && is_in_band(high, reference)));
            prop_assert!(!is_in_band(low - tick, reference) && !is_in_band(high + tick, reference));
        }

        #[test]
        fn a_trailing_stop_starts_on_the_tick_behind_the_reference(
            reference in 1i64..1 << 50, tick in 1i64..10_000, percent in 100i64..=500_000,
        ) {
            let of = |side| trailing_start(side, Trail::PercentE4(percent), reference, tick);
            let (buy, sell) = (of(Side::Buy).unwrap(), of(Side::Sell).unwrap());
            prop_assert!(is_multiple(buy, tick) && is_multiple(sell, tick));
            prop_assert!(buy >= reference && sell <= reference.max(tick));
        }
    }
}
