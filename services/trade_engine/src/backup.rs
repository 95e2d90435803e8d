//! A copy of an exchange's directory while the engine writes it: snapshots, then the fact log, then the journal, so that
//! what proves something never reaches beyond the journal.

use super::{
    log::{FACTS, JOURNAL},
    recovery::Error,
    seglog::{self, Walk},
    snapshot,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

/// Files may go while they are listed, because a newer snapshot covers them; then it begins again, so often.
const TRIES: usize = 5;
/// Who it is, who follows, and what is passed over.
const BESIDE: [&str; 3] = ["id", "followers", "skipped"];

/// Where a copy ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct End {
    /// Last command of the journal, and its time.
    pub seq: u64,
    pub time_us: i64,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    |source| Error::Io { path, source }
}

/// A file that stays readable when it is removed.
struct Held {
    file: File,
    path: PathBuf,
}

/// Opens files; `None` where one has gone.
fn hold(paths: impl Iterator<Item = PathBuf>) -> Result<Option<Vec<Held>>, Error> {
    let mut held = Vec::new();
    for path in paths {
        match File::open(&path) {
            Ok(file) => held.push(Held { file, path }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(at(&path)(e)),
        }
    }
    Ok(Some(held))
}

impl Held {
    /// Writes what is there now, and makes it durable.
    fn copy(mut self, to: &Path) -> Result<(), Error> {
        let length = self.file.metadata().map_err(at(&self.path))?.len();
        let path = to.join(self.path.file_name().unwrap_or_default());
        let mut copy =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(at(&path))?;
        io::copy(&mut (&mut self.file).take(length), &mut copy)
            .and_then(|_| copy.sync_all())
            .map_err(at(&path))
    }
}

/// Copies the exchange in `from` into the empty directory `to`. Answers where the copy ends.
///
/// # Errors
/// A file cannot be read or written, or the engine drops segments faster than they are listed.
pub fn copy(from: &Path, to: &Path) -> Result<End, Error> {
    for _ in 0..TRIES {
        if let Some(held) = list(from)? {
            for held in held {
                held.copy(to)?;
            }
            return end(to);
        }
    }
    Err(at(from)(io::Error::other("segments go faster than they can be listed")))
}

/// Everything that belongs together, in the order in which it is to be read.
fn list(from: &Path) -> Result<Option<Vec<Held>>, Error> {
    let snapshots = snapshot::list(from).map_err(at(from))?;
    let newest = snapshots.first().map_or(0, |s| s.seq);
    let beside = BESIDE.iter().map(|name| from.join(name)).filter(|path| path.exists());
    let Some(mut held) = hold(snapshots.into_iter().map(|s| s.path).chain(beside))? else { return Ok(None) };
    for spec in [FACTS, JOURNAL] {
        let segments = seglog::segments(spec, from)?;
        let is_journal = spec.name == JOURNAL.name;
        if is_journal && segments.first().is_none_or(|first| first.first_seq > newest + 1) {
            return Ok(None);
        }
        match hold(segments.into_iter().map(|s| s.path))? {
            Some(more) => held.extend(more),
            None => return Ok(None),
        }
    }
    Ok(Some(held))
}

/// The last whole record of a journal.
fn end(dir: &Path) -> Result<End, Error> {
    let last = seglog::segments(JOURNAL, dir)?.last().map_or(1, |s| s.first_seq);
    let mut walk = Walk::open(JOURNAL, dir, last)?;
    let mut end = End { seq: last - 1, time_us: 0 };
    while let Some(frame) = walk.next_frame()? {
        end = End { seq: frame.seq, time_us: frame.time_us };
    }
    Ok(end)
}
