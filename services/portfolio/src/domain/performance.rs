//! How the worth of an account went: gain, time-weighted and money-weighted return.
//!
//! Worth, flows and the time-weighted return are integers; the money-weighted rate is found by [`crate::rate`].

use crate::rate;
use fafnir_platform::clock::DAY_US;
use fafnir_rules::money::{half_even, percent_e4};
use std::collections::BTreeMap;

/// One in the scale in which growth is multiplied.
const ONE: i128 = 1_000_000_000_000_000;
/// Growth beyond this is no longer told.
const GROWTH_MAX: i128 = 1_000 * ONE;
/// 1 % at scale 10⁻⁴, as part of [`ONE`].
const PERCENT_E4: i128 = ONE / 1_000_000;
/// Cash and worth of the shares at the end of an interval, in micros.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Point {
    pub from_us: i64,
    pub until_us: i64,
    pub cash: i64,
    pub shares: i64,
}

impl Point {
    /// Both together.
    pub fn value(self) -> i64 {
        self.cash.saturating_add(self.shares)
    }
}

/// What came or went, in micros of the account's currency, and what the account was worth before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flow {
    pub time_us: i64,
    pub amount: i64,
    pub before: i64,
}

/// Everything between the start and the end of a span, flow by flow.
#[derive(Debug, Clone)]
pub struct Course {
    start: i64,
    start_day: i64,
    inflows: i128,
    outflows: i128,
    /// Worth after the last flow, and the growth up to it.
    base: i64,
    growth: Option<i128>,
    /// Whether anything was ever there.
    invested: bool,
    /// Of each day, counted from the first.
    by_day: BTreeMap<i64, i128>,
}

/// How it went, in micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Performance {
    pub start: i64,
    pub end: i64,
    pub inflows: i64,
    pub outflows: i64,
    /// What the worth grew by beyond the flows.
    pub gain: i64,
    /// Of the start; where that is 0, of what came in.
    pub gain_percent_e4: i64,
    pub time_weighted_percent_e4: Option<i64>,
    pub money_weighted_percent_e4: Option<i64>,
}

impl Course {
    pub fn new(start: i64, from_us: i64) -> Self {
        Self {
            start,
            start_day: from_us.div_euclid(DAY_US),
            inflows: 0,
            outflows: 0,
            base: start,
            growth: Some(ONE),
            invested: start > 0,
            by_day: BTreeMap::new(),
        }
    }

    /// Takes the next flow.
    pub fn flow(&mut self, flow: Flow) {
        if flow.amount >= 0 {
            self.inflows += i128::from(flow.amount);
        } else {
            self.outflows -= i128::from(flow.amount);
        }
        self.grow(flow.before);
        self.base = flow.before.saturating_add(flow.amount);
        self.invested |= self.base > 0;
        let day = flow.time_us.div_euclid(DAY_US) - self.start_day;
        *self.by_day.entry(day).or_default() += i128::from(flow.amount);
    }

    /// From the last flow to a worth. Where nothing was there nothing grew.
    fn grow(&mut self, worth: i64) {
        if self.base <= 0 {
            return;
        }
        let times = |growth| half_even(growth * i128::from(worth), i128::from(self.base));
        self.growth = self.growth.map(times).filter(|growth| *growth <= GROWTH_MAX);
    }

    /// The end of the span.
    pub fn end(mut self, end: i64, to_us: i64) -> Performance {
        self.grow(end);
        let narrow = |n: i128| i64::try_from(n).unwrap_or(if n < 0 { i64::MIN } else { i64::MAX });
        let gain = narrow(i128::from(end) - i128::from(self.start) - self.inflows + self.outflows);
        let base = if self.start == 0 { narrow(self.inflows) } else { self.start };
        let percent = |growth: i128| i64::try_from(half_even(growth - ONE, PERCENT_E4)).ok();
        Performance {
            start: self.start,
            end,
            inflows: narrow(self.inflows),
            outflows: narrow(self.outflows),
            gain,
            gain_percent_e4: percent_e4(gain, base),
            time_weighted_percent_e4: self.growth.filter(|_| self.invested).and_then(percent),
            money_weighted_percent_e4: self.money_weighted(end, to_us),
        }
    }

