//! What the core wants done: bytes to clients, writes to the store, reads from the store.

use super::log::Message;
use super::net::{ConnId, Limits};
use bytes::Bytes;
use std::sync::Arc;

/// Identifies a stream in the store; never reused.
pub type StreamId = u32;
/// Identifies a consumer in the store; never reused.
pub type ConsumerId = u32;

/// A pair of consumer sequence and stream sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Pair {
    /// Deliveries by the consumer, from 1.
    pub consumer: u64,
    /// Sequence in the stream, from 1.
    pub stream: u64,
}

/// One change of the store. They are applied in order; a group is on disk when the adapter says so.
#[derive(Debug, Clone)]
pub enum StoreOp {
    /// Create or replace a stream's description (JSON of [`StreamRecord`](super::records::StreamRecord)).
    StreamPut { stream: StreamId, json: String },
    /// Remove a stream with everything in it.
    StreamDrop { stream: StreamId },
    /// Append a message.
    MessagePut { stream: StreamId, message: Arc<Message>, size: u32, dedupe: Option<Box<str>> },
    /// Remove messages with `first ≤ sequence ≤ last`; `last_seq` is the stream's last sequence then. They count for
    /// so many bytes. `replaced`: a message whose turn comes before this takes their place, so they stay until it is on disk.
    MessagesRemove { stream: StreamId, first: u64, last: u64, last_seq: u64, bytes: u64, replaced: bool },
    /// Forget remembered message ids with a sequence below.
    DedupeTrim { stream: StreamId, below: u64 },
    /// Create or replace a consumer's description (JSON of [`ConsumerRecord`](super::records::ConsumerRecord)).
    ConsumerPut { stream: StreamId, consumer: ConsumerId, json: String },
    /// Remove a consumer.
    ConsumerDrop { consumer: ConsumerId },
    /// A message was handed out; `tracked` when it awaits an ack.
    Delivered { consumer: ConsumerId, delivered: Pair, pending: Option<PendingRecord>, floor: Pair },
    /// Messages are settled: one, or all up to it.
    Settled { consumer: ConsumerId, sequence: u64, through: bool, floor: Pair },
}

impl StoreOp {
    /// The stream that it removes.
    pub fn dropped(&self) -> Option<StreamId> {
        if let Self::StreamDrop { stream } = self { Some(*stream) } else { None }
    }

    /// The stream that it changes, without its consumers.
    pub fn stream(&self) -> Option<StreamId> {
        match self {
            Self::StreamPut { stream, .. }
            | Self::StreamDrop { stream }
            | Self::MessagePut { stream, .. }
            | Self::MessagesRemove { stream, .. }
            | Self::DedupeTrim { stream, .. } => Some(*stream),
            Self::ConsumerPut { .. }
            | Self::ConsumerDrop { .. }
            | Self::Delivered { .. }
            | Self::Settled { .. } => None,
        }
    }

    /// Bytes of the message that it adds.
    pub fn bytes(&self) -> usize {
        if let Self::MessagePut { message, .. } = self {
            message.header.len() + message.payload.len()
        } else {
            0
        }
    }
}

/// A delivered message that awaits its ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PendingRecord {
    /// Sequence in the stream.
    pub sequence: u64,
    /// Consumer sequence of the first delivery.
    pub consumer_seq: u64,
    /// Deliveries so far.
    pub count: u64,
}

/// A read of stored messages; the answer is `Input::Loaded`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Where to read.
    pub stream: StreamId,
    /// First sequence wanted.
    pub from: u64,
    /// At most so many messages.
    pub count_max: usize,
    /// At most so many bytes, but at least one message.
    pub bytes_max: usize,
    /// Who waits for this one message; nothing when it is for the consumers.
    pub getter: Option<u64>,
}

/// What is no longer needed: whoever drops it has the time.
pub type Discarded = Box<dyn std::fmt::Debug + Send>;

/// Everything a step wants done, in order within each list.
#[derive(Debug, Default)]
pub struct Effects {
    /// Bytes to clients.
    pub writes: Vec<(ConnId, Bytes)>,
    /// Connections that have signed in, with the limits of their users.
    pub signed: Vec<(ConnId, Option<Limits>)>,
    /// Connections to end after their bytes.
    pub closes: Vec<ConnId>,
    /// Changes of the store.
    pub ops: Vec<StoreOp>,
    /// Number of the last change ever asked for.
    pub ops_last: u64,
    /// Whether somebody waits for these changes.
    pub urgent: bool,
    /// Reads from the store.
    pub loads: Vec<Load>,
    /// Connections that have enough to read: the core waits for `Input::Drained` before consumers send them more.
    pub filled: Vec<ConnId>,
    /// Publishers and whom they fill up.
    pub pressing: Vec<(ConnId, ConnId)>,
    /// To be dropped where it holds nobody up.
    pub discarded: Vec<Discarded>,
}
