//! Listings, bars and quotes: the rules of stock-service, without I/O.

use fafnir_platform::{Refusal, clock::DAY_US};
use fafnir_proto::reason::Reason;
use fafnir_rules::limits::{LISTING_E4_MAX, STEP_DECIMALS_MAX, VOLATILITY_BAND_BPS_MAX};
use fafnir_rules::{
    money::{CURRENCIES, step_decimals},
    order::one_of,
    symbol::Symbol,
};
use std::collections::BTreeMap;

/// Longest texts of a listing in bytes.
const NAME_LEN_MAX: usize = 200;
const TEXT_LEN_MAX: usize = 4_000;
/// Shares of one listing.
const SHARES_MAX: i64 = 1_000_000_000_000;
/// Bars in one load.
pub const BARS_MAX: usize = 2_000;
/// Symbols in one request for quotes.
pub const QUOTES_MAX: usize = 100;
/// Answers of a search; a limit outside 1 to this becomes [`SEARCH_DEFAULT`].
pub const SEARCH_MAX: u32 = 20;
pub const SEARCH_DEFAULT: u32 = 8;
/// Longest search text in bytes.
pub const QUERY_LEN_MAX: usize = 100;
/// Bars of an interval in one answer.
pub const CANDLES_MAX: u32 = 2_000;
pub const CANDLES_DEFAULT: u32 = 500;
/// How many days back the 52-week range looks.
pub const YEAR_DAYS: i64 = 364;
/// Microseconds in a second and in a minute.
pub const SECOND_US: i64 = 1_000_000;
pub const MINUTE_US: i64 = 60 * SECOND_US;

fn invalid<T>(reason: Reason, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::invalid(reason, message))
}

/// What an instrument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Equity,
    Etf,
}

impl Kind {
    /// The stored number.
    pub fn number(self) -> i32 {
        match self {
            Self::Equity => 1,
            Self::Etf => 2,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Equity, Self::Etf].into_iter().find(|k| k.number() == number)
    }
}

/// What trading in a symbol does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Open,
    Halted,
    Closed,
    PreOpen,
    Auction,
}

impl State {
    /// The stored number.
    pub fn number(self) -> i32 {
        match self {
            Self::Open => 1,
            Self::Halted => 2,
            Self::Closed => 3,
            Self::PreOpen => 4,
            Self::Auction => 5,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Open, Self::Halted, Self::Closed, Self::PreOpen, Self::Auction]
            .into_iter()
            .find(|s| s.number() == number)
    }
}

/// What a listing says of the instrument: texts, steps and figures. Prices and steps have scale 10⁻⁴.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Terms {
    pub name: String,
    /// Short, e.g. NASDAQ.
    pub exchange: String,
    pub exchange_full_name: String,
    /// ISO 4217; fixed at listing.
    pub currency: String,
    /// Fixed at listing, as is the lot.
    pub tick_e4: i64,
    pub lot_e4: i64,
    /// The reference price before the first trade.
    pub previous_close_e4: i64,
    pub shares_outstanding: i64,
    pub sector: String,
    pub industry: String,
    pub description: String,
    pub country: String,
    pub website: String,
}

/// A listing as it is asked for; [`list`] checks it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    pub symbol: String,
    pub kind: Option<Kind>,
    pub terms: Terms,
    /// Of a new listing; OPEN where it says nothing. State and band of an older one have operations of their own.
    pub state: Option<State>,
    pub volatility_band_bps: u32,
}

/// A listed instrument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instrument {
    pub symbol: String,
    pub kind: Kind,
    pub terms: Terms,
    /// The engine's word, as is the pause; see [`Self::trading_state`].
    pub state: State,
    /// Width of the volatility band in basis points of its reference, 1 to 9,999; 0 is none.
    pub volatility_band_bps: u32,
    /// In a volatility pause.
    pub volatility_pause: bool,
    /// Grows with each change.
    pub version: u64,
}

impl Instrument {
    /// What the symbol does now: AUCTION while a volatility pause interrupts an open market, else the listing's state.
    pub fn trading_state(&self) -> State {
        match self.state {
            State::Open if self.volatility_pause => State::Auction,
            state => state,
        }
    }
}

