//! Subjects and subject patterns: validity, matching, inclusion and overlap.

use bytes::{BufMut, Bytes, BytesMut};
use bytestring::ByteString;
use std::fmt;
use std::ops::Deref;

/// First of the 256 code points that stand for bytes which are not UTF-8; the last of Unicode, private use.
const RAW_FIRST: u32 = 0x10_ff00;
/// With which byte each of them begins.
const RAW_LEAD: u8 = 0xf4;

/// A piece of a message as text; cloning is cheap. Bytes that are not UTF-8 are each a code point of their own in it,
/// and those bytes again on the wire.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Text(ByteString);

impl Text {
    /// The bytes as text.
    #[expect(
        clippy::expect_used,
        reason = "they are looked at twice, which costs less than a second owner of the bytes"
    )]
    pub fn parse(bytes: Bytes) -> Self {
        match std::str::from_utf8(&bytes) {
            Ok(text) if !has_raw(text) => Self(bytes.try_into().expect("invariant: they are UTF-8")),
            _ => Self(escape(&bytes).into()),
        }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn has_raw(text: &str) -> bool {
    text.as_bytes().contains(&RAW_LEAD) && text.chars().any(|c| u32::from(c) >= RAW_FIRST)
}

/// Text in which each byte that is not UTF-8, and each byte of a code point that stands for one, is such a code point.
fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    let raw = |text: &mut String, bytes: &[u8]| {
        text.extend(bytes.iter().filter_map(|byte| char::from_u32(RAW_FIRST + u32::from(*byte))));
    };
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if u32::from(c) >= RAW_FIRST {
                raw(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes());
            } else {
                text.push(c);
            }
        }
        raw(&mut text, chunk.invalid());
    }
    text
}

/// Appends a text in the bytes it came in.
pub fn put_text(out: &mut BytesMut, text: &str) {
    if !has_raw(text) {
        out.put_slice(text.as_bytes());
        return;
    }
    for c in text.chars() {
        match u32::from(c).checked_sub(RAW_FIRST) {
            Some(byte) => out.put_u8(byte as u8),
            None => out.put_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
}

impl Deref for Text {
    type Target = str;
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        Self(text.into())
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

fn is_clean(text: &str) -> bool {
    // As if a dot stood before: none may follow another, or be the last.
    let mut before = b'.';
    for byte in text.bytes() {
        if byte <= b' ' || byte == 0x7f || (byte == b'.' && before == b'.') {
            return false;
        }
        before = byte;
    }
    before != b'.'
}

/// A subject that a message can be published to: tokens without blanks, no wildcard.
pub fn is_literal(subject: &str) -> bool {
    is_clean(subject) && subject.split('.').all(|token| token != "*" && token != ">")
}

/// A subject that can be subscribed to: like a literal, with `*` as a token and `>` as the last one.
pub fn is_pattern(pattern: &str) -> bool {
    is_clean(pattern) && !pattern.starts_with(">.") && !pattern.contains(".>.")
}

/// Whether the pattern has a wildcard token.
pub fn has_wildcard(pattern: &str) -> bool {
    pattern.split('.').any(|token| token == "*" || token == ">")
}

/// Whether the literal `subject` is one of those that `pattern` describes.
pub fn matches(pattern: &str, subject: &str) -> bool {
    is_subset(subject, pattern)
}

/// Whether every subject described by `inner` is described by `outer` too.
pub fn is_subset(inner: &str, outer: &str) -> bool {
    let mut left = inner.split('.');
    let mut right = outer.split('.');
    loop {
        match (left.next(), right.next()) {
            (Some(_), Some(">")) | (None, None) => return true,
            (Some(">"), _) | (None, Some(_)) | (Some(_), None) => return false,
            (Some(_), Some("*")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

/// Whether some subject is described by both patterns.
pub fn overlaps(a: &str, b: &str) -> bool {
    let mut left = a.split('.');
    let mut right = b.split('.');
    loop {
        match (left.next(), right.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some(x), Some(y)) if x == y || x == "*" || y == "*" => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wildcards_match_tokens_and_tails() {
        assert!(matches("a.*.c", "a.b.c"));
        assert!(!matches("a.*", "a.b.c"));
        assert!(matches("a.>", "a.b.c"));
        assert!(!matches("a.>", "a"));
        assert!(matches(">", "a"));
        assert!(!matches("a.b", "a"));
    }

    #[test]
    fn a_text_that_is_not_utf_8_leaves_in_the_bytes_it_came_in() {
        for bytes in
            [&b"plain"[..], b"a.\xff\xfe.b", b"\xf4\x8f\xbf\xbf", "a.\u{10ff41}.é".as_bytes(), b"\xf4"]
        {
            let text = Text::parse(Bytes::copy_from_slice(bytes));
            let mut out = BytesMut::new();
            put_text(&mut out, &text);
            assert_eq!(&out[..], bytes);
        }
        assert_eq!(Text::parse(Bytes::from_static(b"a.\xff.b")).split('.').count(), 3);
    }

    #[test]
    fn inclusion_and_overlap_treat_wildcards_as_sets() {
        assert!(is_subset("a.*", "a.>"));
        assert!(!is_subset("a.>", "a.*"));
        assert!(!is_subset(">", "*"));
        assert!(is_subset("a.*", "*.*"));
        assert!(overlaps("a.*", "*.b"));
        assert!(!overlaps("a.b", "a"));
        assert!(overlaps("a.>", "*.b.c"));
        assert!(!overlaps("a.>", "a"));
    }

    #[test]
    fn a_subject_has_no_empty_token_and_no_blank() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a\tb", "a\u{0}"] {
            assert!(!is_pattern(bad), "{bad:?}");
        }
        assert!(is_pattern("a.*.>"));
        assert!(!is_pattern("a.>.b"));
        assert!(!is_literal("a.*"));
        assert!(is_literal("a.b*"));
    }
}
