//! The book against the reference: the same events, command by command, and the invariants after each.
#![expect(clippy::expect_used, reason = "a test target")]

mod common;

use std::collections::BTreeMap;

use common::random::Caller;
use common::reference::{Reference, seen};
use common::without_slots;
use fafnir_matching::*;

/// Commands per seed in the quick run.
const COMMANDS: u32 = 250;
const SEEDS: u64 = 2_000;

/// What is known of an order from events alone.
struct Known {
    total: Lots,
    filled: Lots,
}

#[derive(Default)]
struct Checker {
    known: BTreeMap<OrderId, Known>,
    seq: u64,
}

impl Checker {
    /// The invariants of the rules that hold after every command.
    fn check(&mut self, book: &Book, command: &Command, events: &[Event]) {
        assert!(!events.is_empty(), "every command yields an event");
        for event in events {
            self.seq += 1;
            assert_eq!(event.seq, self.seq, "sequences have no gap");
            match event.what {
                What::Trade { maker, taker, qty, price, aggressor, .. } => {
                    assert!(qty > 0 && maker != taker);
                    if let Command::New(new) = command
                        && new.id == taker
                    {
                        let within =
                            if aggressor == Side::Buy { price <= new.price } else { price >= new.price };
                        assert!(within, "a trade within the taker's limit or cap");
                    }
                    for id in [maker, taker] {
                        if let Some(known) = self.known.get_mut(&id) {
                            known.filled += qty;
                            assert!(known.filled <= known.total, "filled is at most the quantity");
                        }
                    }
                }
                What::Accepted { id, open, .. } => {
                    self.known.insert(id, Known { total: open, filled: 0 });
                }
                What::Replaced { old, id, open, .. } => {
                    let filled =
                        self.known.remove(&old).filter(|_| old == id).map_or(0, |known| known.filled);
                    self.known.insert(id, Known { total: filled + open, filled });
                }
                _ => {}
            }
        }
        if let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask()) {
            assert!(bid < ask || book.phase().is_call(), "a book is never crossed or locked");
        }
    }
}

/// What a run came across, by name: that the agreement is about something.
type Coverage = BTreeMap<String, u64>;

fn cover(coverage: &mut Coverage, command: &Command, events: &[Event]) {
    let mut count = |name: &str| match coverage.get_mut(name) {
        Some(times) => *times += 1,
        None => drop(coverage.insert(name.to_owned(), 1)),
    };
    if let Command::New(new) = command
        && matches!(events[0].what, What::Accepted { .. })
    {
        count(kind_name(new.kind));
        count(tif_name(new.tif));
        if new.post_only {
            count("post-only");
        }
        if let What::Accepted { slot, .. } = events[0].what
            && new.kind == Kind::Market
            && slot != Slot::NONE
        {
            count("market in a call");
        }
    }
    let own = events.iter().any(|e| {
        matches!(e.what, What::Canceled { reason: Reason::SelfTrade, .. } | What::Decremented { .. })
    });
    if let Command::New(new) = command
        && own
    {
        count(["cancel newest", "cancel oldest", "cancel both", "decrement"][new.self_trade as usize]);
    }
    let paused = events.iter().any(|e| matches!(e.what, What::Paused { .. }));
    for event in events {
        match event.what {
            What::Trade { .. } => count("trade"),
            What::Replaced { kept_place: true, .. } => count("replace in place"),
            What::Reduced { .. } => count("reduced"),
            What::Replaced { .. } => count("replace"),
            What::Triggered { .. } if paused => count("triggered in a call"),
            What::Triggered { .. } => count("triggered"),
            What::StopMoved { .. } => count("stop moved"),
            What::Refilled { .. } => count("refilled"),
            What::Decremented { .. } => count("decremented"),
            What::Uncrossed { qty: 1.., .. } => count("auction with trades"),
            What::Paused { .. } => count("volatility pause"),
            What::Halted => count("halt"),
            What::Resumed => count("resume"),
            What::PhaseChanged { phase } => {
                count(["continuous", "pre-open", "auction", "closed", "closing"][phase as usize]);
            }
            What::Rejected { reason, .. }
            | What::Canceled { reason, .. }
            | What::CancelRejected { reason, .. }
            | What::Expired { reason, .. }
            | What::ReplaceRejected { reason, .. }
            | What::Refused { reason } => count(reason.as_str()),
            _ => {}
        }
    }
}

fn kind_name(kind: Kind) -> &'static str {
    ["limit", "market", "stop", "stop-limit", "trailing amount", "trailing percent"][kind as usize]
}

