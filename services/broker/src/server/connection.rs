//! One client's socket: a task that reads operations, a task that writes what the core has for it.

use super::Event;
use crate::core::net::ConnId;
use crate::core::wire::{self, Op, Parser};
use bytes::{Buf, Bytes, BytesMut};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// Room for reading.
const READ_BYTES: usize = 64 << 10;
/// Room for reading from who has not signed in.
const STRANGER_READ: usize = 4 << 10;
/// Bytes that are read from who has not signed in beyond what it asked for; the rest waits in its socket.
const STRANGER_UNREAD: usize = 16 << 10;
/// Bytes that may wait for who has not signed in.
const STRANGER_PENDING: usize = 64 << 10;
/// Batches of one client that wait for the core before its socket is no longer read: others are not kept waiting by it.
const BATCHES_MAX: usize = 4;
/// Bytes of the operations that there are most of.
const OP_BYTES: usize = 32;
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

/// Most bytes that the core writes to a socket itself, when nothing waits for it: an answer is there one task earlier.
const DIRECT_BYTES: usize = 4 << 10;

/// The core's side of a connection.
pub struct Outbox {
    bytes: mpsc::UnboundedSender<Bytes>,
    /// The socket itself, where it is one without TLS or WebSocket; its writer ends it.
    socket: Weak<OwnedWriteHalf>,
    pending: Arc<AtomicUsize>,
    pauses: Arc<AtomicBool>,
    signed: CancellationToken,
    pending_max: usize,
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
    /// Writes a few bytes at once if nothing waits and the socket takes them.
    fn write_now(&self, bytes: &mut Bytes) {
        // The writer has written everything when nothing waits, and gets nothing but from here.
        if bytes.len() <= DIRECT_BYTES
            && self.pending() == 0
            && let Some(socket) = self.socket.upgrade()
            // What fails is tried again by the writer, who ends the connection if it must.
            && let Ok(count) = socket.try_write(bytes)
        {
            bytes.advance(count);
        }
    }

    /// Queues bytes, or writes them at once if `now` and it goes; returns how many wait then.
    pub fn push(&self, mut bytes: Bytes, now: bool) -> usize {
        if now {
            self.write_now(&mut bytes);
            if bytes.is_empty() {
                return 0;
            }
        }
        let waiting = self.pending.fetch_add(bytes.len(), Ordering::AcqRel) + bytes.len();
        let _ = self.bytes.send(bytes);
        waiting
    }

    /// Bytes that wait.
    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Bytes that may wait before the client is ended.
    pub fn pending_max(&self) -> usize {
        if self.signed.is_cancelled() { self.pending_max } else { self.pending_max.min(STRANGER_PENDING) }
    }

