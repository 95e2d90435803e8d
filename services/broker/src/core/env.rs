//! What every part of the core shares: the time of the step, the clients, the deadlines, and the gate to the store.

use super::clock;
use super::effects::{ConsumerId, Discarded, Load, StoreOp, StreamId};
use super::net::{ConnId, Nanos, Net, Outgoing};
use super::subject::Text;
use super::timers::Timers;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Advisories of one step above which the rest is left out: they tell, they do not guarantee.
const ADVISORIES_MAX: usize = 1024;
/// How the subjects of advisories begin.
pub const ADVISORY: &str = "$JS.EVENT.ADVISORY.";

/// Shared parts of the core.
#[derive(Debug)]
pub struct Env {
    /// Time of this step.
    pub now: Nanos,
    /// The clients.
    pub net: Net,
    /// The deadlines.
    pub timers: Timers,
    /// Changes of the store and what waits for them.
    pub gate: Gate,
    /// Reads from the store.
    pub loads: Vec<Load>,
    /// Whether the store has room for new messages.
    pub room: bool,
    /// What is no longer needed and long to take apart.
    pub discarded: Vec<Discarded>,
    /// Whether a stream stores advisories.
    pub advisories_stored: bool,
    /// Advisories on their way: subject and body.
    pub advisories: Vec<(String, Bytes)>,
    /// Consumers that wait until a client has read what is on its way to it.
    pub blocked: BTreeMap<ConnId, BTreeSet<(StreamId, ConsumerId)>>,
}

impl Env {
    /// Tells whoever listens on `$JS.EVENT.ADVISORY.<subject>` what happened.
    pub fn advise(&mut self, subject: &str, kind: &str, members: Value) {
        let subject = format!("{ADVISORY}{subject}");
        let wanted = self.advisories_stored || self.net.index.has_interest(&subject);
        if !wanted || self.advisories.len() >= ADVISORIES_MAX {
            return;
        }
        let mut body = json!({
            "type": format!("io.nats.jetstream.advisory.v1.{kind}"),
            "id": format!("{:016x}", self.net.random().word()),
            "timestamp": clock::text(self.now),
        });
        if let (Some(body), Value::Object(members)) = (body.as_object_mut(), members) {
            body.extend(members);
        }
        self.advisories.push((subject, body.to_string().into()));
    }

    /// Sends a message of the server itself.
    pub fn send(&mut self, to: &str, header: &[u8], payload: &[u8]) -> usize {
        self.net.deliver(Outgoing { route: to, subject: to, reply: None, header, payload }, None)
    }

    /// Sends an answer once every change that somebody waits for is on disk.
    pub fn reply(&mut self, to: &Text, payload: Bytes) {
        if self.gate.is_open() {
            self.send(to, &[], &payload);
        } else {
            self.gate.hold(Held::Reply { to: to.clone(), header: Bytes::new(), payload });
        }
    }

    /// Tells what is so or refuses, which confirms no change: in order with what is confirmed, but at once while the store
    /// has no room, since nothing may get through to it then.
    pub fn tell(&mut self, to: &Text, header: Bytes, payload: Bytes) {
        if self.gate.is_open() || !self.room {
            self.send(to, &header, &payload);
        } else {
            self.gate.hold(Held::Told { to: to.clone(), header, payload });
        }
    }

    /// Hands on a stored message; one that is not on disk yet waits for it.
    pub fn pass(&mut self, to: &Text, header: Bytes, payload: Bytes, is_on_disk: bool) {
        if is_on_disk {
            self.tell(to, header, payload);
        } else {
            self.gate.hold(Held::Reply { to: to.clone(), header, payload });
        }
    }

    /// Whether the store has room for new messages. What was only to be told waits for it no longer when it has none.
    pub fn set_room(&mut self, room: bool) {
        self.room = room;
        if !room {
            for (to, header, payload) in self.gate.told() {
                self.send(&to, &header, &payload);
            }
        }
    }
}

/// Something that waits until the store has caught up.
#[derive(Debug)]
pub enum Held {
    /// An answer to a client that confirms a change.
    Reply { to: Text, header: Bytes, payload: Bytes },
    /// One that confirms nothing.
    Told { to: Text, header: Bytes, payload: Bytes },
    /// A message that consumers may see.
    Visible { stream: StreamId, seq: u64 },
}

/// Numbers the changes of the store and holds back what must not be seen before they are on disk.
#[derive(Debug, Default)]
pub struct Gate {
    ops: Vec<StoreOp>,
    last: u64,
    urgent: u64,
    urgent_sent: u64,
    durable: u64,
    held: VecDeque<(u64, Held)>,
}

impl Gate {
    /// A change that nobody waits for.
    pub fn op(&mut self, op: StoreOp) {
        if let StoreOp::MessagesRemove { stream, first, last, last_seq, bytes, replaced } = &op
            && let Some(StoreOp::MessagesRemove {
                stream: s,
                last: l,
                last_seq: known,
                bytes: sum,
                replaced: r,
                ..
            }) = self.ops.last_mut()
            && (&*s, &*r) == (stream, replaced)
            && *l + 1 == *first
        {
            (*l, *known) = (*last, *last_seq);
            *sum += bytes;
            return;
        }
        self.last += 1;
        self.ops.push(op);
    }

    /// A change that somebody waits for.
    pub fn urgent_op(&mut self, op: StoreOp) {
        self.op(op);
        self.urgent = self.last;
    }

    /// Whether every urgent change is on disk.
    pub fn is_open(&self) -> bool {
        self.urgent <= self.durable
    }

    /// Makes all changes so far urgent: somebody waits for them now.
    pub fn hurry(&mut self) {
        if self.last > self.durable {
            self.urgent = self.last;
        }
    }

    /// Holds something back until every urgent change is on disk.
    pub fn hold(&mut self, held: Held) {
        self.held.push_back((self.urgent, held));
    }

    /// The store has everything up to this change.
    pub fn durable(&mut self, upto: u64) {
        self.durable = self.durable.max(upto);
    }

    /// The next thing that is no longer held back.
    pub fn release(&mut self) -> Option<Held> {
        if self.held.front()?.0 > self.durable {
            return None;
        }
        self.held.pop_front().map(|(_, held)| held)
    }

    /// Takes out what confirms nothing.
    fn told(&mut self) -> Vec<(Text, Bytes, Bytes)> {
        let mut told = Vec::new();
        for (at, held) in std::mem::take(&mut self.held) {
            match held {
                Held::Told { to, header, payload } => told.push((to, header, payload)),
                held => self.held.push_back((at, held)),
            }
        }
        told
    }

    /// The changes since the last call, the number of the last one, and whether somebody waits.
    pub fn take(&mut self) -> (Vec<StoreOp>, u64, bool) {
        let urgent = self.urgent > self.urgent_sent;
        self.urgent_sent = self.urgent;
        (std::mem::take(&mut self.ops), self.last, urgent)
    }

    /// Number of changes that are not known to be on disk.
    pub fn behind(&self) -> u64 {
        self.last - self.durable
    }
}
