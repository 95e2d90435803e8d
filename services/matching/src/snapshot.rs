//! The canonical state of a book as bytes: to hash, to store, to come back from.
//!
//! Two books that were fed the same commands have the same bytes, whether or not one of them was restored in between.

use crate::book::{Band, Book, mask};
use crate::command::{Lots, MAX_ORDERS, MAX_PARTS, MAX_PRICE, MAX_QTY, Owner, Phase, SelfTrade, Side, Ticks};
use crate::order::*;
use std::collections::BTreeMap;

const MAGIC: u64 = 0x3330_4b4f_4f42_4146; // "FABOOK03"
/// Before there were orders for one auction.
const MAGIC_BEFORE: u64 = 0x3230_4b4f_4f42_4146; // "FABOOK02"

/// Counters of events, trades and stops stay below this for some thousand years.
const COUNT_MAX: u64 = 1 << 62;

/// Why bytes are not a book.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// Shorter than it says, or longer.
    Length,
    /// Not a book, or one of another version.
    Magic,
    /// The checksum does not match.
    Checksum,
    /// The contents cannot be a book; the word names the rule that is broken.
    Invalid(&'static str),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Error::Length => write!(f, "snapshot of a book: wrong length"),
            Error::Magic => write!(f, "snapshot of a book: unknown format"),
            Error::Checksum => write!(f, "snapshot of a book: checksum mismatch"),
            Error::Invalid(rule) => write!(f, "snapshot of a book: {rule}"),
        }
    }
}

impl std::error::Error for Error {}

impl Book {
    /// Appends the canonical state, checksum last.
    pub fn snapshot(&self, out: &mut Vec<u8>) {
        debug_assert!(
            self.reached.is_empty(),
            "invariant: no elected stop waits between two steps of the caller"
        );
        let start = out.len();
        put64(out, MAGIC);
        for word in [self.seq, self.last_id, self.trades, self.volume, self.now, self.stops_entered] {
            put64(out, word);
        }
        put32(out, self.last);
        out.push(u8::from(self.halted));
        out.push(self.phase as u8);
        put32(out, self.band.reference);
        put32(out, self.band.bps);
        for side in [Side::Buy, Side::Sell] {
            let count_at = out.len();
            put32(out, 0);
            let mut count = 0u32;
            for slot in self.resting_slots(side) {
                self.write_order(slot, out);
                count += 1;
            }
            out[count_at..count_at + 4].copy_from_slice(&count.to_le_bytes());
        }
        for stops in &self.stops {
            put32(out, stops.len() as u32);
            for &slot in stops.values() {
                self.write_order(slot, out);
            }
        }
        for side in [Side::Buy, Side::Sell] {
            put32(out, self.on_open_slots(side).count() as u32);
            for slot in self.on_open_slots(side) {
                self.write_order(slot, out);
            }
        }
        put32(out, self.on_close.len() as u32);
        for &slot in self.on_close.values() {
            self.write_order(slot, out);
        }
        let sum = fnv(&out[start..]);
        put64(out, sum);
    }

    /// A checksum of the canonical state (FNV-1a over [`Book::snapshot`]); for more than accidents hash the bytes.
    pub fn state_hash(&self) -> u64 {
        let mut bytes = Vec::new();
        self.snapshot(&mut bytes);
        fnv(&bytes)
    }

    fn write_order(&self, slot: u32, out: &mut Vec<u8>) {
        let order = &self.slab.hot[slot as usize];
        let cold = self.slab.cold(slot);
        let filled = self.slab.filled(slot);
        put64(out, order.id);
        put64(out, order.shown());
        put32(out, order.owner);
        put32(out, self.price_of(slot));
        let flags = order.flags() & !(COLD | PARTLY);
        if *cold == Cold::DEFAULT && filled == 0 {
            out.push(flags);
            return;
        }
        out.push(flags | COLD);
        for word in [filled, cold.hidden, cold.display, cold.expire, cold.entered] {
            put64(out, word);
        }
        put32(out, cold.version);
        out.push(cold.self_trade as u8);
        out.push(cold.stop.kind as u8);
        put32(out, cold.stop.price);
        put32(out, cold.stop.trail);
        out.push(u8::from(cold.closing));
    }

