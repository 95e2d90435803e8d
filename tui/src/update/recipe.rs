//! An order as what places the same one: a line for a shell, and GraphQL.

use fafnir_proto::v1::{Order, OrderType, PlaceOrderRequest, Side};
use fafnir_rules::{money::format_e4, order};

/// What places the same order as one that is known.
pub fn of_order(order: &Order) -> String {
    of_request(&PlaceOrderRequest {
        symbol: order.symbol.clone(),
        side: order.side,
        r#type: order.r#type,
        time_in_force: order.time_in_force,
        quantity_e4: order.quantity_e4,
        price_e4: order.price_e4,
        stop_price_e4: if order.r#type() == OrderType::TrailingStop { 0 } else { order.stop_price_e4 },
        trail_amount_e4: order.trail_amount_e4,
        trail_percent_e4: order.trail_percent_e4,
        display_quantity_e4: order.display_quantity_e4,
        post_only: order.post_only,
        account_id: order.account_id.clone(),
        ..PlaceOrderRequest::default()
    })
}

/// The command, and below it as a comment the mutation: both can be pasted into a shell.
pub fn of_request(request: &PlaceOrderRequest) -> String {
    format!("{}\n# {}\n", command(request), mutation(request))
}

fn time(request: &PlaceOrderRequest) -> Option<&'static str> {
    request.time_in_force().known().map(order::TimeInForce::name)
}

fn command(r: &PlaceOrderRequest) -> String {
    let side = if r.side() == Side::Sell { "sell" } else { "buy" };
    let mut words = format!("fafnir order place {side} {} {}", r.symbol, format_e4(r.quantity_e4));
    for (option, value) in [
        ("--price", r.price_e4),
        ("--stop", r.stop_price_e4),
        ("--trail", r.trail_amount_e4),
        ("--trail-percent", r.trail_percent_e4),
        ("--display", r.display_quantity_e4),
    ] {
        if value > 0 {
            words.push_str(&format!(" {option} {}", format_e4(value)));
        }
    }
    // A time that ends it is not copied: it would be another one, or over.
    if let Some(time) = time(r).filter(|time| *time != "GTD") {
        words.push_str(&format!(" --tif {}", time.to_lowercase()));
    }
    if r.post_only {
        words.push_str(" --post-only");
    }
    if !r.account_id.is_empty() {
        words.push_str(&format!(" --account {}", r.account_id));
    }
    words
}

fn mutation(r: &PlaceOrderRequest) -> String {
    let name = |known: Option<&'static str>| known.unwrap_or_default();
    let mut fields = vec![
        format!("symbol: \"{}\"", r.symbol),
        format!("side: \"{}\"", name(r.side().known().map(order::Side::name))),
        format!("type: \"{}\"", name(r.r#type().known().map(order::OrderType::name))),
        format!("quantity: {}", format_e4(r.quantity_e4)),
    ];
    for (field, value) in [
        ("price", r.price_e4),
        ("stopPrice", r.stop_price_e4),
        ("trailAmount", r.trail_amount_e4),
        ("trailPercent", r.trail_percent_e4),
        ("displayQuantity", r.display_quantity_e4),
    ] {
        if value > 0 {
            fields.push(format!("{field}: {}", format_e4(value)));
        }
    }
    if let Some(time) = time(r).filter(|time| *time != "GTD") {
        fields.push(format!("timeInForce: \"{time}\""));
    }
    if r.post_only {
        fields.push("postOnly: true".to_owned());
    }
    if !r.account_id.is_empty() {
        fields.push(format!("accountId: \"{}\"", r.account_id));
    }
    format!("mutation {{ createOrder(request: {{ {} }}) {{ code data {{ id state }} }} }}", fields.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_proto::v1::TimeInForce;

    #[test]
    fn an_order_is_a_command_and_a_mutation() {
        let order = Order {
            symbol: "AAPL".into(),
            side: Side::Sell.into(),
            r#type: OrderType::StopLimit.into(),
            time_in_force: TimeInForce::Day.into(),
            quantity_e4: 50_000,
            price_e4: 2_300_000,
            stop_price_e4: 2_300_500,
            account_id: "a1".into(),
            ..Order::default()
        };
        assert_eq!(
            of_order(&order),
            "fafnir order place sell AAPL 5 --price 230 --stop 230.05 --tif day --account a1\n\
             # mutation { createOrder(request: { symbol: \"AAPL\", side: \"SELL\", type: \"STOP_LIMIT\", quantity: 5, \
             price: 230, stopPrice: 230.05, timeInForce: \"DAY\", accountId: \"a1\" }) { code data { id state } } }\n"
        );
    }
}
