//! Tables of security-service. The only SQL.

pub mod audit;

use fafnir_platform::{
    db::{Error, Migration, Tx},
    migration, params,
};
use fafnir_proto::id::UserId;

pub const MIGRATIONS: &[Migration] = &[migration!("0001_init"), migration!("0002_audit")];

/// Whether a user has a permission through any of its roles; `None` for a permission that does not exist.
pub fn has_permission(tx: &mut dyn Tx, user: UserId, permission: &str) -> Result<Option<bool>, Error> {
    let row = tx.query_opt(
        "SELECT CASE WHEN EXISTS (SELECT 1 FROM grants g JOIN role_permissions rp ON rp.role = g.role \
           WHERE g.user_id = ?1 AND rp.permission = p.name) THEN 1 ELSE 0 END \
         FROM permissions p WHERE p.name = ?2",
        params![user, permission],
    )?;
    row.map(|r| r.get(0)).transpose()
}

/// Everything that a user may do, in alphabetical order.
pub fn permissions_of(tx: &mut dyn Tx, user: UserId) -> Result<Vec<String>, Error> {
    let rows = tx.query(
        "SELECT DISTINCT rp.permission FROM grants g JOIN role_permissions rp ON rp.role = g.role \
         WHERE g.user_id = ?1 ORDER BY rp.permission",
        params![user],
    )?;
    rows.iter().map(|r| r.get(0)).collect()
}

pub fn roles_of(tx: &mut dyn Tx, user: UserId) -> Result<Vec<String>, Error> {
    let rows = tx.query("SELECT role FROM grants WHERE user_id = ?1 ORDER BY role", params![user])?;
    rows.iter().map(|r| r.get(0)).collect()
}

pub fn role_exists(tx: &mut dyn Tx, role: &str) -> Result<bool, Error> {
    Ok(tx.query_opt("SELECT name FROM roles WHERE name = ?1", params![role])?.is_some())
}

/// Gives a role; `false` when the user has it already.
pub fn grant(tx: &mut dyn Tx, user: UserId, role: &str, by: &str, now_us: i64) -> Result<bool, Error> {
    let changed = tx.execute(
        "INSERT INTO grants (user_id, role, granted_by, granted_us) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (user_id, role) DO NOTHING",
        params![user, role, by, now_us],
    )?;
    Ok(changed == 1)
}

/// Takes a role; `false` when the user does not have it.
pub fn revoke(tx: &mut dyn Tx, user: UserId, role: &str) -> Result<bool, Error> {
    Ok(tx.execute("DELETE FROM grants WHERE user_id = ?1 AND role = ?2", params![user, role])? == 1)
}

/// Takes every role of a user.
pub fn revoke_all(tx: &mut dyn Tx, user: UserId) -> Result<u64, Error> {
    tx.execute("DELETE FROM suspended WHERE user_id = ?1", params![user])?;
    tx.execute("DELETE FROM grants WHERE user_id = ?1", params![user])
}

/// How many users have a role who are not suspended.
pub fn holders(tx: &mut dyn Tx, role: &str) -> Result<u64, Error> {
    let sql = "SELECT COUNT(*) FROM grants g WHERE g.role = ?1 \
               AND NOT EXISTS (SELECT 1 FROM suspended s WHERE s.user_id = g.user_id)";
    tx.query_one(sql, params![role])?.get(0)
}

/// Whether a user has a role.
pub fn has_role(tx: &mut dyn Tx, user: UserId, role: &str) -> Result<bool, Error> {
    let sql = "SELECT role FROM grants WHERE user_id = ?1 AND role = ?2";
    Ok(tx.query_opt(sql, params![user, role])?.is_some())
}

/// Has a user count for nobody's last holder of a role; `false` where it is so already.
pub fn suspend(tx: &mut dyn Tx, user: UserId, now_us: i64) -> Result<bool, Error> {
    let sql = "INSERT INTO suspended (user_id, since_us) VALUES (?1, ?2) ON CONFLICT (user_id) DO NOTHING";
    Ok(tx.execute(sql, params![user, now_us])? == 1)
}

pub fn resume(tx: &mut dyn Tx, user: UserId) -> Result<(), Error> {
    tx.execute("DELETE FROM suspended WHERE user_id = ?1", params![user]).map(drop)
}

/// Every role with its permissions, in alphabetical order.
pub fn roles(tx: &mut dyn Tx) -> Result<Vec<(String, Vec<String>)>, Error> {
    let rows = tx.query(
        "SELECT r.name, rp.permission FROM roles r LEFT JOIN role_permissions rp ON rp.role = r.name \
         ORDER BY r.name, rp.permission",
        &[],
    )?;
    let mut roles: Vec<(String, Vec<String>)> = Vec::new();
    for row in rows {
        let (role, permission): (String, Option<String>) = (row.get(0)?, row.get(1)?);
        if roles.last().is_none_or(|(name, _)| *name != role) {
            roles.push((role, Vec::new()));
        }
        if let (Some((_, permissions)), Some(permission)) = (roles.last_mut(), permission) {
            permissions.push(permission);
        }
    }
    Ok(roles)
}
