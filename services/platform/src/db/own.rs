//! What an SQLite file says about itself: its store's id, and a mark that grows once a second while it is written.
//!
//! The mark is a commit like any other, and is noted beside the database when it is durable: a database whose mark is
//! below its note has lost commits, however that came about.

use super::{Error, Tx};
use crate::{
    error,
    manifest::{Claim, Found, Manifest, Place},
    params,
};
use fafnir_disk::{
    note::{Mark, Said},
    wal,
};
use rusqlite::{Connection, OptionalExtension as _};
use std::path::Path;
use uuid::Uuid;

/// The table that each database has besides its service's.
/// `id` is the database's, as the manifest has it; `mark` grows once a second while something is written; `follows` is
/// the exchange whose facts it follows.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS store (one INTEGER PRIMARY KEY CHECK (one = 1), id BLOB NOT NULL, \
                     mark INTEGER NOT NULL, follows BLOB) STRICT";

/// Whose database it is, where it is in a data directory.
#[derive(Debug, Clone)]
pub struct Owner {
    pub manifest: Manifest,
    pub store: &'static str,
    /// It is made from the facts alone.
    pub projection: bool,
    pub now_us: i64,
}

/// Looks through the write-ahead log of a database before SQLite opens it. A store with damage in the middle is refused;
/// a projection's is told, SQLite drops the rest of it, and the facts come again.
pub fn check_log(path: &Path, projection: bool) -> Result<(), Error> {
    let log = super::sums::beside(path, "-wal");
    let look = wal::look(&log).map_err(|e| Error::Unusable(format!("{}: {e}", log.display())))?;
    let file = log.display();
    match (look.found.refusal(), look.found) {
        (Some(refusal), _) if projection => {
            tracing::error!(%file, "{refusal}: what follows is dropped, and made again from the facts");
        }
        (Some(refusal), _) => {
            return Err(Error::Unusable(format!(
                "{file}: {refusal}: they were acknowledged, and opening it would drop them; restore a backup with `fafnir \
                 restore`"
            )));
        }
        (None, wal::Found::Torn(place)) => {
            let wal::Place { frame, offset } = place;
            tracing::warn!(%file, frame, offset, "the log ends within a commit, which is dropped");
        }
        (None, _) => {}
    }
    Ok(())
}

/// What is in a database's place. It may be opened: its log has been looked through.
pub fn found(path: &Path) -> Result<Found, Error> {
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Ok(file) if file.len() == 0 => return Ok(Found::Empty),
        _ => {}
    }
    let connection = super::sqlite::connect(path, super::sqlite::Use::Read)?;
    if let Some(id) = id_in(&connection).map_err(|e| named(path, &e))? {
        return Ok(Found::Store(id));
    }
    let tables: i64 = connection
        .query_row("SELECT COUNT(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(|e| named(path, &e))?;
    Ok(if tables == 0 { Found::Empty } else { Found::Nameless })
}

fn named(path: &Path, e: &rusqlite::Error) -> Error {
    Error::Unusable(format!("{}: {e}", path.display()))
}

fn id_in(connection: &Connection) -> rusqlite::Result<Option<Uuid>> {
    let table = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = 'store'";
    if connection.query_row(table, [], |_| Ok(())).optional()?.is_none() {
        return Ok(None);
    }
    let id = connection.query_row("SELECT id FROM store", [], |row| row.get::<_, Vec<u8>>(0)).optional()?;
    Ok(id.and_then(|id| Uuid::from_slice(&id).ok()))
}

