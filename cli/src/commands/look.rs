//! `fafnir whoami`, `search`, `instrument`, `trades`, `candles`, `statistics`, `volume` and `fills`.

use crate::{
    args::{Candles, Fills, Global, InstrumentOf, Search, Trades, VolumeOf, Where},
    client::Client,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{self, CandlesRequest, Empty, ListFillsRequest, SearchRequest, SymbolRequest, TradesRequest},
};
use fafnir_rules::{
    money::{format_e4, format_fixed, format_price},
    order as rules,
};
use fafnir_services::platform::clock::{date, rfc3339};
use serde_json::{Value, json};

/// Who the session or the key is, and what it may do.
pub async fn whoami(global: &Global, at: &Where, out: Out) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let request = client.request(Empty {});
    let who = client.terminal.whoami(request).await?.into_inner();
    let document = json!({
        "userId": who.user_id, "email": who.email, "firstName": who.first_name, "lastName": who.last_name,
        "permissions": who.permissions, "url": client.url,
    });
    out.data(&document, || {
        let rows = [
            ("user", who.user_id),
            ("e-mail", who.email),
            ("name", format!("{} {}", who.first_name, who.last_name)),
            ("may", who.permissions.join(", ")),
            ("at", client.url),
        ];
        table(&["WHO", ""], &rows.map(|(name, value)| vec![name.to_owned(), value]))
    });
    Ok(())
}

pub async fn search(global: &Global, args: &Search, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(SearchRequest { query: args.query.clone(), limit: args.limit });
    let found = client.terminal.search(request).await?.into_inner().instruments;
    out.data(&json!(found.iter().map(instrument_json).collect::<Vec<_>>()), || {
        if found.is_empty() { "nothing found\n".to_owned() } else { instruments_table(&found) }
    });
    Ok(())
}

/// The listing of a symbol, in any case.
pub async fn listed(client: &mut Client, symbol: &str) -> Result<v1::Instrument> {
    let symbol = symbol.trim().to_uppercase();
    let request = client.request(Empty {});
    let all = client.terminal.instruments(request).await?.into_inner().instruments;
    all.into_iter().find(|i| i.symbol == symbol).ok_or_else(|| {
        Error::new(Exit::Precondition, format!("symbol {symbol} is not listed"))
            .code(Reason::UNKNOWN_SYMBOL)
            .hint("`fafnir search` looks for one by its name")
    })
}

pub async fn instrument(global: &Global, args: &InstrumentOf, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let found = listed(&mut client, &args.symbol).await?;
    out.data(&instrument_json(&found), || {
        let row = |(name, value): (&str, String)| vec![name.to_owned(), value];
        let rows = [
            ("name", found.name.clone()),
            ("exchange", format!("{} ({})", found.exchange_full_name, found.exchange)),
            ("currency", found.currency.clone()),
            ("tick", format_e4(found.tick_e4)),
            ("lot", format_e4(found.lot_e4)),
            ("state", found.trading_state().name().to_lowercase()),
            ("previous close", format_price(found.previous_close_e4)),
            ("volatility band", format!("{} bps", found.volatility_band_bps)),
            ("sector", format!("{}, {}", found.sector, found.industry)),
            ("country", found.country.clone()),
            ("website", found.website.clone()),
        ];
        table(&[&found.symbol, ""], &rows.map(row))
    });
    Ok(())
}

fn instruments_table(found: &[v1::Instrument]) -> String {
    let rows: Vec<_> = found
        .iter()
        .map(|i| {
            vec![
                i.symbol.clone(),
                i.name.clone(),
                i.exchange.clone(),
                i.currency.clone(),
                format_price(i.previous_close_e4),
            ]
        })
        .collect();
    table(&["SYMBOL", "NAME", "EXCHANGE", "CURRENCY", ">PREVIOUS CLOSE"], &rows)
}

