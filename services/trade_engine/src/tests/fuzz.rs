//! The fuzz targets as ordinary tests: over what the engine writes, over damage to it, over bytes at random.

use super::support::*;
use crate::{fuzz, record::put_bytes, snapshot};
use fafnir_platform::rng::Rng;

const INPUTS: u64 = 400;
/// Damaged variants of each good input.
const VARIANTS: u64 = 40;

fn bytes_at_random(r: &mut Rng) -> Vec<u8> {
    (0..r.below(600)).map(|_| r.word() as u8).collect()
}

/// Flips, cuts, doubles: what a fuzzer does to a good input.
fn damaged(good: &[u8], r: &mut Rng) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..=r.below(4) {
        let at = r.index(bytes.len());
        match r.below(4) {
            0 => bytes.truncate(at),
            1 => {
                let tail = bytes[at.min(bytes.len())..].to_vec();
                bytes.extend(tail);
            }
            2 => bytes.iter_mut().skip(at).take(1).for_each(|b| *b = r.word() as u8),
            _ => bytes.iter_mut().skip(at).take(1).for_each(|b| *b ^= 1 << r.below(8)),
        }
    }
    bytes
}

fn over(target: fn(&[u8]), good: &[Vec<u8>]) {
    for (n, good) in good.iter().enumerate() {
        let mut r = Rng::new(n as u64);
        target(good);
        for _ in 0..VARIANTS {
            target(&damaged(good, &mut r));
        }
    }
    for seed in 0..INPUTS {
        target(&bytes_at_random(&mut Rng::new(seed)));
    }
}

#[test]
fn the_decoder_of_records_and_the_engine_behind_it_take_any_bytes() {
    let good: Vec<_> = (0..20)
        .map(|seed| {
            let mut bytes = Vec::new();
            for (_, record) in random_records(seed, 60) {
                let mut payload = Vec::new();
                record.encode(&mut payload);
                put_bytes(&mut bytes, &payload);
            }
            bytes
        })
        .collect();
    over(fuzz::records, &good);
}

#[tokio::test]
async fn the_reader_of_the_journal_takes_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    for chunk in random_commands(51, 40).chunks(3) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
    }
    running.stop().await;
    let segments = crate::seglog::segments(crate::recovery::JOURNAL, dir.path()).unwrap();
    over(fuzz::journal, &[std::fs::read(&segments[0].path).unwrap()]);
}

#[test]
fn the_reader_of_snapshots_takes_any_bytes() {
    let good: Vec<_> = (0..10)
        .map(|seed| {
            let engine = in_memory(&random_records(seed, 80));
            let mut state = Vec::new();
            engine.encode(&mut state);
            snapshot::encode(engine.seq(), &state)
        })
        .collect();
    over(fuzz::snapshot, &good);
    let states: Vec<_> = good.iter().map(|file| file[60..].to_vec()).collect();
    over(fuzz::snapshot, &states);
}
