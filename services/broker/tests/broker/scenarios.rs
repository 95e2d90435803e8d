//! The scenario suite of async-nats: the same steps on the embedded broker and, where there is one, on a real
//! nats-server; the transcripts are compared line by line.

use crate::support::{PATIENCE, TestBroker, nats_server, soon};
use crate::transcript::{Transcript, canonical};
use async_nats::jetstream::consumer::{self, AckPolicy, DeliverPolicy, pull, push};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{self, Message};
use async_nats::{Client, HeaderMap};
use futures::StreamExt;
use std::time::Duration;

async fn streams(client: &Client, t: &mut Transcript) {
    t.api(client, "STREAM.INFO.none", "").await;
    t.api(client, "STREAM.CREATE.T_A", r#"{"name":"T_A","subjects":["ta.>"]}"#).await;
    t.api(client, "STREAM.CREATE.T_A", r#"{"name":"T_A","subjects":["ta.>"]}"#).await;
    t.api(client, "STREAM.CREATE.T_A", r#"{"name":"T_A","subjects":["ta.>"],"max_msgs":5}"#).await;
    t.api(client, "STREAM.CREATE.T_A", r#"{"name":"T_B","subjects":["tb.>"]}"#).await;
    t.api(client, "STREAM.CREATE.T_A", r#"{"name":"#).await;
    t.api(client, "STREAM.CREATE.T_B", r#"{"name":"T_B","subjects":["ta.x"]}"#).await;
    t.api(client, "STREAM.CREATE.T_B", r#"{"name":"T_B","storage":"memory","max_msgs_per_subject":2,"allow_direct":true,"description":"second"}"#).await;
    t.api(
        client,
        "STREAM.CREATE.T_C",
        r#"{"name":"T_C","max_age":1000000000,"duplicate_window":2000000000}"#,
    )
    .await;
    t.api(client, "STREAM.CREATE.T_C", r#"{"name":"T_C","num_replicas":3}"#).await;
    t.api(client, "STREAM.UPDATE.T_A", r#"{"name":"T_A","subjects":["ta.>"],"max_msgs":100}"#).await;
    t.api(client, "STREAM.UPDATE.T_A", r#"{"name":"T_A","subjects":["ta.>"],"storage":"memory"}"#).await;
    t.api(client, "STREAM.UPDATE.T_A", r#"{"name":"T_A","subjects":["ta.>"],"retention":"workqueue"}"#).await;
    t.api(client, "STREAM.UPDATE.T_Z", r#"{"name":"T_Z"}"#).await;
    t.api(client, "STREAM.UPDATE.T_A", r#"{"name":"T_A","subjects":["ta.>"]}"#).await;
    for number in 1..=6 {
        let subject = if number % 2 == 0 { "ta.even" } else { "ta.odd" };
        let ack = client.request(subject, number.to_string().into()).await.unwrap();
        t.say(canonical(&ack.payload));
    }
    t.api(client, "STREAM.INFO.T_A", "null").await;
    t.api(client, "STREAM.INFO.T_A", r#"{"subjects_filter":"ta.e*"}"#).await;
    t.api(client, "STREAM.INFO.T_A", r#"{"subjects_filter":">"}"#).await;
    t.api(client, "STREAM.NAMES", "").await;
    t.api(client, "STREAM.NAMES", r#"{"subject":"ta.even"}"#).await;
    t.api(client, "STREAM.LIST", r#"{"offset":1}"#).await;
    t.api(client, "STREAM.MSG.GET.T_A", r#"{"seq":2}"#).await;
    t.api(client, "STREAM.MSG.GET.T_A", r#"{"seq":99}"#).await;
    t.api(client, "STREAM.MSG.GET.T_A", r#"{"last_by_subj":"ta.odd"}"#).await;
    t.api(client, "STREAM.MSG.GET.T_A", r#"{"last_by_subj":"ta.none"}"#).await;
    t.api(client, "STREAM.MSG.GET.T_A", r#"{"seq":3,"next_by_subj":"ta.even"}"#).await;
    t.api(client, "STREAM.MSG.GET.T_A", "{}").await;
    t.api(client, "STREAM.MSG.DELETE.T_A", r#"{"seq":3}"#).await;
    t.api(client, "STREAM.MSG.DELETE.T_A", r#"{"seq":3}"#).await;
    t.api(client, "STREAM.INFO.T_A", r#"{"deleted_details":true}"#).await;
    t.api(client, "STREAM.PURGE.T_A", r#"{"filter":"ta.odd","keep":1}"#).await;
    t.api(client, "STREAM.INFO.T_A", "").await;
    t.api(client, "STREAM.PURGE.T_A", r#"{"seq":5}"#).await;
    t.api(client, "STREAM.PURGE.T_A", "").await;
    t.api(client, "STREAM.INFO.T_A", "").await;
    t.api(client, "STREAM.PURGE.none", "").await;
    t.api(client, "STREAM.DELETE.T_A", "").await;
    t.api(client, "STREAM.DELETE.T_A", "").await;
    t.api(client, "STREAM.DELETE.T_B", "").await;
}

async fn consumers(client: &Client, t: &mut Transcript) {
    t.api(client, "STREAM.CREATE.T_E", r#"{"name":"T_E","subjects":["ta.>"]}"#).await;
    for number in 1..=4 {
        client.request(if number % 2 == 0 { "ta.even" } else { "ta.odd" }, "x".into()).await.unwrap();
    }
    let create = |config: &str| format!(r#"{{"stream_name":"T_E","config":{config}}}"#);
    t.api(client, "CONSUMER.CREATE.T_E.c1", &create(r#"{"durable_name":"c1","ack_policy":"explicit"}"#))
        .await;
    t.api(client, "CONSUMER.CREATE.T_E.c1", &create(r#"{"durable_name":"c1","ack_policy":"explicit"}"#))
        .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c1",
        &create(r#"{"durable_name":"c1","ack_policy":"explicit","deliver_policy":"new"}"#),
    )
    .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c1",
        &create(r#"{"durable_name":"c1","ack_policy":"explicit","max_ack_pending":7,"description":"d"}"#),
    )
    .await;
    t.api(client, "CONSUMER.CREATE.T_E.cX", &create(r#"{"durable_name":"c1","ack_policy":"explicit"}"#))
        .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c2.ta.even",
        &create(r#"{"durable_name":"c2","ack_policy":"all","filter_subject":"ta.even"}"#),
    )
    .await;
    t.api(client, "CONSUMER.DURABLE.CREATE.T_E.c3", &create(r#"{"durable_name":"c3","ack_policy":"none","deliver_policy":"by_start_sequence","opt_start_seq":3}"#)).await;
    t.api(client, "CONSUMER.CREATE.T_E.c4", &create(r#"{"durable_name":"c4","ack_policy":"explicit","backoff":[1000000000,2000000000],"max_deliver":3}"#)).await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c5",
        &create(r#"{"durable_name":"c5","ack_policy":"explicit","filter_subject":"other"}"#),
    )
    .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c6",
        &create(r#"{"durable_name":"c6","ack_policy":"explicit","deliver_policy":"by_start_sequence"}"#),
    )
    .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c7",
        &create(r#"{"durable_name":"c7","deliver_policy":"last","ack_policy":"explicit"}"#),
    )
    .await;
    t.api(client, "CONSUMER.CREATE.T_E.c8", &create(r#"{"durable_name":"c8","deliver_policy":"last_per_subject","filter_subject":"ta.*","ack_policy":"explicit"}"#)).await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c9",
        &create(r#"{"durable_name":"c9","deliver_subject":"push.here","ack_policy":"explicit"}"#),
    )
    .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_E.c10",
        &create(r#"{"durable_name":"c10","deliver_subject":"ta.loop","ack_policy":"explicit"}"#),
    )
    .await;
    consumers_asked_for(client, t).await;
    work_queue_consumers(client, t).await;
    t.api(client, "STREAM.DELETE.T_E", "").await;
}

async fn consumers_asked_for(client: &Client, t: &mut Transcript) {
    t.api(client, "CONSUMER.CREATE.none.c1", r#"{"stream_name":"none","config":{"durable_name":"c1"}}"#)
        .await;
    t.api(client, "CONSUMER.CREATE.T_E.c1", r#"{"stream_name":"T_F","config":{"durable_name":"c1"}}"#).await;
    t.api(client, "CONSUMER.CREATE.T_E.c1", "{").await;
    t.api(client, "CONSUMER.INFO.T_E.c1", "").await;
    t.api(client, "CONSUMER.INFO.T_E.none", "").await;
    t.api(client, "CONSUMER.INFO.none.c1", "").await;
    t.api(client, "CONSUMER.NAMES.T_E", "").await;
    t.api(client, "CONSUMER.LIST.T_E", r#"{"offset":5}"#).await;
    t.api(client, "CONSUMER.DELETE.T_E.c2", "").await;
    t.api(client, "CONSUMER.DELETE.T_E.c2", "").await;
}

async fn work_queue_consumers(client: &Client, t: &mut Transcript) {
    t.api(client, "STREAM.CREATE.T_V", r#"{"name":"T_V","subjects":["tw.>"],"retention":"workqueue"}"#).await;
    let create = |config: &str| format!(r#"{{"stream_name":"T_V","config":{config}}}"#);
    t.api(client, "CONSUMER.CREATE.T_V.n", &create(r#"{"durable_name":"n","ack_policy":"none"}"#)).await;
    t.api(
        client,
        "CONSUMER.CREATE.T_V.n",
        &create(r#"{"durable_name":"n","ack_policy":"explicit","deliver_policy":"new"}"#),
    )
    .await;
    t.api(
        client,
        "CONSUMER.CREATE.T_V.a",
        &create(r#"{"durable_name":"a","ack_policy":"explicit","filter_subject":"tw.a"}"#),
    )
    .await;
    t.api(client, "CONSUMER.CREATE.T_V.b", &create(r#"{"durable_name":"b","ack_policy":"explicit"}"#)).await;
    t.api(
        client,
        "CONSUMER.CREATE.T_V.b",
        &create(r#"{"durable_name":"b","ack_policy":"explicit","filter_subject":"tw.*"}"#),
    )
    .await;
    t.api(client, "STREAM.DELETE.T_V", "").await;
}

async fn publishing(client: &Client, t: &mut Transcript) {
    let publish = |headers: &[(&str, &str)], subject: &str| {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, *value);
        }
        let subject = subject.to_owned();
        async move {
            match client.request_with_headers(subject, map, "x".into()).await {
                Ok(ack) => canonical(&ack.payload),
                Err(error) => error.to_string(),
            }
        }
    };
    t.api(
        client,
        "STREAM.CREATE.T_G",
        r#"{"name":"T_G","subjects":["ta.>"],"allow_rollup_hdrs":true,"max_msg_size":50}"#,
    )
    .await;
    t.say(publish(&[("Nats-Msg-Id", "a")], "ta.x").await);
    t.say(publish(&[("Nats-Msg-Id", "a")], "ta.y").await);
    t.say(publish(&[("Nats-Expected-Stream", "T_G")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Stream", "T_H")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Last-Sequence", "1")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Last-Sequence", "2")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Last-Subject-Sequence", "1")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Last-Subject-Sequence", "3")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Last-Subject-Sequence", "0")], "ta.new").await);
    t.say(publish(&[("Nats-Expected-Last-Msg-Id", "nope")], "ta.x").await);
    t.say(publish(&[("Nats-Msg-Id", "b")], "ta.x").await);
    t.say(publish(&[("Nats-Expected-Last-Msg-Id", "b")], "ta.x").await);
    t.say(publish(&[("Big", "0123456789012345678901234567890123456789")], "ta.x").await);
    t.say(publish(&[("Nats-Rollup", "sub")], "ta.x").await);
    t.api(client, "STREAM.INFO.T_G", r#"{"subjects_filter":">"}"#).await;
    t.say(publish(&[("Nats-Rollup", "all")], "ta.z").await);
    t.api(client, "STREAM.INFO.T_G", r#"{"subjects_filter":">"}"#).await;
    t.say(publish(&[], "nowhere").await);
    t.api(client, "STREAM.CREATE.T_N", r#"{"name":"T_N","subjects":["tn.>"],"max_msgs":2,"discard":"new"}"#)
        .await;
    for _ in 0..3 {
        t.say(publish(&[], "tn.x").await);
    }
    t.say(publish(&[("Nats-Rollup", "sub")], "tn.x").await);
    t.api(
        client,
        "STREAM.UPDATE.T_N",
        r#"{"name":"T_N","subjects":["tn.>"],"max_bytes":35,"discard":"new"}"#,
    )
    .await;
    t.say(publish(&[], "tn.x").await);
    t.api(
        client,
        "STREAM.CREATE.T_P",
        r#"{"name":"T_P","subjects":["tp.>"],"max_msgs_per_subject":2,"deny_delete":true,"deny_purge":true}"#,
    )
    .await;
    for _ in 0..3 {
        t.say(publish(&[], "tp.x").await);
        t.say(publish(&[], "tp.y").await);
    }
    t.api(client, "STREAM.INFO.T_P", r#"{"subjects_filter":">"}"#).await;
    t.api(client, "STREAM.PURGE.T_P", "").await;
    t.api(client, "STREAM.MSG.DELETE.T_P", r#"{"seq":5}"#).await;
    t.api(client, "STREAM.UPDATE.T_P", r#"{"name":"T_P","subjects":["tp.>"],"max_msgs_per_subject":2,"deny_delete":true,"deny_purge":true,"sealed":true}"#).await;
    t.say(publish(&[], "tp.x").await);
    for stream in ["T_G", "T_N", "T_P"] {
        t.api(client, &format!("STREAM.DELETE.{stream}"), "").await;
    }
}

fn shown(message: &Message) -> String {
    let info = message.info().unwrap();
    let headers = message.headers.as_ref().map_or(String::new(), |headers| format!(" {headers:?}"));
    format!(
        "{} {:?}{headers} stream {} consumer {} delivered {} pending {}",
        message.subject,
        String::from_utf8_lossy(&message.payload),
        info.stream_sequence,
        info.consumer_sequence,
        info.delivered,
        info.pending
    )
}

async fn delivering(client: &Client, t: &mut Transcript) {
    let js = jetstream::new(client.clone());
    let stream = js
        .create_stream(jetstream::stream::Config {
            name: "T_L".into(),
            subjects: vec!["ta.>".into()],
            ..Default::default()
        })
        .await
        .unwrap();
    for number in 1..=5 {
        let subject = if number % 2 == 0 { "ta.even" } else { "ta.odd" };
        js.publish(subject, number.to_string().into()).await.unwrap().await.unwrap();
    }
    pulling(client, t, &stream).await;
    from_each_start(t, &stream).await;
    pushing(client, t, &stream).await;
    js.delete_stream("T_L").await.unwrap();
}

/// Acks, refusals and redeliveries of a pull consumer, and acks of all up to one.
async fn pulling(client: &Client, t: &mut Transcript, stream: &Stream) {
    let mut pull = stream
        .create_consumer(pull::Config {
            durable_name: Some("pull".into()),
            ack_policy: AckPolicy::Explicit,
            ack_wait: Duration::from_secs(2),
            max_deliver: 3,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut batch = pull.fetch().max_messages(3).expires(Duration::from_secs(1)).messages().await.unwrap();
    let mut got = Vec::new();
    while let Some(message) = batch.next().await {
        let message = message.unwrap();
        t.say(shown(&message));
        got.push(message);
    }
    got[0].double_ack().await.unwrap();
    for (message, word) in [(&got[1], "-NAK"), (&got[2], "+TERM")] {
        // With an answer, so that the next pull cannot overtake it.
        client.request(message.reply.clone().unwrap(), word.into()).await.unwrap();
    }
    let mut batch = pull.batch().max_messages(2).expires(Duration::from_secs(2)).messages().await.unwrap();
    while let Some(message) = batch.next().await {
        let message = message.unwrap();
        t.say(shown(&message));
        message.double_ack().await.unwrap();
    }
    let mut batch = pull.fetch().max_messages(10).expires(Duration::from_secs(1)).messages().await.unwrap();
    while let Some(message) = batch.next().await {
        t.say(shown(&message.unwrap()));
    }
    let mut messages = pull.messages().await.unwrap();
    let message = messages.next().await.unwrap().unwrap();
    t.say(shown(&message));
    drop(messages);
    // Not compared: the floor, which 2.9.10 leaves behind after a redelivery until nothing is unacked.
    let info = pull.info().await.unwrap();
    t.say(format!(
        "delivered {}/{} pending {}",
        info.delivered.consumer_sequence, info.delivered.stream_sequence, info.num_pending
    ));

    let all = stream
        .create_consumer(pull::Config {
            durable_name: Some("all".into()),
            ack_policy: AckPolicy::All,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut batch = all.fetch().max_messages(4).expires(Duration::from_secs(1)).messages().await.unwrap();
    let mut got = Vec::new();
    while let Some(message) = batch.next().await {
        got.push(message.unwrap());
    }
    got[2].double_ack().await.unwrap();
    let info = stream.consumer_info("all").await.unwrap();
    t.say(format!("ack all: floor {} unacked {}", info.ack_floor.stream_sequence, info.num_ack_pending));
}

async fn from_each_start(t: &mut Transcript, stream: &Stream) {
    for (name, policy, filter) in [
        ("last", DeliverPolicy::Last, ""),
        ("new", DeliverPolicy::New, ""),
        ("per", DeliverPolicy::LastPerSubject, "ta.*"),
        ("from", DeliverPolicy::ByStartSequence { start_sequence: 4 }, ""),
        ("even", DeliverPolicy::All, "ta.even"),
    ] {
        let config = pull::Config {
            durable_name: Some(name.into()),
            ack_policy: AckPolicy::Explicit,
            deliver_policy: policy,
            filter_subject: filter.into(),
            ..Default::default()
        };
        let consumer = stream.create_consumer(config).await.unwrap();
        let mut batch =
            consumer.fetch().max_messages(10).expires(Duration::from_secs(1)).messages().await.unwrap();
        while let Some(message) = batch.next().await {
            t.say(format!("{name}: {}", shown(&message.unwrap())));
        }
    }
}

async fn pushing(client: &Client, t: &mut Transcript, stream: &Stream) {
    let inbox = client.new_inbox();
    let pushed: consumer::PushConsumer = stream
        .create_consumer(push::Config {
            durable_name: Some("push".into()),
            deliver_subject: inbox,
            ack_policy: AckPolicy::Explicit,
            headers_only: true,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut messages = pushed.messages().await.unwrap();
    for _ in 0..5 {
        let message = messages.next().await.unwrap().unwrap();
        t.say(format!("push: {}", shown(&message)));
        message.ack().await.unwrap();
    }
    drop(messages);

    let ordered: consumer::OrderedPullConsumer = stream
        .create_consumer(pull::OrderedConfig { filter_subject: "ta.odd".into(), ..Default::default() })
        .await
        .unwrap();
    let mut messages = ordered.messages().await.unwrap();
    for _ in 0..3 {
        t.say(format!("ordered pull: {}", shown(&messages.next().await.unwrap().unwrap())));
    }
    drop(messages);
    let ordered: consumer::OrderedPushConsumer = stream
        .create_consumer(push::OrderedConfig { deliver_subject: client.new_inbox(), ..Default::default() })
        .await
        .unwrap();
    let mut messages = ordered.messages().await.unwrap();
    for _ in 0..5 {
        t.say(format!("ordered push: {}", shown(&messages.next().await.unwrap().unwrap())));
    }
}

async fn retention(client: &Client, t: &mut Transcript) {
    let js = jetstream::new(client.clone());
    for (name, policy) in [
        ("T_W", jetstream::stream::RetentionPolicy::WorkQueue),
        ("T_I", jetstream::stream::RetentionPolicy::Interest),
    ] {
        let mut stream = js
            .create_stream(jetstream::stream::Config {
                name: name.into(),
                subjects: vec![format!("{name}.*")],
                retention: policy,
                ..Default::default()
            })
            .await
            .unwrap();
        js.publish(format!("{name}.early"), "x".into()).await.unwrap().await.unwrap();
        let state = stream.info().await.unwrap().state.clone();
        t.say(format!("{name} without consumers: {} last {}", state.messages, state.last_sequence));
        let mut consumers = Vec::new();
        let names: &[&str] = if name == "T_W" { &["a"] } else { &["a", "b"] };
        for consumer in names {
            let config = pull::Config {
                durable_name: Some((*consumer).into()),
                ack_policy: AckPolicy::Explicit,
                ..Default::default()
            };
            consumers.push(stream.create_consumer(config).await.unwrap());
        }
        for _ in 0..3 {
            js.publish(format!("{name}.x"), "x".into()).await.unwrap().await.unwrap();
        }
        for (at, consumer) in consumers.iter().enumerate() {
            let mut batch =
                consumer.fetch().max_messages(2).expires(Duration::from_secs(1)).messages().await.unwrap();
            while let Some(message) = batch.next().await {
                let message = message.unwrap();
                t.say(format!("{name} {at}: {}", shown(&message)));
                message.double_ack().await.unwrap();
            }
            let state = stream.info().await.unwrap().state.clone();
            t.say(format!("{name} after {at}: {} first {}", state.messages, state.first_sequence));
        }
        js.delete_stream(name).await.unwrap();
    }
}

async fn direct(client: &Client, t: &mut Transcript) {
    let js = jetstream::new(client.clone());
    let stream = js
        .create_stream(jetstream::stream::Config {
            name: "T_D".into(),
            subjects: vec!["td.>".into()],
            allow_direct: true,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("Color", "green");
    js.publish_with_headers("td.a", headers, "one".into()).await.unwrap().await.unwrap();
    js.publish("td.b", "two".into()).await.unwrap().await.unwrap();
    js.publish("td.a", "three".into()).await.unwrap().await.unwrap();
    let show = |message: jetstream::message::StreamMessage| {
        format!(
            "{} {} {:?} {:?}",
            message.sequence,
            message.subject,
            message.payload,
            message.headers.get("Color")
        )
    };
    t.result("direct 1", stream.direct_get(1).await.map(show));
    t.result("direct last a", stream.direct_get_last_for_subject("td.a").await.map(show));
    t.result("direct next b", stream.direct_get_next_for_subject("td.b", Some(1)).await.map(show));
    t.result("direct 9", stream.direct_get(9).await.map(show));
    t.result("direct last z", stream.direct_get_last_for_subject("td.z").await.map(show));
    t.result("raw 1", stream.get_raw_message(1).await.map(show));
    t.result("raw last", stream.get_last_raw_message_by_subject("td.*").await.map(show));
    js.delete_stream("T_D").await.unwrap();
}

/// A whole scenario, with its own waits in it.
async fn patiently(scenario: impl Future<Output = ()>) {
    tokio::time::timeout(4 * PATIENCE, scenario).await.expect("the scenario ends within the deadline");
}

/// Every scenario in turn. Each has streams of its own: nats-server removes the files of a stream after it has confirmed
/// its deletion, and a stream that is created under that name meanwhile was seen to hold the messages of the former.
async fn suite(client: &Client) -> String {
    let mut t = Transcript::default();
    let js = jetstream::new(client.clone());
    for stream in
        ["T_A", "T_B", "T_C", "T_D", "T_E", "T_G", "T_I", "T_L", "T_N", "T_P", "T_V", "T_W", "T_KEPT"]
    {
        // What a run that was cut short left behind.
        let _ = soon(js.delete_stream(stream)).await;
    }
    // nats-server 2.15 removes an account's directory with its last stream, and the next one may then find none.
    let kept = jetstream::stream::Config { name: "T_KEPT".into(), ..Default::default() };
    soon(js.create_stream(kept)).await.unwrap();
    t.say("# streams");
    patiently(Box::pin(streams(client, &mut t))).await;
    t.say("# consumers");
    patiently(Box::pin(consumers(client, &mut t))).await;
    t.say("# publishing");
    patiently(Box::pin(publishing(client, &mut t))).await;
    t.say("# delivering");
    patiently(Box::pin(delivering(client, &mut t))).await;
    t.say("# retention");
    patiently(Box::pin(retention(client, &mut t))).await;
    t.say("# direct");
    patiently(Box::pin(direct(client, &mut t))).await;
    soon(js.delete_stream("T_KEPT")).await.unwrap();
    t.lines.join("\n")
}

#[tokio::test]
async fn async_nats_sees_the_same_on_the_embedded_broker_and_on_a_real_server() {
    let broker = TestBroker::start().await;
    let ours = suite(&broker.connect().await).await;
    let Some((url, _alone)) = nats_server().await else { return };
    let theirs = suite(&soon(async_nats::connect(url)).await.unwrap()).await;
    let mut differences = Vec::new();
    for (ours, theirs) in ours.lines().zip(theirs.lines()) {
        if ours != theirs {
            differences.push(format!("ours   {ours}\ntheirs {theirs}"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    assert_eq!(ours.lines().count(), theirs.lines().count());
}
