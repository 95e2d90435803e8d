//! The ends of the numbers: amounts beyond 64 bits are refused, the house's are counted, and nothing panics.

use crate::{Cores, exchange::name, number, observed::Observed, rng::Rng};
use fafnir_clearing::{
    account::{Asset, Currency, House, Kind},
    command::{Command, Endow, Flatten, Instruction, Instrument, NewOrder, Replace, RequestId},
    fact::Answer,
    money::ENDOWMENT_MAX,
    refusal::Refusal,
    terms::Rules,
};
use fafnir_rules::{
    calendar::Session,
    check::Terms,
    order::{SelfTrade, Side, TimeInForce, TradingState},
    price::Trail,
    symbol::Symbol,
};
use std::collections::BTreeMap;
use uuid::Uuid;

const COMMANDS: u64 = 40_000;
const SEEDS: u64 = 8;
const MICROS: i64 = 1_000_000;
const DAY_US: i64 = 86_400 * MICROS;
const NO_LIMITS: Rules = Rules {
    opening: 0,
    open_orders_max: 1_000,
    deposit_max: i64::MAX,
    deposits_per_day_max: i64::MAX,
    account_max: i64::MAX,
    recent_ids: 1_000,
    volatility_pause_us: 1,
    volatility_end_us: 0,
};

/// Commands one after the other, each kept to what facts must keep to.
struct Desk {
    cores: Cores,
    observed: Observed,
    seq: u64,
    now: i64,
}

impl Desk {
    fn new() -> Self {
        let (cores, observed) = (Cores::new(), Observed::default());
        Self { cores, observed, seq: 0, now: 1_700_000_000 * MICROS }
    }

    fn give(&mut self, command: &Command) -> Answer {
        self.seq += 1;
        let (facts, answer) = self.cores.step(self.seq, self.now, command);
        if let Err(wrong) = self.observed.take(self.now, command, &facts) {
            panic!("{wrong}\nafter {command:#?}\nanswer {answer:#?}");
        }
        if matches!(answer, Answer::Refused(_) | Answer::Known(_)) {
            assert!(facts.is_empty(), "nothing changed: {command:?} {facts:#?}");
        }
        answer
    }

    fn of(&mut self, user: Uuid, instruction: Instruction) -> Answer {
        self.give(&Command { user, agent: false, id: None, trace: None, instruction })
    }

    fn done(&mut self, user: Uuid, instruction: Instruction) {
        let answer = self.of(user, instruction.clone());
        assert!(matches!(answer, Answer::Done(_)), "{instruction:?}: {answer:?}");
    }

    fn refused(&mut self, user: Uuid, instruction: Instruction) -> String {
        match self.of(user, instruction.clone()) {
            Answer::Refused(refusal) => name(&refusal),
            answer => panic!("{instruction:?}: {answer:?}"),
        }
    }

    fn system(&mut self, instruction: Instruction) {
        self.done(Uuid::nil(), instruction);
    }

    fn open(&mut self, user: Uuid, account: Uuid, currency: Currency) {
        let kind = Kind::Investment;
        self.done(user, Instruction::OpenAccount { account, kind, currency, opening: false });
    }

    fn house(&self, house: House, asset: Asset) -> i128 {
        self.cores.core.house().find(|(h, a, _)| (*h, *a) == (house, asset)).map_or(0, |(_, _, sum)| sum)
    }
}

fn id(n: u128) -> Uuid {
    Uuid::from_u128(n)
}

fn listing(text: &str, currency: Currency, tick_e4: i64, lot_e4: i64, close_e4: i64) -> Instrument {
    Instrument {
        symbol: Symbol::parse(text).expect("a symbol"),
        version: 1,
        currency,
        tick_e4,
        lot_e4,
        state: TradingState::Open,
        previous_close_e4: close_e4,
        band_bps: 0,
    }
}

