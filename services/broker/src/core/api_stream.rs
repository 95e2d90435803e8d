//! API requests about streams and their messages.

use super::Core;
use super::api::{Answer, parse, parse_optional};
use super::clock;
use super::config::{Retention, Storage, StreamConfig};
use super::deliver::status;
use super::effects::{Load, StoreOp, StreamId};
use super::fault::Fault;
use super::log::{Log, Message};
use super::records::StreamRecord;
use super::stream::Stream;
use super::subject::{Text, is_pattern, matches, overlaps};
use super::timers::TimerKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Map, Value, json};

const NAMES_PAGE: usize = 1024;
const LIST_PAGE: usize = 256;
/// Subjects in one answer of STREAM.INFO.
const SUBJECTS_PAGE: usize = 100_000;

/// Which page of a list, and which part of it.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Paging {
    /// Entries to skip.
    pub offset: usize,
    /// Only streams that overlap with this subject.
    pub subject: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct InfoRequest {
    subjects_filter: String,
    deleted_details: bool,
    offset: usize,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PurgeRequest {
    filter: String,
    seq: u64,
    keep: u64,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct GetRequest {
    seq: u64,
    last_by_subj: String,
    next_by_subj: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DeleteRequest {
    seq: u64,
}

/// Who waits for a stored message.
#[derive(Debug, Clone)]
pub enum Getter {
    /// `STREAM.MSG.GET`.
    Api(Text),
    /// `DIRECT.GET`.
    Direct(Text),
}

impl Core {
    fn stream_id(&self, name: &str) -> Result<StreamId, Fault> {
        self.by_name.get(name).copied().ok_or_else(Fault::stream_not_found)
    }

    pub(super) fn stream_create(&mut self, name: &str, body: &Bytes) -> Answer {
        let config: StreamConfig = parse(body)?;
        if config.name != name {
            return Err(Fault::stream_mismatch());
        }
        let config = config.normalized()?;
        if config.sealed {
            return Err(Fault::stream_config("stream configuration for create can not be sealed"));
        }
        if let Some(id) = self.by_name.get(name) {
            let stream = &self.streams[id];
            if stream.log.config == config {
                let mut info = stream_info(stream);
                info["did_create"] = Value::Bool(true);
                return Ok(info);
            }
            return Err(Fault::stream_name_in_use());
        }
        if config.storage == Storage::File && !self.env.room {
            return Err(Fault::no_room());
        }
        if self.streams.len() >= self.settings.streams_max {
            return Err(Fault::new(400, 10027, "maximum number of streams reached"));
        }
        self.no_overlap(&config)?;
        self.stream_last += 1;
        let id = self.stream_last;
        let stream = Stream::new(Log::new(id, config, self.env.now));
        self.put_stream(&stream);
        let mut info = stream_info(&stream);
        info["did_create"] = Value::Bool(true);
        self.by_name.insert(name.to_owned(), id);
        self.streams.insert(id, stream);
        self.capture_cache.clear();
        Ok(info)
    }

    fn put_stream(&mut self, stream: &Stream) {
        let record = StreamRecord { config: stream.log.config.clone(), created: stream.log.created };
        if stream.log.on_disk() {
            #[expect(
                clippy::expect_used,
                reason = "a record is written by its own derive, its keys are text"
            )]
            let json = serde_json::to_string(&record).expect("invariant: a record has only text keys");
            self.env.gate.urgent_op(StoreOp::StreamPut { stream: stream.log.id, json });
        }
    }

    fn no_overlap(&self, config: &StreamConfig) -> Result<(), Fault> {
        let taken = self
            .streams
            .values()
            .filter(|other| other.log.config.name != config.name)
            .flat_map(|other| &other.log.config.subjects)
            .any(|theirs| config.subjects.iter().any(|ours| overlaps(ours, theirs)));
        if taken { Err(Fault::subjects_overlap()) } else { Ok(()) }
    }

    pub(super) fn stream_update(&mut self, name: &str, body: &Bytes) -> Answer {
        let config: StreamConfig = parse(body)?;
        if config.name != name {
            return Err(Fault::stream_mismatch());
        }
        let id = self.stream_id(name)?;
        let mut config = config.normalized()?;
        if config.sealed {
            config.seal();
        }
        let old = &self.streams[&id].log.config;
        let refusal = if old.storage != config.storage {
            Some("stream configuration update can not change storage type")
        } else if old.retention != config.retention {
            Some("stream configuration update can not change retention policy")
        } else if old.max_consumers != config.max_consumers {
            Some("stream configuration update can not change MaxConsumers")
        } else if old.sealed && !config.sealed {
            Some("stream configuration update can not unseal a sealed stream")
        } else if old.deny_delete && !config.deny_delete {
            Some("stream configuration update can not cancel deny message deletes")
        } else if old.deny_purge && !config.deny_purge {
            Some("stream configuration update can not cancel deny purge")
        } else {
            None
        };
        if let Some(reason) = refusal {
            return Err(Fault::stream_config(reason));
        }
        self.no_overlap(&config)?;
        let mut stream = self.streams.remove(&id).ok_or_else(Fault::stream_not_found)?;
        stream.log.config = config;
        self.put_stream(&stream);
        stream.enforce_all(&mut self.env);
        let info = stream_info(&stream);
        self.streams.insert(id, stream);
        self.capture_cache.clear();
        Ok(info)
    }

    pub(super) fn stream_info_request(&mut self, name: &str, body: &Bytes) -> Answer {
        let id = self.stream_id(name)?;
        let request: InfoRequest = parse_optional(body)?;
        let stream = &self.streams[&id];
        let mut info = stream_info(stream);
        let (mut total, mut limit) = (0, 0);
        if !request.subjects_filter.is_empty() {
            if !is_pattern(&request.subjects_filter) {
                return Err(Fault::bad_request());
            }
            let mut subjects = Map::new();
            for (at, slot) in stream.log.subjects.matching(&request.subjects_filter).enumerate() {
                total = at + 1;
                if at >= request.offset && subjects.len() < SUBJECTS_PAGE {
                    subjects.insert(slot.name.to_string(), slot.seqs.len().into());
                }
            }
            if total > 0 {
                limit = SUBJECTS_PAGE;
                info["state"]["subjects"] = Value::Object(subjects);
            }
        }
        if request.deleted_details {
            let log = &stream.log;
            let deleted: Vec<u64> = (log.first_seq().max(1)..=log.last_seq)
                .filter(|seq| log.index.get(*seq).is_none())
                .take(SUBJECTS_PAGE)
                .collect();
            if !deleted.is_empty() {
                info["state"]["deleted"] = json!(deleted);
            }
        }
        info["total"] = total.into();
        info["offset"] = request.offset.into();
        info["limit"] = limit.into();
        Ok(info)
    }

    pub(super) fn stream_delete(&mut self, name: &str) -> Answer {
        let id = self.stream_id(name)?;
        let consumers: Vec<_> = self.streams[&id].consumers.keys().copied().collect();
        for consumer in consumers {
            self.remove_consumer(id, consumer);
        }
        if let Some(stream) = self.streams.remove(&id)
            && stream.log.on_disk()
        {
            self.env.gate.urgent_op(StoreOp::StreamDrop { stream: id });
        }
        self.env.timers.cancel(TimerKey::Stream(id));
        self.by_name.remove(name);
        self.capture_cache.clear();
        Ok(json!({"success": true}))
    }

    pub(super) fn stream_purge(&mut self, name: &str, body: &Bytes) -> Answer {
        let id = self.stream_id(name)?;
        let request: PurgeRequest = parse_optional(body)?;
        if request.seq > 0 && request.keep > 0 {
            return Err(Fault::bad_request());
        }
        let stream = self.streams.get_mut(&id).ok_or_else(Fault::stream_not_found)?;
        if stream.log.config.sealed {
            return Err(Fault::sealed());
        }
        if stream.log.config.deny_purge {
            return Err(Fault::new(500, 10110, "stream purge not permitted"));
        }
        let mut doomed: Vec<u64> = if request.filter.is_empty() {
            stream.log.index.from(0).map(|(seq, _)| seq).collect()
        } else {
            let mut found: Vec<u64> = stream
                .log
                .subjects
                .matching(&request.filter)
                .flat_map(|slot| slot.seqs.iter().copied())
                .collect();
            found.sort_unstable();
            found
        };
        if request.seq > 0 {
            doomed.truncate(doomed.partition_point(|seq| *seq < request.seq));
        } else if request.keep > 0 {
            doomed.truncate(doomed.len().saturating_sub(usize::try_from(request.keep).unwrap_or(usize::MAX)));
        }
        for seq in &doomed {
            stream.drop_message(*seq, &mut self.env);
        }
        self.env.gate.hurry();
        Ok(json!({"success": true, "purged": doomed.len()}))
    }

    pub(super) fn stream_names(&mut self, body: &Bytes) -> Answer {
        let paging: Paging = parse_optional(body)?;
        let all = self.listed(&paging.subject);
        let page: Vec<Value> = all
            .iter()
            .skip(paging.offset)
            .take(NAMES_PAGE)
            .map(|id| Value::String(self.streams[id].log.config.name.clone()))
            .collect();
        Ok(json!({"total": all.len(), "offset": paging.offset, "limit": NAMES_PAGE, "streams": page}))
    }

    pub(super) fn stream_list(&mut self, body: &Bytes) -> Answer {
        let paging: Paging = parse_optional(body)?;
        let all = self.listed(&paging.subject);
        let page: Vec<Value> =
            all.iter().skip(paging.offset).take(LIST_PAGE).map(|id| stream_info(&self.streams[id])).collect();
        Ok(json!({"total": all.len(), "offset": paging.offset, "limit": LIST_PAGE, "streams": page}))
    }

    fn listed(&self, subject: &str) -> Vec<StreamId> {
        self.by_name
            .values()
            .copied()
            .filter(|id| {
                subject.is_empty()
                    || self.streams[id].log.config.subjects.iter().any(|own| overlaps(own, subject))
            })
            .collect()
    }

    pub(super) fn message_delete(&mut self, name: &str, body: &Bytes) -> Answer {
        let id = self.stream_id(name)?;
        let request: DeleteRequest = parse_optional(body)?;
        let stream = self.streams.get_mut(&id).ok_or_else(Fault::stream_not_found)?;
        if stream.log.config.sealed {
            return Err(Fault::sealed());
        }
        if stream.log.config.deny_delete {
            return Err(Fault::new(500, 10057, "message delete not permitted"));
        }
        if !stream.drop_message(request.seq, &mut self.env) {
            return Err(Fault::sequence_not_found(request.seq));
        }
        self.env.gate.hurry();
        Ok(json!({"success": true}))
    }

    pub(super) fn message_get(&mut self, name: &str, reply: Option<&Text>, body: &Bytes) {
        let Some(reply) = reply else { return };
        let found = self.stream_id(name).and_then(|id| {
            let request: GetRequest = parse_optional(body)?;
            Ok((id, find(&self.streams[&id].log, &request)?))
        });
        match found {
            Ok((stream, seq)) => self.get(stream, seq, Getter::Api(reply.clone())),
            Err(fault) => self.answer("stream_msg_get", Err(fault), Some(reply)),
        }
    }

    pub(super) fn direct_get(&mut self, rest: &str, reply: Option<&Text>, body: &Bytes) {
        let Some(reply) = reply else { return };
        let (name, subject) =
            rest.split_once('.').map_or((rest, None), |(name, subject)| (name, Some(subject)));
        let Some(id) = self.by_name.get(name).copied().filter(|id| self.streams[id].log.config.allow_direct)
        else {
            status(&mut self.env, reply, "503", &[]);
            return;
        };
        let request = match subject {
            Some(subject) => Ok(GetRequest { last_by_subj: subject.to_owned(), ..GetRequest::default() }),
            None => parse_optional(body),
        };
        let Ok(request) = request else {
            status(&mut self.env, reply, "408 Bad Request", &[]);
            return;
        };
        match find(&self.streams[&id].log, &request) {
            Ok(seq) => self.get(id, seq, Getter::Direct(reply.clone())),
            Err(fault) if fault.err_code == 10037 => {
                status(&mut self.env, reply, "404 Message Not Found", &[]);
            }
            Err(_) => status(&mut self.env, reply, "408 Bad Request", &[]),
        }
    }

    fn get(&mut self, stream: StreamId, seq: u64, getter: Getter) {
        let message = self.streams.get(&stream).and_then(|stream| stream.log.message(seq)).cloned();
        if let Some(message) = message {
            self.got(stream, Some(&message), &getter);
        } else {
            let number = self.get_last + 1;
            self.get_last = number;
            self.getters.insert(number, (seq, getter));
            self.env.loads.push(Load { stream, from: seq, count_max: 1, bytes_max: 1, getter: Some(number) });
        }
    }

    /// Answers who waits for a stored message.
    pub(super) fn got(&mut self, stream: StreamId, message: Option<&Message>, getter: &Getter) {
        let name = self.streams.get(&stream).map_or(String::new(), |stream| stream.log.config.name.clone());
        match (getter, message) {
            (Getter::Api(reply), None) => {
                self.answer("stream_msg_get", Err(Fault::no_message_found()), Some(reply));
            }
            (Getter::Api(reply), Some(message)) => {
                let mut body = json!({
                    "subject": &*message.subject,
                    "seq": message.seq,
                    "time": clock::text(message.ts),
                });
                if !message.header.is_empty() {
                    body["hdrs"] = STANDARD.encode(&message.header).into();
                }
                if !message.payload.is_empty() {
                    body["data"] = STANDARD.encode(&message.payload).into();
                }
                self.answer("stream_msg_get", Ok(json!({ "message": body })), Some(reply));
            }
            (Getter::Direct(reply), None) => status(&mut self.env, reply, "404 Message Not Found", &[]),
            (Getter::Direct(reply), Some(message)) => {
                let mut header = if message.header.is_empty() {
                    b"NATS/1.0\r\n".to_vec()
                } else {
                    message.header[..message.header.len().saturating_sub(2)].to_vec()
                };
                header.extend_from_slice(
                    format!(
                        "Nats-Stream: {name}\r\nNats-Subject: {}\r\nNats-Sequence: {}\r\nNats-Time-Stamp: {}\r\n\r\n",
                        message.subject,
                        message.seq,
                        clock::text(message.ts)
                    )
                    .as_bytes(),
                );
                self.env.reply_with_header(reply, header.into(), message.payload.clone());
            }
        }
    }
}

fn find(log: &Log, request: &GetRequest) -> Result<u64, Fault> {
    let by_last = !request.last_by_subj.is_empty();
    let by_next = !request.next_by_subj.is_empty();
    if by_last && (request.seq > 0 || by_next) || (!by_last && !by_next && request.seq == 0) {
        return Err(Fault::bad_request());
    }
    let found = if by_last {
        if !is_pattern(&request.last_by_subj) {
            return Err(Fault::bad_request());
        }
        match log.subjects.get(&request.last_by_subj) {
            Some(slot) => slot.seqs.back().copied(),
            None => log
                .subjects
                .matching(&request.last_by_subj)
                .filter_map(|slot| slot.seqs.back().copied())
                .max(),
        }
    } else if by_next {
        log.index
            .from(request.seq)
            .find(|(_, slot)| matches(&request.next_by_subj, &log.subjects.slot(slot.subject).name))
            .map(|(seq, _)| seq)
    } else {
        log.index.get(request.seq).map(|_| request.seq)
    };
    found.ok_or_else(Fault::no_message_found)
}

/// A stream as the API describes it.
pub fn stream_info(stream: &Stream) -> Value {
    let log = &stream.log;
    let mut state = json!({
        "messages": log.index.len(),
        "bytes": log.bytes,
        "first_seq": log.first_seq(),
        "first_ts": clock::text(log.first_ts()),
        "last_seq": log.last_seq,
        "last_ts": clock::text(log.last_ts),
        "consumer_count": stream.consumers.len(),
    });
    if !log.subjects.is_empty() {
        state["num_subjects"] = log.subjects.len().into();
    }
    let span = (log.last_seq + 1).saturating_sub(log.first_seq().max(1));
    if span > log.index.len() {
        state["num_deleted"] = (span - log.index.len()).into();
    }
    json!({"config": log.config, "created": clock::text(log.created), "state": state})
}

/// Whether consumers of this stream must have explicit acks and disjoint filters.
pub fn is_work_queue(stream: &Stream) -> bool {
    stream.log.config.retention == Retention::WorkQueue
}
