//! A full disk: new messages are refused with the original's error, nothing acknowledged is lost, and it goes on as soon
//! as there is room.

use crate::support::{PATIENCE, soon};
use async_nats::jetstream::consumer::pull;
use async_nats::jetstream::{self, Context, stream};
use fafnir_broker::{Config, serve};
use futures::StreamExt;
use serde_json::Value;
use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Where a file system of a few megabytes is mounted for this process.
const SMALL: &str = "FAFNIR_TEST_SMALL_DISK";

/// The error of a publish, or its sequence; nothing when no answer comes for a while.
async fn publish(js: &Context, payload: &[u8]) -> Option<Result<u64, u64>> {
    let client = js.client();
    let request = client.request("s.x", payload.to_vec().into());
    let answer = tokio::time::timeout(Duration::from_secs(2), request).await.ok()?.ok()?;
    let answer: Value = serde_json::from_slice(&answer.payload).unwrap();
    Some(match answer["error"]["err_code"].as_u64() {
        Some(error) => Err(error),
        None => Ok(answer["seq"].as_u64().unwrap()),
    })
}

async fn connect(url: &str) -> Context {
    jetstream::new(soon(async_nats::connect(url)).await.unwrap())
}

fn stream() -> stream::Config {
    stream::Config { name: "S".into(), subjects: vec!["s.>".into()], ..Default::default() }
}

#[tokio::test]
async fn below_the_reserve_messages_are_refused_while_acks_and_deletions_still_fit() {
    let dir = tempfile::tempdir().unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let broker = tokio::spawn(serve(listener, Config::new(dir.path()), stop.clone()));
    let js = connect(&url).await;
    soon(js.create_stream(stream())).await.unwrap();
    assert_eq!(publish(&js, b"1").await, Some(Ok(1)));
    stop.cancel();
    soon(broker).await.unwrap().unwrap();

    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let stop = CancellationToken::new();
    let config = Config { min_free: u64::MAX, ..Config::new(dir.path()) };
    let broker = tokio::spawn(serve(listener, config, stop.clone()));
    let js = connect(&url).await;
    soon(async { while publish(&js, b"2").await != Some(Err(10023)) {} }).await;
    let refused = soon(js.create_stream(stream::Config { name: "T".into(), ..Default::default() })).await;
    assert!(refused.is_err_and(|e| e.to_string().contains("insufficient resources")));
    let memory =
        stream::Config { name: "M".into(), storage: stream::StorageType::Memory, ..Default::default() };
    soon(js.create_stream(memory)).await.unwrap();
    let kept = soon(js.get_stream("S")).await.unwrap();
    assert_eq!(soon(kept.get_raw_message(1)).await.unwrap().payload, "1");
    assert!(soon(kept.delete_message(1)).await.unwrap());
    stop.cancel();
    soon(broker).await.unwrap().unwrap();
}

/// Publishes numbered messages until one is refused; all before were acknowledged: number by sequence.
async fn fill(js: &Context, size: usize) -> BTreeMap<u64, u64> {
    let mut acked = BTreeMap::new();
    for number in 0_u64.. {
        let mut payload = vec![b'.'; size];
        payload.splice(..8, number.to_le_bytes());
        match publish(js, &payload).await {
            Some(Ok(seq)) => assert!(acked.insert(seq, number).is_none()),
            Some(Err(error)) => {
                assert_eq!(error, 10023);
                break;
            }
            None => panic!("message {number} is neither acknowledged nor refused"),
        }
        assert!(number < 10_000, "the disk is never full");
    }
    acked
}

/// Every message that was acknowledged is there as it was.
async fn all_there(stream: &stream::Stream, acked: impl Iterator<Item = (&u64, &u64)>) {
    for (seq, number) in acked {
        let message = soon(stream.get_raw_message(*seq)).await.unwrap();
        assert_eq!(message.payload[..8], number.to_le_bytes(), "{seq}");
    }
}

/// Takes every byte that is left on the file system.
fn take_the_rest(path: &Path) {
    let mut file = std::fs::File::create(path).unwrap();
    for size in [1 << 20, 4096, 1] {
        while file.write_all(&vec![0; size]).is_ok() {}
    }
}

