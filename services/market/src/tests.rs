//! What a played market looks like, and what the agents do when something goes wrong.

use crate::{
    Agent, Answer, Core, Event, Listing, Mood, Play, Request, Stage,
    core::STEPS_PER_SECOND,
    symbol::{MAKER_QUOTES, TRADER_CASH_MICROS, TRADER_QUOTES, TRADERS, maker_cash_micros, quote_e4},
};
use fafnir_matching::Side;

const SYMBOLS: [(&str, i64, u32); 6] = [
    ("AAPL", 2_310_700, 150),
    ("MSFT", 4_112_000, 140),
    ("F", 111_800, 190),
    ("KO", 639_200, 85),
    ("RY.TO", 1_746_000, 95),
    ("V", 3_099_200, 110),
];

fn listings() -> Vec<Listing> {
    let listing = |(symbol, price, volatility_bp): &(&str, i64, u32)| Listing {
        symbol: (*symbol).to_owned(),
        currency: "USD".to_owned(),
        exchange: "NYSE".to_owned(),
        sector: "Technology".to_owned(),
        is_fund: false,
        tick_e4: 100,
        lot_e4: 10_000,
        close_e4: *price,
        last_e4: *price,
        volatility_bp: *volatility_bp,
        worth: 1_000_000_000,
        is_open: true,
    };
    SYMBOLS.iter().map(listing).collect()
}

/// Agents that nobody answers yet.
fn core(seed: u64) -> Core {
    let mut core = Core::new(seed, listings(), Mood::Normal);
    for (market, listing) in listings().iter().enumerate() {
        let quote = quote_e4(listing);
        core.own(Agent::Maker(market), market, quote * MAKER_QUOTES, maker_cash_micros(listing));
        for trader in 0..TRADERS {
            core.own(Agent::Trader(trader), market, quote * TRADER_QUOTES, TRADER_CASH_MICROS);
        }
    }
    core
}

fn play(seed: u64) -> Play {
    Play::new(seed, &listings(), Mood::Normal, false)
}

fn run(play: &mut Play, steps: u64) {
    for _ in 0..steps {
        play.step(false);
    }
}

#[test]
fn the_opening_book_has_ten_levels_around_the_last_price() {
    assert!(!core(1).is_standing());
    let mut play = play(1);
    assert!(play.core().is_standing());
    for (market, listing) in listings().iter().enumerate() {
        let book = play.book(market);
        assert!(book.depth(Side::Buy).count() >= 10 && book.depth(Side::Sell).count() >= 10);
        let (bid, ask) = (book.best_bid().unwrap(), book.best_ask().unwrap());
        let last = (listing.last_e4 / 100) as u32;
        assert!(bid < last && last < ask, "{}: {bid} {last} {ask}", listing.symbol);
        assert!(u64::from(ask - bid) * 400 < u64::from(last).max(800), "{}: {bid} {ask}", listing.symbol);
    }
}

#[test]
fn an_hour_of_trading_is_lively_two_sided_and_economical() {
    let mut play = play(42);
    let (begun, _) = play.requests();
    let (mut trades, mut one_sided) = ([0_u64; SYMBOLS.len()], 0);
    let steps = 3_600 * STEPS_PER_SECOND;
    for _ in 0..steps {
        play.step(false);
        for trade in play.traded() {
            trades[trade.market] += 1;
        }
        let is_one_sided = |m: &usize| {
            let book = play.book(*m);
            book.best_bid().is_none() || book.best_ask().is_none()
        };
        one_sided += (0..SYMBOLS.len()).filter(is_one_sided).count();
    }
    let all: u64 = trades.iter().sum();
    assert!((5_000..20_000).contains(&all), "{trades:?}");
    assert!(trades[0] > 5 * trades[5], "{trades:?}");
    assert!(one_sided * 200 <= steps as usize * SYMBOLS.len(), "{one_sided} steps");
    let (requests, lookups) = play.requests();
    assert!(requests - begun <= 4 * steps && lookups < 50, "{requests} {lookups}");
    for market in 0..SYMBOLS.len() {
        let m = play.core().market(market);
        assert!((20..=900).contains(&(m.maker_shares_e4 / m.quote_e4)), "{}", m.listing.symbol);
    }
}

#[test]
fn the_same_seed_and_the_same_inputs_give_the_same_market() {
    let bars = |seed| play(seed).bars(3_000, true);
    assert_eq!(bars(5), bars(5));
    assert_ne!(bars(5), bars(6));
}

