//! The market of one symbol as the agents see it: its maker's ladder, who has what, what its orders told.

use crate::{
    core::{Agent, Request, STEPS_PER_SECOND, Standing},
    draw::stream,
    ladder::{Ladder, Quote, Stage},
    listing::Listing,
    traders::Flow,
    value::Values,
};
use fafnir_rules::{money::round_lot, rng::Rng};

/// Traders that trade every symbol, beside the maker of each.
pub const TRADERS: usize = 4;
/// What an agent starts with, in quotes: shares of each symbol.
pub const MAKER_QUOTES: i64 = 200;
pub const TRADER_QUOTES: i64 = 60;
/// Cash that a trader starts with in each of its currencies, micros.
pub const TRADER_CASH_MICROS: i64 = 2_000_000_000 * 1_000_000;
/// Worth of a quote in units of its currency, for a symbol that trades as little as most; the others' quotes are worth as
/// many times more as they trade. And its bounds in lots.
const QUOTE_WORTH: i64 = 50_000;
const QUOTE_LOTS_MIN: i64 = 10;
const QUOTE_LOTS_MAX: i64 = 40_000;
/// Quotes that a maker can pay for at the start.
const MAKER_CASH_QUOTES: i64 = 400;
/// A maker with less than this part of what it started with is refilled.
const REFILL_BELOW_PART: i64 = 4;
/// Steps between two refills of one maker.
const REFILL_STEPS: u64 = 240;
/// A maker's quotes lean against its inventory: at most this far, in places of its grid, and by one place for so many
/// quotes beside the target.
const SKEW_PLACES_MAX: f64 = 1.2;
const SKEW_QUOTES: f64 = 300.0;
/// Of what an order tells, this part stays; the rest is forgotten in so many steps.
const TOLD_STAYS: f64 = 0.24;
const TOLD_STEPS: f64 = 25.0 * STEPS_PER_SECOND as f64;
/// What an order of one quote tells, in deviations of a minute, for a symbol that trades once a minute: the more it
/// trades, the less each order tells.
const TOLD: f64 = 0.54;
const TOLD_MAX: f64 = 0.25;
/// An order tells half of what it would where its size, to that power, is this many quotes: depth has an end.
const TOLD_HALF: f64 = 60.0;
/// Who is told more than this, in deviations of a minute, follows at a part of the distance that is tolerated otherwise.
const TOLD_MUCH: f64 = 0.08;
const TOLD_TOLERANCE: f64 = 0.25;
/// Places of the grid and half the spread, in deviations of a minute: of a symbol that trades often, and of one that
/// hardly does.
const GRID: [f64; 2] = [0.36, 0.60];
const HALF: [f64; 2] = [0.03, 0.20];
/// Half a tick.
const HALF_MIN: f64 = 0.5;
/// A symbol that trades so often in a minute is as liquid as one can be.
const LIQUID_TRADES: f64 = 25.0;
/// One that trades so often has a spread as narrow as its maker dares.
const TIGHT_TRADES: f64 = 5.0;

/// One symbol.
#[derive(Debug)]
pub struct Market {
    pub listing: Listing,
    pub ladder: Ladder,
    pub maker_rng: Rng,
    pub flow: Flow,
    /// A usual quote.
    pub quote_e4: i64,
    /// Trades in a step, on average.
    pub pace: f64,
    /// What orders told that will be forgotten, ticks.
    told: f64,
    /// Part of the usual distance at which the quotes follow: less after orders that told much.
    follows: f64,
    /// Bought less sold by those who came to the quotes since the last step, in quotes.
    pressed: f64,
    pub last_ticks: f64,
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
}

/// What a quote is worth, in units of its currency.
pub fn quote_worth(listing: &Listing) -> i64 {
    QUOTE_WORTH * listing.weight() as i64
}

/// Cash that a symbol's maker starts with, micros.
pub fn maker_cash_micros(listing: &Listing) -> i64 {
    quote_worth(listing) * MAKER_CASH_QUOTES * 1_000_000
}

/// The quantity of a usual quote.
pub fn quote_e4(listing: &Listing) -> i64 {
    let price = listing.last_e4.max(1);
    let shares_e4 = (quote_worth(listing) * 10_000).saturating_mul(10_000) / price;
    let lot_e4 = round_lot(listing.lot_e4);
    (shares_e4 / lot_e4).clamp(QUOTE_LOTS_MIN, QUOTE_LOTS_MAX) * lot_e4
}

