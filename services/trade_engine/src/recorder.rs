//! The thread that writes the fact log: facts become messages, are logged, and are there for everybody.

use super::{
    log::{self, FACTS, Stored},
    market::{self, Market},
    message::{self, Names},
    published::Published,
    seglog::{FlushError, SegLog},
};
use bytes::Bytes;
use fafnir_clearing::fact::Fact;
use fafnir_platform::{clock::DAY_US, disk::Disk};
use fafnir_proto::{subject, trace::Trace, v1};
use prost::Message as _;
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use tokio::sync::mpsc;

/// Batches that wait for the thread; the core waits when more would.
const QUEUE_MAX: usize = 64;
/// Facts written together.
const BATCH_FACTS_MAX: usize = 4_096;
/// What of the log is kept though no follower needs it.
const KEEP_US: i64 = 7 * DAY_US;
const KEEP_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// After facts that could not be written (a full disk) they are tried again.
const NOT_WRITTEN_WAIT: Duration = Duration::from_millis(200);

/// The facts of a batch, each with its command's sequence in the journal.
pub type Batch = Vec<(u64, Fact)>;

/// The fact log and what its messages need.
#[derive(Debug)]
pub struct Recorder {
    pub log: SegLog,
    pub names: Names,
    pub published: Arc<Published>,
    /// A segment began since old ones were last dropped.
    pub began: bool,
}

/// How the thread works.
#[derive(Debug)]
pub struct Config {
    pub epoch: u64,
    /// Keep every fact.
    pub keep_all: bool,
    pub market: mpsc::Sender<Market>,
    /// Is told while facts cannot be written.
    pub disk: Disk,
    /// The engine is asked to end: facts that cannot be written are given up, the journal has what they follow from.
    pub stopping: Arc<AtomicBool>,
}

/// The door to the thread.
#[derive(Debug)]
pub struct Handle {
    facts: SyncSender<Batch>,
    thread: JoinHandle<()>,
}

impl Handle {
    /// Hands facts over; waits while too many wait. A thread that has died takes nothing.
    pub fn record(&self, facts: Batch) -> bool {
        facts.is_empty() || self.facts.send(facts).is_ok()
    }

    /// Lets the thread come to its end: everything is in the log, and synced.
    pub fn finish(self) -> bool {
        drop(self.facts);
        self.thread.join().is_ok()
    }
}

/// Starts the thread.
pub fn start(mut recorder: Recorder, config: Config) -> std::io::Result<Handle> {
    let (facts, batches) = sync_channel(QUEUE_MAX);
    let thread = std::thread::Builder::new()
        .name("facts".into())
        .spawn(move || run(&mut recorder, &config, &batches))?;
    Ok(Handle { facts, thread })
}

fn run(recorder: &mut Recorder, config: &Config, batches: &Receiver<Batch>) {
    while let Ok(mut batch) = batches.recv() {
        // What waits goes in one write.
        while batch.len() < BATCH_FACTS_MAX
            && let Ok(more) = batches.try_recv()
        {
            batch.extend(more);
        }
        match patiently(recorder, config, &batch) {
            Ok(Some(trades)) => print(config, trades),
            Ok(None) => return,
            Err(FlushError::Lost(e) | FlushError::NotWritten(e)) => super::die("the fact log", &e),
        }
        if std::mem::take(&mut recorder.began) && !config.keep_all {
            recorder.retire(batch.last().map_or(0, |(_, fact)| fact.time_us));
        }
    }
    if let Err(FlushError::Lost(e) | FlushError::NotWritten(e)) = recorder.log.sync() {
        super::die("the fact log", &e);
    }
}

