//! The ladder under hands: clicks, drags, keys without a cursor, what is typed into a prefilled ticket, where the market is.

use crate::{
    common::*,
    screens::{draw, render},
};
use crossterm::event::{Event as InputEvent, KeyCode, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use fafnir_proto::v1::{self, OrderState, OrderType, Side};
use fafnir_tui::{
    Theme,
    model::{Model, Tone, ticket::Field},
    msg::{Cmd, Event, Msg},
    screens::ladder::Columns,
    update::update,
    view::layout,
};

const SIZE: (u16, u16) = (120, 40);
/// The order that common::live has at 231.05.
const NEAR: &str = "0197a8b0-0000-7000-8000-000000008f3a";

fn market() -> Model {
    live(SIZE, Theme::default())
}

fn message(model: &Model) -> &str {
    model.message.as_ref().map_or("", |m| m.text.as_str())
}

fn placed(cmds: &[Cmd]) -> Vec<(Side, i64, i64)> {
    cmds.iter()
        .filter_map(|c| match c {
            Cmd::Place(r) => Some((r.side(), r.quantity_e4, r.price_e4)),
            _ => None,
        })
        .collect()
}

fn mouse(model: &mut Model, kind: MouseEventKind, column: u16, row: u16) -> Vec<Cmd> {
    let modifiers = KeyModifiers::NONE;
    update(model, Msg::Input(InputEvent::Mouse(MouseEvent { kind, column, row, modifiers })))
}

/// Presses at one price of a column and lets go at another.
fn drag(model: &mut Model, column: fn(&Columns) -> u16, from_e4: i64, to_e4: i64) -> Vec<Cmd> {
    let layout = layout(model.size, model.pane);
    let x = column(&Columns::new(layout.ladder));
    let y = |model: &Model, price_e4: i64| {
        let line = model.ladder.top - model.ladder.row_of(price_e4, Side::Buy, 100);
        layout.ladder_body().y + u16::try_from(line).unwrap()
    };
    let (from, to) = (y(model, from_e4), y(model, to_e4));
    let mut cmds = mouse(model, MouseEventKind::Down(MouseButton::Left), x, from);
    if from != to {
        cmds.extend(mouse(model, MouseEventKind::Drag(MouseButton::Left), x, to));
    }
    cmds.extend(mouse(model, MouseEventKind::Up(MouseButton::Left), x, to));
    cmds
}

fn click(model: &mut Model, column: fn(&Columns) -> u16, price_e4: i64) -> Vec<Cmd> {
    drag(model, column, price_e4, price_e4)
}

fn my_bid(columns: &Columns) -> u16 {
    columns.my_bid.0 + 3
}

#[test]
fn a_click_on_an_own_order_cancels_it_armed_or_not_and_places_none() {
    for armed in [false, true] {
        let mut model = market();
        if armed {
            keys(&mut model, "A");
        }
        assert_eq!(click(&mut model, my_bid, 2_310_500), [Cmd::Cancel { order_id: NEAR.into() }]);
        assert!(model.ticket.is_none() && model.ladder.cursor.is_none());
        // Where no own order is, the column only moves the cursor.
        assert_eq!(click(&mut model, my_bid, 2_310_300), []);
        assert_eq!(click(&mut model, |c| c.my_ask.0 + 2, 2_311_000), []);
        assert!(model.ticket.is_none());
    }
}

#[test]
fn a_drag_moves_an_order_at_once_when_armed_and_by_its_ticket_else() {
    let mut model = market();
    assert_eq!(drag(&mut model, my_bid, 2_310_500, 2_310_300), []);
    let ticket = model.ticket.as_ref().unwrap();
    assert_eq!((ticket.price.text(), ticket.field), ("231.03", Field::Price));
    let sent = press(&mut model, KeyCode::Enter);
    assert!(matches!(&sent[..], [Cmd::Replace(r)] if r.price_e4 == 2_310_300 && r.order_id == NEAR));

    let mut model = market();
    keys(&mut model, "A");
    let sent = drag(&mut model, my_bid, 2_310_500, 2_310_300);
    assert!(
        matches!(&sent[..], [Cmd::Replace(r)] if r.price_e4 == 2_310_300 && r.order_id == NEAR),
        "{sent:?}"
    );

    // Back on its row, or outside the ladder: nothing.
    let mut model = market();
    let layout = layout(model.size, model.pane);
    let x = my_bid(&Columns::new(layout.ladder));
    let line = u16::try_from(model.ladder.top - 23_105).unwrap();
    let y = layout.ladder_body().y + line;
    for end in [(x, y), (0, 0)] {
        let mut cmds = mouse(&mut model, MouseEventKind::Down(MouseButton::Left), x, y);
        cmds.extend(mouse(&mut model, MouseEventKind::Drag(MouseButton::Left), x, y + 2));
        let held = render(&draw(&model));
        assert!(held.contains("3…▸"), "what is held shows where it would go\n{held}");
        cmds.extend(mouse(&mut model, MouseEventKind::Up(MouseButton::Left), end.0, end.1));
        assert_eq!((cmds, &model.ticket, &model.drag), (vec![], &None, &None));
    }
}

#[test]
fn a_click_in_the_book_opens_a_ticket_and_sends_only_when_armed() {
    let mut model = market();
    assert_eq!(click(&mut model, |c| c.bid.0 + 1, 2_310_300), []);
    let ticket = model.ticket.as_ref().unwrap();
    assert_eq!((ticket.side, ticket.price.text()), (Side::Buy, "231.03"));
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "A");
    let sent = click(&mut model, |c| c.bid.0 + 1, 2_310_300);
    assert_eq!(placed(&sent), [(Side::Buy, 50_000, 2_310_300)]);
}

