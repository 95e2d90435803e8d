//! `fafnir import`: bars of somebody's own.

use super::platform::with_services;
use crate::{
    args::{Global, Import},
    output::{Error, Exit, Out, Result},
    settings,
};
use fafnir_market::import::{self, Bar, FAULTS_TOLD_MAX, Fault, How, Read};
use fafnir_proto::{
    reason::Reason,
    v1::{Candle, Instrument, InstrumentType, LoadHistoryRequest, SymbolRequest, TradingState},
};
use fafnir_rules::{money::parse_e4, symbol::Symbol};
use fafnir_services::platform::{
    Caller, Context,
    clock::{DAY_US, date, rfc3339},
};
use serde_json::json;
use std::fs;

/// Bars per call (stock.proto).
const BARS_PER_CALL: usize = 2_000;
/// Bytes of a file.
const FILE_MAX: u64 = 256 * 1024 * 1024;
/// What a listing that is made here is listed at.
const EXCHANGE: &str = "IMPORT";
/// Lots of a file that is only looked at.
const FINEST_LOT_E4: i64 = 1;

fn bad(message: impl std::fmt::Display) -> Error {
    Error::new(Exit::Usage, message.to_string()).code(Reason::SEEDS)
}

pub async fn import(global: &Global, args: &Import, out: Out) -> Result {
    let symbol = Symbol::parse(&args.symbol.to_uppercase()).map_err(|e| bad(format!("--symbol: {e}")))?;
    let name = args.file.display().to_string();
    let found = fs::metadata(&args.file).map_err(|e| bad(format!("{name}: {e}")))?;
    if found.len() > FILE_MAX {
        return Err(bad(format!("{name}: has {} bytes, of at most {FILE_MAX}", found.len())));
    }
    let text = fs::read_to_string(&args.file).map_err(|e| bad(format!("{name}: {e}")))?;
    let how = How {
        symbol: Some(symbol.to_string()),
        columns: args.column.clone(),
        round: args.round,
        lot_e4: FINEST_LOT_E4,
    };
    // The file is checked whole before anything is started or changed.
    let read = import::read(&text, &how).map_err(|faults| refused(&name, &faults, out))?;
    if args.dry_run {
        say(&read, &symbol, None, out);
        return Ok(());
    }
    let settings = settings::settings(global, &[])?;
    let (read, stored) = with_services(settings, out, async |ctx| {
        let listing = listing(ctx, args, &symbol, &read).await?;
        let read = import::read(&text, &How { lot_e4: listing.lot_e4, ..how })
            .map_err(|faults| refused(&name, &faults, out))?;
        let stored = store(ctx, args, &symbol, &read).await?;
        Ok((read, stored))
    })
    .await?;
    say(&read, &symbol, Some(stored), out);
    Ok(())
}

fn refused(name: &str, faults: &[Fault], out: Out) -> Error {
    for fault in faults.iter().skip(1).take(FAULTS_TOLD_MAX - 1) {
        out.note(format_args!("{name}: {fault}"));
    }
    let first = faults.first().map_or_else(String::new, ToString::to_string);
    bad(match faults.len() {
        1 => format!("{name}: {first}"),
        n => format!("{name}: {first} (and {} more)", n - 1),
    })
}

/// The symbol's listing; made where it was asked for.
async fn listing(ctx: &Context, args: &Import, symbol: &Symbol, read: &Read) -> Result<Instrument> {
    let caller = Caller::system("import");
    let request = SymbolRequest { symbol: symbol.to_string() };
    match ctx.clients.stock(&caller).get_instrument(request).await {
        Ok(found) => return Ok(found.into_inner()),
        Err(status) if status.code() != tonic::Code::NotFound => return Err(status.into()),
        Err(_) => {}
    }
    let Some(name) = &args.list else {
        return Err(Error::new(Exit::Precondition, format!("symbol {symbol} is not listed"))
            .code(Reason::UNKNOWN_SYMBOL)
            .hint("--list NAME lists it"));
    };
    let e4 = |flag: &str, text: &str| parse_e4(text).map_err(|e| bad(format!("--{flag} {text:?} {e}")));
    let instrument = Instrument {
        symbol: symbol.to_string(),
        name: name.clone(),
        exchange: EXCHANGE.to_owned(),
        exchange_full_name: EXCHANGE.to_owned(),
        r#type: InstrumentType::Equity.into(),
        currency: args.currency.to_uppercase(),
        tick_e4: e4("tick", &args.tick)?,
        lot_e4: e4("lot", &args.lot)?,
        state: TradingState::Open.into(),
        previous_close_e4: read.bars.last().map_or(0, |bar| bar.close_e4),
        ..Default::default()
    };
    let listed = ctx.clients.stock(&caller).upsert_instrument(instrument).await?.into_inner();
    listed.instrument.ok_or_else(|| Error::new(Exit::Failure, "the listing was not answered"))
}

