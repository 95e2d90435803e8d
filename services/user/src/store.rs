//! The table of user-service. The only SQL.

use super::domain::Profile;
use fafnir_platform::{
    db::{Error, Migration, Row, Tx},
    migration, params,
};
use fafnir_proto::id::UserId;

pub const MIGRATIONS: &[Migration] = &[migration!("0001_init")];

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

/// Blanks a profile; the row stays, so that a late creation does not bring it back.
pub fn erase(tx: &mut dyn Tx, user: UserId, now_us: i64) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO profiles (user_id, email, first_name, last_name, deleted, created_us, updated_us) \
         VALUES (?1, '', '', '', 1, ?2, ?2) ON CONFLICT (user_id) DO UPDATE SET email = '', first_name = '', \
         last_name = '', deleted = 1, updated_us = excluded.updated_us",
        params![user, now_us],
    )?;
    Ok(())
}

/// Profiles after an id, in order.
pub fn list(tx: &mut dyn Tx, after: &str, limit: u32) -> Result<Vec<Profile>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM profiles WHERE user_id > ?1 AND deleted = 0 ORDER BY user_id LIMIT ?2"
    );
    tx.query(&sql, params![after, limit])?.into_iter().map(profile).collect()
}
