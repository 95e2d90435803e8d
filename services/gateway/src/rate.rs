//! How many orders a user may send, and what its queries may cost: a token bucket per user.

use fafnir_proto::id::UserId;
use parking_lot::Mutex;
use std::{collections::HashMap, time::Duration};
use tokio::time::Instant;

/// Users whose bucket is kept; full buckets go first.
const BUCKETS_MAX: usize = 10_000;
/// One order, or one unit of cost, in a bucket.
const ORDER: u64 = 1_000_000;

/// Buckets that hold `burst` orders and refill by `per_second`; 0 a second: no bound.
#[derive(Debug)]
pub struct Limiter {
    per_second: u64,
    capacity: u64,
    buckets: Mutex<HashMap<UserId, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    level: u64,
    at: Instant,
}

/// More orders than allowed: how long until they would pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exceeded {
    pub retry_after: Duration,
}

impl Exceeded {
    /// Whole seconds, at least 1, as `Retry-After` has them.
    pub fn retry_after_s(self) -> u64 {
        self.retry_after.as_secs() + 1
    }
}

impl Limiter {
    pub fn new(per_second: u32, burst: u32) -> Self {
        Self {
            per_second: u64::from(per_second),
            capacity: u64::from(burst.max(1)) * ORDER,
            buckets: Mutex::default(),
        }
    }

    /// Takes `orders` from a user's bucket, all or none.
    pub fn take(&self, user: UserId, orders: u32, now: Instant) -> Result<(), Exceeded> {
        if self.per_second == 0 {
            return Ok(());
        }
        let wanted = u64::from(orders) * ORDER;
        let mut buckets = self.buckets.lock();
        if buckets.len() >= BUCKETS_MAX && !buckets.contains_key(&user) {
            buckets.retain(|_, b| self.level(*b, now) < self.capacity);
        }
        let bucket = buckets.entry(user).or_insert(Bucket { level: self.capacity, at: now });
        *bucket = Bucket { level: self.level(*bucket, now), at: now };
        let Some(rest) = bucket.level.checked_sub(wanted) else {
            let missing = wanted - bucket.level;
            return Err(Exceeded { retry_after: Duration::from_micros(missing / self.per_second) });
        };
        bucket.level = rest;
        Ok(())
    }

    /// Takes so many from a user's bucket, or what there is.
    pub fn drain(&self, user: UserId, orders: u32, now: Instant) {
        if self.take(user, orders, now).is_err()
            && let Some(bucket) = self.buckets.lock().get_mut(&user)
        {
            bucket.level = 0;
        }
    }

    /// Whether one would pass now; takes nothing.
    pub fn has_one(&self, user: UserId, now: Instant) -> Result<(), Exceeded> {
        let level = self.buckets.lock().get(&user).map_or(self.capacity, |bucket| self.level(*bucket, now));
        match ORDER.checked_sub(level) {
            Some(missing) if self.per_second > 0 && missing > 0 => {
                Err(Exceeded { retry_after: Duration::from_micros(missing / self.per_second) })
            }
            _ => Ok(()),
        }
    }

    /// More than the bucket ever holds: waiting does not help.
    pub fn is_beyond(&self, orders: u64) -> bool {
        self.per_second > 0 && orders > self.capacity / ORDER
    }

    fn level(&self, bucket: Bucket, now: Instant) -> u64 {
        let elapsed_us =
            u64::try_from(now.saturating_duration_since(bucket.at).as_micros()).unwrap_or(u64::MAX);
        // One order is a million units and a second a million microseconds, so units per microsecond = orders a second.
        let refill = elapsed_us.saturating_mul(self.per_second);
        bucket.level.saturating_add(refill).min(self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let limiter = Limiter::new(20, 40);
        let (user, other, start) = (UserId::new(Uuid::new_v4()), UserId::new(Uuid::new_v4()), Instant::now());
        for _ in 0..40 {
            assert_eq!(limiter.take(user, 1, start), Ok(()));
        }
        let exceeded = limiter.take(user, 1, start).unwrap_err();
        assert_eq!(exceeded.retry_after, Duration::from_millis(50));
        assert_eq!(exceeded.retry_after_s(), 1);
        assert_eq!(limiter.take(other, 40, start), Ok(()), "another user has a bucket of its own");
        assert_eq!(limiter.has_one(user, start), Err(exceeded));
        assert_eq!(limiter.has_one(UserId::new(Uuid::new_v4()), start), Ok(()));
        let later = start + Duration::from_secs(1);
        assert_eq!((limiter.has_one(user, later), limiter.has_one(user, later)), (Ok(()), Ok(())));
        assert!(limiter.take(user, 21, later).is_err(), "all or none");
        assert_eq!(limiter.take(user, 20, later), Ok(()));
        assert!(limiter.take(user, 1, later).is_err());
        limiter.drain(other, 30, later);
        assert!(limiter.take(other, 10, later).is_err() && limiter.has_one(other, later).is_err());
    }
}
