//! Every error of the API, provoked: here, and where there is one on a real nats-server, which differs only where this
//! table says so.

use crate::support::{TestBroker, nats_server, round_trip, soon};
use async_nats::{Client, HeaderMap};
use serde_json::Value;

/// What is asked.
enum Ask {
    /// An operation of the API with a body.
    Api(&'static str, &'static str),
    /// A publish with a header.
    Publish(&'static str, &'static str, &'static str),
    /// A subscription that stays.
    Subscribe(&'static str),
}

struct Case {
    ask: Ask,
    /// `code err_code description`, or nothing for a success.
    here: &'static str,
    /// What 2.15 says instead.
    there: Option<&'static str>,
}

const fn api(operation: &'static str, body: &'static str, here: &'static str) -> Case {
    Case { ask: Ask::Api(operation, body), here, there: None }
}

const fn publish(
    subject: &'static str,
    header: &'static str,
    value: &'static str,
    here: &'static str,
) -> Case {
    Case { ask: Ask::Publish(subject, header, value), here, there: None }
}

impl Case {
    const fn but(self, there: &'static str) -> Self {
        Self { there: Some(there), ..self }
    }
}

const FINE: &str = "";
const NO_STREAM: &str = "404 10059 stream not found";
const NO_CONSUMER: &str = "404 10014 consumer not found";
const NO_MESSAGE: &str = "404 10037 no message found";
const BAD_REQUEST: &str = "400 10003 bad request";
const BAD_JSON: &str = "400 10025 invalid JSON";

const CASES: &[Case] = &[
    api("STREAM.INFO.E_S", "", NO_STREAM),
    api("STREAM.CREATE.E_S", r#"{"name":"E_S","subjects":["es.>"],"max_msg_size":60}"#, FINE),
    api(
        "STREAM.CREATE.E_S",
        r#"{"name":"E_S","subjects":["es.>"],"max_msgs":3}"#,
        "400 10058 stream name already in use with a different configuration",
    ),
    api(
        "STREAM.CREATE.E_T",
        r#"{"name":"E_T","subjects":["es.x"]}"#,
        "400 10065 subjects overlap with an existing stream",
    ),
    api("STREAM.CREATE.E_T", r#"{"name":"E_U"}"#, "400 10056 stream name in subject does not match request"),
    api("STREAM.CREATE.E_T", "{", BAD_JSON),
    api(
        "STREAM.CREATE.E_T",
        r#"{"name":"E_T","max_age":1000000000,"duplicate_window":2000000000}"#,
        "500 10052 duplicates window can not be larger then max age",
    ),
    api(
        "STREAM.CREATE.E_T",
        r#"{"name":"E_T","num_replicas":3}"#,
        "500 10074 replicas > 1 not supported in non-clustered mode",
    ),
    api(
        "STREAM.CREATE.E_T",
        r#"{"name":"E_T","subjects":["et"],"sources":[{"name":"E_S"}]}"#,
        "500 10052 sources is not supported",
    )
    .but(FINE),
    api("STREAM.DELETE.E_T", "", NO_STREAM).but(FINE),
    api(
        "STREAM.UPDATE.E_S",
        r#"{"name":"E_S","subjects":["es.>"],"storage":"memory"}"#,
        "500 10052 stream configuration update can not change storage type",
    ),
    api("STREAM.MSG.GET.E_S", r#"{"seq":9}"#, NO_MESSAGE),
    api("STREAM.MSG.GET.E_S", "{}", BAD_REQUEST),
    api("STREAM.MSG.GET.E_S", "", BAD_REQUEST),
    api("STREAM.MSG.DELETE.E_S", r#"{"seq":9}"#, "400 10043 sequence 9 not found")
        .but("500 10057 stream store EOF"),
    api("STREAM.PURGE.E_S", r#"{"seq":1,"keep":1}"#, BAD_REQUEST),
    api("STREAM.PURGE.E_S", "{", BAD_JSON),
    api("STREAM.INFO.E_S", "x", FINE),
    api("STREAM.INFO.E_S", "[]", BAD_JSON),
    api("STREAM.PURGE.E_S", "x", BAD_JSON).but(FINE),
    api("STREAM.INFO.E_S", "null", FINE),
    api("STREAM.NAMES", "x", FINE),
    // Publishing.
    publish("es.x", "Nats-Expected-Last-Sequence", "7", "400 10071 wrong last sequence: 0"),
    publish("es.x", "Nats-Expected-Last-Subject-Sequence", "7", "400 10071 wrong last sequence: 0"),
    publish("es.x", "Nats-Expected-Last-Msg-Id", "a", "400 10070 wrong last msg ID: "),
    publish("es.x", "Nats-Expected-Stream", "other", "400 10060 expected stream does not match"),
    publish(
        "es.x",
        "Long",
        "012345678901234567890123456789012345678901234567890123456789",
        "400 10054 message size exceeds maximum allowed",
    ),
    publish("es.x", "Nats-Rollup", "sub", "500 10111 rollup not permitted"),
    publish("es.x", "A", "b", FINE),
    api("STREAM.CREATE.E_N", r#"{"name":"E_N","subjects":["en.>"],"max_msgs":1,"discard":"new"}"#, FINE),
    publish("en.x", "A", "b", FINE),
    publish("en.x", "A", "b", "503 10077 maximum messages exceeded"),
    api("STREAM.UPDATE.E_N", r#"{"name":"E_N","subjects":["en.>"],"max_bytes":70,"discard":"new"}"#, FINE),
    publish("en.x", "A", "b", "503 10077 maximum bytes exceeded"),
    // Consumers.
    api("CONSUMER.CREATE.none.c", r#"{"stream_name":"none","config":{"durable_name":"c"}}"#, NO_STREAM),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"other","config":{"durable_name":"c"}}"#,
        "400 10056 stream name in subject does not match request",
    ),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"d"}}"#,
        "400 10017 consumer name in subject does not match durable name in request",
    ),
    api("CONSUMER.CREATE.E_S.c", "{", BAD_JSON),
    api(
        "CONSUMER.CREATE.E_S",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","ack_policy":"explicit"}}"#,
        "400 10020 consumer expected to be ephemeral but a durable name was set in request",
    ),
    api(
        "CONSUMER.DURABLE.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"ack_policy":"explicit"}}"#,
        "400 10018 consumer expected to be durable but a durable name was not set",
    ),
    api(
        "CONSUMER.DURABLE.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","name":"d","ack_policy":"explicit"}}"#,
        "400 10132 Consumer Durable and Name have to be equal if both are provided",
    )
    .but(FINE),
    api(
        "CONSUMER.CREATE.E_S.z",
        r#"{"stream_name":"E_S","config":{"durable_name":"z","ack_policy":"explicit","filter_subject":"zz"}}"#,
        FINE,
    ),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","ack_policy":"explicit","max_deliver":1,"backoff":[1,2]}}"#,
        "400 10116 max deliver is required to be > length of backoff values",
    ),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","ack_policy":"explicit"},"action":"update"}"#,
        "400 10149 consumer does not exist",
    )
    .but(FINE),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","ack_policy":"explicit"}}"#,
        FINE,
    ),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","ack_policy":"explicit","deliver_policy":"new"}}"#,
        "500 10012 deliver policy can not be updated",
    ),
    api(
        "CONSUMER.CREATE.E_S.c",
        r#"{"stream_name":"E_S","config":{"durable_name":"c","ack_policy":"explicit","max_ack_pending":5},"action":"create"}"#,
        "400 10148 consumer already exists",
    ),
    api(
        "CONSUMER.CREATE.E_S.p",
        r#"{"stream_name":"E_S","config":{"durable_name":"p","deliver_subject":"errors.here","ack_policy":"explicit"}}"#,
        FINE,
    ),
    Case { ask: Ask::Subscribe("errors.here"), here: FINE, there: None },
    api(
        "CONSUMER.CREATE.E_S.p",
        r#"{"stream_name":"E_S","config":{"durable_name":"p","deliver_subject":"errors.there","ack_policy":"explicit"}}"#,
        "400 10013 consumer name already in use",
    ),
    api("CONSUMER.INFO.E_S.none", "", NO_CONSUMER),
    api("CONSUMER.DELETE.E_S.none", "", NO_CONSUMER),
    api("CONSUMER.INFO.none.c", "", NO_STREAM),
    api("STREAM.CREATE.E_W", r#"{"name":"E_W","subjects":["ew.>"],"retention":"workqueue"}"#, FINE),
    api(
        "CONSUMER.CREATE.E_W.a",
        r#"{"stream_name":"E_W","config":{"durable_name":"a","ack_policy":"all","deliver_subject":"zz"}}"#,
        "400 10098 workqueue stream requires explicit ack",
    ),
    api(
        "CONSUMER.CREATE.E_W.a",
        r#"{"stream_name":"E_W","config":{"durable_name":"a","ack_policy":"explicit","filter_subject":"ew.a"}}"#,
        FINE,
    ),
    api(
        "CONSUMER.CREATE.E_W.b",
        r#"{"stream_name":"E_W","config":{"durable_name":"b","ack_policy":"explicit"}}"#,
        "400 10099 multiple non-filtered consumers not allowed on workqueue stream",
    ),
    api(
        "CONSUMER.CREATE.E_W.b",
        r#"{"stream_name":"E_W","config":{"durable_name":"b","ack_policy":"explicit","filter_subject":"ew.*"}}"#,
        "400 10100 filtered consumer not unique on workqueue stream",
    ),
    // A sealed stream.
    api("STREAM.UPDATE.E_S", r#"{"name":"E_S","subjects":["es.>"],"max_msg_size":60,"sealed":true}"#, FINE),
    publish("es.x", "A", "b", "400 10109 invalid operation on sealed stream"),
    api("STREAM.PURGE.E_S", "", "400 10109 invalid operation on sealed stream"),
    api("STREAM.MSG.DELETE.E_S", r#"{"seq":1}"#, "400 10109 invalid operation on sealed stream"),
];

const STREAMS: [&str; 5] = ["E_S", "E_T", "E_U", "E_N", "E_W"];

async fn answer(client: &Client, ask: &Ask) -> String {
    let message = match ask {
        Ask::Subscribe(subject) => {
            let subscription = soon(client.subscribe(*subject)).await.unwrap();
            round_trip(client).await;
            // It lives as long as the connection: the case needs its interest, not its messages.
            std::mem::forget(subscription);
            return String::new();
        }
        Ask::Api(operation, body) => {
            soon(client.request(format!("$JS.API.{operation}"), (*body).into())).await
        }
        Ask::Publish(subject, name, value) => {
            let mut headers = HeaderMap::new();
            headers.insert(*name, *value);
            soon(client.request_with_headers(*subject, headers, "x".into())).await
        }
    };
    let answer: Value = serde_json::from_slice(&message.unwrap().payload).unwrap();
    match answer.get("error") {
        None => String::new(),
        Some(e) => {
            // What follows are the words of a parser.
            let words = e["description"].as_str().unwrap();
            let words = if words.starts_with("invalid JSON") { "invalid JSON" } else { words };
            format!("{} {} {words}", e["code"], e["err_code"])
        }
    }
}

async fn check(client: &Client, real: bool) {
    for stream in STREAMS {
        soon(client.request(format!("$JS.API.STREAM.DELETE.{stream}"), "".into())).await.unwrap();
    }
    let mut wrong = Vec::new();
    for case in CASES {
        let expected = if real { case.there.unwrap_or(case.here) } else { case.here };
        let got = answer(client, &case.ask).await;
        if got != expected {
            let what = match &case.ask {
                Ask::Api(operation, body) => format!("{operation} {body}"),
                Ask::Publish(subject, name, value) => format!("{subject} {name}: {value}"),
                Ask::Subscribe(subject) => (*subject).to_owned(),
            };
            wrong.push(format!("{what}\n  expected {expected:?}\n  got      {got:?}"));
        }
    }
    for stream in STREAMS {
        soon(client.request(format!("$JS.API.STREAM.DELETE.{stream}"), "".into())).await.unwrap();
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_refusal_has_the_originals_number_and_words() {
    let broker = TestBroker::start().await;
    check(&broker.connect().await, false).await;
}

#[tokio::test]
async fn a_real_server_refuses_the_same_but_for_the_known_differences() {
    let Some((url, _alone)) = nats_server().await else { return };
    check(&soon(async_nats::connect(url)).await.unwrap(), true).await;
}
