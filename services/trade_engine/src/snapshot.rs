//! Snapshot files: the canonical state at a journal sequence, with its hash; written whole or not at all.

use super::{
    crash_point,
    domain::Engine,
    seglog::{self, sync_dir},
    state::{StateHash, sha256},
};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// Snapshots that are kept.
pub const KEPT: usize = 3;
const MAGIC: [u8; 8] = *b"FAFSNAP1";
const HEADER_BYTES: usize = 8 + 8 + 8 + 32 + 4;

/// Why bytes are not a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Damaged(pub &'static str);

/// A snapshot file by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Sequence of the last record in it.
    pub seq: u64,
    pub path: PathBuf,
}

/// The file for a state.
pub fn encode(seq: u64, state: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER_BYTES + state.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&(state.len() as u64).to_le_bytes());
    out.extend_from_slice(&sha256(state));
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(state);
    out
}

/// Checks a file and restores the engine in it.
pub fn decode(bytes: &[u8]) -> Result<(Engine, StateHash), Damaged> {
    let header = bytes.get(..HEADER_BYTES).ok_or(Damaged("it is cut off"))?;
    let state = &bytes[HEADER_BYTES..];
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]).to_le_bytes();
    if header[..8] != MAGIC {
        return Err(Damaged("it is not a snapshot"));
    }
    if header[HEADER_BYTES - 4..] != crc {
        return Err(Damaged("the header's checksum does not match"));
    }
    if header[16..24] != (state.len() as u64).to_le_bytes() {
        return Err(Damaged("its length is not what it says"));
    }
    let hash = sha256(state);
    if header[24..56] != hash {
        return Err(Damaged("the state's hash does not match"));
    }
    let engine = Engine::decode(state).map_err(|e| Damaged(e.0))?;
    if header[8..16] != engine.seq().to_le_bytes() {
        return Err(Damaged("its sequence is not the state's"));
    }
    Ok((engine, hash))
}

/// Removes what a crash left under its temporary name: it was never a snapshot.
pub fn sweep(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if name.starts_with("snapshot-") && path.extension().is_some_and(|e| e == "tmp") {
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// The snapshots in a directory, newest first.
pub fn list(dir: &Path) -> io::Result<Vec<Named>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        if let Some(seq) = name.strip_prefix("snapshot-").and_then(|n| n.strip_suffix(".bin")?.parse().ok()) {
            found.push(Named { seq, path });
        }
    }
    found.sort_by_key(|s| std::cmp::Reverse(s.seq));
    Ok(found)
}

/// Writes a snapshot, reads it back, and removes all but the newest [`KEPT`]. Answers the sequence of the oldest kept.
pub fn write(dir: &Path, seq: u64, state: &[u8]) -> io::Result<u64> {
    let path = dir.join(format!("snapshot-{seq:020}.bin"));
    let temporary = path.with_extension("tmp");
    let bytes = encode(seq, state);
    let mut file = File::create(&temporary)?;
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(half)?;
    crash_point("snapshot", "half written");
    file.write_all(rest)?;
    file.sync_all()?;
    if fs::read(&temporary)? != bytes {
        fs::remove_file(&temporary)?;
        return Err(io::Error::other("the snapshot does not read back as it was written"));
    }
    crash_point("snapshot", "under its temporary name");
    fs::rename(&temporary, &path)?;
    crash_point("snapshot", "renamed");
    let sync = |dir: &Path| {
        sync_dir(dir).map_err(|e| match e {
            seglog::Error::Io { source, .. } => source,
            other => io::Error::other(other.to_string()),
        })
    };
    sync(dir)?;
    let all = list(dir)?;
    for old in all.iter().skip(KEPT) {
        fs::remove_file(&old.path)?;
        crash_point("snapshot", "an old one removed");
    }
    sync(dir)?;
    Ok(all.iter().take(KEPT).map(|s| s.seq).min().unwrap_or(seq))
}
