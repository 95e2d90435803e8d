//! The embedded NATS and JetStream server as a service of the platform.

pub mod alone;
mod guests;
pub mod inspect;

use crate::compose::PortError;
<<<<<<< 7eb40d4
use fafnir_broker::{Config, User};
use fafnir_platform::{
    Context, Service, Speaks, Starting,
    manifest::{Claim, Manifest},
    secrets::Secrets,
    telemetry,
};
use fafnir_proto::subject;
=======
use fafnir_broker::{Config, Guests, User};
use fafnir_platform::{Context, Service, Speaks, Starting, secrets::Secrets, telemetry};
>>>>>>> 8436b9e
use tokio::net::TcpListener;

pub use fafnir_broker::{Error, store_check};

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

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let settings = &ctx.settings;
    let port = if settings.bind.auto { 0 } else { settings.ports.broker_monitor };
    let monitor = bind(MONITOR, MONITOR_FLAG, settings.bind.bare_host(), port).await?;
<<<<<<< 7eb40d4
    let dir = settings.data_dir();
    let manifest = Manifest::of(&dir);
    let store = dir.join("broker");
    let now_us = ctx.clock.now_us();
    let was_there = manifest.stores()?.get(STORE).is_some_and(|entry| entry.made);
    let claim = manifest.claim_dir(STORE, &store, |name| name == "broker.sqlite3", true, now_us)?;
    if was_there && matches!(claim, Claim::Make(_)) {
        tracing::error!(file = %store.display(), "the broker's store is gone and is made anew: others bring what it lacks");
    }
    let id = claim.entry().id;
    if matches!(claim, Claim::Known(_)) {
        manifest.made(STORE, id)?;
    }
    manifest.note(STORE)?;
=======
    let (guests, list) = Guests::new();
    let address = listener.local_addr()?.to_string();
    let services = (SERVICES_USER.to_owned(), ctx.secrets.nats_services.expose().to_owned());
    let serving = guests::serve(address, services, ctx.secrets.nats_market.clone(), guests);
    ctx.tasks.spawn_until_shutdown("market-data guests", serving);
>>>>>>> 8436b9e
    let config = Config {
        note: Some((manifest.note_path(STORE), *id.as_bytes())),
        users: users(&ctx.secrets),
        guests: Some(list),
        monitor: Some(monitor),
        metrics: Some(telemetry::render_metrics),
        ..Config::new(store)
    };
    // Clients that connect while the store opens are answered afterwards: nobody waits for it here.
    let shutdown = ctx.tasks.shutdown().child_token();
    ctx.tasks.spawn("broker", fafnir_broker::serve(listener, config, shutdown));
    Ok(())
}
