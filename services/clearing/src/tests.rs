//! Scenarios of the core, each from the rules; the naive model under `tests/` covers the rest.

use crate::{
    State,
    account::{ACCOUNTS_MAX, Currency, Kind, MICROS},
    codec::Malformed,
    command::{Command, Endow, Flatten, Instruction, Instrument, NewOrder, Replace, RequestId},
    fact::{Answer, Done, End, Fact, OrderKind, What},
    refusal::Refusal,
    step,
    terms::Rules,
};
use fafnir_rules::{
    check::Terms,
    order::{OrderState, SelfTrade, Side, TradingState},
    symbol::Symbol,
};
use std::collections::BTreeMap;
use uuid::Uuid;

mod groups;

const A: u128 = 0xA;
const B: u128 = 0xB;
const HOUR_US: i64 = 3_600_000_000;

/// A small exchange: AAPL in USD, SHOP in CAD, two users with an account each, A with shares.
struct Exchange {
    state: State,
    facts: Vec<Fact>,
    orders: u128,
    /// By how much the next command comes later than at once.
    later_us: i64,
}

fn symbol(text: &str) -> Symbol {
    Symbol::parse(text).unwrap()
}

fn user(number: u128) -> Uuid {
    Uuid::from_u128(number << 64)
}

fn account(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

impl Exchange {
    fn empty() -> Self {
        Self { state: State::new(), facts: Vec::new(), orders: 0x1000, later_us: 0 }
    }

    fn new() -> Self {
        let mut e = Self::empty();
        e.system(Instruction::SetRules(Rules { opening: 0, ..Rules::default() }));
        e.system(Instruction::SetFees { maker_bp: 0, taker_bp: 0 });
        e.system(Instruction::SetRate { usd_cad: 1_370_000 });
        for (name, currency) in [("AAPL", Currency::Usd), ("SHOP", Currency::Cad)] {
            let listing = Instrument {
                symbol: symbol(name),
                version: 1,
                currency,
                tick_e4: 100,
                lot_e4: 10_000,
                state: TradingState::Open,
                previous_close_e4: 1_000_000,
                band_bps: 0,
            };
            e.system(Instruction::SetInstrument(Box::new(listing)));
        }
        for who in [A, B] {
            let (account, kind) = (account(who), Kind::Investment);
            e.done(who, Instruction::OpenAccount { account, kind, currency: Currency::Usd, opening: false });
            e.done(who, Instruction::Deposit { account, currency: Currency::Usd, amount: 100_000 * MICROS });
        }
        e.endow(A, "AAPL", 100);
        e
    }

    fn endow(&mut self, who: u128, name: &str, shares: i64) {
        self.system(Instruction::Endow(Endow {
            account: account(who),
            currency: None,
            amount: 0,
            symbol: Some(symbol(name)),
            quantity_e4: shares * 10_000,
            cost_price_e4: 500_000,
        }));
    }

    fn later(&mut self, us: i64) {
        self.later_us = us;
    }

    fn run(&mut self, command: Command) -> Answer {
        let mut bytes = Vec::new();
        command.encode(&mut bytes);
        assert_eq!(Command::decode(&bytes), Ok(command.clone()));
        let before = self.facts.len();
        let (seq, now) = (self.state.seq() + 1, self.state.time_us().max(HOUR_US) + 1 + self.later_us);
        self.later_us = 0;
        let answer = step(&mut self.state, seq, now, &command, &mut self.facts);
        if matches!(answer, Answer::Refused(_) | Answer::Known(_)) {
            assert_eq!(self.facts.len(), before, "{answer:?}");
        }
        self.check();
        answer
    }

    /// The invariants of exchange-rules §6, and that the state is its own snapshot.
    fn check(&self) {
        let mut held = BTreeMap::new();
        for order in self.state.orders() {
            let asset = (order.side == Side::Sell).then_some(order.market);
            *held.entry((order.account, asset)).or_insert(0) += order.hold.held;
        }
        let mut sums = BTreeMap::new();
        for a in self.state.accounts_after(Uuid::nil(), usize::MAX) {
            assert_eq!(a.cash.held, held.remove(&(a.id, None)).unwrap_or(0));
            *sums.entry(crate::account::Asset::Cash(a.currency)).or_insert(0) += i128::from(a.cash.posted);
            for (market, h) in &a.holdings {
                assert_eq!(h.held, held.remove(&(a.id, Some(*market))).unwrap_or(0));
                *sums.entry(crate::account::Asset::Shares(*market)).or_insert(0) += i128::from(h.posted);
            }
        }
        assert!(held.values().all(|sum| *sum == 0), "{held:?}");
        for (_, asset, amount) in self.state.house() {
            *sums.entry(asset).or_insert(0) += amount;
        }
        assert!(sums.values().all(|sum| *sum == 0), "{sums:?}");
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        let mut again = Vec::new();
        State::decode(&bytes).unwrap().encode(&mut again);
        assert_eq!(bytes, again);
        let positions: Vec<_> = self.facts.iter().map(|f| f.position).collect();
        assert_eq!(positions, (1..=self.facts.len() as u64).collect::<Vec<_>>());
    }

    fn system(&mut self, instruction: Instruction) -> Done {
        self.unnamed(Uuid::nil(), instruction)
    }

    fn done(&mut self, who: u128, instruction: Instruction) -> Done {
        self.unnamed(user(who), instruction)
    }

    fn unnamed(&mut self, user: Uuid, instruction: Instruction) -> Done {
        match self.run(Command { user, agent: false, id: None, trace: None, instruction }) {
            Answer::Done(done) => done,
            other => panic!("{other:?}"),
        }
    }

    fn refused(&mut self, who: u128, instruction: Instruction) -> Refusal {
        match self.run(Command { user: user(who), agent: false, id: None, trace: None, instruction }) {
            Answer::Refused(refusal) => refusal,
            other => panic!("{other:?}"),
        }
    }

    fn new_order(&mut self, name: &str, side: Side, shares: i64, terms: Terms) -> NewOrder {
        self.orders += 1;
        let time = terms.order_type().default_time();
        NewOrder {
            order: Uuid::from_u128(self.orders),
            account: None,
            symbol: symbol(name),
            side,
            terms,
            time,
            quantity_e4: shares * 10_000,
            notional: 0,
            display_e4: 0,
            post_only: false,
            stp: SelfTrade::CancelNewest,
            expires_us: 0,
        }
    }

    fn place(&mut self, who: u128, side: Side, shares: i64, price: i64) -> crate::order::Order {
        let new = self.new_order("AAPL", side, shares, Terms::Limit { price_e4: price * 10_000 });
        *self.done(who, Instruction::New(Box::new(new))).order.unwrap()
    }

    fn cash(&self, who: u128) -> (i64, i64) {
        let cash = self.state.account(account(who)).unwrap().cash;
        (cash.posted / MICROS, cash.held / MICROS)
    }

    fn shares(&self, who: u128) -> (i64, i64) {
        let holding = self.state.account(account(who)).unwrap().holdings.get(&0).copied().unwrap_or_default();
        (holding.posted / 10_000, holding.held / 10_000)
    }
}

#[test]
fn currencies_are_those_that_listings_may_have() {
    assert_eq!(Currency::ALL.map(Currency::code), fafnir_rules::money::CURRENCIES);
}

#[test]
fn a_trade_is_settled_in_the_step_that_makes_it() {
    let mut e = Exchange::new();
    let sell = e.place(A, Side::Sell, 10, 90);
    assert_eq!((sell.state, e.shares(A)), (OrderState::New, (100, 10)));
    let buy = e.place(B, Side::Buy, 4, 95);
    assert_eq!((buy.state, buy.filled_e4, buy.notional()), (OrderState::Filled, 40_000, 360 * MICROS));
    assert_eq!((e.cash(A), e.cash(B)), ((100_360, 0), (99_640, 0)));
    assert_eq!((e.shares(A), e.shares(B)), ((96, 6), (4, 0)));
    let What::Executed(trade) = &e.facts.last().unwrap().what else { panic!("{:?}", e.facts.last()) };
    assert_eq!((trade.realized, trade.cost), (160 * MICROS, 200 * MICROS));
    assert_eq!((trade.postings.len(), trade.maker.order.open_e4()), (4, 60_000));
    assert_eq!(trade.buyer.account.cash.posted, 99_640 * MICROS);
}

#[test]
fn what_is_not_covered_is_a_rejected_order_and_holds_nothing() {
    let mut e = Exchange::new();
    let order = e.place(B, Side::Buy, 2_000, 100);
    assert_eq!(order.state, OrderState::Rejected);
    let Some(End::Refused(why)) = order.end else { panic!("{order:?}") };
    assert!(matches!(*why, Refusal::InsufficientFunds { .. }));
    assert_eq!((e.cash(B), e.state.open_orders()), ((100_000, 0), 0));
}

#[test]
fn a_replace_moves_the_hold_and_a_cancel_releases_it() {
    let mut e = Exchange::new();
    let order = e.place(B, Side::Buy, 10, 90);
    assert_eq!(e.cash(B), (100_000, 900));
    let change = |price| Replace {
        order: order.id,
        quantity_e4: 0,
        price_e4: price,
        stop_e4: 0,
        trail: None,
        version: 1,
    };
    let replaced = e.done(B, Instruction::Replace(change(1_000_000))).order.unwrap();
    assert_eq!((replaced.version, replaced.cap_e4, e.cash(B)), (2, 1_000_000, (100_000, 1_000)));
    let refusal = e.refused(B, Instruction::Replace(change(950_000)));
    assert_eq!(refusal, Refusal::VersionDiffers { asked: 1, is: 2 });
    assert_eq!(e.refused(A, Instruction::Cancel { order: order.id }), Refusal::OrderNotOpen(order.id));
    let canceled = e.done(B, Instruction::Cancel { order: order.id }).order.unwrap();
    assert_eq!((canceled.state, e.cash(B)), (OrderState::Canceled, (100_000, 0)));
}

#[test]
fn a_key_has_one_effect_and_belongs_to_one_request() {
    let mut e = Exchange::new();
    let deposit = |amount, payload, looked_until| Command {
        user: user(B),
        agent: false,
        id: Some(RequestId { hash: 7, payload, looked_until: Some(looked_until), key: "k".into() }),
        trace: None,
        instruction: Instruction::Deposit { account: account(B), currency: Currency::Usd, amount },
    };
    let Answer::Done(done) = e.run(deposit(MICROS, 1, 0)) else { panic!() };
    assert_eq!(done.known.amount, 100_001 * MICROS);
    assert_eq!(e.run(deposit(MICROS, 1, 0)), Answer::Known(done.known));
    assert_eq!(e.run(deposit(2 * MICROS, 2, 0)), Answer::Refused(Refusal::KeyReused("k".into())));
    let named = e.facts.iter().filter_map(|f| f.named.as_ref()).count();
    assert_eq!((named, e.cash(B).0), (1, 100_001));
    e.system(Instruction::SetRules(Rules { opening: 0, recent_ids: 1, ..Rules::default() }));
    let mut other = deposit(MICROS, 3, e.state.position());
    other.id.as_mut().unwrap().hash = 8;
    assert!(matches!(e.run(other), Answer::Done(_)));
    assert_eq!(e.run(deposit(MICROS, 1, 0)), Answer::Refused(Refusal::ProjectionBehind));
}

#[test]
fn flatten_cancels_and_sells_what_is_there() {
    let mut e = Exchange::new();
    for _ in 0..10 {
        e.place(A, Side::Sell, 10, 110);
    }
    e.place(B, Side::Buy, 60, 99);
    let flatten = |order| {
        Instruction::Flatten(Flatten { account: None, symbol: symbol("AAPL"), order: Uuid::from_u128(order) })
    };
    let done = e.done(A, flatten(1));
    assert_eq!((done.canceled, done.left_e4), (10, 400_000));
    assert_eq!(done.order.unwrap().filled_e4, 600_000);
    assert!(done.why.is_some());
    e.place(B, Side::Buy, 40, 99);
    let done = e.done(A, flatten(2));
    assert_eq!((done.canceled, done.left_e4, done.why), (0, 0, None));
    let done = e.done(A, flatten(3));
    assert_eq!((done.left_e4, done.why), (0, None));
}

#[test]
fn closing_cancels_releases_and_moves_the_residue_in_one_step() {
    let mut e = Exchange::new();
    e.place(A, Side::Sell, 10, 110);
    e.place(A, Side::Buy, 10, 80);
    let done = e.done(A, Instruction::CloseAccount { account: account(A) });
    assert_eq!((done.canceled, done.account.unwrap().closed), (2, true));
    assert!(e.state.account(account(A)).is_none());
    let ends = e.facts.iter().filter_map(|f| match &f.what {
        What::Order(o) if o.kind == OrderKind::Canceled => o.order.order.end.clone(),
        _ => None,
    });
    assert_eq!(ends.collect::<Vec<_>>(), [End::AccountClosing, End::AccountClosing]);
    e.done(B, Instruction::CloseUser);
    let new = e.new_order("AAPL", Side::Buy, 1, Terms::Limit { price_e4: 900_000 });
    assert_eq!(e.refused(B, Instruction::New(Box::new(new))), Refusal::UserClosed);
    assert_eq!(e.state.house().count(), 0, "the residue is the house's again");
}

#[test]
fn deposits_are_bounded_and_the_next_day_is_new() {
    let mut e = Exchange::new();
    let deposit = |millions: i64| Instruction::Deposit {
        account: account(A),
        currency: Currency::Usd,
        amount: millions * 1_000_000 * MICROS,
    };
    assert!(matches!(e.refused(A, deposit(11)), Refusal::AmountOutOfRange { .. }));
    for _ in 0..9 {
        e.done(A, deposit(10));
    }
    assert!(matches!(e.refused(A, deposit(10)), Refusal::DepositsOfDay { .. }));
    let next_day = 86_400_000_000 + HOUR_US;
    let end =
        Command { user: Uuid::nil(), agent: false, id: None, trace: None, instruction: Instruction::DayEnd };
    let seq = e.state.seq() + 1;
    step(&mut e.state, seq, next_day, &end, &mut e.facts);
    e.done(A, deposit(10));
}

#[test]
fn an_account_in_another_currency_pays_through_the_house() {
    let mut e = Exchange::new();
    let mut new = e.new_order("SHOP", Side::Buy, 10, Terms::Limit { price_e4: 1_000_001 / 100 * 100 });
    new.account = Some(account(B));
    let order = e.done(B, Instruction::New(Box::new(new))).order.unwrap();
    // 10 × 100 CAD at 1.37, rounded up; no buffer: the rate is that of acceptance.
    assert_eq!(order.hold.held, 729_927_008);
    e.endow(A, "SHOP", 10);
    let mut new = e.new_order("SHOP", Side::Sell, 10, Terms::Limit { price_e4: 990_000 });
    new.account = Some(account(A));
    e.done(A, Instruction::New(Box::new(new)));
    let (a, b) = (account(A), account(B));
    let cash = |e: &Exchange, id| e.state.account(id).unwrap().cash.posted - 100_000 * MICROS;
    assert_eq!((cash(&e, a), cash(&e, b)), (729_927_007, -729_927_008));
}

#[test]
fn a_trailing_stop_that_moves_is_a_fact() {
    let mut e = Exchange::new();
    e.endow(B, "AAPL", 10);
    e.place(A, Side::Sell, 1, 100);
    e.place(B, Side::Buy, 1, 100);
    let trail = fafnir_rules::price::Trail::AmountE4(20_000);
    let new = e.new_order("AAPL", Side::Sell, 5, Terms::TrailingStop { trail });
    let id = new.order;
    let placed = e.done(B, Instruction::New(Box::new(new))).order.unwrap();
    assert_eq!((placed.state, placed.stop_e4), (OrderState::Held, 980_000));
    e.place(A, Side::Sell, 1, 105);
    e.place(B, Side::Buy, 1, 105);
    assert_eq!(e.state.order(id).unwrap().stop_e4, 1_030_000);
    let moved = |f: &&Fact| matches!(&f.what, What::Order(o) if o.kind == OrderKind::StopMoved);
    assert_eq!(e.facts.iter().filter(moved).count(), 1);
}

#[test]
fn a_state_of_other_bytes_is_refused_and_never_panics() {
    let mut e = Exchange::new();
    e.place(A, Side::Sell, 10, 90);
    let mut bytes = Vec::new();
    e.state.encode(&mut bytes);
    assert_eq!(State::decode(&bytes[..bytes.len() - 1]).err(), Some(Malformed("it is cut off")));
    for at in 0..bytes.len() {
        let mut other = bytes.clone();
        other[at] ^= 0x41;
        let _either = State::decode(&other).is_ok();
    }
}

#[test]
fn a_hundred_open_accounts_are_the_most_and_closed_ones_do_not_count() {
    let mut e = Exchange::new();
    let open = |number: u128| Instruction::OpenAccount {
        account: account(0x1_0000 + number),
        kind: Kind::Savings,
        currency: Currency::Cad,
        opening: false,
    };
    // A has one already.
    for number in 1..ACCOUNTS_MAX as u128 {
        e.done(A, open(number));
    }
    let refusal = e.refused(A, open(200));
    assert_eq!(refusal, Refusal::TooManyAccounts { max: 100 });
    assert_eq!(refusal.sentence(), "a user may have at most 100 open accounts");
    // Somebody else may, and A again once one is closed, over and over.
    e.done(B, open(201));
    for round in 0..120 {
        let last = if round == 0 { 1 } else { 300 + round - 1 };
        e.done(A, Instruction::CloseAccount { account: account(0x1_0000 + last) });
        e.done(A, open(300 + round));
        assert_eq!(e.refused(A, open(999)), Refusal::TooManyAccounts { max: 100 });
    }
}
