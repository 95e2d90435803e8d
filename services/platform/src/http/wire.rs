//! What passes on one connection, seen by its place: bytes in and out, requests, and what clients do not take.

use super::{
    HTTP2_PREFACE, Secured,
    heads::Heads,
    place::{Busy, Place, Waiting},
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

/// Bytes that a connection may bring before others have their turn: so many small frames are soon worked through.
const TURN: usize = 32 * 1024;
/// Bytes of an answer over HTTP/2 that are handed out at a time: the rest is seen to wait where the client takes none.
const CHUNK: usize = 16 * 1024;

/// A stream whose first bytes have been looked at.
#[derive(Debug)]
pub struct Rewound {
    head: Vec<u8>,
    read: usize,
    stream: Socket,
    place: Arc<Place>,
    /// Of HTTP/2, where it is that.
    heads: Option<Heads>,
    /// What came since others had their turn.
    turn: usize,
}

impl Rewound {
    pub fn new(head: Vec<u8>, stream: Socket, place: Arc<Place>, http2: bool) -> Self {
        // Where the handshake chose HTTP/2 its preface was not read yet, and is no frame.
        let before = if http2 { HTTP2_PREFACE.len() - head.len() } else { 0 };
        let heads = http2.then(|| Heads::after(before));
        Self { head, read: 0, stream, place, heads, turn: 0 }
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
            if self.turn >= TURN {
                self.turn = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let before = buffer.filled().len();
            let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
            if read.is_pending() {
                self.turn = 0;
            }
            ready!(read)?;
            let came = buffer.filled().len() - before;
            self.turn += came;
            let this = &mut *self;
            match &mut this.heads {
                Some(heads) => {
                    heads.came(&buffer.filled()[before..]);
                    this.place.head_lasts(heads.is_amid());
                }
                None if came > 0 => this.place.head_begins(),
                None => {}
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
        if !self.http2 {
            self.place.head_lasts(false);
        }
        let mut request = request.map(|body| {
            if body.is_end_stream() {
                return Body::new(body);
            }
            Body::new(Arriving { body, waiting: Some(self.place.waits()) })
        });
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

/// The body of a request: until it is there it is its client's turn.
#[derive(Debug)]
struct Arriving {
    body: Incoming,
    waiting: Option<Waiting>,
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(cx));
        if frame.is_none() || self.body.is_end_stream() {
            self.waiting = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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

#[cfg(test)]
mod tests {
    use super::{
        super::{
            address::Source,
            place::{Limits, Places},
        },
        *,
    };
    use futures::task::noop_waker_ref;
    use tokio::{
        io::AsyncWriteExt as _,
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    #[tokio::test]
    async fn who_sends_without_a_pause_gives_others_their_turn() {
        const PART: usize = 1024;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let limits = Limits { places: 1, share_of_files: 1, per_address: None, per_second: 0 };
        let entry = Places::new(limits).enter(Source::of(peer.ip()), true, None, Instant::now()).unwrap();
        let mut stream = Rewound::new(Vec::new(), Socket::Plain(stream), entry.place, true);
        sender.write_all(&vec![0; 4 * TURN]).await.unwrap();
        drop(sender);
        let mut turns = Vec::new();
        let mut came = 0;
        loop {
            let (mut part, mut context) = ([0; PART], Context::from_waker(noop_waker_ref()));
            let mut buffer = ReadBuf::new(&mut part);
            // The runtime's own budget is not what is looked at.
            let read = tokio::task::unconstrained(std::future::poll_fn(|_| {
                Poll::Ready(Pin::new(&mut stream).poll_read(&mut context, &mut buffer))
            }));
            match read.await {
                Poll::Pending => {
                    turns.push(std::mem::take(&mut came));
                    tokio::task::yield_now().await;
                }
                Poll::Ready(read) => {
                    read.unwrap();
                    if buffer.filled().is_empty() {
                        break;
                    }
                    came += buffer.filled().len();
                }
            }
        }
        assert_eq!(turns.iter().sum::<usize>() + came, 4 * TURN, "everything arrives");
        assert!(turns.iter().all(|turn| *turn < TURN + PART), "{turns:?}");
        assert!(turns.len() >= 3, "{turns:?}");
    }
}
