//! Bars of somebody's own from a CSV file, as data vendors write them: recognised by their header or their form, read row by
//! row, each fault told with its line and column.

mod columns;
mod times;

use columns::{Columns, Field};
use fafnir_rules::money::{Error as Malformed, parse_e4, parse_scaled};
use std::{collections::BTreeMap, fmt};

/// Rows of a file; a year of minutes has 98,280.
pub const ROWS_MAX: usize = 1_000_000;
/// Faults that are told one by one; the rest is counted.
pub const FAULTS_TOLD_MAX: usize = 20;
const MINUTE_US: i64 = 60_000_000;
const DAY_US: i64 = 24 * 60 * MINUTE_US;
/// Decimals that a number is read with before it is rounded.
const FINE_DECIMALS: u32 = 12;
const FINE_PER_E4: i128 = 100_000_000;

/// How a file is read beside what it says itself.
#[derive(Debug, Clone, Default)]
pub struct How {
    /// The symbol of all rows, where the file has no column of it, or several symbols.
    pub symbol: Option<String>,
    /// Column names of fields that are called otherwise: `open=Opening price`.
    pub columns: Vec<(String, String)>,
    /// Prices with more than four decimals are rounded instead of refused.
    pub round: bool,
    /// Smallest quantity, scale 10⁻⁴: volumes are rounded down to it.
    pub lot_e4: i64,
}

/// A bar of one day or one minute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bar {
    pub time_us: i64,
    pub open_e4: i64,
    pub high_e4: i64,
    pub low_e4: i64,
    pub close_e4: i64,
    pub volume_e4: i64,
}

/// A place in the file, and what is wrong there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// From 1.
    pub line: u64,
    /// From 1; 0 is the whole line.
    pub column: usize,
    pub what: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.column {
            0 => write!(f, "line {}: {}", self.line, self.what),
            column => write!(f, "line {}, column {column}: {}", self.line, self.what),
        }
    }
}

/// What a file holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Read {
    /// Who writes such files.
    pub format: &'static str,
    /// Of minutes, else of days.
    pub is_intraday: bool,
    /// In the order of their times.
    pub bars: Vec<Bar>,
    /// Rows without prices: days on which nothing was traded, which some vendors list.
    pub null_rows: Vec<u64>,
    /// Prices that were rounded to four decimals.
    pub rounded: u64,
    /// Volumes that were rounded down to the lot.
    pub volumes_rounded: u64,
    /// Rows of other symbols.
    pub others: u64,
}

struct Reader<'a> {
    how: &'a How,
    columns: Columns,
    faults: Vec<Fault>,
    read: Read,
    bars: BTreeMap<i64, (u64, Bar)>,
    /// Rows with a time of day, and without.
    intraday: u64,
    daily: u64,
}

/// Reads a file whole. Nothing of a file with a fault is used: all faults are told.
pub fn read(text: &str, how: &How) -> Result<Read, Vec<Fault>> {
    let mut rows = csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(csv::Trim::All)
        .delimiter(columns::delimiter(text))
        .from_reader(text.trim_start_matches('\u{feff}').as_bytes());
    let mut records = rows.records().peekable();
    let first = match records.peek() {
        Some(Ok(first)) => first.clone(),
        Some(Err(e)) => return Err(vec![fault_of(e)]),
        None => return Err(vec![Fault { line: 1, column: 0, what: "the file is empty".to_owned() }]),
    };
    let (columns, has_header) = Columns::of(&first, how).map_err(|fault| vec![fault])?;
    if has_header {
        records.next();
    }
    let read = Read {
        format: columns.format,
        is_intraday: false,
        bars: Vec::new(),
        null_rows: Vec::new(),
        rounded: 0,
        volumes_rounded: 0,
        others: 0,
    };
    let mut reader =
        Reader { how, columns, faults: Vec::new(), read, bars: BTreeMap::new(), intraday: 0, daily: 0 };
    for (count, record) in records.enumerate() {
        match record {
            Err(e) => reader.faults.push(fault_of(&e)),
            Ok(_) if count >= ROWS_MAX => {
                let what = format!("the file has more than {ROWS_MAX} rows");
                reader.faults.push(Fault { line: count as u64 + 1, column: 0, what });
                break;
            }
            Ok(record) => reader.row(&record),
        }
    }
    reader.end()
}

