//! `fafnir logs`: the log of a platform, from the file that `up` keeps in its data directory.

use crate::{
    args::{Global, Logs},
    doors,
    output::{Error, Exit, Out, Result},
    settings,
};
use fafnir_proto::reason::Reason;
use fafnir_services::platform::{log_file, names::visible};
use serde_json::{Map, Value};
use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{BufRead as _, BufReader, Read as _},
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::Duration,
};

const POLL: Duration = Duration::from_millis(200);
const LEVELS: [&str; 5] = ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"];
/// Lines that are kept while the last ones are looked for.
const LINES_MAX: usize = 100_000;

pub async fn logs(global: &Global, args: &Logs, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    let path = log_file::path(&dir);
    let none = |_| {
        Error::new(Exit::NotRunning, format!("no log in {}", dir.display()))
            .code(Reason::NO_LOG)
            .hint(if doors::are_elsewhere(&settings) {
                "each process of the configuration writes its own to stderr: where whoever started it sends that"
            } else {
                "`fafnir up` keeps one; --data-dir names another directory"
            })
    };
    let wanted = Wanted::new(args)?;
    let mut last = VecDeque::new();
    let mut keep = |line: String| {
        if let Some(text) = wanted.show(&line, out) {
            if last.len() == args.lines.min(LINES_MAX) {
                last.pop_front();
            }
            last.push_back(text);
        }
    };
    if let Ok(older) = File::open(log_file::older(&path)) {
        BufReader::new(older).lines().map_while(std::io::Result::ok).for_each(&mut keep);
    }
    let mut tail = Tail { file: File::open(&path).map_err(none)?, part: Vec::new() };
    tail.read(&mut keep)?;
    for text in last.iter().rev().take(args.lines).rev() {
        out.raw(text);
    }
    if !args.follow {
        return Ok(());
    }
    let mut print = |line: String| {
        if let Some(text) = wanted.show(&line, out) {
            out.raw(&text);
        }
    };
    while !out.is_closed() {
        if tokio::time::timeout(POLL, tokio::signal::ctrl_c()).await.is_ok() {
            return Ok(());
        }
        tail.read(&mut print)?;
        if tail.was_replaced(&path) {
            tail.file = File::open(&path)?;
            tail.read(&mut print)?;
        }
    }
    Ok(())
}

/// A file that grows. A line that is not whole yet waits for its end.
struct Tail {
    file: File,
    part: Vec<u8>,
}

impl Tail {
    fn read(&mut self, line: &mut dyn FnMut(String)) -> Result {
        self.file.read_to_end(&mut self.part)?;
        while let Some(end) = self.part.iter().position(|&byte| byte == b'\n') {
            let rest = self.part.split_off(end + 1);
            let whole = std::mem::replace(&mut self.part, rest);
            line(String::from_utf8_lossy(&whole).trim_end().to_owned());
        }
        Ok(())
    }

    /// The file became the older one, and another has its name.
    fn was_replaced(&self, path: &Path) -> bool {
        let same = |now: fs::Metadata| self.file.metadata().is_ok_and(|m| m.ino() == now.ino());
        fs::metadata(path).is_ok_and(|now| !same(now))
    }
}

/// Which lines are shown.
struct Wanted<'a> {
    services: &'a [String],
    /// Index of the least severe level.
    level: usize,
}

impl<'a> Wanted<'a> {
    fn new(args: &'a Logs) -> Result<Self> {
        let known = |s: &String| s == "simulator" || fafnir_services::by_name(s).is_some();
        if let Some(unknown) = args.service.iter().find(|s| !known(s)) {
            let names: Vec<_> = fafnir_services::ALL.iter().map(|s| s.name).collect();
            return Err(Error::usage(format!("{unknown} is no service"))
                .hint(format!("services are {} and simulator", names.join(", "))));
        }
        let level = LEVELS.iter().position(|l| l.eq_ignore_ascii_case(&args.level)).unwrap_or(LEVELS.len());
        Ok(Self { services: &args.service, level })
    }

