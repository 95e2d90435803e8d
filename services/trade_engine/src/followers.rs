//! Who follows the facts and how far it is: where the books of account fall behind, only cancels are taken.

use fafnir_platform::clock::SECOND_US;
use parking_lot::Mutex;
use std::{
    collections::{BTreeMap, VecDeque},
    sync::atomic::{AtomicBool, Ordering},
};

/// Whose lag turns the exchange cancel-only.
pub const COUNTED: [&str; 2] = ["order-service", "portfolio-service"];
/// Whose facts are kept though they are old.
pub const FOLLOWERS: [&str; 3] = ["order-service", "portfolio-service", "stock-service"];
/// How far behind a follower may be.
pub const BEHIND_US_MAX: i64 = 30 * SECOND_US;
pub const BEHIND_FACTS_MAX: u64 = 200_000;
/// Where the exchange stood is remembered this often, and so long.
const MARK_EVERY_US: i64 = SECOND_US / 2;
const MARKS_MAX: usize = 128;

#[derive(Debug, Default)]
struct Inner {
    /// Follower → position up to which it has everything.
    positions: BTreeMap<String, u64>,
    /// Time and last position then, oldest first.
    marks: VecDeque<(i64, u64)>,
}

/// The followers. Those that never told where they are do not count.
#[derive(Debug, Default)]
pub struct Followers {
    inner: Mutex<Inner>,
    cancel_only: AtomicBool,
}

/// A follower that is too far behind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    pub follower: String,
    pub position: u64,
    pub last: u64,
}

impl Followers {
    /// Notes where a follower says that it is.
    pub fn note(&self, name: &str, position: u64) {
        if FOLLOWERS.contains(&name) {
            self.inner.lock().positions.insert(name.to_owned(), position);
        }
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
    pub fn judge(&self, now_us: i64, last: u64) -> (Option<Behind>, bool) {
        let mut inner = self.inner.lock();
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
            .find(|(at, _)| now_us.saturating_sub(*at) >= BEHIND_US_MAX)
            .map_or(0, |(_, position)| *position);
        let behind = COUNTED.iter().find_map(|name| {
            let position = *inner.positions.get(*name)?;
            let is_behind = position < then || last.saturating_sub(position) >= BEHIND_FACTS_MAX;
            is_behind.then(|| Behind { follower: (*name).to_owned(), position, last })
        });
        drop(inner);
        let was = self.cancel_only.swap(behind.is_some(), Ordering::Relaxed);
        let is_other = was != behind.is_some();
        (behind, is_other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_behind_by_time_or_by_facts_lets_only_cancels_in_until_it_has_caught_up() {
        let f = Followers::default();
        let (at, is) = (|s: i64| 1_000 * SECOND_US + s * SECOND_US, |f: &Followers| f.is_cancel_only());
        f.judge(at(0), 10);
        f.judge(at(29), 20);
        assert!(!is(&f), "nobody follows");
        f.note("order-service", 10);
        f.note("gateway", 0);
        f.judge(at(31), 20);
        assert!(!is(&f));
        let (behind, is_other) = f.judge(at(59), 20);
        assert_eq!(
            (behind.map(|b| (b.follower, b.position)), is_other),
            (Some(("order-service".into(), 10)), true)
        );
        f.note("order-service", 20);
        assert_eq!(f.judge(at(60), 20), (None, true));
        f.note("portfolio-service", 20);
        f.judge(at(61), 20 + BEHIND_FACTS_MAX);
        assert!(is(&f));
        f.note("portfolio-service", 21);
        f.judge(at(62), 20 + BEHIND_FACTS_MAX);
        assert!(is(&f), "order-service is behind too");
        f.note("order-service", 21);
        f.judge(at(63), 20 + BEHIND_FACTS_MAX);
        assert!(!is(&f));
    }
}
