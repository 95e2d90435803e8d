//! Postgres: the same statements in SERIALIZABLE transactions, tried again when two of them meet.
//!
//! Work runs on blocking threads, at most [`CONNECTIONS`] at a time. A transaction that met another one is tried again;
//! from attempt [`ALONE_FROM`] on it runs alone in this process, so that it cannot starve.
//!
//! A read costs its caller one way to the server and back for each statement: what opens its transaction goes along with
//! the first one, and what ends it is sent when the answer has left.

use super::{Error, Row, Tx, Value, dialect, secured::Server};
use crate::{error, manifest::Found};
use bytes::BytesMut;
use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts,
};
use fafnir_proto::deadline;
use metrics::Gauge;
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore},
    time::{Instant, error::Elapsed, timeout_at},
};
use tokio_postgres::{
    Client,
    error::SqlState,
    types::{IsNull, ToSql, Type, to_sql_checked},
};
use uuid::Uuid;

/// Connections of one service, and transactions at a time.
const CONNECTIONS: usize = 8;
/// Transactions that wait for a connection; one more is refused as busy.
const QUEUE_LEN: usize = 1024;
/// Where nobody waits ([`deadline::left`]).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The server may take this long to come up beside us.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
const CONNECT_RETRY: Duration = Duration::from_millis(200);
/// Prepared statements that a connection keeps: inserts of many rows have a text for every number of rows.
const STATEMENTS_MAX: usize = 256;
/// Rows of one statement; with 16 columns their parameters are a sixtieth of what the protocol carries.
const ROWS_PER_STATEMENT: usize = 64;
/// Tries after the first one (reliability.md).
const RETRIES_MAX: u32 = 5;
/// The attempt, from 0, from which a transaction runs alone.
const ALONE_FROM: u32 = 2;
const RETRY_WAIT: Duration = Duration::from_millis(2);
/// Postgres 13, the oldest that is tried.
const VERSION_MIN: i32 = 130_000;
/// Database that new ones are created from, unless the URL names another.
const MAINTENANCE_DATABASE: &str = "postgres";
/// Advisory lock that one migrating process holds.
const MIGRATION_LOCK: i64 = 0x6661_666e_6972;
/// Advisory lock of the process that follows the facts.
const LEAD_LOCK: i64 = 0x6661_666e_6973;
const BEGIN_WRITE: &str = "BEGIN ISOLATION LEVEL SERIALIZABLE";
const BEGIN_READ: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

#[derive(Debug)]
pub(super) struct Postgres {
    pool: Pool,
    /// Connections of the pool: idle, and in use.
    connections: [Gauge; 2],
    server: Server,
    /// The connection that holds, or tries to get, the lead.
    lead: Mutex<Option<Lead>>,
    /// Shared by ordinary attempts to write, exclusive for one that must not meet another.
    gate: Arc<RwLock<()>>,
    room: Semaphore,
    /// Name of a unique index → its columns as SQLite names them.
    uniques: Arc<OnceLock<BTreeMap<String, String>>>,
    /// Commits of this process.
    commits: AtomicU64,
}

/// A connection of its own: the server takes back what it holds when it ends, however it ends.
struct Lead {
    client: Client,
    is_held: bool,
}

impl fmt::Debug for Lead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lead").field("is_held", &self.is_held).finish_non_exhaustive()
    }
}

/// Kept for as long as an attempt lasts.
enum Gate<'a> {
    Open,
    Shared { _guard: RwLockReadGuard<'a, ()> },
    Alone { _guard: RwLockWriteGuard<'a, ()> },
}

/// What a transaction is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
}

