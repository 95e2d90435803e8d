//! The store alone: a full disk, and flipped bits in every column.

use super::*;
use crate::core::effects::Load;
use crate::core::records::{ConsumerRecord, StreamRecord};
use bytes::Bytes;
use std::sync::Arc;

fn message(seq: u64, payload: usize) -> StoreOp {
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

fn described() -> Vec<StoreOp> {
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

fn open(dir: &Path) -> Store {
    match Store::open(dir) {
        Ok(store) => store,
        Err(OpenError::InUse(pid)) => panic!("in use by {pid}"),
        Err(OpenError::Failed(reason)) => panic!("{reason}"),
    }
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
    ops.push(StoreOp::MessagesRemove { stream: 1, first: 3, last: 3, last_seq: 3 });
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
