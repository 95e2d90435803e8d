//! Which blocks of levels a book has: per side a radix tree over their keys, four bits a step, paths without a fork
//! left out.
//!
//! A block's key is its levels' key without the last three bits. A fork has at least two children; so there are fewer
//! forks than blocks, wherever prices lie, and no way down is longer than eight steps. The neighbours of a block in
//! the order of keys are found below the fork that it hangs from, without going up again.

use crate::command::Side;
use crate::order::{NIL, Slab};

/// Children of a fork.
const WAYS: usize = 16;
const BITS: u32 = WAYS.ilog2();
/// A link with this bit names a fork, one without it a block's first node.
const FORK: u32 = 1 << 31;

#[derive(Clone, Copy, Debug)]
struct Fork {
    /// Block or fork by digit, [`NIL`] for none.
    links: [u32; WAYS],
    /// What the keys below have in common: the key without this fork's digit and those after it.
    prefix: u32,
    /// The fork above, [`NIL`] for none; of a free one the next free one.
    parent: u32,
    /// Bit of each digit that has a child.
    marks: u16,
    /// How many bits of the key come after this fork's digit.
    shift: u8,
}

impl Fork {
    #[inline(always)]
    fn digit(&self, key: u32) -> usize {
        (key >> self.shift) as usize % WAYS
    }

    #[inline(always)]
    fn covers(&self, key: u32) -> bool {
        key >> self.shift >> BITS == self.prefix
    }

    /// Some key below this fork's prefix: for digits above it.
    fn any_key(&self) -> u32 {
        ((self.prefix << BITS) | u32::from(self.marks).trailing_zeros()) << self.shift
    }
}

/// Where a key belongs that is not there.
pub(crate) struct Gap {
    /// The last fork whose prefix the key has, [`NIL`] for none.
    above: u32,
    /// What stands where the key's way leaves that fork (or the root): a block or fork of another prefix, or [`NIL`].
    there: u32,
}

/// Both sides' trees.
#[derive(Debug)]
pub(crate) struct Index {
    roots: [u32; 2],
    /// Per side a fork that was used last, whose children are blocks: most ways down begin and end there.
    last: [u32; 2],
    free: u32,
    forks: Vec<Fork>,
}

impl Index {
    pub fn new() -> Index {
        Index { roots: [NIL; 2], last: [NIL; 2], free: NIL, forks: Vec::new() }
    }

    /// The first node of the block with this key.
    pub fn find(&self, slab: &Slab, side: Side, key: u32) -> Option<u32> {
        self.walk(slab, side, key).ok()
    }

    /// The first node of the block with this key, or where it belongs.
    #[inline(always)]
    pub fn walk(&self, slab: &Slab, side: Side, key: u32) -> Result<u32, Gap> {
        let last = self.last[side as usize];
        let mut above = NIL;
        let mut at = match self.forks.get(last as usize) {
            Some(fork) if fork.covers(key) => last | FORK,
            _ => self.roots[side as usize],
        };
        loop {
            if at == NIL {
                return Err(Gap { above, there: NIL });
            }
            if at & FORK == 0 {
                return if slab.block_key(at) == key { Ok(at) } else { Err(Gap { above, there: at }) };
            }
            let fork = &self.forks[(at & !FORK) as usize];
            if !fork.covers(key) {
                return Err(Gap { above, there: at });
            }
            above = at & !FORK;
            at = fork.links[fork.digit(key)];
        }
    }

    /// Puts a block where its key, which stands in the slab, belongs, and between its neighbours.
    pub fn insert(&mut self, slab: &mut Slab, side: Side, block: u32, gap: Gap) {
        let key = slab.block_key(block);
        let Gap { above, there } = gap;
        let fork = if there == NIL { above } else { self.split(slab, side, key, above, there) };
        slab.set_block_fork(block, fork);
        if fork == NIL {
            self.roots[side as usize] = block;
            return slab.set_block_neighbours(block, NIL, NIL);
        }
        let found = &mut self.forks[fork as usize];
        let digit = found.digit(key);
        found.links[digit] = block;
        found.marks |= 1 << digit;
        if found.shift == 0 {
            self.last[side as usize] = fork;
        }
        self.join_neighbours(slab, fork, digit, block);
    }

