//! The store alone: a full disk, and flipped bits in every column.

use super::*;
use crate::core::effects::Load;
use crate::core::records::{ConsumerRecord, StreamRecord};
use bytes::Bytes;
use std::sync::Arc;

pub(in crate::server) fn message(seq: u64, payload: usize) -> StoreOp {
    let message = Message {
        seq,
        ts: seq,
        subject: "s.x".into(),
        header: Bytes::new(),
        payload: Bytes::from(vec![b'p'; payload]),
    };
    StoreOp::MessagePut {
        stream: 1,
        message: Arc::new(message),
        size: 100,
        dedupe: Some(format!("id{seq}").into()),
    }
}

pub(in crate::server) fn described() -> Vec<StoreOp> {
    let stream = StreamRecord { config: crate::core::config::StreamConfig::default(), created: 1 };
    let consumer = ConsumerRecord {
        name: "c".into(),
        config: crate::core::config::ConsumerConfig::default(),
        created: 1,
        start: 1,
        resume: 0,
    };
    vec![
        StoreOp::StreamPut { stream: 1, json: serde_json::to_string(&stream).unwrap() },
        StoreOp::ConsumerPut { stream: 1, consumer: 1, json: serde_json::to_string(&consumer).unwrap() },
    ]
}

fn delivered() -> StoreOp {
    let pending = PendingRecord { sequence: 2, consumer_seq: 2, count: 1 };
    let pair = |n| Pair { consumer: n, stream: n };
    StoreOp::Delivered { consumer: 1, delivered: pair(2), pending: Some(pending), floor: pair(1) }
}

pub(in crate::server) fn open(dir: &Path) -> Store {
    match Store::open(dir) {
        Ok(store) => store,
        Err(OpenError::InUse(pid)) => panic!("in use by {pid}"),
        Err(OpenError::Failed(reason)) => panic!("{reason}"),
    }
}

/// Lets the file grow no more.
pub(in crate::server) fn fill(store: &Store) {
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
}

#[test]
fn a_group_that_finds_no_room_changes_nothing_and_can_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&described()).unwrap();
    let pages: i64 = store.connection.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    let limit = |store: &Store, pages: i64| {
        store.connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
    };
    limit(&store, pages + 4);
    store.commit(&[message(1, 100)]).unwrap();
    let group: Vec<StoreOp> =
        (2..200).map(|seq| message(seq, 1000)).chain(std::iter::once(delivered())).collect();
    assert!(matches!(store.commit(&group), Err(CommitError::Full)));
    assert!(matches!(store.commit(&group), Err(CommitError::Full)));
    let seen = store.recover(0).unwrap();
    assert_eq!((seen.streams[0].0.last_seq, seen.streams[0].1.consumers[0].delivered.stream), (1, 0));
    limit(&store, pages + 1000);
    store.commit(&group).unwrap();
    let seen = store.recover(0).unwrap();
    assert_eq!((seen.streams[0].0.last_seq, seen.streams[0].1.consumers[0].delivered.stream), (199, 2));
}

#[test]
fn a_changed_column_of_any_row_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut ops = described();
    ops.extend((1..=3).map(|seq| message(seq, 10)));
    ops.push(delivered());
    ops.push(StoreOp::MessagesRemove {
        stream: 1,
        first: 3,
        last: 3,
        last_seq: 3,
        bytes: 100,
        replaced: false,
    });
    ops.push(StoreOp::MessagesRemove {
        stream: 1,
        first: 1,
        last: 1,
        last_seq: 3,
        bytes: u64::MAX,
        replaced: false,
    });
    store.commit(&ops).unwrap();
    let whole = |store: &mut Store| {
        let load = Load { stream: 1, from: 1, count_max: 9, bytes_max: 9999, getter: None };
        store.recover(0).map(drop).and_then(|()| store.load(&load).map(drop))
    };
    whole(&mut store).unwrap();
    for (table, columns) in [
        ("meta", &["value", "crc"][..]),
        ("streams", &["id", "record", "crc"]),
        ("last", &["seq", "crc"]),
        ("consumers", &["id", "stream", "record", "crc"]),
        (
            "positions",
            &["consumer", "delivered_consumer", "delivered_stream", "floor_consumer", "floor_stream"],
        ),
        ("pending", &["consumer", "sequence", "consumer_seq", "count", "crc"]),
        ("index_1", &["seq", "ts", "size", "subject", "body", "crc"]),
        ("body_1", &["seq", "payload"]),
        ("dedupe_1", &["seq", "ts", "id", "crc"]),
        ("removed", &["stream", "first", "last", "crc"]),
    ] {
        for column in columns {
            let changed = match *column {
                "record" => "replace(record, '\"created\":1', '\"created\":2')".to_owned(),
                "subject" | "id" if table != "streams" && table != "consumers" => format!("{column} || 'x'"),
                "payload" => "X'00'".to_owned(),
                column => format!("{column} + 100"),
            };
            store
                .connection
                .execute_batch(&format!("SAVEPOINT s; UPDATE {table} SET {column} = {changed}"))
                .unwrap();
            assert!(whole(&mut store).is_err(), "{table}.{column}");
            store.connection.execute_batch("ROLLBACK TO s; RELEASE s").unwrap();
        }
    }
    whole(&mut store).unwrap();
}

fn rows(store: &Store, table: &str) -> i64 {
    store.connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap()
}

pub(in crate::server) fn kept(store: &mut Store) -> Vec<u64> {
    let seen = store.recover(0).unwrap();
    seen.streams[0].0.index.from(0).map(|(seq, _)| seq).collect()
}

