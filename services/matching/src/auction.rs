//! Phases, the auction that ends a call, and the volatility pause.

use crate::book::{Band, Book, mask};
use crate::command::{Lots, MAX_BAND_BPS, MAX_PRICE, Phase, SelfTrade, Side, Slot, Ticks};
use crate::event::{Reason, Sink, What};
use crate::order::{ICEBERG, NIL};

/// What an auction would give now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Indicative {
    pub price: Ticks,
    /// Lots that trade.
    pub qty: Lots,
    /// Lots at the price or better that find nobody, on `surplus_side`.
    pub surplus: Lots,
    pub surplus_side: Side,
}

impl Book {
    /// The auction's price and volume as the book stands: of all prices the one of most volume, of those the one of
    /// least imbalance, of those the nearest to the last trade (without one to the reference that was set, without both to
    /// 0), of two that are as near the lower. Nothing where bids and asks do not meet. Walks the levels that meet.
    pub fn indicative(&self) -> Option<Indicative> {
        let (high, low) = (self.best_bid()?, self.best_ask()?);
        if high < low {
            return None;
        }
        let reference = if self.last != 0 { self.last } else { self.band.reference };
        // Open lots per price of the levels that meet, lowest price first.
        let asks = self.meeting_levels(Side::Sell, high);
        let mut bids = self.meeting_levels(Side::Buy, low);
        bids.reverse();
        // Between neighbouring order prices nothing changes but the distance to the reference.
        let mut candidates: Vec<Ticks> = Vec::with_capacity(3 * (asks.len() + bids.len()) + 1);
        for &(price, _) in asks.iter().chain(&bids) {
            candidates.extend([price.saturating_sub(1), price, price.saturating_add(1)]);
        }
        candidates.push(reference);
        candidates.retain(|price| (low..=high).contains(price));
        candidates.sort_unstable();
        candidates.dedup();
        let mut supply = 0u128;
        let mut demand: u128 = bids.iter().map(|&(_, open)| u128::from(open)).sum();
        let (mut next_ask, mut next_bid) = (0, 0);
        let mut found: Option<(u128, u128, u32, Ticks, bool)> = None;
        for price in candidates {
            while next_ask < asks.len() && asks[next_ask].0 <= price {
                supply += u128::from(asks[next_ask].1);
                next_ask += 1;
            }
            while next_bid < bids.len() && bids[next_bid].0 < price {
                demand -= u128::from(bids[next_bid].1);
                next_bid += 1;
            }
            let volume = supply.min(demand);
            let imbalance = supply.abs_diff(demand);
            let distance = price.abs_diff(reference);
            let better = found.is_none_or(|(best_volume, best_imbalance, best_distance, _, _)| {
                volume > best_volume
                    || (volume == best_volume
                        && (imbalance < best_imbalance
                            || (imbalance == best_imbalance && distance < best_distance)))
            });
            if better {
                found = Some((volume, imbalance, distance, price, demand >= supply));
            }
        }
        found.map(|(volume, imbalance, _, price, buyers)| Indicative {
            price,
            qty: Lots::try_from(volume).unwrap_or(Lots::MAX),
            surplus: Lots::try_from(imbalance).unwrap_or(Lots::MAX),
            surplus_side: if buyers { Side::Buy } else { Side::Sell },
        })
    }

