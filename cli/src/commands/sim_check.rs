//! `fafnir sim check`: the simulated market by itself, beside what is known of real ones.

use crate::{
    args::SimCheck,
    output::{Error, Exit, Out, Result, table},
    seed::Seeds,
};
use fafnir_market::{Check, Row};
use fafnir_proto::reason::Reason;
use serde_json::json;

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
    let check = fafnir_market::check(args.seed, &listings, &looked_at, args.sessions, |_| {});
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
