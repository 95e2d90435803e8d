//! The book of one symbol: state, and the commands that change it.

use std::collections::{BTreeMap, BTreeSet};

use crate::command::*;
use crate::event::{Event, Events, Reason, Sink, What};
use crate::ladder::{Ladder, Top};
use crate::order::*;
use crate::query::OpenOrder;

/// XOR with this turns a side's price into its ladder key and back.
#[inline(always)]
pub(crate) const fn mask(side: Side) -> u32 {
    (side as u32).wrapping_neg()
}

/// Held stops of one side by trigger order. The key of a stop price is `price` for buys and `!price` for sells: it is
/// reached when the last price's key is at least as great.
pub(crate) type StopQueue = BTreeMap<(u32, u64), u32>;

/// The book of one symbol. What each command reads lies in the first cache line, up to the slab's count of live orders.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Book {
    pub(crate) tops: [Top; 2],
    pub(crate) seq: u64,
    pub(crate) last_id: OrderId,
    /// How many orders may be open for another one to enter and trade at once: [`MAX_ORDERS`], or 0 where the symbol is
    /// not in continuous trading or is halted.
    pub(crate) room: u32,
    /// Price of the last trade, 0 before the first.
    pub(crate) last: Ticks,
    pub(crate) slab: Slab,
    pub(crate) ladder: Ladder,
    pub(crate) trades: u64,
    pub(crate) volume: u64,
    pub(crate) band: Band,
    pub(crate) stops: [StopQueue; 2],
    /// Held trailing stops per side, in no order of meaning.
    pub(crate) trailing: [Vec<u32>; 2],
    /// Elected stops that wait for the current match to finish, and the price that elected each.
    pub(crate) reached: std::collections::VecDeque<(u32, Ticks)>,
    /// Market orders that wait for their auction, by side in the order in which they came.
    pub(crate) on_open: BTreeMap<(Side, u64), u32>,
    /// Orders that wait for the closing call, in the order in which they came.
    pub(crate) on_close: BTreeMap<u64, u32>,
    /// Resting orders for one auction only, by number.
    pub(crate) one_auction: BTreeMap<OrderId, u32>,
    /// Open GTD orders by time, then number.
    pub(crate) gtd: BTreeSet<(Time, OrderId, u32)>,
    /// Latest time that an expiry run brought.
    pub(crate) now: Time,
    /// Numbers the held orders in the order in which they came.
    pub(crate) stops_entered: u64,
    pub(crate) halted: bool,
    pub(crate) phase: Phase,
    /// Elected stops wait for [`Book::enter_elected`]. No part of the state.
    pub(crate) stepwise: bool,
}

/// The volatility band: trades outside pause the symbol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Band {
    /// 0 = none.
    pub reference: Ticks,
    /// 0 = every price lies within.
    pub bps: u32,
    pub low: Ticks,
    pub high: Ticks,
    /// The same as the first and last key of each side that may trade.
    pub keys: [(u32, u32); 2],
}

impl Band {
    pub fn new(reference: Ticks, bps: u32) -> Band {
        let (mut bps, mut low, mut high) = (bps, 1, MAX_PRICE);
        if reference == 0 || bps == 0 {
            bps = 0;
        } else {
            let width = (u64::from(reference) * u64::from(bps) / 10_000) as u32;
            low = reference.saturating_sub(width).max(1);
            high = reference.saturating_add(width).min(MAX_PRICE);
        }
        let sell = mask(Side::Sell);
        Band { reference, bps, low, high, keys: [(low, high), (high ^ sell, low ^ sell)] }
    }
}

/// What matching needs of a plain order.
struct Taker {
    id: OrderId,
    owner: Owner,
    side: Side,
    qty: Lots,
    price: Ticks,
}

impl Taker {
    #[inline(always)]
    fn new(order: &NewOrder) -> Taker {
        Taker { id: order.id, owner: order.owner, side: order.side, qty: order.qty, price: order.price }
    }
}

