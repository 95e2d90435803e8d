//! The story of a database, the same on SQLite and on Postgres.

use super::*;
use crate::params;
use crate::{Clock, Refusal, error::Error as PlatformError, tasks::Tasks};
use fafnir_proto::{deadline, reason::Reason};
use fafnir_testing::{self as testing, DEADLINE};
use futures::future::join_all;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const SCHEMA: &[Migration] = &[Migration {
    name: "0001_init",
    sql: "-- A comment; with a semicolon.\n\
          CREATE TABLE accounts (\n  id INTEGER PRIMARY KEY,\n  owner TEXT NOT NULL,\n  label TEXT NOT NULL,\n  \
          balance INTEGER NOT NULL,\n  note TEXT,\n  image BLOB,\n  UNIQUE (owner, label),\n  \
          CONSTRAINT never_negative CHECK (balance >= 0)\n) STRICT;\n\
          CREATE UNIQUE INDEX accounts_by_note ON accounts (note) WHERE note IS NOT NULL;\n\
          CREATE TABLE entries (\n  account_id INTEGER NOT NULL REFERENCES accounts (id),\n  seq INTEGER NOT NULL,\n  \
          amount INTEGER NOT NULL,\n  PRIMARY KEY (account_id, seq)\n) STRICT;\n\
          CREATE TABLE numbered (\n  id INTEGER PRIMARY KEY,\n  text TEXT NOT NULL\n) STRICT;\n",
}];

/// Where a database lives, so that it can be opened again.
enum Place {
    Sqlite(TempDir),
    Postgres { url: String, name: String },
}

impl Place {
    async fn open(&self, migrations: &'static [Migration]) -> (Db, Tasks) {
        let tasks = Tasks::new(CancellationToken::new());
        let db = match self {
            Self::Sqlite(dir) => {
                let path = dir.path().join("db").join("test.sqlite");
                Db::open_sqlite(path, "test", migrations, &tasks, &Clock::wall()).await
            }
            Self::Postgres { url, name } => Db::open_postgres(url, name, migrations, &Clock::wall()).await,
        };
        (db.unwrap(), tasks)
    }

    /// Drops a database on the server; a directory goes by itself.
    async fn remove(self) {
        if let Self::Postgres { url, name } = self {
            testing::drop_databases(&url, &name).await;
        }
    }
}

fn sqlite() -> Place {
    Place::Sqlite(tempfile::tempdir().unwrap())
}

fn postgres() -> Option<Place> {
    let url = testing::external("FAFNIR_TEST_POSTGRES_URL")?;
    let random = uuid::Uuid::new_v4().simple().to_string();
    Some(Place::Postgres { url, name: postgres_name(&format!("test_{random}_"), "story-service") })
}

macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod on_sqlite { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $story() { super::$story(super::sqlite()).await; }
        )* }
        mod on_postgres { $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $story() {
                if let Some(place) = super::postgres() { super::$story(place).await; }
            }
        )* }
    };
}
on_both!(
    a_copy_is_never_older_than_the_last_write,
    what_is_committed_is_there_after_reopening,
    what_fails_leaves_nothing,
    a_constraint_names_its_columns,
    concurrent_increments_are_all_counted,
    of_a_thousand_buyers_of_the_last_unit_one_succeeds,
    every_value_comes_back,
    a_changed_migration_is_refused,
);

async fn open_account(db: &Db, id: i64, owner: &'static str, balance: i64) -> error::Result<u64> {
    db.write(move |tx| {
        Ok(tx.execute(
            "INSERT INTO accounts (id, owner, label, balance) VALUES (?1, ?2, 'main', ?3)",
            params![id, owner, balance],
        )?)
    })
    .await
}

async fn balance(db: &Db, id: i64) -> Option<i64> {
    db.read(move |tx| {
        let row = tx.query_opt("SELECT balance FROM accounts WHERE id = ?1", params![id])?;
        Ok(row.map(|r| r.get(0)).transpose()?)
    })
    .await
    .unwrap()
}

fn db_error<T: std::fmt::Debug>(result: error::Result<T>) -> Error {
    match result.unwrap_err() {
        PlatformError::Db(e) => e,
        other => panic!("{other:?}"),
    }
}

