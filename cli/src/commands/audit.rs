//! `fafnir audit`: the invariants of exchange-rules §6 on a running stack, and the projections against the core.
//!
//! What one look suspects is looked at again: only what every look finds is a finding, so that a market under way never
//! alarms.

use super::platform::adopted;
use crate::{
    args::Global,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{AuditReply, Empty, EngineStatusReply, FactKind, FactsRequest, OrderStatusReply},
};
use fafnir_services::platform::{Caller, Context};
use serde_json::json;
use std::time::{Duration, Instant};
use tonic::Request;

/// Looks before a suspicion is a finding, and the time between two.
const LOOKS: usize = 5;
const PAUSE: Duration = Duration::from_millis(200);
/// How long the whole ledger may take to read.
const DEADLINE: Duration = Duration::from_mins(2);
/// How long order- and portfolio-service may be behind the core.
const BEHIND_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);

type Counts = Vec<(&'static str, u64)>;

/// What one look saw.
struct Look {
    ledger: AuditReply,
    engine: EngineStatusReply,
    orders: OrderStatusReply,
    checks: Counts,
}

pub async fn audit(global: &Global, out: Out) -> Result {
    let running = adopted(global).await?;
    let ctx = &running.context;
    let mut found = look(ctx).await?;
    for _ in 1..LOOKS {
        if found.checks.iter().all(|(_, n)| *n == 0) && found.ledger.holds_compared {
            break;
        }
        tokio::time::sleep(PAUSE).await;
        let again = look(ctx).await?;
        let both = found.checks.iter().zip(&again.checks).map(|((name, a), (_, b))| (*name, *a.min(b)));
        found = Look { checks: both.collect(), ..again };
    }
    print(&found, out);
    match found.checks.iter().map(|(_, n)| n).sum::<u64>() {
        0 => Ok(()),
        findings => Err(Error::new(Exit::Failure, format!("{findings} findings")).code(Reason::AUDIT)),
    }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

async fn look(ctx: &Context) -> Result<Look> {
    let caller = Caller::system("audit");
    let behind = behind(ctx, &caller).await?;
    let ledger = ctx.clients.portfolio(&caller).audit(patient(Empty {})).await?.into_inner();
    let engine = ctx.clients.engine(&caller).status(patient(Empty {})).await?.into_inner();
    let orders = ctx.clients.order(&caller).status(patient(Empty {})).await?.into_inner();
    let open = open_at(ctx, &caller, &engine, orders.position).await?;
    let last = orders.last_position.max(engine.position);
    let ahead = [orders.position, ledger.position].iter().filter(|p| **p > last).count() as u64;
    let checks = vec![
        ("every asset sums to 0 over all accounts", ledger.sums.iter().filter(|s| s.sum != 0).count() as u64),
        ("every ledger transaction sums to 0", ledger.unbalanced_transactions),
        ("the chain of the ledger is whole", ledger.chain_breaks),
        ("every balance is the sum of its postings", ledger.balance_mismatches),
        ("no account is overdrawn", ledger.negative_available),
        ("every balance and hold is the core's", ledger.core_mismatches),
        ("held = sum of the holds of open orders", ledger.hold_mismatches),
        ("order-service has the core's open orders", open.abs_diff(orders.open_orders)),
        ("no projection is ahead of the journal", ahead),
        ("no projection is left behind", behind),
    ];
    Ok(Look { ledger, engine, orders, checks })
}

/// Projections that do not come to where the core stands now.
async fn behind(ctx: &Context, caller: &Caller) -> Result<u64> {
    let last = ctx.clients.engine(caller).position(fafnir_proto::v1::PositionRequest::default()).await?;
    let last = last.into_inner().last;
    let until = Instant::now() + BEHIND_MAX;
    loop {
        let orders = ctx.clients.order(caller).status(Empty {}).await?.into_inner().position;
        let books = ctx.clients.portfolio(caller).status(Empty {}).await?.into_inner().position;
        let behind = [orders, books].iter().filter(|p| **p < last).count() as u64;
        if behind == 0 || Instant::now() >= until {
            return Ok(behind);
        }
        tokio::time::sleep(POLL).await;
    }
}

/// How many orders are open in the core at another position than that of its status: the facts between tell.
async fn open_at(ctx: &Context, caller: &Caller, engine: &EngineStatusReply, position: u64) -> Result<u64> {
    let (mut after, until) = (engine.position.min(position), engine.position.max(position));
    let (mut began, mut ended) = (0, 0);
    while after < until {
        let request = FactsRequest { after, ..Default::default() };
        let facts = ctx.clients.engine(caller).facts(patient(request)).await?.into_inner().facts;
        let Some(last) = facts.last().map(|fact| fact.position) else { break };
        for fact in facts.iter().filter(|fact| fact.position <= until) {
            began += u64::from(fact.kind() == FactKind::Accepted);
            if fact.kind() != FactKind::Rejected {
                let orders = fact.orders.iter().filter_map(|update| update.order.as_ref());
                ended += orders.filter(|order| order.state().has_ended()).count() as u64;
            }
        }
        after = last;
    }
    let open = engine.open_orders;
    // Backwards what ended is open again.
    let (more, fewer) = if position >= engine.position { (began, ended) } else { (ended, began) };
    Ok((open + more).saturating_sub(fewer))
}

fn print(found: &Look, out: Out) {
    let Look { ledger, engine, orders, checks } = found;
    let document = json!({
        "ok": checks.iter().all(|(_, n)| *n == 0),
        "transactions": ledger.transactions,
        "trades": engine.trades,
        "openOrders": engine.open_orders,
        "accounts": engine.accounts,
        "stateHash": engine.state_hash,
        "snapshot": engine.snapshot_seq,
        "skippedRecords": engine.skipped,
        "position": engine.position,
        "positions": {"order-service": orders.position, "portfolio-service": ledger.position},
        "coreCompared": ledger.holds_compared,
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
        let snapshot = match engine.snapshot_seq {
            0 => "no snapshot yet".to_owned(),
            seq => format!("snapshot {seq} {}", engine.state_hash),
        };
        format!(
            "{} trades, {} ledger transactions, {} open orders, {} assets\nposition {}, {snapshot}\n\n{}",
            engine.trades,
            ledger.transactions,
            engine.open_orders,
            ledger.sums.len(),
            engine.position,
            table(&["INVARIANT", "STATE"], &rows)
        )
    });
    for record in &engine.skipped {
        out.note(format!("record {record} of the journal is passed over (`fafnir journal skip`)"));
    }
    if !ledger.holds_compared {
        out.note("what the core holds could not be read: balances were not compared with it");
    }
}
