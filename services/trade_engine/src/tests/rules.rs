//! What a command comes to, as facts tell it.

use super::{bench::*, support::*};
use fafnir_clearing::command::Instruction;
use fafnir_proto::v1::{self, FactKind, OrderState, Side, TradingState, command::What};
use fafnir_rules::limits;

fn bench() -> Bench {
    Bench::new(listing("AAPL"))
}

/// The order that a fact is about, as it is after it.
fn order_of(fact: &v1::Fact) -> &v1::Order {
    fact.orders[0].order.as_ref().unwrap()
}

#[test]
fn a_trade_prints_at_the_makers_price_and_names_both_sides() {
    let mut bench = bench();
    bench.limit(1, Side::Sell, 5, 9_900);
    let facts = bench.limit(2, Side::Buy, 3, 10_100);
    let trade = facts.last().unwrap();
    assert_eq!((trade.price_e4, trade.quantity_e4, trade.trade_no), (990_000, 30_000, 1));
    let users: Vec<_> = trade.orders.iter().map(|o| o.user_id.clone()).collect();
    assert_eq!(users, [user_id(2).to_string(), user_id(1).to_string()]);
    assert_eq!(
        (trade.payer_ref.clone(), trade.payee_ref.clone()),
        (order_id(2).to_string(), order_id(1).to_string())
    );
    let fills: Vec<_> = trade.orders.iter().map(|o| o.fill.as_ref().unwrap().maker).collect();
    assert_eq!(fills, [false, true]);
}

#[test]
fn prices_off_tick_and_quantities_off_lot_are_refused_and_change_nothing() {
    let mut bench = bench();
    let off = |change: fn(&mut v1::PlaceCommand)| {
        order(1, Side::Buy, 1, |place| {
            place.price_e4 = 1_000_000;
            change(place);
        })
    };
    for (what, reason) in [
        (off(|p| p.price_e4 += 1), "PRICE_OFF_TICK"),
        (off(|p| p.quantity_e4 += 1), "QUANTITY_OFF_LOT"),
        (off(|p| p.display_quantity_e4 = 5_000), "DISPLAY_QUANTITY_OFF_LOT"),
    ] {
        assert_eq!(bench.refused(1, what), reason);
    }
    assert_eq!(bench.state.open_orders(), 0);
}

#[test]
fn a_replace_counts_versions_and_tells_the_new_total() {
    let mut bench = bench();
    bench.limit(1, Side::Sell, 5, 10_000);
    let replace = |quantity: i64, version| {
        What::Replace(v1::ReplaceCommand {
            order_id: order_id(1).to_string(),
            quantity_e4: quantity * 10_000,
            version,
            ..Default::default()
        })
    };
    assert_eq!(bench.refused(1, replace(4, 2)), "VERSION_DIFFERS");
    assert_eq!(bench.refused(2, replace(4, 0)), "ORDER_NOT_OPEN");
    let facts = bench.of(1, replace(4, 1));
    assert_eq!(kinds(&facts), [FactKind::Replaced]);
    let after = order_of(&facts[0]);
    assert_eq!((after.version, after.quantity_e4, after.open_e4), (2, 40_000, 40_000));
    bench.limit(2, Side::Buy, 3, 10_000);
    assert_eq!(bench.refused(1, replace(3, 0)), "BELOW_FILLED");
}

#[test]
fn a_halt_refuses_new_orders_and_lets_cancels_through() {
    let mut bench = bench();
    bench.limit(1, Side::Sell, 5, 10_000);
    assert_eq!(bench.state_to(TradingState::Halted)[0].state(), TradingState::Halted);
    assert_eq!(bench.refused(2, limit(2, "AAPL", Side::Buy, 1, 10_000)), "SYMBOL_HALTED");
    let facts = bench.of(1, cancel(1));
    assert_eq!((kinds(&facts), facts[0].reason.as_str()), (vec![FactKind::Canceled], "USER"));
    assert!(bench.state_to(TradingState::Halted).is_empty());
}

#[test]
fn a_held_stop_is_accepted_held_and_triggers_on_the_last_trade() {
    let mut bench = bench();
    let stop = order(1, Side::Buy, 1, |place| {
        place.set_type(v1::OrderType::Stop);
        place.stop_price_e4 = 1_010_000;
    });
    assert_eq!(order_of(&bench.of(1, stop)[0]).state(), OrderState::Held);
    bench.limit(2, Side::Sell, 2, 10_100);
    let facts = bench.limit(3, Side::Buy, 1, 10_100);
    let expected = [FactKind::Accepted, FactKind::Executed, FactKind::Triggered, FactKind::Executed];
    assert_eq!(kinds(&facts), expected);
    assert_eq!(order_of(&facts[3]).id, order_id(1).to_string());
}

#[test]
fn decrement_takes_both_sides_down_in_one_fact() {
    let mut bench = bench();
    let with = |n: u64, side, shares| {
        order(n, side, shares, |place| {
            place.price_e4 = 1_000_000;
            place.set_stp(v1::StpMode::Decrement);
        })
    };
    bench.of(1, with(1, Side::Sell, 5));
    let facts = bench.of(1, with(2, Side::Buy, 3));
    let told = facts.iter().find(|f| f.kind() == FactKind::Decremented).unwrap();
    assert_eq!((told.orders.len(), told.quantity_e4, told.reason.as_str()), (2, 30_000, "SELF_TRADE"));
    let maker = told.orders[1].order.as_ref().unwrap();
    assert_eq!((maker.quantity_e4, maker.open_e4), (20_000, 20_000));
}

#[test]
fn the_day_end_expires_day_orders() {
    let mut bench = bench();
    bench.limit(1, Side::Sell, 5, 10_000);
    bench.of(
        1,
        order(2, Side::Sell, 5, |place| {
            place.price_e4 = 1_000_000;
            place.set_time_in_force(v1::TimeInForce::Day);
        }),
    );
    let facts = bench.own(Instruction::DayEnd);
    assert_eq!((kinds(&facts), facts[0].reason.as_str()), (vec![FactKind::Expired], "DAY_END"));
    assert_eq!(order_of(&facts[0]).reject_reason, "expired at the end of the trading day");
}

#[test]
fn cancel_all_reaches_no_stranger() {
    let mut bench = bench();
    bench.limit(1, Side::Sell, 5, 10_000);
    bench.of(1, limit(3, "AAPL", Side::Sell, 5, 10_100));
    bench.limit(2, Side::Sell, 5, 10_000);
    let facts = bench.of(1, What::CancelAll(v1::CancelAllCommand::default()));
    assert_eq!(kinds(&facts), [FactKind::Canceled, FactKind::Canceled]);
    assert_eq!(bench.state.open_orders(), 1);
}

#[test]
fn the_book_and_the_rules_have_the_same_limits() {
    assert_eq!(limits::TICKS_MAX, i64::from(fafnir_matching::MAX_PRICE));
    assert_eq!(limits::ICEBERG_PARTS_MAX, fafnir_matching::MAX_PARTS as i64);
    assert_eq!(limits::VOLATILITY_BAND_BPS_MAX, fafnir_matching::MAX_BAND_BPS);
}
