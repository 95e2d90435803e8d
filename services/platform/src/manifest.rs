//! The manifest of a data directory: each store's id and when it was made, and the notes of how far each had come.
//!
//! A store is entered before it is made and marked as made afterwards, so that a start that was interrupted goes on; one
//! that the manifest has as made and that is not there, or is another one, is never made anew silently.

use crate::secrets::create_private_dir;
use fafnir_disk::{
    note::{self, Note},
    whole,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use uuid::Uuid;

pub use fafnir_disk::note::Said;

/// Its name in the data directory.
pub const FILE: &str = "manifest.json";
/// Directory of the notes in the data directory.
pub const NOTES: &str = "notes";
/// File of the id in a store that is a directory.
pub const ID: &str = "id";
/// Version of the file.
const VERSION: u32 = 1;

/// What is known of a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub id: Uuid,
    /// When it was entered, in microseconds since 1970 UTC.
    pub made_us: i64,
    /// It was there whole once; before that a start may make it.
    pub made: bool,
}

impl Entry {
    pub(crate) fn since(&self) -> String {
        let made = OffsetDateTime::from_unix_timestamp(self.made_us / 1_000_000).ok();
        made.and_then(|t| t.format(&Rfc3339).ok()).unwrap_or_default()
    }
}

/// What a manifest says.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Document {
    version: u32,
    pub(crate) stores: BTreeMap<String, Entry>,
}

impl Default for Document {
    fn default() -> Self {
        Self { version: VERSION, stores: BTreeMap::new() }
    }
}

/// Where a store is, or a manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    File(PathBuf),
    /// The name of a database of a server.
    Server(String),
}

impl Place {
    /// How what was lost comes back.
    fn restored(&self) -> &'static str {
        match self {
            Self::File(_) => "restore a backup with `fafnir restore`",
            Self::Server(_) => "restore a backup with `fafnir restore`, under another database.prefix",
        }
    }

    fn anew(&self) -> &'static str {
        match self {
            Self::File(_) => "begin anew with `fafnir up --fresh`",
            Self::Server(_) => "drop every database of this prefix, and the data directory, to begin anew",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Server(name) => write!(f, "the database {name}"),
        }
    }
}

/// What every version of the file has.
#[derive(Debug, Deserialize)]
struct Head {
    version: u32,
}

/// Why a store is not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{place}: {what}; {}, or {}", place.restored(), place.anew())]
    Unreadable { place: Place, what: String },
    #[error("{place}: it is of version {version}, this program has {VERSION}: a newer program wrote it")]
    Newer { place: Place, version: u32 },
    /// It was there and is gone.
    #[error(
        "{place} is gone: {store} {id} of {since} was there, and what it held is lost; it is not made anew silently: {}, or {}",
        place.restored(), place.anew()
    )]
    Missing { place: Place, store: String, id: Uuid, since: String },
    /// Another store is in its place.
    #[error(
        "{place} is another store than the manifest names ({found}, not {id} of {since}): it comes from elsewhere, or it was \
         made anew there; put back the one that belongs here, or {}", place.restored()
    )]
    Foreign { place: Place, found: String, id: Uuid, since: String },
    /// A store that the manifest does not know.
    #[error(
        "{place} is there and the manifest does not name it: the manifest is lost, or the store comes from elsewhere or from a \
         program before manifests; {}, or {}", place.restored(), place.anew()
    )]
    Unlisted { place: Place },
    /// It has lost its end, or is an older copy.
    #[error("{place} has lost what it had: {what}; it was cut short or is an older copy: {}", place.restored())]
    Older { place: Place, what: String },
}

/// What is found in a store's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Nothing,
    /// Something that was begun and holds nothing yet.
    Empty,
    /// A store without an id.
    Nameless,
    Store(Uuid),
}

/// What is to be done with a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// It is the one that belongs here.
    Known(Entry),
    /// It is to be made, with this id; [`Manifest::made`] follows.
    Make(Entry),
}

impl Claim {
    pub fn entry(&self) -> &Entry {
        match self {
            Self::Known(entry) | Self::Make(entry) => entry,
        }
    }
}

/// The manifest of one data directory. Cheap to clone; every change is on disk when it returns.
#[derive(Debug, Clone)]
pub struct Manifest {
    dir: PathBuf,
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Io { path, source }
}

impl Document {
    pub(crate) fn read(place: &Place, text: &[u8]) -> Result<Self, Error> {
        let unreadable =
            |e: serde_json::Error| Error::Unreadable { place: place.clone(), what: e.to_string() };
        let Head { version } = serde_json::from_slice(text).map_err(unreadable)?;
        if version > VERSION {
            return Err(Error::Newer { place: place.clone(), version });
        }
        serde_json::from_slice(text).map_err(unreadable)
    }

