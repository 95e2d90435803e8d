//! What was traded at each price of the day: what the exchange keeps, and each trade since.

use fafnir_proto::v1::{PriceVolume, Trade, VolumeAtPriceReply};
use std::collections::BTreeMap;

const DAY_US: i64 = 86_400_000_000;
/// Prices kept at most; the exchange answers with no more.
pub const PRICES_MAX: usize = 20_000;

/// The volume of one symbol on one UTC day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    day: i64,
    /// Trades up to this number are in it.
    last_trade_no: u64,
    levels: BTreeMap<i64, i64>,
}

impl Volume {
    /// Takes what the exchange keeps, and adds the trades that are known here and not in it.
    pub fn load<'a>(&mut self, reply: &VolumeAtPriceReply, known: impl Iterator<Item = &'a Trade>) {
        let levels = reply.levels.iter().take(PRICES_MAX);
        *self = Self {
            day: reply.day_us.div_euclid(DAY_US),
            last_trade_no: reply.last_trade_no,
            levels: levels
                .map(|PriceVolume { price_e4, volume_e4 }| (*price_e4, (*volume_e4).max(0)))
                .collect(),
        };
        known.for_each(|trade| self.add(trade));
    }

    /// Adds a trade that was not added before. A new day begins empty.
    pub fn add(&mut self, trade: &Trade) {
        let day = trade.time_us.div_euclid(DAY_US);
        if day > self.day {
            (self.day, self.levels) = (day, BTreeMap::new());
        }
        let counts = day == self.day && trade.trade_no > self.last_trade_no;
        if counts && (self.levels.len() < PRICES_MAX || self.levels.contains_key(&trade.price_e4)) {
            let level = self.levels.entry(trade.price_e4).or_default();
            *level = level.saturating_add(trade.quantity_e4.max(0));
        }
    }

    /// Price and volume, e4.
    pub fn levels(&self) -> impl Iterator<Item = (i64, i64)> {
        self.levels.iter().map(|(price, volume)| (*price, *volume))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trade(trade_no: u64, price_e4: i64, day: i64) -> Trade {
        Trade { trade_no, price_e4, quantity_e4: 10_000, time_us: day * DAY_US + 5, ..Default::default() }
    }

    #[test]
    fn each_trade_counts_once_and_a_new_day_begins_empty() {
        let mut volume = Volume::default();
        volume.add(&trade(7, 100, 3));
        let reply = VolumeAtPriceReply {
            day_us: 3 * DAY_US,
            levels: vec![PriceVolume { price_e4: 100, volume_e4: 50_000 }],
            last_trade_no: 7,
            ..Default::default()
        };
        let known = [trade(6, 100, 3), trade(7, 100, 3), trade(8, 200, 3)];
        volume.load(&reply, known.iter());
        volume.add(&trade(9, 100, 3));
        volume.add(&trade(5, 100, 3));
        assert_eq!(volume.levels().collect::<Vec<_>>(), [(100, 60_000), (200, 10_000)]);
        volume.add(&trade(10, 300, 4));
        volume.add(&trade(11, 300, 3));
        assert_eq!(volume.levels().collect::<Vec<_>>(), [(300, 10_000)]);
    }
}
