//! Every subject and stream of the bus, once (architecture.md §6).
//!
//! A symbol stands in a subject as its TOKEN: `.` would separate, so it becomes `_`. No symbol has a `_` of its own:
//! two symbols never share a token.

use std::time::Duration;

/// Stream of who registered and who left; auth-service's.
pub const USERS_STREAM: &str = "users";
/// What [`USERS_STREAM`] holds.
pub const USERS: &str = "users.*";
/// `UserRegistered`.
pub const USER_REGISTERED: &str = "users.registered";
/// `UserDeleted`.
pub const USER_DELETED: &str = "users.deleted";

/// Stream of everything that happened; trade-engine's. It holds `FactBatch`es.
pub const FACTS_STREAM: &str = "facts";
/// What [`FACTS_STREAM`] holds.
pub const FACTS: &str = "facts";
/// Headers of a `FactBatch`: the positions of its first and its last fact.
pub const FIRST_POSITION: &str = "Fafnir-First-Position";
pub const LAST_POSITION: &str = "Fafnir-Last-Position";

/// Stream of the listings, the newest of each; stock-service's.
pub const INSTRUMENTS_STREAM: &str = "instruments";
/// What [`INSTRUMENTS_STREAM`] holds: `InstrumentChanged` of every symbol.
pub const INSTRUMENTS: &str = "instruments.*";

/// All market data: what a terminal may subscribe to.
pub const MARKET: &str = "market.>";
/// Asks the embedded broker to let sessions watch market data, or no longer: [`GUESTS_ADMIT`] or [`GUESTS_DISMISS`] and
/// their ids, with blanks between them.
pub const GUESTS: &str = "broker.guests";
pub const GUESTS_ADMIT: &str = "admit";
pub const GUESTS_DISMISS: &str = "dismiss";
/// A session whose admission is not repeated within this is let in no longer: nobody is left who knows whether it lives.
pub const GUESTS_LEASE: Duration = Duration::from_mins(1);
/// Subscriptions of one connection that watches market data (security.md "NATS").
pub const GUEST_SUBSCRIPTIONS_MAX: usize = 64;
/// The `BookImage`s of every symbol.
pub const BOOKS: &str = "market.book.*";
/// The `TradePrint`s of every symbol.
pub const TRADES: &str = "market.trades.*";
/// The `Quote`s of every symbol.
pub const QUOTES: &str = "market.quotes.*";

/// The `News` of every symbol.
pub const NEWS: &str = "news.*";

/// Asks a recorded market to pause, to go on, or how far it is: a `PlaybackRequest`, answered by a `PlaybackReply`.
pub const PLAYBACK: &str = "playback";

/// A symbol in a subject.
pub fn token(symbol: &str) -> String {
    symbol.replace('.', "_")
}

/// The `InstrumentChanged` of a symbol.
pub fn instrument(symbol: &str) -> String {
    of_symbol(INSTRUMENTS, symbol)
}

/// The `BookImage`s of a symbol.
pub fn book(symbol: &str) -> String {
    of_symbol(BOOKS, symbol)
}

/// The `TradePrint`s of a symbol.
pub fn trades(symbol: &str) -> String {
    of_symbol(TRADES, symbol)
}

/// The `News` of a symbol.
pub fn news(symbol: &str) -> String {
    of_symbol(NEWS, symbol)
}

/// The `Quote`s of a symbol.
pub fn quotes(symbol: &str) -> String {
    of_symbol(QUOTES, symbol)
}

fn of_symbol(all: &str, symbol: &str) -> String {
    format!("{}{}", prefix(all), token(symbol))
}

/// `all` without its wildcard.
fn prefix(all: &str) -> &str {
    all.strip_suffix('*').unwrap_or(all)
}

/// What a message of market data is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Market {
    Book,
    Trades,
    Quote,
}

impl Market {
    /// `None` for a subject that is no market data.
    pub fn of(subject: &str) -> Option<Self> {
        [(BOOKS, Self::Book), (TRADES, Self::Trades), (QUOTES, Self::Quote)]
            .into_iter()
            .find_map(|(all, what)| subject.starts_with(prefix(all)).then_some(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_are_what_the_contract_says() {
        assert_eq!(instrument("BRK.B"), "instruments.BRK_B");
        assert_eq!(book("AAPL"), "market.book.AAPL");
        assert_eq!(trades("BRK.B"), "market.trades.BRK_B");
        assert_eq!(quotes("BF-B"), "market.quotes.BF-B");
        assert!([USER_REGISTERED, USER_DELETED].iter().all(|s| s.starts_with(prefix(USERS))));
    }

    #[test]
    fn a_message_of_market_data_is_known_by_its_subject() {
        assert_eq!(Market::of(&book("A")), Some(Market::Book));
        assert_eq!(Market::of(&trades("A")), Some(Market::Trades));
        assert_eq!(Market::of(&quotes("A")), Some(Market::Quote));
        assert_eq!(Market::of("market.>"), None);
        assert_eq!(Market::of(FACTS), None);
    }
}
