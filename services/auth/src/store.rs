//! Tables of auth-service: users, sessions, refresh tokens. The only SQL.

pub mod keys;
pub mod people;

use super::domain::{Email, NewUser};
use fafnir_platform::{
    db::{Error, Migration, Row, Tx},
    migration, params,
};
use fafnir_proto::id::{SessionId, UserId};

pub const MIGRATIONS: &[Migration] =
    &[migration!("0001_init"), migration!("0002_keys"), migration!("0003_audit")];

/// Where a user stands. Only ACTIVE users sign in; PENDING ones become ACTIVE when role and profile exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserState {
    Pending,
    Active,
    /// An administrator took its access: it cannot sign in until it is given back.
    Deactivated,
    /// The user asked for deletion: signed out for good, its orders and accounts are being closed.
    Closing,
    Deleted,
}

impl UserState {
    pub const ALL: [Self; 5] = [Self::Pending, Self::Active, Self::Deactivated, Self::Closing, Self::Deleted];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Active => "ACTIVE",
            Self::Deactivated => "DEACTIVATED",
            Self::Closing => "CLOSING",
            Self::Deleted => "DELETED",
        }
    }
    fn parse(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|s| s.as_str() == text)
            .ok_or_else(|| Error::Statement(format!("unknown state of a user: {text:?}")))
    }
}

#[derive(Debug, Clone)]
pub struct User {
    pub id: UserId,
    /// As the user wrote it.
    pub email: String,
    pub password_hash: String,
    pub first_name: String,
    pub last_name: String,
    pub state: UserState,
    pub created_us: i64,
}

const USER_COLUMNS: &str = "id, email_shown, password_hash, first_name, last_name, state, created_us";

fn user(row: Row) -> Result<User, Error> {
    Ok(User {
        id: row.get(0)?,
        email: row.get(1)?,
        password_hash: row.get(2)?,
        first_name: row.get(3)?,
        last_name: row.get(4)?,
        state: UserState::parse(&row.get::<String>(5)?)?,
        created_us: row.get(6)?,
    })
}

/// Whether an error of [`insert_user`] means that the address is taken.
pub fn is_email_taken(error: &Error) -> bool {
    matches!(error, Error::Constraint(name) if name.contains("users.email"))
}

/// A new PENDING user. A taken address is a constraint error, see [`is_email_taken`].
pub fn insert_user(
    tx: &mut dyn Tx,
    id: UserId,
    new: &NewUser,
    password_hash: &str,
    now_us: i64,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO users (id, email, email_shown, password_hash, first_name, last_name, state, created_us, updated_us) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, 'PENDING', ?7, ?7)",
        params![id, new.email.as_str(), &new.email_shown, password_hash, &new.first_name, &new.last_name, now_us],
    )?;
    Ok(())
}

pub fn user_by_id(tx: &mut dyn Tx, id: UserId) -> Result<Option<User>, Error> {
    tx.query_opt(&format!("SELECT {USER_COLUMNS} FROM users WHERE id = ?1"), params![id])?
        .map(user)
        .transpose()
}

pub fn user_by_email(tx: &mut dyn Tx, email: &Email) -> Result<Option<User>, Error> {
    tx.query_opt(&format!("SELECT {USER_COLUMNS} FROM users WHERE email = ?1"), params![email.as_str()])?
        .map(user)
        .transpose()
}

/// ACTIVE users after an id, in order.
pub fn active_users(tx: &mut dyn Tx, after: &str, limit: u32) -> Result<Vec<User>, Error> {
    let sql =
        format!("SELECT {USER_COLUMNS} FROM users WHERE id > ?1 AND state = 'ACTIVE' ORDER BY id LIMIT ?2");
    tx.query(&sql, params![after, limit])?.into_iter().map(user).collect()
}

/// Users whose registration or deletion has not been finished, untouched since `before_us`.
pub fn unfinished_users(tx: &mut dyn Tx, before_us: i64, limit: u32) -> Result<Vec<User>, Error> {
    let sql = format!(
        "SELECT {USER_COLUMNS} FROM users WHERE state IN ('PENDING', 'CLOSING') AND updated_us <= ?1 \
         ORDER BY updated_us, id LIMIT ?2"
    );
    tx.query(&sql, params![before_us, limit])?.into_iter().map(user).collect()
}