#[test]
fn without_a_cursor_buy_and_sell_join_their_own_side() {
    for (key, side, price_e4) in [("b", Side::Buy, 2_310_700), ("s", Side::Sell, 2_310_800)] {
        let mut model = market();
        keys(&mut model, key);
        assert_eq!(placed(&press(&mut model, KeyCode::Enter)), [(side, 50_000, price_e4)]);
        let mut model = market();
        assert_eq!(placed(&keys(&mut model, &format!("A{key}"))), [(side, 50_000, price_e4)]);
        // The wheel chooses no price.
        let mut model = market();
        let body = layout(model.size, model.pane).ladder_body();
        (0..9).for_each(|_| drop(mouse(&mut model, MouseEventKind::ScrollDown, body.x + 1, body.y + 1)));
        assert_eq!(placed(&keys(&mut model, &format!("A{key}"))), [(side, 50_000, price_e4)]);
    }
}

#[test]
fn an_empty_side_is_joined_without_crossing() {
    let mut model = market();
    let image = v1::BookImage { asks: vec![], last_price_e4: 2_310_000, ..book(2, START_US) };
    apply(&mut model, Event::Book { image, from_feed: true });
    apply(
        &mut model,
        Event::Trades {
            symbol: "AAPL".into(),
            trades: vec![trade(41, 2_310_000, 1, Side::Sell)],
            after: None,
        },
    );
    keys(&mut model, "s");
    assert_eq!(model.ticket.as_ref().map(|t| t.price.text()), Some("231.08"), "a tick above the best bid");
}

#[test]
fn what_would_trade_at_once_says_so() {
    let mut model = market();
    model.ladder.cursor = Some(23_110);
    keys(&mut model, "b");
    let shown = render(&draw(&model));
    assert!(shown.contains("crosses: takes 5 @ 231.08") && !shown.contains("ready"), "{shown}");
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "Ab");
    assert_eq!(message(&model), "BUY crosses: takes 5 @ 231.08");
}

#[test]
fn the_first_key_or_paste_replaces_what_the_ticket_was_filled_with() {
    let mut model = market();
    keys(&mut model, "b2");
    assert_eq!(placed(&press(&mut model, KeyCode::Enter)), [(Side::Buy, 20_000, 2_310_700)]);
    let mut model = market();
    keys(&mut model, "b");
    press(&mut model, KeyCode::Tab);
    keys(&mut model, "230.5");
    press(&mut model, KeyCode::BackTab);
    update(&mut model, Msg::Input(InputEvent::Paste("1,000\n".into())));
    let ticket = model.ticket.as_ref().unwrap();
    assert_eq!((ticket.quantity.text(), ticket.price.text()), ("1000", "230.5"));
    assert_eq!(ticket.notional_micros(&model), Some(230_500_000_000));
}

#[test]
fn a_size_can_be_all_that_stands_at_the_best_price() {
    let mut model = market();
    let mut image = book(2, START_US);
    (image.bids[0].quantity_e4, image.asks[0].quantity_e4) = (70_000, 30_000);
    apply(&mut model, Event::Book { image: image.clone(), from_feed: true });
    keys(&mut model, "0");
    assert!(render(&draw(&model)).contains("QTY best"));
    keys(&mut model, "m");
    assert_eq!(model.ticket.as_ref().unwrap().quantity.text(), "3");
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "s");
    assert_eq!(model.ticket.as_ref().unwrap().quantity.text(), "7");
    press(&mut model, KeyCode::Esc);
    image.book_seq = 3;
    image.asks.clear();
    apply(&mut model, Event::Book { image, from_feed: true });
    assert!(placed(&keys(&mut model, "Am")).is_empty() && model.ticket.is_none());
    assert_eq!(message(&model), "there is no best ask to take the size of");
}

