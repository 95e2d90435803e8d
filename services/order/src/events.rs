//! The facts of the journal become the read model; agents' ended orders go after a while.

use super::{
    domain::changes::Changes,
    store::{self, projection::Rows, retention},
};
use fafnir_platform::{
    clock::SECOND_US,
    context::Context,
    db::Db,
    error::{Error, Result},
    facts::Projection,
    tasks::{Next, Schedule},
};
use fafnir_proto::v1::Fact;
use std::time::Duration;

/// Ended orders of agents deleted in one transaction, and the pause between two.
const PRUNE_ROWS: u32 = 200;
const PRUNE_PAUSE: Duration = Duration::from_millis(50);
const PRUNE_EVERY: Duration = Duration::from_mins(1);
const HOUR_US: i64 = 3_600 * SECOND_US;

/// The projection of facts into orders, fills and private updates.
#[derive(Debug, Clone)]
pub struct ReadModel(pub Db);

impl Projection for ReadModel {
    fn database(&self) -> Option<&Db> {
        Some(&self.0)
    }

    async fn position(&self) -> Result<u64> {
        Ok(self.0.read(|tx| Ok(store::position(tx)?)).await?.0)
    }

    async fn lead(&self) -> Result<bool> {
        self.0.lead().await
    }

    async fn resign(&self) {
        self.0.resign().await;
    }

    async fn apply(&self, from: u64, facts: Vec<Fact>) -> Result<()> {
        let changes = Changes::read(from, facts).map_err(|e| Error::internal(e.to_string()))?;
        let rows = Rows::new(changes);
        self.0.write(move |tx| rows.write(tx)).await
    }
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
