//! The past of a new platform, made by the process that the simulated market goes on with: years of daily bars that end at
//! the listings' previous closes, and minute bars of the last sessions as the agents played them.

use fafnir_market::{Bar, Listing, Mood, Play, SESSION_STEPS, daily_returns, daily_volume_e4, exp};
use fafnir_proto::v1::Candle;
use fafnir_rules::calendar::Calendar;
use fafnir_services::platform::{clock::DAY_US, rng::Rng};
use std::collections::BTreeMap;

/// Sessions in five years.
pub const DAYS: usize = 1305;
/// Sessions of which there are minute bars.
pub const PLAYED: usize = 5;
/// Days in which so many sessions are.
const CALENDAR_DAYS: i64 = 1305 * 7 / 5 + 90;
const MINUTE_US: i64 = 60_000_000;
const SESSION_MINUTES: u64 = 390;
/// A session is played in so many parts of whole minutes, between which the play can be stopped.
const PARTS: u64 = 39;
/// The market that made the past: the same bars on every machine.
const SEED: u64 = 20_260_101;
const BP: i64 = 10_000;

/// A session of the exchange; some close early.
#[derive(Debug, Clone, Copy)]
struct Session {
    opens_us: i64,
    minutes: u64,
}

/// The last sessions of the exchange before the day of `now_us`, oldest first. There are none on its holidays.
fn sessions(now_us: i64) -> Vec<Session> {
    let today_us = now_us.div_euclid(DAY_US) * DAY_US;
    let mut opened = Vec::new();
    let mut at = today_us - CALENDAR_DAYS * DAY_US;
    while let Some(opens) = Calendar::Xnys.next_change_us(at)
        && let Some(closes) = Calendar::Xnys.next_change_us(opens)
        && opens < today_us
    {
        // Whoever begins within a session begins with the next one.
        if closes - opens < DAY_US / 2 {
            opened.push(Session { opens_us: opens, minutes: ((closes - opens) / MINUTE_US).unsigned_abs() });
            at = closes;
        } else {
            at = opens;
        }
    }
    opened.split_off(opened.len().saturating_sub(DAYS))
}

/// About normal with the given standard deviation.
fn bell(rng: &mut Rng, deviation: i64) -> i64 {
    rng.normal(deviation.max(0))
}

fn on_tick(price: f64, tick: i64) -> i64 {
    ((price / tick as f64).round() as i64).max(1) * tick
}

/// The daily bars of each listing, oldest first.
pub fn daily(listings: &[Listing], now_us: i64) -> Vec<Vec<Candle>> {
    let opened = sessions(now_us);
    let returns = daily_returns(SEED, listings, opened.len());
    let volumes = daily_volume_e4(listings);
    let of = |((listing, returns), volume): ((&Listing, &Vec<f64>), i64)| {
        let mut rng = Rng::new(SEED ^ volume.unsigned_abs() ^ listing.close_e4.unsigned_abs());
        // Backwards from the close that is known.
        let mut closes = vec![listing.close_e4 as f64];
        for change in returns.iter().rev() {
            closes.push(closes[closes.len() - 1] / exp(change.clamp(-0.5, 1.0)));
        }
        closes.reverse();
        let days = opened.iter().zip(closes.windows(2));
        days.map(|(session, w)| {
            day(listing, &mut rng, session.opens_us.div_euclid(DAY_US), (w[0], w[1]), volume)
        })
        .collect()
    };
    listings.iter().zip(&returns).zip(volumes).map(of).collect()
}

fn day(listing: &Listing, rng: &mut Rng, day: i64, (before, close): (f64, f64), volume_e4: i64) -> Candle {
    let tick = listing.tick_e4;
    let (open, close) = (on_tick(before, tick), on_tick(close, tick));
    let spread = i64::from(listing.volatility_bp) * 6 / 10;
    let reach = |rng: &mut Rng, price: i64| price.saturating_mul(bell(rng, spread).abs()) / BP;
    let high = open.max(close) + reach(rng, close);
    let low = open.min(close) - reach(rng, close);
    let lot = listing.lot_e4.max(1);
    Candle {
        symbol: listing.symbol.clone(),
        time_us: day * DAY_US,
        open_e4: open,
        high_e4: on_tick(high as f64, tick).max(open).max(close),
        low_e4: on_tick(low as f64, tick).min(open).min(close),
        close_e4: close,
        volume_e4: volume_e4 / 100 * rng.between(60, 140) / lot * lot,
    }
}

