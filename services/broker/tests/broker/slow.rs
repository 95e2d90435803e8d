//! Readers that take their time: what a stream has for them waits, what is only passed on ends them.

use crate::support::{TestBroker, round_trip, soon};
use async_nats::jetstream::{self, stream};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PAYLOAD: usize = 100_000;
/// More than may wait for one client.
const MESSAGES: usize = 800;

/// A client of plain bytes with one subscription.
async fn plain(broker: &TestBroker, subject: &str) -> TcpStream {
    let mut socket = TcpStream::connect(broker.address).await.unwrap();
    let hello = format!("CONNECT {{\"verbose\":false,\"headers\":true}}\r\nSUB {subject} 1\r\nPING\r\n");
    socket.write_all(hello.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"PONG\r\n") {
        soon(socket.read_buf(&mut seen)).await.unwrap();
    }
    socket
}

/// How many messages of this subject arrive, read in pieces with a pause after each; ends when enough have.
async fn count(socket: &mut TcpStream, subject: &str, enough: usize) -> usize {
    let head = format!("MSG {subject} 1 ");
    let (mut seen, mut count) = (Vec::new(), 0);
    while count < enough {
        if soon(socket.read_buf(&mut seen)).await.unwrap() == 0 {
            break;
        }
        if seen.len() > 4 << 20 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        while let Some(at) = seen.windows(head.len()).position(|bytes| bytes == head.as_bytes()) {
            count += 1;
            seen.drain(..at + head.len());
        }
        let keep = seen.len().saturating_sub(head.len());
        seen.drain(..keep);
    }
    count
}

async fn filled(broker: &TestBroker) -> jetstream::Context {
    let js = jetstream::new(broker.connect().await);
    let config = stream::Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() };
    soon(js.create_stream(config)).await.unwrap();
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD]);
    for _ in 0..MESSAGES / 50 {
        let mut acks = Vec::new();
        for _ in 0..50 {
            acks.push(js.publish("s.x", payload.clone()).await.unwrap());
        }
        for ack in acks {
            soon(ack.into_future()).await.unwrap();
        }
    }
    js
}

#[tokio::test]
async fn a_slow_reader_of_a_stream_gets_all_of_it() {
    let broker = TestBroker::start().await;
    let js = filled(&broker).await;
    for (name, config) in [
        ("push", r#"{"durable_name":"push","deliver_subject":"in.push","ack_policy":"none"}"#),
        ("pull", r#"{"durable_name":"pull","ack_policy":"none"}"#),
    ] {
        let mut reader = plain(&broker, &format!("in.{name}")).await;
        let body = format!("{{\"stream_name\":\"S\",\"config\":{config}}}");
        soon(js.client().request(format!("$JS.API.CONSUMER.CREATE.S.{name}"), body.into())).await.unwrap();
        if name == "pull" {
            let pull = format!("PUB $JS.API.CONSUMER.MSG.NEXT.S.pull in.pull 3\r\n{MESSAGES}\r\n");
            reader.write_all(pull.as_bytes()).await.unwrap();
        }
        // Nothing is read while others are served.
        for _ in 0..200 {
            round_trip(&js.client()).await;
        }
        assert_eq!(count(&mut reader, "s.x", MESSAGES).await, MESSAGES, "{name}");
    }
}

#[tokio::test]
async fn a_subscriber_that_does_not_read_is_ended_when_it_has_too_much() {
    let broker = TestBroker::start().await;
    let mut reader = plain(&broker, "core.x").await;
    let client = broker.connect().await;
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD]);
    for _ in 0..2 * MESSAGES {
        soon(client.publish("core.x", payload.clone())).await.unwrap();
    }
    round_trip(&client).await;
    assert!(count(&mut reader, "core.x", 2 * MESSAGES).await < 2 * MESSAGES);
}
