//! Records of the journal that are passed over, by an operator's word: those that break the step at each start.
//!
//! The file `skipped` beside the journal names each by its number and the hash of its bytes, so that it never means another
//! record. A record that is passed over has its number and its time, and nothing happens.

use super::{
    hash::{hex, sha256},
    log::JOURNAL,
    recovery::Error,
    replay::{Run, Until},
    seglog::Walk,
    snapshot,
};
use fafnir_clearing::{State, codec::Malformed, command::Command, fact::Sink, pass, step};
use fafnir_disk::whole;
use std::{
    any::Any,
    collections::BTreeMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

/// Records that one journal may pass over: more is no accident but another program.
const SKIPPED_MAX: usize = 1_000;

/// The records that are passed over, and the SHA-256 of their bytes in hexadecimal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Skipped(BTreeMap<u64, String>);

/// Why a record is not passed over.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error(transparent)]
    Journal(#[from] Error),
    #[error("record {seq} is beyond the journal's last record {last}")]
    Beyond { seq: u64, last: u64 },
    #[error("record {0} is passed over already")]
    Already(u64),
    #[error("record {0} can be stepped: only one that breaks each start is passed over")]
    Sound(u64),
    #[error(
        "the fact log has what happened from record {0} on: a program has stepped it, and this one differs"
    )]
    Happened(u64),
    #[error("{SKIPPED_MAX} records are passed over already: start the program that wrote them")]
    TooMany,
}

/// A record that is passed over from now on.
#[derive(Debug)]
pub struct Passed {
    pub time_us: i64,
    /// What it asked for, where that can be read.
    pub command: Option<Command>,
    /// What it does to a start.
    pub why: String,
}

fn path_in(dir: &Path) -> PathBuf {
    dir.join("skipped")
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    |source| Error::Io { path, source }
}

impl Skipped {
    /// Those of the journal in a directory.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn load(dir: &Path) -> Result<Self, Error> {
        let path = path_in(dir);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(io_at(&path)(e)),
        };
        let malformed = || io_at(&path)(io::Error::other("a line must be a record's number and its hash"));
        let record = |line: &str| {
            let (seq, hash) = line.split_once(' ')?;
            Some((seq.parse().ok()?, hash.to_owned()))
        };
        text.lines().map(|line| record(line).ok_or_else(malformed)).collect::<Result<_, _>>().map(Self)
    }

    /// Their numbers.
    pub fn numbers(&self) -> Vec<u64> {
        self.0.keys().copied().collect()
    }

    fn has(&self, seq: u64, payload: &[u8]) -> Result<bool, Error> {
        match self.0.get(&seq) {
            None => Ok(false),
            Some(hash) if *hash == hex(&sha256(payload)) => Ok(true),
            Some(_) => Err(Error::Record { seq, what: "the file `skipped` names another record" }),
        }
    }

    /// Steps a record, or passes it over (`None`). After an error the state is good for nothing.
    ///
    /// # Errors
    /// The record cannot be read, or it breaks the step.
    pub fn step(
        &self,
        state: &mut State,
        (seq, time_us, payload): (u64, i64, &[u8]),
        sink: &mut impl Sink,
    ) -> Result<Option<Command>, Error> {
        if self.has(seq, payload)? {
            pass(state, seq, time_us);
            return Ok(None);
        }
        let command = Command::decode(payload).map_err(|Malformed(what)| Error::Record { seq, what })?;
        let stepped = catch_unwind(AssertUnwindSafe(|| step(state, seq, time_us, &command, sink)));
        match stepped {
            Ok(_) => Ok(Some(command)),
            Err(panic) => Err(Error::Breaks { seq, what: said(panic.as_ref()) }),
        }
    }

    fn save(&self, dir: &Path) -> Result<(), Error> {
        let path = path_in(dir);
        let lines: Vec<_> = self.0.iter().map(|(seq, hash)| format!("{seq} {hash}\n")).collect();
        whole::write(&path, lines.concat().as_bytes(), whole::PRIVATE).map_err(io_at(&path))
    }
}

/// What a panic said.
fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no word").to_owned()
}

/// Has a record passed over from now on, in the directory of an engine that does not run: the one that breaks the replay,
/// and no other.
///
/// # Errors
/// It does not break the replay, or the file cannot be written.
pub fn skip(dir: &Path, seq: u64) -> Result<Passed, Refused> {
    let mut skipped = Skipped::load(dir)?;
    if skipped.0.contains_key(&seq) {
        return Err(Refused::Already(seq));
    }
    if skipped.0.len() >= SKIPPED_MAX {
        return Err(Refused::TooMany);
    }
    let mut run = Run::from_base(dir, base(dir, seq)?)?;
    let why = match run.run(Until { seq, ..Until::END }, &mut |_, _| {}) {
        Err(broken @ (Error::Breaks { seq: at, .. } | Error::Record { seq: at, .. })) if at == seq => {
            broken.to_string()
        }
        Err(other) => return Err(other.into()),
        Ok(()) if run.state.seq() < seq => return Err(Refused::Beyond { seq, last: run.state.seq() }),
        Ok(()) => return Err(Refused::Sound(seq)),
    };
    if run.is_logged() {
        return Err(Refused::Happened(seq));
    }
    let mut walk = Walk::open(JOURNAL, dir, seq).map_err(Error::from)?;
    let frame = walk.next_frame().map_err(Error::from)?.filter(|frame| frame.seq == seq);
    let frame = frame.ok_or(Refused::Beyond { seq, last: seq.saturating_sub(1) })?;
    skipped.0.insert(seq, hex(&sha256(frame.payload)));
    let passed = Passed { time_us: frame.time_us, command: Command::decode(frame.payload).ok(), why };
    skipped.save(dir)?;
    Ok(passed)
}

/// The state of the newest snapshot before a record, or genesis.
fn base(dir: &Path, seq: u64) -> Result<State, Error> {
    for named in snapshot::list(dir).map_err(io_at(dir))?.iter().filter(|s| s.seq < seq) {
        let bytes = fs::read(&named.path).map_err(io_at(&named.path))?;
        if let Ok(taken) = snapshot::decode(&bytes) {
            return Ok(taken.state);
        }
    }
    Ok(State::new())
}
