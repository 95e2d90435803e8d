//! Takes the screen and gives it back: on return, on a signal, on a panic anywhere in the process.

use anyhow::Context as _;
use crossterm::{
    cursor,
    event::{
        DisableBracketedPaste, DisableFocusChange, DisableMouseCapture, EnableBracketedPaste,
        EnableFocusChange, EnableMouseCapture, Event, EventStream, KeyCode, KeyEvent, KeyModifiers,
    },
    execute,
    terminal::{
        Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
    },
};
use data_encoding::BASE64;
use futures::Stream;
use ratatui::{Terminal, backend::CrosstermBackend};
use std::{
    io::{self, BufWriter, IsTerminal as _, Stdout, Write as _},
    panic,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// What the terminal draws to.
pub type Screen = Terminal<CrosstermBackend<BufWriter<Stdout>>>;

/// Holds the screen; dropping it gives the screen back.
#[derive(Debug)]
pub struct Guard {
    screen: Screen,
    taken: Arc<AtomicBool>,
    _signals: DropGuard,
}

impl Guard {
    /// Gives the screen back, stops the process as Ctrl-Z does, and takes the screen again when it goes on.
    ///
    /// # Errors
    /// The terminal cannot be taken again.
    #[cfg(unix)]
    pub async fn suspend(&mut self, mouse: bool) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let goes_on = SignalKind::from_raw(rustix::process::Signal::CONT.as_raw());
        let mut goes_on = signal(goes_on).context("SIGCONT cannot be listened to")?;
        restore(&self.taken);
        // Not SIGTSTP: that one is listened to, so that it comes here.
        rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP)
            .context("the process cannot be stopped")?;
        // The stop may come a moment after the call for it has returned.
        goes_on.recv().await;
        enable_raw_mode().context("the terminal refused raw mode")?;
        self.taken.store(true, Ordering::SeqCst);
        self.screen = take(mouse)?;
        Ok(())
    }

    pub fn terminal(&mut self) -> &mut Screen {
        &mut self.screen
    }

    /// Columns and rows.
    pub fn size(&self) -> io::Result<(u16, u16)> {
        let size = self.screen.size()?;
        Ok((size.width, size.height))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        restore(&self.taken);
        // While this thread unwinds the hook cannot be changed; it does nothing once the screen is back.
        if !std::thread::panicking() {
            drop(panic::take_hook());
        }
    }
}

/// Takes the screen. The token is cancelled when the process is asked to end or a panic happened in any thread: whoever
/// draws must stop then.
///
/// # Errors
/// The standard streams are not a terminal.
pub fn enter(mouse: bool) -> anyhow::Result<(Guard, CancellationToken)> {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        anyhow::bail!("the trading terminal needs a terminal: standard input and output are not one");
    }
    let taken = Arc::new(AtomicBool::new(true));
    let stop = CancellationToken::new();
    let previous = panic::take_hook();
    let (in_hook, stop_in_hook) = (Arc::clone(&taken), stop.clone());
    panic::set_hook(Box::new(move |info| {
        restore(&in_hook);
        stop_in_hook.cancel();
        previous(info);
    }));
    enable_raw_mode().context("the terminal refused raw mode")?;
    let screen = take(mouse).inspect_err(|_| restore(&taken))?;
    let signals = signals(stop.clone());
    Ok((Guard { screen, taken, _signals: signals }, stop))
}

fn take(mouse: bool) -> anyhow::Result<Screen> {
    let mut out = io::stdout();
    execute!(out, EnterAlternateScreen, EnableBracketedPaste, EnableFocusChange, cursor::Hide)?;
    if mouse {
        execute!(out, EnableMouseCapture)?;
    }
    // Not `Terminal::clear`: it asks the terminal where its cursor is, and some never answer.
    execute!(out, Clear(ClearType::All))?;
    Ok(Terminal::new(CrosstermBackend::new(BufWriter::new(out)))?)
}

/// Gives the screen back, once. Errors have nowhere to go: the terminal is gone then.
fn restore(taken: &AtomicBool) {
    if !taken.swap(false, Ordering::SeqCst) {
        return;
    }
    let mut out = io::stdout();
    let _ = execute!(
        out,
        DisableMouseCapture,
        DisableFocusChange,
        DisableBracketedPaste,
        LeaveAlternateScreen,
        cursor::Show
    );
    let _ = disable_raw_mode();
    let _ = out.flush();
}

/// Puts a text on the clipboard of the terminal emulator (OSC 52); one that takes none ignores it.
pub fn copy(text: &str) {
    say(&format!("\x1b]52;c;{}\x07", BASE64.encode(text.as_bytes())));
}

/// Rings.
pub fn bell() {
    say("\x07");
}

/// Writes to the terminal between two frames. Errors have nowhere to go: drawing will meet them too.
fn say(sequence: &str) {
    let mut out = io::stdout();
    let _ = out.write_all(sequence.as_bytes()).and_then(|()| out.flush());
}

/// What the user does: keys, the mouse, the window; SIGTSTP is a Ctrl-Z.
///
/// # Errors
/// The signal cannot be listened to.
#[cfg(unix)]
pub fn input() -> anyhow::Result<impl Stream<Item = io::Result<Event>> + Unpin> {
    use tokio::signal::unix::{SignalKind, signal};
    let stops = signal(SignalKind::from_raw(rustix::process::Signal::TSTP.as_raw()))
        .context("SIGTSTP cannot be listened to")?;
    let stops = futures::stream::unfold(stops, |mut stops| async move {
        stops.recv().await?;
        let key = KeyEvent::new(KeyCode::Char('z'), KeyModifiers::CONTROL);
        Some((Ok(Event::Key(key)), stops))
    });
    Ok(futures::stream::select(EventStream::new(), Box::pin(stops)))
}

/// Cancels `stop` when the process is asked to end; the task ends with the guard.
fn signals(stop: CancellationToken) -> DropGuard {
    let ended = CancellationToken::new();
    let done = ended.clone();
    #[cfg(unix)]
    tokio::spawn(async move {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut terminate), Ok(mut hangup)) =
            (signal(SignalKind::terminate()), signal(SignalKind::hangup()))
        else {
            return;
        };
        tokio::select! {
            _ = terminate.recv() => stop.cancel(),
            _ = hangup.recv() => stop.cancel(),
            () = done.cancelled() => {}
        }
    });
    #[cfg(not(unix))]
    drop((stop, done));
    ended.drop_guard()
}
