//! Which sequences of a stream exist, in 16 bytes each: dense where messages are, nothing where none are.

use super::net::Nanos;
use std::collections::BTreeMap;

const CHUNK: u64 = 256;

/// What is known of a message without its payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Slot {
    /// When it was stored.
    pub ts: Nanos,
    /// Bytes it counts for; zero marks a missing message.
    pub size: u32,
    /// Number of its subject.
    pub subject: u32,
}

#[derive(Debug, Default)]
struct Chunk {
    slots: Vec<Slot>,
    live: u32,
}

/// The sequences that exist.
#[derive(Debug, Default)]
pub struct Index {
    chunks: BTreeMap<u64, Chunk>,
    len: u64,
}

impl Index {
    /// Adds a message; sequences only grow.
    pub fn push(&mut self, seq: u64, slot: Slot) {
        debug_assert!(
            self.chunks
                .last_key_value()
                .is_none_or(|(number, chunk)| { number * CHUNK + (chunk.slots.len() as u64) <= seq }),
            "invariant: a stream's sequences ascend; {seq} does not"
        );
        let chunk = self.chunks.entry(seq / CHUNK).or_default();
        let at = (seq % CHUNK) as usize;
        if chunk.slots.len() <= at {
            chunk.slots.resize(at + 1, Slot::default());
        }
        chunk.slots[at] = Slot { size: slot.size.max(1), ..slot };
        chunk.live += 1;
        self.len += 1;
    }

    /// Removes a message.
    pub fn remove(&mut self, seq: u64) -> Option<Slot> {
        let chunk = self.chunks.get_mut(&(seq / CHUNK))?;
        let slot = chunk.slots.get_mut((seq % CHUNK) as usize).filter(|slot| slot.size > 0)?;
        let taken = std::mem::take(slot);
        chunk.live -= 1;
        if chunk.live == 0 {
            self.chunks.remove(&(seq / CHUNK));
        }
        self.len -= 1;
        Some(taken)
    }

    /// A message by sequence.
    pub fn get(&self, seq: u64) -> Option<&Slot> {
        self.chunks.get(&(seq / CHUNK))?.slots.get((seq % CHUNK) as usize).filter(|slot| slot.size > 0)
    }

    /// Messages with a sequence of at least `from`, in order.
    pub fn from(&self, from: u64) -> impl Iterator<Item = (u64, &Slot)> {
        self.chunks.range(from / CHUNK..).flat_map(move |(number, chunk)| {
            let skip = if *number == from / CHUNK { (from % CHUNK) as usize } else { 0 };
            chunk
                .slots
                .iter()
                .enumerate()
                .skip(skip)
                .filter(|(_, slot)| slot.size > 0)
                .map(move |(at, slot)| (number * CHUNK + at as u64, slot))
        })
    }

    /// Messages from the last one backwards.
    pub fn back(&self) -> impl Iterator<Item = (u64, &Slot)> {
        self.chunks.iter().rev().flat_map(|(number, chunk)| {
            let slots = chunk.slots.iter().enumerate().rev().filter(|(_, slot)| slot.size > 0);
            slots.map(move |(at, slot)| (number * CHUNK + at as u64, slot))
        })
    }

    /// The first message with at least this time; times ascend with sequences.
    pub fn at_time(&self, at: Nanos) -> Option<u64> {
        let ends =
            |chunk: &Chunk| chunk.slots.iter().rev().find(|slot| slot.size > 0).map_or(0, |slot| slot.ts);
        let (number, _) = self.chunks.iter().find(|(_, chunk)| ends(chunk) >= at)?;
        self.from(*number * CHUNK).find(|(_, slot)| slot.ts >= at).map(|(seq, _)| seq)
    }

    /// Sequences between the first message and `last` that do not exist.
    pub fn gaps(&self, last: u64) -> impl Iterator<Item = u64> {
        let mut expected = self.first().map_or(last + 1, |(seq, _)| seq);
        let ends = self.from(0).map(|(seq, _)| seq).chain(std::iter::once(last + 1));
        ends.flat_map(move |seq| {
            let gap = expected..seq;
            expected = seq + 1;
            gap
        })
    }

    /// The first message.
    pub fn first(&self) -> Option<(u64, &Slot)> {
        self.from(0).next()
    }

    /// Number of messages with a sequence of at least `from`.
    pub fn count_from(&self, from: u64) -> u64 {
        let first = from / CHUNK;
        let partial = self.chunks.get(&first).map_or(0, |chunk| {
            chunk.slots.iter().skip((from % CHUNK) as usize).filter(|slot| slot.size > 0).count() as u64
        });
        partial + self.chunks.range(first + 1..).map(|(_, chunk)| u64::from(chunk.live)).sum::<u64>()
    }

    /// Number of messages.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_found_counted_and_removed_across_chunks() {
        let mut index = Index::default();
        for seq in 1..=1000 {
            index.push(seq, Slot { ts: seq, size: 1, subject: 0 });
        }
        assert_eq!(index.count_from(1), 1000);
        assert_eq!(index.count_from(300), 701);
        for seq in 2..=999 {
            assert!(index.remove(seq).is_some());
            assert!(index.remove(seq).is_none());
        }
        assert_eq!(index.from(2).next().map(|(seq, _)| seq), Some(1000));
        assert_eq!(index.first().map(|(seq, _)| seq), Some(1));
        assert_eq!((index.len(), index.chunks.len()), (2, 2));
        assert_eq!(index.count_from(2), 1);
    }
}
