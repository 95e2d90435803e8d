//! One stream's messages: what exists, what is on disk, what is remembered against duplicates.

use super::config::{Storage, StreamConfig};
use super::effects::StreamId;
use super::index::{Index, Slot};
use super::net::Nanos;
use super::subject::{has_wildcard, matches};
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
    /// Its sequences, ascending.
    pub seqs: VecDeque<u64>,
}

/// A token of subjects that have messages.
#[derive(Debug, Default)]
struct Branch {
    children: BTreeMap<Box<str>, u32>,
    /// The subject that ends here.
    subject: Option<u32>,
}

/// The subjects that have messages: by name, and as a trie of tokens that answers patterns.
#[derive(Debug)]
pub struct Subjects {
    by_name: HashMap<Arc<str>, u32>,
    slots: Vec<SubjectSlot>,
    free: Vec<u32>,
    branches: Vec<Branch>,
    branches_free: Vec<u32>,
}

impl Default for Subjects {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            branches: vec![Branch::default()],
            branches_free: Vec::new(),
        }
    }
}

impl Subjects {
    /// The slot of a subject, made if needed.
    fn intern(&mut self, name: &str) -> u32 {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let name: Arc<str> = name.into();
        let id = if let Some(id) = self.free.pop() {
            self.slots[id as usize].name = name.clone();
            id
        } else {
            self.slots.push(SubjectSlot { name: name.clone(), ..SubjectSlot::default() });
            (self.slots.len() - 1) as u32
        };
        let mut at = 0;
        for token in name.split('.') {
            if let Some(child) = self.branches[at as usize].children.get(token) {
                at = *child;
                continue;
            }
            let child = self.branches_free.pop().unwrap_or_else(|| {
                self.branches.push(Branch::default());
                (self.branches.len() - 1) as u32
            });
            self.branches[at as usize].children.insert(token.into(), child);
            at = child;
        }
        self.branches[at as usize].subject = Some(id);
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
            let name = std::mem::take(&mut slot.name);
            slot.seqs = VecDeque::new();
            self.by_name.remove(&name);
            self.free.push(id);
            self.prune(&name);
        }
    }

    /// Takes a subject out of the trie, with the branches that only it needed.
    fn prune(&mut self, name: &str) {
        let mut path = vec![(0, "")];
        let mut at = 0;
        for token in name.split('.') {
            let Some(child) = self.branches[at as usize].children.get(token) else { return };
            at = *child;
            path.push((at, token));
        }
        self.branches[at as usize].subject = None;
        while let Some((at, token)) = path.pop() {
            let branch = &self.branches[at as usize];
            let Some((parent, _)) = path.last() else { return };
            if branch.subject.is_some() || !branch.children.is_empty() {
                return;
            }
            self.branches[*parent as usize].children.remove(token);
            self.branches_free.push(at);
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

    /// All subjects that a pattern describes, token by token in alphabetical order.
    pub fn matching<'a>(&'a self, pattern: &'a str) -> Matching<'a> {
        Matching { subjects: self, tokens: pattern.split('.').collect(), steps: vec![Step::At(0, 0)] }
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

type Children<'a> = std::collections::btree_map::Values<'a, Box<str>, u32>;

#[derive(Debug)]
enum Step<'a> {
    /// The branch is reached by that many tokens.
    At(u32, usize),
    /// Each of these is.
    Each(Children<'a>, usize),
    /// Everything at and below the branch.
    All(u32),
    /// Everything at and below each of these.
    AllOf(Children<'a>),
}

/// The subjects that a pattern describes, found one by one.
#[derive(Debug)]
pub struct Matching<'a> {
    subjects: &'a Subjects,
    tokens: Vec<&'a str>,
    steps: Vec<Step<'a>>,
}

impl<'a> Iterator for Matching<'a> {
    type Item = &'a SubjectSlot;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let mut ends_here = None;
            match self.steps.pop()? {
                Step::At(at, depth) => {
                    let branch = &self.subjects.branches[at as usize];
                    match self.tokens.get(depth) {
                        None => ends_here = branch.subject,
                        Some(&">") => self.steps.push(Step::AllOf(branch.children.values())),
                        Some(&"*") => self.steps.push(Step::Each(branch.children.values(), depth + 1)),
                        Some(token) => {
                            let child = branch.children.get(*token);
                            self.steps.extend(child.map(|child| Step::At(*child, depth + 1)));
                        }
                    }
                }
                Step::Each(mut children, depth) => {
                    if let Some(child) = children.next() {
                        self.steps.push(Step::Each(children, depth));
                        self.steps.push(Step::At(*child, depth));
                    }
                }
                Step::All(at) => {
                    let branch = &self.subjects.branches[at as usize];
                    self.steps.push(Step::AllOf(branch.children.values()));
                    ends_here = branch.subject;
                }
                Step::AllOf(mut children) => {
                    if let Some(child) = children.next() {
                        self.steps.push(Step::AllOf(children));
                        self.steps.push(Step::All(*child));
                    }
                }
            }
            if let Some(id) = ends_here {
                return Some(&self.subjects.slots[id as usize]);
            }
        }
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
    /// What was read last, and what was read before that.
    loaded: [BTreeMap<u64, Arc<Message>>; 2],
}

/// What held the messages of a stream.
#[derive(Debug)]
pub struct Cleared {
    _index: Index,
    _subjects: Subjects,
    _recent: BTreeMap<u64, Arc<Message>>,
    _loaded: [BTreeMap<u64, Arc<Message>>; 2],
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
            loaded: [BTreeMap::new(), BTreeMap::new()],
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
        for loaded in &mut self.loaded {
            loaded.remove(&seq);
        }
        Some(slot)
    }

    /// A message with its payload, if that is in memory.
    pub fn message(&self, seq: u64) -> Option<&Arc<Message>> {
        self.recent.get(&seq).or_else(|| self.loaded.iter().find_map(|loaded| loaded.get(&seq)))
    }

    /// Takes up messages that were read from the store; those that were read before the last ones are let go.
    pub fn take_loaded(&mut self, messages: Vec<Message>) {
        self.loading = false;
        let messages = messages.into_iter().filter(|message| self.index.get(message.seq).is_some());
        let loaded = messages.map(|message| (message.seq, Arc::new(message))).collect();
        let last = std::mem::replace(&mut self.loaded[0], loaded);
        self.loaded[1] = last;
    }

    /// Where to read on, when this message is among those that were read last: so that nobody waits for the next ones.
    pub fn ahead(&self, seq: u64) -> Option<u64> {
        if self.loading || !self.loaded[0].contains_key(&seq) {
            return None;
        }
        let (last, _) = self.loaded[0].last_key_value()?;
        let (next, _) = self.index.from(last + 1).next()?;
        (next <= self.visible && self.message(next).is_none()).then_some(next)
    }

    /// The last message of the subjects that a pattern describes: whichever ends first, a look through the subjects or
    /// one through the messages.
    pub fn last_matching(&self, pattern: &str) -> Option<u64> {
        if !has_wildcard(pattern) {
            return self.subjects.get(pattern)?.seqs.back().copied();
        }
        let mut back = self.index.back();
        let mut subjects = self.subjects.matching(pattern);
        let mut best = None;
        loop {
            let Some(slot) = subjects.next() else { return best };
            best = best.max(slot.seqs.back().copied());
            let (seq, slot) = back.next()?;
            if matches(pattern, &self.subjects.slot(slot.subject).name) {
                return Some(seq);
            }
        }
    }

    /// The first message that was stored at this time or later.
    pub fn at_time(&self, at: Nanos) -> Option<u64> {
        self.index.at_time(at)
    }

    /// The first message from `from` on whose subject one of the patterns describes, looked for like
    /// [`Log::last_matching`].
    pub fn next_matching<'a>(
        &'a self,
        patterns: impl Iterator<Item = &'a str> + Clone,
        from: u64,
    ) -> Option<u64> {
        let mut ahead = self.index.from(from);
        let mut subjects = patterns.clone().flat_map(|pattern| self.subjects.matching(pattern));
        let mut best: Option<u64> = None;
        loop {
            let (seq, slot) = ahead.next()?;
            let name = &self.subjects.slot(slot.subject).name;
            if patterns.clone().any(|pattern| matches(pattern, name)) {
                return Some(seq);
            }
            let Some(slot) = subjects.next() else { return best };
            let first = slot.seqs.get(slot.seqs.partition_point(|seq| *seq < from)).copied();
            best = best.into_iter().chain(first).min();
        }
    }

    /// Removes every message; what held them is the caller's to drop.
    pub fn clear(&mut self) -> Cleared {
        self.bytes = 0;
        self.recent_bytes = 0;
        Cleared {
            _index: std::mem::take(&mut self.index),
            _subjects: std::mem::take(&mut self.subjects),
            _recent: std::mem::take(&mut self.recent),
            _loaded: std::mem::take(&mut self.loaded),
        }
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
