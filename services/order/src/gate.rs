//! The one writer of commands: collects what arrives while the last commit ran and numbers it in one transaction.

use super::{
    domain,
    relay::RelayState,
    store::commands::{self, Done, Op},
    watch::{Updates, Watchers},
};
use fafnir_platform::{
    agents,
    clock::Clock,
    context::Context,
    db::Db,
    error::{Error, Result},
};
use fafnir_proto::v1::Order;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Decisions that wait. Cancels have a queue of their own: they pass when orders do not.
const QUEUE_LEN: usize = 1_024;
const CANCEL_QUEUE_LEN: usize = 1_024;
/// Decisions in one transaction.
const BATCH_MAX: usize = 256;

type Answer = Result<Result<Done, domain::Error>>;
type Job = (Op, oneshot::Sender<Answer>);

/// The door to the writer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Gate {
    jobs: mpsc::Sender<Job>,
    cancels: mpsc::Sender<Job>,
}

/// What the writer needs.
#[derive(Debug)]
pub struct Writer {
    pub db: Db,
    pub clock: Clock,
    pub watchers: Watchers,
    pub updates: Updates,
    pub relay: Arc<RelayState>,
}

impl Gate {
    /// Starts the writer; it ends at shutdown.
    pub fn spawn(ctx: &Context, writer: Writer) -> Self {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE_LEN);
        let (cancels, mut cancel_queue) = mpsc::channel::<Job>(CANCEL_QUEUE_LEN);
        ctx.tasks.spawn_until_shutdown("order gate", async move {
            loop {
                let first = tokio::select! {
                    biased;
                    job = cancel_queue.recv() => job,
                    job = queue.recv() => job,
                };
                let Some(first) = first else { return Ok::<(), Error>(()) };
                let mut batch = vec![first];
                while batch.len() < BATCH_MAX {
                    match cancel_queue.try_recv().or_else(|_| queue.try_recv()) {
                        Ok(job) => batch.push(job),
                        Err(_) => break,
                    }
                }
                writer.write(batch).await;
            }
        });
        Self { jobs, cancels }
    }

    /// Has one decision carried out, on disk when this answers.
    pub async fn run(&self, op: Op) -> Answer {
        let queue =
            if matches!(op, Op::Cancel { .. } | Op::CancelAll { .. }) { &self.cancels } else { &self.jobs };
        let stopping = || Error::unavailable("the order gate is stopping");
        let (reply, answer) = oneshot::channel();
        queue.send((op, reply)).await.map_err(|_| stopping())?;
        answer.await.map_err(|_| stopping())?
    }
}

impl Writer {
    async fn write(&self, batch: Vec<Job>) {
        let (ops, replies): (Vec<Op>, Vec<_>) = batch.into_iter().unzip();
        let now_us = self.clock.now_us();
        let result = self.db.write(move |tx| Ok(commands::run(tx, &ops, now_us)?)).await;
        match result {
            Ok((answers, written)) => {
                self.relay.push(written);
                for (answer, reply) in answers.into_iter().zip(replies) {
                    if let Ok(Done::Order(order)) = &answer {
                        self.notify(order);
                    }
                    // The caller may have given up.
                    drop(reply.send(Ok(answer)));
                }
            }
            Err(e) => {
                let text = e.to_string();
                for reply in replies {
                    let error =
                        if e.is_transient() { Error::unavailable(&text) } else { Error::internal(&text) };
                    drop(reply.send(Err(error)));
                }
            }
        }
    }

    fn notify(&self, order: &Order) {
        self.watchers.notify(order, None);
        mark(&self.updates, order);
    }
}

/// Marks the owner's updates for publishing; nobody listens for agents.
pub fn mark(updates: &Updates, order: &Order) {
    if order.user_id.parse().is_ok_and(|user| !agents::is_agent(user)) {
        updates.mark(&order.user_id);
    }
}
