//! The annual rate of flows: a root that has no closed form, so it is looked for with floats. It is a rate that a person
//! reads, never money, and nothing is reckoned from it.

use std::collections::BTreeMap;

/// Days of the year that a rate is of.
const YEAR_DAYS: f64 = 365.0;
/// Rates are looked for up to a thousandfold growth a year, and down to the loss of all but a millionth.
const LOG_RATE_MAX: f64 = 7.0;
const LOG_RATE_MIN: f64 = -14.0;
/// Steps in which a bracket is looked for to either side of no growth, and halvings of it.
const BRACKETS: u32 = 280;
const HALVINGS: u32 = 100;
/// 1 at scale 10⁻⁴ of a percent.
const ONE_PERCENT_E4: f64 = 1_000_000.0;

/// The annual rate, in percent at scale 10⁻⁴, at which flows, by their day, are worth nothing together now; of several the
/// one nearest to none.
pub fn annual_percent_e4(flows: &BTreeMap<i64, i128>) -> Option<i64> {
    let flows: Vec<(f64, f64)> =
        flows.iter().map(|(day, amount)| (*day as f64 / YEAR_DAYS, *amount as f64)).collect();
    // Bounded by the range in which it was looked for.
    Some((rate(&flows)? * ONE_PERCENT_E4).round_ties_even() as i64)
}

/// By their years.
fn rate(flows: &[(f64, f64)]) -> Option<f64> {
    let present =
        |log_rate: f64| flows.iter().map(|(years, amount)| amount * (-log_rate * years).exp()).sum::<f64>();
    if present(0.0) == 0.0 {
        return Some(0.0);
    }
    let brackets = |end: f64| {
        let step = end / f64::from(BRACKETS);
        (0..BRACKETS).map(move |n| (step * f64::from(n), step * f64::from(n + 1)))
    };
    let is_up = |log_rate: f64| present(log_rate) > 0.0;
    let crosses = |(a, b): &(f64, f64)| is_up(*a) != is_up(*b);
    let mut steps = brackets(LOG_RATE_MAX).zip(brackets(LOG_RATE_MIN));
    let (mut low, mut high) = steps.find_map(|(up, down)| [up, down].into_iter().find(crosses))?;
    let was_up = is_up(low);
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if is_up(middle) == was_up { low = middle } else { high = middle }
    }
    Some(f64::midpoint(low, high).exp_m1())
}
