//! The core against a naive model: random publishes, pulls, acks, naks, terms, time and crashes on a simulated disk.
//!
//! The model keeps a plain list of messages and a plain table of pending deliveries. Every answer and delivery of the
//! core must be one that the model allows, nothing that can be delivered may be withheld, and after a crash the core
//! must stand where the model stood at the last change that reached the disk.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::BytesMut;
use fafnir_broker::core::effects::{Pair, PendingRecord, StoreOp};
use fafnir_broker::core::log::{Log, Message};
use fafnir_broker::core::net::Nanos;
use fafnir_broker::core::random::Random;
use fafnir_broker::core::records::{ConsumerRecord, StoredConsumer, StoredStream, StreamRecord};
use fafnir_broker::core::wire::Parser;
use fafnir_broker::core::{Core, Input, Recovered, Securing, Settings};
use serde_json::Value;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

const OPERATIONS: usize = 10_000;
const MS: Nanos = 1_000_000;
const START: Nanos = 1_800_000_000_000 * MS;
const ACK_WAIT: Nanos = 500 * MS;
const WINDOW: Nanos = 2_000 * MS;
const MAX_MSGS: usize = 60;
const MAX_ACK_PENDING: usize = 8;
const MAX_DELIVER: u64 = 4;

/// What reached the simulated disk.
#[derive(Default)]
struct Disk {
    stream: Option<StreamRecord>,
    last_seq: u64,
    messages: BTreeMap<u64, (Message, u32)>,
    dedupe: BTreeMap<u64, (Nanos, Box<str>)>,
    consumer: Option<(u32, ConsumerRecord)>,
    delivered: Pair,
    floor: Pair,
    pending: BTreeMap<u64, PendingRecord>,
}

impl Disk {
    fn apply(&mut self, op: &StoreOp) {
        match op {
            StoreOp::StreamPut { json, .. } => self.stream = Some(serde_json::from_str(json).unwrap()),
            StoreOp::MessagePut { message, size, dedupe, .. } => {
                assert!(message.seq > self.last_seq, "sequence {} is used twice", message.seq);
                self.last_seq = message.seq;
                if let Some(id) = dedupe {
                    self.dedupe.insert(message.seq, (message.ts, id.clone()));
                }
                self.messages.insert(message.seq, ((**message).clone(), *size));
            }
            StoreOp::MessagesRemove { first, last, last_seq, .. } => {
                self.messages.retain(|seq, _| seq < first || seq > last);
                self.last_seq = self.last_seq.max(*last_seq);
            }
            StoreOp::DedupeTrim { below, .. } => self.dedupe.retain(|seq, _| seq >= below),
            StoreOp::ConsumerPut { consumer, json, .. } => {
                self.consumer = Some((*consumer, serde_json::from_str(json).unwrap()));
            }
            StoreOp::Delivered { delivered, pending, floor, .. } => {
                (self.delivered, self.floor) = (*delivered, *floor);
                if let Some(record) = pending {
                    self.pending.insert(record.sequence, *record);
                }
            }
            StoreOp::Settled { sequence, floor, .. } => {
                self.floor = *floor;
                self.pending.remove(sequence);
            }
            StoreOp::StreamDrop { .. } | StoreOp::ConsumerDrop { .. } => {
                unreachable!("nothing is dropped here")
            }
        }
    }

    fn recover(&self, now: Nanos) -> Recovered {
        let Some(record) = self.stream.clone() else { return Recovered::default() };
        let mut log = Log::new(1, record.config.clone(), record.created);
        for (message, size) in self.messages.values() {
            log.recover(message.seq, message.ts, *size, &message.subject);
        }
        let cutoff = now.saturating_sub(WINDOW);
        let dedupe = self.dedupe.iter().filter(|(_, (ts, _))| *ts > cutoff);
        let consumers = self.consumer.iter().map(|(id, record)| StoredConsumer {
            id: *id,
            record: record.clone(),
            delivered: self.delivered,
            floor: self.floor,
            pending: self.pending.values().copied().collect(),
        });
        let stored = StoredStream {
            id: 1,
            record,
            last_seq: self.last_seq,
            dedupe: dedupe.map(|(seq, (ts, id))| (*seq, *ts, id.clone())).collect(),
            consumers: consumers.collect(),
        };
        Recovered { streams: vec![(log, stored)], stream_last: 1, consumer_last: 1 }
    }
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    count: u64,
    /// When it may come again.
    due: Nanos,
    /// Had its last delivery: it is not delivered again, but holds the floor back until it is acked or leaves.
    over: bool,
}

