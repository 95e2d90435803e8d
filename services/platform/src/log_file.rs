//! The log of a platform as a file in its data directory: JSON lines, at most two files of a bounded size.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// A log file that has grown to this size becomes the older one; the one before it goes.
pub const LOG_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The newer log file of a data directory.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join("logs").join("fafnir.log")
}

/// The older one, if there is one.
pub fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// Appends lines, and begins a new file where the present one is full.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    written: u64,
    bytes_max: u64,
}

impl LogFile {
    /// Opens or creates the file; its directory must exist.
    pub fn open(path: &Path) -> io::Result<Self> {
        Self::with_limit(path, LOG_FILE_BYTES_MAX)
    }

    fn with_limit(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        let written = file.metadata()?.len();
        Ok(Self { path: path.to_owned(), file, written, bytes_max })
    }
}

impl Write for LogFile {
    /// Takes a line whole: the subscriber writes one event at a time.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.written > 0 && self.written + line.len() as u64 > self.bytes_max {
            fs::rename(&self.path, older(&self.path))?;
            *self = Self::with_limit(&self.path, self.bytes_max)?;
        }
        if let Err(e) = self.file.write_all(line) {
            // A full disk may have taken a part of it: whole lines or none.
            self.file.set_len(self.written)?;
            return Err(e);
        }
        self.written += line.len() as u64;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_file_becomes_the_older_one_and_no_line_is_cut() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("fafnir.log");
        let mut log = LogFile::with_limit(&path, 20).unwrap();
        for line in ["first line\n", "second\n", "third line\n", "fourth\n"] {
            log.write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(fs::read_to_string(older(&path)).unwrap(), "first line\nsecond\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "third line\nfourth\n");
        drop(log);
        let mut log = LogFile::with_limit(&path, 20).unwrap();
        log.write_all(b"fifth\n").unwrap();
        assert_eq!(fs::read_to_string(older(&path)).unwrap(), "third line\nfourth\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "fifth\n");
    }
}
