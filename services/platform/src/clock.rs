//! The only place that reads the wall clock, so that tests hand in the time.

use std::{fmt, sync::Arc, time::SystemTime};

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// Microseconds in a day of the UTC calendar.
pub const DAY_US: i64 = 86_400 * SECOND_US;

/// Where the time comes from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> i64 + Send + Sync>);

impl Clock {
    /// The machine's wall clock.
    #[expect(clippy::disallowed_methods, reason = "the one place that reads it")]
    pub fn wall() -> Self {
        Self(Arc::new(|| {
            SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
        }))
    }

    /// A clock that a test sets.
    pub fn from_fn(now_us: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now_us))
    }

    /// Microseconds since 1970-01-01 UTC.
    pub fn now_us(&self) -> i64 {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// The machine's time for the spans of a trace, by which nothing is decided.
#[expect(clippy::disallowed_methods, reason = "what spans of other machines are compared with")]
pub fn moment() -> SystemTime {
    SystemTime::now()
}

/// RFC 3339 in UTC with microseconds; a time outside the calendar prints as 1970.
pub fn rfc3339(time_us: i64) -> String {
    time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(time_us) * 1000)
        .ok()
        .and_then(|t| t.format(&time::format_description::well_known::Rfc3339).ok())
        .unwrap_or_else(|| "1970-01-01T00:00:00Z".to_owned())
}

/// The UTC date, `YYYY-MM-DD`.
pub fn date(time_us: i64) -> String {
    rfc3339(time_us).chars().take(10).collect()
}
