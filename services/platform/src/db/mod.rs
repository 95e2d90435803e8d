//! One database per service: SQLite files by default, Postgres at scale, behind one `Tx` and the same SQL.
//!
//! Statements use `?1 … ?N`, `ON CONFLICT` and `RETURNING`; sums are cast (`CAST(SUM(x) AS BIGINT)`). Closures given to
//! [`Db::write`] may run again after a serialization failure: they have no side effects. What a closure wrote is on disk
//! when `write` returns `Ok`; when it returns `Err` nothing of it is. A statement that fails dooms its transaction: the
//! closure returns the error, and a closure that swallows it does not commit.

pub mod audit_outbox;
mod copies;
#[cfg(test)]
mod damage;
mod dialect;
pub mod inbox;
pub mod many;
pub mod outbox;
mod own;
mod postgres;
mod secured;
mod server;
mod sqlite;
mod sums;
#[cfg(test)]
mod tests;
pub mod transfer;

pub use secured::with_authority;

pub use copies::Copies;
pub use sqlite::quick_check;

use super::{
    clock::Clock,
    config::Settings,
    disk::Disk,
    error,
    health::Health,
    manifest::{Found, Manifest},
    tasks::{Next, Schedule, Tasks},
};
use own::Owner;
use parking_lot::Mutex;
use sqlite::Use;
use std::{path::Path, sync::Arc, time::Duration};
use uuid::Uuid;

/// When a database is first looked through after its start, and how often from then on.
const LOOK_FIRST: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_hours(24);

/// A value of a column or a parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

/// A row of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row(pub Vec<Value>);

/// Why a statement failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// A constraint refused the row: `table.column, table.column` of a unique or primary key in the order of its
    /// definition, `table.column` of a NOT NULL, the name of a CHECK, the same on every back end.
    #[error("constraint {0}")]
    Constraint(String),
    /// Two transactions met; the platform has already tried again.
    #[error("the database is busy: {0}")]
    Busy(String),
    /// The disk is full or takes no writes: nothing was written.
    #[error("the disk takes no writes: it is full or read-only")]
    DiskFull,
    /// The database cannot be opened or used.
    #[error("{0}")]
    Unusable(String),
    /// The statement or the type of a column is wrong: a defect.
    #[error("{0}")]
    Statement(String),
}

impl Error {
    /// Whether trying again later can help.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Busy(_) | Self::DiskFull | Self::Unusable(_))
    }
}

/// A transaction: what a store function works on.
pub trait Tx {
    /// Runs a statement, answers the number of rows changed.
    fn execute(&mut self, sql: &str, params: &[Value]) -> Result<u64, Error>;
    /// Runs a query (or a statement with `RETURNING`), answers every row.
    fn query(&mut self, sql: &str, params: &[Value]) -> Result<Vec<Row>, Error>;

    /// How many rows one statement should carry: each is a way to the server and back on Postgres, and none on SQLite.
    fn rows_per_statement(&self) -> usize {
        1
    }

    /// Keeps other processes from migrating at the same time, until the end of the transaction. SQLite has one writer.
    fn lock_schema(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// The first row, if any.
    fn query_opt(&mut self, sql: &str, params: &[Value]) -> Result<Option<Row>, Error> {
        Ok(self.query(sql, params)?.into_iter().next())
    }
    /// The one row that a query like `SELECT COUNT(*)` always has.
    fn query_one(&mut self, sql: &str, params: &[Value]) -> Result<Row, Error> {
        self.query_opt(sql, params)?.ok_or_else(|| Error::Statement(format!("no row: {sql}")))
    }
}

/// A type that a column can be read as.
pub trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

impl Row {
    /// Column `index`, from 0.
    pub fn get<T: FromValue>(&self, index: usize) -> Result<T, Error> {
        self.0
            .get(index)
            .and_then(T::from_value)
            .ok_or_else(|| Error::Statement(format!("column {index} is {:?}", self.0.get(index))))
    }
}

macro_rules! integer {
    ($($type:ty),*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                if let Value::Int(i) = value { <$type>::try_from(*i).ok() } else { None }
            }
        }
    )*};
}
integer!(i64, i32, u64, u32, u16, u8, usize);

