//! The writer: gathers changes of the store, commits them together, and keeps the file in order meanwhile.

use super::Stored;
use super::store::erase::{PART_BYTES, PART_BYTES_FULL};
use super::store::{CommitError, Store};
use crate::core::effects::{StoreOp, StreamId};
use parking_lot::Mutex;
use std::sync::mpsc as blocking;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Changes of one commit.
const COMMIT_MAX: usize = 20_000;
/// Time between two parts of what was removed that are taken out of the store while others write.
const ERASE_EVERY: Duration = Duration::from_millis(20);
/// Parts that are taken out in a row on a full disk.
const ERASES_FULL: usize = 256;
/// Time that changes nobody waits for may stay unwritten.
pub(super) const LAZY: Duration = Duration::from_millis(20);
/// What a commit takes on average up to which the core does so: whatever comes meanwhile waits for it.
const ALONE_TIME: Duration = Duration::from_micros(400);
/// What a commit is believed to take before some were measured.
const COMMIT_TIME: Duration = Duration::from_millis(1);
/// The newest measurement counts for one part in so many.
const SMOOTHING: u32 = 8;
/// Time between two looks at the free space.
const ROOM_LOOK: Duration = Duration::from_millis(250);
/// Time between two tries to write what found no room.
const FULL_RETRY: Duration = Duration::from_millis(200);

/// Changes of the store in order. One without any lets the thread look what else there is to do.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) ops: Vec<StoreOp>,
    pub(super) upto: u64,
    /// Somebody waits for it, or it has waited itself.
    pub(super) urgent: bool,
}

/// Writes changes to the store: on a thread of its own, and on the core's where that has nothing else to do.
pub(super) struct Writer {
    store: Store,
    pub(super) stored: mpsc::UnboundedSender<Stored>,
    /// Free bytes below which there is no room for new messages.
    min_free: u64,
    room: bool,
    looked: Option<Instant>,
    /// The file is longer than it need be.
    long: bool,
    /// When it goes on to take out what was removed, or to make the file shorter.
    tidy_from: Instant,
    /// Why nothing is written any more: whoever tries hears it, and the broker ends.
    failed: Option<String>,
    /// What a commit takes on average.
    commit_takes: Duration,
    /// Its thread waits for changes alone.
    sleeps: bool,
    commit_seconds: metrics::Histogram,
}

/// Gathers changes and commits them together until nothing will come any more.
pub(super) fn run(writer: &Mutex<Writer>, batches: &blocking::Receiver<Batch>) {
    let outcome = write_loop(writer, batches);
    let mut writer = writer.lock();
    if let Err(reason) = outcome {
        // The broker may have ended.
        let _ = writer.stored.send(Stored::Failed(reason));
    } else {
        writer.store.mark_if_due(true);
    }
}

fn write_loop(shared: &Mutex<Writer>, batches: &blocking::Receiver<Batch>) -> Result<(), String> {
    let mut open = true;
    while open {
        let patience = shared.lock().rest();
        let first = match patience {
            Some(wait) => batches.recv_timeout(wait),
            None => batches.recv().map_err(|_| blocking::RecvTimeoutError::Disconnected),
        };
        let mut writer = shared.lock();
        match first {
            Ok(group) => open = writer.take(group, batches)?,
            Err(blocking::RecvTimeoutError::Timeout) => {
                writer.tidy()?;
                writer.store.mark_if_due(false);
            }
            Err(blocking::RecvTimeoutError::Disconnected) => return Ok(()),
        }
    }
    Ok(())
}

impl Writer {
    pub(super) fn new(store: Store, stored: mpsc::UnboundedSender<Stored>, min_free: u64) -> Self {
        let commit_seconds = metrics::histogram!("fafnir_broker_commit_seconds");
        let tidy_from = Instant::now();
        Self {
            store,
            stored,
            min_free,
            room: true,
            looked: None,
            long: false,
            tidy_from,
            failed: None,
            commit_takes: COMMIT_TIME,
            sleeps: false,
            commit_seconds,
        }
    }

