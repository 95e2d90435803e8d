//! A first book in ten minutes: orders with your own numbers, trades, a market by price, a snapshot.
//!
//! `cargo run --example first_book`
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use fafnir_matching::{Command, Event, Events, KeyedBook, NewOrder, Replace, Side, Sink, Slot, Tif, What};

/// Prices are whole ticks, quantities whole lots: the caller knows what a tick is, the book does not.
const TICK_CENTS: u32 = 1;

/// Keeps the traded lots: whoever reads each event once needs no list of them.
#[derive(Default)]
struct Tape {
    lots: u64,
}

impl Sink for Tape {
    fn event(&mut self, event: Event) {
        if let What::Trade { qty, .. } = event.what {
            self.lots += qty;
        }
    }
}

fn main() {
    // Orders have any number you like but 0 and u64::MAX. Owners are numbers too: nobody trades with himself.
    let (ann, bob) = (1, 2);
    let mut book = KeyedBook::new();
    let mut events = Events::new();

    println!("Ann offers 10 lots at 101.00 and 5 at 101.50, Bob bids 7 at 100.50:");
    for order in [
        NewOrder::limit(9_001, ann, Side::Sell, 10, 10_100),
        NewOrder::limit(9_000, ann, Side::Sell, 5, 10_150),
        NewOrder::limit(17, bob, Side::Buy, 7, 10_050),
    ] {
        book.apply(&Command::New(order), &mut events);
    }
    tell(&mut events);

    println!("Bob buys 12 at the market, at most at 102.00:");
    book.apply(&Command::New(NewOrder::market(18, bob, Side::Buy, 12, 10_200)), &mut events);
    tell(&mut events);

    println!("Ann's second order goes to 101.25, Bob cancels his bid:");
    // A book that is named by number finds the slot itself: Slot::NONE will do.
    book.apply(&Command::Replace(Replace::new(9_000, Slot::NONE, 0, 10_125)), &mut events);
    book.apply(&Command::Cancel { id: 17, slot: Slot::NONE }, &mut events);
    tell(&mut events);

    println!("The market now:");
    for level in book.book().depth(Side::Sell).take(5) {
        println!("  {:>7} lots in {} orders at {}", level.qty, level.orders, cents(level.price));
    }
    let at = book.book().level(Side::Sell, 10_125).map_or(0, |level| level.qty);
    println!("  {at} lots at 101.25, asked by price: no walk");

    // Many commands at once: the book fetches what the coming ones touch.
    let batch: Vec<Command> = (0..1_000)
        .map(|n| {
            let side = if n % 2 == 0 { Side::Buy } else { Side::Sell };
            Command::New(NewOrder::limit(20_000 + n, 3 + n as u32 % 7, side, 1, 10_000).with_tif(Tif::Day))
        })
        .collect();
    let mut tape = Tape::default();
    book.apply_batch(&batch, &mut tape);
    println!("1,000 orders in a batch traded {} lots", tape.lots);

    let mut bytes = Vec::new();
    book.snapshot(&mut bytes);
    match KeyedBook::restore(&bytes) {
        Ok(copy) => println!(
            "A snapshot of {} bytes brings the same book back: {}",
            bytes.len(),
            copy.book().state_hash() == book.book().state_hash()
        ),
        Err(error) => println!("{error}"),
    }
}

fn tell(events: &mut Events) {
    for event in &*events {
        match event.what {
            What::Accepted { id, open, price, side, .. } => {
                println!("  {id} is in: {side:?} {open} at {}", cents(price));
            }
            What::Trade { maker, taker, qty, price, maker_open, taker_open, .. } => println!(
                "  {taker} takes {qty} of {maker} at {}; open: {taker_open} and {maker_open}",
                cents(price)
            ),
            What::Canceled { id, open, price, side, reason, .. } => {
                println!("  {id} is out: {side:?} {open} at {}, {}", cents(price), reason.as_str());
            }
            What::Replaced { id, open, price, kept_place, .. } => {
                println!("  {id} stands with {open} at {}, place kept: {kept_place}", cents(price));
            }
            other => println!("  {other:?}"),
        }
    }
    events.clear();
}

fn cents(ticks: u32) -> String {
    let cents = ticks * TICK_CENTS;
    format!("{}.{:02}", cents / 100, cents % 100)
}
