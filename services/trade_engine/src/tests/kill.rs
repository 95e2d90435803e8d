//! `kill -9` at chosen places: a child process runs the exchange and dies there; what it had acknowledged is all there.

use super::support::*;
use crate::{
    recovery,
    replay::{Parting, Until, compare, hash},
    sequencer::Config,
};
use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// What the child is told: the directory, where it dies, and at which pass of that place.
const DIRECTORY: &str = "FAFNIR_TEST_KILL_DIRECTORY";
const PLACE: &str = "FAFNIR_TEST_KILL_PLACE";
const PASS: &str = "FAFNIR_TEST_KILL_PASS";
/// The commands that the children send one after the other, and how many at a time.
const COMMANDS: u64 = 10_000;
const CHUNK: usize = 37;
const SEED: u64 = 77;

/// Kills this process without a word at the chosen place.
pub fn crash_point(log: &str, place: &str) {
    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSES: AtomicU64 = AtomicU64::new(0);
    let chosen = CHOSEN.get_or_init(|| {
        let pass = std::env::var(PASS).ok()?.parse().ok()?;
        Some((std::env::var(PLACE).ok()?, pass))
    });
    let Some((chosen, pass)) = chosen else { return };
    let is_here = chosen.strip_prefix(log).and_then(|rest| rest.strip_prefix(": ")) == Some(place);
    if is_here && PASSES.fetch_add(1, Ordering::Relaxed) + 1 == *pass {
        let own = rustix::process::getpid();
        rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
        loop {
            std::thread::park();
        }
    }
}

fn kill_config(dir: &Path) -> Config {
    Config { snapshot_every_commands: 700, journal_keep_all: true, facts_keep_all: true, ..config(dir) }
}

/// Sends what the journal lacks of the commands, and says what is acknowledged.
async fn go_on(running: &Running, tell: impl Fn(u64)) {
    if running.seq().await == 0 {
        running.prelude().await;
    }
    let done = running.seq().await - PRELUDE;
    let commands = random_commands(SEED, COMMANDS);
    let mut sent = done;
    for chunk in commands[done as usize..].chunks(CHUNK) {
        running.feed(chunk).await;
        sent += chunk.len() as u64;
        tell(sent);
    }
}

/// The child: goes on where the directory's exchange stands.
#[tokio::test]
#[ignore = "run by the tests of this file in a process of its own"]
async fn child() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let running = run_with(kill_config(Path::new(&dir))).unwrap();
    let published = &running.exchange.published;
    let tell = |sent| {
        println!("acknowledged {sent}");
        published.pack().unwrap();
    };
    go_on(&running, tell).await;
    running.stop().await;
    println!("done");
}

/// Runs a child to its death or its end: the last number that it acknowledged, and whether it came to its end.
fn run_child(dir: &Path, place: &str, pass: u64) -> (u64, bool) {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "tests::kill::child", "--ignored", "--nocapture"])
        .env(DIRECTORY, dir)
        .env(PLACE, place)
        .env(PASS, pass.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (mut acknowledged, mut ended) = (0, false);
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if let Some((_, number)) = line.rsplit_once("acknowledged ") {
            acknowledged = number.parse().unwrap();
        }
        ended |= line.ends_with("done");
    }
    let status = child.wait().unwrap();
    assert!(ended || std::os::unix::process::ExitStatusExt::signal(&status) == Some(9), "{place}: {status}");
    (acknowledged, ended)
}

/// Lets children die at each place in turn, then one come to its end; the whole is what an undisturbed one does.
async fn die_at(places: &[(&str, u64)]) {
    let dir = tempfile::tempdir().unwrap();
    for (place, pass) in places {
        let (acknowledged, ended) = run_child(dir.path(), place, *pass);
        assert!(!ended, "{place} was not reached");
        // What a crash left can be read without changing it, and then be recovered.
        let copy = tempfile::tempdir().unwrap();
        for entry in std::fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
        let recovered = recovery::recover(copy.path()).unwrap();
        assert!(recovered.state.seq() >= acknowledged, "{place}: an acknowledged command is lost");
        assert_eq!(hash(&replayed(copy.path())), hash(&recovered.state), "{place}");
        assert_eq!(recovered.published.recorded(), recovered.state.position(), "{place}");
    }
    let (acknowledged, ended) = run_child(dir.path(), "nowhere", 1);
    assert!(ended && (acknowledged == COMMANDS || acknowledged == 0));

    let whole = tempfile::tempdir().unwrap();
    let undisturbed = run_with(kill_config(whole.path())).unwrap();
    go_on(&undisturbed, |_| {}).await;
    undisturbed.stop().await;
    let found = compare(dir.path(), whole.path(), Until::END, &mut |_, _| {}).unwrap();
    assert_eq!(found.parting, None::<Parting>);
    assert_eq!(found.same_records, COMMANDS + PRELUDE);
    assert_eq!(found.left.state.seq(), found.right.state.seq());
    assert_eq!((found.left.fact_differs, found.left.facts_agreed), (None, found.left.state.position()));
}

#[tokio::test]
async fn kill_9_while_the_journal_rolls_loses_nothing_acknowledged() {
    die_at(&[
        ("journal: before the write", PRELUDE + 14),
        ("journal: written", 27),
        ("journal: synced", 25),
        ("journal: roll begins", 1),
        ("journal: segment under its temporary name", 1),
        ("journal: segment renamed", 1),
        ("facts: written", 20),
        ("facts: roll begins", 2),
        ("facts: segment renamed", 2),
    ])
    .await;
}

#[tokio::test]
async fn kill_9_while_a_snapshot_is_written_loses_nothing_acknowledged() {
    die_at(&[
        ("snapshot: half written", 1),
        ("snapshot: half written", 2),
        ("snapshot: under its temporary name", 1),
        ("snapshot: renamed", 2),
    ])
    .await;
}

#[tokio::test]
async fn kill_9_while_a_segment_of_facts_is_packed_loses_nothing() {
    die_at(&[
        ("facts: packed under a temporary name", 1),
        ("facts: packed and plain", 1),
        ("facts: packed and plain", 3),
        ("facts: packed under a temporary name", 2),
    ])
    .await;
}

#[tokio::test]
async fn kill_9_during_recovery_loses_nothing_acknowledged() {
    die_at(&[
        ("journal: synced", 80),
        ("recovery: the base stands", 1),
        ("recovery: a record replayed", 3),
        ("journal: synced", 8),
        ("recovery: everything replayed", 1),
        ("recovery: a record replayed", 1),
    ])
    .await;
}
