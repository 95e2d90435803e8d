//! Work that waits for few threads, fair by purpose, by address and by account.
//!
//! Sign-ins and registrations take turns, so that no storm of the one keeps the other waiting, wherever it comes from;
//! within a purpose addresses do, and within an address accounts; of one account only one piece runs at a time. A piece is
//! refused where it would have to wait for longer than its caller would, and is told how long to stay away: nobody who
//! was let in waits in vain, and a flood from one place only delays that place.

use super::domain::Email;
use fafnir_platform::http::address::Source;
use metrics::Gauge;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::{
    collections::{HashMap, HashSet, VecDeque},
    fmt,
    time::{Duration, Instant},
};

/// Pieces of one purpose that wait at most, whatever their addresses.
const WAITING_MAX: usize = 4_096;
/// What a piece is believed to take before one was measured.
const TAKES_AT_FIRST: Duration = Duration::from_millis(50);
/// The newest measurement counts for one part in so many.
const SMOOTHING: u32 = 8;

/// A piece of work.
pub type Job = Box<dyn FnOnce() + Send>;

/// What a piece is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A user that is there: whoever signs in, or changes its password.
    SignIn,
    /// A user that is to be.
    Register,
}

/// Whom a piece is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct For {
    pub purpose: Purpose,
    pub source: Source,
    pub account: Email,
}

/// There is too much before it: it can be tried again after this.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Busy {
    pub retry_after: Duration,
}

/// The queue itself.
pub struct Queue {
    inner: Mutex<Inner>,
    changed: Condvar,
    threads: u32,
    wait_max: Duration,
    waiting: Gauge,
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Queue")
    }
}

#[derive(Default)]
struct Inner {
    sign_ins: Line,
    registrations: Line,
    /// The last piece that was taken was a sign-in: a registration is next.
    registers_next: bool,
    running: HashSet<Email>,
    takes: Option<Duration>,
    is_closed: bool,
}

/// What waits for one purpose.
#[derive(Default)]
struct Line {
    sources: HashMap<Source, Lanes>,
    /// Whose turn it is, and who follows.
    turns: VecDeque<Source>,
    waiting: usize,
}

/// What waits for one address.
#[derive(Default)]
struct Lanes {
    by_account: HashMap<Email, VecDeque<Job>>,
    turns: VecDeque<Email>,
    waiting: usize,
}

impl Lanes {
    /// The next piece whose account is not at work.
    fn take(&mut self, running: &HashSet<Email>) -> Option<(Email, Job)> {
        for _ in 0..self.turns.len() {
            let account = self.turns.pop_front()?;
            if running.contains(&account) {
                self.turns.push_back(account);
                continue;
            }
            let lane = self.by_account.get_mut(&account)?;
            let job = lane.pop_front()?;
            self.waiting -= 1;
            if lane.is_empty() {
                self.by_account.remove(&account);
            } else {
                self.turns.push_back(account.clone());
            }
            return Some((account, job));
        }
        None
    }
}

impl Line {
    fn take(&mut self, running: &HashSet<Email>) -> Option<(Email, Job)> {
        for _ in 0..self.turns.len() {
            let source = self.turns.pop_front()?;
            let lanes = self.sources.get_mut(&source)?;
            let taken = lanes.take(running);
            if lanes.waiting == 0 {
                self.sources.remove(&source);
            } else {
                self.turns.push_back(source);
            }
            if taken.is_some() {
                self.waiting -= 1;
                return taken;
            }
        }
        None
    }

    fn add(&mut self, source: Source, account: Email, job: Job) {
        if !self.sources.contains_key(&source) {
            self.turns.push_back(source);
        }
        let lanes = self.sources.entry(source).or_default();
        let lane = lanes.by_account.entry(account.clone()).or_default();
        if lane.is_empty() {
            lanes.turns.push_back(account);
        }
        lane.push_back(job);
        lanes.waiting += 1;
        self.waiting += 1;
    }

    /// Pieces of the same account that wait, and pieces that are before a new one.
    fn before(&self, whom: &For) -> (usize, usize) {
        let own = self.sources.get(&whom.source);
        let lane = own.and_then(|lanes| lanes.by_account.get(&whom.account)).map_or(0, VecDeque::len);
        // Accounts of its address take turns, and so do addresses.
        let lanes = own.into_iter().flat_map(|lanes| lanes.by_account.values());
        let turn = lanes.map(|other| other.len().min(lane + 1)).sum::<usize>().max(1);
        (lane, self.sources.values().map(|lanes| lanes.waiting.min(turn)).sum())
    }
}

impl Inner {
    fn line(&mut self, purpose: Purpose) -> &mut Line {
        match purpose {
            Purpose::SignIn => &mut self.sign_ins,
            Purpose::Register => &mut self.registrations,
        }
    }

