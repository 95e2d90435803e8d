//! `fafnir order place|group|cancel|replace|flatten|list|show|why|watch`.

use super::{preview, watch};
use crate::{
    args::{
        self, Cancel, Flatten, Global, Group, Order, OrderList, OrderShow, OrderWatch, OrderWhy, Place,
        Replace, WatchHow,
    },
    client::{Client, ids, key_of, keyed},
    output::{Error, Exit, Out, Result, printable, table},
};
use fafnir_proto::{
    reason::{AnyReason, Reason},
    v1::{
        self, CancelAllRequest, CancelGroupRequest, CancelOrderRequest, FlattenRequest, GetOrderRequest,
        ListOrdersRequest, OrderHistoryRequest, OrderState, OrderType, PlaceGroupRequest, PlaceOrderRequest,
        ReplaceOrderRequest, Side, TimeInForce,
    },
};
use fafnir_rules::money::{
    AVERAGE_DECIMALS, E4_DECIMALS, Error as DecimalError, average_price, format_e4, format_micros,
    format_price, format_scaled, parse_e4, parse_micros,
};
use fafnir_rules::order as rules;
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(20);
/// What makes an order that had no answer safe to send again.
const KEY_OPTION: &str = "--client-order-id";

pub async fn order(global: &Global, command: &Order, out: Out) -> Result {
    match command {
        Order::Place(args) => place(global, args, out).await,
        Order::Group(args) => group(global, args, out).await,
        Order::Cancel(args) => cancel(global, args, out).await,
        Order::Replace(args) => replace(global, args, out).await,
        Order::Flatten(args) => flatten(global, args, out).await,
        Order::List(args) => list(global, args, out).await,
        Order::Show(args) => show(global, args, out).await,
        Order::Why(args) => why(global, args, out).await,
        Order::Watch(args) => watch_one(global, args, out).await,
    }
}

/// Reads a decimal option of the command line; the refusal names the field.
fn decimal(field: &str, code: Reason, text: Option<&String>) -> Result<i64> {
    text.map_or(Ok(0), |t| parse_e4(t).map_err(|e| decimal_error(field, code, t, e)))
}

pub fn decimal_error(field: &str, code: Reason, text: &str, e: DecimalError) -> Error {
    Error::new(Exit::Precondition, format!("{field} {text:?} {e}")).code(code)
}

/// Reads a name of the rules; here they are written in small letters, with hyphens.
fn choice<T: Copy + Display>(
    field: &str,
    text: &str,
    all: &[T],
    parse: impl Fn(&str) -> Option<T>,
) -> Result<T> {
    parse(&text.replace('-', "_")).ok_or_else(|| {
        let names: Vec<_> =
            all.iter().map(|value| value.to_string().to_ascii_lowercase().replace('_', "-")).collect();
        Error::usage(format!("{field} {text:?} must be one of {}", names.join(", ")))
    })
}

/// Reads the time at which an order ends.
fn expires_us(text: &str) -> Result<i64> {
    time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
        .ok()
        .and_then(|t| i64::try_from(t.unix_timestamp_nanos() / 1000).ok())
        .ok_or_else(|| Error::usage(format!("expires {text:?} must be a time such as 2026-12-31T21:00:00Z")))
}

