//! A book whose orders are named by the caller's own numbers, in any order: a [`Book`] and a table from number to slot.

use crate::book::Book;
use crate::command::{Command, NewOrder, OrderId, Replace, Slot};
use crate::event::{Event, Events, Reason, Sink, What};
use crate::order::LEVEL;
use crate::prefetch::prefetch;
use crate::snapshot::Error;

/// Entries that a table begins with.
const ENTRIES_FIRST: usize = 64;
/// Open orders from which a batch's orders are fetched early: they no longer fit the nearest caches.
const FETCH_FROM: u32 = 16_384;
/// Commands ahead at which the table, the order and its neighbours are fetched.
const TABLE_AHEAD: usize = 24;
const ORDER_AHEAD: usize = 16;
const NEIGHBOURS_AHEAD: usize = 8;

/// A [`Book`] for callers whose numbers come in any order.
///
/// Commands are those of a book, but that a cancel or replace needs no slot: whatever its `slot` says is ignored. A number
/// is any but 0 and `u64::MAX`; it may be used again once its order has ended, and is refused with
/// [`Reason::BadOrderId`] while it is open. Events are the book's: trades name both sides by the caller's numbers.
///
/// The table hashes a number by one multiplication. Whoever picks numbers at will can pick ones that collide: let the
/// caller number orders itself, or keep a map of its own beside a [`Book`].
///
/// ```
/// use fafnir_matching::{Command, Events, KeyedBook, NewOrder, Side, Slot, What};
///
/// let (mut book, mut events) = (KeyedBook::new(), Events::new());
/// book.apply(&Command::New(NewOrder::limit(9_000, 1, Side::Sell, 10, 101)), &mut events);
/// book.apply(&Command::New(NewOrder::limit(17, 2, Side::Buy, 4, 101)), &mut events);
/// assert!(matches!(events.as_slice()[2].what, What::Trade { maker: 9_000, taker: 17, qty: 4, price: 101, .. }));
/// events.clear();
/// book.apply(&Command::Cancel { id: 9_000, slot: Slot::NONE }, &mut events);
/// assert!(matches!(events.as_slice()[0].what, What::Canceled { id: 9_000, open: 6, price: 101, side: Side::Sell, .. }));
/// ```
#[derive(Debug)]
pub struct KeyedBook {
    book: Book,
    table: Table,
}

impl Default for KeyedBook {
    fn default() -> KeyedBook {
        KeyedBook::new()
    }
}

impl KeyedBook {
    /// An empty book that trades.
    pub fn new() -> KeyedBook {
        KeyedBook::of(Book::new())
    }

    fn of(mut book: Book) -> KeyedBook {
        book.last_id = LEVEL - 1;
        let mut table = Table::new();
        for order in book.orders() {
            table.insert(order.id, order.slot);
        }
        KeyedBook { book, table }
    }

    /// The book, to ask.
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// [`Book::reserve`].
    pub fn reserve(&mut self, orders: u32) {
        self.book.reserve(orders);
        while self.table.entries.len() < 2 * orders as usize {
            self.table.grow();
        }
    }

    /// Where an open order lives.
    pub fn slot(&self, id: OrderId) -> Option<Slot> {
        self.table.find(id)
    }

    /// Applies one command and appends its events, at least one.
    pub fn apply(&mut self, command: &Command, out: &mut Events) {
        self.apply_into(command, out);
    }

    /// [`KeyedBook::apply`] with a reader of the caller's own. Inlined: call it where the kind of command is known.
    #[inline(always)]
    pub fn apply_into(&mut self, command: &Command, out: &mut impl Sink) {
        match command {
            Command::New(new) => self.new_order(new, out),
            Command::Cancel { id, .. } => {
                let slot = self.table.find(*id).unwrap_or(Slot::NONE);
                let mut keeper = Keeper { table: &mut self.table, out };
                self.book.apply_into(&Command::Cancel { id: *id, slot }, &mut keeper);
            }
            Command::Replace(replace) => self.replace(replace, out),
            Command::Reduce { id, qty, .. } => {
                let slot = self.table.find(*id).unwrap_or(Slot::NONE);
                let mut keeper = Keeper { table: &mut self.table, out };
                self.book.apply_into(&Command::Reduce { id: *id, slot, qty: *qty }, &mut keeper);
            }
            other => {
                let mut keeper = Keeper { table: &mut self.table, out };
                self.book.apply_into(other, &mut keeper);
            }
        }
    }

