//! `fafnir doctor`: looks for what keeps a platform from running well, on this machine and in its data directory.

mod nats;

use super::top::Metrics;
use crate::{
    args::Global,
    doors::{self, Doors},
    output::{Error, Exit, Out, Result, table},
    ports, settings, stack,
};
use fafnir_proto::reason::Reason;
use fafnir_services::{
    ALL,
    platform::{
        Clock, Settings, Speaks,
        clock::SECOND_US,
        db,
        disk::{Limits, Stage, room},
        tls,
    },
    trade_engine::{
        self,
        replay::{self, Until, Verdict},
    },
};
use serde_json::json;
use std::{
    fs,
    net::{TcpListener, TcpStream, ToSocketAddrs as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

const GIB: u64 = 1 << 30;
/// Open files that a platform under load may need.
const FILES_MIN: u64 = 1_024;
/// A certificate with fewer days left is worth a note.
const CERTIFICATE_DAYS_LEFT: u64 = 14;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The smallest screen of the terminal.
const SCREEN_MIN: (u16, u16) = (60, 16);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Ok,
    /// Worth knowing, in nobody's way.
    Note,
    /// Keeps something from working.
    Finding,
}

impl State {
    fn word(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Note => "note",
            State::Finding => "FINDING",
        }
    }
}

struct Check {
    name: &'static str,
    state: State,
    detail: String,
    /// What to do about it.
    hint: String,
}

fn ok(name: &'static str, detail: impl Into<String>) -> Check {
    Check { name, state: State::Ok, detail: detail.into(), hint: String::new() }
}

fn note(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { name, state: State::Note, detail: detail.into(), hint: hint.into() }
}

fn finding(name: &'static str, detail: impl Into<String>, hint: impl Into<String>) -> Check {
    Check { name, state: State::Finding, detail: detail.into(), hint: hint.into() }
}

pub async fn doctor(global: &Global, out: Out) -> Result {
    let checks = match settings::settings(global, &[]) {
        // What is wrong is told; without settings nothing else can be looked at.
        Err(e) => vec![finding("configuration", e.message, e.hint)],
        Ok(settings) => {
            let mut checks = vec![ok("configuration", "valid")];
            let dir = settings.data_dir();
            checks.push(data_directory(&dir));
            checks.push(disk(&dir, &settings));
            checks.extend(private_files(&dir));
            checks.extend(certificates(&settings));
            checks.push(open_files());
            match doors::find(&settings) {
                Ok(doors) => checks.extend(running(&doors).await),
                Err(e) if e.exit == Exit::NotRunning => checks.extend(free_ports(&settings)),
                Err(e) => checks.push(finding("certificates", e.message, e.hint)),
            }
            checks.extend(elsewhere(&settings));
            checks.extend(nats::server(&settings, &dir).await);
            checks.extend(checksums(&settings.database.url).await);
            let stored = tokio::task::spawn_blocking(move || {
                let mut checks = databases(&dir);
                checks.extend(journal(&dir));
                checks
            });
            checks.extend(stored.await.map_err(anyhow::Error::from)?);
            checks.push(terminal());
            checks
        }
    };
    print(&checks, out);
    match checks.iter().filter(|c| c.state == State::Finding).count() {
        0 => Ok(()),
        n => Err(Error::new(Exit::Failure, format!("{n} finding{}", if n == 1 { "" } else { "s" }))
            .code(Reason::FINDINGS)),
    }
}

fn print(checks: &[Check], out: Out) {
    let healthy = checks.iter().all(|c| c.state != State::Finding);
    let document: Vec<_> = checks
        .iter()
        .map(|c| json!({"name": c.name, "state": c.state.word().to_lowercase(), "detail": c.detail, "hint": c.hint}))
        .collect();
    out.data(&json!({"healthy": healthy, "checks": document}), || {
        let rows: Vec<_> = checks
            .iter()
            .map(|c| vec![c.name.to_owned(), c.state.word().to_owned(), c.detail.clone()])
            .collect();
        let mut text = table(&["CHECK", "STATE", "DETAIL"], &rows);
        let hints = checks.iter().filter(|c| c.state != State::Ok && !c.hint.is_empty());
        for (at, check) in hints.enumerate() {
            text.push_str(&format!("{}{}: {}\n", if at == 0 { "\n" } else { "" }, check.name, check.hint));
        }
        text
    });
}