    /// Open lots, hidden included, of the levels of a side from its best to `worst`.
    fn meeting_levels(&self, side: Side, worst: Ticks) -> Vec<(Ticks, Lots)> {
        let worst = worst ^ mask(side);
        let mut levels = Vec::new();
        let mut node = self.best_node(side);
        while node != NIL && self.slab.level_key(node) >= worst {
            let key = self.slab.level_key(node);
            let mut open = 0u64;
            let mut slot = self.slab.hot[node as usize].next;
            while slot != node {
                open = open.saturating_add(self.slab.open(slot));
                slot = self.slab.hot[slot as usize].next;
            }
            levels.push((key ^ mask(side), open));
            node = self.below(node);
        }
        levels
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn set_phase(&mut self, phase: Phase, out: &mut impl Sink) {
        if phase == self.phase {
            return self.emit(out, What::Refused { reason: Reason::SamePhase });
        }
        let ends_call = self.phase.is_call() && !phase.is_call();
        if self.halted && ends_call {
            return self.emit(out, What::Refused { reason: Reason::Halted });
        }
        if ends_call {
            self.uncross(out);
        }
        self.phase = phase;
        self.open_or_close();
        self.emit(out, What::PhaseChanged { phase });
        self.after_trades(out);
    }

    pub(crate) fn is_band(reference: Ticks, bps: u32) -> bool {
        reference <= MAX_PRICE && bps <= MAX_BAND_BPS && (reference != 0 || bps == 0)
    }

    #[cold]
    #[inline(never)]
    pub(crate) fn set_band(&mut self, reference: Ticks, bps: u32, out: &mut impl Sink) {
        if !Book::is_band(reference, bps) {
            return self.emit(out, What::Refused { reason: Reason::BadBand });
        }
        self.band = Band::new(reference, bps);
        let (low, high) = (self.band.low, self.band.high);
        self.emit(out, What::BandSet { low, high });
    }

    /// The next trade of an order of this side lies outside the band.
    #[cold]
    #[inline(never)]
    pub(crate) fn pause(&mut self, side: Side, out: &mut impl Sink) {
        self.phase = Phase::Auction;
        self.open_or_close();
        let price = self.best(side.opposite()).unwrap_or(0);
        let (low, high) = (self.band.low, self.band.high);
        self.emit(out, What::Paused { price, low, high });
    }

    /// Runs the auction: everything that meets trades at one price. Where self-trade prevention took orders away and
    /// bids and asks still meet, it runs again.
    fn uncross(&mut self, out: &mut impl Sink) {
        while let Some(Indicative { price, .. }) = self.indicative() {
            let before = self.volume;
            while self.best_bid().is_some_and(|bid| bid >= price)
                && self.best_ask().is_some_and(|ask| ask <= price)
            {
                self.trade_firsts(price, out);
            }
            let qty = self.volume.wrapping_sub(before);
            if self.band.reference != 0 && qty > 0 {
                self.band = Band::new(price, self.band.bps);
            }
            self.emit(out, What::Uncrossed { price, qty });
        }
    }

    /// The first bid and the first ask trade with each other at the auction's price.
    fn trade_firsts(&mut self, price: Ticks, out: &mut impl Sink) {
        let first = |book: &Book, side: Side| {
            let node = book.best_node(side);
            book.slab.hot[node as usize].next
        };
        let (buy, sell) = (first(self, Side::Buy), first(self, Side::Sell));
        let (bid, ask) = (self.slab.hot[buy as usize], self.slab.hot[sell as usize]);
        if bid.owner == ask.owner && bid.owner != 0 {
            return self.prevent_self_trade_at_auction(buy, sell, out);
        }
        let qty = bid.shown().min(ask.shown());
        self.last = price;
        self.trades += 1;
        self.volume = self.volume.wrapping_add(qty);
        let trade = What::Trade {
            maker: ask.id,
            taker: bid.id,
            qty,
            maker_open: self.slab.open(sell) - qty,
            taker_open: self.slab.open(buy) - qty,
            price,
            maker_slot: Slot(sell),
            aggressor: Side::Buy,
        };
        self.emit(out, trade);
        self.fill_resting(buy, qty, out);
        self.fill_resting(sell, qty, out);
    }

    pub(crate) fn fill_resting(&mut self, slot: u32, qty: Lots, out: &mut impl Sink) {
        let order = self.slab.hot[slot as usize];
        let open = self.slab.open(slot) - qty;
        if open == 0 {
            self.take_out(slot);
        } else if order.shown() > qty {
            let node = self.best_node(order.side());
            self.slab.hot[node as usize].level_sub(qty);
            self.slab.hot[slot as usize].set_shown(order.shown() - qty);
            self.slab.add_filled(slot, qty);
        } else {
            debug_assert!(order.has(ICEBERG));
            let node = self.best_node(order.side());
            self.slab.hot[node as usize].level_sub(qty);
            self.refill(slot, qty, out);
        }
    }

    /// At an auction the order with the greater number counts as the incoming one: its mode decides.
    fn prevent_self_trade_at_auction(&mut self, buy: u32, sell: u32, out: &mut impl Sink) {
        let id = |book: &Book, slot: u32| book.slab.hot[slot as usize].id;
        let (older, newer) = if id(self, buy) < id(self, sell) { (buy, sell) } else { (sell, buy) };
        match self.slab.cold(newer).self_trade {
            SelfTrade::CancelNewest => self.cancel_own(newer, out),
            SelfTrade::CancelOldest => self.cancel_own(older, out),
            SelfTrade::CancelBoth => {
                self.cancel_own(older, out);
                self.cancel_own(newer, out);
            }
            SelfTrade::Decrement => {
                let (maker_open, taker_open) = (self.slab.open(older), self.slab.open(newer));
                let qty = maker_open.min(taker_open);
                let decremented = What::Decremented {
                    maker: id(self, older),
                    taker: id(self, newer),
                    qty,
                    maker_open: maker_open - qty,
                    taker_open: taker_open - qty,
                    maker_slot: Slot(older),
                };
                self.emit(out, decremented);
                for (slot, open) in [(older, maker_open), (newer, taker_open)] {
                    if open == qty {
                        self.cancel_out(slot, 0, Reason::SelfTrade, out);
                    } else {
                        self.reduce_open(slot, qty);
                    }
                }
            }
        }
    }
}
