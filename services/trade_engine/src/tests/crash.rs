//! What a crash or damage leaves behind: cut, or refused with the place; never silent.

use super::support::*;
use crate::{
    frames, keeper,
    log::{self, FACTS, JOURNAL},
    recovery::{self, Error},
    replay::{Run, Until, hash},
    seglog,
    sequencer::Config,
    snapshot,
};
use fafnir_clearing::{State, codec::RULES_VERSION, group::Leg, order::Order};
use fafnir_matching::Slot;
use proptest::prelude::*;
use std::{collections::BTreeSet, fs, path::Path};

/// Written by the program before groups, not packed: a seeded exchange with three open orders, one of them a stop.
const FORMER: &[u8] = include_bytes!("rules-2.snapshot");

/// A stopped exchange without snapshots: the journal is all there is. The hashes after each chunk.
async fn journal_only(dir: &Path, commands: u64) -> Vec<[u8; 32]> {
    let running = run(dir);
    running.prelude().await;
    let mut hashes = Vec::new();
    for chunk in random_commands(21, commands).chunks(3) {
        running.feed(chunk).await;
        hashes.push(running.hash().await);
    }
    running.stop().await;
    remove_snapshots(dir);
    hashes
}

fn remove_snapshots(dir: &Path) {
    for named in snapshot::list(dir).unwrap() {
        fs::remove_file(named.path).unwrap();
    }
}

fn remove_facts(dir: &Path) {
    for segment in seglog::segments(FACTS, dir).unwrap() {
        fs::remove_file(segment.path).unwrap();
    }
}

pub fn last_file(spec: seglog::Spec, dir: &Path) -> std::path::PathBuf {
    seglog::segments(spec, dir).unwrap().pop().unwrap().path
}

#[tokio::test]
async fn a_journal_cut_at_any_byte_of_its_tail_recovers_to_a_whole_command() {
    let dir = tempfile::tempdir().unwrap();
    journal_only(dir.path(), 30).await;
    let file = last_file(JOURNAL, dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    assert_eq!(header.rules, RULES_VERSION);
    let ends: Vec<usize> = frames::Frames::new(&bytes, header).map(|f| f.unwrap().end()).collect();
    let tail = ends[ends.len() - 4];
    for length in tail..bytes.len() {
        fs::write(&file, &bytes[..length]).unwrap();
        remove_facts(dir.path());
        let recovered = recovery::recover(dir.path()).unwrap();
        let whole = ends.iter().filter(|e| **e <= length).count() as u64;
        assert_eq!(recovered.state.seq(), whole, "cut at {length}");
        assert_eq!(recovered.cut.is_some(), !ends.contains(&length));
        assert_eq!(recovered.published.recorded(), recovered.state.position());
    }
}

#[tokio::test]
async fn garbage_behind_the_last_command_is_cut_and_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let hashes = journal_only(dir.path(), 9).await;
    for spec in [JOURNAL, FACTS] {
        for garbage in [&[0u8; 100][..], &[0xFF; 7], &[1; 5_000]] {
            let file = last_file(spec, dir.path());
            let mut bytes = fs::read(&file).unwrap();
            bytes.extend_from_slice(garbage);
            fs::write(&file, bytes).unwrap();
            let running = run(dir.path());
            assert_eq!(Some(&running.hash().await), hashes.last());
            running.stop().await;
        }
    }
    let running = run(dir.path());
    running.feed(&random_commands(21, 12)).await;
    running.stop().await;
}

