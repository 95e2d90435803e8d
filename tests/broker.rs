//! `fafnir broker` alone: what scripts read, what survives, what is refused, and the look inside.

use crate::harness::{Answer, Process, Stack, WITHIN, binary};
use async_nats::jetstream::{self, consumer::pull, stream};
use std::{
    future::Future,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpListener,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Stdio},
};

fn command(dir: &Path, args: &[&str]) -> Command {
    let mut command = binary();
    command.arg("broker").args(args).current_dir(dir).env("HOME", dir).stdin(Stdio::null());
    command
}

fn serve(dir: &Path) -> Process {
    let command = command(dir, &["--port", "0", "--store-dir", "store", "--json"]);
    Process::start(command, dir.join("broker.log"))
}

fn run(dir: &Path, args: &[&str]) -> Answer {
    Answer::of(command(dir, args).output().unwrap())
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(WITHIN, what).await.expect("it happens within the deadline")
}

/// As any client connects: with nothing but the URL of the ready line.
async fn connect(broker: &Process) -> jetstream::Context {
    let url: async_nats::ServerAddr = broker.ready["nats"].as_str().unwrap().parse().unwrap();
    let (user, password) = (url.username().unwrap().to_owned(), url.password().unwrap().to_owned());
    let options = async_nats::ConnectOptions::with_user_and_password(user, password);
    jetstream::new(soon(options.connect(url)).await.unwrap())
}

#[tokio::test]
async fn the_broker_alone_keeps_what_it_acknowledged_through_kill_minus_nine() {
    let dir = tempfile::tempdir().unwrap();
    let mut broker = serve(dir.path());
    let keys: Vec<_> = broker.ready.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["monitor", "nats"], "nothing else is in the line");
    let js = connect(&broker).await;
    let config = stream::Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() };
    let created = soon(js.create_stream(config)).await.unwrap();
    for number in 1..=3_u64 {
        let ack = soon(js.publish("s.x", number.to_string().into())).await.unwrap();
        assert_eq!(soon(ack.into_future()).await.unwrap().sequence, number);
    }
    let durable = pull::Config { durable_name: Some("c".into()), ..Default::default() };
    soon(created.create_consumer(durable)).await.unwrap();
    broker.kill();

    let broker = serve(dir.path());
    let js = connect(&broker).await;
    let mut found = soon(js.get_stream("S")).await.unwrap();
    assert_eq!(soon(found.info()).await.unwrap().state.messages, 3);
    assert_eq!(soon(found.get_raw_message(3)).await.unwrap().payload, "3");

    let url = broker.ready["nats"].as_str().unwrap();
    let streams = run(dir.path(), &["streams", "--url", url, "--json"]).json();
    assert_eq!((&streams[0]["name"], &streams[0]["last_seq"]), (&"S".into(), &3.into()), "{streams}");
    let table = run(dir.path(), &["streams", "--url", url]);
    assert!(table.stdout.starts_with("STREAM") && table.stdout.lines().count() == 2, "{table:?}");
    let consumers = run(dir.path(), &["consumers", "S", "--url", url, "--json"]).json();
    assert_eq!((&consumers[0]["name"], &consumers[0]["pending"]), (&"c".into(), &3.into()), "{consumers}");
    let unknown = run(dir.path(), &["consumers", "NOPE", "--url", url]);
    assert_eq!((unknown.code, unknown.stderr.contains("stream not found")), (5, true), "{unknown:?}");

    let password = dir.path().join("store/nats_services");
    assert_eq!(std::fs::metadata(password).unwrap().permissions().mode() & 0o777, 0o600);
    let elsewhere = url.replacen("services:", "nobody:", 1);
    let refused = run(dir.path(), &["streams", "--url", &elsewhere]);
    assert_eq!(refused.code, 4, "{refused:?}");
    let secret = url.split([':', '@']).nth(2).unwrap();
    assert!(!refused.stderr.contains(secret), "a password is never shown: {refused:?}");
}

#[test]
fn browsers_may_connect_where_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["--port", "0", "--websocket-port", "0", "--store-dir", "store", "--json"];
    let broker = Process::start(command(dir.path(), &args), dir.path().join("broker.log"));
    let address = broker.ready["websocket"].as_str().unwrap().strip_prefix("ws://").unwrap().to_owned();
    let mut socket = std::net::TcpStream::connect(&address).unwrap();
    socket.set_read_timeout(Some(WITHIN)).unwrap();
    let upgrade = format!(
        "GET / HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(upgrade.as_bytes()).unwrap();
    let mut seen = Vec::new();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&seen).contains("INFO {") {
        let count = socket.read(&mut part).unwrap();
        assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
        seen.extend_from_slice(&part[..count]);
    }
    assert!(seen.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&seen));

    let half = run(dir.path(), &["--port", "0", "--store-dir", "other", "--tls-certificate", "c.pem"]);
    assert_eq!((half.code, half.stderr.contains("--tls-key")), (2, true), "{half:?}");
    let none = ["--port", "0", "--store-dir", "other", "--tls-certificate", "c.pem", "--tls-key", "k.pem"];
    let none = run(dir.path(), &none);
    assert!(none.code != 0 && none.stderr.contains("c.pem"), "{none:?}");
}

