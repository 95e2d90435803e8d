//! Replace: an open order changes price, quantity, stop or display, and keeps its place where the rules let it.

use crate::book::{Book, Incoming};
use crate::command::{Lots, MAX_PARTS, MAX_PRICE, MAX_QTY, Phase, Replace, Slot, Ticks};
use crate::event::{Reason, Sink, What};
use crate::order::{COLD, GTD, HELD, ICEBERG, LEVEL, POST_ONLY, StopKind};

/// What a replace amounts to, once it is allowed.
struct Change {
    open: Lots,
    price: Ticks,
    stop: Ticks,
    display: Lots,
    keeps_place: bool,
}

impl Book {
    pub(crate) fn replace(&mut self, replace: &Replace, out: &mut impl Sink) {
        let change = match self.may_replace(replace) {
            Ok(change) => change,
            Err(reason) => return self.emit(out, What::ReplaceRejected { id: replace.id, reason }),
        };
        let slot = replace.slot.0;
        let id = self.rename(slot, replace);
        let version = if replace.new_id == 0 {
            let cold = self.slab.cold_mut(slot);
            cold.version += 1;
            cold.version
        } else {
            0
        };
        let was_open = self.slab.open(slot);
        let held = self.slab.hot[slot as usize].has(HELD);
        let replaced = What::Replaced {
            old: replace.id,
            id,
            open: change.open,
            slot: Slot(slot),
            price: change.price,
            stop: change.stop,
            version,
            kept_place: change.keeps_place,
        };
        if change.keeps_place {
            if was_open > change.open {
                self.reduce_open(slot, was_open - change.open);
            }
            return self.emit(out, replaced);
        }
        if held {
            return self.replace_held(slot, &change, replaced, out);
        }
        self.unlink(slot);
        let order = &mut self.slab.hot[slot as usize];
        order.place = change.price;
        if change.display != 0 {
            order.set(ICEBERG);
            self.slab.cold_mut(slot).display = change.display;
        }
        self.emit(out, replaced);
        if !self.trades_now() {
            return self.place(slot, change.open);
        }
        let order = self.slab.hot[slot as usize];
        let self_trade = self.slab.cold(slot).self_trade;
        let mut incoming =
            Incoming { id, owner: order.owner, self_trade, side: order.side(), open: change.open, filled: 0 };
        let ended = self.cross(&mut incoming, change.price, out);
        self.settle(slot, &incoming, ended, out);
        if incoming.filled > 0 {
            self.after_trades(out);
        }
    }

    /// A held stop changes in its place; at the back of its new stop price where that moved.
    fn replace_held(&mut self, slot: u32, change: &Change, replaced: What, out: &mut impl Sink) {
        self.unqueue_stop(slot);
        self.stops_entered += 1;
        let entered = self.stops_entered;
        let cold = self.slab.cold_mut(slot);
        cold.entered = entered;
        cold.stop.price = change.stop;
        cold.display = change.display;
        let order = &mut self.slab.hot[slot as usize];
        order.place = change.price;
        order.set_shown(change.open);
        if change.display != 0 && change.display < change.open {
            order.set(ICEBERG);
        }
        self.queue_stop(slot);
        self.emit(out, replaced);
        self.after_trades(out);
    }

    fn may_replace(&self, replace: &Replace) -> Result<Change, Reason> {
        let slot = replace.slot.0;
        if !self.slab.holds(slot, replace.id) {
            return Err(Reason::UnknownOrder);
        }
        if self.halted {
            return Err(Reason::Halted);
        }
        if self.phase == Phase::Closed {
            return Err(Reason::WrongPhase);
        }
        if replace.new_id != 0 && (replace.new_id <= self.last_id || replace.new_id == LEVEL) {
            return Err(Reason::BadOrderId);
        }
        let order = &self.slab.hot[slot as usize];
        let cold = self.slab.cold(slot);
        let held = order.has(HELD);
        let trailing = matches!(cold.stop.kind, StopKind::TrailingAmount | StopKind::TrailingPercent);
        if replace.qty > MAX_QTY {
            return Err(Reason::BadQuantity);
        }
        if replace.price > MAX_PRICE {
            return Err(Reason::BadPrice);
        }
        if replace.stop > MAX_PRICE {
            return Err(Reason::BadStopPrice);
        }
        if (replace.stop != 0 && !held) || (trailing && (replace.stop != 0 || replace.price != 0)) {
            return Err(Reason::NotReplaceable);
        }
        if replace.display != 0 && cold.display == 0 {
            return Err(Reason::NotReplaceable);
        }
        let was_open = self.slab.open(slot);
        let filled = if replace.new_id == 0 { self.slab.filled(slot) } else { 0 };
        let open = if replace.qty == 0 { was_open } else { replace.qty.saturating_sub(filled) };
        if open == 0 {
            return Err(Reason::BelowFilled);
        }
        let or = |new: u32, old: u32| if new == 0 { old } else { new };
        let display = if replace.display == 0 { cold.display } else { replace.display };
        if replace.display > if replace.qty == 0 { was_open + filled } else { replace.qty } {
            return Err(Reason::BadDisplay);
        }
        if display != 0 && open.div_ceil(display) > MAX_PARTS {
            return Err(Reason::BadDisplay);
        }
        let old_price = self.price_of(slot);
        let (price, stop) = (or(replace.price, old_price), or(replace.stop, cold.stop.price));
        let keeps_place = replace.new_id == 0
            && price == old_price
            && stop == cold.stop.price
            && display == cold.display
            && open <= was_open;
        if !keeps_place && order.has(POST_ONLY) && self.would_trade(order.side(), price) {
            return Err(Reason::WouldTrade);
        }
        Ok(Change { open, price, stop, display, keeps_place })
    }

    /// Gives the order its new number, if the command has one; its fills and replaces count from 0 then.
    fn rename(&mut self, slot: u32, replace: &Replace) -> u64 {
        if replace.new_id == 0 {
            return replace.id;
        }
        self.last_id = replace.new_id;
        let order = &mut self.slab.hot[slot as usize];
        order.id = replace.new_id;
        if order.has(COLD) {
            self.slab.cold_mut(slot).version = 0;
        }
        self.slab.forget_filled(slot);
        if self.slab.hot[slot as usize].has(GTD) {
            let expire = self.slab.cold(slot).expire;
            self.gtd.remove(&(expire, replace.id, slot));
            self.gtd.insert((expire, replace.new_id, slot));
        }
        replace.new_id
    }
}
