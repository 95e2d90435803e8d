//! `fafnir secrets`: certificates of a private authority, the secrets of the Compose files, rotation.

pub mod certificates;
mod init;
mod rotate;

use crate::{
    args::{Global, Secrets},
    output::{Error, Exit, Out, Result},
    settings,
};
use fafnir_disk::whole;
use fafnir_services::{gateway, platform::secrets};
use serde_json::json;
use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

pub async fn secrets(global: &Global, args: &Secrets, out: Out) -> Result {
    match args {
        Secrets::Tls(args) => certificates::tls(args, out),
        Secrets::Init(args) => init::init(args, out),
        Secrets::Rotate(args) => rotate::rotate(global, args, out).await,
        Secrets::Issuer => issuer(global, out),
    }
}

/// What nats-server believes the gateway's answers by.
fn issuer(global: &Global, out: Out) -> Result {
    let dir = settings::settings(global, &[])?.data_dir().join("secrets");
    let secret = secrets::secret(&dir, "nats_sessions")?;
    let issuer = gateway::issuer(&secret)?;
    out.data(&json!({"issuer": issuer}), || format!("{issuer}\n"));
    Ok(())
}

/// Who may read what is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// Its owner alone.
    Owner,
    /// Whoever gets into the directory, which is its owner's alone: containers that a part of it is mounted into, whatever
    /// user they run as.
    Mounted,
}

impl Readers {
    fn modes(self) -> (u32, u32) {
        match self {
            Self::Owner => (0o700, 0o600),
            Self::Mounted => (0o755, 0o644),
        }
    }
}

fn failed(path: &Path, e: &std::io::Error) -> Error {
    Error::new(Exit::Failure, format!("{}: {e}", path.display()))
}

fn make_dir(dir: &Path, mode: u32) -> Result {
    fs::create_dir_all(dir).map_err(|e| failed(dir, &e))?;
    fs::set_permissions(dir, fs::Permissions::from_mode(mode)).map_err(|e| failed(dir, &e))
}

/// Puts a file in its place, whole, over one that is there.
fn replace(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> Result {
    whole::write(path, text.as_ref(), mode).map_err(|e| failed(path, &e))
}
