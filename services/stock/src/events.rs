//! Facts that stock-service publishes (listings, quotes) and those that it follows (of the journal, book images).

use super::{
    desk::Desk,
    domain::{self, Instrument, Standing, Sum},
    store, wire,
};
use fafnir_platform::{
    bus::{Bus, REPEAT_EVERY, Round},
    clock::DAY_US,
    context::Context,
    db::{Db, Tx, inbox, outbox},
    error::{Error, Result},
    facts::Projection,
    tasks::{Next, Schedule, Wake},
};
use fafnir_proto::{
    subject,
    v1::{BookImage, Fact, Quote},
};
use futures::StreamExt as _;
use prost::Message as _;
use std::{convert::Infallible, sync::Arc, time::Duration};

/// A changed quote leaves at most this often per symbol.
const QUOTE_EVERY: Duration = Duration::from_millis(100);
/// The safety net behind the desk's wake.
const QUOTES_POLL: Duration = Duration::from_secs(1);
/// Longest that trades are gathered before they are stored as bars: quotes do not wait for that, readers of bars neither.
const BARS_LINGER: Duration = Duration::from_secs(1);
/// Wait before a new day of the quotes is tried again.
const NEW_DAY_RETRY: Duration = Duration::from_mins(1);
/// One-minute bars are kept this long, and one-second bars.
const MINUTES_KEPT: i64 = 10 * 24 * 60;
const SECONDS_KEPT: i64 = 2 * 60 * 60;
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

/// The projection of facts into bars, last trades and trading states.
#[derive(Debug)]
pub struct Bars {
    pub db: Db,
    pub desk: Arc<Desk>,
    pub wake: Wake,
}

/// Takes the engine's word about a trading state into the listing; answers the listing where that changed it.
fn stand(tx: &mut dyn Tx, symbol: &str, standing: Standing, time_us: i64) -> Result<Option<Instrument>> {
    let Some(mut instrument) = store::instrument_get(tx, symbol)? else { return Ok(None) };
    let state = standing.state.unwrap_or(instrument.state);
    if instrument.state == state && instrument.volatility_pause == standing.paused {
        return Ok(None);
    }
    instrument.state = state;
    instrument.volatility_pause = standing.paused;
    instrument.version += 1;
    store::instrument_put(tx, &instrument, time_us)?;
    instrument_changed(tx, &instrument, time_us)?;
    Ok(Some(instrument))
}

fn sum(facts: &[Fact]) -> Sum {
    let mut sum = Sum::default();
    for fact in facts {
        if let Some(event) = wire::event(fact) {
            sum.add(&fact.symbol, event);
        }
    }
    sum
}

impl Projection for Bars {
    const LINGER: Duration = BARS_LINGER;

    fn database(&self) -> Option<&Db> {
        Some(&self.db)
    }

    async fn position(&self) -> Result<u64> {
        self.db.read(|tx| Ok(inbox::facts_position(tx)?)).await
    }

    async fn lead(&self) -> Result<bool> {
        self.db.lead().await
    }

    async fn resign(&self) {
        self.db.resign().await;
    }

    fn hear(&self, facts: &[Fact]) {
        self.desk.trade(sum(facts).days());
    }

    async fn apply(&self, from: u64, facts: Vec<Fact>) -> Result<()> {
        let Some(last) = facts.last() else { return Ok(()) };
        let (to, time_us) = (last.position, last.time_us);
        let sum = sum(&facts);
        let relisted = self
            .db
            .write(move |tx| {
                inbox::facts_advance(tx, from, to)?;
                store::sum_add(tx, &sum)?;
                let mut relisted = Vec::new();
                for (symbol, standing) in &sum.standings {
                    relisted.extend(stand(tx, symbol, *standing, time_us)?);
                }
                Ok(relisted)
            })
            .await?;
        if !relisted.is_empty() {
            self.wake.notify();
        }
        for instrument in relisted {
            self.desk.relist(instrument, time_us);
        }
        Ok(())
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

/// Publishes changed quotes, and quiet ones again now and then; makes every quote new at midnight.
pub fn publish_quotes(ctx: &Context, db: Db, bus: Bus, desk: Arc<Desk>) {
    let schedule = Schedule::after(QUOTES_POLL).or_on(desk.wake());
    let (changing, quiet, again) = (Arc::clone(&desk), Arc::clone(&desk), bus.clone());
    ctx.tasks.every("publishing of quotes", schedule, move || {
        let (bus, desk) = (bus.clone(), Arc::clone(&changing));
        async move { Ok::<_, Infallible>(publish_changed(&bus, &desk).await) }
    });
    let mut round = Round::default();
    ctx.tasks.every("repetition of quotes", Schedule::after(REPEAT_EVERY), move || {
        let (bus, quotes) = (again.clone(), quiet.quotes_again(&mut round, wire::quote));
        async move {
            publish(&bus, quotes).await;
            Ok::<_, Infallible>(())
        }
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
    publish(bus, desk.quotes(changed.iter().map(String::as_str), wire::quote)).await;
    if changed.is_empty() { Next::Scheduled } else { Next::After(QUOTE_EVERY) }
}

async fn publish(bus: &Bus, quotes: Vec<Quote>) {
    for quote in quotes {
        let subject = subject::quotes(&quote.symbol);
        if let Err(e) = bus.publish(subject, quote.encode_to_vec().into()).await {
            tracing::debug!(error = %e, "a quote was not published");
        }
    }
}

/// Deletes bars of minutes and seconds that are too old, and volumes by price of days before today, in small batches.
pub fn prune(ctx: &Context, db: Db) {
    let clock = ctx.clock.clone();
    ctx.tasks.every("pruning of candles", Schedule::at_once(PRUNE_EVERY), move || {
        let (db, now_us) = (db.clone(), clock.now_us());
        async move {
            let most = db
                .write(move |tx| {
                    let minute = now_us.div_euclid(domain::MINUTE_US) - MINUTES_KEPT;
                    let second = now_us.div_euclid(domain::SECOND_US) - SECONDS_KEPT;
                    let minutes = store::minute_prune(tx, minute, PRUNE_ROWS)?;
                    let seconds = store::second_prune(tx, second, PRUNE_ROWS)?;
                    let prices = store::price_volume_prune(tx, domain::day_of(now_us), PRUNE_ROWS)?;
                    Ok(minutes.max(seconds).max(prices))
                })
                .await?;
            Ok::<_, Error>(Next::at_once_if(most == u64::from(PRUNE_ROWS)))
        }
    });
}
