//! Seeds: read, checked, and loaded through the services' own doors; loading again changes nothing.

mod changes;
mod history;

use crate::{
    args::SeedPart,
    output::{Error, Exit, Out, Result, table},
};
use fafnir_proto::{
    reason::Reason,
    v1::{
        AccountType, EndowRequest, GetProfileRequest, HistoryRequest, Instrument, InstrumentType,
        LoadHistoryRequest, SeedAccountRequest, SeedUserRequest, TradingState, WatchlistRequest,
    },
};
use fafnir_rules::{
    money::{parse_e4, parse_micros},
    symbol::Symbol,
};
use fafnir_services::platform::{Caller, Context, config::Mode, context::retry, error};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Deserialize;
use serde_json::json;
use std::{
    collections::BTreeMap,
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    time::Duration,
};

const USERS: &str = include_str!("../../../seeds/users.toml");
const INSTRUMENTS: &str = include_str!("../../../seeds/instruments.csv");
const ACCOUNTS: &str = include_str!("../../../seeds/accounts.toml");

/// A service that has just been started gets this long to answer.
const DEADLINE: Duration = Duration::from_secs(20);
/// Bars per call (stock.proto).
const BARS_PER_CALL: usize = 2000;

/// What the files say, checked.
#[derive(Debug)]
pub struct Seeds {
    users: Vec<User>,
    instruments: Vec<Listing>,
    accounts: Vec<Account>,
    watchlists: Vec<Watchlist>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UsersFile {
    user: Vec<User>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct User {
    id: String,
    email: String,
    password: String,
    first_name: String,
    last_name: String,
    roles: Vec<String>,
    /// `ID:SECRET` of an API key.
    #[serde(default)]
    key: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct AccountsFile {
    account: Vec<Account>,
    watchlist: Vec<Watchlist>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Account {
    id: String,
    user: String,
    r#type: String,
    currency: String,
    cash: String,
    /// Symbol → shares and cost per share.
    #[serde(default)]
    shares: BTreeMap<String, Shares>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Shares {
    quantity: String,
    cost: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Watchlist {
    user: String,
    /// The last one is shown first.
    symbols: Vec<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    symbol: String,
    name: String,
    exchange: String,
    exchange_full_name: String,
    r#type: String,
    currency: String,
    tick: String,
    lot: String,
    previous_close: String,
    shares_outstanding: i64,
    sector: String,
    industry: String,
    country: String,
    website: String,
    /// Daily volatility in basis points, of the generated history and of the simulated market that goes on with it.
    volatility_bp: u32,
    /// Width of the volatility band in basis points; 0 = no band.
    #[serde(default)]
    volatility_band_bps: u32,
    /// Shares traded on a typical day of the real market; here a symbol trades what its agents and users trade.
    #[serde(default, rename = "daily_volume")]
    _daily_volume: Option<u64>,
    description: String,
}

/// What a part holds, or what loading it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Count {
    pub part: &'static str,
    pub rows: u64,
    /// Rows that were new.
    pub inserted: u64,
    /// Rows that were there, and say now otherwise than what is stored.
    pub changed: u64,
}

fn bad(file: &str, message: impl std::fmt::Display) -> Error {
    Error::new(Exit::Usage, format!("{file}: {message}")).code(Reason::SEEDS)
}

/// `ID:SECRET` of the API key that the built-in seeds bring, for whoever is told where things are.
pub fn development_key() -> Result<Option<String>> {
    Ok(Seeds::built_in()?.users.into_iter().map(|user| user.key).find(|key| !key.is_empty()))
}

impl Seeds {
    pub fn built_in() -> Result<Self> {
        Self::parse(USERS, INSTRUMENTS, ACCOUNTS)
    }

    /// The built-in seeds of a mode: in production nobody is seeded, since everybody knows these passwords.
    pub fn of(mode: Mode) -> Result<Self> {
        let seeds = Self::built_in()?;
        Ok(match mode {
            Mode::Development => seeds,
            Mode::Production => {
                Self { users: Vec::new(), accounts: Vec::new(), watchlists: Vec::new(), ..seeds }
            }
        })
    }

    pub fn from_dir(dir: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read_to_string(&path).map_err(|e| bad(&path.display().to_string(), e))
        };
        Self::parse(&read("users.toml")?, &read("instruments.csv")?, &read("accounts.toml")?)
    }

    fn parse(users: &str, instruments: &str, accounts: &str) -> Result<Self> {
        let one_line = |e: toml::de::Error| e.to_string().replace('\n', " ");
        let users: UsersFile = toml::from_str(users).map_err(|e| bad("users.toml", one_line(e)))?;
        let accounts: AccountsFile =
            toml::from_str(accounts).map_err(|e| bad("accounts.toml", one_line(e)))?;
        let instruments = csv::Reader::from_reader(instruments.as_bytes())
            .deserialize()
            .collect::<std::result::Result<Vec<Listing>, _>>()
            .map_err(|e| bad("instruments.csv", e))?;
        let seeds = Self {
            users: users.user,
            instruments,
            accounts: accounts.account,
            watchlists: accounts.watchlist,
        };
        seeds.check()?;
        Ok(seeds)
    }

    /// Every number parses and every reference stands, before anything is changed.
    fn check(&self) -> Result {
        for listing in &self.instruments {
            listing.instrument()?;
        }
        let listed = |s: &str| self.instruments.iter().any(|l| l.symbol == s);
        let known = |id: &str| self.users.iter().any(|u| u.id == id);
        for account in &self.accounts {
            let field = |field: &str, text: &str| {
                bad("accounts.toml", format!("account {}: {field} {text:?}", account.id))
            };
            if !known(&account.user) {
                return Err(field("unknown user", &account.user));
            }
            account_type(&account.r#type).ok_or_else(|| field("type", &account.r#type))?;
            parse_micros(&account.cash).map_err(|e| field(&format!("cash {e}"), &account.cash))?;
            for (symbol, shares) in &account.shares {
                if !listed(symbol) {
                    return Err(field("unknown symbol", symbol));
                }
                parse_e4(&shares.quantity).map_err(|e| field(&format!("quantity {e}"), &shares.quantity))?;
                parse_e4(&shares.cost).map_err(|e| field(&format!("cost {e}"), &shares.cost))?;
            }
        }
        for watchlist in &self.watchlists {
            if let Some(symbol) = watchlist.symbols.iter().find(|s| !listed(s)) {
                return Err(bad("accounts.toml", format!("watchlist: unknown symbol {symbol:?}")));
            }
        }
        Ok(())
    }

    /// The listings as the agents of the simulated market know them, in the order of their names.
    pub fn for_agents(&self) -> Result<Vec<fafnir_market::Listing>> {
        let mut listings = self
            .instruments
            .iter()
            .map(Listing::for_agents)
            .collect::<Result<Vec<fafnir_market::Listing>>>()?;
        listings.sort_by(|a, b| a.symbol.cmp(&b.symbol));
        Ok(listings)
    }

    /// Row counts of the parts that would be loaded.
    pub fn plan(&self, only: &[SeedPart]) -> Vec<Count> {
        let bars = (self.instruments.len() * history::DAYS) as u64;
        let watched: usize = self.watchlists.iter().map(|w| w.symbols.len()).sum();
        [
            (SeedPart::Instruments, "instruments", self.instruments.len() as u64),
            (SeedPart::Histories, "daily bars", bars),
            (SeedPart::Users, "users", self.users.len() as u64),
            (SeedPart::Accounts, "accounts", self.accounts.len() as u64),
            (SeedPart::Watchlists, "watchlist items", watched as u64),
        ]
        .into_iter()
        .filter(|(part, ..)| wanted(only, *part))
        .map(|(_, part, rows)| Count { part, rows, inserted: 0, changed: 0 })
        .collect()
    }
}

impl Listing {
    fn for_agents(&self) -> Result<fafnir_market::Listing> {
        let instrument = self.instrument()?;
        let close_e4 = instrument.previous_close_e4;
        let worth = i128::from(close_e4) * i128::from(self.shares_outstanding) / 10_000;
        Ok(fafnir_market::Listing {
            is_fund: instrument.r#type() == InstrumentType::Etf,
            tick_e4: instrument.tick_e4,
            lot_e4: instrument.lot_e4,
            close_e4,
            last_e4: close_e4,
            volatility_bp: self.volatility_bp,
            worth: i64::try_from(worth).unwrap_or(i64::MAX),
            is_open: true,
            symbol: instrument.symbol,
            currency: instrument.currency,
            exchange: instrument.exchange,
            sector: instrument.sector,
        })
    }

    fn instrument(&self) -> Result<Instrument> {
        let field = |field: &str, text: &str, e: &dyn std::fmt::Display| {
            bad("instruments.csv", format!("{}: {field} {text:?} {e}", self.symbol))
        };
        Symbol::parse(&self.symbol).map_err(|e| field("symbol", &self.symbol, &e))?;
        let kind = match self.r#type.as_str() {
            "EQUITY" => InstrumentType::Equity,
            "ETF" => InstrumentType::Etf,
            other => return Err(field("type", other, &"must be EQUITY or ETF")),
        };
        let e4 = |name: &str, text: &str| parse_e4(text).map_err(|e| field(name, text, &e));
        Ok(Instrument {
            symbol: self.symbol.clone(),
            name: self.name.clone(),
            exchange: self.exchange.clone(),
            exchange_full_name: self.exchange_full_name.clone(),
            r#type: kind.into(),
            currency: self.currency.clone(),
            tick_e4: e4("tick", &self.tick)?,
            lot_e4: e4("lot", &self.lot)?,
            state: TradingState::Open.into(),
            previous_close_e4: e4("previous_close", &self.previous_close)?,
            shares_outstanding: self.shares_outstanding,
            sector: self.sector.clone(),
            industry: self.industry.clone(),
            description: self.description.clone(),
            country: self.country.clone(),
            website: self.website.clone(),
            version: 0,
            volatility_band_bps: self.volatility_band_bps,
            volatility_pause: false,
        })
    }
}

fn account_type(text: &str) -> Option<AccountType> {
    match text {
        "INVESTMENT" => Some(AccountType::Investment),
        "SAVINGS" => Some(AccountType::Savings),
        "CHEQUING" => Some(AccountType::Chequing),
        _ => None,
    }
}

fn wanted(only: &[SeedPart], part: SeedPart) -> bool {
    only.is_empty() || only.contains(&part)
}

fn caller() -> Caller {
    Caller::system("seed")
}

/// There from before the first seeding until it is complete.
fn marker(ctx: &Context) -> PathBuf {
    ctx.settings.data_dir().join("seeding")
}

/// There until the sessions before the first are stored.
fn sessions_marker(ctx: &Context) -> PathBuf {
    ctx.settings.data_dir().join("playing")
}

/// Seeds a stack that has no listing yet, or whose seeding was interrupted.
pub async fn first_run(ctx: &Context, out: Out) -> Result {
    let marker = marker(ctx);
    let interrupted = marker.exists();
    if !interrupted && !is_empty(ctx).await? {
        return Ok(());
    }
    out.note(if interrupted { "the first run was interrupted: seeding again" } else { "first run: seeding" });
    fs::write(&marker, b"")?;
    fs::write(sessions_marker(ctx), b"")?;
    // Standard error is the log's: a bar would be drawn between its lines.
    let how = How { no_bar: true, ..How::default() };
    load(ctx, &Seeds::of(ctx.settings.mode)?, how, out).await?;
    if ctx.settings.mode == Mode::Production {
        out.note(
            "production mode seeds nobody: `fafnir admin create --email YOU` makes the first administrator",
        );
    }
    fs::remove_file(&marker)?;
    Ok(())
}

/// Whether the stack has no listing yet.
async fn is_empty(ctx: &Context) -> Result<bool> {
    let listed = call(|| async {
        Ok(ctx.clients.stock(&caller()).list_instruments(fafnir_proto::v1::Empty {}).await?)
    })
    .await?;
    Ok(listed.into_inner().instruments.is_empty())
}

/// Tries again while a service is still starting, or a symbol that was just listed is on its way to the engine.
async fn call<T, F, Fut>(mut operation: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = error::Result<T>>,
{
    let patient = || {
        let asked = operation();
        async {
            asked.await.map_err(|e| match e.refusal() {
                Some(refusal) if refusal.reason == Reason::UNKNOWN_SYMBOL => {
                    error::Error::unavailable(refusal.message)
                }
                _ => e,
            })
        }
    };
    retry(DEADLINE, patient).await.map_err(|e| match e {
        error::Error::Remote(status) => Error::from(*status),
        other => Error::new(Exit::Failure, other.to_string()),
    })
}

/// What is loaded, and how.
#[derive(Debug, Clone, Copy, Default)]
pub struct How<'a> {
    /// Empty: every part.
    pub only: &'a [SeedPart],
    /// A row that says otherwise than what is stored is applied.
    pub replace: bool,
    /// How far it is does not show.
    pub no_bar: bool,
}

/// Loads the wanted parts in order: instruments before what refers to them.
pub async fn load(ctx: &Context, seeds: &Seeds, how: How<'_>, out: Out) -> Result<Vec<Count>> {
    let plan = seeds.plan(how.only);
    let mut changes = changes::Told::new(how.replace);
    let target = if how.no_bar || out.json || !std::io::stderr().is_terminal() {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr()
    };
    let bar = ProgressBar::with_draw_target(Some(plan.iter().map(|c| c.rows).sum()), target);
    if let Ok(style) = ProgressStyle::with_template("{msg:16} {bar:40} {pos}/{len}") {
        bar.set_style(style);
    }
    let mut counts = Vec::new();
    for count in plan {
        bar.set_message(count.part);
        let inserted = match count.part {
            "instruments" => load_instruments(ctx, seeds, &mut changes, &bar).await?,
            "daily bars" => load_histories(ctx, seeds, &bar).await?,
            "users" => load_users(ctx, seeds, &mut changes, &bar).await?,
            "accounts" => load_accounts(ctx, seeds, &mut changes, &bar).await?,
            _ => load_watchlists(ctx, seeds, &bar).await?,
        };
        counts.push(Count { inserted, changed: changes.of_part(), ..count });
    }
    bar.finish_and_clear();
    changes.say(out);
    Ok(counts)
}

async fn load_instruments(
    ctx: &Context,
    seeds: &Seeds,
    changes: &mut changes::Told,
    bar: &ProgressBar,
) -> Result<u64> {
    let mut inserted = 0;
    for listing in &seeds.instruments {
        let mut instrument = listing.instrument()?;
        let request = || fafnir_proto::v1::SymbolRequest { symbol: listing.symbol.clone() };
        let found = call(|| async {
            match ctx.clients.stock(&caller()).get_instrument(request()).await {
                Err(s) if s.code() == tonic::Code::NotFound => Ok(None),
                answer => Ok(answer.map(|stored| Some(stored.into_inner()))?),
            }
        })
        .await?;
        let is_new = found.is_none();
        if let Some(stored) = found
            && !changes.instrument(&stored, &mut instrument)
        {
            bar.inc(1);
            continue;
        }
        call(|| async { Ok(ctx.clients.stock(&caller()).upsert_instrument(instrument.clone()).await?) })
            .await?;
        inserted += u64::from(is_new);
        bar.inc(1);
    }
    Ok(inserted)
}

async fn load_histories(ctx: &Context, seeds: &Seeds, bar: &ProgressBar) -> Result<u64> {
    let mut inserted = 0;
    let listings = seeds.for_agents()?;
    let daily = history::daily(&listings, ctx.clock.now_us());
    for (listing, bars) in listings.iter().zip(&daily) {
        let request = || HistoryRequest { symbol: listing.symbol.clone(), period: "1M".to_owned() };
        let present = call(|| async { Ok(ctx.clients.stock(&caller()).history(request()).await?) }).await?;
        // One bar may be today's own trading.
        if present.into_inner().candles.len() <= 1 {
            for part in bars.chunks(BARS_PER_CALL) {
                let bars = LoadHistoryRequest {
                    symbol: listing.symbol.clone(),
                    bars: part.to_vec(),
                    ..Default::default()
                };
                inserted += load_bars(ctx, bars).await?;
            }
        }
        bar.inc(bars.len() as u64);
    }
    Ok(inserted)
}

async fn load_bars(ctx: &Context, bars: LoadHistoryRequest) -> Result<u64> {
    let reply = call(|| async { Ok(ctx.clients.stock(&caller()).load_history(bars.clone()).await?) }).await?;
    Ok(u64::from(reply.into_inner().inserted))
}

/// Plays the last sessions of a platform that was just seeded, and stores their minutes. Takes seconds of a core: nobody
/// waits for it, and a platform that fails here runs on without them.
pub async fn play_sessions(ctx: Context) -> error::Result<()> {
    let marker = sessions_marker(&ctx);
    if !marker.exists() {
        return Ok(());
    }
    match play(&ctx).await {
        Ok(true) => tracing::info!(sessions = history::PLAYED, "the last sessions have their minute bars"),
        // The next start plays them.
        Ok(false) => return Ok(()),
        Err(e) => tracing::warn!(error = e.message, "the last sessions have no minute bars"),
    }
    if let Err(e) = fs::remove_file(&marker) {
        tracing::warn!(error = %e, path = %marker.display(), "the file cannot be deleted");
    }
    Ok(())
}

/// False when the platform stops meanwhile.
async fn play(ctx: &Context) -> Result<bool> {
    let listings = Seeds::of(ctx.settings.mode)?.for_agents()?;
    let (now_us, shutdown) = (ctx.clock.now_us(), ctx.tasks.shutdown().clone());
    let played = tokio::task::spawn_blocking(move || {
        let daily = history::daily(&listings, now_us);
        history::play(&listings, &daily, now_us, &|| !shutdown.is_cancelled())
    });
    let Some(played) = played.await.map_err(|e| Error::new(Exit::Failure, e.to_string()))? else {
        return Ok(false);
    };
    for history::Played { symbol, minutes, days } in played {
        // They fit into a call each. A minute that somebody has imported stays; the days were made here.
        let minutes = LoadHistoryRequest { symbol: symbol.clone(), minutes, ..Default::default() };
        load_bars(ctx, minutes).await?;
        let days = LoadHistoryRequest { symbol, bars: days, replace: true, ..Default::default() };
        load_bars(ctx, days).await?;
    }
    Ok(true)
}

async fn load_users(
    ctx: &Context,
    seeds: &Seeds,
    changes: &mut changes::Told,
    bar: &ProgressBar,
) -> Result<u64> {
    let mut inserted = 0;
    for user in &seeds.users {
        let (key_id, key_secret) = user.key.split_once(':').unwrap_or_default();
        let request = || SeedUserRequest {
            user_id: user.id.clone(),
            email: user.email.clone(),
            password: user.password.clone(),
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            roles: user.roles.clone(),
            key_id: key_id.to_owned(),
            key_secret: key_secret.to_owned(),
        };
        let reply = call(|| async { Ok(ctx.clients.auth(&caller()).seed(request()).await?) }).await?;
        let created = reply.into_inner().created;
        inserted += u64::from(created);
        if !created {
            let request = || GetProfileRequest { user_id: user.id.clone() };
            let stored =
                call(|| async { Ok(ctx.clients.user(&caller()).get_profile(request()).await?) }).await?;
            if let Some(new) = changes.user(stored.into_inner(), user) {
                call(|| async { Ok(ctx.clients.user(&caller()).update_profile(new.clone()).await?) }).await?;
            }
        }
        bar.inc(1);
    }
    Ok(inserted)
}

async fn load_accounts(
    ctx: &Context,
    seeds: &Seeds,
    changes: &mut changes::Told,
    bar: &ProgressBar,
) -> Result<u64> {
    let mut inserted = 0;
    for account in &seeds.accounts {
        let request = || SeedAccountRequest {
            account_id: account.id.clone(),
            user_id: account.user.clone(),
            r#type: account_type(&account.r#type).unwrap_or_default().into(),
            currency: account.currency.clone(),
        };
        let reply =
            call(|| async { Ok(ctx.clients.portfolio(&caller()).seed_account(request()).await?) }).await?;
        inserted += u64::from(reply.into_inner().created);
        let amount_micros = parse_micros(&account.cash).map_err(|e| bad("accounts.toml", e))?;
        let cash = EndowRequest {
            key: format!("seed:{}:{}", account.id, account.currency),
            account_id: account.id.clone(),
            currency: account.currency.clone(),
            amount_micros,
            ..Default::default()
        };
        let mut endowments = vec![cash];
        for (symbol, shares) in &account.shares {
            let currency = seeds.instruments.iter().find(|l| l.symbol == *symbol).map_or("", |l| &l.currency);
            endowments.push(EndowRequest {
                key: format!("seed:{}:{symbol}", account.id),
                account_id: account.id.clone(),
                symbol: symbol.clone(),
                quantity_e4: parse_e4(&shares.quantity).map_err(|e| bad("accounts.toml", e))?,
                cost_price_e4: parse_e4(&shares.cost).map_err(|e| bad("accounts.toml", e))?,
                currency: currency.to_owned(),
                amount_micros: 0,
            });
        }
        for endowment in endowments {
            let given =
                call(|| async { Ok(ctx.clients.portfolio(&caller()).endow(endowment.clone()).await?) }).await;
            match given {
                Err(e) if e.code == Reason::IDEMPOTENCY_KEY_REUSED.as_str() => changes.endowment(&endowment),
                given => drop(given?),
            }
        }
        bar.inc(1);
    }
    Ok(inserted)
}

async fn load_watchlists(ctx: &Context, seeds: &Seeds, bar: &ProgressBar) -> Result<u64> {
    let mut inserted = 0;
    for watchlist in &seeds.watchlists {
        let request = || GetProfileRequest { user_id: watchlist.user.clone() };
        let present = call(|| async { Ok(ctx.clients.user(&caller()).watchlist(request()).await?) }).await?;
        let present = present.into_inner().items;
        for symbol in &watchlist.symbols {
            if !present.iter().any(|i| i.symbol == *symbol) {
                let request = || WatchlistRequest { user_id: watchlist.user.clone(), symbol: symbol.clone() };
                call(|| async { Ok(ctx.clients.user(&caller()).add_to_watchlist(request()).await?) }).await?;
                inserted += 1;
            }
            bar.inc(1);
        }
    }
    Ok(inserted)
}

/// Row counts, for people or as JSON.
pub fn print(counts: &[Count], out: Out) {
    let document: Vec<_> = counts
        .iter()
        .map(|c| json!({"part": c.part, "rows": c.rows, "inserted": c.inserted, "changed": c.changed}))
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = counts
            .iter()
            .map(|c| {
                vec![c.part.to_owned(), c.rows.to_string(), c.inserted.to_string(), c.changed.to_string()]
            })
            .collect();
        table(&["PART", ">ROWS", ">NEW", ">CHANGED"], &rows)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_seeds_are_what_the_public_api_promises() {
        let seeds = Seeds::built_in().unwrap();
        assert!(seeds.instruments.len() >= 20);
        assert!(seeds.instruments.iter().any(|l| l.currency == "CAD"));
        assert!(seeds.instruments.iter().filter(|l| l.r#type == "ETF").count() >= 2);
        for symbol in ["AAPL", "MSFT", "NVDA", "TSLA", "AMZN", "GOOGL", "META", "NFLX"] {
            assert!(seeds.instruments.iter().any(|l| l.symbol == symbol), "{symbol}");
        }
        let user = seeds.users.iter().find(|u| u.email == "user@test.com").unwrap();
        assert_eq!(user.id, "5d684a32-8ba4-4ec3-8ce3-68df382341a2");
    }

    #[test]
    fn a_wrong_seed_names_file_row_and_field() {
        let wrong = INSTRUMENTS.replacen("EQUITY", "BOND", 1);
        let error = Seeds::parse(USERS, &wrong, ACCOUNTS).unwrap_err();
        assert!(
            error.message.starts_with("instruments.csv: ") && error.message.contains("BOND"),
            "{}",
            error.message
        );
    }
}
