//! Serving HTTP/1.1 and HTTP/2 on one port, with a bound on everything that a client could hold open.
//!
//! `axum::serve` keeps idle, half-header and dripping connections for ever, and hyper-util's `auto` has no deadline for
//! choosing the protocol (security.md): this file chooses it within [`HEADER_TIMEOUT`] and then uses hyper itself. Who
//! may connect is [`place`]'s to say; how long a connection may do nothing is looked at here, every [`LOOK_EVERY`].

pub mod address;
pub mod files;
mod heads;
pub mod place;
mod wire;

use super::{context::Context, tls};
use address::{Proxies, Source};
use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
};
use fafnir_proto::{client, deadline};
use hyper::server::conn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use place::{Limits, Place, Places};
use std::{future::Future, io, net::SocketAddr, pin::pin, sync::Arc, time::Duration};
use tls::Stream;
use tokio::{
    io::AsyncReadExt as _,
    net::{TcpListener, TcpStream},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower_http::timeout::TimeoutLayer;
use wire::{Handler, Rewound};

/// A client must have chosen its protocol, and sent the headers of a request, within this time.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection on which nothing is under way ends after this.
pub const IDLE_MAX: Duration = Duration::from_mins(1);
/// So does one between services that has been used; they open another one when they need it.
const INNER_IDLE_MAX: Duration = Duration::from_mins(10);
/// A client takes something of what is ready for it within this time.
pub const WRITE_MAX: Duration = Duration::from_secs(20);
/// Time between two looks at a connection.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Connections at a time to the public door, to one of the services, to one for operations.
const PUBLIC_PLACES: usize = 4096;
const INNER_PLACES: usize = 512;
const OPERATIONS_PLACES: usize = 64;
/// One file in so many is for the public door, for each of the services, for each of those for operations.
const PUBLIC_SHARE: usize = 2;
const INNER_SHARE: usize = 32;
const OPERATIONS_SHARE: usize = 64;
const CONCURRENT_STREAMS_MAX: u32 = 200;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Header bytes of one request.
const HEADER_BYTES_MAX: u32 = 32 * 1024;
/// At shutdown connections end by themselves within this time.
const DRAIN_MAX: Duration = Duration::from_secs(10);
/// An idle connection that is told to end does so within this time.
const GOODBYE_MAX: Duration = Duration::from_secs(2);
/// After a failed accept (too many open files).
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// What an HTTP/2 client says first.
const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What kind of door it is: who comes, and what it bears.
#[derive(Debug, Clone)]
pub struct Door {
    limits: Limits,
    /// Whose connections stand for many clients.
    proxies: Proxies,
    /// A connection that was used may be idle for this long.
    idle_max: Duration,
    /// The headers of an answer are out within this time; streams live on.
    answer_max: Option<Duration>,
    /// How its connections are secured; `None`: in the clear.
    tls: Option<tls::Server>,
}

/// In the requests of a secured connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Secured {
    /// At a door that demands certificates: the component that the caller's names, where it names one.
    pub caller: Option<Option<String>>,
}

/// Whether a request came over TLS to this very process.
pub fn is_secured(extensions: &http::Extensions) -> bool {
    extensions.get::<Secured>().is_some()
}

impl Door {
    /// For everybody: bounded by address.
    ///
    /// # Errors
    /// Where `gateway.trusted_proxies` names none.
    pub fn public(settings: &super::config::Gateway) -> Result<Self, address::Malformed> {
        let per_address = usize::try_from(settings.connections_per_address).ok().filter(|n| *n > 0);
        Ok(Self {
            limits: Limits {
                places: PUBLIC_PLACES,
                share_of_files: PUBLIC_SHARE,
                per_address,
                per_second: settings.connections_per_second,
            },
            proxies: Proxies::parse(&settings.trusted_proxies)?,
            idle_max: IDLE_MAX,
            answer_max: Some(deadline::ANSWER),
            tls: None,
        })
    }

