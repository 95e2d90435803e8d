//! The price levels of one side: a window of directly indexed levels around the best, an ordered map beyond it.
//!
//! Prices are turned into keys that grow towards the better price (`key = price` for bids, `!price` for asks), so that
//! one code serves both sides without a branch. Invariant: the best level, if there is one, lies in the window; every
//! level of `far` has a key below the window. A key's place in the window is `key % WINDOW`: moving the window moves
//! no level that stays inside.

use std::collections::BTreeMap;

/// Levels in the window. 1024 × 24 bytes per side stay in the first caches.
const WINDOW: u32 = 1024;
const WORDS: usize = (WINDOW / 64) as usize;
/// How far above the best key the window reaches after it moved: room for a better price without moving again.
const HEADROOM: u32 = WINDOW / 4;
/// No order.
pub(crate) const NIL: u32 = u32::MAX;

/// The orders of one price, first in first out, as an intrusive list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Level {
    pub head: u32,
    pub tail: u32,
    /// Orders in the list; 0 = no level.
    pub count: u32,
    /// Visible lots.
    pub shown: u64,
}

const EMPTY: Level = Level { head: NIL, tail: NIL, count: 0, shown: 0 };

#[derive(Debug)]
pub(crate) struct Ladder {
    /// Best key, 0 = side empty.
    best: u32,
    /// Lowest key of the window, a multiple of 64.
    base: u32,
    /// Bit i = word i is not 0.
    summary: u16,
    words: [u64; WORDS],
    /// `WINDOW` levels, allocated with the first order.
    levels: Vec<Level>,
    far: BTreeMap<u32, Level>,
}

#[inline(always)]
fn index(key: u32) -> usize {
    (key % WINDOW) as usize
}

impl Ladder {
    pub fn new() -> Ladder {
        Ladder { best: 0, base: 0, summary: 0, words: [0; WORDS], levels: Vec::new(), far: BTreeMap::new() }
    }

    /// The best key, 0 for none.
    #[inline(always)]
    pub fn best(&self) -> u32 {
        self.best
    }

    #[inline(always)]
    fn in_window(&self, key: u32) -> bool {
        key.wrapping_sub(self.base) < WINDOW
    }

    /// The level of the best key, which the caller has seen to be there.
    #[inline(always)]
    pub fn best_level(&mut self) -> &mut Level {
        let at = index(self.best);
        &mut self.levels[at]
    }

    /// The level of a key, if it has orders.
    pub fn get(&self, key: u32) -> Option<&Level> {
        if self.in_window(key) {
            self.levels.get(index(key)).filter(|level| level.count > 0)
        } else {
            self.far.get(&key)
        }
    }

    /// The level of a key that has orders or is about to get one.
    #[inline(always)]
    pub fn level_for_insert(&mut self, key: u32) -> &mut Level {
        if !self.in_window(key) || self.levels.is_empty() {
            return self.level_for_insert_outside(key);
        }
        self.mark(key);
        if key > self.best {
            self.best = key;
        }
        let at = index(key);
        &mut self.levels[at]
    }

    #[inline(always)]
    fn mark(&mut self, key: u32) {
        let word = (key / 64) as usize % WORDS;
        self.words[word] |= 1 << (key % 64);
        self.summary |= 1 << word;
    }

    #[inline(always)]
    fn unmark(&mut self, key: u32) {
        let word = (key / 64) as usize % WORDS;
        self.words[word] &= !(1 << (key % 64));
        if self.words[word] == 0 {
            self.summary &= !(1 << word);
        }
    }

    #[cold]
    #[inline(never)]
    fn level_for_insert_outside(&mut self, key: u32) -> &mut Level {
        if self.levels.is_empty() {
            self.levels = vec![EMPTY; WINDOW as usize];
        }
        let better = key > self.best;
        // A worse price than the window's: move the window only if that brings the price in and wastes no headroom.
        let lower = !better && key < self.base && self.best - self.base < WINDOW / 2;
        if better || lower {
            self.move_window(key.max(self.best));
        }
        if self.in_window(key) {
            self.mark(key);
            self.best = self.best.max(key);
            let at = index(key);
            &mut self.levels[at]
        } else {
            self.far.entry(key).or_insert(EMPTY)
        }
    }

