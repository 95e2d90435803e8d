//! Storing a published message: the checks its headers ask for, the limits, the answer.

use super::config::{Discard, Retention};
use super::effects::StoreOp;
use super::env::{Env, Held};
use super::fault::Fault;
use super::stream::Stream;
use super::subject::Text;
use super::wire::header_value;
use bytes::Bytes;
use serde_json::json;

enum Outcome {
    Stored(u64),
    Duplicate(u64),
}

/// Stores a message and answers once it is on disk.
pub fn publish(
    stream: &mut Stream,
    env: &mut Env,
    subject: &str,
    reply: Option<&Text>,
    header: &Bytes,
    payload: &Bytes,
) {
    let outcome = store(stream, env, subject, header, payload);
    let Some(reply) = reply.filter(|_| !stream.log.config.no_ack) else { return };
    let name = &stream.log.config.name;
    let body = match outcome {
        Ok(Outcome::Stored(seq)) => format!("{{\"stream\":\"{name}\", \"seq\":{seq}}}"),
        Ok(Outcome::Duplicate(seq)) => {
            format!("{{\"stream\":\"{name}\", \"seq\":{seq},\"duplicate\": true}}")
        }
        Err(fault) => {
            let body = json!({"error": fault.json(), "stream": name, "seq": 0}).to_string();
            return env.tell(reply, Bytes::new(), body.into());
        }
    };
    env.reply(reply, body.into());
}

/// What a message takes the place of.
enum Rollup {
    All,
    Subject,
}

/// What the headers of a message that may be stored ask for.
#[derive(Default)]
struct Asked<'a> {
    msg_id: Option<&'a str>,
    rollup: Option<Rollup>,
}

/// What its headers come to.
enum Headers<'a> {
    Store(Asked<'a>),
    Duplicate(u64),
}

/// Checks what the headers expect of the stream.
fn check_headers<'a>(
    stream: &mut Stream,
    env: &mut Env,
    subject: &str,
    header: &'a [u8],
) -> Result<Headers<'a>, Fault> {
    if header.is_empty() {
        return Ok(Headers::Store(Asked::default()));
    }
    let value = |name| header_value(header, name).filter(|value| !value.is_empty());
    if value("Nats-TTL").is_some() {
        return Err(Fault::new(400, 10166, "per-message TTL is disabled"));
    }
    if value("Nats-Expected-Stream").is_some_and(|expected| expected != stream.log.config.name) {
        return Err(Fault::new(400, 10060, "expected stream does not match"));
    }
    let msg_id = value("Nats-Msg-Id");
    if let Some(id) = msg_id {
        if let Some(below) = stream.log.forget(env.now)
            && stream.log.on_disk()
        {
            env.gate.op(StoreOp::DedupeTrim { stream: stream.log.id, below });
        }
        if let Some(seq) = stream.log.remembered(id) {
            return Ok(Headers::Duplicate(seq));
        }
    }
    let number = |name| match value(name) {
        None => Ok(None),
        Some(text) => text.parse::<u64>().map(Some).map_err(|_| Fault::bad_request()),
    };
    if let Some(expected) = number("Nats-Expected-Last-Subject-Sequence")? {
        let last = stream.log.subjects.get(subject).and_then(|slot| slot.seqs.back().copied()).unwrap_or(0);
        if last != expected {
            return Err(Fault::new(400, 10071, format!("wrong last sequence: {last}")));
        }
    }
    if let Some(expected) = number("Nats-Expected-Last-Sequence")?
        && expected != stream.log.last_seq
    {
        return Err(Fault::new(400, 10071, format!("wrong last sequence: {}", stream.log.last_seq)));
    }
    if let Some(expected) = value("Nats-Expected-Last-Msg-Id") {
        let last = stream.log.last_msg_id.as_deref().unwrap_or("");
        if last != expected {
            return Err(Fault::new(400, 10070, format!("wrong last msg ID: {last}")));
        }
    }
    let rollup = value("Nats-Rollup").map(|kind| rollup_of(stream, kind)).transpose()?;
    Ok(Headers::Store(Asked { msg_id, rollup }))
}

