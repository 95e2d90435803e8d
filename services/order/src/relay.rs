//! The relay: sends commands to the engine in the order of their gapless numbers, until the engine has journaled them.

use super::store::{commands, retention};
use fafnir_platform::{
    clock::{Clock, SECOND_US},
    context::Context,
    db::Db,
    error::{Error, Result},
};
use fafnir_proto::v1::{Empty, EngineCommand, SubmitRequest};
use parking_lot::Mutex;
use std::{
    collections::VecDeque,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};

/// Commands sent in one call.
const BATCH_MAX: usize = 256;
/// Commands kept in memory on their way; what does not fit is read from the table.
const QUEUE_LEN: usize = 4_096;
/// Looks into the table at least this often.
const POLL: Duration = Duration::from_secs(1);
const RETRY: Duration = Duration::from_millis(50);
/// The lease is renewed every third of its life.
const LEASE_US: i64 = 15 * SECOND_US;
const LEASE_RENEW: Duration = Duration::from_secs(5);
/// With a command older than this the platform takes only cancels (reliability.md).
const STUCK_US: i64 = 30 * SECOND_US;
/// Commands without an outcome are forgotten after this.
const SILENT_US: i64 = 600 * SECOND_US;
const FORGET_EVERY: Duration = Duration::from_mins(1);

/// What the gate and the status see of the relay.
#[derive(Debug, Default)]
pub struct RelayState {
    queue: Mutex<VecDeque<EngineCommand>>,
    wake: Notify,
    written: AtomicU64,
    sent: AtomicU64,
    /// When the oldest command that could not be sent was written; 0: none.
    waiting_since_us: AtomicI64,
}

impl RelayState {
    /// Takes commands that are on disk.
    pub fn push(&self, commands: Vec<EngineCommand>) {
        let Some(last) = commands.last().map(|c| c.cmd_seq) else { return };
        self.written.fetch_max(last, Ordering::AcqRel);
        let mut queue = self.queue.lock();
        let room = QUEUE_LEN.saturating_sub(queue.len());
        queue.extend(commands.into_iter().take(room));
        drop(queue);
        self.wake.notify_one();
    }

    /// Number of the last command that the engine has journaled.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Acquire)
    }

    /// Commands written but not journaled by the engine.
    pub fn backlog(&self) -> u64 {
        self.written.load(Ordering::Acquire).saturating_sub(self.sent())
    }

    /// Whether commands have waited for so long that only cancels are taken.
    pub fn is_stuck(&self, now_us: i64) -> bool {
        let since = self.waiting_since_us.load(Ordering::Acquire);
        since != 0 && now_us.saturating_sub(since) > STUCK_US
    }

    /// The next commands from memory, if they begin with number `next`.
    fn take(&self, next: u64) -> Vec<EngineCommand> {
        let mut queue = self.queue.lock();
        while queue.front().is_some_and(|c| c.cmd_seq < next) {
            queue.pop_front();
        }
        let mut batch: Vec<EngineCommand> = Vec::new();
        while batch.len() < BATCH_MAX && queue.front().is_some_and(|c| c.cmd_seq == next + batch.len() as u64)
        {
            batch.extend(queue.pop_front());
        }
        batch
    }
}

struct Relay {
    ctx: Context,
    db: Db,
    clock: Clock,
    state: std::sync::Arc<RelayState>,
    holder: String,
    renewed: Option<Instant>,
    forgot: Instant,
}

/// Learns from the engine where to go on, takes the lease over, and relays until shutdown. Waits for the engine as long
/// as it takes.
pub async fn spawn(ctx: &Context, db: Db, state: std::sync::Arc<RelayState>) -> Result<()> {
    let mut relay = Relay {
        ctx: ctx.clone(),
        db,
        clock: ctx.clock.clone(),
        state,
        holder: uuid::Uuid::new_v4().to_string(),
        renewed: None,
        forgot: Instant::now(),
    };
    ctx.wait_for("the engine", || relay.resume()).await?;
    // The newest instance relays: a crash must not cost the rest of a lease. Two that send at once do no harm, the
    // engine ignores what it has.
    relay.lease(true).await?;
    ctx.tasks.spawn_until_shutdown("command relay", async move {
        relay.run().await;
        Ok::<(), Error>(())
    });
    Ok(())
}

