//! A sum of every page of an SQLite file, kept beside it: what is there later is what was written.
//!
//! Pages change in the file at a checkpoint alone. Before one, the sums of its pages are written and synced, after the
//! log that holds the pages: so a page has its sum, or it is in the log. A file whose log is not the one that the sums know was
//! opened by another program, and is summed anew.

use super::Error;
use fafnir_disk::wal::{self, Look};
use rusqlite::Connection;
use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};
use uuid::Uuid;

const MAGIC: [u8; 8] = *b"FAFSUMS1";
/// A block: the checksum of the rest, then sums.
const BLOCK_BYTES: usize = 4096;
const SUMS_PER_BLOCK: usize = BLOCK_BYTES / 4 - 1;
/// Pages compared before others may go on.
pub const LOOK_PAGES: usize = 256;

/// A file beside an SQLite file.
pub fn beside(path: &Path, end: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(end);
    name.into()
}

/// The sums of a file.
#[derive(Debug)]
pub struct Sums {
    path: PathBuf,
    file: File,
    store: Uuid,
    page_bytes: usize,
    /// Salts of the log at the last checkpoint; 0: there was none.
    salts: u64,
    /// By page number less one; 0: not known.
    sums: Vec<u32>,
    /// Pages whose sums run ahead of the file: they are in the log.
    ahead: BTreeSet<u32>,
}

/// A sum is never 0.
fn sum(page: &[u8]) -> u32 {
    crc32c::crc32c(page).max(1)
}

fn unusable(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |e| match e.kind() {
        ErrorKind::StorageFull => Error::DiskFull,
        _ => Error::Unusable(format!("{}: {e}", path.display())),
    }
}

/// The pages of a log's commits.
pub fn pages_of(path: &Path) -> io::Result<(Look, BTreeMap<u32, u32>)> {
    let (mut pages, mut begun) = (BTreeMap::new(), Vec::new());
    let look = wal::look_pages(&beside(path, "-wal"), |page| {
        begun.push((page.number, sum(page.bytes)));
        if page.commits {
            pages.extend(begun.drain(..));
        }
    })?;
    Ok((look, pages))
}

/// Whether a log can be the one that follows a checkpoint of the log with these salts.
fn follows(known: u64, found: u64) -> bool {
    let restarted = (known >> 32).wrapping_add(1) & u64::from(u32::MAX);
    known == 0 || known == found || found >> 32 == restarted
}

