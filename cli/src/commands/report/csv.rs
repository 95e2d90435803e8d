//! A report as one CSV: a row says in its first column what it is about.

use super::Report;
use crate::output::{Error, Exit, Result};
use fafnir_rules::money::{format_e4, format_micros};
use fafnir_services::platform::clock::rfc3339;

const HEADER: [&str; 12] = [
    "section",
    "time",
    "name",
    "symbol",
    "quantity",
    "price",
    "amount",
    "fee",
    "cash",
    "holdings",
    "balance",
    "reference",
];

/// Rows on their way into the text.
type Rows = ::csv::Writer<Vec<u8>>;
type Written = ::csv::Result<()>;

/// A row by the names of its columns.
fn row(section: &str, cells: &[(&str, String)]) -> Vec<String> {
    let cell = |column: &&str| {
        let found = cells.iter().find(|(name, _)| name == column);
        if *column == "section" {
            section.to_owned()
        } else {
            found.map_or_else(String::new, |(_, v)| v.clone())
        }
    };
    HEADER.iter().map(cell).collect()
}

fn figures(report: &Report, rows: &mut Rows) -> Written {
    let p = &report.performance;
    let total = report.gains.total.clone().unwrap_or_default();
    let figures = [
        ("start value", format_micros(p.start_micros)),
        ("inflows", format_micros(p.inflows_micros)),
        ("outflows", format_micros(p.outflows_micros)),
        ("gain", format_micros(p.gain_micros)),
        ("end value", format_micros(p.end_micros)),
        ("gain percent", format_e4(p.gain_percent_e4)),
        ("time-weighted percent", p.time_weighted_percent_e4.map_or_else(String::new, format_e4)),
        ("money-weighted percent a year", p.money_weighted_percent_e4.map_or_else(String::new, format_e4)),
        ("realized", format_micros(total.realized_micros)),
        ("realized first in first out", format_micros(total.fifo_realized_micros)),
        ("unrealized", format_micros(total.unrealized_micros)),
        ("fees", format_micros(total.fees_micros)),
        ("opening cash", format_micros(report.opening_micros)),
        ("closing cash", format_micros(report.closing_micros)),
    ];
    for (name, amount) in figures {
        rows.write_record(row("figure", &[("name", name.to_owned()), ("amount", amount)]))?;
    }
    Ok(())
}

fn equity(report: &Report, rows: &mut Rows) -> Written {
    for point in &report.performance.points {
        rows.write_record(row(
            "equity",
            &[
                ("time", rfc3339(point.until_us)),
                ("amount", format_micros(point.value_micros)),
                ("cash", format_micros(point.cash_micros)),
                ("holdings", format_micros(point.holdings_micros)),
            ],
        ))?;
    }
    Ok(())
}

fn positions(report: &Report, rows: &mut Rows) -> Written {
    for g in &report.gains.symbols {
        for (name, amount) in [
            ("value", g.value_micros),
            ("cost", g.held_cost_micros),
            ("cost first in first out", g.held_fifo_cost_micros),
            ("unrealized", g.unrealized_micros),
            ("realized", g.realized_micros),
            ("realized first in first out", g.fifo_realized_micros),
            ("fees", g.fees_micros),
        ] {
            rows.write_record(row(
                "position",
                &[
                    ("name", name.to_owned()),
                    ("symbol", g.symbol.clone()),
                    ("quantity", format_e4(g.quantity_e4)),
                    ("price", format_e4(g.price_e4)),
                    ("amount", format_micros(amount)),
                ],
            ))?;
        }
    }
    Ok(())
}

fn lines(report: &Report, rows: &mut Rows) -> Written {
    for t in &report.trades {
        rows.write_record(row(
            "trade",
            &[
                ("time", rfc3339(t.time_us)),
                ("name", t.side().name().to_owned()),
                ("symbol", t.symbol.clone()),
                ("quantity", format_e4(t.quantity_e4)),
                ("price", format_e4(t.price_e4)),
                ("amount", format_micros(t.amount_micros)),
                ("fee", format_micros(t.fee_micros)),
                ("reference", t.exec_id.clone()),
            ],
        ))?;
    }
    for e in &report.flows {
        let t = e.transaction.clone().unwrap_or_default();
        rows.write_record(row(
            "flow",
            &[
                ("time", rfc3339(t.created_us)),
                ("name", t.description),
                ("symbol", e.symbol.clone()),
                ("quantity", format_e4(e.quantity_e4)),
                ("amount", format_micros(e.change_micros)),
                ("balance", format_micros(e.balance_micros)),
                ("reference", t.id),
            ],
        ))?;
    }
    Ok(())
}

/// The whole report.
pub fn page(report: &Report) -> Result<String> {
    let failed = |e: String| Error::new(Exit::Failure, format!("the report cannot be written as CSV: {e}"));
    let mut rows = Rows::from_writer(Vec::new());
    rows.write_record(HEADER).map_err(|e| failed(e.to_string()))?;
    for part in [figures, equity, positions, lines] {
        part(report, &mut rows).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = rows.into_inner().map_err(|e| failed(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| failed(e.to_string()))
}