/// Open, high, low, close and volume of a span of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    pub open_e4: i64,
    pub high_e4: i64,
    pub low_e4: i64,
    pub close_e4: i64,
    pub volume_e4: i64,
}

impl Bar {
    /// The bar of one trade.
    pub fn of_trade(price_e4: i64, quantity_e4: i64) -> Self {
        Self {
            open_e4: price_e4,
            high_e4: price_e4,
            low_e4: price_e4,
            close_e4: price_e4,
            volume_e4: quantity_e4,
        }
    }

    /// This bar followed by a later one.
    pub fn then(self, later: Self) -> Self {
        Self {
            open_e4: self.open_e4,
            high_e4: self.high_e4.max(later.high_e4),
            low_e4: self.low_e4.min(later.low_e4),
            close_e4: later.close_e4,
            volume_e4: self.volume_e4.saturating_add(later.volume_e4),
        }
    }
}

/// The last trade of a symbol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastTrade {
    pub price_e4: i64,
    pub quantity_e4: i64,
    pub trade_no: u64,
    pub time_us: i64,
}

/// Best bid and ask with their quantities; 0 where a side is empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Top {
    pub epoch: u64,
    pub book_seq: u64,
    pub bid_e4: i64,
    pub bid_quantity_e4: i64,
    pub ask_e4: i64,
    pub ask_quantity_e4: i64,
}

/// What trades left behind of one symbol; the quotes need no more of the past.
#[derive(Debug, Clone, Default)]
pub struct Past {
    /// Newest daily bar with its day.
    pub newest: Option<(i64, Bar)>,
    /// Close of the daily bar before the newest one.
    pub close_before_newest_e4: Option<i64>,
    /// Lowest low and highest high of the last 52 weeks, the newest bar included.
    pub year_e4: Option<(i64, i64)>,
    pub last: Option<LastTrade>,
}

/// The price of a symbol and what belongs to it. Prices and quantities have scale 10⁻⁴; 0 where a side is empty.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote {
    /// Last trade, else previous close.
    pub price_e4: i64,
    pub top: Top,
    pub previous_close_e4: i64,
    /// Of today; without a trade the price with volume 0.
    pub day: Bar,
    pub year_low_e4: i64,
    pub year_high_e4: i64,
    /// Saturates; the units are exact for any size.
    pub market_cap_micros: i64,
    pub market_cap_units: i64,
    pub as_of_us: i64,
    pub state: State,
    pub version: u64,
}

/// What is known of one symbol, enough to quote it without the database.
#[derive(Debug, Clone)]
pub struct Listing {
    pub instrument: Instrument,
    pub updated_us: i64,
    pub past: Past,
    pub top: Top,
    /// Grows with each change, also over restarts.
    pub version: u64,
}

impl Listing {
    pub fn new(instrument: Instrument, updated_us: i64) -> Self {
        Self {
            instrument,
            updated_us,
            past: Past::default(),
            top: Top::default(),
            version: u64::try_from(updated_us).unwrap_or(0),
        }
    }

    /// Adds the trades of a day.
    pub fn trade(&mut self, day: i64, bar: Bar, last: LastTrade) {
        let past = &mut self.past;
        match &mut past.newest {
            Some((newest, sum)) if *newest == day => *sum = sum.then(bar),
            Some((newest, _)) if *newest > day => {}
            newest => {
                past.close_before_newest_e4 = newest.map(|(_, b)| b.close_e4);
                *newest = Some((day, bar));
            }
        }
        past.year_e4 = Some(
            past.year_e4.map_or((bar.low_e4, bar.high_e4), |(l, h)| (l.min(bar.low_e4), h.max(bar.high_e4))),
        );
        if past.last.is_none_or(|l| l.trade_no < last.trade_no) {
            past.last = Some(last);
        }
        self.version += 1;
    }

