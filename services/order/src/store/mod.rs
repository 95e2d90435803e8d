//! The tables of order-service; the only SQL.

pub mod commands;
pub mod projection;
pub mod retention;

use super::domain::Entry;
use fafnir_platform::{
    db::{Error, Row, Tx, inbox},
    params,
};
use fafnir_proto::id::UserId;
use fafnir_proto::v1::{
    Fill, Instrument, Order, OrderState, OrderUpdate, PendingAction, Side, UpdatesSinceReply,
};
use prost::Message as _;

/// Private updates kept per user, so that a stream can resume.
pub const UPDATES_KEPT: u64 = 1_000;

const ORDER_COLUMNS: &str = "id, user_id, account_id, symbol, side, type, time_in_force, state, pending, quantity_e4, \
     filled_e4, open_e4, price_e4, stop_price_e4, trail_amount_e4, trail_percent_e4, display_quantity_e4, post_only, \
     stp, cap_price_e4, filled_notional_micros, currency, client_order_id, reject_code, reject_reason, version, \
     created_us, updated_us, expires_us, accepted, agent";

fn entry(row: &Row) -> Result<Entry, Error> {
    Ok(Entry {
        order: Order {
            id: row.get(0)?,
            user_id: row.get(1)?,
            account_id: row.get(2)?,
            symbol: row.get(3)?,
            side: row.get(4)?,
            r#type: row.get(5)?,
            time_in_force: row.get(6)?,
            state: row.get(7)?,
            pending: row.get(8)?,
            quantity_e4: row.get(9)?,
            filled_e4: row.get(10)?,
            open_e4: row.get(11)?,
            price_e4: row.get(12)?,
            stop_price_e4: row.get(13)?,
            trail_amount_e4: row.get(14)?,
            trail_percent_e4: row.get(15)?,
            display_quantity_e4: row.get(16)?,
            post_only: row.get(17)?,
            stp: row.get(18)?,
            filled_notional_micros: row.get(20)?,
            currency: row.get(21)?,
            client_order_id: row.get(22)?,
            reject_code: row.get(23)?,
            reject_reason: row.get(24)?,
            version: row.get(25)?,
            created_us: row.get(26)?,
            updated_us: row.get(27)?,
            expires_us: row.get(28)?,
            fills: Vec::new(),
        },
        cap_price_e4: row.get(19)?,
        accepted: row.get(29)?,
        agent: row.get(30)?,
    })
}

pub fn order_insert(tx: &mut dyn Tx, e: &Entry) -> Result<(), Error> {
    let o = &e.order;
    let sql = format!(
        "INSERT INTO orders ({ORDER_COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, \
         ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31)"
    );
    tx.execute(
        &sql,
        params![
            &o.id,
            &o.user_id,
            &o.account_id,
            &o.symbol,
            o.side,
            o.r#type,
            o.time_in_force,
            o.state,
            o.pending,
            o.quantity_e4,
            o.filled_e4,
            o.open_e4,
            o.price_e4,
            o.stop_price_e4,
            o.trail_amount_e4,
            o.trail_percent_e4,
            o.display_quantity_e4,
            o.post_only,
            o.stp,
            e.cap_price_e4,
            o.filled_notional_micros,
            &o.currency,
            &o.client_order_id,
            &o.reject_code,
            &o.reject_reason,
            o.version,
            o.created_us,
            o.updated_us,
            o.expires_us,
            e.accepted,
            e.agent
        ],
    )?;
    Ok(())
}

