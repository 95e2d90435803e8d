//! `fafnir portfolio` and `fafnir watchlist`.

use super::{
    account::{account_json, accounts_table},
    report::{amount, gains_json},
};
use crate::{
    args::{Global, Portfolio, Watchlist},
    client::{Client, patiently},
    output::{Out, Result, table},
};
use fafnir_proto::v1::{
    Account, Empty, GainsReply, GainsRequest, Holding, QuotesRequest, SymbolGains, SymbolRequest,
};
use fafnir_rules::money::{format_e4, format_fixed, format_micros, format_price, notional_micros};
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Last prices by symbol.
type Prices = BTreeMap<String, i64>;

/// What the accounts hold, what they held and gained in a period, and what that comes to.
pub async fn portfolio(global: &Global, args: &Portfolio, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(Empty {});
    let accounts = client.terminal.accounts(request).await?.into_inner().accounts;
    let request = client.request(Empty {});
    let holdings = client.terminal.positions(request).await?.into_inner().holdings;
    let symbols: Vec<String> = holdings.iter().map(|h| h.symbol.clone()).collect();
    let request = client.request(QuotesRequest { symbols });
    let quotes = client.terminal.quotes(request).await?.into_inner().quotes;
    let prices: Prices = quotes.into_iter().map(|q| (q.symbol, q.price_e4)).collect();
    let gains = gains(&mut client, args, &accounts).await?;
    let document = json!({
        "accounts": accounts.iter().map(account_json).collect::<Vec<_>>(),
        "holdings": holdings.iter().map(|h| holding_json(h, &prices)).collect::<Vec<_>>(),
        "closed": closed(&gains).map(|(g, symbol)| of_account(g, gains_json(symbol))).collect::<Vec<_>>(),
        "totals": totals(&gains).map(|(g, total)| of_account(g, gains_json(total))).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let gains = gains_tables(&gains, &named(args));
        format!("{}\n{}{gains}", accounts_table(&accounts), held_table(&holdings, &prices))
    });
    Ok(())
}

/// What each account gained in the period, those that had shares in it.
async fn gains(client: &mut Client, args: &Portfolio, accounts: &[Account]) -> Result<Vec<GainsReply>> {
    let mut gains = Vec::new();
    for account in accounts {
        let request = GainsRequest {
            account_id: account.id.clone(),
            period: args.period.clone(),
            from: args.span.from.clone(),
            to: args.span.to.clone(),
            ..GainsRequest::default()
        };
        let ask = async || {
            let asked = client.request(request.clone());
            client.terminal.gains(asked).await
        };
        let reply = patiently(ask).await?.into_inner();
        if !reply.symbols.is_empty() {
            gains.push(reply);
        }
    }
    Ok(gains)
}

/// Positions that were traded in the period and are no longer there at its end.
fn closed(gains: &[GainsReply]) -> impl Iterator<Item = (&GainsReply, &SymbolGains)> {
    gains.iter().flat_map(|g| g.symbols.iter().filter(|s| s.quantity_e4 == 0).map(move |s| (g, s)))
}

/// What each account traded and gained in all, open positions too.
fn totals(gains: &[GainsReply]) -> impl Iterator<Item = (&GainsReply, &SymbolGains)> {
    gains.iter().filter_map(|g| Some((g, g.total.as_ref()?)))
}

/// Whose gains they are, and of which span.
fn of_account(gains: &GainsReply, mut document: Value) -> Value {
    document["accountId"] = json!(gains.account_id);
    document["currency"] = json!(gains.currency);
    document["from"] = json!(rfc3339(gains.from_us));
    document["to"] = json!(rfc3339(gains.to_us));
    document
}

/// In the listing's currency, exact; absent where the listing has no price.
fn value(holding: &Holding, prices: &Prices) -> Option<i64> {
    prices.get(&holding.symbol).and_then(|price| notional_micros(*price, holding.quantity_e4))
}

fn holding_json(h: &Holding, prices: &Prices) -> Value {
    json!({
        "accountId": h.account_id, "symbol": h.symbol, "quantity": format_e4(h.quantity_e4), "held": format_e4(h.held_e4),
        "averageCost": format_micros(h.avg_cost_micros), "cost": format_micros(h.cost_micros),
        "realizedPnl": format_micros(h.realized_pnl_micros),
        "marketPrice": prices.get(&h.symbol).map(|p| format_e4(*p)),
        "marketValue": value(h, prices).map(format_micros),
    })
}

