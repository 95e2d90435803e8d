//! The tables of stock-service; the only SQL.

use super::domain::{Bar, LastTrade};
use fafnir_platform::{
    db::{Error, Row, Tx, Value, inbox},
    executions::{self, Applied, Reading},
    params,
};
use fafnir_proto::v1::{ExecKind, ExecutionBatch, Instrument};
use std::collections::BTreeMap;

/// Reason of a STATE_CHANGED with which the engine begins a volatility pause.
const VOLATILITY_PAUSE: &str = "VOLATILITY_PAUSE";
/// Rows per multi-row insert.
const INSERT_ROWS: usize = 100;

const INSTRUMENT_COLUMNS: &str = "symbol, name, exchange, exchange_full_name, type, currency, tick_e4, lot_e4, state, \
     previous_close_e4, shares_outstanding, sector, industry, description, country, website, version, updated_us, volatility_band_bps, \
     volatility_pause";

/// A stored listing and when it last changed.
#[derive(Debug, Clone)]
pub struct Stored {
    pub instrument: Instrument,
    pub updated_us: i64,
}

fn instrument(row: &Row) -> Result<Stored, Error> {
    Ok(Stored {
        instrument: Instrument {
            symbol: row.get(0)?,
            name: row.get(1)?,
            exchange: row.get(2)?,
            exchange_full_name: row.get(3)?,
            r#type: row.get(4)?,
            currency: row.get(5)?,
            tick_e4: row.get(6)?,
            lot_e4: row.get(7)?,
            state: row.get(8)?,
            previous_close_e4: row.get(9)?,
            shares_outstanding: row.get(10)?,
            sector: row.get(11)?,
            industry: row.get(12)?,
            description: row.get(13)?,
            country: row.get(14)?,
            website: row.get(15)?,
            version: row.get(16)?,
            volatility_band_bps: row.get(18)?,
            volatility_pause: row.get(19)?,
        },
        updated_us: row.get(17)?,
    })
}

pub fn instrument_list(tx: &mut dyn Tx) -> Result<Vec<Stored>, Error> {
    let sql = format!("SELECT {INSTRUMENT_COLUMNS} FROM instruments ORDER BY symbol");
    tx.query(&sql, &[])?.iter().map(instrument).collect()
}

pub fn instrument_get(tx: &mut dyn Tx, symbol: &str) -> Result<Option<Stored>, Error> {
    let sql = format!("SELECT {INSTRUMENT_COLUMNS} FROM instruments WHERE symbol = ?1");
    tx.query_opt(&sql, params![symbol])?.as_ref().map(instrument).transpose()
}

/// Writes a listing as it now is.
pub fn instrument_put(tx: &mut dyn Tx, i: &Instrument, now_us: i64) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO instruments ({INSTRUMENT_COLUMNS}) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20) \
         ON CONFLICT (symbol) DO UPDATE SET name = excluded.name, exchange = excluded.exchange, \
         exchange_full_name = excluded.exchange_full_name, type = excluded.type, state = excluded.state, \
         previous_close_e4 = excluded.previous_close_e4, shares_outstanding = excluded.shares_outstanding, \
         sector = excluded.sector, industry = excluded.industry, description = excluded.description, \
         country = excluded.country, website = excluded.website, version = excluded.version, \
         updated_us = excluded.updated_us, volatility_band_bps = excluded.volatility_band_bps, \
         volatility_pause = excluded.volatility_pause"
    );
    tx.execute(
        &sql,
        params![
            &i.symbol,
            &i.name,
            &i.exchange,
            &i.exchange_full_name,
            i.r#type,
            &i.currency,
            i.tick_e4,
            i.lot_e4,
            i.state,
            i.previous_close_e4,
            i.shares_outstanding,
            &i.sector,
            &i.industry,
            &i.description,
            &i.country,
            &i.website,
            i.version,
            now_us,
            i.volatility_band_bps,
            i64::from(i.volatility_pause)
        ],
    )?;
    Ok(())
}

fn bar(row: &Row, from: usize) -> Result<Bar, Error> {
    Ok(Bar {
        open_e4: row.get(from)?,
        high_e4: row.get(from + 1)?,
        low_e4: row.get(from + 2)?,
        close_e4: row.get(from + 3)?,
        volume_e4: row.get(from + 4)?,
    })
}