/// What the agents played of one listing.
#[derive(Debug)]
pub struct Played {
    pub symbol: String,
    pub minutes: Vec<Candle>,
    /// The days that the minutes are of.
    pub days: Vec<Candle>,
}

/// Plays the last sessions before the day of `now_us`. Each begins and ends at the closes of `daily`: the bars are moved by
/// as much as the play ended elsewhere, evenly over the session. Takes seconds; `None` once it may not go on.
pub fn play(
    listings: &[Listing],
    daily: &[Vec<Candle>],
    now_us: i64,
    goes_on: &dyn Fn() -> bool,
) -> Option<Vec<Played>> {
    let opened = sessions(now_us);
    let opened = &opened[opened.len().saturating_sub(PLAYED)..];
    let begins: Vec<Listing> = listings
        .iter()
        .zip(daily)
        .map(|(l, bars)| {
            let last_e4 = close_before(bars, opened.first().map_or(now_us, |s| s.opens_us), l.close_e4);
            Listing { last_e4, ..l.clone() }
        })
        .collect();
    let mut market = Play::new(SEED, &begins, Mood::Normal, true);
    let mut played: Vec<Played> = listings
        .iter()
        .map(|l| Played { symbol: l.symbol.clone(), minutes: Vec::new(), days: Vec::new() })
        .collect();
    let mut last: Vec<i64> = begins.iter().map(|l| l.last_e4).collect();
    for (number, Session { opens_us, minutes }) in opened.iter().enumerate() {
        let mut bars: Vec<Vec<Bar>> = listings.iter().map(|_| Vec::new()).collect();
        for _ in 0..PARTS {
            if !goes_on() {
                return None;
            }
            for (bars, more) in bars.iter_mut().zip(market.bars(SESSION_STEPS / PARTS, true)) {
                bars.extend(more);
            }
        }
        for (symbol, bars) in bars.iter().enumerate() {
            let (listing, begun) = (&listings[symbol], last[symbol]);
            last[symbol] = bars.last().map_or(begun, |b| b.close_e4);
            let from = close_before(&daily[symbol], *opens_us, listing.close_e4);
            let to = close_before(&daily[symbol], opens_us + DAY_US, listing.close_e4);
            let first = number as u64 * SESSION_MINUTES;
            // What was played after an early close is left out.
            let open: Vec<&Bar> = bars.iter().filter(|bar| bar.minute < first + minutes).collect();
            let ended = open.last().map_or(begun, |b| b.close_e4);
            let bridge = Bridge { begun, ended, from, to, first, minutes: *minutes };
            let candles = open.into_iter().map(|bar| bridge.candle(listing, *opens_us, bar));
            played[symbol].minutes.extend(candles);
        }
    }
    for played in &mut played {
        played.days = days_of(&played.minutes);
    }
    Some(played)
}

/// The close of the last bar before the day of a time.
fn close_before(bars: &[Candle], time_us: i64, otherwise: i64) -> i64 {
    let day_us = time_us.div_euclid(DAY_US) * DAY_US;
    bars.iter().rev().find(|b| b.time_us < day_us).map_or(otherwise, |b| b.close_e4)
}

/// Moves a session that was played from `begun` to `ended` to one from `from` to `to`.
struct Bridge {
    begun: i64,
    ended: i64,
    from: i64,
    to: i64,
    /// Its first minute in the play, and how many it has.
    first: u64,
    minutes: u64,
}

