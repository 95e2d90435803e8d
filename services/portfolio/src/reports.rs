//! Valuation, statements, performance, gains and lots: reckoned from what the books keep; only the prices of now are asked
//! of stock-service.

use super::{
    api::{Api, id, own_account, symbol},
    domain::{
        Account, Currency,
        gains::{Lots, Traded},
        performance::{Course, Performance, Point},
        period::{Malformed, Period, Span, moment},
        report,
        statement::{self, Line},
        valuation,
    },
    store::{self, Cut, Lines, Postings},
    wire,
};
use fafnir_platform::{Refusal, clock::DAY_US, db::Tx, error::Result};
use fafnir_proto::{
    id::{AccountId, TransactionId, UserId},
    reason::Reason,
    v1,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Rows read at a time.
const PAGE: u32 = 1_000;
/// Symbols in one question for quotes.
const QUOTES_MAX: usize = 100;
/// A period that is not named.
const PERIOD_DEFAULT: &str = "1M";

impl From<Malformed> for Refusal {
    fn from(e: Malformed) -> Self {
        let reason = match e {
            Malformed::Date(_) => Reason::DATE_MALFORMED,
            Malformed::Empty => Reason::PERIOD_EMPTY,
            Malformed::Period => Reason::PERIOD_UNKNOWN,
            Malformed::Interval => Reason::INTERVAL_UNKNOWN,
            Malformed::TooLong => Reason::PERIOD_TOO_LONG,
        };
        Self::invalid(reason, e.to_string())
    }
}

/// How many rows a page has.
fn limit(asked: u32) -> u32 {
    if asked == 0 { PAGE } else { asked.min(PAGE) }
}

/// The posting that a page goes on after; 0 for the first page.
fn after(text: &str) -> Result<i64> {
    if text.is_empty() {
        return Ok(0);
    }
    let unknown = || Refusal::invalid(Reason::ID_MALFORMED, "after_id must be an id of the page before");
    Ok(wire::posting_of(&id::<TransactionId>("after_id", text)?.uuid()).ok_or_else(unknown)?)
}

/// What is asked for: a period or two moments, as they came.
struct Asked {
    period: Period,
    from: Option<String>,
    to: Option<String>,
    now_us: i64,
}

impl Asked {
    fn parse(period: &str, from: Option<String>, to: Option<String>, now_us: i64) -> Result<Self> {
        let period = if period.trim().is_empty() { PERIOD_DEFAULT } else { period };
        Ok(Self { period: Period::parse(period).map_err(Refusal::from)?, from, to, now_us })
    }

    fn span(&self, account: &Account) -> Result<Span> {
        let (from, to) = (self.from.as_deref(), self.to.as_deref());
        let span = Span::of_figures(self.period, from, to, account.created_us, self.now_us);
        Ok(span.map_err(Refusal::from)?)
    }
}

impl Api {
    /// Holdings with what they are worth now. A quote that cannot be had leaves the value at 0: the shares are there.
    pub(super) async fn valued(&self, holdings: Vec<v1::Holding>) -> v1::ValuationReply {
        let symbols: BTreeSet<&String> = holdings.iter().map(|h| &h.symbol).collect();
        let symbols: Vec<String> = symbols.into_iter().cloned().collect();
        let mut quotes: HashMap<String, v1::Quote> = HashMap::new();
        for chunk in symbols.chunks(QUOTES_MAX) {
            match self.quotes(chunk.to_vec()).await {
                Ok(found) => quotes.extend(found.into_iter().map(|q| (q.symbol.clone(), q))),
                Err(e) => tracing::warn!(error = %e, "holdings without quotes"),
            }
        }
        let usd_cad = self.usd_cad().await;
        let value = |holding: v1::Holding| {
            let (price_e4, listing) =
                quotes.get(&holding.symbol).map_or((0, ""), |q| (q.price_e4, q.currency.as_str()));
            let rate = wire::currency_of(&holding).map_or(valuation::Rate::ONE, |account| {
                valuation::Rate::between(Currency::parse(listing), account, usd_cad)
            });
            let worth = valuation::worth(holding.quantity_e4, holding.cost_micros, price_e4, rate);
            wire::valued(holding, price_e4, worth)
        };
        v1::ValuationReply { holdings: holdings.into_iter().map(value).collect() }
    }

    /// The house's rate; 0 where there is none.
    async fn usd_cad(&self) -> i64 {
        let rate = self.db.read(|tx| Ok(store::usd_cad(tx)?)).await;
        rate.inspect_err(|e| tracing::warn!(error = %e, "no exchange rate")).unwrap_or(0)
    }

    async fn quotes(&self, symbols: Vec<String>) -> Result<Vec<v1::Quote>> {
        if symbols.is_empty() {
            return Ok(Vec::new());
        }
        let mut stock = self.ctx.clients.stock(&self.ctx.system());
        Ok(stock.quotes(v1::QuotesRequest { symbols }).await?.into_inner().quotes)
    }

    /// What moved the cash of an account in a span of time.
    pub(super) async fn statement_of(
        &self,
        user: UserId,
        r: v1::StatementRequest,
    ) -> Result<v1::StatementReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let span = Span::of_statement(r.from.as_deref(), r.to.as_deref(), self.ctx.clock.now_us())
            .map_err(Refusal::from)?;
        let (after, limit) = (after(&r.after_id)?, limit(r.limit));
        self.db
            .read(move |tx| {
                let account = own_account(tx, user, account)?;
                statement(tx, &account, span, after, limit)
            })
            .await
    }

    /// How the worth of an account went.
    pub(super) async fn performance_of(
        &self,
        user: UserId,
        r: v1::PerformanceRequest,
    ) -> Result<v1::PerformanceReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let asked = Asked::parse(&r.period, r.from, r.to, self.ctx.clock.now_us())?;
        self.db
            .read(move |tx| {
                let account = own_account(tx, user, account)?;
                let span = asked.span(&account)?;
                let points = span.points(&r.interval).map_err(Refusal::from)?;
                let (went, points) = performance(tx, &account, span, &points)?;
                Ok(wire::performance(&account, asked.period, span, &went, &points))
            })
            .await
    }

    /// What an account traded and gained, by symbol.
    pub(super) async fn gains_of(&self, user: UserId, r: v1::GainsRequest) -> Result<v1::GainsReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let asked = Asked::parse(&r.period, r.from, r.to, self.ctx.clock.now_us())?;
        self.db
            .read(move |tx| {
                let account = own_account(tx, user, account)?;
                let span = asked.span(&account)?;
                Ok(wire::gains(&account, span, gains(tx, &account, span)?))
            })
            .await
    }

    /// Performance, gains and a page of lines, from one state of the books.
    pub(super) async fn report_of(&self, user: UserId, r: v1::ReportRequest) -> Result<v1::ReportReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let asked = Asked::parse(&r.period, r.from, r.to, self.ctx.clock.now_us())?;
        let (after, limit) = (after(&r.after_id)?, limit(r.limit).max(report::LINES_MIN));
        self.db
            .read(move |tx| {
                let account = own_account(tx, user, account)?;
                let span = asked.span(&account)?;
                let points = span.points(&r.interval).map_err(Refusal::from)?;
                let page = report(tx, &account, span, after, limit)?;
                if r.lines_only {
                    return Ok(page);
                }
                let (went, points) = performance(tx, &account, span, &points)?;
                Ok(v1::ReportReply {
                    performance: Some(wire::performance(&account, asked.period, span, &went, &points)),
                    gains: Some(wire::gains(&account, span, gains(tx, &account, span)?)),
                    ..page
                })
            })
            .await
    }

    /// The lots of an account's shares of a symbol.
    pub(super) async fn lots_of(&self, user: UserId, r: v1::LotsRequest) -> Result<v1::LotsReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let code = symbol(&r.symbol)?;
        let end_us = self.ctx.clock.now_us() + 1;
        let at =
            r.at.as_deref().map_or(Ok(end_us), |text| moment("at", text, DAY_US)).map_err(Refusal::from)?;
        let (after, limit) = (after(&r.after_id)?, limit(r.limit));
        self.db
            .read(move |tx| {
                let account = own_account(tx, user, account)?;
                let cut = store::cut(tx, at.min(end_us))?;
                lots(tx, &account, &code, cut, after, limit)
            })
            .await
    }
}

