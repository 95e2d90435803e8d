//! What was removed but is still in the file: noted with the change that removed it, taken out a part at a time.
//!
//! Deleted content is overwritten (`secure_delete`), so taking out a gigabyte writes a gigabyte. At once that would hold up
//! everybody's commits, and on a full disk it would find no room; a note of which messages are gone is one row.

use super::{CommitError, Store, sum};
use crate::core::effects::StreamId;
use crate::core::log::Log;
use rusqlite::{OptionalExtension, params};
use std::collections::HashMap;

/// Bytes of messages that one commit takes out besides its changes; what is more is noted and taken out later.
pub const AT_ONCE_BYTES: u64 = 4 << 20;
/// Bytes of messages that are taken out in one part.
pub const PART_BYTES: u64 = 1 << 20;
/// The same on a disk that is full.
pub const PART_BYTES_FULL: u64 = 128 << 10;
/// Rows that are taken out in one part.
const PART_ROWS: u32 = 2000;
/// The last sequence of a stream that is gone as a whole.
const EVERYTHING: u64 = i64::MAX as u64;

/// Removed messages that are still there, by stream; the ranges of one stream ascend and do not touch.
pub type Removed = HashMap<StreamId, Vec<(u64, u64)>>;

impl Store {
    /// Notes that these messages are gone.
    pub(super) fn note_removed(&mut self, stream: StreamId, first: u64, last: u64) -> rusqlite::Result<()> {
        self.run(
            "INSERT INTO removed (stream, first, last, crc) VALUES (?1, ?2, ?3, ?4) ON CONFLICT (stream, first) DO UPDATE
             SET last = excluded.last, crc = excluded.crc WHERE excluded.last > last",
            params![stream, first as i64, last as i64, sum::numbers(&[u64::from(stream), first, last])],
        )?;
        self.owes = true;
        Ok(())
    }

    /// Notes that a stream is gone with everything in it.
    pub(super) fn drop_stream(&mut self, stream: StreamId) -> rusqlite::Result<()> {
        self.run("DELETE FROM streams WHERE id = ?1", params![stream])?;
        self.run("DELETE FROM last WHERE stream = ?1", params![stream])?;
        self.note_removed(stream, 0, EVERYTHING)
    }

    /// Whether there is something to take out.
    pub fn owes(&self) -> bool {
        self.owes
    }

    /// Takes a part of what was removed out of the file: messages of so many bytes, but at least one.
    pub fn erase(&mut self, bytes: u64) -> Result<(), CommitError> {
        let done = self.run("BEGIN IMMEDIATE", []).and_then(|_| self.erase_part(bytes));
        match done.and_then(|is_left| self.run("COMMIT", []).map(|_| is_left)) {
            Ok(is_left) => {
                self.owes = is_left;
                self.marks.is_due = true;
                Ok(())
            }
            Err(error) => Err(self.undone(&error)),
        }
    }

    /// Whether there is more.
    fn erase_part(&mut self, bytes: u64) -> rusqlite::Result<bool> {
        let row = |row: &rusqlite::Row<'_>| {
            let (stream, first, last) =
                (row.get(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
            super::read::verify(row, 3, sum::numbers(&[u64::from(stream), first, last]), || {
                format!("note of what was removed from stream {stream}")
            })?;
            Ok((stream, first, last))
        };
        let next = "SELECT stream, first, last, crc FROM removed ORDER BY stream, first LIMIT 1";
        let Some((stream, first, last)) =
            self.connection.prepare_cached(next)?.query_row([], row).optional()?
        else {
            return Ok(false);
        };
        let through = self.part_of(stream, (first, last), bytes)?;
        for table in ["index", "body"] {
            self.run(
                &format!("DELETE FROM {table}_{stream} WHERE seq BETWEEN ?1 AND ?2"),
                params![first as i64, through as i64],
            )?;
        }
        let is_dropped = last == EVERYTHING && !self.has_stream(stream);
        let is_done = through >= last && (!is_dropped || self.drop_tables(stream)?);
        self.run("DELETE FROM removed WHERE stream = ?1 AND first = ?2", params![stream, first as i64])?;
        if !is_done {
            let from = if through >= last { first } else { through + 1 };
            self.note_removed(stream, from, last)?;
        }
        let is_left =
            self.connection.query_row("SELECT EXISTS (SELECT 1 FROM removed)", [], |row| row.get(0))?;
        Ok(is_left)
    }

    /// Up to where a range is taken out next: all of it if it has no more than a part.
    fn part_of(&self, stream: StreamId, (first, last): (u64, u64), bytes: u64) -> rusqlite::Result<u64> {
        let sql =
            format!("SELECT seq, size FROM index_{stream} WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq LIMIT ?3");
        let mut statement = self.connection.prepare_cached(&sql)?;
        let mut rows = statement.query(params![first as i64, last as i64, PART_ROWS + 1])?;
        let (mut count, mut sum, mut through) = (0, 0, first);
        while let Some(row) = rows.next()? {
            if count > 0 && (sum >= bytes || count == PART_ROWS) {
                return Ok(through);
            }
            count += 1;
            through = row.get::<_, i64>(0)? as u64;
            sum += u64::from(row.get::<_, u32>(1)?);
        }
        Ok(last)
    }

    /// Takes out message ids that a dropped stream remembered, and its tables when they are empty; whether they were.
    fn drop_tables(&mut self, stream: StreamId) -> rusqlite::Result<bool> {
        let taken = self.run(
            &format!("DELETE FROM dedupe_{stream} WHERE seq IN (SELECT seq FROM dedupe_{stream} ORDER BY seq LIMIT ?1)"),
            params![PART_ROWS],
        )?;
        if taken == PART_ROWS as usize {
            return Ok(false);
        }
        self.connection.flush_prepared_statement_cache();
        for table in ["index", "body", "dedupe"] {
            self.connection.execute_batch(&format!("DROP TABLE IF EXISTS {table}_{stream}"))?;
        }
        Ok(true)
    }

    /// What was removed and is still there.
    pub(super) fn removed(&self) -> rusqlite::Result<Removed> {
        let mut removed = Removed::new();
        let schema: i64 = self.connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        if schema < super::SCHEMA {
            // A store that no broker of this version has opened yet.
            return Ok(removed);
        }
        let mut statement =
            self.connection.prepare("SELECT stream, first, last, crc FROM removed ORDER BY stream, first")?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let (stream, first, last) =
                (row.get(0)?, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as u64);
            super::read::verify(row, 3, sum::numbers(&[u64::from(stream), first, last]), || {
                format!("note of what was removed from stream {stream}")
            })?;
            let ranges = removed.entry(stream).or_default();
            match ranges.last_mut() {
                Some((_, before)) if *before + 1 >= first => *before = last.max(*before),
                _ => ranges.push((first, last)),
            }
        }
        Ok(removed)
    }
}

/// Takes messages up that a scan in ascending order finds, but for those that were removed.
pub struct Kept<'a> {
    ranges: &'a [(u64, u64)],
}

impl<'a> Kept<'a> {
    pub fn new(removed: &'a Removed, log: &Log) -> Self {
        Self { ranges: removed.get(&log.id).map_or(&[], Vec::as_slice) }
    }

    /// Whether this message is still one; sequences ascend.
    pub fn is_kept(&mut self, seq: u64) -> bool {
        while self.ranges.first().is_some_and(|(_, last)| *last < seq) {
            self.ranges = &self.ranges[1..];
        }
        self.ranges.first().is_none_or(|(first, _)| *first > seq)
    }
}
