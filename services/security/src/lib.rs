//! security-service: roles, permissions, who has which role (public-api §7), and the audit log.

pub mod api;
pub mod audit;
pub mod domain;
pub mod events;
pub mod store;
#[cfg(test)]
mod tests;

use fafnir_platform::{Context, MayCall, Service, Starting, server};
use fafnir_proto::v1::security_server::SecurityServer;
use tokio::net::TcpListener;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.security,
    address: |s| &s.addresses.security,
    callers: &[
        MayCall::everything("api-gateway"),
        MayCall::only("auth-service", &["Grant", "Suspend", "Resume", "CheckPermission", "Record"]),
        MayCall::only("user-service", &["CheckPermission", "Record"]),
        MayCall::only("stock-service", &["CheckPermission", "Record"]),
        MayCall::only("order-service", &["CheckPermission", "Record"]),
        MayCall::only("portfolio-service", &["CheckPermission", "Record"]),
        MayCall::only("trade-engine", &["CheckPermission", "Record"]),
    ],
    migrations: store::MIGRATIONS,
    ..Service::new("security-service", "Roles, permissions, and the audit log", start)
};

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.database(store::MIGRATIONS).await?;
    let log = audit::Log::open(&ctx, db.clone())?;
    let api = api::Api::new(ctx.clone(), db.clone(), log);
    server::serve_grpc(&ctx, SERVICE.name, listener, SecurityServer::new(api)).await?;
    events::follow(&ctx, db).await?;
    Ok(())
}
