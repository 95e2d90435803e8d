//! Events: JetStream for facts, core NATS for market data and private updates; always through async-nats.

use super::{
    config::{Settings, without_password},
    context::{Context, retry},
    error::{Error, Result},
    secrets::{Secrets, services_user},
    tasks::Schedule,
    tls,
};
use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, DeliverPolicy, pull},
    stream::{DiscardPolicy, RetentionPolicy, StorageType},
};
use bytes::Bytes;
use fafnir_proto::{deadline, subject};
use futures::StreamExt as _;
use std::{collections::BTreeMap, fmt, future::Future, ops::Bound, sync::Arc, time::Duration};
use tokio::time::timeout;

/// Facts live this long in a stream (architecture.md §6).
const STREAM_AGE_MAX: Duration = Duration::from_hours(24);
const STREAM_BYTES_MAX: i64 = 256 * 1024 * 1024;
/// What its owner answers for is only to bridge a moment; with a deduplication of the same length, which a server asks for.
const MEMORY_STREAM_AGE_MAX: Duration = DEDUPE_WINDOW;
const MEMORY_STREAM_BYTES_MAX: i64 = 8 * 1024 * 1024;
const DEDUPE_WINDOW: Duration = Duration::from_mins(2);
const ACK_WAIT: Duration = Duration::from_secs(30);
const ACK_PENDING_MAX: i64 = 256;
const HEARTBEAT: Duration = Duration::from_secs(5);
const PULL_EXPIRES: Duration = Duration::from_secs(30);
/// Messages handled in one transaction.
const BATCH_MAX: usize = 128;
/// Messages that a tail has asked for at once.
const TAIL_BATCH_MAX: usize = 64;
/// A tail that asks for nothing for so long is forgotten by the broker.
const TAIL_IDLE_MAX: Duration = Duration::from_mins(2);
/// Servers that keep a stream, where a cluster has as many.
const CLUSTER_REPLICAS: usize = 3;
/// How often the owner of a stream looks whether the broker still has it.
const STREAM_CHECK: Duration = Duration::from_secs(1);
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);
const NAK_DELAY_MIN: Duration = Duration::from_millis(100);
const NAK_DELAY_MAX: Duration = Duration::from_secs(10);

/// A stream of facts and the subjects it holds.
#[derive(Debug, Clone, Copy)]
pub struct StreamSpec {
    pub name: &'static str,
    pub subjects: &'static [&'static str],
    /// Keep only the newest message of each subject.
    pub one_per_subject: bool,
    /// Its owner keeps a copy and answers for what the broker loses: in memory.
    pub has_copy: bool,
}

/// `users`, owned by auth-service.
pub const USERS: StreamSpec = StreamSpec {
    name: subject::USERS_STREAM,
    subjects: &[subject::USERS],
    one_per_subject: false,
    has_copy: false,
};
/// `instruments`, owned by stock-service.
pub const INSTRUMENTS: StreamSpec = StreamSpec {
    name: subject::INSTRUMENTS_STREAM,
    subjects: &[subject::INSTRUMENTS],
    one_per_subject: true,
    has_copy: false,
};
/// `facts`, owned by trade-engine, whose fact log is the copy.
pub const FACTS: StreamSpec = StreamSpec {
    name: subject::FACTS_STREAM,
    subjects: &[subject::FACTS],
    one_per_subject: false,
    has_copy: true,
};

/// Time between two parts of what goes out again though it did not change: core NATS has no memory, so who lost the last word
/// about something quiet, or began to listen after it, would not hear it before the next change.
pub const REPEAT_EVERY: Duration = Duration::from_secs(1);
/// Parts in which everything goes out again.
const REPEAT_PARTS: usize = 10;
/// What a part has at most; where there is more than ten times as much, a round takes longer.
const REPEATS_MAX: usize = 50;

/// Goes round what has names, part by part.
#[derive(Debug, Default)]
pub struct Round {
    last: Option<String>,
}

