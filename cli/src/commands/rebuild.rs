//! `fafnir rebuild`: the databases of orders and of the books made anew from the fact log, or from a backup and the log.
//!
//! It only puts files in place, with what was there kept beside them; the next start follows the facts after them.

use crate::{
    args::{Global, Projected, Rebuild},
    output::{Error, Exit, Out, Result, table},
    settings, stack,
};
use fafnir_proto::reason::Reason;
use fafnir_services::{
    platform::{Clock, db, manifest::Manifest},
    trade_engine::{log::FACTS, replay, seglog},
};
use serde_json::json;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// What belongs to an SQLite database beside its file: commits that are not in it yet. The others are made again.
const PARTS: [&str; 2] = ["", "-wal"];
const MADE_AGAIN: [&str; 2] = ["-shm", "-sums"];

struct Done {
    service: &'static str,
    /// Where what was there is.
    kept: Option<PathBuf>,
}

pub fn rebuild(global: &Global, args: &Rebuild, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    stack::check(&dir)?;
    let mut services: Vec<&'static str> = args.service.iter().map(|s| s.name()).collect();
    if services.is_empty() {
        services = vec![Projected::OrderService.name(), Projected::PortfolioService.name()];
    }
    if !settings.database.url.is_empty() {
        let names = services.iter().map(|s| db::postgres_name(&settings.database.prefix, s));
        let names = names.collect::<Vec<_>>().join(", ");
        return Err(Error::new(Exit::Precondition, format!("{names}: on the server of database.url"))
            .code(Reason::REBUILD_ELSEWHERE)
            .hint(
                "drop the database there, or restore its backup; the next start follows the facts after it",
            ));
    }
    let _lock = stack::lock(&dir, &services)?;
    let oldest = oldest_fact(&dir)?;
    if args.from.is_none() && oldest > 1 {
        let text = format!("the fact log begins at position {oldest}: what was before is in a backup alone");
        return Err(Error::new(Exit::Precondition, text)
            .code(Reason::REBUILD_NEEDS_BACKUP)
            .hint("--from names a backup of the data directory that reaches to that position"));
    }
    let sources = match &args.from {
        None => Vec::new(),
        Some(backup) => services.iter().map(|s| source(backup, s)).collect::<Result<Vec<_>>>()?,
    };
    let (stamp, manifest) = (Clock::wall().now_us(), Manifest::of(&dir));
    let mut done = Vec::new();
    for (at, service) in services.iter().enumerate() {
        let file = dir.join("db").join(format!("{service}.sqlite"));
        let kept = set_aside(&file, stamp)?;
        manifest.forget(service).map_err(anyhow::Error::from)?;
        if let Some(from) = sources.get(at) {
            put(from, &file)?;
            if let Some(id) = db::store_id(&file).map_err(anyhow::Error::from)? {
                manifest.put(service, id, stamp).map_err(anyhow::Error::from)?;
            }
        }
        done.push(Done { service, kept });
    }
    print(&done, oldest, out);
    Ok(())
}

/// The first position that the fact log has.
fn oldest_fact(dir: &Path) -> Result<u64> {
    let exchange = replay::directory(dir)?;
    let segments = seglog::segments(FACTS, &exchange).map_err(anyhow::Error::from)?;
    Ok(segments.first().map_or(1, |segment| segment.first_seq))
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
                let kept = d.kept.as_ref().map_or_else(|| "-".to_owned(), |p| p.display().to_string());
                vec![d.service.to_owned(), kept]
            })
            .collect();
        format!("{}\nthe next start follows the facts\n", table(&["SERVICE", "WHAT WAS THERE"], &rows))
    });
}
