//! One stream with its consumers: what happens to the consumers when messages come and go.

use super::config::{Discard, Retention};
use super::consumer::Consumer;
use super::deliver::pump;
use super::effects::{ConsumerId, StoreOp};
use super::env::Env;
use super::log::Log;
use super::timers::TimerKey;
use std::collections::BTreeMap;

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
}

impl Stream {
    /// A stream without consumers.
    pub fn new(log: Log) -> Self {
        Self { log, consumers: BTreeMap::new(), names: BTreeMap::new() }
    }

    /// A consumer by name.
    pub fn consumer(&mut self, name: &str) -> Option<&mut Consumer> {
        self.consumers.get_mut(self.names.get(name)?)
    }

    /// Removes a message everywhere.
    pub fn drop_message(&mut self, seq: u64, env: &mut Env) -> bool {
        let Some(slot) = self.log.index.get(seq).copied() else { return false };
        for consumer in self.consumers.values_mut() {
            consumer.on_removed(&self.log, seq, slot.subject);
        }
        self.log.remove(seq);
        if self.log.on_disk() {
            env.gate.op(StoreOp::MessagesRemove {
                stream: self.log.id,
                first: seq,
                last: seq,
                last_seq: self.log.last_seq,
            });
        }
        true
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
            let done = self.log.config.retention == Retention::WorkQueue
                || self
                    .consumers
                    .values_mut()
                    .all(|consumer| consumer.is_done_with(&self.log, *seq, slot.subject));
            if done {
                self.drop_message(*seq, env);
            }
        }
    }

    /// A message is on disk: consumers may see it.
    pub fn visible(&mut self, seq: u64) {
        self.log.on_disk_up_to(seq);
        if let Some(slot) = self.log.index.get(seq).copied() {
            for consumer in self.consumers.values_mut() {
                consumer.on_visible(&self.log, seq, slot.subject);
            }
        }
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
                self.drop_message(oldest, env);
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
            self.drop_message(oldest, env);
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
        self.make_room(self.log.config.max_msgs, self.log.config.max_bytes, env);
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
