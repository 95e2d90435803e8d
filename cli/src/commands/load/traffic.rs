//! The clients: each sends one request after another and notes how long the answer took.
//!
//! Closed loop: the next request goes out when the last answer came. Open loop: requests are due on a schedule that
//! all clients share; one that is due while every client still waits counts from when it was due, not from when it was
//! sent, so a stall is in the figures of everything that it delayed (no coordinated omission).

use super::{
    ask::{Ask, Way},
    door::{Door, Outcome},
    figures::Figures,
    line::Line,
    users::User,
};
use crate::{args::Scenario, output::Result};
use fafnir_services::platform::rng::Rng;
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

/// A symbol as the load trades it.
#[derive(Debug, Clone)]
pub struct Listing {
    pub symbol: String,
    pub tick_e4: i64,
    pub lot_e4: i64,
    pub reference_e4: i64,
}

impl Listing {
    pub fn new(symbol: &str, tick_e4: i64, lot_e4: i64, reference_e4: i64) -> Self {
        Self { symbol: symbol.to_owned(), tick_e4, lot_e4, reference_e4 }
    }
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
    pub way: Way,
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

    async fn operate(&mut self, at: usize, name: &'static str, began: Instant, ask: Ask<'_>) -> Outcome {
        let outcome = self.way.ask(&self.users[at].bearer, ask).await;
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
        let plan = Arc::clone(&self.plan);
        self.operate(at, "getStockQuote", began, Ask::Quote(&plan.listings[which])).await;
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
        let plan = Arc::clone(&self.plan);
        let ask = Ask::Limit(&plan.listings[which], price);
        if let Outcome::Done(Some(id)) = self.operate(at, "createOrder", began, ask).await {
            self.users[at].open.push_back((id, which));
        }
    }

    async fn cancel_all(&mut self, at: usize, began: Instant) {
        let outcome = self.operate(at, "cancelAllOrders", began, Ask::CancelAll).await;
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
                self.operate(at, "cancelOrder", began, Ask::Cancel(&order)).await;
            }
            90..98 => self.marketable(at, began).await,
            98..100 if standing > 0 => {
                let (order, which) = self.users[at].open[self.rng.index(standing)].clone();
                let price_e4 = self.passive_price(which);
                self.operate(at, "replaceOrder", began, Ask::Replace(&order, price_e4)).await;
            }
            _ => self.passive(at, began).await,
        }
    }

    /// A market order of one lot; every other one sells again what was bought.
    async fn marketable(&mut self, at: usize, began: Instant) {
        let which = self.which();
        let symbol = self.plan.listings[which].symbol.clone();
        let sells = self.users[at].bought.get(&symbol).is_some_and(|n| *n > 0);
        let plan = Arc::clone(&self.plan);
        let ask = Ask::Market(&plan.listings[which], sells);
        if matches!(self.operate(at, "createOrder MARKET", began, ask).await, Outcome::Done(_)) {
            let bought = self.users[at].bought.entry(symbol).or_default();
            *bought = if sells { bought.saturating_sub(1) } else { *bought + 1 };
        }
    }
}

/// Takes back what a user has standing.
pub async fn clean(door: &Door, user: &mut User) -> Outcome {
    let mut way = Way::Graphql(Box::new(Line::new(door.gateway())));
    let outcome = way.ask(&user.bearer, Ask::CancelAll).await;
    user.open.clear();
    outcome
}
