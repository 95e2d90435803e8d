//! Alerts: a price of a symbol, above or below which the user wants to know.

use fafnir_rules::money;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Alerts kept.
pub const ALERTS_MAX: usize = 50;

/// What an alert watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Trigger {
    /// The last price is at or above, e4.
    PriceAtLeast(i64),
    /// The last price is at or below, e4.
    PriceAtMost(i64),
    /// The spread is at or above, e4.
    SpreadAtLeast(i64),
    /// The unrealised result of the position is at or below, micros (a loss is negative).
    PnlAtMost(i64),
    /// The unrealised result of the position is at or above, micros.
    PnlAtLeast(i64),
}

/// One alert. It fires once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub symbol: String,
    pub trigger: Trigger,
    #[serde(default)]
    pub fired: bool,
}

impl Alert {
    /// True when both watch the same, fired or not.
    pub fn is_same(&self, other: &Self) -> bool {
        (&self.symbol, self.trigger) == (&other.symbol, other.trigger)
    }
}

/// As it is written and read: `>= 235`, `<= 220.5`, `spread 0.05`, `pnl -500`.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PriceAtLeast(price) => write!(f, ">= {}", money::format_e4(*price)),
            Self::PriceAtMost(price) => write!(f, "<= {}", money::format_e4(*price)),
            Self::SpreadAtLeast(spread) => write!(f, "spread {}", money::format_e4(*spread)),
            Self::PnlAtMost(pnl) | Self::PnlAtLeast(pnl) => write!(f, "pnl {}", money::format_micros(*pnl)),
        }
    }
}

impl From<Trigger> for String {
    fn from(trigger: Trigger) -> Self {
        trigger.to_string()
    }
}

impl TryFrom<String> for Trigger {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text, None)
    }
}

/// What an alert is compared with; none where it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Facts {
    pub last_e4: Option<i64>,
    pub spread_e4: Option<i64>,
    pub pnl_micros: Option<i64>,
}

impl Trigger {
    /// Reads `>= 235`, `<= 220.5`, `235` (above or below by where the price is now), `spread 0.05`, `pnl -500`.
    pub fn parse(text: &str, last_e4: Option<i64>) -> Result<Self, String> {
        let text = text.trim();
        let amount = |s: &str| money::parse_micros(s).map_err(|e| format!("amount {e}"));
        let price = |s: &str| match money::parse_e4(s) {
            Ok(value) if value > 0 => Ok(value),
            Ok(_) => Err("price must be above 0".to_owned()),
            Err(e) => Err(format!("price {e}")),
        };
        if let Some(rest) = text.strip_prefix("spread") {
            return price(rest.trim_start_matches([' ', '>', '='])).map(Self::SpreadAtLeast);
        }
        if let Some(rest) = text.strip_prefix("pnl") {
            let value = amount(rest.trim_start_matches([' ', '>', '<', '=']))?;
            return Ok(if value < 0 { Self::PnlAtMost(value) } else { Self::PnlAtLeast(value) });
        }
        if let Some(rest) = text.strip_prefix('>') {
            return price(rest.trim_start_matches('=')).map(Self::PriceAtLeast);
        }
        if let Some(rest) = text.strip_prefix('<') {
            return price(rest.trim_start_matches('=')).map(Self::PriceAtMost);
        }
        let value = price(text)?;
        Ok(if last_e4.is_some_and(|last| value < last) {
            Self::PriceAtMost(value)
        } else {
            Self::PriceAtLeast(value)
        })
    }

    /// True when the facts reach it.
    pub fn holds(self, facts: &Facts) -> bool {
        match self {
            Self::PriceAtLeast(price) => facts.last_e4.is_some_and(|last| last >= price),
            Self::PriceAtMost(price) => facts.last_e4.is_some_and(|last| last <= price),
            Self::SpreadAtLeast(spread) => facts.spread_e4.is_some_and(|now| now >= spread),
            Self::PnlAtMost(pnl) => facts.pnl_micros.is_some_and(|now| now <= pnl),
            Self::PnlAtLeast(pnl) => facts.pnl_micros.is_some_and(|now| now >= pnl),
        }
    }

    /// `≥ 235.00`, `spread ≥ 0.05`.
    pub fn text(self, at_least: &str, at_most: &str) -> String {
        let price = |value| money::format_fixed(value, money::E4_DECIMALS, 2);
        match self {
            Self::PriceAtLeast(value) => format!("{at_least} {}", price(value)),
            Self::PriceAtMost(value) => format!("{at_most} {}", price(value)),
            Self::SpreadAtLeast(value) => format!("spread {at_least} {}", price(value)),
            Self::PnlAtMost(value) => format!("pnl {at_most} {}", crate::text::cents(value)),
            Self::PnlAtLeast(value) => format!("pnl {at_least} {}", crate::text::cents(value)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_reads_as_a_trader_writes_it() {
        let last = Some(2_310_700);
        assert_eq!(Trigger::parse(">= 235", last), Ok(Trigger::PriceAtLeast(2_350_000)));
        assert_eq!(Trigger::parse("220.5", last), Ok(Trigger::PriceAtMost(2_205_000)));
        assert_eq!(Trigger::parse("spread 0.05", last), Ok(Trigger::SpreadAtLeast(500)));
        assert_eq!(Trigger::parse("pnl -500", last), Ok(Trigger::PnlAtMost(-500_000_000)));
        assert!(Trigger::parse("soon", last).is_err());
        assert!(Trigger::parse("<= 0", last).is_err());
    }

    #[test]
    fn an_alert_is_read_as_it_is_written() {
        for text in [">= 235", "<= 220.5", "spread 0.05", "pnl -500", "pnl 12.5"] {
            assert_eq!(Trigger::parse(text, None).map(|t| t.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn an_unknown_fact_fires_nothing() {
        assert!(!Trigger::PriceAtMost(1).holds(&Facts::default()));
        assert!(Trigger::PriceAtLeast(5).holds(&Facts { last_e4: Some(5), ..Facts::default() }));
    }
}
