//! One stream's messages: what exists, what is on disk, what is remembered against duplicates.

use super::config::{Storage, StreamConfig};
use super::effects::StreamId;
use super::index::{Index, Slot};
use super::net::Nanos;
use super::subject::matches;
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

/// Bytes of recent messages that a stream keeps in memory, besides those not yet on disk.
pub const RECENT_BYTES_MAX: usize = 4 << 20;

/// A stored message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Sequence in the stream, from 1.
    pub seq: u64,
    /// When it was stored.
    pub ts: Nanos,
    /// Its subject.
    pub subject: Arc<str>,
    /// Header block, empty for none.
    pub header: Bytes,
    /// Payload.
    pub payload: Bytes,
}

/// One subject that has messages.
#[derive(Debug, Default)]
pub struct SubjectSlot {
    /// The subject; empty when the slot is free.
    pub name: Arc<str>,
    /// Counts reuses of the slot, so that what was remembered about the old subject is not believed.
    pub generation: u32,
    /// Its sequences, ascending.
    pub seqs: VecDeque<u64>,
}

/// The subjects that have messages.
#[derive(Debug, Default)]
pub struct Subjects {
    by_name: BTreeMap<Arc<str>, u32>,
    slots: Vec<SubjectSlot>,
    free: Vec<u32>,
}

impl Subjects {
    /// The slot of a subject, made if needed.
    fn intern(&mut self, name: &str) -> u32 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let id = if let Some(id) = self.free.pop() {
            let slot = &mut self.slots[id as usize];
            slot.name = name.clone();
            slot.generation = slot.generation.wrapping_add(1);
            id
        } else {
            self.slots.push(SubjectSlot { name: name.clone(), ..SubjectSlot::default() });
            (self.slots.len() - 1) as u32
        };
        self.by_name.insert(name, id);
        id
    }

    fn remove(&mut self, id: u32, seq: u64) {
        let slot = &mut self.slots[id as usize];
        if slot.seqs.front() == Some(&seq) {
            slot.seqs.pop_front();
        } else if let Ok(at) = slot.seqs.binary_search(&seq) {
            slot.seqs.remove(at);
        }
        if slot.seqs.is_empty() {
            self.by_name.remove(&slot.name);
            slot.name = Arc::default();
            slot.seqs = VecDeque::new();
            self.free.push(id);
        }
    }

    /// A subject by its number.
    pub fn slot(&self, id: u32) -> &SubjectSlot {
        &self.slots[id as usize]
    }

    /// A subject by its name.
    pub fn get(&self, name: &str) -> Option<&SubjectSlot> {
        self.by_name.get(name).map(|id| &self.slots[*id as usize])
    }

    /// All subjects that a pattern describes, in alphabetical order.
    pub fn matching<'a>(&'a self, pattern: &'a str) -> impl Iterator<Item = &'a SubjectSlot> {
        self.by_name
            .iter()
            .filter(move |(name, _)| matches(pattern, name))
            .map(|(_, id)| &self.slots[*id as usize])
    }

    /// Number of subjects.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether no subject has messages.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }
}

/// A stream's messages.
#[derive(Debug)]
pub struct Log {
    /// The stream's number.
    pub id: StreamId,
    /// Its configuration.
    pub config: StreamConfig,
    /// When it was created.
    pub created: Nanos,
    /// What exists.
    pub index: Index,
    /// By subject.
    pub subjects: Subjects,
    /// Last sequence ever used.
    pub last_seq: u64,
    /// Time of the last message.
    pub last_ts: Nanos,
    /// Last sequence that is on disk: consumers see nothing beyond.
    pub visible: u64,
    /// Bytes that the messages count for.
    pub bytes: u64,
    /// Last message id, for `Nats-Expected-Last-Msg-Id`.
    pub last_msg_id: Option<Box<str>>,
    /// Whether a read from the store is under way.
    pub loading: bool,
    dedupe: HashMap<Box<str>, u64>,
    dedupe_order: VecDeque<(Nanos, u64, Box<str>)>,
    recent: BTreeMap<u64, Arc<Message>>,
    recent_bytes: usize,
    loaded: BTreeMap<u64, Arc<Message>>,
}

impl Log {
    /// An empty stream.
    pub fn new(id: StreamId, config: StreamConfig, created: Nanos) -> Self {
        Self {
            id,
            config,
            created,
            index: Index::default(),
            subjects: Subjects::default(),
            last_seq: 0,
            last_ts: 0,
            visible: 0,
            bytes: 0,
            last_msg_id: None,
            loading: false,
            dedupe: HashMap::new(),
            dedupe_order: VecDeque::new(),
            recent: BTreeMap::new(),
            recent_bytes: 0,
            loaded: BTreeMap::new(),
        }
    }

    /// Whether its messages go to disk.
    pub fn on_disk(&self) -> bool {
        self.config.storage == Storage::File
    }

    /// Bytes that a message counts for, as the original counts.
    pub fn size_of(&self, subject: usize, header: usize, payload: usize) -> u32 {
        let size = match (self.config.storage, header) {
            (Storage::File, 0) => 22 + subject + payload + 8,
            (Storage::File, _) => 22 + subject + 4 + header + payload + 8,
            (Storage::Memory, _) => subject + header + payload + 16,
        };
        u32::try_from(size).unwrap_or(u32::MAX)
    }

