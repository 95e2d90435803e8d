//! The agents as a state machine: facts, answers and steps in, requests out. No I/O, no clock; the same seed and the
//! same order of inputs give the same requests.
//!
//! A step is a quarter of a second of market time.

use crate::{
    draw::stream,
    ladder::{Need, Quote, Stage},
    listing::Listing,
    symbol::{Market, TRADER_QUOTES, TRADERS, quote_e4},
    traders::{Sight, Wish, percent},
    value::{Mood, SESSION_STEPS, Values},
};
use fafnir_matching::Side;
use fafnir_rules::{money::round_lot, rng::Rng};
use std::collections::HashMap;

/// Steps in a second of market time.
pub const STEPS_PER_SECOND: u64 = 4;
/// Orders at the quotes in a second, over all symbols, on average.
const TRADES_PER_SECOND: f64 = 3.0;
/// A symbol trades at most so often in a step.
const PACE_MAX: f64 = 0.25;
/// Size of an order at the quotes, percent of a usual quote, on average.
const MEAN_PERCENT: f64 = 22.0;
/// Per mille of a passive order of a trader in a step.
const PASSIVE_PER_MILLE: u64 = 100;
/// Passive orders that stand at a time.
const PASSIVE_MAX: usize = 40;
/// Requests of makers: so many thousandths are saved up in each step, and at most so many at all.
const MAKER_BUDGET_MILLI: i64 = 2_400;
const MAKER_BUDGET_MAX_MILLI: i64 = 12_000;
/// With more saved up than this, quotes are brought to the size of their place.
const RESIZE_BUDGET_MILLI: i64 = 9_000;
/// Requests of one maker in one step.
const MAKER_REQUESTS_MAX: usize = 4;
/// Whether a quote waits too long is looked at so often.
const STUCK_EVERY: u64 = 8;
/// After a refusal about the symbol nobody trades in it for so many steps.
const PAUSE_STEPS: u64 = 20;
/// Orders whose answer is not here yet and that traded or ended are kept for so many.
const EARLY_MAX: usize = 4_096;
/// Quotes per side of an opening book.
const LEVELS_STANDING: usize = 10;

/// The number of an order; 0 is none.
pub type OrderId = u128;

/// An order that stands already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    pub order: OrderId,
    pub side: Side,
    pub price_e4: i64,
    pub total_e4: i64,
    pub filled_e4: i64,
}

/// Who asks: the maker of a symbol, or a trader by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Agent {
    Maker(usize),
    Trader(usize),
}

/// What an agent asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// `price_e4` 0 is a market order; otherwise a limit, IOC or standing.
    Place {
        ticket: u64,
        agent: Agent,
        market: usize,
        side: Side,
        quantity_e4: i64,
        price_e4: i64,
        stands: bool,
    },
    Replace {
        agent: Agent,
        market: usize,
        order: OrderId,
        quantity_e4: i64,
        price_e4: i64,
    },
    Cancel {
        agent: Agent,
        market: usize,
        order: OrderId,
    },
    /// The open orders of a symbol's maker.
    LookUp {
        market: usize,
    },
    Refill {
        agent: Agent,
        market: usize,
        quantity_e4: i64,
        price_e4: i64,
        amount_micros: i64,
    },
}

/// How a request was answered.
#[derive(Debug, Clone)]
pub enum Answer {
    Placed {
        ticket: u64,
        agent: Agent,
        market: usize,
        order: OrderId,
        open: bool,
    },
    PlaceRefused {
        ticket: u64,
        agent: Agent,
        market: usize,
    },
    /// Nobody knows whether the order was placed.
    PlaceLost {
        ticket: u64,
        agent: Agent,
        market: usize,
    },
    Replaced {
        market: usize,
        order: OrderId,
    },
    /// The order could not be changed: it may have ended, or the symbol is halted.
    ChangeRefused {
        agent: Agent,
        market: usize,
        order: OrderId,
    },
    /// As they were at a position of the journal.
    LookedUp {
        market: usize,
        standing: Vec<Standing>,
        position: u64,
    },
    /// The engine did not answer: it is asked again later.
    LookUpFailed {
        market: usize,
    },
}

