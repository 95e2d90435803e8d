//! What a book can be told: commands as plain integer records.

use crate::event::Reason;

/// The number of an order, chosen by the caller. Never 0; each new number of a book is greater than all before it.
pub type OrderId = u64;
/// The number of an owner (a user), chosen by the caller. 0 means "nobody": no self-trade prevention.
pub type Owner = u32;
/// A price in ticks of the instrument, `1..=MAX_PRICE`; 0 means "none".
pub type Ticks = u32;
/// A quantity in lots of the instrument, `1..=MAX_QTY`.
pub type Lots = u64;
/// A time in any unit that only grows (fafnir uses nanoseconds since 1970). The book compares, it never asks for it.
pub type Time = u64;

/// Greatest price, in ticks.
pub const MAX_PRICE: Ticks = u32::MAX - 1;
/// Greatest quantity of one order, in lots.
pub const MAX_QTY: Lots = (1 << 55) - 1;
/// Greatest number of open orders in one book, held stops included.
pub const MAX_ORDERS: u32 = 1 << 22;
/// Greatest number of parts that an iceberg may show: one command's work stays bounded.
pub const MAX_PARTS: Lots = 1_000;
/// Greatest trail of a trailing stop in basis points (below 100 %).
pub const MAX_TRAIL_BPS: u32 = 9_999;
/// How far below the trade that elected it a sell stop trades, and rests: this many ticks, or
/// [`PROTECTION_PER_MILLE`] of that price where that is more.
pub const PROTECTION_TICKS_MIN: Ticks = 10;
/// See [`PROTECTION_TICKS_MIN`].
pub const PROTECTION_PER_MILLE: u32 = 25;

/// Where an open order lives in its book: given by `Accepted`, named by cancel and replace, so that neither looks
/// anything up. It stays the same until the order ends, then another order may get it. Not part of the canonical
/// state: after [`Book::restore`](crate::Book::restore) ask [`Book::orders`](crate::Book::orders) for the new ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Slot(pub u32);

impl Slot {
    /// No place: the order can never rest (MARKET, IOC, FOK).
    pub const NONE: Slot = Slot(u32::MAX);
}

/// Side of an order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(u8)]
pub enum Side {
    Buy = 0,
    Sell = 1,
}

impl Side {
    /// The other side.
    #[inline(always)]
    #[must_use]
    pub fn opposite(self) -> Side {
        match self {
            Side::Buy => Side::Sell,
            Side::Sell => Side::Buy,
        }
    }

    /// `Buy` for 0, `Sell` for 1.
    pub fn from_code(code: u8) -> Option<Side> {
        match code {
            0 => Some(Side::Buy),
            1 => Some(Side::Sell),
            _ => None,
        }
    }
}

/// Type of an order (FIX tag 40).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Kind {
    /// `price` is the limit.
    Limit = 0,
    /// `price` is the cap (collar): never trades beyond it, the rest is canceled. In a call it waits for the auction.
    Market = 1,
    /// Once any trade reaches `stop` it trades up to the cap `price` and rests there. A sell stop has its protection
    /// instead: [`PROTECTION_TICKS_MIN`] below the trade that elected it.
    Stop = 2,
    /// Becomes a limit order at `price` once any trade reaches `stop`.
    StopLimit = 3,
    /// A stop that follows the best trade `trail` ticks behind; `price` is the distance in ticks from stop to cap, which
    /// counts for a buy.
    TrailingAmount = 4,
    /// The same `trail` basis points behind.
    TrailingPercent = 5,
}

impl Kind {
    /// The kind with this code.
    pub fn from_code(code: u8) -> Option<Kind> {
        Some(match code {
            0 => Kind::Limit,
            1 => Kind::Market,
            2 => Kind::Stop,
            3 => Kind::StopLimit,
            4 => Kind::TrailingAmount,
            5 => Kind::TrailingPercent,
            _ => return None,
        })
    }

    /// Waits for a trigger before it enters the book.
    pub fn is_stop(self) -> bool {
        !matches!(self, Kind::Limit | Kind::Market)
    }