    /// Applies commands one after the other. From 16,384 open orders on, what the coming ones will touch is fetched while
    /// one is applied: that is faster than one at a time. With fewer it is the same, and a caller who makes commands as he
    /// goes does better with [`KeyedBook::apply_into`].
    pub fn apply_batch(&mut self, commands: &[Command], out: &mut impl Sink) {
        if self.book.open_orders() < FETCH_FROM {
            for command in commands {
                self.apply_one(command, out);
            }
            return;
        }
        let named = |ahead: usize| commands.get(ahead).map_or(0, target);
        for (at, command) in commands.iter().enumerate() {
            self.table.fetch(named(at + TABLE_AHEAD));
            if let Some(slot) = self.table.find(named(at + ORDER_AHEAD)) {
                self.book.fetch_order(slot);
            }
            if let Some(slot) = self.table.find(named(at + NEIGHBOURS_AHEAD)) {
                self.book.fetch_neighbours(slot);
            }
            self.apply_one(command, out);
        }
    }

    #[inline(always)]
    fn apply_one(&mut self, command: &Command, out: &mut impl Sink) {
        // Each kind apart, so that what is inlined knows it.
        match command {
            Command::New(_) | Command::Cancel { .. } => self.apply_into(command, out),
            seldom => self.apply_seldom(seldom, out),
        }
    }

    #[inline(never)]
    fn apply_seldom(&mut self, command: &Command, out: &mut impl Sink) {
        self.apply_into(command, out);
    }

    #[inline(always)]
    fn new_order(&mut self, new: &NewOrder, out: &mut impl Sink) {
        if self.table.find(new.id).is_some() {
            return self.book.emit(out, What::Rejected { id: new.id, reason: Reason::BadOrderId });
        }
        self.book.last_id = 0;
        let mut keeper = Keeper { table: &mut self.table, out };
        self.book.apply_into(&Command::New(*new), &mut keeper);
        self.book.last_id = LEVEL - 1;
    }

    fn replace(&mut self, replace: &Replace, out: &mut impl Sink) {
        if replace.new_id != 0 && self.table.find(replace.new_id).is_some() {
            let reason = Reason::BadOrderId;
            return self.book.emit(out, What::ReplaceRejected { id: replace.id, reason });
        }
        let slot = self.table.find(replace.id).unwrap_or(Slot::NONE);
        self.book.last_id = 0;
        let mut keeper = Keeper { table: &mut self.table, out };
        self.book.apply_into(&Command::Replace(Replace { slot, ..*replace }), &mut keeper);
        self.book.last_id = LEVEL - 1;
    }

    /// Appends the canonical state: [`Book::snapshot`], whose greatest number is the greatest there can be.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        self.book.snapshot(out);
    }

    /// The book that [`KeyedBook::snapshot`] or [`Book::snapshot`] wrote.
    ///
    /// # Errors
    /// As [`Book::restore`].
    pub fn restore(bytes: &[u8]) -> Result<KeyedBook, Error> {
        Book::restore(bytes).map(KeyedBook::of)
    }

    /// Bytes that the book and its table hold, nearly.
    pub fn memory(&self) -> usize {
        self.book.memory() + self.table.entries.len() * size_of::<Entry>()
    }
}

/// The order that a command names, 0 for none.
#[inline(always)]
fn target(command: &Command) -> OrderId {
    match command {
        Command::New(new) => new.id,
        Command::Cancel { id, .. } => *id,
        Command::Replace(replace) => replace.id,
        _ => 0,
    }
}

/// Keeps the table up with the events on their way out.
struct Keeper<'a, S> {
    table: &'a mut Table,
    out: &'a mut S,
}