    /// Takes what was read of the past; a trade that came meanwhile stays.
    pub fn reread(&mut self, past: Past) {
        let trade_no = |last: Option<LastTrade>| last.map_or(0, |l| l.trade_no);
        if trade_no(self.past.last) > trade_no(past.last) {
            self.past.year_e4 = past.year_e4;
            self.past.close_before_newest_e4 = match (self.past.newest, past.newest) {
                (Some((day, _)), Some((read, bar))) if read < day => Some(bar.close_e4),
                _ => past.close_before_newest_e4,
            };
        } else {
            self.past = past;
        }
        self.version += 1;
    }

    /// Takes a changed listing; an older one changes nothing.
    pub fn relist(&mut self, instrument: Instrument, updated_us: i64) {
        if instrument.version >= self.instrument.version {
            self.instrument = instrument;
            self.updated_us = updated_us;
            self.version += 1;
        }
    }

    /// Takes a book image's best levels; an older image changes nothing. Answers whether something changed.
    pub fn book(&mut self, top: Top) -> bool {
        if (top.epoch, top.book_seq) < (self.top.epoch, self.top.book_seq) {
            return false;
        }
        let same = Top { epoch: self.top.epoch, book_seq: self.top.book_seq, ..top } == self.top;
        self.top = top;
        self.version += u64::from(!same);
        !same
    }

    /// The quote on day `today`. The previous close is the close of the last day before today that traded, else the
    /// listing's own. On a day without a trade open, low and high are the price and the volume is 0.
    pub fn quote(&self, today: i64) -> Quote {
        let (i, past) = (&self.instrument, &self.past);
        let (day_bar, close_e4) = match past.newest {
            Some((day, bar)) if day >= today => (Some(bar), past.close_before_newest_e4),
            Some((_, bar)) => (None, Some(bar.close_e4)),
            None => (None, None),
        };
        let previous_close_e4 = close_e4.unwrap_or(i.terms.previous_close_e4);
        let price_e4 = past.last.map_or(previous_close_e4, |l| l.price_e4);
        let day = day_bar.unwrap_or_else(|| Bar::of_trade(price_e4, 0));
        let (year_low_e4, year_high_e4) =
            past.year_e4.map_or((day.low_e4, day.high_e4), |(l, h)| (l.min(day.low_e4), h.max(day.high_e4)));
        let (market_cap_units, market_cap_micros) = market_cap(price_e4, i.terms.shares_outstanding);
        Quote {
            price_e4,
            top: self.top,
            previous_close_e4,
            day,
            year_low_e4,
            year_high_e4,
            market_cap_micros,
            market_cap_units,
            as_of_us: past.last.map_or(self.updated_us, |l| l.time_us),
            state: i.trading_state(),
            version: self.version,
        }
    }
}

/// Market capitalisation in whole currency units (rounded down) and in micros (saturating), through 128 bits.
pub fn market_cap(price_e4: i64, shares: i64) -> (i64, i64) {
    let product = i128::from(price_e4) * i128::from(shares);
    let clamp = |v: i128| i64::try_from(v).unwrap_or(i64::MAX);
    (clamp(product / 10_000), clamp(product * 100))
}

/// The UTC day of a time, in days since 1970.
pub fn day_of(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US)
}

/// Reads a symbol of a request.
pub fn symbol(text: &str) -> Result<Symbol, Refusal> {
    Symbol::parse(text)
        .or_else(|e| invalid(Reason::SYMBOL_MALFORMED, format!("{e}; {:?} is not", truncated(text))))
}

pub fn truncated(text: &str) -> String {
    text.chars().take(20).collect()
}

/// Checks the width of a volatility band; 0 is none.
pub fn volatility_band(bps: u32) -> Result<(), Refusal> {
    if bps > VOLATILITY_BAND_BPS_MAX {
        let message = format!(
            "volatility_band_bps {bps} must be from 1 to {VOLATILITY_BAND_BPS_MAX} basis points, or 0 for no band"
        );
        return invalid(Reason::VOLATILITY_BAND_OUT_OF_RANGE, message);
    }
    Ok(())
}

fn text(field: &str, value: &str, max: usize, required: bool) -> Result<(), Refusal> {
    if value.len() > max {
        return invalid(Reason::TEXT_TOO_LONG, format!("{field} must have at most {max} bytes"));
    }
    if value.chars().any(char::is_control) {
        return invalid(Reason::TEXT_MALFORMED, format!("{field} must not have control characters"));
    }
    if required && value.trim().is_empty() {
        return invalid(Reason::TEXT_MISSING, format!("{field} must not be empty"));
    }
    Ok(())
}