/// Lines of an account in a span.
struct Read {
    /// Cash before the span and at its end.
    balances: (i64, i64),
    /// Cash before the first line.
    so_far: i64,
    /// One more than were asked for, where there are more.
    lines: Vec<Line>,
}

/// The lines of a span after a posting.
fn lines(tx: &mut dyn Tx, account: &Account, span: Span, after: i64, limit: u32) -> Result<Read> {
    let (from, to) = (store::cut(tx, span.from_us)?, store::cut(tx, span.to_us)?);
    let cash = account.currency.asset();
    let opening = store::balance_at(tx, account, cash, from)?;
    let closing = store::balance_at(tx, account, cash, to)?;
    // After the last posting before the span, or after that of the page before.
    let after = after.max(from.posting() - 1);
    let asked = Lines { after, before: to.posting(), newest_first: false, limit: limit + 1 };
    let lines = store::lines(tx, account, asked)?;
    let so_far = store::balance_before(tx, account, cash, after + 1)?;
    Ok(Read { balances: (opening, closing), so_far, lines })
}

pub(super) fn statement(
    tx: &mut dyn Tx,
    account: &Account,
    span: Span,
    after: i64,
    limit: u32,
) -> Result<v1::StatementReply> {
    let Read { balances, so_far, mut lines } = lines(tx, account, span, after, limit)?;
    let more = lines.len() > limit as usize;
    lines.truncate(limit as usize);
    let entries = statement::entries(account.currency, so_far, lines);
    Ok(wire::statement(account, span, balances, &entries, more))
}