impl Postgres {
    /// Opens the database `name`, creating it when the server does not have it.
    pub(super) async fn open(url: &str, name: &str) -> Result<Self, Error> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            return Err(Error::Unusable(format!("database.prefix: {name:?} must consist of a-z, 0-9 and _")));
        }
        let mut server = Server::parse(url)?;
        let maintenance = server.config.get_dbname().unwrap_or(MAINTENANCE_DATABASE).to_owned();
        server
            .config
            .dbname(name)
            .application_name("fafnir")
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_user_timeout(deadline::STORE)
            .keepalives_idle(Duration::from_secs(30))
            .options(format!(
                "-c statement_timeout={statement} -c lock_timeout={lock} \
                 -c idle_in_transaction_session_timeout={statement} \
                 -c default_transaction_isolation=serializable",
                statement = deadline::STORE_STATEMENT.as_millis(),
                lock = deadline::STORE_LOCK.as_millis(),
            ));
        let until = Instant::now() + CONNECT_DEADLINE;
        loop {
            match prepare_server(&server, &maintenance, name).await {
                Err(e) if e.is_transient() && Instant::now() < until => {
                    tracing::debug!(database = name, error = %e, "waiting for the database server");
                    tokio::time::sleep(CONNECT_RETRY).await;
                }
                result => break result?,
            }
        }
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(server.config.clone(), server.tls.clone(), recycling);
        let timeouts = Timeouts {
            wait: Some(deadline::STORE_QUEUE),
            create: Some(CONNECT_TIMEOUT),
            recycle: Some(CONNECT_TIMEOUT),
        };
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(timeouts)
            .runtime(Runtime::Tokio1)
            .build()
            .map_err(|e| Error::Unusable(e.to_string()))?;
        let connections = ["idle", "used"].map(
            |state| metrics::gauge!("fafnir_db_connections", "database" => name.to_owned(), "state" => state),
        );
        Ok(Self {
            pool,
            connections,
            server,
            lead: Mutex::default(),
            gate: Arc::default(),
            room: Semaphore::new(QUEUE_LEN),
            uniques: Arc::default(),
            commits: AtomicU64::new(0),
        })
    }

    /// Commits of this process so far.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Acquire)
    }

    /// Whether this process has the lead on the database; takes it where nobody has it.
    pub(super) async fn lead(&self) -> Result<bool, Error> {
        let mut lead = self.lead.lock().await;
        if lead.as_ref().is_some_and(|l| l.client.is_closed()) {
            *lead = None;
        }
        let l = match &mut *lead {
            Some(l) if l.is_held => return Ok(true),
            Some(l) => l,
            None => {
                let connected = self.server.connect().await;
                let (client, connection) = connected.map_err(|e| self.explain(&e).error)?;
                // Ends with the client.
                tokio::spawn(connection);
                lead.insert(Lead { client, is_held: false })
            }
        };
        let asked = within(None, l.client.query_one("SELECT pg_try_advisory_lock($1)", &[&LEAD_LOCK])).await;
        let answer = asked
            .map_err(|_| silent())
            .and_then(|row| row.and_then(|row| row.try_get(0)).map_err(|e| self.explain(&e).error));
        match answer {
            Ok(is_held) => {
                l.is_held = is_held;
                Ok(is_held)
            }
            Err(e) => {
                // Whoever knows what it holds now: the server takes it back.
                *lead = None;
                Err(e)
            }
        }
    }

    /// Gives the lead back.
    pub(super) async fn resign(&self) {
        *self.lead.lock().await = None;
    }

    /// Learns the columns of the unique keys; to be called when the schema stands.
    pub(super) async fn learn_constraints(&self) -> Result<(), Error> {
        let client = self.client().await?;
        let rows = client
            .query(
                "SELECT i.relname::text, \
                   t.relname::text || '.' || string_agg(a.attname::text, ', ' || t.relname::text || '.' ORDER BY k.n) \
                 FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid JOIN pg_class t ON t.oid = x.indrelid \
                 JOIN pg_namespace s ON s.oid = t.relnamespace AND s.nspname = current_schema() \
                 CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) \
                 JOIN pg_attribute a ON a.attrelid = t.oid AND a.attnum = k.attnum \
                 WHERE x.indisunique GROUP BY i.relname, t.relname",
                &[],
            )
            .await
            .map_err(|e| self.explain(&e).error)?;
        let mut uniques = BTreeMap::new();
        for row in rows {
            let pair = row.try_get(0).and_then(|name| Ok((name, row.try_get(1)?)));
            let (name, columns) = pair.map_err(|e| self.explain(&e).error)?;
            uniques.insert(name, columns);
        }
        // A second opening of the same schema learns the same.
        drop(self.uniques.set(uniques));
        Ok(())
    }

    async fn client(&self) -> Result<Object, Error> {
        let client = self.pool.get().await;
        let status = self.pool.status();
        let [idle, used] = &self.connections;
        idle.set(status.available as f64);
        used.set(status.size.saturating_sub(status.available) as f64);
        client.map_err(|e| match e {
            PoolError::Timeout(_) => Error::Busy("too many transactions are waiting".into()),
            PoolError::Backend(e) => self.explain(&e).error,
            other => Error::Unusable(other.to_string()),
        })
    }

    /// A connection for an attempt, beside others or alone. A read sees one snapshot and takes no lock: it neither meets a
    /// write nor waits for one that runs alone.
    async fn turn(&self, kind: Kind, attempt: u32) -> Result<(Gate<'_>, Object), Error> {
        let gate = if kind == Kind::Read {
            Gate::Open
        } else if attempt < ALONE_FROM {
            Gate::Shared { _guard: self.gate.read().await }
        } else {
            Gate::Alone { _guard: self.gate.write().await }
        };
        Ok((gate, self.client().await?))
    }

    fn explain(&self, e: &tokio_postgres::Error) -> Failure {
        explain(e, self.uniques.get())
    }

    pub(super) async fn write<T, F>(&self, work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        self.transact(Kind::Write, work).await
    }

    pub(super) async fn read<T, F>(&self, work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        self.transact(Kind::Read, work).await
    }

    async fn transact<T, F>(&self, kind: Kind, work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        let busy = || Error::Busy("too many transactions are waiting".into());
        let _room = self.room.try_acquire().map_err(|_| busy())?;
        let until = deadline::left().map(|left| Instant::now() + left);
        let mut work = work;
        let mut attempt = 0;
        loop {
            let turn = within(until, self.turn(kind, attempt)).await;
            let (_gate, client) =
                turn.map_err(|_| Error::Unusable("there is no connection with Postgres".into()))??;
            let (handle, uniques) = (Handle::current(), Arc::clone(&self.uniques));
            let (outcome, back) = tokio::task::spawn_blocking(move || {
                let outcome = run((client, handle, until), &uniques, kind, &mut work);
                (outcome, work)
            })
            .await
            .map_err(|e| error::Error::internal(format!("a transaction failed: {e}")))?;
            work = back;
            match outcome {
                Outcome::Done(result) => {
                    if kind == Kind::Write && result.is_ok() {
                        self.commits.fetch_add(1, Ordering::AcqRel);
                    }
                    return result;
                }
                Outcome::Met(reason) if attempt >= RETRIES_MAX => return Err(Error::Busy(reason).into()),
                Outcome::Met(reason) => {
                    tracing::debug!(attempt, reason, "transactions met, trying again");
                    metrics::counter!("fafnir_transaction_retries_total").increment(1);
                }
            }
            tokio::time::sleep(RETRY_WAIT * (1 << attempt)).await;
            attempt += 1;
        }
    }
}

