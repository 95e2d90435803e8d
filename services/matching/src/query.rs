//! What can be asked of a book without changing it.

use crate::book::{Book, mask};
use crate::command::{Kind, Lots, MAX_ORDERS, OrderId, Owner, Phase, Side, Slot, Ticks, Tif, Time};
use crate::order::{COLD, HELD, ICEBERG, NIL, POST_ONLY, StopKind};
use crate::prefetch::prefetch;

/// One price of a side.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PriceLevel {
    pub price: Ticks,
    /// Visible lots.
    pub qty: Lots,
    pub orders: u32,
}

/// An open order as it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OpenOrder {
    pub id: OrderId,
    pub slot: Slot,
    pub owner: Owner,
    pub side: Side,
    /// LIMIT once a stop was triggered.
    pub kind: Kind,
    pub tif: Tif,
    /// Limit or cap; of a held trailing stop the distance from stop to cap.
    pub price: Ticks,
    /// Visible open lots (of a held stop all of them).
    pub shown: Lots,
    /// Open lots, hidden included.
    pub open: Lots,
    pub filled: Lots,
    /// Display quantity of an iceberg, else 0.
    pub display: Lots,
    pub post_only: bool,
    /// A stop that waits for its trigger.
    pub held: bool,
    /// It waits for the closing call.
    pub for_close: bool,
    /// Present stop price of a held stop, else 0.
    pub stop: Ticks,
    pub trail: u32,
    /// GTD time, else 0.
    pub expire: Time,
    /// How often the order was replaced under its number.
    pub version: u32,
}

/// Where a resting order stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuePosition {
    /// Orders before it at its price.
    pub orders_ahead: u32,
    /// Visible lots before it at its price.
    pub qty_ahead: Lots,
    /// Visible lots at better prices.
    pub qty_better: Lots,
}

impl Book {
    /// Best price of a side.
    #[inline]
    pub fn best(&self, side: Side) -> Option<Ticks> {
        match self.best_key(side) {
            0 => None,
            key => Some(key ^ mask(side)),
        }
    }

    /// Highest bid.
    pub fn best_bid(&self) -> Option<Ticks> {
        self.best(Side::Buy)
    }

    /// Lowest ask.
    pub fn best_ask(&self) -> Option<Ticks> {
        self.best(Side::Sell)
    }

    /// Price of the last trade.
    pub fn last_price(&self) -> Option<Ticks> {
        (self.last != 0).then_some(self.last)
    }

    /// Trades since the book began.
    pub fn trade_count(&self) -> u64 {
        self.trades
    }

    /// Lots traded since the book began, modulo 2^64.
    pub fn volume(&self) -> u64 {
        self.volume
    }

    /// Number of the last event.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Greatest order number so far: the next one must be greater.
    pub fn last_id(&self) -> OrderId {
        self.last_id
    }

    /// Only cancels, expiry and resume go through.
    pub fn is_halted(&self) -> bool {
        self.halted
    }

    /// What the symbol does now, beside being halted or not.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// The volatility band: lowest and highest price of a trade, if there is one.
    pub fn band(&self) -> Option<(Ticks, Ticks)> {
        (self.band.bps != 0).then_some((self.band.low, self.band.high))
    }

    /// Whether a price lies farther from the band's reference than so many times its width; never without a band.
    pub fn is_beyond_band(&self, price: Ticks, times: u32) -> bool {
        let band = self.band;
        let width = u64::from(band.reference) * u64::from(band.bps) / 10_000;
        band.bps != 0 && u64::from(price.abs_diff(band.reference)) > width * u64::from(times)
    }

    /// Open orders, held stops included.
    pub fn open_orders(&self) -> u32 {
        self.slab.live
    }

