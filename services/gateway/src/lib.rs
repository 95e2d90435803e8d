//! The only public door: REST, GraphQL, WebSocket and the terminal's gRPC

mod admin;
mod audit;
mod body;
mod callout;
mod credentials;
mod feeds;
mod graphql;
mod http;
mod key;
mod market;
mod positions;
mod private;
mod proxy;
mod rate;
mod reach;
mod session;
mod sockets;
mod terminal;
mod ws;

pub use callout::issuer;
use fafnir_platform::{
    Context, Error, Service, Starting,
    bus::Bus,
    http::{
        Door,
        address::{Client, Proxies},
        is_secured, serve_http,
    },
    tasks::Schedule,
};
use fafnir_proto::{client, v1, v1::PositionRequest};
pub use graphql::sdl;

use axum::extract::ConnectInfo;
use parking_lot::RwLock;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::Semaphore};

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.gateway,
    port_flag: "--port",
    address: |s| &s.addresses.gateway,
    public: true,
    ..Service::new(
        "api-gateway",
        "The only public door: REST, GraphQL, WebSocket and the terminal's gRPC",
        start,
    )
};

/// How often auth-service is asked for its keys; a new one is announced for longer before it signs.
const KEYS_EVERY: Duration = Duration::from_secs(1);

/// Orders whose account is remembered.
const ORDERS_KEPT_MAX: u64 = 50_000;
/// Documents of one user that may be refused: reading one costs, and what was refused is read again each time it comes.
const REFUSED_PER_SECOND: u32 = 50;
const REFUSED_BURST: u32 = 200;
/// Answers that are held back at a time.
const HELD_BACK_MAX: usize = 2_048;

/// How often the exchange is asked for its notice; it answers from memory.
const NOTICE_EVERY: Duration = Duration::from_secs(1);

/// What every door of the gateway shares. It stores nothing.
struct Gateway {
    ctx: Context,
    bus: Bus,
    sessions: session::Sessions,
    positions: positions::Positions,
    feeds: Arc<feeds::Feeds>,
    orders: rate::Limiter,
    /// What queries cost.
    cost: rate::Limiter,
    /// Documents of a user that were refused.
    refused: rate::Limiter,
    /// Places of answers that are held back: those that tell a user to come later.
    held_back: Semaphore,
    /// What long lists may take.
    lists: graphql::list::Room,
    http: proxy::HttpClient,
    /// What the exchange says that keeps it from taking everything; empty: nothing.
    notice: RwLock<Notice>,
    /// Whose word about a client's address is believed.
    proxies: Proxies,
    sockets: Arc<sockets::Sockets>,
    credentials: credentials::Credentials,
    /// User and account of orders that callers bound to an account asked for, by the order's id.
    accounts_of_orders: moka::sync::Cache<String, (fafnir_proto::id::UserId, Arc<str>)>,
}

impl fmt::Debug for Gateway {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gateway")
    }
}

impl Gateway {
    /// Where a request came from, as far as a trusted proxy or the connection tells.
    fn client(&self, headers: &::http::HeaderMap, extensions: &::http::Extensions) -> Client {
        let peer = extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
        let client = self.proxies.client(headers, peer.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED)));
        Client { secure: client.secure || is_secured(extensions), ..client }
    }
}

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let bus = ctx.bus().await?;
    let limits = &ctx.settings.gateway;
    let gateway = Arc::new(Gateway {
        sessions: session::Sessions::new(ctx.clone()),
        orders: rate::Limiter::new(limits.orders_per_second, limits.orders_burst),
        cost: rate::Limiter::new(limits.cost_per_second, limits.cost_burst),
        refused: rate::Limiter::new(REFUSED_PER_SECOND, REFUSED_BURST),
        held_back: Semaphore::new(HELD_BACK_MAX),
        lists: graphql::list::Room::default(),
        proxies: Proxies::parse(&limits.trusted_proxies)?,
        sockets: Arc::new(sockets::Sockets::new(limits.sockets_per_user, limits.sockets_per_address)),
        positions: positions::Positions::default(),
        feeds: Arc::default(),
        credentials: credentials::Credentials::default(),
        accounts_of_orders: moka::sync::Cache::new(ORDERS_KEPT_MAX),
        http: proxy::client(ctx.tls.client()),
        notice: RwLock::default(),
        bus,
        ctx: ctx.clone(),
    });
    feeds::spawn(&gateway);
    follow_notice(&gateway);
    follow_keys(&gateway);
    credentials::spawn(&gateway)?;
    let door = Door::public(&ctx.settings.gateway)?.secured(ctx.tls.door(SERVICE.name));
    serve_http(&ctx, SERVICE.name, door, listener, http::router(&gateway).await?);
    ready(&gateway).await
}

/// Resolves when there is somebody who says who is signed in and what they may do: without either everything is refused. From
/// then on the gateway is ready while they do.
async fn ready(gateway: &Arc<Gateway>) -> anyhow::Result<()> {
    let ctx = &gateway.ctx;
    ctx.wait_for("auth-service", async || Ok(gateway.sessions.reach_auth().await?)).await?;
    ctx.wait_for("security-service", async || Ok(gateway.sessions.reach_security().await?)).await?;
    let asking = Arc::clone(gateway);
    ctx.health.needs(&ctx.tasks, SERVICE.name, "auth-service", move || {
        let gateway = Arc::clone(&asking);
        async move { gateway.sessions.reach_auth().await.map_err(|s| s.message().to_owned()) }
    });
    let asking = Arc::clone(gateway);
    ctx.health.needs(&ctx.tasks, SERVICE.name, "security-service", move || {
        let gateway = Arc::clone(&asking);
        async move { gateway.sessions.reach_security().await.map_err(|s| s.message().to_owned()) }
    });
    Ok(())
}

/// What the exchange says of itself, and whether it does not take everything.
#[derive(Debug, Clone, Default)]
struct Notice {
    text: String,
    limited: bool,
}

/// Knows the keys of access tokens before tokens of them come.
fn follow_keys(gateway: &Arc<Gateway>) {
    let asking = Arc::clone(gateway);
    gateway.ctx.tasks.every("keys of auth-service", Schedule::after(KEYS_EVERY), move || {
        let gateway = Arc::clone(&asking);
        async move {
            // Who does not answer is told where somebody's token needs it.
            drop(gateway.sessions.look_at_keys().await);
            Ok::<_, Error>(())
        }
    });
}

/// Keeps what terminals are told of the exchange.
fn follow_notice(gateway: &Arc<Gateway>) {
    let asking = Arc::clone(gateway);
    gateway.ctx.tasks.every("notice of the exchange", Schedule::at_once(NOTICE_EVERY), move || {
        let gateway = Arc::clone(&asking);
        async move {
            let mut engine = gateway.ctx.clients.engine(&gateway.ctx.system());
            let asked = tokio::time::timeout(NOTICE_EVERY, engine.position(PositionRequest::default()));
            let notice = match asked.await.map(|reply| reply.map(tonic::Response::into_inner)) {
                Ok(Ok(reply)) => Notice { text: reply.notice, limited: reply.limited },
                _ => Notice { text: "the exchange does not answer".to_owned(), limited: true },
            };
            *gateway.notice.write() = notice;
            Ok::<_, Error>(())
        }
    });
}

/// One line for each order that a client was told to be in.
fn tell_placed(order: &v1::Order) {
    tracing::debug!(order = order.id, trace = client::trace_id(), "answered");
}
