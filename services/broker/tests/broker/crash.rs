//! kill -9 under load: the broker runs in a child process and is killed at random points.

use crate::support::soon;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy, PullConsumer, pull};
use async_nats::jetstream::{self, stream};
use fafnir_broker::{Config, core::random::Random, serve};
use futures::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use tokio_util::sync::CancellationToken;

const CHILD: &str = "FAFNIR_TEST_BROKER_CHILD";
const KILLS: usize = 4;

/// Not a test of its own: what the child process runs.
#[tokio::test]
async fn a_child_process_serves_until_it_is_killed() {
    let Ok(dir) = std::env::var(CHILD) else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("\nserving {}", listener.local_addr().unwrap());
    serve(listener, Config::new(dir), CancellationToken::new()).await.unwrap();
}

struct Victim {
    child: Child,
    url: String,
}

impl Victim {
    fn start(dir: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "crash::a_child_process_serves_until_it_is_killed", "--nocapture"])
            .env(CHILD, dir)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.map(|line| line.unwrap()).find_map(|line| line.strip_prefix("serving ").map(str::to_owned));
        Self { child, url: format!("nats://{}", address.unwrap()) }
    }

    fn kill(&mut self) {
        // SIGKILL on Unix.
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the clients know for sure.
#[derive(Default)]
struct Known {
    /// Number published → sequence that was acknowledged.
    acked: BTreeMap<u64, u64>,
    /// Sequence → number published, for everything that was ever delivered.
    seen: BTreeMap<u64, u64>,
    /// Sequences whose ack was sent, confirmed or not.
    settled: BTreeSet<u64>,
    /// Sequences whose ack was confirmed.
    confirmed: BTreeSet<u64>,
}

fn number_of(payload: &[u8]) -> u64 {
    std::str::from_utf8(payload).unwrap().parse().unwrap()
}

async fn load(url: &str, known: &Arc<Mutex<Known>>, next: &mut u64, until: usize) {
    let options = async_nats::ConnectOptions::new().retry_on_initial_connect();
    let client = soon(options.connect(url)).await.unwrap();
    let js = jetstream::new(client.clone());
    let config = stream::Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() };
    let stream = soon(js.get_or_create_stream(config)).await.unwrap();
    let config = pull::Config {
        durable_name: Some("c".into()),
        ack_policy: AckPolicy::Explicit,
        ..Default::default()
    };
    let consumer: PullConsumer = soon(stream.get_or_create_consumer("c", config)).await.unwrap();

    let consuming = tokio::spawn({
        let known = known.clone();
        async move {
            let mut messages = soon(consumer.messages()).await.unwrap();
            while let Some(Ok(message)) = messages.next().await {
                let seq = message.info().unwrap().stream_sequence;
                {
                    let mut known = known.lock().unwrap();
                    let number = number_of(&message.payload);
                    let before = known.seen.insert(seq, number);
                    assert!(before.is_none_or(|before| before == number), "sequence {seq} was used twice");
                    assert!(!known.confirmed.contains(&seq), "{seq} was settled for sure and came again");
                    known.settled.insert(seq);
                }
                if seq % 3 == 0 {
                    if message.double_ack().await.is_err() {
                        return;
                    }
                    known.lock().unwrap().confirmed.insert(seq);
                } else if message.ack().await.is_err() {
                    return;
                }
            }
        }
    });
    let mut acks = futures::stream::FuturesOrdered::new();
    let mut count = 0;
    while count < until {
        let number = *next;
        *next += 1;
        let mut headers = async_nats::HeaderMap::new();
        headers.insert("Nats-Msg-Id", number.to_string());
        let ack = js.publish_with_headers("s.x", headers, number.to_string().into()).await.unwrap();
        acks.push_back(async move { (number, ack.await) });
        if acks.len() >= 64 {
            let (number, ack) = soon(acks.next()).await.unwrap();
            known.lock().unwrap().acked.insert(number, ack.unwrap().sequence);
            count += 1;
        }
    }
    consuming.abort();
    let _ = consuming.await;
}

/// Compares what is stored from this sequence on with what is known; answers the last sequence.
async fn check(url: &str, known: &Known, from: u64) -> u64 {
    let js = jetstream::new(soon(async_nats::connect(url)).await.unwrap());
    let mut stream = soon(js.get_stream("S")).await.unwrap();
    let state = soon(stream.info()).await.unwrap().state.clone();
    let reader: jetstream::consumer::OrderedPullConsumer =
        soon(stream.create_consumer(pull::OrderedConfig {
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: from },
            ..Default::default()
        }))
        .await
        .unwrap();
    let mut messages = soon(reader.messages()).await.unwrap();
    let mut stored = BTreeMap::new();
    let mut last = None;
    assert_eq!(state.messages, state.last_sequence, "nothing is ever removed here");
    for _ in from..=state.last_sequence {
        let message = soon(messages.next()).await.unwrap().unwrap();
        let number = number_of(&message.payload);
        assert!(last < Some(number), "{number} is stored twice or out of order");
        last = Some(number);
        stored.insert(number, message.info().unwrap().stream_sequence);
    }
    for (number, seq) in known.acked.iter().filter(|(_, seq)| **seq >= from) {
        assert_eq!(stored.get(number), Some(seq), "publish {number} was acknowledged");
    }
    for (seq, number) in known.seen.range(from..) {
        assert_eq!(stored.get(number), Some(seq), "what was delivered is on disk, under its own sequence");
    }
    let info = soon(stream.consumer_info("c")).await.unwrap();
    let floor = info.ack_floor.stream_sequence;
    let unsettled = (1..=floor).find(|seq| !known.settled.contains(seq));
    assert_eq!(unsettled, None, "the ack floor {floor} runs ahead");
    state.last_sequence
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kill_minus_nine() {
    let kills =
        std::env::var("FAFNIR_TEST_BROKER_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    let dir = tempfile::tempdir().unwrap();
    let known = Arc::new(Mutex::new(Known::default()));
    let mut next = 1;
    let mut random = Random::new(1);
    let mut checked = 0;
    for round in 1..=kills {
        let mut victim = Victim::start(dir.path());
        load(&victim.url, &known, &mut next, 20 + random.index(300)).await;
        victim.kill();
        // Numbers whose publish was never acknowledged are not sent again: the next ones have new numbers.
        let victim = Victim::start(dir.path());
        let facts = std::mem::take(&mut *known.lock().unwrap());
        // Everything at the end; until then what came since the last kill, with some of what came before.
        let from = if round == kills { 1 } else { (checked + 1_u64).saturating_sub(100).max(1) };
        checked = check(&victim.url, &facts, from).await;
        *known.lock().unwrap() = facts;
    }
    assert!(known.lock().unwrap().acked.len() >= kills * 20);
}
