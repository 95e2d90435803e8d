//! The command gate, and the read model of orders and fills.
//!
//! The gate checks an order, has its hold placed and writes the engine's command, each step on disk before the next;
//! the read model projects what the engine said. This service never decides that an order is FILLED or CANCELED.

mod accounts;
mod api;
mod change;
mod domain;
mod events;
mod gate;
mod market;
mod place;
mod relay;
mod store;
mod watch;

#[cfg(test)]
mod tests;

use fafnir_platform::{Context, Service, Starting, db::Migration, executions, migration, server};
use fafnir_proto::{client::MESSAGE_BYTES_MAX, v1::order_service_server::OrderServiceServer};
use std::sync::{Arc, Mutex};
use tokio::{net::TcpListener, sync::Semaphore};
use uuid::ContextV7;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.order,
    address: |s| &s.addresses.order,
    migrations: MIGRATIONS,
    ..Service::new("order-service", "The command gate, and the read model of orders and fills", start)
};

const MIGRATIONS: &[Migration] = &[migration!("0001_init")];

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.database(MIGRATIONS).await?;
    let market = market::Market::load(&db).await?;
    let (watchers, updates) = (watch::Watchers::default(), watch::Updates::default());
    let relay = Arc::new(relay::RelayState::default());
    let writer = gate::Writer {
        db: db.clone(),
        clock: ctx.clock.clone(),
        watchers: watchers.clone(),
        updates: updates.clone(),
        relay: Arc::clone(&relay),
    };
    let core = place::Core {
        ctx: ctx.clone(),
        db: db.clone(),
        market: market.clone(),
        gate: gate::Gate::spawn(&ctx, writer),
        relay: Arc::clone(&relay),
        watchers: watchers.clone(),
        updates: updates.clone(),
        accounts: accounts::Accounts::new(&ctx),
        ids: Arc::new(Mutex::new(ContextV7::new())),
        places: Arc::new(Semaphore::new(place::PLACES_MAX)),
    };
    let service = OrderServiceServer::new(api::Api(core.clone()))
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;

    let bus = ctx.bus().await?;
    updates.spawn(&ctx, db.clone(), bus.clone()).await?;
    market::follow(&ctx, &db, &bus, &market).await?;
    // The relay first: what the engine does not know yet has no outcome to project.
    relay::spawn(&ctx, db.clone(), relay).await?;
    let read_model =
        events::ReadModel { db: db.clone(), clock: ctx.clock.clone(), market, watchers, updates };
    executions::follow(&ctx, &db, &bus, Arc::new(read_model)).await?;
    events::follow_users(&ctx, &bus, &core).await?;
    events::spawn_recovery(&ctx, core).await;
    events::spawn_retention(&ctx, db);
    Ok(())
}
