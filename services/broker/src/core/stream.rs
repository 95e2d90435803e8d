//! One stream with its consumers: what happens to the consumers when messages come and go.

use super::config::{ConsumerConfig, Discard, Retention};
use super::consumer::Consumer;
use super::deliver::pump;
use super::effects::{ConsumerId, StoreOp};
use super::env::Env;
use super::log::Log;
use super::sublist::{SubId, Sublist};
use super::timers::TimerKey;
use std::collections::{BTreeMap, BTreeSet};

/// Shortest time between two rounds of age and dedupe expiry of one stream, in nanoseconds.
const ROUND_MIN: u64 = 50_000_000;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    /// Its messages.
    pub log: Log,
    /// Its consumers.
    pub consumers: BTreeMap<ConsumerId, Consumer>,
    /// Their numbers by name.
    pub names: BTreeMap<String, ConsumerId>,
    /// Those that push.
    pub pushing: BTreeSet<ConsumerId>,
    /// Which consumer wants which subjects.
    interest: Sublist,
}

impl Stream {
    /// A stream without consumers.
    pub fn new(log: Log) -> Self {
        Self {
            log,
            consumers: BTreeMap::new(),
            names: BTreeMap::new(),
            pushing: BTreeSet::new(),
            interest: Sublist::default(),
        }
    }

    /// A consumer by name.
    pub fn consumer(&mut self, name: &str) -> Option<&mut Consumer> {
        self.consumers.get_mut(self.names.get(name)?)
    }

    /// Takes up a consumer.
    pub fn add(&mut self, consumer: Consumer) {
        for pattern in patterns(consumer.config()) {
            self.interest.insert(&pattern, None, SubId::from(consumer.id));
        }
        if consumer.config().deliver_subject.is_some() {
            self.pushing.insert(consumer.id);
        }
        self.names.insert(consumer.name().to_owned(), consumer.id);
        self.consumers.insert(consumer.id, consumer);
    }

    /// Lets go of a consumer.
    pub fn take(&mut self, id: ConsumerId) -> Option<Consumer> {
        let consumer = self.consumers.remove(&id)?;
        for pattern in patterns(consumer.config()) {
            self.interest.remove(&pattern, None, SubId::from(id));
        }
        self.names.remove(consumer.name());
        self.pushing.remove(&id);
        Some(consumer)
    }

    /// Changes what a consumer wants and how it is served.
    pub fn reconfigure(&mut self, id: ConsumerId, config: ConsumerConfig) {
        let Some(consumer) = self.consumers.get_mut(&id) else { return };
        let refiltered = !consumer.config().filters().eq(config.filters());
        for pattern in patterns(consumer.config()) {
            self.interest.remove(&pattern, None, SubId::from(id));
        }
        for pattern in patterns(&config) {
            self.interest.insert(&pattern, None, SubId::from(id));
        }
        consumer.record.config = config;
        if refiltered {
            consumer.filters_changed(&self.log);
        }
    }

