//! The rules: one ticket one order, stale data refuses orders and lets cancels through, arming ends by itself.

use crate::common::*;
use crossterm::event::{Event as InputEvent, KeyCode, KeyEvent, KeyModifiers};
use fafnir_proto::v1::{self, AccountType, OrderState, Side};
use fafnir_tui::{
    Exit, Theme,
    model::{
        Model, Overlay, Screen, Tone,
        alert::{Alert, Trigger},
        feed::{Link, Wire},
        ticket::State,
    },
    msg::{Cmd, Event, Flattened, Msg, Outcome},
    update::update,
};

const SIZE: (u16, u16) = (120, 40);

fn market() -> Model {
    live(SIZE, Theme::default())
}

fn placed(cmds: &[Cmd]) -> Vec<&fafnir_proto::v1::PlaceOrderRequest> {
    cmds.iter().filter_map(|c| if let Cmd::Place(request) = c { Some(request) } else { None }).collect()
}

fn is_cancel(cmd: &Cmd) -> bool {
    matches!(cmd, Cmd::Cancel { .. } | Cmd::CancelAll { .. })
}

fn message(model: &Model) -> &str {
    model.message.as_ref().map_or("", |m| m.text.as_str())
}

#[test]
fn a_second_enter_cannot_send_a_second_order() {
    let mut model = market();
    keys(&mut model, "b");
    let first = press(&mut model, KeyCode::Enter);
    let sent = placed(&first);
    assert_eq!(sent.len(), 1);
    assert_eq!((sent[0].side(), sent[0].price_e4, sent[0].quantity_e4), (Side::Buy, 2_310_700, 50_000));
    for code in [KeyCode::Enter, KeyCode::Enter, KeyCode::Char('b'), KeyCode::Char('B'), KeyCode::Enter] {
        assert!(placed(&press(&mut model, code)).is_empty(), "{code:?}");
    }
    press(&mut model, KeyCode::Esc);
    assert!(model.ticket.is_some(), "an order on its way keeps its ticket");
}

#[test]
fn an_unknown_outcome_can_only_be_asked_for_again_as_the_same_order() {
    let mut model = market();
    keys(&mut model, "b");
    let first = placed(&press(&mut model, KeyCode::Enter))[0].clone();
    let unknown = Event::Placed {
        client_order_id: first.client_order_id.clone(),
        outcome: Outcome::Unknown("no answer in time".into()),
        elapsed_us: 5_000_000,
    };
    apply(&mut model, unknown);
    keys(&mut model, "99");
    press(&mut model, KeyCode::Right);
    let again = press(&mut model, KeyCode::Enter);
    assert_eq!(placed(&again), [&first]);
}

#[test]
fn an_unknown_outcome_is_resolved_by_the_private_stream() {
    let mut model = market();
    keys(&mut model, "b");
    let id = placed(&press(&mut model, KeyCode::Enter))[0].client_order_id.clone();
    let outcome = Outcome::Unknown("no answer in time".into());
    apply(&mut model, Event::Placed { client_order_id: id.clone(), outcome, elapsed_us: 1 });
    let mut arrived = order("abcd", Side::Buy, 5, 2_310_700, OrderState::New);
    arrived.client_order_id = id;
    apply(&mut model, Event::Orders { orders: vec![arrived], open_complete: false });
    assert_eq!(model.ticket, None);
}

#[test]
fn a_refused_ticket_stays_open_and_its_next_order_has_another_id() {
    let mut model = market();
    keys(&mut model, "b");
    let first = placed(&press(&mut model, KeyCode::Enter))[0].client_order_id.clone();
    let outcome = Outcome::Refused("not enough cash".into());
    apply(&mut model, Event::Placed { client_order_id: first.clone(), outcome, elapsed_us: 1 });
    assert_eq!(model.ticket.as_ref().map(|t| &t.state), Some(&State::Editing));
    let second = press(&mut model, KeyCode::Enter);
    assert_ne!(placed(&second)[0].client_order_id, first);
}