    /// Compares what is found in a store's place with what the manifest says, and enters a store that is new. `again`:
    /// the store can be made again from others, so that a missing one is entered anew.
    pub(crate) fn claim(
        &mut self,
        store: &str,
        place: &Place,
        found: Found,
        again: bool,
        now_us: i64,
    ) -> Result<Claim, Error> {
        let known = self.stores.get(store).cloned();
        let place = place.clone();
        match (known, found) {
            (Some(entry), Found::Store(id)) if id == entry.id => Ok(Claim::Known(entry)),
            (Some(entry), Found::Store(_) | Found::Nameless) => {
                let found = match found {
                    Found::Store(id) => id.to_string(),
                    _ => "a store without an id".to_owned(),
                };
                Err(Error::Foreign { place, found, id: entry.id, since: entry.since() })
            }
            (None, Found::Store(_) | Found::Nameless) => Err(Error::Unlisted { place }),
            (Some(entry), _) if entry.made && !again => {
                let store = store.to_owned();
                Err(Error::Missing { place, store, id: entry.id, since: entry.since() })
            }
            (known, _) => {
                let entry = known.filter(|entry| !entry.made).unwrap_or_else(|| Entry {
                    id: Uuid::new_v4(),
                    made_us: now_us,
                    made: false,
                });
                self.stores.insert(store.to_owned(), entry.clone());
                Ok(Claim::Make(entry))
            }
        }
    }

    /// A store that was claimed to be made is there, whole.
    pub(crate) fn made(&mut self, store: &str, id: Uuid) {
        if let Some(entry) = self.stores.get_mut(store).filter(|entry| entry.id == id) {
            entry.made = true;
        }
    }
}

impl Manifest {
    /// The manifest of a data directory, which may not be there yet.
    pub fn of(data_dir: &Path) -> Self {
        Self { dir: data_dir.to_owned() }
    }

    fn path(&self) -> PathBuf {
        self.dir.join(FILE)
    }

    /// Every store by its name.
    pub fn stores(&self) -> Result<BTreeMap<String, Entry>, Error> {
        Ok(self.read()?.stores)
    }

    fn read(&self) -> Result<Document, Error> {
        let path = self.path();
        let text = match fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Document::default()),
            read => read.map_err(at(&path))?,
        };
        Document::read(&Place::File(path), &text)
    }

    /// Changes the manifest; processes that share the directory come one after the other.
    fn change<T>(&self, work: impl FnOnce(&mut Document) -> Result<T, Error>) -> Result<T, Error> {
        let locks = self.dir.join("locks");
        create_private_dir(&locks).map_err(at(&locks))?;
        let path = locks.join("manifest");
        let open = || OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = open().map_err(at(&path))?;
        lock.lock().map_err(at(&path))?;
        let mut document = self.read()?;
        let before = serde_json::to_vec_pretty(&document).unwrap_or_default();
        let done = work(&mut document)?;
        let path = self.path();
        let place = || Place::File(path.clone());
        let text = serde_json::to_vec_pretty(&document)
            .map_err(|e| Error::Unreadable { place: place(), what: e.to_string() })?;
        if text != before {
            whole::write(&path, &text, whole::PRIVATE).map_err(at(&path))?;
        }
        Ok(done)
    }

    /// [`Document::claim`], for a store of files.
    pub fn claim(
        &self,
        store: &str,
        path: &Path,
        found: Found,
        again: bool,
        now_us: i64,
    ) -> Result<Claim, Error> {
        self.change(|document| document.claim(store, &Place::File(path.to_owned()), found, again, now_us))
    }

    /// The same for a store that is a directory with its id in a file: `is_content` says which names mean that it holds
    /// something. A new one gets its id.
    pub fn claim_dir(
        &self,
        store: &str,
        dir: &Path,
        is_content: fn(&str) -> bool,
        again: bool,
        now_us: i64,
    ) -> Result<Claim, Error> {
        let id = dir.join(ID);
        let found = found_in(dir, &id, is_content).map_err(at(dir))?;
        let claim = self.claim(store, dir, found, again, now_us)?;
        if let Claim::Make(entry) = &claim {
            create_private_dir(dir).map_err(at(dir))?;
            whole::write(&id, format!("{}\n", entry.id).as_bytes(), whole::PRIVATE).map_err(at(&id))?;
        }
        Ok(claim)
    }

    /// A store that was claimed to be made is there, whole.
    pub fn made(&self, store: &str, id: Uuid) -> Result<(), Error> {
        self.change(|document| {
            document.made(store, id);
            Ok(())
        })
    }

    /// Enters a store that was put in place on purpose (a backup that is restored), and forgets its note.
    pub fn put(&self, store: &str, id: Uuid, made_us: i64) -> Result<(), Error> {
        self.forget_note(store)?;
        self.change(|document| {
            document.stores.insert(store.to_owned(), Entry { id, made_us, made: true });
            Ok(())
        })
    }

    /// Forgets a store that was taken away on purpose, and its note.
    pub fn forget(&self, store: &str) -> Result<(), Error> {
        self.forget_note(store)?;
        self.change(|document| {
            document.stores.remove(store);
            Ok(())
        })
    }

    /// Where a store's notes are.
    pub fn note_path(&self, store: &str) -> PathBuf {
        self.dir.join(NOTES).join(store)
    }

    /// What a store's notes say.
    pub fn noted(&self, store: &str) -> Result<Said, Error> {
        let path = self.note_path(store);
        note::read(&path).map_err(at(&path))
    }

    /// The writer of a store's notes.
    pub fn note(&self, store: &str) -> Result<Note, Error> {
        let dir = self.dir.join(NOTES);
        create_private_dir(&dir).map_err(at(&dir))?;
        let path = self.note_path(store);
        Note::open(&path).map_err(at(&path))
    }

    /// Forgets what was noted of a store that is made anew.
    pub fn forget_note(&self, store: &str) -> Result<(), Error> {
        let path = self.note_path(store);
        match fs::remove_file(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(at(&path)(e)),
            _ => Ok(()),
        }
    }
}

