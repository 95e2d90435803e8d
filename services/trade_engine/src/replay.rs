//! A journal read for tools: every frame checked, every snapshot and logged fact compared with what the replay gives.
//! It writes nothing, so a running engine's directory may be read too.

use super::{
    domain::{Engine, Fact},
    published::{self, OUTCOMES},
    record::Record,
    recovery::{Error, JOURNAL},
    seglog::{self, Cut, Walk},
    snapshot::{self, Named},
    state::StateHash,
    wire,
};
use prost::Message as _;
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Frames between two words to the progress.
const PROGRESS_FRAMES: u64 = 8_192;

/// The directory of the journal that a path means: an engine's directory, a data directory, or one of its segments.
pub fn directory(path: &Path) -> Result<PathBuf, Error> {
    let io_at = |source| Error::Io { path: path.display().to_string(), source };
    let is_directory = fs::metadata(path).map_err(io_at)?.is_dir();
    let candidates = if is_directory {
        vec![path.to_owned(), path.join("engine")]
    } else {
        vec![path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()]
    };
    for candidate in candidates.into_iter().filter(|c| c.is_dir()) {
        let all = seglog::segments(JOURNAL, &candidate)?;
        if all.iter().any(|s| is_directory || s.path.file_name() == path.file_name()) {
            return Ok(candidate);
        }
    }
    let text = "no journal is there: a data directory, its engine directory or a journal-*.log is wanted";
    Err(io_at(io::Error::new(io::ErrorKind::NotFound, text)))
}

/// Where a replay ends: behind the last record that fits both.
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
    pub engine: Engine,
    /// Sequence of the snapshot that is the base; 0 = genesis.
    pub base_seq: u64,
    /// Records applied.
    pub records: u64,
    pub checked: Vec<Checked>,
    /// Logged facts that the replay gave again, and the first that it did not.
    pub facts_agreed: u64,
    pub fact_differs: Option<u64>,
    /// Why the outcome log could not be compared to its end. It is no part of the truth: the journal makes it again.
    pub outcomes_damaged: Option<String>,
    walk: Walk,
    bytes_total: u64,
    snapshots: Vec<Named>,
    logged: Option<Walk>,
    next_logged: Option<published::Stored>,
    facts: Vec<Fact>,
    ended: bool,
}

/// The last record that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub seq: u64,
    pub time_us: i64,
    pub record: Record,
    pub facts: Vec<Fact>,
}

