//! What a crash or damage leaves behind: cut, or refused with the place; never silent.

use super::support::*;
use crate::{
    domain::Engine,
    events::Cursor,
    frames,
    record::Record,
    recovery::{self, Error, JOURNAL},
    seglog, snapshot,
};
use proptest::prelude::*;
use std::{fs, path::Path};

/// A stopped engine without snapshots: the journal is all there is.
async fn journal_only(dir: &Path, commands: u64) -> Vec<String> {
    let running = run(dir);
    running.list().await;
    let mut hashes = Vec::new();
    for chunk in random_commands(21, commands).chunks(3) {
        running.handle.submit(chunk.to_vec()).await.unwrap();
        hashes.push(running.hash().await);
    }
    running.stop().await;
    for named in snapshot::list(dir).unwrap() {
        fs::remove_file(named.path).unwrap();
    }
    hashes
}

fn remove_outcomes(dir: &Path) {
    for segment in seglog::segments(crate::published::OUTCOMES, dir).unwrap() {
        fs::remove_file(segment.path).unwrap();
    }
}

fn journal_file(dir: &Path) -> std::path::PathBuf {
    seglog::segments(JOURNAL, dir).unwrap().pop().unwrap().path
}

#[tokio::test]
async fn a_journal_cut_at_any_byte_of_its_tail_recovers_to_a_whole_record() {
    let dir = tempfile::tempdir().unwrap();
    journal_only(dir.path(), 30).await;
    remove_outcomes(dir.path());
    let file = journal_file(dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let ends: Vec<usize> = frames::Frames::new(&bytes, header).map(|f| f.unwrap().end()).collect();
    let tail = ends[ends.len() - 4];
    for length in tail..bytes.len() {
        fs::write(&file, &bytes[..length]).unwrap();
        remove_outcomes(dir.path());
        let recovered = recovery::recover(dir.path()).unwrap();
        let whole = ends.iter().filter(|e| **e <= length).count() as u64;
        assert_eq!(recovered.engine.seq(), whole, "cut at {length}");
        assert_eq!(recovered.cut.is_some(), !ends.contains(&length));
        assert_eq!(fs::read(&file).unwrap().len(), *ends.iter().filter(|e| **e <= length).max().unwrap());
    }
}

#[tokio::test]
async fn garbage_behind_the_last_record_is_cut_and_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let hashes = journal_only(dir.path(), 9).await;
    let file = journal_file(dir.path());
    for garbage in [&[0u8; 100][..], &[0xFF; 7], &[1; 5_000]] {
        let mut bytes = fs::read(&file).unwrap();
        bytes.extend_from_slice(garbage);
        fs::write(&file, bytes).unwrap();
        let running = run(dir.path());
        assert_eq!(Some(&running.hash().await), hashes.last());
        running.stop().await;
    }
    let running = run(dir.path());
    let commands = random_commands(21, 12);
    assert_eq!(running.handle.submit(commands).await, Ok(12));
    running.stop().await;
}

#[tokio::test]
async fn every_bit_flip_in_a_journal_is_refused_or_seen_as_a_torn_last_batch() {
    let dir = tempfile::tempdir().unwrap();
    journal_only(dir.path(), 30).await;
    let file = journal_file(dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let all: Vec<_> = frames::Frames::new(&bytes, header)
        .map(|f| f.unwrap())
        .map(|f| (f.offset, f.seq - u64::from(f.batch_index)))
        .collect();
    let last_batch = all.last().unwrap().1;
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        let in_last_batch = all.iter().any(|(offset, first)| *offset <= at / 8 && *first == last_batch);
        let Ok(read) = frames::parse_header(JOURNAL.magic, &damaged) else {
            assert!(at / 8 < frames::HEADER_BYTES);
            continue;
        };
        let bad = frames::Frames::new(&damaged, read).find_map(Result::err).expect("a bit was flipped");
        assert!(bad.offset <= at / 8);
        assert!(in_last_batch || !frames::is_torn_tail(&damaged, &bad), "bit {at} was taken for a torn tail");
    }
    // The same through the whole recovery, which takes a sync or two each.
    for at in (0..bytes.len() * 8).step_by(bytes.len() / 4 + 1) {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        fs::write(&file, &damaged).unwrap();
        match recovery::recover(dir.path()) {
            Err(Error::Log(seglog::Error::Damaged { path, .. })) => assert_eq!(path, file),
            // The outcome log proves that the record was durable: it is refused all the same.
            Err(Error::Lost { .. }) => {}
            other => panic!("bit {at}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn every_bit_flip_in_a_snapshot_is_detected_and_the_journal_answers_instead() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    running.handle.submit(random_commands(2, 200)).await.unwrap();
    let hash = running.hash().await;
    running.stop().await;
    let named = snapshot::list(dir.path()).unwrap().remove(0);
    let bytes = fs::read(&named.path).unwrap();
    for at in 0..bytes.len() * 8 {
        let mut damaged = bytes.clone();
        damaged[at / 8] ^= 1 << (at % 8);
        assert!(snapshot::decode(&damaged).is_err(), "bit {at}");
    }
    for length in 0..bytes.len() {
        assert!(snapshot::decode(&bytes[..length]).is_err());
    }
    let mut damaged = bytes;
    damaged[100] ^= 4;
    fs::write(&named.path, damaged).unwrap();
    let again = run(dir.path());
    assert_eq!((again.snapshot_seq, again.hash().await), (0, hash));
    again.stop().await;
}

#[tokio::test]
async fn a_journal_that_lost_its_end_behind_a_snapshot_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.list().await;
    running.handle.submit(random_commands(2, 50)).await.unwrap();
    running.stop().await;
    let file = journal_file(dir.path());
    let bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let last = frames::Frames::new(&bytes, header).map(|f| f.unwrap().offset).last().unwrap();
    fs::write(&file, &bytes[..last]).unwrap();
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Lost { journal: 53, proven: 54, .. }), "{refused}");
}

