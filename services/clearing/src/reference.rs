//! Listings, trading states, the volatility band and its pause; what is computed with; the calendar.
//!
//! The state says what a symbol does. In continuous trading the book goes to a call by itself before a trade outside its
//! band; that pause goes beside the state and ends with [`Instruction::Reopen`](crate::command::Instruction::Reopen), or
//! with the symbol's next state, which then decides. The band's reference is the last trade (before the first the
//! previous close) when the band is set and at the day's end, and in between the price of each auction; where a reopening
//! trades nothing, the middle between best bid and best ask, because a market that has moved would pause again and again.

use crate::{
    command::Instrument,
    fact::{Sink, What},
    market::Market,
    refusal::Refusal,
    step::{Checked, Stepper},
    terms::{FEE_BP_MAX, Fees, RATE_MAX, RATE_MIN, Rules},
};
use fafnir_matching::{Command, Phase, Ticks};
use fafnir_rules::{
    limits::{LISTING_E4_MAX, STEP_DECIMALS_MAX, VOLATILITY_BAND_BPS_MAX},
    money::step_decimals,
    order::TradingState,
    symbol::Symbol,
};

/// Markets that there may be.
pub const MARKETS_MAX: usize = 65_536;

fn check_instrument(i: &Instrument) -> Checked {
    let must = |holds: bool, what| if holds { Ok(()) } else { Err(Refusal::InstrumentMalformed(what)) };
    must((1..=LISTING_E4_MAX).contains(&i.tick_e4), "tick_size must be above 0 and at most 1,000,000")?;
    must((1..=LISTING_E4_MAX).contains(&i.lot_e4), "lot_size must be above 0 and at most 1,000,000")?;
    let decimals = step_decimals(i.tick_e4) + step_decimals(i.lot_e4);
    must(decimals <= STEP_DECIMALS_MAX, "the decimals of tick_size and lot_size together must be at most 6")?;
    let closes = 0..=LISTING_E4_MAX;
    must(closes.contains(&i.previous_close_e4), "previous_close must be from 0 to 1,000,000")?;
    must(i.band_bps <= VOLATILITY_BAND_BPS_MAX, "the volatility band must be below 100 %")
}

