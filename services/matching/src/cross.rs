//! Matching: an incoming order's way through the other side, price first, then time.

use crate::book::{Book, Ended, Incoming, mask};
use crate::command::{Lots, SelfTrade, Side, Slot, Ticks};
use crate::event::{Event, Reason, Sink, What};
use crate::ladder::Top;
use crate::order::{COLD, GTD, ICEBERG, NIL};
use crate::prefetch::prefetch;

impl Book {
    /// Trades the incoming order against the other side within `limit`.
    #[inline(always)]
    pub(crate) fn cross(&mut self, incoming: &mut Incoming, limit: Ticks, out: &mut impl Sink) -> Ended {
        let other = incoming.side.opposite();
        // Keys grow towards the better price: the incoming order takes keys from its limit on, within the band.
        let (band_from, band_to) = self.band.keys[other as usize];
        let limit_key = band_from.max(limit ^ mask(other));
        // Nobody's orders are never each other's own.
        let own = u64::from(incoming.owner) | u64::from(incoming.owner == 0) << 32;
        while incoming.open > 0 {
            let Top { key: best, node } = self.tops[other as usize];
            if best < limit_key || best > band_to {
                return self.beyond_limit(incoming.side, limit, out);
            }
            let hot = &mut *self.slab.hot;
            let slot = hot[node as usize].next;
            let maker = &hot[slot as usize];
            let (id, shown, flags, next) = (maker.id, maker.shown(), maker.flags(), maker.next);
            prefetch(hot, next as usize);
            if u64::from(maker.owner) == own || flags & (ICEBERG | GTD) != 0 {
                // A copy: the order itself then stays in registers.
                let mut rare = *incoming;
                let ends = self.meet_rare(&mut rare, slot, out);
                *incoming = rare;
                if ends {
                    return Ended::SelfTrade;
                }
                continue;
            }
            let qty = incoming.open.min(shown);
            let left = shown - qty;
            incoming.open -= qty;
            incoming.filled += qty;
            let price = best ^ mask(other);
            self.last = price;
            self.trades += 1;
            self.volume = self.volume.wrapping_add(qty);
            self.seq += 1;
            out.event(Event {
                seq: self.seq,
                what: What::Trade {
                    maker: id,
                    taker: incoming.id,
                    qty,
                    maker_open: left,
                    taker_open: incoming.open,
                    price,
                    maker_slot: Slot(slot),
                    aggressor: incoming.side,
                },
            });
            let level = &mut hot[node as usize];
            if left > 0 {
                level.level_sub(qty);
                hot[slot as usize].set_shown(left);
                self.slab.add_filled(slot, qty);
                return Ended::Normally;
            }
            // The maker is filled: it is the first of its level, so this is the whole of its leaving.
            level.next = next;
            let level_empty = level.level_sub_one(qty);
            hot[next as usize].prev = node;
            self.slab.remove(slot);
            if level_empty {
                self.level_left(other, node);
            }
        }
        Ended::Normally
    }

    /// The next resting order is the incoming owner's own, or there is more to it than its quantity. Returns true where
    /// the incoming order ends.
    #[cold]
    #[inline(never)]
    fn meet_rare(&mut self, incoming: &mut Incoming, slot: u32, out: &mut impl Sink) -> bool {
        let maker = self.slab.hot[slot as usize];
        if maker.owner == incoming.owner && maker.owner != 0 {
            let ends = self.prevent_self_trade(incoming, slot, out);
            if incoming.filled == 0 {
                incoming.first = self.best(incoming.side.opposite()).unwrap_or(0);
            }
            return ends;
        }
        let price = self.price_of(slot);
        let qty = incoming.open.min(maker.shown());
        incoming.open -= qty;
        incoming.filled += qty;
        self.last = price;
        self.trades += 1;
        self.volume = self.volume.wrapping_add(qty);
        let trade = What::Trade {
            maker: maker.id,
            taker: incoming.id,
            qty,
            maker_open: self.slab.open(slot) - qty,
            taker_open: incoming.open,
            price,
            maker_slot: Slot(slot),
            aggressor: incoming.side,
        };
        self.emit(out, trade);
        self.fill_resting(slot, qty, out);
        false
    }

    /// Nothing more within limit and band. Where it was the band that ended it, the symbol pauses.
    #[inline(always)]
    fn beyond_limit(&mut self, side: Side, limit: Ticks, out: &mut impl Sink) -> Ended {
        if self.band.reference == 0 || !self.would_trade(side, limit) {
            return Ended::Normally;
        }
        self.pause(side, out);
        Ended::Paused
    }

    /// The shown part of an iceberg is gone: the next part goes to the back of the level.
    pub(crate) fn refill(&mut self, slot: u32, traded: Lots, out: &mut impl Sink) {
        self.slab.hot[slot as usize].set_shown(0);
        self.unlink(slot);
        self.slab.add_filled(slot, traded);
        let shown = self.show_next(slot);
        self.link(slot);
        let (id, price) = (self.slab.hot[slot as usize].id, self.price_of(slot));
        self.emit(out, What::Refilled { id, slot: Slot(slot), shown, price });
    }

