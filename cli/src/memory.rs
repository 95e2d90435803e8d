//! What the terminal remembers of each user, in files of the state directory: where it was, how it looked, the alerts.

use crate::settings;
use anyhow::Context as _;
use fafnir_disk::whole;
use fafnir_services::platform::secrets::create_private_dir;
use fafnir_tui::{Memory, Remembered};
use rustix::fs::{FlockOperation, flock};
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

/// The files; one for each user.
#[derive(Debug, Clone, Copy)]
pub struct Files;

fn dir() -> PathBuf {
    settings::state_dir().join("terminal")
}

/// None of a user whose id is none: it would be a name of any file.
fn path(user_id: &str) -> Option<PathBuf> {
    let id = uuid::Uuid::parse_str(user_id).ok()?;
    Some(dir().join(format!("{id}.json")))
}

/// Held while a file is read and written again: terminals and commands change alerts beside each other.
fn lock() -> std::io::Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(whole::PRIVATE)
        .open(dir().join(".lock"))?;
    flock(&file, FlockOperation::LockExclusive)?;
    Ok(file)
}

fn read(user_id: &str) -> Option<Remembered> {
    let path = path(user_id)?;
    let bytes = fs::read(&path).ok()?;
    match serde_json::from_slice(&bytes) {
        Ok(kept) => Some(kept),
        Err(e) => {
            tracing::warn!(error = %e, path = %path.display(), "what the terminal remembers cannot be read");
            None
        }
    }
}

impl Memory for Files {
    fn recall(&self, user_id: &str) -> Option<Remembered> {
        read(user_id)
    }

    fn remember(&self, user_id: &str, before: &Remembered, now: &Remembered) -> anyhow::Result<()> {
        let Some(path) = path(user_id) else { return Ok(()) };
        create_private_dir(&dir()).context("the state directory")?;
        let _lock = lock()?;
        // A file that cannot be read has nothing to keep.
        let stored = read(user_id).unwrap_or_else(|| before.clone());
        let text = serde_json::to_vec_pretty(&now.clone().merged(before, &stored))?;
        Ok(whole::write(&path, &text, whole::PRIVATE)?)
    }
}
