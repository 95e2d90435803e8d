//! `fafnir backup` and `fafnir restore`: a whole platform into a directory while it runs, and back, here or elsewhere.
//!
//! What follows from something else is copied before it: a database never knows a fact that the journal of the same
//! backup lacks, and what it lacks comes again at the start. Databases are files in a backup, wherever they live.

use super::audit;
use crate::{
    args::{Backup, Global, Restore},
    output::{Error, Exit, Out, Result, table},
    settings, stack,
};
use data_encoding::HEXLOWER;
use fafnir_clearing::codec::RULES_VERSION;
use fafnir_proto::reason::Reason;
use fafnir_services::{
    ALL, Service, compose,
    platform::{
        Clock, Settings,
        clock::rfc3339,
        db::{self, Db, transfer},
        manifest::{self, Manifest},
        secrets::create_private_dir,
        tasks::Tasks,
    },
    trade_engine::{backup as exchange, seglog::sync_dir},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// What says what a backup is.
const INDEX: &str = "backup.json";
/// In a directory that is being written.
const UNDER_WAY: &str = "under-way";
/// Databases in the order of their copies: who tells of users and listings, the broker that carries it, who hears of it,
/// then what follows from the journal.
const TELLERS: [&str; 2] = ["auth-service", "stock-service"];
const BROKER: &str = "broker/broker.sqlite3";
const BROKER_ID: &str = "broker/id";
const HEARERS: [&str; 4] = ["user-service", "security-service", "order-service", "portfolio-service"];
const EXCHANGE: &str = "exchange";
const SECRETS: &str = "secrets";
/// Version of the index.
const FORMAT: u32 = 1;

/// What a backup has, and where it ends.
#[derive(Debug, Serialize, Deserialize)]
struct Index {
    format: u32,
    program: String,
    rules: u32,
    /// Last command of the journal, and when it came.
    journal_seq: u64,
    journal_time_us: i64,
    made_us: i64,
    /// File → length and SHA-256.
    files: BTreeMap<String, (u64, String)>,
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |e| Error::new(Exit::Failure, format!("{path}: {e}")).code(Reason::BACKUP_UNUSABLE)
}

fn unusable(text: impl Into<String>) -> Error {
    Error::new(Exit::Precondition, text).code(Reason::BACKUP_UNUSABLE)
}

fn is_empty(dir: &Path) -> Result<bool> {
    match fs::read_dir(dir) {
        Ok(mut entries) => Ok(entries.next().is_none()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(e) => Err(failed(dir)(e)),
    }
}

/// Every file below a directory, by its path from there.
fn files(dir: &Path) -> Result<Vec<PathBuf>> {
    let (mut found, mut dirs) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(at) = dirs.pop() {
        for entry in fs::read_dir(&at).map_err(failed(&at))? {
            let entry = entry.map_err(failed(&at))?;
            let kind = entry.file_type().map_err(failed(&at))?;
            if kind.is_dir() {
                dirs.push(entry.path());
            } else if kind.is_file() {
                found.push(entry.path().strip_prefix(dir).unwrap_or(&entry.path()).to_owned());
            }
        }
    }
    found.sort();
    Ok(found)
}

fn sum(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hash, mut length) = (File::open(path)?, Sha256::new(), 0);
    let mut part = vec![0; 1 << 20];
    loop {
        match file.read(&mut part)? {
            0 => break,
            n => {
                hash.update(&part[..n]);
                length += n as u64;
            }
        }
    }
    Ok((length, HEXLOWER.encode(&hash.finalize())))
}

/// Copies a file; whoever may read it is its owner alone.
fn put(from: &Path, to: &Path) -> Result<()> {
    let mut source = File::open(from).map_err(failed(from))?;
    let mut copy =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(to).map_err(failed(to))?;
    io::copy(&mut source, &mut copy).and_then(|_| copy.sync_all()).map_err(failed(to))
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(failed(path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed(path))
}

fn private(dir: &Path) -> Result<()> {
    create_private_dir(dir).map_err(failed(dir))
}

fn service(name: &str) -> Result<&'static Service> {
    fafnir_services::by_name(name)
        .ok_or_else(|| Error::new(Exit::Failure, format!("{name} is not in the table of services")))
}

fn file_of(name: &str) -> String {
    format!("{name}.sqlite")
}

pub async fn backup(global: &Global, args: &Backup, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    stack::check(&dir)?;
    if !is_empty(&args.dir)? {
        let text = format!("{} is not empty: a backup needs a new directory", args.dir.display());
        return Err(unusable(text));
    }
    // Nobody starts on a directory that is copied at rest; one that is in use is copied in use.
    let names: Vec<&str> = ALL.iter().map(|s| s.name).collect();
    let _lock = stack::lock(&dir, &names).ok();
    let partial = beside(&args.dir, "partial");
    clear_leftover(&partial)?;
    private(&partial)?;
    write(&partial.join(UNDER_WAY), b"")?;
    let index = copy(&settings, &dir, &partial).await?;
    let text = serde_json::to_vec_pretty(&index).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    write(&partial.join(INDEX), &text)?;
    fs::remove_file(partial.join(UNDER_WAY)).map_err(failed(&partial))?;
    for at in [partial.join("db"), partial.join(EXCHANGE), partial.clone()] {
        sync_dir(&at).map_err(anyhow::Error::from)?;
    }
    fs::rename(&partial, &args.dir).map_err(failed(&args.dir))?;
    if let Some(parent) = std::path::absolute(&args.dir).ok().as_deref().and_then(Path::parent) {
        sync_dir(parent).map_err(anyhow::Error::from)?;
    }
    print(&args.dir, &index, out);
    Ok(())
}

/// `name.partial` beside `name`.
fn beside(dir: &Path, end: &str) -> PathBuf {
    let mut name = dir.as_os_str().to_owned();
    name.push(".");
    name.push(end);
    name.into()
}

/// What an interrupted run left goes; anything else is not ours.
fn clear_leftover(dir: &Path) -> Result<()> {
    if is_empty(dir)? {
        return Ok(());
    }
    if !dir.join(UNDER_WAY).exists() {
        return Err(unusable(format!("{} is in the way and not a backup under way", dir.display())));
    }
    fs::remove_dir_all(dir).map_err(failed(dir))
}

async fn copy(settings: &Settings, dir: &Path, to: &Path) -> Result<Index> {
    private(&to.join("db"))?;
    for name in TELLERS {
        copy_database(settings, name, dir, to).await?;
    }
    if settings.nats.url.is_empty() && dir.join(BROKER).exists() {
        private(&to.join("broker"))?;
        copy_file(dir.join(BROKER), to.join(BROKER)).await?;
        if dir.join(BROKER_ID).exists() {
            put(&dir.join(BROKER_ID), &to.join(BROKER_ID))?;
        }
    }
    for name in HEARERS {
        copy_database(settings, name, dir, to).await?;
    }
    let (from, there) = (dir.join(EXCHANGE), to.join(EXCHANGE));
    private(&there)?;
    let end = tokio::task::spawn_blocking(move || exchange::copy(&from, &there));
    let end = end.await.map_err(anyhow::Error::from)??;
    private(&to.join(SECRETS))?;
    for file in files(&dir.join(SECRETS))? {
        put(&dir.join(SECRETS).join(&file), &to.join(SECRETS).join(&file))?;
    }
    identify(dir, to)?;
    let mut sums = BTreeMap::new();
    for file in files(to)?.into_iter().filter(|file| file != Path::new(UNDER_WAY)) {
        let path = to.join(&file);
        sums.insert(file.display().to_string(), sum(&path).map_err(failed(&path))?);
    }
    Ok(Index {
        format: FORMAT,
        program: env!("CARGO_PKG_VERSION").to_owned(),
        rules: RULES_VERSION,
        journal_seq: end.seq,
        journal_time_us: end.time_us,
        made_us: Clock::wall().now_us(),
        files: sums,
    })
}

/// The stores are who they are in a copy too; how far each had come is in the stores of a copy alone.
fn identify(dir: &Path, to: &Path) -> Result<()> {
    let there = Manifest::of(to);
    let made = there.stores().map_err(anyhow::Error::from)?;
    for (name, entry) in Manifest::of(dir).stores().map_err(anyhow::Error::from)? {
        // A server's manifest stays with its server.
        if !made.contains_key(&name) && name != db::SERVER {
            there.put(&name, entry.id, entry.made_us).map_err(anyhow::Error::from)?;
        }
    }
    for beside in [manifest::NOTES, "locks"] {
        let path = to.join(beside);
        if path.exists() {
            fs::remove_dir_all(&path).map_err(failed(&path))?;
        }
    }
    Ok(())
}

async fn copy_file(from: PathBuf, to: PathBuf) -> Result<()> {
    let copied = tokio::task::spawn_blocking(move || transfer::copy_file(&from, &to));
    copied.await.map_err(anyhow::Error::from)?.map_err(|e| unusable(e.to_string()))
}

/// The database of a service as a file of a backup, from its own file or from its server.
async fn copy_database(settings: &Settings, name: &'static str, dir: &Path, to: &Path) -> Result<()> {
    let root = to;
    let (from, to) = (dir.join("db").join(file_of(name)), to.join("db").join(file_of(name)));
    if settings.database.url.is_empty() {
        return copy_file(from, to).await;
    }
    let (tasks, clock) = (Tasks::new(CancellationToken::new()), Clock::wall());
    let migrations = service(name)?.migrations;
    let there = db::postgres_name(&settings.database.prefix, name);
    let server = Db::open_postgres(&settings.database.url, &there, migrations, &clock).await?;
    let mut aside = settings.clone();
    aside.database.url.clear();
    root.display().to_string().clone_into(&mut aside.data_dir);
    let file = Db::open(&aside, name, migrations, &tasks, &clock).await?;
    transfer::copy_rows(&server, &file, migrations).await.map_err(|e| unusable(format!("{there}: {e}")))?;
    drop(file);
    tasks.shutdown().cancel();
    tasks.drain().await;
    settle(&to)
}

/// Brings a file that was just written, and its log, to one file without a log.
fn settle(file: &Path) -> Result<()> {
    let whole = beside(file, "whole");
    transfer::copy_file(file, &whole).map_err(|e| unusable(e.to_string()))?;
    for end in ["-wal", "-shm", "-sums"] {
        let mut part = file.as_os_str().to_owned();
        part.push(end);
        if Path::new(&part).exists() {
            fs::remove_file(&part).map_err(failed(file))?;
        }
    }
    fs::rename(&whole, file).map_err(failed(file))
}

fn print(dir: &Path, index: &Index, out: Out) {
    let bytes: u64 = index.files.values().map(|(length, _)| length).sum();
    let time = rfc3339(index.journal_time_us);
    let document = json!({"dir": dir, "journalSeq": index.journal_seq, "time": time, "bytes": bytes, "files": index.files.len()});
    out.data(&document, || {
        let rows = vec![
            vec!["backup".to_owned(), dir.display().to_string()],
            vec!["reaches to".to_owned(), format!("command {} of {time}", index.journal_seq)],
            vec!["size".to_owned(), format!("{bytes} bytes in {} files", index.files.len())],
        ];
        table(&["WHAT", "IS"], &rows)
    });
}

/// Reads what a backup says it is, and every file against it.
fn verified(backup: &Path) -> Result<Index> {
    let path = backup.join(INDEX);
    let text =
        fs::read(&path).map_err(|e| unusable(format!("{}: {e}: this is not a backup", path.display())))?;
    let index: Index =
        serde_json::from_slice(&text).map_err(|e| unusable(format!("{}: {e}", path.display())))?;
    if index.format > FORMAT || index.rules > RULES_VERSION {
        let program = &index.program;
        return Err(unusable(format!("the backup is of a newer program ({program}): restore it with that")));
    }
    for (name, told) in &index.files {
        let path = backup.join(name);
        let is_below = Path::new(name).components().all(|c| matches!(c, std::path::Component::Normal(_)));
        let found = if is_below { sum(&path).map_err(failed(&path))? } else { (0, String::new()) };
        if found != *told {
            return Err(unusable(format!("{} is not what the backup had", path.display())));
        }
    }
    Ok(index)
}

pub async fn restore(global: &Global, args: &Restore, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let staging = dir.join(stack::RESTORING);
    let index = verified(&args.backup)?;
    private(&dir)?;
    let names: Vec<&str> = ALL.iter().map(|s| s.name).collect();
    let lock = stack::lock(&dir, &names)?;
    let others = fs::read_dir(&dir).map_err(failed(&dir))?.flatten().map(|e| e.file_name());
    let is_proven = staging.join(PROVEN).exists();
    let in_the_way = |name: &std::ffi::OsString| name != "locks" && name != stack::RESTORING;
    if !is_proven && let Some(name) = others.into_iter().find(in_the_way) {
        let text = format!("{} has {} already", dir.display(), name.display());
        return Err(unusable(text).hint("restore into a new directory: --data-dir names it"));
    }
    if !is_proven {
        prepare(&settings, &args.backup, &index, &staging).await?;
        let found = prove(&settings, &staging).await?;
        if found.findings() > 0 {
            let text = format!("the restored platform is not sound: {}", found.examples().join("; "));
            return Err(
                unusable(text).hint("nothing was put in place; `restore` of another backup begins anew")
            );
        }
        write(&staging.join(PROVEN), b"")?;
        sync_dir(&staging).map_err(anyhow::Error::from)?;
        let (orders, books) = found.positions();
        out.note(format!("audited at positions {orders} and {books}: no findings"));
    }
    put_in_place(&staging, &dir)?;
    drop(lock);
    print(&dir, &index, out);
    Ok(())
}

/// Says that what lies in the staging directory was audited: only to be moved.
const PROVEN: &str = "proven";
/// Names the databases that a restore made on a server: another one makes them anew.
const MADE: &str = "databases";

/// Puts everything of a backup into the staging directory, and its databases where the configuration wants them.
async fn prepare(settings: &Settings, backup: &Path, index: &Index, staging: &Path) -> Result<()> {
    let url = &settings.database.url;
    let mut made: Vec<String> = Vec::new();
    if staging.exists() {
        let text = fs::read_to_string(staging.join(MADE)).unwrap_or_default();
        made = text.lines().map(ToOwned::to_owned).collect();
        fs::remove_dir_all(staging).map_err(failed(staging))?;
    }
    private(staging)?;
    let prefix = &settings.database.prefix;
    let databases = TELLERS.iter().chain(&HEARERS).map(|s| db::postgres_name(prefix, s));
    let wanted: Vec<String> = databases.chain([db::manifest_name(prefix)]).collect();
    if !url.is_empty() {
        for name in &wanted {
            if made.contains(name) {
                db::drop_postgres(url, name).await?;
            } else if db::exists_postgres(url, name).await? {
                return Err(unusable(format!("the server of database.url has {name} already"))
                    .hint("drop it, or name others with database.prefix"));
            }
        }
        write(&staging.join(MADE), wanted.join("\n").as_bytes())?;
    }
    for name in index.files.keys() {
        let to = staging.join(name);
        let is_elsewhere = name == BROKER && !settings.nats.url.is_empty();
        if is_elsewhere {
            continue;
        }
        if let Some(parent) = to.parent() {
            private(parent)?;
        }
        put(&backup.join(name), &to)?;
    }
    if !url.is_empty() {
        let (tasks, clock) = (Tasks::new(CancellationToken::new()), Clock::wall());
        let mut aside = settings.clone();
        staging.display().to_string().clone_into(&mut aside.data_dir);
        for name in TELLERS.into_iter().chain(HEARERS) {
            let (migrations, file) = (service(name)?.migrations, staging.join("db").join(file_of(name)));
            let there = db::postgres_name(prefix, name);
            let from = Db::open_sqlite(file, name, migrations, &tasks, &clock).await?;
            let server = Db::open(&aside, name, migrations, &tasks, &clock).await?;
            transfer::copy_rows(&from, &server, migrations)
                .await
                .map_err(|e| unusable(format!("{there}: {e}")))?;
        }
        tasks.shutdown().cancel();
        tasks.drain().await;
        fs::remove_dir_all(staging.join("db")).map_err(failed(staging))?;
    }
    Ok(())
}

/// Starts everything but the gateway on what was restored, and audits it.
async fn prove(settings: &Settings, staging: &Path) -> Result<audit::Found> {
    let mut settings = settings.clone();
    staging.display().to_string().clone_into(&mut settings.data_dir);
    settings.bind.auto = true;
    settings.sim.enabled = false;
    let services: Vec<_> =
        ALL.iter().copied().filter(|s| s.starts_here(&settings) && s.name != "api-gateway").collect();
    let shutdown = CancellationToken::new();
    let running = compose::start(&services, settings, Clock::wall(), shutdown.clone()).await?;
    let found = audit::look(&running.context, Some(staging.to_owned())).await;
    shutdown.cancel();
    running.wait().await;
    found
}

/// Moves what was proven to where it is used.
fn put_in_place(staging: &Path, dir: &Path) -> Result<()> {
    const OURS: [&str; 3] = [PROVEN, MADE, "locks"];
    for entry in fs::read_dir(staging).map_err(failed(staging))?.flatten() {
        if OURS.iter().any(|ours| entry.file_name() == *ours) {
            continue;
        }
        let to = dir.join(entry.file_name());
        fs::rename(entry.path(), &to).map_err(failed(&to))?;
    }
    sync_dir(dir).map_err(anyhow::Error::from)?;
    fs::remove_dir_all(staging).map_err(failed(staging))?;
    sync_dir(dir).map_err(anyhow::Error::from)?;
    Ok(())
}
