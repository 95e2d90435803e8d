//! The places at a door: how many connections in all and from one address, and which one goes when there are too many.
//!
//! A newcomer is never turned away for the sake of a connection on which nothing happens: the one that was idle for
//! longest makes room, first one that never asked for anything, of the newcomer's own address where that has too many,
//! else of the address that has most; where none is idle, one for which nothing is done, because it is its client's turn (to
//! send the rest of a request, to take an answer) or its answer is held back. So whoever opens thousands of silent connections only takes places from itself.

use super::address::Source;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longest that a connection waits because its address opens too many a second.
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Addresses whose rate is remembered.
const ADDRESSES_MAX: usize = 16_384;
/// "Since never".
const NEVER: u64 = u64::MAX;
/// One connection in the bucket of an address.
const TOKEN: u64 = 1_000_000;

/// What a door bears.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections at a time.
    pub places: usize,
    /// Of the files that the process may open, one in so many is for this door.
    pub share_of_files: usize,
    /// Connections from one address; `None`: as many as there are places.
    pub per_address: Option<usize>,
    /// New connections a second from one address, after a burst of four seconds' worth; 0: any.
    pub per_second: u32,
}

/// Who is at a door.
#[derive(Debug)]
pub struct Places {
    limits: Limits,
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    next_id: u64,
    open: usize,
    addresses: HashMap<Source, Address>,
}

#[derive(Debug)]
struct Address {
    places: HashMap<u64, Arc<State>>,
    /// Bucket of new connections; below zero while some wait.
    tokens: i64,
    at: Instant,
}

/// One connection's place; free again when the last clone of its [`Arc`] is dropped.
pub struct Place {
    places: Arc<Places>,
    source: Source,
    id: u64,
    state: Arc<State>,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place")
            .field("source", &self.source)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

/// What happens on a connection; times are milliseconds since the door opened, or [`NEVER`].
#[derive(Debug)]
struct State {
    busy: AtomicU32,
    /// How many of those that are under way have nothing done for them, and since when there is one.
    waiting: AtomicU32,
    waiting_since: AtomicU64,
    served: AtomicU64,
    idle_since: AtomicU64,
    head_since: AtomicU64,
    blocked_since: AtomicU64,
    /// Bytes that may come before something has come whole; [`NEVER`]: as many as there are.
    allowance: AtomicU64,
    /// Streams of HTTP/2 whose client does not take what is ready, since when.
    unread: Mutex<HashMap<u64, u64>>,
    displaced: CancellationToken,
}

/// A newcomer's place, and how long it waits before it is looked at.
#[derive(Debug)]
pub struct Entry {
    pub place: Arc<Place>,
    pub wait: Duration,
}

/// A request under way: its connection is not idle.
#[derive(Debug)]
pub struct Busy(Arc<Place>);

/// A request under way for which nothing is done.
#[derive(Debug)]
pub struct Waiting(Arc<Place>);

/// How long a connection has been in a state that must not last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Lasting {
    /// Nothing is under way.
    pub idle: Duration,
    /// A request's head has begun and not ended.
    pub head: Duration,
    /// The client takes nothing of what is ready for it.
    pub blocked: Duration,
    /// It had a request at some time.
    pub was_used: bool,
}

impl Address {
    fn level(&self, limits: Limits, now: Instant) -> i64 {
        let elapsed = u64::try_from(now.saturating_duration_since(self.at).as_micros()).unwrap_or(u64::MAX);
        let refill = i64::try_from(elapsed.saturating_mul(limits.per_second.into())).unwrap_or(i64::MAX);
        self.tokens.saturating_add(refill).min(limits.burst())
    }
}

impl Limits {
    fn burst(self) -> i64 {
        i64::from(self.per_second) * 4 * TOKEN as i64
    }

    /// Places while the process may open `files` files.
    fn room(self, files: Option<usize>) -> usize {
        files.map_or(self.places, |files| (files / self.share_of_files.max(1)).clamp(1, self.places))
    }
}

