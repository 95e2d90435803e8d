//! Stops: held apart until a trade reaches them, then entered one by one.

use crate::book::{Book, Ended, Incoming, hot_record, mask};
use crate::command::{Kind, MAX_PRICE, NewOrder, Side, Slot, Ticks};
use crate::event::{Sink, What};
use crate::order::*;

impl Book {
    /// Puts a stop aside until a trade reaches it.
    #[cold]
    #[inline(never)]
    pub(crate) fn hold(&mut self, new: &NewOrder, out: &mut impl Sink) {
        let kind = match new.kind {
            Kind::StopLimit => StopKind::Limit,
            Kind::TrailingAmount => StopKind::TrailingAmount,
            Kind::TrailingPercent => StopKind::TrailingPercent,
            Kind::Limit | Kind::Market | Kind::Stop => StopKind::Market,
        };
        let price = if new.stop != 0 { new.stop } else { trailed(kind, new.side, new.trail, self.last) };
        let mut order = hot_record(new);
        order.set(HELD);
        let slot = self.slab.insert(order);
        self.write_cold(slot, new);
        self.stops_entered += 1;
        let cold = self.slab.cold_mut(slot);
        cold.entered = self.stops_entered;
        cold.stop = Stop { kind, price, trail: new.trail };
        self.accept(new, slot, true, out);
        self.queue_stop(slot);
        if new.kind.is_trailing() {
            self.trailing[new.side as usize].push(slot);
        }
        self.after_trades(out);
    }

    /// Puts a held stop among those of its side.
    pub(crate) fn queue_stop(&mut self, slot: u32) {
        let side = self.slab.hot[slot as usize].side();
        let cold = self.slab.cold(slot);
        self.stops[side as usize].insert((cold.stop.price ^ mask(side), cold.entered), slot);
    }

    pub(crate) fn unqueue_stop(&mut self, slot: u32) {
        let side = self.slab.hot[slot as usize].side();
        let cold = self.slab.cold(slot);
        self.stops[side as usize].remove(&(cold.stop.price ^ mask(side), cold.entered));
    }

    /// Takes a stop from those that are held.
    pub(crate) fn unhold(&mut self, slot: u32) {
        self.unqueue_stop(slot);
        let side = self.slab.hot[slot as usize].side();
        self.trailing[side as usize].retain(|&other| other != slot);
    }

    /// After a match: moves trailing stops, then lets reached stops enter one after the other until none is reached.
    #[inline(always)]
    pub(crate) fn after_trades(&mut self, out: &mut impl Sink) {
        if self.stops[0].is_empty() && self.stops[1].is_empty() {
            return;
        }
        self.run_stops(out);
    }

    #[cold]
    #[inline(never)]
    fn run_stops(&mut self, out: &mut impl Sink) {
        self.collect_reached(out);
        while let Some(slot) = self.reached.pop_front() {
            self.enter_stop(slot, out);
            if !self.trades_now() {
                return self.hold_reached();
            }
            self.collect_reached(out);
        }
    }

    /// A volatility pause came between: reached stops that did not enter yet wait again, in their old places.
    fn hold_reached(&mut self) {
        while let Some(slot) = self.reached.pop_front() {
            self.queue_stop(slot);
            if matches!(self.slab.cold(slot).stop.kind, StopKind::TrailingAmount | StopKind::TrailingPercent)
            {
                let side = self.slab.hot[slot as usize].side();
                self.trailing[side as usize].push(slot);
            }
        }
    }

    fn collect_reached(&mut self, out: &mut impl Sink) {
        if self.last == 0 || !self.trades_now() {
            return;
        }
        for side in [Side::Buy, Side::Sell] {
            self.move_trailing(side, out);
            let reached_key = self.last ^ mask(side);
            while let Some(entry) = self.stops[side as usize].first_entry()
                && entry.key().0 <= reached_key
            {
                let slot = entry.remove();
                self.trailing[side as usize].retain(|&other| other != slot);
                self.reached.push_back(slot);
            }
        }
    }

    /// Trailing stops follow the last price; they never move away from it.
    fn move_trailing(&mut self, side: Side, out: &mut impl Sink) {
        let mut waiting = std::mem::take(&mut self.trailing[side as usize]);
        // Events come in an order that a restored book has too; a list that is in it already costs one pass.
        waiting.sort_by_key(|&slot| self.slab.cold(slot).entered);
        for &slot in &waiting {
            let stop = self.slab.cold(slot).stop;
            let price = trailed(stop.kind, side, stop.trail, self.last);
            if price ^ mask(side) < stop.price ^ mask(side) {
                self.unqueue_stop(slot);
                self.slab.cold_mut(slot).stop.price = price;
                self.queue_stop(slot);
                let id = self.slab.hot[slot as usize].id;
                self.emit(out, What::StopMoved { id, slot: Slot(slot), stop: price });
            }
        }
        self.trailing[side as usize] = waiting;
    }

    fn enter_stop(&mut self, slot: u32, out: &mut impl Sink) {
        let cold = *self.slab.cold(slot);
        let order = &mut self.slab.hot[slot as usize];
        order.clear(HELD);
        let (id, owner, side, open) = (order.id, order.owner, order.side(), order.shown());
        let price = match cold.stop.kind {
            StopKind::TrailingAmount | StopKind::TrailingPercent => {
                cap_of_trailing(side, cold.stop.price, order.place)
            }
            _ => order.place,
        };
        order.place = price;
        self.slab.cold_mut(slot).stop = Cold::DEFAULT.stop;
        self.slab.cold_mut(slot).entered = 0;
        let last = self.last;
        self.emit(out, What::Triggered { id, slot: Slot(slot), open, stop: cold.stop.price, last });
        let mut incoming = Incoming { id, owner, self_trade: cold.self_trade, side, open, filled: 0 };
        let ended = self.cross(&mut incoming, price, out);
        if cold.stop.kind == StopKind::Limit {
            self.settle(slot, &incoming, ended, out);
            return;
        }
        self.release(slot);
        if incoming.open > 0 || ended == Ended::SelfTrade {
            let reason = self.remainder_reason(&incoming, ended, true);
            let open = incoming.open;
            self.emit(out, What::Canceled { id, slot: Slot(slot), open, price, side, reason });
        }
    }
}

/// The stop price that trails behind `last`.
pub(crate) fn trailed(kind: StopKind, side: Side, trail: u32, last: Ticks) -> Ticks {
    let distance = match kind {
        StopKind::TrailingPercent => ((u64::from(last) * u64::from(trail) / 10_000) as u32).max(1),
        _ => trail,
    };
    match side {
        Side::Buy => last.saturating_add(distance).min(MAX_PRICE),
        Side::Sell => last.saturating_sub(distance).max(1),
    }
}

/// The cap of a trailing stop that is reached at `stop`.
pub(crate) fn cap_of_trailing(side: Side, stop: Ticks, distance: u32) -> Ticks {
    match side {
        Side::Buy => stop.saturating_add(distance).min(MAX_PRICE),
        Side::Sell => stop.saturating_sub(distance).max(1),
    }
}
