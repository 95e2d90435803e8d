//! The objects of the public API and how they follow from the contract's messages (public-api.md §6).

pub use super::error::Outcome;

use super::{
    enums::{GroupLeg, OrderState, PendingAction, Side, TimeInForce, TradingState, given, word},
    rows::Rows,
    scalars::{DateTime, Decimal, Int64, Uuid},
};
use async_graphql::{InputObject, SimpleObject};
use fafnir_platform::clock::{date, rfc3339};
use fafnir_proto::v1;
use fafnir_rules::money;
use std::fmt;

/// The name of an enum value without its type's prefix: `ORDER_TYPE_STOP_LIMIT` → `STOP_LIMIT`.
fn bare(name: &str, prefix: &str) -> String {
    name.strip_prefix(prefix).unwrap_or(name).to_owned()
}

/// A text that is there, or none.
pub fn optional(text: String) -> Option<String> {
    if text.is_empty() { None } else { Some(text) }
}

/// Whole shares of a quantity.
fn shares(quantity_e4: i64) -> Int64 {
    Int64(quantity_e4.div_euclid(10_000))
}

/// A part of an order that traded.
#[derive(SimpleObject, Clone, Debug)]
pub struct Fill {
    /// SYMBOL:sequence.
    pub exec_id: String,
    /// The order's id.
    pub order_id: Uuid,
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// What the order did.
    pub side: Side,
    /// Per share, in the currency of the listing.
    pub price: Decimal,
    /// Shares, to four decimals.
    pub quantity: Decimal,
    /// The order rested and was met; else it took what rested.
    pub maker: bool,
    /// When it happened.
    pub time: DateTime,
}

impl From<v1::Fill> for Fill {
    fn from(f: v1::Fill) -> Self {
        Self {
            side: given(f.side().known()),
            exec_id: f.exec_id,
            order_id: Uuid(f.order_id),
            symbol: f.symbol,
            price: Decimal::e4(f.price_e4),
            quantity: Decimal::e4(f.quantity_e4),
            maker: f.maker,
            time: DateTime::of(f.time_us),
        }
    }
}

/// An order and how far it is.
#[derive(SimpleObject, Clone, Debug)]
pub struct Order {
    /// Its id, a UUID.
    pub id: String,
    /// The user's id, a UUID.
    pub user_id: String,
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// BUY, SELL.
    pub side: String,
    /// MARKET, LIMIT, STOP, STOP_LIMIT, TRAILING_STOP.
    #[graphql(name = "type")]
    pub kind: String,
    /// PENDING, PARTIAL_FILL, FILLED, CANCELED, REJECTED; the exact state is in `state`.
    pub status: String,
    /// Shares, to four decimals.
    pub quantity: Decimal,
    /// 0 where the order has none.
    pub price: Decimal,
    /// 0 where the order has none.
    pub stop_price: Decimal,
    /// Shares that traded so far.
    pub filled_quantity: Decimal,
    /// 0 before the first fill; to ten decimals, rounded half to even.
    pub avg_fill_price: Decimal,
    /// When it came to be, RFC 3339.
    pub created_at: String,
    /// When it last changed, RFC 3339.
    pub updated_at: String,
    /// How far it is, exactly.
    pub state: OrderState,
    /// What waits for the engine's word.
    pub pending: PendingAction,
    /// The account's id.
    pub account_id: Uuid,
    /// For how long it stands.
    pub time_in_force: TimeInForce,
    /// The id that the client gave it.
    pub client_order_id: Option<String>,
    /// One sentence: why it was rejected or ended.
    pub reject_reason: Option<String>,
    /// The machine code of `rejectReason`.
    pub reject_code: Option<String>,
    /// Quantity that can still trade.
    pub open_quantity: Decimal,
    /// Oldest first.
    pub fills: Vec<Fill>,
    /// 1 at acceptance, one more at each replace.
    pub version: u32,
    /// Rests or is canceled; never takes what rests.
    pub post_only: bool,
    /// What of an iceberg the book shows at a time; the rest is hidden.
    pub display_quantity: Decimal,
    /// How far the stop trails behind the price.
    pub trail_amount: Decimal,
    /// 1.25 is 1.25 %.
    pub trail_percent: Decimal,
    /// When it ends.
    pub expires_at: Option<DateTime>,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// What the account's balance holds for it now: of a BUY cash in the account's currency, of a SELL shares.
    pub held_cash: Decimal,
    /// Shares that the order holds of a position.
    pub held_quantity: Decimal,
    /// The group that it was placed in.
    pub group_id: Option<Uuid>,
    /// What it is in its group.
    pub leg: Option<GroupLeg>,
}