impl Proposal {
    /// Checks each field and answers what the instrument is.
    fn check(&self) -> Result<Kind, Refusal> {
        symbol(&self.symbol)?;
        let t = &self.terms;
        text("name", &t.name, NAME_LEN_MAX, true)?;
        text("exchange", &t.exchange, NAME_LEN_MAX, true)?;
        text("exchange_full_name", &t.exchange_full_name, NAME_LEN_MAX, false)?;
        text("sector", &t.sector, NAME_LEN_MAX, false)?;
        text("industry", &t.industry, NAME_LEN_MAX, false)?;
        text("country", &t.country, NAME_LEN_MAX, false)?;
        text("website", &t.website, NAME_LEN_MAX, false)?;
        text("description", &t.description, TEXT_LEN_MAX, false)?;
        let Some(kind) = self.kind else {
            return invalid(Reason::INSTRUMENT_TYPE_UNKNOWN, "type must be EQUITY or ETF");
        };
        if t.currency.len() != 3 || !t.currency.bytes().all(|b| b.is_ascii_uppercase()) {
            return invalid(Reason::CURRENCY_MALFORMED, "currency must be three capital letters (ISO 4217)");
        }
        if !CURRENCIES.contains(&t.currency.as_str()) {
            return invalid(Reason::CURRENCY_UNKNOWN, format!("currency must be {}", one_of(CURRENCIES)));
        }
        for (field, step) in [("tick", t.tick_e4), ("lot", t.lot_e4)] {
            if !(1..=LISTING_E4_MAX).contains(&step) {
                return invalid(Reason::STEP_OUT_OF_RANGE, format!("{field} must be from 0.0001 to 1000000"));
            }
        }
        let decimals = step_decimals(t.tick_e4) + step_decimals(t.lot_e4);
        if decimals > STEP_DECIMALS_MAX {
            let max = STEP_DECIMALS_MAX;
            return invalid(
                Reason::STEP_TOO_FINE,
                format!("tick and lot must have at most {max} decimals together, not {decimals}"),
            );
        }
        if !(0..=LISTING_E4_MAX).contains(&t.previous_close_e4) {
            return invalid(Reason::PRICE_OUT_OF_RANGE, "previous_close must be from 0 to 1000000");
        }
        if !(0..=SHARES_MAX).contains(&t.shares_outstanding) {
            return invalid(
                Reason::SHARES_OUT_OF_RANGE,
                format!("shares_outstanding must be from 0 to {SHARES_MAX}"),
            );
        }
        volatility_band(self.volatility_band_bps)?;
        Ok(kind)
    }
}

fn fixed<T>(reason: Reason, message: String) -> Result<T, Refusal> {
    Err(Refusal::precondition(reason, message))
}

/// Checks a listing and brings it into its stored form: a new one, or a change of `current`. `None` when nothing changes.
pub fn list(proposal: Proposal, current: Option<&Instrument>) -> Result<Option<Instrument>, Refusal> {
    let kind = proposal.check()?;
    let Proposal { symbol, terms, state, volatility_band_bps, .. } = proposal;
    let Some(current) = current else {
        return Ok(Some(Instrument {
            symbol,
            kind,
            terms,
            state: state.unwrap_or(State::Open),
            volatility_band_bps,
            volatility_pause: false,
            version: 1,
        }));
    };
    let was = &current.terms;
    for (field, was, is) in [("tick", was.tick_e4, terms.tick_e4), ("lot", was.lot_e4, terms.lot_e4)] {
        if was != is {
            return fixed(Reason::STEP_FIXED, format!("the {field} of {symbol} was fixed at listing"));
        }
    }
    if was.currency != terms.currency {
        return fixed(Reason::CURRENCY_FIXED, format!("the currency of {symbol} was fixed at listing"));
    }
    // State and volatility band have operations of their own: a listing that is loaded again does not resume trading.
    if kind == current.kind && terms == current.terms {
        return Ok(None);
    }
    Ok(Some(Instrument { kind, terms, version: current.version + 1, ..current.clone() }))
}