impl Round {
    /// The next part of `all`; what was removed or added meanwhile changes no other's turn.
    pub fn part<'a, T>(&mut self, all: &'a BTreeMap<String, T>) -> Vec<&'a T> {
        let size = all.len().div_ceil(REPEAT_PARTS).min(REPEATS_MAX);
        let from = self.last.take().map_or(Bound::Unbounded, Bound::Excluded);
        let part: Vec<_> = all.range((from, Bound::Unbounded)).take(size).collect();
        // After the last one it begins again.
        let end = all.last_key_value().map(|(name, _)| name);
        self.last = part.last().map(|(name, _)| *name).filter(|name| Some(*name) != end).cloned();
        part.into_iter().map(|(_, one)| one).collect()
    }
}

/// A connection to the bus. Cheap to clone.
#[derive(Clone)]
pub struct Bus {
    client: async_nats::Client,
    jetstream: jetstream::Context,
    /// On how many servers a new stream is kept.
    replicas: usize,
}

impl fmt::Debug for Bus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Bus")
    }
}

/// A fact that was delivered and waits for its ack.
#[derive(Debug)]
pub struct Delivery {
    message: jetstream::Message,
    /// Position in the stream.
    pub stream_seq: u64,
    /// 1 at the first delivery.
    pub delivered: i64,
}

impl Delivery {
    pub fn subject(&self) -> &str {
        self.message.subject.as_str()
    }
    pub fn payload(&self) -> &Bytes {
        &self.message.payload
    }
}

/// A fact that is on its way to the broker.
#[derive(Debug)]
pub struct FactAck {
    stream: &'static str,
    ack: jetstream::context::PublishAckFuture,
}

impl FactAck {
    /// Waits until the broker has it on disk. Answers its position in the stream.
    pub async fn wait(self) -> Result<u64> {
        let ack = self.ack.await.map_err(unavailable)?;
        if ack.stream == self.stream {
            Ok(ack.sequence)
        } else {
            Err(Error::internal(format!("a fact went to stream {} instead of {}", ack.stream, self.stream)))
        }
    }
}

fn unavailable(e: impl fmt::Display) -> Error {
    Error::unavailable(format!("bus: {e}"))
}

/// The servers of `nats.url`: one, or several parted by commas, of which any may answer.
///
/// # Errors
/// One of them is not an address.
pub fn servers(url: &str) -> Result<Vec<async_nats::ServerAddr>> {
    let each = url.split(',').map(str::trim).filter(|one| !one.is_empty());
    each.map(|one| {
        one.parse().map_err(|e| Error::unavailable(format!("nats.url: {:?}: {e}", without_password(one))))
    })
    .collect()
}

/// Has a connection to a server use TLS where its URL or an authority of its own asks for that.
///
/// # Errors
/// Where the authority's file cannot be used.
pub fn secure(
    options: async_nats::ConnectOptions,
    settings: &Settings,
    url: &str,
) -> Result<async_nats::ConnectOptions, tls::Error> {
    let trust = tls::trust(settings, &settings.nats.authority);
    let required =
        url.split(',').map(str::trim).any(|one| one.starts_with("tls://") || one.starts_with("wss://"));
    if !required && matches!(trust, tls::Trust::System) {
        return Ok(options);
    }
    let config = tls::Client::open(trust, None)?.config()?;
    Ok(options.require_tls(required).tls_client_config((*config).clone()))
}

/// Signs in at the embedded broker, each time with the password of then.
pub fn own_login(secrets: &Secrets) -> async_nats::ConnectOptions {
    let password = secrets.nats_services.clone();
    async_nats::ConnectOptions::with_auth_callback(move |_| {
        let current = password.current();
        async move {
            let mut auth = async_nats::Auth::new();
            auth.username = Some(services_user(&current));
            auth.password = Some(current.expose().to_owned());
            Ok(auth)
        }
    })
}

