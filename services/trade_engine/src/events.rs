//! What the engine publishes (facts on stream `orders`, market data) and follows (listings).

use super::{
    published::{Published, Stored},
    record::Listing,
    sequencer::{Handle, Market},
    wire,
};
use fafnir_platform::{
    Context, Error, Result,
    bus::{self, Bus},
    cache::Cache,
};
use fafnir_proto::{subject, v1};
use prost::Message as _;
use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::mpsc, time::Instant};

/// Facts under way to the broker at a time.
const RELAY_BATCH: usize = 256;
/// The cursor is stored at most this often; what is published again after a crash changes nothing.
const CURSOR_INTERVAL: Duration = Duration::from_secs(1);
/// With nothing to publish, the relay looks this often whether the broker still has the stream.
const STREAM_CHECK: Duration = Duration::from_secs(30);
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);

/// How far the facts are with the broker.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    pub fact_no: u64,
    /// The stream that they are in: when it was created, and the position of the last one.
    pub stream_created_us: i64,
    pub stream_seq: u64,
}

const CURSOR_BYTES: usize = 28;

impl Cursor {
    /// The bytes of the cursor file.
    pub fn encode(&self) -> [u8; CURSOR_BYTES] {
        let mut bytes = [0; CURSOR_BYTES];
        bytes[..8].copy_from_slice(&self.fact_no.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.stream_created_us.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.stream_seq.to_le_bytes());
        let crc = crc32c::crc32c(&bytes[..24]);
        bytes[24..].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    /// The cursor in a file's bytes; one that cannot be read stands at the beginning: publishing again is harmless.
    pub fn decode(bytes: &[u8]) -> Self {
        let Ok(bytes) = <[u8; CURSOR_BYTES]>::try_from(bytes) else { return Self::default() };
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        if bytes[24..] != crc32c::crc32c(&bytes[..24]).to_le_bytes() {
            return Self::default();
        }
        Self { fact_no: word(0), stream_created_us: word(8).cast_signed(), stream_seq: word(16) }
    }

    fn load(path: &Path) -> Self {
        fs::read(path).map_or_else(|_| Self::default(), |bytes| Self::decode(&bytes))
    }

    fn store(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("tmp");
        fs::write(&temporary, self.encode())?;
        fs::rename(&temporary, path)
    }
}

/// Publishes the facts in order until shutdown.
pub fn spawn_relay(ctx: &Context, bus: Bus, published: Arc<Published>, dir: &Path) {
    let path = dir.join("relay.cursor");
    let mut relay = Relay { bus, published, cursor: Cursor::load(&path), path, stored_at: Instant::now() };
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("fact relay", async move {
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let started = Instant::now();
            let ended = tokio::select! {
                () = shutdown.cancelled() => break,
                ended = relay.session() => ended,
            };
            let Err(e) = ended;
            tracing::warn!(error = %e, "facts wait for the broker");
            wait = if started.elapsed() > RETRY_WAIT_MAX {
                RETRY_WAIT_MIN
            } else {
                (wait * 2).min(RETRY_WAIT_MAX)
            };
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
        }
        relay.store();
        Ok::<(), Error>(())
    });
}

struct Relay {
    bus: Bus,
    published: Arc<Published>,
    cursor: Cursor,
    path: PathBuf,
    stored_at: Instant,
}

enum Never {}

impl Relay {
    /// Publishes until something fails.
    async fn session(&mut self) -> Result<Never> {
        self.bus.ensure_stream(bus::ORDERS).await?;
        self.meet_stream().await?;
        let mut last_fact = self.published.watch();
        loop {
            last_fact.mark_unchanged();
            if self.relay_some().await? {
                continue;
            }
            match tokio::time::timeout(STREAM_CHECK, last_fact.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(Error::internal("the engine's facts have ended")),
                Err(_) => self.meet_stream().await?,
            }
        }
    }