    /// For the services of the platform. Each call brings its own deadline.
    pub fn inner() -> Self {
        let limits =
            Limits { places: INNER_PLACES, share_of_files: INNER_SHARE, per_address: None, per_second: 0 };
        Self { limits, proxies: Proxies::default(), idle_max: INNER_IDLE_MAX, answer_max: None, tls: None }
    }

    /// For metrics and health.
    pub fn operations() -> Self {
        let limits =
            Limits { places: OPERATIONS_PLACES, share_of_files: OPERATIONS_SHARE, ..Self::inner().limits };
        Self { limits, idle_max: IDLE_MAX, answer_max: Some(deadline::ANSWER), ..Self::inner() }
    }

    /// The same door, secured where `tls` says how.
    #[must_use]
    pub fn secured(self, tls: Option<tls::Server>) -> Self {
        Self { tls, ..self }
    }

    /// The same door, whose answers begin within this time.
    #[must_use]
    pub fn answering(self, within: Duration) -> Self {
        Self { answer_max: Some(within), ..self }
    }
}

/// Serves `router` until shutdown. Returns at once; the server is one of the context's tasks. Handlers find the
/// client's address in `ConnectInfo<SocketAddr>` and their connection's place in `Arc<Place>`.
#[expect(clippy::module_name_repetitions, reason = "beside it stand serve_grpc and serve_operations")]
pub fn serve_http(ctx: &Context, name: &'static str, door: Door, listener: TcpListener, router: Router) {
    let router = match door.answer_max {
        Some(time) => router
            .layer(middleware::from_fn(move |request: Request, next: Next| {
                let asked = client::time_left_of(request.headers()).unwrap_or(time);
                deadline::within(asked.min(time), next.run(request))
            }))
            .layer(TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, time)),
        None => router,
    };
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn(name, async move {
        accept(name, door, &listener, &router, &shutdown).await;
        Ok::<(), io::Error>(())
    });
}

async fn accept(
    name: &'static str,
    door: Door,
    listener: &TcpListener,
    router: &Router,
    shutdown: &CancellationToken,
) {
    let connections = TaskTracker::new();
    let places = Places::new(door.limits);
    let open = metrics::gauge!("fafnir_connections", "service" => name);
    loop {
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(e) => {
                tracing::warn!(service = name, error = %e, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_RETRY).await;
                continue;
            }
        };
        let is_counted = !door.proxies.contains(peer.ip());
        let entry = places.enter(Source::of(peer.ip()), is_counted, files::limit(), Instant::now());
        open.set(places.open() as f64);
        let Some(entry) = entry else {
            metrics::counter!("fafnir_connections_refused_total", "service" => name).increment(1);
            continue;
        };
        let (router, shutdown, door) = (router.clone(), shutdown.clone(), door.clone());
        connections.spawn(async move {
            let place = entry.place;
            let served = async {
                tokio::time::sleep(entry.wait).await;
                connection(stream, peer, &router, &place, &door, &shutdown).await
            };
            let ended = tokio::select! {
                ended = served => ended,
                () = place.displaced() => Err("its place was needed".into()),
                why = lasts_too_long(&place) => Err(why.into()),
            };
            if let Err(e) = ended {
                tracing::debug!(service = name, %peer, error = %e, "connection ended");
            }
        });
    }
    connections.close();
    if tokio::time::timeout(DRAIN_MAX, connections.wait()).await.is_err() {
        tracing::debug!(service = name, open = connections.len(), "connections are cut off");
    }
}

/// Resolves when a connection must be cut off.
async fn lasts_too_long(place: &Place) -> &'static str {
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        let lasting = place.lasting();
        if lasting.head > HEADER_TIMEOUT {
            return "the head of a request did not come in time";
        }
        if lasting.blocked > WRITE_MAX {
            return "the client takes nothing";
        }
    }
}

