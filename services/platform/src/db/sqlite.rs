//! SQLite: one writer connection on its own thread with group commit, a few `query_only` readers.

use super::{
    Error, Migration, Row, Tx, Value,
    own::{self, Owner},
    sums::Sums,
    transfer::Table,
};
use crate::{
    error,
    manifest::{Claim, Manifest},
    tasks::{Schedule, Tasks},
};
use fafnir_disk::note::Note;
use fafnir_proto::deadline;
use metrics::Histogram;
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, ToSql, config::DbConfig, types::ToSqlOutput, types::ValueRef};
use std::{
    os::unix::fs::OpenOptionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use uuid::Uuid;

/// Writes that wait; one more is refused as busy after [`deadline::STORE_QUEUE`].
const QUEUE_LEN: usize = 1024;
/// Writes that share one commit.
const GROUP_MAX: usize = 256;
/// Concurrent readers.
const READERS: usize = 4;
const STATEMENT_CACHE: usize = 256;
/// Frames in the write-ahead log from which it is brought into the file, and commits between two looks at it.
const CHECKPOINT_FRAMES: i64 = 1000;
const CHECKPOINT_LOOK: u64 = 16;
/// How often what was written is marked and noted.
const MARK_EVERY: Duration = Duration::from_secs(1);
/// SQLite before 3.51.3 can lose commits when two connections checkpoint (reliability.md).
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Runs one caller's work inside a savepoint; answers how to tell it the fate of the commit.
/// Where the transaction could not begin, or ended before its turn, it is told why instead.
type Work = Box<dyn FnOnce(Result<&mut SqliteTx<'_>, Error>) -> Finish + Send>;
type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

/// What the writer's thread is asked.
enum Job {
    Work(Work),
    /// Marks and notes what was written since the last mark.
    Mark(oneshot::Sender<Result<(), Error>>),
    /// Brings everything into the file and empties the log: nothing that was deleted stays in it.
    EmptyLog(oneshot::Sender<Result<(), Error>>),
}

/// Why a store only reads: it was found damaged.
type Damage = Arc<OnceLock<String>>;

#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    writer: mpsc::Sender<Job>,
    sums: Arc<Mutex<Sums>>,
    damage: Damage,
    /// Commits so far, each counted before its callers hear of it.
    commits: Arc<AtomicU64>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
    /// To be entered as made in the manifest.
    made: Mutex<Option<(Manifest, &'static str, Claim)>>,
}

struct SqliteTx<'a> {
    connection: &'a Connection,
    /// The first error: as on Postgres, nothing more is possible in this transaction.
    failed: Option<Error>,
}

impl<'a> SqliteTx<'a> {
    fn new(connection: &'a Connection) -> Self {
        Self { connection, failed: None }
    }

    fn run<T>(&mut self, statement: impl FnOnce(&Connection) -> Result<T, Error>) -> Result<T, Error> {
        if let Some(e) = &self.failed {
            return Err(Error::Statement(format!("the transaction has failed before: {e}")));
        }
        statement(self.connection).inspect_err(|e| self.failed = Some(e.clone()))
    }
}

impl ToSql for Value {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Int(i) => ValueRef::Integer(*i),
            Self::Text(t) => ValueRef::Text(t.as_bytes()),
            Self::Blob(b) => ValueRef::Blob(b),
        }))
    }
}

impl Tx for SqliteTx<'_> {
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            Ok(statement.execute(rusqlite::params_from_iter(params))? as u64)
        })
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        self.run(|connection| {
            let mut statement = connection.prepare_cached(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query(rusqlite::params_from_iter(params))?;
            let mut answer = Vec::new();
            while let Some(row) = rows.next()? {
                let mut values = Vec::with_capacity(columns);
                for i in 0..columns {
                    values.push(match row.get_ref(i)? {
                        ValueRef::Null => Value::Null,
                        ValueRef::Integer(i) => Value::Int(i),
                        ValueRef::Text(t) => Value::Text(String::from_utf8_lossy(t).into_owned()),
                        ValueRef::Blob(b) => Value::Blob(b.to_vec()),
                        ValueRef::Real(_) => {
                            return Err(Error::Statement(format!("a float came from: {sql}")));
                        }
                    });
                }
                answer.push(Row(values));
            }
            Ok(answer)
        })
    }
}

