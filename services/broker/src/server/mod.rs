//! The tokio adapter: one task owns the core, one thread owns the store, each connection has a reader and a writer.

mod connection;
mod metric;
mod monitor;
mod store;
mod tls;
mod websocket;
mod writer;

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
use store::Store;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use writer::{Batch, LAZY, Writer};

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
/// Changes that the core writes itself where nothing else is to be done, and their bytes.
const ALONE_MAX: usize = 16;
const ALONE_BYTES: usize = 64 << 10;
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
    let writer_done = spawn_thread("broker-store", move || writer::run(&writing, &batch_receiver))?;
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