#[test]
fn what_a_field_cannot_take_is_told_and_changes_nothing() {
    let mut model = market();
    keys(&mut model, "b");
    for (text, told) in [
        ("10 shares", "not pasted: quantity takes digits and a point"),
        ("-5", "not pasted: quantity takes digits and a point"),
    ] {
        update(&mut model, Msg::Input(InputEvent::Paste(text.into())));
        assert_eq!((message(&model), model.message.as_ref().unwrap().tone), (told, Tone::Bad));
        assert_eq!(model.ticket.as_ref().unwrap().quantity.text(), "5");
    }
    press(&mut model, KeyCode::Tab);
    update(&mut model, Msg::Input(InputEvent::Paste("231,07".into())));
    assert!(placed(&press(&mut model, KeyCode::Enter)).is_empty());
    assert!(message(&model).contains("decimals take a point"), "{}", message(&model));
}

#[test]
fn letters_in_a_ticket_never_act_on_the_screen() {
    let mut model = market();
    keys(&mut model, "b");
    let (tab, symbol) = (model.tab, model.symbol.clone());
    // All but those of the sides, and the one that copies the ticket.
    let letters: String = (' '..='~').filter(|c| !c.is_ascii_digit() && !"bsy.,".contains(*c)).collect();
    assert_eq!(keys(&mut model, &letters), []);
    assert_eq!((model.tab, &model.symbol, &model.overlay, model.exit), (tab, &symbol, &None, None));
    assert!(!model.is_armed() && model.ticket.is_some());
    assert_eq!(model.ticket.as_ref().unwrap().quantity.text(), "5");
}

#[test]
fn armed_the_axis_stays_the_market_is_pointed_at_and_space_recentres_without_disarming() {
    let mut model = market();
    keys(&mut model, "A");
    let top = model.ladder.top;
    let mut image = book(2, START_US);
    for level in image.bids.iter_mut().chain(&mut image.asks) {
        level.price_e4 += 3_000;
    }
    apply(&mut model, Event::Book { image, from_feed: true });
    assert_eq!(model.ladder.top, top);
    let shown = render(&draw(&model));
    assert!(shown.contains("market ▴ 231.37"), "{shown}");
    keys(&mut model, " ");
    assert!(model.is_armed(), "{}", message(&model));
    assert_ne!(model.ladder.top, top);
    assert!(!render(&draw(&model)).contains("market ▴"));
}

#[test]
fn own_orders_above_and_below_the_view_are_both_pointed_at() {
    for (size, above, below) in [
        (SIZE, "▴ 1 own above", "▾ 1 own below"),
        ((80, 24), "▴ 1 own above", "▾ 1 own below"),
        ((60, 16), "▴ 1 own above", "▾ 1 own below"),
    ] {
        let mut model = live(size, Theme::default());
        let orders = vec![order("aaaa", Side::Sell, 1_000, 2_360_000, OrderState::New)];
        apply(&mut model, Event::Orders { orders, open_complete: false });
        let shown = render(&draw(&model));
        assert!(shown.contains(above), "{size:?}\n{shown}");
        assert!(shown.contains(below) || shown.contains("▾ 2 own below"), "{size:?}\n{shown}");
    }
}

#[test]
fn the_volume_at_a_price_is_the_days_and_not_the_tapes() {
    let mut model = market();
    let day_us = START_US / 86_400_000_000 * 86_400_000_000;
    let levels = vec![v1::PriceVolume { price_e4: 2_310_700, volume_e4: 12_340_000 }];
    let reply = v1::VolumeAtPriceReply { symbol: "AAPL".into(), day_us, levels, last_trade_no: 40 };
    apply(&mut model, Event::Volume(v1::VolumeAtPriceReply { symbol: "MSFT".into(), ..reply.clone() }));
    apply(&mut model, Event::Volume(reply));
    let next = |n: u64| Event::Trades {
        symbol: "AAPL".into(),
        trades: vec![trade(n, 2_310_700, 1, Side::Buy)],
        after: None,
    };
    (41..2_000).for_each(|n| drop(apply(&mut model, next(n))));
    let shown = render(&draw(&model));
    let line = shown.lines().find(|l| l.contains("231.07 ") && l.contains("◄")).unwrap();
    assert!(line.contains(" 3193"), "{line}");
}

