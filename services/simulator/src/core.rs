//! The agents as a state machine: facts, answers and steps in, requests out. No I/O, no clock; the same seed and the
//! same order of inputs give the same requests.
//!
//! A step is a quarter of a second of market time; `sim.rate` makes steps come faster.

use super::{
    maker::{Need, Quote, Stage},
    market::Market,
};
use fafnir_platform::rng::Rng;
use fafnir_proto::v1::{self, FactKind, Side, TradingState};
use fafnir_rules::money::round_lot;
use std::collections::HashMap;
use uuid::Uuid;

/// Steps in a second of market time.
pub const STEPS_PER_SECOND: u64 = 4;
/// Traders that trade every symbol, beside the maker of each.
pub const TRADERS: usize = 4;
/// Per mille of a trader's order in a step: three a second.
const TRADE_PER_MILLE: u64 = 750;
/// Per mille of a passive order of a trader in a step.
const PASSIVE_PER_MILLE: u64 = 100;
/// Passive orders that stand at a time.
const PASSIVE_MAX: usize = 40;
/// Requests of makers: so many thousandths are saved up in each step, and at most so many at all.
const MAKER_BUDGET_MILLI: i64 = 2_400;
const MAKER_BUDGET_MAX_MILLI: i64 = 12_000;
/// Requests of one maker in one step.
const MAKER_REQUESTS_MAX: usize = 3;
/// What an agent starts with, in quotes: shares of each symbol.
pub const MAKER_QUOTES: i64 = 200;
pub const TRADER_QUOTES: i64 = 60;
/// Cash that an agent starts with in each of its currencies, micros.
pub const MAKER_CASH_MICROS: i64 = 10_000_000 * 1_000_000;
pub const TRADER_CASH_MICROS: i64 = 50_000_000 * 1_000_000;
/// The fair price comes back to its anchor: this part of the distance every so many steps.
const REVERT_STEPS: u64 = 1_024;
const REVERT_PART: i64 = 200;
/// A trade of one quote moves the fair price by this much, thousandths of a tick.
const IMPACT_MILLI: i64 = 120;
/// A trade moves the fair price by at most so many quotes' impact.
const IMPACT_QUOTES_MAX: i64 = 5;
/// After a refusal about the symbol nobody trades in it for so many steps.
const PAUSE_STEPS: u64 = 20;
/// Orders whose answer is not here yet and that traded or ended are kept for so many.
const EARLY_MAX: usize = 4_096;

/// A symbol as the agents see it at the start.
#[derive(Debug, Clone)]
pub struct Listing {
    pub symbol: String,
    pub currency: String,
    pub tick_e4: i64,
    pub lot_e4: i64,
    /// Where the price belongs: the previous close.
    pub anchor_e4: i64,
    /// Where it is: the last trade, else the previous close.
    pub last_e4: i64,
    pub is_open: bool,
}

