//! The follower's own task: gathers, commits, fills gaps, tells the engine where it stands.

use super::traced::Traced;
use super::{Batch, Follower, Projection, Readers, Source};
use crate::{
    context::Context,
    error::{Error, Result},
    health::Health,
};
use fafnir_proto::v1::{Fact, FactsReply, FactsRequest};
use std::{
    convert::Infallible,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep, sleep_until},
};
use uuid::Uuid;

/// Facts in one commit, and in one answer of the engine.
pub(super) const FACTS_MAX: usize = 2048;
/// Bytes of facts, as they were encoded, in one commit.
const GATHER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How often the engine is told where the follower stands.
const REPORT_EVERY: Duration = Duration::from_secs(1);
/// A reader waits and the stream brings nothing: the engine is asked so often.
const ASK_EVERY: Duration = Duration::from_millis(50);
/// How often one that stands by looks at the stored position; sooner while a reader waits.
const STANDBY_LOOK: Duration = Duration::from_millis(100);
const STANDBY_LOOK_READER: Duration = Duration::from_millis(10);
/// The stored position stands still for so long: whoever moved it is gone, or there is nothing to do.
const STANDBY_MAX: Duration = Duration::from_secs(1);
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_millis(250);
/// What only a person can help with is tried again so often: the repair needs no restart then.
const STUCK_RETRY: Duration = Duration::from_secs(5);
/// How often trouble that lasts is told again.
const ALARM_EVERY: Duration = Duration::from_secs(30);

/// Why a follower does not come forward.
#[derive(Debug)]
pub(super) enum Trouble {
    /// Trying again can help.
    Later(Error),
    /// Facts after the position are no longer kept, or the log is not the one that the projection came from.
    Gone(String),
    /// A fact that cannot be.
    Impossible(String),
}

impl From<Error> for Trouble {
    fn from(e: Error) -> Self {
        Self::Later(e)
    }
}

pub(super) struct Runner<P, S> {
    service: &'static str,
    name: &'static str,
    health: Health,
    projection: Arc<P>,
    source: S,
    inbox: mpsc::Receiver<Batch>,
    /// What the projection stands at; its readers see it.
    position: watch::Sender<u64>,
    readers: Arc<Readers>,
    /// Facts that follow the position without a gap.
    gathered: Vec<Fact>,
    gathered_bytes: usize,
    /// The last position that the projection has heard of.
    heard: u64,
    /// While it stands by, something after that was missed.
    missed: bool,
    /// When the first of them came.
    since: Instant,
    /// Something after what was gathered is missing.
    gap: bool,
    /// Facts up to here are applied one by one: one of them could not be.
    careful_until: u64,
    /// Another replica stores the facts; until when it is left the work though nothing comes of it.
    standby_until: Option<Instant>,
    /// Who has the lead does nothing: facts are stored without it.
    unled: bool,
    report_due: Instant,
    ask_due: Instant,
    retry: Duration,
    alarm_due: Option<Instant>,
    /// Id of the exchange that it follows, once that has told it.
    exchange: String,
}

impl<P: Projection, S: Source> Runner<P, S> {
    pub(super) async fn new(
        ctx: &Context,
        name: &'static str,
        projection: Arc<P>,
        source: S,
        inbox: mpsc::Receiver<Batch>,
    ) -> Result<(Self, Follower)> {
        let stored = ctx.wait_for("the projection's position", async || projection.position().await).await?;
        Ok(Self::at(stored, ctx.service, name, ctx.health.clone(), projection, source, inbox))
    }

    pub(super) fn at(
        stored: u64,
        service: &'static str,
        name: &'static str,
        health: Health,
        projection: Arc<P>,
        source: S,
        inbox: mpsc::Receiver<Batch>,
    ) -> (Self, Follower) {
        let (position, stands) = watch::channel(stored);
        let readers = Arc::new(Readers::default());
        let follower = Follower { position: stands, readers: Arc::clone(&readers) };
        let now = Instant::now();
        let runner = Self {
            service,
            name,
            health,
            projection,
            source,
            inbox,
            position,
            readers,
            gathered: Vec::new(),
            gathered_bytes: 0,
            heard: stored,
            missed: false,
            since: now,
            gap: false,
            careful_until: 0,
            standby_until: None,
            unled: false,
            report_due: now,
            ask_due: now,
            retry: RETRY_MIN,
            alarm_due: None,
            exchange: String::new(),
        };
        (runner, follower)
    }

