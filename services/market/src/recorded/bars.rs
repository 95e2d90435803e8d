//! Bars as a market: each is walked from its open over its extremes to its close, with quotes around, and its volume is traded
//! on the way.

use super::{Act, CENT_E4, FINEST_LOT_E4, Recording, SHARE_E4, STEPS_MAX, Step, too_many};
use crate::import::{self, Bar, Fault, How};
use fafnir_matching::Side;

/// Points of a bar at which something is traded.
const POINTS: usize = 4;
/// Quotes a side, and how far one is from the next: a part of the price.
const LEVELS: i64 = 5;
const APART: i64 = 5_000;
/// A quote is this part of what is traded at a point.
const QUOTE_PART: i64 = 2;
/// A bar of a day is a session long.
const SESSION_US: i64 = 23_400 * 1_000_000;
const MINUTE_US: i64 = 60_000_000;

pub fn read(text: &str) -> Result<Recording, Fault> {
    let how = How { round: true, lot_e4: FINEST_LOT_E4, ..How::default() };
    let read = import::read(text, &how).map_err(|faults| {
        faults.into_iter().next().unwrap_or(Fault { line: 1, column: 0, what: "is not read".to_owned() })
    })?;
    let prices = |bar: &Bar| [bar.open_e4, bar.high_e4, bar.low_e4, bar.close_e4];
    let tick_e4 = [CENT_E4, 10, 1]
        .into_iter()
        .find(|tick| read.bars.iter().flat_map(prices).all(|price| price % tick == 0))
        .unwrap_or(1);
    let is_whole = read.bars.iter().all(|bar| bar.volume_e4 % SHARE_E4 == 0);
    // Tick and lot have at most six decimals together.
    let lot_e4 = if is_whole { SHARE_E4 } else { FINEST_LOT_E4.max(CENT_E4 / tick_e4) };
    let mut recording = Recording {
        form: read.format,
        steps: Vec::new(),
        began_us: read.bars.first().map_or(0, |bar| bar.time_us),
        tick_e4,
        lot_e4,
        rounded: read.volumes_rounded,
        passed: read.null_rows.len() as u64,
    };
    let lasts_us = if read.is_intraday { MINUTE_US } else { SESSION_US };
    let mut walk = Walk { tick_e4, lot_e4, next: 1, quotes: Vec::new(), last_e4: 0 };
    for (number, bar) in (0..).zip(&read.bars) {
        // Days follow one another at once: nothing is traded at night.
        let begins_us = if read.is_intraday { bar.time_us - recording.began_us } else { number * SESSION_US };
        for (point, price_e4) in (0..).zip(path(bar)) {
            let at_us = begins_us + point * lasts_us / POINTS as i64;
            let acts = walk.point(price_e4, bar.volume_e4 / POINTS as i64);
            if recording.steps.len() + acts.len() > STEPS_MAX {
                return Err(too_many(number as u64 + 1));
            }
            recording.steps.extend(acts.into_iter().map(|act| Step { at_us, act }));
        }
    }
    Ok(recording)
}

/// The extreme that lies against the bar's direction comes first.
fn path(bar: &Bar) -> [i64; POINTS] {
    if bar.close_e4 >= bar.open_e4 {
        [bar.open_e4, bar.low_e4, bar.high_e4, bar.close_e4]
    } else {
        [bar.open_e4, bar.high_e4, bar.low_e4, bar.close_e4]
    }
}

struct Walk {
    tick_e4: i64,
    lot_e4: i64,
    next: u64,
    /// Quotes that stand.
    quotes: Vec<u64>,
    last_e4: i64,
}

impl Walk {
    fn new_order(&mut self, side: Side, price_e4: i64, quantity_e4: i64) -> Act {
        self.next += 1;
        Act::New { order: self.next, side, price_e4, quantity_e4 }
    }

    /// The price goes to a point, and a quantity is traded there.
    fn point(&mut self, price_e4: i64, traded_e4: i64) -> Vec<Act> {
        let mut acts: Vec<Act> =
            self.quotes.drain(..).map(|order| Act::Left { order, quantity_e4: 0 }).collect();
        let traded_e4 = traded_e4 / self.lot_e4 * self.lot_e4;
        if traded_e4 > 0 {
            let taker = if price_e4 >= self.last_e4 { Side::Buy } else { Side::Sell };
            let maker = self.new_order(taker.opposite(), price_e4, traded_e4);
            acts.push(maker);
            acts.push(Act::Take { side: taker, price_e4, quantity_e4: traded_e4 });
            // Somebody else may have met the taker.
            acts.push(Act::Left { order: self.next, quantity_e4: 0 });
        }
        self.last_e4 = price_e4;
        let apart = (price_e4 / APART / self.tick_e4).max(1) * self.tick_e4;
        let quantity_e4 = (traded_e4 / QUOTE_PART / self.lot_e4).max(1) * self.lot_e4;
        for level in 1..=LEVELS {
            for (side, price_e4) in
                [(Side::Buy, price_e4 - level * apart), (Side::Sell, price_e4 + level * apart)]
            {
                if price_e4 > 0 {
                    acts.push(self.new_order(side, price_e4, quantity_e4));
                    self.quotes.push(self.next);
                }
            }
        }
        acts
    }
}
