//! `fafnir replay`: what a journal or an order flow comes to.

use crate::{
    args::{Global, Replay},
    output::{Error, Exit, Out, Result, table},
    settings::settings,
};
use fafnir_clearing::{
    State,
    market::{Level, Market, Queued},
};
use fafnir_matching::flow::{
    FafnirEngine, replay_in_parts, replay_recorded, wl::Engine as _, wl::MAGIC, wl::Workload,
};
use fafnir_proto::reason::Reason;
use fafnir_rules::{
    money::{format_e4, format_price},
    order::Side,
    symbol::Symbol,
};
use fafnir_services::{
    platform::clock::rfc3339,
    trade_engine::{
        hash::hex,
        recovery,
        replay::{self, Compared, Parting, Run, Until, Verdict, hash},
    },
};
use flate2::read::GzDecoder;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use std::{
    fs::File,
    io::{self, BufReader, IsTerminal as _, Read as _},
    path::Path,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// First bytes of a gzip file.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// A recorded flow is read whole.
const RECORDED_BYTES_MAX: u64 = 1 << 30;
/// How a recorded flow begins.
const RECORDED_HEADER: &str = "time_ms,event,order_id,side,price_ticks,quantity_lots";

impl From<recovery::Error> for Error {
    fn from(e: recovery::Error) -> Self {
        let error = Self::new(Exit::Failure, e.to_string());
        match e {
            recovery::Error::Io { .. } => error.code(Reason::JOURNAL_FILE),
            recovery::Error::Breaks { .. } => error.code(Reason::RECORD_BREAKS),
            recovery::Error::NoBase(_) => error.code(Reason::JOURNAL_INCOMPLETE),
            recovery::Error::Version { .. } | recovery::Error::Newer { .. } => {
                error.code(Reason::JOURNAL_VERSION)
            }
            _ => error.code(Reason::JOURNAL_DAMAGED),
        }
    }
}

pub fn replay(global: &Global, args: &Replay, out: Out) -> Result {
    if let Some(path) = &args.flow {
        return flow(path, out);
    }
    let journal = match &args.journal {
        Some(path) => path.clone(),
        None => settings(global, &[])?.data_dir(),
    };
    let symbol = match &args.symbol {
        Some(text) => Some(Symbol::parse(text).map_err(|e| Error::usage(e.to_string()))?),
        None => None,
    };
    let until = until(args)?;
    let directory = replay::directory(&journal)?;
    match &args.against {
        Some(other) => against(&directory, &replay::directory(other)?, until, out),
        None => state_at(&directory, until, symbol.as_ref(), args.depth, out),
    }
}

fn until(args: &Replay) -> Result<Until> {
    let mut until = Until::END;
    if let Some(seq) = args.to {
        until.seq = seq;
    }
    if let Some(text) = &args.at {
        let time = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| {
            Error::usage(format!("--at {text:?} is not an RFC 3339 time"))
                .hint("write it like 2026-11-22T15:04:05Z")
        })?;
        until.time_us = i64::try_from(time.unix_timestamp_nanos() / 1_000)
            .map_err(|_| Error::usage(format!("--at {text:?} is out of range")))?;
    }
    Ok(until)
}

/// A bar over bytes.
fn bar(out: Out, what: &str, length: u64) -> ProgressBar {
    styled_bar(out, what, length, "{msg:24} {bar:40} {bytes}/{total_bytes} {eta}")
}

/// A bar over records.
fn count_bar(out: Out, what: &str, length: u64) -> ProgressBar {
    styled_bar(out, what, length, "{msg:24} {bar:40} {human_pos}/{human_len} {eta}")
}