/// The order that is asked for.
fn place_request(args: &Place) -> Result<PlaceOrderRequest> {
    let side = Side::from(choice("side", &args.side, rules::Side::ALL, rules::Side::parse)?);
    let order_type = match &args.r#type {
        Some(text) => choice("type", text, rules::OrderType::ALL, rules::OrderType::parse)?.into(),
        None if args.trail.is_some() || args.trail_percent.is_some() => OrderType::TrailingStop,
        None => match (&args.price, &args.stop) {
            (Some(_), Some(_)) => OrderType::StopLimit,
            (None, Some(_)) => OrderType::Stop,
            (Some(_), None) => OrderType::Limit,
            (None, None) => OrderType::Market,
        },
    };
    let time_in_force = match &args.tif {
        Some(text) => choice("tif", text, rules::TimeInForce::ALL, rules::TimeInForce::parse)?.into(),
        None if args.expires.is_some() => TimeInForce::Gtd,
        None => TimeInForce::Unspecified,
    };
    let expires_us = args.expires.as_deref().map_or(Ok(0), expires_us)?;
    let notional_micros = match &args.notional {
        None => 0,
        Some(text) => {
            parse_micros(text).map_err(|e| decimal_error("notional", Reason::NUMBER_MALFORMED, text, e))?
        }
    };
    Ok(PlaceOrderRequest {
        symbol: args.symbol.clone(),
        side: side.into(),
        r#type: order_type.into(),
        time_in_force: time_in_force.into(),
        quantity_e4: decimal("quantity", Reason::QUANTITY_MALFORMED, args.quantity.as_ref())?,
        notional_micros,
        price_e4: decimal("price", Reason::PRICE_MALFORMED, args.price.as_ref())?,
        stop_price_e4: decimal("stop", Reason::STOP_MALFORMED, args.stop.as_ref())?,
        trail_amount_e4: decimal("trail", Reason::TRAIL_MALFORMED, args.trail.as_ref())?,
        trail_percent_e4: decimal(
            "trail_percent",
            Reason::TRAIL_PERCENT_MALFORMED,
            args.trail_percent.as_ref(),
        )?,
        display_quantity_e4: decimal("display", Reason::DISPLAY_MALFORMED, args.display.as_ref())?,
        post_only: args.post_only,
        client_order_id: key_of(args.client_order_id.as_ref()),
        expires_us,
        ..Default::default()
    })
}

async fn place(global: &Global, args: &Place, out: Out) -> Result {
    let mut request = place_request(args)?;
    let key = request.client_order_id.clone();
    let mut client = Client::signed_in(global, &args.at).await?;
    request.account_id = ids::account_or_default(&mut client, args.account.as_ref()).await?;
    if args.dry_run {
        return preview::place(&mut client, &request, out).await;
    }
    let request = client.request(request);
    let answer = client.terminal.place(request).await;
    let mut order = keyed(answer, KEY_OPTION, &key)?.order.unwrap_or_default();
    if let Some(seconds) = args.wait {
        let until = Instant::now() + Duration::from_secs(seconds);
        while !order.state().has_ended() && Instant::now() < until {
            tokio::time::sleep(POLL).await;
            order = get(&mut client, &order.id).await.map_err(|e| e.repeat_with(KEY_OPTION, &key))?;
        }
    }
    out.data(&order_json(&order), || {
        format!(
            "{}{}client order id {}\n",
            orders_table(std::slice::from_ref(&order)),
            fills_text(&order),
            key
        )
    });
    if let Some(seconds) = args.wait.filter(|_| !order.state().has_ended()) {
        let state = order.state().name();
        return Err(Error::new(Exit::Timeout, format!("the order is {state} after {seconds} s"))
            .code(Reason::TIMEOUT)
            .repeat_with(KEY_OPTION, &key)
            .hint(format!(
                "it stands: `fafnir order show {id}` looks again, `fafnir order cancel {id}` ends it; the same command with \
                 {KEY_OPTION} {key} is safe to repeat",
                id = order.id
            )));
    }
    if order.state() == OrderState::Rejected {
        return Err(
            Error::new(Exit::Precondition, order.reject_reason).told(AnyReason::read(&order.reject_code))
        );
    }
    Ok(())
}