fn held_table(holdings: &[Holding], prices: &Prices) -> String {
    if holdings.is_empty() {
        return "no positions\n".to_owned();
    }
    let row = |h: &Holding| {
        vec![
            h.symbol.clone(),
            format_e4(h.quantity_e4),
            format_e4(h.held_e4),
            format_fixed(h.avg_cost_micros, 6, 2),
            prices.get(&h.symbol).map_or_else(|| "-".into(), |p| format_price(*p)),
            value(h, prices).map_or_else(|| "-".into(), amount),
            amount(h.realized_pnl_micros),
        ]
    };
    let rows: Vec<_> = holdings.iter().map(row).collect();
    table(&["SYMBOL", ">QUANTITY", ">HELD", ">COST", ">LAST", ">VALUE", ">REALIZED"], &rows)
}

/// The span as it was asked for.
fn named(args: &Portfolio) -> String {
    let to = args.span.to.as_ref().map_or_else(String::new, |to| format!(" to {to}"));
    format!(
        "{}{to}",
        args.span.from.as_ref().map_or_else(|| args.period.to_uppercase(), |from| format!("from {from}"))
    )
}

fn gains_tables(gains: &[GainsReply], span: &str) -> String {
    let row = |(g, s): (&GainsReply, &SymbolGains), name: String| {
        vec![
            name,
            g.currency.clone(),
            s.trades.to_string(),
            amount(s.proceeds_micros),
            amount(s.cost_micros),
            amount(s.realized_micros),
            amount(s.fifo_realized_micros),
            amount(s.fees_micros),
        ]
    };
    let headers = |first: &'static str| {
        [first, "CURRENCY", ">TRADES", ">PROCEEDS", ">COST", ">REALIZED", ">FIFO", ">FEES"]
    };
    let closed: Vec<_> = closed(gains).map(|(g, s)| row((g, s), s.symbol.clone())).collect();
    let totals: Vec<_> = totals(gains).map(|(g, s)| row((g, s), span.to_owned())).collect();
    let titled = |first: &'static str, rows: &[Vec<String>]| {
        if rows.is_empty() { String::new() } else { format!("\n{}", table(&headers(first), rows)) }
    };
    titled("CLOSED", &closed) + &titled("PERIOD", &totals)
}

pub async fn watchlist(global: &Global, args: &Watchlist, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    for symbol in &args.add {
        let request = client.request(SymbolRequest { symbol: symbol.to_uppercase() });
        client.terminal.add_to_watchlist(request).await?;
    }
    for symbol in &args.remove {
        let request = client.request(SymbolRequest { symbol: symbol.to_uppercase() });
        client.terminal.remove_from_watchlist(request).await?;
    }
    let request = client.request(Empty {});
    let items = client.terminal.watchlist(request).await?.into_inner().items;
    let document: Vec<_> =
        items.iter().map(|i| json!({"symbol": i.symbol, "addedAt": rfc3339(i.added_us)})).collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = items.iter().map(|i| vec![i.symbol.clone(), rfc3339(i.added_us)]).collect();
        table(&["SYMBOL", "ADDED"], &rows)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_sold_out_is_listed_with_its_gain_and_counts_in_the_total() {
        let gains = |symbol: &str, quantity_e4, realized_micros| SymbolGains {
            symbol: symbol.into(),
            quantity_e4,
            realized_micros,
            trades: 2,
            ..SymbolGains::default()
        };
        let reply = GainsReply {
            account_id: "a".into(),
            currency: "CAD".into(),
            symbols: vec![gains("INTC", 0, 12_500_000), gains("SHOP", 10_000, -2_000_000)],
            total: Some(gains("", 0, 10_500_000)),
            ..GainsReply::default()
        };
        let replies = [reply];
        let told: Vec<_> = closed(&replies).map(|(g, s)| of_account(g, gains_json(s))).collect();
        assert_eq!(told.len(), 1);
        assert_eq!((&told[0]["symbol"], &told[0]["realizedPnl"]), (&json!("INTC"), &json!("12.5")));
        assert_eq!((&told[0]["currency"], &told[0]["to"]), (&json!("CAD"), &json!("1970-01-01T00:00:00Z")));
        let text = gains_tables(&replies, "1M");
        assert!(text.contains("INTC") && text.contains("12.50") && text.contains("10.50"), "{text}");
        assert!(!text.contains("SHOP"), "{text}");
        assert!(text.contains("\n1M "), "{text}");
        assert_eq!(gains_tables(&[], "1M"), "");
    }
}