/// Not a test of its own: runs in a mount namespace with a small file system.
#[tokio::test]
async fn a_child_process_fills_its_small_disk() {
    let Ok(dir) = std::env::var(SMALL) else { return };
    let dir = Path::new(&dir);
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 8 << 20]).unwrap();
    let serve_here = || async {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let config = Config { min_free: 0, ..Config::new(dir.join("store")) };
        (url, stop.clone(), tokio::spawn(serve(listener, config, stop)))
    };
    let (url, stop, broker) = serve_here().await;
    let js = connect(&url).await;
    let mut found = soon(js.create_stream(stream())).await.unwrap();
    let consumer = pull::Config { durable_name: Some("c".into()), ..Default::default() };
    let consumer = soon(found.create_consumer(consumer)).await.unwrap();
    let mut acked = fill(&js, 4000).await;
    println!("{} acknowledged before the disk was full", acked.len());
    assert!(acked.len() > 500);
    all_there(&found, acked.iter()).await;

    // Room from outside: it goes on.
    std::fs::remove_file(&ballast).unwrap();
    soon(async { while !matches!(publish(&js, b"later...").await, Some(Ok(_))) {} }).await;
    // Others take it to the last byte, all of a sudden.
    take_the_rest(&ballast);
    soon(async { while publish(&js, b"too late").await != Some(Err(10023)) {} }).await;
    let before = soon(found.info()).await.unwrap().state.clone();
    let mut messages = soon(consumer.fetch().max_messages(20).messages()).await.unwrap();
    let mut settled = 0;
    while let Some(message) = soon(messages.next()).await {
        soon(message.unwrap().double_ack()).await.unwrap();
        settled += 1;
    }
    assert_eq!(settled, 20, "acks are written on a full disk");
    assert!(soon(found.delete_message(2)).await.unwrap());
    acked.remove(&2);
    assert_eq!(soon(found.info()).await.unwrap().state.messages, before.messages - 1);

    // It makes its own room.
    let purged = soon(found.purge().keep(30).into_future()).await.unwrap().purged;
    assert_eq!(purged, before.messages - 1 - 30);
    assert_eq!(soon(found.info()).await.unwrap().state.messages, 30);
    acked.retain(|seq, _| *seq > before.last_sequence - 30);
    soon(async { while !matches!(publish(&js, b"again...").await, Some(Ok(_))) {} }).await;
    all_there(&found, acked.iter()).await;
    let last = soon(found.info()).await.unwrap().state.clone();
    assert!(!broker.is_finished());
    stop.cancel();
    soon(broker).await.unwrap().unwrap();

    // Nothing of it depends on what was in memory.
    let (url, stop, broker) = serve_here().await;
    let js = connect(&url).await;
    let mut found = soon(js.get_stream("S")).await.unwrap();
    let state = soon(found.info()).await.unwrap().state.clone();
    assert_eq!((state.messages, state.first_sequence), (last.messages, last.first_sequence));
    assert_eq!(state.last_sequence, last.last_sequence);
    all_there(&found, acked.iter()).await;
    stop.cancel();
    soon(broker).await.unwrap().unwrap();
    println!("it went on");
}

#[tokio::test]
async fn a_full_disk_refuses_is_relieved_by_a_purge_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=24m tmpfs \"$0\" && exec \"$@\"";
    let possible =
        Command::new("unshare").args(["-rm", "sh", "-c", mount]).arg(dir.path()).arg("true").output();
    if !possible.is_ok_and(|output| output.status.success()) {
        println!("skipped: no mount namespaces here");
        return;
    }
    let mut child = Command::new("unshare");
    child.args(["-rm", "sh", "-c", mount]).arg(dir.path()).arg(std::env::current_exe().unwrap());
    child.args(["--exact", "full_disk::a_child_process_fills_its_small_disk", "--nocapture"]);
    child.env(SMALL, dir.path());
    let running = tokio::task::spawn_blocking(move || child.output().unwrap());
    let output = tokio::time::timeout(3 * PATIENCE, running).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("it went on"), "{text}");
}