#[test]
fn an_accepted_order_shows_and_a_late_answer_does_not_take_its_fill_back() {
    let mut model = market();
    keys(&mut model, "B");
    let id = placed(&press(&mut model, KeyCode::Enter))[0].client_order_id.clone();
    let filled = order("abcd", Side::Buy, 5, 2_310_700, OrderState::Filled);
    apply(&mut model, Event::Orders { orders: vec![filled.clone()], open_complete: false });
    let mut early = order("abcd", Side::Buy, 5, 2_310_700, OrderState::PendingNew);
    early.updated_us -= 1;
    apply(
        &mut model,
        Event::Placed { client_order_id: id, outcome: Outcome::Done(early), elapsed_us: 8_000 },
    );
    assert_eq!(model.ticket, None);
    assert_eq!(model.holdings.orders[&filled.id].state(), OrderState::Filled);
    assert!(message(&model).contains("abcd BUY 5 AAPL @ 231.07 accepted"), "{}", message(&model));
}

#[test]
fn the_ticket_says_field_and_limit_before_anything_is_sent() {
    let refused = |price: &str, quantity: &str| {
        let mut model = market();
        keys(&mut model, "b");
        let ticket = model.ticket.as_mut().unwrap();
        ticket.price = fafnir_tui::text::Input::new(price);
        ticket.quantity = fafnir_tui::text::Input::new(quantity);
        assert!(placed(&press(&mut model, KeyCode::Enter)).is_empty(), "{price} {quantity}");
        message(&model).to_owned()
    };
    for (price, quantity, want) in [
        ("231.07", "", "quantity is missing"),
        ("231.07", "0", "quantity must be above 0"),
        ("231.07", "1.5", "quantity must be a multiple of the lot 1"),
        ("231.07", "10000001", "quantity must be at most 10,000,000"),
        ("231.07", "1.23456", "quantity has more than 4 decimals"),
        ("", "5", "price is missing"),
        ("231.075", "5", "price must be a multiple of the tick 0.01"),
        ("0", "5", "price must be above 0"),
        ("99.99", "5", "price must be within 50 % of the reference: 115.53 to 346.57"),
        ("400", "5", "price must be within 50 % of the reference: 115.53 to 346.57"),
        ("231.07", "5000", "not enough cash: needs 1,155,350.00, available 88,410.00 USD"),
    ] {
        assert_eq!(refused(price, quantity), want);
    }
}

#[test]
fn a_sell_needs_the_shares() {
    let mut model = market();
    keys(&mut model, "4s");
    press(&mut model, KeyCode::Enter);
    assert_eq!(message(&model), "not enough shares: 42 AAPL available");
}

#[test]
fn stale_data_disarms_refuses_orders_and_lets_cancels_through() {
    let mut model = market();
    keys(&mut model, "A");
    assert!(model.is_armed());
    apply(&mut model, Event::Link(Wire::Nats, Link::Down, "connection lost".into()));
    assert!(!model.is_armed());
    keys(&mut model, "b");
    assert!(placed(&press(&mut model, KeyCode::Enter)).is_empty());
    assert!(message(&model).contains("cancels work"), "{}", message(&model));
    press(&mut model, KeyCode::Esc);
    assert!(keys(&mut model, "X").iter().any(is_cancel));
    model.ladder.cursor = Some(23105);
    assert!(keys(&mut model, "x").iter().any(is_cancel));
}

#[test]
fn a_quiet_book_is_checked_with_the_gateway_and_stale_only_without_an_answer() {
    let mut model = market();
    let is_check = |c: &Cmd| matches!(c, Cmd::Book { .. });
    assert!(!at(&mut model, 2).iter().any(is_check));
    assert!(at(&mut model, 3).iter().any(is_check));
    apply(&mut model, Event::Book { image: book(1, START_US), from_feed: false });
    at(&mut model, 7);
    assert!(!model.feed.was_stale);
    at(&mut model, 9);
    assert!(model.feed.was_stale, "no answer came");
    apply(&mut model, Event::Book { image: book(2, START_US), from_feed: true });
    assert!(!model.feed.was_stale);
}

