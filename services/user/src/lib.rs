//! user-service: profiles and watchlists.

pub mod api;
pub mod domain;
pub mod events;
pub mod store;

use fafnir_platform::{Context, MayCall, Service, Starting, server};
use fafnir_proto::v1::user_server::UserServer;
use tokio::net::TcpListener;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.user,
    address: |s| &s.addresses.user,
    callers: &[MayCall::everything("api-gateway"), MayCall::only("auth-service", &["CreateProfile"])],
    migrations: store::MIGRATIONS,
    ..Service::new("user-service", "Profiles and watchlists", start)
};

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.database(store::MIGRATIONS).await?;
    let api = api::Api { ctx: ctx.clone(), db: db.clone() };
    server::serve_grpc(&ctx, SERVICE.name, listener, UserServer::new(api)).await?;
    events::follow(&ctx, db).await?;
    Ok(())
}
