//! Plays a recording on the screen, at its own pace or faster. Nothing is sent anywhere.

use crate::{
    Exit, Zone,
    app::FRAME_MARKET,
    model::{Model, Replay},
    msg::Msg,
    record::Player,
    terminal,
    theme::Theme,
    update::update,
    view::view,
};
use anyhow::Context as _;
use crossterm::event::{Event as InputEvent, EventStream, KeyCode, KeyModifiers};
use futures::StreamExt as _;
use std::{fs::File, path::Path, time::Duration};
use tokio::time::{Instant, sleep_until};

/// A pause in the recording longer than this is cut to it.
const PAUSE_MAX: Duration = Duration::from_secs(2);
/// How far a key goes, in microseconds of the recording.
const SEEK_US: i64 = 10_000_000;
/// Slowest and fastest, in percent.
const SPEEDS: (u32, u32) = (25, 1_600);

/// A recording and the model at the place to which it was played.
struct Tape<'a> {
    path: &'a Path,
    theme: Theme,
    player: Player,
    model: Model,
    next: Option<Msg>,
}

impl<'a> Tape<'a> {
    fn open(path: &'a Path, theme: Theme) -> anyhow::Result<Self> {
        let file = File::open(path).with_context(|| format!("{} cannot be opened", path.display()))?;
        let opened = Player::open(file, theme).with_context(|| path.display().to_string())?;
        let (mut player, model) = opened;
        let next = player.read()?;
        Ok(Self { path, theme, player, model, next })
    }

    /// Applies the next message.
    fn step(&mut self) -> anyhow::Result<()> {
        if let Some(msg) = self.next.take() {
            // The window of now counts, not the one of then.
            if !matches!(msg, Msg::Input(InputEvent::Resize(..))) {
                update(&mut self.model, msg);
            }
            self.next = self.player.read()?;
        }
        Ok(())
    }

    /// Goes to a time of the recording; back from its beginning.
    fn seek(&mut self, time_us: i64) -> anyhow::Result<()> {
        if time_us < self.model.now_us {
            let (size, replay, zone) = (self.model.size, self.model.replay, self.model.zone.clone());
            *self = Self::open(self.path, self.theme)?;
            (self.model.size, self.model.replay, self.model.zone) = (size, replay, zone);
        }
        while self.model.now_us < time_us && self.next.is_some() {
            self.step()?;
        }
        self.model.dirty = true;
        Ok(())
    }
}

/// Plays the recording at `path`, `speed_percent` as fast as it was (100 is as it was). Space holds and goes on, `+` and
/// `-` change the speed, left and right go 10 s, `q` ends.
///
/// # Errors
/// The file cannot be read or is no recording, or the standard streams are not a terminal.
pub async fn replay(path: &Path, theme: Theme, zone: Zone, speed_percent: u32) -> anyhow::Result<Exit> {
    let mut tape = Tape::open(path, theme)?;
    tape.model.zone = zone;
    let (mut guard, stop) = terminal::enter(false)?;
    tape.model.size = guard.size()?;
    let mut how = Replay { held: false, speed_percent };
    let mut input = EventStream::new();
    let mut frame_due = Instant::now();
    let mut next_at = Instant::now();
    loop {
        tape.model.replay = Some(how);
        if tape.model.dirty && Instant::now() >= frame_due {
            guard.terminal().draw(|frame| view(&tape.model, frame))?;
            tape.model.dirty = false;
            frame_due = Instant::now() + FRAME_MARKET;
        }
        let plays = !how.held && tape.next.is_some();
        tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(Exit::Interrupted),
            event = input.next() => {
                let Some(event) = event else { return Ok(Exit::Quit) };
                if let Some(exit) = handle(&mut tape, &mut how, &event.context("reading keys failed")?)? {
                    return Ok(exit);
                }
                next_at = Instant::now();
            }
            () = sleep_until(if plays { next_at } else { frame_due }), if plays || tape.model.dirty => {
                if plays {
                    if let Some(msg) = &tape.next {
                        next_at += pause(&tape.model, msg, how.speed_percent);
                    }
                    tape.step()?;
                }
            }
        }
    }
}

/// What the user does; how it ends, if so.
fn handle(tape: &mut Tape<'_>, how: &mut Replay, event: &InputEvent) -> anyhow::Result<Option<Exit>> {
    let InputEvent::Key(key) = event else {
        if let InputEvent::Resize(columns, rows) = event {
            tape.model.size = (*columns, *rows);
            tape.model.dirty = true;
        }
        return Ok(None);
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => {
            return Ok(Some(Exit::Interrupted));
        }
        KeyCode::Char('q') | KeyCode::Esc => return Ok(Some(Exit::Quit)),
        KeyCode::Char(' ') => how.held = !how.held,
        KeyCode::Char('+' | '=') => how.speed_percent = how.speed_percent.saturating_mul(2).min(SPEEDS.1),
        KeyCode::Char('-') => how.speed_percent = (how.speed_percent / 2).max(SPEEDS.0),
        KeyCode::Right => tape.seek(tape.model.now_us.saturating_add(SEEK_US))?,
        KeyCode::Left => tape.seek(tape.model.now_us.saturating_sub(SEEK_US))?,
        _ => {}
    }
    tape.model.dirty = true;
    Ok(None)
}

/// How long to wait after a message that moves the clock.
fn pause(model: &Model, msg: &Msg, speed_percent: u32) -> Duration {
    let Msg::Clock(now) = msg else { return Duration::ZERO };
    let passed = u64::try_from(now.saturating_sub(model.now_us)).unwrap_or(0);
    Duration::from_micros(passed.saturating_mul(100) / u64::from(speed_percent.max(1))).min(PAUSE_MAX)
}