fn found_in(dir: &Path, id: &Path, is_content: fn(&str) -> bool) -> io::Result<Found> {
    let mut content = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        entries => entries?,
    };
    // An id alone is what a start that was interrupted leaves.
    if !content.any(|e| e.is_ok_and(|e| e.file_name().to_str().is_some_and(is_content))) {
        return Ok(Found::Empty);
    }
    match fs::read_to_string(id) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Found::Nameless),
        text => Ok(Uuid::parse_str(text?.trim()).map_or(Found::Nameless, Found::Store)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_disk::note::Mark;

    fn claimed(manifest: &Manifest, found: Found, again: bool) -> Result<Claim, Error> {
        manifest.claim("books", Path::new("db/books"), found, again, 5_000_000)
    }

    #[test]
    fn a_store_is_made_once_and_known_from_then_on() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::of(dir.path());
        let Claim::Make(entry) = claimed(&manifest, Found::Nothing, false).unwrap() else { panic!("new") };
        // Interrupted: the same id again, whether or not the store came to be.
        assert_eq!(claimed(&manifest, Found::Empty, false).unwrap(), Claim::Make(entry.clone()));
        assert_eq!(claimed(&manifest, Found::Store(entry.id), false).unwrap(), Claim::Known(entry.clone()));
        manifest.made("books", entry.id).unwrap();
        let Claim::Known(known) = claimed(&manifest, Found::Store(entry.id), false).unwrap() else {
            panic!("known")
        };
        assert!(known.made && known.id == entry.id);
        assert_eq!(manifest.stores().unwrap().len(), 1);
    }

    #[test]
    fn a_missing_a_foreign_and_an_unlisted_store_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::of(dir.path());
        for found in [Found::Store(Uuid::new_v4()), Found::Nameless] {
            assert!(matches!(claimed(&manifest, found, true), Err(Error::Unlisted { .. })), "{found:?}");
        }
        assert!(manifest.stores().unwrap().is_empty(), "a refusal changes nothing");
        let entry = claimed(&manifest, Found::Nothing, false).unwrap().entry().clone();
        manifest.made("books", entry.id).unwrap();
        let missing = claimed(&manifest, Found::Nothing, false).unwrap_err();
        assert!(matches!(missing, Error::Missing { .. }));
        let text = missing.to_string();
        assert!(text.contains("db/books") && text.contains("1970-01-01T00:00:05Z"), "{text}");
        for found in [Found::Store(Uuid::new_v4()), Found::Nameless] {
            assert!(matches!(claimed(&manifest, found, true), Err(Error::Foreign { .. })), "{found:?}");
        }
        // What can be made again is, under a new id.
        let Claim::Make(anew) = claimed(&manifest, Found::Nothing, true).unwrap() else { panic!("again") };
        assert_ne!(anew.id, entry.id);
    }

    #[test]
    fn what_is_put_or_forgotten_on_purpose_takes_its_note_along() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::of(dir.path());
        let id = Uuid::new_v4();
        let mark = Mark { store: *id.as_bytes(), reached: 9, chain: 0 };
        manifest.note("books").unwrap().write(&mark).unwrap();
        assert_eq!(manifest.noted("books").unwrap(), Said::Mark(mark));
        manifest.put("books", id, 1).unwrap();
        assert_eq!(manifest.noted("books").unwrap(), Said::Nothing);
        assert!(matches!(claimed(&manifest, Found::Store(id), false).unwrap(), Claim::Known(_)));
        manifest.forget("books").unwrap();
        assert!(manifest.stores().unwrap().is_empty());
    }

    #[test]
    fn a_newer_or_a_damaged_manifest_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let manifest = Manifest::of(dir.path());
        let path = dir.path().join(FILE);
        fs::write(&path, r#"{"version":2,"stores":{},"more":1}"#).unwrap();
        assert!(matches!(manifest.stores(), Err(Error::Newer { version: 2, .. })));
        fs::write(&path, r#"{"version":1,"stores":"#).unwrap();
        assert!(matches!(manifest.stores(), Err(Error::Unreadable { .. })));
    }
}