/// Moves a user from one state to another; `false` when it was not in the first.
pub fn move_user(
    tx: &mut dyn Tx,
    id: UserId,
    from: UserState,
    to: UserState,
    now_us: i64,
) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE users SET state = ?3, updated_us = ?4 WHERE id = ?1 AND state = ?2",
        params![id, from.as_str(), to.as_str(), now_us],
    )?;
    Ok(changed == 1)
}

/// A CLOSING user becomes DELETED: its address is free again, its name and password are gone, the row stays.
pub fn erase_user(tx: &mut dyn Tx, id: UserId, now_us: i64) -> Result<bool, Error> {
    keys::delete_all(tx, id)?;
    let changed = tx.execute(
        "UPDATE users SET state = 'DELETED', email = ?2, email_shown = '', password_hash = '', first_name = '', \
         last_name = '', updated_us = ?3 WHERE id = ?1 AND state = 'CLOSING'",
        params![id, format!("deleted:{id}"), now_us],
    )?;
    Ok(changed == 1)
}

/// Replaces a password hash if it is still the one that was verified.
pub fn replace_password(
    tx: &mut dyn Tx,
    id: UserId,
    verified: &str,
    new: &str,
    now_us: i64,
) -> Result<bool, Error> {
    let changed = tx.execute(
        "UPDATE users SET password_hash = ?3, updated_us = ?4 WHERE id = ?1 AND password_hash = ?2",
        params![id, verified, new, now_us],
    )?;
    Ok(changed == 1)
}

#[derive(Debug, Clone)]
pub struct Session {
    pub id: SessionId,
    pub user_id: UserId,
    pub created_us: i64,
    pub expires_us: i64,
    pub client_ip: String,
    pub user_agent: String,
}

pub fn insert_session(tx: &mut dyn Tx, s: &Session) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO sessions (id, user_id, created_us, expires_us, client_ip, user_agent) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        params![s.id, s.user_id, s.created_us, s.expires_us, &s.client_ip, &s.user_agent],
    )?;
    Ok(())
}

/// User and end of a session that is alive: not revoked, not expired, its user ACTIVE.
pub fn live_session(tx: &mut dyn Tx, id: SessionId, now_us: i64) -> Result<Option<(UserId, i64)>, Error> {
    let row = tx.query_opt(
        "SELECT s.user_id, s.expires_us FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE s.id = ?1 AND s.revoked_us IS NULL AND s.expires_us > ?2 AND u.state = 'ACTIVE'",
        params![id, now_us],
    )?;
    row.map(|r| Ok((r.get(0)?, r.get(1)?))).transpose()
}

/// Lets a session without refresh go on until `expires_us`, at most `life_max_us` after its beginning. Answers its user
/// and how the user wrote its address; `None` when it has ended or is of another kind.
pub fn extend_session(
    tx: &mut dyn Tx,
    id: SessionId,
    now_us: i64,
    expires_us: i64,
    life_max_us: i64,
) -> Result<Option<(UserId, String)>, Error> {
    let changed = tx.execute(
        "UPDATE sessions SET expires_us = CASE WHEN created_us + ?4 < ?3 THEN created_us + ?4 ELSE ?3 END \
         WHERE id = ?1 AND revoked_us IS NULL AND expires_us > ?2 AND created_us + ?4 > ?2 \
           AND NOT EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.session_id = ?1)",
        params![id, now_us, expires_us, life_max_us],
    )?;
    if changed == 0 {
        return Ok(None);
    }
    let row = tx.query_opt(
        "SELECT u.id, u.email_shown FROM sessions s JOIN users u ON u.id = s.user_id \
         WHERE s.id = ?1 AND u.state = 'ACTIVE'",
        params![id],
    )?;
    row.map(|row| Ok((row.get(0)?, row.get(1)?))).transpose()
}

