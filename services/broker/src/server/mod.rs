//! The tokio adapter: one task owns the core, one thread owns the store, each connection has a reader and a writer.

mod connection;
mod metric;
mod monitor;
mod store;
mod tls;
mod websocket;

use crate::core::effects::{Load, StoreOp, StreamId};
use crate::core::ids::Ids;
use crate::core::log::Message;
use crate::core::net::{ConnId, Nanos, Rights};
use crate::core::subject::is_pattern;
use crate::core::wire::{self, Op};
use crate::core::{Account, Core, Input, Recovered, Securing, Settings};
use crate::guests::{Guest, GuestList};
use crate::{Config, Error, User};
use bytes::Bytes;
use connection::{Outbox, Shared};
use metric::Metrics;
use monitor::Question;
use parking_lot::Mutex;
use ring::digest::{SHA256, digest};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Arc, mpsc as blocking};
use std::time::{Duration, Instant};
use store::erase::{PART_BYTES, PART_BYTES_FULL};
use store::{CommitError, Store};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

/// Batches of operations that wait for the core before sockets are no longer read.
const EVENTS_MAX: usize = 256;
/// Events that the core takes before it writes and stores what they brought about.
const TURN_MAX: usize = 64;
/// Operations of one client that the clock is read for once.
const CLOCK_STEPS: u64 = 32;
/// Operations and deliveries of one turn; what is left has others' turns before it.
const TURN_WORK: u64 = 4_096;
/// Operations and deliveries after which one client's have others' before them.
const SLICE_WORK: u64 = 2_048;
/// Store changes under way above which no more operations are taken from clients.
const BEHIND_MAX: u64 = 50_000;
/// Changes of one commit.
const COMMIT_MAX: usize = 20_000;
/// Time between two parts of what was removed that are taken out of the store while others write.
const ERASE_EVERY: Duration = Duration::from_millis(20);
/// Parts that are taken out in a row on a full disk.
const ERASES_FULL: usize = 256;
/// Time that changes nobody waits for may stay unwritten.
const LAZY: Duration = Duration::from_millis(20);
/// Changes that the core writes itself where nothing else is to be done, and their bytes.
const ALONE_MAX: usize = 16;
const ALONE_BYTES: usize = 64 << 10;
/// What a commit takes on average up to which the core does so: whatever comes meanwhile waits for it.
const ALONE_TIME: Duration = Duration::from_micros(400);
/// What a commit is believed to take before some were measured.
const COMMIT_TIME: Duration = Duration::from_millis(1);
/// The newest measurement counts for one part in so many.
const SMOOTHING: u32 = 8;
/// Clients with an open WebSocket that wait for the core.
const WEBSOCKETS_MAX: usize = 64;
/// Times in a row that clients who read fast get more.
const FLUSHES_MAX: usize = 4;
/// Clients of one turn up to which the core writes to their sockets itself.
const DIRECT_MAX: usize = 4;
/// Part of `max_pending` that may wait for a client before those who publish to it are slowed down.
const PRESSED: usize = 4;
/// Largest `max_payload`.
const PAYLOAD_LIMIT: usize = 64 << 20;
/// Messages on their way from the store for single readers above which no more operations are taken.
const READS_MAX: usize = 10_000;
/// Time until a client is accepted again after the system could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time after which metrics tell what happened.
const METRICS_LAG: Duration = Duration::from_millis(100);
/// Time between two looks at the free space.
const ROOM_LOOK: Duration = Duration::from_millis(250);
/// Time between two tries to write what found no room.
const FULL_RETRY: Duration = Duration::from_millis(200);
/// Time for everything to end at shutdown.
const SHUTDOWN: Duration = Duration::from_secs(10);

/// What the core's task is woken by.
enum Event {
    /// `place` is one of the few that a client has; it is free again once this was done.
    Ops {
        conn: ConnId,
        batch: Vec<Result<Op, wire::Error>>,
        place: OwnedSemaphorePermit,
    },
    Closed {
        conn: ConnId,
    },
    Question {
        question: Question,
        reply: oneshot::Sender<serde_json::Value>,
    },
}