impl Run {
    /// Opens the journal in a directory. The base is genesis where the journal has it, else the oldest snapshot that can
    /// be used.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let io_at = |source| Error::Io { path: dir.display().to_string(), source };
        let segments = seglog::segments(JOURNAL, dir)?;
        let first = segments.first().map_or(1, |s| s.first_seq);
        let mut snapshots = snapshot::list(dir).map_err(io_at)?;
        snapshots.reverse();
        let mut engine = Engine::new();
        if first > 1 {
            let usable = snapshots.iter().filter(|s| s.seq + 1 >= first).find_map(|s| {
                let bytes = fs::read(&s.path).ok()?;
                snapshot::decode(&bytes).ok()
            });
            engine = usable.ok_or(Error::NoBase(first))?.0;
        }
        Self::from_base(dir, engine)
    }

    /// Opens the journal behind the records that an engine has.
    pub fn from_base(dir: &Path, engine: Engine) -> Result<Self, Error> {
        let io_at = |source| Error::Io { path: dir.display().to_string(), source };
        let segments = seglog::segments(JOURNAL, dir)?;
        let bytes_total = segments.iter().filter_map(|s| fs::metadata(&s.path).ok()).map(|m| m.len()).sum();
        let mut snapshots = snapshot::list(dir).map_err(io_at)?;
        snapshots.reverse();
        let base_seq = engine.seq();
        snapshots.retain(|s| s.seq > base_seq);
        let mut run = Self {
            base_seq,
            records: 0,
            checked: Vec::new(),
            facts_agreed: 0,
            fact_differs: None,
            outcomes_damaged: None,
            walk: Walk::open(JOURNAL, dir, base_seq + 1)?,
            bytes_total,
            snapshots,
            logged: None,
            next_logged: None,
            facts: Vec::new(),
            ended: false,
            engine,
        };
        match Walk::open(OUTCOMES, dir, run.engine.fact_no() + 1) {
            Ok(walk) => {
                run.logged = Some(walk);
                run.read_logged();
            }
            Err(e) => run.outcomes_damaged = Some(e.to_string()),
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

    /// Applies the next record, where `until` allows it.
    pub fn step(&mut self, until: Until) -> Result<Option<Step>, Error> {
        self.advance(until).map(|advanced| {
            let (seq, time_us, record) = advanced?;
            Some(Step { seq, time_us, record, facts: std::mem::take(&mut self.facts) })
        })
    }

    /// Applies every record that `until` allows.
    pub fn run(&mut self, until: Until, progress: &mut dyn FnMut(u64, u64)) -> Result<(), Error> {
        while self.advance(until)?.is_some() {
            if self.records.is_multiple_of(PROGRESS_FRAMES) {
                let (done, all) = self.bytes();
                progress(done, all);
            }
        }
        Ok(())
    }

    fn advance(&mut self, until: Until) -> Result<Option<(u64, i64, Record)>, Error> {
        if self.ended {
            return Ok(None);
        }
        let Some(frame) = self.walk.next_frame()? else {
            self.ended = true;
            return Ok(None);
        };
        let (seq, time_us) = (frame.seq, frame.time_us);
        if !until.allows(seq, time_us) {
            self.ended = true;
            return Ok(None);
        }
        let record = Record::decode(frame.payload).map_err(|e| Error::Record { seq, what: e.0 })?;
        if seq != self.engine.seq() + 1 {
            return Err(Error::NoBase(seq));
        }
        self.facts.clear();
        self.engine.apply(seq, time_us, &record, &mut self.facts);
        self.records += 1;
        self.compare_facts(seq);
        self.check_snapshots()?;
        Ok(Some((seq, time_us, record)))
    }

    fn compare_facts(&mut self, journal_seq: u64) {
        for at in 0..self.facts.len() {
            let fact = &self.facts[at];
            let Some(logged) = self.next_logged.as_ref().filter(|l| l.fact_no == fact.fact_no) else {
                continue;
            };
            let symbol = self.engine.markets()[fact.market].symbol.as_str();
            let same = logged.symbol == symbol
                && logged.journal_seq == journal_seq
                && logged.payload[..] == wire::batch(symbol, fact).encode_to_vec()[..];
            if same {
                self.facts_agreed += 1;
            } else {
                self.fact_differs.get_or_insert(fact.fact_no);
            }
            self.read_logged();
        }
    }

    fn read_logged(&mut self) {
        self.next_logged = None;
        let Some(walk) = &mut self.logged else { return };
        match walk.next_frame() {
            Ok(Some(frame)) => match published::decode(frame.seq, frame.payload) {
                Ok((stored, _)) => self.next_logged = Some(stored),
                Err(e) => self.outcomes_damaged = Some(format!("fact {}: {e}", frame.seq)),
            },
            Ok(None) => {}
            Err(e) => self.outcomes_damaged = Some(e.to_string()),
        }
    }

    fn check_snapshots(&mut self) -> Result<(), Error> {
        while self.snapshots.first().is_some_and(|s| s.seq <= self.engine.seq()) {
            let Named { seq, path } = self.snapshots.remove(0);
            let bytes = match fs::read(&path) {
                Ok(bytes) => bytes,
                // A running engine keeps only the newest.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(source) => return Err(Error::Io { path: path.display().to_string(), source }),
            };
            let verdict = match snapshot::decode(&bytes) {
                Ok((_, hash)) if hash == self.engine.hash() => Verdict::Agrees,
                Ok((_, hash)) => Verdict::Differs(hash),
                Err(e) => Verdict::Damaged(e.to_string()),
            };
            self.checked.push(Checked { seq, path, verdict });
        }
        Ok(())
    }
}

/// Where two journals part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Parting {
    /// They hold other records; both in words, without their times.
    Records { seq: u64, left: String, right: String },
    /// The same record has other outcomes. Two builds of the engine disagree, or one of them is not deterministic.
    Outcomes { seq: u64, left: String, right: String },
    /// One of them begins later.
    Begins { left: u64, right: u64 },
}

/// What a comparison of two journals found.
#[derive(Debug)]
pub struct Compared {
    /// Records that are the same in both; their times may differ.
    pub same_records: u64,
    /// Records whose times differ too.
    pub other_times: u64,
    pub parting: Option<Parting>,
    pub left: Run,
    pub right: Run,
}

/// Replays two journals side by side to the first difference. Records are compared without their times: two runs of
/// the same commands never have the same ones.
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
        if l.record != r.record {
            let (left, right) = (format!("{:?}", l.record), format!("{:?}", r.record));
            found.parting = Some(Parting::Records { seq: l.seq, left, right });
            return Ok(found);
        }
        if !same_outcomes(&l.facts, &r.facts) {
            let (left, right) = (outcomes_in_words(&l.facts), outcomes_in_words(&r.facts));
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

fn same_outcomes(left: &[Fact], right: &[Fact]) -> bool {
    left.len() == right.len()
        && left.iter().zip(right).all(|(l, r)| (l.fact_no, &l.outcomes) == (r.fact_no, &r.outcomes))
}

fn outcomes_in_words(facts: &[Fact]) -> String {
    facts.iter().flat_map(|f| &f.outcomes).map(|o| format!("{o:?}")).collect::<Vec<_>>().join("; ")
}
