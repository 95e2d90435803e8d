//! The lines of an account: what moved its cash, and shares that came or went without a trade, each with the balance after
//! it.

use super::{AssetKey, Currency, ledger::Cause};
use uuid::Uuid;

/// One line of what an account gained or lost: cash, or shares that moved without a trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Id of the posting.
    pub id: i64,
    /// Asset of the line, what it changed, and what there was of it after it.
    pub asset: AssetKey,
    pub amount: i64,
    pub balance: i64,
    pub fee: bool,
    pub cause: Cause,
    pub time_us: i64,
    pub price_e4: i64,
    pub exec_seq: i64,
    pub reference: Option<Uuid>,
    /// Shares that moved with it, and their symbol.
    pub shares: i64,
    pub symbol: String,
}

/// A line of a statement: what it did to the cash, and the cash after it, in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub line: Line,
    pub change: i64,
    pub balance: i64,
}

/// Lines, oldest first, as entries that go on from a cash balance.
pub fn entries(currency: Currency, mut balance: i64, lines: Vec<Line>) -> Vec<Entry> {
    let entry = |line: Line| {
        // Shares that move without a trade move no cash.
        let is_cash = line.asset == currency.asset();
        balance = if is_cash { line.balance } else { balance };
        Entry { change: if is_cash { line.amount } else { 0 }, balance, line }
    };
    lines.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_go_on_from_a_balance_and_shares_leave_it() {
        let line = |id, asset, amount, balance| Line {
            id,
            asset,
            amount,
            balance,
            fee: false,
            cause: Cause::Deposit,
            time_us: id,
            price_e4: 0,
            exec_seq: 0,
            reference: None,
            shares: 0,
            symbol: String::new(),
        };
        let usd = Currency::Usd.asset();
        // 500 - 120 = 380; 7 shares came; 380 + 50 = 430.
        let lines = vec![line(1, usd, -120, 380), line(2, 9, 7, 7), line(3, usd, 50, 430)];
        let entries = entries(Currency::Usd, 500, lines);
        let told: Vec<_> = entries.iter().map(|e| (e.change, e.balance)).collect();
        assert_eq!(told, [(-120, 380), (0, 380), (50, 430)]);
    }
}
