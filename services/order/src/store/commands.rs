//! Commands for the engine: what the gate decided, in one transaction with the command row and its gapless number.

use super::{
    super::domain::{Entry, Error as Refused},
    Replace, order_get, order_list, order_of, order_reject, order_update, replace_delete, replace_get,
    replace_put, update_put,
};
use fafnir_platform::{
    db::{Error, Tx},
    params,
};
use fafnir_proto::v1::{
    CancelAllOfUser, CancelOrder, EngineCommand, NewOrder, Order, OrderState, OrderType, PendingAction,
    ReplaceOrder, engine_command,
};
use fafnir_proto::{id::UserId, reason::Reason};
use prost::Message as _;
use std::collections::BTreeSet;

/// Open orders that one mass cancel looks at.
const CANCEL_ALL_MAX: u32 = 10_000;

/// What is asked of the gate.
#[derive(Debug, Clone)]
pub enum Op {
    /// The hold of this order stands.
    Accept {
        id: String,
    },
    /// The hold of this order was refused, or it was canceled before it was accepted and its hold is released.
    Reject {
        id: String,
        code: String,
        reason: String,
    },
    Cancel {
        user: UserId,
        id: String,
    },
    /// An empty symbol is all.
    CancelAll {
        user: UserId,
        symbol: String,
    },
    /// The extra hold of this order's replace stands.
    SendReplace {
        id: String,
        version: u32,
    },
}

/// What became of it.
#[derive(Debug, Clone)]
pub enum Done {
    Order(Order),
    /// The order was canceled before it was accepted: release its hold, then reject it.
    CanceledEarly(Order),
    /// Orders that a mass cancel asks to end.
    Requested(u32),
}

/// The last number given to a command.
pub fn last_cmd_seq(tx: &mut dyn Tx) -> Result<u64, Error> {
    tx.query_one("SELECT last_cmd_seq FROM relay WHERE id = 1", &[])?.get(0)
}

/// Raises the last number: the engine knows more commands than we do.
pub fn last_cmd_seq_raise(tx: &mut dyn Tx, to: u64) -> Result<(), Error> {
    tx.execute("UPDATE relay SET last_cmd_seq = ?1 WHERE id = 1 AND last_cmd_seq < ?1", params![to])?;
    Ok(())
}

/// Takes or renews the lease to send commands; `force` also from another holder. `false`: another one holds it.
pub fn lease_take(
    tx: &mut dyn Tx,
    holder: &str,
    now_us: i64,
    until_us: i64,
    force: bool,
) -> Result<bool, Error> {
    let taken = if force {
        tx.execute("UPDATE relay SET holder = ?1, until_us = ?2 WHERE id = 1", params![holder, until_us])?
    } else {
        tx.execute(
            "UPDATE relay SET holder = ?1, until_us = ?3 WHERE id = 1 AND (holder = ?1 OR until_us < ?2)",
            params![holder, now_us, until_us],
        )?
    };
    Ok(taken == 1)
}

/// Commands after a number, in order, with the time when they were written.
pub fn command_list(tx: &mut dyn Tx, after: u64, limit: u32) -> Result<Vec<(EngineCommand, i64)>, Error> {
    tx.query(
        "SELECT payload, created_us FROM commands WHERE cmd_seq > ?1 ORDER BY cmd_seq LIMIT ?2",
        params![after, limit],
    )?
    .iter()
    .map(|r| {
        let payload: Vec<u8> = r.get(0)?;
        let command = EngineCommand::decode(&payload[..])
            .map_err(|e| Error::Statement(format!("a stored command: {e}")))?;
        Ok((command, r.get(1)?))
    })
    .collect()
}

/// Forgets a command whose outcome is projected.
pub fn command_delete(tx: &mut dyn Tx, cmd_seq: u64) -> Result<(), Error> {
    tx.execute("DELETE FROM commands WHERE cmd_seq = ?1", params![cmd_seq])?;
    Ok(())
}

/// Gives commands their numbers and writes them.
struct Writer<'a> {
    tx: &'a mut dyn Tx,
    next: u64,
    now_us: i64,
    written: Vec<EngineCommand>,
}

impl Writer<'_> {
    fn put(&mut self, symbol: &str, kind: engine_command::Kind) -> Result<(), Error> {
        let command = EngineCommand { cmd_seq: self.next, symbol: symbol.to_owned(), kind: Some(kind) };
        self.tx.execute(
            "INSERT INTO commands (cmd_seq, payload, created_us) VALUES (?1, ?2, ?3)",
            params![self.next, command.encode_to_vec(), self.now_us],
        )?;
        self.next += 1;
        self.written.push(command);
        Ok(())
    }
}

