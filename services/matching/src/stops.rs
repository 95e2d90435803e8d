//! Stops: held apart until a trade elects them, then entered one by one.

use crate::book::{Book, hot_record, mask};
use crate::command::{
    Kind, MAX_PRICE, NewOrder, OrderId, PROTECTION_PER_MILLE, PROTECTION_TICKS_MIN, Phase, Side, Slot, Ticks,
};
use crate::event::{Sink, What};
use crate::order::*;

impl Book {
    /// Puts a stop aside until a trade elects it.
    #[cold]
    #[inline(never)]
    pub(crate) fn hold(&mut self, new: &NewOrder, out: &mut impl Sink) {
        let (kind, price) = (stop_kind(new.kind), self.first_stop(new));
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
    }

    /// The stop price that a new stop begins with.
    pub(crate) fn first_stop(&self, new: &NewOrder) -> Ticks {
        if new.stop != 0 { new.stop } else { trailed(stop_kind(new.kind), new.side, new.trail, self.last) }
    }

    /// On the side of the last trade where it would be elected at once: at or below it for a buy, at or above it for a
    /// sell.
    pub(crate) fn is_wrong_side(&self, side: Side, stop: Ticks) -> bool {
        self.last != 0 && stop ^ mask(side) <= self.last ^ mask(side)
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

    /// Takes a held order from those that wait.
    pub(crate) fn unhold(&mut self, slot: u32) {
        let side = self.slab.hot[slot as usize].side();
        let cold = self.slab.cold(slot);
        if cold.stop.kind == StopKind::OnOpen {
            self.on_open.remove(&(side, cold.entered));
            return;
        }
        if cold.stop.kind.is_on_close() {
            self.on_close.remove(&cold.entered);
            return;
        }
        self.unqueue_stop(slot);
        self.trailing[side as usize].retain(|&other| other != slot);
        self.reached.retain(|&(other, _)| other != slot);
    }

    /// The stop was elected and has not entered yet.
    pub(crate) fn is_elected(&self, slot: u32) -> bool {
        self.reached.iter().any(|&(other, _)| other == slot)
    }

    /// Whether elected stops wait for [`Book::enter_elected`] instead of entering at the end of the command that elected
    /// them: for a caller whose orders depend on each other, and who settles that between two matches. Between such steps
    /// only new orders, cancels, replaces and reductions may come.
    pub fn set_stepwise(&mut self, stepwise: bool) {
        self.stepwise = stepwise;
    }

    /// The elected stop that enters next.
    pub fn next_elected(&self) -> Option<OrderId> {
        self.reached.front().map(|&(slot, _)| self.slab.hot[slot as usize].id)
    }

    /// The next elected stop enters. Answers false where none waits.
    pub fn enter_elected(&mut self, out: &mut impl Sink) -> bool {
        let Some((slot, print)) = self.reached.pop_front() else { return false };
        let first = self.enter_stop(slot, print, out);
        if first != 0 {
            self.elect(first, out);
        }
        true
    }

    /// After a match that traded from the price `first` to the last one: stops that it elected enter.
    #[inline(always)]
    pub(crate) fn after_match(&mut self, first: Ticks, out: &mut impl Sink) {
        if self.stops[0].is_empty() && self.stops[1].is_empty() {
            return;
        }
        self.run_stops(first, out);
    }

    /// Elected stops enter one after the other, each followed by those that its own trades elect, until none is left. In a
    /// call they gather; where the symbol is halted or closed they wait for its next phase.
    #[cold]
    #[inline(never)]
    fn run_stops(&mut self, first: Ticks, out: &mut impl Sink) {
        if self.last == 0 || self.halted || self.phase == Phase::Closed {
            return;
        }
        self.elect(first, out);
        while !self.stepwise && self.enter_elected(out) {}
    }

    /// The trades of a match go one way: its first and its last price are its highest and lowest. The adverse one elects
    /// stops, the favourable one moves those that trail, in the order in which they came.
    fn elect(&mut self, first: Ticks, out: &mut impl Sink) {
        let (low, high) = (first.min(self.last), first.max(self.last));
        for side in [Side::Buy, Side::Sell] {
            let (favourable, adverse) = if side == Side::Buy { (low, high) } else { (high, low) };
            if favourable == first {
                self.move_trailing(side, favourable, out);
            }
            while let Some(entry) = self.stops[side as usize].first_entry()
                && entry.key().0 <= adverse ^ mask(side)
            {
                let slot = entry.remove();
                self.trailing[side as usize].retain(|&other| other != slot);
                self.reached.push_back((slot, adverse));
            }
            if favourable != first {
                self.move_trailing(side, favourable, out);
            }
        }
    }

    /// Trailing stops follow a price; they never move away from it.
    fn move_trailing(&mut self, side: Side, print: Ticks, out: &mut impl Sink) {
        let mut waiting = std::mem::take(&mut self.trailing[side as usize]);
        // Events come in an order that a restored book has too; a list that is in it already costs one pass.
        waiting.sort_by_key(|&slot| self.slab.cold(slot).entered);
        for &slot in &waiting {
            let stop = self.slab.cold(slot).stop;
            let price = trailed(stop.kind, side, stop.trail, print);
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

    /// An elected stop enters the book as a limit order. Answers the price of its first trade, 0 for none.
    fn enter_stop(&mut self, slot: u32, print: Ticks, out: &mut impl Sink) -> Ticks {
        let stop = self.slab.cold(slot).stop;
        let order = &mut self.slab.hot[slot as usize];
        order.clear(HELD);
        let (id, side, open) = (order.id, order.side(), order.shown());
        let price = match (stop.kind, side) {
            (StopKind::Limit, _) => order.place,
            (_, Side::Sell) => protection(print),
            (StopKind::TrailingAmount | StopKind::TrailingPercent, Side::Buy) => {
                stop.price.saturating_add(order.place).min(MAX_PRICE)
            }
            (_, Side::Buy) => order.place,
        };
        order.place = price;
        let cold = self.slab.cold_mut(slot);
        cold.stop = Cold::DEFAULT.stop;
        cold.entered = 0;
        self.emit(out, What::Triggered { id, slot: Slot(slot), open, stop: stop.price, last: print, price });
        self.enter(slot, open, out)
    }
}

fn stop_kind(kind: Kind) -> StopKind {
    match kind {
        Kind::StopLimit => StopKind::Limit,
        Kind::TrailingAmount => StopKind::TrailingAmount,
        Kind::TrailingPercent => StopKind::TrailingPercent,
        Kind::Limit | Kind::Market | Kind::Stop => StopKind::Market,
    }
}

/// The lowest price at which a sell stop trades that a trade at `print` elected.
fn protection(print: Ticks) -> Ticks {
    let share = (u64::from(print) * u64::from(PROTECTION_PER_MILLE) / 1_000) as u32;
    print.saturating_sub(share.max(PROTECTION_TICKS_MIN)).max(1)
}

/// The stop price that trails behind a price.
pub(crate) fn trailed(kind: StopKind, side: Side, trail: u32, print: Ticks) -> Ticks {
    let distance = match kind {
        StopKind::TrailingPercent => ((u64::from(print) * u64::from(trail) / 10_000) as u32).max(1),
        _ => trail,
    };
    match side {
        Side::Buy => print.saturating_add(distance).min(MAX_PRICE),
        Side::Sell => print.saturating_sub(distance).max(1),
    }
}