/// The lines of a report, without its figures.
pub(super) fn report(
    tx: &mut dyn Tx,
    account: &Account,
    span: Span,
    after: i64,
    limit: u32,
) -> Result<v1::ReportReply> {
    let Read { balances, so_far, mut lines } = lines(tx, account, span, after, limit)?;
    let more = report::cut_between_rows(&mut lines, limit);
    let end = lines.last().map(|line| line.id);
    let (trades, flows) = report::split(statement::entries(account.currency, so_far, lines));
    Ok(v1::ReportReply { more, ..wire::report(account, span, balances, (&trades, &flows), end) })
}

/// How the worth of an account went over a span, and its points.
pub(super) fn performance(
    tx: &mut dyn Tx,
    account: &Account,
    span: Span,
    points: &[(i64, i64)],
) -> Result<(Performance, Vec<Point>)> {
    let mut cuts = vec![store::cut(tx, span.from_us)?];
    for (_, until_us) in points {
        cuts.push(store::cut(tx, *until_us)?);
    }
    let worth = store::worth_at(tx, account, &cuts)?;
    let (from, to) = (cuts[0], cuts[cuts.len() - 1]);
    let sum = |(cash, shares): (i64, i64)| cash.saturating_add(shares);
    let mut course = Course::new(sum(worth[0]), span.from_us);
    let mut after = from.posting() - 1;
    loop {
        let page = store::flows(tx, account, after, to, PAGE)?;
        let is_last = page.len() < PAGE as usize;
        for (id, flow) in page {
            course.flow(flow);
            after = id;
        }
        if is_last {
            break;
        }
    }
    let went = course.end(sum(worth[worth.len() - 1]), span.to_us);
    let points = points.iter().zip(&worth[1..]).map(|((from_us, until_us), (cash, shares))| Point {
        from_us: *from_us,
        until_us: *until_us,
        cash: *cash,
        shares: *shares,
    });
    Ok((went, points.collect()))
}

/// What an account traded of a symbol in a span, and what is there at its end.
#[derive(Debug, Clone, Default)]
pub(super) struct Gains {
    pub symbol: String,
    pub traded: Traded,
    pub realized_fifo: i128,
    /// At the end: shares, their average and their first-in-first-out cost, price and worth.
    pub quantity: i64,
    pub cost: i128,
    pub cost_fifo: i128,
    pub price_e4: i64,
    pub value: i128,
}

/// By symbol, those that were traded in the span or are there at its end.
pub(super) fn gains(tx: &mut dyn Tx, account: &Account, span: Span) -> Result<Vec<Gains>> {
    let (from, to) = (store::cut(tx, span.from_us)?, store::cut(tx, span.to_us)?);
    let mut assets = store::assets(tx, account)?;
    assets.retain(|(asset, _)| *asset != account.currency.asset());
    let within = traded_between(tx, account, &assets, from, to)?;
    let until = traded_between(tx, account, &assets, Cut { time_us: 0, id: 0 }, to)?;
    let mut found = Vec::new();
    for (asset, symbol) in assets {
        let quantity = store::balance_at(tx, account, asset, to)?;
        let traded = within.get(&asset).copied().unwrap_or_default();
        if traded == Traded::default() && quantity == 0 {
            continue;
        }
        let until = until.get(&asset).copied().unwrap_or_default();
        let before = lots_at(tx, account, asset, from)?;
        let after = lots_at(tx, account, asset, to)?;
        let taken = taken(tx, account, asset, traded, from, to)?;
        let (price_e4, rate) = store::quote_at(tx, asset, account.currency, to)?;
        found.push(Gains {
            symbol,
            traded,
            realized_fifo: traded.realized_fifo(before.cost, after.cost, taken),
            quantity,
            cost: until.cost_added(),
            cost_fifo: after.cost,
            price_e4,
            value: valuation::value_micros(quantity, price_e4, rate),
        });
    }
    Ok(found)
}

