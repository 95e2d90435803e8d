//! Facts that stock-service publishes (listings, quotes) and facts that it follows (executions, book images).

use super::{
    desk::Desk,
    domain::{self, Instrument, Sum},
    store, wire,
};
use fafnir_platform::{
    bus::Bus,
    clock::{Clock, DAY_US},
    context::Context,
    db::{Db, Tx, inbox, outbox},
    error::{Error, Result},
    executions::{self, Applied, Projection, Reading},
    tasks::{Next, Schedule, Wake},
};
use fafnir_proto::{
    subject,
    v1::{BookImage, ExecutionBatch},
};
use futures::StreamExt as _;
use prost::Message as _;
use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

/// A changed quote leaves at most this often per symbol.
const QUOTE_EVERY: Duration = Duration::from_millis(100);
/// The safety net behind the desk's wake.
const QUOTES_POLL: Duration = Duration::from_secs(1);
/// Wait before a new day of the quotes is tried again.
const NEW_DAY_RETRY: Duration = Duration::from_mins(1);
/// One-minute bars are kept this long.
const MINUTES_KEPT: i64 = 7 * 24 * 60;
const PRUNE_EVERY: Duration = Duration::from_mins(10);
const PRUNE_ROWS: u32 = 1_000;

/// Stores the fact that a listing is as it now is.
pub fn instrument_changed(tx: &mut dyn Tx, instrument: &Instrument, now_us: i64) -> Result<()> {
    let subject = subject::instrument(&instrument.symbol);
    let msg_id = format!("instrument:{}:{}", instrument.symbol, instrument.version);
    let fact = wire::instrument_changed(instrument);
    outbox::put(tx, subject::INSTRUMENTS_STREAM, &subject, &msg_id, fact.encode_to_vec(), now_us)?;
    Ok(())
}

/// The projection of executions into bars, last trades and volatility pauses.
#[derive(Debug)]
pub struct Bars {
    pub db: Db,
    pub desk: Arc<Desk>,
    pub clock: Clock,
    pub wake: Wake,
}

/// Stores what follows our positions, and the positions; answers what it came to.
fn apply(tx: &mut dyn Tx, batches: &[ExecutionBatch]) -> Result<(Applied, Sum)> {
    let (mut applied, mut sum) = (Applied::default(), Sum::default());
    let mut positions: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for batch in batches {
        let symbol = batch.symbol.as_str();
        if !positions.contains_key(symbol) {
            let position = inbox::position(tx, symbol)?;
            positions.insert(symbol, (position, position));
        }
        let Some((_, last_seq)) = positions.get_mut(symbol) else { continue };
        let new = match executions::read(*last_seq, &batch.executions) {
            Reading::New(new) => new,
            Reading::Seen => continue,
            Reading::Gap => {
                applied.gap = true;
                continue;
            }
        };
        for execution in new {
            *last_seq = execution.seq;
            applied.executions += 1;
            if let Some(event) = wire::event(execution) {
                sum.add(symbol, event);
            }
        }
    }
    store::sum_add(tx, &sum)?;
    for (symbol, (before, after)) in positions {
        if after > before {
            inbox::advance(tx, symbol, after)?;
        }
    }
    Ok((applied, sum))
}

/// Takes the engine's word about a pause into the listing; answers the listing where that changed it.
fn pause(tx: &mut dyn Tx, symbol: &str, paused: bool, now_us: i64) -> Result<Option<Instrument>> {
    let Some(mut instrument) = store::instrument_get(tx, symbol)? else { return Ok(None) };
    if instrument.volatility_pause == paused {
        return Ok(None);
    }
    instrument.volatility_pause = paused;
    instrument.version += 1;
    store::instrument_put(tx, &instrument, now_us)?;
    instrument_changed(tx, &instrument, now_us)?;
    Ok(Some(instrument))
}

