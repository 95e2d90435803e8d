//! What the engine has published and answers questions from, away from the matching thread: images of the books, recent
//! trades, recent facts and, behind them, the outcome log on disk.

use super::{
    record::{Malformed, Reader, put_i64, put_text, put_u64},
    seglog::{self, Segment, Spec},
    wire,
};
use bytes::Bytes;
use fafnir_proto::v1;
use parking_lot::{Mutex, MutexGuard};
use prost::Message as _;
use std::{
    collections::{BTreeMap, VecDeque},
    path::PathBuf,
    sync::Arc,
};
use tokio::sync::watch;

/// The outcome log: every fact, numbered. It can be made again from the journal.
pub const OUTCOMES: Spec =
    Spec { name: "outcomes", magic: *b"FAFOUTC1", rules: 0, segment_bytes: 2 * 1024 * 1024 };
/// Facts kept in memory, in bytes.
const RECENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Trades per symbol kept in memory.
const TRADES_MAX: usize = 1_000;
/// Segments of the outcome log that are kept however far the followers are: the tape's memory.
pub const OUTCOME_SEGMENTS_MIN: usize = 16;
/// Segments of the outcome log that are read at start to have recent trades.
const OUTCOME_SEGMENTS_READ: usize = 2;
/// The first frame of a segment is within this.
const BEGIN_BYTES_MAX: u64 = 1024 * 1024;
/// Who must be past a fact before it may go.
pub const FOLLOWERS: [&str; 3] = ["order-service", "portfolio-service", "stock-service"];

/// A fact as it is stored and published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    pub fact_no: u64,
    /// Sequence of its record in the journal.
    pub journal_seq: u64,
    pub symbol: String,
    pub first_seq: u64,
    pub last_seq: u64,
    /// An encoded `ExecutionBatch`.
    pub payload: Bytes,
}

/// How far a symbol was.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    pub exec_seq: u64,
    pub trade_no: u64,
}

/// Where a segment of the outcome log begins.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Begin {
    pub first_fact_no: u64,
    /// Last record before it.
    pub journal_seq: u64,
    /// Positions before it.
    pub positions: BTreeMap<String, Position>,
}

/// Encodes a fact for the outcome log; the first of a segment carries where the segment begins.
pub fn encode(fact: &Stored, begin: Option<&Begin>) -> Vec<u8> {
    let mut out = Vec::with_capacity(fact.payload.len() + 64);
    match begin {
        None => out.push(0),
        Some(begin) => {
            out.push(1);
            put_u64(&mut out, begin.journal_seq);
            put_u64(&mut out, begin.positions.len() as u64);
            for (symbol, at) in &begin.positions {
                put_text(&mut out, symbol);
                put_u64(&mut out, at.exec_seq);
                put_u64(&mut out, at.trade_no);
            }
        }
    }
    put_u64(&mut out, fact.journal_seq);
    put_text(&mut out, &fact.symbol);
    put_u64(&mut out, fact.first_seq);
    put_i64(&mut out, (fact.last_seq - fact.first_seq).cast_signed());
    out.extend_from_slice(&fact.payload);
    out
}

/// Reads what [`encode`] wrote.
pub fn decode(fact_no: u64, bytes: &[u8]) -> Result<(Stored, Option<Begin>), Malformed> {
    let mut r = Reader::new(bytes);
    let begin = if r.bool()? {
        let mut begin = Begin { first_fact_no: fact_no, journal_seq: r.u64()?, positions: BTreeMap::new() };
        for _ in 0..r.u64()? {
            let symbol = r.text()?.to_owned();
            begin.positions.insert(symbol, Position { exec_seq: r.u64()?, trade_no: r.u64()? });
        }
        Some(begin)
    } else {
        None
    };
    let journal_seq = r.u64()?;
    let symbol = r.text()?.to_owned();
    let first_seq = r.u64()?;
    let more = u64::try_from(r.i64()?).map_err(|_| Malformed("a fact ends before it begins"))?;
    let last_seq = first_seq.checked_add(more).ok_or(Malformed("a sequence is out of range"))?;
    let payload = Bytes::copy_from_slice(r.rest());
    Ok((Stored { fact_no, journal_seq, symbol, first_seq, last_seq, payload }, begin))
}

#[derive(Debug, Default)]
struct Inner {
    images: BTreeMap<String, v1::BookImage>,
    trades: BTreeMap<String, VecDeque<v1::Trade>>,
    recent: VecDeque<Arc<Stored>>,
    recent_bytes: usize,
    /// Where each symbol is now.
    positions: BTreeMap<String, Position>,
    begins: Vec<Begin>,
    /// Follower → symbol → last sequence that it has applied.
    followers: BTreeMap<String, BTreeMap<String, u64>>,
    /// Facts up to this one are with the broker.
    relayed: u64,
}

