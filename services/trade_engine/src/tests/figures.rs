//! Figures, printed and never judged: `cargo test --release --workspace --lib figures -- --ignored --nocapture`.

use super::support::*;
use crate::recovery;
use std::time::Instant;

const COMMANDS: u64 = 1_000_000;
const SUBMITS: usize = 5_000;

#[tokio::test]
#[ignore = "prints figures"]
async fn restart_after_a_million_commands() {
    let dir = tempfile::tempdir().unwrap();
    let commands = random_commands(99, COMMANDS);
    let running = run(dir.path());
    running.list().await;
    let started = Instant::now();
    for chunk in commands.chunks(1_000) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
    }
    let live = running.hash().await;
    println!("{COMMANDS} commands in batches of 1,000: {:?}", started.elapsed());
    let crash = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, crash.path().join(path.file_name().unwrap())).unwrap();
    }
    running.stop().await;
    for (what, at) in [("a crash, from genesis", crash.path()), ("a stop, from its snapshot", dir.path())] {
        let started = Instant::now();
        let recovered = recovery::recover(at).unwrap();
        let took = started.elapsed();
        assert_eq!(crate::state::hex(&recovered.engine.hash()), live);
        println!("restart after {what}: {took:?}, {} replayed", recovered.replayed);
    }
}

#[tokio::test]
#[ignore = "prints figures"]
async fn a_submit_takes_about_one_fdatasync() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    let mut took = Vec::with_capacity(SUBMITS);
    for command in random_commands(98, SUBMITS as u64) {
        let started = Instant::now();
        running.handle.submit(vec![command]).await.unwrap();
        took.push(started.elapsed());
    }
    took.sort();
    println!("submit of one command: p50 {:?}, p99 {:?}", took[SUBMITS / 2], took[SUBMITS * 99 / 100]);
    running.stop().await;
}
