//! The book behind the flow's interface: one command at a time, and batches whose operations are fetched ahead.

use super::wl::{ADD, CANCEL, Engine, IOC, MARKET, Msg, REPLACE, Stats};
use crate::prefetch::prefetch;
use crate::{
    Book, Command, Event, KeyedBook, MAX_PRICE, NewOrder, Owner, Replace, Side, Sink, Slot, Tif, What,
};

/// Open orders from which the order that an operation names is fetched early: they no longer fit the nearest cache.
const FETCH_FROM: u64 = 4_096;
/// Open orders from which the input is read ahead further, and by how many operations.
const READ_AHEAD_FROM: u64 = 16_384;
const READ_AHEAD: usize = 8;
/// Events that the reader's ring holds: 4 KiB of them.
const RING: usize = 64;

/// The full book, every feature on, behind the flow's interface: it numbers nothing itself, the table of slots is
/// what an engine around the book keeps.
#[derive(Debug)]
pub struct FafnirEngine {
    books: Vec<Book>,
    desk: Desk,
}

/// Who reads the events: keeps each as a whole record in a small ring, the slots of open orders, and counts trades.
#[derive(Debug)]
struct Desk {
    slots: Vec<Slot>,
    stats: Stats,
    ring: [Event; RING],
}

impl Sink for Desk {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        self.ring[event.seq as usize % RING] = event;
        match event.what {
            What::Trade { maker, taker, qty, price, .. } => {
                self.stats.trade(maker, taker, price, qty as u32);
            }
            What::Accepted { id, slot, .. } | What::Replaced { id, slot, .. } => {
                self.slots[id as usize] = slot;
            }
            _ => {}
        }
    }
}

impl FafnirEngine {
    /// The books, to look at after a replay.
    pub fn books(&self) -> &[Book] {
        &self.books
    }

    /// The operations other than add and cancel, one in ten.
    #[inline(never)]
    fn seldom(&mut self, m: &Msg) {
        let (side, owner, qty) = (side(m), owner(m), u64::from(m.qty));
        match m.op {
            REPLACE => {
                let slot = self.desk.slots[m.old_id as usize];
                let replace = Replace { new_id: m.id, ..Replace::new(m.old_id, slot, qty, m.price) };
                self.apply(m.sym, &Command::Replace(replace));
            }
            MARKET => {
                let cap = if m.side == 0 { MAX_PRICE } else { 1 };
                self.apply(m.sym, &Command::New(NewOrder::market(m.id, owner, side, qty, cap)));
            }
            _ => {
                debug_assert_eq!(m.op, IOC);
                let order = NewOrder::limit(m.id, owner, side, qty, m.price).with_tif(Tif::Ioc);
                self.apply(m.sym, &Command::New(order));
            }
        }
    }

    /// One command. Called with each kind of command apart, so that the record's operation is looked at once, not again
    /// as a command.
    #[inline(always)]
    fn apply(&mut self, symbol: u16, command: &Command) {
        self.books[symbol as usize].apply_into(command, &mut self.desk);
    }
}

fn side(m: &Msg) -> Side {
    if m.side & 1 == 0 { Side::Buy } else { Side::Sell }
}

/// Owners count from 1: 0 would take no part in self-trade prevention.
fn owner(m: &Msg) -> Owner {
    u32::from(m.owner) + 1
}

impl Engine for FafnirEngine {
    const NAME: &'static str = "fafnir";

    fn new(n_symbols: usize, max_id: usize) -> FafnirEngine {
        // Not zeros, which the system would give page by page in the timed part.
        let mut slots = vec![Slot::NONE; max_id + 1];
        // What an operation that names no order fetches: any line that is near.
        slots[0] = Slot(0);
        FafnirEngine {
            books: (0..n_symbols).map(|_| Book::new()).collect(),
            desk: Desk {
                slots,
                stats: Stats::default(),
                ring: [Event { seq: 0, what: What::Resumed }; RING],
            },
        }
    }

    #[inline(always)]
    fn op(&mut self, m: &Msg) {
        if m.op == ADD {
            let order = NewOrder::limit(m.id, owner(m), side(m), u64::from(m.qty), m.price);
            self.apply(m.sym, &Command::New(order));
        } else if m.op == CANCEL {
            let slot = self.desk.slots[m.old_id as usize];
            self.apply(m.sym, &Command::Cancel { id: m.old_id, slot });
        } else {
            self.seldom(m);
        }
    }