/// An order on its way through the other side.
#[derive(Clone, Copy)]
pub(crate) struct Incoming {
    pub id: OrderId,
    pub owner: Owner,
    pub self_trade: SelfTrade,
    pub side: Side,
    pub open: Lots,
    pub filled: Lots,
    /// Price of its first trade; before it that of the best order on the other side.
    pub first: Ticks,
}

/// How a way through the other side ended.
#[derive(PartialEq, Eq, Clone, Copy)]
pub(crate) enum Ended {
    /// Filled, or nothing more within the limit.
    Normally,
    /// Self-trade prevention takes the rest.
    SelfTrade,
    /// The next trade lies outside the volatility band: the symbol is paused.
    Paused,
}

impl Default for Book {
    fn default() -> Book {
        Book::new()
    }
}

impl Book {
    /// An empty book that trades.
    pub fn new() -> Book {
        Book {
            tops: [Top::NONE; 2],
            seq: 0,
            last_id: 0,
            room: MAX_ORDERS,
            last: 0,
            slab: Slab::new(),
            ladder: Ladder::new(),
            trades: 0,
            volume: 0,
            band: Band::new(0, 0),
            stops: [StopQueue::new(), StopQueue::new()],
            trailing: [Vec::new(), Vec::new()],
            reached: std::collections::VecDeque::new(),
            on_open: BTreeMap::new(),
            on_close: BTreeMap::new(),
            one_auction: BTreeMap::new(),
            gtd: BTreeSet::new(),
            now: 0,
            stops_entered: 0,
            halted: false,
            phase: Phase::Continuous,
            stepwise: false,
        }
    }

    /// Continuous and not halted.
    #[inline(always)]
    pub(crate) fn trades_now(&self) -> bool {
        self.room != 0
    }

    /// After a change of phase or halt.
    pub(crate) fn open_or_close(&mut self) {
        self.room = if self.phase == Phase::Continuous && !self.halted { MAX_ORDERS } else { 0 };
    }

    /// Applies one command and appends its events, at least one. The book is whole again when this returns.
    pub fn apply(&mut self, command: &Command, out: &mut Events) {
        self.apply_into(command, out);
    }

    /// [`Book::apply`] with a reader of the caller's own. Made anew for each type of sink, and inlined: call it where
    /// the kind of command is known.
    #[inline(always)]
    pub fn apply_into(&mut self, command: &Command, out: &mut impl Sink) {
        match command {
            Command::New(order) => self.new_order(order, out),
            Command::Cancel { id, slot } => self.cancel(*id, *slot, out),
            Command::Replace(replace) => self.replace(replace, out),
            Command::Reduce { id, slot, qty } => self.reduce(*id, *slot, *qty, out),
            Command::CancelAll { owner } => self.cancel_all(*owner, out),
            Command::Expire { now } => self.expire(*now, false, out),
            Command::DayEnd { now } => self.expire(*now, true, out),
            Command::Halt if self.halted => self.emit(out, What::Refused { reason: Reason::Halted }),
            Command::Halt => {
                self.halted = true;
                self.open_or_close();
                self.emit(out, What::Halted);
            }
            Command::Resume if !self.halted => self.emit(out, What::Refused { reason: Reason::NotHalted }),
            Command::Resume => {
                self.halted = false;
                self.open_or_close();
                self.emit(out, What::Resumed);
                self.after_match(self.last, out);
            }
            Command::SetPhase { phase } => self.set_phase(*phase, out),
            Command::SetBand { reference, bps } => self.set_band(*reference, *bps, out),
        }
    }

    #[inline(always)]
    pub(crate) fn emit(&mut self, out: &mut impl Sink, what: What) {
        self.seq += 1;
        out.event(Event { seq: self.seq, what });
    }

