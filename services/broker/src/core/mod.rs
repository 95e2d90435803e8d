//! The broker as a state machine: `step(now, input)`, then `effects()`. No I/O, no clock, no randomness but a seed.
//!
//! Invariants: an answer that confirms a change leaves only after the change is on disk; a consumer never sees
//! a stored message that is not on disk; a sequence is never used twice; no input makes it panic.

pub mod ack;
mod api;
mod api_consumer;
mod api_stream;
mod client;
pub mod clock;
pub mod config;
pub mod consumer;
pub mod deliver;
pub mod effects;
pub mod env;
pub mod fault;
pub mod ids;
pub mod index;
pub mod log;
pub mod monitor;
pub mod net;
mod publish;
mod pull;
pub mod random;
pub mod records;
pub mod stream;
pub mod subject;
pub mod sublist;
pub mod timers;
pub mod wire;

use bytes::Bytes;
use effects::{ConsumerId, Effects, StreamId};
use env::{Env, Gate, Held};
use log::{Log, Message};
use net::{ConnId, Limits, Nanos, Net, Rights};
use records::StoredStream;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use stream::Stream;
use timers::{TimerKey, Timers};
use wire::Op;

/// Subjects whose stream is remembered.
const CAPTURE_CACHE_MAX: usize = 4096;

/// A user: what the core needs to know.
#[derive(Debug, Clone)]
pub struct Account {
    /// Name at sign-in.
    pub name: String,
    /// SHA-256 of the password.
    pub password_sha256: [u8; 32],
    /// What it may do.
    pub rights: Rights,
    /// What it may take up; nothing means as much as there is.
    pub limits: Option<Limits>,
}

/// What the core is told about itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `server_name` of INFO.
    pub server_name: String,
    /// `server_id` of INFO.
    pub server_id: String,
    /// Host that clients reach.
    pub host: String,
    /// Port that clients reach.
    pub port: u16,
    /// Users; none means that nobody has to sign in and everything is allowed.
    pub accounts: Vec<Account>,
    /// Largest payload with header, in bytes.
    pub payload_max: usize,
    /// Most connections at once.
    pub connections_max: usize,
    /// Most subscriptions of one connection.
    pub subscriptions_max: usize,
    /// Bytes that may wait for one client; the adapter ends who has more.
    pub pending_max: usize,
    /// Most streams.
    pub streams_max: usize,
    /// Most consumers in all.
    pub consumers_max: usize,
    /// Time to sign in, in nanoseconds.
    pub auth_timeout: Nanos,
    /// Time between keepalive pings, in nanoseconds.
    pub ping_interval: Nanos,
    /// Seed for choices among queue members and for names of ephemeral consumers.
    pub seed: u64,
}

/// Whether a client that connects secures its connection after INFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Securing {
    /// It cannot, or it has done so before.
    No,
    /// It may.
    Offered,
    /// It has to.
    Required,
}

/// What happens to the broker.
#[derive(Debug)]
pub enum Input {
    /// A client connected.
    Open { conn: ConnId, peer: String, securing: Securing },
    /// A client is gone.
    Closed { conn: ConnId },
    /// A client asked for something.
    Op { conn: ConnId, op: Op },
    /// The client that is busy is to go on; its operations come when it no longer is.
    GoOn { conn: ConnId },
    /// A client sent what cannot be read.
    Bad { conn: ConnId, error: wire::Error },
    /// A client does not read what it is sent.
    Overflow { conn: ConnId },
    /// More waits for a client than it should be sent before it reads.
    Filled { conn: ConnId },
    /// A client that was filled has read most of it.
    Drained { conn: ConnId },
    /// The store has every change up to this number.
    Durable { upto: u64 },
    /// Messages that were read from the store, for `Load`.
    Loaded { stream: StreamId, getter: Option<u64>, messages: Vec<Message> },
    /// Whether the store has room for new messages.
    Room(bool),
    /// Somebody may sign in from now on, besides those who always may.
    Admit(Account),
    /// An admitted user may no longer: its connections end.
    Dismiss { name: String },
    /// Only time has passed.
    Tick,
    /// The broker is about to end: whoever waits for messages is told.
    Shutdown,
}

