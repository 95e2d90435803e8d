//! What clients ask for: sign-in, subscriptions, publishing, keepalive.

use super::net::{ConnId, Delivery, Limits, Outgoing, Rights};
use super::subject::{Text, is_literal};
use super::timers::TimerKey;
use super::wire::Op;
use super::{Account, Core, Securing, clock, publish};
use bytes::Bytes;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};
use std::collections::HashMap;

/// Version of the original whose features are served; it gates what clients try.
pub const VERSION: &str = "2.10.29";
/// Where a client asks who it is.
const USER_INFO: &str = "$SYS.REQ.USER.INFO";
/// Unanswered pings after which a connection is ended.
pub const PINGS_OUT_MAX: u32 = 2;

/// Part of all places that users with limits leave to those without.
const KEPT_PART: usize = 8;
/// Part of all places that may be taken by clients who have not signed in: after that the oldest of them goes.
const STRANGERS_PART: usize = 16;
/// But so many always may.
const STRANGERS_MIN: usize = 16;

/// Subscribers that a message reaches in one step; the next ones go on.
const PART_MAX: usize = 1024;

/// A message from a client.
#[derive(Debug)]
pub(super) struct Published {
    subject: Text,
    reply: Option<Text>,
    header: Bytes,
    payload: Bytes,
}

impl Published {
    fn outgoing(&self) -> Outgoing<'_> {
        let Self { subject, reply, header, payload } = self;
        Outgoing { route: subject, subject, reply: reply.as_deref(), header, payload }
    }
}

/// Messages that have still to reach some.
pub(super) type Wide = HashMap<ConnId, (Published, Delivery)>;

impl Core {
    pub(super) fn open(&mut self, conn: ConnId, peer: String, securing: Securing) {
        let full = self.env.net.conns.len() >= self.settings.connections_max;
        self.connections_total += 1;
        let client_ip = peer.rsplit_once(':').map_or(peer.as_str(), |(ip, _)| ip).to_owned();
        let strangers_max = (self.settings.connections_max / STRANGERS_PART).max(STRANGERS_MIN);
        let (strangers, oldest) = self.env.net.strangers();
        if (full || strangers >= strangers_max)
            && let Some(oldest) = oldest
        {
            self.env.net.error(oldest, "Authentication Timeout", true);
        }
        self.env.net.open(conn, peer, self.env.now);
        if full && oldest.is_none() {
            self.env.net.error(conn, "maximum connections exceeded", true);
            return;
        }
        let settings = &self.settings;
        let mut info = json!({
            "server_id": settings.server_id,
            "server_name": settings.server_name,
            "version": VERSION,
            "proto": 1,
            "go": "fafnir",
            "host": settings.host,
            "port": settings.port,
            "headers": true,
            "max_payload": settings.payload_max,
            "jetstream": true,
            "client_id": conn,
            "client_ip": client_ip,
        });
        if securing != Securing::No {
            info["tls_required"] = Value::Bool(securing == Securing::Required);
            info["tls_available"] = Value::Bool(true);
        }
        if settings.accounts.is_empty() {
            self.env.net.sign_in(conn, Rights::all(), None, None);
            self.env.timers.set(TimerKey::Conn(conn), self.env.now + settings.ping_interval);
        } else {
            info["auth_required"] = Value::Bool(true);
            self.env.timers.set(TimerKey::Conn(conn), self.env.now + settings.auth_timeout);
        }
        self.env.net.write(conn, format!("INFO {info}\r\n").as_bytes());
    }

    pub(super) fn op(&mut self, id: ConnId, op: Op) {
        let now = self.env.now;
        while self.is_busy(id) {
            self.go_on(id);
        }
        let Some(conn) = self.env.net.conns.get_mut(&id).filter(|conn| !conn.is_closing()) else { return };
        conn.active = now;
        if conn.rights.is_none() && !matches!(op, Op::Connect(_) | Op::Ping | Op::Pong) {
            self.env.net.error(id, "Authorization Violation", true);
            return;
        }
        let verbose = conn.verbose;
        let accepted = match op {
            Op::Ping => {
                self.env.net.write(id, b"PONG\r\n");
                return;
            }
            Op::Pong => {
                conn.pings_out = 0;
                return;
            }
            Op::Connect(body) => self.connect(id, &body),
            Op::Sub { subject, queue, sid } => self.subscribe(id, subject, queue, sid),
            Op::Unsub { sid, max } => {
                self.env.net.unsubscribe(id, &sid, max);
                true
            }
            Op::Pub { subject, reply, header, payload } => {
                return self.publish(id, Published { subject, reply, header, payload });
            }
        };
        if accepted && (verbose || self.env.net.conns.get(&id).is_some_and(|conn| conn.verbose)) {
            self.env.net.write(id, b"+OK\r\n");
        }
    }