/// `FAFNIR_TEST_NODE_MODULES` holds `node_modules` with @nats-io/nats-core.
#[test]
fn a_page_watches_the_market_until_its_session_ends() {
    let Ok(modules) = std::env::var("FAFNIR_TEST_NODE_MODULES") else {
        println!("skipped: FAFNIR_TEST_NODE_MODULES is not set");
        return;
    };
    let stack = Stack::configured("[broker]\nwebsocket = true\n", &["--sim-rate", "10"]);
    let log = stack.process.log();
    let door =
        log.lines().find(|line| line.contains("browsers may connect")).unwrap_or_else(|| panic!("{log}"));
    let port: String = door.rsplit_once(':').unwrap().1.chars().take_while(char::is_ascii_digit).collect();
    let shell = stack.signed_in("user@test.com");
    let kept = std::fs::read_to_string(shell.home.join(".local/state/fafnir/session.json")).unwrap();
    let (login, _) = kept.split_once("nats://").unwrap().1.split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/riders/market.cjs");
    let url = format!("ws://127.0.0.1:{port}");
    let mut page = Command::new("node")
        .arg("--experimental-websocket")
        .arg(script)
        .args([&url, user, password])
        .env("FAFNIR_TEST_NODE_MODULES", modules)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (sender, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(page.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let next = || lines.recv_timeout(WITHIN).expect("a line in time");
    assert_eq!(next(), "facts refused");
    assert_eq!(next(), "watches market");
    assert_eq!(shell.run(&["logout"]).code, 0);
    assert_eq!(next(), "ended");
    assert!(page.wait().unwrap().success());
}

#[tokio::test]
async fn metrics_and_health_are_on_the_monitoring_port() {
    let dir = tempfile::tempdir().unwrap();
    let broker = serve(dir.path());
    let js = connect(&broker).await;
    soon(js.client().flush()).await.unwrap();
    let monitor = broker.ready["monitor"].as_str().unwrap().to_owned();
    let get = |path: &'static str| {
        let host = monitor.trim_start_matches("http://").to_owned();
        async move {
            use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
            let mut socket = tokio::net::TcpStream::connect(&host).await.unwrap();
            let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
            socket.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            socket.read_to_string(&mut answer).await.unwrap();
            answer
        }
    };
    // They tell what happened a moment later.
    soon(async { while !get("/metrics").await.contains("fafnir_broker_connections 1") {} }).await;
    for path in ["/healthz", "/readyz", "/varz", "/connz", "/subsz", "/jsz"] {
        let answer = soon(get(path)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }
}

#[test]
fn a_store_has_one_broker_and_a_port_one_listener() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = serve(dir.path());
    let second = run(dir.path(), &["--port", "0", "--store-dir", "store"]);
    assert_eq!(second.code, 1, "{second:?}");
    assert!(second.stderr.contains("STORE_IN_USE") && second.stderr.contains("--store-dir"), "{second:?}");

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let answer = run(dir.path(), &["--port", &port, "--monitor-port", "0", "--store-dir", "other"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains(&port) && answer.stderr.contains("--port"), "{answer:?}");
    let answer = run(dir.path(), &["--port", "0", "--monitor-port", &port, "--store-dir", "other"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains(&port) && answer.stderr.contains("--monitor-port"), "{answer:?}");
    assert_eq!(first.interrupt(), Some(0));
}

#[test]
fn a_look_inside_says_when_nobody_answers() {
    let dir = tempfile::tempdir().unwrap();
    for look in ["streams", "consumers"] {
        let answer = run(dir.path(), &[look, "--url", "nats://127.0.0.1:1"]);
        assert_eq!(answer.code, 3, "{answer:?}");
        assert!(answer.stderr.contains("NOT_RUNNING") && answer.stderr.contains("--url"), "{answer:?}");
    }
    assert_eq!(run(dir.path(), &["streams", "--url", "::"]).code, 2);
}

#[test]
fn without_a_store_directory_the_broker_is_the_platforms() {
    let dir = tempfile::tempdir().unwrap();
    let process = Process::start(
        command(dir.path(), &["--port", "0", "--json", "--data-dir", "data"]),
        dir.path().join("log"),
    );
    assert!(dir.path().join("data/broker/broker.sqlite3").exists());
    let password = std::fs::read_to_string(dir.path().join("data/secrets/nats_services")).unwrap();
    let nats = process.ready["nats"].as_str().unwrap();
    assert!(nats.contains(&format!("services:{}@", password.trim())), "the services' own user");
    let second = run(dir.path(), &["--port", "0", "--data-dir", "data"]);
    assert!(second.code == 1 && second.stderr.contains("DATA_DIR_IN_USE"), "{second:?}");
}
