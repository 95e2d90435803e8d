//! Trading states, the volatility band and its pause.
//!
//! The listing says what a symbol does. In continuous trading the book goes to a call by itself before a trade outside
//! its band; that pause goes beside the listing's state and ends with [`Engine::reopen`], or with the listing's next
//! state, which then decides. The band's reference is the last trade (before the first the previous close) when the
//! band is set and at the day's end, and in between the price of each auction; where a reopening trades nothing, the
//! middle between best bid and best ask, because a market that has moved would pause again and again.

use super::{
    domain::{Engine, Fact, state_changed},
    record::Listing,
};
use fafnir_matching::{Command, MAX_BAND_BPS, Phase};
use fafnir_proto::v1::TradingState;
use fafnir_rules::symbol::Symbol;

impl Engine {
    /// The symbols in a volatility pause and when it began.
    pub fn paused(&self) -> impl Iterator<Item = (&Symbol, i64)> {
        self.markets.iter().filter_map(|m| Some((&m.symbol, m.paused_us()?)))
    }

    pub(super) fn set_state(
        &mut self,
        market: usize,
        cmd_seq: u64,
        state: TradingState,
        facts: &mut Vec<Fact>,
    ) {
        let m = &mut self.markets[market];
        if m.state == state {
            return;
        }
        m.state = state;
        m.paused_us = 0;
        let (is_halted, phase) = (m.book.is_halted(), m.book.phase());
        let target = match state {
            TradingState::Halted => phase,
            TradingState::Open | TradingState::Unspecified => Phase::Continuous,
            TradingState::Closed => Phase::Closed,
            TradingState::PreOpen => Phase::PreOpen,
            TradingState::Auction => Phase::Auction,
        };
        let set_phase = (target != phase).then_some(Command::SetPhase { phase: target });
        let resume = (is_halted && state != TradingState::Halted).then_some(Command::Resume);
        let halt = (!is_halted && state == TradingState::Halted).then_some(Command::Halt);
        // A call begins before the halt ends, so that nothing trades in between; any other phase after it, because an
        // auction needs a book that trades.
        let steps = if target.is_call() { [set_phase, resume, halt] } else { [resume, set_phase, halt] };
        self.step(market, cmd_seq, steps, state, facts);
    }

    /// Ends a volatility pause with its auction; without one nothing happens.
    pub(super) fn reopen(&mut self, market: usize, facts: &mut Vec<Fact>) {
        let m = &mut self.markets[market];
        if m.paused_us == 0 {
            return;
        }
        m.paused_us = 0;
        let state = m.state;
        if m.band_bps != 0
            && let (Some(bid), Some(ask)) = (m.book.best_bid(), m.book.best_ask())
            && bid < ask
        {
            let (reference, bps) = (bid.midpoint(ask), m.band_bps);
            self.run(market, 0, &Command::SetBand { reference, bps }, facts);
        }
        let open = Command::SetPhase { phase: Phase::Continuous };
        self.step(market, 0, [Some(open), None, None], state, facts);
    }

    fn step(
        &mut self,
        market: usize,
        cmd_seq: u64,
        steps: [Option<Command>; 3],
        state: TradingState,
        facts: &mut Vec<Fact>,
    ) {
        let mut untold = Some(state);
        for command in steps.into_iter().flatten() {
            self.run_before(market, cmd_seq, &command, &mut untold, facts);
        }
        let m = &mut self.markets[market];
        if m.paused_us != 0 && !matches!(state, TradingState::Open | TradingState::Unspecified) {
            // It came between two steps: the state that they lead to stands.
            m.paused_us = 0;
            untold = Some(state);
        }
        if let Some(state) = untold {
            self.emit(market, cmd_seq, state_changed(state), facts);
        }
    }

    /// Takes previous close and width of the band from a listing.
    pub(super) fn set_band(&mut self, market: usize, listing: &Listing, facts: &mut Vec<Fact>) {
        let m = &mut self.markets[market];
        let band_bps = listing.band_bps.min(MAX_BAND_BPS);
        let has_traded = m.book.last_price().is_some();
        let is_news =
            band_bps != m.band_bps || (listing.previous_close_e4 != m.previous_close_e4 && !has_traded);
        m.previous_close_e4 = listing.previous_close_e4;
        m.band_bps = band_bps;
        if is_news {
            self.centre_band(market, facts);
        }
    }

    /// A new day: the band lies around the last trade again.
    pub(super) fn roll_band(&mut self, market: usize, facts: &mut Vec<Fact>) {
        if self.markets[market].band_bps != 0 {
            self.centre_band(market, facts);
        }
    }

    /// Without a previous close the first trade gives the band its reference.
    pub(super) fn band_by_first_trade(&mut self, market: usize, facts: &mut Vec<Fact>) {
        let m = &self.markets[market];
        if m.band_bps != 0 && m.book.band().is_none() && m.reference().is_some() {
            self.centre_band(market, facts);
        }
    }

    fn centre_band(&mut self, market: usize, facts: &mut Vec<Fact>) {
        let m = &self.markets[market];
        let reference = m.reference().unwrap_or(0);
        let bps = if reference == 0 { 0 } else { m.band_bps };
        self.run(market, 0, &Command::SetBand { reference, bps }, facts);
    }
}
