//! The fuzz targets as ordinary tests: over what the engine writes, over damage to it, over bytes at random.

use super::support::*;
use crate::{
    fuzz::{self, USERS as FUZZ_USERS},
    log::JOURNAL,
    request, snapshot,
};
use fafnir_clearing::{State, codec::put_bytes, command::Command, step};
use fafnir_platform::rng::Rng;
use fafnir_proto::v1;

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
        let at = r.index(bytes.len().max(1));
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

/// Commands at random of the users of the targets.
fn commands(seed: u64, count: u64) -> Vec<Command> {
    let mut r = Rng::new(seed);
    random_commands(seed, count)
        .iter()
        .filter_map(|command| {
            let user_id = match command.user_id.as_str() {
                "" => String::new(),
                _ => fuzz::user(1 + r.below(FUZZ_USERS)).to_string(),
            };
            request::parse(&v1::Command { user_id, ..command.clone() }).ok()
        })
        .collect()
}

#[test]
fn the_decoder_of_commands_and_the_core_behind_it_take_any_bytes() {
    let good: Vec<_> = (0..20)
        .map(|seed| {
            let mut bytes = Vec::new();
            for command in commands(seed, 60) {
                let mut payload = Vec::new();
                command.encode(&mut payload);
                put_bytes(&mut bytes, &payload);
            }
            bytes
        })
        .collect();
    over(fuzz::commands, &good);
}

#[tokio::test]
async fn the_reader_of_the_journal_takes_any_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    for chunk in random_commands(51, 40).chunks(3) {
        running.feed(chunk).await;
    }
    running.stop().await;
    let segments = crate::seglog::segments(JOURNAL, dir.path()).unwrap();
    over(fuzz::journal, &[std::fs::read(&segments[0].path).unwrap()]);
}

#[test]
fn the_reader_of_snapshots_takes_any_bytes() {
    let states: Vec<(u64, Vec<u8>)> = (0..10)
        .map(|seed| {
            let mut state = State::new();
            let mut facts = Vec::new();
            for (n, command) in fuzz::prelude().iter().chain(&commands(seed, 80)).enumerate() {
                step(&mut state, n as u64 + 1, START_US + n as i64, command, &mut facts);
            }
            let mut bytes = Vec::new();
            state.encode(&mut bytes);
            (state.seq(), bytes)
        })
        .collect();
    let files: Vec<_> = states.iter().map(|(seq, bytes)| snapshot::encode(*seq, bytes).unwrap()).collect();
    over(fuzz::snapshot, &files);
    over(fuzz::snapshot, &states.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>());
}