#[test]
fn the_house_counts_beyond_64_bits() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(NO_LIMITS));
    desk.system(Instruction::SetRate { usd_cad: MICROS + 1 });
    let (user, usd, cad) = (id(1), id(2), id(3));
    desk.open(user, usd, Currency::Usd);
    desk.open(user, cad, Currency::Cad);
    let amount = i64::MAX / 8;
    let (mut paid_in, mut paid_out) = (0i128, 0i128);
    for _ in 0..40 {
        desk.now += DAY_US;
        desk.done(user, Instruction::Deposit { account: usd, currency: Currency::Usd, amount });
        // In parts that a transfer may have.
        let mut left = amount;
        while left > 0 {
            let part = left.min(900_000_000 * MICROS);
            left -= part;
            let pay = Instruction::Transfer { from: usd, to: cad, currency: Currency::Usd, amount: part };
            desk.done(user, pay);
            let got = desk.observed.accounts[&cad].1.cash.posted;
            desk.done(user, Instruction::Withdraw { account: cad, currency: Currency::Cad, amount: got });
            paid_out += i128::from(got);
        }
        paid_in += i128::from(amount);
    }
    let [usd, cad] = Currency::ALL.map(Asset::Cash);
    assert!(paid_in > i128::from(i64::MAX) * 4);
    assert_eq!(desk.house(House::Funding, usd), -paid_in);
    assert_eq!(desk.house(House::Fx, usd), paid_in);
    assert_eq!(desk.house(House::Funding, cad), paid_out);
    assert_eq!(desk.house(House::Fx, cad) + desk.house(House::Rounding, cad), -paid_out);
    desk.cores.restore();
    assert_eq!(desk.house(House::Fx, usd), paid_in);
    // Nobody else is kept out.
    desk.open(id(7), id(8), Currency::Usd);
    desk.done(id(7), Instruction::Deposit { account: id(8), currency: Currency::Usd, amount: 1 });
}

#[test]
fn deposits_are_bounded_each_and_by_day_and_by_account() {
    let mut desk = Desk::new();
    let rules = Rules::default();
    desk.system(Instruction::SetRules(rules));
    let (user, account, currency) = (id(1), id(2), Currency::Usd);
    desk.open(user, account, currency);
    let deposit = |amount| Instruction::Deposit { account, currency, amount };
    for amount in [i64::MIN, -1, 0, rules.deposit_max + 1, i64::MAX] {
        assert_eq!(desk.refused(user, deposit(amount)), "AmountOutOfRange", "{amount}");
    }
    for day in 0..10 {
        for _ in 0..10 {
            desk.done(user, deposit(rules.deposit_max));
        }
        let next = if day == 9 { "AccountFull" } else { "DepositsOfDay" };
        assert_eq!(desk.refused(user, deposit(1)), next, "day {day}");
        // An account that is full takes nothing in the other currency's name either.
        let other = Instruction::Deposit { account, currency: Currency::Cad, amount: 1 };
        assert_eq!(desk.refused(user, other), "CurrencyMismatch");
        desk.now = (desk.now / DAY_US + 1) * DAY_US;
    }
    desk.done(user, Instruction::Withdraw { account, currency, amount: 1 });
    desk.done(user, deposit(1));
    assert_eq!(desk.refused(user, deposit(1)), "AccountFull");
}

#[test]
fn what_a_position_costs_stays_within_64_bits() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(NO_LIMITS));
    let symbol = Symbol::parse("DEAR").expect("a symbol");
    let dear = listing("DEAR", Currency::Usd, 100, 10_000, 10_000_000_000);
    desk.system(Instruction::SetInstrument(Box::new(dear)));
    let (user, account) = (id(1), id(2));
    desk.open(user, account, Currency::Usd);
    let give = |amount, quantity_e4, cost_price_e4| {
        Instruction::Endow(Endow {
            account,
            currency: None,
            amount,
            symbol: Some(symbol.clone()),
            quantity_e4,
            cost_price_e4,
        })
    };
    // 9.2 million shares at a million each: nearly all that 64 bits hold.
    desk.done(user, give(0, 9_223_372 * 10_000, 10_000_000_000));
    let refusal = desk.refused(user, give(0, 10_000, 10_000_000_000));
    assert_eq!(refusal, "CostTooLarge");
    desk.done(user, give(1_000_000 * MICROS, 0, 0));
    let buy = |order, price_e4, quantity_e4| {
        Instruction::New(Box::new(NewOrder {
            order,
            account: None,
            symbol: symbol.clone(),
            side: Side::Buy,
            terms: Terms::Limit { price_e4 },
            time: TimeInForce::Gtc,
            quantity_e4,
            notional: 0,
            display_e4: 0,
            post_only: false,
            stp: SelfTrade::CancelNewest,
            expires_us: 0,
        }))
    };
    assert_eq!(desk.refused(user, buy(id(9), 10_000_000_000, 100_000_000_000)), "Violation");
    assert_eq!(desk.refused(user, buy(id(9), 10_000_000_000, 10_000)), "CostTooLarge");
    assert_eq!(desk.cores.core.open_orders(), 0);
}