#[test]
fn a_feed_that_lags_behind_the_gateway_is_stale() {
    let mut model = market();
    at(&mut model, 3);
    apply(&mut model, Event::Book { image: book(9, START_US), from_feed: false });
    at(&mut model, 6);
    assert!(model.feed.was_stale);
    apply(&mut model, Event::Book { image: book(9, START_US), from_feed: false });
    assert!(model.feed.was_stale, "the gateway alone cannot make the feed live");
    apply(&mut model, Event::Book { image: book(10, START_US), from_feed: true });
    assert!(!model.feed.was_stale);
}

#[test]
fn an_alert_rings_when_market_data_stay_away_so_long() {
    let mut model = market();
    for key in ["a", "stale 20"] {
        keys(&mut model, key);
    }
    press(&mut model, KeyCode::Enter);
    let rings = |cmds: &[Cmd]| cmds.iter().any(|c| matches!(c, Cmd::Bell));
    assert!((1..20).all(|second| !rings(&at(&mut model, second))) && model.feed.was_stale);
    assert!(rings(&at(&mut model, 20)), "no image came for 20 seconds");
    assert!(message(&model).contains("alert: AAPL stale ≥ 20s"), "{}", message(&model));
    assert!(!rings(&at(&mut model, 21)), "it rings once");

    // Of a symbol that is not on the ladder it is the connection that is known.
    let mut model = market();
    let trigger = Trigger::StaleFor(20);
    model.alerts = vec![Alert { symbol: "MSFT".into(), trigger, fired: false }];
    let link = |model: &mut Model, link| apply(model, Event::Link(Wire::Nats, link, "lost".into()));
    link(&mut model, Link::Down);
    assert!(!rings(&at(&mut model, 19)));
    link(&mut model, Link::Up);
    at(&mut model, 20);
    link(&mut model, Link::Down);
    link(&mut model, Link::Connecting);
    assert!(!rings(&at(&mut model, 39)));
    assert!(rings(&at(&mut model, 40)));
}

#[test]
fn an_older_image_never_replaces_a_newer_one_and_a_new_epoch_does() {
    let mut model = market();
    apply(&mut model, Event::Book { image: book(7, START_US), from_feed: true });
    apply(&mut model, Event::Book { image: book(5, START_US), from_feed: true });
    assert_eq!(model.book.as_ref().map(|b| b.book_seq), Some(7));
    let restarted = fafnir_proto::v1::BookImage { epoch: 2, ..book(1, START_US) };
    apply(&mut model, Event::Book { image: restarted, from_feed: true });
    assert_eq!(model.book.as_ref().map(|b| (b.epoch, b.book_seq)), Some((2, 1)));
}

#[test]
fn a_gap_in_the_trades_is_asked_for_and_filled() {
    let mut model = market();
    let late = Event::Trades {
        symbol: "AAPL".into(),
        trades: vec![trade(44, 2_310_700, 1, Side::Buy)],
        after: None,
    };
    let cmds = apply(&mut model, late);
    assert!(cmds.contains(&Cmd::Trades { symbol: "AAPL".into(), after: 40 }), "{cmds:?}");
    let missing = (41..=44).map(|n| trade(n, 2_310_700, 1, Side::Buy)).collect();
    apply(&mut model, Event::Trades { symbol: "AAPL".into(), trades: missing, after: Some(40) });
    assert!(!model.tape.has_gap());
}

