//! The market of one symbol: its listing, its book, and the way between prices and ticks, quantities and lots.

use super::record::NewOrder;
use fafnir_matching::{Book, Kind, Lots, MAX_PRICE, Side, Slot, Ticks, Tif};
use fafnir_proto::{reason::Reason, v1::TradingState};
use fafnir_rules::limits::{COLLAR_PER_MILLE, COLLAR_TICKS_MIN};
use fafnir_rules::symbol::Symbol;
use std::collections::HashMap;
use uuid::Uuid;

/// `trail_percent_e4` per basis point.
const TRAIL_E4_PER_BP: i64 = 100;

/// An order that is open, as the engine knows it beside its book.
#[derive(Debug, Clone, Copy)]
pub(super) struct Open {
    pub order: Uuid,
    pub owner: u32,
    pub slot: Slot,
    pub side: Side,
    pub kind: Kind,
    pub tif: Tif,
    pub filled: Lots,
    pub version: u32,
    pub expires_us: i64,
}

/// The market of one symbol.
#[derive(Debug)]
pub struct Market {
    pub symbol: Symbol,
    /// 0 before the symbol is listed.
    pub(super) tick_e4: i64,
    pub(super) lot_e4: i64,
    /// The listing's state; a volatility pause goes beside it.
    pub(super) state: TradingState,
    pub(super) previous_close_e4: i64,
    /// 0 = no volatility band.
    pub(super) band_bps: u32,
    /// When the volatility pause began; 0 = none.
    pub(super) paused_us: i64,
    pub(super) exec_seq: u64,
    pub(super) trade_no: u64,
    pub(super) last_quantity_e4: i64,
    pub(super) book: Book,
    pub(super) orders: HashMap<u64, Open>,
}

/// One price of a published book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Level {
    pub price_e4: i64,
    pub quantity_e4: i64,
    pub orders: u32,
}

/// An order in its queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    pub order: Uuid,
    /// Nil where nobody is known.
    pub user: Uuid,
    pub price_e4: i64,
    /// What of it shows.
    pub shown_e4: i64,
    /// What of it can trade, hidden included.
    pub open_e4: i64,
    pub filled_e4: i64,
    pub version: u32,
}

impl Market {
    pub(super) fn new(symbol: Symbol) -> Self {
        Self {
            symbol,
            tick_e4: 0,
            lot_e4: 0,
            state: TradingState::Open,
            previous_close_e4: 0,
            band_bps: 0,
            paused_us: 0,
            exec_seq: 0,
            trade_no: 0,
            last_quantity_e4: 0,
            book: Book::new(),
            orders: HashMap::new(),
        }
    }

    /// Sequence of the last outcome.
    pub fn exec_seq(&self) -> u64 {
        self.exec_seq
    }

    /// Number of the last trade.
    pub fn trade_no(&self) -> u64 {
        self.trade_no
    }

    /// What the symbol does: AUCTION in a volatility pause, else what the listing says.
    pub fn state(&self) -> TradingState {
        if self.paused_us == 0 { self.state } else { TradingState::Auction }
    }

    /// When the present volatility pause began.
    pub fn paused_us(&self) -> Option<i64> {
        (self.paused_us != 0).then_some(self.paused_us)
    }

    /// The volatility band: lowest and highest price of a trade that does not pause the symbol.
    pub fn band(&self) -> Option<(i64, i64)> {
        self.book.band().map(|(low, high)| (self.price_e4(low), self.price_e4(high)))
    }

    /// The reference price: the last trade, before the first the previous close, rounded down to a tick.
    pub(super) fn reference(&self) -> Option<Ticks> {
        let close = || in_range(self.previous_close_e4.checked_div(self.tick_e4)?).ok();
        self.book.last_price().or_else(close).filter(|ticks| *ticks > 0)
    }

    /// Price and quantity of the last trade; 0 before the first.
    pub fn last(&self) -> (i64, i64) {
        (self.book.last_price().map_or(0, |t| self.price_e4(t)), self.last_quantity_e4)
    }

    /// The best levels of a side.
    pub fn depth(&self, side: Side, levels: usize) -> Vec<Level> {
        let level = |l: fafnir_matching::PriceLevel| Level {
            price_e4: self.price_e4(l.price),
            quantity_e4: self.quantity_e4(l.qty),
            orders: l.orders,
        };
        self.book.depth(side).take(levels).map(level).collect()
    }

    /// In a call, where bids and asks meet: price, quantity and surplus (positive of buyers) that an auction would give.
    pub fn indicative(&self) -> Option<(i64, i64, i64)> {
        let found = self.book.phase().is_call().then(|| self.book.indicative())??;
        let surplus = self.quantity_e4(found.surplus);
        let surplus = if found.surplus_side == Side::Buy { surplus } else { -surplus };
        Some((self.price_e4(found.price), self.quantity_e4(found.qty), surplus))
    }

