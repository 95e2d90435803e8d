//! `fafnir rebuild`: the databases of orders and of the books made anew from the fact log, from a backup and the log, or
//! from a snapshot and the log where what was before is given up.
//!
//! What was there is kept beside; the next start follows the facts after what was put in its place.

use crate::{
    args::{Global, Projected, Rebuild},
    output::{Error, Exit, Out, Result, table},
    settings, stack,
};
use fafnir_proto::reason::Reason;
use fafnir_services::{
    order,
    platform::{
        Clock, Settings,
        db::{self, Db, Migration, transfer},
        manifest::Manifest,
        secrets::create_private_dir,
        tasks::Tasks,
    },
    portfolio,
    trade_engine::{
        log::FACTS,
        opening::{self, Opening},
        replay, seglog,
    },
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};
use tokio_util::sync::CancellationToken;

/// What belongs to an SQLite database beside its file: commits that are not in it yet. The others are made again.
const PARTS: [&str; 2] = ["", "-wal"];
const MADE_AGAIN: [&str; 2] = ["-shm", "-sums"];

struct Done {
    service: &'static str,
    /// Where what was there is.
    kept: Option<String>,
}

pub async fn rebuild(global: &Global, args: &Rebuild, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    stack::check(&dir)?;
    let mut services: Vec<&'static str> = args.service.iter().map(|s| s.name()).collect();
    if services.is_empty() {
        services = vec![Projected::OrderService.name(), Projected::PortfolioService.name()];
    }
    let mut locked = services.clone();
    if args.accept_loss {
        locked.push("trade-engine");
    }
    let _lock = stack::lock(&dir, &locked)?;
    let (oldest, last) = facts(&dir)?;
    let begin = match &args.from {
        Some(backup) => Begin::Backup(backup.clone()),
        None if oldest <= 1 => Begin::Genesis,
        None if args.accept_loss => Begin::Opening(opening(&dir, oldest, last)?),
        None => {
            let text =
                format!("the fact log begins at position {oldest}: what was before is in a backup alone");
            return Err(Error::new(Exit::Precondition, text)
                .code(Reason::REBUILD_NEEDS_BACKUP)
                .hint("--from names a backup that reaches to that position; --accept-loss begins without what was before"));
        }
    };
    // Looked for before anything is moved.
    if let Begin::Backup(backup) = &begin {
        services.iter().try_for_each(|service| source(backup, service).map(drop))?;
    }
    let stamp = Clock::wall().now_us();
    let mut done = Vec::new();
    for service in &services {
        let kept = if settings.database.url.is_empty() {
            in_file(&settings, service, &begin, stamp).await?
        } else {
            on_server(&settings, service, &begin, stamp).await?
        };
        done.push(Done { service, kept });
    }
    print(&done, oldest, out);
    Ok(())
}

/// What a database is made from before the facts.
enum Begin {
    /// The facts are enough.
    Genesis,
    Backup(PathBuf),
    /// A snapshot: what was before is lost.
    Opening(Opening),
}

/// The newest state that everything behind it is told of.
fn opening(dir: &Path, oldest: u64, last: u64) -> Result<Opening> {
    let exchange = replay::directory(dir)?;
    opening::oldest(&exchange, oldest, last)?.ok_or_else(|| {
        Error::new(Exit::Precondition, "no snapshot is left that the fact log goes on from")
            .code(Reason::REBUILD_NEEDS_BACKUP)
            .hint("start trade-engine once: it makes the fact log again from its snapshot")
    })
}

async fn in_file(
    settings: &Settings,
    service: &'static str,
    begin: &Begin,
    stamp: i64,
) -> Result<Option<String>> {
    let dir = settings.data_dir();
    let (file, manifest) = (dir.join("db").join(format!("{service}.sqlite")), Manifest::of(&dir));
    let kept = set_aside(&file, stamp)?;
    manifest.forget(service).map_err(anyhow::Error::from)?;
    match begin {
        Begin::Genesis => {}
        Begin::Backup(backup) => {
            put(&source(backup, service)?, &file)?;
            if let Some(id) = db::store_id(&file)? {
                manifest.put(service, id, stamp).map_err(anyhow::Error::from)?;
            }
        }
        Begin::Opening(opening) => {
            let (tasks, clock) = (Tasks::new(CancellationToken::new()), Clock::wall());
            let db = Db::open_projection(settings, service, migrations(service), &tasks, &clock).await?;
            open(&db, service, opening).await?;
            drop(db);
            tasks.shutdown().cancel();
            tasks.drain().await;
        }
    }
    Ok(kept.map(|path| path.display().to_string()))
}

