//! Commands that only look: at a market, at what is the caller's, and at either as it changes.

use super::Where;
use clap::{Args, Subcommand};

#[derive(Debug, Args)]
pub struct Search {
    #[command(flatten)]
    pub at: Where,
    /// The beginning of a symbol, or a part of a name
    pub query: String,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct InstrumentOf {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
}

#[derive(Debug, Args)]
pub struct Trades {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// Only trades after this number, oldest first [default: the newest]
    #[arg(long, value_name = "NUMBER")]
    pub after: Option<u64>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
}

/// Lengths of a bar.
const INTERVALS: [&str; 13] =
    ["1s", "5s", "15s", "30s", "1m", "5m", "15m", "30m", "1h", "4h", "1d", "1w", "1M"];

#[derive(Debug, Args)]
pub struct Candles {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// Length of a bar: a small m is a minute, a capital one a month
    #[arg(long, default_value = "1m", value_parser = INTERVALS)]
    pub interval: String,
    /// At most this many, the newest
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct VolumeOf {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
}

#[derive(Debug, Args)]
pub struct Fills {
    #[command(flatten)]
    pub at: Where,
    /// Only this symbol
    #[arg(long)]
    pub symbol: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct Lots {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// Account [default: the oldest investment account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// As they were at the end of a day (YYYY-MM-DD), or at a moment (RFC 3339) [default: now]
    #[arg(id = "moment", long = "at", value_name = "TIME")]
    pub moment: Option<String>,
}

#[derive(Debug, Args)]
pub struct Statement {
    #[command(flatten)]
    pub at: Where,
    /// Account [default: the oldest investment account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    #[command(flatten)]
    pub span: Span,
}

/// A span of time by its ends.
#[derive(Debug, Args)]
pub struct Span {
    /// First day (YYYY-MM-DD, UTC), or a moment (RFC 3339) [default: as long before its end as a period, or 30 days]
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Last day, or a moment that is no longer part of it [default: now]
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Alert {
    /// List what is watched
    List(Where),
    /// Watch a symbol; a terminal that is open takes it at its next start, or by R
    Add(AlertOf),
    /// Watch a symbol no longer
    Remove {
        #[command(flatten)]
        at: Where,
        symbol: String,
        /// Only this one, as the list shows it
        #[arg(value_name = "WHEN", allow_negative_numbers = true)]
        when: Vec<String>,
    },
    /// Wait here until it comes, and end
    Wait {
        #[command(flatten)]
        of: AlertOf,
        /// Give up after so many seconds
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
        timeout: Option<u64>,
    },
}

#[derive(Debug, Args)]
pub struct AlertOf {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// `>= 235`, `<= 220`, `235` (from where the price is now), `spread 0.05`, `pnl -500`, `stale 10` (seconds)
    #[arg(value_name = "WHEN", required = true, allow_negative_numbers = true)]
    pub when: Vec<String>,
}

#[derive(Debug, Args)]
pub struct Performance {
    #[command(flatten)]
    pub at: Where,
    /// Account [default: the oldest investment account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// 1D (today), 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y or MAX
    #[arg(long, default_value = "1M")]
    pub period: String,
    /// Distance of the points: 1m, 5m, 15m, 1h or 1d
    #[arg(long, default_value = "1d")]
    pub interval: String,
}

#[derive(Debug, Args)]
#[command(after_help = "Each change is one JSON document on a line, whatever the format.")]
pub struct Watch {
    #[command(subcommand)]
    pub what: WatchWhat,
}

#[derive(Debug, Subcommand)]
pub enum WatchWhat {
    /// Quotes of symbols
    Quotes {
        #[command(flatten)]
        how: WatchHow,
        #[arg(required = true, value_name = "SYMBOL")]
        symbols: Vec<String>,
    },
    /// Images of a symbol's book
    Book {
        #[command(flatten)]
        how: WatchHow,
        symbol: String,
    },
    /// Trades in a symbol
    Trades {
        #[command(flatten)]
        how: WatchHow,
        symbol: String,
    },
    /// Your orders and their fills
    Orders(WatchHow),
    /// Your accounts and positions
    Portfolio(WatchHow),
}

#[derive(Debug, Args)]
pub struct WatchHow {
    #[command(flatten)]
    pub at: Where,
    /// End after this many [default: go on until Ctrl-C]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}
