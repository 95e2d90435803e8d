//! SQLite's write-ahead log before SQLite opens it: damage in its middle, and room.

use super::room::disk_free;
use fafnir_disk::wal::{self, Found, Place};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::Path;

/// Bytes that must be free for the log to be lengthened.
const FREE_MIN: u64 = 1 << 30;
/// Zeros written at once.
const CHUNK: usize = 1 << 20;

/// Looks through the log.
///
/// # Errors
/// When commits behind a damaged place show that changes which were on disk would be lost. A torn tail is SQLite's to
/// cut; it is only logged.
pub fn check(path: &Path) -> Result<(), String> {
    let look = wal::look(path).map_err(|error| error.to_string())?;
    if let Some(refusal) = look.found.refusal() {
        return Err(format!("{}: {refusal}", path.display()));
    }
    if let Found::Torn(Place { frame, offset }) = look.found {
        tracing::warn!(frame, offset, "the last commit of the broker's log is torn and cut off");
    }
    Ok(())
}

/// Lengthens the log with zeros, which no frame begins with, up to this many bytes: a commit into a file that has its
/// length already syncs in half the time. Left out where the disk is short.
pub fn lengthen(path: &Path, bytes: u64) -> std::io::Result<()> {
    if disk_free(path.parent().unwrap_or(path))? < FREE_MIN {
        return Ok(());
    }
    append_zeros(path, bytes)
}

/// Lengthens a file with zeros up to this many bytes.
pub fn append_zeros(path: &Path, bytes: u64) -> std::io::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_lengthen_a_log_and_are_no_damage() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        std::fs::write(&path, []).unwrap();
        lengthen(&path, (1 << 20) + 5).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().len(), (1 << 20) + 5);
        check(&path).unwrap();
    }
}
