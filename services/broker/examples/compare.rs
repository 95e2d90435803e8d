//! Side by side with nats-server: the same client code against both, in one run, on one machine.
//!
//! `cargo run --release -p fafnir-broker --example compare [-- /usr/sbin/nats-server]`. Each is a process of
//! its own and keeps its streams in files below the working directory. This broker syncs to disk before each ack.
//! nats-server does not: up to 2.9 it syncs once a minute and has no setting for that; from 2.10 on it is measured with
//! `sync_interval: always` too. Then what this broker costs while nothing happens, and how long it takes to open 1,000,000
//! stored messages.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    reason = "a benchmark prints figures and stops at a surprise"
)]

use async_nats::jetstream::consumer::{AckPolicy, pull, push};
use async_nats::jetstream::{self, Context, stream};
use fafnir_broker::{Config, serve};
use futures::stream::FuturesUnordered;
use futures::{StreamExt, TryStreamExt};
use std::io::{BufRead as _, BufReader, Read, Seek as _, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const SAMPLES: usize = 2_000;
const PIPELINED: usize = 100_000;
/// Publishes under way at once; async-nats' own bound is 5,000.
const WINDOW: usize = 1_000;
const PAYLOAD: usize = 128;
/// Payloads of core messages and how many are sent.
const CORE: [(&str, usize, usize); 3] = [
    ("core messages of 16 B", 16, 2_000_000),
    ("core messages of 128 B", 128, 1_000_000),
    ("core messages of 1 MiB", (1 << 20) - 64, 1_000),
];
/// Backlog of the ordered reader, messages of 400 B. A server that syncs always takes minutes to store it, in which nothing
/// computes.
const BACKLOG: usize = 400_000;
const STORED: usize = 1_000_000;
const IDLE: Duration = Duration::from_secs(10);

struct Figures {
    lines: Vec<(&'static str, String)>,
}

fn quantiles(mut samples: Vec<Duration>) -> String {
    samples.sort_unstable();
    let at = |part: f64| samples[((samples.len() - 1) as f64 * part) as usize].as_secs_f64() * 1e3;
    format!("{:.3} / {:.3} ms", at(0.5), at(0.99))
}

fn bench_stream() -> stream::Config {
    stream::Config { name: "BENCH".into(), subjects: vec!["bench.>".into()], ..Default::default() }
}

#[expect(clippy::too_many_lines, reason = "one measurement after the other")]
async fn measure(url: &str) -> Figures {
    eprintln!("measuring {url}");
    let client = async_nats::connect(url).await.unwrap();
    let other = async_nats::connect(url).await.unwrap();
    let js = jetstream::new(client.clone());
    let mut lines = Vec::new();
    let payload = bytes::Bytes::from(vec![b'x'; PAYLOAD]);

    let mut subscription = other.subscribe("core.x").await.unwrap();
    // A flush ends when the bytes are sent. What comes back on the same connection was subscribed before: without it the
    // first message of the other connection may be too early, and nothing ever comes.
    other.publish("core.x", payload.clone()).await.unwrap();
    subscription.next().await.unwrap();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        client.publish("core.x", payload.clone()).await.unwrap();
        subscription.next().await.unwrap();
        samples.push(start.elapsed());
    }
    lines.push(("core publish → deliver p50 / p99", quantiles(samples)));

    for (name, size, count) in CORE {
        let address = url.trim_start_matches("nats://").to_owned();
        let rate = tokio::task::spawn_blocking(move || core_rate(&address, size, count)).await.unwrap();
        lines.push((name, rate));
    }

    let stream = js.create_stream(bench_stream()).await.unwrap();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let start = Instant::now();
        js.publish("bench.a", payload.clone()).await.unwrap().await.unwrap();
        samples.push(start.elapsed());
    }
    lines.push(("publish → ack p50 / p99", quantiles(samples)));
    lines.push(("4 KiB synced by the disk p50 / p99", tokio::task::spawn_blocking(disk).await.unwrap()));

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
    pipelined(&js, &payload, PIPELINED).await;
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

    let config = pull::Config {
        durable_name: Some("sync".into()),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    let mut samples = Vec::new();
    for _ in 0..SAMPLES {
        let message = messages.next().await.unwrap().unwrap();
        let start = Instant::now();
        message.double_ack().await.unwrap();
        samples.push(start.elapsed());
    }
    drop(messages);
    lines.push(("ack, confirmed p50 / p99", quantiles(samples)));
    lines.push(("ordered reader of 400,000", ordered(&js).await));
    js.delete_stream("BENCH").await.unwrap();
    Figures { lines }
}

/// What the disk itself takes in that minute: 4 KiB written over zeros and synced, as a log does it.
fn disk() -> String {
    let mut file = tempfile::tempfile_in(".").unwrap();
    file.write_all(&vec![0; SAMPLES * 4096]).unwrap();
    file.sync_all().unwrap();
    file.rewind().unwrap();
    let sample = |_| {
        let start = Instant::now();
        file.write_all(&[1; 4096]).unwrap();
        file.sync_data().unwrap();
        start.elapsed()
    };
    quantiles((0..SAMPLES).map(sample).collect())
}

/// A connection of plain bytes: the client costs next to nothing.
fn plain(address: &str) -> TcpStream {
    let mut socket = TcpStream::connect(address).unwrap();
    socket.set_nodelay(true).unwrap();
    socket.write_all(b"CONNECT {\"verbose\":false}\r\nSUB plain 1\r\nPING\r\n").unwrap();
    let mut seen = Vec::new();
    let mut buffer = [0; 4096];
    while !seen.windows(4).any(|bytes| bytes == b"PONG") {
        let count = socket.read(&mut buffer).unwrap();
        seen.extend_from_slice(&buffer[..count]);
    }
    socket
}

/// From one publisher to one subscriber as fast as it goes.
fn core_rate(address: &str, size: usize, count: usize) -> String {
    let mut reader = plain(address);
    let mut writer = plain(address);
    writer.write_all(b"UNSUB 1\r\n").unwrap();
    let expected = count * (format!("MSG plain 1 {size}\r\n").len() + size + 2);
    let start = Instant::now();
    let reading = std::thread::spawn(move || {
        let mut buffer = vec![0; 1 << 20];
        let mut seen = 0;
        while seen < expected {
            let count = reader.read(&mut buffer).unwrap();
            assert!(count > 0, "the subscriber is not cut off");
            seen += count;
        }
    });
    let one = [format!("PUB plain {size}\r\n").into_bytes(), vec![b'x'; size], b"\r\n".to_vec()].concat();
    let block = one.repeat(((256 << 10) / one.len()).max(1));
    let mut left = count * one.len();
    while left > 0 {
        let part = left.min(block.len());
        writer.write_all(&block[..part]).unwrap();
        left -= part;
    }
    reading.join().unwrap();
    per_second(count, start)
}

/// Time to read a backlog with an ordered push consumer.
async fn ordered(js: &Context) -> String {
    let config =
        stream::Config { name: "BACKLOG".into(), subjects: vec!["backlog.>".into()], ..Default::default() };
    let stream = js.create_stream(config).await.unwrap();
    let payload = bytes::Bytes::from(vec![b'x'; 400]);
    let mut acks = FuturesUnordered::new();
    for _ in 0..BACKLOG {
        acks.push(js.publish("backlog.a", payload.clone()).await.unwrap().into_future());
        if acks.len() >= WINDOW {
            acks.next().await.unwrap().unwrap();
        }
    }
    acks.try_collect::<Vec<_>>().await.unwrap();
    let config = push::OrderedConfig { deliver_subject: js.client().new_inbox(), ..Default::default() };
    let start = Instant::now();
    let mut messages = stream.create_consumer(config).await.unwrap().messages().await.unwrap();
    for _ in 0..BACKLOG {
        messages.next().await.unwrap().unwrap();
    }
    let took = format!("{:.2} s", start.elapsed().as_secs_f64());
    js.delete_stream("BACKLOG").await.unwrap();
    took
}

fn per_second(count: usize, start: Instant) -> String {
    format!("{:.0} /s", count as f64 / start.elapsed().as_secs_f64())
}

async fn pipelined(js: &Context, payload: &bytes::Bytes, count: usize) {
    let mut acks = FuturesUnordered::new();
    for _ in 0..count {
        acks.push(js.publish("bench.a", payload.clone()).await.unwrap().into_future());
        if acks.len() >= WINDOW {
            acks.next().await.unwrap().unwrap();
        }
    }
    acks.try_collect::<Vec<_>>().await.unwrap();
}

/// This broker in a process of its own, as the other is, and how long it took until it answered.
struct Ours {
    child: Child,
    url: String,
    opened: Duration,
}

/// The word by which this program is such a process.
const SERVE: &str = "serve";

impl Ours {
    fn start(dir: &Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg(SERVE).arg(dir).stdin(Stdio::piped()).stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        let (url, opened) = url.trim().split_once(' ').unwrap();
        let opened = Duration::from_micros(opened.parse().unwrap());
        assert!(opened <= start.elapsed());
        Self { url: url.to_owned(), opened, child }
    }

    /// It ends when nobody holds its input any more.
    fn end(mut self) {
        drop(self.child.stdin.take());
        assert!(self.child.wait().unwrap().success());
    }
}

/// Serves until the input ends.
async fn serve_here(dir: PathBuf) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let stop = CancellationToken::new();
    let config = Config { ready: Some(ready), ..Config::new(dir) };
    let start = Instant::now();
    let task = tokio::spawn(serve(listener, config, stop.clone()));
    is_ready.await.unwrap();
    println!("{url} {}", start.elapsed().as_micros());
    let end = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    end.await.unwrap().unwrap();
    stop.cancel();
    task.await.unwrap().unwrap();
}

