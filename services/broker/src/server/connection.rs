//! One client's socket: a task that reads operations, a task that writes what the core has for it.

use super::Event;
use crate::core::net::ConnId;
use crate::core::wire::{self, Op, Parser};
use bytes::{Bytes, BytesMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

const READ_BYTES: usize = 64 << 10;
/// Operations handed to the core at once.
const BATCH_MAX: usize = 512;
/// Time within which a client must take at least some of what waits for it (the original's default).
pub const WRITE_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the last bytes to reach a client that is being ended.
const FAREWELL: Duration = Duration::from_secs(2);

/// The core's side of a connection.
pub struct Outbox {
    bytes: mpsc::UnboundedSender<Bytes>,
    pending: Arc<AtomicUsize>,
    stop: CancellationToken,
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

    /// Stops reading at once; drop the outbox to end writing after what is queued.
    pub fn stop_reading(&self) {
        self.stop.cancel();
    }
}

/// Starts both tasks of a connection; the events end with `Event::Closed`.
pub fn start(
    id: ConnId,
    socket: TcpStream,
    payload_max: usize,
    events: mpsc::Sender<Event>,
    shutdown: &CancellationToken,
    tasks: &mut tokio::task::JoinSet<()>,
) -> Outbox {
    let _ = socket.set_nodelay(true);
    let (read, write) = socket.into_split();
    let (sender, receiver) = mpsc::unbounded_channel();
    let pending = Arc::new(AtomicUsize::new(0));
    let stop = shutdown.child_token();
    tasks.spawn(writer(write, receiver, pending.clone(), stop.clone()));
    tasks.spawn(reader(id, read, payload_max, events, stop.clone()));
    Outbox { bytes: sender, pending, stop }
}

async fn reader(
    id: ConnId,
    mut socket: OwnedReadHalf,
    payload_max: usize,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
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

async fn writer(
    mut socket: OwnedWriteHalf,
    mut receiver: mpsc::UnboundedReceiver<Bytes>,
    pending: Arc<AtomicUsize>,
    stop: CancellationToken,
) {
    let work = async {
        'open: while let Some(mut bytes) = receiver.recv().await {
            while !bytes.is_empty() {
                match tokio::time::timeout(WRITE_DEADLINE, socket.write_buf(&mut bytes)).await {
                    Ok(Ok(count)) if count > 0 => pending.fetch_sub(count, Ordering::AcqRel),
                    Ok(_) => break 'open,
                    Err(_) => {
                        tracing::warn!("a client that takes nothing is ended");
                        break 'open;
                    }
                };
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