impl Places {
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self { limits, started: Instant::now(), inner: Mutex::default() })
    }

    /// Connections at the moment.
    pub fn open(&self) -> usize {
        self.inner.lock().open
    }

    /// A place for a newcomer; `None` when every other connection has something under way. `is_counted`: its address
    /// has the limits of one client; a proxy's has not.
    pub fn enter(
        self: &Arc<Self>,
        source: Source,
        is_counted: bool,
        files: Option<usize>,
        now: Instant,
    ) -> Option<Entry> {
        let limits = self.limits;
        let mut inner = self.inner.lock();
        inner.make_room(limits, now);
        let address = inner.addresses.entry(source).or_insert_with(|| Address {
            places: HashMap::new(),
            tokens: limits.burst(),
            at: now,
        });
        let own = address.places.len();
        let mut level = address.level(limits, now);
        let mut wait = Duration::ZERO;
        if is_counted && limits.per_second > 0 {
            level = level.saturating_sub(TOKEN as i64);
            if level < 0 {
                wait = Duration::from_micros(level.unsigned_abs() / u64::from(limits.per_second));
            }
            // Nobody makes room for one that is refused.
            if wait > WAIT_MAX {
                return None;
            }
        }
        let per_address = limits.per_address.filter(|_| is_counted).unwrap_or(usize::MAX);
        if own >= per_address {
            inner.displace(source)?;
        } else if inner.open >= limits.room(files) {
            let fullest = inner.fullest()?;
            inner.displace(fullest)?;
        }
        let state = Arc::new(State {
            busy: AtomicU32::new(0),
            waiting: AtomicU32::new(0),
            waiting_since: AtomicU64::new(NEVER),
            served: AtomicU64::new(0),
            idle_since: AtomicU64::new(self.ms(now)),
            head_since: AtomicU64::new(NEVER),
            blocked_since: AtomicU64::new(NEVER),
            allowance: AtomicU64::new(NEVER),
            unread: Mutex::default(),
            displaced: CancellationToken::new(),
        });
        let id = inner.next_id;
        inner.next_id += 1;
        inner.open += 1;
        if let Some(address) = inner.addresses.get_mut(&source) {
            (address.tokens, address.at) = (level, now);
            address.places.insert(id, Arc::clone(&state));
        }
        drop(inner);
        Some(Entry { place: Arc::new(Place { places: Arc::clone(self), source, id, state }), wait })
    }

    fn ms(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(NEVER - 1)
    }

    fn leave(&self, source: Source, id: u64) {
        let mut inner = self.inner.lock();
        if inner.remove(source, id) {
            let limits = self.limits;
            let is_over =
                |a: &Address| a.places.is_empty() && a.level(limits, Instant::now()) >= limits.burst();
            if inner.addresses.get(&source).is_some_and(is_over) {
                inner.addresses.remove(&source);
            }
        }
    }
}

impl Inner {
    fn remove(&mut self, source: Source, id: u64) -> bool {
        let was_there = self.addresses.get_mut(&source).is_some_and(|a| a.places.remove(&id).is_some());
        if was_there {
            self.open = self.open.saturating_sub(1);
        }
        was_there
    }

    /// Ends the connection of an address that is missed least; `None` when something is done for all of them.
    fn displace(&mut self, source: Source) -> Option<()> {
        let address = self.addresses.get(&source)?;
        let may_go = address.places.iter().filter_map(|(id, state)| Some((state.may_go()?, *id)));
        let (_, id) = may_go.min()?;
        if let Some(state) = address.places.get(&id) {
            state.displaced.cancel();
        }
        self.remove(source, id);
        metrics::counter!("fafnir_connections_displaced_total").increment(1);
        Some(())
    }

    /// The address with most connections among those that have one that may go.
    fn fullest(&self) -> Option<Source> {
        let with_one =
            self.addresses.iter().filter(|(_, a)| a.places.values().any(|state| state.may_go().is_some()));
        with_one.max_by_key(|(_, a)| a.places.len()).map(|(source, _)| *source)
    }

    /// Forgets addresses whose rate is no longer of interest.
    fn make_room(&mut self, limits: Limits, now: Instant) {
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, a| !a.places.is_empty() || a.level(limits, now) < limits.burst());
        }
        if self.addresses.len() >= ADDRESSES_MAX {
            self.addresses.retain(|_, a| !a.places.is_empty());
        }
    }
}