/// The directory itself or the nearest one above that exists.
fn existing(dir: &Path) -> PathBuf {
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    absolute.ancestors().find(|a| a.exists()).unwrap_or(Path::new("/")).to_owned()
}

fn data_directory(dir: &Path) -> Check {
    const NAME: &str = "data directory";
    let hint = "name another with --data-dir, or mend its permissions";
    let at = existing(dir);
    if !at.is_dir() {
        return finding(NAME, format!("{} is no directory", at.display()), hint);
    }
    let probe = at.join(format!(".fafnir-doctor-{}", std::process::id()));
    if let Err(e) = fs::write(&probe, b"") {
        return finding(NAME, format!("{} cannot be written: {e}", at.display()), hint);
    }
    // It was written a moment ago; what stays behind is an empty file.
    drop(fs::remove_file(&probe));
    let absolute = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
    if trade_engine::is_former(dir) {
        let (what, hint) = stack::former(&absolute);
        finding(NAME, what, hint)
    } else if dir.is_dir() {
        ok(NAME, absolute.display().to_string())
    } else {
        ok(NAME, format!("{} will be created", absolute.display()))
    }
}

/// What the room on a directory's disk allows, and that in words; none where it cannot be asked.
fn room_left(dir: &Path, settings: &Settings) -> Option<(Stage, String)> {
    let room = room(&existing(dir)).ok()?;
    let stage = Limits::of(settings).judge(Stage::Ample, room);
    Some((
        stage,
        if room.read_only { "is read-only".to_owned() } else { room_in_words(stage, room.free_bytes as f64) },
    ))
}

/// What a platform says of its disk, by its own limits: what is taken, and that in words; none where it does not answer.
pub async fn room_told(doors: &Doors) -> Option<(Stage, String)> {
    let metrics = Metrics::parse(&doors.metrics(doors.each.first()?).await.ok()?);
    let told = metrics.value("fafnir_disk_stage")?;
    let stages = [Stage::Ample, Stage::Alarm, Stage::CancelOnly, Stage::ReadOnly];
    let stage = stages.into_iter().find(|stage| (f64::from(*stage as u8) - told).abs() < 0.5)?;
    Some((stage, room_in_words(stage, metrics.value("fafnir_disk_free_bytes")?)))
}

fn room_in_words(stage: Stage, free_bytes: f64) -> String {
    let detail = format!("{:.1} GiB free", free_bytes / GIB as f64);
    match stage {
        Stage::Ample => detail,
        Stage::Alarm => format!("{detail}: little room is left"),
        Stage::CancelOnly => format!("{detail}: only cancels are taken"),
        Stage::ReadOnly => format!("{detail}: nothing that writes is taken"),
    }
}

/// A stage as scripts read it.
pub fn takes(stage: Stage) -> &'static str {
    match stage {
        Stage::Ample | Stage::Alarm => "EVERYTHING",
        Stage::CancelOnly => "CANCELS",
        Stage::ReadOnly => "NOTHING",
    }
}

fn disk(dir: &Path, settings: &Settings) -> Check {
    const NAME: &str = "disk space";
    let hint = "make room, or name a directory on another disk with --data-dir";
    match room_left(dir, settings) {
        None => note(NAME, "unknown", ""),
        Some((Stage::Ample, words)) => ok(NAME, words),
        Some((Stage::Alarm, words)) => note(NAME, words, hint),
        Some((Stage::CancelOnly | Stage::ReadOnly, words)) => finding(NAME, words, hint),
    }
}

