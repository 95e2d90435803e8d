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

/// Controls, and the marks that reorder or hide text (bidirectional overrides, zero width, tags).
fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_drive_a_terminal() {
        assert_eq!(person_name("firstName", "  Zoe\u{308} ").unwrap(), "Zo\u{eb}");
        assert_eq!(person_name("firstName", "山田 太郎").unwrap(), "山田 太郎");
        for bad in ["", "  ", "a\u{1b}[31mb", "a\nb", "a\u{202e}b", "a\u{200b}b", "a\u{7f}", &"x".repeat(101)]
        {
            assert!(person_name("firstName", bad).is_err(), "{bad:?}");
        }
        assert!(person_name("lastName", &"é".repeat(100)).is_ok());
    }
}
