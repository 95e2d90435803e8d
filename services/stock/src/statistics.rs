//! What a year of daily bars says of a symbol: its range, volume, volatility, and how it goes with an index. Integers
//! alone: returns are parts of a million.

use super::domain::Bar;

/// Returns are counted in millionths.
const MILLION: i128 = 1_000_000;
const RETURN_MAX: i128 = 1_000 * MILLION;
/// Sessions of a year, of the short average of the volume, and of the long one.
const YEAR_SESSIONS: i128 = 252;
const SHORT_SESSIONS: usize = 10;
const LONG_SESSIONS: usize = 63;
/// Fewer returns than this say nothing of volatility or beta.
const RETURNS_MIN: usize = 20;

/// The statistics of a symbol. Prices, quantities and beta have scale 10⁻⁴; days are since 1970, UTC.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Days of the last 52 weeks on which it traded, today left out.
    pub sessions: u32,
    /// Lowest and highest price of 52 weeks, today included, and the first day of each.
    pub year_low: Option<(i64, i64)>,
    pub year_high: Option<(i64, i64)>,
    /// From the close of the first of those days to the last price, basis points.
    pub year_change_bps: Option<i64>,
    /// Mean volume of the last 10 and the last 63 days on which it traded, rounded down.
    pub volume_short_e4: Option<i64>,
    pub volume_long_e4: Option<i64>,
    /// Deviation of a day's return times the root of 252, basis points.
    pub volatility_bps: Option<i64>,
    /// Covariance of the returns with the index's over the variance of those.
    pub beta_e4: Option<i64>,
}

/// Daily bars of 52 weeks, ascending by day, that may end with today's.
pub fn of(bars: &[(i64, Bar)], index: &[(i64, Bar)], today: i64) -> Statistics {
    let past = before(bars, today);
    let extreme = |best: fn(&Bar) -> i64, better: fn(i64, i64) -> bool| {
        bars.iter().fold(None, |found: Option<(i64, i64)>, (day, bar)| match found {
            Some((price, _)) if !better(best(bar), price) => found,
            _ => Some((best(bar), *day)),
        })
    };
    let change = past.first().zip(bars.last()).filter(|((day, _), (last, _))| day != last);
    let volume = |sessions: usize| {
        let newest = &past[past.len().saturating_sub(sessions)..];
        let sum: i128 = newest.iter().map(|(_, bar)| i128::from(bar.volume_e4)).sum();
        i64::try_from(sum.checked_div(newest.len() as i128)?).ok()
    };
    let own: Vec<i128> = past.windows(2).map(|w| return_of(&w[0].1, &w[1].1)).collect();
    Statistics {
        sessions: past.len() as u32,
        year_low: extreme(|b| b.low_e4, |a, b| a < b),
        year_high: extreme(|b| b.high_e4, |a, b| a > b),
        year_change_bps: change
            .and_then(|((_, from), (_, to))| i64::try_from(return_of(from, to) / 100).ok()),
        volume_short_e4: volume(SHORT_SESSIONS),
        volume_long_e4: volume(LONG_SESSIONS),
        volatility_bps: volatility_bps(&own),
        beta_e4: beta_e4(past, before(index, today)),
    }
}

fn before(bars: &[(i64, Bar)], today: i64) -> &[(i64, Bar)] {
    &bars[..bars.partition_point(|(day, _)| *day < today)]
}

/// In millionths, to the nearest; at most a thousandfold, so that no sum of products overflows.
fn return_of(from: &Bar, to: &Bar) -> i128 {
    let (from, to) = (i128::from(from.close_e4.max(1)), i128::from(to.close_e4));
    rounded((to - from) * MILLION, from).min(RETURN_MAX)
}

/// To the nearest, a half away from zero; `by` is above 0.
fn rounded(value: i128, by: i128) -> i128 {
    (2 * value + by * value.signum()) / (2 * by)
}

fn volatility_bps(returns: &[i128]) -> Option<i64> {
    let count = returns.len() as i128;
    if returns.len() < RETURNS_MIN {
        return None;
    }
    let sum: i128 = returns.iter().sum();
    let squares: i128 = returns.iter().map(|r| r * r).sum();
    let variance = (count * squares - sum * sum) / (count * (count - 1));
    let of_year = (variance * YEAR_SESSIONS).isqrt();
    i64::try_from(rounded(of_year, MILLION / 10_000)).ok()
}

