//! One consumer: where it stands, what awaits an ack, who waits for messages.

use super::clock;
use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy};
use super::effects::{ConsumerId, Pair, PendingRecord, StoreOp, StreamId};
use super::env::Env;
use super::log::Log;
use super::net::Nanos;
use super::records::{ConsumerRecord, StoredConsumer};
use super::subject::{Text, matches};
use super::timers::TimerKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A delivered message that awaits its ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Consumer sequence of the first delivery.
    pub consumer_seq: u64,
    /// Deliveries so far.
    pub count: u64,
    /// When it is delivered again; nothing while it is queued for that.
    pub due: Option<Nanos>,
}

/// A pull request that waits for messages.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the messages go.
    pub inbox: Text,
    /// Messages still wanted.
    pub left: u64,
    /// Messages it got.
    pub delivered: u64,
    /// When it ends.
    pub expires: Option<Nanos>,
    /// Ends as soon as nothing is left to deliver.
    pub no_wait: bool,
    /// Bytes still wanted.
    pub bytes_left: Option<u64>,
    /// Heartbeat interval in nanoseconds.
    pub heartbeat: Option<Nanos>,
    /// Next heartbeat.
    pub heartbeat_at: Nanos,
}

/// A consumer.
#[derive(Debug)]
pub struct Consumer {
    /// Its number.
    pub id: ConsumerId,
    /// Its stream's number.
    pub stream: StreamId,
    /// Its description.
    pub record: ConsumerRecord,
    /// Whether its state is kept on disk.
    pub stored: bool,
    /// Last delivery.
    pub delivered: Pair,
    /// When that was.
    pub delivered_at: Nanos,
    /// Everything up to here is settled.
    pub floor: Pair,
    /// When it last moved.
    pub floor_at: Nanos,
    /// The next stream sequence that it looks at.
    pub cursor: u64,
    /// With `last_per_subject`: sequences up to `record.resume` still to be delivered.
    pub initial: BTreeSet<u64>,
    /// Matching messages that were never delivered.
    pub num_pending: u64,
    /// What awaits an ack, by stream sequence.
    pub pending: BTreeMap<u64, Pending>,
    /// What is to be delivered again, in order.
    pub redeliver: VecDeque<u64>,
    /// Requests in turn.
    pub waiting: VecDeque<Request>,
    /// When a client last used it.
    pub active: Nanos,
    /// Next heartbeat of a push consumer.
    pub heartbeat_at: Nanos,
    /// Whether the subject of a push consumer has interest.
    pub attached: bool,
    due: BTreeSet<(Nanos, u64)>,
    matched: Vec<(u32, Option<bool>)>,
}

impl Consumer {
    /// A consumer that has delivered nothing, positioned as its policy says.
    pub fn new(id: ConsumerId, record: ConsumerRecord, stored: bool, log: &Log, now: Nanos) -> Self {
        let mut consumer = Self {
            id,
            stream: log.id,
            cursor: record.start,
            record,
            stored,
            delivered: Pair::default(),
            delivered_at: 0,
            floor: Pair::default(),
            floor_at: 0,
            initial: BTreeSet::new(),
            num_pending: 0,
            pending: BTreeMap::new(),
            redeliver: VecDeque::new(),
            waiting: VecDeque::new(),
            active: now,
            heartbeat_at: 0,
            attached: false,
            due: BTreeSet::new(),
            matched: Vec::new(),
        };
        consumer.delivered.stream = consumer.record.start.saturating_sub(1);
        consumer.look_back(log);
        consumer.num_pending = consumer.count_pending(log);
        consumer
    }

