//! API requests about consumers.

use super::Core;
use super::api::{Answer, parse_narrowing, parse_served};
use super::api_stream::{Paging, is_work_queue};
use super::clock;
use super::config::{AckPolicy, CONSUMER_KEYS, ConsumerConfig, DeliverPolicy};
use super::consumer::{Consumer, start_of};
use super::deliver::{end_request, next_deadline};
use super::effects::{ConsumerId, Pair, StoreOp, StreamId};
use super::fault::Fault;
use super::net::Nanos;
use super::records::ConsumerRecord;
use super::stream::Stream;
use super::subject::overlaps;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};

const NAMES_PAGE: usize = 1024;
const LIST_PAGE: usize = 256;
const EPHEMERAL_NAME_LEN: usize = 8;

#[derive(Default, Deserialize)]
#[serde(default)]
struct CreateRequest {
    stream_name: String,
    config: ConsumerConfig,
    action: String,
}

impl CreateRequest {
    /// Makes the configuration and the subject it came on agree on the name and the filter.
    fn agree(
        &mut self,
        subject_name: Option<&str>,
        subject_filter: Option<&str>,
        by_name: bool,
    ) -> Result<(), Fault> {
        let config = &mut self.config;
        for text in [&mut config.name, &mut config.durable_name] {
            if text.as_ref().is_some_and(String::is_empty) {
                *text = None;
            }
        }
        if let Some(name) = subject_name {
            let given = config.durable_name.as_deref().or(config.name.as_deref());
            if given.is_some_and(|given| given != name) {
                return Err(Fault::durable_mismatch());
            }
            if given.is_none() {
                config.name = Some(name.to_owned());
            }
        }
        if let (Some(name), Some(durable)) = (&config.name, &config.durable_name)
            && name != durable
        {
            let reason = "Consumer Durable and Name have to be equal if both are provided";
            return Err(Fault::new(400, 10132, reason));
        }
        if subject_name.is_none() && config.durable_name.is_some() {
            let reason = "consumer expected to be ephemeral but a durable name was set in request";
            return Err(Fault::new(400, 10020, reason));
        }
        if !by_name && config.durable_name.is_none() {
            let reason = "consumer expected to be durable but a durable name was not set";
            return Err(Fault::new(400, 10018, reason));
        }
        if let Some(filter) = subject_filter
            && filter != config.filter_subject
        {
            return Err(Fault::new(
                400,
                10131,
                "consumer create request did not match filtered subject from create subject",
            ));
        }
        Ok(())
    }
}

impl Core {
    /// Creates or updates; `by_name` when the subject is that of 2.9, on which a consumer need not be durable.
    pub(super) fn consumer_create(&mut self, rest: &str, body: &Bytes, by_name: bool) -> Answer {
        let mut tokens = rest.splitn(3, '.');
        let stream_name = tokens.next().unwrap_or("");
        let subject_name = tokens.next();
        let subject_filter = tokens.next();
        let mut request: CreateRequest =
            parse_served(body, &["config"], &CONSUMER_KEYS, Fault::consumer_create)?;
        let id = self.by_name.get(stream_name).copied().ok_or_else(Fault::stream_not_found)?;
        if !request.stream_name.is_empty() && request.stream_name != stream_name {
            return Err(Fault::stream_mismatch());
        }
        request.agree(subject_name, subject_filter, by_name)?;
        let named = request.config.durable_name.clone().or_else(|| request.config.name.clone());
        let stream = self.streams.get(&id).ok_or_else(Fault::stream_not_found)?;
        let mut config = request.config.normalized(&stream.log.config)?;
        let existing = named.as_ref().and_then(|name| stream.names.get(name)).copied();
        if let Some(existing) = existing {
            config.name.clone_from(&stream.consumers[&existing].config().name);
            return self.consumer_update(id, existing, config, &request.action);
        }
        if request.action == "update" {
            return Err(Fault::new(400, 10149, "consumer does not exist"));
        }
        let in_stream = stream.consumers.len() as i64;
        if stream.log.config.max_consumers > 0 && in_stream >= stream.log.config.max_consumers
            || self.consumer_count() >= self.settings.consumers_max
        {
            return Err(Fault::new(400, 10026, "maximum consumers limit reached"));
        }
        check_work_queue(stream, &config, None)?;
        if stream.log.on_disk() && !config.mem_storage && !self.env.room {
            return Err(Fault::no_room());
        }
        let name = match named {
            Some(name) => name,
            None => self.ephemeral_name(),
        };
        config.name = Some(name.clone());
        self.consumer_add(id, name, config)
    }

