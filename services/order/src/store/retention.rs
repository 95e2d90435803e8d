//! What goes after a while: agents' ended orders with their fills, commands that had no outcome.

use fafnir_platform::{
    db::{Error, Tx},
    params,
};

/// Deletes at most `limit` ended orders of agents that last changed before a time, with their fills and client order
/// ids. Answers how many went.
pub fn agents_prune(tx: &mut dyn Tx, before_us: i64, limit: u32) -> Result<u64, Error> {
    let rows = tx.query(
        "SELECT id FROM orders WHERE agent = 1 AND state >= 5 AND updated_us < ?1 ORDER BY updated_us LIMIT ?2",
        params![before_us, limit],
    )?;
    for row in &rows {
        let id: String = row.get(0)?;
        tx.execute("DELETE FROM fills WHERE order_id = ?1", params![&id])?;
        tx.execute("DELETE FROM idempotency WHERE order_id = ?1", params![&id])?;
        tx.execute("DELETE FROM replaces WHERE order_id = ?1", params![&id])?;
        tx.execute("DELETE FROM orders WHERE id = ?1", params![&id])?;
    }
    Ok(rows.len() as u64)
}

/// Deletes commands that the engine has journaled and that had no outcome (a mass cancel of nothing), written before a
/// time.
pub fn commands_prune(tx: &mut dyn Tx, sent_cmd_seq: u64, before_us: i64) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM commands WHERE cmd_seq <= ?1 AND created_us < ?2",
        params![sent_cmd_seq, before_us],
    )
}