/// What happened at the exchange.
#[derive(Debug, Clone)]
pub enum Event {
    /// `aggressor`: who came to the quotes; none in an auction.
    Traded { market: usize, price_e4: i64, quantity_e4: i64, aggressor: Option<Side> },
    /// Whether the symbol trades continuously.
    State { market: usize, is_open: bool },
    /// An agent's order as it is at a position of the journal.
    Order { market: usize, position: u64, agent: Agent, order: OrderId, filled_e4: i64, ended: bool },
    /// What an agent has of a symbol.
    Shares { market: usize, agent: Agent, quantity_e4: i64 },
    /// The cash of a symbol's maker.
    Cash { market: usize, micros: i64 },
}

#[derive(Debug)]
struct Passive {
    trader: usize,
    market: usize,
    until: u64,
}

/// All agents.
#[derive(Debug)]
pub struct Core {
    passive_rng: Rng,
    step: u64,
    tickets: u64,
    values: Values,
    markets: Vec<Market>,
    passive: HashMap<OrderId, Passive>,
    /// Orders that ended, or traded, before the answer to their placing was here.
    early: HashMap<OrderId, Early>,
    budget_milli: i64,
    next_maker: usize,
    weights: u64,
}

#[derive(Debug, Default)]
struct Early {
    filled_e4: i64,
    ended: bool,
}

/// Trades of each symbol in a step, on average.
fn paces(listings: &[Listing]) -> Vec<f64> {
    let weights: u64 = listings.iter().map(Listing::weight).sum();
    let per_step = TRADES_PER_SECOND / STEPS_PER_SECOND as f64;
    listings.iter().map(|l| (per_step * l.weight() as f64 / weights.max(1) as f64).min(PACE_MAX)).collect()
}

/// What each symbol trades in a session, nearly.
pub fn daily_volume_e4(listings: &[Listing]) -> Vec<i64> {
    let volume = |(listing, pace): (&Listing, f64)| {
        let lot_e4 = round_lot(listing.lot_e4);
        let quotes = pace * SESSION_STEPS as f64 * MEAN_PERCENT / 100.0;
        (quotes * quote_e4(listing) as f64) as i64 / lot_e4 * lot_e4
    };
    listings.iter().zip(paces(listings)).map(volume).collect()
}

impl Core {
    pub fn new(seed: u64, listings: Vec<Listing>, mood: Mood) -> Self {
        let values = Values::new(seed, &listings, mood);
        let weights: u64 = listings.iter().map(Listing::weight).sum();
        let paces = paces(&listings);
        let market = |(market, listing): (usize, Listing)| {
            Market::new(seed, listing, paces[market], values.minute_ticks(market))
        };
        let markets: Vec<Market> = listings.into_iter().enumerate().map(market).collect();
        Self {
            passive_rng: stream(seed, "", "passive"),
            step: 0,
            tickets: 0,
            values,
            markets,
            passive: HashMap::new(),
            early: HashMap::new(),
            budget_milli: MAKER_BUDGET_MAX_MILLI,
            next_maker: 0,
            weights,
        }
    }

    /// The step of the session in which the market is, which gives the day its shape; `None` where there are no sessions.
    pub fn set_session_step(&mut self, step: Option<u64>) {
        self.values.session_step = step;
    }

    /// Changes how the market is, from now on.
    pub fn set_mood(&mut self, mood: Mood) {
        self.values.mood = mood;
    }

    /// News about a symbol: it is worth more or less by a part of what it is worth.
    pub fn news(&mut self, market: usize, part: f64) {
        self.values.news(market, part);
    }