    #[inline(always)]
    fn new_order(&mut self, new: &NewOrder, out: &mut impl Sink) {
        if !self.is_plain(new) {
            // A copy: the order itself then never leaves the registers on the frequent path.
            let rare = *new;
            return self.new_order_any(&rare, out);
        }
        let rests = new.kind == Kind::Limit && new.tif != Tif::Ioc;
        if rests && self.best_key(new.side.opposite()) < new.price ^ mask(new.side.opposite()) {
            return self.rest_plain(new, out);
        }
        if new.post_only {
            return self.emit(out, What::Rejected { id: new.id, reason: Reason::WouldTrade });
        }
        let market = new.kind == Kind::Market;
        self.take_plain(Taker::new(new), new.tif == Tif::Day, rests, market, out);
    }

    /// The frequent orders: good limit and market orders without extras, in continuous trading.
    #[inline(always)]
    fn is_plain(&self, new: &NewOrder) -> bool {
        let resting = new.kind == Kind::Limit && matches!(new.tif, Tif::Day | Tif::Gtc);
        let immediate = matches!(new.kind, Kind::Limit | Kind::Market) && new.tif == Tif::Ioc;
        (resting || (immediate && !new.post_only))
            && new.display == 0
            && new.self_trade == SelfTrade::CancelNewest
            && new.id > self.last_id
            && new.id != LEVEL
            && new.qty.wrapping_sub(1) < MAX_QTY
            && new.price.wrapping_sub(1) < MAX_PRICE
            && self.slab.live < self.room
    }

    #[inline(always)]
    fn rest_plain(&mut self, new: &NewOrder, out: &mut impl Sink) {
        self.last_id = new.id;
        let side = new.side;
        let flags = side as u8
            | if new.tif == Tif::Day { DAY } else { 0 }
            | if new.post_only { POST_ONLY } else { 0 };
        let slot = self.slab.take();
        let (node, tail) = self.append(side, new.price ^ mask(side), slot, new.qty);
        let order = &mut self.slab.hot[slot as usize];
        order.write(new.id, new.owner, node, new.qty, flags);
        order.prev = tail;
        order.next = node;
        let (id, open, price) = (new.id, new.qty, new.price);
        self.emit(out, What::Accepted { id, slot: Slot(slot), open, price, side, held: false });
    }

    /// A plain order that meets somebody, or may not rest.
    #[inline(never)]
    fn take_plain(&mut self, taker: Taker, day: bool, rests: bool, market: bool, out: &mut impl Sink) {
        let Taker { id, owner, side, qty, price } = taker;
        self.last_id = id;
        let slot = if rests { self.slab.take() } else { NIL };
        self.emit(out, What::Accepted { id, slot: Slot(slot), open: qty, price, side, held: false });
        let mut incoming = self.incoming(id, owner, SelfTrade::CancelNewest, side, qty);
        let mut ended = self.cross(&mut incoming, price, out);
        if ended == Ended::Paused && rests {
            ended = self.meet_own_in_call(&mut incoming, price, out);
        }
        if incoming.open == 0 || ended == Ended::SelfTrade || !rests {
            if rests {
                self.slab.remove(slot);
            }
            if incoming.open > 0 {
                let reason = self.remainder_reason(&incoming, ended, market);
                let open = incoming.open;
                self.emit(out, What::Canceled { id, slot: Slot(slot), open, price, side, reason });
            }
        } else {
            let flags = side as u8 | if day { DAY } else { 0 };
            self.slab.hot[slot as usize].write(id, owner, price, incoming.open, flags);
            if incoming.filled > 0 {
                self.slab.add_filled(slot, incoming.filled);
            }
            self.link(slot);
        }
        if incoming.filled > 0 {
            self.after_match(incoming.first, out);
        }
    }

