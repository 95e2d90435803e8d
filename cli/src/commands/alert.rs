//! `fafnir alert`: what the terminal rings at, and the same without a terminal.

use crate::{
    args::{Alert, AlertOf, Global, Where},
    client::{Client, gateway},
    memory::Files,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{Empty, QuotesRequest},
};
use fafnir_tui::{
    Memory as _, Remembered, Session, Theme,
    backend::{
        Backend as _,
        live::{Keeps, Live},
    },
    model::{
        Ids, Model,
        alert::{ALERTS_MAX, Alert as Watched, Trigger},
        feed::Link,
    },
    msg::{Cmd, Event, Msg},
    update::{update, wake_us},
};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// The model is told the time at least so often.
const WAKE_US_MAX: i64 = 60_000_000;

pub async fn alert(global: &Global, command: &Alert, out: Out) -> Result {
    match command {
        Alert::List(at) => {
            let (_, kept) = kept(global, at).await?;
            list(&kept.alerts, out);
            Ok(())
        }
        Alert::Add(of) => add(global, of, out).await,
        Alert::Remove { at, symbol, when } => remove(global, at, symbol, when, out).await,
        Alert::Wait { of, timeout } => wait(global, of, *timeout, out).await,
    }
}

/// The user, and what is kept of its terminals.
async fn kept(global: &Global, at: &Where) -> Result<(String, Remembered)> {
    let mut client = Client::signed_in(global, at).await?;
    let request = client.request(Empty {});
    let user_id = client.terminal.whoami(request).await?.into_inner().user_id;
    let kept = Files.recall(&user_id).unwrap_or_default();
    Ok((user_id, kept))
}

/// What is to be watched, of a symbol that is listed; a bare price is above or below by where the price is now.
async fn watched(global: &Global, of: &AlertOf) -> Result<Watched> {
    let symbol = of.symbol.to_uppercase();
    let mut client = Client::signed_in(global, &of.at).await?;
    let request = client.request(QuotesRequest { symbols: vec![symbol.clone()] });
    let quote = client.terminal.quotes(request).await?.into_inner().quotes.pop();
    let quote = quote.ok_or_else(|| {
        Error::new(Exit::Precondition, format!("symbol {symbol} is not listed")).code(Reason::UNKNOWN_SYMBOL)
    })?;
    let text = of.when.join(" ");
    let trigger = Trigger::parse(&text, Some(quote.price_e4).filter(|p| *p > 0)).map_err(|why| {
        Error::usage(format!("alert {text:?}: {why}"))
            .hint("an alert is such as \">= 235\", 235, \"spread 0.05\", \"pnl -500\" or \"stale 10\"")
    })?;
    Ok(Watched { symbol, trigger, fired: false })
}

fn document(alert: &Watched) -> Value {
    json!({"symbol": alert.symbol, "when": alert.trigger.to_string(), "fired": alert.fired})
}

fn list(alerts: &[Watched], out: Out) {
    out.data(&json!(alerts.iter().map(document).collect::<Vec<_>>()), || {
        if alerts.is_empty() {
            return "no alerts\n".to_owned();
        }
        let state = |alert: &Watched| if alert.fired { "came" } else { "on" }.to_owned();
        let rows: Vec<_> =
            alerts.iter().map(|a| vec![a.symbol.clone(), a.trigger.to_string(), state(a)]).collect();
        table(&["SYMBOL", "WHEN", "STATE"], &rows)
    });
}

async fn add(global: &Global, of: &AlertOf, out: Out) -> Result {
    let new = watched(global, of).await?;
    let (user_id, before) = kept(global, &of.at).await?;
    let mut now = before.clone();
    now.alerts.retain(|a| !a.is_same(&new));
    if now.alerts.len() >= ALERTS_MAX {
        return Err(Error::new(
            Exit::Precondition,
            format!("there are {ALERTS_MAX} alerts, which is the most"),
        )
        .hint("`fafnir alert remove` takes some away"));
    }
    now.alerts.push(new.clone());
    Files.remember(&user_id, &before, &now)?;
    out.data(&document(&new), || format!("{} {}: the terminal will ring\n", new.symbol, new.trigger));
    Ok(())
}

