//! From what is on disk to the exchange as it was: the newest usable snapshot, then the journal's tail; what it says again
//! is compared with the fact log.

use super::{
    crash_point,
    log::{self, FACTS, JOURNAL, Stored},
    message::{self, Name, Names},
    published::{self, Loaded, Published, Restored, Snapshot},
    recorder::Recorder,
    seglog::{self, Cut, FlushError, SegLog, Walk},
    skipped::Skipped,
    snapshot::{self, Taken, Unusable},
};
use fafnir_clearing::{
    State,
    codec::RULES_VERSION,
    fact::{Fact, What},
};
use fafnir_proto::v1;
use prost::Message as _;
use std::{fs, io, path::Path, sync::Arc};

/// Facts written to the fact log at a time while replaying.
const REPLAY_FACTS: usize = 4_096;

/// Why the exchange does not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Log(#[from] seglog::Error),
    #[error("{path}: {source}")]
    Io { path: String, source: io::Error },
    /// A record with a checksum that holds, which nobody can read: a defect.
    #[error("journal record {seq}: {what}")]
    Record { seq: u64, what: &'static str },
    /// A record breaks an invariant of the core each time it is stepped: a defect, and nobody was answered it.
    #[error(
        "journal record {seq} breaks the exchange each time: {what}; where no other program can step it, `fafnir journal \
         skip {seq}` passes it over"
    )]
    Breaks { seq: u64, what: String },
    /// The journal lacks what is known to have been in it.
    #[error(
        "the journal ends at record {journal}, {proof} reaches to {proven}: the journal has lost its end"
    )]
    Lost { journal: u64, proof: String, proven: u64 },
    /// Neither a snapshot nor the beginning of the journal is there.
    #[error("the journal begins at record {0} and no snapshot that can be used reaches that far")]
    NoBase(u64),
    /// The tail behind the last snapshot was written under other rules.
    #[error(
        "the journal's tail from record {seq} is of rules {rules}, this program has {RULES_VERSION}: start the former \
         program once and stop it"
    )]
    Version { seq: u64, rules: u32 },
    #[error("{path}: {what}")]
    Newer { path: String, what: Unusable },
    /// A newer program wrote in the journal.
    #[error(
        "{path}: the journal is of rules {rules} there, this program has {RULES_VERSION}: a newer program wrote it, start that"
    )]
    NewerJournal { path: String, rules: u32 },
    /// The same commands gave other facts than they did.
    #[error(
        "command {command} gives another fact at position {position} than the fact log has: two programs disagree, or one \
         of them is not deterministic"
    )]
    Differs { position: u64, command: u64 },
}

impl From<FlushError> for Error {
    fn from(e: FlushError) -> Self {
        match e {
            FlushError::NotWritten(e) | FlushError::Lost(e) => Self::Log(e),
        }
    }
}

/// The exchange as it was, and its logs ready to go on.
#[derive(Debug)]
pub struct Recovered {
    pub state: State,
    pub journal: SegLog,
    pub recorder: Recorder,
    pub published: Arc<Published>,
    /// Sequence of the snapshot that was the base; 0 = genesis.
    pub base: u64,
    /// Commands replayed behind it.
    pub replayed: u64,
    /// What was cut off the journal.
    pub cut: Option<Cut>,
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    |source| Error::Io { path, source }
}

/// The markets of a state.
pub fn names_of(state: &State) -> Names {
    let name =
        |m: &fafnir_clearing::market::Market| Name { symbol: m.symbol().clone(), currency: m.currency() };
    Names::new(state.markets().iter().map(name).collect())
}