    /// A new consumer begins: its record, its timer, its first messages.
    fn consumer_add(&mut self, id: StreamId, name: String, config: ConsumerConfig) -> Answer {
        let stream = self.streams.get_mut(&id).ok_or_else(Fault::stream_not_found)?;
        self.consumer_last += 1;
        let record = ConsumerRecord {
            name: name.clone(),
            start: start_of(&config, &stream.log),
            resume: stream.log.last_seq,
            config,
            created: self.env.now,
        };
        let stored = stream.log.on_disk() && !record.config.mem_storage;
        let consumer = Consumer::new(self.consumer_last, record, stored, &stream.log, self.env.now);
        if let Some(at) = next_deadline(&consumer, self.env.now) {
            self.env.timers.arm(consumer.timer(), at);
        }
        let consumer_id = consumer.id;
        stream.add(consumer);
        self.consumer_action(id, "CREATED", &name, "create");
        self.put_consumer(id, consumer_id);
        let stream = self.streams.get_mut(&id).ok_or_else(Fault::stream_not_found)?;
        let info = consumer_info(stream, consumer_id, &mut self.env)?;
        stream.pump_one(consumer_id, &mut self.env);
        Ok(info)
    }

    fn consumer_action(&mut self, stream: StreamId, subject: &str, name: &str, action: &str) {
        let Some(stream) = self.streams.get(&stream).map(|stream| stream.log.config.name.clone()) else {
            return;
        };
        let members = json!({"stream": stream, "consumer": name, "action": action});
        self.env.advise(&format!("CONSUMER.{subject}.{stream}.{name}"), "consumer_action", members);
    }

    fn put_consumer(&mut self, stream: StreamId, id: ConsumerId) {
        let Some(consumer) = self.streams.get(&stream).and_then(|stream| stream.consumers.get(&id)) else {
            return;
        };
        if consumer.stored {
            #[expect(
                clippy::expect_used,
                reason = "a record is written by its own derive, its keys are text"
            )]
            let json =
                serde_json::to_string(&consumer.record).expect("invariant: a record has only text keys");
            self.env.gate.urgent_op(StoreOp::ConsumerPut { stream, consumer: id, json });
        }
    }

    fn consumer_update(
        &mut self,
        stream_id: StreamId,
        id: ConsumerId,
        config: ConsumerConfig,
        action: &str,
    ) -> Answer {
        let stream = self.streams.get_mut(&stream_id).ok_or_else(Fault::stream_not_found)?;
        let old = stream.consumers.get(&id).ok_or_else(Fault::consumer_not_found)?;
        if *old.config() != config {
            if action == "create" {
                return Err(Fault::new(400, 10148, "consumer already exists"));
            }
            if old.attached && old.config().deliver_subject != config.deliver_subject {
                return Err(Fault::consumer_name_in_use());
            }
            if let Some(reason) = old.config().update_refusal(&config) {
                return Err(Fault::consumer_create(reason));
            }
            check_work_queue(stream, &config, Some(id))?;
            stream.reconfigure(id, config);
            self.put_consumer(stream_id, id);
        }
        let stream = self.streams.get_mut(&stream_id).ok_or_else(Fault::stream_not_found)?;
        let info = consumer_info(stream, id, &mut self.env)?;
        stream.pump_one(id, &mut self.env);
        Ok(info)
    }

    fn ephemeral_name(&mut self) -> String {
        const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
        (0..EPHEMERAL_NAME_LEN)
            .map(|_| char::from(ALPHABET[self.env.net.random().index(ALPHABET.len())]))
            .collect()
    }

    fn consumer_at(&self, rest: &str) -> Result<(StreamId, ConsumerId), Fault> {
        let (stream, consumer) = rest.split_once('.').ok_or_else(Fault::bad_request)?;
        let id = *self.by_name.get(stream).ok_or_else(Fault::stream_not_found)?;
        let consumer = *self.streams[&id].names.get(consumer).ok_or_else(Fault::consumer_not_found)?;
        Ok((id, consumer))
    }

    pub(super) fn consumer_info_request(&mut self, rest: &str) -> Answer {
        let (stream, consumer) = self.consumer_at(rest)?;
        let stream = self.streams.get_mut(&stream).ok_or_else(Fault::stream_not_found)?;
        consumer_info(stream, consumer, &mut self.env)
    }

    pub(super) fn consumer_delete(&mut self, rest: &str) -> Answer {
        let (stream, consumer) = self.consumer_at(rest)?;
        self.remove_consumer(stream, consumer);
        Ok(json!({"success": true}))
    }

    /// Removes a consumer, tells who waits at it, and lets retention see that it no longer counts.
    pub(super) fn remove_consumer(&mut self, stream_id: StreamId, id: ConsumerId) {
        let Some(stream) = self.streams.get_mut(&stream_id) else { return };
        let Some(consumer) = stream.take(id) else { return };
        self.env.timers.cancel(consumer.timer());
        for request in &consumer.waiting {
            end_request(&mut self.env, request, "409 Consumer Deleted");
        }
        if let Some(to) = consumer.config().deliver_subject.as_deref().filter(|_| consumer.attached) {
            super::deliver::status(&mut self.env, to, "409 Consumer Deleted", &[]);
        }
        if consumer.stored {
            self.env.gate.urgent_op(StoreOp::ConsumerDrop { consumer: id });
        }
        if stream.log.config.retention == super::config::Retention::Interest {
            let held: Vec<u64> = consumer.holds(&stream.log).collect();
            stream.settled(&held, &mut self.env);
        }
        self.consumer_action(stream_id, "DELETED", consumer.name(), "delete");
    }

    pub(super) fn consumer_names(&mut self, stream: &str, body: &Bytes) -> Answer {
        let id = self.by_name.get(stream).copied().ok_or_else(Fault::stream_not_found)?;
        let paging: Paging = parse_narrowing(body)?;
        let names = &self.streams[&id].names;
        let page: Vec<&String> = names.keys().skip(paging.offset).take(NAMES_PAGE).collect();
        Ok(json!({"total": names.len(), "offset": paging.offset, "limit": NAMES_PAGE, "consumers": page}))
    }

    pub(super) fn consumer_list(&mut self, stream: &str, body: &Bytes) -> Answer {
        let id = self.by_name.get(stream).copied().ok_or_else(Fault::stream_not_found)?;
        let paging: Paging = parse_narrowing(body)?;
        let stream = self.streams.get_mut(&id).ok_or_else(Fault::stream_not_found)?;
        let ids: Vec<ConsumerId> = stream.names.values().copied().collect();
        let mut page = Vec::new();
        for id in ids.iter().skip(paging.offset).take(LIST_PAGE) {
            page.push(consumer_info(stream, *id, &mut self.env)?);
        }
        Ok(json!({"total": ids.len(), "offset": paging.offset, "limit": LIST_PAGE, "consumers": page}))
    }
}