fn tif_name(tif: Tif) -> &'static str {
    ["day", "gtc", "ioc", "fok", "gtd", "opg", "cls"][tif as usize]
}

/// Everything that a run of a million commands must come across, often.
const COVERED: [&str; 68] = [
    "limit",
    "market",
    "stop",
    "stop-limit",
    "trailing amount",
    "trailing percent",
    "day",
    "gtc",
    "ioc",
    "fok",
    "gtd",
    "opg",
    "cls",
    "post-only",
    "cancel newest",
    "cancel oldest",
    "cancel both",
    "decrement",
    "trade",
    "replace in place",
    "replace",
    "triggered",
    "stop moved",
    "refilled",
    "decremented",
    "auction with trades",
    "volatility pause",
    "halt",
    "resume",
    "continuous",
    "pre-open",
    "auction",
    "closed",
    "closing",
    "AUCTION_END",
    "REQUESTED",
    "MASS_CANCEL",
    "SELF_TRADE",
    "IMMEDIATE_REMAINDER",
    "CANNOT_FILL_WHOLE",
    "COLLAR",
    "NO_LIQUIDITY",
    "DAY_END",
    "EXPIRE_TIME",
    "VOLATILITY_PAUSE",
    "HALTED",
    "NOT_HALTED",
    "BAD_ORDER_ID",
    "BAD_QUANTITY",
    "BAD_PRICE",
    "BAD_STOP_PRICE",
    "BAD_TRAIL",
    "BAD_DISPLAY",
    "BAD_TIME_IN_FORCE",
    "BAD_COMBINATION",
    "BAD_EXPIRE_TIME",
    "NO_REFERENCE_PRICE",
    "WOULD_TRADE",
    "UNKNOWN_ORDER",
    "BELOW_FILLED",
    "NOT_REPLACEABLE",
    "WRONG_PHASE",
    "SAME_PHASE",
    "BAD_BAND",
    "STOP_WRONG_SIDE",
    "market in a call",
    "reduced",
    "triggered in a call",
];
const COVERED_TIMES_MIN: u64 = 50;

/// Runs a seed; the message of a panic names it.
fn run(seed: u64, commands: u32, whole_book_every: u32, far: bool, coverage: &mut Coverage) {
    let mut caller = if far { Caller::far(seed) } else { Caller::new(seed) };
    let mut book = Book::new();
    // Every other caller lets elected stops in one by one, sometimes with commands of its own in between.
    let stepwise = seed % 2 == 1;
    book.set_stepwise(stepwise);
    let mut reference = if stepwise { Reference::stepwise() } else { Reference::default() };
    let mut events = Events::new();
    let mut checker = Checker::default();
    for step in 0..commands {
        let command = caller.command();
        let between = matches!(
            command,
            Command::New(_) | Command::Cancel { .. } | Command::Replace(_) | Command::Reduce { .. }
        );
        let waits = between && caller.rng.one_in(2) && !step.is_multiple_of(whole_book_every);
        if stepwise && !waits {
            enter_elected(&mut book, &mut reference, &mut checker, &mut caller, coverage, usize::MAX);
        }
        let at = || format!("seed {seed}, step {step}, {command:?}");
        events.clear();
        book.apply(&command, &mut events);
        assert!(events.as_slice().len() < 100_000, "{}", at());
        let got: Vec<What> = events.iter().map(|event| without_slots(event.what)).collect();
        let expected = reference.apply(&command);
        assert_eq!(got, expected, "{}", at());
        checker.check(&book, &command, events.as_slice());
        cover(coverage, &command, events.as_slice());
        caller.hear(events.as_slice());
        assert_eq!(book.open_orders() as usize, caller.slots.len(), "{}", at());
        enter_elected(&mut book, &mut reference, &mut checker, &mut caller, coverage, 1);
        if step % whole_book_every == 0 {
            enter_elected(&mut book, &mut reference, &mut checker, &mut caller, coverage, usize::MAX);
            compare_books(&book, &reference, &caller, &at());
        }
        if caller.rng.one_in(100) {
            enter_elected(&mut book, &mut reference, &mut checker, &mut caller, coverage, usize::MAX);
            book = restored(&book, &mut caller);
            book.set_stepwise(stepwise);
        }
    }
}

