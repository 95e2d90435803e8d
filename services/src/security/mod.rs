//! Roles and permissions

use crate::{Service, platform::Context};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "security-service",
    port: |s| s.ports.security,
    address: |s| &s.addresses.security,
    about: "Roles and permissions",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
