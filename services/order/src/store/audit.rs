//! Every row of the read model in one transaction, as digests: what an audit compares.

use super::{FILL_COLUMNS, fill, id};
use crate::audit::Recount;
use fafnir_platform::{
    agents,
    checks::digest,
    db::{Error, Row, Tx},
    params,
};
use fafnir_proto::{
    id::UserId,
    v1::{Fill, Order},
};
use prost::Message as _;
use std::collections::HashMap;
use uuid::Uuid;

/// Rows read at a time.
const ROWS: u32 = 2_000;

/// What a row of an order says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OrderRow {
    /// Digest of the columns that say what the order says too.
    pub columns: u64,
    /// Digest of the order.
    pub body: u64,
    pub is_agents: bool,
    pub has_ended: bool,
    pub first_fill: i64,
    pub last_fill: i64,
    pub first_seq: u64,
    pub last_seq: u64,
    /// Whether everything of it is known.
    pub is_whole: bool,
}

impl OrderRow {
    /// Whether the row says what is told.
    pub fn is(&self, told: &Self) -> bool {
        if told.is_whole {
            return self == told;
        }
        // What came first was before what is told, and so may be what came last.
        let last_fill = if told.last_fill > 0 { told.last_fill } else { self.last_fill };
        let last_seq = if told.last_seq > 0 { told.last_seq } else { self.last_seq };
        let Self { first_fill, first_seq, .. } = *self;
        *self == Self { first_fill, first_seq, last_fill, last_seq, is_whole: true, ..*told }
    }
}

/// The digest of the columns of an order's row that its facts tell.
pub fn columns_digest(user: Uuid, symbol: &str, is_agents: bool, ended_us: i64) -> u64 {
    let mut bytes = user.as_bytes().to_vec();
    bytes.extend_from_slice(&ended_us.to_be_bytes());
    bytes.push(is_agents.into());
    bytes.extend_from_slice(symbol.as_bytes());
    digest(&bytes)
}

