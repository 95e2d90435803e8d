//! Snapshot files: the canonical state after a command, packed, with its hash; written whole or not at all.

use crate::{
    crash_point,
    frames::{u32_at, u64_at},
    hash::{StateHash, sha256},
    seglog::{self, sync_dir},
};
use fafnir_clearing::{State, codec::RULES_VERSION};
use flate2::{Compression, bufread::DeflateDecoder, write::DeflateEncoder};
use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
};

/// Newest snapshots that are kept whatever names them.
pub const KEPT: usize = 3;
/// Of a file with the state packed by deflate.
const MAGIC: [u8; 8] = *b"FAFEXCH2";
/// Of a former program's, with the state as it is.
const MAGIC_PLAIN: [u8; 8] = *b"FAFEXCH1";
/// Magic, rules, checksum of what follows the header (zero in a plain file), sequence, length of the state, its hash, and
/// the checksum of all that.
const HEADER_BYTES: usize = 8 + 4 + 4 + 8 + 8 + 32 + 4;

/// Why bytes are not a snapshot that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Damaged(&'static str),
    #[error("it is of rules {0}, this program has {RULES_VERSION}: a newer program wrote it")]
    Newer(u32),
}

/// A snapshot file by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// Sequence of the last command in it.
    pub seq: u64,
    pub path: PathBuf,
}

/// A snapshot that was read.
#[derive(Debug)]
pub struct Taken {
    pub state: State,
    pub hash: StateHash,
    /// Version of the program that wrote it.
    pub rules: u32,
}

/// The file for a state.
pub fn encode(seq: u64, state: &[u8]) -> io::Result<Vec<u8>> {
    // The fastest level: most of a state is what recent requests were answered, which the others make hardly smaller.
    let mut packer = DeflateEncoder::new(Vec::with_capacity(state.len() / 2), Compression::fast());
    packer.write_all(state)?;
    let packed = packer.finish()?;
    let mut out = Vec::with_capacity(HEADER_BYTES + packed.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&RULES_VERSION.to_le_bytes());
    out.extend_from_slice(&crc32c::crc32c(&packed).to_le_bytes());
    out.extend_from_slice(&seq.to_le_bytes());
    out.extend_from_slice(&(state.len() as u64).to_le_bytes());
    out.extend_from_slice(&sha256(state));
    let crc = crc32c::crc32c(&out);
    out.extend_from_slice(&crc.to_le_bytes());
    out.extend_from_slice(&packed);
    Ok(out)
}

/// Checks a file and restores the state in it.
pub fn decode(bytes: &[u8]) -> Result<Taken, Unusable> {
    let damaged = Unusable::Damaged;
    let (header, state, hash, rules) = checked(bytes)?;
    let state = State::decode_of(rules, &state).map_err(|e| damaged(e.0))?;
    if header[16..24] != state.seq().to_le_bytes() {
        return Err(damaged("its sequence is not the state's"));
    }
    Ok(Taken { state, hash, rules })
}

/// Checks a file without restoring the state in it.
pub fn check(bytes: &[u8]) -> Result<(), Unusable> {
    checked(bytes).map(drop)
}

/// Header, state, the state's hash and rules of a file that is whole.
type Checked<'a> = (&'a [u8], Cow<'a, [u8]>, StateHash, u32);

fn checked(bytes: &[u8]) -> Result<Checked<'_>, Unusable> {
    let damaged = Unusable::Damaged;
    let cut_off = damaged("it is cut off");
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or(cut_off)?;
    let crc = crc32c::crc32c(&header[..HEADER_BYTES - 4]).to_le_bytes();
    let is_plain = header[..8] == MAGIC_PLAIN;
    if !is_plain && header[..8] != MAGIC {
        return Err(damaged("it is not a snapshot of the exchange"));
    }
    if header[HEADER_BYTES - 4..] != crc {
        return Err(damaged("the header's checksum does not match"));
    }
    let rules = u32_at(header, 8).ok_or(cut_off)?;
    if rules > RULES_VERSION {
        return Err(Unusable::Newer(rules));
    }
    let length = u64_at(header, 24).ok_or(cut_off)?;
    let state = if is_plain {
        Cow::Borrowed(body)
    } else {
        if header[12..16] != crc32c::crc32c(body).to_le_bytes() {
            return Err(damaged("the checksum of the state does not match"));
        }
        Cow::Owned(unpacked(body, length)?)
    };
    if length != state.len() as u64 {
        return Err(damaged("its length is not what it says"));
    }
    let hash = sha256(&state);
    if header[32..64] != hash {
        return Err(damaged("the state's hash does not match"));
    }
    Ok((header, state, hash, rules))
}

/// What was packed, as far as one byte behind the length that it should have.
fn unpacked(body: &[u8], length: u64) -> Result<Vec<u8>, Unusable> {
    let mut packed = DeflateDecoder::new(body).take(length.saturating_add(1));
    let mut state = Vec::new();
    packed.read_to_end(&mut state).map_err(|_| Unusable::Damaged("it cannot be unpacked"))?;
    Ok(state)
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

/// Writes the state after a command and reads it back. Answers its hash.
pub fn write(dir: &Path, seq: u64, state: &[u8]) -> io::Result<StateHash> {
    let path = dir.join(format!("snapshot-{seq:020}.bin"));
    let temporary = path.with_extension("tmp");
    let bytes = encode(seq, state)?;
    if let Err(e) = put(&temporary, &bytes) {
        // It takes no room while there is none.
        fs::remove_file(&temporary)?;
        return Err(e);
    }
    crash_point("snapshot", "under its temporary name");
    fs::rename(&temporary, &path)?;
    crash_point("snapshot", "renamed");
    sync(dir)?;
    Ok(sha256(state))
}

fn put(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = File::create(path)?;
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    file.write_all(half)?;
    crash_point("snapshot", "half written");
    file.write_all(rest)?;
    file.sync_all()?;
    if fs::read(path)? == bytes {
        return Ok(());
    }
    Err(io::Error::other("the snapshot does not read back as it was written"))
}

/// Removes all but the newest [`KEPT`] and those that are named. Answers the sequence of the oldest that is left.
pub fn prune(dir: &Path, named: &BTreeSet<u64>) -> io::Result<Option<u64>> {
    let all = list(dir)?;
    let mut oldest = None;
    let mut is_removed = false;
    for (place, snapshot) in all.iter().enumerate() {
        if place < KEPT || named.contains(&snapshot.seq) {
            oldest = Some(snapshot.seq);
            continue;
        }
        fs::remove_file(&snapshot.path)?;
        crash_point("snapshot", "an old one removed");
        is_removed = true;
    }
    if is_removed {
        sync(dir)?;
    }
    // A segment that names genesis needs the journal from its first record on.
    Ok(if named.contains(&0) { Some(0) } else { oldest })
}

fn sync(dir: &Path) -> io::Result<()> {
    sync_dir(dir).map_err(|e| match e {
        seglog::Error::Io { source, .. } => source,
        other => io::Error::other(other.to_string()),
    })
}
