//! Texts that people write and others see: no control characters, so that a name cannot drive a terminal.

use super::refusal::Refusal;
use fafnir_proto::reason::Reason;
use unicode_normalization::UnicodeNormalization as _;

/// Characters of a person's name.
pub const NAME_LEN_MAX: usize = 100;

/// A first or last name: NFC, trimmed, 1 to [`NAME_LEN_MAX`] characters, none of them invisible or a control.
pub fn person_name(field: &'static str, text: &str) -> Result<String, Refusal> {
    let name: String = text.trim().nfc().collect();
    let length = name.chars().count();
    if length == 0 || length > NAME_LEN_MAX {
        return Err(Refusal::invalid(
            Reason::NAME_LENGTH,
            format!("{field} must have 1 to {NAME_LEN_MAX} characters"),
        ));
    }
    if name.chars().any(is_invisible) {
        return Err(Refusal::invalid(
            Reason::NAME_CHARACTERS,
            format!("{field} must not contain control characters"),
        ));
    }
    Ok(name)
}

/// Controls, the marks that reorder or hide text (bidirectional overrides, zero width, tags, variation selectors), and
/// letters that are nothing to see.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{2800}' | '\u{3164}' | '\u{e000}'..='\u{f8ff}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{e0000}'..='\u{10ffff}')
}

/// A text that others wrote, for a terminal: what cannot be seen, or would drive it, is shown as an escape.
pub fn visible(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if is_invisible(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_a_terminal() {
        assert_eq!(person_name("firstName", "  Zoe\u{308} ").unwrap(), "Zo\u{eb}");
        assert_eq!(person_name("firstName", "山田 太郎").unwrap(), "山田 太郎");
        for c in ['\u{ad}', '\u{3164}', '\u{2800}', '\u{fe0f}', '\u{e0101}', '\u{61c}', '\u{e000}'] {
            assert!(person_name("firstName", &format!("a{c}b")).is_err(), "{c:?}");
            assert!(person_name("firstName", &c.to_string()).is_err(), "{c:?}");
        }
        for bad in ["", "  ", "a\u{1b}[31mb", "a\nb", "a\u{202e}b", "a\u{200b}b", "a\u{7f}", &"x".repeat(101)]
        {
            assert!(person_name("firstName", bad).is_err(), "{bad:?}");
        }
        assert!(person_name("lastName", &"é".repeat(100)).is_ok());
    }

    #[test]
    fn what_cannot_be_seen_is_shown() {
        assert_eq!(visible("a\u{1b}[31mb\r\n\u{202e}é"), "a\\u{1b}[31mb\\r\\n\\u{202e}é");
    }
}