fn fault_of(e: &csv::Error) -> Fault {
    let line = e.position().map_or(0, csv::Position::line);
    Fault { line, column: 0, what: e.to_string() }
}

impl Reader<'_> {
    fn row(&mut self, record: &csv::StringRecord) {
        let line = record.position().map_or(0, csv::Position::line);
        match self.bar(record, line) {
            Ok(Some(bar)) => {
                if let Some((before, _)) = self.bars.get(&bar.time_us) {
                    let what = format!("the time of line {before} again");
                    return self.faults.push(Fault { line, column: self.columns.number(Field::Time), what });
                }
                self.bars.insert(bar.time_us, (line, bar));
            }
            Ok(None) => {}
            Err(fault) => self.faults.push(fault),
        }
    }

    /// `None`: a row that says nothing of this symbol.
    fn bar(&mut self, record: &csv::StringRecord, line: u64) -> Result<Option<Bar>, Fault> {
        if record.iter().all(str::is_empty) {
            return Ok(None);
        }
        if let (Some(own), Some(wanted)) = (self.columns.get(record, Field::Symbol), &self.how.symbol)
            && !columns::same_symbol(own, wanted)
        {
            self.read.others += 1;
            return Ok(None);
        }
        let prices = [Field::Open, Field::High, Field::Low, Field::Close];
        let is_null =
            |text: &str| matches!(text.to_ascii_lowercase().as_str(), "" | "null" | "nan" | "n/d" | "-");
        if prices.iter().all(|f| self.columns.get(record, *f).is_none_or(is_null)) {
            self.read.null_rows.push(line);
            return Ok(None);
        }
        let (time_us, has_time) = self.time(record, line)?;
        *(if has_time { &mut self.intraday } else { &mut self.daily }) += 1;
        let [open_e4, high_e4, low_e4, close_e4] = [
            self.price(record, line, Field::Open)?,
            self.price(record, line, Field::High)?,
            self.price(record, line, Field::Low)?,
            self.price(record, line, Field::Close)?,
        ];
        let fault = |field, what: &str| {
            Err(Fault { line, column: self.columns.number(field), what: what.to_owned() })
        };
        if high_e4 < open_e4.max(close_e4).max(low_e4) {
            return fault(Field::High, "the high is below another price of the row");
        }
        if low_e4 > open_e4.min(close_e4) {
            return fault(Field::Low, "the low is above another price of the row");
        }
        let volume_e4 = self.volume(record, line)?;
        Ok(Some(Bar { time_us, open_e4, high_e4, low_e4, close_e4, volume_e4 }))
    }

    fn text<'r>(&self, record: &'r csv::StringRecord, line: u64, field: Field) -> Result<&'r str, Fault> {
        self.columns.get(record, field).filter(|t| !t.is_empty()).ok_or_else(|| Fault {
            line,
            column: self.columns.number(field),
            what: format!("no {}", field.name()),
        })
    }

    fn time(&self, record: &csv::StringRecord, line: u64) -> Result<(i64, bool), Fault> {
        let text = self.text(record, line, Field::Time)?;
        let clock = self.columns.get(record, Field::Clock);
        times::parse(text, clock).map_err(|what| Fault {
            line,
            column: self.columns.number(Field::Time),
            what: format!("{text:?} {what}"),
        })
    }

    fn price(&mut self, record: &csv::StringRecord, line: u64, field: Field) -> Result<i64, Fault> {
        let text = self.text(record, line, field)?;
        let fault = |what: String| Fault {
            line,
            column: self.columns.number(field),
            what: format!("{} {text:?} {what}", field.name()),
        };
        let price = match parse_e4(text) {
            Err(Malformed::TooManyDecimals(_)) if self.how.round => {
                let fine = parse_fine(text).map_err(|e| fault(e.to_string()))?;
                self.read.rounded += 1;
                i64::try_from((fine + FINE_PER_E4 / 2) / FINE_PER_E4)
                    .map_err(|_| fault("is too large".into()))?
            }
            Err(e @ Malformed::TooManyDecimals(_)) => {
                return Err(fault(format!("{e}; --round rounds such prices")));
            }
            other => other.map_err(|e| fault(e.to_string()))?,
        };
        if price > 0 { Ok(price) } else { Err(fault("is not above 0".into())) }
    }

    /// Rounded down to the lot; without a column 0.
    fn volume(&mut self, record: &csv::StringRecord, line: u64) -> Result<i64, Fault> {
        let Some(text) = self.columns.get(record, Field::Volume).filter(|t| !t.is_empty() && *t != "null")
        else {
            return Ok(0);
        };
        let fault = |what: String| Fault {
            line,
            column: self.columns.number(Field::Volume),
            what: format!("volume {text:?} {what}"),
        };
        let fine = parse_fine(text).map_err(|e| fault(e.to_string()))?;
        if fine < 0 {
            return Err(fault("is below 0".into()));
        }
        let lot = i128::from(self.how.lot_e4.max(1)) * FINE_PER_E4;
        let whole = fine / lot * lot;
        self.read.volumes_rounded += u64::from(whole != fine);
        i64::try_from(whole / FINE_PER_E4).map_err(|_| fault("is too large".into()))
    }

    fn end(mut self) -> Result<Read, Vec<Fault>> {
        let lines: Vec<(i64, u64)> = self.bars.iter().map(|(time, (line, _))| (*time, *line)).collect();
        let column = self.columns.number(Field::Time);
        let mut fault = |line, what: &str| {
            self.faults.push(Fault { line, column, what: what.to_owned() });
        };
        self.read.is_intraday = self.intraday > 0 && !lines.iter().all(|(t, _)| t.rem_euclid(DAY_US) == 0);
        if self.read.is_intraday {
            if self.daily > 0 {
                fault(0, "some rows have a time of day and some have none");
            }
            if let Some((_, line)) = lines.iter().find(|(t, _)| t.rem_euclid(MINUTE_US) != 0) {
                fault(*line, "a bar that does not begin with a minute: bars are of days or of minutes");
            }
            // Some minutes may lack; bars of five minutes never follow one another after one.
            let apart = lines.windows(2).map(|w| w[1].0 - w[0].0).min();
            if apart.is_some_and(|apart| apart > MINUTE_US) && lines.len() > 2 {
                fault(lines[1].1, "no two bars lie a minute apart: bars are of days or of minutes");
            }
        }
        if lines.is_empty() && self.faults.is_empty() {
            let what = match self.read.others {
                0 => "no row has a price".to_owned(),
                others => format!("all {others} rows are of other symbols"),
            };
            self.faults.push(Fault { line: 1, column: 0, what });
        }
        if self.faults.is_empty() {
            self.read.bars = self.bars.into_values().map(|(_, bar)| bar).collect();
            Ok(self.read)
        } else {
            self.faults.sort_by_key(|f| f.line);
            Err(self.faults)
        }
    }
}

/// A moment as vendors write it, microseconds since 1970, UTC.
pub fn moment_us(text: &str) -> Option<i64> {
    times::parse(text, None).ok().map(|(at_us, _)| at_us)
}

/// A number with more decimals than are kept.
fn parse_fine(text: &str) -> Result<i128, Malformed> {
    // Volumes may be too large for so many decimals.
    match parse_scaled(text, FINE_DECIMALS) {
        Ok(fine) => Ok(i128::from(fine)),
        Err(Malformed::TooLarge) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let e4: String = fraction.chars().take(4).collect();
            parse_e4(&format!("{whole}.{e4}0")).map(|e4| i128::from(e4) * FINE_PER_E4)
        }
        Err(Malformed::TooManyDecimals(_)) => {
            let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
            let kept: String = fraction.chars().take(FINE_DECIMALS as usize).collect();
            parse_scaled(&format!("{whole}.{kept}"), FINE_DECIMALS).map(i128::from)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests;
