//! Times as text: RFC 3339 in UTC. Nothing here asks what time it is.

use super::net::Nanos;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The text of a time; zero is the original's zero time.
pub fn text(at: Nanos) -> String {
    if at == 0 {
        return "0001-01-01T00:00:00Z".into();
    }
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(at))
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_else(|| "0001-01-01T00:00:00Z".into())
}

/// The time of a text; times before 1970 are 1970.
pub fn parse(text: &str) -> Option<Nanos> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    Some(u64::try_from(time.unix_timestamp_nanos().max(0)).unwrap_or(u64::MAX))
}
