//! A look at a text, GraphQL or JSON, before it is parsed: how deep its brackets nest, how long its numbers are.
//!
//! The parser is recursive, so depth is stack; and it reads numbers as doubles, which keep 15 digits of a decimal: a
//! longer one would be rounded without a word. What is not known is compared with all that is, letter by letter, so that
//! a name of 60 kB takes 90 ms.

use super::scalars::SIGNIFICANT_DIGITS_MAX;

/// Brackets that may be open at a time.
const NESTING_MAX: usize = 60;

/// Characters of a name; the schema's own have at most half of it.
const NAME_LEN_MAX: usize = 64;

/// A text that is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("brackets are nested more than {NESTING_MAX} deep")]
    Nesting,
    #[error("a number must have at most {SIGNIFICANT_DIGITS_MAX} significant digits")]
    Digits,
    #[error("a name must have at most {NAME_LEN_MAX} characters")]
    Name,
}

/// Refuses brackets nested too deep, names too long and numbers that could not be read exactly. Strings and comments are skipped.
pub fn check(text: &str) -> Result<(), Refused> {
    let bytes = text.as_bytes();
    let (mut depth, mut i) = (0usize, 0);
    while i < bytes.len() {
        match bytes[i] {
            b'{' | b'[' | b'(' => {
                depth += 1;
                if depth > NESTING_MAX {
                    return Err(Refused::Nesting);
                }
            }
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            b'#' => {
                while i < bytes.len() && bytes[i] != b'\n' && bytes[i] != b'\r' {
                    i += 1;
                }
            }
            b'"' => i = string_end(bytes, i),
            b'A'..=b'Z' | b'a'..=b'z' | b'_' => {
                let end = token_end(bytes, i, |b| b.is_ascii_alphanumeric() || b == b'_');
                if end - i >= NAME_LEN_MAX {
                    return Err(Refused::Name);
                }
                i = end;
            }
            b'0'..=b'9' => {
                let end = token_end(bytes, i, |b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
                check_number(&text[i..=end])?;
                i = end;
            }
            _ => {}
        }
        i += 1;
    }
    Ok(())
}

/// Index of the last byte from `start` on for which `belongs` holds.
fn token_end(bytes: &[u8], start: usize, belongs: impl Fn(u8) -> bool) -> usize {
    let length = bytes[start..].iter().take_while(|b| belongs(**b)).count();
    start + length.max(1) - 1
}

/// An integer of 64 bits is kept whole; anything else as far as a double keeps it.
fn check_number(number: &str) -> Result<(), Refused> {
    if number.parse::<u64>().is_ok() {
        return Ok(());
    }
    let mantissa = number.split(['e', 'E']).next().unwrap_or("");
    let digits: Vec<u8> = mantissa.bytes().filter(u8::is_ascii_digit).collect();
    let zeros = |digits: &mut dyn Iterator<Item = &u8>| digits.take_while(|d| **d == b'0').count();
    let (leading, trailing) = (zeros(&mut digits.iter()), zeros(&mut digits.iter().rev()));
    if digits.len().saturating_sub(leading + trailing) > SIGNIFICANT_DIGITS_MAX {
        return Err(Refused::Digits);
    }
    Ok(())
}

/// Index of the last byte of the string that begins at `start`.
fn string_end(bytes: &[u8], start: usize) -> usize {
    let block = bytes[start..].starts_with(b"\"\"\"");
    let mut i = start + if block { 3 } else { 1 };
    while i < bytes.len() {
        match bytes[i] {
            b'\\' => i += 1,
            // A string in quotes ends with its line at the latest; the parser refuses that.
            b'"' | b'\n' | b'\r' if !block => return i,
            b'"' if bytes[i..].starts_with(b"\"\"\"") => return i + 2,
            _ => {}
        }
        i += 1;
    }
    i
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded_before_anything_recurses() {
        for query in ["{ a ".repeat(20_000), format!("{{ a(x: {}", "[".repeat(20_000)), "(".repeat(20_000)] {
            assert_eq!(check(&query), Err(Refused::Nesting));
        }
        assert_eq!(check(&"{}".repeat(20_000)), Ok(()));
    }

    #[test]
    fn brackets_in_strings_and_comments_do_not_nest() {
        let open = "{".repeat(100);
        for query in [
            format!("{{ a(x: \"{open}\") }}"),
            format!("{{ a(x: \"\\\"{open}\") }}"),
            format!("{{ a(x: \"\"\"{open}\n\\\"\"\"{open}\"\"\") }}"),
            format!("{{ a # {open}\n }}"),
            format!("{{\"query\": \"{open}\", \"x\": \"\"}}"),
        ] {
            assert_eq!(check(&query), Ok(()), "{query}");
        }
        assert_eq!(check(&format!("\"a\" {open}")), Err(Refused::Nesting));
        assert_eq!(check(&format!("\"a\n{open}")), Err(Refused::Nesting));
        for text in ["\"", "\"\\", "\"\"\"", "é\"é", "#"] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
    }

    #[test]
    fn names_are_bounded() {
        let name = |length| "a".repeat(length);
        assert_eq!(check(&format!("{{ {}: health }}", name(NAME_LEN_MAX))), Ok(()));
        for long in [NAME_LEN_MAX + 1, 60_000] {
            assert_eq!(check(&format!("{{ {} }}", name(long))), Err(Refused::Name));
            assert_eq!(check(&format!("{{\"{}\": 1}} # {}", name(long), name(long))), Ok(()));
        }
    }

    #[test]
    fn numbers_that_would_be_rounded_are_refused() {
        for good in [
            "99999999999.9999",
            "18446744073709551615",
            "-9223372036854775808",
            "0.000000000000000001",
            "123456789012345000000000",
            "1e300",
            "a1234567890123456789",
            "\"12345678901234567890.5\"",
            "{a1: x(q:1.5)}",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "99999999999999.9999",
            "{\"price\":0.1000000000000000055}",
            "{a(x:18446744073709551617)}",
            "-1234567890123456.5",
            "1.234567890123456e2",
        ] {
            assert_eq!(check(bad), Err(Refused::Digits), "{bad}");
        }
    }
}
