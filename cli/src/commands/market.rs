//! `fafnir book`, `quote` and `history`.

use crate::{
    args::{Book, Global, History, Quote as Args},
    client::Client,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{BookImage, BookRequest, HistoryRequest, Level, Quote, QuotesRequest, TradingState},
};
use fafnir_rules::money::{format_e4, format_fixed, format_price};
use fafnir_services::platform::clock::{date, rfc3339};
use serde_json::{Value, json};

pub async fn book(global: &Global, args: &Book, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(BookRequest { symbol: args.symbol.to_uppercase(), depth: args.depth });
    let book = client.terminal.book(request).await?.into_inner();
    out.data(&book_json(&book), || {
        let cell = |l: Option<&Level>| match l {
            Some(l) => (format_e4(l.quantity_e4), format_price(l.price_e4)),
            None => (String::new(), String::new()),
        };
        let rows: Vec<_> = (0..book.bids.len().max(book.asks.len()))
            .map(|i| {
                let ((bid_qty, bid), (ask_qty, ask)) = (cell(book.bids.get(i)), cell(book.asks.get(i)));
                vec![bid_qty, bid, ask, ask_qty]
            })
            .collect();
        let last = format_price(book.last_price_e4);
        let levels = table(&[">QUANTITY", ">BID", ">ASK", ">QUANTITY"], &rows);
        format!("{} last {last}\n{levels}", book.symbol)
    });
    Ok(())
}

pub fn book_json(book: &BookImage) -> Value {
    let levels = |side: &[Level]| -> Vec<_> {
        let level = |l: &Level| json!({"price": format_e4(l.price_e4), "quantity": format_e4(l.quantity_e4), "orders": l.orders});
        side.iter().map(level).collect()
    };
    json!({
        "symbol": book.symbol, "sequence": book.book_seq, "time": rfc3339(book.time_us),
        "last": format_e4(book.last_price_e4), "bids": levels(&book.bids), "asks": levels(&book.asks),
    })
}

pub fn quote_json(q: &Quote) -> Value {
    json!({
        "symbol": q.symbol, "currency": q.currency, "price": format_e4(q.price_e4),
        "bid": format_e4(q.bid_e4), "bidQuantity": format_e4(q.bid_quantity_e4),
        "ask": format_e4(q.ask_e4), "askQuantity": format_e4(q.ask_quantity_e4), "open": format_e4(q.open_e4),
        "previousClose": format_e4(q.previous_close_e4), "dayLow": format_e4(q.day_low_e4),
        "dayHigh": format_e4(q.day_high_e4), "yearLow": format_e4(q.year_low_e4),
        "yearHigh": format_e4(q.year_high_e4), "volume": format_e4(q.volume_e4),
        "marketCap": q.market_cap_units, "asOf": rfc3339(q.as_of_us), "marketState": q.state().name(),
    })
}

pub async fn quote(global: &Global, args: &Args, out: Out) -> Result {
    let mut client = Client::signed_in(global, &Clone::clone(&args.at)).await?;
    let symbols: Vec<String> = args.symbols.iter().map(|s| s.to_uppercase()).collect();
    let request = client.request(QuotesRequest { symbols: symbols.clone() });
    let quotes = client.terminal.quotes(request).await?.into_inner().quotes;
    let document: Vec<_> = quotes.iter().map(quote_json).collect();
    let missing: Vec<_> =
        symbols.iter().filter(|s| !quotes.iter().any(|q| q.symbol == **s)).cloned().collect();
    let unlisted = Error::new(Exit::Precondition, format!("symbol {} is not listed", missing.join(", ")))
        .code(Reason::UNKNOWN_SYMBOL);
    if quotes.is_empty() && !missing.is_empty() {
        return Err(unlisted);
    }
    out.data(&json!(document), || {
        let rows: Vec<_> = quotes
            .iter()
            .map(|q| {
                let state = match q.state() {
                    TradingState::Open | TradingState::Unspecified => "",
                    state => state.name(),
                };
                vec![
                    q.symbol.clone(),
                    format_price(q.price_e4),
                    change(q.price_e4, q.previous_close_e4),
                    format_price(q.bid_e4),
                    format_price(q.ask_e4),
                    format_e4(q.volume_e4),
                    q.currency.clone(),
                    state.to_lowercase(),
                ]
            })
            .collect();
        table(&["SYMBOL", ">LAST", ">CHANGE", ">BID", ">ASK", ">VOLUME", "CURRENCY", ""], &rows)
    });
    if missing.is_empty() { Ok(()) } else { Err(unlisted) }
}

/// Change to the previous close in percent with two decimals, `+1.24%`.
fn change(price: i64, previous: i64) -> String {
    if previous <= 0 {
        return "-".to_owned();
    }
    // To the nearest hundredth, a half away from zero.
    let (twice, base) = (i128::from(price - previous) * 20_000, i128::from(previous));
    let hundredths = (twice + base * twice.signum()) / (2 * base);
    let text = format_fixed(i64::try_from(hundredths.abs()).unwrap_or(i64::MAX), 2, 2);
    if twice < 0 { format!("-{text}%") } else { format!("+{text}%") }
}

pub async fn history(global: &Global, args: &History, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request =
        client.request(HistoryRequest { symbol: args.symbol.to_uppercase(), period: args.period.clone() });
    let bars = client.terminal.history(request).await?.into_inner().candles;
    let document: Vec<_> = bars
        .iter()
        .map(|b| {
            json!({"date": date(b.time_us), "open": format_e4(b.open_e4), "high": format_e4(b.high_e4), "low": format_e4(b.low_e4), "close": format_e4(b.close_e4), "volume": format_e4(b.volume_e4)})
        })
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = bars
            .iter()
            .map(|b| {
                vec![
                    date(b.time_us),
                    format_price(b.open_e4),
                    format_price(b.high_e4),
                    format_price(b.low_e4),
                    format_price(b.close_e4),
                    format_e4(b.volume_e4),
                ]
            })
            .collect();
        table(&["DATE", ">OPEN", ">HIGH", ">LOW", ">CLOSE", ">VOLUME"], &rows)
    });
    Ok(())
}
