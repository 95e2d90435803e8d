//! Handing out messages: pull requests in turn, push subjects, statuses, deadlines of a consumer.

use super::config::Retention;
use super::consumer::{Consumer, Flow, Next, Request, ack_subject};
use super::effects::{Load, Pair};
use super::env::Env;
use super::log::{Log, Message};
use super::net::{Nanos, Outgoing};
use super::subject::Text;
use serde_json::json;
use std::fmt::Write as _;
use std::sync::Arc;

/// Messages read from the store at once.
pub const LOAD_COUNT_MAX: usize = 1024;
/// Bytes read from the store at once.
pub const LOAD_BYTES_MAX: usize = 1 << 20;
/// Bytes that may be on their way to a push subject or a puller in one go before others get their turn.
const BURST_MAX: usize = 1024;
/// Waiting requests above which they are looked through at most once in [`LOOK_MIN`].
const WAITING_MANY: usize = 256;
/// Shortest time between two looks through many waiting requests, in nanoseconds.
const LOOK_MIN: Nanos = 10_000_000;

/// Sends a status: a message that is only a header.
pub fn status(env: &mut Env, inbox: &str, line: &str, extra: &[(&str, u64)]) {
    let mut header = format!("NATS/1.0 {line}\r\n");
    for (name, value) in extra {
        // Writing to a String cannot fail.
        let _ = write!(header, "{name}: {value}\r\n");
    }
    header.push_str("\r\n");
    env.send(inbox, header.as_bytes(), &[]);
}

/// Ends a request with a status that says what it did not get.
pub fn end_request(env: &mut Env, request: &Request, line: &str) {
    status(
        env,
        &request.inbox,
        line,
        &[("Nats-Pending-Messages", request.left), ("Nats-Pending-Bytes", request.bytes_left.unwrap_or(0))],
    );
}

enum Stop {
    /// Nobody asks.
    NoRequest,
    /// Nothing to give, or too much is unacked.
    NothingLeft,
    /// The store is asked for the next message.
    Loading,
    /// Others get their turn; go on in the next step.
    Burst,
    /// Clients have to read or to answer first, or too much awaits an ack.
    Held,
}

/// Hands out what can be handed out. Returns sequences that are settled by their delivery.
pub fn pump(log: &mut Log, consumer: &mut Consumer, env: &mut Env) -> Vec<u64> {
    let mut settled = Vec::new();
    let stop = if consumer.config().deliver_subject.is_some() {
        push(log, consumer, env, &mut settled)
    } else {
        pull(log, consumer, env, &mut settled)
    };
    match stop {
        Stop::NoRequest | Stop::Loading | Stop::Held => {}
        Stop::NothingLeft => end_impatient(consumer, env),
        Stop::Burst => env.timers.arm(consumer.timer(), env.now),
    }
    settled
}

fn end_impatient(consumer: &mut Consumer, env: &mut Env) {
    if !consumer.waiting.iter().any(|request| request.no_wait) {
        return;
    }
    let waiting = std::mem::take(&mut consumer.waiting);
    for request in waiting {
        if request.no_wait && request.delivered > 0 {
            end_request(env, &request, "408 Request Timeout");
        } else if request.no_wait && request.expires.is_none() {
            status(env, &request.inbox, "404 No Messages", &[]);
        } else {
            consumer.waiting.push_back(request);
        }
    }
}

/// The next message, in memory.
fn next(
    log: &mut Log,
    consumer: &mut Consumer,
    env: &mut Env,
    settled: &mut Vec<u64>,
) -> Result<(Arc<Message>, bool), Stop> {
    loop {
        let (seq, again) = match consumer.next(log) {
            Next::New(seq) => (seq, false),
            Next::Again(seq) => (seq, true),
            Next::Held => return Err(Stop::Held),
            Next::Nothing => return Err(Stop::NothingLeft),
        };
        if again && exhaust(log, consumer, seq, env) {
            continue;
        }
        if log.index.get(seq).is_none() {
            // It left while its subject was not among the filters.
            if consumer.settle(seq, env) {
                settled.push(seq);
            }
            continue;
        }
        if let Some(message) = log.message(seq).cloned() {
            if let Some(from) = log.ahead(seq) {
                load(log, from, env);
            }
            return Ok((message, again));
        }
        if !log.loading {
            load(log, seq, env);
        }
        return Err(Stop::Loading);
    }
}

/// Asks the store for messages of a stream.
fn load(log: &mut Log, from: u64, env: &mut Env) {
    log.loading = true;
    let (count_max, bytes_max) = (LOAD_COUNT_MAX, LOAD_BYTES_MAX);
    env.loads.push(Load { stream: log.id, from, count_max, bytes_max, getter: None });
}