    /// Open orders, held stops included.
    pub fn open_orders(&self) -> usize {
        self.orders.len()
    }

    /// The first resting orders of a side in the order in which they trade; `users` are those of the engine.
    pub fn queue(&self, side: Side, users: &[Uuid], orders_max: usize) -> Vec<Queued> {
        let queued = |o: fafnir_matching::OpenOrder| {
            let open = self.orders.get(&o.id)?;
            Some(Queued {
                order: open.order,
                user: (open.owner as usize)
                    .checked_sub(1)
                    .and_then(|i| users.get(i))
                    .copied()
                    .unwrap_or_default(),
                price_e4: self.price_e4(o.price),
                shown_e4: self.quantity_e4(o.shown),
                open_e4: self.quantity_e4(o.open),
                filled_e4: self.quantity_e4(o.filled),
                version: open.version,
            })
        };
        self.book.resting(side).filter_map(queued).take(orders_max).collect()
    }

    pub(super) fn price_e4(&self, ticks: Ticks) -> i64 {
        i64::from(ticks).saturating_mul(self.tick_e4)
    }

    pub(super) fn quantity_e4(&self, lots: Lots) -> i64 {
        i64::try_from(lots).unwrap_or(i64::MAX).saturating_mul(self.lot_e4)
    }

    pub(super) fn ticks(&self, price_e4: i64) -> Result<Ticks, Reason> {
        if price_e4 < 0 || price_e4 % self.tick_e4 != 0 {
            return Err(Reason::PRICE_OFF_TICK);
        }
        in_range(price_e4 / self.tick_e4)
    }

    /// A cap in ticks, towards the better price where it is between two.
    pub(super) fn cap(&self, side: Side, cap_e4: i64) -> Result<Ticks, Reason> {
        if cap_e4 < 0 {
            return Err(Reason::PRICE_OUT_OF_RANGE);
        }
        let down = cap_e4 / self.tick_e4;
        let off = cap_e4 % self.tick_e4 != 0;
        in_range(if off && side == Side::Sell { down + 1 } else { down })
    }

    pub(super) fn lots(&self, quantity_e4: i64) -> Result<Lots, Reason> {
        if quantity_e4 < 0 || quantity_e4 % self.lot_e4 != 0 {
            return Err(Reason::QUANTITY_OFF_LOT);
        }
        u64::try_from(quantity_e4 / self.lot_e4).map_err(|_| Reason::QUANTITY_OFF_LOT)
    }

    /// The order in the terms of the book.
    pub(super) fn book_order(
        &self,
        new: &NewOrder,
        id: u64,
        owner: u32,
    ) -> Result<fafnir_matching::NewOrder, Reason> {
        if self.tick_e4 <= 0 || self.lot_e4 <= 0 {
            return Err(Reason::UNKNOWN_SYMBOL);
        }
        let stop = self.ticks(new.stop_e4)?;
        let price = match new.kind {
            Kind::Limit | Kind::StopLimit => self.ticks(new.price_e4)?,
            Kind::Market | Kind::Stop => self.cap(new.side, new.cap_e4)?,
            Kind::TrailingAmount | Kind::TrailingPercent => self.cap_distance(new, stop)?,
        };
        let trail = match new.kind {
            Kind::TrailingAmount => self.ticks(new.trail_e4)?,
            Kind::TrailingPercent => {
                in_range(new.trail_e4 / TRAIL_E4_PER_BP).map_err(|_| Reason::TRAIL_OUT_OF_RANGE)?
            }
            _ => 0,
        };
        Ok(fafnir_matching::NewOrder {
            id,
            owner,
            side: new.side,
            kind: new.kind,
            tif: new.tif,
            self_trade: new.self_trade,
            post_only: new.post_only,
            qty: self.lots(new.quantity_e4)?,
            price,
            display: self.lots(new.display_e4)?,
            stop,
            trail,
            expire: u64::try_from(new.expires_us).unwrap_or(0),
        })
    }

    /// Distance of a trailing stop's cap from its stop where the command names none: the collar's (exchange-rules §3).
    fn cap_distance(&self, new: &NewOrder, stop: Ticks) -> Result<Ticks, Reason> {
        if new.cap_e4 != 0 && stop != 0 {
            return Ok(self.cap(new.side, new.cap_e4)?.abs_diff(stop));
        }
        let reference = if stop == 0 { self.book.last_price().unwrap_or(0) } else { stop };
        let share = i64::from(reference) * COLLAR_PER_MILLE / 1000;
        Ok(u32::try_from(share.max(COLLAR_TICKS_MIN)).unwrap_or(MAX_PRICE))
    }
}

fn in_range(ticks: i64) -> Result<Ticks, Reason> {
    u32::try_from(ticks).ok().filter(|t| *t <= MAX_PRICE).ok_or(Reason::PRICE_OUT_OF_RANGE)
}
