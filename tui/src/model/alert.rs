//! Alerts: what of a symbol the user wants to know when it comes: a price, a spread, a result, market data that stay away.

use fafnir_rules::money;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Alerts kept.
pub const ALERTS_MAX: usize = 50;
/// Longest silence that an alert waits for, in seconds.
const STALE_S_MAX: i64 = 86_400;

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
    /// Market data are not known to be current for so many seconds.
    StaleFor(i64),
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

/// As it is written and read: `>= 235`, `<= 220.5`, `spread 0.05`, `pnl -500`, `stale 10`.
impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PriceAtLeast(price) => write!(f, ">= {}", money::format_e4(*price)),
            Self::PriceAtMost(price) => write!(f, "<= {}", money::format_e4(*price)),
            Self::SpreadAtLeast(spread) => write!(f, "spread {}", money::format_e4(*spread)),
            Self::PnlAtMost(pnl) | Self::PnlAtLeast(pnl) => write!(f, "pnl {}", money::format_micros(*pnl)),
            Self::StaleFor(seconds) => write!(f, "stale {seconds}"),
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
    /// How long market data are not known to be current; none while they are.
    pub stale_us: Option<i64>,
}

impl Trigger {
    /// Reads `>= 235`, `<= 220.5`, `235` (above or below by where the price is now), `spread 0.05`, `pnl -500`, `stale 10`.
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
        if let Some(rest) = text.strip_prefix("stale") {
            let seconds = rest.trim_start_matches([' ', '>', '=']).trim_end_matches('s').parse().ok();
            let seconds = seconds.filter(|s| (1..=STALE_S_MAX).contains(s));
            return seconds.map(Self::StaleFor).ok_or(format!("stale takes 1 to {STALE_S_MAX} seconds"));
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
            Self::StaleFor(seconds) => facts.stale_us.is_some_and(|now| now >= seconds * 1_000_000),
        }
    }

    /// `≥ 235.00`, `spread ≥ 0.05`, `stale ≥ 10s`.
    pub fn text(self, at_least: &str, at_most: &str) -> String {
        let price = |value| money::format_fixed(value, money::E4_DECIMALS, 2);
        match self {
            Self::PriceAtLeast(value) => format!("{at_least} {}", price(value)),
            Self::PriceAtMost(value) => format!("{at_most} {}", price(value)),
            Self::SpreadAtLeast(value) => format!("spread {at_least} {}", price(value)),
            Self::PnlAtMost(value) => format!("pnl {at_most} {}", crate::text::cents(value)),
            Self::PnlAtLeast(value) => format!("pnl {at_least} {}", crate::text::cents(value)),
            Self::StaleFor(seconds) => format!("stale {at_least} {seconds}s"),
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
        assert_eq!(Trigger::parse("stale >= 10s", last), Ok(Trigger::StaleFor(10)));
        assert!(Trigger::parse("soon", last).is_err());
        for silence in
            ["stale", "stale 0", "stale -1", "stale 86401", "stale 1.5", "stale 99999999999999999999"]
        {
            assert_eq!(Trigger::parse(silence, last), Err("stale takes 1 to 86400 seconds".to_owned()));
        }
        assert!(Trigger::parse("<= 0", last).is_err());
    }

    #[test]
    fn an_alert_is_read_as_it_is_written() {
        for text in [">= 235", "<= 220.5", "spread 0.05", "pnl -500", "pnl 12.5", "stale 10"] {
            assert_eq!(Trigger::parse(text, None).map(|t| t.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn an_unknown_fact_fires_nothing() {
        assert!(!Trigger::PriceAtMost(1).holds(&Facts::default()));
        assert!(!Trigger::StaleFor(1).holds(&Facts::default()));
        assert!(Trigger::PriceAtLeast(5).holds(&Facts { last_e4: Some(5), ..Facts::default() }));
    }
}
