//! Phases, the auction that ends a call, orders for one auction, and the volatility pause.

use crate::book::{Band, Book, hot_record, mask};
use crate::command::{Kind, Lots, MAX_BAND_BPS, MAX_PRICE, NewOrder, Phase, Side, Slot, Ticks};
use crate::event::{Reason, Sink, What};
use crate::order::{HELD, ICEBERG, NIL, StopKind};

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

/// Open lots at a price, hidden included; a market order's at its cap.
#[derive(Clone, Copy)]
struct Offer {
    price: Ticks,
    open: Lots,
    limit: bool,
}

/// What a price would give.
#[derive(Clone, Copy)]
struct Outcome {
    price: Ticks,
    demand: u128,
    supply: u128,
}

impl Outcome {
    fn volume(&self) -> u128 {
        self.demand.min(self.supply)
    }

    /// Most volume, then least surplus: greater is better.
    fn rank(&self) -> (u128, std::cmp::Reverse<u128>) {
        (self.volume(), std::cmp::Reverse(self.demand.abs_diff(self.supply)))
    }
}

impl Book {
    /// The auction's price and volume as the book stands. Of the limits in the book the one of most volume; of those the
    /// one of least surplus; of those the highest where bids are left over at all of them, the lowest where asks are; else
    /// the nearest to the last trade (without one to the reference that was set), of two as near the higher. Where only
    /// market orders meet, that reference. Nothing where bids and asks do not meet. Walks the levels that meet.
    pub fn indicative(&self) -> Option<Indicative> {
        let end = |side: Side| {
            let caps = self.on_open_slots(side).map(|slot| self.slab.hot[slot as usize].place);
            let caps = caps.map(|cap| cap ^ mask(side)).max().unwrap_or(0);
            (caps.max(self.best_key(side)) != 0).then(|| caps.max(self.best_key(side)) ^ mask(side))
        };
        let (high, low) = (end(Side::Buy)?, end(Side::Sell)?);
        if high < low {
            return None;
        }
        let reference = if self.last != 0 { self.last } else { self.band.reference };
        let (bids, asks) = (self.offers(Side::Buy, low), self.offers(Side::Sell, high));
        let offers = || bids.iter().chain(&asks);
        let mut limits: Vec<Ticks> = offers().filter(|o| o.limit).map(|o| o.price).collect();
        limits.sort_unstable();
        limits.dedup();
        let found = best_outcome(&bids, &asks, &limits, reference)
            .or_else(|| best_outcome(&bids, &asks, &[reference], reference))?;
        let lots = |lots: u128| Lots::try_from(lots).unwrap_or(Lots::MAX);
        Some(Indicative {
            price: found.price,
            qty: lots(found.volume()),
            surplus: lots(found.demand.abs_diff(found.supply)),
            surplus_side: if found.demand >= found.supply { Side::Buy } else { Side::Sell },
        })
    }

    /// What a side offers from its best price to `worst`, lowest price first.
    fn offers(&self, side: Side, worst: Ticks) -> Vec<Offer> {
        let worst = worst ^ mask(side);
        let waiting = self.on_open_slots(side).map(|slot| {
            let order = &self.slab.hot[slot as usize];
            Offer { price: order.place, open: order.shown(), limit: false }
        });
        let mut offers: Vec<Offer> = waiting.filter(|offer| offer.price ^ mask(side) >= worst).collect();
        let mut node = self.best_node(side);
        while node != NIL && self.slab.level_key(node) >= worst {
            let key = self.slab.level_key(node);
            let mut open = 0u64;
            let mut slot = self.slab.hot[node as usize].next;
            while slot != node {
                open = open.saturating_add(self.slab.open(slot));
                slot = self.slab.hot[slot as usize].next;
            }
            offers.push(Offer { price: key ^ mask(side), open, limit: true });
            node = self.below(node);
        }
        offers.sort_by_key(|offer| offer.price);
        offers
    }

