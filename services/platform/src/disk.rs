//! How much room the disk of the data directory has, and what is taken while it has little (reliability.md, "Disk").
//!
//! Little room is an alarm first, then only cancels are taken, then nothing that writes: so the last room is there for
//! what is under way. When room is back everything goes on by itself.

use super::{
    config::Settings,
    db,
    error::Error,
    manifest::NOTES,
    tasks::{Schedule, Tasks},
};
use parking_lot::Mutex;
use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering},
    },
    time::Duration,
};

const MIB: u64 = 1024 * 1024;
const PROBE_BYTES: usize = 4_096;
/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A stage is left when so many of its parts more than its limit are free: one file that goes and comes does not toggle it.
const LEAVE_PARTS: u64 = 16;

/// What the room that is left allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Stage {
    Ample = 0,
    /// Somebody must look; everything is taken.
    Alarm = 1,
    /// Only what takes away is taken.
    CancelOnly = 2,
    /// Nothing that writes is taken.
    ReadOnly = 3,
}

impl Stage {
    fn of(number: u8) -> Self {
        match number {
            0 => Self::Ample,
            1 => Self::Alarm,
            2 => Self::CancelOnly,
            _ => Self::ReadOnly,
        }
    }
}

/// What a look at the disk sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    pub free_bytes: u64,
    /// The file system takes no writes.
    pub read_only: bool,
}

/// Free bytes below which a stage begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Limits {
    pub alarm: u64,
    pub cancel_only: u64,
    pub read_only: u64,
}

impl Limits {
    /// Those of the configuration.
    pub fn of(settings: &Settings) -> Self {
        let d = &settings.disk;
        let bytes = |mib: u32| u64::from(mib) * MIB;
        Self {
            alarm: bytes(d.alarm_mib),
            cancel_only: bytes(d.cancel_only_mib),
            read_only: bytes(d.read_only_mib),
        }
    }

    /// The stage of so much room, where it was another one before.
    pub fn judge(self, was: Stage, room: Room) -> Stage {
        if room.read_only {
            return Stage::ReadOnly;
        }
        let stages = [
            (Stage::ReadOnly, self.read_only),
            (Stage::CancelOnly, self.cancel_only),
            (Stage::Alarm, self.alarm),
        ];
        let holds = |(stage, limit): &(Stage, u64)| {
            let more = if was >= *stage { limit / LEAVE_PARTS } else { 0 };
            room.free_bytes < limit.saturating_add(more)
        };
        stages.iter().find(|s| holds(s)).map_or(Stage::Ample, |(stage, _)| *stage)
    }
}

/// Looks at the disk under a path.
///
/// # Errors
/// It cannot be asked.
pub fn room(dir: &Path) -> io::Result<Room> {
    let found = rustix::fs::statvfs(dir)?;
    Ok(Room {
        free_bytes: found.f_bavail.saturating_mul(found.f_frsize),
        read_only: found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY),
    })
}

/// Writes a little into the directory of the notes, and takes it away.
fn probe(dir: &Path) -> io::Result<()> {
    let path = dir.join(NOTES).join("probe");
    let written = File::create(&path).and_then(|mut file| {
        file.write_all(&[1; PROBE_BYTES])?;
        file.sync_all()
    });
    written.and(fs::remove_file(&path))
}

type Look = Box<dyn Fn() -> io::Result<Room> + Send + Sync>;

struct Inner {
    dir: PathBuf,
    limits: Limits,
    look: Look,
    stage: AtomicU8,
    free_bytes: AtomicU64,
    /// What somebody could not write just now; empty: nothing.
    unwritten: Mutex<String>,
    /// The same of somebody who does not try again before there is something to write: the next look does.
    refused: Mutex<String>,
}

/// The disk of a data directory. Cheap to clone; the default one has room.
#[derive(Clone)]
pub struct Disk(Arc<Inner>);

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Disk").field(&self.0.dir).field(&self.stage()).finish()
    }
}

impl Default for Disk {
    fn default() -> Self {
        let ample = Room { free_bytes: u64::MAX, read_only: false };
        Self::seen_by(PathBuf::new(), Limits::default(), move || Ok(ample))
    }
}

