//! Every kind of file of a data directory with flipped bits and cut short, started as a start does: nothing is silent.
//!
//! `FAFNIR_TEST_FLIPS` and `FAFNIR_TEST_CUTS` say how many of each; the table is printed.

use crate::harness::{Answer, Process, Stack, WITHIN, binary};
use fafnir_services::{
    ALL, Service, broker,
    platform::{
        Clock, Settings,
        db::{Db, Row, Tx, Value},
        manifest::Manifest,
        tasks::Tasks,
    },
    trade_engine::{log::FACTS, recovery, seglog, standing},
};
use std::{
    collections::BTreeMap,
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Made from the facts alone, and the statements that move it on and tell how far it is.
const PROJECTIONS: [(&str, &str, &str); 2] = [
    ("order-service", "UPDATE position SET at = at + 1", "SELECT at FROM position"),
    ("portfolio-service", "UPDATE projection SET at = at + 1", "SELECT at FROM projection"),
];

fn projection(service: &Service) -> Option<(&'static str, &'static str, &'static str)> {
    PROJECTIONS.iter().copied().find(|(name, ..)| *name == service.name)
}

fn number_of(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// What became of a damaged file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    /// The start refused.
    Refused,
    /// The look behind the start found it.
    Found,
    /// What is stored is the same: made again, or nothing of it was hit.
    Same,
    /// A projection that stands earlier: the facts come again.
    Again,
    Silent(String),
}

/// Files by their path in the data directory.
type Files = BTreeMap<PathBuf, Vec<u8>>;

fn read(dir: &Path, below: &Path, files: &mut Files) {
    let Ok(entries) = fs::read_dir(dir.join(below)) else { return };
    for entry in entries {
        let path = below.join(entry.unwrap().file_name());
        let full = dir.join(&path);
        if full.is_dir() {
            read(dir, &path, files);
        } else if full.is_file() && !path.to_str().unwrap().ends_with("-shm") && !path.ends_with("reserve") {
            // Neither the index of a log nor room that is kept free says anything.
            files.insert(path, fs::read(full).unwrap());
        }
    }
}

fn write(dir: &Path, files: &Files) {
    let _may_be_missing = fs::remove_dir_all(dir);
    for (path, bytes) in files {
        let full = dir.join(path);
        fs::create_dir_all(full.parent().unwrap()).unwrap();
        fs::write(full, bytes).unwrap();
    }
}

/// The files of one store, with manifest and notes.
fn files_of(all: &Files, prefix: &str) -> Files {
    let is_of = |path: &PathBuf| {
        let path = path.to_str().unwrap();
        path.starts_with(prefix) || path.starts_with("notes") || path == "manifest.json"
    };
    all.iter().filter(|(path, _)| is_of(path)).map(|(p, b)| (p.clone(), b.clone())).collect()
}

/// Waits until the broker's last commit is noted.
fn await_note(data: &Path) {
    let changed = |name: &str| fs::metadata(data.join(name)).unwrap().modified().unwrap();
    let until = Instant::now() + WITHIN;
    while changed("notes/broker") < changed("broker/broker.sqlite3-wal") {
        assert!(Instant::now() < until, "the broker's store is not noted");
        std::thread::yield_now();
    }
}

/// A stack with something of everything: as `kill -9` leaves it, and as it is when it was stopped in order.
fn stopped() -> (Files, Files) {
    let mut stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    for n in 0..12 {
        seller.json(&["order", "place", "sell", "NVDA", "2", "--price", "148.00"]);
        let price = if n % 3 == 0 { "147.00" } else { "148.00" };
        buyer.json(&["order", "place", "buy", "NVDA", "2", "--price", price]);
    }
    await_note(&stack.data_dir());
    stack.process.kill();
    let (mut killed, mut files) = (Files::new(), Files::new());
    read(&stack.data_dir(), Path::new(""), &mut killed);
    stack.restart(&["--no-sim"]);
    assert_eq!(stack.process.interrupt(), Some(0));
    read(&stack.data_dir(), Path::new(""), &mut files);
    (killed, files)
}

async fn open(service: &Service, dir: &Path) -> (Tasks, Result<Db, String>) {
    let settings = Settings { data_dir: dir.to_str().unwrap().to_owned(), ..Settings::default() };
    let tasks = Tasks::new(CancellationToken::new());
    let clock = Clock::wall();
    let db = if projection(service).is_some() {
        Db::open_projection(&settings, service.name, service.migrations, &tasks, &clock).await
    } else {
        Db::open(&settings, service.name, service.migrations, &tasks, &clock).await
    };
    (tasks, db.map_err(|e| e.to_string()))
}

async fn close(tasks: Tasks) {
    tasks.shutdown().cancel();
    assert!(tasks.drain().await);
}

/// A hash of every row of every table but the platform's own, and how far a projection is.
async fn content(service: &Service, db: &Db) -> Result<(u64, u64), String> {
    let at = projection(service).map(|(.., sql)| sql);
    let dump = db.read(move |tx| {
        let tables = tx.query(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'store' ORDER BY name",
            &[],
        )?;
        let mut hasher = DefaultHasher::new();
        for table in tables {
            let table: String = table.get(0)?;
            table.hash(&mut hasher);
            for Row(values) in tx.query(&format!("SELECT * FROM {table}"), &[])? {
                format!("{values:?}").hash(&mut hasher);
            }
        }
        let at = at.map(|sql| tx.query_one(sql, &[])?.get(0)).transpose()?;
        Ok((hasher.finish(), at.unwrap_or(0)))
    });
    dump.await.map_err(|e| e.to_string())
}

async fn database(service: &Service, dir: &Path, sound: (u64, u64)) -> Verdict {
    let (tasks, opened) = open(service, dir).await;
    let verdict = match opened {
        Err(_) => Verdict::Refused,
        Ok(db) => match db.look().await {
            Err(_) => Verdict::Found,
            Ok(()) => match content(service, &db).await {
                Err(_) => Verdict::Found,
                Ok(now) if now == sound => Verdict::Same,
                Ok((_, at)) if at < sound.1 => Verdict::Again,
                Ok(now) => Verdict::Silent(format!("{now:?} instead of {sound:?}")),
            },
        },
    };
    close(tasks).await;
    verdict
}

/// State and facts of the exchange in a data directory, as a start finds them.
fn exchange_content(data_dir: &Path) -> Result<(Vec<u8>, Vec<Vec<u8>>), String> {
    let dir = data_dir.join("exchange");
    standing::claim(data_dir, &dir, 1).map_err(|e| e.to_string())?;
    let recovered = recovery::recover(&dir).map_err(|e| e.to_string())?;
    let mut state = Vec::new();
    recovered.state.encode(&mut state);
    let mut facts = Vec::new();
    seglog::read_from::<seglog::Error>(FACTS, &dir, 0, |frame| {
        facts.push(frame.payload.to_vec());
        Ok(())
    })
    .map_err(|e| e.to_string())?;
    Ok((state, facts))
}

fn exchange(dir: &Path, sound: &(Vec<u8>, Vec<Vec<u8>>)) -> Verdict {
    match exchange_content(dir) {
        Err(_) => Verdict::Refused,
        Ok(now) if now.0 != sound.0 || now.1.len() != sound.1.len() => {
            Verdict::Silent("another exchange".into())
        }
        Ok(_) if standing::look(&dir.join("exchange")).is_err() => Verdict::Found,
        // Where a segment begins is told by its first record.
        Ok(_) => Verdict::Same,
    }
}

fn broker_content(dir: &Path) -> Result<String, String> {
    let id = Manifest::of(dir).stores().map_err(|e| e.to_string())?["broker"].id;
    let note = Some((Manifest::of(dir).note_path("broker"), *id.as_bytes()));
    let streams = broker::store_check(&dir.join("broker"), note).map_err(|e| e.to_string())?;
    Ok(format!("{streams:?}"))
}

fn broker_store(dir: &Path, sound: &str) -> Verdict {
    match broker_content(dir) {
        Err(_) => Verdict::Refused,
        Ok(now) if now == sound => Verdict::Same,
        Ok(now) => Verdict::Silent(now),
    }
}

/// Damages one file again and again; `start` judges.
fn damage(kind: &str, files: &Files, file: &Path, mut start: impl FnMut(&Path) -> Verdict) {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    let whole = &files[file];
    // What a log was lengthened with is no content.
    let is_log = kind.ends_with("-wal");
    let content = whole.iter().rposition(|b| *b != 0).map_or(0, |at| at + 1);
    let used = if is_log { content } else { whole.len() };
    assert!(used > 0, "{kind} is empty");
    let (flips, cuts) = (number_of("FAFNIR_TEST_FLIPS", 20), number_of("FAFNIR_TEST_CUTS", 10));
    let mut counts = BTreeMap::new();
    for n in 0..flips + cuts {
        let mut bad = whole[..used].to_vec();
        let at = if n < flips {
            let at = (n * used / flips + n * 37) % used;
            bad[at] ^= 1 << (n % 8);
            at
        } else {
            let at = (n - flips) * used / cuts;
            bad.truncate(at);
            at
        };
        let mut damaged = files.clone();
        damaged.insert(file.to_owned(), bad);
        write(&dir, &damaged);
        let verdict = start(&dir);
        let what = if n < flips { "flipped at" } else { "cut at" };
        if let Verdict::Silent(how) = &verdict {
            panic!("{kind} {what} {at} of {used}: silent: {how}");
        }
        *counts.entry(verdict).or_insert(0) += 1;
    }
    let count = |verdict| counts.get(&verdict).copied().unwrap_or(0);
    println!(
        "| {kind} | {used} | {} | {} | {} | {} | 0 |",
        count(Verdict::Refused),
        count(Verdict::Found),
        count(Verdict::Again),
        count(Verdict::Same)
    );
}

/// The same with commits in every database's log.
async fn logged(settled: &Files) -> Files {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    write(&dir, settled);
    for service in ALL.iter().filter(|s| !s.migrations.is_empty()) {
        let (tasks, db) = open(service, &dir).await;
        let db = db.unwrap();
        let moved = projection(service);
        for n in 0..25 {
            let commit = move |tx: &mut dyn Tx| {
                let table =
                    "CREATE TABLE IF NOT EXISTS logged (id INTEGER PRIMARY KEY, text TEXT NOT NULL) STRICT";
                tx.execute(table, &[])?;
                if let Some((_, move_on, _)) = moved {
                    tx.execute(move_on, &[])?;
                }
                let values = [Value::Int(n), Value::Text("x".repeat(500))];
                Ok(tx.execute("INSERT INTO logged (id, text) VALUES (?1, ?2)", &values)?)
            };
            db.write(commit).await.unwrap();
        }
        close(tasks).await;
    }
    let mut logged = Files::new();
    read(&dir, Path::new(""), &mut logged);
    logged
}

/// Everything of the databases' logs in their files.
async fn settled(files: &Files) -> Files {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path().join("data");
    write(&dir, files);
    for service in ALL.iter().filter(|s| !s.migrations.is_empty()) {
        let (tasks, db) = open(service, &dir).await;
        let db = db.unwrap();
        db.empty_log().await.unwrap();
        close(tasks).await;
    }
    // The last connection that is closed brings the broker's log in.
    broker_content(&dir).unwrap();
    let mut settled = Files::new();
    read(&dir, Path::new(""), &mut settled);
    settled
}

#[test]
fn what_is_damaged_on_disk_is_never_silent() {
    let (killed, files) = stopped();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let settled = runtime.block_on(settled(&files));
    let logged = runtime.block_on(logged(&settled));
    println!(
        "| File | Bytes | Refused | Found | Comes again | Same | Silent |\n|---|---|---|---|---|---|---|"
    );
    for service in ALL.iter().filter(|s| !s.migrations.is_empty()) {
        for (all, end) in [(&settled, ""), (&logged, "-wal")] {
            let file = format!("db/{}.sqlite", service.name);
            let of = files_of(all, &file);
            let scratch = tempfile::tempdir().unwrap();
            write(scratch.path(), &of);
            let sound = runtime.block_on(async {
                let (tasks, db) = open(service, scratch.path()).await;
                let sound = content(service, &db.unwrap()).await.unwrap();
                close(tasks).await;
                sound
            });
            damage(&format!("{file}{end}"), &of, Path::new(&format!("{file}{end}")), |dir| {
                runtime.block_on(database(service, dir, sound))
            });
        }
    }
    let of = files_of(&files, "exchange");
    let scratch = tempfile::tempdir().unwrap();
    write(scratch.path(), &of);
    let sound = exchange_content(scratch.path()).unwrap();
    for name in ["journal-", "facts-", "snapshot-"] {
        let file = of.keys().rfind(|p| p.to_str().unwrap().starts_with(&format!("exchange/{name}"))).unwrap();
        damage(&format!("exchange/{name}*"), &of, file, |dir| exchange(dir, &sound));
    }
    for (all, file) in [(&settled, "broker/broker.sqlite3"), (&killed, "broker/broker.sqlite3-wal")] {
        let of = files_of(all, "broker");
        write(scratch.path(), &of);
        let sound = broker_content(scratch.path()).unwrap();
        damage(file, &of, Path::new(file), |dir| broker_store(dir, &sound));
    }
}

#[test]
fn what_is_stored_is_its_owners_alone_and_nothing_goes_through_a_link() {
    let home = tempfile::tempdir().unwrap();
    let data = home.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o755)).unwrap();
    let inner = binary();
    let up = ["up", "--no-sim", "--json", "--ports", "auto", "--data-dir"];
    let command = || {
        let mut command = Command::new("sh");
        command.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(inner.get_program()).args(up).arg(&data);
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.current_dir(home.path());
        command
    };
    let mut process = Process::start(command(), home.path().join("up.log"));
    let mut rest = vec![data.clone()];
    while let Some(path) = rest.pop() {
        let mode = fs::symlink_metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{} {mode:o}", path.display());
        if path.is_dir() {
            rest.extend(fs::read_dir(&path).unwrap().map(|e| e.unwrap().path()));
        }
    }
    assert_eq!(process.interrupt(), Some(0));
    let elsewhere = home.path().join("elsewhere");
    fs::write(&elsewhere, "mine").unwrap();
    for name in
        ["run.json.new", "logs/fafnir.log", "db/user-service.sqlite-sums", "exchange/id", "manifest.json"]
    {
        let link = data.join(name);
        let kept = fs::read(&link).ok();
        let _may_be_missing = fs::remove_file(&link);
        std::os::unix::fs::symlink(&elsewhere, &link).unwrap();
        let refused = Answer::of(command().output().unwrap());
        assert_eq!(refused.code, 1, "{name}: {refused:?}");
        assert!(refused.stderr.contains("is a symbolic link"), "{name}: {refused:?}");
        assert_eq!(fs::read(&elsewhere).unwrap(), b"mine", "{name}");
        fs::remove_file(&link).unwrap();
        if let Some(kept) = kept {
            fs::write(&link, kept).unwrap();
        }
    }
}
