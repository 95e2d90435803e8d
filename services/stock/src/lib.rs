//! Instruments, quotes, candles, history and search.
//!
//! Owns the listings (facts on stream `instruments`) and what trades leave behind: last price, bars. It never invents a
//! trade: everything it shows comes from listings, loaded history, facts of the journal and book images. The trading state
//! is the engine's alone. Quotes are answered from the desk in memory: no database, no cache.

mod api;
mod candles;
mod desk;
mod domain;
mod events;
mod journal;
mod statistics;
mod store;
mod wire;

use fafnir_platform::{
    Context, MayCall, Service, Starting, bus,
    db::{Migration, outbox},
    facts, migration, server,
    tasks::Wake,
};
use fafnir_proto::{client::MESSAGE_BYTES_MAX, v1::stock_server::StockServer};
use std::sync::{Arc, OnceLock};
use tokio::net::TcpListener;

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.stock,
    address: |s| &s.addresses.stock,
    callers: &[
        MayCall::everything("api-gateway"),
        MayCall::only("user-service", &["GetInstrument"]),
        MayCall::only("portfolio-service", &["Quotes"]),
        MayCall::only("simulator", &["History", "ListInstruments", "Quotes", "UpsertInstrument"]),
    ],
    migrations: MIGRATIONS,
    ..Service::new("stock-service", "Instruments, quotes, candles, history and search", start)
};

const MIGRATIONS: &[Migration] = &[
    migration!("0001_init"),
    migration!("0002_volatility_band"),
    migration!("0003_facts"),
    migration!("0004_price_volumes"),
    migration!("0005_second_bars"),
];

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.database(MIGRATIONS).await?;
    let desk = Arc::new(desk::Desk::load(&db, &ctx.clock).await?);
    let wake = Wake::default();
    let journal = journal::Journal::new(&ctx, &db);
    let follower = Arc::new(OnceLock::new());
    let api = api::Api {
        db: db.clone(),
        desk: Arc::clone(&desk),
        clock: ctx.clock.clone(),
        wake: wake.clone(),
        journal: journal.clone(),
        follower: Arc::clone(&follower),
    };
    // Served before anything is waited for: quotes and listings need no engine.
    let service = StockServer::new(api)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;

    let bus = ctx.bus().await?;
    bus.keep_stream(&ctx, bus::INSTRUMENTS).await?;
    outbox::spawn_relay(&ctx, db.clone(), bus.clone(), wake.clone());
    events::publish_quotes(&ctx, db.clone(), bus.clone(), Arc::clone(&desk));
    events::follow_books(&ctx, &bus, Arc::clone(&desk)).await?;
    events::prune(&ctx, db.clone());
    journal.spawn(&ctx);
    let bars = Arc::new(events::Bars { db, desk, wake });
    let following = facts::follow(&ctx, &bus, SERVICE.name, bars).await?;
    follower.get_or_init(|| following);
    Ok(())
}