/// Gives a message up if it had its last delivery, and tells.
fn exhaust(log: &Log, consumer: &mut Consumer, seq: u64, env: &mut Env) -> bool {
    let Some(deliveries) = consumer.exhaust(seq) else { return false };
    let (stream, name) = (&log.config.name, consumer.name());
    env.advise(
        &format!("CONSUMER.MAX_DELIVERIES.{stream}.{name}"),
        "max_deliver",
        json!({"stream": stream, "consumer": name, "stream_seq": seq, "deliveries": deliveries}),
    );
    true
}

/// Whether a client that is sent to at `to` has to read first; then the consumer goes on when it has.
fn is_blocked(consumer: &Consumer, env: &mut Env, to: &str) -> bool {
    let Some(conn) = env.net.blocker(to) else { return false };
    env.blocked.entry(conn).or_default().insert((consumer.stream, consumer.id));
    true
}

/// Where a message that would be delivered is acked.
fn reply_for(log: &Log, consumer: &Consumer, message: &Message, again: bool) -> Arc<str> {
    let pair = Pair { consumer: consumer.delivered.consumer + 1, stream: message.seq };
    let count = consumer.pending.get(&message.seq).map_or(0, |pending| pending.count) + 1;
    let pending = consumer.num_pending.saturating_sub(u64::from(!again));
    ack_subject(&log.config.name, consumer.name(), count, pair, message.ts, pending)
}

/// Delivers one message; false if nobody took it.
fn hand_out(
    consumer: &mut Consumer,
    env: &mut Env,
    to: &str,
    reply: &str,
    message: &Message,
    again: bool,
) -> bool {
    let sized;
    let (header, payload): (&[u8], &[u8]) = if consumer.config().headers_only {
        sized = headers_only(message);
        (&sized, &[])
    } else {
        (&message.header, &message.payload)
    };
    let reached = env.net.deliver(
        Outgoing { route: to, subject: &message.subject, reply: Some(reply), header, payload },
        None,
    );
    if reached == 0 {
        return false;
    }
    consumer.book(message.seq, again, env);
    true
}

fn headers_only(message: &Message) -> Vec<u8> {
    let mut header = if message.header.is_empty() {
        b"NATS/1.0\r\n".to_vec()
    } else {
        message.header[..message.header.len().saturating_sub(2)].to_vec()
    };
    header.extend_from_slice(format!("Nats-Msg-Size: {}\r\n\r\n", message.payload.len()).as_bytes());
    header
}

/// Bytes that a delivery counts for, as the original counts.
fn cost(message: &Message, reply: &str) -> u64 {
    (message.subject.len() + reply.len() + message.header.len() + message.payload.len()) as u64
}

fn pull(log: &mut Log, consumer: &mut Consumer, env: &mut Env, settled: &mut Vec<u64>) -> Stop {
    let mut burst = 0;
    let mut blocked = 0;
    loop {
        if consumer.waiting.is_empty() {
            return Stop::NoRequest;
        }
        if burst == BURST_MAX {
            return Stop::Burst;
        }
        if blocked == consumer.waiting.len() {
            return Stop::Held;
        }
        let (message, again) = match next(log, consumer, env, settled) {
            Ok(found) => found,
            Err(stop) => return stop,
        };
        let Some(mut request) = consumer.waiting.pop_front() else { return Stop::NoRequest };
        if is_blocked(consumer, env, &request.inbox) {
            consumer.waiting.push_back(request);
            blocked += 1;
            continue;
        }
        let reply = reply_for(log, consumer, &message, again);
        let bytes = cost(&message, &reply);
        if request.bytes_left.is_some_and(|left| bytes > left) {
            end_request(env, &request, "409 Message Size Exceeds MaxBytes");
            continue;
        }
        let to = request.inbox.clone();
        if !hand_out(consumer, env, &to, &reply, &message, again) {
            continue;
        }
        burst += 1;
        blocked = 0;
        if !consumer.tracks() {
            settled.push(message.seq);
        }
        request.left -= 1;
        request.delivered += 1;
        request.bytes_left = request.bytes_left.map(|left| left - bytes);
        if let Some(heartbeat) = request.heartbeat {
            request.heartbeat_at = env.now + heartbeat;
        }
        if request.left > 0 && request.bytes_left != Some(0) {
            consumer.waiting.push_back(request);
        }
    }
}

fn push(log: &mut Log, consumer: &mut Consumer, env: &mut Env, settled: &mut Vec<u64>) -> Stop {
    let Some(to) = consumer.config().deliver_subject.clone().map(Text::from) else { return Stop::NoRequest };
    attach(consumer, env, &to);
    let mut burst = 0;
    loop {
        if !consumer.attached {
            return Stop::NoRequest;
        }
        if burst == BURST_MAX {
            return Stop::Burst;
        }
        if consumer.flow.is_stalled() || is_blocked(consumer, env, &to) {
            return Stop::Held;
        }
        let (message, again) = match next(log, consumer, env, settled) {
            Ok(found) => found,
            Err(stop) => return stop,
        };
        let reply = reply_for(log, consumer, &message, again);
        if !hand_out(consumer, env, &to, &reply, &message, again) {
            attach(consumer, env, &to);
            return Stop::NoRequest;
        }
        burst += 1;
        if !consumer.tracks() {
            settled.push(message.seq);
        }
        let heartbeat = consumer.config().idle_heartbeat;
        if heartbeat > 0 {
            consumer.heartbeat_at = env.now + heartbeat as u64;
        }
        if consumer.flow.sent(cost(&message, &reply)) {
            let word = env.net.random().word();
            let reply: Arc<str> =
                format!("$JS.FC.{}.{}.{:08x}", log.config.name, consumer.name(), word as u32).into();
            let header = b"NATS/1.0 100 FlowControl Request\r\n\r\n";
            env.net.deliver(
                Outgoing { route: &to, subject: &to, reply: Some(&*reply), header, payload: &[] },
                None,
            );
            consumer.flow.ask(reply);
        }
    }
}

