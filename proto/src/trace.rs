//! Which trace a request belongs to (W3C Trace Context): a `traceparent` in headers, 25 bytes in the journal and the facts.

use std::fmt;
use uuid::Uuid;

/// Bytes of a trace where it is stored.
pub const TRACE_BYTES: usize = 25;
/// The flag of a trace whose spans are recorded.
const SAMPLED: u8 = 1;

/// A trace, and the span in it that what comes next is part of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trace {
    /// Never 0.
    pub id: u128,
    /// Never 0.
    pub span: u64,
    /// Its spans are recorded, where somebody takes them.
    pub is_sampled: bool,
}

impl Trace {
    /// A trace that begins here.
    pub fn begin(is_sampled: bool) -> Self {
        Self { id: Uuid::new_v4().as_u128(), span: new_span(), is_sampled }
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self) -> Self {
        Self { span: new_span(), ..self }
    }

    /// Reads a `traceparent`: version, trace, span, flags. `None` where it is none.
    pub fn parse(traceparent: &str) -> Option<Self> {
        let mut parts = traceparent.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_hex = |text: &str, len| {
            text.len() == len && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let is_one = is_hex(version, 2) && is_hex(trace, 32) && is_hex(span, 16) && is_hex(flags, 2);
        if !is_one || version == "ff" || version == "00" && parts.next().is_some() {
            return None;
        }
        let flags = u8::from_str_radix(flags, 16).ok()?;
        Self::of(u128::from_str_radix(trace, 16).ok()?, u64::from_str_radix(span, 16).ok()?, flags)
    }

    /// Reads what [`Self::to_bytes`] wrote; `None` where it is none.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk()?;
        let (span, flags) = rest.split_first_chunk()?;
        let [flags] = flags else { return None };
        Self::of(u128::from_be_bytes(*id), u64::from_be_bytes(*span), *flags)
    }

    fn of(id: u128, span: u64, flags: u8) -> Option<Self> {
        (id != 0 && span != 0).then_some(Self { id, span, is_sampled: flags & SAMPLED != 0 })
    }

    /// As it is stored.
    pub fn to_bytes(self) -> [u8; TRACE_BYTES] {
        let mut bytes = [0; TRACE_BYTES];
        bytes[..16].copy_from_slice(&self.id.to_be_bytes());
        bytes[16..24].copy_from_slice(&self.span.to_be_bytes());
        bytes[24] = u8::from(self.is_sampled);
        bytes
    }

    /// The id alone: 32 lower-case hexadecimal digits.
    pub fn id_text(self) -> String {
        format!("{:032x}", self.id)
    }
}

/// The `traceparent`.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.id, self.span, u8::from(self.is_sampled))
    }
}

/// Random but for the two bits of its variant: never 0.
fn new_span() -> u64 {
    Uuid::new_v4().as_u64_pair().1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_and_its_bytes_are_the_same_trace() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let trace = Trace::parse(parent).unwrap();
        assert_eq!((trace.to_string().as_str(), trace.is_sampled), (parent, true));
        assert_eq!(trace.id_text(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(Trace::read(&trace.to_bytes()), Some(trace));
        let child = trace.child();
        assert_eq!((child.id, child.is_sampled), (trace.id, true));
        assert_ne!(child.span, trace.span);
        let begun = Trace::begin(false);
        assert_eq!(Trace::parse(&begun.to_string()), Some(begun));
    }

    #[test]
    fn what_is_no_trace_is_none() {
        for bad in [
            "",
            "00-0af7",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        ] {
            assert_eq!(Trace::parse(bad), None, "{bad}");
        }
        for bad in [&[][..], &[1; TRACE_BYTES - 1], &[1; TRACE_BYTES + 1], &[0; TRACE_BYTES]] {
            assert_eq!(Trace::read(bad), None, "{bad:?}");
        }
    }
}
