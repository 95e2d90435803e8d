//! What an account traded of a symbol in a span of time, and what the shares that are left cost, first in first out.

use std::ops::{Add, Sub};

/// Numbers of a [`Traded`], and the bytes of its stored form.
const NUMBERS: usize = 11;
const BYTES: usize = NUMBERS * 16;

/// Shares (e4) and micros of the account's currency. The same money may go round many times: 128 bits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traded {
    pub bought: i128,
    /// For what was bought, fees included.
    pub paid: i128,
    pub sold: i128,
    /// For what was sold, fees taken off.
    pub proceeds: i128,
    /// Average cost that went with what was sold.
    pub cost: i128,
    pub fees: i128,
    pub trades: i128,
    /// Shares that came without a trade, and their cost.
    pub given: i128,
    pub given_cost: i128,
    /// Shares that went without a trade, and the average cost that went with them.
    pub taken: i128,
    pub taken_cost: i128,
}

impl Traded {
    fn numbers(&self) -> [i128; NUMBERS] {
        [
            self.bought,
            self.paid,
            self.sold,
            self.proceeds,
            self.cost,
            self.fees,
            self.trades,
            self.given,
            self.given_cost,
            self.taken,
            self.taken_cost,
        ]
    }

    fn of(
        [bought, paid, sold, proceeds, cost, fees, trades, given, given_cost, taken, taken_cost]: [i128;
            NUMBERS],
    ) -> Self {
        Self { bought, paid, sold, proceeds, cost, fees, trades, given, given_cost, taken, taken_cost }
    }

    fn with(self, other: Self, f: impl Fn(i128, i128) -> i128) -> Self {
        let (mine, theirs) = (self.numbers(), other.numbers());
        Self::of(std::array::from_fn(|n| f(mine[n], theirs[n])))
    }

    /// Its stored form.
    pub fn bytes(&self) -> Vec<u8> {
        self.numbers().iter().flat_map(|n| n.to_be_bytes()).collect()
    }

    /// Reads the stored form.
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let (numbers, rest) = bytes.as_chunks::<16>();
        if bytes.len() != BYTES || !rest.is_empty() {
            return None;
        }
        Some(Self::of(std::array::from_fn(|n| i128::from_be_bytes(numbers[n]))))
    }

    /// What the sales gained by average cost.
    pub fn realized(&self) -> i128 {
        self.proceeds - self.cost
    }

    /// What the cost of the shares that are there grew by, by average cost.
    pub fn cost_added(&self) -> i128 {
        self.paid + self.given_cost - self.cost - self.taken_cost
    }

    /// What the sales gained first in first out, where the lots cost `before` before and `after` after; `taken` is the
    /// cost of the lots that went without a trade.
    pub fn realized_fifo(&self, before: i128, after: i128, taken: i128) -> i128 {
        self.proceeds - (before + self.paid + self.given_cost - after - taken)
    }
}

impl Add for Traded {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        self.with(other, i128::saturating_add)
    }
}

impl Sub for Traded {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        self.with(other, i128::saturating_sub)
    }
}

/// Shares that came at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lot {
    /// Id of the posting.
    pub id: i64,
    pub time_us: i64,
    /// The order; none where they came without a trade.
    pub reference: Option<uuid::Uuid>,
    /// As it came.
    pub quantity: i64,
    pub cost: i64,
}

impl Lot {
    /// What `left` of its shares cost: its part, rounded down, so that the last share takes the last micro with it. It
    /// depends on what is left alone, not on the steps in which the others went.
    pub fn cost_of(&self, left: i64) -> i64 {
        if left >= self.quantity || self.quantity <= 0 {
            return self.cost;
        }
        let part = i128::from(self.cost) * i128::from(left) / i128::from(self.quantity);
        i64::try_from(part).unwrap_or(self.cost)
    }
}

/// All lots of a symbol together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Lots {
    pub count: u64,
    pub quantity: i64,
    pub cost: i128,
    /// The oldest one, and what is left of it.
    pub oldest: Option<(i64, i64)>,
}

impl Lots {
    /// Takes the lots newest first until they make up the shares that are there: what was sold was older. Answers whether
    /// more are needed.
    pub fn take(&mut self, lot: &Lot, held: i64) -> bool {
        let missing = held - self.quantity;
        if missing <= 0 {
            return false;
        }
        let left = lot.quantity.min(missing);
        self.count += 1;
        self.quantity += left;
        self.cost += i128::from(lot.cost_of(left));
        self.oldest = Some((lot.id, left));
        self.quantity < held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lot(id: i64, quantity: i64, cost: i64) -> Lot {
        Lot { id, time_us: id, reference: None, quantity, cost }
    }

    #[test]
    fn what_is_left_are_the_newest_lots() {
        // Bought 10 for 100, 5 for 60, 5 for 70; 12 were sold: the first lot and 2 of the second. Left are 3 of 5 for
        // 60, that is 36, and 5 for 70: 106.
        let mut lots = Lots::default();
        assert!(lots.take(&lot(3, 5, 70), 8));
        assert!(!lots.take(&lot(2, 5, 60), 8));
        assert!(!lots.take(&lot(1, 10, 100), 8));
        assert_eq!(lots, Lots { count: 2, quantity: 8, cost: 106, oldest: Some((2, 3)) });
        // Of 3 micros for 2 shares one share carries 1, both 3.
        assert_eq!((lot(1, 2, 3).cost_of(1), lot(1, 2, 3).cost_of(2), lot(1, 2, 3).cost_of(0)), (1, 3, 0));
    }

    #[test]
    fn gains_follow_from_proceeds_and_cost() {
        // As above; 12 were sold for 144. Average cost of 20 for 230 is 11.50: 138. First in first out: 100 + 24 = 124.
        let traded = Traded {
            bought: 20,
            paid: 230,
            sold: 12,
            proceeds: 144,
            cost: 138,
            trades: 4,
            ..Traded::default()
        };
        assert_eq!((traded.realized(), traded.cost_added()), (6, 92));
        assert_eq!(traded.realized_fifo(0, 106, 0), 144 - 124);
        let again = Traded::read(&traded.bytes()).unwrap();
        assert_eq!(again, traded);
        assert_eq!(traded + again - traded, traded);
        assert!(Traded::read(&traded.bytes()[1..]).is_none());
    }
}
