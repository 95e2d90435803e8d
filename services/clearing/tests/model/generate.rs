//! Commands by chance, most of them such that they can be done.

use crate::{exchange::Exchange, rng::Rng};
use fafnir_clearing::{
    account::{Currency, Kind},
    command::{Command, Endow, Flatten, Instruction, Instrument, NewGroup, NewOrder, Replace, RequestId},
    terms::Rules,
};
use fafnir_rules::{
    calendar::Session,
    check::Terms,
    order::{GroupKind, OrderType, SelfTrade, Side, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use uuid::Uuid;

const MICROS: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * MICROS;
const USERS: usize = 10;
/// Symbol, currency, tick, lot and first price.
const LISTINGS: [(&str, Currency, i64, i64, i64); 5] = [
    ("AAPL", Currency::Usd, 100, 10_000, 1_000_000),
    ("PENNY", Currency::Usd, 1, 10_000, 5_000),
    ("FRAC", Currency::Usd, 100, 1, 200_000),
    ("RY.TO", Currency::Cad, 100, 10_000, 1_230_000),
    ("HALF.TO", Currency::Cad, 50, 100, 4_000),
];

/// A command that named itself.
pub struct Used {
    pub command: Command,
    /// Position of its first fact.
    pub at: u64,
}

pub struct Generator {
    pub rng: Rng,
    pub now: i64,
    counter: u64,
    users: Vec<(Uuid, bool)>,
    gone: Vec<Uuid>,
    pub used: Vec<Used>,
    versions: [u64; LISTINGS.len()],
}

fn symbol(text: &str) -> Symbol {
    Symbol::parse(text).expect("a symbol")
}

impl Generator {
    pub fn new(seed: u64) -> Self {
        let mut new = Self {
            rng: Rng(seed),
            now: 1_700_000_000 * MICROS,
            counter: 0,
            users: Vec::new(),
            gone: Vec::new(),
            used: Vec::new(),
            versions: [0; LISTINGS.len()],
        };
        for n in 0..USERS {
            let id = new.id();
            new.users.push((id, n < 3));
        }
        new
    }

    fn id(&mut self) -> Uuid {
        self.counter += 1;
        Uuid::from_u128((u128::from(self.counter) << 64) | u128::from(self.rng.word()))
    }

    /// What an exchange begins with.
    pub fn beginning(&mut self) -> Vec<Command> {
        let rules = self.rules();
        let mut all = vec![
            self.system(Instruction::SetRules(rules)),
            self.system(Instruction::SetFees { maker_bp: 3, taker_bp: 7 }),
            self.system(Instruction::SetRate { usd_cad: 1_370_001 }),
        ];
        for market in 0..LISTINGS.len() {
            let listing = self.listing(market);
            all.push(self.system(Instruction::SetInstrument(Box::new(listing))));
        }
        all
    }

    #[expect(clippy::unused_self, reason = "reads like its neighbours")]
    fn system(&self, instruction: Instruction) -> Command {
        Command { user: Uuid::nil(), agent: false, id: None, trace: None, instruction }
    }

    fn rules(&mut self) -> Rules {
        Rules {
            opening: *self.rng.of(&[0, 500 * MICROS, 20_000 * MICROS]),
            open_orders_max: *self.rng.of(&[6, 20, 1_000]),
            deposit_max: *self.rng.of(&[10_000 * MICROS, 10_000_000 * MICROS]),
            deposits_per_day_max: *self.rng.of(&[15_000 * MICROS, 100_000_000 * MICROS]),
            account_max: *self.rng.of(&[100_000 * MICROS, 1_000_000_000 * MICROS]),
            recent_ids: *self.rng.of(&[20, 100, 262_144]),
            volatility_pause_us: *self.rng.of(&[1, 20_000, 120 * MICROS]),
            volatility_end_us: *self.rng.of(&[0, 10_000, 30 * MICROS]),
        }
    }

    fn listing(&mut self, market: usize) -> Instrument {
        let (text, currency, tick_e4, lot_e4, price) = LISTINGS[market];
        self.versions[market] += 1 + self.rng.below(2);
        Instrument {
            symbol: symbol(text),
            version: self.versions[market],
            currency,
            tick_e4,
            lot_e4,
            state: TradingState::Open,
            previous_close_e4: if self.rng.one_in(8) { 0 } else { price },
            band_bps: *self.rng.of(&[0, 0, 10, 60, 500, 2_000]),
        }
    }

    /// The next command; `position` is the exchange's.
    pub fn command(&mut self, model: &Exchange, position: u64) -> Command {
        self.now += match self.rng.below(400) {
            0 if self.rng.one_in(5) => self.rng.within(1, DAY_US / 4),
            1..20 => 0,
            _ => self.rng.within(1, 2_000),
        };
        if self.rng.one_in(30)
            && let Some(again) = self.again()
        {
            return again;
        }
        let (user, agent) = match self.gone.as_slice() {
            [.., last] if self.rng.one_in(300) => (*last, false),
            _ => *self.rng.of(&self.users),
        };
        let busy = self.rng.of(&self.users).0;
        let (user, agent) = match model.users.get(&busy) {
            // Who has orders has more to do.
            Some(of) if !of.closed && !of.orders.is_empty() && self.rng.one_in(2) => (busy, of.agent),
            _ => (user, agent),
        };
        let has = model.users.get(&user).map_or(0, |u| u.accounts.len());
        let instruction = match self.rng.below(1_000) {
            0..90 if has > 0 => self.new_group(model, user),
            90..100 => Instruction::CancelGroup { group: self.group(model, user) },
            100..560 if has > 0 => self.new_order(model, user),
            560..640 => Instruction::Cancel { order: self.order(model, user) },
            640..730 => self.replace(model, user),
            730..734 => {
                let symbol = self.rng.one_in(2).then(|| self.symbol());
                Instruction::CancelAll { symbol }
            }
            734..742 => Instruction::Flatten(Flatten {
                account: self.account_or_none(model, user),
                symbol: self.symbol(),
                order: self.id(),
            }),
            742..780 => self.deposit(model, user),
            780..800 => self.withdraw(model, user),
            800..840 => self.transfer(model, user),
            840..900 => return self.endow(model),
            900..903 => Instruction::CloseAccount { account: self.account(model, user) },
            903..904 if self.rng.one_in(3) => {
                let new = (self.id(), agent);
                if let Some(slot) = self.users.iter_mut().find(|u| u.0 == user) {
                    *slot = new;
                    self.gone.push(user);
                }
                Instruction::CloseUser
            }
            904..970 => return self.of_system(model),
            _ if has < 4 || self.rng.one_in(50) => Instruction::OpenAccount {
                account: if self.rng.one_in(20) { self.account(model, user) } else { self.id() },
                kind: if self.rng.one_in(5) { *self.rng.of(&Kind::ALL) } else { Kind::Investment },
                currency: *self.rng.of(&Currency::ALL),
                opening: self.rng.one_in(2),
            },
            _ => self.deposit(model, user),
        };
        let id = self.name(&instruction, position);
        Command { user, agent, id, trace: None, instruction }
    }

    /// A name for what has one: a client's key that the door did not find, or the door's own.
    fn name(&mut self, instruction: &Instruction, position: u64) -> Option<RequestId> {
        if matches!(
            instruction,
            Instruction::Cancel { .. }
                | Instruction::CancelGroup { .. }
                | Instruction::CancelAll { .. }
                | Instruction::CloseUser
        ) {
            return None;
        }
        let looked_until = match self.rng.below(20) {
            0..10 => None,
            _ if !self.rng.one_in(40) => Some(position.saturating_sub(self.rng.below(5))),
            _ => Some(self.rng.below(position + 1)),
        };
        let key = if looked_until.is_some() { format!("key-{}", self.counter) } else { String::new() };
        Some(RequestId { hash: self.rng.wide(), payload: self.rng.wide(), looked_until, key: key.into() })
    }

    /// A command once more, as it was or with something else under its name. The door looked before it was done.
    fn again(&mut self) -> Option<Command> {
        let recent = self.used.len().saturating_sub(if self.rng.one_in(2) { 8 } else { 150 });
        let from = self.used.get(recent..).filter(|used| !used.is_empty())?;
        let used = self.rng.of(from);
        let mut command = used.command.clone();
        let at = used.at;
        let id = command.id.as_mut().expect("it has a name");
        if id.looked_until.is_some() {
            id.looked_until = Some(at.saturating_sub(1 + self.rng.below(3)));
        } else if self.used.len() - recent > 8 {
            // The door's own id comes again at once or never.
            return None;
        }
        if self.rng.one_in(5) {
            id.payload ^= 1;
        }
        Some(command)
    }

    fn symbol(&mut self) -> Symbol {
        if self.rng.one_in(300) { symbol("NONE") } else { symbol(self.rng.of(&LISTINGS).0) }
    }

    /// An account of the user, rarely another's.
    fn account(&mut self, model: &Exchange, user: Uuid) -> Uuid {
        let own = model.users.get(&user).map_or(&[][..], |u| &u.accounts);
        if own.is_empty() || self.rng.one_in(60) {
            let all: Vec<Uuid> = model.accounts.keys().copied().collect();
            if all.is_empty() || self.rng.one_in(2) { self.id() } else { *self.rng.of(&all) }
        } else {
            *self.rng.of(own)
        }
    }

    /// An account that trades, rarely any or none named, and its free shares.
    fn trader(&mut self, model: &Exchange, user: Uuid, market: usize) -> (Option<Uuid>, i64) {
        let own = model.users.get(&user).map_or(&[][..], |u| &u.accounts);
        let trade = |id: &Uuid| model.accounts[id].kind == Kind::Investment;
        let own: Vec<Uuid> = own.iter().copied().filter(trade).collect();
        if own.is_empty() || self.rng.one_in(30) {
            return (self.account_or_none(model, user), 0);
        }
        let account = *self.rng.of(&own);
        let free = model.shares(account, market) - model.shares_held(account, market);
        (Some(account), i64::try_from(free).expect("within 64 bits"))
    }

    fn account_or_none(&mut self, model: &Exchange, user: Uuid) -> Option<Uuid> {
        (!self.rng.one_in(3)).then(|| self.account(model, user))
    }

    /// An open order of the user, rarely another's.
    fn order(&mut self, model: &Exchange, user: Uuid) -> Uuid {
        let own: Vec<Uuid> =
            model.users.get(&user).map_or_else(Vec::new, |u| u.orders.iter().copied().collect());
        let all: Vec<Uuid> = model.orders.keys().copied().collect();
        match (own.is_empty(), all.is_empty()) {
            (false, _) if !self.rng.one_in(40) => *self.rng.of(&own),
            (_, false) if self.rng.one_in(2) => *self.rng.of(&all),
            _ => self.id(),
        }
    }

    /// A price near the market, rarely off the tick or far away.
    fn price(&mut self, model: &Exchange, market: usize) -> i64 {
        let m = &model.markets[market];
        let base = m.reference().unwrap_or(LISTINGS[market].4) / m.tick;
        let ticks = match self.rng.below(60) {
            0 => base * 2,
            1..8 => base + self.rng.within(-(base / 12), base / 12),
            _ => base + self.rng.within(-6, 6),
        };
        let off = i64::from(self.rng.one_in(200));
        ticks.max(1) * m.tick + off
    }

    fn quantity(&mut self, model: &Exchange, market: usize) -> i64 {
        let lot = model.markets[market].lot;
        match self.rng.below(100) {
            0 => lot / 2,
            1 => lot * 3 + 1,
            _ if lot == 1 => self.rng.within(1, 60_000),
            _ => lot * self.rng.within(1, 30),
        }
    }

    fn new_order(&mut self, model: &Exchange, user: Uuid) -> Instruction {
        let symbol = self.symbol();
        let market = model.market(&symbol).unwrap_or(0);
        let (account, free) = self.trader(model, user, market);
        let side = if free > 0 && self.rng.one_in(2) {
            Side::Sell
        } else {
            *self.rng.of(&[Side::Buy, Side::Buy, Side::Sell])
        };
        let (price_e4, stop_e4) = (self.price(model, market), self.price(model, market));
        let tick = model.markets[market].tick;
        let terms = match self.rng.below(20) {
            0..3 => Terms::Market,
            3 => Terms::Stop { stop_e4 },
            4 => Terms::StopLimit { price_e4, stop_e4 },
            5 => {
                let trail = Trail::AmountE4(tick * self.rng.within(1, 8));
                Terms::TrailingStop { trail }
            }
            6 => Terms::TrailingStop { trail: Trail::PercentE4(100 * self.rng.within(1, 300)) },
            _ => Terms::Limit { price_e4 },
        };
        let mut quantity_e4 = self.quantity(model, market);
        let lot = model.markets[market].lot;
        if side == Side::Sell && quantity_e4 > free && !self.rng.one_in(10) {
            quantity_e4 = (free / lot * lot).max(lot);
        }
        let time = *self.rng.of(terms.order_type().times());
        let hides = terms.order_type().may_hide(time) && self.rng.one_in(8);
        let names_worth =
            matches!(terms, Terms::Market | Terms::Limit { .. }) && !hides && self.rng.one_in(12);
        let notional = if names_worth { self.rng.within(0, 2_000 * MICROS) } else { 0 };
        if notional != 0 && !self.rng.one_in(30) {
            quantity_e4 = 0;
        }
        let order = if self.rng.one_in(300) { self.order(model, user) } else { self.id() };
        let expires_us = if time == TimeInForce::Gtd { self.now + self.rng.within(1, 400_000) } else { 0 };
        Instruction::New(Box::new(NewOrder {
            order,
            account,
            symbol,
            side,
            terms,
            time,
            quantity_e4,
            notional,
            display_e4: if hides { (quantity_e4 / lot / 3).max(1) * lot } else { 0 },
            post_only: terms.order_type().may_post_only(time) && self.rng.one_in(8),
            stp: *self.rng.of(SelfTrade::ALL),
            expires_us,
        }))
    }

    /// A group of the user, rarely any.
    fn group(&mut self, model: &Exchange, user: Uuid) -> Uuid {
        let own: Vec<Uuid> = model.orders.values().filter(|o| o.user == user).map(|o| o.group).collect();
        if own.is_empty() || self.rng.one_in(30) { self.id() } else { *self.rng.of(&own) }
    }

    /// A group whose prices mostly go together: an entry near the market, a target above it, a stop below.
    fn new_group(&mut self, model: &Exchange, user: Uuid) -> Instruction {
        let symbol = self.symbol();
        let market = model.market(&symbol).unwrap_or(0);
        let m = &model.markets[market];
        let (account, free) = self.trader(model, user, market);
        let (tick, lot) = (m.tick, m.lot);
        let base = m.reference().unwrap_or(LISTINGS[market].4) / tick;
        let kind = *self.rng.of(GroupKind::ALL);
        let terms = self.group_terms(kind, base, tick);
        let mut quantity_e4 = self.quantity(model, market);
        if kind == GroupKind::Oco && quantity_e4 > free && !self.rng.one_in(10) {
            quantity_e4 = (free / lot * lot).max(lot);
        }
        let stp = *self.rng.of(SelfTrade::ALL);
        let ends = match self.rng.below(12) {
            0 => TimeInForce::Day,
            1 => TimeInForce::Gtd,
            _ => TimeInForce::Gtc,
        };
        let expires_us = self.now + self.rng.within(1, 400_000);
        let (post_only, hides) = (self.rng.one_in(10), self.rng.one_in(10));
        let legs = terms.into_iter().zip(0..).map(|(terms, at)| {
            let is_entry = kind.has_entry() && at == 0;
            let time = match terms.order_type() {
                OrderType::Market => TimeInForce::Ioc,
                _ if is_entry || !kind.has_entry() => ends,
                _ => TimeInForce::Gtc,
            };
            let side = if is_entry { Side::Buy } else { Side::Sell };
            let (order, order_type) = (self.id(), terms.order_type());
            NewOrder {
                order,
                account,
                symbol: symbol.clone(),
                side,
                terms,
                time,
                quantity_e4,
                notional: 0,
                display_e4: if is_entry && hides && order_type.may_hide(time) {
                    (quantity_e4 / lot / 3).max(1) * lot
                } else {
                    0
                },
                post_only: is_entry && post_only && order_type.may_post_only(time),
                stp,
                expires_us: if time == TimeInForce::Gtd { expires_us } else { 0 },
            }
        });
        let legs: Vec<NewOrder> = legs.collect();
        let group = if self.rng.one_in(40) { self.group(model, user) } else { self.id() };
        Instruction::NewGroup(Box::new(NewGroup { group, kind, legs }))
    }

    /// What the orders of a group do, around a price in ticks.
    fn group_terms(&mut self, kind: GroupKind, base: i64, tick: i64) -> Vec<Terms> {
        let wild = self.rng.one_in(12);
        let mut near = |from: i64, to: i64| {
            let ticks = if wild { self.rng.within(-9, 9) } else { self.rng.within(from, to) };
            (base + ticks).max(1) * tick
        };
        let (entry, target, stop, limit) = (near(-3, 4), near(2, 9), near(-9, -2), near(-12, -6));
        let entry = match self.rng.below(8) {
            0..2 => Terms::Market,
            2 => Terms::Stop { stop_e4: target },
            _ => Terms::Limit { price_e4: entry },
        };
        let stop = match self.rng.below(6) {
            0 => Terms::StopLimit { price_e4: limit, stop_e4: stop },
            1 => Terms::TrailingStop { trail: Trail::AmountE4(tick * self.rng.within(1, 8)) },
            _ => Terms::Stop { stop_e4: stop },
        };
        let target = Terms::Limit { price_e4: target };
        let mut terms = match kind {
            GroupKind::Oco => vec![target, stop],
            GroupKind::Bracket => vec![entry, target, stop],
            GroupKind::Oto => vec![entry, if self.rng.one_in(2) { target } else { stop }],
        };
        if self.rng.one_in(40) {
            terms.reverse();
        }
        terms
    }

    fn replace(&mut self, model: &Exchange, user: Uuid) -> Instruction {
        let order = self.order(model, user);
        let known = model.orders.get(&order);
        let market = known.map_or(0, |o| o.market);
        let of = known.map(|o| o.terms.order_type());
        let mut replace = Replace { order, quantity_e4: 0, price_e4: 0, stop_e4: 0, trail: None, version: 0 };
        let any = self.rng.one_in(40);
        if self.rng.one_in(2) {
            replace.quantity_e4 = self.quantity(model, market);
        }
        if self.rng.one_in(2) && (any || of.is_some_and(OrderType::has_price)) {
            replace.price_e4 = self.price(model, market);
        }
        if self.rng.one_in(2) && (any || of.is_some_and(OrderType::has_stop)) {
            replace.stop_e4 = self.price(model, market);
        }
        if self.rng.one_in(2) && (any || of.is_some_and(OrderType::has_trail)) {
            let tick = model.markets[market].tick;
            let by_amount = match known.map(|o| o.terms) {
                Some(Terms::TrailingStop { trail: Trail::AmountE4(_) }) => !self.rng.one_in(10),
                _ => self.rng.one_in(10),
            };
            replace.trail = Some(if by_amount {
                Trail::AmountE4(tick * self.rng.within(0, 8))
            } else {
                Trail::PercentE4(100 * self.rng.within(0, 300))
            });
        }
        if self.rng.one_in(4) {
            replace.version = known.map_or(1, |o| o.version) + u32::from(self.rng.one_in(10));
        }
        Instruction::Replace(replace)
    }

    fn money(&mut self) -> i64 {
        match self.rng.below(40) {
            0 => self.rng.within(-5, 5),
            1 => 10_000_001 * MICROS,
            2..6 => self.rng.within(1, 1_000),
            6..20 => self.rng.within(1, 50 * MICROS),
            _ => self.rng.within(1, 9_000 * MICROS),
        }
    }

    /// The account's currency, rarely the other.
    fn currency(&mut self, model: &Exchange, account: Uuid) -> Currency {
        let own = model.accounts.get(&account).map_or(Currency::Usd, |a| a.currency);
        if self.rng.one_in(100) { *self.rng.of(&Currency::ALL) } else { own }
    }

    fn deposit(&mut self, model: &Exchange, user: Uuid) -> Instruction {
        let account = self.account(model, user);
        Instruction::Deposit { account, currency: self.currency(model, account), amount: self.money() }
    }

    /// What is there, or a part of it, or more.
    fn amount_of(&mut self, model: &Exchange, account: Uuid) -> i64 {
        let free = model.accounts.get(&account).map_or(0, |_| model.cash_free(account));
        let free = i64::try_from(free).expect("within 64 bits");
        match self.rng.below(6) {
            0 => free,
            1 => free + 1,
            2 => self.money(),
            _ => self.rng.within(0, free.max(1)),
        }
    }

    fn withdraw(&mut self, model: &Exchange, user: Uuid) -> Instruction {
        let account = self.account(model, user);
        let amount = self.amount_of(model, account);
        Instruction::Withdraw { account, currency: self.currency(model, account), amount }
    }

    fn transfer(&mut self, model: &Exchange, user: Uuid) -> Instruction {
        let (from, to) = (self.account(model, user), self.account(model, user));
        let amount = self.amount_of(model, from);
        Instruction::Transfer { from, to, currency: self.currency(model, from), amount }
    }

    fn endow(&mut self, model: &Exchange) -> Command {
        let (user, agent) = *self.rng.of(&self.users);
        let account = self.account(model, user);
        let user = model.accounts.get(&account).map_or(user, |a| a.user);
        let symbol = self.symbol();
        let market = model.market(&symbol).unwrap_or(0);
        let gives_shares = !self.rng.one_in(4);
        let endow = Endow {
            account,
            currency: (!self.rng.one_in(3)).then(|| self.currency(model, account)),
            amount: if self.rng.one_in(4) { self.rng.within(1, 100_000 * MICROS) } else { 0 },
            symbol: gives_shares.then_some(symbol),
            quantity_e4: if gives_shares { 20 * self.quantity(model, market) } else { 0 },
            cost_price_e4: self.price(model, market),
        };
        let agent = self.users.iter().find(|u| u.0 == user).map_or(agent, |u| u.1);
        Command { user, agent, id: None, trace: None, instruction: Instruction::Endow(endow) }
    }

    /// Most of the time a session, and what comes after one; rarely none at all.
    fn session(&mut self, model: &Exchange) -> Instruction {
        let session = match model.session {
            Session::Regular if self.rng.one_in(2) => Session::PreOpen,
            Session::PreOpen | Session::Regular if !self.rng.one_in(6) => Session::Regular,
            _ => *self.rng.of(&[Session::Always, Session::PreOpen, Session::Regular]),
        };
        Instruction::SetSession { session }
    }

    fn of_system(&mut self, model: &Exchange) -> Command {
        let instruction = match self.rng.below(100) {
            0..25 => {
                let symbol = self.symbol();
                let is_open =
                    model.market(&symbol).is_some_and(|m| model.markets[m].state == Some(TradingState::Open));
                let state = match self.rng.below(8) {
                    _ if !is_open && !self.rng.one_in(4) => TradingState::Open,
                    0 => TradingState::Halted,
                    1 => TradingState::Auction,
                    2 => TradingState::PreOpen,
                    3 if self.rng.one_in(3) => TradingState::Closed,
                    _ => TradingState::Open,
                };
                Instruction::SetState { symbol, state }
            }
            25..40 => Instruction::Reopen { symbol: self.symbol() },
            40..48 => {
                let market = self.rng.below(LISTINGS.len() as u64) as usize;
                Instruction::SetInstrument(Box::new(self.listing(market)))
            }
            48..54 => Instruction::SetFees {
                maker_bp: *self.rng.of(&[0, 3, 25, 999, 1_001]),
                taker_bp: *self.rng.of(&[0, 1, 10, 1_000]),
            },
            54..60 => {
                let usd_cad = match self.rng.below(8) {
                    0 => 5,
                    1 => MICROS,
                    _ => self.rng.within(MICROS / 2, 3 * MICROS),
                };
                Instruction::SetRate { usd_cad }
            }
            60..62 => Instruction::SetRules(self.rules()),
            62..64 => {
                self.now += self.rng.within(1, DAY_US);
                Instruction::DayEnd
            }
            64..76 => Instruction::Expire,
            76..86 => self.session(model),
            _ => {
                // What is paused, at its time or about then, or anything.
                let paused = model.markets.iter().find_map(|m| Some((m.symbol.clone()?, m.pause()?.due)));
                if let Some((_, due)) = &paused
                    && self.rng.one_in(3)
                {
                    self.now = self.now.max(due - i64::from(self.rng.one_in(4)));
                }
                let symbol = paused.map_or_else(|| self.symbol(), |(symbol, _)| symbol);
                Instruction::Reopen { symbol }
            }
        };
        self.system(instruction)
    }
}