impl Disk {
    /// The disk under a data directory.
    pub fn of(settings: &Settings) -> Self {
        let dir = settings.data_dir();
        let seen = dir.clone();
        let disk = Self::seen_by(dir, Limits::of(settings), move || room(&seen));
        disk.look();
        disk
    }

    /// One that is looked at in another way (tests).
    pub fn seen_by(
        dir: PathBuf,
        limits: Limits,
        look: impl Fn() -> io::Result<Room> + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            dir,
            limits,
            look: Box::new(look),
            stage: AtomicU8::new(Stage::Ample as u8),
            free_bytes: AtomicU64::new(u64::MAX),
            unwritten: Mutex::default(),
            refused: Mutex::default(),
        }))
    }

    /// Looks now, and says so where the stage is another one than before.
    pub fn look(&self) {
        let was = self.stage();
        let room = match (self.0.look)() {
            Ok(room) => room,
            Err(e) => {
                tracing::debug!(dir = %self.0.dir.display(), error = %e, "the room of the disk is unknown");
                return;
            }
        };
        self.0.free_bytes.store(room.free_bytes, Ordering::Relaxed);
        if !self.0.refused.lock().is_empty() && probe(&self.0.dir).is_ok() {
            self.accepted();
        }
        let is = self.0.limits.judge(was, room);
        self.0.stage.store(is as u8, Ordering::Release);
        metrics::gauge!("fafnir_disk_stage").set(f64::from(is as u8));
        metrics::gauge!("fafnir_disk_free_bytes").set(room.free_bytes as f64);
        match self.notice() {
            Some(notice) if is > was => tracing::error!("{notice}"),
            Some(notice) if is < was => tracing::warn!("{notice}"),
            None if is < was => tracing::warn!(dir = %self.0.dir.display(), "the disk has room again"),
            _ => {}
        }
    }

    /// Keeps looking until shutdown.
    pub fn watch(&self, tasks: &Tasks) {
        let disk = self.clone();
        tasks.every("room of the disk", Schedule::after(LOOK_EVERY), move || {
            let disk = disk.clone();
            async move {
                // A file system may be slow to answer.
                tokio::task::spawn_blocking(move || disk.look()).await
            }
        });
    }

    /// What the room allows, as it was last seen.
    pub fn stage(&self) -> Stage {
        Stage::of(self.0.stage.load(Ordering::Acquire))
    }

    /// What could not be written, until [`Self::written`]: whoever says so tries again by itself.
    pub fn unwritten(&self, what: &str) {
        what.clone_into(&mut self.0.unwritten.lock());
    }

    /// What could not be written has been.
    pub fn written(&self) {
        self.0.unwritten.lock().clear();
    }

    /// What could not be written, until a look at the disk finds that it takes writes again: an error of the disk can make a
    /// file system refuse them that says nothing of it.
    pub fn refused(&self, what: &str) {
        what.clone_into(&mut self.0.refused.lock());
    }

    /// The disk takes writes again.
    pub fn accepted(&self) {
        self.0.refused.lock().clear();
    }

    /// Whether something could not be written just now.
    pub fn is_unwritten(&self) -> bool {
        !self.0.unwritten.lock().is_empty() || !self.0.refused.lock().is_empty()
    }

    /// What is worth saying about the disk: from the alarm on.
    pub fn notice(&self) -> Option<String> {
        let what = [&self.0.unwritten, &self.0.refused].map(|what| what.lock().clone());
        if let Some(unwritten) = what.iter().find(|what| !what.is_empty()) {
            return Some(format!("{unwritten} cannot be written: nothing is taken until it can"));
        }
        let (dir, free) = (self.0.dir.display(), self.0.free_bytes.load(Ordering::Relaxed) / MIB);
        let limits = self.0.limits;
        let says = |limit: u64, what: &str| {
            Some(format!("the disk of {dir} has {free} MiB free, less than {}: {what}", limit / MIB))
        };
        match self.stage() {
            Stage::Ample => None,
            Stage::Alarm => says(limits.alarm, "make room"),
            Stage::CancelOnly => says(limits.cancel_only, "only cancels are taken"),
            Stage::ReadOnly
                if self.0.free_bytes.load(Ordering::Relaxed)
                    >= limits.read_only.saturating_add(limits.read_only / LEAVE_PARTS) =>
            {
                Some(format!("the file system of {dir} is read-only: nothing that writes is taken"))
            }
            Stage::ReadOnly => says(limits.read_only, "nothing that writes is taken"),
        }
    }

    /// Why not everything is taken: what a service says that is not ready.
    pub fn trouble(&self) -> Option<String> {
        if self.is_unwritten() || self.stage() >= Stage::CancelOnly { self.notice() } else { None }
    }

    /// Whether something may be written.
    ///
    /// # Errors
    /// There is too little room.
    pub fn permit(&self) -> Result<(), Error> {
        match self.stage() {
            Stage::ReadOnly => Err(db::Error::DiskFull.into()),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { alarm: 2_000 * MIB, cancel_only: 1_000 * MIB, read_only: 256 * MIB };

    fn free(mib: u64) -> Room {
        Room { free_bytes: mib * MIB, read_only: false }
    }

    #[test]
    fn the_stage_follows_the_room_and_does_not_toggle_at_a_limit() {
        let judge = |was, mib| LIMITS.judge(was, free(mib));
        assert_eq!(judge(Stage::Ample, 2_000), Stage::Ample);
        assert_eq!(judge(Stage::Ample, 1_999), Stage::Alarm);
        assert_eq!(judge(Stage::Alarm, 999), Stage::CancelOnly);
        assert_eq!(judge(Stage::CancelOnly, 1_001), Stage::CancelOnly);
        assert_eq!(judge(Stage::CancelOnly, 1_063), Stage::Alarm);
        assert_eq!(judge(Stage::Ample, 255), Stage::ReadOnly);
        assert_eq!(judge(Stage::ReadOnly, 260), Stage::ReadOnly);
        assert_eq!(judge(Stage::ReadOnly, 5_000), Stage::Ample);
        assert_eq!(LIMITS.judge(Stage::Ample, Room { read_only: true, ..free(9_000) }), Stage::ReadOnly);
    }

    #[test]
    fn what_is_not_taken_is_said_and_permitted_again_when_room_is_back() {
        let seen = Arc::new(Mutex::new(free(9_000)));
        let looked = Arc::clone(&seen);
        let disk = Disk::seen_by("/data".into(), LIMITS, move || Ok(*looked.lock()));
        let look = |room| {
            *seen.lock() = room;
            disk.look();
            (disk.stage(), disk.trouble(), disk.permit().is_ok())
        };
        assert_eq!(look(free(9_000)), (Stage::Ample, None, true));
        assert_eq!(look(free(1_500)), (Stage::Alarm, None, true));
        let says = "the disk of /data has 999 MiB free, less than 1000: only cancels are taken";
        assert_eq!(look(free(999)), (Stage::CancelOnly, Some(says.to_owned()), true));
        let says = "the disk of /data has 9 MiB free, less than 256: nothing that writes is taken";
        assert_eq!(look(free(9)), (Stage::ReadOnly, Some(says.to_owned()), false));
        let says = "the file system of /data is read-only: nothing that writes is taken";
        let read_only = Room { read_only: true, ..free(9_000) };
        assert_eq!(look(read_only), (Stage::ReadOnly, Some(says.to_owned()), false));
        assert_eq!(look(free(9_000)), (Stage::Ample, None, true));
        disk.unwritten("the journal");
        assert!(disk.trouble().is_some_and(|says| says.starts_with("the journal cannot be written")));
        disk.written();
        assert_eq!(disk.trouble(), None);
    }

    #[test]
    fn a_write_that_was_refused_is_told_until_the_disk_takes_one() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk::seen_by(dir.path().to_owned(), LIMITS, || Ok(free(9_000)));
        disk.refused("the journal");
        disk.look();
        assert!(disk.is_unwritten(), "it has no directory to write to");
        assert!(disk.trouble().is_some_and(|says| says.starts_with("the journal cannot be written")));
        fs::create_dir(dir.path().join(NOTES)).unwrap();
        disk.look();
        assert!(!disk.is_unwritten());
        assert_eq!(fs::read_dir(dir.path().join(NOTES)).unwrap().count(), 0);
    }
}
