//! What goes after a while: agents' ended orders.

use super::{blob, id};
use fafnir_platform::{
    db::{Error, Tx},
    params,
};
use fafnir_proto::v1::Order;

/// Deletes at most `limit` orders of agents that ended before a time, with their fills and client order ids. Answers how
/// many went.
pub fn agents_prune(tx: &mut dyn Tx, before_us: i64, limit: u32) -> Result<u64, Error> {
    let rows = tx.query(
        "SELECT user_id, id, first_fill, last_fill, body FROM orders \
         WHERE agent = 1 AND ended_us > 0 AND ended_us < ?1 ORDER BY ended_us LIMIT ?2",
        params![before_us, limit],
    )?;
    for row in &rows {
        let (user, order) = (id(row, 0)?, id(row, 1)?);
        let (first, last): (i64, i64) = (row.get(2)?, row.get(3)?);
        if first > 0 {
            tx.execute(
                "DELETE FROM fills WHERE user_id = ?1 AND id BETWEEN ?2 AND ?3 AND order_id = ?4",
                params![blob(user), first, last, blob(order)],
            )?;
        }
        let Order { client_order_id, .. } = super::decoded(row, 4)?;
        if !client_order_id.is_empty() {
            tx.execute(
                "DELETE FROM client_orders WHERE user_id = ?1 AND client_order_id = ?2",
                params![blob(user), client_order_id],
            )?;
        }
        tx.execute("DELETE FROM orders WHERE user_id = ?1 AND id = ?2", params![blob(user), blob(order)])?;
    }
    Ok(rows.len() as u64)
}
