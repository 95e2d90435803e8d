//! One test for each rule that the ticket checks before the exchange does.

use super::*;
use crate::{
    model::{Ids, Model},
    text,
    theme::Theme,
};
use fafnir_proto::v1::{PendingAction, TimeInForce, TradingState};

/// 2026-11-22 12:04:30 UTC.
const NOW_US: i64 = 1_795_349_070_000_000;
const ACCOUNT: &str = "11111111-1111-4111-8111-111111111111";

/// AAPL at 231.07 with a tick of 0.01 and a lot of 10; 1,000,000 USD and 500 shares.
fn market() -> Model {
    let mut model = Model::new(NOW_US, (120, 40), Theme::default(), Ids::new("test"));
    let instrument = v1::Instrument {
        symbol: "AAPL".into(),
        currency: "USD".into(),
        tick_e4: 100,
        lot_e4: 100_000,
        state: TradingState::Open.into(),
        previous_close_e4: 2_310_700,
        ..Default::default()
    };
    model.instruments.insert("AAPL".into(), instrument);
    model.symbol = "AAPL".into();
    model.holdings.take_account(v1::Account {
        id: ACCOUNT.into(),
        r#type: v1::AccountType::Investment.into(),
        currency: "USD".into(),
        available_micros: 1_000_000_000_000,
        ..Default::default()
    });
    model.holdings.take_position(v1::Holding {
        account_id: ACCOUNT.into(),
        symbol: "AAPL".into(),
        quantity_e4: 5_000_000,
        available_e4: 5_000_000,
        ..Default::default()
    });
    model
}

fn ticket(kind: OrderType, time_in_force: TimeInForce) -> Ticket {
    Ticket {
        kind,
        time_in_force,
        quantity: Input::new("100"),
        price: Input::new("231.07"),
        stop: Input::new("232"),
        trail: Input::new("0.50"),
        ..Ticket::new("AAPL", Side::Buy, "id-1".into())
    }
}

fn limit() -> Ticket {
    ticket(OrderType::Limit, TimeInForce::Gtc)
}

fn set_state(model: &mut Model, state: TradingState) {
    model.instruments.get_mut("AAPL").unwrap().state = state.into();
}

fn refusal(model: &Model, ticket: &Ticket) -> (Option<Field>, String) {
    match ticket.validate(model) {
        Err(refusal) => (refusal.field, refusal.text),
        Ok(request) => panic!("taken: {request:?}"),
    }
}

