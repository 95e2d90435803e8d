//! The desk: what every quote is made of, in memory. Fed by executions and book images; quotes leave when they changed.

use super::{
    domain::{self, Listing, Top},
    store::{self, Past, Stored, Traded},
};
use bytes::Bytes;
use fafnir_platform::{
    bus::Bus,
    cache::Cache,
    clock::{Clock, DAY_US},
    context::Context,
    db::{Db, Tx, inbox, outbox},
    error::{Error, Result},
    executions::{Applied, Projection},
};
use fafnir_proto::{
    subject,
    v1::{BookImage, ExecutionBatch, Instrument, InstrumentChanged, Quote},
};
use futures::StreamExt as _;
use prost::Message as _;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};
use tokio::sync::Notify;

/// A changed quote leaves at most this often per symbol.
const QUOTE_EVERY: Duration = Duration::from_millis(100);
/// One-minute bars are kept this long.
const MINUTES_KEPT: i64 = 7 * 24 * 60;
const PRUNE_EVERY: Duration = Duration::from_mins(10);
const PRUNE_ROWS: u32 = 1_000;

/// Every listing with what its quote needs. The tables are its source at start; it never waits for them.
#[derive(Debug)]
pub struct Desk {
    listings: RwLock<BTreeMap<String, Listing>>,
    changed: Mutex<BTreeSet<String>>,
    wake: Notify,
    clock: Clock,
}

impl Desk {
    /// Reads every listing.
    pub async fn load(db: &Db, clock: &Clock) -> Result<Self> {
        let now_us = clock.now_us();
        let year_from = domain::day_of(now_us) - domain::YEAR_DAYS;
        let stored = db
            .read(move |tx| {
                let mut all = Vec::new();
                for stored in store::instrument_list(tx)? {
                    let past = store::past(tx, &stored.instrument.symbol, year_from)?;
                    all.push((stored, past));
                }
                Ok(all)
            })
            .await?;
        let desk = Self {
            listings: RwLock::default(),
            changed: Mutex::default(),
            wake: Notify::new(),
            clock: clock.clone(),
        };
        for (stored, past) in stored {
            desk.list(stored, past);
        }
        Ok(desk)
    }

    fn today(&self) -> i64 {
        domain::day_of(self.clock.now_us())
    }

    /// Puts a listing as it now is; its best levels stay.
    pub fn list(&self, stored: Stored, past: Past) {
        let symbol = stored.instrument.symbol.clone();
        let mut listing = Listing::new(stored.instrument, stored.updated_us);
        let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
        let now = u64::try_from(self.clock.now_us()).unwrap_or(0);
        let version = listings.get(&symbol).map_or(now, |l| l.version + 1);
        listing.newest = past.newest;
        listing.close_before_newest_e4 = past.close_before_newest_e4;
        listing.year_e4 = past.year_e4;
        listing.last = past.last;
        listing.version = version;
        if let Some(now) = listings.get(&symbol) {
            listing.top = now.top;
            // As may a change of the listing.
            if now.instrument.version > listing.instrument.version {
                (listing.instrument, listing.updated_us) = (now.instrument.clone(), now.updated_us);
            }
            // A trade may have arrived after the past was read.
            if now.last.map_or(0, |l| l.trade_no) > listing.last.map_or(0, |l| l.trade_no) {
                listing.newest = now.newest;
                listing.close_before_newest_e4 = now.close_before_newest_e4;
                listing.last = now.last;
            }
        }
        listings.insert(symbol.clone(), listing);
        drop(listings);
        self.mark(&symbol);
    }

    /// Takes a changed listing unless a newer one is known; trades and bars stay.
    pub fn relist(&self, instrument: Instrument, updated_us: i64) {
        let symbol = instrument.symbol.clone();
        let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
        match listings.get_mut(&symbol) {
            Some(listing) if listing.instrument.version > instrument.version => {}
            Some(listing) => {
                listing.instrument = instrument;
                listing.updated_us = updated_us;
                listing.version += 1;
            }
            None => {
                listings.insert(symbol.clone(), Listing::new(instrument, updated_us));
            }
        }
        drop(listings);
        self.mark(&symbol);
    }

