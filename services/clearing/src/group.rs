//! Groups of orders (exchange-rules §3): an entry that buys and exits that sell what it bought, or exits alone.
//!
//! Exits of a group sell the same shares, so they hold them once: the one that filled last, or the first, carries the
//! hold. What one sells the other loses before anything else happens; the end of one ends the other, and so does the
//! trigger of a stop, so that two exits never stand in the book's levels for the same shares but one of them behind its
//! stop. An exit whose entry has not bought yet sleeps outside the book.
#![expect(
    clippy::expect_used,
    reason = "what was checked before cannot fail: a step that breaks this must not go on"
)]

use crate::{
    command::{NewGroup, NewOrder},
    fact::{End, OrderKind, Sink},
    order::Order,
    refusal::Refusal,
    step::{Checked, Stepper},
};
use fafnir_matching::{Command as BookCommand, Kind, Phase, Reason as BookReason, Replace as BookReplace};
use fafnir_rules::{
    check::{Terms, Violation},
    order::{GroupKind, OrderState, OrderType, Side, TimeInForce},
    price::{collar, trailing_start},
};
use uuid::Uuid;

/// What an order is in its group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[repr(u8)]
pub enum Leg {
    /// In no group.
    #[default]
    None = 0,
    Entry = 1,
    Exit = 2,
}

/// A group that has open orders which still depend on each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub id: Uuid,
    pub kind: GroupKind,
    /// Number of its user, and of its market.
    pub owner: u32,
    pub market: u32,
    /// The entry while it is open, else nil.
    pub entry: Uuid,
    /// Open exits, in the order in which they were given.
    pub exits: Vec<Uuid>,
    /// Shares that the entry bought and no exit sells yet, because the market takes no orders.
    pub pending_e4: i64,
}

/// What a match did to an order of a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effect {
    pub group: Uuid,
    pub order: Uuid,
    pub leg: Leg,
    pub what: Happened,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Happened {
    Filled(i64),
    Ended,
    Triggered,
}

fn shape(what: &'static str) -> Refusal {
    Refusal::GroupMalformed(what)
}

/// What the orders of a group must be, apart from their prices.
fn check_shape(new: &NewGroup) -> Checked {
    let must = |holds: bool, what| if holds { Ok(()) } else { Err(shape(what)) };
    let (legs, has_entry) = (&new.legs, new.kind.has_entry());
    must(legs.len() == new.kind.legs(), "an OCO or OTO group has 2 orders, a BRACKET group 3")?;
    must(!new.group.is_nil(), "group_id is missing")?;
    let first = &legs[0];
    let same = legs.iter().all(|leg| leg.symbol == first.symbol && leg.account == first.account);
    must(same, "the orders of a group must have the same symbol and account")?;
    let ids =
        legs.iter().enumerate().all(|(at, leg)| legs[..at].iter().all(|other| other.order != leg.order));
    must(ids, "the orders of a group must have ids of their own")?;
    must(!has_entry || first.side == Side::Buy, "side of an entry must be BUY: there is no short selling")?;
    let exits = &legs[usize::from(has_entry)..];
    must(exits.iter().all(|exit| exit.side == Side::Sell), "side of an exit must be SELL")?;
    must(
        legs.iter().all(|leg| leg.notional == 0),
        "the orders of a group must have a quantity, not a notional",
    )?;
    let quantity = legs.iter().all(|leg| leg.quantity_e4 == first.quantity_e4);
    must(quantity, "the orders of a group must have the same quantity")?;
    let plain = exits.iter().all(|exit| exit.display_e4 == 0 && !exit.post_only);
    must(plain, "an exit must not be post-only or an iceberg")?;
    let rests = |exit: &NewOrder| exit.terms.order_type().rests(exit.time);
    must(exits.iter().all(rests), "an exit must be able to rest")?;
    let stays = exits.iter().all(|exit| !has_entry || exit.time == TimeInForce::Gtc);
    must(stays, "time_in_force of an exit that waits for its entry must be GTC")?;
    let same_time =
        exits.iter().all(|exit| exit.time == exits[0].time && exit.expires_us == exits[0].expires_us);
    must(same_time, "the exits of a group must have the same time in force")?;
    let targets = exits.iter().filter(|exit| exit.terms.order_type() == OrderType::Limit).count();
    must(exits.len() == 1 || targets == 1, "two exits must be a LIMIT order and a stop")
}

