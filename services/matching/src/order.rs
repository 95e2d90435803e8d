//! Where open orders and price levels live: a slab of 32-byte nodes in blocks of eight, and apart from it what is
//! rarely needed of an order.
//!
//! A node is an order or a level. The orders of a level form a ring that begins and ends in the level's node, so that
//! an order leaves its ring without a branch. A block holds eight orders' slots, or eight neighbouring levels
//! (ladder.rs), or is free.

use crate::command::{Lots, MAX_ORDERS, OrderId, Owner, SelfTrade, Side, Ticks, Tif, Time};

/// Nodes of a block.
pub(crate) const BLOCK: u32 = 8;
/// Nodes that a book begins with.
const NODES_FIRST: usize = 64;
/// No node.
pub(crate) const NIL: u32 = u32::MAX;
/// Number of a node that is a level. No order has it.
pub(crate) const LEVEL: OrderId = OrderId::MAX;

pub(crate) const SELL: u8 = 1;
/// The cold record of the slot is valid.
pub(crate) const COLD: u8 = 2;
pub(crate) const ICEBERG: u8 = 4;
pub(crate) const DAY: u8 = 8;
pub(crate) const GTD: u8 = 16;
/// Both bits of a time in force: for one auction only. [`Cold::closing`] says which.
pub(crate) const ONE_AUCTION: u8 = DAY | GTD;
/// Not in a ladder: an untriggered stop, a market order that waits for its auction, or any for the closing auction.
pub(crate) const HELD: u8 = 32;
pub(crate) const POST_ONLY: u8 = 64;
/// The slot's filled lots are valid.
pub(crate) const PARTLY: u8 = 128;
const QTY_SHIFT: u32 = 8;

/// The bits of a level's `owner` that count its orders: [`MAX_ORDERS`] fits.
const COUNT: u32 = (1 << 23) - 1;
const _: () = assert!(MAX_ORDERS <= COUNT);

/// What matching needs of an order; or a level: number [`LEVEL`], visible lots, count of orders (in `owner`), first
/// order in `next`, last one in `prev`, something about its block in `place` and above the count (ladder.rs).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Order {
    /// 0 = the slot is free.
    pub id: OrderId,
    /// Visible open lots above, flags in the low byte.
    word: u64,
    pub owner: Owner,
    /// Of a resting order its level's node, which knows the price. Of one in no level its limit; of a held one
    /// its limit, cap or cap distance.
    pub place: u32,
    /// Next in the level, or in the free list.
    pub next: u32,
    pub prev: u32,
}

const _: () = assert!(size_of::<Order>() == 32);

impl Order {
    #[inline(always)]
    pub fn new(id: OrderId, owner: Owner, price: Ticks, shown: Lots, flags: u8) -> Order {
        Order { id, word: shown << QTY_SHIFT | u64::from(flags), owner, place: price, next: NIL, prev: NIL }
    }

    /// Writes all but the links, field by field: a whole record through the stack costs a stalled load.
    #[inline(always)]
    pub fn write(&mut self, id: OrderId, owner: Owner, place: u32, shown: Lots, flags: u8) {
        self.id = id;
        self.word = shown << QTY_SHIFT | u64::from(flags);
        self.owner = owner;
        self.place = place;
    }

    /// Visible open lots (all open lots of an order that is no iceberg).
    #[inline(always)]
    pub fn shown(&self) -> Lots {
        self.word >> QTY_SHIFT
    }

    #[inline(always)]
    pub fn set_shown(&mut self, shown: Lots) {
        self.word = shown << QTY_SHIFT | self.word & 0xFF;
    }

    #[inline(always)]
    pub fn flags(&self) -> u8 {
        self.word as u8
    }

    #[inline(always)]
    pub fn has(&self, flag: u8) -> bool {
        self.word & u64::from(flag) != 0
    }

    #[inline(always)]
    pub fn set(&mut self, flag: u8) {
        self.word |= u64::from(flag);
    }

    pub fn clear(&mut self, flag: u8) {
        self.word &= !u64::from(flag);
    }

    #[inline(always)]
    pub fn side(&self) -> Side {
        if self.has(SELL) { Side::Sell } else { Side::Buy }
    }

    const UNUSED: Order = Order { id: 0, word: 0, owner: 0, place: 0, next: NIL, prev: NIL };

    /// The node of a level without orders: its ring is itself.
    fn empty_level(node: u32) -> Order {
        Order { id: LEVEL, word: 0, owner: 0, place: 0, next: node, prev: node }
    }

    /// A stop that waits for its trigger, or a market order for its auction.
    #[inline(always)]
    pub fn is_held(&self) -> bool {
        self.has(HELD)
    }