    /// Catches up for the first time.
    ///
    /// # Errors
    /// Facts that the projection lacks are gone, or the engine refuses.
    pub(super) async fn start(&mut self) -> Result<()> {
        loop {
            match self.catch_up().await {
                Ok(()) => {
                    self.well();
                    return Ok(());
                }
                Err(Trouble::Later(e)) if e.is_transient() => {
                    self.troubled(&Trouble::Later(e));
                    sleep(self.retry).await;
                    self.retry = (self.retry * 2).min(RETRY_MAX);
                }
                Err(Trouble::Later(e)) => return Err(e),
                Err(Trouble::Gone(sentence)) => return Err(Error::internal(sentence)),
                Err(trouble @ Trouble::Impossible(_)) => {
                    self.troubled(&trouble);
                    return Ok(());
                }
            }
        }
    }

    /// Follows for ever.
    pub(super) async fn run(mut self) -> Infallible {
        loop {
            match self.turn().await {
                Ok(()) => self.well(),
                Err(trouble) => {
                    self.troubled(&trouble);
                    let pause = match trouble {
                        Trouble::Later(_) => self.retry,
                        Trouble::Gone(_) | Trouble::Impossible(_) => STUCK_RETRY,
                    };
                    self.retry = (self.retry * 2).min(RETRY_MAX);
                    sleep(pause).await;
                }
            }
        }
    }

    /// One step: what is due, else the next thing that comes.
    async fn turn(&mut self) -> Result<(), Trouble> {
        if self.standby_until.is_some() {
            return self.stand_by().await;
        }
        if self.gap {
            return self.catch_up().await;
        }
        if self.is_full() || !self.gathered.is_empty() && self.commit_due() <= Instant::now() {
            return self.commit().await;
        }
        if self.report_due <= Instant::now() {
            return self.report().await;
        }
        if self.is_awaited() && self.ask_due <= Instant::now() {
            return self.catch_up().await;
        }
        self.input().await;
        Ok(())
    }

    /// Waits for a batch, a reader, or the next thing that is due.
    async fn input(&mut self) {
        let mut due = self.report_due;
        if !self.gathered.is_empty() {
            due = due.min(self.commit_due());
        }
        if self.is_awaited() {
            due = due.min(self.ask_due);
        }
        tokio::select! {
            biased;
            Some(batch) = self.inbox.recv() => self.take(batch),
            () = self.readers.came.notified() => self.ask_due = Instant::now() + ASK_EVERY,
            () = sleep_until(due) => return,
        }
        while !self.is_full()
            && !self.gap
            && let Ok(batch) = self.inbox.try_recv()
        {
            self.take(batch);
        }
    }

    /// Gathers what follows; what is known already is dropped, what comes after a gap too.
    fn take(&mut self, batch: Batch) {
        let mut next = self.next();
        let (Some(first), Some(last)) = (batch.facts.first(), batch.facts.last()) else {
            self.gap = true;
            return;
        };
        if last.position < next {
            return;
        }
        if first.position > next {
            tracing::info!(service = self.service, at = next, from = first.position, "facts are missing");
            self.gap = true;
            return;
        }
        if self.gathered.is_empty() {
            self.since = Instant::now();
        }
        self.gathered_bytes += batch.bytes;
        let known = self.gathered.len();
        for fact in batch.facts {
            if fact.position < next {
                continue;
            }
            if fact.position > next {
                self.gap = true;
                break;
            }
            self.gathered.push(fact);
            next += 1;
        }
        self.heard = tell(&*self.projection, self.heard, &self.gathered[known..]);
    }

    /// What the stream brings to one that stands by.
    fn overhear(&mut self, batch: &Batch) {
        let follows = batch.facts.first().is_some_and(|fact| fact.position <= self.heard + 1);
        if follows && !self.missed {
            self.heard = tell(&*self.projection, self.heard, &batch.facts);
        } else {
            self.missed = true;
        }
    }

    /// Hears what was missed, from the engine.
    async fn hear_missed(&mut self) -> Result<(), Trouble> {
        while self.missed {
            let limit = u32::try_from(FACTS_MAX).unwrap_or(u32::MAX);
            let request = FactsRequest { after: self.heard, limit, ..Default::default() };
            let reply = self.source.facts(request).await?;
            if reply.oldest > self.heard.saturating_add(1) {
                // What is kept in memory is as old as the last start of this replica.
                self.heard = reply.oldest - 1;
                continue;
            }
            self.heard = tell(&*self.projection, self.heard, &reply.facts);
            self.missed = self.heard < reply.last && !reply.facts.is_empty();
        }
        Ok(())
    }

