//! Exact decimals: prices, quantities and amounts as scaled integers, parsed and printed without a float.
//!
//! Rules: exchange-rules §2. More decimals than the scale allows is a refusal, never a rounding.

use std::fmt;

/// Decimals of a price or a quantity on the wire (`*_e4`).
pub const E4_DECIMALS: u32 = 4;
/// Decimals of an amount of money on the wire (`*_micros`).
pub const MICROS_DECIMALS: u32 = 6;
/// Currencies of accounts and listings, ISO 4217.
pub const CURRENCIES: [&str; 2] = ["USD", "CAD"];
/// 1 at [`E4_DECIMALS`].
pub const ONE_E4: i64 = 10_000;

/// What a person trades by: one share where the lot is a part of it, else the lot (FIX 561).
pub const fn round_lot(lot_e4: i64) -> i64 {
    if lot_e4 > 0 && ONE_E4 % lot_e4 == 0 { ONE_E4 } else { lot_e4 }
}
/// `price_e4 × qty_e4` has scale 10⁻⁸; an amount has 10⁻⁶.
const NOTIONAL_DIVISOR: i128 = 100;

/// Why a text is not a decimal of the wanted scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// Not `[-]digits[.digits]` in ASCII.
    Malformed,
    /// More significant decimals than the scale has.
    TooManyDecimals(u32),
    /// Outside signed 64 bits at this scale.
    TooLarge,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("is not a decimal number"),
            Self::TooManyDecimals(most) => write!(f, "has more than {most} decimals"),
            Self::TooLarge => f.write_str("is too large"),
        }
    }
}

impl std::error::Error for Error {}