impl Bridge {
    fn candle(&self, listing: &Listing, opens_us: i64, bar: &Bar) -> Candle {
        let minute = bar.minute.saturating_sub(self.first);
        let part = (minute + 1) as f64 / self.minutes as f64;
        let begin = self.from as f64 / self.begun.max(1) as f64;
        let end = self.to as f64 / self.ended.max(1) as f64;
        let factor = begin + (end - begin) * part;
        let price = |e4: i64| on_tick(e4 as f64 * factor, listing.tick_e4);
        Candle {
            symbol: listing.symbol.clone(),
            time_us: opens_us + minute as i64 * MINUTE_US,
            open_e4: price(bar.open_e4),
            high_e4: price(bar.high_e4),
            low_e4: price(bar.low_e4),
            close_e4: price(bar.close_e4),
            volume_e4: bar.volume_e4,
        }
    }
}

fn days_of(minutes: &[Candle]) -> Vec<Candle> {
    let mut days: BTreeMap<i64, Candle> = BTreeMap::new();
    for bar in minutes {
        let time_us = bar.time_us.div_euclid(DAY_US) * DAY_US;
        let day = days.entry(time_us).or_insert_with(|| Candle { time_us, volume_e4: 0, ..bar.clone() });
        day.high_e4 = day.high_e4.max(bar.high_e4);
        day.low_e4 = day.low_e4.min(bar.low_e4);
        day.close_e4 = bar.close_e4;
        day.volume_e4 += bar.volume_e4;
    }
    days.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seed::Seeds;

    /// 2026-11-30, a Monday, 21:40 UTC.
    const NOW_US: i64 = 20_787 * DAY_US + (21 * 60 + 40) * MINUTE_US;

    fn listings() -> Vec<Listing> {
        Seeds::built_in().unwrap().for_agents().unwrap()
    }

    #[test]
    fn daily_bars_are_the_same_every_time_on_days_of_the_exchange_and_end_at_the_previous_close() {
        let listings = listings();
        let all = daily(&listings, NOW_US);
        assert_eq!(all, daily(&listings, NOW_US));
        for (listing, bars) in listings.iter().zip(&all) {
            assert_eq!(bars.len(), DAYS);
            assert_eq!(bars.last().unwrap().close_e4, listing.close_e4);
            assert!(bars.windows(2).all(|w| w[0].time_us < w[1].time_us));
            for bar in bars {
                assert!(bar.low_e4 > 0 && bar.low_e4 <= bar.open_e4.min(bar.close_e4), "{bar:?}");
                assert!(bar.high_e4 >= bar.open_e4.max(bar.close_e4), "{bar:?}");
                assert_eq!((bar.open_e4 % listing.tick_e4, bar.volume_e4 % listing.lot_e4), (0, 0));
            }
        }
        // The Friday before, the Wednesday before Thanksgiving (the 26th), and none on that day.
        let days: Vec<i64> = all[0].iter().rev().take(3).map(|b| b.time_us / DAY_US).collect();
        assert_eq!(days, [20_784, 20_782, 20_781]);
    }

    #[test]
    fn the_played_sessions_go_from_close_to_close_and_end_where_the_market_opens() {
        let listings: Vec<Listing> = listings().into_iter().filter(|l| l.symbol.len() == 4).collect();
        let daily = daily(&listings, NOW_US);
        let played = play(&listings, &daily, NOW_US, &|| true).unwrap();
        assert!(play(&listings, &daily, NOW_US, &|| false).is_none());
        for ((listing, played), daily) in listings.iter().zip(&played).zip(&daily) {
            assert_eq!(played.days.len(), PLAYED, "{}", listing.symbol);
            assert!(played.minutes.len() > 200, "{} {}", listing.symbol, played.minutes.len());
            // The Friday after Thanksgiving closes at 13:00 in New York.
            assert!(played.minutes.last().unwrap().time_us < 20_784 * DAY_US + 18 * 60 * MINUTE_US);
            assert!(played.minutes.windows(2).all(|w| w[0].time_us < w[1].time_us));
            for (played, daily) in played.days.iter().zip(&daily[DAYS - PLAYED..]) {
                assert_eq!(played.time_us, daily.time_us);
                let off = (played.close_e4 - daily.close_e4).abs();
                assert!(off * 500 <= daily.close_e4, "{}: {off}", listing.symbol);
            }
            let last = played.minutes.last().unwrap();
            assert!(
                last.high_e4 >= last.low_e4
                    && (last.close_e4 - listing.close_e4).abs() * 500 <= listing.close_e4
            );
        }
    }
}