    /// A consumer as it was left in the store; what awaits an ack is due after the ack wait.
    pub fn recover(stored: StoredConsumer, log: &Log, now: Nanos) -> Self {
        let mut consumer = Self::new(stored.id, stored.record, true, log, now);
        if stored.delivered.consumer > 0 {
            consumer.delivered = stored.delivered;
            consumer.floor = stored.floor;
            let (stream, resume) = (stored.delivered.stream, consumer.record.resume);
            consumer.initial.retain(|seq| *seq > stream);
            consumer.cursor =
                consumer.cursor.max(stream + 1).max(if consumer.is_look_back() { resume + 1 } else { 0 });
        }
        for record in stored.pending {
            if log.index.get(record.sequence).is_none() {
                continue;
            }
            let due = now + consumer.wait(record.count);
            consumer.due.insert((due, record.sequence));
            consumer.pending.insert(
                record.sequence,
                Pending { consumer_seq: record.consumer_seq, count: record.count, due: Some(due) },
            );
        }
        if consumer.delivered.consumer > 0 {
            // What left the stream meanwhile holds the floor back no longer.
            consumer.settle_floor(0);
        }
        consumer.num_pending = consumer.count_pending(log);
        consumer
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Its configuration.
    pub fn config(&self) -> &ConsumerConfig {
        &self.record.config
    }

    /// Its timer.
    pub fn timer(&self) -> TimerKey {
        TimerKey::Consumer(self.stream, self.id)
    }

    fn is_look_back(&self) -> bool {
        self.config().deliver_policy == DeliverPolicy::LastPerSubject
    }

    fn look_back(&mut self, log: &Log) {
        if !self.is_look_back() {
            return;
        }
        let resume = self.record.resume;
        let mut initial = BTreeSet::new();
        for filter in self.config().filters() {
            for slot in log.subjects.matching(filter) {
                let older = slot.seqs.partition_point(|seq| *seq <= resume);
                if older > 0 {
                    initial.insert(slot.seqs[older - 1]);
                }
            }
        }
        if let Some(first) = initial.first() {
            self.delivered.stream = first - 1;
        }
        self.initial = initial;
        self.cursor = resume + 1;
    }

    /// Counts the matching messages that were never delivered.
    pub fn count_pending(&self, log: &Log) -> u64 {
        let mut count = self.initial.len() as u64;
        if self.config().filters().next().is_none() {
            count += log.index.count_from(self.cursor) - log.index.count_from(log.visible + 1);
        } else {
            for (_, slot) in self.filtered_subjects(log) {
                let upto = slot.partition_point(|seq| *seq <= log.visible);
                count += (upto - slot.partition_point(|seq| *seq < self.cursor).min(upto)) as u64;
            }
        }
        count
    }

    fn filtered_subjects<'a>(&'a self, log: &'a Log) -> BTreeMap<&'a str, &'a VecDeque<u64>> {
        let mut found = BTreeMap::new();
        for filter in self.config().filters() {
            for slot in log.subjects.matching(filter) {
                found.insert(&*slot.name, &slot.seqs);
            }
        }
        found
    }

    /// Whether it wants messages of this subject (by its number in the log).
    pub fn wants(&mut self, log: &Log, subject: u32) -> bool {
        if self.record.config.filter_subject.is_empty() && self.record.config.filter_subjects.is_empty() {
            return true;
        }
        let slot = log.subjects.slot(subject);
        let at = subject as usize;
        if self.matched.len() <= at {
            self.matched.resize(at + 1, (0, None));
        }
        if let (generation, Some(known)) = self.matched[at]
            && generation == slot.generation
        {
            return known;
        }
        let wanted = self.record.config.filters().any(|filter| matches(filter, &slot.name));
        self.matched[at] = (slot.generation, Some(wanted));
        wanted
    }

    /// Forgets which subjects it wants: its filters changed.
    pub fn filters_changed(&mut self, log: &Log) {
        self.matched.clear();
        self.num_pending = self.count_pending(log);
    }

    /// A message became visible.
    pub fn on_visible(&mut self, log: &Log, seq: u64, subject: u32) {
        if seq >= self.cursor && self.wants(log, subject) {
            self.num_pending += 1;
        }
    }

    /// A message is about to be removed from the log.
    pub fn on_removed(&mut self, log: &Log, seq: u64, subject: u32) {
        let undelivered = self.initial.remove(&seq)
            || (seq >= self.cursor && seq <= log.visible && self.wants(log, subject));
        if undelivered {
            self.num_pending = self.num_pending.saturating_sub(1);
        }
    }

    /// Time until a message that was delivered `count` times is delivered again.
    pub fn wait(&self, count: u64) -> Nanos {
        let backoff = &self.config().backoff;
        let step = (count.max(1) as usize - 1).min(backoff.len().saturating_sub(1));
        backoff.get(step).copied().unwrap_or(self.config().ack_wait).max(0) as u64
    }

    /// Whether deliveries await acks at all.
    pub fn tracks(&self) -> bool {
        self.config().ack_policy != AckPolicy::None
    }

