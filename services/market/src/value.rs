//! What the symbols are worth: a market factor, a factor per sector and one of each symbol's own, with volatility that
//! clusters and with jumps. Funds are worth what their baskets are.

use crate::{
    core::STEPS_PER_SECOND,
    draw::{exp, happens, normal, pareto_4, sign, stream},
    listing::Listing,
};
use fafnir_rules::rng::Rng;

/// A session: 6.5 hours.
pub const SESSION_STEPS: u64 = 23_400 * STEPS_PER_SECOND;
/// Root of the minutes and of the steps of a session.
const SESSION_MINUTES_ROOT: f64 = 19.748_417_658_131_5;
const SESSION_STEPS_ROOT: f64 = 305.941_170_815_567;
/// Parts of a symbol's variance: the market's, its sector's, jumps'. What is left and is not made by the flow of orders
/// is its own.
const MARKET_PART: f64 = 0.33;
const SECTOR_PART: f64 = 0.10;
const JUMP_PART: f64 = 0.12;
const OWN_PART: f64 = 0.26;
/// Logarithm of the volatility: deviation of the market's and of a symbol's own, and how long they last.
const MARKET_LOG_DEVIATION: f64 = 0.35;
const OWN_LOG_DEVIATION: f64 = 0.48;
const MARKET_LOG_STEPS: f64 = 3_000.0 * STEPS_PER_SECOND as f64;
const OWN_LOG_STEPS: f64 = 2_700.0 * STEPS_PER_SECOND as f64;
/// The same of whole days.
const DAY_LOG_DEVIATION: f64 = 0.35;
const DAY_LOG_DAYS: f64 = 20.0;
/// The volatility changes every so many steps.
const LOG_EVERY: u64 = 10 * STEPS_PER_SECOND;
/// Jumps of a symbol in a session, and what one adds to the logarithm of its volatility.
const JUMPS_PER_SESSION: f64 = 3.0;
const JUMP_EXCITES: f64 = 0.25;
/// A jump is at most so many times the least one.
const JUMP_MAX: f64 = 6.0;
/// Mean square of what [`pareto_4`] draws below that.
const JUMP_SQUARE: f64 = 1.95;
/// News adds this to the logarithm of a symbol's volatility, per deviation of a session's return, at most so much.
const NEWS_EXCITES: f64 = 0.5;
const NEWS_EXCITES_MAX: f64 = 1.2;

/// How the market is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mood {
    /// Less than half of the usual volatility.
    Quiet,
    #[default]
    Normal,
    /// More than twice the usual volatility.
    Volatile,
    /// A volatile market that loses a tenth of its worth within minutes and wins half of it back within the hour, again
    /// and again.
    Crash,
}

impl Mood {
    /// Every mood.
    pub const ALL: [Self; 4] = [Self::Quiet, Self::Normal, Self::Volatile, Self::Crash];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Normal => "normal",
            Self::Volatile => "volatile",
            Self::Crash => "crash",
        }
    }

    /// The mood of this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mood| mood.name() == name)
    }

    fn volatility(self) -> f64 {
        match self {
            Self::Quiet => 0.4,
            Self::Normal => 1.0,
            Self::Volatile | Self::Crash => 2.4,
        }
    }

    /// Drift of everything in a step.
    fn drift(self, step: u64) -> f64 {
        let minute = step / (60 * STEPS_PER_SECOND) % 120;
        let per_minute = 1.0 / (60.0 * STEPS_PER_SECOND as f64);
        match (self, minute) {
            (Self::Crash, 5..15) => -0.0105 * per_minute,
            (Self::Crash, 20..65) => 0.0012 * per_minute,
            _ => 0.0,
        }
    }
}

/// The daily shape of activity: volatile at the open, quiet at noon, lively at the close. Its square has mean 1 over a
/// session.
pub fn shape(step_of_session: u64) -> f64 {
    let x = step_of_session as f64 / SESSION_STEPS as f64;
    let open = 1.0 - (x / 0.45).min(1.0);
    let close = 1.0 - ((1.0 - x) / 0.40).min(1.0);
    (0.78 + 0.75 * open * open + 0.45 * close * close) / 0.966
}