    /// A stream that is younger than expected has lost what we published: everything that is kept goes out again.
    async fn meet_stream(&mut self) -> Result<()> {
        let state = self.bus.stream_state(bus::ORDERS).await?;
        let is_known =
            state.created_us == self.cursor.stream_created_us && state.last_seq >= self.cursor.stream_seq;
        if !is_known {
            let oldest = self.published.oldest_fact_no();
            if self.cursor.fact_no > 0 {
                tracing::warn!(from = oldest, "the broker has lost its store, publishing again");
            }
            self.cursor = Cursor {
                fact_no: oldest.saturating_sub(1),
                stream_created_us: state.created_us,
                stream_seq: state.last_seq,
            };
        }
        self.published.note_relayed(self.cursor.fact_no);
        Ok(())
    }

    /// Publishes what comes next; false when there is nothing.
    async fn relay_some(&mut self) -> Result<bool> {
        let (published, after) = (Arc::clone(&self.published), self.cursor.fact_no);
        let facts = tokio::task::spawn_blocking(move || published.facts_after(after, RELAY_BATCH))
            .await
            .map_err(|e| Error::internal(e.to_string()))?
            .map_err(|e| Error::internal(e.to_string()))?;
        let Some(last) = facts.last().map(|f| f.fact_no) else { return Ok(false) };
        let mut acks = Vec::with_capacity(facts.len());
        for fact in &facts {
            acks.push(
                self.bus
                    .send_fact(
                        bus::ORDERS.name,
                        subject::executions(&fact.symbol),
                        &msg_id(fact),
                        fact.payload.clone(),
                    )
                    .await?,
            );
        }
        let mut stream_seq = self.cursor.stream_seq;
        for ack in acks {
            stream_seq = stream_seq.max(ack.wait().await?);
        }
        self.cursor = Cursor { fact_no: last, stream_seq, ..self.cursor };
        self.published.note_relayed(last);
        metrics::counter!("fafnir_facts_published_total", "stream" => bus::ORDERS.name)
            .increment(facts.len() as u64);
        if self.stored_at.elapsed() >= CURSOR_INTERVAL {
            self.store();
        }
        Ok(true)
    }

    fn store(&mut self) {
        if let Err(e) = self.cursor.store(&self.path) {
            tracing::warn!(error = %e, "the relay's cursor was not stored; facts may be published again");
        }
        self.stored_at = Instant::now();
    }
}

fn msg_id(fact: &Stored) -> String {
    format!("{}:{}", fact.symbol, fact.first_seq)
}

/// Publishes market data until shutdown: nobody may be listening, and what cannot go out is dropped.
pub fn spawn_market(ctx: &Context, bus: Bus, cache: Cache, mut messages: mpsc::Receiver<Market>) {
    ctx.tasks.spawn_until_shutdown("market data", async move {
        while let Some(message) = messages.recv().await {
            let sent = match message {
                Market::Print { subject, payload } => bus.publish(subject, payload).await,
                Market::Image { symbol, subject, payload } => {
                    cache.put(&format!("book:{symbol}"), payload.clone()).await;
                    bus.publish(subject, payload).await
                }
            };
            if let Err(e) = sent {
                tracing::debug!(error = %e, "market data dropped");
            }
        }
        Ok::<(), Error>(())
    });
}

/// Follows the listings: each change is in the journal before its message is acked.
pub async fn follow_listings(ctx: &Context, bus: &Bus, engine: Handle) -> Result<()> {
    bus.follow(ctx, bus::INSTRUMENTS, move |facts| {
        let engine = engine.clone();
        async move {
            let listings: Vec<Listing> = facts
                .iter()
                .filter_map(|(subject, payload)| match v1::InstrumentChanged::decode(payload.clone()) {
                    Ok(changed) => changed.instrument.as_ref().and_then(wire::listing),
                    Err(e) => {
                        tracing::error!(%subject, error = %e, "not an InstrumentChanged");
                        None
                    }
                })
                .collect();
            Ok(engine.list(listings).await?)
        }
    })
    .await
}
