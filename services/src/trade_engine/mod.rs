//! The books: journal, matching, market data

use crate::{Service, platform::Context};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "trade-engine",
    port: |s| s.ports.engine,
    address: |s| &s.addresses.engine,
    about: "The books: journal, matching, market data",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