    fn connect(&mut self, id: ConnId, body: &Bytes) -> bool {
        let Ok(Value::Object(asked)) = serde_json::from_slice::<Value>(body.trim_ascii()) else {
            self.env.net.error(id, "Parser Error", true);
            return false;
        };
        let text = |key: &str| asked.get(key).and_then(Value::as_str).unwrap_or("").to_owned();
        let flag = |key: &str, otherwise: bool| asked.get(key).and_then(Value::as_bool).unwrap_or(otherwise);
        let account = match self.account(&text("user"), &text("pass")) {
            Ok(account) => account,
            Err(reason) => {
                if let Some(conn) = self.env.net.conns.get_mut(&id) {
                    conn.rights = None;
                }
                self.env.net.error(id, reason, true);
                return false;
            }
        };
        let (rights, user, limits) = match account {
            None => (Rights::all(), None, None),
            Some(account) => (account.rights.clone(), Some(account.name.clone()), account.limits),
        };
        let again = self.env.net.conns.get(&id).is_some_and(|conn| conn.user == user && user.is_some());
        if !again && let Some(reason) = self.no_place(user.as_deref(), limits) {
            self.env.net.error(id, reason, true);
            return false;
        }
        self.env.net.sign_in(id, rights, user, limits);
        let now = self.env.now;
        let Some(conn) = self.env.net.conns.get_mut(&id) else { return false };
        let name: String = text("name").chars().take(256).collect();
        conn.name = name;
        conn.lang = text("lang").chars().take(64).collect();
        conn.version = text("version").chars().take(64).collect();
        conn.verbose = flag("verbose", false);
        conn.pedantic = flag("pedantic", false);
        conn.echo = flag("echo", true);
        conn.headers = flag("headers", false);
        conn.no_responders = flag("no_responders", false) && conn.headers;
        self.env.timers.set(TimerKey::Conn(id), now + self.settings.ping_interval);
        true
    }