    /// Puts a fork above `there` at the first digit in which it differs from `key`.
    fn split(&mut self, slab: &mut Slab, side: Side, key: u32, above: u32, there: u32) -> u32 {
        let other = match self.fork(there) {
            Some(fork) => fork.any_key(),
            None => slab.block_key(there),
        };
        let shift = (key ^ other).ilog2() / BITS * BITS;
        let mut fork = Fork {
            links: [NIL; WAYS],
            prefix: key >> shift >> BITS,
            parent: above,
            marks: 0,
            shift: shift as u8,
        };
        let digit = fork.digit(other);
        fork.links[digit] = there;
        fork.marks = 1 << digit;
        let made = self.make(fork);
        self.set_parent(slab, there, made);
        self.set_link(side, above, key, made | FORK);
        made
    }

    fn make(&mut self, fork: Fork) -> u32 {
        let made = self.free;
        if let Some(place) = self.forks.get_mut(made as usize) {
            self.free = place.parent;
            *place = fork;
            made
        } else {
            self.forks.push(fork);
            self.forks.len() as u32 - 1
        }
    }

    fn fork(&self, link: u32) -> Option<&Fork> {
        (link & FORK != 0).then(|| &self.forks[(link & !FORK) as usize])
    }

    fn set_parent(&mut self, slab: &mut Slab, link: u32, parent: u32) {
        if link & FORK == 0 {
            slab.set_block_fork(link, parent);
        } else {
            self.forks[(link & !FORK) as usize].parent = parent;
        }
    }

    /// What hangs from a fork (or is the root) on the way of a key.
    fn set_link(&mut self, side: Side, fork: u32, key: u32, link: u32) {
        match self.forks.get_mut(fork as usize) {
            Some(fork) => {
                let digit = fork.digit(key);
                fork.links[digit] = link;
            }
            None => self.roots[side as usize] = link,
        }
    }

    /// Puts a block that hangs from a fork between its neighbours: a sibling's last or first block is one of them.
    fn join_neighbours(&self, slab: &mut Slab, fork: u32, digit: usize, block: u32) {
        let fork = &self.forks[fork as usize];
        let below = fork.marks & ((1 << digit) - 1);
        if let Some(sibling) = below.checked_ilog2() {
            let worse = self.end(fork.links[sibling as usize], |marks| marks.ilog2());
            let better = slab.block_better(worse);
            slab.set_block_neighbours(block, worse, better);
        } else {
            let above = fork.marks & !((2u16 << digit).wrapping_sub(1));
            let better = self.end(fork.links[above.trailing_zeros() as usize], u16::trailing_zeros);
            let worse = slab.block_worse(better);
            slab.set_block_neighbours(block, worse, better);
        }
    }

    /// The block at one end below a link.
    fn end(&self, link: u32, which: impl Fn(u16) -> u32) -> u32 {
        let mut at = link;
        while let Some(fork) = self.fork(at) {
            at = fork.links[which(fork.marks) as usize];
        }
        at
    }

    /// Takes a block out and its neighbours together.
    pub fn remove(&mut self, slab: &mut Slab, side: Side, block: u32) {
        slab.join_around(block);
        let (key, at) = (slab.block_key(block), slab.block_fork(block));
        let Some(fork) = self.forks.get_mut(at as usize) else {
            self.roots[side as usize] = NIL;
            return;
        };
        let digit = fork.digit(key);
        fork.links[digit] = NIL;
        fork.marks &= !(1 << digit);
        if !fork.marks.is_power_of_two() {
            return;
        }
        // One child is left: it takes the fork's place.
        let (child, parent) = (fork.links[fork.marks.trailing_zeros() as usize], fork.parent);
        fork.parent = self.free;
        self.free = at;
        for last in &mut self.last {
            if *last == at {
                *last = NIL;
            }
        }
        self.set_parent(slab, child, parent);
        self.set_link(side, parent, key, child);
    }

    /// Gives the memory of free forks at the end back.
    pub fn trim(&mut self) {
        let mut free: Vec<u32> = Vec::new();
        let mut next = self.free;
        while let Some(fork) = self.forks.get(next as usize) {
            free.push(next);
            next = fork.parent;
        }
        free.sort_unstable();
        while let Some(&last) = free.last()
            && last as usize + 1 == self.forks.len()
        {
            free.pop();
            self.forks.pop();
        }
        self.forks.shrink_to_fit();
        self.free = NIL;
        for &fork in free.iter().rev() {
            self.forks[fork as usize].parent = self.free;
            self.free = fork;
        }
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.forks.capacity() * size_of::<Fork>()
    }
}
