//! The one thread that owns journal and books: journal → apply → publish.
//!
//! A batch is whatever arrived while the last fsync ran. Nothing of a record leaves before the record is durable; an
//! fsync that fails ends the process, because nobody knows what is on disk.

use super::{
    domain::{Engine, Fact},
    published::Published,
    record::{Listing, Record},
    recovery::{OutcomeLog, Recovered},
    seglog::{FlushError, SegLog},
    snapshot, state, wire,
};
use bytes::Bytes;
use fafnir_platform::{
    Clock, Refusal,
    clock::{DAY_US, SECOND_US},
};
use fafnir_proto::{reason::Reason, subject, v1};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    time::Duration,
};
use tokio::sync::{mpsc, oneshot};

/// Requests that wait for the thread.
const QUEUE_MAX: usize = 1_024;
/// Commands in one request.
pub const COMMANDS_MAX: usize = 1_000;
/// Records made durable together.
const BATCH_RECORDS_MAX: usize = 4_096;
/// Market data that waits to be published; more is dropped, clients fill gaps by asking.
pub const MARKET_QUEUE_MAX: usize = 4_096;
/// A symbol's image is published at most every so often.
const IMAGE_INTERVAL_US: i64 = SECOND_US / 10;
/// After a batch that could not be written (a full disk) the thread waits this long.
const NOT_WRITTEN_WAIT: Duration = Duration::from_millis(200);
/// Open order ids in a status answer.
const STATUS_ORDERS_MAX: usize = 50_000;

/// What the thread is asked.
#[derive(Debug)]
pub enum Input {
    /// Commands of order-service, in order. Answers the last `cmd_seq` in the journal.
    Submit {
        commands: Vec<(u64, Record)>,
        reply: oneshot::Sender<Result<u64, Refusal>>,
    },
    /// Listings as they now are; answered when they hold.
    Listings {
        listings: Vec<Listing>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    },
    Status {
        reply: oneshot::Sender<v1::EngineStatusReply>,
    },
    /// A question to the books; its work is bounded by what it asks for.
    Question(Question),
    /// A snapshot is on disk; the oldest one kept stands at this record.
    SnapshotDone {
        oldest: Option<u64>,
    },
    /// Writes a last snapshot and ends.
    Stop,
}

/// What goes out on core NATS and into the cache.
#[derive(Debug)]
pub enum Market {
    Print { subject: String, payload: Bytes },
    Image { symbol: String, subject: String, payload: Bytes },
}

/// Reads the engine and answers by itself.
pub struct Question(Box<dyn FnOnce(&Engine) + Send>);

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

/// How the thread works.
#[derive(Debug, Clone)]
pub struct Config {
    pub dir: PathBuf,
    pub snapshot_every_commands: u64,
    pub snapshot_every_us: i64,
    /// Keep the journal from genesis.
    pub keep_all: bool,
    /// How long a volatility pause lasts.
    pub volatility_pause_us: i64,
}

/// The door to the thread. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Handle {
    input: SyncSender<Input>,
}

fn stopped() -> Refusal {
    Refusal::unavailable(Reason::ENGINE_STOPPED, "the engine is stopping")
}

impl Handle {
    fn send(&self, input: Input) -> Result<(), Refusal> {
        self.input.try_send(input).map_err(|e| match e {
            TrySendError::Full(_) => Refusal::exhausted(
                Reason::ENGINE_BUSY,
                format!("more than {QUEUE_MAX} requests wait for the engine; try again"),
            ),
            TrySendError::Disconnected(_) => stopped(),
        })
    }