    /// An order that is about to meet the other side.
    #[inline(always)]
    pub(crate) fn incoming(
        &self,
        id: OrderId,
        owner: Owner,
        self_trade: SelfTrade,
        side: Side,
        open: Lots,
    ) -> Incoming {
        let other = side.opposite();
        let first = self.best_key(other) ^ mask(other);
        Incoming { id, owner, self_trade, side, open, filled: 0, first }
    }

    /// Tells that an order is in.
    pub(crate) fn accept(&mut self, new: &NewOrder, slot: u32, held: bool, out: &mut impl Sink) {
        let (id, open, price, side) = (new.id, new.qty, new.price, new.side);
        self.emit(out, What::Accepted { id, slot: Slot(slot), open, price, side, held });
    }

    fn new_order_any(&mut self, new: &NewOrder, out: &mut impl Sink) {
        if let Err(reason) = self.may_enter(new) {
            return self.emit(out, What::Rejected { id: new.id, reason });
        }
        self.last_id = new.id;
        if new.kind.is_stop() {
            return self.hold(new, out);
        }
        if new.tif == Tif::Cls && self.phase != Phase::Closing {
            return self.keep_for_close(new, out);
        }
        let rests = new.kind == Kind::Limit && !matches!(new.tif, Tif::Ioc | Tif::Fok);
        let gathers = !self.trades_now();
        let slot = if rests || gathers { self.slab.insert(hot_record(new)) } else { NIL };
        self.accept(new, slot, false, out);
        if slot != NIL && needs_cold(new) {
            self.write_cold(slot, new);
        }
        if gathers {
            if new.kind == Kind::Market {
                self.slab.hot[slot as usize].set(HELD);
                self.slab.cold_mut(slot).stop.kind = StopKind::OnOpen;
            }
            self.enter(slot, new.qty, out);
            return;
        }
        let mut incoming = self.incoming(new.id, new.owner, new.self_trade, new.side, new.qty);
        if new.tif == Tif::Fok && !self.can_fill_whole(&incoming, new.price) {
            return self.cancel_immediate(new, new.qty, Reason::CannotFillWhole, out);
        }
        let ended = self.cross(&mut incoming, new.price, out);
        if rests {
            self.settle(slot, &mut incoming, ended, out);
        } else if incoming.open > 0 || ended == Ended::SelfTrade {
            let reason = self.remainder_reason(&incoming, ended, new.kind == Kind::Market);
            self.cancel_immediate(new, incoming.open, reason, out);
        }
        if incoming.filled > 0 {
            self.after_match(incoming.first, out);
        }
    }

    /// An order that has a slot, and is nowhere yet, comes in with this much open: it trades, or gathers in a call, and
    /// what is left rests. Answers the price of its first trade, 0 for none.
    pub(crate) fn enter(&mut self, slot: u32, open: Lots, out: &mut impl Sink) -> Ticks {
        let order = self.slab.hot[slot as usize];
        let self_trade = self.slab.cold(slot).self_trade;
        let mut incoming = self.incoming(order.id, order.owner, self_trade, order.side(), open);
        let ended =
            if self.trades_now() { self.cross(&mut incoming, order.place, out) } else { Ended::Paused };
        self.settle(slot, &mut incoming, ended, out);
        if incoming.filled > 0 { incoming.first } else { 0 }
    }

    #[inline(always)]
    fn may_enter(&self, new: &NewOrder) -> Result<(), Reason> {
        if new.id <= self.last_id || new.id == LEVEL {
            return Err(Reason::BadOrderId);
        }
        new.check()?;
        if self.halted {
            return Err(Reason::Halted);
        }
        // A market order waits for the auction.
        let at_once = new.tif == Tif::Fok || (new.tif == Tif::Ioc && new.kind != Kind::Market);
        if self.phase == Phase::Closed || (self.phase.is_call() && at_once) {
            return Err(Reason::WrongPhase);
        }
        if new.tif == Tif::Opg && self.phase != Phase::PreOpen {
            return Err(Reason::WrongPhase);
        }
        if new.tif == Tif::Gtd && new.expire <= self.now {
            return Err(Reason::BadExpireTime);
        }
        if new.post_only && self.would_trade(new.side, new.price) {
            return Err(Reason::WouldTrade);
        }
        if new.kind.is_trailing() && new.stop == 0 && self.last == 0 {
            return Err(Reason::NoReferencePrice);
        }
        if new.kind.is_stop() && self.is_wrong_side(new.side, self.first_stop(new)) {
            return Err(Reason::StopWrongSide);
        }
        if self.slab.full() {
            return Err(Reason::BookFull);
        }
        Ok(())
    }

