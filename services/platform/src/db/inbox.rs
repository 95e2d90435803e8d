//! What a consumer has applied: positions and dead letters, written in the transaction of the effect.

use super::{Error, Tx};
use crate::{error, params};
use fafnir_proto::subject::FACTS_STREAM;

/// Include this in the first migration of a service that follows facts.
pub const SCHEMA: &str = "CREATE TABLE inbox (source TEXT PRIMARY KEY, seq INTEGER NOT NULL) STRICT;\n\
    CREATE TABLE dead_letter (id INTEGER PRIMARY KEY, subject TEXT NOT NULL, payload BLOB NOT NULL, error TEXT NOT NULL, created_us INTEGER NOT NULL) STRICT";

/// The last sequence applied from `source` (a symbol, a stream); 0 before the first.
pub fn position(tx: &mut dyn Tx, source: &str) -> Result<u64, Error> {
    tx.query_opt("SELECT seq FROM inbox WHERE source = ?1", params![source])?.map_or(Ok(0), |row| row.get(0))
}

/// The position of a projection of the facts.
pub fn facts_position(tx: &mut dyn Tx) -> Result<u64, Error> {
    position(tx, FACTS_STREAM)
}

/// Moves the position of a projection of the facts, in the transaction of their effect.
///
/// # Errors
/// It is not `from`: another replica was faster.
pub fn facts_advance(tx: &mut dyn Tx, from: u64, to: u64) -> error::Result<()> {
    let moved = if from == 0 {
        tx.execute(
            "INSERT INTO inbox (source, seq) VALUES (?1, ?2) ON CONFLICT (source) DO NOTHING",
            params![FACTS_STREAM, to],
        )?
    } else {
        tx.execute(
            "UPDATE inbox SET seq = ?3 WHERE source = ?1 AND seq = ?2",
            params![FACTS_STREAM, from, to],
        )?
    };
    if moved == 1 {
        return Ok(());
    }
    Err(error::Error::unavailable(format!(
        "the facts stand elsewhere than at {from}: another replica was faster"
    )))
}

/// Every position.
pub fn positions(tx: &mut dyn Tx) -> Result<Vec<(String, u64)>, Error> {
    let rows = tx.query("SELECT source, seq FROM inbox ORDER BY source", &[])?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Moves a position forward.
pub fn advance(tx: &mut dyn Tx, source: &str, seq: u64) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO inbox (source, seq) VALUES (?1, ?2) ON CONFLICT (source) DO UPDATE SET seq = excluded.seq",
        params![source, seq],
    )?;
    Ok(())
}

/// Keeps a message that can never be applied, for a person to look at.
pub fn dead_letter_put(
    tx: &mut dyn Tx,
    subject: &str,
    payload: &[u8],
    error: &str,
    now_us: i64,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO dead_letter (subject, payload, error, created_us) VALUES (?1, ?2, ?3, ?4)",
        params![subject, payload, error, now_us],
    )?;
    Ok(())
}

/// How many dead letters are kept.
pub fn dead_letter_count(tx: &mut dyn Tx) -> Result<u64, Error> {
    tx.query_one("SELECT COUNT(*) FROM dead_letter", &[])?.get(0)
}
