//! When the exchange trades: always, or in the sessions of the New York Stock Exchange, by rule (NYSE Rule 7.2; 15 U.S.C.
//! 260a for daylight saving time since 2007). No table of days, no database of time zones, no clock.
//!
//! Days are counted from 1970-01-01, a Thursday, as in the proleptic Gregorian calendar; times are microseconds since then,
//! UTC. A closure that no rule knows (a day of mourning) is the operator's to make.

use std::fmt;

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// New York is so far behind UTC in winter and in summer.
const STANDARD_US: i64 = 5 * HOUR_US;
const DAYLIGHT_US: i64 = 4 * HOUR_US;
/// Wall times of a session in New York.
const OPENS_US: i64 = 9 * HOUR_US + 30 * MINUTE_US;
const CLOSES_US: i64 = 16 * HOUR_US;
const CLOSES_EARLY_US: i64 = 13 * HOUR_US;
/// Juneteenth is a holiday from this year on.
const JUNETEENTH_FIRST: i64 = 2022;
/// No run of days without a session is longer.
const CLOSED_DAYS_MAX: i64 = 7;

/// What the calendar has every symbol do that its operator leaves open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Session {
    /// There are no sessions: continuous trading, the day ends at 00:00 UTC.
    #[default]
    Always,
    /// Between two sessions: orders gather for the next opening auction.
    PreOpen,
    /// A session: continuous trading between its opening and its closing auction.
    Regular,
}

/// Whose calendar it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Calendar {
    /// Continuous trading on every day.
    #[default]
    Always,
    /// The sessions of the New York Stock Exchange.
    Xnys,
}

impl Calendar {
    /// Every calendar.
    pub const ALL: [Self; 2] = [Self::Always, Self::Xnys];

    /// What it is called in the configuration; of an exchange its ISO 10383 code.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "24x7",
            Self::Xnys => "xnys",
        }
    }

    /// The calendar of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|calendar| calendar.name() == name)
    }

    /// The session at a time.
    pub fn session(self, now_us: i64) -> Session {
        match self {
            Self::Always => Session::Always,
            Self::Xnys if hours_around(now_us).is_some_and(|hours| hours.contains(now_us)) => {
                Session::Regular
            }
            Self::Xnys => Session::PreOpen,
        }
    }

    /// When the session changes next after a time. `None`: never.
    pub fn next_change_us(self, after_us: i64) -> Option<i64> {
        if self == Self::Always {
            return None;
        }
        let first = day_of(after_us);
        let hours = (first..=first + CLOSED_DAYS_MAX).filter_map(hours);
        hours.flat_map(|h| [h.opens_us, h.closes_us]).find(|at| *at > after_us)
    }

    /// The sessions that an exchange must go through which stands in `is` since `since_us`, to do what it should at
    /// `now_us`. What was missed is made up for: the session that it stands in ends, and where whole sessions were missed
    /// one stands for all of them, so that what was for one session only ends.
    pub fn due(self, is: Session, since_us: i64, now_us: i64) -> Vec<Session> {
        let should = self.session(now_us);
        if self == Self::Always || is == Session::Always {
            return if is == should { Vec::new() } else { vec![should] };
        }
        let is_missed = self.next_change_us(since_us).is_some_and(|at| at <= now_us);
        match (is, should) {
            (Session::Regular, Session::PreOpen) => vec![Session::PreOpen],
            (Session::PreOpen, Session::Regular) if self.missed_close(since_us, now_us) => {
                vec![Session::Regular, Session::PreOpen, Session::Regular]
            }
            (Session::PreOpen, Session::Regular) => vec![Session::Regular],
            (Session::Regular, Session::Regular) if is_missed => vec![Session::PreOpen, Session::Regular],
            (Session::PreOpen, Session::PreOpen) if is_missed => vec![Session::Regular, Session::PreOpen],
            _ => Vec::new(),
        }
    }

    /// Whether a session ended between the two times, of which the first lies before its opening.
    fn missed_close(self, since_us: i64, now_us: i64) -> bool {
        let closed = self.next_change_us(since_us).and_then(|opened| self.next_change_us(opened));
        closed.is_some_and(|at| at <= now_us)
    }
}

impl fmt::Display for Calendar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// A session of the New York Stock Exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hours {
    opens_us: i64,
    /// The first moment after it.
    closes_us: i64,
}

impl Hours {
    fn contains(self, now_us: i64) -> bool {
        (self.opens_us..self.closes_us).contains(&now_us)
    }
}

/// The session of a day in New York; `None` on a weekend and on a holiday.
fn hours(day: i64) -> Option<Hours> {
    if is_weekend(day) || is_holiday(day) {
        return None;
    }
    let midnight_us = day * DAY_US + offset_us(day);
    let closes_us = if is_half_day(day) { CLOSES_EARLY_US } else { CLOSES_US };
    Some(Hours { opens_us: midnight_us + OPENS_US, closes_us: midnight_us + closes_us })
}

