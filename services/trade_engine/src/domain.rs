//! The engine as a state machine: a record and its time in, facts out. No I/O, no clock, no randomness; the same
//! records give the same facts and the same canonical state everywhere.
//!
//! Prices and quantities at scale 10⁻⁴ outside, ticks and lots of the listing inside the book.

use super::{
    market::{Market, Open},
    record::{Instruction, Listing, NewOrder, Record, Replace},
};
use fafnir_matching::{
    Command, Event, Events, Kind, Lots, QueuePosition, Reason as BookReason, Replace as BookReplace, Side,
    Slot, Tif, What,
};
use fafnir_proto::{
    reason::Reason,
    v1::{ExecKind, TradingState},
};
use fafnir_rules::symbol::Symbol;
use std::collections::{BTreeSet, HashMap};
use uuid::Uuid;

/// One outcome of a record, numbered per symbol without a gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub seq: u64,
    pub kind: ExecKind,
    /// The order it is about; of a trade the taker. Nil where it is about the symbol.
    pub order: Uuid,
    /// Nil where nobody is known.
    pub user: Uuid,
    pub side: Option<Side>,
    pub price_e4: i64,
    pub quantity_e4: i64,
    pub open_e4: i64,
    pub reason: &'static str,
    pub version: u32,
    pub held: bool,
    pub stop_e4: i64,
    /// The other order of a trade or a decrement.
    pub maker: Option<Maker>,
    /// Number of a trade, else 0.
    pub trade_no: u64,
    pub state: Option<TradingState>,
    /// A trade of an auction: nobody was the aggressor.
    pub auction: bool,
}

/// The resting side of a trade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Maker {
    pub order: Uuid,
    pub user: Uuid,
    pub open_e4: i64,
}

/// The outcomes of one record in one symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fact {
    /// Numbers the facts of the engine without a gap.
    pub fact_no: u64,
    /// Index of the market.
    pub market: usize,
    pub cmd_seq: u64,
    pub time_us: i64,
    pub outcomes: Vec<Outcome>,
}

/// The whole engine. Its hash maps are for look-ups and never iterated, save where the result is sorted at once.
#[derive(Debug, Default)]
pub struct Engine {
    /// Sequence of the last record.
    pub(super) seq: u64,
    pub(super) time_us: i64,
    pub(super) cmd_seq: u64,
    pub(super) fact_no: u64,
    pub(super) order_no: u64,
    /// Time of the last day end; before the first that of the first record.
    pub(super) day_end_us: i64,
    /// Owner number - 1 → user.
    pub(super) users: Vec<Uuid>,
    pub(super) user_numbers: HashMap<Uuid, u32>,
    pub(super) markets: Vec<Market>,
    pub(super) market_numbers: HashMap<Symbol, usize>,
    /// Open order → market and number.
    pub(super) open: HashMap<Uuid, (usize, u64)>,
    /// Open GTD orders by time.
    pub(super) gtd: BTreeSet<(i64, u64)>,
    events: Events,
}

/// What the book's own word for a reason is on the wire.
fn code(reason: BookReason) -> &'static str {
    let reason = match reason {
        BookReason::Requested | BookReason::MassCancel => Reason::USER,
        BookReason::SelfTrade => Reason::SELF_TRADE,
        BookReason::ImmediateRemainder => Reason::IOC,
        BookReason::CannotFillWhole => Reason::FOK,
        BookReason::Collar => Reason::COLLAR,
        BookReason::NoLiquidity => Reason::NO_LIQUIDITY,
        BookReason::DayEnd => Reason::DAY_END,
        BookReason::ExpireTime => Reason::GTD,
        BookReason::VolatilityPause => Reason::VOLATILITY_PAUSE,
        BookReason::Halted => Reason::SYMBOL_HALTED,
        BookReason::NotHalted => Reason::NOT_HALTED,
        BookReason::BadOrderId => Reason::BAD_ORDER_ID,
        BookReason::BadQuantity => Reason::BAD_QUANTITY,
        BookReason::BadPrice => Reason::BAD_PRICE,
        BookReason::BadStopPrice => Reason::BAD_STOP_PRICE,
        BookReason::BadTrail => Reason::BAD_TRAIL,
        BookReason::BadDisplay => Reason::BAD_DISPLAY,
        BookReason::BadTimeInForce => Reason::BAD_TIME_IN_FORCE,
        BookReason::BadCombination => Reason::BAD_COMBINATION,
        BookReason::BadExpireTime => Reason::BAD_EXPIRE_TIME,
        BookReason::NoReferencePrice => Reason::NO_REFERENCE_PRICE,
        BookReason::WouldTrade => Reason::POST_ONLY_WOULD_CROSS,
        BookReason::BookFull => Reason::BOOK_FULL,
        BookReason::UnknownOrder => Reason::ORDER_NOT_OPEN,
        BookReason::BelowFilled => Reason::BELOW_FILLED,
        BookReason::NotReplaceable => Reason::NOT_REPLACEABLE,
        BookReason::WrongPhase => Reason::WRONG_PHASE,
        BookReason::SamePhase => Reason::SAME_PHASE,
        BookReason::BadBand => Reason::BAD_BAND,
    };
    reason.as_str()
}

