//! SQLite's write-ahead log before SQLite opens it: damage in its middle, which SQLite would take for its end.
//!
//! The format is <https://sqlite.org/fileformat.html#the_write_ahead_log>. Each frame's checksum continues that of the
//! frame before, so a frame behind a damaged one still proves itself with the checksum that its neighbour carries.

use std::{
    fs::File,
    io::{self, BufReader, ErrorKind, Read},
    path::Path,
};

/// Bytes before the first frame.
pub const HEADER_BYTES: usize = 32;
/// Bytes of a frame before its page.
pub const FRAME_HEADER_BYTES: usize = 24;
/// Magic of a log whose checksums are over big-endian words; one less for little-endian ones.
const MAGIC_BIG: u32 = 0x377f_0683;
const MAGIC_LITTLE: u32 = 0x377f_0682;
const PAGE_MAX: usize = 65_536;

type Sum = (u32, u32);

/// What a log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// Nothing in it, or nothing but whole commits and what never was one.
    Whole,
    /// What is bad or cut short lies behind the last commit that is proven: SQLite cuts it off.
    Torn(Place),
    /// Another commit follows the damaged one: it was on disk, and SQLite would drop both.
    Damaged(Place),
    /// The head is bad: SQLite would drop everything.
    BadHeader,
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Number of the frame, from 1.
    pub frame: u64,
    /// Where it begins in the file.
    pub offset: u64,
}

impl Found {
    /// What is said where the log is not to be opened.
    pub fn refusal(&self) -> Option<String> {
        match self {
            Self::Whole | Self::Torn(_) => None,
            Self::BadHeader => Some("the head of the write-ahead log (offset 0) is damaged".to_owned()),
            Self::Damaged(Place { frame, offset }) => Some(format!(
                "frame {frame} of the write-ahead log (offset {offset}) is damaged, and commits follow it"
            )),
        }
    }
}

/// A page that a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page<'a> {
    /// From 1.
    pub number: u32,
    /// Its frame ends a commit.
    pub commits: bool,
    pub bytes: &'a [u8],
}

/// A log that was looked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    pub found: Found,
    /// The log's salts; 0 where it has no head.
    pub salts: u64,
    /// Frames up to the last commit before anything bad.
    pub frames: u64,
}

/// Looks through a log; a missing one is whole.
pub fn look(path: &Path) -> io::Result<Look> {
    look_pages(path, |_| {})
}