fn rollup_of(stream: &Stream, kind: &str) -> Result<Rollup, Fault> {
    if !stream.log.config.allow_rollup_hdrs {
        return Err(Fault::new(500, 10111, "rollup not permitted"));
    }
    match kind.to_ascii_lowercase().as_str() {
        "all" => Ok(Rollup::All),
        "sub" => Ok(Rollup::Subject),
        _ => Err(Fault::new(500, 10111, format!("rollup value invalid: {kind:?}"))),
    }
}

fn store(
    stream: &mut Stream,
    env: &mut Env,
    subject: &str,
    header: &Bytes,
    payload: &Bytes,
) -> Result<Outcome, Fault> {
    if stream.log.config.sealed {
        return Err(Fault::sealed());
    }
    let max = stream.log.config.max_msg_size;
    if max > 0 && (header.len() + payload.len()) as i64 > max {
        return Err(Fault::new(400, 10054, "message size exceeds maximum allowed"));
    }
    let Asked { msg_id, rollup } = match check_headers(stream, env, subject, header)? {
        Headers::Store(asked) => asked,
        Headers::Duplicate(seq) => return Ok(Outcome::Duplicate(seq)),
    };
    if stream.log.on_disk() && !env.room {
        return Err(Fault::no_room());
    }
    let size = check_limits(stream, subject, header, payload)?;
    let log = &mut stream.log;
    let (message, stored_size) = log.append(env.now, subject, header, payload);
    debug_assert_eq!(size, stored_size, "a message is as long as its limits were checked for");
    let seq = message.seq;
    log.last_msg_id = msg_id.map(Into::into);
    if let Some(id) = msg_id {
        log.remember(id, seq, env.now);
    }
    if log.on_disk() {
        env.gate.urgent_op(StoreOp::MessagePut {
            stream: log.id,
            message,
            size: stored_size,
            dedupe: msg_id.map(Into::into),
        });
        env.gate.hold(Held::Visible { stream: log.id, seq });
    }
    if let Some(rollup) = rollup {
        roll_up(stream, env, subject, seq, &rollup);
    }
    if stream.log.config.retention == Retention::Interest && !stream.is_wanted(subject) {
        stream.drop_message(seq, env);
    }
    stream.enforce(subject, env);
    if !stream.log.on_disk() {
        let wanting = stream.visible(seq);
        stream.pump_these(wanting, env);
    }
    stream.arm(env);
    Ok(Outcome::Stored(seq))
}

/// Drops the messages whose place the one with this sequence takes.
fn roll_up(stream: &mut Stream, env: &mut Env, subject: &str, seq: u64, rollup: &Rollup) {
    let older: Vec<u64> = match rollup {
        Rollup::All => stream.log.index.from(0).map(|(seq, _)| seq).filter(|other| *other < seq).collect(),
        // A key-value client purges `keys.*` by a message to that subject: it is a pattern here, as in the original.
        Rollup::Subject => {
            let slots = stream.log.subjects.matching(subject);
            let seqs = slots.flat_map(|slot| slot.seqs.iter().copied());
            let mut older: Vec<u64> = seqs.filter(|other| *other < seq).collect();
            older.sort_unstable();
            older
        }
    };
    for other in older {
        stream.replace_message(other, env);
    }
}

fn check_limits(stream: &Stream, subject: &str, header: &[u8], payload: &[u8]) -> Result<u32, Fault> {
    let log = &stream.log;
    let config = &log.config;
    let size = log.size_of(subject.len(), header.len(), payload.len());
    let too_many_bytes = || Fault::new(503, 10077, "maximum bytes exceeded");
    if config.max_bytes > 0 && i64::from(size) > config.max_bytes {
        return Err(too_many_bytes());
    }
    if config.discard == Discard::New {
        let in_subject = log.subjects.get(subject).map_or(0, |slot| slot.seqs.len()) as i64;
        let full_subject = config.max_msgs_per_subject > 0 && in_subject >= config.max_msgs_per_subject;
        if config.discard_new_per_subject && full_subject {
            return Err(Fault::new(503, 10077, "maximum messages per subject exceeded"));
        }
        // A full subject makes room for itself, so the totals do not grow by this message.
        if config.max_msgs > 0 && !full_subject && log.index.len() as i64 >= config.max_msgs {
            return Err(Fault::new(503, 10077, "maximum messages exceeded"));
        }
        if config.max_bytes > 0 && !full_subject && log.bytes as i64 + i64::from(size) > config.max_bytes {
            return Err(too_many_bytes());
        }
    }
    Ok(size)
}