fn styled_bar(out: Out, what: &str, length: u64, template: &str) -> ProgressBar {
    let hidden = out.json || !io::stderr().is_terminal();
    let target = if hidden { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
    let bar = ProgressBar::with_draw_target(Some(length), target);
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.set_message(what.to_owned());
    bar
}

fn state_at(dir: &Path, until: Until, symbol: Option<&Symbol>, depth: usize, out: Out) -> Result {
    let mut run = Run::open(dir)?;
    let progress = bar(out, "replaying", run.bytes().1);
    run.run(until, &mut |done, _| progress.set_position(done))?;
    progress.finish_and_clear();
    let state = &run.state;
    if until.seq != u64::MAX && state.seq() < until.seq {
        let text = format!("--to {} is beyond the journal's last record {}", until.seq, state.seq());
        return Err(Error::new(Exit::Precondition, text).code(Reason::BEYOND_THE_JOURNAL));
    }
    if state.seq() > until.seq || (run.base_seq > 0 && state.time_us() > until.time_us) {
        let text = format!("the journal's oldest state is that of record {}", state.seq());
        return Err(Error::new(Exit::Precondition, text).code(Reason::BEFORE_THE_JOURNAL));
    }
    let market = match symbol {
        None => None,
        Some(symbol) => Some(state.market(symbol).ok_or_else(|| {
            Error::new(Exit::Precondition, format!("symbol {symbol} is in no record"))
                .code(Reason::UNKNOWN_SYMBOL)
        })?),
    };
    let mut document = json!({
        "journal": dir, "baseSequence": run.base_seq, "records": run.records,
        "state": summary(state), "snapshots": snapshots(&run), "facts": facts(&run),
        "skippedRecords": run.passed, "tornBytes": run.torn().map(|cut| cut.bytes),
    });
    if let Some(market) = market {
        document["book"] = book(market, state, depth);
    }
    out.data(&document, || {
        let mut text = header(dir, &run);
        text.push_str(&markets(state));
        if let Some(market) = market {
            text.push('\n');
            text.push_str(&levels(market, depth));
        }
        text
    });
    verified(&run)
}

/// What does not fit is the exit code.
fn verified(run: &Run) -> Result {
    for checked in &run.checked {
        let file = checked.path.display();
        let text = match &checked.verdict {
            Verdict::Agrees => continue,
            Verdict::Differs(hash) => {
                format!("{file}: its state {} is not the replay's", hex(hash))
            }
            Verdict::Damaged(why) => format!("{file}: {why}"),
        };
        return Err(Error::new(Exit::Failure, text).code(Reason::SNAPSHOT_DIFFERS));
    }
    if let Some(fact) = run.fact_differs {
        let text = format!("fact {fact} of the fact log is not the replay's");
        return Err(Error::new(Exit::Failure, text).code(Reason::FACT_DIFFERS));
    }
    match &run.facts_damaged {
        Some(why) => Err(Error::new(Exit::Failure, why.clone())
            .code(Reason::FACTS_DAMAGED)
            .hint("the journal is whole: the engine makes the fact log again when it starts")),
        None => Ok(()),
    }
}

fn summary(state: &State) -> Value {
    let markets: Vec<_> = sorted(state)
        .iter()
        .map(|m| {
            let (last, _) = m.last();
            json!({
                "symbol": m.symbol().as_str(), "state": m.state().name(), "openOrders": m.open_orders(),
                "bid": best(m, Side::Buy), "ask": best(m, Side::Sell),
                "last": (last != 0).then(|| format_e4(last)), "trades": m.trade_no(), "sequence": m.exec_seq(),
            })
        })
        .collect();
    json!({
        "sequence": state.seq(), "time": rfc3339(state.time_us()), "hash": hex(&hash(state)),
        "position": state.position(), "openOrders": state.open_orders(), "accounts": state.open_accounts(),
        "markets": markets,
    })
}

fn snapshots(run: &Run) -> Vec<Value> {
    run.checked.iter().map(|c| json!({"sequence": c.seq, "agrees": c.verdict == Verdict::Agrees})).collect()
}

fn facts(run: &Run) -> Value {
    json!({"agreed": run.facts_agreed, "firstThatDiffers": run.fact_differs})
}

fn header(dir: &Path, run: &Run) -> String {
    let state = &run.state;
    let base = match run.base_seq {
        0 => "genesis".to_owned(),
        seq => format!("snapshot {seq}"),
    };
    let mut text = format!(
        "{}: {} records from {base}\nat record {}, {}: {} open orders, {} accounts, position {}\nstate {}\n",
        dir.display(),
        run.records,
        state.seq(),
        rfc3339(state.time_us()),
        state.open_orders(),
        state.open_accounts(),
        state.position(),
        hex(&hash(state)),
    );
    for checked in &run.checked {
        let verdict = if checked.verdict == Verdict::Agrees { "agrees" } else { "DIFFERS" };
        text.push_str(&format!("snapshot {} {verdict}\n", checked.seq));
    }
    let differs = if run.fact_differs.is_some() { ", one DIFFERS" } else { "" };
    text.push_str(&format!("{} logged facts agree{differs}\n", run.facts_agreed));
    for record in &run.passed {
        text.push_str(&format!("record {record} is passed over\n"));
    }
    if let Some(cut) = run.torn() {
        text.push_str(&format!("{} bytes behind the last record are torn\n", cut.bytes));
    }
    text.push('\n');
    text
}

fn sorted(state: &State) -> Vec<&Market> {
    let mut all: Vec<_> = state.markets().iter().collect();
    all.sort_by(|a, b| a.symbol().cmp(b.symbol()));
    all
}

fn best(market: &Market, side: Side) -> Option<String> {
    market.depth(side, 1).first().map(|l| format_e4(l.price_e4))
}

fn markets(state: &State) -> String {
    let rows: Vec<_> = sorted(state)
        .iter()
        .map(|m| {
            let (last, _) = m.last();
            let price = |side| format_price(m.depth(side, 1).first().map_or(0, |l| l.price_e4));
            vec![
                m.symbol().to_string(),
                m.state().name().to_owned(),
                m.open_orders().to_string(),
                price(Side::Buy),
                price(Side::Sell),
                format_price(last),
                m.trade_no().to_string(),
                m.exec_seq().to_string(),
            ]
        })
        .collect();
    table(&["SYMBOL", "STATE", ">ORDERS", ">BID", ">ASK", ">LAST", ">TRADES", ">SEQUENCE"], &rows)
}

fn book(market: &Market, state: &State, depth: usize) -> Value {
    let side = |side| {
        let level = |l: &Level| json!({"price": format_e4(l.price_e4), "quantity": format_e4(l.quantity_e4), "orders": l.orders});
        market.depth(side, depth).iter().map(level).collect::<Vec<_>>()
    };
    let orders = |side| {
        let order = |q: &Queued<'_>| {
            json!({
                "orderId": q.order.id.to_string(), "userId": state.owner(q.order.owner).map(|u| u.id.to_string()), "price": format_e4(q.price_e4),
                "shown": format_e4(q.shown_e4), "open": format_e4(q.open_e4), "filled": format_e4(q.filled_e4),
                "version": q.order.version,
            })
        };
        market.queue(side, depth).iter().map(order).collect::<Vec<_>>()
    };
    json!({
        "symbol": market.symbol().as_str(), "bids": side(Side::Buy), "asks": side(Side::Sell),
        "bidOrders": orders(Side::Buy), "askOrders": orders(Side::Sell),
    })
}

