//! Market data on its way out: nobody may be listening, and what cannot go out is dropped.

use bytes::Bytes;
use fafnir_platform::{Context, Error, bus::Bus, cache::Cache};
use tokio::sync::mpsc;

/// Messages that wait to be published; more are dropped, clients fill gaps by asking.
pub const QUEUE_MAX: usize = 4_096;

/// What goes out on core NATS and into the cache.
#[derive(Debug)]
pub enum Market {
    Print { subject: String, payload: Bytes },
    Image { symbol: String, subject: String, payload: Bytes },
}

/// Puts a message into the queue, or drops it.
pub fn send(queue: &mpsc::Sender<Market>, message: Market) {
    if queue.try_send(message).is_err() {
        metrics::counter!("fafnir_market_data_dropped_total").increment(1);
    }
}

/// Publishes market data until shutdown.
pub fn spawn(ctx: &Context, bus: Bus, cache: Cache, mut messages: mpsc::Receiver<Market>) {
    ctx.tasks.spawn_until_shutdown("market data", async move {
        while let Some(message) = messages.recv().await {
            let sent = match message {
                Market::Print { subject, payload } => bus.publish(subject, payload).await,
                Market::Image { symbol, subject, payload } => {
                    cache.put(&format!("book:{symbol}"), payload.clone()).await;
                    bus.publish(subject, payload).await
                }
            };
            if let Err(e) = sent {
                tracing::debug!(error = %e, "market data dropped");
            }
        }
        Ok::<(), Error>(())
    });
}
