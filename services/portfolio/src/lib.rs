//! The door for accounts and money, and the books of account: ledger, balances, statements, worth.
//!
//! It never decides a balance. A command goes to the engine, which checks and settles it; what is stored here follows
//! from the engine's facts alone, each ledger row chained to the one before.

mod api;
mod audit;
mod books;
mod commands;
mod domain;
pub mod opening;
mod rate;
mod reports;
mod store;
mod wire;

#[cfg(test)]
mod books_test;
#[cfg(test)]
mod figures_test;

use fafnir_platform::{
    Context, Error, MayCall, Service, Starting,
    bus::{self, Bus},
    db::Db,
    door::Door,
    facts, server,
    tasks::{Next, Schedule},
    users,
};
use fafnir_proto::{client::MESSAGE_BYTES_MAX, v1::portfolio_server::PortfolioServer};
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpListener, time::Instant};

/// How long the end of a user is asked for at a time; then its message comes again.
const CLOSE_USER_MAX: Duration = Duration::from_secs(10);

/// When the books are first recomputed after a start, and how often from then on.
const RECOMPUTE_FIRST: Duration = Duration::from_mins(10);
const RECOMPUTE_EVERY: Duration = Duration::from_hours(24);

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.portfolio,
    address: |s| &s.addresses.portfolio,
    callers: &[
        MayCall::everything("api-gateway"),
        MayCall::only("auth-service", &["CloseUser"]),
        MayCall::only("simulator", &["Endow", "Holdings", "ListAccounts", "SeedAccount"]),
    ],
    migrations: store::MIGRATIONS,
    ..Service::new("portfolio-service", "The door for accounts and money, the books of account", start)
};

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let db = ctx.projection(store::MIGRATIONS).await?;
    let bus = ctx.bus().await?;
    let books = Arc::new(books::Books::new(db.clone()));
    let follower = facts::follow(&ctx, &bus, "portfolio-service", books).await?;
    let api = api::Api { ctx: ctx.clone(), db: db.clone(), door: Door::new(&ctx), follower };
    let service = PortfolioServer::new(api.clone())
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;
    audit::spawn(&ctx, api.clone());
    follow_users(&ctx, &db, &bus, api).await?;
    recompute(&ctx, db);
    Ok(())
}

/// Recomputes the books from the ledger, long after the start and once a day: what does not add up makes them read-only.
fn recompute(ctx: &Context, db: Db) {
    let health = ctx.health.clone();
    ctx.tasks.every("recompute the books", Schedule::after(RECOMPUTE_FIRST), move || {
        let (db, health) = (db.clone(), health.clone());
        async move {
            let (found, _) = audit::scan(&db).await?;
            if let Some(why) = audit::wrong(&found) {
                db.found_damaged(SERVICE.name, &health, &why);
            }
            Ok::<_, Error>(Next::After(RECOMPUTE_EVERY))
        }
    });
}

/// A user that is gone is closed at the engine: its message is done with when that has answered.
async fn follow_users(ctx: &Context, db: &Db, bus: &Bus, api: api::Api) -> fafnir_platform::Result<()> {
    let (db, clock) = (db.clone(), ctx.clock.clone());
    let handle = move |messages: Vec<_>| {
        let (db, clock, api) = (db.clone(), clock.clone(), api.clone());
        async move {
            let now_us = clock.now_us();
            let deleted = db.write(move |tx| users::deleted(tx, &messages, now_us)).await?;
            for user in deleted {
                api.user_close(user, Instant::now() + CLOSE_USER_MAX).await?;
            }
            Ok(())
        }
    };
    bus.follow(ctx, bus::USERS, handle).await
}
