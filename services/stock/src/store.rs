//! The tables of stock-service; the only SQL.

use super::{
    candles::Stored,
    domain::{Bar, Instrument, Kind, LastTrade, Past, Span, State, Sum, Terms},
};
use fafnir_platform::{
    db::{Error, Row, Tx, Value},
    params,
};

/// Rows per multi-row insert.
const INSERT_ROWS: usize = 100;

const INSTRUMENT_COLUMNS: &str = "symbol, name, exchange, exchange_full_name, type, currency, tick_e4, lot_e4, state, \
     previous_close_e4, shares_outstanding, sector, industry, description, country, website, version, updated_us, volatility_band_bps, \
     volatility_pause";

fn instrument(row: &Row) -> Result<Instrument, Error> {
    let (kind, state) = (row.get(4)?, row.get(8)?);
    let unknown = |what: &str, n: i32| Error::Statement(format!("a listing has the {what} {n}"));
    Ok(Instrument {
        symbol: row.get(0)?,
        kind: Kind::of_number(kind).ok_or_else(|| unknown("type", kind))?,
        terms: Terms {
            name: row.get(1)?,
            exchange: row.get(2)?,
            exchange_full_name: row.get(3)?,
            currency: row.get(5)?,
            tick_e4: row.get(6)?,
            lot_e4: row.get(7)?,
            previous_close_e4: row.get(9)?,
            shares_outstanding: row.get(10)?,
            sector: row.get(11)?,
            industry: row.get(12)?,
            description: row.get(13)?,
            country: row.get(14)?,
            website: row.get(15)?,
        },
        state: State::of_number(state).ok_or_else(|| unknown("state", state))?,
        volatility_band_bps: row.get(18)?,
        volatility_pause: row.get(19)?,
        version: row.get(16)?,
    })
}

/// Every listing and when it last changed.
pub fn instrument_list(tx: &mut dyn Tx) -> Result<Vec<(Instrument, i64)>, Error> {
    let sql = format!("SELECT {INSTRUMENT_COLUMNS} FROM instruments ORDER BY symbol");
    tx.query(&sql, &[])?.iter().map(|row| Ok((instrument(row)?, row.get(17)?))).collect()
}

/// The listing of a symbol.
pub fn instrument_get(tx: &mut dyn Tx, symbol: &str) -> Result<Option<Instrument>, Error> {
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
    let t = &i.terms;
    tx.execute(
        &sql,
        params![
            &i.symbol,
            &t.name,
            &t.exchange,
            &t.exchange_full_name,
            i.kind.number(),
            &t.currency,
            t.tick_e4,
            t.lot_e4,
            i.state.number(),
            t.previous_close_e4,
            t.shares_outstanding,
            &t.sector,
            &t.industry,
            &t.description,
            &t.country,
            &t.website,
            i.version,
            now_us,
            i.volatility_band_bps,
            i64::from(i.volatility_pause)
        ],
    )?;
    Ok(())
}

/// Notes that the engine lacks a version of a listing.
pub fn untold_put(tx: &mut dyn Tx, symbol: &str, version: u64) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO untold (symbol, version) VALUES (?1, ?2) \
         ON CONFLICT (symbol) DO UPDATE SET version = excluded.version",
        params![symbol, version],
    )?;
    Ok(())
}

/// The engine has answered for a version of a listing.
pub fn untold_delete(tx: &mut dyn Tx, symbol: &str, version: u64) -> Result<(), Error> {
    tx.execute("DELETE FROM untold WHERE symbol = ?1 AND version <= ?2", params![symbol, version])?;
    Ok(())
}