impl Projection for Bars {
    async fn positions(&self) -> Result<Vec<(String, u64)>> {
        self.db.read(|tx| Ok(inbox::positions(tx)?)).await
    }

    async fn apply(&self, batches: Vec<ExecutionBatch>) -> Result<Applied> {
        if batches.is_empty() {
            return Ok(Applied::default());
        }
        let now_us = self.clock.now_us();
        let (applied, sum, relisted) = self
            .db
            .write(move |tx| {
                let (applied, sum) = apply(tx, &batches)?;
                let mut relisted = Vec::new();
                for (symbol, paused) in &sum.paused {
                    relisted.extend(pause(tx, symbol, *paused, now_us)?);
                }
                Ok((applied, sum, relisted))
            })
            .await?;
        self.desk.trade(sum.days());
        if !relisted.is_empty() {
            self.wake.notify();
        }
        for instrument in relisted {
            self.desk.relist(instrument, now_us);
        }
        Ok(applied)
    }
}

/// Follows the images of the books, for the best bid and ask of the quotes.
pub async fn follow_books(ctx: &Context, bus: &Bus, desk: Arc<Desk>) -> Result<()> {
    let mut images = bus.subscribe(subject::BOOKS.to_owned()).await?;
    ctx.tasks.spawn_until_shutdown("book images", async move {
        while let Some(message) = images.next().await {
            match BookImage::decode(message.payload) {
                Ok(image) => desk.book(&image.symbol, wire::top(&image)),
                Err(e) => {
                    tracing::warn!(subject = %message.subject, error = %e, "a book image is undecodable");
                }
            }
        }
        Err(Error::unavailable("the subscription of book images ended"))
    });
    Ok(())
}

/// Publishes changed quotes; makes every quote new at midnight.
pub fn publish_quotes(ctx: &Context, db: Db, bus: Bus, desk: Arc<Desk>) {
    let schedule = Schedule::after(QUOTES_POLL).or_on(desk.wake());
    let changing = Arc::clone(&desk);
    ctx.tasks.every("publishing of quotes", schedule, move || {
        let (bus, desk) = (bus.clone(), Arc::clone(&changing));
        async move { Ok::<_, Infallible>(publish_changed(&bus, &desk).await) }
    });
    let clock = ctx.clock.clone();
    ctx.tasks.every("new day of the quotes", Schedule::at_once(NEW_DAY_RETRY), move || {
        let (db, desk, clock) = (db.clone(), Arc::clone(&desk), clock.clone());
        async move {
            desk.new_day(&db).await?;
            let until_midnight = DAY_US - clock.now_us().rem_euclid(DAY_US);
            Ok::<_, Error>(Next::After(Duration::from_micros(until_midnight.cast_unsigned())))
        }
    });
}

async fn publish_changed(bus: &Bus, desk: &Desk) -> Next {
    let changed = desk.take_changed();
    for quote in desk.quotes(changed.iter().map(String::as_str), wire::quote) {
        let subject = subject::quotes(&quote.symbol);
        if let Err(e) = bus.publish(subject, quote.encode_to_vec().into()).await {
            tracing::debug!(error = %e, "a quote was not published");
        }
    }
    if changed.is_empty() { Next::Scheduled } else { Next::After(QUOTE_EVERY) }
}

/// Deletes one-minute bars that are older than a week, in small batches.
pub fn prune_minutes(ctx: &Context, db: Db) {
    let clock = ctx.clock.clone();
    ctx.tasks.every("pruning of candles", Schedule::at_once(PRUNE_EVERY), move || {
        let (db, before) = (db.clone(), clock.now_us().div_euclid(domain::MINUTE_US) - MINUTES_KEPT);
        async move {
            let pruned = db.write(move |tx| Ok(store::minute_prune(tx, before, PRUNE_ROWS)?)).await?;
            Ok::<_, Error>(Next::at_once_if(pruned == u64::from(PRUNE_ROWS)))
        }
    });
}
