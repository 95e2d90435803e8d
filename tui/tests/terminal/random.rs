//! Whatever happens in whatever order at whatever size: no panic, no second order in flight.

use crate::common::*;
use crossterm::event::{
    Event as InputEvent, KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind,
};
use fafnir_proto::v1::{self, OrderState, Side};
use fafnir_tui::{
    Remembered, Theme,
    model::feed::{Link, Wire},
    msg::{Cmd, Event, Flattened, Msg, Outcome},
    theme::Depth,
    update::{update, wake_us},
    view::view,
};
use proptest::prelude::*;
use ratatui::{Terminal, backend::TestBackend};

fn text() -> impl Strategy<Value = String> {
    prop_oneof!["[ -~]{0,12}", "\\PC{0,6}", Just("\x1b[2J\u{202e}".to_owned()), Just("AAPL".to_owned())]
}

fn number() -> impl Strategy<Value = i64> {
    prop_oneof![Just(0), Just(i64::MAX), Just(i64::MIN), Just(-1), 1..5_000_000i64, any::<i64>()]
}

fn key() -> impl Strategy<Value = KeyCode> {
    prop_oneof![
        8 => prop::char::range(' ', '~').prop_map(KeyCode::Char),
        1 => any::<char>().prop_map(KeyCode::Char),
        6 => prop::sample::select(vec![
            KeyCode::Enter, KeyCode::Esc, KeyCode::Tab, KeyCode::BackTab, KeyCode::Up, KeyCode::Down, KeyCode::Left,
            KeyCode::Right, KeyCode::Backspace, KeyCode::Delete, KeyCode::Home, KeyCode::End, KeyCode::PageUp,
            KeyCode::PageDown, KeyCode::F(1),
        ]),
    ]
}

fn input() -> impl Strategy<Value = InputEvent> {
    prop_oneof![
        10 => key().prop_map(|code| InputEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))),
        2 => (0..=300u16, 0..=100u16).prop_map(|(w, h)| InputEvent::Resize(w, h)),
        2 => (0..150u16, 0..60u16, 0..5u8).prop_map(|(column, row, kind)| {
            let kind = match kind {
                0 => MouseEventKind::Down(MouseButton::Left),
                1 => MouseEventKind::ScrollUp,
                2 => MouseEventKind::Drag(MouseButton::Left),
                3 => MouseEventKind::Up(MouseButton::Left),
                _ => MouseEventKind::ScrollDown,
            };
            InputEvent::Mouse(MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE })
        }),
        1 => text().prop_map(InputEvent::Paste),
        1 => Just(InputEvent::FocusLost),
    ]
}

fn levels() -> impl Strategy<Value = Vec<v1::Level>> {
    let level = (number(), number()).prop_map(|(price_e4, quantity_e4)| v1::Level {
        price_e4,
        quantity_e4,
        orders: 1,
    });
    prop::collection::vec(level, 0..6)
}

fn prop_kind(number: i64) -> v1::OrderType {
    v1::OrderType::try_from(number.rem_euclid(6) as i32).unwrap_or_default()
}

