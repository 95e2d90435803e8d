//! Order events of an exchange as one CSV: `time_ms,event,order_id,side,price_ticks,quantity_lots`, ticks of a cent, lots of
//! 10⁻⁸. Events are `new`, `cancel`, `changed` and `filled` (what is left after a fill) and `trade` (what was printed).

use super::{Act, CENT_E4, FINEST_LOT_E4, Recording, STEPS_MAX, Step, number, too_many};
use crate::import::Fault;
use fafnir_matching::Side;
use std::collections::HashSet;

pub const HEADER: &str = "time_ms,event,order_id,side,price_ticks,quantity_lots";
/// Lots of the file in the least quantity here.
const LOTS_PER_E4: i64 = 10_000;

pub fn read(text: &str) -> Result<Recording, Fault> {
    let mut recording = Recording {
        form: "order events",
        steps: Vec::new(),
        began_us: 0,
        tick_e4: CENT_E4,
        lot_e4: FINEST_LOT_E4,
        rounded: 0,
        passed: 0,
    };
    let mut open: HashSet<u64> = HashSet::new();
    let mut last_ms = None;
    for (line, row) in (1..).zip(text.lines()).skip(1).filter(|(_, row)| !row.trim().is_empty()) {
        let mut cells = row.trim_end().split(',');
        let time_ms: i64 = number(line, 1, "time_ms", cells.next())?;
        let fault = |column, what: String| Err(Fault { line, column, what });
        if last_ms.is_some_and(|last| time_ms < last) || !(0..=i64::MAX / 1_000).contains(&time_ms) {
            return fault(1, format!("time_ms {time_ms} is before that of the line before, or no time"));
        }
        if last_ms.is_none() {
            recording.began_us = time_ms * 1_000;
        }
        last_ms = Some(time_ms);
        let event = cells.next().unwrap_or_default();
        if event == "trade" {
            recording.passed += 1;
            continue;
        }
        let order: u64 = number(line, 3, "order_id", cells.next())?;
        let side = match cells.next() {
            Some("B") => Side::Buy,
            Some("S") => Side::Sell,
            other => return fault(4, format!("side {:?} is neither B nor S", other.unwrap_or_default())),
        };
        let ticks: i64 = number(line, 5, "price_ticks", cells.next())?;
        let lots: i64 = number(line, 6, "quantity_lots", cells.next())?;
        let price_e4 = ticks.checked_mul(CENT_E4).filter(|price| *price > 0);
        let (Some(price_e4), 0..) = (price_e4, lots) else {
            return fault(5, format!("price_ticks {ticks} and quantity_lots {lots}: one is out of range"));
        };
        let quantity_e4 = lots / LOTS_PER_E4;
        recording.rounded += u64::from(lots % LOTS_PER_E4 != 0);
        let act = match event {
            "new" if quantity_e4 == 0 => None,
            "new" if !open.insert(order) => return fault(3, format!("order {order} is placed again")),
            "new" => Some(Act::New { order, side, price_e4, quantity_e4 }),
            "cancel" | "filled" => open.remove(&order).then_some(Act::Left { order, quantity_e4: 0 }),
            "changed" => open.contains(&order).then_some(Act::Left { order, quantity_e4 }),
            other => {
                return fault(
                    2,
                    format!("event {other:?} is none of new, cancel, changed, filled and trade"),
                );
            }
        };
        let Some(act) = act else {
            recording.passed += 1;
            continue;
        };
        if recording.steps.len() == STEPS_MAX {
            return Err(too_many(line));
        }
        recording.steps.push(Step { at_us: time_ms * 1_000 - recording.began_us, act });
    }
    Ok(recording)
}