impl From<rusqlite::Error> for Error {
    fn from(e: rusqlite::Error) -> Self {
        let text = e.to_string();
        match e.sqlite_error_code() {
            Some(rusqlite::ErrorCode::ConstraintViolation) => {
                // "UNIQUE constraint failed: orders.user_id, orders.client_order_id" → the columns.
                Self::Constraint(
                    text.split_once("failed: ").map_or(text.as_str(), |(_, name)| name).to_owned(),
                )
            }
            Some(rusqlite::ErrorCode::DiskFull) => Self::DiskFull,
            Some(rusqlite::ErrorCode::ReadOnly) => Self::DiskFull,
            Some(rusqlite::ErrorCode::SystemIoFailure) if is_refused_write(&e) => Self::DiskFull,
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Busy(text),
            Some(
                rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::NotADatabase
                | rusqlite::ErrorCode::DatabaseCorrupt
                | rusqlite::ErrorCode::PermissionDenied
                | rusqlite::ErrorCode::SystemIoFailure,
            ) => Self::Unusable(text),
            _ => Self::Statement(text),
        }
    }
}

/// Whether an I/O error says that nothing was written: there was no room, or the file system takes no writes.
fn is_refused_write(e: &rusqlite::Error) -> bool {
    use rusqlite::ffi;
    const REFUSED: [i32; 5] = [
        ffi::SQLITE_IOERR_WRITE,
        ffi::SQLITE_IOERR_TRUNCATE,
        ffi::SQLITE_IOERR_SHMSIZE,
        ffi::SQLITE_IOERR_SHMOPEN,
        ffi::SQLITE_IOERR_SHMMAP,
    ];
    e.sqlite_error().is_some_and(|e| REFUSED.contains(&e.extended_code))
}

/// How a connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Read,
    /// A commit is on disk when it is answered.
    Write,
    /// A commit reaches the disk with the next checkpoint; after a power failure the file is sound and its tail gone.
    WriteBehind,
}

