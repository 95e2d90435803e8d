//! SQLite's write-ahead log before SQLite opens it: damage in its middle, which SQLite would take for its end, and room.
//!
//! The format is <https://sqlite.org/fileformat.html#the_write_ahead_log>. Each frame's checksum continues that of the
//! frame before, so a frame behind a damaged one still proves itself with the checksum that its neighbour carries.

use std::fs::{File, OpenOptions};
use std::io::{BufReader, ErrorKind, Read, Write};
use std::path::Path;

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;
/// Magic of a log whose checksums are over big-endian words; one less for little-endian ones.
const MAGIC_BIG: u32 = 0x377f_0683;
const MAGIC_LITTLE: u32 = 0x377f_0682;
const PAGE_MAX: usize = 65_536;
/// Bytes that must be free for the log to be lengthened.
const FREE_MIN: u64 = 1 << 30;
/// Zeros written at once.
const CHUNK: usize = 1 << 20;

type Sum = (u32, u32);

/// Looks through the log.
///
/// # Errors
/// When commits behind a damaged place show that changes which were on disk would be lost. A torn tail is SQLite's to
/// cut; it is only logged.
pub fn check(path: &Path) -> Result<(), String> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    match look(&mut BufReader::with_capacity(1 << 20, file)).map_err(|error| error.to_string())? {
        Found::Whole => Ok(()),
        Found::Torn { frame } => {
            tracing::warn!(frame, "the last commit of the broker's log is torn and cut off");
            Ok(())
        }
        Found::BadHeader => Err("the head of the write-ahead log is damaged".into()),
        Found::Damaged { frame } => {
            Err(format!("frame {frame} of the write-ahead log is damaged, and commits follow it"))
        }
    }
}

/// Lengthens the log with zeros, which no frame begins with, up to this many bytes: a commit into a file that has its
/// length already syncs in half the time. Left out where the disk is short.
pub fn lengthen(path: &Path, bytes: u64) -> std::io::Result<()> {
    let free = rustix::fs::statvfs(path.parent().unwrap_or(path))?;
    if free.f_bavail.saturating_mul(free.f_frsize) < FREE_MIN {
        return Ok(());
    }
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    let zeros = vec![0; CHUNK];
    let mut length = file.metadata()?.len();
    while length < bytes {
        let part = usize::try_from(bytes - length).unwrap_or(CHUNK).min(CHUNK);
        file.write_all(&zeros[..part])?;
        length += part as u64;
    }
    file.sync_all()
}

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Whole,
    /// The damage is in the last commit.
    Torn {
        frame: u64,
    },
    /// Another commit follows the damaged one.
    Damaged {
        frame: u64,
    },
    BadHeader,
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

/// Fills the buffer, or says that less is left.
fn fill(from: &mut impl Read, buffer: &mut [u8]) -> std::io::Result<bool> {
    match from.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn look(log: &mut impl Read) -> std::io::Result<Found> {
    let mut header = [0; HEADER];
    if !fill(log, &mut header)? || header == [0; HEADER] {
        return Ok(Found::Whole);
    }
    let magic = word(&header, 0);
    let page = word(&header, 8) as usize;
    let big = magic == MAGIC_BIG;
    let own = sum(big, (0, 0), &header[..24]);
    if !(big || magic == MAGIC_LITTLE)
        || own != (word(&header, 24), word(&header, 28))
        || !(512..=PAGE_MAX).contains(&page)
    {
        return Ok(Found::BadHeader);
    }
    let salts = &header[16..24];
    let mut frame = vec![0; FRAME_HEADER + page];
    // What the frame before carries: of a whole one it is right, of a damaged one it may be.
    let mut before = own;
    let mut broken = None;
    let mut commits_behind = 0;
    let mut frames_behind_commit = false;
    let mut number = 0;
    while fill(log, &mut frame)? {
        number += 1;
        let carried = (word(&frame, 16), word(&frame, 20));
        let ours = frame[8..16] == *salts;
        let commits = ours && word(&frame, 4) > 0;
        let right = ours && sum(big, sum(big, before, &frame[..8]), &frame[FRAME_HEADER..]) == carried;
        before = carried;
        if right && broken.is_none() {
            continue;
        }
        broken.get_or_insert(number);
        // The next commit begins when this one is on disk: a frame of it is proof.
        frames_behind_commit |= right && commits_behind > 0;
        commits_behind += u64::from(commits);
    }
    Ok(match broken {
        Some(frame) if frames_behind_commit => Found::Damaged { frame },
        Some(frame) if commits_behind > 0 => Found::Torn { frame },
        _ => Found::Whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

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
        look(&mut &log[..]).unwrap()
    }

    #[test]
    fn a_flipped_bit_anywhere_in_the_log_is_damage_or_a_torn_last_commit() {
        let log = written(6);
        assert_eq!(found(&log), Found::Whole);
        let frames = (log.len() - HEADER) / (FRAME_HEADER + 4096);
        let last_commit = HEADER + (frames - 4) * (FRAME_HEADER + 4096);
        for at in (0..log.len()).step_by(997) {
            let mut bad = log.clone();
            bad[at] ^= 4;
            match found(&bad) {
                Found::BadHeader => assert!(at < HEADER),
                Found::Damaged { .. } => {}
                Found::Torn { .. } | Found::Whole => assert!(at >= last_commit, "{at} of {}", log.len()),
            }
        }
    }

    #[test]
    fn zeros_behind_the_last_frame_are_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let log = written(3);
        std::fs::write(&path, &log).unwrap();
        lengthen(&path, 1 << 20).unwrap();
        let lengthened = std::fs::read(&path).unwrap();
        assert!(lengthened.starts_with(&log));
        assert_eq!(found(&lengthened), Found::Whole);
        assert_eq!(found(&lengthened[log.len()..]), Found::Whole);
    }

    #[test]
    fn a_log_that_ends_anywhere_is_whole() {
        let log = written(3);
        for end in (0..log.len()).step_by(101) {
            assert_eq!(found(&log[..end]), Found::Whole, "{end}");
        }
    }
}