/// Runs `work` on the server, outside of the database that it is about.
async fn administer<T>(
    url: &str,
    work: impl AsyncFnOnce(Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Error> {
    connected(url, None, work).await
}

/// Runs `work` on a connection of its own, to a database or to the one that new ones are created from.
async fn connected<T>(
    url: &str,
    database: Option<&str>,
    work: impl AsyncFnOnce(Client) -> Result<T, tokio_postgres::Error>,
) -> Result<T, Error> {
    let plain = |e: tokio_postgres::Error| explain(&e, None).error;
    let mut server = Server::parse(url)?;
    let maintenance = server.config.get_dbname().unwrap_or(MAINTENANCE_DATABASE).to_owned();
    server
        .config
        .dbname(database.unwrap_or(&maintenance))
        .connect_timeout(CONNECT_TIMEOUT)
        .application_name("fafnir");
    let (client, connection) = server.connect().await.map_err(plain)?;
    let connection = tokio::spawn(connection);
    let result = within(None, work(client)).await;
    connection.abort();
    result.map_err(|_| Error::Unusable("the database server is too slow".into()))?.map_err(plain)
}

/// A name that stands in a statement.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

pub(super) async fn exists(url: &str, name: &str) -> Result<bool, Error> {
    let name = name.to_owned();
    administer(url, async |client| {
        let sql = "SELECT 1 FROM pg_database WHERE datname = $1";
        Ok(client.query_opt(sql, &[&name]).await?.is_some())
    })
    .await
}

/// The same for a server that may be coming up beside us.
pub(super) async fn exists_soon(url: &str, name: &str) -> Result<bool, Error> {
    let until = Instant::now() + CONNECT_DEADLINE;
    loop {
        match exists(url, name).await {
            Err(e) if e.is_transient() && Instant::now() < until => {
                tokio::time::sleep(CONNECT_RETRY).await;
            }
            result => return result,
        }
    }
}

/// What is in the place of a service's database.
pub(super) async fn found(url: &str, name: &str) -> Result<Found, Error> {
    if !exists_soon(url, name).await? {
        return Ok(Found::Nothing);
    }
    let sql = "SELECT (SELECT count(*) FROM pg_tables WHERE schemaname = current_schema()), \
               to_regclass('store') IS NOT NULL";
    connected(url, Some(name), async |client| {
        let row = client.query_one(sql, &[]).await?;
        let (tables, has_store): (i64, bool) = (row.try_get(0)?, row.try_get(1)?);
        if !has_store {
            return Ok(if tables == 0 { Found::Empty } else { Found::Nameless });
        }
        let id = client.query_opt("SELECT id FROM store", &[]).await?;
        let id: Option<Vec<u8>> = id.map(|row| row.try_get(0)).transpose()?;
        Ok(id.and_then(|id| Uuid::from_slice(&id).ok()).map_or(Found::Empty, Found::Store))
    })
    .await
}

/// Whether a server keeps checksums of its pages.
pub(super) async fn checksums(url: &str) -> Result<bool, Error> {
    administer(url, async |client| {
        let row = client.query_one("SELECT current_setting('data_checksums')", &[]).await?;
        Ok(row.try_get::<_, &str>(0)? == "on")
    })
    .await
}

pub(super) async fn drop_database(url: &str, name: &str) -> Result<(), Error> {
    let sql = format!("DROP DATABASE IF EXISTS {}", quoted(name));
    administer(url, async |client| client.batch_execute(&sql).await).await
}

pub(super) async fn rename(url: &str, name: &str, to: &str) -> Result<bool, Error> {
    if !exists(url, name).await? {
        return Ok(false);
    }
    let sql = format!("ALTER DATABASE {} RENAME TO {}", quoted(name), quoted(to));
    administer(url, async |client| client.batch_execute(&sql).await).await?;
    Ok(true)
}

/// The text of a configuration error without what may be a password.
pub(super) fn redacted(e: &tokio_postgres::Error) -> String {
    let text = e.to_string();
    text.split(':').next().unwrap_or("cannot be read").to_owned()
}

/// Connects once, creates the database if it is missing, checks that an acknowledged commit is on disk.
async fn prepare_server(server: &Server, maintenance: &str, name: &str) -> Result<(), Error> {
    let plain = |e: tokio_postgres::Error| explain(&e, None).error;
    let connected = match server.connect().await {
        Err(e) if e.code() == Some(&SqlState::INVALID_CATALOG_NAME) => {
            let mut admin = server.clone();
            admin.config.dbname(maintenance);
            let (client, connection) = admin.connect().await.map_err(plain)?;
            let connection = tokio::spawn(connection);
            // Bytes compare as in SQLite, whatever the locale of the server.
            let created = client
                .batch_execute(&format!(
                    "CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"
                ))
                .await;
            drop(client);
            connection.abort();
            match created {
                // Another process of the platform was faster.
                Err(e)
                    if matches!(
                        e.code(),
                        Some(&SqlState::DUPLICATE_DATABASE | &SqlState::UNIQUE_VIOLATION)
                    ) => {}
                result => result.map_err(plain)?,
            }
            server.connect().await
        }
        connected => connected,
    };
    let (client, connection) = connected.map_err(plain)?;
    let connection = tokio::spawn(connection);
    let row = client
        .query_one(
            "SELECT current_setting('server_version_num')::int4, current_setting('fsync'), \
             current_setting('full_page_writes'), current_setting('synchronous_commit')",
            &[],
        )
        .await
        .map_err(plain);
    connection.abort();
    let row = row?;
    let version: i32 = row.try_get(0).map_err(plain)?;
    if version < VERSION_MIN {
        return Err(refuse(format!("Postgres {version} is too old, 13 is needed")));
    }
    for (index, setting) in [(1, "fsync"), (2, "full_page_writes"), (3, "synchronous_commit")] {
        let value: &str = row.try_get(index).map_err(plain)?;
        if value == "off" {
            return Err(refuse(format!(
                "Postgres has {setting} = off: what it acknowledges can be lost. Set it to on."
            )));
        }
    }
    Ok(())
}

/// A server that must not be used, however often it is tried.
fn refuse(message: String) -> Error {
    Error::Statement(message)
}

/// An error of the server, and whether the transaction only met another one.
struct Failure {
    error: Error,
    met: bool,
    /// The connection cannot be used any more.
    broken: bool,
}

fn explain(e: &tokio_postgres::Error, uniques: Option<&BTreeMap<String, String>>) -> Failure {
    let Some(db) = e.as_db_error() else {
        // Types and columns that do not fit are defects; the rest is the connection.
        let source = std::error::Error::source(e).map_or(String::new(), |s| format!(": {s}"));
        let text = match fafnir_tls::sentence(e) {
            Some(why) => format!("Postgres: {why}"),
            None => format!("Postgres: {e}{source}"),
        };
        let defect = e.to_string().starts_with("error serializing")
            || e.to_string().starts_with("error deserializing")
            || e.to_string().starts_with("invalid column");
        return Failure {
            error: if defect { Error::Statement(text) } else { Error::Unusable(text) },
            met: false,
            broken: !defect,
        };
    };
    let text = format!("Postgres: {} ({})", db.message(), db.code().code());
    let column = || match (db.table(), db.column()) {
        (Some(table), Some(column)) => format!("{table}.{column}"),
        _ => text.clone(),
    };
    let (mut met, mut broken) = (false, false);
    let error = match db.code() {
        &SqlState::T_R_SERIALIZATION_FAILURE | &SqlState::T_R_DEADLOCK_DETECTED => {
            met = true;
            Error::Busy(text)
        }
        &SqlState::UNIQUE_VIOLATION => {
            let name = db.constraint().unwrap_or("");
            Error::Constraint(uniques.and_then(|u| u.get(name)).map_or(name, String::as_str).to_owned())
        }
        &SqlState::NOT_NULL_VIOLATION => Error::Constraint(column()),
        &SqlState::CHECK_VIOLATION => Error::Constraint(db.constraint().unwrap_or("").to_owned()),
        &SqlState::FOREIGN_KEY_VIOLATION => Error::Constraint("FOREIGN KEY constraint failed".to_owned()),
        &SqlState::DISK_FULL => Error::DiskFull,
        &SqlState::QUERY_CANCELED | &SqlState::LOCK_NOT_AVAILABLE | &SqlState::TOO_MANY_CONNECTIONS => {
            Error::Busy(text)
        }
        code if ["08", "53", "57", "58", "XX"].contains(&&code.code()[..2]) => {
            broken = true;
            Error::Unusable(text)
        }
        _ => Error::Statement(text),
    };
    Failure { error, met, broken }
}

enum Outcome<T> {
    Done(error::Result<T>),
    /// It met another transaction and left no trace.
    Met(String),
}

/// One attempt, on a blocking thread.
fn run<T>(
    (client, handle, until): (Object, Handle, Option<Instant>),
    uniques: &OnceLock<BTreeMap<String, String>>,
    kind: Kind,
    work: &mut impl FnMut(&mut dyn Tx) -> error::Result<T>,
) -> Outcome<T> {
    let begin = Some(begin(kind, until));
    let mut tx =
        PostgresTx { client, handle, until, uniques, begin, failed: None, met: false, broken: false };
    if kind == Kind::Write
        && let Some(begin) = tx.begin.take()
        && let Err(e) = tx.control(&begin)
    {
        return tx.finish(Err(e.into()));
    }
    let outcome = catch_unwind(AssertUnwindSafe(|| work(&mut tx)))
        .unwrap_or_else(|_| Err(error::Error::internal("the work on the database panicked")));
    // A failed statement dooms the transaction, whatever the closure made of it.
    let outcome = match (outcome, tx.failed.clone()) {
        (Ok(_), Some(e)) => Err(e.into()),
        // Nobody would hear of the commit.
        (Ok(_), None) if kind == Kind::Write && tx.is_late() => Err(silent().into()),
        (outcome, _) => outcome,
    };
    if kind == Kind::Read {
        return tx.leave(outcome);
    }
    let ended = if outcome.is_ok() { tx.control("COMMIT") } else { tx.rollback() };
    match (outcome, ended) {
        (Ok(_), Err(e)) => tx.finish(Err(e.into())),
        (outcome, _) => tx.finish(outcome),
    }
}

/// What opens a transaction: of a request, with the time that the server has for each of its statements. It gives up before
/// we do, and the connection stays.
fn begin(kind: Kind, until: Option<Instant>) -> Cow<'static, str> {
    let begin = match kind {
        Kind::Read => BEGIN_READ,
        Kind::Write => BEGIN_WRITE,
    };
    let left =
        until.map(|until| until.saturating_duration_since(Instant::now()).saturating_sub(deadline::HOP));
    match left {
        Some(left) if left < deadline::STORE_STATEMENT => {
            // 0 would be no limit.
            let ms = left.as_millis().max(1);
            format!("{begin}; SET LOCAL statement_timeout = {ms}").into()
        }
        _ => begin.into(),
    }
}

struct PostgresTx<'a> {
    client: Object,
    handle: Handle,
    /// When whoever waits for it gives up.
    until: Option<Instant>,
    uniques: &'a OnceLock<BTreeMap<String, String>>,
    /// What opens the transaction of a read; goes along with its first statement.
    begin: Option<Cow<'static, str>>,
    /// The first error: nothing more is possible in this transaction.
    failed: Option<Error>,
    met: bool,
    broken: bool,
}