    /// Notes that the client has signed in; so many bytes may wait for it.
    pub fn sign_in(&mut self, pending_max: usize) {
        self.pending_max = pending_max;
        self.signed.cancel();
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
    let signed = CancellationToken::new();
    let outbound = Outbound { receiver, pending: pending.clone(), drained: shared.drained.clone() };
    let reading = Reading {
        id,
        payload_max,
        events: shared.events.clone(),
        pauses: pauses.clone(),
        signed: signed.clone(),
    };
    let (socket, pending_max) = (Weak::new(), usize::MAX);
    let outbox = Outbox { bytes, socket, pending, pauses, signed, pending_max, stop: stop.clone() };
    (outbox, outbound, reading, stop)
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

/// Starts both tasks of a connection whose socket the core may write to as well.
pub fn start_plain(
    id: ConnId,
    socket: TcpStream,
    payload_max: usize,
    shared: &Shared,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Outbox {
    let (read, write) = socket.into_split();
    let write = Arc::new(write);
    let socket = Arc::downgrade(&write);
    Outbox { socket, ..start(id, (read, SharedHalf(write)), payload_max, shared, tasks) }
}

/// The writing half of a socket that the core may write to while its writer has nothing. It is shut down with its last
/// owner.
struct SharedHalf(Arc<OwnedWriteHalf>);

impl AsyncWrite for SharedHalf {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        let socket: &TcpStream = (*self.0).as_ref();
        loop {
            std::task::ready!(socket.poll_write_ready(context))?;
            match socket.try_write(bytes) {
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                outcome => return Poll::Ready(outcome),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Starts a connection that may be or has to be secured after INFO.
pub fn start_secured(
    id: ConnId,
    socket: TcpStream,
    offer: super::tls::Offer,
    payload_max: usize,
    shared: &Shared,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Outbox {
    let (outbox, outbound, reading, stop) = prepare(id, payload_max, shared);
    tasks.spawn(super::tls::connection(socket, offer, outbound, reading, stop));
    outbox
}

/// What a reader needs besides its socket.
pub struct Reading {
    id: ConnId,
    payload_max: usize,
    events: mpsc::Sender<Event>,
    pauses: Arc<AtomicBool>,
    signed: CancellationToken,
}

impl Reading {
    /// Tells that the client is gone.
    pub async fn close(self) {
        let _ = self.events.send(Event::Closed { conn: self.id }).await;
    }
}

/// Reads operations until the client or the broker ends.
pub async fn reader(reading: Reading, mut socket: impl AsyncRead + Unpin, stop: CancellationToken) {
    let Reading { id, payload_max, events, pauses, signed } = reading;
    let mut parser = Parser::new(payload_max);
    let mut buffer = BytesMut::new();
    let places = Arc::new(Semaphore::new(BATCHES_MAX));
    loop {
        let spare = buffer.capacity() - buffer.len();
        if signed.is_cancelled() {
            let lacks = parser.lacks(buffer.len()).max(READ_BYTES / 4);
            if spare < lacks {
                buffer.reserve(lacks.max(READ_BYTES));
            }
        } else if buffer.len() >= STRANGER_UNREAD {
            tokio::select! {
                () = signed.cancelled() => continue,
                () = stop.cancelled() => break,
            }
        } else if spare < STRANGER_READ / 4 {
            buffer.reserve(STRANGER_READ);
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
            if !batch.is_empty() {
                let Ok(place) = places.clone().acquire_owned().await else { return };
                if events.send(Event::Ops { conn: id, batch, place }).await.is_err() {
                    return;
                }
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
    let mut batch = Vec::with_capacity((buffer.len() / OP_BYTES + 1).min(BATCH_MAX));
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncWriteExt, duplex};

    #[tokio::test]
    async fn before_sign_in_little_is_read_and_after_it_everything() {
        const PIPE: usize = 1024;
        let (events, mut told) = mpsc::channel(16);
        let shared = Shared { events, drained: Arc::default(), shutdown: CancellationToken::new() };
        let (mut outbox, _outbound, reading, stop) = prepare(1, 1 << 20, &shared);
        let (mut client, socket) = duplex(PIPE);
        let reads = tokio::spawn(reader(reading, socket, stop));
        let mut message = b"PUB a 500000\r\n".to_vec();
        message.resize(message.len() + 500_000, b'x');
        message.extend_from_slice(b"\r\n");
        let mut sent = 0;
        // It takes what it may, then nothing: the write stays pending while the reader has its turns.
        while let Ok(count) =
            tokio::time::timeout(Duration::from_millis(50), client.write(&message[sent..])).await
        {
            sent += count.unwrap();
            assert!(sent <= STRANGER_UNREAD + STRANGER_READ + PIPE, "{sent}");
        }
        assert!(sent >= STRANGER_UNREAD);
        outbox.sign_in(1 << 20);
        client.write_all(&message[sent..]).await.unwrap();
        let Some(Event::Ops { batch, .. }) = told.recv().await else { panic!("an operation") };
        assert!(matches!(&batch[..], [Ok(Op::Pub { payload, .. })] if payload.len() == 500_000));
        drop(client);
        reads.await.unwrap();
    }
}