    /// What an agent has at the start.
    pub fn own(&mut self, agent: Agent, market: usize, shares_e4: i64, cash_micros: i64) {
        let m = &mut self.markets[market];
        match agent {
            Agent::Maker(_) => (m.maker_shares_e4, m.maker_cash_micros) = (shares_e4, cash_micros),
            Agent::Trader(trader) => m.trader_shares_e4[trader] = shares_e4,
        }
    }

    /// A maker's orders that stood at a position, at the start.
    pub fn adopt(&mut self, market: usize, standing: Vec<Standing>, position: u64) {
        let m = &mut self.markets[market];
        m.adopt(standing, position, self.step);
        if let (Some(bid), Some(ask)) = (m.ladder.best(Side::Buy), m.ladder.best(Side::Sell)) {
            m.ladder.centre_milli = (bid + ask) * 500;
            let middle = (bid + ask) as f64 / 2.0;
            m.flow.begin_at(middle);
            self.values.set(market, middle);
        }
    }

    /// A trader's order that stands at the start: it is canceled in its time.
    pub fn adopt_passive(&mut self, trader: usize, market: usize, order: OrderId) {
        let until = self.step + self.passive_rng.below(40 * STEPS_PER_SECOND);
        self.passive.insert(order, Passive { trader, market, until });
    }

    /// The requests that make the opening book, whole.
    pub fn open(&mut self) -> Vec<Request> {
        let mut requests = Vec::new();
        for market in 0..self.markets.len() {
            while self.markets[market].is_open
                && let Some(need) = self.markets[market].ladder.need()
            {
                requests.push(self.quote(market, need));
            }
        }
        requests
    }

    /// Whether every symbol that can be traded has its book.
    pub fn is_standing(&self) -> bool {
        self.markets.iter().all(|m| {
            let stand = |side| {
                let quotes = m.ladder.quotes.iter().filter(|q| q.side == side && q.order != 0);
                quotes.count() >= LEVELS_STANDING
            };
            !m.is_open || m.paused_until > self.step || (stand(Side::Buy) && stand(Side::Sell))
        })
    }

    /// A quarter of a second of market time.
    pub fn step(&mut self) -> Vec<Request> {
        self.step += 1;
        let mut requests = Vec::new();
        if self.markets.is_empty() {
            return requests;
        }
        self.values.step();
        for market in 0..self.markets.len() {
            self.markets[market].hear(market, &mut self.values);
            if self.trades(market) {
                self.come(market, &mut requests);
            }
        }
        if self.passive_rng.chance(PASSIVE_PER_MILLE) {
            requests.extend(self.rest());
        }
        requests.extend(self.withdraw());
        self.make(&mut requests);
        requests
    }

    fn trades(&self, market: usize) -> bool {
        let m = &self.markets[market];
        m.is_open && m.paused_until <= self.step
    }

    /// Those who come to the quotes of a symbol in this step.
    fn come(&mut self, market: usize, requests: &mut Vec<Request>) {
        let heat = self.values.heat(market);
        let m = &mut self.markets[market];
        let sight = Sight {
            middle: m.ladder.centre_milli as f64 / 1_000.0,
            value: self.values.value(market),
            minute: self.values.minute_ticks(market),
            pace: m.pace * (heat * self.values.shape() * 1.1).clamp(0.25, 4.0),
            buys: std::array::from_fn(|trader| m.chance_to_buy(trader)),
        };
        let wishes = m.flow.step(&sight);
        for Wish { trader, side, percent } in wishes {
            self.tickets += 1;
            requests.push(Request::Place {
                ticket: self.tickets,
                agent: Agent::Trader(trader),
                market,
                side,
                quantity_e4: self.markets[market].quantity_e4(percent),
                price_e4: 0,
                stands: false,
            });
        }
    }