/// What a quote needs of the past.
#[derive(Debug, Clone, Default)]
pub struct Past {
    pub newest: Option<(i64, Bar)>,
    pub close_before_newest_e4: Option<i64>,
    pub year_e4: Option<(i64, i64)>,
    pub last: Option<LastTrade>,
}

/// The past of a symbol; the 52-week range counts days from `year_from`.
pub fn past(tx: &mut dyn Tx, symbol: &str, year_from: i64) -> Result<Past, Error> {
    let newest = tx.query(
        "SELECT day, open_e4, high_e4, low_e4, close_e4, volume_e4 FROM daily_bars WHERE symbol = ?1 \
         ORDER BY day DESC LIMIT 2",
        params![symbol],
    )?;
    let year = tx.query_one(
        "SELECT MIN(low_e4), MAX(high_e4) FROM daily_bars WHERE symbol = ?1 AND day >= ?2",
        params![symbol, year_from],
    )?;
    let last = tx.query_opt(
        "SELECT price_e4, quantity_e4, trade_no, time_us FROM last_trades WHERE symbol = ?1",
        params![symbol],
    )?;
    Ok(Past {
        newest: newest.first().map(|r| Ok::<_, Error>((r.get(0)?, bar(r, 1)?))).transpose()?,
        close_before_newest_e4: newest.get(1).map(|r| r.get(4)).transpose()?,
        year_e4: year.get::<Option<i64>>(0)?.zip(year.get::<Option<i64>>(1)?),
        last: last
            .map(|r| {
                Ok::<_, Error>(LastTrade {
                    price_e4: r.get(0)?,
                    quantity_e4: r.get(1)?,
                    trade_no: r.get(2)?,
                    time_us: r.get(3)?,
                })
            })
            .transpose()?,
    })
}

/// Adds daily bars of the past; a day that is there stays as it is. Answers how many were new.
pub fn history_load(tx: &mut dyn Tx, symbol: &str, bars: &[(i64, Bar)]) -> Result<u64, Error> {
    let mut inserted = 0;
    for chunk in bars.chunks(INSERT_ROWS) {
        let rows: Vec<String> = (0..chunk.len())
            .map(|n| {
                let p: Vec<String> = (1..=7).map(|k| format!("?{}", n * 7 + k)).collect();
                format!("({})", p.join(", "))
            })
            .collect();
        let sql = format!(
            "INSERT INTO daily_bars (symbol, day, open_e4, high_e4, low_e4, close_e4, volume_e4) VALUES {} \
             ON CONFLICT (symbol, day) DO NOTHING",
            rows.join(", ")
        );
        let values: Vec<Value> = chunk
            .iter()
            .flat_map(|(day, b)| {
                [
                    symbol.into(),
                    (*day).into(),
                    b.open_e4.into(),
                    b.high_e4.into(),
                    b.low_e4.into(),
                    b.close_e4.into(),
                    b.volume_e4.into(),
                ]
            })
            .collect();
        inserted += tx.execute(&sql, &values)?;
    }
    Ok(inserted)
}

/// Daily bars from a day on, ascending, at most the newest `limit`.
pub fn daily_list(
    tx: &mut dyn Tx,
    symbol: &str,
    first_day: i64,
    limit: u32,
) -> Result<Vec<(i64, Bar)>, Error> {
    let rows = tx.query(
        "SELECT day, open_e4, high_e4, low_e4, close_e4, volume_e4 FROM daily_bars \
         WHERE symbol = ?1 AND day >= ?2 ORDER BY day DESC LIMIT ?3",
        params![symbol, first_day, limit],
    )?;
    rows.iter().rev().map(|r| Ok((r.get(0)?, bar(r, 1)?))).collect()
}

/// One-minute bars of `first..=last`, ascending, at most the newest `limit`.
pub fn minute_list(
    tx: &mut dyn Tx,
    symbol: &str,
    first: i64,
    last: i64,
    limit: u32,
) -> Result<Vec<(i64, Bar)>, Error> {
    let rows = tx.query(
        "SELECT minute, open_e4, high_e4, low_e4, close_e4, volume_e4 FROM minute_bars \
         WHERE symbol = ?1 AND minute >= ?2 AND minute <= ?3 ORDER BY minute DESC LIMIT ?4",
        params![symbol, first, last, limit],
    )?;
    rows.iter().rev().map(|r| Ok((r.get(0)?, bar(r, 1)?))).collect()
}