/// Collects the outcomes of one record in one market.
struct Outcomes<'a> {
    list: Vec<Outcome>,
    users: &'a [Uuid],
}

impl Outcomes<'_> {
    fn user(&self, owner: u32) -> Uuid {
        (owner as usize).checked_sub(1).and_then(|i| self.users.get(i)).copied().unwrap_or_default()
    }

    fn push(&mut self, market: &mut Market, outcome: Outcome) {
        market.exec_seq += 1;
        self.list.push(Outcome { seq: market.exec_seq, ..outcome });
    }

    fn about(&self, kind: ExecKind, order: &Open) -> Outcome {
        let user = self.user(order.owner);
        Outcome { side: Some(order.side), version: order.version, ..bare(kind, order.order, user) }
    }
}

fn bare(kind: ExecKind, order: Uuid, user: Uuid) -> Outcome {
    Outcome {
        seq: 0,
        kind,
        order,
        user,
        side: None,
        price_e4: 0,
        quantity_e4: 0,
        open_e4: 0,
        reason: "",
        version: 0,
        held: false,
        stop_e4: 0,
        maker: None,
        trade_no: 0,
        state: None,
        auction: false,
    }
}

impl Engine {
    pub fn new() -> Self {
        Self::default()
    }

    /// Sequence of the last record applied.
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Time of the last record.
    pub fn time_us(&self) -> i64 {
        self.time_us
    }

    /// Number of the last command of order-service.
    pub fn cmd_seq(&self) -> u64 {
        self.cmd_seq
    }

    /// Number of the last fact.
    pub fn fact_no(&self) -> u64 {
        self.fact_no
    }

    /// Time of the last day end; before the first that of the first record, 0 before any.
    pub fn day_end_us(&self) -> i64 {
        self.day_end_us
    }

    /// The earliest GTD time of an open order.
    pub fn next_expiry_us(&self) -> Option<i64> {
        self.gtd.first().map(|(time, _)| *time)
    }

    pub fn markets(&self) -> &[Market] {
        &self.markets
    }

    /// The market of a symbol, if any record named it.
    pub fn market_of(&self, symbol: &Symbol) -> Option<&Market> {
        self.market_numbers.get(symbol).map(|number| &self.markets[*number])
    }

    /// Where an open order stands in the queue of its price; `None` where it does not rest.
    pub fn queue_position(&self, order: Uuid) -> Option<(&Market, QueuePosition)> {
        let (number, id) = *self.open.get(&order)?;
        let market = &self.markets[number];
        Some((market, market.book.queue_position(id, market.orders.get(&id)?.slot)?))
    }

    /// The users that orders name by number.
    pub fn users(&self) -> &[Uuid] {
        &self.users
    }

    /// What the engine knows of a listing: `None` before it is listed.
    pub fn listing(&self, symbol: &Symbol) -> Option<Listing> {
        let market = &self.markets[*self.market_numbers.get(symbol)?];
        (market.tick_e4 > 0).then(|| Listing {
            symbol: market.symbol.clone(),
            tick_e4: market.tick_e4,
            lot_e4: market.lot_e4,
            state: market.state,
            previous_close_e4: market.previous_close_e4,
            band_bps: market.band_bps,
        })
    }

    /// Open orders of all markets, held stops included.
    pub fn open_orders(&self) -> usize {
        self.open.len()
    }

    /// Ids of the open orders, in order.
    pub fn open_order_ids(&self) -> Vec<Uuid> {
        let mut ids: Vec<_> = self.open.keys().copied().collect();
        ids.sort_unstable();
        ids
    }