/// A logarithm of volatility that comes back to its mean.
#[derive(Debug)]
struct Cluster {
    rng: Rng,
    log: f64,
    deviation: f64,
    keeps: f64,
    shakes: f64,
    /// Of the volatility; its square has mean 1.
    factor: f64,
}

impl Cluster {
    fn new(mut rng: Rng, deviation: f64, steps: f64) -> Self {
        let keeps = 1.0 - LOG_EVERY as f64 / steps;
        let log = deviation * normal(&mut rng);
        let shakes = deviation * (1.0 - keeps * keeps).sqrt();
        let mut this = Self { rng, log, deviation, keeps, shakes, factor: 1.0 };
        this.turn();
        this
    }

    fn turn(&mut self) {
        self.log = (self.log * self.keeps + self.shakes * normal(&mut self.rng)).clamp(-2.0, 2.0);
        self.factor = exp(self.log - self.deviation * self.deviation);
    }

    fn excite(&mut self, by: f64) {
        self.log = (self.log + by).min(2.0);
        self.factor = exp(self.log - self.deviation * self.deviation);
    }
}

#[derive(Debug)]
struct Sector {
    name: String,
    rng: Rng,
    draw: f64,
}

/// What one symbol is worth.
#[derive(Debug)]
struct Worth {
    own: Rng,
    jumps: Rng,
    cluster: Cluster,
    sector: usize,
    /// Deviation of a step's return at the usual volatility.
    step_deviation: f64,
    /// Parts of other symbols' returns: a fund's basket.
    basket: Vec<(usize, f64)>,
    /// In ticks.
    value: f64,
    /// This step's return.
    change: f64,
}

/// What all symbols are worth.
#[derive(Debug)]
pub struct Values {
    market: Rng,
    market_cluster: Cluster,
    sectors: Vec<Sector>,
    worths: Vec<Worth>,
    pub mood: Mood,
    /// The step of the session in which the market is; `None` without sessions.
    pub session_step: Option<u64>,
    step: u64,
}

impl Values {
    pub fn new(seed: u64, listings: &[Listing], mood: Mood) -> Self {
        let mut sectors: Vec<Sector> = Vec::new();
        let mut worths = Vec::new();
        for listing in listings {
            let sector = sectors.iter().position(|s| s.name == listing.sector).unwrap_or_else(|| {
                let rng = stream(seed, &listing.sector, "sector");
                sectors.push(Sector { name: listing.sector.clone(), rng, draw: 0.0 });
                sectors.len() - 1
            });
            let symbol = &listing.symbol;
            worths.push(Worth {
                own: stream(seed, symbol, "value"),
                jumps: stream(seed, symbol, "jumps"),
                cluster: Cluster::new(stream(seed, symbol, "volatility"), OWN_LOG_DEVIATION, OWN_LOG_STEPS),
                sector,
                step_deviation: f64::from(listing.volatility_bp) / 10_000.0 / SESSION_STEPS_ROOT,
                basket: basket(listing, listings),
                value: listing.last_e4 as f64 / listing.tick_e4 as f64,
                change: 0.0,
            });
        }
        scale_funds(&mut worths, OWN_PART + JUMP_PART);
        Self {
            market: stream(seed, "", "market"),
            market_cluster: Cluster::new(
                stream(seed, "", "volatility"),
                MARKET_LOG_DEVIATION,
                MARKET_LOG_STEPS,
            ),
            sectors,
            worths,
            mood,
            session_step: None,
            step: 0,
        }
    }

    /// The value of a symbol in ticks.
    pub fn value(&self, market: usize) -> f64 {
        self.worths[market].value
    }

    /// Sets the value of a symbol, in ticks: it is where the market is.
    pub fn set(&mut self, market: usize, ticks: f64) {
        self.worths[market].value = ticks.max(1.0);
    }

    /// What a symbol's orders told of it changes its value, by ticks.
    pub fn learn(&mut self, market: usize, ticks: f64) {
        let worth = &mut self.worths[market];
        worth.value = (worth.value + ticks).max(1.0);
    }

    /// Deviation of a minute's change of a symbol at the usual volatility, ticks.
    pub fn minute_ticks(&self, market: usize) -> f64 {
        let worth = &self.worths[market];
        worth.value * worth.step_deviation * SESSION_STEPS_ROOT / SESSION_MINUTES_ROOT
            * self.mood.volatility()
    }