fn limit(order: u128, text: &str, side: Side, price: i64, shares: i64) -> Instruction {
    Instruction::New(Box::new(NewOrder {
        order: id(order),
        account: None,
        symbol: Symbol::parse(text).expect("a symbol"),
        side,
        terms: Terms::Limit { price_e4: price * 10_000 },
        time: TimeInForce::Gtc,
        quantity_e4: shares * 10_000,
        notional: 0,
        display_e4: 0,
        post_only: false,
        stp: SelfTrade::CancelNewest,
        expires_us: 0,
    }))
}

/// The same money goes round, and one order sells for all of it each time.
#[test]
fn what_an_order_trades_in_all_may_be_beyond_64_bits() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(NO_LIMITS));
    for text in ["DEAR", "BACK"] {
        let dear = listing(text, Currency::Usd, 100, 10_000, 10_000_000_000);
        desk.system(Instruction::SetInstrument(Box::new(dear)));
    }
    let [seller, buyer, other] = [1, 2, 3].map(id);
    for (user, text) in [(seller, "DEAR"), (buyer, "BACK"), (other, "BACK")] {
        let account = id(user.as_u128() + 10);
        desk.open(user, account, Currency::Usd);
        let give = Endow {
            account,
            currency: None,
            amount: 0,
            symbol: Symbol::parse(text).ok(),
            quantity_e4: 10_000_000 * 10_000,
            cost_price_e4: 0,
        };
        desk.done(user, Instruction::Endow(give));
    }
    let money =
        Instruction::Deposit { account: id(12), currency: Currency::Usd, amount: 4_500_000_000_000 * MICROS };
    desk.done(buyer, money);
    // Its price, its total by then, who buys, how much; who sells the seller something for the money, and at what price.
    let rounds = [
        (1_000_000, 4_500_001, buyer, 4_500_000, Some((buyer, 1_000_000))),
        (900_000, 9_300_001, buyer, 4_800_000, Some((other, 960_000))),
        (900_000, 10_000_000, other, 699_999, None),
    ];
    for ((price, total, who, shares, back), n) in rounds.into_iter().zip(0u128..) {
        if n == 0 {
            desk.done(seller, limit(100, "DEAR", Side::Sell, price, total));
        } else {
            let (quantity_e4, price_e4) = (total * 10_000, price * 10_000);
            let replace =
                Replace { order: id(100), quantity_e4, price_e4, stop_e4: 0, trail: None, version: 0 };
            desk.done(seller, Instruction::Replace(replace));
        }
        desk.done(who, limit(200 + n, "DEAR", Side::Buy, price, shares));
        if let Some((who, price)) = back {
            desk.done(who, limit(300 + n, "BACK", Side::Sell, price, 4_500_000));
            desk.done(seller, limit(400 + n, "BACK", Side::Buy, price, 4_500_000));
        }
    }
    let order = desk.cores.core.order(id(100)).expect("one share is left");
    assert_eq!(order.filled_e4, 9_999_999 * 10_000);
    assert_eq!(order.hold.maker_notional, 9_449_999_100_000 * i128::from(MICROS));
    assert_eq!(order.notional(), i64::MAX);
    desk.cores.restore();
    desk.done(buyer, limit(500, "BACK", Side::Sell, 900_000, 1));
}

fn of(account: Uuid, instruction: Instruction) -> Instruction {
    match instruction {
        Instruction::New(new) => Instruction::New(Box::new(NewOrder { account: Some(account), ..*new })),
        other => other,
    }
}

fn shares_of(account: Uuid, text: &str, shares: i64) -> Instruction {
    Instruction::Endow(Endow {
        account,
        currency: None,
        amount: 0,
        symbol: Symbol::parse(text).ok(),
        quantity_e4: shares * 10_000,
        cost_price_e4: 0,
    })
}