/// Notes whether the subject of a push consumer has interest.
fn attach(consumer: &mut Consumer, env: &mut Env, to: &str) {
    let attached = env.net.index.has_interest(to);
    if attached && !consumer.attached {
        // Who answered before is gone.
        consumer.flow = Flow::new(consumer.config());
    }
    if attached && !consumer.attached && consumer.config().idle_heartbeat > 0 {
        consumer.heartbeat_at = env.now + consumer.config().idle_heartbeat as u64;
        env.timers.arm(consumer.timer(), consumer.heartbeat_at);
    }
    if attached || consumer.attached {
        consumer.active = env.now;
    }
    consumer.attached = attached;
}

/// What a consumer's deadline brought about.
#[derive(Debug)]
pub struct Woken {
    /// Sequences that are settled.
    pub settled: Vec<u64>,
    /// Nobody has used it for longer than its threshold.
    pub inactive: bool,
}

/// Does what is due for a consumer and arms its next deadline.
pub fn wake(log: &mut Log, consumer: &mut Consumer, env: &mut Env) -> Woken {
    for seq in consumer.overdue(env) {
        exhaust(log, consumer, seq, env);
    }
    let now = env.now;
    let waiting = std::mem::take(&mut consumer.waiting);
    let ids = [
        ("Nats-Last-Consumer", consumer.delivered.consumer),
        ("Nats-Last-Stream", consumer.delivered.stream),
    ];
    let had_requests = !waiting.is_empty();
    for mut request in waiting {
        if !env.net.index.has_interest(&request.inbox) {
            continue;
        }
        if request.expires.is_some_and(|at| at <= now) {
            end_request(env, &request, "408 Request Timeout");
            continue;
        }
        if let Some(heartbeat) = request.heartbeat
            && request.heartbeat_at <= now
        {
            status(env, &request.inbox, "100 Idle Heartbeat", &ids);
            request.heartbeat_at = now + heartbeat;
        }
        consumer.waiting.push_back(request);
    }
    if had_requests {
        consumer.active = now;
    }
    let settled = pump(log, consumer, env);
    let config = consumer.config();
    if let Some(to) = config.deliver_subject.clone()
        && consumer.attached
        && config.idle_heartbeat > 0
        && consumer.heartbeat_at <= now
    {
        let every = config.idle_heartbeat as u64;
        let mut line =
            format!("100 Idle Heartbeat\r\n{}: {}\r\n{}: {}", ids[0].0, ids[0].1, ids[1].0, ids[1].1);
        if let Some(asked) = &consumer.flow.asked {
            let _ = write!(line, "\r\nNats-Consumer-Stalled: {asked}");
        }
        status(env, &to, &line, &[]);
        consumer.heartbeat_at = now + every;
    }
    let threshold = consumer.config().inactive_threshold.max(0) as u64;
    let used = !consumer.waiting.is_empty() || consumer.attached;
    let inactive = threshold > 0 && !used && consumer.active + threshold <= now;
    if let Some(at) = next_deadline(consumer, now) {
        let pause = if consumer.waiting.len() > WAITING_MANY { LOOK_MIN } else { 0 };
        env.timers.arm(consumer.timer(), at.max(now + pause));
    }
    Woken { settled, inactive }
}

/// The next time something is due for a consumer.
pub fn next_deadline(consumer: &Consumer, now: Nanos) -> Option<Nanos> {
    let requests = consumer.waiting.iter().flat_map(|request| {
        request.expires.into_iter().chain(request.heartbeat.is_some().then_some(request.heartbeat_at))
    });
    let threshold = consumer.config().inactive_threshold.max(0) as u64;
    let used = !consumer.waiting.is_empty() || consumer.attached;
    let idle = (threshold > 0)
        .then(|| if used { now + threshold } else { (consumer.active + threshold).max(now + 1) });
    let heartbeat =
        (consumer.attached && consumer.config().idle_heartbeat > 0).then_some(consumer.heartbeat_at);
    requests.chain(consumer.due_next()).chain(idle).chain(heartbeat).min()
}

/// Whether acks take messages out of the stream.
pub fn acks_remove(log: &Log) -> bool {
    log.config.retention != Retention::Limits
}
