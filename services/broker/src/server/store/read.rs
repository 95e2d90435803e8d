//! Reading the store: everything at start, messages later. A row whose checksum is wrong is an error.

use super::erase::{Kept, Removed};
use super::{Store, sum};
use crate::core::Recovered;
use crate::core::effects::{ConsumerId, Load, Pair, PendingRecord, StreamId};
use crate::core::log::{Log, Message};
use crate::core::net::Nanos;
use crate::core::records::{StoredConsumer, StoredStream, StreamRecord};
use bytes::Bytes;
use rusqlite::{OptionalExtension, Row, params};
use std::collections::HashMap;

impl Store {
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
        let removed = self.removed()?;
        let mut statement = self.connection.prepare("SELECT id, record, crc FROM streams ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, json) = (row.get::<_, u32>(0)?, row.get::<_, String>(1)?);
            verify(row, 2, sum::keyed(&json, u64::from(id)), || format!("description of stream {id}"))?;
            let record: StreamRecord = decode(&json)?;
            let log = self.log(id, &record, &removed)?;
            let dedupe = self.dedupe(id, now.saturating_sub(record.config.duplicate_window.max(0) as u64))?;
            let last_seq = self.last(id)?.max(log.last_seq);
            let consumers = consumers.remove(&id).unwrap_or_default();
            recovered.streams.push((log, StoredStream { id, record, last_seq, dedupe, consumers }));
        }
        drop(rows);
        drop(statement);
        for (_, stream) in &recovered.streams {
            let positions = stream.consumers.iter().map(|found| (found.id, (found.delivered, found.floor)));
            self.positions.extend(positions);
        }
        Ok(recovered)
    }

    fn log(&self, id: StreamId, record: &StreamRecord, removed: &Removed) -> rusqlite::Result<Log> {
        let mut log = Log::new(id, record.config.clone(), record.created);
        let mut kept = Kept::new(removed, &log);
        let sql = format!("SELECT seq, ts, size, subject, body, crc FROM index_{id} ORDER BY seq");
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (seq, ts, size) = (number(row, 0)?, number(row, 1)?, row.get(2)?);
            let subject = row.get_ref(3)?.as_str()?;
            verify(row, 5, sum::index(seq, ts, size, subject, row.get(4)?), || {
                format!("message {seq} of stream {id}")
            })?;
            if kept.is_kept(seq) {
                log.recover(seq, ts, size, subject);
            }
        }
        Ok(log)
    }

    fn dedupe(&self, id: StreamId, cutoff: Nanos) -> rusqlite::Result<Vec<(u64, Nanos, Box<str>)>> {
        let sql = format!("SELECT seq, ts, id, crc FROM dedupe_{id} ORDER BY seq");
        let mut statement = self.connection.prepare(&sql)?;
        let mut rows = statement.query([])?;
        let mut found = Vec::new();
        while let Some(row) = rows.next()? {
            let (seq, ts, text) = (number(row, 0)?, number(row, 1)?, row.get_ref(2)?.as_str()?);
            verify(row, 3, sum::dedupe(seq, ts, text), || format!("message id {seq} of stream {id}"))?;
            if ts > cutoff {
                found.push((seq, ts, text.into()));
            }
        }
        Ok(found)
    }

    /// Reads every message's header and payload against its checksum.
    pub(super) fn check_bodies(&self) -> rusqlite::Result<()> {
        let mut streams = self.connection.prepare("SELECT id FROM streams ORDER BY id")?;
        let ids = streams.query_map([], |row| row.get::<_, StreamId>(0))?.collect::<Result<Vec<_>, _>>()?;
        for id in ids {
            let sql = format!(
                "SELECT i.seq, i.body, b.header, b.payload FROM index_{id} AS i LEFT JOIN body_{id} AS b ON b.seq = i.seq"
            );
            let mut statement = self.connection.prepare(&sql)?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let header: Option<Vec<u8>> = row.get(2)?;
                let payload: Option<Vec<u8>> = row.get(3)?;
                let sum = sum::body(&header.unwrap_or_default(), &payload.unwrap_or_default());
                let seq = number(row, 0)?;
                verify(row, 1, sum, || format!("content of message {seq} of stream {id}"))?;
            }
        }
        Ok(())
    }

    fn last(&self, id: StreamId) -> rusqlite::Result<u64> {
        let read = |row: &Row<'_>| {
            let seq = number(row, 0)?;
            verify(row, 1, sum::numbers(&[u64::from(id), seq]), || format!("last sequence of stream {id}"))?;
            Ok(seq)
        };
        let found = self
            .connection
            .query_row("SELECT seq, crc FROM last WHERE stream = ?1", [id], read)
            .optional()?;
        Ok(found.unwrap_or(0))
    }

    pub(super) fn meta(&self, key: &str) -> rusqlite::Result<u32> {
        let read = |row: &Row<'_>| {
            let value: u32 = row.get(0)?;
            verify(row, 1, sum::keyed(key, u64::from(value)), || key.to_owned())?;
            Ok(value)
        };
        let found = self
            .connection
            .query_row("SELECT value, crc FROM meta WHERE key = ?1", [key], read)
            .optional()?;
        Ok(found.unwrap_or(0))
    }

    fn consumers(&self) -> rusqlite::Result<HashMap<StreamId, Vec<StoredConsumer>>> {
        let mut pending = self.pending()?;
        let mut positions = HashMap::new();
        let mut statement = self.connection.prepare(
            "SELECT consumer, delivered_consumer, delivered_stream, floor_consumer, floor_stream, crc FROM positions",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let id: ConsumerId = row.get(0)?;
            let delivered = Pair { consumer: number(row, 1)?, stream: number(row, 2)? };
            let floor = Pair { consumer: number(row, 3)?, stream: number(row, 4)? };
            verify(row, 5, sum::position(id, delivered, floor), || format!("position of consumer {id}"))?;
            positions.insert(id, (delivered, floor));
        }
        let mut found: HashMap<StreamId, Vec<StoredConsumer>> = HashMap::new();
        let mut statement =
            self.connection.prepare("SELECT id, stream, record, crc FROM consumers ORDER BY id")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (id, stream, json): (ConsumerId, StreamId, String) = (row.get(0)?, row.get(1)?, row.get(2)?);
            verify(row, 3, sum::consumer(id, stream, &json), || format!("description of consumer {id}"))?;
            let (delivered, floor) = positions.remove(&id).unwrap_or_default();
            let pending = pending.remove(&id).unwrap_or_default();
            let record = decode(&json)?;
            found.entry(stream).or_default().push(StoredConsumer { id, record, delivered, floor, pending });
        }
        Ok(found)
    }

    fn pending(&self) -> rusqlite::Result<HashMap<ConsumerId, Vec<PendingRecord>>> {
        let mut pending: HashMap<ConsumerId, Vec<PendingRecord>> = HashMap::new();
        let mut statement = self.connection.prepare(
            "SELECT consumer, sequence, consumer_seq, count, crc FROM pending ORDER BY consumer, sequence",
        )?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let consumer: ConsumerId = row.get(0)?;
            let record = PendingRecord {
                sequence: number(row, 1)?,
                consumer_seq: number(row, 2)?,
                count: number(row, 3)?,
            };
            verify(row, 4, sum::pending(consumer, &record), || {
                format!("delivery of {} by consumer {consumer}", record.sequence)
            })?;
            pending.entry(consumer).or_default().push(record);
        }
        Ok(pending)
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
            "SELECT i.seq, i.ts, i.size, i.subject, i.crc, b.header, b.payload
             FROM index_{stream} i LEFT JOIN body_{stream} b USING (seq)
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
                seq: number(row, 0)?,
                ts: number(row, 1)?,
                subject: row.get_ref(3)?.as_str()?.into(),
                header: blob(5)?,
                payload: blob(6)?,
            };
            // Over what was read, not over what the row says of its body.
            let body = sum::body(&message.header, &message.payload);
            verify(row, 4, sum::index(message.seq, message.ts, row.get(2)?, &message.subject, body), || {
                format!("message {} of stream {stream}", message.seq)
            })?;
            bytes += message.header.len() + message.payload.len();
            messages.push(message);
            if bytes >= load.bytes_max {
                break;
            }
        }
        Ok(messages)
    }
}

fn number(row: &Row<'_>, at: usize) -> rusqlite::Result<u64> {
    row.get::<_, i64>(at).map(|number| number as u64)
}

pub(super) fn verify(
    row: &Row<'_>,
    at: usize,
    sum: u32,
    what: impl FnOnce() -> String,
) -> rusqlite::Result<()> {
    if row.get::<_, i64>(at)? == i64::from(sum) {
        return Ok(());
    }
    Err(rusqlite::Error::ToSqlConversionFailure(format!("{} is damaged", what()).into()))
}

fn decode<T: serde::de::DeserializeOwned>(json: &str) -> rusqlite::Result<T> {
    serde_json::from_str(json).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}
