//! One client's socket: a task that reads operations, a task that writes what the core has for it.

use super::Event;
use crate::core::net::ConnId;
use crate::core::wire::{self, Op, Parser};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

const READ_BYTES: usize = 64 << 10;
/// Operations handed to the core at once.
const BATCH_MAX: usize = 512;
/// Time within which a client must take at least some of what waits for it (the original's default).
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the last bytes to reach a client that is being ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// Bytes that wait for a client above which consumers send it no more.
pub const FILLED: usize = 4 << 20;
/// Bytes that wait for a client below which they go on.
pub const DRAINED: usize = 2 << 20;
/// How long a publisher is not read who fills up somebody that reads too slowly.
const PRESSING_PAUSE: Duration = Duration::from_millis(2);

/// The core's side of a connection.
pub struct Outbox {
    bytes: mpsc::UnboundedSender<Bytes>,
    pending: Arc<AtomicUsize>,
    pauses: Arc<AtomicBool>,
    stop: CancellationToken,
}

/// What the tasks of all connections have in common.
#[derive(Clone)]
pub struct Shared {
    /// What clients ask for.
    pub events: mpsc::Sender<Event>,
    /// Rung when a client that was filled has read most of it.
    pub drained: Arc<Notify>,
    /// Ends everything.
    pub shutdown: CancellationToken,
}

impl Outbox {
    /// Queues bytes; returns how many wait then.
    pub fn push(&self, bytes: Bytes) -> usize {
        let waiting = self.pending.fetch_add(bytes.len(), Ordering::AcqRel) + bytes.len();
        let _ = self.bytes.send(bytes);
        waiting
    }

    /// Bytes that wait.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Lets the client's next operations wait a moment.
    pub fn pause(&self) {
        self.pauses.store(true, Ordering::Release);
    }

    /// Stops reading at once; drop the outbox to end writing after what is queued.
    pub fn stop_reading(&self) {
        self.stop.cancel();
    }
}

/// What is to be written to a client.
pub struct Outbound {
    /// Bytes in order.
    pub receiver: mpsc::UnboundedReceiver<Bytes>,
    /// How many wait.
    pub pending: Arc<AtomicUsize>,
    drained: Arc<Notify>,
}

/// Both ends of a connection that is not served yet.
fn prepare(
    id: ConnId,
    payload_max: usize,
    shared: &Shared,
) -> (Outbox, Outbound, Reading, CancellationToken) {
    let (bytes, receiver) = mpsc::unbounded_channel();
    let pending = Arc::new(AtomicUsize::new(0));
    let pauses = Arc::new(AtomicBool::new(false));
    let stop = shared.shutdown.child_token();
    let outbound = Outbound { receiver, pending: pending.clone(), drained: shared.drained.clone() };
    let reading = Reading { id, payload_max, events: shared.events.clone(), pauses: pauses.clone() };
    (Outbox { bytes, pending, pauses, stop: stop.clone() }, outbound, reading, stop)
}

/// Starts both tasks of a connection; the events end with `Event::Closed`.
pub fn start(
    id: ConnId,
    (read, write): (impl AsyncRead + Unpin + Send + 'static, impl AsyncWrite + Unpin + Send + 'static),
    payload_max: usize,
    shared: &Shared,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Outbox {
    let (outbox, outbound, reading, stop) = prepare(id, payload_max, shared);
    tasks.spawn(writer(write, outbound, stop.clone()));
    tasks.spawn(reader(reading, read, stop));
    outbox
}

/// Starts a connection that is secured after INFO.
pub fn start_secured(
    id: ConnId,
    socket: TcpStream,
    acceptor: TlsAcceptor,
    payload_max: usize,
    shared: &Shared,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Outbox {
    let (outbox, outbound, reading, stop) = prepare(id, payload_max, shared);
    tasks.spawn(super::tls::connection(socket, acceptor, outbound, reading, stop));
    outbox
}

/// What a reader needs besides its socket.
pub struct Reading {
    id: ConnId,
    payload_max: usize,
    events: mpsc::Sender<Event>,
    pauses: Arc<AtomicBool>,
}

impl Reading {
    /// Tells that the client is gone.
    pub async fn close(self) {
        let _ = self.events.send(Event::Closed { conn: self.id }).await;
    }
}

/// Reads operations until the client or the broker ends.
pub async fn reader(reading: Reading, mut socket: impl AsyncRead + Unpin, stop: CancellationToken) {
    let Reading { id, payload_max, events, pauses } = reading;
    let mut parser = Parser::new(payload_max);
    let mut buffer = BytesMut::new();
    loop {
        if buffer.capacity() - buffer.len() < READ_BYTES / 4 {
            buffer.reserve(READ_BYTES);
        }
        let read = tokio::select! {
            read = socket.read_buf(&mut buffer) => read,
            () = stop.cancelled() => break,
        };
        if !matches!(read, Ok(count) if count > 0) {
            break;
        }
        let mut fatal = false;
        while !fatal {
            let (batch, more) = parse(&mut parser, &mut buffer);
            fatal = matches!(batch.last(), Some(Err(error)) if error.is_fatal());
            if !batch.is_empty() && events.send(Event::Ops { conn: id, batch }).await.is_err() {
                return;
            }
            if !more {
                break;
            }
        }
        if pauses.swap(false, Ordering::AcqRel) {
            tokio::time::sleep(PRESSING_PAUSE).await;
        }
        if fatal {
            // The core says why and ends the connection; nothing more is read.
            stop.cancelled().await;
            break;
        }
    }
    stop.cancel();
    let _ = events.send(Event::Closed { conn: id }).await;
}

fn parse(parser: &mut Parser, buffer: &mut BytesMut) -> (Vec<Result<Op, wire::Error>>, bool) {
    let mut batch = Vec::new();
    while batch.len() < BATCH_MAX {
        match parser.next(buffer) {
            Ok(Some(op)) => batch.push(Ok(op)),
            Ok(None) => return (batch, false),
            Err(error) => {
                batch.push(Err(error));
                if error.is_fatal() {
                    return (batch, false);
                }
            }
        }
    }
    (batch, true)
}

/// Writes what there is until the client or the broker ends.
pub async fn writer(mut socket: impl AsyncWrite + Unpin, outbound: Outbound, stop: CancellationToken) {
    let Outbound { mut receiver, pending, drained } = outbound;
    let work = async {
        'open: while let Some(mut bytes) = receiver.recv().await {
            while !bytes.is_empty() {
                match tokio::time::timeout(WRITE_DEADLINE, socket.write_buf(&mut bytes)).await {
                    Ok(Ok(count)) if count > 0 => {
                        let before = pending.fetch_sub(count, Ordering::AcqRel);
                        if before > DRAINED && before - count <= DRAINED {
                            drained.notify_one();
                        }
                    }
                    Ok(_) => break 'open,
                    Err(_) => {
                        tracing::warn!("a client that takes nothing is ended");
                        break 'open;
                    }
                }
            }
            // Only TLS keeps something back.
            if !matches!(tokio::time::timeout(WRITE_DEADLINE, socket.flush()).await, Ok(Ok(()))) {
                break;
            }
        }
        let _ = socket.shutdown().await;
    };
    tokio::pin!(work);
    tokio::select! {
        () = &mut work => {}
        () = stop.cancelled() => {
            let _ = tokio::time::timeout(FAREWELL, work).await;
        }
    }
    stop.cancel();
}
