//! The only public door: REST, GraphQL, WebSocket and the terminal's gRPC

use crate::{Service, platform::Context};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub const SERVICE: Service = Service {
    name: "api-gateway",
    port: |s| s.ports.gateway,
    address: |s| &s.addresses.gateway,
    about: "The only public door: REST, GraphQL, WebSocket and the terminal's gRPC",
    migrations: &[],
    start: |ctx, listener| Box::pin(start(ctx, listener)),
};

async fn start(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    drop(listener);
    anyhow::bail!("{} is not part of this build", ctx.service)
}
