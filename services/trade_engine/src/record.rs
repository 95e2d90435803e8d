//! What the journal holds: one record per input of the engine, in a compact encoding of its own.

use fafnir_matching::{Kind, MAX_BAND_BPS, SelfTrade, Side, Tif};
use fafnir_proto::v1::TradingState;
use fafnir_rules::symbol::Symbol;
use uuid::Uuid;

/// An input of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// From order-service, numbered by it without a gap.
    Command { cmd_seq: u64, symbol: Option<Symbol>, instruction: Instruction },
    /// From stock-service: a listing as it now is.
    Listing(Listing),
    /// The UTC day ended before the record's time.
    DayEnd,
    /// GTD times up to the record's time have come.
    Expire,
    /// The volatility pause of a symbol has lasted long enough: its auction runs.
    Reopen { symbol: Symbol },
}

/// A listing. Tick and lot are fixed by the first record of a symbol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    pub symbol: Symbol,
    pub tick_e4: i64,
    pub lot_e4: i64,
    pub state: TradingState,
    /// Reference price before the first trade; 0 = none.
    pub previous_close_e4: i64,
    /// Width of the volatility band, `1..=MAX_BAND_BPS`; 0 = no band.
    pub band_bps: u32,
}

/// What a command asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    New(NewOrder),
    Cancel {
        order: Uuid,
    },
    Replace(Replace),
    /// Every order of a user, of one symbol or (without one) of all.
    CancelAll {
        user: Uuid,
    },
    SetState {
        state: TradingState,
    },
}

/// A new order as order-service accepted it; prices and quantities at scale 10⁻⁴, 0 = none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewOrder {
    pub order: Uuid,
    pub user: Uuid,
    pub side: Side,
    pub kind: Kind,
    pub tif: Tif,
    pub self_trade: SelfTrade,
    pub post_only: bool,
    pub quantity_e4: i64,
    pub price_e4: i64,
    pub stop_e4: i64,
    /// A price distance, or parts of 10⁻⁴ of a percent, as `kind` says.
    pub trail_e4: i64,
    pub display_e4: i64,
    pub expires_us: i64,
    /// The worst price at which a MARKET or STOP order may trade.
    pub cap_e4: i64,
}

/// A change of an open order; 0 keeps a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replace {
    pub order: Uuid,
    pub quantity_e4: i64,
    pub price_e4: i64,
    pub stop_e4: i64,
    pub cap_e4: i64,
    /// The version that the requester wants to make; echoed in a refusal.
    pub version: u32,
}

/// Why bytes are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

const NEW: u8 = 1;
const CANCEL: u8 = 2;
const REPLACE: u8 = 3;
const CANCEL_ALL: u8 = 4;
const SET_STATE: u8 = 5;
/// A listing without previous close and band; only read.
const PLAIN_LISTING: u8 = 6;
const DAY_END: u8 = 7;
const EXPIRE: u8 = 8;
const LISTING: u8 = 9;
const REOPEN: u8 = 10;

impl Record {
    /// Appends the encoding.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Command { cmd_seq, symbol, instruction } => {
                out.push(match instruction {
                    Instruction::New(_) => NEW,
                    Instruction::Cancel { .. } => CANCEL,
                    Instruction::Replace(_) => REPLACE,
                    Instruction::CancelAll { .. } => CANCEL_ALL,
                    Instruction::SetState { .. } => SET_STATE,
                });
                put_u64(out, *cmd_seq);
                put_text(out, symbol.as_ref().map_or("", Symbol::as_str));
                encode_instruction(out, instruction);
            }
            Self::Listing(listing) => {
                out.push(LISTING);
                put_text(out, listing.symbol.as_str());
                put_i64(out, listing.tick_e4);
                put_i64(out, listing.lot_e4);
                out.push(state_code(listing.state));
                put_i64(out, listing.previous_close_e4);
                put_u64(out, u64::from(listing.band_bps));
            }
            Self::DayEnd => out.push(DAY_END),
            Self::Expire => out.push(EXPIRE),
            Self::Reopen { symbol } => {
                out.push(REOPEN);
                put_text(out, symbol.as_str());
            }
        }
    }

    /// Reads what [`Self::encode`] wrote; nothing may be left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes);
        let tag = r.u8()?;
        let record = match tag {
            NEW | CANCEL | REPLACE | CANCEL_ALL | SET_STATE => {
                let cmd_seq = r.u64()?;
                let symbol = match r.text()? {
                    "" => None,
                    text => Some(symbol_of(text)?),
                };
                Self::Command { cmd_seq, symbol, instruction: decode_instruction(&mut r, tag)? }
            }
            PLAIN_LISTING | LISTING => {
                let (symbol, tick_e4, lot_e4) = (symbol_of(r.text()?)?, r.i64()?, r.i64()?);
                let state = state_of(r.u8()?)?;
                let (previous_close_e4, band_bps) =
                    if tag == LISTING { (r.i64()?, band_of(r.u64()?)?) } else { (0, 0) };
                Self::Listing(Listing { symbol, tick_e4, lot_e4, state, previous_close_e4, band_bps })
            }
            DAY_END => Self::DayEnd,
            EXPIRE => Self::Expire,
            REOPEN => Self::Reopen { symbol: symbol_of(r.text()?)? },
            _ => return Err(Malformed("unknown kind of record")),
        };
        r.finish()?;
        Ok(record)
    }
}