    /// A stop that follows the market.
    pub fn is_trailing(self) -> bool {
        matches!(self, Kind::TrailingAmount | Kind::TrailingPercent)
    }
}

/// How long an order stands (FIX tag 59).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
#[repr(u8)]
pub enum Tif {
    /// Until [`Command::DayEnd`].
    Day = 0,
    /// Until it is canceled.
    Gtc = 1,
    /// What does not trade at once is canceled.
    Ioc = 2,
    /// Trades whole at once or not at all.
    Fok = 3,
    /// Until the time `expire`.
    Gtd = 4,
    /// For the opening auction: taken in [`Phase::PreOpen`], ends with the auction that ends the call.
    Opg = 5,
    /// For the closing auction: apart from the book until [`Phase::Closing`], ends with the auction that ends it.
    Cls = 6,
}

impl Tif {
    /// The time in force with this code.
    pub fn from_code(code: u8) -> Option<Tif> {
        Some(match code {
            0 => Tif::Day,
            1 => Tif::Gtc,
            2 => Tif::Ioc,
            3 => Tif::Fok,
            4 => Tif::Gtd,
            5 => Tif::Opg,
            6 => Tif::Cls,
            _ => return None,
        })
    }

    /// For one auction only. LIMIT and MARKET, without post-only and display.
    pub fn is_for_auction(self) -> bool {
        matches!(self, Tif::Opg | Tif::Cls)
    }
}

/// What happens when an incoming order meets an order of the same owner. The incoming order's mode decides.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum SelfTrade {
    /// The incoming order's remainder is canceled.
    #[default]
    CancelNewest = 0,
    /// The resting order is canceled, the incoming one goes on.
    CancelOldest = 1,
    /// Both are canceled.
    CancelBoth = 2,
    /// Both lose the smaller open quantity without a trade; whichever is empty is canceled.
    Decrement = 3,
}

impl SelfTrade {
    /// The mode with this code.
    pub fn from_code(code: u8) -> Option<SelfTrade> {
        Some(match code {
            0 => SelfTrade::CancelNewest,
            1 => SelfTrade::CancelOldest,
            2 => SelfTrade::CancelBoth,
            3 => SelfTrade::Decrement,
            _ => return None,
        })
    }
}

/// A new order. Build it with [`NewOrder::limit`] and friends and set the rest by name.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NewOrder {
    pub id: OrderId,
    pub owner: Owner,
    pub side: Side,
    pub kind: Kind,
    pub tif: Tif,
    pub self_trade: SelfTrade,
    /// Refused if it would trade at once. LIMIT with DAY, GTC or GTD only.
    pub post_only: bool,
    /// Total quantity.
    pub qty: Lots,
    /// Limit, cap, or distance from stop to cap: see [`Kind`].
    pub price: Ticks,
    /// Iceberg: the quantity that shows at a time, at least one [`MAX_PARTS`]th of `qty`; 0 shows all.
    pub display: Lots,
    /// Stop price of STOP and STOP_LIMIT. For trailing kinds the initial stop, or 0 to start from the last trade.
    pub stop: Ticks,
    /// Trail of the trailing kinds: ticks or basis points.
    pub trail: u32,
    /// GTD: the order expires at the first [`Command::Expire`] or [`Command::DayEnd`] whose time reaches this.
    pub expire: Time,
}

impl NewOrder {
    /// A GTC limit order.
    pub fn limit(id: OrderId, owner: Owner, side: Side, qty: Lots, price: Ticks) -> NewOrder {
        NewOrder {
            id,
            owner,
            side,
            kind: Kind::Limit,
            tif: Tif::Gtc,
            self_trade: SelfTrade::CancelNewest,
            post_only: false,
            qty,
            price,
            display: 0,
            stop: 0,
            trail: 0,
            expire: 0,
        }
    }

    /// A market order that never trades beyond `cap`.
    pub fn market(id: OrderId, owner: Owner, side: Side, qty: Lots, cap: Ticks) -> NewOrder {
        NewOrder { kind: Kind::Market, tif: Tif::Ioc, ..NewOrder::limit(id, owner, side, qty, cap) }
    }