    /// Market orders of a side that wait for the auction, in the order in which they came.
    pub(crate) fn on_open_slots(&self, side: Side) -> impl Iterator<Item = u32> + '_ {
        self.on_open.range((side, 0)..=(side, u64::MAX)).map(|(_, &slot)| slot)
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
        if phase == Phase::Closing {
            self.enter_on_close(out);
        }
        self.after_match(self.last, out);
    }

    /// Puts an order aside until the closing call.
    #[cold]
    #[inline(never)]
    pub(crate) fn keep_for_close(&mut self, new: &NewOrder, out: &mut impl Sink) {
        let mut order = hot_record(new);
        order.set(HELD);
        let slot = self.slab.insert(order);
        self.write_cold(slot, new);
        let kind = if new.kind == Kind::Market { StopKind::MarketOnClose } else { StopKind::LimitOnClose };
        self.slab.cold_mut(slot).stop.kind = kind;
        self.accept(new, slot, false, out);
        self.queue_on_close(slot);
    }

    /// Puts an order behind those that wait for the closing call.
    pub(crate) fn queue_on_close(&mut self, slot: u32) {
        self.stops_entered += 1;
        self.slab.cold_mut(slot).entered = self.stops_entered;
        self.on_close.insert(self.stops_entered, slot);
    }

    /// Those that wait for the closing call come in, in the order in which they came.
    fn enter_on_close(&mut self, out: &mut impl Sink) {
        while let Some((_, slot)) = self.on_close.pop_first() {
            let cold = self.slab.cold_mut(slot);
            cold.entered = 0;
            let is_market = cold.stop.kind == StopKind::MarketOnClose;
            cold.stop.kind = if is_market { StopKind::OnOpen } else { StopKind::None };
            let order = &mut self.slab.hot[slot as usize];
            if !is_market {
                order.clear(HELD);
            }
            let open = order.shown();
            self.enter(slot, open, out);
        }
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

    /// Runs the auction: everything that meets trades at one price, market orders before limits as far as
    /// their caps go. Those that are left end.
    fn uncross(&mut self, out: &mut impl Sink) {
        if let Some(Indicative { price, .. }) = self.indicative() {
            let before = self.volume;
            // Those whose cap lets them, the first one last. A limit beyond a cap goes before it, or the book would stay
            // crossed.
            let mut waiting = [Side::Buy, Side::Sell].map(|side| {
                let meets =
                    |slot: &u32| self.slab.hot[*slot as usize].place ^ mask(side) >= price ^ mask(side);
                let mut slots: Vec<u32> = self.on_open_slots(side).filter(meets).collect();
                slots.reverse();
                slots.sort_by_key(|slot| self.slab.hot[*slot as usize].place ^ mask(side));
                slots
            });
            while let Some(buy) = self.first_at(Side::Buy, price, &waiting[0])
                && let Some(sell) = self.first_at(Side::Sell, price, &waiting[1])
            {
                let [buy_left, sell_left] = self.trade_at_auction(buy, sell, price, out);
                if buy_left == 0 && waiting[0].last() == Some(&buy) {
                    waiting[0].pop();
                }
                if sell_left == 0 && waiting[1].last() == Some(&sell) {
                    waiting[1].pop();
                }
            }
            let qty = self.volume.wrapping_sub(before);
            if self.band.reference != 0 {
                self.band = Band::new(price, self.band.bps);
            }
            self.emit(out, What::Uncrossed { price, qty });
        }
        let left: Vec<u32> = self.on_open.values().copied().collect();
        for slot in left {
            let order = &self.slab.hot[slot as usize];
            let (other, open) = (order.side().opposite(), order.shown());
            let reason = if self.best_key(other) == 0 { Reason::NoLiquidity } else { Reason::Collar };
            self.cancel_out(slot, open, reason, out);
        }
        while let Some((_, slot)) = self.one_auction.pop_first() {
            self.expire_out(slot, Reason::AuctionEnd, out);
        }
    }

    /// The order of a side that trades next at the auction's price.
    fn first_at(&self, side: Side, price: Ticks, waiting: &[u32]) -> Option<u32> {
        let best = self.best_key(side);
        let before = |slot: &&u32| self.slab.hot[**slot as usize].place ^ mask(side) >= best;
        let resting = || self.slab.hot[self.best_node(side) as usize].next;
        waiting.last().filter(before).copied().or_else(|| (best >= price ^ mask(side)).then(resting))
    }

    /// A bid and an ask trade with each other at the auction's price. Answers what is open of each after it.
    fn trade_at_auction(&mut self, buy: u32, sell: u32, price: Ticks, out: &mut impl Sink) -> [Lots; 2] {
        let (bid, ask) = (self.slab.hot[buy as usize], self.slab.hot[sell as usize]);
        let qty = bid.shown().min(ask.shown());
        self.last = price;
        self.trades += 1;
        self.volume = self.volume.wrapping_add(qty);
        let (taker_open, maker_open) = (self.slab.open(buy) - qty, self.slab.open(sell) - qty);
        let trade = What::Trade {
            maker: ask.id,
            taker: bid.id,
            qty,
            maker_open,
            taker_open,
            price,
            maker_slot: Slot(sell),
            aggressor: Side::Buy,
        };
        self.emit(out, trade);
        self.fill_resting(buy, qty, out);
        self.fill_resting(sell, qty, out);
        [taker_open, maker_open]
    }

    /// An order that is first of its side, or waits for the auction, is filled by this much of what it shows.
    pub(crate) fn fill_resting(&mut self, slot: u32, qty: Lots, out: &mut impl Sink) {
        let order = self.slab.hot[slot as usize];
        let open = self.slab.open(slot) - qty;
        if open == 0 {
            self.take_out(slot);
        } else if order.shown() > qty {
            if !order.is_held() {
                self.slab.hot[order.place as usize].level_sub(qty);
            }
            self.slab.hot[slot as usize].set_shown(order.shown() - qty);
            self.slab.add_filled(slot, qty);
        } else {
            debug_assert!(order.has(ICEBERG));
            self.slab.hot[order.place as usize].level_sub(qty);
            self.refill(slot, qty, out);
        }
    }
}

