//! Spans of time that figures are asked for: named periods, days, moments. All of it is UTC.

use fafnir_platform::clock::{DAY_US, SECOND_US};
use time::{
    Date, OffsetDateTime, format_description::well_known::Iso8601, format_description::well_known::Rfc3339,
};

/// Microseconds of a minute, the finest interval.
pub const MINUTE_US: i64 = 60 * SECOND_US;
/// Days of a statement that does not say where it begins.
const STATEMENT_DAYS: i64 = 30;
/// Points of a curve.
pub const POINTS_MAX: i64 = 2_000;

/// Periods and how many days each has, the last one included.
const PERIODS: [(&str, i64); 9] = [
    ("1D", 1),
    ("1W", 7),
    ("1M", 30),
    ("3M", 91),
    ("6M", 182),
    ("1Y", 365),
    ("2Y", 730),
    ("5Y", 1826),
    ("MAX", i64::MAX / DAY_US / 2),
];

/// Distances of the points of a curve.
const INTERVALS: [(&str, i64); 5] = [
    ("1m", MINUTE_US),
    ("5m", 5 * MINUTE_US),
    ("15m", 15 * MINUTE_US),
    ("1h", 60 * MINUTE_US),
    ("1d", DAY_US),
];

/// Why a span is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{0} must be a day, YYYY-MM-DD, or a moment as in RFC 3339")]
    Date(&'static str),
    #[error("from must be before the end of the span")]
    Empty,
    #[error("period must be one of 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX")]
    Period,
    #[error("interval must be one of 1m 5m 15m 1h 1d")]
    Interval,
    #[error("the span has more than {POINTS_MAX} points; choose a longer interval or a later from")]
    TooLong,
}

/// From a first moment to the one after the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from_us: i64,
    pub to_us: i64,
}

/// A named period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    /// In capitals.
    pub name: &'static str,
    days: i64,
}

impl Period {
    /// The period of a name in any case.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let text = text.trim();
        let found = PERIODS.into_iter().find(|(name, _)| name.eq_ignore_ascii_case(text));
        found.map(|(name, days)| Self { name, days }).ok_or(Malformed::Period)
    }
}

impl Span {
    /// A span of two moments; without `to` until `now_us`, which nothing is after; without `from` so many days.
    fn parse(from: Option<&str>, to: Option<&str>, days: i64, now_us: i64) -> Result<Self, Malformed> {
        // What happens in this microsecond belongs to it.
        let end_us = now_us + 1;
        let to_us = to.map_or(Ok(end_us), |text| Ok(moment("to", text, DAY_US)?.min(end_us)))?;
        let from_us = match from {
            Some(text) => moment("from", text, 0)?,
            None => start_of_day(to_us - 1).saturating_sub((days - 1) * DAY_US),
        };
        if from_us >= to_us { Err(Malformed::Empty) } else { Ok(Self { from_us, to_us }) }
    }

    /// The span of a statement: without `from` its last 30 days.
    pub fn of_statement(from: Option<&str>, to: Option<&str>, now_us: i64) -> Result<Self, Malformed> {
        Self::parse(from, to, STATEMENT_DAYS, now_us)
    }

    /// The span of figures: without `from` the named period, and not before the day on which the account was opened.
    pub fn of_figures(
        period: Period,
        from: Option<&str>,
        to: Option<&str>,
        opened_us: i64,
        now_us: i64,
    ) -> Result<Self, Malformed> {
        let span = Self::parse(from, to, period.days, now_us)?;
        if from.is_some() {
            return Ok(span);
        }
        let opened = start_of_day(opened_us).min(start_of_day(span.to_us - 1));
        Ok(Self { from_us: span.from_us.max(opened), ..span })
    }

