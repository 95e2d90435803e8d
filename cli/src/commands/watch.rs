//! `fafnir watch`: what changes, one JSON document on a line, over the connections that the terminal has.

use super::{
    account::account_json,
    look::{fill_json, trade_json},
    market::{book_json, quote_json},
    order::{order_json, order_line},
};
use crate::{
    args::{Global, Watch, WatchHow, WatchWhat, Where},
    client::{Client, Store, gateway},
    output::{Error, Exit, Out, Result},
};
use fafnir_proto::v1::{self, private_update::Kind};
use fafnir_rules::money::{format_e4, format_micros};
use fafnir_services::platform::clock::rfc3339;
use fafnir_tui::{
    backend::{
        Backend as _,
        live::{Keeps, Live},
    },
    model::feed::Link,
    msg::{Cmd, Event},
};
use serde_json::{Value, json};
use std::sync::Arc;

pub async fn watch(global: &Global, args: &Watch, out: Out) -> Result {
    let upper = |symbols: &[String]| symbols.iter().map(|s| s.to_uppercase()).collect::<Vec<_>>();
    match &args.what {
        WatchWhat::Quotes { how, symbols } => {
            let quotes = upper(symbols);
            listed(global, &how.at, &quotes).await?;
            let cmd = Cmd::Follow { symbol: String::new(), quotes };
            follow(global, how, Some(cmd), |event| lines(quotes_of(event)), out).await
        }
        WatchWhat::Book { how, symbol } => {
            let symbol = symbol.to_uppercase();
            listed(global, &how.at, std::slice::from_ref(&symbol)).await?;
            follow(global, how, Some(Cmd::Follow { symbol, quotes: Vec::new() }), |e| lines(book_of(e)), out)
                .await
        }
        WatchWhat::Trades { how, symbol } => {
            let symbol = symbol.to_uppercase();
            listed(global, &how.at, std::slice::from_ref(&symbol)).await?;
            follow(
                global,
                how,
                Some(Cmd::Follow { symbol, quotes: Vec::new() }),
                |e| lines(trades_of(e)),
                out,
            )
            .await
        }
        WatchWhat::Orders(how) => orders(global, how, out).await,
        WatchWhat::Portfolio(how) => follow(global, how, None, |e| lines(portfolio_of(e)), out).await,
    }
}

/// The caller's orders and their fills.
pub async fn orders(global: &Global, how: &WatchHow, out: Out) -> Result {
    follow(global, how, None, |event| lines(orders_of(event)), out).await
}

/// One order from what it is now until it has ended.
pub async fn order(global: &Global, how: &WatchHow, now: v1::Order, out: Out) -> Result {
    let line = move |o: &v1::Order| {
        if out.json { format!("{}\n", order_json(o)) } else { order_line(o) }
    };
    out.raw(&line(&now));
    let how = WatchHow { at: how.at.clone(), count: how.count.map(|n| n - 1) };
    if now.state().has_ended() || how.count == Some(0) {
        return Ok(());
    }
    let (id, mut last) = (now.id.clone(), now);
    let news = move |event: Event| {
        let orders = match event {
            Event::Orders { orders, .. } => orders,
            Event::Private(v1::PrivateUpdate { kind: Some(Kind::Order(update)), .. }) => {
                update.order.into_iter().collect()
            }
            _ => Vec::new(),
        };
        let mut shown = Lines::default();
        for order in orders.into_iter().filter(|o| o.id == id) {
            let seen = |o: &v1::Order| (o.updated_us, o.state, o.filled_e4, o.version, o.pending);
            if order.updated_us >= last.updated_us && seen(&order) != seen(&last) {
                shown.texts.push(line(&order));
                shown.is_over = order.state().has_ended();
                last = order;
            }
        }
        shown
    };
    follow(global, &how, None, news, out).await
}

/// What an event is worth printing.
#[derive(Default)]
struct Lines {
    texts: Vec<String>,
    /// Nothing more comes.
    is_over: bool,
}

fn lines(documents: Vec<Value>) -> Lines {
    let texts = documents.iter().map(|document| format!("{document}\n")).collect();
    Lines { texts, is_over: false }
}

