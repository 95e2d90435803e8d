//! A market maker's ladder in one symbol: where its quotes stand, where they should, and the fewest orders that bring
//! the one to the other.

use fafnir_proto::v1::Side;
use uuid::Uuid;

/// Quotes per side: ten must always stand, and one may be on its way.
pub const LEVELS: i64 = 12;
/// Ticks between the centre and the best quote.
pub const HALF_SPREAD: i64 = 1;
/// The centre moves only when the wanted one is this far away, in thousandths of a tick.
const HYSTERESIS_MILLI: i64 = 1_600;
/// An order that was asked for and was not answered for by the facts is looked up after so many steps.
const ANSWER_STEPS: u64 = 40;

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
    /// Nil while it is being placed.
    pub order: Uuid,
    pub side: Side,
    /// Ticks; of a moving quote the new price.
    pub price: i64,
    pub total_e4: i64,
    pub filled_e4: i64,
    pub stage: Stage,
    /// Step of the last request about it.
    pub since: u64,
}

/// What the ladder needs next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    Place { side: Side, price: i64 },
    Move { quote: usize, price: i64 },
    Cancel { quote: usize },
}

/// The quotes of one symbol.
#[derive(Debug, Clone, Default)]
pub struct Ladder {
    /// Middle of the quotes in ticks; nobody quotes there.
    pub centre: i64,
    pub quotes: Vec<Quote>,
}

impl Ladder {
    /// Moves the centre when the wanted one (in thousandths of a tick) has gone far enough.
    pub fn aim(&mut self, wanted_milli: i64) {
        if (wanted_milli - self.centre * 1_000).abs() >= HYSTERESIS_MILLI {
            self.centre = ((wanted_milli + 500) / 1_000).max(LEVELS + HALF_SPREAD + 1);
        }
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
        self.quotes.iter().any(|q| q.order.is_nil())
    }

    pub fn find(&mut self, order: Uuid) -> Option<&mut Quote> {
        self.quotes.iter_mut().find(|q| q.order == order && !order.is_nil())
    }

    /// The next thing to do, the best prices first. One at a time: do it, then ask again.
    pub fn need(&self) -> Option<Need> {
        let sides = [Side::Sell, Side::Buy];
        sides.into_iter().find_map(|side| self.need_of(side))
    }

    fn need_of(&self, side: Side) -> Option<Need> {
        let wanted = |level: i64| match side {
            Side::Buy => self.centre - HALF_SPREAD - level,
            _ => self.centre + HALF_SPREAD + level,
        };
        let own: Vec<(usize, &Quote)> =
            self.quotes.iter().enumerate().filter(|(_, q)| q.side == side).collect();
        let missing = (0..LEVELS).map(wanted).find(|p| own.iter().all(|(_, q)| q.price != *p));
        let is_wanted = |price: i64| (0..LEVELS).any(|level| wanted(level) == price);
        // What stands at a wrong price, or twice at one; the farthest from the centre moves first.
        let surplus = own
            .iter()
            .filter(|(i, q)| {
                q.stage == Stage::Live
                    && (!is_wanted(q.price) || own.iter().any(|(j, other)| j < i && other.price == q.price))
            })
            .max_by_key(|(_, q)| (q.price - self.centre).abs())
            .map(|(i, _)| *i);
        match (missing, surplus) {
            // It would meet the maker's own quotes on the other side, which have yet to make room.
            (Some(price), _) if self.meets_own(side, price) => None,
            (Some(price), Some(quote)) => Some(Need::Move { quote, price }),
            (Some(price), None) if (own.len() as i64) < LEVELS => Some(Need::Place { side, price }),
            (None, Some(quote)) if own.len() as i64 > LEVELS => Some(Need::Cancel { quote }),
            _ => None,
        }
    }

    fn meets_own(&self, side: Side, price: i64) -> bool {
        self.quotes.iter().filter(|q| q.side != side).any(|q| {
            let from = if let Stage::Moving { from } = q.stage { from } else { q.price };
            match side {
                Side::Buy => price >= q.price.min(from),
                _ => price <= q.price.max(from),
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
                Need::Place { side, price } => {
                    placed += 1;
                    let order = Uuid::from_u128(u128::from(placed) + ladder.quotes.len() as u128 * 1_000);
                    let quote =
                        Quote { order, side, price, total_e4: 1, filled_e4: 0, stage: Stage::Live, since: 0 };
                    ladder.quotes.push(quote);
                }
                Need::Move { quote, price } => {
                    moved += 1;
                    ladder.quotes[quote].price = price;
                }
                Need::Cancel { quote } => {
                    ladder.quotes.remove(quote);
                }
            }
            let best = |side| ladder.quotes.iter().filter(move |q| q.side == side).map(|q| q.price);
            if let (Some(bid), Some(ask)) = (best(Side::Buy).max(), best(Side::Sell).min()) {
                assert!(bid < ask, "the maker met itself");
            }
        }
        (placed, moved)
    }

    #[test]
    fn a_ladder_is_filled_once_and_follows_by_moving_only_what_must() {
        let mut ladder = Ladder::default();
        ladder.aim(1_000_000);
        assert_eq!(settle(&mut ladder), (24, 0));
        assert_eq!(settle(&mut ladder), (0, 0));
        ladder.aim(1_001_500);
        assert_eq!(settle(&mut ladder), (0, 0));
        ladder.aim(1_002_000);
        assert_eq!(settle(&mut ladder), (0, 4));
        ladder.aim(900_000);
        assert_eq!(settle(&mut ladder), (0, 24));
        ladder.quotes.remove(3);
        assert_eq!(settle(&mut ladder), (1, 0));
    }

    #[test]
    fn surplus_quotes_are_canceled() {
        let mut ladder = Ladder::default();
        ladder.aim(1_000_000);
        settle(&mut ladder);
        let mut twin = ladder.quotes[0].clone();
        twin.order = Uuid::from_u128(9);
        ladder.quotes.push(twin);
        assert!(matches!(ladder.need(), Some(Need::Cancel { .. })));
        settle(&mut ladder);
        assert_eq!(ladder.quotes.len(), 24);
    }

    #[test]
    fn what_waits_for_an_answer_is_left_alone_and_counts_where_it_goes() {
        let mut ladder = Ladder::default();
        ladder.aim(1_000_000);
        settle(&mut ladder);
        for quote in &mut ladder.quotes {
            quote.stage = Stage::Moving { from: quote.price };
            quote.since = 10;
        }
        ladder.aim(1_005_000);
        assert_eq!(ladder.need(), None);
        assert!(!ladder.is_stuck(40));
        assert!(ladder.is_stuck(50));
    }
}