impl PostgresTx<'_> {
    /// Waits for an answer of the server and keeps what failed.
    fn answer<T>(
        &mut self,
        question: impl AsyncFnOnce(&Object) -> Result<T, tokio_postgres::Error>,
    ) -> Result<T, Error> {
        let (client, begin) = (&self.client, self.begin.take());
        let asking = async {
            let Some(begin) = begin else { return question(client).await };
            // Both are under way at once; the server takes them in this order.
            let (begun, answer) = futures::join!(client.batch_execute(&begin), question(client));
            begun.and(answer)
        };
        let failure = match self.handle.block_on(within(self.until, asking)) {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(e)) => explain(&e, self.uniques.get()),
            Err(_) => Failure { error: silent(), met: false, broken: true },
        };
        self.met |= failure.met;
        self.broken |= failure.broken;
        self.failed.get_or_insert(failure.error.clone());
        Err(failure.error)
    }

    fn control(&mut self, sql: &str) -> Result<(), Error> {
        self.answer(async |client| client.batch_execute(sql).await)
    }

    fn rollback(&mut self) -> Result<(), Error> {
        // Late as it may be, the connection is worth a moment.
        self.until = self.until.map(|until| until + deadline::HOP);
        if self.broken { Ok(()) } else { self.control("ROLLBACK") }
    }

    fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    fn check(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(e) => Err(Error::Statement(format!("the transaction has failed before: {e}"))),
        }
    }

    /// Ends a read. Nobody waits for that: the connection goes back to the pool when the server has heard of it.
    fn leave<T>(mut self, outcome: error::Result<T>) -> Outcome<T> {
        if self.begin.take().is_some() || self.broken {
            return self.finish(outcome);
        }
        let client = self.client;
        self.handle.spawn(async move {
            if !matches!(within(None, client.batch_execute("ROLLBACK")).await, Ok(Ok(()))) {
                drop(Object::take(client));
                return;
            }
            bound_statements(&client);
        });
        ended(outcome, self.failed, self.met)
    }

    fn finish<T>(self, outcome: error::Result<T>) -> Outcome<T> {
        let Self { client, failed, met, broken, .. } = self;
        if broken {
            // Closed instead of returned to the pool.
            drop(Object::take(client));
        } else {
            bound_statements(&client);
        }
        ended(outcome, failed, met)
    }
}

