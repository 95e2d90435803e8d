//! Key-value buckets and account information through async-nats' own code.

use crate::support::{TestBroker, soon};
use async_nats::jetstream::{self, kv};
use futures::{StreamExt, TryStreamExt};

#[tokio::test]
async fn a_bucket_keeps_history_watches_and_refuses_stale_updates() {
    let broker = TestBroker::start().await;
    let js = jetstream::new(broker.connect().await);
    let bucket =
        soon(js.create_key_value(kv::Config { bucket: "B".into(), history: 3, ..Default::default() })).await;
    let bucket = bucket.unwrap();
    let mut watch = soon(bucket.watch_all()).await.unwrap();
    for value in ["1", "2", "3", "4"] {
        soon(bucket.put("a", value.into())).await.unwrap();
    }
    assert_eq!(soon(bucket.get("a")).await.unwrap().unwrap(), "4");
    let entry = soon(bucket.entry("a")).await.unwrap().unwrap();
    assert_eq!(entry.revision, 4);
    assert!(soon(bucket.update("a", "x".into(), 3)).await.is_err());
    assert_eq!(soon(bucket.update("a", "5".into(), 4)).await.unwrap(), 5);
    assert!(soon(bucket.create("a", "x".into())).await.is_err());
    soon(bucket.create("b", "new".into())).await.unwrap();
    let history: Vec<_> = soon(soon(bucket.history("a")).await.unwrap().try_collect()).await.unwrap();
    let values: Vec<_> = history.iter().map(|entry: &kv::Entry| entry.value.clone()).collect();
    assert_eq!(values, ["3", "4", "5"]);
    soon(bucket.delete("a")).await.unwrap();
    assert_eq!(soon(bucket.get("a")).await.unwrap(), None);
    soon(bucket.purge("a")).await.unwrap();
    let keys: Vec<String> = soon(soon(bucket.keys()).await.unwrap().try_collect()).await.unwrap();
    assert_eq!(keys, ["b"]);
    let mut seen = Vec::new();
    while seen.len() < 8 {
        let entry = soon(watch.next()).await.unwrap().unwrap();
        seen.push((entry.key, entry.revision, entry.operation));
    }
    assert_eq!(seen[6], ("a".into(), 7, kv::Operation::Delete));
    assert_eq!(seen[7], ("a".into(), 8, kv::Operation::Purge));
    let status = soon(bucket.status()).await.unwrap();
    assert_eq!(status.history(), 3);
    soon(js.delete_key_value("B")).await.unwrap();
}

#[tokio::test]
async fn account_information_counts_streams_consumers_and_bytes() {
    let broker = TestBroker::start().await;
    let js = jetstream::new(broker.connect().await);
    soon(js.create_stream(jetstream::stream::Config { name: "S".into(), ..Default::default() }))
        .await
        .unwrap();
    soon(soon(js.publish("S", "x".into())).await.unwrap().into_future()).await.unwrap();
    let account = soon(js.query_account()).await.unwrap();
    assert_eq!((account.streams, account.consumers), (1, 0));
    assert!(account.storage > 0 && account.memory == 0);
}