impl Bus {
    pub(super) async fn connect(ctx: &Context) -> Result<Self> {
        let url = ctx.addresses.get("nats").cloned().unwrap_or_default();
        let nats = &ctx.settings.nats;
        let servers = servers(&url)?;
        let replicas = if servers.len() >= CLUSTER_REPLICAS { CLUSTER_REPLICAS } else { 1 };
        let (user, password) = if nats.url.is_empty() {
            (String::new(), String::new())
        } else if nats.password_file.is_empty() {
            // The client library does not read them off the URL by itself.
            let text = |part: Option<&str>| part.unwrap_or_default().to_owned();
            let first = servers.first();
            (text(first.and_then(|s| s.username())), text(first.and_then(|s| s.password())))
        } else {
            let text = std::fs::read_to_string(&nats.password_file)
                .map_err(|e| Error::unavailable(format!("{}: {e}", nats.password_file)))?;
            (nats.user.clone(), text.trim().to_owned())
        };
        let name = ctx.service;
        let stopping = ctx.tasks.shutdown().clone();
        let client = retry(CONNECT_DEADLINE, || {
            let is_ours = nats.url.is_empty();
            let options = if is_ours { own_login(&ctx.secrets) } else { async_nats::ConnectOptions::new() };
            let mut options = options
                .name(name)
                .request_timeout(Some(deadline::BUS))
                .connection_timeout(deadline::BUS)
                .event_callback({
                    let stopping = stopping.clone();
                    move |event| {
                        let stopping = stopping.is_cancelled();
                        async move {
                            match event {
                                async_nats::Event::Connected => {
                                    tracing::debug!(service = name, "bus connected");
                                }
                                event if stopping => tracing::debug!(service = name, %event, "bus"),
                                event => tracing::warn!(service = name, %event, "bus"),
                            }
                        }
                    }
                });
            if !user.is_empty() {
                options = options.user_and_password(user.clone(), password.clone());
            }
            let secured = secure(options, &ctx.settings, &url);
            let servers = servers.clone();
            async move {
                let options = secured.map_err(|e| Error::Internal(e.to_string()))?;
                options.connect(servers).await.map_err(|e| match tls::sentence(&e) {
                    Some(why) => unavailable(why),
                    None => unavailable(e),
                })
            }
        })
        .await?;
        Ok(Self { replicas, ..Self::from_client(client) })
    }

    /// Wraps a connection that was made elsewhere (tests).
    pub fn from_client(client: async_nats::Client) -> Self {
        Self { jetstream: jetstream::new(client.clone()), client, replicas: 1 }
    }

    /// The JetStream side of the connection.
    pub fn jetstream(&self) -> &async_nats::jetstream::Context {
        &self.jetstream
    }

    /// The connection itself.
    pub fn client(&self) -> &async_nats::Client {
        &self.client
    }

    /// Creates a stream if it is missing, and again whenever the broker has lost it, until shutdown. Its owner calls this
    /// at start: whoever starts later waits for it.
    pub async fn keep_stream(&self, ctx: &Context, spec: StreamSpec) -> Result<()> {
        self.ensure_stream(spec).await?;
        let (bus, name) = (self.clone(), format!("{}: stream {}", ctx.service, spec.name));
        let answers = metrics::gauge!("fafnir_bus_answers", "service" => ctx.service);
        answers.set(1.0);
        ctx.tasks.every(name, Schedule::after(STREAM_CHECK), move || {
            let (bus, answers) = (bus.clone(), answers.clone());
            async move {
                let kept = bus.ensure_stream(spec).await;
                answers.set(if kept.is_ok() { 1.0 } else { 0.0 });
                kept
            }
        });
        Ok(())
    }

    /// Creates a stream if it is missing.
    pub async fn ensure_stream(&self, spec: StreamSpec) -> Result<()> {
        let config = jetstream::stream::Config {
            name: spec.name.to_owned(),
            subjects: spec.subjects.iter().map(|s| (*s).to_owned()).collect(),
            retention: RetentionPolicy::Limits,
            storage: if spec.has_copy { StorageType::Memory } else { StorageType::File },
            discard: DiscardPolicy::Old,
            max_age: if spec.has_copy { MEMORY_STREAM_AGE_MAX } else { STREAM_AGE_MAX },
            max_bytes: if spec.has_copy { MEMORY_STREAM_BYTES_MAX } else { STREAM_BYTES_MAX },
            max_messages_per_subject: if spec.one_per_subject { 1 } else { -1 },
            duplicate_window: DEDUPE_WINDOW,
            num_replicas: self.replicas,
            ..Default::default()
        };
        retry(CONNECT_DEADLINE, || async {
            self.jetstream.get_or_create_stream(config.clone()).await.map(drop).map_err(unavailable)
        })
        .await
    }

