//! A recorded day as what has to be done at an exchange so that it happens again: a flow of order events as they stand in
//! `../shared/data`, message files of LOBSTER, or bars.
//!
//! A recording knows orders by its own numbers. What is done is placed, cut down, or taken; whoever plays it keeps the
//! exchange's numbers.

mod bars;
mod flow;
mod lobster;

#[cfg(test)]
mod tests;

use crate::import::{Fault, moment_us};
use fafnir_matching::Side;
use std::collections::BTreeMap;

/// Steps of a recording.
pub const STEPS_MAX: usize = 20_000_000;
/// A tick of a cent, and the finest lot that goes with it.
const CENT_E4: i64 = 100;
const FINEST_LOT_E4: i64 = 1;
const SHARE_E4: i64 = 10_000;
const DAY_US: i64 = 86_400 * 1_000_000;

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// A limit order is placed; one that crosses takes.
    New { order: u64, side: Side, price_e4: i64, quantity_e4: i64 },
    /// So much is left of an order; it is cut down to that where more is, and 0 cancels it.
    Left { order: u64, quantity_e4: i64 },
    /// Somebody takes at a price or better, at once or not at all.
    Take { side: Side, price_e4: i64, quantity_e4: i64 },
}

/// Something done at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step {
    /// Microseconds since the recording began.
    pub at_us: i64,
    pub act: Act,
}

/// A recording, in the order of its times.
#[derive(Debug, PartialEq, Eq)]
pub struct Recording {
    /// Who writes such files.
    pub form: &'static str,
    pub steps: Vec<Step>,
    /// When it began: microseconds since 1970, or since midnight where the file names no day.
    pub began_us: i64,
    /// Price steps and quantity steps that everything fits.
    pub tick_e4: i64,
    pub lot_e4: i64,
    /// Quantities that were rounded down to the lot, and orders of which nothing was left.
    pub rounded: u64,
    /// Rows that say nothing that can be done: trades, hidden orders, orders that nobody placed.
    pub passed: u64,
}

/// Reads a recording; `book` is LOBSTER's order-book file to a message file. The fault names line and column.
pub fn read(text: &str, book: Option<&str>) -> Result<Recording, Fault> {
    let first = text.lines().next().unwrap_or_default();
    let recording = if first.trim_end() == flow::HEADER {
        flow::read(text)?
    } else if lobster::is_message(first) {
        lobster::read(text, book)?
    } else {
        bars::read(text)?
    };
    if recording.steps.is_empty() {
        return Err(Fault { line: 1, column: 0, what: "nothing is done in this recording".to_owned() });
    }
    Ok(recording)
}

impl Recording {
    /// The first price that is named.
    pub fn first_price_e4(&self) -> i64 {
        let price = |act: Act| match act {
            Act::New { price_e4, .. } | Act::Take { price_e4, .. } => Some(price_e4),
            Act::Left { .. } => None,
        };
        self.steps.iter().find_map(|step| price(step.act)).unwrap_or(0)
    }

    /// What both sides of it want in all: money of those who buy, in micros, and shares of those who sell.
    pub fn wanted(&self) -> (i128, i128) {
        self.steps.iter().fold((0, 0), |(cash, shares), step| match step.act {
            Act::New { side, price_e4, quantity_e4, .. } | Act::Take { side, price_e4, quantity_e4 } => {
                match side {
                    Side::Buy => (cash + i128::from(price_e4) * i128::from(quantity_e4) / 100, shares),
                    Side::Sell => (cash, shares + i128::from(quantity_e4)),
                }
            }
            Act::Left { .. } => (cash, shares),
        })
    }

    /// How long it lasts, microseconds.
    pub fn lasts_us(&self) -> i64 {
        self.steps.last().map_or(0, |step| step.at_us)
    }

    /// How long after its beginning a time is: `10:30`, `10:30:00`, or a moment.
    pub fn offset_us(&self, text: &str) -> Result<i64, String> {
        let at_us = match clock_us(text) {
            // Of the day on which it began, or of the next one.
            Some(clock_us) => (clock_us - self.began_us).rem_euclid(DAY_US) + self.began_us,
            None => moment_us(text)
                .ok_or_else(|| format!("{text:?} is no time: 10:30, 10:30:00, or 2026-11-30T10:30:00Z"))?,
        };
        let offset_us = at_us - self.began_us;
        if (0..=self.lasts_us()).contains(&offset_us) {
            return Ok(offset_us);
        }
        let hours = self.lasts_us() / 3_600_000_000;
        Err(format!("{text:?} is not within the recording, which lasts {hours} hours and some minutes"))
    }

    /// Leaves out what was done before a time, and begins with the orders that stood then.
    pub fn begin_at(&mut self, from_us: i64) {
        let cut = self.steps.partition_point(|step| step.at_us < from_us);
        let mut standing: BTreeMap<u64, (usize, Act)> = BTreeMap::new();
        for (number, step) in self.steps[..cut].iter().enumerate() {
            match step.act {
                Act::New { order, .. } => {
                    standing.insert(order, (number, step.act));
                }
                Act::Left { order, quantity_e4: 0 } => {
                    standing.remove(&order);
                }
                Act::Left { order, quantity_e4: left } => {
                    if let Some((_, Act::New { quantity_e4, .. })) = standing.get_mut(&order) {
                        *quantity_e4 = left.min(*quantity_e4);
                    }
                }
                Act::Take { .. } => {}
            }
        }
        // The oldest first: they were there before the others.
        let mut standing: Vec<(usize, Act)> = standing.into_values().collect();
        standing.sort_unstable_by_key(|(number, _)| *number);
        let again = standing.into_iter().map(|(_, act)| Step { at_us: from_us, act });
        self.steps.splice(..cut, again.collect::<Vec<_>>());
        for step in &mut self.steps {
            step.at_us -= from_us;
        }
        self.began_us += from_us;
    }
}

/// A time of day.
fn clock_us(text: &str) -> Option<i64> {
    let parts: Vec<i64> = text.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let (hours, minutes, seconds) = match parts[..] {
        [hours, minutes] => (hours, minutes, 0),
        [hours, minutes, seconds] => (hours, minutes, seconds),
        _ => return None,
    };
    let is_time = (0..24).contains(&hours) && (0..60).contains(&minutes) && (0..60).contains(&seconds);
    is_time.then_some(((hours * 60 + minutes) * 60 + seconds) * 1_000_000)
}

/// A number of a cell.
fn number<T: std::str::FromStr>(
    line: u64,
    column: usize,
    name: &str,
    text: Option<&str>,
) -> Result<T, Fault> {
    let text = text.ok_or_else(|| Fault { line, column, what: format!("no {name}") })?;
    text.trim().parse().map_err(|_| Fault {
        line,
        column,
        what: format!("{name} {text:?} is no such number"),
    })
}

fn too_many(line: u64) -> Fault {
    Fault { line, column: 0, what: format!("a recording has at most {STEPS_MAX} steps") }
}
