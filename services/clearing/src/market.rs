//! The market of one symbol: its listing, its book, its open orders, and the way between prices and ticks, quantities and
//! lots.

use crate::{account::Currency, command::Instrument, order::Order};
use fafnir_matching::{Book, Kind, Lots, MAX_PRICE, QueuePosition, Ticks, Tif};
use fafnir_rules::{
    calendar::Session,
    check::{Listing, Terms, Violation},
    limits::QUANTITY_E4_MAX,
    order::{SelfTrade, Side, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use std::collections::HashMap;

/// `trail` in percent at scale 10⁻⁴ per basis point.
const TRAIL_E4_PER_BP: i64 = 100;

/// The market of one symbol. Its hash map is for look-ups and never iterated.
#[derive(Debug)]
pub struct Market {
    pub(crate) symbol: Symbol,
    pub(crate) version: u64,
    pub(crate) currency: Currency,
    pub(crate) tick_e4: i64,
    pub(crate) lot_e4: i64,
    /// What the operator set; a volatility pause and the calendar go beside it.
    pub(crate) state: TradingState,
    pub(crate) previous_close_e4: i64,
    /// 0 = no volatility band.
    pub(crate) band_bps: u32,
    /// What the calendar has it do where the operator leaves it open.
    pub(crate) session: Session,
    pub(crate) pause: Option<Pause>,
    /// Number of the last fact.
    pub(crate) exec_seq: u64,
    /// Number of the last trade.
    pub(crate) trade_no: u64,
    pub(crate) last_quantity_e4: i64,
    pub(crate) book: Book,
    /// By their number in the book.
    pub(crate) orders: HashMap<u64, Order>,
}

/// A volatility pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    pub since_us: i64,
    /// What is told: its auction runs within the rules' `volatility_end_us` from then on.
    pub until_us: i64,
    /// When its auction runs.
    pub due_us: i64,
    /// It has lasted once already, and the auction would have reopened too far away.
    pub extended: bool,
}

/// One price of a published book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub price_e4: i64,
    pub quantity_e4: i64,
    pub orders: u32,
}

/// An order in its queue.
#[derive(Debug, Clone, Copy)]
pub struct Queued<'a> {
    pub order: &'a Order,
    pub price_e4: i64,
    /// What of it shows.
    pub shown_e4: i64,
    /// What of it can trade, hidden included.
    pub open_e4: i64,
    pub filled_e4: i64,
}

pub(crate) fn book_side(side: Side) -> fafnir_matching::Side {
    match side {
        Side::Buy => fafnir_matching::Side::Buy,
        Side::Sell => fafnir_matching::Side::Sell,
    }
}

pub(crate) fn book_time(time: TimeInForce) -> Tif {
    match time {
        TimeInForce::Day => Tif::Day,
        TimeInForce::Gtc => Tif::Gtc,
        TimeInForce::Ioc => Tif::Ioc,
        TimeInForce::Fok => Tif::Fok,
        TimeInForce::Gtd => Tif::Gtd,
        TimeInForce::Opg => Tif::Opg,
        TimeInForce::Cls => Tif::Cls,
    }
}

fn book_self_trade(stp: SelfTrade) -> fafnir_matching::SelfTrade {
    match stp {
        SelfTrade::CancelNewest => fafnir_matching::SelfTrade::CancelNewest,
        SelfTrade::CancelOldest => fafnir_matching::SelfTrade::CancelOldest,
        SelfTrade::CancelBoth => fafnir_matching::SelfTrade::CancelBoth,
        SelfTrade::Decrement => fafnir_matching::SelfTrade::Decrement,
    }
}

impl Market {
    pub(crate) fn new(i: &Instrument, session: Session) -> Self {
        Self {
            symbol: i.symbol.clone(),
            version: i.version,
            currency: i.currency,
            tick_e4: i.tick_e4,
            lot_e4: i.lot_e4,
            state: TradingState::Open,
            previous_close_e4: 0,
            band_bps: 0,
            session,
            pause: None,
            exec_seq: 0,
            trade_no: 0,
            last_quantity_e4: 0,
            book: stepwise(Book::new()),
            orders: HashMap::new(),
        }
    }

    pub fn symbol(&self) -> &Symbol {
        &self.symbol
    }