/// An order that stands already.
#[derive(Debug, Clone)]
pub struct Standing {
    pub order: Uuid,
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
        order: Uuid,
        quantity_e4: i64,
        price_e4: i64,
    },
    Cancel {
        agent: Agent,
        market: usize,
        order: Uuid,
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
        order: Uuid,
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
        order: Uuid,
    },
    /// The order could not be changed: it may have ended, or the symbol is halted.
    ChangeRefused {
        agent: Agent,
        market: usize,
        order: Uuid,
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

#[derive(Debug)]
struct Passive {
    trader: usize,
    market: usize,
    until: u64,
}

/// All agents.
#[derive(Debug)]
pub struct Core {
    rng: Rng,
    step: u64,
    tickets: u64,
    markets: Vec<Market>,
    market_numbers: HashMap<String, usize>,
    agents: HashMap<String, Agent>,
    passive: HashMap<Uuid, Passive>,
    /// Orders that ended, or traded, before the answer to their placing was here.
    early: HashMap<Uuid, Early>,
    budget_milli: i64,
    next_maker: usize,
    weights: u64,
}

#[derive(Debug, Default)]
struct Early {
    filled_e4: i64,
    ended: bool,
}

/// Quotes per side of an opening book.
const LEVELS_STANDING: usize = 10;

impl Core {
    /// `agents` maps user ids to agents.
    pub fn new(seed: u64, listings: Vec<Listing>, agents: HashMap<String, Agent>) -> Self {
        let markets: Vec<Market> = listings.into_iter().map(Market::new).collect();
        Self {
            rng: Rng::new(seed),
            step: 0,
            tickets: 0,
            market_numbers: markets.iter().enumerate().map(|(i, m)| (m.listing.symbol.clone(), i)).collect(),
            agents,
            passive: HashMap::new(),
            early: HashMap::new(),
            budget_milli: MAKER_BUDGET_MAX_MILLI,
            next_maker: 0,
            weights: markets.iter().map(|m| m.weight).sum(),
            markets,
        }
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
        let price = |side| m.ladder.quotes.iter().filter(move |q| q.side == side).map(|q| q.price);
        if let (Some(bid), Some(ask)) = (price(Side::Buy).max(), price(Side::Sell).min()) {
            m.ladder.centre = i64::midpoint(bid, ask);
            m.fair_milli = m.ladder.centre * 1_000;
        }
    }

    /// A trader's order that stands at the start: it is canceled in its time.
    pub fn adopt_passive(&mut self, trader: usize, market: usize, order: Uuid) {
        let until = self.step + self.rng.below(40 * STEPS_PER_SECOND);
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
                let quotes = m.ladder.quotes.iter().filter(|q| q.side == side && !q.order.is_nil());
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
        self.drift();
        if self.rng.chance(TRADE_PER_MILLE) {
            requests.extend(self.trade());
        }
        if self.rng.chance(PASSIVE_PER_MILLE) {
            requests.extend(self.rest());
        }
        requests.extend(self.withdraw());
        self.make(&mut requests);
        requests
    }

    fn drift(&mut self) {
        let reverts = self.step.is_multiple_of(REVERT_STEPS);
        for m in &mut self.markets {
            m.fair_milli += self.rng.normal(m.deviation_milli);
            if reverts {
                m.fair_milli += (m.anchor_milli - m.fair_milli) / REVERT_PART;
            }
            m.fair_milli = m.fair_milli.clamp(m.anchor_milli / 2, m.anchor_milli.saturating_mul(3) / 2);
        }
    }

    fn pick(&mut self) -> Option<usize> {
        let mut at = self.rng.below(self.weights);
        for (market, m) in self.markets.iter().enumerate() {
            if at < m.weight {
                return (m.is_open && m.paused_until <= self.step).then_some(market);
            }
            at -= m.weight;
        }
        None
    }

    /// A trader's side: random, leaning back to what it started with.
    fn side(&mut self, trader: usize, market: usize) -> Side {
        let m = &self.markets[market];
        let target = m.quote_e4 * TRADER_QUOTES;
        let lean = (target - m.trader_shares_e4[trader]).saturating_mul(400) / target.max(1);
        let buys = (500 + lean).clamp(0, 1_000).cast_unsigned();
        if self.rng.chance(buys) { Side::Buy } else { Side::Sell }
    }

    /// Most orders are small, a few take more than the best quote.
    fn quantity(&mut self, market: usize) -> i64 {
        let m = &self.markets[market];
        let part = match self.rng.below(10) {
            0 => self.rng.between(60, 160),
            1..4 => self.rng.between(25, 60),
            _ => self.rng.between(2, 25),
        };
        let lot_e4 = round_lot(m.listing.lot_e4);
        (m.quote_e4 / 100 * part / lot_e4).max(1) * lot_e4
    }

    /// A marketable order: noise, value (back to fair) or momentum (with the move).
    fn trade(&mut self) -> Option<Request> {
        let market = self.pick()?;
        let trader = self.rng.index(TRADERS);
        let quantity_e4 = self.quantity(market);
        let noise = self.side(trader, market);
        let m = &self.markets[market];
        let off = m.last_milli - m.fair_milli;
        let trend = m.last_milli - m.average_milli;
        let side = match trader {
            2 if off.abs() >= 2_000 => {
                if off > 0 {
                    Side::Sell
                } else {
                    Side::Buy
                }
            }
            3 if trend.abs() >= 3_000 => {
                if trend > 0 {
                    Side::Buy
                } else {
                    Side::Sell
                }
            }
            _ => noise,
        };
        let target = m.quote_e4 * TRADER_QUOTES;
        let side = match m.trader_shares_e4[trader] {
            shares if shares < target / 4 => Side::Buy,
            shares if shares > target * 2 => Side::Sell,
            _ => side,
        };
        self.tickets += 1;
        let agent = Agent::Trader(trader);
        Some(Request::Place {
            ticket: self.tickets,
            agent,
            market,
            side,
            quantity_e4,
            price_e4: 0,
            stands: false,
        })
    }

    /// An order that stands a while, behind or at the maker's best.
    fn rest(&mut self) -> Option<Request> {
        if self.passive.len() >= PASSIVE_MAX {
            return None;
        }
        let market = self.pick()?;
        let trader = self.rng.index(TRADERS);
        let side = self.side(trader, market);
        let quantity_e4 = self.quantity(market);
        let away = self.rng.between(1, 4);
        let m = &self.markets[market];
        let price = if side == Side::Buy { m.ladder.centre - away } else { m.ladder.centre + away };
        if price < 1 {
            return None;
        }
        self.tickets += 1;
        Some(Request::Place {
            ticket: self.tickets,
            agent: Agent::Trader(trader),
            market,
            side,
            quantity_e4,
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
        for offset in 0..count {
            if self.budget_milli < 1_000 {
                break;
            }
            let market = (first + offset) % count;
            self.next_maker = (market + 1) % count;
            let m = &mut self.markets[market];
            if !m.is_open || m.paused_until > self.step || m.looking_up {
                continue;
            }
            if m.is_doubtful || m.ladder.is_stuck(self.step) {
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
            let wanted = m.fair_milli + m.skew_milli();
            m.ladder.aim(wanted);
            for _ in 0..MAKER_REQUESTS_MAX {
                let Some(need) = self.markets[market].ladder.need().filter(|_| self.budget_milli >= 1_000)
                else {
                    break;
                };
                self.budget_milli -= 1_000;
                requests.push(self.quote(market, need));
            }
        }
    }

    /// Turns what a ladder needs into a request, and notes that it is on its way.
    fn quote(&mut self, market: usize, need: Need) -> Request {
        let step = self.step;
        let part = self.rng.between(50, 150);
        let m = &mut self.markets[market];
        let lot_e4 = round_lot(m.listing.lot_e4);
        let quantity_e4 = (m.quote_e4 / 100 * part / lot_e4).max(1) * lot_e4;
        let agent = Agent::Maker(market);
        match need {
            Need::Place { side, price } => {
                self.tickets += 1;
                let ticket = self.tickets;
                m.ladder.quotes.push(Quote {
                    order: Uuid::nil(),
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
            Need::Move { quote, price } => {
                let tick_e4 = m.listing.tick_e4;
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
                let early = self.early.remove(&order).unwrap_or_default();
                let ended = !open || early.ended;
                match agent {
                    Agent::Maker(_) => {
                        let m = &mut self.markets[market];
                        let quotes = &mut m.ladder.quotes;
                        let Some(at) = quotes.iter().position(|q| q.stage == Stage::Placing { ticket })
                        else {
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
                        let until = self.step + 10 * STEPS_PER_SECOND + self.rng.below(50 * STEPS_PER_SECOND);
                        self.passive.insert(order, Passive { trader, market, until });
                    }
                    Agent::Trader(_) => {}
                }
            }
            Answer::PlaceRefused { ticket, agent, market } => {
                let m = &mut self.markets[market];
                m.paused_until = self.step + PAUSE_STEPS;
                if let Agent::Maker(_) = agent {
                    m.ladder.quotes.retain(|q| q.stage != Stage::Placing { ticket });
                }
            }
            Answer::PlaceLost { ticket, agent: Agent::Maker(_), market } => {
                let m = &mut self.markets[market];
                m.ladder.quotes.retain(|q| q.stage != Stage::Placing { ticket });
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

    /// Takes what happened.
    pub fn fact(&mut self, fact: &v1::Fact) {
        for update in &fact.balances {
            self.has(update);
        }
        let Some(market) = self.market_numbers.get(&fact.symbol).copied() else { return };
        match fact.kind() {
            FactKind::Executed => self.traded(market, fact),
            FactKind::StateChanged => self.markets[market].is_open = fact.state() == TradingState::Open,
            _ => {}
        }
        for order in fact.orders.iter().filter_map(|update| update.order.as_ref()) {
            self.changed(market, fact.position, order);
        }
    }

    fn traded(&mut self, market: usize, fact: &v1::Fact) {
        let m = &mut self.markets[market];
        m.last_milli = fact.price_e4 * 1_000 / m.listing.tick_e4;
        m.average_milli += (m.last_milli - m.average_milli) / 16;
        let quotes = (fact.quantity_e4 / (m.quote_e4 / 100).max(1)).min(IMPACT_QUOTES_MAX * 100);
        let impact = IMPACT_MILLI * quotes / 100;
        m.fair_milli += match fact.aggressor() {
            Side::Buy => impact,
            Side::Sell => -impact,
            Side::Unspecified => 0,
        };
    }

    /// Cash and shares of an agent, as they are.
    fn has(&mut self, update: &v1::PortfolioUpdate) {
        let Some(agent) = self.agents.get(&update.user_id).copied() else { return };
        if let (Agent::Maker(market), Some(account)) = (agent, &update.account) {
            self.markets[market].maker_cash_micros = account.balance_micros;
        }
        let Some(holding) = &update.holding else { return };
        let Some(market) = self.market_numbers.get(&holding.symbol).copied() else { return };
        let m = &mut self.markets[market];
        match agent {
            Agent::Maker(_) => m.maker_shares_e4 = holding.quantity_e4,
            Agent::Trader(trader) => m.trader_shares_e4[trader] = holding.quantity_e4,
        }
    }

    /// An order as it is after a fact.
    fn changed(&mut self, market: usize, position: u64, order: &v1::Order) {
        let Some(agent) = self.agents.get(&order.user_id).copied() else { return };
        let id = Uuid::parse_str(&order.id).unwrap_or_default();
        let (filled_e4, ended) = (order.filled_e4, order.state().has_ended());
        match agent {
            Agent::Maker(_) => {
                let m = &mut self.markets[market];
                if position <= m.known_until {
                    return;
                }
                let Some(quote) = m.ladder.find(id) else {
                    // Nobody waits for it: its placing was given up.
                    m.is_doubtful |= !ended && !m.ladder.is_placing();
                    return self.note_early(id, filled_e4, ended);
                };
                quote.filled_e4 = filled_e4;
                if ended {
                    m.ladder.quotes.retain(|q| q.order != id);
                }
            }
            Agent::Trader(_) if ended => {
                if self.passive.remove(&id).is_none() {
                    self.note_early(id, filled_e4, true);
                }
            }
            Agent::Trader(_) => {}
        }
    }

    fn note_early(&mut self, order: Uuid, filled_e4: i64, ended: bool) {
        if filled_e4 == 0 && !ended {
            return;
        }
        if self.early.len() >= EARLY_MAX {
            // Most are of immediate orders whose answer came first; a quote that is lost here is looked up.
            self.early.clear();
        }
        self.early.insert(order, Early { filled_e4, ended });
    }

    #[cfg(test)]
    pub(super) fn view(&self, market: usize) -> (&super::maker::Ladder, i64, i64) {
        let m = &self.markets[market];
        (&m.ladder, m.maker_shares_e4 / m.quote_e4, m.fair_milli)
    }
}