#[test]
fn what_is_removed_at_once_is_gone_at_once_and_taken_out_and_overwritten_in_parts() {
    const SECRET: &[u8] = b"somebody@example.com";
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&described()).unwrap();
    let mut ops: Vec<StoreOp> = (1..=100).map(|seq| message(seq, 1000)).collect();
    for op in &mut ops {
        if let StoreOp::MessagePut { message, .. } = op {
            *message = Arc::new(Message { payload: SECRET.repeat(50).into(), ..(**message).clone() });
        }
    }
    store.commit(&ops).unwrap();
    let removal = |first, last, bytes| StoreOp::MessagesRemove {
        stream: 1,
        first,
        last,
        last_seq: 100,
        bytes,
        replaced: false,
    };
    let most = erase::AT_ONCE_BYTES;
    store.commit(&[removal(1, 5, most / 2), removal(11, 15, most), removal(21, 90, most)]).unwrap();
    assert!(store.owes());
    let expected: Vec<u64> = (6..=10).chain(16..=20).chain(91..=100).collect();
    assert_eq!(kept(&mut store), expected);
    assert_eq!(rows(&store, "body_1"), 95, "only what is little was taken out");

    // It goes on where it was, also after a start; a message counts for 100 bytes here.
    store.erase(1000).unwrap();
    store.erase(1000).unwrap();
    assert_eq!((rows(&store, "body_1"), kept(&mut store)), (80, expected.clone()));
    drop(store);
    let mut store = open(dir.path());
    let mut parts = 0;
    while store.owes() {
        store.erase(1000).unwrap();
        parts += 1;
    }
    assert_eq!((parts, rows(&store, "body_1"), rows(&store, "index_1")), (6, 20, 20));
    assert_eq!((kept(&mut store), rows(&store, "removed")), (expected, 0));

    // The stream goes with everything in it.
    store.commit(&[StoreOp::StreamDrop { stream: 1 }]).unwrap();
    assert!(store.recover(0).unwrap().streams.is_empty());
    while store.owes() {
        store.erase(1000).unwrap();
    }
    assert_eq!(rows(&store, "sqlite_schema WHERE name IN ('index_1', 'body_1', 'dedupe_1')"), 0);
    drop(store);
    let bytes = std::fs::read(dir.path().join("broker.sqlite3")).unwrap();
    assert!(!bytes.windows(SECRET.len()).any(|bytes| bytes == SECRET), "it is still in the file");
}

#[test]
fn a_store_of_the_version_before_is_taken_up() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&described()).unwrap();
    store.commit(&[message(1, 10)]).unwrap();
    store.connection.execute_batch("DROP TABLE removed; PRAGMA user_version = 2").unwrap();
    assert_eq!(Store::open_reader(dir.path()).unwrap().recover(0).unwrap().streams.len(), 1);
    drop(store);
    let mut store = open(dir.path());
    assert_eq!((kept(&mut store), rows(&store, "removed")), (vec![1], 0));
}

#[test]
fn a_full_store_is_relieved_of_what_was_asked_for_but_not_of_what_a_waiting_message_replaces() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&described()).unwrap();
    store.commit(&(1..=100).map(|seq| message(seq, 1000)).collect::<Vec<_>>()).unwrap();
    fill(&store);
    let removal = |first, last, replaced| StoreOp::MessagesRemove {
        stream: 1,
        first,
        last,
        last_seq: 200,
        bytes: 100,
        replaced,
    };
    let mut group: Vec<StoreOp> = (101..=150).map(|seq| message(seq, 1000)).collect();
    group.extend([removal(1, 1, true), removal(10, 80, false), StoreOp::StreamDrop { stream: 2 }]);
    assert!(matches!(store.commit(&group), Err(CommitError::Full)));
    store.relieve(&group).unwrap();
    let expected: Vec<u64> = (1..=9).chain(81..=100).collect();
    assert_eq!(kept(&mut store), expected, "what the first message of the group replaces stays");
    while store.owes() {
        store.erase(erase::PART_BYTES_FULL).unwrap();
    }
    group.pop();
    store.commit(&group).unwrap();
    assert_eq!(kept(&mut store), (2..=9).chain(81..=150).collect::<Vec<u64>>());
}

#[test]
fn the_reserve_is_there_until_it_is_needed_and_comes_back() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.commit(&described()).unwrap();
    let path = dir.path().join("reserve");
    let length = std::fs::metadata(&path).unwrap().len();
    assert!(length >= 64 << 10 && store.has_reserve());
    assert!(store.make_way());
    assert!(!path.exists() && !store.has_reserve() && !store.make_way());
    store.commit(&[message(1, 10)]).unwrap();
    store.keep_reserve().unwrap();
    assert!(store.has_reserve());
    assert_eq!(std::fs::metadata(&path).unwrap().len(), length);
}

/// Prints what a commit of one message costs: `cargo test --release -p fafnir-broker --lib commit_figures -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn commit_figures() {
    let dir = tempfile::tempdir_in(".").unwrap();
    let mut store = open(dir.path());
    let mut next = 0;
    store.commit(&[StoreOp::StreamPut { stream: 1, json: "{}".into() }]).unwrap();
    for sync in ["off", "full"] {
        store.connection.pragma_update(None, "synchronous", sync).unwrap();
        let mut samples = Vec::new();
        for _ in 0..4000u64 {
            next += 1;
            let seq = next;
            let mut op = message(seq, 128);
            if let StoreOp::MessagePut { dedupe, .. } = &mut op {
                *dedupe = None;
            }
            let start = std::time::Instant::now();
            store.commit(&[op]).unwrap();
            samples.push(start.elapsed());
        }
        samples.sort();
        println!("{sync}: p50 {:?}, p99 {:?}", samples[2000], samples[3960]);
    }
}
