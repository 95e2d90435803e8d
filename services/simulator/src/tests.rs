//! The agents against a small exchange of their own: what a market of an hour looks like.

use super::{
    core::{Agent, Answer, Core, Listing, Request, Standing},
    maker::Stage,
    pace,
};
use fafnir_matching::{Book, Command, Events, NewOrder, Replace, Side as BookSide, Slot, Tif, What};
use fafnir_proto::v1::{self, FactKind, OrderState, Side};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use uuid::Uuid;

const SYMBOLS: [(&str, i64); 6] = [
    ("AAPL", 2_310_700),
    ("MSFT", 4_112_000),
    ("F", 111_800),
    ("KO", 639_200),
    ("RY.TO", 1_746_000),
    ("V", 3_099_200),
];

fn listings() -> Vec<Listing> {
    let listing = |(symbol, price): &(&str, i64)| Listing {
        symbol: (*symbol).to_owned(),
        currency: "USD".to_owned(),
        tick_e4: 100,
        lot_e4: 10_000,
        anchor_e4: *price,
        last_e4: *price,
        is_open: true,
    };
    SYMBOLS.iter().map(listing).collect()
}

fn name(agent: Agent) -> String {
    format!("{agent:?}")
}

fn core(seed: u64) -> Core {
    let agents = (0..SYMBOLS.len()).map(Agent::Maker).chain((0..4).map(Agent::Trader));
    let mut core = Core::new(seed, listings(), agents.map(|a| (name(a), a)).collect());
    for (market, listing) in listings().iter().enumerate() {
        let quote = super::market::quote_e4(listing);
        core.own(
            Agent::Maker(market),
            market,
            quote * super::core::MAKER_QUOTES,
            super::core::MAKER_CASH_MICROS,
        );
        for trader in 0..4 {
            core.own(Agent::Trader(trader), market, quote * super::core::TRADER_QUOTES, 0);
        }
    }
    core
}

struct Known {
    id: u64,
    slot: Slot,
    agent: Agent,
    side: Side,
    filled_e4: i64,
}

/// An exchange that answers at once.
struct Exchange {
    books: Vec<Book>,
    position: u64,
    /// Shares of an agent in a market, and what its trades brought in all.
    shares: HashMap<(Agent, usize), i64>,
    cash: HashMap<Agent, i64>,
    orders: HashMap<Uuid, Known>,
    uuids: HashMap<u64, (Uuid, Agent)>,
    next: u64,
    trades: BTreeMap<usize, u64>,
    requests: BTreeMap<&'static str, u64>,
    /// The next answer to a maker of market 0 is lost.
    loses_answer: bool,
}

impl Exchange {
    fn new() -> Self {
        Self {
            books: SYMBOLS.iter().map(|_| Book::new()).collect(),
            position: 0,
            shares: HashMap::new(),
            cash: HashMap::new(),
            orders: HashMap::new(),
            uuids: HashMap::new(),
            next: 0,
            trades: BTreeMap::new(),
            requests: BTreeMap::new(),
            loses_answer: false,
        }
    }

    /// The order as it is after an event; one that ended is known no more.
    fn order(&mut self, order: Uuid, market: usize, filled_e4: i64, state: OrderState) -> v1::OrderUpdate {
        let known = self.orders.get_mut(&order).unwrap();
        known.filled_e4 += filled_e4;
        let after = v1::Order {
            id: order.to_string(),
            user_id: name(known.agent),
            symbol: SYMBOLS[market].0.to_owned(),
            side: known.side.into(),
            state: state.into(),
            filled_e4: known.filled_e4,
            ..Default::default()
        };
        if state.has_ended() {
            self.orders.remove(&order);
        }
        v1::OrderUpdate { user_id: after.user_id.clone(), order: Some(after), ..Default::default() }
    }

