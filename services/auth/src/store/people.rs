//! What users and administrators see of users and sessions.

use super::{USER_COLUMNS, User, UserState, user};
use fafnir_platform::{
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::id::{SessionId, UserId};

/// A session as its user sees it.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: SessionId,
    pub created_us: i64,
    pub expires_us: i64,
    pub client_ip: String,
    pub user_agent: String,
    /// It has no refresh token: it lives in a browser's cookie.
    pub browser: bool,
}

fn listed(r: &Row) -> Result<Listed, Error> {
    Ok(Listed {
        id: r.get(0)?,
        created_us: r.get(1)?,
        expires_us: r.get(2)?,
        client_ip: r.get(3)?,
        user_agent: r.get(4)?,
        browser: r.get(5)?,
    })
}

/// A user's sessions that are alive, newest first.
pub fn sessions_of(tx: &mut dyn Tx, user: UserId, now_us: i64, limit: u32) -> Result<Vec<Listed>, Error> {
    let sql = "SELECT s.id, s.created_us, s.expires_us, s.client_ip, s.user_agent, \
                 CASE WHEN EXISTS (SELECT 1 FROM refresh_tokens r WHERE r.session_id = s.id) THEN 0 ELSE 1 END \
               FROM sessions s WHERE s.user_id = ?1 AND s.revoked_us IS NULL AND s.expires_us > ?2 \
               ORDER BY s.created_us DESC, s.id LIMIT ?3";
    tx.query(sql, params![user, now_us, limit])?.iter().map(listed).collect()
}

/// Whether a session is a user's, and when it began.
pub fn session_began(tx: &mut dyn Tx, user: UserId, id: SessionId) -> Result<Option<i64>, Error> {
    let sql = "SELECT created_us FROM sessions WHERE id = ?1 AND user_id = ?2";
    tx.query_opt(sql, params![id, user])?.map(|r| r.get(0)).transpose()
}

/// Users after an id whose id, address or name has these words; the pattern is LIKE's, escaped by a backslash.
pub fn users_like(
    tx: &mut dyn Tx,
    pattern: &str,
    state: Option<UserState>,
    after: &str,
    limit: u32,
) -> Result<Vec<User>, Error> {
    let sql = format!(
        "SELECT {USER_COLUMNS} FROM users WHERE id > ?1 AND (?2 = '' AND state <> 'DELETED' OR state = ?2) \
         AND (LOWER(id) LIKE ?3 ESCAPE '\\' OR LOWER(email_shown) LIKE ?3 ESCAPE '\\' \
           OR LOWER(first_name || ' ' || last_name) LIKE ?3 ESCAPE '\\') ORDER BY id LIMIT ?4"
    );
    let state = state.map_or("", UserState::as_str);
    tx.query(&sql, params![after, state, pattern, limit])?.into_iter().map(user).collect()
}

/// How many there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    pub active: u64,
    pub deactivated: u64,
    /// Neither registered to the end nor deleted to the end.
    pub unfinished: u64,
    pub sessions: u64,
    pub keys: u64,
}

pub fn figures(tx: &mut dyn Tx, now_us: i64) -> Result<Figures, Error> {
    let mut users = |states: &str| -> Result<u64, Error> {
        tx.query_one(&format!("SELECT COUNT(*) FROM users WHERE state IN ({states})"), &[])?.get(0)
    };
    let (active, deactivated, unfinished) =
        (users("'ACTIVE'")?, users("'DEACTIVATED'")?, users("'PENDING', 'CLOSING'")?);
    let sessions = "SELECT COUNT(*) FROM sessions WHERE revoked_us IS NULL AND expires_us > ?1";
    let keys =
        "SELECT COUNT(*) FROM api_keys WHERE revoked_us IS NULL AND (expires_us = 0 OR expires_us > ?1)";
    Ok(Figures {
        active,
        deactivated,
        unfinished,
        sessions: tx.query_one(sessions, params![now_us])?.get(0)?,
        keys: tx.query_one(keys, params![now_us])?.get(0)?,
    })
}