/// Writes what can change of an order.
pub fn order_update(tx: &mut dyn Tx, e: &Entry) -> Result<(), Error> {
    let o = &e.order;
    tx.execute(
        "UPDATE orders SET state = ?2, pending = ?3, quantity_e4 = ?4, filled_e4 = ?5, open_e4 = ?6, price_e4 = ?7, \
         stop_price_e4 = ?8, display_quantity_e4 = ?9, cap_price_e4 = ?10, filled_notional_micros = ?11, \
         reject_code = ?12, reject_reason = ?13, version = ?14, updated_us = ?15, accepted = ?16 WHERE id = ?1",
        params![
            &o.id,
            o.state,
            o.pending,
            o.quantity_e4,
            o.filled_e4,
            o.open_e4,
            o.price_e4,
            o.stop_price_e4,
            o.display_quantity_e4,
            e.cap_price_e4,
            o.filled_notional_micros,
            &o.reject_code,
            &o.reject_reason,
            o.version,
            o.updated_us,
            e.accepted
        ],
    )?;
    Ok(())
}

pub fn order_get(tx: &mut dyn Tx, id: &str) -> Result<Option<Entry>, Error> {
    let sql = format!("SELECT {ORDER_COLUMNS} FROM orders WHERE id = ?1");
    tx.query_opt(&sql, params![id])?.as_ref().map(entry).transpose()
}

/// The order of this user; another's is like none.
pub fn order_of(tx: &mut dyn Tx, user: &UserId, id: &str) -> Result<Option<Entry>, Error> {
    let sql = format!("SELECT {ORDER_COLUMNS} FROM orders WHERE id = ?1 AND user_id = ?2");
    tx.query_opt(&sql, params![id, user])?.as_ref().map(entry).transpose()
}

/// Users who have open orders in a symbol.
pub fn users_with_open_orders(tx: &mut dyn Tx, symbol: &str) -> Result<Vec<UserId>, Error> {
    tx.query(
        "SELECT DISTINCT user_id FROM orders WHERE symbol = ?1 AND state <= 4 ORDER BY user_id",
        params![symbol],
    )?
    .iter()
    .map(|r| {
        let user: String = r.get(0)?;
        UserId::parse(&user).map_err(|e| Error::Statement(format!("a stored user id: {e}")))
    })
    .collect()
}

/// Orders of a user, newest first.
pub fn order_list(
    tx: &mut dyn Tx,
    user: &UserId,
    open_only: bool,
    symbol: &str,
    before_id: &str,
    limit: u32,
) -> Result<Vec<Order>, Error> {
    let mut sql = format!("SELECT {ORDER_COLUMNS} FROM orders WHERE user_id = ?1");
    let mut values = params![user].to_vec();
    let mut add = |sql: &mut String, condition: &str, value: fafnir_platform::db::Value| {
        values.push(value);
        sql.push_str(&format!(" AND {condition} ?{}", values.len()));
    };
    if open_only {
        sql.push_str(" AND state <= 4");
    }
    if !symbol.is_empty() {
        add(&mut sql, "symbol =", symbol.into());
    }
    if !before_id.is_empty() {
        add(&mut sql, "id <", before_id.into());
    }
    values.push(limit.into());
    sql.push_str(&format!(" ORDER BY id DESC LIMIT ?{}", values.len()));
    tx.query(&sql, &values)?.iter().map(|r| Ok(entry(r)?.order)).collect()
}

/// Orders whose hold or command row is missing, the oldest first.
pub fn order_unaccepted(tx: &mut dyn Tx, before_us: i64, limit: u32) -> Result<Vec<Entry>, Error> {
    let sql = format!(
        "SELECT {ORDER_COLUMNS} FROM orders WHERE accepted = 0 AND created_us <= ?1 ORDER BY created_us LIMIT ?2"
    );
    tx.query(&sql, params![before_us, limit])?.iter().map(entry).collect()
}

fn fill(row: &Row) -> Result<Fill, Error> {
    let (symbol, seq): (String, u64) = (row.get(2)?, row.get(1)?);
    Ok(Fill {
        exec_id: format!("{symbol}:{seq}"),
        order_id: row.get(0)?,
        symbol,
        side: row.get(3)?,
        price_e4: row.get(4)?,
        quantity_e4: row.get(5)?,
        maker: row.get(6)?,
        time_us: row.get(7)?,
    })
}

const FILL_COLUMNS: &str = "order_id, seq, symbol, side, price_e4, quantity_e4, maker, time_us";