/// Claims the database in the manifest. What is there is compared with it, and with the note of how far it had come.
pub fn claim(path: &Path, owner: &Owner) -> Result<Claim, Error> {
    let unusable = |e: crate::manifest::Error| Error::Unusable(e.to_string());
    let Owner { manifest, store, projection, now_us } = owner;
    let known = manifest.stores().map_err(unusable)?.contains_key(*store);
    let found = found(path)?;
    let claim = manifest.claim(store, path, found, *projection, *now_us).map_err(unusable)?;
    if known && matches!(claim, Claim::Make(_)) && *projection && found == Found::Nothing {
        tracing::error!(file = %path.display(), "the projection is gone, and is made again from the facts");
    }
    if let Claim::Known(entry) = &claim {
        let connection = super::sqlite::connect(path, super::sqlite::Use::Read)?;
        let mark = mark(&connection)?;
        let what = match manifest.noted(store).map_err(unusable)? {
            Said::Mark(noted) if noted.store != *entry.id.as_bytes() => {
                tracing::warn!(store, "the note of how far the store had come is another store's");
                None
            }
            Said::Mark(noted) if mark < noted.reached => {
                Some(format!("its last mark is {mark}, {} was noted", noted.reached))
            }
            Said::Mark(_) => None,
            Said::Nothing if !entry.made => None,
            Said::Nothing => {
                tracing::warn!(store, "there is no note of how far the store had come");
                None
            }
            Said::Unreadable => {
                tracing::warn!(store, "the note of how far the store had come cannot be read");
                None
            }
        };
        match what {
            None => {}
            Some(what) if *projection => {
                tracing::error!(file = %path.display(), "{what}: its end is lost, and made again from the facts");
            }
            Some(what) => {
                let place = Place::File(path.to_owned());
                return Err(unusable(crate::manifest::Error::Older { place, what }));
            }
        }
    }
    Ok(claim)
}

/// Writes the store's id where there is none, and answers the one that is there.
pub fn adopt(connection: &Connection, id: Uuid) -> Result<Uuid, Error> {
    connection.execute_batch("BEGIN IMMEDIATE")?;
    connection.execute_batch(TABLE)?;
    connection.execute("INSERT OR IGNORE INTO store (one, id, mark) VALUES (1, ?1, 0)", [id.as_bytes()])?;
    connection.execute_batch("COMMIT")?;
    Ok(id_in(connection)?.unwrap_or(id))
}

fn mark(connection: &Connection) -> Result<u64, Error> {
    let mark: i64 = connection.query_row("SELECT mark FROM store", [], |row| row.get(0))?;
    Ok(u64::try_from(mark).unwrap_or(0))
}

/// Marks what was committed so far: a commit of its own. Answers the note to write when it is durable.
pub fn next_mark(connection: &Connection, id: Uuid) -> Result<Mark, Error> {
    connection.prepare_cached("UPDATE store SET mark = mark + 1")?.execute([])?;
    Ok(Mark { store: *id.as_bytes(), reached: mark(connection)?, chain: 0 })
}

/// Gives a database its id, where it has none.
pub fn put_id(tx: &mut dyn Tx, id: Uuid) -> Result<(), Error> {
    let sql = "INSERT INTO store (one, id, mark) VALUES (1, ?1, 0) ON CONFLICT (one) DO NOTHING";
    tx.execute(sql, params![id.as_bytes().to_vec()]).map(drop)
}

/// Id and mark of a database.
pub fn who(tx: &mut dyn Tx) -> error::Result<(Uuid, u64)> {
    let row = tx.query_one("SELECT id, mark FROM store", &[])?;
    let id: Vec<u8> = row.get(0)?;
    let id = Uuid::from_slice(&id).map_err(|_| error::Error::internal("store.id is no UUID"))?;
    Ok((id, row.get(1)?))
}

/// Marks what was committed so far, on a server; answers the mark.
pub fn mark_next(tx: &mut dyn Tx) -> error::Result<u64> {
    Ok(tx.query_one("UPDATE store SET mark = mark + 1 RETURNING mark", &[])?.get(0)?)
}

/// The exchange that a database follows; this one, where it follows none yet.
pub fn follows(tx: &mut dyn Tx, exchange: Uuid) -> error::Result<Uuid> {
    let id = exchange.as_bytes().to_vec();
    tx.execute("UPDATE store SET follows = ?1 WHERE one = 1 AND follows IS NULL", params![id])?;
    let follows: Vec<u8> = tx.query_one("SELECT follows FROM store", &[])?.get(0)?;
    Uuid::from_slice(&follows).map_err(|_| error::Error::internal("store.follows is no UUID"))
}
