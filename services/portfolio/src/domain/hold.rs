//! The hold of an order: what it needs at most, how each fill moves it, what a replace under way adds.
//!
//! Amounts that are not exact in micros (a fee, a conversion) are rounded on the running total of the order: what is
//! posted is the difference of two rounded totals. What is held is the difference between the rounded worst total and
//! what was posted, so a fill at the hold price or better never needs more than was held for it.

use super::{Fault, Fx, ceiling};
use uuid::Uuid;

/// Held above the amount at today's rate when the account is in another currency: 2 %.
const BUFFER_PERCENT: i128 = 102;
const PERCENT: i128 = 100;
/// Basis points in one.
const BASIS_POINTS: i128 = 10_000;
/// `price_e4 × quantity_e4` has this many parts in a micro.
const PARTS: i128 = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Buy,
    Sell,
}

impl Side {
    pub fn number(self) -> i32 {
        match self {
            Self::Buy => 1,
            Self::Sell => 2,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Buy, Self::Sell].into_iter().find(|s| s.number() == number)
    }
}

/// What an order pays besides the price; fixed when its hold is placed, so that the hold always covers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    pub fx: Fx,
    pub maker_bp: u32,
    pub taker_bp: u32,
}

/// A replace that the engine has not answered yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub version: u32,
    /// The new total; open = total − filled.
    pub total_e4: i64,
    pub price_e4: i64,
}

/// How a hold ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Filled,
    /// Canceled, expired or rejected by the engine.
    Ended,
    /// The order never reached the engine.
    Released,
}

impl End {
    pub fn number(end: Option<Self>) -> i32 {
        match end {
            None => 0,
            Some(Self::Filled) => 1,
            Some(Self::Ended) => 2,
            Some(Self::Released) => 3,
        }
    }
    pub fn of_number(number: i32) -> Option<Self> {
        [Self::Filled, Self::Ended, Self::Released].into_iter().find(|e| Self::number(Some(*e)) == number)
    }
}

/// The state of a hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub order: Uuid,
    pub side: Side,
    /// BUY: the worst price that the order may trade at; SELL: 0.
    pub price_e4: i64,
    pub open_e4: i64,
    pub filled_e4: i64,
    /// Traded so far as maker and as taker, micros of the listing's currency.
    pub maker_notional: i64,
    pub taker_notional: i64,
    pub terms: Terms,
    pub version: u32,
    pub pending: Option<Pending>,
    pub end: Option<End>,
}

/// A trade as one of its orders sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fill {
    pub quantity_e4: i64,
    /// Micros of the listing's currency.
    pub notional: i64,
    pub maker: bool,
    /// What the engine has open after it.
    pub open_e4: i64,
}

/// What a fill posts, micros of the account's currency, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Legs {
    /// Leaves the account of a buyer, reaches the account of a seller.
    pub principal: i64,
    /// What the house's exchange gets from a buyer or pays for a seller; differs from the principal by what rounding
    /// leaves.
    pub exchanged: i64,
    pub fee: i64,
}

impl Hold {
    /// A hold for a new order.
    pub fn new(order: Uuid, side: Side, quantity_e4: i64, price_e4: i64, terms: Terms) -> Self {
        Self {
            order,
            side,
            price_e4: if side == Side::Buy { price_e4 } else { 0 },
            open_e4: quantity_e4,
            filled_e4: 0,
            maker_notional: 0,
            taker_notional: 0,
            terms,
            version: 1,
            pending: None,
            end: None,
        }
    }

    /// What must be held now: micros of the account's currency for a BUY, shares (e4) for a SELL. `None` is beyond 64
    /// bits.
    pub fn needed(&self) -> Option<i64> {
        if self.end.is_some() {
            return Some(0);
        }
        match self.side {
            Side::Sell => Some(self.open_e4.max(self.pending_open())),
            Side::Buy => i64::try_from(self.cash_needed()?).ok(),
        }
    }