/// The orders of a group that is asked for, the entry first.
fn group_request(args: &Group) -> Result<PlaceGroupRequest> {
    let kind = match args.kind {
        args::GroupKind::Bracket => rules::GroupKind::Bracket,
        args::GroupKind::Oto => rules::GroupKind::Oto,
        args::GroupKind::Oco => rules::GroupKind::Oco,
    };
    let has_entry = kind.has_entry();
    let time_in_force = match &args.tif {
        Some(text) => choice("tif", text, rules::TimeInForce::ALL, rules::TimeInForce::parse)?.into(),
        None => TimeInForce::Unspecified,
    };
    let order = |side: Side, order_type: OrderType| -> Result<PlaceOrderRequest> {
        let is_entry = side == Side::Buy;
        let time = if is_entry == has_entry { time_in_force } else { TimeInForce::Unspecified };
        Ok(PlaceOrderRequest {
            symbol: args.symbol.clone(),
            side: side.into(),
            r#type: order_type.into(),
            time_in_force: time.into(),
            quantity_e4: decimal("quantity", Reason::QUANTITY_MALFORMED, Some(&args.quantity))?,
            ..Default::default()
        })
    };
    let mut orders = Vec::new();
    if has_entry {
        let entry = if args.price.is_some() { OrderType::Limit } else { OrderType::Market };
        let price_e4 = decimal("price", Reason::PRICE_MALFORMED, args.price.as_ref())?;
        orders.push(PlaceOrderRequest { price_e4, ..order(Side::Buy, entry)? });
    } else if args.price.is_some() {
        return Err(Error::usage("--price is an entry's; oco has none"));
    }
    if args.target.is_some() {
        let price_e4 = decimal("target", Reason::PRICE_MALFORMED, args.target.as_ref())?;
        orders.push(PlaceOrderRequest { price_e4, ..order(Side::Sell, OrderType::Limit)? });
    }
    let by_stop = match (&args.stop, &args.stop_limit) {
        (Some(_), Some(_)) => Some(OrderType::StopLimit),
        (Some(_), None) => Some(OrderType::Stop),
        _ => (args.trail.is_some() || args.trail_percent.is_some()).then_some(OrderType::TrailingStop),
    };
    if let Some(order_type) = by_stop {
        let percent = args.trail_percent.as_ref();
        orders.push(PlaceOrderRequest {
            stop_price_e4: decimal("stop", Reason::STOP_MALFORMED, args.stop.as_ref())?,
            price_e4: decimal("stop_limit", Reason::PRICE_MALFORMED, args.stop_limit.as_ref())?,
            trail_amount_e4: decimal("trail", Reason::TRAIL_MALFORMED, args.trail.as_ref())?,
            trail_percent_e4: decimal("trail_percent", Reason::TRAIL_PERCENT_MALFORMED, percent)?,
            ..order(Side::Sell, order_type)?
        });
    }
    if orders.len() != kind.legs() {
        let exits = "--stop, --trail or --trail-percent";
        return Err(Error::usage(match args.kind {
            args::GroupKind::Oto => format!("oto has one exit: --target, or one of {exits}"),
            _ => format!("bracket and oco have two exits: --target, and one of {exits}"),
        }));
    }
    orders[0].client_order_id = key_of(args.client_order_id.as_ref());
    Ok(PlaceGroupRequest { user_id: String::new(), kind: v1::GroupKind::from(kind).into(), orders })
}

/// Places an entry with its exits, or exits alone.
async fn group(global: &Global, args: &Group, out: Out) -> Result {
    let mut request = group_request(args)?;
    let key = request.orders.first().map_or_else(String::new, |order| order.client_order_id.clone());
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = ids::account_or_default(&mut client, args.account.as_ref()).await?;
    request.orders.iter_mut().for_each(|order| order.account_id.clone_from(&account_id));
    if args.dry_run {
        return preview::group(&mut client, &request, out).await;
    }
    let request = client.request(request);
    let answer = client.terminal.place_group(request).await;
    let reply = keyed(answer, KEY_OPTION, &key)?;
    let rows: Vec<Value> = reply.orders.iter().map(order_json).collect();
    out.data(&json!({"groupId": reply.group_id, "orders": rows}), || {
        format!("group {}\n{}", reply.group_id, orders_table(&reply.orders))
    });
    match reply.orders.first() {
        Some(order) if order.state() == OrderState::Rejected => {
            Err(Error::new(Exit::Precondition, order.reject_reason.clone())
                .told(AnyReason::read(&order.reject_code)))
        }
        _ => Ok(()),
    }
}

