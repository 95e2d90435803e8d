//! Connection honesty: what is known about the two connections, how old the market data is, how fast orders answer.

use std::collections::VecDeque;

/// Without a sign that the book is current for this long, it is stale (microseconds).
pub const STALE_US: i64 = 5_000_000;
/// A quiet feed is checked against the gateway after this long (microseconds).
pub const VERIFY_US: i64 = 2_500_000;
/// A check that has no answer after this long is asked again (microseconds).
pub const VERIFY_RETRY_US: i64 = 2_000_000;
/// Order round trips kept for the percentiles.
pub const ROUND_TRIPS_MAX: usize = 200;

/// The two connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// The gateway: orders, snapshots, private updates.
    Grpc,
    /// Public market data.
    Nats,
}

impl Wire {
    pub fn name(self) -> &'static str {
        match self {
            Self::Grpc => "gRPC",
            Self::Nats => "NATS",
        }
    }
}

/// The state of a connection, from its own events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Link {
    #[default]
    Connecting,
    Up,
    Down,
}

/// Both connections and the order round trips.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    pub grpc: Link,
    pub nats: Link,
    /// Since when market data have no connection, microseconds since 1970.
    pub nats_down_us: Option<i64>,
    /// Why each was down last, to report a reason once and not at every attempt.
    reported: [String; 2],
    round_trips_us: VecDeque<i64>,
}

impl Links {
    pub fn get(&self, wire: Wire) -> Link {
        match wire {
            Wire::Grpc => self.grpc,
            Wire::Nats => self.nats,
        }
    }

    pub fn set(&mut self, wire: Wire, link: Link, now_us: i64) {
        match wire {
            Wire::Grpc => self.grpc = link,
            Wire::Nats => {
                self.nats = link;
                // Trying again ends no silence.
                let since = self.nats_down_us.or((link == Link::Down).then_some(now_us));
                self.nats_down_us = since.filter(|_| link != Link::Up);
            }
        }
    }

    /// Keeps the reason why a connection is down; true when it is new.
    pub fn report_down(&mut self, wire: Wire, why: &str) -> bool {
        let reported = &mut self.reported[wire as usize];
        let is_new = reported != why || why.is_empty();
        why.clone_into(reported);
        is_new
    }

    /// The connection stands: the next loss is reported whatever its reason.
    pub fn forget_down(&mut self, wire: Wire) {
        self.reported[wire as usize].clear();
    }

    pub fn round_trip(&mut self, elapsed_us: i64) {
        if self.round_trips_us.len() >= ROUND_TRIPS_MAX {
            self.round_trips_us.pop_front();
        }
        self.round_trips_us.push_back(elapsed_us.max(0));
    }

    /// Median and 99th percentile of the last round trips, in microseconds.
    pub fn percentiles(&self) -> Option<(i64, i64)> {
        let mut sorted: Vec<i64> = self.round_trips_us.iter().copied().collect();
        sorted.sort_unstable();
        let at =
            |percent: usize| sorted.get((sorted.len() * percent).div_ceil(100).saturating_sub(1)).copied();
        at(50).zip(at(99))
    }
}

/// Whether the book on the screen is the market's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Freshness {
    /// Nothing has arrived for this symbol yet.
    Waiting,
    Live,
    Stale(Reason),
}

/// Why it is not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    NatsDown,
    /// No update, and nobody who confirms that there is none to have.
    Silent,
    /// The gateway has a newer book than the feed brought.
    Behind,
}

impl Reason {
    pub fn sentence(self) -> &'static str {
        match self {
            Self::NatsDown => "the market-data connection is down",
            Self::Silent => "no market data arrives",
            Self::Behind => "the market-data feed lags behind the exchange",
        }
    }
}

/// What is known about the age of the book of one symbol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Feed {
    /// When the book was last known to be current.
    pub confirmed_us: Option<i64>,
    /// Since when the gateway is known to be ahead of the feed.
    pub behind_since_us: Option<i64>,
    /// When a check was sent that has no answer yet.
    pub verify_us: Option<i64>,
    /// From the engine's clock to ours at the last image, microseconds.
    pub delay_us: Option<i64>,
    /// The last state reported to the user, to notice a change.
    pub was_stale: bool,
}

impl Feed {
    pub fn freshness(&self, now_us: i64, nats: Link) -> Freshness {
        let Some(confirmed) = self.confirmed_us else {
            return if nats == Link::Down { Freshness::Stale(Reason::NatsDown) } else { Freshness::Waiting };
        };
        if nats != Link::Up {
            return Freshness::Stale(Reason::NatsDown);
        }
        if self.behind_since_us.is_some_and(|since| now_us - since >= VERIFY_US) {
            return Freshness::Stale(Reason::Behind);
        }
        if now_us - confirmed >= STALE_US { Freshness::Stale(Reason::Silent) } else { Freshness::Live }
    }

    /// Time since the book was last known to be current, microseconds.
    pub fn age_us(&self, now_us: i64) -> Option<i64> {
        self.confirmed_us.map(|at| (now_us - at).max(0))
    }

    /// How long the book is stale, microseconds; none while it is not.
    pub fn stale_us(&self, now_us: i64, links: &Links) -> Option<i64> {
        let Freshness::Stale(_) = self.freshness(now_us, links.nats) else { return None };
        let since = [self.confirmed_us, self.behind_since_us, links.nats_down_us].into_iter().flatten().min();
        since.map(|since| (now_us - since).max(0))
    }

    /// True when the gateway should be asked whether the book is current.
    pub fn wants_check(&self, now_us: i64) -> bool {
        let quiet = self.confirmed_us.is_none_or(|at| now_us - at >= VERIFY_US);
        quiet && self.verify_us.is_none_or(|at| now_us - at >= VERIFY_RETRY_US)
    }

    /// When [`Feed::freshness`], or with `can_check` [`Feed::wants_check`], changes by the passing of time alone.
    pub fn wake_us(&self, now_us: i64, can_check: bool) -> Option<i64> {
        let quiet = self.confirmed_us.map_or(now_us, |at| at + VERIFY_US);
        let check = self.verify_us.map_or(quiet, |asked| quiet.max(asked + VERIFY_RETRY_US));
        let stale = self.confirmed_us.map(|at| at + STALE_US).filter(|t| *t > now_us);
        let behind = self.behind_since_us.map(|at| at + VERIFY_US).filter(|t| *t > now_us);
        [can_check.then_some(check), stale, behind].into_iter().flatten().min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let mut links = Links::default();
        assert_eq!(links.percentiles(), None);
        for ms in 1..=100 {
            links.round_trip(ms * 1_000);
        }
        assert_eq!(links.percentiles(), Some((50_000, 99_000)));
    }

    #[test]
    fn a_book_is_stale_when_nobody_confirms_it() {
        let mut feed = Feed::default();
        assert_eq!(feed.freshness(0, Link::Connecting), Freshness::Waiting);
        feed.confirmed_us = Some(0);
        assert_eq!(feed.freshness(1, Link::Up), Freshness::Live);
        assert_eq!(feed.freshness(1, Link::Down), Freshness::Stale(Reason::NatsDown));
        assert_eq!(feed.freshness(STALE_US, Link::Up), Freshness::Stale(Reason::Silent));
        feed.behind_since_us = Some(0);
        assert_eq!(feed.freshness(VERIFY_US, Link::Up), Freshness::Stale(Reason::Behind));
    }
}