/// Recovers the exchange in `dir`, or begins one.
pub fn recover(dir: &Path) -> Result<Recovered, Error> {
    fs::create_dir_all(dir).map_err(io_at(dir))?;
    refuse_newer(dir)?;
    let (mut journal, cut) = SegLog::open(JOURNAL, dir, 1)?;
    let last = journal.next_seq() - 1;
    snapshot::sweep(dir).map_err(io_at(dir))?;
    let snapshots = snapshot::list(dir).map_err(io_at(dir))?;
    if let Some(newest) = snapshots.first()
        && newest.seq > last
    {
        let proof = format!("snapshot {}", newest.path.display());
        return Err(Error::Lost { journal: last, proof, proven: newest.seq });
    }
    let (mut log, mut loaded) = open_facts(dir)?;
    if let Some(fact) = loaded.facts.last()
        && fact.command > last
    {
        let proof = "the fact log".to_owned();
        return Err(Error::Lost { journal: last, proof, proven: fact.command });
    }
    let base = choose_base(&snapshots, journal.first_seq(), log.next_seq() - 1)?;
    check_version(dir, base.state.seq(), last)?;
    if is_of_other_rules(&journal)? {
        journal.begin_segment()?;
    }
    if log.next_seq() <= base.state.position() {
        if log.next_seq() > 1 {
            tracing::error!(
                logged = log.next_seq() - 1,
                position = base.state.position(),
                "the fact log begins anew behind the snapshot: what it lacks is gone"
            );
        }
        log.restart(base.state.position() + 1)?;
        loaded = Loaded::default();
    }
    crash_point("recovery", "the base stands");
    replay(dir, base, journal, log, loaded, cut)
}

fn replay(
    dir: &Path,
    base: Taken,
    journal: SegLog,
    log: SegLog,
    loaded: Loaded,
    cut: Option<Cut>,
) -> Result<Recovered, Error> {
    let Taken { mut state, hash, .. } = base;
    let base = state.seq();
    let published = Arc::new(Published::new(dir));
    published.restore(Restored {
        position: log.next_seq() - 1,
        begins: loaded.begins,
        trade_nos: trade_nos(&state),
        snapshot: Snapshot { seq: base, hash },
        facts: loaded
            .facts
            .into_iter()
            .map(|fact| {
                let trade = trade_in(&fact);
                (fact, trade)
            })
            .collect(),
    });
    let mut compared = Compared::open(dir, state.position(), log.next_seq() - 1)?;
    let names = names_of(&state);
    let mut recorder = Recorder { log, names, published: Arc::clone(&published), began: false };
    let skipped = Skipped::load(dir)?;
    let (mut facts, mut fresh) = (Vec::new(), Vec::new());
    let mut replayed = 0;
    seglog::read_from::<Error>(JOURNAL, dir, base + 1, |frame| {
        let record = (frame.seq, frame.time_us, frame.payload);
        if skipped.step(&mut state, record, &mut facts)?.is_none() {
            tracing::warn!(record = frame.seq, "a record of the journal is passed over");
        }
        replayed += 1;
        crash_point("recovery", "a record replayed");
        for fact in facts.drain(..) {
            if fact.position <= compared.logged {
                compared.check(&mut recorder.names, frame.seq, &fact)?;
                if let (What::Executed(trade), Some((market, _))) = (&fact.what, fact.at) {
                    published.pass_trade(recorder.names.symbol(market), trade.trade_no);
                }
            } else {
                fresh.push((frame.seq, fact));
            }
        }
        if fresh.len() >= REPLAY_FACTS {
            recorder.record(&fresh)?;
            fresh.clear();
        }
        Ok(())
    })?;
    recorder.record(&fresh)?;
    crash_point("recovery", "everything replayed");
    let users = state.users().iter().filter(|u| u.touched > 0).map(|u| (u.id, u.touched)).collect();
    published.note_skipped(skipped.numbers());
    published.restore_users(users, names_of(&state), state.position());
    Ok(Recovered { state, journal, recorder, published, base, replayed, cut })
}

fn trade_nos(state: &State) -> std::collections::BTreeMap<String, u64> {
    state.markets().iter().map(|m| (m.symbol().to_string(), m.trade_no())).collect()
}

fn trade_in(stored: &Stored) -> Option<v1::Trade> {
    message::public_trade(&v1::Fact::decode(stored.payload.clone()).ok()?)
}

/// Facts that are logged already, against what the replay gives.
struct Compared {
    /// Last position in the log.
    logged: u64,
    walk: Walk,
}

impl Compared {
    fn open(dir: &Path, after: u64, logged: u64) -> Result<Self, Error> {
        Ok(Self { logged, walk: Walk::open(FACTS, dir, after + 1)? })
    }

