//! Every refusal of a shape by its code, and what a batch of facts comes to.

use super::{
    Error,
    changes::{Changes, ClientOrder},
    new_order::NewOrder,
};
use fafnir_platform::agents;
use fafnir_proto::{
    id::UserId,
    v1::{
        Done, Fact, FactKind, Fill, Order, OrderState, OrderType, OrderUpdate, PlaceOrderRequest, RequestKey,
        Side, TimeInForce,
    },
};
use fafnir_rules::order;
use uuid::Uuid;

const NOW_US: i64 = 1_000_000_000;
const BOB: UserId = UserId::new(Uuid::from_u128(0xb0b));

/// BUY 5 AAPL at 231.
fn limit() -> PlaceOrderRequest {
    PlaceOrderRequest {
        symbol: "AAPL".into(),
        side: Side::Buy.into(),
        r#type: OrderType::Limit.into(),
        quantity_e4: 50_000,
        price_e4: 2_310_000,
        ..PlaceOrderRequest::default()
    }
}

fn typed(order_type: OrderType) -> PlaceOrderRequest {
    PlaceOrderRequest { r#type: order_type.into(), price_e4: 0, ..limit() }
}

fn market() -> PlaceOrderRequest {
    typed(OrderType::Market)
}

fn stop() -> PlaceOrderRequest {
    PlaceOrderRequest { stop_price_e4: 2_400_000, ..typed(OrderType::Stop) }
}

fn trailing() -> PlaceOrderRequest {
    PlaceOrderRequest { trail_percent_e4: 15_000, ..typed(OrderType::TrailingStop) }
}

fn check(request: &PlaceOrderRequest) -> Result<NewOrder, Error> {
    let new = NewOrder::parse(request)?;
    new.in_time(NOW_US)?;
    Ok(new)
}

/// A request, the code that it is refused with, and a word of the message.
type Refusal = (PlaceOrderRequest, &'static str, &'static str);

/// What is wrong with symbol, side, type, quantity and the prices.
fn refused_prices() -> Vec<Refusal> {
    vec![
        (PlaceOrderRequest { symbol: "A*".into(), ..limit() }, "SYMBOL_MALFORMED", "symbol"),
        (PlaceOrderRequest { side: 0, ..limit() }, "SIDE_UNKNOWN", "side"),
        (PlaceOrderRequest { side: 9, ..limit() }, "SIDE_UNKNOWN", "side"),
        (PlaceOrderRequest { r#type: 0, ..limit() }, "TYPE_UNKNOWN", "type"),
        (PlaceOrderRequest { quantity_e4: 0, ..limit() }, "QUANTITY_NOT_POSITIVE", "quantity"),
        (PlaceOrderRequest { quantity_e4: i64::MIN, ..limit() }, "QUANTITY_NOT_POSITIVE", "quantity"),
        (PlaceOrderRequest { quantity_e4: 100_000_010_000, ..limit() }, "QUANTITY_TOO_LARGE", "10000000"),
        (PlaceOrderRequest { quantity_e4: i64::MAX, ..limit() }, "QUANTITY_TOO_LARGE", "quantity"),
        (PlaceOrderRequest { price_e4: 0, ..limit() }, "PRICE_MISSING", "price"),
        (PlaceOrderRequest { price_e4: -100, ..limit() }, "PRICE_NOT_POSITIVE", "price"),
        (PlaceOrderRequest { price_e4: 2_310_000, ..market() }, "PRICE_NOT_ALLOWED", "MARKET"),
        (PlaceOrderRequest { price_e4: 2_310_000, ..stop() }, "PRICE_NOT_ALLOWED", "STOP"),
        (PlaceOrderRequest { stop_price_e4: 0, ..stop() }, "STOP_PRICE_MISSING", "stop_price"),
        (PlaceOrderRequest { stop_price_e4: -1, ..stop() }, "STOP_PRICE_NOT_POSITIVE", "stop_price"),
        (PlaceOrderRequest { stop_price_e4: 100, ..limit() }, "STOP_PRICE_NOT_ALLOWED", "stop_price"),
        (PlaceOrderRequest { trail_amount_e4: 100, ..limit() }, "TRAIL_NOT_ALLOWED", "trail"),
        (PlaceOrderRequest { trail_percent_e4: 0, ..trailing() }, "TRAIL_MISSING", "trail"),
        (PlaceOrderRequest { trail_percent_e4: 500_100, ..trailing() }, "TRAIL_OUT_OF_RANGE", "50"),
        (PlaceOrderRequest { trail_percent_e4: 15_001, ..trailing() }, "TRAIL_OUT_OF_RANGE", "decimals"),
        (PlaceOrderRequest { trail_amount_e4: 100, ..trailing() }, "TRAIL_AMBIGUOUS", "only one"),
        (
            PlaceOrderRequest { trail_amount_e4: -1, trail_percent_e4: 0, ..trailing() },
            "TRAIL_OUT_OF_RANGE",
            "trail_amount",
        ),
    ]
}

/// What is wrong with the rest.
fn refused_options() -> Vec<Refusal> {
    let tif = |t: TimeInForce, r: PlaceOrderRequest| PlaceOrderRequest { time_in_force: t.into(), ..r };
    vec![
        (PlaceOrderRequest { post_only: true, ..market() }, "POST_ONLY_NOT_ALLOWED", "post_only"),
        (
            tif(TimeInForce::Ioc, PlaceOrderRequest { post_only: true, ..limit() }),
            "POST_ONLY_NOT_ALLOWED",
            "post_only",
        ),
        (
            PlaceOrderRequest { display_quantity_e4: 60_000, ..limit() },
            "DISPLAY_QUANTITY_OUT_OF_RANGE",
            "display_quantity",
        ),
        (
            PlaceOrderRequest { display_quantity_e4: -1, ..limit() },
            "DISPLAY_QUANTITY_OUT_OF_RANGE",
            "display_quantity",
        ),
        (
            PlaceOrderRequest { display_quantity_e4: 10_000, ..market() },
            "DISPLAY_QUANTITY_NOT_ALLOWED",
            "display_quantity",
        ),
        (tif(TimeInForce::Day, market()), "TIME_IN_FORCE_NOT_ALLOWED", "time_in_force"),
        (tif(TimeInForce::Fok, stop()), "TIME_IN_FORCE_NOT_ALLOWED", "STOP"),
        (tif(TimeInForce::Gtd, limit()), "EXPIRY_MISSING", "expires_at"),
        (
            tif(TimeInForce::Gtd, PlaceOrderRequest { expires_us: NOW_US, ..limit() }),
            "EXPIRY_IN_THE_PAST",
            "expires_at",
        ),
        (
            tif(TimeInForce::Gtd, PlaceOrderRequest { expires_us: i64::MAX, ..limit() }),
            "EXPIRY_TOO_FAR",
            "366 days",
        ),
        (PlaceOrderRequest { expires_us: NOW_US + 1, ..limit() }, "EXPIRY_NOT_ALLOWED", "expires_at"),
        (PlaceOrderRequest { client_order_id: "x".repeat(65), ..limit() }, "CLIENT_ORDER_ID_TOO_LONG", "64"),
        (
            PlaceOrderRequest { client_order_id: "a\u{1b}[31m".into(), ..limit() },
            "CLIENT_ORDER_ID_MALFORMED",
            "client_order_id",
        ),
        (PlaceOrderRequest { account_id: "1".into(), ..limit() }, "ID_MALFORMED", "account_id"),
    ]
}

#[test]
fn each_refusal_has_its_own_code_and_names_its_field() {
    for (request, reason, words) in refused_prices().into_iter().chain(refused_options()) {
        let refused = check(&request).expect_err(reason);
        assert_eq!(refused.reason, reason, "{request:?}");
        assert!(refused.message.contains(words), "{reason}: {}", refused.message);
    }
}

#[test]
fn a_market_order_is_immediate_and_everything_else_good_till_canceled() {
    assert_eq!(check(&market()).unwrap().time_in_force, order::TimeInForce::Ioc);
    assert_eq!(check(&limit()).unwrap().time_in_force, order::TimeInForce::Gtc);
}

#[test]
fn a_command_asks_for_what_the_request_did() {
    let requests = [
        market(),
        PlaceOrderRequest { display_quantity_e4: 10_000, post_only: true, ..limit() },
        PlaceOrderRequest { time_in_force: TimeInForce::Gtd.into(), expires_us: NOW_US + 1, ..limit() },
        stop(),
        PlaceOrderRequest { stop_price_e4: 2_400_000, price_e4: 1, ..typed(OrderType::StopLimit) },
        trailing(),
        PlaceOrderRequest { trail_amount_e4: 100, trail_percent_e4: 0, ..trailing() },
    ];
    for request in requests {
        let id = Uuid::from_u128(7);
        let command = check(&request).unwrap().command(id);
        let again = PlaceOrderRequest {
            symbol: command.symbol,
            side: command.side,
            r#type: command.r#type,
            time_in_force: request.time_in_force,
            quantity_e4: command.quantity_e4,
            price_e4: command.price_e4,
            stop_price_e4: command.stop_price_e4,
            trail_amount_e4: command.trail_amount_e4,
            trail_percent_e4: command.trail_percent_e4,
            display_quantity_e4: command.display_quantity_e4,
            post_only: command.post_only,
            expires_us: command.expires_us,
            account_id: command.account_id,
            ..PlaceOrderRequest::default()
        };
        assert_eq!((again, command.order_id), (request, id.to_string()));
        assert!(command.time_in_force != 0 && command.stp != 0);
    }
}

fn order_of(user: UserId, number: u128, state: OrderState, filled_e4: i64) -> Order {
    Order {
        id: Uuid::from_u128(number).to_string(),
        user_id: user.to_string(),
        symbol: "AAPL".into(),
        side: Side::Buy.into(),
        state: state.into(),
        quantity_e4: 50_000,
        filled_e4,
        updated_us: 9,
        ..Order::default()
    }
}

fn about(position: u64, kind: FactKind, orders: Vec<(Order, u64)>) -> Fact {
    let fill = |order: &Order| (kind == FactKind::Executed).then(|| fill_of(order));
    let update = |(order, user_seq): (Order, u64)| OrderUpdate {
        user_id: order.user_id.clone(),
        user_seq,
        fill: fill(&order),
        order: Some(order),
    };
    let orders = orders.into_iter().map(update).collect();
    Fact { position, kind: kind.into(), symbol: "AAPL".into(), exec_seq: position, orders, ..Fact::default() }
}

fn fill_of(order: &Order) -> Fill {
    Fill { order_id: order.id.clone(), price_e4: 100, quantity_e4: 10_000, ..Fill::default() }
}

#[test]
fn of_a_batch_the_last_word_on_each_order_is_left() {
    let agent = agents::agent_id(1);
    let mut accepted = about(8, FactKind::Accepted, vec![(order_of(BOB, 1, OrderState::New, 0), 1)]);
    accepted.user_id = BOB.to_string();
    accepted.key = Some(RequestKey { key: "mine".into(), payload: vec![7; 16], looked_until: 3 });
    accepted.done = Some(Done { object_id: Uuid::from_u128(1).to_string(), ..Done::default() });
    let taken = |state, filled| order_of(BOB, 1, state, filled);
    let made = |filled| order_of(agent, 2, OrderState::PartiallyFilled, filled);
    let facts = vec![
        accepted,
        about(
            9,
            FactKind::Executed,
            vec![(taken(OrderState::PartiallyFilled, 10_000), 2), (made(10_000), 0)],
        ),
        about(
            10,
            FactKind::Executed,
            vec![(taken(OrderState::PartiallyFilled, 20_000), 3), (made(20_000), 0)],
        ),
        Fact { position: 11, kind: FactKind::Money.into(), ..Fact::default() },
        about(12, FactKind::Canceled, vec![(taken(OrderState::Canceled, 20_000), 4)]),
    ];
    let changes = Changes::read(7, facts).unwrap();
    assert_eq!((changes.from, changes.to, changes.open_orders), (7, 12, 0));
    let [bobs, agents] = &changes.orders[..] else { panic!("{:?}", changes.orders) };
    assert_eq!((bobs.is_new, bobs.order.state(), bobs.ended_us()), (true, OrderState::Canceled, 9));
    assert_eq!((bobs.first_fill, bobs.last_fill), (9 * 16, 10 * 16));
    assert_eq!((agents.is_new, agents.order.filled_e4, agents.ended_us()), (false, 20_000, 0));
    assert_eq!((agents.first_fill, agents.last_fill), (9 * 16 + 1, 10 * 16 + 1));
    assert_eq!(changes.fills.iter().map(|f| f.id).collect::<Vec<_>>(), [144, 145, 160, 161]);
    assert_eq!(changes.events.iter().map(|e| e.update.user_seq).collect::<Vec<_>>(), [1, 2, 3, 4]);
    let mine = ClientOrder {
        user: BOB,
        client_order_id: "mine".into(),
        payload: vec![7; 16],
        order: Uuid::from_u128(1),
    };
    assert_eq!(changes.client_orders, [mine]);
}

#[test]
fn what_cannot_be_is_said_and_not_read() {
    let open = || order_of(BOB, 1, OrderState::New, 0);
    let accepted = |position| about(position, FactKind::Accepted, vec![(open(), 1)]);
    let canceled =
        |position| about(position, FactKind::Canceled, vec![(order_of(BOB, 1, OrderState::Canceled, 0), 2)]);
    let cases = [
        (vec![accepted(2)], "follows"),
        (vec![accepted(1), canceled(3)], "follows"),
        (vec![accepted(1), accepted(2)], "there before"),
        (vec![accepted(1), canceled(2), canceled(3)], "had ended"),
        (vec![about(1, FactKind::Accepted, vec![])], "0 orders"),
        (vec![about(1, FactKind::Expired, vec![(Order::default(), 1)])], "user_id"),
        (vec![about(1, FactKind::Expired, vec![(order_of(BOB, 1, OrderState::New, 60_000), 1)])], "60000"),
        (vec![about(1, FactKind::Expired, vec![(Order { state: 0, ..open() }, 1)])], "state"),
        (vec![about(1, FactKind::Expired, vec![(Order { id: "1".into(), ..open() }, 1)])], "UUID"),
    ];
    for (facts, words) in cases {
        let last = facts.last().unwrap().position;
        let refused = Changes::read(0, facts).unwrap_err();
        assert!(refused.what.contains(words), "{refused}");
        assert_eq!(refused.position, last);
    }
}
