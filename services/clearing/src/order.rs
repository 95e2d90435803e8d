//! An order as the core knows it: everything that a client is shown of it, and its hold.

use crate::{fact::End, group::Leg, hold::Hold};
use fafnir_matching::Slot;
use fafnir_rules::{
    check::Terms,
    order::{OrderState, SelfTrade, Side, TimeInForce},
};
use uuid::Uuid;

/// Prices and quantities at scale 10⁻⁴, 0 = none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub id: Uuid,
    /// Number of its user.
    pub owner: u32,
    pub account: Uuid,
    /// Number of its market.
    pub market: u32,
    /// Its number in the book.
    pub number: u64,
    /// Where it lives in the book; no part of the canonical state.
    pub slot: Slot,
    pub side: Side,
    /// As placed and replaced.
    pub terms: Terms,
    pub time: TimeInForce,
    pub stp: SelfTrade,
    pub post_only: bool,
    pub state: OrderState,
    /// The total.
    pub quantity_e4: i64,
    pub filled_e4: i64,
    pub display_e4: i64,
    /// The stop price as it is now; of a trailing stop where it stands.
    pub stop_e4: i64,
    /// The worst price at which it may trade, of a triggered stop its protection: what its cash hold is computed from.
    pub cap_e4: i64,
    pub expires_us: i64,
    /// Empty: none.
    pub client_id: Box<str>,
    /// 1 at acceptance, + 1 at each replace.
    pub version: u32,
    pub created_us: i64,
    pub updated_us: i64,
    /// Ids of the rate (0: same currency) and the fee schedule of acceptance.
    pub rate: u32,
    pub fees: u32,
    pub hold: Hold,
    /// The group that it was placed in, and what it is there; nil: none.
    pub group: Uuid,
    pub leg: Leg,
    /// An exit that waits outside the book for its entry; its quantity is what it is meant to get.
    pub asleep: bool,
    /// Why it ended.
    pub end: Option<End>,
}

impl Order {
    /// What can still trade; 0 in a terminal state.
    pub fn open_e4(&self) -> i64 {
        if self.state.is_open() { self.quantity_e4 - self.filled_e4 } else { 0 }
    }

    /// The limit that a client is shown: of a stop that works its protection.
    pub fn limit_e4(&self) -> i64 {
        let is_stop = matches!(self.terms, Terms::Stop { .. } | Terms::TrailingStop { .. });
        let works = matches!(self.state, OrderState::New | OrderState::PartiallyFilled | OrderState::Filled);
        if is_stop && works { self.cap_e4 } else { self.terms.price_e4() }
    }

    /// Micros of the listing's currency traded so far; the largest that fits where it is beyond 64 bits.
    pub fn notional(&self) -> i64 {
        i64::try_from(self.hold.maker_notional + self.hold.taker_notional).unwrap_or(i64::MAX)
    }
}