fn market_event() -> impl Strategy<Value = Event> {
    let link = prop::sample::select(vec![Link::Up, Link::Down, Link::Connecting]);
    let wire = prop::sample::select(vec![Wire::Grpc, Wire::Nats]);
    prop_oneof![
        (wire, link, text()).prop_map(|(wire, link, why)| Event::Link(wire, link, why)),
        (levels(), levels(), number(), any::<bool>()).prop_map(|(bids, asks, n, from_feed)| {
            let image = v1::BookImage {
                symbol: "AAPL".into(),
                epoch: 1,
                book_seq: n as u64,
                bids,
                asks,
                last_price_e4: n,
                time_us: n,
                ..Default::default()
            };
            Event::Book { image, from_feed }
        }),
        (any::<u64>(), number(), number(), any::<bool>()).prop_map(|(n, price, quantity_e4, asked)| {
            let trade =
                v1::Trade { quantity_e4, trade_no: n, time_us: price, ..trade(1, price, 1, Side::Sell) };
            Event::Trades { symbol: "AAPL".into(), trades: vec![trade], after: asked.then_some(n) }
        }),
        (text(), number(), number()).prop_map(|(symbol, price, close)| {
            Event::Quotes(vec![quote(&symbol, price, close, 1), quote("AAPL", price, close, 2)])
        }),
        (text(), number(), number()).prop_map(|(name, tick_e4, lot_e4)| {
            Event::Instruments(vec![
                v1::Instrument { tick_e4, lot_e4, ..instrument("AAPL", &name, tick_e4) },
                instrument(&name, "", lot_e4),
            ])
        }),
        prop::collection::vec(text(), 0..4).prop_map(Event::Watchlist),
        (number(), number(), any::<u64>()).prop_map(|(price_e4, volume_e4, last_trade_no)| {
            let levels = vec![v1::PriceVolume { price_e4, volume_e4 }];
            Event::Volume(v1::VolumeAtPriceReply {
                symbol: "AAPL".into(),
                day_us: volume_e4,
                levels,
                last_trade_no,
            })
        }),
        (number(), number(), number()).prop_map(|(time_us, low_e4, high_e4)| Event::Candles {
            symbol: "AAPL".into(),
            interval: "1m",
            candles: vec![v1::Candle {
                time_us,
                low_e4,
                high_e4,
                open_e4: high_e4,
                volume_e4: low_e4,
                ..Default::default()
            }],
        }),
    ]
}

fn page_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (number(), number(), number()).prop_map(|(value_micros, from_us, percent)| {
            let point = |value_micros| v1::PerformancePoint { value_micros, from_us, ..Default::default() };
            Event::Performance(Box::new(v1::PerformanceReply {
                account_id: ACCOUNT.into(),
                end_micros: value_micros,
                gain_micros: from_us,
                gain_percent_e4: percent,
                time_weighted_percent_e4: Some(percent),
                points: vec![point(value_micros), point(percent), point(0)],
                ..Default::default()
            }))
        }),
        (number(), number(), text()).prop_map(|(time_us, high_e4, symbol)| Event::Days {
            symbol: if symbol.is_empty() { "AAPL".into() } else { symbol },
            candles: vec![v1::Candle { time_us, high_e4, low_e4: time_us, ..Default::default() }],
        }),
        (number(), number(), text()).prop_map(|(bps, e4, index)| {
            Event::Statistics(Box::new(v1::StatisticsReply {
                symbol: "AAPL".into(),
                year_change_bps: Some(bps),
                volume_short_e4: Some(e4),
                volatility_bps: Some(e4),
                beta_e4: Some(bps),
                index,
                ..Default::default()
            }))
        }),
        (number(), text(), any::<bool>()).prop_map(|(time_us, notice, cancel_only)| {
            let figures = v1::DashboardReply {
                time_us,
                trades: time_us as u64,
                cancel_only,
                halted: vec![instrument(&notice, &notice, time_us)],
                notice: notice.clone(),
                ..Default::default()
            };
            let user = v1::UserAccount { email: notice.clone(), state: notice, ..Default::default() };
            Event::Platform { figures: Box::new(figures), users: vec![user] }
        }),
        (text(), number(), 0..9usize).prop_map(|(symbol, group, size)| {
            Event::Recalled(Box::new(Remembered { symbol, group, size: Some(size), ..Remembered::default() }))
        }),
    ]
}

