//! Databases that were damaged, cut short, lost or exchanged while nobody looked.

use super::*;
use crate::{Clock, Settings, params, tasks::Tasks};
use std::{fs, path::PathBuf};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const SCHEMA: &[Migration] = &[Migration {
    name: "0001_init",
    sql: "CREATE TABLE t (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT;\n",
}];
const NEWER: &[Migration] =
    &[SCHEMA[0], Migration { name: "0002_more", sql: "CREATE TABLE u (a TEXT) STRICT;\n" }];
const ROWS: i64 = 40;

/// A data directory with a database in it.
struct Stack {
    dir: TempDir,
    settings: Settings,
}

impl Stack {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings { data_dir: dir.path().to_str().unwrap().to_owned(), ..Settings::default() };
        Self { dir, settings }
    }

    fn file(&self, end: &str) -> PathBuf {
        self.dir.path().join("db").join(format!("test.sqlite{end}"))
    }

    async fn open(&self) -> Result<(Db, Tasks), Error> {
        self.open_as(SCHEMA, false).await
    }

    async fn open_as(
        &self,
        migrations: &'static [Migration],
        projection: bool,
    ) -> Result<(Db, Tasks), Error> {
        let tasks = Tasks::new(CancellationToken::new());
        let db = if projection {
            Db::open_projection(&self.settings, "test", migrations, &tasks, &Clock::wall()).await?
        } else {
            Db::open(&self.settings, "test", migrations, &tasks, &Clock::wall()).await?
        };
        Ok((db, tasks))
    }

    /// A database with rows, each a commit of its own, stopped in order.
    async fn filled(projection: bool) -> Self {
        let this = Self::new();
        let (db, tasks) = this.open_as(SCHEMA, projection).await.unwrap();
        fill(&db).await;
        stop(db, tasks).await;
        this
    }

    async fn refusal(&self) -> String {
        match self.open().await {
            Ok(_) => panic!("it was opened"),
            Err(e) => e.to_string(),
        }
    }
}

async fn fill(db: &Db) {
    for id in 0..ROWS {
        db.write(move |tx| {
            Ok(tx.execute("INSERT INTO t (id, text) VALUES (?1, ?2)", params![id, "x".repeat(3000)])?)
        })
        .await
        .unwrap();
    }
}

async fn stop(db: Db, tasks: Tasks) {
    tasks.shutdown().cancel();
    assert!(tasks.drain().await);
    drop(db);
}

