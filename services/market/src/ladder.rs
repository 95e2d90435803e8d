//! A market maker's ladder in one symbol: where its quotes stand, where they should, and the fewest orders that bring
//! the one to the other.
//!
//! Quotes stand on a grid of prices that does not move: when the centre does, what lies far behind moves in front, and the
//! rest stays. The grid is uneven, so that spreads and gaps differ.

use crate::core::OrderId;
use fafnir_matching::Side;

/// Quotes per side: ten must always stand, and one may be on its way.
pub const LEVELS: usize = 12;
/// Size of a quote by its place from the best, percent of a usual one: thin in front, most in the middle.
const SIZES: [i64; LEVELS] = [35, 50, 90, 140, 190, 220, 220, 190, 150, 105, 75, 50];
/// A quote is brought to the size of its place when it is this far off, percent.
const SIZE_OFF: i64 = 55;
/// An order that was asked for and was not answered for by the facts is looked up after so many steps.
const ANSWER_STEPS: u64 = 40;
/// A spread is one tick at least.
const HALF_MILLI_MIN: i64 = 500;

/// What a quote is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Placed, not yet answered.
    Placing {
        ticket: u64,
    },
    Live,
    /// Replaced, not yet answered; the price it leaves.
    Moving {
        from: i64,
    },
    Canceling,
}

/// One order of the maker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// 0 while it is being placed.
    pub order: OrderId,
    pub side: Side,
    /// Ticks; of a moving quote the new price.
    pub price: i64,
    pub total_e4: i64,
    pub filled_e4: i64,
    pub stage: Stage,
    /// Step of the last request about it.
    pub since: u64,
}

/// What the ladder needs next; `percent` is the size, of a usual quote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Place { side: Side, price: i64, percent: i64 },
    Move { quote: usize, price: i64, percent: i64 },
    Cancel { quote: usize },
}

/// The quotes of one symbol.
#[derive(Debug, Clone)]
pub struct Ladder {
    /// Middle of the quotes in thousandths of a tick.
    pub centre_milli: i64,
    /// Nobody quotes nearer to the centre, thousandths of a tick.
    half_milli: i64,
    /// Ticks between two places of the grid, on average.
    pub grid: i64,
    /// The best quotes stand as near as they may, not on the grid: so narrow is the spread of what is traded often.
    is_tight: bool,
    pub quotes: Vec<Quote>,
    /// Nothing has changed since nothing was needed.
    is_settled: bool,
}

impl Ladder {
    pub fn new(centre_milli: i64, grid: i64, is_tight: bool) -> Self {
        Self {
            centre_milli,
            half_milli: 1_000,
            grid: grid.max(1),
            is_tight,
            quotes: Vec::new(),
            is_settled: false,
        }
    }

    /// The middle of the quotes in ticks.
    pub fn centre(&self) -> i64 {
        (self.centre_milli + 500).div_euclid(1_000)
    }

    /// Moves the centre when the wanted one has gone as far as `tolerance_milli`; all in thousandths of a tick.
    pub fn aim(&mut self, wanted_milli: i64, half_milli: i64, tolerance_milli: i64) {
        // The spread follows in steps too: each moves quotes.
        let far = (wanted_milli - self.centre_milli).abs() >= tolerance_milli;
        let wider = (half_milli - self.half_milli).abs() * 3 > self.half_milli.max(2_000);
        if far || wider {
            self.centre_milli = wanted_milli.max(2_000);
            // Less, and both sides could stand at one price.
            self.half_milli = half_milli.max(HALF_MILLI_MIN);
            self.is_settled = false;
        }
    }

    /// Something has happened to the quotes.
    pub fn touch(&mut self) {
        self.is_settled = false;
    }

    /// A place of the grid: evenly numbered, unevenly spaced.
    fn place(&self, number: i64) -> i64 {
        let hash = (number.cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 33).cast_signed();
        number * self.grid + hash % self.grid
    }

    /// The price of a level, best first; below 1 there is none.
    fn wanted(&self, side: Side) -> [i64; LEVELS] {
        let mut prices = [0; LEVELS];
        let front = usize::from(self.is_tight);
        match side {
            Side::Buy => {
                let best = (self.centre_milli - self.half_milli).div_euclid(1_000);
                let limit = best - i64::from(self.is_tight);
                let mut number = limit.div_euclid(self.grid);
                while self.place(number) > limit {
                    number -= 1;
                }
                for (price, level) in prices[front..].iter_mut().zip(0..) {
                    *price = self.place(number - level);
                }
                prices[..front].fill(best);
            }
            Side::Sell => {
                let best = -(-self.centre_milli - self.half_milli).div_euclid(1_000);
                let limit = best + i64::from(self.is_tight);
                let mut number = limit.div_euclid(self.grid);
                while self.place(number) < limit {
                    number += 1;
                }
                for (price, level) in prices[front..].iter_mut().zip(0..) {
                    *price = self.place(number + level);
                }
                prices[..front].fill(best);
            }
        }
        prices
    }

