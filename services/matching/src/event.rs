//! What a book answers: events as fixed records of at most 64 bytes.

use crate::command::{Lots, OrderId, Phase, Side, Slot, Ticks, Time};

/// Why something was refused, canceled or expired. The codes are stable: journals and clients may keep them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Reason {
    /// Asked for by the owner.
    Requested = 1,
    /// Canceled with all orders of its owner or symbol.
    MassCancel = 2,
    /// Self-trade prevention.
    SelfTrade = 3,
    /// IOC: the part that did not trade at once.
    ImmediateRemainder = 4,
    /// FOK: the whole quantity was not there.
    CannotFillWhole = 5,
    /// MARKET: the next price lies beyond the cap, or an auction's did.
    Collar = 6,
    /// MARKET: nothing left on the other side.
    NoLiquidity = 7,
    /// The order's day ended.
    DayEnd = 8,
    /// The order's GTD time came.
    ExpireTime = 9,
    /// The symbol paused before a trade outside its volatility band.
    VolatilityPause = 10,
    /// OPG, CLS: the auction that the order was for is over.
    AuctionEnd = 11,
    /// The symbol is halted.
    Halted = 20,
    /// Resume of a symbol that is not halted.
    NotHalted = 21,
    /// The number is 0 or not greater than all before it.
    BadOrderId = 22,
    /// Quantity 0 or above [`MAX_QTY`](crate::MAX_QTY).
    BadQuantity = 23,
    /// Price missing or above [`MAX_PRICE`](crate::MAX_PRICE).
    BadPrice = 24,
    /// Stop price missing, above the maximum, or given for an order without one.
    BadStopPrice = 25,
    /// Trail 0 or above its maximum.
    BadTrail = 26,
    /// Display quantity above the quantity, or below one [`MAX_PARTS`](crate::MAX_PARTS)th of it.
    BadDisplay = 27,
    /// A stop with IOC, FOK, OPG or CLS.
    BadTimeInForce = 28,
    /// Flags that exclude each other: post-only or iceberg with an order that cannot rest.
    BadCombination = 29,
    /// GTD time that has passed.
    BadExpireTime = 30,
    /// A market order without a cap, a trailing stop without a last trade.
    NoReferencePrice = 31,
    /// Post-only, and the price would trade.
    WouldTrade = 32,
    /// [`MAX_ORDERS`](crate::MAX_ORDERS) are open.
    BookFull = 33,
    /// No open order with this number at this slot.
    UnknownOrder = 34,
    /// Replacement quantity not above what is filled.
    BelowFilled = 35,
    /// This field of this order cannot be replaced.
    NotReplaceable = 36,
    /// The symbol's phase takes no such order or change.
    WrongPhase = 37,
    /// The symbol is in this phase already.
    SamePhase = 38,
    /// Reference or width of a band beyond its range, or a width without a reference.
    BadBand = 39,
    /// A sell stop at or above the last trade, a buy stop at or below it.
    StopWrongSide = 40,
}

impl Reason {
    /// The stable number of the reason.
    pub fn code(self) -> u8 {
        self as u8
    }

    /// The reason as a machine word in capitals.
    pub fn as_str(self) -> &'static str {
        match self {
            Reason::Requested => "REQUESTED",
            Reason::MassCancel => "MASS_CANCEL",
            Reason::SelfTrade => "SELF_TRADE",
            Reason::ImmediateRemainder => "IMMEDIATE_REMAINDER",
            Reason::CannotFillWhole => "CANNOT_FILL_WHOLE",
            Reason::Collar => "COLLAR",
            Reason::NoLiquidity => "NO_LIQUIDITY",
            Reason::DayEnd => "DAY_END",
            Reason::ExpireTime => "EXPIRE_TIME",
            Reason::VolatilityPause => "VOLATILITY_PAUSE",
            Reason::AuctionEnd => "AUCTION_END",
            Reason::Halted => "HALTED",
            Reason::NotHalted => "NOT_HALTED",
            Reason::BadOrderId => "BAD_ORDER_ID",
            Reason::BadQuantity => "BAD_QUANTITY",
            Reason::BadPrice => "BAD_PRICE",
            Reason::BadStopPrice => "BAD_STOP_PRICE",
            Reason::BadTrail => "BAD_TRAIL",
            Reason::BadDisplay => "BAD_DISPLAY",
            Reason::BadTimeInForce => "BAD_TIME_IN_FORCE",
            Reason::BadCombination => "BAD_COMBINATION",
            Reason::BadExpireTime => "BAD_EXPIRE_TIME",
            Reason::NoReferencePrice => "NO_REFERENCE_PRICE",
            Reason::WouldTrade => "WOULD_TRADE",
            Reason::BookFull => "BOOK_FULL",
            Reason::UnknownOrder => "UNKNOWN_ORDER",
            Reason::BelowFilled => "BELOW_FILLED",
            Reason::NotReplaceable => "NOT_REPLACEABLE",
            Reason::WrongPhase => "WRONG_PHASE",
            Reason::SamePhase => "SAME_PHASE",
            Reason::BadBand => "BAD_BAND",
            Reason::StopWrongSide => "STOP_WRONG_SIDE",
        }
    }
}

/// One outcome, with its number in the book: 1, 2, 3 … without a gap.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    pub seq: u64,
    pub what: What,
}

