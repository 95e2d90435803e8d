//! Connections and their subscriptions: who is there, what they may do, and what is on its way to them.

use super::effects::Effects;
use super::ids::Ids;
use super::random::Random;
use super::subject::{Text, is_subset, matches};
use super::sublist::{Members, SubId, Sublist};
use super::wire::{put_error, put_message};
use bytes::{BufMut, BytesMut};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;

/// Bytes on their way to a client from one step above which consumers wait until it has read.
pub const FILLED_BYTES: usize = 1 << 20;

/// Subscriptions of clients that are gone which leave the index in one step; the next ones go on.
const SWEEP_MAX: usize = 4096;

/// Identifies a connection for the life of the process.
pub type ConnId = u64;

/// Nanoseconds since 1970-01-01 UTC.
pub type Nanos = u64;

/// Subjects that a user may use; patterns.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// Patterns of subjects that may be published to.
    pub publish: Vec<String>,
    /// Patterns that a subscription must lie within.
    pub subscribe: Vec<String>,
}

impl Rights {
    /// The rights of a broker without users: everything.
    pub fn all() -> Self {
        Self { publish: vec![">".into()], subscribe: vec![">".into()] }
    }

    /// Whether a message to this literal subject is allowed.
    pub fn may_publish(&self, subject: &str) -> bool {
        self.publish.iter().any(|pattern| matches(pattern, subject))
    }

    /// Whether this pattern may be subscribed to.
    pub fn may_subscribe(&self, pattern: &str) -> bool {
        self.subscribe.iter().any(|outer| is_subset(pattern, outer))
    }
}

/// What a user may take up. Whoever has no limits has places kept for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most connections at once.
    pub connections: usize,
    /// Most subscriptions of each.
    pub subscriptions: usize,
    /// Bytes that may wait for each before it is ended as a slow consumer.
    pub pending: usize,
}

/// One client.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "the options of CONNECT, as the protocol has them")]
pub struct Conn {
    /// Address of the client, for monitoring.
    pub peer: String,
    /// When it connected.
    pub since: Nanos,
    /// When it last sent anything.
    pub active: Nanos,
    /// Rights, once it has signed in.
    pub rights: Option<Rights>,
    /// The user it signed in as.
    pub user: Option<String>,
    /// What that user may take up.
    pub limits: Option<Limits>,
    /// What the client calls itself (`name`, `lang`, `version` of CONNECT).
    pub name: String,
    /// Language of the client library.
    pub lang: String,
    /// Version of the client library.
    pub version: String,
    /// Whether each operation is answered by `+OK`.
    pub verbose: bool,
    /// Whether a subject to publish to is checked for wildcards.
    pub pedantic: bool,
    /// Whether it gets what it publishes itself.
    pub echo: bool,
    /// Whether a request without responders is answered by 503.
    pub no_responders: bool,
    /// Whether it can read headers.
    pub headers: bool,
    /// Server pings that it has not answered.
    pub pings_out: u32,
    /// Messages and bytes since it connected.
    pub counts: Counts,
    out: BytesMut,
    dirty: bool,
    /// Enough is on its way to it.
    filled: bool,
    closing: bool,
    sids: BTreeMap<Text, SubId>,
}

impl Conn {
    /// Whether it is being ended: its further operations are ignored.
    pub fn is_closing(&self) -> bool {
        self.closing
    }
}

/// Messages and bytes in both directions, as seen by the server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counts {
    /// Messages from clients.
    pub in_msgs: u64,
    /// Payload and header bytes from clients.
    pub in_bytes: u64,
    /// Messages to clients.
    pub out_msgs: u64,
    /// Payload and header bytes to clients.
    pub out_bytes: u64,
}

/// A subscription.
#[derive(Debug)]
pub struct Sub {
    conn: ConnId,
    sid: Text,
    pattern: Text,
    queue: Option<Text>,
    delivered: u64,
    max: Option<u64>,
}