fn encode_instruction(out: &mut Vec<u8>, instruction: &Instruction) {
    match instruction {
        Instruction::New(o) => {
            put_uuid(out, o.order);
            put_uuid(out, o.user);
            out.extend([o.side as u8, o.kind as u8, o.tif as u8, o.self_trade as u8, u8::from(o.post_only)]);
            for value in
                [o.quantity_e4, o.price_e4, o.stop_e4, o.trail_e4, o.display_e4, o.expires_us, o.cap_e4]
            {
                put_i64(out, value);
            }
        }
        Instruction::Cancel { order } => put_uuid(out, *order),
        Instruction::Replace(change) => {
            put_uuid(out, change.order);
            for value in [change.quantity_e4, change.price_e4, change.stop_e4, change.cap_e4] {
                put_i64(out, value);
            }
            put_u64(out, u64::from(change.version));
        }
        Instruction::CancelAll { user } => put_uuid(out, *user),
        Instruction::SetState { state } => out.push(state_code(*state)),
    }
}

fn decode_instruction(r: &mut Reader<'_>, tag: u8) -> Result<Instruction, Malformed> {
    Ok(match tag {
        NEW => Instruction::New(NewOrder {
            order: r.uuid()?,
            user: r.uuid()?,
            side: Side::from_code(r.u8()?).ok_or(Malformed("unknown side"))?,
            kind: Kind::from_code(r.u8()?).ok_or(Malformed("unknown order type"))?,
            tif: Tif::from_code(r.u8()?).ok_or(Malformed("unknown time in force"))?,
            self_trade: SelfTrade::from_code(r.u8()?).ok_or(Malformed("unknown self-trade mode"))?,
            post_only: r.bool()?,
            quantity_e4: r.i64()?,
            price_e4: r.i64()?,
            stop_e4: r.i64()?,
            trail_e4: r.i64()?,
            display_e4: r.i64()?,
            expires_us: r.i64()?,
            cap_e4: r.i64()?,
        }),
        CANCEL => Instruction::Cancel { order: r.uuid()? },
        REPLACE => Instruction::Replace(Replace {
            order: r.uuid()?,
            quantity_e4: r.i64()?,
            price_e4: r.i64()?,
            stop_e4: r.i64()?,
            cap_e4: r.i64()?,
            version: u32::try_from(r.u64()?).map_err(|_| Malformed("version out of range"))?,
        }),
        CANCEL_ALL => Instruction::CancelAll { user: r.uuid()? },
        _ => Instruction::SetState { state: state_of(r.u8()?)? },
    })
}

fn symbol_of(text: &str) -> Result<Symbol, Malformed> {
    Symbol::parse(text).ok().filter(|s| s.as_str() == text).ok_or(Malformed("not a symbol"))
}

/// The width of a volatility band.
pub fn band_of(bps: u64) -> Result<u32, Malformed> {
    u32::try_from(bps)
        .ok()
        .filter(|bps| *bps <= MAX_BAND_BPS)
        .ok_or(Malformed("the width of a band is out of range"))
}

/// The stable number of a trading state.
pub fn state_code(state: TradingState) -> u8 {
    match state {
        TradingState::Unspecified | TradingState::Open => 1,
        TradingState::Halted => 2,
        TradingState::Closed => 3,
        TradingState::PreOpen => 4,
        TradingState::Auction => 5,
    }
}

/// The trading state with this number.
pub fn state_of(code: u8) -> Result<TradingState, Malformed> {
    match code {
        1 => Ok(TradingState::Open),
        2 => Ok(TradingState::Halted),
        3 => Ok(TradingState::Closed),
        4 => Ok(TradingState::PreOpen),
        5 => Ok(TradingState::Auction),
        _ => Err(Malformed("unknown trading state")),
    }
}

/// Appends an unsigned number, seven bits a byte, least first.
pub fn put_u64(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends a signed number, small magnitudes short.
pub fn put_i64(out: &mut Vec<u8>, value: i64) {
    put_u64(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

/// Appends a text with its length.
pub fn put_text(out: &mut Vec<u8>, text: &str) {
    put_bytes(out, text.as_bytes());
}

/// Appends bytes with their length.
pub fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u64(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends an id.
pub fn put_uuid(out: &mut Vec<u8>, id: Uuid) {
    out.extend_from_slice(id.as_bytes());
}

/// Reads what the `put_…` functions wrote.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

const SHORT: Malformed = Malformed("it is cut off");

impl<'a> Reader<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// The next `n` bytes.
    pub fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or(SHORT)?;
        self.rest = rest;
        Ok(head)
    }

    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(self.take(1)?[0])
    }

    pub fn bool(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag is 0 or 1")),
        }
    }

    pub fn u64(&mut self) -> Result<u64, Malformed> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7F);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    pub fn i64(&mut self) -> Result<i64, Malformed> {
        let value = self.u64()?;
        Ok((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let n = usize::try_from(self.u64()?).map_err(|_| SHORT)?;
        self.take(n)
    }

    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub fn uuid(&mut self) -> Result<Uuid, Malformed> {
        Uuid::from_slice(self.take(16)?).map_err(|_| SHORT)
    }

    /// Bytes that are left.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The rest, which ends the reading.
    pub fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Nothing may be left.
    pub fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("something is left over")) }
    }
}