/// What became of the bars.
#[derive(Debug, Default)]
struct Stored {
    stored: u64,
    /// There already, and not replaced.
    present: u64,
    /// Of today or later: what is traded makes them.
    too_late: u64,
}

async fn store(ctx: &Context, args: &Import, symbol: &Symbol, read: &Read) -> Result<Stored> {
    let now_us = ctx.clock.now_us();
    let before = if read.is_intraday { now_us - 60_000_000 } else { now_us.div_euclid(DAY_US) * DAY_US };
    let (bars, late): (Vec<Bar>, Vec<Bar>) = read.bars.iter().partition(|bar| bar.time_us < before);
    let mut stored = Stored { too_late: late.len() as u64, ..Stored::default() };
    for part in bars.chunks(BARS_PER_CALL) {
        let candles = part.iter().map(|bar| candle(symbol, bar)).collect();
        let mut request =
            LoadHistoryRequest { symbol: symbol.to_string(), replace: args.replace, ..Default::default() };
        *(if read.is_intraday { &mut request.minutes } else { &mut request.bars }) = candles;
        let mut stock = ctx.clients.stock(&Caller::system("import"));
        let reply = stock.load_history(request).await?.into_inner();
        stored.stored += u64::from(reply.inserted);
        stored.present += u64::from(reply.present);
    }
    Ok(stored)
}

fn candle(symbol: &Symbol, bar: &Bar) -> Candle {
    Candle {
        symbol: symbol.to_string(),
        time_us: bar.time_us,
        open_e4: bar.open_e4,
        high_e4: bar.high_e4,
        low_e4: bar.low_e4,
        close_e4: bar.close_e4,
        volume_e4: bar.volume_e4,
    }
}

fn say(read: &Read, symbol: &Symbol, stored: Option<Stored>, out: Out) {
    let at = |bar: Option<&Bar>| {
        let time_us = bar.map_or(0, |b| b.time_us);
        if read.is_intraday { rfc3339(time_us) } else { date(time_us) }
    };
    let (from, to) = (at(read.bars.first()), at(read.bars.last()));
    let span = if read.is_intraday { "minute" } else { "daily" };
    let document = json!({
        "symbol": symbol.to_string(), "format": read.format, "bars": read.bars.len(), "span": span, "from": from,
        "to": to, "nullRows": read.null_rows, "roundedPrices": read.rounded,
        "roundedVolumes": read.volumes_rounded, "otherSymbols": read.others,
        "stored": stored.as_ref().map(|s| s.stored), "present": stored.as_ref().map(|s| s.present),
        "tooLate": stored.as_ref().map(|s| s.too_late),
    });
    out.data(&document, || {
        let mut text =
            format!("{symbol}: {} {span} bars of {}, {from} to {to}\n", read.bars.len(), read.format);
        for row in read.null_rows.iter().take(FAULTS_TOLD_MAX) {
            text.push_str(&format!("line {row}: no prices, passed over\n"));
        }
        let mut line = |count: u64, what: &str| {
            if count > 0 {
                text.push_str(&format!("{count} {what}\n"));
            }
        };
        line((read.null_rows.len().saturating_sub(FAULTS_TOLD_MAX)) as u64, "more rows without prices");
        line(read.others, "rows of other symbols, passed over");
        line(read.rounded, "prices rounded to four decimals");
        line(read.volumes_rounded, "volumes rounded down to the lot");
        if let Some(stored) = &stored {
            line(stored.stored, "stored");
            line(stored.present, "there already; --replace replaces them");
            line(stored.too_late, "of today or later, which trades make, passed over");
        }
        text
    });
}
