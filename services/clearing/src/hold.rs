//! The hold of an order: what it needs at most, and how each fill moves it.
//!
//! Amounts that are not exact in micros (a fee, a conversion) are rounded on the running total of the order: what is
//! posted is the difference of two rounded totals. What is held is the difference between the rounded worst total and
//! what was posted, so a fill at the hold price or better never needs more than was held for it.

use crate::terms::{Fees, Fx, ceiling};
use fafnir_rules::order::Side;

/// Basis points in one.
const BASIS_POINTS: i128 = 10_000;
/// `price_e4 × quantity_e4` has this many parts in a micro.
const PARTS: i128 = 100;

/// What moves with an order's fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Hold {
    /// Traded so far as maker and as taker, micros of the listing's currency.
    pub maker_notional: i128,
    pub taker_notional: i128,
    /// What the account's balance holds for it now: micros of the account's currency for a BUY, shares (e4) for a SELL.
    pub held: i64,
}

/// What an order pays besides the price: those of its acceptance, for its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Charges {
    pub side: Side,
    pub fx: Fx,
    pub fees: Fees,
}

/// What one trade of an order posts, micros of the account's currency, never negative.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Legs {
    /// Leaves the account of a buyer, reaches the account of a seller.
    pub principal: i64,
    /// What the house's exchange gets from a buyer or pays for a seller; differs from the principal by what rounding
    /// leaves.
    pub exchanged: i64,
    pub fee: i64,
}

/// The same added up over the order. The same money may go round many times: the totals need more than 64 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    pub principal: i128,
    pub exchanged: i128,
    pub fee: i128,
}

impl Totals {
    /// What was added since. `None` is beyond 64 bits.
    pub fn since(self, before: Self) -> Option<Legs> {
        let added = |now: i128, then: i128| i64::try_from(now - then).ok();
        Some(Legs {
            principal: added(self.principal, before.principal)?,
            exchanged: added(self.exchanged, before.exchanged)?,
            fee: added(self.fee, before.fee)?,
        })
    }
}

impl Hold {
    /// The hold after a trade of this notional.
    #[must_use]
    pub fn traded(self, maker: bool, notional: i64) -> Self {
        let mut after = self;
        let total = if maker { &mut after.maker_notional } else { &mut after.taker_notional };
        *total += i128::from(notional);
        after
    }

    /// What must be held while `open_e4` may trade at `cap_e4` or better. `None` is beyond 64 bits.
    pub fn needed(self, charges: &Charges, open_e4: i64, cap_e4: i64) -> Option<i64> {
        if charges.side == Side::Sell {
            return Some(open_e4);
        }
        let fx = charges.fx;
        let (numerator, denominator) = (i128::from(fx.numerator), i128::from(fx.denominator));
        let open = i128::from(open_e4).checked_mul(i128::from(cap_e4))?;
        let traded = self.maker_notional + self.taker_notional;
        let worst = traded.checked_mul(PARTS)?.checked_add(open)?.checked_mul(numerator)?;
        let posted = self.posted(charges)?;
        let cash = ceiling(worst, PARTS * denominator) - posted.principal;
        let highest_bp = i128::from(charges.fees.maker_bp.max(charges.fees.taker_bp));
        let fees = self
            .fee_parts(charges)
            .checked_mul(PARTS)?
            .checked_add(open.checked_mul(highest_bp)?)?
            .checked_mul(numerator)?;
        let fee = ceiling(fees, PARTS * BASIS_POINTS * denominator) - posted.fee;
        i64::try_from(cash.checked_add(fee)?).ok()
    }

    /// Micros × basis points traded so far, in the listing's currency.
    fn fee_parts(self, charges: &Charges) -> i128 {
        self.maker_notional * i128::from(charges.fees.maker_bp)
            + self.taker_notional * i128::from(charges.fees.taker_bp)
    }

    /// Running totals of what was posted: debits rounded up, credits down; a fee never exceeds a seller's proceeds.
    /// `None` is beyond 128 bits.
    pub fn posted(self, charges: &Charges) -> Option<Totals> {
        let (numerator, denominator) = (i128::from(charges.fx.numerator), i128::from(charges.fx.denominator));
        let product = (self.maker_notional + self.taker_notional).checked_mul(numerator)?;
        let (up, down) = (ceiling(product, denominator), product.div_euclid(denominator));
        let fees = self.fee_parts(charges).checked_mul(numerator)?;
        let fee = ceiling(fees, BASIS_POINTS * denominator);
        let (principal, exchanged, fee) = match charges.side {
            Side::Buy => (up, down, fee),
            Side::Sell => (down, up, fee.min(down)),
        };
        Some(Totals { principal, exchanged, fee })
    }
}