impl Sums {
    /// The sums of a file that is open, or new ones where there are none that can be believed.
    pub fn open(path: &Path, store: Uuid, connection: &Connection) -> Result<Self, Error> {
        let page_bytes: u32 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let page_bytes = page_bytes as usize;
        let sums_path = beside(path, "-sums");
        let (look, in_log) = pages_of(path).map_err(unusable(path))?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&sums_path)
            .map_err(unusable(&sums_path))?;
        let ahead: BTreeSet<u32> = in_log.into_keys().collect();
        let mut this = Self {
            path: path.to_owned(),
            file,
            store,
            page_bytes,
            salts: look.salts,
            sums: Vec::new(),
            ahead,
        };
        match this.load(look.salts).map_err(unusable(&sums_path))? {
            Ok(()) => this.check_length()?,
            Err(None) => this.begin()?,
            Err(Some(why)) => {
                tracing::warn!(file = %path.display(), "{why}: its pages are summed anew");
                this.begin()?;
            }
        }
        Ok(this)
    }

    /// Reads the sums; the inner error says why they are not believed, nothing where there are none.
    fn load(&mut self, salts: u64) -> io::Result<Result<(), Option<&'static str>>> {
        let mut bytes = vec![0; usize::try_from(self.file.metadata()?.len()).unwrap_or(0)];
        self.file.read_exact_at(&mut bytes, 0)?;
        let mut blocks = bytes.chunks_exact(BLOCK_BYTES);
        let Some(head) = blocks.next() else { return Ok(Err(None)) };
        let whole = |block: &[u8]| block[..4] == crc32c::crc32c(&block[4..]).to_le_bytes();
        if !whole(head) || head[4..12] != MAGIC {
            return Ok(Err(Some("the sums of the database are damaged")));
        }
        let known = head[36..44].try_into().map_or(0, u64::from_le_bytes);
        if head[12..28] != *self.store.as_bytes() || head[28..36] != (self.page_bytes as u64).to_le_bytes() {
            return Ok(Err(Some("the sums are of another database")));
        }
        if !follows(known, salts) {
            return Ok(Err(Some("another program has opened the database")));
        }
        let count = head[44..52].try_into().map_or(0, u64::from_le_bytes);
        let mut sums = Vec::new();
        for block in blocks {
            if !whole(block) {
                return Ok(Err(Some("the sums of the database are damaged")));
            }
            sums.extend(block[4..].chunks_exact(4).map(|s| u32::from_le_bytes([s[0], s[1], s[2], s[3]])));
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if sums.len() < count {
            return Ok(Err(Some("the sums of the database are cut short")));
        }
        sums.truncate(count);
        (self.sums, self.salts) = (sums, known);
        Ok(Ok(()))
    }

    /// Pages that have sums are there, or in the log.
    fn check_length(&self) -> Result<(), Error> {
        let length = std::fs::metadata(&self.path).map_err(unusable(&self.path))?.len();
        let there = usize::try_from(length).unwrap_or(usize::MAX) / self.page_bytes.max(1);
        let lost = (there + 1..=self.sums.len()).find(|n| !self.ahead.contains(&(*n as u32)));
        match lost {
            None => Ok(()),
            Some(page) => Err(Error::Unusable(format!(
                "{} is cut short at page {page} (offset {length}) of {}: restore a backup with `fafnir restore`",
                self.path.display(),
                self.sums.len()
            ))),
        }
    }

    /// Sums everything as it is now.
    fn begin(&mut self) -> Result<(), Error> {
        let file = File::open(&self.path).map_err(unusable(&self.path))?;
        let mut page = vec![0; self.page_bytes];
        self.sums.clear();
        for number in 0u64.. {
            match file.read_exact_at(&mut page, number * self.page_bytes as u64) {
                Ok(()) => self.sums.push(sum(&page)),
                Err(e) if e.kind() == ErrorKind::UnexpectedEof => break,
                Err(e) => return Err(unusable(&self.path)(e)),
            }
        }
        let all = 0..self.sums.len().div_ceil(SUMS_PER_BLOCK);
        self.file.set_len(0).and_then(|()| self.write(all)).map_err(unusable(&self.path))
    }

    /// Writes blocks of sums and the head, durably.
    fn write(&self, blocks: impl IntoIterator<Item = usize>) -> io::Result<()> {
        let put = |number: u64, block: &mut [u8; BLOCK_BYTES]| {
            let crc = crc32c::crc32c(&block[4..]).to_le_bytes();
            block[..4].copy_from_slice(&crc);
            self.file.write_all_at(block, number * BLOCK_BYTES as u64)
        };
        for number in blocks {
            let mut block = [0; BLOCK_BYTES];
            let first = number * SUMS_PER_BLOCK;
            for (place, sum) in self.sums[first..].iter().take(SUMS_PER_BLOCK).enumerate() {
                block[4 + place * 4..8 + place * 4].copy_from_slice(&sum.to_le_bytes());
            }
            put(number as u64 + 1, &mut block)?;
        }
        let mut head = [0; BLOCK_BYTES];
        head[4..12].copy_from_slice(&MAGIC);
        head[12..28].copy_from_slice(self.store.as_bytes());
        head[28..36].copy_from_slice(&(self.page_bytes as u64).to_le_bytes());
        head[36..44].copy_from_slice(&self.salts.to_le_bytes());
        head[44..52].copy_from_slice(&(self.sums.len() as u64).to_le_bytes());
        put(0, &mut head)?;
        self.file.sync_data()
    }

    /// Brings what is in the log into the file, its sums first. The log must be between two commits. A full disk leaves
    /// everything as it was.
    ///
    /// # Errors
    /// [`Error::Unusable`]: the log is damaged under a running program.
    pub fn checkpoint(&mut self, connection: &Connection) -> Result<(), Error> {
        let (look, pages) = pages_of(&self.path).map_err(unusable(&self.path))?;
        if let Some(refusal) = look.found.refusal() {
            return Err(Error::Unusable(format!("{}: {refusal}", self.path.display())));
        }
        if pages.is_empty() {
            return Ok(());
        }
        let log = beside(&self.path, "-wal");
        File::open(&log).and_then(|f| f.sync_data()).map_err(unusable(&log))?;
        let mut blocks = BTreeSet::new();
        for (number, sum) in &pages {
            let Some(place) = (*number as usize).checked_sub(1) else { continue };
            if self.sums.len() <= place {
                blocks.extend(self.sums.len() / SUMS_PER_BLOCK..=place / SUMS_PER_BLOCK);
                self.sums.resize(place + 1, 0);
            }
            if self.sums[place] != *sum {
                self.sums[place] = *sum;
                blocks.insert(place / SUMS_PER_BLOCK);
            }
        }
        self.salts = look.salts;
        self.ahead.extend(pages.keys().copied());
        self.write(blocks).map_err(unusable(&self.path))?;
        let (busy, in_log, done): (i64, i64, i64) =
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
                Ok((row.get(0)?, row.get(1)?, row.get(2)?))
            })?;
        if busy == 0 && in_log == done {
            self.ahead.clear();
        }
        Ok(())
    }

    /// Brings what is in the log into the file and empties the log, where no reader keeps it from that.
    pub fn empty_log(&mut self, connection: &Connection) -> Result<(), Error> {
        self.checkpoint(connection)?;
        if !self.ahead.is_empty() {
            return Ok(());
        }
        // Whatever log comes next is ours.
        self.salts = 0;
        self.write([]).map_err(unusable(&self.path))?;
        let _done: i64 = connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))?;
        Ok(())
    }

    /// Compares pages from a place on, at most [`LOOK_PAGES`]; answers where to go on, nothing at the end.
    ///
    /// # Errors
    /// A page is not what was written: one sentence.
    pub fn look(&self, from: usize) -> Result<Option<usize>, String> {
        let until = (from + LOOK_PAGES).min(self.sums.len());
        if from >= until {
            return Ok(None);
        }
        let said = |what: String| format!("{}: {what}", self.path.display());
        let file = File::open(&self.path).map_err(|e| said(e.to_string()))?;
        let mut page = vec![0; self.page_bytes];
        for place in from..until {
            let number = place as u32 + 1;
            if self.sums[place] == 0 || self.ahead.contains(&number) {
                continue;
            }
            let offset = place as u64 * self.page_bytes as u64;
            let read = file.read_exact_at(&mut page, offset);
            if read.is_err() || sum(&page) != self.sums[place] {
                return Err(said(format!("page {number} (offset {offset}) is not what was written there")));
            }
        }
        Ok(Some(until))
    }
}
