//! Instruments, quotes, candles, history and search

use crate::{Service, platform::Context};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "stock-service",
    port: |s| s.ports.stock,
    address: |s| &s.addresses.stock,
    about: "Instruments, quotes, candles, history and search",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
