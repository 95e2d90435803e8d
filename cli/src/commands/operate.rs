//! `fafnir market`: what operators do with a market, through the gateway and by their permission.

use super::{look, scenario};
use crate::{
    args::{Global, Market, MarketCommand, MarketState, RecordingAction},
    client::{Client, ids},
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::reason::Reason;
use fafnir_proto::v1::{
    DepthReply, DepthRequest, Level, News, PlaybackAction, PlaybackReply, PlaybackRequest,
    QueuePositionReply, QueuePositionRequest, QueuedOrder, SetTradingStateRequest, SetVolatilityBandRequest,
    SymbolOrdersRequest, TradingState,
};
use fafnir_rules::{
    limits::NEWS_BPS,
    money::{format_e4, format_fixed, format_price, parse_scaled},
};
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};

pub async fn market(global: &Global, args: &MarketCommand, out: Out) -> Result {
    if let Market::Play { scenario, symbol } = &args.what {
        return scenario::play(global, &args.at, scenario, symbol.as_deref(), out).await;
    }
    let mut client = Client::signed_in(global, &args.at).await?;
    match &args.what {
        Market::State { symbol, state } => {
            let request =
                SetTradingStateRequest { symbol: symbol.to_uppercase(), state: state_of(*state).into() };
            let sent = client.request(request);
            let changed = client.terminal.set_trading_state(sent).await?.into_inner();
            let document = json!({"symbol": changed.symbol, "state": name(changed.state())});
            out.data(&document, || format!("{} is {}\n", changed.symbol, name(changed.state())));
        }
        Market::Volatility { symbol, bps, off: _ } => {
            let request = SetVolatilityBandRequest {
                symbol: symbol.to_uppercase(),
                volatility_band_bps: bps.unwrap_or(0),
            };
            let sent = client.request(request);
            let changed = client.terminal.set_volatility_band(sent).await?.into_inner();
            let bps = changed.volatility_band_bps;
            out.data(&json!({"symbol": changed.symbol, "volatilityBandBps": bps}), || match bps {
                0 => format!("{} has no volatility band\n", changed.symbol),
                _ => format!("{} pauses before a trade beyond {bps} bp of its reference\n", changed.symbol),
            });
        }
        Market::Play { .. } => {}
        Market::News { symbol, change, halt } => {
            let change_bps =
                change_bps(change).map_err(|e| Error::new(Exit::Usage, e).code(Reason::NEWS_OUT_OF_RANGE))?;
            let symbol = symbol.to_uppercase();
            if let Some(halt_s) = halt {
                return scenario::halt_for_news(&mut client, &symbol, change_bps, *halt_s, out).await;
            }
            let request = News { symbol: symbol.clone(), change_bps, time_us: 0 };
            let sent = client.request(request);
            client.terminal.publish_news(sent).await?;
            let document = json!({"symbol": symbol, "changeBps": change_bps});
            out.data(&document, || format!("the simulated market hears of {symbol}: {change_bps:+} bp\n"));
        }
        Market::Recording { action, number } => {
            let request = playback(*action, number.as_deref())
                .map_err(|e| Error::new(Exit::Usage, e).code(Reason::PLAYBACK_OUT_OF_RANGE))?;
            let sent = client.request(request);
            recording(&client.terminal.playback(sent).await?.into_inner(), out);
        }
        Market::Cancel { symbol } => {
            let symbol = look::listed(&mut client, symbol).await?.symbol;
            let request = SymbolOrdersRequest { symbol };
            let sent = client.request(request);
            let requested = client.terminal.cancel_symbol(sent).await?.into_inner().requested;
            out.data(&json!({"requested": requested}), || format!("{requested} cancels requested\n"));
        }
        Market::Show { symbol, levels, orders } => {
            let symbol = symbol.to_uppercase();
            let request = DepthRequest { symbol: symbol.clone(), levels: *levels, orders: *orders };
            let sent = client.request(request);
            let depth = client.terminal.depth(sent).await?.into_inner();
            out.data(&document(&symbol, &depth), || text(&symbol, &depth));
        }
        Market::Queue { order } => {
            let request = QueuePositionRequest { order_id: ids::order(&mut client, order).await? };
            let sent = client.request(request);
            let at = client.terminal.queue_position(sent).await?.into_inner();
            queue(&at, out);
        }
    }
    Ok(())
}