/// A span of which a bar may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Span {
    Day,
    Minute,
}

impl Span {
    fn us(self) -> i64 {
        match self {
            Self::Day => DAY_US,
            Self::Minute => MINUTE_US,
        }
    }

    /// Field of the request, what a time must be, and before what.
    fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Day => ("bars", "00:00 UTC of a day since 1970", "today"),
            Self::Minute => ("minutes", "the beginning of a minute since 1970", "this minute"),
        }
    }
}

/// Checks bars, each with the time that it names, and answers them by number of day or minute: before the span of
/// `now_us`, each span once.
pub fn bars(span: Span, bars: &[(i64, Bar)], now_us: i64) -> Result<Vec<(i64, Bar)>, Refusal> {
    let (field, begins, before) = span.words();
    if bars.len() > BARS_MAX {
        return invalid(Reason::TOO_MANY_BARS, format!("{field} must be at most {BARS_MAX} at a time"));
    }
    let mut spans = BTreeMap::new();
    for (n, (time_us, bar)) in bars.iter().enumerate() {
        let number = time_us.div_euclid(span.us());
        if time_us.rem_euclid(span.us()) != 0 || number < 0 {
            return invalid(Reason::BAR_TIME, format!("{field}[{n}].time_us must be {begins}"));
        }
        if number >= now_us.div_euclid(span.us()) {
            return invalid(Reason::BAR_TIME, format!("{field}[{n}].time_us must be before {before}"));
        }
        let in_order = 0 < bar.low_e4
            && bar.low_e4 <= bar.open_e4.min(bar.close_e4)
            && bar.open_e4.max(bar.close_e4) <= bar.high_e4
            && bar.high_e4 <= LISTING_E4_MAX;
        if !in_order {
            return invalid(
                Reason::BAR_PRICES,
                format!("{field}[{n}] needs 0 < low <= open, close <= high <= 1000000"),
            );
        }
        if bar.volume_e4 < 0 {
            return invalid(Reason::BAR_VOLUME, format!("{field}[{n}].volume must not be negative"));
        }
        if spans.insert(number, *bar).is_some() {
            return invalid(Reason::BAR_TIME, format!("{field}[{n}] repeats a time"));
        }
    }
    Ok(spans.into_iter().collect())
}

/// Something that the engine did to a symbol, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    Traded(LastTrade),
    StateSet(State),
    /// Paused by the volatility band; the state stays.
    Paused,
}

/// What became of a symbol's trading state.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Standing {
    /// `None`: as it was.
    pub state: Option<State>,
    /// In a volatility pause.
    pub paused: bool,
}

/// Trades of one symbol, summed by day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traded {
    pub symbol: String,
    pub day: i64,
    pub bar: Bar,
    pub last: LastTrade,
}

/// Events of several symbols, summed up.
#[derive(Debug, Default)]
pub struct Sum {
    days: BTreeMap<(String, i64), (Bar, LastTrade)>,
    minutes: BTreeMap<(String, i64), Bar>,
    seconds: BTreeMap<(String, i64), Bar>,
    /// Volume by symbol, day and price.
    prices: BTreeMap<(String, i64, i64), i64>,
    /// The symbols whose state changed.
    pub standings: BTreeMap<String, Standing>,
}

impl Sum {
    /// Adds what comes next of a symbol.
    pub fn add(&mut self, symbol: &str, event: Event) {
        let trade = match event {
            Event::StateSet(state) => {
                let standing = Standing { state: Some(state), paused: false };
                self.standings.insert(symbol.to_owned(), standing);
                return;
            }
            Event::Paused => {
                self.standings.entry(symbol.to_owned()).or_default().paused = true;
                return;
            }
            Event::Traded(trade) => trade,
        };
        let bar = Bar::of_trade(trade.price_e4, trade.quantity_e4);
        self.days
            .entry((symbol.to_owned(), day_of(trade.time_us)))
            .and_modify(|(sum, last)| (*sum, *last) = (sum.then(bar), trade))
            .or_insert((bar, trade));
        for (bars, us) in [(&mut self.minutes, MINUTE_US), (&mut self.seconds, SECOND_US)] {
            bars.entry((symbol.to_owned(), trade.time_us.div_euclid(us)))
                .and_modify(|sum| *sum = sum.then(bar))
                .or_insert(bar);
        }
        let at_price =
            self.prices.entry((symbol.to_owned(), day_of(trade.time_us), trade.price_e4)).or_default();
        *at_price = at_price.saturating_add(trade.quantity_e4);
    }