    /// Applies a trade. Nothing is changed when it is refused.
    pub fn fill(&mut self, fill: Fill) -> Result<Legs, Fault> {
        if self.end.is_some() {
            return Err(Fault::Terminal(self.order));
        }
        if fill.quantity_e4 <= 0 || fill.quantity_e4 > self.open_e4 {
            return Err(Fault::Overfilled { filled: fill.quantity_e4, open: self.open_e4 });
        }
        let open_e4 = self.open_e4 - fill.quantity_e4;
        if open_e4 != fill.open_e4 {
            return Err(Fault::OpenDiffers { ours: open_e4, engine: fill.open_e4 });
        }
        let mut after = self.clone();
        let traded = if fill.maker { &mut after.maker_notional } else { &mut after.taker_notional };
        *traded = traded.checked_add(fill.notional).ok_or(Fault::Overflow)?;
        after.open_e4 = open_e4;
        after.filled_e4 = after.filled_e4.checked_add(fill.quantity_e4).ok_or(Fault::Overflow)?;
        if open_e4 == 0 {
            after.finish(End::Filled);
        }
        let (before, now) = (self.posted()?, after.posted()?);
        let legs = Legs {
            principal: now.principal - before.principal,
            exchanged: now.exchanged - before.exchanged,
            fee: now.fee - before.fee,
        };
        debug_assert!(
            legs.principal >= 0 && legs.exchanged >= 0 && legs.fee >= 0,
            "invariant: the totals of an order only grow; {legs:?}"
        );
        *self = after;
        Ok(legs)
    }

    /// Remembers a replace on its way to the engine: from now on both outcomes are covered.
    pub fn replace_pending(&mut self, pending: Pending) {
        self.pending = Some(pending);
    }

    /// The engine's word, or the order gate's, on a replace: the order is now this. The hold price is the one that was
    /// asked for with this version, since an untriggered stop's price on the book is not what its buyer may pay.
    pub fn replaced(&mut self, version: u32, open_e4: i64, price_e4: i64) {
        let price_e4 = match self.pending {
            Some(pending) if pending.version == version => pending.price_e4,
            _ if price_e4 > 0 => price_e4,
            _ => self.price_e4,
        };
        if self.side == Side::Buy {
            self.price_e4 = price_e4;
        }
        self.open_e4 = open_e4;
        self.version = self.version.max(version);
        self.pending = None;
    }

    /// The replace was refused: the order is what it was.
    pub fn replace_refused(&mut self) {
        self.pending = None;
    }

    /// Ends it: nothing is held any more.
    pub fn finish(&mut self, end: End) {
        self.open_e4 = 0;
        self.pending = None;
        self.end = Some(end);
    }

    fn pending_open(&self) -> i64 {
        self.pending.map_or(0, |p| p.total_e4.saturating_sub(self.filled_e4).max(0))
    }

    /// The largest amount that may still trade, in parts of a micro of the listing's currency, whether a pending
    /// replace comes through or not. Falls with each fill by at least that fill at the hold price.
    fn worst_open(&self) -> Option<i128> {
        let product = |quantity: i64, price: i64| i128::from(quantity).checked_mul(i128::from(price));
        let as_it_is = product(self.open_e4, self.price_e4)?;
        let Some(pending) = self.pending else { return Some(as_it_is) };
        let open = self.pending_open();
        let replaced = if pending.price_e4 >= self.price_e4 {
            product(open, pending.price_e4)?
        } else {
            // What is open now may trade at the old price before the replace arrives.
            let more = open.saturating_sub(self.open_e4).max(0);
            product(open.min(self.open_e4), self.price_e4)?.checked_add(product(more, pending.price_e4)?)?
        };
        Some(as_it_is.max(replaced))
    }

