//! What the terminal knows: plain data, without I/O. The clock, the ids, the window's size and the theme are part of it.

pub mod alert;
pub mod chart;
pub mod feed;
pub mod holdings;
pub mod intake;
pub mod ladder;
pub mod page;
pub mod remembered;
pub mod tape;
pub mod ticket;
pub mod volume;

use crate::{Exit, columns::Columns, keys::KeyMap, text::Input, theme::Theme, zone::Zone};
use alert::Alert;
use chart::Chart;
use fafnir_proto::v1;
use feed::{Feed, Links};
use holdings::Holdings;
use ladder::Ladder;
use page::{Page, Pages};
use remembered::Remembered;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use tape::Tape;
use ticket::Ticket;
use volume::Volume;

/// Lines kept in the log.
pub const LOG_LINES_MAX: usize = 500;
/// How long a message stays, in microseconds.
pub const MESSAGE_US: i64 = 10_000_000;
/// How long one-key orders stay armed, in microseconds.
pub const ARMED_US: i64 = 300_000_000;
/// A pointer that rests on the ladder holds it still for this long after its last motion, in microseconds.
pub const POINTER_US: i64 = 30_000_000;
/// Order sizes of the keys 1 to 4 unless the caller says otherwise, e4.
pub const SIZES_E4: [i64; 4] = [10_000, 50_000, 100_000, 500_000];
/// Which of them a terminal begins with.
pub const SIZE_FIRST: usize = 1;
/// In place of one of them: all that stands at the best price.
pub const SIZE_BEST: usize = SIZES_E4.len();
/// Symbols in the watchlist at most.
pub const WATCH_MAX: usize = 100;
/// Last prices kept per symbol for the small chart in the watchlist.
pub const SPARK_MAX: usize = 24;
/// Largest notional of a one-key order unless the caller says otherwise, in micros of the listing's currency.
pub const ARMED_NOTIONAL_MICROS_MAX: i64 = 10_000_000_000;

/// Which screen shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Screen {
    SignIn,
    Trading,
}

/// Who is signed in.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Who {
    pub user_id: String,
    pub email: String,
}

/// The sign-in form.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SignIn {
    pub email: Input,
    pub password: Input,
    pub on_password: bool,
    pub busy: bool,
    pub refused: Option<String>,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SignIn")
            .field("email", &self.email)
            .field("password", &"****")
            .finish_non_exhaustive()
    }
}

/// What lies over the trading screen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Overlay {
    Help {
        scroll: usize,
    },
    Search {
        input: Input,
        selected: usize,
    },
    Palette {
        input: Input,
        selected: usize,
    },
    Alert {
        input: Input,
        refused: Option<String>,
    },
    ConfirmFlatten {
        symbol: String,
    },
    Page(Page),
    /// Four lines of what to press, at the first start.
    Welcome,
}

/// The tabs of the lower part.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Tab {
    #[default]
    Orders,
    Positions,
    Fills,
    Log,
}

/// What shows beside the ladder when there is room for one pane only.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pane {
    #[default]
    Tape,
    Chart,
    Watch,
}

/// How a message is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Good,
    Bad,
    Note,
}

/// The line above the hints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub tone: Tone,
    pub text: String,
    pub until_us: i64,
}

/// One line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogLine {
    pub time_us: i64,
    pub tone: Tone,
    pub text: String,
}

/// Makes client order ids: unique for ever by its random prefix, in order by its counter. Never reads randomness itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    prefix: String,
    counter: u64,
}

impl Ids {
    /// `prefix` must be unique to this run; at most 40 characters are used.
    pub fn new(prefix: &str) -> Self {
        Self { prefix: prefix.chars().take(40).collect(), counter: 0 }
    }

    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    pub fn take(&mut self) -> String {
        self.counter += 1;
        format!("{}-{}", self.prefix, self.counter)
    }
}

/// How a recording plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    pub held: bool,
    /// 100 is as it was.
    pub speed_percent: u32,
}

/// Which orders are listed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OrderFilter {
    #[default]
    All,
    Open,
    /// Those in the symbol on the ladder.
    Symbol,
    /// Those that have ended.
    History,
}

impl OrderFilter {
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::All => Self::Open,
            Self::Open => Self::Symbol,
            Self::Symbol => Self::History,
            Self::History => Self::All,
        }
    }

    /// As the tab names it; empty for all.
    pub fn name(self) -> &'static str {
        match self {
            Self::All => "",
            Self::Open => "open",
            Self::Symbol => "symbol",
            Self::History => "ended",
        }
    }
}

/// Own orders that the mouse button went down on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drag {
    pub order_ids: Vec<String>,
    /// The ladder's row where the button went down.
    pub from: i64,
    /// The row that the pointer is on.
    pub at: i64,
    /// It has been on another row.
    pub moved: bool,
}

