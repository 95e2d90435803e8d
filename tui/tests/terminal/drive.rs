//! The loop with a scripted backend: what is drawn and when, how it ends.

use crate::common::*;
use crossterm::event::{Event as InputEvent, KeyCode, KeyEvent, KeyModifiers};
use fafnir_tui::{
    Exit, Theme,
    app::drive,
    backend::{Backend, scripted::Scripted},
    model::Model,
    msg::{Cmd, Event},
};
use futures::StreamExt as _;
use ratatui::{Terminal, backend::TestBackend};
use std::{
    collections::VecDeque,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

#[expect(clippy::unnecessary_wraps, reason = "a terminal's input may fail, and so do its events in a script")]
fn key(code: KeyCode) -> io::Result<InputEvent> {
    Ok(InputEvent::Key(KeyEvent::new(code, KeyModifiers::NONE)))
}

fn screen() -> Terminal<TestBackend> {
    Terminal::new(TestBackend::new(120, 40)).unwrap()
}

/// A new image of the book every 5 ms, and a count of the frames, by way of the book on the screen.
struct Busy {
    seq: u64,
    until: u64,
}

impl Backend for Busy {
    fn submit(&mut self, _: Cmd) {}

    async fn next(&mut self) -> Option<Event> {
        if self.seq >= self.until {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
        self.seq += 1;
        Some(Event::Book { image: book(self.seq, START_US), from_feed: true })
    }

    fn try_next(&mut self) -> Option<Event> {
        None
    }
}

#[tokio::test(start_paused = true)]
async fn keys_reach_the_exchange_and_q_ends() {
    let mut model = live((120, 40), Theme::default());
    let mut backend = Scripted::new([]);
    let typed = [key(KeyCode::Char('b')), key(KeyCode::Enter), key(KeyCode::Enter), key(KeyCode::Char('q'))];
    let mut input = futures::stream::iter(typed).chain(futures::stream::pending());
    let stop = CancellationToken::new();
    let exit =
        drive(&mut model, &mut backend, &mut screen(), &mut input, &stop, || START_US, None).await.unwrap();
    assert_eq!(exit, Exit::Quit);
    let orders = backend.commands.iter().filter(|c| matches!(c, Cmd::Place(_))).count();
    assert_eq!(orders, 1);
}

#[tokio::test(start_paused = true)]
async fn a_signal_ends_the_loop() {
    let mut model = live((120, 40), Theme::default());
    let stop = CancellationToken::new();
    stop.cancel();
    let mut input = futures::stream::pending();
    let exit =
        drive(&mut model, &mut Scripted::new([]), &mut screen(), &mut input, &stop, || START_US, None).await;
    assert_eq!(exit.unwrap(), Exit::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn the_market_draws_at_most_thirty_frames_a_second() {
    let mut model = live((120, 40), Theme::default());
    let started = Instant::now();
    let mut terminal = screen();
    let clock = move || START_US + i64::try_from(started.elapsed().as_micros()).unwrap();
    let stop = CancellationToken::new();
    let result = drive(
        &mut model,
        &mut Busy { seq: 1, until: 401 },
        &mut terminal,
        &mut futures::stream::pending(),
        &stop,
        clock,
        None,
    )
    .await;
    assert!(result.is_err(), "the backend ended");
    let seconds = started.elapsed().as_secs_f64();
    let frames = terminal.get_frame().count() as f64;
    assert!(seconds >= 1.9, "{seconds}");
    assert!(frames / seconds <= 30.5, "{frames} frames in {seconds} s");
    assert!(frames / seconds >= 20.0, "{frames} frames in {seconds} s");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_drawn_at_idle() {
    let mut model = Model::new(START_US, (120, 40), Theme::default(), fafnir_tui::model::Ids::new("t"));
    let mut terminal = screen();
    let stop = CancellationToken::new();
    let ends = stop.clone();
    let run = async {
        drive(
            &mut model,
            &mut Scripted::new([]),
            &mut terminal,
            &mut futures::stream::pending(),
            &stop,
            || START_US,
            None,
        )
        .await
    };
    let (exit, ()) = tokio::join!(run, async {
        tokio::time::sleep(Duration::from_hours(1)).await;
        ends.cancel();
    });
    assert_eq!(exit.unwrap(), Exit::Interrupted);
    assert_eq!(terminal.get_frame().count(), 1);
}

/// Keys as crossterm's stream gives them: it keeps the first waker until that one was woken.
#[derive(Clone, Default)]
struct Keyboard(Arc<Mutex<(VecDeque<InputEvent>, Option<Waker>)>>);

impl Keyboard {
    fn press(&self, code: KeyCode) {
        let mut inner = self.0.lock().unwrap();
        inner.0.extend(key(code));
        if let Some(waker) = inner.1.take() {
            waker.wake();
        }
    }
}

impl futures::Stream for Keyboard {
    type Item = io::Result<InputEvent>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut inner = self.0.lock().unwrap();
        if let Some(event) = inner.0.pop_front() {
            Poll::Ready(Some(Ok(event)))
        } else {
            inner.1.get_or_insert_with(|| cx.waker().clone());
            Poll::Pending
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_is_never_left_lying_after_a_batch_of_events() {
    let mut model = live((120, 40), Theme::default());
    let mut backend = Scripted::new([Event::Unanswered { question: "book", text: "no answer".into() }]);
    let mut keyboard = Keyboard::default();
    let hands = keyboard.clone();
    let stop = CancellationToken::new();
    let mut terminal = screen();
    // A task of its own: its wake-ups must not poll the loop by accident.
    let typing = tokio::spawn(async move {
        for code in [KeyCode::Up, KeyCode::Char('q')] {
            tokio::time::sleep(Duration::from_millis(100)).await;
            hands.press(code);
        }
    });
    let run = drive(&mut model, &mut backend, &mut terminal, &mut keyboard, &stop, || START_US, None);
    let started = Instant::now();
    let exit = tokio::time::timeout(Duration::from_secs(5), run).await;
    assert_eq!(exit.expect("the loop ends").unwrap(), Exit::Quit);
    // The deadline polls the loop a last time: only the time tells whether the key itself woke it.
    assert!(started.elapsed() < Duration::from_millis(300), "{:?}", started.elapsed());
    typing.await.unwrap();
}