    /// The ends of its intervals, on the clock: the first begins with the span, the last ends with it.
    pub fn points(self, interval: &str) -> Result<Vec<(i64, i64)>, Malformed> {
        let interval = if interval.is_empty() { "1d" } else { interval };
        let (_, length) =
            INTERVALS.into_iter().find(|(name, _)| *name == interval).ok_or(Malformed::Interval)?;
        if (self.to_us - self.from_us) / length > POINTS_MAX - 2 {
            return Err(Malformed::TooLong);
        }
        let mut points = Vec::new();
        let mut from_us = self.from_us;
        while from_us < self.to_us {
            let until_us = ((from_us.div_euclid(length) + 1) * length).min(self.to_us);
            points.push((from_us, until_us));
            from_us = until_us;
        }
        Ok(points)
    }
}

/// The start of the UTC day of a time.
pub fn start_of_day(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US) * DAY_US
}

/// A day, to which `day_us` is added, or a moment.
pub fn moment(field: &'static str, text: &str, day_us: i64) -> Result<i64, Malformed> {
    let text = text.trim();
    // A day and nothing behind it.
    if text.len() == "YYYY-MM-DD".len()
        && let Ok(day) = Date::parse(text, &Iso8601::DATE)
    {
        return Ok(day.midnight().assume_utc().unix_timestamp() * SECOND_US + day_us);
    }
    let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| Malformed::Date(field))?;
    i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).map_err(|_| Malformed::Date(field))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: i64 = 100 * DAY_US + DAY_US / 2;

    #[test]
    fn a_span_is_of_days_or_of_moments() {
        let whole = Span::of_statement(None, None, NOON).unwrap();
        assert_eq!(whole, Span { from_us: 71 * DAY_US, to_us: NOON + 1 });
        let day = Span::of_statement(Some("1970-01-02"), Some(" 1970-01-02 "), NOON).unwrap();
        assert_eq!(day, Span { from_us: DAY_US, to_us: 2 * DAY_US });
        let moments =
            Span::of_statement(Some("1970-01-02T01:00:00.5+01:00"), Some("1970-01-03T00:00:00Z"), NOON);
        assert_eq!(moments, Ok(Span { from_us: DAY_US + SECOND_US / 2, to_us: 2 * DAY_US }));
        assert_eq!(Span::of_statement(None, Some("2999-01-01"), NOON).unwrap().to_us, NOON + 1);
        assert_eq!(Span::of_statement(Some("2026-02-30"), None, NOON), Err(Malformed::Date("from")));
        assert_eq!(Span::of_statement(Some("1970-01-03"), Some("1970-01-02"), NOON), Err(Malformed::Empty));
        assert_eq!(Span::of_statement(Some("2999-01-01"), None, NOON), Err(Malformed::Empty));
    }

    #[test]
    fn a_period_has_its_days_but_none_before_the_account() {
        let span = |period: &str, opened_us| {
            Span::of_figures(Period::parse(period).unwrap(), None, None, opened_us, NOON).unwrap()
        };
        assert_eq!(span(" 1d ", 0), Span { from_us: 100 * DAY_US, to_us: NOON + 1 });
        assert_eq!(span("1w", 0).from_us, 94 * DAY_US);
        assert_eq!(span("1W", 98 * DAY_US + 7).from_us, 98 * DAY_US);
        assert_eq!(span("MAX", 3).from_us, 0);
        assert_eq!(span("1D", NOON - 5).from_us, 100 * DAY_US);
        assert_eq!(Period::parse("4M"), Err(Malformed::Period));
    }

    #[test]
    fn points_are_on_the_clock_and_the_last_ends_with_the_span() {
        let span = Span { from_us: DAY_US + 5, to_us: 3 * DAY_US + 7 };
        let day = |n: i64| n * DAY_US;
        assert_eq!(span.points("").unwrap(), [(day(1) + 5, day(2)), (day(2), day(3)), (day(3), day(3) + 7)]);
        assert_eq!(span.points("1h").unwrap().len(), 49);
        assert_eq!(span.points("1m"), Err(Malformed::TooLong));
        assert_eq!(span.points("2h"), Err(Malformed::Interval));
    }
}
