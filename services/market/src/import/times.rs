//! Times as vendors write them.

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, format_description::well_known::Rfc3339};

const SECOND_US: i64 = 1_000_000;
/// Epochs are of seconds, milliseconds, microseconds or nanoseconds: told apart by their size. Bounds are years 1973 and
/// 5138 in seconds.
const EPOCH_MIN: i64 = 100_000_000;

/// Microseconds since 1970, UTC, and whether a time of day was said.
pub fn parse(text: &str, clock: Option<&str>) -> Result<(i64, bool), &'static str> {
    const UNKNOWN: &str = "is no time that is known: 2026-11-30, 20261130, 2026-11-30T14:30:00Z, or an epoch";
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if let Some(clock) = clock.filter(|c| !c.is_empty()) {
        let date = date(text).ok_or(UNKNOWN)?;
        let time =
            time(clock).ok_or("has a time of day beside it that is none: 14:30, 14:30:00 or 143000")?;
        let is_day = digits(clock) && clock.bytes().all(|b| b == b'0');
        return Ok((micros(PrimitiveDateTime::new(date, time).assume_utc()), !is_day));
    }
    if let Some(date) = date(text) {
        return Ok((micros(date.midnight().assume_utc()), false));
    }
    if digits(text) {
        return epoch(text.parse().map_err(|_| UNKNOWN)?).map(|us| (us, true)).ok_or(UNKNOWN);
    }
    if let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) {
        return Ok((micros(at), true));
    }
    // 2026-11-30 14:30:00, perhaps with +00:00.
    let (day, clock) = text.split_once([' ', 'T']).ok_or(UNKNOWN)?;
    if let Ok(at) = OffsetDateTime::parse(&format!("{day}T{clock}"), &Rfc3339) {
        return Ok((micros(at), true));
    }
    let (date, time) = (date(day).ok_or(UNKNOWN)?, time(clock).ok_or(UNKNOWN)?);
    Ok((micros(PrimitiveDateTime::new(date, time).assume_utc()), true))
}

fn micros(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000).unwrap_or(0)
}

fn epoch(number: i64) -> Option<i64> {
    let thousand = EPOCH_MIN.checked_mul(1_000)?;
    match number {
        n if n < EPOCH_MIN => None,
        n if n < thousand => n.checked_mul(SECOND_US),
        n if n < thousand * 1_000 => n.checked_mul(1_000),
        n if n < thousand * 1_000_000 => Some(n),
        n => Some(n / 1_000),
    }
}

/// `2026-11-30`, `2026/11/30` or `20261130`.
fn date(text: &str) -> Option<Date> {
    let parts: Vec<&str> = match text.split(['-', '/']).collect::<Vec<_>>() {
        parts if parts.len() == 3 => parts,
        _ if text.len() == 8 && text.is_ascii() => vec![&text[..4], &text[4..6], &text[6..]],
        _ => return None,
    };
    let number =
        |n: usize| parts[n].parse::<u16>().ok().filter(|_| parts[n].bytes().all(|b| b.is_ascii_digit()));
    let month = Month::try_from(u8::try_from(number(1)?).ok()?).ok()?;
    let year = number(0).filter(|year| *year >= 1_900)?;
    Date::from_calendar_date(year.into(), month, u8::try_from(number(2)?).ok()?).ok()
}

/// `14:30`, `14:30:00` or `143000`.
fn time(text: &str) -> Option<Time> {
    let parts: Vec<&str> = match text.split(':').collect::<Vec<_>>() {
        parts if parts.len() == 2 || parts.len() == 3 => parts,
        _ if text.len() == 6 && text.is_ascii() => vec![&text[..2], &text[2..4], &text[4..]],
        _ => return None,
    };
    let number = |n: usize| parts.get(n).map_or(Some(0), |p| p.parse::<u8>().ok());
    Time::from_hms(number(0)?, number(1)?, number(2)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_way_to_write_a_moment_is_the_same_moment() {
        let at = 1_764_513_000_000_000;
        for text in [
            "2025-11-30T14:30:00Z",
            "2025-11-30T09:30:00-05:00",
            "2025-11-30 14:30:00+00:00",
            "2025-11-30 14:30:00",
            "1764513000",
            "1764513000000",
            "1764513000000000",
            "1764513000000000000",
        ] {
            assert_eq!(parse(text, None), Ok((at, true)), "{text}");
        }
        assert_eq!(parse("20251130", Some("143000")), Ok((at, true)));
        assert_eq!(parse("2025-11-30", Some("14:30")), Ok((at, true)));
        assert_eq!(parse("2025-11-30", None), Ok((at - 52_200_000_000, false)));
        assert_eq!(parse("20251130", Some("000000")), Ok((at - 52_200_000_000, false)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in ["", "yesterday", "2025-13-01", "2025-02-30", "30.11.2025", "12", "2025-11-30T25:00:00Z"]
        {
            assert!(parse(text, None).is_err(), "{text}");
        }
        assert!(parse("2025-11-30", Some("25:00")).is_err());
    }
}
