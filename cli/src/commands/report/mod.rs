//! `fafnir report`: how an account went in a span of time, as a table, CSV, JSON, or one page of HTML.

mod csv;
mod html;
mod plot;
mod text;

use crate::{
    args::{Global, Report as Args, ReportFormat},
    client::{Client, ids, patiently},
    output::{Error, Exit, Out, Result},
};
use fafnir_proto::{
    reason::Reason,
    v1::{
        self, AccountType, Empty, GainsReply, PerformanceReply, ReportRequest, ReportTrade, StatementEntry,
    },
};
use fafnir_rules::money::{format_e4, format_grouped, format_micros, format_price};
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};
use std::{fs, path::Path};

/// Lines asked for at a time.
const PAGE: u32 = 1_000;
/// Rows of trades and of flows that a page and a table show; CSV and JSON have all.
const ROWS_MAX: usize = 2_000;

/// What a report tells.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub account: v1::Account,
    pub performance: PerformanceReply,
    pub gains: GainsReply,
    pub opening_micros: i64,
    pub closing_micros: i64,
    /// Oldest first.
    pub trades: Vec<ReportTrade>,
    /// What came and went without a trade, oldest first.
    pub flows: Vec<StatementEntry>,
    /// How many there were before those that are kept.
    pub trades_left_out: usize,
    pub flows_left_out: usize,
}

pub(super) use text::percent;

