//! TLS at both doors: certificate and key from files, and the handshake that follows INFO.

use super::connection::Shared;
use super::connection::{Outbound, Reading, reader, writer};
use crate::core::Securing;
use crate::{Error, Tls};
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use fafnir_tls::{FIRST_BYTE, Files, Server};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

/// Time for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Handshakes under way at the WebSocket door.
const HANDSHAKES_MAX: usize = 256;
/// Time until a client is accepted again after the system could not.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Reads certificate and key; they are read again whenever the files change.
///
/// # Errors
/// [`Error::Config`] when a file cannot be read or the two do not fit.
pub fn acceptor(tls: &Tls) -> Result<TlsAcceptor, Error> {
    let files = Files { certificate: tls.certificate.clone(), key: tls.key.clone() };
    let server = Server::open(&files, None).map_err(|error| Error::Config(format!("TLS: {error}")))?;
    Ok(server.acceptor())
}

/// What a client is offered after INFO.
pub struct Offer {
    /// Who speaks TLS with it.
    pub acceptor: TlsAcceptor,
    /// Whether it has to.
    pub securing: Securing,
}

/// A connection that is secured after INFO, or need not be, then goes on like any other.
pub async fn connection(
    mut socket: TcpStream,
    offer: Offer,
    mut outbound: Outbound,
    reading: Reading,
    stop: CancellationToken,
) {
    let begin = async {
        let info = outbound.receiver.recv().await?;
        socket.write_all(&info).await.ok()?;
        outbound.pending.fetch_sub(info.len(), Ordering::AcqRel);
        let mut first = [0];
        (socket.peek(&mut first).await.ok()? > 0).then_some(first[0] == FIRST_BYTE)
    };
    let secures = tokio::select! {
        secures = tokio::time::timeout(HANDSHAKE, begin) => secures.ok().flatten(),
        () = stop.cancelled() => None,
    };
    match secures {
        Some(false) if offer.securing == Securing::Offered => {
            let (read, write) = socket.into_split();
            tokio::join!(writer(write, outbound, stop.clone()), reader(reading, read, stop));
            return;
        }
        Some(true) => {
            let secured = tokio::select! {
                secured = tokio::time::timeout(HANDSHAKE, offer.acceptor.accept(socket)) => secured,
                () = stop.cancelled() => return reading.close().await,
            };
            if let Ok(Ok(secured)) = secured {
                let (read, write) = tokio::io::split(secured);
                tokio::join!(writer(write, outbound, stop.clone()), reader(reading, read, stop));
                return;
            }
        }
        Some(false) => {
            // It may be gone already.
            let _ = socket.try_write(b"-ERR 'Secure Connection - TLS Required'\r\n");
        }
        None => {}
    }
    stop.cancel();
    reading.close().await;
}

/// The WebSocket door's listener: clients whose handshake is done.
pub struct Secured {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
}

/// The address of a client of [`Secured`].
#[derive(Debug, Clone, Copy)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, Secured>> for Peer {
    fn connect_info(stream: IncomingStream<'_, Secured>) -> Self {
        Self(*stream.remote_addr())
    }
}

impl Listener for Secured {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(client) => client,
            // The door is closing.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// Accepts and secures clients until shutdown, a bounded number at a time.
pub fn secure(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    shared: &Shared,
) -> std::io::Result<(Secured, impl Future<Output = ()> + Send + use<>)> {
    let address = listener.local_addr()?;
    let (sender, ready) = mpsc::channel(HANDSHAKES_MAX);
    let stop = shared.shutdown.clone();
    let accepting = async move {
        let places = Arc::new(Semaphore::new(HANDSHAKES_MAX));
        let mut handshakes = tokio::task::JoinSet::new();
        loop {
            let Ok(place) = places.clone().acquire_owned().await else { return };
            match listener.accept().await {
                Ok((socket, peer)) => {
                    let (acceptor, sender) = (acceptor.clone(), sender.clone());
                    handshakes.spawn(async move {
                        let secured = tokio::time::timeout(HANDSHAKE, acceptor.accept(socket)).await;
                        if let Ok(Ok(secured)) = secured {
                            // The door may be closing.
                            let _ = sender.send((secured, peer)).await;
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a WebSocket client could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
            while handshakes.try_join_next().is_some() {}
        }
    };
    Ok((Secured { ready, address }, async move {
        stop.run_until_cancelled(accepting).await;
    }))
}
