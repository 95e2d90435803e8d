//! What the store keeps of streams and consumers besides messages, and what it hands back at start.

use super::config::{ConsumerConfig, StreamConfig};
use super::effects::{ConsumerId, Pair, PendingRecord, StreamId};
use super::net::Nanos;
use serde::{Deserialize, Serialize};

/// A stream's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct StreamRecord {
    /// Its configuration with every default filled in.
    pub config: StreamConfig,
    /// When it was created.
    pub created: Nanos,
}

/// A consumer's description.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ConsumerRecord {
    /// Its name, durable or not.
    pub name: String,
    /// Its configuration with every default filled in.
    pub config: ConsumerConfig,
    /// When it was created.
    pub created: Nanos,
    /// First stream sequence that it looks at.
    pub start: u64,
    /// Last sequence of the stream when it was created: `last_per_subject` looks back from here.
    pub resume: u64,
}

/// A stored message without its payload.
#[derive(Debug, Clone)]
pub struct MessageMeta {
    /// Sequence in the stream.
    pub seq: u64,
    /// When it was stored.
    pub ts: Nanos,
    /// Bytes it counts for.
    pub size: u32,
    /// Its subject.
    pub subject: String,
}

/// A stream as found in the store.
#[derive(Debug, Clone)]
pub struct StoredStream {
    /// Its number.
    pub id: StreamId,
    /// Its description.
    pub record: StreamRecord,
    /// Last sequence that was ever used.
    pub last_seq: u64,
    /// Remembered message ids with sequence and time, oldest first.
    pub dedupe: Vec<(u64, Nanos, Box<str>)>,
    /// Its consumers.
    pub consumers: Vec<StoredConsumer>,
}

/// A consumer as found in the store.
#[derive(Debug, Clone)]
pub struct StoredConsumer {
    /// Its number.
    pub id: ConsumerId,
    /// Its description.
    pub record: ConsumerRecord,
    /// Last delivery.
    pub delivered: Pair,
    /// Ack floor.
    pub floor: Pair,
    /// Deliveries that await an ack.
    pub pending: Vec<PendingRecord>,
}
