//! What an order can be, and what each of it is called wherever it is written: API, command line, terminal, sentences.

use std::fmt;

/// An enum whose values have one name each, in capitals with `_` between words.
macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $value:ident = $text:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $name {
            $($(#[$of])* $value,)+
        }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$value,)+];

            /// The name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)+
                }
            }

            /// Reads a name in any case, blanks around it allowed; `None` for any other text.
            pub fn parse(text: &str) -> Option<Self> {
                let text = text.trim();
                Self::ALL.iter().copied().find(|value| value.name().eq_ignore_ascii_case(text))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.name())
            }
        }
    };
}

/// Every name of a list for a sentence: `BUY or SELL`, `DAY, GTC or GTD`.
pub fn one_of<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.into_iter().collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

named! {
    /// FIX 54.
    Side {
        Buy = "BUY",
        Sell = "SELL",
    }
}

named! {
    /// FIX 40, with the trailing stop as a type of its own (exchange-rules §3).
    OrderType {
        Market = "MARKET",
        Limit = "LIMIT",
        Stop = "STOP",
        StopLimit = "STOP_LIMIT",
        TrailingStop = "TRAILING_STOP",
    }
}

named! {
    /// FIX 59: how long what does not trade at once stays.
    TimeInForce {
        Day = "DAY",
        Gtc = "GTC",
        Ioc = "IOC",
        Fok = "FOK",
        Gtd = "GTD",
        /// For the next opening auction only.
        Opg = "OPG",
        /// For the next closing auction only.
        Cls = "CLS",
    }
}

named! {
    /// FIX 39, as far as it can happen here.
    OrderState {
        /// Accepted here, not yet in the book.
        PendingNew = "PENDING_NEW",
        /// A stop that was not reached.
        Held = "HELD",
        New = "NEW",
        PartiallyFilled = "PARTIALLY_FILLED",
        Filled = "FILLED",
        Canceled = "CANCELED",
        Expired = "EXPIRED",
        Rejected = "REJECTED",
    }
}

named! {
    /// What a symbol does.
    TradingState {
        Open = "OPEN",
        PreOpen = "PRE_OPEN",
        Auction = "AUCTION",
        Halted = "HALTED",
        Closed = "CLOSED",
    }
}

named! {
    /// What becomes of an order that would trade with another one of its owner.
    SelfTrade {
        CancelNewest = "CANCEL_NEWEST",
        CancelOldest = "CANCEL_OLDEST",
        CancelBoth = "CANCEL_BOTH",
        Decrement = "DECREMENT",
    }
}

named! {
    /// How the orders of a group depend on each other (exchange-rules §3).
    GroupKind {
        /// Two exits: one cancels the other.
        Oco = "OCO",
        /// An entry and two exits.
        Bracket = "BRACKET",
        /// An entry and one exit.
        Oto = "OTO",
    }
}

/// Orders of the largest group.
pub const LEGS_MAX: usize = 3;
/// How many orders groups have, in words.
pub const LEGS_RULE: &str = "an OCO or OTO group has 2 orders, a BRACKET group 3";

impl GroupKind {
    /// Orders of a group, its entry first where it has one.
    pub const fn legs(self) -> usize {
        match self {
            Self::Oco | Self::Oto => 2,
            Self::Bracket => LEGS_MAX,
        }
    }

    /// True for a group whose first order buys what the others sell.
    pub const fn has_entry(self) -> bool {
        !matches!(self, Self::Oco)
    }
}

impl OrderType {
    /// True for a type that names the worst price at which it trades.
    pub const fn has_price(self) -> bool {
        matches!(self, Self::Limit | Self::StopLimit)
    }

    /// True for a type that names the price that starts it.
    pub const fn has_stop(self) -> bool {
        matches!(self, Self::Stop | Self::StopLimit)
    }

