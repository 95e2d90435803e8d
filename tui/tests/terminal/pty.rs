//! The real terminal: a child process in a pseudo-terminal gives the screen back however it ends.

use fafnir_tui::{Exit, Options, run, terminal};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(30);
const MODE: &str = "FAFNIR_TUI_CHILD";
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

pub struct Ended {
    pub output: String,
    pub status: ExitStatus,
    /// The terminal echoes and works line by line again.
    pub is_cooked: bool,
}

/// A child of this executable in a pseudo-terminal of 120×40.
pub struct Driven {
    child: Child,
    slave: File,
    writer: File,
    pieces: mpsc::Receiver<Vec<u8>>,
    reading: thread::JoinHandle<()>,
    output: Vec<u8>,
    until: Instant,
}

/// Starts the ignored test `child` with a mode for it to find.
pub fn start(child: &str, mode: &str) -> Driven {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    tcsetwinsize(&master, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let stdio = || Stdio::from(slave.try_clone().unwrap());
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", child, "--ignored", "--nocapture"])
        .env(MODE, mode)
        .env("RUST_BACKTRACE", "0")
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    let (mut reader, writer) = (File::from(master.try_clone().unwrap()), File::from(master));
    let (sender, pieces) = mpsc::channel::<Vec<u8>>();
    let reading = thread::spawn(move || {
        let mut buffer = [0; 4096];
        // The master answers with an error when the last slave is closed.
        while let Ok(count @ 1..) = reader.read(&mut buffer) {
            if sender.send(buffer[..count].to_vec()).is_err() {
                break;
            }
        }
    });
    let until = Instant::now() + DEADLINE;
    Driven { child, slave, writer, pieces, reading, output: Vec::new(), until }
}

/// In a process that [`start`] made: its mode, and a runtime. A child that hangs ends itself, so that no test hangs.
pub fn as_child() -> Option<(String, tokio::runtime::Runtime)> {
    let mode = std::env::var(MODE).ok()?;
    thread::spawn(|| {
        thread::sleep(DEADLINE);
        std::process::exit(99);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    Some((mode, runtime))
}

impl Driven {
    /// Reads until what was written is as wanted.
    fn until(&mut self, what: &str, wanted: impl Fn(&str) -> bool) {
        while !wanted(&String::from_utf8_lossy(&self.output)) {
            let left = self.until.saturating_duration_since(Instant::now());
            let piece = self.pieces.recv_timeout(left);
            self.output.extend(piece.unwrap_or_else(|e| panic!("{what}: {e}\n{}", self.screen().join("\n"))));
        }
    }

    /// Reads until the screen is as wanted.
    pub fn until_screen(&mut self, what: &str, wanted: impl Fn(&[String]) -> bool) {
        self.until(what, |output| wanted(&screen(output)));
    }

    fn process(&self) -> rustix::process::Pid {
        rustix::process::Pid::from_child(&self.child)
    }

    /// The screen as it is.
    pub fn screen(&self) -> Vec<String> {
        screen(&String::from_utf8_lossy(&self.output))
    }

    pub fn send(&mut self, keys: &str) {
        self.writer.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits for the child's end.
    pub fn end(mut self) -> Ended {
        let status = self.child.wait().unwrap();
        let modes = tcgetattr(&self.slave).unwrap().local_modes;
        let is_cooked = modes.contains(LocalModes::ECHO | LocalModes::ICANON);
        drop(self.slave);
        self.reading.join().unwrap();
        self.output.extend(self.pieces.iter().flatten());
        Ended { output: String::from_utf8_lossy(&self.output).into_owned(), status, is_cooked }
    }
}

/// What a terminal of 120×40 shows after an output: cursor positions, erasing and plain characters; colours do not count.
fn screen(output: &str) -> Vec<String> {
    let mut cells = vec![vec![' '; 120]; 40];
    let (mut x, mut y) = (0usize, 0usize);
    let mut chars = output.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                let mut text = String::new();
                while let Some(c) = chars.next_if(|c| !('@'..='~').contains(c)) {
                    text.push(c);
                }
                let number =
                    |at: usize| text.split(';').nth(at).and_then(|n| n.parse().ok()).unwrap_or(1usize);
                match chars.next() {
                    Some('H') => (y, x) = (number(0) - 1, number(1) - 1),
                    Some('J') => cells.iter_mut().flatten().for_each(|cell| *cell = ' '),
                    _ => {}
                }
            }
            '\r' => x = 0,
            '\n' => y += 1,
            c if c.is_control() => {}
            c => {
                if let Some(cell) = cells.get_mut(y).and_then(|row| row.get_mut(x)) {
                    *cell = c;
                }
                x += 1;
            }
        }
    }
    cells.into_iter().map(|row| row.into_iter().collect()).collect()
}

/// Runs `child` of this file in a pseudo-terminal; sends `keys` once `wait_for` has appeared.
fn in_a_terminal(mode: &str, wait_for: &str, keys: &[u8]) -> Ended {
    let mut driven = start("pty::child", mode);
    driven.until(wait_for, |output| output.contains(wait_for));
    driven.writer.write_all(keys).unwrap();
    driven.end()
}

/// What the parent starts; does nothing on its own.
#[test]
#[ignore = "runs inside the pseudo-terminal of the other tests"]
fn child() {
    let Some((mode, runtime)) = as_child() else { return };
    runtime.block_on(async {
        match mode.as_str() {
            "panic" => {
                let (_guard, _stop) = terminal::enter(true).unwrap();
                panic!("the roof is on fire");
            }
            "task" => {
                let (guard, stop) = terminal::enter(true).unwrap();
                let task = tokio::spawn(async { panic!("a task is on fire") });
                stop.cancelled().await;
                drop(guard);
                assert!(task.await.is_err());
                println!("the drawing stopped");
            }
            _ => {
                let exit = run(Options::new("http://127.0.0.1:1")).await.unwrap();
                println!("ended by {exit:?}");
                assert_eq!(exit, if mode == "interrupt" { Exit::Interrupted } else { Exit::Quit });
            }
        }
    });
}

#[test]
fn a_panic_gives_the_screen_back_before_it_speaks() {
    let ended = in_a_terminal("panic", ENTER, b"");
    let leave = ended.output.find(LEAVE).expect("the alternate screen was left");
    let words = ended.output.find("the roof is on fire").expect("the panic was printed");
    assert!(leave < words);
    assert!(ended.is_cooked && !ended.status.success());
    for off in ["\x1b[?1000l", "\x1b[?2004l", "\x1b[?1004l", "\x1b[?25h"] {
        assert!(ended.output.contains(off), "{off:?}");
    }
}

#[test]
fn a_panic_in_a_task_stops_the_drawing() {
    let ended = in_a_terminal("task", ENTER, b"");
    assert!(ended.output.contains("the drawing stopped") && ended.output.contains("a task is on fire"));
    assert!(ended.is_cooked && ended.status.success());
    assert_eq!(ended.output.matches(LEAVE).count(), 1);
}

#[test]
fn leaving_by_key_gives_the_screen_back() {
    for (mode, keys) in [("quit", &b"\x1b"[..]), ("interrupt", b"\x03")] {
        let ended = in_a_terminal(mode, "sign in", keys);
        assert!(ended.output.contains(LEAVE) && ended.is_cooked, "{mode}");
        assert!(ended.status.success(), "{mode}: {}", ended.output);
    }
}

#[test]
fn ctrl_z_gives_the_screen_back_until_the_process_goes_on() {
    let mut driven = start("pty::child", "quit");
    driven.until("the sign-in screen", |output| output.contains("sign in"));
    for signal in [None, Some(rustix::process::Signal::TSTP)] {
        let process = driven.process();
        match signal {
            None => driven.send("\x1a"),
            Some(signal) => rustix::process::kill_process(process, signal).unwrap(),
        }
        let stopped = rustix::process::WaitOptions::UNTRACED;
        let (_, status) = rustix::process::waitpid(Some(process), stopped).unwrap().unwrap();
        assert!(status.stopped(), "{status:?}");
        let modes = tcgetattr(&driven.slave).unwrap().local_modes;
        assert!(modes.contains(LocalModes::ECHO | LocalModes::ICANON), "{signal:?}: {modes:?}");
        let before = driven.output.len();
        rustix::process::kill_process(process, rustix::process::Signal::CONT).unwrap();
        let left = String::from_utf8_lossy(&driven.output).matches(ENTER).count();
        driven.until("the screen again", |output| output.matches(ENTER).count() > left);
        assert!(driven.output.len() > before);
    }
    driven.until("the sign-in screen again", |output| {
        output.rsplit(ENTER).next().is_some_and(|shown| shown.contains("sign in"))
    });
    driven.send("\x1b");
    let ended = driven.end();
    assert!(ended.status.success() && ended.is_cooked, "{}", ended.output);
}