    pub(crate) fn would_trade(&self, side: Side, price: Ticks) -> bool {
        let other = side.opposite();
        self.best_key(other) >= price ^ mask(other)
    }

    pub(crate) fn remainder_reason(&self, incoming: &Incoming, ended: Ended, market: bool) -> Reason {
        if ended == Ended::SelfTrade {
            Reason::SelfTrade
        } else if ended == Ended::Paused {
            Reason::VolatilityPause
        } else if !market {
            Reason::ImmediateRemainder
        } else if self.best_key(incoming.side.opposite()) == 0 {
            Reason::NoLiquidity
        } else {
            Reason::Collar
        }
    }

    /// Writes the cold record of a fresh slot.
    #[cold]
    #[inline(never)]
    pub(crate) fn write_cold(&mut self, slot: u32, new: &NewOrder) {
        *self.slab.cold_mut(slot) = Cold {
            display: new.display,
            expire: if new.tif == Tif::Gtd { new.expire } else { 0 },
            self_trade: new.self_trade,
            closing: new.tif == Tif::Cls,
            ..Cold::DEFAULT
        };
        if new.tif == Tif::Gtd {
            self.gtd.insert((new.expire, new.id, slot));
        }
    }

    /// After the way through the other side: the order at `slot` rests with what is open, or goes.
    #[inline(always)]
    pub(crate) fn settle(
        &mut self,
        slot: u32,
        incoming: &mut Incoming,
        mut ended: Ended,
        out: &mut impl Sink,
    ) {
        if incoming.filled > 0 {
            self.slab.add_filled(slot, incoming.filled);
        }
        if ended == Ended::Paused {
            let limit = self.slab.hot[slot as usize].place;
            ended = self.meet_own_in_call(incoming, limit, out);
        }
        if ended == Ended::SelfTrade {
            let price = self.slab.hot[slot as usize].place;
            self.release(slot);
            let Incoming { id, side, open, .. } = *incoming;
            let reason = Reason::SelfTrade;
            self.emit(out, What::Canceled { id, slot: Slot(slot), open, price, side, reason });
        } else if incoming.open == 0 {
            self.release(slot);
        } else {
            self.place(slot, incoming.open);
        }
    }

    /// Puts an order that is in no level at the back of its own, with this much open.
    pub(crate) fn place(&mut self, slot: u32, open: Lots) {
        let order = &mut self.slab.hot[slot as usize];
        if order.has(ICEBERG) {
            order.set_shown(0);
            self.slab.cold_mut(slot).hidden = open;
            self.show_next(slot);
        } else {
            order.set_shown(open);
            if order.is_held() {
                return self.queue_on_open(slot);
            }
        }
        self.link(slot);
        let order = &self.slab.hot[slot as usize];
        if order.is_for_auction() {
            self.one_auction.insert(order.id, slot);
        }
    }

    /// Moves an iceberg's next part from hidden to shown.
    pub(crate) fn show_next(&mut self, slot: u32) -> Lots {
        let cold = self.slab.cold_mut(slot);
        let shown = cold.hidden.min(cold.display);
        cold.hidden -= shown;
        self.slab.hot[slot as usize].set_shown(shown);
        shown
    }

