//! A journal read for tools: every frame checked, every snapshot and logged fact compared with what the replay gives.
//! It writes nothing, so a running engine's directory may be read too.

use super::{
    hash::{StateHash, sha256},
    log::{self, FACTS, JOURNAL},
    message::{self, Names},
    recovery::{Error, names_of},
    seglog::{self, Cut, Walk},
    skipped::Skipped,
    snapshot::{self, Named},
};
use fafnir_clearing::{State, codec::RULES_VERSION, command::Command, fact::Fact};
use prost::Message as _;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Frames between two words to the progress.
const PROGRESS_FRAMES: u64 = 8_192;

/// The directory of the journal that a path means: an exchange's directory, a data directory, or one of its segments.
pub fn directory(path: &Path) -> Result<PathBuf, Error> {
    let io_at = |source| Error::Io { path: path.display().to_string(), source };
    let is_directory = fs::metadata(path).map_err(io_at)?.is_dir();
    let candidates = if is_directory {
        vec![path.to_owned(), path.join("exchange")]
    } else {
        vec![path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()]
    };
    for candidate in candidates.into_iter().filter(|c| c.is_dir()) {
        let all = seglog::segments(JOURNAL, &candidate)?;
        if all.iter().any(|s| is_directory || s.path.file_name() == path.file_name()) {
            return Ok(candidate);
        }
    }
    let text = "no journal is there: a data directory, its exchange directory or a journal-*.log is wanted";
    Err(io_at(io::Error::new(io::ErrorKind::NotFound, text)))
}

/// Where a replay ends: behind the last command that fits both.
#[derive(Debug, Clone, Copy)]
pub struct Until {
    pub seq: u64,
    pub time_us: i64,
}

impl Until {
    /// Everything.
    pub const END: Self = Self { seq: u64::MAX, time_us: i64::MAX };

    fn allows(self, seq: u64, time_us: i64) -> bool {
        seq <= self.seq && time_us <= self.time_us
    }
}

/// What a snapshot on the way says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its state is the replay's.
    Agrees,
    /// Its state is another one.
    Differs(StateHash),
    /// It cannot be read.
    Damaged(String),
}

/// A snapshot that the replay passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    pub seq: u64,
    pub path: PathBuf,
    pub verdict: Verdict,
}

/// A journal under replay.
#[derive(Debug)]
pub struct Run {
    pub state: State,
    /// Sequence of the snapshot that is the base; 0 = genesis.
    pub base_seq: u64,
    /// Commands stepped.
    pub records: u64,
    pub checked: Vec<Checked>,
    /// Logged facts that the replay gave again, and the position of the first that it did not.
    pub facts_agreed: u64,
    pub fact_differs: Option<u64>,
    /// Records that were passed over.
    pub passed: Vec<u64>,
    /// Why the fact log could not be compared to its end.
    pub facts_damaged: Option<String>,
    skipped: Skipped,
    names: Names,
    walk: Walk,
    bytes_total: u64,
    snapshots: Vec<Named>,
    logged: Option<Walk>,
    next_logged: Option<Logged>,
    facts: Vec<Fact>,
    ended: bool,
}

/// A fact as the log has it.
#[derive(Debug)]
struct Logged {
    position: u64,
    command: u64,
    payload: Vec<u8>,
}

/// The last command that was stepped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub seq: u64,
    pub time_us: i64,
    pub command: Command,
    pub facts: Vec<Fact>,
}

/// SHA-256 of a state's canonical bytes.
pub fn hash(state: &State) -> StateHash {
    let mut bytes = Vec::new();
    state.encode(&mut bytes);
    sha256(&bytes)
}

