//! Message files of LOBSTER (lobsterdata.com): time in seconds after midnight, type, order, size, price × 10,000, direction of
//! the resting order (1 buys). Types: 1 new, 2 partly deleted, 3 deleted, 4 executed, 5 a hidden order executed, 6 cross
//! trade, 7 halt. A row of the order-book file is the book after the same row of messages.

use super::{Act, CENT_E4, Recording, SHARE_E4, STEPS_MAX, Step, number, too_many};
use crate::import::Fault;
use fafnir_matching::Side;
use std::collections::HashMap;

const COLUMNS: usize = 6;
/// Orders that stood before the recording are one a level; they have the highest numbers.
const STANDING: u64 = u64::MAX;
/// Prices of levels that there are not: ±9,999,999,999.
const NO_PRICE: i64 = 9_999_999_999;

/// Whether a file's first line is a message.
pub fn is_message(first: &str) -> bool {
    let cells: Vec<&str> = first.trim_end().split(',').collect();
    // Newer files have a seventh column.
    matches!(cells.len(), COLUMNS | 7)
        && cells[0].parse::<f64>().is_ok_and(|s| (0.0..86_400.0).contains(&s))
        && cells[1].parse::<u8>().is_ok_and(|kind| (1..=7).contains(&kind))
        && cells[..COLUMNS].iter().skip(2).all(|cell| cell.parse::<i64>().is_ok())
}

/// Microseconds of `34200.004241176`.
fn time_us(line: u64, text: Option<&str>) -> Result<i64, Fault> {
    let text = text.unwrap_or_default().trim();
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits: String = fraction.chars().chain("000000".chars()).take(6).collect();
    let fault = || Fault { line, column: 1, what: format!("time {text:?} is no second of a day") };
    let seconds: i64 = whole.parse().map_err(|_| fault())?;
    let micros: i64 = digits.parse().map_err(|_| fault())?;
    if (0..86_400).contains(&seconds) { Ok(seconds * 1_000_000 + micros) } else { Err(fault()) }
}

#[derive(Default)]
struct Book {
    /// What is left of each order.
    open: HashMap<u64, (Side, i64, i64)>,
    /// The order that stands for a level from before the recording.
    levels: HashMap<(Side, i64), u64>,
}

impl Book {
    /// The order that is meant; one that nobody placed is part of its level.
    fn find(&self, order: u64, side: Side, price_e4: i64) -> Option<u64> {
        if self.open.contains_key(&order) {
            return Some(order);
        }
        self.levels.get(&(side, price_e4)).copied()
    }

    /// Takes from an order, and answers what is left of it.
    fn cut(&mut self, order: u64, quantity_e4: i64) -> i64 {
        let Some((_, _, left)) = self.open.get_mut(&order) else { return 0 };
        *left = (*left - quantity_e4).max(0);
        let left = *left;
        if left == 0
            && let Some((side, price_e4, _)) = self.open.remove(&order)
            && self.levels.get(&(side, price_e4)) == Some(&order)
        {
            self.levels.remove(&(side, price_e4));
        }
        left
    }
}

pub fn read(text: &str, book: Option<&str>) -> Result<Recording, Fault> {
    let mut recording = Recording {
        form: "LOBSTER messages",
        steps: Vec::new(),
        began_us: 0,
        tick_e4: CENT_E4,
        lot_e4: SHARE_E4,
        rounded: 0,
        passed: 0,
    };
    let mut known = Book::default();
    let standing = book.and_then(|book| book.lines().next());
    let mut last_us = None;
    for (line, row) in (1..).zip(text.lines()).filter(|(_, row)| !row.trim().is_empty()) {
        let mut cells = row.trim_end().split(',');
        let at_us = time_us(line, cells.next())?;
        if last_us.is_some_and(|last| at_us < last) {
            return Err(Fault {
                line,
                column: 1,
                what: "the time is before that of the line before".to_owned(),
            });
        }
        if last_us.is_none() {
            recording.began_us = at_us;
        }
        last_us = Some(at_us);
        if let (Some(levels), 1) = (standing, line) {
            // The book after the first message: that one is in it.
            opening(levels, &mut known, &mut recording)?;
            continue;
        }
        let message = Message::parse(line, cells)?;
        let steps = message.steps(&mut known);
        recording.passed += u64::from(steps.is_empty());
        if recording.steps.len() + steps.len() > STEPS_MAX {
            return Err(too_many(line));
        }
        let at_us = at_us - recording.began_us;
        recording.steps.extend(steps.into_iter().map(|act| Step { at_us, act }));
    }
    if recording.steps.iter().any(|s| matches!(s.act, Act::New { price_e4, .. } if price_e4 % CENT_E4 != 0)) {
        recording.tick_e4 = 1;
    }
    Ok(recording)
}

