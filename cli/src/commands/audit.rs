//! `fafnir audit`: the invariants of exchange-rules §6 on a running stack, each service at one position: its rows against
//! the core's image and the facts there, the books counted again, the journal replayed. A market under way never alarms,
//! because nothing is compared that does not stand at the same position.

use super::platform::adopted;
use crate::{
    args::{Audit, Global},
    output::{Error, Exit, Out, Result, table},
    settings,
};
use fafnir_proto::{
    reason::Reason,
    v1::{AuditCheck, AuditReply, Empty, EngineStatusReply, OrderAuditReply},
};
use fafnir_services::{
    platform::{Caller, Context},
    trade_engine::{
        recovery, replay,
        replay::{Run, Until, Verdict},
    },
};
use serde_json::json;
use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tonic::Request;

/// How long the whole ledger may take to read.
const DEADLINE: Duration = Duration::from_mins(10);
/// How long order- and portfolio-service may be behind the core.
const BEHIND_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// Between two looks of `--watch`.
const WATCH_EVERY: Duration = Duration::from_secs(10);
/// A journal that is dropped while it is read is read again, so often.
const JOURNAL_TRIES: usize = 3;

/// What an audit saw.
pub struct Found {
    ledger: AuditReply,
    orders: OrderAuditReply,
    engine: EngineStatusReply,
    checks: Vec<AuditCheck>,
    took: Duration,
}

impl Found {
    pub fn findings(&self) -> u64 {
        self.checks.iter().map(|c| c.findings).sum()
    }

    /// The first findings in words.
    pub fn examples(&self) -> Vec<String> {
        let broken = self.checks.iter().filter(|c| c.findings > 0);
        broken.map(|c| format!("{}: {}", c.name, c.examples.join(", "))).collect()
    }

    /// The position that order- and portfolio-service were looked at.
    pub fn positions(&self) -> (u64, u64) {
        (self.orders.position, self.ledger.position)
    }
}