async fn what_is_committed_is_there_after_reopening(place: Place) {
    let (db, tasks) = place.open(SCHEMA).await;
    assert_eq!(open_account(&db, 1, "ada", 10).await.unwrap(), 1);
    // RETURNING, ON CONFLICT and a parameter used twice.
    let returned = db
        .write(|tx| {
            let row = tx.query_one(
                "INSERT INTO accounts (id, owner, label, balance) VALUES (?1, 'ada', 'main', ?2) \
                 ON CONFLICT (owner, label) DO UPDATE SET balance = accounts.balance + excluded.balance + ?2 \
                 RETURNING id, balance",
                params![2, 5],
            )?;
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?))
        })
        .await
        .unwrap();
    assert_eq!(returned, (1, 20));
    tasks.shutdown().cancel();
    drop(db);
    let (db, tasks) = place.open(SCHEMA).await;
    assert_eq!(balance(&db, 1).await, Some(20));
    tasks.shutdown().cancel();
    drop(db);
    place.remove().await;
}

async fn a_copy_is_never_older_than_the_last_write(place: Place) {
    let (db, tasks) = place.open(SCHEMA).await;
    let copies = Copies::new(db.clone(), 10);
    let reads = Arc::new(AtomicU32::new(0));
    let ask = async |id: i64| {
        let reads = Arc::clone(&reads);
        let work = move |tx: &mut dyn Tx| {
            reads.fetch_add(1, Ordering::Relaxed);
            let row = tx.query_opt("SELECT balance FROM accounts WHERE id = ?1", params![id])?;
            Ok(row.map(|r| r.get::<i64>(0)).transpose()?)
        };
        copies.read(id, work).await.unwrap()
    };
    assert_eq!(ask(1).await, None);
    for balance in 1..20 {
        if balance == 1 {
            open_account(&db, 1, "a", 1).await.unwrap();
        } else {
            db.write(|tx| {
                tx.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 1", &[])?;
                Ok(())
            })
            .await
            .unwrap();
        }
        assert_eq!((ask(1).await, ask(2).await, ask(1).await), (Some(balance), None, Some(balance)));
    }
    let kept = matches!(place, Place::Sqlite(_));
    assert_eq!(reads.load(Ordering::Relaxed), if kept { 1 + 19 * 2 } else { 1 + 19 * 3 });
    tasks.shutdown().cancel();
    drop((copies, db));
    place.remove().await;
}

async fn what_fails_leaves_nothing(place: Place) {
    let (db, tasks) = place.open(SCHEMA).await;
    open_account(&db, 1, "ada", 10).await.unwrap();
    let refused: error::Result<()> = db
        .write(|tx| {
            tx.execute("UPDATE accounts SET balance = 0 WHERE id = 1", &[])?;
            Err(Refusal::precondition(Reason::OVERLOADED, "no").into())
        })
        .await;
    assert!(matches!(refused, Err(PlatformError::Refused(_))));
    assert_eq!(balance(&db, 1).await, Some(10));

    // A closure that swallows a failed statement does not commit either.
    let swallowed = db
        .write(|tx| {
            tx.execute("UPDATE accounts SET balance = 1 WHERE id = 1", &[])?;
            let _ignored = tx.execute("UPDATE accounts SET balance = -1 WHERE id = 1", &[]);
            let after = tx.execute("UPDATE accounts SET balance = 2 WHERE id = 1", &[]);
            assert!(after.is_err(), "nothing more is possible");
            Ok(())
        })
        .await;
    assert!(matches!(db_error(swallowed), Error::Constraint(name) if name == "never_negative"));
    assert_eq!(balance(&db, 1).await, Some(10));

    // One that panics neither, and the next one finds everything in order.
    let panicked: error::Result<()> = db
        .write(|tx| {
            tx.execute("UPDATE accounts SET balance = 3 WHERE id = 1", &[])?;
            panic!("a defect in a store");
        })
        .await;
    assert!(matches!(panicked, Err(PlatformError::Internal(_))));
    let wrong = db.write(|tx| Ok(tx.execute("UPDATE nothing SET x = 1", &[])?)).await;
    assert!(matches!(db_error(wrong), Error::Statement(_)));
    assert_eq!(balance(&db, 1).await, Some(10));
    // Callers that fail and callers that succeed side by side share a commit, not a fate.
    let sides =
        join_all((0..20).map(|i| open_account(&db, 100 + i / 2, ["x", "y"][i as usize % 2], 1))).await;
    assert_eq!(sides.iter().filter(|r| r.is_ok()).count(), 2, "{sides:?}");
    // A read cannot write.
    let wrote = db.read(|tx| Ok(tx.execute("UPDATE accounts SET balance = 4 WHERE id = 1", &[])?)).await;
    assert!(wrote.is_err());
    assert_eq!(balance(&db, 1).await, Some(10));
    tasks.shutdown().cancel();
    drop(db);
    place.remove().await;
}

