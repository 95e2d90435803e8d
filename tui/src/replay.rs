//! Plays a recording on the screen, at its own pace or faster. Nothing is sent anywhere.

use crate::{
    Exit, app::FRAME_MARKET, model::Model, msg::Msg, record::Player, terminal, theme::Theme, update::update,
    view::view,
};
use anyhow::Context as _;
use crossterm::event::{Event as InputEvent, EventStream, KeyCode, KeyModifiers};
use futures::StreamExt as _;
use std::{fs::File, path::Path, time::Duration};
use tokio::time::{Instant, sleep_until};

/// A pause in the recording longer than this is cut to it.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Plays the recording at `path`, `speed` percent as fast as it was (100 is as it was). `q` ends, space holds and goes on.
///
/// # Errors
/// The file cannot be read or is no recording, or the standard streams are not a terminal.
pub async fn replay(path: &Path, theme: Theme, speed_percent: u32) -> anyhow::Result<Exit> {
    let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
    let (mut player, mut model) = Player::open(file, theme).with_context(|| path.display().to_string())?;
    let (mut guard, stop) = terminal::enter(false)?;
    model.size = guard.size()?;
    let mut input = EventStream::new();
    let mut held = false;
    let mut frame_due = Instant::now();
    let mut next_at = Instant::now();
    let mut next = player.read()?;
    loop {
        if model.dirty && Instant::now() >= frame_due {
            guard.terminal().draw(|frame| view(&model, frame))?;
            model.dirty = false;
            frame_due = Instant::now() + FRAME_MARKET;
        }
        let wake = if held || next.is_none() { frame_due } else { next_at };
        let waits = model.dirty || (!held && next.is_some());
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Exit::Interrupted),
            event = input.next() => match event {
                None => return Ok(Exit::Quit),
                Some(event) => match event.context("reading keys failed")? {
                    InputEvent::Resize(columns, rows) => {
                        model.size = (columns, rows);
                        model.dirty = true;
                    }
                    InputEvent::Key(key) => match key.code {
                        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return Ok(Exit::Interrupted),
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(Exit::Quit),
                        KeyCode::Char(' ') => {
                            held = !held;
                            next_at = Instant::now();
                        }
                        _ => {}
                    },
                    _ => {}
                },
            },
            () = sleep_until(wake), if waits => {
                if !held && let Some(msg) = next.take() {
                    next_at += pause(&model, &msg, speed_percent);
                    // The window of now counts, not the one of then.
                    if !matches!(msg, Msg::Input(InputEvent::Resize(..))) {
                        update(&mut model, msg);
                    }
                    next = player.read()?;
                }
            }
        }
    }
}

/// How long to wait after a message that moves the clock.
fn pause(model: &Model, msg: &Msg, speed_percent: u32) -> Duration {
    let Msg::Clock(now) = msg else { return Duration::ZERO };
    let passed = u64::try_from(now.saturating_sub(model.now_us)).unwrap_or(0);
    Duration::from_micros(passed.saturating_mul(100) / u64::from(speed_percent.max(1))).min(PAUSE_MAX)
}