    /// The line as it is printed, if it is wanted.
    fn show(&self, line: &str, out: Out) -> Option<String> {
        let Ok(event) = serde_json::from_str::<Map<String, Value>>(line) else {
            // Not of the log's form: better shown than hidden.
            return (self.services.is_empty() && !line.is_empty()).then(|| format!("{}\n", visible(line)));
        };
        let text = |key: &str| event.get(key).and_then(Value::as_str).unwrap_or_default();
        let level = text("level");
        if LEVELS.iter().position(|l| *l == level).is_some_and(|at| at > self.level) {
            return None;
        }
        let service = service_of(text("target"));
        if !self.services.is_empty() && !self.services.iter().any(|s| *s == service) {
            return None;
        }
        if out.json {
            return Some(format!("{line}\n"));
        }
        let mut shown = format!("{} {level:>5} {service}: {}", text("timestamp"), text("message"));
        for (key, value) in &event {
            if !matches!(key.as_str(), "timestamp" | "level" | "target" | "message") {
                let value = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
                shown.push_str(&format!(" {key}={value}"));
            }
        }
        // Clients wrote some of it.
        let mut shown = visible(&shown);
        shown.push('\n');
        Some(shown)
    }
}

/// The service whose code wrote a line, by the module that it comes from.
pub fn service_of(target: &str) -> &str {
    let module = target.split("::").next().unwrap_or(target);
    let row = fafnir_services::ALL.iter().find(|s| s.module == module);
    row.map_or_else(|| module.strip_prefix("fafnir_").unwrap_or(module), |s| s.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = r#"{"timestamp":"2026-11-28T20:45:50Z","level":"WARN","message":"role granted","user":"u1","tries":2,"target":"fafnir_security::api"}"#;

    fn shown(services: &[&str], level: &str, line: &str, json: bool) -> Option<String> {
        let args = Logs {
            follow: false,
            lines: 1,
            service: services.iter().map(|s| (*s).to_owned()).collect(),
            level: level.to_owned(),
        };
        Wanted::new(&args).unwrap().show(line, Out { json, colour: false })
    }

    #[test]
    fn a_line_is_shown_with_its_service_and_fields() {
        assert_eq!(
            shown(&[], "trace", LINE, false).as_deref(),
            Some("2026-11-28T20:45:50Z  WARN security-service: role granted tries=2 user=u1\n")
        );
        assert_eq!(shown(&[], "trace", LINE, true), Some(format!("{LINE}\n")));
        assert_eq!(shown(&[], "trace", "not json", false).as_deref(), Some("not json\n"));
    }

    #[test]
    fn a_line_cannot_drive_the_terminal() {
        let line = LINE.replace("u1", r"\u001b[2J\u202eu1");
        let text = shown(&[], "trace", &line, false).unwrap();
        assert!(text.ends_with("user=\\u{1b}[2J\\u{202e}u1\n"), "{text:?}");
        assert_eq!(shown(&[], "trace", "\u{1b}]0;x\u{7}", false).as_deref(), Some("\\u{1b}]0;x\\u{7}\n"));
    }

    #[test]
    fn only_wanted_services_and_levels_are_shown() {
        assert!(shown(&["security-service"], "warn", LINE, false).is_some());
        assert!(shown(&["api-gateway"], "warn", LINE, false).is_none());
        assert!(shown(&[], "error", LINE, false).is_none());
        assert!(shown(&["api-gateway"], "warn", "not json", false).is_none());
    }

    #[test]
    fn a_growing_file_gives_whole_lines_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "one\ntw").unwrap();
        let mut tail = Tail { file: File::open(&path).unwrap(), part: Vec::new() };
        let mut lines = Vec::new();
        tail.read(&mut |l| lines.push(l)).unwrap();
        std::io::Write::write_all(&mut File::options().append(true).open(&path).unwrap(), b"o\n").unwrap();
        tail.read(&mut |l| lines.push(l)).unwrap();
        assert_eq!(lines, ["one", "two"]);
        assert!(!tail.was_replaced(&path));
        fs::rename(&path, dir.path().join("log.1")).unwrap();
        fs::write(&path, "three\n").unwrap();
        assert!(tail.was_replaced(&path));
    }
}