#[test]
fn a_bad_frame_before_a_later_batch_is_damage_and_before_its_own_batch_a_torn_tail() {
    let header = frames::Header { first_seq: 1, prev_crc: 0, rules: 0 };
    let segment = |batches: &[&[u64]]| {
        let mut bytes = frames::header(JOURNAL.magic, header).to_vec();
        let (mut prev, mut second) = (0, 0);
        for batch in batches {
            for (index, seq) in batch.iter().enumerate() {
                if *seq == 2 {
                    second = bytes.len();
                }
                prev = frames::push(&mut bytes, prev, index as u32, *seq, 7, &[5; 40]);
            }
        }
        bytes[second + frames::FRAME_BYTES + 3] ^= 1;
        bytes
    };
    for (batches, torn) in
        [(&[&[1u64, 2, 3][..]][..], true), (&[&[1], &[2], &[3]], false), (&[&[1], &[2, 3]], true)]
    {
        let bytes = segment(batches);
        let bad = frames::Frames::new(&bytes, header).find_map(Result::err).unwrap();
        assert_eq!(bad.seq, 2);
        assert_eq!(frames::is_torn_tail(&bytes, &bad), torn, "{batches:?}");
    }
}

#[tokio::test]
async fn a_crash_at_any_moment_loses_nothing_that_was_answered() {
    let dir = tempfile::tempdir().unwrap();
    let running = run_with(crate::sequencer::Config { snapshot_every_commands: 40, ..config(dir.path()) });
    running.list().await;
    let commands = random_commands(31, 600);
    for (n, chunk) in commands.chunks(20).enumerate() {
        let answered = running.handle.submit(chunk.to_vec()).await.unwrap();
        // The files as they are now, snapshots and outcome log in the middle of whatever they do.
        let crash = tempfile::tempdir().unwrap();
        copy_while_written(dir.path(), crash.path());
        let recovered = recovery::recover(crash.path()).unwrap();
        assert_eq!(recovered.engine.cmd_seq(), answered, "crash {n}");
        let genesis = replayed(crash.path());
        assert_eq!(genesis.hash(), recovered.engine.hash());
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

proptest! {
    #[test]
    fn any_bytes_are_a_record_or_refused(bytes: Vec<u8>) {
        if let Ok(record) = Record::decode(&bytes) {
            let mut again = Vec::new();
            record.encode(&mut again);
            prop_assert_eq!(Record::decode(&again), Ok(record));
        }
    }

    #[test]
    fn any_bytes_are_a_segment_a_snapshot_or_refused(bytes: Vec<u8>, at: prop::sample::Index, bit in 0..8u8) {
        let header = frames::Header { first_seq: 1, prev_crc: 0, rules: 0 };
        for frame in frames::Frames::new(&bytes, header).flatten() {
            prop_assert!(frame.end() <= bytes.len());
        }
        prop_assert!(snapshot::decode(&bytes).is_err());
        let _ = Engine::decode(&bytes);
        let mut cursor = Cursor { fact_no: 5, stream_created_us: 6, stream_seq: 7 }.encode();
        prop_assert_eq!(Cursor::decode(&cursor).fact_no, 5);
        let index = at.index(cursor.len());
        cursor[index] ^= 1 << bit;
        prop_assert_eq!(Cursor::decode(&cursor), Cursor::default());
    }

    #[test]
    fn a_state_with_any_bytes_changed_is_restored_or_refused(at: prop::sample::Index, byte: u8) {
        let mut records: Vec<(u64, Record)> = SYMBOLS.iter().map(|s| (0, Record::Listing(listing(s)))).collect();
        records.extend(random_records(17, 60));
        let mut bytes = Vec::new();
        in_memory(&records).encode(&mut bytes);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _ = Engine::decode(&bytes);
    }

    #[test]
    fn records_come_back_as_they_were_written(seed: u64) {
        for (_, record) in random_records(seed, 20) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
        }
    }
}