    fn mark(&self, symbol: &str) {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner).insert(symbol.to_owned());
        self.wake.notify_one();
    }

    fn traded(&self, traded: Vec<Traded>) {
        for t in traded {
            let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
            if let Some(listing) = listings.get_mut(&t.symbol) {
                listing.trade(t.day, t.bar, t.last);
            }
            drop(listings);
            self.mark(&t.symbol);
        }
    }

    fn book(&self, image: &BookImage) {
        let (bid, ask) = (image.bids.first(), image.asks.first());
        let top = Top {
            epoch: image.epoch,
            book_seq: image.book_seq,
            bid_e4: bid.map_or(0, |l| l.price_e4),
            bid_quantity_e4: bid.map_or(0, |l| l.quantity_e4),
            ask_e4: ask.map_or(0, |l| l.price_e4),
            ask_quantity_e4: ask.map_or(0, |l| l.quantity_e4),
        };
        let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
        let changed = listings.get_mut(&image.symbol).is_some_and(|l| l.book(top));
        drop(listings);
        if changed {
            self.mark(&image.symbol);
        }
    }

    /// Something of every listing, in the order of their symbols.
    pub fn map<T>(&self, mut f: impl FnMut(&Instrument) -> Option<T>) -> Vec<T> {
        let listings = self.listings.read().unwrap_or_else(PoisonError::into_inner);
        listings.values().filter_map(|l| f(&l.instrument)).collect()
    }

    pub fn instrument(&self, symbol: &str) -> Option<Instrument> {
        let listings = self.listings.read().unwrap_or_else(PoisonError::into_inner);
        listings.get(symbol).map(|l| l.instrument.clone())
    }

    pub fn quote(&self, symbol: &str) -> Option<Quote> {
        let today = self.today();
        let listings = self.listings.read().unwrap_or_else(PoisonError::into_inner);
        listings.get(symbol).map(|l| l.quote(today))
    }
}

/// The key of a quote in the cache.
pub fn quote_key(symbol: &str) -> String {
    format!("quote:{symbol}")
}

/// Stores the fact that a listing is as it now is.
pub fn instrument_changed(tx: &mut dyn Tx, instrument: &Instrument, now_us: i64) -> Result<()> {
    let subject = subject::instrument(&instrument.symbol);
    let msg_id = format!("instrument:{}:{}", instrument.symbol, instrument.version);
    let fact = InstrumentChanged { instrument: Some(instrument.clone()) };
    outbox::put(tx, subject::INSTRUMENTS_STREAM, &subject, &msg_id, fact.encode_to_vec(), now_us)?;
    Ok(())
}

/// The projection of executions into bars, last trades and volatility pauses.
#[derive(Debug)]
pub struct Bars {
    pub db: Db,
    pub desk: Arc<Desk>,
    pub wake: outbox::Wake,
}

/// Takes the engine's word about a pause into the listing; answers the listing where that is news.
fn pause(tx: &mut dyn Tx, symbol: &str, paused: bool, now_us: i64) -> Result<Option<Instrument>> {
    let Some(Stored { mut instrument, .. }) = store::instrument_get(tx, symbol)? else { return Ok(None) };
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
        let now_us = self.desk.clock.now_us();
        let (news, relisted) = self
            .db
            .write(move |tx| {
                let news = store::executions_apply(tx, &batches)?;
                let mut relisted = Vec::new();
                for (symbol, paused) in &news.paused {
                    relisted.extend(pause(tx, symbol, *paused, now_us)?);
                }
                Ok((news, relisted))
            })
            .await?;
        self.desk.traded(news.traded);
        if !relisted.is_empty() {
            self.wake.notify();
        }
        for instrument in relisted {
            self.desk.relist(instrument, now_us);
        }
        Ok(news.applied)
    }
}