/// Over the days that both traded.
fn beta_e4(own: &[(i64, Bar)], index: &[(i64, Bar)]) -> Option<i64> {
    let both: Vec<(&Bar, &Bar)> = own
        .iter()
        .filter_map(|(day, bar)| {
            let at = index.binary_search_by_key(day, |(day, _)| *day).ok()?;
            Some((bar, &index[at].1))
        })
        .collect();
    let returns: Vec<(i128, i128)> =
        both.windows(2).map(|w| (return_of(w[0].0, w[1].0), return_of(w[0].1, w[1].1))).collect();
    if returns.len() < RETURNS_MIN {
        return None;
    }
    let count = returns.len() as i128;
    let (sum_own, sum_index) = returns.iter().fold((0, 0), |(a, b), (x, y)| (a + x, b + y));
    let products: i128 = returns.iter().map(|(x, y)| x * y).sum();
    let squares: i128 = returns.iter().map(|(_, y)| y * y).sum();
    let covariance = count * products - sum_own * sum_index;
    let variance = count * squares - sum_index * sum_index;
    if variance <= 0 {
        return None;
    }
    i64::try_from(rounded(covariance * 10_000, variance)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bars(closes: impl IntoIterator<Item = i64>) -> Vec<(i64, Bar)> {
        let bar = |(n, close_e4): (usize, i64)| {
            let (low_e4, high_e4) = (close_e4 - 1_000, close_e4 + 1_000);
            let volume_e4 = (n as i64 + 1) * 10_000;
            (n as i64 + 100, Bar { open_e4: close_e4, high_e4, low_e4, close_e4, volume_e4 })
        };
        closes.into_iter().enumerate().map(bar).collect()
    }

    /// Up and down by so many millionths, in turn.
    fn swings(days: usize, parts: i64) -> Vec<i64> {
        let mut close = 100_000_000_i64;
        (0..days)
            .map(|day| {
                close += if day % 2 == 0 { close * parts / 1_000_000 } else { -close * parts / 1_000_000 };
                close
            })
            .collect()
    }

    #[test]
    fn a_symbol_that_swings_twice_as_much_has_twice_the_volatility_and_a_beta_of_two() {
        let (index, own) = (bars(swings(200, 10_000)), bars(swings(200, 20_000)));
        let today = 1_000;
        let (of_index, of_own) = (of(&index, &index, today), of(&own, &index, today));
        // A day's deviation of 1 % is 15.87 % a year.
        let volatility = of_index.volatility_bps.unwrap();
        assert!((1_585..=1_595).contains(&volatility), "{volatility}");
        assert!((of_own.volatility_bps.unwrap() - 2 * volatility).abs() <= 2);
        assert_eq!(of_index.beta_e4, Some(10_000));
        let beta = of_own.beta_e4.unwrap();
        assert!((19_990..=20_010).contains(&beta), "{beta}");
    }

    #[test]
    fn range_volume_and_change_are_of_the_days_that_they_name() {
        let bars = bars([100_000, 120_000, 90_000, 110_000]);
        let statistics = of(&bars, &[], 103);
        assert_eq!(statistics.sessions, 3, "today is no session yet");
        assert_eq!(statistics.year_low, Some((89_000, 102)));
        assert_eq!(statistics.year_high, Some((121_000, 101)));
        assert_eq!(statistics.year_change_bps, Some(1_000));
        assert_eq!(statistics.volume_short_e4, Some(20_000));
        assert_eq!((statistics.volatility_bps, statistics.beta_e4), (None, None), "too few days");
    }

    #[test]
    fn what_has_no_bars_or_never_moves_has_no_statistics() {
        assert_eq!(of(&[], &[], 5), Statistics::default());
        let still = bars([100_000; 60]);
        let statistics = of(&still, &still, 1_000);
        assert_eq!((statistics.volatility_bps, statistics.beta_e4), (Some(0), None));
    }
}
