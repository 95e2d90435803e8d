//! Replace: an open order changes price, quantity, stop or display, and keeps its place where the rules let it.

use crate::book::Book;
use crate::command::{Lots, MAX_PARTS, MAX_PRICE, MAX_QTY, MAX_TRAIL_BPS, Phase, Replace, Side, Slot, Ticks};
use crate::event::{Reason, Sink, What};
use crate::order::{COLD, Cold, GTD, HELD, ICEBERG, LEVEL, POST_ONLY, StopKind};
use crate::stops::trailed;

/// What a replace amounts to, once it is allowed.
struct Change {
    open: Lots,
    price: Ticks,
    stop: Ticks,
    trail: u32,
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
        let waits = self.slab.cold(slot).stop.kind;
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
        if waits.is_on_close() {
            self.unhold(slot);
            let order = &mut self.slab.hot[slot as usize];
            order.place = change.price;
            order.set_shown(change.open);
            self.queue_on_close(slot);
            return self.emit(out, replaced);
        }
        if waits == StopKind::OnOpen {
            self.unhold(slot);
        } else if held {
            return self.replace_held(slot, &change, replaced, out);
        } else {
            self.unlink(slot);
        }
        let order = &mut self.slab.hot[slot as usize];
        order.place = change.price;
        if change.display != 0 {
            order.set(ICEBERG);
            self.slab.cold_mut(slot).display = change.display;
        }
        self.emit(out, replaced);
        let first = self.enter(slot, change.open, out);
        if first != 0 {
            self.after_match(first, out);
        }
    }

    /// A held stop changes in its place; at the back of its new stop price where that moved.
    fn replace_held(&mut self, slot: u32, change: &Change, replaced: What, out: &mut impl Sink) {
        let elected = self.is_elected(slot);
        if !elected {
            self.unqueue_stop(slot);
        }
        self.stops_entered += 1;
        let entered = self.stops_entered;
        let cold = self.slab.cold_mut(slot);
        cold.entered = entered;
        cold.stop.price = change.stop;
        cold.stop.trail = change.trail;
        cold.display = change.display;
        let order = &mut self.slab.hot[slot as usize];
        order.place = change.price;
        order.set_shown(change.open);
        if change.display != 0 && change.display < change.open {
            order.set(ICEBERG);
        }
        if !elected {
            self.queue_stop(slot);
        }
        self.emit(out, replaced);
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
        if replace.qty > MAX_QTY {
            return Err(Reason::BadQuantity);
        }
        if replace.price > MAX_PRICE {
            return Err(Reason::BadPrice);
        }
        if replace.stop > MAX_PRICE {
            return Err(Reason::BadStopPrice);
        }
        let (stop, trail) = self.replaced_stop(replace, order.side(), cold)?;
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
        let price = or(replace.price, old_price);
        let keeps_place = replace.new_id == 0
            && price == old_price
            && (stop, trail) == (cold.stop.price, cold.stop.trail)
            && display == cold.display
            && open <= was_open;
        if !keeps_place && order.has(POST_ONLY) && self.would_trade(order.side(), price) {
            return Err(Reason::WouldTrade);
        }
        Ok(Change { open, price, stop, trail, display, keeps_place })
    }

    /// Stop price and trail as the replace would make them.
    fn replaced_stop(&self, replace: &Replace, side: Side, cold: &Cold) -> Result<(Ticks, u32), Reason> {
        let kind = cold.stop.kind;
        let changes_stop = replace.stop != 0 || replace.trail != 0;
        if changes_stop && !kind.is_stop() || replace.trail != 0 && !kind.is_trailing() {
            return Err(Reason::NotReplaceable);
        }
        if replace.trail == 0 {
            if kind.is_trailing() && (replace.stop != 0 || replace.price != 0) {
                return Err(Reason::NotReplaceable);
            }
            let stop = if replace.stop == 0 { cold.stop.price } else { replace.stop };
            if replace.stop != 0 && self.is_wrong_side(side, stop) {
                return Err(Reason::StopWrongSide);
            }
            return Ok((stop, cold.stop.trail));
        }
        let most = if kind == StopKind::TrailingAmount { MAX_PRICE } else { MAX_TRAIL_BPS };
        if replace.trail > most {
            return Err(Reason::BadTrail);
        }
        let stop = match (replace.stop, self.last) {
            (0, 0) => return Err(Reason::NoReferencePrice),
            (0, last) => trailed(kind, side, replace.trail, last),
            (stop, _) => stop,
        };
        if self.is_wrong_side(side, stop) {
            return Err(Reason::StopWrongSide);
        }
        Ok((stop, replace.trail))
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
        if self.slab.hot[slot as usize].is_for_auction() {
            self.one_auction.remove(&replace.id);
        } else if self.slab.hot[slot as usize].has(GTD) {
            let expire = self.slab.cold(slot).expire;
            self.gtd.remove(&(expire, replace.id, slot));
            self.gtd.insert((expire, replace.new_id, slot));
        }
        replace.new_id
    }
}
