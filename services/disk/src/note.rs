//! How far a store had come, written beside it once a second: what is behind the note later has been lost.
//!
//! A note is not synced, so it can be older than the store, never younger than what the store had made durable. Two
//! slots are written in turn, so that one that was cut short leaves the other.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::Path,
};

const MAGIC: [u8; 8] = *b"FAFNOTE1";
const SLOT_BYTES: usize = 56;
/// Slots lie in sectors of their own.
const SLOT_EVERY: u64 = 512;

/// What a store had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mark {
    /// The store's id.
    pub store: [u8; 16],
    /// A number that only grows: the last command, the mark in the database.
    pub reached: u64,
    /// Checksum of what is there, where the store has one; else 0.
    pub chain: u32,
}

/// What a file of notes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Said {
    /// There is none.
    Nothing,
    Mark(Mark),
    /// The file is there and neither slot can be read.
    Unreadable,
}

/// The writer of a store's notes.
#[derive(Debug)]
pub struct Note {
    file: File,
    turn: u64,
}

fn encode(turn: u64, mark: &Mark) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..8].copy_from_slice(&MAGIC);
    slot[8..16].copy_from_slice(&turn.to_le_bytes());
    slot[16..32].copy_from_slice(&mark.store);
    slot[32..40].copy_from_slice(&mark.reached.to_le_bytes());
    slot[40..44].copy_from_slice(&mark.chain.to_le_bytes());
    let crc = crc32c::crc32c(&slot[..SLOT_BYTES - 4]);
    slot[SLOT_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    slot
}

fn decode(slot: &[u8]) -> Option<(u64, Mark)> {
    let slot: &[u8; SLOT_BYTES] = slot.get(..SLOT_BYTES)?.try_into().ok()?;
    let crc = crc32c::crc32c(&slot[..SLOT_BYTES - 4]).to_le_bytes();
    if slot[..8] != MAGIC || slot[SLOT_BYTES - 4..] != crc {
        return None;
    }
    let number = |at: usize| slot[at..at + 8].try_into().map_or(0, u64::from_le_bytes);
    let mut mark = Mark { reached: number(32), ..Mark::default() };
    mark.store.copy_from_slice(&slot[16..32]);
    mark.chain = slot[40..44].try_into().map_or(0, u32::from_le_bytes);
    Some((number(8), mark))
}

fn slots(file: &File) -> io::Result<Option<(u64, Mark)>> {
    let mut newest: Option<(u64, Mark)> = None;
    for place in 0..2 {
        let mut slot = [0; SLOT_BYTES];
        match file.read_exact_at(&mut slot, place * SLOT_EVERY) {
            Ok(()) => {}
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => continue,
            Err(e) => return Err(e),
        }
        if let Some(found) = decode(&slot).filter(|(turn, _)| newest.is_none_or(|(n, _)| n < *turn)) {
            newest = Some(found);
        }
    }
    Ok(newest)
}

/// Reads a file of notes.
pub fn read(path: &Path) -> io::Result<Said> {
    let file = match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Said::Nothing),
        opened => opened?,
    };
    Ok(match slots(&file)? {
        Some((_, mark)) => Said::Mark(mark),
        None if file.metadata()?.len() == 0 => Said::Nothing,
        None => Said::Unreadable,
    })
}

impl Note {
    /// Opens a file of notes to write on; what it says stays until the first one.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).truncate(false).read(true).write(true).mode(0o600).open(path)?;
        let turn = slots(&file)?.map_or(0, |(turn, _)| turn);
        Ok(Self { file, turn })
    }

    /// Writes a note in the other slot.
    pub fn write(&mut self, mark: &Mark) -> io::Result<()> {
        let turn = self.turn + 1;
        self.file.write_all_at(&encode(turn, mark), turn % 2 * SLOT_EVERY)?;
        self.turn = turn;
        Ok(())
    }

    /// Makes the last one durable: a clean stop.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_note_counts_and_one_that_was_cut_short_leaves_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("note");
        assert_eq!(read(&path).unwrap(), Said::Nothing);
        let mark = |reached| Mark { store: [7; 16], reached, chain: 5 };
        let mut note = Note::open(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Said::Nothing);
        for reached in 1..=5 {
            note.write(&mark(reached)).unwrap();
            assert_eq!(read(&path).unwrap(), Said::Mark(mark(reached)));
        }
        drop(note);
        let mut note = Note::open(&path).unwrap();
        note.write(&mark(6)).unwrap();
        note.sync().unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 16;
            std::fs::write(&path, &bad).unwrap();
            assert!(matches!(read(&path).unwrap(), Said::Mark(m) if m == mark(5) || m == mark(6)), "{at}");
        }
        std::fs::write(&path, vec![1; whole.len()]).unwrap();
        assert_eq!(read(&path).unwrap(), Said::Unreadable);
    }
}