fn instrument_json(i: &v1::Instrument) -> Value {
    json!({
        "symbol": i.symbol, "name": i.name, "exchange": i.exchange, "exchangeFullName": i.exchange_full_name,
        "type": i.r#type().as_str_name().trim_start_matches("INSTRUMENT_TYPE_"), "currency": i.currency,
        "tick": format_e4(i.tick_e4), "lot": format_e4(i.lot_e4), "state": i.trading_state().name(),
        "previousClose": format_e4(i.previous_close_e4), "sharesOutstanding": i.shares_outstanding,
        "sector": i.sector, "industry": i.industry, "description": i.description, "country": i.country,
        "website": i.website, "volatilityBandBps": i.volatility_band_bps, "version": i.version,
    })
}

pub async fn trades(global: &Global, args: &Trades, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(TradesRequest {
        symbol: args.symbol.to_uppercase(),
        after_trade_no: args.after.unwrap_or(0),
        limit: args.limit,
        latest: args.after.is_none(),
    });
    let trades = client.terminal.trades(request).await?.into_inner().trades;
    if trades.is_empty() {
        listed(&mut client, &args.symbol).await?;
    }
    out.data(&json!(trades.iter().map(trade_json).collect::<Vec<_>>()), || {
        let row = |t: &v1::Trade| {
            let (number, side) = (t.trade_no.to_string(), aggressor(t).unwrap_or("auction").to_owned());
            vec![number, rfc3339(t.time_us), side, format_e4(t.quantity_e4), format_price(t.price_e4)]
        };
        let rows: Vec<_> = trades.iter().map(row).collect();
        table(&[">TRADE", "TIME", "AGGRESSOR", ">QUANTITY", ">PRICE"], &rows)
    });
    Ok(())
}

/// Who took; nobody did in an auction.
fn aggressor(trade: &v1::Trade) -> Option<&'static str> {
    trade.aggressor().known().map(rules::Side::name)
}

pub fn trade_json(t: &v1::Trade) -> Value {
    json!({
        "symbol": t.symbol, "tradeNo": t.trade_no, "execId": t.exec_id, "price": format_e4(t.price_e4),
        "quantity": format_e4(t.quantity_e4), "aggressor": aggressor(t), "time": rfc3339(t.time_us),
    })
}

pub async fn candles(global: &Global, args: &Candles, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(CandlesRequest {
        symbol: args.symbol.to_uppercase(),
        interval: args.interval.clone(),
        limit: args.limit,
        ..CandlesRequest::default()
    });
    let bars = client.terminal.candles(request).await?.into_inner().candles;
    let document: Vec<_> = bars
        .iter()
        .map(|b| {
            json!({
                "time": rfc3339(b.time_us), "open": format_e4(b.open_e4), "high": format_e4(b.high_e4),
                "low": format_e4(b.low_e4), "close": format_e4(b.close_e4), "volume": format_e4(b.volume_e4),
            })
        })
        .collect();
    out.data(&json!(document), || {
        let row = |b: &v1::Candle| {
            let prices = [b.open_e4, b.high_e4, b.low_e4, b.close_e4].map(format_price);
            std::iter::once(rfc3339(b.time_us)).chain(prices).chain([format_e4(b.volume_e4)]).collect()
        };
        let rows: Vec<Vec<String>> = bars.iter().map(row).collect();
        table(&["TIME", ">OPEN", ">HIGH", ">LOW", ">CLOSE", ">VOLUME"], &rows)
    });
    Ok(())
}

