//! The statement of an account: what moved its cash between two days, with the balance after each line.

use super::{AssetKey, Currency, ledger::Cause};
use fafnir_platform::clock::{DAY_US, SECOND_US};
use time::{Date, format_description::well_known::Iso8601};
use uuid::Uuid;

/// Days of a statement that does not say where it begins.
const DAYS_DEFAULT: i64 = 30;

/// One line of what an account gained or lost: cash, or shares that came without a trade.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Id of the posting.
    pub id: i64,
    /// Asset of the line and what it changed.
    pub asset: AssetKey,
    pub amount: i64,
    pub fee: bool,
    pub cause: Cause,
    pub time_us: i64,
    pub price_e4: i64,
    pub reference: Option<Uuid>,
    /// Shares that moved with it, and their symbol.
    pub shares: i64,
    pub symbol: String,
}

impl Line {
    /// What it did to the cash of its account, in micros: nothing where shares moved without a trade.
    pub fn cash(&self, currency: Currency) -> i64 {
        if self.asset == currency.asset() { self.amount } else { 0 }
    }
}

/// Why the days of a statement are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    #[error("{0} must be a date, YYYY-MM-DD")]
    Date(&'static str),
    #[error("from must not be after to")]
    Empty,
}

/// The time of a statement: from the start of its first day to the end of its last one, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from_us: i64,
    pub to_us: i64,
}

impl Span {
    /// Reads two dates that are both included. Without `from` it is the last 30 days, without `to` until today.
    pub fn parse(from: Option<&str>, to: Option<&str>, now_us: i64) -> Result<Self, Malformed> {
        let last = to.map_or(Ok(start_of_day(now_us)), |text| day("to", text))?;
        let first = from.map_or(Ok(last - (DAYS_DEFAULT - 1) * DAY_US), |text| day("from", text))?;
        if first > last {
            return Err(Malformed::Empty);
        }
        Ok(Self { from_us: first, to_us: last + DAY_US })
    }
}

/// The start of the UTC day of a time.
pub fn start_of_day(time_us: i64) -> i64 {
    time_us.div_euclid(DAY_US) * DAY_US
}

fn day(field: &'static str, text: &str) -> Result<i64, Malformed> {
    let day = Date::parse(text.trim(), &Iso8601::DATE).map_err(|_| Malformed::Date(field))?;
    Ok(day.midnight().assume_utc().unix_timestamp() * SECOND_US)
}

/// A line of a statement with the balance after it, in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub line: Line,
    pub change: i64,
    pub balance: i64,
}

/// What a span did to the cash of an account, in micros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    pub opening: i64,
    pub closing: i64,
    /// Oldest first.
    pub entries: Vec<Entry>,
}

/// The statement that a balance now and the lines since the start of the span, newest first, amount to; `None` beyond
/// 64 bits.
pub fn build(currency: Currency, balance_now: i64, lines: Vec<Line>, span: Span) -> Option<Statement> {
    let (mut balance, mut closing) = (balance_now, balance_now);
    let mut entries = Vec::new();
    for line in lines {
        if line.time_us < span.from_us {
            break;
        }
        let change = line.cash(currency);
        let before = balance.checked_sub(change)?;
        if line.time_us >= span.to_us {
            closing = before;
        } else {
            entries.push(Entry { line, change, balance });
        }
        balance = before;
    }
    entries.reverse();
    Some(Statement { opening: balance, closing, entries })
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// Cash that moved on a day.
    pub fn cash(day: i64, cause: Cause, amount: i64) -> Line {
        Line {
            id: day * 16,
            asset: Currency::Usd.asset(),
            amount,
            fee: false,
            cause,
            time_us: day * DAY_US,
            price_e4: 0,
            reference: None,
            shares: 0,
            symbol: String::new(),
        }
    }

    #[test]
    fn a_statement_adds_up_from_opening_to_closing() {
        // Newest first: 500 − 120 − 1 + 50 = 429 now.
        let lines = vec![
            cash(9, Cause::Deposit, 50),
            Line { fee: true, ..cash(5, Cause::Trade, -1) },
            cash(4, Cause::Trade, -120),
            cash(1, Cause::Deposit, 500),
        ];
        let span = Span::parse(Some("1970-01-03"), Some("1970-01-06"), 0).unwrap();
        assert_eq!(span, Span { from_us: 2 * DAY_US, to_us: 6 * DAY_US });
        let statement = build(Currency::Usd, 429, lines.clone(), span).unwrap();
        assert_eq!((statement.opening, statement.closing), (500, 379));
        let balances: Vec<_> = statement.entries.iter().map(|e| e.balance).collect();
        assert_eq!(balances, [380, 379]);
        let later = Span { from_us: 20 * DAY_US, to_us: 21 * DAY_US };
        let nothing = build(Currency::Usd, 429, lines, later).unwrap();
        assert_eq!((nothing.opening, nothing.closing), (429, 429));
    }

    #[test]
    fn shares_that_came_without_a_trade_move_no_cash() {
        let gift = Line { asset: 9, ..cash(3, Cause::Endowment, 50_000) };
        let span = Span { from_us: 0, to_us: 10 * DAY_US };
        let statement = build(Currency::Usd, 7, vec![gift], span).unwrap();
        assert_eq!((statement.opening, statement.closing, statement.entries[0].change), (7, 7, 0));
    }

    #[test]
    fn a_span_is_thirty_days_until_today_unless_it_says_otherwise() {
        let now_us = 100 * DAY_US + 5;
        let whole = Span::parse(None, None, now_us).unwrap();
        assert_eq!(whole, Span { from_us: 71 * DAY_US, to_us: 101 * DAY_US });
        assert_eq!(Span::parse(Some("1970-01-02"), Some(" 1970-01-02 "), now_us).unwrap().from_us, DAY_US);
        assert_eq!(Span::parse(Some("2026-02-30"), None, now_us), Err(Malformed::Date("from")));
        assert_eq!(Span::parse(Some("1970-01-03"), Some("1970-01-02"), now_us), Err(Malformed::Empty));
    }
}
