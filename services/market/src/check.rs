//! What a played market looks like beside what is known of real ones.

use crate::{
    core::STEPS_PER_SECOND,
    listing::Listing,
    measure::{autocorrelation, correlation, excess_kurtosis, exponent, hill, mean, variance},
    play::Play,
    value::{Mood, SESSION_STEPS},
};
use fafnir_matching::Side;

const MINUTE_STEPS: u64 = 60 * STEPS_PER_SECOND;
const SESSION_MINUTES: usize = 390;
/// Sizes of the orders whose impact is measured, parts of the visible side.
const SIZES: [f64; 5] = [0.1, 0.2, 0.4, 0.7, 1.0];
/// Markets in which it is measured; each is played to a moment, then with and without the order.
const IMPACT_PLAYS: u64 = 240;
const IMPACT_FROM: u64 = MINUTE_STEPS;
const IMPACT_SOON: u64 = 2;
/// Steps between the orders in one symbol and the next.
const IMPACT_APART: u64 = 5 * STEPS_PER_SECOND;
const IMPACT_LATE: u64 = 30 * STEPS_PER_SECOND;
/// Places behind the best at which depth is looked at.
const DEPTHS: usize = 12;

/// One thing that was measured, for each symbol or for all together.
#[derive(Debug, Clone)]
pub struct Row {
    pub name: &'static str,
    /// What it should be.
    pub wanted: String,
    pub values: Vec<f64>,
    pub decimals: usize,
    pub met: bool,
}

/// What the played market publishes of the symbols that are looked at, for whoever measures for himself. Prices in ticks.
#[derive(Debug, Clone, Copy)]
pub enum Published {
    /// `order`: who came to the quotes; one order may make several trades.
    Trade { session: u64, step: u64, market: usize, side: Side, price_e4: i64, quantity_e4: i64, order: u64 },
    /// The best prices at the end of a minute; minute 0 is the session's beginning.
    Best { session: u64, minute: u64, market: usize, bid: Option<u32>, ask: Option<u32> },
}

/// The whole table.
#[derive(Debug)]
pub struct Check {
    pub symbols: Vec<String>,
    pub rows: Vec<Row>,
    /// Requests of the agents in a second of market time.
    pub requests_per_second: f64,
    pub lookups: u64,
}

impl Check {
    pub fn met(&self) -> usize {
        self.rows.iter().filter(|r| r.met).count()
    }
}

/// What is recorded of one symbol.
#[derive(Debug, Default)]
struct Record {
    market: usize,
    /// Middle of each session's minutes, the first being where it began.
    middles: Vec<Vec<f64>>,
    spreads: Vec<f64>,
    spread: f64,
    /// Sides of the orders that came to the quotes.
    signs: Vec<f64>,
    taker: u64,
    /// Orders in each five minutes.
    counts: Vec<f64>,
    count: f64,
    two_sided: u64,
    depth: [f64; DEPTHS],
}

impl Record {
    /// Log returns over so many minutes, session by session.
    fn returns(&self, minutes: usize) -> Vec<Vec<f64>> {
        let of = |session: &Vec<f64>| {
            let at: Vec<f64> = session.iter().step_by(minutes).copied().collect();
            at.windows(2).map(|w| (w[1] / w[0]).ln()).collect()
        };
        self.middles.iter().map(of).collect()
    }

    fn step(&mut self, play: &Play) {
        for trade in play.traded().iter().filter(|t| t.market == self.market) {
            if trade.taker != self.taker {
                self.taker = trade.taker;
                self.signs.push(if trade.aggressor == Side::Buy { 1.0 } else { -1.0 });
                self.count += 1.0;
            }
        }
        let book = play.book(self.market);
        if let (Some(bid), Some(ask)) = (book.best_bid(), book.best_ask()) {
            self.two_sided += 1;
            self.spread += f64::from(ask - bid);
        }
    }

    fn minute(&mut self, play: &Play, minute: usize, grid: i64) {
        let book = play.book(self.market);
        let last = self.middles.last().and_then(|s| s.last()).copied().unwrap_or(1.0);
        let middle = play.middle(self.market).unwrap_or(last);
        if let Some(session) = self.middles.last_mut() {
            session.push(middle);
        }
        for side in [Side::Buy, Side::Sell] {
            for level in book.depth(side) {
                let place = (f64::from(level.price) - middle).abs() / grid as f64;
                if let Some(depth) = self.depth.get_mut(place as usize) {
                    *depth += level.qty as f64;
                }
            }
        }
        if minute.is_multiple_of(5) {
            self.counts.push(self.count);
            self.spreads.push(self.spread / (5 * MINUTE_STEPS) as f64);
            (self.count, self.spread) = (0.0, 0.0);
        }
    }
}