/// What a client asked for that has not had its turn, in order.
#[derive(Default)]
struct Waiting {
    batches: VecDeque<(std::vec::IntoIter<Result<Op, wire::Error>>, OwnedSemaphorePermit)>,
    closed: bool,
}

/// What the store's threads report.
enum Stored {
    Durable(u64),
    Loaded {
        load: Load,
        messages: Vec<Message>,
    },
    /// Whether there is room for new messages.
    Room(bool),
    Failed(String),
}

/// Changes of the store in order. One without any lets the thread look what else there is to do.
#[derive(Default)]
struct Batch {
    ops: Vec<StoreOp>,
    upto: u64,
    /// Somebody waits for it, or it has waited itself.
    urgent: bool,
}

/// Wall clock at the start and monotonic since: it never goes back.
struct Clock {
    origin: Nanos,
    started: Instant,
}

impl Clock {
    fn start() -> Self {
        let now = time::OffsetDateTime::now_utc().unix_timestamp_nanos();
        Self { origin: u64::try_from(now).unwrap_or(0), started: Instant::now() }
    }

    fn now(&self) -> Nanos {
        self.origin + self.started.elapsed().as_nanos() as u64
    }

    fn instant(&self, at: Nanos) -> Instant {
        self.started + Duration::from_nanos(at.saturating_sub(self.origin))
    }
}

/// Serves clients until `shutdown`; clients that connect while the store opens are answered afterwards.
///
/// # Errors
/// When the store cannot be opened, read or written, or the listener fails. Nothing that was not on disk
/// was acknowledged then.
pub async fn serve(listener: TcpListener, config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let address = listener.local_addr()?;
    let settings = settings(&config, address)?;
    let acceptor = config.tls.as_ref().map(tls::acceptor).transpose()?;
    let clock = Clock::start();
    let Opened { store, reader, checker, recovered } = open_store(&config, clock.now()).await?;
    let core = Core::new(settings, recovered, clock.now());

    let (stored_sender, stored) = mpsc::unbounded_channel();
    let (batches, batch_receiver) = blocking::channel();
    let (loads, load_receiver) = blocking::channel();
    let writer = Arc::new(Mutex::new(Writer::new(store, stored_sender.clone(), config.min_free)));
    let writing = Arc::clone(&writer);
    let writer_done = spawn_thread("broker-store", move || run_writer(&writing, &batch_receiver))?;
    let check_sender = stored_sender.clone();
    let reader_done =
        spawn_thread("broker-reads", move || read_loop(&reader, &load_receiver, &stored_sender))?;

    let check_interrupt = checker.interrupt_handle();
    let check_stop = shutdown.clone();
    let check_done = spawn_thread("broker-check", move || check(&checker, &check_sender, &check_stop))?;

    let (events_sender, events) = mpsc::channel(EVENTS_MAX);
    let mut broker = Broker {
        core,
        clock,
        listener,
        config,
        outboxes: Ids::default(),
        conn_last: 0,
        filled: BTreeSet::new(),
        waiting: HashMap::new(),
        turns: VecDeque::new(),
        acceptor,
        shared: Shared { events: events_sender, drained: Arc::default(), shutdown: shutdown.clone() },
        writer,
        unwritten: Batch::default(),
        unwritten_since: None,
        batches,
        loads,
        tasks: JoinSet::new(),
        metrics: Metrics::new(),
        shutdown: shutdown.clone(),
    };
    let websockets = broker.open_doors()?;
    if let Some(ready) = broker.config.ready.take() {
        // Whoever wanted to know may be gone.
        let _ = ready.send(());
    }
    let outcome = broker.run(events, stored, websockets).await;
    broker.hand_over();
    let Broker { writer, batches, loads, outboxes, mut tasks, config, .. } = broker;
    drop((writer, batches, loads, outboxes));
    shutdown.cancel();
    check_interrupt.interrupt();
    let ended = tokio::time::timeout(SHUTDOWN, async {
        while tasks.join_next().await.is_some() {}
        let _ = writer_done.await;
        let _ = reader_done.await;
        let _ = check_done.await;
    });
    if ended.await.is_err() {
        tracing::warn!("the broker's tasks did not end in time");
    }
    outcome.map_err(|reason| Error::Store { path: config.store_dir, reason })
}

