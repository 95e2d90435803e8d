//! Text on the screen: what the server sent is made harmless, what does not fit is left out, input lines are edited.

use fafnir_rules::money;
use std::borrow::Cow;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// Longest text kept from one field of a server's message, in characters.
pub const CHARS_MAX: usize = 300;
/// Longest text in an input line, in characters.
pub const INPUT_CHARS_MAX: usize = 128;

/// True for characters that move the cursor, reverse the reading order or show nothing: they never reach the screen.
fn is_hostile(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff0}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
}

/// A text from outside, fit for one line of a terminal: hostile characters become `?`, the length is bounded.
pub fn clean(text: &str) -> Cow<'_, str> {
    let too_long = text.len() > CHARS_MAX && text.chars().count() > CHARS_MAX;
    if !too_long && !text.chars().any(is_hostile) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().take(CHARS_MAX).map(|c| if is_hostile(c) { '?' } else { c }).collect())
}

/// Columns that a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// The longest prefix that fits into `columns`.
pub fn prefix(text: &str, columns: usize) -> &str {
    let mut used = 0;
    for (at, c) in text.char_indices() {
        used += c.width().unwrap_or(0);
        if used > columns {
            return &text[..at];
        }
    }
    text
}

/// Words may be shortened, with a mark; numbers never are (see [`number`]).
pub fn shorten(text: &str, columns: usize, ellipsis: &str) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    if room == 0 { String::new() } else { format!("{}{ellipsis}", prefix(text, room)) }
}

/// A number whole, or only the mark: a clipped number would be another number.
pub fn number<'a>(text: &'a str, columns: usize, ellipsis: &'a str) -> &'a str {
    if width(text) <= columns { text } else { prefix(ellipsis, columns) }
}

/// A price at the decimals of its tick, at least two.
pub fn price(value_e4: i64, tick_e4: i64) -> String {
    money::format_fixed(value_e4, money::E4_DECIMALS, money::step_decimals(tick_e4).clamp(2, 4))
}

/// A quantity whole if it fits, else rounded down to thousands (`k`) or millions (`M`).
pub fn quantity(value_e4: i64, columns: usize) -> String {
    let plain = money::format_e4(value_e4);
    if plain.len() <= columns {
        return plain;
    }
    let units = value_e4 / 10_000;
    for (divisor, suffix) in
        [(1, ""), (1_000, "k"), (1_000_000, "M"), (1_000_000_000, "G"), (1_000_000_000_000, "T")]
    {
        let short = format!("{}{suffix}", units / divisor);
        if short.len() <= columns {
            return short;
        }
    }
    plain
}

/// A signed amount in micros with two decimals, rounded toward zero: `+312.40`.
pub fn signed_cents(micros: i64) -> String {
    let cents = micros / 10_000;
    let sign = if cents > 0 { "+" } else { "" };
    format!("{sign}{}", money::format_grouped(cents, 2))
}

/// An amount in micros with two decimals, rounded toward zero: `101,204.10`.
pub fn cents(micros: i64) -> String {
    money::format_grouped(micros / 10_000, 2)
}

/// A whole number with its thousands apart: `40,123`.
pub fn whole(number: i64) -> String {
    let text = money::format_grouped(number, 0);
    text.strip_suffix(".0").map_or(text.clone(), ToOwned::to_owned)
}

/// Change from `base` to `value` in percent with two decimals, to the nearest, a half away from zero: `+1.24%`. Empty
/// without a base.
pub fn percent(value_e4: i64, base_e4: i64) -> String {
    if base_e4 <= 0 {
        return String::new();
    }
    let (twice, base) = ((i128::from(value_e4) - i128::from(base_e4)) * 20_000, i128::from(base_e4));
    let hundredths = (twice + base * twice.signum()) / (2 * base);
    let Ok(hundredths) = i64::try_from(hundredths) else { return String::new() };
    // What fell by less than is shown has fallen.
    let sign = if twice < 0 { "-" } else { "+" };
    format!("{sign}{}%", money::format_fixed(hundredths.abs(), 2, 2))
}

