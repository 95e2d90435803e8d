//! What the ticket and the orders look like with a trail, an expiry, a hidden part, and as a replace.

use crate::{
    common::*,
    screens::{draw, render},
};
use crossterm::event::KeyCode;
use fafnir_proto::v1::{self, GroupLeg, OrderState, OrderType, Side, TimeInForce};
use fafnir_tui::{Theme, model::Model, msg::Event, theme::Depth};

const SIZES: [(u16, u16); 2] = [(120, 40), (80, 24)];

fn snapshots(state: &str, make: fn(Model) -> Model) {
    for size in SIZES {
        let ascii = Theme { depth: Depth::Ansi16, ascii: true, ..Theme::default() };
        for (name, theme) in [("default", Theme::default()), ("ascii", ascii)] {
            let snapshot = format!("{state}_{}x{}_{name}", size.0, size.1);
            insta::assert_snapshot!(snapshot, render(&draw(&make(live(size, theme)))));
        }
    }
}

/// Presses Tab until the ticket is at its field with this number, from the first.
fn field(model: &mut Model, number: usize) {
    let fields = model.ticket.as_ref().unwrap().fields();
    while model.ticket.as_ref().unwrap().field != fields[number] {
        press(model, KeyCode::Tab);
    }
}

fn trailing(mut model: Model) -> Model {
    keys(&mut model, "s");
    field(&mut model, 1);
    press(&mut model, KeyCode::Left);
    field(&mut model, 3);
    keys(&mut model, "1.5%");
    model
}

fn iceberg_until(mut model: Model) -> Model {
    keys(&mut model, "4b");
    // LMT: side, type, quantity, price, in force.
    field(&mut model, 4);
    press(&mut model, KeyCode::Right);
    press(&mut model, KeyCode::Right);
    field(&mut model, 7);
    keys(&mut model, "20");
    field(&mut model, 5);
    keys(&mut model, "2026-11-25 18:30");
    model
}

#[test]
fn a_trailing_stop_shows_where_its_stop_starts() {
    snapshots("ticket_trailing", trailing);
}

#[test]
fn a_trail_out_of_range_says_so_while_one_types() {
    snapshots("ticket_trail_wrong", |model| {
        let mut model = trailing(model);
        (0..4).for_each(|_| {
            press(&mut model, KeyCode::Backspace);
        });
        keys(&mut model, "60%");
        model
    });
}

#[test]
fn an_iceberg_with_an_expiry_shows_what_both_mean() {
    snapshots("ticket_iceberg_gtd", iceberg_until);
}

#[test]
fn a_hidden_part_larger_than_the_order_says_so_while_one_types() {
    snapshots("ticket_display_wrong", |model| {
        let mut model = iceberg_until(model);
        field(&mut model, 7);
        keys(&mut model, "200");
        model
    });
}

#[test]
fn a_replace_shows_the_order_and_what_can_change() {
    snapshots("ticket_replace", |mut model| {
        model.ladder.cursor = Some(23105);
        keys(&mut model, "r");
        model
    });
}

fn special_orders() -> Vec<v1::Order> {
    let base = |id: &str, state| order(id, Side::Sell, 100, 2_310_900, state);
    let day_us = 86_400_000_000;
    vec![
        v1::Order {
            r#type: OrderType::TrailingStop.into(),
            price_e4: 0,
            stop_price_e4: 2_276_000,
            trail_percent_e4: 15_000,
            ..base("aa01", OrderState::Held)
        },
        v1::Order {
            r#type: OrderType::TrailingStop.into(),
            side: Side::Buy.into(),
            price_e4: 0,
            stop_price_e4: 2_315_700,
            trail_amount_e4: 5_000,
            time_in_force: TimeInForce::Gtd.into(),
            expires_us: START_US + 3_600_000_000,
            ..base("aa02", OrderState::Held)
        },
        v1::Order {
            display_quantity_e4: 200_000,
            filled_e4: 300_000,
            filled_notional_micros: 6_932_700_000,
            time_in_force: TimeInForce::Gtd.into(),
            expires_us: START_US + 3 * day_us,
            ..base("aa03", OrderState::PartiallyFilled)
        },
        v1::Order {
            r#type: OrderType::StopLimit.into(),
            price_e4: 2_290_000,
            stop_price_e4: 2_295_000,
            display_quantity_e4: 200_000,
            time_in_force: TimeInForce::Gtd.into(),
            expires_us: START_US + 300 * day_us,
            ..base("aa04", OrderState::Held)
        },
        v1::Order { post_only: true, ..base("aa05", OrderState::New) },
        v1::Order {
            reject_code: "POST_ONLY_WOULD_CROSS".into(),
            reject_reason: "the order is post-only, and it would trade at once".into(),
            ..base("aa06", OrderState::Rejected)
        },
    ]
}

#[test]
fn the_orders_show_trail_hidden_part_and_expiry_whole_or_not_at_all() {
    snapshots("orders_special", |mut model| {
        let ended = order("8f3a", Side::Buy, 5, 1, OrderState::Canceled);
        let orders = special_orders().into_iter().chain([ended]).collect();
        apply(&mut model, Event::Orders { orders, open_complete: false });
        keys(&mut model, "n");
        model
    });
}

#[test]
fn the_orders_of_a_group_say_which_one_they_belong_to() {
    snapshots("orders_group", |mut model| {
        let leg = |id: &str, side, price_e4, state, leg: GroupLeg| v1::Order {
            group_id: "01990000-0000-7000-8000-00000000bb00".into(),
            leg: leg.into(),
            ..order(id, side, 10, price_e4, state)
        };
        let stop = leg("bb03", Side::Sell, 0, OrderState::Held, GroupLeg::Exit);
        let ended = order("8f3a", Side::Buy, 5, 1, OrderState::Canceled);
        let orders = vec![
            leg("bb01", Side::Buy, 2_310_000, OrderState::PartiallyFilled, GroupLeg::Entry),
            leg("bb02", Side::Sell, 2_400_000, OrderState::New, GroupLeg::Exit),
            v1::Order { r#type: OrderType::Stop.into(), stop_price_e4: 2_250_000, ..stop },
            ended,
        ];
        apply(&mut model, Event::Orders { orders, open_complete: false });
        keys(&mut model, "n");
        model
    });
}

#[test]
fn the_ticket_of_any_sort_fits_into_every_window_that_trades() {
    for width in [60, 80, 120] {
        for height in [16, 17, 19, 20, 24, 40] {
            let mut model = live((width, height), Theme::default());
            keys(&mut model, "b");
            for _ in 0..5 {
                field(&mut model, 1);
                press(&mut model, KeyCode::Right);
                for _ in 0..5 {
                    let at = model.ticket.as_ref().unwrap().fields().len() - 1;
                    let shown = render(&draw(&model));
                    let lines: Vec<&str> = shown.lines().take(usize::from(height)).collect();
                    // The box is closed above the line of sizes and cash, which stays.
                    assert!(lines[usize::from(height) - 3].contains("QTY 5"), "{width}x{height}\n{shown}");
                    let names = ["Side", "Type", "Quantity", "In force"];
                    assert!(names.iter().all(|n| shown.contains(n)), "{width}x{height} {at}\n{shown}");
                    let ticket = model.ticket.as_mut().unwrap();
                    ticket.field = fafnir_tui::model::ticket::Field::TimeInForce;
                    press(&mut model, KeyCode::Right);
                }
            }
        }
    }
}