/// What is asked of a recorded market.
fn playback(
    action: Option<RecordingAction>,
    number: Option<&str>,
) -> std::result::Result<PlaybackRequest, String> {
    let of = |action: PlaybackAction| PlaybackRequest { action: action.into(), ..Default::default() };
    match (action, number) {
        (None, _) => Ok(of(PlaybackAction::Unspecified)),
        (Some(RecordingAction::Step), number) => {
            let steps = number.unwrap_or("1");
            let steps =
                steps.parse().map_err(|_| format!("NUMBER must be a number of steps, not {steps:?}"))?;
            Ok(PlaybackRequest { steps, ..of(PlaybackAction::Step) })
        }
        (Some(RecordingAction::Speed), number) => {
            let text = number.ok_or("NUMBER is missing: how fast?")?;
            let speed = parse_scaled(text, 3).ok().and_then(|speed| u32::try_from(speed).ok());
            let speed_milli = speed.ok_or_else(|| format!("NUMBER must be 0.01 to 1000, not {text:?}"))?;
            Ok(PlaybackRequest { speed_milli, ..of(PlaybackAction::Speed) })
        }
        (Some(action), Some(_)) => Err(format!("{} has no NUMBER", format!("{action:?}").to_lowercase())),
        (Some(RecordingAction::Pause), None) => Ok(of(PlaybackAction::Pause)),
        (Some(RecordingAction::Resume), None) => Ok(of(PlaybackAction::Resume)),
    }
}

/// Prints how far a recorded market is.
fn recording(at: &PlaybackReply, out: Out) {
    let (time, speed) = (rfc3339(at.at_us), format_fixed(i64::from(at.speed_milli), 3, 0));
    let document = json!({
        "symbol": at.symbol, "paused": at.paused, "speed": speed, "at": time, "done": at.done, "steps": at.steps,
        "refused": at.refused,
    });
    let does = match at.paused {
        _ if at.done == at.steps => "has been played".to_owned(),
        true => format!("is paused at {time}"),
        false => format!("is at {time}, {speed} times as fast"),
    };
    out.data(&document, || {
        format!("{} {does}: {} of {} steps, {} refused\n", at.symbol, at.done, at.steps, at.refused)
    });
}

/// Prints what is before an order.
fn queue(at: &QueuePositionReply, out: Out) {
    let document = json!({
        "symbol": at.symbol, "ordersAhead": at.orders_ahead,
        "quantityAhead": format_e4(at.quantity_ahead_e4), "quantityBetter": format_e4(at.quantity_better_e4),
    });
    out.data(&document, || {
        format!(
            "{}: {} orders of {} before it at its price, {} at better prices\n",
            at.symbol,
            at.orders_ahead,
            format_e4(at.quantity_ahead_e4),
            format_e4(at.quantity_better_e4)
        )
    });
}

/// A change in percent, as basis points.
pub(super) fn change_bps(text: &str) -> std::result::Result<i32, String> {
    let bps = parse_scaled(text.trim_end_matches('%'), 2).ok().and_then(|bps| i32::try_from(bps).ok());
    bps.filter(|bps| *bps != 0 && NEWS_BPS.contains(bps)).ok_or_else(|| {
        let (low, high) = (NEWS_BPS.start() / 100, NEWS_BPS.end() / 100);
        format!("PERCENT must be {low} to {high}, with two decimals at most, and not 0; it is {text:?}")
    })
}

pub(super) fn state_of(state: MarketState) -> TradingState {
    match state {
        MarketState::Open => TradingState::Open,
        MarketState::Halted => TradingState::Halted,
        MarketState::Closed => TradingState::Closed,
        MarketState::PreOpen => TradingState::PreOpen,
        MarketState::Auction => TradingState::Auction,
    }
}

