//! Five years of daily bars from a fixed seed: a random walk in integers that ends at the listing's previous close.

use fafnir_proto::v1::Candle;
use fafnir_services::platform::{clock::DAY_US, rng::Rng};

/// Weekdays in five years.
pub const DAYS: usize = 1305;
/// 1970-01-01 was a Thursday.
const EPOCH_WEEKDAY: i64 = 3;
const SATURDAY: i64 = 5;
const BP: i64 = 10_000;

/// The numbers of a symbol: the same bars on every machine and in every version, so the draws below keep their form.
fn numbers_of(symbol: &str) -> Rng {
    // FNV-1a: a stable start per symbol.
    let mix = |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    Rng::new(symbol.bytes().fold(0xcbf2_9ce4_8422_2325, mix))
}

/// Uniform in 0..n.
fn below(rng: &mut Rng, n: u64) -> i64 {
    (rng.word() % n.max(1)) as i64
}

/// About normal with the given standard deviation: the sum of twelve uniform draws has deviation 1.
fn bell(rng: &mut Rng, deviation: i64) -> i64 {
    let sum: i64 = (0..12).map(|_| below(rng, 2001) - 1000).sum();
    // One draw has variance 1000²/3; twelve have 4 × 1000².
    sum * deviation / 2000
}

/// Bars of the last [`DAYS`] weekdays before the day of `now_us`, oldest first. Prices are multiples of the tick.
pub fn generate(
    symbol: &str,
    close_e4: i64,
    tick_e4: i64,
    volatility_bp: u32,
    volume: u64,
    now_us: i64,
) -> Vec<Candle> {
    let mut rng = numbers_of(symbol);
    let volatility = i64::from(volatility_bp);
    let tick = tick_e4.max(1);
    let on_tick = |price: i64| (price / tick * tick).max(tick);
    let mut day = now_us.div_euclid(DAY_US) - 1;
    let mut close = close_e4;
    let mut bars = Vec::with_capacity(DAYS);
    while bars.len() < DAYS {
        if (day + EPOCH_WEEKDAY).rem_euclid(7) < SATURDAY {
            // Backwards: a small positive drift forwards is a negative one here.
            let step = (bell(&mut rng, volatility) - volatility / 40).clamp(-BP / 4, BP / 4);
            let previous = on_tick(close * BP / (BP - step).max(1));
            let open = on_tick(previous + previous * bell(&mut rng, volatility / 3) / BP);
            let reach = |rng: &mut Rng, price: i64| price * bell(rng, volatility / 2).abs() / BP;
            let high = on_tick(open.max(close) + reach(&mut rng, close));
            let low = on_tick(open.min(close) - reach(&mut rng, close)).min(open).min(close);
            let shares = volume as i64 * (60 + below(&mut rng, 80)) / 100;
            bars.push(Candle {
                symbol: symbol.to_owned(),
                time_us: day * DAY_US,
                open_e4: open,
                high_e4: high.max(open).max(close),
                low_e4: low,
                close_e4: close,
                volume_e4: shares * 10_000,
            });
            close = previous;
        }
        day -= 1;
    }
    bars.reverse();
    bars
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_the_same_every_time_and_end_at_the_previous_close() {
        let now = 20_780 * DAY_US + 5;
        let bars = generate("AAPL", 2_310_700, 100, 160, 50_000_000, now);
        assert_eq!(bars, generate("AAPL", 2_310_700, 100, 160, 50_000_000, now));
        assert_eq!(bars.len(), DAYS);
        assert_eq!(bars.last().unwrap().close_e4, 2_310_700);
        assert!(bars.windows(2).all(|w| w[0].time_us < w[1].time_us));
        for bar in &bars {
            assert!(bar.low_e4 > 0 && bar.low_e4 <= bar.open_e4.min(bar.close_e4), "{bar:?}");
            assert!(bar.high_e4 >= bar.open_e4.max(bar.close_e4), "{bar:?}");
            assert_eq!(bar.open_e4 % 100, 0);
        }
    }
}
