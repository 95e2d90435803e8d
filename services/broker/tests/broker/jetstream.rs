//! JetStream through async-nats: streams, durable pull consumers, acks, restarts.

use crate::support::{TestBroker, soon};
use async_nats::HeaderMap;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::stream::{Config as StreamConfig, StorageType, Stream};
use async_nats::jetstream::{self, AckKind, Context};
use futures::StreamExt;
use std::time::Duration;

async fn context(broker: &TestBroker) -> Context {
    jetstream::new(broker.connect().await)
}

async fn stream(js: &Context, config: StreamConfig) -> Stream {
    soon(js.get_or_create_stream(config)).await.unwrap()
}

fn orders() -> StreamConfig {
    StreamConfig { name: "ORDERS".into(), subjects: vec!["orders.>".into()], ..StreamConfig::default() }
}

async fn durable(stream: &Stream, name: &str, ack_wait: Duration) -> PullConsumer {
    let config = pull::Config {
        durable_name: Some(name.into()),
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_ack_pending: 256,
        ..pull::Config::default()
    };
    soon(stream.get_or_create_consumer(name, config)).await.unwrap()
}

async fn publish(js: &Context, subject: &str, payload: &str) -> u64 {
    let ack = soon(js.publish(subject.to_owned(), payload.to_owned().into())).await.unwrap();
    soon(ack.into_future()).await.unwrap().sequence
}

#[tokio::test]
async fn a_published_message_is_acked_fetched_and_settled() {
    let broker = TestBroker::start().await;
    let js = context(&broker).await;
    for storage in [StorageType::File, StorageType::Memory] {
        let name = format!("S{storage:?}");
        let mut stream = stream(
            &js,
            StreamConfig {
                subjects: vec![format!("{name}.>")],
                name: name.clone(),
                storage,
                ..Default::default()
            },
        )
        .await;
        for number in 1..=10 {
            assert_eq!(publish(&js, &format!("{name}.x"), &number.to_string()).await, number);
        }
        let mut consumer = durable(&stream, "c", Duration::from_secs(30)).await;
        let mut batch = soon(consumer.fetch().max_messages(20).messages()).await.unwrap();
        let mut got = Vec::new();
        while let Some(message) = soon(batch.next()).await {
            let message = message.unwrap();
            got.push(message.payload.clone());
            soon(message.double_ack()).await.unwrap();
        }
        assert_eq!(got.len(), 10);
        assert_eq!(got[9], "10");
        let info = soon(consumer.info()).await.unwrap();
        assert_eq!((info.ack_floor.stream_sequence, info.num_ack_pending, info.num_pending), (10, 0, 0));
        let info = soon(stream.info()).await.unwrap();
        assert_eq!((info.state.messages, info.state.last_sequence, info.state.consumer_count), (10, 10, 1));
    }
}

#[tokio::test]
async fn the_same_message_id_is_stored_once_even_across_a_restart() {
    let mut broker = TestBroker::start().await;
    let js = context(&broker).await;
    stream(&js, orders()).await;
    let mut headers = HeaderMap::new();
    headers.insert("Nats-Msg-Id", "m1");
    let send = |headers: HeaderMap| {
        let js = js.clone();
        async move { js.publish_with_headers("orders.a", headers, "x".into()).await.unwrap().await.unwrap() }
    };
    assert!(!soon(send(headers.clone())).await.duplicate);
    let again = soon(send(headers.clone())).await;
    assert!(again.duplicate && again.sequence == 1);
    broker.restart().await;
    let js = context(&broker).await;
    let again = soon(async {
        js.publish_with_headers("orders.a", headers, "x".into()).await.unwrap().await.unwrap()
    })
    .await;
    assert!(again.duplicate && again.sequence == 1);
    assert_eq!(publish(&js, "orders.a", "y").await, 2);
}

#[tokio::test]
async fn unacked_messages_come_again_and_naks_wait_their_delay() {
    let broker = TestBroker::start().await;
    let js = context(&broker).await;
    let stream = stream(&js, orders()).await;
    let consumer = durable(&stream, "c", Duration::from_millis(300)).await;
    for text in ["late", "nak", "term", "wpi"] {
        publish(&js, "orders.a", text).await;
    }
    let mut messages = soon(consumer.messages()).await.unwrap();
    let mut first = Vec::new();
    for _ in 0..4 {
        first.push(soon(messages.next()).await.unwrap().unwrap());
    }
    let started = std::time::Instant::now();
    soon(first[1].ack_with(AckKind::Nak(Some(Duration::from_millis(600))))).await.unwrap();
    soon(first[2].ack_with(AckKind::Term)).await.unwrap();
    soon(first[3].ack_with(AckKind::Progress)).await.unwrap();
    let mut again = Vec::new();
    while again.len() < 3 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        soon(message.double_ack()).await.unwrap();
        assert_eq!(message.info().unwrap().delivered, 2);
        again.push((String::from_utf8(message.payload.to_vec()).unwrap(), started.elapsed()));
    }
    let order: Vec<&str> = again.iter().map(|(text, _)| text.as_str()).collect();
    assert_eq!(order, ["late", "wpi", "nak"]);
    assert!(
        again[0].1 >= Duration::from_millis(250) && again[2].1 >= Duration::from_millis(590),
        "{again:?}"
    );
}

