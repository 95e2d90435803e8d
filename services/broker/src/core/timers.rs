//! Deadlines: one per key, the earliest known to the adapter, nothing ticks.

use super::effects::{ConsumerId, StreamId};
use super::net::{ConnId, Nanos};
use std::collections::{BTreeSet, HashMap};

/// Who is to be woken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TimerKey {
    /// Sign-in deadline, then keepalive of a connection.
    Conn(ConnId),
    /// Age and dedupe limits of a stream.
    Stream(StreamId),
    /// Redelivery, expiry of requests, heartbeats, inactivity of a consumer.
    Consumer(StreamId, ConsumerId),
}

/// The set of deadlines.
#[derive(Debug, Default)]
pub struct Timers {
    order: BTreeSet<(Nanos, TimerKey)>,
    at: HashMap<TimerKey, Nanos>,
}

impl Timers {
    /// Wakes `key` at `at` or earlier, if it was armed earlier already.
    pub fn arm(&mut self, key: TimerKey, at: Nanos) {
        match self.at.get(&key) {
            Some(armed) if *armed <= at => {}
            _ => self.set(key, at),
        }
    }

    /// Wakes `key` at exactly `at`.
    pub fn set(&mut self, key: TimerKey, at: Nanos) {
        if let Some(old) = self.at.insert(key, at) {
            self.order.remove(&(old, key));
        }
        self.order.insert((at, key));
    }

    /// Forgets `key`.
    pub fn cancel(&mut self, key: TimerKey) {
        if let Some(old) = self.at.remove(&key) {
            self.order.remove(&(old, key));
        }
    }

    /// Takes one key that is due.
    pub fn due(&mut self, now: Nanos) -> Option<TimerKey> {
        let (at, key) = *self.order.first()?;
        if at > now {
            return None;
        }
        self.order.pop_first();
        self.at.remove(&key);
        Some(key)
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<Nanos> {
        self.order.first().map(|(at, _)| *at)
    }
}