struct External {
    child: Child,
    url: String,
}

async fn external(path: &str, dir: &Path, sync_always: bool) -> External {
    let port =
        tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port().to_string();
    let mut command = Command::new(path);
    command.args(["-a", "127.0.0.1", "-p", &port]).stdout(Stdio::null()).stderr(Stdio::null());
    if sync_always {
        let file = dir.with_extension("conf");
        let text =
            format!("jetstream {{ store_dir: {:?}, sync_interval: always }}\n", dir.display().to_string());
        std::fs::write(&file, text).unwrap();
        command.arg("-c").arg(file);
    } else {
        command.arg("-js").arg("-sd").arg(dir);
    }
    let child = command.spawn().unwrap();
    let url = format!("nats://127.0.0.1:{port}");
    let deadline = Instant::now() + Duration::from_secs(10);
    while async_nats::connect(&url).await.is_err() {
        assert!(Instant::now() < deadline, "nats-server does not answer");
    }
    External { child, url }
}

async fn measure_external(path: &str, dir: &Path, sync_always: bool) -> Figures {
    let mut server = external(path, dir, sync_always).await;
    let figures = measure(&server.url).await;
    server.child.kill().unwrap();
    server.child.wait().unwrap();
    figures
}

/// Processor time of a process so far, in ticks of 10 ms (Linux).
fn ticks(pid: u32) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?)
}

