//! API requests about streams and their messages.

use super::Core;
use super::api::{Answer, parse_narrowing, parse_optional, parse_served, wrap};
use super::clock;
use super::config::{Retention, STREAM_KEYS, Storage, StreamConfig};
use super::deliver::{LOAD_BYTES_MAX, LOAD_COUNT_MAX, status};
use super::effects::{Load, StoreOp, StreamId};
use super::fault::Fault;
use super::log::{Log, Message, SubjectSlot};
use super::records::StreamRecord;
use super::stream::Stream;
use super::subject::{Text, is_pattern, overlaps, put_text};
use super::timers::TimerKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeSet, VecDeque};
use std::fmt::Write as _;

const NAMES_PAGE: usize = 1024;
const LIST_PAGE: usize = 256;
/// Subjects in one answer of STREAM.INFO.
const SUBJECTS_PAGE: usize = 100_000;

/// Stands where the subjects go.
const SUBJECTS_MARK: &str = "\u{0}subjects\u{0}";
/// Messages in one answer of DIRECT.GET.
const BATCH_MAX: usize = 1024;
/// Bytes in one answer of DIRECT.GET.
const BATCH_BYTES_MAX: u64 = 16 << 20;

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
    batch: u64,
    max_bytes: u64,
    start_time: Option<String>,
    multi_last: Vec<String>,
    up_to_seq: u64,
    up_to_time: Option<String>,
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
    /// `DIRECT.GET` of several messages.
    Batch(Box<Batch>),
}

/// Several messages on their way to one reader.
#[derive(Debug, Clone)]
pub struct Batch {
    reply: Text,
    /// What is still to be sent.
    left: VecDeque<u64>,
    /// Messages that fit the question after the last one sent.
    pending: u64,
    /// The last one sent.
    last: u64,
    /// Up to where the last messages of subjects were looked for.
    up_to: Option<u64>,
    /// Bytes that may still be sent.
    bytes: u64,
}

impl Core {
    fn stream_id(&self, name: &str) -> Result<StreamId, Fault> {
        self.by_name.get(name).copied().ok_or_else(Fault::stream_not_found)
    }

    pub(super) fn stream_create(&mut self, name: &str, body: &Bytes) -> Answer {
        let config: StreamConfig = parse_served(body, &[], &STREAM_KEYS, Fault::stream_config)?;
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
        let first_seq = config.first_seq;
        let mut stream = Stream::new(Log::new(id, config, self.env.now));
        self.put_stream(&stream);
        stream.skip_to(first_seq, &mut self.env);
        self.stream_action("CREATED", name, "create");
        let mut info = stream_info(&stream);
        info["did_create"] = Value::Bool(true);
        self.by_name.insert(name.to_owned(), id);
        self.streams.insert(id, stream);
        self.captures_changed();
        Ok(info)
    }

    fn stream_action(&mut self, subject: &str, stream: &str, action: &str) {
        let members = json!({"stream": stream, "action": action});
        self.env.advise(&format!("STREAM.{subject}.{stream}"), "stream_action", members);
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
        let config: StreamConfig = parse_served(body, &[], &STREAM_KEYS, Fault::stream_config)?;
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
        } else if old.retention != config.retention
            && (old.retention == Retention::WorkQueue || config.retention == Retention::WorkQueue)
        {
            Some("stream configuration update can not change retention policy to/from workqueue")
        } else if old.retention != config.retention {
            Some("stream configuration update can not change retention policy")
        } else if old.first_seq != config.first_seq {
            Some("stream configuration update can not change first sequence")
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
        self.captures_changed();
        self.stream_action("UPDATED", name, "modify");
        Ok(info)
    }

    /// Answers STREAM.INFO. Many subjects are written as text: as members of a value they take ten times as long.
    pub(super) fn stream_info_request(&mut self, name: &str, reply: Option<&Text>, body: &Bytes) {
        match self.stream_info_of(name, body) {
            Ok((info, Some(subjects))) => {
                let Some(reply) = reply else { return };
                let answer = wrap("stream_info", info).to_string();
                let mark = json_text(SUBJECTS_MARK);
                // The last one: what clients wrote stands before it.
                let (head, tail) = answer.rsplit_once(&mark).unwrap_or((&answer, ""));
                self.env.tell(reply, Bytes::new(), format!("{head}{subjects}{tail}").into());
            }
            Ok((info, None)) => self.inform("stream_info", Ok(info), reply),
            Err(fault) => self.inform("stream_info", Err(fault), reply),
        }
    }