/// An order keeps the rate of its acceptance: what it would credit at that rate is counted before anybody can buy it.
#[test]
fn what_rests_at_a_former_rate_can_always_be_settled() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(NO_LIMITS));
    let dear = listing("DEAR", Currency::Usd, 100, 10_000, 10_000_000_000);
    desk.system(Instruction::SetInstrument(Box::new(dear)));
    let ([seller, buyer], [cad, usd]) = ([1, 2].map(id), [11, 12].map(id));
    desk.open(seller, cad, Currency::Cad);
    desk.open(buyer, usd, Currency::Usd);
    desk.system(shares_of(cad, "DEAR", 1_000_000));
    let rate = |units: i64| Instruction::SetRate { usd_cad: units * MICROS / 100 };
    let dollars =
        |account, currency, amount| Instruction::Deposit { account, currency, amount: amount * MICROS };
    desk.system(rate(10_000));
    desk.done(seller, limit(100, "DEAR", Side::Sell, 1_000_000, 1_000_000));
    desk.system(rate(100));
    desk.done(buyer, dollars(usd, Currency::Usd, 1_000_000_000_000));
    // 100 billion USD would be 10,000 billion CAD at the order's rate: more than 64 bits hold.
    assert_eq!(desk.refused(buyer, limit(200, "DEAR", Side::Buy, 1_000_000, 100_000)), "ExchangeFull");
    desk.done(buyer, limit(201, "DEAR", Side::Buy, 1_000_000, 30_000));
    let got = desk.observed.accounts[&cad].1.cash.posted;
    assert_eq!(got, 3_000_000_000_000 * MICROS);
    // What is left of the room: a replace takes it no further either.
    desk.done(buyer, limit(202, "DEAR", Side::Buy, 900_000, 1));
    let more = Replace {
        order: id(202),
        quantity_e4: 90_000 * 10_000,
        price_e4: 0,
        stop_e4: 0,
        trail: None,
        version: 0,
    };
    assert_eq!(desk.refused(buyer, Instruction::Replace(more)), "ExchangeFull");
    desk.cores.restore();
    assert_eq!(desk.refused(buyer, Instruction::Replace(more)), "ExchangeFull");
    // Nothing at a former rate is left: the same purchase is as good as any.
    desk.done(seller, Instruction::Cancel { order: id(100) });
    desk.done(buyer, Instruction::Replace(more));
    desk.cores.restore();
}

/// The largest amounts change hands at the farthest rates, old and new ones at once.
#[test]
fn money_that_goes_round_at_all_rates_never_overflows() {
    let commands = number("FAFNIR_TEST_COMMANDS").map_or(COMMANDS, |commands| commands / 4);
    let mut counts = BTreeMap::<String, u64>::new();
    for seed in 1..=SEEDS {
        let mut wild = Wild { rng: Rng(seed), counter: 100, users: Vec::new() };
        let mut desk = Desk::new();
        desk.system(Instruction::SetRules(NO_LIMITS));
        for (text, currency) in [("DEAR", Currency::Usd), ("NEAR", Currency::Cad)] {
            let listing = listing(text, currency, 100, 10_000, 10_000_000_000);
            desk.system(Instruction::SetInstrument(Box::new(listing)));
        }
        desk.system(Instruction::SetRate { usd_cad: MICROS });
        for n in 0..8u128 {
            desk.open(id(1 + n), id(11 + n), Currency::ALL[n as usize % 2]);
        }
        for _ in 0..commands / SEEDS {
            // Half of them sell, and what they place stays; the others come, pay and go.
            let n = u128::from(wild.rng.below(8));
            let (user, account, currency) = (id(1 + n), id(11 + n), Currency::ALL[n as usize % 2]);
            let text = *wild.rng.of(&["DEAR", "NEAR"]);
            let shares = 10i64.pow(wild.rng.below(8) as u32);
            let price = *wild.rng.of(&[900_000, 1_000_000, 1_000_000]);
            let (user, instruction) = match wild.rng.below(40) {
                0..4 => {
                    let usd_cad = 10_000 * 10i64.pow(wild.rng.below(5) as u32);
                    (Uuid::nil(), Instruction::SetRate { usd_cad })
                }
                4..6 if n >= 4 || wild.rng.one_in(10) => {
                    desk.done(user, Instruction::CloseAccount { account });
                    let kind = Kind::Investment;
                    (user, Instruction::OpenAccount { account, kind, currency, opening: false })
                }
                _ if n < 4 && wild.rng.one_in(4) => (Uuid::nil(), shares_of(account, text, 10_000_000)),
                _ if n < 4 => {
                    (user, of(account, limit(wild.id().as_u128(), text, Side::Sell, price, shares)))
                }
                6..20 => {
                    let amount = i64::MAX >> wild.rng.within(1, 12);
                    (user, Instruction::Deposit { account, currency, amount })
                }
                _ => (user, of(account, limit(wild.id().as_u128(), text, Side::Buy, price, shares))),
            };
            desk.now += if wild.rng.one_in(50) { DAY_US } else { 1 };
            let kind = match &instruction {
                Instruction::New(_) => "New",
                Instruction::SetRate { .. } => "SetRate",
                _ => "money",
            };
            let answer = match desk.of(user, instruction) {
                Answer::Refused(refusal) => name(&refusal),
                Answer::Done(done) => done.order.map_or("done".to_owned(), |o| format!("{:?}", o.state)),
                Answer::Known(_) => "known".to_owned(),
            };
            *counts.entry(format!("{kind}: {answer}")).or_default() += 1;
        }
        desk.cores.restore();
    }
    // What bounds it was met, and what it lets through happened.
    for met in [
        "New: ExchangeFull",
        "New: Filled",
        "New: New",
        "SetRate: RateTooFar",
        "SetRate: done",
        "money: ExchangeFull",
    ] {
        assert!(counts.get(met).is_some_and(|times| *times > 20), "{met}: {counts:#?}");
    }
}