    /// Levels of a side from the best on. Take as many as needed: `book.depth(Side::Buy).take(50)`.
    pub fn depth(&self, side: Side) -> impl Iterator<Item = PriceLevel> + '_ {
        let mut node = self.best_node(side);
        std::iter::from_fn(move || {
            if node == NIL {
                return None;
            }
            let found = self.level_at(side, node);
            node = self.below(node);
            Some(found)
        })
    }

    fn level_at(&self, side: Side, node: u32) -> PriceLevel {
        let level = &self.slab.hot[node as usize];
        let price = self.slab.level_key(node) ^ mask(side);
        PriceLevel { price, qty: level.level_shown(), orders: level.level_count() }
    }

    /// Visible lots and orders at one price, without a walk over its orders or over levels; nothing where nobody stands.
    pub fn level(&self, side: Side, price: Ticks) -> Option<PriceLevel> {
        self.find_level(side, price ^ mask(side)).map(|node| self.level_at(side, node))
    }

    /// Resting orders of a side in the order in which they trade.
    pub fn resting(&self, side: Side) -> impl Iterator<Item = OpenOrder> + '_ {
        self.resting_slots(side).map(|slot| self.view(slot))
    }

    /// Market orders of a side that wait for an auction, in the order in which they came.
    pub fn waiting(&self, side: Side) -> impl Iterator<Item = OpenOrder> + '_ {
        self.on_open_slots(side).map(|slot| self.view(slot))
    }

    /// Orders that wait for the closing call, in the order in which they came.
    pub fn on_close(&self) -> impl Iterator<Item = OpenOrder> + '_ {
        self.on_close.values().map(|&slot| self.view(slot))
    }

    /// Held stops of a side in the order in which they trigger.
    pub fn held(&self, side: Side) -> impl Iterator<Item = OpenOrder> + '_ {
        self.stops[side as usize].values().map(|&slot| self.view(slot))
    }

    /// All open orders in canonical order: bids, asks, held buys, held sells, each side as it trades or triggers, then
    /// market orders to buy and to sell that wait for an auction, then those that wait for the closing call.
    pub fn orders(&self) -> impl Iterator<Item = OpenOrder> + '_ {
        self.resting(Side::Buy)
            .chain(self.resting(Side::Sell))
            .chain(self.held(Side::Buy))
            .chain(self.held(Side::Sell))
            .chain(self.waiting(Side::Buy))
            .chain(self.waiting(Side::Sell))
            .chain(self.on_close())
    }

    /// The open order at a slot.
    pub fn order(&self, id: OrderId, slot: Slot) -> Option<OpenOrder> {
        self.slab.holds(slot.0, id).then(|| self.view(slot.0))
    }

    /// Where the resting order at a slot stands; nothing for a held stop or an order that waits for its auction. Walks its level and those before it.
    pub fn queue_position(&self, id: OrderId, slot: Slot) -> Option<QueuePosition> {
        if !self.slab.holds(slot.0, id) {
            return None;
        }
        let order = &self.slab.hot[slot.0 as usize];
        if order.has(HELD) {
            return None;
        }
        let side = order.side();
        let own = order.place;
        let mut position = QueuePosition { orders_ahead: 0, qty_ahead: 0, qty_better: 0 };
        let mut node = self.best_node(side);
        while node != own {
            position.qty_better =
                position.qty_better.saturating_add(self.slab.hot[node as usize].level_shown());
            node = self.below(node);
        }
        let mut at = self.slab.hot[own as usize].next;
        while at != slot.0 {
            position.orders_ahead += 1;
            position.qty_ahead = position.qty_ahead.saturating_add(self.slab.hot[at as usize].shown());
            at = self.slab.hot[at as usize].next;
        }
        Some(position)
    }

    /// Makes room for this many orders at once, eight neighbouring levels counting as eight orders. Room doubles by itself
    /// when it is used up; the command that needs it then takes the time that copying the book takes (some 10 µs at 4,000
    /// orders). Changes no answer and no snapshot.
    pub fn reserve(&mut self, orders: u32) {
        self.slab.reserve(orders.min(2 * MAX_ORDERS));
    }

    /// Bytes that the book holds, nearly.
    pub fn memory(&self) -> usize {
        let stops: usize = self.stops.iter().map(|stops| stops.len() * 32).sum();
        let stops = stops + (self.on_open.len() + self.on_close.len() + self.one_auction.len()) * 32;
        size_of::<Book>() + self.slab.memory() + self.ladder.index.memory() + stops + self.gtd.len() * 32
    }

    /// Starts fetching the order at a slot, which a cancel or replace will soon name. A hint: it changes nothing, any
    /// slot will do. Where many orders are open, call it some 16 commands ahead and [`Book::fetch_neighbours`] some 8
    /// commands ahead, for every command alike: a branch on the kind of command costs more than a fetch in vain.
    #[inline(always)]
    pub fn fetch_order(&self, slot: Slot) {
        self.fetch_node(slot.0);
    }

    /// Starts fetching what stands around the order at a slot: see [`Book::fetch_order`].
    #[inline(always)]
    pub fn fetch_neighbours(&self, slot: Slot) {
        if let Some(order) = self.slab.hot.get(slot.0 as usize) {
            self.fetch_node(order.prev);
            self.fetch_node(order.next);
        }
    }

    /// Starts fetching a node of the slab.
    #[inline(always)]
    pub(crate) fn fetch_node(&self, node: u32) {
        prefetch(&self.slab.hot, node as usize);
    }

    pub(crate) fn resting_slots(&self, side: Side) -> impl Iterator<Item = u32> + '_ {
        let mut next_level = self.best_node(side);
        // The node of the present level, and where the walk is in its ring.
        let mut node = NIL;
        let mut slot = NIL;
        std::iter::from_fn(move || {
            if slot == node {
                if next_level == NIL {
                    return None;
                }
                node = next_level;
                slot = self.slab.hot[node as usize].next;
                next_level = self.below(node);
            }
            let found = slot;
            slot = self.slab.hot[slot as usize].next;
            Some(found)
        })
    }

    fn view(&self, slot: u32) -> OpenOrder {
        let order = &self.slab.hot[slot as usize];
        let cold = self.slab.cold(slot);
        OpenOrder {
            id: order.id,
            slot: Slot(slot),
            owner: order.owner,
            side: order.side(),
            kind: match cold.stop.kind {
                StopKind::None | StopKind::LimitOnClose => Kind::Limit,
                StopKind::Market => Kind::Stop,
                StopKind::Limit => Kind::StopLimit,
                StopKind::TrailingAmount => Kind::TrailingAmount,
                StopKind::TrailingPercent => Kind::TrailingPercent,
                StopKind::OnOpen | StopKind::MarketOnClose => Kind::Market,
            },
            tif: if order.is_for_auction() && cold.closing { Tif::Cls } else { order.tif() },
            price: self.price_of(slot),
            shown: order.shown(),
            open: if order.has(ICEBERG) && order.has(COLD) {
                order.shown() + cold.hidden
            } else {
                order.shown()
            },
            filled: self.slab.filled(slot),
            display: cold.display,
            post_only: order.has(POST_ONLY),
            held: cold.stop.kind.is_stop(),
            for_close: cold.stop.kind.is_on_close(),
            stop: cold.stop.price,
            trail: cold.stop.trail,
            expire: cold.expire,
            version: cold.version,
        }
    }
}