/// Logs a batch, however long there is no room for it; `None`: the engine ends before there is.
fn patiently(
    recorder: &mut Recorder,
    config: &Config,
    batch: &Batch,
) -> Result<Option<Vec<v1::Trade>>, FlushError> {
    let mut is_told = false;
    loop {
        match recorder.record(batch) {
            Err(FlushError::NotWritten(e)) => {
                if config.stopping.load(Ordering::Relaxed) {
                    tracing::warn!(error = %e, "the last facts are not logged; the next start makes them again");
                    return Ok(None);
                }
                if !is_told {
                    tracing::error!(error = %e, "the fact log cannot be written, commands are refused");
                    config.disk.unwritten("the fact log");
                    is_told = true;
                }
                std::thread::sleep(NOT_WRITTEN_WAIT);
            }
            written => {
                if is_told {
                    tracing::warn!("the fact log is written again");
                    config.disk.written();
                }
                return written.map(Some);
            }
        }
    }
}

impl Recorder {
    /// Logs facts and puts them where everybody sees them. Answers the trades in them.
    pub fn record(&mut self, batch: &[(u64, Fact)]) -> Result<Vec<v1::Trade>, FlushError> {
        let mut trades = Vec::new();
        let mut stored = Vec::with_capacity(batch.len());
        let mut began = None;
        for (command, fact) in batch {
            assert_eq!(fact.position, self.log.next_seq(), "invariant: facts are numbered without a gap");
            self.names.learn(fact);
            let message = message::fact(&self.names, fact);
            let payload = Bytes::from(message.encode_to_vec());
            let begin = self.log.begins_segment().then(|| self.published.begin(fact.position, fact.time_us));
            self.log.push(fact.time_us, &log::encode(*command, &payload, begin.as_ref()));
            began = began.or(begin);
            let trade = message::public_trade(&message);
            trades.extend(trade.clone());
            let sampled = fact.trace.and_then(|bytes| Trace::read(&bytes)).filter(|trace| trace.is_sampled);
            let fact = Stored { position: fact.position, command: *command, payload, trace: sampled };
            stored.push((fact, trade));
        }
        self.log.flush(false)?;
        if let Some(begin) = began {
            self.published.note_begin(begin);
            self.began = true;
        }
        self.published.add(stored.into_iter());
        Ok(trades)
    }

    /// Drops segments that are old, beyond the room for them and not needed by a follower.
    fn retire(&mut self, now_us: i64) {
        // The next segment does it where one is being packed: this thread does not wait for that.
        let published = Arc::clone(&self.published);
        let Some(_alone) = published.may_remove() else { return };
        let begins = self.published.begins();
        let room = usize::try_from(KEEP_BYTES / FACTS.segment_bytes).unwrap_or(usize::MAX);
        let spare = begins.len().saturating_sub(room.max(2));
        let followed = self.published.followers.slowest().unwrap_or(u64::MAX);
        let keep = begins.iter().enumerate().skip(1).take_while(|(place, begin)| {
            let is_old = now_us.saturating_sub(begin.time_us) > KEEP_US;
            (is_old || *place <= spare) && begin.position <= followed.saturating_add(1)
        });
        let Some((_, first)) = keep.last() else { return };
        match self.log.drop_before(first.position) {
            Ok(0) => {}
            Ok(segments) => {
                self.published.forget_before(first.position);
                tracing::debug!(segments, "segments of the fact log dropped");
            }
            Err(e) => tracing::warn!(error = %e, "segments of the fact log could not be dropped"),
        }
    }
}

/// Trades go out at once, those of a batch together.
fn print(config: &Config, trades: Vec<v1::Trade>) {
    let mut prints: BTreeMap<String, Vec<v1::Trade>> = BTreeMap::new();
    for trade in trades {
        prints.entry(trade.symbol.clone()).or_default().push(trade);
    }
    for (symbol, trades) in prints {
        let subject = subject::trades(&symbol);
        let print = v1::TradePrint { symbol, epoch: config.epoch, trades };
        let message = Market::Print { subject, payload: print.encode_to_vec().into() };
        market::send(&config.market, message);
    }
}
