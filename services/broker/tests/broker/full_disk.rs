//! A full disk: new messages are refused with the original's error, nothing acknowledged is lost, and it goes on as soon
//! as there is room.

use crate::support::{PATIENCE, soon};
use async_nats::jetstream::{self, Context, stream};
use fafnir_broker::{Config, serve};
use serde_json::Value;
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

/// Not a test of its own: runs in a mount namespace with a tiny file system.
#[tokio::test]
async fn a_child_process_fills_its_small_disk() {
    let Ok(dir) = std::env::var(SMALL) else { return };
    let dir = Path::new(&dir);
    let ballast = dir.join("ballast");
    std::fs::write(&ballast, vec![1; 2 << 20]).unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("nats://{}", listener.local_addr().unwrap());
    let config = Config { min_free: 0, ..Config::new(dir.join("store")) };
    let broker = tokio::spawn(serve(listener, config, CancellationToken::new()));
    let js = connect(&url).await;
    let mut found = soon(js.create_stream(stream())).await.unwrap();
    let mut acked = Vec::new();
    let mut held = None;
    // Until a refusal; the publish that met the full disk first may still wait for its answer.
    for number in 0_u64.. {
        let mut payload = vec![b'.'; 4000];
        payload.splice(..8, number.to_le_bytes());
        match publish(&js, &payload).await {
            Some(Ok(seq)) => acked.push((seq, number)),
            Some(Err(error)) => {
                assert_eq!(error, 10023);
                break;
            }
            None => held = Some(number),
        }
        assert!(number < 10_000, "the disk is never full");
    }
    println!("{} acknowledged before the disk was full", acked.len());
    assert!(acked.len() > 50 && held.is_some());
    assert!(!broker.is_finished(), "the broker waits for room");
    std::fs::remove_file(&ballast).unwrap();
    soon(async {
        loop {
            if let Some(Ok(seq)) = publish(&js, b"after").await {
                acked.push((seq, u64::MAX));
                return;
            }
        }
    })
    .await;
    // All of it is there, in order; what was held was written, since nobody was told that it was not.
    let last = soon(found.info()).await.unwrap().state.last_sequence;
    for (seq, number) in acked {
        let message = soon(found.get_raw_message(seq)).await.unwrap();
        assert!(seq <= last);
        if number != u64::MAX {
            assert_eq!(message.payload[..8], number.to_le_bytes(), "{seq}");
        }
    }
}

#[tokio::test]
async fn what_meets_a_full_disk_waits_or_is_refused_and_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let mount = "mount -t tmpfs -o size=6m tmpfs \"$0\" && exec \"$@\"";
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
    assert!(text.contains("acknowledged before"), "{text}");
}