/// The broker's state.
pub struct Core {
    settings: Settings,
    env: Env,
    wide: client::Wide,
    guests: HashMap<String, Account>,
    streams: BTreeMap<StreamId, Stream>,
    by_name: BTreeMap<String, StreamId>,
    stream_last: StreamId,
    consumer_last: ConsumerId,
    capture_cache: HashMap<Box<str>, Option<StreamId>>,
    /// The subject last asked for, and its stream.
    capture_last: (String, Option<StreamId>),
    /// Whether a stream stores acks.
    acks_stored: bool,
    getters: HashMap<u64, (u64, api_stream::Getter)>,
    get_last: u64,
    api_total: u64,
    api_errors: u64,
    slow_consumers: u64,
    connections_total: u64,
    started: Nanos,
}

impl std::fmt::Debug for Core {
    /// Without the accounts: their passwords are nobody's to read.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Core").field("streams", &self.by_name).finish_non_exhaustive()
    }
}

/// What was found in the store.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The logs with every message taken up, and the rest of each stream.
    pub streams: Vec<(Log, StoredStream)>,
    /// Largest stream number ever used.
    pub stream_last: StreamId,
    /// Largest consumer number ever used.
    pub consumer_last: ConsumerId,
}

impl Core {
    /// A broker with what was found in the store.
    pub fn new(settings: Settings, recovered: Recovered, now: Nanos) -> Self {
        let mut core = Self {
            env: Env {
                now,
                net: Net::new(settings.seed),
                timers: Timers::default(),
                gate: Gate::default(),
                loads: Vec::new(),
                room: true,
                discarded: Vec::new(),
                advisories_stored: false,
                advisories: Vec::new(),
                blocked: BTreeMap::new(),
            },
            settings,
            wide: client::Wide::new(),
            guests: HashMap::new(),
            streams: BTreeMap::new(),
            by_name: BTreeMap::new(),
            stream_last: recovered.stream_last,
            consumer_last: recovered.consumer_last,
            capture_cache: HashMap::new(),
            capture_last: (String::new(), None),
            acks_stored: false,
            getters: HashMap::new(),
            get_last: 0,
            api_total: 0,
            api_errors: 0,
            slow_consumers: 0,
            connections_total: 0,
            started: now,
        };
        for (log, stored) in recovered.streams {
            core.recover(log, stored, now);
        }
        core.captures_changed();
        core
    }

    fn recover(&mut self, mut log: Log, stored: StoredStream, now: Nanos) {
        self.stream_last = self.stream_last.max(stored.id);
        log.last_seq = log.last_seq.max(stored.last_seq);
        log.visible = log.last_seq;
        for (seq, ts, id) in stored.dedupe {
            if seq == log.last_seq {
                log.last_msg_id = Some(id.clone());
            }
            log.remember(&id, seq, ts);
        }
        let mut stream = Stream::new(log);
        for found in stored.consumers {
            self.consumer_last = self.consumer_last.max(found.id);
            let consumer = consumer::Consumer::recover(found, &stream.log, now);
            if let Some(at) = deliver::next_deadline(&consumer, now) {
                self.env.timers.arm(consumer.timer(), at);
            }
            stream.add(consumer);
        }
        self.by_name.insert(stream.log.config.name.clone(), stored.id);
        stream.arm(&mut self.env);
        self.streams.insert(stored.id, stream);
    }