fn ended<T>(outcome: error::Result<T>, failed: Option<Error>, met: bool) -> Outcome<T> {
    if met && outcome.is_err() {
        Outcome::Met(failed.map_or_else(String::new, |e| e.to_string()))
    } else {
        Outcome::Done(outcome)
    }
}

fn bound_statements(client: &Object) {
    if client.statement_cache.size() > STATEMENTS_MAX {
        client.statement_cache.clear();
    }
}

fn silent() -> Error {
    Error::Unusable("Postgres does not answer".into())
}

/// Waits until then, and never longer than where nobody waits.
async fn within<T>(until: Option<Instant>, asking: impl Future<Output = T>) -> Result<T, Elapsed> {
    let longest = Instant::now() + deadline::STORE;
    timeout_at(until.map_or(longest, |until| until.min(longest)), asking).await
}

impl Tx for PostgresTx<'_> {
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error> {
        self.check()?;
        if dialect::is_definition(sql) {
            let sql = dialect::definition(sql);
            return self.control(&sql).map(|()| 0);
        }
        let sql = dialect::statement(sql);
        let types = types(params);
        self.answer(async |client| {
            let statement = client.prepare_typed_cached(&sql, &types).await?;
            client.execute_raw(&statement, params).await
        })
    }

    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error> {
        self.check()?;
        let sql = dialect::statement(sql);
        let types = types(params);
        let rows = self.answer(async |client| {
            let statement = client.prepare_typed_cached(&sql, &types).await?;
            let params: Vec<&(dyn ToSql + Sync)> = params.iter().map(|v| v as &(dyn ToSql + Sync)).collect();
            client.query(&statement, &params).await
        })?;
        rows.iter().map(row).collect()
    }

    fn rows_per_statement(&self) -> usize {
        ROWS_PER_STATEMENT
    }

    fn lock_schema(&mut self) -> Result<(), Error> {
        // Each statement sees what the process that had the lock before has committed.
        self.control("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")?;
        self.query("SELECT 1 FROM pg_advisory_xact_lock(?1)", &[Value::Int(MIGRATION_LOCK)]).map(drop)
    }
}

