//! Where open orders live: a slab of 32-byte hot records, a second slab of what is rarely needed, a free list.

use crate::command::{Lots, MAX_ORDERS, OrderId, Owner, SelfTrade, Side, Ticks, Tif, Time};
use crate::ladder::NIL;

pub(crate) const SELL: u8 = 1;
/// The cold record of the slot is valid.
pub(crate) const COLD: u8 = 2;
pub(crate) const ICEBERG: u8 = 4;
pub(crate) const DAY: u8 = 8;
pub(crate) const GTD: u8 = 16;
/// An untriggered stop: not in a ladder.
pub(crate) const HELD: u8 = 32;
pub(crate) const POST_ONLY: u8 = 64;
const QTY_SHIFT: u32 = 8;

/// What matching needs of an order.
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
    pub filled: Lots,
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
        filled: 0,
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

/// Slots of open orders.
#[derive(Debug)]
pub(crate) struct Slab {
    pub hot: Vec<Order>,
    cold: Vec<Cold>,
    free: u32,
    pub live: u32,
}

impl Slab {
    pub fn new() -> Slab {
        Slab { hot: Vec::new(), cold: Vec::new(), free: NIL, live: 0 }
    }

    pub fn full(&self) -> bool {
        self.live >= MAX_ORDERS
    }

    #[inline(always)]
    pub fn insert(&mut self, order: Order) -> u32 {
        self.live += 1;
        let slot = self.free;
        if let Some(place) = self.hot.get_mut(slot as usize) {
            self.free = place.next;
            *place = order;
            return slot;
        }
        self.grow(order)
    }

    #[cold]
    #[inline(never)]
    fn grow(&mut self, order: Order) -> u32 {
        let slot = self.hot.len() as u32;
        self.hot.push(order);
        slot
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
        id != 0 && self.hot.get(slot as usize).is_some_and(|order| order.id == id)
    }

    pub fn cold(&self, slot: u32) -> Cold {
        if self.hot[slot as usize].has(COLD) { self.cold[slot as usize] } else { Cold::DEFAULT }
    }

    pub fn cold_mut(&mut self, slot: u32) -> &mut Cold {
        let at = slot as usize;
        if self.cold.len() <= at {
            self.cold.resize(self.hot.capacity().max(at + 1), Cold::DEFAULT);
        }
        if !self.hot[at].has(COLD) {
            self.hot[at].set(COLD);
            self.cold[at] = Cold::DEFAULT;
        }
        &mut self.cold[at]
    }

    /// All open lots, hidden included.
    pub fn open(&self, slot: u32) -> Lots {
        let order = &self.hot[slot as usize];
        order.shown() + if order.has(ICEBERG) { self.cold[slot as usize].hidden } else { 0 }
    }

    /// Gives memory back: lowest slots are used first from now on, free slots at the end go.
    pub fn trim(&mut self) {
        while self.hot.last().is_some_and(|order| order.id == 0) {
            self.hot.pop();
        }
        self.free = NIL;
        for slot in (0..self.hot.len()).rev() {
            if self.hot[slot].id == 0 {
                self.hot[slot].next = self.free;
                self.free = slot as u32;
            }
        }
        self.cold.truncate(self.hot.len());
        if self.hot.capacity() > 2 * self.hot.len() {
            self.hot.shrink_to_fit();
        }
        self.cold.shrink_to_fit();
    }

    /// Bytes held.
    pub fn memory(&self) -> usize {
        self.hot.capacity() * size_of::<Order>() + self.cold.capacity() * size_of::<Cold>()
    }
}