    /// Applies a record and appends its facts. `seq` is the one after the last.
    pub fn apply(&mut self, seq: u64, time_us: i64, record: &Record, facts: &mut Vec<Fact>) {
        debug_assert!(self.seq == 0 || seq == self.seq + 1, "invariant: record {seq} follows {}", self.seq);
        self.seq = seq;
        self.time_us = time_us;
        if self.day_end_us == 0 {
            self.day_end_us = time_us;
        }
        match record {
            Record::Command { cmd_seq, symbol, instruction } => {
                self.cmd_seq = *cmd_seq;
                self.instruct(symbol.as_ref(), instruction, facts);
            }
            Record::Listing(listing) => {
                let market = self.market(&listing.symbol);
                let m = &mut self.markets[market];
                if m.tick_e4 == 0 && listing.tick_e4 > 0 && listing.lot_e4 > 0 {
                    m.tick_e4 = listing.tick_e4;
                    m.lot_e4 = listing.lot_e4;
                }
                self.set_band(market, listing, facts);
                self.set_state(market, 0, listing.state, facts);
            }
            Record::DayEnd => {
                self.day_end_us = time_us;
                let now = u64::try_from(time_us).unwrap_or(0);
                for market in 0..self.markets.len() {
                    self.run(market, 0, &Command::DayEnd { now }, facts);
                    self.roll_band(market, facts);
                }
            }
            Record::Expire => {
                let now = u64::try_from(time_us).unwrap_or(0);
                for market in 0..self.markets.len() {
                    self.run(market, 0, &Command::Expire { now }, facts);
                }
            }
            Record::Reopen { symbol } => {
                if let Some(market) = self.market_numbers.get(symbol).copied() {
                    self.reopen(market, facts);
                }
            }
        }
    }

    fn instruct(&mut self, symbol: Option<&Symbol>, instruction: &Instruction, facts: &mut Vec<Fact>) {
        let cmd_seq = self.cmd_seq;
        let market = symbol.map(|s| self.market(s));
        match (instruction, market) {
            (Instruction::New(new), Some(market)) => self.new_order(market, new, facts),
            (Instruction::Cancel { order }, Some(market)) => match self.find(market, *order) {
                Some((id, slot)) => self.run(market, cmd_seq, &Command::Cancel { id, slot }, facts),
                None => {
                    self.refuse(market, ExecKind::CancelRejected, *order, 0, Reason::ORDER_NOT_OPEN, facts);
                }
            },
            (Instruction::Replace(replace), Some(market)) => self.replace(market, replace, facts),
            (Instruction::CancelAll { user }, market) => {
                // An owner that was never seen has no orders; 0 would mean everybody's.
                let Some(owner) = self.user_numbers.get(user).copied() else { return };
                let all = market.map_or(0..self.markets.len(), |m| m..m + 1);
                for market in all {
                    self.run(market, cmd_seq, &Command::CancelAll { owner }, facts);
                }
            }
            (Instruction::SetState { state }, Some(market)) => self.set_state(market, cmd_seq, *state, facts),
            // A command that must name a symbol and does not: the door refuses it.
            (_, None) => {}
        }
    }

    fn new_order(&mut self, market: usize, new: &NewOrder, facts: &mut Vec<Fact>) {
        // The order is open: a refusal would read as its end. order-service numbers its orders once.
        if self.open.contains_key(&new.order) {
            return;
        }
        let owner = self.owner(new.user);
        self.order_no += 1;
        let id = self.order_no;
        let m = &mut self.markets[market];
        let book_order = match m.book_order(new, id, owner) {
            Ok(order) => order,
            Err(reason) => return self.reject(market, new, reason, facts),
        };
        m.orders.insert(
            id,
            Open {
                order: new.order,
                owner,
                slot: Slot::NONE,
                side: new.side,
                kind: new.kind,
                tif: new.tif,
                filled: 0,
                version: 1,
                expires_us: new.expires_us,
            },
        );
        self.open.insert(new.order, (market, id));
        self.run(market, self.cmd_seq, &Command::New(book_order), facts);
    }

    fn reject(&mut self, market: usize, new: &NewOrder, reason: Reason, facts: &mut Vec<Fact>) {
        let outcome = Outcome {
            side: Some(new.side),
            quantity_e4: new.quantity_e4,
            reason: reason.as_str(),
            version: 1,
            ..bare(ExecKind::Rejected, new.order, new.user)
        };
        self.emit(market, self.cmd_seq, outcome, facts);
    }