    pub fn currency(&self) -> Currency {
        self.currency
    }

    /// Version of the listing.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Number of the last fact about it.
    pub fn exec_seq(&self) -> u64 {
        self.exec_seq
    }

    /// Number of the last trade.
    pub fn trade_no(&self) -> u64 {
        self.trade_no
    }

    /// What the symbol does: AUCTION in a volatility pause, else what the operator set, or where that is OPEN what the
    /// calendar says.
    pub fn state(&self) -> TradingState {
        match (self.pause, self.state, self.session) {
            (Some(_), ..) => TradingState::Auction,
            (None, TradingState::Open, Session::PreOpen) => TradingState::PreOpen,
            (None, state, _) => state,
        }
    }

    /// The present volatility pause.
    pub fn pause(&self) -> Option<Pause> {
        self.pause
    }

    /// The volatility band: lowest and highest price of a trade that does not pause the symbol.
    pub fn band(&self) -> Option<(i64, i64)> {
        self.book.band().map(|(low, high)| (self.price_e4(low), self.price_e4(high)))
    }

    /// The listing as it is now.
    pub fn instrument(&self) -> Instrument {
        Instrument {
            symbol: self.symbol.clone(),
            version: self.version,
            currency: self.currency,
            tick_e4: self.tick_e4,
            lot_e4: self.lot_e4,
            state: self.state(),
            previous_close_e4: self.previous_close_e4,
            band_bps: self.band_bps,
        }
    }

    /// Price and quantity of the last trade; 0 before the first.
    pub fn last(&self) -> (i64, i64) {
        (self.book.last_price().map_or(0, |t| self.price_e4(t)), self.last_quantity_e4)
    }

    /// The best levels of a side.
    pub fn depth(&self, side: Side, levels: usize) -> Vec<Level> {
        let level = |l: fafnir_matching::PriceLevel| Level {
            price_e4: self.price_e4(l.price),
            quantity_e4: self.quantity_e4(l.qty),
            orders: l.orders,
        };
        self.book.depth(book_side(side)).take(levels).map(level).collect()
    }

    /// In a call, where bids and asks meet: price, quantity and surplus (positive of buyers) that an auction would give.
    pub fn indicative(&self) -> Option<(i64, i64, i64)> {
        let found = self.book.phase().is_call().then(|| self.book.indicative())??;
        let surplus = self.quantity_e4(found.surplus);
        let surplus = if found.surplus_side == fafnir_matching::Side::Buy { surplus } else { -surplus };
        Some((self.price_e4(found.price), self.quantity_e4(found.qty), surplus))
    }

    /// Open orders, held stops included.
    pub fn open_orders(&self) -> usize {
        self.orders.len()
    }