/// Everything between the clients and the rest of the core.
#[derive(Debug)]
pub struct Net {
    /// The clients.
    pub conns: Ids<Conn>,
    /// The subject index.
    pub index: Sublist,
    /// Totals over all connections, gone ones too.
    pub counts: Counts,
    /// Patterns subscribed to since it was last taken: push consumers look at it.
    pub new_interest: bool,
    subs: Ids<Sub>,
    routes: Routes,
    sub_last: SubId,
    /// Subscriptions of clients that are gone.
    leaving: VecDeque<SubId>,
    /// Clients that have not signed in, the oldest first.
    strangers: BTreeSet<ConnId>,
    /// Connections of each user.
    users: HashMap<String, usize>,
    /// Connections of users that have limits.
    limited: usize,
    dirty: Vec<ConnId>,
    closed: Vec<ConnId>,
    signed: Vec<(ConnId, Option<Limits>)>,
    /// Connections that have enough, in all and since this was last taken.
    filled_count: usize,
    filled: Vec<ConnId>,
    pressing: Vec<(ConnId, ConnId)>,
    random: Random,
}

/// Subjects whose receivers are remembered.
const ROUTES_MAX: usize = 4096;
/// Receivers that are remembered of all subjects together.
const RECEIVERS_MAX: usize = 1 << 18;

/// Whom a subject reaches.
#[derive(Debug, Clone, Default)]
struct Route {
    plain: Vec<SubId>,
    groups: Vec<Vec<SubId>>,
}

impl Route {
    fn receivers(&self) -> usize {
        self.plain.len() + self.groups.iter().map(Vec::len).sum::<usize>()
    }
}

/// Whom subjects reach, remembered until a subscription comes or goes: most messages go where one went before.
#[derive(Debug, Default)]
struct Routes {
    /// Counts the changes of subscriptions.
    change: u64,
    known: HashMap<Box<str>, (u64, Arc<Route>)>,
    /// Receivers in all of them.
    receivers: usize,
    /// The subject last asked for, and whom it reached at which change.
    last: String,
    last_route: (u64, Arc<Route>),
}

/// Subjects that are used once: acks, and where single answers go.
fn is_used_once(subject: &str) -> bool {
    subject.starts_with("$JS.ACK.") || subject.starts_with("_INBOX.")
}

impl Routes {
    fn find(&mut self, index: &Sublist, subject: &str) -> Arc<Route> {
        // Most messages follow one to the same subject.
        if self.last_route.0 == self.change && self.last == subject {
            return self.last_route.1.clone();
        }
        let route = self.look_up(index, subject);
        self.last.clear();
        self.last.push_str(subject);
        self.last_route = (self.change, route.clone());
        route
    }

    fn look_up(&mut self, index: &Sublist, subject: &str) -> Arc<Route> {
        if let Some((change, route)) = self.known.get(subject)
            && *change == self.change
        {
            return route.clone();
        }
        let found = index.matches(subject);
        let members = |sets: &Vec<&Members>| sets.iter().flat_map(|set| set.iter().copied()).collect();
        let groups: Vec<Vec<SubId>> = found.groups.values().map(members).collect();
        let route = Arc::new(Route { plain: found.plain, groups });
        let receivers = route.receivers();
        if receivers <= RECEIVERS_MAX && !is_used_once(subject) {
            if self.known.len() >= ROUTES_MAX || self.receivers + receivers > RECEIVERS_MAX {
                self.known.clear();
                self.receivers = 0;
            }
            self.receivers += receivers;
            if let Some((_, before)) = self.known.insert(subject.into(), (self.change, route.clone())) {
                self.receivers -= before.receivers();
            }
        }
        route
    }
}

/// A delivery under way: whom the message has still to reach.
#[derive(Debug)]
pub struct Delivery {
    route: Arc<Route>,
    /// The members of queue groups that get it.
    chosen: Vec<SubId>,
    /// How many were looked at.
    at: usize,
    reached: usize,
}

impl Delivery {
    /// Subscriptions that were not looked at yet.
    pub fn left(&self) -> usize {
        self.route.plain.len() + self.chosen.len() - self.at
    }

    /// How many got the message.
    pub fn reached(&self) -> usize {
        self.reached
    }
}