pub(super) fn connect(path: &Path, purpose: Use) -> Result<Connection, Error> {
    let named = |e: Error| Error::Unusable(format!("{}: {e}", path.display()));
    let open = || -> Result<Connection, Error> {
        let connection = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE
                | OpenFlags::SQLITE_OPEN_CREATE
                | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_prepared_statement_cache_capacity(STATEMENT_CACHE);
        connection.pragma_update(None, "foreign_keys", true)?;
        // The pages of a checkpoint are summed (sums.rs): SQLite never makes one by itself.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
        if purpose == Use::Read {
            connection.pragma_update(None, "query_only", true)?;
        } else {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let synchronous = if purpose == Use::Write { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", synchronous)?;
            // What is deleted (a person's data) is overwritten; projections hold none.
            connection.pragma_update_and_check(None, "secure_delete", purpose == Use::Write, |_| Ok(()))?;
        }
        Ok(connection)
    };
    open().map_err(named)
}

/// Creates a file that only its owner can read; one that is there stays as it is.
fn create_private(path: &Path) -> std::io::Result<()> {
    let open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match open {
        Err(e) if e.kind() != std::io::ErrorKind::AlreadyExists => Err(e),
        _ => Ok(()),
    }
}

impl Sqlite {
    pub(super) fn open(
        path: PathBuf,
        service: &'static str,
        purpose: Use,
        owner: Option<Owner>,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(Error::Unusable(format!(
                "SQLite {} is too old, 3.51.3 is needed",
                rusqlite::version()
            )));
        }
        let named = |path: &Path, e: &std::io::Error| Error::Unusable(format!("{}: {e}", path.display()));
        if let Some(dir) = path.parent() {
            crate::secrets::create_private_dir(dir).map_err(|e| named(dir, &e))?;
        }
        own::check_log(&path, purpose == Use::WriteBehind)?;
        let claim = owner.as_ref().map(|owner| own::claim(&path, owner)).transpose()?;
        create_private(&path).map_err(|e| named(&path, &e))?;
        let connection = connect(&path, purpose)?;
        let id = own::adopt(&connection, claim.as_ref().map_or_else(Uuid::nil, |claim| claim.entry().id))?;
        let sums = Arc::new(Mutex::new(Sums::open(&path, id, &connection)?));
        let note = match &owner {
            Some(owner) => {
                Some(owner.manifest.note(owner.store).map_err(|e| Error::Unusable(e.to_string()))?)
            }
            None => None,
        };
        let (writer, jobs) = mpsc::channel(QUEUE_LEN);
        let (ended, end) = oneshot::channel();
        let (commits, damage) = (Arc::new(AtomicU64::new(0)), Damage::default());
        let mut thread = Writer {
            connection,
            commits: Arc::clone(&commits),
            sums: Arc::clone(&sums),
            damage: Arc::clone(&damage),
            id,
            note,
            marked: 0,
            tried: 0,
            commit_seconds: metrics::histogram!("fafnir_db_commit_seconds", "service" => service),
        };
        std::thread::Builder::new()
            .name(format!("db-{service}"))
            .spawn(move || {
                drop(ended.send(thread.run(jobs)));
            })
            .map_err(|e| Error::Unusable(e.to_string()))?;
        // The thread ends when the last handle is dropped; until then its failure stops the process.
        tasks.spawn_until_shutdown("database writer", async move {
            match end.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(e)) => Err(e.to_string()),
                Err(_) => Err("the writer thread panicked".to_owned()),
            }
        });
        if owner.is_some() {
            note_always(service, &writer, &commits, tasks);
        }
        let reading = Arc::new(Semaphore::new(READERS));
        let made = owner.zip(claim).filter(|(_, claim)| !claim.entry().made);
        let made = made.map(|(owner, claim)| (owner.manifest, owner.store, claim));
        Ok(Self {
            path,
            writer,
            sums,
            damage,
            commits,
            readers: Arc::default(),
            reading,
            made: Mutex::new(made),
        })
    }

    /// The database has its schema: from here on it is missed where it is gone.
    pub(super) fn made(&self) -> Result<(), Error> {
        let Some((manifest, store, claim)) = self.made.lock().take() else { return Ok(()) };
        manifest.made(store, claim.entry().id).map_err(|e| Error::Unusable(e.to_string()))
    }

    /// Compares the file with the sums of its pages, and lets SQLite look through it. Blocks, a few pages at a time.
    pub(super) fn look(&self) -> Result<(), String> {
        let mut from = Some(0);
        while let Some(place) = from {
            from = self.sums.lock().look(place)?;
        }
        quick_check(&self.path)
    }

    /// Brings everything into the file and empties the log, where no reader keeps it from that.
    pub(super) async fn empty_log(&self) -> Result<(), Error> {
        let (reply, done) = oneshot::channel();
        ask(&self.writer, Job::EmptyLog(reply), done).await
    }

    /// From here on the store only reads.
    pub(super) fn found_damaged(&self, why: &str) {
        // The first sentence stands.
        let _first = self.damage.set(why.to_owned());
    }

    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    pub(super) async fn write<T, F>(&self, mut work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        if let Some(why) = self.damage.get() {
            return Err(Error::Unusable(format!("{why}; it only reads until it is restored")).into());
        }
        let job: Work = Box::new(move |tx| {
            let outcome = tx.map_err(error::Error::from).and_then(|tx| in_savepoint(tx, &mut work));
            Box::new(move |committed| {
                let outcome = match (outcome, committed) {
                    (Ok(_), Err(e)) => Err(e.into()),
                    (outcome, _) => outcome,
                };
                // The caller may have given up; its work is committed all the same.
                drop(reply.send(outcome));
            })
        });
        self.writer
            .send_timeout(Job::Work(job), deadline::at_most(deadline::STORE_QUEUE))
            .await
            .map_err(|_| Error::Busy("too many writes are waiting".into()))?;
        answer.await.map_err(|_| Error::Unusable("the writer has stopped".into()))?
    }

    pub(super) async fn read<T, F>(&self, mut work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        let permit = Arc::clone(&self.reading)
            .acquire_owned()
            .await
            .map_err(|_| Error::Unusable("the database is closed".into()))?;
        let (readers, path) = (Arc::clone(&self.readers), self.path.clone());
        let result = tokio::task::spawn_blocking(move || {
            let idle = readers.lock().pop();
            let connection = match idle {
                Some(connection) => connection,
                None => connect(&path, Use::Read)?,
            };
            connection.execute_batch("BEGIN").map_err(Error::from)?;
            let result = in_reader(&connection, &mut work);
            connection.execute_batch("ROLLBACK").map_err(Error::from)?;
            readers.lock().push(connection);
            drop(permit);
            result
        });
        result.await.map_err(|e| error::Error::internal(format!("a read failed: {e}")))?
    }
}