fn own_event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (number(), number(), 0..9i32, 0..3i32, text()).prop_map(
            |(price_e4, quantity_e4, state, side, reason)| {
                // Every sort of order, with extreme numbers where that sort has one.
                let kind = prop_kind(price_e4);
                let order = v1::Order {
                    price_e4,
                    quantity_e4,
                    r#type: kind.into(),
                    stop_price_e4: quantity_e4,
                    trail_amount_e4: price_e4,
                    display_quantity_e4: quantity_e4,
                    expires_us: price_e4,
                    state,
                    side,
                    reject_reason: reason.clone(),
                    id: reason,
                    ..order("aaaa", Side::Buy, 1, 1, OrderState::New)
                };
                Event::Orders { orders: vec![order], open_complete: true }
            }
        ),
        (number(), number()).prop_map(|(quantity_e4, cost_micros)| {
            let extreme =
                v1::Holding { quantity_e4, cost_micros, available_e4: quantity_e4, ..holding("AAPL", 1, 1) };
            Event::Positions(vec![extreme])
        }),
        (number(), number()).prop_map(|(available_micros, balance_micros)| {
            Event::Accounts(vec![v1::Account { available_micros, balance_micros, ..account(1) }])
        }),
        (number(), 0..3u8, text()).prop_map(|(price_e4, answer, text)| {
            let order = order("aaaa", Side::Buy, 1, price_e4, OrderState::New);
            let order_id = order.id.clone();
            let outcome = match answer {
                0 => Outcome::Done(order),
                1 => Outcome::Refused(text),
                _ => Outcome::Unknown(text),
            };
            Event::Replaced { order_id, outcome, elapsed_us: price_e4 }
        }),
        (number(), 0..3u8, text()).prop_map(|(left_e4, answer, text)| {
            let outcome = match answer {
                0 => Outcome::Done(Flattened { left_e4, why: text, ..Default::default() }),
                1 => Outcome::Refused(text),
                _ => Outcome::Unknown(text),
            };
            Event::Flattened { symbol: "AAPL".into(), outcome, elapsed_us: left_e4 }
        }),
        text().prop_map(Event::SignedOut),
        text().prop_map(|text| Event::Unanswered { question: "book", text }),
    ]
}

fn message() -> impl Strategy<Value = Msg> {
    prop_oneof![
        6 => input().prop_map(Msg::Input),
        3 => market_event().prop_map(Msg::Backend).boxed(),
        3 => own_event().prop_map(Msg::Backend).boxed(),
        1 => page_event().prop_map(Msg::Backend).boxed(),
        1 => prop_oneof![(0..600i64).prop_map(|s| START_US + s * 1_000_000), number()].prop_map(Msg::Clock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_happens_panics_and_one_order_is_in_flight_at_most(
        messages in prop::collection::vec(message(), 1..50),
        ascii: bool,
        answers in prop::collection::vec(0..4u8, 80),
    ) {
        let depth = if ascii { Depth::Mono } else { Depth::Ansi256 };
        let mut model = live((120, 40), Theme { ascii, depth, ..Theme::default() });
        let mut answers = answers.into_iter();
        let mut in_flight: Option<String> = None;
        for message in messages {
            let mut cmds = update(&mut model, message);
            let tickets: Vec<String> = cmds
                .iter()
                .filter_map(|c| match c {
                    Cmd::Place(request) => Some(request.client_order_id.clone()),
                    _ => None,
                })
                .collect();
            prop_assert!(tickets.len() <= 1);
            if let Some(id) = tickets.into_iter().next() {
                prop_assert!(in_flight.is_none(), "a second order while one is in flight");
                in_flight = Some(id);
            }
            if let Some(answer) = answers.next()
                && answer < 3
                && let Some(client_order_id) = in_flight.take()
            {
                let outcome = match answer {
                    0 => Outcome::Done(order("bbbb", Side::Buy, 1, 100, OrderState::New)),
                    1 => Outcome::Refused("no".into()),
                    _ => Outcome::Unknown("late".into()),
                };
                cmds = apply(&mut model, Event::Placed { client_order_id, outcome, elapsed_us: 1 });
            }
            drop(cmds);
            wake_us(&model);
            let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
            terminal.draw(|frame| view(&model, frame)).unwrap();
            for cell in terminal.backend().buffer().content() {
                prop_assert!(!cell.symbol().chars().any(char::is_control));
                prop_assert!(!ascii || cell.symbol().is_ascii(), "{:?}", cell.symbol());
            }
        }
    }
}

#[test]
fn every_size_from_20x5_to_300x100_shows_something() {
    for width in (20..=300).step_by(35) {
        for height in (5..=100).step_by(19) {
            let mut model = live((width, height), Theme::default());
            for key in [
                "", "b", "\u{1b}?", "\u{1b}/a", "\u{1b}:o", "\u{1b}F", "\u{1b}a2", "\u{1b}P", "\u{1b}i",
                "\u{1b}D",
            ] {
                for c in key.chars() {
                    press(&mut model, if c == '\u{1b}' { KeyCode::Esc } else { KeyCode::Char(c) });
                }
                let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
                terminal.draw(|frame| view(&model, frame)).unwrap();
                let shown = terminal.backend().buffer().content().iter().any(|cell| cell.symbol() != " ");
                assert!(shown, "{width}x{height} {key:?}");
            }
        }
    }
}
