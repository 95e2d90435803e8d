//! Listings, trading states, the volatility band and its pause; what is computed with; the calendar.
//!
//! The state says what a symbol does, and where that is OPEN the calendar's session. In continuous trading the book goes to
//! a call by itself before a trade outside its band; that pause goes beside both and ends with
//! [`Instruction::Reopen`](crate::command::Instruction::Reopen), or with the symbol's next state or session, which then
//! decides. A pause ends at a moment that nobody chooses; where its auction would be too far away it lasts once more. The band's reference is the last trade (before the first the
//! previous close) when the band is set and at the day's end, and in between the price of each auction; where a reopening
//! trades nothing, the middle between best bid and best ask, because a market that has moved would pause again and again.

use crate::{
    command::Instrument,
    fact::{Sink, What},
    market::{Market, Pause},
    refusal::Refusal,
    step::{Checked, Stepper},
    terms::{FEE_BP_MAX, Fees, PAUSE_US_MAX, RATE_MAX, RATE_MIN, Rules},
};
use fafnir_matching::{Command, Phase, Ticks};
use fafnir_rules::{
    calendar::Session,
    limits::{LISTING_E4_MAX, STEP_DECIMALS_MAX, VOLATILITY_BAND_BPS_MAX},
    money::step_decimals,
    order::TradingState,
    pause::random_end_us,
    symbol::Symbol,
};

/// A volatility pause lasts once more where its auction would be beyond so many widths of the band.
const REOPENING_BANDS: u32 = 2;
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
                self.state.markets.push(Market::new(i, self.state.session));
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
            self.state.markets[market as usize].state = i.state;
            self.follow(market);
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
        self.follow(market);
    }

    /// Brings the book of a symbol to what state and session have it do; nothing happens where it does that.
    fn follow(&mut self, market: u32) {
        let m = &mut self.state.markets[market as usize];
        let was_paused = m.pause.take().is_some();
        let state = m.state();
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
        if set_phase.is_none() && resume.is_none() && halt.is_none() && !was_paused {
            return;
        }
        // A call begins before the halt ends, so that nothing trades in between; any other phase after it, because an
        // auction needs a book that trades.
        let steps = if target.is_call() { [set_phase, resume, halt] } else { [resume, set_phase, halt] };
        self.go(market, steps, state);
    }

    /// Ends a volatility pause with its auction, or lets it last once more where that would be beyond twice the band;
    /// before its time nothing happens.
    pub fn reopen(&mut self, symbol: &Symbol) {
        let now = self.state.time_us;
        let Some(market) = self.state.market_numbers.get(symbol).copied() else { return };
        let m = &mut self.state.markets[market as usize];
        let Some(pause) = m.pause.filter(|pause| pause.due_us <= now) else { return };
        if !pause.extended
            && let Some(found) = m.book.indicative()
            && m.book.is_beyond_band(found.price, REOPENING_BANDS)
        {
            return self.pause_from(market, Pause { extended: true, ..pause }, found.price);
        }
        m.pause = None;
        let state = m.state();
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
        if m.pause.is_some() && state != TradingState::Open {
            // It came between two steps: the state that they lead to stands.
            m.pause = None;
            untold = Some(state);
        }
        if let Some(state) = untold {
            self.tell_state(market, state);
        }
        self.give_pending(market);
        self.settle(market, &mut None);
    }

    fn tell_state(&mut self, market: u32, state: TradingState) {
        self.emit(Some(market), What::StateChanged { state, paused: false, price_e4: 0, until_us: 0 });
    }

    /// The book went to a call by itself, before a trade at `price`.
    pub fn paused(&mut self, market: u32, price: Ticks, untold: &mut Option<TradingState>) {
        if let Some(state) = untold.take() {
            self.tell_state(market, state);
        }
        let since_us = self.state.time_us;
        self.pause_from(market, Pause { since_us, until_us: 0, due_us: 0, extended: false }, price);
    }

    /// A pause lasts from now on, and is told.
    fn pause_from(&mut self, market: u32, pause: Pause, price: Ticks) {
        let (rules, position) = (self.state.rules, self.state.position + 1);
        let until_us = self.state.time_us.saturating_add(rules.volatility_pause_us);
        let m = &mut self.state.markets[market as usize];
        let later_us = random_end_us(position, m.symbol.as_str(), rules.volatility_end_us);
        m.pause = Some(Pause { until_us, due_us: until_us.saturating_add(later_us), ..pause });
        let (state, price_e4) = (TradingState::Auction, m.price_e4(price));
        self.emit(Some(market), What::StateChanged { state, paused: true, price_e4, until_us });
    }

    /// Every symbol that its operator leaves open goes to what the calendar says; where a session ends, through its
    /// closing auction.
    pub fn set_session(&mut self, session: Session) {
        if session == self.state.session {
            self.state.session_us = self.state.time_us;
            return;
        }
        let closes = self.state.session == Session::Regular && session == Session::PreOpen;
        (self.state.session, self.state.session_us) = (session, self.state.time_us);
        if closes {
            self.state.day_end_us = self.state.time_us;
        }
        for market in 0..self.state.markets.len() as u32 {
            let m = &mut self.state.markets[market as usize];
            m.session = session;
            let is_open = m.state == TradingState::Open;
            if closes {
                self.close_session(market, is_open);
            }
            if is_open {
                self.follow(market);
            }
        }
    }

    /// The closing auction of a symbol, and the end of its day.
    fn close_session(&mut self, market: u32, is_open: bool) {
        if is_open {
            self.state.markets[market as usize].pause = None;
            for phase in [Phase::Closing, Phase::Closed] {
                self.run_book(market, &Command::SetPhase { phase });
            }
        }
        self.end_day(market);
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
        for market in 0..self.state.markets.len() as u32 {
            self.end_day(market);
        }
    }

    fn end_day(&mut self, market: u32) {
        let now = self.book_now();
        self.run_book(market, &Command::DayEnd { now });
        // A new day: the band lies around the last trade again.
        if self.state.markets[market as usize].band_bps != 0 {
            self.centre_band(market);
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
        let pauses = (1..=PAUSE_US_MAX).contains(&rules.volatility_pause_us);
        if !pauses || !(0..=PAUSE_US_MAX).contains(&rules.volatility_end_us) {
            let sentence = "volatility_pause_s must be from 1 to 3600, volatility_end_s from 0 to 3600";
            return Err(Refusal::TermsOutOfRange(sentence));
        }
        if rules == self.state.rules {
            return Ok(());
        }
        let lasts = |rules: &Rules| (rules.volatility_pause_us, rules.volatility_end_us);
        let lasts_otherwise = lasts(&rules) != lasts(&self.state.rules);
        self.state.rules = rules;
        self.state.recent.shrink(rules.recent_ids);
        self.tell_terms();
        if lasts_otherwise {
            self.pause_otherwise();
        }
        Ok(())
    }

    /// What is paused lasts as long from now on as the rules say now.
    fn pause_otherwise(&mut self) {
        for market in 0..self.state.markets.len() as u32 {
            let m = &self.state.markets[market as usize];
            if let Some(pause) = m.pause {
                let price = m.book.indicative().map_or(0, |found| found.price);
                self.pause_from(market, pause, price);
            }
        }
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
