//! The one thread that owns journal and core: journal → step → answer → facts.
//!
//! A batch is whatever arrived while the last fsync ran. Nothing of a command leaves before the command is durable; an
//! fsync that fails ends the process, because nobody knows what is on disk.

use super::{
    die, image,
    inbox::{Inbox, Refused, Room},
    keeper,
    market::{self, Market},
    message::{Reply, fills, others},
    published::Published,
    recorder,
    recovery::Recovered,
    seglog::{FlushError, SegLog},
    traced::Traced,
};
use fafnir_clearing::{
    State,
    command::{Command, Instruction},
    fact::{Answer, Fact},
    step,
};
use fafnir_platform::{
    Clock, Refusal,
    clock::{DAY_US, SECOND_US},
    disk::Disk,
};
use fafnir_proto::{reason::Reason, subject};
use fafnir_rules::{
    calendar::{Calendar, Session},
    symbol::Symbol,
};
use prost::Message as _;
use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// Commands made durable together.
const BATCH_MAX: usize = 4_096;
/// A symbol's image is published at most every so often.
const IMAGE_INTERVAL_US: i64 = SECOND_US / 10;
/// The clock is looked at again at least so often: it may have been set.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// After a batch that could not be written (a full disk) the thread waits this long.
const NOT_WRITTEN_WAIT: Duration = Duration::from_millis(200);

/// How the thread works.
#[derive(Debug, Clone)]
pub struct Config {
    pub dir: PathBuf,
    pub snapshot_every_commands: u64,
    pub snapshot_every_us: i64,
    /// Keep the journal from genesis.
    pub journal_keep_all: bool,
    /// Keep every fact.
    pub facts_keep_all: bool,
    /// Is told while facts cannot be written.
    pub disk: Disk,
    /// When there are sessions.
    pub calendar: Calendar,
}

/// What the thread is asked.
#[expect(clippy::large_enum_variant, reason = "nearly all of them are commands")]
enum Input {
    Execute {
        command: Command,
        payload: Vec<u8>,
        reply: oneshot::Sender<Result<Reply, Refusal>>,
    },
    /// A question to the core; its work is bounded by what it asks for.
    Question(Box<dyn FnOnce(&State) + Send>),
    /// The keeper is done; the oldest snapshot that is left, where one was written.
    SnapshotDone(Option<u64>),
    /// Writes a last snapshot and ends.
    Stop,
}

/// The door to the thread. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    inbox: Arc<Inbox<Input>>,
    stopping: Arc<AtomicBool>,
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handle")
    }
}

fn stopped() -> Refusal {
    Refusal::unavailable(Reason::ENGINE_STOPPED, "the engine is stopping")
}

impl Handle {
    fn put(&self, room: Room, input: Input) -> Result<(), Refusal> {
        self.inbox.put(room, input).map_err(|refused| match refused {
            Refused::Full => Refusal::exhausted(
                Reason::ENGINE_BUSY,
                "as many requests wait for the engine as may wait; try again",
            ),
            Refused::Closed => stopped(),
        })
    }

    /// Resolves when the command is durable and stepped.
    ///
    /// # Errors
    /// It was not journaled: nothing happened.
    pub async fn execute(&self, room: Room, command: Command) -> Result<Reply, Refusal> {
        let (reply, answer) = oneshot::channel();
        let mut payload = Vec::with_capacity(128);
        command.encode(&mut payload);
        self.put(room, Input::Execute { command, payload, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    /// Lets the thread read the core between two batches.
    ///
    /// # Errors
    /// The engine is busy or stopping.
    pub async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&State) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let question = move |state: &State| {
            // The asker may have given up.
            let _gone = reply.send(question(state));
        };
        self.put(Room::Common, Input::Question(Box::new(question)))?;
        answer.await.map_err(|_| stopped())
    }

    /// Asks the thread to end.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        // A thread that has ended already has nothing to stop.
        let _ended = self.inbox.put(Room::Own, Input::Stop);
    }
}