/// Follows the images of the books, for the best bid and ask of the quotes.
pub async fn follow_books(ctx: &Context, bus: &Bus, desk: Arc<Desk>) -> Result<()> {
    let mut images = bus.subscribe(subject::BOOKS.to_owned()).await?;
    ctx.tasks.spawn_until_shutdown("book images", async move {
        while let Some(message) = images.next().await {
            match BookImage::decode(message.payload) {
                Ok(image) => desk.book(&image),
                Err(e) => {
                    tracing::warn!(subject = %message.subject, error = %e, "a book image is undecodable");
                }
            }
        }
        Err(Error::unavailable("the subscription of book images ended"))
    });
    Ok(())
}

/// Publishes changed quotes and keeps them in the cache; makes every quote new at midnight.
pub fn publish_quotes(ctx: &Context, db: Db, bus: Bus, cache: Cache, desk: Arc<Desk>) {
    ctx.tasks.spawn_until_shutdown("quotes", async move {
        loop {
            let until_midnight = DAY_US - desk.clock.now_us().rem_euclid(DAY_US);
            let until_midnight = Duration::from_micros(u64::try_from(until_midnight).unwrap_or(0));
            tokio::select! {
                () = desk.wake.notified() => {}
                () = tokio::time::sleep(until_midnight) => {
                    if let Err(e) = new_day(&db, &desk).await {
                        tracing::warn!(error = %e, "the quotes keep yesterday's range");
                    }
                }
            }
            let changed = std::mem::take(&mut *desk.changed.lock().unwrap_or_else(PoisonError::into_inner));
            for symbol in changed {
                let Some(quote) = desk.quote(&symbol) else { continue };
                let payload = Bytes::from(quote.encode_to_vec());
                cache.put(&quote_key(&symbol), payload.clone()).await;
                let subject = subject::quotes(&symbol);
                if let Err(e) = bus.publish(subject, payload).await {
                    tracing::debug!(error = %e, "a quote was not published");
                }
            }
            tokio::time::sleep(QUOTE_EVERY).await;
        }
        #[expect(unreachable_code, reason = "names the error type")]
        Ok::<(), Error>(())
    });
}

/// Reads the 52-week ranges again and marks every quote.
async fn new_day(db: &Db, desk: &Desk) -> Result<()> {
    let year_from = desk.today() - domain::YEAR_DAYS;
    let symbols = desk.map(|i| Some(i.symbol.clone()));
    let years = db
        .read(move |tx| {
            let mut years = Vec::new();
            for symbol in &symbols {
                years.push((symbol.clone(), store::past(tx, symbol, year_from)?.year_e4));
            }
            Ok(years)
        })
        .await?;
    for (symbol, year) in years {
        let mut listings = desk.listings.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(listing) = listings.get_mut(&symbol) {
            listing.year_e4 = year;
            listing.version += 1;
        }
        drop(listings);
        desk.mark(&symbol);
    }
    Ok(())
}

/// Deletes one-minute bars that are older than a week, in small batches.
pub fn prune_minutes(ctx: &Context, db: Db) {
    let clock = ctx.clock.clone();
    ctx.tasks.spawn_until_shutdown("candle retention", async move {
        loop {
            let before = clock.now_us().div_euclid(domain::MINUTE_US) - MINUTES_KEPT;
            match db.write(move |tx| Ok(store::minute_prune(tx, before, PRUNE_ROWS)?)).await {
                Ok(n) if n == u64::from(PRUNE_ROWS) => continue,
                Ok(_) => {}
                Err(e) => tracing::warn!(error = %e, "old candles stay"),
            }
            tokio::time::sleep(PRUNE_EVERY).await;
        }
        #[expect(unreachable_code, reason = "names the error type")]
        Ok::<(), Error>(())
    });
}