    fn cash_needed(&self) -> Option<i128> {
        let fx = self.terms.fx;
        let (numerator, denominator) = (i128::from(fx.numerator), i128::from(fx.denominator));
        let traded = i128::from(self.maker_notional) + i128::from(self.taker_notional);
        let open = self.worst_open()?;
        let percent = if fx.foreign { BUFFER_PERCENT } else { PERCENT };
        // Totals in micros / (100 parts × 100 percent) of the account's currency.
        let worst = (traded * PARTS)
            .checked_mul(PERCENT)?
            .checked_add(open.checked_mul(percent)?)?
            .checked_mul(numerator)?;
        let posted = self.posted().ok()?;
        let cash = ceiling(worst, PARTS * PERCENT * denominator) - i128::from(posted.principal);
        let highest_bp = i128::from(self.terms.maker_bp.max(self.terms.taker_bp));
        let fees = self
            .fee_parts()
            .checked_mul(PARTS)?
            .checked_add(open.checked_mul(highest_bp)?)?
            .checked_mul(numerator)?;
        let fee = ceiling(fees, PARTS * BASIS_POINTS * denominator) - i128::from(posted.fee);
        cash.checked_add(fee)
    }

    /// Micros × basis points traded so far, in the listing's currency.
    fn fee_parts(&self) -> i128 {
        i128::from(self.maker_notional) * i128::from(self.terms.maker_bp)
            + i128::from(self.taker_notional) * i128::from(self.terms.taker_bp)
    }