    /// A stream with what was asked for besides; its subjects as text, for the place of [`SUBJECTS_MARK`].
    fn stream_info_of(&mut self, name: &str, body: &Bytes) -> Result<(Value, Option<String>), Fault> {
        let id = self.stream_id(name)?;
        let request: InfoRequest = parse_narrowing(body)?;
        let stream = &self.streams[&id];
        let mut info = stream_info(stream);
        let (mut total, mut limit) = (0, 0);
        let mut listed = None;
        if !request.subjects_filter.is_empty() {
            if !is_pattern(&request.subjects_filter) {
                return Err(Fault::bad_request());
            }
            let mut subjects = String::from("{");
            let mut count = 0;
            for (at, slot) in stream.log.subjects.matching(&request.subjects_filter).enumerate() {
                total = at + 1;
                if at >= request.offset && count < SUBJECTS_PAGE {
                    count += 1;
                    let comma = if count > 1 { "," } else { "" };
                    // Writing to a String cannot fail.
                    let _ = write!(subjects, "{comma}{}:{}", json_text(&slot.name), slot.seqs.len());
                }
            }
            subjects.push('}');
            if total > 0 {
                limit = SUBJECTS_PAGE;
                info["state"]["subjects"] = Value::String(SUBJECTS_MARK.into());
                listed = Some(subjects);
            }
        }
        if request.deleted_details {
            let log = &stream.log;
            let deleted: Vec<u64> = log.index.gaps(log.last_seq).take(SUBJECTS_PAGE).collect();
            if !deleted.is_empty() {
                info["state"]["deleted"] = json!(deleted);
            }
        }
        info["ts"] = clock::text(self.env.now).into();
        info["total"] = total.into();
        info["offset"] = request.offset.into();
        info["limit"] = limit.into();
        Ok((info, listed))
    }

