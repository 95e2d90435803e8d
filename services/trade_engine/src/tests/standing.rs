//! What is noted of the exchange, and what is refused because of it.

use super::{
    crash::last_file,
    support::{command, deposit, run},
};
use crate::{
    frames,
    log::{FACTS, JOURNAL},
    recovery::{self, Error},
    snapshot, standing,
    standing::Notes,
};
use fafnir_clearing::codec::RULES_VERSION;
use fafnir_platform::manifest::Manifest;
use std::{fs, path::Path, sync::Arc};

/// An exchange that was stopped in order and noted.
async fn stopped(data_dir: &Path) -> std::path::PathBuf {
    let dir = data_dir.join("exchange");
    fs::create_dir(&dir).unwrap();
    let entry = standing::claim(data_dir, &dir, 1).unwrap();
    let running = run(&dir);
    running.set_up().await;
    for n in 0..20 {
        running.execute(command(1, 7_000 + n, deposit(1, 5))).await;
    }
    let published = Arc::clone(&running.exchange.published);
    running.stop().await;
    Manifest::of(data_dir).made(standing::STORE, entry.id).unwrap();
    Notes::open(data_dir, entry.id, published).unwrap().finish().unwrap();
    dir
}

fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

fn refused(data_dir: &Path, dir: &Path) -> String {
    standing::claim(data_dir, dir, 1).unwrap_err().to_string()
}

#[tokio::test]
async fn a_journal_cut_anywhere_below_its_note_is_refused_and_left_as_it_is() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = stopped(data_dir.path()).await;
    standing::claim(data_dir.path(), &dir, 1).unwrap();
    let file = last_file(JOURNAL, &dir);
    let whole = fs::read(&file).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 29) {
        fs::write(&file, &whole[..length]).unwrap();
        let text = refused(data_dir.path(), &dir);
        assert!(text.contains("journal-"), "{length}: {text}");
        assert_eq!(fs::metadata(&file).unwrap().len(), length as u64);
    }
    // The last record is damaged: as a torn tail it would be cut off.
    let mut bad = whole.clone();
    *bad.last_mut().unwrap() ^= 1;
    fs::write(&file, &bad).unwrap();
    let text = refused(data_dir.path(), &dir);
    assert!(text.contains("the checksum does not match"), "{text}");
    fs::write(&file, &whole).unwrap();
    standing::claim(data_dir.path(), &dir, 1).unwrap();
}

#[tokio::test]
async fn a_lost_an_older_and_another_exchange_are_refused() {
    let (data_dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (dir, foreign) = (stopped(data_dir.path()).await, stopped(other.path()).await);
    let older = tempfile::tempdir().unwrap();
    copy(&dir, older.path());
    let running = run(&dir);
    running.execute(command(1, 8_000, deposit(1, 5))).await;
    let published = Arc::clone(&running.exchange.published);
    running.stop().await;
    let id = Manifest::of(data_dir.path()).stores().unwrap()[standing::STORE].id;
    Notes::open(data_dir.path(), id, published).unwrap().finish().unwrap();
    let replace = |with: &Path| {
        fs::remove_dir_all(&dir).unwrap();
        fs::create_dir(&dir).unwrap();
        copy(with, &dir);
    };
    replace(older.path());
    assert!(refused(data_dir.path(), &dir).contains("an older copy"));
    replace(&foreign);
    assert!(refused(data_dir.path(), &dir).contains("another store"));
    for name in ["all", "journal"] {
        if name == "all" {
            fs::remove_dir_all(&dir).unwrap();
        } else {
            fs::create_dir(&dir).unwrap();
            fs::write(dir.join("id"), id.to_string()).unwrap();
        }
        let text = refused(data_dir.path(), &dir);
        assert!(text.contains("is gone") && text.contains("exchange"), "{name}: {text}");
    }
}

#[tokio::test]
async fn a_look_finds_what_no_start_reads() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = stopped(data_dir.path()).await;
    standing::look(&dir).unwrap();
    let snapshot = snapshot::list(&dir).unwrap().remove(0).path;
    for file in [last_file(JOURNAL, &dir), last_file(FACTS, &dir), snapshot] {
        let whole = fs::read(&file).unwrap();
        let mut bad = whole.clone();
        bad[whole.len() / 3] ^= 2;
        fs::write(&file, bad).unwrap();
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(standing::look(&dir).unwrap_err().contains(name));
        fs::write(&file, whole).unwrap();
    }
}

#[tokio::test]
async fn a_journal_of_a_newer_program_is_refused() {
    let data_dir = tempfile::tempdir().unwrap();
    let dir = stopped(data_dir.path()).await;
    let file = last_file(JOURNAL, &dir);
    let mut bytes = fs::read(&file).unwrap();
    let header = frames::parse_header(JOURNAL.magic, &bytes).unwrap();
    let newer = frames::Header { rules: RULES_VERSION + 1, ..header };
    bytes[..frames::HEADER_BYTES].copy_from_slice(&frames::header(JOURNAL.magic, newer));
    fs::write(&file, &bytes).unwrap();
    let e = recovery::recover(&dir).unwrap_err();
    assert!(matches!(e, Error::NewerJournal { rules, .. } if rules == RULES_VERSION + 1), "{e}");
    assert_eq!(fs::read(&file).unwrap(), bytes);
}
