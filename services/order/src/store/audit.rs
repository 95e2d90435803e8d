//! Every row of the read model in one transaction, as digests: what an audit compares.

use super::{FILL_COLUMNS, fill, id};
use fafnir_platform::{
    checks::digest,
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::v1::Fill;
use prost::Message as _;
use std::collections::HashMap;
use uuid::Uuid;

/// Rows read at a time.
const ROWS: u32 = 2_000;

/// User and client order id.
pub type ClientKey = (Uuid, String);

/// What a row of an order says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OrderRow {
    pub user: Uuid,
    pub symbol: String,
    pub agent: bool,
    pub ended_us: i64,
    pub first_fill: i64,
    pub last_fill: i64,
    /// Digest of the order.
    pub body: u64,
    /// Whether everything of it is known.
    pub is_whole: bool,
}

impl OrderRow {
    /// Whether the row says what is told.
    pub fn is(&self, told: &Self) -> bool {
        let first_fill = if told.is_whole { told.first_fill } else { self.first_fill };
        // Its last fill may have been before what is told, as its first.
        let last_fill = if told.is_whole || told.last_fill > 0 { told.last_fill } else { self.last_fill };
        *self == Self { first_fill, last_fill, is_whole: true, ..told.clone() }
    }
}

/// What stands in the read model at a position.
#[derive(Debug, Default)]
pub struct Stored {
    pub position: u64,
    /// Of the snapshot that the rows begin with.
    pub origin_at: u64,
    pub open_orders: u64,
    pub orders: HashMap<Uuid, OrderRow>,
    pub fills: HashMap<i64, u64>,
    pub events: HashMap<i64, u64>,
    pub clients: HashMap<ClientKey, (u64, Uuid)>,
}

/// The digest of a fill.
pub fn fill_digest(user: Uuid, order: Uuid, exec_seq: u64, fill: &Fill) -> u64 {
    let mut bytes = user.as_bytes().to_vec();
    bytes.extend_from_slice(order.as_bytes());
    bytes.extend_from_slice(&exec_seq.to_be_bytes());
    let fill = Fill { exec_id: String::new(), order_id: String::new(), ..fill.clone() };
    bytes.extend_from_slice(&fill.encode_to_vec());
    digest(&bytes)
}

/// Reads everything, or with `whole` false the open orders alone.
pub fn stored(tx: &mut dyn Tx, whole: bool) -> Result<Stored, Error> {
    let (position, open_orders) = super::position(tx)?;
    let origin_at = tx.query_one("SELECT origin_at FROM position WHERE id = 1", &[])?.get(0)?;
    let mut s = Stored { position, origin_at, open_orders, ..Stored::default() };
    let which = if whole { "" } else { "AND ended_us = 0" };
    let sql = format!(
        "SELECT user_id, id, symbol, agent, ended_us, first_fill, last_fill, body FROM orders \
         WHERE (user_id > ?1 OR (user_id = ?1 AND id > ?2)) {which} ORDER BY user_id, id LIMIT ?3"
    );
    let mut after = (Vec::new(), Vec::new());
    loop {
        let rows = tx.query(&sql, params![after.0.as_slice(), after.1.as_slice(), ROWS])?;
        for r in &rows {
            s.orders.insert(id(r, 1)?, order_row(r)?);
            after = (r.get(0)?, r.get(1)?);
        }
        if rows.len() < ROWS as usize {
            break;
        }
    }
    if whole {
        fills(tx, &mut s)?;
        events(tx, &mut s)?;
        clients(tx, &mut s)?;
    }
    Ok(s)
}

fn order_row(r: &Row) -> Result<OrderRow, Error> {
    let body: Vec<u8> = r.get(7)?;
    Ok(OrderRow {
        user: id(r, 0)?,
        symbol: r.get(2)?,
        agent: r.get(3)?,
        ended_us: r.get(4)?,
        first_fill: r.get(5)?,
        last_fill: r.get(6)?,
        body: digest(&body),
        is_whole: true,
    })
}

fn fills(tx: &mut dyn Tx, s: &mut Stored) -> Result<(), Error> {
    let sql = format!("SELECT {FILL_COLUMNS}, id, user_id FROM fills WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut after = i64::MIN;
    loop {
        let rows = tx.query(&sql, params![after, ROWS])?;
        for r in &rows {
            after = r.get(8)?;
            let told = fill_digest(id(r, 9)?, id(r, 0)?, r.get(2)?, &fill(r)?);
            s.fills.insert(after, told);
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}

fn events(tx: &mut dyn Tx, s: &mut Stored) -> Result<(), Error> {
    let sql = "SELECT id, body FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut after = i64::MIN;
    loop {
        let rows = tx.query(sql, params![after, ROWS])?;
        for r in &rows {
            after = r.get(0)?;
            s.events.insert(after, digest(&r.get::<Vec<u8>>(1)?));
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}

fn clients(tx: &mut dyn Tx, s: &mut Stored) -> Result<(), Error> {
    let sql = "SELECT user_id, client_order_id, payload, order_id FROM client_orders \
               WHERE user_id > ?1 OR (user_id = ?1 AND client_order_id > ?2) \
               ORDER BY user_id, client_order_id LIMIT ?3";
    let mut after = (Vec::new(), String::new());
    loop {
        let rows = tx.query(sql, params![after.0.as_slice(), &after.1, ROWS])?;
        for r in &rows {
            after = (r.get(0)?, r.get(1)?);
            s.clients.insert((id(r, 0)?, after.1.clone()), (digest(&r.get::<Vec<u8>>(2)?), id(r, 3)?));
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}
