//! Side by side with nats-server: the same client code against both, in one run, on one machine.
//!
//! `cargo run --release -p fafnir-broker --example compare [-- /usr/sbin/nats-server]`. Both keep their streams in
//! files in a temporary directory; this broker syncs to disk before each ack, nats-server 2.9 every two minutes or
//! so (its default), which is said beside the figures.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a benchmark prints figures and stops at a surprise"
)]

use async_nats::jetstream::consumer::{AckPolicy, pull};
use async_nats::jetstream::{self, Context, stream};
use fafnir_broker::{Config, serve};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const SAMPLES: usize = 2_000;
const PIPELINED: usize = 100_000;
/// Publishes under way at once; async-nats' own bound is 5,000.
const WINDOW: usize = 1_000;
const PAYLOAD: usize = 128;

struct Figures {
    lines: Vec<(&'static str, String)>,
}

fn quantiles(mut samples: Vec<Duration>) -> String {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!("{:.3} / {:.3} ms", at(0.5), at(0.99))
}

async fn measure(url: &str) -> Figures {
    let client = async_nats::connect(url).await.unwrap();
    let other = async_nats::connect(url).await.unwrap();
    let js = jetstream::new(client.clone());
    let mut lines = Vec::new();
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD]);

    let mut subscription = other.subscribe("core.x").await.unwrap();
    other.flush().await.unwrap();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        client.publish("core.x", payload.clone()).await.unwrap();
        subscription.next().await.unwrap();
        samples.push(start.elapsed());
    }
    lines.push(("core publish → deliver p50 / p99", quantiles(samples)));

    let config =
        stream::Config { name: "BENCH".into(), subjects: vec!["bench.>".into()], ..Default::default() };
    let stream = js.create_stream(config).await.unwrap();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        js.publish("bench.a", payload.clone()).await.unwrap().await.unwrap();
        samples.push(start.elapsed());
    }
    lines.push(("publish → ack p50 / p99", quantiles(samples)));

    let consumer = stream
        .create_consumer(pull::Config {
            durable_name: Some("live".into()),
            ack_policy: AckPolicy::Explicit,
            deliver_policy: jetstream::consumer::DeliverPolicy::New,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut messages = consumer.messages().await.unwrap();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        let ack = js.publish("bench.a", payload.clone()).await.unwrap();
        let message = messages.next().await.unwrap().unwrap();
        samples.push(start.elapsed());
        message.ack().await.unwrap();
        ack.await.unwrap();
    }
    drop(messages);
    lines.push(("publish → deliver p50 / p99", quantiles(samples)));

    let start = Instant::now();
    pipelined(&js, &payload).await;
    lines.push(("pipelined publishes", per_second(PIPELINED, start)));

    let consumer = stream
        .create_consumer(pull::Config {
            durable_name: Some("drain".into()),
            ack_policy: AckPolicy::Explicit,
            max_ack_pending: 10_000,
            ..Default::default()
        })
        .await
        .unwrap();
    let mut messages = consumer.stream().max_messages_per_batch(1_000).messages().await.unwrap();
    let start = Instant::now();
    for _ in 0..PIPELINED {
        messages.next().await.unwrap().unwrap().ack().await.unwrap();
    }
    client.flush().await.unwrap();
    lines.push(("deliver + ack", per_second(PIPELINED, start)));
    js.delete_stream("BENCH").await.unwrap();
    Figures { lines }
}

fn per_second(count: usize, start: Instant) -> String {
    format!("{:.0} /s", count as f64 / start.elapsed().as_secs_f64())
}

async fn pipelined(js: &Context, payload: &bytes::Bytes) {
    let mut acks = FuturesUnordered::new();
    for _ in 0..PIPELINED {
        acks.push(js.publish("bench.a", payload.clone()).await.unwrap().into_future());
        if acks.len() >= WINDOW {
            acks.next().await.unwrap().unwrap();
        }
    }
    acks.try_collect::<Vec<_>>().await.unwrap();
}

struct External {
    child: Child,
    url: String,
    version: String,
}

async fn external(path: &str, dir: &std::path::Path) -> Option<External> {
    let version = Command::new(path).arg("--version").output().ok()?;
    let port = tokio::net::TcpListener::bind("127.0.0.1:0").await.ok()?.local_addr().ok()?.port();
    let child = Command::new(path)
        .args(["-a", "127.0.0.1", "-p", &port.to_string(), "-js", "-sd"])
        .arg(dir)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let url = format!("nats://127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while async_nats::connect(&url).await.is_err() {
        assert!(Instant::now() < deadline, "nats-server does not answer");
    }
    Some(External { child, url, version: String::from_utf8_lossy(&version.stdout).trim().to_owned() })
}

#[tokio::main]
async fn main() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let shutdown = CancellationToken::new();
    let broker = tokio::spawn(serve(listener, Config::new(dir.path().join("ours")), shutdown.clone()));
    let ours = measure(&url).await;
    shutdown.cancel();
    broker.await.unwrap().unwrap();

    let path = std::env::args().nth(1).unwrap_or_else(|| "/usr/sbin/nats-server".into());
    let theirs = match external(&path, &dir.path().join("theirs")).await {
        Some(mut server) => {
            let figures = measure(&server.url).await;
            server.child.kill().unwrap();
            server.child.wait().unwrap();
            Some((server.version, figures))
        }
        None => None,
    };
    println!("payload {PAYLOAD} B, file storage, {WINDOW} publishes under way when pipelined");
    match &theirs {
        Some((version, _)) => {
            println!("{:36} {:>24} {:>24}", "", "fafnir (synced)", format!("{version} (not synced)"));
        }
        None => println!("{:36} {:>24}   (no nats-server at {path})", "", "fafnir (synced)"),
    }
    for (at, (what, figure)) in ours.lines.iter().enumerate() {
        let other = theirs.as_ref().map_or("", |(_, figures)| figures.lines[at].1.as_str());
        println!("{what:36} {figure:>24} {other:>24}");
    }
}