/// Carries out a batch in one transaction: each by itself refused or done. Answers the commands written, in order.
#[expect(clippy::type_complexity, reason = "answers and commands, taken apart at once")]
pub fn run(
    tx: &mut dyn Tx,
    ops: &[Op],
    now_us: i64,
) -> Result<(Vec<Result<Done, Refused>>, Vec<EngineCommand>), Error> {
    let last = last_cmd_seq(tx)?;
    let mut writer = Writer { tx, next: last + 1, now_us, written: Vec::new() };
    let mut answers = Vec::with_capacity(ops.len());
    for op in ops {
        answers.push(carry_out(&mut writer, op)?);
    }
    let Writer { tx, next, written, .. } = writer;
    if !written.is_empty() {
        tx.execute("UPDATE relay SET last_cmd_seq = ?1 WHERE id = 1", params![next - 1])?;
    }
    Ok((answers, written))
}

fn carry_out(w: &mut Writer<'_>, op: &Op) -> Result<Result<Done, Refused>, Error> {
    match op {
        Op::Accept { id } => accept(w, id),
        Op::Reject { id, code, reason } => {
            let Some(mut entry) = order_get(w.tx, id)? else { return Ok(Err(unknown())) };
            if !entry.accepted {
                order_reject(w.tx, &mut entry, code, reason, w.now_us)?;
            }
            Ok(Ok(Done::Order(entry.order)))
        }
        Op::Cancel { user, id } => cancel(w, user, id),
        Op::CancelAll { user, symbol } => cancel_all(w, user, symbol),
        Op::SendReplace { id, version } => send_replace(w, id, *version),
    }
}

pub(crate) fn unknown() -> Refused {
    Refused::not_found(Reason::ORDER_NOT_FOUND, "no such order")
}

fn accept(w: &mut Writer<'_>, id: &str) -> Result<Result<Done, Refused>, Error> {
    let Some(mut entry) = order_get(w.tx, id)? else { return Ok(Err(unknown())) };
    if entry.accepted {
        return Ok(Ok(Done::Order(entry.order)));
    }
    if entry.order.pending() == PendingAction::Cancel {
        return Ok(Ok(Done::CanceledEarly(entry.order)));
    }
    entry.accepted = true;
    w.tx.execute("UPDATE orders SET accepted = 1 WHERE id = ?1", params![id])?;
    update_put(w.tx, &entry, None)?;
    w.put(&entry.order.symbol, engine_command::Kind::NewOrder(new_order(&entry)))?;
    Ok(Ok(Done::Order(entry.order)))
}

