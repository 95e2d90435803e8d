//! The rules once more, as plainly as they can be said: sorted maps, vectors, no care for speed. Written from the
//! rules, not from the book. Events carry slot 0.

use std::collections::{BTreeMap, VecDeque};

use fafnir_matching::*;

/// An open order: as it came, but for what a replace or its trail changed, and what became of it.
#[derive(Clone, Debug)]
struct Order {
    new: NewOrder,
    shown: Lots,
    hidden: Lots,
    filled: Lots,
    version: u32,
    /// Place of a held stop among stops of its price, of an order that waits for its auction among those, else 0.
    entered: u64,
}

impl std::ops::Deref for Order {
    type Target = NewOrder;
    fn deref(&self) -> &NewOrder {
        &self.new
    }
}

impl Order {
    fn open(&self) -> Lots {
        self.shown + self.hidden
    }

    fn show(&mut self) {
        let open = self.open();
        self.shown = if self.display == 0 { open } else { open.min(self.display) };
        self.hidden = open - self.shown;
    }

    fn reduce(&mut self, qty: Lots) {
        let hidden = self.hidden.min(qty);
        self.hidden -= hidden;
        self.shown -= qty - hidden;
    }
}

#[derive(PartialEq, Clone, Copy)]
enum End {
    Limit,
    SelfTrade,
    Paused,
}

#[derive(Default)]
pub struct Reference {
    sides: [BTreeMap<Ticks, VecDeque<Order>>; 2],
    held: Vec<Order>,
    /// Market orders that wait for the auction.
    waiting: Vec<Order>,
    /// Orders that wait for the closing call.
    later: Vec<Order>,
    /// Stops that were elected and have not entered, each with the print that did it.
    elected: VecDeque<(Order, Ticks)>,
    /// Whether they wait for [`Reference::enter_elected`].
    stepwise: bool,
    /// Prices of the present match.
    prints: Vec<Ticks>,
    last_id: OrderId,
    last: Ticks,
    now: Time,
    entered: u64,
    halted: bool,
    phase: Phase,
    band: Option<(Ticks, u32)>,
    out: Vec<What>,
}

/// Number, side, price, lots shown, open and filled, version, and what it waits for.
pub type Seen = (OrderId, Side, Ticks, [Lots; 3], u32, Option<(Kind, Ticks)>);

/// The book's order as the reference tells its own.
pub fn seen(o: &OpenOrder) -> Seen {
    let waits = o.held || o.kind == Kind::Market || o.for_close;
    (o.id, o.side, o.price, [o.shown, o.open, o.filled], o.version, waits.then_some((o.kind, o.stop)))
}

const SLOT: Slot = Slot(0);

fn canceled(order: &NewOrder, open: Lots, reason: Reason) -> What {
    let (id, price, side) = (order.id, order.price, order.side);
    What::Canceled { id, slot: SLOT, open, price, side, reason }
}

impl Reference {
    /// One whose elected stops wait for [`Reference::enter_elected`].
    pub fn stepwise() -> Self {
        Self { stepwise: true, ..Self::default() }
    }