/// The session of the day that it is in New York at a time: sessions begin and end within one UTC day.
fn hours_around(now_us: i64) -> Option<Hours> {
    hours(day_of(now_us))
}

fn day_of(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US)
}

/// How far New York is behind UTC in the hours of a session: clocks change on Sundays, at night.
fn offset_us(day: i64) -> i64 {
    let (year, ..) = date(day);
    let summer = nth(year, 3, Weekday::Sunday, 2)..nth(year, 11, Weekday::Sunday, 1);
    if summer.contains(&day) { DAYLIGHT_US } else { STANDARD_US }
}

/// Whether the exchange is closed for a holiday on a day of the week.
///
/// A holiday on a Sunday is kept on the Monday after it, one on a Saturday on the Friday before it, but for New Year's Day:
/// the last business day of a year is not given away.
fn is_holiday(day: i64) -> bool {
    let (year, ..) = date(day);
    let kept = |holiday: i64| match weekday(holiday) {
        Weekday::Saturday => holiday - 1,
        Weekday::Sunday => holiday + 1,
        _ => holiday,
    };
    let new_year = day_number(year, 1, 1);
    let is_new_year = weekday(new_year) != Weekday::Saturday && kept(new_year) == day;
    let is_juneteenth = year >= JUNETEENTH_FIRST && kept(day_number(year, 6, 19)) == day;
    let others = [
        nth(year, 1, Weekday::Monday, 3),
        nth(year, 2, Weekday::Monday, 3),
        easter(year) - 2,
        // The last of May: a week before the first of June.
        nth(year, 6, Weekday::Monday, 1) - 7,
        kept(day_number(year, 7, 4)),
        nth(year, 9, Weekday::Monday, 1),
        thanksgiving(year),
        kept(day_number(year, 12, 25)),
    ];
    is_new_year || is_juneteenth || others.contains(&day)
}

/// Whether a session ends at 13:00: the eve of Independence Day and of Christmas where both they and the holiday are days
/// of the week, and the day after Thanksgiving.
fn is_half_day(day: i64) -> bool {
    let (year, month, of_month) = date(day);
    let is_eve = matches!((month, of_month), (7, 3) | (12, 24));
    (is_eve && !is_weekend(day) && !is_weekend(day + 1)) || day == thanksgiving(year) + 1
}

fn thanksgiving(year: i64) -> i64 {
    nth(year, 11, Weekday::Thursday, 4)
}

/// Easter Sunday by the computus for the Gregorian calendar (Meeus, Jones, Butcher).
fn easter(year: i64) -> i64 {
    let (golden, century, of_century) = (year % 19, year / 100, year % 100);
    let moon_shift = (century - (century + 8) / 25 + 1) / 3;
    let epact = (19 * golden + century - century / 4 - moon_shift + 15) % 30;
    let to_sunday = (32 + 2 * (century % 4) + 2 * (of_century / 4) - epact - of_century % 4) % 7;
    let correction = (golden + 11 * epact + 22 * to_sunday) / 451;
    let from_march = epact + to_sunday - 7 * correction + 114;
    day_number(year, from_march / 31, from_march % 31 + 1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Weekday {
    Sunday = 0,
    Monday = 1,
    Tuesday = 2,
    Wednesday = 3,
    Thursday = 4,
    Friday = 5,
    Saturday = 6,
}

const WEEK: [Weekday; 7] = [
    Weekday::Sunday,
    Weekday::Monday,
    Weekday::Tuesday,
    Weekday::Wednesday,
    Weekday::Thursday,
    Weekday::Friday,
    Weekday::Saturday,
];

fn weekday(day: i64) -> Weekday {
    WEEK[usize::try_from((day + Weekday::Thursday as i64).rem_euclid(7)).unwrap_or(0)]
}

fn is_weekend(day: i64) -> bool {
    matches!(weekday(day), Weekday::Saturday | Weekday::Sunday)
}

/// The `n`th such day of the week in a month, counted from 1.
fn nth(year: i64, month: i64, of: Weekday, n: i64) -> i64 {
    let first = day_number(year, month, 1);
    first + (of as i64 - weekday(first) as i64).rem_euclid(7) + 7 * (n - 1)
}

/// Number of a date, by years that begin in March, whose months have lengths by rule.
fn day_number(year: i64, month: i64, of_month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (cycle, of_cycle) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + of_month - 1;
    cycle * 146_097 + of_cycle * 365 + of_cycle / 4 - of_cycle / 100 + of_year - 719_468
}

/// Year, month and day of the month.
fn date(day: i64) -> (i64, i64, i64) {
    let shifted = day + 719_468;
    let (cycle, of_cycle) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let years = (of_cycle - of_cycle / 1_460 + of_cycle / 36_524 - of_cycle / 146_096) / 365;
    let of_year = of_cycle - (365 * years + years / 4 - years / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = cycle * 400 + years + i64::from(month <= 2);
    (year, month, of_year - (153 * from_march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests;