/// The five states that the reference knew.
fn legacy_status(state: v1::OrderState, filled_e4: i64) -> &'static str {
    use v1::OrderState::*;
    match state {
        Filled => "FILLED",
        Canceled | Expired => "CANCELED",
        Rejected => "REJECTED",
        PartiallyFilled => "PARTIAL_FILL",
        Unspecified | PendingNew | Held | New if filled_e4 > 0 => "PARTIAL_FILL",
        Unspecified | PendingNew | Held | New => "PENDING",
    }
}

impl From<v1::Order> for Order {
    fn from(o: v1::Order) -> Self {
        Self {
            side: o.side().name().to_owned(),
            kind: o.r#type().name().to_owned(),
            status: legacy_status(o.state(), o.filled_e4).to_owned(),
            state: given(o.state().known()),
            pending: o.pending().into(),
            time_in_force: given(o.time_in_force().known()),
            avg_fill_price: Decimal::average(money::average_price(
                o.filled_notional_micros,
                o.filled_e4,
                money::AVERAGE_DECIMALS,
            )),
            leg: (o.leg() != v1::GroupLeg::None).then(|| word(o.leg().name())),
            id: o.id,
            user_id: o.user_id,
            symbol: o.symbol,
            quantity: Decimal::e4(o.quantity_e4),
            price: Decimal::e4(o.price_e4),
            stop_price: Decimal::e4(o.stop_price_e4),
            filled_quantity: Decimal::e4(o.filled_e4),
            created_at: rfc3339(o.created_us),
            updated_at: rfc3339(o.updated_us),
            account_id: Uuid(o.account_id),
            client_order_id: optional(o.client_order_id),
            reject_reason: optional(o.reject_reason),
            reject_code: optional(o.reject_code),
            open_quantity: Decimal::e4(o.open_e4),
            fills: o.fills.into_iter().map(Fill::from).collect(),
            version: o.version,
            post_only: o.post_only,
            display_quantity: Decimal::e4(o.display_quantity_e4),
            trail_amount: Decimal::e4(o.trail_amount_e4),
            trail_percent: Decimal::e4(o.trail_percent_e4),
            expires_at: DateTime::of_some(o.expires_us),
            held_cash: Decimal::micros(o.hold_micros),
            held_quantity: Decimal::e4(o.hold_e4),
            group_id: Uuid::optional(o.group_id),
            currency: o.currency,
        }
    }
}

/// A money account of a client.
#[derive(SimpleObject, Clone, Debug)]
pub struct Account {
    /// Its id, a UUID.
    pub id: String,
    /// The user's id, a UUID.
    pub user_id: String,
    /// At most 20 characters; people know it by the last four.
    pub account_number: String,
    /// INVESTMENT, SAVINGS, CHEQUING.
    #[graphql(name = "type")]
    pub kind: String,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// Cash in the account, in its currency.
    pub balance: Decimal,
    /// When it came to be, RFC 3339.
    pub created_at: String,
    /// When it last changed, RFC 3339.
    pub updated_at: String,
    /// What can be spent: the balance without what open orders hold.
    pub available: Decimal,
    /// What open orders hold of it.
    pub held: Decimal,
}