    /// The next message to hand out, if there is one: its sequence and whether it is a redelivery.
    pub fn next(&mut self, log: &Log) -> Option<(u64, bool)> {
        if let Some(seq) = self.redeliver.front() {
            return Some((*seq, true));
        }
        let max = self.config().max_ack_pending;
        if self.tracks() && max > 0 && self.pending.len() as i64 >= max {
            return None;
        }
        if let Some(seq) = self.initial.first() {
            return Some((*seq, false));
        }
        let all = self.record.config.filters().next().is_none();
        let mut found = None;
        let mut passed = self.cursor;
        for (seq, slot) in log.index.from(self.cursor) {
            if seq > log.visible {
                break;
            }
            if all || self.wants(log, slot.subject) {
                found = Some(seq);
                passed = seq;
                break;
            }
            passed = seq + 1;
        }
        self.cursor = passed;
        found.map(|seq| (seq, false))
    }

    /// Books a delivery; returns how often this message was delivered now.
    pub fn book(&mut self, seq: u64, again: bool, env: &mut Env) -> u64 {
        self.delivered.consumer += 1;
        self.delivered_at = env.now;
        self.active = env.now;
        if again {
            self.redeliver.pop_front();
        } else {
            if !self.initial.remove(&seq) {
                self.cursor = seq + 1;
            }
            self.num_pending = self.num_pending.saturating_sub(1);
            self.delivered.stream = self.delivered.stream.max(seq);
        }
        let mut pending = None;
        let mut count = 1;
        if self.tracks() {
            let consumer_seq = self.delivered.consumer;
            let known = self.pending.get(&seq).map(|known| (known.consumer_seq, known.count));
            let (consumer_seq, so_far) = known.unwrap_or((consumer_seq, 0));
            count = so_far + 1;
            let due = env.now + self.wait(count);
            self.pending.insert(seq, Pending { consumer_seq, count, due: Some(due) });
            self.schedule(due, seq, env);
            pending = Some(PendingRecord { sequence: seq, consumer_seq, count });
        } else {
            self.floor = self.delivered;
            self.floor_at = env.now;
        }
        if self.stored {
            env.gate.op(StoreOp::Delivered {
                consumer: self.id,
                delivered: self.delivered,
                pending,
                floor: self.floor,
            });
        }
        count
    }

    fn schedule(&mut self, due: Nanos, seq: u64, env: &mut Env) {
        self.due.insert((due, seq));
        if self.due.first() == Some(&(due, seq)) {
            env.timers.arm(self.timer(), due);
        }
    }

    fn unschedule(&mut self, seq: u64, pending: &Pending) {
        match pending.due {
            Some(due) => {
                self.due.remove(&(due, seq));
            }
            None => self.redeliver.retain(|queued| *queued != seq),
        }
    }

    fn settle_floor(&mut self, now: Nanos) {
        let floor = match self.pending.first_key_value() {
            None => self.delivered,
            Some((seq, pending)) => {
                Pair { consumer: pending.consumer_seq.saturating_sub(1), stream: seq.saturating_sub(1) }
            }
        };
        if floor.stream > self.floor.stream || floor.consumer > self.floor.consumer {
            self.floor = Pair {
                consumer: floor.consumer.max(self.floor.consumer),
                stream: floor.stream.max(self.floor.stream),
            };
            self.floor_at = now;
        }
    }

    /// Settles one message; false if it awaited nothing.
    pub fn settle(&mut self, seq: u64, env: &mut Env) -> bool {
        let Some(pending) = self.pending.remove(&seq) else { return false };
        self.unschedule(seq, &pending);
        self.settle_floor(env.now);
        if self.stored {
            env.gate.op(StoreOp::Settled {
                consumer: self.id,
                sequence: seq,
                through: false,
                floor: self.floor,
            });
        }
        true
    }

    /// Settles everything up to a sequence; returns what that was.
    pub fn settle_through(&mut self, seq: u64, env: &mut Env) -> Vec<u64> {
        let settled: Vec<u64> = self.pending.range(..=seq).map(|(seq, _)| *seq).collect();
        for one in &settled {
            if let Some(pending) = self.pending.remove(one) {
                self.unschedule(*one, &pending);
            }
        }
        if !settled.is_empty() {
            self.settle_floor(env.now);
            if self.stored {
                env.gate.op(StoreOp::Settled {
                    consumer: self.id,
                    sequence: seq,
                    through: true,
                    floor: self.floor,
                });
            }
        }
        settled
    }

