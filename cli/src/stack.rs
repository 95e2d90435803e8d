//! The data directory of a stack: its lock, and `run.json` that says where it answers.

use crate::output::{Error, Exit, Result};
use fafnir_disk::whole;
use fafnir_proto::reason::Reason;
use fafnir_services::{
    platform::{manifest, secrets::create_private_dir, tls},
    trade_engine,
};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

/// What `up` writes when it is ready.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RunFile {
    pub pid: u32,
    pub version: String,
    pub nats: String,
    pub services: BTreeMap<String, String>,
    pub operations: BTreeMap<String, String>,
    /// The file of the authority by which its doors are believed; none: the system's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authority: Option<PathBuf>,
}

/// Holds a data directory for this process. Released by the system when the process ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _files: Vec<File>,
}

/// Where `up --tls` keeps certificates.
pub const TLS: &str = "tls";

/// Where a restore works, inside the data directory that it fills.
pub const RESTORING: &str = ".restoring";

fn unusable(dir: &Path, e: &std::io::Error) -> Error {
    Error::new(Exit::Failure, format!("the data directory {} cannot be used: {e}", dir.display()))
        .code(Reason::DATA_DIR)
        .hint("name another with --data-dir, or mend its permissions")
}

/// Locks the parts of the data directory that `services` own.
pub fn lock(dir: &Path, services: &[&str]) -> Result<Lock> {
    let locks = dir.join("locks");
    create_private_dir(&locks).map_err(|e| unusable(dir, &e))?;
    let mut files = Vec::new();
    for service in services {
        let path = locks.join(service);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| unusable(dir, &e))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            drop(file.read_to_string(&mut pid));
            return Err(Error::new(
                Exit::Failure,
                format!(
                    "the data directory {} is in use: {service} runs in process {}",
                    dir.display(),
                    pid.trim()
                ),
            )
            .code(Reason::DATA_DIR_IN_USE)
            .hint("stop it with `fafnir down`, or name another directory with --data-dir"));
        }
        let write = |file: &mut File| {
            file.set_len(0)?;
            file.rewind()?;
            writeln!(file, "{}", std::process::id())
        };
        write(&mut file).map_err(|e| unusable(dir, &e))?;
        files.push(file);
    }
    Ok(Lock { _files: files })
}

/// The processes that hold parts of a data directory, with the names of their parts (Linux).
pub fn holders(dir: &Path) -> Vec<(String, u32)> {
    let program = |pid: &str| fs::read(format!("/proc/{pid}/comm")).ok();
    let own = program("self");
    let mut parts: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for entry in fs::read_dir(dir.join("locks")).into_iter().flatten().flatten() {
        let pid = fs::read_to_string(entry.path()).unwrap_or_default();
        // Whoever held it and has ended left its number.
        if let (Ok(number), Ok(name)) = (pid.trim().parse(), entry.file_name().into_string())
            && program(pid.trim()) == own
        {
            parts.entry(number).or_default().push(name);
        }
    }
    let mut holders: Vec<_> = parts.into_iter().map(|(pid, names)| (names.join(", "), pid)).collect();
    holders.sort();
    holders
}

/// What is said of a former directory, and what to do.
pub fn former(dir: &Path) -> (String, String) {
    let what = format!(
        "{} is of a former fafnir, which kept orders and money apart: this one cannot go on with it",
        dir.display()
    );
    (what, "back it up and name a new one with --data-dir, or empty it with `fafnir up --fresh`".to_owned())
}

/// Refuses a former directory.
pub fn check(dir: &Path) -> Result<()> {
    if dir.join(RESTORING).exists() {
        let what = format!("a restore into {} was interrupted", dir.display());
        let hint = "run `fafnir restore` again: it begins anew, or ends what is left to do";
        return Err(Error::new(Exit::Failure, what).code(Reason::DATA_DIR).hint(hint));
    }
    if !trade_engine::is_former(dir) {
        return Ok(());
    }
    let (what, hint) = former(dir);
    Err(Error::new(Exit::Failure, what).code(Reason::DATA_DIR_FORMER).hint(hint))
}