    fn refuse(
        &mut self,
        market: usize,
        kind: ExecKind,
        order: Uuid,
        version: u32,
        reason: Reason,
        facts: &mut Vec<Fact>,
    ) {
        let outcome = Outcome { reason: reason.as_str(), version, ..bare(kind, order, Uuid::nil()) };
        self.emit(market, self.cmd_seq, outcome, facts);
    }

    fn replace(&mut self, market: usize, replace: &Replace, facts: &mut Vec<Fact>) {
        let kind = ExecKind::ReplaceRejected;
        let Some((id, slot)) = self.find(market, replace.order) else {
            return self.refuse(market, kind, replace.order, replace.version, Reason::ORDER_NOT_OPEN, facts);
        };
        let m = &self.markets[market];
        let order = m.orders[&id];
        let price = match order.kind {
            Kind::Stop => m.cap(order.side, replace.cap_e4),
            _ => m.ticks(replace.price_e4),
        };
        let command = (|| {
            Ok(BookReplace {
                stop: m.ticks(replace.stop_e4)?,
                ..BookReplace::new(id, slot, m.lots(replace.quantity_e4)?, price?)
            })
        })();
        match command {
            Ok(command) => {
                let before = facts.len();
                self.run(market, self.cmd_seq, &Command::Replace(command), facts);
                for outcome in facts[before..].iter_mut().flat_map(|f| &mut f.outcomes) {
                    if outcome.kind == kind {
                        outcome.version = replace.version;
                    }
                }
            }
            Err(reason) => self.refuse(market, kind, replace.order, replace.version, reason, facts),
        }
    }

    /// The market of a symbol; it begins unlisted where there is none.
    fn market(&mut self, symbol: &Symbol) -> usize {
        if let Some(number) = self.market_numbers.get(symbol) {
            return *number;
        }
        let number = self.markets.len();
        self.markets.push(Market::new(symbol.clone()));
        self.market_numbers.insert(symbol.clone(), number);
        number
    }

    fn owner(&mut self, user: Uuid) -> u32 {
        if let Some(number) = self.user_numbers.get(&user) {
            return *number;
        }
        self.users.push(user);
        let number = self.users.len() as u32;
        self.user_numbers.insert(user, number);
        number
    }

    fn find(&self, market: usize, order: Uuid) -> Option<(u64, Slot)> {
        let (found, id) = *self.open.get(&order)?;
        (found == market).then(|| (id, self.markets[market].orders[&id].slot))
    }

    pub(super) fn emit(&mut self, market: usize, cmd_seq: u64, outcome: Outcome, facts: &mut Vec<Fact>) {
        let mut outcomes = Outcomes { list: Vec::with_capacity(1), users: &self.users };
        outcomes.push(&mut self.markets[market], outcome);
        let outcomes = outcomes.list;
        self.fact(market, cmd_seq, outcomes, facts);
    }

    fn fact(&mut self, market: usize, cmd_seq: u64, outcomes: Vec<Outcome>, facts: &mut Vec<Fact>) {
        if outcomes.is_empty() {
            return;
        }
        debug_assert!(
            outcomes.windows(2).all(|two| two[0].seq + 1 == two[1].seq)
                && outcomes.last().is_none_or(|last| last.seq == self.markets[market].exec_seq),
            "invariant: the outcomes of a symbol are numbered without a gap"
        );
        debug_assert!(
            facts.last().is_none_or(|last| last.fact_no == self.fact_no),
            "invariant: facts are numbered without a gap, {} is the last",
            self.fact_no
        );
        self.fact_no += 1;
        facts.push(Fact { fact_no: self.fact_no, market, cmd_seq, time_us: self.time_us, outcomes });
    }

    /// Lets the book apply a command and turns its events into outcomes.
    pub(super) fn run(&mut self, market: usize, cmd_seq: u64, command: &Command, facts: &mut Vec<Fact>) {
        self.run_before(market, cmd_seq, command, &mut None, facts);
    }

