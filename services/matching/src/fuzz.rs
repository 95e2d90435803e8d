//! Targets for fuzzing: whatever the bytes, nothing panics and no invariant of the rules breaks.

use std::collections::BTreeMap;

use crate::flow::wl::{Engine as _, Workload};
use crate::flow::{FafnirEngine, replay, replay_recorded};
use crate::{
    Book, Command, Event, Events, Kind, MAX_PRICE, MAX_QTY, NewOrder, OrderId, Phase, Replace, SelfTrade,
    Side, Slot, Tif, What,
};

/// Order numbers of a flow that is replayed: the table of slots is made for all of them.
const FLOW_IDS_MAX: u64 = 1 << 16;
/// Commands that one input may hold.
const COMMANDS_MAX: usize = 4_096;

/// Reads the bytes as commands, applies them, and checks the invariants after each.
///
/// # Panics
/// If an invariant is broken: that is the finding.
pub fn fuzz_commands(data: &[u8]) {
    fuzz_commands_with(data, &mut |_, _, _| {});
}

/// [`fuzz_commands`], and the book, the command and its events go to `check` after each command.
pub fn fuzz_commands_with(data: &[u8], check: &mut dyn FnMut(&Book, &Command, &[Event])) {
    let mut input = Input { rest: data };
    let (mut book, mut events) = (Book::new(), Events::new());
    let mut slots: BTreeMap<OrderId, Slot> = BTreeMap::new();
    let mut seq = 0;
    for _ in 0..COMMANDS_MAX {
        let Some(command) = input.command(&slots, book.last_id()) else { break };
        events.clear();
        book.apply(&command, &mut events);
        assert!(!events.as_slice().is_empty(), "every command yields an event");
        for event in &events {
            seq += 1;
            assert_eq!(event.seq, seq, "sequences have no gap");
            keep_slots(&mut slots, &event.what);
        }
        assert_eq!(book.open_orders() as usize, slots.len(), "events tell which orders are open");
        if let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask()) {
            assert!(bid < ask || book.phase().is_call(), "a book is never crossed or locked");
        }
        check(&book, &command, events.as_slice());
    }
    let mut bytes = Vec::new();
    book.snapshot(&mut bytes);
    #[expect(clippy::expect_used, reason = "a target: that it panics is its finding")]
    let copy = Book::restore(&bytes).expect("invariant: a book's own snapshot is a book");
    assert_eq!(copy.state_hash(), book.state_hash(), "a restored book is the same book");
}

/// Reads the bytes as a snapshot: it is refused, or it is a book that gives the same bytes.
pub fn fuzz_snapshot(data: &[u8]) {
    if let Ok(book) = Book::restore(data) {
        let mut bytes = Vec::new();
        book.snapshot(&mut bytes);
        assert_eq!(bytes, data, "a snapshot is canonical");
    }
}

/// Reads the bytes as an order flow, binary and recorded: it is refused, or it replays.
pub fn fuzz_flow(data: &[u8]) {
    if let Ok(flow) = Workload::read(&mut &data[..])
        && flow.h.max_id <= FLOW_IDS_MAX
    {
        let (mut engine, _) = replay::<FafnirEngine>(&flow);
        assert!(engine.stats().trades <= engine.books().iter().map(Book::seq).sum());
    }
    let mut told = 0;
    if let Ok(found) = replay_recorded(&String::from_utf8_lossy(data), &mut |lines| told = lines) {
        assert!(told <= found.lines && found.equal <= found.recorded.min(found.trades));
    }
}

fn keep_slots(slots: &mut BTreeMap<OrderId, Slot>, what: &What) {
    match *what {
        What::Accepted { id, slot, .. } if slot != Slot::NONE => {
            slots.insert(id, slot);
        }
        What::Replaced { old, id, slot, .. } => {
            slots.remove(&old);
            slots.insert(id, slot);
        }
        What::Trade { maker, taker, maker_open, taker_open, .. } => {
            for (id, open) in [(maker, maker_open), (taker, taker_open)] {
                if open == 0 {
                    slots.remove(&id);
                }
            }
        }
        What::Canceled { id, .. } | What::Expired { id, .. } => {
            slots.remove(&id);
        }
        _ => {}
    }
}

