//! Clients that misbehave: bad bytes, silence, deaf ears, too much of everything.

use crate::support::{TestBroker, round_trip, soon};
use fafnir_broker::{Config, Guests, Limits, User, serve};
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
    round_trip(&client).await;
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
    round_trip(&client).await;
    let mut heard = Vec::new();
    let _ = soon(deaf.read_to_end(&mut heard)).await;
    assert!(heard.len() < 400 * 100_000, "it was ended before it got everything");
    round_trip(&client).await;
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();
}

/// However many there are: nobody who has only heard who we are stays.
#[tokio::test]
async fn a_crowd_that_does_not_sign_in_is_ended_whole() {
    const CROWD: usize = 200;
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let config = Config {
        users: vec![User::all("a", "secret")],
        auth_timeout: Duration::from_millis(500),
        ..Config::new(dir.path())
    };
    let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
    let mut crowd = Vec::new();
    for _ in 0..CROWD {
        crowd.push(soon(TcpStream::connect(address)).await.unwrap());
    }
    let options = async_nats::ConnectOptions::with_user_and_password("a".into(), "secret".into());
    let client = soon(options.connect(format!("nats://{address}"))).await.unwrap();
    for mut silent in crowd {
        let mut said = String::new();
        let _ = soon(silent.read_to_string(&mut said)).await;
        assert!(said.starts_with("INFO ") && said.ends_with("-ERR 'Authentication Timeout'\r\n"), "{said}");
    }
    round_trip(&client).await;
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
    round_trip(&client).await;
    assert_eq!(client.statistics().connects.load(std::sync::atomic::Ordering::Relaxed), 1);
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();
}

/// Signs in; the connection and what it was answered.
async fn sign_in(address: std::net::SocketAddr, user: &str, more: &str) -> (TcpStream, String) {
    let mut socket = soon(TcpStream::connect(address)).await.unwrap();
    let hello = format!("CONNECT {{\"user\":\"{user}\",\"pass\":\"secret\"}}\r\n{more}PING\r\n");
    socket.write_all(hello.as_bytes()).await.unwrap();
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    loop {
        let count = soon(socket.read(&mut part)).await.unwrap_or(0);
        seen.extend_from_slice(&part[..count]);
        let text = String::from_utf8_lossy(&seen);
        if count == 0 || text.contains("PONG") {
            let answer = text.lines().filter(|line| !line.starts_with("INFO")).collect::<Vec<_>>().join("|");
            return (socket, answer);
        }
    }
}

fn limited(name: &str) -> User {
    let limits = Limits { connections: 3, subscriptions: 2, pending: 100_000 };
    User { subscribe: vec!["market.>".into()], limits: Some(limits), ..User::new(name, "secret") }
}

#[tokio::test]
async fn a_user_takes_up_what_it_may_and_places_are_kept_for_others() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let (guests, list) = Guests::new();
    let config = Config {
        users: vec![User::all("services", "secret"), limited("market")],
        guests: Some(list),
        max_connections: 32,
        auth_timeout: Duration::from_mins(1),
        ..Config::new(dir.path())
    };
    let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
    let mut held = Vec::new();
    for _ in 0..3 {
        let (socket, answer) = sign_in(address, "market", "SUB market.a 1\r\nSUB market.b 2\r\n").await;
        assert_eq!(answer, "PONG");
        held.push(socket);
    }
    let (_, answer) = sign_in(address, "market", "").await;
    assert_eq!(answer, "-ERR 'maximum account active connections exceeded'");
    let mut third = held.pop().unwrap();
    third.write_all(b"SUB market.c 3\r\nPING\r\n").await.unwrap();
    let mut rest = String::new();
    let _ = soon(third.read_to_string(&mut rest)).await;
    assert_eq!(rest, "-ERR 'maximum subscriptions exceeded'\r\n");

    // Guests: nobody, then somebody, then nobody again.
    assert_eq!(sign_in(address, "guest", "").await.1, "-ERR 'Authorization Violation'");
    guests.admit(limited("guest")).await.unwrap();
    let (mut guest, answer) = sign_in(address, "guest", "SUB market.> 1\r\n").await;
    assert_eq!(answer, "PONG");
    guests.dismiss("guest".into()).await;
    let mut rest = String::new();
    let _ = soon(guest.read_to_string(&mut rest)).await;
    assert_eq!(rest, "-ERR 'User Authentication Revoked'\r\n");
    assert_eq!(sign_in(address, "guest", "").await.1, "-ERR 'Authorization Violation'");
    assert!(guests.admit(User { subscribe: vec!["a..b".into()], ..limited("guest") }).await.is_err());

    // However many users there are, an eighth of the places is not theirs.
    let mut refused = String::new();
    for number in 0..32 {
        guests.admit(limited(&format!("g{number}"))).await.unwrap();
        let (socket, answer) = sign_in(address, &format!("g{number}"), "").await;
        if answer != "PONG" {
            refused = answer;
            break;
        }
        held.push(socket);
    }
    assert_eq!((held.len(), refused.as_str()), (28, "-ERR 'maximum connections exceeded'"));
    // Nor can those take them who never sign in.
    let mut silent = Vec::new();
    for _ in 0..40 {
        silent.push(soon(TcpStream::connect(address)).await.unwrap());
    }
    let mut first = String::new();
    let _ = soon(silent.remove(0).read_to_string(&mut first)).await;
    assert!(first.ends_with("-ERR 'Authentication Timeout'\r\n"), "{first}");
    for _ in 0..3 {
        let (socket, answer) = sign_in(address, "services", "SUB > 1\r\n").await;
        assert_eq!(answer, "PONG");
        held.push(socket);
    }
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_user_that_does_not_read_is_ended_at_its_own_bound() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let users = vec![User::all("services", "secret"), limited("market")];
    let config = Config { users, ..Config::new(dir.path()) };
    let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
    let (mut deaf, answer) = sign_in(address, "market", "SUB market.> 1\r\n").await;
    assert_eq!(answer, "PONG");
    let options = async_nats::ConnectOptions::with_user_and_password("services".into(), "secret".into());
    let client = soon(options.connect(format!("nats://{address}"))).await.unwrap();
    let mut own = client.subscribe("market.>").await.unwrap();
    for _ in 0..200 {
        client.publish("market.a", vec![0; 90_000].into()).await.unwrap();
        round_trip(&client).await;
        // Who reads gets everything.
        soon(futures::StreamExt::next(&mut own)).await.unwrap();
    }
    let mut heard = Vec::new();
    let _ = soon(deaf.read_to_end(&mut heard)).await;
    assert!(heard.len() < 200 * 90_000, "it was ended before it got everything: {}", heard.len());
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();
}