/// Fills of an order, oldest first.
pub fn fills_of(tx: &mut dyn Tx, order_id: &str, limit: u32) -> Result<Vec<Fill>, Error> {
    let sql = format!("SELECT {FILL_COLUMNS} FROM fills WHERE order_id = ?1 ORDER BY seq LIMIT ?2");
    tx.query(&sql, params![order_id, limit])?.iter().map(fill).collect()
}

/// Fills of a user, newest first; an empty symbol is all.
pub fn fill_list(tx: &mut dyn Tx, user: &UserId, symbol: &str, limit: u32) -> Result<Vec<Fill>, Error> {
    let rows = if symbol.is_empty() {
        let sql = format!(
            "SELECT {FILL_COLUMNS} FROM fills WHERE user_id = ?1 ORDER BY time_us DESC, symbol, seq DESC LIMIT ?2"
        );
        tx.query(&sql, params![user, limit])?
    } else {
        let sql = format!(
            "SELECT {FILL_COLUMNS} FROM fills WHERE user_id = ?1 AND symbol = ?3 ORDER BY time_us DESC, seq DESC LIMIT ?2"
        );
        tx.query(&sql, params![user, limit, symbol])?
    };
    rows.iter().map(fill).collect()
}

/// Who placed what under a client order id: the request's hash and the order.
pub fn idempotency_get(tx: &mut dyn Tx, user: &UserId, key: &str) -> Result<Option<(String, String)>, Error> {
    tx.query_opt(
        "SELECT request_hash, order_id FROM idempotency WHERE user_id = ?1 AND client_order_id = ?2",
        params![user, key],
    )?
    .map(|r| Ok((r.get(0)?, r.get(1)?)))
    .transpose()
}

/// Remembers a client order id. `false`: it was there.
pub fn idempotency_put(
    tx: &mut dyn Tx,
    user: &UserId,
    key: &str,
    hash: &str,
    order_id: &str,
) -> Result<bool, Error> {
    let inserted = tx.execute(
        "INSERT INTO idempotency (user_id, client_order_id, request_hash, order_id) VALUES (?1, ?2, ?3, ?4) \
         ON CONFLICT (user_id, client_order_id) DO NOTHING",
        params![user, key, hash, order_id],
    )?;
    Ok(inserted == 1)
}

/// Counts one more open order of a user (or one less) and answers the count.
pub fn open_orders_add(tx: &mut dyn Tx, user: &str, change: i64) -> Result<i64, Error> {
    let row = tx.query_one(
        "INSERT INTO users (user_id, open_orders, update_seq) VALUES (?1, ?2, 0) \
         ON CONFLICT (user_id) DO UPDATE SET open_orders = users.open_orders + excluded.open_orders \
         RETURNING open_orders",
        params![user, change],
    )?;
    row.get(0)
}

/// Stores a private update with the user's next sequence; nobody listens for agents. Answers the sequence.
pub fn update_put(tx: &mut dyn Tx, entry: &Entry, fill: Option<Fill>) -> Result<(), Error> {
    if entry.agent {
        return Ok(());
    }
    let user = &entry.order.user_id;
    let row = tx.query_one(
        "INSERT INTO users (user_id, open_orders, update_seq) VALUES (?1, 0, 1) \
         ON CONFLICT (user_id) DO UPDATE SET update_seq = users.update_seq + 1 RETURNING update_seq",
        params![user],
    )?;
    let user_seq: u64 = row.get(0)?;
    let update = OrderUpdate { user_id: user.clone(), user_seq, order: Some(entry.order.clone()), fill };
    tx.execute(
        "INSERT INTO updates (user_id, user_seq, payload) VALUES (?1, ?2, ?3)",
        params![user, user_seq, update.encode_to_vec()],
    )?;
    if let Some(gone) = user_seq.checked_sub(UPDATES_KEPT).filter(|s| *s > 0) {
        tx.execute("DELETE FROM updates WHERE user_id = ?1 AND user_seq <= ?2", params![user, gone])?;
    }
    Ok(())
}