    /// In a call self-trade prevention acts at entry: the incoming order meets its owner's orders on the other side, best
    /// first, as far as their limits meet.
    #[cold]
    #[inline(never)]
    pub(crate) fn meet_own_in_call(
        &mut self,
        incoming: &mut Incoming,
        limit: Ticks,
        out: &mut impl Sink,
    ) -> Ended {
        if incoming.owner == 0 {
            return Ended::Normally;
        }
        let other = incoming.side.opposite();
        let worst = limit ^ mask(other);
        let own = |slot: &u32| self.slab.hot[*slot as usize].owner == incoming.owner;
        let mut met: Vec<u32> = self
            .on_open_slots(other)
            .filter(|&slot| self.slab.hot[slot as usize].place ^ mask(other) >= worst)
            .filter(own)
            .collect();
        let meets = |slot: &u32| self.price_of(*slot) ^ mask(other) >= worst;
        met.extend(self.resting_slots(other).take_while(meets).filter(own));
        for slot in met {
            if self.prevent_self_trade(incoming, slot, out) {
                return Ended::SelfTrade;
            }
        }
        Ended::Normally
    }

    /// Returns true where the incoming order ends.
    fn prevent_self_trade(&mut self, incoming: &mut Incoming, slot: u32, out: &mut impl Sink) -> bool {
        match incoming.self_trade {
            SelfTrade::CancelNewest => true,
            SelfTrade::CancelOldest => {
                self.cancel_own(slot, out);
                false
            }
            SelfTrade::CancelBoth => {
                self.cancel_own(slot, out);
                true
            }
            SelfTrade::Decrement => {
                self.decrement(incoming, slot, out);
                incoming.open == 0
            }
        }
    }

    pub(crate) fn cancel_own(&mut self, slot: u32, out: &mut impl Sink) {
        self.cancel_out(slot, self.slab.open(slot), Reason::SelfTrade, out);
    }

    /// Both orders lose the smaller open quantity, a resting iceberg its hidden part first. The one that is empty is
    /// canceled with 0 open; the incoming one by its caller.
    fn decrement(&mut self, incoming: &mut Incoming, slot: u32, out: &mut impl Sink) {
        let open = self.slab.open(slot);
        let qty = open.min(incoming.open);
        incoming.open -= qty;
        let maker = self.slab.hot[slot as usize].id;
        self.emit(
            out,
            What::Decremented {
                maker,
                taker: incoming.id,
                qty,
                maker_open: open - qty,
                taker_open: incoming.open,
                maker_slot: Slot(slot),
            },
        );
        if open == qty {
            self.cancel_out(slot, 0, Reason::SelfTrade, out);
        } else {
            self.reduce_open(slot, qty);
        }
    }

    /// Takes lots off a resting or held order without moving it: the hidden part first, then the shown one.
    /// Something stays open.
    pub(crate) fn reduce_open(&mut self, slot: u32, qty: Lots) {
        let order = self.slab.hot[slot as usize];
        let hidden = if order.has(COLD) { self.slab.cold(slot).hidden } else { 0 };
        let from_hidden = hidden.min(qty);
        if from_hidden > 0 {
            self.slab.cold_mut(slot).hidden -= from_hidden;
        }
        let from_shown = qty - from_hidden;
        if from_shown > 0 {
            self.slab.hot[slot as usize].set_shown(order.shown() - from_shown);
            if !order.is_held() {
                self.slab.hot[order.place as usize].level_sub(from_shown);
            }
        }
    }

    /// Would the incoming order fill whole within `limit`? Own orders never count: where the order's mode removes them
    /// it goes on behind them, else it ends there.
    #[cold]
    #[inline(never)]
    pub(crate) fn can_fill_whole(&self, incoming: &Incoming, limit: Ticks) -> bool {
        let other = incoming.side.opposite();
        let (band_from, band_to) = self.band.keys[other as usize];
        let limit_key = band_from.max(limit ^ mask(other));
        let mut missing = incoming.open;
        if self.best_key(other) > band_to {
            return false;
        }
        let mut node = self.best_node(other);
        while node != NIL && self.slab.level_key(node) >= limit_key {
            let mut slot = self.slab.hot[node as usize].next;
            while slot != node {
                let order = &self.slab.hot[slot as usize];
                if order.owner == incoming.owner && order.owner != 0 {
                    if incoming.self_trade != SelfTrade::CancelOldest {
                        return false;
                    }
                } else {
                    let open = self.slab.open(slot);
                    if open >= missing {
                        return true;
                    }
                    missing -= open;
                }
                slot = order.next;
            }
            node = self.below(node);
        }
        false
    }
}