    /// True for a type whose stop follows the market.
    pub const fn has_trail(self) -> bool {
        matches!(self, Self::TrailingStop)
    }

    /// The times in force that the type can have, its default first.
    pub const fn times(self) -> &'static [TimeInForce] {
        use TimeInForce::{Cls, Day, Fok, Gtc, Gtd, Ioc, Opg};
        match self {
            Self::Market => &[Ioc, Fok, Opg, Cls],
            Self::Limit => &[Gtc, Day, Gtd, Ioc, Fok, Opg, Cls],
            Self::Stop | Self::StopLimit | Self::TrailingStop => &[Gtc, Day, Gtd],
        }
    }

    /// The time in force of an order that names none.
    pub const fn default_time(self) -> TimeInForce {
        self.times()[0]
    }

    /// True when what does not trade at once waits, in the book or for its auction.
    pub const fn rests(self, time: TimeInForce) -> bool {
        match time {
            TimeInForce::Opg | TimeInForce::Cls => true,
            TimeInForce::Ioc | TimeInForce::Fok => false,
            TimeInForce::Day | TimeInForce::Gtc | TimeInForce::Gtd => !matches!(self, Self::Market),
        }
    }

    /// True for what trades at once or not at all elsewhere, and waits for its auction in a call.
    pub const fn waits_in_call(self, time: TimeInForce) -> bool {
        matches!((self, time), (Self::Market, TimeInForce::Ioc))
    }

    /// True when the order may insist on not trading at once.
    pub const fn may_post_only(self, time: TimeInForce) -> bool {
        matches!(self, Self::Limit) && self.rests(time) && !time.is_for_auction()
    }

    /// True when a part of the order may hide.
    pub const fn may_hide(self, time: TimeInForce) -> bool {
        self.has_price() && self.rests(time) && !time.is_for_auction()
    }
}

impl TimeInForce {
    /// True for an order of one auction, which ends with it.
    pub const fn is_for_auction(self) -> bool {
        matches!(self, Self::Opg | Self::Cls)
    }
}

impl OrderState {
    /// True while the order can still trade or is on its way; never again after it was false.
    pub const fn is_open(self) -> bool {
        matches!(self, Self::PendingNew | Self::Held | Self::New | Self::PartiallyFilled)
    }
}

impl TradingState {
    /// True while orders gather for an auction and nothing trades.
    pub const fn is_call(self) -> bool {
        matches!(self, Self::PreOpen | Self::Auction)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_in_any_case_and_nothing_else_is() {
        assert_eq!(Side::parse(" buy "), Some(Side::Buy));
        assert_eq!(OrderType::parse("Stop_limit"), Some(OrderType::StopLimit));
        for bad in ["", "B", "BUYS", "SIDE_BUY", "UNSPECIFIED", "ＢＵＹ"] {
            assert_eq!(Side::parse(bad), None, "{bad}");
        }
        for state in OrderState::ALL {
            assert_eq!(OrderState::parse(state.name()), Some(*state));
        }
    }

    #[test]
    fn names_make_a_sentence() {
        let names = |times: &'static [TimeInForce]| one_of(times.iter().map(|t| t.name()));
        assert_eq!(names(TimeInForce::ALL), "DAY, GTC, IOC, FOK, GTD, OPG or CLS");
        assert_eq!(names(OrderType::Market.times()), "IOC, FOK, OPG or CLS");
        assert_eq!((names(&[]), names(&[TimeInForce::Gtd])), (String::new(), "GTD".to_owned()));
    }

    #[test]
    fn only_what_rests_can_hide_or_insist_on_resting() {
        for kind in OrderType::ALL {
            assert!(kind.times().contains(&kind.default_time()));
            for time in TimeInForce::ALL {
                let rests = kind.rests(*time);
                let extras = kind.may_hide(*time) || kind.may_post_only(*time);
                assert!(rests && !time.is_for_auction() || !extras, "{kind} {time}");
            }
        }
    }
}