/// Parses a decimal text into an integer of the given scale. Accepts an exponent (`1e3`, as a JSON number may have).
pub fn parse_scaled(text: &str, decimals: u32) -> Result<i64, Error> {
    let text = text.trim();
    let (negative, rest) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (mantissa, exponent) = match rest.split_once(['e', 'E']) {
        Some((m, e)) => (m, e.parse::<i32>().map_err(|_| Error::Malformed)?),
        None => (rest, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_digits(whole) || !is_digits(fraction) {
        return Err(Error::Malformed);
    }
    // value = digits × 10^(exponent - fraction.len()); wanted: value × 10^decimals.
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return Ok(0);
    }
    let trailing = (digits.len() - significant.len()) as i64;
    let shift = i64::from(exponent) - fraction.len() as i64 + trailing + i64::from(decimals);
    if shift < 0 {
        return Err(Error::TooManyDecimals(decimals));
    }
    if significant.len() as i64 + shift > 19 {
        return Err(Error::TooLarge);
    }
    let mantissa: i128 = significant.parse().map_err(|_| Error::TooLarge)?;
    let value = mantissa * 10i128.pow(shift as u32);
    let value = if negative { -value } else { value };
    i64::try_from(value).map_err(|_| Error::TooLarge)
}

/// Parses a price or quantity: `"231.07"` → `2_310_700`.
pub fn parse_e4(text: &str) -> Result<i64, Error> {
    parse_scaled(text, E4_DECIMALS)
}

/// Parses an amount: `"500.00"` → `500_000_000`.
pub fn parse_micros(text: &str) -> Result<i64, Error> {
    parse_scaled(text, MICROS_DECIMALS)
}

/// Prints the shortest exact decimal: `2_310_700` at 4 decimals → `"231.07"`.
pub fn format_scaled(value: i64, decimals: u32) -> String {
    format_fixed(value, decimals, 0)
}

/// Prints an exact decimal with at least `min_decimals` places: `format_fixed(2_310_000, 4, 2)` → `"231.00"`.
pub fn format_fixed(value: i64, decimals: u32, min_decimals: u32) -> String {
    let scale = 10u64.pow(decimals);
    let magnitude = value.unsigned_abs();
    let sign = if value < 0 { "-" } else { "" };
    let (whole, fraction) = (magnitude / scale, magnitude % scale);
    let mut text = format!("{fraction:0width$}", width = decimals as usize);
    while text.len() > min_decimals as usize && text.ends_with('0') {
        text.pop();
    }
    if text.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{text}") }
}

/// Prints a price or quantity in its shortest exact form.
pub fn format_e4(value: i64) -> String {
    format_scaled(value, E4_DECIMALS)
}

/// Prints a price for people, with at least two decimals; `-` for none.
pub fn format_price(price_e4: i64) -> String {
    if price_e4 == 0 { "-".to_owned() } else { format_fixed(price_e4, E4_DECIMALS, 2) }
}

/// Prints an amount in its shortest exact form.
pub fn format_micros(value: i64) -> String {
    format_scaled(value, MICROS_DECIMALS)
}

/// Prints with thousands separators and at least two decimals, for people: `1,155.35`.
pub fn format_grouped(value: i64, decimals: u32) -> String {
    let plain = format_fixed(value, decimals, 2);
    let (sign, digits) = plain.strip_prefix('-').map_or(("", plain.as_str()), |d| ("-", d));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let mut grouped = String::new();
    for (i, c) in whole.chars().enumerate() {
        if i > 0 && (whole.len() - i).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(c);
    }
    if fraction.is_empty() { format!("{sign}{grouped}") } else { format!("{sign}{grouped}.{fraction}") }
}

/// `price × quantity` in micros. `None` on overflow, or when the product is not exact in micros, which a listing's
/// tick and lot rule out (exchange-rules §2).
pub fn notional_micros(price_e4: i64, qty_e4: i64) -> Option<i64> {
    let product = i128::from(price_e4) * i128::from(qty_e4);
    if product % NOTIONAL_DIVISOR != 0 {
        return None;
    }
    i64::try_from(product / NOTIONAL_DIVISOR).ok()
}

/// Decimals of an average price at the doors.
pub const AVERAGE_DECIMALS: u32 = 10;

/// `numerator / denominator` to the nearest integer, of two equally near to the even one; 0 without a denominator.
pub fn half_even(numerator: i128, denominator: i128) -> i128 {
    if denominator == 0 {
        return 0;
    }
    let (n, d) = if denominator < 0 { (-numerator, -denominator) } else { (numerator, denominator) };
    let (quotient, rest) = (n.div_euclid(d), n.rem_euclid(d));
    // `rest` against the other half, so that nothing is doubled beyond 128 bits.
    let up = rest > d - rest || (rest == d - rest && quotient % 2 != 0);
    quotient + i128::from(up)
}

/// Average price, at so many decimals, of a notional over a quantity, rounded half to even: the one division, made at the
/// edge. 0 without a quantity.
pub fn average_price(notional_micros: i64, qty_e4: i64, decimals: u32) -> i64 {
    let parts = i128::from(notional_micros) * 10i128.pow(decimals);
    i64::try_from(half_even(parts, NOTIONAL_DIVISOR * i128::from(qty_e4))).unwrap_or(i64::MAX)
}

/// `change / base` in percent at scale 10⁻⁴, rounded half away from zero; 0 without a base.
pub fn percent_e4(change: i64, base: i64) -> i64 {
    if base == 0 {
        return 0;
    }
    let (n, d) = (i128::from(change) * 1_000_000, i128::from(base));
    let magnitude = (2 * n.abs() + d.abs()) / (2 * d.abs());
    let sign = if (n < 0) == (d < 0) { 1 } else { -1 };
    i64::try_from(sign * magnitude).unwrap_or(i64::MAX)
}

/// Number of decimals that a step needs: a tick of 0.01 (`100` at e4) → 2.
pub fn step_decimals(step_e4: i64) -> u32 {
    let mut decimals = E4_DECIMALS;
    let mut step = step_e4;
    while decimals > 0 && step != 0 && step % 10 == 0 {
        step /= 10;
        decimals -= 1;
    }
    decimals
}

/// Shows a scaled integer through [`fmt::Display`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decimal {
    pub value: i64,
    pub decimals: u32,
}

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format_scaled(self.value, self.decimals))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn percentages_are_exact_to_four_decimals() {
        assert_eq!(percent_e4(12_500, 1_000_000), 12_500);
        assert_eq!(percent_e4(-1, 3), -333_333);
        assert_eq!(percent_e4(2, 3), 666_667);
        assert_eq!(percent_e4(5, 0), 0);
    }

    #[test]
    fn a_half_goes_to_the_even_neighbour() {
        for (n, d, want) in [
            (5, 2, 2),
            (7, 2, 4),
            (-5, 2, -2),
            (-7, 2, -4),
            (1, 3, 0),
            (2, 3, 1),
            (-2, 3, -1),
            (4, -2, -2),
            (9, 0, 0),
        ] {
            assert_eq!(half_even(n, d), want, "{n} / {d}");
        }
        assert_eq!(half_even(i128::MAX, i128::MAX), 1);
    }

    #[test]
    fn an_average_price_is_one_division_to_ten_decimals() {
        // 10.00 and 2 x 10.01: 30.02 / 3 = 10.00666...
        assert_eq!(average_price(30_020_000, 30_000, AVERAGE_DECIMALS), 100_066_666_667);
        assert_eq!(average_price(30_020_000, 30_000, 4), 100_067);
        // 0.0001 / 3 = 0.0000333333...
        assert_eq!(average_price(100, 30_000, AVERAGE_DECIMALS), 333_333);
        // 0.000001 / 3.2 = 0.0000003125; 0.0003 / 2 = 0.00015, half way, to the even 0.0002.
        assert_eq!(average_price(1, 32_000, AVERAGE_DECIMALS), 3_125);
        assert_eq!((average_price(300, 20_000, 4), average_price(100, 20_000, 4)), (2, 0));
        assert_eq!(average_price(5, 0, AVERAGE_DECIMALS), 0);
    }

    #[test]
    fn decimals_are_parsed_exactly_or_refused() {
        for (text, want) in [
            ("231.07", Ok(2_310_700)),
            ("0", Ok(0)),
            ("-0", Ok(0)),
            ("0.0001", Ok(1)),
            (".5", Ok(5_000)),
            ("5.", Ok(50_000)),
            ("1e3", Ok(10_000_000)),
            ("1.50000000", Ok(15_000)),
            ("0.00001", Err(Error::TooManyDecimals(4))),
            ("1e999", Err(Error::TooLarge)),
            ("1e99999999999", Err(Error::Malformed)),
            ("1e-999999999", Err(Error::TooManyDecimals(4))),
            ("922337203685477.5807", Ok(i64::MAX)),
            ("922337203685477.5808", Err(Error::TooLarge)),
            ("NaN", Err(Error::Malformed)),
            ("inf", Err(Error::Malformed)),
            ("１", Err(Error::Malformed)),
            ("", Err(Error::Malformed)),
            (".", Err(Error::Malformed)),
            ("1,000", Err(Error::Malformed)),
        ] {
            assert_eq!(parse_e4(text), want, "{text}");
        }
    }

    #[test]
    fn amounts_are_grouped_for_people() {
        assert_eq!(format_grouped(101_204_100_000, 6), "101,204.10");
        assert_eq!(format_grouped(-1_155_350_000, 6), "-1,155.35");
        assert_eq!(format_grouped(0, 6), "0.00");
    }

    #[test]
    fn a_notional_is_exact_or_absent() {
        assert_eq!(notional_micros(2_310_700, 50_000), Some(1_155_350_000));
        assert_eq!(notional_micros(1, 1), None);
        assert_eq!(notional_micros(i64::MAX, i64::MAX), None);
    }

    proptest! {
        #[test]
        fn printing_and_parsing_are_inverse(value: i64, decimals in 0u32..=6) {
            prop_assert_eq!(parse_scaled(&format_scaled(value, decimals), decimals), Ok(value));
        }
    }
}