#[test]
fn a_rate_is_refused_that_open_orders_could_not_be_settled_beside() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(NO_LIMITS));
    let dear = listing("DEAR", Currency::Usd, 100, 10_000, 10_000_000_000);
    desk.system(Instruction::SetInstrument(Box::new(dear)));
    let ([seller, buyer], [cad, other]) = ([1, 2].map(id), [11, 12].map(id));
    desk.open(seller, cad, Currency::Cad);
    desk.open(buyer, other, Currency::Cad);
    desk.system(shares_of(cad, "DEAR", 10_000));
    let rate = |hundredths: i64| Instruction::SetRate { usd_cad: hundredths * MICROS / 100 };
    let amount = 2_000_000_000 * MICROS;
    desk.system(rate(10_000));
    desk.done(buyer, Instruction::Deposit { account: other, currency: Currency::Cad, amount });
    let sale = |n, price| of(cad, limit(n, "DEAR", Side::Sell, price, 1));
    desk.done(seller, sale(100, 1_000_000));
    // Nothing is held yet that could be bought at 0.01 and sold at 100.
    desk.system(rate(1));
    desk.system(rate(10_000));
    desk.done(buyer, of(other, limit(200, "DEAR", Side::Buy, 900_000, 20)));
    let before = desk.cores.core.terms();
    assert_eq!(desk.refused(Uuid::nil(), rate(1)), "RateTooFar");
    assert_eq!(desk.cores.core.terms(), before);
    desk.system(rate(137));
    desk.done(buyer, Instruction::Cancel { order: id(200) });
    desk.system(rate(1));
    for wrong in [i64::MIN, -1, 0, MICROS / 100 - 1, 100 * MICROS + 1, i64::MAX] {
        let refusal = desk.refused(Uuid::nil(), Instruction::SetRate { usd_cad: wrong });
        assert_eq!(refusal, "TermsOutOfRange", "{wrong}");
    }
}

#[test]
fn a_position_larger_than_an_order_is_sold_by_several_flattens() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(NO_LIMITS));
    let dust = listing("DUST", Currency::Usd, 1, 10_000, 10_000);
    desk.system(Instruction::SetInstrument(Box::new(dust)));
    let [seller, buyer] = [1, 2].map(id);
    for user in [seller, buyer] {
        desk.open(user, id(user.as_u128() + 10), Currency::Usd);
    }
    desk.system(shares_of(id(11), "DUST", 25_000_000));
    let amount = 100_000_000 * MICROS;
    desk.done(buyer, Instruction::Deposit { account: id(12), currency: Currency::Usd, amount });
    for n in 0..3 {
        desk.done(buyer, limit(200 + n, "DUST", Side::Buy, 1, 10_000_000));
    }
    let symbol = Symbol::parse("DUST").expect("a symbol");
    for (n, left) in [(0, 15), (1, 5), (2, 0)] {
        let flatten = Flatten { account: None, symbol: symbol.clone(), order: id(100 + n) };
        let Answer::Done(done) = desk.of(seller, Instruction::Flatten(flatten)) else { panic!("{n}") };
        assert_eq!(done.left_e4, left * 1_000_000 * 10_000);
        let why = done.why.map(|why| why.sentence());
        let most =
            (left != 0).then(|| format!("quantity must be at most 10000000, not {}", left + 10) + "000000");
        assert_eq!(why, most);
    }
}

