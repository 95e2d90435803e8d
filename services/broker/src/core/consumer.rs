//! One consumer: where it stands, what awaits an ack, who waits for messages.

use super::clock;
use super::config::{AckPolicy, ConsumerConfig, DeliverPolicy};
use super::effects::{ConsumerId, Pair, PendingRecord, StoreOp, StreamId};
use super::env::Env;
use super::log::{Log, SubjectSlot};
use super::net::Nanos;
use super::records::{ConsumerRecord, StoredConsumer};
use super::subject::{Text, matches};
use super::timers::TimerKey;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Bytes under way to a push consumer with flow control above which nothing more is sent (the original's).
const FLOW_WINDOW_MAX: u64 = 32 << 20;
/// The window that flow control begins with; each answer doubles it.
const FLOW_WINDOW_FIRST: u64 = FLOW_WINDOW_MAX / 16;

/// A delivered message that awaits its ack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// Consumer sequence of the first delivery.
    pub consumer_seq: u64,
    /// Deliveries so far.
    pub count: u64,
    /// When it is delivered again.
    pub turn: Turn,
}

/// When a message is delivered again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// When this time comes.
    At(Nanos),
    /// Next, in the order of these numbers.
    Queued(u64),
}

/// What a consumer would hand out next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// A message for the first time.
    New(u64),
    /// A message again.
    Again(u64),
    /// There is something, but too much awaits an ack.
    Held,
    /// There is nothing.
    Nothing,
}

/// Flow control of a push consumer: how much is under way, and the request that the client has to answer.
#[derive(Debug, Default)]
pub struct Flow {
    /// Bytes that may be under way; zero without flow control.
    window: u64,
    /// Bytes under way.
    under_way: u64,
    /// The open request's reply subject.
    pub asked: Option<Arc<str>>,
    /// Bytes that its answer accounts for.
    asked_bytes: u64,
}

impl Flow {
    /// Nothing is under way.
    pub fn new(config: &ConsumerConfig) -> Self {
        Self { window: if config.flow_control { FLOW_WINDOW_FIRST } else { 0 }, ..Self::default() }
    }

    /// Whether the client has to answer before it is sent more.
    pub fn is_stalled(&self) -> bool {
        self.window > 0 && self.under_way > self.window
    }

    /// Counts a message; whether the client is to be asked now.
    pub fn sent(&mut self, bytes: u64) -> bool {
        if self.window == 0 {
            return false;
        }
        self.under_way += bytes;
        if self.asked.is_some() && self.under_way.saturating_sub(self.asked_bytes) >= self.window {
            self.asked_bytes += bytes;
        }
        self.asked.is_none() && self.under_way > self.window / 2
    }

    /// Notes an open request.
    pub fn ask(&mut self, reply: Arc<str>) {
        self.asked_bytes = self.under_way;
        self.asked = Some(reply);
    }

    /// Takes an answer; false if it is not the one that is awaited.
    pub fn answered(&mut self, reply: &str) -> bool {
        if self.asked.as_deref() != Some(reply) {
            return false;
        }
        self.window = (self.window * 2).min(FLOW_WINDOW_MAX);
        self.under_way = self.under_way.saturating_sub(self.asked_bytes);
        self.asked = None;
        self.asked_bytes = 0;
        true
    }
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
    /// What had its last delivery and no ack, with the consumer sequence of the first one: it holds the floor back and
    /// stays in the stream, and a late ack still settles it.
    pub exhausted: BTreeMap<u64, u64>,
    redeliver: BTreeMap<u64, u64>,
    redeliver_last: u64,
    /// Requests in turn.
    pub waiting: VecDeque<Request>,
    /// When a client last used it.
    pub active: Nanos,
    /// Next heartbeat of a push consumer.
    pub heartbeat_at: Nanos,
    /// Whether the subject of a push consumer has interest.
    pub attached: bool,
    /// Flow control of a push consumer.
    pub flow: Flow,
    due: BTreeSet<(Nanos, u64)>,
}