/// What a year of days says of a symbol.
pub async fn statistics(global: &Global, args: &InstrumentOf, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(SymbolRequest { symbol: args.symbol.to_uppercase() });
    let s = client.terminal.statistics(request).await?.into_inner();
    let percent = |bps: Option<i64>| bps.map(|bps| format_fixed(bps, 2, 2));
    let number = |e4: Option<i64>| e4.map(format_e4);
    let price = |e4: i64| (e4 > 0).then(|| format_e4(e4));
    let day = |e4: i64, us: i64| (e4 > 0).then(|| date(us));
    let document = json!({
        "symbol": s.symbol, "currency": s.currency, "sessions": s.sessions,
        "yearLow": price(s.year_low_e4), "yearLowDate": day(s.year_low_e4, s.year_low_us),
        "yearHigh": price(s.year_high_e4), "yearHighDate": day(s.year_high_e4, s.year_high_us),
        "yearChangePercent": percent(s.year_change_bps), "averageVolume10": number(s.volume_short_e4),
        "averageVolume63": number(s.volume_long_e4), "volatilityPercent": percent(s.volatility_bps),
        "index": Some(&s.index).filter(|index| !index.is_empty()), "beta": number(s.beta_e4),
    });
    out.data(&document, || {
        let dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let dated = |e4, us| day(e4, us).map(|day| format!("{} on {day}", format_price(e4)));
        let of_percent = |bps| percent(bps).map(|text| format!("{text} %"));
        let beta = s.beta_e4.map(|e4| format!("{} to {}", format_price(e4), s.index));
        let rows = [
            ("52 weeks low", dated(s.year_low_e4, s.year_low_us)),
            ("52 weeks high", dated(s.year_high_e4, s.year_high_us)),
            ("52 weeks change", of_percent(s.year_change_bps)),
            ("volume, mean of 10 days", number(s.volume_short_e4)),
            ("volume, mean of 63 days", number(s.volume_long_e4)),
            ("volatility, a year", of_percent(s.volatility_bps)),
            ("beta", beta),
            ("days that traded", Some(s.sessions.to_string())),
        ];
        table(&[&s.symbol, ""], &rows.map(|(name, value)| vec![name.to_owned(), dash(value)]))
    });
    Ok(())
}

/// What was traded at each price today, highest price first.
pub async fn volume(global: &Global, args: &VolumeOf, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(SymbolRequest { symbol: args.symbol.to_uppercase() });
    let reply = client.terminal.volume_at_price(request).await?.into_inner();
    let day = date(reply.day_us);
    let levels: Vec<_> = reply
        .levels
        .iter()
        .rev()
        .map(|l| json!({"price": format_e4(l.price_e4), "volume": format_e4(l.volume_e4)}))
        .collect();
    let document =
        json!({"symbol": reply.symbol, "day": day, "lastTradeNo": reply.last_trade_no, "levels": levels});
    out.data(&document, || {
        let row = |l: &v1::PriceVolume| vec![format_price(l.price_e4), format_e4(l.volume_e4)];
        let rows: Vec<_> = reply.levels.iter().rev().map(row).collect();
        format!("{} on {day} UTC\n{}", reply.symbol, table(&[">PRICE", ">VOLUME"], &rows))
    });
    Ok(())
}

pub async fn fills(global: &Global, args: &Fills, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(ListFillsRequest {
        symbol: args.symbol.clone().unwrap_or_default().to_uppercase(),
        limit: args.limit,
        ..ListFillsRequest::default()
    });
    let fills = client.terminal.fills(request).await?.into_inner().fills;
    out.data(&json!(fills.iter().map(fill_json).collect::<Vec<_>>()), || {
        let row = |f: &v1::Fill| {
            let role = if f.maker { "maker" } else { "taker" };
            let mut row = vec![rfc3339(f.time_us), f.symbol.clone(), f.side().name().to_owned()];
            row.extend([format_e4(f.quantity_e4), format_price(f.price_e4), role.to_owned()]);
            row.push(f.order_id.clone());
            row
        };
        let rows: Vec<_> = fills.iter().map(row).collect();
        table(&["TIME", "SYMBOL", "SIDE", ">QUANTITY", ">PRICE", "ROLE", "ORDER"], &rows)
    });
    Ok(())
}

pub fn fill_json(f: &v1::Fill) -> Value {
    json!({
        "execId": f.exec_id, "orderId": f.order_id, "symbol": f.symbol, "side": f.side().name(),
        "price": format_e4(f.price_e4), "quantity": format_e4(f.quantity_e4), "maker": f.maker,
        "time": rfc3339(f.time_us),
    })
}