/// Keys and passwords are their owner's alone.
fn private_files(dir: &Path) -> Option<Check> {
    const NAME: &str = "private files";
    const OTHERS: u32 = 0o077;
    let secrets = dir.join("secrets");
    let entries = fs::read_dir(&secrets).ok()?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.push(secrets.clone());
    let open = |path: &&PathBuf| fs::metadata(path).is_ok_and(|m| m.permissions().mode() & OTHERS != 0);
    Some(match paths.iter().find(open) {
        Some(path) => finding(
            NAME,
            format!("{} can be read by others", path.display()),
            format!("chmod -R go= {}", secrets.display()),
        ),
        None => ok(NAME, format!("{} of them, their owner's alone", paths.len() - 1)),
    })
}

/// Those that the configuration names: readable, and valid for a while.
fn certificates(settings: &Settings) -> Vec<Check> {
    const NAME: &str = "certificates";
    const DAY_S: u64 = 86_400;
    let hint =
        "`fafnir secrets tls DIR` makes new ones of the same authority; they are in force without a restart";
    let mut files: Vec<PathBuf> = ALL
        .iter()
        .filter_map(
            |s| if s.public { tls::public_files(settings, s.name) } else { tls::files(settings, s.name) },
        )
        .map(|files| files.certificate)
        .collect();
    files.sort();
    files.dedup();
    let now = u64::try_from(Clock::wall().now_us() / SECOND_US).unwrap_or(0);
    let judged: Vec<_> = files
        .iter()
        .filter_map(|file| match tls::file_ends_at(file) {
            Err(e) => Some(finding(NAME, e.to_string(), hint)),
            Ok(ends) if ends <= now => Some(finding(NAME, format!("{} has ended", file.display()), hint)),
            Ok(ends) if ends < now + CERTIFICATE_DAYS_LEFT * DAY_S => {
                Some(note(NAME, format!("{} ends in {} days", file.display(), (ends - now) / DAY_S), hint))
            }
            Ok(_) => None,
        })
        .collect();
    match (files.is_empty(), judged.is_empty()) {
        (true, _) => Vec::new(),
        (false, true) => vec![ok(NAME, format!("{} of them, valid", files.len()))],
        (false, false) => judged,
    }
}

fn open_files() -> Check {
    const NAME: &str = "open files";
    match rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        Some(limit) if limit < FILES_MIN => note(
            NAME,
            format!("at most {limit}"),
            format!("many clients need more: `ulimit -n {FILES_MIN}` before `fafnir up`"),
        ),
        Some(limit) => ok(NAME, format!("at most {limit}")),
        None => ok(NAME, "no limit"),
    }
}

async fn running(doors: &Doors) -> Vec<Check> {
    let mut silent = Vec::new();
    for door in &doors.each {
        if let Err(why) = doors.ready(door).await {
            silent.push(format!("{} ({why})", door.service));
        }
    }
    let ready = doors.each.len();
    let mut checks = vec![match &doors.run {
        _ if !silent.is_empty() => finding(
            "services",
            format!("not ready: {}", silent.join(", ")),
            match &doors.run {
                Some(_) => "`fafnir logs --level warn` has the cause",
                None => "the log of each has the cause",
            },
        ),
        Some(run) => ok("services", format!("{ready} ready in process {}", run.pid)),
        None => ok("services", format!("{ready} ready in processes of their own")),
    }];
    checks.extend(doors.run.as_ref().map(|run| reachable("broker", &run.nats)));
    checks
}

