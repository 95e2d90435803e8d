//! Workload file: a 128-byte header, then n_preload + n_ops 32-byte little-endian records.

use std::io::{self, Read, Write};

pub const MAGIC: u64 = 0x3130_4C57_4641_4600; // "\0FAFWL01"
/// GTC limit (passive, or marketable with the residual resting).
pub const ADD: u8 = 0;
/// Cancel of `old_id` (always live).
pub const CANCEL: u8 = 1;
/// Market, residual canceled.
pub const MARKET: u8 = 2;
/// `old_id` is removed; `id` enters at the back of `price`, never crosses.
pub const REPLACE: u8 = 3;
/// Limit IOC, residual canceled.
pub const IOC: u8 = 4;
/// Prices are `1..MAX_PRICE`.
pub const MAX_PRICE: u32 = 20_000;
/// Records that a file may hold: 4 GiB of them.
const RECORDS_MAX: u64 = 1 << 27;
const SYMBOLS_MAX: u32 = 1 << 16;
const HEADER_LEN: usize = 128;
const RECORD_LEN: usize = 32;

/// One operation.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Msg {
    pub id: u64,
    pub old_id: u64,
    pub price: u32,
    pub qty: u32,
    pub sym: u16,
    pub owner: u16,
    pub op: u8,
    /// 0 buy, 1 sell (side of the live order, for CANCEL and REPLACE too).
    pub side: u8,
    pub pad: u16,
}

const _: () = assert!(size_of::<Msg>() == RECORD_LEN);

/// What the file says about itself; trades, volume and checksum are those of the timed part.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Header {
    pub n_symbols: u32,
    pub max_price: u32,
    pub n_preload: u64,
    pub n_ops: u64,
    pub max_id: u64,
    pub trades: u64,
    pub volume: u64,
    pub checksum: u64,
    pub final_live: u64,
    pub max_live: u64,
}

/// Order-independent trade checksum: wrapping sum of this over all trades.
#[inline(always)]
pub fn mix(maker: u64, taker: u64, price: u32, qty: u32) -> u64 {
    let x = maker.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ taker.wrapping_mul(0xC2B2_AE3D_27D4_EB4F);
    x.wrapping_add(u64::from(price) << 32 | u64::from(qty)).wrapping_mul(0xD6E8_FEB8_6659_FD93)
}

/// A whole flow.
#[derive(Debug)]
pub struct Workload {
    pub h: Header,
    pub msgs: Vec<Msg>,
}

impl Workload {
    /// The untimed beginning.
    pub fn preload(&self) -> &[Msg] {
        &self.msgs[..self.h.n_preload as usize]
    }

    /// The timed operations.
    pub fn ops(&self) -> &[Msg] {
        &self.msgs[self.h.n_preload as usize..]
    }

    /// Writes the file.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let h = &self.h;
        let mut head = [0u8; HEADER_LEN];
        head[0..8].copy_from_slice(&MAGIC.to_le_bytes());
        head[8..12].copy_from_slice(&h.n_symbols.to_le_bytes());
        head[12..16].copy_from_slice(&h.max_price.to_le_bytes());
        let words =
            [h.n_preload, h.n_ops, h.max_id, h.trades, h.volume, h.checksum, h.final_live, h.max_live];
        for (at, word) in words.iter().enumerate() {
            head[16 + at * 8..24 + at * 8].copy_from_slice(&word.to_le_bytes());
        }
        out.write_all(&head)?;
        for m in &self.msgs {
            let mut record = [0u8; RECORD_LEN];
            record[0..8].copy_from_slice(&m.id.to_le_bytes());
            record[8..16].copy_from_slice(&m.old_id.to_le_bytes());
            record[16..20].copy_from_slice(&m.price.to_le_bytes());
            record[20..24].copy_from_slice(&m.qty.to_le_bytes());
            record[24..26].copy_from_slice(&m.sym.to_le_bytes());
            record[26..28].copy_from_slice(&m.owner.to_le_bytes());
            record[28] = m.op;
            record[29] = m.side;
            record[30..32].copy_from_slice(&m.pad.to_le_bytes());
            out.write_all(&record)?;
        }
        Ok(())
    }

    /// Reads a file. Anything that is not a flow is [`io::ErrorKind::InvalidData`] with the rule that is broken.
    pub fn read(input: &mut impl Read) -> io::Result<Workload> {
        let mut head = [0u8; HEADER_LEN];
        input.read_exact(&mut head)?;
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| head[at + i]));
        if word(0) != MAGIC {
            return Err(invalid("not an order flow: the first 8 bytes are not \\0FAFWL01"));
        }
        let h = Header {
            n_symbols: word(8) as u32,
            max_price: (word(8) >> 32) as u32,
            n_preload: word(16),
            n_ops: word(24),
            max_id: word(32),
            trades: word(40),
            volume: word(48),
            checksum: word(56),
            final_live: word(64),
            max_live: word(72),
        };
        let records = h.n_preload.checked_add(h.n_ops).filter(|&n| n <= RECORDS_MAX);
        let Some(records) = records else { return Err(invalid("order flow: more records than 2^27")) };
        if h.n_symbols == 0 || h.n_symbols > SYMBOLS_MAX || h.max_id > 2 * RECORDS_MAX {
            return Err(invalid("order flow: n_symbols is 1 to 65,536, max_id at most 2^28"));
        }
        let mut msgs = Vec::new();
        let mut buffer = vec![0u8; RECORD_LEN * 4096];
        let mut left = records as usize;
        while left > 0 {
            let part = left.min(4096);
            let bytes = &mut buffer[..part * RECORD_LEN];
            input.read_exact(bytes)?;
            for record in bytes.as_chunks::<RECORD_LEN>().0 {
                let m = decode(record);
                if u32::from(m.sym) >= h.n_symbols
                    || m.op > IOC
                    || m.side > 1
                    || m.id.max(m.old_id) > h.max_id
                {
                    return Err(invalid(
                        "order flow: a record names an unknown symbol, operation, side or order",
                    ));
                }
                msgs.push(m);
            }
            left -= part;
        }
        Ok(Workload { h, msgs })
    }
}

fn decode(record: &[u8; RECORD_LEN]) -> Msg {
    let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| record[at + i]));
    let tail = word(24);
    Msg {
        id: word(0),
        old_id: word(8),
        price: word(16) as u32,
        qty: (word(16) >> 32) as u32,
        sym: tail as u16,
        owner: (tail >> 16) as u16,
        op: (tail >> 32) as u8,
        side: (tail >> 40) as u8,
        pad: (tail >> 48) as u16,
    }
}

fn invalid(rule: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, rule)
}

/// What a replay must reproduce.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub struct Stats {
    pub trades: u64,
    pub volume: u64,
    pub checksum: u64,
}

impl Stats {
    /// Counts one trade.
    #[inline(always)]
    pub fn trade(&mut self, maker: u64, taker: u64, price: u32, qty: u32) {
        self.trades += 1;
        self.volume += u64::from(qty);
        self.checksum = self.checksum.wrapping_add(mix(maker, taker, price, qty));
    }
}

/// A book that a flow can be replayed into.
pub trait Engine {
    const NAME: &'static str;
    /// `max_id` is a capacity hint (ids are dense from 1); engines with their own index ignore it.
    fn new(n_symbols: usize, max_id: usize) -> Self;
    fn op(&mut self, m: &Msg);
    fn run(&mut self, ops: &[Msg]) {
        for m in ops {
            self.op(m);
        }
    }
    fn stats(&mut self) -> &mut Stats;
    fn live(&self) -> Option<u64>;
}