    /// How volatile a symbol is now beside usual.
    pub fn heat(&self, market: usize) -> f64 {
        self.shape() * self.market_cluster.factor.sqrt() * self.worths[market].cluster.factor
    }

    /// How lively this time of the day is.
    pub fn shape(&self) -> f64 {
        self.session_step.map_or(1.0, shape)
    }

    /// News about a symbol: its value changes by a part of it, and it becomes lively.
    pub fn news(&mut self, market: usize, part: f64) {
        let worth = &mut self.worths[market];
        worth.value = (worth.value * (1.0 + part)).max(1.0);
        let deviations = part.abs() / (worth.step_deviation * SESSION_STEPS_ROOT).max(1e-6);
        worth.cluster.excite((NEWS_EXCITES * deviations).min(NEWS_EXCITES_MAX));
    }

    /// A step.
    pub fn step(&mut self) {
        self.step += 1;
        if self.step.is_multiple_of(LOG_EVERY) {
            self.market_cluster.turn();
            for worth in &mut self.worths {
                worth.cluster.turn();
            }
        }
        let scale = self.shape() * self.mood.volatility();
        let drift = self.mood.drift(self.step);
        let market = normal(&mut self.market) * self.market_cluster.factor * MARKET_PART.sqrt();
        for sector in &mut self.sectors {
            sector.draw = normal(&mut sector.rng) * SECTOR_PART.sqrt() * self.market_cluster.factor;
        }
        for worth in &mut self.worths {
            if worth.basket.is_empty() {
                let own = normal(&mut worth.own) * worth.cluster.factor * OWN_PART.sqrt();
                let draws = market + self.sectors[worth.sector].draw + own + worth.jump();
                worth.change = draws * worth.step_deviation * scale + drift;
            }
        }
        for fund in 0..self.worths.len() {
            if !self.worths[fund].basket.is_empty() {
                let change =
                    self.worths[fund].basket.iter().map(|(of, part)| part * self.worths[*of].change).sum();
                self.worths[fund].change = change;
            }
            let worth = &mut self.worths[fund];
            worth.value = (worth.value * (1.0 + worth.change)).max(1.0);
        }
    }
}

impl Worth {
    /// In deviations of a step; nearly always 0.
    fn jump(&mut self) -> f64 {
        if !happens(&mut self.jumps, JUMPS_PER_SESSION / SESSION_STEPS as f64) {
            return 0.0;
        }
        let least = (JUMP_PART / JUMPS_PER_SESSION / JUMP_SQUARE).sqrt() * SESSION_STEPS_ROOT;
        self.cluster.excite(JUMP_EXCITES);
        sign(&mut self.jumps) * least * pareto_4(&mut self.jumps).min(JUMP_MAX)
    }
}

/// The shares that a fund holds and their parts of it; nothing for a share.
pub fn basket(fund: &Listing, listings: &[Listing]) -> Vec<(usize, f64)> {
    if !fund.is_fund {
        return Vec::new();
    }
    let held = |l: &Listing| {
        !l.is_fund
            && l.currency == fund.currency
            && (fund.exchange != "NASDAQ" || l.exchange == fund.exchange)
    };
    let chosen = || listings.iter().enumerate().filter(|(_, l)| held(l));
    // No share is more than a part of a fund: the root takes the greatest back.
    let part = |l: &Listing| (l.worth.max(1) as f64).sqrt();
    let whole: f64 = chosen().map(|(_, l)| part(l)).sum();
    chosen().map(|(market, l)| (market, part(l) / whole.max(1.0))).collect()
}

/// A fund's parts are scaled so that it has the volatility that its listing says, where `own` is the part of a share's
/// variance that no other share has.
fn scale_funds(worths: &mut [Worth], own_part: f64) {
    for fund in 0..worths.len() {
        let basket = &worths[fund].basket;
        if basket.is_empty() {
            continue;
        }
        let exposure = |w: &(usize, f64)| w.1 * worths[w.0].step_deviation;
        let market: f64 = basket.iter().map(exposure).sum::<f64>().powi(2) * MARKET_PART;
        let own: f64 = basket.iter().map(|w| exposure(w).powi(2)).sum::<f64>() * own_part;
        let sector_of = |sector: usize| -> f64 {
            basket.iter().filter(|w| worths[w.0].sector == sector).map(exposure).sum::<f64>().powi(2)
        };
        let sectors: f64 = (0..=worths.len()).map(sector_of).sum::<f64>() * SECTOR_PART;
        let wanted = worths[fund].step_deviation * (MARKET_PART + SECTOR_PART + own_part).sqrt();
        let factor = wanted / (market + own + sectors).sqrt().max(1e-12);
        for part in &mut worths[fund].basket {
            part.1 *= factor;
        }
    }
}

