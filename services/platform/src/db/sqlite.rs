//! SQLite: one writer connection on its own thread with group commit, a few `query_only` readers.

use super::{Error, Row, Tx, Value};
use crate::{error, tasks::Tasks};
use parking_lot::Mutex;
use rusqlite::{Connection, OpenFlags, ToSql, types::ToSqlOutput, types::ValueRef};
use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// Writes that wait; one more is refused as busy after [`QUEUE_WAIT_MAX`].
const QUEUE_LEN: usize = 1024;
const QUEUE_WAIT_MAX: Duration = Duration::from_secs(2);
/// Writes that share one commit.
const GROUP_MAX: usize = 256;
/// Concurrent readers.
const READERS: usize = 4;
const STATEMENT_CACHE: usize = 256;
/// SQLite before 3.51.3 can lose commits when two connections checkpoint (reliability.md).
const SQLITE_VERSION_MIN: i32 = 3_051_003;

/// Runs one caller's work inside a savepoint; answers how to tell it the fate of the commit.
type Job = Box<dyn FnOnce(&mut SqliteTx<'_>) -> Finish + Send>;
type Finish = Box<dyn FnOnce(Result<(), Error>) + Send>;

#[derive(Debug)]
pub(super) struct Sqlite {
    path: PathBuf,
    writer: mpsc::Sender<Job>,
    /// Commits so far, each counted before its callers hear of it.
    commits: Arc<AtomicU64>,
    readers: Arc<Mutex<Vec<Connection>>>,
    reading: Arc<Semaphore>,
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
            Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => Self::Busy(text),
            Some(
                rusqlite::ErrorCode::CannotOpen
                | rusqlite::ErrorCode::NotADatabase
                | rusqlite::ErrorCode::DatabaseCorrupt
                | rusqlite::ErrorCode::PermissionDenied
                | rusqlite::ErrorCode::ReadOnly
                | rusqlite::ErrorCode::SystemIoFailure,
            ) => Self::Unusable(text),
            _ => Self::Statement(text),
        }
    }
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

fn connect(path: &Path, purpose: Use) -> Result<Connection, Error> {
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
        if purpose == Use::Read {
            connection.pragma_update(None, "query_only", true)?;
        } else {
            connection.pragma_update(None, "journal_mode", "WAL")?;
            let synchronous = if purpose == Use::Write { "FULL" } else { "NORMAL" };
            connection.pragma_update(None, "synchronous", synchronous)?;
        }
        Ok(connection)
    };
    open().map_err(named)
}

impl Sqlite {
    pub(super) fn open(
        path: PathBuf,
        service: &'static str,
        purpose: Use,
        tasks: &Tasks,
    ) -> Result<Self, Error> {
        if rusqlite::version_number() < SQLITE_VERSION_MIN {
            return Err(Error::Unusable(format!(
                "SQLite {} is too old, 3.51.3 is needed",
                rusqlite::version()
            )));
        }
        if let Some(dir) = path.parent() {
            crate::secrets::create_private_dir(dir)
                .map_err(|e| Error::Unusable(format!("{}: {e}", dir.display())))?;
        }
        let connection = connect(&path, purpose)?;
        let (writer, jobs) = mpsc::channel(QUEUE_LEN);
        let (ended, end) = oneshot::channel();
        let commits = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&commits);
        std::thread::Builder::new()
            .name(format!("db-{service}"))
            .spawn(move || {
                drop(ended.send(write_loop(&connection, jobs, &counted)));
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
        let reading = Arc::new(Semaphore::new(READERS));
        Ok(Self { path, writer, commits, readers: Arc::default(), reading })
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
        let job: Job = Box::new(move |tx| {
            let outcome = in_savepoint(tx, &mut work);
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
            .send_timeout(job, QUEUE_WAIT_MAX)
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

fn write_loop(
    connection: &Connection,
    mut jobs: mpsc::Receiver<Job>,
    commits: &AtomicU64,
) -> Result<(), Error> {
    while let Some(first) = jobs.blocking_recv() {
        connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut finishes = Vec::new();
        let mut next = Some(first);
        while let Some(job) = next {
            finishes.push(job(&mut SqliteTx::new(connection)));
            next = if finishes.len() < GROUP_MAX { jobs.try_recv().ok() } else { None };
        }
        let committed = connection.execute_batch("COMMIT").map_err(Error::from);
        if committed.is_err() && !connection.is_autocommit() {
            connection.execute_batch("ROLLBACK")?;
        }
        commits.fetch_add(1, Ordering::Release);
        for finish in finishes {
            finish(committed.clone());
        }
        // A failed fsync leaves the file in doubt: stop and recover from the log, as after a crash.
        if let Err(e @ Error::Unusable(_)) = committed {
            return Err(e);
        }
    }
    Ok(())
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
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))
    };
    match check() {
        Ok(word) if word == "ok" => Ok(()),
        Ok(found) => Err(found),
        Err(e) => Err(e.to_string()),
    }
}
