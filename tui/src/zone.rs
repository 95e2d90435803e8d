//! The time zone that clocks are shown in, and that a time is read in which names none.

use jiff::{Timestamp, tz::TimeZone};
use time::PrimitiveDateTime;

const SECOND_US: i64 = 1_000_000;
/// Columns of the longest [`Zone::label`].
pub const LABEL_COLUMNS: usize = 5;

/// A time zone; UTC unless the user wants another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Default for Zone {
    fn default() -> Self {
        Self(TimeZone::UTC)
    }
}

impl Zone {
    /// `local` (UTC where the system does not say which), `UTC`, or a name of the system's database such as
    /// `America/New_York`; none where it knows no such zone.
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "local" => Some(Self(TimeZone::try_system().unwrap_or(TimeZone::UTC))),
            "UTC" => Some(Self::default()),
            name => TimeZone::get(name).ok().map(Self),
        }
    }

    /// How far its clocks are ahead of UTC at a moment, both in microseconds.
    pub fn offset_us(&self, at_us: i64) -> i64 {
        let moment = Timestamp::from_microsecond(at_us).unwrap_or(Timestamp::UNIX_EPOCH);
        i64::from(self.0.to_offset(moment).seconds()) * SECOND_US
    }

    /// What its clocks show at a moment, as if it were UTC.
    pub fn shown_us(&self, at_us: i64) -> i64 {
        at_us.saturating_add(self.offset_us(at_us))
    }

    /// The moment at which its clocks show this, in microseconds since 1970 UTC; of an hour that comes twice one of both.
    pub fn moment_us(&self, shown: PrimitiveDateTime) -> Option<i64> {
        let shown_us = shown.assume_utc().unix_timestamp().checked_mul(SECOND_US)?;
        let near_us = shown_us.checked_sub(self.offset_us(shown_us))?;
        shown_us.checked_sub(self.offset_us(near_us))
    }

    /// Its name at a moment, at most [`LABEL_COLUMNS`] wide: `UTC`, `CEST`, `+0530`.
    pub fn label(&self, at_us: i64) -> String {
        let moment = Timestamp::from_microsecond(at_us).unwrap_or(Timestamp::UNIX_EPOCH);
        let name = self.0.to_offset_info(moment).abbreviation().to_owned();
        if !name.is_empty() && name.len() <= LABEL_COLUMNS && name.is_ascii() {
            return name;
        }
        let minutes = self.offset_us(at_us) / SECOND_US / 60;
        let sign = if minutes < 0 { '-' } else { '+' };
        format!("{sign}{:02}{:02}", minutes.abs() / 60, minutes.abs() % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::macros::datetime;

    fn us(at: PrimitiveDateTime) -> i64 {
        at.assume_utc().unix_timestamp() * SECOND_US
    }

    #[test]
    fn clocks_are_put_back_and_a_time_is_read_as_they_show_it() {
        let zone = Zone(TimeZone::posix("EST5EDT,M3.2.0,M11.1.0").unwrap());
        let (summer, winter) = (us(datetime!(2026-07-01 16:00)), us(datetime!(2026-12-01 16:00)));
        assert_eq!(zone.offset_us(summer), -4 * 3_600 * SECOND_US);
        assert_eq!(zone.offset_us(winter), -5 * 3_600 * SECOND_US);
        assert_eq!((zone.label(summer).as_str(), zone.label(winter).as_str()), ("EDT", "EST"));
        assert_eq!(zone.moment_us(datetime!(2026-07-01 12:00)), Some(summer));
        assert_eq!(zone.moment_us(datetime!(2026-12-01 11:00)), Some(winter));
        // The last hour before and the first one after the change.
        let before = us(datetime!(2026-11-01 04:30));
        assert_eq!(zone.moment_us(datetime!(2026-11-01 00:30)), Some(before));
        assert_eq!(zone.moment_us(datetime!(2026-11-01 02:30)), Some(before + 3 * 3_600 * SECOND_US));
    }

    #[test]
    fn utc_says_utc_and_an_unknown_name_is_none() {
        assert_eq!(Zone::default().label(0), "UTC");
        assert_eq!(Zone::named("UTC"), Some(Zone::default()));
        assert_eq!(Zone::named("Mars/Olympus"), None);
        assert!(Zone::named("local").is_some());
    }
}