impl Relay {
    async fn resume(&self) -> Result<()> {
        let status = self.ctx.clients.engine(&self.ctx.system()).status(Empty {}).await?.into_inner();
        let engine = status.last_cmd_seq;
        let written = self.db.read(|tx| Ok(commands::last_cmd_seq(tx)?)).await?;
        if engine > written {
            tracing::error!(
                engine,
                written,
                "the engine knows more commands than order-service wrote: going on after them"
            );
            metrics::counter!("fafnir_alarms_total", "kind" => "commands_lost").increment(1);
            self.db.write(move |tx| Ok(commands::last_cmd_seq_raise(tx, engine)?)).await?;
        }
        self.state.sent.store(engine, Ordering::Release);
        self.state.written.fetch_max(written.max(engine), Ordering::AcqRel);
        Ok(())
    }

    async fn lease(&mut self, force: bool) -> Result<bool> {
        if self.renewed.is_some_and(|at| at.elapsed() < LEASE_RENEW) {
            return Ok(true);
        }
        let (holder, now) = (self.holder.clone(), self.clock.now_us());
        let taken = self
            .db
            .write(move |tx| Ok(commands::lease_take(tx, &holder, now, now.saturating_add(LEASE_US), force)?))
            .await?;
        self.renewed = taken.then(Instant::now);
        Ok(taken)
    }

    async fn run(&mut self) {
        let mut look = true;
        loop {
            match self.round(look).await {
                // More may be waiting in memory.
                Ok(true) => look = false,
                Ok(false) => {
                    // Elapsed is the safety net: look into the table.
                    look = tokio::time::timeout(POLL, self.state.wake.notified()).await.is_err();
                }
                Err(e) => {
                    tracing::warn!(error = %e, backlog = self.state.backlog(), "commands wait for the engine");
                    tokio::time::sleep(RETRY).await;
                    look = true;
                }
            }
        }
    }

    /// Sends the next commands. `false`: there were none.
    async fn round(&mut self, look: bool) -> Result<bool> {
        if !self.lease(false).await? {
            return Ok(false);
        }
        metrics::gauge!("fafnir_command_backlog").set(self.state.backlog() as f64);
        let sent = self.state.sent();
        let mut batch = self.state.take(sent + 1);
        let mut since_us = self.clock.now_us();
        if batch.is_empty() && (look || self.state.backlog() > 0) {
            let rows =
                self.db.read(move |tx| Ok(commands::command_list(tx, sent, BATCH_MAX as u32)?)).await?;
            if let Some((_, created_us)) = rows.first() {
                since_us = *created_us;
            }
            batch = rows.into_iter().map(|(command, _)| command).collect();
            if self.forgot.elapsed() > FORGET_EVERY {
                self.forgot = Instant::now();
                let before = self.clock.now_us().saturating_sub(SILENT_US);
                self.forget(sent, before).await?;
            }
        }
        let Some(first) = batch.first() else {
            self.state.waiting_since_us.store(0, Ordering::Release);
            return Ok(false);
        };
        if first.cmd_seq != sent + 1 {
            return Err(Error::internal(format!("command {} follows {sent}: there is a gap", first.cmd_seq)));
        }
        // Set before the call, so that a call that fails for long shows.
        let waiting = &self.state.waiting_since_us;
        let _unchanged = waiting.compare_exchange(0, since_us, Ordering::AcqRel, Ordering::Acquire);
        let request = SubmitRequest { commands: batch };
        match self.ctx.clients.engine(&self.ctx.system()).submit(request).await {
            Ok(reply) => {
                let journaled = reply.into_inner().last_cmd_seq;
                self.state.sent.fetch_max(journaled, Ordering::AcqRel);
                self.state.waiting_since_us.store(0, Ordering::Release);
                Ok(true)
            }
            Err(status) => {
                // What was taken from memory is read from the table again. The engine may have had a part of it.
                let known = self.ctx.clients.engine(&self.ctx.system()).status(Empty {}).await;
                if let Ok(known) = known {
                    self.state.sent.store(known.into_inner().last_cmd_seq, Ordering::Release);
                }
                Err(status.into())
            }
        }
    }

    /// Forgets journaled commands that had no outcome. Not while there is none.
    async fn forget(&self, sent: u64, before_us: i64) -> Result<()> {
        let old = self.db.read(|tx| Ok(commands::command_list(tx, 0, 1)?)).await?;
        if old.first().is_some_and(|(c, at)| c.cmd_seq <= sent && *at < before_us) {
            self.db.write(move |tx| Ok(retention::commands_prune(tx, sent, before_us)?)).await?;
        }
        Ok(())
    }
}
