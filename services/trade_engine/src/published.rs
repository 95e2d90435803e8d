//! What everybody may read away from the core's thread: where users stand, images of the books, recent trades and facts,
//! and, behind them, the fact log on disk.

use super::{
    followers::Followers,
    frames::Frames,
    hash::StateHash,
    log::{self, Begin, FACTS, Stored},
    message::{self, Names},
    seglog::{self, Segment},
};
use fafnir_clearing::fact::{Fact, What};
use fafnir_platform::bus::Round;
use fafnir_proto::v1;
use parking_lot::{Mutex, MutexGuard, RwLock};
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use uuid::Uuid;

/// Facts kept in memory, in bytes: the last second of a full load, which nobody should read from the disk.
const RECENT_BYTES_MAX: usize = if cfg!(test) { 64 * 1024 } else { 8 * 1024 * 1024 };
/// Facts are kept in memory so long. Who follows is behind by less than a second; who was away reads the disk.
const RECENT_AGE_MAX: Duration = Duration::from_mins(2);
/// What a fact in memory takes beside its bytes.
const RECENT_OVERHEAD: usize = 112;
/// Trades per symbol kept in memory.
const TRADES_MAX: usize = 1_000;
/// Segments of the fact log that name the same snapshot before the next one names a newer: those that are named are kept.
const SNAPSHOT_SEGMENTS: usize = if cfg!(test) { 2 } else { 32 };
/// Segments of the fact log that are read at start to have recent trades.
const SEGMENTS_READ: usize = 2;
/// The first frame of a segment is mostly within the one, and always within the other.
const BEGIN_BYTES: u64 = 16 * 1024;
const BEGIN_BYTES_MAX: u64 = 1024 * 1024;
/// Segments that are not packed: the one that is written.
const PLAIN_SEGMENTS: usize = 1;

/// The last snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub seq: u64,
    pub hash: StateHash,
}

#[derive(Debug, Default)]
struct Inner {
    trades: BTreeMap<String, VecDeque<v1::Trade>>,
    /// Last trade of each symbol.
    trade_nos: BTreeMap<String, u64>,
    /// The newest facts and when they came.
    recent: VecDeque<(Instant, Arc<Stored>)>,
    recent_bytes: usize,
    begins: Vec<Begin>,
    snapshot: Snapshot,
}

/// Shared between the core's thread and the recorder, which write, and everybody else.
#[derive(Debug)]
pub struct Published {
    dir: PathBuf,
    inner: Mutex<Inner>,
    images: RwLock<BTreeMap<String, v1::BookImage>>,
    names: RwLock<Names>,
    /// User → position of the last fact that touched it; set before the command is answered.
    users: RwLock<HashMap<Uuid, u64>>,
    /// Last command that is durable, and its crc.
    journaled: Mutex<(u64, u32)>,
    exchange: OnceLock<Uuid>,
    /// Last position that was stepped.
    stepped: AtomicU64,
    /// Last position in the fact log.
    recorded: watch::Sender<u64>,
    /// Records of the journal that are passed over.
    skipped: RwLock<Vec<u64>>,
    /// Who packs or removes segments of the fact log has it.
    tidying: Mutex<()>,
    /// Who follows, and how far it is.
    pub followers: Followers,
}

/// A page of facts.
#[derive(Debug, Default)]
pub struct Page {
    pub facts: Vec<Arc<Stored>>,
    pub last: u64,
    pub oldest: u64,
}

impl Published {
    /// Nothing yet; the fact log lies in `dir`.
    pub fn new(dir: &Path) -> Self {
        Self {
            followers: Followers::load(dir),
            dir: dir.to_owned(),
            inner: Mutex::default(),
            images: RwLock::default(),
            names: RwLock::default(),
            skipped: RwLock::default(),
            tidying: Mutex::default(),
            users: RwLock::default(),
            journaled: Mutex::default(),
            exchange: OnceLock::new(),
            stepped: AtomicU64::new(0),
            recorded: watch::Sender::new(0),
        }
    }