impl<S: Sink> Stepper<'_, S> {
    pub fn set_instrument(&mut self, i: &Instrument) -> Checked {
        check_instrument(i)?;
        let known = self.state.market_numbers.get(&i.symbol).copied();
        let market = match known {
            Some(market) if self.state.markets[market as usize].version >= i.version => return Ok(()),
            Some(market) => market,
            None => {
                if self.state.markets.len() >= MARKETS_MAX {
                    return Err(Refusal::ExchangeFull);
                }
                let market = self.state.markets.len() as u32;
                self.state.markets.push(Market::new(i));
                self.state.market_numbers.insert(i.symbol.clone(), market);
                market
            }
        };
        let m = &mut self.state.markets[market as usize];
        m.version = i.version;
        let has_traded = m.book.last_price().is_some();
        let is_news = i.band_bps != m.band_bps || (i.previous_close_e4 != m.previous_close_e4 && !has_traded);
        m.previous_close_e4 = i.previous_close_e4;
        m.band_bps = i.band_bps;
        let told = m.instrument();
        self.emit(Some(market), What::InstrumentSet(Box::new(told)));
        if is_news {
            self.centre_band(market);
        }
        if known.is_none() {
            self.set_state(market, i.state);
        }
        Ok(())
    }

    pub fn set_state_of(&mut self, symbol: &Symbol, state: TradingState) -> Checked {
        let market = self.market_of(symbol)?;
        self.set_state(market, state);
        Ok(())
    }

    fn set_state(&mut self, market: u32, state: TradingState) {
        let m = &mut self.state.markets[market as usize];
        if m.state == state {
            return;
        }
        m.state = state;
        m.paused_us = 0;
        let (is_halted, phase) = (m.book.is_halted(), m.book.phase());
        let target = match state {
            TradingState::Halted => phase,
            TradingState::Open => Phase::Continuous,
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
        self.go(market, steps, state);
    }

    /// Ends a volatility pause with its auction; without one nothing happens.
    pub fn reopen(&mut self, symbol: &Symbol) {
        let Some(market) = self.state.market_numbers.get(symbol).copied() else { return };
        let m = &mut self.state.markets[market as usize];
        if m.paused_us == 0 {
            return;
        }
        m.paused_us = 0;
        let state = m.state;
        if m.band_bps != 0
            && let (Some(bid), Some(ask)) = (m.book.best_bid(), m.book.best_ask())
            && m.book.indicative().is_none()
        {
            let (reference, bps) = (bid.midpoint(ask), m.band_bps);
            self.run_book(market, &Command::SetBand { reference, bps });
        }
        let open = Command::SetPhase { phase: Phase::Continuous };
        self.go(market, [Some(open), None, None], state);
    }

    fn go(&mut self, market: u32, steps: [Option<Command>; 3], state: TradingState) {
        let mut untold = Some(state);
        for command in steps.into_iter().flatten() {
            self.run_book_before(market, &command, &mut untold);
        }
        let m = &mut self.state.markets[market as usize];
        if m.paused_us != 0 && state != TradingState::Open {
            // It came between two steps: the state that they lead to stands.
            m.paused_us = 0;
            untold = Some(state);
        }
        if let Some(state) = untold {
            self.tell_state(market, state, false, 0);
        }
        self.give_pending(market);
        self.settle(market, &mut None);
    }

    fn tell_state(&mut self, market: u32, state: TradingState, paused: bool, price_e4: i64) {
        self.emit(Some(market), What::StateChanged { state, paused, price_e4 });
    }

    /// The book went to a call by itself, before a trade at `price`.
    pub fn paused(&mut self, market: u32, price: Ticks, untold: &mut Option<TradingState>) {
        let now = self.state.time_us;
        let m = &mut self.state.markets[market as usize];
        m.paused_us = now;
        let price_e4 = m.price_e4(price);
        if let Some(state) = untold.take() {
            self.tell_state(market, state, false, 0);
        }
        self.tell_state(market, TradingState::Auction, true, price_e4);
    }

    /// Without a previous close the first trade gives the band its reference.
    pub fn band_by_first_trade(&mut self, market: u32) {
        let m = &self.state.markets[market as usize];
        if m.band_bps != 0 && m.book.band().is_none() && m.reference().is_some() {
            self.centre_band(market);
        }
    }

    fn centre_band(&mut self, market: u32) {
        let m = &self.state.markets[market as usize];
        let reference = m.reference().unwrap_or(0);
        let bps = if reference == 0 { 0 } else { m.band_bps };
        self.run_book(market, &Command::SetBand { reference, bps });
    }

    fn book_now(&self) -> u64 {
        u64::try_from(self.state.time_us).unwrap_or(0)
    }

    pub fn day_end(&mut self) {
        self.state.day_end_us = self.state.time_us;
        let now = self.book_now();
        for market in 0..self.state.markets.len() as u32 {
            self.run_book(market, &Command::DayEnd { now });
            // A new day: the band lies around the last trade again.
            if self.state.markets[market as usize].band_bps != 0 {
                self.centre_band(market);
            }
        }
    }

    pub fn expire(&mut self) {
        let now = self.book_now();
        for market in 0..self.state.markets.len() as u32 {
            self.run_book(market, &Command::Expire { now });
        }
    }

    pub fn set_rules(&mut self, rules: Rules) -> Checked {
        let amounts = [rules.deposit_max, rules.deposits_per_day_max, rules.account_max];
        if rules.opening < 0 || rules.opening > rules.account_max {
            return Err(Refusal::TermsOutOfRange("opening_deposit must be from 0 to account_max"));
        }
        if amounts.iter().any(|amount| *amount <= 0) {
            let sentence = "deposit_max, deposits_per_day_max and account_max must be above 0";
            return Err(Refusal::TermsOutOfRange(sentence));
        }
        if rules.recent_ids == 0 {
            return Err(Refusal::TermsOutOfRange("recent_ids must be above 0"));
        }
        if rules == self.state.rules {
            return Ok(());
        }
        self.state.rules = rules;
        self.state.recent.shrink(rules.recent_ids);
        self.tell_terms();
        Ok(())
    }

    pub fn set_fees(&mut self, maker_bp: u32, taker_bp: u32) -> Checked {
        if maker_bp.max(taker_bp) > FEE_BP_MAX {
            let sentence = "maker_fee_bp and taker_fee_bp must be at most 1,000";
            return Err(Refusal::TermsOutOfRange(sentence));
        }
        let fees = Fees { maker_bp, taker_bp };
        if self.state.fees.last() != Some(&fees) {
            self.state.fees.push(fees);
            self.tell_terms();
        }
        Ok(())
    }

    pub fn set_rate(&mut self, usd_cad: i64) -> Checked {
        if !(RATE_MIN..=RATE_MAX).contains(&usd_cad) {
            return Err(Refusal::TermsOutOfRange("usd_cad must be from 0.01 to 100"));
        }
        // Open orders keep the rates of their acceptance, whatever the new one is.
        if !self.state.fits([0; 2], usd_cad) || !self.state.settles([0; 2], [0; 2], usd_cad) {
            return Err(Refusal::RateTooFar);
        }
        if self.state.rates.last() != Some(&usd_cad) {
            self.state.rates.push(usd_cad);
            self.tell_terms();
        }
        Ok(())
    }

    fn tell_terms(&mut self) {
        let terms = self.state.terms();
        self.emit(None, What::TermsSet(terms));
    }
}
