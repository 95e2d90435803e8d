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
    v1::{FactKind, Fill, Order, OrderState, OrderUpdate, Side, UpdatesSinceReply},
};
use uuid::Uuid;

/// Private updates that a stream can resume after: whoever misses more begins anew. History knows all of them.
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

/// Which orders of a user are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Empty: of all.
    pub symbol: String,
    /// Empty: of all.
    pub account_id: String,
    pub side: Option<Side>,
    /// Empty: in any.
    pub states: Vec<OrderState>,
    /// Placed at or after the one and before the other; 0: any time.
    pub from_us: i64,
    pub to_us: i64,
}

impl Filter {
    /// Whether an order is asked for.
    pub fn takes(&self, order: &Order) -> bool {
        (self.symbol.is_empty() || self.symbol == order.symbol) && self.takes_body(order)
    }

    /// What the columns do not say.
    fn takes_body(&self, order: &Order) -> bool {
        (self.account_id.is_empty() || self.account_id == order.account_id)
            && self.side.is_none_or(|side| side == order.side())
            && (self.states.is_empty() || self.states.contains(&order.state()))
            && order.created_us >= self.from_us
            && (self.to_us == 0 || order.created_us < self.to_us)
    }

    /// Whether the columns alone say which orders are asked for.
    fn is_of_columns(&self) -> bool {
        let columns = Self { symbol: self.symbol.clone(), ..Self::default() };
        self.account_id == columns.account_id
            && self.side.is_none()
            && self.states.is_empty()
            && (self.from_us, self.to_us) == (0, 0)
    }
}

/// Rows read at a time.
const PAGE: u32 = 1_000;

/// Orders of a user, newest first.
pub fn order_list(
    tx: &mut dyn Tx,
    user: UserId,
    filter: &Filter,
    mut before: Option<Uuid>,
    limit: u32,
) -> Result<Vec<Order>, Error> {
    let mut found = Vec::new();
    loop {
        let page = if filter.is_of_columns() { limit } else { PAGE };
        let orders = order_page(tx, user, &filter.symbol, before, page)?;
        let is_last = orders.len() < page as usize;
        before = orders.last().and_then(|order| Uuid::parse_str(&order.id).ok());
        found.extend(orders.into_iter().filter(|order| filter.takes_body(order)));
        if is_last || found.len() >= limit as usize {
            found.truncate(limit as usize);
            return Ok(found);
        }
    }
}

/// How many orders of a user are asked for.
pub fn order_count(tx: &mut dyn Tx, user: UserId, filter: &Filter) -> Result<u64, Error> {
    if filter.is_of_columns() {
        let of_user = "SELECT COUNT(*) FROM orders WHERE user_id = ?1";
        let row = if filter.symbol.is_empty() {
            tx.query_one(of_user, params![blob(user.uuid())])?
        } else {
            let sql = format!("{of_user} AND symbol = ?2");
            tx.query_one(&sql, params![blob(user.uuid()), &filter.symbol])?
        };
        return row.get(0);
    }
    let (mut count, mut before) = (0, None);
    loop {
        let orders = order_page(tx, user, &filter.symbol, before, PAGE)?;
        before = orders.last().and_then(|order| Uuid::parse_str(&order.id).ok());
        count += orders.iter().filter(|order| filter.takes_body(order)).count() as u64;
        if orders.len() < PAGE as usize {
            return Ok(count);
        }
    }
}

fn order_page(
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

/// Fills of a user below an id, newest first, and where older ones go on (0: there are none); an empty symbol is all.
pub fn fill_list(
    tx: &mut dyn Tx,
    user: UserId,
    symbol: &str,
    order: Option<Uuid>,
    before: i64,
    limit: u32,
) -> Result<(Vec<Fill>, i64), Error> {
    let mut values = params![blob(user.uuid()), limit, before].to_vec();
    let mut which = String::new();
    if !symbol.is_empty() {
        values.push(symbol.into());
        which.push_str(&format!(" AND symbol = ?{}", values.len()));
    }
    if let Some(order) = order {
        let sql = "SELECT first_fill, last_fill FROM orders WHERE user_id = ?1 AND id = ?2";
        let Some(row) = tx.query_opt(sql, params![blob(user.uuid()), blob(order)])? else {
            return Ok((Vec::new(), 0));
        };
        values.extend([blob(order), row.get::<i64>(0)?.into(), row.get::<i64>(1)?.into()]);
        let last = values.len();
        which.push_str(&format!(" AND order_id = ?{} AND id BETWEEN ?{} AND ?{last}", last - 2, last - 1));
    }
    let sql = format!(
        "SELECT {FILL_COLUMNS}, id FROM fills WHERE user_id = ?1 AND id < ?3 {which} ORDER BY id DESC LIMIT ?2"
    );
    let rows = tx.query(&sql, &values)?;
    let next = rows.last().filter(|_| rows.len() == limit as usize).map_or(Ok(0), |row| row.get(8))?;
    Ok((rows.iter().map(fill).collect::<Result<_, _>>()?, next))
}

/// What happened to an order, after a sequence of its user, oldest first.
pub fn steps(
    tx: &mut dyn Tx,
    user: UserId,
    order: Uuid,
    after: u64,
    limit: u32,
) -> Result<Vec<(FactKind, OrderUpdate)>, Error> {
    let sql = "SELECT first_seq, last_seq FROM orders WHERE user_id = ?1 AND id = ?2";
    let Some(row) = tx.query_opt(sql, params![blob(user.uuid()), blob(order)])? else {
        return Ok(Vec::new());
    };
    let (first, last): (u64, u64) = (row.get(0)?, row.get(1)?);
    // The index of the user's events, from the order's first one to its last.
    let rows = tx.query(
        "SELECT kind, body FROM events WHERE user_id = ?1 AND user_seq BETWEEN ?2 AND ?3 AND order_id = ?4 \
         ORDER BY user_seq LIMIT ?5",
        params![blob(user.uuid()), first.max(after.saturating_add(1)), last, blob(order), limit],
    )?;
    rows.iter()
        .map(|row| {
            let kind: i32 = row.get(0)?;
            Ok((FactKind::try_from(kind).unwrap_or_default(), decoded(row, 1)?))
        })
        .collect()
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
    let reset = after > last_seq
        || last_seq - after > UPDATES_KEPT
        || (after < last_seq && first_kept != Some(after + 1));
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