/// Listings that the engine lacks, as they are.
pub fn untold_list(tx: &mut dyn Tx, limit: u32) -> Result<Vec<Instrument>, Error> {
    let sql = format!(
        "SELECT {INSTRUMENT_COLUMNS} FROM instruments WHERE symbol IN (SELECT symbol FROM untold) \
         ORDER BY symbol LIMIT ?1"
    );
    tx.query(&sql, params![limit])?.iter().map(instrument).collect()
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

/// Table and column of the bars of a span.
fn table(span: Span) -> (&'static str, &'static str) {
    match span {
        Span::Day => ("daily_bars", "day"),
        Span::Minute => ("minute_bars", "minute"),
    }
}

/// Adds bars of the past; one that is there stays as it is, or gives way. Answers how many were stored.
pub fn bars_load(
    tx: &mut dyn Tx,
    span: Span,
    symbol: &str,
    bars: &[(i64, Bar)],
    replace: bool,
) -> Result<u64, Error> {
    let (table, unit) = table(span);
    let conflict = if replace {
        "DO UPDATE SET open_e4 = excluded.open_e4, high_e4 = excluded.high_e4, low_e4 = excluded.low_e4, \
         close_e4 = excluded.close_e4, volume_e4 = excluded.volume_e4"
    } else {
        "DO NOTHING"
    };
    let mut inserted = 0;
    for chunk in bars.chunks(INSERT_ROWS) {
        let rows: Vec<String> = (0..chunk.len())
            .map(|n| {
                let p: Vec<String> = (1..=7).map(|k| format!("?{}", n * 7 + k)).collect();
                format!("({})", p.join(", "))
            })
            .collect();
        let sql = format!(
            "INSERT INTO {table} (symbol, {unit}, open_e4, high_e4, low_e4, close_e4, volume_e4) VALUES {} \
             ON CONFLICT (symbol, {unit}) {conflict}",
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

/// Stored bars of `first..=last`, ascending, at most the newest `limit`.
pub fn bar_list(
    tx: &mut dyn Tx,
    stored: Stored,
    symbol: &str,
    (first, last): (i64, i64),
    limit: u32,
) -> Result<Vec<(i64, Bar)>, Error> {
    let (table, unit) = match stored {
        Stored::Seconds => ("second_bars", "second"),
        Stored::Minutes => table(Span::Minute),
        Stored::Days => table(Span::Day),
    };
    let rows = tx.query(
        &format!(
            "SELECT {unit}, open_e4, high_e4, low_e4, close_e4, volume_e4 FROM {table} \
             WHERE symbol = ?1 AND {unit} >= ?2 AND {unit} <= ?3 ORDER BY {unit} DESC LIMIT ?4"
        ),
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

/// Deletes at most `limit` one-second bars before a second; answers how many went.
pub fn second_prune(tx: &mut dyn Tx, before: i64, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM second_bars WHERE (symbol, second) IN \
         (SELECT symbol, second FROM second_bars WHERE second < ?1 ORDER BY second LIMIT ?2)",
        params![before, limit],
    )
}

/// Adds trades to the bars of their days, minutes and seconds, and keeps the last of each symbol.
pub fn sum_add(tx: &mut dyn Tx, sum: &Sum) -> Result<(), Error> {
    for t in sum.days() {
        bar_add(tx, "daily_bars", "day", &t.symbol, t.day, t.bar)?;
        tx.execute(
            "INSERT INTO last_trades (symbol, price_e4, quantity_e4, trade_no, time_us) VALUES (?1, ?2, ?3, ?4, ?5) \
             ON CONFLICT (symbol) DO UPDATE SET price_e4 = excluded.price_e4, quantity_e4 = excluded.quantity_e4, \
             trade_no = excluded.trade_no, time_us = excluded.time_us",
            params![&t.symbol, t.last.price_e4, t.last.quantity_e4, t.last.trade_no, t.last.time_us],
        )?;
    }
    for (symbol, minute, bar) in sum.minutes() {
        bar_add(tx, "minute_bars", "minute", symbol, minute, bar)?;
    }
    for (symbol, second, bar) in sum.seconds() {
        bar_add(tx, "second_bars", "second", symbol, second, bar)?;
    }
    for (symbol, day, price_e4, volume_e4) in sum.prices() {
        tx.execute(
            "INSERT INTO price_volumes (symbol, day, price_e4, volume_e4) VALUES (?1, ?2, ?3, ?4) \
             ON CONFLICT (symbol, day, price_e4) DO UPDATE SET \
             volume_e4 = price_volumes.volume_e4 + excluded.volume_e4",
            params![symbol, day, price_e4, volume_e4],
        )?;
    }
    Ok(())
}

/// Price and volume of a day, ascending by price, and the number of the last trade in them; of more prices than `limit`
/// those with the largest volume.
pub fn price_volumes(
    tx: &mut dyn Tx,
    symbol: &str,
    day: i64,
    limit: u32,
) -> Result<(Vec<(i64, i64)>, u64), Error> {
    let rows = tx.query(
        "SELECT price_e4, volume_e4 FROM price_volumes WHERE symbol = ?1 AND day = ?2 \
         ORDER BY volume_e4 DESC, price_e4 LIMIT ?3",
        params![symbol, day, limit],
    )?;
    let mut levels: Vec<(i64, i64)> =
        rows.iter().map(|r| Ok::<_, Error>((r.get(0)?, r.get(1)?))).collect::<Result<_, _>>()?;
    levels.sort_unstable();
    let last = tx.query_opt("SELECT trade_no FROM last_trades WHERE symbol = ?1", params![symbol])?;
    Ok((levels, last.map(|r| r.get(0)).transpose()?.unwrap_or(0)))
}

/// Deletes at most `limit` rows of volumes of days before one; answers how many went.
pub fn price_volume_prune(tx: &mut dyn Tx, before_day: i64, limit: u32) -> Result<u64, Error> {
    tx.execute(
        "DELETE FROM price_volumes WHERE (symbol, day, price_e4) IN \
         (SELECT symbol, day, price_e4 FROM price_volumes WHERE day < ?1 ORDER BY day LIMIT ?2)",
        params![before_day, limit],
    )
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