/// Where a user's newest sessions were opened.
pub fn addresses_of(tx: &mut dyn Tx, user: UserId, limit: u32) -> Result<Vec<String>, Error> {
    let sql = "SELECT client_ip FROM sessions WHERE user_id = ?1 ORDER BY created_us DESC LIMIT ?2";
    tx.query(sql, params![user, limit])?.into_iter().map(|row| row.get(0)).collect()
}

pub fn revoke_session(tx: &mut dyn Tx, id: SessionId, now_us: i64) -> Result<bool, Error> {
    let sql = "UPDATE sessions SET revoked_us = ?2 WHERE id = ?1 AND revoked_us IS NULL";
    Ok(tx.execute(sql, params![id, now_us])? == 1)
}

/// Revokes every session of a user, except one.
pub fn revoke_sessions(
    tx: &mut dyn Tx,
    user: UserId,
    except: Option<SessionId>,
    now_us: i64,
) -> Result<u64, Error> {
    let except = except.map_or(String::new(), |id| id.to_string());
    tx.execute(
        "UPDATE sessions SET revoked_us = ?3 WHERE user_id = ?1 AND id <> ?2 AND revoked_us IS NULL",
        params![user, except, now_us],
    )
}

pub fn insert_refresh(
    tx: &mut dyn Tx,
    hash: &str,
    session: SessionId,
    now_us: i64,
    expires_us: i64,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO refresh_tokens (hash, session_id, issued_us, expires_us) VALUES (?1, ?2, ?3, ?4)",
        params![hash, session, now_us, expires_us],
    )?;
    Ok(())
}

/// A refresh token with the session that it belongs to.
#[derive(Debug, Clone)]
pub struct Refresh {
    pub session_id: SessionId,
    pub user_id: UserId,
    /// As the user wrote it.
    pub email: String,
    /// When it was first exchanged for its successor.
    pub used_us: Option<i64>,
    /// Neither the token nor its session has ended, and the user is ACTIVE.
    pub alive: bool,
}

pub fn refresh_by_hash(tx: &mut dyn Tx, hash: &str, now_us: i64) -> Result<Option<Refresh>, Error> {
    let row = tx.query_opt(
        "SELECT r.session_id, s.user_id, u.email_shown, \
           r.used_us, \
           CASE WHEN r.expires_us > ?2 AND s.expires_us > ?2 AND s.revoked_us IS NULL AND u.state = 'ACTIVE' \
             THEN 1 ELSE 0 END \
         FROM refresh_tokens r JOIN sessions s ON s.id = r.session_id JOIN users u ON u.id = s.user_id \
         WHERE r.hash = ?1",
        params![hash, now_us],
    )?;
    row.map(|r| {
        Ok(Refresh {
            session_id: r.get(0)?,
            user_id: r.get(1)?,
            email: r.get(2)?,
            used_us: r.get(3)?,
            alive: r.get(4)?,
        })
    })
    .transpose()
}

/// Marks a refresh token as used; `false` when somebody was faster.
pub fn use_refresh(tx: &mut dyn Tx, hash: &str, now_us: i64) -> Result<bool, Error> {
    let sql = "UPDATE refresh_tokens SET used_us = ?2 WHERE hash = ?1 AND used_us IS NULL";
    Ok(tx.execute(sql, params![hash, now_us])? == 1)
}

/// Drops sessions that ended before `before_us`, with their refresh tokens, at most `limit` at a time.
pub fn prune_sessions(tx: &mut dyn Tx, before_us: i64, limit: u32) -> Result<u64, Error> {
    let rows = tx.query(
        "SELECT id FROM sessions WHERE expires_us < ?1 ORDER BY expires_us LIMIT ?2",
        params![before_us, limit],
    )?;
    for row in &rows {
        let id: String = row.get(0)?;
        tx.execute("DELETE FROM refresh_tokens WHERE session_id = ?1", params![&id])?;
        tx.execute("DELETE FROM sessions WHERE id = ?1", params![&id])?;
    }
    Ok(rows.len() as u64)
}