impl Market {
    /// `pace`: trades in a step. `minute_ticks`: deviation of a minute's change.
    pub fn new(seed: u64, listing: Listing, pace: f64, minute_ticks: f64) -> Self {
        let last = listing.last_e4 as f64 / listing.tick_e4 as f64;
        let grid = (between(GRID, pace) * minute_ticks).clamp(1.0, last / 200.0 + 1.0) as i64;
        Self {
            ladder: Ladder::new((last * 1_000.0) as i64, grid, per_minute(pace) >= TIGHT_TRADES),
            maker_rng: stream(seed, &listing.symbol, "maker"),
            flow: Flow::new(seed, &listing.symbol, last),
            quote_e4: quote_e4(&listing),
            pace,
            told: 0.0,
            follows: 1.0,
            pressed: 0.0,
            last_ticks: last,
            known_until: 0,
            is_open: listing.is_open,
            paused_until: 0,
            looking_up: false,
            is_doubtful: false,
            maker_shares_e4: 0,
            maker_cash_micros: 0,
            trader_shares_e4: [0; TRADERS],
            refill_after: 0,
            listing,
        }
    }

    /// A trade that somebody came for, by the side that came: `signed_e4` is negative for a sale.
    pub fn traded(&mut self, price_e4: i64, signed_e4: i64) {
        self.last_ticks = price_e4 as f64 / self.listing.tick_e4 as f64;
        self.pressed += signed_e4 as f64 / self.quote_e4.max(1) as f64;
    }

    /// What the orders since the last step told moves the value for good and the quotes for a while: with a power of
    /// their size below 1, as is measured of real markets (Bouchaud, Farmer, Lillo 2009: 0.4 to 0.7).
    pub fn hear(&mut self, market: usize, values: &mut Values) {
        self.told -= self.told / TOLD_STEPS;
        self.follows = 1.0;
        if self.pressed == 0.0 {
            return;
        }
        let minute = values.minute_ticks(market) * values.heat(market).min(2.0);
        let tells = (TOLD / per_minute(self.pace).max(0.01).sqrt()).min(TOLD_MAX);
        // The size to the power of 5/8.
        let size = self.pressed.abs();
        let grown = (size * size.sqrt().sqrt()).sqrt();
        let told = tells * grown / (1.0 + grown / TOLD_HALF) * minute * self.pressed.signum();
        // A fund is worth what its basket is, whatever is done in it.
        let stays = if self.listing.is_fund { 0.0 } else { TOLD_STAYS };
        values.learn(market, told * stays);
        self.told += told * (1.0 - stays);
        if told.abs() > TOLD_MUCH * minute {
            self.follows = TOLD_TOLERANCE;
        }
        self.pressed = 0.0;
    }

    /// Where the quotes should be now.
    pub fn aim(&mut self, market: usize, values: &Values) {
        let minute = values.minute_ticks(market);
        let half = (between(HALF, self.pace) * minute * values.heat(market)).max(HALF_MIN);
        let grid = self.ladder.grid as f64;
        let wanted = values.value(market) + self.told + self.skew() * grid;
        let tolerance = ((0.5 * grid + 0.4 * half) * self.follows).max(0.8);
        self.ladder.aim((wanted * 1_000.0) as i64, (half * 1_000.0) as i64, (tolerance * 1_000.0) as i64);
    }

    /// Takes the quotes that stand as what the market is worth.
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
        self.ladder.touch();
    }

    /// A maker that is long quotes lower, one that is short higher; in places of the grid.
    fn skew(&self) -> f64 {
        let over = (self.maker_shares_e4 - self.quote_e4 * MAKER_QUOTES) as f64 / self.quote_e4.max(1) as f64;
        (-over / SKEW_QUOTES).clamp(-SKEW_PLACES_MAX, SKEW_PLACES_MAX)
    }

    pub fn refill(&mut self, market: usize, step: u64) -> Option<Request> {
        if step < self.refill_after {
            return None;
        }
        let target = self.quote_e4 * MAKER_QUOTES;
        let short_of_shares = self.maker_shares_e4 < target / REFILL_BELOW_PART;
        let cash_micros = maker_cash_micros(&self.listing);
        let short_of_cash = self.maker_cash_micros < cash_micros / REFILL_BELOW_PART;
        if !short_of_shares && !short_of_cash {
            return None;
        }
        self.refill_after = step + REFILL_STEPS;
        let quantity_e4 = if short_of_shares { target - self.maker_shares_e4 } else { 0 };
        let amount_micros = if short_of_cash { cash_micros - self.maker_cash_micros } else { 0 };
        let price_e4 = self.listing.close_e4;
        Some(Request::Refill { agent: Agent::Maker(market), market, quantity_e4, price_e4, amount_micros })
    }
}

/// Trades in a minute, on average.
fn per_minute(pace: f64) -> f64 {
    pace * 60.0 * STEPS_PER_SECOND as f64
}

/// Between what belongs to a symbol that trades often and to one that hardly does.
fn between([liquid, thin]: [f64; 2], pace: f64) -> f64 {
    let liquidity = (per_minute(pace) / LIQUID_TRADES).min(1.0).sqrt();
    thin + (liquid - thin) * liquidity
}