    fn money_weighted(mut self, end: i64, to_us: i64) -> Option<i64> {
        let days = to_us.div_euclid(DAY_US) - self.start_day;
        if days < 1 || !self.invested {
            return None;
        }
        // What was there at the start came in then; what is there at the end goes out then.
        *self.by_day.entry(0).or_default() += i128::from(self.start);
        *self.by_day.entry(days).or_default() -= i128::from(end);
        rate::annual_percent_e4(&self.by_day)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const USD: i64 = 1_000_000;

    fn flow(day: i64, amount: i64, before: i64) -> Flow {
        Flow { time_us: day * DAY_US + DAY_US / 2, amount: amount * USD, before: before * USD }
    }

    #[test]
    fn a_gain_is_what_the_worth_grew_by_beyond_the_flows() {
        // Nothing; 1,000 come on day 0, worth 1,100 when 500 more come on day 10, worth 1,440 when 200 go on day 20;
        // worth 1,364 at the end of day 30. Gain: 1,364 - 1,000 - 500 + 200 = 64, of the inflows 4.2667 %.
        // Time-weighted: 1,100/1,000 x 1,440/1,600 x 1,364/1,240 = 1.1 x .9 x 1.1 = 1.089.
        let mut course = Course::new(0, 0);
        for f in [flow(0, 1_000, 0), flow(10, 500, 1_100), flow(20, -200, 1_440)] {
            course.flow(f);
        }
        let went = course.end(1_364 * USD, 31 * DAY_US);
        assert_eq!((went.start, went.end, went.gain), (0, 1_364 * USD, 64 * USD));
        assert_eq!((went.inflows, went.outflows, went.gain_percent_e4), (1_500 * USD, 200 * USD, 42_667));
        assert_eq!(went.time_weighted_percent_e4, Some(89_000));
    }

    #[test]
    fn a_money_weighted_rate_sets_the_present_value_to_zero() {
        // 1,000 for a year at 10 %: 1,100; then another 1,000: 2,100 for a year are 2,310.
        let mut course = Course::new(1_000 * USD, 0);
        course.flow(flow(365, 1_000, 1_100));
        assert_eq!(course.end(2_310 * USD, 730 * DAY_US).money_weighted_percent_e4, Some(100_000));
        // Half of it lost in half a year of 182.5 days: x .25 a year; in whole days 182: .5 ^ (365 / 182) = .2490497.
        let went = Course::new(1_000 * USD, 0).end(500 * USD, 182 * DAY_US);
        assert_eq!(went.money_weighted_percent_e4, Some(-750_950));
        assert_eq!(went.time_weighted_percent_e4, Some(-500_000));
        // Within a day there is no annual rate, and none where all is lost.
        assert_eq!(Course::new(USD, 5).end(2 * USD, DAY_US - 1).money_weighted_percent_e4, None);
        assert_eq!(Course::new(USD, 0).end(0, 365 * DAY_US).money_weighted_percent_e4, None);
    }

    #[test]
    fn where_nothing_was_there_nothing_grew() {
        let went = Course::new(0, 0).end(0, 40 * DAY_US);
        assert_eq!((went.gain, went.gain_percent_e4, went.time_weighted_percent_e4), (0, 0, None));
        // All is taken out and something comes again: 1.5 x 2.
        let mut course = Course::new(100 * USD, 0);
        course.flow(flow(1, -150, 150));
        course.flow(flow(5, 10, 0));
        let went = course.end(20 * USD, 9 * DAY_US);
        assert_eq!(went.time_weighted_percent_e4, Some(2_000_000));
        assert_eq!(went.gain, 60 * USD);
    }

    #[test]
    fn a_return_of_parts_is_that_of_the_whole() {
        let (a, b) = (Course::new(100 * USD, 0), Course::new(110 * USD, DAY_US));
        let whole = Course::new(100 * USD, 0).end(121 * USD, 2 * DAY_US);
        let (a, b) = (a.end(110 * USD, DAY_US), b.end(121 * USD, 2 * DAY_US));
        assert_eq!((a.time_weighted_percent_e4, b.time_weighted_percent_e4), (Some(100_000), Some(100_000)));
        assert_eq!(whole.time_weighted_percent_e4, Some(210_000));
        assert_eq!(whole.gain, a.gain + b.gain);
    }
}
