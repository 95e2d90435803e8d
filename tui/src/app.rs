//! The loop: takes what comes, updates the model, paints when it is worth it. Generic over backend, screen and input.
//!
//! All that has arrived is applied before a frame is painted. A key paints at once unless a frame was painted less than
//! 10 ms ago; the market paints at most 30 times a second; when nothing changes nothing is painted and nothing wakes up.

use crate::{
    Exit,
    backend::Backend,
    model::Model,
    msg::Msg,
    record::Recorder,
    update::{update, wake_us},
    view::view,
};
use anyhow::Context as _;
use crossterm::event::Event as InputEvent;
use futures::{Stream, StreamExt as _, poll};
use ratatui::Terminal;
use std::{io, task::Poll, time::Duration};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

/// Shortest time between two frames that keys cause.
pub const FRAME_INPUT: Duration = Duration::from_millis(10);
/// Shortest time between two frames that the market causes.
pub const FRAME_MARKET: Duration = Duration::from_millis(34);
/// Messages applied in one go before the screen gets its turn.
const BATCH_MAX: usize = 512;

enum Wake {
    Input(Option<io::Result<InputEvent>>),
    Backend(Option<Box<crate::msg::Event>>),
    Timer,
    Stop,
}

/// Runs until the user leaves, the input ends or `stop` is cancelled.
///
/// # Errors
/// Input or drawing fails, or the backend ends by itself.
pub async fn drive<B, T, I>(
    model: &mut Model,
    backend: &mut B,
    terminal: &mut Terminal<T>,
    input: &mut I,
    stop: &CancellationToken,
    clock: impl Fn() -> i64,
    mut recorder: Option<&mut Recorder>,
) -> anyhow::Result<Exit>
where
    B: Backend,
    T: ratatui::backend::Backend,
    I: Stream<Item = io::Result<InputEvent>> + Unpin,
{
    let mut last_frame: Option<Instant> = None;
    let mut due: Option<Instant> = Some(Instant::now());
    loop {
        let now = Instant::now();
        if due.is_some_and(|at| at <= now) && !stop.is_cancelled() {
            terminal.draw(|frame| view(model, frame)).map_err(|e| anyhow::anyhow!("drawing failed: {e}"))?;
            model.dirty = false;
            last_frame = Some(now);
            due = None;
        }
        let wake = wake_us(model).map(|at| {
            let wait = u64::try_from(at.saturating_sub(clock())).unwrap_or(0).clamp(1_000, 3_600_000_000);
            now + Duration::from_micros(wait)
        });
        let next = [due, wake].into_iter().flatten().min();
        let woken = tokio::select! {
            biased;
            () = stop.cancelled() => Wake::Stop,
            event = input.next() => Wake::Input(event),
            event = backend.next() => Wake::Backend(event.map(Box::new)),
            () = sleep_until(next.unwrap_or(now)), if next.is_some() => Wake::Timer,
        };
        let mut is_input = matches!(woken, Wake::Input(_));
        step(model, backend, &mut recorder, Msg::Clock(clock()))?;
        match woken {
            Wake::Stop => return Ok(Exit::Interrupted),
            Wake::Input(None) => return Ok(Exit::Quit),
            Wake::Input(Some(event)) => {
                step(model, backend, &mut recorder, Msg::Input(event.context("reading keys failed")?))?;
            }
            Wake::Backend(None) => anyhow::bail!("the connection's task ended"),
            Wake::Backend(Some(event)) => step(model, backend, &mut recorder, Msg::Backend(*event))?,
            Wake::Timer => {}
        }
        for _ in 0..BATCH_MAX {
            // With this task's own waker: an input stream may keep the first one that it is given.
            if let Poll::Ready(Some(event)) = poll!(input.next()) {
                is_input = true;
                step(model, backend, &mut recorder, Msg::Input(event.context("reading keys failed")?))?;
            } else if let Some(event) = backend.try_next() {
                step(model, backend, &mut recorder, Msg::Backend(event))?;
            } else {
                break;
            }
        }
        if let Some(exit) = model.exit {
            return Ok(exit);
        }
        if std::mem::take(&mut model.suspend) {
            return Ok(Exit::Suspended);
        }
        if model.dirty {
            let gap = if is_input { FRAME_INPUT } else { FRAME_MARKET };
            let earliest = last_frame.map_or(now, |at| at + gap);
            due = Some(due.map_or(earliest, |at| at.min(earliest)));
        }
    }
}

fn step(
    model: &mut Model,
    backend: &mut impl Backend,
    recorder: &mut Option<&mut Recorder>,
    msg: Msg,
) -> anyhow::Result<()> {
    if let Some(recorder) = recorder {
        recorder.add(model, &msg).context("the recording cannot be written")?;
    }
    for cmd in update(model, msg) {
        backend.submit(cmd);
    }
    Ok(())
}
