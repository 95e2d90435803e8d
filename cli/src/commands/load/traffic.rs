//! The clients: each sends one request after another and notes how long the answer took.
//!
//! Closed loop: the next request goes out when the last answer came. Open loop: requests are due on a schedule that
//! all clients share; one that is due while every client still waits counts from when it was due, not from when it was
//! sent, so a stall is in the figures of everything that it delayed (no coordinated omission).

use super::{
    door::{Door, Outcome},
    figures::Figures,
    line::Line,
    users::User,
};
use crate::{args::Scenario, output::Result};
use bytes::Bytes;
use fafnir_rules::money::format_e4;
use fafnir_services::platform::rng::Rng;
use serde_json::Value;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Passive orders of a user that stand at a time; then all are canceled.
const STANDING_MAX: usize = 400;
/// A passive order lies this many per mille under the reference price, or up to [`SPREAD_TICKS`] further.
const BELOW_PER_MILLE: i64 = 100;
const SPREAD_TICKS: u64 = 200;
/// A user whose request failed waits so long: a platform that is down is not hammered.
const FAILED_PAUSE: Duration = Duration::from_millis(100);

const CREATE: &str = "mutation($r:CreateOrderRequest!){op:createOrder(request:$r){code data{id status}}}";
const REPLACE: &str = "mutation($r:ReplaceOrderRequest!){op:replaceOrder(request:$r){code data{id}}}";
const CANCEL: &str = "mutation($o:String!){op:cancelOrder(orderId:$o){code data{id}}}";
const CANCEL_ALL: &str = "mutation{op:cancelAllOrders{code}}";
const QUOTE: &str = "query($s:String!){op:getStockQuote(symbol:$s){code data{symbol price asOf volume}}}";

/// A symbol as the load trades it.
#[derive(Debug, Clone)]
pub struct Listing {
    pub symbol: String,
    /// The symbol in JSON.
    json: String,
    pub tick_e4: i64,
    pub lot_e4: i64,
    pub reference_e4: i64,
    quote: Bytes,
}