    /// The book that [`Book::snapshot`] wrote. Whatever the bytes are, this neither panics nor returns a book that
    /// breaks a rule. Orders get new slots: ask [`Book::orders`].
    pub fn restore(bytes: &[u8]) -> Result<Book, Error> {
        let body_len = bytes.len().checked_sub(8).ok_or(Error::Length)?;
        let (body, sum) = bytes.split_at(body_len);
        let mut reader = Reader { rest: body, before: false };
        match reader.u64()? {
            MAGIC => {}
            MAGIC_BEFORE => reader.before = true,
            _ => return Err(Error::Magic),
        }
        if fnv(body).to_le_bytes() != sum {
            return Err(Error::Checksum);
        }
        let mut book = Book::new();
        book.seq = reader.u64()?;
        book.last_id = reader.u64()?;
        book.trades = reader.u64()?;
        book.volume = reader.u64()?;
        book.now = reader.u64()?;
        book.stops_entered = reader.u64()?;
        book.last = reader.u32()?;
        book.halted = match reader.u8()? {
            0 => false,
            1 => true,
            _ => return Err(Error::Invalid("halted is 0 or 1")),
        };
        book.phase = Phase::from_code(reader.u8()?).ok_or(Error::Invalid("phase is 0 to 4"))?;
        book.open_or_close();
        let (reference, bps) = (reader.u32()?, reader.u32()?);
        if !Book::is_band(reference, bps) {
            return Err(Error::Invalid(
                "reference and width of a band are within their range, and a width has a reference",
            ));
        }
        book.band = Band::new(reference, bps);
        if book.seq.max(book.trades).max(book.stops_entered) > COUNT_MAX {
            return Err(Error::Invalid("counters within their range"));
        }
        if book.last > MAX_PRICE {
            return Err(Error::Invalid("last price within its range"));
        }
        for side in [Side::Buy, Side::Sell] {
            book.read_resting(&mut reader, side)?;
        }
        if let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask())
            && bid >= ask
            && !book.phase.is_call()
        {
            return Err(Error::Invalid("bids lie below asks"));
        }
        for side in [Side::Buy, Side::Sell] {
            book.read_stops(&mut reader, side)?;
        }
        for side in [Side::Buy, Side::Sell] {
            book.read_on_open(&mut reader, side)?;
        }
        if !reader.before {
            book.read_on_close(&mut reader)?;
        }
        if !reader.rest.is_empty() {
            return Err(Error::Length);
        }
        let mut ids: Vec<u64> = book.orders().map(|order| order.id).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Error::Invalid("order numbers are unique"));
        }
        if book.own_meet() {
            return Err(Error::Invalid("an owner's bids and asks do not meet"));
        }
        Ok(book)
    }

    /// True where an owner's bid and ask would trade with each other. In a call only: elsewhere none meet.
    fn own_meet(&self) -> bool {
        let mut asks: BTreeMap<Owner, Ticks> = BTreeMap::new();
        for ask in self.resting(Side::Sell).chain(self.waiting(Side::Sell)).filter(|ask| ask.owner != 0) {
            let lowest = asks.entry(ask.owner).or_insert(ask.price);
            *lowest = ask.price.min(*lowest);
        }
        let mut bids = self.resting(Side::Buy).chain(self.waiting(Side::Buy));
        self.phase.is_call() && bids.any(|bid| asks.get(&bid.owner).is_some_and(|&ask| ask <= bid.price))
    }

    /// A side's resting orders, each put into its level.
    fn read_resting(&mut self, reader: &mut Reader, side: Side) -> Result<(), Error> {
        let count = reader.u32()?;
        let mut worst = u32::MAX;
        for _ in 0..count {
            let slot = self.read_order(reader, Some(side), StopKind::None)?;
            let key = self.slab.hot[slot as usize].place ^ mask(side);
            if key > worst {
                return Err(Error::Invalid("resting orders come best price first"));
            }
            worst = key;
            self.link(slot);
            let order = &self.slab.hot[slot as usize];
            if order.is_for_auction() {
                if !self.phase.is_call() {
                    return Err(Error::Invalid("orders for one auction rest in a call"));
                }
                self.one_auction.insert(order.id, slot);
            }
        }
        Ok(())
    }

    /// A side's held stops, each put among those that wait.
    fn read_stops(&mut self, reader: &mut Reader, side: Side) -> Result<(), Error> {
        let count = reader.u32()?;
        let mut before = (0, 0);
        for _ in 0..count {
            let slot = self.read_order(reader, Some(side), StopKind::Market)?;
            let cold = *self.slab.cold(slot);
            let place = (cold.stop.price ^ mask(side), cold.entered);
            if place <= before || cold.entered == 0 || cold.entered > self.stops_entered {
                return Err(Error::Invalid("stops come in trigger order"));
            }
            before = place;
            self.queue_stop(slot);
            if cold.stop.kind.is_trailing() {
                self.trailing[side as usize].push(slot);
            }
        }
        Ok(())
    }

    /// A side's market orders that wait for the auction.
    fn read_on_open(&mut self, reader: &mut Reader, side: Side) -> Result<(), Error> {
        let count = reader.u32()?;
        if count > 0 && !self.phase.is_call() {
            return Err(Error::Invalid("market orders wait in a call"));
        }
        let mut before = 0;
        for _ in 0..count {
            let slot = self.read_order(reader, Some(side), StopKind::OnOpen)?;
            let entered = self.slab.cold(slot).entered;
            if entered <= before || entered > self.stops_entered {
                return Err(Error::Invalid("market orders come in the order of their entry"));
            }
            before = entered;
            self.on_open.insert((side, entered), slot);
        }
        Ok(())
    }

    /// The orders that wait for the closing call.
    fn read_on_close(&mut self, reader: &mut Reader) -> Result<(), Error> {
        let count = reader.u32()?;
        if count > 0 && self.phase == Phase::Closing {
            return Err(Error::Invalid("in the closing call nobody waits for it"));
        }
        let mut before = 0;
        for _ in 0..count {
            let slot = self.read_order(reader, None, StopKind::LimitOnClose)?;
            let entered = self.slab.cold(slot).entered;
            if entered <= before || entered > self.stops_entered {
                return Err(Error::Invalid("orders for the closing call come in the order of their entry"));
            }
            before = entered;
            self.on_close.insert(entered, slot);
        }
        Ok(())
    }

    /// An order that rests (`None`), a market order that waits (`OnOpen`), one for the closing call (`LimitOnClose`), or
    /// any held stop.
    fn read_order(&mut self, reader: &mut Reader, side: Option<Side>, kind: StopKind) -> Result<u32, Error> {
        let (id, shown) = (reader.u64()?, reader.u64()?);
        let (owner, price) = (reader.u32()?, reader.u32()?);
        let flags = reader.u8()?;
        let (mut cold, mut filled) = (Cold::DEFAULT, 0);
        if flags & COLD != 0 {
            (cold, filled) = reader.cold()?;
            if cold == Cold::DEFAULT && filled == 0 {
                return Err(Error::Invalid("a cold record says something"));
            }
        }
        let (held, on_open) = (kind != StopKind::None, cold.stop.kind == StopKind::OnOpen);
        let (stop, one_auction) = (cold.stop.kind.is_stop(), flags & ONE_AUCTION == ONE_AUCTION);
        let rule = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(Error::Invalid(rule)) };
        rule(id != 0 && id <= self.last_id && id != LEVEL, "order numbers are up to the last one")?;
        rule((1..=MAX_QTY).contains(&shown), "visible quantity within its range")?;
        rule(cold.hidden <= MAX_QTY && filled <= MAX_QTY, "quantities within their range")?;
        rule(cold.display <= MAX_QTY, "display quantity within its range")?;
        rule(price <= MAX_PRICE && (price != 0 || cold.stop.kind.is_trailing()), "price within its range")?;
        let on_side = |side: Side| (flags & SELL != 0) == (side == Side::Sell);
        rule(side.is_none_or(on_side), "orders are on their side")?;
        rule((flags & HELD != 0) == held, "held orders are stops")?;
        rule((cold.stop.kind != StopKind::None) == held, "stops are held")?;
        rule(on_open == (kind == StopKind::OnOpen), "market orders are apart from stops")?;
        of_one_auction(flags, &cold, kind)?;
        rule(!on_open || flags & (POST_ONLY | ICEBERG) == 0, "market orders wait without extras")?;
        rule(!on_open || cold.display == 0, "market orders wait without extras")?;
        rule(held == (cold.entered != 0), "held orders have a place")?;
        rule(!stop || (1..=MAX_PRICE).contains(&cold.stop.price), "stop price within its range")?;
        rule(stop || (cold.stop.price == 0 && cold.stop.trail == 0), "only stops have a stop price")?;
        rule(flags & PARTLY == 0, "known flags")?;
        rule((flags & GTD != 0 && !one_auction) == (cold.expire != 0), "GTD orders have a time")?;
        rule(cold.hidden == 0 || flags & ICEBERG != 0, "only icebergs hide")?;
        let parts = |open: u64| open.div_ceil(cold.display.max(1));
        rule(
            flags & ICEBERG == 0 || (cold.display != 0 && parts(shown + cold.hidden) <= MAX_PARTS),
            "icebergs have a display quantity",
        )?;
        rule(self.slab.live < MAX_ORDERS, "not more orders than fit")?;
        let slot = self.slab.insert(Order::new(id, owner, price, shown, flags & !COLD));
        if flags & COLD != 0 {
            if cold != Cold::DEFAULT {
                *self.slab.cold_mut(slot) = cold;
            }
            if filled != 0 {
                self.slab.add_filled(slot, filled);
            }
        }
        if flags & GTD != 0 && !one_auction {
            self.gtd.insert((cold.expire, id, slot));
        }
        debug_assert_ne!(slot, NIL);
        Ok(slot)
    }
}