/// Starts the threads. The receiver resolves when the core's has ended.
pub fn start(
    recovered: Recovered,
    config: Config,
    clock: Clock,
    market: mpsc::Sender<Market>,
) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let inbox = Arc::new(Inbox::default());
    let (ended, has_ended) = oneshot::channel();
    let stopping = Arc::new(AtomicBool::new(false));
    let handle = Handle { inbox: Arc::clone(&inbox), stopping: Arc::clone(&stopping) };
    let now_us = clock.now_us();
    let epoch = now_us.max(recovered.state.time_us() + 1).cast_unsigned();
    let recorder = recorder::start(
        recovered.recorder,
        recorder::Config {
            epoch,
            keep_all: config.facts_keep_all,
            market: market.clone(),
            disk: config.disk.clone(),
            stopping,
        },
    )?;
    let keeper = {
        let inbox = Arc::clone(&inbox);
        keeper::start(&config.dir, Arc::clone(&recovered.published), move |oldest| {
            // An engine that has stopped meanwhile retires nothing.
            let _ended = inbox.put(Room::Own, Input::SnapshotDone(oldest));
        })?
    };
    let mut sequencer = Sequencer {
        snapshot_seq: recovered.base,
        snapshot_us: now_us,
        snapshot_under_way: false,
        unwritten: false,
        images: vec![Image { dirty: true, ..Image::default() }; recovered.state.markets().len()],
        state: recovered.state,
        journal: recovered.journal,
        published: recovered.published,
        recorder,
        config,
        clock,
        market,
        epoch,
    };
    std::thread::Builder::new().name("core".into()).spawn(move || {
        let is_stopped = sequencer.run(&inbox, &keeper);
        // Whoever still waits learns that it ended: their senders go.
        drop(inbox.drain());
        keeper.finish();
        sequencer.finish(is_stopped);
        drop(ended);
    })?;
    Ok((handle, has_ended))
}

/// The published image of a market.
#[derive(Debug, Default, Clone, Copy)]
struct Image {
    dirty: bool,
    seq: u64,
    at_us: i64,
}

struct Sequencer {
    state: State,
    journal: SegLog,
    published: Arc<Published>,
    recorder: recorder::Handle,
    config: Config,
    clock: Clock,
    market: mpsc::Sender<Market>,
    epoch: u64,
    images: Vec<Image>,
    /// Command of the newest snapshot.
    snapshot_seq: u64,
    snapshot_us: i64,
    snapshot_under_way: bool,
    /// The last batch could not be written.
    unwritten: bool,
}

/// A command that waits for the sync of its batch; a timer's has nobody who waits.
struct Waiting {
    seq: u64,
    time_us: i64,
    command: Command,
    reply: Option<oneshot::Sender<Result<Reply, Refusal>>>,
}

impl Sequencer {
    /// Works until it is stopped. False: the recorder has died.
    fn run(&mut self, inbox: &Inbox<Input>, keeper: &keeper::Handle) -> bool {
        self.publish_images(self.clock.now_us());
        let mut inputs = Vec::new();
        loop {
            let wait = self.due_us().map(|due| {
                let wait = due.saturating_sub(self.clock.now_us());
                Duration::from_micros(u64::try_from(wait).unwrap_or(0)).min(LOOK_EVERY)
            });
            inbox.take(wait, BATCH_MAX, &mut inputs);
            let mut batch = Vec::with_capacity(inputs.len());
            let mut questions = Vec::new();
            let mut stop = false;
            self.take_timers(&mut batch);
            for input in inputs.drain(..) {
                match input {
                    Input::Execute { command, payload, reply } => {
                        self.push(&mut batch, command, &payload, Some(reply));
                    }
                    Input::Question(question) => questions.push(question),
                    Input::SnapshotDone(oldest) => self.retire(oldest),
                    Input::Stop => stop = true,
                }
            }
            if !self.commit(batch) {
                return false;
            }
            for question in questions {
                question(&self.state);
            }
            let now = self.clock.now_us();
            self.publish_images(now);
            if stop {
                return true;
            }
            self.snapshot_if_due(now, keeper);
        }
    }

