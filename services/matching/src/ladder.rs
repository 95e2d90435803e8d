//! The price levels of a side: a window of directly indexed levels around the best, an ordered map beyond it.
//!
//! Prices are turned into keys that grow towards the better price (`key = price` for bids, `!price` for asks), so that
//! one code serves both sides without a branch. A level is a node of the slab: the ring of its orders begins and ends
//! there. Invariants: the best level, if there is one, lies in the window; every level of `far` has a key below the
//! window. A key's place in the window is `key % WINDOW`: moving the window moves no level that stays inside.

use std::collections::BTreeMap;

use crate::book::Book;
use crate::command::Side;
use crate::order::WINDOW;

const WORDS: usize = (WINDOW / 64) as usize;
/// How far above the best key the window reaches after it moved: room for a better price without moving again.
const HEADROOM: u32 = WINDOW / 4;

/// Where a side's window stands.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Top {
    /// Best key, 0 = side empty.
    pub best: u32,
    /// Lowest key of the window, a multiple of 64.
    pub base: u32,
}

/// The levels of a window that may have orders. Every level with orders is marked. A mark whose level is empty is taken
/// out by whoever looks for the next best: an order that leaves does not touch the marks.
pub(crate) type Marks = [u64; WORDS];

/// Nodes of the levels beyond the window by key.
pub(crate) type Far = BTreeMap<u32, u32>;

/// The node of a key that lies in its side's window.
#[inline(always)]
pub(crate) fn window_node(side: Side, key: u32) -> u32 {
    side as u32 * WINDOW + key % WINDOW
}

#[inline(always)]
pub(crate) fn in_window(top: Top, key: u32) -> bool {
    key.wrapping_sub(top.base) < WINDOW
}

impl Book {
    /// The best key of a side, 0 for none.
    #[inline(always)]
    pub(crate) fn best_key(&self, side: Side) -> u32 {
        self.tops[side as usize].best
    }

    /// The node of the best key, which the caller has seen to be there.
    #[inline(always)]
    pub(crate) fn best_node(&self, side: Side) -> u32 {
        window_node(side, self.best_key(side))
    }

    /// The node of the level that a resting order of this key belongs to.
    #[inline(always)]
    pub(crate) fn node_of(&self, side: Side, key: u32) -> u32 {
        if in_window(self.tops[side as usize], key) {
            window_node(side, key)
        } else {
            self.far_node(side, key)
        }
    }

    #[cold]
    #[inline(never)]
    fn far_node(&self, side: Side, key: u32) -> u32 {
        *self.far[side as usize].get(&key).expect("invariant: a resting order's level exists")
    }

    /// The node of a key that is about to get an order.
    #[inline(always)]
    pub(crate) fn node_for_insert(&mut self, side: Side, key: u32) -> u32 {
        if !in_window(self.tops[side as usize], key) {
            return self.node_for_insert_outside(side, key);
        }
        self.mark(side, key);
        let top = &mut self.tops[side as usize];
        top.best = top.best.max(key);
        window_node(side, key)
    }

    #[inline(always)]
    fn mark(&mut self, side: Side, key: u32) {
        self.marks[side as usize][(key / 64) as usize % WORDS] |= 1 << (key % 64);
    }

    #[inline(always)]
    fn unmark(&mut self, side: Side, key: u32) {
        self.marks[side as usize][(key / 64) as usize % WORDS] &= !(1 << (key % 64));
    }

    #[cold]
    #[inline(never)]
    fn node_for_insert_outside(&mut self, side: Side, key: u32) -> u32 {
        let Top { best, base } = self.tops[side as usize];
        let better = key > best;
        // A worse price than the window's: move the window only if that brings the price in and wastes no headroom.
        let lower = !better && key < base && best - base < WINDOW / 2;
        if better || lower {
            self.move_window(side, key.max(best));
        }
        if in_window(self.tops[side as usize], key) {
            return self.node_for_insert(side, key);
        }
        match self.far[side as usize].get(&key) {
            Some(&node) => node,
            None => {
                let node = self.slab.insert_level();
                self.far[side as usize].insert(key, node);
                node
            }
        }
    }