/// Every port that `up` would take.
fn free_ports(settings: &Settings) -> Vec<Check> {
    const NAME: &str = "ports";
    if settings.bind.auto {
        return vec![ok(NAME, "free ones are picked")];
    }
    let mut wanted = Vec::new();
    for service in ALL.iter().filter(|s| s.starts_here(settings)) {
        let port = (service.port)(settings);
        let (outer, inner) = (settings.bind.bare_host(), settings.bind.bare_inner_host());
        wanted.push((service.name, if service.public { outer } else { inner }, port));
        if port != 0 && settings.ports.operations_offset != 0 && service.speaks == Speaks::Http {
            wanted.push((service.name, inner, port.saturating_add(settings.ports.operations_offset)));
        }
    }
    if settings.nats.url.is_empty() {
        wanted.push(("broker", settings.bind.bare_inner_host(), settings.ports.broker_monitor));
        let websocket = ("broker", settings.bind.bare_host(), settings.ports.broker_websocket);
        wanted.extend(settings.broker.websocket.then_some(websocket));
    }
    let taken: Vec<_> = wanted
        .into_iter()
        .filter(|(_, _, port)| *port != 0)
        .filter_map(|(service, host, port)| {
            let e = TcpListener::bind((host, port)).err()?;
            let by = ports::owner_of(port).map_or_else(|| e.to_string(), |owner| format!("taken by {owner}"));
            let hint = "`fafnir up --ports auto` picks free ports; --port, --broker-port and --monitor-port name others";
            Some(finding(NAME, format!("{port} of {service}: {by}"), hint))
        })
        .collect();
    if taken.is_empty() { vec![ok(NAME, "all free")] } else { taken }
}

/// Engines that the configuration names on other machines or in other processes.
fn elsewhere(settings: &Settings) -> Vec<Check> {
    [("postgres", &settings.database.url), ("redis", &settings.redis.url)]
        .into_iter()
        .filter(|(_, url)| !url.is_empty())
        .map(|(name, url)| reachable(name, url))
        .collect()
}

/// What stored pages are looked through with on a server is the server's own.
async fn checksums(url: &str) -> Option<Check> {
    const NAME: &str = "postgres pages";
    if url.is_empty() {
        return None;
    }
    // One that does not answer is told already.
    Some(if db::checksums_postgres(url).await.ok()? {
        ok(NAME, "have checksums")
    } else {
        note(
            NAME,
            "have no checksums (data_checksums is off): what rots on its disk is served as it is",
            "stop the server and run `pg_checksums --enable`; new ones are made with `initdb --data-checksums`",
        )
    })
}

/// Host and port of `scheme://user:password@host:port/path`. Secrets stay out of what is printed.
fn host_of(url: &str) -> Option<&str> {
    let rest = url.split_once("://")?.1;
    let authority = rest.split(['/', '?']).next()?;
    let host = authority.rsplit('@').next()?;
    (!host.is_empty()).then_some(host)
}

fn reachable(name: &'static str, url: &str) -> Check {
    let hint = "is it running, and is its address right? `fafnir config --show-origin` says where it is set";
    let Some(host) = host_of(url) else { return finding(name, "its address names no host", hint) };
    let connect = || {
        let address = host.to_socket_addrs()?.next().ok_or(std::io::ErrorKind::NotFound)?;
        TcpStream::connect_timeout(&address, CONNECT_TIMEOUT)
    };
    match connect() {
        Ok(_) => ok(name, format!("answers at {host}")),
        Err(e) => finding(name, format!("{host}: {e}"), hint),
    }
}

fn databases(dir: &Path) -> Vec<Check> {
    const NAME: &str = "databases";
    let Ok(entries) = fs::read_dir(dir.join("db")) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    paths.retain(|p| p.extension().is_some_and(|e| e == "sqlite"));
    paths.sort();
    let damaged: Vec<_> = paths
        .iter()
        .filter_map(|path| {
            let found = db::quick_check(path).err()?;
            Some(finding(NAME, format!("{}: {found}", path.display()), "restore the file from a backup"))
        })
        .collect();
    match (damaged.is_empty(), paths.is_empty()) {
        (true, true) => Vec::new(),
        (true, false) => vec![ok(NAME, format!("{} checked, no damage", paths.len()))],
        (false, _) => damaged,
    }
}