    /// An order that stands a while, behind or before the maker's best.
    fn rest(&mut self) -> Option<Request> {
        if self.passive.len() >= PASSIVE_MAX {
            return None;
        }
        let rng = &mut self.passive_rng;
        let mut at = rng.below(self.weights);
        let market = self.markets.iter().position(|m| {
            let found = at < m.listing.weight();
            at = at.saturating_sub(m.listing.weight());
            found
        })?;
        let trader = rng.index(TRADERS);
        let percent = percent(rng);
        let m = &self.markets[market];
        let side = if crate::draw::happens(rng, m.chance_to_buy(trader)) { Side::Buy } else { Side::Sell };
        let away = rng.between(1, 2 * m.ladder.grid + 1);
        let price = m.ladder.centre() + if side == Side::Buy { -away } else { away };
        if price < 1 || !self.trades(market) {
            return None;
        }
        self.tickets += 1;
        Some(Request::Place {
            ticket: self.tickets,
            agent: Agent::Trader(trader),
            market,
            side,
            quantity_e4: m.quantity_e4(percent),
            price_e4: price * m.listing.tick_e4,
            stands: true,
        })
    }

    fn withdraw(&mut self) -> Option<Request> {
        // The lowest id of those that are due: not the map's order.
        let (order, _) = self
            .passive
            .iter()
            .filter(|(_, p)| p.until <= self.step)
            .min_by_key(|(order, p)| (p.until, **order))?;
        let order = *order;
        let passive = self.passive.remove(&order)?;
        Some(Request::Cancel { agent: Agent::Trader(passive.trader), market: passive.market, order })
    }

    fn make(&mut self, requests: &mut Vec<Request>) {
        self.budget_milli = (self.budget_milli + MAKER_BUDGET_MILLI).min(MAKER_BUDGET_MAX_MILLI);
        let count = self.markets.len();
        let first = self.next_maker;
        let in_turn = (0..count).map(|offset| (first + offset) % count);
        // A market without one side is the first thing to mend.
        let mut order: Vec<usize> = in_turn.collect();
        if self.markets.iter().any(|m| m.ladder.is_one_sided()) {
            order.sort_by_key(|market| !self.markets[*market].ladder.is_one_sided());
        }
        for market in order {
            if self.budget_milli < 1_000 {
                break;
            }
            if !self.trades(market) || self.markets[market].looking_up {
                continue;
            }
            let m = &mut self.markets[market];
            if m.is_doubtful || (self.step.is_multiple_of(STUCK_EVERY) && m.ladder.is_stuck(self.step)) {
                if m.ladder.is_waiting(self.step) {
                    continue;
                }
                m.looking_up = true;
                self.budget_milli -= 1_000;
                requests.push(Request::LookUp { market });
                continue;
            }
            if let Some(refill) = m.refill(market, self.step) {
                requests.push(refill);
            }
            m.aim(market, &self.values);
            self.make_one(market, requests);
        }
        // Whoever was first is last the next time: nobody is served before all others for long.
        self.next_maker = (first + 1) % count;
    }

    fn make_one(&mut self, market: usize, requests: &mut Vec<Request>) {
        for _ in 0..MAKER_REQUESTS_MAX {
            let has_budget = self.budget_milli >= 1_000;
            let Some(need) = self.markets[market].ladder.need().filter(|_| has_budget) else { break };
            self.budget_milli -= 1_000;
            requests.push(self.quote(market, need));
        }
        let turn = self.step % (2 * self.markets.len() as u64) == 2 * market as u64;
        if turn
            && self.budget_milli >= RESIZE_BUDGET_MILLI
            && let Some(need) = self.markets[market].ladder.resize(self.markets[market].quote_e4)
        {
            self.budget_milli -= 1_000;
            requests.push(self.quote(market, need));
        }
    }

