//! Who follows the facts and how far it is: where the books of account fall behind, only cancels are taken.

use fafnir_disk::whole;
use fafnir_platform::clock::SECOND_US;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whose lag turns the exchange cancel-only.
pub const COUNTED: [&str; 2] = ["order-service", "portfolio-service"];
/// Whose facts are kept though they are old.
pub const FOLLOWERS: [&str; 3] = ["order-service", "portfolio-service", "stock-service"];
/// Where the exchange stood is remembered this often, and longer than a follower may be behind.
const MARK_EVERY_US: i64 = SECOND_US / 2;
const MARKS_MAX: usize = 128;

/// How far behind a follower may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub behind_us: i64,
    pub behind_facts: u64,
}

/// Who has ever followed, one name a line.
const FILE: &str = "followers";

#[derive(Debug, Default)]
struct Inner {
    /// Follower → position up to which it has everything, where it told since the start.
    positions: BTreeMap<String, u64>,
    /// Those that told before.
    known: BTreeSet<String>,
    /// When it was judged first.
    since_us: Option<i64>,
    /// Time and last position then, oldest first.
    marks: VecDeque<(i64, u64)>,
}

/// The followers. Those that never told where they are do not count; those that told before a restart count again after
/// as long as one may be behind.
#[derive(Debug, Default)]
pub struct Followers {
    inner: Mutex<Inner>,
    cancel_only: AtomicBool,
    /// Where [`FILE`] lies.
    dir: PathBuf,
}

/// A follower that is too far behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub follower: String,
    pub position: u64,
    pub last: u64,
}

impl Followers {
    /// Those of an exchange in this directory.
    pub fn load(dir: &Path) -> Self {
        let text = fs::read_to_string(dir.join(FILE)).unwrap_or_default();
        let known = text.lines().filter(|name| FOLLOWERS.contains(name)).map(ToOwned::to_owned).collect();
        let inner = Mutex::new(Inner { known, ..Inner::default() });
        Self { inner, dir: dir.to_owned(), ..Self::default() }
    }

    /// Notes where a follower says that it is.
    pub fn note(&self, name: &str, position: u64) {
        if !FOLLOWERS.contains(&name) {
            return;
        }
        let mut inner = self.inner.lock();
        inner.positions.insert(name.to_owned(), position);
        if inner.known.insert(name.to_owned())
            && let Err(e) = self.store(&inner.known)
        {
            tracing::warn!(error = %e, "who follows was not stored");
        }
    }

    fn store(&self, known: &BTreeSet<String>) -> io::Result<()> {
        let text = known.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
        whole::write(&self.dir.join(FILE), text.as_bytes(), whole::PRIVATE)
    }

    /// Where they are.
    pub fn positions(&self) -> BTreeMap<String, u64> {
        self.inner.lock().positions.clone()
    }

    /// The position up to which every follower that has told has everything.
    pub fn slowest(&self) -> Option<u64> {
        self.inner.lock().positions.values().min().copied()
    }

    /// Whether only cancels are taken.
    pub fn is_cancel_only(&self) -> bool {
        self.cancel_only.load(Ordering::Relaxed)
    }

    /// Judges at a time, with the exchange at position `last`. Answers who is too far behind, and whether that is another
    /// answer than before.
    pub fn judge(&self, limits: Limits, now_us: i64, last: u64) -> (Option<Behind>, bool) {
        let mut inner = self.inner.lock();
        let since_us = *inner.since_us.get_or_insert(now_us);
        let is_late = now_us.saturating_sub(since_us) >= limits.behind_us;
        if inner.marks.back().is_none_or(|(at, _)| now_us.saturating_sub(*at) >= MARK_EVERY_US) {
            inner.marks.push_back((now_us, last));
            if inner.marks.len() > MARKS_MAX {
                inner.marks.pop_front();
            }
        }
        // Where the exchange stood so long ago.
        let then = inner
            .marks
            .iter()
            .rev()
            .find(|(at, _)| now_us.saturating_sub(*at) >= limits.behind_us)
            .map_or(0, |(_, position)| *position);
        let behind = COUNTED.iter().find_map(|name| {
            let told = inner.positions.get(*name).copied();
            let is_gone = told.is_none() && is_late && inner.known.contains(*name);
            let position = told.or(is_gone.then_some(0))?;
            let is_behind =
                is_gone || position < then || last.saturating_sub(position) >= limits.behind_facts;
            is_behind.then(|| Behind { follower: (*name).to_owned(), position, last })
        });
        metrics::gauge!("fafnir_position").set(last as f64);
        for (follower, position) in &inner.positions {
            let lag = last.saturating_sub(*position) as f64;
            metrics::gauge!("fafnir_follower_lag", "follower" => follower.clone()).set(lag);
        }
        drop(inner);
        let was = self.cancel_only.swap(behind.is_some(), Ordering::Relaxed);
        let is_other = was != behind.is_some();
        (behind, is_other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { behind_us: 30 * SECOND_US, behind_facts: 200_000 };

    #[test]
    fn who_is_behind_by_time_or_by_facts_lets_only_cancels_in_until_it_has_caught_up() {
        let dir = tempfile::tempdir().unwrap();
        let f = Followers::load(dir.path());
        let (at, is) = (|s: i64| 1_000 * SECOND_US + s * SECOND_US, |f: &Followers| f.is_cancel_only());
        f.judge(LIMITS, at(0), 10);
        f.judge(LIMITS, at(29), 20);
        assert!(!is(&f), "nobody follows");
        f.note("order-service", 10);
        f.note("gateway", 0);
        f.judge(LIMITS, at(31), 20);
        assert!(!is(&f));
        let (behind, is_other) = f.judge(LIMITS, at(59), 20);
        assert_eq!(
            (behind.map(|b| (b.follower, b.position)), is_other),
            (Some(("order-service".into(), 10)), true)
        );
        f.note("order-service", 20);
        assert_eq!(f.judge(LIMITS, at(60), 20), (None, true));
        f.note("portfolio-service", 20);
        f.judge(LIMITS, at(61), 20 + LIMITS.behind_facts);
        assert!(is(&f));
        f.note("portfolio-service", 21);
        f.judge(LIMITS, at(62), 20 + LIMITS.behind_facts);
        assert!(is(&f), "order-service is behind too");
        f.note("order-service", 21);
        f.judge(LIMITS, at(63), 20 + LIMITS.behind_facts);
        assert!(!is(&f));
    }
    #[test]
    fn who_followed_before_a_restart_counts_again_when_it_had_time_to_come() {
        let dir = tempfile::tempdir().unwrap();
        Followers::load(dir.path()).note("portfolio-service", 7);
        let f = Followers::load(dir.path());
        f.judge(LIMITS, 0, 7);
        f.judge(LIMITS, 29 * SECOND_US, 7);
        assert!(!f.is_cancel_only());
        let (behind, _) = f.judge(LIMITS, 30 * SECOND_US, 7);
        assert_eq!(behind.map(|b| b.follower), Some("portfolio-service".into()));
        f.note("portfolio-service", 7);
        assert_eq!(f.judge(LIMITS, 31 * SECOND_US, 7), (None, true));
        let nobody = Followers::load(tempfile::tempdir().unwrap().path());
        nobody.judge(LIMITS, 0, 7);
        assert_eq!(nobody.judge(LIMITS, 99 * SECOND_US, 7), (None, false));
    }
}
