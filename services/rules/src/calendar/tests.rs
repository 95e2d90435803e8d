//! The calendar beside what was published, and its sessions through the clock changes.

use super::*;
use std::collections::BTreeSet;

/// Months and days of the month.
type Days = &'static [(i64, i64)];

/// Holidays and half days of 2022 to 2027 as NYSE Group published them:
/// "NYSE Group Announces 2022, 2023 and 2024 Holiday and Early Closings Calendar" (2021-12-27) and "NYSE Group Announces
/// 2025, 2026 and 2027 Holiday and Early Closings Calendar" (2024-11-08), Business Wire, repeated at
/// mondovisione.com/media-and-resources/news; the same tables stand at nyse.com/markets/hours-calendars.
const PUBLISHED: [(i64, Days, Days); 6] = [
    (2022, &[(1, 17), (2, 21), (4, 15), (5, 30), (6, 20), (7, 4), (9, 5), (11, 24), (12, 26)], &[(11, 25)]),
    (
        2023,
        &[(1, 2), (1, 16), (2, 20), (4, 7), (5, 29), (6, 19), (7, 4), (9, 4), (11, 23), (12, 25)],
        &[(7, 3), (11, 24)],
    ),
    (
        2024,
        &[(1, 1), (1, 15), (2, 19), (3, 29), (5, 27), (6, 19), (7, 4), (9, 2), (11, 28), (12, 25)],
        &[(7, 3), (11, 29), (12, 24)],
    ),
    (
        2025,
        &[(1, 1), (1, 20), (2, 17), (4, 18), (5, 26), (6, 19), (7, 4), (9, 1), (11, 27), (12, 25)],
        &[(7, 3), (11, 28), (12, 24)],
    ),
    (
        2026,
        &[(1, 1), (1, 19), (2, 16), (4, 3), (5, 25), (6, 19), (7, 3), (9, 7), (11, 26), (12, 25)],
        &[(11, 27), (12, 24)],
    ),
    (
        2027,
        &[(1, 1), (1, 18), (2, 15), (3, 26), (5, 31), (6, 18), (7, 5), (9, 6), (11, 25), (12, 24)],
        &[(11, 26)],
    ),
];

#[test]
fn every_holiday_and_half_day_of_six_years_is_as_published() {
    for (year, holidays, half_days) in PUBLISHED {
        let week = || (day_number(year, 1, 1)..day_number(year + 1, 1, 1)).filter(|day| !is_weekend(*day));
        let dates = |which: &dyn Fn(i64) -> bool| -> BTreeSet<(i64, i64)> {
            week().filter(|day| which(*day)).map(|day| (date(day).1, date(day).2)).collect()
        };
        let published = |days: &[(i64, i64)]| days.iter().copied().collect::<BTreeSet<_>>();
        assert_eq!(dates(&|day| hours(day).is_none()), published(holidays), "{year}");
        let is_short = |day| hours(day).is_some_and(|h: Hours| h.closes_us - h.opens_us < 4 * HOUR_US);
        assert_eq!(dates(&is_short), published(half_days), "{year}");
    }
}

#[test]
fn a_year_has_the_sessions_that_its_holidays_leave() {
    let sessions = |year| {
        (day_number(year, 1, 1)..day_number(year + 1, 1, 1)).filter(|day| hours(*day).is_some()).count()
    };
    // 252 sessions in 2024, 251 in 2022, as counted by hand from the published days.
    assert_eq!((sessions(2024), sessions(2022)), (252, 251));
}

#[test]
fn juneteenth_is_kept_from_2022_on_and_no_year_gives_its_last_business_day_away() {
    assert!(!is_holiday(day_number(2021, 6, 18)) && is_holiday(day_number(2022, 6, 20)));
    for year in 2007..2200 {
        let last = (day_number(year, 12, 27)..=day_number(year, 12, 31)).rev().find(|day| !is_weekend(*day));
        assert!(last.is_some_and(|day| hours(day).is_some()), "{year}");
    }
}

#[test]
fn easter_is_where_the_church_has_it() {
    // US Naval Observatory, "Dates of Easter": the earliest and the latest, and some between.
    for (year, month, of_month) in [
        (1818, 3, 22),
        (1943, 4, 25),
        (2000, 4, 23),
        (2008, 3, 23),
        (2024, 3, 31),
        (2038, 4, 25),
        (2285, 3, 22),
    ] {
        assert_eq!(date(easter(year)), (year, month, of_month));
    }
}