/// Deletes at most `limit` one-minute bars before a minute; answers how many went.
pub fn minute_prune(tx: &mut dyn Tx, before: i64, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM minute_bars WHERE (symbol, minute) IN \
         (SELECT symbol, minute FROM minute_bars WHERE minute < ?1 ORDER BY minute LIMIT ?2)",
        params![before, limit],
    )
}

/// Trades of one symbol that were new, summed by day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traded {
    pub symbol: String,
    pub day: i64,
    pub bar: Bar,
    pub last: LastTrade,
}

/// What was new in executions.
#[derive(Debug, Default)]
pub struct News {
    pub applied: Applied,
    pub traded: Vec<Traded>,
    /// The symbols whose state changed, and whether they are in a volatility pause now.
    pub paused: BTreeMap<String, bool>,
}

/// Stores the trades of the batches that follow our positions, and the positions. Answers what was new, in order.
pub fn executions_apply(tx: &mut dyn Tx, batches: &[ExecutionBatch]) -> Result<News, Error> {
    let mut applied = Applied::default();
    let mut paused = BTreeMap::new();
    let mut positions: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    let mut days: BTreeMap<(&str, i64), (Bar, LastTrade)> = BTreeMap::new();
    let mut minutes: BTreeMap<(&str, i64), Bar> = BTreeMap::new();
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
        for e in new {
            *last_seq = e.seq;
            applied.executions += 1;
            if e.kind() == ExecKind::StateChanged {
                paused.insert(symbol.to_owned(), e.reason == VOLATILITY_PAUSE);
            }
            if e.kind() != ExecKind::Trade {
                continue;
            }
            let bar = Bar::of_trade(e.price_e4, e.quantity_e4);
            let last = LastTrade {
                price_e4: e.price_e4,
                quantity_e4: e.quantity_e4,
                trade_no: e.trade_no,
                time_us: e.time_us,
            };
            days.entry((symbol, super::domain::day_of(e.time_us)))
                .and_modify(|(sum, l)| {
                    *sum = sum.then(bar);
                    *l = last;
                })
                .or_insert((bar, last));
            minutes
                .entry((symbol, e.time_us.div_euclid(super::domain::MINUTE_US)))
                .and_modify(|sum| *sum = sum.then(bar))
                .or_insert(bar);
        }
    }
    let mut traded = Vec::with_capacity(days.len());
    for ((symbol, day), (bar, last)) in days {
        bar_add(tx, "daily_bars", "day", symbol, day, bar)?;
        tx.execute(
            "INSERT INTO last_trades (symbol, price_e4, quantity_e4, trade_no, time_us) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (symbol) DO UPDATE SET price_e4 = excluded.price_e4, quantity_e4 = excluded.quantity_e4, \
             trade_no = excluded.trade_no, time_us = excluded.time_us",
            params![symbol, last.price_e4, last.quantity_e4, last.trade_no, last.time_us],
        )?;
        traded.push(Traded { symbol: symbol.to_owned(), day, bar, last });
    }
    for ((symbol, minute), bar) in minutes {
        bar_add(tx, "minute_bars", "minute", symbol, minute, bar)?;
    }
    for (symbol, (before, after)) in positions {
        if after > before {
            inbox::advance(tx, symbol, after)?;
        }
    }
    Ok(News { applied, traded, paused })
}

/// Adds a later bar to the stored one of the same span.
fn bar_add(
    tx: &mut dyn Tx,
    table: &'static str,
    unit: &'static str,
    symbol: &str,
    at: i64,
    b: Bar,
) -> Result<(), Error> {
    let sql = format!(
        "INSERT INTO {table} (symbol, {unit}, open_e4, high_e4, low_e4, close_e4, volume_e4) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT (symbol, {unit}) DO UPDATE SET \
         high_e4 = CASE WHEN excluded.high_e4 > {table}.high_e4 THEN excluded.high_e4 ELSE {table}.high_e4 END, \
         low_e4 = CASE WHEN excluded.low_e4 < {table}.low_e4 THEN excluded.low_e4 ELSE {table}.low_e4 END, \
         close_e4 = excluded.close_e4, volume_e4 = {table}.volume_e4 + excluded.volume_e4"
    );
    tx.execute(&sql, params![symbol, at, b.open_e4, b.high_e4, b.low_e4, b.close_e4, b.volume_e4])?;
    Ok(())
}
