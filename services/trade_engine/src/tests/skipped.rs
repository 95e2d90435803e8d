//! A record that breaks each start: the start names it, and it alone is passed over, by an operator's word.

use super::support::*;
use crate::{
    log::JOURNAL,
    recovery::{self, Error},
    seglog::SegLog,
    skipped::{self, Refused},
    snapshot,
};
use fafnir_clearing::codec::put_i64;
use fafnir_proto::v1::Side;
use std::{fs, path::Path};

/// A stopped exchange with an order that rests, in whose snapshot the account holds nothing for it: whatever ends that
/// order breaks an invariant. Answers the last command.
async fn with_an_order_that_cannot_end(dir: &Path) -> u64 {
    let running = run(dir);
    running.set_up().await;
    done(running.execute(command(1, 1, limit(1, "AAPL", Side::Buy, 7, 9_900))).await);
    let (posted, held) = running
        .exchange
        .engine
        .query(|state| {
            let cash = state.account(account_id(1)).unwrap().cash;
            (cash.posted, cash.held)
        })
        .await
        .unwrap();
    running.stop().await;
    let newest = snapshot::list(dir).unwrap().remove(0);
    let mut state = Vec::new();
    snapshot::decode(&fs::read(&newest.path).unwrap()).unwrap().state.encode(&mut state);
    let cash = |held| {
        let mut bytes = Vec::new();
        put_i64(&mut bytes, posted);
        put_i64(&mut bytes, held);
        bytes
    };
    let (is, none) = (cash(held), cash(0));
    let places: Vec<usize> = (0..state.len()).filter(|at| state[*at..].starts_with(&is)).collect();
    assert!(held > 0 && places.len() == 1, "{places:?}");
    drop(state.splice(places[0]..places[0] + is.len(), none));
    snapshot::write(dir, newest.seq, &state).unwrap();
    newest.seq
}

#[tokio::test]
async fn a_record_that_breaks_each_start_is_passed_over_by_name_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let last = with_an_order_that_cannot_end(dir.path()).await;
    let running = run(dir.path());
    assert_eq!(running.base, last);
    // The core's thread ends at it: nobody is answered.
    assert!(running.exchange.execute(&command(1, 2, cancel(1))).await.is_err());
    running.stop().await;
    let broken = last + 1;
    for _ in 0..2 {
        let refused = recovery::recover(dir.path()).unwrap_err();
        assert!(matches!(refused, Error::Breaks { seq, .. } if seq == broken), "{refused}");
        assert!(refused.to_string().contains(&format!("fafnir journal skip {broken}")), "{refused}");
    }
    assert!(matches!(skipped::skip(dir.path(), broken + 1), Err(Refused::Journal(Error::Breaks { .. }))));
    let passed = skipped::skip(dir.path(), broken).unwrap();
    assert!(passed.why.contains("invariant") && passed.command.is_some(), "{passed:?}");
    assert!(matches!(skipped::skip(dir.path(), broken), Err(Refused::Already(_))));

    let running = run(dir.path());
    let status = running.exchange.status().await.unwrap();
    assert_eq!((status.journal_seq, status.open_orders, status.skipped), (broken, 1, vec![broken]));
    done(running.execute(command(2, 3, deposit(2, 5))).await);
    let now = running.hash().await;
    running.stop().await;
    // What can be stepped is not passed over; the manifest stays.
    assert!(matches!(skipped::skip(dir.path(), broken + 1), Err(Refused::Sound(_))));
    assert!(
        matches!(skipped::skip(dir.path(), broken + 2), Err(Refused::Beyond { last, .. }) if last == broken + 1)
    );
    let again = run(dir.path());
    assert_eq!((again.hash().await, again.exchange.published.skipped()), (now, vec![broken]));
    again.stop().await;
}

#[tokio::test]
async fn what_nobody_can_read_is_passed_over_and_another_record_under_its_number_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let running = run(dir.path());
    running.set_up().await;
    running.stop().await;
    let (mut journal, _) = SegLog::open(JOURNAL, dir.path(), 1).unwrap();
    let broken = journal.push(START_US + 1_000_000, b"\xff of another program");
    journal.flush(true).unwrap();
    drop(journal);
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(matches!(refused, Error::Record { seq, .. } if seq == broken), "{refused}");
    assert!(skipped::skip(dir.path(), broken).unwrap().command.is_none());
    let running = run(dir.path());
    done(running.execute(command(1, 9, deposit(1, 5))).await);
    running.stop().await;

    let file = dir.path().join("skipped");
    let text = fs::read_to_string(&file).unwrap();
    for snapshot in snapshot::list(dir.path()).unwrap() {
        fs::remove_file(snapshot.path).unwrap();
    }
    fs::write(&file, text.replace(&text[text.len() - 5..], "0000\n")).unwrap();
    let refused = recovery::recover(dir.path()).unwrap_err();
    assert!(refused.to_string().contains("names another record"), "{refused}");
    fs::write(&file, "seven\n").unwrap();
    assert!(matches!(recovery::recover(dir.path()).unwrap_err(), Error::Io { .. }));
    fs::write(&file, &text).unwrap();
    assert_eq!(recovery::recover(dir.path()).unwrap().state.seq(), broken + 1);
}
