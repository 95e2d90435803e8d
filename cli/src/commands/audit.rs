//! `fafnir audit`: the invariants of exchange-rules §6 on a running stack.

use super::platform::adopted;
use crate::{
    args::Global,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{reason::Reason, v1::Empty};
use serde_json::json;
use std::collections::BTreeSet;

pub async fn audit(global: &Global, out: Out) -> Result {
    let running = adopted(global).await?;
    let ctx = &running.context;
    let caller = fafnir_services::platform::Caller::system("audit");
    let ledger = ctx.clients.portfolio(&caller).audit(Empty {}).await?.into_inner();
    let engine = ctx.clients.engine(&caller).status(Empty {}).await?.into_inner();
    let orders = ctx.clients.order(&caller).status(Empty {}).await?.into_inner();
    let portfolio = ctx.clients.portfolio(&caller).status(Empty {}).await?.into_inner();

    let unbalanced: Vec<_> = ledger.sums.iter().filter(|s| s.sum != 0).map(|s| s.asset.clone()).collect();
    let held: BTreeSet<&str> = ledger.open_holds.iter().map(|h| h.order_id.as_str()).collect();
    let open: BTreeSet<&str> = engine.open_order_ids.iter().map(String::as_str).collect();
    // While orders are under way the three differ for a moment; at rest they must not.
    let orphans = held.difference(&open).count() as u64;
    let bare = open.difference(&held).count() as u64;
    let checks = [
        ("every asset sums to 0 over all accounts", unbalanced.len() as u64),
        ("every ledger transaction sums to 0", ledger.unbalanced_transactions),
        ("no account is overdrawn", ledger.negative_available),
        ("held = sum of the open holds", ledger.hold_mismatches),
        ("no hold without an open order", orphans),
        ("no open order without a hold", bare),
        ("order-service has no dead letters", orders.dead_letters),
        ("portfolio-service has no dead letters", portfolio.dead_letters),
    ];
    let findings: u64 = checks.iter().map(|(_, n)| n).sum();
    let document = json!({
        "ok": findings == 0,
        "transactions": ledger.transactions,
        "trades": engine.trades,
        "openOrders": engine.open_orders,
        "stateHash": engine.state_hash,
        "assets": ledger.sums.len(),
        "findings": checks.iter().map(|(name, n)| json!({"check": name, "findings": n})).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let rows: Vec<_> = checks
            .iter()
            .map(|(name, n)| {
                vec![(*name).to_owned(), if *n == 0 { "ok".into() } else { format!("{n} findings") }]
            })
            .collect();
        format!(
            "{} trades, {} ledger transactions, {} open orders, {} assets\nbook {}\n\n{}",
            engine.trades,
            ledger.transactions,
            engine.open_orders,
            ledger.sums.len(),
            engine.state_hash,
            table(&["INVARIANT", "STATE"], &rows)
        )
    });
    if findings == 0 {
        Ok(())
    } else {
        Err(Error::new(Exit::Failure, format!("{findings} findings")).code(Reason::AUDIT))
    }
}