    /// Writes a group and what there is besides; false when nothing will come any more.
    fn take(&mut self, mut group: Batch, batches: &blocking::Receiver<Batch>) -> Result<bool, String> {
        self.sleeps = false;
        self.look();
        let open = gather(&mut group, batches, self.store.log_bytes());
        if group.ops.is_empty() {
            return Ok(open);
        }
        if self.room && self.store.is_short() {
            self.set_room(false);
        }
        self.write(&mut group, batches)?;
        self.wrote(&group.ops);
        if self.stored.send(Stored::Durable(group.upto)).is_err() && !open {
            return Ok(false);
        }
        if self.store.owes() && self.tidy_from <= Instant::now() {
            self.tidy()?;
            self.tidy_from = Instant::now() + ERASE_EVERY;
        }
        self.store.mark_if_due(!open);
        Ok(open)
    }

    /// Notes what was written.
    fn wrote(&mut self, ops: &[StoreOp]) {
        let frees = |op: &StoreOp| matches!(op, StoreOp::MessagesRemove { .. });
        self.long = self.long || ops.iter().any(frees) && self.store.is_long(self.room);
    }

    /// Writes a few changes where there is room, nothing else is owed and a commit is short; false where nothing was done.
    pub(super) fn write_alone(&mut self, ops: &[StoreOp]) -> bool {
        if self.commit_takes > ALONE_TIME || self.store.owes() || self.long {
            return false;
        }
        self.look();
        if !self.room || self.store.is_short() {
            return false;
        }
        match self.commit(ops) {
            Ok(()) => {
                self.wrote(ops);
                true
            }
            // Nothing of it is on disk. The thread knows what to do where there is no room, and that nothing is written any
            // more after a failure.
            Err(_) => false,
        }
    }

    /// Commits; after one that failed for another reason than a full disk there is none.
    fn commit(&mut self, ops: &[StoreOp]) -> Result<(), CommitError> {
        if let Some(reason) = &self.failed {
            return Err(CommitError::Failed(reason.clone()));
        }
        let started = Instant::now();
        let outcome = self.store.commit(ops);
        let took = started.elapsed();
        self.commit_takes = (self.commit_takes * (SMOOTHING - 1) + took) / SMOOTHING;
        self.commit_seconds.record(took);
        if let Err(CommitError::Failed(reason)) = &outcome {
            self.failed = Some(reason.clone());
        }
        outcome
    }

    /// Whether its thread is to be woken because there is something to do besides.
    pub(super) fn wakes(&mut self) -> bool {
        let wakes = self.sleeps && self.patience().is_some();
        self.sleeps = self.sleeps && !wakes;
        wakes
    }

    /// How long its thread waits for changes now.
    fn rest(&mut self) -> Option<Duration> {
        self.look();
        let patience = self.patience();
        self.sleeps = patience.is_none();
        patience
    }

    /// How long it waits for changes before it does something else; nothing where there is nothing to do.
    fn patience(&self) -> Option<Duration> {
        let pause = self.tidy_from.saturating_duration_since(Instant::now());
        if self.store.owes() {
            return Some(pause);
        }
        match (self.long, self.room) {
            (true, _) => Some(pause.max(LAZY)),
            (_, false) => Some(ROOM_LOOK),
            _ => self.store.mark_due(),
        }
    }

    /// Takes a part of what was removed out of the file, or makes it shorter.
    fn tidy(&mut self) -> Result<(), String> {
        if !self.room {
            // What the log has is to be in the file before it needs more.
            self.store.checkpoint();
        }
        if !self.store.owes() {
            let goes = self.long && self.store.shorten();
            // Where there is no room it has to go some time.
            self.long = self.long && (goes || !self.room) && self.store.is_long(self.room);
            if !goes {
                self.tidy_from = Instant::now() + FULL_RETRY;
            }
            return Ok(());
        }
        match self.store.erase(if self.room { PART_BYTES } else { PART_BYTES_FULL }) {
            Ok(()) => self.long = !self.store.owes() && self.store.is_long(self.room),
            Err(CommitError::Full) => {
                self.set_room(false);
                self.store.make_way();
                self.tidy_from = Instant::now() + FULL_RETRY;
            }
            Err(CommitError::Failed(reason)) => return Err(reason),
        }
        Ok(())
    }