/// A message on its way to subscribers.
#[derive(Debug, Clone, Copy)]
pub struct Outgoing<'a> {
    /// Decides who gets it.
    pub route: &'a str,
    /// The subject that they see.
    pub subject: &'a str,
    /// Where they may answer.
    pub reply: Option<&'a str>,
    /// Header block, empty for none.
    pub header: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl Net {
    /// No connections; `seed` decides which member of a queue group gets a message.
    pub fn new(seed: u64) -> Self {
        Self {
            conns: Ids::default(),
            index: Sublist::default(),
            counts: Counts::default(),
            new_interest: false,
            subs: Ids::default(),
            routes: Routes::default(),
            sub_last: 0,
            leaving: VecDeque::new(),
            strangers: BTreeSet::new(),
            users: HashMap::new(),
            limited: 0,
            dirty: Vec::new(),
            closed: Vec::new(),
            signed: Vec::new(),
            filled_count: 0,
            filled: Vec::new(),
            pressing: Vec::new(),
            random: Random::new(seed),
        }
    }

    /// The numbers behind choices that need no secrecy.
    pub fn random(&mut self) -> &mut Random {
        &mut self.random
    }

    /// Registers a client.
    pub fn open(&mut self, id: ConnId, peer: String, now: Nanos) {
        self.strangers.insert(id);
        self.conns.insert(
            id,
            Conn {
                peer,
                since: now,
                active: now,
                rights: None,
                user: None,
                limits: None,
                name: String::new(),
                lang: String::new(),
                version: String::new(),
                verbose: false,
                pedantic: false,
                echo: true,
                no_responders: false,
                headers: false,
                pings_out: 0,
                counts: Counts::default(),
                out: BytesMut::new(),
                dirty: false,
                filled: false,
                closing: false,
                sids: BTreeMap::new(),
            },
        );
    }

    /// Forgets a client that is gone.
    pub fn gone(&mut self, id: ConnId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        self.filled_count -= usize::from(conn.filled);
        self.strangers.remove(&id);
        self.sign_out(conn.user.as_deref(), conn.limits);
        self.leaving.extend(conn.sids.into_values());
        self.sweep();
    }

    /// Takes subscriptions of clients that are gone out of the index: some, so that nobody waits for all of them.
    pub fn sweep(&mut self) {
        self.routes.change += u64::from(self.is_leaving());
        for sub_id in self.leaving.drain(..self.leaving.len().min(SWEEP_MAX)) {
            if let Some(sub) = self.subs.remove(&sub_id) {
                self.index.remove(&sub.pattern, sub.queue.as_deref(), sub_id);
            }
        }
    }

    /// Whether there is more to be swept.
    pub fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Lets a client do what a user may.
    pub fn sign_in(&mut self, id: ConnId, rights: Rights, user: Option<String>, limits: Option<Limits>) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let before = (conn.user.take(), conn.limits.take());
        conn.rights = Some(rights);
        conn.user.clone_from(&user);
        conn.limits = limits;
        self.strangers.remove(&id);
        self.sign_out(before.0.as_deref(), before.1);
        if let Some(user) = user {
            *self.users.entry(user).or_default() += 1;
        }
        self.limited += usize::from(limits.is_some());
        self.signed.push((id, limits));
    }

    fn sign_out(&mut self, user: Option<&str>, limits: Option<Limits>) {
        if let Some(user) = user
            && let Some(count) = self.users.get_mut(user)
        {
            *count -= 1;
            if *count == 0 {
                self.users.remove(user);
            }
        }
        self.limited -= usize::from(limits.is_some());
    }

    /// Connections of one user.
    pub fn conns_of(&self, user: &str) -> usize {
        self.users.get(user).copied().unwrap_or(0)
    }

    /// Connections of users that have limits.
    pub fn limited(&self) -> usize {
        self.limited
    }

    /// Clients that have not signed in: how many, and who has been there longest.
    pub fn strangers(&self) -> (usize, Option<ConnId>) {
        (self.strangers.len(), self.strangers.first().copied())
    }

    /// Sends bytes to one client.
    pub fn write(&mut self, id: ConnId, bytes: &[u8]) {
        if let Some(conn) = self.conns.get_mut(&id) {
            conn.out.put_slice(bytes);
            mark(&mut self.dirty, id, conn);
        }
    }

    /// Sends `-ERR` and, if asked, ends the connection.
    pub fn error(&mut self, id: ConnId, text: &str, close: bool) {
        if let Some(conn) = self.conns.get_mut(&id) {
            if conn.closing {
                return;
            }
            put_error(&mut conn.out, text);
            mark(&mut self.dirty, id, conn);
            if close {
                self.close(id);
            }
        }
    }

    /// Ends a connection after what is on its way to it.
    pub fn close(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.closing
        {
            conn.closing = true;
            self.strangers.remove(&id);
            self.closed.push(id);
        }
    }

    /// Whether the connection is being ended: its further operations are ignored.
    pub fn is_closing(&self, id: ConnId) -> bool {
        self.conns.get(&id).is_none_or(|conn| conn.closing)
    }

    /// Adds a subscription; a second one with the same sid is ignored, as the original does.
    pub fn subscribe(&mut self, id: ConnId, pattern: Text, queue: Option<Text>, sid: Text) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if conn.sids.contains_key(&sid) {
            return;
        }
        self.sub_last += 1;
        conn.sids.insert(sid.clone(), self.sub_last);
        self.routes.change += 1;
        self.index.insert(&pattern, queue.as_deref(), self.sub_last);
        self.subs.insert(self.sub_last, Sub { conn: id, sid, pattern, queue, delivered: 0, max: None });
        self.new_interest = true;
    }

    /// Ends a subscription now or after `max` deliveries in total.
    pub fn unsubscribe(&mut self, id: ConnId, sid: &Text, max: Option<u64>) {
        let Some(sub_id) = self.conns.get(&id).and_then(|conn| conn.sids.get(sid)).copied() else { return };
        let Some(sub) = self.subs.get_mut(&sub_id) else { return };
        match max {
            Some(max) if max > sub.delivered => sub.max = Some(max),
            _ => self.remove_sub(sub_id),
        }
    }

    fn remove_sub(&mut self, sub_id: SubId) {
        if let Some(sub) = self.subs.remove(&sub_id) {
            self.routes.change += 1;
            self.index.remove(&sub.pattern, sub.queue.as_deref(), sub_id);
            if let Some(conn) = self.conns.get_mut(&sub.conn) {
                conn.sids.remove(&sub.sid);
            }
        }
    }

    /// Number of subscriptions of one connection.
    pub fn sub_count(&self, id: ConnId) -> usize {
        self.conns.get(&id).map_or(0, |conn| conn.sids.len())
    }

    /// Patterns that a connection is subscribed to, at most so many.
    pub fn patterns(&self, id: ConnId, max: usize) -> Vec<String> {
        let ids = self.conns.get(&id).into_iter().flat_map(|conn| conn.sids.values());
        ids.take(max).filter_map(|id| self.subs.get(id)).map(|sub| sub.pattern.to_string()).collect()
    }

    /// Notes that a client has enough to read.
    pub fn fill(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.filled
        {
            conn.filled = true;
            self.filled_count += 1;
            self.filled.push(id);
        }
    }

    /// Notes that a client has read most of what it had.
    pub fn drained(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && conn.filled
        {
            conn.filled = false;
            self.filled_count -= 1;
        }
    }

    /// The client that has to read before a message to this subject may be sent, if there is one.
    pub fn blocker(&self, route: &str) -> Option<ConnId> {
        if self.filled_count == 0 {
            return None;
        }
        let filled = |sub_id: &SubId| {
            let conn = self.subs.get(sub_id)?.conn;
            self.conns.get(&conn).filter(|found| found.filled).map(|_| conn)
        };
        let found = self.index.matches(route);
        found.plain.iter().find_map(filled).or_else(|| {
            found.groups.values().find_map(|slices| {
                let members = || slices.iter().flat_map(|slice| slice.iter());
                if members().all(|id| filled(id).is_some()) { members().find_map(filled) } else { None }
            })
        })
    }

    /// Delivers to everybody interested; returns how many got it. `from` is the publisher's connection.
    pub fn deliver(&mut self, message: Outgoing<'_>, from: Option<ConnId>) -> usize {
        let mut delivery = self.delivery(message.route);
        self.deliver_part(&mut delivery, message, from, usize::MAX);
        delivery.reached
    }

    /// Whom a message to this subject is for.
    pub fn delivery(&mut self, route: &str) -> Delivery {
        let route = self.routes.find(&self.index, route);
        let Self { conns, subs, random, filled_count, .. } = self;
        // One that reads is preferred to one that does not.
        let reads =
            |id: &SubId| subs.get(id).and_then(|sub| conns.get(&sub.conn)).is_some_and(|conn| !conn.filled);
        let mut chosen = Vec::new();
        for members in &route.groups {
            let first = random.index(members.len());
            let turn = || members[first..].iter().chain(&members[..first]).copied();
            let reading = if *filled_count > 0 { turn().find(reads) } else { None };
            chosen.extend(reading.or_else(|| turn().next()));
        }
        Delivery { route, chosen, at: 0, reached: 0 }
    }

    /// Delivers to at most so many more.
    pub fn deliver_part(
        &mut self,
        delivery: &mut Delivery,
        message: Outgoing<'_>,
        from: Option<ConnId>,
        most: usize,
    ) {
        let muted = from.filter(|id| self.conns.get(id).is_some_and(|conn| !conn.echo));
        let Self { conns, subs, dirty, counts, filled_count, filled, pressing, .. } = self;
        let mut finished = Vec::new();
        let mut reached = 0;
        let mut send = |sub_id: SubId| {
            let Some(sub) = subs.get_mut(&sub_id) else { return };
            if muted == Some(sub.conn) {
                return;
            }
            let Some(conn) = conns.get_mut(&sub.conn) else { return };
            let header = if conn.headers { message.header } else { &[] };
            put_message(&mut conn.out, message.subject, &sub.sid, message.reply, header, message.payload);
            let bytes = (header.len() + message.payload.len()) as u64;
            conn.counts.out_msgs += 1;
            conn.counts.out_bytes += bytes;
            counts.out_msgs += 1;
            counts.out_bytes += bytes;
            mark(dirty, sub.conn, conn);
            if !conn.filled && conn.out.len() >= FILLED_BYTES {
                conn.filled = true;
                *filled_count += 1;
                filled.push(sub.conn);
            }
            if conn.filled
                && let Some(from) = from
                && pressing.last() != Some(&(from, sub.conn))
            {
                pressing.push((from, sub.conn));
            }
            reached += 1;
            sub.delivered += 1;
            if sub.max.is_some_and(|max| sub.delivered >= max) {
                finished.push(sub_id);
            }
        };
        let plain = &delivery.route.plain;
        let part = delivery.left().min(most);
        let rest = plain.iter().skip(delivery.at);
        for sub_id in
            rest.chain(delivery.chosen.iter().skip(delivery.at.saturating_sub(plain.len()))).take(part)
        {
            send(*sub_id);
        }
        delivery.at += part;
        delivery.reached += reached;
        for sub_id in finished {
            self.remove_sub(sub_id);
        }
    }

    /// Moves what was written and who is to be closed into the effects.
    pub fn drain(&mut self, effects: &mut Effects) {
        for id in self.dirty.drain(..) {
            if let Some(conn) = self.conns.get_mut(&id) {
                conn.dirty = false;
                effects.writes.push((id, conn.out.split().freeze()));
            }
        }
        effects.closes.append(&mut self.closed);
        effects.signed = std::mem::take(&mut self.signed);
        effects.filled = std::mem::take(&mut self.filled);
        effects.pressing = std::mem::take(&mut self.pressing);
    }
}

fn mark(dirty: &mut Vec<ConnId>, id: ConnId, conn: &mut Conn) {
    if !conn.dirty {
        conn.dirty = true;
        dirty.push(id);
    }
}