    fn check(&mut self, names: &mut Names, command: u64, fact: &Fact) -> Result<(), Error> {
        let differs = Error::Differs { position: fact.position, command };
        names.learn(fact);
        let Some(frame) = self.walk.next_frame()? else { return Err(differs) };
        let Ok((logged_command, payload, _)) = log::read(frame.seq, frame.time_us, frame.payload) else {
            return Err(differs);
        };
        let is_same = frame.seq == fact.position
            && logged_command == command
            && payload == message::fact(names, fact).encode_to_vec();
        if is_same { Ok(()) } else { Err(differs) }
    }
}

/// Opens the fact log. A damaged one is begun anew, as far back as the snapshots and the journal reach.
fn open_facts(dir: &Path) -> Result<(SegLog, Loaded), Error> {
    let open = || {
        let (log, cut) = SegLog::open(FACTS, dir, 1)?;
        if let Some(cut) = cut {
            let (file, bytes) = (cut.path.display(), cut.bytes);
            tracing::info!(%file, bytes, why = %cut.bad, "a torn tail of the fact log was cut");
        }
        Ok::<_, seglog::Error>((log, published::load(dir)?))
    };
    match open() {
        Err(e @ (seglog::Error::Damaged { .. } | seglog::Error::Gap { .. })) => {
            tracing::error!(error = %e, "the fact log is damaged and is made again from the journal");
            for segment in seglog::segments(FACTS, dir)? {
                segment.remove()?;
            }
            Ok(open()?)
        }
        opened => Ok(opened?),
    }
}

/// The newest snapshot that is whole, lies within the journal and does not run ahead of the fact log; else genesis.
fn choose_base(snapshots: &[snapshot::Named], journal_first: u64, logged: u64) -> Result<Taken, Error> {
    let mut ahead = None;
    for named in snapshots {
        let file = named.path.display();
        let bytes = fs::read(&named.path).map_err(io_at(&named.path))?;
        match snapshot::decode(&bytes) {
            Ok(taken) if taken.state.seq() != named.seq || taken.state.seq() + 1 < journal_first => {
                tracing::error!(%file, "the snapshot does not fit the journal");
            }
            Ok(taken) if taken.state.position() <= logged => return Ok(taken),
            // The facts up to it are not logged: an older base gives more of them back.
            Ok(taken) => ahead = Some(taken),
            Err(what @ Unusable::Newer(_)) => {
                return Err(Error::Newer { path: file.to_string(), what });
            }
            Err(e) => tracing::error!(%file, error = %e, "the snapshot is damaged"),
        }
    }
    match ahead {
        _ if journal_first == 1 => Ok(Taken { state: State::new(), hash: [0; 32], rules: RULES_VERSION }),
        Some(taken) => Ok(taken),
        None => Err(Error::NoBase(journal_first)),
    }
}

/// Whether the segment that the journal would go on in is of other rules.
fn is_of_other_rules(journal: &SegLog) -> Result<bool, Error> {
    let Some(segment) = journal.segments().last() else { return Ok(false) };
    let (_, header) = seglog::read_head(JOURNAL, segment, crate::frames::HEADER_BYTES as u64)?;
    Ok(header.rules != RULES_VERSION)
}

/// A journal that a newer program went on with is left as it is.
fn refuse_newer(dir: &Path) -> Result<(), Error> {
    let Some(segment) = seglog::segments(JOURNAL, dir)?.pop() else { return Ok(()) };
    let (_, header) = seglog::read_head(JOURNAL, &segment, crate::frames::HEADER_BYTES as u64)?;
    if header.rules > RULES_VERSION {
        let path = segment.path.display().to_string();
        return Err(Error::NewerJournal { path, rules: header.rules });
    }
    Ok(())
}

/// A tail of another version is not replayed.
fn check_version(dir: &Path, base: u64, last: u64) -> Result<(), Error> {
    let all = seglog::segments(JOURNAL, dir)?;
    for (place, segment) in all.iter().enumerate() {
        let ends = all.get(place + 1).map_or(last, |next| next.first_seq - 1);
        if ends <= base || ends < segment.first_seq {
            continue;
        }
        let (_, header) = seglog::read_head(JOURNAL, segment, crate::frames::HEADER_BYTES as u64)?;
        if header.rules != RULES_VERSION {
            return Err(Error::Version { seq: segment.first_seq.max(base + 1), rules: header.rules });
        }
    }
    Ok(())
}
