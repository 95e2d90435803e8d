//! Spans of bars: which bars a span joins, and where it begins.

use super::domain::{Bar, MINUTE_US, SECOND_US, truncated};
use fafnir_platform::{Refusal, clock::DAY_US};
use fafnir_proto::reason::Reason;

/// Days from Monday to 1970-01-01.
const MONDAY_OFFSET: i64 = 3;
/// Days that a week and a month have at most.
const WEEK_DAYS: i64 = 7;
const MONTH_DAYS: i64 = 31;

/// Bars as they are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Seconds,
    Minutes,
    Days,
}

impl Stored {
    /// Microseconds of one.
    pub fn us(self) -> i64 {
        match self {
            Self::Seconds => SECOND_US,
            Self::Minutes => MINUTE_US,
            Self::Days => DAY_US,
        }
    }
}

/// The length of a bar, UTC: seconds, minutes and hours begin with the day, weeks on Monday, months on the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interval {
    /// So many stored bars.
    Of(Stored, i64),
    Weeks,
    Months,
}

impl Interval {
    /// 1s 5s 15s 30s 1m 5m 15m 30m 1h 4h 1d 1w 1M; empty is 1m. `m` is a minute and `M` a month; other letters are the
    /// same in any case.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let text = text.trim();
        let known = match text {
            "1M" => "1M".to_owned(),
            // `5M` is nothing, rather than five minutes.
            other if other.ends_with('M') => String::new(),
            "" => "1m".to_owned(),
            other => other.to_ascii_lowercase(),
        };
        Ok(match known.as_str() {
            "1s" => Self::Of(Stored::Seconds, 1),
            "5s" => Self::Of(Stored::Seconds, 5),
            "15s" => Self::Of(Stored::Seconds, 15),
            "30s" => Self::Of(Stored::Seconds, 30),
            "1m" => Self::Of(Stored::Minutes, 1),
            "5m" => Self::Of(Stored::Minutes, 5),
            "15m" => Self::Of(Stored::Minutes, 15),
            "30m" => Self::Of(Stored::Minutes, 30),
            "1h" => Self::Of(Stored::Minutes, 60),
            "4h" => Self::Of(Stored::Minutes, 240),
            "1d" => Self::Of(Stored::Days, 1),
            "1w" => Self::Weeks,
            "1M" => Self::Months,
            _ => {
                return Err(Refusal::invalid(
                    Reason::INTERVAL_UNKNOWN,
                    format!(
                        "interval must be one of 1s 5s 15s 30s 1m 5m 15m 30m 1h 4h 1d 1w 1M (a month), not {:?}",
                        truncated(text)
                    ),
                ));
            }
        })
    }

    /// The bars that it joins.
    pub fn stored(self) -> Stored {
        match self {
            Self::Of(stored, _) => stored,
            Self::Weeks | Self::Months => Stored::Days,
        }
    }

    /// How many of them at most.
    pub fn parts_max(self) -> i64 {
        match self {
            Self::Of(_, count) => count,
            Self::Weeks => WEEK_DAYS,
            Self::Months => MONTH_DAYS,
        }
    }

    /// The number of the stored bar with which the span of another begins.
    pub fn begin(self, number: i64) -> i64 {
        match self {
            Self::Of(_, count) => number.div_euclid(count) * count,
            Self::Weeks => number - (number + MONDAY_OFFSET).rem_euclid(WEEK_DAYS),
            Self::Months => {
                let date = time::OffsetDateTime::UNIX_EPOCH.date().checked_add(time::Duration::days(number));
                date.map_or(number, |date| number - i64::from(date.day()) + 1)
            }
        }
    }

    /// Joins stored bars, ascending, by the spans that they are in.
    pub fn join(self, bars: &[(i64, Bar)]) -> Vec<(i64, Bar)> {
        let mut joined: Vec<(i64, Bar)> = Vec::new();
        for (number, bar) in bars {
            let begin = self.begin(*number);
            match joined.last_mut() {
                Some((at, sum)) if *at == begin => *sum = sum.then(*bar),
                _ => joined.push((begin, *bar)),
            }
        }
        joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn day(text: &str) -> i64 {
        let parts: Vec<i32> = text.split('-').map(|p| p.parse().unwrap()).collect();
        let month = time::Month::try_from(parts[1] as u8).unwrap();
        let date = time::Date::from_calendar_date(parts[0], month, parts[2] as u8).unwrap();
        (date - time::OffsetDateTime::UNIX_EPOCH.date()).whole_days()
    }

    #[test]
    fn a_small_m_is_a_minute_and_a_capital_one_a_month() {
        assert_eq!(Interval::parse("1m").unwrap(), Interval::Of(Stored::Minutes, 1));
        assert_eq!(Interval::parse("").unwrap(), Interval::Of(Stored::Minutes, 1));
        assert_eq!(Interval::parse("1M").unwrap(), Interval::Months);
        assert_eq!(Interval::parse("1H").unwrap(), Interval::Of(Stored::Minutes, 60));
        for unknown in ["5M", "15M", "2m", "1y", "m", "1 m"] {
            let refusal = Interval::parse(unknown).unwrap_err();
            assert_eq!(refusal.reason, "INTERVAL_UNKNOWN");
            assert!(refusal.message.contains("1M (a month)"), "{}", refusal.message);
        }
    }

    #[test]
    fn weeks_begin_on_monday_and_months_on_the_first() {
        let of = |interval: Interval, at: &str| interval.begin(day(at));
        assert_eq!(of(Interval::Weeks, "2026-12-01"), day("2026-11-30"));
        assert_eq!(of(Interval::Weeks, "2026-11-30"), day("2026-11-30"));
        assert_eq!(of(Interval::Weeks, "2026-11-29"), day("2026-11-23"));
        assert_eq!(of(Interval::Weeks, "1970-01-01"), day("1969-12-29"));
        assert_eq!(of(Interval::Months, "2024-02-29"), day("2024-02-01"));
        assert_eq!(of(Interval::Months, "2026-12-31"), day("2026-12-01"));
        assert_eq!(of(Interval::Of(Stored::Days, 1), "2026-12-31"), day("2026-12-31"));
    }

    proptest! {
        #[test]
        fn joined_bars_keep_range_and_volume(
            prices in prop::collection::vec((0i64..200, 1i64..1000, 1i64..50), 1..200),
            interval in prop::sample::select(vec![
                Interval::Of(Stored::Minutes, 15), Interval::Weeks, Interval::Months,
            ]),
        ) {
            let mut bars: Vec<(i64, Bar)> = Vec::new();
            for (number, price, qty) in prices {
                bars.push((number, Bar::of_trade(price, qty)));
            }
            bars.sort_by_key(|b| b.0);
            let joined = interval.join(&bars);
            let volume = |b: &[(i64, Bar)]| b.iter().map(|(_, b)| b.volume_e4).sum::<i64>();
            prop_assert_eq!(volume(&bars), volume(&joined));
            prop_assert!(joined.windows(2).all(|w| w[0].0 < w[1].0));
            prop_assert!(joined.iter().all(|(at, _)| interval.begin(*at) == *at));
            prop_assert!(joined.iter().all(|(_, b)| b.low_e4 <= b.open_e4 && b.close_e4 <= b.high_e4));
        }
    }
}