    fn run(&mut self, ops: &[Msg]) {
        let live = self.live().unwrap_or(0);
        let ahead = ops.len().saturating_sub(3 * READ_AHEAD);
        let (most, rest) = ops.split_at(ahead);
        if live < FETCH_FROM {
            for m in most {
                self.op(m);
            }
        } else if live < READ_AHEAD_FROM {
            for ((m, next), second) in
                most.iter().zip(&ops[ops.len().min(READ_AHEAD)..]).zip(&ops[ops.len().min(2 * READ_AHEAD)..])
            {
                prefetch(&self.desk.slots, second.old_id as usize);
                self.books[next.sym as usize].fetch_order(self.desk.slots[next.old_id as usize]);
                self.op(m);
            }
        } else {
            let later = |groups: usize| &ops[ops.len().min(groups * READ_AHEAD)..];
            for (((m, next), second), third) in most.iter().zip(later(1)).zip(later(2)).zip(later(3)) {
                prefetch(&self.desk.slots, third.old_id as usize);
                self.books[second.sym as usize].fetch_order(self.desk.slots[second.old_id as usize]);
                let book = &self.books[next.sym as usize];
                book.fetch_neighbours(self.desk.slots[next.old_id as usize]);
                self.op(m);
            }
        }
        for m in rest {
            self.op(m);
        }
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.desk.stats
    }

    fn live(&self) -> Option<u64> {
        Some(self.books.iter().map(|book| u64::from(book.open_orders())).sum())
    }
}

/// The same, each operation by itself: nothing is fetched ahead.
#[derive(Debug)]
pub struct OneByOne(FafnirEngine);

impl Engine for OneByOne {
    const NAME: &'static str = "fafnir, one at a time";

    fn new(n_symbols: usize, max_id: usize) -> OneByOne {
        OneByOne(FafnirEngine::new(n_symbols, max_id))
    }

    #[inline(always)]
    fn op(&mut self, m: &Msg) {
        self.0.op(m);
    }

    fn stats(&mut self) -> &mut Stats {
        self.0.stats()
    }

    fn live(&self) -> Option<u64> {
        self.0.live()
    }
}

/// Operations that are turned into commands together.
const BATCH: usize = 64;

/// Books that look their orders up by number, as an outside caller has them.
#[derive(Debug)]
pub struct KeyedEngine {
    books: Vec<KeyedBook>,
    trades: Trades,
    batch: Vec<Command>,
}

/// Counts trades, keeps whole records like [`Desk`].
#[derive(Debug)]
struct Trades {
    stats: Stats,
    ring: [Event; RING],
}

impl Sink for Trades {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        self.ring[event.seq as usize % RING] = event;
        if let What::Trade { maker, taker, qty, price, .. } = event.what {
            self.stats.trade(maker, taker, price, qty as u32);
        }
    }
}

/// The command of an operation; its slot is for a book that ignores it.
#[inline(always)]
fn command(m: &Msg) -> Command {
    let (side, owner, qty) = (side(m), owner(m), u64::from(m.qty));
    match m.op {
        ADD => Command::New(NewOrder::limit(m.id, owner, side, qty, m.price)),
        CANCEL => Command::Cancel { id: m.old_id, slot: Slot::NONE },
        REPLACE => {
            Command::Replace(Replace { new_id: m.id, ..Replace::new(m.old_id, Slot::NONE, qty, m.price) })
        }
        MARKET => {
            let cap = if m.side == 0 { MAX_PRICE } else { 1 };
            Command::New(NewOrder::market(m.id, owner, side, qty, cap))
        }
        _ => Command::New(NewOrder::limit(m.id, owner, side, qty, m.price).with_tif(Tif::Ioc)),
    }
}

impl Engine for KeyedEngine {
    const NAME: &'static str = "fafnir by number";

    fn new(n_symbols: usize, _: usize) -> KeyedEngine {
        KeyedEngine {
            books: (0..n_symbols).map(|_| KeyedBook::new()).collect(),
            trades: Trades { stats: Stats::default(), ring: [Event { seq: 0, what: What::Resumed }; RING] },
            batch: Vec::with_capacity(BATCH),
        }
    }

    #[inline(always)]
    fn op(&mut self, m: &Msg) {
        self.books[m.sym as usize].apply_into(&command(m), &mut self.trades);
    }

    fn run(&mut self, ops: &[Msg]) {
        let [book] = &mut self.books[..] else {
            return ops.iter().for_each(|m| self.op(m));
        };
        for part in ops.chunks(BATCH) {
            self.batch.clear();
            self.batch.extend(part.iter().map(command));
            book.apply_batch(&self.batch, &mut self.trades);
        }
    }

    fn stats(&mut self) -> &mut Stats {
        &mut self.trades.stats
    }

    fn live(&self) -> Option<u64> {
        Some(self.books.iter().map(|book| u64::from(book.book().open_orders())).sum())
    }
}

/// The same, each operation by itself.
#[derive(Debug)]
pub struct KeyedOneByOne(KeyedEngine);

impl Engine for KeyedOneByOne {
    const NAME: &'static str = "fafnir by number, one at a time";

    fn new(n_symbols: usize, max_id: usize) -> KeyedOneByOne {
        KeyedOneByOne(KeyedEngine::new(n_symbols, max_id))
    }

    #[inline(always)]
    fn op(&mut self, m: &Msg) {
        self.0.op(m);
    }

    fn stats(&mut self) -> &mut Stats {
        self.0.stats()
    }

    fn live(&self) -> Option<u64> {
        self.0.live()
    }
}