async fn get(client: &mut Client, id: &str) -> Result<v1::Order> {
    let request = client.request(GetOrderRequest { user_id: String::new(), order_id: id.to_owned() });
    Ok(client.terminal.order(request).await?.into_inner().order.unwrap_or_default())
}

async fn cancel(global: &Global, args: &Cancel, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    if let Some(id) = &args.order_id {
        let order_id = ids::order(&mut client, id).await?;
        let request = client.request(CancelOrderRequest { user_id: String::new(), order_id });
        let order = client.terminal.cancel(request).await?.into_inner().order.unwrap_or_default();
        print_one(&order, out);
        return Ok(());
    }
    if let Some(group_id) = &args.group {
        let group_id = ids::group(&mut client, group_id).await?;
        let request = CancelGroupRequest { user_id: String::new(), group_id };
        let request = client.request(request);
        let requested = client.terminal.cancel_group(request).await?.into_inner().requested;
        out.data(&json!({"requested": requested}), || format!("{requested} orders are being canceled\n"));
        return Ok(());
    }
    let symbol = args.symbol.clone().unwrap_or_default();
    let request = client.request(CancelAllRequest { user_id: String::new(), symbol });
    let requested = client.terminal.cancel_all(request).await?.into_inner().requested;
    out.data(&json!({"requested": requested}), || format!("{requested} orders are being canceled\n"));
    Ok(())
}

async fn replace(global: &Global, args: &Replace, out: Out) -> Result {
    let mut request = ReplaceOrderRequest {
        quantity_e4: decimal("quantity", Reason::QUANTITY_MALFORMED, args.quantity.as_ref())?,
        price_e4: decimal("price", Reason::PRICE_MALFORMED, args.price.as_ref())?,
        stop_price_e4: decimal("stop", Reason::STOP_MALFORMED, args.stop.as_ref())?,
        trail_amount_e4: decimal("trail", Reason::TRAIL_MALFORMED, args.trail.as_ref())?,
        trail_percent_e4: decimal(
            "trail_percent",
            Reason::TRAIL_PERCENT_MALFORMED,
            args.trail_percent.as_ref(),
        )?,
        ..Default::default()
    };
    let changed = [request.quantity_e4, request.price_e4, request.stop_price_e4];
    if changed == [0; 3] && request.trail_amount_e4 == 0 && request.trail_percent_e4 == 0 {
        return Err(Error::usage("nothing to change")
            .hint("give --quantity, --price, --stop, --trail or --trail-percent"));
    }
    let mut client = Client::signed_in(global, &args.at).await?;
    request.order_id = ids::order(&mut client, &args.order_id).await?;
    if args.dry_run {
        let order = get(&mut client, &request.order_id).await?;
        return preview::replace(&mut client, &changed_order(&order, &request)?, out).await;
    }
    let request = client.request(request);
    let order = client.terminal.replace(request).await?.into_inner().order.unwrap_or_default();
    print_one(&order, out);
    Ok(())
}

/// An open order as a new one that is like it after the change.
fn changed_order(order: &v1::Order, change: &ReplaceOrderRequest) -> Result<PlaceOrderRequest> {
    if !order.state().is_open() {
        let text = format!("order {} has ended: {}", order.id, order.state().name());
        return Err(Error::new(Exit::Precondition, text).code(Reason::ORDER_NOT_OPEN));
    }
    let new = |new: i64, old: i64| if new == 0 { old } else { new };
    let changes_trail = change.trail_amount_e4 != 0 || change.trail_percent_e4 != 0;
    let trails = order.r#type() == OrderType::TrailingStop;
    Ok(PlaceOrderRequest {
        symbol: order.symbol.clone(),
        side: order.side,
        r#type: order.r#type,
        time_in_force: order.time_in_force,
        quantity_e4: new(change.quantity_e4, order.quantity_e4),
        price_e4: new(change.price_e4, order.price_e4),
        stop_price_e4: if trails {
            change.stop_price_e4
        } else {
            new(change.stop_price_e4, order.stop_price_e4)
        },
        trail_amount_e4: if changes_trail { change.trail_amount_e4 } else { order.trail_amount_e4 },
        trail_percent_e4: if changes_trail { change.trail_percent_e4 } else { order.trail_percent_e4 },
        display_quantity_e4: order.display_quantity_e4,
        post_only: order.post_only,
        account_id: order.account_id.clone(),
        expires_us: order.expires_us,
        ..Default::default()
    })
}

