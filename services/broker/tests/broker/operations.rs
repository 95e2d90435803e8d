//! What an operator sees: monitoring over HTTP, the list of a store, a damaged store.

use crate::support::{PATIENCE, TestBroker, round_trip, soon};
use async_nats::jetstream::{self, consumer::pull, stream};
use fafnir_broker::{Config, Error, User, serve, store_list};
use serde_json::Value;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_util::sync::CancellationToken;

async fn get(address: SocketAddr, path: &str) -> Value {
    let mut socket = soon(tokio::net::TcpStream::connect(address)).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(socket.read_to_string(&mut answer)).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    serde_json::from_str(body).unwrap()
}

#[tokio::test]
async fn monitoring_tells_about_connections_messages_streams_and_consumers() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let monitor = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, monitored) = (listener.local_addr().unwrap(), monitor.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let config =
        Config { users: vec![User::all("a", "secret")], monitor: Some(monitor), ..Config::new(dir.path()) };
    let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
    let options =
        async_nats::ConnectOptions::with_user_and_password("a".into(), "secret".into()).name("observer");
    let client = soon(options.connect(format!("nats://{address}"))).await.unwrap();
    let js = jetstream::new(client.clone());
    let stream =
        soon(js.create_stream(stream::Config { name: "S".into(), ..Default::default() })).await.unwrap();
    let config = pull::Config { durable_name: Some("c".into()), ..Default::default() };
    soon(stream.create_consumer(config)).await.unwrap();
    soon(soon(js.publish("S", "hello".into())).await.unwrap().into_future()).await.unwrap();

    let varz = get(monitored, "/varz").await;
    assert_eq!((varz["connections"].as_u64(), varz["total_connections"].as_u64()), (Some(1), Some(1)));
    assert!(varz["in_msgs"].as_u64() >= Some(3) && varz["jetstream"]["stats"]["streams"] == 1, "{varz}");
    let connz = get(monitored, "/connz").await;
    assert_eq!(connz["connections"][0]["name"], "observer");
    assert_eq!(connz["connections"][0]["authorized_user"], "a");
    assert!(!connz.to_string().contains("secret"));
    assert!(get(monitored, "/connz?subs=1").await["connections"][0]["subscriptions_list"].is_array());
    assert!(get(monitored, "/subsz").await["num_subscriptions"].as_u64() >= Some(1));
    let jsz = get(monitored, "/jsz?streams=true&consumers=true").await;
    assert_eq!((jsz["messages"].as_u64(), jsz["consumers"].as_u64()), (Some(1), Some(1)));
    let detail = &jsz["account_details"][0]["stream_detail"][0];
    assert_eq!((&detail["name"], &detail["consumer_detail"][0]["name"]), (&"S".into(), &"c".into()));
    assert_eq!(get(monitored, "/healthz").await["status"], "ok");
    shutdown.cancel();
    soon(broker).await.unwrap().unwrap();

    let list = store_list(dir.path()).unwrap();
    assert_eq!((list[0].name.as_str(), list[0].messages, list[0].consumers[0].name.as_str()), ("S", 1, "c"));
}

#[tokio::test]
async fn a_store_that_is_damaged_in_the_middle_is_refused_or_noticed() {
    let mut broker = TestBroker::start().await;
    let js = jetstream::new(broker.connect().await);
    soon(js.create_stream(stream::Config { name: "S".into(), ..Default::default() })).await.unwrap();
    for number in 0..500 {
        let payload = format!("{number:0>200}");
        soon(soon(js.publish("S", payload.into())).await.unwrap().into_future()).await.unwrap();
    }
    broker.stop().await;
    let path = broker.dir.path().join("broker.sqlite3");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.windows(203).position(|w| w.ends_with(b"0000250")).unwrap() + 100;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let broker = tokio::spawn(serve(listener, Config::new(broker.dir.path()), CancellationToken::new()));
    let reading = tokio::spawn(async move {
        let js = jetstream::new(async_nats::connect(url).await.unwrap());
        let stream = js.get_stream_no_info("S").await.unwrap();
        for seq in 1..=500 {
            // The damaged one is never answered: the broker ends instead.
            if stream.get_raw_message(seq).await.is_err() {
                return;
            }
        }
        panic!("the damage was not noticed");
    });
    let ended = tokio::time::timeout(PATIENCE, broker).await.unwrap().unwrap();
    assert!(matches!(ended, Err(Error::Store { .. })), "{ended:?}");
    reading.abort();
}