    /// A quote that has waited too long for its answer.
    pub fn is_stuck(&self, step: u64) -> bool {
        self.quotes.iter().any(|q| q.stage != Stage::Live && step >= q.since + ANSWER_STEPS)
    }

    /// Whether an answer may still come by itself.
    pub fn is_waiting(&self, step: u64) -> bool {
        self.quotes.iter().any(|q| q.stage != Stage::Live && step < q.since + ANSWER_STEPS)
    }

    /// Whether an order is on its way that has no id yet.
    pub fn is_placing(&self) -> bool {
        self.quotes.iter().any(|q| q.order == 0)
    }

    pub fn find(&mut self, order: OrderId) -> Option<&mut Quote> {
        self.is_settled = false;
        self.quotes.iter_mut().find(|q| q.order == order && order != 0)
    }

    /// Whether a side has no quote.
    pub fn is_one_sided(&self) -> bool {
        [Side::Buy, Side::Sell].into_iter().any(|side| self.quotes.iter().all(|q| q.side != side))
    }

    /// The best price of a side that is quoted.
    pub fn best(&self, side: Side) -> Option<i64> {
        let prices = self.quotes.iter().filter(|q| q.side == side).map(|q| q.price);
        if side == Side::Buy { prices.max() } else { prices.min() }
    }

    /// The next thing to do, the best prices first. One at a time: do it, then ask again.
    pub fn need(&mut self) -> Option<Need> {
        if self.is_settled {
            return None;
        }
        let [buy, sell] = [Side::Buy, Side::Sell].map(|side| self.need_of(side));
        let need = match (buy, sell) {
            (Some((near, buy)), Some((other, sell))) => Some(if near <= other { buy } else { sell }),
            (one, other) => one.or(other).map(|(_, need)| need),
        };
        self.is_settled = need.is_none();
        need
    }

    /// With how far from the centre it is.
    fn need_of(&self, side: Side) -> Option<(i64, Need)> {
        let wanted = self.wanted(side);
        let far = |price: i64| (price * 1_000 - self.centre_milli).abs();
        let (mut taken, mut count) = ([false; LEVELS], 0);
        // What stands at a wrong price, or twice at one; the farthest from the centre moves first.
        let mut surplus: Option<usize> = None;
        for (i, quote) in self.quotes.iter().enumerate().filter(|(_, q)| q.side == side) {
            count += 1;
            let is_wanted = match wanted.iter().position(|price| *price == quote.price) {
                Some(level) => !std::mem::replace(&mut taken[level], true),
                None => false,
            };
            let is_farthest = || surplus.is_none_or(|s| far(quote.price) >= far(self.quotes[s].price));
            if !is_wanted && quote.stage == Stage::Live && is_farthest() {
                surplus = Some(i);
            }
        }
        let missing =
            (0..LEVELS).find(|level| wanted[*level] > 0 && !taken[*level]).map(|l| (wanted[l], SIZES[l]));
        match (missing, surplus) {
            // It would meet the maker's own quotes on the other side, which have yet to make room.
            (Some((price, _)), _) if self.meets_own(side, price) => None,
            (Some((price, percent)), Some(quote)) => Some((far(price), Need::Move { quote, price, percent })),
            (Some((price, percent)), None) if count < LEVELS => {
                Some((far(price), Need::Place { side, price, percent }))
            }
            (None, Some(quote)) => Some((i64::MAX, Need::Cancel { quote })),
            _ => None,
        }
    }

    /// A quote that has not the size of its place: thin in front, most in the middle. Not urgent.
    pub fn resize(&self, usual_e4: i64) -> Option<Need> {
        [Side::Buy, Side::Sell].into_iter().find_map(|side| {
            let wanted = self.wanted(side);
            let places = wanted.iter().zip(SIZES);
            let off = |price: i64, percent: i64| {
                let quote = self.quotes.iter().position(|q| {
                    let open = (q.total_e4 - q.filled_e4) * 100 / usual_e4.max(1);
                    let is_off = (open - percent).abs() * 100 > percent * SIZE_OFF;
                    q.price == price && q.side == side && q.stage == Stage::Live && is_off
                })?;
                Some(Need::Move { quote, price, percent })
            };
            places.into_iter().find_map(|(price, percent)| off(*price, percent))
        })
    }

