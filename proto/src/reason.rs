//! Every machine code with which something is refused, or with which an order ends; each stands here alone.
//!
//! A code says which rule was broken, the sentence beside it says where and by how much: one fact has one code, whatever
//! the field is called at the door. Codes are part of the contract: one that is gone is not given another meaning.
//!
//! [`Reason`] is for whoever refuses. Who reads from the wire gets an [`AnyReason`]: the service at the other end may be of
//! another version and know codes that are not here.

use std::{borrow::Cow, fmt};
use tonic::Code;

macro_rules! reasons {
    ($($(#[doc = $meaning:literal])+ $name:ident,)+) => {
        /// A machine code of this version. Its name is what travels; its number means nothing outside the process.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[expect(non_camel_case_types, reason = "a code is spelled as it travels")]
        pub enum Reason {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl Reason {
            /// Every code with its meaning, in the order of this file.
            pub const ALL: &[(Self, &str)] = &[$((Self::$name, concat!($($meaning),+)),)+];

            /// The code as it travels, e.g. `PRICE_OFF_TICK`.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)+
                }
            }
        }
    };
}

reasons! {
    // Who asks, and how much.

    /// The call, the token or the session is missing, not genuine, or has ended.
    UNAUTHENTICATED,
    /// The caller is known and may not do this.
    PERMISSION_DENIED,
    /// The caller asks more often than it may.
    RATE_LIMITED,
    /// The service has more work than it takes at a time.
    OVERLOADED,
    /// Refused by a service that gave no code.
    REFUSED,

    // Numbers, texts and times of a request.

    /// An id is not a UUID, or not that of such a thing.
    ID_MALFORMED,
    /// A number is not a decimal number.
    NUMBER_MALFORMED,
    /// A number has more decimals than are kept.
    TOO_MANY_DECIMALS,
    /// A number does not fit into 64 bits in the unit in which it is kept.
    NUMBER_TOO_LARGE,
    /// A time is not one as in RFC 3339.
    TIME_MALFORMED,
    /// A date is not YYYY-MM-DD.
    DATE_MALFORMED,
    /// A text that must be given is empty.
    TEXT_MISSING,
    /// A text has more bytes than are kept.
    TEXT_TOO_LONG,
    /// A text has control characters.
    TEXT_MALFORMED,
    /// A person's name is empty or too long.
    NAME_LENGTH,
    /// A person's name has characters that no name has.
    NAME_CHARACTERS,
    /// The name of a role or permission is empty, too long, or has other characters than a-z and _.
    NAME_MALFORMED,
    /// A search is for nothing.
    QUERY_BLANK,
    /// A search is for more bytes than any name has.
    QUERY_TOO_LONG,
    /// The size of a page is not within its limits.
    FIRST_OUT_OF_RANGE,
    /// A sequence number to go on after is negative.
    AFTER_NEGATIVE,
    /// A period ends before it begins.
    PERIOD_EMPTY,
    /// A period is not one of those that are offered.
    PERIOD_UNKNOWN,
    /// A period holds more rows than one answer covers.
    PERIOD_TOO_LONG,
    /// The width of a candle is not one of those that are offered.
    INTERVAL_UNKNOWN,
    /// More levels or orders of a book than are answered at a time, or none.
    DEPTH_OUT_OF_RANGE,
    /// More symbols than one request may ask for or one answer covers.
    TOO_MANY_SYMBOLS,
    /// An idempotency key has too many characters.
    IDEMPOTENCY_KEY_TOO_LONG,
    /// An idempotency key was used for another request.
    IDEMPOTENCY_KEY_REUSED,
    /// A request that needs an idempotency key has none.
    KEY_MISSING,

    // Users, sign-in, roles.

    /// An e-mail address is none.
    EMAIL_MALFORMED,
    /// Another user has this e-mail address.
    EMAIL_TAKEN,
    /// A password is too short or too long.
    PASSWORD_LENGTH,
    /// A password that everybody guesses first: a common one, or the user's own address.
    PASSWORD_GUESSABLE,
    /// E-mail or password at sign-in are longer than any can be.
    CREDENTIALS_TOO_LONG,
    /// Too many sign-ins failed, for this account from there or from there in all.
    TOO_MANY_FAILED_SIGN_INS,
    /// More passwords are being hashed than are hashed at a time.
    SIGN_IN_BUSY,
    /// There is no such user, or not for this caller.
    USER_NOT_FOUND,
    /// There is no such role.
    ROLE_UNKNOWN,
    /// There is no such permission.
    PERMISSION_UNKNOWN,
    /// The last admin keeps the role: somebody must be able to grant.
    LAST_ADMIN,
    /// A scope of a key is none.
    KEY_SCOPE_UNKNOWN,
    /// The label of a key is empty, too long, or has control characters.
    KEY_LABEL,
    /// A key would have ended before it is made.
    KEY_EXPIRY,
    /// An address from where a key opens is none, or there are too many of them.
    KEY_ADDRESSES,
    /// The user has as many keys as one may have.
    TOO_MANY_KEYS,
    /// There is no such key, or not for this caller.
    KEY_NOT_FOUND,
    /// There is no such session, or not for this caller.
    SESSION_NOT_FOUND,
    /// The state of a user is none.
    USER_STATE_UNKNOWN,
    /// A row of the audit log is not what was written, not where it was written, or is gone.
    AUDIT_BROKEN,
    /// An account is deleted with its password, unless the sign-in is young.
    PASSWORD_NEEDED,

    // Streams of a client.

    /// A connection has as many subscriptions as it may have.
    TOO_MANY_SUBSCRIPTIONS,
    /// An address or a user has as many connections for subscriptions as it may have.
    TOO_MANY_SOCKETS,
    /// A query asks for more than one query may.
    QUERY_TOO_DEAR,
    /// A query or mutation on a connection for subscriptions.
    NOT_A_SUBSCRIPTION,
    /// The bus of a service ended; connect again.
    BUS_ENDED,

    // Symbols and their listings.

    /// A symbol is spelled as none can be.
    SYMBOL_MALFORMED,
    /// A request that is about a symbol names none.
    SYMBOL_MISSING,
    /// The symbol is not listed.
    UNKNOWN_SYMBOL,
    /// Trading in the symbol is halted.
    SYMBOL_HALTED,
    /// The symbol is closed for trading.
    SYMBOL_CLOSED,
    /// The symbol gathers orders for an auction, and this one cannot wait for it.
    SYMBOL_IN_AUCTION,
    /// No opening auction of the symbol comes next, which the order is for.
    NO_OPENING_AUCTION,
    /// The calendar has no closing auction, which the order is for.
    NO_CLOSING_AUCTION,
    /// A trading state is none.
    STATE_UNKNOWN,
    /// The type of an instrument is none.
    INSTRUMENT_TYPE_UNKNOWN,
    /// The currency of a listing is not three capital letters (ISO 4217).
    CURRENCY_MALFORMED,
    /// The currency of a listing never changes.
    CURRENCY_FIXED,
    /// Tick or lot of a listing is not within its limits.
    STEP_OUT_OF_RANGE,
    /// Tick and lot of a listing have too many decimals together.
    STEP_TOO_FINE,
    /// Tick and lot of a listing never change.
    STEP_FIXED,
    /// The number of shares of a listing is not within its limits.
    SHARES_OUT_OF_RANGE,
    /// The width of a volatility band is not within its limits.
    VOLATILITY_BAND_OUT_OF_RANGE,
    /// More bars of a history than are loaded at a time.
    TOO_MANY_BARS,
    /// The day of a bar is none, is not over, or stands twice.
    BAR_TIME,
    /// The prices of a bar are not in order.
    BAR_PRICES,
    /// The volume of a bar is negative.
    BAR_VOLUME,

    // What an order must be.

    /// The side is neither BUY nor SELL.
    SIDE_UNKNOWN,
    /// The type of an order is none.
    TYPE_UNKNOWN,
    /// The time in force is none.
    TIME_IN_FORCE_UNKNOWN,
    /// The type of the order has no such time in force.
    TIME_IN_FORCE_NOT_ALLOWED,
    /// The mode of self-trade prevention is none.
    SELF_TRADE_PREVENTION_UNKNOWN,
    /// A quantity of shares is not above 0.
    QUANTITY_NOT_POSITIVE,
    /// A quantity of shares is more than an order may have.
    QUANTITY_TOO_LARGE,
    /// A quantity is not a multiple of the lot.
    QUANTITY_OFF_LOT,
    /// An order says how much in two ways, or in none.
    QUANTITY_AMBIGUOUS,
    /// A notional is 0 or less.
    NOTIONAL_NOT_POSITIVE,
    /// A notional is less than one lot is worth.
    NOTIONAL_TOO_SMALL,
    /// An order of this type has a quantity and no notional.
    NOTIONAL_NOT_ALLOWED,
    /// The new quantity is not above what is already filled.
    BELOW_FILLED,
    /// The type of the order needs a price.
    PRICE_MISSING,
    /// The type of the order has no price.
    PRICE_NOT_ALLOWED,
    /// A price is not above 0.
    PRICE_NOT_POSITIVE,
    /// A price is beyond what any instrument, or this one's tick, allows.
    PRICE_OUT_OF_RANGE,
    /// A price is not a multiple of the tick.
    PRICE_OFF_TICK,
    /// A price is too far from the reference price.
    PRICE_OUT_OF_BAND,
    /// The type of the order needs a stop price.
    STOP_PRICE_MISSING,
    /// The type of the order has no stop price, or none that can be changed.
    STOP_PRICE_NOT_ALLOWED,
    /// A stop price is not above 0.
    STOP_PRICE_NOT_POSITIVE,
    /// A stop price is not a multiple of the tick.
    STOP_PRICE_OFF_TICK,
    /// A stop price is too far from the reference price.
    STOP_PRICE_OUT_OF_BAND,
    /// A stop price is on the side of the last price where it would be triggered at once.
    STOP_WRONG_SIDE,
    /// A trailing stop needs a trail.
    TRAIL_MISSING,
    /// The type of the order has no trail.
    TRAIL_NOT_ALLOWED,
    /// A trail is given as amount and as percentage.
    TRAIL_AMBIGUOUS,
    /// A trail is not within its limits.
    TRAIL_OUT_OF_RANGE,
    /// The amount of a trail is not a multiple of the tick.
    TRAIL_OFF_TICK,
    /// The symbol has no reference price, and the order needs one.
    NO_REFERENCE_PRICE,
    /// Price times quantity does not fit into 64 bits.
    ORDER_TOO_LARGE,
    /// Only a limit order that can rest is post-only.
    POST_ONLY_NOT_ALLOWED,
    /// Only a limit order that can rest hides a part.
    DISPLAY_QUANTITY_NOT_ALLOWED,
    /// The displayed quantity is negative or more than the quantity.
    DISPLAY_QUANTITY_OUT_OF_RANGE,
    /// The displayed quantity is so small that an iceberg shows too many parts.
    DISPLAY_QUANTITY_TOO_SMALL,
    /// The displayed quantity is not a multiple of the lot.
    DISPLAY_QUANTITY_OFF_LOT,
    /// Only an order good till a date has one.
    EXPIRY_NOT_ALLOWED,
    /// An order good till a date needs one.
    EXPIRY_MISSING,
    /// An order would expire before it is in.
    EXPIRY_IN_THE_PAST,
    /// An order would stand longer than one may.
    EXPIRY_TOO_FAR,
    /// A client order id has too many characters.
    CLIENT_ORDER_ID_TOO_LONG,
    /// A client order id has other characters than printable ASCII.
    CLIENT_ORDER_ID_MALFORMED,
    /// A client order id was used for another order; it is unique for ever.
    CLIENT_ORDER_ID_REUSED,
    /// The user has as many open orders as one may have.
    TOO_MANY_OPEN_ORDERS,
    /// Only cancels are taken: the records of orders and money are behind, or the disk has little room.
    CANCEL_ONLY,

    // Orders that are in.

    /// There is no such order, or not for this caller.
    ORDER_NOT_FOUND,
    /// The order has ended.
    ORDER_DONE,
    /// There is an open order with this id already.
    ORDER_EXISTS,
    /// The order does not rest in a book.
    ORDER_NOT_RESTING,
    /// The order is of another version than the request names.
    VERSION_DIFFERS,
    /// A replace changes nothing.
    NOTHING_TO_REPLACE,
    /// The stop of the order was triggered, so that its stop price is fixed.
    STOP_TRIGGERED,
    /// The orders of a group do not go together.
    GROUP_MALFORMED,
    /// A target at or below what the rest of its entry pays: the two would meet each other.
    TARGET_NOT_ABOVE_ENTRY,
    /// No such group of the caller, or none of its orders depends on another any more.
    GROUP_NOT_FOUND,
    /// The quantity of an exit follows its group.
    GROUP_EXIT_QUANTITY,

    // How an order ends, in the engine's words: these stand in recorded facts and never change.

    /// Canceled at the owner's request.
    USER,
    /// Ended with the group that it was placed in.
    GROUP,
    /// Canceled, it would have traded with another order of its owner.
    SELF_TRADE,
    /// Immediate or cancel: what did not trade at once.
    IOC,
    /// Fill or kill: the whole quantity was not there.
    FOK,
    /// The next price lies beyond the collar.
    COLLAR,
    /// Nothing is left on the other side of the book.
    NO_LIQUIDITY,
    /// The trading day ended.
    DAY_END,
    /// Good till date: its time came.
    GTD,
    /// The auction that it was for is over.
    AUCTION_END,
    /// Post-only, and its price would trade at once.
    POST_ONLY_WOULD_CROSS,
    /// The book of the symbol is full.
    BOOK_FULL,
    /// The engine has no open order with this id.
    ORDER_NOT_OPEN,
    /// This field of this order cannot be replaced.
    NOT_REPLACEABLE,
    /// The symbol paused before a trade outside its volatility band.
    VOLATILITY_PAUSE,
    /// The phase of the symbol takes no such order or change.
    WRONG_PHASE,
    /// The symbol is in this phase already.
    SAME_PHASE,
    /// The symbol is not halted.
    NOT_HALTED,

    // The book's own checks, which the order-service's come before.

    /// The number of an order is not greater than all before it.
    BAD_ORDER_ID,
    /// The quantity in lots is 0 or beyond the book.
    BAD_QUANTITY,
    /// The price in ticks is missing or beyond the book.
    BAD_PRICE,
    /// The stop price is missing, beyond the book, or given for an order without one.
    BAD_STOP_PRICE,
    /// The trail is 0 or beyond the book.
    BAD_TRAIL,
    /// The displayed quantity is above the quantity or too small a part of it.
    BAD_DISPLAY,
    /// A stop that is to trade at once.
    BAD_TIME_IN_FORCE,
    /// Post-only or iceberg with an order that cannot rest.
    BAD_COMBINATION,
    /// A good-till-date time that has passed.
    BAD_EXPIRE_TIME,
    /// Reference or width of a volatility band is beyond its limits.
    BAD_BAND,

    // The engine's door.

    /// A command of the engine is not well formed.
    COMMAND_MALFORMED,
    /// More requests wait for the engine than may.
    ENGINE_BUSY,
    /// The engine is stopping.
    ENGINE_STOPPED,
    /// The engine's journal cannot be written just now.
    JOURNAL_UNWRITABLE,
    /// The disk has so little room that nothing is written.
    DISK_FULL,

    // Accounts and money.

    /// There is no such account, or not for this caller.
    ACCOUNT_NOT_FOUND,
    /// There is another account with this id.
    ACCOUNT_EXISTS,
    /// The type of an account is none that a user may have.
    ACCOUNT_TYPE_UNKNOWN,
    /// Only an investment account trades.
    ACCOUNT_NOT_INVESTMENT,
    /// The user has no investment account.
    NO_INVESTMENT_ACCOUNT,
    /// The user has as many accounts as one may have.
    TOO_MANY_ACCOUNTS,
    /// From and to are the same account.
    SAME_ACCOUNT,
    /// No account can have this currency.
    CURRENCY_UNKNOWN,
    /// The currency is not the account's.
    CURRENCY_MISMATCH,
    /// An amount that a user moves is not within its limits.
    AMOUNT_OUT_OF_RANGE,
    /// An amount is worth nothing in the other currency.
    AMOUNT_TOO_SMALL,
    /// An amount, or what it makes of a balance, does not fit into 64 bits.
    AMOUNT_TOO_LARGE,
    /// The sum of the balances does not fit into 64 bits.
    SUM_TOO_LARGE,
    /// What the house gives is not within its limits.
    ENDOWMENT_OUT_OF_RANGE,
    /// The account has less cash available than is needed.
    INSUFFICIENT_FUNDS,
    /// The account has fewer shares available than are needed.
    INSUFFICIENT_SHARES,
    /// The projections are further behind than this request can wait for, or than its key can be looked up in.
    PROJECTION_BEHIND,
    /// The deposits of a user and day are bounded.
    DEPOSITS_OF_DAY,
    /// The cash of an account is bounded for deposits.
    ACCOUNT_FULL,
    /// The cash of all clients together is bounded.
    EXCHANGE_FULL,
    /// What the shares of a position cost, with what open orders may add, is beyond 64 bits.
    COST_TOO_LARGE,
    /// The user has left.
    USER_CLOSED,
    /// The account of the order was closed.
    ACCOUNT_CLOSING,
    /// There is nothing to sell.
    NOTHING_TO_SELL,
    /// The account holds no such shares.
    HOLDING_NOT_FOUND,
    /// The watchlist has as many symbols as one may have.
    WATCHLIST_FULL,

    // The command line's own.

    /// No platform, or no broker, answers at this address.
    NOT_RUNNING,
    /// The connection cannot be secured: who answers is not believed, or does not speak TLS.
    TLS,
    /// The platform did not start.
    NOT_STARTED,
    /// The platform did not answer in time.
    TIMEOUT,
    /// Another program listens on this port.
    PORT_TAKEN,
    /// The configuration is not well formed.
    CONFIGURATION,
    /// News says too much, or nothing.
    NEWS_OUT_OF_RANGE,
    /// The seeds are not well formed.
    SEEDS,
    /// The books of account or the journal do not hold what they must.
    AUDIT,
    /// The data directory cannot be used.
    DATA_DIR,
    /// Another process uses the data directory.
    DATA_DIR_IN_USE,
    /// The fact log does not reach to the beginning: a backup must be named.
    REBUILD_NEEDS_BACKUP,
    /// The database to be made anew is on a server.
    REBUILD_ELSEWHERE,
    /// The backup has no such database, or a damaged one.
    BACKUP_UNUSABLE,
    /// A program before this one made the data directory, and this one cannot go on with it.
    DATA_DIR_FORMER,
    /// The data directory to be emptied has files that are not fafnir's.
    DATA_DIR_FOREIGN,
    /// Another process uses the broker's store.
    STORE_IN_USE,
    /// The broker's store cannot be used.
    STORE,
    /// The broker refused.
    BROKER,
    /// There is no log.
    NO_LOG,
    /// The doctor found something.
    FINDINGS,
    /// The quantity is not a decimal number that can be kept.
    QUANTITY_MALFORMED,
    /// The price is not a decimal number that can be kept.
    PRICE_MALFORMED,
    /// The stop price is not a decimal number that can be kept.
    STOP_MALFORMED,
    /// The amount of a trail is not a decimal number that can be kept.
    TRAIL_MALFORMED,
    /// The percentage of a trail is not a decimal number that can be kept.
    TRAIL_PERCENT_MALFORMED,
    /// The displayed quantity is not a decimal number that can be kept.
    DISPLAY_MALFORMED,
    /// The amount is not a decimal number that can be kept.
    AMOUNT_MALFORMED,
    /// A load is only for a platform on this machine, unless asked otherwise.
    NOT_LOOPBACK,
    /// A symbol named for a load is not open in its currency.
    SYMBOL,
    /// No symbol can be traded by a load.
    NO_SYMBOL,
    /// The users of a load could not be made ready.
    LOAD_USERS,
    /// Requests of a load failed.
    LOAD_FAILED,
    /// A load left orders standing.
    LOAD_CLEAN,
    /// A file of an order flow cannot be read.
    FLOW_FILE,
    /// A flow did not end as its header says.
    FLOW_MISMATCH,
    /// A file of the journal cannot be read.
    JOURNAL_FILE,
    /// The journal lacks records that nothing else has.
    JOURNAL_INCOMPLETE,
    /// The journal was written under the rules of another program.
    JOURNAL_VERSION,
    /// The journal is damaged.
    JOURNAL_DAMAGED,
    /// A record of the journal breaks the exchange each time it is stepped.
    RECORD_BREAKS,
    /// Only a record that breaks each start is passed over.
    RECORD_NOT_SKIPPED,
    /// The record to stop at is after the last one.
    BEYOND_THE_JOURNAL,
    /// The record to stop at is before the oldest state that is kept.
    BEFORE_THE_JOURNAL,
    /// A snapshot is damaged or not what the replay comes to.
    SNAPSHOT_DIFFERS,
    /// A fact of the outcome log is not what the replay comes to.
    FACT_DIFFERS,
    /// The fact log is damaged.
    FACTS_DAMAGED,
    /// Two runs are not the same.
    RUNS_DIFFER,
}

impl Reason {
    /// The code that is spelled like this; `None` where this version has none.
    pub fn known(text: &str) -> Option<Self> {
        Self::ALL.iter().map(|(reason, _)| *reason).find(|reason| reason.as_str() == text)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl From<Reason> for String {
    fn from(reason: Reason) -> Self {
        reason.as_str().to_owned()
    }
}

/// A code as the wire or a table carries it: one of [`Reason`], or one that only another version knows.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(clippy::module_name_repetitions, reason = "any reason, also one that is not a Reason")]
pub struct AnyReason(Cow<'static, str>);

impl AnyReason {
    /// Takes a code as it came.
    pub fn read(text: &str) -> Self {
        Reason::known(text).map_or_else(|| Self(Cow::Owned(text.to_owned())), Self::from)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The code, where this version has it.
    pub fn known(&self) -> Option<Reason> {
        Reason::known(&self.0)
    }
}

impl From<Reason> for AnyReason {
    fn from(reason: Reason) -> Self {
        Self(Cow::Borrowed(reason.as_str()))
    }
}

impl From<AnyReason> for String {
    fn from(reason: AnyReason) -> Self {
        reason.0.into_owned()
    }
}

impl PartialEq<Reason> for AnyReason {
    fn eq(&self, other: &Reason) -> bool {
        self.0 == other.as_str()
    }
}

impl PartialEq<str> for AnyReason {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for AnyReason {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Display for AnyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The standard name of a gRPC code, which a client sees beside the reason.
pub fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_is_upper_case_stands_once_and_says_what_it_means() {
        let mut seen = BTreeSet::new();
        let mut meanings = BTreeSet::new();
        for (reason, meaning) in Reason::ALL {
            let text = reason.as_str();
            let parts = text.split('_');
            let good = |part: &str| {
                !part.is_empty() && part.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit())
            };
            assert!(parts.into_iter().all(good), "{text}");
            assert!(seen.insert(text), "{text} stands twice");
            let meaning = meaning.trim();
            assert!(meaning.len() > 10 && meaning.ends_with('.'), "{text}: {meaning:?}");
            assert!(meanings.insert(meaning), "{text} means what another code means");
            assert_eq!(Reason::known(text), Some(*reason));
        }
    }

    #[test]
    fn a_code_of_another_version_is_kept_as_it_came() {
        let foreign = AnyReason::read("MOON_NOT_FULL");
        assert_eq!((foreign.as_str(), foreign.known()), ("MOON_NOT_FULL", None));
        let ours = AnyReason::read("PRICE_OFF_TICK");
        assert_eq!((ours.known(), &ours), (Some(Reason::PRICE_OFF_TICK), &Reason::PRICE_OFF_TICK.into()));
        assert!(ours == Reason::PRICE_OFF_TICK && ours != Reason::PRICE_OUT_OF_BAND);
    }
}