    pub fn apply(&mut self, command: &Command) -> Vec<What> {
        match *command {
            Command::New(new) => self.enter(&new),
            Command::Cancel { id, .. } => match self.remove(id) {
                Some(order) => self.out.push(canceled(&order, order.open(), Reason::Requested)),
                None => self.out.push(What::CancelRejected { id, reason: Reason::UnknownOrder }),
            },
            Command::Replace(replace) => self.replace(&replace),
            Command::Reduce { id, qty, .. } => {
                let open = self.known().iter().find(|order| order.id == id).map(Order::open);
                let what = match open {
                    None => What::ReplaceRejected { id, reason: Reason::UnknownOrder },
                    Some(_) if qty == 0 => What::ReplaceRejected { id, reason: Reason::BadQuantity },
                    Some(open) if qty >= open => What::ReplaceRejected { id, reason: Reason::BelowFilled },
                    Some(open) => {
                        self.find_mut(id).reduce(qty);
                        What::Reduced { id, slot: SLOT, open: open - qty }
                    }
                };
                self.out.push(what);
            }
            Command::CancelAll { owner } => {
                let gone: Vec<_> =
                    self.all().into_iter().filter(|o| owner == 0 || o.owner == owner).collect();
                self.cancel_all(&gone, Reason::MassCancel);
                self.out.push(What::AllCanceled { count: gone.len() as u32 });
            }
            Command::Expire { now } => self.expire(now, false),
            Command::DayEnd { now } => self.expire(now, true),
            Command::Halt | Command::Resume => {
                let halt = *command == Command::Halt;
                self.out.push(match (halt, self.halted) {
                    (true, true) => What::Refused { reason: Reason::Halted },
                    (false, false) => What::Refused { reason: Reason::NotHalted },
                    (true, false) => What::Halted,
                    (false, true) => What::Resumed,
                });
                self.halted = halt;
                if self.out != [What::Refused { reason: Reason::NotHalted }] {
                    self.last_counts();
                }
                self.run_stops();
            }
            Command::SetPhase { phase } => self.set_phase(phase),
            Command::SetBand { reference, bps } => {
                let good = reference <= MAX_PRICE && bps <= MAX_BAND_BPS && (reference != 0 || bps == 0);
                if !good {
                    return vec![What::Refused { reason: Reason::BadBand }];
                }
                self.band = (reference != 0).then_some((reference, bps));
                let (low, high) = self.band_ends();
                self.out.push(What::BandSet { low, high });
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Every open order as [`seen`] tells of the book's, for a comparison of whole books.
    pub fn orders(&self) -> Vec<Seen> {
        let stop = |o: &Order| (o.entered > 0).then_some((o.kind, o.stop));
        self.all()
            .iter()
            .map(|o| (o.id, o.side, o.price, [o.shown, o.open(), o.filled], o.version, stop(o)))
            .collect()
    }

    fn band_ends(&self) -> (Ticks, Ticks) {
        self.band.filter(|(_, bps)| *bps != 0).map_or((1, MAX_PRICE), |(reference, bps)| {
            let width = u64::from(reference) * u64::from(bps) / 10_000;
            let low = u64::from(reference).saturating_sub(width).max(1);
            (low as u32, (u64::from(reference) + width).min(u64::from(MAX_PRICE)) as u32)
        })
    }

    /// Whether a price is more than so many widths away from what the band lies around.
    pub fn is_far_from_band(&self, price: Ticks, widths: u64) -> bool {
        self.band.filter(|(_, bps)| *bps != 0).is_some_and(|(reference, bps)| {
            let width = u64::from(reference) * u64::from(bps) / 10_000;
            u64::from(price).abs_diff(u64::from(reference)) > widths * width
        })
    }

    fn best(&self, side: Side) -> Option<Ticks> {
        match side {
            Side::Buy => self.sides[0].keys().next_back().copied(),
            Side::Sell => self.sides[1].keys().next().copied(),
        }
    }

    /// Would an order of this side at this price meet the other side?
    fn meets(&self, side: Side, price: Ticks) -> bool {
        match side {
            Side::Buy => self.best(Side::Sell).is_some_and(|ask| ask <= price),
            Side::Sell => self.best(Side::Buy).is_some_and(|bid| bid >= price),
        }
    }

    /// Open orders in canonical order.
    fn all(&self) -> Vec<Order> {
        let mut all: Vec<Order> = self.sides[0].values().rev().flatten().cloned().collect();
        all.extend(self.sides[1].values().flatten().cloned());
        let mut held = self.held.clone();
        held.sort_by_key(trigger_rank);
        all.extend(held);
        all.extend(self.waiting(Side::Buy));
        all.extend(self.waiting(Side::Sell));
        all.extend(self.later.clone());
        all
    }

    /// The same and those that were elected.
    fn known(&self) -> Vec<Order> {
        let mut all = self.all();
        all.extend(self.elected.iter().map(|(order, _)| order.clone()));
        all
    }

    fn waiting(&self, side: Side) -> Vec<Order> {
        self.waiting.iter().filter(|order| order.side == side).cloned().collect()
    }

    fn find_mut(&mut self, id: OrderId) -> &mut Order {
        let resting = self.sides.iter_mut().flat_map(|side| side.values_mut()).flatten();
        let elected = self.elected.iter_mut().map(|(order, _)| order);
        let apart = self.held.iter_mut().chain(&mut self.waiting).chain(&mut self.later).chain(elected);
        resting.chain(apart).find(|order| order.id == id).unwrap()
    }

    fn remove(&mut self, id: OrderId) -> Option<Order> {
        if let Some(at) = self.elected.iter().position(|(order, _)| order.id == id) {
            return self.elected.remove(at).map(|(order, _)| order);
        }
        for list in [&mut self.held, &mut self.waiting, &mut self.later] {
            if let Some(at) = list.iter().position(|order| order.id == id) {
                return Some(list.remove(at));
            }
        }
        for side in &mut self.sides {
            for level in side.values_mut() {
                if let Some(at) = level.iter().position(|order| order.id == id) {
                    let order = level.remove(at);
                    side.retain(|_, level| !level.is_empty());
                    return order;
                }
            }
        }
        None
    }

    fn cancel_all<'a>(&mut self, orders: impl IntoIterator<Item = &'a Order>, reason: Reason) {
        for order in orders {
            self.remove(order.id);
            self.out.push(canceled(order, order.open(), reason));
        }
    }

    fn rest(&mut self, mut order: Order) {
        order.show();
        self.sides[order.side as usize].entry(order.price).or_default().push_back(order);
    }

    fn first(&mut self, side: Side) -> Option<&mut Order> {
        let price = self.best(side)?;
        self.sides[side as usize].get_mut(&price)?.front_mut()
    }

    fn trading(&self) -> bool {
        self.phase == Phase::Continuous && !self.halted
    }

    fn refusal(&self, new: &NewOrder) -> Option<Reason> {
        let (stop, trailing) = (new.kind.is_stop(), new.kind.is_trailing());
        let one_auction = new.tif == Tif::Opg || new.tif == Tif::Cls;
        let immediate = new.kind == Kind::Market || new.tif == Tif::Ioc || new.tif == Tif::Fok || one_auction;
        let unpriced = new.price == 0 || new.price > MAX_PRICE;
        let trail_max = if new.kind == Kind::TrailingAmount { MAX_PRICE } else { MAX_TRAIL_BPS };
        let first_stop = if trailing && new.stop == 0 { trail(new, self.last) } else { new.stop };
        first_broken([
            (new.id <= self.last_id || new.id == u64::MAX, Reason::BadOrderId),
            (new.qty == 0 || new.qty > MAX_QTY, Reason::BadQuantity),
            (stop && immediate, Reason::BadTimeInForce),
            (new.post_only && (immediate || stop), Reason::BadCombination),
            (bad_display(new.display, new.qty, new.qty), Reason::BadDisplay),
            (new.display > 0 && (immediate || (stop && new.kind != Kind::StopLimit)), Reason::BadCombination),
            (new.kind == Kind::Market && unpriced, Reason::NoReferencePrice),
            (unpriced && !(trailing && new.price == 0), Reason::BadPrice),
            (stop && (new.stop > MAX_PRICE || (new.stop == 0 && !trailing)), Reason::BadStopPrice),
            (trailing && !(1..=trail_max).contains(&new.trail), Reason::BadTrail),
            (self.halted, Reason::Halted),
            (self.phase == Phase::Closed, Reason::WrongPhase),
            (self.phase != Phase::PreOpen && new.tif == Tif::Opg, Reason::WrongPhase),
            (self.phase != Phase::Continuous && new.tif == Tif::Fok, Reason::WrongPhase),
            (
                self.phase != Phase::Continuous && new.tif == Tif::Ioc && new.kind != Kind::Market,
                Reason::WrongPhase,
            ),
            (new.tif == Tif::Gtd && new.expire <= self.now, Reason::BadExpireTime),
            (new.post_only && self.meets(new.side, new.price), Reason::WouldTrade),
            (trailing && new.stop == 0 && self.last == 0, Reason::NoReferencePrice),
            (stop && self.passed(new.side, first_stop), Reason::StopWrongSide),
        ])
    }

    /// The last trade has passed this stop price already.
    fn passed(&self, side: Side, stop: Ticks) -> bool {
        self.last != 0 && if side == Side::Buy { stop <= self.last } else { stop >= self.last }
    }

    /// Where nothing printed just now, the last trade is what stops look at.
    fn last_counts(&mut self) {
        self.prints = if self.last == 0 { Vec::new() } else { vec![self.last] };
    }

    fn enter(&mut self, new: &NewOrder) {
        let id = new.id;
        if let Some(reason) = self.refusal(new) {
            return self.out.push(What::Rejected { id, reason });
        }
        self.last_id = id;
        let mut order = Order { new: *new, shown: new.qty, hidden: 0, filled: 0, version: 0, entered: 0 };
        let held = new.kind.is_stop();
        let (open, price, side) = (new.qty, new.price, new.side);
        self.out.push(What::Accepted { id, slot: SLOT, open, price, side, held });
        if held {
            self.entered += 1;
            order.entered = self.entered;
            if new.stop == 0 {
                order.new.stop = trail(new, self.last);
            }
            return self.held.push(order);
        }
        order.new.stop = 0;
        if new.tif == Tif::Cls && self.phase != Phase::Closing {
            return self.wait_for_close(order);
        }
        let rests = new.kind == Kind::Limit && !matches!(new.tif, Tif::Ioc | Tif::Fok);
        if !self.trading() {
            return self.gather(order);
        }
        if new.tif == Tif::Fok && !self.fills_whole(&order) {
            return self.out.push(canceled(&order, order.open(), Reason::CannotFillWhole));
        }
        self.aggress(order, rests, new.kind == Kind::Market);
        self.run_stops();
    }

    fn wait_for_close(&mut self, mut order: Order) {
        self.entered += 1;
        order.entered = self.entered;
        self.later.push(order);
    }

    fn fills_whole(&self, order: &Order) -> bool {
        let (low, high) = self.band_ends();
        let other: Vec<&Order> = match order.side {
            Side::Buy => self.sides[1].range(..=order.price).flat_map(|(_, level)| level).collect(),
            Side::Sell => self.sides[0].range(order.price..).rev().flat_map(|(_, level)| level).collect(),
        };
        let mut there = 0;
        for resting in other {
            let own = resting.owner == order.owner && order.owner != 0;
            let ends = own && order.self_trade != SelfTrade::CancelOldest;
            if ends || !(low..=high).contains(&resting.price) {
                return false;
            }
            there += if own { 0 } else { resting.open() };
            if there >= order.open() {
                return true;
            }
        }
        false
    }

    /// An order trades, then rests or is canceled.
    fn aggress(&mut self, mut order: Order, rests: bool, market: bool) {
        let end = self.trade(&mut order);
        let open = order.open();
        let reason = match end {
            End::SelfTrade => Reason::SelfTrade,
            _ if open == 0 => return,
            End::Paused if rests => return self.gather(order),
            _ if rests => return self.rest(order),
            End::Paused => Reason::VolatilityPause,
            End::Limit if !market => Reason::ImmediateRemainder,
            End::Limit if self.best(order.side.opposite()).is_none() => Reason::NoLiquidity,
            End::Limit => Reason::Collar,
        };
        self.out.push(canceled(&order, open, reason));
    }

    fn trade(&mut self, order: &mut Order) -> End {
        (order.shown, order.hidden) = (order.open(), 0);
        let other = order.side.opposite();
        let (low, high) = self.band_ends();
        while order.shown > 0 && self.meets(order.side, order.price) {
            let price = self.best(other).unwrap();
            if !(low..=high).contains(&price) {
                self.phase = Phase::Auction;
                self.out.push(What::Paused { price, low, high });
                return End::Paused;
            }
            let maker = self.first(other).unwrap();
            if maker.owner == order.owner && order.owner != 0 {
                let maker = maker.clone();
                if self.meets_own(order, &maker) {
                    return End::SelfTrade;
                }
                continue;
            }
            let qty = order.shown.min(maker.shown);
            order.shown -= qty;
            order.filled += qty;
            let maker = (maker.id, maker.open() - qty);
            self.print(maker, (order.id, order.shown), qty, price, order.side);
            self.fill_first(other, qty);
        }
        End::Limit
    }

    /// The order's mode decides. True where the order ends.
    fn meets_own(&mut self, order: &mut Order, own: &Order) -> bool {
        match order.self_trade {
            SelfTrade::CancelNewest => true,
            SelfTrade::CancelOldest | SelfTrade::CancelBoth => {
                self.cancel_all([own], Reason::SelfTrade);
                order.self_trade == SelfTrade::CancelBoth
            }
            SelfTrade::Decrement => {
                let qty = own.open().min(order.shown);
                order.shown -= qty;
                self.decremented(own.id, order.id, qty, own.open() - qty, order.shown);
                self.take_decrement(own.id, qty);
                order.shown == 0
            }
        }
    }

    /// In a call nothing trades, but an order meets its owner's on the other side as it comes in.
    fn gather(&mut self, mut order: Order) {
        (order.shown, order.hidden) = (order.open(), 0);
        let buys = order.side == Side::Buy;
        let mut others = self.waiting(order.side.opposite());
        others.extend(self.all().into_iter().filter(|o| o.entered == 0 && o.side != order.side));
        for other in others {
            let meets = if buys { other.price <= order.price } else { other.price >= order.price };
            if other.owner == order.owner && order.owner != 0 && meets && self.meets_own(&mut order, &other) {
                let open = order.open();
                return self.out.push(canceled(&order, open, Reason::SelfTrade));
            }
        }
        if order.kind == Kind::Market {
            self.entered += 1;
            order.entered = self.entered;
            return self.waiting.push(order);
        }
        self.rest(order);
    }

    fn decremented(&mut self, maker: OrderId, taker: OrderId, qty: Lots, maker_open: Lots, taker_open: Lots) {
        self.out.push(What::Decremented { maker, taker, qty, maker_open, taker_open, maker_slot: SLOT });
    }

    /// A resting order loses lots to self-trade prevention, and is canceled with the last of them.
    fn take_decrement(&mut self, id: OrderId, qty: Lots) {
        let order = self.find_mut(id);
        order.reduce(qty);
        if order.open() == 0 {
            let order = order.new;
            self.remove(id);
            self.out.push(canceled(&order, 0, Reason::SelfTrade));
        }
    }

    /// A trade of a maker and a taker, each with what stays open of it.
    fn print(&mut self, maker: (u64, Lots), taker: (u64, Lots), qty: Lots, price: u32, aggressor: Side) {
        self.last = price;
        self.prints.push(price);
        let ((maker, maker_open), (taker, taker_open), maker_slot) = (maker, taker, SLOT);
        let what = What::Trade { maker, taker, qty, maker_open, taker_open, price, maker_slot, aggressor };
        self.out.push(what);
    }

    /// The first order of a side is filled by this much of what it shows.
    fn fill_first(&mut self, side: Side, qty: Lots) {
        let order = self.first(side).unwrap();
        order.shown -= qty;
        order.filled += qty;
        let (id, empty, hidden) = (order.id, order.shown == 0, order.hidden);
        let gone = if empty { self.remove(id) } else { None };
        if let Some(mut order) = gone.filter(|_| hidden > 0) {
            order.show();
            self.out.push(What::Refilled { id, slot: SLOT, shown: order.shown, price: order.price });
            self.rest(order);
        }
    }

    /// Stops that any print of a match elects enter after it, one by one, each followed by those that it elects.
    fn run_stops(&mut self) {
        loop {
            let prints = std::mem::take(&mut self.prints);
            if !prints.is_empty() && !self.halted && self.phase != Phase::Closed {
                for side in [Side::Buy, Side::Sell] {
                    let elected = self.elect(side, &prints);
                    self.elected.extend(elected);
                }
            }
            if self.stepwise {
                return;
            }
            let Some((order, print)) = self.elected.pop_front() else { return };
            self.trigger(order, print);
        }
    }

    /// The elected stop that enters next.
    pub fn next_elected(&self) -> Option<OrderId> {
        self.elected.front().map(|(order, _)| order.id)
    }

    /// The next elected stop enters; what it gave, `None` where none waits.
    pub fn enter_elected(&mut self) -> Option<Vec<What>> {
        let (order, print) = self.elected.pop_front()?;
        self.trigger(order, print);
        self.run_stops();
        Some(std::mem::take(&mut self.out))
    }

    /// The stops of a side that the prints reach, and which of them. Trailing ones follow the most favourable print; what
    /// came first counts first.
    fn elect(&mut self, side: Side, prints: &[Ticks]) -> Vec<(Order, Ticks)> {
        let (low, high) = (*prints.iter().min().unwrap(), *prints.iter().max().unwrap());
        let buy = side == Side::Buy;
        let (favourable, adverse) = if buy { (low, high) } else { (high, low) };
        let moves_first = prints[0] == favourable;
        if moves_first {
            self.follow(side, favourable);
        }
        let reached = |o: &Order| o.side == side && if buy { adverse >= o.stop } else { adverse <= o.stop };
        let (mut now, rest): (Vec<_>, Vec<_>) = self.held.drain(..).partition(reached);
        self.held = rest;
        now.sort_by_key(trigger_rank);
        if !moves_first {
            self.follow(side, favourable);
        }
        now.into_iter().map(|order| (order, adverse)).collect()
    }

    fn follow(&mut self, side: Side, print: Ticks) {
        self.held.sort_by_key(|order| order.entered);
        for order in self.held.iter_mut().filter(|o| o.side == side && o.kind.is_trailing()) {
            let trailed = trail(&order.new, print);
            let stop = if side == Side::Buy { order.stop.min(trailed) } else { order.stop.max(trailed) };
            if stop != order.stop {
                order.new.stop = stop;
                self.out.push(What::StopMoved { id: order.id, slot: SLOT, stop });
            }
        }
    }

    /// An elected stop becomes a limit order: at its limit, a buy at its cap, a sell at 2.5 %, or ten ticks where that is
    /// more, below what elected it.
    fn trigger(&mut self, mut order: Order, print: Ticks) {
        let (id, open, stop) = (order.id, order.open(), order.stop);
        if order.kind != Kind::StopLimit {
            order.new.price = match order.side {
                Side::Buy if order.kind.is_trailing() => stop.saturating_add(order.price).min(MAX_PRICE),
                Side::Buy => order.price,
                Side::Sell => {
                    let distance = (u64::from(print) * 25 / 1_000).max(10);
                    u64::from(print).saturating_sub(distance).max(1) as u32
                }
            };
        }
        let price = order.price;
        self.out.push(What::Triggered { id, slot: SLOT, open, stop, last: print, price });
        (order.new.stop, order.entered) = (0, 0);
        self.come_in(order);
    }

    /// An order that may rest trades, or gathers in a call.
    fn come_in(&mut self, order: Order) {
        if self.trading() { self.aggress(order, true, false) } else { self.gather(order) }
    }

    fn replace(&mut self, replace: &Replace) {
        let id = replace.id;
        let (mut order, open, kept_place) = match self.replaced(replace) {
            Ok(found) => found,
            Err(reason) => return self.out.push(What::ReplaceRejected { id, reason }),
        };
        order.version += 1;
        if replace.new_id != 0 {
            self.last_id = replace.new_id;
            order.new.id = replace.new_id;
            (order.filled, order.version) = (0, 0);
        }
        let (old, id, slot, price, stop, version) =
            (id, order.id, SLOT, order.price, order.stop, order.version);
        self.out.push(What::Replaced { old, id, open, slot, price, stop, version, kept_place });
        if kept_place {
            order.reduce(order.open() - open);
            *self.find_mut(id) = order;
            return;
        }
        if self.elected.iter().any(|(order, _)| order.id == old) {
            self.entered += 1;
            (order.shown, order.hidden, order.entered) = (open, 0, self.entered);
            return *self.find_mut(old) = order;
        }
        let waits_for_close = self.later.iter().any(|order| order.id == old);
        self.remove(old);
        (order.shown, order.hidden) = (open, 0);
        if waits_for_close {
            self.wait_for_close(order);
        } else if order.entered > 0 && order.kind.is_stop() {
            self.entered += 1;
            order.entered = self.entered;
            self.held.push(order);
        } else {
            self.come_in(order);
        }
        self.run_stops();
    }

    /// The order as it would be, its open quantity, and whether it keeps its place.
    fn replaced(&self, replace: &Replace) -> Result<(Order, Lots, bool), Reason> {
        let found = self.known().into_iter().find(|order| order.id == replace.id);
        let old = found.ok_or(Reason::UnknownOrder)?;
        let renamed = replace.new_id != 0;
        let stop = old.entered > 0 && old.kind.is_stop();
        let trailing = stop && old.kind.is_trailing();
        let trails = replace.trail != 0;
        let trail_max = if old.kind == Kind::TrailingAmount { MAX_PRICE } else { MAX_TRAIL_BPS };
        let filled = if renamed { 0 } else { old.filled };
        let total = if replace.qty == 0 { old.open() + filled } else { replace.qty };
        let open = total.saturating_sub(filled);
        let mut new = old.clone();
        let or = |new: u64, old: u64| if new == 0 { old } else { new };
        new.new.price = or(replace.price.into(), old.price.into()) as Ticks;
        new.new.stop = or(replace.stop.into(), old.stop.into()) as Ticks;
        new.new.display = or(replace.display, old.display);
        if trails && trailing {
            new.new.trail = replace.trail;
            new.new.stop = if replace.stop == 0 { trail(&new.new, self.last) } else { replace.stop };
        }
        let same =
            (new.price, new.stop, new.trail, new.display) == (old.price, old.stop, old.trail, old.display);
        let moved = replace.stop != 0 || trails;
        let keeps = same && open <= old.open() && !renamed;
        let broken = first_broken([
            (self.halted, Reason::Halted),
            (self.phase == Phase::Closed, Reason::WrongPhase),
            (renamed && (replace.new_id <= self.last_id || replace.new_id == u64::MAX), Reason::BadOrderId),
            (replace.qty > MAX_QTY, Reason::BadQuantity),
            (replace.price > MAX_PRICE, Reason::BadPrice),
            (replace.stop > MAX_PRICE, Reason::BadStopPrice),
            (moved && !stop, Reason::NotReplaceable),
            (trails && !trailing, Reason::NotReplaceable),
            (trailing && !trails && (replace.stop != 0 || replace.price != 0), Reason::NotReplaceable),
            (trails && replace.trail > trail_max, Reason::BadTrail),
            (trails && replace.stop == 0 && self.last == 0, Reason::NoReferencePrice),
            (moved && self.passed(old.side, new.stop), Reason::StopWrongSide),
            (replace.display != 0 && old.display == 0, Reason::NotReplaceable),
            (open == 0, Reason::BelowFilled),
            (replace.display > total || bad_display(new.display, open, u64::MAX), Reason::BadDisplay),
            (!keeps && old.post_only && self.meets(old.side, new.price), Reason::WouldTrade),
        ]);
        broken.map_or(Ok((new, open, keeps)), Err)
    }

    fn expire(&mut self, now: Time, day_end: bool) {
        self.now = self.now.max(now);
        let mut gone: Vec<_> =
            self.all().into_iter().filter(|o| o.tif == Tif::Gtd && o.expire <= now).collect();
        gone.sort_by_key(|order| (order.expire, order.id));
        let timed = gone.len();
        if day_end {
            let ends = |order: &Order| matches!(order.tif, Tif::Day | Tif::Opg | Tif::Cls);
            gone.extend(self.all().into_iter().filter(ends));
        }
        for (at, order) in gone.iter().enumerate() {
            self.remove(order.id);
            let reason = if at < timed { Reason::ExpireTime } else { Reason::DayEnd };
            let (id, open, price, side) = (order.id, order.open(), order.price, order.side);
            self.out.push(What::Expired { id, slot: SLOT, open, price, side, reason });
        }
        self.out.push(What::Expiry { now, count: gone.len() as u32, day_end });
    }

    fn set_phase(&mut self, phase: Phase) {
        let call = |phase: Phase| [Phase::PreOpen, Phase::Auction, Phase::Closing].contains(&phase);
        if phase == self.phase {
            return self.out.push(What::Refused { reason: Reason::SamePhase });
        }
        let reopens = call(self.phase) && !call(phase);
        if reopens && self.halted {
            return self.out.push(What::Refused { reason: Reason::Halted });
        }
        if reopens {
            if let Some((price, _, _)) = self.auction_price() {
                self.auction(price);
            }
            for order in self.waiting(Side::Buy).into_iter().chain(self.waiting(Side::Sell)) {
                let nobody = self.best(order.side.opposite()).is_none();
                let reason = if nobody { Reason::NoLiquidity } else { Reason::Collar };
                self.cancel_all([&order], reason);
            }
            self.end_those_of_the_auction();
        }
        self.phase = phase;
        self.out.push(What::PhaseChanged { phase });
        if phase == Phase::Closing {
            for mut order in std::mem::take(&mut self.later) {
                order.entered = 0;
                self.gather(order);
            }
        }
        self.last_counts();
        self.run_stops();
    }

    /// What rests for one auction only ends with it, by number.
    fn end_those_of_the_auction(&mut self) {
        let mut left: Vec<Order> =
            self.sides.iter().flat_map(|side| side.values()).flatten().cloned().collect();
        left.retain(|order| order.tif == Tif::Opg || order.tif == Tif::Cls);
        left.sort_by_key(|order| order.id);
        for order in left {
            self.remove(order.id);
            let (id, open, price, side) = (order.id, order.open(), order.price, order.side);
            let reason = Reason::AuctionEnd;
            self.out.push(What::Expired { id, slot: SLOT, open, price, side, reason });
        }
    }

    /// Price, volume and surplus (buyers' positive), by trying every limit in the book.
    pub fn auction_price(&self) -> Option<(Ticks, Lots, i128)> {
        let open = |orders: Vec<&Order>| orders.iter().map(|order| i128::from(order.open())).sum::<i128>();
        let of = |side: Side| {
            let resting = self.sides[side as usize].values().flatten();
            resting.chain(self.waiting.iter().filter(move |order| order.side == side))
        };
        let at = |price: Ticks| {
            let demand = open(of(Side::Buy).filter(|order| order.price >= price).collect());
            let supply = open(of(Side::Sell).filter(|order| order.price <= price).collect());
            (price, demand.min(supply), demand - supply)
        };
        let reference =
            if self.last != 0 { self.last } else { self.band.map_or(0, |(reference, _)| reference) };
        let limits = self.sides.iter().flat_map(|side| side.keys()).map(|&price| at(price));
        let mut found: Vec<_> = limits.filter(|found| found.1 > 0).collect();
        if found.is_empty() && reference != 0 {
            found = vec![at(reference)];
        }
        let most = found.iter().map(|found| found.1).max().filter(|most| *most > 0)?;
        found.retain(|found| found.1 == most);
        let least = found.iter().map(|found| found.2.abs()).min()?;
        found.retain(|found| found.2.abs() == least);
        // Bids left over push it up, asks left over push it down.
        let highest = found.iter().filter(|found| found.2 > 0).max().copied();
        let lowest = found.iter().filter(|found| found.2 < 0).min().copied();
        let even = found.iter().filter(|found| found.2 == 0).copied();
        even.chain(highest)
            .chain(lowest)
            .max_by_key(|&(price, ..)| (std::cmp::Reverse(price.abs_diff(reference)), price))
            .map(|(price, volume, surplus)| (price, volume as Lots, surplus))
    }

    /// Who of a side trades next in an auction at this price: by limit or cap, of equal ones market orders first.
    fn next_at(&self, side: Side, price: Ticks) -> Option<Order> {
        let meets =
            |order: &Order| if side == Side::Buy { order.price >= price } else { order.price <= price };
        let best = self.best(side).and_then(|best| self.sides[side as usize][&best].front().cloned());
        let all = self.waiting(side).into_iter().chain(best).filter(meets);
        let rank = |order: &Order| if side == Side::Buy { u32::MAX - order.price } else { order.price };
        all.min_by_key(rank)
    }

    fn auction(&mut self, price: Ticks) {
        let mut traded = 0;
        while let (Some(bid), Some(ask)) = (self.next_at(Side::Buy, price), self.next_at(Side::Sell, price)) {
            let qty = bid.shown.min(ask.shown);
            traded += qty;
            self.print((ask.id, ask.open() - qty), (bid.id, bid.open() - qty), qty, price, Side::Buy);
            for order in [bid, ask] {
                if order.entered == 0 {
                    self.fill_first(order.side, qty);
                    continue;
                }
                let waiting = self.find_mut(order.id);
                waiting.shown -= qty;
                waiting.filled += qty;
                if waiting.shown == 0 {
                    self.remove(order.id);
                }
            }
        }
        self.band = self.band.map(|(_, bps)| (price, bps));
        self.out.push(What::Uncrossed { price, qty: traded });
    }
}

/// The trailing stop price behind a last price.
fn trail(order: &NewOrder, last: Ticks) -> Ticks {
    let trail = u64::from(order.trail);
    let percent = (u64::from(last) * trail / 10_000).max(1);
    let distance = if order.kind == Kind::TrailingPercent { percent } else { trail };
    match order.side {
        Side::Buy => (u64::from(last) + distance).min(u64::from(MAX_PRICE)) as u32,
        Side::Sell => u64::from(last).saturating_sub(distance).max(1) as u32,
    }
}

fn first_broken<const N: usize>(rules: [(bool, Reason); N]) -> Option<Reason> {
    rules.into_iter().find(|&(broken, _)| broken).map(|(_, reason)| reason)
}

fn bad_display(display: Lots, open: Lots, most: Lots) -> bool {
    display > most || (display > 0 && open.div_ceil(display) > MAX_PARTS)
}

/// Trigger order: buys from the lowest stop on, then sells from the highest on, the older first.
fn trigger_rank(order: &Order) -> (Side, i64, u64) {
    let price = i64::from(order.stop);
    (order.side, if order.side == Side::Buy { price } else { -price }, order.entered)
}