    /// An open order, not a level or a free slot.
    fn is_order(&self) -> bool {
        self.id != 0 && self.id != LEVEL
    }

    /// A level that nobody stands in, as it was made but for the word about its block.
    fn is_empty_level(&self, node: u32) -> bool {
        self.id == LEVEL
            && self.word == 0
            && self.level_count() == 0
            && self.next == node
            && self.prev == node
    }

    /// Orders of a level.
    #[inline(always)]
    pub fn level_count(&self) -> u32 {
        self.owner & COUNT
    }

    /// One order more.
    #[inline(always)]
    pub fn level_add_one(&mut self, shown: Lots) {
        self.owner += 1;
        self.word = self.word.wrapping_add(shown);
    }

    /// One order less. True where it was the last.
    #[inline(always)]
    pub fn level_sub_one(&mut self, shown: Lots) -> bool {
        self.owner -= 1;
        self.word = self.word.wrapping_sub(shown);
        self.owner & COUNT == 0
    }

    /// Visible lots of a level. Up to 2^22 orders of up to 2^55 lots: the sum wraps only where it is beyond any issue,
    /// and comes back right when they leave.
    #[inline(always)]
    pub fn level_shown(&self) -> Lots {
        self.word
    }

    #[inline(always)]
    pub fn level_sub(&mut self, shown: Lots) {
        self.word = self.word.wrapping_sub(shown);
    }

    /// For one auction only.
    #[inline(always)]
    pub fn is_for_auction(&self) -> bool {
        self.flags() & ONE_AUCTION == ONE_AUCTION
    }

    /// Of an order for one auction that of the opening.
    pub fn tif(&self) -> Tif {
        if self.is_for_auction() {
            Tif::Opg
        } else if self.has(DAY) {
            Tif::Day
        } else if self.has(GTD) {
            Tif::Gtd
        } else {
            Tif::Gtc
        }
    }
}

/// What is rarely needed of an order. Valid only where the hot record says [`COLD`], else all default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cold {
    /// Iceberg: open lots that do not show.
    pub hidden: Lots,
    pub display: Lots,
    pub expire: Time,
    /// Held stop: its place among stops of one price. Market order in a call: among those of its side. For the closing
    /// auction: among those.
    pub entered: u64,
    pub version: u32,
    pub self_trade: SelfTrade,
    pub stop: Stop,
    /// Of an order for one auction only: for the closing one.
    pub closing: bool,
}

impl Cold {
    pub const DEFAULT: Cold = Cold {
        hidden: 0,
        display: 0,
        expire: 0,
        entered: 0,
        version: 0,
        self_trade: SelfTrade::CancelNewest,
        stop: Stop { kind: StopKind::None, price: 0, trail: 0 },
        closing: false,
    };
}

/// The trigger of a held stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stop {
    pub kind: StopKind,
    pub price: Ticks,
    pub trail: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum StopKind {
    None = 0,
    Market = 1,
    Limit = 2,
    TrailingAmount = 3,
    TrailingPercent = 4,
    /// No stop: a market order that waits for its auction.
    OnOpen = 5,
    /// No stop: a market order and a limit order that wait for the closing call.
    MarketOnClose = 6,
    LimitOnClose = 7,
}

impl StopKind {
    pub fn is_trailing(self) -> bool {
        matches!(self, StopKind::TrailingAmount | StopKind::TrailingPercent)
    }

    /// Waits for the closing call.
    pub fn is_on_close(self) -> bool {
        matches!(self, StopKind::MarketOnClose | StopKind::LimitOnClose)
    }

    /// Waits for a trade that elects it.
    pub fn is_stop(self) -> bool {
        !matches!(self, StopKind::None | StopKind::OnOpen) && !self.is_on_close()
    }
}

/// What few nodes have, in chunks for a block of nodes each: blocks without it have none.
#[derive(Debug)]
struct Rare<T> {
    /// Chunk of each block of nodes, [`NIL`] for none.
    chunk_of: Vec<u32>,
    chunks: Vec<[T; BLOCK as usize]>,
}

impl<T: Copy> Rare<T> {
    const NONE: Rare<T> = Rare { chunk_of: Vec::new(), chunks: Vec::new() };

    /// The record of a node, whose block has a chunk.
    #[inline(always)]
    fn get(&self, node: u32) -> &T {
        &self.chunks[self.chunk_of[(node / BLOCK) as usize] as usize][(node % BLOCK) as usize]
    }

