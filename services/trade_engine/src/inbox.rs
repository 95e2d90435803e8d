//! What waits for the core's thread: one queue in the order of arrival, with room that only cancels may take.

use parking_lot::{Condvar, Mutex};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// Commands that may wait.
pub const QUEUE_MAX: usize = 8_192;
/// Cancels that may wait beside them.
pub const CANCELS_MAX: usize = 8_192;

/// Which room something takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    Common,
    /// The reserved one.
    Cancel,
    /// Of the engine itself: never refused, there are few of them.
    Own,
}

#[derive(Debug)]
struct Inner<T> {
    queue: VecDeque<(Room, T)>,
    common: usize,
    cancels: usize,
    closed: bool,
}

/// The queue.
#[derive(Debug)]
pub struct Inbox<T> {
    inner: Mutex<Inner<T>>,
    came: Condvar,
}

/// Why something was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    Full,
    Closed,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let inner = Inner { queue: VecDeque::new(), common: 0, cancels: 0, closed: false };
        Self { inner: Mutex::new(inner), came: Condvar::new() }
    }
}

impl<T> Inbox<T> {
    /// Puts something at the end.
    pub fn put(&self, room: Room, item: T) -> Result<(), Refused> {
        let mut inner = self.inner.lock();
        if inner.closed {
            return Err(Refused::Closed);
        }
        match room {
            Room::Common if inner.common == QUEUE_MAX => return Err(Refused::Full),
            Room::Cancel if inner.cancels == CANCELS_MAX => return Err(Refused::Full),
            Room::Common => inner.common += 1,
            Room::Cancel => inner.cancels += 1,
            Room::Own => {}
        }
        inner.queue.push_back((room, item));
        drop(inner);
        self.came.notify_one();
        Ok(())
    }

    /// Takes up to `max` items, in order; waits for the first one at most so long.
    pub fn take(&self, wait: Option<Duration>, max: usize, into: &mut Vec<T>) {
        let mut inner = self.inner.lock();
        let deadline = wait.map(|wait| Instant::now() + wait);
        while inner.queue.is_empty() && !inner.closed {
            let is_late = match deadline {
                None => {
                    self.came.wait(&mut inner);
                    false
                }
                Some(deadline) => self.came.wait_until(&mut inner, deadline).timed_out(),
            };
            if is_late {
                break;
            }
        }
        let count = inner.queue.len().min(max);
        for _ in 0..count {
            let Some((room, item)) = inner.queue.pop_front() else { break };
            match room {
                Room::Common => inner.common -= 1,
                Room::Cancel => inner.cancels -= 1,
                Room::Own => {}
            }
            into.push(item);
        }
    }

    /// Takes nothing more.
    pub fn close(&self) {
        self.inner.lock().closed = true;
        self.came.notify_all();
    }

    /// Closes it and answers what still waits.
    pub fn drain(&self) -> Vec<T> {
        let mut inner = self.inner.lock();
        inner.closed = true;
        inner.queue.drain(..).map(|(_, item)| item).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cancels_have_room_of_their_own_and_keep_their_place() {
        let inbox = Inbox::default();
        for n in 0..QUEUE_MAX {
            inbox.put(Room::Common, n).unwrap();
        }
        assert_eq!(inbox.put(Room::Common, 0), Err(Refused::Full));
        assert_eq!((inbox.put(Room::Cancel, 77_777), inbox.put(Room::Own, 88_888)), (Ok(()), Ok(())));
        let mut taken = Vec::new();
        inbox.take(None, 1, &mut taken);
        assert_eq!((taken.as_slice(), inbox.put(Room::Common, 99_999)), (&[0][..], Ok(())));
        taken.clear();
        inbox.take(None, usize::MAX, &mut taken);
        assert_eq!(taken[QUEUE_MAX - 1..], [77_777, 88_888, 99_999]);
        inbox.take(Some(Duration::from_millis(1)), 1, &mut taken);
        inbox.close();
        inbox.take(None, 1, &mut taken);
        assert_eq!((taken.len(), inbox.put(Room::Own, 1)), (QUEUE_MAX + 2, Err(Refused::Closed)));
    }
}
