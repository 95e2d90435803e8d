//! How the value of an account went: its cash and shares day by day, reckoned back from what they are now.
//!
//! Cash and traded shares go back by the lines of the ledger, prices are the closes of the days. Shares that came
//! without a trade (seeds, corporate actions) count as held all along.

use super::{
    Currency,
    ledger::{Cause, POSTINGS_MAX},
    statement::{Line, start_of_day},
    valuation::value_micros,
};
use fafnir_platform::clock::DAY_US;
use std::collections::BTreeMap;

/// Periods and how many days each goes back.
const PERIODS: [(&str, i64); 9] = [
    ("1D", 1),
    ("1W", 7),
    ("1M", 30),
    ("3M", 91),
    ("6M", 182),
    ("1Y", 365),
    ("2Y", 730),
    ("5Y", 1826),
    ("MAX", 1826),
];

/// A span that ends today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// One of 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX.
    pub name: &'static str,
    days: i64,
}

impl Period {
    /// The period of a name in any case; `None` where there is none.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let (name, days) = PERIODS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text))?;
        Some(Self { name, days })
    }

    /// The start of its first day: not before the account was opened, not after today.
    pub fn first_us(self, opened_us: i64, now_us: i64) -> i64 {
        let today = start_of_day(now_us);
        (today - self.days * DAY_US).max(start_of_day(opened_us).min(today))
    }
}

/// Daily closes of a symbol by a time of their day, and what one unit of its currency is worth in the account's.
#[derive(Debug, Clone, Default)]
pub struct Closes {
    pub by_day: BTreeMap<i64, i64>,
    pub rate_micros: Option<i64>,
}

/// Everything that a series is reckoned from. Cash is in micros, shares have scale 10⁻⁴.
#[derive(Debug, Default)]
pub struct Past {
    cash_now: i64,
    shares_now: BTreeMap<String, i64>,
    /// When and how much, in any order.
    cash_changes: Vec<(i64, i64)>,
    share_changes: Vec<(i64, String, i64)>,
    /// Those of the cash changes that are no trade's: deposits and transfers.
    flows: Vec<(i64, i64)>,
    pub closes: BTreeMap<String, Closes>,
}

/// Cash and worth of the shares at the end of a day, in micros.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Point {
    /// Start of the day.
    pub day_us: i64,
    pub cash: i64,
    pub shares: i64,
}

impl Point {
    /// Both together.
    pub fn value(self) -> i64 {
        self.cash.saturating_add(self.shares)
    }
}

/// How the value went, in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Performance {
    pub start: i64,
    pub end: i64,
    /// Deposits and transfers in, less transfers out, after the first day.
    pub net_flows: i64,
    /// What the value grew by beyond the flows.
    pub gain: i64,
    /// One for each day, ascending.
    pub points: Vec<Point>,
}

impl Past {
    /// From an account's cash and shares now and its lines since `first_us`, newest first.
    pub fn new(
        currency: Currency,
        cash_now: i64,
        shares_now: BTreeMap<String, i64>,
        lines: &[Line],
        first_us: i64,
    ) -> Self {
        let mut this = Self { cash_now, shares_now, ..Self::default() };
        let mut traded = None;
        for line in lines {
            let change = line.cash(currency);
            this.cash_changes.push((line.time_us, change));
            if line.cause != Cause::Trade {
                this.flows.push((line.time_us, change));
                continue;
            }
            // Every line of a trade, the fee's too, names its shares: they moved once.
            let trade = line.id / POSTINGS_MAX as i64;
            if line.time_us >= first_us && traded.replace(trade) != Some(trade) {
                this.share_changes.push((line.time_us, line.symbol.clone(), line.shares));
                this.shares_now.entry(line.symbol.clone()).or_default();
            }
        }
        this
    }

    /// The symbols that closes are needed of.
    pub fn symbols(&self) -> impl ExactSizeIterator<Item = &String> {
        self.shares_now.keys()
    }

