//! The price ladder: a static axis of price steps, a cursor on it, and the rule when it may move.
//!
//! The axis never moves while the cursor or the mouse pointer is on it; only the user moves it then. Else it follows the
//! market.

use fafnir_proto::v1;

/// Price steps in ticks.
pub const GROUPS: [i64; 8] = [1, 2, 5, 10, 25, 50, 100, 500];

/// The axis. Rows are numbered by `price / step`; the top row is `top`, each row below is one less.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ladder {
    /// Index into [`GROUPS`].
    pub group: usize,
    /// Number of the top row.
    pub top: i64,
    /// Number of the row that the user chose; none while no price is chosen.
    pub cursor: Option<i64>,
    /// The user moved the axis without choosing a row: it stays.
    pub pinned: bool,
    /// False until the axis was placed once.
    pub placed: bool,
}

impl Ladder {
    /// The size of a row, e4.
    pub fn step_e4(&self, tick_e4: i64) -> i64 {
        GROUPS.get(self.group).copied().unwrap_or(1).saturating_mul(tick_e4.max(1))
    }

    /// Puts a row into the middle.
    pub fn centre(&mut self, row: i64, rows: usize) {
        self.top = row.saturating_add(rows as i64 / 2);
        self.placed = true;
    }

    /// Follows the market: recentres when its row leaves the middle half, and only while nothing
    /// keeps it where it is.
    pub fn follow(&mut self, row: i64, rows: usize) {
        let margin = rows as i64 / 4;
        let from_top = self.top.saturating_sub(row);
        let outside = from_top < margin || from_top >= rows as i64 - margin;
        if !self.placed || (!self.is_pinned() && outside) {
            self.centre(row, rows);
        }
    }

    /// True while the axis stays where it is.
    pub fn is_pinned(&self) -> bool {
        self.cursor.is_some() || self.pinned
    }

    /// Moves the cursor and scrolls only as far as it takes to keep it in sight.
    pub fn move_cursor(&mut self, from: i64, by: i64, rows: usize) {
        let row = from.saturating_add(by).max(1);
        self.cursor = Some(row);
        let last = self.top.saturating_sub(rows as i64 - 1);
        if row > self.top {
            self.top = row;
        } else if row < last {
            self.top = row.saturating_add(rows as i64 - 1);
        }
    }

    /// The number of the row on a line of the ladder, from the top.
    pub fn row_at(&self, line: usize) -> i64 {
        self.top.saturating_sub(line as i64)
    }

    /// The price of a row, e4.
    pub fn price_e4(&self, row: i64, tick_e4: i64) -> i64 {
        row.saturating_mul(self.step_e4(tick_e4))
    }

    /// The row of a price; bids are grouped downwards, asks upwards, so that no level looks better than it is.
    pub fn row_of(&self, price_e4: i64, side: v1::Side, tick_e4: i64) -> i64 {
        let step = self.step_e4(tick_e4);
        let down = price_e4.div_euclid(step);
        if side == v1::Side::Sell && price_e4.rem_euclid(step) != 0 { down.saturating_add(1) } else { down }
    }
}

/// Adds up the levels of one side by row, best first.
pub fn grouped(ladder: &Ladder, levels: &[v1::Level], side: v1::Side, tick_e4: i64) -> Vec<(i64, i64)> {
    let mut rows: Vec<(i64, i64)> = Vec::new();
    for level in levels {
        let row = ladder.row_of(level.price_e4, side, tick_e4);
        match rows.last_mut() {
            Some((last, quantity)) if *last == row => *quantity = quantity.saturating_add(level.quantity_e4),
            _ => rows.push((row, level.quantity_e4)),
        }
    }
    rows
}

/// The bids' share of the shown quantity in percent; none in an empty book.
pub fn imbalance_percent(book: &v1::BookImage, levels: usize) -> Option<i64> {
    let sum = |side: &[v1::Level]| -> i128 {
        side.iter().take(levels).map(|l| i128::from(l.quantity_e4.max(0))).sum()
    };
    let (bids, asks) = (sum(&book.bids), sum(&book.asks));
    let total = bids + asks;
    if total == 0 { None } else { i64::try_from(bids * 100 / total).ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_stays_while_the_cursor_is_on_it() {
        let mut ladder = Ladder::default();
        ladder.follow(1000, 20);
        assert_eq!(ladder.top, 1010);
        ladder.move_cursor(1000, 1, 20);
        ladder.follow(5000, 20);
        assert_eq!((ladder.top, ladder.cursor), (1010, Some(1001)));
        ladder.cursor = None;
        ladder.follow(5000, 20);
        assert_eq!(ladder.top, 5010);
    }

    #[test]
    fn the_cursor_scrolls_the_axis_only_at_its_ends() {
        let mut ladder = Ladder::default();
        ladder.centre(100, 10);
        ladder.move_cursor(100, 5, 10);
        assert_eq!(ladder.top, 105);
        ladder.move_cursor(105, 1, 10);
        assert_eq!(ladder.top, 106);
        ladder.move_cursor(106, -10, 10);
        assert_eq!((ladder.cursor, ladder.top), (Some(96), 105));
    }

    #[test]
    fn grouping_never_makes_a_level_look_better() {
        let ladder = Ladder { group: 3, ..Ladder::default() };
        assert_eq!(ladder.row_of(2_310_700, v1::Side::Buy, 100), 2310);
        assert_eq!(ladder.row_of(2_310_700, v1::Side::Sell, 100), 2311);
        assert_eq!(ladder.row_of(2_311_000, v1::Side::Sell, 100), 2311);
    }
}