    fn waiting(&self) -> usize {
        self.sign_ins.waiting + self.registrations.waiting
    }

    fn take(&mut self) -> Option<(Email, Job)> {
        let mut order = [Purpose::SignIn, Purpose::Register];
        if self.registers_next {
            order.reverse();
        }
        for purpose in order {
            let line = match purpose {
                Purpose::SignIn => &mut self.sign_ins,
                Purpose::Register => &mut self.registrations,
            };
            if let Some((account, job)) = line.take(&self.running) {
                self.registers_next = purpose == Purpose::SignIn;
                self.running.insert(account.clone());
                return Some((account, job));
            }
        }
        None
    }

    /// How long a new piece would wait.
    fn wait(&self, whom: &For, threads: u32) -> Duration {
        let takes = self.takes.unwrap_or(TAKES_AT_FIRST);
        let (own, other) = match whom.purpose {
            Purpose::SignIn => (&self.sign_ins, &self.registrations),
            Purpose::Register => (&self.registrations, &self.sign_ins),
        };
        let (lane, before) = own.before(whom);
        // The purposes take turns: for each piece before this one, and for itself, one of the other goes first at most.
        let shared = before + other.waiting.min(before + 1) + self.running.len();
        let alone = lane + usize::from(self.running.contains(&whom.account));
        let times = |n: usize| takes.saturating_mul(u32::try_from(n).unwrap_or(u32::MAX));
        (times(shared) / threads.max(1)).max(times(alone))
    }
}

