//! A report as one page that needs nothing else: no script, no request.

use super::{Report, amount, flow_cells, plot, text, trade_cells};
use crate::output::printable;
use fafnir_rules::money::{format_e4, format_price};
use fafnir_services::platform::clock::rfc3339;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#667080;--rule:#d9dee5;--back:#fff;--line:#1f6feb;--gain:#1f6feb;--loss:#d4652f}\
@media (prefers-color-scheme:dark){:root{--ink:#e6e9ee;--soft:#9aa4b2;--rule:#333a44;--back:#14171b;--line:#6aa6ff;--gain:#6aa6ff;--loss:#f0905a}}\
body{font:15px/1.45 system-ui,sans-serif;color:var(--ink);background:var(--back);max-width:960px;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .5rem}p{color:var(--soft);margin:.2rem 0}\
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}\
th,td{text-align:right;padding:.25rem .5rem;border-bottom:1px solid var(--rule);white-space:nowrap}\
th{color:var(--soft);font-weight:600}th.l,td.l{text-align:left}\
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(210px,1fr));gap:.75rem;margin:1rem 0}\
dt{color:var(--soft);font-size:.85rem}dd{margin:0;font-size:1.1rem;font-variant-numeric:tabular-nums}\
svg{width:100%;height:auto}svg text{font-size:12px;fill:var(--soft)}.value,.end{text-anchor:end}\
.grid{stroke:var(--rule)}.line{fill:none;stroke:var(--line);stroke-width:2}.area{fill:var(--line);opacity:.12}\
.dot,.gain{fill:var(--gain)}.loss{fill:var(--loss)}.scroll{overflow-x:auto}";

/// Text as HTML shows it.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// A table; columns whose header starts with `<` are set to the left.
fn table(headers: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let class = |n: usize| if headers[n].starts_with('<') { " class=\"l\"" } else { "" };
    let mut out = "<div class=\"scroll\"><table>\n<tr>".to_owned();
    for (n, header) in headers.iter().enumerate() {
        out.push_str(&format!("<th{}>{}</th>", class(n), escaped(header.trim_start_matches('<'))));
    }
    out.push_str("</tr>\n");
    for row in rows {
        out.push_str("<tr>");
        for (n, cell) in row.iter().enumerate() {
            out.push_str(&format!("<td{}>{}</td>", class(n), escaped(cell)));
        }
        out.push_str("</tr>\n");
    }
    out + "</table></div>\n"
}

/// The whole page.
pub fn page(report: &Report) -> String {
    let p = &report.performance;
    let title = format!(
        "Account {}",
        if report.account.account_number.is_empty() { &p.account_id } else { &report.account.account_number }
    );
    let (from, to) = (rfc3339(p.from_us), rfc3339(p.to_us));
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{0}</title>\n<style>{STYLE}</style>\n</head>\n\
         <body>\n<h1>{0}</h1>\n<p>{1} to {2}, amounts in {3}</p>\n<dl>\n",
        escaped(&title),
        escaped(&from),
        escaped(&to),
        escaped(&p.currency)
    );
    for (name, value) in text::summary(report).into_iter().skip(2) {
        out.push_str(&format!("<div><dt>{}</dt><dd>{}</dd></div>\n", escaped(name), escaped(&value)));
    }
    out.push_str("</dl>\n<h2>Equity</h2>\n");
    // The curve begins with what was there before, or with what came first.
    let mut points = vec![(p.from_us, p.start_micros)];
    points.extend(p.points.iter().map(|point| (point.until_us, point.value_micros)));
    points.drain(..points.iter().position(|(_, value)| *value != 0).unwrap_or(0));
    let first = points.first().map_or(p.from_us, |(time_us, _)| *time_us);
    out.push_str(&plot::curve("worth over time", &points, (&rfc3339(first), &to)));
    out.push_str(&positions(report));
    out.push_str(&trades(report));
    out.push_str(&flows(report));
    out + "</body>\n</html>\n"
}

fn positions(report: &Report) -> String {
    let symbols = &report.gains.symbols;
    if symbols.is_empty() {
        return String::new();
    }
    let mut out = "<h2>Positions</h2>\n".to_owned();
    let held = symbols.iter().filter(|g| g.quantity_e4 != 0);
    let headers = ["<Symbol", "Held", "Last", "Value", "Cost", "Cost, FIFO", "Unrealized"];
    out.push_str(&table(
        &headers,
        held.map(|g| {
            vec![
                g.symbol.clone(),
                format_e4(g.quantity_e4),
                format_price(g.price_e4),
                amount(g.value_micros),
                amount(g.held_cost_micros),
                amount(g.held_fifo_cost_micros),
                amount(g.unrealized_micros),
            ]
        }),
    ));
    out.push_str("<h2>Gains and fees, closed positions too</h2>\n");
    let bars: Vec<_> = symbols.iter().map(|g| (g.symbol.clone(), g.realized_micros)).collect();
    out.push_str(&plot::bars("realized by symbol", &bars));
    let total = report.gains.total.iter().map(|total| (total, "Total"));
    let rows = symbols.iter().map(|g| (g, g.symbol.as_str())).chain(total);
    let headers = ["<Symbol", "Trades", "Proceeds", "Cost", "Realized", "Realized, FIFO", "Fees"];
    out.push_str(&table(
        &headers,
        rows.map(|(g, name)| {
            vec![
                name.to_owned(),
                g.trades.to_string(),
                amount(g.proceeds_micros),
                amount(g.cost_micros),
                amount(g.realized_micros),
                amount(g.fifo_realized_micros),
                amount(g.fees_micros),
            ]
        }),
    ));
    out
}

/// How many older rows the page leaves out.
fn left_out(count: usize) -> String {
    if count == 0 {
        return String::new();
    }
    format!("<p>{count} older ones are left out here; the report as CSV or JSON has all.</p>\n")
}

fn trades(report: &Report) -> String {
    if report.trades.is_empty() {
        return String::new();
    }
    let rows = report.trades.iter().rev().map(trade_cells);
    let headers = ["<Time", "<Side", "<Symbol", "Quantity", "Price", "Amount", "Fee"];
    format!("<h2>Trades</h2>\n{}{}", left_out(report.trades_left_out), table(&headers, rows))
}

fn flows(report: &Report) -> String {
    if report.flows.is_empty() {
        return String::new();
    }
    let rows = report.flows.iter().rev().map(flow_cells);
    let headers = ["<Time", "<What", "Change", "Balance"];
    format!("<h2>Flows</h2>\n{}{}", left_out(report.flows_left_out), table(&headers, rows))
}