/// Notes what was written, once a second and when all else has ended.
fn note_always(service: &'static str, writer: &mpsc::Sender<Job>, commits: &Arc<AtomicU64>, tasks: &Tasks) {
    let (weak, commits, mut seen) = (writer.downgrade(), Arc::clone(commits), 0);
    let turn = move || {
        let (writer, commits) = (weak.upgrade(), commits.load(Ordering::Acquire));
        let is_new = std::mem::replace(&mut seen, commits) != commits;
        async move {
            match writer.filter(|_| is_new) {
                Some(writer) => mark(&writer).await,
                None => Ok(()),
            }
        }
    };
    tasks.every(format!("{service}: marks"), Schedule::after(MARK_EVERY), turn);
    let writer = writer.clone();
    tasks.at_end(async move {
        if let Err(e) = mark(&writer).await {
            tracing::warn!(service, error = %e, "the last commits are not noted");
        }
    });
}

async fn mark(writer: &mpsc::Sender<Job>) -> Result<(), Error> {
    let (reply, done) = oneshot::channel();
    ask(writer, Job::Mark(reply), done).await
}

async fn ask(
    writer: &mpsc::Sender<Job>,
    job: Job,
    done: oneshot::Receiver<Result<(), Error>>,
) -> Result<(), Error> {
    let stopped = || Error::Unusable("the writer has stopped".into());
    writer.send(job).await.map_err(|_| stopped())?;
    done.await.map_err(|_| stopped())?
}

/// The thread that writes.
struct Writer {
    connection: Connection,
    commits: Arc<AtomicU64>,
    sums: Arc<Mutex<Sums>>,
    damage: Damage,
    id: Uuid,
    note: Option<Note>,
    /// Commits when it was last marked.
    marked: u64,
    /// Frames in the log at the last try to bring it into the file: each reads all of it.
    tried: i64,
    commit_seconds: Histogram,
}