fn levels(market: &Market, depth: usize) -> String {
    let (bids, asks) = (market.depth(Side::Buy, depth), market.depth(Side::Sell, depth));
    let cells = |level: Option<&Level>| match level {
        Some(l) => [l.orders.to_string(), format_e4(l.quantity_e4), format_price(l.price_e4)],
        None => Default::default(),
    };
    let rows: Vec<_> = (0..bids.len().max(asks.len()))
        .map(|i| {
            let ([orders, quantity, bid], [ask_orders, ask_quantity, ask]) =
                (cells(bids.get(i)), cells(asks.get(i)));
            vec![orders, quantity, bid, ask, ask_quantity, ask_orders]
        })
        .collect();
    let header = [">ORDERS", ">QUANTITY", ">BID", ">ASK", ">QUANTITY", ">ORDERS"];
    format!("{}\n{}", market.symbol(), table(&header, &rows))
}

fn against(left: &Path, right: &Path, until: Until, out: Out) -> Result {
    let progress = bar(out, "comparing", 0);
    let found = replay::compare(left, right, until, &mut |done, all| {
        progress.set_length(all);
        progress.set_position(done);
    })?;
    progress.finish_and_clear();
    let Compared { same_records, other_times, parting, left: l, right: r } = &found;
    let longer = r.state.seq().abs_diff(l.state.seq());
    let differs = parting.as_ref().map(|parting| match parting {
        Parting::Records { seq, left, right } => (*seq, "record", left.clone(), right.clone()),
        Parting::Outcomes { seq, left, right } => (*seq, "outcomes", left.clone(), right.clone()),
        Parting::Begins { left, right } => {
            ((*left).min(*right) + 1, "beginning", format!("snapshot {left}"), format!("snapshot {right}"))
        }
    });
    let document = json!({
        "left": {"journal": left, "state": summary(&l.state)},
        "right": {"journal": right, "state": summary(&r.state)},
        "sameRecords": same_records, "otherTimes": other_times,
        "difference": differs.as_ref().map(|(seq, what, left, right)| {
            json!({"sequence": seq, "in": what, "left": left, "right": right})
        }),
    });
    out.data(&document, || {
        let mut text = format!("{same_records} records are the same, {other_times} of them at other times\n");
        for (path, run) in [(left, l), (right, r)] {
            let is = hex(&hash(&run.state));
            text.push_str(&format!("{}: record {}, state {is}\n", path.display(), run.state.seq()));
        }
        if let Some((seq, what, left, right)) = &differs {
            text.push_str(&format!("record {seq}: the {what} differ\n< {left}\n> {right}\n"));
        } else if longer > 0 {
            text.push_str(&format!("one has {longer} records more\n"));
        }
        text
    });
    match differs {
        Some((seq, what, ..)) => {
            let text = format!("the two runs part at record {seq}: the {what} differ");
            Err(Error::new(Exit::Failure, text).code(Reason::RUNS_DIFFER))
        }
        None if longer > 0 => {
            let text = format!("one run has {longer} records more than the other");
            Err(Error::new(Exit::Failure, text).code(Reason::RUNS_DIFFER))
        }
        None => Ok(()),
    }
}