#[test]
fn who_has_as_many_open_orders_as_there_may_be_can_still_sell() {
    let mut desk = Desk::new();
    desk.system(Instruction::SetRules(Rules { open_orders_max: 2, ..NO_LIMITS }));
    for text in ["DEAR", "BACK"] {
        let listing = listing(text, Currency::Usd, 100, 10_000, 1_000_000);
        desk.system(Instruction::SetInstrument(Box::new(listing)));
    }
    let [seller, buyer] = [1, 2].map(id);
    for user in [seller, buyer] {
        let account = id(user.as_u128() + 10);
        desk.open(user, account, Currency::Usd);
        desk.done(user, Instruction::Deposit { account, currency: Currency::Usd, amount: 10_000 * MICROS });
    }
    desk.system(shares_of(id(11), "DEAR", 10));
    for n in 0..2 {
        desk.done(seller, limit(100 + n, "BACK", Side::Buy, 90, 1));
    }
    assert_eq!(desk.refused(seller, limit(102, "BACK", Side::Buy, 90, 1)), "TooManyOpenOrders");
    desk.done(buyer, limit(200, "DEAR", Side::Buy, 99, 10));
    let symbol = Symbol::parse("DEAR").expect("a symbol");
    let flatten = Flatten { account: None, symbol: symbol.clone(), order: id(103) };
    let Answer::Done(done) = desk.of(seller, Instruction::Flatten(flatten)) else { panic!("refused") };
    assert_eq!((done.left_e4, done.canceled, done.why), (0, 0, None));
    // In a call everything waits.
    desk.system(Instruction::SetState { symbol, state: TradingState::Auction });
    assert_eq!(desk.refused(seller, limit(104, "DEAR", Side::Buy, 90, 1)), "TooManyOpenOrders");
}

const EDGES: [i64; 18] = [
    i64::MIN,
    i64::MIN + 1,
    -1,
    0,
    1,
    2,
    99,
    100,
    10_000,
    MICROS,
    4_294_967_294,
    10_000_000_000,
    100_000_000_000,
    1_000_000_000_000_000,
    i64::MAX / 100,
    i64::MAX / 2,
    i64::MAX - 1,
    i64::MAX,
];
const SYMBOLS: [&str; 5] = ["DUST", "DEAR", "NEAR", "FAR.TO", "NONE"];

/// Commands with any numbers in them.
struct Wild {
    rng: Rng,
    counter: u128,
    users: Vec<Uuid>,
}

impl Wild {
    fn id(&mut self) -> Uuid {
        self.counter += 1;
        id(self.counter)
    }

    fn any(&mut self) -> i64 {
        match self.rng.below(6) {
            0 => *self.rng.of(&EDGES),
            1 => self.rng.word() as i64 >> self.rng.below(64),
            2 => (self.rng.word() >> 1) as i64 >> self.rng.below(63),
            3 => 10i64.pow(self.rng.below(19) as u32),
            _ => 100 * self.rng.within(1, 1_000),
        }
    }

    fn symbol(&mut self) -> Symbol {
        Symbol::parse(self.rng.of::<&str>(&SYMBOLS)).expect("a symbol")
    }

    fn price(&mut self) -> i64 {
        match self.rng.below(12) {
            0 => self.any(),
            1..4 => 10_000_000_000,
            _ => 10_000_000_000 + 100 * self.rng.within(-5, 5),
        }
    }

    fn account(&mut self, desk: &Desk) -> Uuid {
        let all: Vec<Uuid> = desk.observed.accounts.keys().copied().collect();
        if all.is_empty() || self.rng.one_in(50) { self.id() } else { *self.rng.of(&all) }
    }

    fn order(&mut self, desk: &Desk) -> Uuid {
        let all: Vec<Uuid> = desk.observed.orders.keys().copied().collect();
        if all.is_empty() || self.rng.one_in(50) { self.id() } else { *self.rng.of(&all) }
    }

    fn currency(&mut self, desk: &Desk, account: Uuid) -> Currency {
        let own = desk.observed.accounts.get(&account).map_or(Currency::Usd, |a| a.1.currency);
        if self.rng.one_in(20) { *self.rng.of(&Currency::ALL) } else { own }
    }