#[tokio::test]
async fn a_flipped_bit_in_the_journal_is_refused_or_seen_as_a_torn_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    journal_only(dir.path(), 30).await;
    let file = last_file(JOURNAL, dir.path());
    let bytes = fs::read(&file).unwrap();
    for at in (0..bytes.len() * 8).step_by(bytes.len() / 4 + 1) {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        fs::write(&file, &damaged).unwrap();
        match recovery::recover(dir.path()) {
            Err(Error::Log(seglog::Error::Damaged { path, .. })) => assert_eq!(path, file),
            // The fact log proves that the command was durable: it is refused all the same.
            Err(Error::Lost { .. }) => {}
            other => panic!("bit {at}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn every_flipped_bit_in_a_snapshot_is_detected_and_the_journal_answers_instead() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    let now = running.hash().await;
    running.stop().await;
    let named = snapshot::list(dir.path()).unwrap().remove(0);
    let bytes = fs::read(&named.path).unwrap();
    // A former program's is not packed.
    for bytes in [&bytes[..], FORMER] {
        for at in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(snapshot::check(&damaged).is_err(), "bit {at}");
        }
        for length in 0..bytes.len() {
            assert!(snapshot::check(&bytes[..length]).is_err());
        }
        assert!(snapshot::check(&[bytes, &[0]].concat()).is_err());
        assert_eq!(snapshot::check(bytes), Ok(()));
    }
    let mut damaged = bytes;
    damaged[100] ^= 4;
    fs::write(&named.path, damaged).unwrap();
    let again = run(dir.path());
    assert_eq!((again.base, again.hash().await), (0, now));
    again.stop().await;
}

#[tokio::test]
async fn a_journal_that_lost_its_end_is_refused_by_a_snapshot_or_a_fact_that_reaches_further() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.prelude().await;
    running.feed(&random_commands(2, 50)).await;
    // The last command has a fact.
    running.execute(command(1, 9_999, deposit(1, 5))).await;
    let last = running.seq().await;
    running.stop().await;
    let file = last_file(JOURNAL, dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let offset = frames::Frames::new(&bytes, header).map(|f| f.unwrap().offset).last().unwrap();
    fs::write(&file, &bytes[..offset]).unwrap();
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Lost { journal, proven, .. } if (journal, proven) == (last - 1, last)));
    remove_snapshots(dir.path());
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(refused.to_string().contains("the fact log reaches to"), "{refused}");
}

#[tokio::test]
async fn a_fact_log_that_is_gone_or_damaged_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let running =
        run_with(Config { snapshot_every_commands: 100, journal_keep_all: true, ..config(dir.path()) });
    let running = running.unwrap();
    running.prelude().await;
    running.feed(&random_commands(5, 600)).await;
    let facts = running.facts(0).await;
    running.stop().await;
    for damage in 0..3 {
        match damage {
            0 => remove_facts(dir.path()),
            1 => {
                let file = last_file(FACTS, dir.path());
                let bytes = fs::read(&file).unwrap();
                fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
            }
            _ => {
                let file = last_file(FACTS, dir.path());
                let mut bytes = fs::read(&file).unwrap();
                let half = bytes.len() / 2;
                bytes[half] ^= 1;
                fs::write(&file, bytes).unwrap();
            }
        }
        let again = run_with(Config { journal_keep_all: true, ..config(dir.path()) }).unwrap();
        assert_eq!(again.facts(0).await, facts, "damage {damage}");
        again.stop().await;
    }
}

#[tokio::test]
async fn a_replay_that_says_another_fact_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    journal_only(dir.path(), 30).await;
    // A log of the same length in which one fact says something else.
    let mut payloads = Vec::new();
    let file = last_file(FACTS, dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(FACTS.magic, &bytes).unwrap();
    for frame in frames::Frames::new(&bytes, header) {
        let frame = frame.unwrap();
        let (command, payload, begin) = log::read(frame.seq, frame.time_us, frame.payload).unwrap();
        let mut payload = payload.to_vec();
        if frame.seq == 20 {
            *payload.last_mut().unwrap() ^= 1;
        }
        payloads.push((frame.seq, frame.time_us, log::encode(command, &payload, begin.as_ref())));
    }
    remove_facts(dir.path());
    let (mut log, _) = seglog::SegLog::open(FACTS, dir.path(), 1).unwrap();
    for (_, time_us, payload) in payloads {
        log.push(time_us, &payload);
    }
    log.flush(true).unwrap();
    drop(log);
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Differs { position: 20, .. }), "{refused}");
}