/// The best of the prices, which grow. `None` where nothing trades at any.
fn best_outcome(bids: &[Offer], asks: &[Offer], prices: &[Ticks], reference: Ticks) -> Option<Outcome> {
    let mut supply = 0u128;
    let mut demand: u128 = bids.iter().map(|bid| u128::from(bid.open)).sum();
    let (mut next_bid, mut next_ask) = (bids.iter().peekable(), asks.iter().peekable());
    let mut tied: Vec<Outcome> = Vec::new();
    for &price in prices {
        while let Some(ask) = next_ask.next_if(|ask| ask.price <= price) {
            supply += u128::from(ask.open);
        }
        while let Some(bid) = next_bid.next_if(|bid| bid.price < price) {
            demand -= u128::from(bid.open);
        }
        let outcome = Outcome { price, demand, supply };
        let before = tied.first().map(Outcome::rank);
        if before.is_none_or(|before| before < outcome.rank()) {
            tied.clear();
        }
        if before.is_none_or(|before| before <= outcome.rank()) {
            tied.push(outcome);
        }
    }
    tied.retain(|outcome| outcome.volume() > 0);
    // Bids are left over at the lower of them, asks at the higher: only the innermost count.
    let bids_left = tied.iter().filter(|outcome| outcome.demand > outcome.supply).count();
    let asks_left = tied.iter().any(|outcome| outcome.demand < outcome.supply);
    let end = if asks_left { bids_left + 1 } else { tied.len() };
    let candidates = tied.get(bids_left.saturating_sub(1)..end)?;
    let distance = |outcome: &Outcome| (outcome.price.abs_diff(reference), std::cmp::Reverse(outcome.price));
    candidates.iter().copied().min_by_key(distance)
}
