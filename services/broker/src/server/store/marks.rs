//! How far the store had come: a mark in it that grows once a second while it is written, and the note of it outside.

use super::{OpenError, Store};
use fafnir_disk::note::{Mark, Note, Said, read};
use std::path::Path;
use std::time::{Duration, Instant};

/// How often what was written is marked and noted.
const EVERY: Duration = Duration::from_secs(1);
const KEY: &str = "mark";

/// The marks of a store that is written.
#[derive(Default)]
pub struct Marks {
    note: Option<(Note, [u8; 16])>,
    mark: u32,
    /// Something was written since the last mark.
    pub is_due: bool,
    last: Option<Instant>,
}

impl Store {
    /// Compares the store with its note and goes on with it.
    pub fn open_note(&mut self, path: &Path, id: [u8; 16]) -> Result<(), OpenError> {
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let mark = self.meta(KEY).map_err(|error| error.to_string())?;
        match read(path).map_err(failed)? {
            Said::Mark(noted) if noted.store == id && noted.reached > u64::from(mark) => {
                return Err(OpenError::Failed(format!(
                    "the log was cut short, or it is an older copy: its last mark is {mark}, {} was noted; acknowledged messages \
                     are lost: restore a backup, or remove the store to begin anew",
                    noted.reached
                )));
            }
            Said::Unreadable => {
                tracing::warn!("the note of how far the broker's store had come cannot be read");
            }
            Said::Mark(_) | Said::Nothing => {}
        }
        let note = Note::open(path).map_err(failed)?;
        self.marks = Marks { note: Some((note, id)), mark, ..Marks::default() };
        Ok(())
    }

    /// How long until the next mark; nothing where nothing is to be marked.
    pub fn mark_due(&self) -> Option<Duration> {
        let is_due = self.marks.is_due && self.marks.note.is_some();
        is_due.then(|| self.marks.last.map_or(Duration::ZERO, |last| EVERY.saturating_sub(last.elapsed())))
    }

    /// Marks what was written, at once or where a second has gone since the last mark. One that cannot be written is tried
    /// again: the store has everything.
    pub fn mark_if_due(&mut self, now: bool) {
        let Some(wait) = self.mark_due() else { return };
        if !wait.is_zero() && !now {
            return;
        }
        let next = self.marks.mark.saturating_add(1);
        self.marks.last = Some(Instant::now());
        // A statement by itself is a commit.
        if let Err(error) = self.put_meta(KEY, next) {
            tracing::warn!(%error, "the broker's store was not marked");
            return;
        }
        (self.marks.mark, self.marks.is_due) = (next, false);
        if let Some((note, id)) = &mut self.marks.note
            && let Err(error) = note.write(&Mark { store: *id, reached: u64::from(next), chain: 0 })
        {
            tracing::warn!(%error, "it was not noted how far the broker's store is");
        }
    }
}