    /// Everything that the engine's fact log has after the position.
    async fn catch_up(&mut self) -> Result<(), Trouble> {
        self.commit().await?;
        loop {
            let reply = self.ask(FACTS_MAX).await?;
            let last = reply.last;
            self.gap = false;
            if reply.facts.is_empty() {
                return Ok(());
            }
            self.take(Batch { bytes: 0, facts: reply.facts });
            if self.gap {
                return Err(Error::internal("the engine's fact log has a gap after our position").into());
            }
            self.commit().await?;
            if self.standby_until.is_some() || (!self.gap && self.position() >= last) {
                return Ok(());
            }
        }
    }

    /// Tells the engine where the follower stands. Where the stream brings nothing, it may be lost: the answer tells.
    async fn report(&mut self) -> Result<(), Trouble> {
        if self.gathered.is_empty() && self.inbox.is_empty() {
            return self.catch_up().await;
        }
        self.ask(1).await.map(drop)
    }

    async fn ask(&mut self, limit: usize) -> Result<FactsReply, Trouble> {
        let now = Instant::now();
        (self.report_due, self.ask_due) = (now + REPORT_EVERY, now + ASK_EVERY);
        let after = self.position();
        let limit = u32::try_from(limit).unwrap_or(u32::MAX);
        let request = FactsRequest { after, limit, follower: self.name.to_owned() };
        let reply = self.source.facts(request).await?;
        self.check_exchange(&reply.exchange).await?;
        if reply.oldest > after.saturating_add(1) {
            return Err(Trouble::Gone(format!(
                "{} stands at position {after}, and the facts before {} are gone: run fafnir rebuild --from BACKUP",
                self.service, reply.oldest
            )));
        }
        if reply.last < after {
            return Err(Trouble::Gone(format!(
                "{} stands at position {after}, the journal of the exchange at {}: they are not of one data \
                 directory, or one is an old copy",
                self.service, reply.last
            )));
        }
        Ok(reply)
    }

    /// The engine's facts are those of the exchange that the projection came from.
    async fn check_exchange(&mut self, told: &str) -> Result<(), Trouble> {
        if self.exchange == told || told.is_empty() {
            return Ok(());
        }
        let exchange = Uuid::parse_str(told).map_err(|_| Error::internal("the exchange's id is no UUID"))?;
        let follows = match self.projection.database() {
            Some(db) => db.follows(exchange).await?,
            None => exchange,
        };
        if follows != exchange {
            return Err(Trouble::Gone(format!(
                "{} follows exchange {follows}, and the engine is exchange {exchange}: they are not of one data directory; \
                 put back the one that belongs to the other, or restore a backup",
                self.service
            )));
        }
        told.clone_into(&mut self.exchange);
        Ok(())
    }

    /// Stores what was gathered.
    async fn commit(&mut self) -> Result<(), Trouble> {
        let facts = std::mem::take(&mut self.gathered);
        self.gathered_bytes = 0;
        if facts.first().is_some_and(|fact| fact.position <= self.careful_until) {
            for fact in facts {
                if fact.position == self.position() + 1 {
                    self.apply(vec![fact]).await?;
                }
            }
            return Ok(());
        }
        if facts.is_empty() { Ok(()) } else { self.apply(facts).await }
    }

    async fn apply(&mut self, facts: Vec<Fact>) -> Result<(), Trouble> {
        if !self.leads().await? {
            // They come again from the engine's log, after a takeover.
            self.gap = true;
            self.stand_back();
            return Ok(());
        }
        let (from, count) = (self.position(), facts.len() as u64);
        let last = from + count;
        let kind = facts.first().map(Fact::kind);
        let traced = match self.projection.database() {
            Some(_) => Traced::of(self.service, &facts),
            None => Traced::default(),
        };
        let Err(e) = self.projection.apply(from, facts).await else {
            traced.applied();
            metrics::counter!("fafnir_facts_applied_total", "service" => self.service, "stream" => "facts")
                .increment(count);
            self.position.send_replace(last);
            return Ok(());
        };
        // They come again from the engine's log, after the position that is stored.
        self.gap = true;
        let stored = self.projection.position().await?;
        if stored != from {
            tracing::debug!(service = self.service, from, stored, "another replica stores the facts");
            self.position.send_replace(stored);
            self.unled = false;
            self.projection.resign().await;
            self.stand_back();
            return Ok(());
        }
        if e.is_transient() {
            return Err(e.into());
        }
        if count > 1 {
            // The one that cannot be is found one by one.
            self.careful_until = last;
            return Ok(());
        }
        Err(Trouble::Impossible(format!(
            "{}: the fact at position {last} ({}) cannot be applied: {e}; it is never skipped; restore a backup, or run \
             fafnir rebuild",
            self.service,
            kind.map_or("?", |kind| kind.as_str_name())
        )))
    }

