//! The store: SQLite with group commit on a thread of its own, and a second connection for reads.

use crate::core::Recovered;
use crate::core::effects::{ConsumerId, Load, Pair, PendingRecord, StoreOp, StreamId};
use crate::core::log::{Log, Message};
use crate::core::net::Nanos;
use crate::core::records::{StoredConsumer, StoredStream};
use bytes::Bytes;
use rusqlite::{Connection, OpenFlags, OptionalExtension, params};
use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::Path;

/// SQLite versions below can lose commits when two connections checkpoint.
const SQLITE_MIN: i32 = 3_051_003;
/// Pages in the write-ahead log that start a checkpoint.
const CHECKPOINT_PAGES: u32 = 4000;
/// Pages given back to the file system per commit of a removal.
const STATEMENTS_MAX: usize = 256;
/// Version of the tables.
const SCHEMA: i64 = 1;

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS streams (
    id INTEGER PRIMARY KEY, record TEXT NOT NULL, last_seq INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS consumers (
    id INTEGER PRIMARY KEY, stream INTEGER NOT NULL, record TEXT NOT NULL,
    delivered_consumer INTEGER NOT NULL DEFAULT 0, delivered_stream INTEGER NOT NULL DEFAULT 0,
    floor_consumer INTEGER NOT NULL DEFAULT 0, floor_stream INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE IF NOT EXISTS pending (
    consumer INTEGER NOT NULL, sequence INTEGER NOT NULL, consumer_seq INTEGER NOT NULL, count INTEGER NOT NULL,
    PRIMARY KEY (consumer, sequence)) STRICT, WITHOUT ROWID;
";

/// Why a store cannot be opened.
pub enum OpenError {
    /// The process of this id has it.
    InUse(String),
    /// What the system or SQLite says.
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
    last_seqs: HashMap<StreamId, u64>,
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

/// What changed of a consumer within one commit.
#[derive(Default)]
struct Dirty {
    position: Option<(Pair, Pair)>,
    floor: Option<Pair>,
    through: Option<u64>,
    pending: BTreeMap<u64, Option<PendingRecord>>,
}

impl Store {
    /// Opens the store for writing, making it if needed.
    pub fn open(dir: &Path) -> Result<Self, OpenError> {
        if rusqlite::version_number() < SQLITE_MIN {
            return Err(format!("SQLite {} is too old, 3.51.3 is needed", rusqlite::version()).into());
        }
        std::fs::create_dir_all(dir).map_err(|error| error.to_string())?;
        let lock = lock(dir)?;
        let path = dir.join("broker.sqlite3");
        let open = || -> rusqlite::Result<Connection> {
            let connection = Connection::open(&path)?;
            connection.pragma_update(None, "page_size", 8192)?;
            connection.pragma_update_and_check(None, "locking_mode", "normal", |_| Ok(()))?;
            connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(()))?;
            connection.pragma_update(None, "synchronous", "full")?;
            connection.pragma_update(None, "cache_size", -16_000)?;
            connection.pragma_update_and_check(None, "wal_autocheckpoint", CHECKPOINT_PAGES, |_| Ok(()))?;
            connection.busy_timeout(std::time::Duration::from_secs(5))?;
            connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
            let schema: i64 = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
            if schema == 0 {
                connection.execute_batch(TABLES)?;
                connection.pragma_update(None, "user_version", SCHEMA)?;
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
        Ok(Self { connection, last_seqs: HashMap::new(), _lock: Some(lock) })
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
        Ok(Self { connection, last_seqs: HashMap::new(), _lock: None })
    }

    /// Everything but payloads.
    pub fn recover(&mut self, now: Nanos) -> Result<Recovered, String> {
        self.read_all(now).map_err(|error| error.to_string())
    }

    fn read_all(&mut self, now: Nanos) -> rusqlite::Result<Recovered> {
        let mut recovered = Recovered {
            stream_last: self.meta("stream_last")?,
            consumer_last: self.meta("consumer_last")?,
            ..Recovered::default()
        };
        let mut consumers = self.consumers()?;
        let mut statement =
            self.connection.prepare("SELECT id, record, last_seq FROM streams ORDER BY id")?;
        let streams = statement
            .query_map([], |row| {
                Ok((row.get::<_, u32>(0)?, row.get::<_, String>(1)?, row.get::<_, i64>(2)?))
            })?
            .collect::<rusqlite::Result<Vec<_>>>()?;
        drop(statement);
        for (id, json, last_seq) in streams {
            let record: crate::core::records::StreamRecord = decode(&json)?;
            let mut log = Log::new(id, record.config.clone(), record.created);
            let mut statement = self
                .connection
                .prepare(&format!("SELECT seq, ts, size, subject FROM index_{id} ORDER BY seq"))?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let subject = row.get_ref(3)?.as_str()?;
                log.recover(row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64, row.get(2)?, subject);
            }
            let cutoff = now.saturating_sub(record.config.duplicate_window.max(0) as u64);
            let mut statement = self
                .connection
                .prepare(&format!("SELECT seq, ts, id FROM dedupe_{id} WHERE ts > ?1 ORDER BY seq"))?;
            let dedupe = statement
                .query_map([cutoff as i64], |row| {
                    Ok((
                        row.get::<_, i64>(0)? as u64,
                        row.get::<_, i64>(1)? as u64,
                        row.get::<_, Box<str>>(2)?,
                    ))
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            let last_seq = (last_seq as u64).max(log.last_seq);
            self.last_seqs.insert(id, last_seq);
            let consumers = consumers.remove(&id).unwrap_or_default();
            recovered.streams.push((log, StoredStream { id, record, last_seq, dedupe, consumers }));
        }
        Ok(recovered)
    }

    fn meta(&self, key: &str) -> rusqlite::Result<u32> {
        let found = self
            .connection
            .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| row.get(0))
            .optional()?;
        Ok(found.unwrap_or(0))
    }

    fn consumers(&self) -> rusqlite::Result<HashMap<StreamId, Vec<StoredConsumer>>> {
        let mut pending: HashMap<ConsumerId, Vec<PendingRecord>> = HashMap::new();
        let mut statement = self.connection.prepare(
            "SELECT consumer, sequence, consumer_seq, count FROM pending ORDER BY consumer, sequence",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            pending.entry(row.get(0)?).or_default().push(PendingRecord {
                sequence: row.get::<_, i64>(1)? as u64,
                consumer_seq: row.get::<_, i64>(2)? as u64,
                count: row.get::<_, i64>(3)? as u64,
            });
        }
        let mut found: HashMap<StreamId, Vec<StoredConsumer>> = HashMap::new();
        let mut statement = self.connection.prepare(
            "SELECT id, stream, record, delivered_consumer, delivered_stream, floor_consumer, floor_stream
             FROM consumers ORDER BY id",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: ConsumerId = row.get(0)?;
            let number = |at: usize| row.get::<_, i64>(at).map(|number| number as u64);
            found.entry(row.get(1)?).or_default().push(StoredConsumer {
                id,
                record: decode(&row.get::<_, String>(2)?)?,
                delivered: Pair { consumer: number(3)?, stream: number(4)? },
                floor: Pair { consumer: number(5)?, stream: number(6)? },
                pending: pending.remove(&id).unwrap_or_default(),
            });
        }
        Ok(found)
    }

    /// Writes a group of changes and returns when they are on disk.
    pub fn commit(&mut self, ops: &[StoreOp]) -> Result<(), String> {
        self.apply(ops).map_err(|error| {
            let _ = self.connection.execute_batch("ROLLBACK");
            error.to_string()
        })
    }

    fn apply(&mut self, ops: &[StoreOp]) -> rusqlite::Result<()> {
        self.connection.execute_batch("BEGIN IMMEDIATE")?;
        let mut dirty: BTreeMap<ConsumerId, Dirty> = BTreeMap::new();
        let mut removals: BTreeMap<StreamId, (Vec<(u64, u64)>, u64)> = BTreeMap::new();
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
                StoreOp::MessagesRemove { stream, first, last, last_seq } => {
                    let (ranges, known) = removals.entry(*stream).or_default();
                    *known = (*known).max(*last_seq);
                    match ranges.last_mut() {
                        Some(range) if range.1 + 1 == *first => range.1 = *last,
                        _ => ranges.push((*first, *last)),
                    }
                }
                StoreOp::DedupeTrim { stream, below } => {
                    self.run(&format!("DELETE FROM dedupe_{stream} WHERE seq < ?1"), params![*below as i64])?;
                }
                StoreOp::ConsumerPut { stream, consumer, json } => {
                    self.run(
                        "INSERT INTO consumers (id, stream, record) VALUES (?1, ?2, ?3)
                         ON CONFLICT (id) DO UPDATE SET record = excluded.record",
                        params![consumer, stream, json],
                    )?;
                    self.put_meta("consumer_last", *consumer)?;
                }
                StoreOp::ConsumerDrop { consumer } => {
                    dirty.remove(consumer);
                    self.run("DELETE FROM pending WHERE consumer = ?1", params![consumer])?;
                    self.run("DELETE FROM consumers WHERE id = ?1", params![consumer])?;
                }
                StoreOp::Delivered { consumer, delivered, pending, floor } => {
                    let dirty = dirty.entry(*consumer).or_default();
                    dirty.position = Some((*delivered, *floor));
                    dirty.floor = Some(*floor);
                    if let Some(pending) = pending {
                        dirty.pending.insert(pending.sequence, Some(*pending));
                    }
                }
                StoreOp::Settled { consumer, sequence, through, floor } => {
                    let dirty = dirty.entry(*consumer).or_default();
                    dirty.floor = Some(*floor);
                    if *through {
                        dirty.through = dirty.through.max(Some(*sequence));
                        dirty.pending.retain(|other, _| other > sequence);
                    } else if matches!(dirty.pending.get(sequence), Some(Some(fresh)) if fresh.count == 1) {
                        dirty.pending.remove(sequence);
                    } else {
                        dirty.pending.insert(*sequence, None);
                    }
                }
            }
        }
        for (stream, (ranges, last_seq)) in removals {
            for (first, last) in ranges {
                for table in ["index", "body"] {
                    self.run(
                        &format!("DELETE FROM {table}_{stream} WHERE seq BETWEEN ?1 AND ?2"),
                        params![first as i64, last as i64],
                    )?;
                }
            }
            self.run(
                "UPDATE streams SET last_seq = max(last_seq, ?2) WHERE id = ?1",
                params![stream, last_seq as i64],
            )?;
        }
        for (consumer, dirty) in dirty {
            self.put_dirty(consumer, &dirty)?;
        }
        self.connection.execute_batch("COMMIT")
    }

    fn run(&self, sql: &str, params: impl rusqlite::Params) -> rusqlite::Result<usize> {
        self.connection.prepare_cached(sql)?.execute(params)
    }

    fn put_meta(&self, key: &str, value: u32) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO meta (key, value) VALUES (?1, ?2)
             ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
            params![key, value],
        )?;
        Ok(())
    }

    fn put_stream(&self, stream: StreamId, json: &str) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO streams (id, record) VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET record = excluded.record",
            params![stream, json],
        )?;
        self.put_meta("stream_last", stream)?;
        self.connection.execute_batch(&format!(
            "CREATE TABLE IF NOT EXISTS index_{stream} (
                 seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, size INTEGER NOT NULL, subject TEXT NOT NULL,
                 crc INTEGER NOT NULL) STRICT;
             CREATE TABLE IF NOT EXISTS body_{stream} (seq INTEGER PRIMARY KEY, header BLOB, payload BLOB) STRICT;
             CREATE TABLE IF NOT EXISTS dedupe_{stream} (
                 seq INTEGER PRIMARY KEY, ts INTEGER NOT NULL, id TEXT NOT NULL) STRICT;"
        ))
    }

    fn drop_stream(&mut self, stream: StreamId) -> rusqlite::Result<()> {
        self.connection.flush_prepared_statement_cache();
        self.run("DELETE FROM streams WHERE id = ?1", params![stream])?;
        for table in ["index", "body", "dedupe"] {
            self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {table}_{stream}"))?;
        }
        Ok(())
    }

    fn put_message(
        &self,
        stream: StreamId,
        message: &Message,
        size: u32,
        dedupe: Option<&str>,
    ) -> rusqlite::Result<()> {
        let seq = message.seq as i64;
        self.run(
            &format!("INSERT INTO index_{stream} (seq, ts, size, subject, crc) VALUES (?1, ?2, ?3, ?4, ?5)"),
            params![seq, message.ts as i64, size, &*message.subject, crc(message)],
        )?;
        let header = (!message.header.is_empty()).then_some(&message.header[..]);
        let payload = (!message.payload.is_empty()).then_some(&message.payload[..]);
        self.run(
            &format!("INSERT INTO body_{stream} (seq, header, payload) VALUES (?1, ?2, ?3)"),
            params![seq, header, payload],
        )?;
        if let Some(id) = dedupe {
            self.run(
                &format!("INSERT INTO dedupe_{stream} (seq, ts, id) VALUES (?1, ?2, ?3)"),
                params![seq, message.ts as i64, id],
            )?;
        }
        Ok(())
    }

    fn put_dirty(&self, consumer: ConsumerId, dirty: &Dirty) -> rusqlite::Result<()> {
        if let Some((delivered, _)) = dirty.position {
            self.run(
                "UPDATE consumers SET delivered_consumer = ?2, delivered_stream = ?3 WHERE id = ?1",
                params![consumer, delivered.consumer as i64, delivered.stream as i64],
            )?;
        }
        if let Some(floor) = dirty.floor {
            self.run(
                "UPDATE consumers SET floor_consumer = ?2, floor_stream = ?3 WHERE id = ?1",
                params![consumer, floor.consumer as i64, floor.stream as i64],
            )?;
        }
        if let Some(through) = dirty.through {
            self.run(
                "DELETE FROM pending WHERE consumer = ?1 AND sequence <= ?2",
                params![consumer, through as i64],
            )?;
        }
        for (sequence, pending) in &dirty.pending {
            match pending {
                Some(pending) => self.run(
                    "INSERT INTO pending (consumer, sequence, consumer_seq, count) VALUES (?1, ?2, ?3, ?4)
                     ON CONFLICT (consumer, sequence) DO UPDATE SET count = excluded.count",
                    params![consumer, *sequence as i64, pending.consumer_seq as i64, pending.count as i64],
                )?,
                None => self.run(
                    "DELETE FROM pending WHERE consumer = ?1 AND sequence = ?2",
                    params![consumer, *sequence as i64],
                )?,
            };
        }
        Ok(())
    }

    /// Looks at every page; the first fault found is the error.
    pub fn check(&self) -> Result<(), String> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| error.to_string())?;
        if found == "ok" { Ok(()) } else { Err(format!("damaged: {found}")) }
    }

    /// Reads stored messages.
    pub fn load(&self, load: &Load) -> Result<Vec<Message>, String> {
        self.read(load).or_else(|error| match &error {
            // The stream was deleted meanwhile.
            rusqlite::Error::SqliteFailure(_, Some(text)) if text.starts_with("no such table") => {
                Ok(Vec::new())
            }
            _ => Err(error.to_string()),
        })
    }

    fn read(&self, load: &Load) -> rusqlite::Result<Vec<Message>> {
        let stream = load.stream;
        let mut statement = self.connection.prepare_cached(&format!(
            "SELECT i.seq, i.ts, i.subject, b.header, b.payload, i.crc FROM index_{stream} i JOIN body_{stream} b USING (seq)
             WHERE i.seq >= ?1 ORDER BY i.seq LIMIT ?2"
        ))?;
        let mut rows = statement.query(params![load.from as i64, load.count_max as i64])?;
        let mut messages = Vec::new();
        let mut bytes = 0;
        while let Some(row) = rows.next()? {
            let blob = |at: usize| -> rusqlite::Result<Bytes> {
                Ok(row.get_ref(at)?.as_blob_or_null()?.map(Bytes::copy_from_slice).unwrap_or_default())
            };
            let message = Message {
                seq: row.get::<_, i64>(0)? as u64,
                ts: row.get::<_, i64>(1)? as u64,
                subject: row.get_ref(2)?.as_str()?.into(),
                header: blob(3)?,
                payload: blob(4)?,
            };
            if crc(&message) != row.get::<_, u32>(5)? {
                let reason = format!("message {} of stream {stream} is damaged", message.seq);
                return Err(rusqlite::Error::ToSqlConversionFailure(reason.into()));
            }
            bytes += message.header.len() + message.payload.len();
            messages.push(message);
            if bytes >= load.bytes_max {
                break;
            }
        }
        Ok(messages)
    }
}

/// Checksum over everything that is stored of a message.
fn crc(message: &Message) -> u32 {
    let sum = crc32c::crc32c(&message.seq.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &message.ts.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, message.subject.as_bytes());
    let sum = crc32c::crc32c_append(sum, &(message.header.len() as u64).to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &message.header);
    crc32c::crc32c_append(sum, &message.payload)
}

fn decode<T: serde::de::DeserializeOwned>(json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}