    /// Puts the window so that `top` is in it with headroom above. Levels that leave go to `far`, others come back.
    fn move_window(&mut self, top: u32) {
        let base = (top.saturating_add(HEADROOM) / 64 * 64).saturating_sub(WINDOW - 64);
        let old = self.base;
        if base == old {
            return;
        }
        // Leaving: all levels below the new base or (when it moves down) above the new end.
        let mut cursor = self.highest_marked();
        while let Some(key) = cursor {
            cursor = self.next_marked_below(key);
            if key < base || key - base >= WINDOW {
                let at = index(key);
                self.far.insert(key, self.levels[at]);
                self.levels[at] = EMPTY;
                self.unmark(key);
            }
        }
        self.base = base;
        while let Some((&key, &level)) = self.far.last_key_value() {
            if !self.in_window(key) {
                break;
            }
            self.far.remove(&key);
            self.levels[index(key)] = level;
            self.mark(key);
        }
    }

    #[inline(always)]
    fn highest_marked(&self) -> Option<u32> {
        self.highest_from(WORDS as u32 - 1)
    }

    /// The highest marked key in the window's words `0..=last` counted from the base.
    #[inline(always)]
    fn highest_from(&self, last: u32) -> Option<u32> {
        let first = self.base / 64;
        let turned =
            self.summary.rotate_right(first % WORDS as u32) & (u16::MAX >> (WORDS as u32 - 1 - last));
        let word = first + turned.checked_ilog2()?;
        let bits = self.words[word as usize % WORDS];
        Some(word * 64 + bits.checked_ilog2()?)
    }

    #[inline(always)]
    fn next_marked_below(&self, key: u32) -> Option<u32> {
        let word = key / 64;
        let bits = self.words[word as usize % WORDS] & ((1u64 << (key % 64)) - 1);
        if let Some(bit) = bits.checked_ilog2() {
            return Some(word * 64 + bit);
        }
        let from_base = word - self.base / 64;
        if from_base == 0 { None } else { self.highest_from(from_base - 1) }
    }

    /// Forgets the level of a key whose last order left.
    #[inline(always)]
    pub fn remove_level(&mut self, key: u32) {
        if self.in_window(key) {
            self.unmark(key);
            if key == self.best {
                self.best = match self.next_marked_below(key) {
                    Some(next) => next,
                    None => self.best_from_far(),
                };
            }
        } else {
            self.far.remove(&key);
        }
    }

    #[cold]
    #[inline(never)]
    fn best_from_far(&mut self) -> u32 {
        match self.far.last_key_value() {
            None => 0,
            Some((&key, _)) => {
                self.move_window(key);
                key
            }
        }
    }

    /// The level that a resting order of this key belongs to.
    #[inline(always)]
    pub fn level_of(&mut self, key: u32) -> &mut Level {
        if self.in_window(key) {
            &mut self.levels[index(key)]
        } else {
            self.far.get_mut(&key).expect("invariant: a resting order's level exists")
        }
    }

    /// The best key below `key`, 0 for none.
    pub fn below(&self, key: u32) -> u32 {
        if self.in_window(key)
            && let Some(next) = self.next_marked_below(key)
        {
            return next;
        }
        self.far.range(..key).next_back().map_or(0, |(&key, _)| key)
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.levels.capacity() * size_of::<Level>() + self.far.len() * (size_of::<Level>() + 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_agrees_with_an_ordered_map_over_wide_and_narrow_prices() {
        let mut rng = 7u64;
        let mut next = move || {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng
        };
        let mut ladder = Ladder::new();
        let mut model = BTreeMap::new();
        let mut centre = 1u32 << 31;
        for step in 0..200_000u32 {
            if step % 5_000 == 0 {
                centre = (next() as u32).clamp(100_000, u32::MAX - 100_000);
            }
            let spread = [3, 300, 3_000, 90_000][(next() % 4) as usize];
            let key = centre - spread + (next() % (2 * u64::from(spread))) as u32;
            if next() % 2 == 0 {
                ladder.level_for_insert(key).count += 1;
                *model.entry(key).or_insert(0u32) += 1;
            } else if let Some((&key, _)) =
                if next() % 2 == 0 { model.range(..=key).next_back() } else { model.last_key_value() }
            {
                let level = ladder.level_of(key);
                level.count -= 1;
                if level.count == 0 {
                    ladder.remove_level(key);
                    model.remove(&key);
                } else {
                    model.insert(key, level.count);
                }
            }
            assert_eq!(ladder.best(), model.last_key_value().map_or(0, |(&key, _)| key), "step {step}");
            if step % 500 == 0 {
                let mut key = ladder.best();
                for (&expected, &count) in model.iter().rev() {
                    assert_eq!((key, ladder.get(key).map(|level| level.count)), (expected, Some(count)));
                    key = ladder.below(key);
                }
                assert_eq!(key, 0);
            }
        }
    }
}
