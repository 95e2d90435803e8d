//! The price levels of one side: a window of directly indexed levels around the best, an ordered map beyond it.
//!
//! Prices are turned into keys that grow towards the better price (`key = price` for bids, `!price` for asks), so that
//! one code serves both sides without a branch. A level is a node of the slab: the ring of its orders begins and ends
//! there. Invariants: the best level, if there is one, lies in the window; every level of `far` has a key below the
//! window. A key's place in the window is `key % WINDOW`: moving the window moves no level that stays inside.

use std::collections::BTreeMap;

use crate::order::{Slab, WINDOW};

const WORDS: usize = (WINDOW / 64) as usize;
/// How far above the best key the window reaches after it moved: room for a better price without moving again.
const HEADROOM: u32 = WINDOW / 4;

/// 256 bytes: the way to a side is a shift, not a multiplication. Not aligned to 256, or the books of many symbols would
/// meet in few sets of the cache.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Ladder {
    /// Best key, 0 = side empty.
    best: u32,
    /// Lowest key of the window, a multiple of 64.
    base: u32,
    /// First node of this side's window in the slab.
    first: u32,
    /// Every level with orders is marked. A mark whose level is empty is taken out by whoever looks for the next best:
    /// an order that leaves does not touch the bitmap.
    words: [u64; WORDS],
    /// Nodes of the levels beyond the window by key.
    far: BTreeMap<u32, u32>,
}

impl Ladder {
    /// The ladder of side 0 or 1.
    pub fn new(side: u32) -> Ladder {
        Ladder { best: 0, base: 0, first: side * WINDOW, words: [0; WORDS], far: BTreeMap::new() }
    }

    /// The best key, 0 for none.
    #[inline(always)]
    pub fn best(&self) -> u32 {
        self.best
    }

    /// The node of the best key, which the caller has seen to be there.
    #[inline(always)]
    pub fn best_node(&self) -> u32 {
        self.window_node(self.best)
    }

    #[inline(always)]
    pub fn in_window(&self, key: u32) -> bool {
        key.wrapping_sub(self.base) < WINDOW
    }

    #[inline(always)]
    pub fn window_node(&self, key: u32) -> u32 {
        self.first + key % WINDOW
    }

    /// The node of the level that a resting order of this key belongs to.
    #[inline(always)]
    pub fn node_of(&self, key: u32) -> u32 {
        if self.in_window(key) { self.window_node(key) } else { self.far_node(key) }
    }

    #[cold]
    #[inline(never)]
    fn far_node(&self, key: u32) -> u32 {
        *self.far.get(&key).expect("invariant: a resting order's level exists")
    }

    /// The node of a key that is about to get an order.
    #[inline(always)]
    pub fn node_for_insert(&mut self, key: u32, slab: &mut Slab) -> u32 {
        if !self.in_window(key) {
            return self.node_for_insert_outside(key, slab);
        }
        self.mark(key);
        self.best = self.best.max(key);
        self.window_node(key)
    }

    #[inline(always)]
    fn mark(&mut self, key: u32) {
        let word = (key / 64) as usize % WORDS;
        self.words[word] |= 1 << (key % 64);
    }

    #[inline(always)]
    fn unmark(&mut self, key: u32) {
        self.words[(key / 64) as usize % WORDS] &= !(1 << (key % 64));
    }

    #[cold]
    #[inline(never)]
    fn node_for_insert_outside(&mut self, key: u32, slab: &mut Slab) -> u32 {
        let better = key > self.best;
        // A worse price than the window's: move the window only if that brings the price in and wastes no headroom.
        let lower = !better && key < self.base && self.best - self.base < WINDOW / 2;
        if better || lower {
            self.move_window(key.max(self.best), slab);
        }
        if self.in_window(key) {
            self.mark(key);
            self.best = self.best.max(key);
            self.window_node(key)
        } else {
            *self.far.entry(key).or_insert_with(|| slab.insert_level())
        }
    }

    /// Puts the window so that `top` is in it with headroom above. Levels that leave go to `far`, others come back.
    fn move_window(&mut self, top: u32, slab: &mut Slab) {
        let base = (top.saturating_add(HEADROOM) / 64 * 64).saturating_sub(WINDOW - 64);
        if base == self.base {
            return;
        }
        let mut cursor = self.highest_marked();
        while let Some(key) = cursor {
            cursor = self.next_marked_below(key);
            if key.wrapping_sub(base) >= WINDOW {
                let node = self.window_node(key);
                if slab.hot[node as usize].level_count() > 0 {
                    let far = slab.insert_level();
                    slab.move_level(node, far);
                    self.far.insert(key, far);
                }
                self.unmark(key);
            }
        }
        self.base = base;
        while let Some((&key, &node)) = self.far.last_key_value() {
            if !self.in_window(key) {
                break;
            }
            self.far.remove(&key);
            slab.move_level(node, self.window_node(key));
            slab.remove_level(node);
            self.mark(key);
        }
    }

    fn highest_marked(&self) -> Option<u32> {
        let top = self.base.saturating_add(WINDOW - 1);
        let bit = self.words[(top / 64) as usize % WORDS] >> (top % 64) & 1;
        if bit == 1 { Some(top) } else { self.next_marked_below(top) }
    }

    /// The next marked key of the window below one that lies in it.
    #[inline(always)]
    fn next_marked_below(&self, key: u32) -> Option<u32> {
        let mut word = key / 64;
        let mut bits = self.words[word as usize % WORDS] & ((1u64 << (key % 64)) - 1);
        loop {
            if let Some(bit) = bits.checked_ilog2() {
                return Some(word * 64 + bit);
            }
            if word == self.base / 64 {
                return None;
            }
            word -= 1;
            bits = self.words[word as usize % WORDS];
        }
    }

    /// The last order of the best level left: finds the next best one.
    #[inline(always)]
    pub fn leave_best(&mut self, slab: &mut Slab) {
        let mut key = self.best;
        loop {
            self.unmark(key);
            match self.next_marked_below(key) {
                Some(next) => key = next,
                None => {
                    self.best = self.best_from_far(slab);
                    return;
                }
            }
            if slab.hot[self.window_node(key) as usize].level_count() > 0 {
                self.best = key;
                return;
            }
        }
    }

    /// Forgets a level beyond the window whose last order left.
    pub fn remove_far(&mut self, key: u32, slab: &mut Slab) {
        if let Some(node) = self.far.remove(&key) {
            slab.remove_level(node);
        }
    }

    #[cold]
    #[inline(never)]
    fn best_from_far(&mut self, slab: &mut Slab) -> u32 {
        let Some((&key, _)) = self.far.last_key_value() else { return 0 };
        self.move_window(key, slab);
        key
    }

    /// The best key below `key` that has orders, 0 for none.
    pub fn below(&self, key: u32, slab: &Slab) -> u32 {
        if self.in_window(key) {
            let mut key = key;
            while let Some(next) = self.next_marked_below(key) {
                if slab.hot[self.window_node(next) as usize].level_count() > 0 {
                    return next;
                }
                key = next;
            }
        }
        self.far.range(..key).next_back().map_or(0, |(&key, _)| key)
    }

    /// Bytes held beside the slab's nodes.
    pub fn memory(&self) -> usize {
        size_of::<Ladder>() + self.far.len() * 16
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