impl Writer {
    fn run(&mut self, mut jobs: mpsc::Receiver<Job>) -> Result<(), Error> {
        let mut waiting = None;
        while let Some(first) = waiting.take().or_else(|| jobs.blocking_recv()) {
            let first = match first {
                Job::Work(work) => work,
                // The askers may have given up.
                Job::Mark(reply) => {
                    let _gone = reply.send(self.mark());
                    continue;
                }
                Job::EmptyLog(reply) => {
                    let _gone = reply.send(self.sums.lock().empty_log(&self.connection));
                    continue;
                }
            };
            if let Err(e) = self.connection.execute_batch("BEGIN IMMEDIATE").map_err(Error::from) {
                if !e.is_transient() || is_in_doubt(&e) {
                    return Err(e);
                }
                first(Err(e.clone()))(Err(e));
                continue;
            }
            let mut finishes = Vec::new();
            let mut next = Some(first);
            let mut is_gone = false;
            while let Some(work) = next.take() {
                finishes.push(work(Ok(&mut SqliteTx::new(&self.connection))));
                if self.connection.is_autocommit() {
                    // SQLite has rolled everything back by itself: the disk is full, or cannot be read.
                    is_gone = true;
                } else if finishes.len() < GROUP_MAX {
                    match jobs.try_recv() {
                        Ok(Job::Work(work)) => next = Some(work),
                        Ok(other) => waiting = Some(other),
                        Err(_) => {}
                    }
                }
            }
            let committed = if is_gone { Err(Error::DiskFull) } else { self.commit() };
            if is_gone {
                self.commits.fetch_add(1, Ordering::Release);
            }
            for finish in finishes {
                finish(committed.clone());
            }
            // A failed fsync leaves the file in doubt: stop and recover from the log, as after a crash.
            if let Err(e @ Error::Unusable(_)) = committed {
                return Err(e);
            }
            if self.commits.load(Ordering::Relaxed).is_multiple_of(CHECKPOINT_LOOK) {
                self.checkpoint_if_due();
            }
        }
        Ok(())
    }

    fn commit(&self) -> Result<(), Error> {
        let started = Instant::now();
        let committed = self.connection.execute_batch("COMMIT").map_err(Error::from);
        self.commit_seconds.record(started.elapsed().as_secs_f64());
        if committed.is_err() && !self.connection.is_autocommit() {
            self.connection.execute_batch("ROLLBACK")?;
        }
        self.commits.fetch_add(1, Ordering::Release);
        committed
    }

    /// Notes what is durable, behind a mark of its own.
    fn mark(&mut self) -> Result<(), Error> {
        self.checkpoint_if_due();
        let commits = self.commits.load(Ordering::Relaxed);
        let Some(note) = self.note.as_mut().filter(|_| self.marked != commits && self.damage.get().is_none())
        else {
            return Ok(());
        };
        // A statement by itself is a commit.
        let mark = own::next_mark(&self.connection, self.id)?;
        note.write(&mark).map_err(|e| Error::Unusable(format!("the note: {e}")))?;
        self.marked = commits;
        Ok(())
    }

    /// Brings a long log into the file. It is tried again later where that fails: the log has everything.
    fn checkpoint_if_due(&mut self) {
        let frames = |connection: &Connection| -> Result<i64, Error> {
            let mut statement = connection.prepare_cached("PRAGMA wal_checkpoint(NOOP)")?;
            Ok(statement.query_row([], |row| row.get(1))?)
        };
        let done = frames(&self.connection).and_then(|frames| {
            if frames < self.tried {
                // The log has begun anew.
                self.tried = 0;
            }
            if frames < self.tried + CHECKPOINT_FRAMES || self.damage.get().is_some() {
                return Ok(());
            }
            self.tried = frames;
            self.sums.lock().checkpoint(&self.connection)
        });
        match done {
            Ok(()) => {}
            Err(e @ Error::Unusable(_)) => {
                tracing::error!(error = %e, "the database's log is damaged");
                let _first = self.damage.set(e.to_string());
            }
            Err(e) => tracing::warn!(error = %e, "the database's log is not brought into its file yet"),
        }
    }
}

/// Whether nobody knows any more what is on disk. A write that was refused is known not to be.
fn is_in_doubt(e: &Error) -> bool {
    matches!(e, Error::Unusable(_))
}