#[tokio::test]
async fn a_tail_of_another_version_is_refused_and_one_behind_a_snapshot_is_not_needed() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    let now = running.hash().await;
    running.stop().await;
    // The journal as the program before would have written it.
    let file = last_file(JOURNAL, dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let mut older = bytes.clone();
    older[..frames::HEADER_BYTES].copy_from_slice(&frames::header(
        JOURNAL.magic,
        frames::Header { rules: RULES_VERSION - 1, ..header },
    ));
    fs::write(&file, &older).unwrap();
    let running = run(dir.path());
    assert_eq!(running.hash().await, now);
    done(running.execute(command(1, 5, deposit(1, 1))).await);
    let after = running.hash().await;
    running.stop().await;
    let segments = seglog::segments(JOURNAL, dir.path()).unwrap();
    assert_eq!(segments.len(), 2, "what is new is in a segment of its own");
    let again = run(dir.path());
    assert_eq!(again.hash().await, after);
    again.stop().await;
    // A replay begins behind what the former rules wrote.
    let mut replayed = Run::open(dir.path()).unwrap();
    replayed.run(Until::END, &mut |_, _| {}).unwrap();
    assert_eq!(hash(&replayed.state), after);
    assert!(replayed.base_seq > 0 && replayed.fact_differs.is_none(), "from {}", replayed.base_seq);
    remove_snapshots(dir.path());
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Version { seq: 1, rules } if rules == RULES_VERSION - 1));
    assert!(refused.to_string().contains("start the former program once and stop it"), "{refused}");
}

#[test]
fn a_snapshot_of_the_rules_before_groups_is_read() {
    let former = snapshot::decode(FORMER).unwrap();
    let state = former.state;
    assert_eq!((former.rules, state.seq(), state.position(), state.open_orders()), (2, 43, 43, 3));
    assert!(state.orders().all(|order| order.leg == Leg::None && order.group.is_nil()));
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    let now = snapshot::decode(&snapshot::encode(state.seq(), &bytes).unwrap()).unwrap();
    assert_eq!(now.rules, RULES_VERSION);
    let plain = |state: &State| {
        let orders = state.orders().map(|o| Order { slot: Slot::NONE, ..o.clone() });
        orders.collect::<Vec<_>>()
    };
    assert_eq!(plain(&now.state), plain(&state));
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let running =
        run_with(Config { snapshot_every_commands: 40, journal_keep_all: true, ..config(dir.path()) })
            .unwrap();
    running.prelude().await;
    let commands = random_commands(31, 600);
    for (n, chunk) in commands.chunks(20).enumerate() {
        running.feed(chunk).await;
        let answered = running.seq().await;
        // The files as they are now, snapshots and fact log in the middle of whatever they do.
        let crash = tempfile::tempdir().unwrap();
        copy_while_written(dir.path(), crash.path());
        let recovered = recovery::recover(crash.path()).unwrap();
        assert_eq!(recovered.state.seq(), answered, "crash {n}");
        assert_eq!(hash(&replayed(crash.path())), hash(&recovered.state));
    }
    running.stop().await;
}

/// Files may be renamed or removed meanwhile, as they may at a crash. What is derived is copied first: at a crash it can
/// only be older than the journal.
fn copy_while_written(from: &Path, to: &Path) {
    let mut names: Vec<_> = fs::read_dir(from).unwrap().map(|e| e.unwrap().path()).collect();
    names.sort_by_key(|p| p.file_name().unwrap().to_str().unwrap().starts_with("journal"));
    for path in names {
        let _gone = fs::copy(&path, to.join(path.file_name().unwrap()));
    }
}

#[tokio::test]
async fn snapshots_that_a_segment_of_the_fact_log_names_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    for n in 1..=6 {
        done(running.execute(command(1, n, deposit(1, 1))).await);
        let bytes = running.exchange.engine.query(|s| {
            let mut bytes = Vec::new();
            s.encode(&mut bytes);
            (s.seq(), bytes)
        });
        let (seq, bytes) = bytes.await.unwrap();
        keeper::write(dir.path(), &running.exchange.published, seq, &bytes).unwrap();
    }
    let all: Vec<u64> = snapshot::list(dir.path()).unwrap().iter().map(|s| s.seq).collect();
    assert_eq!(all.len(), 3);
    assert_eq!(snapshot::prune(dir.path(), &BTreeSet::from([all[2], all[1]])).unwrap(), Some(all[2]));
    assert_eq!(snapshot::prune(dir.path(), &BTreeSet::from([0])).unwrap(), Some(0));
    running.stop().await;
}

proptest! {
    #[test]
    fn any_bytes_are_a_snapshot_a_fact_or_refused(bytes: Vec<u8>) {
        prop_assert!(snapshot::decode(&bytes).is_err());
        let _ = State::decode(&bytes);
        let _ = log::read(1, 2, &bytes);
    }
}