async fn a_constraint_names_its_columns(place: Place) {
    let (db, tasks) = place.open(SCHEMA).await;
    open_account(&db, 1, "ada", 10).await.unwrap();
    for (sql, expected) in [
        ("INSERT INTO accounts (id, owner, label, balance) VALUES (1, 'b', 'b', 0)", "accounts.id"),
        (
            "INSERT INTO accounts (id, owner, label, balance) VALUES (2, 'ada', 'main', 0)",
            "accounts.owner, accounts.label",
        ),
        ("INSERT INTO accounts (id, owner, label, balance) VALUES (3, 'c', 'c', -1)", "never_negative"),
        ("INSERT INTO accounts (id, owner, label, balance) VALUES (4, NULL, 'c', 1)", "accounts.owner"),
        ("INSERT INTO entries (account_id, seq, amount) VALUES (99, 1, 1)", "FOREIGN KEY constraint failed"),
    ] {
        let refused = db.write(move |tx| Ok(tx.execute(sql, &[])?)).await;
        match db_error(refused) {
            Error::Constraint(name) => assert_eq!(name, expected, "{sql}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let twice = db
        .write(|tx| {
            for seq in [1, 1] {
                tx.execute("INSERT INTO entries (account_id, seq, amount) VALUES (1, ?1, 1)", params![seq])?;
            }
            Ok(())
        })
        .await;
    assert!(matches!(db_error(twice), Error::Constraint(name) if name == "entries.account_id, entries.seq"));
    let noted = db
        .write(|tx| {
            for (id, owner) in [(10, "d"), (11, "e")] {
                tx.execute(
                    "INSERT INTO accounts (id, owner, label, balance, note) VALUES (?1, ?2, 'x', 0, 'same')",
                    params![id, owner],
                )?;
            }
            Ok(())
        })
        .await;
    assert!(matches!(db_error(noted), Error::Constraint(name) if name == "accounts.note"));
    tasks.shutdown().cancel();
    drop(db);
    place.remove().await;
}

async fn concurrent_increments_are_all_counted(place: Place) {
    const WRITERS: i64 = 200;
    let (db, tasks) = place.open(SCHEMA).await;
    open_account(&db, 1, "ada", 0).await.unwrap();
    let runs = Arc::new(AtomicU32::new(0));
    let writers = (0..WRITERS).map(|i| {
        let (db, runs) = (db.clone(), Arc::clone(&runs));
        tokio::spawn(async move {
            db.write(move |tx| {
                runs.fetch_add(1, Ordering::Relaxed);
                // Read, think, write: what meets must be run again.
                let row = tx.query_one("SELECT balance FROM accounts WHERE id = 1", &[])?;
                let next = row.get::<i64>(0)? + 1;
                tx.execute("UPDATE accounts SET balance = ?1 WHERE id = 1", params![next])?;
                tx.execute(
                    "INSERT INTO entries (account_id, seq, amount) VALUES (1, ?1, ?2)",
                    params![next, i],
                )?;
                outbox_like(tx, &format!("entry {i}"))
            })
            .await
        })
    });
    for result in tokio::time::timeout(DEADLINE * 3, join_all(writers)).await.expect("in time") {
        result.unwrap().unwrap();
    }
    assert_eq!(balance(&db, 1).await, Some(WRITERS));
    let counted = db
        .read(|tx| {
            let row = tx.query_one(
                "SELECT COUNT(*), CAST(SUM(amount) AS BIGINT), MAX(seq), (SELECT COUNT(*) FROM numbered) FROM entries",
                &[],
            )?;
            Ok((row.get::<i64>(0)?, row.get::<i64>(1)?, row.get::<i64>(2)?, row.get::<i64>(3)?))
        })
        .await
        .unwrap();
    assert_eq!(counted, (WRITERS, WRITERS * (WRITERS - 1) / 2, WRITERS, WRITERS));
    assert!(runs.load(Ordering::Relaxed) >= WRITERS as u32);
    tasks.shutdown().cancel();
    drop(db);
    place.remove().await;
}

/// A row whose number the database chooses, as in the outbox.
fn outbox_like(tx: &mut dyn Tx, text: &str) -> error::Result<()> {
    tx.execute("INSERT INTO numbered (text) VALUES (?1)", params![text])?;
    Ok(())
}

async fn of_a_thousand_buyers_of_the_last_unit_one_succeeds(place: Place) {
    const BUYERS: usize = 1000;
    let (db, tasks) = place.open(SCHEMA).await;
    open_account(&db, 1, "ada", 1).await.unwrap();
    let buyers = (0..BUYERS).map(|_| {
        let db = db.clone();
        tokio::spawn(async move {
            db.write(|tx| {
                let left: i64 = tx.query_one("SELECT balance FROM accounts WHERE id = 1", &[])?.get(0)?;
                if left < 1 {
                    return Err(Refusal::precondition(Reason::WATCHLIST_FULL, "nothing is left").into());
                }
                tx.execute("UPDATE accounts SET balance = ?1 WHERE id = 1", params![left - 1])?;
                Ok(())
            })
            .await
        })
    });
    let results = tokio::time::timeout(DEADLINE * 3, join_all(buyers)).await.expect("in time");
    let bought = results.iter().filter(|r| r.as_ref().unwrap().is_ok()).count();
    let sold_out = results
        .iter()
        .filter(|r| matches!(r.as_ref().unwrap(), Err(PlatformError::Refused(r)) if r.reason == Reason::WATCHLIST_FULL))
        .count();
    assert_eq!((bought, sold_out), (1, BUYERS - 1));
    assert_eq!(balance(&db, 1).await, Some(0));
    tasks.shutdown().cancel();
    drop(db);
    place.remove().await;
}

async fn every_value_comes_back(place: Place) {
    let (db, tasks) = place.open(SCHEMA).await;
    for (id, text, blob) in [
        (i64::MAX, "it's; -- ?1 $1 \"q\"", vec![0u8, 255, 1]),
        (i64::MIN, "é🦀\t\n", Vec::new()),
        (0, "", vec![7; 100_000]),
    ] {
        let (sent, image) = (text.to_owned(), blob.clone());
        db.write(move |tx| {
            tx.execute(
                "INSERT INTO accounts (id, owner, label, balance, note, image) VALUES (?1, ?2, '?1', 0, ?3, ?4)",
                params![id, &sent, None::<String>, image.clone()],
            )?;
            Ok(())
        })
        .await
        .unwrap();
        let row = db
            .read(move |tx| {
                Ok(tx.query_one(
                    "SELECT id, owner, label, note, image, EXISTS (SELECT 1 FROM entries), \
                     CASE WHEN id > 0 THEN 1 ELSE 0 END, COUNT(*) OVER () FROM accounts WHERE id = ?1 LIMIT ?2",
                    params![id, 1],
                )?)
            })
            .await
            .unwrap();
        let expected = [
            Value::Int(id),
            Value::from(text),
            Value::from("?1"),
            Value::Null,
            Value::Blob(blob),
            Value::Int(0),
            Value::Int(i64::from(id > 0)),
            Value::Int(1),
        ];
        assert_eq!(row.0, expected);
    }
    tasks.shutdown().cancel();
    drop(db);
    place.remove().await;
}

async fn a_changed_migration_is_refused(place: Place) {
    const CHANGED: &[Migration] =
        &[Migration { name: "0001_init", sql: "CREATE TABLE other (id INTEGER) STRICT;\n" }];
    let (db, tasks) = place.open(SCHEMA).await;
    tasks.shutdown().cancel();
    drop(db);
    let tasks = Tasks::new(CancellationToken::new());
    let opened = match &place {
        Place::Sqlite(dir) => {
            let path = dir.path().join("db").join("test.sqlite");
            Db::open_sqlite(path, "test", CHANGED, &tasks, &Clock::wall()).await
        }
        Place::Postgres { url, name } => Db::open_postgres(url, name, CHANGED, &Clock::wall()).await,
    };
    assert!(opened.unwrap_err().to_string().contains("was changed after it was applied"));
    tasks.shutdown().cancel();
    place.remove().await;
}

#[test]
fn the_database_of_a_service_has_the_name_of_the_contract() {
    for (service, name) in [
        ("auth-service", "auth_db"),
        ("security-service", "security_db"),
        ("user-service", "user_db"),
        ("stock-service", "stock_db"),
        ("order-service", "order_db"),
        ("portfolio-service", "portfolio_db"),
    ] {
        assert_eq!(postgres_name("", service), name);
    }
    assert_eq!(postgres_name("a1_", "auth-service"), "a1_auth_db");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_not_meant_is_one_clear_line() {
    for (url, name, expected) in [
        ("postgres://u:secret@127.0.0.1:notaport/", "x_db", "database.url"),
        ("postgres://u:secret@127.0.0.1:1/", "x\"; DROP", "database.prefix"),
    ] {
        let error = Db::open_postgres(url, name, &[], &Clock::wall()).await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("secret") && !error.contains('\n'), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_a_statement_waits_no_longer_than_whoever_waits_for_them() {
    let Some(place) = postgres() else { return };
    let (db, _) = place.open(SCHEMA).await;
    let sleep = |tx: &mut dyn Tx| tx.query("SELECT 1 FROM pg_sleep(60)", &[]).map(drop).map_err(Into::into);
    // More than there are connections: the last ones wait for one.
    let asking = (0..12).map(|i| {
        let db = db.clone();
        let asked = async move { if i % 2 == 0 { db.read(sleep).await } else { db.write(sleep).await } };
        tokio::time::timeout(DEADLINE / 4, deadline::within(Duration::from_secs(1), asked))
    });
    for answer in join_all(asking).await {
        let error = answer.expect("it gives up by itself, and long before the server would").unwrap_err();
        assert!(error.is_transient(), "{error}");
    }
    // The connections are free again, and the server works for nobody.
    let sleeping = |tx: &mut dyn Tx| {
        let sql = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'active' \
                   AND query LIKE '%pg_sleep(60)%' AND pid <> pg_backend_pid()";
        Ok(tx.query_one(sql, &[])?.get::<i64>(0)?)
    };
    let nobody = async { while db.read(sleeping).await.unwrap() > 0 {} };
    tokio::time::timeout(DEADLINE / 4, nobody).await.expect("in time");
    drop(db);
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_process_has_the_lead_on_a_database_until_it_goes() {
    let Some(place) = postgres() else { return };
    let ((one, _), (two, _)) = (place.open(SCHEMA).await, place.open(SCHEMA).await);
    assert!(one.lead().await.unwrap());
    assert!(one.lead().await.unwrap(), "it keeps it");
    assert!(!two.lead().await.unwrap());
    one.resign().await;
    let gains = async |db: &Db| {
        // The server hears of the end of a connection a moment later.
        while !db.lead().await.unwrap() {}
    };
    tokio::time::timeout(DEADLINE, gains(&two)).await.expect("in time");
    assert!(!one.lead().await.unwrap());
    drop(two);
    tokio::time::timeout(DEADLINE, gains(&one)).await.expect("in time");
    drop(one);
    place.remove().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_somebody_else_writes_is_busy_and_nothing_ends() {
    let place = sqlite();
    let (db, tasks) = place.open(SCHEMA).await;
    let Place::Sqlite(dir) = &place else { unreachable!() };
    let other = rusqlite::Connection::open(dir.path().join("db").join("test.sqlite")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(matches!(db_error(open_account(&db, 1, "ada", 10).await), Error::Busy(_)));
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(open_account(&db, 1, "ada", 10).await.unwrap(), 1);
    assert!(!tasks.shutdown().is_cancelled());
}
