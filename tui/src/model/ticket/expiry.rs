//! When a GTD order ends: read from what a trader types, and told back as a time and a distance. Times are the zone's,
//! which is named.

use crate::zone::Zone;
use fafnir_rules::check::{self, Violation};
use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time, UtcOffset};

const SECOND_US: i64 = 1_000_000;
const MINUTE_US: i64 = 60 * SECOND_US;
const HOUR_US: i64 = 60 * MINUTE_US;
const DAY_US: i64 = 24 * HOUR_US;
/// The longest [`meaning`], of 366 days.
pub const MEANING_COLUMNS: u16 = 33;
/// What the field takes; the zone follows.
const FORMS: &str = "expires_at reads 18:30, +2h, +3d or 2026-11-25 18:30";

/// Reads `18:30` (today, or tomorrow when that has passed), `+2h`, `+1d12h`, `2026-11-25 18:30[:00]` or RFC 3339.
///
/// # Errors
/// One sentence, in the exchange's words where it would refuse the time too.
pub fn parse(text: &str, now_us: i64, zone: &Zone) -> Result<i64, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(Violation::ExpiryMissing.sentence(""));
    }
    let at_us = match text.strip_prefix('+') {
        Some(span) => span_us(span).and_then(|span| now_us.checked_add(span)),
        None if text.contains(':') && !text.get(..5).is_some_and(|t| t.contains('-')) => {
            next_us(text, now_us, zone)
        }
        None => date_us(text, zone),
    };
    let at_us = at_us.ok_or_else(|| format!("{FORMS} ({})", zone.label(now_us)))?;
    check::expiry(at_us, now_us).map_err(|violation| violation.sentence(""))?;
    Ok(at_us)
}

/// `2h`, `90m`, `1d12h`.
fn span_us(text: &str) -> Option<i64> {
    let mut sum = 0i64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).filter(|end| *end > 0)?;
        let (digits, tail) = rest.split_at(end);
        let unit = match tail.chars().next()? {
            'd' => DAY_US,
            'h' => HOUR_US,
            'm' => MINUTE_US,
            's' => SECOND_US,
            _ => return None,
        };
        sum = sum.checked_add(digits.parse::<i64>().ok()?.checked_mul(unit)?)?;
        rest = &tail[1..];
    }
    (!text.is_empty()).then_some(sum)
}

/// The next time that the clock shows this.
fn next_us(text: &str, now_us: i64, zone: &Zone) -> Option<i64> {
    let time = clock(text)?;
    let shown = zone.shown_us(now_us).div_euclid(SECOND_US);
    let today = OffsetDateTime::from_unix_timestamp(shown).ok()?.date();
    let at_us = zone.moment_us(PrimitiveDateTime::new(today, time))?;
    if at_us > now_us {
        return Some(at_us);
    }
    zone.moment_us(PrimitiveDateTime::new(today.next_day()?, time))
}

/// `HH:MM` or `HH:MM:SS`.
fn clock(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let mut next = || parts.next().map(|part| two_digits(part).ok_or(()));
    let (hour, minute) = (next()?.ok()?, next()?.ok()?);
    let second = next().unwrap_or(Ok(0)).ok()?;
    if next().is_some() {
        return None;
    }
    Time::from_hms(hour, minute, second).ok()
}

fn two_digits(text: &str) -> Option<u8> {
    let is_digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
    is_digits.then(|| text.parse().ok()).flatten()
}

/// `2026-11-25 18:30`, with seconds, with `T`, with an offset.
fn date_us(text: &str, zone: &Zone) -> Option<i64> {
    let (date, rest) = text.split_once([' ', 'T', 't'])?;
    let mut parts = date.split('-');
    let year: i32 = parts.next().filter(|y| y.len() == 4)?.parse().ok()?;
    let month = Month::try_from(two_digits(parts.next()?)?).ok()?;
    let day = two_digits(parts.next()?)?;
    if parts.next().is_some() {
        return None;
    }
    let date = Date::from_calendar_date(year, month, day).ok()?;
    let rest = rest.trim();
    let (time, offset) = match rest.strip_suffix(['Z', 'z']) {
        Some(time) => (time, Some(UtcOffset::UTC)),
        None => match rest.find(['+', '-']) {
            Some(at) => (&rest[..at], Some(offset(&rest[at..])?)),
            None => (rest, None),
        },
    };
    // Parts of a second are dropped: an expiry is to the second.
    let time = time.split_once('.').map_or(time, |(whole, _)| whole);
    let shown = PrimitiveDateTime::new(date, clock(time)?);
    match offset {
        Some(offset) => micros(shown.assume_offset(offset)),
        None => zone.moment_us(shown),
    }
}

fn offset(text: &str) -> Option<UtcOffset> {
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let (hours, minutes) = text.get(1..)?.split_once(':')?;
    let (hours, minutes) = (two_digits(hours)?, two_digits(minutes).filter(|m| *m < 60)?);
    UtcOffset::from_hms(sign * hours.cast_signed(), sign * minutes.cast_signed(), 0).ok()
}

fn micros(at: OffsetDateTime) -> Option<i64> {
    at.unix_timestamp().checked_mul(SECOND_US)
}

