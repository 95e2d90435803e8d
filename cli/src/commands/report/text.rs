//! A report for a terminal.

use super::{Report, amount, flow_cells, trade_cells};
use crate::output::table;
use fafnir_rules::money::{format_e4, format_fixed, format_price};
use fafnir_services::platform::clock::rfc3339;

/// Rows of the equity curve, of trades and of flows.
const ROWS: usize = 20;

/// A percentage for people; `-` for none.
pub fn percent(e4: Option<i64>) -> String {
    e4.map_or_else(|| "-".to_owned(), |e4| format!("{} %", format_fixed(e4, 4, 2)))
}

/// The figures of a span, by name.
pub fn summary(report: &Report) -> Vec<(&'static str, String)> {
    let p = &report.performance;
    let total = report.gains.total.clone().unwrap_or_default();
    vec![
        ("from", rfc3339(p.from_us)),
        ("to", rfc3339(p.to_us)),
        ("start value", amount(p.start_micros)),
        ("inflows", amount(p.inflows_micros)),
        ("outflows", amount(p.outflows_micros)),
        ("gain", format!("{} ({})", amount(p.gain_micros), percent(Some(p.gain_percent_e4)))),
        ("end value", amount(p.end_micros)),
        ("time-weighted return", percent(p.time_weighted_percent_e4)),
        ("money-weighted return a year", percent(p.money_weighted_percent_e4)),
        ("realized", amount(total.realized_micros)),
        ("realized, first in first out", amount(total.fifo_realized_micros)),
        ("unrealized", amount(total.unrealized_micros)),
        ("fees", amount(total.fees_micros)),
        ("opening cash", amount(report.opening_micros)),
        ("closing cash", amount(report.closing_micros)),
    ]
}

/// The whole report.
pub fn page(report: &Report) -> String {
    let p = &report.performance;
    let mut text = format!("account {} in {}\n\n", p.account_id, p.currency);
    let rows: Vec<_> =
        summary(report).into_iter().map(|(name, value)| vec![name.to_owned(), value]).collect();
    text.push_str(&table(&["FIGURE", ">VALUE"], &rows));
    let points: Vec<_> = p.points[newest(p.points.len())..]
        .iter()
        .map(|x| {
            vec![
                rfc3339(x.until_us),
                amount(x.cash_micros),
                amount(x.holdings_micros),
                amount(x.value_micros),
            ]
        })
        .collect();
    text.push('\n');
    text.push_str(&table(&["UNTIL", ">CASH", ">HOLDINGS", ">VALUE"], &points));
    text.push_str(&symbols(report));
    text.push_str(&lines(report));
    text
}

/// The first of the newest rows.
fn newest(len: usize) -> usize {
    len.saturating_sub(ROWS)
}

fn symbols(report: &Report) -> String {
    let symbols: Vec<_> = report
        .gains
        .symbols
        .iter()
        .map(|g| {
            vec![
                g.symbol.clone(),
                format_e4(g.quantity_e4),
                format_price(g.price_e4),
                amount(g.value_micros),
                amount(g.unrealized_micros),
                amount(g.realized_micros),
                amount(g.fifo_realized_micros),
                amount(g.fees_micros),
                g.trades.to_string(),
            ]
        })
        .collect();
    if symbols.is_empty() {
        return String::new();
    }
    let headers =
        ["SYMBOL", ">HELD", ">LAST", ">VALUE", ">UNREALIZED", ">REALIZED", ">FIFO", ">FEES", ">TRADES"];
    format!("\n{}", table(&headers, &symbols))
}

fn lines(report: &Report) -> String {
    let mut text = String::new();
    let trades: Vec<_> = report.trades[newest(report.trades.len())..].iter().map(trade_cells).collect();
    if !trades.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &["TRADED", "SIDE", "SYMBOL", ">QUANTITY", ">PRICE", ">AMOUNT", ">FEE"],
            &trades,
        ));
    }
    let flows: Vec<_> = report.flows[newest(report.flows.len())..].iter().map(flow_cells).collect();
    if !flows.is_empty() {
        text.push('\n');
        text.push_str(&table(&["FLOWED", "WHAT", ">CHANGE", ">BALANCE"], &flows));
    }
    let left = [
        (newest(report.performance.points.len()), "points"),
        (report.trades_left_out + newest(report.trades.len()), "trades"),
        (report.flows_left_out + newest(report.flows.len()), "flows"),
    ];
    for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
        text.push_str(&format!("\n{count} older {what} are not shown; --format csv has all\n"));
    }
    text
}