/// What a stack stores in its data directory.
const OURS: [&str; 14] = [
    "db",
    "broker",
    "engine",
    "exchange",
    "locks",
    "secrets",
    "run.json",
    "logs",
    "seeding",
    "playing",
    TLS,
    manifest::FILE,
    manifest::NOTES,
    RESTORING,
];

/// Makes what is stored its owner's alone, and refuses where something of it is a symbolic link: nothing is read or
/// written through one.
pub fn secure(dir: &Path) -> Result<()> {
    let mut rest: Vec<PathBuf> = OURS.iter().map(|name| dir.join(name)).collect();
    rest.push(dir.join("run.json.new"));
    if dir.is_dir() {
        close(dir);
    }
    while let Some(path) = rest.pop() {
        let found = match fs::symlink_metadata(&path) {
            // A file in the directory's place is told when it is used.
            Err(e)
                if matches!(e.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) =>
            {
                continue;
            }
            found => found.map_err(|e| unusable(dir, &e))?,
        };
        if found.is_symlink() {
            let text = format!("{} is a symbolic link: nothing is stored through one", path.display());
            return Err(Error::new(Exit::Failure, text)
                .code(Reason::DATA_DIR)
                .hint("put what it points to in its place; the data directory itself may be a link"));
        }
        close(&path);
        if found.is_dir() {
            let entries = fs::read_dir(&path).map_err(|e| unusable(dir, &e))?;
            for entry in entries {
                rest.push(entry.map_err(|e| unusable(dir, &e))?.path());
            }
        }
    }
    Ok(())
}

/// Takes a file's or a directory's permissions of group and others away, where it is ours to do so.
fn close(path: &Path) {
    const OTHERS: u32 = 0o077;
    if let Ok(found) = fs::metadata(path)
        && found.permissions().mode() & OTHERS != 0
    {
        let mode = found.permissions().mode() & !OTHERS;
        // Of another owner: whoever prepared the directory decides.
        drop(fs::set_permissions(path, fs::Permissions::from_mode(mode)));
    }
}

/// Deletes what a stack stored. Refuses a directory that holds anything else.
pub fn clear(dir: &Path) -> Result<()> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| unusable(dir, &e))?,
    };
    let paths: Vec<PathBuf> = entries
        .map(|e| e.map(|e| e.path()))
        .collect::<std::io::Result<_>>()
        .map_err(|e| unusable(dir, &e))?;
    let foreign =
        paths.iter().find(|p| !p.file_name().and_then(|n| n.to_str()).is_some_and(|n| OURS.contains(&n)));
    if let Some(path) = foreign {
        return Err(Error::new(
            Exit::Failure,
            format!("--fresh refuses to empty {}: {} is not fafnir's", dir.display(), path.display()),
        )
        .code(Reason::DATA_DIR_FOREIGN)
        .hint("name another directory with --data-dir"));
    }
    for path in paths {
        // The locks are held by this very process.
        if path.ends_with("locks") {
            continue;
        }
        let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(|e| unusable(dir, &e))?;
    }
    Ok(())
}

fn run_file(dir: &Path) -> PathBuf {
    dir.join("run.json")
}

/// Publishes where the stack answers; whole or not at all.
pub fn write_run_file(dir: &Path, run: &RunFile) -> Result<()> {
    let text = serde_json::to_vec_pretty(run).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    whole::write(&run_file(dir), &text, whole::PRIVATE).map_err(|e| unusable(dir, &e))
}

pub fn remove_run_file(dir: &Path) {
    drop(fs::remove_file(run_file(dir)));
}

/// How the commands of this machine reach the doors of a stack.
pub fn client(run: &RunFile) -> Result<tls::Client> {
    match &run.authority {
        Some(path) => Ok(tls::Client::open(tls::Trust::Authority(path.clone()), None)?),
        None => Ok(tls::Client::default()),
    }
}

/// The stack that runs on this directory, if one does: the file alone may be left from a crash.
pub fn running(dir: &Path) -> Option<RunFile> {
    let run: RunFile = serde_json::from_slice(&fs::read(run_file(dir)).ok()?).ok()?;
    let holder = OpenOptions::new().read(true).open(dir.join("locks").join("api-gateway")).ok()?;
    // Free to take: nobody holds it.
    if flock(&holder, FlockOperation::NonBlockingLockShared).is_ok() { None } else { Some(run) }
}