impl From<v1::Account> for Account {
    fn from(a: v1::Account) -> Self {
        Self {
            kind: bare(a.r#type().as_str_name(), "ACCOUNT_TYPE_"),
            id: a.id,
            user_id: a.user_id,
            account_number: a.account_number,
            currency: a.currency,
            balance: Decimal::micros(a.balance_micros),
            created_at: rfc3339(a.created_us),
            updated_at: rfc3339(a.updated_us),
            available: Decimal::micros(a.available_micros),
            held: Decimal::micros(a.held_micros),
        }
    }
}

/// Shares of one symbol in an account.
#[derive(SimpleObject, Clone, Debug)]
pub struct Holding {
    /// Its id, a UUID.
    pub id: String,
    /// The account's id, a UUID.
    pub account_id: String,
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Shares, to four decimals.
    pub quantity: Decimal,
    /// Per share, in the account's currency.
    pub avg_cost: Decimal,
    /// When it came to be, RFC 3339.
    pub created_at: String,
    /// When it last changed, RFC 3339.
    pub updated_at: String,
    /// Shares that open sell orders hold.
    pub held: Decimal,
    /// In the listing's currency; 0 while there is no quote.
    pub market_price: Decimal,
    /// In the account's currency, at the house's rate where the listing has another one.
    pub market_value: Decimal,
    /// What selling at the market price would gain.
    pub unrealized_pnl: Decimal,
    /// What selling gained so far, in the account's currency.
    pub realized_pnl: Decimal,
}

impl From<v1::ValuedHolding> for Holding {
    fn from(valued: v1::ValuedHolding) -> Self {
        let h = valued.holding.unwrap_or_default();
        Self {
            id: h.id,
            account_id: h.account_id,
            symbol: h.symbol,
            quantity: Decimal::e4(h.quantity_e4),
            avg_cost: Decimal::micros(h.avg_cost_micros),
            created_at: rfc3339(h.created_us),
            updated_at: rfc3339(h.updated_us),
            held: Decimal::e4(h.held_e4),
            market_price: Decimal::e4(valued.market_price_e4),
            market_value: Decimal::micros(valued.market_value_micros),
            unrealized_pnl: Decimal::micros(valued.unrealized_pnl_micros),
            realized_pnl: Decimal::micros(h.realized_pnl_micros),
        }
    }
}

/// One movement of an account's cash.
#[derive(SimpleObject, Clone, Debug)]
pub struct Transaction {
    /// Its id, a UUID.
    pub id: String,
    /// The account's id, a UUID.
    pub account_id: String,
    /// DEPOSIT, BUY, SELL, TRANSFER_IN, TRANSFER_OUT, FEE.
    #[graphql(name = "type")]
    pub kind: String,
    /// Never negative; the type tells the direction.
    pub amount: Decimal,
    /// What it was, in words.
    pub description: String,
    /// The order or the other account.
    pub reference_id: Option<String>,
    /// When it came to be, RFC 3339.
    pub created_at: String,
}

impl From<v1::Transaction> for Transaction {
    fn from(t: v1::Transaction) -> Self {
        Self {
            kind: bare(t.r#type().as_str_name(), "TRANSACTION_TYPE_"),
            id: t.id,
            account_id: t.account_id,
            amount: Decimal::micros(t.amount_micros),
            description: t.description,
            reference_id: optional(t.reference_id),
            created_at: rfc3339(t.created_us),
        }
    }
}

/// An instrument that a search found.
#[derive(SimpleObject, Clone, Debug)]
pub struct StockSearchResult {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// The company's or fund's name.
    pub name: String,
    /// Short, such as NASDAQ.
    pub exchange: String,
    /// In full.
    pub exchange_full_name: String,
    /// EQUITY, ETF.
    pub instrument_type: String,
}

impl From<v1::Instrument> for StockSearchResult {
    fn from(i: v1::Instrument) -> Self {
        Self {
            instrument_type: bare(i.r#type().as_str_name(), "INSTRUMENT_TYPE_"),
            symbol: i.symbol,
            name: i.name,
            exchange: i.exchange,
            exchange_full_name: i.exchange_full_name,
        }
    }
}

/// What is known of a listed instrument.
#[derive(SimpleObject, Clone, Debug)]
pub struct StockData {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// The company's or fund's name.
    pub name: String,
    /// Short, such as NASDAQ.
    pub exchange: String,
    /// In full.
    pub exchange_full_name: String,
    /// EQUITY, ETF.
    pub instrument_type: String,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// The least step of a price.
    pub tick_size: Decimal,
    /// The least quantity, and what every quantity is a multiple of.
    pub lot_size: Decimal,
    /// What the exchange does with it.
    pub trading_state: TradingState,
    /// Its sector.
    pub sector: Option<String>,
    /// Its industry.
    pub industry: Option<String>,
    /// In words.
    pub description: Option<String>,
    /// ISO 3166 code or name.
    pub country: Option<String>,
    /// Its address.
    pub website: Option<String>,
    /// Shares that exist.
    pub shares_outstanding: Int64,
}

impl From<v1::Instrument> for StockData {
    fn from(i: v1::Instrument) -> Self {
        Self {
            instrument_type: bare(i.r#type().as_str_name(), "INSTRUMENT_TYPE_"),
            trading_state: given(i.trading_state().known()),
            symbol: i.symbol,
            name: i.name,
            exchange: i.exchange,
            exchange_full_name: i.exchange_full_name,
            currency: i.currency,
            tick_size: Decimal::e4(i.tick_e4),
            lot_size: Decimal::e4(i.lot_e4),
            sector: optional(i.sector),
            industry: optional(i.industry),
            description: optional(i.description),
            country: optional(i.country),
            website: optional(i.website),
            shares_outstanding: Int64(i.shares_outstanding),
        }
    }
}

/// A quote: the price and what is around it.
#[derive(SimpleObject, Clone, Debug)]
pub struct StockPriceData {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// Where the price comes from: this exchange.
    pub source: String,
    /// Of when it is, RFC 3339.
    pub as_of: String,
    /// OPEN, PRE_OPEN, AUCTION, HALTED, CLOSED; AUCTION in a volatility pause too.
    pub market_state: String,
    /// The last trade, else the previous close.
    pub price: Decimal,
    /// The first price.
    pub open: Decimal,
    /// The last price of the day before.
    pub previous_close: Decimal,
    /// Since the day before.
    pub price_change: Decimal,
    /// 1.25 is 1.25 %.
    pub price_change_percent: Decimal,
    /// Price times shares that exist.
    pub market_cap: Decimal,
    /// The lowest price of the day.
    pub day_low: Decimal,
    /// The highest price of the day.
    pub day_high: Decimal,
    /// The lowest price of the last 52 weeks.
    pub year_low: Decimal,
    /// The highest price of the last 52 weeks.
    pub year_high: Decimal,
    /// Whole shares.
    pub volume: Int64,
    /// The dearest price at which somebody buys; 0: nobody.
    pub bid: Decimal,
    /// The cheapest price at which somebody sells; 0: nobody.
    pub ask: Decimal,
    /// Shares wanted at it.
    pub bid_quantity: Decimal,
    /// Shares for sale at it.
    pub ask_quantity: Decimal,
}

impl From<v1::Quote> for StockPriceData {
    fn from(q: v1::Quote) -> Self {
        let change = q.price_e4.saturating_sub(q.previous_close_e4);
        Self {
            market_state: q.state().name().to_owned(),
            symbol: q.symbol,
            currency: q.currency,
            source: "FAFNIR".to_owned(),
            as_of: rfc3339(q.as_of_us),
            price: Decimal::e4(q.price_e4),
            open: Decimal::e4(q.open_e4),
            previous_close: Decimal::e4(q.previous_close_e4),
            price_change: Decimal::e4(change),
            price_change_percent: Decimal::e4(money::percent_e4(change, q.previous_close_e4)),
            market_cap: Decimal::units(q.market_cap_units),
            day_low: Decimal::e4(q.day_low_e4),
            day_high: Decimal::e4(q.day_high_e4),
            year_low: Decimal::e4(q.year_low_e4),
            year_high: Decimal::e4(q.year_high_e4),
            volume: shares(q.volume_e4),
            bid: Decimal::e4(q.bid_e4),
            ask: Decimal::e4(q.ask_e4),
            bid_quantity: Decimal::e4(q.bid_quantity_e4),
            ask_quantity: Decimal::e4(q.ask_quantity_e4),
        }
    }
}

/// What traded on one day.
#[derive(SimpleObject, Clone, Debug)]
pub struct StockHistoricalData {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// YYYY-MM-DD, UTC.
    pub date: String,
    /// The first price of the day.
    pub open: Decimal,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// The last price.
    pub close: Decimal,
    /// Close less open of the day.
    pub price_change: Decimal,
    /// The same in percent: 1.25 is 1.25 %.
    pub price_change_percent: Decimal,
    /// Whole shares.
    pub volume: Int64,
}

impl From<v1::Candle> for StockHistoricalData {
    fn from(c: v1::Candle) -> Self {
        let change = c.close_e4.saturating_sub(c.open_e4);
        Self {
            symbol: c.symbol,
            date: date(c.time_us),
            open: Decimal::e4(c.open_e4),
            high: Decimal::e4(c.high_e4),
            low: Decimal::e4(c.low_e4),
            close: Decimal::e4(c.close_e4),
            price_change: Decimal::e4(change),
            price_change_percent: Decimal::e4(money::percent_e4(change, c.open_e4)),
            volume: shares(c.volume_e4),
        }
    }
}

/// What traded in one span of time.
#[derive(SimpleObject, Clone, Debug)]
pub struct Candle {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Start of the bar.
    pub time: DateTime,
    /// The first price.
    pub open: Decimal,
    /// The highest price.
    pub high: Decimal,
    /// The lowest price.
    pub low: Decimal,
    /// The last price.
    pub close: Decimal,
    /// Shares that traded.
    pub volume: Decimal,
}

impl From<v1::Candle> for Candle {
    fn from(c: v1::Candle) -> Self {
        Self {
            symbol: c.symbol,
            time: DateTime::of(c.time_us),
            open: Decimal::e4(c.open_e4),
            high: Decimal::e4(c.high_e4),
            low: Decimal::e4(c.low_e4),
            close: Decimal::e4(c.close_e4),
            volume: Decimal::e4(c.volume_e4),
        }
    }
}

/// What a year of days says of a symbol. What is null cannot be said: too few days, or no fund of the currency.
#[derive(SimpleObject, Clone, Debug)]
pub struct Statistics {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// Days of the last 52 weeks on which it traded, without today.
    pub sessions: u32,
    /// The lowest price of 52 weeks, today included.
    pub year_low: Option<Decimal>,
    /// Its day, YYYY-MM-DD, UTC.
    pub year_low_date: Option<String>,
    /// The highest price of 52 weeks, today included.
    pub year_high: Option<Decimal>,
    /// Its day, YYYY-MM-DD, UTC.
    pub year_high_date: Option<String>,
    /// From the first close of the 52 weeks to now, in percent: 1.25 is 1.25 %.
    pub year_change_percent: Option<Decimal>,
    /// Mean volume of the last 10 days on which it traded, without today.
    pub average_volume10: Option<Decimal>,
    /// The same of the last 63, three months.
    pub average_volume63: Option<Decimal>,
    /// Deviation of a day's return times the root of 252, in percent.
    pub volatility_percent: Option<Decimal>,
    /// The fund that stands for the market: of the symbol's currency, the one that is worth most.
    pub index: Option<String>,
    /// How much it moves when the index moves by one.
    pub beta: Option<Decimal>,
}

impl From<v1::StatisticsReply> for Statistics {
    fn from(s: v1::StatisticsReply) -> Self {
        let price = |e4: i64, us: i64| (e4 > 0).then(|| (Decimal::e4(e4), date(us)));
        let (low, high) = (price(s.year_low_e4, s.year_low_us), price(s.year_high_e4, s.year_high_us));
        // A basis point is a hundredth of a percent.
        let percent = |bps: i64| Decimal::e4(bps.saturating_mul(100));
        Self {
            symbol: s.symbol,
            currency: s.currency,
            sessions: s.sessions,
            year_low: low.as_ref().map(|(price, _)| *price),
            year_low_date: low.map(|(_, date)| date),
            year_high: high.as_ref().map(|(price, _)| *price),
            year_high_date: high.map(|(_, date)| date),
            year_change_percent: s.year_change_bps.map(percent),
            average_volume10: s.volume_short_e4.map(Decimal::e4),
            average_volume63: s.volume_long_e4.map(Decimal::e4),
            volatility_percent: s.volatility_bps.map(percent),
            index: Some(s.index).filter(|index| !index.is_empty()),
            beta: s.beta_e4.map(Decimal::e4),
        }
    }
}

/// All that rests at one price.
#[derive(SimpleObject, Clone, Debug)]
pub struct BookLevel {
    /// Per share, in the currency of the listing.
    pub price: Decimal,
    /// Shares, to four decimals.
    pub quantity: Decimal,
    /// How many orders.
    pub orders: u32,
}

impl From<v1::Level> for BookLevel {
    fn from(l: v1::Level) -> Self {
        Self { price: Decimal::e4(l.price_e4), quantity: Decimal::e4(l.quantity_e4), orders: l.orders }
    }
}

/// A whole image of the book, best prices first; a newer one replaces an older one.
#[derive(SimpleObject, Clone, Debug)]
pub struct OrderBook {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Changes when the engine starts; with `sequence` it orders images.
    pub epoch: Int64,
    /// Grows with every change.
    pub sequence: Int64,
    /// What is wanted, the dearest first.
    pub bids: Vec<BookLevel>,
    /// What is for sale, the cheapest first.
    pub asks: Vec<BookLevel>,
    /// The price of the last trade; 0 where there was none.
    pub last_price: Decimal,
    /// Shares of the last trade.
    pub last_quantity: Decimal,
    /// The number of the last trade.
    pub last_trade_no: Int64,
    /// When it happened.
    pub time: DateTime,
    /// What the exchange does with the symbol.
    pub trading_state: TradingState,
    /// In a volatility pause: its auction runs soon after this, at a moment that nobody chooses. A later time in a later
    /// image: the pause was extended.
    pub pause_until: Option<DateTime>,
}

impl From<v1::BookImage> for OrderBook {
    fn from(b: v1::BookImage) -> Self {
        Self {
            pause_until: DateTime::of_some(b.pause_until_us),
            trading_state: given(b.state().known()),
            symbol: b.symbol,
            epoch: b.epoch.into(),
            sequence: b.book_seq.into(),
            bids: b.bids.into_iter().map(BookLevel::from).collect(),
            asks: b.asks.into_iter().map(BookLevel::from).collect(),
            last_price: Decimal::e4(b.last_price_e4),
            last_quantity: Decimal::e4(b.last_quantity_e4),
            last_trade_no: b.last_trade_no.into(),
            time: DateTime::of(b.time_us),
        }
    }
}

/// A trade as everybody sees it.
#[derive(SimpleObject, Clone, Debug)]
pub struct Trade {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Per symbol, from 1, without a gap.
    pub trade_no: Int64,
    /// SYMBOL:sequence.
    pub exec_id: String,
    /// Per share, in the currency of the listing.
    pub price: Decimal,
    /// Shares, to four decimals.
    pub quantity: Decimal,
    /// Who took; null: nobody, in an auction.
    pub aggressor: Option<Side>,
    /// When it happened.
    pub time: DateTime,
    /// In a subscription: the trades between the one before and this are no longer kept.
    pub reset: bool,
}

impl From<v1::Trade> for Trade {
    fn from(t: v1::Trade) -> Self {
        Self {
            aggressor: t.aggressor().known().map(Side::from),
            symbol: t.symbol,
            trade_no: t.trade_no.into(),
            exec_id: t.exec_id,
            price: Decimal::e4(t.price_e4),
            quantity: Decimal::e4(t.quantity_e4),
            time: DateTime::of(t.time_us),
            reset: false,
        }
    }
}

/// A watched symbol.
#[derive(SimpleObject, Clone, Debug)]
pub struct WatchlistItem {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// Since when it is watched, RFC 3339.
    pub added_at: String,
}

/// The caller's own profile.
#[derive(SimpleObject, Clone, Debug)]
pub struct ProfileData {
    /// The user's id, a UUID.
    pub user_id: String,
    /// As the user wrote it.
    pub first_name: String,
    /// As the user wrote it.
    pub last_name: String,
}

/// Where and as whom a session watches `market.>` with a NATS client.
#[derive(SimpleObject, Clone)]
pub struct MarketData {
    /// For programs.
    pub url: String,
    /// For pages; null where they may not connect.
    pub web_socket_url: Option<String>,
    /// Whom to sign in as.
    pub user: String,
    /// Ends with the session, and twenty minutes after the last sign-in, refresh or question for it.
    pub password: String,
}

impl fmt::Debug for MarketData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MarketData")
    }
}

/// Whether a permission is held.
#[derive(SimpleObject, Clone, Debug)]
pub struct SecurityPermission {
    /// Whether the caller has it.
    pub has_permission: bool,
}

/// Payloads: what a business outcome travels in.
macro_rules! payload {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(SimpleObject, Clone, Debug)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
            #[graphql(flatten)]
            pub outcome: Outcome,
        }
    };
    // One whose rows are edges too ([`super::connection`]).
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty),* $(,)? } as connection) => {
        $(#[$meta])*
        #[derive(SimpleObject, Clone, Debug)]
        #[graphql(complex)]
        pub struct $name {
            $($(#[$field_meta])* pub $field: $ty,)*
            /// The page follows another one.
            #[graphql(skip)]
            pub has_before: bool,
            #[graphql(flatten)]
            pub outcome: Outcome,
        }
    };
}

payload!(
    /// Whether the caller has it.
    HasPermissionResponse {
        /// The answer; null where it was refused.
        data: SecurityPermission,
    }
);
payload!(
    /// The caller's profile.
    ProfileDataResponse {
        /// The answer; null where it was refused.
        data: Option<ProfileData>,
    }
);
payload!(
    /// Where market data is.
    MarketDataResponse {
        /// The answer; null where it was refused.
        data: Option<MarketData>,
    }
);
payload!(
    /// The instrument.
    StockMetadataResponse {
        /// The answer; null where it was refused.
        data: Option<StockData>,
    }
);
payload!(
    /// The quote of a symbol.
    StockQuoteResponse {
        /// The answer; null where it was refused.
        data: Option<StockPriceData>,
    }
);
payload!(
    /// Quotes in the order of the symbols.
    StockQuoteBatchResponse {
        /// The answer; null where it was refused.
        data: Option<Rows<StockPriceData>>,
    }
);
payload!(
    /// Daily bars of a symbol.
    StockHistoricalDataResponse {
        /// The answer; null where it was refused.
        data: Option<Rows<StockHistoricalData>>,
    }
);
payload!(
    /// The order.
    GetOrderByIDResponse {
        /// The answer; null where it was refused.
        data: Option<Order>,
    }
);
payload!(
    /// The order as it was taken, or refused.
    CreateOrderResponse {
        /// The answer; null where it was refused.
        data: Option<Order>,
    }
);
payload!(
    /// The orders of the group, in the order of the request.
    CreateOrderGroupResponse {
        /// The group's id.
        group_id: Option<Uuid>,
        /// In the order of the request; of a group that was refused for funds the first one alone.
        orders: Vec<Order>,
    }
);
payload!(
    /// The order after the cancel.
    CancelOrderResponse {
        /// The answer; null where it was refused.
        data: Option<Order>,
    }
);
payload!(
    /// The order after the change.
    ReplaceOrderResponse {
        /// The answer; null where it was refused.
        data: Option<Order>,
    }
);
payload!(
    /// How many cancels were asked for.
    CancelAllOrdersResponse {
        /// How many.
        requested: u32,
    }
);
payload!(
    /// What was canceled, what was sold, and what is left.
    FlattenResponse {
        /// Open orders that were canceled.
        canceled: u32,
        /// The orders that sell.
        orders: Vec<Order>,
        /// Shares that are left; 0 is flat. Why some are, is in `reason` and `message`.
        left: Decimal,
    }
);
payload!(
    /// The accounts of the caller and what they hold in cash.
    GetPortfolioSummaryResponse {
        /// The accounts that are open.
        accounts: Option<Vec<Account>>,
        /// The balances added up as they are, whatever the currency.
        total_balance: Decimal,
        /// Cash by currency.
        balances: Vec<CurrencyBalance>,
    }
);
payload!(
    /// The holdings of an account.
    GetHoldingsResponse {
        /// The answer; null where it was refused.
        data: Option<Rows<Holding>>,
    }
);
payload!(
    /// The holding.
    GetHoldingResponse {
        /// The answer; null where it was refused.
        data: Option<Holding>,
    }
);
payload!(
    /// The watched symbols.
    GetWatchlistResponse {
        /// The answer; null where it was refused.
        data: Option<Vec<WatchlistItem>>,
    }
);
payload!(
    /// A page of transactions.
    GetTransactionsResponse {
        /// The answer; null where it was refused.
        data: Option<Rows<Transaction>>,
        /// Hand it back as `after` for the next page.
        end_cursor: Option<String>,
        /// There are more.
        has_more: bool,
    } as connection
);
payload!(
    /// The new account.
    CreateAccountResponse {
        /// The answer; null where it was refused.
        data: Option<Account>,
    }
);
payload!(
    /// The balance after it.
    WithdrawResponse {
        /// The balance after it.
        new_balance: Decimal,
        /// The transaction's id.
        transaction_id: Option<Uuid>,
    }
);
payload!(
    /// The balance after it.
    DepositResponse {
        /// The balance after it.
        new_balance: Decimal,
        /// The transaction's id.
        transaction_id: Option<Uuid>,
    }
);
payload!(
    /// What became of a request that answers nothing else.
    CodeResponse {
    }
);
payload!(
    /// Whether it is watched.
    AddToWatchlistResponse {
    }
);
payload!(
    /// Whether it is watched no longer.
    RemoveFromWatchlistResponse {
    }
);
payload!(
    /// Whether it was moved.
    TransferResponse {
    }
);
payload!(
    /// The book of a symbol.
    OrderBookResponse {
        /// The answer; null where it was refused.
        data: Option<OrderBook>,
    }
);
payload!(
    /// What a year of days says of a symbol.
    StatisticsResponse {
        /// The answer; null where it was refused.
        data: Option<Statistics>,
    }
);
payload!(
    /// Bars of a symbol.
    CandlesResponse {
        /// The answer; null where it was refused.
        data: Option<Rows<Candle>>,
    }
);

/// Balances of one currency, over all accounts.
#[derive(SimpleObject, Clone, Debug)]
pub struct CurrencyBalance {
    /// ISO 4217: USD, CAD.
    pub currency: String,
    /// Cash in the account, in its currency.
    pub balance: Decimal,
    /// What can be spent: the balance without what open orders hold.
    pub available: Decimal,
}

/// Which permission.
#[derive(InputObject, Debug)]
pub struct HasPermissionRequest {
    /// A permission's name, such as view_stocks.
    pub permission: String,
}

/// Which order.
#[derive(InputObject, Debug)]
pub struct GetOrderByIDRequest {
    /// The order's id, a UUID.
    pub order_id: String,
}

/// Whose holdings.
#[derive(InputObject, Debug)]
pub struct GetHoldingsRequest {
    /// The account's id, a UUID.
    pub account_id: String,
}

/// Which holding.
#[derive(InputObject, Debug)]
pub struct GetHoldingRequest {
    /// The account's id, a UUID.
    pub account_id: String,
    /// The listed symbol, such as AAPL.
    pub symbol: String,
}

/// Whose transactions.
#[derive(InputObject, Debug)]
pub struct GetTransactionsRequest {
    /// The account's id, a UUID.
    pub account_id: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_took_in_an_auction() {
        assert_eq!(Trade::from(v1::Trade::default()).aggressor, None);
        let sold = v1::Trade { aggressor: v1::Side::Sell.into(), ..Default::default() };
        assert_eq!(Trade::from(sold).aggressor, Some(Side::Sell));
    }

    #[test]
    fn the_legacy_status_is_one_of_five() {
        use v1::OrderState::*;
        for (state, filled, want) in [
            (PendingNew, 0, "PENDING"),
            (Held, 0, "PENDING"),
            (New, 0, "PENDING"),
            (New, 1, "PARTIAL_FILL"),
            (PartiallyFilled, 1, "PARTIAL_FILL"),
            (Filled, 1, "FILLED"),
            (Canceled, 1, "CANCELED"),
            (Expired, 0, "CANCELED"),
            (Rejected, 0, "REJECTED"),
        ] {
            assert_eq!(legacy_status(state, filled), want, "{state:?}");
        }
    }
}
