//! The thread that writes snapshots: it replays the journal behind the newest one by itself, so that the core never waits.

use super::{
    frames::Frame,
    log::{FACTS, JOURNAL},
    published::{Published, Snapshot},
    seglog::{self, Walk},
    skipped::Skipped,
    snapshot,
};
use fafnir_clearing::{State, fact::Fact, fact::Sink};
use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// How long the fact log may take to reach a snapshot that is ready to be written.
const FACTS_DEADLINE: Duration = Duration::from_mins(1);
const FACTS_LOOK: Duration = Duration::from_millis(5);

/// The door to the thread.
#[derive(Debug)]
pub struct Handle {
    wanted: SyncSender<u64>,
    stopping: Arc<AtomicBool>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Asks for a snapshot after a command that is durable; false while the last one is under way.
    pub fn want(&self, seq: u64) -> bool {
        self.wanted.try_send(seq).is_ok()
    }

    /// Ends the thread; a snapshot under way is given up where it is not being written yet.
    pub fn finish(self) {
        self.stopping.store(true, Ordering::Relaxed);
        drop(self.wanted);
        // A thread that panicked has told so.
        let _ended = self.thread.join();
    }
}

/// Starts the thread; `done` is told the oldest snapshot that is left after each try, where one was written.
pub fn start(
    dir: &Path,
    published: Arc<Published>,
    done: impl Fn(Option<u64>) + Send + 'static,
) -> io::Result<Handle> {
    let (wanted, requests) = sync_channel(1);
    let stopping = Arc::new(AtomicBool::new(false));
    let keeper = Keeper { dir: dir.to_owned(), published, stopping: Arc::clone(&stopping) };
    let thread =
        std::thread::Builder::new().name("snapshot".into()).spawn(move || keeper.run(&requests, done))?;
    Ok(Handle { wanted, stopping, thread })
}

struct Keeper {
    dir: PathBuf,
    published: Arc<Published>,
    stopping: Arc<AtomicBool>,
}

/// What a replay says is thrown away: it was said before.
struct Nowhere;

impl Sink for Nowhere {
    fn fact(&mut self, _: Fact) {}
}

impl Keeper {
    fn run(&self, requests: &Receiver<u64>, done: impl Fn(Option<u64>)) {
        while let Ok(seq) = requests.recv() {
            let started = Instant::now();
            match self.take(seq) {
                Ok(Some(oldest)) => {
                    tracing::debug!(seq, ms = started.elapsed().as_millis() as u64, "a snapshot was written");
                    done(Some(oldest));
                }
                Ok(None) => done(None),
                Err(e) => {
                    tracing::error!(error = %e, "the snapshot was not written");
                    done(None);
                }
            }
        }
    }

    /// Writes the snapshot after a command; `None` where the engine stops first.
    fn take(&self, seq: u64) -> io::Result<Option<u64>> {
        let mut state = self.newest(seq)?;
        if !self.replay(&mut state, seq)? || !self.wait_for_facts(state.position())? {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        drop(state);
        write(&self.dir, &self.published, seq, &bytes)
    }

    /// The newest snapshot that can be used, not after a command; genesis where there is none.
    fn newest(&self, seq: u64) -> io::Result<State> {
        for named in snapshot::list(&self.dir)?.iter().filter(|s| s.seq <= seq) {
            match snapshot::decode(&fs::read(&named.path)?) {
                Ok(taken) => return Ok(taken.state),
                Err(e) => {
                    tracing::error!(file = %named.path.display(), error = %e, "the snapshot is damaged");
                }
            }
        }
        Ok(State::new())
    }

    fn replay(&self, state: &mut State, until: u64) -> io::Result<bool> {
        let skipped = Skipped::load(&self.dir).map_err(io::Error::other)?;
        let mut walk = Walk::open(JOURNAL, &self.dir, state.seq() + 1).map_err(io::Error::other)?;
        while state.seq() < until {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            let frame = walk.next_frame().map_err(io::Error::other)?;
            let frame: Frame<'_> =
                frame.ok_or_else(|| io::Error::other("the journal ends before the snapshot"))?;
            if frame.seq != state.seq() + 1 {
                return Err(io::Error::other("the journal begins behind the snapshots"));
            }
            let record = (frame.seq, frame.time_us, frame.payload);
            skipped.step(state, record, &mut Nowhere).map_err(io::Error::other)?;
        }
        Ok(true)
    }

    /// A snapshot never runs ahead of the fact log: the facts behind it can always be made again.
    fn wait_for_facts(&self, position: u64) -> io::Result<bool> {
        let deadline = Instant::now() + FACTS_DEADLINE;
        while self.published.recorded() < position {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if Instant::now() > deadline {
                return Err(io::Error::other("the fact log does not reach the snapshot"));
            }
            std::thread::sleep(FACTS_LOOK);
        }
        // Segments before the last two were synced when they were full; one that was packed meanwhile was, too.
        let segments = seglog::segments(FACTS, &self.dir).map_err(io::Error::other)?;
        for segment in segments.iter().rev().take(2) {
            match File::open(&segment.path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                opened => opened?.sync_data()?,
            }
        }
        Ok(true)
    }
}

/// Writes a snapshot and removes those that nothing needs. Answers the oldest that is left.
pub fn write(dir: &Path, published: &Published, seq: u64, state: &[u8]) -> io::Result<Option<u64>> {
    let hash = snapshot::write(dir, seq, state)?;
    let named = published.note_snapshot(Snapshot { seq, hash });
    snapshot::prune(dir, &named)
}
