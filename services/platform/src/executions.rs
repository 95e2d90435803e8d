//! Following the engine's execution facts without a gap: the stream brings them, the engine's journal fills what it lost.

use super::{
    bus::{self, Bus},
    context::Context,
    db::{Db, inbox},
    error::{Error, Result},
    tasks::Schedule,
};
use bytes::Bytes;
use fafnir_proto::v1::{Execution, ExecutionBatch, ExecutionsRequest, SymbolPosition};
use prost::Message as _;
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// How often the owner is asked for what the broker may have lost (architecture.md §6).
const RESYNC_EVERY: Duration = Duration::from_secs(10);
/// Batches asked for at once.
const RESYNC_BATCHES_MAX: u32 = 500;

/// What a service keeps of the execution facts.
pub trait Projection: Send + Sync + 'static {
    /// The last applied sequence per symbol.
    fn positions(&self) -> impl Future<Output = Result<Vec<(String, u64)>>> + Send;
    /// Stores the effects and the new positions in one transaction. Calls never overlap.
    fn apply(&self, batches: Vec<ExecutionBatch>) -> impl Future<Output = Result<Applied>> + Send;
}

/// What became of some batches.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Executions that were new.
    pub executions: u64,
    /// A batch was left out because one before it is missing.
    pub gap: bool,
}

/// A batch seen from a position.
#[derive(Debug, PartialEq)]
pub enum Reading<'a> {
    /// These executions follow the position without a gap.
    New(&'a [Execution]),
    /// Applied before.
    Seen,
    /// Something between the position and the batch is missing.
    Gap,
}

/// Compares a batch (in sequence order) with the last applied sequence of its symbol.
pub fn read(last: u64, executions: &[Execution]) -> Reading<'_> {
    let start = executions.partition_point(|e| e.seq <= last);
    let new = &executions[start..];
    match new.first() {
        None => Reading::Seen,
        Some(first) if first.seq == last.saturating_add(1) => Reading::New(new),
        Some(_) => Reading::Gap,
    }
}

struct Follower<P> {
    ctx: Context,
    db: Db,
    projection: Arc<P>,
    turn: Mutex<()>,
}

/// Attaches the projection to stream `orders`, catches up from the engine's journal, and keeps both up until shutdown.
/// Waits for the engine as long as it takes.
pub async fn follow<P: Projection>(ctx: &Context, db: &Db, bus: &Bus, projection: Arc<P>) -> Result<()> {
    let follower = Arc::new(Follower { ctx: ctx.clone(), db: db.clone(), projection, turn: Mutex::new(()) });
    let this = Arc::clone(&follower);
    // Attached before catching up, so that nothing falls between the two.
    bus.follow(ctx, bus::ORDERS, move |facts| {
        let this = Arc::clone(&this);
        async move { this.deliver(facts).await }
    })
    .await?;
    ctx.wait_for("the engine", || follower.resync()).await?;
    let name = format!("{}: resync of executions", ctx.service);
    ctx.tasks.every(name, Schedule::after(RESYNC_EVERY), move || {
        let follower = Arc::clone(&follower);
        async move { follower.resync().await }
    });
    Ok(())
}

impl<P: Projection> Follower<P> {
    async fn deliver(&self, facts: Vec<(String, Bytes)>) -> Result<()> {
        let mut batches = Vec::with_capacity(facts.len());
        for (subject, payload) in facts {
            match ExecutionBatch::decode(payload.clone()) {
                Ok(batch) => batches.push(batch),
                Err(e) => {
                    tracing::error!(service = self.ctx.service, subject, error = %e, "an execution fact is undecodable");
                    let (now, error) = (self.ctx.clock.now_us(), e.to_string());
                    self.db
                        .write(move |tx| Ok(inbox::dead_letter_put(tx, &subject, &payload, &error, now)?))
                        .await?;
                }
            }
        }
        let applied = {
            let _turn = self.turn.lock().await;
            self.projection.apply(batches).await?
        };
        if applied.gap {
            tracing::info!(
                service = self.ctx.service,
                "a gap in the execution facts: reading the engine's journal"
            );
            self.resync().await?;
        }
        Ok(())
    }

    /// Applies everything that the engine's journal has after our positions.
    async fn resync(&self) -> Result<()> {
        let _turn = self.turn.lock().await;
        loop {
            let positions = self.projection.positions().await?;
            let positions =
                positions.into_iter().map(|(symbol, seq)| SymbolPosition { symbol, seq }).collect();
            let request = ExecutionsRequest { positions, limit: RESYNC_BATCHES_MAX };
            let reply = self.ctx.clients.engine(&self.ctx.system()).executions(request).await?.into_inner();
            if reply.batches.is_empty() {
                return Ok(());
            }
            let applied = self.projection.apply(reply.batches).await?;
            if applied.gap {
                return Err(Error::internal("the engine's journal has a gap after our position"));
            }
            if !reply.more || applied.executions == 0 {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_new_seen_or_after_a_gap() {
        let batch: Vec<Execution> = (5..8).map(|seq| Execution { seq, ..Execution::default() }).collect();
        assert_eq!(read(4, &batch), Reading::New(&batch[..]));
        assert_eq!(read(5, &batch), Reading::New(&batch[1..]));
        assert_eq!(read(7, &batch), Reading::Seen);
        assert_eq!(read(9, &batch), Reading::Seen);
        assert_eq!(read(3, &batch), Reading::Gap);
        assert_eq!(read(0, &[]), Reading::Seen);
    }
}
