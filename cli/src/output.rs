//! The only place that prints: data on stdout, messages on stderr, and how a command ends.
#![expect(clippy::print_stderr, reason = "the one module that prints")]

use fafnir_proto::reason::{AnyReason, Reason, code_name};
use fafnir_services::platform::tls;
use serde_json::Value;
use std::{
    fmt,
    io::{IsTerminal as _, Write as _},
    sync::OnceLock,
};
use tonic::{Code, Status};
use unicode_width::UnicodeWidthStr as _;

/// How a command that failed ends (terminal.md §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Failure = 1,
    Usage = 2,
    NotRunning = 3,
    SignIn = 4,
    Precondition = 5,
    Timeout = 6,
    Interrupted = 130,
}

/// Why a command failed: the cause in one line, and what to do next.
#[derive(Debug)]
pub struct Error {
    pub exit: Exit,
    /// Machine code, e.g. `PRICE_OFF_TICK`; empty when there is none.
    pub code: String,
    pub message: String,
    /// What to do; empty when the message says it.
    pub hint: String,
    /// The option with which the same command is safe to repeat; empty where there is none.
    pub repeat: String,
}

pub type Result<T = (), E = Error> = std::result::Result<T, E>;

impl Error {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            code: String::new(),
            message: message.into(),
            hint: String::new(),
            repeat: String::new(),
        }
    }
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }
    /// Whether the request was taken is not known: names the option that makes asking again safe.
    pub fn repeat_with(mut self, option: &str, key: &str) -> Self {
        self.repeat = format!("{option} {key}");
        self.hint(format!("it may have been taken: the same command with {option} {key} is safe to repeat"))
    }
    pub fn code(self, code: Reason) -> Self {
        self.told(code.into())
    }
    /// As [`Self::code`], with the code of a platform that may be of another version.
    pub fn told(mut self, code: AnyReason) -> Self {
        self.code = code.into();
        self
    }
}

impl From<fafnir_services::platform::Error> for Error {
    fn from(e: fafnir_services::platform::Error) -> Self {
        Self::new(Exit::Failure, e.to_string())
    }
}

impl From<fafnir_services::platform::db::Error> for Error {
    fn from(e: fafnir_services::platform::db::Error) -> Self {
        Self::new(Exit::Failure, e.to_string())
    }
}

impl From<anyhow::Error> for Error {
    fn from(e: anyhow::Error) -> Self {
        if let Some(status) = e.chain().find_map(|c| c.downcast_ref::<Status>()) {
            return Self::from(status.clone());
        }
        // One line: outer causes first.
        Self::new(Exit::Failure, e.chain().map(ToString::to_string).collect::<Vec<_>>().join(": "))
    }
}

impl From<std::io::Error> for Error {
    fn from(e: std::io::Error) -> Self {
        Self::new(Exit::Failure, e.to_string())
    }
}

impl From<Status> for Error {
    /// A refusal keeps its machine code; a platform that does not answer is "not running".
    fn from(status: Status) -> Self {
        let reason = status.metadata().get(fafnir_proto::client::REASON_KEY).and_then(|v| v.to_str().ok());
        let reason = AnyReason::read(reason.unwrap_or(code_name(status.code())));
        let message = status.message().to_owned();
        if let Some(why) = tls::sentence(&status) {
            return Self::new(Exit::Failure, why)
                .code(Reason::TLS)
                .hint("--url says https:// or http://, --authority whom to believe");
        }
        match status.code() {
            Code::Unavailable if nobody_listens(&status) || message.contains("transport") => {
                Self::new(Exit::NotRunning, "no platform answers at this address")
                    .code(Reason::NOT_RUNNING)
                    .hint("start one with `fafnir up`, or name another with --url")
            }
            Code::Unavailable => Self::new(Exit::Failure, message)
                .told(reason)
                .hint("try again; `fafnir status` shows what runs"),
            Code::Unauthenticated => {
                Self::new(Exit::SignIn, message).told(reason).hint("sign in with `fafnir login`")
            }
            Code::DeadlineExceeded | Code::Cancelled => {
                Self::new(Exit::Timeout, "the platform did not answer in time").code(Reason::TIMEOUT)
            }
            Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::PermissionDenied
            | Code::ResourceExhausted => Self::new(Exit::Precondition, message).told(reason),
            _ => Self::new(Exit::Failure, message).told(reason),
        }
    }
}

/// True when no connection was made: the request has reached nobody.
fn nobody_listens(status: &Status) -> bool {
    use std::io::ErrorKind::{AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkUnreachable};
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
        if matches!(kind, Some(ConnectionRefused | AddrNotAvailable | HostUnreachable | NetworkUnreachable)) {
            return true;
        }
        cause = error.source();
    }
    status.message().contains("connect error")
}