    /// The record of a node; its block gets a chunk of `empty` ones if it has none.
    #[inline(always)]
    fn get_mut(&mut self, node: u32, empty: T) -> &mut T {
        let known = self.chunk_of.get((node / BLOCK) as usize).is_some_and(|&chunk| chunk != NIL);
        if !known {
            self.make(node / BLOCK, empty);
        }
        &mut self.chunks[self.chunk_of[(node / BLOCK) as usize] as usize][(node % BLOCK) as usize]
    }

    #[cold]
    #[inline(never)]
    fn make(&mut self, block: u32, empty: T) {
        if self.chunk_of.len() <= block as usize {
            self.chunk_of.resize(block as usize + 1, NIL);
        }
        self.chunk_of[block as usize] = self.chunks.len() as u32;
        self.chunks.push([empty; BLOCK as usize]);
    }

    /// Keeps the chunks of blocks that still need theirs.
    fn trim(&mut self, blocks: usize, needs: impl Fn(u32) -> bool) {
        let old = std::mem::replace(self, Rare::NONE);
        for (block, chunk) in (0..blocks as u32).zip(old.chunk_of) {
            if chunk != NIL && needs(block) {
                let records = old.chunks[chunk as usize];
                self.chunk_of.resize(block as usize + 1, NIL);
                self.chunk_of[block as usize] = self.chunks.len() as u32;
                self.chunks.push(records);
            }
        }
        self.chunk_of.shrink_to_fit();
        self.chunks.shrink_to_fit();
    }

    fn memory(&self) -> usize {
        self.chunk_of.capacity() * size_of::<u32>()
            + self.chunks.capacity() * size_of::<[T; BLOCK as usize]>()
    }
}

/// Nodes, and who of them is free.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slab {
    /// All nodes. Those from `used` on were not given out yet.
    pub hot: Box<[Order]>,
    /// First free slot of an order.
    free: u32,
    /// Open orders.
    pub live: u32,
    /// A multiple of [`BLOCK`].
    used: u32,
    /// First free block; the next one's number is in the first node's `place`.
    free_block: u32,
    cold: Rare<Cold>,
    /// Filled lots of partly filled orders: the one rare fact that frequent trades write, so it has lines of its own.
    filled: Vec<Lots>,
}

impl Slab {
    pub fn new() -> Slab {
        Slab {
            hot: Box::default(),
            free: NIL,
            live: 0,
            used: 0,
            free_block: NIL,
            cold: Rare::NONE,
            filled: Vec::new(),
        }
    }

    pub fn full(&self) -> bool {
        self.live >= MAX_ORDERS
    }

    #[inline(always)]
    pub fn insert(&mut self, order: Order) -> u32 {
        let slot = self.take();
        self.hot[slot as usize] = order;
        slot
    }

