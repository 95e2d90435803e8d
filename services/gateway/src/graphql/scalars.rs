//! Exact numbers on the wire: `Float` without a float, `Int64`.
//!
//! A scaled integer leaves as the shortest decimal of its exact value, whatever its size. A number that comes in is taken
//! by its shortest text form, which is exact up to [`SIGNIFICANT_DIGITS_MAX`] digits (integers: up to 64 bits);
//! [`super::lexical`] refuses requests with longer ones before anything rounds them. More decimals than the field has
//! are refused too (exchange-rules §2).

use super::error;
use async_graphql::{
    ContextSelectionSet, InputType, InputValueError, InputValueResult, Name, OutputType, Positioned, Scalar,
    ScalarType, ServerResult, Value, parser::types::Field, registry::Registry,
};
use fafnir_platform::{Refusal, clock::rfc3339};
use fafnir_proto::reason::Reason;
use fafnir_rules::money;
use std::borrow::Cow;

/// Digits that a binary double keeps of every decimal.
pub const SIGNIFICANT_DIGITS_MAX: usize = 15;

/// A scaled integer that prints as a `Float`. Inside a response it travels as an enum value whose name is the decimal:
/// no name of an enum begins with a digit or a sign, and [`super::json`] writes it as the number that it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    value: i64,
    decimals: u32,
}

impl Decimal {
    /// A price, a quantity or a percentage.
    pub fn e4(value: i64) -> Self {
        Self { value, decimals: money::E4_DECIMALS }
    }
    /// An average price.
    pub fn average(value: i64) -> Self {
        Self { value, decimals: money::AVERAGE_DECIMALS }
    }
    /// An amount of money.
    pub fn micros(value: i64) -> Self {
        Self { value, decimals: money::MICROS_DECIMALS }
    }
    /// Its shortest text.
    pub fn text(self) -> String {
        money::format_scaled(self.value, self.decimals)
    }
    /// A whole number.
    pub fn units(value: i64) -> Self {
        Self { value, decimals: 0 }
    }
}

impl OutputType for Decimal {
    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("Float")
    }
    fn create_type_info(registry: &mut Registry) -> String {
        <f64 as OutputType>::create_type_info(registry)
    }
    async fn resolve(&self, _: &ContextSelectionSet<'_>, _: &Positioned<Field>) -> ServerResult<Value> {
        Ok(Value::Enum(Name::new(self.text())))
    }
}

/// A `Float` that came in, as its shortest text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(String);

impl InputType for Number {
    type RawValueType = Self;

    fn type_name() -> Cow<'static, str> {
        Cow::Borrowed("Float")
    }
    fn create_type_info(registry: &mut Registry) -> String {
        <f64 as InputType>::create_type_info(registry)
    }
    fn parse(value: Option<Value>) -> InputValueResult<Self> {
        match value {
            Some(Value::Number(number)) => Ok(Self(number.to_string())),
            other => Err(InputValueError::expected_type(other.unwrap_or_default())),
        }
    }
    fn to_value(&self) -> Value {
        self.0.parse().map_or(Value::Null, Value::Number)
    }
    fn as_raw_value(&self) -> Option<&Self> {
        Some(self)
    }
}

impl Number {
    /// The exact value at scale 10⁻⁴. `field` names it in the refusal.
    pub fn e4(&self, field: &str) -> async_graphql::Result<i64> {
        self.scaled(field, money::E4_DECIMALS).map_err(error::refused)
    }

    /// The exact value in micros. `field` names it in the refusal.
    pub fn micros(&self, field: &str) -> Result<i64, Refusal> {
        self.scaled(field, money::MICROS_DECIMALS)
    }

    fn scaled(&self, field: &str, decimals: u32) -> Result<i64, Refusal> {
        money::parse_scaled(&self.0, decimals).map_err(|e| {
            let reason = match e {
                money::Error::Malformed => Reason::NUMBER_MALFORMED,
                money::Error::TooManyDecimals(_) => Reason::TOO_MANY_DECIMALS,
                money::Error::TooLarge => Reason::NUMBER_TOO_LARGE,
            };
            Refusal::invalid(reason, format!("{field} {e}"))
        })
    }
}

