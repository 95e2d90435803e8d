//! The real terminal: a child process in a pseudo-terminal gives the screen back however it ends.

use fafnir_tui::{Exit, Options, run, terminal};
use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize},
};
use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    process::{Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

const DEADLINE: Duration = Duration::from_secs(30);
const MODE: &str = "FAFNIR_TUI_CHILD";
const ENTER: &str = "\x1b[?1049h";
const LEAVE: &str = "\x1b[?1049l";

struct Ended {
    output: String,
    status: ExitStatus,
    /// The terminal echoes and works line by line again.
    is_cooked: bool,
}

/// Runs `child` of this file in a pseudo-terminal; sends `keys` once `wait_for` has appeared.
fn in_a_terminal(mode: &str, wait_for: &str, keys: &[u8]) -> Ended {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
    tcsetwinsize(&master, Winsize { ws_row: 40, ws_col: 120, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    let slave = OpenOptions::new().read(true).write(true).open(name).unwrap();
    let stdio = || Stdio::from(slave.try_clone().unwrap());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "pty::child", "--ignored", "--nocapture"])
        .env(MODE, mode)
        .env("RUST_BACKTRACE", "0")
        .stdin(stdio())
        .stdout(stdio())
        .stderr(stdio())
        .spawn()
        .unwrap();
    let (mut reader, mut writer) = (File::from(master.try_clone().unwrap()), File::from(master));
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
    let mut output = Vec::new();
    let until = Instant::now() + DEADLINE;
    while !String::from_utf8_lossy(&output).contains(wait_for) {
        let left = until.saturating_duration_since(Instant::now());
        output.extend(pieces.recv_timeout(left).expect("the child shows what is waited for"));
    }
    writer.write_all(keys).unwrap();
    let status = child.wait().unwrap();
    let is_cooked = tcgetattr(&slave).unwrap().local_modes.contains(LocalModes::ECHO | LocalModes::ICANON);
    drop(slave);
    reading.join().unwrap();
    output.extend(pieces.iter().flatten());
    Ended { output: String::from_utf8_lossy(&output).into_owned(), status, is_cooked }
}

/// What the parent starts; does nothing on its own.
#[test]
#[ignore = "runs inside the pseudo-terminal of the other tests"]
fn child() {
    let Ok(mode) = std::env::var(MODE) else { return };
    // A child that hangs must not hang the tests.
    thread::spawn(|| {
        thread::sleep(DEADLINE);
        std::process::exit(99);
    });
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
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