fn flat(stretches: Vec<Vec<f64>>) -> Vec<f64> {
    stretches.into_iter().flatten().collect()
}

/// Hands on what is published of a symbol in a step.
fn publish(play: &Play, record: &Record, (session, step): (u64, u64), published: &mut impl FnMut(Published)) {
    let market = record.market;
    for t in play.traded().iter().filter(|t| step > 0 && t.market == market) {
        let (side, price_e4, quantity_e4, order) = (t.aggressor, t.price_e4, t.quantity_e4, t.taker);
        published(Published::Trade { session, step, market, side, price_e4, quantity_e4, order });
    }
    if step.is_multiple_of(MINUTE_STEPS) {
        let (book, minute) = (play.book(market), step / MINUTE_STEPS);
        published(Published::Best { session, minute, market, bid: book.best_bid(), ask: book.best_ask() });
    }
}

/// Plays sessions with all symbols, and looks at some of them. `published` hears of everything that those publish.
pub fn check(
    seed: u64,
    listings: &[Listing],
    looked_at: &[usize],
    sessions: u64,
    mut published: impl FnMut(Published),
) -> Check {
    let mut play = Play::new(seed, listings, Mood::Normal, true);
    let funds: Vec<usize> = (0..listings.len()).filter(|m| listings[*m].is_fund).collect();
    let extra: Vec<usize> = (0..listings.len()).filter(|m| !looked_at.contains(m)).collect();
    let mut records: Vec<Record> = looked_at
        .iter()
        .chain(&extra)
        .map(|market| Record { market: *market, ..Record::default() })
        .collect();
    let grids: Vec<i64> = records.iter().map(|r| play.core().grid(r.market)).collect();
    let (begun, _) = play.requests();
    for session in 0..sessions {
        for record in &mut records {
            // A side may be empty just then: the session begins where the last one ended.
            let ended = record.middles.last().and_then(|session| session.last()).copied();
            let first = play.middle(record.market).or(ended).unwrap_or(1.0);
            record.middles.push(vec![first]);
        }
        for record in &records[..looked_at.len()] {
            publish(&play, record, (session, 0), &mut published);
        }
        for step in 1..=SESSION_STEPS {
            play.step(true);
            for record in &mut records {
                record.step(&play);
            }
            for record in &records[..looked_at.len()] {
                publish(&play, record, (session, step), &mut published);
            }
            if step.is_multiple_of(MINUTE_STEPS) {
                for (record, grid) in records.iter_mut().zip(&grids) {
                    record.minute(&play, (step / MINUTE_STEPS) as usize, *grid);
                }
            }
        }
    }
    let (requests, lookups) = play.requests();
    let steps = sessions * SESSION_STEPS;
    let fund_rows = follow(&records, listings, &funds);
    let seen = &records[..looked_at.len()];
    let mut rows = returns_rows(seen, listings, sessions);
    rows.extend(flow_rows(seen));
    rows.extend(together_rows(seen, fund_rows));
    rows.extend(impact_rows(seed, listings, looked_at));
    rows.extend(book_rows(seen, steps));
    Check {
        symbols: looked_at.iter().map(|m| listings[*m].symbol.clone()).collect(),
        rows,
        requests_per_second: (requests - begun) as f64 * STEPS_PER_SECOND as f64 / steps.max(1) as f64,
        lookups,
    }
}

/// A row of which every value must be within bounds.
fn within(name: &'static str, values: Vec<f64>, low: f64, high: f64, decimals: usize) -> Row {
    let met = !values.is_empty() && values.iter().all(|v| (low..=high).contains(v));
    let wanted = match (low.is_finite(), high.is_finite()) {
        (true, true) => format!("{low} to {high}"),
        (true, false) => format!("> {low}"),
        _ => format!("< {high}"),
    };
    Row { name, wanted, values, decimals, met }
}

const ANY: f64 = f64::INFINITY;

