//! Serving HTTP/1.1 and HTTP/2 on one port, with a deadline for everything that a slow client could hold open.
//!
//! `axum::serve` keeps idle, half-header and dripping connections for ever, and hyper-util's `auto` has no deadline for
//! choosing the protocol (security.md): this file chooses it within [`HEADER_TIMEOUT`] and then uses hyper itself.

use super::context::Context;
use axum::{Router, extract::ConnectInfo, http::StatusCode};
use hyper::{body::Incoming, server::conn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::Arc,
    task::{self, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::ServiceExt as _;
use tower_http::timeout::TimeoutLayer;

/// A client must have chosen its protocol, and sent the headers of a request, within this time.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// The headers of an answer are out within this time; streams live on.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections at a time; more wait in the listen queue.
const CONNECTIONS_MAX: usize = 4096;
const CONCURRENT_STREAMS_MAX: u32 = 200;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Header bytes of one request.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// At shutdown connections end by themselves within this time.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// After a failed accept (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What an HTTP/2 client says first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Serves `router` until shutdown. Returns at once; the server is one of the context's tasks. Handlers find the
/// client's address in `ConnectInfo<SocketAddr>`.
#[expect(clippy::module_name_repetitions, reason = "beside it stand serve_grpc and serve_operations")]
pub fn serve_http(ctx: &Context, name: &'static str, listener: TcpListener, router: Router) {
    let router = router.layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, ANSWER_TIMEOUT));
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn(name, async move {
        accept(name, &listener, &router, &shutdown).await;
        Ok::<(), io::Error>(())
    });
}

async fn accept(name: &'static str, listener: &TcpListener, router: &Router, shutdown: &CancellationToken) {
    let connections = TaskTracker::new();
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = async {
                let permit = Arc::clone(&room).acquire_owned().await.map_err(io::Error::other)?;
                Ok::<_, io::Error>((permit, listener.accept().await?))
            } => accepted,
        };
        match accepted {
            Ok((permit, (stream, peer))) => {
                let (router, shutdown) = (router.clone(), shutdown.clone());
                connections.spawn(async move {
                    if let Err(e) = connection(stream, peer, router, &shutdown).await {
                        tracing::debug!(service = name, %peer, error = %e, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(e) => {
                tracing::warn!(service = name, error = %e, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::debug!(service = name, open = connections.len(), "connections are cut off");
    }
}

async fn connection(
    mut stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    shutdown: &CancellationToken,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    stream.set_nodelay(true)?;
    let head = tokio::time::timeout(HEADER_TIMEOUT, first_bytes(&mut stream)).await??;
    let http2 = head == HTTP2_PREFACE;
    let io = TokioIo::new(Rewound { head, read: 0, stream });
    let service =
        TowerToHyperService::new(router.map_request(move |mut request: http::Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request
        }));
    if http2 {
        let mut builder = conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX);
        let mut serving = pin!(builder.serve_connection(io, service));
        tokio::select! {
            result = serving.as_mut() => return Ok(result?),
            () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        tokio::time::timeout(DRAIN_MAX, serving).await??;
    } else {
        let mut builder = conn::http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .max_header_size(HEADER_BYTES_MAX as usize);
        let mut serving = pin!(builder.serve_connection(io, service).with_upgrades());
        tokio::select! {
            result = serving.as_mut() => return Ok(result?),
            () = shutdown.cancelled() => serving.as_mut().graceful_shutdown(),
        }
        tokio::time::timeout(DRAIN_MAX, serving).await??;
    }
    Ok(())
}

/// Reads until it is clear whether the client speaks HTTP/2.
async fn first_bytes(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HTTP2_PREFACE.len());
    while head.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&head) {
        let mut rest = (&mut *stream).take((HTTP2_PREFACE.len() - head.len()) as u64);
        if rest.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}

/// A stream whose first bytes have been looked at.
struct Rewound {
    head: Vec<u8>,
    read: usize,
    stream: TcpStream,
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.head[self.read..];
        if left.is_empty() {
            return Pin::new(&mut self.stream).poll_read(cx, buffer);
        }
        let n = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..n]);
        self.read += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut task::Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