    /// Symbol, day, price and volume of each price, by symbol.
    pub fn prices(&self) -> impl Iterator<Item = (&str, i64, i64, i64)> {
        self.prices
            .iter()
            .map(|((symbol, day, price_e4), volume_e4)| (symbol.as_str(), *day, *price_e4, *volume_e4))
    }

    /// Symbol, minute and bar of each minute, by symbol.
    pub fn minutes(&self) -> impl Iterator<Item = (&str, i64, Bar)> {
        self.minutes.iter().map(|((symbol, minute), bar)| (symbol.as_str(), *minute, *bar))
    }

    /// Symbol, second and bar of each second, by symbol.
    pub fn seconds(&self) -> impl Iterator<Item = (&str, i64, Bar)> {
        self.seconds.iter().map(|((symbol, second), bar)| (symbol.as_str(), *second, *bar))
    }

    /// The trades by symbol and day.
    pub fn days(&self) -> impl Iterator<Item = Traded> {
        self.days.iter().map(|((symbol, day), (bar, last))| Traded {
            symbol: symbol.clone(),
            day: *day,
            bar: *bar,
            last: *last,
        })
    }
}

/// A span of history that ends today.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Period {
    /// The newest day that has a bar.
    Newest,
    Days(i64),
    Months(u8),
    Max,
}

impl Period {
    /// 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX in any case; empty is 1M.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        Ok(match text.trim().to_ascii_uppercase().as_str() {
            "1D" => Self::Newest,
            "1W" => Self::Days(7),
            "" | "1M" => Self::Months(1),
            "3M" => Self::Months(3),
            "6M" => Self::Months(6),
            "1Y" => Self::Months(12),
            "2Y" => Self::Months(24),
            "5Y" => Self::Months(60),
            "MAX" => Self::Max,
            _ => {
                return invalid(
                    Reason::PERIOD_UNKNOWN,
                    format!("period must be one of 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX, not {:?}", truncated(text)),
                );
            }
        })
    }

    /// The first day of the span. Months are those of the calendar; a day that a month lacks becomes its last one.
    pub fn first_day(self, today: i64) -> i64 {
        match self {
            Self::Newest | Self::Max => 0,
            Self::Days(days) => today - days + 1,
            Self::Months(months) => {
                let epoch = time::OffsetDateTime::UNIX_EPOCH.date();
                let Some(date) = epoch.checked_add(time::Duration::days(today)) else { return 0 };
                let month = date.year() * 12 + i32::from(u8::from(date.month())) - 1 - i32::from(months);
                let (year, month) = (month.div_euclid(12), month.rem_euclid(12) + 1);
                let Ok(month) = time::Month::try_from(month as u8) else { return 0 };
                let day = date.day().min(month.length(year));
                time::Date::from_calendar_date(year, month, day).map_or(0, |d| (d - epoch).whole_days())
            }
        }
    }
}