/// The store's three connections and what the core begins with.
struct Opened {
    store: Store,
    reader: Store,
    checker: Store,
    recovered: Recovered,
}

async fn open_store(config: &Config, opened_at: Nanos) -> Result<Opened, Error> {
    let failed = |reason: store::OpenError| match reason {
        store::OpenError::InUse(pid) => Error::InUse { path: config.store_dir.clone(), pid },
        store::OpenError::Failed(reason) => Error::Store { path: config.store_dir.clone(), reason },
    };
    let (dir, note) = (config.store_dir.clone(), config.note.clone());
    let opened = tokio::task::spawn_blocking(move || -> Result<_, store::OpenError> {
        let mut store = Store::open_noted(&dir, note)?;
        let recovered = store.recover(opened_at)?;
        let (reader, checker) = (Store::open_reader(&dir)?, Store::open_reader(&dir)?);
        Ok(Opened { store, reader, checker, recovered })
    });
    opened.await.map_err(|error| Error::Task(error.to_string()))?.map_err(failed)
}

fn spawn_thread(name: &str, work: impl FnOnce() + Send + 'static) -> Result<oneshot::Receiver<()>, Error> {
    let (done, receiver) = oneshot::channel();
    std::thread::Builder::new().name(name.into()).spawn(move || {
        work();
        let _ = done.send(());
    })?;
    Ok(receiver)
}

fn settings(config: &Config, address: std::net::SocketAddr) -> Result<Settings, Error> {
    if config.max_payload == 0 || config.max_payload > PAYLOAD_LIMIT {
        return Err(Error::Config(format!("max_payload must be 1 to {PAYLOAD_LIMIT} bytes")));
    }
    let accounts = config.users.iter().map(account).collect::<Result<Vec<_>, _>>()?;
    if accounts.is_empty() && config.guests.is_some() {
        return Err(Error::Config(
            "guests need users beside them: with nobody listed anybody may do everything".into(),
        ));
    }
    let mut seed = [0; 8];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut seed)
        .map_err(|_| Error::Config("no randomness from the system".into()))?;
    let seed = u64::from_le_bytes(seed);
    Ok(Settings {
        server_name: config.server_name.clone(),
        server_id: format!("FAFNIR{seed:016X}"),
        host: address.ip().to_string(),
        port: address.port(),
        accounts,
        payload_max: config.max_payload,
        connections_max: config.max_connections,
        subscriptions_max: config.max_subscriptions,
        pending_max: config.max_pending,
        streams_max: config.max_streams,
        consumers_max: config.max_consumers,
        auth_timeout: config.auth_timeout.as_nanos() as u64,
        ping_interval: config.ping_interval.as_nanos() as u64,
        seed,
    })
}

/// A user as the core knows it.
fn account(user: &User) -> Result<Account, Error> {
    if user.name.is_empty() || user.password.is_empty() {
        return Err(Error::Config("a user needs a name and a password".into()));
    }
    if let Some(bad) = user.publish.iter().chain(&user.subscribe).find(|pattern| !is_pattern(pattern)) {
        return Err(Error::Config(format!("user {}: {bad:?} is not a subject pattern", user.name)));
    }
    let mut password_sha256 = [0; 32];
    password_sha256.copy_from_slice(digest(&SHA256, user.password.as_bytes()).as_ref());
    Ok(Account {
        name: user.name.clone(),
        password_sha256,
        rights: Rights { publish: user.publish.clone(), subscribe: user.subscribe.clone() },
        limits: user.limits,
    })
}