    /// Turns what a ladder needs into a request, and notes that it is on its way.
    fn quote(&mut self, market: usize, need: Need) -> Request {
        let step = self.step;
        let m = &mut self.markets[market];
        m.ladder.touch();
        let varied = m.maker_rng.between(75, 125);
        let agent = Agent::Maker(market);
        match need {
            Need::Place { side, price, percent } => {
                self.tickets += 1;
                let ticket = self.tickets;
                let quantity_e4 = m.quantity_e4(percent * varied / 100);
                m.ladder.quotes.push(Quote {
                    order: 0,
                    side,
                    price,
                    total_e4: quantity_e4,
                    filled_e4: 0,
                    stage: Stage::Placing { ticket },
                    since: step,
                });
                let price_e4 = price * m.listing.tick_e4;
                Request::Place { ticket, agent, market, side, quantity_e4, price_e4, stands: true }
            }
            Need::Move { quote, price, percent } => {
                let tick_e4 = m.listing.tick_e4;
                let quantity_e4 = m.quantity_e4(percent * varied / 100);
                let quote = &mut m.ladder.quotes[quote];
                quote.stage = Stage::Moving { from: quote.price };
                quote.price = price;
                quote.total_e4 = quote.filled_e4 + quantity_e4;
                quote.since = step;
                let (order, total_e4) = (quote.order, quote.total_e4);
                Request::Replace { agent, market, order, quantity_e4: total_e4, price_e4: price * tick_e4 }
            }
            Need::Cancel { quote } => {
                let quote = &mut m.ladder.quotes[quote];
                quote.stage = Stage::Canceling;
                quote.since = step;
                Request::Cancel { agent, market, order: quote.order }
            }
        }
    }

    /// Takes the answer to a request.
    pub fn answer(&mut self, answer: Answer) {
        match answer {
            Answer::Placed { ticket, agent, market, order, open } => {
                self.placed(ticket, agent, market, order, open);
            }
            Answer::PlaceRefused { ticket, agent, market } => {
                let m = &mut self.markets[market];
                m.paused_until = self.step + PAUSE_STEPS;
                if let Agent::Maker(_) = agent {
                    m.forget(ticket);
                }
            }
            Answer::PlaceLost { ticket, agent: Agent::Maker(_), market } => {
                let m = &mut self.markets[market];
                m.forget(ticket);
                m.is_doubtful = true;
            }
            Answer::PlaceLost { .. } => {}
            Answer::Replaced { market, order } => {
                if let Some(quote) = self.markets[market].ladder.find(order) {
                    quote.stage = Stage::Live;
                }
            }
            // Whatever it is now, the owner of orders knows.
            Answer::ChangeRefused { agent: Agent::Maker(_), market, order } => {
                let m = &mut self.markets[market];
                m.is_doubtful |= m.ladder.find(order).is_some();
            }
            Answer::ChangeRefused { .. } => {}
            Answer::LookUpFailed { market } => {
                let m = &mut self.markets[market];
                (m.looking_up, m.is_doubtful) = (false, true);
                m.paused_until = self.step + PAUSE_STEPS;
            }
            Answer::LookedUp { market, standing, position } => {
                let m = &mut self.markets[market];
                (m.looking_up, m.is_doubtful) = (false, false);
                m.adopt(standing, position, self.step);
            }
        }
    }

    fn placed(&mut self, ticket: u64, agent: Agent, market: usize, order: OrderId, open: bool) {
        let early = self.early.remove(&order).unwrap_or_default();
        let ended = !open || early.ended;
        match agent {
            Agent::Maker(_) => {
                let m = &mut self.markets[market];
                m.ladder.touch();
                let quotes = &mut m.ladder.quotes;
                let Some(at) = quotes.iter().position(|q| q.stage == Stage::Placing { ticket }) else {
                    m.is_doubtful |= !ended;
                    return;
                };
                if ended {
                    quotes.swap_remove(at);
                    return;
                }
                quotes[at].order = order;
                quotes[at].filled_e4 = early.filled_e4;
                quotes[at].stage = Stage::Live;
            }
            Agent::Trader(trader) if !ended => {
                let stays = 10 * STEPS_PER_SECOND + self.passive_rng.below(50 * STEPS_PER_SECOND);
                self.passive.insert(order, Passive { trader, market, until: self.step + stays });
            }
            Agent::Trader(_) => {}
        }
    }