impl<S: Sink> Stepper<'_, S> {
    /// Places the orders of a group, all of them or none.
    pub fn new_group(&mut self, new: &NewGroup) -> Checked {
        let owner = self.caller()?;
        check_shape(new)?;
        let market = self.market_of(&new.legs[0].symbol)?;
        if self.state.groups.contains_key(&new.group) {
            return Err(Refusal::OrderExists(new.group));
        }
        let reference = self.state.markets[market as usize].reference_e4();
        let first = self.checked_order(owner, market, &new.legs[0], reference)?;
        let user = &self.state.users[first.0.owner as usize - 1];
        let (max, legs) = (self.state.rules.open_orders_max, new.legs.len() as u32);
        if !user.agent && user.open_orders.saturating_add(legs) > max {
            return Err(Refusal::TooManyOpenOrders { max });
        }
        // A leg's prices are judged by its entry's: by then that is what the market will have traded at.
        let judged_by = if new.kind.has_entry() { Some(first.0.cap_e4) } else { reference };
        let mut orders = vec![first];
        for leg in &new.legs[1..] {
            let checked = self.checked_order(owner, market, leg, judged_by);
            orders.push(if new.kind.has_entry() { checked.map_err(by_entry)? } else { checked? });
        }
        if let Some(violation) = orders[1..].iter().find_map(|(exit, _)| meets(&orders[0].0, exit)) {
            return Err(Refusal::Violation(new.legs[0].symbol.to_string(), violation));
        }
        self.known.object = new.legs[0].order;
        self.subject = new.legs[0].order;
        for ((order, _), at) in orders.iter_mut().zip(0..) {
            order.group = new.group;
            let is_entry = at == 0 && new.kind.has_entry();
            order.leg = if is_entry { Leg::Entry } else { Leg::Exit };
            if at > 0 {
                // The client's id names the group by its first order.
                order.client_id = Box::default();
            }
        }
        let (first, needed) = orders[0].clone();
        if let Some(why) = self.lacks(&first, needed) {
            self.reject(market, first, End::Refused(Box::new(why)));
            return Ok(());
        }
        self.check_settles(&first, needed)?;
        let group = Group {
            id: new.group,
            kind: new.kind,
            owner: first.owner,
            market,
            entry: if new.kind.has_entry() { first.id } else { Uuid::nil() },
            exits: orders.iter().filter(|(o, _)| o.leg == Leg::Exit).map(|(o, _)| o.id).collect(),
            pending_e4: 0,
        };
        self.state.groups.insert(group.id, group);
        self.enter_group(market, orders.into_iter().map(|(order, _)| order).collect());
        Ok(())
    }

    /// The exits of an entry go to sleep before it comes in; of exits alone the stop comes first, which cannot trade.
    fn enter_group(&mut self, market: u32, mut orders: Vec<Order>) {
        orders.sort_by_key(|order| (order.leg == Leg::Entry, order.terms.order_type() == OrderType::Limit));
        let has_entry = orders.iter().any(|order| order.leg == Leg::Entry);
        for mut order in orders {
            order.number = self.state.order_no + 1;
            self.state.order_no = order.number;
            let (number, sleeps) = (order.number, has_entry && order.leg == Leg::Exit);
            if sleeps {
                (order.asleep, order.state) = (true, OrderState::Held);
                self.state.markets[market as usize].orders.insert(number, order);
                self.index_order(market, number);
                self.tell(market, number, OrderKind::Accepted, 0);
                continue;
            }
            let command = self.state.markets[market as usize]
                .book_order(&order)
                .expect("invariant: the order was checked in the terms of the book");
            self.state.markets[market as usize].orders.insert(number, order);
            self.run_book(market, &BookCommand::New(command));
        }
    }

    /// Ends every open order of a group.
    pub fn cancel_group(&mut self, id: Uuid) -> Checked {
        let caller = self.caller()?;
        let group = self.state.groups.get(&id).filter(|g| Some(g.owner) == caller);
        let group = group.ok_or(Refusal::GroupNotOpen(id))?.clone();
        self.known.object = id;
        for order in std::iter::once(group.entry).chain(group.exits) {
            if let Some((market, number)) = self.state.open.get(&order).copied() {
                self.cancel_open(market, number);
            }
        }
        Ok(())
    }

    /// Notes what happened to an order; nothing for one that is in no group.
    pub fn happened(&mut self, order: &Order, what: Happened) {
        if order.leg == Leg::None {
            return;
        }
        // An entry outlives a group whose exits have ended, and its id may be another one's then.
        let group = self.state.groups.get(&order.group);
        if group.is_some_and(|g| g.entry == order.id || g.exits.contains(&order.id)) {
            let effect = Effect { group: order.group, order: order.id, leg: order.leg, what };
            self.effects.push_back(effect);
        }
    }

    /// Does what follows from the matches so far, before any stop that they elected enters.
    pub fn settle_groups(&mut self) {
        while let Some(effect) = self.effects.pop_front() {
            self.settle_group(effect);
            // Without exits nothing depends on anything any more.
            if self.state.groups.get(&effect.group).is_some_and(|group| group.exits.is_empty()) {
                self.state.groups.remove(&effect.group);
            }
        }
    }

    fn settle_group(&mut self, effect: Effect) {
        let Effect { group: id, order, leg, what } = effect;
        let is_open = self.state.open.contains_key(&order);
        let Some(group) = self.state.groups.get_mut(&id) else { return };
        let (is_entry, is_exit) = (group.entry == order, group.exits.contains(&order));
        if !is_open {
            group.exits.retain(|exit| *exit != order);
        }
        if is_entry && !is_open {
            group.entry = Uuid::nil();
        }
        let (entry, others) = (group.entry, group.exits.iter().copied().filter(|exit| *exit != order));
        let others: Vec<Uuid> = others.collect();
        match what {
            Happened::Filled(quantity_e4) if leg == Leg::Entry => {
                group.pending_e4 += quantity_e4;
                // What it bought in one match is given at once: exits that trade may be over by it.
                let more = |e: &Effect| e.order == order && matches!(e.what, Happened::Filled(_));
                if !self.effects.iter().any(more) {
                    self.give(id);
                }
            }
            Happened::Filled(quantity_e4) => {
                for other in others {
                    self.shrink(other, quantity_e4);
                }
                // All that was bought is sold again: nothing more is bought.
                let is_out = self.state.groups.get(&id).is_some_and(|group| group.exits.is_empty());
                if is_out && !entry.is_nil() {
                    self.end_leg(id, entry);
                }
            }
            // What it bought keeps its exits; without that there is nothing to leave.
            Happened::Ended if is_entry => {
                let asleep = |exit: &Uuid| self.state.order(*exit).is_some_and(|o| o.asleep);
                let nothing = self.state.groups.get(&id).is_some_and(|group| group.pending_e4 == 0);
                if nothing && others.iter().all(asleep) {
                    self.end_legs(id, others);
                }
            }
            Happened::Ended | Happened::Triggered if is_exit => self.end_legs(id, others),
            _ => {}
        }
    }

    fn end_legs(&mut self, id: Uuid, orders: Vec<Uuid>) {
        for order in orders {
            self.end_leg(id, order);
        }
    }

    /// An order ends with its group.
    fn end_leg(&mut self, id: Uuid, order: Uuid) {
        if let Some(group) = self.state.groups.get_mut(&id) {
            group.exits.retain(|exit| *exit != order);
            if group.entry == order {
                group.entry = Uuid::nil();
            }
        }
        let Some((market, number)) = self.state.open.get(&order).copied() else { return };
        let by = self.end.take();
        self.end = by.clone().or(Some(End::Group));
        self.cancel_leg(market, number);
        self.end = by;
    }

    /// An exit's stop enters the book: the round trip ends, so nothing more is bought, and what rests of the entry is not
    /// in the way.
    pub fn end_entry_of(&mut self, market: u32, number: u64) {
        let order = &self.state.markets[market as usize].orders[&number];
        let (id, leg) = (order.group, order.leg);
        if leg != Leg::Exit {
            return;
        }
        if let Some(entry) = self.state.groups.get(&id).map(|group| group.entry).filter(|e| !e.is_nil()) {
            self.end_leg(id, entry);
        }
    }

    /// An open order with another cap: its entry and its targets still do not meet each other.
    pub fn check_apart(&self, order: &Order, cap_e4: i64) -> Result<(), Violation> {
        let Some(group) = self.state.groups.get(&order.group) else { return Ok(()) };
        let changed = Order { cap_e4, ..order.clone() };
        let found = match order.leg {
            Leg::None => None,
            Leg::Entry => {
                let mut exits = group.exits.iter().filter_map(|exit| self.state.order(*exit));
                exits.find_map(|exit| meets(&changed, exit))
            }
            Leg::Exit => self.state.order(group.entry).and_then(|entry| meets(entry, &changed)),
        };
        found.map_or(Ok(()), Err)
    }

    /// Cancels an order wherever it is, without what follows from it.
    pub fn cancel_leg(&mut self, market: u32, number: u64) {
        let order = &self.state.markets[market as usize].orders[&number];
        if order.asleep {
            let open = self.state.markets[market as usize].lots(order.quantity_e4);
            self.canceled += 1;
            let reason = BookReason::Requested;
            return self.ended(market, number, OrderKind::Canceled, OrderState::Canceled, open, reason);
        }
        let slot = order.slot;
        self.apply_book(market, &BookCommand::Cancel { id: number, slot }, &mut None);
    }

    /// What another exit sold is no longer this one's.
    fn shrink(&mut self, exit: Uuid, by_e4: i64) {
        let Some((market, number)) = self.state.open.get(&exit).copied() else { return };
        let m = &self.state.markets[market as usize];
        let order = &m.orders[&number];
        if order.asleep {
            return;
        }
        if order.open_e4() <= by_e4 {
            return self.end_leg(order.group, exit);
        }
        let (slot, qty) = (order.slot, m.lots(by_e4));
        self.apply_book(market, &BookCommand::Reduce { id: number, slot, qty }, &mut None);
    }

    /// The exits sell what the entry bought; where the market takes no orders they hold it until it does.
    pub fn give(&mut self, id: Uuid) {
        let Some(group) = self.state.groups.get_mut(&id) else { return };
        let market = group.market;
        let book = &self.state.markets[market as usize].book;
        if group.pending_e4 == 0 || group.exits.is_empty() {
            group.pending_e4 = 0;
            return;
        }
        if book.is_halted() || book.phase() == Phase::Closed {
            let first = group.exits.iter().find_map(|exit| self.state.open.get(exit).copied());
            if let Some((market, number)) = first {
                self.tell(market, number, OrderKind::Resized, 0);
            }
            return;
        }
        let quantity_e4 = std::mem::take(&mut group.pending_e4);
        let mut exits = group.exits.clone();
        // A stop first: it cannot trade, so that what a target sells at once is taken from both.
        exits.sort_by_key(|exit| {
            self.state.order(*exit).is_some_and(|o| o.terms.order_type() == OrderType::Limit)
        });
        for exit in exits {
            if let Some((market, number)) = self.state.open.get(&exit).copied() {
                self.grow(market, number, quantity_e4);
            }
        }
    }

    fn grow(&mut self, market: u32, number: u64, by_e4: i64) {
        let m = &self.state.markets[market as usize];
        let order = &m.orders[&number];
        if order.asleep {
            return self.wake(market, number, by_e4);
        }
        let (slot, total_e4) = (order.slot, order.quantity_e4 + by_e4);
        let command = BookReplace::new(number, slot, m.lots(total_e4), 0);
        self.resizing = Some(total_e4);
        self.apply_book(market, &BookCommand::Replace(command), &mut None);
        self.resizing = None;
    }

    /// A sleeping exit comes into the book. A stop that the last trade has passed is triggered, never refused.
    fn wake(&mut self, market: u32, number: u64, quantity_e4: i64) {
        let (now, new_number) = (self.state.time_us, self.state.order_no + 1);
        self.state.order_no = new_number;
        let m = &mut self.state.markets[market as usize];
        let last_e4 = m.book.last_price().map(|ticks| m.price_e4(ticks));
        let mut order = m.orders.remove(&number).expect("invariant: an exit that wakes is open");
        self.state.by_owner.remove(&(order.owner, number, market));
        self.state.by_owner.insert((order.owner, new_number, market));
        self.state.open.insert(order.id, (market, new_number));
        (order.number, order.asleep, order.quantity_e4, order.updated_us) =
            (new_number, false, quantity_e4, now);
        if let (Terms::TrailingStop { trail }, Some(last_e4)) = (order.terms, last_e4) {
            order.stop_e4 = trailing_start(order.side, trail, last_e4, m.tick_e4).unwrap_or(order.stop_e4);
            order.cap_e4 = collar(order.side, order.stop_e4, m.tick_e4).unwrap_or(order.cap_e4);
        }
        let passed_by = last_e4.filter(|last_e4| order.stop_e4 != 0 && order.stop_e4 >= *last_e4);
        if let Some(last_e4) = passed_by {
            if order.terms.price_e4() == 0 {
                order.cap_e4 = collar(order.side, last_e4, m.tick_e4).unwrap_or(m.tick_e4);
            }
            // It stands in the book from now on: before it trades its other exit is gone.
            let (group, id) = (order.group, order.id);
            let others: Vec<Uuid> = self.state.groups.get(&group).map_or_else(Vec::new, |g| g.exits.clone());
            self.state.markets[market as usize].orders.insert(new_number, order);
            others.into_iter().filter(|other| *other != id).for_each(|other| self.end_leg(group, other));
            self.end_entry_of(market, new_number);
            let m = &self.state.markets[market as usize];
            let order = &m.orders[&new_number];
            let command = m.book_order(order).map(|mut command| {
                command.price = m.ticks(order.cap_e4).unwrap_or(1);
                (command.kind, command.stop, command.trail) = (Kind::Limit, 0, 0);
                command
            });
            let command = command.expect("invariant: the exit was checked in the terms of the book");
            self.apply_book(market, &BookCommand::New(command), &mut None);
            return;
        }
        let command = m.book_order(&order).expect("invariant: the exit was checked in the terms of the book");
        m.orders.insert(new_number, order);
        self.apply_book(market, &BookCommand::New(command), &mut None);
    }

    /// What an exit may sell, less what others of its group sold in this match and it has not lost yet.
    fn left_of(&self, order: &Order) -> i64 {
        let of_others = self
            .effects
            .iter()
            .filter(|e| e.group == order.group && e.leg == Leg::Exit && e.order != order.id);
        let sold = of_others.map(|e| match e.what {
            Happened::Filled(quantity_e4) => quantity_e4,
            // It ends with that trigger.
            Happened::Triggered => sells(order),
            Happened::Ended => 0,
        });
        (sells(order) - sold.sum::<i64>()).max(0)
    }

    /// What an exit must hold: what the group's exits may sell at most, less what the others hold of it.
    pub fn exit_hold(&self, order: &Order) -> i64 {
        let Some(group) = self.state.groups.get(&order.group) else { return sells(order) };
        let others = || {
            let others = group.exits.iter().filter(|exit| **exit != order.id);
            others.filter_map(|exit| self.state.order(*exit))
        };
        let most = others().map(|other| self.left_of(other)).fold(self.left_of(order), i64::max);
        let most = most + group.pending_e4;
        (most - others().map(|other| other.hold.held).sum::<i64>()).max(0)
    }

    /// An exit sold some of what the group's exits hold, or stands in the book alone now: it carries what is left of the
    /// hold. Answers what the others held, which is told of them next.
    pub fn carry_hold(&mut self, order: &Order) -> i64 {
        let Some(group) = self.state.groups.get(&order.group) else { return 0 };
        let mut carried = 0;
        for exit in &group.exits {
            if *exit == order.id {
                continue;
            }
            if let Some((market, number)) = self.state.open.get(exit).copied()
                && let Some(other) = self.state.markets[market as usize].orders.get_mut(&number)
            {
                carried += std::mem::take(&mut other.hold.held);
            }
        }
        carried
    }

    /// What the exits of a group hold after one of them, which is as it is after it, sold some: it carries it, or where
    /// nothing is left of it the one that is left. Answers also what the others held.
    pub fn exit_held(&mut self, order: &Order, sold_e4: i64) -> (i64, i64) {
        let carried = self.carry_hold(order);
        let Some(group) = self.state.groups.get(&order.group) else { return (sells(order), carried) };
        let pending_e4 = group.pending_e4;
        let others = group.exits.iter().filter(|exit| **exit != order.id);
        let others: Vec<(Uuid, i64)> = others
            .filter_map(|exit| self.state.order(*exit))
            .map(|other| (other.id, (self.left_of(other) - sold_e4).max(0)))
            .collect();
        let most = others.iter().map(|other| other.1).fold(sells(order), i64::max) + pending_e4;
        let heir = others.iter().find(|other| other.1 > 0).map(|other| other.0);
        if sells(order) > 0 {
            return (most, carried);
        }
        let Some((market, number)) = heir.and_then(|heir| self.state.open.get(&heir).copied()) else {
            return (0, carried);
        };
        if let Some(heir) = self.state.markets[market as usize].orders.get_mut(&number) {
            heir.hold.held = most;
        }
        (most, carried)
    }

    /// After the market takes orders again: what entries bought in between is given to their exits.
    pub fn give_pending(&mut self, market: u32) {
        let pending = |g: &&Group| g.market == market && g.pending_e4 > 0;
        let groups: Vec<Uuid> = self.state.groups.values().filter(pending).map(|g| g.id).collect();
        for id in groups {
            self.give(id);
        }
    }
}

/// What an exit may sell now.
fn sells(order: &Order) -> i64 {
    if order.asleep { 0 } else { order.quantity_e4 - order.filled_e4 }
}

/// Whether what rests of an entry could trade with a target.
fn meets(entry: &Order, exit: &Order) -> Option<Violation> {
    let rests = entry.side == Side::Buy && entry.terms.order_type().rests(entry.time);
    let is_target = exit.terms.order_type() == OrderType::Limit;
    (rests && is_target && exit.cap_e4 <= entry.cap_e4)
        .then_some(Violation::TargetNotAboveEntry { price_e4: exit.cap_e4, entry_e4: entry.cap_e4 })
}

/// A refusal of what was judged by the entry's price says so.
pub(crate) fn by_entry(refusal: Refusal) -> Refusal {
    match refusal {
        Refusal::Violation(symbol, Violation::StopWrongSide { stop_e4, last_e4, .. }) => {
            Refusal::Violation(symbol, Violation::StopNotBelowEntry { stop_e4, entry_e4: last_e4 })
        }
        other => other,
    }
}