impl State {
    /// Since when nothing is under way.
    fn is_idle(&self) -> Option<u64> {
        (self.busy.load(Ordering::Relaxed) == 0).then(|| self.idle_since.load(Ordering::Relaxed))
    }

    /// How little it would be missed, least first: one that never asked for anything, one that is idle, one for which
    /// nothing is done; of each the one that has been so for longest. `None`: something is done for it.
    fn may_go(&self) -> Option<(u8, u64)> {
        if let Some(since) = self.is_idle() {
            return Some((u8::from(self.served.load(Ordering::Relaxed) > 0), since));
        }
        let busy = self.busy.load(Ordering::Relaxed);
        let waiting = self.waiting.load(Ordering::Relaxed) >= busy;
        let waiting = waiting.then(|| self.waiting_since.load(Ordering::Relaxed)).filter(|at| *at != NEVER);
        let blocked = || Some(self.blocked_since.load(Ordering::Relaxed)).filter(|at| *at != NEVER);
        let unread = || {
            let unread = self.unread.lock();
            if unread.len() >= busy as usize { unread.values().min().copied() } else { None }
        };
        waiting.or_else(blocked).or_else(unread).map(|since| (2, since))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.leave(self.source, self.id);
    }
}

impl Place {
    fn now(&self) -> u64 {
        self.places.ms(Instant::now())
    }

    /// Whom its connection is counted for.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Resolves when somebody else needs the place.
    pub async fn displaced(&self) {
        self.state.displaced.cancelled().await;
    }

    /// A request begins.
    pub fn busy(self: &Arc<Self>) -> Busy {
        let state = &self.state;
        state.busy.fetch_add(1, Ordering::Relaxed);
        state.served.fetch_add(1, Ordering::Relaxed);
        Busy(Arc::clone(self))
    }

    /// Nothing is done for a request that is under way, as long as the answer lives.
    pub fn waits(self: &Arc<Self>) -> Waiting {
        let state = &self.state;
        if state.waiting.fetch_add(1, Ordering::Relaxed) == 0 {
            state.waiting_since.store(self.now(), Ordering::Relaxed);
        }
        Waiting(Arc::clone(self))
    }

    /// Bytes came while no request is under way: the head of one has begun.
    pub fn head_begins(&self) {
        if self.state.is_idle().is_some() {
            self.head_lasts(true);
        }
    }

    /// A head that has begun is whole, or another one has begun: over HTTP/2 whatever else is under way.
    pub fn head_lasts(&self, is_open: bool) {
        self.lasts(&self.state.head_since, is_open);
    }

    /// From now on at most so many bytes may come, until this is said again.
    pub fn allow(&self, bytes: u64) {
        self.state.allowance.store(bytes, Ordering::Relaxed);
    }

    /// So many bytes came; `false`: they were more than allowed.
    pub fn came(&self, bytes: usize) -> bool {
        let allowance = &self.state.allowance;
        let left = allowance.load(Ordering::Relaxed);
        if left == NEVER {
            return true;
        }
        let left = left.checked_sub(bytes as u64);
        // Who allows more is the task that reads.
        allowance.store(left.unwrap_or(0), Ordering::Relaxed);
        left.is_some()
    }

    /// The socket took something, or takes nothing.
    pub fn writes(&self, is_blocked: bool) {
        self.lasts(&self.state.blocked_since, is_blocked);
    }

    /// Notes since when something is so.
    fn lasts(&self, since: &AtomicU64, is_so: bool) {
        if !is_so {
            since.store(NEVER, Ordering::Relaxed);
        } else if since.load(Ordering::Relaxed) == NEVER {
            since.store(self.now(), Ordering::Relaxed);
        }
    }

    /// Something is ready on a stream and waits for the client, or was taken.
    pub fn unread(&self, stream: u64, is_waiting: bool) {
        let mut unread = self.state.unread.lock();
        if is_waiting {
            let now = self.now();
            unread.entry(stream).or_insert(now);
        } else {
            unread.remove(&stream);
        }
    }