fn flow(path: &Path, out: Out) -> Result {
    let fail =
        |e: io::Error| Error::new(Exit::Failure, format!("{}: {e}", path.display())).code(Reason::FLOW_FILE);
    let file = File::open(path).map_err(fail)?;
    let progress = bar(out, "reading", file.metadata().map_err(fail)?.len());
    let mut input = BufReader::new(progress.wrap_read(file));
    let mut first = [0; 8];
    let read = read_up_to(&mut input, &mut first).map_err(fail)?;
    let whole = first[..read].chain(input);
    if first == MAGIC.to_le_bytes() {
        let flow = Workload::read(&mut BufReader::new(whole)).map_err(fail)?;
        progress.finish_and_clear();
        return binary(path, &flow, out);
    }
    let mut csv = String::new();
    let read = if first[..2] == GZIP {
        GzDecoder::new(whole).take(RECORDED_BYTES_MAX).read_to_string(&mut csv)
    } else {
        whole.take(RECORDED_BYTES_MAX).read_to_string(&mut csv)
    };
    let is_flow = read.is_ok() && csv.starts_with(RECORDED_HEADER);
    progress.finish_and_clear();
    if !is_flow {
        let why = read.err().filter(|e| e.kind() != io::ErrorKind::InvalidData).map_or_else(
            || format!("no order flow: neither the binary form nor a CSV that begins with {RECORDED_HEADER}"),
            |e| e.to_string(),
        );
        return Err(Error::new(Exit::Failure, format!("{}: {why}", path.display())).code(Reason::FLOW_FILE));
    }
    recorded(path, &csv, out)
}

fn read_up_to(input: &mut impl io::Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match input.read(&mut buffer[read..])? {
            0 => break,
            n => read += n,
        }
    }
    Ok(read)
}

fn binary(path: &Path, flow: &Workload, out: Out) -> Result {
    let progress = count_bar(out, "replaying", flow.msgs.len() as u64);
    let (mut engine, seconds) =
        replay_in_parts::<FafnirEngine>(flow, &mut |done| progress.set_position(done));
    progress.finish_and_clear();
    let (stats, live) = (*engine.stats(), engine.live().unwrap_or(0));
    let h = &flow.h;
    let fits =
        (stats.trades, stats.volume, stats.checksum, live) == (h.trades, h.volume, h.checksum, h.final_live);
    let mops = h.n_ops as f64 / seconds.max(1e-9) / 1e6;
    let document = json!({
        "flow": path, "form": "binary", "symbols": h.n_symbols, "preload": h.n_preload, "ops": h.n_ops,
        "trades": stats.trades, "volume": stats.volume, "checksum": stats.checksum, "openOrders": live,
        "mops_cpu": mops, "reproduced": fits,
    });
    out.data(&document, || {
        format!(
            "{}: {} operations after {}, {} symbols\n{} trades, volume {}, checksum {:016x}, {live} open orders\n\
             {mops:.1} million operations per CPU-second\n",
            path.display(),
            h.n_ops,
            h.n_preload,
            h.n_symbols,
            stats.trades,
            stats.volume,
            stats.checksum,
        )
    });
    if fits {
        return Ok(());
    }
    let text = format!(
        "the flow's header says {} trades, volume {}, checksum {:016x}, {} open orders",
        h.trades, h.volume, h.checksum, h.final_live
    );
    Err(Error::new(Exit::Failure, text).code(Reason::FLOW_MISMATCH))
}

fn recorded(path: &Path, csv: &str, out: Out) -> Result {
    let progress = count_bar(out, "replaying", csv.lines().count() as u64);
    let found = replay_recorded(csv, &mut |done| progress.set_position(done));
    progress.finish_and_clear();
    let found = found
        .map_err(|e| Error::new(Exit::Failure, format!("{}: {e}", path.display())).code(Reason::FLOW_FILE))?;
    let document = json!({
        "flow": path, "form": "recorded", "lines": found.lines, "commands": found.commands,
        "trades": found.trades, "recordedTrades": found.recorded, "equalTrades": found.equal,
        "stateHash": format!("{:016x}", found.state_hash),
    });
    out.data(&document, || {
        format!(
            "{}: {} lines, {} commands\n{} trades, {} of the {} recorded ones by price and size\nstate {:016x}\n",
            path.display(),
            found.lines,
            found.commands,
            found.trades,
            found.equal,
            found.recorded,
            found.state_hash
        )
    });
    Ok(())
}
