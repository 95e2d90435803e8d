//! An order as what places the same one: a line for a shell, and GraphQL.

use fafnir_proto::v1::{
    GroupKind, Order, OrderType, PlaceGroupRequest, PlaceOrderRequest, ReplaceOrderRequest, Side,
};
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

/// A group: its entry with its exits, or exits alone.
pub fn of_group(request: &PlaceGroupRequest) -> String {
    let Some(first) = request.orders.first() else { return String::new() };
    let kind = match request.kind() {
        GroupKind::Oco => "oco",
        GroupKind::Oto => "oto",
        _ => "bracket",
    };
    let mut words = format!("fafnir order group {kind} {} {}", first.symbol, format_e4(first.quantity_e4));
    let entries = usize::from(request.kind() != GroupKind::Oco);
    if entries == 1 && first.price_e4 > 0 {
        words.push_str(&format!(" --price {}", format_e4(first.price_e4)));
    }
    for exit in request.orders.iter().skip(entries) {
        let (option, price) = match exit.r#type() {
            OrderType::Limit => ("--target", exit.price_e4),
            _ => ("--stop", exit.stop_price_e4),
        };
        words.push_str(&format!(" {option} {}", format_e4(price)));
    }
    if let Some(time) = time(first).filter(|time| *time != "GTD") {
        words.push_str(&format!(" --tif {}", time.to_lowercase()));
    }
    if !first.account_id.is_empty() {
        words.push_str(&format!(" --account {}", first.account_id));
    }
    let orders: Vec<String> = request.orders.iter().map(|order| format!("{{ {} }}", fields(order))).collect();
    let kind = kind.to_uppercase();
    let mutation =
        format!("createOrderGroup(request: {{ kind: \"{kind}\", orders: [{}] }})", orders.join(", "));
    format!("{words}\n# mutation {{ {mutation} {{ code data {{ groupId }} }} }}\n")
}

/// A change of an order.
pub fn of_replace(r: &ReplaceOrderRequest) -> String {
    let mut words = format!("fafnir order replace {}", r.order_id);
    let mut fields = vec![format!("orderId: \"{}\"", r.order_id)];
    for (option, field, value) in [
        ("--quantity", "quantity", r.quantity_e4),
        ("--price", "price", r.price_e4),
        ("--stop", "stopPrice", r.stop_price_e4),
        ("--trail", "trailAmount", r.trail_amount_e4),
        ("--trail-percent", "trailPercent", r.trail_percent_e4),
    ] {
        if value > 0 {
            words.push_str(&format!(" {option} {}", format_e4(value)));
            fields.push(format!("{field}: {}", format_e4(value)));
        }
    }
    let fields = fields.join(", ");
    format!(
        "{words}\n# mutation {{ replaceOrder(request: {{ {fields} }}) {{ code data {{ id state }} }} }}\n"
    )
}

fn mutation(r: &PlaceOrderRequest) -> String {
    let fields = fields(r);
    format!("mutation {{ createOrder(request: {{ {fields} }}) {{ code data {{ id state }} }} }}")
}

/// The fields of the input of GraphQL.
fn fields(r: &PlaceOrderRequest) -> String {
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
    fields.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_proto::v1::TimeInForce;

    #[test]
    fn a_bracket_and_a_change_are_commands_and_mutations() {
        let order = |side: Side, kind: OrderType, price_e4, stop_price_e4| PlaceOrderRequest {
            symbol: "AAPL".into(),
            side: side.into(),
            r#type: kind.into(),
            quantity_e4: 100_000,
            price_e4,
            stop_price_e4,
            ..PlaceOrderRequest::default()
        };
        let bracket = PlaceGroupRequest {
            user_id: String::new(),
            kind: GroupKind::Bracket.into(),
            orders: vec![
                order(Side::Buy, OrderType::Limit, 2_310_000, 0),
                order(Side::Sell, OrderType::Limit, 2_400_000, 0),
                order(Side::Sell, OrderType::Stop, 0, 2_250_000),
            ],
        };
        let text = of_group(&bracket);
        let (command, mutation) = text.split_once('\n').unwrap();
        assert_eq!(command, "fafnir order group bracket AAPL 10 --price 231 --target 240 --stop 225");
        assert!(
            mutation.contains("kind: \"BRACKET\", orders: [{ symbol: \"AAPL\", side: \"BUY\""),
            "{mutation}"
        );
        let change = ReplaceOrderRequest {
            order_id: "o1".into(),
            price_e4: 2_300_000,
            ..ReplaceOrderRequest::default()
        };
        assert_eq!(
            of_replace(&change),
            "fafnir order replace o1 --price 230\n\
             # mutation { replaceOrder(request: { orderId: \"o1\", price: 230 }) { code data { id state } } }\n"
        );
    }

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