/// Resolves when a connection has been idle for too long.
async fn idles(place: &Place, idle_max: Duration) {
    loop {
        let lasting = place.lasting();
        let limit = if lasting.was_used { idle_max } else { idle_max.min(IDLE_MAX) };
        if lasting.idle >= limit {
            return;
        }
        tokio::time::sleep(limit.saturating_sub(lasting.idle).max(LOOK_EVERY)).await;
    }
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: &Router,
    place: &Arc<Place>,
    door: &Door,
    shutdown: &CancellationToken,
) -> Outcome {
    let idle_max = door.idle_max;
    stream.set_nodelay(true)?;
    let Some((mut stream, secured)) = secure(stream, door).await? else { return Ok(()) };
    // Where the handshake has chosen, our settings are the first word: the caller waits for it.
    let head = if stream.is_http2() {
        Vec::new()
    } else {
        tokio::time::timeout(HEADER_TIMEOUT, first_bytes(&mut stream)).await??
    };
    let http2 = stream.is_http2() || head == HTTP2_PREFACE;
    if !http2 {
        place.head_begins();
    }
    let handler = Handler::new(router.clone(), peer, secured, Arc::clone(place), http2, idle_max);
    let io = TokioIo::new(Rewound::new(head, stream, Arc::clone(place), http2));
    let ending = async {
        tokio::select! {
            () = shutdown.cancelled() => DRAIN_MAX,
            () = idles(place, idle_max) => GOODBYE_MAX,
        }
    };
    if http2 {
        let mut builder = conn::http2::Builder::new(TokioExecutor::new());
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .max_concurrent_streams(CONCURRENT_STREAMS_MAX)
            .max_header_list_size(HEADER_BYTES_MAX);
        let mut serving = pin!(builder.serve_connection(io, handler));
        until_told(serving.as_mut(), ending, conn::http2::Connection::graceful_shutdown).await
    } else {
        let mut builder = conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(HEADER_BYTES_MAX as usize);
        let mut serving = pin!(builder.serve_connection(io, handler).with_upgrades());
        until_told(serving.as_mut(), ending, conn::http1::UpgradeableConnection::graceful_shutdown).await
    }
}

/// The handshake, where the door has one; `None` for who does not speak TLS, and was told.
async fn secure(stream: TcpStream, door: &Door) -> io::Result<Option<(Stream, Option<Secured>)>> {
    let Some(server) = &door.tls else { return Ok(Some((Stream::Plain(stream), None))) };
    let until = Instant::now() + HEADER_TIMEOUT;
    let mut first = [0];
    if timeout_at(until, stream.peek(&mut first)).await?? == 0 {
        return Ok(None);
    }
    if first[0] != tls::FIRST_BYTE {
        timeout_at(until, tls::refuse_plain(stream)).await??;
        return Ok(None);
    }
    match timeout_at(until, server.accept(stream)).await? {
        Ok((stream, caller)) => {
            let caller = server.demands_certificate().then_some(caller);
            Ok(Some((stream, Some(Secured { caller }))))
        }
        Err(unsecured) => {
            if server.demands_certificate()
                && let Some(why) = tls::sentence(&unsecured.why)
            {
                tracing::warn!(why, "a caller is refused");
            }
            Err(unsecured.linger().await)
        }
    }
}

/// Serves until the connection ends, or is told to by `ending`, which gives it so much time more.
async fn until_told<C, E>(
    mut serving: std::pin::Pin<&mut C>,
    ending: impl Future<Output = Duration>,
    tell: impl FnOnce(std::pin::Pin<&mut C>),
) -> Outcome
where
    C: Future<Output = Result<(), E>>,
    E: std::error::Error + Send + Sync + 'static,
{
    let time = tokio::select! {
        result = serving.as_mut() => return Ok(result?),
        time = ending => time,
    };
    tell(serving.as_mut());
    tokio::time::timeout(time, serving).await??;
    Ok(())
}

/// Reads until it is clear whether the client speaks HTTP/2.
async fn first_bytes(stream: &mut Stream) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HTTP2_PREFACE.len());
    while head.len() < HTTP2_PREFACE.len() && HTTP2_PREFACE.starts_with(&head) {
        let mut rest = (&mut *stream).take((HTTP2_PREFACE.len() - head.len()) as u64);
        if rest.read_buf(&mut head).await? == 0 {
            break;
        }
    }
    Ok(head)
}