/// The outcomes. "Open" is what can still trade, an iceberg's hidden part included.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum What {
    /// The order is in: NEW, or HELD for a stop. Trades and a cancel of the remainder follow; without a terminal
    /// event it rests (or is held) at `slot`. `price` is its limit or cap (a trailing stop's: distance to the cap).
    Accepted { id: OrderId, slot: Slot, open: Lots, price: Ticks, side: Side, held: bool },
    /// The order is not in, nothing changed.
    Rejected { id: OrderId, reason: Reason },
    /// A trade at the resting order's price. An order whose `…_open` is 0 is filled and gone.
    Trade {
        maker: OrderId,
        taker: OrderId,
        qty: Lots,
        maker_open: Lots,
        taker_open: Lots,
        price: Ticks,
        maker_slot: Slot,
        /// Side of the taker.
        aggressor: Side,
    },
    /// The order is out with this much open. `price` is what it had last: its limit or cap (a held trailing stop's:
    /// distance to the cap).
    Canceled { id: OrderId, slot: Slot, open: Lots, price: Ticks, side: Side, reason: Reason },
    /// A cancel named no open order (or the book is busy with nothing of it): nothing changed.
    CancelRejected { id: OrderId, reason: Reason },
    /// The order's time ended with this much open; `price` as of a canceled one.
    Expired { id: OrderId, slot: Slot, open: Lots, price: Ticks, side: Side, reason: Reason },
    /// The order stands as it is here now; trades and a cancel of the remainder may follow. `id` differs from `old`
    /// only where the command renamed it. `version` counts its replaces.
    Replaced {
        old: OrderId,
        id: OrderId,
        open: Lots,
        slot: Slot,
        price: Ticks,
        stop: Ticks,
        version: u32,
        kept_place: bool,
    },
    /// The order lost quantity in its place: [`Command::Reduce`](crate::Command::Reduce).
    Reduced { id: OrderId, slot: Slot, open: Lots },
    /// A replace or a reduction was refused, nothing changed.
    ReplaceRejected { id: OrderId, reason: Reason },
    /// A held stop was elected by a trade at `last` and enters the book now as a limit order at `price`: its limit, or how
    /// far its protection lets it trade. Trades and a cancel may follow; without a cancel what is left rests there.
    Triggered { id: OrderId, slot: Slot, open: Lots, stop: Ticks, last: Ticks, price: Ticks },
    /// A held trailing stop followed the best price of a match to `stop`. The stops of a side move in the order in which
    /// they came, before those that are elected enter.
    StopMoved { id: OrderId, slot: Slot, stop: Ticks },
    /// An iceberg showed its next part, at the back of its level.
    Refilled { id: OrderId, slot: Slot, shown: Lots, price: Ticks },
    /// Self-trade prevention took `qty` off both orders without a trade. An order that is left with 0 is canceled by
    /// an event of its own.
    Decremented {
        maker: OrderId,
        taker: OrderId,
        qty: Lots,
        maker_open: Lots,
        taker_open: Lots,
        maker_slot: Slot,
    },
    /// A mass cancel is done.
    AllCanceled { count: u32 },
    /// An expiry run (of the day's end with `day_end`) is done.
    Expiry { now: Time, count: u32, day_end: bool },
    /// Trading stopped.
    Halted,
    /// Trading goes on.
    Resumed,
    /// An auction traded `qty` in all at `price`. In its trades the buyer is called taker, though nobody was first.
    Uncrossed { price: Ticks, qty: Lots },
    /// The symbol is in another phase.
    PhaseChanged { phase: Phase },
    /// The next trade would have been at `price`, outside the band `low..=high`: the symbol is in the auction phase now.
    Paused { price: Ticks, low: Ticks, high: Ticks },
    /// The volatility band is this now; 0 and [`MAX_PRICE`](crate::MAX_PRICE) stand for none.
    BandSet { low: Ticks, high: Ticks },
    /// A command about the book itself was refused, nothing changed.
    Refused { reason: Reason },
}

const _: () = assert!(std::mem::size_of::<Event>() <= 64);

/// Where a book's events go, one by one, in their order.
///
/// [`Events`] keeps them. A caller that reads each event once and at once takes them here instead: what it does with an
/// event then stands where the event comes about, where its kind is known (see [`Book::apply_into`]).
///
/// [`Book::apply_into`]: crate::Book::apply_into
pub trait Sink {
    /// The next event.
    fn event(&mut self, event: Event);
}

impl Sink for Events {
    #[inline(always)]
    fn event(&mut self, event: Event) {
        self.list.push(event);
    }
}

/// Events of one or more commands, in order. Keep one and clear it: it allocates only while it grows.
#[derive(Default, Debug)]
pub struct Events {
    list: Vec<Event>,
}

impl Events {
    /// An empty list.
    pub fn new() -> Events {
        Events::default()
    }

    /// Forgets the events, keeps the room.
    #[inline]
    pub fn clear(&mut self) {
        self.list.clear();
    }

    /// The events since the last clear.
    #[inline]
    pub fn as_slice(&self) -> &[Event] {
        &self.list
    }

    /// The events since the last clear, one by one.
    pub fn iter(&self) -> std::slice::Iter<'_, Event> {
        self.list.iter()
    }
}

impl<'a> IntoIterator for &'a Events {
    type Item = &'a Event;
    type IntoIter = std::slice::Iter<'a, Event>;
    fn into_iter(self) -> Self::IntoIter {
        self.list.iter()
    }
}
