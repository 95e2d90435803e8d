//! The price levels of a side, in blocks of eight: made where an order comes, given back when the last one left.
//!
//! Prices are turned into keys that grow towards the better price (`key = price` for bids, `!price` for asks), so that
//! one code serves both sides without a branch. A level is a node of the slab: the ring of its orders begins and ends
//! there, and a resting order knows it. Eight neighbouring keys share a block, blocks of a side are linked in the order
//! of keys, and a tree finds them by key (index.rs). Nothing depends on where the best price stands.
//!
//! A level leaves one word free for its block: the first level's holds the block's key (and the bits above its count the
//! marks of levels that have orders), the others' its neighbours and its fork in the tree.
//!
//! Invariants: a level is marked where it has orders, and only there; a block without a mark is in the ring of those that
//! wait to be freed. An order that leaves touches its block only where its level is empty then.

use crate::book::{Book, mask};
use crate::command::{Lots, Side, Ticks};
use crate::index::Index;
use crate::order::{BLOCK, NIL, Order, Slab};

/// Blocks that a side finds without its tree: one for each value of the key's last seven bits, 1,024 levels around the best.
const KNOWN: usize = 128;
/// No node of a slab: what a side knows before it knows a block.
const UNKNOWN: u32 = 1 << 31;
/// Empty blocks of a book that wait for an order before they are freed: prices go to and fro.
const WAITING: usize = 32;

/// Bits of the first level's `owner`, above its count: the block waits; marks from here on.
const WAITS: u32 = 1 << 23;
const MARKS_SHIFT: u32 = 24;
/// Levels whose words hold the blocks next to it, and its fork.
const WORSE: u32 = 1;
const BETTER: u32 = 2;
const PARENT: u32 = 3;

/// A side's best level.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Top {
    /// 0 = side empty.
    pub key: u32,
    /// [`NIL`] = side empty.
    pub node: u32,
}

impl Top {
    pub const NONE: Top = Top { key: 0, node: NIL };
}

/// How levels are found, and what is empty.
#[derive(Debug)]
pub(crate) struct Ladder {
    known: [[u32; KNOWN]; 2],
    pub index: Index,
    /// Blocks that have, or had a while ago, no order: first node, the side in the highest bit.
    waiting: [u32; WAITING],
    waiting_next: usize,
    /// A book is 33 cache lines then: an odd number, so that the books of many symbols spread over the sets of a cache,
    /// and one that a shift and an addition find a book by.
    _apart: [u64; 55],
}

const _: () = assert!(size_of::<Book>() == 33 * 64);

impl Ladder {
    pub fn new() -> Ladder {
        Ladder {
            known: [[UNKNOWN; KNOWN]; 2],
            index: Index::new(),
            waiting: [NIL; WAITING],
            waiting_next: 0,
            _apart: [0; 55],
        }
    }
}

/// The first node of a level's block.
#[inline(always)]
pub(crate) fn block_of(node: u32) -> u32 {
    node & !(BLOCK - 1)
}

#[inline(always)]
fn known_at(block_key: u32) -> usize {
    block_key as usize % KNOWN
}

/// The nodes of a block.
#[inline(always)]
fn block_mut(hot: &mut [Order], block: u32) -> Option<&mut [Order; BLOCK as usize]> {
    hot.get_mut(block as usize..block as usize + BLOCK as usize)?.first_chunk_mut()
}

impl Slab {
    #[inline(always)]
    pub fn block_key(&self, block: u32) -> u32 {
        self.hot[block as usize].place
    }

    pub fn block_worse(&self, block: u32) -> u32 {
        self.hot[(block + WORSE) as usize].place
    }

    pub fn block_better(&self, block: u32) -> u32 {
        self.hot[(block + BETTER) as usize].place
    }

    pub fn block_fork(&self, block: u32) -> u32 {
        self.hot[(block + PARENT) as usize].place
    }

    pub fn set_block_fork(&mut self, block: u32, fork: u32) {
        self.hot[(block + PARENT) as usize].place = fork;
    }

    /// Puts a block between two others; [`NIL`] stands for none.
    pub fn set_block_neighbours(&mut self, block: u32, worse: u32, better: u32) {
        self.hot[(block + WORSE) as usize].place = worse;
        self.hot[(block + BETTER) as usize].place = better;
        if worse != NIL {
            self.hot[(worse + BETTER) as usize].place = block;
        }
        if better != NIL {
            self.hot[(better + WORSE) as usize].place = block;
        }
    }

