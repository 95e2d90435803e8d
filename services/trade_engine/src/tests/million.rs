//! The promises in numbers: a million journaled commands, every bit of 64 KiB. The defaults are moderate;
//! `FAFNIR_TEST_COMMANDS=1000000 FAFNIR_TEST_FLIPS=all` is the whole.

use super::support::*;
use crate::{frames, record::Instruction, recovery::JOURNAL, seglog, sequencer::Config, snapshot, state};
use fafnir_matching::Side;
use std::{fs, path::Path};

const COMMANDS_DEFAULT: u64 = 20_000;
/// Bytes of each sample.
const SAMPLE_BYTES: usize = 64 * 1024;
/// Without `FAFNIR_TEST_FLIPS=all` every so many bits of a snapshot are flipped: each costs a hash over all of it.
const SNAPSHOT_STEP: usize = 487;
const THREADS: usize = 2;

fn commands() -> u64 {
    std::env::var("FAFNIR_TEST_COMMANDS").ok().map_or(COMMANDS_DEFAULT, |n| n.parse().unwrap())
}

#[tokio::test]
async fn genesis_and_every_snapshot_with_its_tail_and_live_are_the_same_by_hash() {
    let dir = tempfile::tempdir().unwrap();
    let count = commands();
    // The last snapshot but one leaves a tail of its own.
    let config = Config { snapshot_every_commands: count / 7, keep_all: true, ..config(dir.path()) };
    let running = run_with(config);
    running.list().await;
    for chunk in random_commands(1, count).chunks(1_000) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
    }
    let live = running.hash().await;
    running.stop().await;

    assert_eq!(state::hex(&replayed(dir.path()).hash()), live);
    let snapshots = snapshot::list(dir.path()).unwrap();
    assert!(snapshots.len() > 1);
    for named in &snapshots {
        let (base, _) = snapshot::decode(&fs::read(&named.path).unwrap()).unwrap();
        assert_eq!(state::hex(&replayed_from(dir.path(), base).hash()), live);
    }
    let again = run(dir.path());
    assert_eq!((again.snapshot_seq, again.hash().await), (snapshots[0].seq, live.clone()));
    again.stop().await;
    println!("{count} commands: genesis, {} snapshots and live are {live}", snapshots.len());
}

async fn journal_of(dir: &Path, commands: u64, at_a_time: usize) {
    let running = run(dir);
    running.list().await;
    for chunk in random_commands(41, commands).chunks(at_a_time) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
    }
    running.stop().await;
}

#[tokio::test]
async fn every_bit_flip_in_64_kib_of_a_journal_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    journal_of(dir.path(), 1_200, 2).await;
    let segment = seglog::segments(JOURNAL, dir.path()).unwrap().remove(0);
    let bytes = fs::read(&segment.path).unwrap();
    assert!(bytes.len() > SAMPLE_BYTES + 4_096, "{}", bytes.len());
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let mut walk = frames::Frames::new(&bytes, header);
    let mut places = vec![walk.place()];
    while let Some(frame) = walk.next() {
        frame.unwrap();
        places.push(walk.place());
    }
    let flips = in_parts(&bytes, 1, |bytes, at| {
        if at / 8 < frames::HEADER_BYTES {
            assert!(frames::parse_header(JOURNAL.magic, bytes).is_err(), "bit {at} of the header");
            return;
        }
        // The frames before it are as they were.
        let frame = places.partition_point(|p| p.offset <= at / 8) - 1;
        let bad =
            frames::Frames::from_place(bytes, places[frame]).next().unwrap().expect_err("a bit was flipped");
        assert!(!frames::is_torn_tail(bytes, &bad), "bit {at} was taken for a torn tail");
    });
    println!("{flips} flipped bits of a journal: all detected");
}

/// Flips every `step`-th bit of the sample, one at a time, on two threads. Answers how many.
fn in_parts(bytes: &[u8], step: usize, check: impl Fn(&[u8], usize) + Sync) -> usize {
    let check = &check;
    std::thread::scope(|scope| {
        let part = |part: usize| {
            let mut bytes = bytes.to_vec();
            let mut flips = 0;
            for at in (part * step..SAMPLE_BYTES * 8).step_by(step * THREADS) {
                bytes[at / 8] ^= 1 << (at % 8);
                check(&bytes, at);
                bytes[at / 8] ^= 1 << (at % 8);
                flips += 1;
            }
            flips
        };
        let parts: Vec<_> = (0..THREADS).map(|n| scope.spawn(move || part(n))).collect();
        parts.into_iter().map(|p| p.join().unwrap()).sum()
    })
}

#[tokio::test]
async fn every_bit_flip_in_64_kib_of_a_snapshot_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let all = std::env::var("FAFNIR_TEST_FLIPS").is_ok_and(|v| v == "all");
    let running = run(dir.path());
    running.list().await;
    // Orders that rest: the state is large.
    let resting: Vec<_> = (1..=3_000)
        .map(|n| {
            let (side, cents) = if n % 2 == 0 {
                (Side::Buy, 9_000 + n as i64 % 400)
            } else {
                (Side::Sell, 9_600 + n as i64 % 400)
            };
            let order = limit(n, n % 20, side, 1 + n as i64 % 30, cents);
            command(n, SYMBOLS[n as usize % 4], Instruction::New(order))
        })
        .collect();
    for chunk in resting.chunks(1_000) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
    }
    running.stop().await;
    let named = snapshot::list(dir.path()).unwrap().remove(0);
    let bytes = fs::read(&named.path).unwrap();
    assert!(bytes.len() >= SAMPLE_BYTES, "{}", bytes.len());
    let step = if all { 1 } else { SNAPSHOT_STEP };
    let flips = in_parts(&bytes, step, |bytes, at| assert!(snapshot::decode(bytes).is_err(), "bit {at}"));
    println!("{flips} flipped bits of a snapshot of {} bytes: all detected", bytes.len());
}