/// A broker in this process that is stopped without a word to its store: its log stays as a crash leaves it.
async fn crashed_store() -> tempfile::TempDir {
    let broker = TestBroker::start().await;
    let js = jetstream::new(broker.connect().await);
    soon(js.create_stream(stream::Config { name: "S".into(), ..Default::default() })).await.unwrap();
    for number in 1..=20 {
        let payload = format!("{number:0>500}");
        soon(soon(js.publish("S", payload.into())).await.unwrap().into_future()).await.unwrap();
    }
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(broker.dir.path()).unwrap() {
        let entry = entry.unwrap();
        // Without the index of the log, which SQLite makes anew, and without the lock.
        if ["broker.sqlite3", "broker.sqlite3-wal"].iter().any(|name| entry.file_name() == *name) {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

async fn outcome(dir: &std::path::Path) -> Result<u64, Error> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    let config = Config { ready: Some(ready), ..Config::new(dir) };
    let broker = tokio::spawn(serve(listener, config, stop.clone()));
    if soon(is_ready).await.is_err() {
        return Err(soon(broker).await.unwrap().unwrap_err());
    }
    let js = jetstream::new(soon(async_nats::connect(url)).await.unwrap());
    let last = soon(js.get_stream("S")).await.unwrap().cached_info().state.last_sequence;
    stop.cancel();
    soon(broker).await.unwrap().unwrap();
    Ok(last)
}

/// A frame of SQLite's write-ahead log: its header and a page.
const FRAME: usize = 24 + 4096;

#[tokio::test]
async fn a_torn_tail_is_cut_and_damage_before_it_is_refused() {
    let store = crashed_store().await;
    let wal = store.path().join("broker.sqlite3-wal");
    let whole = std::fs::read(&wal).unwrap();
    let with = |bytes: &[u8]| std::fs::write(&wal, bytes).unwrap();
    let rest = std::fs::read(store.path().join("broker.sqlite3")).unwrap();
    let again = || std::fs::write(store.path().join("broker.sqlite3"), &rest).unwrap();

    // Half a frame behind the last commit, as a crash leaves it.
    let written = whole.iter().rposition(|byte| *byte != 0).unwrap();
    let end = 32 + (written - 32).div_ceil(FRAME) * FRAME;
    let mut torn = whole.clone();
    torn[end..end + 3000].copy_from_slice(&whole[32..3032]);
    with(&torn);
    assert_eq!(outcome(store.path()).await.unwrap(), 20);

    again();
    let mut damaged = whole.clone();
    damaged[32 + (end - 32) / 2] ^= 1;
    with(&damaged);
    let refused = outcome(store.path()).await.unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("of the write-ahead log") && refused.contains("is damaged"), "{refused}");
    assert_eq!(std::fs::read(&wal).unwrap(), damaged, "it is left as it was, for whoever mends it");

    again();
    with(&whole);
    assert_eq!(outcome(store.path()).await.unwrap(), 20);
}

#[tokio::test]
async fn a_store_is_opened_by_one_broker_at_a_time() {
    let broker = TestBroker::start().await;
    round_trip(&broker.connect().await).await;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let second = serve(listener, Config::new(broker.dir.path()), CancellationToken::new());
    assert!(matches!(soon(second).await, Err(Error::InUse { .. })));
    round_trip(&broker.connect().await).await;
}
