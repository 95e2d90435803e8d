//! Market data on its way out: nobody may be listening, and what cannot go out is dropped.

use super::published::Published;
use bytes::Bytes;
use fafnir_platform::{
    Context, Error,
    bus::{Bus, REPEAT_EVERY, Round},
    cache::Cache,
};
use fafnir_proto::{subject, v1};
use prost::Message as _;
use std::sync::Arc;
use tokio::{sync::mpsc, time::MissedTickBehavior};

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

/// Publishes market data until shutdown; the images of quiet books again now and then.
pub fn spawn(
    ctx: &Context,
    bus: Bus,
    cache: Cache,
    published: Arc<Published>,
    mut messages: mpsc::Receiver<Market>,
) {
    ctx.tasks.spawn_until_shutdown("market data", async move {
        let mut round = Round::default();
        let mut again = tokio::time::interval(REPEAT_EVERY);
        again.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            // By chance where both are ready: under load a quiet book has its turn as well.
            let sent = tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => send_out(&bus, &cache, message).await,
                    None => return Ok::<(), Error>(()),
                },
                _ = again.tick() => repeat(&bus, published.images_again(&mut round)).await,
            };
            if let Err(e) = sent {
                tracing::debug!(error = %e, "market data dropped");
            }
        }
    });
}

async fn send_out(bus: &Bus, cache: &Cache, message: Market) -> Result<(), Error> {
    match message {
        Market::Print { subject, payload } => bus.publish(subject, payload).await,
        Market::Image { symbol, subject, payload } => {
            cache.put(&format!("book:{symbol}"), payload.clone()).await;
            bus.publish(subject, payload).await
        }
    }
}

async fn repeat(bus: &Bus, images: Vec<v1::BookImage>) -> Result<(), Error> {
    for image in images {
        bus.publish(subject::book(&image.symbol), image.encode_to_vec().into()).await?;
    }
    Ok(())
}
