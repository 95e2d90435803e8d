//! Accounts, the ledger in cash and shares, holds, settlement, watchlists

use crate::{Service, platform::Context};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "portfolio-service",
    port: |s| s.ports.portfolio,
    address: |s| &s.addresses.portfolio,
    about: "Accounts, the ledger in cash and shares, holds, settlement, watchlists",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
