//! Writes what a batch of facts changes, with the position, in one transaction.

use super::{super::domain::changes::Changes, blob};
use fafnir_platform::{
    db::{Tx, Value, many},
    error::{Error, Result},
    params,
};
use prost::Message as _;

const UPDATE_COLUMNS: usize = 7;

/// The rows of a batch, ready to be written: a transaction may run again.
#[derive(Debug)]
pub struct Rows {
    from: u64,
    to: u64,
    open_orders: i64,
    new_orders: Vec<Value>,
    changed_orders: Vec<Value>,
    fills: Vec<Value>,
    events: Vec<Value>,
    client_orders: Vec<Value>,
}

impl Rows {
    pub fn new(changes: Changes) -> Self {
        let Changes { from, to, orders, fills, events, client_orders, open_orders } = changes;
        let (mut new_orders, mut changed_orders) = (Vec::new(), Vec::new());
        for mut o in orders {
            let (user, id) = (blob(o.user.uuid()), blob(o.id));
            let (agent, ended_us, first, last) = (o.is_agents(), o.ended_us(), o.first_fill, o.last_fill);
            // Its columns say so.
            o.order.id.clear();
            o.order.user_id.clear();
            let body = o.order.encode_to_vec();
            if o.is_new {
                let row = params![user, id, &o.order.symbol, agent, ended_us, first, last, body];
                new_orders.extend_from_slice(row);
                new_orders.extend([o.first_seq.into(), o.last_seq.into()]);
            } else {
                changed_orders.extend(params![user, id, ended_us, first, last, body, o.last_seq].to_vec());
            }
        }
        let fills = fills.into_iter().flat_map(|f| {
            let (user, order, fill) = (blob(f.user.uuid()), blob(f.order), f.fill);
            [f.id.into(), user, order, fill.symbol.into(), f.exec_seq.into(), fill.side.into()]
                .into_iter()
                .chain([fill.price_e4.into(), fill.quantity_e4.into(), fill.maker.into()])
                .chain([fill.time_us.into()])
        });
        let events = events.into_iter().flat_map(|e| {
            let (kind, body) = (i32::from(e.kind), e.update.encode_to_vec());
            [
                e.id.into(),
                blob(e.user.uuid()),
                e.update.user_seq.into(),
                kind.into(),
                blob(e.order),
                body.into(),
            ]
        });
        let client_orders = client_orders
            .into_iter()
            .flat_map(|c| [blob(c.user.uuid()), c.client_order_id.into(), c.payload.into(), blob(c.order)]);
        Self {
            from,
            to,
            open_orders,
            new_orders,
            changed_orders,
            fills: fills.collect(),
            events: events.collect(),
            client_orders: client_orders.collect(),
        }
    }

    /// Writes them; refuses where the stored position is another one, and where an order that changes is not open.
    pub fn write(&self, tx: &mut dyn Tx) -> Result<()> {
        let moved = tx.execute(
            "UPDATE position SET at = ?2, open_orders = open_orders + ?3 WHERE id = 1 AND at = ?1",
            params![self.from, self.to, self.open_orders],
        )?;
        if moved != 1 {
            return Err(Error::unavailable(format!(
                "the orders stand at another position than {}",
                self.from
            )));
        }
        self.write_orders(tx)?;
        many::insert(
            tx,
            "INSERT INTO fills (id, user_id, order_id, symbol, exec_seq, side, price_e4, quantity_e4, maker, time_us)",
            10,
            "",
            &self.fills,
        )?;
        let head = "INSERT INTO events (id, user_id, user_seq, kind, order_id, body)";
        many::insert(tx, head, 6, "", &self.events)?;
        let head = "INSERT INTO client_orders (user_id, client_order_id, payload, order_id)";
        many::insert(tx, head, 4, "", &self.client_orders)?;
        Ok(())
    }

    fn write_orders(&self, tx: &mut dyn Tx) -> Result<()> {
        many::insert(
            tx,
            "INSERT INTO orders (user_id, id, symbol, agent, ended_us, first_fill, last_fill, body, first_seq, last_seq)",
            10,
            "",
            &self.new_orders,
        )?;
        let changed = many::execute(tx, UPDATE_COLUMNS, &self.changed_orders, update)?;
        if changed * UPDATE_COLUMNS as u64 != self.changed_orders.len() as u64 {
            return Err(Error::internal(format!(
                "an order that changes after position {} is not known here, or has ended",
                self.from
            )));
        }
        Ok(())
    }
}

/// The statement that changes so many open orders.
fn update(rows: usize) -> String {
    if rows == 1 {
        return "UPDATE orders SET ended_us = ?3, \
                first_fill = CASE WHEN first_fill = 0 THEN ?4 ELSE first_fill END, \
                last_fill = CASE WHEN ?5 = 0 THEN last_fill ELSE ?5 END, body = ?6, last_seq = ?7 \
                WHERE user_id = ?1 AND id = ?2 AND ended_us = 0"
            .to_owned();
    }
    format!(
        "UPDATE orders SET ended_us = v.column3, \
         first_fill = CASE WHEN orders.first_fill = 0 THEN v.column4 ELSE orders.first_fill END, \
         last_fill = CASE WHEN v.column5 = 0 THEN orders.last_fill ELSE v.column5 END, body = v.column6, \
         last_seq = v.column7 \
         FROM (VALUES {}) AS v WHERE orders.user_id = v.column1 AND orders.id = v.column2 AND orders.ended_us = 0",
        many::tuples(rows, UPDATE_COLUMNS)
    )
}