    /// Makes a block's neighbours each other's.
    pub fn join_around(&mut self, block: u32) {
        let (worse, better) = (self.block_worse(block), self.block_better(block));
        if worse != NIL {
            self.hot[(worse + BETTER) as usize].place = better;
        }
        if better != NIL {
            self.hot[(better + WORSE) as usize].place = worse;
        }
    }

    /// Bits of a block's levels that have orders.
    #[inline(always)]
    fn block_marks(&self, block: u32) -> u32 {
        self.hot[block as usize].owner >> MARKS_SHIFT
    }

    /// Takes a level's mark out. True where its block has no mark now.
    #[inline(always)]
    pub fn unmark(&mut self, node: u32) -> bool {
        let first = &mut self.hot[block_of(node) as usize];
        first.owner &= !(1 << MARKS_SHIFT << (node % BLOCK));
        first.owner >> MARKS_SHIFT == 0
    }

    /// The key of a level.
    #[inline(always)]
    pub fn level_key(&self, node: u32) -> u32 {
        self.block_key(block_of(node)) * BLOCK + node % BLOCK
    }
}

impl Book {
    /// The best key of a side, 0 for none.
    #[inline(always)]
    pub(crate) fn best_key(&self, side: Side) -> u32 {
        self.tops[side as usize].key
    }

    /// The node of the best key, [`NIL`] for none.
    #[inline(always)]
    pub(crate) fn best_node(&self, side: Side) -> u32 {
        self.tops[side as usize].node
    }

    /// The price of a resting order, or what a held one has in its place.
    #[inline(always)]
    pub(crate) fn price_of(&self, slot: u32) -> Ticks {
        let order = &self.slab.hot[slot as usize];
        if order.is_held() { order.place } else { self.slab.level_key(order.place) ^ mask(order.side()) }
    }

    /// Puts the order that will be written at `slot` at the back of a key's level. Returns the level's node and the
    /// order's predecessor in the ring.
    #[inline(always)]
    pub(crate) fn append(&mut self, side: Side, key: u32, slot: u32, shown: Lots) -> (u32, u32) {
        let block = self.ladder.known[side as usize][known_at(key / BLOCK)];
        let hot = &mut *self.slab.hot;
        let Some(levels) = block_mut(hot, block).filter(|levels| levels[0].place == key / BLOCK) else {
            return self.append_unknown(side, key, slot, shown);
        };
        let digit = key % BLOCK;
        levels[0].owner |= 1 << MARKS_SHIFT << digit;
        let level = &mut levels[digit as usize];
        let tail = level.prev;
        level.prev = slot;
        level.level_add_one(shown);
        hot[tail as usize].next = slot;
        let node = block + digit;
        let top = &mut self.tops[side as usize];
        *top = std::hint::select_unpredictable(key > top.key, Top { key, node }, *top);
        (node, tail)
    }

    #[cold]
    #[inline(never)]
    fn append_unknown(&mut self, side: Side, key: u32, slot: u32, shown: Lots) -> (u32, u32) {
        let block = self.block_for(side, key / BLOCK);
        self.ladder.known[side as usize][known_at(key / BLOCK)] = block;
        self.append(side, key, slot, shown)
    }

    /// The block of a key, made if there is none.
    fn block_for(&mut self, side: Side, key: u32) -> u32 {
        match self.ladder.index.walk(&self.slab, side, key) {
            Ok(block) => block,
            Err(gap) => {
                let block = self.slab.take_levels();
                self.slab.hot[block as usize].place = key;
                self.ladder.index.insert(&mut self.slab, side, block, gap);
                block
            }
        }
    }

    /// The last order of a level left.
    #[inline(never)]
    pub(crate) fn level_left(&mut self, side: Side, node: u32) {
        debug_assert_eq!(self.slab.hot[node as usize].level_count(), 0);
        let block = block_of(node);
        let block_empty = self.slab.unmark(node);
        if self.best_node(side) == node {
            self.tops[side as usize] = self.best_from(block);
        }
        if block_empty {
            self.wait(side, block);
        }
    }

