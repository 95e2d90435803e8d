//! Execution facts inside their transaction: each is applied once, in the order of its symbol, or kept as a dead letter.

use super::{
    domain::{
        AssetKey, Fault,
        hold::{End, Hold},
        settle::{Party, Settlement, Trade, settle},
    },
    store::{Failure, HoldRow, Outcome, Session},
};
use fafnir_platform::{
    db::{Tx, inbox},
    error::Result,
    executions::{Applied, Reading, read},
};
use fafnir_proto::v1::{ExecKind, Execution, ExecutionBatch};
use prost::Message as _;
use std::collections::BTreeMap;
use uuid::Uuid;

/// Counter of settled trades.
pub const SETTLED: &str = "settled";

/// What became of some batches.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub applied: Applied,
    pub trades: u64,
    /// Facts that could not be applied: exec id and cause.
    pub alarms: Vec<(String, String)>,
    pub outcome: Outcome,
}

/// Applies what is new of some batches and moves the positions, in the caller's transaction.
pub fn apply(tx: &mut dyn Tx, batches: &[ExecutionBatch], now_us: i64) -> Result<Report> {
    let mut report = Report::default();
    let mut positions = BTreeMap::<&str, u64>::new();
    let mut s = Session::new(tx, now_us);
    for batch in batches {
        let symbol = batch.symbol.as_str();
        let last = match positions.get(symbol) {
            Some(last) => *last,
            None => inbox::position(s.tx, symbol)?,
        };
        let new = match read(last, &batch.executions) {
            Reading::New(new) => new,
            Reading::Seen => continue,
            Reading::Gap => {
                report.applied.gap = true;
                continue;
            }
        };
        let mut position = last;
        for execution in new {
            if execution.seq != position + 1 {
                report.applied.gap = true;
                break;
            }
            position = execution.seq;
            match execution_apply(&mut s, symbol, execution) {
                Ok(traded) => report.trades += u64::from(traded),
                Err(Failure::Error(e)) => return Err(e),
                Err(Failure::Fault(fault)) => {
                    let exec_id = format!("{symbol}:{}", execution.seq);
                    let cause = fault.to_string();
                    inbox::dead_letter_put(s.tx, &exec_id, &execution.encode_to_vec(), &cause, now_us)?;
                    report.alarms.push((exec_id, cause));
                }
            }
            report.applied.executions += 1;
        }
        positions.insert(symbol, position);
    }
    for (symbol, position) in positions {
        inbox::advance(s.tx, symbol, position)?;
    }
    s.count(SETTLED, report.trades)?;
    report.outcome = s.finish()?;
    Ok(report)
}

/// Applies one execution; answers whether it was a trade.
fn execution_apply(s: &mut Session<'_>, symbol: &str, e: &Execution) -> Result<bool, Failure> {
    match e.kind() {
        ExecKind::Trade => {
            trade(s, symbol, e)?;
            return Ok(true);
        }
        ExecKind::Accepted | ExecKind::Triggered => {
            hold_open(s, &e.order_id)?;
        }
        ExecKind::Rejected | ExecKind::Canceled | ExecKind::Expired => {
            change(s, &e.order_id, |hold| hold.finish(End::Ended))?;
        }
        ExecKind::Replaced => {
            change(s, &e.order_id, |hold| hold.replaced(e.version, e.open_e4, e.price_e4))?;
        }
        ExecKind::ReplaceRejected => {
            let row = hold_known(s, &e.order_id)?;
            let pending = row.hold.pending.is_some_and(|p| e.version == 0 || p.version <= e.version);
            if row.hold.end.is_none() && pending {
                change(s, &e.order_id, Hold::replace_refused)?;
            }
        }
        ExecKind::Decremented => {
            change(s, &e.order_id, |hold| hold.open_e4 = e.open_e4)?;
            if !e.maker_order_id.is_empty() {
                change(s, &e.maker_order_id, |hold| hold.open_e4 = e.maker_open_e4)?;
            }
        }
        // A cancel that came too late and a halt move nothing.
        ExecKind::CancelRejected | ExecKind::StateChanged | ExecKind::Unspecified => {}
    }
    Ok(false)
}

fn hold_known(s: &mut Session<'_>, order: &str) -> Result<HoldRow, Failure> {
    let unknown = || Fault::UnknownHold(order.to_owned());
    let id = Uuid::parse_str(order).map_err(|_| unknown())?;
    Ok(s.hold(id)?.ok_or_else(unknown)?)
}

fn hold_open(s: &mut Session<'_>, order: &str) -> Result<HoldRow, Failure> {
    let row = hold_known(s, order)?;
    if row.hold.end.is_some() {
        return Err(Fault::Terminal(row.hold.order).into());
    }
    Ok(row)
}

fn change(s: &mut Session<'_>, order: &str, f: impl FnOnce(&mut Hold)) -> Result<(), Failure> {
    let mut row = hold_open(s, order)?;
    f(&mut row.hold);
    s.hold_put(row)
}

fn trade(s: &mut Session<'_>, symbol: &str, e: &Execution) -> Result<(), Failure> {
    let asset = s.asset(symbol)?;
    let taker = hold_open(s, &e.order_id)?;
    let maker = hold_open(s, &e.maker_order_id)?;
    let taker_buys = e.side == super::domain::hold::Side::Buy.number();
    let taker_party = party(s, &taker, asset, false, e.open_e4)?;
    let maker_party = party(s, &maker, asset, true, e.maker_open_e4)?;
    let (buyer, seller) = if taker_buys { (taker_party, maker_party) } else { (maker_party, taker_party) };
    let trade = Trade { symbol: asset, seq: e.seq, price_e4: e.price_e4, quantity_e4: e.quantity_e4 };
    let Settlement { transaction, buyer, seller } = settle(trade, buyer, seller)?;
    let (taker_hold, maker_hold) = if taker_buys { (buyer, seller) } else { (seller, buyer) };
    let rows = [HoldRow { hold: taker_hold, ..taker }, HoldRow { hold: maker_hold, ..maker }];
    s.record(&transaction, rows)?;
    Ok(())
}

fn party(
    s: &mut Session<'_>,
    row: &HoldRow,
    asset: AssetKey,
    maker: bool,
    open_e4: i64,
) -> Result<Party, Failure> {
    let unknown = || Fault::UnknownHold(row.hold.order.to_string());
    let account = s.account(row.account)?.ok_or_else(unknown)?;
    Ok(Party {
        hold: row.hold.clone(),
        account: row.account,
        currency: account.currency,
        symbol: row.symbol,
        listing: row.listing,
        rate: row.rate,
        maker,
        open_e4,
        shares: s.balance(row.account, asset)?,
    })
}
