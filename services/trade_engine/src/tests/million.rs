//! The promise in numbers: a million journaled commands come back by hash from genesis, from each snapshot with its tail,
//! and live. The default is moderate; `FAFNIR_TEST_COMMANDS=1000000` is the whole.

use super::support::*;
use crate::{frames, log::JOURNAL, replay::hash, seglog, sequencer::Config, snapshot};
use std::fs;

const COMMANDS_DEFAULT: u64 = 20_000;
/// Bytes of the sample.
const SAMPLE_BYTES: usize = 64 * 1024;
const THREADS: usize = 2;

fn commands() -> u64 {
    std::env::var("FAFNIR_TEST_COMMANDS").ok().map_or(COMMANDS_DEFAULT, |n| n.parse().unwrap())
}

#[tokio::test]
async fn genesis_and_every_snapshot_with_its_tail_and_live_are_the_same_by_hash() {
    let dir = tempfile::tempdir().unwrap();
    let count = commands();
    let config = Config {
        snapshot_every_commands: count / 7,
        journal_keep_all: true,
        facts_keep_all: true,
        ..config(dir.path())
    };
    let running = run_with(config).unwrap();
    running.prelude().await;
    for chunk in random_commands(1, count).chunks(1_000) {
        running.feed(chunk).await;
    }
    let live = running.hash().await;
    running.stop().await;

    assert_eq!(hash(&replayed(dir.path())), live);
    let snapshots = snapshot::list(dir.path()).unwrap();
    assert!(snapshots.len() > 1);
    for named in &snapshots {
        let base = snapshot::decode(&fs::read(&named.path).unwrap()).unwrap().state;
        assert_eq!(hash(&replayed_from(dir.path(), base)), live);
    }
    let again = run(dir.path());
    assert_eq!((again.base, again.hash().await), (snapshots[0].seq, live));
    again.stop().await;
    println!(
        "{count} commands: genesis, {} snapshots and live are {}",
        snapshots.len(),
        crate::hash::hex(&live)
    );
}

#[tokio::test]
async fn every_bit_flip_in_64_kib_of_a_journal_is_detected() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    for chunk in random_commands(41, 1_500).chunks(2) {
        running.feed(chunk).await;
    }
    running.stop().await;
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
    let flips = in_parts(&bytes, |bytes, at| {
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

/// Flips every bit of the sample, one at a time, on two threads. Answers how many.
fn in_parts(bytes: &[u8], check: impl Fn(&[u8], usize) + Sync) -> usize {
    let check = &check;
    std::thread::scope(|scope| {
        let part = |part: usize| {
            let mut bytes = bytes.to_vec();
            let mut flips = 0;
            for at in (part..SAMPLE_BYTES * 8).step_by(THREADS) {
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