/// Fails with the exchange's own word where shares are left.
async fn flatten(global: &Global, args: &Flatten, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = ids::account_or_default(&mut client, args.account.as_ref()).await?;
    if args.dry_run {
        return preview::flatten(&mut client, &args.symbol.to_uppercase(), &account_id, out).await;
    }
    let request = client.request(FlattenRequest {
        account_id,
        symbol: args.symbol.to_uppercase(),
        ..Default::default()
    });
    let done = client.terminal.flatten(request).await?.into_inner();
    let sold = done.order.as_ref().map_or(0, |o| o.filled_e4);
    let document = json!({
        "flat": done.left_e4 == 0, "canceled": done.canceled, "sold": format_e4(sold),
        "left": format_e4(done.left_e4), "order": done.order.as_ref().map(order_json),
    });
    out.data(&document, || {
        let (sold, left) = (format_e4(sold), format_e4(done.left_e4));
        format!("{} orders canceled, {sold} shares sold, {left} left\n", done.canceled)
    });
    if done.left_e4 == 0 {
        return Ok(());
    }
    Err(Error::new(Exit::Precondition, done.message).told(AnyReason::read(&done.reason)))
}

async fn list(global: &Global, args: &OrderList, out: Out) -> Result {
    let side = match &args.side {
        Some(text) => choice("side", text, rules::Side::ALL, rules::Side::parse)?.into(),
        None => Side::Unspecified,
    };
    let state = |text: &String| {
        let state = choice("state", text, rules::OrderState::ALL, rules::OrderState::parse)?;
        Ok(OrderState::from(state).into())
    };
    let states = args.state.iter().map(state).collect::<Result<Vec<i32>>>()?;
    let mut client = Client::signed_in(global, &args.at).await?;
    let account_id = ids::account_or_default(&mut client, args.account.as_ref()).await?;
    let before_id = match &args.before {
        Some(text) => ids::order(&mut client, text).await?,
        None => String::new(),
    };
    let request = client.request(ListOrdersRequest {
        open_only: args.open,
        symbol: args.symbol.clone().unwrap_or_default().to_uppercase(),
        account_id,
        side: side.into(),
        states,
        before_id,
        limit: args.limit,
        ..Default::default()
    });
    let orders = client.terminal.orders(request).await?.into_inner().orders;
    out.data(&json!(orders.iter().map(order_json).collect::<Vec<_>>()), || {
        if orders.is_empty() { "no orders\n".to_owned() } else { orders_table(&orders) }
    });
    Ok(())
}

async fn show(global: &Global, args: &OrderShow, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let id = ids::order(&mut client, &args.order_id).await?;
    let order = get(&mut client, &id).await?;
    out.data(&order_json(&order), || details(&order) + &fills_text(&order));
    Ok(())
}

/// What becomes of one order, until it has ended; of every order until Ctrl-C.
async fn watch_one(global: &Global, args: &OrderWatch, out: Out) -> Result {
    let how = WatchHow { at: args.at.clone(), count: args.count };
    let Some(id) = &args.order_id else { return watch::orders(global, &how, out).await };
    let mut client = Client::signed_in(global, &args.at).await?;
    let id = ids::order(&mut client, id).await?;
    let order = get(&mut client, &id).await?;
    watch::order(global, &how, order, out).await
}