async fn on_server(
    settings: &Settings,
    service: &'static str,
    begin: &Begin,
    stamp: i64,
) -> Result<Option<String>> {
    let (url, clock) = (&settings.database.url, Clock::wall());
    let name = db::postgres_name(&settings.database.prefix, service);
    let kept = format!("{name}_{stamp}");
    let is_kept = db::rename_postgres(url, &name, &kept).await.map_err(|e| {
        Error::new(Exit::Failure, format!("{name}: {e}"))
            .code(Reason::REBUILD_ELSEWHERE)
            .hint("stop what uses it")
    })?;
    db::forget_postgres(settings, service, stamp).await?;
    if let Begin::Genesis = begin {
        return Ok(is_kept.then_some(kept));
    }
    let tasks = Tasks::new(CancellationToken::new());
    let server = Db::open_projection(settings, service, migrations(service), &tasks, &clock).await?;
    match begin {
        Begin::Genesis => {}
        Begin::Backup(backup) => {
            let scratch = tempdir_for(service)?;
            put(&source(backup, service)?, &scratch.join("db.sqlite"))?;
            let from =
                Db::open_sqlite(scratch.join("db.sqlite"), service, migrations(service), &tasks, &clock)
                    .await?;
            transfer::copy_rows(&from, &server, migrations(service)).await?;
            fs::remove_dir_all(&scratch)?;
        }
        Begin::Opening(opening) => open(&server, service, opening).await?,
    }
    tasks.shutdown().cancel();
    tasks.drain().await;
    Ok(is_kept.then_some(kept))
}

/// A private directory of this process for a copy that is opened.
fn tempdir_for(service: &str) -> Result<PathBuf> {
    let dir = std::env::temp_dir().join(format!("fafnir-rebuild-{service}-{}", std::process::id()));
    create_private_dir(&dir)?;
    Ok(dir)
}

fn migrations(service: &str) -> &'static [Migration] {
    if service == Projected::OrderService.name() {
        order::opening::MIGRATIONS
    } else {
        portfolio::opening::MIGRATIONS
    }
}

async fn open(db: &Db, service: &str, opening: &Opening) -> Result {
    if service == Projected::OrderService.name() {
        order::opening::open(db, opening.position, opening.orders.clone()).await?;
        return Ok(());
    }
    let mut origin = [0; 16];
    origin.copy_from_slice(&opening.hash[..16]);
    portfolio::opening::open(db, opening.position, origin, opening.books.clone()).await?;
    Ok(())
}

/// The first position that the fact log has, and the last.
fn facts(dir: &Path) -> Result<(u64, u64)> {
    let exchange = replay::directory(dir)?;
    let segments = seglog::segments(FACTS, &exchange).map_err(anyhow::Error::from)?;
    let Some(last) = segments.last() else { return Ok((1, 0)) };
    let mut walk = seglog::Walk::open(FACTS, &exchange, last.first_seq).map_err(anyhow::Error::from)?;
    let mut end = last.first_seq - 1;
    while let Some(frame) = walk.next_frame().map_err(anyhow::Error::from)? {
        end = frame.seq;
    }
    Ok((segments.first().map_or(1, |segment| segment.first_seq), end))
}

/// The database of a service in a backup of a data directory, or of its databases; it must be whole.
fn source(backup: &Path, service: &str) -> Result<PathBuf> {
    let name = format!("{service}.sqlite");
    let found = [backup.join("db").join(&name), backup.join(&name)].into_iter().find(|path| path.is_file());
    let refuse = |text: String| Error::new(Exit::Precondition, text).code(Reason::BACKUP_UNUSABLE);
    let path = found.ok_or_else(|| refuse(format!("{} has no {name}", backup.display())))?;
    db::quick_check(&path).map_err(|e| refuse(format!("{}: {e}", path.display())))?;
    Ok(path)
}

fn with(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}

/// Renames a database; answers its new name where there was one.
fn set_aside(file: &Path, stamp: i64) -> Result<Option<PathBuf>> {
    let kept = with(file, &format!(".{stamp}"));
    let there = file.exists();
    for part in PARTS.iter().filter(|part| with(file, part).exists()) {
        fs::rename(with(file, part), with(&kept, part))?;
    }
    for part in MADE_AGAIN.iter().filter(|part| with(file, part).exists()) {
        fs::remove_file(with(file, part))?;
    }
    Ok(there.then_some(kept))
}

fn put(from: &Path, file: &Path) -> Result {
    for part in PARTS.iter().filter(|part| with(from, part).exists()) {
        fs::copy(with(from, part), with(file, part))?;
    }
    Ok(())
}

fn print(done: &[Done], oldest: u64, out: Out) {
    let document: Vec<_> =
        done.iter().map(|d| json!({"service": d.service, "kept": d.kept, "oldestFact": oldest})).collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = done
            .iter()
            .map(|d| {
                let kept = d.kept.clone().unwrap_or_else(|| "-".to_owned());
                vec![d.service.to_owned(), kept]
            })
            .collect();
        format!("{}\nthe next start follows the facts\n", table(&["SERVICE", "WHAT WAS THERE"], &rows))
    });
}