    /// The same within a change to another state, which is told before a volatility pause that follows it.
    pub(super) fn run_before(
        &mut self,
        market: usize,
        cmd_seq: u64,
        command: &Command,
        untold: &mut Option<TradingState>,
        facts: &mut Vec<Fact>,
    ) {
        self.events.clear();
        let m = &mut self.markets[market];
        m.book.apply(command, &mut self.events);
        debug_assert!(
            is_uncrossed(m),
            "invariant: outside a call the best bid of {} is below its best ask, after {command:?}",
            m.symbol
        );
        let mut outcomes =
            Outcomes { list: Vec::with_capacity(self.events.as_slice().len()), users: &self.users };
        // Leaving a call: what trades before the phase changes is the auction.
        let mut auction = matches!(command, Command::SetPhase { .. });
        for event in &self.events {
            auction &= !matches!(event.what, What::PhaseChanged { .. });
            if let What::Paused { price, .. } = event.what {
                m.paused_us = self.time_us;
                if let Some(state) = untold.take() {
                    outcomes.push(m, state_changed(state));
                }
                let price_e4 = m.price_e4(price);
                outcomes
                    .push(m, Outcome { price_e4, reason: PAUSED, ..state_changed(TradingState::Auction) });
            } else {
                translate(m, &mut outcomes, &mut self.open, &mut self.gtd, event, auction);
            }
        }
        let outcomes = outcomes.list;
        self.fact(market, cmd_seq, outcomes, facts);
        self.band_by_first_trade(market, facts);
    }
}

/// Why a symbol changed its state by itself: its volatility pause has begun.
pub const PAUSED: &str = Reason::VOLATILITY_PAUSE.as_str();

pub(super) fn state_changed(state: TradingState) -> Outcome {
    Outcome { state: Some(state), ..bare(ExecKind::StateChanged, Uuid::nil(), Uuid::nil()) }
}

fn is_uncrossed(m: &Market) -> bool {
    let best = m.book.best_bid().zip(m.book.best_ask());
    m.book.phase().is_call() || best.is_none_or(|(bid, ask)| bid < ask)
}

/// True where the price of an order in the book is its own limit, and not the collar of a stop.
fn has_limit(kind: Kind) -> bool {
    matches!(kind, Kind::Limit | Kind::StopLimit)
}

/// Takes an order out that has ended.
fn close(
    m: &mut Market,
    open: &mut HashMap<Uuid, (usize, u64)>,
    gtd: &mut BTreeSet<(i64, u64)>,
    id: u64,
) -> Option<Open> {
    let order = m.orders.remove(&id)?;
    open.remove(&order.order);
    if order.tif == Tif::Gtd {
        gtd.remove(&(order.expires_us, id));
    }
    Some(order)
}

fn translate(
    m: &mut Market,
    out: &mut Outcomes<'_>,
    open_orders: &mut HashMap<Uuid, (usize, u64)>,
    gtd: &mut BTreeSet<(i64, u64)>,
    event: &Event,
    auction: bool,
) {
    match event.what {
        What::Accepted { .. } => accepted(m, out, gtd, event.what),
        What::Rejected { id, reason } => {
            let Some(order) = close(m, open_orders, gtd, id) else { return };
            let outcome = Outcome { reason: code(reason), ..out.about(ExecKind::Rejected, &order) };
            out.push(m, outcome);
        }
        What::Trade { .. } => traded(m, out, open_orders, gtd, event.what, auction),
        What::Canceled { id, open, reason, .. } => {
            let Some(order) = close(m, open_orders, gtd, id) else { return };
            let outcome = Outcome {
                quantity_e4: m.quantity_e4(open),
                reason: code(reason),
                ..out.about(ExecKind::Canceled, &order)
            };
            out.push(m, outcome);
        }
        What::Expired { id, open, reason, .. } => {
            let Some(order) = close(m, open_orders, gtd, id) else { return };
            let outcome = Outcome {
                quantity_e4: m.quantity_e4(open),
                reason: code(reason),
                ..out.about(ExecKind::Expired, &order)
            };
            out.push(m, outcome);
        }
        What::Replaced { .. } => replaced(m, out, event.what),
        What::CancelRejected { id, reason } | What::ReplaceRejected { id, reason } => {
            let kind = match event.what {
                What::CancelRejected { .. } => ExecKind::CancelRejected,
                _ => ExecKind::ReplaceRejected,
            };
            let Some(order) = m.orders.get(&id).copied() else { return };
            let open = m.book.order(id, order.slot).map_or(0, |o| o.open);
            let outcome =
                Outcome { open_e4: m.quantity_e4(open), reason: code(reason), ..out.about(kind, &order) };
            out.push(m, outcome);
        }
        What::Triggered { id, open, stop, .. } => {
            let Some(order) = m.orders.get(&id).copied() else { return };
            let outcome = Outcome {
                quantity_e4: m.quantity_e4(open),
                open_e4: m.quantity_e4(open),
                stop_e4: m.price_e4(stop),
                ..out.about(ExecKind::Triggered, &order)
            };
            out.push(m, outcome);
        }
        What::Decremented { .. } => decremented(m, out, event.what),
        // Refills show in the image; runs over the book are told by the outcomes of their orders, halts by STATE_CHANGED.
        _ => {}
    }
}