#[test]
fn arming_ends_after_five_minutes_on_focus_loss_and_on_another_symbol() {
    let mut model = market();
    keys(&mut model, "A");
    assert!(model.is_armed());
    for second in 1..=310 {
        apply(&mut model, Event::Book { image: book(1 + second, START_US), from_feed: true });
        at(&mut model, second as i64);
    }
    assert!(model.armed_until_us.is_none());
    keys(&mut model, "A");
    update(&mut model, Msg::Input(InputEvent::FocusLost));
    assert!(!model.is_armed());
    keys(&mut model, "A");
    press(&mut model, KeyCode::Tab);
    assert!(!model.is_armed());
    assert_eq!(model.symbol, "MSFT");
}

#[test]
fn armed_one_key_sends_one_order_up_to_the_limit() {
    let mut model = market();
    assert!(placed(&keys(&mut model, "b")).is_empty(), "disarmed opens a ticket");
    press(&mut model, KeyCode::Esc);
    keys(&mut model, "A");
    let sent = keys(&mut model, "b");
    assert_eq!(placed(&sent).len(), 1);
    assert!(placed(&keys(&mut model, "b")).is_empty(), "one at a time");
    let id = placed(&sent)[0].client_order_id.clone();
    let done = Outcome::Done(order("abcd", Side::Buy, 5, 2_310_700, OrderState::New));
    apply(&mut model, Event::Placed { client_order_id: id, outcome: done, elapsed_us: 1 });
    keys(&mut model, "4");
    assert!(placed(&keys(&mut model, "b")).is_empty());
    assert!(message(&model).contains("10,000.00"), "{}", message(&model));
    assert_eq!(model.ticket, None);
}

#[test]
fn a_cancel_is_sent_once_and_again_after_no_answer() {
    let mut model = market();
    model.ladder.cursor = Some(23105);
    assert_eq!(keys(&mut model, "x").iter().filter(|c| is_cancel(c)).count(), 1);
    assert!(!keys(&mut model, "x").iter().any(is_cancel));
    let order_id = "0197a8b0-0000-7000-8000-000000008f3a".to_owned();
    apply(&mut model, Event::Canceled { order_id, outcome: Outcome::Unknown("late".into()), elapsed_us: 1 });
    assert!(keys(&mut model, "x").iter().any(is_cancel));
}

fn flattened(model: &mut Model, outcome: Outcome<Flattened>) -> Vec<Cmd> {
    apply(model, Event::Flattened { symbol: "AAPL".into(), outcome, elapsed_us: 12_000 })
}

#[test]
fn flatten_asks_first_then_is_one_request_for_the_accounts_that_can_hold_shares() {
    let mut model = market();
    let other = |id: &str, r#type: AccountType, closed| v1::Account {
        id: id.into(),
        r#type: r#type.into(),
        closed,
        ..account(1)
    };
    let accounts = vec![
        other("0-second", AccountType::Investment, false),
        other("1-savings", AccountType::Savings, false),
        other("2-closed", AccountType::Investment, true),
    ];
    apply(&mut model, Event::Accounts(accounts));
    assert!(keys(&mut model, "F").is_empty());
    assert_eq!(model.overlay, Some(Overlay::ConfirmFlatten { symbol: "AAPL".into() }));
    let cmds = keys(&mut model, "y");
    let account_ids = vec![ACCOUNT.into(), "0-second".into()];
    assert_eq!(cmds, [Cmd::Flatten { symbol: "AAPL".into(), account_ids }]);
    assert!(keys(&mut model, "Fy").is_empty(), "one is on its way");
    assert!(message(&model).contains("on its way"), "{}", message(&model));
    let sold = order("ffff", Side::Sell, 42, 0, OrderState::Filled);
    let id = sold.id.clone();
    assert!(
        flattened(&mut model, Outcome::Done(Flattened { orders: vec![sold], ..Default::default() }))
            .is_empty()
    );
    assert_eq!((message(&model), model.flattening.as_deref()), ("AAPL is flat  12ms", None));
    assert!(model.holdings.orders.contains_key(&id));
}