    /// Publishes a fact and waits until the broker has it on disk. Answers its position in the stream.
    pub async fn publish_fact(
        &self,
        stream: &str,
        subject: &str,
        msg_id: &str,
        payload: Bytes,
    ) -> Result<u64> {
        let publish = jetstream::message::PublishMessage::build()
            .message_id(msg_id)
            .expected_stream(stream)
            .payload(payload);
        let ack = self.jetstream.send_publish(subject.to_owned(), publish).await.map_err(unavailable)?;
        let ack = ack.await.map_err(unavailable)?;
        if ack.stream == stream {
            Ok(ack.sequence)
        } else {
            Err(Error::internal(format!("{subject} went to stream {} instead of {stream}", ack.stream)))
        }
    }

    /// Sends a fact without waiting for its ack, so that many can be under way in order.
    pub async fn send_fact(
        &self,
        stream: &'static str,
        subject: String,
        msg_id: &str,
        payload: Bytes,
    ) -> Result<FactAck> {
        let publish = jetstream::message::PublishMessage::build()
            .message_id(msg_id)
            .expected_stream(stream)
            .payload(payload);
        let ack = self.jetstream.send_publish(subject, publish).await.map_err(unavailable)?;
        Ok(FactAck { stream, ack })
    }

    /// Publishes to a stream with headers of the publisher's own, and without an id: what is lost is asked for. Does not
    /// wait for the ack.
    pub async fn send_batch(
        &self,
        stream: &'static str,
        subject: &'static str,
        headers: &[(&'static str, String)],
        payload: Bytes,
    ) -> Result<FactAck> {
        let mut publish =
            jetstream::message::PublishMessage::build().expected_stream(stream).payload(payload);
        for (name, value) in headers {
            publish = publish.header(*name, value.as_str());
        }
        let ack = self.jetstream.send_publish(subject, publish).await.map_err(unavailable)?;
        Ok(FactAck { stream, ack })
    }

    /// Publishes on core NATS: nobody may be listening.
    pub async fn publish(&self, subject: String, payload: Bytes) -> Result<()> {
        self.client.publish(subject, payload).await.map_err(unavailable)
    }

    /// Subscribes on core NATS. The server knows of it when this answers: what is read elsewhere from then on lacks nothing
    /// that does not come.
    pub async fn subscribe(&self, subject: String) -> Result<async_nats::Subscriber> {
        let mut one = self.subscribe_all(vec![subject]).await?;
        one.pop().ok_or_else(|| Error::internal("a subject has no subscription"))
    }

    /// The same for several subjects.
    pub async fn subscribe_all(&self, subjects: Vec<String>) -> Result<Vec<async_nats::Subscriber>> {
        let mut subscriptions = Vec::new();
        for subject in subjects {
            subscriptions.push(self.client.subscribe(subject).await.map_err(unavailable)?);
        }
        self.round_trip().await?;
        Ok(subscriptions)
    }

    /// Waits until the server has taken everything that this connection sent before: a message to itself comes back. A
    /// flush only says that all was sent.
    async fn round_trip(&self) -> Result<()> {
        let inbox = self.client.new_inbox();
        let mut own = self.client.subscribe(inbox.clone()).await.map_err(unavailable)?;
        self.client.publish(inbox, Bytes::new()).await.map_err(unavailable)?;
        let came = timeout(deadline::BUS, own.next()).await;
        let came = came.map_err(|_| Error::unavailable("the bus does not answer"))?;
        came.map(drop).ok_or_else(|| Error::unavailable("the subscription ended"))
    }

    /// Follows a stream as a durable consumer until shutdown, however long its owner takes to create it. `handle` stores the effect of a batch (in order) in one
    /// transaction; the batch is acked after it answers `Ok`, else it comes again with a growing delay.
    pub async fn follow<H, F>(&self, ctx: &Context, spec: StreamSpec, handle: H) -> Result<()>
    where
        H: Fn(Vec<(String, Bytes)>) -> F + Send + Sync + 'static,
        F: Future<Output = Result<()>> + Send + 'static,
    {
        // Attached before this returns: ready means ready.
        let mut consumer = Some(self.consumer(ctx, spec).await?);
        let name = format!("{}: consumer of {}", ctx.service, spec.name);
        let (this, ctx2, handle) = (self.clone(), ctx.clone(), Arc::new(handle));
        // A turn lasts as long as its subscription; the next one subscribes again.
        ctx.tasks.every(name, Schedule::at_once(NAK_DELAY_MIN), move || {
            let (this, ctx, handle, attached) =
                (this.clone(), ctx2.clone(), Arc::clone(&handle), consumer.take());
            async move {
                let consumer = match attached {
                    Some(consumer) => consumer,
                    None => this.consumer(&ctx, spec).await?,
                };
                consume(&ctx, spec, &consumer, &*handle).await
            }
        });
        Ok(())
    }

    /// Follows a stream from now on until shutdown, without acks, however long its owner takes to create it: for who
    /// keeps its own position and reads elsewhere what it missed. `handle` takes the messages one by one in order; while
    /// it waits, the broker keeps them. What came between two subscriptions is missing.
    pub async fn tail<H, F>(&self, ctx: &Context, spec: StreamSpec, handle: H) -> Result<()>
    where
        H: Fn(Bytes) -> F + Send + Sync + 'static,
        F: Future<Output = ()> + Send + 'static,
    {
        // Attached before this returns: nothing falls between it and what is read elsewhere.
        let mut attached = Some(self.tail_consumer(ctx, spec).await?);
        let name = format!("{}: tail of {}", ctx.service, spec.name);
        let (this, ctx2, handle) = (self.clone(), ctx.clone(), Arc::new(handle));
        ctx.tasks.every(name, Schedule::at_once(NAK_DELAY_MIN), move || {
            let (this, ctx, handle, attached) =
                (this.clone(), ctx2.clone(), Arc::clone(&handle), attached.take());
            async move {
                let consumer = match attached {
                    Some(consumer) => consumer,
                    None => this.tail_consumer(&ctx, spec).await?,
                };
                let mut messages = messages(&consumer, TAIL_BATCH_MAX).await?;
                while let Some(message) = messages.next().await {
                    handle(message.map_err(unavailable)?.message.payload).await;
                }
                Err::<(), _>(Error::unavailable("the subscription ended"))
            }
        });
        Ok(())
    }

    async fn tail_consumer(
        &self,
        ctx: &Context,
        spec: StreamSpec,
    ) -> Result<jetstream::consumer::PullConsumer> {
        let config = pull::Config {
            ack_policy: AckPolicy::None,
            deliver_policy: DeliverPolicy::New,
            inactive_threshold: TAIL_IDLE_MAX,
            ..Default::default()
        };
        ctx.wait_for(&format!("stream {}", spec.name), || async {
            let stream = self.jetstream.get_stream(spec.name).await.map_err(unavailable)?;
            stream.create_consumer(config.clone()).await.map_err(unavailable)
        })
        .await
    }

    /// Attaches to a stream, as soon as it is there.
    async fn consumer(&self, ctx: &Context, spec: StreamSpec) -> Result<jetstream::consumer::PullConsumer> {
        let durable = ctx.service;
        ctx.wait_for(&format!("stream {}", spec.name), || async {
            let stream = self.jetstream.get_stream(spec.name).await.map_err(unavailable)?;
            stream
                .get_or_create_consumer(
                    durable,
                    pull::Config {
                        durable_name: Some(durable.to_owned()),
                        ack_policy: AckPolicy::Explicit,
                        ack_wait: ACK_WAIT,
                        max_ack_pending: ACK_PENDING_MAX,
                        ..Default::default()
                    },
                )
                .await
                .map_err(unavailable)
        })
        .await
    }
}

async fn messages(consumer: &jetstream::consumer::PullConsumer, batch_max: usize) -> Result<pull::Stream> {
    consumer
        .stream()
        .max_messages_per_batch(batch_max)
        .expires(PULL_EXPIRES)
        .heartbeat(HEARTBEAT)
        .messages()
        .await
        .map_err(unavailable)
}

async fn consume<H, F>(
    ctx: &Context,
    spec: StreamSpec,
    consumer: &jetstream::consumer::PullConsumer,
    handle: &H,
) -> Result<()>
where
    H: Fn(Vec<(String, Bytes)>) -> F + Sync,
    F: Future<Output = Result<()>> + Send,
{
    let mut batches = messages(consumer, BATCH_MAX).await?.ready_chunks(BATCH_MAX);
    while let Some(batch) = batches.next().await {
        let mut deliveries = Vec::with_capacity(batch.len());
        for message in batch {
            let message = message.map_err(unavailable)?;
            let info = message.info().map_err(unavailable)?;
            deliveries.push(Delivery {
                stream_seq: info.stream_sequence,
                delivered: info.delivered,
                message,
            });
        }
        deliveries.sort_by_key(|d| d.stream_seq);
        let facts = deliveries.iter().map(|d| (d.subject().to_owned(), d.payload().clone())).collect();
        match handle(facts).await {
            Ok(()) => {
                metrics::counter!("fafnir_facts_applied_total", "service" => ctx.service, "stream" => spec.name)
                    .increment(deliveries.len() as u64);
                for delivery in &deliveries {
                    delivery.message.ack().await.map_err(unavailable)?;
                }
            }
            Err(e) => {
                tracing::warn!(stream = spec.name, service = ctx.service, error = %e, "facts come again");
                for delivery in &deliveries {
                    let tries = u32::try_from(delivery.delivered.clamp(1, 8)).unwrap_or(8);
                    let delay = (NAK_DELAY_MIN * 2u32.pow(tries - 1)).min(NAK_DELAY_MAX);
                    delivery.message.ack_with(AckKind::Nak(Some(delay))).await.map_err(unavailable)?;
                }
            }
        }
    }
    Err(Error::unavailable("the subscription ended"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_comes_in_a_round_of_parts_that_are_bounded() {
        for (count, turns) in [(0, 1), (1, 1), (24, 8), (500, 10), (5_000, 100)] {
            let all: BTreeMap<String, usize> = (0..count).map(|n| (format!("{n:05}"), n)).collect();
            let mut round = Round::default();
            for _ in 0..2 {
                let parts: Vec<Vec<usize>> =
                    (0..turns).map(|_| round.part(&all).into_iter().copied().collect()).collect();
                assert!(parts.iter().all(|part| part.len() <= REPEATS_MAX));
                assert_eq!(parts.concat(), (0..count).collect::<Vec<_>>(), "{count} in {turns}");
            }
        }
        let mut all: BTreeMap<String, usize> = (0..20).map(|n| (format!("{n:05}"), n)).collect();
        let mut round = Round::default();
        assert_eq!(round.part(&all), [&0, &1]);
        all.remove("00001");
        all.insert("00001a".into(), 100);
        assert_eq!(round.part(&all), [&100, &2], "it goes on behind one that is gone");
    }

    #[test]
    fn a_cluster_is_named_by_its_servers_parted_by_commas() {
        let named = |url: &str| {
            let found = servers(url).map_err(|e| e.to_string())?;
            Ok::<_, String>(found.iter().map(|s| format!("{}:{}", s.host(), s.port())).collect::<Vec<_>>())
        };
        assert_eq!(named("nats://a:b@one:1, tls://two").unwrap(), ["one:1", "two:4222"]);
        assert_eq!(named("").unwrap(), [""; 0]);
        let refused = named("nats://a:secret@one:1,nats://a:secret@two:x").unwrap_err();
        assert!(refused.contains("two:x") && !refused.contains("secret"), "{refused}");
    }
}