/// The sequence of a user's last private update.
pub fn update_seq(tx: &mut dyn Tx, user: &str) -> Result<u64, Error> {
    tx.query_opt("SELECT update_seq FROM users WHERE user_id = ?1", params![user])?
        .map_or(Ok(0), |r| r.get(0))
}

/// A user's private updates after a sequence, as they were stored.
pub fn update_list(
    tx: &mut dyn Tx,
    user: &str,
    after: u64,
    limit: u32,
) -> Result<Vec<(u64, Vec<u8>)>, Error> {
    tx.query(
        "SELECT user_seq, payload FROM updates WHERE user_id = ?1 AND user_seq > ?2 ORDER BY user_seq LIMIT ?3",
        params![user, after, limit],
    )?
    .iter()
    .map(|r| Ok((r.get(0)?, r.get(1)?)))
    .collect()
}

/// Everything of a user after a sequence; `reset` where the sequence is not ours or its successors are gone.
pub fn updates_since(
    tx: &mut dyn Tx,
    user: &str,
    after: u64,
    limit: u32,
) -> Result<UpdatesSinceReply, Error> {
    let last_seq = update_seq(tx, user)?;
    let stored = update_list(tx, user, after, limit)?;
    let first_kept = stored.first().map(|(seq, _)| *seq);
    let reset = after > last_seq || (after < last_seq && first_kept != Some(after + 1));
    let updates = stored
        .iter()
        .map(|(_, payload)| {
            OrderUpdate::decode(&payload[..]).map_err(|e| Error::Statement(format!("a stored update: {e}")))
        })
        .collect::<Result<Vec<_>, Error>>()?;
    let more = updates.last().is_some_and(|u| u.user_seq < last_seq);
    Ok(UpdatesSinceReply { updates, last_seq, more, reset })
}

/// A replace on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replace {
    pub order_id: String,
    /// The version that it makes.
    pub version: u32,
    /// The new total.
    pub quantity_e4: i64,
    /// 0 keeps.
    pub price_e4: i64,
    /// 0 keeps.
    pub stop_price_e4: i64,
    /// The worst price afterwards.
    pub cap_price_e4: i64,
    pub sent: bool,
}

pub fn replace_put(tx: &mut dyn Tx, r: &Replace) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO replaces (order_id, version, quantity_e4, price_e4, stop_price_e4, cap_price_e4, sent) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (order_id) DO UPDATE SET version = excluded.version, \
         quantity_e4 = excluded.quantity_e4, price_e4 = excluded.price_e4, stop_price_e4 = excluded.stop_price_e4, \
         cap_price_e4 = excluded.cap_price_e4, sent = excluded.sent",
        params![&r.order_id, r.version, r.quantity_e4, r.price_e4, r.stop_price_e4, r.cap_price_e4, r.sent],
    )?;
    Ok(())
}

const REPLACE_COLUMNS: &str = "order_id, version, quantity_e4, price_e4, stop_price_e4, cap_price_e4, sent";

fn replace(row: &Row) -> Result<Replace, Error> {
    Ok(Replace {
        order_id: row.get(0)?,
        version: row.get(1)?,
        quantity_e4: row.get(2)?,
        price_e4: row.get(3)?,
        stop_price_e4: row.get(4)?,
        cap_price_e4: row.get(5)?,
        sent: row.get(6)?,
    })
}

pub fn replace_get(tx: &mut dyn Tx, order_id: &str) -> Result<Option<Replace>, Error> {
    let sql = format!("SELECT {REPLACE_COLUMNS} FROM replaces WHERE order_id = ?1");
    tx.query_opt(&sql, params![order_id])?.as_ref().map(replace).transpose()
}

pub fn replace_delete(tx: &mut dyn Tx, order_id: &str) -> Result<(), Error> {
    tx.execute("DELETE FROM replaces WHERE order_id = ?1", params![order_id])?;
    Ok(())
}