/// The same, and tells the page of each frame that is whole, also of those behind the last commit.
pub fn look_pages(path: &Path, each: impl FnMut(Page<'_>)) -> io::Result<Look> {
    match File::open(path) {
        Ok(file) => look_in(&mut BufReader::with_capacity(1 << 20, file), each),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(Look { found: Found::Whole, salts: 0, frames: 0 }),
        Err(e) => Err(e),
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn sum(big: bool, (mut a, mut b): Sum, bytes: &[u8]) -> Sum {
    for pair in bytes.chunks_exact(8) {
        let read = |at: usize| {
            let word = [pair[at], pair[at + 1], pair[at + 2], pair[at + 3]];
            if big { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        a = a.wrapping_add(read(0)).wrapping_add(b);
        b = b.wrapping_add(read(4)).wrapping_add(a);
    }
    (a, b)
}

/// Fills the buffer as far as it goes; answers how many bytes there were.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

fn look_in(log: &mut impl Read, mut each: impl FnMut(Page<'_>)) -> io::Result<Look> {
    let mut header = [0; HEADER_BYTES];
    let length = fill(log, &mut header)?;
    let nothing = Look { found: Found::Whole, salts: 0, frames: 0 };
    if header == [0; HEADER_BYTES] {
        return Ok(nothing);
    }
    let magic = word(&header, 0);
    let page = word(&header, 8) as usize;
    let big = magic == MAGIC_BIG;
    let own = sum(big, (0, 0), &header[..24]);
    if length < HEADER_BYTES
        || !(big || magic == MAGIC_LITTLE)
        || own != (word(&header, 24), word(&header, 28))
        || !(512..=PAGE_MAX).contains(&page)
    {
        return Ok(Look { found: Found::BadHeader, ..nothing });
    }
    let salts = u64::from(word(&header, 16)) << 32 | u64::from(word(&header, 20));
    let mut frame = vec![0; FRAME_HEADER_BYTES + page];
    // What the frame before carries: of a whole one it is right, of a damaged one it may be.
    let mut before = own;
    let mut broken = None;
    let mut commits_behind = 0;
    let mut frames_behind_commit = false;
    let (mut number, mut committed) = (0, 0);
    let place = |frame: u64| Place {
        frame,
        offset: HEADER_BYTES as u64 + (frame - 1) * (FRAME_HEADER_BYTES + page) as u64,
    };
    let cut_short = loop {
        let length = fill(log, &mut frame)?;
        let ours = length >= 16 && frame[8..16] == header[16..24];
        if length < frame.len() {
            break ours;
        }
        number += 1;
        let carried = (word(&frame, 16), word(&frame, 20));
        let commits = ours && word(&frame, 4) > 0;
        let right = ours && sum(big, sum(big, before, &frame[..8]), &frame[FRAME_HEADER_BYTES..]) == carried;
        before = carried;
        if right && broken.is_none() {
            each(Page { number: word(&frame, 0), commits, bytes: &frame[FRAME_HEADER_BYTES..] });
            if commits {
                committed = number;
            }
            continue;
        }
        broken.get_or_insert(number);
        // The next commit begins when this one is on disk: a frame of it is proof.
        frames_behind_commit |= right && commits_behind > 0;
        commits_behind += u64::from(commits);
    };
    let found = match broken {
        Some(frame) if frames_behind_commit => Found::Damaged(place(frame)),
        Some(frame) if commits_behind > 0 || cut_short => Found::Torn(place(frame)),
        None if cut_short => Found::Torn(place(number + 1)),
        // Whole frames without the commit that they belong to.
        _ if broken.unwrap_or(number + 1) > committed + 1 => Found::Torn(place(committed + 1)),
        _ => Found::Whole,
    };
    Ok(Look { found, salts, frames: committed })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    const PAGE: usize = 4096;

    /// A log with one commit of several frames for each row.
    fn written(rows: usize) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let connection = Connection::open(&path).unwrap();
        connection.pragma_update_and_check(None, "journal_mode", "wal", |_| Ok(())).unwrap();
        connection.execute_batch("CREATE TABLE t (a TEXT)").unwrap();
        for _ in 0..rows {
            connection.execute("INSERT INTO t VALUES (?1)", ["x".repeat(9000)]).unwrap();
        }
        std::fs::read(dir.path().join("x-wal")).unwrap()
    }

    fn found(log: &[u8]) -> Found {
        look_in(&mut &log[..], |_| {}).unwrap().found
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_log_is_damage_or_a_torn_last_commit() {
        let log = written(6);
        assert_eq!(found(&log), Found::Whole);
        let frames = (log.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + PAGE);
        let last_commit = HEADER_BYTES + (frames - 4) * (FRAME_HEADER_BYTES + PAGE);
        for at in (0..log.len()).step_by(997) {
            let mut bad = log.clone();
            bad[at] ^= 4;
            match found(&bad) {
                Found::BadHeader => assert!(at < HEADER_BYTES),
                Found::Damaged(place) => {
                    let frame = (at - HEADER_BYTES) / (FRAME_HEADER_BYTES + PAGE);
                    assert_eq!(place.frame, frame as u64 + 1);
                    let offset = HEADER_BYTES + frame * (FRAME_HEADER_BYTES + PAGE);
                    assert_eq!(place.offset, offset as u64);
                }
                Found::Torn(_) | Found::Whole => assert!(at >= last_commit, "{at} of {}", log.len()),
            }
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_no_damage() {
        let log = written(3);
        let mut lengthened = log.clone();
        lengthened.resize(1 << 20, 0);
        assert_eq!(found(&lengthened), Found::Whole);
        assert_eq!(found(&lengthened[log.len()..]), Found::Whole);
    }

    #[test]
    fn a_log_that_ends_at_a_commit_is_whole_and_anywhere_else_torn() {
        let log = written(3);
        let mut commits = vec![HEADER_BYTES];
        for frame in 0..(log.len() - HEADER_BYTES) / (FRAME_HEADER_BYTES + PAGE) {
            let at = HEADER_BYTES + frame * (FRAME_HEADER_BYTES + PAGE);
            if word(&log, at + 4) > 0 {
                commits.push(at + FRAME_HEADER_BYTES + PAGE);
            }
        }
        for end in (HEADER_BYTES..log.len()).step_by(101).chain(commits.iter().copied()) {
            let told = found(&log[..end]);
            // Less of a frame than its salts cannot be told from what never was one.
            let last = commits.iter().rev().find(|c| **c <= end).copied().unwrap_or(HEADER_BYTES);
            if end - last < 16 {
                assert_eq!(told, Found::Whole, "{end}");
            } else {
                assert!(matches!(told, Found::Torn(_)), "{end} {told:?}");
            }
        }
    }

    #[test]
    fn pages_are_told_as_they_are() {
        let log = written(2);
        let mut pages = 0;
        let told = look_in(&mut &log[..], |page| {
            let at = HEADER_BYTES + pages * (FRAME_HEADER_BYTES + PAGE);
            assert_eq!(page.number, word(&log, at));
            assert_eq!(page.bytes, &log[at + FRAME_HEADER_BYTES..at + FRAME_HEADER_BYTES + PAGE]);
            pages += 1;
        });
        assert_eq!(told.unwrap().frames, pages as u64);
    }
}