impl Run {
    /// Opens the journal in a directory. The base is genesis where the journal has it, else the oldest snapshot that can
    /// be used.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let io_at = |source| Error::Io { path: dir.display().to_string(), source };
        let segments = seglog::segments(JOURNAL, dir)?;
        let mut snapshots = snapshot::list(dir).map_err(io_at)?;
        let newest = snapshots.first().map_or(0, |s| s.seq);
        let first = first_of_own_rules(&segments).unwrap_or(newest + 1);
        snapshots.reverse();
        let mut state = State::new();
        if first > 1 {
            let usable = snapshots.iter().filter(|s| s.seq + 1 >= first).find_map(|s| {
                let bytes = fs::read(&s.path).ok()?;
                snapshot::decode(&bytes).ok()
            });
            state = usable.ok_or(Error::NoBase(first))?.state;
        }
        Self::from_base(dir, state)
    }

    /// Opens the journal behind the commands that a state has.
    pub fn from_base(dir: &Path, state: State) -> Result<Self, Error> {
        let io_at = |source| Error::Io { path: dir.display().to_string(), source };
        let segments = seglog::segments(JOURNAL, dir)?;
        let bytes_total = segments.iter().filter_map(|s| fs::metadata(&s.path).ok()).map(|m| m.len()).sum();
        let mut snapshots = snapshot::list(dir).map_err(io_at)?;
        snapshots.reverse();
        let base_seq = state.seq();
        snapshots.retain(|s| s.seq > base_seq);
        let mut run = Self {
            base_seq,
            records: 0,
            checked: Vec::new(),
            facts_agreed: 0,
            fact_differs: None,
            facts_damaged: None,
            passed: Vec::new(),
            skipped: Skipped::load(dir)?,
            names: names_of(&state),
            walk: Walk::open(JOURNAL, dir, base_seq + 1)?,
            bytes_total,
            snapshots,
            logged: None,
            next_logged: None,
            facts: Vec::new(),
            ended: false,
            state,
        };
        match Walk::open(FACTS, dir, run.state.position() + 1) {
            Ok(walk) => {
                run.logged = Some(walk);
                run.read_logged();
            }
            Err(e) => run.facts_damaged = Some(e.to_string()),
        }
        Ok(run)
    }

    /// What stands behind the last whole record and can be a write that was cut short.
    pub fn torn(&self) -> Option<&Cut> {
        self.walk.torn.as_ref()
    }

    /// Bytes of the journal read and in all.
    pub fn bytes(&self) -> (u64, u64) {
        (self.walk.bytes_done(), self.bytes_total)
    }

    /// The symbols of the markets.
    pub fn names(&self) -> &Names {
        &self.names
    }

    /// Steps the next command, where `until` allows it.
    pub fn step(&mut self, until: Until) -> Result<Option<Step>, Error> {
        self.advance(until).map(|advanced| {
            let (seq, time_us, command) = advanced?;
            Some(Step { seq, time_us, command, facts: std::mem::take(&mut self.facts) })
        })
    }

    /// Steps every command that `until` allows.
    pub fn run(&mut self, until: Until, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
        while self.advance(until)?.is_some() {
            if self.records.is_multiple_of(PROGRESS_FRAMES) {
                let (done, all) = self.bytes();
                progress(done, all);
            }
        }
        Ok(())
    }

    fn advance(&mut self, until: Until) -> Result<Option<(u64, i64, Command)>, Error> {
        if self.ended {
            return Ok(None);
        }
        loop {
            let Some(frame) = self.walk.next_frame()? else {
                self.ended = true;
                return Ok(None);
            };
            let (seq, time_us, payload) = (frame.seq, frame.time_us, frame.payload.to_vec());
            if !until.allows(seq, time_us) {
                self.ended = true;
                return Ok(None);
            }
            if self.walk.rules() != RULES_VERSION {
                return Err(Error::Version { seq, rules: self.walk.rules() });
            }
            if seq != self.state.seq() + 1 {
                return Err(Error::NoBase(seq));
            }
            self.facts.clear();
            let record = (seq, time_us, payload.as_slice());
            let command = self.skipped.step(&mut self.state, record, &mut self.facts)?;
            self.records += 1;
            self.compare_facts(seq);
            self.check_snapshots()?;
            match command {
                Some(command) => return Ok(Some((seq, time_us, command))),
                None => self.passed.push(seq),
            }
        }
    }

    /// Whether the fact log goes on behind what was stepped.
    pub fn is_logged(&self) -> bool {
        self.next_logged.is_some()
    }

    fn compare_facts(&mut self, command: u64) {
        for at in 0..self.facts.len() {
            let fact = &self.facts[at];
            self.names.learn(fact);
            let Some(logged) = self.next_logged.as_ref().filter(|l| l.position == fact.position) else {
                continue;
            };
            let is_same = logged.command == command
                && logged.payload == message::fact(&self.names, fact).encode_to_vec();
            if is_same {
                self.facts_agreed += 1;
            } else {
                self.fact_differs.get_or_insert(fact.position);
            }
            self.read_logged();
        }
    }

    fn read_logged(&mut self) {
        self.next_logged = None;
        let Some(walk) = &mut self.logged else { return };
        match walk.next_frame() {
            Ok(Some(frame)) => match log::read(frame.seq, frame.time_us, frame.payload) {
                Ok((command, payload, _)) => {
                    let payload = payload.to_vec();
                    self.next_logged = Some(Logged { position: frame.seq, command, payload });
                }
                Err(e) => self.facts_damaged = Some(format!("fact {}: {e}", frame.seq)),
            },
            Ok(None) => {}
            Err(e) => self.facts_damaged = Some(e.to_string()),
        }
    }

    fn check_snapshots(&mut self) -> Result<(), Error> {
        while self.snapshots.first().is_some_and(|s| s.seq <= self.state.seq()) {
            let Named { seq, path } = self.snapshots.remove(0);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // A running engine keeps only the newest.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::Io { path: path.display().to_string(), source }),
            };
            let verdict = match snapshot::decode(&bytes) {
                Ok(taken) if taken.hash == hash(&self.state) => Verdict::Agrees,
                Ok(taken) => Verdict::Differs(taken.hash),
                Err(e) => Verdict::Damaged(e.to_string()),
            };
            self.checked.push(Checked { seq, path, verdict });
        }
        Ok(())
    }
}