/// Elected stops, at most so many, enter in the book as they do in the reference.
fn enter_elected(
    book: &mut Book,
    reference: &mut Reference,
    checker: &mut Checker,
    caller: &mut Caller,
    coverage: &mut Coverage,
    most: usize,
) {
    for _ in 0..most {
        assert_eq!(book.next_elected(), reference.next_elected());
        let Some(expected) = reference.enter_elected() else { return };
        let (mut events, in_call) = (Events::new(), book.phase().is_call());
        assert!(book.enter_elected(&mut events), "one waits: {expected:?}");
        let got: Vec<What> = events.iter().map(|event| without_slots(event.what)).collect();
        assert_eq!(got, expected, "an elected stop");
        checker.check(book, &Command::Resume, events.as_slice());
        caller.hear(events.as_slice());
        *coverage.entry("triggered in a call".to_owned()).or_default() += u64::from(in_call);
    }
}

fn compare_books(book: &Book, reference: &Reference, caller: &Caller, at: &str) {
    let expected = reference.orders();
    assert_eq!(book.orders().map(|order| seen(&order)).collect::<Vec<_>>(), expected, "{at}");
    for order in book.orders() {
        assert_eq!(caller.slots.get(&order.id), Some(&order.slot), "{at}");
        assert_eq!(book.order(order.id, order.slot), Some(order), "{at}");
    }
    for side in [Side::Buy, Side::Sell] {
        let mut levels: Vec<PriceLevel> = Vec::new();
        for &(_, _, price, [shown, ..], ..) in expected.iter().filter(|o| o.1 == side && o.5.is_none()) {
            match levels.last_mut() {
                Some(level) if level.price == price => {
                    level.qty += shown;
                    level.orders += 1;
                }
                _ => levels.push(PriceLevel { price, qty: shown, orders: 1 }),
            }
        }
        assert_eq!(book.depth(side).collect::<Vec<_>>(), levels, "{at}");
        for level in levels {
            assert_eq!(book.level(side, level.price), Some(level), "{at}");
            let next = book.level(side, level.price ^ 1).map_or(level.price ^ 1, |found| found.price);
            assert_eq!(next, level.price ^ 1, "{at}");
        }
    }
    let got = book.indicative().map(|found| {
        let surplus = i128::from(found.surplus);
        (found.price, found.qty, if found.surplus_side == Side::Buy { surplus } else { -surplus })
    });
    assert_eq!(got, reference.auction_price(), "{at}");
}

/// The same book by way of its snapshot, the caller's slots with it.
fn restored(book: &Book, caller: &mut Caller) -> Book {
    let mut bytes = Vec::new();
    book.snapshot(&mut bytes);
    let copy = Book::restore(&bytes).expect("own snapshot");
    let mut again = Vec::new();
    copy.snapshot(&mut again);
    assert_eq!(bytes, again);
    caller.slots = copy.orders().map(|order| (order.id, order.slot)).collect();
    copy
}

/// Runs seeds on two threads and tells what they came across together.
fn run_all(seeds: std::ops::Range<u64>, commands: u32, whole_book_every: u32, far: bool) -> Coverage {
    std::thread::scope(|scope| {
        let part = |part: u64| {
            let seeds = seeds.clone();
            scope.spawn(move || {
                let mut coverage = Coverage::new();
                for seed in (seeds.start + part..seeds.end).step_by(2) {
                    run(seed, commands, whole_book_every, far, &mut coverage);
                }
                coverage
            })
        };
        let parts = [part(0), part(1)];
        let mut all = Coverage::new();
        for (name, times) in parts.into_iter().flat_map(|part| part.join().expect("agreement")) {
            *all.entry(name).or_default() += times;
        }
        all
    })
}

#[test]
fn the_book_agrees_with_the_reference_event_by_event() {
    run_all(0..SEEDS, COMMANDS, 25, false);
}

#[test]
fn the_book_agrees_with_the_reference_where_prices_lie_far_apart_and_at_the_ends() {
    run_all(0..SEEDS, COMMANDS, 25, true);
}

#[test]
fn the_book_agrees_with_the_reference_over_a_million_commands_whose_prices_lie_far_apart() {
    run_all(20_000..20_200, 5_000, 500, true);
}

#[test]
fn the_book_agrees_with_the_reference_over_a_million_commands_that_leave_nothing_out() {
    let coverage = run_all(10_000..10_200, 5_000, 500, false);
    for name in COVERED {
        let times = coverage.get(name).copied().unwrap_or(0);
        assert!(times >= COVERED_TIMES_MIN, "{name} came {times} times: {coverage:?}");
    }
    eprintln!("{coverage:?}");
}
