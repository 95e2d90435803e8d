//! Figures, printed and never judged: `cargo test --release -p fafnir-trade-engine --lib figures -- --ignored --nocapture`.

use super::support::*;
use crate::{recovery, replay::hash, sequencer::Config};
use std::time::{Duration, Instant};

const COMMANDS: u64 = 1_000_000;
const EXECUTES: usize = 5_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn restart_after_a_million_commands() {
    let dir = tempfile::tempdir().unwrap();
    let commands = random_commands(99, COMMANDS);
    let running = run_with(Config { facts_keep_all: true, ..config(dir.path()) }).unwrap();
    running.prelude().await;
    let started = Instant::now();
    for chunk in commands.chunks(1_000) {
        running.feed(chunk).await;
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
        assert_eq!(hash(&recovered.state), live);
        println!("restart after {what}: {took:?}, {} replayed", recovered.replayed);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn a_command_takes_about_one_fdatasync() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    let mut took = Vec::with_capacity(EXECUTES);
    for command in random_commands(98, EXECUTES as u64) {
        let started = Instant::now();
        running.execute(command).await;
        took.push(started.elapsed());
    }
    took.sort();
    println!("one command: p50 {:?}, p99 {:?}", took[EXECUTES / 2], took[EXECUTES * 99 / 100]);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "prints figures"]
async fn a_snapshot_lets_the_core_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(Config { snapshot_every_commands: 20_000, ..config(dir.path()) }).unwrap();
    running.prelude().await;
    for chunk in random_commands(97, 200_000).chunks(1_000) {
        running.feed(chunk).await;
    }
    let (mut worst, mut worst_under_way, started) = (Duration::ZERO, Duration::ZERO, Instant::now());
    let mut n = 1_000_000;
    while started.elapsed() < Duration::from_secs(10) {
        let before = running.exchange.published.snapshot().seq;
        let asked = Instant::now();
        for _ in 0..10 {
            n += 1;
            running.execute(command(1, n, deposit(1, 1))).await;
        }
        let took = asked.elapsed();
        let is_new = running.exchange.published.snapshot().seq != before;
        if is_new { worst_under_way = worst_under_way.max(took) } else { worst = worst.max(took) }
    }
    println!("ten commands: at most {worst:?}, beside the end of a snapshot {worst_under_way:?}");
    running.stop().await;
}
