//! The exchange once more, as plainly as the rules say it (exchange-rules §§1–7): sorted maps, exact fractions, sums made
//! anew each time. It knows nothing of the core but the words that both are asked and answer in.

use crate::{
    book,
    ratio::Ratio,
    told::{Ended, Seen, Told},
};
use fafnir_clearing::{
    account::{ACCOUNTS_MAX, Currency, House, Kind},
    command::{Command, Endow, Flatten, Instruction, Instrument, NewGroup, NewOrder, Replace},
    fact::{Answer, OrderKind},
    group::Leg,
    refusal::Refusal,
    terms::{FEE_BP_MAX, Fees, RATE_MAX, RATE_MIN, Rules},
};
use fafnir_matching as matching;
use fafnir_rules::{
    calendar::Session,
    check::{self, Field, Listing, Terms},
    order::{OrderState, OrderType, SelfTrade, Side, TimeInForce, TradingState},
    pause::random_end_us,
    price::{Trail, collar, trailing_start},
    symbol::Symbol,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use uuid::Uuid;

const MILLION: i128 = 1_000_000;
/// Most shares that one order may sell.
const LARGEST: i64 = 10_000_000 * 10_000;
const DAY_US: i64 = 86_400 * 1_000_000;
/// Above this much of an asset in clients' hands the exchange may say that it is full.
const NEARLY_FULL: i128 = i64::MAX as i128 / 4;

#[derive(Debug, Default, Clone)]
pub struct User {
    pub agent: bool,
    pub closed: bool,
    /// Open accounts, oldest first.
    pub accounts: Vec<Uuid>,
    pub orders: BTreeSet<Uuid>,
    /// Start of a day and currency → deposits.
    deposits: BTreeMap<(i64, Currency), i64>,
}

#[derive(Debug, Clone)]
pub struct Account {
    pub user: Uuid,
    pub kind: Kind,
    pub currency: Currency,
    pub cash: i128,
    /// By market.
    pub shares: BTreeMap<usize, Shares>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Shares {
    pub quantity: i128,
    pub cost: i128,
    pub realized: i128,
}

#[derive(Debug, Clone)]
pub struct Order {
    pub id: Uuid,
    pub user: Uuid,
    pub account: Uuid,
    pub market: usize,
    number: u64,
    pub side: Side,
    pub terms: Terms,
    time: TimeInForce,
    pub state: OrderState,
    pub quantity: i64,
    pub filled: i64,
    pub display: i64,
    pub stop: i64,
    pub cap: i64,
    /// Of a trailing stop: from the stop to the cap.
    distance: i64,
    stp: SelfTrade,
    pub version: u32,
    pub fees: Fees,
    pub rate: Ratio,
    foreign: bool,
    maker_notional: i128,
    taker_notional: i128,
    pub group: Uuid,
    pub leg: Leg,
    asleep: bool,
    end: Option<Ended>,
}

/// Orders that depend on each other; it is gone when no exit is open.
#[derive(Debug, Clone)]
struct Group {
    user: Uuid,
    account: Uuid,
    market: usize,
    entry: Option<Uuid>,
    exits: Vec<Uuid>,
    /// Bought, and not given to the exits because the market takes no orders.
    pending: i64,
}

/// What a match did to an order of a group, until the group has followed.
#[derive(Debug, Clone)]
struct After {
    order: Order,
    what: Change,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Filled(i64),
    Ended,
    Triggered,
}

#[derive(Default)]
pub struct Market {
    pub symbol: Option<Symbol>,
    pub currency: Option<Currency>,
    pub tick: i64,
    pub lot: i64,
    pub state: Option<TradingState>,
    pub previous_close: i64,
    pub band_bps: u32,
    pub version: u64,
    pause: Option<Pause>,
    gathers: bool,
    halted: bool,
    phase: matching::Phase,
    has_band: bool,
    pub last: i64,
    book: book::Reference,
}

/// A volatility pause: when its auction is due, and whether it lasts a second time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pause {
    pub due: i64,
    extended: bool,
}

impl Market {
    /// What it does now: in a volatility pause it gathers for an auction, and between sessions where it is open.
    pub fn does(&self) -> TradingState {
        match self.state.expect("listed") {
            _ if self.pause.is_some() => TradingState::Auction,
            TradingState::Open if self.gathers => TradingState::PreOpen,
            state => state,
        }
    }

    /// The present volatility pause.
    pub fn pause(&self) -> Option<Pause> {
        self.pause
    }

    /// The last trade, before the first the previous close.
    pub fn reference(&self) -> Option<i64> {
        let close = self.previous_close / self.tick * self.tick;
        [self.last, close].into_iter().find(|price| *price > 0)
    }
}

/// What an order posted so far: out of or into its account, through the house's exchange, for fees.
#[derive(Debug, Clone, Copy, Default)]
struct Posted {
    principal: i128,
    exchanged: i128,
    fee: i128,
}

impl Order {
    fn open(&self) -> i64 {
        if self.state.is_open() { self.quantity - self.filled } else { 0 }
    }

    fn traded(&self) -> Ratio {
        Ratio::whole(self.maker_notional + self.taker_notional).times(self.rate)
    }

    fn fees_due(&self) -> Ratio {
        let parts = self.maker_notional * i128::from(self.fees.maker_bp)
            + self.taker_notional * i128::from(self.fees.taker_bp);
        Ratio::new(parts, 10_000).times(self.rate)
    }

    /// Debits are rounded up, credits down; what a seller pays it has got.
    fn posted(&self) -> Posted {
        let (traded, fee) = (self.traded(), self.fees_due().up());
        match self.side {
            Side::Buy => Posted { principal: traded.up(), exchanged: traded.down(), fee },
            Side::Sell => {
                Posted { principal: traded.down(), exchanged: traded.up(), fee: fee.min(traded.down()) }
            }
        }
    }

    /// Shares of a sale; of a purchase all that it may still cost, at the worst price and the highest fee.
    pub fn held(&self) -> i128 {
        if !self.state.is_open() || self.leg == Leg::Exit {
            // The exits of a group hold together.
            return 0;
        }
        if self.side == Side::Sell {
            return i128::from(self.open());
        }
        let open = Ratio::new(i128::from(self.open()) * i128::from(self.cap), 100).times(self.rate);
        let highest = Ratio::new(i128::from(self.fees.maker_bp.max(self.fees.taker_bp)), 10_000);
        let posted = self.posted();
        self.traded().plus(open).up() - posted.principal + self.fees_due().plus(open.times(highest)).up()
            - posted.fee
    }

    fn seen(&self) -> Seen {
        Seen {
            id: self.id,
            state: self.state,
            quantity: self.quantity,
            filled: self.filled,
            held: i64::try_from(self.held()).expect("within 64 bits"),
            group: self.group,
            stop: self.stop,
            version: self.version,
            maker_notional: self.maker_notional,
            taker_notional: self.taker_notional,
            end: self.end.clone(),
        }
    }
}

/// The exchange, and what the last command told.
pub struct Exchange {
    pub rules: Rules,
    pub fees: Fees,
    pub usd_cad: i64,
    pub users: BTreeMap<Uuid, User>,
    pub accounts: BTreeMap<Uuid, Account>,
    /// Open ones.
    pub orders: BTreeMap<Uuid, Order>,
    numbers: BTreeMap<u64, Uuid>,
    last_number: u64,
    pub markets: Vec<Market>,
    pub session: Session,
    /// Positions of the facts that tell the pauses of the next command.
    pub pauses_at: VecDeque<u64>,
    /// Cash by currency, shares by market.
    pub house_cash: BTreeMap<(House, Currency), i128>,
    pub house_shares: BTreeMap<usize, i128>,
    pub told: Vec<Told>,
    /// Accounts that the last command changed.
    pub touched: BTreeSet<Uuid>,
    /// Orders that the last command canceled, but for self-trade prevention and time in force.
    canceled: u32,
    now: i64,
    /// Orders that the last command ended.
    ended: BTreeMap<Uuid, Order>,
    groups: BTreeMap<Uuid, Group>,
    after: VecDeque<After>,
    /// Why orders are canceled now, where it is not the book's word.
    why: Option<Ended>,
    /// A group makes an exit grow, or wakes one, which is told so.
    resizing: bool,
    woken: Option<OrderKind>,
}

/// What the model says to a command.
pub struct Verdict {
    /// Every refusal that is due; the command is refused where there is any.
    pub due: Vec<&'static str>,
    /// Refusals that would be as right where one is due.
    pub may: Vec<&'static str>,
}

/// The name of a refusal.
pub fn name(refusal: &Refusal) -> String {
    format!("{refusal:?}").chars().take_while(char::is_ascii_alphanumeric).collect()
}

impl Exchange {
    pub fn new() -> Self {
        Self {
            rules: Rules::default(),
            fees: Fees::default(),
            usd_cad: 1_000_000,
            users: BTreeMap::new(),
            accounts: BTreeMap::new(),
            orders: BTreeMap::new(),
            numbers: BTreeMap::new(),
            last_number: 0,
            markets: Vec::new(),
            session: Session::Always,
            pauses_at: VecDeque::new(),
            house_cash: BTreeMap::new(),
            house_shares: BTreeMap::new(),
            told: Vec::new(),
            touched: BTreeSet::new(),
            canceled: 0,
            now: 0,
            ended: BTreeMap::new(),
            groups: BTreeMap::new(),
            after: VecDeque::new(),
            why: None,
            resizing: false,
            woken: None,
        }
    }

    pub fn market(&self, symbol: &Symbol) -> Option<usize> {
        self.markets.iter().position(|m| m.symbol.as_ref() == Some(symbol))
    }

    fn own(&self, user: Uuid, account: Uuid) -> Option<&Account> {
        self.accounts.get(&account).filter(|a| a.user == user)
    }

    /// Open orders of an account.
    pub fn orders_of(&self, account: Uuid) -> impl Iterator<Item = &Order> {
        let user = self.accounts.get(&account).and_then(|a| self.users.get(&a.user));
        let ids = user.into_iter().flat_map(|u| &u.orders);
        ids.map(|id| &self.orders[id]).filter(move |o| o.account == account)
    }

    pub fn cash_held(&self, account: Uuid) -> i128 {
        self.orders_of(account).filter(|o| o.side == Side::Buy).map(Order::held).sum()
    }

    pub fn shares_held(&self, account: Uuid, market: usize) -> i128 {
        let alone = self.orders_of(account).filter(|o| o.side == Side::Sell && o.market == market);
        let groups = self.groups.values().filter(|g| g.account == account && g.market == market);
        alone.map(Order::held).sum::<i128>() + groups.map(|g| self.group_holds(g)).sum::<i128>()
    }

    /// The larger of what its exits may sell, and what none sells yet: once for all of them.
    fn group_holds(&self, group: &Group) -> i128 {
        let sells = group.exits.iter().filter_map(|id| self.orders.get(id));
        let sells = sells.filter(|o| !o.asleep).map(Order::open);
        i128::from(sells.max().unwrap_or(0) + group.pending)
    }

    pub fn cash_free(&self, account: Uuid) -> i128 {
        self.accounts[&account].cash - self.cash_held(account)
    }

    pub fn shares(&self, account: Uuid, market: usize) -> i128 {
        self.accounts[&account].shares.get(&market).map_or(0, |s| s.quantity)
    }

    fn clients_cash(&self, currency: Currency) -> i128 {
        self.accounts.values().filter(|a| a.currency == currency).map(|a| a.cash).sum()
    }

    /// Account currency for one unit of another.
    fn rate(&self, from: Currency, to: Currency) -> Ratio {
        let usd_cad = Ratio::new(i128::from(self.usd_cad), MILLION);
        match (from, to) {
            (Currency::Usd, Currency::Cad) => usd_cad,
            (Currency::Cad, Currency::Usd) => Ratio::new(MILLION, i128::from(self.usd_cad)),
            _ => Ratio::whole(1),
        }
    }

    /// The account that trades, or why none does.
    fn trading_account(
        &self,
        user: Uuid,
        named: Option<Uuid>,
        listing: Currency,
    ) -> Result<Uuid, &'static str> {
        if let Some(id) = named {
            let account = self.own(user, id).ok_or("AccountUnknown")?;
            return if account.kind == Kind::Investment { Ok(id) } else { Err("AccountNotInvestment") };
        }
        let all = self.users.get(&user).map_or(&[][..], |u| &u.accounts);
        let trade = |id: &&Uuid| self.accounts[*id].kind == Kind::Investment;
        let local = all.iter().filter(trade).find(|id| self.accounts[*id].currency == listing);
        local.or_else(|| all.iter().find(trade)).copied().ok_or("NoInvestmentAccount")
    }

    /// What is due to a command before anything happens.
    pub fn verdict(&self, now: i64, command: &Command) -> Verdict {
        let (mut due, mut may) = (Vec::new(), Vec::new());
        let user = command.user;
        if self.users.get(&user).is_some_and(|u| u.closed) && command.instruction != Instruction::CloseUser {
            due.push("UserClosed");
        }
        match &command.instruction {
            Instruction::New(new) => {
                let reference = self.market(&new.symbol).and_then(|m| self.markets[m].reference());
                self.judge_new(now, user, new, reference, 1, &mut due);
            }
            Instruction::NewGroup(new) => self.judge_group(now, user, new, &mut due),
            Instruction::CancelGroup { group } => {
                due.extend(self.groups.get(group).is_none_or(|g| g.user != user).then_some("GroupNotOpen"));
            }
            Instruction::Replace(replace) => self.judge_replace(user, replace, &mut due, &mut may),
            Instruction::Cancel { order } => {
                due.extend(self.orders.get(order).is_none_or(|o| o.user != user).then_some("OrderNotOpen"));
            }
            Instruction::CancelAll { symbol } => {
                if symbol.as_ref().is_some_and(|s| self.market(s).is_none()) {
                    due.push("UnknownSymbol");
                }
            }
            Instruction::Flatten(flatten) => self.judge_flatten(user, flatten, &mut due),
            Instruction::OpenAccount { account, kind, currency, .. } => {
                if let Some(a) = self.accounts.get(account) {
                    // The same again is that account, another is not.
                    if (a.user, a.kind, a.currency) != (user, *kind, *currency) {
                        due.push("AccountExists");
                    }
                } else if self.users.get(&user).is_some_and(|u| u.accounts.len() >= ACCOUNTS_MAX) {
                    due.push("TooManyAccounts");
                }
            }
            Instruction::CloseAccount { account } => {
                due.extend(self.own(user, *account).is_none().then_some("AccountUnknown"));
            }
            Instruction::Deposit { account, currency, amount } => {
                self.judge_deposit(now, user, (*account, *currency, *amount), &mut due, &mut may);
            }
            Instruction::Withdraw { account, currency, amount } => {
                self.judge_payer(user, *account, *currency, *amount, &mut due, &mut may);
            }
            Instruction::Transfer { from, to, currency, amount } => {
                self.judge_payer(user, *from, *currency, *amount, &mut due, &mut may);
                self.judge_payee(user, *from, *to, *amount, &mut due);
            }
            Instruction::Endow(endow) => self.judge_endow(endow, &mut due, &mut may),
            Instruction::SetState { symbol, .. } => {
                due.extend(self.market(symbol).is_none().then_some("UnknownSymbol"));
            }
            Instruction::SetFees { maker_bp, taker_bp } => {
                if *maker_bp.max(taker_bp) > FEE_BP_MAX {
                    due.push("TermsOutOfRange");
                }
            }
            Instruction::SetRate { usd_cad } => {
                if !(RATE_MIN..=RATE_MAX).contains(usd_cad) {
                    due.push("TermsOutOfRange");
                }
            }
            Instruction::CloseUser
            | Instruction::SetInstrument(_)
            | Instruction::SetRules(_)
            | Instruction::DayEnd
            | Instruction::Expire
            | Instruction::SetSession { .. }
            | Instruction::Reopen { .. } => {}
        }
        Verdict { due, may }
    }

    /// All of a group's orders are good, or none is placed.
    fn judge_group(&self, now: i64, user: Uuid, new: &NewGroup, due: &mut Vec<&'static str>) {
        let (count, entries) = match new.kind.name() {
            "OCO" => (2, 0),
            "BRACKET" => (3, 1),
            _ => (2, 1),
        };
        if new.legs.len() != count {
            return due.push("GroupMalformed");
        }
        if self.groups.contains_key(&new.group) {
            due.push("OrderExists");
        }
        let first = &new.legs[0];
        let ids: BTreeSet<Uuid> = new.legs.iter().map(|leg| leg.order).collect();
        let alike = |leg: &NewOrder| {
            (&leg.symbol, leg.account, leg.quantity_e4) == (&first.symbol, first.account, first.quantity_e4)
        };
        let exits = &new.legs[entries..];
        let good = |exit: &NewOrder| {
            exit.side == Side::Sell
                && (exit.display_e4, exit.post_only) == (0, false)
                && matches!(exit.time, TimeInForce::Gtc | TimeInForce::Day | TimeInForce::Gtd)
                && exit.terms != Terms::Market
                && (entries == 0 || exit.time == TimeInForce::Gtc)
                && (exit.time, exit.expires_us) == (exits[0].time, exits[0].expires_us)
        };
        let targets = exits.iter().filter(|exit| matches!(exit.terms, Terms::Limit { .. })).count();
        let fits = ids.len() == count
            && !new.group.is_nil()
            && new.legs.iter().all(|leg| alike(leg) && leg.notional == 0)
            && (entries == 0 || first.side == Side::Buy)
            && exits.iter().all(good)
            && (exits.len() == 1 || targets == 1);
        if !fits {
            due.push("GroupMalformed");
        }
        let Some(market) = self.market(&first.symbol) else { return due.push("UnknownSymbol") };
        let m = &self.markets[market];
        let entry = self.priced(m, first, m.reference()).map(|priced| priced.cap_e4).ok();
        self.judge_new(now, user, first, m.reference(), count, due);
        if entries == 0 || entry.is_some() {
            let reference = if entries == 0 { m.reference() } else { entry };
            for leg in &new.legs[1..] {
                self.judge_new(now, user, leg, reference, count, due);
                // The rest of an entry and a target would trade with each other.
                let is_target = matches!(leg.terms, Terms::Limit { price_e4 } if Some(price_e4) <= entry);
                if entries == 1 && may_rest(first.terms, first.time) && is_target {
                    due.push("Violation");
                }
            }
        }
    }

    /// `places`: orders that are placed together.
    fn judge_new(
        &self,
        now: i64,
        user: Uuid,
        new: &NewOrder,
        reference: Option<i64>,
        places: usize,
        due: &mut Vec<&'static str>,
    ) {
        if self.orders.contains_key(&new.order) {
            due.push("OrderExists");
        }
        let Some(market) = self.market(&new.symbol) else { return due.push("UnknownSymbol") };
        let m = &self.markets[market];
        let quantity = self.quantity(m, new);
        let shape = check::quantity(quantity)
            .and_then(|()| check::display(quantity, new.display_e4))
            .and_then(|()| check::time_in_force(new.terms.order_type(), new.time));
        let expiry = if new.time == TimeInForce::Gtd { check::expiry(new.expires_us, now) } else { Ok(()) };
        let no_close = new.time == TimeInForce::Cls && self.session == Session::Always;
        if shape.is_err() || expiry.is_err() || no_close || self.priced(m, new, reference).is_err() {
            due.push("Violation");
        }
        if let Err(why) = self.trading_account(user, new.account, m.currency.expect("listed")) {
            due.push(why);
        }
        let open = self.users.get(&user).filter(|u| !u.agent).map_or(0, |u| u.orders.len());
        // What ends in its own step adds to no list; what is placed together counts together.
        let waits = !matches!(new.time, TimeInForce::Ioc | TimeInForce::Fok) || m.does().is_call();
        let is_agent = self.users.get(&user).is_some_and(|u| u.agent);
        if !is_agent && (waits || places > 1) && open + places > self.rules.open_orders_max as usize {
            due.push("TooManyOpenOrders");
        }
    }

    /// How much: what it says, or as many lots as its worth pays for at its limit, else at the cap of a purchase, at the
    /// reference of a sale. 0: none.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn quantity(&self, m: &Market, new: &NewOrder) -> i64 {
        if new.notional == 0 || new.quantity_e4 != 0 {
            return if new.notional == 0 { new.quantity_e4 } else { 0 };
        }
        let cap = check::priced(new.side, new.terms, m.tick, m.reference()).map(|priced| priced.cap_e4);
        let price = match (new.terms, new.side) {
            (Terms::Limit { price_e4 }, _) => Some(price_e4),
            (Terms::Market, Side::Buy) => cap.ok(),
            (Terms::Market, Side::Sell) => m.reference(),
            _ => None,
        };
        let Some(price) = price.filter(|price| *price > 0 && new.notional > 0) else { return 0 };
        let lots = Ratio::new(i128::from(new.notional) * 100, i128::from(price) * i128::from(m.lot)).down();
        i64::try_from(lots * i128::from(m.lot)).unwrap_or(i64::MAX)
    }

    fn priced(
        &self,
        m: &Market,
        new: &NewOrder,
        reference: Option<i64>,
    ) -> Result<check::Priced, check::Violation> {
        let order = check::Order {
            side: new.side,
            terms: new.terms,
            time_in_force: new.time,
            quantity_e4: self.quantity(m, new),
            display_e4: new.display_e4,
        };
        check::order(&order, &Listing { tick_e4: m.tick, lot_e4: m.lot, state: m.does() }, reference)
    }

    /// The order as the replace would make it: total, limit, stop, cap.
    fn replaced(&self, order: &Order, replace: &Replace) -> Result<Order, check::Violation> {
        let m = &self.markets[order.market];
        let mut new = order.clone();
        check::open(m.does())?;
        if replace.quantity_e4 != 0 {
            check::quantity(replace.quantity_e4)?;
            check::lots(Field::Quantity, replace.quantity_e4, m.lot)?;
            new.quantity = replace.quantity_e4;
        }
        check::parts(new.quantity - new.filled, new.display)?;
        let priced = |terms| {
            check::ticks(terms, m.tick)?;
            // What sleeps is judged by its entry's price.
            let entry = self.groups.get(&order.group).and_then(|g| g.entry).filter(|_| order.asleep);
            let entry = entry.map(|entry| self.orders[&entry].cap);
            check::priced(order.side, terms, m.tick, entry.or(m.reference()))
        };
        if replace.price_e4 != 0 {
            new.cap = priced(Terms::Limit { price_e4: replace.price_e4 })?.cap_e4;
        }
        if replace.stop_e4 != 0 {
            let priced = priced(Terms::Stop { stop_e4: replace.stop_e4 })?;
            new.stop = replace.stop_e4;
            if order.terms.order_type() == OrderType::Stop {
                new.cap = priced.cap_e4;
            }
        }
        new.terms = match new.terms {
            Terms::Limit { .. } => Terms::Limit { price_e4: new.cap },
            Terms::StopLimit { .. } => Terms::StopLimit { price_e4: new.cap, stop_e4: new.stop },
            Terms::Stop { .. } => Terms::Stop { stop_e4: new.stop },
            other => other,
        };
        if let Some(trail) = replace.trail {
            check::trail(trail)?;
            new.terms = Terms::TrailingStop { trail };
            let anew = priced(new.terms)?;
            (new.cap, new.stop) = (anew.cap_e4, anew.stop_e4);
            new.distance = (new.cap - new.stop).abs();
        }
        check::size(new.cap, new.quantity)?;
        let has_price = (replace.price_e4, replace.stop_e4, replace.trail) != (0, 0, None);
        if let Some(group) = self.groups.get(&order.group).filter(|_| has_price) {
            let exits = || group.exits.iter().filter_map(|id| self.orders.get(id));
            let targets = exits().filter(|o| matches!(o.terms, Terms::Limit { .. }));
            let entry = group.entry.map(|id| &self.orders[&id]);
            let of_entry = entry.filter(|e| may_rest(e.terms, e.time));
            let met = match order.leg {
                Leg::Entry => may_rest(new.terms, order.time)
                    .then(|| targets.map(|o| o.cap).min())
                    .flatten()
                    .map(|t| (new.cap, t)),
                Leg::Exit if matches!(new.terms, Terms::Limit { .. }) => of_entry.map(|e| (e.cap, new.cap)),
                _ => None,
            };
            if let Some((entry_e4, price_e4)) = met.filter(|(entry, target)| target <= entry) {
                return Err(check::Violation::TargetNotAboveEntry { price_e4, entry_e4 });
            }
        }
        Ok(new)
    }

    fn judge_replace(
        &self,
        user: Uuid,
        r: &Replace,
        due: &mut Vec<&'static str>,
        may: &mut Vec<&'static str>,
    ) {
        let Some(order) = self.orders.get(&r.order).filter(|o| o.user == user) else {
            return due.push("OrderNotOpen");
        };
        let of = order.terms.order_type();
        let rules = [
            (r.version != 0 && r.version != order.version, "VersionDiffers"),
            ((r.quantity_e4, r.price_e4, r.stop_e4, r.trail) == (0, 0, 0, None), "NothingToReplace"),
            (r.trail.is_some_and(|trail| !trails_by(order.terms, trail)), "PriceNotAllowed"),
            (r.trail.is_some() && of.has_trail() && order.state != OrderState::Held, "StopTriggered"),
            (r.price_e4 != 0 && !of.has_price(), "PriceNotAllowed"),
            (r.stop_e4 != 0 && !of.has_stop(), "PriceNotAllowed"),
            (r.stop_e4 != 0 && of.has_stop() && order.state != OrderState::Held, "StopTriggered"),
            (r.quantity_e4 != 0 && r.quantity_e4 <= order.filled, "BelowFilled"),
            (r.quantity_e4 != 0 && order.leg == Leg::Exit, "ExitQuantity"),
        ];
        due.extend(rules.into_iter().filter(|rule| rule.0).map(|rule| rule.1));
        match self.replaced(order, r) {
            Err(_) => due.push("Violation"),
            Ok(new) if due.is_empty() => {
                let (more, free, why) = match order.side {
                    Side::Buy => {
                        (new.held() - order.held(), self.cash_free(order.account), "InsufficientFunds")
                    }
                    Side::Sell => {
                        let held = self.shares_held(order.account, order.market);
                        let free = self.shares(order.account, order.market) - held;
                        (new.held() - order.held(), free, "InsufficientShares")
                    }
                };
                if more > free && more > 0 {
                    due.push(why);
                    may.push("Book");
                }
            }
            Ok(_) => {}
        }
    }

    fn judge_flatten(&self, user: Uuid, flatten: &Flatten, due: &mut Vec<&'static str>) {
        if self.orders.contains_key(&flatten.order) {
            due.push("OrderExists");
        }
        let Some(market) = self.market(&flatten.symbol) else { return due.push("UnknownSymbol") };
        let listing = self.markets[market].currency.expect("listed");
        if let Err(why) = self.trading_account(user, flatten.account, listing) {
            due.push(why);
        }
    }

    fn judge_deposit(
        &self,
        now: i64,
        user: Uuid,
        (account, currency, amount): (Uuid, Currency, i64),
        due: &mut Vec<&'static str>,
        may: &mut Vec<&'static str>,
    ) {
        if !(1..=self.rules.deposit_max).contains(&amount) {
            due.push("AmountOutOfRange");
        }
        let Some(a) = self.own(user, account) else { return due.push("AccountUnknown") };
        if a.currency != currency {
            due.push("CurrencyMismatch");
        }
        let day = (now.div_euclid(DAY_US), currency);
        let so_far = self.users[&user].deposits.get(&day).copied().unwrap_or(0);
        if amount > 0 {
            let amount = i128::from(amount);
            if i128::from(so_far) + amount > i128::from(self.rules.deposits_per_day_max) {
                due.push("DepositsOfDay");
            }
            if a.cash + amount > i128::from(self.rules.account_max) {
                due.push("AccountFull");
            }
            if self.clients_cash(currency) + amount > NEARLY_FULL {
                may.push("ExchangeFull");
            }
        }
    }

    fn judge_payer(
        &self,
        user: Uuid,
        account: Uuid,
        currency: Currency,
        amount: i64,
        due: &mut Vec<&'static str>,
        may: &mut Vec<&'static str>,
    ) {
        if amount <= 0 {
            due.push("AmountOutOfRange");
        }
        let Some(a) = self.own(user, account) else { return due.push("AccountUnknown") };
        if a.currency != currency {
            due.push("CurrencyMismatch");
        }
        if i128::from(amount) > self.cash_free(account) {
            due.push("InsufficientFunds");
            may.push("AmountOutOfRange");
        }
    }

    fn judge_payee(&self, user: Uuid, from: Uuid, to: Uuid, amount: i64, due: &mut Vec<&'static str>) {
        if from == to {
            due.push("SameAccount");
        }
        let (Some(from), Some(to)) = (self.own(user, from), self.own(user, to)) else {
            return due.push("AccountUnknown");
        };
        let got = Ratio::whole(i128::from(amount)).times(self.rate(from.currency, to.currency)).down();
        if amount > 0 && got == 0 {
            due.push("AmountTooSmall");
        }
        if got + to.cash > i128::from(i64::MAX) {
            due.push("AmountTooLarge");
        }
    }

    fn judge_endow(&self, e: &Endow, due: &mut Vec<&'static str>, may: &mut Vec<&'static str>) {
        if e.amount < 0 || e.quantity_e4 < 0 || e.cost_price_e4 < 0 {
            due.push("EndowmentOutOfRange");
        }
        let Some(a) = self.accounts.get(&e.account) else { return due.push("AccountUnknown") };
        if e.amount > 0 && e.currency.is_some_and(|c| c != a.currency) {
            due.push("CurrencyMismatch");
        }
        if e.quantity_e4 > 0 && e.symbol.as_ref().is_none_or(|s| self.market(s).is_none()) {
            due.push("UnknownSymbol");
        }
        may.extend(["EndowmentOutOfRange", "ExchangeFull", "AmountTooLarge", "CostTooLarge"]);
    }

    /// Does what a command that was not refused asks for. `Err`: the answer cannot be.
    pub fn perform(&mut self, now: i64, command: &Command, answer: &Answer) -> Result<(), &'static str> {
        self.now = now;
        self.told.clear();
        self.touched.clear();
        self.canceled = 0;
        self.ended.clear();
        self.why = None;
        let user = command.user;
        if !user.is_nil() {
            self.users.entry(user).or_insert_with(|| User { agent: command.agent, ..User::default() });
        }
        match &command.instruction {
            Instruction::New(new) => self.place(user, new),
            Instruction::NewGroup(new) => self.place_group(user, new),
            Instruction::CancelGroup { group } => self.cancel_group(*group),
            Instruction::Replace(replace) => return self.replace(replace),
            Instruction::Cancel { order } => self.cancel(*order),
            Instruction::CancelAll { symbol } => self.cancel_all(user, symbol.as_ref()),
            Instruction::Flatten(flatten) => self.flatten(user, flatten),
            Instruction::OpenAccount { account, kind, currency, opening } => {
                let opening = if *opening { self.rules.opening } else { 0 };
                self.open(user, *account, (*kind, *currency), opening);
            }
            Instruction::CloseAccount { account } => self.close(*account),
            Instruction::CloseUser => {
                for account in self.users[&user].accounts.clone() {
                    self.close(account);
                }
                self.users.get_mut(&user).expect("known").closed = true;
            }
            Instruction::Deposit { account, currency, amount } => {
                self.pay(*account, i128::from(*amount));
                let day = (now.div_euclid(DAY_US), *currency);
                *self.users.get_mut(&user).expect("known").deposits.entry(day).or_default() += amount;
            }
            Instruction::Withdraw { account, amount, .. } => self.pay(*account, -i128::from(*amount)),
            Instruction::Transfer { from, to, amount, .. } => self.transfer(*from, *to, *amount),
            Instruction::Endow(endow) => self.endow(endow),
            Instruction::SetInstrument(instrument) => self.list(instrument),
            Instruction::SetState { symbol, state } => {
                let market = self.market(symbol).expect("listed");
                self.set_state(market, *state);
            }
            Instruction::SetRules(rules) => self.set_rules(*rules),
            Instruction::SetFees { maker_bp, taker_bp } => {
                self.fees = Fees { maker_bp: *maker_bp, taker_bp: *taker_bp };
            }
            Instruction::SetRate { usd_cad } => self.usd_cad = *usd_cad,
            Instruction::DayEnd | Instruction::Expire => {
                let now = u64::try_from(now).expect("a time");
                let day_end = command.instruction == Instruction::DayEnd;
                for market in 0..self.markets.len() {
                    if day_end {
                        self.run(market, &matching::Command::DayEnd { now });
                        self.roll_band(market);
                    } else {
                        self.run(market, &matching::Command::Expire { now });
                    }
                }
            }
            Instruction::Reopen { symbol } => {
                if let Some(market) = self.market(symbol) {
                    self.reopen(market);
                }
            }
            Instruction::SetSession { session } => self.set_session(*session),
        }
        self.compare_answer(command, answer)
    }

    /// What the answer tells of what was done.
    fn compare_answer(&self, command: &Command, answer: &Answer) -> Result<(), &'static str> {
        let Answer::Done(done) = answer else { return Err("not done") };
        let ensure = |right: bool, wrong: &'static str| if right { Ok(()) } else { Err(wrong) };
        let about = match &command.instruction {
            Instruction::New(new) => Some(new.order),
            Instruction::NewGroup(new) => Some(new.legs[0].order),
            Instruction::Replace(r) => Some(r.order),
            Instruction::Cancel { order } => Some(*order),
            _ => None,
        };
        if let Some(id) = about {
            let order = done.order.as_ref().ok_or("an answer without its order")?;
            let ours = self.orders.get(&id).or_else(|| self.ended.get(&id));
            let ours = ours.ok_or("an order that the model does not have")?;
            ensure(Seen::of(order) == ours.seen(), "the order in the answer")?;
        }
        if matches!(
            command.instruction,
            Instruction::CancelAll { .. }
                | Instruction::CancelGroup { .. }
                | Instruction::CloseAccount { .. }
                | Instruction::CloseUser
        ) {
            ensure(done.canceled == self.canceled, "the number of canceled orders")?;
        }
        if let Instruction::Flatten(flatten) = &command.instruction {
            let market = self.market(&flatten.symbol).expect("listed");
            let currency = self.markets[market].currency.expect("listed");
            let account = self.trading_account(command.user, flatten.account, currency)?;
            let left = self.shares(account, market);
            ensure(i128::from(done.left_e4) == left, "what flatten left")?;
            ensure(done.why.is_some() == (left > 0), "why flatten left something")?;
        }
        match &command.instruction {
            Instruction::Deposit { account, .. } | Instruction::Withdraw { account, .. } => {
                ensure(i128::from(done.known.amount) == self.accounts[account].cash, "the balance told")
            }
            _ => Ok(()),
        }
    }

    fn place(&mut self, user: Uuid, new: &NewOrder) {
        let market = self.market(&new.symbol).expect("listed");
        let order = self.made(user, new, self.markets[market].reference());
        if !self.lacks(&order) {
            self.come_in(order, new);
        }
    }

    /// The order that is asked for.
    fn made(&self, user: Uuid, new: &NewOrder, reference: Option<i64>) -> Order {
        let market = self.market(&new.symbol).expect("listed");
        let m = &self.markets[market];
        let listing = m.currency.expect("listed");
        let account = self.trading_account(user, new.account, listing).expect("judged");
        let priced = self.priced(m, new, reference).expect("judged");
        let currency = self.accounts[&account].currency;
        Order {
            id: new.order,
            user,
            account,
            market,
            number: 0,
            side: new.side,
            terms: new.terms,
            time: new.time,
            state: OrderState::New,
            quantity: self.quantity(m, new),
            filled: 0,
            display: new.display_e4,
            stop: priced.stop_e4,
            cap: priced.cap_e4,
            distance: (priced.cap_e4 - priced.stop_e4).abs(),
            stp: new.stp,
            version: 1,
            fees: self.fees,
            rate: self.rate(listing, currency),
            foreign: listing != currency,
            maker_notional: 0,
            taker_notional: 0,
            group: Uuid::nil(),
            leg: Leg::None,
            asleep: false,
            end: None,
        }
    }

    /// Without what it must hold it is rejected.
    fn lacks(&mut self, order: &Order) -> bool {
        let (account, market) = (order.account, order.market);
        let (needed, free, why) = match order.side {
            Side::Buy => (order.held(), self.cash_free(account), "InsufficientFunds"),
            Side::Sell => {
                let free = self.shares(account, market) - self.shares_held(account, market);
                (i128::from(order.open()), free, "InsufficientShares")
            }
        };
        if needed > free {
            let mut order = order.clone();
            order.state = OrderState::Rejected;
            order.end = Some(Ended::Refused(why.to_owned()));
            self.tell(OrderKind::Rejected, &order, None, 0);
            self.ended.insert(order.id, order);
        }
        needed > free
    }

    /// It is open, and the book has its number.
    fn number(&mut self, mut order: Order) -> Order {
        self.numbers.remove(&order.number);
        self.last_number += 1;
        order.number = self.last_number;
        self.touched.insert(order.account);
        self.numbers.insert(order.number, order.id);
        self.users.get_mut(&order.user).expect("known").orders.insert(order.id);
        self.orders.insert(order.id, order.clone());
        order
    }

    fn come_in(&mut self, order: Order, new: &NewOrder) {
        let order = self.number(order);
        let command = self.book_order(&order, new);
        self.run(order.market, &matching::Command::New(command));
    }

    /// Exits that wait for an entry sleep before it comes in; of exits alone the stop comes first.
    fn place_group(&mut self, user: Uuid, new: &NewGroup) {
        let market = self.market(&new.legs[0].symbol).expect("listed");
        let reference = self.markets[market].reference();
        let has_entry = new.legs[0].side == Side::Buy;
        let mut first = self.made(user, &new.legs[0], reference);
        (first.group, first.leg) = (new.group, if has_entry { Leg::Entry } else { Leg::None });
        if self.lacks(&first) {
            return;
        }
        let by = if has_entry { Some(first.cap) } else { reference };
        let exits = &new.legs[usize::from(has_entry)..];
        let group = Group {
            user,
            account: first.account,
            market,
            entry: has_entry.then_some(first.id),
            exits: exits.iter().map(|exit| exit.order).collect(),
            pending: 0,
        };
        self.groups.insert(new.group, group);
        let is_target = |exit: &&NewOrder| matches!(exit.terms, Terms::Limit { .. });
        let stops = exits.iter().filter(|exit| !is_target(exit));
        for exit in stops.chain(exits.iter().filter(is_target)) {
            let mut order = self.made(user, exit, by);
            (order.group, order.leg, order.asleep) = (new.group, Leg::Exit, has_entry);
            if has_entry {
                order.state = OrderState::Held;
                let order = self.number(order);
                self.tell(OrderKind::Accepted, &order, None, 0);
            } else {
                self.come_in(order, exit);
            }
        }
        if has_entry {
            self.come_in(first, &new.legs[0]);
        }
    }

    /// Groups follow what happened to their orders, before the next elected stop enters.
    fn follow(&mut self) {
        while let Some(After { order, what }) = self.after.pop_front() {
            let Some(group) = self.groups.get_mut(&order.group) else { continue };
            let belongs = group.entry == Some(order.id) || group.exits.contains(&order.id);
            if !self.orders.contains_key(&order.id) {
                group.exits.retain(|id| *id != order.id);
                group.entry = group.entry.filter(|id| *id != order.id);
            }
            let (entry, pending) = (group.entry, group.pending);
            let others: Vec<Uuid> = group.exits.iter().copied().filter(|id| *id != order.id).collect();
            match (what, order.leg) {
                (Change::Filled(quantity), Leg::Entry) => {
                    group.pending += quantity;
                    // All that it bought in this match together.
                    let is_more = |a: &After| a.order.id == order.id && matches!(a.what, Change::Filled(_));
                    if !self.after.iter().any(is_more) {
                        self.give(order.group);
                    }
                }
                (Change::Filled(quantity), _) => {
                    for id in others {
                        self.take(id, quantity);
                    }
                    if self.groups[&order.group].exits.is_empty() {
                        self.end_all_with_group(entry);
                    }
                }
                (Change::Ended, Leg::Entry)
                    if belongs
                        && pending == 0
                        && others.iter().all(|id| self.orders.get(id).is_some_and(|o| o.asleep)) =>
                {
                    self.end_all_with_group(others);
                }
                (Change::Ended | Change::Triggered, Leg::Exit) if belongs => self.end_all_with_group(others),
                _ => {}
            }
            if self.groups[&order.group].exits.is_empty() {
                self.groups.remove(&order.group);
            }
        }
    }

    fn end_all_with_group(&mut self, ids: impl IntoIterator<Item = Uuid>) {
        for id in ids {
            self.end_with_group(id);
        }
    }

    fn end_with_group(&mut self, id: Uuid) {
        let Some(order) = self.orders.get(&id) else { return };
        let group = self.groups.get_mut(&order.group).expect("its group");
        group.exits.retain(|exit| *exit != id);
        group.entry = group.entry.filter(|entry| *entry != id);
        let before = self.why.clone();
        self.why = before.clone().or(Some(Ended::Group));
        self.cancel_alone(id);
        self.why = before;
    }

    /// What another exit sold it no longer sells.
    fn take(&mut self, id: Uuid, quantity: i64) {
        let order = self.orders[&id].clone();
        if order.asleep {
            return;
        }
        if order.open() <= quantity {
            return self.end_with_group(id);
        }
        let lots = u64::try_from(quantity / self.markets[order.market].lot).expect("lots");
        let command = matching::Command::Reduce { id: order.number, slot: matching::Slot(0), qty: lots };
        self.act(order.market, &command);
    }

    /// The exits get what the entry bought, where the market takes orders.
    fn give(&mut self, id: Uuid) {
        let group = self.groups[&id].clone();
        let m = &self.markets[group.market];
        if group.pending == 0 || group.exits.is_empty() {
            self.groups.get_mut(&id).expect("known").pending = 0;
        } else if m.halted || m.phase == matching::Phase::Closed {
            // The first of them holds it.
            let first = group.exits.iter().find_map(|exit| self.orders.get(exit)).cloned();
            self.touched.insert(group.account);
            if let Some(first) = first {
                self.tell(OrderKind::Resized, &first, None, 0);
            }
        } else {
            self.groups.get_mut(&id).expect("known").pending = 0;
            let is_target =
                |id: &Uuid| self.orders.get(id).is_some_and(|o| matches!(o.terms, Terms::Limit { .. }));
            let (targets, stops): (Vec<Uuid>, Vec<Uuid>) = group.exits.into_iter().partition(is_target);
            for exit in stops.into_iter().chain(targets) {
                if self.orders.contains_key(&exit) {
                    self.grow(exit, group.pending);
                }
            }
        }
    }

    fn grow(&mut self, id: Uuid, quantity: i64) {
        let mut order = self.orders[&id].clone();
        let lot = self.markets[order.market].lot;
        if !order.asleep {
            order.quantity += quantity;
            let lots = u64::try_from(order.quantity / lot).expect("lots");
            let command = matching::Replace::new(order.number, matching::Slot(0), lots, 0);
            self.orders.insert(id, order.clone());
            self.resizing = true;
            self.act(order.market, &matching::Command::Replace(command));
            self.resizing = false;
            return;
        }
        (order.asleep, order.quantity) = (false, quantity);
        let (last, tick) = (self.markets[order.market].last, self.markets[order.market].tick);
        if let Terms::TrailingStop { trail } = order.terms
            && last > 0
        {
            order.stop = trailing_start(order.side, trail, last, tick).unwrap_or(order.stop);
            order.cap = collar(order.side, order.stop, tick).unwrap_or(order.cap);
            order.distance = (order.cap - order.stop).abs();
        }
        let passed = last > 0 && order.stop != 0 && order.stop >= last;
        if passed && order.terms.price_e4() == 0 {
            order.cap = collar(order.side, last, tick).unwrap_or(tick);
        }
        let order = self.number(order);
        if passed {
            let others = self.groups[&order.group].exits.clone();
            self.end_all_with_group(others.into_iter().filter(|other| *other != id));
            self.end_all_with_group(self.groups[&order.group].entry);
        }
        let new = NewOrder {
            order: id,
            account: None,
            symbol: self.markets[order.market].symbol.clone().expect("listed"),
            side: order.side,
            terms: if passed { Terms::Limit { price_e4: order.cap } } else { order.terms },
            time: TimeInForce::Gtc,
            quantity_e4: quantity,
            notional: 0,
            display_e4: 0,
            post_only: false,
            stp: order.stp,
            expires_us: 0,
        };
        let mut command = self.book_order(&order, &new);
        if passed {
            command.stop = 0;
        }
        self.woken = Some(if passed { OrderKind::Triggered } else { OrderKind::Resized });
        self.act(order.market, &matching::Command::New(command));
    }

    fn book_order(&self, order: &Order, new: &NewOrder) -> matching::NewOrder {
        let m = &self.markets[order.market];
        let ticks = |price: i64| u32::try_from(price / m.tick).expect("ticks");
        let lots = |quantity: i64| u64::try_from(quantity / m.lot).expect("lots");
        let (kind, price, trail) = match new.terms {
            Terms::Market => (matching::Kind::Market, ticks(order.cap), 0),
            Terms::Limit { .. } => (matching::Kind::Limit, ticks(order.cap), 0),
            Terms::Stop { .. } => (matching::Kind::Stop, ticks(order.cap), 0),
            Terms::StopLimit { .. } => (matching::Kind::StopLimit, ticks(order.cap), 0),
            Terms::TrailingStop { trail: Trail::AmountE4(amount) } => {
                (matching::Kind::TrailingAmount, ticks(order.distance), ticks(amount))
            }
            Terms::TrailingStop { trail: Trail::PercentE4(percent) } => {
                (matching::Kind::TrailingPercent, ticks(order.distance), (percent / 100) as u32)
            }
        };
        matching::NewOrder {
            id: order.number,
            owner: self.owner(order.user),
            side: book_side(order.side),
            kind,
            tif: match new.time {
                TimeInForce::Day => matching::Tif::Day,
                TimeInForce::Gtc => matching::Tif::Gtc,
                TimeInForce::Gtd => matching::Tif::Gtd,
                TimeInForce::Ioc => matching::Tif::Ioc,
                TimeInForce::Fok => matching::Tif::Fok,
                TimeInForce::Opg => matching::Tif::Opg,
                TimeInForce::Cls => matching::Tif::Cls,
            },
            self_trade: match new.stp {
                SelfTrade::CancelNewest => matching::SelfTrade::CancelNewest,
                SelfTrade::CancelOldest => matching::SelfTrade::CancelOldest,
                SelfTrade::CancelBoth => matching::SelfTrade::CancelBoth,
                SelfTrade::Decrement => matching::SelfTrade::Decrement,
            },
            post_only: new.post_only,
            qty: lots(order.quantity),
            price,
            display: lots(new.display_e4),
            stop: ticks(order.stop),
            trail,
            expire: u64::try_from(new.expires_us).expect("a time"),
        }
    }

    /// A number of the user in the book: any that is its own.
    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn owner(&self, user: Uuid) -> u32 {
        (user.as_u128() % u128::from(u32::MAX)) as u32 + 1
    }

    fn replace(&mut self, r: &Replace) -> Result<(), &'static str> {
        let order = self.orders[&r.order].clone();
        let new = self.replaced(&order, r).expect("judged");
        let m = &self.markets[order.market];
        let ticks = |price: i64| u32::try_from(price / m.tick).expect("ticks");
        let price = match order.terms.order_type() {
            OrderType::Limit | OrderType::StopLimit if r.price_e4 != 0 => ticks(new.cap),
            OrderType::Stop if r.stop_e4 != 0 => ticks(new.cap),
            _ if r.trail.is_some() => ticks(new.distance),
            _ => 0,
        };
        let command = matching::Replace {
            stop: if r.trail.is_some() { ticks(new.stop) } else { ticks(r.stop_e4) },
            trail: match r.trail {
                None => 0,
                Some(Trail::AmountE4(amount)) => ticks(amount),
                Some(Trail::PercentE4(percent)) => (percent / 100) as u32,
            },
            ..matching::Replace::new(
                order.number,
                matching::Slot(0),
                u64::try_from(r.quantity_e4 / m.lot).expect("lots"),
                price,
            )
        };
        self.touched.insert(order.account);
        let (market, id) = (order.market, order.id);
        if order.asleep {
            let new = Order { version: order.version + 1, ..new };
            self.tell(OrderKind::Replaced, &new, None, 0);
            self.orders.insert(id, new);
            return Ok(());
        }
        // The order is what it becomes before the book's word on it is read.
        self.orders.insert(id, new);
        self.run(market, &matching::Command::Replace(command));
        if self.told.is_empty() {
            // The book refused: it stands as it was.
            self.orders.insert(id, order);
            return Err("the book refuses the replace");
        }
        Ok(())
    }

    fn cancel(&mut self, id: Uuid) {
        // One that has ended with another one of its group stays as it is.
        if let Some(order) = self.orders.get(&id) {
            let market = order.market;
            self.cancel_alone(id);
            self.enter_elected(market, &mut None);
        }
    }

    fn cancel_group(&mut self, id: Uuid) {
        let group = self.groups[&id].clone();
        for order in group.entry.into_iter().chain(group.exits) {
            self.cancel(order);
        }
    }

    fn cancel_alone(&mut self, id: Uuid) {
        let order = &self.orders[&id];
        let (market, number, quantity) = (order.market, order.number, order.quantity);
        self.canceled += 1;
        if order.asleep {
            return self.end(OrderKind::Canceled, number, quantity, matching::Reason::Requested);
        }
        self.act(market, &matching::Command::Cancel { id: number, slot: matching::Slot(0) });
    }

    /// A user's open orders, the oldest in the book first.
    fn oldest_first(&self, user: Uuid) -> Vec<Uuid> {
        let mut orders: Vec<&Order> = self.users[&user].orders.iter().map(|id| &self.orders[id]).collect();
        orders.sort_by_key(|order| order.number);
        orders.into_iter().map(|order| order.id).collect()
    }

    fn cancel_all(&mut self, user: Uuid, symbol: Option<&Symbol>) {
        let market = symbol.and_then(|s| self.market(s));
        let mut orders = self.oldest_first(user);
        orders.retain(|id| market.is_none_or(|m| self.orders[id].market == m));
        for id in orders {
            self.cancel(id);
        }
    }

    /// The same again is the account that is there.
    fn open(&mut self, user: Uuid, account: Uuid, (kind, currency): (Kind, Currency), opening: i64) {
        if self.accounts.contains_key(&account) {
            return;
        }
        self.accounts.insert(account, Account { user, kind, currency, cash: 0, shares: BTreeMap::new() });
        self.users.get_mut(&user).expect("known").accounts.push(account);
        self.pay(account, i128::from(opening));
    }

    fn flatten(&mut self, user: Uuid, flatten: &Flatten) {
        let market = self.market(&flatten.symbol).expect("listed");
        let listing = self.markets[market].currency.expect("listed");
        let account = self.trading_account(user, flatten.account, listing).expect("judged");
        let mut orders = self.oldest_first(user);
        orders.retain(|id| self.orders[id].account == account && self.orders[id].market == market);
        for order in orders {
            self.cancel(order);
        }
        let lot = i128::from(self.markets[market].lot);
        let whole = (self.shares(account, market) / lot * lot).min(i128::from(LARGEST));
        let sale = NewOrder {
            order: flatten.order,
            account: Some(account),
            symbol: flatten.symbol.clone(),
            side: Side::Sell,
            terms: Terms::Market,
            time: TimeInForce::Ioc,
            quantity_e4: i64::try_from(whole).expect("within 64 bits"),
            notional: 0,
            display_e4: 0,
            post_only: false,
            stp: SelfTrade::CancelNewest,
            expires_us: 0,
        };
        let mut due = Vec::new();
        self.judge_new(self.now, user, &sale, self.markets[market].reference(), 1, &mut due);
        if due.is_empty() {
            self.place(user, &sale);
        }
    }

    /// Cash from the house, or to it.
    fn pay(&mut self, account: Uuid, amount: i128) {
        let a = self.accounts.get_mut(&account).expect("open");
        a.cash += amount;
        *self.house_cash.entry((House::Funding, a.currency)).or_default() -= amount;
        self.touched.insert(account);
    }

    fn transfer(&mut self, from: Uuid, to: Uuid, amount: i64) {
        let (paid, got) = (self.accounts[&from].currency, self.accounts[&to].currency);
        let exact = Ratio::whole(i128::from(amount)).times(self.rate(paid, got));
        let (down, up) = (exact.down(), exact.up());
        let amount = i128::from(amount);
        self.accounts.get_mut(&from).expect("open").cash -= amount;
        self.accounts.get_mut(&to).expect("open").cash += down;
        if paid != got {
            *self.house_cash.entry((House::Fx, paid)).or_default() += amount;
            *self.house_cash.entry((House::Fx, got)).or_default() -= up;
            *self.house_cash.entry((House::Rounding, got)).or_default() += up - down;
        }
        self.touched.extend([from, to]);
    }

    fn endow(&mut self, e: &Endow) {
        if e.amount > 0 {
            self.pay(e.account, i128::from(e.amount));
        }
        if e.quantity_e4 > 0 {
            let market = e.symbol.as_ref().and_then(|s| self.market(s)).expect("judged");
            let a = &self.accounts[&e.account];
            let cost = i128::from(e.quantity_e4) * i128::from(e.cost_price_e4) / 100;
            let rate = self.rate(e.currency.unwrap_or(a.currency), a.currency);
            let cost = Ratio::whole(cost).times(rate).up();
            let shares = self.accounts.get_mut(&e.account).expect("judged").shares.entry(market).or_default();
            shares.quantity += i128::from(e.quantity_e4);
            shares.cost += cost;
            *self.house_shares.entry(market).or_default() -= i128::from(e.quantity_e4);
            self.touched.insert(e.account);
        }
    }

    /// Cancels its orders and gives what is in it to the house.
    fn close(&mut self, account: Uuid) {
        let mut orders = self.oldest_first(self.accounts[&account].user);
        orders.retain(|id| self.orders[id].account == account);
        self.why = Some(Ended::AccountClosing);
        for order in orders {
            self.cancel(order);
        }
        self.why = None;
        self.pay(account, -self.accounts[&account].cash);
        let closed = self.accounts.remove(&account).expect("open");
        for (market, shares) in closed.shares {
            *self.house_shares.entry(market).or_default() += shares.quantity;
        }
        self.users.get_mut(&closed.user).expect("known").accounts.retain(|id| *id != account);
        self.touched.insert(account);
    }

    fn list(&mut self, new: &Instrument) {
        let market = self.market(&new.symbol).unwrap_or_else(|| {
            self.markets.push(Market {
                symbol: Some(new.symbol.clone()),
                currency: Some(new.currency),
                tick: new.tick_e4,
                lot: new.lot_e4,
                state: Some(TradingState::Open),
                gathers: self.session == Session::PreOpen,
                book: book::Reference::stepwise(),
                ..Market::default()
            });
            self.markets.len() - 1
        });
        let m = &mut self.markets[market];
        if new.version <= m.version {
            return;
        }
        let first = m.version == 0;
        let is_news =
            new.band_bps != m.band_bps || (new.previous_close_e4 != m.previous_close && m.last == 0);
        (m.version, m.previous_close, m.band_bps) = (new.version, new.previous_close_e4, new.band_bps);
        if is_news {
            self.centre_band(market);
        }
        if first {
            self.markets[market].state = Some(new.state);
            if self.markets[market].does() != TradingState::Open {
                self.obey(market);
            }
        }
    }

    fn set_state(&mut self, market: usize, state: TradingState) {
        let m = &mut self.markets[market];
        if m.state == Some(state) {
            return;
        }
        let (did, was_paused) = (m.does(), m.pause.is_some());
        m.state = Some(state);
        if was_paused || m.does() != did {
            self.obey(market);
        }
    }

    /// What the calendar says counts for every symbol that is open. A session that ends takes the day with it: closing
    /// auction, day's end, band; then orders gather for the next one.
    fn set_session(&mut self, session: Session) {
        let before = std::mem::replace(&mut self.session, session);
        if before == session {
            return;
        }
        let now = u64::try_from(self.now).expect("a time");
        for market in 0..self.markets.len() {
            let (did, was_paused) = (self.markets[market].does(), self.markets[market].pause.is_some());
            self.markets[market].gathers = session == Session::PreOpen;
            let open = self.markets[market].state == Some(TradingState::Open);
            if (before, session) == (Session::Regular, Session::PreOpen) {
                if open {
                    self.markets[market].pause = None;
                    for phase in [matching::Phase::Closing, matching::Phase::Closed] {
                        self.run(market, &matching::Command::SetPhase { phase });
                    }
                }
                self.run(market, &matching::Command::DayEnd { now });
                self.roll_band(market);
            }
            if open && (was_paused || self.markets[market].does() != did) {
                self.obey(market);
            }
        }
    }

    fn obey(&mut self, market: usize) {
        use matching::Phase;
        let m = &mut self.markets[market];
        m.pause = None;
        let state = m.does();
        let target = match state {
            TradingState::Halted => m.phase,
            TradingState::Open => Phase::Continuous,
            TradingState::Closed => Phase::Closed,
            TradingState::PreOpen => Phase::PreOpen,
            TradingState::Auction => Phase::Auction,
        };
        let phase = (target != m.phase).then_some(matching::Command::SetPhase { phase: target });
        let resume = (m.halted && state != TradingState::Halted).then_some(matching::Command::Resume);
        let halt = (!m.halted && state == TradingState::Halted).then_some(matching::Command::Halt);
        // Nothing trades between a halt and a call; an auction needs a book that trades.
        let steps = if target.is_call() { [phase, resume, halt] } else { [resume, phase, halt] };
        self.change(market, steps, state);
    }

    /// A pause ends when its moment has come; once it lasts on instead, where the auction would be more than two widths of
    /// the band away.
    fn reopen(&mut self, market: usize) {
        let m = &self.markets[market];
        let Some(pause) = m.pause.filter(|pause| self.now >= pause.due) else { return };
        if !pause.extended
            && let Some((price, ..)) = m.book.auction_price()
            && m.book.is_far_from_band(price, 2)
        {
            return self.pause(market, true, i64::from(price) * m.tick);
        }
        let m = &mut self.markets[market];
        m.pause = None;
        let (state, bps) = (m.does(), m.band_bps);
        let orders = m.book.orders();
        let best = |side| orders.iter().find(|o| o.1 == side && o.5.is_none()).map(|o| o.2);
        let (bid, ask) = (best(matching::Side::Buy), best(matching::Side::Sell));
        // Where nothing will trade the band goes to the middle.
        if let (Some(bid), Some(ask)) = (bid, ask)
            && bps != 0
            && m.book.auction_price().is_none()
        {
            let reference = bid.midpoint(ask);
            self.run(market, &matching::Command::SetBand { reference, bps });
        }
        let open = matching::Command::SetPhase { phase: matching::Phase::Continuous };
        self.change(market, [Some(open), None, None], state);
    }

    fn change(&mut self, market: usize, steps: [Option<matching::Command>; 3], state: TradingState) {
        let mut untold = Some(state);
        for command in steps.into_iter().flatten() {
            self.run_before(market, &command, &mut untold);
        }
        let m = &mut self.markets[market];
        if m.pause.is_some() && state != TradingState::Open {
            m.pause = None;
            untold = Some(state);
        }
        if let Some(state) = untold {
            self.told.push(Told::State { market, state, paused: false, price: 0, until: 0 });
        }
        // What entries bought while the market took no orders.
        let pending: Vec<Uuid> = self
            .groups
            .iter()
            .filter(|(_, g)| g.market == market && g.pending > 0)
            .map(|(id, _)| *id)
            .collect();
        for id in pending {
            self.give(id);
        }
        self.enter_elected(market, &mut None);
    }

    fn roll_band(&mut self, market: usize) {
        if self.markets[market].band_bps != 0 {
            self.centre_band(market);
        }
    }

    fn centre_band(&mut self, market: usize) {
        let m = &self.markets[market];
        let reference = m.reference().map_or(0, |price| (price / m.tick) as u32);
        let bps = if reference == 0 { 0 } else { m.band_bps };
        self.run(market, &matching::Command::SetBand { reference, bps });
    }

    fn run(&mut self, market: usize, command: &matching::Command) {
        self.run_before(market, command, &mut None);
    }

    fn run_before(&mut self, market: usize, command: &matching::Command, untold: &mut Option<TradingState>) {
        if let matching::Command::SetBand { reference, bps } = *command {
            self.markets[market].has_band = reference != 0 && bps != 0;
        }
        self.act_before(market, command, untold);
        self.enter_elected(market, untold);
    }

    fn enter_elected(&mut self, market: usize, untold: &mut Option<TradingState>) {
        self.follow();
        while let Some(number) = self.markets[market].book.next_elected() {
            // A round trip that ends by its stop buys nothing more.
            let stop = &self.orders[&self.numbers[&number]];
            let group = self.groups.get(&stop.group).filter(|g| g.exits.contains(&stop.id));
            if let Some(entry) = group.and_then(|g| g.entry) {
                self.end_with_group(entry);
            }
            let events = self.markets[market].book.enter_elected().expect("one waits");
            self.hear_all(market, events, false, untold);
            self.follow();
        }
    }

    /// The book does it, and nothing follows yet.
    fn act(&mut self, market: usize, command: &matching::Command) {
        self.act_before(market, command, &mut None);
    }

    fn act_before(&mut self, market: usize, command: &matching::Command, untold: &mut Option<TradingState>) {
        let events = self.markets[market].book.apply(command);
        let auction = matches!(command, matching::Command::SetPhase { .. });
        self.hear_all(market, events, auction, untold);
    }

    fn hear_all(
        &mut self,
        market: usize,
        events: Vec<matching::What>,
        mut auction: bool,
        untold: &mut Option<TradingState>,
    ) {
        for event in events {
            if let matching::What::PhaseChanged { phase } = event {
                auction = false;
                self.markets[market].phase = phase;
            }
            if let matching::What::Paused { .. } = event
                && let Some(state) = untold.take()
            {
                self.told.push(Told::State { market, state, paused: false, price: 0, until: 0 });
            }
            self.hear(market, event, auction);
        }
        let m = &self.markets[market];
        // Without a previous close the first trade gives the band its reference.
        if m.band_bps != 0 && !m.has_band && m.reference().is_some() {
            self.centre_band(market);
        }
    }

    fn tell(&mut self, kind: OrderKind, order: &Order, other: Option<&Order>, quantity: i64) {
        let market = order.market;
        let (order, other) = (order.seen(), other.map(Order::seen));
        self.told.push(Told::Order { market, kind, order, other, quantity });
    }

    fn order(&mut self, number: u64) -> &mut Order {
        self.orders.get_mut(&self.numbers[&number]).expect("open")
    }

    /// One event of the book.
    fn hear(&mut self, market: usize, event: matching::What, auction: bool) {
        use matching::What;
        let (tick, lot) = (self.markets[market].tick, self.markets[market].lot);
        match event {
            What::Accepted { id, held, .. } => {
                let order = self.order(id);
                order.state = if held { OrderState::Held } else { OrderState::New };
                let kind = self.woken.take().unwrap_or(OrderKind::Accepted);
                self.changed(kind, id, 0);
            }
            What::Rejected { id, reason } => self.end(OrderKind::Rejected, id, 0, reason),
            What::Canceled { id, open, reason, .. } => {
                self.end(OrderKind::Canceled, id, open as i64 * lot, reason);
            }
            What::Expired { id, open, reason, .. } => {
                self.end(OrderKind::Expired, id, open as i64 * lot, reason);
            }
            What::Replaced { id, .. } if self.resizing => self.changed(OrderKind::Resized, id, 0),
            What::Reduced { id, open, .. } => {
                let order = self.order(id);
                order.quantity = order.filled + open as i64 * lot;
                self.changed(OrderKind::Resized, id, 0);
            }
            What::Replaced { id, .. } => {
                self.order(id).version += 1;
                self.changed(OrderKind::Replaced, id, 0);
            }
            What::Triggered { id, price, .. } => {
                let order = self.order(id);
                order.state = OrderState::New;
                order.cap = i64::from(price) * tick;
                let order = order.clone();
                self.happened(order, Change::Triggered);
                self.changed(OrderKind::Triggered, id, 0);
            }
            What::StopMoved { id, stop, .. } => {
                // What is held for it stays that of its acceptance: a stop only moves to where it costs less.
                self.order(id).stop = i64::from(stop) * tick;
                self.changed(OrderKind::StopMoved, id, 0);
            }
            What::Trade { maker, taker, qty, price, aggressor, .. } => {
                let quantity = qty as i64 * lot;
                let aggressor = (!auction).then_some(rules_side(aggressor));
                self.settle(market, (maker, taker), i64::from(price) * tick, quantity, aggressor);
            }
            What::Decremented { maker, taker, qty, .. } => {
                let quantity = qty as i64 * lot;
                for id in [maker, taker] {
                    let order = self.order(id);
                    order.quantity -= quantity;
                    let account = order.account;
                    self.touched.insert(account);
                }
                let (maker, taker) = (self.order(maker).clone(), self.order(taker).clone());
                self.tell(OrderKind::Decremented, &taker, Some(&maker), quantity);
            }
            What::Paused { price, .. } => {
                let price = i64::from(price) * tick;
                let m = &mut self.markets[market];
                m.phase = matching::Phase::Auction;
                self.pause(market, false, price);
            }
            What::Halted => self.markets[market].halted = true,
            What::Resumed => self.markets[market].halted = false,
            _ => {}
        }
    }

    /// A pause lasts as long from now on as the new rules say.
    fn set_rules(&mut self, rules: Rules) {
        let before = std::mem::replace(&mut self.rules, rules);
        let same = (before.volatility_pause_us, before.volatility_end_us)
            == (rules.volatility_pause_us, rules.volatility_end_us);
        for market in 0..self.markets.len() {
            let m = &self.markets[market];
            if let Some(pause) = m.pause.filter(|_| !same) {
                let price = m.book.auction_price().map_or(0, |found| i64::from(found.0) * m.tick);
                self.pause(market, pause.extended, price);
            }
        }
    }

    /// A pause begins or goes on, before a trade at a price.
    fn pause(&mut self, market: usize, extended: bool, price: i64) {
        let until = self.now + self.rules.volatility_pause_us;
        let m = &mut self.markets[market];
        let symbol = m.symbol.as_ref().expect("listed").as_str();
        let position = self.pauses_at.pop_front().unwrap_or_default();
        let due = until + random_end_us(position, symbol, self.rules.volatility_end_us);
        m.pause = Some(Pause { due, extended });
        self.told.push(Told::State { market, state: TradingState::Auction, paused: true, price, until });
    }

    fn changed(&mut self, kind: OrderKind, number: u64, quantity: i64) {
        let order = self.order(number).clone();
        self.touched.insert(order.account);
        self.tell(kind, &order, None, quantity);
    }

    fn end(&mut self, kind: OrderKind, number: u64, quantity: i64, reason: matching::Reason) {
        let order = self.order(number);
        order.state = match kind {
            OrderKind::Rejected => OrderState::Rejected,
            OrderKind::Expired => OrderState::Expired,
            _ => OrderState::Canceled,
        };
        order.end = Some(Ended::book(reason));
        if let Some(why) = self.why.clone() {
            self.order(number).end = Some(why);
        }
        let order = self.order(number).clone();
        self.happened(order, Change::Ended);
        self.changed(kind, number, quantity);
        self.forget(number);
    }

    fn happened(&mut self, order: Order, what: Change) {
        let group = self.groups.get(&order.group);
        if group.is_some_and(|g| g.entry == Some(order.id) || g.exits.contains(&order.id)) {
            self.after.push_back(After { order, what });
        }
    }

    fn forget(&mut self, number: u64) {
        let id = self.numbers.remove(&number).expect("open");
        let order = self.orders.remove(&id).expect("open");
        self.users.get_mut(&order.user).expect("known").orders.remove(&id);
        self.ended.insert(id, order);
    }

    /// Both sides of a trade, in its own step.
    fn settle(
        &mut self,
        market: usize,
        (maker, taker): (u64, u64),
        price: i64,
        quantity: i64,
        aggressor: Option<Side>,
    ) {
        self.markets[market].last = price;
        let notional = i128::from(price) * i128::from(quantity);
        assert_eq!(notional % 100, 0, "price × quantity is exact in micros");
        let notional = notional / 100;
        let listing = self.markets[market].currency.expect("listed");
        let (mut realized, mut cost) = (0, 0);
        for (number, is_maker) in [(maker, true), (taker, false)] {
            let order = self.order(number);
            let before = order.posted();
            let total = if is_maker { &mut order.maker_notional } else { &mut order.taker_notional };
            *total += notional;
            order.filled += quantity;
            order.state =
                if order.filled == order.quantity { OrderState::Filled } else { OrderState::PartiallyFilled };
            let now = order.posted();
            let (principal, exchanged, fee) =
                (now.principal - before.principal, now.exchanged - before.exchanged, now.fee - before.fee);
            let (id, side, foreign) = (order.account, order.side, order.foreign);
            let account = self.accounts.get_mut(&id).expect("open");
            let currency = account.currency;
            let shares = account.shares.entry(market).or_default();
            let house = &mut self.house_cash;
            *house.entry((House::Fees, currency)).or_default() += fee;
            if side == Side::Buy {
                account.cash -= principal + fee;
                shares.quantity += i128::from(quantity);
                shares.cost += principal + fee;
                if foreign {
                    *house.entry((House::Fx, currency)).or_default() += exchanged;
                    *house.entry((House::Rounding, currency)).or_default() += principal - exchanged;
                    *house.entry((House::Fx, listing)).or_default() -= notional;
                }
            } else {
                account.cash += principal - fee;
                let rest = shares.quantity - i128::from(quantity);
                cost = shares.cost - Ratio::new(shares.cost * rest, shares.quantity).down();
                realized = principal - fee - cost;
                shares.quantity = rest;
                shares.cost -= cost;
                shares.realized += realized;
                if foreign {
                    *house.entry((House::Fx, listing)).or_default() += notional;
                    *house.entry((House::Fx, currency)).or_default() -= exchanged;
                    *house.entry((House::Rounding, currency)).or_default() += exchanged - principal;
                }
                if rest == 0 {
                    account.shares.remove(&market);
                }
            }
            self.touched.insert(id);
        }
        let (maker_seen, taker_seen) = (self.order(maker).seen(), self.order(taker).seen());
        self.told.push(Told::Trade {
            market,
            price,
            quantity,
            taker: taker_seen,
            maker: maker_seen,
            aggressor,
            realized: i64::try_from(realized).expect("within 64 bits"),
            cost: i64::try_from(cost).expect("within 64 bits"),
        });
        self.traded(maker, taker, quantity);
    }

    /// What follows from a trade that was told.
    fn traded(&mut self, maker: u64, taker: u64, quantity: i64) {
        for number in [taker, maker] {
            let order = self.order(number).clone();
            self.happened(order, Change::Filled(quantity));
        }
        for number in [maker, taker] {
            if self.order(number).state == OrderState::Filled {
                self.forget(number);
            }
        }
    }
}

/// What does not trade at once waits.
fn may_rest(terms: Terms, time: TimeInForce) -> bool {
    terms != Terms::Market && matches!(time, TimeInForce::Gtc | TimeInForce::Day | TimeInForce::Gtd)
}

/// A trail of the kind that the order has.
fn trails_by(terms: Terms, trail: Trail) -> bool {
    matches!(
        (terms, trail),
        (Terms::TrailingStop { trail: Trail::AmountE4(_) }, Trail::AmountE4(_))
            | (Terms::TrailingStop { trail: Trail::PercentE4(_) }, Trail::PercentE4(_))
    )
}

fn book_side(side: Side) -> matching::Side {
    match side {
        Side::Buy => matching::Side::Buy,
        Side::Sell => matching::Side::Sell,
    }
}

fn rules_side(side: matching::Side) -> Side {
    match side {
        matching::Side::Buy => Side::Buy,
        matching::Side::Sell => Side::Sell,
    }
}