    /// When the thread must wake without being asked.
    fn due_us(&self) -> Option<i64> {
        let session = match self.state.session() {
            Session::Always => self.day_end_due_us(),
            _ => self.config.calendar.next_change_us(self.state.session_us()),
        };
        let image = self.images.iter().filter(|i| i.dirty).map(|i| i.at_us + IMAGE_INTERVAL_US).min();
        let behind = self.state.seq() > self.snapshot_seq && !self.snapshot_under_way;
        let snapshot = behind.then(|| self.snapshot_us.saturating_add(self.config.snapshot_every_us));
        let reopening = self.state.paused().map(|(_, pause)| pause.due_us).min();
        [session, image, snapshot, self.state.next_expiry_us(), reopening].into_iter().flatten().min()
    }

    /// When the day ends where there are no sessions: with the first command days begin.
    fn day_end_due_us(&self) -> Option<i64> {
        let began_us = self.state.day_end_us();
        (began_us > 0).then(|| (began_us / DAY_US + 1).saturating_mul(DAY_US))
    }

    fn push(
        &mut self,
        batch: &mut Vec<Waiting>,
        command: Command,
        payload: &[u8],
        reply: Option<oneshot::Sender<Result<Reply, Refusal>>>,
    ) {
        let last = self.journal.last_time_us().max(self.state.time_us());
        let time_us = self.clock.now_us().max(last + 1);
        let seq = self.journal.push(time_us, payload);
        batch.push(Waiting { seq, time_us, command, reply });
    }

    fn take_timers(&mut self, batch: &mut Vec<Waiting>) {
        let now = self.clock.now_us();
        let sessions = self.config.calendar.due(self.state.session(), self.state.session_us(), now);
        let mut due: Vec<_> =
            sessions.into_iter().map(|session| Instruction::SetSession { session }).collect();
        let is_always = self.state.session() == Session::Always && due.is_empty();
        if is_always && self.day_end_due_us().is_some_and(|at| now >= at) {
            due.push(Instruction::DayEnd);
        }
        if self.state.next_expiry_us().is_some_and(|at| now >= at) {
            due.push(Instruction::Expire);
        }
        let reopening: Vec<Symbol> =
            self.state.paused().filter(|(_, pause)| now >= pause.due_us).map(|(s, _)| s.clone()).collect();
        due.extend(reopening.into_iter().map(|symbol| Instruction::Reopen { symbol }));
        for instruction in due {
            let command = Command { user: Uuid::nil(), agent: false, id: None, trace: None, instruction };
            let mut payload = Vec::new();
            command.encode(&mut payload);
            self.push(batch, command, &payload, None);
        }
    }

    /// Makes the batch durable, steps it, answers, hands its facts on. False: nobody takes them.
    fn commit(&mut self, batch: Vec<Waiting>) -> bool {
        let commands = batch.len();
        let mut traced = Traced::of(batch.iter().map(|w| w.command.trace.as_ref().map(|t| &t[..])));
        if let Err(e) = self.journal.flush(true) {
            match e {
                FlushError::Lost(e) => die("the journal", &e),
                FlushError::NotWritten(e) => {
                    if !std::mem::replace(&mut self.unwritten, true) {
                        tracing::error!(error = %e, "the journal cannot be written, commands are refused");
                    }
                    self.config.disk.refused("the journal");
                    for reply in batch.into_iter().filter_map(|w| w.reply) {
                        let message = "the engine's journal cannot be written; try again";
                        let refusal = Refusal::unavailable(Reason::JOURNAL_UNWRITABLE, message);
                        // The asker may have given up.
                        let _gone = reply.send(Err(refusal));
                    }
                    std::thread::sleep(NOT_WRITTEN_WAIT);
                    return true;
                }
            }
        }
        traced.part("journal written", commands);
        self.published.note_journaled(self.journal.last());
        if !batch.is_empty() && std::mem::take(&mut self.unwritten) {
            self.config.disk.accepted();
            tracing::warn!("the journal is written again");
        }
        let mut facts: recorder::Batch = Vec::new();
        let mut answers = Vec::with_capacity(batch.len());
        let mut new_facts: Vec<Fact> = Vec::new();
        for waiting in batch {
            let Waiting { seq, time_us, command, reply } = waiting;
            let answer = step(&mut self.state, seq, time_us, &command, &mut new_facts);
            if let Some(reply) = reply {
                answers.push((reply, self.reply(&command, answer, &new_facts)));
            }
            facts.extend(new_facts.drain(..).map(|fact| (seq, fact)));
        }
        if !facts.is_empty() {
            self.images.resize(self.state.markets().len(), Image { dirty: true, ..Image::default() });
            for (market, _) in facts.iter().filter_map(|(_, fact)| fact.at) {
                self.images[market as usize].dirty = true;
            }
            // Before the answers leave: who has one reads nothing that is older.
            self.published.note_stepped(facts.iter().map(|(_, fact)| fact), self.state.position());
        }
        traced.part("commands stepped", commands);
        for (reply, answer) in answers {
            // The asker may have given up: the outcome is found by its id.
            let _gone = reply.send(Ok(answer));
        }
        self.recorder.record(facts)
    }