    fn new_order(&mut self, desk: &Desk) -> Instruction {
        let symbol = self.symbol();
        let mut price = || {
            let price = self.price();
            if symbol.as_str() == "DUST" { price / 100_000 } else { price }
        };
        let (price_e4, stop_e4) = (price(), price());
        let terms = match self.rng.below(12) {
            0 => Terms::Market,
            1 => Terms::Stop { stop_e4 },
            2 => Terms::StopLimit { price_e4, stop_e4 },
            3 => Terms::TrailingStop { trail: Trail::AmountE4(self.any()) },
            4 => Terms::TrailingStop { trail: Trail::PercentE4(self.any()) },
            _ => Terms::Limit { price_e4 },
        };
        let time = if self.rng.one_in(20) {
            *self.rng.of(TimeInForce::ALL)
        } else {
            *self.rng.of(terms.order_type().times())
        };
        Instruction::New(Box::new(NewOrder {
            order: if self.rng.one_in(30) { self.order(desk) } else { self.id() },
            account: self.rng.one_in(2).then(|| self.account(desk)),
            symbol,
            side: *self.rng.of(&[Side::Buy, Side::Sell]),
            terms,
            time,
            quantity_e4: if self.rng.one_in(10) { 0 } else { self.quantity() },
            notional: if self.rng.one_in(10) { self.any() } else { 0 },
            display_e4: if self.rng.one_in(20) { self.any() } else { 0 },
            post_only: self.rng.one_in(12),
            stp: *self.rng.of(SelfTrade::ALL),
            expires_us: match self.rng.below(9) {
                0 => 0,
                1 => desk.now.saturating_add(self.any()),
                _ => desk.now + self.rng.within(1, 10_000_000),
            },
        }))
    }

    fn quantity(&mut self) -> i64 {
        match self.rng.below(6) {
            0 => self.any(),
            // What those with the largest amounts can pay, or nearly.
            1 | 2 => self.rng.within(1, 1_000) * 1_000_000,
            _ => self.rng.within(1, 50) * 10_000,
        }
    }

    fn rate(&mut self) -> Instruction {
        let far = [10_000, MICROS, 100 * MICROS, self.any()];
        Instruction::SetRate { usd_cad: *self.rng.of(&far) }
    }

    fn of_system(&mut self) -> Instruction {
        match self.rng.below(10) {
            0 => Instruction::SetFees { maker_bp: self.any() as u32, taker_bp: self.any() as u32 },
            1 => self.rate(),
            2 => Instruction::SetRules(Rules {
                opening: self.any(),
                open_orders_max: self.any() as u32,
                deposit_max: self.any(),
                deposits_per_day_max: self.any(),
                account_max: self.any(),
                recent_ids: self.any() as u32,
                volatility_pause_us: self.any(),
                volatility_end_us: self.any(),
            }),
            3 => {
                let numbers = [self.any(), self.any(), self.any()];
                let mut new = listing("X", Currency::Usd, numbers[0], numbers[1], numbers[2]);
                new.symbol = self.symbol();
                new.version = self.any() as u64;
                new.band_bps = if self.rng.one_in(2) { 0 } else { self.any() as u32 };
                Instruction::SetInstrument(Box::new(new))
            }
            4 => {
                let state =
                    if self.rng.one_in(6) { *self.rng.of(TradingState::ALL) } else { TradingState::Open };
                Instruction::SetState { symbol: self.symbol(), state }
            }
            5 if self.rng.one_in(2) => Instruction::DayEnd,
            5 => {
                let session = *self.rng.of(&[Session::Always, Session::PreOpen, Session::Regular]);
                Instruction::SetSession { session }
            }
            6 => Instruction::SetRules(NO_LIMITS),
            7 => Instruction::SetFees { maker_bp: 1_000, taker_bp: 1_000 },
            8 => Instruction::Expire,
            _ => Instruction::Reopen { symbol: self.symbol() },
        }
    }