    /// The best level of a block and those that are worse.
    fn best_from(&self, block: u32) -> Top {
        let mut block = block;
        while block != NIL {
            if let Some(digit) = self.slab.block_marks(block).checked_ilog2() {
                return Top { key: self.slab.block_key(block) * BLOCK + digit, node: block + digit };
            }
            block = self.slab.block_worse(block);
        }
        Top::NONE
    }

    /// A block's last order left: it waits, and the block that has waited longest goes if it is still empty.
    fn wait(&mut self, side: Side, block: u32) {
        let bits = &mut self.slab.hot[block as usize].owner;
        if *bits & WAITS != 0 {
            return;
        }
        *bits |= WAITS;
        let at = self.ladder.waiting_next % WAITING;
        self.ladder.waiting_next = at + 1;
        let oldest = std::mem::replace(&mut self.ladder.waiting[at], block | (side as u32) << 31);
        self.stop_waiting(oldest);
    }

    fn stop_waiting(&mut self, waiting: u32) {
        if waiting == NIL {
            return;
        }
        let block = waiting & !(1 << 31);
        let side = if waiting == block { Side::Buy } else { Side::Sell };
        self.slab.hot[block as usize].owner &= !WAITS;
        if self.slab.block_marks(block) == 0 {
            self.ladder.index.remove(&mut self.slab, side, block);
            let known = &mut self.ladder.known[side as usize][known_at(self.slab.block_key(block))];
            if *known == block {
                *known = UNKNOWN;
            }
            self.slab.free_levels(block);
        }
    }

    /// Gives the memory of everything that is empty back.
    pub(crate) fn trim(&mut self) {
        for waiting in std::mem::replace(&mut self.ladder.waiting, [NIL; WAITING]) {
            self.stop_waiting(waiting);
        }
        self.ladder.waiting_next = 0;
        self.ladder.index.trim();
        self.slab.trim();
    }

    /// The best level with orders below one of a side, [`NIL`] for none.
    pub(crate) fn below(&self, node: u32) -> u32 {
        let block = block_of(node);
        let marks = self.slab.block_marks(block) & ((1 << (node % BLOCK)) - 1);
        match marks.checked_ilog2() {
            Some(digit) => block + digit,
            None => self.best_from(self.slab.block_worse(block)).node,
        }
    }

