//! Core NATS through async-nats: subjects, queues, requests, users.

use crate::support::{TestBroker, soon};
use async_nats::{HeaderMap, RequestErrorKind};
use bytes::Bytes;
use fafnir_broker::User;
use futures::StreamExt;

#[tokio::test]
async fn a_message_reaches_every_matching_subscription_in_order() {
    let broker = TestBroker::start().await;
    let client = broker.connect().await;
    let mut wild = client.subscribe("a.*").await.unwrap();
    let mut tail = client.subscribe("a.>").await.unwrap();
    for number in 0..100 {
        client.publish("a.b", Bytes::from(number.to_string())).await.unwrap();
    }
    for number in 0..100 {
        assert_eq!(soon(wild.next()).await.unwrap().payload, number.to_string());
        assert_eq!(soon(tail.next()).await.unwrap().payload, number.to_string());
    }
}

#[tokio::test]
async fn one_member_of_a_queue_group_gets_each_message() {
    let broker = TestBroker::start().await;
    let client = broker.connect().await;
    let first = client.queue_subscribe("work", "q".into()).await.unwrap();
    let second = client.queue_subscribe("work", "q".into()).await.unwrap();
    for _ in 0..200 {
        client.publish("work", "x".into()).await.unwrap();
    }
    client.publish("work.end", "x".into()).await.unwrap();
    client.flush().await.unwrap();
    let mut both = futures::stream::select(first.map(|_| 1), second.map(|_| 2));
    let mut counts = [0, 0];
    for _ in 0..200 {
        counts[soon(both.next()).await.unwrap() - 1] += 1;
    }
    assert!(counts[0] > 20 && counts[1] > 20, "{counts:?}");
}

#[tokio::test]
async fn a_request_is_answered_with_headers_or_finds_no_responders() {
    let broker = TestBroker::start().await;
    let client = broker.connect().await;
    let error = soon(client.request("nobody", "x".into())).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::NoResponders);
    // What the API does not have fails at once too.
    let error = soon(client.request("$JS.API.STREAM.SNAPSHOT.S", "".into())).await.unwrap_err();
    assert_eq!(error.kind(), RequestErrorKind::NoResponders);

    let mut requests = client.subscribe("echo").await.unwrap();
    let server = client.clone();
    let task = tokio::spawn(async move {
        let request = requests.next().await.unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("Answer", "yes");
        server.publish_with_headers(request.reply.unwrap(), headers, request.payload).await.unwrap();
    });
    let answer = soon(client.request("echo", "hello".into())).await.unwrap();
    assert_eq!(answer.payload, "hello");
    assert_eq!(answer.headers.unwrap().get("Answer").unwrap().as_str(), "yes");
    soon(task).await.unwrap();
}

#[tokio::test]
async fn a_subscription_ends_after_the_announced_number_of_messages() {
    let broker = TestBroker::start().await;
    let client = broker.connect().await;
    let mut limited = client.subscribe("n").await.unwrap();
    limited.unsubscribe_after(3).await.unwrap();
    for number in 0..5 {
        client.publish("n", Bytes::from(vec![number])).await.unwrap();
    }
    let mut got = Vec::new();
    while let Some(message) = soon(limited.next()).await {
        got.push(message.payload[0]);
    }
    assert_eq!(got, [0, 1, 2]);
}

#[tokio::test]
async fn a_user_does_only_what_it_is_allowed_to() {
    let users = vec![
        User::all("platform", "p1"),
        User { subscribe: vec!["market.>".into()], ..User::new("market", "p2") },
    ];
    let broker = TestBroker::start_with(users).await;
    assert!(broker.connect_as("market", "wrong").await.is_err());
    assert!(soon(async_nats::connect(broker.url())).await.is_err());

    let platform = broker.connect_as("platform", "p1").await.unwrap();
    let (events, mut seen) = tokio::sync::mpsc::unbounded_channel();
    let market = soon(
        async_nats::ConnectOptions::with_user_and_password("market".into(), "p2".into())
            .event_callback(move |event| {
                let _ = events.send(event.to_string());
                async {}
            })
            .connect(broker.url()),
    )
    .await
    .unwrap();
    let mut allowed = market.subscribe("market.book.>").await.unwrap();
    let mut refused = market.subscribe("orders.>").await.unwrap();
    market.publish("market.book.A", "forged".into()).await.unwrap();
    let mut texts = String::new();
    while !(texts.contains("Subscription to \"orders.>\"") && texts.contains("Publish to \"market.book.A\""))
    {
        texts.push_str(&soon(seen.recv()).await.unwrap());
    }
    // The broker answers in order: by now it knows of both subscriptions.
    platform.publish("orders.x", "secret".into()).await.unwrap();
    platform.publish("market.book.A", "real".into()).await.unwrap();
    assert_eq!(soon(allowed.next()).await.unwrap().payload, "real");
    assert!(futures::FutureExt::now_or_never(refused.next()).is_none());
    assert!(texts.to_lowercase().contains("permissions violation"), "{texts}");
}