/// What stands in the read model at a position.
#[derive(Debug, Default)]
pub struct Stored {
    pub position: u64,
    /// Of the snapshot that the rows begin with.
    pub origin_at: u64,
    pub open_orders: u64,
    pub orders: HashMap<Uuid, OrderRow>,
    /// Id and digest of each fill, and of each event, in the order of their ids.
    pub fills: Vec<(i64, u64)>,
    pub events: Vec<(i64, u64)>,
    /// Digest of user and client order id → digest of what it stands for, and its order.
    pub clients: HashMap<u64, (u64, Uuid)>,
    /// The orders counted again from the fills.
    pub recount: Recount,
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

/// The digest of an event.
pub fn event_digest(user: Uuid, seq: u64, kind: i32, order: Uuid, body: &[u8]) -> u64 {
    let mut bytes = user.as_bytes().to_vec();
    bytes.extend_from_slice(order.as_bytes());
    bytes.extend_from_slice(&seq.to_be_bytes());
    bytes.extend_from_slice(&kind.to_be_bytes());
    bytes.extend_from_slice(body);
    digest(&bytes)
}

/// The digest of a user's client order id.
pub fn client_digest(user: Uuid, client_order_id: &str) -> u64 {
    let mut bytes = user.as_bytes().to_vec();
    bytes.extend_from_slice(client_order_id.as_bytes());
    digest(&bytes)
}

/// Reads everything, or with `whole` false the open orders alone.
pub fn stored(tx: &mut dyn Tx, whole: bool) -> Result<Stored, Error> {
    let (position, open_orders) = super::position(tx)?;
    let origin_at = tx.query_one("SELECT origin_at FROM position WHERE id = 1", &[])?.get(0)?;
    let mut s = Stored { position, origin_at, open_orders, ..Stored::default() };
    if whole {
        // Before the orders, which are counted again from them.
        fills(tx, &mut s)?;
    }
    orders(tx, &mut s, whole)?;
    if whole {
        events(tx, &mut s)?;
        clients(tx, &mut s)?;
    }
    Ok(s)
}

fn orders(tx: &mut dyn Tx, s: &mut Stored, whole: bool) -> Result<(), Error> {
    let which = if whole { "" } else { "AND ended_us = 0" };
    let sql = format!(
        "SELECT user_id, id, symbol, agent, ended_us, first_fill, last_fill, body, first_seq, last_seq FROM orders \
         WHERE (user_id, id) > (?1, ?2) {which} ORDER BY user_id, id LIMIT ?3"
    );
    let mut after = (Vec::new(), Vec::new());
    loop {
        let rows = tx.query(&sql, params![after.0.as_slice(), after.1.as_slice(), ROWS])?;
        for r in &rows {
            order_row(r, s, whole)?;
            after = (r.get(0)?, r.get(1)?);
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}

fn order_row(r: &Row, s: &mut Stored, whole: bool) -> Result<(), Error> {
    let (user, order_id): (Uuid, Uuid) = (id(r, 0)?, id(r, 1)?);
    let (symbol, is_agents, ended_us): (String, bool, i64) = (r.get(2)?, r.get(3)?, r.get(4)?);
    let (body, first_fill, last_fill): (Vec<u8>, i64, i64) = (r.get(7)?, r.get(5)?, r.get(6)?);
    if whole {
        // One that cannot be read is none that its fills make.
        let mut order = Order::decode(body.as_slice()).unwrap_or_default();
        let says = order.symbol == symbol
            && is_agents == agents::is_agent(UserId::new(user))
            && ended_us == if order.state().has_ended() { order.updated_us.max(1) } else { 0 };
        order.symbol.clone_from(&symbol);
        let row = (first_fill, last_fill);
        s.recount.order(user, order_id, &order, row, says, s.origin_at > 0);
    }
    let row = OrderRow {
        columns: columns_digest(user, &symbol, is_agents, ended_us),
        body: digest(&body),
        is_agents,
        has_ended: ended_us != 0,
        first_fill,
        last_fill,
        first_seq: r.get(8)?,
        last_seq: r.get(9)?,
        is_whole: true,
    };
    s.orders.insert(order_id, row);
    Ok(())
}

fn fills(tx: &mut dyn Tx, s: &mut Stored) -> Result<(), Error> {
    let sql = format!("SELECT {FILL_COLUMNS}, id, user_id FROM fills WHERE id > ?1 ORDER BY id LIMIT ?2");
    let mut after = i64::MIN;
    loop {
        let rows = tx.query(&sql, params![after, ROWS])?;
        for r in &rows {
            after = r.get(8)?;
            let (user, order, exec_seq) = (id(r, 9)?, id(r, 0)?, r.get(2)?);
            let fill = fill(r)?;
            s.recount.fill(after, user, order, exec_seq, &fill);
            s.fills.push((after, fill_digest(user, order, exec_seq, &fill)));
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}

fn events(tx: &mut dyn Tx, s: &mut Stored) -> Result<(), Error> {
    let sql =
        "SELECT id, body, user_id, user_seq, kind, order_id FROM events WHERE id > ?1 ORDER BY id LIMIT ?2";
    let mut after = i64::MIN;
    loop {
        let rows = tx.query(sql, params![after, ROWS])?;
        for r in &rows {
            after = r.get(0)?;
            let body: Vec<u8> = r.get(1)?;
            s.events.push((after, event_digest(id(r, 2)?, r.get(3)?, r.get(4)?, id(r, 5)?, &body)));
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}

fn clients(tx: &mut dyn Tx, s: &mut Stored) -> Result<(), Error> {
    let sql = "SELECT user_id, client_order_id, payload, order_id FROM client_orders \
               WHERE (user_id, client_order_id) > (?1, ?2) ORDER BY user_id, client_order_id LIMIT ?3";
    let mut after = (Vec::new(), String::new());
    loop {
        let rows = tx.query(sql, params![after.0.as_slice(), &after.1, ROWS])?;
        for r in &rows {
            after = (r.get(0)?, r.get(1)?);
            let key = client_digest(id(r, 0)?, &after.1);
            s.clients.insert(key, (digest(&r.get::<Vec<u8>>(2)?), id(r, 3)?));
        }
        if rows.len() < ROWS as usize {
            return Ok(());
        }
    }
}