pub async fn report(global: &Global, args: &Args, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account = account_of(&mut client, args.account.as_deref()).await?;
    let keep = match args.format {
        ReportFormat::Table | ReportFormat::Html if !out.json => ROWS_MAX,
        _ => usize::MAX,
    };
    let report = Report::read(&mut client, account, args, keep).await?;
    let text = match args.format {
        _ if out.json => report.json(),
        ReportFormat::Table => text::page(&report),
        ReportFormat::Json => report.json(),
        ReportFormat::Csv => csv::page(&report)?,
        ReportFormat::Html => html::page(&report),
    };
    match &args.output {
        None => out.raw(&text),
        Some(path) => {
            write(path, &text)?;
            out.note(format!("written to {}", path.display()));
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result {
    fs::write(path, text)
        .map_err(|e| Error::new(Exit::Failure, format!("{} cannot be written: {e}", path.display())))
}

/// The account that is named; else the oldest investment account. One that was closed is only known by its id.
pub(super) async fn account_of(client: &mut Client, id: Option<&str>) -> Result<v1::Account> {
    let request = client.request(Empty {});
    let accounts = client.terminal.accounts(request).await?.into_inner().accounts;
    let found = match id {
        Some(text) => {
            let id = ids::account_among(&accounts, text)?;
            let known = accounts.into_iter().find(|a| a.id == id);
            Some(known.unwrap_or_else(|| v1::Account { id, ..v1::Account::default() }))
        }
        None => accounts.into_iter().find(|a| a.r#type() == AccountType::Investment),
    };
    found.ok_or_else(|| {
        Error::new(Exit::Precondition, "you have no investment account")
            .code(Reason::ACCOUNT_NOT_FOUND)
            .hint("name one with --account; `fafnir account list` shows them")
    })
}

impl Report {
    async fn read(client: &mut Client, account: v1::Account, args: &Args, keep: usize) -> Result<Self> {
        let mut request = ReportRequest {
            account_id: account.id.clone(),
            period: args.period.clone(),
            from: args.span.from.clone(),
            to: args.span.to.clone(),
            interval: args.interval.clone(),
            limit: PAGE,
            ..ReportRequest::default()
        };
        let mut report = Self { account, ..Self::default() };
        loop {
            let ask = async || {
                let asked = client.request(request.clone());
                client.terminal.report(asked).await
            };
            let page = patiently(ask).await?.into_inner();
            if !request.lines_only {
                report.performance = page.performance.unwrap_or_default();
                report.gains = page.gains.unwrap_or_default();
                (report.opening_micros, report.closing_micros) = (page.opening_micros, page.closing_micros);
                // One span for all of it: what happens meanwhile is in none of it.
                request.from = Some(rfc3339(page.from_us));
                request.to = Some(rfc3339(page.to_us));
                request.lines_only = true;
            }
            report.trades.extend(page.trades);
            report.flows.extend(page.flows);
            report.forget(keep);
            if !page.more {
                return Ok(report);
            }
            request.after_id = page.end_id;
        }
    }

    /// Keeps only the newest rows.
    fn forget(&mut self, keep: usize) {
        let trades = self.trades.len().saturating_sub(keep);
        let flows = self.flows.len().saturating_sub(keep);
        self.trades.drain(..trades);
        self.flows.drain(..flows);
        (self.trades_left_out, self.flows_left_out) =
            (self.trades_left_out + trades, self.flows_left_out + flows);
    }

    /// The whole report; decimals as texts: exact for every reader. Rows become text one by one.
    fn json(&self) -> String {
        let mut text = self.figures_json().to_string();
        // The document goes on.
        text.pop();
        let mut rows = |name: &str, rows: &mut dyn Iterator<Item = Value>| {
            text.push_str(&format!(",\"{name}\":["));
            for (n, row) in rows.enumerate() {
                if n > 0 {
                    text.push(',');
                }
                text.push_str(&row.to_string());
            }
            text.push(']');
        };
        rows("trades", &mut self.trades.iter().map(trade_json));
        rows("flows", &mut self.flows.iter().map(flow_json));
        text + "}\n"
    }

    fn figures_json(&self) -> Value {
        let p = &self.performance;
        let percent = |e4: Option<i64>| e4.map(format_e4);
        json!({
            "accountId": p.account_id, "currency": p.currency,
            "from": rfc3339(p.from_us), "to": rfc3339(p.to_us),
            "startValue": format_micros(p.start_micros), "endValue": format_micros(p.end_micros),
            "inflows": format_micros(p.inflows_micros), "outflows": format_micros(p.outflows_micros),
            "gain": format_micros(p.gain_micros), "gainPercent": format_e4(p.gain_percent_e4),
            "timeWeightedPercent": percent(p.time_weighted_percent_e4),
            "moneyWeightedPercent": percent(p.money_weighted_percent_e4),
            "openingBalance": format_micros(self.opening_micros),
            "closingBalance": format_micros(self.closing_micros),
            "equity": p.points.iter().map(|point| json!({
                "until": rfc3339(point.until_us), "value": format_micros(point.value_micros),
                "cash": format_micros(point.cash_micros), "holdings": format_micros(point.holdings_micros),
            })).collect::<Vec<_>>(),
            "symbols": self.gains.symbols.iter().map(gains_json).collect::<Vec<_>>(),
            "total": gains_json(self.gains.total.as_ref().unwrap_or(&v1::SymbolGains::default())),
        })
    }
}

fn trade_json(t: &ReportTrade) -> Value {
    json!({
        "execId": t.exec_id, "time": rfc3339(t.time_us), "side": t.side().name(), "symbol": t.symbol,
        "quantity": format_e4(t.quantity_e4), "price": format_e4(t.price_e4),
        "amount": format_micros(t.amount_micros), "fee": format_micros(t.fee_micros), "orderId": t.order_id,
    })
}

fn flow_json(e: &StatementEntry) -> Value {
    let t = e.transaction.clone().unwrap_or_default();
    json!({
        "id": t.id, "time": rfc3339(t.created_us), "description": t.description,
        "change": format_micros(e.change_micros), "balance": format_micros(e.balance_micros),
        "symbol": e.symbol, "quantity": format_e4(e.quantity_e4), "referenceId": t.reference_id,
    })
}

/// An amount for people.
pub(super) fn amount(micros: i64) -> String {
    format_grouped(micros, 6)
}

/// A trade's cells for people: time, side, symbol, quantity, price, amount, fee.
fn trade_cells(trade: &ReportTrade) -> Vec<String> {
    vec![
        rfc3339(trade.time_us),
        trade.side().name().to_owned(),
        trade.symbol.clone(),
        format_e4(trade.quantity_e4),
        format_price(trade.price_e4),
        amount(trade.amount_micros),
        amount(trade.fee_micros),
    ]
}

/// A flow's cells for people: time, what, change, balance.
fn flow_cells(entry: &StatementEntry) -> Vec<String> {
    let t = entry.transaction.clone().unwrap_or_default();
    vec![rfc3339(t.created_us), t.description, amount(entry.change_micros), amount(entry.balance_micros)]
}

pub(super) fn gains_json(g: &v1::SymbolGains) -> Value {
    json!({
        "symbol": g.symbol, "bought": format_e4(g.bought_e4), "paid": format_micros(g.paid_micros),
        "sold": format_e4(g.sold_e4), "proceeds": format_micros(g.proceeds_micros), "cost": format_micros(g.cost_micros),
        "realizedPnl": format_micros(g.realized_micros), "fifoRealizedPnl": format_micros(g.fifo_realized_micros),
        "fees": format_micros(g.fees_micros), "trades": g.trades, "quantity": format_e4(g.quantity_e4),
        "heldCost": format_micros(g.held_cost_micros), "heldFifoCost": format_micros(g.held_fifo_cost_micros),
        "marketPrice": format_e4(g.price_e4), "marketValue": format_micros(g.value_micros),
        "unrealizedPnl": format_micros(g.unrealized_micros),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: i64 = 86_400_000_000;
    const DAY_0: i64 = 20_605 * DAY;
    const USD: i64 = 1_000_000;

    fn trade(exec_id: &str) -> ReportTrade {
        ReportTrade {
            exec_id: exec_id.into(),
            time_us: DAY_0 + 3_600_000_000,
            side: v1::Side::Buy.into(),
            symbol: "INTC".into(),
            quantity_e4: 100_000,
            price_e4: 245_000,
            amount_micros: 245 * USD,
            fee_micros: USD,
            order_id: "ebcaca97-91a6-4f21-afd2-3dd40fb43cd5".into(),
        }
    }

    fn flow(id: &str) -> StatementEntry {
        StatementEntry {
            transaction: Some(v1::Transaction {
                id: id.into(),
                r#type: v1::TransactionType::Deposit.into(),
                amount_micros: 100 * USD,
                description: format!("<{id}> & more"),
                created_us: DAY_0 + 3_600_000_000,
                ..v1::Transaction::default()
            }),
            change_micros: 100 * USD,
            balance_micros: 1_000 * USD,
            ..StatementEntry::default()
        }
    }

    /// Three days with a flow, a trade with its fee, and a closed position.
    pub fn sample() -> Report {
        let point = |n: i64, value: i64| v1::PerformancePoint {
            from_us: DAY_0 + n * DAY,
            until_us: DAY_0 + (n + 1) * DAY,
            cash_micros: 700 * USD,
            holdings_micros: (value - 700) * USD,
            value_micros: value * USD,
        };
        let gains = |symbol: &str, realized: i64, quantity: i64| v1::SymbolGains {
            symbol: symbol.into(),
            realized_micros: realized * USD,
            fifo_realized_micros: (realized + 1) * USD,
            fees_micros: USD,
            trades: 2,
            quantity_e4: quantity * 10_000,
            price_e4: 245_000,
            value_micros: quantity * 24_500_000,
            ..v1::SymbolGains::default()
        };
        Report {
            account: v1::Account { account_number: "1000000001".into(), ..v1::Account::default() },
            performance: PerformanceReply {
                account_id: "5d684a32-8ba4-4ec3-8ce3-68df382341a2".into(),
                currency: "USD".into(),
                from_us: DAY_0,
                to_us: DAY_0 + 3 * DAY,
                start_micros: 900 * USD,
                end_micros: 1_050 * USD,
                inflows_micros: 100 * USD,
                net_flows_micros: 100 * USD,
                gain_micros: 50 * USD,
                gain_percent_e4: 55_556,
                time_weighted_percent_e4: Some(52_000),
                points: vec![point(0, 1_000), point(1, 980), point(2, 1_050)],
                ..PerformanceReply::default()
            },
            gains: GainsReply {
                currency: "USD".into(),
                symbols: vec![gains("INTC", 12, 10), gains("SHOP", -7, 0)],
                total: Some(gains("", 5, 0)),
                ..GainsReply::default()
            },
            trades: vec![trade("INTC:7")],
            flows: vec![flow("a")],
            ..Report::default()
        }
    }

    #[test]
    fn old_rows_are_left_out_and_counted() {
        let mut report = sample();
        report.trades.push(trade("INTC:8"));
        report.forget(1);
        assert_eq!((report.trades[0].exec_id.as_str(), report.trades_left_out), ("INTC:8", 1));
        assert_eq!((report.flows.len(), report.flows_left_out), (1, 0));
    }

    #[test]
    fn a_report_as_json_csv_and_text() {
        let report = sample();
        let json: Value = serde_json::from_str(&report.json()).unwrap();
        assert_eq!((&json["gain"], &json["timeWeightedPercent"]), (&json!("50"), &json!("5.2")));
        assert_eq!(json["moneyWeightedPercent"], Value::Null);
        assert_eq!((&json["trades"][0]["fee"], &json["flows"][0]["id"]), (&json!("1"), &json!("a")));
        assert_eq!(
            (&json["equity"][1]["value"], &json["total"]["realizedPnl"]),
            (&json!("980"), &json!("5"))
        );
        let csv = csv::page(&report).unwrap();
        let mut rows = ::csv::Reader::from_reader(csv.as_bytes());
        let rows: Vec<::csv::StringRecord> = rows.records().collect::<std::result::Result<_, _>>().unwrap();
        let of = |section: &str| rows.iter().filter(|row| &row[0] == section).count();
        assert_eq!([of("figure"), of("equity"), of("position"), of("trade"), of("flow")], [14, 3, 14, 1, 1]);
        let flow = rows.iter().find(|row| &row[0] == "flow").unwrap();
        assert_eq!((&flow[2], &flow[6]), ("<a> & more", "100"));
        let text = text::page(&report);
        for line in
            ["gain                             50.00 (5.5556 %)", "INTC      10  24.50", "SHOP       0"]
        {
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert!(squeezed(&text).contains(&squeezed(line)), "{line} in {text}");
        }
    }

    #[test]
    fn a_page_is_whole_in_itself() {
        let page = html::page(&sample());
        for outside in ["<script", "http://", "https://", "src=", "href=", "url(", "@import", "onload"] {
            let page = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!page.contains(outside), "{outside}");
        }
        assert!(page.contains("&lt;a&gt; &amp; more"), "text is text");
        // The curve of an account that was opened within the span begins with what came first.
        let mut opened = sample();
        opened.performance.start_micros = 0;
        opened.performance.points[0].value_micros = 0;
        assert!(!html::page(&opened).contains("class=\"value\">0.00"), "{}", html::page(&opened));
        assert!(html::page(&Report::default()).contains("</html>"), "nothing to tell is a page too");
    }
}
