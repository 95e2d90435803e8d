//! The canonical state of the engine as bytes: what a snapshot holds and what the state hash is taken of.
//!
//! Two engines that were fed the same records have the same bytes, whether or not one was restored in between.

use super::{
    domain::Engine,
    market::{Market, Open},
    record::{
        Malformed, Reader, band_of, put_bytes, put_i64, put_text, put_u64, put_uuid, state_code, state_of,
    },
};
use fafnir_matching::{Book, Phase, Tif};
use fafnir_proto::v1::TradingState;
use fafnir_rules::symbol::Symbol;
use sha2::{Digest as _, Sha256};
use std::{collections::HashMap, fmt::Write as _};

/// A SHA-256 of the canonical state.
#[expect(clippy::module_name_repetitions, reason = "others say the hash of what, not of which module")]
pub type StateHash = [u8; 32];

/// The hash in hexadecimal.
pub fn hex(hash: &StateHash) -> String {
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// SHA-256 of bytes.
pub fn sha256(bytes: &[u8]) -> StateHash {
    Sha256::digest(bytes).into()
}

impl Engine {
    /// Appends the canonical state.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for value in [self.seq, self.cmd_seq, self.fact_no, self.order_no] {
            put_u64(out, value);
        }
        put_i64(out, self.time_us);
        put_i64(out, self.day_end_us);
        put_u64(out, self.users.len() as u64);
        for user in &self.users {
            put_uuid(out, *user);
        }
        put_u64(out, self.markets.len() as u64);
        for market in &self.markets {
            encode_market(market, out);
        }
    }

    /// The state hash.
    pub fn hash(&self) -> StateHash {
        let mut bytes = Vec::new();
        self.encode(&mut bytes);
        sha256(&bytes)
    }

    /// The engine that [`Self::encode`] wrote. Whatever the bytes are, this does not panic.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let mut engine = Self::new();
        engine.seq = r.u64()?;
        engine.cmd_seq = r.u64()?;
        engine.fact_no = r.u64()?;
        engine.order_no = r.u64()?;
        engine.time_us = r.i64()?;
        engine.day_end_us = r.i64()?;
        for _ in 0..r.u64()? {
            let user = r.uuid()?;
            engine.users.push(user);
            engine.user_numbers.insert(user, engine.users.len() as u32);
        }
        if engine.user_numbers.len() != engine.users.len() {
            return Err(Malformed("a user is there twice"));
        }
        for number in 0..r.u64()? {
            let number = usize::try_from(number).map_err(|_| Malformed("too many markets"))?;
            let market = decode_market(&mut r, engine.users.len())?;
            for (id, order) in &market.orders {
                if engine.open.insert(order.order, (number, *id)).is_some() {
                    return Err(Malformed("an order is there twice"));
                }
                if *id > engine.order_no {
                    return Err(Malformed("an order's number is beyond the last"));
                }
                if order.tif == Tif::Gtd {
                    engine.gtd.insert((order.expires_us, *id));
                }
            }
            engine.market_numbers.insert(market.symbol.clone(), number);
            engine.markets.push(market);
        }
        if engine.market_numbers.len() != engine.markets.len() {
            return Err(Malformed("a symbol is there twice"));
        }
        r.finish()?;
        Ok(engine)
    }
}

/// Beside the trading state: previous close, band and pause follow. Without it all three are 0.
const HAS_BAND: u8 = 0x80;

fn encode_market(market: &Market, out: &mut Vec<u8>) {
    put_text(out, market.symbol.as_str());
    put_i64(out, market.tick_e4);
    put_i64(out, market.lot_e4);
    let has_band = (market.previous_close_e4, market.band_bps, market.paused_us) != (0, 0, 0);
    out.push(state_code(market.state) | if has_band { HAS_BAND } else { 0 });
    if has_band {
        put_i64(out, market.previous_close_e4);
        put_u64(out, u64::from(market.band_bps));
        put_i64(out, market.paused_us);
    }
    put_u64(out, market.exec_seq);
    put_u64(out, market.trade_no);
    put_i64(out, market.last_quantity_e4);
    let mut book = Vec::new();
    market.book.snapshot(&mut book);
    put_bytes(out, &book);
    // In the canonical order of the book: everything else about an order is in the book's own bytes.
    put_u64(out, market.orders.len() as u64);
    for order in market.book.orders() {
        put_uuid(out, market.orders[&order.id].order);
    }
}

fn decode_market(r: &mut Reader<'_>, users: usize) -> Result<Market, Malformed> {
    let symbol = Symbol::parse(r.text()?).map_err(|_| Malformed("not a symbol"))?;
    let (tick_e4, lot_e4) = (r.i64()?, r.i64()?);
    if tick_e4 < 0 || lot_e4 < 0 {
        return Err(Malformed("tick and lot are not negative"));
    }
    let code = r.u8()?;
    let state = state_of(code & !HAS_BAND)?;
    let (previous_close_e4, band_bps, paused_us) =
        if code & HAS_BAND == 0 { (0, 0, 0) } else { (r.i64()?, band_of(r.u64()?)?, r.i64()?) };
    if (code & HAS_BAND != 0) == ((previous_close_e4, band_bps, paused_us) == (0, 0, 0)) {
        return Err(Malformed("a band that is told is not empty"));
    }
    let (exec_seq, trade_no, last_quantity_e4) = (r.u64()?, r.u64()?, r.i64()?);
    let book = Book::restore(r.bytes()?).map_err(|_| Malformed("a book cannot be restored"))?;
    let can_be_paused = state == TradingState::Open && book.phase() == Phase::Auction && !book.is_halted();
    if paused_us < 0 || (paused_us != 0 && !can_be_paused) {
        return Err(Malformed("only an open symbol is in a volatility pause"));
    }
    if r.u64()? != u64::from(book.open_orders()) {
        return Err(Malformed("the number of orders is not that of the book"));
    }
    let mut orders = HashMap::with_capacity(book.open_orders() as usize);
    for order in book.orders() {
        if order.owner == 0 || order.owner as usize > users {
            return Err(Malformed("an order's owner is unknown"));
        }
        let open = Open {
            order: r.uuid()?,
            owner: order.owner,
            slot: order.slot,
            side: order.side,
            kind: order.kind,
            tif: order.tif,
            filled: order.filled,
            version: order.version.saturating_add(1),
            expires_us: i64::try_from(order.expire).unwrap_or(i64::MAX),
        };
        orders.insert(order.id, open);
    }
    Ok(Market {
        symbol,
        tick_e4,
        lot_e4,
        state,
        previous_close_e4,
        band_bps,
        paused_us,
        exec_seq,
        trade_no,
        last_quantity_e4,
        book,
        orders,
    })
}