    fn reply(&self, command: &Command, answer: Answer, facts: &[Fact]) -> Reply {
        let (mut user, mut filled, mut siblings) = (command.user, Vec::new(), Vec::new());
        if let Answer::Done(done) = &answer
            && let Some(order) = &done.order
        {
            user = self.state.owner(order.owner).map_or(user, |u| u.id);
            if order.filled_e4 > 0 {
                filled = fills(facts, order.id);
            }
            siblings = others(facts, order);
        }
        Reply { position: self.state.position(), answer, user, fills: filled, others: siblings }
    }

    fn publish_images(&mut self, now: i64) {
        for (market, image) in self.state.markets().iter().zip(&mut self.images) {
            if !image.dirty || now < image.at_us.saturating_add(IMAGE_INTERVAL_US) {
                continue;
            }
            *image = Image { dirty: false, seq: image.seq + 1, at_us: now };
            let message = image::book(market, self.epoch, image.seq, self.state.time_us());
            let payload = message.encode_to_vec().into();
            let symbol = message.symbol.clone();
            let subject = subject::book(&symbol);
            self.published.put_image(message);
            let message = Market::Image { symbol, subject, payload };
            market::send(&self.market, message);
        }
    }

    fn snapshot_if_due(&mut self, now: i64, keeper: &keeper::Handle) {
        let behind = self.state.seq() - self.snapshot_seq;
        let is_due = behind >= self.config.snapshot_every_commands
            || now >= self.snapshot_us.saturating_add(self.config.snapshot_every_us);
        if behind == 0 || !is_due || self.snapshot_under_way {
            return;
        }
        let seq = self.state.seq();
        if keeper.want(seq) {
            (self.snapshot_seq, self.snapshot_us, self.snapshot_under_way) = (seq, now, true);
        }
    }

    /// Drops what the oldest snapshot covers.
    fn retire(&mut self, oldest: Option<u64>) {
        self.snapshot_under_way = false;
        let Some(oldest) = oldest.filter(|_| !self.config.journal_keep_all) else { return };
        match self.journal.drop_before(oldest + 1) {
            Ok(0) => {}
            Ok(segments) => tracing::debug!(segments, "segments of the journal dropped"),
            Err(e) => tracing::warn!(error = %e, "segments of the journal could not be dropped"),
        }
    }

    /// Lets the fact log come to its end and writes the live state as a last snapshot.
    fn finish(self, is_stopped: bool) {
        let is_recorded = self.recorder.finish();
        let is_covered = self.published.snapshot().seq == self.state.seq();
        if !is_stopped || !is_recorded || is_covered {
            return;
        }
        let mut bytes = Vec::new();
        self.state.encode(&mut bytes);
        if let Err(e) = keeper::write(&self.config.dir, &self.published, self.state.seq(), &bytes) {
            tracing::warn!(error = %e, "no snapshot at the end; the journal has everything");
        }
    }
}
