//! The embedded NATS and JetStream server as a service of the platform.

pub mod alone;
mod guests;
pub mod inspect;

use crate::compose::PortError;
use fafnir_broker::{Config, User};
use fafnir_platform::{
    Context, Service, Settings, Speaks, Starting,
    manifest::{Claim, Manifest, Said},
    secrets::Secrets,
    telemetry,
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

/// Who may always sign in to the platform's broker. Whoever watches market data is a guest ([`guests`]).
fn users(secrets: &Secrets) -> Vec<User> {
    vec![User::all(SERVICES_USER, secrets.nats_services.expose())]
}

/// Certificate and key, if both are configured.
///
/// # Errors
/// When only one of them is.
pub fn tls(settings: &Settings) -> Result<Option<Tls>, Error> {
    let broker = &settings.broker;
    match (broker.tls_certificate.as_str(), broker.tls_key.as_str()) {
        ("", "") => Ok(None),
        ("", _) => Err(Error::Config("broker.tls_key needs broker.tls_certificate".into())),
        (_, "") => Err(Error::Config("broker.tls_certificate needs broker.tls_key".into())),
        (certificate, key) => {
            Ok(Some(Tls { certificate: certificate.into(), key: key.into(), loopback_in_clear: true }))
        }
    }
}

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let settings = &ctx.settings;
    let port = if settings.bind.auto { 0 } else { settings.ports.broker_monitor };
    let monitor = bind(MONITOR, MONITOR_FLAG, settings.bind.bare_host(), port).await?;
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
        tls: tls(settings)?,
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