    /// Resolves when the commands are durable.
    pub async fn submit(&self, commands: Vec<(u64, Record)>) -> Result<u64, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Submit { commands, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    /// Resolves when the listings are durable; those that hold already cost nothing.
    pub async fn list(&self, listings: Vec<Listing>) -> Result<(), Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Listings { listings, reply })?;
        answer.await.map_err(|_| stopped())?
    }

    pub async fn status(&self) -> Result<v1::EngineStatusReply, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.send(Input::Status { reply })?;
        answer.await.map_err(|_| stopped())
    }

    /// Lets the thread read the engine between two batches.
    pub async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let (reply, answer) = oneshot::channel();
        let question = move |engine: &Engine| {
            // The asker may have given up.
            let _gone = reply.send(question(engine));
        };
        self.send(Input::Question(Question(Box::new(question))))?;
        answer.await.map_err(|_| stopped())
    }

    /// Asks the thread to end; waits for room, unlike the other requests.
    pub fn stop(&self) {
        // A thread that has ended already has nothing to stop.
        let _ended = self.input.send(Input::Stop);
    }
}

/// Starts the thread. The receiver resolves when it has ended.
pub fn start(
    recovered: Recovered,
    config: Config,
    clock: Clock,
    market: mpsc::Sender<Market>,
) -> std::io::Result<(Handle, oneshot::Receiver<()>)> {
    let (input, inputs) = sync_channel(QUEUE_MAX);
    let (ended, has_ended) = oneshot::channel();
    let handle = Handle { input: input.clone() };
    let now_us = clock.now_us();
    let epoch = now_us.max(recovered.engine.time_us() + 1).cast_unsigned();
    let mut sequencer = Sequencer {
        snapshot_seq: recovered.snapshot_seq,
        snapshot_us: now_us,
        snapshot_under_way: false,
        images: (0..recovered.engine.markets().len())
            .map(|_| Image { dirty: true, ..Image::default() })
            .collect(),
        engine: recovered.engine,
        journal: recovered.journal,
        outcomes: recovered.outcomes,
        published: recovered.published,
        config,
        clock,
        market,
        epoch,
        input,
    };
    std::thread::Builder::new().name("matching".into()).spawn(move || {
        sequencer.run(&inputs);
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
    engine: Engine,
    journal: SegLog,
    outcomes: OutcomeLog,
    published: Arc<Published>,
    config: Config,
    clock: Clock,
    market: mpsc::Sender<Market>,
    epoch: u64,
    images: Vec<Image>,
    /// Record of the newest snapshot.
    snapshot_seq: u64,
    snapshot_us: i64,
    snapshot_under_way: bool,
    /// For the threads that write snapshots.
    input: SyncSender<Input>,
}

/// What waits for the sync of a batch.
#[derive(Default)]
struct Batch {
    records: Vec<(u64, i64, Record)>,
    submits: Vec<(oneshot::Sender<Result<u64, Refusal>>, u64)>,
    listings: Vec<oneshot::Sender<Result<(), Refusal>>>,
    /// Last command in the journal or in this batch.
    cmd_seq: u64,
    listed: BTreeMap<String, Listing>,
}

impl Sequencer {
    fn run(&mut self, inputs: &Receiver<Input>) {
        self.publish_images(self.clock.now_us());
        loop {
            let first = match self.due_us() {
                None => inputs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(due) => {
                    let wait = due.saturating_sub(self.clock.now_us());
                    inputs.recv_timeout(Duration::from_micros(u64::try_from(wait).unwrap_or(0)))
                }
            };
            let mut batch = Batch { cmd_seq: self.engine.cmd_seq(), ..Batch::default() };
            let mut stop = false;
            let mut statuses = Vec::new();
            let mut questions = Vec::new();
            self.take_timers(&mut batch);
            let mut next = match first {
                Ok(input) => Some(input),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            while let Some(input) = next.take() {
                match input {
                    Input::Submit { commands, reply } => self.take_commands(&mut batch, commands, reply),
                    Input::Listings { listings, reply } => self.take_listings(&mut batch, listings, reply),
                    Input::Status { reply } => statuses.push(reply),
                    Input::Question(question) => questions.push(question),
                    Input::SnapshotDone { oldest } => self.retire(oldest),
                    Input::Stop => stop = true,
                }
                if !stop && batch.records.len() < BATCH_RECORDS_MAX {
                    next = inputs.try_recv().ok();
                }
            }
            self.commit(batch);
            for reply in statuses {
                // The asker may have given up.
                let _gone = reply.send(self.status());
            }
            for Question(question) in questions {
                question(&self.engine);
            }
            let now = self.clock.now_us();
            self.publish_images(now);
            if stop {
                self.last_snapshot();
                return;
            }
            self.snapshot_if_due(now);
        }
    }

    /// When the thread must wake without being asked.
    fn due_us(&self) -> Option<i64> {
        let day_end = (self.engine.day_end_us() > 0).then(|| next_midnight(self.engine.day_end_us()));
        let image = self.images.iter().filter(|i| i.dirty).map(|i| i.at_us + IMAGE_INTERVAL_US).min();
        let behind = self.engine.seq() > self.snapshot_seq && !self.snapshot_under_way;
        let snapshot = behind.then(|| self.snapshot_us.saturating_add(self.config.snapshot_every_us));
        let reopening = self.engine.paused().map(|(_, since)| self.reopening_us(since)).min();
        [day_end, image, snapshot, self.engine.next_expiry_us(), reopening].into_iter().flatten().min()
    }

    fn reopening_us(&self, paused_us: i64) -> i64 {
        paused_us.saturating_add(self.config.volatility_pause_us)
    }

    fn push(&mut self, batch: &mut Batch, record: Record) {
        let mut payload = Vec::with_capacity(128);
        record.encode(&mut payload);
        let last = self.journal.last_time_us().max(self.engine.time_us());
        let time_us = self.clock.now_us().max(last + 1);
        let seq = self.journal.push(time_us, &payload);
        batch.records.push((seq, time_us, record));
    }

    fn take_timers(&mut self, batch: &mut Batch) {
        let now = self.clock.now_us();
        if self.engine.day_end_us() > 0 && now >= next_midnight(self.engine.day_end_us()) {
            self.push(batch, Record::DayEnd);
        }
        if self.engine.next_expiry_us().is_some_and(|due| now >= due) {
            self.push(batch, Record::Expire);
        }
        let is_due = |since: i64| now >= self.reopening_us(since);
        let due: Vec<_> =
            self.engine.paused().filter(|(_, since)| is_due(*since)).map(|(s, _)| s.clone()).collect();
        for symbol in due {
            self.push(batch, Record::Reopen { symbol });
        }
    }

    fn take_commands(
        &mut self,
        batch: &mut Batch,
        commands: Vec<(u64, Record)>,
        reply: oneshot::Sender<Result<u64, Refusal>>,
    ) {
        let mut expected = batch.cmd_seq + 1;
        for (cmd_seq, _) in commands.iter().filter(|(s, _)| *s > batch.cmd_seq) {
            if *cmd_seq != expected {
                let message = format!("cmd_seq {cmd_seq} leaves a gap: {expected} comes next");
                // The asker may have given up.
                let _gone = reply.send(Err(Refusal::precondition(Reason::CMD_SEQ_GAP, message)));
                return;
            }
            expected += 1;
        }
        let last = batch.cmd_seq;
        for (_, record) in commands.into_iter().filter(|(s, _)| *s > last) {
            self.push(batch, record);
        }
        batch.cmd_seq = expected - 1;
        batch.submits.push((reply, batch.cmd_seq));
    }

    fn take_listings(
        &mut self,
        batch: &mut Batch,
        listings: Vec<Listing>,
        reply: oneshot::Sender<Result<(), Refusal>>,
    ) {
        for listing in listings {
            let known = batch
                .listed
                .get(listing.symbol.as_str())
                .cloned()
                .or_else(|| self.engine.listing(&listing.symbol));
            // Tick and lot never change.
            let words = |l: &Listing| (l.state, l.previous_close_e4, l.band_bps);
            if known.is_some_and(|k| words(&k) == words(&listing)) {
                continue;
            }
            batch.listed.insert(listing.symbol.to_string(), listing.clone());
            self.push(batch, Record::Listing(listing));
        }
        batch.listings.push(reply);
    }

    /// Makes the batch durable, answers, applies, publishes.
    fn commit(&mut self, batch: Batch) {
        if let Err(e) = self.journal.flush(true) {
            match e {
                FlushError::Lost(e) => die("the journal", &e),
                FlushError::NotWritten(e) => {
                    tracing::error!(error = %e, "the journal cannot be written, commands are refused");
                    let refusal = || {
                        let message = "the engine's journal cannot be written; try again";
                        Refusal::unavailable(Reason::JOURNAL_UNWRITABLE, message)
                    };
                    for (reply, _) in batch.submits {
                        let _gone = reply.send(Err(refusal()));
                    }
                    for reply in batch.listings {
                        let _gone = reply.send(Err(refusal()));
                    }
                    std::thread::sleep(NOT_WRITTEN_WAIT);
                    return;
                }
            }
        }
        for (reply, cmd_seq) in batch.submits {
            // The asker may have given up: it asks again and is told that the commands are known.
            let _gone = reply.send(Ok(cmd_seq));
        }
        let mut facts: Vec<(u64, Fact)> = Vec::new();
        let mut new_facts = Vec::new();
        for (seq, time_us, record) in &batch.records {
            self.engine.apply(*seq, *time_us, record, &mut new_facts);
            facts.extend(new_facts.drain(..).map(|fact| (*seq, fact)));
        }
        self.images.resize(self.engine.markets().len(), Image { dirty: true, ..Image::default() });
        for (_, fact) in &facts {
            self.images[fact.market].dirty = true;
        }
        let (stored, begins) = self.outcomes.push(&self.engine, &facts);
        if let Err(FlushError::Lost(e) | FlushError::NotWritten(e)) = self.outcomes.log.flush(false) {
            die("the outcome log", &e);
        }
        self.print(&stored);
        self.published.add(stored, begins);
        for reply in batch.listings {
            let _gone = reply.send(Ok(()));
        }
    }

    /// Trades go out at once, those of a batch together.
    fn print(&self, stored: &[(super::published::Stored, v1::ExecutionBatch)]) {
        let mut prints: BTreeMap<&str, Vec<v1::Trade>> = BTreeMap::new();
        for (_, batch) in stored {
            for trade in wire::trades(batch) {
                prints.entry(&batch.symbol).or_default().push(trade);
            }
        }
        for (symbol, trades) in prints {
            let print = v1::TradePrint { symbol: symbol.to_owned(), epoch: self.epoch, trades };
            let subject = subject::trades(symbol);
            self.send_market(Market::Print { subject, payload: print.encode_to_vec().into() });
        }
    }

    fn send_market(&self, message: Market) {
        if self.market.try_send(message).is_err() {
            metrics::counter!("fafnir_market_data_dropped_total").increment(1);
        }
    }

    fn publish_images(&mut self, now: i64) {
        for (market, image) in self.engine.markets().iter().zip(&mut self.images) {
            if !image.dirty || now < image.at_us.saturating_add(IMAGE_INTERVAL_US) {
                continue;
            }
            *image = Image { dirty: false, seq: image.seq + 1, at_us: now };
            let message = wire::image(market, self.epoch, image.seq, self.engine.time_us());
            let payload = message.encode_to_vec().into();
            let symbol = message.symbol.clone();
            let subject = subject::book(&symbol);
            self.published.put_image(message);
            let message = Market::Image { symbol, subject, payload };
            if self.market.try_send(message).is_err() {
                metrics::counter!("fafnir_market_data_dropped_total").increment(1);
            }
        }
    }

    fn status(&self) -> v1::EngineStatusReply {
        let markets = self.engine.markets();
        let mut positions: Vec<_> = markets
            .iter()
            .map(|m| v1::SymbolPosition { symbol: m.symbol.to_string(), seq: m.exec_seq() })
            .collect();
        positions.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        let ids = self.engine.open_order_ids();
        v1::EngineStatusReply {
            last_cmd_seq: self.engine.cmd_seq(),
            journal_seq: self.engine.seq(),
            epoch: self.epoch,
            state_hash: state::hex(&self.engine.hash()),
            open_orders: ids.len() as u64,
            positions,
            trades: markets.iter().map(super::market::Market::trade_no).sum(),
            snapshot_seq: self.snapshot_seq,
            open_order_ids: ids.iter().take(STATUS_ORDERS_MAX).map(ToString::to_string).collect(),
            ..Default::default()
        }
    }

    fn snapshot_if_due(&mut self, now: i64) {
        let behind = self.engine.seq() - self.snapshot_seq;
        let is_due = behind >= self.config.snapshot_every_commands
            || now >= self.snapshot_us.saturating_add(self.config.snapshot_every_us);
        if behind == 0 || !is_due || self.snapshot_under_way {
            return;
        }
        // A snapshot never runs ahead of the outcome log: the facts behind it can always be made again.
        if let Err(FlushError::Lost(e) | FlushError::NotWritten(e)) = self.outcomes.log.sync() {
            die("the outcome log", &e);
        }
        let mut bytes = Vec::new();
        self.engine.encode(&mut bytes);
        let (seq, dir, input) = (self.engine.seq(), self.config.dir.clone(), self.input.clone());
        self.snapshot_seq = seq;
        self.snapshot_us = now;
        let written = std::thread::Builder::new().name("snapshot".into()).spawn(move || {
            let oldest = snapshot::write(&dir, seq, &bytes)
                .inspect_err(|e| tracing::error!(error = %e, "the snapshot was not written"))
                .ok();
            // An engine that has stopped meanwhile retires nothing.
            let _ended = input.send(Input::SnapshotDone { oldest });
        });
        match written {
            Ok(_) => self.snapshot_under_way = true,
            Err(e) => tracing::error!(error = %e, "the snapshot was not written"),
        }
    }

    fn last_snapshot(&mut self) {
        if self.engine.seq() == self.snapshot_seq || self.snapshot_under_way {
            return;
        }
        let mut bytes = Vec::new();
        self.engine.encode(&mut bytes);
        let written = match self.outcomes.log.sync() {
            Ok(()) => snapshot::write(&self.config.dir, self.engine.seq(), &bytes).map(drop),
            Err(e) => Err(std::io::Error::other(e.to_string())),
        };
        if let Err(e) = written {
            tracing::warn!(error = %e, "no snapshot at the end; the journal has everything");
        }
    }

    /// Drops what a verified snapshot covers and every follower is past.
    fn retire(&mut self, oldest_snapshot: Option<u64>) {
        self.snapshot_under_way = false;
        let Some(oldest) = oldest_snapshot else { return };
        let Some(begin) = self.published.droppable().filter(|_| !self.config.keep_all) else { return };
        let outcomes_from = self.published.outcomes_kept_from(&begin);
        let dropped = self
            .journal
            .drop_before((oldest + 1).min(begin.journal_seq))
            .and_then(|journal| Ok((journal, self.outcomes.log.drop_before(outcomes_from)?)));
        match dropped {
            Ok((0, 0)) => {}
            Ok((journal, outcomes)) => {
                self.published.forget_before(outcomes_from);
                tracing::debug!(journal, outcomes, "segments dropped");
            }
            Err(e) => tracing::warn!(error = %e, "segments could not be dropped"),
        }
    }
}

fn next_midnight(after_us: i64) -> i64 {
    (after_us / DAY_US + 1).saturating_mul(DAY_US)
}

/// Nobody knows what is on disk: the only safe thing is to end and recover.
fn die(what: &str, e: &dyn std::fmt::Display) -> ! {
    tracing::error!(error = %e, "{what} is lost, the process ends to recover");
    std::process::abort()
}