/// The types of parameters; a NULL takes the type that the server infers.
fn types(params: &[Value]) -> Vec<Type> {
    params
        .iter()
        .map(|v| match v {
            Value::Null => Type::UNKNOWN,
            Value::Int(_) => Type::INT8,
            Value::Text(_) => Type::TEXT,
            Value::Blob(_) => Type::BYTEA,
        })
        .collect()
}

fn row(row: &tokio_postgres::Row) -> Result<Row, Error> {
    let values = row.columns().iter().enumerate().map(|(i, column)| {
        let wrong = |e: tokio_postgres::Error| Error::Statement(format!("column {}: {e}", column.name()));
        let int = |i: Option<i64>| i.map_or(Value::Null, Value::Int);
        Ok(match *column.type_() {
            Type::INT8 => int(row.try_get(i).map_err(wrong)?),
            Type::INT4 => int(row.try_get::<_, Option<i32>>(i).map_err(wrong)?.map(i64::from)),
            Type::INT2 => int(row.try_get::<_, Option<i16>>(i).map_err(wrong)?.map(i64::from)),
            Type::BOOL => int(row.try_get::<_, Option<bool>>(i).map_err(wrong)?.map(i64::from)),
            Type::BYTEA => {
                row.try_get::<_, Option<Vec<u8>>>(i).map_err(wrong)?.map_or(Value::Null, Value::Blob)
            }
            Type::TEXT | Type::VARCHAR | Type::BPCHAR | Type::NAME => {
                row.try_get::<_, Option<String>>(i).map_err(wrong)?.map_or(Value::Null, Value::Text)
            }
            ref other => {
                let message = format!("column {} has type {other}: cast it to BIGINT", column.name());
                return Err(Error::Statement(message));
            }
        })
    });
    values.collect::<Result<_, _>>().map(Row)
}

impl ToSql for Value {
    fn to_sql(
        &self,
        ty: &Type,
        out: &mut BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Null => Ok(IsNull::Yes),
            Self::Int(i) => i.to_sql(ty, out),
            Self::Text(t) => t.to_sql(ty, out),
            Self::Blob(b) => b.to_sql(ty, out),
        }
    }

    fn accepts(ty: &Type) -> bool {
        !matches!(*ty, Type::FLOAT4 | Type::FLOAT8)
    }

    to_sql_checked!();
}