/// A symbol that is not listed would be waited for without an end.
async fn listed(global: &Global, at: &Where, symbols: &[String]) -> Result {
    let mut client = Client::signed_in(global, at).await?;
    let request = client.request(v1::QuotesRequest { symbols: symbols.to_vec() });
    let quotes = client.terminal.quotes(request).await?.into_inner().quotes;
    match symbols.iter().find(|s| !quotes.iter().any(|q| q.symbol == **s)) {
        None => Ok(()),
        Some(symbol) => Err(Error::new(Exit::Precondition, format!("symbol {symbol} is not listed"))
            .code(fafnir_proto::reason::Reason::UNKNOWN_SYMBOL)),
    }
}

/// Prints what `news` finds in each event until it is enough.
async fn follow(
    global: &Global,
    how: &WatchHow,
    cmd: Option<Cmd>,
    mut news: impl FnMut(Event) -> Lines,
    out: Out,
) -> Result {
    let gateway = gateway(global, &how.at)?;
    let url = gateway.url.clone();
    let mut client = Client::new(&gateway)?;
    let session = match client.key_session(&how.at).await? {
        Some(session) => session,
        None => client.session().await?.session(),
    };
    let store = Some(Arc::new(Store { url: url.clone() }) as Arc<dyn fafnir_tui::SessionStore>);
    let failed = |e| Error::usage(format!("{url:?} is not an address: {e}"));
    let keeps = Keeps { sessions: store, memory: None };
    let mut live = Live::secured(&url, &gateway.tls, Some(session), keeps).map_err(failed)?;
    if let Some(cmd) = cmd {
        live.submit(cmd);
    }
    let mut left = how.count.unwrap_or(u64::MAX);
    let ended = loop {
        let event = tokio::select! {
            event = live.next() => event,
            _ = tokio::signal::ctrl_c() => break Err(Error::new(Exit::Interrupted, "interrupted")),
        };
        let event = match event {
            None => break Err(Error::new(Exit::Failure, "the connection's task ended")),
            Some(Event::SignedOut(why)) => {
                break Err(Error::new(Exit::SignIn, why).hint("sign in with `fafnir login`"));
            }
            Some(Event::Link(wire, Link::Down, why)) => {
                out.note(format_args!("{} is disconnected: {why}; trying again", wire.name()));
                continue;
            }
            Some(event) => event,
        };
        let found = news(event);
        for text in found.texts {
            if left > 0 {
                out.raw(&text);
                left -= 1;
            }
        }
        if left == 0 || found.is_over || out.is_closed() {
            break Ok(());
        }
    };
    live.shutdown().await;
    ended
}

fn quotes_of(event: Event) -> Vec<Value> {
    match event {
        Event::Quotes(quotes) => quotes.iter().map(quote_json).collect(),
        _ => Vec::new(),
    }
}

fn book_of(event: Event) -> Vec<Value> {
    match event {
        Event::Book { image, .. } => vec![book_json(&image)],
        _ => Vec::new(),
    }
}

fn trades_of(event: Event) -> Vec<Value> {
    match event {
        Event::Trades { trades, .. } => trades.iter().map(trade_json).collect(),
        _ => Vec::new(),
    }
}

fn orders_of(event: Event) -> Vec<Value> {
    match event {
        Event::Private(v1::PrivateUpdate { kind: Some(Kind::Order(update)), .. }) => vec![json!({
            "sequence": update.user_seq, "order": update.order.as_ref().map(order_json),
            "fill": update.fill.as_ref().map(fill_json),
        })],
        _ => Vec::new(),
    }
}

fn portfolio_of(event: Event) -> Vec<Value> {
    let holding = |h: &v1::Holding| {
        json!({
            "accountId": h.account_id, "symbol": h.symbol, "quantity": format_e4(h.quantity_e4),
            "held": format_e4(h.held_e4), "averageCost": format_micros(h.avg_cost_micros),
            "realizedPnl": format_micros(h.realized_pnl_micros), "updatedAt": rfc3339(h.updated_us),
        })
    };
    match event {
        Event::Private(v1::PrivateUpdate { kind: Some(Kind::Portfolio(update)), .. }) => vec![json!({
            "sequence": update.user_seq, "account": update.account.as_ref().map(account_json),
            "holding": update.holding.as_ref().map(holding),
        })],
        _ => Vec::new(),
    }
}