fn in_savepoint<T>(
    tx: &mut SqliteTx<'_>,
    work: &mut impl FnMut(&mut dyn Tx) -> error::Result<T>,
) -> error::Result<T> {
    let connection = tx.connection;
    let run = |sql: &str| connection.prepare_cached(sql).and_then(|mut s| s.execute([])).map_err(Error::from);
    run("SAVEPOINT job")?;
    let outcome = settle(&mut SqliteTx::new(connection), work);
    if outcome.is_err() {
        run("ROLLBACK TO job")?;
    }
    run("RELEASE job")?;
    outcome
}

fn in_reader<T>(
    connection: &Connection,
    work: &mut impl FnMut(&mut dyn Tx) -> error::Result<T>,
) -> error::Result<T> {
    settle(&mut SqliteTx::new(connection), work)
}

/// Runs the work; a statement that failed decides, whatever the closure made of it.
fn settle<T>(
    tx: &mut SqliteTx<'_>,
    work: &mut impl FnMut(&mut dyn Tx) -> error::Result<T>,
) -> error::Result<T> {
    let outcome = catch_unwind(AssertUnwindSafe(|| work(tx)))
        .unwrap_or_else(|_| Err(error::Error::internal("the work on the database panicked")));
    match (outcome, tx.failed.take()) {
        (Ok(_), Some(e)) => Err(e.into()),
        (outcome, _) => outcome,
    }
}

/// Looks through a database file for damage, reading only. The error says what SQLite found.
pub fn quick_check(path: &Path) -> Result<(), String> {
    let check = || {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(Duration::from_secs(5))?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    };
    match check() {
        Ok(word) if word == "ok" => Ok(()),
        Ok(found) => Err(found),
        Err(e) => Err(e.to_string()),
    }
}

/// Writes a database as it is at one moment into a new file, also while it is in use.
pub(super) fn copy_file(from: &Path, to: &Path) -> Result<(), Error> {
    let named = |e: rusqlite::Error| Error::Unusable(format!("{}: {e}", from.display()));
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(from, flags).map_err(named)?;
    connection.busy_timeout(Duration::from_secs(5)).map_err(named)?;
    let to = to.to_str().ok_or_else(|| Error::Unusable(format!("{} is not text", to.display())))?;
    connection.execute("VACUUM INTO ?1", [to]).map(drop).map_err(|e| match Error::from(e) {
        Error::DiskFull => Error::DiskFull,
        e => Error::Unusable(format!("{}: {e}", from.display())),
    })
}

/// The tables that migrations make, in the order in which they do.
pub(super) fn tables(migrations: &[Migration]) -> Result<Vec<Table>, Error> {
    let connection = Connection::open_in_memory()?;
    for statement in migrations.iter().flat_map(|m| super::statements(m.sql)) {
        connection.execute_batch(&statement)?;
    }
    let mut names =
        connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid")?;
    let names = names.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    names.into_iter().map(|name| table(&connection, name)).collect()
}

fn table(connection: &Connection, name: String) -> Result<Table, Error> {
    let mut about = connection.prepare("SELECT name, type, pk FROM pragma_table_info(?1) ORDER BY cid")?;
    let columns = about
        .query_map([&name], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
        .collect::<Result<Vec<(String, String, i64)>, _>>()?;
    let mut key: Vec<(i64, usize)> = columns
        .iter()
        .enumerate()
        .filter(|(_, (_, _, pk))| *pk > 0)
        .map(|(at, (_, _, pk))| (*pk, at))
        .collect();
    key.sort_unstable();
    if key.is_empty() {
        return Err(Error::Statement(format!("table {name} has no primary key")));
    }
    let is_numbered = key.len() == 1 && columns[key[0].1].1 == "INTEGER";
    Ok(Table {
        name,
        key: key.into_iter().map(|(_, at)| at).collect(),
        is_numbered,
        columns: columns.into_iter().map(|(name, _, _)| name).collect(),
    })
}
