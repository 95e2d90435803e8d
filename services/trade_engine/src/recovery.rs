//! From what is on disk to the engine as it was: the newest usable snapshot, then the journal's tail.

use super::{
    crash_point,
    domain::{Engine, Fact},
    published::{self, Begin, OUTCOMES, Position, Published, Stored},
    record::{Malformed, Record},
    seglog::{self, Cut, FlushError, SegLog, Spec},
    snapshot, wire,
};
use fafnir_proto::v1;
use prost::Message as _;
use std::{collections::BTreeMap, fs, io, path::Path, sync::Arc};

/// The journal: every record, numbered. What is not in it did not happen.
pub const JOURNAL: Spec =
    Spec { name: "journal", magic: *b"FAFJRNL1", rules: 0, segment_bytes: SEGMENT_BYTES };
/// Tests see a journal roll within a few thousand commands.
const SEGMENT_BYTES: u64 = if cfg!(test) { 256 * 1024 } else { 16 * 1024 * 1024 };
/// Facts written to the outcome log at a time while replaying.
const REPLAY_FACTS: usize = 4_096;

/// Why the engine does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] seglog::Error),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    /// A record that the engine cannot read, with a checksum that holds: written by another version, or a defect.
    #[error("journal record {seq}: {what}")]
    Record { seq: u64, what: &'static str },
    /// The journal lacks what is known to have been in it.
    #[error(
        "the journal ends at record {journal}, {proof} reaches to {proven}: the journal has lost its end"
    )]
    Lost { journal: u64, proof: String, proven: u64 },
    /// Neither a snapshot nor the beginning of the journal is there.
    #[error("the journal begins at record {0} and no snapshot that can be used reaches that far")]
    NoBase(u64),
}

impl From<FlushError> for Error {
    fn from(e: FlushError) -> Self {
        match e {
            FlushError::NotWritten(e) | FlushError::Lost(e) => Self::Log(e),
        }
    }
}

impl From<Malformed> for Error {
    fn from(e: Malformed) -> Self {
        Self::Record { seq: 0, what: e.0 }
    }
}

/// The engine as it was, and its logs ready to go on.
#[derive(Debug)]
pub struct Recovered {
    pub engine: Engine,
    pub journal: SegLog,
    pub outcomes: OutcomeLog,
    pub published: Arc<Published>,
    /// Sequence of the snapshot that was the base; 0 = genesis.
    pub snapshot_seq: u64,
    /// Records replayed behind it.
    pub replayed: u64,
    /// What was cut off the journal.
    pub cut: Option<Cut>,
}

/// The outcome log and where each symbol is in it.
#[derive(Debug)]
pub struct OutcomeLog {
    pub log: SegLog,
    positions: BTreeMap<String, Position>,
    /// Record of the last fact.
    journal_seq: u64,
}

impl OutcomeLog {
    /// Puts facts into the log's batch and answers them as they are stored, with the segments that they begin.
    pub fn push(
        &mut self,
        engine: &Engine,
        facts: &[(u64, Fact)],
    ) -> (Vec<(Stored, v1::ExecutionBatch)>, Vec<Begin>) {
        let mut stored = Vec::with_capacity(facts.len());
        let mut begins = Vec::new();
        for (journal_seq, fact) in facts {
            let symbol = engine.markets()[fact.market].symbol.to_string();
            let batch = wire::batch(&symbol, fact);
            let (Some(first), Some(last)) = (fact.outcomes.first(), fact.outcomes.last()) else { continue };
            let one = Stored {
                fact_no: fact.fact_no,
                journal_seq: *journal_seq,
                symbol,
                first_seq: first.seq,
                last_seq: last.seq,
                payload: batch.encode_to_vec().into(),
            };
            let begin = self.log.begins_segment().then(|| Begin {
                first_fact_no: fact.fact_no,
                journal_seq: self.journal_seq,
                positions: self.positions.clone(),
            });
            self.log.push(fact.time_us, &published::encode(&one, begin.as_ref()));
            begins.extend(begin);
            let at = self.positions.entry(one.symbol.clone()).or_default();
            at.exec_seq = one.last_seq;
            at.trade_no = fact.outcomes.iter().map(|o| o.trade_no).max().unwrap_or(0).max(at.trade_no);
            self.journal_seq = *journal_seq;
            stored.push((one, batch));
        }
        (stored, begins)
    }
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    |source| Error::Io { path, source }
}

