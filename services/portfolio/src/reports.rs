//! Valuation, performance and statements: the ledger read in one transaction, prices asked of stock-service.

use super::{
    api::{Api, id, no_account, own_account},
    domain::{
        Account,
        performance::{Closes, Past, Period},
        statement::{self, Line, Malformed, Span, start_of_day},
        valuation,
    },
    store, wire,
};
use fafnir_platform::{
    Refusal,
    db::Tx,
    error::{Error, Result},
};
use fafnir_proto::{
    id::{AccountId, UserId},
    reason::Reason,
    v1,
};
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Lines read at a time.
const PAGE: u32 = 500;
/// Lines that are read back; a longer way back is refused.
const LINES_MAX: usize = 5_000;
/// Symbols whose bars a performance asks for.
const SYMBOLS_MAX: usize = 50;
/// Symbols in one question for quotes.
const QUOTES_MAX: usize = 100;

impl From<Malformed> for Refusal {
    fn from(e: Malformed) -> Self {
        let reason = match e {
            Malformed::Date(_) => Reason::DATE_MALFORMED,
            Malformed::Empty => Reason::PERIOD_EMPTY,
        };
        Self::invalid(reason, e.to_string())
    }
}

/// An account of a user that is not closed.
fn open_account(tx: &mut dyn Tx, user: UserId, id: AccountId) -> Result<Account> {
    let account = own_account(tx, user, id)?;
    if account.closed {
        return Err(no_account(id).into());
    }
    Ok(account)
}

/// The lines of an account, newest first, until one is older than `from_us` or there are no more.
fn lines_since(tx: &mut dyn Tx, account: &Account, from_us: i64) -> Result<Vec<Line>> {
    let mut lines: Vec<Line> = Vec::new();
    loop {
        let before = lines.last().map_or(i64::MAX, |l| l.id);
        let page = store::lines(tx, account, before, PAGE)?;
        let is_last = page.len() < PAGE as usize || page.last().is_some_and(|l| l.time_us < from_us);
        lines.extend(page);
        if is_last {
            return Ok(lines);
        }
        if lines.len() >= LINES_MAX {
            let sentence =
                format!("the period is more than {LINES_MAX} transactions back; choose a later from");
            return Err(Refusal::exhausted(Reason::PERIOD_TOO_LONG, sentence).into());
        }
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
            let rate = wire::currency_of(&holding)
                .and_then(|account| valuation::rate_micros(listing, account, usd_cad));
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

    /// What moved the cash of an account between two days.
    pub(super) async fn statement_of(
        &self,
        user: UserId,
        r: v1::StatementRequest,
    ) -> Result<v1::StatementReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let span = Span::parse(r.from.as_deref(), r.to.as_deref(), self.ctx.clock.now_us())
            .map_err(Refusal::from)?;
        self.db
            .read(move |tx| {
                let account = open_account(tx, user, account)?;
                let balance = store::cash(tx, &account)?.posted;
                let lines = lines_since(tx, &account, span.from_us)?;
                let statement = statement::build(account.currency, balance, lines, span)
                    .ok_or_else(|| Error::internal("a statement beyond 64 bits"))?;
                Ok(wire::statement(&account, span, &statement))
            })
            .await
    }

    /// How the value of an account went.
    pub(super) async fn performance_of(
        &self,
        user: UserId,
        r: v1::PerformanceRequest,
    ) -> Result<v1::PerformanceReply> {
        let account: AccountId = id("account_id", &r.account_id)?;
        let period = Period::parse(&r.period).ok_or_else(|| {
            Refusal::invalid(Reason::PERIOD_UNKNOWN, "period must be one of 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX")
        })?;
        let now_us = self.ctx.clock.now_us();
        let (account, first_us, mut past) = self
            .db
            .read(move |tx| {
                let account = open_account(tx, user, account)?;
                let first_us = period.first_us(account.created_us, now_us);
                let cash = store::cash(tx, &account)?.posted;
                let lines = lines_since(tx, &account, first_us)?;
                let holdings = store::holdings(tx, &account, None)?;
                let shares = holdings.into_iter().map(|(symbol, b)| (symbol, b.posted)).collect();
                let past = Past::new(account.currency, cash, shares, &lines, first_us);
                Ok((account, first_us, past))
            })
            .await?;
        past.closes = self.closes(&account, &past, period, now_us).await?;
        let went = past
            .performance(first_us, start_of_day(now_us))
            .ok_or_else(|| Error::internal("a value beyond 64 bits"))?;
        Ok(wire::performance(&account, period, &went))
    }

    /// The daily closes of an account's symbols, the newest being the last trade.
    async fn closes(
        &self,
        account: &Account,
        past: &Past,
        period: Period,
        now_us: i64,
    ) -> Result<BTreeMap<String, Closes>> {
        let symbols: Vec<String> = past.symbols().cloned().collect();
        if symbols.len() > SYMBOLS_MAX {
            let sentence = format!("the account has traded more than {SYMBOLS_MAX} symbols in the period");
            return Err(Refusal::exhausted(Reason::TOO_MANY_SYMBOLS, sentence).into());
        }
        let usd_cad = self.usd_cad().await;
        let quotes = self.quotes(symbols.clone()).await?;
        let prices: HashMap<&str, i64> = quotes.iter().map(|q| (q.symbol.as_str(), q.price_e4)).collect();
        let mut closes = BTreeMap::new();
        for symbol in symbols {
            let request = v1::HistoryRequest { symbol: symbol.clone(), period: period.name.to_owned() };
            let history = self.ctx.clients.stock(&self.ctx.system()).history(request).await?.into_inner();
            let mut by_day: BTreeMap<i64, i64> =
                history.candles.iter().map(|c| (c.time_us, c.close_e4)).collect();
            if let Some(price) = prices.get(symbol.as_str()) {
                by_day.insert(now_us, *price);
            }
            let rate_micros = valuation::rate_micros(&history.currency, account.currency, usd_cad);
            closes.insert(symbol, Closes { by_day, rate_micros });
        }
        Ok(closes)
    }
}