    /// How the value went from one day to another (their starts); `None` beyond 64 bits.
    pub fn performance(&self, first_us: i64, last_us: i64) -> Option<Performance> {
        let points = self.series(first_us, last_us)?;
        let later = self.flows.iter().filter(|(at, _)| *at >= first_us + DAY_US);
        let net_flows = later.fold(0i64, |sum, (_, change)| sum.saturating_add(*change));
        let value = |point: Option<&Point>| point.map_or(0, |p| p.value());
        let (start, end) = (value(points.first()), value(points.last()));
        let gain = end.saturating_sub(start).saturating_sub(net_flows);
        Some(Performance { start, end, net_flows, gain, points })
    }

    fn series(&self, first_us: i64, last_us: i64) -> Option<Vec<Point>> {
        let mut points = Vec::new();
        let mut day = first_us;
        while day <= last_us {
            let end = day + DAY_US;
            let mut cash = i128::from(self.cash_now);
            for (_, change) in self.cash_changes.iter().filter(|(at, _)| *at >= end) {
                cash -= i128::from(*change);
            }
            let mut shares = self.shares_now.clone();
            for (_, symbol, change) in self.share_changes.iter().filter(|(at, _, _)| *at >= end) {
                let held = shares.entry(symbol.clone()).or_default();
                *held = held.checked_sub(*change)?;
            }
            let worth: i128 = shares
                .iter()
                .filter_map(|(symbol, quantity)| {
                    let closes = self.closes.get(symbol)?;
                    let (_, close) = closes.by_day.range(..end).next_back()?;
                    Some(value_micros(*quantity, *close, closes.rate_micros))
                })
                .sum();
            points.push(Point {
                day_us: day,
                cash: i64::try_from(cash).ok()?,
                shares: i64::try_from(worth).ok()?,
            });
            day = end;
        }
        Some(points)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::statement::tests::cash, *};

    fn bought_on_day_2() -> Past {
        // Day 2: bought 2 at 100, with a fee of 1. Day 0: deposited 1000.
        let bought = Line { shares: 20_000, symbol: "A".into(), ..cash(2, Cause::Trade, -200_000_000) };
        let fee = Line { fee: true, amount: -1_000_000, id: bought.id + 1, ..bought.clone() };
        let lines = [fee, bought, cash(0, Cause::Deposit, 1_000_000_000)];
        let shares = BTreeMap::from([("A".to_owned(), 20_000)]);
        let mut past = Past::new(Currency::Usd, 799_000_000, shares, &lines, DAY_US);
        let by_day = BTreeMap::from([(DAY_US, 900_000), (2 * DAY_US, 1_000_000), (3 * DAY_US, 1_100_000)]);
        past.closes.insert("A".into(), Closes { by_day, rate_micros: None });
        past
    }

    #[test]
    fn cash_and_shares_are_reckoned_back_day_by_day() {
        let series = bought_on_day_2().series(DAY_US, 4 * DAY_US).unwrap();
        let days: Vec<_> = series.iter().map(|p| (p.day_us / DAY_US, p.cash, p.shares)).collect();
        assert_eq!(
            days,
            [
                (1, 1_000_000_000, 0),
                (2, 799_000_000, 200_000_000),
                (3, 799_000_000, 220_000_000),
                (4, 799_000_000, 220_000_000),
            ]
        );
    }

    #[test]
    fn a_gain_is_what_the_value_grew_by_beyond_the_flows() {
        let past = bought_on_day_2();
        let went = past.performance(DAY_US, 4 * DAY_US).unwrap();
        assert_eq!((went.start, went.end), (1_000_000_000, 1_019_000_000));
        assert_eq!((went.net_flows, went.gain), (0, 19_000_000));
        // The deposit of day 0 is a flow of a period that began before it.
        let went = past.performance(-DAY_US, 4 * DAY_US).unwrap();
        assert_eq!((went.start, went.net_flows, went.gain), (0, 1_000_000_000, 19_000_000));
    }

    #[test]
    fn a_period_goes_back_its_days_but_not_before_the_account() {
        let now_us = 1_000 * DAY_US + 7;
        let month = Period::parse(" 1m ").unwrap();
        assert_eq!((month.name, month.first_us(0, now_us)), ("1M", 970 * DAY_US));
        assert_eq!(month.first_us(980 * DAY_US + 3, now_us), 980 * DAY_US);
        assert_eq!(month.first_us(2_000 * DAY_US, now_us), 1_000 * DAY_US);
        assert!(Period::parse("").is_none() && Period::parse("4M").is_none());
    }
}