impl FromValue for bool {
    fn from_value(value: &Value) -> Option<Self> {
        i64::from_value(value).map(|i| i != 0)
    }
}
impl FromValue for String {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(t) = value { Some(t.clone()) } else { None }
    }
}
impl FromValue for Vec<u8> {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Blob(b) = value { Some(b.clone()) } else { None }
    }
}
impl FromValue for uuid::Uuid {
    fn from_value(value: &Value) -> Option<Self> {
        if let Value::Text(t) = value { t.parse().ok() } else { None }
    }
}
macro_rules! ids {
    ($($type:ident),*) => {$(
        impl FromValue for fafnir_proto::id::$type {
            fn from_value(value: &Value) -> Option<Self> {
                uuid::Uuid::from_value(value).map(Self::new)
            }
        }
        impl From<fafnir_proto::id::$type> for Value {
            fn from(id: fafnir_proto::id::$type) -> Self { Self::Text(id.to_string()) }
        }
        impl From<&fafnir_proto::id::$type> for Value {
            fn from(id: &fafnir_proto::id::$type) -> Self { Self::Text(id.to_string()) }
        }
    )*};
}
ids!(UserId, SessionId, AccountId, OrderId);

impl<T: FromValue> FromValue for Option<T> {
    fn from_value(value: &Value) -> Option<Self> {
        if *value == Value::Null { Some(None) } else { T::from_value(value).map(Some) }
    }
}

macro_rules! into_int {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(i: $type) -> Self { Self::Int(i64::from(i)) }
        }
    )*};
}
into_int!(i64, i32, u32, u16, u8, bool);
impl From<u64> for Value {
    /// Sequence numbers and counts: beyond i64 they saturate, which no counter reaches.
    fn from(i: u64) -> Self {
        Self::Int(i64::try_from(i).unwrap_or(i64::MAX))
    }
}
impl From<usize> for Value {
    fn from(i: usize) -> Self {
        Self::from(i as u64)
    }
}
impl From<&str> for Value {
    fn from(t: &str) -> Self {
        Self::Text(t.to_owned())
    }
}
impl From<String> for Value {
    fn from(t: String) -> Self {
        Self::Text(t)
    }
}
impl From<&String> for Value {
    fn from(t: &String) -> Self {
        Self::Text(t.clone())
    }
}
impl From<uuid::Uuid> for Value {
    fn from(id: uuid::Uuid) -> Self {
        Self::Text(id.to_string())
    }
}
impl From<&uuid::Uuid> for Value {
    fn from(id: &uuid::Uuid) -> Self {
        Self::Text(id.to_string())
    }
}
impl From<Vec<u8>> for Value {
    fn from(b: Vec<u8>) -> Self {
        Self::Blob(b)
    }
}
impl From<&[u8]> for Value {
    fn from(b: &[u8]) -> Self {
        Self::Blob(b.to_vec())
    }
}
impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(v: Option<T>) -> Self {
        v.map_or(Self::Null, Into::into)
    }
}

/// Parameters of a statement: `params![id, symbol, qty]`.
#[macro_export]
macro_rules! params {
    ($($value:expr),* $(,)?) => { &[$($crate::db::Value::from($value)),*] };
}

/// One step of a schema, written for SQLite STRICT tables; never changed once released.
#[derive(Debug, Clone, Copy)]
pub struct Migration {
    /// File name, e.g. `0001_init`; they run in order.
    pub name: &'static str,
    pub sql: &'static str,
}

/// The file `migrations/<name>.sql` of the crate that names it.
#[macro_export]
macro_rules! migration {
    ($name:literal) => {
        $crate::db::Migration {
            name: $name,
            sql: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations/", $name, ".sql")),
        }
    };
}

/// A service's own database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Db {
    backend: Arc<Backend>,
    /// Nothing is written while it has no room.
    disk: Disk,
    /// The manifest beside it on its server.
    server: Option<server::Server>,
}

#[derive(Debug)]
enum Backend {
    Sqlite(Box<sqlite::Sqlite>),
    Postgres(Arc<postgres::Postgres>),
}

/// Work without its type: what runs it is compiled once, not for each of the services' closures.
type Work = Box<dyn FnMut(&mut dyn Tx) -> error::Result<()> + Send>;
/// Where a run leaves what it answers; the last run, of those that were repeated, counts.
type Answer<T> = Arc<Mutex<Option<T>>>;

