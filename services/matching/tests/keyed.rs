//! A book whose orders are named by the caller's numbers in any order, against the book that numbers them itself.

mod common;

use std::collections::BTreeMap;

use common::random::{Rng, side};
use common::without_slots;
use fafnir_matching::*;

const SEEDS: u64 = 300;
const COMMANDS: u64 = 400;

/// A number that says nothing about when it came: a bijection of the growing one.
fn scrambled(id: OrderId) -> OrderId {
    id.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31)
}

/// The event with each order's number changed.
fn renamed(mut what: What) -> What {
    match &mut what {
        What::Accepted { id, .. }
        | What::Rejected { id, .. }
        | What::Canceled { id, .. }
        | What::CancelRejected { id, .. }
        | What::Expired { id, .. }
        | What::ReplaceRejected { id, .. }
        | What::Triggered { id, .. }
        | What::StopMoved { id, .. }
        | What::Reduced { id, .. }
        | What::Refilled { id, .. } => *id = scrambled(*id),
        What::Replaced { old, id, .. } => (*old, *id) = (scrambled(*old), scrambled(*id)),
        What::Trade { maker, taker, .. } | What::Decremented { maker, taker, .. } => {
            (*maker, *taker) = (scrambled(*maker), scrambled(*taker));
        }
        _ => {}
    }
    what
}

/// Commands of a caller who knows only numbers.
fn commands(seed: u64) -> Vec<Command> {
    let mut rng = Rng(seed);
    let mut next_id = 1;
    (0..COMMANDS)
        .map(|_| {
            let price = 1_000 + rng.below(30) as u32;
            let (qty, owner) = (1 + rng.below(20), rng.below(4) as u32);
            let known = 1 + rng.below(next_id);
            match rng.below(10) {
                0..6 => {
                    next_id += 1;
                    let mut order = NewOrder::limit(next_id - 1, owner, side(rng.below(2)), qty, price);
                    order.tif = [Tif::Gtc, Tif::Gtc, Tif::Day, Tif::Ioc][rng.below(4) as usize];
                    if rng.one_in(8) {
                        order = NewOrder::stop(order.id, owner, order.side, qty, price, price);
                    }
                    if rng.one_in(8) && order.tif == Tif::Gtc && order.kind == Kind::Limit {
                        order.display = 1 + rng.below(qty);
                    }
                    Command::New(order)
                }
                6..8 => Command::Cancel { id: known, slot: Slot::NONE },
                8 => {
                    let new_id = if rng.one_in(2) { 0 } else { next_id };
                    next_id += u64::from(new_id != 0);
                    Command::Replace(Replace { new_id, ..Replace::new(known, Slot::NONE, qty, price) })
                }
                _ => [Command::CancelAll { owner: 1 }, Command::DayEnd { now: 1 }][rng.below(2) as usize],
            }
        })
        .collect()
}

/// The same command with each order's number changed.
fn with_own_number(command: &Command) -> Command {
    match *command {
        Command::New(new) => Command::New(NewOrder { id: scrambled(new.id), ..new }),
        Command::Cancel { id, slot } => Command::Cancel { id: scrambled(id), slot },
        Command::Replace(replace) => Command::Replace(Replace {
            id: scrambled(replace.id),
            new_id: if replace.new_id == 0 { 0 } else { scrambled(replace.new_id) },
            ..replace
        }),
        other => other,
    }
}

fn with_slot(command: &Command, slots: &BTreeMap<OrderId, Slot>) -> Command {
    let known = |id: OrderId| slots.get(&id).copied().unwrap_or(Slot::NONE);
    match *command {
        Command::Cancel { id, .. } => Command::Cancel { id, slot: known(id) },
        Command::Replace(replace) => Command::Replace(Replace { slot: known(replace.id), ..replace }),
        other => other,
    }
}

#[test]
fn numbers_in_any_order_give_the_same_events_as_growing_ones() {
    for seed in 0..SEEDS {
        let (mut book, mut keyed, mut batched) = (Book::new(), KeyedBook::new(), KeyedBook::new());
        let mut slots: BTreeMap<OrderId, Slot> = BTreeMap::new();
        let (mut expected, mut got, mut in_batch) = (Events::new(), Events::new(), Events::new());
        let commands = commands(seed);
        let own: Vec<Command> = commands.iter().map(with_own_number).collect();
        for (command, own) in commands.iter().zip(&own) {
            book.apply(&with_slot(command, &slots), &mut expected);
            slots = book.orders().map(|order| (order.id, order.slot)).collect();
            keyed.apply(own, &mut got);
            for (&id, &slot) in &slots {
                assert_eq!(keyed.slot(scrambled(id)), Some(slot), "seed {seed}");
            }
        }
        batched.apply_batch(&own, &mut in_batch);
        let plain =
            |events: &Events| events.iter().map(|event| without_slots(event.what)).collect::<Vec<_>>();
        let expected: Vec<What> = plain(&expected).into_iter().map(renamed).collect();
        assert_eq!(plain(&got), expected, "seed {seed}");
        assert_eq!(in_batch.as_slice(), got.as_slice(), "seed {seed}");
    }
}

#[test]
fn a_number_is_refused_while_its_order_is_open_and_free_after_it() {
    let (mut book, mut events) = (KeyedBook::new(), Events::new());
    let order = NewOrder::limit(77, 1, Side::Buy, 5, 100);
    book.apply(&Command::New(order), &mut events);
    book.apply(&Command::New(order), &mut events);
    book.apply(&Command::Cancel { id: 77, slot: Slot::NONE }, &mut events);
    book.apply(&Command::New(NewOrder { id: 5, ..order }), &mut events);
    book.apply(&Command::New(order), &mut events);
    book.apply(&Command::Cancel { id: 6, slot: Slot(3) }, &mut events);
    let whats: Vec<What> = events.iter().map(|event| event.what).collect();
    assert!(matches!(whats[1], What::Rejected { id: 77, reason: Reason::BadOrderId }));
    assert!(matches!(whats[2], What::Canceled { id: 77, open: 5, price: 100, side: Side::Buy, .. }));
    assert!(matches!(whats[4], What::Accepted { id: 77, .. }));
    assert!(matches!(whats[5], What::CancelRejected { id: 6, reason: Reason::UnknownOrder }));
}

#[test]
fn a_snapshot_brings_numbers_in_any_order_back() {
    let (mut book, mut events) = (KeyedBook::new(), Events::new());
    for id in [9, 3, 1 << 60, 4] {
        book.apply(&Command::New(NewOrder::limit(id, 1, Side::Sell, 5, 100)), &mut events);
    }
    let mut bytes = Vec::new();
    book.snapshot(&mut bytes);
    let mut copy = KeyedBook::restore(&bytes).expect("own bytes");
    assert_eq!(copy.book().state_hash(), book.book().state_hash());
    events.clear();
    copy.apply(&Command::New(NewOrder::limit(2, 2, Side::Buy, 6, 100)), &mut events);
    let makers: Vec<OrderId> = events
        .iter()
        .filter_map(|event| match event.what {
            What::Trade { maker, .. } => Some(maker),
            _ => None,
        })
        .collect();
    assert_eq!(makers, [9, 3], "price, then the order in which they came");
}
