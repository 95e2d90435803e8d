//! The book against the reference: the same events, command by command, and the invariants after each.

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
                        && !new.kind.is_stop()
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

/// Runs a seed; the message of a panic names it.
fn run(seed: u64, commands: u32, whole_book_every: u32) {
    let mut caller = Caller::new(seed);
    let (mut book, mut reference) = (Book::new(), Reference::default());
    let mut events = Events::new();
    let mut checker = Checker::default();
    for step in 0..commands {
        let command = caller.command();
        let at = || format!("seed {seed}, step {step}, {command:?}");
        events.clear();
        book.apply(&command, &mut events);
        assert!(events.as_slice().len() < 100_000, "{}", at());
        let got: Vec<What> = events.iter().map(|event| without_slots(event.what)).collect();
        let expected = reference.apply(&command);
        assert_eq!(got, expected, "{}", at());
        checker.check(&book, &command, events.as_slice());
        caller.hear(events.as_slice());
        assert_eq!(book.open_orders() as usize, caller.slots.len(), "{}", at());
        if step % whole_book_every == 0 {
            compare_books(&book, &reference, &caller, &at());
        }
        if caller.rng.one_in(100) {
            book = restored(&book, &mut caller);
        }
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
    }
    // The reference tries every price: only where they are few.
    if let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask())
        && bid.saturating_sub(ask) < 2_000
    {
        let got = book.indicative().map(|found| {
            let surplus = i128::from(found.surplus);
            (found.price, found.qty, if found.surplus_side == Side::Buy { surplus } else { -surplus })
        });
        assert_eq!(got, reference.auction_price(), "{at}");
    }
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

#[test]
fn the_book_agrees_with_the_reference_event_by_event() {
    std::thread::scope(|scope| {
        for part in 0..2 {
            scope.spawn(move || {
                for seed in (part..SEEDS).step_by(2) {
                    run(seed, COMMANDS, 25);
                }
            });
        }
    });
}

#[test]
#[ignore = "takes minutes: run it by name"]
fn the_book_agrees_with_the_reference_over_a_million_commands() {
    for seed in 10_000..10_200 {
        run(seed, 5_000, 500);
    }
}
