//! Users, passwords, sessions and tokens

use crate::{Service, platform::Context};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "auth-service",
    port: |s| s.ports.auth,
    address: |s| &s.addresses.auth,
    about: "Users, passwords, sessions and tokens",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