/// Idle cost and opening time, with a store of [`STORED`] messages.
async fn at_rest(dir: &Path) {
    let ours = Ours::start(dir);
    let js = jetstream::new(async_nats::connect(&ours.url).await.unwrap());
    js.create_stream(bench_stream()).await.unwrap();
    pipelined(&js, &bytes::Bytes::from(vec![b'x'; PAYLOAD]), STORED).await;
    drop(js);
    ours.end();
    let ours = Ours::start(dir);
    println!("{STORED} stored messages open in {:.2} s", ours.opened.as_secs_f64());
    let js = jetstream::new(async_nats::connect(&ours.url).await.unwrap());
    let consumer = pull::Config {
        durable_name: Some("idle".into()),
        filter_subject: "none".into(),
        ..Default::default()
    };
    let stream = js.create_stream(stream::Config {
        name: "IDLE".into(),
        subjects: vec!["none".into()],
        ..Default::default()
    });
    let mut messages =
        stream.await.unwrap().create_consumer(consumer).await.unwrap().messages().await.unwrap();
    // The background check of the whole store is over when the processor is at rest.
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let before = ticks(ours.child.id());
        tokio::time::sleep(Duration::from_secs(1)).await;
        if ticks(ours.child.id()) <= before.map(|ticks| ticks + 2) || Instant::now() > deadline {
            break;
        }
    }
    let before = ticks(ours.child.id());
    let waited = tokio::time::timeout(IDLE, messages.next()).await;
    assert!(waited.is_err(), "nothing comes");
    if let (Some(before), Some(after)) = (before, ticks(ours.child.id())) {
        let percent = (after - before) as f64 / IDLE.as_secs_f64();
        println!("idle, with a client that waits for messages: {percent:.1} % of a core");
    }
    drop((messages, js));
    ours.end();
}

#[tokio::main]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().unwrap_or_else(|| "/usr/sbin/nats-server".into());
    if path == SERVE {
        return serve_here(arguments.next().unwrap().into()).await;
    }
    let dir = tempfile::tempdir_in(".").unwrap();
    let broker = Ours::start(&dir.path().join("ours"));
    let mut columns = vec![("fafnir, sync before ack".to_owned(), measure(&broker.url).await)];
    broker.end();

    match Command::new(&path).arg("--version").output() {
        Ok(output) => {
            let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let version = text.rsplit(' ').next().unwrap_or_default().trim_start_matches('v').to_owned();
            let minor: u32 = version.split('.').nth(1).and_then(|minor| minor.parse().ok()).unwrap_or(0);
            let figures = measure_external(&path, &dir.path().join("theirs"), false).await;
            columns.push((format!("{version}, sync by its default"), figures));
            if minor >= 10 {
                let figures = measure_external(&path, &dir.path().join("synced"), true).await;
                columns.push((format!("{version}, sync always"), figures));
            }
        }
        Err(_) => println!("no nats-server at {path} to compare with"),
    }
    println!("payload {PAYLOAD} B, file storage, {WINDOW} publishes under way when pipelined");
    let row = |name: &str, cells: Vec<&str>| {
        let cells: Vec<String> = cells.iter().map(|cell| format!("{cell:>28}")).collect();
        println!("{name:34} {}", cells.join(" "));
    };
    row("", columns.iter().map(|(name, _)| name.as_str()).collect());
    for at in 0..columns[0].1.lines.len() {
        let cells = columns.iter().map(|(_, figures)| figures.lines[at].1.as_str()).collect();
        row(columns[0].1.lines[at].0, cells);
    }
    at_rest(&dir.path().join("rest")).await;
}
