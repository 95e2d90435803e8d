//! The books: a journal, one matching thread, facts and market data.
//!
//! `journal → apply → publish`: a record is durable before anything of it leaves. The journal is the outbox: facts are
//! numbered, kept in the outcome log, and can always be made again from the journal.

pub mod api;
pub mod domain;
pub mod events;
pub mod exchange;
pub mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod market;
pub mod phase;
pub mod published;
pub mod record;
pub mod recovery;
pub mod replay;
pub mod seglog;
pub mod sequencer;
pub mod snapshot;
pub mod state;
pub mod wire;

#[cfg(test)]
mod tests;

/// A place at which the crash tests kill the process.
#[cfg(test)]
use tests::kill::crash_point;
#[cfg(not(test))]
#[inline]
fn crash_point(_log: &str, _place: &str) {}

use anyhow::Context as _;
use fafnir_platform::{Context, Error, Service, Starting, bus, clock::SECOND_US, context::retry, server};
use fafnir_proto::v1::{Empty, trade_engine_server::TradeEngineServer};
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, sync::mpsc};

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.engine,
    address: |s| &s.addresses.engine,
    ..Service::new("trade-engine", "The books: journal, matching, market data", start)
};

/// How long the start waits for stock-service.
const LISTINGS_DEADLINE: Duration = Duration::from_secs(30);

/// The engine's directory belongs to one process.
fn lock(dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    file.try_lock().with_context(|| format!("{} is used by another engine", dir.display()))?;
    Ok(file)
}

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let dir = ctx.settings.data_dir().join("engine");
    let lock = lock(&dir)?;
    let started = Instant::now();
    let recovered = {
        let dir = dir.clone();
        tokio::task::spawn_blocking(move || recovery::recover(&dir)).await??
    };
    if let Some(cut) = &recovered.cut {
        let file = cut.path.display();
        tracing::warn!(%file, bytes = cut.bytes, why = %cut.bad, "a torn tail of the journal was cut");
    }
    tracing::info!(
        records = recovered.engine.seq(),
        replayed = recovered.replayed,
        open_orders = recovered.engine.open_orders(),
        ms = started.elapsed().as_millis() as u64,
        "the books stand"
    );
    let published = Arc::clone(&recovered.published);
    let settings = &ctx.settings.engine;
    let config = sequencer::Config {
        dir: dir.clone(),
        snapshot_every_commands: settings.snapshot_every_commands.max(1),
        snapshot_every_us: i64::try_from(settings.snapshot_every_s)
            .unwrap_or(i64::MAX)
            .saturating_mul(SECOND_US),
        keep_all: settings.journal_keep == "all",
        volatility_pause_us: i64::from(settings.volatility_pause_s.max(1)).saturating_mul(SECOND_US),
    };
    let (market, market_messages) = mpsc::channel(sequencer::MARKET_QUEUE_MAX);
    let (engine, ended) = sequencer::start(recovered, config, ctx.clock.clone(), market)?;
    own_thread(&ctx, engine.clone(), ended, lock);

    let exchange_dir = ctx.settings.data_dir().join("exchange");
    let exchange_lock = self::lock(&exchange_dir)?;
    let exchange::start::Started { exchange, ended, market: exchange_market } =
        exchange::start::start(&ctx, &exchange_dir).await?;
    own_exchange(&ctx, exchange.engine.clone(), ended, exchange_lock);

    let api = api::Api {
        ctx: ctx.clone(),
        engine: engine.clone(),
        published: Arc::clone(&published),
        exchange: exchange.clone(),
    };
    let service = TradeEngineServer::new(api)
        .max_decoding_message_size(fafnir_proto::client::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(fafnir_proto::client::MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;

    let bus = ctx.bus().await?;
    bus.ensure_stream(bus::ORDERS).await?;
    events::spawn_relay(&ctx, bus.clone(), published, &dir);
    events::spawn_market(&ctx, bus.clone(), ctx.cache(1).await?, market_messages);
    events::spawn_market(&ctx, bus.clone(), ctx.cache(1).await?, exchange_market);
    bus.ensure_stream(bus::FACTS).await?;
    exchange::start::publish(&ctx, bus.clone(), &exchange);

    let listed = retry(LISTINGS_DEADLINE, || async {
        let mut stock = ctx.clients.stock(&ctx.system());
        Ok(stock.list_instruments(Empty {}).await.map_err(Error::from)?.into_inner())
    })
    .await
    .context("stock-service does not answer")?;
    let listings = listed.instruments.iter().filter_map(wire::listing).collect();
    engine.list(listings).await.map_err(|e| anyhow::anyhow!(e.message))?;
    events::follow_listings(&ctx, &bus, engine).await?;
    Ok(())
}

/// Ends the core's thread at shutdown, and the process when the thread ends before.
fn own_exchange(
    ctx: &Context,
    engine: exchange::sequencer::Handle,
    ended: tokio::sync::oneshot::Receiver<()>,
    lock: File,
) {
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("core", async move {
        let mut ended = ended;
        tokio::select! {
            () = shutdown.cancelled() => {
                engine.stop();
                // Resolves when the thread drops its end.
                let _dropped = ended.await;
                drop(lock);
                Ok(())
            }
            _ = &mut ended => Err("the core's thread has ended".to_owned()),
        }
    });
}

/// Ends the matching thread at shutdown, and the process when the thread ends before.
fn own_thread(
    ctx: &Context,
    engine: sequencer::Handle,
    ended: tokio::sync::oneshot::Receiver<()>,
    lock: File,
) {
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("matching", async move {
        let mut ended = ended;
        tokio::select! {
            () = shutdown.cancelled() => {
                tokio::task::spawn_blocking(move || engine.stop()).await.map_err(|e| e.to_string())?;
                // Resolves when the thread drops its end.
                let _dropped = ended.await;
                drop(lock);
                Ok(())
            }
            _ = &mut ended => Err("the matching thread has ended".to_owned()),
        }
    });
}
