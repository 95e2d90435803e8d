//! The writer alone: on a full disk, and on the core's thread.

use super::*;
use crate::server::store::tests::{described, fill, kept, message, open};

#[test]
fn a_purge_gets_through_while_messages_before_it_find_no_room() {
    const PATIENCE: Duration = Duration::from_secs(20);
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&described()).unwrap();
    store.commit(&(1..=100).map(|seq| message(seq, 1000)).collect::<Vec<_>>()).unwrap();
    fill(&store);
    let (stored, mut reports) = mpsc::unbounded_channel();
    let (batches, receiver) = blocking::channel();
    let writer = Mutex::new(Writer::new(store, stored, 0));
    let writing = std::thread::spawn(move || run(&writer, &receiver));
    let until = Instant::now() + PATIENCE;
    let mut next = || loop {
        assert!(Instant::now() < until, "nothing is told");
        if let Ok(report) = reports.try_recv() {
            return report;
        }
        std::thread::yield_now();
    };
    let puts = (101..=160).map(|seq| message(seq, 1000)).collect();
    batches.send(Batch { ops: puts, upto: 60, urgent: true }).unwrap();
    assert!(matches!(next(), Stored::Room(false)));
    let (first, last, last_seq) = (1, 100, 160);
    let purge = StoreOp::MessagesRemove { stream: 1, first, last, last_seq, bytes: 1 << 30, replaced: false };
    batches.send(Batch { ops: vec![purge], upto: 61, urgent: true }).unwrap();
    loop {
        match next() {
            Stored::Durable(upto) => {
                assert_eq!(upto, 61);
                break;
            }
            Stored::Room(_) => {}
            Stored::Loaded { .. } => panic!("nothing was asked for"),
            Stored::Failed(reason) => panic!("{reason}"),
        }
    }
    drop(batches);
    writing.join().unwrap();
    assert_eq!(kept(&mut open(dir.path())), (101..=160).collect::<Vec<u64>>());
}

#[test]
fn the_core_writes_where_that_is_short_and_wakes_the_thread_for_what_follows() {
    let (dir, notes) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let note = Some((notes.path().join("note"), [1; 16]));
    let mut store = Store::open_noted(dir.path(), note).unwrap_or_else(|_| panic!("it opens"));
    store.commit(&described()).unwrap();
    store.mark_if_due(true);
    let (stored, _reports) = mpsc::unbounded_channel();
    let mut writer = Writer::new(store, stored, 0);
    assert_eq!(writer.rest(), None, "the thread sleeps");
    assert!(!writer.write_alone(&[message(1, 10)]), "a commit may be long");
    writer.commit_takes = Duration::ZERO;
    assert!(writer.write_alone(&[message(1, 10)]));
    assert!(writer.wakes(), "a mark is due");
    assert!(!writer.wakes(), "once");
    writer.commit_takes = Duration::ZERO;
    writer.long = true;
    assert!(!writer.write_alone(&[message(2, 10)]), "the thread has something to do");
    writer.long = false;
    // After a failure nothing is written by anybody: what came before it would be missing.
    writer.failed = Some("broken".into());
    assert!(!writer.write_alone(&[message(2, 10)]));
    assert!(
        matches!(writer.commit(&[message(2, 10)]), Err(CommitError::Failed(reason)) if reason == "broken")
    );
    drop(writer);
    assert_eq!(kept(&mut open(dir.path())), [1]);
}