    /// Puts the window so that `top` is in it with headroom above. Levels that leave go to `far`, others come back.
    fn move_window(&mut self, side: Side, top: u32) {
        let base = (top.saturating_add(HEADROOM) / 64 * 64).saturating_sub(WINDOW - 64);
        if base == self.tops[side as usize].base {
            return;
        }
        let mut cursor = self.highest_marked(side);
        while let Some(key) = cursor {
            cursor = self.next_marked_below(side, key);
            if key.wrapping_sub(base) >= WINDOW {
                let node = window_node(side, key);
                if self.slab.hot[node as usize].level_count() > 0 {
                    let far = self.slab.insert_level();
                    self.slab.move_level(node, far);
                    self.far[side as usize].insert(key, far);
                }
                self.unmark(side, key);
            }
        }
        self.tops[side as usize].base = base;
        while let Some((&key, &node)) = self.far[side as usize].last_key_value() {
            if !in_window(self.tops[side as usize], key) {
                break;
            }
            self.far[side as usize].remove(&key);
            self.slab.move_level(node, window_node(side, key));
            self.slab.remove_level(node);
            self.mark(side, key);
        }
    }

    fn highest_marked(&self, side: Side) -> Option<u32> {
        let top = self.tops[side as usize].base.saturating_add(WINDOW - 1);
        let bit = self.marks[side as usize][(top / 64) as usize % WORDS] >> (top % 64) & 1;
        if bit == 1 { Some(top) } else { self.next_marked_below(side, top) }
    }

    /// The next marked key of the window below one that lies in it.
    #[inline(always)]
    fn next_marked_below(&self, side: Side, key: u32) -> Option<u32> {
        let marks = &self.marks[side as usize];
        let lowest = self.tops[side as usize].base / 64;
        let mut word = key / 64;
        let mut bits = marks[word as usize % WORDS] & ((1u64 << (key % 64)) - 1);
        loop {
            if let Some(bit) = bits.checked_ilog2() {
                return Some(word * 64 + bit);
            }
            if word == lowest {
                return None;
            }
            word -= 1;
            bits = marks[word as usize % WORDS];
        }
    }

    /// The last order of the best level left: finds the next best one.
    #[inline(never)]
    pub(crate) fn leave_best(&mut self, side: Side) {
        let mut key = self.best_key(side);
        loop {
            self.unmark(side, key);
            match self.next_marked_below(side, key) {
                Some(next) => key = next,
                None => {
                    self.tops[side as usize].best = self.best_from_far(side);
                    return;
                }
            }
            if self.slab.hot[window_node(side, key) as usize].level_count() > 0 {
                self.tops[side as usize].best = key;
                return;
            }
        }
    }

    /// Forgets a level beyond the window whose last order left.
    pub(crate) fn remove_far(&mut self, side: Side, key: u32) {
        if let Some(node) = self.far[side as usize].remove(&key) {
            self.slab.remove_level(node);
        }
    }

    #[cold]
    #[inline(never)]
    fn best_from_far(&mut self, side: Side) -> u32 {
        let Some((&key, _)) = self.far[side as usize].last_key_value() else { return 0 };
        self.move_window(side, key);
        key
    }

    /// The best key below `key` that has orders, 0 for none.
    pub(crate) fn below(&self, side: Side, key: u32) -> u32 {
        if in_window(self.tops[side as usize], key) {
            let mut key = key;
            while let Some(next) = self.next_marked_below(side, key) {
                if self.slab.hot[window_node(side, next) as usize].level_count() > 0 {
                    return next;
                }
                key = next;
            }
        }
        self.far[side as usize].range(..key).next_back().map_or(0, |(&key, _)| key)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use crate::{Book, Command, Events, NewOrder, Side, Slot, What};

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
}