#[test]
fn a_number_is_its_date_and_a_week_has_seven_days() {
    assert_eq!(day_number(1970, 1, 1), 0);
    assert_eq!((day_number(2000, 2, 29), weekday(day_number(2026, 11, 30))), (11_016, Weekday::Monday));
    for day in -200_000..200_000 {
        let (year, month, of_month) = date(day);
        assert_eq!(day_number(year, month, of_month), day);
    }
}

/// Microseconds of a UTC date and time.
fn utc(date: (i64, i64, i64), hour: i64, minute: i64) -> i64 {
    day_number(date.0, date.1, date.2) * DAY_US + hour * HOUR_US + minute * MINUTE_US
}

#[test]
fn a_session_is_at_new_york_time_on_either_side_of_a_clock_change() {
    let of =
        |date: (i64, i64, i64)| hours(day_number(date.0, date.1, date.2)).map(|h| (h.opens_us, h.closes_us));
    for (date, opens, closes) in [
        // The clocks go forward on 2026-03-08 and back on 2026-11-01.
        ((2026, 3, 6), (14, 30), (21, 0)),
        ((2026, 3, 9), (13, 30), (20, 0)),
        ((2026, 10, 30), (13, 30), (20, 0)),
        ((2026, 11, 2), (14, 30), (21, 0)),
        ((2026, 11, 27), (14, 30), (18, 0)),
        ((2025, 7, 3), (13, 30), (17, 0)),
    ] {
        assert_eq!(of(date), Some((utc(date, opens.0, opens.1), utc(date, closes.0, closes.1))), "{date:?}");
    }
    assert_eq!(of((2026, 11, 26)), None);
}

#[test]
fn the_session_changes_at_its_opening_and_its_close_and_at_no_other_time() {
    let (wednesday, friday, monday) = ((2026, 11, 25), (2026, 11, 27), (2026, 11, 30));
    let mut at = utc(wednesday, 12, 0);
    let mut seen = Vec::new();
    for _ in 0..5 {
        at = Calendar::Xnys.next_change_us(at).unwrap();
        seen.push((at, Calendar::Xnys.session(at - 1), Calendar::Xnys.session(at)));
    }
    let (opens, closes) = ((Session::PreOpen, Session::Regular), (Session::Regular, Session::PreOpen));
    let expected = [
        (utc(wednesday, 14, 30), opens),
        (utc(wednesday, 21, 0), closes),
        // Thanksgiving, and the half day after it.
        (utc(friday, 14, 30), opens),
        (utc(friday, 18, 0), closes),
        (utc(monday, 14, 30), opens),
    ];
    assert_eq!(seen, expected.map(|(at, (before, after))| (at, before, after)));
    assert_eq!((Calendar::Always.next_change_us(at), Calendar::Always.session(at)), (None, Session::Always));
}

#[test]
fn what_an_exchange_missed_is_made_up_for_once() {
    use Session::{Always, PreOpen, Regular};
    let (xnys, tuesday) = (Calendar::Xnys, (2026, 11, 24));
    let (night, noon, evening) = (utc(tuesday, 3, 0), utc(tuesday, 17, 0), utc(tuesday, 23, 0));
    let days = |n: i64| n * DAY_US;
    for (is, since, now, due) in [
        (PreOpen, night, night + HOUR_US, vec![]),
        (PreOpen, night, noon, vec![Regular]),
        (PreOpen, night, evening, vec![Regular, PreOpen]),
        // A day more: Wednesday's session.
        (PreOpen, night, noon + days(1), vec![Regular, PreOpen, Regular]),
        (PreOpen, night, evening + days(6), vec![Regular, PreOpen]),
        (Regular, noon, noon + HOUR_US, vec![]),
        (Regular, noon, evening, vec![PreOpen]),
        (Regular, noon, noon + days(1), vec![PreOpen, Regular]),
        (Regular, noon, evening + days(30), vec![PreOpen]),
        (Always, night, noon, vec![Regular]),
        (Always, night, evening, vec![PreOpen]),
    ] {
        assert_eq!(xnys.due(is, since, now), due, "{is:?}");
    }
    assert_eq!(Calendar::Always.due(Regular, noon, evening), [Always]);
    assert_eq!(Calendar::Always.due(Always, night, evening), []);
}

#[test]
fn a_calendar_is_read_by_its_name_alone() {
    for calendar in Calendar::ALL {
        assert_eq!(Calendar::parse(calendar.name()), Some(calendar));
    }
    assert_eq!((Calendar::parse("XNYS"), Calendar::parse("")), (None, None));
}