/// Replaces whose extra hold or command row is missing.
pub fn replace_unsent(tx: &mut dyn Tx, limit: u32) -> Result<Vec<Replace>, Error> {
    let sql = format!("SELECT {REPLACE_COLUMNS} FROM replaces WHERE sent = 0 ORDER BY order_id LIMIT ?1");
    tx.query(&sql, params![limit])?.iter().map(replace).collect()
}

/// Keeps a listing unless a newer one is there. Answers whether it is now the newest.
pub fn instrument_put(tx: &mut dyn Tx, i: &Instrument) -> Result<bool, Error> {
    let changed = tx.execute(
        "INSERT INTO instruments (symbol, version, payload) VALUES (?1, ?2, ?3) ON CONFLICT (symbol) DO UPDATE \
         SET version = excluded.version, payload = excluded.payload WHERE excluded.version >= instruments.version",
        params![&i.symbol, i.version, i.encode_to_vec()],
    )?;
    Ok(changed == 1)
}

pub fn instrument_list(tx: &mut dyn Tx) -> Result<Vec<Instrument>, Error> {
    tx.query("SELECT payload FROM instruments ORDER BY symbol", &[])?
        .iter()
        .map(|r| {
            let payload: Vec<u8> = r.get(0)?;
            Instrument::decode(&payload[..]).map_err(|e| Error::Statement(format!("a stored listing: {e}")))
        })
        .collect()
}

/// Last traded price per symbol.
pub fn last_trade_list(tx: &mut dyn Tx) -> Result<Vec<(String, i64)>, Error> {
    tx.query("SELECT symbol, price_e4 FROM last_trades", &[])?
        .iter()
        .map(|r| Ok((r.get(0)?, r.get(1)?)))
        .collect()
}

/// Figures for the status.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub positions: Vec<(String, u64)>,
    pub last_cmd_seq: u64,
    pub open_orders: u64,
    pub dead_letters: u64,
}

pub fn figures(tx: &mut dyn Tx) -> Result<Figures, Error> {
    Ok(Figures {
        positions: inbox::positions(tx)?,
        last_cmd_seq: commands::last_cmd_seq(tx)?,
        open_orders: tx.query_one("SELECT COUNT(*) FROM orders WHERE state <= 4", &[])?.get(0)?,
        dead_letters: inbox::dead_letter_count(tx)?,
    })
}

/// Ends an order that never reached the engine.
pub fn order_reject(
    tx: &mut dyn Tx,
    entry: &mut Entry,
    code: &str,
    reason: &str,
    now_us: i64,
) -> Result<(), Error> {
    entry.order.set_state(OrderState::Rejected);
    entry.order.set_pending(PendingAction::None);
    code.clone_into(&mut entry.order.reject_code);
    reason.clone_into(&mut entry.order.reject_reason);
    entry.order.open_e4 = 0;
    entry.order.updated_us = now_us;
    // Nothing is left to be done for it.
    entry.accepted = true;
    order_update(tx, entry)?;
    open_orders_add(tx, &entry.order.user_id, -1)?;
    update_put(tx, entry, None)
}

/// One side of a trade.
pub fn fill_put(tx: &mut dyn Tx, user_id: &str, seq: u64, f: &Fill) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO fills (order_id, seq, user_id, symbol, side, price_e4, quantity_e4, maker, time_us) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        params![&f.order_id, seq, user_id, &f.symbol, f.side, f.price_e4, f.quantity_e4, f.maker, f.time_us],
    )?;
    Ok(())
}

/// The other side.
pub fn opposite(side: Side) -> Side {
    match side {
        Side::Buy => Side::Sell,
        Side::Sell => Side::Buy,
        Side::Unspecified => Side::Unspecified,
    }
}

/// The sequence of every user that has private updates.
pub fn update_seqs(tx: &mut dyn Tx) -> Result<Vec<(String, u64)>, Error> {
    tx.query("SELECT user_id, update_seq FROM users WHERE update_seq > 0", &[])?
        .iter()
        .map(|r| Ok((r.get(0)?, r.get(1)?)))
        .collect()
}
