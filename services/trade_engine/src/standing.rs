//! What the exchange's directory is, and how far it had come: its id, the notes of journal and fact log, and a look through
//! every file.

use super::{
    log::{FACTS, JOURNAL},
    published::Published,
    seglog::{self, Walk},
    snapshot,
};
use fafnir_disk::note::{Mark, Note, Said};
use fafnir_platform::manifest::{Claim, Entry, Manifest};
use std::{fs, io, path::Path, sync::Arc};
use uuid::Uuid;

/// Its name in the manifest.
pub const STORE: &str = "exchange";
/// The fact log's notes.
pub const FACTS_NOTE: &str = "facts";

fn is_journal(name: &str) -> bool {
    name.starts_with("journal-") && Path::new(name).extension().is_some_and(|e| e == "log")
}

/// Claims the directory in the manifest and compares the journal with its note, before anything is opened.
pub fn claim(data_dir: &Path, dir: &Path, now_us: i64) -> anyhow::Result<Entry> {
    let manifest = Manifest::of(data_dir);
    let claim = manifest.claim_dir(STORE, dir, is_journal, false, now_us)?;
    if let Claim::Known(entry) = &claim {
        check_notes(&manifest, dir, entry)?;
    }
    Ok(claim.entry().clone())
}

fn noted(manifest: &Manifest, name: &str, entry: &Entry) -> anyhow::Result<Option<Mark>> {
    match manifest.noted(name)? {
        Said::Mark(mark) if mark.store == *entry.id.as_bytes() => return Ok(Some(mark)),
        Said::Mark(_) => tracing::warn!(name, "the note of how far the store had come is another store's"),
        Said::Nothing if !entry.made => {}
        Said::Nothing => tracing::warn!(name, "there is no note of how far the store had come"),
        Said::Unreadable => tracing::warn!(name, "the note of how far the store had come cannot be read"),
    }
    Ok(None)
}

fn check_notes(manifest: &Manifest, dir: &Path, entry: &Entry) -> anyhow::Result<()> {
    if let Some(mark) = noted(manifest, STORE, entry)? {
        check_journal(dir, &mark)?;
    }
    if let Some(mark) = noted(manifest, FACTS_NOTE, entry)? {
        // The fact log is not synced: what it lacks is made again from snapshot and journal.
        let mut walk = Walk::open(FACTS, dir, mark.reached)?;
        if !matches!(walk.next_frame(), Ok(Some(frame)) if frame.seq == mark.reached) {
            let reached = mark.reached;
            tracing::error!(
                reached,
                "the fact log has lost its end or is damaged, and is made again from the journal"
            );
        }
    }
    Ok(())
}

/// The journal has the record that was noted, and it is the same one.
fn check_journal(dir: &Path, mark: &Mark) -> anyhow::Result<()> {
    let reached = mark.reached;
    if reached == 0 {
        return Ok(());
    }
    let restore = "restore a backup with `fafnir restore`";
    let mut walk = Walk::open(JOURNAL, dir, reached)?;
    let there = walk.next_frame()?.map(|frame| (frame.seq, frame.crc));
    match there {
        Some((seq, crc)) if seq == reached && crc == mark.chain => Ok(()),
        Some((seq, _)) if seq == reached => anyhow::bail!(
            "{}: record {reached} is another one than was noted: it is of another journal or an older copy; {restore}",
            walk.path().display()
        ),
        _ => {
            let file = walk.path().display().to_string();
            let why = walk.torn.map_or_else(String::new, |cut| format!(" ({})", cut.bad));
            anyhow::bail!(
                "{file}: the journal ends before record {reached}{why}, which was durable: what was acknowledged behind its end \
                 is lost, or it is an older copy; {restore}"
            )
        }
    }
}

/// The writer of both notes.
#[derive(Debug)]
pub struct Notes {
    id: Uuid,
    journal: Note,
    facts: Note,
    written: (u64, u64),
    published: Arc<Published>,
}

impl Notes {
    pub fn open(data_dir: &Path, id: Uuid, published: Arc<Published>) -> anyhow::Result<Self> {
        let manifest = Manifest::of(data_dir);
        Ok(Self {
            id,
            journal: manifest.note(STORE)?,
            facts: manifest.note(FACTS_NOTE)?,
            written: (0, 0),
            published,
        })
    }

    /// Notes how far both are, where they have moved.
    pub fn write(&mut self) -> io::Result<()> {
        let (seq, chain) = self.published.journaled();
        let position = self.published.recorded();
        if seq > self.written.0 {
            self.journal.write(&Mark { store: *self.id.as_bytes(), reached: seq, chain })?;
            self.written.0 = seq;
        }
        if position > self.written.1 {
            self.facts.write(&Mark { store: *self.id.as_bytes(), reached: position, chain: 0 })?;
            self.written.1 = position;
        }
        Ok(())
    }

    /// The last notes of a stop in order.
    pub fn finish(mut self) -> io::Result<()> {
        self.write()?;
        self.journal.sync()?;
        self.facts.sync()
    }
}

/// Looks through every segment of both logs and every snapshot; files that go meanwhile are left out.
///
/// # Errors
/// What is damaged, in one sentence.
pub fn look(dir: &Path) -> Result<(), String> {
    for spec in [JOURNAL, FACTS] {
        let walked = Walk::open(spec, dir, 0).and_then(|mut walk| {
            while walk.next_frame()?.is_some() {}
            Ok(())
        });
        match walked {
            Ok(()) => {}
            Err(seglog::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e.to_string()),
        }
    }
    for named in snapshot::list(dir).map_err(|e| format!("{}: {e}", dir.display()))? {
        let damaged = match fs::read(&named.path) {
            Ok(bytes) => snapshot::check(&bytes).err().map(|e| e.to_string()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => Some(e.to_string()),
        };
        if let Some(what) = damaged {
            return Err(format!("{}: {what}", named.path.display()));
        }
    }
    Ok(())
}