/// The levels of an order-book row: ask price, ask size, bid price, bid size, and so on.
fn opening(row: &str, known: &mut Book, recording: &mut Recording) -> Result<(), Fault> {
    let cells: Vec<&str> = row.trim_end().split(',').collect();
    for (level, pair) in cells.chunks(2).enumerate() {
        let cell =
            |n: usize| number::<i64>(1, level * 2 + n + 1, "of the order-book file", pair.get(n).copied());
        let (price_e4, size) = (cell(0)?, cell(1)?);
        if price_e4.abs() >= NO_PRICE || price_e4 <= 0 || size <= 0 {
            continue;
        }
        let side = if level % 2 == 0 { Side::Sell } else { Side::Buy };
        let (order, quantity_e4) = (STANDING - level as u64, size.saturating_mul(SHARE_E4));
        known.open.insert(order, (side, price_e4, quantity_e4));
        known.levels.insert((side, price_e4), order);
        recording.steps.push(Step { at_us: 0, act: Act::New { order, side, price_e4, quantity_e4 } });
    }
    Ok(())
}

struct Message {
    kind: u8,
    order: u64,
    side: Side,
    price_e4: i64,
    quantity_e4: i64,
}

impl Message {
    fn parse<'a>(line: u64, mut cells: impl Iterator<Item = &'a str>) -> Result<Self, Fault> {
        let kind: u8 = number(line, 2, "type", cells.next())?;
        let order: u64 = number(line, 3, "order", cells.next())?;
        let size: i64 = number(line, 4, "size", cells.next())?;
        let price_e4: i64 = number(line, 5, "price", cells.next())?;
        let direction: i8 = number(line, 6, "direction", cells.next())?;
        let fault = |column, what: String| Err(Fault { line, column, what });
        if !(1..=7).contains(&kind) {
            return fault(2, format!("type {kind} is none of 1 to 7"));
        }
        let side = match direction {
            1 => Side::Buy,
            -1 => Side::Sell,
            other => return fault(6, format!("direction {other} is neither 1 nor -1")),
        };
        let quantity_e4 = size.checked_mul(SHARE_E4).filter(|quantity| *quantity >= 0);
        let Some(quantity_e4) = quantity_e4 else { return fault(4, format!("size {size} is out of range")) };
        if kind <= 4 && price_e4 <= 0 {
            return fault(5, format!("price {price_e4} is not above 0"));
        }
        Ok(Self { kind, order, side, price_e4, quantity_e4 })
    }

    fn steps(&self, known: &mut Book) -> Vec<Act> {
        let &Self { kind, order, side, price_e4, quantity_e4 } = self;
        match kind {
            1 if quantity_e4 > 0 && !known.open.contains_key(&order) => {
                known.open.insert(order, (side, price_e4, quantity_e4));
                vec![Act::New { order, side, price_e4, quantity_e4 }]
            }
            2..=4 => {
                let Some(order) = known.find(order, side, price_e4) else { return Vec::new() };
                let whole = if kind == 3 && order == self.order { i64::MAX } else { quantity_e4 };
                let left = known.cut(order, whole);
                let left = Act::Left { order, quantity_e4: left };
                if kind != 4 {
                    return vec![left];
                }
                // Whoever took it, and what must be left of it, whomever it met here.
                vec![Act::Take { side: side.opposite(), price_e4, quantity_e4 }, left]
            }
            _ => Vec::new(),
        }
    }
}
