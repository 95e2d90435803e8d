//! Between the contract's enums and those of the rules: what was not given is `None` there, and has no name of its own.

use crate::{reason::Reason, v1};
use fafnir_rules::order as rules;

/// What the API calls a value that was not given.
const UNSPECIFIED: &str = "UNSPECIFIED";

macro_rules! same {
    ($($theirs:ident = $ours:ident { $($value:ident)+ })+) => { $(
        impl v1::$theirs {
            /// The value as the rules have it; `None` for one that was not given.
            pub const fn known(self) -> Option<rules::$ours> {
                match self {
                    Self::Unspecified => None,
                    $(Self::$value => Some(rules::$ours::$value),)+
                }
            }

            /// The name in API and sentences; `UNSPECIFIED` for one that was not given.
            pub fn name(self) -> &'static str {
                self.known().map_or(UNSPECIFIED, rules::$ours::name)
            }

            /// Reads a name as [`rules::$ours::parse`] does.
            pub fn parse(text: &str) -> Option<Self> {
                rules::$ours::parse(text).map(Self::from)
            }
        }

        impl From<rules::$ours> for v1::$theirs {
            fn from(value: rules::$ours) -> Self {
                match value {
                    $(rules::$ours::$value => Self::$value,)+
                }
            }
        }
    )+ };
}

same! {
    Side = Side { Buy Sell }
    OrderType = OrderType { Market Limit Stop StopLimit TrailingStop }
    TimeInForce = TimeInForce { Day Gtc Ioc Fok Gtd Opg Cls }
    OrderState = OrderState { PendingNew Held New PartiallyFilled Filled Canceled Expired Rejected }
    TradingState = TradingState { Open PreOpen Auction Halted Closed }
    StpMode = SelfTrade { CancelNewest CancelOldest CancelBoth Decrement }
    GroupKind = GroupKind { Oco Bracket Oto }
}

impl v1::GroupLeg {
    /// The name in API and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Entry => "ENTRY",
            Self::Exit => "EXIT",
        }
    }
}

impl v1::OrderState {
    /// True while the order can still trade or is on its way.
    pub const fn is_open(self) -> bool {
        matches!(self.known(), Some(state) if state.is_open())
    }

    /// True when nothing more can happen to the order.
    pub const fn has_ended(self) -> bool {
        matches!(self.known(), Some(state) if !state.is_open())
    }
}

/// The end of an order in one sentence, from the code that says why.
pub fn end_sentence(state: v1::OrderState, code: &str) -> String {
    let text = match Reason::known(code) {
        Some(Reason::USER) => "canceled at the owner's request",
        Some(Reason::ACCOUNT_CLOSING) => "canceled: its account was closed",
        Some(Reason::GROUP) => "canceled with its group: the order that it depended on ended",
        Some(Reason::SELF_TRADE) => {
            "canceled by self-trade prevention: it would have traded with another order of its owner"
        }
        Some(Reason::IOC) => "the rest was canceled: time in force IOC trades at once or not at all",
        Some(Reason::FOK) => "canceled: time in force FOK, and the whole quantity was not there",
        Some(Reason::COLLAR) => "the rest was canceled: the next price lies beyond the collar",
        Some(Reason::NO_LIQUIDITY) => "the rest was canceled: nothing is left on the other side of the book",
        Some(Reason::DAY_END) => "expired at the end of the trading day",
        Some(Reason::AUCTION_END) => "expired, the auction that it was for is over",
        Some(Reason::GTD) => "expired at its time",
        Some(Reason::POST_ONLY_WOULD_CROSS) => "refused: post-only, and its price would trade at once",
        Some(Reason::SYMBOL_HALTED) => "refused: trading in the symbol is halted",
        Some(Reason::NO_REFERENCE_PRICE) => "refused: the symbol has no reference price",
        Some(Reason::BOOK_FULL) => "refused: the book of the symbol is full",
        _ => return format!("{} by the engine: {code}", state.name().to_lowercase()),
    };
    text.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract's own names are those of the rules behind a prefix.
    #[test]
    fn the_contract_names_everything_as_the_rules_do() {
        for side in rules::Side::ALL {
            assert_eq!(v1::Side::from(*side).as_str_name(), format!("SIDE_{side}"));
        }
        for kind in rules::OrderType::ALL {
            assert_eq!(v1::OrderType::from(*kind).as_str_name(), format!("ORDER_TYPE_{kind}"));
        }
        for time in rules::TimeInForce::ALL {
            assert_eq!(v1::TimeInForce::from(*time).as_str_name(), format!("TIME_IN_FORCE_{time}"));
        }
        for state in rules::OrderState::ALL {
            let ours = v1::OrderState::from(*state);
            assert_eq!(ours.as_str_name(), format!("ORDER_STATE_{state}"));
            assert!(ours.is_open() != ours.has_ended());
        }
        for state in rules::TradingState::ALL {
            assert_eq!(v1::TradingState::from(*state).as_str_name(), format!("TRADING_STATE_{state}"));
        }
        for mode in rules::SelfTrade::ALL {
            assert_eq!(v1::StpMode::from(*mode).as_str_name(), format!("STP_MODE_{mode}"));
        }
        for kind in rules::GroupKind::ALL {
            assert_eq!(v1::GroupKind::from(*kind).as_str_name(), format!("GROUP_KIND_{kind}"));
        }
        for leg in [v1::GroupLeg::None, v1::GroupLeg::Entry, v1::GroupLeg::Exit] {
            assert_eq!(leg.as_str_name(), format!("GROUP_LEG_{}", leg.name()));
        }
        let unknown = v1::OrderState::Unspecified;
        assert!(!unknown.is_open() && !unknown.has_ended() && unknown.name() == "UNSPECIFIED");
        assert_eq!(v1::Side::parse("unspecified"), None);
    }
}