    /// Puts an order whose place is its limit at the back of that price's level.
    #[inline(always)]
    pub(crate) fn link(&mut self, slot: u32) {
        let order = self.slab.hot[slot as usize];
        let side = order.side();
        let (node, tail) = self.append(side, order.place ^ mask(side), slot, order.shown());
        let order = &mut self.slab.hot[slot as usize];
        order.place = node;
        order.prev = tail;
        order.next = node;
    }

    /// Takes an order out of its level: its place is its limit again.
    #[inline(always)]
    pub(crate) fn unlink(&mut self, slot: u32) {
        let order = &self.slab.hot[slot as usize];
        let (side, shown, next, prev, node) =
            (order.side(), order.shown(), order.next, order.prev, order.place);
        let price = self.slab.level_key(node) ^ mask(side);
        let hot = &mut *self.slab.hot;
        hot[slot as usize].place = price;
        hot[prev as usize].next = next;
        hot[next as usize].prev = prev;
        let level = &mut hot[node as usize];
        if level.level_sub_one(shown) {
            self.level_left(side, node);
        }
    }

    /// Frees the slot of an order that is in no level.
    #[inline(always)]
    pub(crate) fn release(&mut self, slot: u32) {
        if self.slab.hot[slot as usize].has(GTD) {
            self.forget_gtd(slot);
        }
        self.slab.remove(slot);
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn forget_gtd(&mut self, slot: u32) {
        let order = &self.slab.hot[slot as usize];
        if order.is_for_auction() {
            self.one_auction.remove(&order.id);
            return;
        }
        let key = (self.slab.cold(slot).expire, order.id, slot);
        self.gtd.remove(&key);
    }

    /// Puts a market order behind those that wait for the auction.
    fn queue_on_open(&mut self, slot: u32) {
        self.stops_entered += 1;
        self.slab.cold_mut(slot).entered = self.stops_entered;
        let side = self.slab.hot[slot as usize].side();
        self.on_open.insert((side, self.stops_entered), slot);
    }

    /// Takes an open order out, wherever it is.
    pub(crate) fn take_out(&mut self, slot: u32) {
        if self.slab.hot[slot as usize].has(HELD) {
            self.unhold(slot);
        } else {
            self.unlink(slot);
        }
        self.release(slot);
    }

    #[inline(always)]
    fn cancel(&mut self, id: OrderId, slot: Slot, out: &mut impl Sink) {
        let hot = &mut *self.slab.hot;
        let found = hot.get(slot.0 as usize).filter(|order| order.id == id && id.wrapping_add(1) > 1);
        let Some(order) = found else {
            return self.emit(out, What::CancelRejected { id, reason: Reason::UnknownOrder });
        };
        let (side, open, next, prev, node) =
            (order.side(), order.shown(), order.next, order.prev, order.place);
        if order.flags() & (HELD | GTD | ICEBERG) != 0 {
            return self.cancel_any(slot, out);
        }
        hot[prev as usize].next = next;
        hot[next as usize].prev = prev;
        let level = &mut hot[node as usize];
        let level_empty = level.level_sub_one(open);
        self.slab.remove(slot.0);
        let price = self.slab.level_key(node) ^ mask(side);
        self.emit(out, What::Canceled { id, slot, open, price, side, reason: Reason::Requested });
        if level_empty {
            let block_empty = self.slab.unmark(node);
            // Whether it was the best no processor predicts: one branch on both.
            if block_empty | (node == self.best_node(side)) {
                self.level_left(side, node);
            }
        }
    }

    /// Cancels an open order, wherever it is.
    #[cold]
    #[inline(never)]
    fn cancel_any(&mut self, slot: Slot, out: &mut impl Sink) {
        self.cancel_out(slot.0, self.slab.open(slot.0), Reason::Requested, out);
    }

    #[cold]
    #[inline(never)]
    fn reduce(&mut self, id: OrderId, slot: Slot, qty: Lots, out: &mut impl Sink) {
        let refused = |reason| What::ReplaceRejected { id, reason };
        if !self.slab.holds(slot.0, id) {
            return self.emit(out, refused(Reason::UnknownOrder));
        }
        let open = self.slab.open(slot.0);
        if qty == 0 || qty >= open {
            let reason = if qty == 0 { Reason::BadQuantity } else { Reason::BelowFilled };
            return self.emit(out, refused(reason));
        }
        self.reduce_open(slot.0, qty);
        self.emit(out, What::Reduced { id, slot, open: open - qty });
    }

    /// Takes an open order out, wherever it is, and tells it with this much open.
    pub(crate) fn cancel_out(&mut self, slot: u32, open: Lots, reason: Reason, out: &mut impl Sink) {
        let (order, price) = (self.slab.hot[slot as usize], self.price_of(slot));
        self.take_out(slot);
        let (id, side) = (order.id, order.side());
        self.emit(out, What::Canceled { id, slot: Slot(slot), open, price, side, reason });
    }

    /// Tells that what is left of an order that cannot rest is canceled.
    fn cancel_immediate(&mut self, new: &NewOrder, open: Lots, reason: Reason, out: &mut impl Sink) {
        let (id, price, side) = (new.id, new.price, new.side);
        self.emit(out, What::Canceled { id, slot: Slot::NONE, open, price, side, reason });
    }

    /// Takes an open order out whose time has come.
    pub(crate) fn expire_out(&mut self, slot: u32, reason: Reason, out: &mut impl Sink) {
        let (order, price, open) = (self.slab.hot[slot as usize], self.price_of(slot), self.slab.open(slot));
        self.take_out(slot);
        let (id, side) = (order.id, order.side());
        self.emit(out, What::Expired { id, slot: Slot(slot), open, price, side, reason });
    }

    fn cancel_all(&mut self, owner: Owner, out: &mut impl Sink) {
        let slots: Vec<u32> = self
            .orders()
            .filter(|order| owner == 0 || order.owner == owner)
            .map(|order| order.slot.0)
            .collect();
        for &slot in &slots {
            self.cancel_out(slot, self.slab.open(slot), Reason::MassCancel, out);
        }
        self.emit(out, What::AllCanceled { count: slots.len() as u32 });
    }

    fn expire(&mut self, now: Time, day_end: bool, out: &mut impl Sink) {
        self.now = self.now.max(now);
        let mut count = 0;
        while let Some(&(time, _, slot)) = self.gtd.first()
            && time <= now
        {
            self.expire_out(slot, Reason::ExpireTime, out);
            count += 1;
        }
        if day_end {
            let ends = |order: &OpenOrder| order.tif == Tif::Day || order.tif.is_for_auction();
            let slots: Vec<u32> = self.orders().filter(ends).map(|order| order.slot.0).collect();
            for slot in slots {
                self.expire_out(slot, Reason::DayEnd, out);
                count += 1;
            }
            self.trim();
        }
        self.emit(out, What::Expiry { now, count, day_end });
    }
}

pub(crate) fn hot_record(new: &NewOrder) -> Order {
    let mut flags = new.side as u8;
    if new.tif == Tif::Day {
        flags |= DAY;
    }
    if new.tif == Tif::Gtd {
        flags |= GTD;
    }
    if new.tif.is_for_auction() {
        flags |= ONE_AUCTION;
    }
    if new.post_only {
        flags |= POST_ONLY;
    }
    if is_iceberg(new) {
        flags |= ICEBERG;
    }
    Order::new(new.id, new.owner, new.price, new.qty, flags)
}

fn is_iceberg(new: &NewOrder) -> bool {
    new.display != 0 && new.display < new.qty
}

fn needs_cold(new: &NewOrder) -> bool {
    new.display != 0 || matches!(new.tif, Tif::Gtd | Tif::Cls) || new.self_trade != SelfTrade::CancelNewest
}