/// An order in one line, for people who watch it.
pub fn order_line(o: &v1::Order) -> String {
    let average = average_price(o.filled_notional_micros, o.filled_e4, E4_DECIMALS);
    let filled = match o.filled_e4 {
        0 => String::new(),
        filled => format!(", {} filled at {}", format_e4(filled), format_price(average)),
    };
    let limit = if o.price_e4 > 0 { format!(" @ {}", format_price(o.price_e4)) } else { String::new() };
    let why =
        if o.reject_reason.is_empty() { String::new() } else { format!(": {}", printable(&o.reject_reason)) };
    let (side, quantity, state) = (o.side().name(), format_e4(o.quantity_e4), o.state().name());
    format!("{} {side} {quantity} {}{limit} {state}{filled}{why}\n", rfc3339(o.updated_us), o.symbol)
}

/// Every step of an order, page by page, and what it waits for.
async fn why(global: &Global, args: &OrderWhy, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let order_id = ids::order(&mut client, &args.order_id).await?;
    let (mut steps, mut after_seq) = (Vec::new(), 0);
    let last = loop {
        let request = client.request(OrderHistoryRequest {
            order_id: order_id.clone(),
            after_seq,
            ..OrderHistoryRequest::default()
        });
        let mut page = client.terminal.order_history(request).await?.into_inner();
        let end = page.steps.last().map(|step| step.user_seq);
        steps.append(&mut page.steps);
        match end.filter(|_| page.more) {
            Some(seq) => after_seq = seq,
            None => break page,
        }
    };
    let order = last.order.unwrap_or_default();
    let kind = |step: &v1::OrderStep| step.kind().as_str_name().trim_start_matches("FACT_KIND_").to_owned();
    let document = json!({
        "order": order_json(&order), "waitsFor": last.waits_for,
        "standing": last.standing.as_ref().map(standing_json),
        "steps": steps.iter().map(|step| json!({
            "sequence": step.user_seq, "time": rfc3339(step.time_us), "kind": kind(step), "sentence": step.sentence,
        })).collect::<Vec<_>>(),
    });
    out.data(&document, || {
        let mut text = details(&order);
        text.push('\n');
        let rows: Vec<_> =
            steps.iter().map(|step| vec![rfc3339(step.time_us), kind(step), step.sentence.clone()]).collect();
        text.push_str(&if rows.is_empty() {
            "nothing is kept of its steps\n".to_owned()
        } else {
            table(&["TIME", "STEP", "WHAT HAPPENED"], &rows)
        });
        text.push_str(&format!("\nnow: {}\n", last.waits_for));
        text
    });
    Ok(())
}

fn standing_json(s: &v1::OrderStanding) -> Value {
    json!({
        "kind": s.kind().as_str_name().trim_start_matches("ORDER_STANDING_KIND_"),
        "ordersAhead": s.orders_ahead, "quantityAhead": format_e4(s.quantity_ahead_e4),
        "quantityBetter": format_e4(s.quantity_better_e4), "tradingState": s.state().name(),
        "lastPrice": format_e4(s.last_price_e4), "bestBid": format_e4(s.best_bid_e4),
        "bestAsk": format_e4(s.best_ask_e4),
    })
}

/// What an order is beside the row of a list: only what it has.
fn details(order: &v1::Order) -> String {
    let mut rows = vec![
        ("order", order.id.clone()),
        ("account", order.account_id.clone()),
        ("time in force", order.time_in_force().name().to_owned()),
        ("created", rfc3339(order.created_us)),
        ("updated", rfc3339(order.updated_us)),
    ];
    let mut row = |name, text: String, is_there: bool| {
        if is_there {
            rows.push((name, text));
        }
    };
    row("expires", rfc3339(order.expires_us), order.expires_us > 0);
    row("trail", format_price(order.trail_amount_e4), order.trail_amount_e4 > 0);
    row("trail", format!("{} %", format_e4(order.trail_percent_e4)), order.trail_percent_e4 > 0);
    row("displayed", format_e4(order.display_quantity_e4), order.display_quantity_e4 > 0);
    row("post-only", "yes".to_owned(), order.post_only);
    row("client order id", order.client_order_id.clone(), !order.client_order_id.is_empty());
    row("group", format!("{}, {}", order.group_id, order.leg().name()), !order.group_id.is_empty());
    row("version", order.version.to_string(), order.version > 1);
    row("holds", format!("{} of cash", format_micros(order.hold_micros)), order.hold_micros > 0);
    row("holds", format!("{} shares", format_e4(order.hold_e4)), order.hold_e4 > 0);
    let reason = format!("{}: {}", order.reject_code, order.reject_reason);
    row("reason", reason, !order.reject_code.is_empty());
    let line = |(name, text): &(&str, String)| format!("{name:<16}{}\n", printable(text));
    format!("{}\n{}", orders_table(std::slice::from_ref(order)), rows.iter().map(line).collect::<String>())
}

