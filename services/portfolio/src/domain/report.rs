//! The lines of an account as a report tells them: trades, each with its fees, and what came and went without one.

use super::{
    ledger::{Cause, POSTINGS_MAX},
    statement::{Entry, Line},
};
use uuid::Uuid;

/// A page has at least so many lines, so that it holds the lines of any one ledger row.
pub const LINES_MIN: u32 = POSTINGS_MAX as u32;

/// A trade of an account, in micros of its currency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trade {
    /// The ledger row.
    pub row: i64,
    pub time_us: i64,
    pub symbol: String,
    pub exec_seq: i64,
    /// Shares that it brought; negative: took.
    pub shares: i64,
    pub price_e4: i64,
    /// The principal.
    pub amount: i64,
    pub fee: i64,
    pub order: Option<Uuid>,
}

fn row(line: &Line) -> i64 {
    line.id.div_euclid(i64::from(LINES_MIN))
}

/// Cuts lines, of which one more than `limit` tells that there are more, between two ledger rows. Answers whether there
/// are more.
pub fn cut_between_rows(lines: &mut Vec<Line>, limit: u32) -> bool {
    let Some(next) = lines.get(limit as usize).map(row) else { return false };
    let whole = lines.iter().take_while(|line| row(line) != next).count();
    lines.truncate(whole);
    true
}

/// Trades, and everything else, as they came.
pub fn split(entries: Vec<Entry>) -> (Vec<Trade>, Vec<Entry>) {
    let (mut trades, mut flows): (Vec<Trade>, _) = (Vec::new(), Vec::new());
    for entry in entries {
        if entry.line.cause != Cause::Trade {
            flows.push(entry);
            continue;
        }
        let line = entry.line;
        if trades.last().is_none_or(|trade| trade.row != row(&line)) {
            trades.push(Trade {
                row: row(&line),
                time_us: line.time_us,
                symbol: line.symbol,
                exec_seq: line.exec_seq,
                shares: line.shares,
                price_e4: line.price_e4,
                amount: 0,
                fee: 0,
                order: line.reference,
            });
        }
        if let Some(trade) = trades.last_mut() {
            let part = if line.fee { &mut trade.fee } else { &mut trade.amount };
            *part = part.saturating_add(line.amount.saturating_abs());
        }
    }
    (trades, flows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Currency;

    fn line(row: i64, number: i64, amount: i64, cause: Cause, fee: bool) -> Line {
        Line {
            id: row * i64::from(LINES_MIN) + number,
            asset: Currency::Usd.asset(),
            amount,
            balance: 0,
            fee,
            cause,
            time_us: row,
            price_e4: 245_000,
            exec_seq: row,
            reference: None,
            shares: if cause == Cause::Trade { amount.signum() * -10 } else { 0 },
            symbol: "INTC".into(),
        }
    }

    #[test]
    fn a_trade_is_one_row_with_its_fees() {
        let lines = [
            line(1, 0, 100, Cause::Deposit, false),
            line(2, 1, -245, Cause::Trade, false),
            line(2, 3, -1, Cause::Trade, true),
            line(3, 2, 50, Cause::Trade, false),
            line(4, 0, -7, Cause::Withdrawal, false),
        ];
        let entries = lines.map(|line| Entry { change: line.amount, balance: 0, line }).to_vec();
        let (trades, flows) = split(entries);
        let told: Vec<_> = trades.iter().map(|t| (t.row, t.shares, t.amount, t.fee)).collect();
        assert_eq!(told, [(2, 10, 245, 1), (3, -10, 50, 0)]);
        assert_eq!(flows.iter().map(|flow| flow.change).collect::<Vec<_>>(), [100, -7]);
    }

    #[test]
    fn a_page_ends_between_two_rows() {
        let all = [
            line(1, 0, 1, Cause::Deposit, false),
            line(2, 0, -1, Cause::Trade, false),
            line(2, 1, -1, Cause::Trade, true),
            line(3, 0, 1, Cause::Deposit, false),
        ];
        for (limit, left, more) in [(1, 1, true), (2, 1, true), (3, 3, true), (4, 4, false), (9, 4, false)] {
            let mut lines = all[..all.len().min(limit + 1)].to_vec();
            assert_eq!(cut_between_rows(&mut lines, limit as u32), more, "{limit}");
            assert_eq!(lines.len(), left, "{limit}");
        }
    }
}
