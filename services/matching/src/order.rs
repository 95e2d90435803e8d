//! Where open orders live: a slab of 32-byte nodes, a second slab of what is rarely needed, a free list.
//!
//! A node is an order or a level. The orders of a level form a ring that begins and ends in the level's node, so that
//! an order leaves its ring without a branch. The first nodes are the levels of the two windows (ladder.rs).

use crate::command::{Lots, MAX_ORDERS, OrderId, Owner, SelfTrade, Side, Ticks, Tif, Time};

/// Levels in one side's window. 2 × 512 nodes of 32 bytes per book, of which the ones near the best are touched.
pub(crate) const WINDOW: u32 = 512;
/// Nodes of the two windows, before the first order's.
const WINDOWS: u32 = 2 * WINDOW;
/// Room for orders that a book begins with.
const ORDERS_FIRST: usize = 64;
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
/// An untriggered stop: not in a ladder.
pub(crate) const HELD: u8 = 32;
pub(crate) const POST_ONLY: u8 = 64;
/// The slot's filled lots are valid.
pub(crate) const PARTLY: u8 = 128;
const QTY_SHIFT: u32 = 8;

/// What matching needs of an order; or a level: number [`LEVEL`], visible lots, count of orders (in `owner`), first
/// order in `next`, last one in `prev`.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(32))]
pub(crate) struct Order {
    /// 0 = the slot is free.
    pub id: OrderId,
    /// Visible open lots above, flags in the low byte.
    word: u64,
    pub owner: Owner,
    /// Limit; of a held stop its limit, cap or cap distance.
    pub price: Ticks,
    /// Next in the level, or in the free list.
    pub next: u32,
    pub prev: u32,
}

const _: () = assert!(size_of::<Order>() == 32);

impl Order {
    #[inline(always)]
    pub fn new(id: OrderId, owner: Owner, price: Ticks, shown: Lots, flags: u8) -> Order {
        Order { id, word: shown << QTY_SHIFT | u64::from(flags), owner, price, next: NIL, prev: NIL }
    }

