//! What is read from files, and read again when they are others.

use super::Error;
use parking_lot::Mutex;
use std::{
    fmt, fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

/// What tells a file from the one that had its name before.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

fn stamp(path: &Path) -> Stamp {
    let found = fs::metadata(path).ok()?;
    Some((found.dev(), found.ino(), found.len(), found.mtime(), found.mtime_nsec()))
}

/// A value made of files, always of those that are there now, or of the last ones that could be used.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, Error> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    seen: Vec<Stamp>,
    current: Arc<T>,
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched").field("paths", &self.paths).finish_non_exhaustive()
    }
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    pub fn open(
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, Error> + Send + Sync + 'static,
    ) -> Result<Self, Error> {
        let seen = paths.iter().map(|path| stamp(path)).collect();
        let current = Arc::new(load()?);
        Ok(Self { paths, load: Box::new(load), state: Mutex::new(State { seen, current }) })
    }

    /// What is in force. The files are looked at, and read where they changed: a few microseconds.
    pub fn current(&self) -> Arc<T> {
        // Looked at before they are read: what changes meanwhile is another change.
        let seen: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        let mut state = self.state.lock();
        if seen != state.seen {
            state.seen = seen;
            match (self.load)() {
                Ok(new) => {
                    state.current = Arc::new(new);
                    tracing::info!(files = ?self.paths, "replaced files are in force");
                }
                Err(e) => tracing::error!(error = %e, "replaced files cannot be used; the earlier ones stay"),
            }
        }
        Arc::clone(&state.current)
    }
}
