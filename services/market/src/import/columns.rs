//! Which column of a file is what.

use super::{Fault, How};

/// What a column may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    Time,
    /// Time of day, where the date has a column of its own.
    Clock,
    Open,
    High,
    Low,
    Close,
    Volume,
    Symbol,
}

impl Field {
    const ALL: [Self; 8] =
        [Self::Time, Self::Clock, Self::Open, Self::High, Self::Low, Self::Close, Self::Volume, Self::Symbol];

    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Clock => "clock",
            Self::Open => "open",
            Self::High => "high",
            Self::Low => "low",
            Self::Close => "close",
            Self::Volume => "volume",
            Self::Symbol => "symbol",
        }
    }

    /// What vendors call it, in small letters without signs. A header that names both a date and a time has the time of
    /// day apart.
    fn names(self) -> &'static [&'static str] {
        match self {
            Self::Time => &["date", "timestamp", "datetime", "windowstart", "opentime", "t", "time"],
            Self::Clock => &["time"],
            Self::Open => &["open", "o"],
            Self::High => &["high", "h"],
            Self::Low => &["low", "l"],
            Self::Close => &["close", "c"],
            Self::Volume => &["volume", "vol", "v"],
            Self::Symbol => &["symbol", "ticker", "s"],
        }
    }
}

/// The columns of a file.
#[derive(Debug)]
pub struct Columns {
    pub format: &'static str,
    at: [Option<usize>; 8],
}

fn plain(name: &str) -> String {
    name.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_ascii_lowercase()
}

/// What lies between two cells: most files have a comma.
pub fn delimiter(text: &str) -> u8 {
    let first = text.lines().next().unwrap_or_default();
    [b',', b';', b'\t'].into_iter().max_by_key(|d| first.bytes().filter(|b| b == d).count()).unwrap_or(b',')
}

/// `AAPL.US` of Stooq is AAPL.
pub fn same_symbol(own: &str, wanted: &str) -> bool {
    let plain = own.to_ascii_uppercase();
    plain == wanted || plain.strip_suffix(".US") == Some(wanted)
}

impl Columns {
    /// By the first row; and whether that is a header.
    pub fn of(first: &csv::StringRecord, how: &How) -> Result<(Self, bool), Fault> {
        if first.iter().all(|cell| cell.starts_with(|c: char| c.is_ascii_digit())) && first.len() >= 11 {
            // Klines of Binance have no header: time, open, high, low, close, volume, end, …
            let at = [Some(0), None, Some(1), Some(2), Some(3), Some(4), Some(5), None];
            return Ok((Self { format: "Binance klines", at }, false));
        }
        let names: Vec<String> = first.iter().map(plain).collect();
        let find = |name: &str| names.iter().position(|n| n == name);
        let mut columns = Self { format: format_of(&names), at: [None; 8] };
        for field in Field::ALL {
            columns.at[field as usize] = match how.columns.iter().find(|(f, _)| f == field.name()) {
                Some((_, name)) => Some(find(&plain(name)).ok_or_else(|| Fault {
                    line: 1,
                    column: 0,
                    what: format!("no column is called {name:?}"),
                })?),
                None => field.names().iter().find_map(|name| find(name)),
            };
        }
        if columns.at[Field::Clock as usize] == columns.at[Field::Time as usize] {
            columns.at[Field::Clock as usize] = None;
        }
        for field in [Field::Time, Field::Open, Field::High, Field::Low, Field::Close] {
            if columns.at[field as usize].is_none() {
                let header: Vec<&str> = first.iter().take(12).collect();
                let what = format!(
                    "no column of the {name} among {header:?}; --column {name}=NAME names it",
                    name = field.name()
                );
                return Err(Fault { line: 1, column: 0, what });
            }
        }
        Ok((columns, true))
    }

    pub fn get<'r>(&self, record: &'r csv::StringRecord, field: Field) -> Option<&'r str> {
        record.get(self.at[field as usize]?)
    }

    /// The column's number from 1; 0 where there is none.
    pub fn number(&self, field: Field) -> usize {
        self.at[field as usize].map_or(0, |at| at + 1)
    }
}

fn format_of(names: &[String]) -> &'static str {
    let has = |name: &str| names.iter().any(|n| n == name);
    if has("adjclose") {
        "Yahoo"
    } else if has("windowstart") {
        "Polygon"
    } else if has("opentime") {
        "Binance klines"
    } else if has("tradecount") || has("vwap") || has("vw") {
        "Alpaca"
    } else if has("per") || (has("date") && has("volume")) {
        "Stooq"
    } else {
        "CSV"
    }
}