    /// Commits; what finds no room is tried again until there is some or the broker ends: nothing is dropped.
    fn write(&mut self, group: &mut Batch, batches: &blocking::Receiver<Batch>) -> Result<(), String> {
        loop {
            let fits = self.room || self.store.fits(&group.ops);
            let outcome = if fits { self.commit(&group.ops) } else { Err(CommitError::Full) };
            match outcome {
                Ok(()) => return Ok(()),
                Err(CommitError::Failed(reason)) => return Err(reason),
                Err(CommitError::Full) => {}
            }
            self.set_room(false);
            if self.store.make_way() || self.relieve(group)? {
                continue;
            }
            match batches.recv_timeout(FULL_RETRY) {
                Ok(more) => group.take(more),
                Err(blocking::RecvTimeoutError::Timeout) => {}
                Err(blocking::RecvTimeoutError::Disconnected) => {
                    return Err("the disk is full; what was not acknowledged is lost".into());
                }
            }
        }
    }

    /// Takes out what the group removes and what was removed before; whether that made room.
    fn relieve(&mut self, group: &mut Batch) -> Result<bool, String> {
        let mut made = false;
        match self.store.relieve(&group.ops) {
            Ok(()) => group.forget_dropped(),
            Err(CommitError::Full) => {}
            Err(CommitError::Failed(reason)) => return Err(reason),
        }
        for _ in 0..ERASES_FULL {
            if !self.store.owes() {
                break;
            }
            // What the log has is to be in the database before it needs more.
            self.store.checkpoint();
            match self.store.erase(PART_BYTES_FULL) {
                Ok(()) => made = true,
                Err(CommitError::Full) => break,
                Err(CommitError::Failed(reason)) => return Err(reason),
            }
        }
        self.store.checkpoint();
        Ok(made)
    }

    fn look(&mut self) {
        let now = Instant::now();
        if self.looked.is_some_and(|at| now < at + ROOM_LOOK) {
            return;
        }
        self.looked = Some(now);
        match self.store.free_bytes() {
            Ok(free) => {
                let room = free >= self.min_free && !self.store.is_short() && self.has_reserve();
                self.set_room(room);
            }
            Err(reason) => tracing::warn!(reason, "the free space of the broker's store is unknown"),
        }
    }

    /// Whether something is kept for when the disk is full; it is put there again as soon as that is possible.
    fn has_reserve(&mut self) -> bool {
        if !self.store.has_reserve()
            && let Err(error) = self.store.keep_reserve()
        {
            tracing::debug!(%error, "nothing can be kept in reserve yet");
        }
        self.store.has_reserve()
    }

    fn set_room(&mut self, room: bool) {
        if room == self.room {
            return;
        }
        self.room = room;
        if room {
            tracing::info!("there is room for new messages again");
        } else {
            tracing::error!("the disk of the broker's store is full: new messages are refused");
            self.store.brace();
            self.long |= self.store.is_long(false);
        }
        // The broker may have ended.
        let _ = self.stored.send(Stored::Room(room));
    }
}

impl Batch {
    pub(super) fn take(&mut self, more: Batch) {
        self.ops.extend(more.ops);
        self.upto = self.upto.max(more.upto);
        self.urgent |= more.urgent;
    }

    /// Leaves out what changes streams that are gone.
    fn forget_dropped(&mut self) {
        let dropped: Vec<StreamId> = self.ops.iter().filter_map(StoreOp::dropped).collect();
        if !dropped.is_empty() {
            self.ops.retain(|op| op.stream().is_none_or(|stream| !dropped.contains(&stream)));
        }
    }
}

/// Adds to a group what is there already, and what comes within [`LAZY`] where nobody waits, up to so many bytes of messages;
/// false when nothing will come any more.
fn gather(group: &mut Batch, batches: &blocking::Receiver<Batch>, bytes_max: u64) -> bool {
    let until = Instant::now() + LAZY;
    let bytes = |ops: &[StoreOp]| ops.iter().map(|op| op.bytes() as u64).sum::<u64>();
    let mut sum = bytes(&group.ops);
    while group.ops.len() < COMMIT_MAX && sum < bytes_max {
        let next = if group.urgent {
            batches.try_recv().map_err(|error| error == blocking::TryRecvError::Disconnected)
        } else {
            batches
                .recv_timeout(until.saturating_duration_since(Instant::now()))
                .map_err(|error| error == blocking::RecvTimeoutError::Disconnected)
        };
        match next {
            Ok(batch) => {
                sum += bytes(&batch.ops);
                group.take(batch);
            }
            Err(disconnected) => return !disconnected,
        }
    }
    true
}

#[cfg(test)]
mod tests;
