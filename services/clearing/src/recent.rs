//! The ids of recent commands: what was asked for under them, and what it made. A window of fixed length; doors keep the
//! rest in tables of their own.

use crate::fact::Known;
use std::collections::{HashMap, VecDeque};

/// One remembered command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    pub hash: u128,
    pub payload: u128,
    pub known: Known,
}

/// See the module. The hash map is for look-ups and never iterated.
#[derive(Debug, Default)]
pub struct Recent {
    entries: VecDeque<Entry>,
    /// Number of the first entry in the deque, counted since genesis.
    first: u64,
    by_hash: HashMap<u128, u64>,
    /// Position of the newest entry that has left; 0 while none has.
    begins_after: u64,
}

impl Recent {
    /// What is known of an id.
    pub fn get(&self, hash: u128) -> Option<&Entry> {
        let number = *self.by_hash.get(&hash)?;
        self.entries.get(usize::try_from(number - self.first).ok()?)
    }

    /// The position up to which entries may have left: what was looked up elsewhere at least until there is not missed
    /// here.
    pub fn begins_after(&self) -> u64 {
        self.begins_after
    }

    /// Remembers an id that is not known, and forgets the oldest beyond `max`.
    pub fn put(&mut self, entry: Entry, max: u32) {
        self.by_hash.insert(entry.hash, self.first + self.entries.len() as u64);
        self.entries.push_back(entry);
        self.shrink(max);
    }

    /// Forgets the oldest beyond `max`.
    pub fn shrink(&mut self, max: u32) {
        while self.entries.len() > max as usize {
            let Some(old) = self.entries.pop_front() else { break };
            self.first += 1;
            self.by_hash.remove(&old.hash);
            self.begins_after = self.begins_after.max(old.known.at);
        }
    }

    /// The entries, oldest first, and [`Self::begins_after`]: the canonical state.
    pub fn entries(&self) -> (impl ExactSizeIterator<Item = &Entry>, u64) {
        (self.entries.iter(), self.begins_after)
    }

    /// What [`Self::entries`] told. `None` where an id is there twice.
    pub fn restore(entries: Vec<Entry>, begins_after: u64) -> Option<Self> {
        let by_hash: HashMap<_, _> = entries.iter().zip(0u64..).map(|(e, n)| (e.hash, n)).collect();
        (by_hash.len() == entries.len()).then(|| Self {
            entries: entries.into(),
            first: 0,
            by_hash,
            begins_after,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_forgets_the_oldest_and_says_where_it_begins() {
        let entry = |n: u64| Entry {
            hash: u128::from(n),
            payload: 0,
            known: Known { at: n * 10, ..Known::default() },
        };
        let mut recent = Recent::default();
        for n in 1..=5 {
            recent.put(entry(n), 3);
        }
        assert_eq!((recent.get(2), recent.get(3), recent.begins_after()), (None, Some(&entry(3)), 20));
        let (entries, begins) = recent.entries();
        let again = Recent::restore(entries.copied().collect(), begins).unwrap();
        assert_eq!((again.get(5), again.begins_after()), (Some(&entry(5)), 20));
        assert!(Recent::restore(vec![entry(1), entry(1)], 0).is_none());
    }
}