/// Every frame of the journal, every snapshot and every logged fact.
fn journal(dir: &Path) -> Option<Check> {
    const NAME: &str = "journal";
    let hint = "`fafnir replay` shows where; keep the directory as it is until a backup is at hand";
    let engine = replay::directory(dir).ok()?;
    let mut run = match replay::Run::open(&engine) {
        Ok(run) => run,
        Err(e) => return Some(finding(NAME, e.to_string(), hint)),
    };
    if let Err(e) = run.run(Until::END, &mut |_, _| {}) {
        return Some(finding(NAME, e.to_string(), hint));
    }
    let bad = run.checked.iter().find(|c| c.verdict != Verdict::Agrees);
    Some(match (bad, run.fact_differs, run.facts_damaged) {
        (Some(checked), ..) => {
            finding(NAME, format!("snapshot {} does not agree with it", checked.seq), hint)
        }
        (None, Some(fact), _) => finding(NAME, format!("logged fact {fact} does not agree with it"), hint),
        (None, None, Some(why)) => finding(
            "fact log",
            why,
            "the journal is whole: the engine makes the fact log again when it starts, as far back as it has the base",
        ),
        (None, None, None) => {
            ok(NAME, format!("{} records replayed, {} snapshots agree", run.records, run.checked.len()))
        }
    })
}

/// What `fafnir trade` needs.
fn terminal() -> Check {
    const NAME: &str = "terminal";
    let set = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let Some(term) = set("TERM") else {
        return note(
            NAME,
            "TERM is not set",
            "`fafnir trade` needs a terminal; scripts use the other commands",
        );
    };
    let locale = set("LC_ALL").or_else(|| set("LC_CTYPE")).or_else(|| set("LANG")).unwrap_or_default();
    if !locale.to_lowercase().replace('-', "").contains("utf8") {
        let detail = format!("{term}, locale {locale:?} without UTF-8");
        return note(NAME, detail, "`fafnir trade` draws in ASCII; LANG=C.UTF-8 gives it lines and blocks");
    }
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col < SCREEN_MIN.0 || size.ws_row < SCREEN_MIN.1 => note(
            NAME,
            format!("{term}, {}x{}", size.ws_col, size.ws_row),
            format!("`fafnir trade` needs at least {}x{}", SCREEN_MIN.0, SCREEN_MIN.1),
        ),
        Ok(size) => ok(NAME, format!("{term}, {}x{}, UTF-8", size.ws_col, size.ws_row)),
        // Piped: there is no screen to measure.
        Err(_) => ok(NAME, format!("{term}, UTF-8")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_of_an_address_is_told_without_its_password() {
        assert_eq!(host_of("postgres://u:p@db:5432/"), Some("db:5432"));
        assert_eq!(host_of("nats://127.0.0.1:4222"), Some("127.0.0.1:4222"));
        assert_eq!(host_of("redis://"), None);
        assert_eq!(host_of("nowhere"), None);
    }

    #[test]
    fn a_secret_that_others_can_read_is_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        assert!(private_files(dir.path()).is_none());
        let secrets = dir.path().join("secrets");
        fafnir_services::platform::secrets::create_private_dir(&secrets).unwrap();
        let key = secrets.join("key");
        fs::write(&key, "k").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(private_files(dir.path()).unwrap().state, State::Ok);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert_eq!(private_files(dir.path()).unwrap().state, State::Finding);
    }

    #[test]
    fn a_database_that_is_no_database_is_a_finding() {
        let dir = tempfile::tempdir().unwrap();
        assert!(databases(dir.path()).is_empty());
        fs::create_dir(dir.path().join("db")).unwrap();
        fs::write(dir.path().join("db/order-service.sqlite"), vec![7; 8_192]).unwrap();
        let checks = databases(dir.path());
        assert_eq!(checks.len(), 1);
        assert_eq!(checks[0].state, State::Finding);
    }

    #[test]
    fn a_taken_port_is_a_finding_that_names_its_owner() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let mut settings = Settings::default();
        settings.ports.gateway = listener.local_addr().unwrap().port();
        let taken = free_ports(&settings);
        let own = format!("process {}", std::process::id());
        assert!(taken.iter().any(|c| c.state == State::Finding && c.detail.contains(&own)));
    }
}