    /// The account of a user and its password; none where nobody has to sign in.
    fn account(&self, name: &str, password: &str) -> Result<Option<&Account>, &'static str> {
        let accounts = &self.settings.accounts;
        if accounts.is_empty() {
            return Ok(None);
        }
        let given = digest(&SHA256, password.as_bytes());
        let found = accounts.iter().find(|account| account.name == name).or_else(|| self.guests.get(name));
        let differs = |account: &Account| {
            account.password_sha256.iter().zip(given.as_ref()).fold(0_u8, |sum, (a, b)| sum | (a ^ b)) != 0
        };
        match found {
            Some(account) if !differs(account) => Ok(Some(account)),
            _ => Err("Authorization Violation"),
        }
    }

    /// Why a user may not have one more connection.
    fn no_place(&self, user: Option<&str>, limits: Option<Limits>) -> Option<&'static str> {
        let limits = limits?;
        let net = &self.env.net;
        if net.conns_of(user?) >= limits.connections {
            return Some("maximum account active connections exceeded");
        }
        let most = self.settings.connections_max - self.settings.connections_max / KEPT_PART;
        (net.limited() >= most).then_some("maximum connections exceeded")
    }

    pub(super) fn dismiss(&mut self, name: &str) {
        if self.guests.remove(name).is_none() {
            return;
        }
        let net = &mut self.env.net;
        let own = net.conns.iter().filter(|(_, conn)| conn.user.as_deref() == Some(name));
        for id in own.map(|(id, _)| *id).collect::<Vec<_>>() {
            net.error(id, "User Authentication Revoked", true);
        }
    }

    fn subscribe(&mut self, id: ConnId, subject: Text, queue: Option<Text>, sid: Text) -> bool {
        let net = &mut self.env.net;
        let allowed = net
            .conns
            .get(&id)
            .and_then(|conn| conn.rights.as_ref())
            .is_some_and(|r| r.may_subscribe(&subject));
        if !allowed {
            let group = queue.map_or(String::new(), |queue| format!(" using queue \"{}\"", &*queue));
            let text = format!("Permissions Violation for Subscription to \"{}\"{group}", &*subject);
            net.error(id, &text, false);
            return false;
        }
        let limits = net.conns.get(&id).and_then(|conn| conn.limits);
        let most =
            limits.map_or(usize::MAX, |limits| limits.subscriptions).min(self.settings.subscriptions_max);
        if net.sub_count(id) >= most {
            net.error(id, "maximum subscriptions exceeded", true);
            return false;
        }
        net.subscribe(id, subject, queue, sid);
        true
    }

    fn publish(&mut self, id: ConnId, published: Published) {
        let Published { subject, reply, header, payload } = &published;
        let subject = subject.as_str();
        let bytes = (header.len() + payload.len()) as u64;
        let net = &mut self.env.net;
        net.counts.in_msgs += 1;
        net.counts.in_bytes += bytes;
        let Some(conn) = net.conns.get_mut(&id) else { return };
        conn.counts.in_msgs += 1;
        conn.counts.in_bytes += bytes;
        if !conn.rights.as_ref().is_some_and(|rights| rights.may_publish(subject)) {
            net.error(id, &format!("Permissions Violation for Publish to \"{subject}\""), false);
            return;
        }
        if conn.pedantic && !(is_literal(subject) && reply.as_ref().is_none_or(|reply| is_literal(reply))) {
            net.error(id, "Invalid Publish Subject", false);
            return;
        }
        if conn.verbose {
            net.write(id, b"+OK\r\n");
        }
        let mut delivery = net.delivery(subject);
        net.deliver_part(&mut delivery, published.outgoing(), Some(id), PART_MAX);
        if delivery.left() > 0 {
            self.wide.insert(id, (published, delivery));
        } else {
            self.published(id, &published, delivery.reached() > 0);
        }
    }

    /// Whether a message that a client published has still to reach some: what it asks for next waits.
    pub fn is_busy(&self, id: ConnId) -> bool {
        self.wide.contains_key(&id)
    }

    /// Delivers a part of what a client is busy with.
    pub(super) fn go_on(&mut self, id: ConnId) {
        let Some((published, mut delivery)) = self.wide.remove(&id) else { return };
        self.env.net.deliver_part(&mut delivery, published.outgoing(), Some(id), PART_MAX);
        if delivery.left() > 0 {
            self.wide.insert(id, (published, delivery));
        } else {
            self.published(id, &published, delivery.reached() > 0);
        }
    }

    /// What becomes of a message besides its delivery to subscribers.
    fn published(&mut self, id: ConnId, published: &Published, mut reached: bool) {
        let Published { subject, reply, header, payload } = published;
        let (subject, reply) = (subject.as_str(), reply.as_ref());
        if let Some(rest) = subject.strip_prefix("$JS.") {
            reached |= self.jetstream(rest, subject, reply, payload);
        } else if subject == USER_INFO
            && let Some(reply) = reply
        {
            let answer = self.user_info(id).to_string();
            self.env.send(reply, &[], answer.as_bytes());
            reached = true;
        }
        if let Some(stream_id) = self.capturing(subject)
            && let Some(stream) = self.streams.get_mut(&stream_id)
        {
            reached = true;
            publish::publish(stream, &mut self.env, subject, reply, header, payload);
        }
        if !reached
            && self.env.net.conns.get(&id).is_some_and(|conn| conn.no_responders)
            && let Some(reply) = reply
        {
            self.env.send(reply, b"NATS/1.0 503\r\n\r\n", &[]);
        }
    }

    fn jetstream(&mut self, rest: &str, subject: &str, reply: Option<&Text>, payload: &Bytes) -> bool {
        if rest.starts_with("ACK.") {
            self.ack(subject, reply, payload)
        } else if let Some(operation) = rest.strip_prefix("API.") {
            self.api(operation, reply, payload)
        } else {
            rest.starts_with("FC.") && self.flow_answer(subject)
        }
    }

    fn user_info(&self, id: ConnId) -> Value {
        let settings = &self.settings;
        let conn = self.env.net.conns.get(&id);
        let user = conn.and_then(|conn| conn.user.as_deref()).unwrap_or("");
        let mut data = json!({"user": user, "account": "$G"});
        if let Some(rights) =
            conn.and_then(|conn| conn.rights.as_ref()).filter(|_| !settings.accounts.is_empty())
        {
            data["permissions"] =
                json!({"publish": {"allow": rights.publish}, "subscribe": {"allow": rights.subscribe}});
        }
        json!({
            "server": {
                "name": settings.server_name, "host": settings.host, "id": settings.server_id, "ver": VERSION,
                "jetstream": true, "flags": 0, "seq": 0, "time": clock::text(self.env.now),
            },
            "data": data,
        })
    }

    pub(super) fn keepalive(&mut self, id: ConnId) {
        let now = self.env.now;
        let interval = self.settings.ping_interval;
        let Some(conn) = self.env.net.conns.get_mut(&id) else { return };
        if conn.rights.is_none() {
            self.env.net.error(id, "Authentication Timeout", true);
            return;
        }
        if now.saturating_sub(conn.active) < interval {
            conn.pings_out = 0;
            let at = conn.active + interval;
            self.env.timers.set(TimerKey::Conn(id), at);
            return;
        }
        if conn.pings_out >= PINGS_OUT_MAX {
            self.env.net.error(id, "Stale Connection", true);
            return;
        }
        conn.pings_out += 1;
        self.env.net.write(id, b"PING\r\n");
        self.env.timers.set(TimerKey::Conn(id), now + interval);
    }
}