    /// The first resting orders of a side in the order in which they trade.
    pub fn queue(&self, side: Side, orders_max: usize) -> Vec<Queued<'_>> {
        let queued = |o: fafnir_matching::OpenOrder| {
            Some(Queued {
                order: self.orders.get(&o.id)?,
                price_e4: self.price_e4(o.price),
                shown_e4: self.quantity_e4(o.shown),
                open_e4: self.quantity_e4(o.open),
                filled_e4: self.quantity_e4(o.filled),
            })
        };
        self.book.resting(book_side(side)).filter_map(queued).take(orders_max).collect()
    }

    /// Where an order stands in the queue of its price: orders ahead, visible shares ahead and at better prices. `None`
    /// where it does not rest.
    pub fn queue_position(&self, order: &Order) -> Option<(u32, i64, i64)> {
        let QueuePosition { orders_ahead, qty_ahead, qty_better, .. } =
            self.book.queue_position(order.number, order.slot)?;
        Some((orders_ahead, self.quantity_e4(qty_ahead), self.quantity_e4(qty_better)))
    }

    pub(crate) fn listing(&self) -> Listing {
        Listing { tick_e4: self.tick_e4, lot_e4: self.lot_e4, state: self.state() }
    }

    /// The reference price: the last trade, before the first the previous close.
    pub fn reference_e4(&self) -> Option<i64> {
        let last = self.book.last_price().map(|ticks| self.price_e4(ticks));
        last.or(Some(self.previous_close_e4)).filter(|price| *price > 0)
    }

    /// The same in ticks, rounded down.
    pub(crate) fn reference(&self) -> Option<Ticks> {
        let close = || in_range(self.previous_close_e4 / self.tick_e4);
        self.book.last_price().or_else(close).filter(|ticks| *ticks > 0)
    }

    pub(crate) fn price_e4(&self, ticks: Ticks) -> i64 {
        i64::from(ticks).saturating_mul(self.tick_e4)
    }

    pub(crate) fn quantity_e4(&self, lots: Lots) -> i64 {
        i64::try_from(lots).unwrap_or(i64::MAX).saturating_mul(self.lot_e4)
    }

    /// A price that was checked to be on the tick.
    pub(crate) fn ticks(&self, price_e4: i64) -> Result<Ticks, Violation> {
        in_range(price_e4 / self.tick_e4).ok_or(Violation::OrderTooLarge)
    }

    /// A cap in ticks, towards the better price where it is between two.
    fn cap(&self, side: Side, cap_e4: i64) -> Result<Ticks, Violation> {
        let down = cap_e4 / self.tick_e4;
        let off = cap_e4 % self.tick_e4 != 0;
        in_range(if off && side == Side::Sell { down + 1 } else { down }).ok_or(Violation::OrderTooLarge)
    }

    /// A quantity that was checked to be in lots.
    pub(crate) fn lots(&self, quantity_e4: i64) -> Lots {
        debug_assert!((0..=QUANTITY_E4_MAX).contains(&quantity_e4), "invariant: quantities are checked");
        u64::try_from(quantity_e4 / self.lot_e4).unwrap_or(0)
    }

    /// Price of the book's command for these terms: limit, cap, or distance from stop to cap.
    pub(crate) fn book_price(
        &self,
        side: Side,
        terms: Terms,
        cap_e4: i64,
        stop: Ticks,
    ) -> Result<Ticks, Violation> {
        match terms {
            Terms::Limit { price_e4 } | Terms::StopLimit { price_e4, .. } => self.ticks(price_e4),
            Terms::Market | Terms::Stop { .. } => self.cap(side, cap_e4),
            Terms::TrailingStop { .. } => Ok(self.cap(side, cap_e4)?.abs_diff(stop)),
        }
    }

    /// A trail in ticks or basis points.
    pub(crate) fn trail(&self, trail: Trail) -> Result<u32, Violation> {
        match trail {
            Trail::AmountE4(amount) => self.ticks(amount),
            Trail::PercentE4(percent) => {
                in_range(percent / TRAIL_E4_PER_BP).ok_or(Violation::TrailPercentOutOfRange)
            }
        }
    }

    /// The order in the terms of the book.
    pub(crate) fn book_order(&self, order: &Order) -> Result<fafnir_matching::NewOrder, Violation> {
        let stop = self.ticks(order.stop_e4)?;
        let (kind, trail) = match order.terms {
            Terms::Market => (Kind::Market, 0),
            Terms::Limit { .. } => (Kind::Limit, 0),
            Terms::Stop { .. } => (Kind::Stop, 0),
            Terms::StopLimit { .. } => (Kind::StopLimit, 0),
            Terms::TrailingStop { trail: trail @ Trail::AmountE4(_) } => {
                (Kind::TrailingAmount, self.trail(trail)?)
            }
            Terms::TrailingStop { trail: trail @ Trail::PercentE4(_) } => {
                (Kind::TrailingPercent, self.trail(trail)?)
            }
        };
        Ok(fafnir_matching::NewOrder {
            id: order.number,
            owner: order.owner,
            side: book_side(order.side),
            kind,
            tif: book_time(order.time),
            self_trade: book_self_trade(order.stp),
            post_only: order.post_only,
            qty: self.lots(order.quantity_e4),
            price: self.book_price(order.side, order.terms, order.cap_e4, stop)?,
            display: self.lots(order.display_e4),
            stop,
            trail,
            expire: u64::try_from(order.expires_us).unwrap_or(0),
        })
    }
}

/// The book as this crate uses it: groups are settled before an elected stop enters.
pub(crate) fn stepwise(mut book: Book) -> Book {
    book.set_stepwise(true);
    book
}

fn in_range(ticks: i64) -> Option<Ticks> {
    u32::try_from(ticks).ok().filter(|t| *t <= MAX_PRICE)
}