fn placed(model: &Model, ticket: &Ticket) -> PlaceOrderRequest {
    match ticket.validate(model) {
        Ok(Request::Place(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_trail_is_an_amount_or_a_percentage_in_the_exchanges_range() {
    let model = market();
    let with = |trail: &str| Ticket {
        trail: Input::new(trail),
        ..ticket(OrderType::TrailingStop, TimeInForce::Gtc)
    };
    for (trail, want) in [
        ("", "trail_amount or trail_percent is missing: a TRAILING_STOP order needs one"),
        ("0", "trail_amount must be above 0"),
        ("1.2.3", "trail_amount is not a decimal number"),
        ("0.00001", "trail_amount has more than 4 decimals"),
        ("0.005", "trail_amount must be a multiple of the tick 0.01"),
        ("115.54", "the trail must be at most 50 % of the reference price 231.07"),
        ("0%", "trail_percent must be from 0.01 to 50 with at most 2 decimals"),
        ("0.001%", "trail_percent must be from 0.01 to 50 with at most 2 decimals"),
        ("1.005%", "trail_percent must be from 0.01 to 50 with at most 2 decimals"),
        ("50.01%", "trail_percent must be from 0.01 to 50 with at most 2 decimals"),
        ("%", "trail_percent is not a decimal number"),
    ] {
        assert_eq!(refusal(&model, &with(trail)), (Some(Field::Trail), want.to_owned()), "{trail}");
    }
    let amount = placed(&model, &with("0.50"));
    assert_eq!((amount.trail_amount_e4, amount.trail_percent_e4), (5_000, 0));
    assert_eq!((amount.price_e4, amount.stop_price_e4, amount.r#type()), (0, 0, OrderType::TrailingStop));
    let percent = placed(&model, &with("1.5%"));
    assert_eq!((percent.trail_amount_e4, percent.trail_percent_e4), (0, 15_000));
    for widest in ["115.53", "50%", "0.01%"] {
        placed(&model, &with(widest));
    }
}

#[test]
fn a_trailing_stop_starts_behind_the_reference_on_the_tick_at_the_far_side() {
    let model = market();
    let start = |side: Side, trail: &str| {
        let kind = ticket(OrderType::TrailingStop, TimeInForce::Gtc);
        Ticket { side, trail: Input::new(trail), ..kind }.trailing_start_e4(&model)
    };
    assert_eq!(start(Side::Sell, "0.50"), Some(2_305_700));
    assert_eq!(start(Side::Buy, "0.50"), Some(2_315_700));
    // 1.5 % of 231.07 is 3.4660.
    assert_eq!(start(Side::Sell, "1.5%"), Some(2_276_000));
    assert_eq!(start(Side::Buy, "1.5%"), Some(2_345_400));
    assert_eq!(start(Side::Buy, ""), None);
}

#[test]
fn a_trailing_stop_and_a_market_order_need_a_reference() {
    let mut model = market();
    model.instruments.get_mut("AAPL").unwrap().previous_close_e4 = 0;
    let text = |kind, time| refusal(&model, &ticket(kind, time)).1;
    assert_eq!(
        text(OrderType::TrailingStop, TimeInForce::Gtc),
        "a trailing stop needs a reference price, and there is none yet"
    );
    assert_eq!(
        text(OrderType::Market, TimeInForce::Ioc),
        "a market order needs a reference price, and there is none yet"
    );
}

#[test]
fn a_gtd_order_needs_an_expiry_ahead_and_within_366_days() {
    let model = market();
    let with =
        |expires: &str| Ticket { expires: Input::new(expires), ..ticket(OrderType::Limit, TimeInForce::Gtd) };
    for (expires, want) in [
        ("", "expires_at is missing: time in force GTD needs one"),
        ("2026-11-22 12:00", "expires_at must be in the future"),
        ("+367d", "expires_at must be within 366 days"),
        ("later", "expires_at reads 18:30, +2h, +3d or 2026-11-25 18:30 (UTC)"),
    ] {
        assert_eq!(refusal(&model, &with(expires)), (Some(Field::Expires), want.to_owned()), "{expires}");
    }
    assert_eq!(placed(&model, &with("+2h")).expires_us, NOW_US + 7_200_000_000);
    let gtc = Ticket { expires: Input::new("+2h"), ..limit() };
    assert_eq!(placed(&model, &gtc).expires_us, 0, "another time in force has no expiry");
}

#[test]
fn an_iceberg_shows_a_part_of_whole_lots_and_not_too_many_parts() {
    let model = market();
    let with = |quantity: &str, display: &str| Ticket {
        quantity: Input::new(quantity),
        display: Input::new(display),
        ..limit()
    };
    let most = "display_quantity must be above 0 and at most the quantity 100";
    for (quantity, display, want) in [
        ("100", "0", most),
        ("100", "110", most),
        ("100", "1.2.", "display_quantity is not a decimal number"),
        ("100", "15", "display_quantity must be a multiple of the lot 10"),
        (
            "20000",
            "10",
            "display_quantity 10 must be at least a 1000th of the quantity 20000: an iceberg shows at most 1000 parts",
        ),
    ] {
        assert_eq!(
            refusal(&model, &with(quantity, display)),
            (Some(Field::Display), want.to_owned()),
            "{quantity} {display}"
        );
    }
    assert_eq!(placed(&model, &with("100", "20")).display_quantity_e4, 200_000);
    assert_eq!(placed(&model, &with("100", "")).display_quantity_e4, 0);
}

#[test]
fn only_what_rests_with_a_limit_hides_and_only_a_resting_limit_is_post_only() {
    use OrderType::{Limit, Market, Stop, StopLimit, TrailingStop};
    use TimeInForce::{Cls, Day, Fok, Gtc, Gtd, Ioc};
    for (kind, time, hides, posts) in [
        (Limit, Gtc, true, true),
        (Limit, Day, true, true),
        (Limit, Gtd, true, true),
        (Limit, Ioc, false, false),
        (Limit, Fok, false, false),
        (Limit, Cls, false, false),
        (StopLimit, Gtc, true, false),
        (Stop, Gtc, false, false),
        (TrailingStop, Gtc, false, false),
        (Market, Ioc, false, false),
    ] {
        let fields = ticket(kind, time).fields();
        assert_eq!(fields.contains(&Field::Display), hides, "{kind:?} {time:?}");
        assert_eq!(fields.contains(&Field::PostOnly), posts, "{kind:?} {time:?}");
        let asked = Ticket {
            post_only: true,
            display: Input::new("20"),
            expires: Input::new("+2h"),
            ..ticket(kind, time)
        };
        let request = placed(&market(), &asked);
        assert_eq!((request.display_quantity_e4 > 0, request.post_only), (hides, posts), "{kind:?} {time:?}");
    }
}

#[test]
fn a_type_offers_only_the_times_in_force_that_the_exchange_takes() {
    use TimeInForce::{Cls, Fok, Gtc, Gtd, Ioc, Opg};
    let mut ticket = Ticket { field: Field::Type, ..ticket(OrderType::Limit, Gtc) };
    ticket.step(true, 100, 10_000);
    assert_eq!((ticket.kind, ticket.time_in_force), (OrderType::Market, Ioc));
    assert_eq!(ticket.times(), [Ioc, Fok, Opg, Cls]);
    ticket.step(true, 100, 10_000);
    assert_eq!((ticket.kind, ticket.time_in_force), (OrderType::Stop, Gtc));
    assert!(!ticket.times().contains(&Fok) && ticket.times().contains(&Gtd));
    ticket.step(false, 100, 10_000);
    ticket.step(false, 100, 10_000);
    assert_eq!(ticket.kind, OrderType::Limit);
    assert!(ticket.times().contains(&Fok) && ticket.times().contains(&Gtd));
}

#[test]
fn a_symbol_that_does_not_trade_says_so_before_the_order_goes() {
    let mut model = market();
    set_state(&mut model, TradingState::Halted);
    assert_eq!(refusal(&model, &limit()), (None, "trading in symbol AAPL is halted".into()));
    set_state(&mut model, TradingState::Closed);
    assert_eq!(refusal(&model, &limit()).1, "symbol AAPL is closed for trading");
    for call in [TradingState::PreOpen, TradingState::Auction] {
        set_state(&mut model, call);
        placed(&model, &limit());
        placed(&model, &ticket(OrderType::Stop, TimeInForce::Day));
        // It waits for the auction.
        placed(&model, &ticket(OrderType::Market, TimeInForce::Ioc));
        for (kind, time, field) in [
            (OrderType::Limit, TimeInForce::Ioc, Field::TimeInForce),
            (OrderType::Limit, TimeInForce::Fok, Field::TimeInForce),
        ] {
            let want = "symbol AAPL gathers orders for an auction: time in force FOK, and IOC but of a MARKET order, are not \
                        taken";
            assert_eq!(refusal(&model, &ticket(kind, time)), (Some(field), want.into()));
        }
    }
    set_state(&mut model, TradingState::PreOpen);
    placed(&model, &ticket(OrderType::Limit, TimeInForce::Opg));
    placed(&model, &ticket(OrderType::Market, TimeInForce::Opg));
    set_state(&mut model, TradingState::Open);
    let late = refusal(&model, &ticket(OrderType::Limit, TimeInForce::Opg));
    assert_eq!(late.0, Some(Field::TimeInForce));
    assert!(late.1.contains("OPG is for the opening auction"), "{}", late.1);
}

#[test]
fn the_engines_word_about_a_symbol_counts_before_the_listings() {
    let mut model = market();
    let book = |state: TradingState| v1::BookImage {
        symbol: "AAPL".into(),
        state: state.into(),
        ..Default::default()
    };
    model.book = Some(book(TradingState::Halted));
    assert_eq!(model.trading_state("AAPL"), TradingState::Halted);
    model.book = Some(v1::BookImage { symbol: "MSFT".into(), ..book(TradingState::Halted) });
    assert_eq!(model.trading_state("AAPL"), TradingState::Open);
}

#[test]
fn shape_comes_before_the_instrument_and_the_instrument_before_the_funds() {
    let mut model = market();
    set_state(&mut model, TradingState::Halted);
    let wrong = Ticket { display: Input::new("1000000"), quantity: Input::new("5"), ..limit() };
    assert_eq!(refusal(&model, &wrong).0, Some(Field::Display));
    let off_lot = Ticket { quantity: Input::new("5"), ..limit() };
    assert_eq!(refusal(&model, &off_lot).1, "trading in symbol AAPL is halted");
    set_state(&mut model, TradingState::Open);
    assert_eq!(refusal(&model, &off_lot).1, "quantity must be a multiple of the lot 10");
    let dear = Ticket { quantity: Input::new("9999990"), price: Input::new("400"), ..limit() };
    assert_eq!(refusal(&model, &dear).0, Some(Field::Price));
    let dear = Ticket { quantity: Input::new("9999990"), ..limit() };
    assert!(refusal(&model, &dear).1.starts_with("not enough cash"));
}

#[test]
fn a_buy_with_a_stop_is_held_at_its_collar() {
    let model = market();
    let notional = |kind| ticket(kind, TimeInForce::Gtc).notional_micros(&model).map(text::cents);
    assert_eq!(notional(OrderType::Limit).as_deref(), Some("23,107.00"));
    // 232 + 2.5 % = 237.80; 231.57 + 2.5 % = 237.3592…
    assert_eq!(notional(OrderType::Stop).as_deref(), Some("23,780.00"));
    assert_eq!(notional(OrderType::TrailingStop).as_deref(), Some("23,735.00"));
}

/// An open order for 100, of which 40 are filled, in a model that knows it.
fn resting(kind: OrderType, state: OrderState) -> (Model, v1::Order) {
    let mut model = market();
    let order = v1::Order {
        id: "0197a8b0-0000-7000-8000-000000008f3a".into(),
        account_id: ACCOUNT.into(),
        symbol: "AAPL".into(),
        side: Side::Buy.into(),
        r#type: kind.into(),
        time_in_force: TimeInForce::Gtc.into(),
        state: state.into(),
        quantity_e4: 1_000_000,
        filled_e4: 400_000,
        price_e4: if kind == OrderType::Limit { 2_310_000 } else { 0 },
        stop_price_e4: if kind == OrderType::Limit { 0 } else { 2_320_000 },
        version: 3,
        ..Default::default()
    };
    model.holdings.take_order(order.clone());
    (model, order)
}

fn replaced(model: &Model, ticket: &Ticket) -> ReplaceOrderRequest {
    match ticket.validate(model) {
        Ok(Request::Replace(request)) => request,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_replace_sends_what_changes_and_the_version_that_was_seen() {
    let (model, order) = resting(OrderType::Limit, OrderState::PartiallyFilled);
    let ticket = Ticket::replacing(&order, "id".into());
    assert_eq!((ticket.quantity.text(), ticket.price.text()), ("100", "231"));
    assert_eq!(refusal(&model, &ticket).1, "nothing changes yet: give another quantity or price");
    let dearer = Ticket { price: Input::new("231.05"), ..ticket.clone() };
    let request = replaced(&model, &dearer);
    assert_eq!(
        (request.quantity_e4, request.price_e4, request.stop_price_e4, request.version),
        (0, 2_310_500, 0, 3)
    );
    let more = Ticket { quantity: Input::new("120"), ..ticket };
    assert_eq!(replaced(&model, &more).quantity_e4, 1_200_000);
}

#[test]
fn a_replace_is_checked_like_a_new_order() {
    let (model, order) = resting(OrderType::Limit, OrderState::PartiallyFilled);
    let with = |quantity: &str, price: &str| Ticket {
        quantity: Input::new(quantity),
        price: Input::new(price),
        ..Ticket::replacing(&order, "id".into())
    };
    for (quantity, price, want) in [
        ("", "231", "quantity is missing"),
        ("105", "231", "quantity must be a multiple of the lot 10"),
        ("40", "231", "quantity must be above the 40 already filled"),
        ("100", "231.005", "price must be a multiple of the tick 0.01"),
        ("100", "10", "price must be within 50 % of the reference: 115.54 to 346.60"),
        ("9000000", "231", "not enough cash: needs 2,078,976,900.00, available 1,000,000.00 USD"),
    ] {
        assert_eq!(refusal(&model, &with(quantity, price)).1, want, "{quantity} {price}");
    }
}

#[test]
fn a_replace_of_an_iceberg_keeps_its_parts_within_the_limit() {
    let (mut model, order) = resting(OrderType::Limit, OrderState::New);
    let order = v1::Order { display_quantity_e4: 100_000, filled_e4: 0, version: 4, ..order };
    model.holdings.take_order(order.clone());
    let large = Ticket { quantity: Input::new("10010"), ..Ticket::replacing(&order, "id".into()) };
    assert_eq!(refusal(&model, &large).0, Some(Field::Quantity));
    assert!(refusal(&model, &large).1.contains("an iceberg shows at most 1000 parts"));
}

#[test]
fn the_stop_of_a_triggered_order_cannot_be_changed() {
    let (mut model, order) = resting(OrderType::Stop, OrderState::Held);
    let ticket = Ticket { stop: Input::new("233"), ..Ticket::replacing(&order, "id".into()) };
    assert_eq!(ticket.fields(), [Field::Quantity, Field::Stop]);
    assert_eq!(replaced(&model, &ticket).stop_price_e4, 2_330_000);
    model.holdings.take_order(v1::Order { state: OrderState::PartiallyFilled.into(), ..order });
    assert_eq!(
        refusal(&model, &ticket).1,
        "stop_price cannot be changed: the stop of order 8f3a was triggered"
    );
}

#[test]
fn an_order_that_changed_or_ended_meanwhile_is_not_replaced() {
    let (model, order) = resting(OrderType::Limit, OrderState::New);
    let ticket = Ticket { price: Input::new("231.05"), ..Ticket::replacing(&order, "id".into()) };
    let after = |change: v1::Order| {
        let mut model = model.clone();
        model.holdings.take_order(change);
        refusal(&model, &ticket).1
    };
    assert_eq!(
        after(v1::Order { version: 4, ..order.clone() }),
        "version of order 8f3a is 4, not 3: close and open it again"
    );
    assert_eq!(
        after(v1::Order { pending: PendingAction::Cancel.into(), ..order.clone() }),
        "a cancel of order 8f3a is already on its way"
    );
    assert_eq!(
        after(v1::Order { pending: PendingAction::Replace.into(), ..order.clone() }),
        "a replace of order 8f3a is already on its way"
    );
    assert_eq!(
        after(v1::Order { state: OrderState::Filled.into(), ..order }),
        "order 8f3a has ended: FILLED"
    );
}