/// Shared between the matching thread, which writes, and everybody else.
#[derive(Debug)]
pub struct Published {
    dir: PathBuf,
    inner: Mutex<Inner>,
    last_fact: watch::Sender<u64>,
}

/// Facts that a segment must contain for a question.
struct Wanted {
    /// Symbol → last sequence that the asker has.
    after: BTreeMap<String, u64>,
}

impl Published {
    /// Nothing yet; the outcome log lies in `dir`.
    pub fn new(dir: PathBuf) -> Self {
        Self { dir, inner: Mutex::default(), last_fact: watch::Sender::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// Tells of each new fact's number.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.last_fact.subscribe()
    }

    /// Puts new facts in, in order; `begins` are the segments that they began.
    pub fn add(&self, facts: Vec<(Stored, v1::ExecutionBatch)>, begins: Vec<Begin>) {
        let Some(last) = facts.last().map(|f| f.0.fact_no) else { return };
        let mut inner = self.lock();
        inner.begins.extend(begins);
        for (fact, batch) in facts {
            inner.add(fact, &batch);
        }
        drop(inner);
        self.last_fact.send_replace(last);
    }

    /// Takes what recovery found: where the symbols are, where the segments begin, the newest facts.
    pub fn restore(
        &self,
        positions: BTreeMap<String, Position>,
        begins: Vec<Begin>,
        facts: Vec<Stored>,
        last_fact_no: u64,
    ) -> Result<(), Malformed> {
        let mut inner = self.lock();
        inner.begins = begins;
        for fact in facts {
            let batch = v1::ExecutionBatch::decode(fact.payload.clone())
                .map_err(|_| Malformed("a fact is no ExecutionBatch"))?;
            inner.add(fact, &batch);
        }
        inner.positions = positions;
        drop(inner);
        self.last_fact.send_replace(last_fact_no);
        Ok(())
    }

    /// Replaces the image of a book.
    pub fn put_image(&self, image: v1::BookImage) {
        self.lock().images.insert(image.symbol.clone(), image);
    }

    /// The published image with at most `depth` levels; 0 = all.
    pub fn image(&self, symbol: &str, depth: usize) -> Option<v1::BookImage> {
        let mut image = self.lock().images.get(symbol).cloned()?;
        if depth > 0 {
            image.bids.truncate(depth);
            image.asks.truncate(depth);
        }
        Some(image)
    }

    /// Every published image.
    pub fn images(&self) -> Vec<v1::BookImage> {
        self.lock().images.values().cloned().collect()
    }

    /// Notes where a follower says that it is.
    pub fn note_follower(&self, name: &str, positions: &[v1::SymbolPosition]) {
        if !FOLLOWERS.contains(&name) {
            return;
        }
        let mut inner = self.lock();
        let follower = inner.followers.entry(name.to_owned()).or_default();
        for at in positions {
            follower.insert(at.symbol.clone(), at.seq);
        }
    }

    /// Notes that facts up to this one are with the broker.
    pub fn note_relayed(&self, fact_no: u64) {
        self.lock().relayed = fact_no;
    }

    /// The newest segment all of whose predecessors are relayed and applied by every follower: what comes before it may
    /// go. `None` while a follower has not told where it is.
    pub fn droppable(&self) -> Option<Begin> {
        let inner = self.lock();
        let followers: Option<Vec<_>> = FOLLOWERS.iter().map(|f| inner.followers.get(*f)).collect();
        let followers = followers?;
        let is_past = |begin: &Begin| {
            begin.first_fact_no <= inner.relayed + 1
                && begin.positions.iter().all(|(symbol, at)| {
                    followers.iter().all(|f| f.get(symbol).copied().unwrap_or(0) >= at.exec_seq)
                })
        };
        inner.begins.iter().rev().find(|b| is_past(b)).cloned()
    }

    /// The segment before which the outcome log may be dropped, given what is droppable.
    pub fn outcomes_kept_from(&self, droppable: &Begin) -> u64 {
        let inner = self.lock();
        let kept = inner.begins.len().saturating_sub(OUTCOME_SEGMENTS_MIN);
        inner.begins.get(kept).map_or(0, |b| b.first_fact_no).min(droppable.first_fact_no)
    }

    /// Forgets segments that were dropped.
    pub fn forget_before(&self, fact_no: u64) {
        self.lock().begins.retain(|b| b.first_fact_no >= fact_no);
    }

    /// The oldest fact that is kept.
    pub fn oldest_fact_no(&self) -> u64 {
        self.lock().begins.first().map_or(1, |b| b.first_fact_no)
    }

    /// Facts after a number, in order, at most `limit`. Reads the disk when memory does not reach back.
    pub fn facts_after(&self, fact_no: u64, limit: usize) -> Result<Vec<Arc<Stored>>, seglog::Error> {
        {
            let inner = self.lock();
            let last = *self.last_fact.borrow();
            if fact_no >= last {
                return Ok(Vec::new());
            }
            if let Some(first) = inner.recent.front().map(|f| f.fact_no)
                && first <= fact_no + 1
            {
                let skip = (fact_no + 1 - first) as usize;
                return Ok(inner.recent.iter().skip(skip).take(limit).cloned().collect());
            }
        }
        let mut found = Vec::new();
        self.scan(fact_no + 1, |fact| {
            if fact.fact_no > fact_no {
                found.push(Arc::new(fact));
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    /// Execution facts after the positions, oldest first; symbols that are not named from the start. At most `limit`
    /// facts and `bytes_max` bytes, at least one; `true` when more are there.
    pub fn executions(
        &self,
        positions: &[v1::SymbolPosition],
        limit: usize,
        bytes_max: usize,
    ) -> Result<(Vec<Arc<Stored>>, bool), seglog::Error> {
        let named: BTreeMap<&str, u64> = positions.iter().map(|p| (p.symbol.as_str(), p.seq)).collect();
        let mut wanted = Wanted { after: BTreeMap::new() };
        let mut collected = Collected { list: Vec::new(), bytes: 0, limit, bytes_max, more: false };
        let from = {
            let inner = self.lock();
            for (symbol, at) in &inner.positions {
                let after = named.get(symbol.as_str()).copied().unwrap_or(0);
                if after < at.exec_seq {
                    wanted.after.insert(symbol.clone(), after);
                }
            }
            if wanted.after.is_empty() {
                return Ok((Vec::new(), false));
            }
            if inner.recent_covers(&wanted) {
                for fact in inner.recent.iter().filter(|f| wanted.has(f)) {
                    if !collected.push(fact) {
                        break;
                    }
                }
                return Ok((collected.list, collected.more));
            }
            let is_before = |begin: &&Begin| {
                wanted
                    .after
                    .iter()
                    .all(|(symbol, after)| begin.positions.get(symbol).is_none_or(|at| at.exec_seq <= *after))
            };
            inner.begins.iter().rev().find(is_before).or(inner.begins.first()).map_or(1, |b| b.first_fact_no)
        };
        self.scan(from, |fact| !wanted.has(&fact) || collected.push(&Arc::new(fact)))?;
        Ok((collected.list, collected.more))
    }

    /// Trades of a symbol after a number, oldest first, or the `latest`.
    pub fn trades(
        &self,
        symbol: &str,
        after: u64,
        limit: usize,
        latest: bool,
    ) -> Result<Vec<v1::Trade>, seglog::Error> {
        let from = {
            let inner = self.lock();
            let empty = VecDeque::new();
            let ring = inner.trades.get(symbol).unwrap_or(&empty);
            if latest {
                return Ok(ring.iter().skip(ring.len().saturating_sub(limit)).cloned().collect());
            }
            let last = inner.positions.get(symbol).map_or(0, |p| p.trade_no);
            if after >= last {
                return Ok(Vec::new());
            }
            if ring.front().is_some_and(|t| t.trade_no <= after + 1) {
                return Ok(ring.iter().filter(|t| t.trade_no > after).take(limit).cloned().collect());
            }
            let is_before = |b: &&Begin| b.positions.get(symbol).is_none_or(|at| at.trade_no <= after);
            inner.begins.iter().rev().find(is_before).or(inner.begins.first()).map_or(1, |b| b.first_fact_no)
        };
        let mut found = Vec::new();
        self.scan(from, |fact| {
            if fact.symbol == symbol
                && let Ok(batch) = v1::ExecutionBatch::decode(fact.payload)
            {
                found.extend(wire::trades(&batch).filter(|t| t.trade_no > after));
            }
            found.len() < limit
        })?;
        found.truncate(limit);
        Ok(found)
    }

    /// Walks the outcome log from the segment that holds `from` while `each` answers true. The writer may be appending:
    /// an unfinished last frame ends the walk, and a segment that was just dropped is passed over.
    fn scan(&self, from: u64, mut each: impl FnMut(Stored) -> bool) -> Result<(), seglog::Error> {
        let last = *self.last_fact.borrow();
        let all = seglog::segments(OUTCOMES, &self.dir)?;
        let skip = all.partition_point(|s| s.first_seq <= from).saturating_sub(1);
        for segment in &all[skip..] {
            let (bytes, header) = match seglog::read_segment(OUTCOMES, segment) {
                Ok(read) => read,
                Err(seglog::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                Err(e) => return Err(e),
            };
            for frame in super::frames::Frames::new(&bytes, header) {
                let Ok(frame) = frame else { break };
                if frame.seq > last {
                    return Ok(());
                }
                if let Ok((fact, _)) = decode(frame.seq, frame.payload)
                    && !each(fact)
                {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

impl Inner {
    fn add(&mut self, fact: Stored, batch: &v1::ExecutionBatch) {
        let at = self.positions.entry(fact.symbol.clone()).or_default();
        at.exec_seq = fact.last_seq;
        let mut trades = wire::trades(batch).peekable();
        if trades.peek().is_some() {
            let ring = self.trades.entry(fact.symbol.clone()).or_default();
            for trade in trades {
                at.trade_no = trade.trade_no;
                if ring.len() == TRADES_MAX {
                    ring.pop_front();
                }
                ring.push_back(trade);
            }
        }
        self.recent_bytes += fact.payload.len();
        self.recent.push_back(Arc::new(fact));
        while self.recent_bytes > RECENT_BYTES_MAX
            && let Some(old) = self.recent.pop_front()
        {
            self.recent_bytes -= old.payload.len();
        }
    }

    /// Whether every fact that is wanted is in memory.
    fn recent_covers(&self, wanted: &Wanted) -> bool {
        let mut first: BTreeMap<&str, u64> = BTreeMap::new();
        for fact in &self.recent {
            first.entry(&fact.symbol).or_insert(fact.first_seq);
        }
        wanted.after.iter().all(|(symbol, after)| first.get(symbol.as_str()).is_some_and(|f| *f <= after + 1))
    }
}

impl Wanted {
    fn has(&self, fact: &Stored) -> bool {
        self.after.get(&fact.symbol).is_some_and(|after| fact.last_seq > *after)
    }
}

struct Collected {
    list: Vec<Arc<Stored>>,
    bytes: usize,
    limit: usize,
    bytes_max: usize,
    more: bool,
}

impl Collected {
    /// Takes a fact; false when it did not fit.
    fn push(&mut self, fact: &Arc<Stored>) -> bool {
        let fits = self.list.len() < self.limit && self.bytes + fact.payload.len() <= self.bytes_max;
        if !fits && !self.list.is_empty() {
            self.more = true;
            return false;
        }
        self.bytes += fact.payload.len();
        self.list.push(Arc::clone(fact));
        true
    }
}

/// Where the segments of an outcome log begin, and the facts of its last ones.
pub fn load(dir: &std::path::Path) -> Result<(Vec<Begin>, Vec<Stored>), seglog::Error> {
    let all = seglog::segments(OUTCOMES, dir)?;
    let mut begins = Vec::new();
    let mut facts = Vec::new();
    for (number, segment) in all.iter().enumerate() {
        if number + OUTCOME_SEGMENTS_READ < all.len() {
            begins.extend(begin_of(segment)?);
            continue;
        }
        let (bytes, header) = seglog::read_segment(OUTCOMES, segment)?;
        for frame in super::frames::Frames::new(&bytes, header) {
            let frame = frame.map_err(|bad| seglog::Error::Damaged { path: segment.path.clone(), bad })?;
            let (fact, begin) = decode(frame.seq, frame.payload).map_err(|e| damaged(segment, &frame, e))?;
            begins.extend(begin);
            facts.push(fact);
        }
    }
    Ok((begins, facts))
}

fn damaged(segment: &Segment, frame: &super::frames::Frame<'_>, e: Malformed) -> seglog::Error {
    let bad = super::frames::Bad { offset: frame.offset, seq: frame.seq, what: e.0 };
    seglog::Error::Damaged { path: segment.path.clone(), bad }
}

fn begin_of(segment: &Segment) -> Result<Option<Begin>, seglog::Error> {
    let (bytes, header) = seglog::read_head(OUTCOMES, segment, BEGIN_BYTES_MAX)?;
    let Some(frame) = super::frames::Frames::new(&bytes, header).next() else { return Ok(None) };
    let frame = frame.map_err(|bad| seglog::Error::Damaged { path: segment.path.clone(), bad })?;
    let (_, begin) = decode(frame.seq, frame.payload).map_err(|e| damaged(segment, &frame, e))?;
    Ok(begin)
}