    /// Tells of each new last position in the fact log.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.recorded.subscribe()
    }

    /// The last command that is durable, and its crc.
    pub fn journaled(&self) -> (u64, u32) {
        *self.journaled.lock()
    }

    /// Notes the last command that is durable.
    pub fn note_journaled(&self, last: (u64, u32)) {
        *self.journaled.lock() = last;
    }

    /// The exchange's id; nil where it has no data directory.
    pub fn exchange(&self) -> Uuid {
        self.exchange.get().copied().unwrap_or_default()
    }

    /// Sets the exchange's id, once.
    pub fn set_exchange(&self, id: Uuid) {
        let _set = self.exchange.set(id);
    }

    /// The last position that was stepped.
    pub fn stepped(&self) -> u64 {
        self.stepped.load(Ordering::Acquire)
    }

    /// The last position in the fact log.
    pub fn recorded(&self) -> u64 {
        *self.recorded.borrow()
    }

    /// The markets.
    pub fn names(&self) -> Names {
        self.names.read().clone()
    }

    /// Reads with the markets at hand.
    pub fn with_names<T>(&self, read: impl FnOnce(&Names) -> T) -> T {
        read(&self.names.read())
    }

    /// Position of the last fact that touched a user; 0 where none did.
    pub fn position_of(&self, user: Uuid) -> u64 {
        self.users.read().get(&user).copied().unwrap_or(0)
    }

    /// Notes what a step did before its answers leave.
    pub fn note_stepped<'a>(&self, facts: impl Iterator<Item = &'a Fact>, position: u64) {
        let mut users = self.users.write();
        for fact in facts {
            touched_by(fact, |user| {
                if !user.is_nil() {
                    users.insert(user, fact.position);
                }
            });
            if matches!(fact.what, What::InstrumentSet(_)) {
                self.names.write().learn(fact);
            }
        }
        drop(users);
        self.stepped.store(position, Ordering::Release);
    }

    /// Takes what recovery found.
    pub fn restore(&self, found: Restored) {
        let mut inner = self.inner.lock();
        inner.begins = found.begins;
        inner.trade_nos = found.trade_nos;
        inner.snapshot = found.snapshot;
        let now = Instant::now();
        for (stored, trade) in found.facts {
            inner.add(now, stored, trade);
        }
        drop(inner);
        self.recorded.send_replace(found.position);
    }

    /// Notes which records of the journal are passed over.
    pub fn note_skipped(&self, skipped: Vec<u64>) {
        *self.skipped.write() = skipped;
    }

    /// The records of the journal that are passed over.
    pub fn skipped(&self) -> Vec<u64> {
        self.skipped.read().clone()
    }

    /// Passes a trade that is in the log already.
    pub fn pass_trade(&self, symbol: &str, trade_no: u64) {
        let mut inner = self.inner.lock();
        let last = inner.trade_nos.entry(symbol.to_owned()).or_default();
        *last = trade_no.max(*last);
    }

    /// Takes what the recovered state knows.
    pub fn restore_users(&self, users: HashMap<Uuid, u64>, names: Names, position: u64) {
        *self.users.write() = users;
        *self.names.write() = names;
        self.stepped.store(position, Ordering::Release);
    }

    /// Where a segment of the fact log begins that comes next.
    pub fn begin(&self, position: u64, time_us: i64) -> Begin {
        let inner = self.inner.lock();
        let named = inner.begins.last().map(|b| b.snapshot);
        let is_spent = |named: u64| {
            inner.begins.iter().rev().take_while(|b| b.snapshot == named).count() >= SNAPSHOT_SEGMENTS
        };
        let snapshot = named.filter(|named| !is_spent(*named)).unwrap_or(inner.snapshot.seq);
        Begin { position, time_us, snapshot, trades: inner.trade_nos.clone() }
    }

    /// Takes where a segment began that is written; the snapshot that it names is kept from here on.
    pub fn note_begin(&self, begin: Begin) {
        self.inner.lock().begins.push(begin);
    }

    /// Puts new facts in, in order.
    pub fn add(&self, facts: impl Iterator<Item = (Stored, Option<v1::Trade>)>) {
        let mut inner = self.inner.lock();
        let (mut last, now) = (0, Instant::now());
        for (stored, trade) in facts {
            last = stored.position;
            inner.add(now, stored, trade);
        }
        drop(inner);
        if last > 0 {
            self.recorded.send_replace(last);
        }
    }

    /// The last snapshot.
    pub fn snapshot(&self) -> Snapshot {
        self.inner.lock().snapshot
    }

    /// Notes the last snapshot. Answers those that segments of the fact log name.
    pub fn note_snapshot(&self, snapshot: Snapshot) -> BTreeSet<u64> {
        let mut inner = self.inner.lock();
        inner.snapshot = snapshot;
        inner.begins.iter().map(|b| b.snapshot).collect()
    }

    /// Where the segments of the fact log begin.
    pub fn begins(&self) -> Vec<Begin> {
        self.inner.lock().begins.clone()
    }

    /// Forgets segments that were dropped.
    pub fn forget_before(&self, position: u64) {
        self.inner.lock().begins.retain(|b| b.position >= position);
    }

    /// Replaces the image of a book.
    pub fn put_image(&self, image: v1::BookImage) {
        self.images.write().insert(image.symbol.clone(), image);
    }

    /// The next part of all published images.
    pub fn images_again(&self, round: &mut Round) -> Vec<v1::BookImage> {
        round.part(&self.images.read()).into_iter().cloned().collect()
    }

    /// The published image with at most `depth` levels; 0 = all.
    pub fn image(&self, symbol: &str, depth: usize) -> Option<v1::BookImage> {
        let mut image = self.images.read().get(symbol).cloned()?;
        if depth > 0 {
            image.bids.truncate(depth);
            image.asks.truncate(depth);
        }
        Some(image)
    }

    /// Facts after a position that are in memory, in order; `None` when memory does not reach back. At most `limit` of
    /// them and `bytes_max`, at least one where one is there.
    pub fn recent_after(&self, after: u64, limit: usize, bytes_max: usize) -> Option<Vec<Arc<Stored>>> {
        let inner = self.inner.lock();
        let last = inner.recent.back().map_or(0, |(_, f)| f.position);
        if after >= last.max(self.recorded()) {
            return Some(Vec::new());
        }
        let first = inner.recent.front()?.1.position;
        let skip = usize::try_from((after + 1).checked_sub(first)?).ok()?;
        let mut page = Collected::new(limit, bytes_max);
        for (_, fact) in inner.recent.iter().skip(skip) {
            if !page.push(fact) {
                break;
            }
        }
        Some(page.list)
    }

    /// The first position in memory.
    pub fn recent_first(&self) -> Option<u64> {
        self.inner.lock().recent.front().map(|(_, f)| f.position)
    }

    /// Facts after a position. Reads the disk when memory does not reach back.
    pub fn facts_after(&self, after: u64, limit: usize, bytes_max: usize) -> Result<Page, seglog::Error> {
        let (last, oldest) = (self.recorded(), self.oldest());
        if let Some(facts) = self.recent_after(after, limit, bytes_max) {
            return Ok(Page { facts, last, oldest });
        }
        let mut page = Collected::new(limit, bytes_max);
        // What is gone is not passed over silently: the asker sees where the first one is.
        let from = (after + 1).max(oldest);
        self.scan(from, |fact| fact.position < from || page.push(&Arc::new(fact)))?;
        Ok(Page { facts: page.list, last, oldest })
    }

    /// Packs a segment of the fact log that is full. Answers its bytes before and after, where there was one.
    pub fn pack(&self) -> Result<Option<(u64, u64)>, seglog::Error> {
        let _alone = self.tidying.lock();
        seglog::pack_next(FACTS, &self.dir, PLAIN_SEGMENTS)
    }

    /// Leave to remove segments of the fact log; nothing while one is being packed.
    pub fn may_remove(&self) -> Option<MutexGuard<'_, ()>> {
        self.tidying.try_lock()
    }

    /// The first position that is kept; the next one where none is.
    pub fn oldest(&self) -> u64 {
        self.inner.lock().begins.first().map_or_else(|| self.recorded() + 1, |b| b.position)
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
            let inner = self.inner.lock();
            let empty = VecDeque::new();
            let ring = inner.trades.get(symbol).unwrap_or(&empty);
            if latest {
                return Ok(ring.iter().skip(ring.len().saturating_sub(limit)).cloned().collect());
            }
            if after >= inner.trade_nos.get(symbol).copied().unwrap_or(0) {
                return Ok(Vec::new());
            }
            if ring.front().is_some_and(|t| t.trade_no <= after + 1) {
                return Ok(ring.iter().filter(|t| t.trade_no > after).take(limit).cloned().collect());
            }
            let is_before = |b: &&Begin| b.trades.get(symbol).is_none_or(|no| *no <= after);
            inner.begins.iter().rev().find(is_before).or(inner.begins.first()).map_or(1, |b| b.position)
        };
        let mut found = Vec::new();
        self.scan(from, |fact| {
            if let Ok(fact) = v1::Fact::decode(fact.payload)
                && fact.symbol == symbol
            {
                found.extend(message::public_trade(&fact).filter(|t| t.trade_no > after));
            }
            found.len() < limit
        })?;
        Ok(found)
    }

    /// Walks the fact log from the segment that holds `from` while `each` answers true. The writer may be appending: an
    /// unfinished last frame ends the walk, and a segment that was just dropped is passed over.
    fn scan(&self, from: u64, mut each: impl FnMut(Stored) -> bool) -> Result<(), seglog::Error> {
        let last = self.recorded();
        let all = seglog::segments(FACTS, &self.dir)?;
        let skip = all.partition_point(|s| s.first_seq <= from).saturating_sub(1);
        for segment in &all[skip..] {
            let (bytes, header) = match seglog::read_segment(FACTS, segment) {
                Ok(read) => read,
                Err(seglog::Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                    continue;
                }
                Err(e) => return Err(e),
            };
            for frame in Frames::new(&bytes, header) {
                let Ok(frame) = frame else { break };
                if frame.seq > last {
                    return Ok(());
                }
                if frame.seq < from {
                    continue;
                }
                let (command, payload, _) = log::read(frame.seq, frame.time_us, frame.payload)
                    .map_err(|e| log::damaged(segment, &frame, e))?;
                let payload = payload.to_vec().into();
                if !each(Stored { position: frame.seq, command, payload, trace: None }) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Whom a fact touches.
fn touched_by(fact: &Fact, mut each: impl FnMut(Uuid)) {
    each(fact.user);
    match &fact.what {
        What::Order(order) => {
            each(order.order.user);
            order.other.iter().for_each(|o| each(o.user));
            order.touched.iter().flatten().for_each(|t| each(t.user));
        }
        What::Executed(trade) => {
            each(trade.taker.user);
            each(trade.maker.user);
        }
        What::Money(money) => money.touched.iter().flatten().for_each(|t| each(t.user)),
        What::AccountOpened(touched) | What::AccountClosed(touched) => each(touched.user),
        What::UserClosed | What::StateChanged { .. } | What::InstrumentSet(_) | What::TermsSet(_) => {}
    }
}

/// What recovery found.
#[derive(Debug, Default)]
pub struct Restored {
    /// Last position in the fact log.
    pub position: u64,
    pub begins: Vec<Begin>,
    pub trade_nos: BTreeMap<String, u64>,
    pub snapshot: Snapshot,
    /// The newest facts with their trades.
    pub facts: Vec<(Stored, Option<v1::Trade>)>,
}

impl Inner {
    fn add(&mut self, now: Instant, fact: Stored, trade: Option<v1::Trade>) {
        if let Some(trade) = trade {
            self.trade_nos.insert(trade.symbol.clone(), trade.trade_no);
            let ring = self.trades.entry(trade.symbol.clone()).or_default();
            if ring.len() == TRADES_MAX {
                ring.pop_front();
            }
            ring.push_back(trade);
        }
        self.recent_bytes += fact.payload.len() + RECENT_OVERHEAD;
        self.recent.push_back((now, Arc::new(fact)));
        let is_spent = |came: Instant| now.duration_since(came) > RECENT_AGE_MAX;
        while (self.recent_bytes > RECENT_BYTES_MAX
            || self.recent.front().is_some_and(|(came, _)| is_spent(*came)))
            && let Some((_, old)) = self.recent.pop_front()
        {
            self.recent_bytes -= old.payload.len() + RECENT_OVERHEAD;
        }
    }
}

struct Collected {
    list: Vec<Arc<Stored>>,
    bytes: usize,
    limit: usize,
    bytes_max: usize,
}

impl Collected {
    fn new(limit: usize, bytes_max: usize) -> Self {
        Self { list: Vec::new(), bytes: 0, limit, bytes_max }
    }

    /// Takes a fact; false when it did not fit.
    fn push(&mut self, fact: &Arc<Stored>) -> bool {
        let fits = self.list.len() < self.limit && self.bytes + fact.payload.len() <= self.bytes_max;
        if !fits && !self.list.is_empty() {
            return false;
        }
        self.bytes += fact.payload.len();
        self.list.push(Arc::clone(fact));
        true
    }
}

/// The fact log as it was found: where its segments begin, and the facts of its last ones.
#[derive(Debug, Default)]
pub struct Loaded {
    pub begins: Vec<Begin>,
    pub facts: Vec<Stored>,
}

/// Reads what of the fact log is wanted at start.
pub fn load(dir: &Path) -> Result<Loaded, seglog::Error> {
    let all = seglog::segments(FACTS, dir)?;
    let mut loaded = Loaded::default();
    for (number, segment) in all.iter().enumerate() {
        if number + SEGMENTS_READ < all.len() {
            loaded.begins.extend(begin_of(segment)?);
            continue;
        }
        let (bytes, header) = seglog::read_segment(FACTS, segment)?;
        for frame in Frames::new(&bytes, header) {
            let frame = frame.map_err(|bad| seglog::Error::Damaged { path: segment.path.clone(), bad })?;
            let (command, payload, begin) = log::read(frame.seq, frame.time_us, frame.payload)
                .map_err(|e| log::damaged(segment, &frame, e))?;
            loaded.begins.extend(begin);
            let payload = payload.to_vec().into();
            loaded.facts.push(Stored { position: frame.seq, command, payload, trace: None });
        }
    }
    Ok(loaded)
}

fn begin_of(segment: &Segment) -> Result<Option<Begin>, seglog::Error> {
    for bytes_max in [BEGIN_BYTES, BEGIN_BYTES_MAX] {
        let (bytes, header) = seglog::read_head(FACTS, segment, bytes_max)?;
        let frame = match Frames::new(&bytes, header).next() {
            None => return Ok(None),
            Some(Err(_)) if bytes_max < BEGIN_BYTES_MAX && bytes.len() as u64 == bytes_max => continue,
            Some(frame) => frame.map_err(|bad| seglog::Error::Damaged { path: segment.path.clone(), bad })?,
        };
        let (_, _, begin) = log::read(frame.seq, frame.time_us, frame.payload)
            .map_err(|e| log::damaged(segment, &frame, e))?;
        return Ok(begin);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_leave_memory_when_they_are_old_and_newer_ones_come() {
        let mut inner = Inner::default();
        let began = Instant::now();
        let mut add = |after: Duration, position: u64| {
            let fact = Stored { position, command: position, payload: Vec::new().into(), trace: None };
            inner.add(began + after, fact, None);
            (inner.recent.iter().map(|(_, f)| f.position).collect::<Vec<_>>(), inner.recent_bytes)
        };
        assert_eq!(add(Duration::ZERO, 1), (vec![1], RECENT_OVERHEAD));
        assert_eq!(add(RECENT_AGE_MAX, 2), (vec![1, 2], 2 * RECENT_OVERHEAD));
        assert_eq!(add(RECENT_AGE_MAX + Duration::from_millis(1), 3), (vec![2, 3], 2 * RECENT_OVERHEAD));
    }
}
