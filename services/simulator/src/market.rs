//! The market of one symbol as the agents see it: its fair price, its maker's ladder, who has what.

use super::{
    core::{Agent, Listing, MAKER_CASH_MICROS, MAKER_QUOTES, Request, Standing, TRADERS},
    maker::{Ladder, Quote, Stage},
};
use fafnir_rules::money::round_lot;

/// Worth of a quote in units of its currency, and its bounds in lots.
const QUOTE_WORTH: i64 = 20_000;
const QUOTE_LOTS_MIN: i64 = 10;
const QUOTE_LOTS_MAX: i64 = 2_000;
/// A maker with less than this part of what it started with is refilled.
const REFILL_BELOW_PART: i64 = 4;
/// Steps between two refills of one maker.
const REFILL_STEPS: u64 = 240;
/// Volatility: standard deviation of the fair price over a day, in parts of 10,000, and its bound in thousandths of a
/// tick a step (a bound on how often the quotes move).
const DAY_DEVIATION_BP: i64 = 60;
const STEP_DEVIATION_MAX_MILLI: i64 = 230;
/// The square root of the steps of a day.
const DAY_STEPS_ROOT: i64 = 588;
/// A maker's quotes lean against its inventory: at most this far, thousandths of a tick.
const SKEW_MAX_MILLI: i64 = 3_000;
/// Inventory (in quotes) beside the target at which they lean by one tick.
const SKEW_QUOTES: i64 = 25;

/// One symbol.
#[derive(Debug)]
pub struct Market {
    pub listing: Listing,
    pub ladder: Ladder,
    /// Fair price in thousandths of a tick.
    pub fair_milli: i64,
    pub anchor_milli: i64,
    pub deviation_milli: i64,
    /// A usual quote.
    pub quote_e4: i64,
    pub last_milli: i64,
    /// Slow average of the last prices, for momentum.
    pub average_milli: i64,
    /// Position at which the maker's orders were read: facts up to it are in what was read.
    pub known_until: u64,
    pub is_open: bool,
    pub paused_until: u64,
    pub looking_up: bool,
    /// The quotes may not be what they seem.
    pub is_doubtful: bool,
    pub maker_shares_e4: i64,
    pub maker_cash_micros: i64,
    pub trader_shares_e4: [i64; TRADERS],
    pub refill_after: u64,
    pub weight: u64,
}

/// Symbols that trade more than others; of what remains each weighs 1.
fn weight(symbol: &str) -> u64 {
    match symbol {
        "AAPL" | "MSFT" | "NVDA" | "TSLA" => 16,
        "AMZN" | "GOOGL" | "META" | "SPY" | "QQQ" => 4,
        _ => 1,
    }
}

/// The quantity of a usual quote.
pub fn quote_e4(listing: &Listing) -> i64 {
    let price = listing.last_e4.max(1);
    let shares_e4 = (QUOTE_WORTH * 10_000).saturating_mul(10_000) / price;
    let lot_e4 = round_lot(listing.lot_e4);
    (shares_e4 / lot_e4).clamp(QUOTE_LOTS_MIN, QUOTE_LOTS_MAX) * lot_e4
}

impl Market {
    pub fn new(listing: Listing) -> Self {
        let milli = |price_e4: i64| price_e4.saturating_mul(1_000) / listing.tick_e4;
        let (last, anchor) = (milli(listing.last_e4), milli(listing.anchor_e4));
        let deviation = anchor.saturating_mul(DAY_DEVIATION_BP) / 10_000 / DAY_STEPS_ROOT;
        let mut ladder = Ladder::default();
        ladder.aim(last);
        Self {
            ladder,
            fair_milli: last,
            anchor_milli: anchor,
            deviation_milli: deviation.clamp(1, STEP_DEVIATION_MAX_MILLI),
            quote_e4: quote_e4(&listing),
            last_milli: last,
            average_milli: last,
            known_until: 0,
            is_open: listing.is_open,
            paused_until: 0,
            looking_up: false,
            is_doubtful: false,
            maker_shares_e4: 0,
            maker_cash_micros: 0,
            trader_shares_e4: [0; TRADERS],
            refill_after: 0,
            weight: weight(&listing.symbol),
            listing,
        }
    }

    pub fn adopt(&mut self, standing: Vec<Standing>, position: u64, step: u64) {
        self.known_until = position;
        self.ladder.quotes = standing
            .into_iter()
            .map(|s| Quote {
                order: s.order,
                side: s.side,
                price: s.price_e4 / self.listing.tick_e4,
                total_e4: s.total_e4,
                filled_e4: s.filled_e4,
                stage: Stage::Live,
                since: step,
            })
            .collect();
    }

    /// A maker that is long quotes lower, one that is short higher.
    pub fn skew_milli(&self) -> i64 {
        let over = self.maker_shares_e4 - self.quote_e4 * MAKER_QUOTES;
        let skew = -over.saturating_mul(1_000) / (self.quote_e4 * SKEW_QUOTES).max(1);
        skew.clamp(-SKEW_MAX_MILLI, SKEW_MAX_MILLI)
    }

    pub fn refill(&mut self, market: usize, step: u64) -> Option<Request> {
        if step < self.refill_after {
            return None;
        }
        let target = self.quote_e4 * MAKER_QUOTES;
        let short_of_shares = self.maker_shares_e4 < target / REFILL_BELOW_PART;
        let short_of_cash = self.maker_cash_micros < MAKER_CASH_MICROS / REFILL_BELOW_PART;
        if !short_of_shares && !short_of_cash {
            return None;
        }
        self.refill_after = step + REFILL_STEPS;
        let quantity_e4 = if short_of_shares { target - self.maker_shares_e4 } else { 0 };
        let amount_micros = if short_of_cash { MAKER_CASH_MICROS - self.maker_cash_micros } else { 0 };
        let price_e4 = self.listing.anchor_e4;
        Some(Request::Refill { agent: Agent::Maker(market), market, quantity_e4, price_e4, amount_micros })
    }
}
