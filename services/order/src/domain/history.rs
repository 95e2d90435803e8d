//! What happened to an order, and what it waits for, in sentences.

use fafnir_proto::v1::{
    FactKind, Fill, GroupLeg, Order, OrderStanding, OrderStandingKind, OrderState, OrderType, Side,
    TimeInForce, TradingState,
};
use fafnir_rules::money::{format_e4, format_micros, format_price};

fn side(order: &Order) -> &'static str {
    order.side().name()
}

/// What an order asks for: `BUY 5 AAPL LIMIT at 231.00`.
fn terms(order: &Order) -> String {
    let mut text = format!(
        "{} {} {} {}",
        side(order),
        format_e4(order.quantity_e4),
        order.symbol,
        order.r#type().name()
    );
    if order.price_e4 > 0 {
        text.push_str(&format!(" at {}", format_price(order.price_e4)));
    }
    if order.stop_price_e4 > 0 {
        text.push_str(&format!(", stop {}", format_price(order.stop_price_e4)));
    }
    text
}

/// What the account holds for it, where it holds something.
pub fn hold(order: &Order) -> Option<String> {
    match order.side() {
        Side::Sell if order.hold_e4 > 0 => Some(format!("{} shares", format_e4(order.hold_e4))),
        Side::Buy if order.hold_micros > 0 => {
            Some(format!("{} of the account's cash", format_micros(order.hold_micros)))
        }
        _ => None,
    }
}

/// One step in one sentence.
pub fn sentence(kind: FactKind, order: &Order, fill: Option<&Fill>) -> String {
    let mut text = match (kind, fill) {
        (FactKind::Accepted, _) => {
            let waits = match order.state() {
                // One that is awake holds what it may sell.
                OrderState::Held if order.leg() == GroupLeg::Exit && order.hold_e4 == 0 => {
                    "accepted, sleeps until the entry of its group buys"
                }
                OrderState::Held => "accepted, waits for its trigger",
                _ => "accepted",
            };
            format!("{waits}: {}", terms(order))
        }
        (FactKind::Executed, Some(fill)) => format!(
            "{} {} at {} as {}; {} of {} filled",
            if fill.side() == Side::Sell { "sold" } else { "bought" },
            format_e4(fill.quantity_e4),
            format_price(fill.price_e4),
            if fill.maker { "maker" } else { "taker" },
            format_e4(order.filled_e4),
            format_e4(order.quantity_e4)
        ),
        (FactKind::Triggered, _) => format!("triggered, entered the book: {}", terms(order)),
        (FactKind::Replaced, _) => format!("replaced, version {}: {}", order.version, terms(order)),
        (FactKind::StopMoved, _) => {
            format!("its stop followed the market to {}", format_price(order.stop_price_e4))
        }
        (FactKind::Decremented, _) => format!(
            "self-trade prevention took quantity off: {} of {} are open",
            format_e4(order.open_e4),
            format_e4(order.quantity_e4)
        ),
        (FactKind::Resized, _) => format!(
            "another order of its group traded: {} of {} are open",
            format_e4(order.open_e4),
            format_e4(order.quantity_e4)
        ),
        _ if order.reject_reason.is_empty() => order.state().name().to_lowercase(),
        _ => order.reject_reason.clone(),
    };
    if let Some(hold) = hold(order) {
        text.push_str(&format!("; holds {hold}"));
    }
    text
}