fn returns_rows(seen: &[Record], listings: &[Listing], sessions: u64) -> Vec<Row> {
    let of = |f: &dyn Fn(&Record) -> f64| -> Vec<f64> { seen.iter().map(f).collect() };
    let volatility = of(&|r| {
        let square: f64 = flat(r.returns(5)).iter().map(|r| r * r).sum();
        let per_session = (square / sessions.max(1) as f64).sqrt() * 10_000.0;
        per_session / f64::from(listings[r.market].volatility_bp) * 100.0
    });
    let pooled = |minutes: usize| {
        let standard = |r: &Record| {
            let returns = flat(r.returns(minutes));
            let deviation = variance(&returns).sqrt().max(f64::MIN_POSITIVE);
            returns.into_iter().map(move |r| r / deviation).collect::<Vec<f64>>()
        };
        excess_kurtosis(&flat(seen.iter().map(standard).collect()))
    };
    let (minute, hour) = (pooled(1), pooled(60));
    let largest = |r: &Record| {
        let returns = r.returns(1);
        (2..=20).map(|lag| autocorrelation(&returns, lag).abs()).fold(0.0, f64::max)
    };
    let sizes = |r: &Record| -> Vec<Vec<f64>> {
        r.returns(1).into_iter().map(|s| s.into_iter().map(f64::abs).collect()).collect()
    };
    vec![
        within("volatility of a session, % of the listing's", volatility, 80.0, 120.0, 0),
        within("excess kurtosis, 1 min", of(&|r| excess_kurtosis(&flat(r.returns(1)))), 3.0, ANY, 1),
        Row {
            name: "excess kurtosis, 1 min and 1 h, pooled",
            wanted: "falls".to_owned(),
            values: vec![minute, hour],
            decimals: 1,
            met: hour < minute,
        },
        within("Hill exponent, 1 min", of(&|r| hill(&flat(r.returns(1)))), 2.5, 5.0, 2),
        within("largest |autocorrelation| of returns, lags 2-20", of(&largest), 0.0, 0.05, 3),
        within("autocorrelation of |returns|, lag 10", of(&|r| autocorrelation(&sizes(r), 10)), 0.1, 0.3, 3),
    ]
}

fn flow_rows(seen: &[Record]) -> Vec<Row> {
    let sides = |lag: usize| -> Vec<f64> {
        seen.iter().map(|r| autocorrelation(std::slice::from_ref(&r.signs), lag)).collect()
    };
    let bursts = seen.iter().map(|r| variance(&r.counts) / mean(&r.counts).max(1e-9)).collect();
    let u_shape = |r: &Record| {
        let per_session = SESSION_MINUTES / 5;
        let of = |from: usize, to: usize| {
            let chosen = r.counts.iter().enumerate().filter(|(i, _)| (from..to).contains(&(i % per_session)));
            mean(&chosen.map(|(_, c)| *c).collect::<Vec<f64>>())
        };
        of(0, 6).min(of(per_session - 6, per_session)) / of(24, 54).max(1e-9)
    };
    vec![
        within("autocorrelation of order sides, lag 1", sides(1), 0.2, ANY, 2),
        within("autocorrelation of order sides, lag 20", sides(20), 0.05, ANY, 3),
        within("orders in 5 min, variance over mean", bursts, 2.0, ANY, 1),
        within("orders, ends over middle of the session", seen.iter().map(u_shape).collect(), 1.2, ANY, 2),
    ]
}

fn together_rows(seen: &[Record], funds: Vec<f64>) -> Vec<Row> {
    let returns: Vec<Vec<f64>> = seen.iter().map(|r| flat(r.returns(1))).collect();
    let mut pairs = Vec::new();
    for (i, a) in returns.iter().enumerate() {
        pairs.extend(returns[i + 1..].iter().map(|b| correlation(a, b)));
    }
    let mut rows = vec![within("mean correlation of two symbols, 1 min", vec![mean(&pairs)], 0.2, 0.5, 2)];
    if !funds.is_empty() {
        rows.push(within("correlation of a fund and its basket, 5 min", funds, 0.8, ANY, 2));
    }
    rows
}

/// How each fund goes with the mean of what it holds.
fn follow(records: &[Record], listings: &[Listing], funds: &[usize]) -> Vec<f64> {
    let five = |market: usize| {
        records.iter().find(|r| r.market == market).map(|r| flat(r.returns(5))).unwrap_or_default()
    };
    let of = |fund: &usize| {
        let basket = crate::value::basket(&listings[*fund], listings);
        let mut sum = vec![0.0; five(*fund).len()];
        for (market, part) in basket {
            for (sum, r) in sum.iter_mut().zip(five(market)) {
                *sum += part * r;
            }
        }
        correlation(&five(*fund), &sum)
    };
    funds.iter().map(of).collect()
}