/// The next change of who may sign in.
async fn next_guest(guests: &mut Option<GuestList>) -> Guest {
    match guests {
        Some(list) => match list.0.recv().await {
            Some(guest) => guest,
            // Nobody can change it any more.
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

struct Broker {
    core: Core,
    clock: Clock,
    listener: TcpListener,
    config: Config,
    outboxes: Ids<Outbox>,
    conn_last: ConnId,
    /// Connections that the core waits for to be read.
    filled: BTreeSet<ConnId>,
    /// Clients with more to do than one turn allows, and whose turn is next.
    waiting: HashMap<ConnId, Waiting>,
    turns: VecDeque<ConnId>,
    shared: Shared,
    acceptor: Option<TlsAcceptor>,
    /// Shared with the thread that writes.
    writer: Arc<Mutex<Writer>>,
    /// Changes that nobody waits for, and since when there are some.
    unwritten: Batch,
    unwritten_since: Option<Instant>,
    batches: blocking::Sender<Batch>,
    loads: blocking::Sender<Load>,
    tasks: JoinSet<()>,
    metrics: Metrics,
    shutdown: CancellationToken,
}

impl Broker {
    /// Opens the doors besides the client port; what comes through the WebSocket door is the answer.
    fn open_doors(&mut self) -> Result<mpsc::Receiver<websocket::Accepted>, Error> {
        let shared = self.shared.clone();
        if let Some(monitor) = self.config.monitor.take() {
            let (metrics, events) = (self.config.metrics, shared.events.clone());
            self.tasks.spawn(monitor::serve(monitor, events, metrics, shared.shutdown.clone()));
        }
        let (accepted, websockets) = mpsc::channel(WEBSOCKETS_MAX);
        if let Some(listener) = self.config.websocket.take() {
            let door = websocket::Door { accepted, payload_max: self.config.max_payload };
            match self.acceptor.clone() {
                None => drop(self.tasks.spawn(websocket::serve(listener, door, shared))),
                Some(acceptor) => {
                    let (secured, accepting) = tls::secure(listener, acceptor, &shared)?;
                    self.tasks.spawn(accepting);
                    self.tasks.spawn(websocket::serve_secured(secured, door, shared));
                }
            }
        }
        Ok(websockets)
    }

    async fn run(
        &mut self,
        mut events: mpsc::Receiver<Event>,
        mut stored: mpsc::UnboundedReceiver<Stored>,
        mut websockets: mpsc::Receiver<websocket::Accepted>,
    ) -> Result<(), String> {
        let drained = self.shared.drained.clone();
        let mut guests = self.config.guests.take();
        let mut turn = Vec::new();
        let mut accepts_from = Instant::now();
        // Something happened that the metrics do not tell yet: they will at this time.
        let mut metrics_at: Option<Instant> = None;
        loop {
            let deadline = self.core.next_deadline().map(|at| self.clock.instant(at));
            let lazy_at = self.unwritten_since.map(|since| since + LAZY);
            let deadline = deadline.into_iter().chain(metrics_at).chain(lazy_at).min();
            let timer = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            let accepts_ops = self.core.behind() < BEHIND_MAX && self.core.reads() < READS_MAX;
            let accepted = async {
                tokio::time::sleep_until(accepts_from.into()).await;
                self.listener.accept().await
            };
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => {
                    self.step(Input::Shutdown);
                    self.flush();
                    return Ok(());
                }
                Some(report) = stored.recv() => {
                    self.take(report)?;
                    while let Ok(report) = stored.try_recv() {
                        self.take(report)?;
                    }
                }
                () = timer => self.step(Input::Tick),
                () = drained.notified() => {}
                count = events.recv_many(&mut turn, TURN_MAX), if accepts_ops => {
                    if count == 0 {
                        return Ok(());
                    }
                    self.events(turn.drain(..));
                }
                accepted = accepted => match accepted {
                    Ok((socket, peer)) => {
                        let _ = socket.set_nodelay(true);
                        self.accept_tcp(socket, peer);
                    }
                    Err(error) => {
                        tracing::warn!(%error, "a client could not be accepted");
                        accepts_from = Instant::now() + ACCEPT_PAUSE;
                    }
                },
                guest = next_guest(&mut guests) => self.guest(guest),
                Some(websocket::Accepted { pipe, peer }) = websockets.recv() => {
                    self.accept(tokio::io::split(pipe), peer);
                }
                Some(ended) = self.tasks.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a connection's task failed");
                    }
                }
                // The last one: everybody else was asked.
                () = std::future::ready(()), if accepts_ops && !self.turns.is_empty() => self.take_turns(TURN_WORK),
            }
            self.flush();
            metrics_at = self.tell_metrics(metrics_at);
        }
    }

    fn guest(&mut self, guest: Guest) {
        match guest {
            Guest::Admit { user, done } => {
                let admitted = account(&user).map(|account| self.step(Input::Admit(account)));
                // Whoever wanted to know may be gone.
                let _ = done.send(admitted);
            }
            Guest::Dismiss { name } => self.step(Input::Dismiss { name }),
        }
    }

    /// Sets the metrics when it is time; when it is time next.
    fn tell_metrics(&self, at: Option<Instant>) -> Option<Instant> {
        let now = Instant::now();
        match at {
            None => Some(now + METRICS_LAG),
            Some(at) if at <= now => {
                self.metrics.set(&self.core.totals());
                None
            }
            later => later,
        }
    }

    fn step(&mut self, input: Input) {
        self.core.step(self.clock.now(), input);
    }

    fn take(&mut self, report: Stored) -> Result<(), String> {
        match report {
            Stored::Durable(upto) => self.step(Input::Durable { upto }),
            Stored::Loaded { load, messages } => {
                self.step(Input::Loaded { stream: load.stream as StreamId, getter: load.getter, messages });
            }
            Stored::Room(room) => self.step(Input::Room(room)),
            Stored::Failed(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Does what clients ask for, as much as one turn allows; those who wait from turns before have theirs then.
    fn events(&mut self, events: impl Iterator<Item = Event>) {
        let from = self.core.worked();
        let worked = |this: &Self| this.core.worked().saturating_sub(from);
        for event in events {
            let has_room = worked(self) < TURN_WORK;
            self.event(event, has_room);
        }
        self.take_turns(TURN_WORK.saturating_sub(worked(self)).max(SLICE_WORK));
    }

    /// Lets those who wait have their turns.
    fn take_turns(&mut self, work: u64) {
        let from = self.core.worked();
        for _ in 0..self.turns.len() {
            let Some(conn) = self.turns.pop_front() else { return };
            let Some(mut waiting) = self.waiting.remove(&conn) else { continue };
            if self.work(conn, &mut waiting) {
                self.put_off(conn, waiting);
            }
            if self.core.worked().saturating_sub(from) >= work {
                return;
            }
        }
    }

    /// Lets a client wait for its next turn.
    fn put_off(&mut self, conn: ConnId, waiting: Waiting) {
        self.waiting.insert(conn, waiting);
        self.turns.push_back(conn);
    }

    /// Does some of what a client asked for; whether there is more.
    fn work(&mut self, conn: ConnId, waiting: &mut Waiting) -> bool {
        let from = self.core.worked();
        let (mut count, mut now) = (0, 0);
        while let Some((ops, _)) = waiting.batches.front_mut() {
            let input = if self.core.is_busy(conn) {
                Input::GoOn { conn }
            } else {
                match ops.next() {
                    Some(Ok(op)) => Input::Op { conn, op },
                    Some(Err(error)) => Input::Bad { conn, error },
                    None => {
                        // With it the place that it had.
                        waiting.batches.pop_front();
                        continue;
                    }
                }
            };
            // Reading the clock costs as much as a short message.
            if count % CLOCK_STEPS == 0 {
                now = self.clock.now();
            }
            self.core.step(now, input);
            count += 1;
            if self.core.worked().saturating_sub(from).max(count) >= SLICE_WORK {
                return true;
            }
        }
        if waiting.closed {
            self.closed(conn);
        }
        false
    }

    fn closed(&mut self, conn: ConnId) {
        self.outboxes.remove(&conn);
        self.filled.remove(&conn);
        self.step(Input::Closed { conn });
    }

    /// `has_room`: the turn has room for more.
    fn event(&mut self, event: Event, has_room: bool) {
        match event {
            Event::Ops { conn, batch, place } => {
                let ops = (batch.into_iter(), place);
                if let Some(waiting) = self.waiting.get_mut(&conn) {
                    waiting.batches.push_back(ops);
                    return;
                }
                let mut waiting = Waiting { batches: VecDeque::from([ops]), closed: false };
                if !has_room || self.work(conn, &mut waiting) {
                    self.put_off(conn, waiting);
                }
            }
            Event::Closed { conn } => match self.waiting.get_mut(&conn) {
                Some(waiting) => waiting.closed = true,
                None => self.closed(conn),
            },
            Event::Question { question, reply } => {
                self.step(Input::Tick);
                // Whoever asked may be gone.
                let _ = reply.send(match question {
                    Question::Varz => self.core.varz(),
                    Question::Subsz => self.core.subsz(),
                    Question::Connz { offset, subscriptions } => {
                        let pending = |id| self.outboxes.get(&id).map_or(0, Outbox::pending);
                        self.core.connz(offset, subscriptions, pending)
                    }
                    Question::Jsz { details } => self.core.jsz(details),
                });
            }
        }
    }

    fn accept_tcp(&mut self, socket: TcpStream, peer: std::net::SocketAddr) {
        let Some(acceptor) = self.acceptor.clone() else {
            self.conn_last += 1;
            let (id, most) = (self.conn_last, self.config.max_payload);
            let outbox = connection::start_plain(id, socket, most, &self.shared, &mut self.tasks);
            self.outboxes.insert(id, outbox);
            return self.step(Input::Open { conn: id, peer: peer.to_string(), securing: Securing::No });
        };
        let in_clear = self.config.tls.as_ref().is_some_and(|tls| tls.loopback_in_clear);
        let may = in_clear && peer.ip().to_canonical().is_loopback();
        let securing = if may { Securing::Offered } else { Securing::Required };
        self.conn_last += 1;
        let offer = tls::Offer { acceptor, securing };
        let (payload_max, shared) = (self.config.max_payload, &self.shared);
        let outbox =
            connection::start_secured(self.conn_last, socket, offer, payload_max, shared, &mut self.tasks);
        self.outboxes.insert(self.conn_last, outbox);
        self.step(Input::Open { conn: self.conn_last, peer: peer.to_string(), securing });
    }

    fn accept(
        &mut self,
        halves: (impl AsyncRead + Unpin + Send + 'static, impl AsyncWrite + Unpin + Send + 'static),
        peer: std::net::SocketAddr,
    ) {
        self.conn_last += 1;
        let outbox =
            connection::start(self.conn_last, halves, self.config.max_payload, &self.shared, &mut self.tasks);
        self.outboxes.insert(self.conn_last, outbox);
        self.step(Input::Open { conn: self.conn_last, peer: peer.to_string(), securing: Securing::No });
    }

    /// Whether a client has little left to read, or is gone.
    fn has_read(&self, conn: ConnId) -> bool {
        self.outboxes.get(&conn).is_none_or(|outbox| outbox.pending() <= connection::DRAINED)
    }

    fn flush(&mut self) {
        for _ in 0..FLUSHES_MAX {
            let effects = self.core.effects();
            for (conn, limits) in effects.signed {
                if let Some(outbox) = self.outboxes.get_mut(&conn) {
                    let most = self.config.max_pending;
                    outbox.sign_in(limits.map_or(most, |limits| limits.pending.min(most)));
                }
            }
            let mut steps = self.write(effects.writes);
            for conn in effects.closes {
                if let Some(outbox) = self.outboxes.remove(&conn) {
                    outbox.stop_reading();
                }
            }
            steps.extend(self.store(effects.ops, effects.ops_last, effects.urgent));
            for load in effects.loads {
                let _ = self.loads.send(load);
            }
            self.press(&effects.pressing);
            if !effects.discarded.is_empty() {
                // To drop it takes as long as it is large.
                self.tasks.spawn_blocking(move || drop(effects.discarded));
            }
            self.filled.extend(effects.filled);
            let read: Vec<ConnId> = self.filled.iter().copied().filter(|conn| self.has_read(*conn)).collect();
            if steps.is_empty() && read.is_empty() {
                return;
            }
            for input in steps {
                self.step(input);
            }
            for conn in read {
                self.filled.remove(&conn);
                self.step(Input::Drained { conn });
            }
        }
        // Others get their turn before it goes on.
        self.shared.drained.notify_one();
    }

    /// Sees to it that changes are written: at once where somebody waits, else within [`LAZY`].
    fn store(&mut self, ops: Vec<StoreOp>, upto: u64, urgent: bool) -> Option<Input> {
        if ops.is_empty() && self.unwritten.ops.is_empty() {
            if urgent {
                self.send(Batch { urgent, ..Batch::default() });
            }
            return None;
        }
        if self.unwritten.ops.is_empty() {
            self.unwritten = Batch { ops, upto, urgent };
            self.unwritten_since = Some(Instant::now());
        } else {
            self.unwritten.take(Batch { ops, upto, urgent });
        }
        self.unwritten.urgent |= self.unwritten_since.is_some_and(|since| since.elapsed() >= LAZY);
        if !self.unwritten.urgent && self.unwritten.ops.len() <= ALONE_MAX {
            return None;
        }
        if urgent && self.is_alone() && self.write_here() {
            return Some(Input::Durable { upto });
        }
        self.hand_over();
        None
    }

    /// Lets the writer's thread write what there is; it gathers more where nobody waits.
    fn hand_over(&mut self) {
        self.unwritten_since = None;
        let batch = std::mem::take(&mut self.unwritten);
        if !batch.ops.is_empty() {
            self.send(batch);
        }
    }

    fn send(&self, batch: Batch) {
        if self.batches.send(batch).is_err() {
            // It has said why, unless it panicked. The receiver is the broker's own.
            let _ = self.writer.lock().stored.send(Stored::Failed("the writer has ended".into()));
        }
    }

    /// Whether few changes are to be written, none is under way, and nothing else is to be done.
    fn is_alone(&self) -> bool {
        let ops = &self.unwritten.ops;
        ops.len() <= ALONE_MAX
            && self.core.behind() == ops.len() as u64
            && self.turns.is_empty()
            && self.shared.events.capacity() == EVENTS_MAX
            && ops.iter().map(StoreOp::bytes).sum::<usize>() <= ALONE_BYTES
    }

    /// Writes changes without the thread, which would have to be woken and would have to wake the core; false where that is
    /// for the thread.
    fn write_here(&mut self) -> bool {
        let Some(mut writer) = self.writer.try_lock() else { return false };
        if !writer.write_alone(&self.unwritten.ops) {
            return false;
        }
        self.unwritten = Batch::default();
        self.unwritten_since = None;
        let wakes = writer.wakes();
        drop(writer);
        if wakes {
            self.send(Batch { urgent: true, ..Batch::default() });
        }
        true
    }

    /// Hands bytes to the connections; what the core has to know of it.
    fn write(&mut self, writes: Vec<(ConnId, Bytes)>) -> Vec<Input> {
        let mut inputs = Vec::new();
        // Many are written by their writers, side by side.
        let now = writes.len() <= DIRECT_MAX;
        for (conn, bytes) in writes {
            let Some(outbox) = self.outboxes.get(&conn) else { continue };
            let waiting = outbox.push(bytes, now);
            if waiting > outbox.pending_max() {
                tracing::warn!(conn, "a slow consumer is ended");
                inputs.push(Input::Overflow { conn });
            } else if waiting > connection::FILLED && self.filled.insert(conn) {
                inputs.push(Input::Filled { conn });
            }
        }
        inputs
    }

    /// Slows down who publishes to clients that are far behind.
    fn press(&self, pressing: &[(ConnId, ConnId)]) {
        for (publisher, reader) in pressing {
            let pending = self.outboxes.get(reader).map_or(0, Outbox::pending);
            if let Some(outbox) =
                self.outboxes.get(publisher).filter(|_| pending > self.config.max_pending / PRESSED)
            {
                outbox.pause();
            }
        }
    }
}

/// Writes changes to the store: on a thread of its own, and on the core's where that has nothing else to do.
struct Writer {
    store: Store,
    stored: mpsc::UnboundedSender<Stored>,
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
fn run_writer(writer: &Mutex<Writer>, batches: &blocking::Receiver<Batch>) {
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
    fn new(store: Store, stored: mpsc::UnboundedSender<Stored>, min_free: u64) -> Self {
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
    fn write_alone(&mut self, ops: &[StoreOp]) -> bool {
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
    fn wakes(&mut self) -> bool {
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
    fn take(&mut self, more: Batch) {
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

fn read_loop(store: &Store, loads: &blocking::Receiver<Load>, stored: &mpsc::UnboundedSender<Stored>) {
    while let Ok(load) = loads.recv() {
        let report = match store.load(&load) {
            Ok(messages) => Stored::Loaded { load, messages },
            Err(reason) => Stored::Failed(reason),
        };
        if stored.send(report).is_err() {
            return;
        }
    }
}

/// Looks for damage of the store while it is in use.
fn check(store: &Store, stored: &mpsc::UnboundedSender<Stored>, stop: &CancellationToken) {
    if !stop.is_cancelled()
        && let Err(reason) = store.check()
        && !stop.is_cancelled()
    {
        tracing::error!(reason, "the broker's store is damaged");
        // The broker may have ended.
        let _ = stored.send(Stored::Failed(reason));
    }
}

/// What a store holds, read beside a broker that may be running on it.
///
/// # Errors
/// When there is no store or it cannot be read.
pub fn store_list(dir: &std::path::Path) -> Result<Vec<StreamSummary>, Error> {
    let failed = |reason: String| Error::Store { path: dir.to_owned(), reason };
    let recovered =
        Store::open_reader(dir).and_then(|mut store| store.recover(Clock::start().now())).map_err(failed)?;
    Ok(summaries(recovered))
}

/// Looks through a store that no broker runs on, as a start and the look behind it do; answers what it holds.
///
/// # Errors
/// It is in use, damaged, or lacks what was noted.
pub fn store_check(
    dir: &std::path::Path,
    note: Option<(std::path::PathBuf, [u8; 16])>,
) -> Result<Vec<StreamSummary>, Error> {
    let failed = |error: store::OpenError| match error {
        store::OpenError::InUse(pid) => Error::InUse { path: dir.to_owned(), pid },
        store::OpenError::Failed(reason) => Error::Store { path: dir.to_owned(), reason },
    };
    let mut store = Store::open_noted(dir, note).map_err(failed)?;
    let recovered = store.recover(Clock::start().now()).map_err(|reason| failed(reason.into()))?;
    store.check().map_err(|reason| failed(reason.into()))?;
    Ok(summaries(recovered))
}

fn summaries(recovered: Recovered) -> Vec<StreamSummary> {
    recovered
        .streams
        .into_iter()
        .map(|(log, stored)| StreamSummary {
            name: log.config.name.clone(),
            subjects: log.config.subjects.clone(),
            messages: log.index.len(),
            bytes: log.bytes,
            first_seq: log.first_seq(),
            last_seq: stored.last_seq,
            consumers: stored
                .consumers
                .iter()
                .map(|consumer| ConsumerSummary {
                    name: consumer.record.name.clone(),
                    filters: consumer.record.config.filters().map(str::to_owned).collect(),
                    delivered: consumer.delivered.stream,
                    ack_floor: consumer.floor.stream,
                    ack_pending: consumer.pending.len(),
                })
                .collect(),
        })
        .collect()
}

/// A stream as found in a store.
#[derive(Debug, Clone, serde::Serialize)]
pub struct StreamSummary {
    /// Its name.
    pub name: String,
    /// Patterns of its subjects.
    pub subjects: Vec<String>,
    /// Messages in it.
    pub messages: u64,
    /// Bytes that they count for.
    pub bytes: u64,
    /// First sequence, or the one after the last if it is empty.
    pub first_seq: u64,
    /// Last sequence ever used.
    pub last_seq: u64,
    /// Its consumers.
    pub consumers: Vec<ConsumerSummary>,
}

/// A consumer as found in a store.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ConsumerSummary {
    /// Its name.
    pub name: String,
    /// Subjects it wants; none means all.
    pub filters: Vec<String>,
    /// Last stream sequence delivered.
    pub delivered: u64,
    /// Stream sequence up to which everything is settled.
    pub ack_floor: u64,
    /// Deliveries that await an ack.
    pub ack_pending: usize,
}
