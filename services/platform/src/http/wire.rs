//! What passes on one connection, seen by its place: bytes in and out, requests, and what clients do not take.

use super::{
    Secured,
    place::{Busy, Place},
    tls::Stream as Socket,
};
use axum::{Router, body::Body, extract::ConnectInfo};
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower::Service as _;

/// Bytes of an answer over HTTP/2 that are handed out at a time: the rest is seen to wait where the client takes none.
const CHUNK: usize = 16 * 1024;

/// A stream whose first bytes have been looked at.
#[derive(Debug)]
pub struct Rewound {
    head: Vec<u8>,
    read: usize,
    stream: Socket,
    place: Arc<Place>,
    http2: bool,
}

impl Rewound {
    pub fn new(head: Vec<u8>, stream: Socket, place: Arc<Place>, http2: bool) -> Self {
        Self { head, read: 0, stream, place, http2 }
    }

    fn wrote(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.place.writes(written.is_pending());
        written
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = &self.head[self.read..];
        if left.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
            let came = buffer.filled().len() - before;
            if !self.http2 && came > 0 {
                self.place.head_begins();
            }
            if !self.place.came(came) {
                return Poll::Ready(Err(io::Error::other("more came than a message may have")));
            }
            return Poll::Ready(Ok(()));
        }
        let n = left.len().min(buffer.remaining());
        buffer.put_slice(&left[..n]);
        self.read += n;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.wrote(written)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.wrote(written)
    }
    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// Answers the requests of one connection.
#[derive(Debug)]
pub struct Handler {
    router: Router,
    peer: SocketAddr,
    secured: Option<Secured>,
    place: Arc<Place>,
    http2: bool,
    next_stream: AtomicU64,
    /// `Keep-Alive`: how long the door keeps an idle connection.
    keep_alive: Option<HeaderValue>,
}

impl Handler {
    pub fn new(
        router: Router,
        peer: SocketAddr,
        secured: Option<Secured>,
        place: Arc<Place>,
        http2: bool,
        idle_max: Duration,
    ) -> Self {
        let keep_alive = HeaderValue::from_str(&format!("timeout={}", idle_max.as_secs())).ok();
        let keep_alive = keep_alive.filter(|_| !http2);
        Self { router, peer, secured, place, http2, next_stream: AtomicU64::new(0), keep_alive }
    }
}

impl hyper::service::Service<Request<Incoming>> for Handler {
    type Response = Response<Watched>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let busy = self.place.busy();
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(self.peer));
        request.extensions_mut().insert(Arc::clone(&self.place));
        if let Some(secured) = &self.secured {
            request.extensions_mut().insert(secured.clone());
        }
        let stream = self.http2.then(|| Stream {
            place: Arc::clone(&self.place),
            id: self.next_stream.fetch_add(1, Ordering::Relaxed),
        });
        let keep_alive = self.keep_alive.clone();
        let answering = self.router.clone().call(request);
        Box::pin(async move {
            let mut response = answering.await?;
            if let Some(keep_alive) =
                keep_alive.filter(|_| response.status() != StatusCode::SWITCHING_PROTOCOLS)
            {
                response.headers_mut().insert("keep-alive", keep_alive);
            }
            Ok(response.map(|body| Watched { body, rest: Bytes::new(), stream, _busy: busy }))
        })
    }
}

/// A stream of HTTP/2.
#[derive(Debug)]
struct Stream {
    place: Arc<Place>,
    id: u64,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.place.unread(self.id, false);
    }
}

/// The body of an answer: its connection is busy until it is out.
#[derive(Debug)]
pub struct Watched {
    body: Body,
    /// What is ready and was not handed out yet.
    rest: Bytes,
    /// Over HTTP/1 the socket itself tells whether the client takes it.
    stream: Option<Stream>,
    _busy: Busy,
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(stream) = &this.stream else {
            return Pin::new(&mut this.body).poll_frame(cx);
        };
        // Asked for more: what was ready before has been taken.
        stream.place.unread(stream.id, false);
        if this.rest.is_empty() {
            match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => this.rest = data,
                    Err(frame) => return Poll::Ready(Some(Ok(frame))),
                },
                other => return Poll::Ready(other),
            }
        }
        let chunk = this.rest.split_to(this.rest.len().min(CHUNK));
        stream.place.unread(stream.id, true);
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.rest.len() as u64;
        let inner = self.body.size_hint();
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower().saturating_add(rest));
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper.saturating_add(rest));
        }
        hint
    }
}