/// Everything.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub struct Model {
    /// Wall clock in microseconds since 1970 UTC, as the loop last said.
    pub now_us: i64,
    /// Columns and rows of the window.
    pub size: (u16, u16),
    pub theme: Theme,
    /// In which clocks show and times are read.
    pub zone: Zone,
    pub keys: KeyMap,
    /// Of the tables below.
    pub columns: Columns,
    pub ids: Ids,
    pub read_only: bool,
    /// What to press is still to be said.
    pub welcome: bool,
    /// This plays a recording: nothing is the market's of now.
    pub replay: Option<Replay>,
    /// The user wants the shell back for a while.
    pub suspend: bool,
    /// Which orders the lower part lists.
    pub order_filter: OrderFilter,
    pub armed_notional_micros_max: i64,
    pub screen: Screen,
    pub who: Who,
    pub sign_in: SignIn,
    pub links: Links,
    pub instruments: BTreeMap<String, v1::Instrument>,
    pub quotes: BTreeMap<String, v1::Quote>,
    pub sparks: BTreeMap<String, VecDeque<i64>>,
    /// In the order in which it shows.
    pub watch: Vec<String>,
    /// The symbol on the ladder; empty before the first is known.
    pub symbol: String,
    pub book: Option<v1::BookImage>,
    pub feed: Feed,
    pub ladder: Ladder,
    /// Own orders that the mouse holds.
    pub drag: Option<Drag>,
    /// Where the mouse pointer was last seen, and when.
    pub pointer: Option<((u16, u16), i64)>,
    pub tape: Tape,
    pub volume: Volume,
    pub chart: Chart,
    pub holdings: Holdings,
    pub ticket: Option<Ticket>,
    /// The symbol whose flatten is on its way.
    pub flattening: Option<String>,
    /// Id of the open order that is chosen among the orders.
    pub chosen: Option<String>,
    pub alerts: Vec<Alert>,
    /// Until when one-key orders are armed.
    pub armed_until_us: Option<i64>,
    pub overlay: Option<Overlay>,
    pub pages: Pages,
    /// What is kept of this terminal; none until what was kept of the last one is known.
    pub remembered: Option<Remembered>,
    pub tab: Tab,
    pub scroll: usize,
    pub pane: Pane,
    /// Order sizes of the keys 1 to 4, e4.
    pub sizes_e4: [i64; 4],
    /// Which of them, or [`SIZE_BEST`].
    pub size_index: usize,
    pub message: Option<Message>,
    pub log: VecDeque<LogLine>,
    /// The symbols whose quotes the backend was last asked for.
    pub following: Vec<String>,
    pub exit: Option<Exit>,
    /// What the exchange says that keeps it from taking everything; empty: nothing.
    pub notice: String,
    /// It does not take everything.
    pub limited: bool,
    /// Something that shows has changed since the last frame.
    pub dirty: bool,
}

impl Model {
    /// An empty terminal at the sign-in screen.
    pub fn new(now_us: i64, size: (u16, u16), theme: Theme, ids: Ids) -> Self {
        Self {
            now_us,
            size,
            theme,
            zone: Zone::default(),
            keys: KeyMap::default(),
            columns: Columns::default(),
            ids,
            read_only: false,
            welcome: false,
            replay: None,
            suspend: false,
            order_filter: OrderFilter::All,
            armed_notional_micros_max: ARMED_NOTIONAL_MICROS_MAX,
            screen: Screen::SignIn,
            who: Who::default(),
            sign_in: SignIn::default(),
            links: Links::default(),
            instruments: BTreeMap::new(),
            quotes: BTreeMap::new(),
            sparks: BTreeMap::new(),
            watch: Vec::new(),
            symbol: String::new(),
            book: None,
            feed: Feed::default(),
            ladder: Ladder::default(),
            drag: None,
            pointer: None,
            tape: Tape::default(),
            volume: Volume::default(),
            chart: Chart::default(),
            holdings: Holdings::default(),
            ticket: None,
            flattening: None,
            chosen: None,
            alerts: Vec::new(),
            armed_until_us: None,
            overlay: None,
            pages: Pages::default(),
            remembered: None,
            tab: Tab::Orders,
            scroll: 0,
            pane: Pane::Tape,
            sizes_e4: SIZES_E4,
            size_index: SIZE_FIRST,
            message: None,
            log: VecDeque::new(),
            following: Vec::new(),
            notice: String::new(),
            limited: false,
            exit: None,
            dirty: true,
        }
    }

    pub fn instrument(&self) -> Option<&v1::Instrument> {
        self.instruments.get(&self.symbol)
    }

    /// The smallest price step of a symbol, e4; a cent where the listing is not known.
    pub fn tick_e4(&self, symbol: &str) -> i64 {
        self.instruments.get(symbol).map_or(100, |i| i.tick_e4.max(1))
    }

    /// The smallest quantity step of a symbol, e4; one share where the listing is not known.
    pub fn lot_e4(&self, symbol: &str) -> i64 {
        self.instruments.get(symbol).map_or(10_000, |i| i.lot_e4.max(1))
    }