async fn rows(db: &Db) -> i64 {
    db.read(|tx| Ok(tx.query_one("SELECT COUNT(*) FROM t", &[])?.get(0)?)).await.unwrap()
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn damage_in_the_middle_of_a_log_refuses_and_names_file_and_offset() {
    let stack = Stack::filled(false).await;
    let log = stack.file("-wal");
    let third = 32 + 2 * (24 + 4096);
    flip(&log, third + 24 + 100);
    let text = stack.refusal().await;
    assert!(text.contains("test.sqlite-wal") && text.contains(&format!("offset {third}")), "{text}");
    flip(&log, third + 24 + 100);
    let (db, _tasks) = stack.open().await.unwrap();
    assert_eq!(rows(&db).await, ROWS);
}

#[tokio::test]
async fn a_log_cut_short_below_its_note_refuses_wherever_it_ends() {
    let stack = Stack::filled(false).await;
    let log = stack.file("-wal");
    let whole = fs::read(&log).unwrap();
    let database = fs::read(stack.file("")).unwrap();
    for end in (0..whole.len()).step_by(whole.len() / 23) {
        fs::write(&log, &whole[..end]).unwrap();
        fs::write(stack.file(""), &database).unwrap();
        let text = stack.refusal().await;
        assert!(text.contains("test.sqlite"), "{end}: {text}");
    }
    fs::remove_file(&log).unwrap();
    assert!(stack.refusal().await.contains("test.sqlite"));
    fs::write(&log, &whole).unwrap();
    assert_eq!(rows(&stack.open().await.unwrap().0).await, ROWS);
}

#[tokio::test]
async fn a_projection_is_cut_where_it_is_damaged_because_the_facts_come_again() {
    let stack = Stack::filled(true).await;
    flip(&stack.file("-wal"), 32 + 9 * (24 + 4096) + 300);
    let (db, tasks) = stack.open_as(SCHEMA, true).await.unwrap();
    let left = rows(&db).await;
    assert!(left < ROWS, "{left}");
    stop(db, tasks).await;
    // A lost one is begun anew.
    for end in ["", "-wal", "-shm", "-sums"] {
        let _may_be_missing = fs::remove_file(stack.file(end));
    }
    let (db, _tasks) = stack.open_as(SCHEMA, true).await.unwrap();
    assert_eq!(rows(&db).await, 0);
}

#[tokio::test]
async fn a_lost_an_exchanged_and_an_older_database_are_refused() {
    let (stack, other) = (Stack::filled(false).await, Stack::filled(false).await);
    let keep = |stack: &Stack| {
        ["", "-wal", "-sums"].map(|end| (stack.file(end), fs::read(stack.file(end)).unwrap()))
    };
    let put =
        |kept: &[(PathBuf, Vec<u8>)]| kept.iter().for_each(|(path, bytes)| fs::write(path, bytes).unwrap());
    let older = keep(&stack);
    let (db, tasks) = stack.open().await.unwrap();
    db.write(|tx| Ok(tx.execute("DELETE FROM t WHERE id > 3", &[])?)).await.unwrap();
    stop(db, tasks).await;
    let newer = keep(&stack);
    put(&older);
    assert!(stack.refusal().await.contains("an older copy"));
    for (place, (_, bytes)) in keep(&other).into_iter().enumerate() {
        fs::write(&older[place].0, bytes).unwrap();
    }
    assert!(stack.refusal().await.contains("another store"));
    for (path, _) in &older {
        fs::remove_file(path).unwrap();
    }
    assert!(stack.refusal().await.contains("is gone"));
    put(&newer);
    assert_eq!(rows(&stack.open().await.unwrap().0).await, 4);
    fs::remove_file(stack.dir.path().join(crate::manifest::FILE)).unwrap();
    assert!(stack.refusal().await.contains("does not name it"));
}

#[tokio::test]
async fn every_flip_in_the_file_is_found_and_makes_it_read_only() {
    let stack = Stack::new();
    let (db, tasks) = stack.open().await.unwrap();
    // Enough for checkpoints.
    for _ in 0..20 {
        db.write(|tx| Ok(tx.execute("DELETE FROM t", &[])?)).await.unwrap();
        fill(&db).await;
    }
    db.look().await.unwrap();
    let file = stack.file("");
    let bytes = fs::metadata(&file).unwrap().len() as usize;
    assert!(bytes > 10 * 4096, "no checkpoint: {bytes}");
    for at in (0..bytes).step_by(bytes / 31) {
        flip(&file, at);
        let found = db.look().await.unwrap_err();
        assert!(found.contains(&format!("page {}", at / 4096 + 1)), "{at}: {found}");
        flip(&file, at);
        db.look().await.unwrap();
    }
    let health = Health::default();
    health.started();
    db.found_damaged("test", &health, "page 3 is not what was written there");
    assert!(health.ready().unwrap_err().contains("page 3"));
    let refused = db.write(|tx| Ok(tx.execute("DELETE FROM t", &[])?)).await.unwrap_err();
    assert!(refused.to_string().contains("page 3"), "{refused}");
    assert_eq!(rows(&db).await, ROWS);
    stop(db, tasks).await;
}

#[tokio::test]
async fn a_file_cut_short_refuses_and_another_program_is_told() {
    let stack = Stack::new();
    let (db, tasks) = stack.open().await.unwrap();
    for _ in 0..20 {
        db.write(|tx| Ok(tx.execute("DELETE FROM t", &[])?)).await.unwrap();
        fill(&db).await;
    }
    stop(db, tasks).await;
    let whole = fs::read(stack.file("")).unwrap();
    let log = fs::read(stack.file("-wal")).unwrap();
    for end in [whole.len() - 4096, whole.len() / 2, 5000, 0] {
        fs::write(stack.file(""), &whole[..end]).unwrap();
        // SQLite may have begun to repair what it opened.
        fs::write(stack.file("-wal"), &log).unwrap();
        let opened = stack.open().await;
        match opened {
            Err(e) => assert!(e.to_string().contains("test.sqlite"), "{end}: {e}"),
            // Pages that are still in the log.
            Ok((db, _tasks)) => assert_eq!((rows(&db).await, db.look().await), (ROWS, Ok(())), "{end}"),
        }
    }
    fs::write(stack.file(""), &whole).unwrap();
    fs::write(stack.file("-wal"), &log).unwrap();
    let other = rusqlite::Connection::open(stack.file("")).unwrap();
    other.execute("DELETE FROM t WHERE id = 1", []).unwrap();
    drop(other);
    let (db, _tasks) = stack.open().await.unwrap();
    assert_eq!(rows(&db).await, ROWS - 1);
    db.look().await.expect("what another program wrote is summed anew");
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let stack = Stack::new();
    let (db, tasks) = stack.open_as(NEWER, false).await.unwrap();
    stop(db, tasks).await;
    assert!(stack.refusal().await.contains("0002_more"));
}

#[tokio::test]
async fn a_database_follows_one_exchange() {
    let stack = Stack::new();
    let (db, tasks) = stack.open().await.unwrap();
    let (one, another) = (Uuid::from_u128(1), Uuid::from_u128(2));
    assert_eq!(db.follows(one).await.unwrap(), one);
    stop(db, tasks).await;
    let (db, _tasks) = stack.open().await.unwrap();
    assert_eq!(db.follows(another).await.unwrap(), one);
}

#[tokio::test]
async fn what_is_deleted_is_overwritten_in_file_and_log() {
    const PERSON: &str = "someone@example.com";
    let stack = Stack::new();
    let (db, tasks) = stack.open().await.unwrap();
    fill(&db).await;
    for id in 100..140 {
        let insert = move |tx: &mut dyn Tx| {
            Ok(tx.execute("INSERT INTO t (id, text) VALUES (?1, ?2)", params![id, PERSON.repeat(50)])?)
        };
        db.write(insert).await.unwrap();
    }
    let holds = || ["", "-wal"].map(|end| fs::read(stack.file(end)).unwrap()).concat();
    let is_there = |bytes: &[u8]| bytes.windows(PERSON.len()).any(|part| part == PERSON.as_bytes());
    assert!(is_there(&holds()));
    db.empty_log().await.unwrap();
    assert!(is_there(&holds()));
    db.write(|tx| Ok(tx.execute("DELETE FROM t WHERE id >= 100", &[])?)).await.unwrap();
    db.empty_log().await.unwrap();
    assert!(!is_there(&holds()));
    assert_eq!(rows(&db).await, ROWS);
    db.look().await.unwrap();
    stop(db, tasks).await;
    let (db, _tasks) = stack.open().await.unwrap();
    db.look().await.unwrap();
}
