//! Time and sales: trades by their gapless number, and which numbers are missing.

use fafnir_proto::v1;
use std::collections::BTreeMap;

/// Trades kept.
pub const TRADES_MAX: usize = 600;
/// Smallest trades to choose from, in shares; 0 shows all.
pub const FILTERS: [i64; 5] = [0, 10, 50, 100, 500];
/// A gap larger than this is not filled but skipped, with a line in the log.
pub const GAP_MAX: u64 = 500;
/// A request for missing trades that has no answer is sent again after this (microseconds).
pub const GAP_RETRY_US: i64 = 3_000_000;

/// The tape of one symbol.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tape {
    trades: BTreeMap<u64, v1::Trade>,
    /// Every trade up to this number, from the oldest kept, is here.
    contiguous: u64,
    /// When the missing trades were last asked for.
    pub asked_us: Option<i64>,
    /// Index into [`FILTERS`].
    pub filter: usize,
}

impl Tape {
    /// An empty tape with a filter.
    pub fn new(filter: usize) -> Self {
        Self { filter, ..Self::default() }
    }

    /// Takes trades from either source; returns those that are new, oldest first.
    pub fn take(&mut self, trades: Vec<v1::Trade>) -> Vec<v1::Trade> {
        let mut fresh = Vec::new();
        for trade in trades.into_iter().map(super::intake::trade) {
            let too_old = self.trades.len() >= TRADES_MAX
                && self.trades.first_key_value().is_some_and(|(first, _)| trade.trade_no < *first);
            if trade.trade_no == 0 || too_old || self.trades.contains_key(&trade.trade_no) {
                continue;
            }
            self.trades.insert(trade.trade_no, trade.clone());
            fresh.push(trade);
        }
        while self.trades.len() > TRADES_MAX {
            self.trades.pop_first();
        }
        if let Some((first, _)) = self.trades.first_key_value() {
            self.contiguous = self.contiguous.max(*first);
        }
        while let Some(next) = self.contiguous.checked_add(1).filter(|n| self.trades.contains_key(n)) {
            self.contiguous = next;
        }
        if !self.has_gap() {
            self.asked_us = None;
        }
        fresh.sort_by_key(|t| t.trade_no);
        fresh
    }

    /// True when a number between two known trades is missing.
    pub fn has_gap(&self) -> bool {
        self.trades.last_key_value().is_some_and(|(last, _)| *last > self.contiguous)
    }

    /// The number after which trades are missing, when they should be asked for now.
    pub fn wants(&self, now_us: i64) -> Option<u64> {
        let waits = self.asked_us.is_some_and(|at| now_us - at < GAP_RETRY_US);
        (self.has_gap() && !waits).then_some(self.contiguous)
    }

    /// The numbers that are missing: after the first and before the second.
    pub fn gap(&self) -> Option<(u64, u64)> {
        let next = self.trades.range(self.contiguous.checked_add(1)?..).next()?;
        self.has_gap().then_some((self.contiguous, *next.0))
    }

    /// Gives up on the missing numbers.
    pub fn skip_gap(&mut self) {
        if let Some((last, _)) = self.trades.last_key_value() {
            self.contiguous = *last;
        }
        self.asked_us = None;
    }

    /// The last trade without a gap before it.
    pub fn last_number(&self) -> u64 {
        self.contiguous
    }

    pub fn last(&self) -> Option<&v1::Trade> {
        self.trades.last_key_value().map(|(_, trade)| trade)
    }

    pub fn is_empty(&self) -> bool {
        self.trades.is_empty()
    }

    /// Newest first, those at or above the filter.
    pub fn shown(&self) -> impl Iterator<Item = &v1::Trade> {
        let least = self.filter_e4();
        self.trades.values().rev().filter(move |t| t.quantity_e4 >= least)
    }

    /// Newest first.
    pub fn all(&self) -> impl Iterator<Item = &v1::Trade> {
        self.trades.values().rev()
    }

    pub fn filter_e4(&self) -> i64 {
        FILTERS.get(self.filter).copied().unwrap_or(0) * 10_000
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trades(numbers: impl IntoIterator<Item = u64>) -> Vec<v1::Trade> {
        numbers
            .into_iter()
            .map(|trade_no| v1::Trade { trade_no, quantity_e4: 10_000, ..Default::default() })
            .collect()
    }

    #[test]
    fn a_missing_number_is_asked_for_once_and_filled_in_place() {
        let mut tape = Tape::default();
        tape.take(trades([7, 8]));
        assert_eq!(tape.wants(0), None);
        tape.take(trades([11]));
        assert_eq!(tape.wants(0), Some(8));
        tape.asked_us = Some(0);
        assert_eq!(tape.wants(1), None);
        assert_eq!(tape.wants(GAP_RETRY_US), Some(8));
        assert_eq!(tape.take(trades([9, 10, 11])).len(), 2);
        assert!(!tape.has_gap());
        assert_eq!(tape.shown().map(|t| t.trade_no).collect::<Vec<_>>(), [11, 10, 9, 8, 7]);
    }

    #[test]
    fn a_trade_that_comes_twice_counts_once_and_the_tape_is_bounded() {
        let mut tape = Tape::default();
        assert_eq!(tape.take(trades([1, 1])).len(), 1);
        tape.take(trades(2..2_000));
        assert_eq!(tape.all().count(), TRADES_MAX);
        assert!(!tape.has_gap());
        assert!(tape.take(trades([3])).is_empty());
    }
}