    /// Takes one input. Time never goes back.
    pub fn step(&mut self, now: Nanos, input: Input) {
        self.env.now = self.env.now.max(now);
        match input {
            Input::Open { conn, peer, securing } => self.open(conn, peer, securing),
            Input::Closed { conn } => {
                while self.is_busy(conn) {
                    self.go_on(conn);
                }
                self.env.net.gone(conn);
                self.env.timers.cancel(TimerKey::Conn(conn));
                self.unblock(conn);
            }
            Input::Filled { conn } => self.env.net.fill(conn),
            Input::Drained { conn } => {
                self.env.net.drained(conn);
                self.unblock(conn);
            }
            Input::Op { conn, op } => self.op(conn, op),
            Input::GoOn { conn } => self.go_on(conn),
            Input::Bad { conn, error } => self.env.net.error(conn, error.text(), error.is_fatal()),
            Input::Overflow { conn } => self.slow_consumer(conn),
            Input::Durable { upto } => self.durable(upto),
            Input::Loaded { stream, getter: Some(getter), messages } => {
                self.loaded(stream, getter, &messages);
            }
            Input::Loaded { stream, getter: None, messages } => {
                if let Some(stream) = self.streams.get_mut(&stream) {
                    stream.log.take_loaded(messages);
                    stream.pump(&mut self.env);
                }
            }
            Input::Room(room) => self.env.set_room(room),
            Input::Admit(account) => drop(self.guests.insert(account.name.clone(), account)),
            Input::Dismiss { name } => self.dismiss(&name),
            Input::Tick => self.env.net.sweep(),
            Input::Shutdown => self.farewell(),
        }
        self.deadlines();
        self.tell();
        if std::mem::take(&mut self.env.net.new_interest) {
            self.attach_push_consumers();
        }
    }

    /// Everything that the steps since the last call want done.
    pub fn effects(&mut self) -> Effects {
        let mut effects = Effects::default();
        self.env.net.drain(&mut effects);
        (effects.ops, effects.ops_last, effects.urgent) = self.env.gate.take();
        effects.loads = std::mem::take(&mut self.env.loads);
        effects.discarded = std::mem::take(&mut self.env.discarded);
        effects
    }

    /// The next time at which the core wants a step even if nothing happens.
    pub fn next_deadline(&self) -> Option<Nanos> {
        if self.env.net.is_leaving() { Some(self.env.now) } else { self.env.timers.next() }
    }

    /// Number of store changes that are not known to be on disk.
    pub fn behind(&self) -> u64 {
        self.env.gate.behind()
    }

    /// Operations and deliveries so far: what has been worked.
    pub fn worked(&self) -> u64 {
        self.env.net.counts.in_msgs + self.env.net.counts.out_msgs
    }

    /// Number of single messages that are on their way from the store.
    pub fn reads(&self) -> usize {
        self.getters.len()
    }