/// The naive model.
#[derive(Clone, Default)]
struct Model {
    messages: BTreeMap<u64, Rc<(String, String)>>,
    last_seq: u64,
    visible: u64,
    ids: BTreeMap<Rc<str>, (u64, Nanos)>,
    delivered: u64,
    consumer_seq: u64,
    pending: BTreeMap<u64, Outstanding>,
}

impl Model {
    fn unseen(&self) -> impl Iterator<Item = u64> {
        self.messages.range(self.delivered + 1..).map(|(seq, _)| *seq).take_while(|seq| *seq <= self.visible)
    }

    fn next_new(&self, now: Nanos) -> Option<u64> {
        let open =
            self.pending.iter().filter(|(seq, out)| !out.over && !self.is_over(**seq, out, now)).count();
        if open >= MAX_ACK_PENDING { None } else { self.unseen().next() }
    }

    fn is_over(&self, seq: u64, out: &Outstanding, now: Nanos) -> bool {
        debug_assert!(self.messages.contains_key(&seq));
        out.due <= now && out.count >= MAX_DELIVER
    }

    fn redeliverable(&self, now: Nanos) -> Option<u64> {
        let ready = |(seq, out): (&u64, &Outstanding)| {
            (!out.over && out.due <= now && !self.is_over(*seq, out, now)).then_some(*seq)
        };
        self.pending.iter().find_map(ready)
    }

    fn publish(&mut self, now: Nanos, subject: &str, payload: &str, id: Option<&str>) -> String {
        self.ids.retain(|_, (_, at)| *at + WINDOW > now);
        if let Some((seq, _)) = id.and_then(|id| self.ids.get(id)) {
            return format!("{{\"stream\":\"S\", \"seq\":{seq},\"duplicate\": true}}");
        }
        self.last_seq += 1;
        self.messages.insert(self.last_seq, Rc::new((subject.into(), payload.into())));
        if let Some(id) = id {
            self.ids.insert(id.into(), (self.last_seq, now));
        }
        while self.messages.len() > MAX_MSGS {
            if let Some((seq, _)) = self.messages.pop_first() {
                self.pending.remove(&seq);
            }
        }
        format!("{{\"stream\":\"S\", \"seq\":{}}}", self.last_seq)
    }
}

/// A delivery that the client has not answered.
struct Delivery {
    ack: String,
    sequence: u64,
}

struct World {
    seed: u64,
    step: usize,
    now: Nanos,
    core: Core,
    disk: Disk,
    /// Changes on their way to the disk, by batch, with the model as it stood after each.
    flight: VecDeque<(Vec<StoreOp>, u64, Model)>,
    model: Model,
    /// The model as it stood at the last change on disk.
    base: Model,
    inbox: BytesMut,
    /// PubAcks in the order in which they must come.
    expected: VecDeque<String>,
    /// States that CONSUMER.INFO must tell.
    infos: VecDeque<(Model, Nanos)>,
    wanted: i64,
    pulls: u64,
    held: Vec<Delivery>,
    published: u64,
    deliveries: u64,
    redeliveries: u64,
    crashes: u64,
}