#[test]
fn news_moves_a_symbol_and_no_other() {
    let (mut with, mut without) = (play(8), play(8));
    run(&mut with, 400);
    run(&mut without, 400);
    with.core().news(0, -0.05);
    run(&mut with, 40);
    run(&mut without, 40);
    let part = |market| with.middle(market).unwrap() / without.middle(market).unwrap();
    assert!((0.94..0.96).contains(&part(0)), "{}", part(0));
    assert!((0.995..1.005).contains(&part(3)), "{}", part(3));
}

#[test]
fn a_crash_takes_a_tenth_and_gives_half_of_it_back() {
    let mut play = Play::new(3, &listings(), Mood::Crash, false);
    let minutes = |play: &mut Play, n: u64| run(play, n * 60 * STEPS_PER_SECOND);
    let before: Vec<f64> = (0..SYMBOLS.len()).map(|m| play.middle(m).unwrap()).collect();
    minutes(&mut play, 16);
    let mean = |play: &Play| {
        let parts = before.iter().enumerate().map(|(m, b)| play.middle(m).unwrap() / b);
        parts.sum::<f64>() / SYMBOLS.len() as f64
    };
    let low = mean(&play);
    assert!((0.85..0.95).contains(&low), "{low}");
    minutes(&mut play, 50);
    assert!(mean(&play) > low, "{}", mean(&play));
}

#[test]
fn an_order_for_the_visible_side_moves_the_market_and_the_makers_come_back() {
    let mut play = play(11);
    run(&mut play, 400);
    let before = play.middle(0).unwrap();
    let visible: u64 = play.book(0).depth(Side::Sell).map(|l| l.qty).sum();
    assert!(play.stranger(0, Side::Buy, visible as i64 * 10_000) > 0);
    run(&mut play, 4);
    assert!(play.middle(0).unwrap() > before + 1.0, "{before} {:?}", play.middle(0));
    run(&mut play, 40);
    assert!(play.book(0).depth(Side::Sell).count() >= 10);
}

#[test]
fn a_restart_adopts_what_stands_and_places_nearly_nothing() {
    let mut first = play(9);
    run(&mut first, 400);
    let mut again = core(9);
    for market in 0..SYMBOLS.len() {
        again.adopt(market, first.standing(market), first.position());
    }
    let open = again.open();
    let placed = open.iter().filter(|r| matches!(r, Request::Place { .. })).count();
    assert!(placed <= 6, "{placed}");
}

#[test]
fn a_lost_answer_is_looked_up_and_mended() {
    let mut play = play(3);
    run(&mut play, 100);
    play.loses_answer = true;
    // Nobody tells the maker that a quote is gone, and the answer to its next placing is lost.
    play.vanish(0);
    run(&mut play, 400);
    assert!(!play.loses_answer);
    assert!(play.requests().1 >= 1);
    let standing = play.standing(0);
    let own: Vec<u128> = play.core().market(0).ladder.quotes.iter().map(|q| q.order).collect();
    assert!(standing.iter().all(|s| own.contains(&s.order)));
}

#[test]
fn what_was_read_is_not_changed_by_older_facts() {
    let mut play = play(3);
    let standing = play.standing(0);
    let order = standing[0].order;
    let core = play.core();
    core.answer(Answer::LookedUp { market: 0, standing, position: 1_000 });
    let agent = Agent::Maker(0);
    let fact = |position| Event::Order { market: 0, position, agent, order, filled_e4: 10_000, ended: true };
    core.event(&fact(1_000));
    assert!(core.market(0).ladder.quotes.iter().any(|q| q.order == order && q.filled_e4 == 0));
    core.event(&fact(1_001));
    assert!(core.market(0).ladder.quotes.iter().all(|q| q.order != order));
}

#[test]
fn a_halted_symbol_is_left_alone_until_it_opens() {
    let mut core = play(3).into_core();
    let mut about_aapl = |is_open| {
        core.event(&Event::State { market: 0, is_open });
        (0..400).any(|_| {
            let requests = core.step();
            let about = |r: &Request| {
                matches!(r, Request::Place { market: 0, .. } | Request::Replace { market: 0, .. })
            };
            requests.iter().any(about)
        })
    };
    assert!(!about_aapl(false));
    assert!(about_aapl(true));
}

#[test]
fn an_answer_that_never_comes_is_asked_for() {
    let mut core = play(4).into_core();
    let waits = |core: &Core| core.market(0).ladder.quotes.iter().any(|q| q.stage != Stage::Live);
    let looks_up = (0..4_000).any(|_| core.step().iter().any(|r| matches!(r, Request::LookUp { market: 0 })));
    assert!(looks_up && waits(&core));
}
