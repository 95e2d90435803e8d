//! Accounts, the double-entry ledger in cash and shares, holds, settlement exactly once, watchlists.
//!
//! The only service that touches money. A hold covers the worst that an order can cost before the engine sees it; each
//! trade is one ledger transaction that sums to zero per asset; balances are kept beside the postings, in the same
//! transaction. It never decides whether an order is filled.

mod api;
mod domain;
mod events;
mod operations;
mod reports;
mod settlement;
mod store;
mod wire;

#[cfg(test)]
mod ledger_test;
#[cfg(test)]
mod model_test;
#[cfg(test)]
mod testing;

use anyhow::Context as _;
use fafnir_platform::{Context, Service, Starting, executions, server};
use fafnir_proto::{client::MESSAGE_BYTES_MAX, v1::portfolio_server::PortfolioServer};
use fafnir_rules::money::parse_micros;
use std::sync::Arc;
use tokio::net::TcpListener;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.portfolio,
    address: |s| &s.addresses.portfolio,
    migrations: store::MIGRATIONS,
    ..Service::new(
        "portfolio-service",
        "Accounts, the ledger in cash and shares, holds, settlement, watchlists",
        start,
    )
};

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.database(store::MIGRATIONS).await?;
    let settings = &ctx.settings.portfolio;
    let usd_cad = parse_micros(&settings.usd_cad).context("portfolio.usd_cad")?;
    let now_us = ctx.clock.now_us();
    let rules = operations::Rules {
        opening_micros: parse_micros(&settings.opening_deposit).context("portfolio.opening_deposit")?,
        maker_bp: settings.maker_fee_bp,
        taker_bp: settings.taker_fee_bp,
        usd_cad,
        rate: db.write(move |tx| Ok(store::rate_ensure(tx, usd_cad, now_us)?)).await?,
    };
    let bus = ctx.bus().await?;
    let publisher = events::Publisher::spawn(&ctx, db.clone(), bus.clone());
    let settler =
        Arc::new(events::Settler { ctx: ctx.clone(), db: db.clone(), publisher: publisher.clone() });
    let api = api::Api {
        ctx: ctx.clone(),
        db: db.clone(),
        rules,
        publisher: publisher.clone(),
        settler: Arc::clone(&settler),
    };
    // Served before anything is waited for.
    let service = PortfolioServer::new(api)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;

    events::follow_listings(&ctx, &db, &bus).await?;
    events::follow_users(&ctx, &db, &bus, publisher.clone()).await?;
    executions::follow(&ctx, &db, &bus, settler).await?;
    events::spawn_housekeeping(&ctx, db, publisher);
    Ok(())
}
