//! Listings and last prices in memory, for the checks of new orders; the tables are their source at start.

use super::store;
use bytes::Bytes;
use fafnir_platform::{
    bus::{self, Bus},
    context::Context,
    db::{Db, inbox},
    error::Result,
};
use fafnir_proto::v1::{Empty, Instrument, InstrumentChanged};
use parking_lot::RwLock;
use prost::Message as _;
use std::{collections::HashMap, sync::Arc};

/// What is known of the market. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Market(Arc<RwLock<Known>>);

#[derive(Debug, Default)]
struct Known {
    instruments: HashMap<String, Arc<Instrument>>,
    last_trades: HashMap<String, i64>,
}

impl Market {
    /// Reads the tables.
    pub async fn load(db: &Db) -> Result<Self> {
        let (instruments, last_trades) =
            db.read(|tx| Ok((store::instrument_list(tx)?, store::last_trade_list(tx)?))).await?;
        let market = Self::default();
        for instrument in instruments {
            market.list(instrument);
        }
        market.traded(last_trades);
        Ok(market)
    }

    /// Takes a listing unless a newer one is known.
    pub fn list(&self, instrument: Instrument) {
        let mut known = self.0.write();
        let newer = known.instruments.get(&instrument.symbol).is_none_or(|k| k.version <= instrument.version);
        if newer {
            known.instruments.insert(instrument.symbol.clone(), Arc::new(instrument));
        }
    }

    /// Takes last traded prices.
    pub fn traded(&self, last_trades: Vec<(String, i64)>) {
        if last_trades.is_empty() {
            return;
        }
        let mut known = self.0.write();
        known.last_trades.extend(last_trades);
    }

    pub fn instrument(&self, symbol: &str) -> Option<Arc<Instrument>> {
        self.0.read().instruments.get(symbol).cloned()
    }

    /// Last trade, else the listing's previous close.
    pub fn reference(&self, instrument: &Instrument) -> Option<i64> {
        let known = self.0.read();
        let last = known.last_trades.get(&instrument.symbol).copied();
        last.or(Some(instrument.previous_close_e4)).filter(|p| *p > 0)
    }
}

/// Attaches to stream `instruments`, then lists from the owner. Waits for stock-service as long as it takes.
pub async fn follow(ctx: &Context, db: &Db, bus: &Bus, market: &Market) -> Result<()> {
    let (ctx2, db2, market2) = (ctx.clone(), db.clone(), market.clone());
    bus.follow(ctx, bus::INSTRUMENTS, move |facts| {
        let (ctx, db, market) = (ctx2.clone(), db2.clone(), market2.clone());
        async move { take(&ctx, &db, &market, facts).await }
    })
    .await?;
    let listed = ctx
        .wait_for("the listings", || async {
            Ok(ctx.clients.stock(&ctx.system()).list_instruments(Empty {}).await?.into_inner())
        })
        .await?;
    keep(db, market, listed.instruments).await
}

async fn take(ctx: &Context, db: &Db, market: &Market, facts: Vec<(String, Bytes)>) -> Result<()> {
    let mut instruments = Vec::with_capacity(facts.len());
    for (subject, payload) in facts {
        match InstrumentChanged::decode(payload.clone()) {
            Ok(InstrumentChanged { instrument: Some(instrument) }) => instruments.push(instrument),
            Ok(InstrumentChanged { instrument: None }) => {}
            Err(e) => {
                let (error, now_us) = (e.to_string(), ctx.clock.now_us());
                db.write(move |tx| Ok(inbox::dead_letter_put(tx, &subject, &payload, &error, now_us)?))
                    .await?;
            }
        }
    }
    keep(db, market, instruments).await
}

async fn keep(db: &Db, market: &Market, instruments: Vec<Instrument>) -> Result<()> {
    let stored = instruments.clone();
    db.write(move |tx| {
        for instrument in &stored {
            store::instrument_put(tx, instrument)?;
        }
        Ok(())
    })
    .await?;
    for instrument in instruments {
        market.list(instrument);
    }
    Ok(())
}
