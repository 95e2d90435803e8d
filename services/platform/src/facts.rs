//! Following the facts of the one journal: the stream brings them, the engine's fact log fills what it lost.
//!
//! A follower's effect and its position are one transaction. It gathers while nobody waits, and commits at once for a
//! reader who brings a position. Messages of the stream are not acked: the engine's fact log is the copy, and the stored
//! position alone says what is to come. So every replica has every fact; the one that has the lead stores them, the others
//! stand by and take over. Should two ever try, who commits first wins.

mod runner;
#[cfg(test)]
mod tests;
mod traced;

use super::{
    bus::{self, Bus},
    context::Context,
    db::Db,
    error::{Error, Result},
    refusal::Refusal,
};
use bytes::Bytes;
use fafnir_proto::{
    client::POSITION_KEY,
    deadline,
    reason::Reason,
    v1::{Fact, FactBatch, FactsReply, FactsRequest},
};
use prost::Message as _;
use runner::Runner;
use std::{
    convert::Infallible,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Notify, mpsc, watch};

/// Batches of the stream that wait to be gathered; a batch is at most 256 KiB.
const QUEUE_LEN: usize = 64;

/// What a service keeps of the facts.
pub trait Projection: Send + Sync + 'static {
    /// Longest that facts are gathered while nobody waits for them.
    const LINGER: Duration = Duration::from_millis(100);

    /// Where it is stored, so that it follows the facts of one exchange alone; nothing where it is not.
    fn database(&self) -> Option<&Db> {
        None
    }
    /// The last position whose effect is stored.
    fn position(&self) -> impl Future<Output = Result<u64>> + Send;
    /// Stores the effects of facts that follow `from` without a gap, and the new position, in one transaction; refuses
    /// where the stored position is not `from` (another replica was faster). Calls never overlap. An error that is not
    /// transient means that a fact cannot be: the follower stands before it until a person has looked.
    fn apply(&self, from: u64, facts: Vec<Fact>) -> impl Future<Output = Result<()>> + Send;

    /// Hears of facts when they come, before they are stored: each once and in order, on every replica, whether or not it
    /// is the one that stores them. For what is kept in memory beside the tables.
    fn hear(&self, _facts: &[Fact]) {}

    /// Whether this replica is the one that stores facts; becomes it where nobody is.
    fn lead(&self) -> impl Future<Output = Result<bool>> + Send {
        std::future::ready(Ok(true))
    }

    /// Leaves the storing to another replica.
    fn resign(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// A projection that is being kept up. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Follower {
    position: watch::Receiver<u64>,
    readers: Arc<Readers>,
}

/// Who waits for a position.
#[derive(Debug, Default)]
struct Readers {
    waiting: AtomicUsize,
    came: Notify,
}

/// A reader that waits; counted until it is dropped.
struct Reader<'a>(&'a Readers);

impl<'a> Reader<'a> {
    fn new(readers: &'a Readers) -> Self {
        readers.waiting.fetch_add(1, Ordering::Relaxed);
        readers.came.notify_one();
        Self(readers)
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Follower {
    /// A follower of what somebody else keeps up: it stands where `position` says.
    pub fn of(position: watch::Receiver<u64>) -> Self {
        Self { position, readers: Arc::default() }
    }

    /// The position that the projection stands at, from memory.
    pub fn position(&self) -> u64 {
        *self.position.borrow()
    }

    /// Waits until the projection stands at a position; 0 waits for nothing.
    ///
    /// # Errors
    /// UNAVAILABLE with PROJECTION_BEHIND after a second.
    pub async fn wait(&self, position: u64) -> Result<()> {
        let mut stands = self.position.clone();
        if *stands.borrow() >= position {
            return Ok(());
        }
        let _reader = Reader::new(&self.readers);
        // The sender goes at shutdown only: then as good as late.
        if matches!(
            tokio::time::timeout(deadline::at_most(deadline::POSITION), stands.wait_for(|p| *p >= position))
                .await,
            Ok(Ok(_))
        ) {
            return Ok(());
        }
        Err(Refusal::unavailable(
            Reason::PROJECTION_BEHIND,
            format!(
                "what is stored here is at position {}, not yet at {position}; try again",
                self.position()
            ),
        )
        .into())
    }

    /// The same for a request that carries `x-fafnir-position`.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn wait_for<T>(&self, request: &tonic::Request<T>) -> Result<()> {
        let Some(text) = request.metadata().get(POSITION_KEY) else { return Ok(()) };
        let position = text.to_str().ok().and_then(|text| text.parse().ok());
        self.wait(position.ok_or_else(|| Error::internal(format!("{POSITION_KEY} is not a number")))?).await
    }
}

/// Attaches the projection to stream `facts`, catches up from the engine, and keeps both up until shutdown. `name` is
/// the follower's in `FactsRequest`. Waits for the engine as long as it takes.
///
/// # Errors
/// Facts that the projection lacks are gone. A fact that cannot be is no error here: the service comes up, is not
/// ready, and says why.
pub async fn follow<P: Projection>(
    ctx: &Context,
    bus: &Bus,
    name: &'static str,
    projection: Arc<P>,
) -> Result<Follower> {
    let (sender, inbox) = mpsc::channel(QUEUE_LEN);
    // Attached before catching up, so that nothing falls between the two.
    bus.tail(ctx, bus::FACTS, move |message| deliver(sender.clone(), message)).await?;
    let (leader, source) = (Arc::clone(&projection), Engine { ctx: ctx.clone() });
    let (mut runner, follower) = Runner::new(ctx, name, projection, source, inbox).await?;
    runner.start().await?;
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn(format!("{}: facts", ctx.service), async move {
        if let Some(never) = shutdown.run_until_cancelled(runner.run()).await {
            match never {}
        }
        // The next one need not wait until this process and its connections have ended.
        leader.resign().await;
        Ok::<(), Infallible>(())
    });
    Ok(follower)
}

/// Hands a message of the stream to the follower; waits while its queue is full.
async fn deliver(queue: mpsc::Sender<Batch>, message: Bytes) {
    let bytes = message.len();
    // One that cannot be read is a gap: the engine's log has what it held.
    let facts = FactBatch::decode(message).map(|batch| batch.facts).unwrap_or_default();
    // The follower goes at shutdown only.
    let _gone = queue.send(Batch { bytes, facts }).await;
}

/// A message of the stream.
#[derive(Debug)]
struct Batch {
    bytes: usize,
    facts: Vec<Fact>,
}

/// The engine's fact log.
trait Source: Send + Sync + 'static {
    fn facts(&self, request: FactsRequest) -> impl Future<Output = Result<FactsReply>> + Send;
}

struct Engine {
    ctx: Context,
}

impl Source for Engine {
    async fn facts(&self, request: FactsRequest) -> Result<FactsReply> {
        Ok(self.ctx.clients.engine(&self.ctx.system()).facts(request).await?.into_inner())
    }
}
