//! The simulated market: agents with real accounts that trade through the same doors as everybody.
//!
//! One task: steps, facts and answers go into the agents' [`Core`], its requests go out through the [`doors`]. The agents learn
//! from the facts of the journal, which have their orders and balances as they are; a placing without an answer is
//! looked up.

mod doors;
mod facts;
mod playback;
mod recorded;

use self::{doors::Doors, facts::Known};
use fafnir_market::{Agent, Core, Mood, Request, SESSION_STEPS, STEPS_PER_SECOND};
use fafnir_platform::{
    Context, Error, Result,
    clock::Clock,
    facts::{Projection, follow},
};
use fafnir_proto::{
    subject,
    v1::{Fact, News},
};
use fafnir_rules::{
    calendar::{Calendar, Session},
    limits::NEWS_BPS,
    money::parse_scaled,
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use prost::Message as _;
use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// Name of the caller that the agents are.
pub const NAME: &str = "simulator";
/// Requests under way at a time.
const REQUESTS_MAX: usize = 64;
/// With more requests waiting than this, steps are skipped: the market slows down instead of piling up.
const BACKLOG_MAX: usize = 256;
/// A step at rate 1, microseconds.
const STEP_US: u64 = 1_000_000 / STEPS_PER_SECOND;
/// Timer ticks are not shorter than this: at high rates a tick makes several steps.
const TICK_US_MIN: u64 = 25_000;
/// How long the opening book may take.
const OPENING_DEADLINE: Duration = Duration::from_mins(1);
/// Batches of facts that wait for the agents.
const FACTS_WAITING_MAX: usize = 64;
const RATE_DECIMALS: u32 = 3;
const RATE_MILLI_MAX: i64 = 1_000_000;

/// Steps per timer tick and the time between ticks, for a rate in thousandths.
fn pace(rate_milli: i64) -> (u32, Duration) {
    let rate = rate_milli.clamp(1, RATE_MILLI_MAX).cast_unsigned();
    let step_us = STEP_US * 1_000 / rate;
    let steps = TICK_US_MIN.div_ceil(step_us.max(1)).max(1);
    let tick_us = (STEP_US * 1_000).saturating_mul(steps) / rate;
    (steps as u32, Duration::from_micros(tick_us.max(1)))
}

/// What the agents keep of the facts: nothing, they are handed on.
struct Feed {
    position: AtomicU64,
    facts: mpsc::Sender<Vec<Fact>>,
}

impl Projection for Feed {
    const LINGER: Duration = Duration::ZERO;

    async fn position(&self) -> Result<u64> {
        Ok(self.position.load(Ordering::Relaxed))
    }

    async fn apply(&self, from: u64, facts: Vec<Fact>) -> Result<()> {
        let count = facts.len() as u64;
        self.facts.send(facts).await.map_err(|_| Error::unavailable("the agents have ended"))?;
        self.position.store(from + count, Ordering::Relaxed);
        Ok(())
    }
}

/// News about a symbol that is traded here.
fn hear(payload: &[u8], known: &Known, core: &mut Core) {
    match News::decode(payload) {
        Ok(news) if NEWS_BPS.contains(&news.change_bps) => {
            if let Some(market) = known.markets.get(&news.symbol) {
                tracing::info!(symbol = news.symbol, bps = news.change_bps, "the agents hear news");
                core.news(*market, f64::from(news.change_bps) / 10_000.0);
            }
        }
        Ok(news) => tracing::warn!(symbol = news.symbol, bps = news.change_bps, "news says too much"),
        Err(e) => tracing::warn!(error = %e, "news is undecodable"),
    }
}

/// The hours of the exchange, which give the day its shape.
struct Day {
    calendar: Calendar,
    clock: Clock,
}

impl Day {
    /// Where in a session the market is; `None` where it trades without sessions, or between two.
    fn session_step(&self) -> Option<u64> {
        let now_us = self.clock.now_us();
        if self.calendar.session(now_us) != Session::Regular {
            return None;
        }
        let left_us = self.calendar.next_change_us(now_us)?.checked_sub(now_us)?;
        Some(SESSION_STEPS.saturating_sub(left_us.unsigned_abs() / STEP_US))
    }
}

/// Starts the agents; resolves when the opening book stands.
pub async fn start(ctx: Context) -> anyhow::Result<()> {
    let ctx = Context { service: NAME, ..ctx };
    let sim = &ctx.settings.sim;
    let rate_milli =
        parse_scaled(&sim.rate, RATE_DECIMALS).ok().filter(|r| (1..=RATE_MILLI_MAX).contains(r)).ok_or_else(
            || anyhow::anyhow!("sim.rate must be a number from 0.001 to 1000, it is {:?}", sim.rate),
        )?;
    let mood = Mood::parse(&sim.market).ok_or_else(|| {
        let names = Mood::ALL.map(Mood::name).join(", ");
        anyhow::anyhow!("sim.market must be one of {names}, it is {:?}", sim.market)
    })?;
    let recorded = recorded::start(&ctx, &Doors::new(&ctx, Vec::new())).await?;
    let mut listings = doors::listings(&ctx).await?;
    // A recorded market is its own: no agent trades in it.
    listings.retain(|l| Some(&l.symbol) != recorded.as_ref());
    if listings.is_empty() {
        tracing::warn!("no symbol is listed: the simulated market has nothing to trade");
        return Ok(());
    }
    let doors = Doors::new(&ctx, listings.clone());
    // Followed before anything is read: nothing falls between the two.
    let position = ctx.wait_for("the engine's position", || doors.last_position()).await?;
    let (queue, facts) = mpsc::channel(FACTS_WAITING_MAX);
    let feed = Feed { position: AtomicU64::new(position), facts: queue };
    // Nobody waits for the agents: they are a follower without a name.
    follow(&ctx, &ctx.bus().await?, "", Arc::new(feed)).await?;
    let markets = listings.iter().enumerate().map(|(market, l)| (l.symbol.clone(), market)).collect();
    let known = Known { agents: doors.by_user(), markets };
    let mut core = Core::new(sim.seed, listings, mood);
    let mut agents = doors.set_up(position).await?;
    agents.sort_by_key(|a| a.agent);
    for ready in agents {
        for (market, shares_e4) in ready.shares {
            core.own(ready.agent, market, shares_e4, ready.cash_micros);
        }
        match ready.agent {
            Agent::Maker(market) if !ready.standing.is_empty() => {
                core.adopt(market, ready.standing.into_iter().map(|(_, s)| s).collect(), ready.position);
            }
            Agent::Maker(_) => {}
            Agent::Trader(trader) => {
                for (market, standing) in ready.standing {
                    core.adopt_passive(trader, market, standing.order);
                }
            }
        }
    }
    let symbols = doors.listings().len();
    let day = Day { calendar: ctx.settings.engine.calendar(), clock: ctx.clock.clone() };
    let (stands, standing) = oneshot::channel();
    let news = ctx.bus().await?.subscribe(subject::NEWS.to_owned()).await?;
    ctx.tasks.spawn_until_shutdown(
        "simulated market",
        run(core, doors, known, facts, (pace(rate_milli), day), news, stands),
    );
    match timeout(OPENING_DEADLINE, standing).await {
        Ok(Ok(())) => tracing::info!(symbols, "the simulated market is open"),
        Ok(Err(_)) => anyhow::bail!("the simulated market ended before its book stood"),
        Err(_) => tracing::warn!("the opening book of the simulated market is not complete yet"),
    }
    Ok(())
}

/// Runs the agents for ever.
async fn run(
    mut core: Core,
    doors: Doors,
    known: Known,
    mut facts: mpsc::Receiver<Vec<Fact>>,
    ((steps, tick), day): ((u32, Duration), Day),
    mut news: async_nats::Subscriber,
    stands: oneshot::Sender<()>,
) -> Result<(), Error> {
    let mut stands = Some(stands);
    let mut waiting: VecDeque<Request> = core.open().into();
    let mut under_way = FuturesUnordered::new();
    let mut ticks = interval_at(Instant::now() + tick, tick);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        if core.is_standing()
            && let Some(stands) = stands.take()
        {
            // Whoever waited may have given up.
            let _gone = stands.send(());
        }
        while under_way.len() < REQUESTS_MAX
            && let Some(request) = waiting.pop_front()
        {
            under_way.push(doors.carry_out(request));
        }
        tokio::select! {
            Some(answer) = under_way.next() => {
                if let Some(answer) = answer {
                    core.answer(answer);
                }
            }
            // The follower goes at shutdown only.
            Some(batch) = facts.recv() => {
                for event in batch.iter().flat_map(|fact| known.events(fact)) {
                    core.event(&event);
                }
            }
            Some(message) = news.next() => hear(&message.payload, &known, &mut core),
            _ = ticks.tick() => {
                core.set_session_step(day.session_step());
                for _ in 0..steps {
                    if waiting.len() < BACKLOG_MAX {
                        waiting.extend(core.step());
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_sets_the_pace_and_fast_rates_make_several_steps_a_tick() {
        assert_eq!(pace(1_000), (1, Duration::from_millis(250)));
        assert_eq!(pace(2_000), (1, Duration::from_millis(125)));
        assert_eq!(pace(500), (1, Duration::from_millis(500)));
        let (steps, tick) = pace(100_000);
        assert_eq!((steps, tick), (10, Duration::from_millis(25)));
    }

    #[test]
    fn a_day_with_sessions_has_a_shape_and_one_without_has_none() {
        // 2026-11-30, a Monday: the session is 14:30 to 21:00 UTC.
        let at = |calendar, hour: i64, minute: i64| {
            let now_us = (20_787 * 24 * 60 + hour * 60 + minute) * 60_000_000;
            Day { calendar, clock: Clock::from_fn(move || now_us) }.session_step()
        };
        assert_eq!(at(Calendar::Xnys, 14, 30), Some(0));
        assert_eq!(at(Calendar::Xnys, 20, 59), Some(SESSION_STEPS - 240));
        assert_eq!(at(Calendar::Xnys, 21, 0), None);
        assert_eq!(at(Calendar::Always, 15, 0), None);
    }
}