#[test]
fn a_flatten_that_leaves_something_says_what_and_why() {
    let left =
        |left_e4, why: &str| Outcome::Done(Flattened { left_e4, why: why.into(), ..Default::default() });
    for (outcome, told) in [
        (left(500_000, "no bids"), "NOT FLAT: 50 AAPL left (no bids)"),
        (left(0, "too many orders"), "NOT FLAT: AAPL (too many orders)"),
        (Outcome::Refused("AAPL is not listed".into()), "AAPL not flattened: AAPL is not listed"),
        (Outcome::Unknown("late".into()), "AAPL: no answer to the flatten: late; F asks again"),
    ] {
        let mut model = market();
        keys(&mut model, "Fy");
        flattened(&mut model, outcome);
        assert_eq!(message(&model), told);
        assert_eq!(model.message.as_ref().map(|m| m.tone), Some(Tone::Bad));
        assert!(
            keys(&mut model, "Fy").iter().any(|c| matches!(c, Cmd::Flatten { .. })),
            "it can be asked for again"
        );
    }
}

#[test]
fn a_flatten_of_an_unknown_account_is_the_default_ones() {
    let mut model = signed_in(SIZE, Theme::default());
    apply(&mut model, Event::Book { image: book(1, START_US), from_feed: true });
    apply(&mut model, Event::Positions(vec![holding("AAPL", 42, 9_600_000_000)]));
    let account_ids = vec![String::new()];
    assert_eq!(keys(&mut model, "Fy"), [Cmd::Flatten { symbol: "AAPL".into(), account_ids }]);
}

#[test]
fn read_only_sends_nothing() {
    let mut model = market();
    model.read_only = true;
    model.ladder.cursor = Some(23105);
    for key in "bsBSxXFA".chars() {
        let mut model = model.clone();
        let mut cmds = keys(&mut model, &key.to_string());
        cmds.extend(press(&mut model, KeyCode::Enter));
        assert!(cmds.is_empty(), "{key}: {cmds:?}");
    }
}

#[test]
fn a_window_that_is_too_small_takes_cancels_only() {
    let mut model = live((40, 12), Theme::default());
    let cmds = keys(&mut model, "bA");
    assert!(cmds.is_empty() && model.ticket.is_none() && !model.is_armed());
    assert!(keys(&mut model, "X").iter().any(is_cancel));
    keys(&mut model, "q");
    assert_eq!(model.exit, Some(Exit::Quit));
}

#[test]
fn sign_in_sends_once_and_shows_a_refusal() {
    let mut model = fresh(SIZE, Theme::default());
    keys(&mut model, "user@test.com");
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    keys(&mut model, "Password123");
    let cmds = press(&mut model, KeyCode::Enter);
    assert_eq!(cmds, [Cmd::SignIn { email: "user@test.com".into(), password: "Password123".into() }]);
    assert!(!format!("{cmds:?}{model:?}").contains("Password123"));
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    apply(&mut model, Event::SignInRefused("wrong e-mail or password".into()));
    assert_eq!(model.sign_in.refused.as_deref(), Some("wrong e-mail or password"));
    assert_eq!(model.screen, Screen::SignIn);
}

#[test]
fn the_palette_runs_what_the_key_runs() {
    let mut model = market();
    keys(&mut model, ":positions");
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.tab, fafnir_tui::model::Tab::Positions);
    assert_eq!(model.overlay, None);
}

#[test]
fn a_symbol_is_found_by_its_name_and_everything_is_asked_for() {
    let mut model = market();
    keys(&mut model, "/micro");
    let cmds = press(&mut model, KeyCode::Enter);
    assert_eq!(model.symbol, "MSFT");
    assert!(cmds.iter().any(|c| matches!(c, Cmd::Follow { symbol, .. } if symbol == "MSFT")));
    assert!(cmds.contains(&Cmd::Book { symbol: "MSFT".into() }));
    assert!(model.book.is_none() && model.tape.is_empty());
    apply(&mut model, Event::Book { image: book(50, START_US), from_feed: true });
    assert!(model.book.is_none(), "the book of another symbol is not shown");
}