fn accepted(m: &mut Market, out: &mut Outcomes<'_>, gtd: &mut BTreeSet<(i64, u64)>, what: What) {
    let What::Accepted { id, slot, open, price, held, .. } = what else { return };
    let Some(order) = m.orders.get_mut(&id) else { return };
    order.slot = slot;
    if order.tif == Tif::Gtd {
        gtd.insert((order.expires_us, id));
    }
    let order = *order;
    let stop = if held { m.book.order(id, slot).map_or(0, |o| o.stop) } else { 0 };
    let outcome = Outcome {
        price_e4: if has_limit(order.kind) { m.price_e4(price) } else { 0 },
        quantity_e4: m.quantity_e4(open),
        open_e4: m.quantity_e4(open),
        held,
        stop_e4: m.price_e4(stop),
        ..out.about(ExecKind::Accepted, &order)
    };
    out.push(m, outcome);
}

fn traded(
    m: &mut Market,
    out: &mut Outcomes<'_>,
    open_orders: &mut HashMap<Uuid, (usize, u64)>,
    gtd: &mut BTreeSet<(i64, u64)>,
    what: What,
    auction: bool,
) {
    let What::Trade { maker, taker, qty, maker_open, taker_open, price, .. } = what else { return };
    let quantity_e4 = m.quantity_e4(qty);
    let mut take = |m: &mut Market, id: u64, left: Lots| {
        let order = m.orders.get_mut(&id)?;
        order.filled += qty;
        if left == 0 { close(m, open_orders, gtd, id) } else { Some(*order) }
    };
    let (Some(maker), Some(taker)) = (take(m, maker, maker_open), take(m, taker, taker_open)) else {
        return;
    };
    m.trade_no += 1;
    m.last_quantity_e4 = quantity_e4;
    let outcome = Outcome {
        price_e4: m.price_e4(price),
        quantity_e4,
        open_e4: m.quantity_e4(taker_open),
        maker: Some(Maker {
            order: maker.order,
            user: out.user(maker.owner),
            open_e4: m.quantity_e4(maker_open),
        }),
        trade_no: m.trade_no,
        auction,
        ..out.about(ExecKind::Trade, &taker)
    };
    out.push(m, outcome);
}

fn replaced(m: &mut Market, out: &mut Outcomes<'_>, what: What) {
    let What::Replaced { id, open, slot, price, stop, .. } = what else { return };
    let Some(order) = m.orders.get_mut(&id) else { return };
    order.slot = slot;
    order.version += 1;
    let order = *order;
    let outcome = Outcome {
        price_e4: if has_limit(order.kind) { m.price_e4(price) } else { 0 },
        quantity_e4: m.quantity_e4(open.saturating_add(order.filled)),
        open_e4: m.quantity_e4(open),
        held: stop != 0,
        stop_e4: m.price_e4(stop),
        ..out.about(ExecKind::Replaced, &order)
    };
    out.push(m, outcome);
}

/// Two orders of one owner met: both lose what would have traded.
fn decremented(m: &mut Market, out: &mut Outcomes<'_>, what: What) {
    let What::Decremented { maker, taker, qty, maker_open, taker_open, .. } = what else { return };
    let (Some(maker), Some(taker)) = (m.orders.get(&maker).copied(), m.orders.get(&taker).copied()) else {
        return;
    };
    let outcome = Outcome {
        quantity_e4: m.quantity_e4(qty),
        open_e4: m.quantity_e4(taker_open),
        maker: Some(Maker {
            order: maker.order,
            user: out.user(maker.owner),
            open_e4: m.quantity_e4(maker_open),
        }),
        reason: Reason::SELF_TRADE.as_str(),
        ..out.about(ExecKind::Decremented, &taker)
    };
    out.push(m, outcome);
}