    /// How long what must not last has lasted.
    pub fn lasting(&self) -> Lasting {
        let (state, now) = (&self.state, self.now());
        let since = |at: u64| Duration::from_millis(if at == NEVER { 0 } else { now.saturating_sub(at) });
        let load = |at: &AtomicU64| since(at.load(Ordering::Relaxed));
        let unread = state.unread.lock().values().min().map_or(Duration::ZERO, |at| since(*at));
        Lasting {
            idle: state.is_idle().map_or(Duration::ZERO, since),
            head: load(&state.head_since),
            blocked: load(&state.blocked_since).max(unread),
            was_used: state.served.load(Ordering::Relaxed) > 0,
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let state = &self.0.state;
        state.idle_since.store(self.0.now(), Ordering::Relaxed);
        state.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.state.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    fn source(n: u8) -> Source {
        Source::of(std::net::IpAddr::from([10, 0, 0, n]))
    }

    fn limits(places: usize, per_address: usize, per_second: u32) -> Limits {
        Limits { places, share_of_files: 2, per_address: Some(per_address), per_second }
    }

    fn is_displaced(place: &Place) -> bool {
        place.displaced().now_or_never().is_some()
    }

    #[tokio::test(start_paused = true)]
    async fn the_longest_idle_of_the_same_address_makes_room() {
        let places = Places::new(limits(100, 3, 0));
        let enter = |n| places.enter(source(n), true, None, Instant::now()).map(|e| e.place);
        let mut mine = Vec::new();
        for _ in 0..3 {
            mine.push(enter(1).unwrap());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        let other = enter(2).unwrap();
        let working = mine[0].busy();
        mine.push(enter(1).unwrap());
        let displaced: Vec<_> = mine.iter().map(|place| is_displaced(place)).collect();
        assert_eq!(displaced, [false, true, false, false]);
        assert!(!is_displaced(&other));
        assert_eq!(places.open(), 4);
        // Everything of it is busy: it has no more places, others have.
        let busy: Vec<_> = mine.iter().map(Place::busy).collect();
        assert!(enter(1).is_none());
        assert!(enter(2).is_some());
        drop((busy, working, mine, other));
        assert_eq!(places.open(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_for_which_nothing_is_done_makes_room_where_none_is_idle() {
        let places = Places::new(limits(100, 3, 0));
        let enter = || places.enter(source(1), true, None, Instant::now()).map(|e| e.place);
        let all: Vec<_> = (0..3).map(|_| enter().unwrap()).collect();
        let busy: Vec<_> = all.iter().map(Place::busy).collect();
        assert!(enter().is_none());
        // Its request does not come whole: its client's turn.
        let waits = all[1].waits();
        let second = all[1].busy();
        assert!(enter().is_none(), "another one of it is worked on");
        drop(second);
        tokio::time::advance(Duration::from_secs(1)).await;
        all[2].writes(true);
        let newcomer = enter().unwrap();
        let busy_too = newcomer.busy();
        assert_eq!(all.iter().map(|place| is_displaced(place)).collect::<Vec<_>>(), [false, true, false]);
        // Its client does not take what is ready, over HTTP/1 and HTTP/2.
        let another = enter().unwrap();
        assert!(is_displaced(&all[2]));
        let busy_again = another.busy();
        another.unread(7, true);
        let last = enter().unwrap();
        assert!(is_displaced(&another) && !is_displaced(&all[0]));
        // An idle one is missed less, and what came whole is worked on.
        let late = newcomer.waits();
        enter().unwrap();
        assert!(is_displaced(&last) && !is_displaced(&newcomer));
        drop((busy, waits, busy_too, busy_again, late));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_that_was_used_stays_while_there_is_one_that_was_not() {
        let places = Places::new(limits(100, 2, 0));
        let enter = || places.enter(source(1), true, None, Instant::now()).unwrap().place;
        let used = enter();
        drop(used.busy());
        tokio::time::advance(Duration::from_secs(1)).await;
        let silent: Vec<_> = (0..4).map(|_| enter()).collect();
        assert!(!is_displaced(&used));
        assert_eq!(silent.iter().filter(|place| is_displaced(place)).count(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_makes_room_for_one_that_opens_too_many_a_second() {
        let places = Places::new(limits(12, 100, 1));
        let enter = |n| places.enter(source(n), true, None, Instant::now()).map(|e| e.place);
        // A burst of four, and one that waits.
        let mine: Vec<_> = (0..5).map(|_| enter(1).unwrap()).collect();
        let others: Vec<_> = (2..9).map(|n| enter(n).unwrap()).collect();
        for _ in 0..10 {
            assert!(enter(1).is_none());
        }
        assert!(mine.iter().chain(&others).all(|place| !is_displaced(place)));
        assert_eq!(places.open(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_door_takes_a_place_from_the_address_that_has_most() {
        let places = Places::new(limits(4, 100, 0));
        let enter = |n| places.enter(source(n), true, None, Instant::now()).map(|e| e.place);
        let (lone, many) = (enter(1).unwrap(), [enter(2).unwrap(), enter(2).unwrap(), enter(2).unwrap()]);
        let third = enter(3).unwrap();
        assert!(!is_displaced(&lone) && !is_displaced(&third));
        assert_eq!(many.iter().filter(|place| is_displaced(place)).count(), 1);
        assert_eq!(places.open(), 4);
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_no_more_places_than_a_share_of_the_files() {
        let places = Places::new(limits(1000, 1000, 0));
        let enter = || places.enter(source(1), true, Some(20), Instant::now()).map(|e| e.place);
        let all: Vec<_> = (0..15).filter_map(|_| enter()).collect();
        assert_eq!((all.len(), places.open()), (15, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_opens_too_many_waits_and_then_is_refused() {
        let places = Places::new(limits(10_000, 10_000, 10));
        let enter = |n, counted| {
            places.enter(source(n), counted, None, Instant::now()).map(|e| (e.wait.as_millis(), e.place))
        };
        let waits: Vec<_> = (0..42).map(|_| enter(1, true).unwrap()).map(|(wait, _)| wait).collect();
        assert!(waits[..40].iter().all(|wait| *wait == 0), "{waits:?}");
        assert_eq!(waits[40..], [100, 200]);
        assert_eq!(enter(2, true).unwrap().0, 0, "another address has a rate of its own");
        let more = (0..100).filter_map(|_| enter(1, true)).count();
        assert_eq!(more, 8, "a wait of more than 1 s is none");
        assert_eq!(enter(1, false).unwrap().0, 0, "a proxy stands for many");
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(enter(1, true).unwrap().0, 0);
    }

    #[tokio::test]
    async fn no_more_comes_than_is_allowed() {
        let places = Places::new(limits(10, 10, 0));
        let place = places.enter(source(1), true, None, Instant::now()).unwrap().place;
        assert!(place.came(usize::MAX), "where nothing was said");
        place.allow(10);
        assert!(place.came(4) && place.came(6) && !place.came(1));
        place.allow(10);
        assert!(place.came(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_lasts_is_measured() {
        let places = Places::new(limits(10, 10, 0));
        let place = places.enter(source(1), true, None, Instant::now()).unwrap().place;
        let seconds = |n| tokio::time::advance(Duration::from_secs(n));
        seconds(3).await;
        place.head_begins();
        seconds(2).await;
        place.head_begins();
        let lasting = place.lasting();
        assert_eq!((lasting.idle.as_secs(), lasting.head.as_secs(), lasting.was_used), (5, 2, false));
        let busy = place.busy();
        place.head_lasts(false);
        assert_eq!(place.lasting(), Lasting { was_used: true, ..Lasting::default() });
        place.writes(true);
        seconds(4).await;
        place.writes(true);
        assert_eq!(place.lasting().blocked.as_secs(), 4);
        place.writes(false);
        place.unread(7, true);
        seconds(6).await;
        place.unread(8, true);
        assert_eq!(place.lasting().blocked.as_secs(), 6);
        place.unread(7, false);
        assert_eq!(place.lasting().blocked.as_secs(), 0);
        drop(busy);
        seconds(1).await;
        assert_eq!(place.lasting().idle.as_secs(), 1);
    }
}