fn book_rows(seen: &[Record], steps: u64) -> Vec<Row> {
    let five = |r: &Record| -> Vec<f64> {
        // A session has 390 minutes: whole fives.
        let sums = r.returns(1).into_iter().flat_map(|s| {
            s.chunks(5).map(|c| c.iter().map(|r| r * r).sum::<f64>().sqrt()).collect::<Vec<f64>>()
        });
        sums.collect()
    };
    let widens = seen.iter().map(|r| correlation(&r.spreads, &five(r))).collect();
    let hump = |r: &Record| {
        let most = r.depth[1..DEPTHS - 1].iter().copied().fold(0.0, f64::max);
        let front = r.depth[0].max(1e-9);
        let back = r.depth[DEPTHS - 1].max(1e-9);
        (most / front).min(most / back)
    };
    let two_sided = seen.iter().map(|r| r.two_sided as f64 * 100.0 / steps.max(1) as f64).collect();
    let spread = |r: &Record| {
        let price = mean(&flat(r.middles.clone()));
        mean(&r.spreads) / price.max(1.0) * 10_000.0
    };
    vec![
        within("spread, mean, basis points", seen.iter().map(spread).collect(), 0.1, 3.0, 2),
        within("correlation of spread and volatility, 5 min", widens, 0.2, ANY, 2),
        within(
            "greatest depth over the front's and the back's",
            seen.iter().map(hump).collect(),
            1.2,
            ANY,
            2,
        ),
        within("two-sided, % of the time", two_sided, 99.5, 100.0, 2),
    ]
}

/// A stranger takes a part of what is visible.
fn take(play: &mut Play, market: usize, side: Side, part: f64, listing: &Listing) {
    let visible: u64 = play.book(market).depth(side.opposite()).map(|l| l.qty).sum();
    let lots = ((visible as f64 * part) as i64).max(1);
    play.stranger(market, side, lots * fafnir_rules::money::round_lot(listing.lot_e4));
}

/// The middles of the symbols soon after each order for a part of the visible side, and later.
fn impact_play(
    seed: u64,
    listings: &[Listing],
    looked_at: &[usize],
    side: Side,
    part: f64,
) -> Vec<(f64, f64)> {
    let mut play = Play::new(seed, listings, Mood::Normal, false);
    let mut seen = vec![(0.0, 0.0); looked_at.len()];
    // Where a side is empty the middle is the last one that there was.
    let mut last = vec![0.0; looked_at.len()];
    // One symbol after the other: makers that are all hit at once would share their budget.
    for step in 0..=IMPACT_FROM + IMPACT_APART * looked_at.len() as u64 + IMPACT_LATE {
        for (number, market) in looked_at.iter().enumerate() {
            let begins = IMPACT_FROM + IMPACT_APART * number as u64;
            last[number] = play.middle(*market).unwrap_or(last[number]);
            if step == begins && part > 0.0 {
                take(&mut play, *market, side, part, &listings[*market]);
            } else if step == begins + IMPACT_SOON {
                seen[number].0 = last[number];
            } else if step == begins + IMPACT_LATE {
                seen[number].1 = last[number];
            }
        }
        play.step(false);
    }
    seen
}

/// The same market with and without a market order for a part of the visible side.
fn impact_rows(seed: u64, listings: &[Listing], looked_at: &[usize]) -> Vec<Row> {
    let none = || vec![vec![0.0; SIZES.len()]; looked_at.len()];
    let (mut soon, mut late) = (none(), none());
    for number in 0..IMPACT_PLAYS {
        let seed = seed.wrapping_mul(1_000).wrapping_add(number);
        let side = if number % 2 == 0 { Side::Buy } else { Side::Sell };
        let sign = if side == Side::Buy { 1.0 } else { -1.0 };
        let without = impact_play(seed, listings, looked_at, side, 0.0);
        for (size, part) in SIZES.iter().enumerate() {
            let with = impact_play(seed, listings, looked_at, side, *part);
            for (symbol, (with, without)) in with.into_iter().zip(&without).enumerate() {
                soon[symbol][size] += sign * (with.0 - without.0) / IMPACT_PLAYS as f64;
                late[symbol][size] += sign * (with.1 - without.1) / IMPACT_PLAYS as f64;
            }
        }
    }
    let whole = SIZES.len() - 1;
    let exponents = |moved: &[Vec<f64>]| moved.iter().map(|m| exponent(&SIZES, m)).collect::<Vec<f64>>();
    let stays = soon.iter().zip(&late).map(|(s, l)| l[whole] / s[whole].max(1e-9)).collect();
    let moved = soon.iter().map(|s| s[whole]).collect();
    vec![
        within("an order for the visible side moves the middle, ticks", moved, 2.0, ANY, 1),
        within("impact after 0.5 s, exponent of the size", exponents(&soon), 0.4, 0.7, 2),
        within("of it after 30 s", stays, 0.2, 0.8, 2),
    ]
}
