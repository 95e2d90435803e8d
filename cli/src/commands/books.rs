//! `fafnir statement`, `performance` and `lots`: an account's books.

use super::report::{account_of, amount, percent};
use crate::{
    args::{Global, Lots, Performance, Statement},
    client::{Client, patiently},
    output::{Out, Result, table},
};
use fafnir_proto::v1::{self, LotsRequest, PerformanceRequest, StatementRequest};
use fafnir_rules::money::{format_e4, format_fixed, format_micros};
use fafnir_services::platform::clock::rfc3339;
use serde_json::json;

/// Rows of one page; all pages are read.
const PAGE: u32 = 1_000;

pub async fn statement(global: &Global, args: &Statement, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = account_of(&mut client, args.account.as_deref()).await?.id;
    let mut entries: Vec<v1::StatementEntry> = Vec::new();
    let mut request = StatementRequest {
        account_id,
        from: args.span.from.clone(),
        to: args.span.to.clone(),
        limit: PAGE,
        ..StatementRequest::default()
    };
    let last = loop {
        let ask = async || {
            let asked = client.request(request.clone());
            client.terminal.statement(asked).await
        };
        let mut page = patiently(ask).await?.into_inner();
        entries.append(&mut page.entries);
        let end = entries.last().and_then(|e| e.transaction.as_ref()).map(|t| t.id.clone());
        match end.filter(|_| page.more) {
            // One span for all of it: what happens meanwhile is in none of it.
            Some(id) => {
                request.after_id = id;
                (request.from, request.to) = (Some(rfc3339(page.from_us)), Some(rfc3339(page.to_us)));
            }
            None => break page,
        }
    };
    let kind =
        |t: &v1::Transaction| t.r#type().as_str_name().trim_start_matches("TRANSACTION_TYPE_").to_owned();
    let lines: Vec<_> = entries.iter().map(|e| (e, e.transaction.clone().unwrap_or_default())).collect();
    let document = json!({
        "accountId": last.account_id, "currency": last.currency, "from": rfc3339(last.from_us),
        "to": rfc3339(last.to_us), "opening": format_micros(last.opening_micros),
        "closing": format_micros(last.closing_micros),
        "entries": lines.iter().map(|(e, t)| json!({
            "id": t.id, "time": rfc3339(t.created_us), "type": kind(t), "description": t.description,
            "referenceId": t.reference_id, "change": format_micros(e.change_micros),
            "balance": format_micros(e.balance_micros), "symbol": e.symbol, "quantity": format_e4(e.quantity_e4),
            "price": format_e4(e.price_e4), "execId": e.exec_id,
        })).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let row = |(e, t): &(&v1::StatementEntry, v1::Transaction)| {
            let mut row = vec![rfc3339(t.created_us), kind(t), t.description.clone()];
            row.extend([amount(e.change_micros), amount(e.balance_micros)]);
            row
        };
        let rows: Vec<_> = lines.iter().map(row).collect();
        let (opening, closing) = (amount(last.opening_micros), amount(last.closing_micros));
        let lines = table(&["TIME", "TYPE", "DESCRIPTION", ">CHANGE", ">BALANCE"], &rows);
        format!(
            "account {} in {}\nopening {opening}\n{lines}closing {closing}\n",
            last.account_id, last.currency
        )
    });
    Ok(())
}

pub async fn performance(global: &Global, args: &Performance, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = account_of(&mut client, args.account.as_deref()).await?.id;
    let request = client.request(PerformanceRequest {
        account_id,
        period: args.period.clone(),
        interval: args.interval.clone(),
        ..PerformanceRequest::default()
    });
    let p = client.terminal.performance(request).await?.into_inner();
    let e4 = |value: Option<i64>| value.map(|value| format_fixed(value, 4, 4));
    let document = json!({
        "accountId": p.account_id, "currency": p.currency, "period": p.period, "from": rfc3339(p.from_us),
        "to": rfc3339(p.to_us), "start": format_micros(p.start_micros), "end": format_micros(p.end_micros),
        "inflows": format_micros(p.inflows_micros), "outflows": format_micros(p.outflows_micros),
        "netFlows": format_micros(p.net_flows_micros), "gain": format_micros(p.gain_micros),
        "gainPercent": e4(Some(p.gain_percent_e4)), "timeWeightedPercent": e4(p.time_weighted_percent_e4),
        "moneyWeightedPercent": e4(p.money_weighted_percent_e4),
        "points": p.points.iter().map(|x| json!({
            "from": rfc3339(x.from_us), "until": rfc3339(x.until_us), "cash": format_micros(x.cash_micros),
            "holdings": format_micros(x.holdings_micros), "value": format_micros(x.value_micros),
        })).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let row = |x: &v1::PerformancePoint| {
            vec![
                rfc3339(x.until_us),
                amount(x.cash_micros),
                amount(x.holdings_micros),
                amount(x.value_micros),
            ]
        };
        let rows: Vec<_> = p.points.iter().map(row).collect();
        format!(
            "account {} in {}, {}\n{}gain {} ({}), time-weighted {}, money-weighted a year {}\n",
            p.account_id,
            p.currency,
            p.period,
            table(&["UNTIL", ">CASH", ">HOLDINGS", ">VALUE"], &rows),
            amount(p.gain_micros),
            percent(Some(p.gain_percent_e4)),
            percent(p.time_weighted_percent_e4),
            percent(p.money_weighted_percent_e4),
        )
    });
    Ok(())
}

/// What a position was bought in, oldest first.
pub async fn lots(global: &Global, args: &Lots, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = account_of(&mut client, args.account.as_deref()).await?.id;
    let mut lots: Vec<v1::Lot> = Vec::new();
    let last = loop {
        let request = client.request(LotsRequest {
            account_id: account_id.clone(),
            symbol: args.symbol.to_uppercase(),
            at: args.moment.clone(),
            limit: PAGE,
            after_id: lots.last().map(|l| l.id.clone()).unwrap_or_default(),
            ..LotsRequest::default()
        });
        let mut page = client.terminal.lots(request).await?.into_inner();
        let more = page.more && !page.lots.is_empty();
        lots.append(&mut page.lots);
        if !more {
            break page;
        }
    };
    let document = json!({
        "accountId": last.account_id, "currency": last.currency, "symbol": last.symbol,
        "quantity": format_e4(last.quantity_e4), "cost": format_micros(last.cost_micros),
        "lots": lots.iter().map(|l| json!({
            "id": l.id, "acquired": rfc3339(l.acquired_us), "orderId": l.reference_id,
            "quantity": format_e4(l.quantity_e4), "left": format_e4(l.left_e4), "cost": format_micros(l.cost_micros),
        })).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let row = |l: &v1::Lot| {
            let mut row = vec![rfc3339(l.acquired_us), format_e4(l.quantity_e4), format_e4(l.left_e4)];
            row.extend([amount(l.cost_micros), l.reference_id.clone()]);
            row
        };
        let rows: Vec<_> = lots.iter().map(row).collect();
        let lines = table(&["ACQUIRED", ">QUANTITY", ">LEFT", ">COST", "ORDER"], &rows);
        format!(
            "{lines}{} {} cost {} {}\n",
            format_e4(last.quantity_e4),
            last.symbol,
            amount(last.cost_micros),
            last.currency
        )
    });
    Ok(())
}