/// The order in the engine's words.
fn new_order(entry: &Entry) -> NewOrder {
    let o = &entry.order;
    let has_cap = matches!(o.r#type(), OrderType::Market | OrderType::Stop | OrderType::TrailingStop);
    NewOrder {
        order_id: o.id.clone(),
        user_id: o.user_id.clone(),
        side: o.side,
        r#type: o.r#type,
        time_in_force: o.time_in_force,
        quantity_e4: o.quantity_e4,
        price_e4: o.price_e4,
        stop_price_e4: o.stop_price_e4,
        trail_amount_e4: o.trail_amount_e4,
        trail_percent_e4: o.trail_percent_e4,
        display_quantity_e4: o.display_quantity_e4,
        post_only: o.post_only,
        stp: o.stp,
        expires_us: o.expires_us,
        cap_price_e4: if has_cap { entry.cap_price_e4 } else { 0 },
    }
}

/// The refusal to change an order that has ended.
pub(crate) fn ended(order: &Order, verb: &str) -> Refused {
    Refused::precondition(
        Reason::ORDER_DONE,
        format!("order {} is {} and can no longer be {verb}", order.id, order.state().name()),
    )
}

fn cancel(w: &mut Writer<'_>, user: &UserId, id: &str) -> Result<Result<Done, Refused>, Error> {
    let Some(mut entry) = order_of(w.tx, user, id)? else { return Ok(Err(unknown())) };
    if entry.order.state().has_ended() {
        return Ok(Err(ended(&entry.order, "canceled")));
    }
    if entry.order.pending() == PendingAction::Cancel {
        return Ok(Ok(Done::Order(entry.order)));
    }
    // Overrides a pending replace.
    entry.order.set_pending(PendingAction::Cancel);
    entry.order.updated_us = w.now_us;
    order_update(w.tx, &entry)?;
    update_put(w.tx, &entry, None)?;
    if entry.accepted {
        let cancel = CancelOrder { order_id: entry.order.id.clone() };
        w.put(&entry.order.symbol, engine_command::Kind::Cancel(cancel))?;
    }
    Ok(Ok(Done::Order(entry.order)))
}

fn cancel_all(w: &mut Writer<'_>, user: &UserId, symbol: &str) -> Result<Result<Done, Refused>, Error> {
    let open = order_list(w.tx, user, true, symbol, "", CANCEL_ALL_MAX)?;
    let mut symbols = BTreeSet::new();
    let mut requested = 0;
    for order in &open {
        symbols.insert(order.symbol.as_str());
        requested += 1;
        if order.pending() == PendingAction::Cancel {
            continue;
        }
        let Some(mut entry) = order_get(w.tx, &order.id)? else { continue };
        entry.order.set_pending(PendingAction::Cancel);
        entry.order.updated_us = w.now_us;
        order_update(w.tx, &entry)?;
        update_put(w.tx, &entry, None)?;
    }
    for symbol in symbols {
        let all = CancelAllOfUser { user_id: user.to_string() };
        w.put(symbol, engine_command::Kind::CancelAll(all))?;
    }
    Ok(Ok(Done::Requested(requested)))
}

fn send_replace(w: &mut Writer<'_>, id: &str, version: u32) -> Result<Result<Done, Refused>, Error> {
    let Some(entry) = order_get(w.tx, id)? else { return Ok(Err(unknown())) };
    let replace = replace_get(w.tx, id)?.filter(|r| r.version == version);
    let Some(replace) = replace else { return Ok(Ok(Done::Order(entry.order))) };
    if entry.order.state().has_ended() || entry.order.pending() != PendingAction::Replace {
        // It has ended, or a cancel overrode the replace.
        replace_delete(w.tx, id)?;
        return Ok(Ok(Done::Order(entry.order)));
    }
    if !replace.sent {
        replace_put(w.tx, &Replace { sent: true, ..replace.clone() })?;
        w.put(&entry.order.symbol, engine_command::Kind::Replace(replace_order(&entry, &replace)))?;
    }
    Ok(Ok(Done::Order(entry.order)))
}

fn replace_order(entry: &Entry, replace: &Replace) -> ReplaceOrder {
    let has_cap = entry.order.r#type() == OrderType::Stop && replace.stop_price_e4 != 0;
    ReplaceOrder {
        order_id: replace.order_id.clone(),
        quantity_e4: replace.quantity_e4,
        price_e4: replace.price_e4,
        stop_price_e4: replace.stop_price_e4,
        version: replace.version,
        cap_price_e4: if has_cap { replace.cap_price_e4 } else { 0 },
    }
}

/// Marks an order as being replaced and remembers how; refused where the order is not as the replace supposes.
pub fn replace_begin(
    tx: &mut dyn Tx,
    user: &UserId,
    replace: &Replace,
    now_us: i64,
) -> Result<Result<Order, Refused>, Error> {
    let Some(mut entry) = order_of(tx, user, &replace.order_id)? else { return Ok(Err(unknown())) };
    if let Err(refused) = replaceable(&entry.order, replace.version.saturating_sub(1)) {
        return Ok(Err(refused));
    }
    if replace.quantity_e4 <= entry.order.filled_e4 {
        return Ok(Err(Refused::precondition(
            Reason::BELOW_FILLED,
            "quantity must be above what is already filled",
        )));
    }
    entry.order.set_pending(PendingAction::Replace);
    entry.order.updated_us = now_us;
    order_update(tx, &entry)?;
    replace_put(tx, replace)?;
    update_put(tx, &entry, None)?;
    Ok(Ok(entry.order))
}

/// Whether an order can be replaced now; `version` 0 is any.
pub(crate) fn replaceable(order: &Order, version: u32) -> Result<(), Refused> {
    if order.state().has_ended() {
        return Err(ended(order, "replaced"));
    }
    if order.state() == OrderState::PendingNew {
        return Err(Refused::precondition(
            Reason::ORDER_PENDING,
            format!("order {} is not in the book yet and cannot be replaced", order.id),
        ));
    }
    if order.pending() != PendingAction::None {
        let what = if order.pending() == PendingAction::Cancel { "cancel" } else { "replace" };
        return Err(Refused::precondition(
            Reason::ORDER_PENDING,
            format!("a {what} of order {} is already on its way", order.id),
        ));
    }
    if version != 0 && version != order.version {
        return Err(Refused::precondition(
            Reason::VERSION_DIFFERS,
            format!("version of order {} is {}, not {version}", order.id, order.version),
        ));
    }
    Ok(())
}

/// Takes back a replace whose extra hold was refused.
pub fn replace_drop(tx: &mut dyn Tx, id: &str, version: u32, now_us: i64) -> Result<(), Error> {
    if replace_get(tx, id)?.is_none_or(|r| r.version != version || r.sent) {
        return Ok(());
    }
    replace_delete(tx, id)?;
    if let Some(mut entry) = order_get(tx, id)?
        && entry.order.pending() == PendingAction::Replace
    {
        entry.order.set_pending(PendingAction::None);
        entry.order.updated_us = now_us;
        order_update(tx, &entry)?;
        update_put(tx, &entry, None)?;
    }
    Ok(())
}
