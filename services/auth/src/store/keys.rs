//! The table of API keys.

use crate::domain::key::{KeyId, NewKey, Scope};
use fafnir_platform::{
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::id::{SessionId, UserId};

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    pub id: String,
    pub session_id: SessionId,
    pub user_id: UserId,
    pub secret_hash: String,
    pub label: String,
    pub scope: Scope,
    /// Empty: every account of its user.
    pub account_id: String,
    pub addresses: Vec<String>,
    pub created_us: i64,
    /// 0: never.
    pub expires_us: i64,
    pub last_used_us: i64,
}

const COLUMNS: &str = "k.id, k.session_id, k.user_id, k.secret_hash, k.label, k.scope, k.account_id, k.addresses, \
                       k.created_us, k.expires_us, k.last_used_us";
/// A key that opens at ?2: its user may sign in, and it has not ended.
const ALIVE: &str = "k.revoked_us IS NULL AND (k.expires_us = 0 OR k.expires_us > ?2) AND u.state = 'ACTIVE'";

fn key(row: Row) -> Result<Key, Error> {
    let scope: String = row.get(5)?;
    let addresses: String = row.get(7)?;
    Ok(Key {
        id: row.get(0)?,
        session_id: row.get(1)?,
        user_id: row.get(2)?,
        secret_hash: row.get(3)?,
        label: row.get(4)?,
        scope: Scope::parse(&[scope]).map_err(|e| Error::Statement(e.to_string()))?,
        account_id: row.get(6)?,
        addresses: addresses.split(',').filter(|a| !a.is_empty()).map(str::to_owned).collect(),
        created_us: row.get(8)?,
        expires_us: row.get(9)?,
        last_used_us: row.get(10)?,
    })
}

/// Where a new key belongs.
#[derive(Debug, Clone)]
pub struct Place {
    pub id: KeyId,
    pub session_id: SessionId,
    pub user_id: UserId,
    pub secret_hash: String,
    pub account_id: String,
}

/// Stores a key; `false` when one with this id is there already.
pub fn insert(tx: &mut dyn Tx, place: &Place, new: &NewKey, now_us: i64) -> Result<bool, Error> {
    let changed = tx.execute(
        "INSERT INTO api_keys (id, session_id, user_id, secret_hash, label, scope, account_id, addresses, created_us, \
         expires_us, last_used_us) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, 0) ON CONFLICT (id) DO NOTHING",
        params![
            place.id.as_str(),
            place.session_id,
            place.user_id,
            &place.secret_hash,
            &new.label,
            new.scope.name(),
            &place.account_id,
            new.addresses.join(","),
            now_us,
            new.expires_us,
        ],
    )?;
    Ok(changed == 1)
}

/// A key that opens.
pub fn live(tx: &mut dyn Tx, id: &KeyId, now_us: i64) -> Result<Option<Key>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys k JOIN users u ON u.id = k.user_id WHERE k.id = ?1 AND {ALIVE}"
    );
    tx.query_opt(&sql, params![id.as_str(), now_us])?.map(key).transpose()
}

/// User and end (0: none) of a key that opens, by what its streams live under.
pub fn live_session(tx: &mut dyn Tx, id: SessionId, now_us: i64) -> Result<Option<(UserId, i64)>, Error> {
    let sql = format!(
        "SELECT k.user_id, k.expires_us FROM api_keys k JOIN users u ON u.id = k.user_id \
         WHERE k.session_id = ?1 AND {ALIVE}"
    );
    tx.query_opt(&sql, params![id, now_us])?.map(|r| Ok((r.get(0)?, r.get(1)?))).transpose()
}

/// A user's keys that were not revoked, newest first.
pub fn of_user(tx: &mut dyn Tx, user: UserId) -> Result<Vec<Key>, Error> {
    let sql = format!(
        "SELECT {COLUMNS} FROM api_keys k WHERE k.user_id = ?1 AND k.revoked_us IS NULL \
         ORDER BY k.created_us DESC, k.id"
    );
    tx.query(&sql, params![user])?.into_iter().map(key).collect()
}

/// How many keys of a user have not ended.
pub fn count(tx: &mut dyn Tx, user: UserId, now_us: i64) -> Result<usize, Error> {
    let sql = "SELECT COUNT(*) FROM api_keys WHERE user_id = ?1 AND revoked_us IS NULL \
               AND (expires_us = 0 OR expires_us > ?2)";
    let count: u64 = tx.query_one(sql, params![user, now_us])?.get(0)?;
    Ok(usize::try_from(count).unwrap_or(usize::MAX))
}

/// Ends a user's key. `None`: it has none with this id; `Some(false)`: it had ended already.
pub fn revoke(tx: &mut dyn Tx, user: UserId, id: &KeyId, now_us: i64) -> Result<Option<bool>, Error> {
    let sql = "UPDATE api_keys SET revoked_us = ?3 WHERE id = ?1 AND user_id = ?2 AND revoked_us IS NULL";
    if tx.execute(sql, params![id.as_str(), user, now_us])? == 1 {
        return Ok(Some(true));
    }
    let sql = "SELECT id FROM api_keys WHERE id = ?1 AND user_id = ?2";
    Ok(tx.query_opt(sql, params![id.as_str(), user])?.map(|_| false))
}

/// Notes that a key was used.
pub fn used(tx: &mut dyn Tx, id: &str, now_us: i64) -> Result<(), Error> {
    let sql = "UPDATE api_keys SET last_used_us = ?2 WHERE id = ?1 AND last_used_us < ?2";
    tx.execute(sql, params![id, now_us]).map(drop)
}

/// Drops every key of a user.
pub fn delete_all(tx: &mut dyn Tx, user: UserId) -> Result<(), Error> {
    tx.execute("DELETE FROM api_keys WHERE user_id = ?1", params![user]).map(drop)
}

/// Drops keys that ended before `before_us`, at most `limit` at a time.
pub fn prune(tx: &mut dyn Tx, before_us: i64, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM api_keys WHERE id IN (SELECT id FROM api_keys WHERE revoked_us < ?1 \
         OR (expires_us > 0 AND expires_us < ?1) ORDER BY id LIMIT ?2)",
        params![before_us, limit],
    )
}
