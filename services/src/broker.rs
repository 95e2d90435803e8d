//! The embedded NATS and JetStream server as a service of the platform.

use crate::{Service, compose::PortError, platform::Context};
use fafnir_broker::{Config, User};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "broker",
    port: |s| s.ports.broker,
    address: |_| "",
    about: "The embedded NATS and JetStream server",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

/// The user of the services: publishes and subscribes everything.
pub const SERVICES_USER: &str = "services";
/// The user of terminals: subscribes market data, publishes nothing.
pub const MARKET_USER: &str = "market";
/// What [`MARKET_USER`] may subscribe.
const MARKET_SUBJECTS: [&str; 2] = ["market.>", "_INBOX.>"];

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let settings = &ctx.settings;
    let port = if settings.bind.auto { 0 } else { settings.ports.broker_monitor };
    let host = settings.bind.host.clone();
    let monitor = TcpListener::bind((host.as_str(), port)).await.map_err(|source| PortError {
        service: "the broker's monitor",
        host,
        port,
        source,
    })?;
    let config = Config {
        users: vec![
            User::all(SERVICES_USER, ctx.secrets.nats_services.expose()),
            User {
                subscribe: MARKET_SUBJECTS.map(str::to_owned).to_vec(),
                ..User::new(MARKET_USER, ctx.secrets.nats_market.expose())
            },
        ],
        monitor: Some(monitor),
        ..Config::new(settings.data_dir().join("broker"))
    };
    // Clients that connect while the store opens are answered afterwards: nobody waits for it here.
    let shutdown = ctx.tasks.shutdown().child_token();
    ctx.tasks.spawn("broker", fafnir_broker::serve(listener, config, shutdown));
    Ok(())
}
