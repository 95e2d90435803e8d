//! The facts that portfolio-service follows (executions, listings, users) and the private updates that it publishes.

use super::{
    operations,
    settlement::{self, Report},
    store::{self, Outcome},
};
use bytes::Bytes;
use fafnir_platform::{
    Context,
    bus::{self, Bus},
    clock::{Clock, SECOND_US},
    db::{Db, inbox},
    error::{Error, Result},
    executions::{Applied, Projection},
    tasks::{Next, Schedule},
    users,
};
use fafnir_proto::{
    id::UserId,
    subject,
    v1::{Empty, ExecutionBatch, ExecutionsRequest, InstrumentChanged, PortfolioUpdate, SymbolPosition},
};
use fafnir_rules::symbol::Symbol;
use prost::Message as _;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// Updates that wait to be published; what does not fit is found by the next resume.
const UPDATES_WAITING_MAX: usize = 4_096;
/// Users whose last published sequence is remembered.
const USERS_REMEMBERED_MAX: usize = 10_000;
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(10);
/// A closed hold is kept this long for late repetitions.
const HOLD_KEPT_US: i64 = 3_600 * SECOND_US;
const PRUNE_ROWS: u32 = 1_000;
const CLOSING_ROWS: u32 = 100;
/// Batches asked of the engine's journal at once.
const JOURNAL_BATCHES_MAX: u32 = 500;
/// Rounds of [`Settler::catch_up`]: enough for what an engine makes while one request waits.
const JOURNAL_ROUNDS_MAX: u32 = 20;

/// Hands private updates to the publisher after their commit.
#[derive(Debug, Clone)]
pub struct Publisher(mpsc::Sender<PortfolioUpdate>);

impl Publisher {
    /// Starts the task that publishes in the order of each user's sequence.
    pub fn spawn(ctx: &Context, db: Db, bus: Bus) -> Self {
        let (sender, mut waiting) = mpsc::channel::<PortfolioUpdate>(UPDATES_WAITING_MAX);
        ctx.tasks.spawn_until_shutdown("private updates", async move {
            let mut last = HashMap::<String, u64>::new();
            while let Some(update) = waiting.recv().await {
                if let Err(e) = publish(&db, &bus, &mut last, update).await {
                    tracing::debug!(error = %e, "a private update was not published");
                }
            }
            Ok::<(), Error>(())
        });
        Self(sender)
    }

    /// Queues what a transaction changed. Never waits: a client that misses an update sees the gap and resumes.
    pub fn queue(&self, outcome: Outcome) {
        for update in outcome.updates {
            if self.0.try_send(update).is_err() {
                metrics::counter!("fafnir_private_updates_dropped_total").increment(1);
            }
        }
    }
}

/// Publishes an update after those before it: two transactions may arrive here in the other order.
async fn publish(db: &Db, bus: &Bus, last: &mut HashMap<String, u64>, update: PortfolioUpdate) -> Result<()> {
    if last.len() > USERS_REMEMBERED_MAX {
        last.clear();
    }
    let (user, seq) = (update.user_id.clone(), update.user_seq);
    let before = last.get(&user).copied().unwrap_or(seq - 1);
    if seq <= before {
        return Ok(());
    }
    let subject = subject::private_portfolio(&user);
    if seq > before + 1 {
        let id = UserId::parse(&user).map_err(|e| Error::internal(e.to_string()))?;
        let limit = u32::try_from(seq - before - 1).unwrap_or(u32::MAX);
        let page = db.read(move |tx| Ok(store::updates_since(tx, id, before as i64, limit)?)).await?;
        for payload in page.payloads {
            bus.publish(subject.clone(), Bytes::from(payload)).await?;
        }
    }
    bus.publish(subject, Bytes::from(update.encode_to_vec())).await?;
    last.insert(user, seq);
    Ok(())
}

/// Settles executions.
#[derive(Debug, Clone)]
pub struct Settler {
    pub ctx: Context,
    pub db: Db,
    pub publisher: Publisher,
}

impl Settler {
    /// Applies everything that the engine has journaled by now: for a request that depends on what is under way.
    pub async fn catch_up(&self) -> Result<()> {
        for _ in 0..JOURNAL_ROUNDS_MAX {
            let positions = self.positions().await?;
            let positions =
                positions.into_iter().map(|(symbol, seq)| SymbolPosition { symbol, seq }).collect();
            let request = ExecutionsRequest { positions, limit: JOURNAL_BATCHES_MAX };
            let reply = self.ctx.clients.engine(&self.ctx.system()).executions(request).await?.into_inner();
            if reply.batches.is_empty() {
                return Ok(());
            }
            self.apply(reply.batches).await?;
            if !reply.more {
                return Ok(());
            }
        }
        Ok(())
    }
}

impl Projection for Settler {
    async fn positions(&self) -> Result<Vec<(String, u64)>> {
        self.db.read(|tx| Ok(inbox::positions(tx)?)).await
    }