impl<S: Sink> Sink for Keeper<'_, S> {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        match event.what {
            What::Accepted { id, slot, .. } if slot != Slot::NONE => self.table.insert(id, slot),
            What::Trade { maker, taker, maker_open, taker_open, .. } => {
                if maker_open == 0 {
                    self.table.remove(maker);
                }
                if taker_open == 0 {
                    self.table.remove(taker);
                }
            }
            What::Canceled { id, .. } | What::Expired { id, .. } => self.table.remove(id),
            What::Replaced { old, id, slot, .. } if old != id => {
                self.table.remove(old);
                self.table.insert(id, slot);
            }
            _ => {}
        }
        self.out.event(event);
    }
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// 0 = free.
    id: OrderId,
    slot: Slot,
}

const FREE: Entry = Entry { id: 0, slot: Slot::NONE };

/// Open addressing, at most half full; entries stand as near behind their place as they can.
#[derive(Debug)]
struct Table {
    entries: Box<[Entry]>,
    used: usize,
    shift: u32,
}

impl Table {
    fn new() -> Table {
        Table::with_entries(ENTRIES_FIRST)
    }

    /// `count` is a power of two.
    fn with_entries(count: usize) -> Table {
        let entries = vec![FREE; count].into_boxed_slice();
        Table { entries, used: 0, shift: u64::BITS - count.ilog2() }
    }

    /// The upper bits of the product: neighbouring numbers come to stand far apart.
    #[inline(always)]
    fn place(&self, id: OrderId) -> usize {
        (id.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    #[inline(always)]
    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.entries.len() - 1)
    }

    #[inline(always)]
    fn find(&self, id: OrderId) -> Option<Slot> {
        let mut at = self.place(id);
        loop {
            let entry = &self.entries[at];
            if entry.id == id {
                return (id != 0).then_some(entry.slot);
            }
            if entry.id == 0 {
                return None;
            }
            at = self.next(at);
        }
    }

    #[inline(always)]
    fn fetch(&self, id: OrderId) {
        prefetch(&self.entries, self.place(id));
    }

    #[inline(always)]
    fn insert(&mut self, id: OrderId, slot: Slot) {
        if 2 * self.used >= self.entries.len() {
            self.grow();
        }
        let mut at = self.place(id);
        while self.entries[at].id != 0 {
            debug_assert_ne!(self.entries[at].id, id);
            at = self.next(at);
        }
        self.entries[at] = Entry { id, slot };
        self.used += 1;
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self) {
        let larger = Table::with_entries(2 * self.entries.len());
        for entry in std::mem::replace(self, larger).entries {
            if entry.id != 0 {
                self.insert(entry.id, entry.slot);
            }
        }
    }

    /// Takes a number out, if it is in, and moves those behind it up.
    #[inline(always)]
    fn remove(&mut self, id: OrderId) {
        let mut hole = self.place(id);
        while self.entries[hole].id != id {
            if self.entries[hole].id == 0 {
                return;
            }
            hole = self.next(hole);
        }
        self.used -= 1;
        let mut at = self.next(hole);
        while self.entries[at].id != 0 {
            // An entry may move to the hole unless its own place lies behind it.
            let from_place = at.wrapping_sub(self.place(self.entries[at].id)) & (self.entries.len() - 1);
            let from_hole = at.wrapping_sub(hole) & (self.entries.len() - 1);
            if from_place >= from_hole {
                self.entries[hole] = self.entries[at];
                hole = at;
            }
            at = self.next(at);
        }
        self.entries[hole] = FREE;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_table_agrees_with_a_map() {
        let mut rng = 11u64;
        let mut next = move || {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng
        };
        let (mut table, mut model) = (Table::new(), BTreeMap::new());
        for step in 0..200_000u32 {
            // Few numbers, multiples of a power of two and any.
            let id = [next() % 300 + 1, (next() % 300 + 1) << 40, next() | 1][(next() % 3) as usize];
            if next() % 2 == 0 && !model.contains_key(&id) {
                table.insert(id, Slot(step));
                model.insert(id, Slot(step));
            } else {
                table.remove(id);
                model.remove(&id);
            }
            if step % 3 == 0 && next() % 2 == 0 {
                let first = model.keys().next().copied();
                if let Some(id) = first {
                    table.remove(id);
                    model.remove(&id);
                }
            }
            assert_eq!(table.find(id), model.get(&id).copied(), "step {step}");
            assert_eq!(table.used, model.len(), "step {step}");
        }
        for (id, slot) in model {
            assert_eq!(table.find(id), Some(slot));
        }
    }
}
