//! Acks: `$JS.ACK.…` subjects and what clients say on them.

use super::api::parse_pull;
use super::config::AckPolicy;
use super::env::Env;
use super::stream::Stream;
use super::subject::Text;
use super::{Core, pull};
use bytes::Bytes;
use serde_json::{Value, json};

/// What an ack subject names.
#[derive(Debug, PartialEq, Eq)]
pub struct Target<'a> {
    /// Stream.
    pub stream: &'a str,
    /// Consumer.
    pub consumer: &'a str,
    /// Stream sequence.
    pub sequence: u64,
}

/// Reads `$JS.ACK.<stream>.<consumer>.<count>.<stream seq>.<consumer seq>.<ts>.<pending>` and its long forms.
pub fn parse_subject(subject: &str) -> Option<Target<'_>> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let at = match tokens.len() {
        9 => 2,
        11 | 12 => 4,
        _ => return None,
    };
    Some(Target { stream: tokens[at], consumer: tokens[at + 1], sequence: tokens[at + 3].parse().ok()? })
}

enum Word<'a> {
    Ack,
    Nak(u64),
    InProgress,
    Term(&'a str),
    Next(&'a [u8]),
}

fn parse_word(payload: &[u8]) -> Option<Word<'_>> {
    let word = payload.trim_ascii_start();
    if payload.is_empty() || payload.starts_with(b"+ACK") || payload.starts_with(b"+OK") {
        return Some(Word::Ack);
    }
    if let Some(rest) = word.strip_prefix(b"-NAK") {
        let delay = serde_json::from_slice::<Value>(rest)
            .ok()
            .and_then(|value| value.get("delay").and_then(Value::as_u64))
            .unwrap_or(0);
        return Some(Word::Nak(delay));
    }
    if word.starts_with(b"+WPI") {
        return Some(Word::InProgress);
    }
    if let Some(reason) = word.strip_prefix(b"+TERM") {
        return Some(Word::Term(std::str::from_utf8(reason).unwrap_or("").trim()));
    }
    word.strip_prefix(b"+NXT").map(Word::Next)
}

impl Core {
    /// Takes an ack; false when nobody awaits any there. What was settled before is confirmed again; what was not
    /// delivered yet is not.
    pub(super) fn ack(&mut self, subject: &str, reply: Option<&Text>, payload: &Bytes) -> bool {
        let Some(ack) = parse_subject(subject) else { return false };
        let Some(stream) = self.by_name.get(ack.stream).and_then(|id| self.streams.get_mut(id)) else {
            return false;
        };
        let Some(consumer) = stream.names.get(ack.consumer).and_then(|id| stream.consumers.get(id)) else {
            return false;
        };
        if !consumer.tracks() {
            return false;
        }
        let word = parse_word(payload);
        let answer = match word {
            Some(Word::Ack | Word::Term(_)) => consumer.has_passed(ack.sequence),
            Some(Word::Nak(_) | Word::InProgress) | None => true,
            Some(Word::Next(_)) => false,
        };
        let consumer_id = consumer.id;
        apply(stream, consumer_id, ack.sequence, word.as_ref(), reply, &mut self.env);
        if answer && let Some(reply) = reply {
            self.env.gate.hurry();
            self.env.reply(reply, Bytes::new());
        }
        true
    }

    /// Takes the answer to a flow control request; false when there is no such consumer.
    pub(super) fn flow_answer(&mut self, subject: &str) -> bool {
        let mut tokens = subject.split('.').skip(2);
        let (Some(stream), Some(consumer)) = (tokens.next(), tokens.next()) else { return false };
        let Some(stream) = self.by_name.get(stream).and_then(|id| self.streams.get_mut(id)) else {
            return false;
        };
        let Some(consumer) = stream.consumer(consumer) else { return false };
        consumer.active = self.env.now;
        let id = consumer.id;
        if consumer.flow.answered(subject) {
            stream.pump_one(id, &mut self.env);
        }
        true
    }
}

/// Tells what a client said of a delivery.
fn advise(stream: &Stream, id: u32, sequence: u64, kind: (&str, &str), reason: Option<&str>, env: &mut Env) {
    let Some(consumer) = stream.consumers.get(&id) else { return };
    let Some(pending) = consumer.pending.get(&sequence) else { return };
    let (stream, name) = (&stream.log.config.name, consumer.name());
    let mut members = json!({
        "stream": stream, "consumer": name, "consumer_seq": pending.consumer_seq, "stream_seq": sequence,
        "deliveries": pending.count,
    });
    if let Some(reason) = reason.filter(|reason| !reason.is_empty()) {
        members["reason"] = reason.into();
    }
    env.advise(&format!("CONSUMER.{}.{stream}.{name}", kind.0), kind.1, members);
}

fn apply(
    stream: &mut Stream,
    consumer_id: u32,
    sequence: u64,
    word: Option<&Word<'_>>,
    reply: Option<&Text>,
    env: &mut Env,
) {
    match word {
        Some(Word::Term(reason)) => {
            advise(stream, consumer_id, sequence, ("MSG_TERMINATED", "terminated"), Some(*reason), env);
        }
        Some(Word::Nak(_)) => advise(stream, consumer_id, sequence, ("MSG_NAKED", "nak"), None, env),
        _ => {}
    }
    let Some(consumer) = stream.consumers.get_mut(&consumer_id) else { return };
    consumer.active = env.now;
    let mut settled = Vec::new();
    match word {
        Some(Word::Ack | Word::Next(_)) if consumer.config().ack_policy == AckPolicy::All => {
            settled = consumer.settle_through(sequence, env);
        }
        Some(Word::Ack | Word::Next(_) | Word::Term(_)) => {
            settled.extend(consumer.settle(sequence, env).then_some(sequence));
        }
        Some(Word::Nak(delay)) => consumer.nak(sequence, *delay, env),
        Some(Word::InProgress) => consumer.in_progress(sequence, env),
        None => {}
    }
    stream.settled(&settled, env);
    if let (Some(Word::Next(body)), Some(reply)) = (word, reply) {
        match parse_pull(body) {
            Ok(pull) => pull::request(stream, consumer_id, &pull, reply, env),
            Err(_) => super::deliver::status(env, reply, "400 Bad Request", &[]),
        }
    } else {
        stream.pump_one(consumer_id, env);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ack_subjects_are_read_in_their_short_and_long_forms() {
        let short = parse_subject("$JS.ACK.S.C.1.22.3.4.5").unwrap();
        assert_eq!(short, Target { stream: "S", consumer: "C", sequence: 22 });
        assert_eq!(parse_subject("$JS.ACK._.hash.S.C.1.22.3.4.5"), Some(short));
        assert!(parse_subject("$JS.ACK.S.C.1.x.3.4.5").is_none());
        assert!(parse_subject("$JS.ACK").is_none());
    }
}