    fn durable(&mut self, upto: u64) {
        self.env.gate.durable(upto);
        let mut touched: BTreeMap<StreamId, BTreeSet<ConsumerId>> = BTreeMap::new();
        while let Some(held) = self.env.gate.release() {
            match held {
                Held::Reply { to, header, payload } | Held::Told { to, header, payload } => {
                    self.env.send(&to, &header, &payload);
                }
                Held::Visible { stream, seq } => {
                    if let Some(found) = self.streams.get_mut(&stream) {
                        touched.entry(stream).or_default().extend(found.visible(seq));
                    }
                }
            }
        }
        for (stream, consumers) in touched {
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.pump_these(consumers, &mut self.env);
            }
        }
    }

    /// Goes on with the consumers that waited for this client.
    fn unblock(&mut self, conn: ConnId) {
        for (stream, consumer) in self.env.blocked.remove(&conn).unwrap_or_default() {
            if let Some(stream) = self.streams.get_mut(&stream) {
                stream.pump_one(consumer, &mut self.env);
            }
        }
    }

    /// Ends a client that does not read; once, however much still waits for it.
    fn slow_consumer(&mut self, conn: ConnId) {
        if self.env.net.is_closing(conn) {
            return;
        }
        self.slow_consumers += 1;
        if let Some(found) = self.env.net.conns.get(&conn) {
            let members = serde_json::json!({
                "client": {"id": conn, "name": found.name, "user": found.user, "peer": found.peer},
                "account": "$G",
            });
            self.env.advise(&format!("SLOW_CONSUMER.{conn}"), "slow_consumer", members);
        }
        self.env.net.error(conn, "Slow Consumer", true);
    }

    /// Sends the advisories, to subscribers and into streams.
    fn tell(&mut self) {
        for (subject, body) in std::mem::take(&mut self.env.advisories) {
            self.env.send(&subject, &[], &body);
            if let Some(stream) = self.capturing(&subject).and_then(|id| self.streams.get_mut(&id)) {
                publish::publish(stream, &mut self.env, &subject, None, &Bytes::new(), &body);
            }
        }
    }

    fn deadlines(&mut self) {
        // What is armed again for this very moment waits for the next step, so that others get their turn.
        let mut due = Vec::new();
        while let Some(key) = self.env.timers.due(self.env.now) {
            due.push(key);
        }
        for key in due {
            match key {
                TimerKey::Conn(conn) => self.keepalive(conn),
                TimerKey::Stream(id) => {
                    if let Some(stream) = self.streams.get_mut(&id) {
                        stream.expire(&mut self.env);
                    }
                }
                TimerKey::Consumer(stream_id, id) => self.wake_consumer(stream_id, id),
            }
        }
    }

    fn wake_consumer(&mut self, stream_id: StreamId, id: ConsumerId) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(consumer) = stream.consumers.get_mut(&id) else { return };
        let woken = deliver::wake(&mut stream.log, consumer, &mut self.env);
        stream.settled(&woken.settled, &mut self.env);
        if woken.inactive {
            self.remove_consumer(stream_id, id);
        }
    }

    fn farewell(&mut self) {
        for stream in self.streams.values_mut() {
            for consumer in stream.consumers.values_mut() {
                for request in std::mem::take(&mut consumer.waiting) {
                    deliver::end_request(&mut self.env, &request, "409 Server Shutdown");
                }
            }
        }
    }

    fn attach_push_consumers(&mut self) {
        let Self { streams, env, .. } = self;
        for stream in streams.values_mut() {
            let Stream { pushing, consumers, .. } = &*stream;
            let waits = |id: &&ConsumerId| consumers.get(id).is_some_and(|consumer| !consumer.attached);
            let waiting: Vec<_> = pushing.iter().filter(waits).copied().collect();
            stream.pump_these(waiting, env);
        }
    }

    /// The streams or their subjects changed.
    fn captures_changed(&mut self) {
        self.capture_cache.clear();
        self.capture_last.0.clear();
        let stores = |all: &str| {
            let mut subjects = self.streams.values().flat_map(|stream| &stream.log.config.subjects);
            subjects.any(|own| subject::overlaps(own, all))
        };
        let (advisories, acks) = (stores(&format!("{}>", env::ADVISORY)), stores("$JS.ACK.>"));
        self.env.advisories_stored = advisories;
        self.acks_stored = acks;
    }

    /// The stream that stores messages to this subject.
    fn capturing(&mut self, subject: &str) -> Option<StreamId> {
        if self.capture_last.0 == subject {
            return self.capture_last.1;
        }
        // Each ack has a subject of its own.
        if !self.acks_stored && subject.starts_with("$JS.ACK.") {
            return None;
        }
        let found = self.captured_by(subject);
        self.capture_last.0.clear();
        self.capture_last.0.push_str(subject);
        self.capture_last.1 = found;
        found
    }

    fn captured_by(&mut self, subject: &str) -> Option<StreamId> {
        if let Some(known) = self.capture_cache.get(subject) {
            return *known;
        }
        let found =
            self.streams.iter().find(|(_, stream)| stream.log.config.captures(subject)).map(|(id, _)| *id);
        if self.capture_cache.len() >= CAPTURE_CACHE_MAX {
            self.capture_cache.clear();
        }
        self.capture_cache.insert(subject.into(), found);
        found
    }
}