/// Recovers the engine in `dir`, or begins one.
pub fn recover(dir: &Path) -> Result<Recovered, Error> {
    fs::create_dir_all(dir).map_err(io_at(dir))?;
    let (journal, cut) = SegLog::open(JOURNAL, dir, 1)?;
    let last = journal.next_seq() - 1;
    snapshot::sweep(dir).map_err(io_at(dir))?;
    let snapshots = snapshot::list(dir).map_err(io_at(dir))?;
    if let Some(newest) = snapshots.first()
        && newest.seq > last
    {
        let proof = format!("snapshot {}", newest.path.display());
        return Err(Error::Lost { journal: last, proof, proven: newest.seq });
    }
    let Outcomes { mut log, mut begins, mut facts } = open_outcomes(dir)?;
    if let Some(fact) = facts.last()
        && fact.journal_seq > last
    {
        let proof = "the outcome log".to_owned();
        return Err(Error::Lost { journal: last, proof, proven: fact.journal_seq });
    }
    let mut engine = choose_base(&snapshots, journal.first_seq(), log.next_seq() - 1)?;
    let snapshot_seq = engine.seq();
    if log.next_seq() <= engine.fact_no() {
        log.restart(engine.fact_no() + 1)?;
        begins.clear();
        facts.clear();
    }
    let logged = log.next_seq() - 1;
    let journal_seq = facts.last().map_or(snapshot_seq, |f| f.journal_seq);
    let mut outcomes = OutcomeLog { log, positions: positions_of(&engine), journal_seq };
    crash_point("recovery", "the base stands");
    let mut replay = Replay { fresh: Vec::new(), begins, stored: facts };
    let mut new_facts = Vec::new();
    let mut replayed = 0;
    seglog::read_from::<Error>(JOURNAL, dir, snapshot_seq + 1, |frame| {
        let record =
            Record::decode(frame.payload).map_err(|e| Error::Record { seq: frame.seq, what: e.0 })?;
        engine.apply(frame.seq, frame.time_us, &record, &mut new_facts);
        replayed += 1;
        crash_point("recovery", "a record replayed");
        for fact in new_facts.drain(..) {
            if fact.fact_no <= logged {
                outcomes.pass(&engine, &fact);
            } else {
                replay.fresh.push((frame.seq, fact));
            }
        }
        if replay.fresh.len() >= REPLAY_FACTS { replay.flush(&engine, &mut outcomes) } else { Ok(()) }
    })?;
    replay.flush(&engine, &mut outcomes)?;
    crash_point("recovery", "everything replayed");
    let published = Arc::new(Published::new(dir.to_owned()));
    published.restore(positions_of(&engine), replay.begins, replay.stored, engine.fact_no())?;
    Ok(Recovered { engine, journal, outcomes, published, snapshot_seq, replayed, cut })
}

/// Facts that a replay made anew.
struct Replay {
    fresh: Vec<(u64, Fact)>,
    begins: Vec<Begin>,
    stored: Vec<Stored>,
}

impl Replay {
    fn flush(&mut self, engine: &Engine, outcomes: &mut OutcomeLog) -> Result<(), Error> {
        let (stored, begins) = outcomes.push(engine, &self.fresh);
        outcomes.log.flush(false)?;
        self.fresh.clear();
        self.begins.extend(begins);
        self.stored.extend(stored.into_iter().map(|(fact, _)| fact));
        // Memory holds only recent ones; the rest is on disk.
        let spare = self.stored.len().saturating_sub(REPLAY_FACTS);
        self.stored.drain(..spare);
        Ok(())
    }
}

impl OutcomeLog {
    /// Moves the positions by a fact that is logged already.
    fn pass(&mut self, engine: &Engine, fact: &Fact) {
        let symbol = engine.markets()[fact.market].symbol.as_str();
        let at = self.positions.entry(symbol.to_owned()).or_default();
        at.exec_seq = fact.outcomes.last().map_or(at.exec_seq, |o| o.seq);
        at.trade_no = fact.outcomes.iter().map(|o| o.trade_no).max().unwrap_or(0).max(at.trade_no);
    }
}

fn positions_of(engine: &Engine) -> BTreeMap<String, Position> {
    let position = |m: &super::market::Market| {
        (m.symbol.to_string(), Position { exec_seq: m.exec_seq(), trade_no: m.trade_no() })
    };
    engine.markets().iter().filter(|m| m.exec_seq() > 0).map(position).collect()
}

/// An outcome log as it was found.
struct Outcomes {
    log: SegLog,
    begins: Vec<Begin>,
    /// The newest facts in it.
    facts: Vec<Stored>,
}

/// Opens the outcome log. A damaged one is begun anew: it is no copy of anything that the journal has not.
fn open_outcomes(dir: &Path) -> Result<Outcomes, Error> {
    let open = || {
        let (log, cut) = SegLog::open(OUTCOMES, dir, 1)?;
        if let Some(cut) = cut {
            let (file, bytes) = (cut.path.display(), cut.bytes);
            tracing::info!(%file, bytes, why = %cut.bad, "a torn tail of the outcome log was cut");
        }
        let (begins, facts) = published::load(dir)?;
        Ok::<_, seglog::Error>(Outcomes { log, begins, facts })
    };
    match open() {
        Err(e @ (seglog::Error::Damaged { .. } | seglog::Error::Gap { .. })) => {
            tracing::error!(error = %e, "the outcome log is damaged and is made again from the journal");
            for segment in seglog::segments(OUTCOMES, dir)? {
                fs::remove_file(&segment.path).map_err(io_at(&segment.path))?;
            }
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

/// The newest snapshot that is whole, lies within the journal and does not run ahead of the outcome log; else genesis.
fn choose_base(
    snapshots: &[snapshot::Named],
    journal_first: u64,
    logged_facts: u64,
) -> Result<Engine, Error> {
    let mut ahead = None;
    for named in snapshots {
        let bytes = fs::read(&named.path).map_err(io_at(&named.path))?;
        match snapshot::decode(&bytes) {
            Ok((engine, _)) if engine.seq() != named.seq || engine.seq() + 1 < journal_first => {
                tracing::error!(file = %named.path.display(), "the snapshot does not fit the journal");
            }
            Ok((engine, _)) if engine.fact_no() <= logged_facts => return Ok(engine),
            // The facts up to it are not logged: an older base gives more of them back.
            Ok((engine, _)) => ahead = Some(engine),
            Err(e) => tracing::error!(file = %named.path.display(), error = %e, "the snapshot is damaged"),
        }
    }
    match ahead {
        _ if journal_first == 1 => Ok(Engine::new()),
        Some(engine) => Ok(engine),
        None => Err(Error::NoBase(journal_first)),
    }
}