impl Listing {
    pub fn new(symbol: &str, tick_e4: i64, lot_e4: i64, reference_e4: i64) -> Self {
        let json = quoted(symbol);
        let quote = body(QUOTE, &format!(r#"{{"s":{json}}}"#));
        Self { symbol: symbol.to_owned(), json, tick_e4, lot_e4, reference_e4, quote }
    }

    /// A limit order for one lot.
    fn limit(&self, price_e4: i64) -> Bytes {
        let (symbol, lot, price) = (&self.json, format_e4(self.lot_e4), format_e4(price_e4));
        let order =
            format!(r#"{{"symbol":{symbol},"side":"BUY","type":"LIMIT","quantity":{lot},"price":{price}}}"#);
        body(CREATE, &format!(r#"{{"r":{order}}}"#))
    }

    /// A market order for one lot.
    pub fn market(&self, sells: bool) -> Bytes {
        let (symbol, lot) = (&self.json, format_e4(self.lot_e4));
        let side = if sells { "SELL" } else { "BUY" };
        let order = format!(r#"{{"symbol":{symbol},"side":"{side}","type":"MARKET","quantity":{lot}}}"#);
        body(CREATE, &format!(r#"{{"r":{order}}}"#))
    }
}

/// The body of a request; `query` holds nothing that JSON escapes, `variables` is JSON.
fn body(query: &str, variables: &str) -> Bytes {
    Bytes::from(format!(r#"{{"query":"{query}","variables":{variables}}}"#))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// What all clients share.
#[derive(Debug)]
pub struct Plan {
    pub scenario: Scenario,
    pub door: Door,
    pub listings: Vec<Listing>,
    /// Between two due times; none in a closed loop.
    pub interval: Option<Duration>,
    pub start: Instant,
    /// What begins earlier is warm-up.
    pub measure_from: Instant,
    pub end: Instant,
    /// Due times given out.
    pub due: AtomicU64,
    /// Requests answered, for the progress bar.
    pub answered: AtomicU64,
    pub stop: CancellationToken,
}

impl Plan {
    /// Waits until the next request may go: the moment from which it counts, or none at the end.
    pub async fn next(&self) -> Option<Instant> {
        let Some(interval) = self.interval else {
            let now = Instant::now();
            return (now < self.end && !self.stop.is_cancelled()).then_some(now);
        };
        let n = self.due.fetch_add(1, Ordering::Relaxed);
        let after = u64::try_from(interval.as_nanos()).unwrap_or(u64::MAX).saturating_mul(n);
        let due = self.start + Duration::from_nanos(after);
        if due >= self.end {
            return None;
        }
        if due <= Instant::now() {
            return (!self.stop.is_cancelled()).then_some(due);
        }
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = self.stop.cancelled() => return None,
        }
        // Free when it was due: a timer that rings late is not the platform's delay.
        Some(Instant::now())
    }

    pub fn measures(&self, began: Instant) -> bool {
        began >= self.measure_from
    }
}

/// One client with the users that only it uses.
#[derive(Debug)]
pub struct Client {
    pub plan: Arc<Plan>,
    pub line: Line,
    pub users: Vec<User>,
    pub rng: Rng,
    pub figures: Figures,
}

impl Client {
    /// Sends until the end; hands the users back.
    pub async fn run(mut self) -> Result<(Vec<User>, Figures)> {
        let mut turn = 0;
        while let Some(began) = self.plan.next().await {
            let Some(at) = self.free_user(turn).await else { break };
            turn = at + 1;
            self.users[at].renew(&self.plan.door).await?;
            match self.plan.scenario {
                Scenario::Quotes => self.quote(at, began).await,
                Scenario::Orders => self.passive(at, began).await,
                Scenario::Mix => self.mix(at, began).await,
                Scenario::RoundTrip => unreachable!("invariant: round trips have a module of their own"),
            }
        }
        Ok((self.users, self.figures))
    }

    /// The next user in turn who may send, waiting for the first if none may.
    async fn free_user(&self, turn: usize) -> Option<usize> {
        let count = self.users.len();
        let now = Instant::now();
        let free = |i: &usize| self.users[*i].not_before.is_none_or(|t| t <= now);
        if let Some(at) = (0..count).map(|i| (turn + i) % count).find(free) {
            return Some(at);
        }
        let (at, when) =
            (0..count).filter_map(|i| Some((i, self.users[i].not_before?))).min_by_key(|(_, t)| *t)?;
        if when >= self.plan.end {
            return None;
        }
        tokio::select! {
            () = tokio::time::sleep_until(when.into()) => Some(at),
            () = self.plan.stop.cancelled() => None,
        }
    }

    async fn operate(&mut self, at: usize, name: &'static str, began: Instant, body: Bytes) -> Outcome {
        let outcome = self.line.operate(&self.users[at].bearer, body).await;
        match &outcome {
            Outcome::Shed(pause) => self.users[at].not_before = Some(Instant::now() + *pause),
            Outcome::Failed(_) => self.users[at].not_before = Some(Instant::now() + FAILED_PAUSE),
            Outcome::Done(_) | Outcome::Refused(_) => {}
        }
        self.plan.answered.fetch_add(1, Ordering::Relaxed);
        if self.plan.measures(began) {
            self.figures.of(name).count(&outcome, began.elapsed());
        }
        outcome
    }

    async fn quote(&mut self, at: usize, began: Instant) {
        let which = self.which();
        let body = self.plan.listings[which].quote.clone();
        self.operate(at, "getStockQuote", began, body).await;
    }

    /// A listing at random.
    fn which(&mut self) -> usize {
        self.rng.index(self.plan.listings.len())
    }

    fn passive_price(&mut self, which: usize) -> i64 {
        let listing = &self.plan.listings[which];
        let below = listing.reference_e4 - listing.reference_e4 / 1_000 * BELOW_PER_MILLE;
        let ticks = below / listing.tick_e4 - self.rng.below(SPREAD_TICKS) as i64;
        ticks.max(1) * listing.tick_e4
    }

    /// A limit order far enough below the market to stand.
    async fn passive(&mut self, at: usize, began: Instant) {
        if self.users[at].open.len() >= STANDING_MAX {
            self.cancel_all(at, began).await;
            return;
        }
        let which = self.which();
        let price = self.passive_price(which);
        let body = self.plan.listings[which].limit(price);
        if let Outcome::Done(Some(id)) = self.operate(at, "createOrder", began, body).await {
            self.users[at].open.push_back((id, which));
        }
    }

    async fn cancel_all(&mut self, at: usize, began: Instant) {
        let outcome = self.operate(at, "cancelAllOrders", began, body(CANCEL_ALL, "{}")).await;
        if matches!(outcome, Outcome::Done(_)) {
            self.users[at].open.clear();
        }
    }

    /// As the common flow: 50 % passive orders, 40 % cancels, 8 % marketable, 2 % replaces.
    async fn mix(&mut self, at: usize, began: Instant) {
        let standing = self.users[at].open.len();
        match self.rng.below(100) {
            50..90 if standing > 0 => {
                let Some((order, _)) = self.users[at].open.pop_front() else { return };
                let body = body(CANCEL, &format!(r#"{{"o":{}}}"#, quoted(&order)));
                self.operate(at, "cancelOrder", began, body).await;
            }
            90..98 => self.marketable(at, began).await,
            98..100 if standing > 0 => {
                let (order, which) = self.users[at].open[self.rng.index(standing)].clone();
                let price = format_e4(self.passive_price(which));
                let order = quoted(&order);
                let body = body(REPLACE, &format!(r#"{{"r":{{"orderId":{order},"price":{price}}}}}"#));
                self.operate(at, "replaceOrder", began, body).await;
            }
            _ => self.passive(at, began).await,
        }
    }

    /// A market order of one lot; every other one sells again what was bought.
    async fn marketable(&mut self, at: usize, began: Instant) {
        let which = self.which();
        let symbol = self.plan.listings[which].symbol.clone();
        let sells = self.users[at].bought.get(&symbol).is_some_and(|n| *n > 0);
        let body = self.plan.listings[which].market(sells);
        if matches!(self.operate(at, "createOrder MARKET", began, body).await, Outcome::Done(_)) {
            let bought = self.users[at].bought.entry(symbol).or_default();
            *bought = if sells { bought.saturating_sub(1) } else { *bought + 1 };
        }
    }
}

/// Takes back what a user has standing.
pub async fn clean(door: &Door, user: &mut User) -> Outcome {
    let outcome = Line::new(door.base()).operate(&user.bearer, body(CANCEL_ALL, "{}")).await;
    user.open.clear();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_bodies_are_the_requests_in_json() {
        let read = |body: Bytes| serde_json::from_slice::<Value>(&body).unwrap();
        let listing = Listing::new("A\"B", 100, 10_000, 1_000_000);
        assert_eq!(read(listing.quote.clone()), json!({"query": QUOTE, "variables": {"s": "A\"B"}}));
        let limit = json!({"symbol": "A\"B", "side": "BUY", "type": "LIMIT", "quantity": 1, "price": 12.34});
        assert_eq!(read(listing.limit(123_400)), json!({"query": CREATE, "variables": {"r": limit}}));
        let market = json!({"symbol": "A\"B", "side": "SELL", "type": "MARKET", "quantity": 1});
        assert_eq!(read(listing.market(true)), json!({"query": CREATE, "variables": {"r": market}}));
        for query in [REPLACE, CANCEL, CANCEL_ALL] {
            assert_eq!(read(body(query, "{}")), json!({"query": query, "variables": {}}));
        }
    }
}