/// A signed 64-bit integer: a JSON number; what comes in may be its decimal text, as cursors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Int64(pub i64);

/// A signed 64-bit integer: a JSON number; what comes in may be its decimal text, as cursors are.
#[Scalar(name = "Int64")]
impl ScalarType for Int64 {
    fn parse(value: Value) -> InputValueResult<Self> {
        match &value {
            Value::Number(n) => {
                n.as_i64().map(Self).ok_or_else(|| InputValueError::custom("must be a signed 64-bit integer"))
            }
            // As a cursor, or where a language's numbers are too short.
            Value::String(text) => {
                text.parse().map(Self).map_err(|_| InputValueError::custom("must be a signed 64-bit integer"))
            }
            _ => Err(InputValueError::expected_type(value)),
        }
    }
    fn is_valid(value: &Value) -> bool {
        match value {
            Value::Number(n) => n.is_i64(),
            Value::String(text) => text.parse::<i64>().is_ok(),
            _ => false,
        }
    }
    fn to_value(&self) -> Value {
        Value::Number(self.0.into())
    }
}

/// A scalar that is a text. What comes in is read where it is used, so that a refusal names the field.
macro_rules! text_scalar {
    ($($type:ident = $name:literal, $url:literal, $doc:literal;)+) => {$(
        #[doc = $doc]
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub struct $type(pub String);

        #[doc = $doc]
        #[Scalar(name = $name, specified_by_url = $url)]
        impl ScalarType for $type {
            fn parse(value: Value) -> InputValueResult<Self> {
                match value {
                    Value::String(text) => Ok(Self(text)),
                    other => Err(InputValueError::expected_type(other)),
                }
            }
            fn is_valid(value: &Value) -> bool {
                matches!(value, Value::String(_))
            }
            fn to_value(&self) -> Value {
                Value::String(self.0.clone())
            }
        }
    )+};
}

text_scalar! {
    DateTime = "DateTime", "https://www.rfc-editor.org/rfc/rfc3339", "A moment in UTC, RFC 3339 with microseconds.";
    Uuid = "UUID", "https://www.rfc-editor.org/rfc/rfc9562", "An id, lower-case with hyphens (RFC 9562).";
}

impl DateTime {
    /// Microseconds since 1970.
    pub fn of(us: i64) -> Self {
        Self(rfc3339(us))
    }
    /// The same, where 0 is none.
    pub fn of_some(us: i64) -> Option<Self> {
        (us != 0).then(|| Self::of(us))
    }
}

impl Uuid {
    /// An id that is there, or none.
    pub fn optional(text: String) -> Option<Self> {
        (!text.is_empty()).then_some(Self(text))
    }
}

impl From<u64> for Int64 {
    /// Sequences stay far below 2⁶³; a larger number prints as the largest.
    fn from(value: u64) -> Self {
        Self(i64::try_from(value).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(json: &str) -> Number {
        Number::parse(Some(Value::Number(json.parse().unwrap()))).unwrap()
    }

    #[test]
    fn numbers_are_taken_exactly_or_refused() {
        for (json, want) in [
            ("231.07", Some(2_310_700)),
            ("0.0001", Some(1)),
            ("-0", Some(0)),
            ("-0.0", Some(0)),
            ("1", Some(10_000)),
            ("1e3", Some(10_000_000)),
            ("99999999999.9999", Some(999_999_999_999_999)),
            ("12345678901.2345", Some(123_456_789_012_345)),
            ("922337203685477", Some(9_223_372_036_854_770_000)),
            ("0.00001", None),
            ("0.1234567", None),
            ("123456789012.12345", None),
            ("9223372036854775807", None),
            ("1e300", None),
        ] {
            assert_eq!(number(json).e4("price").ok(), want, "{json}");
        }
        let refusal = number("0.00001").e4("price").unwrap_err();
        assert_eq!(refusal.message, "price has more than 4 decimals");
        for value in [Value::String("1".into()), Value::Null, Value::Boolean(true)] {
            assert!(Number::parse(Some(value)).is_err());
        }
    }
}