    fn balance(&mut self, agent: Agent, market: usize, shares_e4: i64, cash: i64) -> v1::PortfolioUpdate {
        let quote = super::market::quote_e4(&listings()[market]);
        let begins = match agent {
            Agent::Maker(_) => super::core::MAKER_QUOTES,
            Agent::Trader(_) => super::core::TRADER_QUOTES,
        };
        let shares = self.shares.entry((agent, market)).or_insert(quote * begins);
        *shares += shares_e4;
        let quantity_e4 = *shares;
        let balance = self.cash.entry(agent).or_insert(super::core::MAKER_CASH_MICROS);
        *balance += cash;
        v1::PortfolioUpdate {
            user_id: name(agent),
            account: Some(v1::Account { balance_micros: *balance, ..Default::default() }),
            holding: Some(v1::Holding {
                symbol: SYMBOLS[market].0.to_owned(),
                quantity_e4,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    /// False when the command was refused.
    fn apply(&mut self, core: &mut Core, market: usize, command: &Command) -> bool {
        let mut events = Events::new();
        self.books[market].apply(command, &mut events);
        let mut refused = false;
        for event in &events {
            let of = |id: u64| self.uuids[&id];
            let mut fact = v1::Fact { symbol: SYMBOLS[market].0.to_owned(), ..Default::default() };
            match event.what {
                What::Accepted { id, slot, .. } | What::Replaced { id, slot, .. } => {
                    let order = of(id).0;
                    self.orders.get_mut(&order).unwrap().slot = slot;
                    fact.set_kind(FactKind::Accepted);
                    fact.orders.push(self.order(order, market, 0, OrderState::New));
                }
                What::Trade { maker, taker, qty, maker_open, taker_open, price, aggressor, .. } => {
                    *self.trades.entry(market).or_default() += 1;
                    let ((maker, maker_agent), (taker, taker_agent)) = (of(maker), of(taker));
                    assert_ne!(maker_agent, taker_agent);
                    fact.set_kind(FactKind::Executed);
                    let taker_buys = aggressor == BookSide::Buy;
                    fact.set_aggressor(if taker_buys { Side::Buy } else { Side::Sell });
                    (fact.price_e4, fact.quantity_e4) = (i64::from(price) * 100, qty as i64 * 10_000);
                    for (order, open) in [(taker, taker_open), (maker, maker_open)] {
                        let state = if open == 0 { OrderState::Filled } else { OrderState::PartiallyFilled };
                        fact.orders.push(self.order(order, market, fact.quantity_e4, state));
                    }
                    let (buyer, seller) =
                        if taker_buys { (taker_agent, maker_agent) } else { (maker_agent, taker_agent) };
                    let (shares, cash) = (fact.quantity_e4, fact.price_e4 * fact.quantity_e4 / 100);
                    fact.balances.push(self.balance(buyer, market, shares, -cash));
                    fact.balances.push(self.balance(seller, market, -shares, cash));
                }
                What::Canceled { id, .. } => {
                    fact.set_kind(FactKind::Canceled);
                    fact.orders.push(self.order(of(id).0, market, 0, OrderState::Canceled));
                }
                What::ReplaceRejected { .. } => {
                    refused = true;
                    continue;
                }
                other => panic!("{other:?}"),
            }
            self.position += 1;
            fact.position = self.position;
            core.fact(&fact);
        }
        !refused
    }

    fn carry_out(&mut self, core: &mut Core, request: Request) {
        match request {
            Request::Place { ticket, agent, market, side, quantity_e4, price_e4, stands } => {
                *self.requests.entry("place").or_default() += 1;
                assert!(quantity_e4 > 0 && quantity_e4 % 10_000 == 0 && price_e4 % 100 == 0);
                self.next += 1;
                let (id, order) = (self.next, Uuid::from_u128(u128::from(self.next)));
                let book_side = if side == Side::Buy { BookSide::Buy } else { BookSide::Sell };
                let owner = match agent {
                    Agent::Maker(m) => m as u32 + 1,
                    Agent::Trader(t) => t as u32 + 100,
                };
                let last =
                    self.books[market].last_price().unwrap_or((listings()[market].last_e4 / 100) as u32);
                let price = match (price_e4, side) {
                    (0, Side::Buy) => last * 41 / 40,
                    (0, _) => last * 39 / 40,
                    (price, _) => (price / 100) as u32,
                };
                self.uuids.insert(id, (order, agent));
                self.orders.insert(order, Known { id, slot: Slot::NONE, agent, side, filled_e4: 0 });
                let new = NewOrder::limit(id, owner, book_side, (quantity_e4 / 10_000) as u64, price);
                let new = if stands { new } else { new.with_tif(Tif::Ioc) };
                self.apply(core, market, &Command::New(new));
                if self.loses_answer && agent == Agent::Maker(0) {
                    self.loses_answer = false;
                    return core.answer(Answer::PlaceLost { ticket, agent, market });
                }
                core.answer(Answer::Placed { ticket, agent, market, order, open: stands });
            }
            Request::Replace { agent, market, order, quantity_e4, price_e4 } => {
                *self.requests.entry("replace").or_default() += 1;
                let Some(known) = self.orders.get(&order) else {
                    return core.answer(Answer::ChangeRefused { agent, market, order });
                };
                let (qty, price) = ((quantity_e4 / 10_000) as u64, (price_e4 / 100) as u32);
                let replace = Replace::new(known.id, known.slot, qty, price);
                // It may have traded since the maker decided.
                let done = self.apply(core, market, &Command::Replace(replace));
                core.answer(if done {
                    Answer::Replaced { market, order }
                } else {
                    Answer::ChangeRefused { agent, market, order }
                });
            }
            Request::Cancel { agent, market, order } => {
                *self.requests.entry("cancel").or_default() += 1;
                let Some(known) = self.orders.get(&order) else {
                    return core.answer(Answer::ChangeRefused { agent, market, order });
                };
                let command = Command::Cancel { id: known.id, slot: known.slot };
                self.apply(core, market, &command);
            }
            Request::LookUp { market } => {
                *self.requests.entry("look up").or_default() += 1;
                let standing = self.standing(market);
                core.answer(Answer::LookedUp { market, standing, position: self.position });
            }
            Request::Refill { .. } => *self.requests.entry("refill").or_default() += 1,
        }
    }

    fn standing(&self, market: usize) -> Vec<Standing> {
        let mut list: Vec<Standing> = self
            .orders
            .iter()
            .filter(|(_, k)| k.agent == Agent::Maker(market))
            .filter_map(|(order, k)| {
                let open = self.books[market].order(k.id, k.slot)?;
                Some(Standing {
                    order: *order,
                    side: k.side,
                    price_e4: i64::from(open.price) * 100,
                    total_e4: (open.open + open.filled) as i64 * 10_000,
                    filled_e4: open.filled as i64 * 10_000,
                })
            })
            .collect();
        list.sort_by_key(|s| s.order);
        list
    }
}

fn run(core: &mut Core, exchange: &mut Exchange, steps: u64) -> Vec<Request> {
    let mut all = Vec::new();
    for _ in 0..steps {
        for request in core.step() {
            all.push(request.clone());
            exchange.carry_out(core, request);
        }
    }
    all
}

fn opened(seed: u64) -> (Core, Exchange) {
    let (mut core, mut exchange) = (core(seed), Exchange::new());
    assert!(!core.is_standing());
    for request in core.open() {
        exchange.carry_out(&mut core, request);
    }
    assert!(core.is_standing());
    (core, exchange)
}

#[test]
fn the_opening_book_has_ten_levels_within_a_few_ticks_of_the_last_price() {
    let (_, exchange) = opened(1);
    for (book, listing) in exchange.books.iter().zip(listings()) {
        assert!(book.depth(BookSide::Buy).count() >= 10 && book.depth(BookSide::Sell).count() >= 10);
        let (bid, ask) = (book.best_bid().unwrap(), book.best_ask().unwrap());
        assert!(ask - bid <= 3);
        assert!((i64::from(bid) - listing.last_e4 / 100).abs() <= 3);
    }
}

#[test]
fn an_hour_of_trading_is_lively_two_sided_bounded_and_economical() {
    let (mut core, mut exchange) = opened(42);
    exchange.requests.clear();
    let hour = 4 * 3_600;
    for second in 0..3_600 {
        run(&mut core, &mut exchange, 4);
        for (market, book) in exchange.books.iter().enumerate() {
            let levels = |side| book.depth(side).count();
            assert!(
                levels(BookSide::Buy) >= 6 && levels(BookSide::Sell) >= 6,
                "{second} {}",
                SYMBOLS[market].0
            );
            assert!(book.best_ask().unwrap() - book.best_bid().unwrap() <= 8);
        }
    }
    let trades: u64 = exchange.trades.values().sum();
    assert!((9_000..14_500).contains(&trades), "{trades} trades");
    let requests: u64 = exchange.requests.values().sum();
    assert!(requests <= hour * 4, "{:?}", exchange.requests);
    assert!(exchange.requests.get("look up").is_none_or(|n| *n < 20), "{:?}", exchange.requests);
    assert!(exchange.trades[&0] > 5 * exchange.trades[&5]);
    for (market, listing) in listings().iter().enumerate() {
        let last = i64::from(exchange.books[market].last_price().unwrap()) * 100;
        let drift_bp = (last - listing.anchor_e4).abs() * 10_000 / listing.anchor_e4;
        assert!(drift_bp < 200, "{} moved {drift_bp} bp", listing.symbol);
        let (_, quotes, _) = core.view(market);
        assert!((20..=600).contains(&quotes), "{} holds {quotes} quotes", listing.symbol);
    }
}

#[test]
fn the_same_seed_and_the_same_inputs_give_the_same_requests() {
    let requests = |seed| {
        let (mut core, mut exchange) = opened(seed);
        run(&mut core, &mut exchange, 2_000)
    };
    assert_eq!(requests(5), requests(5));
    assert_ne!(requests(5), requests(6));
}

#[test]
fn a_restart_adopts_what_stands_and_places_nothing() {
    let (mut first, mut exchange) = opened(9);
    run(&mut first, &mut exchange, 400);
    let mut again = core(9);
    for market in 0..SYMBOLS.len() {
        again.adopt(market, exchange.standing(market), exchange.position);
    }
    assert!(again.open().len() <= 6);
    run(&mut again, &mut exchange, 400);
    let (ladder, _, _) = again.view(0);
    assert!(ladder.quotes.iter().filter(|q| q.stage == Stage::Live).count() >= 20);
}

#[test]
fn a_lost_answer_is_looked_up_and_mended() {
    let (mut core, mut exchange) = opened(3);
    run(&mut core, &mut exchange, 100);
    // Nobody tells the maker that a quote is gone, and the answer to its next placing is lost.
    let standing = exchange.standing(0);
    let known = &exchange.orders[&standing[0].order];
    let mut events = Events::new();
    exchange.books[0].apply(&Command::Cancel { id: known.id, slot: known.slot }, &mut events);
    exchange.orders.remove(&standing[0].order);
    exchange.loses_answer = true;
    run(&mut core, &mut exchange, 400);
    assert!(!exchange.loses_answer);
    assert!(exchange.requests["look up"] >= 1);
    let own: Vec<Uuid> = core.view(0).0.quotes.iter().map(|q| q.order).collect();
    for standing in exchange.standing(0) {
        assert!(own.contains(&standing.order));
    }
}

#[test]
fn what_was_read_is_not_changed_by_older_facts() {
    let (mut core, mut exchange) = opened(3);
    let standing = exchange.standing(0);
    let order = standing[0].order;
    core.answer(Answer::LookedUp { market: 0, standing, position: 1_000 });
    let fact = |position| {
        let mut update = v1::Order {
            id: order.to_string(),
            user_id: name(Agent::Maker(0)),
            filled_e4: 10_000,
            ..Default::default()
        };
        update.set_state(OrderState::Canceled);
        let orders = vec![v1::OrderUpdate { order: Some(update), ..Default::default() }];
        v1::Fact { position, symbol: SYMBOLS[0].0.to_owned(), orders, ..Default::default() }
    };
    core.fact(&fact(1_000));
    assert!(core.view(0).0.quotes.iter().any(|q| q.order == order && q.filled_e4 == 0));
    core.fact(&fact(1_001));
    assert!(core.view(0).0.quotes.iter().all(|q| q.order != order));
    exchange.orders.remove(&order);
}

#[test]
fn a_halted_symbol_is_left_alone_until_it_opens() {
    let (mut core, mut exchange) = opened(3);
    let state = |state: v1::TradingState| {
        let mut fact = v1::Fact { symbol: "AAPL".into(), ..Default::default() };
        fact.set_kind(FactKind::StateChanged);
        fact.set_state(state);
        fact
    };
    let about_aapl = |requests: &[Request]| {
        requests
            .iter()
            .any(|r| matches!(r, Request::Place { market: 0, .. } | Request::Replace { market: 0, .. }))
    };
    core.fact(&state(v1::TradingState::Halted));
    assert!(!about_aapl(&run(&mut core, &mut exchange, 400)));
    core.fact(&state(v1::TradingState::Open));
    assert!(about_aapl(&run(&mut core, &mut exchange, 400)));
}

#[test]
fn the_rate_sets_the_pace_and_fast_rates_make_several_steps_a_tick() {
    assert_eq!(pace(1_000), (1, Duration::from_millis(250)));
    assert_eq!(pace(2_000), (1, Duration::from_millis(125)));
    assert_eq!(pace(500), (1, Duration::from_millis(500)));
    let (steps, tick) = pace(100_000);
    assert_eq!((steps, tick), (10, Duration::from_millis(25)));
}
