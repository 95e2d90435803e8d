//! Facts that order-service follows: executions become the read model, a deleted user's orders end; and what is
//! repeated or pruned in the background.

use super::{
    gate,
    market::Market,
    place::Core,
    store::{self, projection, retention},
    watch::{Updates, Watchers},
};
use fafnir_platform::{
    bus::{self, Bus},
    clock::{Clock, SECOND_US},
    context::Context,
    db::{Db, inbox},
    error::{Error, Result},
    executions::{Applied, Projection},
    tasks::{Next, Schedule},
    users,
};
use fafnir_proto::v1::ExecutionBatch;
use std::time::Duration;

/// Orders that wait for their hold are tried again this often, when they are older than this.
const RECOVER_EVERY: Duration = Duration::from_secs(5);
const RECOVER_AGE_US: i64 = 5 * SECOND_US;
const RECOVER_BATCH: u32 = 256;
/// Ended orders of agents deleted in one transaction, and the pause between two.
const PRUNE_ROWS: u32 = 200;
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
const PRUNE_EVERY: Duration = Duration::from_mins(1);
const HOUR_US: i64 = 3_600 * SECOND_US;

/// The projection of executions into orders and fills.
#[derive(Debug, Clone)]
pub struct ReadModel {
    pub db: Db,
    pub clock: Clock,
    pub market: Market,
    pub watchers: Watchers,
    pub updates: Updates,
}

impl Projection for ReadModel {
    async fn positions(&self) -> Result<Vec<(String, u64)>> {
        self.db.read(|tx| Ok(inbox::positions(tx)?)).await
    }

    async fn apply(&self, batches: Vec<ExecutionBatch>) -> Result<Applied> {
        if batches.is_empty() {
            return Ok(Applied::default());
        }
        let now_us = self.clock.now_us();
        let learned = self.db.write(move |tx| Ok(projection::apply(tx, &batches, now_us)?)).await?;
        self.market.traded(learned.last_trades);
        for alarm in learned.alarms {
            tracing::error!(alarm, "an execution contradicts the orders and was put away");
            metrics::counter!("fafnir_alarms_total", "kind" => "execution").increment(1);
        }
        for (order, refused) in learned.orders {
            gate::mark(&self.updates, &order);
            self.watchers.notify(&order, refused);
        }
        Ok(learned.applied)
    }
}

/// Follows `users`: a deleted user's orders are canceled.
pub async fn follow_users(ctx: &Context, bus: &Bus, core: &Core) -> Result<()> {
    let core = core.clone();
    bus.follow(ctx, bus::USERS, move |facts| {
        let (core, now_us) = (core.clone(), core.ctx.clock.now_us());
        async move {
            for user in core.db.write(move |tx| users::deleted(tx, &facts, now_us)).await? {
                let orders = core.cancel_all(user, String::new()).await?;
                tracing::info!(%user, orders, "the user was deleted, the open orders end");
            }
            Ok(())
        }
    })
    .await
}

/// Repeats hold and accept for orders (and replaces) that a crash or an absent portfolio-service left on the way.
async fn recover(core: &Core, age_us: i64) -> Result<()> {
    let before = core.ctx.clock.now_us().saturating_sub(age_us);
    let (orders, replaces) = core
        .db
        .read(move |tx| {
            let orders = store::order_unaccepted(tx, before, RECOVER_BATCH)?;
            let mut replaces = Vec::new();
            for replace in store::replace_unsent(tx, RECOVER_BATCH)? {
                if let Some(entry) = store::order_get(tx, &replace.order_id)?
                    && entry.order.updated_us <= before
                {
                    replaces.push((entry, replace));
                }
            }
            Ok((orders, replaces))
        })
        .await?;
    for entry in orders {
        let id = &entry.order.id;
        match core.finish(&entry).await {
            Ok(order) => tracing::info!(order = id, state = order.state, "a pending order went on"),
            // The next one would wait as long.
            Err(e) if e.is_transient() => return Err(e),
            Err(e) => tracing::error!(order = id, error = %e, "a pending order cannot go on"),
        }
    }
    for (entry, replace) in replaces {
        let id = &replace.order_id;
        match core.finish_replace(&entry, &replace).await {
            Ok(_) => tracing::info!(order = id, "a pending replace went on"),
            Err(e) if e.is_transient() => return Err(e),
            Err(e) => tracing::info!(order = id, error = %e, "a pending replace was taken back"),
        }
    }
    Ok(())
}

/// Recovers once now, then goes on until shutdown.
pub async fn spawn_recovery(ctx: &Context, core: Core) {
    if let Err(e) = recover(&core, 0).await {
        tracing::warn!(error = %e, "pending orders wait");
    }
    ctx.tasks.every("recovery of pending orders", Schedule::after(RECOVER_EVERY), move || {
        let core = core.clone();
        async move { recover(&core, RECOVER_AGE_US).await }
    });
}

/// Deletes agents' ended orders with their fills after the configured time, in small batches.
pub fn spawn_retention(ctx: &Context, db: Db) {
    let clock = ctx.clock.clone();
    let keep_us = i64::from(ctx.settings.order.agent_retention_h).saturating_mul(HOUR_US);
    ctx.tasks.every("pruning of agents' orders", Schedule::at_once(PRUNE_EVERY), move || {
        let (db, before) = (db.clone(), clock.now_us().saturating_sub(keep_us));
        async move {
            let pruned = db.write(move |tx| Ok(retention::agents_prune(tx, before, PRUNE_ROWS)?)).await?;
            let is_more = pruned == u64::from(PRUNE_ROWS);
            Ok::<_, Error>(if is_more { Next::After(PRUNE_PAUSE) } else { Next::Scheduled })
        }
    });
}
