//! The sequencer of the one journal: commands in, durable, stepped by the core, facts out.
//!
//! `journal → step → answer → facts`: nothing of a command leaves before the command is durable. The core's state, its
//! facts and its answers follow from the journal alone.

pub mod api;
pub mod exchange;
pub mod followers;
pub mod frames;
#[cfg(any(test, feature = "fuzz"))]
pub mod fuzz;
pub mod hash;
pub mod image;
pub mod inbox;
pub mod keeper;
pub mod log;
pub mod market;
pub mod message;
pub mod published;
pub mod publisher;
pub mod recorder;
pub mod recovery;
pub mod refusal;
pub mod replay;
pub mod request;
pub mod seglog;
pub mod sequencer;
pub mod snapshot;
pub mod start;

#[cfg(test)]
mod tests;

/// A place at which the crash tests kill the process.
#[cfg(test)]
use tests::kill::crash_point;
#[cfg(not(test))]
#[inline]
fn crash_point(_log: &str, _place: &str) {}

use anyhow::Context as _;
use fafnir_platform::{Context, Service, Starting, bus, server};
use fafnir_proto::v1::trade_engine_server::TradeEngineServer;
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
};
use tokio::{net::TcpListener, sync::oneshot};

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.engine,
    address: |s| &s.addresses.engine,
    ..Service::new("trade-engine", "The exchange: journal, clearing, matching, market data", start)
};

/// The exchange's directory belongs to one process.
fn lock(dir: &Path) -> anyhow::Result<File> {
    fs::create_dir_all(dir).with_context(|| format!("{} cannot be created", dir.display()))?;
    let path = dir.join("lock");
    let file = File::create(&path).with_context(|| format!("{} cannot be written", path.display()))?;
    file.try_lock().with_context(|| format!("{} is used by another engine", dir.display()))?;
    Ok(file)
}

/// A journal of the books alone is none of the exchange.
fn refuse_older(data_dir: &Path) -> anyhow::Result<()> {
    let dir = data_dir.join("engine");
    let Ok(mut entries) = fs::read_dir(&dir) else { return Ok(()) };
    let is_journal = |name: &str| name.starts_with("journal-") && name.ends_with(".log");
    let is_older = entries.any(|e| e.is_ok_and(|e| e.file_name().to_str().is_some_and(is_journal)));
    anyhow::ensure!(
        !is_older,
        "{} holds the journal of a program whose orders and money were in databases of their own; this one begins anew: \
         give it another data directory",
        dir.display()
    );
    Ok(())
}

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let data_dir = ctx.settings.data_dir();
    refuse_older(&data_dir)?;
    let dir = data_dir.join("exchange");
    let lock = lock(&dir)?;
    let start::Started { exchange, ended, market } = start::start(&ctx, &dir).await?;
    own_thread(&ctx, exchange.engine.clone(), ended, lock);

    let service = TradeEngineServer::new(api::Api { exchange: exchange.clone() })
        .max_decoding_message_size(fafnir_proto::client::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(fafnir_proto::client::MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;

    let bus = ctx.bus().await?;
    bus.ensure_stream(bus::FACTS).await?;
    publisher::spawn(&ctx, bus.clone(), Arc::clone(&exchange.published));
    market::spawn(&ctx, bus, ctx.cache(1).await?, market);
    Ok(())
}

/// Ends the core's thread at shutdown, and the process when the thread ends before.
fn own_thread(ctx: &Context, engine: sequencer::Handle, ended: oneshot::Receiver<()>, lock: File) {
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

/// Nobody knows what is on disk: the only safe thing is to end and recover.
fn die(what: &str, e: &dyn std::fmt::Display) -> ! {
    tracing::error!(error = %e, "{what} is lost, the process ends to recover");
    std::process::abort()
}