impl Queue {
    /// For so many threads; nobody waits longer than `wait_max`.
    pub fn new(threads: u32, wait_max: Duration) -> Self {
        Self {
            inner: Mutex::default(),
            changed: Condvar::new(),
            threads,
            wait_max,
            waiting: metrics::gauge!("fafnir_passwords_waiting"),
        }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// Where it would wait too long.
    pub fn add(&self, whom: For, job: Job) -> Result<(), Busy> {
        let mut inner = self.inner.lock();
        let wait = inner.wait(&whom, self.threads);
        let For { purpose, source, account } = whom;
        let line = inner.line(purpose);
        if wait > self.wait_max || line.waiting >= WAITING_MAX {
            let retry_after = wait.saturating_sub(self.wait_max).max(Duration::from_secs(1));
            return Err(Busy { retry_after });
        }
        line.add(source, account, job);
        self.waiting.set(inner.waiting() as f64);
        drop(inner);
        self.changed.notify_one();
        Ok(())
    }

    /// Works until the queue is closed: what a thread does. `rest` once it has had nothing to do for so long.
    pub fn work(&self, rest_after: Duration, rest: impl Fn()) {
        let mut inner = self.inner.lock();
        let mut rests = true;
        while !inner.is_closed {
            let Some((account, job)) = inner.take() else {
                if rests {
                    self.changed.wait(&mut inner);
                } else if self.changed.wait_for(&mut inner, rest_after).timed_out() {
                    rests = true;
                    MutexGuard::unlocked(&mut inner, &rest);
                }
                continue;
            };
            rests = false;
            self.waiting.set(inner.waiting() as f64);
            drop(inner);
            let started = Instant::now();
            job();
            let took = started.elapsed();
            inner = self.inner.lock();
            inner.running.remove(&account);
            let before = inner.takes.unwrap_or(took);
            inner.takes = Some((before * (SMOOTHING - 1) + took) / SMOOTHING);
            // What waited for this account may be another thread's now.
            self.changed.notify_one();
        }
    }

    /// Ends the threads once they have done what they are at.
    pub fn close(&self) {
        self.inner.lock().is_closed = true;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, mpsc};

    fn whom(address: u8, account: &str) -> For {
        let source = Source::of(std::net::IpAddr::from([10, 0, 0, address]));
        For { purpose: Purpose::SignIn, source, account: Email::fold(account) }
    }

    fn newcomer(address: u8, account: &str) -> For {
        For { purpose: Purpose::Register, ..whom(address, account) }
    }

    /// Adds pieces, then lets one thread do them; their names in the order in which they were done.
    fn order_of(pieces: &[(u8, &str, &'static str)]) -> Vec<&'static str> {
        let queue = Arc::new(Queue::new(1, Duration::from_mins(1)));
        let (done, order) = mpsc::channel();
        for (address, account, name) in pieces {
            let (done, name) = (done.clone(), *name);
            queue.add(whom(*address, account), Box::new(move || done.send(name).unwrap())).unwrap();
        }
        let closing = Arc::clone(&queue);
        queue.add(whom(99, "last"), Box::new(|| {})).unwrap();
        let worker = std::thread::spawn(move || queue.work(Duration::MAX, || {}));
        let order: Vec<_> = order.iter().take(pieces.len()).collect();
        closing.close();
        worker.join().unwrap();
        order
    }

    #[test]
    fn addresses_take_turns_and_so_do_accounts_of_one() {
        let order = order_of(&[
            (1, "a", "a1"),
            (1, "a", "a2"),
            (1, "a", "a3"),
            (1, "b", "b1"),
            (2, "c", "c1"),
            (2, "c", "c2"),
        ]);
        assert_eq!(order, ["a1", "c1", "b1", "c2", "a2", "a3"]);
    }

    #[test]
    fn a_thread_rests_once_after_it_has_worked() {
        let queue = Arc::new(Queue::new(1, Duration::from_mins(1)));
        let (told, tells) = mpsc::channel();
        let worker = Arc::clone(&queue);
        let rests = told.clone();
        let worker = std::thread::spawn(move || {
            worker.work(Duration::from_millis(1), || rests.send("rests").unwrap());
        });
        for _ in 0..3 {
            let told = told.clone();
            queue.add(whom(1, "a"), Box::new(move || told.send("works").unwrap())).unwrap();
            assert_eq!([tells.recv().unwrap(), tells.recv().unwrap()], ["works", "rests"]);
        }
        queue.close();
        worker.join().unwrap();
        assert!(tells.try_recv().is_err());
    }

    #[test]
    fn one_account_is_worked_on_by_one_thread_at_a_time() {
        let queue = Arc::new(Queue::new(2, Duration::from_mins(1)));
        let (started, starts) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        for (address, account, name) in [(1, "a", "a1"), (2, "a", "a2"), (3, "b", "b1")] {
            let (started, gate) = (started.clone(), Arc::clone(&gate));
            let job = move || {
                started.send(name).unwrap();
                gate.lock().recv().unwrap();
            };
            queue.add(whom(address, account), Box::new(job)).unwrap();
        }
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                std::thread::spawn(move || queue.work(Duration::MAX, || {}))
            })
            .collect();
        let mut first: Vec<_> = (0..2).map(|_| starts.recv().unwrap()).collect();
        first.sort_unstable();
        assert_eq!(first, ["a1", "b1"], "a2 waits for a1");
        for _ in 0..3 {
            go.send(()).unwrap();
        }
        assert_eq!(starts.recv().unwrap(), "a2");
        queue.close();
        for worker in workers {
            worker.join().unwrap();
        }
    }

    #[test]
    fn whoever_would_wait_too_long_is_told_how_long_and_others_are_let_in() {
        let queue = Queue::new(2, Duration::from_secs(1));
        let mut refused = None;
        let mut taken = 0;
        while refused.is_none() {
            match queue.add(whom(1, &format!("u{taken}")), Box::new(|| {})) {
                Ok(()) => taken += 1,
                Err(busy) => refused = Some(busy),
            }
        }
        assert!((35..=45).contains(&taken), "a second of two threads at 50 ms: {taken}");
        assert_eq!(refused.unwrap().retry_after, Duration::from_secs(1));
        assert!(queue.add(whom(2, "other"), Box::new(|| {})).is_ok());
        let one = Queue::new(2, Duration::from_secs(1));
        let same = (0..100).take_while(|_| one.add(whom(1, "a"), Box::new(|| {})).is_ok()).count();
        assert!((18..=22).contains(&same), "one account is one thread's: {same}");
        for other in ["b", "c", "d"] {
            assert!(one.add(whom(1, other), Box::new(|| {})).is_ok(), "another account of the same address");
        }
    }

    #[test]
    fn a_storm_of_registrations_delays_no_sign_in_by_more_than_its_turn() {
        let queue = Arc::new(Queue::new(1, Duration::from_secs(1)));
        let (done, order) = mpsc::channel();
        let job = |name: &'static str| {
            let done = done.clone();
            Box::new(move || done.send(name).unwrap())
        };
        // From one address and from many, until no more are let in.
        let mut taken = 0;
        while queue.add(newcomer(1, &format!("a{taken}")), job("new")).is_ok() {
            taken += 1;
        }
        for address in 2..200 {
            let _full = queue.add(newcomer(address, &format!("b{address}")), job("new"));
        }
        // Of the same address too.
        for (address, account) in [(1, "u"), (7, "v"), (9, "w")] {
            queue.add(whom(address, account), job("old")).unwrap();
        }
        let worker = Arc::clone(&queue);
        let worker = std::thread::spawn(move || worker.work(Duration::MAX, || {}));
        let first: Vec<_> = order.iter().take(6).collect();
        assert_eq!(first, ["old", "new", "old", "new", "old", "new"], "beside {taken} of one address");
        queue.close();
        worker.join().unwrap();
    }
}