    /// Takes up a message that was found in the store.
    pub fn recover(&mut self, seq: u64, ts: Nanos, size: u32, subject: &str) {
        let id = self.subjects.intern(subject);
        self.push(seq, Slot { ts, size, subject: id });
        self.bytes += u64::from(size);
        self.last_seq = self.last_seq.max(seq);
        self.last_ts = ts;
        self.visible = self.last_seq;
    }

    /// Takes up a message under its subject and in the index.
    fn push(&mut self, seq: u64, slot: Slot) {
        let seqs = &mut self.subjects.slots[slot.subject as usize].seqs;
        debug_assert!(
            seqs.back().is_none_or(|last| *last < seq),
            "invariant: a subject's sequences ascend; {seq} after {:?}",
            seqs.back()
        );
        seqs.push_back(seq);
        self.index.push(seq, slot);
    }

    /// Appends a message; returns it with its size.
    pub fn append(
        &mut self,
        now: Nanos,
        subject: &str,
        header: &[u8],
        payload: &[u8],
    ) -> (Arc<Message>, u32) {
        let size = self.size_of(subject.len(), header.len(), payload.len());
        let id = self.subjects.intern(subject);
        self.last_seq += 1;
        self.last_ts = now;
        let mut body = Vec::with_capacity(header.len() + payload.len());
        body.extend_from_slice(header);
        body.extend_from_slice(payload);
        let body = Bytes::from(body);
        let message = Arc::new(Message {
            seq: self.last_seq,
            ts: now,
            subject: self.subjects.slot(id).name.clone(),
            header: body.slice(..header.len()),
            payload: body.slice(header.len()..),
        });
        self.push(self.last_seq, Slot { ts: now, size, subject: id });
        self.bytes += u64::from(size);
        self.recent_bytes += size as usize;
        self.recent.insert(self.last_seq, message.clone());
        (message, size)
    }

    /// Remembers a message id.
    pub fn remember(&mut self, id: &str, seq: u64, ts: Nanos) {
        let id: Box<str> = id.into();
        self.dedupe.insert(id.clone(), seq);
        self.dedupe_order.push_back((ts, seq, id));
    }

    /// The sequence that was stored under this message id.
    pub fn remembered(&self, id: &str) -> Option<u64> {
        self.dedupe.get(id).copied()
    }

    /// Forgets message ids older than the window; returns the sequence below which all are forgotten.
    pub fn forget(&mut self, now: Nanos) -> Option<u64> {
        let cutoff = now.saturating_sub(self.config.duplicate_window.max(0) as u64);
        let mut below = None;
        while let Some((ts, seq, id)) = self.dedupe_order.front() {
            if *ts > cutoff {
                break;
            }
            below = Some(seq + 1);
            if self.dedupe.get(id) == Some(seq) {
                self.dedupe.remove(id);
            }
            self.dedupe_order.pop_front();
        }
        below
    }

    /// When the oldest remembered message id is to be forgotten.
    pub fn forget_at(&self) -> Option<Nanos> {
        self.dedupe_order.front().map(|(ts, _, _)| ts + self.config.duplicate_window.max(0) as u64)
    }

    /// When the oldest message is to be removed.
    pub fn expire_at(&self) -> Option<Nanos> {
        (self.config.max_age > 0)
            .then(|| self.index.first().map(|(_, slot)| slot.ts + self.config.max_age as u64))?
    }

    /// Marks everything up to `seq` as on disk and lets go of what need not stay in memory.
    pub fn on_disk_up_to(&mut self, seq: u64) {
        debug_assert!(seq <= self.last_seq, "invariant: nothing is on disk that was not stored: {seq}");
        self.visible = self.visible.max(seq);
        if self.on_disk() {
            while self.recent_bytes > RECENT_BYTES_MAX {
                let Some(entry) = self.recent.first_entry().filter(|entry| *entry.key() <= self.visible)
                else {
                    break;
                };
                let message = entry.remove();
                self.recent_bytes -= self.size(&message);
            }
        }
    }

    fn size(&self, message: &Message) -> usize {
        self.size_of(message.subject.len(), message.header.len(), message.payload.len()) as usize
    }

    /// Removes a message; returns its slot.
    pub fn remove(&mut self, seq: u64) -> Option<Slot> {
        let slot = self.index.remove(seq)?;
        self.subjects.remove(slot.subject, seq);
        self.bytes -= u64::from(slot.size);
        if let Some(message) = self.recent.remove(&seq) {
            self.recent_bytes -= self.size(&message);
        }
        self.loaded.remove(&seq);
        Some(slot)
    }

    /// A message with its payload, if that is in memory.
    pub fn message(&self, seq: u64) -> Option<&Arc<Message>> {
        self.recent.get(&seq).or_else(|| self.loaded.get(&seq))
    }

    /// Takes up messages that were read from the store, in place of those read before.
    pub fn take_loaded(&mut self, messages: Vec<Message>) {
        self.loading = false;
        self.loaded = messages
            .into_iter()
            .filter(|message| self.index.get(message.seq).is_some())
            .map(|message| (message.seq, Arc::new(message)))
            .collect();
    }

    /// The first sequence, or the one after the last if there is no message.
    pub fn first_seq(&self) -> u64 {
        match self.index.first() {
            Some((seq, _)) => seq,
            None if self.last_seq == 0 => 0,
            None => self.last_seq + 1,
        }
    }

    /// Time of the first message, zero if there is none.
    pub fn first_ts(&self) -> Nanos {
        self.index.first().map_or(0, |(_, slot)| slot.ts)
    }
}
