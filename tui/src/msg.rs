//! The messages: what comes in ([`Msg`], [`Event`]) and what goes out ([`Cmd`]).

use crate::model::{
    Who,
    feed::{Link, Wire},
    remembered::Remembered,
};
use fafnir_proto::v1;

/// Everything that changes the model.
#[expect(clippy::large_enum_variant, reason = "a message lives for one call of update")]
#[derive(Debug, Clone)]
pub enum Msg {
    /// The time, in microseconds since 1970 UTC.
    Clock(i64),
    /// A key, the mouse, pasted text, the window.
    Input(crossterm::event::Event),
    /// Something from the exchange.
    Backend(Event),
}

/// An event of the exchange.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    Link(Wire, Link, String),
    SignedIn(Who),
    /// What was kept of the user's last terminal; before [`Self::SignedIn`], and again with everything that is loaded.
    Recalled(Box<Remembered>),
    SignInRefused(String),
    /// The session ended; the sentence says why.
    SignedOut(String),
    Instruments(Vec<v1::Instrument>),
    Watchlist(Vec<String>),
    /// Orders as they are. `open_complete`: every open order of the user's is among them.
    Orders {
        orders: Vec<v1::Order>,
        open_complete: bool,
    },
    Fills(Vec<v1::Fill>),
    Positions(Vec<v1::Holding>),
    Accounts(Vec<v1::Account>),
    Quotes(Vec<v1::Quote>),
    /// An image of the book; `from_feed` when it came by the market-data feed.
    Book {
        image: v1::BookImage,
        from_feed: bool,
    },
    /// Trades in order of their numbers; `after`: the answer to a question for those after this number.
    Trades {
        symbol: String,
        trades: Vec<v1::Trade>,
        after: Option<u64>,
    },
    /// What was traded at each price of the day.
    Volume(v1::VolumeAtPriceReply),
    Candles {
        symbol: String,
        interval: &'static str,
        candles: Vec<v1::Candle>,
    },
    /// How an account went.
    Performance(Box<v1::PerformanceReply>),
    /// Daily bars.
    Days {
        symbol: String,
        candles: Vec<v1::Candle>,
    },
    /// What a year of days says of a symbol.
    Statistics(Box<v1::StatisticsReply>),
    /// The platform at a glance, and its users.
    Platform {
        figures: Box<v1::DashboardReply>,
        users: Vec<v1::UserAccount>,
    },
    Private(v1::PrivateUpdate),
    Placed {
        client_order_id: String,
        outcome: Outcome<v1::Order>,
        elapsed_us: i64,
    },
    Canceled {
        order_id: String,
        outcome: Outcome<v1::Order>,
        elapsed_us: i64,
    },
    Replaced {
        order_id: String,
        outcome: Outcome<v1::Order>,
        elapsed_us: i64,
    },
    CanceledAll {
        symbol: String,
        outcome: Outcome<u32>,
        elapsed_us: i64,
    },
    Flattened {
        symbol: String,
        outcome: Outcome<Flattened>,
        elapsed_us: i64,
    },
    WatchChanged {
        symbol: String,
        added: bool,
        outcome: Outcome<()>,
    },
    /// A question that changes nothing had no answer.
    Unanswered {
        question: &'static str,
        text: String,
    },
}

/// What a flatten did, over all accounts that it was for. Flat: nothing is left, and there is no why.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Flattened {
    /// The orders that sold, as they are.
    pub orders: Vec<v1::Order>,
    /// Shares that are left.
    pub left_e4: i64,
    /// Why not all was sold, one sentence: the first account's that has one.
    pub why: String,
}

impl Flattened {
    /// Adds what was done in one more account.
    pub fn add(&mut self, reply: v1::FlattenReply) {
        self.orders.extend(reply.order);
        self.left_e4 = self.left_e4.saturating_add(reply.left_e4);
        if reply.left_e4 > 0 && self.why.is_empty() {
            self.why = reply.message;
        }
    }
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T> {
    Done(T),
    /// The exchange said no: nothing changed. One sentence.
    Refused(String),
    /// No answer: it may or may not have happened. One sentence.
    Unknown(String),
}

/// Work for the backend. Answers come as [`Event`]s.
#[derive(Clone, PartialEq)]
pub enum Cmd {
    SignIn {
        email: String,
        password: String,
    },
    /// Everything of the user's, the instruments, the watchlist.
    Load,
    /// What the market-data subscriptions should be.
    Follow {
        symbol: String,
        quotes: Vec<String>,
    },
    Book {
        symbol: String,
    },
    /// The trades after a number, or the latest when it is 0.
    Trades {
        symbol: String,
        after: u64,
    },
    Volume {
        symbol: String,
    },
    Candles {
        symbol: String,
        interval: &'static str,
    },
    /// How an account went in a span of time.
    Performance {
        account_id: String,
        period: &'static str,
        interval: &'static str,
    },
    /// Daily bars of a symbol, and what they say of it.
    Days {
        symbol: String,
    },
    /// The platform at a glance.
    Platform,
    /// What to keep of this terminal until the user's next one.
    Remember(Box<Remembered>),
    /// One order as it is, when a list left it out.
    Order {
        order_id: String,
    },
    Place(v1::PlaceOrderRequest),
    /// The first order's client order id is the group's.
    PlaceGroup(v1::PlaceGroupRequest),
    Replace(v1::ReplaceOrderRequest),
    Cancel {
        order_id: String,
    },
    CancelAll {
        symbol: String,
    },
    /// Cancels everything in the symbol and sells what is there, in each of the accounts (empty: the default one).
    Flatten {
        symbol: String,
        account_ids: Vec<String>,
    },
    WatchAdd {
        symbol: String,
    },
    WatchRemove {
        symbol: String,
    },
    /// Puts a text where the user's other programs find it.
    Copy(String),
    /// Rings.
    Bell,
}

impl std::fmt::Debug for Cmd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SignIn { email, .. } => write!(f, "SignIn({email:?}, ****)"),
            Self::Load => f.write_str("Load"),
            Self::Follow { symbol, quotes } => write!(f, "Follow({symbol}, {quotes:?})"),
            Self::Book { symbol } => write!(f, "Book({symbol})"),
            Self::Trades { symbol, after } => write!(f, "Trades({symbol}, {after})"),
            Self::Volume { symbol } => write!(f, "Volume({symbol})"),
            Self::Candles { symbol, interval } => write!(f, "Candles({symbol}, {interval})"),
            Self::Performance { account_id, period, .. } => write!(f, "Performance({account_id}, {period})"),
            Self::Days { symbol } => write!(f, "Days({symbol})"),
            Self::Platform => f.write_str("Platform"),
            Self::Remember(_) => f.write_str("Remember"),
            Self::Order { order_id } => write!(f, "Order({order_id})"),
            Self::PlaceGroup(request) => write!(f, "PlaceGroup({} orders)", request.orders.len()),
            Self::Place(request) => write!(f, "Place({})", request.client_order_id),
            Self::Replace(request) => write!(f, "Replace({}, {})", request.order_id, request.version),
            Self::Cancel { order_id } => write!(f, "Cancel({order_id})"),
            Self::CancelAll { symbol } => write!(f, "CancelAll({symbol})"),
            Self::Flatten { symbol, account_ids } => write!(f, "Flatten({symbol}, {account_ids:?})"),
            Self::WatchAdd { symbol } => write!(f, "WatchAdd({symbol})"),
            Self::WatchRemove { symbol } => write!(f, "WatchRemove({symbol})"),
            Self::Copy(text) => write!(f, "Copy({text:?})"),
            Self::Bell => f.write_str("Bell"),
        }
    }
}
