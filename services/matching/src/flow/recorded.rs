//! A recorded order flow (CSV) through the book: how much of what the exchange printed does it print?
//!
//! Columns `time_ms,event,order_id,side,price_ticks,quantity_lots`. The book is fed `new` and `cancel`; `changed` and
//! `filled` (the size left after a fill) correct an order where the book's remaining size differs, because orders that
//! stood before the recording are unknown. `trade` is what the exchange printed.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::{Book, Command, Event, Events, NewOrder, OrderId, Replace, Side, Slot, Ticks, What};

/// What a replay gave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recorded {
    /// Lines of the recording.
    pub lines: u64,
    /// Orders and cancels fed, corrections included.
    pub commands: u64,
    /// Trades of the book.
    pub trades: u64,
    /// Trades of the recording.
    pub recorded: u64,
    /// Trades of the book that equal one of the recording by price and size, each counted once.
    pub equal: u64,
    /// Hash of the book at the end.
    pub state_hash: u64,
}

/// Lines between two words of progress.
const PROGRESS_EVERY: u64 = 4_096;

/// Replays a recording; `progress` hears how many lines are done. The error names the line that is not of the form.
pub fn replay_recorded(csv: &str, progress: &mut dyn FnMut(u64)) -> Result<Recorded, String> {
    let mut desk = Desk::default();
    let mut found = Recorded::default();
    let mut printed: BTreeMap<(Ticks, u64), u64> = BTreeMap::new();
    for (at, line) in csv.lines().enumerate().skip(1).filter(|(_, line)| !line.is_empty()) {
        let row =
            Row::parse(line).ok_or_else(|| format!("line {}: not a recorded event: {line:?}", at + 1))?;
        found.lines += 1;
        if found.lines.is_multiple_of(PROGRESS_EVERY) {
            progress(found.lines);
        }
        if row.event == "trade" {
            found.recorded += 1;
            *printed.entry((row.price, row.qty)).or_default() += 1;
        } else {
            desk.feed(&row).ok_or_else(|| format!("line {}: unknown event {:?}", at + 1, row.event))?;
        }
    }
    for trade in &desk.trades {
        if let Some(left) = printed.get_mut(trade).filter(|left| **left > 0) {
            *left -= 1;
            found.equal += 1;
        }
    }
    found.commands = desk.commands;
    found.trades = desk.trades.len() as u64;
    found.state_hash = desk.book.state_hash();
    Ok(found)
}

struct Row<'a> {
    event: &'a str,
    order: u64,
    side: Side,
    price: Ticks,
    qty: u64,
}

impl<'a> Row<'a> {
    fn parse(line: &'a str) -> Option<Row<'a>> {
        let mut columns = line.trim_end().split(',');
        let mut next = || columns.next();
        next()?;
        let event = next()?;
        let (order, side) = (next()?, next()?);
        let (price, qty) = (Ticks::from_str(next()?).ok()?, u64::from_str(next()?).ok()?);
        let order = if event == "trade" { 0 } else { order.parse().ok()? };
        Some(Row { event, order, side: if side == "S" { Side::Sell } else { Side::Buy }, price, qty })
    }
}

#[derive(Default)]
struct Desk {
    book: Book,
    events: Events,
    /// The book's number and slot of each open order of the recording.
    open: BTreeMap<u64, (OrderId, Slot)>,
    trades: Vec<(Ticks, u64)>,
    next_id: OrderId,
    commands: u64,
}

impl Desk {
    fn feed(&mut self, row: &Row) -> Option<()> {
        let known = self.open.get(&row.order).copied();
        let command = match (row.event, known) {
            ("new", _) => {
                self.next_id += 1;
                Command::New(NewOrder::limit(self.next_id, 0, row.side, row.qty, row.price))
            }
            ("cancel", Some((id, slot))) => Command::Cancel { id, slot },
            ("changed" | "filled", Some((id, slot))) => {
                let Some(order) = self.book.order(id, slot).filter(|order| order.open != row.qty) else {
                    return Some(());
                };
                if row.qty == 0 {
                    Command::Cancel { id, slot }
                } else {
                    Command::Replace(Replace::new(id, slot, order.filled.saturating_add(row.qty), 0))
                }
            }
            ("cancel" | "changed" | "filled", None) => return Some(()),
            _ => return None,
        };
        self.commands += 1;
        self.events.clear();
        self.book.apply(&command, &mut self.events);
        let events = std::mem::take(&mut self.events);
        for event in &events {
            self.hear(event, row.order);
        }
        self.events = events;
        Some(())
    }

    fn hear(&mut self, event: &Event, order: u64) {
        match event.what {
            What::Accepted { id, slot, .. } => {
                self.open.insert(order, (id, slot));
            }
            What::Trade { price, qty, .. } => self.trades.push((price, qty)),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_of_one_trade_gives_that_trade() {
        let csv = "time_ms,event,order_id,side,price_ticks,quantity_lots\n\
            1,new,10,B,100,5\n2,new,11,S,99,3\n2,trade,,,100,3\n2,filled,11,S,99,0\n2,changed,10,B,100,2\n\
            3,changed,10,B,100,1\n4,cancel,7,B,100,1\n5,cancel,10,B,100,1\n";
        let found = replay_recorded(csv, &mut |_| {}).expect("of the form");
        assert_eq!((found.lines, found.trades, found.recorded, found.equal), (8, 1, 1, 1));
        assert_eq!(found.commands, 4);
        assert!(replay_recorded("head\n1,new,x,B,1,1\n", &mut |_| {}).is_err());
    }
}
