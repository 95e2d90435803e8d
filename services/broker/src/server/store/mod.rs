//! The store: SQLite with group commit on a thread of its own, and a second connection for reads.
//!
//! Every row carries a checksum, so that a damaged one is refused instead of believed; the write-ahead log is looked
//! through before it is opened, because SQLite takes its first damaged frame for its end.

pub mod erase;
mod marks;
mod read;
mod room;
mod sum;
mod wal;

use crate::core::effects::{ConsumerId, Pair, PendingRecord, StoreOp, StreamId};
use crate::core::log::Message;
use rusqlite::{Connection, ErrorCode, OpenFlags, ffi, params};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

/// SQLite versions below can lose commits when two connections checkpoint.
const SQLITE_MIN: i32 = 3_051_003;
/// Bytes of a page.
const PAGE: u32 = 4096;
/// Length of the write-ahead log from the start: it is seldom longer, and cut back to this.
const LOG_BYTES: u64 = 10 << 20;
/// Length of a file up to which one that cannot be made shorter is rewritten so that it can.
const REWRITE_BYTES: u64 = 64 << 20;
/// Prepared statements that are kept: a dozen for each stream in use.
const STATEMENTS_MAX: usize = 256;
/// Version of the tables.
const SCHEMA: i64 = 3;

const TABLES: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE streams (id INTEGER PRIMARY KEY, record TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE last (stream INTEGER PRIMARY KEY, seq INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE consumers (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, record TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE positions (
    consumer INTEGER PRIMARY KEY, delivered_consumer INTEGER NOT NULL, delivered_stream INTEGER NOT NULL,
    floor_consumer INTEGER NOT NULL, floor_stream INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
CREATE TABLE pending (
    consumer INTEGER NOT NULL, sequence INTEGER NOT NULL, consumer_seq INTEGER NOT NULL, count INTEGER NOT NULL,
    crc INTEGER NOT NULL, PRIMARY KEY (consumer, sequence)) STRICT, WITHOUT ROWID;
";

/// What version 3 has besides.
const REMOVED: &str = "
CREATE TABLE removed (
    stream INTEGER NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, crc INTEGER NOT NULL,
    PRIMARY KEY (stream, first)) STRICT, WITHOUT ROWID;
";

/// Why a store cannot be opened.
pub enum OpenError {
    /// The process of this id has it.
    InUse(String),
    /// What the system or SQLite says.
    Failed(String),
}

/// Why a group of changes is not on disk; none of them is.
#[derive(Debug)]
pub enum CommitError {
    /// No room; it may be tried again.
    Full,
    /// What SQLite says; the store is not to be used any more.
    Failed(String),
}

impl From<String> for OpenError {
    fn from(reason: String) -> Self {
        Self::Failed(reason)
    }
}

/// A connection to the store.
pub struct Store {
    connection: Connection,
    dir: PathBuf,
    /// What the writer last wrote of each consumer: last delivery and floor.
    positions: HashMap<ConsumerId, (Pair, Pair)>,
    marks: marks::Marks,
    /// There is something to take out of the file.
    owes: bool,
    reserve: room::Reserve,
    /// Held by the writer; the system lets go of it when the process ends, however it ends.
    _lock: Option<File>,
}

/// One broker at a time: takes the directory for this process.
fn lock(dir: &Path) -> Result<File, OpenError> {
    let failed = |error: std::io::Error| OpenError::Failed(error.to_string());
    let path = dir.join("lock");
    let mut file =
        OpenOptions::new().create(true).truncate(false).read(true).write(true).open(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(OpenError::InUse(pid.trim().to_owned()));
        }
        Err(TryLockError::Error(error)) => return Err(failed(error)),
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(failed)?;
    Ok(file)
}

/// Messages that one commit removes, and the bytes that they count for.
struct Removal {
    first: u64,
    last: u64,
    bytes: u64,
}

/// What changed of a consumer within one commit.
#[derive(Default)]
struct Dirty {
    delivered: Option<Pair>,
    floor: Option<Pair>,
    through: Option<u64>,
    pending: BTreeMap<u64, Option<PendingRecord>>,
}

impl Dirty {
    fn deliver(&mut self, delivered: Pair, pending: Option<PendingRecord>, floor: Pair) {
        self.delivered = Some(delivered);
        self.floor = Some(floor);
        if let Some(pending) = pending {
            self.pending.insert(pending.sequence, Some(pending));
        }
    }

    /// `through`: with every earlier one.
    fn settle(&mut self, sequence: u64, through: bool, floor: Pair) {
        self.floor = Some(floor);
        if through {
            self.through = self.through.max(Some(sequence));
            self.pending.retain(|other, _| *other > sequence);
        } else if matches!(self.pending.get(&sequence), Some(Some(fresh)) if fresh.count == 1) {
            self.pending.remove(&sequence);
        } else {
            self.pending.insert(sequence, None);
        }
    }
}

impl Store {
    /// Opens the store for writing, making it if needed.
    #[cfg(test)]
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        Self::open_noted(dir, None)
    }

    /// The same where it is noted how far it had come: one that lacks what was noted is refused.
    pub fn open_noted(dir: &Path, note: Option<(PathBuf, [u8; 16])>) -> Result<Self, OpenError> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(format!("SQLite {} is too old, 3.51.3 is needed", rusqlite::version()).into());
        }
        std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let lock = lock(dir)?;
        let path = dir.join("broker.sqlite3");
        let log = dir.join("broker.sqlite3-wal");
        wal::check(&log)?;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&path)?;
            connection.pragma_update(None, "page_size", PAGE)?;
            connection.pragma_update(None, "auto_vacuum", "incremental")?;
            connection.pragma_update_and_check(None, "locking_mode", "normal", |_| Ok(()))?;
            connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "cache_size", -16_000)?;
            // What is deleted (a message with a person's data that has come of age) is overwritten.
            connection.pragma_update_and_check(None, "secure_delete", true, |_| Ok(()))?;
            connection.pragma_update_and_check(None, "journal_size_limit", LOG_BYTES as i64, |_| Ok(()))?;
            connection.pragma_update(None, "temp_store", "memory")?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            let schema: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if schema == 0 {
                connection.execute_batch(&format!(
                    "BEGIN;{TABLES}{REMOVED}PRAGMA user_version = {SCHEMA};COMMIT;"
                ))?;
            } else if schema == SCHEMA - 1 {
                connection
                    .execute_batch(&format!("BEGIN;{REMOVED}PRAGMA user_version = {SCHEMA};COMMIT;"))?;
            }
            let incremental =
                connection.query_row("PRAGMA auto_vacuum", [], |row| row.get::<_, i64>(0))? == 2;
            let pages: u32 = connection.query_row("PRAGMA page_count", [], |row| row.get(0))?;
            if !incremental && u64::from(pages) * u64::from(PAGE) <= REWRITE_BYTES {
                connection.execute_batch("PRAGMA auto_vacuum = incremental; VACUUM")?;
            }
            Ok(connection)
        };
        let connection = open().map_err(|error| error.to_string())?;
        let schema: i64 = connection
            .query_row("PRAGMA user_version", [], |row| row.get(0))
            .map_err(|error| error.to_string())?;
        if schema != SCHEMA {
            let reason = format!("written by another version (schema {schema}, this one reads {SCHEMA})");
            return Err(reason.into());
        }
        // SQLite keeps its locks on other files, and finds the log's end by its frames.
        wal::lengthen(&log, LOG_BYTES).map_err(|error| error.to_string())?;
        let marks = marks::Marks::default();
        let owes = connection
            .query_row("SELECT EXISTS (SELECT 1 FROM removed)", [], |row| row.get(0))
            .map_err(|error| error.to_string())?;
        let (dir, positions) = (dir.to_owned(), HashMap::new());
        let mut this = Self {
            connection,
            dir,
            positions,
            marks,
            owes,
            reserve: room::Reserve::default(),
            _lock: Some(lock),
        };
        if let Err(error) = this.keep_reserve() {
            tracing::warn!(%error, "nothing is kept in reserve on the disk of the broker's store");
        }
        if let Some((path, id)) = note {
            this.open_note(&path, id)?;
        }
        Ok(this)
    }

    /// Only what makes room and need not wait for what comes before it, for a disk without room for the rest of the group.
    /// It may be done again with the group.
    pub fn relieve(&mut self, ops: &[StoreOp]) -> Result<(), CommitError> {
        let dropped: Vec<StreamId> = ops.iter().filter_map(StoreOp::dropped).collect();
        let frees = |op: &&StoreOp| match op {
            StoreOp::MessagesRemove { stream, replaced: false, .. } | StoreOp::DedupeTrim { stream, .. } => {
                !dropped.contains(stream) && self.has_stream(*stream)
            }
            StoreOp::StreamDrop { stream } => self.has_stream(*stream),
            _ => false,
        };
        let freeing: Vec<StoreOp> = ops.iter().filter(frees).cloned().collect();
        if freeing.is_empty() { Ok(()) } else { self.commit_parts(&freeing, 0) }
    }

    fn has_stream(&self, stream: StreamId) -> bool {
        let found = self.connection.query_row("SELECT 1 FROM streams WHERE id = ?1", [stream], |_| Ok(()));
        found.is_ok()
    }

    /// Opens the store for reading beside the writer.
    pub fn open_reader(dir: &Path) -> Result<Self, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open_with_flags(dir.join("broker.sqlite3"), flags)?;
            connection.pragma_update(None, "query_only", true)?;
            connection.pragma_update_and_check(None, "wal_autocheckpoint", 0, |_| Ok(()))?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            Ok(connection)
        };
        let connection = open().map_err(|error| error.to_string())?;
        let marks = marks::Marks::default();
        let (dir, positions) = (dir.to_owned(), HashMap::new());
        Ok(Self {
            connection,
            dir,
            positions,
            marks,
            owes: false,
            reserve: room::Reserve::default(),
            _lock: None,
        })
    }

    /// Writes a group of changes and returns when they are on disk.
    pub fn commit(&mut self, ops: &[StoreOp]) -> Result<(), CommitError> {
        self.commit_parts(ops, erase::AT_ONCE_BYTES)
    }

    /// The same where messages of at most so many bytes are taken out at once.
    fn commit_parts(&mut self, ops: &[StoreOp], at_once: u64) -> Result<(), CommitError> {
        let owed = self.owes;
        match self.apply(ops, at_once) {
            Ok(moved) => {
                self.positions.extend(moved);
                self.marks.is_due = true;
                for op in ops {
                    if let StoreOp::ConsumerDrop { consumer } = op {
                        self.positions.remove(consumer);
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.owes = owed;
                Err(self.undone(&error))
            }
        }
    }

    /// Undoes what a transaction did; why it failed.
    fn undone(&self, error: &rusqlite::Error) -> CommitError {
        // Some failures have rolled back already.
        let _ = self.connection.execute_batch("ROLLBACK");
        let code = error.sqlite_error().map(|error| error.extended_code);
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => CommitError::Full,
            // The log's index needs room too.
            _ if matches!(code, Some(ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP)) => {
                CommitError::Full
            }
            _ => CommitError::Failed(error.to_string()),
        }
    }

    fn apply(
        &mut self,
        ops: &[StoreOp],
        mut at_once: u64,
    ) -> rusqlite::Result<Vec<(ConsumerId, (Pair, Pair))>> {
        self.run("BEGIN IMMEDIATE", [])?;
        let mut dirty: BTreeMap<ConsumerId, Dirty> = BTreeMap::new();
        let mut removals: BTreeMap<StreamId, (Vec<Removal>, u64)> = BTreeMap::new();
        for op in ops {
            match op {
                StoreOp::StreamPut { stream, json } => self.put_stream(*stream, json)?,
                StoreOp::StreamDrop { stream } => {
                    removals.remove(stream);
                    self.drop_stream(*stream)?;
                }
                StoreOp::MessagePut { stream, message, size, dedupe } => {
                    self.put_message(*stream, message, *size, dedupe.as_deref())?;
                }
                StoreOp::MessagesRemove { stream, first, last, last_seq, bytes, .. } => {
                    let (ranges, known) = removals.entry(*stream).or_default();
                    *known = (*known).max(*last_seq);
                    match ranges.last_mut() {
                        Some(range) if range.last + 1 == *first => {
                            range.last = *last;
                            range.bytes += bytes;
                        }
                        _ => ranges.push(Removal { first: *first, last: *last, bytes: *bytes }),
                    }
                }
                StoreOp::DedupeTrim { stream, below } => {
                    self.run(&format!("DELETE FROM dedupe_{stream} WHERE seq < ?1"), params![*below as i64])?;
                }
                StoreOp::ConsumerPut { stream, consumer, json } => {
                    self.run(
                        "INSERT OR REPLACE INTO consumers (id, stream, record, crc) VALUES (?1, ?2, ?3, ?4)",
                        params![consumer, stream, json, sum::consumer(*consumer, *stream, json)],
                    )?;
                    self.put_meta("consumer_last", *consumer)?;
                }
                StoreOp::ConsumerDrop { consumer } => {
                    dirty.remove(consumer);
                    self.run("DELETE FROM pending WHERE consumer = ?1", params![consumer])?;
                    self.run("DELETE FROM positions WHERE consumer = ?1", params![consumer])?;
                    self.run("DELETE FROM consumers WHERE id = ?1", params![consumer])?;
                }
                StoreOp::Delivered { consumer, delivered, pending, floor } => {
                    dirty.entry(*consumer).or_default().deliver(*delivered, *pending, *floor);
                }
                StoreOp::Settled { consumer, sequence, through, floor } => {
                    dirty.entry(*consumer).or_default().settle(*sequence, *through, *floor);
                }
            }
        }
        for (stream, (ranges, last_seq)) in removals {
            self.remove_messages(stream, &ranges, last_seq, &mut at_once)?;
        }
        let mut moved = Vec::new();
        for (consumer, dirty) in dirty {
            let (delivered, floor) = self.positions.get(&consumer).copied().unwrap_or_default();
            let position = (dirty.delivered.unwrap_or(delivered), dirty.floor.unwrap_or(floor));
            self.put_position(consumer, position)?;
            self.put_pending(consumer, &dirty)?;
            moved.push((consumer, position));
        }
        self.run("COMMIT", [])?;
        Ok(moved)
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    fn put_meta(&self, key: &str, value: u32) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO meta (key, value, crc) VALUES (?1, ?2, ?3) ON CONFLICT (key) DO UPDATE
             SET value = excluded.value, crc = excluded.crc WHERE excluded.value > value",
            params![key, value, sum::keyed(key, u64::from(value))],
        )?;
        Ok(())
    }

    fn put_stream(&self, stream: StreamId, json: &str) -> rusqlite::Result<()> {
        self.run(
            "INSERT OR REPLACE INTO streams (id, record, crc) VALUES (?1, ?2, ?3)",
            params![stream, json, sum::keyed(json, u64::from(stream))],
        )?;
        self.put_meta("stream_last", stream)?;
        self.connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS index_{stream} (
                 seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, size INTEGER NOT NULL, subject TEXT NOT NULL,
                 body INTEGER NOT NULL, crc INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS body_{stream} (seq INTEGER PRIMARY KEY, header BLOB, payload BLOB) STRICT;
             CREATE TABLE IF NOT EXISTS dedupe_{stream} (
                 seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, id TEXT NOT NULL, crc INTEGER NOT NULL) STRICT;"
        ))
    }

    fn put_message(
        &self,
        stream: StreamId,
        message: &Message,
        size: u32,
        dedupe: Option<&str>,
    ) -> rusqlite::Result<()> {
        let seq = message.seq as i64;
        let body = sum::body(&message.header, &message.payload);
        let crc = sum::index(message.seq, message.ts, size, &message.subject, body);
        self.run(
            &format!(
                "INSERT INTO index_{stream} (seq, ts, size, subject, body, crc) VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
            ),
            params![seq, message.ts as i64, size, &*message.subject, body, crc],
        )?;
        let header = (!message.header.is_empty()).then_some(&message.header[..]);
        let payload = (!message.payload.is_empty()).then_some(&message.payload[..]);
        self.run(
            &format!("INSERT INTO body_{stream} (seq, header, payload) VALUES (?1, ?2, ?3)"),
            params![seq, header, payload],
        )?;
        if let Some(id) = dedupe {
            self.run(
                &format!("INSERT INTO dedupe_{stream} (seq, ts, id, crc) VALUES (?1, ?2, ?3, ?4)"),
                params![seq, message.ts as i64, id, sum::dedupe(message.seq, message.ts, id)],
            )?;
        }
        Ok(())
    }

    /// What is more than may be taken out at once is noted.
    fn remove_messages(
        &mut self,
        stream: StreamId,
        ranges: &[Removal],
        last_seq: u64,
        at_once: &mut u64,
    ) -> rusqlite::Result<()> {
        for Removal { first, last, bytes } in ranges {
            if bytes > at_once {
                self.note_removed(stream, *first, *last)?;
                continue;
            }
            *at_once -= bytes;
            for table in ["index", "body"] {
                self.run(
                    &format!("DELETE FROM {table}_{stream} WHERE seq BETWEEN ?1 AND ?2"),
                    params![*first as i64, *last as i64],
                )?;
            }
        }
        self.run(
            "INSERT INTO last (stream, seq, crc) VALUES (?1, ?2, ?3)
             ON CONFLICT (stream) DO UPDATE SET seq = excluded.seq, crc = excluded.crc WHERE excluded.seq > seq",
            params![stream, last_seq as i64, sum::numbers(&[u64::from(stream), last_seq])],
        )?;
        Ok(())
    }

    fn put_position(
        &self,
        consumer: ConsumerId,
        (delivered, floor): (Pair, Pair),
    ) -> rusqlite::Result<usize> {
        self.run(
            "INSERT OR REPLACE INTO positions
             (consumer, delivered_consumer, delivered_stream, floor_consumer, floor_stream, crc)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                consumer,
                delivered.consumer as i64,
                delivered.stream as i64,
                floor.consumer as i64,
                floor.stream as i64,
                sum::position(consumer, delivered, floor)
            ],
        )
    }

    fn put_pending(&self, consumer: ConsumerId, dirty: &Dirty) -> rusqlite::Result<()> {
        if let Some(through) = dirty.through {
            self.run(
                "DELETE FROM pending WHERE consumer = ?1 AND sequence <= ?2",
                params![consumer, through as i64],
            )?;
        }
        for (sequence, pending) in &dirty.pending {
            match pending {
                Some(pending) => self.run(
                    "INSERT OR REPLACE INTO pending (consumer, sequence, consumer_seq, count, crc)
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        consumer,
                        *sequence as i64,
                        pending.consumer_seq as i64,
                        pending.count as i64,
                        sum::pending(consumer, pending)
                    ],
                )?,
                None => self.run(
                    "DELETE FROM pending WHERE consumer = ?1 AND sequence = ?2",
                    params![consumer, *sequence as i64],
                )?,
            };
        }
        Ok(())
    }

    /// Ends [`Store::check`] from elsewhere.
    pub fn interrupt_handle(&self) -> rusqlite::InterruptHandle {
        self.connection.get_interrupt_handle()
    }

    /// Looks at every page; the first fault found is the error.
    pub fn check(&self) -> Result<(), String> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| error.to_string())?;
        if found != "ok" {
            return Err(format!("damaged: {found}"));
        }
        self.check_bodies().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
pub(super) mod tests;