    /// A slot for an order that the caller writes.
    #[inline(always)]
    pub fn take(&mut self) -> u32 {
        self.live += 1;
        let slot = self.free;
        match self.hot.get(slot as usize) {
            Some(place) => {
                self.free = place.next;
                slot
            }
            None => self.take_of_new_block(),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_of_new_block(&mut self) -> u32 {
        let first = self.take_block();
        for node in first + 1..first + BLOCK {
            self.hot[node as usize] = Order { next: node + 1, ..Order::UNUSED };
        }
        self.hot[(first + BLOCK - 1) as usize].next = NIL;
        self.free = first + 1;
        first
    }

    /// The first node of a block that nobody uses, whatever its nodes hold.
    fn take_block(&mut self) -> u32 {
        let first = self.free_block;
        if let Some(node) = self.hot.get(first as usize) {
            self.free_block = node.place;
            return first;
        }
        if self.used as usize == self.hot.len() {
            self.grow();
        }
        self.used += BLOCK;
        self.used - BLOCK
    }

    /// Makes room for this many nodes more at once.
    pub fn reserve(&mut self, nodes: u32) {
        let wanted = (self.used as usize + nodes as usize).next_multiple_of(BLOCK as usize);
        if wanted > self.hot.len() {
            let mut all = std::mem::take(&mut self.hot).into_vec();
            all.reserve_exact(wanted - all.len());
            all.resize(wanted, Order::UNUSED);
            self.hot = all.into_boxed_slice();
        }
        self.grow_filled();
    }

    /// Twice the room.
    fn grow(&mut self) {
        let mut nodes = std::mem::take(&mut self.hot).into_vec();
        let more = nodes.len().max(NODES_FIRST);
        nodes.reserve_exact(more);
        nodes.resize(nodes.len() + more, Order::UNUSED);
        self.hot = nodes.into_boxed_slice();
    }

    /// The first node of a block of eight empty levels.
    pub fn take_levels(&mut self) -> u32 {
        let first = self.take_block();
        // Levels that come back are as empty as they left.
        if self.hot[first as usize].id != LEVEL {
            for node in first..first + BLOCK {
                self.hot[node as usize] = Order::empty_level(node);
            }
        }
        first
    }

    /// Frees a block of empty levels.
    pub fn free_levels(&mut self, first: u32) {
        debug_assert!((first..first + BLOCK).all(|node| self.hot[node as usize].is_empty_level(node)));
        self.hot[first as usize].place = self.free_block;
        self.free_block = first;
    }

    #[inline(always)]
    pub fn remove(&mut self, slot: u32) {
        let order = &mut self.hot[slot as usize];
        order.id = 0;
        order.next = self.free;
        self.free = slot;
        self.live -= 1;
    }

    /// Does the slot hold the open order with this number?
    #[inline(always)]
    pub fn holds(&self, slot: u32, id: OrderId) -> bool {
        id.wrapping_sub(1) < LEVEL - 1 && self.hot.get(slot as usize).is_some_and(|order| order.id == id)
    }

    pub fn cold(&self, slot: u32) -> &Cold {
        if self.hot[slot as usize].has(COLD) { self.cold.get(slot) } else { &Cold::DEFAULT }
    }

    pub fn cold_mut(&mut self, slot: u32) -> &mut Cold {
        let cold = self.cold.get_mut(slot, Cold::DEFAULT);
        let order = &mut self.hot[slot as usize];
        if !order.has(COLD) {
            order.set(COLD);
            *cold = Cold::DEFAULT;
        }
        cold
    }

    /// What was filled of an open order.
    pub fn filled(&self, slot: u32) -> Lots {
        if self.hot[slot as usize].has(PARTLY) { self.filled[slot as usize] } else { 0 }
    }

    #[inline(always)]
    pub fn add_filled(&mut self, slot: u32, qty: Lots) {
        if self.filled.len() <= slot as usize {
            self.grow_filled();
        }
        let order = &mut self.hot[slot as usize];
        let valid = u64::from(order.has(PARTLY)).wrapping_neg();
        order.set(PARTLY);
        let filled = &mut self.filled[slot as usize];
        *filled = (*filled & valid) + qty;
    }

    #[cold]
    #[inline(never)]
    fn grow_filled(&mut self) {
        self.filled.resize(self.hot.len(), 0);
    }

    /// The order's fills count from 0 again.
    pub fn forget_filled(&mut self, slot: u32) {
        self.hot[slot as usize].clear(PARTLY);
    }

    /// All open lots, hidden included.
    pub fn open(&self, slot: u32) -> Lots {
        let order = &self.hot[slot as usize];
        order.shown() + if order.has(ICEBERG) { self.cold.get(slot).hidden } else { 0 }
    }

    /// Gives memory back: blocks without an order or a level are anybody's, the lowest first; those at the end go.
    pub fn trim(&mut self) {
        while let Some(node) = self.hot.get(self.free_block as usize) {
            let first = self.free_block;
            self.free_block = node.place;
            for node in first..first + BLOCK {
                self.hot[node as usize].id = 0;
            }
        }
        let block_is_free = |hot: &[Order], first: u32| {
            hot[first as usize..(first + BLOCK) as usize].iter().all(|node| node.id == 0)
        };
        while self.used > 0 && block_is_free(&self.hot, self.used - BLOCK) {
            self.used -= BLOCK;
        }
        self.free = NIL;
        for first in (0..self.used).step_by(BLOCK as usize).rev() {
            if block_is_free(&self.hot, first) {
                self.hot[first as usize].place = self.free_block;
                self.free_block = first;
                continue;
            }
            for node in (first..first + BLOCK)
                .rev()
                .filter(|&node| self.hot[node as usize].id == 0)
                .collect::<Vec<_>>()
            {
                self.hot[node as usize].next = self.free;
                self.free = node;
            }
        }
        if self.hot.len() > 2 * self.used as usize {
            let mut nodes = std::mem::take(&mut self.hot).into_vec();
            nodes.truncate(self.used as usize);
            self.hot = nodes.into_boxed_slice();
        }
        let (hot, blocks) = (&self.hot, (self.used / BLOCK) as usize);
        let has = |block: u32, flag: u8| {
            let first = (block * BLOCK) as usize;
            hot[first..first + BLOCK as usize].iter().any(|node| node.is_order() && node.has(flag))
        };
        self.cold.trim(blocks, |block| has(block, COLD));
        self.filled.truncate(self.used as usize);
        self.filled.shrink_to_fit();
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.hot.len() * size_of::<Order>() + self.cold.memory() + self.filled.capacity() * size_of::<Lots>()
    }
}