#[test]
fn the_ladder_stands_still_under_the_mouse_pointer() {
    let far = |seq| {
        let mut image = book(seq, START_US);
        for level in image.bids.iter_mut().chain(&mut image.asks) {
            level.price_e4 += 5_000 * i64::try_from(seq).unwrap();
        }
        Event::Book { image, from_feed: true }
    };
    let mut model = market();
    let body = fafnir_tui::view::layout(model.size, model.pane).ladder_body();
    let moved = |column, row| {
        let kind = crossterm::event::MouseEventKind::Moved;
        let modifiers = crossterm::event::KeyModifiers::NONE;
        Msg::Input(InputEvent::Mouse(crossterm::event::MouseEvent { kind, column, row, modifiers }))
    };
    update(&mut model, moved(body.x + 3, body.y + 3));
    let top = model.ladder.top;
    apply(&mut model, far(2));
    assert_eq!(model.ladder.top, top);
    update(&mut model, moved(0, 0));
    apply(&mut model, far(3));
    assert_ne!(model.ladder.top, top);
}

#[test]
fn an_alert_fires_once() {
    let mut model = market();
    keys(&mut model, "a>= 232");
    press(&mut model, KeyCode::Enter);
    assert_eq!(model.alerts.len(), 1);
    let up = Event::Trades {
        symbol: "AAPL".into(),
        trades: vec![trade(41, 2_320_000, 1, Side::Buy)],
        after: None,
    };
    apply(&mut model, up);
    assert!(message(&model).starts_with("alert: AAPL"), "{}", message(&model));
    model.message = None;
    at(&mut model, 1);
    assert!(model.message.is_none());
}

fn replaced(cmds: &[Cmd]) -> Vec<&fafnir_proto::v1::ReplaceOrderRequest> {
    cmds.iter().filter_map(|c| if let Cmd::Replace(request) = c { Some(request) } else { None }).collect()
}

/// A ticket on the order 8f3a with another price, sent.
fn replacing(model: &mut Model) -> fafnir_proto::v1::ReplaceOrderRequest {
    model.ladder.cursor = Some(23105);
    keys(model, "r");
    press(model, KeyCode::Tab);
    press(model, KeyCode::Right);
    replaced(&press(model, KeyCode::Enter))[0].clone()
}

#[test]
fn a_replace_goes_once_and_its_answer_closes_the_ticket() {
    let mut model = market();
    let request = replacing(&mut model);
    assert_eq!((request.quantity_e4, request.price_e4, request.version), (0, 2_310_600, 1));
    for code in [KeyCode::Enter, KeyCode::Char('r'), KeyCode::Char('b'), KeyCode::Esc, KeyCode::Enter] {
        let cmds = press(&mut model, code);
        assert!(replaced(&cmds).is_empty() && placed(&cmds).is_empty(), "{code:?}");
    }
    assert!(model.ticket.is_some(), "a replace on its way keeps its ticket");
    let mut order = order("8f3a", Side::Buy, 5, 2_310_600, OrderState::PartiallyFilled);
    (order.version, order.filled_e4) = (2, 20_000);
    let order_id = order.id.clone();
    let outcome = Outcome::Done(order);
    apply(&mut model, Event::Replaced { order_id: order_id.clone(), outcome, elapsed_us: 9_000 });
    assert_eq!(model.ticket, None);
    assert_eq!(model.holdings.orders[&order_id].price_e4, 2_310_600);
    assert!(message(&model).contains("8f3a replaced: BUY 5 AAPL @ 231.06"), "{}", message(&model));
}

