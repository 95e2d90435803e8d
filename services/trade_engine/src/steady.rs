//! The exchange's own time: the wall clock, but never backwards. Where the wall clock is set back, or stands behind what the
//! journal has, it goes on from there at the pace of the machine until the wall clock has come to it again: a pause ends, an
//! order expires and a book is published whatever happens to the clock.

use fafnir_platform::Clock;
use parking_lot::Mutex;
use std::time::Instant;

/// Last time that was told, and when by a clock that nobody sets.
#[derive(Debug, Clone, Copy)]
struct Told {
    us: i64,
    at_us: i64,
}

/// A clock that begins at least at `from_us` and never runs backwards.
pub fn steady(wall: Clock, from_us: i64) -> Clock {
    let began = Instant::now();
    let machine = Clock::from_fn(move || i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX));
    paced(wall, machine, from_us)
}

fn paced(wall: Clock, machine: Clock, from_us: i64) -> Clock {
    let told = Mutex::new(Told { us: from_us, at_us: machine.now_us() });
    Clock::from_fn(move || {
        let mut told = told.lock();
        let at_us = machine.now_us();
        let passed = told.us.saturating_add(at_us.saturating_sub(told.at_us).max(0));
        let us = wall.now_us().max(passed);
        *told = Told { us, at_us };
        us
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_platform::clock::{DAY_US, SECOND_US};
    use std::sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    };

    #[test]
    fn time_goes_on_whatever_happens_to_the_wall_clock() {
        let (wall, machine) = (Arc::new(AtomicI64::new(100 * DAY_US)), Arc::new(AtomicI64::new(0)));
        let clock = {
            let reads = |of: &Arc<AtomicI64>| {
                let of = Arc::clone(of);
                Clock::from_fn(move || of.load(Ordering::Relaxed))
            };
            paced(reads(&wall), reads(&machine), 101 * DAY_US)
        };
        let after = |wall_us: i64, seconds: i64| {
            wall.store(wall_us, Ordering::Relaxed);
            machine.fetch_add(seconds * SECOND_US, Ordering::Relaxed);
            clock.now_us()
        };
        assert_eq!(after(100 * DAY_US, 0), 101 * DAY_US, "the journal was ahead");
        assert_eq!(after(100 * DAY_US, 5), 101 * DAY_US + 5 * SECOND_US);
        assert_eq!(after(104 * DAY_US, 1), 104 * DAY_US, "set forth by days");
        assert_eq!(after(90 * DAY_US, 7), 104 * DAY_US + 7 * SECOND_US, "set back by weeks");
        assert_eq!(after(104 * DAY_US + 9 * SECOND_US, 1), 104 * DAY_US + 9 * SECOND_US, "it has come to it");
    }
}
