//! Clients that misbehave: bad bytes, silence, deaf ears, too much of everything.

use crate::support::{TestBroker, soon};
use fafnir_broker::{Config, User, serve};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;

async fn talk(broker: &TestBroker, bytes: &[u8]) -> String {
    let mut socket = soon(TcpStream::connect(broker.address)).await.unwrap();
    let _ = socket.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = soon(socket.read_to_end(&mut answer)).await;
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test]
async fn what_cannot_be_read_ends_the_connection_with_a_reason() {
    let broker = TestBroker::start().await;
    for (bytes, reason) in [
        (&b"HELLO\r\n"[..], "Unknown Protocol Operation"),
        (b"CONNECT {]\r\n", "Parser Error"),
        (b"PUB a 99999999\r\n", "Maximum Payload Violation"),
        (b"PUB a 3\r\nabcdef\r\n", "Parser Error"),
        (&[b'x'; 10_000], "Maximum Control Line Exceeded"),
    ] {
        let answer = talk(&broker, bytes).await;
        assert!(answer.starts_with("INFO {") && answer.contains(&format!("-ERR '{reason}'")), "{answer}");
    }
    let client = broker.connect().await;
    soon(client.flush()).await.unwrap();
}

#[tokio::test]
async fn verbose_and_pedantic_clients_are_answered_as_they_asked() {
    let broker = TestBroker::start().await;
    let answer = talk(
        &broker,
        b"CONNECT {\"verbose\":true,\"pedantic\":true}\r\nSUB a.* 1\r\nPUB a.b 2\r\nhi\r\nPUB a.* 2\r\nhi\r\nPING\r\nNO\r\n",
    )
    .await;
    let lines: Vec<&str> = answer.lines().skip(1).collect();
    assert_eq!(
        lines,
        [
            "+OK",
            "+OK",
            "+OK",
            "MSG a.b 1 2",
            "hi",
            "-ERR 'Invalid Publish Subject'",
            "PONG",
            "-ERR 'Unknown Protocol Operation'"
        ]
    );
}

#[tokio::test]
async fn who_does_not_sign_in_or_does_not_read_is_ended() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let config = Config {
        users: vec![User::all("a", "secret")],
        auth_timeout: Duration::from_millis(100),
        max_pending: 1 << 20,
        ..Config::new(dir.path())
    };
    let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
    let mut silent = soon(TcpStream::connect(address)).await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(silent.read_to_end(&mut answer)).await;
    assert!(String::from_utf8_lossy(&answer).ends_with("-ERR 'Authentication Timeout'\r\n"));

    let mut deaf = soon(TcpStream::connect(address)).await.unwrap();
    deaf.write_all(b"CONNECT {\"user\":\"a\",\"pass\":\"secret\"}\r\nSUB > 1\r\nPING\r\n").await.unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password("a".into(), "secret".into());
    let client = soon(options.connect(format!("nats://{address}"))).await.unwrap();
    let payload = bytes::Bytes::from(vec![0; 100_000]);
    for _ in 0..400 {
        client.publish("flood", payload.clone()).await.unwrap();
    }
    soon(client.flush()).await.unwrap();
    let mut heard = Vec::new();
    let _ = soon(deaf.read_to_end(&mut heard)).await;
    assert!(heard.len() < 400 * 100_000, "it was ended before it got everything");
    soon(client.flush()).await.unwrap();
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();
}

#[tokio::test]
async fn who_does_not_answer_pings_is_ended_and_who_does_stays() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let config = Config { ping_interval: Duration::from_millis(100), ..Config::new(dir.path()) };
    let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
    let client = soon(async_nats::connect(format!("nats://{address}"))).await.unwrap();
    let mut mute = soon(TcpStream::connect(address)).await.unwrap();
    mute.write_all(b"CONNECT {}\r\n").await.unwrap();
    let mut heard = String::new();
    soon(mute.read_to_string(&mut heard)).await.unwrap();
    let tail: Vec<&str> = heard.lines().skip(1).collect();
    assert_eq!(tail, ["PING", "PING", "-ERR 'Stale Connection'"]);
    // It has answered as many pings meanwhile.
    soon(client.flush()).await.unwrap();
    assert_eq!(client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1);
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();
}
