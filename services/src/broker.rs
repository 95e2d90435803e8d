//! The embedded NATS and JetStream server as a service of the platform.

use crate::{Service, platform::Context};
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

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