async fn remove(global: &Global, at: &Where, symbol: &str, when: &[String], out: Out) -> Result {
    let symbol = symbol.to_uppercase();
    let (user_id, before) = kept(global, at).await?;
    let only = match when {
        [] => None,
        words => Some(Trigger::parse(&words.join(" "), None).map_err(Error::usage)?),
    };
    let mut now = before.clone();
    now.alerts.retain(|a| a.symbol != symbol || only.is_some_and(|only| a.trigger != only));
    let removed = before.alerts.len() - now.alerts.len();
    if removed == 0 {
        return Err(Error::new(Exit::Precondition, format!("there is no such alert of {symbol}"))
            .hint("`fafnir alert list` shows them"));
    }
    Files.remember(&user_id, &before, &now)?;
    out.data(&json!({"removed": removed}), || format!("{removed} alerts removed\n"));
    Ok(())
}

/// A terminal without a screen that has this one alert.
async fn wait(global: &Global, of: &AlertOf, timeout: Option<u64>, out: Out) -> Result {
    let alert = watched(global, of).await?;
    let gateway = gateway(global, &of.at)?;
    let mut client = Client::new(&gateway)?;
    let session: Session = match client.key_session(&of.at).await? {
        Some(session) => session,
        None => client.session().await?.session(),
    };
    let failed = |e| Error::usage(format!("{:?} is not an address: {e}", gateway.url));
    let store = crate::client::Store { url: gateway.url.clone() };
    let keeps = Keeps { sessions: Some(std::sync::Arc::new(store)), memory: None };
    let mut live = Live::secured(&gateway.url, &gateway.tls, Some(session), keeps).map_err(failed)?;
    let mut model = Model::new(now_us(), (120, 40), Theme::default(), Ids::new("alert"));
    model.symbol.clone_from(&alert.symbol);
    model.alerts = vec![alert.clone()];
    out.note(format_args!("waiting for {} {}", alert.symbol, alert.trigger));
    let until = timeout.map(|s| Instant::now() + Duration::from_secs(s));
    let ended = loop {
        // What comes by the passing of time alone: a silence, a question whether there is one.
        let rest_us = wake_us(&model).map_or(WAKE_US_MAX, |at| (at - now_us()).clamp(0, WAKE_US_MAX));
        let wake = Duration::from_micros(rest_us.unsigned_abs());
        let event = tokio::select! {
            event = live.next() => Some(event),
            () = tokio::time::sleep(wake) => None,
            _ = tokio::signal::ctrl_c() => break Err(Error::new(Exit::Interrupted, "interrupted")),
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                break Err(Error::new(Exit::Timeout, "it has not come in time").code(Reason::TIMEOUT));
            }
        };
        match &event {
            Some(None) => break Err(Error::new(Exit::Failure, "the connection's task ended")),
            Some(Some(Event::SignedOut(why))) => {
                break Err(Error::new(Exit::SignIn, why.clone()).hint("sign in with `fafnir login`"));
            }
            Some(Some(Event::Link(wire, Link::Down, why))) => {
                out.note(format_args!("{} is disconnected: {why}; trying again", wire.name()));
            }
            Some(Some(_)) | None => {}
        }
        let mut cmds = update(&mut model, Msg::Clock(now_us()));
        if let Some(event) = event.flatten() {
            cmds.extend(update(&mut model, Msg::Backend(event)));
        }
        if model.alerts.iter().any(|a| a.fired) {
            break Ok(());
        }
        cmds.into_iter().filter(|c| !matches!(c, Cmd::Bell)).for_each(|cmd| live.submit(cmd));
    };
    live.shutdown().await;
    ended?;
    let last = model.reference_e4(&alert.symbol).map(fafnir_rules::money::format_e4);
    let came = Watched { fired: true, ..alert };
    let mut document = document(&came);
    document["last"] = json!(last);
    out.data(&document, || {
        format!("{} {}: last {}\n", came.symbol, came.trigger, last.clone().unwrap_or_default())
    });
    Ok(())
}

fn now_us() -> i64 {
    fafnir_services::platform::Clock::wall().now_us()
}