fn settings(seed: u64) -> Settings {
    Settings {
        server_name: "model".into(),
        server_id: "MODEL".into(),
        host: "127.0.0.1".into(),
        port: 4222,
        accounts: Vec::new(),
        payload_max: 1 << 20,
        connections_max: 10,
        subscriptions_max: 100,
        pending_max: 1 << 20,
        streams_max: 10,
        consumers_max: 10,
        auth_timeout: 2000 * MS,
        ping_interval: 1_000_000_000 * MS,
        seed,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut world = Self {
            seed,
            step: 0,
            now: START,
            core: Core::new(settings(seed), Recovered::default(), START),
            disk: Disk::default(),
            flight: VecDeque::new(),
            model: Model::default(),
            base: Model::default(),
            inbox: BytesMut::new(),
            expected: VecDeque::new(),
            infos: VecDeque::new(),
            wanted: 0,
            pulls: 0,
            held: Vec::new(),
            published: 0,
            deliveries: 0,
            redeliveries: 0,
            crashes: 0,
        };
        world.connect();
        world.send(
            "PUB $JS.API.STREAM.CREATE.S r.api",
            r#"{"name":"S","subjects":["s.*"],"max_msgs":60,"duplicate_window":2000000000}"#,
        );
        world.sync();
        world.send(
            "PUB $JS.API.CONSUMER.CREATE.S.C r.api",
            r#"{"stream_name":"S","config":{"durable_name":"C","ack_policy":"explicit","ack_wait":500000000,"max_ack_pending":8,"max_deliver":4}}"#,
        );
        world.sync();
        world
    }

    fn fail(&self, why: &str) -> ! {
        panic!("seed {} step {}: {why}", self.seed, self.step)
    }

    fn raw(&mut self, bytes: &[u8]) {
        let mut buffer = BytesMut::from(bytes);
        let mut parser = Parser::new(1 << 20);
        while let Some(op) = parser.next(&mut buffer).unwrap() {
            self.input(Input::Op { conn: 1, op });
        }
    }

    fn connect(&mut self) {
        self.input(Input::Open { conn: 1, peer: "127.0.0.1:1".into(), securing: Securing::No });
        self.raw(b"CONNECT {\"headers\":true,\"no_responders\":true}\r\nSUB r.> 1\r\nSUB in.> 2\r\n");
    }

    fn send(&mut self, head: &str, payload: &str) {
        self.raw(format!("{head} {}\r\n{payload}\r\n", payload.len()).as_bytes());
    }

    fn input(&mut self, input: Input) {
        self.core.step(self.now, input);
        self.collect();
        // Nothing that can be delivered is withheld.
        if self.wanted > 0 {
            if let Some(seq) = self.model.redeliverable(self.now) {
                self.fail(&format!("redelivery of {seq} is withheld"));
            }
            if let Some(seq) = self.model.next_new(self.now) {
                self.fail(&format!("message {seq} is withheld"));
            }
        }
    }

    fn collect(&mut self) {
        loop {
            let effects = self.core.effects();
            for (_, bytes) in effects.writes {
                self.inbox.extend_from_slice(&bytes);
            }
            self.read();
            let now = self.now;
            for out in self.model.pending.values_mut() {
                out.over |= out.due <= now && out.count >= MAX_DELIVER;
            }
            if !effects.ops.is_empty() {
                self.flight.push_back((effects.ops, effects.ops_last, self.model.clone()));
            }
            if effects.loads.is_empty() {
                return;
            }
            for load in effects.loads {
                let messages = self.disk.messages.range(load.from..).take(load.count_max);
                let messages = messages.map(|(_, (message, _))| message.clone()).collect();
                self.core
                    .step(self.now, Input::Loaded { stream: load.stream, getter: load.getter, messages });
            }
        }
    }

    /// Commits the oldest batches under way.
    fn commit(&mut self, batches: usize) {
        let mut upto = None;
        for _ in 0..batches {
            let Some((ops, last, stood)) = self.flight.pop_front() else { break };
            for op in &ops {
                self.disk.apply(op);
            }
            self.base = stood;
            upto = Some(last);
        }
        if let Some(upto) = upto {
            self.model.visible = self.disk.last_seq;
            self.input(Input::Durable { upto });
        }
    }

    fn sync(&mut self) {
        while !self.flight.is_empty() {
            self.commit(usize::MAX);
        }
    }

    /// The process ends; some of what was under way had reached the disk.
    fn crash(&mut self, random: &mut Random) {
        self.crashes += 1;
        for _ in 0..random.below(self.flight.len() as u64 + 1) {
            let Some((ops, _, stood)) = self.flight.pop_front() else { break };
            for op in &ops {
                self.disk.apply(op);
            }
            self.base = stood;
        }
        self.flight.clear();
        self.expected.clear();
        self.infos.clear();
        self.wanted = 0;
        self.inbox.clear();
        self.now += random.below(100) * MS;
        self.model = self.base.clone();
        self.model.visible = self.disk.last_seq;
        let due = self.now + ACK_WAIT;
        for out in self.model.pending.values_mut() {
            // Its last delivery was before: it waits for an ack, not for another delivery.
            out.over = out.count >= MAX_DELIVER;
            out.due = due;
        }
        self.core = Core::new(settings(self.seed), self.disk.recover(self.now), self.now);
        self.connect();
    }

    fn read(&mut self) {
        loop {
            let Some(end) = self.inbox.windows(2).position(|two| two == b"\r\n") else { return };
            let line = String::from_utf8(self.inbox[..end].to_vec()).unwrap();
            let words: Vec<&str> = line.split(' ').collect();
            if words[0] != "MSG" && words[0] != "HMSG" {
                assert!(!line.starts_with("-ERR"), "{line}");
                let _ = self.inbox.split_to(end + 2);
                continue;
            }
            let total: usize = words[words.len() - 1].parse().unwrap();
            let header: usize = if words[0] == "HMSG" { words[words.len() - 2].parse().unwrap() } else { 0 };
            let _ = self.inbox.split_to(end + 2);
            let body = self.inbox.split_to(total + 2);
            let head = String::from_utf8(body[..header].to_vec()).unwrap();
            let payload = String::from_utf8(body[header..total].to_vec()).unwrap();
            match (words[1], words[2]) {
                ("r.pub", _) => {
                    let expected = self.expected.pop_front().unwrap_or_default();
                    if expected != payload {
                        self.fail(&format!("PubAck {payload}, expected {expected}"));
                    }
                    let seq = serde_json::from_str::<Value>(&payload).unwrap()["seq"].as_u64().unwrap();
                    if seq > self.disk.last_seq {
                        self.fail(&format!("{seq} was acknowledged before it was on disk"));
                    }
                }
                ("r.info", _) => self.info(&payload),
                (_, "1") => assert!(!payload.contains("error"), "{payload}"),
                (inbox, _) if inbox.starts_with("in.") => self.status(inbox, &head),
                (subject, _) => self.delivery(subject, words[3], &payload),
            }
        }
    }

    fn status(&mut self, inbox: &str, head: &str) {
        let batch: i64 = inbox.rsplit('.').next().unwrap().parse().unwrap();
        let unfilled = if head.starts_with("NATS/1.0 408") {
            let at = head.find("Nats-Pending-Messages: ").unwrap() + "Nats-Pending-Messages: ".len();
            head[at..].split("\r\n").next().unwrap().parse().unwrap()
        } else {
            assert!(head.starts_with("NATS/1.0 404"), "{head}");
            batch
        };
        self.wanted -= unfilled;
    }

    fn delivery(&mut self, subject: &str, ack: &str, payload: &str) {
        let numbers: Vec<u64> = ack.split('.').skip(4).map(|token| token.parse().unwrap()).collect();
        let (count, seq, consumer_seq, pending) = (numbers[0], numbers[1], numbers[2], numbers[4]);
        if seq > self.disk.last_seq {
            self.fail(&format!("{seq} was delivered before it was on disk"));
        }
        if self.model.messages.get(&seq).is_none_or(|known| known.0 != subject || known.1 != payload) {
            self.fail(&format!("{seq} is not {subject} {payload}"));
        }
        self.deliveries += 1;
        self.model.consumer_seq += 1;
        if consumer_seq != self.model.consumer_seq {
            self.fail(&format!("consumer sequence {consumer_seq}, expected {}", self.model.consumer_seq));
        }
        if count == 1 {
            let expected = self.model.next_new(self.now);
            if expected != Some(seq) {
                let model = &self.model;
                self.fail(&format!(
                    "new delivery of {seq}, expected {expected:?}; {:?}",
                    (model.delivered, &model.pending)
                ));
            }
            self.model.delivered = seq;
        } else {
            self.redeliveries += 1;
            let known = self.model.pending.get(&seq).copied();
            if known.is_none_or(|out| out.over || out.due > self.now || out.count + 1 != count) {
                self.fail(&format!("delivery {count} of {seq}, but it stood at {known:?}"));
            }
        }
        if pending != self.model.unseen().count() as u64 {
            self.fail(&format!("{pending} pending after {seq}, expected {}", self.model.unseen().count()));
        }
        self.model.pending.insert(seq, Outstanding { count, due: self.now + ACK_WAIT, over: false });
        self.wanted -= 1;
        self.held.push(Delivery { ack: ack.into(), sequence: seq });
    }

    fn info(&mut self, payload: &str) {
        let Some((model, _)) = self.infos.pop_front() else { self.fail("an info that nobody asked for") };
        let info: Value = serde_json::from_str(payload).unwrap();
        let number = |pointer: &str| info.pointer(pointer).and_then(Value::as_u64).unwrap();
        let sure = model.pending.values().filter(|out| !out.over).count() as u64;
        let unacked = number("/num_ack_pending");
        let high = model.pending.first_key_value().map_or(model.delivered, |(seq, _)| seq - 1);
        let floor = number("/ack_floor/stream_seq");
        if unacked < sure || unacked > model.pending.len() as u64 {
            self.fail(&format!("{unacked} unacked, expected {sure} to {}", model.pending.len()));
        }
        let all_settled = model.pending.is_empty() && model.consumer_seq > 0;
        if floor > high || (all_settled && floor < model.delivered) {
            self.fail(&format!("floor {floor} runs ahead of {high} or lags: {:?} {payload}", model.pending));
        }
        if number("/num_pending") != model.unseen().count() as u64 {
            self.fail("num_pending is wrong");
        }
        if number("/delivered/stream_seq") != model.delivered
            || number("/delivered/consumer_seq") != model.consumer_seq
        {
            self.fail("the last delivery is wrong");
        }
    }

    fn publish(&mut self, random: &mut Random) {
        self.published += 1;
        let subject = if random.below(2) == 0 { "s.a" } else { "s.b" };
        let payload = format!("p{}", self.published);
        let id = (random.below(3) == 0).then(|| format!("i{}", random.below(40)));
        let ack = self.model.publish(self.now, subject, &payload, id.as_deref());
        self.expected.push_back(ack);
        let header = id.map_or(String::new(), |id| format!("NATS/1.0\r\nNats-Msg-Id: {id}\r\n\r\n"));
        let bytes = format!(
            "HPUB {subject} r.pub {} {}\r\n{header}{payload}\r\n",
            header.len(),
            header.len() + payload.len()
        );
        self.raw(bytes.as_bytes());
    }

    fn pull(&mut self, random: &mut Random) {
        let batch = 1 + random.below(5);
        self.pulls += 1;
        let extra = match random.below(4) {
            0 => ",\"no_wait\":true".to_owned(),
            1 => format!(",\"no_wait\":true,\"expires\":{}", (1 + random.below(900)) * MS),
            _ => format!(",\"expires\":{}", (1 + random.below(900)) * MS),
        };
        self.wanted += batch as i64;
        let head = format!("PUB $JS.API.CONSUMER.MSG.NEXT.S.C in.{}.{batch}", self.pulls);
        self.send(&head, &format!("{{\"batch\":{batch}{extra}}}"));
    }

    fn answer(&mut self, random: &mut Random) {
        if self.held.is_empty() {
            return;
        }
        let delivery = self.held.swap_remove(random.index(self.held.len()));
        let seq = delivery.sequence;
        let known = self.model.pending.get(&seq).copied();
        let over = known.is_some_and(|out| out.over);
        let now = self.now;
        let word = match random.below(10) {
            // A last delivery that is refused at once is dropped when the core next looks: left out, it blurs the model.
            0 if !over && known.is_none_or(|out| out.count < MAX_DELIVER) => {
                if let Some(out) = self.model.pending.get_mut(&seq) {
                    out.due = now;
                }
                "-NAK".to_owned()
            }
            1 if !over => {
                let delay = (1 + random.below(800)) * MS;
                if let Some(out) = self.model.pending.get_mut(&seq) {
                    out.due = now + delay;
                }
                format!("-NAK {{\"delay\":{delay}}}")
            }
            2 if !over => {
                if let Some(out) = self.model.pending.get_mut(&seq).filter(|out| out.due > now) {
                    out.due = now + ACK_WAIT;
                }
                "+WPI".to_owned()
            }
            3 => {
                self.model.pending.remove(&seq);
                "+TERM".to_owned()
            }
            4 => {
                self.model.pending.remove(&seq);
                "+ACK".to_owned()
            }
            _ => {
                self.model.pending.remove(&seq);
                String::new()
            }
        };
        let head = format!("PUB {}", delivery.ack);
        self.send(&head, &word);
    }

    fn ask(&mut self) {
        self.infos.push_back((self.model.clone(), self.now));
        self.send("PUB $JS.API.CONSUMER.INFO.S.C r.info", "");
    }

    fn random_step(&mut self, random: &mut Random) {
        match random.below(1000) {
            0..350 => self.publish(random),
            350..520 => self.pull(random),
            520..780 => self.answer(random),
            780..890 => {
                let batches = 1 + random.below(self.flight.len() as u64 + 1);
                self.commit(batches as usize);
            }
            890..970 => {
                self.now += random.below(400) * MS;
                self.input(Input::Tick);
            }
            970..995 => self.ask(),
            _ => self.crash(random),
        }
    }

    /// Everything is delivered and settled in the end.
    fn drain(&mut self) {
        for _ in 0..200 {
            self.sync();
            self.now += ACK_WAIT;
            self.input(Input::Tick);
            self.wanted += 50;
            self.pulls += 1;
            let head = format!("PUB $JS.API.CONSUMER.MSG.NEXT.S.C in.{}.50", self.pulls);
            self.send(&head, r#"{"batch":50,"no_wait":true}"#);
            for delivery in std::mem::take(&mut self.held) {
                self.model.pending.remove(&delivery.sequence);
                self.send(&format!("PUB {}", delivery.ack), "");
            }
        }
        self.sync();
        if self.model.unseen().next().is_some() || !self.expected.is_empty() {
            self.fail("something was never delivered or acknowledged");
        }
        self.ask();
        self.sync();
    }
}

fn run(seed: u64) -> (u64, u64, u64, u64) {
    let mut random = Random::new(seed);
    let mut world = World::new(seed);
    for step in 0..OPERATIONS {
        world.step = step;
        world.random_step(&mut random);
    }
    world.drain();
    (world.published, world.deliveries, world.redeliveries, world.crashes)
}

#[test]
fn the_core_agrees_with_a_naive_model_through_random_operations_and_crashes() {
    let seeds =
        std::env::var("FAFNIR_TEST_BROKER_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(20);
    let first = std::env::var("FAFNIR_TEST_BROKER_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let next = AtomicU64::new(first);
    // A seed is its own world: they share nothing but the count.
    let work = || {
        let mut totals = [0; 4];
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return totals;
            }
            let (published, deliveries, redeliveries, crashes) = run(seed);
            for (total, more) in totals.iter_mut().zip([published, deliveries, redeliveries, crashes]) {
                *total += more;
            }
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let totals = std::thread::scope(|scope| {
        let running: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(std::thread::ScopedJoinHandle::join).fold([0_u64; 4], |sum, part| {
            // The panic of a worker is the test's: it names the seed.
            let part = part.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            std::array::from_fn(|at| sum[at] + part[at])
        })
    });
    let [published, deliveries, redeliveries, crashes] = totals;
    println!(
        "{seeds} seeds: {published} publishes, {deliveries} deliveries, {redeliveries} again, {crashes} crashes"
    );
    assert!(redeliveries > 0 && crashes > 0);
}