    /// A stop order: at `stop` it enters, as a buy up to `cap`, as a sell down to its protection.
    pub fn stop(id: OrderId, owner: Owner, side: Side, qty: Lots, stop: Ticks, cap: Ticks) -> NewOrder {
        NewOrder { kind: Kind::Stop, stop, ..NewOrder::limit(id, owner, side, qty, cap) }
    }

    /// A stop-limit order: at `stop` it becomes a limit order at `limit`.
    pub fn stop_limit(
        id: OrderId,
        owner: Owner,
        side: Side,
        qty: Lots,
        stop: Ticks,
        limit: Ticks,
    ) -> NewOrder {
        NewOrder { kind: Kind::StopLimit, stop, ..NewOrder::limit(id, owner, side, qty, limit) }
    }

    /// A trailing stop `trail` ticks behind the market with its cap `cap_distance` ticks beyond the stop.
    pub fn trailing(
        id: OrderId,
        owner: Owner,
        side: Side,
        qty: Lots,
        trail: u32,
        cap_distance: Ticks,
    ) -> NewOrder {
        NewOrder { kind: Kind::TrailingAmount, trail, ..NewOrder::limit(id, owner, side, qty, cap_distance) }
    }

    /// A trailing stop `bps` basis points behind the market with its cap `cap_distance` ticks beyond the stop.
    pub fn trailing_percent(
        id: OrderId,
        owner: Owner,
        side: Side,
        qty: Lots,
        bps: u32,
        cap_distance: Ticks,
    ) -> NewOrder {
        NewOrder {
            kind: Kind::TrailingPercent,
            ..NewOrder::trailing(id, owner, side, qty, bps, cap_distance)
        }
    }

    /// The same order with another time in force.
    #[must_use]
    pub fn with_tif(self, tif: Tif) -> NewOrder {
        NewOrder { tif, ..self }
    }

    /// Checks of the order alone, in the order shape, then quantities, then prices.
    pub(crate) fn check(&self) -> Result<(), Reason> {
        if self.qty == 0 || self.qty > MAX_QTY {
            return Err(Reason::BadQuantity);
        }
        let passes = self.tif.is_for_auction() || matches!(self.tif, Tif::Ioc | Tif::Fok);
        let immediate = self.kind == Kind::Market || passes;
        if self.kind.is_stop() && immediate {
            return Err(Reason::BadTimeInForce);
        }
        if self.post_only && (immediate || self.kind.is_stop()) {
            return Err(Reason::BadCombination);
        }
        if self.display != 0 {
            if self.display > self.qty || self.qty.div_ceil(self.display) > MAX_PARTS {
                return Err(Reason::BadDisplay);
            }
            if immediate || !matches!(self.kind, Kind::Limit | Kind::StopLimit) {
                return Err(Reason::BadCombination);
            }
        }
        if self.price > MAX_PRICE || (self.price == 0 && !self.kind.is_trailing()) {
            return Err(if self.kind == Kind::Market { Reason::NoReferencePrice } else { Reason::BadPrice });
        }
        if self.kind.is_stop() {
            if self.stop > MAX_PRICE || (self.stop == 0 && !self.kind.is_trailing()) {
                return Err(Reason::BadStopPrice);
            }
            let trail_bad = match self.kind {
                Kind::TrailingAmount => self.trail == 0 || self.trail > MAX_PRICE,
                Kind::TrailingPercent => self.trail == 0 || self.trail > MAX_TRAIL_BPS,
                _ => false,
            };
            if trail_bad {
                return Err(Reason::BadTrail);
            }
        }
        Ok(())
    }
}