fn erased<T, F>(mut work: F) -> (Answer<T>, Work)
where
    T: Send + 'static,
    F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
{
    let answer = Answer::default();
    let left = Arc::clone(&answer);
    let work = move |tx: &mut dyn Tx| {
        *left.lock() = Some(work(tx)?);
        Ok(())
    };
    (answer, Box::new(work))
}

fn answered<T>(answer: &Answer<T>) -> error::Result<T> {
    answer.lock().take().ok_or_else(|| error::Error::internal("work on the database ended without an answer"))
}

impl Db {
    fn on(backend: Backend) -> Self {
        Self { backend: Arc::new(backend), disk: Disk::default(), server: None }
    }

    /// The same database, which takes nothing while this disk has no room.
    #[must_use]
    pub fn minding(self, disk: Disk) -> Self {
        Self { disk, ..self }
    }

    /// Opens the database of `service` and applies what is missing of its migrations.
    pub async fn open(
        settings: &Settings,
        service: &'static str,
        migrations: &'static [Migration],
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, Error> {
        Self::open_for(settings, service, migrations, Use::Write, tasks, clock).await
    }

    /// The same for what is made from the facts alone: after a power failure the last commits may be gone, their facts
    /// come again.
    pub async fn open_projection(
        settings: &Settings,
        service: &'static str,
        migrations: &'static [Migration],
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, Error> {
        Self::open_for(settings, service, migrations, Use::WriteBehind, tasks, clock).await
    }

    async fn open_for(
        settings: &Settings,
        service: &'static str,
        migrations: &'static [Migration],
        purpose: Use,
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, Error> {
        if !settings.database.url.is_empty() {
            let projection = purpose == Use::WriteBehind;
            return server::open(settings, service, migrations, projection, tasks, clock.now_us()).await;
        }
        let dir = settings.data_dir();
        let owner = Owner {
            manifest: Manifest::of(&dir),
            store: service,
            projection: purpose == Use::WriteBehind,
            now_us: clock.now_us(),
        };
        let path = dir.join("db").join(format!("{service}.sqlite"));
        Self::open_file(path, Some(owner), service, migrations, purpose, tasks, clock).await
    }

    /// Opens an SQLite file (tests).
    pub async fn open_sqlite(
        path: std::path::PathBuf,
        service: &'static str,
        migrations: &'static [Migration],
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, Error> {
        Self::open_file(path, None, service, migrations, Use::Write, tasks, clock).await
    }

    async fn open_file(
        path: std::path::PathBuf,
        owner: Option<Owner>,
        service: &'static str,
        migrations: &'static [Migration],
        purpose: Use,
        tasks: &Tasks,
        clock: &Clock,
    ) -> Result<Self, Error> {
        let sqlite = sqlite::Sqlite::open(path, service, purpose, owner, tasks)?;
        let db = Self::on(Backend::Sqlite(Box::new(sqlite)));
        // On SQLite it has its id.
        db.migrate(migrations, clock.now_us(), Uuid::nil()).await?;
        if let Backend::Sqlite(sqlite) = &*db.backend {
            sqlite.made()?;
        }
        Ok(db)
    }

    /// Looks through the database once it has started and once a day: every page of an SQLite file against its sum, and
    /// what SQLite itself finds.
    ///
    /// # Errors
    /// What is damaged, in one sentence.
    pub async fn look(&self) -> Result<(), String> {
        if let Backend::Postgres(_) = &*self.backend {
            return Ok(());
        }
        let this = self.clone();
        let look = tokio::task::spawn_blocking(move || match &*this.backend {
            Backend::Sqlite(sqlite) => sqlite.look(),
            Backend::Postgres(_) => Ok(()),
        });
        look.await.map_err(|e| e.to_string())?
    }

    /// Brings everything of an SQLite database into its file and empties its log: nothing that was deleted stays there.
    pub async fn empty_log(&self) -> Result<(), Error> {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.empty_log().await,
            Backend::Postgres(_) => Ok(()),
        }
    }

    /// What is stored is damaged: from here on it is only read, and the service says so.
    pub fn found_damaged(&self, service: &'static str, health: &Health, why: &str) {
        if let Backend::Sqlite(sqlite) = &*self.backend {
            sqlite.found_damaged(why);
        }
        health.damaged(&format!("{why}; it only reads until it is restored"));
        metrics::gauge!("fafnir_store_damaged", "service" => service).set(1.0);
        tracing::error!(
            service,
            "{why}: the service only reads from here on; restore a backup with `fafnir restore`"
        );
    }

    /// Looks through the database in the background ([`Self::look`]); what is found makes it read-only.
    pub(crate) fn watch(&self, service: &'static str, tasks: &Tasks, health: &Health) {
        if matches!(&*self.backend, Backend::Postgres(_)) {
            // Without it nothing that is stored can be read.
            let db = self.clone();
            health.needs(tasks, service, "Postgres", move || {
                let db = db.clone();
                async move { db.read(|tx| tx.query("SELECT 1", &[]).map(drop).map_err(Into::into)).await }
            });
        }
        let (db, health) = (self.clone(), health.clone());
        tasks.every(format!("{service}: look at the database"), Schedule::after(LOOK_FIRST), move || {
            let (db, health) = (db.clone(), health.clone());
            async move {
                match db.look().await {
                    Ok(()) => db.empty_log().await?,
                    Err(why) => db.found_damaged(service, &health, &why),
                }
                Ok::<_, Error>(Next::After(LOOK_EVERY))
            }
        });
    }

    /// Opens a database of a Postgres server that no manifest names (tests, what is copied), creating it when it is missing.
    pub async fn open_postgres(
        url: &str,
        name: &str,
        migrations: &'static [Migration],
        clock: &Clock,
    ) -> Result<Self, Error> {
        let db = Self::on(Backend::Postgres(Arc::new(postgres::Postgres::open(url, name).await?)));
        db.migrate(migrations, clock.now_us(), Uuid::new_v4()).await?;
        if let Backend::Postgres(postgres) = &*db.backend {
            postgres.learn_constraints().await?;
        }
        Ok(db)
    }

    /// Runs `work` in a transaction and commits it. Many callers share one commit.
    pub async fn write<T, F>(&self, work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        self.disk.permit()?;
        self.write_anyway(work).await
    }

    /// The same while the disk has little room: for what makes room, and for what has happened already.
    pub async fn write_anyway<T, F>(&self, work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        let (answer, work) = erased(work);
        self.write_erased(work).await?;
        answered(&answer)
    }

    async fn write_erased(&self, work: Work) -> error::Result<()> {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.write(work).await,
            Backend::Postgres(postgres) => postgres.write(work).await,
        }
    }

    /// Runs `work` on a snapshot; it cannot change anything.
    pub async fn read<T, F>(&self, work: F) -> error::Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut dyn Tx) -> error::Result<T> + Send + 'static,
    {
        let (answer, work) = erased(work);
        self.read_erased(work).await?;
        answered(&answer)
    }

    async fn read_erased(&self, work: Work) -> error::Result<()> {
        match &*self.backend {
            Backend::Sqlite(sqlite) => sqlite.read(work).await,
            Backend::Postgres(postgres) => postgres.read(work).await,
        }
    }

    /// Commits so far, where this process alone writes the database: two equal counts around a read say that what was
    /// read is still so. A commit is counted before its caller hears of it. `None` on Postgres, where other processes
    /// write too.
    fn commits(&self) -> Option<u64> {
        match &*self.backend {
            Backend::Sqlite(sqlite) => Some(sqlite.commits()),
            Backend::Postgres(_) => None,
        }
    }

    /// Follows this exchange where it follows none yet; answers the one that it follows.
    pub async fn follows(&self, exchange: Uuid) -> error::Result<Uuid> {
        let follows = self.write(move |tx| own::follows(tx, exchange)).await?;
        match &self.server {
            // What it stands beside belongs with the same one.
            Some(server) if follows == exchange => server.follows(exchange).await,
            _ => Ok(follows),
        }
    }

    /// Whether this process is the one that follows the facts into the database; becomes it where nobody is. An SQLite file
    /// has one process.
    pub async fn lead(&self) -> error::Result<bool> {
        match &*self.backend {
            Backend::Sqlite(_) => Ok(true),
            Backend::Postgres(postgres) => Ok(postgres.lead().await?),
        }
    }

    /// Leaves the following to another process.
    pub async fn resign(&self) {
        if let Backend::Postgres(postgres) = &*self.backend {
            postgres.resign().await;
        }
    }

    async fn migrate(&self, migrations: &'static [Migration], now_us: i64, id: Uuid) -> Result<(), Error> {
        let result = self
            .write(move |tx| {
                tx.lock_schema()?;
                tx.execute(own::TABLE, &[])?;
                own::put_id(tx, id)?;
                let known = |name: &str| migrations.iter().any(|m| m.name == name);
                tx.execute(
                    "CREATE TABLE IF NOT EXISTS schema_migrations (name TEXT PRIMARY KEY, checksum TEXT NOT NULL, applied_us BIGINT NOT NULL)",
                    &[],
                )?;
                let applied = tx.query("SELECT name FROM schema_migrations ORDER BY name", &[])?;
                for row in &applied {
                    let name: String = row.get(0)?;
                    if !known(&name) {
                        let text = format!("its schema has {name}, which this program does not know: a newer program wrote it");
                        return Err(Error::Unusable(text).into());
                    }
                }
                for migration in migrations {
                    let checksum = format!("{:08x}", crc32c::crc32c(migration.sql.as_bytes()));
                    let row = tx.query_opt("SELECT checksum FROM schema_migrations WHERE name = ?1", params![migration.name])?;
                    match row.map(|r| r.get::<String>(0)).transpose()? {
                        Some(applied) if applied == checksum => {}
                        Some(_) => {
                            let text = format!(
                                "it was made by another version of the program, whose schema cannot be taken over (migration {} \
                                 was changed after it was applied): back it up and start a new one",
                                migration.name
                            );
                            return Err(Error::Unusable(text).into());
                        }
                        None => {
                            for statement in statements(migration.sql) {
                                tx.execute(&statement, &[])?;
                            }
                            tx.execute(
                                "INSERT INTO schema_migrations (name, checksum, applied_us) VALUES (?1, ?2, ?3)",
                                params![migration.name, checksum, now_us],
                            )?;
                        }
                    }
                }
                Ok(())
            })
            .await;
        result.map_err(|e| match e {
            error::Error::Db(e) => e,
            other => Error::Unusable(other.to_string()),
        })
    }
}

/// The id of the store in an SQLite file, where it has one; its log is looked through before.
pub fn store_id(path: &Path) -> Result<Option<Uuid>, Error> {
    own::check_log(path, false)?;
    Ok(match own::found(path)? {
        Found::Store(id) => Some(id),
        Found::Nothing | Found::Empty | Found::Nameless => None,
    })
}

/// Whether a Postgres server has a database.
///
/// # Errors
/// The server does not answer.
pub async fn exists_postgres(url: &str, name: &str) -> Result<bool, Error> {
    postgres::exists(url, name).await
}

/// The database that the manifest of a prefix is in, beside the others.
pub fn manifest_name(prefix: &str) -> String {
    server::name(prefix)
}

/// The store of a data directory that is a server's manifest.
pub const SERVER: &str = server::STORE;

/// Forgets the database of a service that was taken away from a server on purpose.
///
/// # Errors
/// The server does not answer, or its manifest is not the one that the data directory was used with.
pub async fn forget_postgres(settings: &Settings, service: &'static str, now_us: i64) -> Result<(), Error> {
    server::Server::open(settings, now_us).await?.forget(service).await
}

/// Whether a Postgres server keeps checksums of its pages.
///
/// # Errors
/// The server does not answer.
pub async fn checksums_postgres(url: &str) -> Result<bool, Error> {
    postgres::checksums(url).await
}

/// Removes a database of a Postgres server, where it is there.
///
/// # Errors
/// The server does not answer, or somebody uses it.
pub async fn drop_postgres(url: &str, name: &str) -> Result<(), Error> {
    postgres::drop_database(url, name).await
}

/// Gives a database of a Postgres server another name; `false` where it is not there.
///
/// # Errors
/// The server does not answer, or somebody uses it.
pub async fn rename_postgres(url: &str, name: &str, to: &str) -> Result<bool, Error> {
    postgres::rename(url, name, to).await
}

/// The database of a service on a Postgres server: `auth-service` → `<prefix>auth_db` (public-api §1).
pub fn postgres_name(prefix: &str, service: &str) -> String {
    let name = service.strip_suffix("-service").unwrap_or(service).replace('-', "_");
    format!("{prefix}{name}_db")
}

/// The statements of a migration: separated by `;` at a line's end, comments left out.
fn statements(sql: &str) -> Vec<String> {
    let code: Vec<&str> = sql.lines().map(|l| l.split("--").next().unwrap_or("").trim_end()).collect();
    code.join("\n")
        .split(";\n")
        .map(|s| s.trim().trim_end_matches(';').trim().to_owned())
        .filter(|s| !s.is_empty())
        .collect()
}
