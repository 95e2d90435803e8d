//! Orders: taken, changed, ended; and what the book says of them.
#![expect(
    clippy::expect_used,
    reason = "what was checked before cannot fail: a step that breaks this must not go on"
)]

use crate::{
    account::Currency,
    command::{Flatten, NewOrder, Replace},
    fact::{Done, End, OrderFact, OrderKind, Sink, Touched, What},
    group::{Happened, Leg, by_entry},
    hold::{Charges, Hold},
    market::Market,
    order::Order,
    refusal::Refusal,
    step::{Checked, Stepper},
};
use fafnir_matching::{
    Book, Command as BookCommand, Event, Events, Reason as BookReason, Replace as BookReplace, Slot,
    What as Said,
};
use fafnir_rules::{
    calendar::Session,
    check::{self, Field, Terms, Violation},
    limits::QUANTITY_E4_MAX,
    order::{OrderState, OrderType, SelfTrade, Side, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use uuid::Uuid;

/// What a replace makes of an order, once the book has agreed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Replacement {
    pub terms: Terms,
    pub cap_e4: i64,
    pub quantity_e4: i64,
    pub stop_e4: i64,
}

/// The quantity of a new order, named or as what it is worth says.
fn asked_quantity(m: &Market, new: &NewOrder) -> Result<i64, Violation> {
    check::how_much(new.terms.order_type(), new.quantity_e4, new.notional)?;
    if new.notional == 0 {
        return Ok(new.quantity_e4);
    }
    check::quantity_of(new.side, new.terms, new.notional, &m.listing(), m.reference_e4())
}

impl<S: Sink> Stepper<'_, S> {
    /// The market of a symbol.
    pub fn market_of(&self, symbol: &Symbol) -> Checked<u32> {
        let found = self.state.market_numbers.get(symbol).copied();
        found.ok_or_else(|| Refusal::UnknownSymbol(symbol.to_string()))
    }

    fn at(&self, market: u32) -> &Market {
        &self.state.markets[market as usize]
    }

    /// The account of an order: the one asked for, if it is the user's and for investment; else the oldest INVESTMENT
    /// account in the listing's currency, else the oldest.
    fn trading_account(&self, owner: Option<u32>, asked: Option<Uuid>, currency: Currency) -> Checked<Uuid> {
        use crate::account::Kind::Investment;
        if let Some(id) = asked {
            let account = self.state.accounts.get(&id).filter(|a| Some(a.owner) == owner);
            let account = account.ok_or(Refusal::AccountUnknown(id))?;
            if account.kind != Investment {
                return Err(Refusal::AccountNotInvestment(account.number_text()));
            }
            return Ok(id);
        }
        let user = owner.and_then(|number| self.state.owner(number)).ok_or(Refusal::NoInvestmentAccount)?;
        let of_kind = || {
            user.accounts.iter().filter_map(|id| self.state.accounts.get(id)).filter(|a| a.kind == Investment)
        };
        let found = of_kind().find(|a| a.currency == currency).or_else(|| of_kind().next());
        found.map(|a| a.id).ok_or(Refusal::NoInvestmentAccount)
    }

    pub fn new_order(&mut self, new: &NewOrder) -> Checked {
        let owner = self.caller()?;
        let market = self.market_of(&new.symbol)?;
        let reference = self.at(market).reference_e4();
        let (order, needed) = self.checked_order(owner, market, new, reference)?;
        self.known.object = new.order;
        self.subject = new.order;
        if let Some(why) = self.lacks(&order, needed) {
            self.reject(market, order, End::Refused(Box::new(why)));
            return Ok(());
        }
        self.check_settles(&order, needed)?;
        let command = self.at(market).book_order(&order).map_err(|v| self.violation(market, v))?;
        self.state.order_no = order.number;
        self.state.markets[market as usize].orders.insert(order.number, order);
        self.run_book(market, &BookCommand::New(command));
        Ok(())
    }

    /// What the order's account lacks of what it needs more.
    pub fn lacks(&self, order: &Order, needed: i64) -> Option<Refusal> {
        let account = &self.state.accounts[&order.account];
        let available = match order.side {
            Side::Buy => account.cash.available(),
            Side::Sell => account.holdings.get(&order.market).map_or(0, |h| h.available()),
        };
        (needed > available).then(|| match order.side {
            Side::Buy => Refusal::InsufficientFunds { needed, available, currency: account.currency },
            Side::Sell => Refusal::InsufficientShares {
                needed_e4: needed,
                available_e4: available,
                symbol: self.at(order.market).symbol.to_string(),
            },
        })
    }

    fn violation(&self, market: u32, violation: Violation) -> Refusal {
        Refusal::Violation(self.at(market).symbol.to_string(), violation)
    }

    /// The order that a command asks for, and what must be held for it; everything but funds is checked.
    /// Its prices are judged by the reference.
    pub fn checked_order(
        &self,
        owner: Option<u32>,
        market: u32,
        new: &NewOrder,
        reference_e4: Option<i64>,
    ) -> Checked<(Order, i64)> {
        if self.state.open.contains_key(&new.order) {
            return Err(Refusal::OrderExists(new.order));
        }
        let m = self.at(market);
        let (now, refuse) = (self.state.time_us, |v| self.violation(market, v));
        let quantity_e4 = asked_quantity(m, new).map_err(refuse)?;
        check::display(quantity_e4, new.display_e4).map_err(refuse)?;
        check::time_in_force(new.terms.order_type(), new.time).map_err(refuse)?;
        if new.time == TimeInForce::Gtd {
            check::expiry(new.expires_us, now).map_err(refuse)?;
        }
        let asked = check::Order {
            side: new.side,
            terms: new.terms,
            time_in_force: new.time,
            quantity_e4,
            display_e4: new.display_e4,
        };
        let priced = check::order(&asked, &m.listing(), reference_e4).map_err(refuse)?;
        if new.time == TimeInForce::Cls && m.session == Session::Always {
            return Err(refuse(Violation::NoClosingAuction));
        }
        let id = self.trading_account(owner, new.account, m.currency)?;
        let account = &self.state.accounts[&id];
        let owner = account.owner;
        let (user, max) = (&self.state.users[owner as usize - 1], self.state.rules.open_orders_max);
        // What never rests is none of them: who has as many as there may be can still sell.
        let may_rest = m.state().is_call() || new.terms.order_type().rests(new.time);
        if may_rest && !user.agent && user.open_orders >= max {
            return Err(Refusal::TooManyOpenOrders { max });
        }
        let order = Order {
            id: new.order,
            owner,
            account: id,
            market,
            number: self.state.order_no + 1,
            slot: Slot::NONE,
            side: new.side,
            terms: new.terms,
            time: new.time,
            stp: new.stp,
            post_only: new.post_only,
            state: OrderState::New,
            quantity_e4,
            filled_e4: 0,
            display_e4: new.display_e4,
            stop_e4: priced.stop_e4,
            cap_e4: priced.cap_e4,
            expires_us: if new.time == TimeInForce::Gtd { new.expires_us } else { 0 },
            client_id: self.command.id.as_ref().map(|id| id.key.clone()).unwrap_or_default(),
            version: 1,
            created_us: now,
            updated_us: now,
            rate: self.state.rate_id(m.currency, account.currency)?,
            fees: self.state.fees.len() as u32,
            hold: Hold::default(),
            group: Uuid::nil(),
            leg: Leg::None,
            asleep: false,
            end: None,
        };
        m.book_order(&order).map_err(refuse)?;
        let needed = self.needed(&order).ok_or_else(|| refuse(Violation::OrderTooLarge))?;
        self.check_cost(&order, needed)?;
        Ok((order, needed))
    }

    /// What the position costs stays within 64 bits, whatever of the account's open orders fills.
    fn check_cost(&self, order: &Order, more: i64) -> Checked {
        if order.side == Side::Sell {
            return Ok(());
        }
        let account = &self.state.accounts[&order.account];
        let cost = account.holdings.get(&order.market).map_or(0, |h| h.cost);
        let worst = i128::from(cost) + i128::from(account.cash.held) + i128::from(more);
        if worst > i128::from(i64::MAX) { Err(Refusal::CostTooLarge) } else { Ok(()) }
    }

    /// Everything can be settled after an order holds so much more, whatever trades at whatever rate in use.
    pub fn check_settles(&self, order: &Order, more: i64) -> Checked {
        if order.side == Side::Sell {
            return Ok(());
        }
        let mut held = [0; 2];
        held[self.state.accounts[&order.account].currency as usize] = i128::from(more);
        let usd_cad = self.state.terms().usd_cad;
        if self.state.settles([0; 2], held, usd_cad) { Ok(()) } else { Err(Refusal::ExchangeFull) }
    }

    /// What an order pays besides the price.
    pub fn charges(&self, order: &Order) -> Charges {
        let (listing, account) = (self.at(order.market).currency, &self.state.accounts[&order.account]);
        Charges {
            side: order.side,
            fx: self.state.fx(order.rate, listing, account.currency),
            fees: (order.fees as usize)
                .checked_sub(1)
                .and_then(|i| self.state.fees.get(i))
                .copied()
                .unwrap_or_default(),
        }
    }

    /// What an order must hold as it is. `None` is beyond 64 bits.
    fn needed(&self, order: &Order) -> Option<i64> {
        if order.leg == Leg::Exit {
            return Some(self.exit_hold(order));
        }
        order.hold.needed(&self.charges(order), order.quantity_e4 - order.filled_e4, order.cap_e4)
    }

    pub fn reject(&mut self, market: u32, mut order: Order, end: End) {
        order.state = OrderState::Rejected;
        order.end = Some(end);
        order.number = 0;
        let order = self.order_after(order);
        let fact =
            OrderFact { kind: OrderKind::Rejected, order, other: None, touched: [None; 2], quantity_e4: 0 };
        self.emit(Some(market), What::Order(Box::new(fact)));
    }

    /// Where the caller's open order is.
    fn own_open(&self, order: Uuid) -> Checked<(u32, u64)> {
        let found = self.state.open.get(&order).copied();
        let (market, number) = found.ok_or(Refusal::OrderNotOpen(order))?;
        let owner = self.at(market).orders[&number].owner;
        let is_own =
            self.command.user.is_nil() || self.state.users[owner as usize - 1].id == self.command.user;
        if is_own { Ok((market, number)) } else { Err(Refusal::OrderNotOpen(order)) }
    }

    pub fn cancel(&mut self, order: Uuid) -> Checked {
        let (market, number) = self.own_open(order)?;
        self.subject = order;
        self.cancel_open(market, number);
        Ok(())
    }

    /// Cancels an order, and does what follows from it. One that has ended meanwhile stays as it is.
    pub fn cancel_open(&mut self, market: u32, number: u64) {
        if self.at(market).orders.contains_key(&number) {
            self.cancel_leg(market, number);
            self.settle(market, &mut None);
        }
    }

    pub fn cancel_all(&mut self, symbol: Option<&Symbol>) -> Checked {
        let caller = self.caller()?;
        let market = symbol.map(|s| self.market_of(s)).transpose()?;
        let Some(owner) = caller else { return Ok(()) };
        self.cancel_where(owner, |o| market.is_none_or(|m| m == o.market));
        Ok(())
    }

    /// Cancels a user's open orders that are meant, oldest first.
    pub fn cancel_where(&mut self, owner: u32, is_meant: impl Fn(&Order) -> bool) {
        let all = self.state.by_owner.range((owner, 0, 0)..=(owner, u64::MAX, u32::MAX));
        let meant: Vec<_> = all
            .filter(|(_, number, market)| is_meant(&self.at(*market).orders[number]))
            .map(|(_, number, market)| (*market, *number))
            .collect();
        for (market, number) in meant {
            self.cancel_open(market, number);
        }
    }

    pub fn flatten(&mut self, flatten: &Flatten) -> Checked<Done> {
        let owner = self.caller()?;
        let market = self.market_of(&flatten.symbol)?;
        let account = self.trading_account(owner, flatten.account, self.at(market).currency)?;
        if self.state.open.contains_key(&flatten.order) {
            return Err(Refusal::OrderExists(flatten.order));
        }
        self.known.object = flatten.order;
        let owner = self.state.accounts[&account].owner;
        self.cancel_where(owner, |o| o.account == account && o.market == market);
        // The rest of the order that sells is none of them.
        let canceled = self.canceled;
        let lot_e4 = self.at(market).lot_e4;
        let posted = |s: &Self| {
            let holding = s.state.accounts[&account].holdings.get(&market);
            holding.map_or((0, 0), |h| (h.posted, h.available()))
        };
        let (_, available) = posted(self);
        let quantity_e4 = available - available % lot_e4;
        let sold = if quantity_e4 > 0 { self.sell_out(flatten, account, quantity_e4) } else { Ok(()) };
        let left_e4 = posted(self).0;
        let why = match sold {
            Err(refusal) => Some(Box::new(refusal)),
            Ok(()) if left_e4 == 0 => None,
            Ok(()) => {
                let end = self.ended.as_ref().and_then(|o| o.end.clone());
                Some(Box::new(match end {
                    Some(End::Book(reason)) => Refusal::Book(reason),
                    Some(End::Refused(refusal)) => *refusal,
                    _ if quantity_e4 > QUANTITY_E4_MAX => {
                        self.violation(market, Violation::QuantityTooLarge { quantity_e4 })
                    }
                    None if self.state.open.contains_key(&flatten.order) => {
                        Refusal::WaitsForAuction(flatten.symbol.to_string())
                    }
                    _ => Refusal::NothingToSell(flatten.symbol.to_string()),
                }))
            }
        };
        Ok(Done { canceled, left_e4, why, ..self.done() })
    }

    /// Sells with a MARKET order, at most as much as an order may.
    fn sell_out(&mut self, flatten: &Flatten, account: Uuid, quantity_e4: i64) -> Checked {
        let new = NewOrder {
            order: flatten.order,
            account: Some(account),
            symbol: flatten.symbol.clone(),
            side: Side::Sell,
            terms: Terms::Market,
            time: TimeInForce::Ioc,
            quantity_e4: quantity_e4.min(QUANTITY_E4_MAX),
            notional: 0,
            display_e4: 0,
            post_only: false,
            stp: SelfTrade::CancelNewest,
            expires_us: 0,
        };
        self.new_order(&new)
    }

    pub fn replace(&mut self, replace: &Replace) -> Checked {
        self.caller()?;
        let (market, number) = self.own_open(replace.order)?;
        let order = self.at(market).orders[&number].clone();
        let (wanted, stop_e4) = self.replacement(&order, replace)?;
        let m = self.at(market);
        let refuse = |v| self.violation(market, v);
        let stop = m.ticks(stop_e4).map_err(refuse)?;
        let price = match wanted.terms {
            Terms::Stop { .. } | Terms::TrailingStop { .. } if stop_e4 != 0 => {
                m.book_price(order.side, wanted.terms, wanted.cap_e4, stop)
            }
            _ => m.ticks(replace.price_e4),
        };
        let command = BookReplace {
            stop,
            trail: replace.trail.map_or(Ok(0), |trail| m.trail(trail)).map_err(refuse)?,
            ..BookReplace::new(number, order.slot, m.lots(replace.quantity_e4), price.map_err(refuse)?)
        };
        let changed = Order { cap_e4: wanted.cap_e4, quantity_e4: wanted.quantity_e4, ..order.clone() };
        let needed = self.needed(&changed).ok_or_else(|| refuse(Violation::OrderTooLarge))?;
        let more = needed - order.hold.held;
        self.check_cost(&changed, more.max(0))?;
        if let Some(why) = self.lacks(&order, more) {
            return Err(why);
        }
        self.check_settles(&order, more.max(0))?;
        self.subject = order.id;
        self.known.object = order.id;
        self.replacing = Some(wanted);
        if order.asleep {
            self.replaced(market, number, order.slot);
            self.replacing = None;
            return Ok(());
        }
        let refused = self.run_book(market, &BookCommand::Replace(command));
        self.replacing = None;
        refused.map_or(Ok(()), |reason| Err(Refusal::Book(reason)))
    }

    /// Whether an order has what a replace would change.
    fn may_replace(&self, o: &Order, r: &Replace) -> Checked {
        let (order_type, name) = (o.terms.order_type(), o.terms.order_type().name());
        if r.version != 0 && r.version != o.version {
            return Err(Refusal::VersionDiffers { asked: r.version, is: o.version });
        }
        if r.quantity_e4 == 0 && r.price_e4 == 0 && r.stop_e4 == 0 && r.trail.is_none() {
            return Err(Refusal::NothingToReplace);
        }
        if r.price_e4 < 0 || (r.price_e4 != 0 && !order_type.has_price()) {
            return Err(Refusal::PriceNotAllowed { field: "price", order_type: name });
        }
        if r.stop_e4 < 0 || (r.stop_e4 != 0 && !order_type.has_stop()) {
            return Err(Refusal::PriceNotAllowed { field: "stop_price", order_type: name });
        }
        let same_kind = match (o.terms, r.trail) {
            (_, None) => true,
            (Terms::TrailingStop { trail: was }, Some(trail)) => {
                matches!(was, Trail::AmountE4(_)) == matches!(trail, Trail::AmountE4(_))
            }
            _ => false,
        };
        if !same_kind {
            return Err(Refusal::PriceNotAllowed { field: "trail", order_type: name });
        }
        if r.quantity_e4 != 0 && o.leg == Leg::Exit && self.state.groups.contains_key(&o.group) {
            return Err(Refusal::ExitQuantity);
        }
        if (r.stop_e4 != 0 || r.trail.is_some()) && o.state != OrderState::Held {
            return Err(Refusal::StopTriggered);
        }
        Ok(())
    }

    /// What a replace makes of an order, and the new stop price of the book's command; checked like a new order, but only
    /// what changes is checked against tick and band.
    fn replacement(&self, o: &Order, r: &Replace) -> Checked<(Replacement, i64)> {
        self.may_replace(o, r)?;
        let (m, order_type) = (self.at(o.market), o.terms.order_type());
        let refuse = |v| self.violation(o.market, v);
        check::open(m.state()).map_err(refuse)?;
        let quantity_e4 = if r.quantity_e4 == 0 { o.quantity_e4 } else { r.quantity_e4 };
        check::quantity(quantity_e4).map_err(refuse)?;
        check::lots(Field::Quantity, quantity_e4, m.lot_e4).map_err(refuse)?;
        if quantity_e4 <= o.filled_e4 {
            return Err(Refusal::BelowFilled { filled_e4: o.filled_e4 });
        }
        check::parts(quantity_e4 - o.filled_e4, o.display_e4).map_err(refuse)?;
        let price_e4 = if r.price_e4 == 0 { o.terms.price_e4() } else { r.price_e4 };
        let stop_e4 = if r.stop_e4 == 0 { o.terms.stop_e4() } else { r.stop_e4 };
        let terms = match o.terms {
            Terms::Limit { .. } => Terms::Limit { price_e4 },
            Terms::Stop { .. } => Terms::Stop { stop_e4 },
            Terms::StopLimit { .. } => Terms::StopLimit { price_e4, stop_e4 },
            Terms::TrailingStop { trail } => Terms::TrailingStop { trail: r.trail.unwrap_or(trail) },
            Terms::Market => Terms::Market,
        };
        let (mut cap_e4, mut stop_e4) = (o.cap_e4, r.stop_e4);
        // What sleeps is judged by its entry's price.
        let entry = self.state.groups.get(&o.group).filter(|_| o.asleep).map(|group| group.entry);
        let entry = entry.and_then(|entry| self.state.order(entry)).map(|entry| entry.cap_e4);
        let reference_e4 = entry.or(m.reference_e4());
        let priced = |terms| {
            check::ticks(terms, m.tick_e4)
                .and_then(|()| check::priced(o.side, terms, m.tick_e4, reference_e4))
                .map_err(|v| if entry.is_some() { by_entry(refuse(v)) } else { refuse(v) })
        };
        if r.price_e4 != 0 {
            cap_e4 = priced(Terms::Limit { price_e4: r.price_e4 })?.cap_e4;
        }
        if r.stop_e4 != 0 {
            let by_stop = priced(Terms::Stop { stop_e4: r.stop_e4 })?.cap_e4;
            if order_type == OrderType::Stop {
                cap_e4 = by_stop;
            }
        }
        if let Some(trail) = r.trail {
            check::trail(trail).map_err(refuse)?;
            let anew = priced(terms)?;
            (cap_e4, stop_e4) = (anew.cap_e4, anew.stop_e4);
        }
        check::size(cap_e4, quantity_e4).map_err(refuse)?;
        if r.price_e4 != 0 || r.stop_e4 != 0 || r.trail.is_some() {
            self.check_apart(o, cap_e4).map_err(refuse)?;
        }
        let stop_after = if stop_e4 == 0 { o.stop_e4 } else { stop_e4 };
        Ok((Replacement { terms, cap_e4, quantity_e4, stop_e4: stop_after }, stop_e4))
    }

    /// Lets the book apply a command and does what it says; answers why it refused, where it did.
    pub fn run_book(&mut self, market: u32, command: &BookCommand) -> Option<BookReason> {
        self.run_book_before(market, command, &mut None)
    }

    /// The same within a change to another state, which is told before a volatility pause that follows it.
    pub fn run_book_before(
        &mut self,
        market: u32,
        command: &BookCommand,
        untold: &mut Option<TradingState>,
    ) -> Option<BookReason> {
        let refused = self.apply_book(market, command, untold);
        self.settle(market, untold);
        refused
    }

    /// Groups are settled after a match, before the next stop that it elected enters.
    pub fn settle(&mut self, market: u32, untold: &mut Option<TradingState>) {
        self.settle_groups();
        while let Some(number) = self.at(market).book.next_elected() {
            self.end_entry_of(market, number);
            self.read_book(market, untold, false, Book::enter_elected);
            self.settle_groups();
        }
    }

    /// The book applies a command, and what it says is done; nothing that follows from it.
    pub fn apply_book(
        &mut self,
        market: u32,
        command: &BookCommand,
        untold: &mut Option<TradingState>,
    ) -> Option<BookReason> {
        // Leaving a call: what trades before the phase changes is the auction.
        let auction = matches!(command, BookCommand::SetPhase { .. });
        let apply = |book: &mut Book, events: &mut Events| book.apply(command, events);
        self.read_book(market, untold, auction, apply).0
    }

    /// Lets the book do something and does what it says.
    fn read_book<T>(
        &mut self,
        market: u32,
        untold: &mut Option<TradingState>,
        mut auction: bool,
        act: impl FnOnce(&mut Book, &mut Events) -> T,
    ) -> (Option<BookReason>, T) {
        let mut events = std::mem::take(&mut self.state.events);
        events.clear();
        let m = &mut self.state.markets[market as usize];
        let done = act(&mut m.book, &mut events);
        debug_assert!(
            m.book.phase().is_call()
                || m.book.best_bid().zip(m.book.best_ask()).is_none_or(|(bid, ask)| bid < ask),
            "invariant: outside a call the best bid of {} is below its best ask",
            m.symbol
        );
        let mut refused = None;
        for event in &events {
            auction &= !matches!(event.what, Said::PhaseChanged { .. });
            if let Said::Paused { price, .. } = event.what {
                self.paused(market, price, untold);
            } else {
                refused = self.said(market, event, auction).or(refused);
            }
        }
        self.state.events = events;
        self.band_by_first_trade(market);
        (refused, done)
    }

    fn said(&mut self, market: u32, event: &Event, auction: bool) -> Option<BookReason> {
        match event.what {
            Said::Accepted { id, slot, held, .. } => self.accepted(market, id, slot, held),
            Said::Rejected { id, reason } => {
                let order = self.at(market).orders.get(&id).cloned();
                if order.as_ref().is_some_and(|order| self.state.open.contains_key(&order.id)) {
                    // An exit that woke.
                    self.ended(market, id, OrderKind::Canceled, OrderState::Canceled, 0, reason);
                } else if let Some(order) = order {
                    self.state.markets[market as usize].orders.remove(&id);
                    self.happened(&order, Happened::Ended);
                    self.reject(market, order, End::Book(reason));
                }
            }
            Said::Trade { maker, taker, qty, price, .. } => {
                let m = self.at(market);
                let (price_e4, quantity_e4) = (m.price_e4(price), m.quantity_e4(qty));
                self.traded(market, maker, taker, price_e4, quantity_e4, auction);
            }
            Said::Canceled { id, open, reason, .. } => {
                self.canceled += 1;
                self.ended(market, id, OrderKind::Canceled, OrderState::Canceled, open, reason);
            }
            Said::Expired { id, open, reason, .. } => {
                self.ended(market, id, OrderKind::Expired, OrderState::Expired, open, reason);
            }
            Said::Replaced { id, slot, .. } => self.replaced(market, id, slot),
            Said::CancelRejected { reason, .. } | Said::ReplaceRejected { reason, .. } => {
                return Some(reason);
            }
            Said::Triggered { id, price, .. } => {
                let cap_e4 = self.at(market).price_e4(price);
                let order = self.at(market).orders[&id].clone();
                // An exit that stands in the book alone from now on.
                let carried = if order.leg == Leg::Exit { self.carry_hold(&order) } else { 0 };
                self.happened(&order, Happened::Triggered);
                self.changed(market, id, OrderKind::Triggered, |order| {
                    order.state = OrderState::New;
                    // Of a sale further down than its stop said, of a purchase never above what is held for it.
                    order.cap_e4 = cap_e4;
                    order.hold.held += carried;
                });
            }
            Said::StopMoved { id, stop, .. } => {
                let stop_e4 = self.at(market).price_e4(stop);
                self.changed(market, id, OrderKind::StopMoved, |order| order.stop_e4 = stop_e4);
            }
            Said::Decremented { maker, taker, qty, .. } => self.decremented(market, maker, taker, qty),
            Said::Reduced { id, open, .. } => {
                let open_e4 = self.at(market).quantity_e4(open);
                self.changed(market, id, OrderKind::Resized, |order| {
                    order.quantity_e4 = order.filled_e4 + open_e4;
                });
            }
            // Refills show in the image; runs over the book are told by their orders, halts by the state.
            _ => {}
        }
        None
    }

    fn accepted(&mut self, market: u32, number: u64, slot: Slot, held: bool) {
        let now = self.state.time_us;
        let m = &mut self.state.markets[market as usize];
        let Some(order) = m.orders.get_mut(&number) else { return };
        order.slot = slot;
        if held {
            // Its stop stays the one that it came with: the book may have moved or reached it since.
            order.state = OrderState::Held;
        }
        if self.state.open.contains_key(&order.id) {
            // An exit that woke; a stop that the market has passed is triggered already.
            let is_stop = order.stop_e4 != 0;
            order.state = if held { OrderState::Held } else { OrderState::New };
            let kind = if is_stop && !held { OrderKind::Triggered } else { OrderKind::Resized };
            return self.tell(market, number, kind, 0);
        }
        debug_assert_eq!(order.created_us, now, "invariant: an order is accepted in its own step");
        self.index_order(market, number);
        self.tell(market, number, OrderKind::Accepted, 0);
    }

    /// Puts an order into everything that lists open ones.
    pub fn index_order(&mut self, market: u32, number: u64) {
        let order = &self.state.markets[market as usize].orders[&number];
        let (id, owner, account, rate) = (order.id, order.owner, order.account, order.rate);
        if order.time == TimeInForce::Gtd {
            self.state.gtd.insert((order.expires_us, number));
        }
        self.state.open.insert(id, (market, number));
        self.state.by_owner.insert((owner, number, market));
        self.state.count_rate(rate, true);
        self.state.users[owner as usize - 1].open_orders += 1;
        if let Some(account) = self.state.accounts.get_mut(&account) {
            account.open_orders += 1;
        }
    }

    /// Brings the hold of an open order to what it needs; answers the balance that it changed.
    fn hold_again(&mut self, market: u32, number: u64) -> Option<Touched> {
        let order = &self.at(market).orders[&number];
        let needed = self.needed(order).expect("invariant: what an order needs only falls after its checks");
        let (account, side, more) = (order.account, order.side, needed - order.hold.held);
        if let Some(order) = self.state.markets[market as usize].orders.get_mut(&number) {
            order.hold.held = needed;
        }
        self.hold_more(account, side, market, more)
    }

    /// Moves what an account holds for orders of a side; answers its balance, where anything moved.
    fn hold_more(&mut self, account: Uuid, side: Side, market: u32, more: i64) -> Option<Touched> {
        if more == 0 {
            return None;
        }
        let now = self.state.time_us;
        let a = self.state.accounts.get_mut(&account)?;
        match side {
            Side::Buy => {
                a.cash.held += more;
                self.state.client_held[a.currency as usize] += i128::from(more);
                assert!(
                    (0..=a.cash.posted).contains(&a.cash.held),
                    "invariant: cash covers its holds, {:?}",
                    a.cash
                );
                self.state.touch(account, None, false)
            }
            Side::Sell => {
                let holding = a.holdings.get_mut(&market)?;
                holding.held += more;
                holding.updated_us = now;
                assert!(
                    (0..=holding.posted).contains(&holding.held),
                    "invariant: shares cover their holds, {holding:?}"
                );
                self.state.touch(account, Some(market), false)
            }
        }
    }

    /// Tells of an open order that changed, after its hold was brought to what it needs.
    pub fn tell(&mut self, market: u32, number: u64, kind: OrderKind, quantity_e4: i64) {
        let touched = [self.hold_again(market, number), None];
        let order = self.at(market).orders[&number].clone();
        let order = self.order_after(order);
        self.emit(
            Some(market),
            What::Order(Box::new(OrderFact { kind, order, other: None, touched, quantity_e4 })),
        );
    }

    fn changed(&mut self, market: u32, number: u64, kind: OrderKind, change: impl FnOnce(&mut Order)) {
        let now = self.state.time_us;
        let Some(order) = self.state.markets[market as usize].orders.get_mut(&number) else { return };
        change(order);
        order.updated_us = now;
        self.tell(market, number, kind, 0);
    }

    fn replaced(&mut self, market: u32, number: u64, slot: Slot) {
        if let Some(total_e4) = self.resizing {
            return self.changed(market, number, OrderKind::Resized, |order| order.quantity_e4 = total_e4);
        }
        let Some(to) = self.replacing else { return };
        self.changed(market, number, OrderKind::Replaced, |order| {
            order.slot = slot;
            order.version = order.version.saturating_add(1);
            order.terms = to.terms;
            order.cap_e4 = to.cap_e4;
            order.quantity_e4 = to.quantity_e4;
            order.stop_e4 = to.stop_e4;
        });
    }

    /// Takes an order out of everything that lists open ones.
    pub fn take_out(&mut self, market: u32, number: u64) -> Option<Order> {
        let order = self.state.markets[market as usize].orders.remove(&number)?;
        self.state.open.remove(&order.id);
        self.state.by_owner.remove(&(order.owner, number, market));
        self.state.count_rate(order.rate, false);
        if order.time == TimeInForce::Gtd {
            self.state.gtd.remove(&(order.expires_us, number));
        }
        self.state.users[order.owner as usize - 1].open_orders -= 1;
        if let Some(account) = self.state.accounts.get_mut(&order.account) {
            account.open_orders -= 1;
        }
        Some(order)
    }

    /// Takes an order out of the state and tells its end.
    pub fn ended(
        &mut self,
        market: u32,
        number: u64,
        kind: OrderKind,
        state: OrderState,
        open: u64,
        reason: BookReason,
    ) {
        let Some(mut order) = self.take_out(market, number) else { return };
        self.happened(&order, Happened::Ended);
        let quantity_e4 = self.at(market).quantity_e4(open);
        order.state = state;
        order.end = Some(self.end.clone().unwrap_or(End::Book(reason)));
        order.updated_us = self.state.time_us;
        let held = std::mem::take(&mut order.hold.held);
        let touched = [self.hold_more(order.account, order.side, market, -held), None];
        let order = self.order_after(order);
        self.emit(
            Some(market),
            What::Order(Box::new(OrderFact { kind, order, other: None, touched, quantity_e4 })),
        );
    }

    /// Two orders of one owner met: both lose what would have traded.
    fn decremented(&mut self, market: u32, maker: u64, taker: u64, qty: u64) {
        let (now, quantity_e4) = (self.state.time_us, self.at(market).quantity_e4(qty));
        let mut touched = [None; 2];
        for (number, touched) in [taker, maker].into_iter().zip(&mut touched) {
            let Some(order) = self.state.markets[market as usize].orders.get_mut(&number) else { return };
            order.quantity_e4 -= quantity_e4;
            order.updated_us = now;
            *touched = self.hold_again(market, number);
        }
        let orders = [taker, maker].map(|number| self.at(market).orders[&number].clone());
        let [order, other] = orders.map(|order| self.order_after(order));
        let fact =
            OrderFact { kind: OrderKind::Decremented, order, other: Some(other), touched, quantity_e4 };
        self.emit(Some(market), What::Order(Box::new(fact)));
    }
}
