//! Facts on their way to the broker. Nobody depends on it: what does not arrive is asked for.

use super::{log::Stored, published::Published};
use bytes::Bytes;
use fafnir_platform::{
    Context, Error, Result,
    bus::{self, Bus, FactAck},
};
use fafnir_proto::{client::TRACE_KEY, subject};
use prost::encoding::{WireType, encode_key, encode_varint};
use std::{collections::VecDeque, sync::Arc, time::Duration};

/// Facts of the largest message, which is 256 KiB with what stands around them.
const MESSAGE_BYTES_MAX: usize = 240 * 1024;
/// Facts in one message.
const MESSAGE_FACTS_MAX: usize = 4_096;
/// Messages under way at a time.
const UNDER_WAY_MAX: usize = 16;
const RETRY_WAIT_MIN: Duration = Duration::from_millis(100);
const RETRY_WAIT_MAX: Duration = Duration::from_secs(5);
/// Tag of `FactBatch.facts`.
const FACTS_TAG: u32 = 1;

/// Publishes new facts until shutdown.
pub fn spawn(ctx: &Context, bus: Bus, published: Arc<Published>) {
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("facts to the broker", async move {
        let mut publisher = Publisher { bus, sent: published.recorded(), published };
        let mut wait = RETRY_WAIT_MIN;
        loop {
            let ended = tokio::select! {
                () = shutdown.cancelled() => break,
                ended = publisher.session(&mut wait) => ended,
            };
            let Err(e) = ended;
            tracing::warn!(error = %e, "facts do not reach the broker; followers ask for them");
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = tokio::time::sleep(wait) => {}
            }
            wait = (wait * 2).min(RETRY_WAIT_MAX);
        }
        Ok::<(), Error>(())
    });
}

struct Publisher {
    bus: Bus,
    published: Arc<Published>,
    /// Facts up to this one are on their way.
    sent: u64,
}

enum Never {}

impl Publisher {
    /// Publishes until something fails.
    async fn session(&mut self, wait: &mut Duration) -> Result<Never> {
        self.bus.ensure_stream(bus::FACTS).await?;
        let mut recorded = self.published.watch();
        let mut under_way: VecDeque<FactAck> = VecDeque::new();
        loop {
            recorded.mark_unchanged();
            while let Some((batch, last)) = self.next() {
                under_way.push_back(self.send(batch).await?);
                self.sent = last;
                if under_way.len() >= UNDER_WAY_MAX
                    && let Some(ack) = under_way.pop_front()
                {
                    ack.wait().await?;
                }
            }
            while let Some(ack) = under_way.pop_front() {
                ack.wait().await?;
            }
            *wait = RETRY_WAIT_MIN;
            recorded.changed().await.map_err(|_| Error::internal("the engine's facts have ended"))?;
        }
    }

    /// The facts of the next message. What memory no longer has is passed over: followers ask for it.
    fn next(&mut self) -> Option<(Vec<Arc<Stored>>, u64)> {
        if self.published.recent_first().is_some_and(|first| first > self.sent + 1) {
            self.sent = self.published.recent_first()?.saturating_sub(1);
        }
        let facts = self.published.recent_after(self.sent, MESSAGE_FACTS_MAX, MESSAGE_BYTES_MAX)?;
        let last = facts.last()?.position;
        Some((facts, last))
    }

    async fn send(&self, facts: Vec<Arc<Stored>>) -> Result<FactAck> {
        let position = |fact: Option<&Arc<Stored>>| fact.map_or(0, |f| f.position).to_string();
        let mut headers = vec![
            (subject::FIRST_POSITION, position(facts.first())),
            (subject::LAST_POSITION, position(facts.last())),
        ];
        // A message can be of many traces, which its facts name; who reads headers alone learns of one.
        headers.extend(facts.iter().find_map(|fact| fact.trace).map(|trace| (TRACE_KEY, trace.to_string())));
        metrics::counter!("fafnir_facts_published_total", "stream" => bus::FACTS.name)
            .increment(facts.len() as u64);
        self.bus.send_batch(bus::FACTS.name, subject::FACTS, &headers, batch(&facts)).await
    }
}

/// The encoded `FactBatch` of facts that are encoded already.
pub fn batch(facts: &[Arc<Stored>]) -> Bytes {
    let mut out = Vec::with_capacity(facts.iter().map(|f| f.payload.len() + 8).sum());
    for fact in facts {
        encode_key(FACTS_TAG, WireType::LengthDelimited, &mut out);
        encode_varint(fact.payload.len() as u64, &mut out);
        out.extend_from_slice(&fact.payload);
    }
    out.into()
}
