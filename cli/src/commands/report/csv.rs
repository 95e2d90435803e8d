//! A report as one CSV: a row says in its first column what it is about.

use super::{Report, side};
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

type Rows = Vec<Vec<String>>;

fn figures(report: &Report, rows: &mut Rows) {
    let p = &report.performance;
    let total = report.gains.total.clone().unwrap_or_default();
    let mut figure = |name: &str, amount: String| {
        rows.push(row("figure", &[("name", name.to_owned()), ("amount", amount)]));
    };
    figure("start value", format_micros(p.start_micros));
    figure("inflows", format_micros(p.inflows_micros));
    figure("outflows", format_micros(p.outflows_micros));
    figure("gain", format_micros(p.gain_micros));
    figure("end value", format_micros(p.end_micros));
    figure("gain percent", format_e4(p.gain_percent_e4));
    figure("time-weighted percent", p.time_weighted_percent_e4.map_or_else(String::new, format_e4));
    figure("money-weighted percent a year", p.money_weighted_percent_e4.map_or_else(String::new, format_e4));
    figure("realized", format_micros(total.realized_micros));
    figure("realized first in first out", format_micros(total.fifo_realized_micros));
    figure("unrealized", format_micros(total.unrealized_micros));
    figure("fees", format_micros(total.fees_micros));
    figure("opening cash", format_micros(report.opening_micros));
    figure("closing cash", format_micros(report.closing_micros));
}

fn equity(report: &Report, rows: &mut Rows) {
    for point in &report.performance.points {
        rows.push(row(
            "equity",
            &[
                ("time", rfc3339(point.until_us)),
                ("amount", format_micros(point.value_micros)),
                ("cash", format_micros(point.cash_micros)),
                ("holdings", format_micros(point.holdings_micros)),
            ],
        ));
    }
}

fn positions(report: &Report, rows: &mut Rows) {
    for g in &report.gains.symbols {
        let mut about = |name: &str, amount: i64| {
            rows.push(row(
                "position",
                &[
                    ("name", name.to_owned()),
                    ("symbol", g.symbol.clone()),
                    ("quantity", format_e4(g.quantity_e4)),
                    ("price", format_e4(g.price_e4)),
                    ("amount", format_micros(amount)),
                ],
            ));
        };
        about("value", g.value_micros);
        about("cost", g.held_cost_micros);
        about("cost first in first out", g.held_fifo_cost_micros);
        about("unrealized", g.unrealized_micros);
        about("realized", g.realized_micros);
        about("realized first in first out", g.fifo_realized_micros);
        about("fees", g.fees_micros);
    }
}

fn lines(report: &Report, rows: &mut Rows) {
    for t in &report.trades {
        rows.push(row(
            "trade",
            &[
                ("time", rfc3339(t.time_us)),
                ("name", side(t).to_owned()),
                ("symbol", t.symbol.clone()),
                ("quantity", format_e4(t.quantity_e4)),
                ("price", format_e4(t.price_e4)),
                ("amount", format_micros(t.amount_micros)),
                ("fee", format_micros(t.fee_micros)),
                ("reference", t.exec_id.clone()),
            ],
        ));
    }
    for e in &report.flows {
        let t = e.transaction.clone().unwrap_or_default();
        rows.push(row(
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
        ));
    }
}

/// The whole report.
pub fn page(report: &Report) -> Result<String> {
    let mut rows = vec![HEADER.map(str::to_owned).to_vec()];
    for part in [figures, equity, positions, lines] {
        part(report, &mut rows);
    }
    let failed = |e: String| Error::new(Exit::Failure, format!("the report cannot be written as CSV: {e}"));
    let mut writer = ::csv::Writer::from_writer(Vec::new());
    for row in rows {
        writer.write_record(row).map_err(|e| failed(e.to_string()))?;
    }
    let bytes = writer.into_inner().map_err(|e| failed(e.to_string()))?;
    String::from_utf8(bytes).map_err(|e| failed(e.to_string()))
}