fn print_one(order: &v1::Order, out: Out) {
    out.data(&order_json(order), || orders_table(std::slice::from_ref(order)) + &fills_text(order));
}

fn fills_text(order: &v1::Order) -> String {
    let line = |fill: &v1::Fill| {
        let (time, quantity) = (rfc3339(fill.time_us), format_e4(fill.quantity_e4));
        format!("  {time} {quantity} @ {} {}\n", format_price(fill.price_e4), fill.exec_id)
    };
    order.fills.iter().map(line).collect()
}

fn orders_table(orders: &[v1::Order]) -> String {
    let rows: Vec<_> = orders
        .iter()
        .map(|o| {
            let average = average_price(o.filled_notional_micros, o.filled_e4, E4_DECIMALS);
            vec![
                o.id.clone(),
                o.symbol.clone(),
                o.side().name().to_owned(),
                o.r#type().name().to_owned(),
                format_e4(o.quantity_e4),
                format_price(o.price_e4),
                format_price(o.stop_price_e4),
                format_e4(o.filled_e4),
                format_price(average),
                o.state().name().to_owned(),
            ]
        })
        .collect();
    table(
        &["ORDER", "SYMBOL", "SIDE", "TYPE", ">QUANTITY", ">PRICE", ">STOP", ">FILLED", ">AVERAGE", "STATE"],
        &rows,
    )
}

/// Decimals as texts: exact for every reader.
pub fn order_json(o: &v1::Order) -> Value {
    json!({
        "id": o.id, "accountId": o.account_id, "symbol": o.symbol,
        "side": o.side().name(),
        "type": o.r#type().name(),
        "timeInForce": o.time_in_force().name(),
        "state": o.state().name(),
        "pending": o.pending().as_str_name().trim_start_matches("PENDING_ACTION_"),
        "quantity": format_e4(o.quantity_e4), "filled": format_e4(o.filled_e4), "open": format_e4(o.open_e4),
        "price": format_e4(o.price_e4), "stopPrice": format_e4(o.stop_price_e4),
        "averagePrice":
            format_scaled(average_price(o.filled_notional_micros, o.filled_e4, AVERAGE_DECIMALS), AVERAGE_DECIMALS),
        "filledNotional": format_micros(o.filled_notional_micros), "currency": o.currency,
        "trailAmount": format_e4(o.trail_amount_e4), "trailPercent": format_e4(o.trail_percent_e4),
        "displayQuantity": format_e4(o.display_quantity_e4), "postOnly": o.post_only,
        "heldCash": format_micros(o.hold_micros), "heldQuantity": format_e4(o.hold_e4),
        "expiresAt": (o.expires_us > 0).then(|| rfc3339(o.expires_us)),
        "clientOrderId": o.client_order_id, "rejectCode": o.reject_code, "rejectReason": o.reject_reason,
        "groupId": o.group_id, "leg": o.leg().name(),
        "version": o.version, "createdAt": rfc3339(o.created_us), "updatedAt": rfc3339(o.updated_us),
        "fills": o.fills.iter().map(|f| json!({
            "execId": f.exec_id, "price": format_e4(f.price_e4), "quantity": format_e4(f.quantity_e4),
            "maker": f.maker, "time": rfc3339(f.time_us),
        })).collect::<Vec<_>>(),
    })
}