    /// Writes all but the links, field by field: a whole record through the stack costs a stalled load.
    #[inline(always)]
    pub fn write(&mut self, id: OrderId, owner: Owner, price: Ticks, shown: Lots, flags: u8) {
        self.id = id;
        self.word = shown << QTY_SHIFT | u64::from(flags);
        self.owner = owner;
        self.price = price;
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

    const UNUSED: Order = Order { id: 0, word: 0, owner: 0, price: 0, next: NIL, prev: NIL };
    const EMPTY_LEVEL: Order = Order { id: LEVEL, word: 0, owner: 0, price: 0, next: NIL, prev: NIL };

    /// Orders of a level.
    #[inline(always)]
    pub fn level_count(&self) -> u32 {
        self.owner
    }

    /// Visible lots of a level. Up to 2^22 orders of up to 2^55 lots: the sum wraps only where it is beyond any issue,
    /// and comes back right when they leave.
    #[inline(always)]
    pub fn level_shown(&self) -> Lots {
        self.word
    }

    #[inline(always)]
    pub fn level_add(&mut self, shown: Lots) {
        self.word = self.word.wrapping_add(shown);
    }

    #[inline(always)]
    pub fn level_sub(&mut self, shown: Lots) {
        self.word = self.word.wrapping_sub(shown);
    }

    pub fn tif(&self) -> Tif {
        if self.has(DAY) {
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
    /// Held stop: its place among stops of one price.
    pub entered: u64,
    pub version: u32,
    pub self_trade: SelfTrade,
    pub stop: Stop,
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
}

/// Orders' cold records leave out the windows' nodes.
#[inline(always)]
fn cold_index(slot: u32) -> usize {
    (slot - WINDOWS) as usize
}

/// Slots of open orders.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Slab {
    /// All nodes. Those from `used` on were not given out yet.
    pub hot: Box<[Order]>,
    free: u32,
    pub live: u32,
    used: u32,
    cold: Vec<Cold>,
    /// Filled lots of partly filled orders: the one rare fact that frequent trades write, so it has lines of its own.
    filled: Vec<Lots>,
}

impl Slab {
    pub fn new() -> Slab {
        Slab { hot: Box::default(), free: NIL, live: 0, used: 0, cold: Vec::new(), filled: Vec::new() }
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
            None => self.take_unused(),
        }
    }

    #[cold]
    #[inline(never)]
    fn take_unused(&mut self) -> u32 {
        if self.used as usize == self.hot.len() {
            self.grow();
        }
        self.used += 1;
        self.used - 1
    }

    /// Twice the room for orders; with the book's first order also the windows' nodes.
    fn grow(&mut self) {
        let mut nodes = std::mem::take(&mut self.hot).into_vec();
        if nodes.is_empty() {
            nodes.reserve_exact(WINDOWS as usize + ORDERS_FIRST);
            nodes.extend((0..WINDOWS).map(|node| Order { next: node, prev: node, ..Order::EMPTY_LEVEL }));
            self.used = WINDOWS;
        }
        let more = (nodes.len() - WINDOWS as usize).max(ORDERS_FIRST);
        nodes.reserve_exact(more);
        nodes.resize(nodes.len() + more, Order::UNUSED);
        self.hot = nodes.into_boxed_slice();
    }

    /// A node for a level beyond the window.
    pub fn insert_level(&mut self) -> u32 {
        let node = self.take();
        self.live -= 1;
        self.hot[node as usize] = Order { next: node, prev: node, ..Order::EMPTY_LEVEL };
        node
    }

    /// Frees the node of an empty level beyond the window.
    pub fn remove_level(&mut self, node: u32) {
        self.live += 1;
        self.remove(node);
    }

    /// Moves a level with orders to an empty level's node.
    pub fn move_level(&mut self, from: u32, to: u32) {
        let level = self.hot[from as usize];
        self.hot[level.next as usize].prev = to;
        self.hot[level.prev as usize].next = to;
        self.hot[to as usize] = level;
        self.hot[from as usize] = Order { next: from, prev: from, ..Order::EMPTY_LEVEL };
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
        if self.hot[slot as usize].has(COLD) { &self.cold[cold_index(slot)] } else { &Cold::DEFAULT }
    }

    pub fn cold_mut(&mut self, slot: u32) -> &mut Cold {
        let at = cold_index(slot);
        if self.cold.len() <= at {
            self.cold.resize(cold_index(self.hot.len() as u32), Cold::DEFAULT);
        }
        let order = &mut self.hot[slot as usize];
        if !order.has(COLD) {
            order.set(COLD);
            self.cold[at] = Cold::DEFAULT;
        }
        &mut self.cold[at]
    }

    /// What was filled of an open order.
    pub fn filled(&self, slot: u32) -> Lots {
        if self.hot[slot as usize].has(PARTLY) { self.filled[cold_index(slot)] } else { 0 }
    }

    #[inline(always)]
    pub fn add_filled(&mut self, slot: u32, qty: Lots) {
        let at = cold_index(slot);
        if self.filled.len() <= at {
            self.grow_filled();
        }
        let order = &mut self.hot[slot as usize];
        let valid = u64::from(order.has(PARTLY)).wrapping_neg();
        order.set(PARTLY);
        let filled = &mut self.filled[at];
        *filled = (*filled & valid) + qty;
    }

    #[cold]
    #[inline(never)]
    fn grow_filled(&mut self) {
        self.filled.resize(cold_index(self.hot.len() as u32), 0);
    }

    /// The order's fills count from 0 again.
    pub fn forget_filled(&mut self, slot: u32) {
        self.hot[slot as usize].clear(PARTLY);
    }

    /// All open lots, hidden included.
    pub fn open(&self, slot: u32) -> Lots {
        let order = &self.hot[slot as usize];
        order.shown() + if order.has(ICEBERG) { self.cold[cold_index(slot)].hidden } else { 0 }
    }

    /// Gives memory back: lowest slots are used first from now on, free slots at the end go.
    pub fn trim(&mut self) {
        while self.used > 0 && self.hot[self.used as usize - 1].id == 0 {
            self.used -= 1;
        }
        self.free = NIL;
        for slot in (0..self.used).rev() {
            if self.hot[slot as usize].id == 0 {
                self.hot[slot as usize].next = self.free;
                self.free = slot;
            }
        }
        if self.hot.len() > 2 * self.used as usize {
            let mut nodes = std::mem::take(&mut self.hot).into_vec();
            nodes.truncate(self.used as usize);
            self.hot = nodes.into_boxed_slice();
        }
        let orders = (self.used as usize).saturating_sub(WINDOWS as usize);
        self.cold.truncate(orders);
        self.filled.truncate(orders);
        self.cold.shrink_to_fit();
        self.filled.shrink_to_fit();
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.hot.len() * size_of::<Order>()
            + self.cold.capacity() * size_of::<Cold>()
            + self.filled.capacity() * size_of::<Lots>()
    }
}
