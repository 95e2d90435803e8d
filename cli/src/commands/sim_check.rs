//! `fafnir sim check`: the simulated market by itself, beside what is known of real ones.

use crate::{
    args::SimCheck,
    output::{Error, Exit, Out, Result, table},
    seed::Seeds,
};
use fafnir_market::{Check, Listing, Published, Row, STEPS_PER_SECOND, Side};
use fafnir_proto::reason::Reason;
use fafnir_rules::money::format_e4;
use serde_json::json;
use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    path::Path,
};

/// Writes what is published, one row each: `trade,session,second,symbol,side,price,quantity,order` and
/// `best,session,minute,symbol,bid,ask`; an empty cell where a side is empty.
struct Recorder {
    name: String,
    file: BufWriter<File>,
    /// The first error; nothing is written after it.
    failed: Option<io::Error>,
}

impl Recorder {
    fn create(path: &Path) -> Result<Self> {
        let name = path.display().to_string();
        let file = File::create(path).map_err(|e| Self::error(&name, &e))?;
        Ok(Self { name, file: BufWriter::new(file), failed: None })
    }

    fn error(name: &str, e: &io::Error) -> Error {
        Error::new(Exit::Failure, format!("--record {name}: {e}")).code(Reason::FLOW_FILE)
    }

    fn write(&mut self, listings: &[Listing], published: Published) {
        if self.failed.is_some() {
            return;
        }
        let row = match published {
            Published::Trade { session, step, market, side, price_e4, quantity_e4, order } => {
                let (symbol, second) = (&listings[market].symbol, step / STEPS_PER_SECOND);
                let side = if side == Side::Buy { 'B' } else { 'S' };
                let (price, quantity) = (format_e4(price_e4), format_e4(quantity_e4));
                writeln!(self.file, "trade,{session},{second},{symbol},{side},{price},{quantity},{order}")
            }
            Published::Best { session, minute, market, bid, ask } => {
                let listing = &listings[market];
                let price = |ticks: Option<u32>| {
                    ticks.map_or_else(String::new, |t| format_e4(i64::from(t) * listing.tick_e4))
                };
                let (symbol, bid, ask) = (&listing.symbol, price(bid), price(ask));
                writeln!(self.file, "best,{session},{minute},{symbol},{bid},{ask}")
            }
        };
        self.failed = row.err();
    }

    fn end(mut self) -> Result {
        match self.failed.take().map_or_else(|| self.file.flush(), Err) {
            Ok(()) => Ok(()),
            Err(e) => Err(Self::error(&self.name, &e)),
        }
    }
}

/// A row of so many values has one for each symbol.
fn cells(check: &Check, row: &Row) -> Vec<String> {
    let number = |value: &f64| {
        if value.is_finite() { format!("{value:.*}", row.decimals) } else { "-".to_owned() }
    };
    let mut values: Vec<String> = row.values.iter().map(number).collect();
    if row.values.len() != check.symbols.len() {
        values = vec![values.join(" ")];
    }
    values.resize(check.symbols.len(), String::new());
    let mut cells = vec![row.name.to_owned(), row.wanted.clone()];
    cells.extend(values);
    cells.push(if row.met { "met" } else { "missed" }.to_owned());
    cells
}

pub fn run(args: &SimCheck, out: Out) -> Result {
    let seeds = match &args.file {
        Some(dir) => Seeds::from_dir(dir)?,
        None => Seeds::built_in()?,
    };
    let listings = seeds.for_agents()?;
    let find = |symbol: &str| {
        let symbol = symbol.trim().to_uppercase();
        listings.iter().position(|l| l.symbol == symbol).ok_or_else(|| {
            Error::new(Exit::Usage, format!("--symbols: {symbol:?} is not among the seeds' instruments"))
                .code(Reason::UNKNOWN_SYMBOL)
        })
    };
    let looked_at = args.symbols.split(',').map(find).collect::<Result<Vec<usize>>>()?;
    let mut recorder = args.record.as_deref().map(Recorder::create).transpose()?;
    let check = fafnir_market::check(args.seed, &listings, &looked_at, args.sessions, |published| {
        if let Some(recorder) = &mut recorder {
            recorder.write(&listings, published);
        }
    });
    if let Some(recorder) = recorder {
        recorder.end()?;
    }
    let rows: Vec<_> = check
        .rows
        .iter()
        .map(|r| json!({"row": r.name, "wanted": r.wanted, "values": r.values, "met": r.met}))
        .collect();
    let (met, of) = (check.met(), check.rows.len());
    let document = json!({
        "seed": args.seed, "sessions": args.sessions, "symbols": check.symbols, "rows": rows, "met": met, "of": of,
        "requestsPerSecond": check.requests_per_second,
    });
    out.data(&document, || {
        let mut headers = vec!["ROW".to_owned(), "WANTED".to_owned()];
        headers.extend(check.symbols.iter().map(|s| format!(">{s}")));
        headers.push(String::new());
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let rows: Vec<_> = check.rows.iter().map(|row| cells(&check, row)).collect();
        format!(
            "{} sessions, seed {}, {:.1} requests a second\n\n{}\n{met} of {of} rows met\n",
            args.sessions,
            args.seed,
            check.requests_per_second,
            table(&headers, &rows)
        )
    });
    if met == of {
        Ok(())
    } else {
        Err(Error::new(Exit::Failure, format!("{} of the rows are missed", of - met)))
    }
}