    /// Consumers that want messages of this subject.
    fn interested(&self, subject: &str) -> Vec<ConsumerId> {
        if self.consumers.is_empty() {
            return Vec::new();
        }
        let mut found: Vec<_> =
            self.interest.matches(subject).plain.iter().map(|id| *id as ConsumerId).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether any consumer wants messages of this subject.
    pub fn is_wanted(&self, subject: &str) -> bool {
        self.interest.has_interest(subject)
    }

    /// Removes a message everywhere.
    pub fn drop_message(&mut self, seq: u64, env: &mut Env) -> bool {
        self.take_out(seq, false, env)
    }

    /// Removes a message everywhere whose place another one takes, which may not be on disk yet.
    pub fn replace_message(&mut self, seq: u64, env: &mut Env) -> bool {
        self.take_out(seq, true, env)
    }

    fn take_out(&mut self, seq: u64, replaced: bool, env: &mut Env) -> bool {
        let Some(slot) = self.log.index.get(seq).copied() else { return false };
        if !self.consumers.is_empty() {
            let subject = self.log.subjects.slot(slot.subject).name.clone();
            for id in self.interested(&subject) {
                if let Some(consumer) = self.consumers.get_mut(&id) {
                    consumer.on_removed(self.log.visible, seq, env);
                }
            }
        }
        self.log.remove(seq);
        if self.log.on_disk() {
            env.gate.op(StoreOp::MessagesRemove {
                stream: self.log.id,
                first: seq,
                last: seq,
                last_seq: self.log.last_seq,
                bytes: u64::from(slot.size),
                replaced,
            });
        }
        true
    }

    /// Removes every message; returns how many.
    pub fn clear(&mut self, env: &mut Env) -> u64 {
        let (count, bytes) = (self.log.index.len(), self.log.bytes);
        let Some((first, _)) = self.log.index.first() else { return 0 };
        for consumer in self.consumers.values_mut() {
            consumer.on_cleared(self.log.visible, env);
        }
        env.discarded.push(Box::new(self.log.clear()));
        self.removed(first, bytes, env);
        count
    }

    /// Tells the store that there is nothing from `first` on, where so many bytes were.
    fn removed(&self, first: u64, bytes: u64, env: &mut Env) {
        if self.log.on_disk() {
            let (stream, last_seq) = (self.log.id, self.log.last_seq);
            let last = last_seq;
            env.gate.op(StoreOp::MessagesRemove { stream, first, last, last_seq, bytes, replaced: false });
        }
    }

    /// Moves the end of an empty stream: the next message gets the sequence `next`.
    pub fn skip_to(&mut self, next: u64, env: &mut Env) {
        if !self.log.index.is_empty() || next <= self.log.last_seq + 1 {
            return;
        }
        let first = self.log.last_seq + 1;
        self.log.last_seq = next - 1;
        // There is nothing that could be seen before it is on disk.
        self.log.visible = self.log.last_seq;
        self.removed(first, 0, env);
        env.gate.hurry();
    }

    /// Lets everybody have what is there, and removes what retention no longer needs.
    pub fn pump(&mut self, env: &mut Env) {
        let Self { log, consumers, .. } = self;
        let mut settled = Vec::new();
        for consumer in consumers.values_mut() {
            settled.append(&mut pump(log, consumer, env));
        }
        self.settled(&settled, env);
    }

    /// Lets these consumers have what is there.
    pub fn pump_these(&mut self, ids: impl IntoIterator<Item = ConsumerId>, env: &mut Env) {
        for id in ids {
            self.pump_one(id, env);
        }
    }

    /// Lets one consumer hand out what is there.
    pub fn pump_one(&mut self, id: ConsumerId, env: &mut Env) {
        if let Some(consumer) = self.consumers.get_mut(&id) {
            let settled = pump(&mut self.log, consumer, env);
            self.settled(&settled, env);
        }
    }

    /// Applies retention to messages that a consumer has settled.
    pub fn settled(&mut self, sequences: &[u64], env: &mut Env) {
        if self.log.config.retention == Retention::Limits {
            return;
        }
        for seq in sequences {
            let Some(slot) = self.log.index.get(*seq).copied() else { continue };
            let is_done = |id: ConsumerId| self.consumers.get(&id).is_none_or(|c| c.is_done_with(*seq));
            let done = self.log.config.retention == Retention::WorkQueue
                || self.interested(&self.log.subjects.slot(slot.subject).name).into_iter().all(is_done);
            if done {
                self.drop_message(*seq, env);
            }
        }
    }

    /// A message is on disk: consumers may see it. Returns those that want it.
    pub fn visible(&mut self, seq: u64) -> Vec<ConsumerId> {
        self.log.on_disk_up_to(seq);
        let Some(slot) = self.log.index.get(seq) else { return Vec::new() };
        let wanting = self.interested(&self.log.subjects.slot(slot.subject).name);
        for id in &wanting {
            if let Some(consumer) = self.consumers.get_mut(id) {
                consumer.on_visible(seq);
            }
        }
        wanting
    }

    /// Makes room as the limits demand, after a message to `subject` was appended.
    pub fn enforce(&mut self, subject: &str, env: &mut Env) {
        let config = &self.log.config;
        let (per_subject, messages, bytes) = (config.max_msgs_per_subject, config.max_msgs, config.max_bytes);
        if per_subject > 0 {
            while let Some(slot) = self.log.subjects.get(subject)
                && slot.seqs.len() as i64 > per_subject
                && let Some(oldest) = slot.seqs.front().copied()
            {
                self.replace_message(oldest, env);
            }
        }
        if self.log.config.discard == Discard::New {
            return;
        }
        self.make_room(messages, bytes, env);
    }

    fn make_room(&mut self, messages: i64, bytes: i64, env: &mut Env) {
        while (messages > 0 && self.log.index.len() as i64 > messages)
            || (bytes > 0 && self.log.bytes as i64 > bytes)
        {
            let Some((oldest, _)) = self.log.index.first() else { break };
            self.replace_message(oldest, env);
        }
    }

    /// Makes every limit hold: after an update of the configuration.
    pub fn enforce_all(&mut self, env: &mut Env) {
        let per_subject = self.log.config.max_msgs_per_subject;
        if per_subject > 0 {
            let crowded: Vec<String> = self
                .log
                .subjects
                .matching(">")
                .filter(|slot| slot.seqs.len() as i64 > per_subject)
                .map(|slot| slot.name.to_string())
                .collect();
            for subject in crowded {
                self.enforce(&subject, env);
            }
        }
        if self.log.config.discard == Discard::Old {
            self.make_room(self.log.config.max_msgs, self.log.config.max_bytes, env);
        }
        self.expire(env);
    }

    /// Removes what is too old, forgets old message ids, and arms the next round.
    pub fn expire(&mut self, env: &mut Env) {
        while self.log.expire_at().is_some_and(|at| at <= env.now) {
            let Some((oldest, _)) = self.log.index.first() else { break };
            self.drop_message(oldest, env);
        }
        if let Some(below) = self.log.forget(env.now)
            && self.log.on_disk()
        {
            env.gate.op(StoreOp::DedupeTrim { stream: self.log.id, below });
        }
        self.arm(env);
    }

    /// Arms the timer for the next expiry.
    pub fn arm(&self, env: &mut Env) {
        let next = self.log.expire_at().into_iter().chain(self.log.forget_at()).min();
        if let Some(at) = next {
            env.timers.arm(TimerKey::Stream(self.log.id), at.max(env.now + ROUND_MIN));
        }
    }
}

/// The patterns under which a consumer is known to its stream.
fn patterns(config: &ConsumerConfig) -> Vec<String> {
    if config.filters().next().is_none() {
        vec![">".into()]
    } else {
        config.filters().map(str::to_owned).collect()
    }
}