/// What holds of an order for one auction, and of one that waits for the closing call.
fn of_one_auction(flags: u8, cold: &Cold, kind: StopKind) -> Result<(), Error> {
    let one_auction = flags & ONE_AUCTION == ONE_AUCTION;
    let rule = |holds: bool, rule: &'static str| if holds { Ok(()) } else { Err(Error::Invalid(rule)) };
    let on_close = cold.stop.kind.is_on_close();
    rule(on_close == (kind == StopKind::LimitOnClose), "orders for the closing call are apart")?;
    rule(!on_close || (one_auction && cold.closing), "orders for the closing call are for it only")?;
    rule(!cold.closing || one_auction, "only orders of one auction are for the closing one")?;
    rule(!one_auction || flags & (POST_ONLY | ICEBERG) == 0, "orders of one auction have no extras")?;
    rule(!one_auction || cold.display == 0, "orders of one auction have no extras")?;
    rule(!one_auction || !cold.stop.kind.is_stop(), "stops are for no auction alone")
}

struct Reader<'a> {
    rest: &'a [u8],
    /// It is of [`MAGIC_BEFORE`].
    before: bool,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Error::Length)?;
        self.rest = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, Error> {
        self.take::<1>().map(|bytes| bytes[0])
    }

    /// What is rarely needed of an order, and its filled lots.
    fn cold(&mut self) -> Result<(Cold, Lots), Error> {
        let mut cold = Cold::DEFAULT;
        let filled = self.u64()?;
        cold.hidden = self.u64()?;
        cold.display = self.u64()?;
        cold.expire = self.u64()?;
        cold.entered = self.u64()?;
        cold.version = self.u32()?;
        cold.self_trade =
            SelfTrade::from_code(self.u8()?).ok_or(Error::Invalid("self-trade mode is 0 to 3"))?;
        cold.stop.kind = match self.u8()? {
            0 => StopKind::None,
            1 => StopKind::Market,
            2 => StopKind::Limit,
            3 => StopKind::TrailingAmount,
            4 => StopKind::TrailingPercent,
            5 => StopKind::OnOpen,
            6 => StopKind::MarketOnClose,
            7 => StopKind::LimitOnClose,
            _ => return Err(Error::Invalid("kind of stop is 0 to 7")),
        };
        cold.stop.price = self.u32()?;
        cold.stop.trail = self.u32()?;
        cold.closing = match self.u8_since()? {
            0 => false,
            1 => true,
            _ => return Err(Error::Invalid("for the closing auction is 0 or 1")),
        };
        Ok((cold, filled))
    }

    /// What is there since [`MAGIC`], 0 before.
    fn u8_since(&mut self) -> Result<u8, Error> {
        if self.before { Ok(0) } else { self.u8() }
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_le_bytes)
    }
}

fn put32(out: &mut Vec<u8>, word: u32) {
    out.extend_from_slice(&word.to_le_bytes());
}

fn put64(out: &mut Vec<u8>, word: u64) {
    out.extend_from_slice(&word.to_le_bytes());
}

fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, &byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}