impl Consumer {
    /// A consumer that has delivered nothing, positioned as its policy says.
    pub fn new(id: ConsumerId, record: ConsumerRecord, stored: bool, log: &Log, now: Nanos) -> Self {
        let flow = Flow::new(&record.config);
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
            exhausted: BTreeMap::new(),
            redeliver: BTreeMap::new(),
            redeliver_last: 0,
            waiting: VecDeque::new(),
            active: now,
            heartbeat_at: 0,
            attached: false,
            flow,
            due: BTreeSet::new(),
        };
        consumer.delivered.stream = consumer.record.start.saturating_sub(1);
        consumer.look_back(log);
        consumer.floor.stream = consumer.delivered.stream;
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
            if consumer.is_last(record.count) {
                consumer.exhausted.insert(record.sequence, record.consumer_seq);
                continue;
            }
            let due = now + consumer.wait(record.count);
            consumer.due.insert((due, record.sequence));
            consumer.pending.insert(
                record.sequence,
                Pending { consumer_seq: record.consumer_seq, count: record.count, turn: Turn::At(due) },
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

    /// Whether a message that was delivered so often is not delivered again.
    fn is_last(&self, count: u64) -> bool {
        let max = self.config().max_deliver;
        max > 0 && count as i64 >= max
    }

    fn is_look_back(&self) -> bool {
        self.config().deliver_policy == DeliverPolicy::LastPerSubject
    }

    fn look_back(&mut self, log: &Log) {
        if !self.is_look_back() {
            return;
        }
        let resume = self.record.resume;
        let last_of = |slot: &SubjectSlot| match slot.seqs.back() {
            Some(last) if *last > resume => {
                let older = slot.seqs.partition_point(|seq| *seq <= resume);
                older.checked_sub(1).map(|at| slot.seqs[at])
            }
            last => last.copied(),
        };
        let slots = self.config().filters().flat_map(|filter| log.subjects.matching(filter));
        let mut found: Vec<u64> = slots.filter_map(last_of).collect();
        // A set is built from sorted numbers in one go.
        found.sort_unstable();
        let initial: BTreeSet<u64> = found.into_iter().collect();
        if let Some(first) = initial.first() {
            self.delivered.stream = first - 1;
        }
        self.initial = initial;
        self.cursor = resume + 1;
    }

    /// Counts the matching messages that were never delivered.
    pub fn count_pending(&self, log: &Log) -> u64 {
        let mut count = self.initial.len() as u64;
        if self.cursor > log.visible {
            return count;
        }
        if self.wants_all() {
            count += log.index.count_from(self.cursor) - log.index.count_from(log.visible + 1);
        } else {
            // Filters do not overlap: no subject is found twice.
            for slot in self.config().filters().flat_map(|filter| log.subjects.matching(filter)) {
                let upto = slot.seqs.partition_point(|seq| *seq <= log.visible);
                count += (upto - slot.seqs.partition_point(|seq| *seq < self.cursor).min(upto)) as u64;
            }
        }
        count
    }

    /// Whether it wants every message.
    fn wants_all(&self) -> bool {
        let mut filters = self.config().filters();
        filters.next().is_none_or(|first| first == ">" || filters.any(|filter| filter == ">"))
    }

    /// Whether it wants messages of this subject.
    pub fn wants(&self, subject: &str) -> bool {
        self.wants_all() || self.config().filters().any(|filter| matches(filter, subject))
    }

    /// Its filters changed.
    pub fn filters_changed(&mut self, log: &Log) {
        self.num_pending = self.count_pending(log);
    }

    /// A message that it wants became visible.
    pub fn on_visible(&mut self, seq: u64) {
        if seq >= self.cursor {
            self.num_pending += 1;
        }
    }

    /// A message that it wants is about to be removed from the log: it is owed no longer, nor is its ack.
    pub fn on_removed(&mut self, visible: u64, seq: u64, env: &mut Env) {
        if self.initial.remove(&seq) || (seq >= self.cursor && seq <= visible) {
            self.num_pending = self.num_pending.saturating_sub(1);
        }
        if self.settle(seq, env) {
            // There may be room for others among what awaits an ack.
            env.timers.arm(self.timer(), env.now);
        }
    }

    /// Every message up to `visible` is about to be removed.
    pub fn on_cleared(&mut self, visible: u64, env: &mut Env) {
        self.initial.clear();
        self.num_pending = 0;
        self.cursor = self.cursor.max(visible + 1);
        if !self.settle_through(visible, env).is_empty() {
            env.timers.arm(self.timer(), env.now);
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

    /// What it would hand out next.
    pub fn next(&mut self, log: &Log) -> Next {
        if let Some((_, seq)) = self.redeliver.first_key_value() {
            return Next::Again(*seq);
        }
        let max = self.config().max_ack_pending;
        if self.tracks() && max > 0 && self.pending.len() as i64 >= max {
            return if self.num_pending > 0 { Next::Held } else { Next::Nothing };
        }
        if let Some(seq) = self.initial.first() {
            return Next::New(*seq);
        }
        let found = if self.wants_all() {
            log.index.from(self.cursor).next().map(|(seq, _)| seq)
        } else {
            log.next_matching(self.config().filters(), self.cursor)
        };
        self.cursor = self.cursor.max(found.unwrap_or(u64::MAX).min(log.visible + 1));
        found.filter(|seq| *seq <= log.visible).map_or(Next::Nothing, Next::New)
    }

    /// Books a delivery; returns how often this message was delivered now.
    pub fn book(&mut self, seq: u64, again: bool, env: &mut Env) -> u64 {
        self.delivered.consumer += 1;
        self.delivered_at = env.now;
        self.active = env.now;
        if again {
            self.redeliver.pop_first();
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
            self.pending.insert(seq, Pending { consumer_seq, count, turn: Turn::At(due) });
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
        match pending.turn {
            Turn::At(due) => {
                self.due.remove(&(due, seq));
            }
            Turn::Queued(order) => {
                self.redeliver.remove(&order);
            }
        }
    }

    /// Queues what awaits an ack for redelivery.
    fn queue(&mut self, seq: u64) {
        if let Some(pending) = self.pending.get_mut(&seq) {
            self.redeliver_last += 1;
            pending.turn = Turn::Queued(self.redeliver_last);
            self.redeliver.insert(self.redeliver_last, seq);
        }
    }

    fn settle_floor(&mut self, now: Nanos) {
        let pending = self.pending.first_key_value().map(|(seq, pending)| (*seq, pending.consumer_seq));
        let exhausted = self.exhausted.first_key_value().map(|(seq, consumer_seq)| (*seq, *consumer_seq));
        let floor = match pending.into_iter().chain(exhausted).min() {
            None => self.delivered,
            Some((seq, consumer_seq)) => {
                Pair { consumer: consumer_seq.saturating_sub(1), stream: seq.saturating_sub(1) }
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
        if let Some(pending) = self.pending.remove(&seq) {
            self.unschedule(seq, &pending);
        } else if self.exhausted.remove(&seq).is_none() {
            return false;
        }
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
        let mut settled: Vec<u64> = self.pending.range(..=seq).map(|(seq, _)| *seq).collect();
        settled.extend(self.exhausted.range(..=seq).map(|(seq, _)| *seq));
        for one in &settled {
            if let Some(pending) = self.pending.remove(one) {
                self.unschedule(*one, &pending);
            }
            self.exhausted.remove(one);
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
            self.queue(seq);
        } else {
            let due = env.now.saturating_add(delay);
            self.pending.insert(seq, Pending { turn: Turn::At(due), ..pending });
            self.schedule(due, seq, env);
        }
    }

    /// Restarts the ack wait of a message.
    pub fn in_progress(&mut self, seq: u64, env: &mut Env) {
        let Some(pending) = self.pending.get(&seq).copied() else { return };
        let Turn::At(_) = pending.turn else { return };
        self.unschedule(seq, &pending);
        let due = env.now + self.wait(pending.count);
        self.pending.insert(seq, Pending { turn: Turn::At(due), ..pending });
        self.schedule(due, seq, env);
    }

    /// Queues for redelivery what was not acked in time; returns what had its last delivery.
    pub fn overdue(&mut self, env: &mut Env) -> Vec<u64> {
        let mut exhausted = Vec::new();
        while let Some((due, seq)) = self.due.first().copied().filter(|(due, _)| *due <= env.now) {
            self.due.remove(&(due, seq));
            if self.pending.get(&seq).is_some_and(|pending| self.is_last(pending.count)) {
                exhausted.push(seq);
            } else {
                self.queue(seq);
            }
        }
        exhausted
    }

    /// Gives up what had its last delivery; returns how often that was, or nothing when it may still be delivered.
    pub fn exhaust(&mut self, seq: u64) -> Option<u64> {
        let pending = self.pending.get(&seq).copied().filter(|pending| self.is_last(pending.count))?;
        self.pending.remove(&seq);
        self.unschedule(seq, &pending);
        self.exhausted.insert(seq, pending.consumer_seq);
        Some(pending.count)
    }

    /// When the next message is due for redelivery.
    pub fn due_next(&self) -> Option<Nanos> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Messages that were delivered more than once and await an ack.
    pub fn num_redelivered(&self) -> usize {
        self.pending.values().filter(|pending| pending.count > 1).count()
    }

    /// Whether a sequence that it wants is behind it for good: delivered and settled.
    pub fn is_done_with(&self, seq: u64) -> bool {
        seq < self.cursor
            && !self.initial.contains(&seq)
            && !self.pending.contains_key(&seq)
            && !self.exhausted.contains_key(&seq)
    }

    /// Messages that are in the stream for its sake, perhaps.
    pub fn holds<'a>(&'a self, log: &'a Log) -> impl Iterator<Item = u64> + 'a {
        let known = self.pending.keys().chain(self.exhausted.keys()).chain(&self.initial).copied();
        known.chain(log.index.from(self.cursor).map(|(seq, _)| seq))
    }

    /// Whether it has gone past a sequence, or delivered it.
    pub fn has_passed(&self, seq: u64) -> bool {
        seq < self.cursor || self.pending.contains_key(&seq)
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
            log.at_time(at).unwrap_or(log.last_seq + 1)
        }
        DeliverPolicy::Last => {
            let last = match config.filters().next() {
                None => log.index.back().next().map(|(seq, _)| seq),
                Some(_) => config.filters().filter_map(|filter| log.last_matching(filter)).max(),
            };
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