    /// Whether this replica stores facts.
    async fn leads(&mut self) -> Result<bool> {
        if self.projection.lead().await? {
            self.unled = false;
            return Ok(true);
        }
        Ok(self.unled)
    }

    fn stand_back(&mut self) {
        self.standby_until = Some(Instant::now() + STANDBY_MAX);
    }

    /// Another replica stores the facts: looks how far it is. Takes over where it has gone, which gives the lead back, or
    /// stands still though there is something to do.
    async fn stand_by(&mut self) -> Result<(), Trouble> {
        let look = if self.is_awaited() { STANDBY_LOOK_READER } else { STANDBY_LOOK };
        let look = Instant::now() + look;
        loop {
            tokio::select! {
                // What is missing after a takeover is read from the engine.
                Some(batch) = self.inbox.recv() => self.overhear(&batch),
                () = sleep_until(look) => break,
            }
        }
        self.hear_missed().await?;
        let stored = self.projection.position().await?;
        if stored != self.position() {
            self.position.send_replace(stored);
            self.stand_back();
            return Ok(());
        }
        let is_free = self.projection.lead().await?;
        let is_over = self.standby_until.is_none_or(|until| until <= Instant::now());
        if !is_free && (!is_over || self.ask(1).await?.last <= stored) {
            return Ok(());
        }
        tracing::info!(service = self.service, stored, is_free, "no other replica stores facts");
        self.unled = !is_free;
        self.standby_until = None;
        self.gap = true;
        Ok(())
    }

    /// All is well again.
    fn well(&mut self) {
        self.retry = RETRY_MIN;
        // While the one that cannot be is looked for, nothing is well yet.
        if !self.gap && self.alarm_due.take().is_some() {
            tracing::info!(
                service = self.service,
                position = self.position(),
                "the facts are followed again"
            );
            self.health.recovered();
        }
    }

    pub(super) fn troubled(&mut self, trouble: &Trouble) {
        self.gap = true;
        let now = Instant::now();
        let loud = self.alarm_due.is_none_or(|due| due <= now);
        if loud {
            self.alarm_due = Some(now + ALARM_EVERY);
        }
        match trouble {
            Trouble::Later(e) if loud => {
                tracing::warn!(service = self.service, error = %e, "the facts are not followed just now");
            }
            Trouble::Later(e) => tracing::debug!(service = self.service, error = %e, "facts: trying again"),
            Trouble::Gone(sentence) | Trouble::Impossible(sentence) => {
                self.health.stuck(sentence);
                if loud {
                    tracing::error!(service = self.service, "{sentence}");
                }
            }
        }
    }

    fn position(&self) -> u64 {
        *self.position.borrow()
    }

    /// The position that the next fact must have.
    fn next(&self) -> u64 {
        self.gathered.last().map_or_else(|| self.position(), |fact| fact.position) + 1
    }

    fn is_full(&self) -> bool {
        self.gathered.len() >= FACTS_MAX || self.gathered_bytes >= GATHER_BYTES_MAX
    }

    fn is_awaited(&self) -> bool {
        self.readers.waiting.load(Ordering::Relaxed) > 0
    }

    /// When what was gathered is stored at the latest.
    fn commit_due(&self) -> Instant {
        if self.is_awaited() { self.since } else { self.since + P::LINGER }
    }
}

/// Tells a projection of the facts behind the last one that it heard of; answers the last one then.
fn tell(projection: &impl Projection, heard: u64, facts: &[Fact]) -> u64 {
    let new = &facts[facts.partition_point(|fact| fact.position <= heard)..];
    let Some(last) = new.last() else { return heard };
    projection.hear(new);
    last.position
}