pub async fn audit(global: &Global, args: &Audit, out: Out) -> Result {
    let running = adopted(global).await?;
    let dir = settings::settings(global, &[])?.data_dir();
    let mut last = None;
    loop {
        let found = look(&running.context, Some(dir.clone())).await?;
        let findings = found.findings();
        // Watched, only what is new is told whole.
        if !args.watch || last != Some(findings) {
            print(&found, out);
        } else {
            out.note(format!(
                "position {}: {} checks, {findings} findings, {} ms",
                found.ledger.position,
                found.checks.len(),
                found.took.as_millis()
            ));
        }
        last = Some(findings);
        if !args.watch || out.is_closed() {
            return match findings {
                0 => Ok(()),
                n => Err(Error::new(Exit::Failure, format!("{n} findings")).code(Reason::AUDIT)),
            };
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn patient<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

/// Looks at everything once. `dir` is a data directory whose journal is on this machine.
pub async fn look(ctx: &Context, dir: Option<PathBuf>) -> Result<Found> {
    let started = Instant::now();
    let caller = Caller::system("audit");
    let behind = behind(ctx, &caller).await?;
    let status = async || ctx.clients.engine(&caller).status(patient(Empty {})).await;
    // Read beside the databases: each takes a processor of its own.
    let at = status().await?.into_inner();
    let journal = dir.and_then(|dir| replay::directory(&dir).ok());
    let journal = journal.map(|dir| tokio::task::spawn_blocking(move || journal_checks(&dir, &at)));
    let (ledger, orders) =
        tokio::try_join!(async { ctx.clients.portfolio(&caller).audit(patient(Empty {})).await }, async {
            ctx.clients.order(&caller).audit(patient(Empty {})).await
        },)?;
    let (ledger, orders) = (ledger.into_inner(), orders.into_inner());
    let engine = status().await?.into_inner();
    let one = |name: &str, looked: u64, broken: Vec<String>| AuditCheck {
        name: name.to_owned(),
        looked,
        findings: broken.len() as u64,
        examples: broken,
    };
    let stands = [("order-service", orders.position), ("portfolio-service", ledger.position)];
    let ahead = stands.iter().filter(|(_, p)| *p > engine.position);
    let ahead =
        ahead.map(|(name, p)| format!("{name} is at {p}, the journal at {}", engine.position)).collect();
    let mut checks = ledger.checks.clone();
    checks.extend(orders.checks.iter().cloned());
    checks.push(one("no projection is ahead of the journal", 2, ahead));
    checks.push(one("no projection is left behind", 2, behind));
    if !ledger.holds_compared {
        let why = "what the core holds could not be read".to_owned();
        checks.push(one("the books were compared with the core", 1, vec![why]));
    }
    if let Some(journal) = journal {
        checks.extend(journal.await.map_err(anyhow::Error::from)?);
    }
    Ok(Found { ledger, orders, engine, checks, took: started.elapsed() })
}

/// Projections that do not come to where the core stands now.
async fn behind(ctx: &Context, caller: &Caller) -> Result<Vec<String>> {
    let last = patient(fafnir_proto::v1::PositionRequest::default());
    let last = ctx.clients.engine(caller).position(last).await?;
    let last = last.into_inner().last;
    let until = Instant::now() + BEHIND_MAX;
    loop {
        let orders = ctx.clients.order(caller).status(patient(Empty {})).await?.into_inner().position;
        let books = ctx.clients.portfolio(caller).status(patient(Empty {})).await?.into_inner().position;
        let stands = [("order-service", orders), ("portfolio-service", books)];
        let behind: Vec<_> = stands.iter().filter(|(_, p)| *p < last).collect();
        if behind.is_empty() || Instant::now() >= until {
            return Ok(behind.iter().map(|(name, p)| format!("{name} is at {p} of {last}")).collect());
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The journal replayed to where the core stood: its facts against the fact log, its snapshots, its end.
fn journal_checks(dir: &Path, engine: &EngineStatusReply) -> Vec<AuditCheck> {
    let until = Until { seq: engine.journal_seq, time_us: i64::MAX };
    let replayed = || -> std::result::Result<Run, recovery::Error> {
        let mut run = Run::open(dir)?;
        run.run(until, &mut |_, _| {})?;
        Ok(run)
    };
    let mut tries = 1;
    let run = loop {
        match replayed() {
            // Segments that a newer snapshot covers may go while they are read.
            Err(recovery::Error::Log(_) | recovery::Error::Io { .. }) if tries < JOURNAL_TRIES => tries += 1,
            other => break other,
        }
    };
    let check = |name: &str, looked: u64, examples: Vec<String>| AuditCheck {
        name: name.to_owned(),
        looked,
        findings: examples.len() as u64,
        examples,
    };
    let whole = "the journal leads to where the core stands";
    let run = match run {
        Ok(run) => run,
        Err(e) => return vec![check(whole, 1, vec![e.to_string()])],
    };
    let facts = run.fact_differs.map(|at| format!("fact {at}")).into_iter().chain(run.facts_damaged.clone());
    let differ = run.checked.iter().filter(|c| c.verdict != Verdict::Agrees);
    let differ = differ.map(|c| c.path.display().to_string()).collect();
    let s = &run.state;
    let stands = [
        ("commands", s.seq(), engine.journal_seq),
        ("position", s.position(), engine.position),
        ("open orders", s.open_orders() as u64, engine.open_orders),
        ("accounts", s.open_accounts() as u64, engine.accounts),
    ];
    let other = stands.iter().filter(|(_, there, core)| there != core);
    let other = other.map(|(what, there, core)| format!("{what}: {there}, the core has {core}")).collect();
    vec![
        check(whole, run.records, other),
        check("the journal gives the facts that are logged", run.facts_agreed, facts.collect()),
        check("every snapshot is what the journal gives", run.checked.len() as u64, differ),
    ]
}

fn print(found: &Found, out: Out) {
    let Found { ledger, orders, engine, checks, took } = found;
    let told = |c: &AuditCheck| json!({"check": c.name, "looked": c.looked, "findings": c.findings, "examples": c.examples});
    let document = json!({
        "ok": found.findings() == 0,
        "transactions": ledger.transactions,
        "trades": engine.trades,
        "openOrders": orders.open_orders,
        "accounts": engine.accounts,
        "stateHash": engine.state_hash,
        "snapshot": engine.snapshot_seq,
        "skippedRecords": engine.skipped,
        "position": engine.position,
        "positions": {"order-service": orders.position, "portfolio-service": ledger.position},
        "coreCompared": ledger.holds_compared,
        "assets": ledger.sums.len(),
        "tookMs": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        "findings": checks.iter().map(told).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let state = |c: &AuditCheck| if c.findings == 0 { "ok".into() } else { format!("{} FINDINGS", c.findings) };
        let rows: Vec<_> = checks.iter().map(|c| vec![c.name.clone(), c.looked.to_string(), state(c)]).collect();
        let snapshot = match engine.snapshot_seq {
            0 => "no snapshot yet".to_owned(),
            seq => format!("snapshot {seq} {}", engine.state_hash),
        };
        let mut text = format!(
            "{} trades, {} ledger transactions, {} open orders, {} assets\nposition {}, {snapshot}, {} ms\n\n{}",
            engine.trades,
            ledger.transactions,
            orders.open_orders,
            ledger.sums.len(),
            ledger.position,
            took.as_millis(),
            table(&["INVARIANT", ">LOOKED AT", "STATE"], &rows)
        );
        for example in found.examples() {
            text.push_str(&format!("\n{example}"));
        }
        text
    });
    for record in &engine.skipped {
        out.note(format!("record {record} of the journal is passed over (`fafnir journal skip`)"));
    }
}