struct Input<'a> {
    rest: &'a [u8],
}

impl Input<'_> {
    fn byte(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// Mostly small numbers, sometimes the ends of a range.
    fn number(&mut self, max: u64) -> Option<u64> {
        Some(match self.byte()? {
            250 => 0,
            251 => max,
            252 => max.saturating_add(1),
            253 => u64::from(self.byte()?) << 8 | u64::from(self.byte()?),
            byte => u64::from(byte % 32),
        })
    }

    fn price(&mut self) -> Option<u32> {
        let number = self.number(u64::from(MAX_PRICE))?;
        Some(if (1..32).contains(&number) { 1_000 + number as u32 } else { number as u32 })
    }

    fn target(&mut self, slots: &BTreeMap<OrderId, Slot>) -> Option<(OrderId, Slot)> {
        let byte = usize::from(self.byte()?);
        let open = slots.iter().nth(byte % slots.len().max(1)).map(|(&id, &slot)| (id, slot));
        Some(open.filter(|_| byte != 255).unwrap_or((1 << 60, Slot(2_048 + byte as u32))))
    }

    fn command(&mut self, slots: &BTreeMap<OrderId, Slot>, last_id: OrderId) -> Option<Command> {
        let kind = self.byte()?;
        Some(match kind % 16 {
            0..=7 => {
                let flags = self.byte()?;
                let modes = self.byte()?;
                let side = Side::from_code(flags & 1)?;
                let (qty, price) = (self.number(MAX_QTY)?, self.price()?);
                let mut order =
                    NewOrder::limit(last_id.saturating_add(1), u32::from(flags >> 1 & 3), side, qty, price);
                order.post_only = flags & 0x18 == 0x18;
                order.tif = Tif::from_code(modes % 8).unwrap_or(Tif::Gtc);
                order.self_trade = SelfTrade::from_code(modes >> 3 & 3)?;
                order.expire = u64::from(modes);
                order.kind = Kind::from_code(kind >> 4).unwrap_or(Kind::Limit);
                if flags & 0x60 == 0x60 {
                    order.display = self.number(MAX_QTY)?;
                }
                if order.kind.is_stop() {
                    order.stop = self.price()?;
                    order.trail = self.number(10_000)? as u32;
                }
                Command::New(order)
            }
            8 | 9 => {
                let (id, slot) = self.target(slots)?;
                Command::Cancel { id, slot }
            }
            10 | 11 => {
                let (id, slot) = self.target(slots)?;
                let flags = self.byte()?;
                let mut replace = Replace::new(id, slot, 0, 0);
                if flags & 1 != 0 {
                    replace.qty = self.number(MAX_QTY)?;
                }
                if flags & 2 != 0 {
                    replace.price = self.price()?;
                }
                if flags & 4 != 0 {
                    replace.stop = self.price()?;
                }
                if flags & 8 != 0 {
                    replace.display = self.number(MAX_QTY)?;
                }
                if flags & 16 != 0 {
                    replace.new_id = last_id.saturating_add(u64::from(flags >> 5));
                } else if flags & 32 != 0 {
                    replace.trail = self.number(10_000)? as u32;
                }
                Command::Replace(replace)
            }
            12 => Command::CancelAll { owner: u32::from(self.byte()? % 8) },
            13 if kind & 16 == 0 => Command::Expire { now: u64::from(self.byte()?) },
            13 => Command::DayEnd { now: u64::from(self.byte()?) },
            14 if kind & 16 == 0 => Command::Resume,
            14 if kind & 32 == 0 => Command::Halt,
            14 => Command::SetBand { reference: self.price()?, bps: u32::from(self.byte()?) },
            _ => Command::SetPhase { phase: Phase::from_code((kind >> 4) % 5)? },
        })
    }
}
