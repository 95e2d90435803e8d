//! The door for orders, and the read model of orders, fills and what happened to them.
//!
//! The door checks the shape of a request and its client order id, and makes a command of the journal of it; the read
//! model is made from the journal's facts alone. This service never decides anything about an order.

mod api;
mod audit;
mod domain;
mod events;
pub mod opening;
mod orders;
mod store;

pub use domain::new_order::NewOrder;

#[cfg(test)]
mod tests;

use fafnir_platform::{Context, MayCall, Service, Starting, db::Migration, facts, migration, server};
use fafnir_proto::{client::MESSAGE_BYTES_MAX, v1::order_service_server::OrderServiceServer};
use std::sync::Arc;
use tokio::net::TcpListener;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.order,
    address: |s| &s.addresses.order,
    callers: &[
        MayCall::everything("api-gateway"),
        MayCall::only("simulator", &["Place", "Cancel", "Replace"]),
    ],
    migrations: MIGRATIONS,
    ..Service::new("order-service", "The door for orders, and the read model of orders and fills", start)
};

const MIGRATIONS: &[Migration] = &[migration!("0001_init"), migration!("0002_history")];

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.projection(MIGRATIONS).await?;
    let bus = ctx.bus().await?;
    let read_model = Arc::new(events::ReadModel(db.clone()));
    let follower = facts::follow(&ctx, &bus, SERVICE.name, read_model).await?;
    let orders = orders::Orders::new(&ctx, db.clone(), follower);
    let api = api::Api(orders.clone());
    let service = OrderServiceServer::new(api)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;
    events::spawn_retention(&ctx, db);
    audit::spawn(&ctx, orders);
    Ok(())
}