fn check_work_queue(
    stream: &Stream,
    config: &ConsumerConfig,
    except: Option<ConsumerId>,
) -> Result<(), Fault> {
    if !is_work_queue(stream) {
        return Ok(());
    }
    if config.ack_policy == AckPolicy::None && config.deliver_subject.is_none() {
        return Err(Fault::new(
            400,
            10084,
            "consumer in pull mode requires explicit ack policy on workqueue stream",
        ));
    }
    if config.ack_policy != AckPolicy::Explicit {
        return Err(Fault::new(400, 10098, "workqueue stream requires explicit ack"));
    }
    if config.deliver_policy != DeliverPolicy::All {
        return Err(Fault::new(400, 10101, "consumer must be deliver all on workqueue stream"));
    }
    for (_, other) in stream.consumers.iter().filter(|(id, _)| Some(**id) != except) {
        if config.filters().next().is_none() || other.config().filters().next().is_none() {
            return Err(Fault::new(
                400,
                10099,
                "multiple non-filtered consumers not allowed on workqueue stream",
            ));
        }
        if config.filters().any(|ours| other.config().filters().any(|theirs| overlaps(ours, theirs))) {
            return Err(Fault::new(400, 10100, "filtered consumer not unique on workqueue stream"));
        }
    }
    Ok(())
}

fn pair_json(pair: Pair, at: Nanos) -> Value {
    let mut json = json!({"consumer_seq": pair.consumer, "stream_seq": pair.stream});
    if at > 0 {
        json["last_active"] = clock::text(at).into();
    }
    json
}

/// A consumer as the API describes it; requests of clients that are gone are not counted.
pub fn consumer_info(stream: &mut Stream, id: ConsumerId, env: &mut super::env::Env) -> Answer {
    let consumer = stream.consumers.get_mut(&id).ok_or_else(Fault::consumer_not_found)?;
    consumer.waiting.retain(|request| env.net.index.has_interest(&request.inbox));
    let mut info = json!({
        "stream_name": stream.log.config.name,
        "name": consumer.name(),
        "created": clock::text(consumer.record.created),
        "config": consumer.record.config,
        "delivered": pair_json(consumer.delivered, consumer.delivered_at),
        "ack_floor": pair_json(consumer.floor, consumer.floor_at),
        "num_ack_pending": consumer.pending.len(),
        "num_redelivered": consumer.num_redelivered(),
        "num_waiting": consumer.waiting.len(),
        "num_pending": consumer.num_pending,
        "ts": clock::text(env.now),
    });
    if consumer.config().deliver_subject.as_deref().is_some_and(|to| env.net.index.has_interest(to)) {
        info["push_bound"] = true.into();
    }
    Ok(info)
}