    /// Running totals of what was posted: debits rounded up, credits down; a fee never exceeds a seller's proceeds.
    fn posted(&self) -> Result<Legs, Fault> {
        let fx = self.terms.fx;
        let (numerator, denominator) = (i128::from(fx.numerator), i128::from(fx.denominator));
        let traded = i128::from(self.maker_notional) + i128::from(self.taker_notional);
        let product = traded.checked_mul(numerator).ok_or(Fault::Overflow)?;
        let (up, down) = (ceiling(product, denominator), product.div_euclid(denominator));
        let fees = self.fee_parts().checked_mul(numerator).ok_or(Fault::Overflow)?;
        let fee = ceiling(fees, BASIS_POINTS * denominator);
        let (principal, exchanged, fee) = match self.side {
            Side::Buy => (up, down, fee),
            Side::Sell => (down, up, fee.min(down)),
        };
        let narrow = |n: i128| i64::try_from(n).map_err(|_| Fault::Overflow);
        Ok(Legs { principal: narrow(principal)?, exchanged: narrow(exchanged)?, fee: narrow(fee)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Currency;
    use proptest::prelude::*;

    fn terms(foreign: bool, maker_bp: u32, taker_bp: u32) -> Terms {
        let to = if foreign { Currency::Cad } else { Currency::Usd };
        Terms { fx: Fx::between(Currency::Usd, to, 1_370_000), maker_bp, taker_bp }
    }

    fn buy(quantity_e4: i64, price_e4: i64, terms: Terms) -> Hold {
        Hold::new(Uuid::nil(), Side::Buy, quantity_e4, price_e4, terms)
    }

    fn fill(hold: &mut Hold, quantity_e4: i64, price_e4: i64, maker: bool) -> Result<Legs, Fault> {
        let notional = fafnir_rules::money::notional_micros(price_e4, quantity_e4).unwrap();
        hold.fill(Fill { quantity_e4, notional, maker, open_e4: hold.open_e4 - quantity_e4 })
    }

    #[test]
    fn a_buy_in_its_own_currency_holds_the_notional_and_nothing_more() {
        // 5 × 231.07
        assert_eq!(buy(50_000, 2_310_700, terms(false, 0, 0)).needed(), Some(1_155_350_000));
    }

    #[test]
    fn a_buy_in_another_currency_holds_two_percent_more() {
        // 1 × 100 USD at 1.37 with 2 %
        assert_eq!(buy(10_000, 1_000_000, terms(true, 0, 0)).needed(), Some(139_740_000));
    }

    #[test]
    fn a_buy_holds_the_highest_fee_rounded_up() {
        // 0.01 × 1 share: 10,000 micros; 7 bp of it are 7 micros; 1 bp is 1.
        assert_eq!(buy(10_000, 100, terms(false, 1, 7)).needed(), Some(10_007));
        assert_eq!(buy(1_000, 100, terms(false, 1, 7)).needed(), Some(1_001));
    }

    #[test]
    fn a_better_price_releases_the_difference() {
        let mut hold = buy(100_000, 1_000_000, terms(false, 0, 0));
        let legs = fill(&mut hold, 40_000, 900_000, false).unwrap();
        assert_eq!(legs, Legs { principal: 360_000_000, exchanged: 360_000_000, fee: 0 });
        assert_eq!(hold.needed(), Some(600_000_000));
    }

    #[test]
    fn a_fill_beyond_the_open_quantity_or_after_the_end_changes_nothing() {
        let mut hold = buy(10_000, 1_000_000, terms(false, 0, 0));
        let before = hold.clone();
        assert!(matches!(fill(&mut hold, 20_000, 1_000_000, true), Err(Fault::Overfilled { .. })));
        assert_eq!(hold, before);
        fill(&mut hold, 10_000, 1_000_000, true).unwrap();
        assert_eq!((hold.end, hold.needed()), (Some(End::Filled), Some(0)));
        assert!(matches!(fill(&mut hold, 10_000, 1_000_000, true), Err(Fault::Terminal(_))));
    }

    #[test]
    fn a_pending_replace_covers_both_outcomes() {
        let mut hold = buy(100_000, 1_000_000, terms(false, 0, 0));
        let dearer = Pending { version: 2, total_e4: 50_000, price_e4: 1_100_000 };
        hold.replace_pending(dearer);
        assert_eq!(hold.needed(), Some(1_000_000_000), "the old order may still trade whole");
        hold.replace_pending(Pending { version: 2, total_e4: 200_000, price_e4: 900_000 });
        assert_eq!(hold.needed(), Some(1_900_000_000), "ten at the old price, ten at the new one");
        hold.replace_refused();
        assert_eq!(hold.needed(), Some(1_000_000_000));
        hold.replace_pending(dearer);
        hold.replaced(2, 50_000, 0);
        assert_eq!(hold.needed(), Some(550_000_000));
    }

    #[test]
    fn a_fee_never_exceeds_the_proceeds_of_a_sale() {
        // One micro of CAD is no micro of USD.
        let fx = Fx::between(Currency::Cad, Currency::Usd, 1_370_000);
        let mut hold =
            Hold::new(Uuid::nil(), Side::Sell, 100, 0, Terms { fx, maker_bp: 1000, taker_bp: 1000 });
        let legs = fill(&mut hold, 1, 100, true).unwrap();
        assert_eq!((legs.principal, legs.exchanged, legs.fee), (0, 1, 0));
    }

    #[test]
    fn an_order_beyond_64_bits_has_no_need_that_could_be_held() {
        assert_eq!(buy(i64::MAX, i64::MAX, terms(true, 1000, 1000)).needed(), None);
    }

    proptest! {
        #[test]
        fn a_fill_never_needs_more_than_was_held_for_it(
            foreign: bool, maker_bp in 0u32..=1000, taker_bp in 0u32..=1000,
            price in 1i64..5_000, lots in 1i64..500,
            replace in proptest::option::of((1i64..5_000, 1i64..800)),
            fills in proptest::collection::vec((1i64..60, 1i64..=5_000, any::<bool>()), 1..30),
        ) {
            let mut hold = buy(lots * 100, price * 100, terms(foreign, maker_bp, taker_bp));
            if let Some((price, lots)) = replace {
                hold.replace_pending(Pending { version: 2, total_e4: lots * 100, price_e4: price * 100 });
            }
            let (mut paid, start) = (0, hold.needed().unwrap());
            for (lots, price, maker) in fills {
                let quantity = (lots * 100).min(hold.open_e4);
                if quantity == 0 { break; }
                let before = hold.needed().unwrap();
                let price = (price * 100).min(hold.price_e4);
                let legs = fill(&mut hold, quantity, price, maker).unwrap();
                prop_assert!(legs.principal >= 0 && legs.fee >= 0 && legs.exchanged >= 0);
                prop_assert!((0..=1).contains(&(hold.posted().unwrap().principal - hold.posted().unwrap().exchanged)));
                let needed = hold.needed().unwrap();
                prop_assert!(legs.principal + legs.fee + needed <= before, "{legs:?} {needed} {before}");
                paid += legs.principal + legs.fee;
            }
            prop_assert!(paid <= start);
        }
    }
}