#[tokio::test]
async fn a_waiting_consumer_gets_new_messages_and_bounded_unacked_ones() {
    let broker = TestBroker::start().await;
    let js = context(&broker).await;
    let stream = stream(&js, orders()).await;
    let config = pull::Config {
        durable_name: Some("c".into()),
        ack_policy: AckPolicy::Explicit,
        max_ack_pending: 2,
        deliver_policy: DeliverPolicy::All,
        filter_subject: "orders.b".into(),
        ..pull::Config::default()
    };
    let mut consumer = soon(stream.create_consumer(config)).await.unwrap();
    let mut messages = soon(consumer.messages()).await.unwrap();
    for number in 0..6 {
        publish(&js, if number % 2 == 0 { "orders.a" } else { "orders.b" }, "x").await;
    }
    let one = soon(messages.next()).await.unwrap().unwrap();
    let two = soon(messages.next()).await.unwrap().unwrap();
    assert_eq!((one.info().unwrap().stream_sequence, two.info().unwrap().stream_sequence), (2, 4));
    let info = soon(consumer.info()).await.unwrap();
    assert_eq!((info.num_ack_pending, info.num_pending), (2, 1));
    soon(one.ack()).await.unwrap();
    assert_eq!(soon(messages.next()).await.unwrap().unwrap().info().unwrap().stream_sequence, 6);
}

#[tokio::test]
async fn messages_positions_and_pending_deliveries_survive_a_restart() {
    let mut broker = TestBroker::start().await;
    let js = context(&broker).await;
    let stream = stream(&js, orders()).await;
    let consumer = durable(&stream, "c", Duration::from_millis(500)).await;
    for number in 1..=5 {
        publish(&js, "orders.a", &number.to_string()).await;
    }
    let mut batch = soon(consumer.fetch().max_messages(3).messages()).await.unwrap();
    let mut got = Vec::new();
    while let Some(message) = soon(batch.next()).await {
        got.push(message.unwrap());
    }
    soon(got[0].double_ack()).await.unwrap();
    broker.restart().await;

    let js = context(&broker).await;
    let stream = soon(js.get_stream("ORDERS")).await.unwrap();
    let mut consumer: PullConsumer = soon(stream.get_consumer("c")).await.unwrap();
    let info = soon(consumer.info()).await.unwrap();
    assert_eq!((info.ack_floor.stream_sequence, info.num_ack_pending, info.num_pending), (1, 2, 2));
    let mut messages = soon(consumer.messages()).await.unwrap();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        let message = soon(messages.next()).await.unwrap().unwrap();
        soon(message.ack()).await.unwrap();
        let info = message.info().unwrap();
        seen.push((info.stream_sequence, info.delivered));
    }
    seen.sort_unstable();
    assert_eq!(seen, [(2, 2), (3, 2), (4, 1), (5, 1)]);
    assert_eq!(publish(&js, "orders.a", "6").await, 6);
}

#[tokio::test]
async fn old_messages_leave_by_number_size_and_age() {
    let broker = TestBroker::start().await;
    let js = context(&broker).await;
    let mut few = stream(
        &js,
        StreamConfig {
            name: "FEW".into(),
            subjects: vec!["few".into()],
            max_messages: 3,
            ..Default::default()
        },
    )
    .await;
    let mut small = stream(
        &js,
        StreamConfig {
            name: "SMALL".into(),
            subjects: vec!["small".into()],
            max_bytes: 500,
            ..Default::default()
        },
    )
    .await;
    let mut young = stream(
        &js,
        StreamConfig {
            name: "YOUNG".into(),
            subjects: vec!["young".into()],
            max_age: Duration::from_millis(200),
            ..Default::default()
        },
    )
    .await;
    for _ in 0..10 {
        publish(&js, "few", "x").await;
        publish(&js, "small", &"x".repeat(100)).await;
        publish(&js, "young", "x").await;
    }
    let state = soon(few.info()).await.unwrap().state.clone();
    assert_eq!((state.messages, state.first_sequence, state.last_sequence), (3, 8, 10));
    let state = soon(small.info()).await.unwrap().state.clone();
    assert!(state.bytes <= 500 && state.messages == 3, "{state:?}");
    soon(async { while young.info().await.unwrap().state.messages > 0 {} }).await;
    let state = young.cached_info().state.clone();
    assert_eq!((state.first_sequence, state.last_sequence), (11, 10));
}

#[tokio::test]
async fn many_pipelined_publishes_are_acked_and_delivered_in_order() {
    const COUNT: u64 = 20_000;
    let broker = TestBroker::start().await;
    let js = context(&broker).await;
    let stream = stream(&js, orders()).await;
    let consumer = durable(&stream, "c", Duration::from_secs(30)).await;
    let publisher = tokio::spawn({
        let js = js.clone();
        async move {
            let mut acks = futures::stream::FuturesOrdered::new();
            for number in 0..COUNT {
                acks.push_back(
                    js.publish("orders.a", number.to_string().into()).await.unwrap().into_future(),
                );
                if acks.len() > 100 {
                    acks.next().await.unwrap().unwrap();
                }
            }
            while let Some(ack) = acks.next().await {
                ack.unwrap();
            }
        }
    });
    let mut messages = soon(consumer.messages()).await.unwrap();
    for number in 0..COUNT {
        let message = soon(messages.next()).await.unwrap().unwrap();
        assert_eq!(message.payload, number.to_string());
        message.ack().await.unwrap();
    }
    soon(publisher).await.unwrap();
}
