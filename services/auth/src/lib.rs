//! auth-service: users, passwords, sessions, tokens. REST for browsers and gRPC for the gateway on one port.

pub mod api;
pub mod domain;
pub mod events;
pub mod operations;
pub mod password;
mod queue;
pub mod rest;
pub mod store;

use fafnir_platform::{
    Context, MayCall, Service, Starting, audit, bus::USERS, clock::SECOND_US, db::outbox,
    secrets::LOOK_EVERY, server, tasks::Schedule,
};
use fafnir_proto::v1::auth_server::AuthServer;
use operations::Operations;
use std::time::Duration;
use tokio::net::TcpListener;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.auth,
    address: |s| &s.addresses.auth,
    callers: &[MayCall::everything("api-gateway")],
    migrations: store::MIGRATIONS,
    ..Service::new("auth-service", "Users, passwords, sessions and tokens", start)
};

/// How often interrupted registrations and deletions are taken up again.
const FINISH_EVERY: Duration = Duration::from_secs(5);
/// A registration that is younger than this is probably still under way.
const UNDER_WAY_US: i64 = 10 * SECOND_US;
/// How often ended sessions are dropped, how long after their end, how many in one transaction.
const PRUNE_EVERY: Duration = Duration::from_mins(10);
const PRUNE_AFTER_US: i64 = 24 * 3600 * SECOND_US;
const PRUNE_BATCH: u32 = 500;

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.database(store::MIGRATIONS).await?;
    let operations = Operations::new(&ctx, db.clone())?;
    let server = AuthServer::new(api::Api(operations.clone()));
    server::serve_both(&ctx, SERVICE.name, listener, rest::router(operations.clone()), server).await?;
    let bus = ctx.bus().await?;
    bus.keep_stream(&ctx, USERS).await?;
    audit::spawn_relay(&ctx, db.clone(), operations.audit_wake.clone());
    outbox::spawn_relay(&ctx, db, bus, operations.wake.clone());
    spawn_housekeeping(&ctx, operations);
    Ok(())
}

fn spawn_housekeeping(ctx: &Context, operations: Operations) {
    let looking = operations.clone();
    ctx.tasks.every("keys of access tokens", Schedule::after(LOOK_EVERY), move || {
        let operations = looking.clone();
        async move { operations.look_at_keys() }
    });
    let finishing = operations.clone();
    // What a crash interrupted is taken up at once, however young.
    let mut age_us = 0;
    ctx.tasks.every("interrupted registrations and deletions", Schedule::at_once(FINISH_EVERY), move || {
        let (operations, before_us) = (finishing.clone(), finishing.ctx.clock.now_us() - age_us);
        age_us = UNDER_WAY_US;
        async move { operations.finish_interrupted(before_us).await.map(drop) }
    });
    // At once: one that is started again and again prunes too.
    ctx.tasks.every("pruning of ended sessions", Schedule::at_once(PRUNE_EVERY), move || {
        let (db, before_us) = (operations.db.clone(), operations.ctx.clock.now_us() - PRUNE_AFTER_US);
        async move {
            let prune = move |tx: &mut dyn fafnir_platform::db::Tx| {
                store::prune_sessions(tx, before_us, PRUNE_BATCH)?;
                store::keys::prune(tx, before_us, PRUNE_BATCH)?;
                Ok(())
            };
            db.write_anyway(prune).await
        }
    });
}