/// What a time means: `2026-11-25 18:30:00 UTC (2d6h)`; at most [`MEANING_COLUMNS`] wide.
pub fn meaning(at_us: i64, now_us: i64, zone: &Zone) -> String {
    let left = at_us.saturating_sub(now_us).max(0);
    let (days, hours) = (left / DAY_US, left % DAY_US / HOUR_US);
    let (minutes, seconds) = (left % HOUR_US / MINUTE_US, left % MINUTE_US / SECOND_US);
    let distance = match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, ..) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours}h"),
    };
    let (stamp, label) = (stamp(zone.shown_us(at_us)), zone.label(at_us));
    // A longer name takes the place of the seconds.
    let stamp = if label.len() > 3 { stamp.get(..16).unwrap_or(&stamp) } else { &stamp };
    format!("{stamp} {label} ({distance})")
}

fn stamp(at_us: i64) -> String {
    let Ok(at) = OffsetDateTime::from_unix_timestamp(at_us.div_euclid(SECOND_US)) else {
        return "-".to_owned();
    };
    let (date, time) = (at.date(), at.time());
    let month = u8::from(date.month());
    format!(
        "{:04}-{month:02}-{:02} {:02}:{:02}:{:02}",
        date.year(),
        date.day(),
        time.hour(),
        time.minute(),
        time.second()
    )
}

/// The shortest text that is not mistaken: `18:30` within a day, else `11-25 18:30`, in another year the date.
pub fn short(at_us: i64, now_us: i64, zone: &Zone) -> String {
    let (at, now) = (stamp(zone.shown_us(at_us)), stamp(zone.shown_us(now_us)));
    let whole = at.get(..16).unwrap_or(&at);
    if at_us > now_us && at_us.saturating_sub(now_us) < DAY_US {
        whole.get(11..).unwrap_or(whole).to_owned()
    } else if at.get(..4) == now.get(..4) {
        whole.get(5..).unwrap_or(whole).to_owned()
    } else {
        whole.get(..10).unwrap_or(whole).to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_rules::limits::EXPIRY_US_MAX;

    /// 2026-11-22 12:04:30 UTC.
    const NOW_US: i64 = 1_795_349_070_000_000;

    fn shown(text: &str) -> String {
        parse(text, NOW_US, &Zone::default()).map_or_else(|e| e, |at| meaning(at, NOW_US, &Zone::default()))
    }

    #[test]
    fn an_expiry_reads_as_a_trader_writes_it() {
        for (text, want) in [
            ("18:30", "2026-11-22 18:30:00 UTC (6h25m)"),
            ("9:05", "2026-11-23 09:05:00 UTC (21h00m)"),
            ("12:04:30", "2026-11-23 12:04:30 UTC (1d0h)"),
            ("+45s", "2026-11-22 12:05:15 UTC (45s)"),
            ("+90m", "2026-11-22 13:34:30 UTC (1h30m)"),
            ("+2h", "2026-11-22 14:04:30 UTC (2h00m)"),
            (" +1d12h ", "2026-11-24 00:04:30 UTC (1d12h)"),
            ("+366d", "2027-11-23 12:04:30 UTC (366d0h)"),
            ("2026-11-25 18:30", "2026-11-25 18:30:00 UTC (3d6h)"),
            ("2026-11-25T18:30:15Z", "2026-11-25 18:30:15 UTC (3d6h)"),
            ("2026-11-25T18:30:15.250+02:00", "2026-11-25 16:30:15 UTC (3d4h)"),
            ("2026-11-25 18:30-05:30", "2026-11-26 00:00:00 UTC (3d11h)"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
    }

    #[test]
    fn what_an_expiry_means_fits_into_the_ticket() {
        for seconds in (1..EXPIRY_US_MAX / SECOND_US).step_by(60_007) {
            let text = meaning(NOW_US + seconds * SECOND_US, NOW_US, &Zone::default());
            assert!(text.len() <= MEANING_COLUMNS.into(), "{text}");
        }
    }

    #[test]
    fn an_expiry_that_the_exchange_would_refuse_is_refused_in_its_words() {
        for (text, want) in [
            ("", "expires_at is missing: time in force GTD needs one"),
            ("+0s", "expires_at must be in the future"),
            ("2026-11-22 12:04", "expires_at must be in the future"),
            ("+367d", "expires_at must be within 366 days"),
            ("2027-11-24 00:00", "expires_at must be within 366 days"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        for text in [
            "soon",
            "+",
            "+h",
            "+2",
            "+2w",
            "24:00",
            "12:60",
            "1:2:3:4",
            ":",
            "2026-13-01 10:00",
            "2026-02-30 10:00",
            "2026-11-25",
            "26-11-25 10:00",
            "2026-11-25 10:00+2",
            "2026-11-25 10:00+30:00",
            "+99999999999999999999d",
            "+9223372036854775807d",
            "2026-11-25 18:30 s",
            "éé:00",
        ] {
            assert_eq!(shown(text), format!("{FORMS} (UTC)"), "{text}");
        }
    }

    #[test]
    fn an_expiry_is_shown_as_short_as_is_clear() {
        let zone = &Zone::default();
        let at = |text: &str| short(parse(text, NOW_US, zone).unwrap(), NOW_US, zone);
        assert_eq!(at("18:30"), "18:30");
        assert_eq!(at("2026-11-25 18:30"), "11-25 18:30");
        assert_eq!(at("2027-01-02 18:30"), "2027-01-02");
        assert_eq!(short(NOW_US - 1, NOW_US, zone), "11-22 12:04");
        assert_eq!(short(i64::MAX, NOW_US, zone), "-");
    }
}
