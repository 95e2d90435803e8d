//! `fafnir order place|group|cancel|replace|flatten|list|show`.

use crate::{
    args::{Cancel, Flatten, Global, Group, Order, OrderList, OrderShow, Place, Replace},
    client::Client,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::{AnyReason, Reason},
    v1::{
        self, CancelAllRequest, CancelGroupRequest, CancelOrderRequest, FlattenRequest, GetOrderRequest,
        ListOrdersRequest, OrderState, OrderType, PlaceGroupRequest, PlaceOrderRequest, ReplaceOrderRequest,
        Side, TimeInForce,
    },
};
use fafnir_rules::money::{
    Error as DecimalError, average_price_e4, format_e4, format_micros, format_price, parse_e4,
};
use fafnir_rules::order as rules;
use fafnir_services::platform::clock::rfc3339;
use serde_json::{Value, json};
use std::{
    fmt::Display,
    time::{Duration, Instant},
};

const POLL: Duration = Duration::from_millis(20);

pub async fn order(global: &Global, command: &Order, out: Out) -> Result {
    match command {
        Order::Place(args) => place(global, args, out).await,
        Order::Group(args) => group(global, args, out).await,
        Order::Cancel(args) => cancel(global, args, out).await,
        Order::Replace(args) => replace(global, args, out).await,
        Order::Flatten(args) => flatten(global, args, out).await,
        Order::List(args) => list(global, args, out).await,
        Order::Show(args) => show(global, args, out).await,
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

async fn place(global: &Global, args: &Place, out: Out) -> Result {
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
    let expires_us = match &args.expires {
        None => 0,
        Some(text) => time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339)
            .ok()
            .and_then(|t| i64::try_from(t.unix_timestamp_nanos() / 1000).ok())
            .ok_or_else(|| {
                Error::usage(format!("expires {text:?} must be a time such as 2026-12-31T21:00:00Z"))
            })?,
    };
    let request = PlaceOrderRequest {
        symbol: args.symbol.clone(),
        side: side.into(),
        r#type: order_type.into(),
        time_in_force: time_in_force.into(),
        quantity_e4: decimal("quantity", Reason::QUANTITY_MALFORMED, Some(&args.quantity))?,
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
        account_id: args.account.clone().unwrap_or_default(),
        client_order_id: args.client_order_id.clone().unwrap_or_default(),
        expires_us,
        ..Default::default()
    };
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(request);
    let mut order = client.terminal.place(request).await?.into_inner().order.unwrap_or_default();
    if let Some(seconds) = args.wait {
        let until = Instant::now() + Duration::from_secs(seconds);
        while !order.state().has_ended() && Instant::now() < until {
            tokio::time::sleep(POLL).await;
            order = get(&mut client, &order.id).await?;
        }
    }
    print_one(&order, out);
    if order.state() == OrderState::Rejected {
        return Err(
            Error::new(Exit::Precondition, order.reject_reason).told(AnyReason::read(&order.reject_code))
        );
    }
    Ok(())
}

/// Places an entry with its exits, or exits alone.
async fn group(global: &Global, args: &Group, out: Out) -> Result {
    let kind = v1::GroupKind::from_str_name(&format!("GROUP_KIND_{}", args.kind.to_ascii_uppercase()));
    let kind = kind.filter(|kind| *kind != v1::GroupKind::Unspecified);
    let kind =
        kind.ok_or_else(|| Error::usage(format!("kind {:?} must be one of bracket, oto, oco", args.kind)))?;
    let order = |side: Side, order_type: OrderType| -> Result<PlaceOrderRequest> {
        Ok(PlaceOrderRequest {
            symbol: args.symbol.clone(),
            side: side.into(),
            r#type: order_type.into(),
            quantity_e4: decimal("quantity", Reason::QUANTITY_MALFORMED, Some(&args.quantity))?,
            account_id: args.account.clone().unwrap_or_default(),
            ..Default::default()
        })
    };
    let mut orders = Vec::new();
    if kind != v1::GroupKind::Oco {
        let entry = if args.price.is_some() { OrderType::Limit } else { OrderType::Market };
        let price_e4 = decimal("price", Reason::PRICE_MALFORMED, args.price.as_ref())?;
        orders.push(PlaceOrderRequest { price_e4, ..order(Side::Buy, entry)? });
    }
    if args.target.is_some() {
        let price_e4 = decimal("target", Reason::PRICE_MALFORMED, args.target.as_ref())?;
        orders.push(PlaceOrderRequest { price_e4, ..order(Side::Sell, OrderType::Limit)? });
    }
    if args.stop.is_some() {
        let stop_price_e4 = decimal("stop", Reason::STOP_MALFORMED, args.stop.as_ref())?;
        orders.push(PlaceOrderRequest { stop_price_e4, ..order(Side::Sell, OrderType::Stop)? });
    }
    if args.trail.is_some() {
        let trail_amount_e4 = decimal("trail", Reason::TRAIL_MALFORMED, args.trail.as_ref())?;
        orders.push(PlaceOrderRequest { trail_amount_e4, ..order(Side::Sell, OrderType::TrailingStop)? });
    }
    if let Some(first) = orders.first_mut() {
        first.client_order_id = args.client_order_id.clone().unwrap_or_default();
    }
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(PlaceGroupRequest { user_id: String::new(), kind: kind.into(), orders });
    let reply = client.terminal.place_group(request).await?.into_inner();
    let rows: Vec<Value> = reply.orders.iter().map(order_json).collect();
    out.data(&json!({"group_id": reply.group_id, "orders": rows}), || {
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
        let request = client.request(CancelOrderRequest { user_id: String::new(), order_id: id.clone() });
        let order = client.terminal.cancel(request).await?.into_inner().order.unwrap_or_default();
        print_one(&order, out);
        return Ok(());
    }
    if let Some(group_id) = &args.group {
        let request = CancelGroupRequest { user_id: String::new(), group_id: group_id.clone() };
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
    let request = ReplaceOrderRequest {
        order_id: args.order_id.clone(),
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
    let request = client.request(request);
    let order = client.terminal.replace(request).await?.into_inner().order.unwrap_or_default();
    print_one(&order, out);
    Ok(())
}

/// Fails with the exchange's own word where shares are left.
async fn flatten(global: &Global, args: &Flatten, out: Out) -> Result {
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(FlattenRequest {
        account_id: args.account.clone().unwrap_or_default(),
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
    let mut client = Client::signed_in(global, &args.at).await?;
    let request = client.request(ListOrdersRequest {
        open_only: args.open,
        symbol: args.symbol.clone().unwrap_or_default().to_uppercase(),
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
    let order = get(&mut client, &args.order_id).await?;
    print_one(&order, out);
    Ok(())
}

fn print_one(order: &v1::Order, out: Out) {
    out.data(&order_json(order), || {
        let mut text = orders_table(std::slice::from_ref(order));
        for fill in &order.fills {
            text.push_str(&format!(
                "  {} {} @ {} {}\n",
                rfc3339(fill.time_us),
                format_e4(fill.quantity_e4),
                format_price(fill.price_e4),
                fill.exec_id
            ));
        }
        text
    });
}

fn orders_table(orders: &[v1::Order]) -> String {
    let rows: Vec<_> = orders
        .iter()
        .map(|o| {
            let average = average_price_e4(o.filled_notional_micros, o.filled_e4);
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
        "averagePrice": format_e4(average_price_e4(o.filled_notional_micros, o.filled_e4)),
        "filledNotional": format_micros(o.filled_notional_micros), "currency": o.currency,
        "clientOrderId": o.client_order_id, "rejectCode": o.reject_code, "rejectReason": o.reject_reason,
        "groupId": o.group_id, "leg": o.leg().as_str_name().trim_start_matches("GROUP_LEG_"),
        "version": o.version, "createdAt": rfc3339(o.created_us), "updatedAt": rfc3339(o.updated_us),
        "fills": o.fills.iter().map(|f| json!({
            "execId": f.exec_id, "price": format_e4(f.price_e4), "quantity": format_e4(f.quantity_e4),
            "maker": f.maker, "time": rfc3339(f.time_us),
        })).collect::<Vec<_>>(),
    })
}