/// A change of an open order. Total quantity: what stays open is `qty` minus what is filled.
///
/// A smaller quantity alone keeps the order's place; a new price, a greater quantity or another display quantity loses
/// it, and the order may then trade at once. A refused replace changes nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Replace {
    pub id: OrderId,
    pub slot: Slot,
    /// 0 keeps the number. Else a new order with this number takes the old one's slot: its fills count from 0 and it
    /// always loses its place.
    pub new_id: OrderId,
    /// New total quantity; 0 keeps it.
    pub qty: Lots,
    /// New limit, or cap of a STOP or MARKET order; 0 keeps it. Of trailing kinds the distance to the cap, with a new
    /// trail only.
    pub price: Ticks,
    /// New stop price of an untriggered STOP or STOP_LIMIT; 0 keeps it. With a new trail where the stop starts, 0 for
    /// behind the last trade.
    pub stop: Ticks,
    /// New display quantity of an iceberg; 0 keeps it.
    pub display: Lots,
    /// New trail of an untriggered trailing stop, in what it trails by; 0 keeps it.
    pub trail: u32,
}

impl Replace {
    /// A replace of quantity and price that keeps everything else.
    pub fn new(id: OrderId, slot: Slot, qty: Lots, price: Ticks) -> Replace {
        Replace { id, slot, new_id: 0, qty, price, stop: 0, display: 0, trail: 0 }
    }
}

/// What a symbol does at a time. Beside it a book can be halted.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
#[repr(u8)]
pub enum Phase {
    /// Orders trade as they come.
    #[default]
    Continuous = 0,
    /// Orders are taken but IOC limits and FOK, nothing trades; leaving for continuous trading or the close runs an auction.
    PreOpen = 1,
    /// Like pre-open: the call before the auction (opening, closing, or after a volatility pause).
    Auction = 2,
    /// Orders may only go.
    Closed = 3,
    /// The call before the closing auction: orders for it come in.
    Closing = 4,
}

impl Phase {
    /// The phase with this code.
    pub fn from_code(code: u8) -> Option<Phase> {
        Some(match code {
            0 => Phase::Continuous,
            1 => Phase::PreOpen,
            2 => Phase::Auction,
            3 => Phase::Closed,
            4 => Phase::Closing,
            _ => return None,
        })
    }

    /// Orders are taken and nothing trades.
    pub fn is_call(self) -> bool {
        matches!(self, Phase::PreOpen | Phase::Auction | Phase::Closing)
    }
}

/// Greatest width of a volatility band in basis points of its reference.
pub const MAX_BAND_BPS: u32 = 9_999;

/// One input of a book. Each yields at least one [`Event`](crate::Event).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// → `Accepted` or `Rejected`, then what follows from it.
    New(NewOrder),
    /// → `Canceled` or `CancelRejected`.
    Cancel { id: OrderId, slot: Slot },
    /// → `Replaced` or `ReplaceRejected`, then what follows from it.
    Replace(Replace),
    /// Takes lots off an open order, which keeps its place and something open. Goes through whenever a cancel does. →
    /// `Reduced` or `ReplaceRejected`.
    Reduce { id: OrderId, slot: Slot, qty: Lots },
    /// Cancels every order of one owner, of everybody with owner 0. → `Canceled` each, then `AllCanceled`.
    CancelAll { owner: Owner },
    /// Expires each GTD order whose time has come. → `Expired` each, then `Expiry`.
    Expire { now: Time },
    /// Ends the day: expires DAY orders, those of an auction that did not come, and each GTD order whose time has come.
    /// → `Expired` each, then `Expiry`.
    DayEnd { now: Time },
    /// Stops trading: only cancels, expiry and resume go through. → `Halted` or `Refused`.
    Halt,
    /// Trades again. → `Resumed` or `Refused`.
    Resume,
    /// Goes to a phase. From a call to continuous trading or the close the auction runs first. → its `Trade`s,
    /// `Uncrossed` and the ends of orders that were for it, then `PhaseChanged`, then what comes in for the closing
    /// auction, then stops; or `Refused`.
    SetPhase { phase: Phase },
    /// Sets the volatility band: `reference` ± `bps` basis points; width 0 takes it away. In continuous trading an order
    /// that would trade outside pauses the symbol instead: it goes to the auction phase. The price of an auction
    /// becomes the band's new reference. With or without a width, `reference` (0 = none) is what an auction before the
    /// first trade is nearest to. → `BandSet` or `Refused`.
    SetBand { reference: Ticks, bps: u32 },
}
