//! The embedded NATS and JetStream server as a service of the platform.

pub mod alone;
mod guests;
pub mod inspect;

use crate::compose::PortError;
use fafnir_broker::{Config, User};
use fafnir_platform::{
    Context, Service, Settings, Speaks, Starting,
    config::is_loopback,
    manifest::{Claim, Manifest, Said},
    secrets::{Secret, Secrets, services_user},
    telemetry, tls,
};
use tokio::net::TcpListener;

pub use fafnir_broker::{Error, Tls, store_check};

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: "fafnir_broker",
    directory: "nats",
    speaks: Speaks::Nats,
    port: |s| s.ports.broker,
    port_flag: "--broker-port",
    address: |s| &s.nats.url,
    foundation: true,
    public: true,
    ..Service::new("broker", "The embedded NATS and JetStream server", start)
};

/// Its store's name in the manifest.
const STORE: &str = "broker";
/// The user of the services: publishes and subscribes everything.
pub const SERVICES_USER: &str = "services";

/// What [`PortError`] calls the WebSocket door.
pub const WEBSOCKET: &str = "the broker's WebSocket door";
/// Setting that chooses its port.
const WEBSOCKET_SETTING: &str = "FAFNIR_PORTS_BROKER_WEBSOCKET=";

/// What [`PortError`] calls the monitoring door.
pub const MONITOR: &str = "the broker's monitor";
/// Flag of the command line that chooses its port.
const MONITOR_FLAG: &str = "--monitor-port";

async fn bind(
    service: &'static str,
    flag: &'static str,
    host: &str,
    port: u16,
) -> Result<TcpListener, PortError> {
    TcpListener::bind((host, port)).await.map_err(|source| PortError {
        service,
        flag,
        host: host.to_owned(),
        port,
        source,
    })
}

/// Who may always sign in to the platform's broker. Whoever watches market data is a guest ([`guests`]), and so is who has a
/// password that takes the place of this one.
fn users(secrets: &Secrets) -> Vec<User> {
    let current = secrets.nats_services.current();
    let mut users = vec![User::all(SERVICES_USER, current.expose())];
    users.extend(secrets.nats_services.accepted().iter().map(service));
    users
}

/// The user of the services with this password.
fn service(password: &Secret) -> User {
    User::all(services_user(password), password.expose())
}

/// Certificate and key, where they are configured. The platform's own processes on this machine connect in the clear.
pub fn tls(settings: &Settings) -> Option<Tls> {
    let files = tls::public_files(settings, SERVICE.name)?;
    Some(Tls { certificate: files.certificate, key: files.key, loopback_in_clear: true })
}

/// Where the monitoring door listens: it has no TLS, so that other machines reach it only where that is asked for.
pub fn monitor_host(settings: &Settings) -> &str {
    let bind = &settings.bind;
    if bind.insecure || is_loopback(&bind.inner_host) { bind.bare_inner_host() } else { "127.0.0.1" }
}

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let settings = &ctx.settings;
    let port = if settings.bind.auto { 0 } else { settings.ports.broker_monitor };
    let monitor = bind(MONITOR, MONITOR_FLAG, monitor_host(settings), port).await?;
    let dir = settings.data_dir();
    let manifest = Manifest::of(&dir);
    let store = dir.join("broker");
    let now_us = ctx.clock.now_us();
    // A first start that was cut off before anything was noted has lost nothing.
    let is_made = manifest.stores()?.get(STORE).is_some_and(|entry| entry.made);
    let was_there = is_made || manifest.noted(STORE)? != Said::Nothing;
    let claim = manifest.claim_dir(STORE, &store, |name| name == "broker.sqlite3", true, now_us)?;
    if was_there && matches!(claim, Claim::Make(_)) {
        tracing::error!(file = %store.display(), "the broker's store is gone and is made anew: others bring what it lacks");
        manifest.forget_note(STORE)?;
    }
    let id = claim.entry().id;
    if matches!(claim, Claim::Known(_)) {
        manifest.made(STORE, id)?;
    }
    manifest.note(STORE)?;
    let websocket = if settings.broker.websocket {
        let port = if settings.bind.auto { 0 } else { settings.ports.broker_websocket };
        let door = bind(WEBSOCKET, WEBSOCKET_SETTING, settings.bind.bare_host(), port).await?;
        tracing::info!(address = %door.local_addr()?, "browsers may connect to the broker");
        Some(door)
    } else {
        None
    };
    let guests = guests::spawn(listener.local_addr()?, &ctx.secrets, &ctx.tasks);
    let config = Config {
        note: Some((manifest.note_path(STORE), *id.as_bytes())),
        users: users(&ctx.secrets),
        guests: Some(guests),
        tls: tls(settings),
        websocket,
        monitor: Some(monitor),
        metrics: Some(telemetry::render_metrics),
        ..Config::new(store)
    };
    // Clients that connect while the store opens are answered afterwards: nobody waits for it here.
    let shutdown = ctx.tasks.shutdown().child_token();
    ctx.tasks.spawn("broker", fafnir_broker::serve(listener, config, shutdown));
    Ok(())
}
