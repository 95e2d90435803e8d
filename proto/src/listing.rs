//! What a listing does: what its owner says, and what the engine says beside it.

use crate::v1::{Instrument, TradingState};

impl Instrument {
    /// What the symbol does now: AUCTION while a volatility pause interrupts an open market, else the listing's state.
    pub fn trading_state(&self) -> TradingState {
        match self.state() {
            TradingState::Open | TradingState::Unspecified if self.volatility_pause => TradingState::Auction,
            state => state,
        }
    }
}