/// The first record that this program can step: those of former rules are behind a snapshot. `None` where all are of
/// others.
fn first_of_own_rules(segments: &[seglog::Segment]) -> Option<u64> {
    let is_others = |segment: &seglog::Segment| {
        // What cannot be read is told by the walk that comes to it.
        let head = seglog::read_head(JOURNAL, segment, crate::frames::HEADER_BYTES as u64);
        head.is_ok_and(|(_, header)| header.rules != RULES_VERSION)
    };
    match segments.iter().rposition(is_others) {
        Some(last) => segments.get(last + 1).map(|segment| segment.first_seq),
        None => Some(segments.first().map_or(1, |segment| segment.first_seq)),
    }
}

/// Where two journals part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parting {
    /// They hold other commands; both in words, without their times.
    Records { seq: u64, left: String, right: String },
    /// The same command has other outcomes. Two programs disagree, or one of them is not deterministic.
    Outcomes { seq: u64, left: String, right: String },
    /// One of them begins later.
    Begins { left: u64, right: u64 },
}

/// What a comparison of two journals found.
#[derive(Debug)]
pub struct Compared {
    /// Commands that are the same in both; their times may differ.
    pub same_records: u64,
    /// Commands whose times differ too.
    pub other_times: u64,
    pub parting: Option<Parting>,
    pub left: Run,
    pub right: Run,
}

/// Replays two journals side by side to the first difference. Commands and facts are compared without their times: two
/// runs of the same commands never have the same ones.
pub fn compare(
    left: &Path,
    right: &Path,
    until: Until,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<Compared, Error> {
    let (left, right) = (Run::open(left)?, Run::open(right)?);
    let mut found = Compared { same_records: 0, other_times: 0, parting: None, left, right };
    if found.left.base_seq != found.right.base_seq {
        found.parting = Some(Parting::Begins { left: found.left.base_seq, right: found.right.base_seq });
        return Ok(found);
    }
    loop {
        let (l, r) = (found.left.step(until)?, found.right.step(until)?);
        let (Some(l), Some(r)) = (l, r) else {
            // One may be longer: its end is its own.
            found.left.run(until, &mut |_, _| {})?;
            found.right.run(until, &mut |_, _| {})?;
            return Ok(found);
        };
        if l.command != r.command {
            let (left, right) = (format!("{:?}", l.command), format!("{:?}", r.command));
            found.parting = Some(Parting::Records { seq: l.seq, left, right });
            return Ok(found);
        }
        let (left, right) = (outcomes(&found.left.names, &l.facts), outcomes(&found.right.names, &r.facts));
        if left != right {
            found.parting = Some(Parting::Outcomes { seq: l.seq, left, right });
            return Ok(found);
        }
        found.same_records += 1;
        found.other_times += u64::from(l.time_us != r.time_us);
        if found.same_records.is_multiple_of(PROGRESS_FRAMES) {
            let (done, all) = found.left.bytes();
            progress(done, all);
        }
    }
}

/// Facts in words, without the times that they carry.
fn outcomes(names: &Names, facts: &[Fact]) -> String {
    let words = |fact: &Fact| {
        let mut fact = message::fact(names, fact);
        fact.time_us = 0;
        for update in &mut fact.orders {
            if let Some(order) = &mut update.order {
                (order.created_us, order.updated_us) = (0, 0);
            }
            if let Some(fill) = &mut update.fill {
                fill.time_us = 0;
            }
        }
        for update in &mut fact.balances {
            if let Some(account) = &mut update.account {
                (account.created_us, account.updated_us) = (0, 0);
            }
            if let Some(holding) = &mut update.holding {
                (holding.created_us, holding.updated_us) = (0, 0);
            }
        }
        format!("{fact:?}")
    };
    facts.iter().map(words).collect::<Vec<_>>().join("; ")
}
