//! The tables of user-service. The only SQL.

use super::domain::Profile;
use fafnir_platform::{
    db::{Error, Migration, Row, Tx},
    migration, params,
};
use fafnir_proto::id::UserId;

pub const MIGRATIONS: &[Migration] = &[migration!("0001_init"), migration!("0002_watchlist")];

const COLUMNS: &str = "user_id, email, first_name, last_name, created_us, updated_us";

fn profile(row: Row) -> Result<Profile, Error> {
    Ok(Profile {
        user_id: row.get(0)?,
        email: row.get(1)?,
        first_name: row.get(2)?,
        last_name: row.get(3)?,
        created_us: row.get(4)?,
        updated_us: row.get(5)?,
    })
}

/// Stores a profile; one that exists stays as it is.
pub fn insert(tx: &mut dyn Tx, p: &Profile) -> Result<bool, Error> {
    let changed = tx.execute(
        "INSERT INTO profiles (user_id, email, first_name, last_name, deleted, created_us, updated_us) \
         VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6) ON CONFLICT (user_id) DO NOTHING",
        params![p.user_id, &p.email, &p.first_name, &p.last_name, p.created_us, p.updated_us],
    )?;
    Ok(changed == 1)
}

/// The profile of a user that is not deleted.
pub fn get(tx: &mut dyn Tx, user: UserId) -> Result<Option<Profile>, Error> {
    let sql = format!("SELECT {COLUMNS} FROM profiles WHERE user_id = ?1 AND deleted = 0");
    tx.query_opt(&sql, params![user])?.map(profile).transpose()
}

pub fn rename(tx: &mut dyn Tx, user: UserId, first: &str, last: &str, now_us: i64) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE profiles SET first_name = ?2, last_name = ?3, updated_us = ?4 WHERE user_id = ?1 AND deleted = 0",
        params![user, first, last, now_us],
    )?;
    Ok(changed == 1)
}

/// Blanks a profile and takes the watchlist; the row stays, so that a late creation does not bring it back.
pub fn erase(tx: &mut dyn Tx, user: UserId, now_us: i64) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO profiles (user_id, email, first_name, last_name, deleted, created_us, updated_us) \
         VALUES (?1, '', '', '', 1, ?2, ?2) ON CONFLICT (user_id) DO UPDATE SET email = '', first_name = '', \
         last_name = '', deleted = 1, updated_us = excluded.updated_us",
        params![user, now_us],
    )?;
    tx.execute("DELETE FROM watchlist WHERE user_id = ?1", params![user])?;
    Ok(())
}

/// Profiles after an id, in order.
pub fn list(tx: &mut dyn Tx, after: &str, limit: u32) -> Result<Vec<Profile>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM profiles WHERE user_id > ?1 AND deleted = 0 ORDER BY user_id LIMIT ?2"
    );
    tx.query(&sql, params![after, limit])?.into_iter().map(profile).collect()
}

/// Symbols that a user watches with the time they were added, newest first.
pub fn watchlist(tx: &mut dyn Tx, user: UserId) -> Result<Vec<(String, i64)>, Error> {
    let rows = tx.query(
        "SELECT symbol, added_us FROM watchlist WHERE user_id = ?1 ORDER BY added_us DESC, symbol",
        params![user],
    )?;
    rows.iter().map(|row| Ok((row.get(0)?, row.get(1)?))).collect()
}

/// Adds a symbol; one that is there stays as it is.
pub fn watch(tx: &mut dyn Tx, user: UserId, symbol: &str, now_us: i64) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO watchlist (user_id, symbol, added_us) VALUES (?1, ?2, ?3) ON CONFLICT (user_id, symbol) DO NOTHING",
        params![user, symbol, now_us],
    )?;
    Ok(())
}

/// Removes a symbol; one that is not there is no error.
pub fn unwatch(tx: &mut dyn Tx, user: UserId, symbol: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM watchlist WHERE user_id = ?1 AND symbol = ?2", params![user, symbol])?;
    Ok(())
}