    fn meets_own(&self, side: Side, price: i64) -> bool {
        self.quotes.iter().filter(|q| q.side != side).any(|q| {
            let from = if let Stage::Moving { from } = q.stage { from } else { q.price };
            match side {
                Side::Buy => price >= q.price.min(from),
                Side::Sell => price <= q.price.max(from),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(ladder: &mut Ladder) -> (u32, u32) {
        let (mut placed, mut moved) = (0, 0);
        while let Some(need) = ladder.need() {
            match need {
                Need::Place { side, price, .. } => {
                    placed += 1;
                    let order = OrderId::from(placed) + ladder.quotes.len() as OrderId * 1_000;
                    let (stage, total_e4) = (Stage::Live, 100);
                    ladder.quotes.push(Quote { order, side, price, total_e4, filled_e4: 0, stage, since: 0 });
                }
                Need::Move { quote, price, .. } => {
                    moved += 1;
                    ladder.quotes[quote].price = price;
                }
                Need::Cancel { quote } => {
                    ladder.quotes.remove(quote);
                }
            }
            ladder.touch();
            if let (Some(bid), Some(ask)) = (ladder.best(Side::Buy), ladder.best(Side::Sell)) {
                assert!(bid < ask, "the maker met itself");
            }
        }
        (placed, moved)
    }

    fn settled(grid: i64) -> Ladder {
        let mut ladder = Ladder::new(1_000_000, grid, false);
        assert_eq!(settle(&mut ladder), (24, 0));
        ladder
    }

    #[test]
    fn a_ladder_is_filled_once_and_follows_by_moving_only_what_must() {
        let mut ladder = settled(1);
        assert_eq!(settle(&mut ladder), (0, 0));
        ladder.aim(1_001_500, 1_000, 1_600);
        assert_eq!(settle(&mut ladder), (0, 0));
        ladder.aim(1_002_000, 1_000, 1_600);
        assert_eq!(settle(&mut ladder), (0, 4));
        ladder.aim(900_000, 1_000, 1_600);
        assert_eq!(settle(&mut ladder), (0, 24));
        ladder.quotes.remove(3);
        ladder.touch();
        assert_eq!(settle(&mut ladder), (1, 0));
    }

    #[test]
    fn a_coarse_ladder_stands_wider_and_moves_less() {
        let mut ladder = settled(5);
        ladder.aim(1_005_000, 1_000, 1_600);
        let (placed, moved) = settle(&mut ladder);
        assert!(placed == 0 && moved <= 4, "{placed} {moved}");
        let spread = ladder.best(Side::Sell).unwrap() - ladder.best(Side::Buy).unwrap();
        assert!((2..=15).contains(&spread), "{spread}");
        ladder.aim(1_005_000, 12_000, 1_600);
        settle(&mut ladder);
        assert!(ladder.best(Side::Sell).unwrap() - ladder.best(Side::Buy).unwrap() >= 24);
        assert_eq!(ladder.quotes.len(), 24);
    }

    #[test]
    fn surplus_quotes_are_canceled() {
        let mut ladder = settled(1);
        let mut twin = ladder.quotes[0].clone();
        twin.order = 9;
        ladder.quotes.push(twin);
        ladder.touch();
        assert!(matches!(ladder.need(), Some(Need::Cancel { .. })));
        settle(&mut ladder);
        assert_eq!(ladder.quotes.len(), 24);
    }

    #[test]
    fn what_waits_for_an_answer_is_left_alone_and_counts_where_it_goes() {
        let mut ladder = settled(1);
        for quote in &mut ladder.quotes {
            quote.stage = Stage::Moving { from: quote.price };
            quote.since = 10;
        }
        ladder.aim(1_005_000, 1_000, 1_600);
        assert_eq!(ladder.need(), None);
        assert!(!ladder.is_stuck(40));
        assert!(ladder.is_stuck(50));
    }

    #[test]
    fn nobody_quotes_below_one_tick() {
        let mut ladder = Ladder::new(5_000, 1, false);
        settle(&mut ladder);
        assert!(ladder.quotes.iter().all(|q| q.price >= 1));
    }
}