/// What an order waits for now, or why it ended.
pub fn waits_for(order: &Order, standing: Option<&OrderStanding>) -> String {
    if order.state().has_ended() {
        return match order.state() {
            OrderState::Filled => "it is filled".to_owned(),
            _ if order.reject_reason.is_empty() => format!("it is {}", order.state().name().to_lowercase()),
            _ => order.reject_reason.clone(),
        };
    }
    let Some(now) = standing else {
        return "it is open; where it stands is not known while the engine does not answer".to_owned();
    };
    // No stop, and in no queue of the book.
    let waits_apart = now.kind() == OrderStandingKind::Held && order.state() != OrderState::Held;
    let for_close = order.time_in_force() == TimeInForce::Cls;
    match now.state() {
        TradingState::Halted | TradingState::Closed => {
            return format!("{} is {}: nothing trades until it opens", order.symbol, now.state().name());
        }
        _ if waits_apart && for_close => return "it waits for the closing auction".to_owned(),
        TradingState::PreOpen | TradingState::Auction
            if waits_apart || now.kind() == OrderStandingKind::Resting =>
        {
            return format!("{} is in a call: it trades in the auction that ends it", order.symbol);
        }
        _ => {}
    }
    let last = if now.last_price_e4 > 0 {
        format!("; the last one was at {}", format_price(now.last_price_e4))
    } else {
        String::new()
    };
    if now.kind() == OrderStandingKind::Asleep {
        return "it sleeps until the entry of its group buys".to_owned();
    }
    if now.kind() == OrderStandingKind::Held {
        let way = if order.side() == Side::Sell { "below" } else { "above" };
        let trailing =
            if order.r#type() == OrderType::TrailingStop { " (it follows the market)" } else { "" };
        let stop = format_price(order.stop_price_e4);
        return format!("it waits for a trade at or {way} {stop}{trailing}{last}");
    }
    let (other, way, best) = match order.side() {
        Side::Sell => ("buyer", "or more", now.best_bid_e4),
        _ => ("seller", "or less", now.best_ask_e4),
    };
    let best = if best > 0 {
        format!("the best {other} is at {}", format_price(best))
    } else {
        format!("there is no {other}")
    };
    format!(
        "it waits for a {other} at {} {way}; {best}; ahead of it {} shares in {} orders at its price and {} at better \
         prices",
        format_price(order.price_e4),
        format_e4(now.quantity_ahead_e4),
        now.orders_ahead,
        format_e4(now.quantity_better_e4)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order() -> Order {
        Order {
            symbol: "AAPL".into(),
            side: Side::Buy.into(),
            r#type: OrderType::Limit.into(),
            state: OrderState::New.into(),
            quantity_e4: 50_000,
            open_e4: 50_000,
            price_e4: 2_310_000,
            version: 1,
            hold_micros: 1_155_000_000,
            ..Order::default()
        }
    }

    #[test]
    fn each_step_says_what_happened_and_what_is_held() {
        let o = order();
        assert_eq!(
            sentence(FactKind::Accepted, &o, None),
            "accepted: BUY 5 AAPL LIMIT at 231.00; holds 1155 of the account's cash"
        );
        let fill = Fill {
            side: Side::Buy.into(),
            price_e4: 2_310_000,
            quantity_e4: 20_000,
            maker: true,
            ..Fill::default()
        };
        let partly = Order { filled_e4: 20_000, hold_micros: 693_000_000, ..o.clone() };
        assert_eq!(
            sentence(FactKind::Executed, &partly, Some(&fill)),
            "bought 2 at 231.00 as maker; 2 of 5 filled; holds 693 of the account's cash"
        );
        let gone = Order {
            state: OrderState::Canceled.into(),
            reject_reason: "canceled at the owner's request".into(),
            hold_micros: 0,
            ..o
        };
        assert_eq!(sentence(FactKind::Canceled, &gone, None), "canceled at the owner's request");
        assert_eq!(waits_for(&gone, None), "canceled at the owner's request");
    }

    #[test]
    fn an_exit_says_what_its_group_does_with_it() {
        let exit = Order {
            side: Side::Sell.into(),
            state: OrderState::Held.into(),
            leg: GroupLeg::Exit.into(),
            group_id: "00000000-0000-7000-8000-000000000060".into(),
            hold_micros: 0,
            ..order()
        };
        assert_eq!(
            sentence(FactKind::Accepted, &exit, None),
            "accepted, sleeps until the entry of its group buys: SELL 5 AAPL LIMIT at 231.00"
        );
        let asleep = OrderStanding {
            kind: OrderStandingKind::Asleep.into(),
            state: TradingState::Open.into(),
            ..OrderStanding::default()
        };
        assert_eq!(waits_for(&exit, Some(&asleep)), "it sleeps until the entry of its group buys");
        let awake = Order {
            state: OrderState::New.into(),
            quantity_e4: 20_000,
            open_e4: 20_000,
            hold_e4: 20_000,
            ..exit
        };
        assert_eq!(
            sentence(FactKind::Resized, &awake, None),
            "another order of its group traded: 2 of 2 are open; holds 2 shares"
        );
    }

    #[test]
    fn an_open_order_says_what_it_waits_for() {
        let standing = |kind: OrderStandingKind, state: TradingState| OrderStanding {
            kind: kind.into(),
            state: state.into(),
            orders_ahead: 2,
            quantity_ahead_e4: 70_000,
            quantity_better_e4: 10_000,
            last_price_e4: 2_320_000,
            best_ask_e4: 2_330_000,
            ..OrderStanding::default()
        };
        let (resting, held) = (OrderStandingKind::Resting, OrderStandingKind::Held);
        assert_eq!(
            waits_for(&order(), Some(&standing(resting, TradingState::Open))),
            "it waits for a seller at 231.00 or less; the best seller is at 233.00; ahead of it 7 shares in 2 orders at \
             its price and 1 at better prices"
        );
        let stop = Order {
            side: Side::Sell.into(),
            r#type: OrderType::Stop.into(),
            state: OrderState::Held.into(),
            stop_price_e4: 1_990_000,
            ..order()
        };
        assert_eq!(
            waits_for(&stop, Some(&standing(held, TradingState::Open))),
            "it waits for a trade at or below 199.00; the last one was at 232.00"
        );
        assert_eq!(
            waits_for(&order(), Some(&standing(resting, TradingState::Halted))),
            "AAPL is HALTED: nothing trades until it opens"
        );
        assert!(
            waits_for(&order(), Some(&standing(resting, TradingState::Auction))).contains("in the auction")
        );
        let market = Order { r#type: OrderType::Market.into(), ..order() };
        assert!(waits_for(&market, Some(&standing(held, TradingState::PreOpen))).contains("in the auction"));
        let on_close = Order { time_in_force: TimeInForce::Cls.into(), ..order() };
        let waits = waits_for(&on_close, Some(&standing(held, TradingState::Open)));
        assert_eq!(waits, "it waits for the closing auction");
        assert!(waits_for(&order(), None).contains("does not answer"));
    }
}
