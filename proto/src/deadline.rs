//! How long each waits for the next, from the client inwards, in one place: whoever is asked gives up before whoever asks,
//! so that the answer says what is missing.
//!
//! What is done for a request has what its caller still waits ([`within`], [`left`]), less [`HOP`] for each hop; these are the
//! longest of each kind. What nobody waits for has the last four.

use std::{
    future::Future,
    time::{Duration, Instant},
};

/// What a hop keeps of its caller's time for itself: to say what became of the next one.
pub const HOP: Duration = Duration::from_millis(50);

/// The answers of the gateway, and of the doors for operations, begin within this.
pub const ANSWER: Duration = Duration::from_secs(10);
/// What the gateway passes on to auth-service is answered within this …
pub const FORWARDED: Duration = Duration::from_secs(9);
/// … because auth-service's REST answers within this.
pub const FORWARDED_ANSWER: Duration = Duration::from_millis(8_500);
/// A call that may wait for a password to be hashed.
pub const SIGN_IN: Duration = Duration::from_secs(8);
/// The line of those whose password is to be hashed, as it is foreseen …
pub const HASHING: Duration = Duration::from_secs(7);
/// … and until it is hashed: work may take longer than it used to.
pub const HASHED: Duration = Duration::from_millis(7_875);

/// A call that says nothing of its own.
pub const CALL: Duration = Duration::from_secs(2);
/// Connecting with another service.
pub const CONNECT: Duration = Duration::from_millis(1_500);
/// The line of those who want to read or write a database.
pub const STORE_QUEUE: Duration = Duration::from_millis(1_500);
/// A position that is known elsewhere, until it is known here.
pub const POSITION: Duration = Duration::from_secs(1);
/// Redis.
pub const CACHE: Duration = Duration::from_millis(500);

/// Postgres, where nobody waits: a whole statement …
pub const STORE: Duration = Duration::from_secs(12);
/// … which the server ends by itself after this, …
pub const STORE_STATEMENT: Duration = Duration::from_secs(10);
/// … and a wait for a lock within it after this.
pub const STORE_LOCK: Duration = Duration::from_secs(5);
/// NATS, which no request waits for: what is published is stored before.
pub const BUS: Duration = Duration::from_secs(5);

/// Each with those that it waits for.
const WAITS: [(Duration, &[Duration]); 7] = [
    (ANSWER, &[FORWARDED, SIGN_IN, CALL]),
    (FORWARDED, &[FORWARDED_ANSWER]),
    (FORWARDED_ANSWER, &[HASHED, CALL]),
    (SIGN_IN, &[HASHED]),
    (HASHED, &[HASHING]),
    // A call may be the third of a row.
    (CALL.saturating_sub(HOP.saturating_mul(2)), &[CONNECT, STORE_QUEUE, POSITION, CACHE]),
    (STORE, &[STORE_STATEMENT]),
];
const _: () = {
    let mut outer = 0;
    while outer < WAITS.len() {
        let (waits, on) = WAITS[outer];
        let mut inner = 0;
        while inner < on.len() {
            assert!(
                on[inner].as_millis() + 2 * HOP.as_millis() <= waits.as_millis(),
                "a wait lasts longer than who waits"
            );
            inner += 1;
        }
        outer += 1;
    }
    assert!(STORE_LOCK.as_millis() < STORE_STATEMENT.as_millis(), "a wait lasts longer than who waits");
};

tokio::task_local! {
    /// When the caller of the request that this task answers stops to wait.
    static UNTIL: Instant;
}

/// Answers a request whose caller waits for `time`: everything that is done on the way has less.
pub async fn within<F: Future>(time: Duration, answering: F) -> F::Output {
    // A part of it has no more than the whole.
    let until = Instant::now() + time;
    let until = UNTIL.try_with(|outer| until.min(*outer)).unwrap_or(until);
    UNTIL.scope(until, answering).await
}

/// What is left of the caller's time for the next hop; `None` where nobody waits.
pub fn left() -> Option<Duration> {
    let until = UNTIL.try_with(|until| *until).ok()?;
    Some(until.saturating_duration_since(Instant::now()).saturating_sub(HOP))
}

/// What may take `longest` where nobody waits for it, where somebody does.
pub fn at_most(longest: Duration) -> Duration {
    left().map_or(longest, |left| left.min(longest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_part_has_no_more_time_than_the_whole() {
        assert_eq!((left(), at_most(STORE)), (None, STORE));
        within(CALL, async {
            assert!(left().unwrap() <= CALL.saturating_sub(HOP));
            within(ANSWER, async { assert!(at_most(STORE) <= CALL.saturating_sub(HOP)) }).await;
            within(CACHE, async { assert!(left().unwrap() <= CACHE.saturating_sub(HOP)) }).await;
        })
        .await;
        within(Duration::ZERO, async { assert_eq!(left(), Some(Duration::ZERO)) }).await;
    }
}
