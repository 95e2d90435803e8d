//! The desk: what every quote is made of, in memory. Every quote that anybody is answered comes from here.
//!
//! No reader waits for the database or for a cache: a quote is never older than the last trade, book image or listing
//! that this process has heard of.

use super::{
    domain::{self, Instrument, Listing, Past, Quote, Top, Traded},
    store,
};
use fafnir_platform::{bus::Round, clock::Clock, db::Db, error::Result, tasks::Wake};
use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicI64, Ordering},
};

type Listings = BTreeMap<String, Listing>;

/// Every listing with what its quote needs. The tables are its source at start; it never waits for them.
#[derive(Debug)]
pub struct Desk {
    listings: RwLock<Listings>,
    changed: Mutex<BTreeSet<String>>,
    wake: Wake,
    /// The day that the quotes are of.
    day: AtomicI64,
    clock: Clock,
}

impl Desk {
    /// Reads every listing.
    pub async fn load(db: &Db, clock: &Clock) -> Result<Self> {
        let desk = Self {
            listings: RwLock::default(),
            changed: Mutex::default(),
            wake: Wake::default(),
            day: AtomicI64::new(domain::day_of(clock.now_us())),
            clock: clock.clone(),
        };
        let year_from = desk.year_from();
        let stored = db
            .read(move |tx| {
                let mut all = Vec::new();
                for (instrument, updated_us) in store::instrument_list(tx)? {
                    let past = store::past(tx, &instrument.symbol, year_from)?;
                    all.push((instrument, updated_us, past));
                }
                Ok(all)
            })
            .await?;
        for (instrument, updated_us, past) in stored {
            desk.list(instrument, updated_us, past);
        }
        Ok(desk)
    }

    fn today(&self) -> i64 {
        domain::day_of(self.clock.now_us())
    }

    /// The first day of the 52-week range.
    fn year_from(&self) -> i64 {
        self.today() - domain::YEAR_DAYS
    }

    fn read(&self) -> RwLockReadGuard<'_, Listings> {
        self.listings.read()
    }

    fn write(&self) -> RwLockWriteGuard<'_, Listings> {
        self.listings.write()
    }

    fn changed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.changed.lock()
    }

    fn mark(&self, symbol: &str) {
        self.changed().insert(symbol.to_owned());
        self.wake.notify();
    }

    /// Is notified when a quote changed.
    pub fn wake(&self) -> &Wake {
        &self.wake
    }

    /// The symbols whose quotes changed since the last call.
    pub fn take_changed(&self) -> BTreeSet<String> {
        std::mem::take(&mut *self.changed())
    }

    /// Puts a listing with its past as they were read; what came meanwhile stays.
    pub fn list(&self, instrument: Instrument, updated_us: i64, past: Past) {
        let symbol = instrument.symbol.clone();
        let now = u64::try_from(self.clock.now_us()).unwrap_or(0);
        let mut listings = self.write();
        if let Some(listing) = listings.get_mut(&symbol) {
            listing.relist(instrument, updated_us);
            listing.reread(past);
        } else {
            let listing = Listing { past, version: now, ..Listing::new(instrument, updated_us) };
            listings.insert(symbol.clone(), listing);
        }
        drop(listings);
        self.mark(&symbol);
    }

    /// Takes the past of a symbol as it was read; a trade that came meanwhile stays.
    pub fn reread(&self, symbol: &str, past: Past) {
        if let Some(listing) = self.write().get_mut(symbol) {
            listing.reread(past);
        }
        self.mark(symbol);
    }

    /// Takes a changed listing unless a newer one is known; trades and bars stay.
    pub fn relist(&self, instrument: Instrument, updated_us: i64) {
        let symbol = instrument.symbol.clone();
        let mut listings = self.write();
        match listings.get_mut(&symbol) {
            Some(listing) => listing.relist(instrument, updated_us),
            None => {
                listings.insert(symbol.clone(), Listing::new(instrument, updated_us));
            }
        }
        drop(listings);
        self.mark(&symbol);
    }

    /// Takes trades; they may be stored later.
    pub fn trade(&self, traded: impl Iterator<Item = Traded>) {
        for t in traded {
            if let Some(listing) = self.write().get_mut(&t.symbol) {
                listing.trade(t.day, t.bar, t.last);
            }
            self.mark(&t.symbol);
        }
    }

    /// Takes the best levels of a symbol's book.
    pub fn book(&self, symbol: &str, top: Top) {
        let changed = self.write().get_mut(symbol).is_some_and(|l| l.book(top));
        if changed {
            self.mark(symbol);
        }
    }

    /// On another day than before, reads the 52-week ranges again and marks every quote: yesterday's close is the
    /// previous one now.
    pub async fn new_day(&self, db: &Db) -> Result<()> {
        let (today, year_from) = (self.today(), self.year_from());
        if today == self.day.load(Ordering::Acquire) {
            return Ok(());
        }
        let symbols = self.map(|i| Some(i.symbol.clone()));
        let years = db
            .read(move |tx| {
                let mut years = Vec::new();
                for symbol in &symbols {
                    years.push((symbol.clone(), store::past(tx, symbol, year_from)?.year_e4));
                }
                Ok(years)
            })
            .await?;
        for (symbol, year_e4) in years {
            if let Some(listing) = self.write().get_mut(&symbol) {
                listing.past.year_e4 = year_e4;
                listing.version += 1;
            }
            self.mark(&symbol);
        }
        self.day.store(today, Ordering::Release);
        Ok(())
    }

    /// Something of every listing, in the order of their symbols.
    pub fn map<T>(&self, mut f: impl FnMut(&Instrument) -> Option<T>) -> Vec<T> {
        self.read().values().filter_map(|l| f(&l.instrument)).collect()
    }

    /// Something of one listing.
    pub fn instrument<T>(&self, symbol: &str, f: impl FnOnce(&Instrument) -> T) -> Option<T> {
        self.read().get(symbol).map(|l| f(&l.instrument))
    }

    /// The next part of all quotes.
    pub fn quotes_again<T>(&self, round: &mut Round, f: impl Fn(&Instrument, &Quote) -> T) -> Vec<T> {
        let today = self.today();
        round.part(&self.read()).into_iter().map(|l| f(&l.instrument, &l.quote(today))).collect()
    }

    /// The quotes of some symbols as they are at one moment, in their order; unknown ones are left out. Borrows the
    /// listing: what is copied is the caller's choice, since this is what every quote costs.
    pub fn quotes<'a, T>(
        &self,
        symbols: impl IntoIterator<Item = &'a str>,
        f: impl Fn(&Instrument, &Quote) -> T,
    ) -> Vec<T> {
        let today = self.today();
        let listings = self.read();
        let known = symbols.into_iter().filter_map(|symbol| listings.get(symbol));
        known.map(|l| f(&l.instrument, &l.quote(today))).collect()
    }
}