/// Returns of whole days by the same factors, for the days before those that are played: of each symbol so many.
pub fn daily_returns(seed: u64, listings: &[Listing], days: usize) -> Vec<Vec<f64>> {
    let own_part = 1.0 - MARKET_PART - SECTOR_PART;
    let mut values = Values::new(seed, listings, Mood::Normal);
    for (worth, listing) in values.worths.iter_mut().zip(listings) {
        worth.basket = basket(listing, listings);
        let rng = stream(seed, &listing.symbol, "days");
        worth.cluster = Cluster::new(rng, DAY_LOG_DEVIATION, DAY_LOG_DAYS * LOG_EVERY as f64);
    }
    scale_funds(&mut values.worths, own_part);
    let rng = stream(seed, "", "days");
    let mut market_cluster = Cluster::new(rng, DAY_LOG_DEVIATION, DAY_LOG_DAYS * LOG_EVERY as f64);
    let mut returns: Vec<Vec<f64>> = listings.iter().map(|_| Vec::with_capacity(days)).collect();
    for _ in 0..days {
        market_cluster.turn();
        let market = normal(&mut values.market) * market_cluster.factor * MARKET_PART.sqrt();
        for sector in &mut values.sectors {
            sector.draw = normal(&mut sector.rng) * market_cluster.factor * SECTOR_PART.sqrt();
        }
        let sectors = &values.sectors;
        for worth in &mut values.worths {
            worth.cluster.turn();
            let own = normal(&mut worth.own) * worth.cluster.factor * own_part.sqrt();
            let draws = market + sectors[worth.sector].draw + own;
            worth.change = draws * worth.step_deviation * SESSION_STEPS_ROOT;
        }
        for (worth, returns) in values.worths.iter().zip(&mut returns) {
            let of_basket = || worth.basket.iter().map(|(of, part)| part * values.worths[*of].change).sum();
            returns.push(if worth.basket.is_empty() { worth.change } else { of_basket() });
        }
    }
    returns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_daily_shape_has_mean_square_1() {
        let square: f64 = (0..390).map(|m| shape(m * 60 * STEPS_PER_SECOND).powi(2)).sum::<f64>() / 390.0;
        assert!((square - 1.0).abs() < 0.03, "{square}");
    }

    #[test]
    fn daily_returns_have_the_listing_s_volatility_and_a_fund_follows_its_basket() {
        let listing = |symbol: &str, volatility_bp, is_fund| Listing {
            symbol: symbol.to_owned(),
            currency: "USD".to_owned(),
            exchange: "NYSE".to_owned(),
            sector: if is_fund { "Fund" } else { "Technology" }.to_owned(),
            is_fund,
            tick_e4: 100,
            lot_e4: 10_000,
            close_e4: 1_000_000,
            last_e4: 1_000_000,
            volatility_bp,
            worth: 1_000_000,
            is_open: true,
        };
        let listings = [listing("A", 100, false), listing("B", 300, false), listing("FUND", 120, true)];
        let returns = daily_returns(3, &listings, 1_300);
        for (listing, returns) in listings.iter().zip(&returns) {
            let deviation = crate::measure::variance(returns).sqrt() * 10_000.0;
            let wanted = f64::from(listing.volatility_bp);
            assert!((deviation / wanted - 1.0).abs() < 0.12, "{}: {deviation}", listing.symbol);
        }
        let both: Vec<f64> = returns[0].iter().zip(&returns[1]).map(|(a, b)| a + b).collect();
        assert!(crate::measure::correlation(&both, &returns[2]) > 0.95);
        assert!(crate::measure::correlation(&returns[0], &returns[1]) > 0.3);
    }
}
