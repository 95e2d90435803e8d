//! Every refusal by its code, the collars, and the state machine under random outcomes.

use super::{
    Entry, Error,
    lifecycle::{self, Event, Signal, TABLE},
    new_order::NewOrder,
    pricing,
};
use fafnir_proto::v1::{
    Instrument, Order, OrderState, OrderType, PendingAction, PlaceOrderRequest, Side, TimeInForce,
    TradingState,
};
use fafnir_rules::{check::Priced, order};
use proptest::prelude::*;

const NOW_US: i64 = 1_000_000_000;
const REFERENCE: Option<i64> = Some(2_310_000);

fn apple() -> Instrument {
    Instrument {
        symbol: "AAPL".into(),
        currency: "USD".into(),
        tick_e4: 100,
        lot_e4: 10_000,
        state: TradingState::Open.into(),
        previous_close_e4: 2_310_000,
        ..Instrument::default()
    }
}

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

fn check_with(
    request: &PlaceOrderRequest,
    instrument: &Instrument,
    reference: Option<i64>,
) -> Result<Priced, Error> {
    pricing::price(&NewOrder::parse(request, NOW_US)?, instrument, reference)
}

fn check(request: &PlaceOrderRequest) -> Result<Priced, Error> {
    check_with(request, &apple(), REFERENCE)
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
        (PlaceOrderRequest { quantity_e4: 15_000, ..limit() }, "QUANTITY_OFF_LOT", "lot 1"),
        (PlaceOrderRequest { price_e4: 0, ..limit() }, "PRICE_MISSING", "price"),
        (PlaceOrderRequest { price_e4: -100, ..limit() }, "PRICE_NOT_POSITIVE", "price"),
        (PlaceOrderRequest { price_e4: 2_310_050, ..limit() }, "PRICE_OFF_TICK", "tick 0.01"),
        (PlaceOrderRequest { price_e4: 3_465_100, ..limit() }, "PRICE_OUT_OF_BAND", "50 %"),
        (PlaceOrderRequest { price_e4: 1_154_900, ..limit() }, "PRICE_OUT_OF_BAND", "231"),
        (PlaceOrderRequest { price_e4: i64::MAX / 100 * 100, ..limit() }, "PRICE_OUT_OF_RANGE", "price"),
        (PlaceOrderRequest { price_e4: 2_310_000, ..market() }, "PRICE_NOT_ALLOWED", "MARKET"),
        (PlaceOrderRequest { price_e4: 2_310_000, ..stop() }, "PRICE_NOT_ALLOWED", "STOP"),
        (PlaceOrderRequest { stop_price_e4: 0, ..stop() }, "STOP_PRICE_MISSING", "stop_price"),
        (PlaceOrderRequest { stop_price_e4: -1, ..stop() }, "STOP_PRICE_NOT_POSITIVE", "stop_price"),
        (PlaceOrderRequest { stop_price_e4: 1, ..stop() }, "STOP_PRICE_OFF_TICK", "stop_price"),
        (PlaceOrderRequest { stop_price_e4: 100, ..stop() }, "STOP_PRICE_OUT_OF_BAND", "stop_price"),
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
        (
            PlaceOrderRequest { trail_amount_e4: 150, trail_percent_e4: 0, ..trailing() },
            "TRAIL_OFF_TICK",
            "trail_amount",
        ),
        (
            PlaceOrderRequest { trail_amount_e4: 1_155_100, trail_percent_e4: 0, ..trailing() },
            "TRAIL_OUT_OF_RANGE",
            "50 %",
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
            PlaceOrderRequest { display_quantity_e4: 15_000, ..limit() },
            "DISPLAY_QUANTITY_OFF_LOT",
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
fn an_instrument_that_does_not_trade_refuses_before_its_prices_are_looked_at() {
    let off_tick = PlaceOrderRequest { price_e4: 1, ..limit() };
    for (state, reason) in [(TradingState::Halted, "SYMBOL_HALTED"), (TradingState::Closed, "SYMBOL_CLOSED")]
    {
        let instrument = Instrument { state: state.into(), ..apple() };
        assert_eq!(check_with(&off_tick, &instrument, REFERENCE).unwrap_err().reason, reason);
    }
    // Shape comes before the instrument.
    let halted = Instrument { state: TradingState::Halted.into(), ..apple() };
    let shapeless = PlaceOrderRequest { quantity_e4: 0, ..limit() };
    assert_eq!(check_with(&shapeless, &halted, REFERENCE).unwrap_err().reason, "QUANTITY_NOT_POSITIVE");
    // The tick comes before the band.
    let both = PlaceOrderRequest { price_e4: 1, ..limit() };
    assert_eq!(check(&both).unwrap_err().reason, "PRICE_OFF_TICK");
}

#[test]
fn only_orders_that_name_their_price_do_without_a_reference() {
    for request in [market(), trailing()] {
        let refused = check_with(&request, &apple(), None).unwrap_err();
        assert_eq!(refused.reason, "NO_REFERENCE_PRICE");
    }
    for request in [limit(), stop()] {
        assert!(check_with(&request, &apple(), None).is_ok());
    }
    let refused = check_with(&PlaceOrderRequest { price_e4: 400_000_000_000, ..limit() }, &apple(), None);
    assert!(refused.is_ok(), "{refused:?}");
    let huge = PlaceOrderRequest { price_e4: 400_000_000_000, quantity_e4: 100_000_000_000, ..limit() };
    assert_eq!(check_with(&huge, &apple(), None).unwrap_err().reason, "ORDER_TOO_LARGE");
}

#[test]
fn the_band_includes_its_edges() {
    for price_e4 in [1_155_000, 3_465_000] {
        assert!(check(&PlaceOrderRequest { price_e4, ..limit() }).is_ok(), "{price_e4}");
    }
}

#[test]
fn the_hold_of_each_type_is_computed_from_its_worst_price() {
    let sell = |r: PlaceOrderRequest| PlaceOrderRequest { side: Side::Sell.into(), ..r };
    assert_eq!(check(&limit()), Ok(Priced { cap_e4: 2_310_000, stop_e4: 0 }));
    assert_eq!(check(&market()), Ok(Priced { cap_e4: 2_367_700, stop_e4: 0 }));
    assert_eq!(check(&stop()), Ok(Priced { cap_e4: 2_460_000, stop_e4: 2_400_000 }));
    // 1.5 % of 231 is 3.465: a buy starts at 234.47, a sell at 227.53.
    assert_eq!(check(&trailing()).unwrap().stop_e4, 2_344_700);
    assert_eq!(check(&sell(trailing())).unwrap().stop_e4, 2_275_300);
    let stop_limit =
        PlaceOrderRequest { stop_price_e4: 2_400_000, price_e4: 2_410_000, ..typed(OrderType::StopLimit) };
    assert_eq!(check(&stop_limit), Ok(Priced { cap_e4: 2_410_000, stop_e4: 2_400_000 }));
}

#[test]
fn a_market_order_is_immediate_and_everything_else_good_till_canceled() {
    assert_eq!(NewOrder::parse(&market(), NOW_US).unwrap().time_in_force, order::TimeInForce::Ioc);
    assert_eq!(NewOrder::parse(&limit(), NOW_US).unwrap().time_in_force, order::TimeInForce::Gtc);
}

fn entry() -> Entry {
    let order = Order {
        id: "1".into(),
        state: OrderState::PendingNew.into(),
        quantity_e4: 100_000,
        open_e4: 100_000,
        version: 1,
        ..Order::default()
    };
    Entry { order, cap_price_e4: 2_310_000, accepted: true, agent: false }
}

#[test]
fn the_table_leaves_no_terminal_state_and_names_each_step_once() {
    for (n, (from, signal, to)) in TABLE.iter().enumerate() {
        assert!(!from.has_ended());
        assert!(*to != OrderState::Unspecified);
        assert!(!TABLE[n + 1..].iter().any(|(f, s, _)| f == from && s == signal), "{from:?} {signal:?}");
    }
    for state in [OrderState::Filled, OrderState::Canceled, OrderState::Expired, OrderState::Rejected] {
        assert_eq!(lifecycle::next(state, Signal::Canceled), Some(state));
        assert_eq!(lifecycle::next(state, Signal::FilledPart), None);
    }
}

#[test]
fn a_fill_for_a_terminal_order_is_an_alarm_and_changes_nothing() {
    let mut entry = entry();
    entry.order.set_state(OrderState::Canceled);
    let before = entry.clone();
    let fill = Event::Filled { price_e4: 100, quantity_e4: 10_000, open_e4: 0 };
    assert!(lifecycle::apply(&mut entry, &fill, 1).is_err());
    assert_eq!(entry, before);
    assert_eq!(lifecycle::apply(&mut entry, &Event::Canceled { code: "USER".into() }, 1), Ok(false));
    assert_eq!(entry, before);
}

#[test]
fn a_cancel_on_its_way_outlives_a_replace() {
    let mut entry = entry();
    lifecycle::apply(&mut entry, &Event::Accepted { held: false, stop_e4: 0 }, 1).unwrap();
    entry.order.set_pending(PendingAction::Cancel);
    let replaced = Event::Replaced {
        version: 2,
        total_e4: 50_000,
        open_e4: 50_000,
        price_e4: 2_300_000,
        stop_e4: 0,
        cap_e4: Some(2_300_000),
    };
    lifecycle::apply(&mut entry, &replaced, 2).unwrap();
    assert_eq!((entry.order.version, entry.order.pending()), (2, PendingAction::Cancel));
    lifecycle::apply(&mut entry, &Event::Canceled { code: "USER".into() }, 3).unwrap();
    assert_eq!((entry.order.state(), entry.order.pending()), (OrderState::Canceled, PendingAction::None));
}

fn event() -> impl Strategy<Value = Event> {
    let lots = 1i64..12;
    prop_oneof![
        any::<bool>().prop_map(|held| Event::Accepted { held, stop_e4: 0 }),
        Just(Event::Rejected { code: "BOOK_FULL".into() }),
        Just(Event::Triggered),
        (1i64..500, lots.clone()).prop_map(|(price, lots)| Event::Filled {
            price_e4: price * 100,
            quantity_e4: lots * 10_000,
            open_e4: -1,
        }),
        Just(Event::Canceled { code: "USER".into() }),
        Just(Event::Expired { code: "DAY_END".into() }),
        (lots.clone(), 2u32..9).prop_map(|(lots, version)| Event::Replaced {
            version,
            total_e4: lots * 10_000,
            open_e4: -1,
            price_e4: 0,
            stop_e4: 0,
            cap_e4: None,
        }),
        Just(Event::ReplaceRejected),
        Just(Event::CancelRejected),
        lots.prop_map(|lots| Event::Decremented { quantity_e4: lots * 10_000, open_e4: -1 }),
    ]
}

proptest! {
    /// An engine that is right about the open quantity, in any order of outcomes.
    #[test]
    fn whatever_happens_filled_plus_open_is_the_quantity(events in prop::collection::vec(event(), 1..40)) {
        let mut entry = entry();
        let mut notional = 0;
        for (n, mut event) in events.into_iter().enumerate() {
            let before = entry.clone();
            let (filled, open) = (before.order.filled_e4, before.order.open_e4);
            match &mut event {
                Event::Filled { quantity_e4, open_e4, .. } | Event::Decremented { quantity_e4, open_e4 } => {
                    *open_e4 = (open - *quantity_e4).max(0);
                }
                Event::Replaced { total_e4, open_e4, .. } => *open_e4 = (*total_e4 - filled).max(0),
                _ => {}
            }
            match lifecycle::apply(&mut entry, &event, n as i64) {
                Err(_) => { prop_assert_eq!(&entry, &before); continue }
                Ok(false) => { prop_assert_eq!(&entry, &before); continue }
                Ok(true) => {}
            }
            if let Event::Filled { price_e4, quantity_e4, .. } = event {
                notional += price_e4 * quantity_e4 / 100;
            }
            let o = &entry.order;
            prop_assert!(!before.order.state().has_ended());
            prop_assert!(0 <= o.filled_e4 && o.filled_e4 <= o.quantity_e4);
            prop_assert_eq!(o.filled_notional_micros, notional);
            if o.state().has_ended() {
                prop_assert_eq!((o.open_e4, o.pending()), (0, PendingAction::None));
                prop_assert!(o.state() != OrderState::Filled || o.filled_e4 == o.quantity_e4);
            } else {
                prop_assert_eq!(o.filled_e4 + o.open_e4, o.quantity_e4);
            }
        }
    }
}