#[test]
fn an_unanswered_replace_can_only_be_asked_for_again_and_the_private_stream_resolves_it() {
    let mut model = market();
    let request = replacing(&mut model);
    let order_id = request.order_id.clone();
    let outcome = Outcome::Unknown("no answer in time".into());
    apply(&mut model, Event::Replaced { order_id: order_id.clone(), outcome, elapsed_us: 1 });
    keys(&mut model, "99");
    assert_eq!(replaced(&press(&mut model, KeyCode::Enter)), [&request]);
    let outcome = Outcome::Unknown("no answer in time".into());
    apply(&mut model, Event::Replaced { order_id, outcome, elapsed_us: 1 });
    let mut order = order("8f3a", Side::Buy, 5, 2_310_600, OrderState::New);
    order.version = 2;
    apply(&mut model, Event::Orders { orders: vec![order], open_complete: false });
    assert_eq!(model.ticket, None);
}

#[test]
fn a_refused_replace_says_why_and_can_be_changed() {
    let mut model = market();
    let order_id = replacing(&mut model).order_id;
    let outcome = Outcome::Refused("trading in symbol AAPL is halted".into());
    apply(&mut model, Event::Replaced { order_id, outcome, elapsed_us: 1 });
    assert_eq!(model.ticket.as_ref().map(|t| &t.state), Some(&State::Editing));
    assert_eq!(message(&model), "8f3a not replaced: trading in symbol AAPL is halted");
    keys(&mut model, "bs");
    assert_eq!(model.ticket.as_ref().map(|t| t.side), Some(Side::Buy), "the side of an order stays");
}

#[test]
fn a_replace_never_goes_by_one_key_nor_without_live_data() {
    let mut model = market();
    keys(&mut model, "A");
    model.ladder.cursor = Some(23105);
    assert!(keys(&mut model, "r").is_empty());
    apply(&mut model, Event::Link(Wire::Nats, Link::Down, "connection lost".into()));
    press(&mut model, KeyCode::Tab);
    press(&mut model, KeyCode::Right);
    assert!(press(&mut model, KeyCode::Enter).is_empty());
    assert!(message(&model).contains("orders are refused"), "{}", message(&model));
}

#[test]
fn an_open_order_is_chosen_replaced_and_cancelled_among_the_orders() {
    let mut model = market();
    keys(&mut model, "c");
    assert!(message(&model).contains("no order is chosen"), "{}", message(&model));
    keys(&mut model, "pn");
    let first = model.chosen.clone().expect("one is chosen");
    assert_eq!(model.tab, fafnir_tui::model::Tab::Orders);
    keys(&mut model, "n");
    let second = model.chosen.clone().expect("another is chosen");
    assert_ne!(first, second);
    keys(&mut model, "N");
    assert_eq!(model.chosen.as_ref(), Some(&first));
    keys(&mut model, "r");
    let opened = model.ticket.as_ref().and_then(|t| t.replaces.as_ref()).map(|o| o.id.clone());
    assert_eq!(opened.as_ref(), Some(&first));
    press(&mut model, KeyCode::Esc);
    assert_eq!(keys(&mut model, "c"), [Cmd::Cancel { order_id: first }]);
}

#[test]
fn a_field_for_a_time_takes_its_letters_and_no_key_of_the_screen() {
    let mut model = market();
    keys(&mut model, "b");
    let ticket = model.ticket.as_mut().unwrap();
    ticket.time_in_force = fafnir_proto::v1::TimeInForce::Gtd;
    ticket.field = fafnir_tui::model::ticket::Field::Expires;
    assert!(keys(&mut model, "+1d12h30m5s").is_empty());
    let ticket = model.ticket.as_ref().unwrap();
    assert_eq!((ticket.expires.text(), ticket.side), ("+1d12h30m5s", Side::Buy));
    let clear = KeyEvent::new(KeyCode::Char('u'), KeyModifiers::CONTROL);
    update(&mut model, Msg::Input(InputEvent::Key(clear)));
    assert_eq!(model.ticket.as_ref().map(|t| t.expires.text()), Some(""));
    keys(&mut model, "+1d12h30m5s");
    let sent = press(&mut model, KeyCode::Enter);
    assert_eq!(placed(&sent)[0].expires_us, START_US + (36 * 3600 + 30 * 60 + 5) * 1_000_000);
}
