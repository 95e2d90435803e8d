//! A symbol as the agents know it before they trade.

/// Symbols that trade more than others; of what remains each weighs 1.
fn weight(symbol: &str) -> u64 {
    match symbol {
        "AAPL" | "MSFT" | "NVDA" | "TSLA" => 16,
        "AMZN" | "GOOGL" | "META" | "SPY" | "QQQ" => 4,
        _ => 1,
    }
}

/// A symbol as the agents see it at the start.
#[derive(Debug, Clone)]
pub struct Listing {
    pub symbol: String,
    pub currency: String,
    pub exchange: String,
    pub sector: String,
    /// A fund follows the shares of its currency, or of its exchange where that is NASDAQ.
    pub is_fund: bool,
    pub tick_e4: i64,
    pub lot_e4: i64,
    /// The previous close.
    pub close_e4: i64,
    /// Where the price is: the last trade, else the previous close.
    pub last_e4: i64,
    /// Standard deviation of a session's return, basis points.
    pub volatility_bp: u32,
    /// Worth of the whole company in units of its currency, for its place in a fund.
    pub worth: i64,
    pub is_open: bool,
}

impl Listing {
    /// How much it trades beside the others.
    pub fn weight(&self) -> u64 {
        weight(&self.symbol)
    }
}