    /// Takes what happened.
    pub fn event(&mut self, event: &Event) {
        match *event {
            Event::Traded { market, price_e4, quantity_e4, aggressor } => {
                let signed_e4 = match aggressor {
                    Some(Side::Buy) => quantity_e4,
                    Some(Side::Sell) => -quantity_e4,
                    None => 0,
                };
                self.markets[market].traded(price_e4, signed_e4);
            }
            Event::State { market, is_open } => self.markets[market].is_open = is_open,
            Event::Order { market, position, agent, order, filled_e4, ended } => {
                self.changed(market, position, agent, order, filled_e4, ended);
            }
            Event::Shares { market, agent, quantity_e4 } => {
                let m = &mut self.markets[market];
                match agent {
                    Agent::Maker(_) => m.maker_shares_e4 = quantity_e4,
                    Agent::Trader(trader) => m.trader_shares_e4[trader] = quantity_e4,
                }
            }
            Event::Cash { market, micros } => self.markets[market].maker_cash_micros = micros,
        }
    }

    /// An order as it is after a fact.
    fn changed(
        &mut self,
        market: usize,
        position: u64,
        agent: Agent,
        order: OrderId,
        filled_e4: i64,
        ended: bool,
    ) {
        match agent {
            Agent::Maker(_) => {
                let m = &mut self.markets[market];
                if position <= m.known_until {
                    return;
                }
                let Some(quote) = m.ladder.find(order) else {
                    // Nobody waits for it: its placing was given up.
                    m.is_doubtful |= !ended && !m.ladder.is_placing();
                    return self.note_early(order, filled_e4, ended);
                };
                quote.filled_e4 = filled_e4;
                if ended {
                    m.ladder.quotes.retain(|q| q.order != order);
                }
            }
            Agent::Trader(_) if ended => {
                if self.passive.remove(&order).is_none() {
                    self.note_early(order, filled_e4, true);
                }
            }
            Agent::Trader(_) => {}
        }
    }

    fn note_early(&mut self, order: OrderId, filled_e4: i64, ended: bool) {
        if filled_e4 == 0 && !ended {
            return;
        }
        if self.early.len() >= EARLY_MAX {
            // Most are of immediate orders whose answer came first; a quote that is lost here is looked up.
            self.early.clear();
        }
        self.early.insert(order, Early { filled_e4, ended });
    }

    /// Ticks between two places of a maker's grid.
    pub(crate) fn grid(&self, market: usize) -> i64 {
        self.markets[market].ladder.grid
    }

    /// A symbol's market (tests).
    #[cfg(test)]
    pub(crate) fn market(&self, market: usize) -> &Market {
        &self.markets[market]
    }

    /// Where the price of a symbol is: its value as its orders told it, in ticks.
    pub fn value(&self, market: usize) -> f64 {
        self.values.value(market)
    }
}

impl Market {
    /// How likely a trader buys who does not care: each leans back to what it began with.
    fn chance_to_buy(&self, trader: usize) -> f64 {
        let target = (self.quote_e4 * TRADER_QUOTES).max(1);
        match self.trader_shares_e4[trader] {
            shares if shares < target / 4 => 1.0,
            shares if shares > target * 2 => 0.0,
            shares => (0.5 + 0.4 * (target - shares) as f64 / target as f64).clamp(0.1, 0.9),
        }
    }

    /// A part of a usual quote, in whole lots.
    fn quantity_e4(&self, percent: i64) -> i64 {
        let lot_e4 = round_lot(self.listing.lot_e4);
        (self.quote_e4 / 100 * percent / lot_e4).max(1) * lot_e4
    }

    fn forget(&mut self, ticket: u64) {
        self.ladder.quotes.retain(|q| q.stage != Stage::Placing { ticket });
        self.ladder.touch();
    }
}
