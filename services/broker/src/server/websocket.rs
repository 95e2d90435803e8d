//! The door for browsers: WebSocket connections whose binary messages carry the bytes of the protocol.

use super::connection::Shared;
use super::tls::{Peer, Secured};
use axum::Router;
use axum::body::Bytes;
use axum::extract::ws::{Message, WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use axum::routing::get;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Bytes between a WebSocket and its connection, in each direction.
const PIPE: usize = 64 << 10;
/// Longest message of a client besides its payload.
const OVERHEAD: usize = 64 << 10;
/// Time for open connections to end.
const PATIENCE: Duration = Duration::from_secs(2);

/// A client whose WebSocket is open.
pub struct Accepted {
    /// The bytes of the protocol.
    pub pipe: DuplexStream,
    /// Its address.
    pub peer: SocketAddr,
}

/// Where open WebSockets go.
#[derive(Clone)]
pub struct Door {
    /// To the broker.
    pub accepted: mpsc::Sender<Accepted>,
    /// Largest payload with header, in bytes.
    pub payload_max: usize,
}

/// Accepts until shutdown.
pub async fn serve(listener: TcpListener, door: Door, shared: Shared) {
    let answer = |State(door): State<Door>,
                  ConnectInfo(peer): ConnectInfo<SocketAddr>,
                  request: WebSocketUpgrade| async move { upgrade(door, peer, request) };
    let service = Router::new().fallback(get(answer)).with_state(door);
    let service = service.into_make_service_with_connect_info::<SocketAddr>();
    let stop = shared.shutdown.clone();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    until_stopped(served.into_future(), &stop).await;
}

/// Accepts over TLS until shutdown.
pub async fn serve_secured(listener: Secured, door: Door, shared: Shared) {
    let answer = |State(door): State<Door>,
                  ConnectInfo(peer): ConnectInfo<Peer>,
                  request: WebSocketUpgrade| async move { upgrade(door, peer.0, request) };
    let service = Router::new().fallback(get(answer)).with_state(door);
    let service = service.into_make_service_with_connect_info::<Peer>();
    let stop = shared.shutdown.clone();
    let served = axum::serve(listener, service).with_graceful_shutdown(stop.clone().cancelled_owned());
    until_stopped(served.into_future(), &stop).await;
}

async fn until_stopped(served: impl Future<Output = std::io::Result<()>>, stop: &CancellationToken) {
    tokio::select! {
        outcome = served => {
            if let Err(error) = outcome {
                tracing::error!(%error, "the WebSocket door ended");
            }
        }
        () = async { stop.cancelled().await; tokio::time::sleep(PATIENCE).await } => {}
    }
}

fn upgrade(door: Door, peer: SocketAddr, request: WebSocketUpgrade) -> Response {
    let most = door.payload_max + OVERHEAD;
    request.max_message_size(most).max_frame_size(most).on_upgrade(move |socket| async move {
        let (pipe, ours) = tokio::io::duplex(PIPE);
        if door.accepted.send(Accepted { pipe, peer }).await.is_ok() {
            bridge(socket, ours).await;
        }
    })
}

/// Carries bytes both ways until either side ends.
async fn bridge(mut socket: WebSocket, pipe: DuplexStream) {
    let (mut read, mut write) = tokio::io::split(pipe);
    let mut buffer = vec![0; PIPE];
    loop {
        tokio::select! {
            count = read.read(&mut buffer) => match count {
                Ok(count) if count > 0 => {
                    let bytes = Bytes::copy_from_slice(&buffer[..count]);
                    if socket.send(Message::Binary(bytes)).await.is_err() {
                        return;
                    }
                }
                _ => {
                    // The client may be gone.
                    let _ = socket.send(Message::Close(None)).await;
                    return;
                }
            },
            message = socket.recv() => {
                let bytes = match message {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => text.into(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return,
                };
                if write.write_all(&bytes).await.is_err() {
                    return;
                }
            }
        }
    }
}