    async fn apply(&self, batches: Vec<ExecutionBatch>) -> Result<Applied> {
        if batches.is_empty() {
            return Ok(Applied::default());
        }
        let (batches, now_us) = (Arc::new(batches), self.ctx.clock.now_us());
        let Report { applied, trades, alarms, outcome } =
            self.db.write(move |tx| settlement::apply(tx, &batches, now_us)).await?;
        metrics::counter!("fafnir_settled_trades_total").increment(trades);
        for (exec_id, cause) in alarms {
            metrics::counter!("fafnir_settlement_alarms_total").increment(1);
            tracing::error!(exec_id, cause, "an execution cannot be settled, it is a dead letter");
        }
        self.publisher.queue(outcome);
        Ok(applied)
    }
}

/// Lists the instruments from their owner, after the stream is followed, so that none is missed.
pub async fn follow_listings(ctx: &Context, db: &Db, bus: &Bus) -> Result<()> {
    let (to, clock) = (db.clone(), ctx.clock.clone());
    let handle = move |facts: Vec<(String, Bytes)>| {
        let (db, clock) = (to.clone(), clock.clone());
        async move { listings_apply(&db, &clock, facts).await }
    };
    bus.follow(ctx, bus::INSTRUMENTS, handle).await?;
    let listed = ctx
        .wait_for("the listings", || async {
            Ok(ctx.clients.stock(&ctx.system()).list_instruments(Empty {}).await?.into_inner())
        })
        .await?;
    db.write(move |tx| {
        for i in &listed.instruments {
            store::instrument_put(tx, &i.symbol, &i.currency, i.version)?;
        }
        Ok(())
    })
    .await
}

async fn listings_apply(db: &Db, clock: &Clock, facts: Vec<(String, Bytes)>) -> Result<()> {
    let now_us = clock.now_us();
    db.write(move |tx| {
        for (subject, payload) in &facts {
            let instrument = InstrumentChanged::decode(payload.clone()).ok().and_then(|f| f.instrument);
            if let Some(i) = instrument.filter(|i| Symbol::parse(&i.symbol).is_ok()) {
                store::instrument_put(tx, &i.symbol, &i.currency, i.version)?;
            } else {
                tracing::error!(subject, "a listing is undecodable");
                inbox::dead_letter_put(tx, subject, payload, "not a listing", now_us)?;
            }
        }
        Ok(())
    })
    .await
}

/// Follows the users: the accounts of one that is gone close.
pub async fn follow_users(ctx: &Context, db: &Db, bus: &Bus, publisher: Publisher) -> Result<()> {
    let (db, clock) = (db.clone(), ctx.clock.clone());
    let handle = move |facts: Vec<(String, Bytes)>| {
        let (db, clock, publisher) = (db.clone(), clock.clone(), publisher.clone());
        async move {
            let now_us = clock.now_us();
            let outcome = db
                .write(move |tx| {
                    let deleted = users::deleted(tx, &facts, now_us)?;
                    let mut s = store::Session::new(tx, now_us);
                    for user in deleted {
                        operations::user_deleted(&mut s, user)?;
                    }
                    Ok(s.finish()?)
                })
                .await?;
            publisher.queue(outcome);
            Ok(())
        }
    };
    bus.follow(ctx, bus::USERS, handle).await
}

/// Every ten seconds: closes accounts whose last order has ended, forgets holds that ended long ago.
pub fn spawn_housekeeping(ctx: &Context, db: Db, publisher: Publisher) {
    let clock = ctx.clock.clone();
    ctx.tasks.every(
        "end of closing accounts and closed holds",
        Schedule::at_once(HOUSEKEEPING_EVERY),
        move || {
            let (db, clock, publisher) = (db.clone(), clock.clone(), publisher.clone());
            async move { Ok::<_, Error>(Next::at_once_if(housekeep(&db, &clock, &publisher).await?)) }
        },
    );
}

/// One round; answers whether there may be more to do at once.
async fn housekeep(db: &Db, clock: &Clock, publisher: &Publisher) -> Result<bool> {
    let now_us = clock.now_us();
    let closing = db.read(|tx| Ok(store::accounts_closing(tx, CLOSING_ROWS)?)).await?;
    if !closing.is_empty() {
        let outcome = db
            .write(move |tx| {
                let mut s = store::Session::new(tx, now_us);
                for account in store::accounts_closing(s.tx, CLOSING_ROWS)? {
                    operations::close_when_idle(&mut s, account)?;
                }
                Ok(s.finish()?)
            })
            .await?;
        publisher.queue(outcome);
    }
    let before_us = now_us - HOLD_KEPT_US;
    let idle = db.read(move |tx| Ok(!store::holds_prunable(tx, before_us)?)).await?;
    if idle {
        return Ok(false);
    }
    let pruned = db.write(move |tx| Ok(store::holds_prune(tx, before_us, PRUNE_ROWS)?)).await?;
    Ok(pruned == u64::from(PRUNE_ROWS))
}
