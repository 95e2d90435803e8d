//! Candles: bars from the gateway, continued by the trades of the feed.

use fafnir_proto::v1;

/// Timeframes: the interval on the wire and its length in microseconds.
pub const INTERVALS: [(&str, i64); 5] = [
    ("1m", 60_000_000),
    ("5m", 300_000_000),
    ("15m", 900_000_000),
    ("1h", 3_600_000_000),
    (DAILY, 86_400_000_000),
];
/// The timeframe whose bars are those of the history.
pub const DAILY: &str = "1d";
/// Bars kept and asked for.
pub const CANDLES_MAX: usize = 240;

/// The bars of one symbol and timeframe.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Chart {
    /// Index into [`INTERVALS`].
    pub interval: usize,
    /// Ascending by time.
    pub candles: Vec<v1::Candle>,
    /// Trades up to this number are in the bars.
    last_trade_no: u64,
}

impl Chart {
    pub fn interval_name(&self) -> &'static str {
        INTERVALS.get(self.interval).map_or("1m", |i| i.0)
    }

    /// Length of a bar in microseconds.
    pub fn interval_us(&self) -> i64 {
        INTERVALS.get(self.interval).map_or(60_000_000, |i| i.1)
    }

    pub fn clear(&mut self) {
        self.candles.clear();
        self.last_trade_no = 0;
    }

    /// Replaces the bars by what the gateway knows; a bar that both have takes the wider range of the two.
    pub fn load(&mut self, candles: Vec<v1::Candle>) {
        let mut candles: Vec<v1::Candle> = candles.into_iter().map(super::intake::candle).collect();
        candles.sort_by_key(|c| c.time_us);
        candles.dedup_by_key(|c| c.time_us);
        for live in std::mem::take(&mut self.candles) {
            match candles.binary_search_by_key(&live.time_us, |c| c.time_us) {
                Ok(at) => {
                    let loaded = &mut candles[at];
                    loaded.high_e4 = loaded.high_e4.max(live.high_e4);
                    loaded.low_e4 = loaded.low_e4.min(live.low_e4);
                    loaded.close_e4 = live.close_e4;
                    loaded.volume_e4 = loaded.volume_e4.max(live.volume_e4);
                }
                Err(at) => candles.insert(at, live),
            }
        }
        let excess = candles.len().saturating_sub(CANDLES_MAX);
        candles.drain(..excess);
        self.candles = candles;
    }

    /// Adds a trade of the feed to its bar. Trades at or before the last one added are ignored. True where the bar is a
    /// new one and there is room for older ones: the past of a new platform comes after its market has opened.
    pub fn add(&mut self, trade: &v1::Trade) -> bool {
        if trade.trade_no <= self.last_trade_no || trade.price_e4 <= 0 {
            return false;
        }
        self.last_trade_no = trade.trade_no;
        let interval = self.interval_us();
        let time_us = trade.time_us.div_euclid(interval) * interval;
        let begins = self.candles.last().is_none_or(|c| c.time_us < time_us);
        if begins {
            if self.candles.len() >= CANDLES_MAX {
                self.candles.remove(0);
            }
            let open = trade.price_e4;
            self.candles.push(v1::Candle {
                symbol: trade.symbol.clone(),
                time_us,
                open_e4: open,
                high_e4: open,
                low_e4: open,
                close_e4: open,
                volume_e4: 0,
            });
        }
        if let Some(bar) = self.candles.last_mut().filter(|c| c.time_us == time_us) {
            bar.high_e4 = bar.high_e4.max(trade.price_e4);
            bar.low_e4 = bar.low_e4.min(trade.price_e4);
            bar.close_e4 = trade.price_e4;
            bar.volume_e4 = bar.volume_e4.saturating_add(trade.quantity_e4);
        }
        begins && self.candles.len() < CANDLES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trades_continue_the_bars_that_the_gateway_sent() {
        let minute = INTERVALS[0].1;
        let mut chart = Chart::default();
        let trade = |trade_no, time_us, price_e4| v1::Trade {
            trade_no,
            time_us,
            price_e4,
            quantity_e4: 1,
            ..Default::default()
        };
        assert!(chart.add(&trade(1, minute + 5, 100)), "a new bar, without a past");
        assert!(!chart.add(&trade(2, minute + 6, 90)));
        chart.add(&trade(2, minute + 6, 1));
        chart.load(vec![
            v1::Candle { time_us: 0, open_e4: 5, high_e4: 6, low_e4: 4, close_e4: 5, ..Default::default() },
            v1::Candle {
                time_us: minute,
                open_e4: 95,
                high_e4: 99,
                low_e4: 95,
                close_e4: 99,
                ..Default::default()
            },
        ]);
        let bar = &chart.candles[1];
        assert_eq!((bar.open_e4, bar.high_e4, bar.low_e4, bar.close_e4), (95, 100, 90, 90));
        chart.add(&trade(3, 2 * minute, 80));
        assert_eq!(chart.candles.len(), 3);
    }
}