    fn command(&mut self, desk: &Desk) -> Command {
        let mut user = *self.rng.of(&self.users);
        let account = self.account(desk);
        if let Some((owner, _)) = desk.observed.accounts.get(&account)
            && !self.rng.one_in(20)
        {
            user = *owner;
        }
        let currency = self.currency(desk, account);
        let amount = self.any();
        let instruction = match self.rng.below(100) {
            0..40 => self.new_order(desk),
            40..48 => Instruction::Replace(Replace {
                order: self.order(desk),
                quantity_e4: if self.rng.one_in(2) { self.any() } else { 0 },
                price_e4: if self.rng.one_in(2) { self.price() } else { 0 },
                stop_e4: if self.rng.one_in(4) { self.price() } else { 0 },
                trail: None,
                version: if self.rng.one_in(9) { self.any() as u32 } else { 0 },
            }),
            48..52 => Instruction::Cancel { order: self.order(desk) },
            52 => Instruction::CancelAll { symbol: self.rng.one_in(2).then(|| self.symbol()) },
            53..55 => Instruction::Flatten(Flatten {
                account: self.rng.one_in(2).then_some(account),
                symbol: self.symbol(),
                order: self.id(),
            }),
            55..65 => Instruction::Deposit { account, currency, amount },
            65..69 => Instruction::Withdraw { account, currency, amount },
            69..76 => {
                let to = self.account(desk);
                Instruction::Transfer { from: account, to, currency, amount }
            }
            76..86 => Instruction::Endow(Endow {
                account,
                currency: self.rng.one_in(2).then_some(currency),
                amount: if self.rng.one_in(2) { self.any() & (ENDOWMENT_MAX - 1) } else { 0 },
                symbol: Some(self.symbol()),
                quantity_e4: self.quantity(),
                cost_price_e4: self.price(),
            }),
            86..89 => self.rate(),
            89..93 => self.of_system(),
            93 if self.rng.one_in(3) => Instruction::CloseAccount { account },
            94 if self.rng.one_in(10) => {
                // Somebody else comes in its place.
                let new = self.id();
                self.users.iter_mut().filter(|u| **u == user).for_each(|u| *u = new);
                Instruction::CloseUser
            }
            _ => Instruction::OpenAccount {
                account: self.id(),
                kind: if self.rng.one_in(9) { Kind::Savings } else { Kind::Investment },
                currency: *self.rng.of(&Currency::ALL),
                opening: self.rng.one_in(2),
            },
        };
        let agent = user.as_u128() % 5 == 1;
        let user = if self.rng.one_in(200) { Uuid::nil() } else { user };
        let id = self.rng.one_in(2).then(|| RequestId {
            hash: u128::from(self.rng.below(1 << 20)),
            payload: u128::from(self.rng.below(2)),
            looked_until: self.rng.one_in(2).then(|| self.any() as u64),
            key: "key".into(),
        });
        Command { user, agent: agent && !user.is_nil(), id, trace: None, instruction }
    }
}

#[test]
fn no_number_makes_it_panic_or_lose_a_micro() {
    // A step here looks at every order of everybody.
    let commands = number("FAFNIR_TEST_COMMANDS").map_or(COMMANDS, |commands| commands / 4);
    let seeds = match number("FAFNIR_TEST_SEED") {
        Some(seed) => seed..seed + 1,
        None => 1..1 + SEEDS,
    };
    let each = commands / (seeds.end - seeds.start);
    let mut counts = BTreeMap::<String, u64>::new();
    for seed in seeds {
        eprintln!("seed {seed}");
        let mut wild = Wild { rng: Rng(seed), counter: 100, users: (1..8).map(id).collect() };
        let mut desk = Desk::new();
        desk.system(Instruction::SetRules(NO_LIMITS));
        for new in [
            listing("DUST", Currency::Usd, 1, 10_000, 0),
            listing("DEAR", Currency::Usd, 100, 10_000, 10_000_000_000),
            listing("NEAR", Currency::Cad, 10_000_000_000, 10_000, 10_000_000_000),
            listing("FAR.TO", Currency::Cad, 100, 1, 10_000_000_000),
        ] {
            desk.system(Instruction::SetInstrument(Box::new(new)));
        }
        for _ in 0..each {
            desk.now += wild.rng.within(0, 100_000);
            if wild.rng.one_in(500) {
                desk.now += DAY_US;
            }
            let command = wild.command(&desk);
            let answer = desk.give(&command);
            let text = format!("{:?}", command.instruction);
            let kind: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
            let answer = match answer {
                Answer::Done(_) => "done".to_owned(),
                Answer::Known(_) => "known".to_owned(),
                Answer::Refused(refusal) => {
                    assert!(!refusal.sentence().is_empty());
                    match refusal {
                        Refusal::Violation(_, violation) => {
                            let text = format!("{violation:?}");
                            text.chars().take_while(char::is_ascii_alphanumeric).collect()
                        }
                        other => name(&other),
                    }
                }
            };
            *counts.entry(format!("{kind}: {answer}")).or_default() += 1;
            if wild.rng.one_in(300) {
                desk.cores.restore();
            }
        }
        desk.cores.restore();
    }
    eprintln!("{counts:#?}");
}