/// The time of day of a clock that shows this, `12:04:31`.
pub fn clock(time_us: i64) -> String {
    let seconds = time_us.div_euclid(1_000_000).rem_euclid(86_400);
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The day of a calendar that shows this, `11-25`, with the year `2026-11-25`.
pub fn day(time_us: i64, with_year: bool) -> String {
    let Ok(at) = time::OffsetDateTime::from_unix_timestamp(time_us.div_euclid(1_000_000)) else {
        return "-".to_owned();
    };
    let (month, day) = (u8::from(at.month()), at.day());
    if with_year { format!("{:04}-{month:02}-{day:02}", at.year()) } else { format!("{month:02}-{day:02}") }
}

/// A time of day with milliseconds, `12:04:31.201`.
pub fn clock_ms(time_us: i64) -> String {
    format!("{}.{:03}", clock(time_us), time_us.div_euclid(1_000).rem_euclid(1_000))
}

/// A duration for people: `3ms`, `1.2s`, `45s`, `12m`.
pub fn duration(us: i64) -> String {
    let us = us.max(0);
    match us {
        0..1_000_000 => format!("{}ms", us / 1_000),
        1_000_000..10_000_000 => format!("{}.{}s", us / 1_000_000, us / 100_000 % 10),
        10_000_000..120_000_000 => format!("{}s", us / 1_000_000),
        _ => format!("{}m", us / 60_000_000),
    }
}

/// A number as people write it, without the commas between its thousands: `1,000.50` is `1000.50`.
///
/// # Errors
/// A comma that separates no thousands: it may be meant as a decimal comma, so it is never guessed at.
pub fn plain_number(text: &str) -> Result<Cow<'_, str>, &'static str> {
    let text = text.trim();
    if !text.contains(',') {
        return Ok(Cow::Borrowed(text));
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let mut groups = whole.split(',');
    let first = groups.next().unwrap_or_default();
    let thousands = (1..=3).contains(&first.len()) && groups.all(|group| group.len() == 3);
    if !thousands || fraction.contains(',') {
        return Err("has a comma that separates no thousands: decimals take a point, as in 231.07");
    }
    Ok(Cow::Owned(text.replace(',', "")))
}

/// One editable line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    text: String,
    /// Byte offset of the caret, always at a character boundary.
    caret: usize,
    /// All of it is chosen: what is typed or pasted next replaces it.
    chosen: bool,
}

impl Input {
    pub fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        let caret = text.len();
        Self { text, caret, chosen: false }
    }

    /// A line that was filled in for the user: the first key or paste replaces it.
    pub fn prefilled(text: impl Into<String>) -> Self {
        let mut input = Self::new(text);
        input.choose();
        input
    }

    /// Chooses all of it.
    pub fn choose(&mut self) {
        self.caret = self.text.len();
        self.chosen = !self.text.is_empty();
    }

    /// True when what is typed next replaces all of it.
    pub fn is_chosen(&self) -> bool {
        self.chosen
    }

    /// Empties the line when all of it is chosen. True when it was.
    fn replace(&mut self) -> bool {
        let was = std::mem::take(&mut self.chosen);
        if was {
            self.clear();
        }
        was
    }

    pub fn text(&self) -> &str {
        &self.text
    }

    /// Characters before the caret.
    pub fn caret(&self) -> usize {
        self.text[..self.caret].chars().count()
    }

    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    pub fn insert(&mut self, c: char) {
        if is_hostile(c) {
            return;
        }
        self.replace();
        if self.text.chars().count() < INPUT_CHARS_MAX {
            self.text.insert(self.caret, c);
            self.caret += c.len_utf8();
        }
    }

    pub fn insert_str(&mut self, text: &str) {
        for c in text.trim_end_matches(['\r', '\n']).chars() {
            self.insert(c);
        }
    }

    pub fn backspace(&mut self) {
        if self.replace() {
            return;
        }
        if let Some(c) = self.text[..self.caret].chars().next_back() {
            self.caret -= c.len_utf8();
            self.text.remove(self.caret);
        }
    }

    pub fn delete(&mut self) {
        if !self.replace() && self.caret < self.text.len() {
            self.text.remove(self.caret);
        }
    }

    pub fn left(&mut self) {
        self.chosen = false;
        if let Some(c) = self.text[..self.caret].chars().next_back() {
            self.caret -= c.len_utf8();
        }
    }

    pub fn right(&mut self) {
        self.chosen = false;
        if let Some(c) = self.text[self.caret..].chars().next() {
            self.caret += c.len_utf8();
        }
    }

    pub fn home(&mut self) {
        self.chosen = false;
        self.caret = 0;
    }

    pub fn end(&mut self) {
        self.chosen = false;
        self.caret = self.text.len();
    }

    pub fn clear(&mut self) {
        self.chosen = false;
        self.text.clear();
        self.caret = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_and_reading_order_marks_never_reach_the_screen() {
        assert_eq!(clean("Apple\x1b[2J\x07 Inc\u{202e}gnp.\u{200b}"), "Apple?[2J? Inc?gnp.?");
        assert_eq!(clean("Zürich 証券"), "Zürich 証券");
        assert_eq!(clean(&"x".repeat(1000)).len(), CHARS_MAX);
    }

    #[test]
    fn a_number_is_shown_whole_or_not_at_all() {
        assert_eq!(number("1,155.35", 8, "…"), "1,155.35");
        assert_eq!(number("1,155.35", 7, "…"), "…");
        assert_eq!(quantity(123_450_000, 4), "12k");
        assert_eq!(quantity(3_100_000, 4), "310");
        assert_eq!(quantity(100_000_000_000, 4), "10M");
    }

    #[test]
    fn percentages_and_amounts_are_integer_arithmetic() {
        assert_eq!(percent(2_310_700, 2_282_400), "+1.24%");
        assert_eq!(percent(2_000_100, 2_000_000), "+0.01%");
        assert_eq!(percent(1_999_900, 2_000_000), "-0.01%");
        assert_eq!(percent(2_310_600, 2_310_700), "-0.00%");
        assert_eq!(percent(990_000, 1_000_000), "-1.00%");
        assert_eq!(percent(1, 0), "");
        assert_eq!(signed_cents(312_409_999), "+312.40");
        assert_eq!(signed_cents(-1), "0.00");
        assert_eq!(cents(101_204_100_000), "101,204.10");
    }

    #[test]
    fn commas_separate_thousands_or_are_refused() {
        for (text, plain) in [("1,000", "1000"), ("1,234,567.50", "1234567.50"), ("12", "12"), (" 7 ", "7")] {
            assert_eq!(plain_number(text).as_deref(), Ok(plain), "{text}");
        }
        for text in ["231,07", "1,00", ",5", "1,,000", "1000,000", "1.000,5", "1,0000"] {
            assert!(plain_number(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_first_key_replaces_what_was_filled_in() {
        for (edit, left) in [
            (Input::backspace as fn(&mut Input), ""),
            (Input::delete, ""),
            (|input| input.insert('2'), "2"),
            (|input| input.insert_str("1,000"), "1,000"),
            (|input| (input.right(), input.insert('2')).1, "52"),
            (|input| input.insert('\u{7}'), "5"),
        ] {
            let mut input = Input::prefilled("5");
            edit(&mut input);
            assert_eq!(input.text(), left);
        }
        assert!(!Input::prefilled("").is_chosen());
    }

    #[test]
    fn an_input_line_edits_whole_characters_and_is_bounded() {
        let mut input = Input::new("añb");
        input.left();
        input.backspace();
        assert_eq!((input.text(), input.caret()), ("ab", 1));
        input.insert_str("x\x1by\r\n");
        assert_eq!(input.text(), "axyb");
        input.insert_str(&"z".repeat(500));
        assert_eq!(input.text().chars().count(), INPUT_CHARS_MAX);
    }
}