#[test]
fn a_stop_on_the_wrong_side_is_not_ready() {
    for (key, stop) in [("b", "230"), ("s", "240")] {
        let mut model = market();
        keys(&mut model, key);
        let ticket = model.ticket.as_mut().unwrap();
        ticket.kind = OrderType::Stop;
        ticket.enter(Field::Stop);
        keys(&mut model, stop);
        let shown = render(&draw(&model));
        assert!(!shown.contains("ready") && shown.contains("stop"), "{shown}");
        assert!(placed(&press(&mut model, KeyCode::Enter)).is_empty(), "{}", message(&model));
    }
}

#[test]
fn exits_in_the_ticket_make_a_group_and_one_account_is_chosen() {
    let mut model = market();
    let other =
        v1::Account { id: "22222222-2222-4222-8222-222222222222".into(), created_us: 9, ..account(1) };
    apply(&mut model, Event::Accounts(vec![other.clone()]));
    let group = |cmds: &[Cmd]| match cmds {
        [Cmd::PlaceGroup(request)] => request.clone(),
        other => panic!("{other:?}"),
    };
    let fill = |model: &mut Model, field: Field, text: &str| {
        model.ticket.as_mut().unwrap().enter(field);
        keys(model, text);
    };
    keys(&mut model, "b");
    fill(&mut model, Field::Target, "231");
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    assert_eq!(message(&model), "the target must be above the price 231.07");
    fill(&mut model, Field::Target, "240");
    fill(&mut model, Field::ExitStop, "225");
    let sent = group(&press(&mut model, KeyCode::Enter));
    assert_eq!(sent.kind(), v1::GroupKind::Bracket);
    let legs: Vec<_> = sent.orders.iter().map(|o| (o.side(), o.price_e4, o.stop_price_e4)).collect();
    assert_eq!(legs, [(Side::Buy, 2_310_700, 0), (Side::Sell, 2_400_000, 0), (Side::Sell, 0, 2_250_000)]);
    assert!(sent.orders.iter().all(|o| o.account_id == ACCOUNT));
    assert!(press(&mut model, KeyCode::Enter).is_empty(), "one ticket, one group");

    let mut model = market();
    apply(&mut model, Event::Accounts(vec![other.clone()]));
    keys(&mut model, "s");
    fill(&mut model, Field::ExitStop, "225");
    assert_eq!(group(&press(&mut model, KeyCode::Enter)).kind(), v1::GroupKind::Oco);

    let mut model = market();
    apply(&mut model, Event::Accounts(vec![other.clone()]));
    keys(&mut model, "1b");
    model.ticket.as_mut().unwrap().enter(Field::Account);
    press(&mut model, KeyCode::Right);
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    assert!(
        message(&model).starts_with("not enough cash"),
        "the other account has none: {}",
        message(&model)
    );
    model.ticket.as_mut().unwrap().enter(Field::Account);
    press(&mut model, KeyCode::Right);
    assert_eq!(placed(&press(&mut model, KeyCode::Enter)).len(), 1);
}

#[test]
fn a_chosen_order_is_copied_as_what_places_it_again() {
    let mut model = market();
    keys(&mut model, "ny");
    let copied: Vec<Cmd> = keys(&mut model, "y");
    assert!(
        matches!(&copied[..], [Cmd::Copy(text)] if text.starts_with("fafnir order place buy AAPL 5 --price "))
    );
}

#[test]
fn tabs_orders_and_hints_take_clicks_and_orders_are_filtered() {
    let mut model = market();
    let layout = layout(model.size, model.pane);
    let down = MouseEventKind::Down(MouseButton::Left);
    let shown = render(&draw(&model));
    let x = |line: usize, text: &str| {
        let line = shown.lines().nth(line).unwrap();
        u16::try_from(line[..line.find(text).unwrap()].chars().count()).unwrap()
    };
    mouse(&mut model, down, x(usize::from(layout.tabs.y), "ositions"), layout.tabs.y);
    assert_eq!(model.tab, fafnir_tui::model::Tab::Positions);
    mouse(&mut model, down, x(usize::from(layout.tabs.y), "rders"), layout.tabs.y);
    mouse(&mut model, down, layout.lower.x + 3, layout.lower.y + 1);
    assert_eq!(model.chosen.as_deref(), Some(NEAR));
    mouse(&mut model, down, x(usize::from(layout.hints.y), "help"), layout.hints.y);
    assert!(model.overlay.is_some());
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "hhh");
    assert!(render(&draw(&model)).contains("[o]rders 2 ended") && model.orders_listed().is_empty());
}
