//! How many WebSockets one user and one address have.

use fafnir_platform::http::address::Source;
use fafnir_proto::id::UserId;
use metrics::Gauge;
use parking_lot::Mutex;
use std::{collections::HashMap, hash::Hash, sync::Arc};

/// The open WebSockets, counted.
#[derive(Debug)]
pub struct Sockets {
    by_user: Counts<UserId>,
    by_address: Counts<Source>,
}

#[derive(Debug)]
struct Counts<K> {
    /// 0: no bound.
    max: u32,
    counts: Arc<Mutex<HashMap<K, u32>>>,
    /// All of them, for who watches.
    open: Option<Gauge>,
}

/// A counted socket, until it is dropped.
#[derive(Debug)]
pub struct Counted<K: Eq + Hash> {
    key: K,
    counts: Arc<Mutex<HashMap<K, u32>>>,
    open: Option<Gauge>,
}

impl<K: Eq + Hash + Copy> Counts<K> {
    fn new(max: u32, open: Option<Gauge>) -> Self {
        Self { max, counts: Arc::default(), open }
    }

    fn enter(&self, key: K) -> Option<Counted<K>> {
        let mut counts = self.counts.lock();
        let count = counts.entry(key).or_default();
        if self.max > 0 && *count >= self.max {
            return None;
        }
        *count += 1;
        self.open.iter().for_each(|open| open.increment(1.0));
        Some(Counted { key, counts: Arc::clone(&self.counts), open: self.open.clone() })
    }
}

impl<K: Eq + Hash> Drop for Counted<K> {
    fn drop(&mut self) {
        self.open.iter().for_each(|open| open.decrement(1.0));
        let mut counts = self.counts.lock();
        if let Some(count) = counts.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.key);
            }
        }
    }
}

impl Sockets {
    pub fn new(per_user: u32, per_address: u32) -> Self {
        let open = metrics::gauge!("fafnir_websockets");
        Self { by_user: Counts::new(per_user, None), by_address: Counts::new(per_address, Some(open)) }
    }

    /// One more of an address; `None`: it has too many.
    pub fn of_address(&self, source: Source) -> Option<Counted<Source>> {
        self.by_address.enter(source)
    }

    /// One more of a user; `None`: it has too many.
    pub fn of_user(&self, user: UserId) -> Option<Counted<UserId>> {
        self.by_user.enter(user)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_counts_until_it_is_gone() {
        let sockets = Sockets::new(2, 0);
        let user = |n| UserId::new(uuid::Uuid::from_u128(n));
        let held: Vec<_> = (0..2).map(|_| sockets.of_user(user(1)).unwrap()).collect();
        assert!(sockets.of_user(user(1)).is_none());
        assert!(sockets.of_user(user(2)).is_some());
        drop(held);
        assert!(sockets.of_user(user(1)).is_some());
        assert!(sockets.by_user.counts.lock().is_empty(), "nothing is kept of who has none");
        let source = Source::of(std::net::IpAddr::from([10, 0, 0, 1]));
        let many: Vec<_> = (0..1000).map(|_| sockets.of_address(source)).collect();
        assert!(many.iter().all(Option::is_some), "no bound");
    }
}