fn name(state: TradingState) -> &'static str {
    match state {
        TradingState::Unspecified => "OPEN",
        known => known.name(),
    }
}

fn document(symbol: &str, depth: &DepthReply) -> Value {
    let levels = |side: &[Level]| {
        let level = |l: &Level| json!({"price": format_e4(l.price_e4), "quantity": format_e4(l.quantity_e4), "orders": l.orders});
        side.iter().map(level).collect::<Vec<_>>()
    };
    let orders = |side: &[QueuedOrder]| {
        let order = |o: &QueuedOrder| {
            json!({
                "orderId": o.order_id, "userId": o.user_id, "price": format_e4(o.price_e4),
                "shown": format_e4(o.shown_e4), "open": format_e4(o.open_e4), "filled": format_e4(o.filled_e4),
                "version": o.version,
            })
        };
        side.iter().map(order).collect::<Vec<_>>()
    };
    let indicative = (depth.indicative_quantity_e4 != 0).then(|| {
        json!({
            "price": format_e4(depth.indicative_price_e4), "quantity": format_e4(depth.indicative_quantity_e4),
            "surplus": format_e4(depth.indicative_surplus_e4),
        })
    });
    let band = (depth.band_high_e4 != 0)
        .then(|| json!({"low": format_e4(depth.band_low_e4), "high": format_e4(depth.band_high_e4)}));
    let paused = (depth.paused_us != 0).then(|| rfc3339(depth.paused_us));
    let until = (depth.paused_us != 0).then(|| rfc3339(depth.pause_until_us));
    json!({
        "symbol": symbol, "state": name(depth.state()), "volatilityBand": band, "pausedSince": paused,
        "pauseUntil": until, "pauseExtended": depth.pause_extended,
        "indicative": indicative,
        "bids": levels(&depth.bids), "asks": levels(&depth.asks),
        "bidOrders": orders(&depth.bid_orders), "askOrders": orders(&depth.ask_orders),
    })
}

fn text(symbol: &str, depth: &DepthReply) -> String {
    let mut text = format!("{symbol} {}\n", name(depth.state()));
    if depth.paused_us != 0 {
        let (since, until) = (rfc3339(depth.paused_us), rfc3339(depth.pause_until_us));
        let extended = if depth.pause_extended { ", once extended" } else { "" };
        text.push_str(&format!("in a volatility pause since {since}, until soon after {until}{extended}\n"));
    }
    if depth.band_high_e4 != 0 {
        let (low, high) = (format_price(depth.band_low_e4), format_price(depth.band_high_e4));
        text.push_str(&format!("trades outside {low} to {high} pause it\n"));
    }
    if depth.indicative_quantity_e4 != 0 {
        text.push_str(&format!(
            "the auction would trade {} at {}, surplus {}\n",
            format_e4(depth.indicative_quantity_e4),
            format_price(depth.indicative_price_e4),
            format_e4(depth.indicative_surplus_e4)
        ));
    }
    for (side, levels, orders) in
        [("BID", &depth.bids, &depth.bid_orders), ("ASK", &depth.asks, &depth.ask_orders)]
    {
        let rows: Vec<_> = levels
            .iter()
            .map(|l| vec![format_price(l.price_e4), format_e4(l.quantity_e4), l.orders.to_string()])
            .collect();
        let title = format!(">{side}");
        text.push_str(&format!("\n{}", table(&[&title, ">QUANTITY", ">ORDERS"], &rows)));
        let rows: Vec<_> = orders
            .iter()
            .map(|o| {
                let mut row = vec![o.order_id.clone(), o.user_id.clone(), format_price(o.price_e4)];
                row.extend([o.shown_e4, o.open_e4, o.filled_e4].map(format_e4));
                row
            })
            .collect();
        let header = [&format!("{side} ORDER"), "USER", ">PRICE", ">SHOWN", ">OPEN", ">FILLED"];
        text.push_str(&table(&header, &rows));
    }
    text
}