    pub fn currency(&self, symbol: &str) -> &str {
        self.instruments.get(symbol).map_or("USD", |i| i.currency.as_str())
    }

    /// Last trade, else the quote's price, else the listing's previous close (exchange-rules §7), e4.
    pub fn reference_e4(&self, symbol: &str) -> Option<i64> {
        let of_book = self.book.as_ref().filter(|b| b.symbol == symbol).map(|b| b.last_price_e4);
        let of_tape = self.tape.last().filter(|_| self.symbol == symbol).map(|t| t.price_e4);
        let of_quote = self.quotes.get(symbol).map(|q| q.price_e4);
        let of_listing = self.instruments.get(symbol).map(|i| i.previous_close_e4);
        [of_tape, of_book, of_quote, of_listing].into_iter().flatten().find(|p| *p > 0)
    }

    /// What a symbol does now. The book has the engine's own word; without one the quote's, else the listing's.
    pub fn trading_state(&self, symbol: &str) -> v1::TradingState {
        let of_book = self.book.as_ref().filter(|b| b.symbol == symbol).map(v1::BookImage::state);
        let of_quote = self.quotes.get(symbol).map(v1::Quote::state);
        let of_listing = self.instruments.get(symbol).map(v1::Instrument::trading_state);
        [of_book, of_quote, of_listing]
            .into_iter()
            .flatten()
            .find(|s| *s != v1::TradingState::Unspecified)
            .unwrap_or(v1::TradingState::Open)
    }

    /// Best bid and ask of the symbol on the ladder, e4.
    pub fn inside(&self) -> (Option<i64>, Option<i64>) {
        let best = |side: fn(&v1::BookImage) -> &Vec<v1::Level>| {
            self.book.as_ref().and_then(|b| side(b).first()).map(|l| l.price_e4)
        };
        (best(|b| &b.bids), best(|b| &b.asks))
    }

    /// Orders that the lower part lists, in its order.
    pub fn orders_listed(&self) -> Vec<&v1::Order> {
        let mut orders = self.holdings.orders_shown();
        orders.retain(|o| match self.order_filter {
            OrderFilter::All => true,
            OrderFilter::Open => holdings::is_open(o),
            OrderFilter::Symbol => o.symbol == self.symbol,
            OrderFilter::History => !holdings::is_open(o),
        });
        orders
    }

    /// The size that an order of a side begins with, e4: that of one of the keys 1 to 4, or all that stands at the other
    /// side's best price. None where nothing stands there.
    pub fn size_e4(&self, side: v1::Side) -> Option<i64> {
        if self.size_index != SIZE_BEST {
            return self.sizes_e4.get(self.size_index).copied();
        }
        let book = self.book.as_ref()?;
        let other = if side == v1::Side::Sell { &book.bids } else { &book.asks };
        other.first().map(|level| level.quantity_e4)
    }

    pub fn is_armed(&self) -> bool {
        self.armed_until_us.is_some_and(|until| self.now_us < until)
    }

    /// Shows a message and keeps it in the log.
    pub fn say(&mut self, tone: Tone, text: impl Into<String>) {
        let text = crate::text::clean(&text.into()).into_owned();
        self.message =
            Some(Message { tone, text: text.clone(), until_us: self.now_us.saturating_add(MESSAGE_US) });
        self.note(tone, text);
    }

    /// Writes to the log only.
    pub fn note(&mut self, tone: Tone, text: impl Into<String>) {
        let text = crate::text::clean(&text.into()).into_owned();
        if self.log.len() >= LOG_LINES_MAX {
            self.log.pop_front();
        }
        self.log.push_back(LogLine { time_us: self.now_us, tone, text });
        self.dirty = true;
    }

    /// Takes a quote unless a newer one is known.
    pub fn take_quote(&mut self, quote: v1::Quote) {
        if self.quotes.get(&quote.symbol).is_some_and(|old| old.version > quote.version) {
            return;
        }
        let quote = intake::quote(quote);
        let spark = self.sparks.entry(quote.symbol.clone()).or_default();
        if spark.back() != Some(&quote.price_e4) {
            if spark.len() >= SPARK_MAX {
                spark.pop_front();
            }
            spark.push_back(quote.price_e4);
        }
        self.quotes.insert(quote.symbol.clone(), quote);
        self.dirty = true;
    }

    /// Symbols whose quotes are wanted: the one on the ladder, the watchlist, the positions, the alerts.
    pub fn wanted(&self) -> Vec<String> {
        let mut wanted: Vec<String> = std::iter::once(&self.symbol)
            .chain(&self.watch)
            .chain(self.holdings.held_symbols())
            .chain(self.alerts.iter().map(|a| &a.symbol))
            .filter(|s| !s.is_empty())
            .cloned()
            .collect();
        wanted.sort();
        wanted.dedup();
        wanted.truncate(WATCH_MAX);
        wanted
    }
}
