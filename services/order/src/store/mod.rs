//! The tables of order-service; the only SQL.

pub mod audit;
pub mod projection;
pub mod retention;

use fafnir_platform::{
    db::{Error, Row, Tx, Value},
    params,
};
use fafnir_proto::{
    id::UserId,
    v1::{Fill, Order, OrderUpdate, UpdatesSinceReply},
};
use uuid::Uuid;

/// Private updates kept per user at least, so that a stream can resume.
pub const UPDATES_KEPT: u64 = 1_000;

fn blob(id: Uuid) -> Value {
    Value::Blob(id.as_bytes().to_vec())
}

fn id(row: &Row, column: usize) -> Result<Uuid, Error> {
    let bytes: Vec<u8> = row.get(column)?;
    Uuid::from_slice(&bytes).map_err(|e| Error::Statement(format!("a stored id: {e}")))
}

fn decoded<M: prost::Message + Default>(row: &Row, column: usize) -> Result<M, Error> {
    let body: Vec<u8> = row.get(column)?;
    M::decode(&body[..]).map_err(|e| Error::Statement(format!("a stored body: {e}")))
}

/// The order in columns `id` and `body`, of `user`.
fn order(user: UserId, row: &Row, column: usize) -> Result<Order, Error> {
    let id = id(row, column)?.to_string();
    Ok(Order { id, user_id: user.to_string(), ..decoded(row, column + 1)? })
}

/// The order of this user with at most `fills_max` of its fills, oldest first; another's is like none.
pub fn order_get(tx: &mut dyn Tx, user: UserId, id: Uuid, fills_max: u32) -> Result<Option<Order>, Error> {
    let row = tx.query_opt(
        "SELECT id, body, first_fill, last_fill FROM orders WHERE user_id = ?1 AND id = ?2",
        params![blob(user.uuid()), blob(id)],
    )?;
    let Some(row) = row else { return Ok(None) };
    let mut order = order(user, &row, 0)?;
    let (first, last): (i64, i64) = (row.get(2)?, row.get(3)?);
    if first > 0 {
        // The index of the user's fills, from the order's first one to its last.
        let sql = format!(
            "SELECT {FILL_COLUMNS} FROM fills WHERE user_id = ?1 AND id BETWEEN ?2 AND ?3 AND order_id = ?4 \
             ORDER BY id LIMIT ?5"
        );
        let rows = tx.query(&sql, params![blob(user.uuid()), first, last, blob(id), fills_max])?;
        order.fills = rows.iter().map(fill).collect::<Result<_, _>>()?;
    }
    Ok(Some(order))
}

/// Orders of a user, newest first; an empty symbol is all.
pub fn order_list(
    tx: &mut dyn Tx,
    user: UserId,
    symbol: &str,
    before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Order>, Error> {
    let mut sql = "SELECT id, body FROM orders WHERE user_id = ?1".to_owned();
    let mut values = params![blob(user.uuid()), limit].to_vec();
    if !symbol.is_empty() {
        values.push(symbol.into());
        sql.push_str(&format!(" AND symbol = ?{}", values.len()));
    }
    if let Some(before) = before {
        values.push(blob(before));
        sql.push_str(&format!(" AND id < ?{}", values.len()));
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?2");
    tx.query(&sql, &values)?.iter().map(|row| order(user, row, 0)).collect()
}

const FILL_COLUMNS: &str = "order_id, symbol, exec_seq, side, price_e4, quantity_e4, maker, time_us";

fn fill(row: &Row) -> Result<Fill, Error> {
    let (symbol, exec_seq): (String, u64) = (row.get(1)?, row.get(2)?);
    Ok(Fill {
        exec_id: format!("{symbol}:{exec_seq}"),
        order_id: id(row, 0)?.to_string(),
        symbol,
        side: row.get(3)?,
        price_e4: row.get(4)?,
        quantity_e4: row.get(5)?,
        maker: row.get(6)?,
        time_us: row.get(7)?,
    })
}

/// Fills of a user, newest first; an empty symbol is all.
pub fn fill_list(tx: &mut dyn Tx, user: UserId, symbol: &str, limit: u32) -> Result<Vec<Fill>, Error> {
    let mut values = params![blob(user.uuid()), limit].to_vec();
    let mut of_symbol = "";
    if !symbol.is_empty() {
        values.push(symbol.into());
        of_symbol = "AND symbol = ?3";
    }
    let sql =
        format!("SELECT {FILL_COLUMNS} FROM fills WHERE user_id = ?1 {of_symbol} ORDER BY id DESC LIMIT ?2");
    tx.query(&sql, &values)?.iter().map(fill).collect()
}

/// What a user asked for under a client order id, as its hash, and the order that it made.
pub fn client_order_get(
    tx: &mut dyn Tx,
    user: UserId,
    client_order_id: &str,
) -> Result<Option<(Vec<u8>, Uuid)>, Error> {
    tx.query_opt(
        "SELECT payload, order_id FROM client_orders WHERE user_id = ?1 AND client_order_id = ?2",
        params![blob(user.uuid()), client_order_id],
    )?
    .map(|row| Ok((row.get(0)?, id(&row, 1)?)))
    .transpose()
}

/// The sequence of a user's last private update.
pub fn update_seq(tx: &mut dyn Tx, user: UserId) -> Result<u64, Error> {
    let sql = "SELECT COALESCE(MAX(user_seq), 0) FROM events WHERE user_id = ?1";
    tx.query_one(sql, params![blob(user.uuid())])?.get(0)
}

/// Everything of a user after a sequence; `reset` where the sequence is not ours or its successors are gone.
pub fn updates_since(
    tx: &mut dyn Tx,
    user: UserId,
    after: u64,
    limit: u32,
) -> Result<UpdatesSinceReply, Error> {
    let last_seq = update_seq(tx, user)?;
    let updates = tx
        .query(
            "SELECT body FROM events WHERE user_id = ?1 AND user_seq > ?2 ORDER BY user_seq LIMIT ?3",
            params![blob(user.uuid()), after, limit],
        )?
        .iter()
        .map(|row| decoded(row, 0))
        .collect::<Result<Vec<OrderUpdate>, Error>>()?;
    let first_kept = updates.first().map(|update| update.user_seq);
    let reset = after > last_seq || (after < last_seq && first_kept != Some(after + 1));
    let more = updates.last().is_some_and(|update| update.user_seq < last_seq);
    Ok(UpdatesSinceReply { updates, last_seq, more, reset })
}

/// An empty read model begins with an opening between two positions.
pub fn begin_at(tx: &mut dyn Tx, from: u64, to: u64) -> Result<(), Error> {
    let moved =
        tx.execute("UPDATE position SET at = ?1, origin_at = ?2 WHERE id = 1 AND at = 0", params![from, to])?;
    if moved == 1 { Ok(()) } else { Err(Error::Unusable("the orders are not empty".into())) }
}

/// The position of the last fact whose effect is stored, and how many orders are open there.
pub fn position(tx: &mut dyn Tx) -> Result<(u64, u64), Error> {
    let row = tx.query_one("SELECT at, open_orders FROM position WHERE id = 1", &[])?;
    Ok((row.get(0)?, row.get(1)?))
}
