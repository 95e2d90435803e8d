//! A recorded session plays to the same screen, and never holds a password.

use crate::common::*;
use crossterm::event::{Event as InputEvent, KeyCode, KeyEvent, KeyModifiers};
use fafnir_proto::v1::{self, OrderState, Side};
use fafnir_tui::{
    Remembered, Theme,
    model::{
        Model, Who,
        feed::{Link, Wire},
    },
    msg::{Event, Flattened, Msg, Outcome},
    record::{Error, Player, Recorder},
    update::update,
    view::view,
};
use ratatui::{Terminal, backend::TestBackend};
use std::{
    io::{self, Write},
    sync::{Arc, Mutex},
};

#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<u8>>>);

impl Write for Memory {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn screen(model: &Model) -> ratatui::buffer::Buffer {
    let mut terminal = Terminal::new(TestBackend::new(model.size.0, model.size.1)).unwrap();
    terminal.draw(|frame| view(model, frame)).unwrap();
    terminal.backend().buffer().clone()
}

fn key(code: KeyCode) -> Msg {
    Msg::Input(InputEvent::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn session() -> Vec<Msg> {
    let who = Who { user_id: "u".into(), email: "user@test.com".into() };
    let mut messages: Vec<Msg> = "hunter2".chars().map(|c| key(KeyCode::Char(c))).collect();
    let events = [
        Event::Link(Wire::Grpc, Link::Up, String::new()),
        Event::Link(Wire::Nats, Link::Up, String::new()),
        Event::SignedIn(who),
        Event::Instruments(vec![instrument("AAPL", "Apple Inc.", 2_298_300)]),
        Event::Watchlist(vec!["AAPL".into()]),
        Event::Accounts(vec![account(88_410_000_000)]),
        Event::Positions(vec![holding("AAPL", 42, 9_600_000_000)]),
        Event::Quotes(vec![quote("AAPL", 2_310_700, 2_298_300, 1)]),
        Event::Trades {
            symbol: "AAPL".into(),
            trades: (1..9).map(|n| trade(n, 2_310_700, 5, Side::Buy)).collect(),
            after: Some(0),
        },
        Event::Book { image: book(1, START_US), from_feed: true },
        Event::Orders {
            orders: vec![order("8f3a", Side::Buy, 5, 2_310_500, OrderState::New)],
            open_complete: true,
        },
        Event::Candles {
            symbol: "AAPL".into(),
            interval: "1m",
            candles: vec![v1::Candle {
                time_us: START_US,
                open_e4: 2_310_000,
                close_e4: 2_310_700,
                ..Default::default()
            }],
        },
        Event::Recalled(Box::new(Remembered { group: 5, timeframe: "5m".into(), ..Remembered::default() })),
        Event::Performance(Box::new(v1::PerformanceReply {
            account_id: ACCOUNT.into(),
            ..Default::default()
        })),
        Event::Days { symbol: "AAPL".into(), candles: vec![v1::Candle { open_e4: 1, ..Default::default() }] },
        Event::Statistics(Box::new(v1::StatisticsReply { symbol: "AAPL".into(), ..Default::default() })),
        Event::Platform { figures: Box::default(), users: Vec::new() },
        Event::Unanswered { question: "fills", text: "no answer in time".into() },
    ];
    messages.extend(events.map(Msg::Backend));
    messages.push(Msg::Clock(START_US + 1_000_000));
    messages.extend([key(KeyCode::Up), key(KeyCode::Char('b')), key(KeyCode::Enter)]);
    let answer = Event::Placed {
        client_order_id: "test-1".into(),
        outcome: Outcome::Refused("no".into()),
        elapsed_us: 5,
    };
    messages.push(Msg::Backend(answer));
    let canceled = order("8f3a", Side::Buy, 5, 2_310_500, OrderState::Canceled);
    messages.push(Msg::Backend(Event::Canceled {
        order_id: canceled.id.clone(),
        outcome: Outcome::Done(canceled),
        elapsed_us: 7,
    }));
    let replaced = order("8f3a", Side::Buy, 5, 2_310_600, OrderState::New);
    messages.push(Msg::Backend(Event::Replaced {
        order_id: replaced.id.clone(),
        outcome: Outcome::Done(replaced),
        elapsed_us: 8,
    }));
    let sold = order("ffff", Side::Sell, 42, 2_310_600, OrderState::PartiallyFilled);
    let flattened = Flattened { orders: vec![sold], left_e4: 20_000, why: "no bids".into() };
    let outcome = Outcome::Done(flattened);
    messages.push(Msg::Backend(Event::Flattened { symbol: "AAPL".into(), outcome, elapsed_us: 9 }));
    messages
}

fn record() -> (Vec<u8>, Model) {
    let memory = Memory::default();
    let mut model = fresh((120, 40), Theme::default());
    let mut recorder = Recorder::start(memory.clone(), &model).unwrap();
    for msg in session() {
        recorder.add(&model, &msg).unwrap();
        update(&mut model, msg);
    }
    let bytes = memory.0.lock().unwrap().clone();
    (bytes, model)
}

#[test]
fn a_recorded_session_plays_to_the_same_screen() {
    let (bytes, model) = record();
    assert!(model.ticket.is_some() && model.log.len() > 4);
    let (player, mut played) = Player::open(io::Cursor::new(bytes), Theme::default()).unwrap();
    player.play(&mut played).unwrap();
    assert_eq!(screen(&played), screen(&model));
    assert_eq!(played.log, model.log);
}

#[test]
fn what_is_typed_at_sign_in_is_not_in_a_recording() {
    let (bytes, model) = record();
    assert_eq!(model.screen, fafnir_tui::model::Screen::Trading);
    let played = Player::open(io::Cursor::new(bytes), Theme::default());
    let (mut player, _) = played.unwrap();
    let mut keys = String::new();
    while let Some(msg) = player.read().unwrap() {
        if let Msg::Input(InputEvent::Key(KeyEvent { code: KeyCode::Char(c), .. })) = msg {
            keys.push(c);
        }
    }
    assert_eq!(keys, "b");
}

#[test]
fn a_cut_recording_plays_to_where_it_was_cut_and_another_file_is_refused() {
    let (bytes, _) = record();
    for length in 0..bytes.len() {
        match Player::open(io::Cursor::new(bytes[..length].to_vec()), Theme::default()) {
            Ok((player, mut model)) => assert!(player.play(&mut model).is_ok(), "{length}"),
            Err(Error::Heading | Error::Io(_)) => assert!(length < 200, "{length}"),
            Err(e) => panic!("{length}: {e}"),
        }
    }
    let other = Player::open(io::Cursor::new(vec![7; 4096]), Theme::default());
    assert!(matches!(other, Err(Error::Heading)));
}
