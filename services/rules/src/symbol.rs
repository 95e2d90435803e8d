//! Ticker symbols: `^[A-Z][A-Z0-9.-]{0,9}$`.

use std::fmt;

/// Longest symbol in bytes.
pub const SYMBOL_LEN_MAX: usize = 10;

/// A well-formed ticker symbol; whether it is listed is another question.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Symbol(String);

/// The text is not a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("symbol must be a letter followed by at most 9 letters, digits, dots or hyphens")
    }
}

impl std::error::Error for Malformed {}

impl Symbol {
    /// Trims, upper-cases ASCII letters and checks the form.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        let text = text.trim().to_ascii_uppercase();
        let mut bytes = text.bytes();
        let first_is_letter = bytes.next().is_some_and(|b| b.is_ascii_uppercase());
        let rest_is_plain =
            bytes.all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'.' || b == b'-');
        if first_is_letter && rest_is_plain && text.len() <= SYMBOL_LEN_MAX {
            Ok(Self(text))
        } else {
            Err(Malformed)
        }
    }

    /// The symbol's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn symbols_keep_wildcards_and_blanks_out_of_subjects() {
        assert_eq!(Symbol::parse(" aapl ").map(|s| s.to_string()), Ok("AAPL".into()));
        assert_eq!(Symbol::parse("BRK.B").map(|s| s.to_string()), Ok("BRK.B".into()));
        for bad in ["", ">", "A*", "A B", "1A", "ABCDEFGHIJK", "A\r\nB", "A_B", "Ａ"] {
            assert_eq!(Symbol::parse(bad), Err(Malformed), "{bad:?}");
        }
    }
}