    /// Queues a message for another delivery, now or after `delay` nanoseconds.
    pub fn nak(&mut self, seq: u64, delay: Nanos, env: &mut Env) {
        let Some(pending) = self.pending.get(&seq).copied() else { return };
        self.unschedule(seq, &pending);
        if delay == 0 {
            self.pending.insert(seq, Pending { due: None, ..pending });
            self.redeliver.push_back(seq);
        } else {
            let due = env.now.saturating_add(delay);
            self.pending.insert(seq, Pending { due: Some(due), ..pending });
            self.schedule(due, seq, env);
        }
    }

    /// Restarts the ack wait of a message.
    pub fn in_progress(&mut self, seq: u64, env: &mut Env) {
        let Some(pending) = self.pending.get(&seq).copied().filter(|pending| pending.due.is_some()) else {
            return;
        };
        self.unschedule(seq, &pending);
        let due = env.now + self.wait(pending.count);
        self.pending.insert(seq, Pending { due: Some(due), ..pending });
        self.schedule(due, seq, env);
    }

    /// Queues for redelivery what was not acked in time; returns what had its last delivery.
    pub fn overdue(&mut self, env: &mut Env) -> Vec<u64> {
        let mut exhausted = Vec::new();
        while let Some((due, seq)) = self.due.first().copied().filter(|(due, _)| *due <= env.now) {
            self.due.remove(&(due, seq));
            if let Some(pending) = self.pending.get_mut(&seq) {
                pending.due = None;
                if self.record.config.max_deliver > 0
                    && pending.count as i64 >= self.record.config.max_deliver
                {
                    exhausted.push(seq);
                } else {
                    self.redeliver.push_back(seq);
                }
            }
        }
        exhausted
    }

    /// When the next message is due for redelivery.
    pub fn due_next(&self) -> Option<Nanos> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Messages that were delivered more than once and await an ack.
    pub fn num_redelivered(&self) -> usize {
        self.pending.values().filter(|pending| pending.count > 1).count()
    }

    /// Whether a sequence is behind it for good: delivered and settled, or not wanted.
    pub fn is_done_with(&mut self, log: &Log, seq: u64, subject: u32) -> bool {
        if !self.wants(log, subject) {
            return true;
        }
        if self.initial.contains(&seq) || self.pending.contains_key(&seq) {
            return false;
        }
        seq < self.cursor
    }
}

/// The first sequence that a new consumer looks at, and the sequence from which it looks back.
pub fn start_of(config: &ConsumerConfig, log: &Log) -> u64 {
    match config.deliver_policy {
        DeliverPolicy::All => log.first_seq().max(1),
        DeliverPolicy::New | DeliverPolicy::LastPerSubject => log.last_seq + 1,
        DeliverPolicy::ByStartSequence => config.opt_start_seq.max(log.first_seq()).max(1),
        DeliverPolicy::ByStartTime => {
            let at = config.opt_start_time.as_deref().and_then(clock::parse).unwrap_or(0);
            log.index.from(0).find(|(_, slot)| slot.ts >= at).map_or(log.last_seq + 1, |(seq, _)| seq)
        }
        DeliverPolicy::Last => {
            let mut last = None;
            if config.filters().next().is_none() {
                last = (log.last_seq > 0 && log.index.get(log.last_seq).is_some()).then_some(log.last_seq);
                if last.is_none() {
                    last = log.index.from(0).last().map(|(seq, _)| seq);
                }
            }
            for filter in config.filters() {
                last = last
                    .max(log.subjects.matching(filter).filter_map(|slot| slot.seqs.back().copied()).max());
            }
            last.unwrap_or(log.last_seq + 1)
        }
    }
}

/// Text of an ack subject.
pub fn ack_subject(
    stream: &str,
    consumer: &str,
    count: u64,
    pair: Pair,
    ts: Nanos,
    pending: u64,
) -> Arc<str> {
    format!("$JS.ACK.{stream}.{consumer}.{count}.{}.{}.{ts}.{pending}", pair.stream, pair.consumer).into()
}
