//! The sequencer of the one journal: commands in, durable, stepped by the core, facts out.
//!
//! `journal → step → answer → facts`: nothing of a command leaves before the command is durable. The core's state, its
//! facts and its answers follow from the journal alone.

pub mod api;
pub mod backup;
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
pub mod opening;
pub mod published;
pub mod publisher;
pub mod recorder;
pub mod recovery;
pub mod refusal;
pub mod replay;
pub mod request;
pub mod seglog;
pub mod sequencer;
pub mod skipped;
pub mod snapshot;
pub mod standing;
pub mod start;
pub mod steady;
mod traced;

#[cfg(test)]
mod tests;

/// A place at which the crash tests kill the process.
#[cfg(test)]
use tests::kill::crash_point;
#[cfg(not(test))]
#[inline]
fn crash_point(_log: &str, _place: &str) {}

use anyhow::Context as _;
use fafnir_platform::{Context, Error, MayCall, Service, Starting, bus, server, tasks::Schedule};
use fafnir_proto::v1::trade_engine_server::TradeEngineServer;
use parking_lot::Mutex;
use published::Published;
use standing::Notes;
use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::oneshot};

/// Time between two segments of the fact log that are packed: a hundredth of a core under full load.
const PACK_EVERY: Duration = Duration::from_secs(5);

/// Its row in the table of services.
pub static SERVICE: Service = Service {
    module: module_path!(),
    port: |s| s.ports.engine,
    address: |s| &s.addresses.engine,
    callers: &[
        MayCall::everything("api-gateway"),
        MayCall::only("stock-service", &["Execute", "Facts", "Position"]),
        MayCall::only("order-service", &["Execute", "Facts", "Position", "OpenOrders", "Standing"]),
        MayCall::only("portfolio-service", &["Execute", "Facts", "Position", "Image"]),
        MayCall::only("simulator", &["Facts", "OpenOrders", "Position"]),
    ],
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

/// Whether a data directory is of a program whose orders and money were in databases of their own: this one cannot go on
/// with it.
pub fn is_former(data_dir: &Path) -> bool {
    let is_journal = |name: &str| name.starts_with("journal-");
    fs::read_dir(data_dir.join("engine")).is_ok_and(|mut entries| {
        entries.any(|entry| entry.is_ok_and(|e| e.file_name().to_str().is_some_and(is_journal)))
    })
}

fn start(ctx: Context, listener: TcpListener) -> Starting {
    Box::pin(run(ctx, listener))
}

async fn run(ctx: Context, listener: TcpListener) -> anyhow::Result<()> {
    let data_dir = ctx.settings.data_dir();
    anyhow::ensure!(
        !is_former(&data_dir),
        "{} is of a former program, which kept orders and money apart: back it up and start a new one",
        data_dir.display()
    );
    let dir = data_dir.join("exchange");
    let lock = lock(&dir)?;
    let start::Started { exchange, ended, market, notes } = start::start(&ctx, &dir).await?;
    own_thread(&ctx, exchange.engine.clone(), ended, notes, lock);
    start::look(&ctx, &dir);

    let service = TradeEngineServer::new(api::Api { exchange: exchange.clone() })
        .max_decoding_message_size(fafnir_proto::client::MESSAGE_BYTES_MAX)
        .max_encoding_message_size(fafnir_proto::client::MESSAGE_BYTES_MAX);
    server::serve_grpc(&ctx, SERVICE.name, listener, service).await?;

    let bus = ctx.bus().await?;
    bus.keep_stream(&ctx, bus::FACTS).await?;
    publisher::spawn(&ctx, bus.clone(), Arc::clone(&exchange.published));
    pack_facts(&ctx, Arc::clone(&exchange.published));
    market::spawn(&ctx, bus, ctx.cache(1).await?, Arc::clone(&exchange.published), market);
    Ok(())
}

/// Packs full segments of the fact log, one after another.
fn pack_facts(ctx: &Context, published: Arc<Published>) {
    ctx.tasks.every("packing of the fact log", Schedule::after(PACK_EVERY), move || {
        let published = Arc::clone(&published);
        async move {
            let packed = tokio::task::spawn_blocking(move || published.pack()).await;
            let packed = packed.map_err(|e| Error::internal(e.to_string()))?;
            if let Some((bytes, to)) = packed.map_err(|e| Error::internal(e.to_string()))? {
                tracing::debug!(bytes, to, "a segment of the fact log is packed");
            }
            Ok::<_, Error>(())
        }
    });
}

/// Ends the core's thread at shutdown, and the process when the thread ends before.
fn own_thread(
    ctx: &Context,
    engine: sequencer::Handle,
    ended: oneshot::Receiver<()>,
    notes: Arc<Mutex<Option<Notes>>>,
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
                let notes = notes.lock().take();
                if let Some(Err(e)) = notes.map(Notes::finish) {
                    tracing::warn!(error = %e, "the last commands are not noted");
                }
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