/// What an account traded between two moments: whole days as they are kept, the rest posting by posting.
pub(super) fn traded_between(
    tx: &mut dyn Tx,
    account: &Account,
    assets: &[(i64, String)],
    from: Cut,
    to: Cut,
) -> Result<BTreeMap<i64, Traded>> {
    // The first and the day after the last of which everything is within; where nothing came after `to`, its day too.
    let first = store::day(from.time_us + DAY_US - 1);
    let is_last = store::cut(tx, i64::MAX)?.id == to.id;
    let end = (store::day(to.time_us) + i64::from(is_last)).max(first);
    let mut sums = store::traded_on(tx, account, assets, first, end)?;
    let edge = |tx: &mut dyn Tx, day: i64| store::cut(tx, day.saturating_mul(DAY_US));
    let mut edges = Vec::new();
    let (first_cut, end_cut) = (edge(tx, first)?, edge(tx, end)?);
    if first_cut.id >= to.id {
        edges.push((from, to));
    } else {
        edges.push((from, first_cut));
        if !is_last {
            edges.push((end_cut, to));
        }
    }
    for (asset, _) in assets {
        for (from, to) in &edges {
            let sum = sums.entry(*asset).or_default();
            *sum = *sum + traded_edge(tx, account, *asset, *from, *to)?;
        }
    }
    Ok(sums)
}

fn traded_edge(tx: &mut dyn Tx, account: &Account, asset: i64, from: Cut, to: Cut) -> Result<Traded> {
    let (mut sum, mut after) = (Traded::default(), from.posting() - 1);
    if from.id >= to.id {
        return Ok(sum);
    }
    loop {
        let asked =
            Postings { asset, after, before: to.posting(), came: false, newest_first: false, limit: PAGE };
        let page = store::moved(tx, account, asked)?;
        for moved in &page {
            sum = sum + moved.traded();
            after = moved.id;
        }
        if page.len() < PAGE as usize {
            return Ok(sum);
        }
    }
}

/// The lots of a symbol at a moment, newest first until they make up what is there.
fn lots_at(tx: &mut dyn Tx, account: &Account, asset: i64, cut: Cut) -> Result<Lots> {
    let held = store::balance_at(tx, account, asset, cut)?;
    let (mut lots, mut before) = (Lots::default(), cut.posting());
    while lots.quantity < held {
        let asked = Postings { asset, after: 0, before, came: true, newest_first: true, limit: PAGE };
        let page = store::moved(tx, account, asked)?;
        for moved in &page {
            before = moved.id;
            if !lots.take(&moved.lot(), held) {
                break;
            }
        }
        if page.is_empty() {
            break;
        }
    }
    Ok(lots)
}

/// The first-in-first-out cost of shares that went without a trade in a span: only closing takes them, and takes all.
fn taken(tx: &mut dyn Tx, account: &Account, asset: i64, traded: Traded, from: Cut, to: Cut) -> Result<i128> {
    if traded.taken == 0 {
        return Ok(0);
    }
    let asked = Postings {
        asset,
        after: from.posting() - 1,
        before: to.posting(),
        came: false,
        newest_first: true,
        limit: 1,
    };
    let Some(last) = store::moved(tx, account, asked)?.pop() else { return Ok(0) };
    let then = store::cut(tx, last.time_us)?;
    Ok(lots_at(tx, account, asset, then)?.cost)
}

pub(super) fn lots(
    tx: &mut dyn Tx,
    account: &Account,
    code: &str,
    cut: Cut,
    after: i64,
    limit: u32,
) -> Result<v1::LotsReply> {
    let known = store::assets(tx, account)?;
    let Some((asset, _)) = known.into_iter().find(|(_, known)| known == code) else {
        let sentence = format!("the account never had {code}");
        return Err(Refusal::not_found(Reason::HOLDING_NOT_FOUND, sentence).into());
    };
    let all = lots_at(tx, account, asset, cut)?;
    let mut page = Vec::new();
    if let Some((oldest, left)) = all.oldest {
        let after = after.max(oldest - 1);
        let asked = Postings {
            asset,
            after,
            before: cut.posting(),
            came: true,
            newest_first: false,
            limit: limit + 1,
        };
        for moved in store::moved(tx, account, asked)? {
            let lot = moved.lot();
            page.push((lot, if lot.id == oldest { left } else { lot.quantity }));
        }
    }
    let more = page.len() > limit as usize;
    page.truncate(limit as usize);
    Ok(wire::lots(account, code, &all, &page, more))
}
