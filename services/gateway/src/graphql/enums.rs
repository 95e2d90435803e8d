//! Words of a known set, as the API's own types have them. What the reference calls a String stays one.

use async_graphql::{Enum, resolver_utils::EnumType};
use fafnir_proto::v1;
use fafnir_rules::order as rules;

/// The word of that name; the first of all where none has it.
pub fn word<E: EnumType + Default>(name: &str) -> E {
    E::items().iter().find(|item| item.name == name).map(|item| item.value).unwrap_or_default()
}

/// A word of the rules, which the services always give; the first of all where they did not.
pub fn given<R, E: From<R> + Default>(word: Option<R>) -> E {
    word.map(E::from).unwrap_or_default()
}

/// What a word is called.
pub fn name<E: EnumType>(word: E) -> &'static str {
    // Each is one of the items.
    E::items().iter().find(|item| item.value == word).map_or("", |item| item.name)
}

/// Which side of a trade.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "rules::Side")]
pub enum Side {
    /// Takes shares for money.
    #[default]
    Buy,
    /// Takes money for shares.
    Sell,
}

/// How far an order is.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "rules::OrderState")]
pub enum OrderState {
    /// On its way to the engine.
    #[default]
    PendingNew,
    /// Waits for its price, or for another order of its group.
    Held,
    /// Stands at the exchange.
    New,
    /// Traded in part, and can still trade.
    PartiallyFilled,
    /// Traded whole.
    Filled,
    /// Ended before it traded whole.
    Canceled,
    /// Its time is over.
    Expired,
    /// Was not taken.
    Rejected,
}

/// What waits for the engine's word.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "v1::PendingAction")]
pub enum PendingAction {
    /// Nothing.
    #[default]
    None,
    /// A cancel.
    Cancel,
    /// A change.
    Replace,
}

/// For how long an order stands.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "rules::TimeInForce")]
pub enum TimeInForce {
    /// For the day.
    #[default]
    Day,
    /// Until it is canceled.
    Gtc,
    /// What does not trade at once is canceled.
    Ioc,
    /// All of it at once, or nothing.
    Fok,
    /// Until a moment of its own.
    Gtd,
    /// In the opening auction alone.
    Opg,
    /// In the closing auction alone.
    Cls,
}

/// What an order is in its group.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum GroupLeg {
    /// Opens the position.
    #[default]
    Entry,
    /// Closes it.
    Exit,
}

/// What happened to an order.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum OrderStepKind {
    /// It was taken.
    #[default]
    Accepted,
    /// It was not taken.
    Rejected,
    /// Its stop was met.
    Triggered,
    /// It traded.
    Executed,
    /// Its owner changed it.
    Replaced,
    /// It ended before it traded whole.
    Canceled,
    /// Its time is over.
    Expired,
    /// It would have met another order of its owner and is the smaller for it.
    Decremented,
    /// Its stop follows the price.
    StopMoved,
    /// Another order of its group traded.
    Resized,
}

/// Where an open order stands.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum OrderStandingKind {
    /// In the book.
    #[default]
    Resting,
    /// A stop that waits for its price.
    Held,
    /// An exit that waits for its entry to buy.
    Asleep,
}

/// What the exchange does with a symbol.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[graphql(remote = "rules::TradingState")]
pub enum TradingState {
    /// Continuous trading.
    #[default]
    Open,
    /// Before the day: orders are collected.
    PreOpen,
    /// Orders are collected for one price; so in a volatility pause.
    Auction,
    /// No trading, by an operator's word.
    Halted,
    /// No trading: the day is over.
    Closed,
}

/// Whether a user may sign in.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    /// Its registration is under way.
    #[default]
    Pending,
    /// It may.
    Active,
    /// An administrator took its access.
    Deactivated,
    /// Its deletion is under way.
    Closing,
    /// It is gone.
    Deleted,
}

/// What an API key may do.
#[derive(Enum, Debug, Default, Clone, Copy, PartialEq, Eq)]
#[graphql(rename_items = "lowercase")]
pub enum KeyScope {
    /// Looks at whatever its user may look at.
    #[default]
    Read,
    /// Places and cancels orders and changes the watchlist as well.
    Trade,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_of_the_services_is_one_of_the_api() {
        let of = |name: &str, prefix: &str| name.strip_prefix(prefix).unwrap_or(name).to_owned();
        for n in 1.. {
            let Ok(kind) = v1::OrderStandingKind::try_from(n) else { break };
            let kind = of(kind.as_str_name(), "ORDER_STANDING_KIND_");
            assert_eq!(name(word::<OrderStandingKind>(&kind)), kind);
        }
        // From 20 on they are of no order.
        for n in 1..20 {
            let Ok(kind) = v1::FactKind::try_from(n) else { break };
            let kind = of(kind.as_str_name(), "FACT_KIND_");
            assert_eq!(name(word::<OrderStepKind>(&kind)), kind);
        }
        for leg in [v1::GroupLeg::Entry, v1::GroupLeg::Exit] {
            assert_eq!(name(word::<GroupLeg>(leg.name())), leg.name());
        }
        // What auth-service calls a user's state and a key's scopes.
        for state in ["PENDING", "ACTIVE", "DEACTIVATED", "CLOSING", "DELETED"] {
            assert_eq!(name(word::<UserState>(state)), state);
        }
        for scope in ["read", "trade"] {
            assert_eq!(name(word::<KeyScope>(scope)), scope);
        }
    }

    #[test]
    fn the_words_of_the_rules_are_spelled_as_theirs() {
        for side in [Side::Buy, Side::Sell] {
            assert_eq!(name(side), rules::Side::from(side).name());
        }
        for item in <OrderState as EnumType>::items() {
            assert_eq!(item.name, rules::OrderState::from(item.value).name());
        }
        for item in <TimeInForce as EnumType>::items() {
            assert_eq!(item.name, rules::TimeInForce::from(item.value).name());
        }
        for item in <TradingState as EnumType>::items() {
            assert_eq!(item.name, rules::TradingState::from(item.value).name());
        }
    }
}
