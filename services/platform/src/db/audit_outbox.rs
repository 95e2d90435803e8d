//! What is on its way to the audit log, stored with the change that it tells of ([`crate::audit`]).

use super::{Error, Tx};
use crate::params;

/// Include this in a migration of a service that acts.
pub const SCHEMA: &str = "CREATE TABLE audit_outbox (id INTEGER PRIMARY KEY, entry BLOB NOT NULL) STRICT";

/// Stores an encoded entry.
pub fn put(tx: &mut dyn Tx, entry: Vec<u8>) -> Result<(), Error> {
    tx.execute("INSERT INTO audit_outbox (entry) VALUES (?1)", params![entry]).map(drop)
}

/// The oldest entries, each with its number.
pub fn first(tx: &mut dyn Tx, limit: u32) -> Result<Vec<(i64, Vec<u8>)>, Error> {
    let rows = tx.query("SELECT id, entry FROM audit_outbox ORDER BY id LIMIT ?1", params![limit])?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Drops the entries up to a number, which were handed over.
pub fn delete_through(tx: &mut dyn Tx, id: i64) -> Result<u64, Error> {
    tx.execute("DELETE FROM audit_outbox WHERE id <= ?1", params![id])
}
