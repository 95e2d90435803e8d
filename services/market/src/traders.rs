//! What those who come to the quotes do in one symbol: noise, value, momentum, and large orders that are cut into slices
//! and worked over minutes. The slices are why the side of an order remembers the sides before it (Lillo, Mike, Farmer
//! 2005).

use crate::{
    core::STEPS_PER_SECOND,
    draw::{happens, normal, pareto_4_3, stream, uniform},
    symbol::TRADERS,
};
use fafnir_matching::Side;
use fafnir_rules::rng::Rng;

/// Large orders at work in a symbol at a time.
const PARENTS: usize = 2;
/// Parts of all orders: slices of each large order while one is at work, noise, and the most that value and momentum
/// traders make.
const SLICES: f64 = 0.48;
const NOISE: f64 = 0.26;
const VALUE: f64 = 0.16;
const MOMENTUM: f64 = 0.10;
/// Slices of a large order: at least, and at most.
const SLICES_MIN: f64 = 4.0;
const SLICES_MAX: f64 = 400.0;
/// A place for a large order waits so many slices' time for the next one.
const IDLE_SLICES: f64 = 5.0;
/// What a value trader believes is off by this, in deviations of a minute, and comes back in so many steps.
const BELIEF: f64 = 0.5;
const BELIEF_STEPS: f64 = 600.0 * STEPS_PER_SECOND as f64;
/// A value trader acts when the price is farther from its belief, in deviations of a minute.
const VALUE_FROM: f64 = 0.7;
/// A momentum trader follows a trend of this many deviations of a minute.
const TREND_FROM: f64 = 0.9;
const FAST_STEPS: f64 = 60.0 * STEPS_PER_SECOND as f64;
const SLOW_STEPS: f64 = 240.0 * STEPS_PER_SECOND as f64;

/// Who comes to the quotes, and for how much.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wish {
    pub trader: usize,
    pub side: Side,
    /// Percent of a usual quote.
    pub percent: i64,
}

#[derive(Debug)]
struct Parent {
    rng: Rng,
    side: Side,
    /// Slices still to come; none: it waits for the next large order.
    left: u64,
    percent: i64,
}

/// The traders' streams in one symbol, and what they know.
#[derive(Debug)]
pub struct Flow {
    noise: Rng,
    value: Rng,
    momentum: Rng,
    parents: [Parent; PARENTS],
    /// In deviations of a minute.
    belief: f64,
    fast: f64,
    slow: f64,
}

/// What traders see of a symbol. Ticks.
#[derive(Debug, Clone, Copy)]
pub struct Sight {
    pub middle: f64,
    pub value: f64,
    pub minute: f64,
    /// Orders in a step.
    pub pace: f64,
    /// Chance that a trader buys who does not care: each leans back to what it began with.
    pub buys: [f64; TRADERS],
}

fn side_of(buys: bool) -> Side {
    if buys { Side::Buy } else { Side::Sell }
}

/// Most orders are small, a few take more than the best quote.
pub fn percent(rng: &mut Rng) -> i64 {
    match rng.below(10) {
        0 => rng.between(50, 120),
        1..4 => rng.between(20, 50),
        _ => rng.between(2, 20),
    }
}

impl Flow {
    pub fn new(seed: u64, symbol: &str, middle: f64) -> Self {
        let parent =
            |purpose| Parent { rng: stream(seed, symbol, purpose), side: Side::Buy, left: 0, percent: 0 };
        Self {
            noise: stream(seed, symbol, "noise"),
            value: stream(seed, symbol, "value trader"),
            momentum: stream(seed, symbol, "momentum"),
            parents: [parent("parent 1"), parent("parent 2")],
            belief: 0.0,
            fast: middle,
            slow: middle,
        }
    }

    /// The price is elsewhere now, and there is no trend in that.
    pub fn begin_at(&mut self, middle: f64) {
        (self.fast, self.slow) = (middle, middle);
    }

    /// Who comes in this step.
    pub fn step(&mut self, sight: &Sight) -> impl Iterator<Item = Wish> + use<> {
        self.fast += (sight.middle - self.fast) / FAST_STEPS;
        self.slow += (sight.middle - self.slow) / SLOW_STEPS;
        let wishes = [
            self.parents[0].step(sight, 0),
            self.parents[1].step(sight, 1),
            self.noise(sight),
            self.value(sight),
            self.momentum(sight),
        ];
        wishes.into_iter().flatten()
    }

    fn noise(&mut self, sight: &Sight) -> Option<Wish> {
        happens(&mut self.noise, sight.pace * NOISE).then(|| {
            let rng = &mut self.noise;
            let trader = rng.index(TRADERS);
            Wish { trader, side: side_of(uniform(rng) < sight.buys[trader]), percent: percent(rng) }
        })
    }

    fn value(&mut self, sight: &Sight) -> Option<Wish> {
        if !happens(&mut self.value, sight.pace * VALUE) {
            return None;
        }
        let rng = &mut self.value;
        // As many steps as lie between two such moments, at once.
        let keeps = 1.0 - (1.0 / (sight.pace * VALUE).max(1e-6) / BELIEF_STEPS).min(1.0);
        self.belief = self.belief * keeps + BELIEF * (1.0 - keeps * keeps).sqrt() * normal(rng);
        let off = sight.value + self.belief * sight.minute - sight.middle;
        (off.abs() > VALUE_FROM * sight.minute).then(|| Wish {
            trader: 2,
            side: side_of(off > 0.0),
            percent: percent(rng),
        })
    }

    fn momentum(&mut self, sight: &Sight) -> Option<Wish> {
        if !happens(&mut self.momentum, sight.pace * MOMENTUM) {
            return None;
        }
        let trend = self.fast - self.slow;
        (trend.abs() > TREND_FROM * sight.minute).then(|| Wish {
            trader: 3,
            side: side_of(trend > 0.0),
            percent: percent(&mut self.momentum),
        })
    }
}

impl Parent {
    fn step(&mut self, sight: &Sight, trader: usize) -> Option<Wish> {
        let chance = sight.pace * SLICES;
        if self.left == 0 {
            if happens(&mut self.rng, chance / IDLE_SLICES) {
                let slices = (SLICES_MIN * pareto_4_3(&mut self.rng)).min(SLICES_MAX);
                self.left = slices as u64;
                self.side = side_of(uniform(&mut self.rng) < sight.buys[trader]);
                self.percent = self.rng.between(6, 30);
            }
            return None;
        }
        if !happens(&mut self.rng, chance) {
            return None;
        }
        self.left -= 1;
        // Who has sold most of what it had, or has bought twice as much, stops.
        let buys = sight.buys[trader];
        if (self.side == Side::Sell && buys >= 0.99) || (self.side == Side::Buy && buys <= 0.01) {
            self.left = 0;
            return None;
        }
        let percent = self.rng.between(self.percent / 2 + 1, self.percent * 3 / 2);
        Some(Wish { trader, side: self.side, percent })
    }
}
