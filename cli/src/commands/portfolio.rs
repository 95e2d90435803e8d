//! `fafnir portfolio` and `fafnir watchlist`.

use super::account::{account_json, accounts_table};
use crate::{
    args::{Global, Watchlist, Where},
    client::Client,
    output::{Out, Result, table},
};
use fafnir_proto::v1::{Empty, QuotesRequest, SymbolRequest};
use fafnir_rules::money::{
    format_e4, format_fixed, format_grouped, format_micros, format_price, notional_micros,
};
use fafnir_services::platform::clock::rfc3339;
use serde_json::json;
use std::collections::BTreeMap;

pub async fn portfolio(global: &Global, at: &Where, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let request = client.request(Empty {});
    let accounts = client.terminal.accounts(request).await?.into_inner().accounts;
    let request = client.request(Empty {});
    let holdings = client.terminal.positions(request).await?.into_inner().holdings;
    let symbols: Vec<String> = holdings.iter().map(|h| h.symbol.clone()).collect();
    let request = client.request(QuotesRequest { symbols });
    let quotes = client.terminal.quotes(request).await?.into_inner().quotes;
    let prices: BTreeMap<&str, i64> = quotes.iter().map(|q| (q.symbol.as_str(), q.price_e4)).collect();
    // In the listing's currency, exact; absent where the listing has no price.
    let value = |symbol: &str, quantity| prices.get(symbol).and_then(|p| notional_micros(*p, quantity));
    let document = json!({
        "accounts": accounts.iter().map(account_json).collect::<Vec<_>>(),
        "holdings": holdings.iter().map(|h| json!({
            "accountId": h.account_id, "symbol": h.symbol, "quantity": format_e4(h.quantity_e4), "held": format_e4(h.held_e4),
            "averageCost": format_micros(h.avg_cost_micros), "cost": format_micros(h.cost_micros),
            "realizedPnl": format_micros(h.realized_pnl_micros),
            "marketPrice": prices.get(h.symbol.as_str()).map(|p| format_e4(*p)),
            "marketValue": value(&h.symbol, h.quantity_e4).map(format_micros),
        })).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let rows: Vec<_> = holdings
            .iter()
            .map(|h| {
                vec![
                    h.symbol.clone(),
                    format_e4(h.quantity_e4),
                    format_e4(h.held_e4),
                    format_fixed(h.avg_cost_micros, 6, 2),
                    prices.get(h.symbol.as_str()).map_or_else(|| "-".into(), |p| format_price(*p)),
                    value(&h.symbol, h.quantity_e4).map_or_else(|| "-".into(), |v| format_grouped(v, 6)),
                    format_grouped(h.realized_pnl_micros, 6),
                ]
            })
            .collect();
        let positions = if rows.is_empty() {
            "no positions\n".to_owned()
        } else {
            table(&["SYMBOL", ">QUANTITY", ">HELD", ">COST", ">LAST", ">VALUE", ">REALIZED"], &rows)
        };
        format!("{}\n{positions}", accounts_table(&accounts))
    });
    Ok(())
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