/// Where a command's words go.
#[derive(Debug, Clone, Copy)]
pub struct Out {
    pub json: bool,
    pub colour: bool,
}

impl Out {
    pub fn new(json: bool, color: crate::args::Color) -> Self {
        let colour = match color {
            crate::args::Color::Always => true,
            crate::args::Color::Never => false,
            crate::args::Color::Auto => {
                let is_dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
                let is_wanted = !is_dumb && std::env::var_os("NO_COLOR").is_none();
                is_wanted && std::io::stderr().is_terminal()
            }
        };
        Self { json, colour }
    }

    /// Data: one JSON document on a line with `--json`, else the text.
    pub fn data(self, json: &Value, text: impl FnOnce() -> String) {
        self.line(&json.to_string(), text);
    }

    /// As [`Self::data`], with a document that is a text already.
    pub fn line(self, json: &str, text: impl FnOnce() -> String) {
        let text = if self.json { format!("{json}\n") } else { text() };
        print_all(&text);
    }

    /// Text that is data whatever the format (scripts, manual pages).
    #[expect(clippy::unused_self, reason = "everything printed goes through an Out")]
    pub fn raw(self, text: &str) {
        print_all(text);
    }

    /// True when nothing that is printed arrives any more: who follows something ends then.
    #[expect(clippy::unused_self, reason = "everything printed goes through an Out")]
    pub fn is_closed(self) -> bool {
        FAILED.get().is_some()
    }

    /// A message for the person at the screen.
    #[expect(clippy::unused_self, reason = "everything printed goes through an Out")]
    pub fn note(self, text: impl fmt::Display) {
        eprintln!("{text}");
    }

    /// The last word of a service that failed, as a line of its log in JSON.
    pub fn logged(error: &Error) {
        Self::log_line("ERROR", &error.message, &error.code, &error.hint);
    }

    /// A line as the log of a service has them.
    pub fn log_line(level: &str, message: &str, code: &str, hint: &str) {
        let now = time::OffsetDateTime::now_utc();
        let timestamp = now.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
        let body = serde_json::json!({
            "timestamp": timestamp, "level": level, "message": message, "target": "fafnir", "code": code,
            "hint": hint,
        });
        eprintln!("{body}");
    }

    /// The last word of a command that failed.
    pub fn error(self, error: &Error) {
        if self.json {
            let mut body = serde_json::json!({"error": {"code": error.code, "message": error.message, "hint": error.hint}});
            if !error.repeat.is_empty() {
                body["error"]["repeatWith"] = error.repeat.as_str().into();
            }
            eprintln!("{body}");
            return;
        }
        let (red, reset) = if self.colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
        let code = if error.code.is_empty() { String::new() } else { format!("{}: ", error.code) };
        eprintln!("{red}error:{reset} {code}{}", printable(&error.message));
        if !error.hint.is_empty() {
            eprintln!("  {}", error.hint);
        }
    }
}

/// The first write to standard output that failed; nothing is written after it.
static FAILED: OnceLock<std::io::Error> = OnceLock::new();

fn print_all(text: &str) {
    if FAILED.get().is_some() {
        return;
    }
    let mut stdout = std::io::stdout().lock();
    if let Err(e) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        FAILED.get_or_init(|| e);
    }
}

/// Whether all that was printed arrived. A reader that went away (`| head`) is not our failure.
pub fn printed() -> Result {
    match FAILED.get() {
        Some(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::new(Exit::Failure, format!("standard output cannot be written: {e}")))
        }
        _ => Ok(()),
    }
}

/// Text from elsewhere without control characters: a name cannot send an escape sequence to the screen.
pub fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// An aligned table. Columns whose header starts with `>` are set to the right.
pub fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = rows.iter().map(|r| r.iter().map(|c| printable(c)).collect()).collect();
    let titles: Vec<&str> = headers.iter().map(|h| h.trim_start_matches('>')).collect();
    let width = |i: usize| rows.iter().map(|r| r[i].width()).chain([titles[i].width()]).max().unwrap_or(0);
    let widths: Vec<usize> = (0..headers.len()).map(width).collect();
    let mut text = String::new();
    let mut line = |cells: &[String]| {
        let mut out = String::new();
        for (i, cell) in cells.iter().enumerate() {
            let gap = " ".repeat(widths[i].saturating_sub(cell.width()));
            let right = headers[i].starts_with('>');
            out.push_str(&if right { format!("{gap}{cell}") } else { format!("{cell}{gap}") });
            out.push_str("  ");
        }
        text.push_str(out.trim_end());
        text.push('\n');
    };
    line(&titles.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
    for row in &rows {
        line(row);
    }
    text
}