    pub(super) fn stream_delete(&mut self, name: &str) -> Answer {
        let id = self.stream_id(name)?;
        let consumers: Vec<_> = self.streams[&id].consumers.keys().copied().collect();
        for consumer in consumers {
            self.remove_consumer(id, consumer);
        }
        if let Some(stream) = self.streams.remove(&id) {
            if stream.log.on_disk() {
                self.env.gate.urgent_op(StoreOp::StreamDrop { stream: id });
            }
            self.env.discarded.push(Box::new(stream));
        }
        self.stream_action("DELETED", name, "delete");
        self.env.timers.cancel(TimerKey::Stream(id));
        self.by_name.remove(name);
        self.captures_changed();
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
        if request.filter.is_empty()
            && request.keep == 0
            && (request.seq == 0 || request.seq > stream.log.last_seq)
        {
            let purged = stream.clear(&mut self.env);
            stream.skip_to(request.seq, &mut self.env);
            self.env.gate.hurry();
            return Ok(json!({"success": true, "purged": purged}));
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
        let paging: Paging = parse_narrowing(body)?;
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
        let paging: Paging = parse_narrowing(body)?;
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
            Err(fault) => self.inform("stream_msg_get", Err(fault), Some(reply)),
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
        if request.batch > 0 || !request.multi_last.is_empty() {
            match batch_of(&self.streams[&id].log, &request, reply) {
                Ok(batch) => self.send_batch(id, batch, None),
                Err(line) => status(&mut self.env, reply, line, &[]),
            }
            return;
        }
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

    /// Messages came from the store for one reader.
    pub(super) fn loaded(&mut self, stream: StreamId, getter: u64, messages: &[Message]) {
        match self.getters.remove(&getter) {
            Some((_, Getter::Batch(batch))) => self.send_batch(stream, *batch, Some(messages)),
            Some((seq, getter)) => {
                let found = messages.first().filter(|message| message.seq == seq);
                self.got(stream, found, &getter);
            }
            None => {}
        }
    }

    /// Sends what is in memory or was loaded, and asks the store for the rest.
    fn send_batch(&mut self, id: StreamId, mut batch: Batch, loaded: Option<&[Message]>) {
        let mut first = true;
        while let Some(seq) = batch.left.pop_front() {
            let Some(stream) = self.streams.get(&id) else { break };
            let loaded_at =
                |loaded: &[Message]| loaded.binary_search_by_key(&seq, |message| message.seq).ok();
            let known = loaded.and_then(|loaded| Some(&loaded[loaded_at(loaded)?]));
            let known = known.cloned().or_else(|| stream.log.message(seq).map(|message| (**message).clone()));
            batch.pending = batch.pending.saturating_sub(1);
            let Some(message) = known else {
                if stream.log.index.get(seq).is_none() || (first && loaded.is_some()) {
                    continue;
                }
                batch.pending += 1;
                batch.left.push_front(seq);
                self.get_last += 1;
                let getter = Some(self.get_last);
                self.getters.insert(self.get_last, (seq, Getter::Batch(Box::new(batch))));
                let (count_max, bytes_max) = (LOAD_COUNT_MAX, LOAD_BYTES_MAX);
                self.env.loads.push(Load { stream: id, from: seq, count_max, bytes_max, getter });
                return;
            };
            first = false;
            let extra = [("Nats-Num-Pending", batch.pending), ("Nats-Last-Sequence", batch.last)];
            let header = direct_header(&stream.log.config.name, &message, &extra);
            batch.last = seq;
            let bytes = (message.header.len() + message.payload.len()) as u64;
            let is_on_disk = seq <= stream.log.visible;
            self.env.pass(&batch.reply, header.into(), message.payload, is_on_disk);
            batch.bytes = batch.bytes.saturating_sub(bytes);
            if batch.bytes == 0 {
                break;
            }
        }
        let mut line = format!(
            "NATS/1.0 204 EOB\r\nNats-Num-Pending: {}\r\nNats-Last-Sequence: {}\r\n",
            batch.pending, batch.last
        );
        if let Some(up_to) = batch.up_to {
            // Writing to a String cannot fail.
            let _ = write!(line, "Nats-UpTo-Sequence: {up_to}\r\n");
        }
        line.push_str("\r\n");
        let visible = self.streams.get(&id).map_or(u64::MAX, |stream| stream.log.visible);
        self.env.pass(&batch.reply, line.into(), Bytes::new(), batch.last <= visible);
    }

    /// Answers who waits for a stored message.
    pub(super) fn got(&mut self, stream: StreamId, message: Option<&Message>, getter: &Getter) {
        let found = self.streams.get(&stream);
        let name = found.map_or(String::new(), |stream| stream.log.config.name.clone());
        let visible = found.map_or(u64::MAX, |stream| stream.log.visible);
        match (getter, message) {
            (Getter::Api(reply), None) => {
                self.inform("stream_msg_get", Err(Fault::no_message_found()), Some(reply));
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
                let body = wrap("stream_msg_get", json!({ "message": body })).to_string();
                self.env.pass(reply, Bytes::new(), body.into(), message.seq <= visible);
            }
            (Getter::Direct(reply), None) => status(&mut self.env, reply, "404 Message Not Found", &[]),
            (Getter::Direct(reply), Some(message)) => {
                let header = direct_header(&name, message, &[]);
                self.env.pass(reply, header.into(), message.payload.clone(), message.seq <= visible);
            }
            // Sent by `send_batch`.
            (Getter::Batch(_), _) => {}
        }
    }
}

/// A text as JSON writes it.
fn json_text(text: &str) -> String {
    let plain = text.bytes().all(|byte| byte >= b' ' && !matches!(byte, b'"' | b'\\'));
    if plain { format!("\"{text}\"") } else { Value::from(text).to_string() }
}

/// The header of a message that is read directly.
fn direct_header(stream: &str, message: &Message, extra: &[(&str, u64)]) -> BytesMut {
    let mut header = BytesMut::new();
    match message.header.len() {
        0 => header.extend_from_slice(b"NATS/1.0\r\n"),
        length => header.extend_from_slice(&message.header[..length.saturating_sub(2)]),
    }
    header.extend_from_slice(format!("Nats-Stream: {stream}\r\nNats-Subject: ").as_bytes());
    put_text(&mut header, &message.subject);
    let (seq, time) = (message.seq, clock::text(message.ts));
    header.extend_from_slice(format!("\r\nNats-Sequence: {seq}\r\nNats-Time-Stamp: {time}\r\n").as_bytes());
    for (name, value) in extra {
        header.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    header.extend_from_slice(b"\r\n");
    header
}

/// What a request for several messages comes to, or the status that refuses it.
fn batch_of(log: &Log, request: &GetRequest, reply: &Text) -> Result<Batch, &'static str> {
    let bytes = if request.max_bytes > 0 { request.max_bytes.min(BATCH_BYTES_MAX) } else { BATCH_BYTES_MAX };
    let most = usize::try_from(request.batch).unwrap_or(usize::MAX).min(BATCH_MAX);
    let time = |text: &Option<String>| match text {
        None => Ok(None),
        Some(text) => clock::parse(text).map(Some).ok_or("408 Bad Request"),
    };
    let mut batch =
        Batch { reply: reply.clone(), left: VecDeque::new(), pending: 0, last: 0, up_to: None, bytes };
    if !request.last_by_subj.is_empty() {
        return Err("408 Bad Request");
    }
    if !request.multi_last.is_empty() {
        let before = time(&request.up_to_time)?.map(|at| log.at_time(at).map_or(log.last_seq, |seq| seq - 1));
        let asked = if request.up_to_seq > 0 { request.up_to_seq } else { log.last_seq };
        let up_to = before.unwrap_or(asked).min(log.last_seq);
        let found = last_of_subjects(log, &request.multi_last, up_to)?;
        batch.pending = found.len() as u64;
        batch.left = found.into_iter().take(if request.batch > 0 { most } else { BATCH_MAX }).collect();
        batch.up_to = Some(up_to);
        return Ok(batch);
    }
    let from = match (request.seq, time(&request.start_time)?) {
        (0, None) => return Err("408 Empty Request"),
        (seq, None) => seq,
        (0, Some(at)) => log.at_time(at).ok_or("404 Message Not Found")?,
        (_, Some(_)) => return Err("408 Bad Request"),
    };
    if request.next_by_subj.is_empty() {
        batch.left = log.index.from(from).take(most).map(|(seq, _)| seq).collect();
        batch.pending = log.index.count_from(from);
    } else {
        let pattern = request.next_by_subj.as_str();
        let next = |from: u64| log.next_matching(std::iter::once(pattern), from);
        batch.left = std::iter::successors(next(from), |seq| next(seq + 1)).take(most).collect();
        let behind = |slot: &SubjectSlot| slot.seqs.len() - slot.seqs.partition_point(|seq| *seq < from);
        batch.pending = log.subjects.matching(pattern).map(|slot| behind(slot) as u64).sum();
    }
    if batch.left.is_empty() { Err("404 Message Not Found") } else { Ok(batch) }
}

/// The last message of each subject up to a sequence, in the order of the stream.
fn last_of_subjects(log: &Log, patterns: &[String], up_to: u64) -> Result<BTreeSet<u64>, &'static str> {
    let mut found = BTreeSet::new();
    for slot in patterns.iter().flat_map(|pattern| log.subjects.matching(pattern)) {
        let before = slot.seqs.partition_point(|seq| *seq <= up_to);
        if before > 0 {
            found.insert(slot.seqs[before - 1]);
        }
        if found.len() > BATCH_MAX {
            return Err("413 Too Many Results");
        }
    }
    if found.is_empty() { Err("404 No Results") } else { Ok(found) }
}

fn find(log: &Log, request: &GetRequest) -> Result<u64, Fault> {
    let by_last = !request.last_by_subj.is_empty();
    let by_next = !request.next_by_subj.is_empty();
    if by_last && (request.seq > 0 || by_next) || (!by_last && !by_next && request.seq == 0) {
        return Err(Fault::bad_request());
    }
    let found = if by_last {
        log.last_matching(&request.last_by_subj)
    } else if by_next {
        log.next_matching(std::iter::once(request.next_by_subj.as_str()), request.seq)
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