    /// The node of a key's level, if it has orders.
    pub(crate) fn find_level(&self, side: Side, key: u32) -> Option<u32> {
        let block = self.ladder.index.find(&self.slab, side, key / BLOCK)?;
        let node = block + key % BLOCK;
        (self.slab.hot[node as usize].level_count() > 0).then_some(node)
    }
}
#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{Command, Events, NewOrder, Slot, What};

    #[test]
    fn the_ladder_agrees_with_an_ordered_map_over_wide_and_narrow_prices() {
        let mut rng = 7u64;
        let mut next = move || {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng
        };
        for side in [Side::Buy, Side::Sell] {
            let (mut book, mut events) = (Book::new(), Events::new());
            let mut model: BTreeMap<u32, Vec<(u64, Slot)>> = BTreeMap::new();
            let mut centre = 1u32 << 31;
            for step in 1..=100_000u64 {
                if step % 5_000 == 0 {
                    centre = (next() as u32).clamp(100_000, u32::MAX - 100_000);
                }
                let spread = [3, 300, 3_000, 90_000][(next() % 4) as usize];
                let price = centre - spread + (next() % (2 * u64::from(spread))) as u32;
                events.clear();
                if next() % 2 == 0 {
                    book.apply(&Command::New(NewOrder::limit(step, 1, side, 1, price)), &mut events);
                    let What::Accepted { slot, .. } = events.as_slice()[0].what else { panic!("accepted") };
                    model.entry(price).or_default().push((step, slot));
                } else {
                    let found = match next() % 3 {
                        0 => model.range(..=price).next_back(),
                        1 => model.first_key_value(),
                        _ => model.last_key_value(),
                    };
                    if let Some((&price, orders)) = found {
                        let (id, slot) = orders[0];
                        book.apply(&Command::Cancel { id, slot }, &mut events);
                        assert!(matches!(events.as_slice()[0].what, What::Canceled { .. }), "step {step}");
                        let left = model.get_mut(&price).expect("found");
                        left.remove(0);
                        if left.is_empty() {
                            model.remove(&price);
                        }
                    }
                }
                let best = if side == Side::Buy { model.last_key_value() } else { model.first_key_value() };
                assert_eq!(book.best(side), best.map(|(&price, _)| price), "step {step}");
                if step % 500 == 0 {
                    book.check_ladder();
                    let mut depth: Vec<_> =
                        book.depth(side).map(|level| (level.price, level.orders as usize)).collect();
                    depth.sort_unstable();
                    let expected: Vec<_> =
                        model.iter().map(|(&price, orders)| (price, orders.len())).collect();
                    assert_eq!(depth, expected, "step {step}");
                }
            }
        }
    }

    impl Book {
        /// The invariants of both sides' blocks.
        fn check_ladder(&self) {
            for side in [Side::Buy, Side::Sell] {
                let mut block = self.best_node(side);
                if block == NIL {
                    continue;
                }
                block = block_of(block);
                while self.slab.block_better(block) != NIL {
                    block = self.slab.block_better(block);
                }
                let mut before = u32::MAX;
                while block != NIL {
                    let key = self.slab.block_key(block);
                    assert!(key < before, "blocks are linked in the order of keys");
                    assert_eq!(self.ladder.index.walk(&self.slab, side, key).ok(), Some(block));
                    let first = &self.slab.hot[block as usize];
                    for digit in 0..BLOCK {
                        let has = self.slab.hot[(block + digit) as usize].level_count() > 0;
                        assert_eq!(self.slab.block_marks(block) >> digit & 1 == 1, has, "marks are exact");
                    }
                    let waits = self.ladder.waiting.contains(&(block | (side as u32) << 31));
                    assert_eq!(first.owner & WAITS != 0, waits);
                    assert!(waits || self.slab.block_marks(block) != 0, "an empty block waits");
                    before = key;
                    block = self.slab.block_worse(block);
                }
            }
        }
    }

    #[test]
    fn a_price_that_moves_leaves_no_memory_behind() {
        let (mut book, mut events) = (Book::new(), Events::new());
        let mut memory = 0;
        for step in 1..=200_000u64 {
            events.clear();
            let price = 1_000_000 + step as u32 * 61;
            book.apply(&Command::New(NewOrder::limit(step, 1, Side::Buy, 1, price)), &mut events);
            let What::Accepted { slot, .. } = events.as_slice()[0].what else { panic!("accepted") };
            book.apply(&Command::Cancel { id: step, slot }, &mut events);
            if step == 1_000 {
                memory = book.memory();
            }
        }
        assert_eq!(book.memory(), memory);
    }

    #[test]
    fn the_end_of_the_day_gives_the_memory_of_lone_orders_back() {
        let (mut book, mut events) = (Book::new(), Events::new());
        book.apply(&Command::DayEnd { now: 1 }, &mut events);
        let empty = book.memory();
        for id in 1..=10_000u32 {
            let order = NewOrder::limit(u64::from(id), 1, Side::Sell, 1, id * 4_096);
            book.apply(&Command::New(order.with_tif(crate::Tif::Day)), &mut events);
        }
        assert!(book.memory() > empty);
        book.check_ladder();
        book.apply(&Command::DayEnd { now: 2 }, &mut events);
        assert_eq!(book.memory(), empty);
        book.apply(&Command::New(NewOrder::limit(20_000, 1, Side::Buy, 1, 7)), &mut events);
        assert_eq!(book.best_bid(), Some(7));
        book.check_ladder();
    }

    #[test]
    fn an_order_that_stands_alone_takes_few_bytes() {
        // Lone, in pairs of neighbouring blocks, and where each pair needs a fork of its own.
        for step in [64, 1_000, 4_096, 1 << 20] {
            let (mut book, mut events) = (Book::new(), Events::new());
            let empty = book.memory();
            for id in 1..=2_048u32 {
                let price = (id / 2) * step + (id % 2) * 128 + 1;
                book.apply(
                    &Command::New(NewOrder::limit(u64::from(id), 1, Side::Buy, 1, price)),
                    &mut events,
                );
            }
            let each = (book.memory() - empty) / 2_048;
            assert!(each <= 1_024, "{each} bytes, {step} ticks apart");
        }
    }
}
