//! Room on the disk: how much there is, a reserve for when there is none, and the file made shorter.
//!
//! The write-ahead log can begin anew only when its pages are in the database, which may have to grow for them. A disk that
//! is full to its last byte would have no room for that, so a file of its own keeps some: it goes when the disk is full and
//! comes back with the room.

use super::{PAGE, Store, wal};
use crate::core::effects::StoreOp;
use std::fs::File;
use std::path::Path;

/// Free pages above which, and above a quarter of all, the file is made shorter.
const FREE_PAGES: u64 = 4096;
/// The same while there is no room for new messages.
const FREE_PAGES_SHORT: u64 = 64;
/// Pages by which it is made shorter at once.
const SHORTEN_PAGES: u64 = 1000;
/// Pages in the write-ahead log that start a checkpoint.
const CHECKPOINT_PAGES: u64 = 2000;
/// The fewest, on a small disk.
const CHECKPOINT_PAGES_MIN: u64 = 64;
/// Bytes in reserve: for a log, a group of changes, and something for both to go on with.
const RESERVE_BYTES: u64 = 24 << 20;
/// Part of what is free that may be kept in reserve.
const RESERVE_PART: u64 = 8;
/// What is less is not worth it.
const RESERVE_MIN: u64 = 64 << 10;
/// Part of the reserve that a log, or a group, may be long.
const LOG_PART: u64 = 3;
/// Bytes that a message takes up besides its own, and any commit besides its messages.
const ROW_BYTES: u64 = 1 << 10;
const COMMIT_BYTES: u64 = 256 << 10;
const RESERVE: &str = "reserve";

/// What is kept on the disk for when it is full.
#[derive(Default)]
pub struct Reserve {
    /// Bytes, also while they are given up.
    bytes: u64,
    is_there: bool,
}

/// Bytes free on the disk of a directory.
pub fn disk_free(dir: &Path) -> std::io::Result<u64> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(found.f_bavail.saturating_mul(found.f_frsize))
}

/// Makes a file of so many bytes that the disk has.
fn keep(path: &Path, bytes: u64) -> std::io::Result<()> {
    let file = File::create(path)?;
    let made = match rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, bytes) {
        // Not every file system can.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => wal::append_zeros(path, bytes),
        outcome => outcome.map_err(Into::into),
    };
    if made.is_err() {
        let _ = std::fs::remove_file(path);
    }
    made
}

impl Store {
    /// Bytes that are free for new messages: on the disk and, if the log has room beside them, in the file.
    pub fn free_bytes(&self) -> Result<u64, String> {
        let disk = disk_free(&self.dir).map_err(|error| error.to_string())?;
        if disk < 2 * self.log_bytes() {
            return Ok(disk);
        }
        let (free, _) = self.pages()?;
        Ok(disk.saturating_add(free * u64::from(PAGE)))
    }

    /// Length of the log at which it is written into the file; as many bytes of messages may be written at once.
    pub fn log_bytes(&self) -> u64 {
        self.log_pages() * u64::from(PAGE)
    }

    fn log_pages(&self) -> u64 {
        (self.reserve.bytes / LOG_PART / u64::from(PAGE)).clamp(CHECKPOINT_PAGES_MIN, CHECKPOINT_PAGES)
    }

    /// Whether the disk has so little that the next log might not get into the file.
    pub fn is_short(&self) -> bool {
        disk_free(&self.dir).is_ok_and(|free| free < self.reserve.bytes)
    }

    /// Whether these changes leave the disk enough for the log to get into the file. Those without messages always may be
    /// tried: the log has its length already.
    pub fn fits(&self, ops: &[StoreOp]) -> bool {
        let messages = || ops.iter().filter(|op| matches!(op, StoreOp::MessagePut { .. }));
        let bytes: u64 = messages().map(|op| op.bytes() as u64 + ROW_BYTES).sum();
        bytes == 0 || disk_free(&self.dir).is_ok_and(|free| free >= 2 * (bytes + bytes / 8 + COMMIT_BYTES))
    }

    /// Free pages of the file, and all.
    fn pages(&self) -> Result<(u64, u64), String> {
        let number =
            |sql: &str| self.connection.query_row(sql, [], |row| row.get::<_, u32>(0).map(u64::from));
        number("PRAGMA freelist_count")
            .and_then(|free| Ok((free, number("PRAGMA page_count")?)))
            .map_err(|error| error.to_string())
    }

    /// Whether the file is much longer than what is in it; where there is no room, whether it is longer at all.
    pub fn is_long(&self, room: bool) -> bool {
        let most = if room { FREE_PAGES } else { FREE_PAGES_SHORT };
        self.pages().is_ok_and(|(free, all)| free > most && free > all / 4)
    }

    /// Gives some of the free pages back to the disk; false when that does not work now.
    pub fn shorten(&self) -> bool {
        let before = self.pages();
        let pages = SHORTEN_PAGES.min(self.log_pages() / 2);
        let done = self.connection.execute_batch(&format!("PRAGMA incremental_vacuum({pages})"));
        // Other than a commit it does not do that by itself.
        self.checkpoint();
        done.is_ok() && before.is_ok_and(|before| self.pages().is_ok_and(|after| after.0 < before.0))
    }

    /// Puts the reserve there if it is not and there is room for it.
    pub fn keep_reserve(&mut self) -> std::io::Result<()> {
        let path = self.dir.join(RESERVE);
        let free = disk_free(&self.dir)?;
        if let Ok(found) = std::fs::metadata(&path) {
            self.reserve = Reserve { bytes: found.len(), is_there: true };
        } else {
            if self.reserve.bytes == 0 {
                let most = free / RESERVE_PART / u64::from(PAGE) * u64::from(PAGE);
                self.reserve.bytes =
                    Some(RESERVE_BYTES.min(most)).filter(|bytes| *bytes >= RESERVE_MIN).unwrap_or(0);
            }
            if self.reserve.bytes > 0 && free >= 2 * self.reserve.bytes {
                keep(&path, self.reserve.bytes)?;
                self.reserve.is_there = true;
            }
        }
        self.connection
            .pragma_update_and_check(None, "wal_autocheckpoint", self.log_pages() as i64, |_| Ok(()))
            .map_err(std::io::Error::other)
    }

    /// Whether the reserve is there, or none can be.
    pub fn has_reserve(&self) -> bool {
        self.reserve.is_there || self.reserve.bytes == 0
    }

    /// For a disk that is short: the log goes into the file, and gets the length with which acks and deletions are written
    /// while there is no room.
    pub fn brace(&self) {
        self.checkpoint();
        if let Ok(free) = disk_free(&self.dir) {
            // What cannot be had is tried again when it is needed.
            let _ = wal::append_zeros(&self.dir.join("broker.sqlite3-wal"), self.log_bytes().min(free / 2));
        }
    }

    /// Gives the reserve up, so that the log gets into the file and begins anew; whether that made room.
    pub fn make_way(&mut self) -> bool {
        let made = std::mem::take(&mut self.reserve.is_there)
            && std::fs::remove_file(self.dir.join(RESERVE)).is_ok();
        self.brace();
        made
    }

    /// Writes the log into the file, as far as nobody reads what is older.
    pub fn checkpoint(&self) {
        let busy = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
        if let Err(error) = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], busy) {
            tracing::warn!(%error, "the log of the broker's store does not fit into it");
        }
    }
}