/// How well a listing answers a search: symbol equal, symbol prefix, every word begins a word of the name. `None`: not
/// at all. Lower is better.
pub fn search_rank(instrument: &Instrument, query: &str) -> Option<u8> {
    let query = query.trim();
    let as_symbol = query.to_ascii_uppercase();
    if instrument.symbol == as_symbol {
        return Some(0);
    }
    if instrument.symbol.starts_with(&as_symbol) {
        return Some(1);
    }
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric()).filter(|w| !w.is_empty()).map(str::to_lowercase).collect()
    };
    let (wanted, name) = (words(query), words(&instrument.terms.name));
    let first = wanted.first()?;
    let matches = wanted.iter().all(|w| name.iter().any(|n| n.starts_with(w.as_str())));
    let begins = name.first().is_some_and(|n| n.starts_with(first.as_str()));
    matches.then_some(if begins { 2 } else { 3 })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn terms() -> Terms {
        Terms {
            name: "Apple Inc.".into(),
            exchange: "NASDAQ".into(),
            currency: "USD".into(),
            tick_e4: 100,
            lot_e4: 10_000,
            previous_close_e4: 2_310_000,
            shares_outstanding: 15_000_000_000,
            ..Terms::default()
        }
    }

    fn with(terms: Terms) -> Proposal {
        let kind = Some(Kind::Equity);
        Proposal { symbol: "AAPL".into(), kind, terms, state: None, volatility_band_bps: 0 }
    }

    fn apple() -> Instrument {
        list(with(terms()), None).unwrap().unwrap()
    }

    fn day(year: i32, month: u8, day: u8) -> i64 {
        let date = time::Date::from_calendar_date(year, time::Month::try_from(month).unwrap(), day).unwrap();
        (date - time::OffsetDateTime::UNIX_EPOCH.date()).whole_days()
    }

    #[test]
    fn a_listing_opens_at_version_1_and_its_steps_are_fixed() {
        let listed = apple();
        assert_eq!((listed.version, listed.state), (1, State::Open));
        assert_eq!(list(with(terms()), Some(&listed)), Ok(None));
        let renamed = list(with(Terms { name: "Apple".into(), ..terms() }), Some(&listed)).unwrap().unwrap();
        assert_eq!(renamed.version, 2);
        for changed in [Terms { tick_e4: 50, ..terms() }, Terms { lot_e4: 1, ..terms() }] {
            assert!(list(with(changed), Some(&listed)).is_err());
        }
    }

    #[test]
    fn loading_a_halted_listing_again_leaves_it_halted() {
        let halted = Instrument { state: State::Halted, ..apple() };
        assert_eq!(list(with(terms()), Some(&halted)), Ok(None));
    }

    #[test]
    fn a_bad_listing_is_refused_with_its_reason() {
        let good = with(terms());
        for (proposal, reason) in [
            (Proposal { symbol: "A*".into(), ..good.clone() }, "SYMBOL_MALFORMED"),
            (with(Terms { name: " ".into(), ..terms() }), "TEXT_MISSING"),
            (with(Terms { name: "\u{1b}[31m".into(), ..terms() }), "TEXT_MALFORMED"),
            (with(Terms { tick_e4: 0, ..terms() }), "STEP_OUT_OF_RANGE"),
            (with(Terms { tick_e4: 1, lot_e4: 10, ..terms() }), "STEP_TOO_FINE"),
            (with(Terms { currency: "usd".into(), ..terms() }), "CURRENCY_MALFORMED"),
            (with(Terms { currency: "EUR".into(), ..terms() }), "CURRENCY_UNKNOWN"),
            (Proposal { kind: None, ..good.clone() }, "INSTRUMENT_TYPE_UNKNOWN"),
            (with(Terms { previous_close_e4: -1, ..terms() }), "PRICE_OUT_OF_RANGE"),
            (Proposal { volatility_band_bps: 10_000, ..good.clone() }, "VOLATILITY_BAND_OUT_OF_RANGE"),
        ] {
            match list(proposal, None) {
                Err(Refusal { reason: found, .. }) => assert_eq!(found, reason),
                other => panic!("{reason}: {other:?}"),
            }
        }
        // 4 + 2 decimals are allowed.
        assert!(list(with(Terms { tick_e4: 1, lot_e4: 100, ..terms() }), None).is_ok());
    }

    #[test]
    fn market_capitalisation_goes_through_128_bits() {
        assert_eq!(market_cap(2_310_700, 15_000_000_000), (3_466_050_000_000, 3_466_050_000_000_000_000));
        assert_eq!(market_cap(10_000_000_000, 1_000_000_000_000), (1_000_000_000_000_000_000, i64::MAX));
    }

    #[test]
    fn the_previous_close_moves_at_midnight() {
        let mut listing = Listing::new(apple(), 0);
        assert_eq!(listing.quote(100).previous_close_e4, 2_310_000);
        let last = LastTrade { price_e4: 2_320_000, quantity_e4: 10_000, trade_no: 1, time_us: 7 };
        listing.trade(100, Bar::of_trade(2_320_000, 10_000), last);
        let today = listing.quote(100);
        assert_eq!(
            (today.price_e4, today.previous_close_e4, today.day.volume_e4),
            (2_320_000, 2_310_000, 10_000)
        );
        let tomorrow = listing.quote(101);
        assert_eq!(
            (tomorrow.price_e4, tomorrow.previous_close_e4, tomorrow.day.open_e4, tomorrow.day.volume_e4),
            (2_320_000, 2_320_000, 2_320_000, 0)
        );
    }

    #[test]
    fn history_that_is_loaded_below_a_trade_that_is_not_stored_yet_gives_the_previous_close() {
        let mut listing = Listing::new(apple(), 0);
        let last = LastTrade { price_e4: 2_320_000, quantity_e4: 10_000, trade_no: 1, time_us: 7 };
        listing.trade(100, Bar::of_trade(2_320_000, 10_000), last);
        let loaded = Bar::of_trade(2_250_000, 50_000);
        let past =
            Past { newest: Some((99, loaded)), year_e4: Some((2_000_000, 2_400_000)), ..Past::default() };
        listing.reread(past);
        let quote = listing.quote(100);
        assert_eq!((quote.price_e4, quote.previous_close_e4), (2_320_000, 2_250_000));
        assert_eq!((quote.year_low_e4, quote.year_high_e4), (2_000_000, 2_400_000));
    }

    #[test]
    fn an_older_image_of_the_book_changes_nothing() {
        let mut listing = Listing::new(apple(), 0);
        let top = Top { epoch: 2, book_seq: 5, bid_e4: 100, ..Top::default() };
        assert!(listing.book(top));
        assert!(!listing.book(Top { book_seq: 6, ..top }));
        assert!(!listing.book(Top { epoch: 1, book_seq: 9, bid_e4: 90, ..top }));
        assert_eq!(listing.quote(0).top.bid_e4, 100);
    }

    #[test]
    fn periods_follow_the_calendar() {
        let today = day(2026, 3, 31);
        for (text, first) in [
            ("1w", day(2026, 3, 25)),
            ("", day(2026, 2, 28)),
            ("3M", day(2025, 12, 31)),
            ("1y", day(2025, 3, 31)),
            ("5Y", day(2021, 3, 31)),
            ("max", 0),
        ] {
            assert_eq!(Period::parse(text).unwrap().first_day(today), first, "{text}");
        }
        assert!(Period::parse("4M").is_err());
    }

    #[test]
    fn search_prefers_symbols_to_names() {
        let rank = |q: &str| search_rank(&apple(), q);
        assert_eq!(rank("aapl"), Some(0));
        assert_eq!(rank(" aa"), Some(1));
        assert_eq!(rank("app"), Some(2));
        assert_eq!(rank("inc"), Some(3));
        assert_eq!(rank("apple i"), Some(2));
        assert_eq!(rank("pple"), None);
        assert_eq!(rank("%"), None);
    }

    #[test]
    fn bars_that_contradict_themselves_are_refused() {
        let good = Bar { open_e4: 2, high_e4: 3, low_e4: 1, close_e4: 2, volume_e4: 9 };
        let (at, now_us) = (5 * DAY_US, 6 * DAY_US + 90_000_000);
        assert_eq!(bars(Span::Day, &[(at, good)], now_us).unwrap(), [(5, good)]);
        let minute = 6 * DAY_US;
        assert_eq!(bars(Span::Minute, &[(minute, good)], now_us).unwrap(), [(6 * 1_440, good)]);
        for bad in [
            (1, good),
            (6 * DAY_US, good),
            (at, Bar { low_e4: 0, ..good }),
            (at, Bar { high_e4: 1, ..good }),
            (at, Bar { volume_e4: -1, ..good }),
        ] {
            assert!(bars(Span::Day, &[bad], now_us).is_err(), "{bad:?}");
        }
        assert!(bars(Span::Day, &[(at, good), (at, good)], now_us).is_err());
        assert!(bars(Span::Minute, &[(minute + MINUTE_US, good)], now_us).is_err());
    }
}
