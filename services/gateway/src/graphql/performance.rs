//! How the value of an account went: its cash and shares day by day, reckoned back from what they are now.
//!
//! Cash goes back by transactions, shares by fills, prices are the closes of the days. Shares that came without a fill
//! (seeds, corporate actions) count as held all along.

use super::{Needs, error, of, query::id_of, scalars::Decimal, statement::signed, types::percent_e4};
use crate::{
    Gateway,
    session::{Permission::*, Session},
};
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::{
    Refusal,
    clock::{DAY_US, date},
};
use fafnir_proto::{money, symbol::Symbol, v1};
use std::collections::{BTreeMap, HashMap, HashSet};
use tonic::Status;

/// Periods and how many days each goes back.
const PERIODS: [(&str, i64); 9] = [
    ("1D", 1),
    ("1W", 7),
    ("1M", 30),
    ("3M", 91),
    ("6M", 182),
    ("1Y", 365),
    ("2Y", 730),
    ("5Y", 1826),
    ("MAX", 1826),
];
/// Fills that are read back; a period with more is refused.
const FILLS_MAX: u32 = 10_000;
/// Symbols whose bars are fetched.
const SYMBOLS_MAX: usize = 50;

#[derive(SimpleObject, Clone, Debug, PartialEq, Eq)]
pub struct PerformancePoint {
    pub date: String,
    /// Cash and shares at the end of the day, in the account's currency.
    pub value: Decimal,
    pub cash: Decimal,
    pub holdings: Decimal,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct Performance {
    pub account_id: String,
    pub currency: String,
    pub period: String,
    pub start_value: Decimal,
    pub end_value: Decimal,
    /// Deposits and transfers in, less transfers out, after the first day.
    pub net_flows: Decimal,
    /// What the value grew by beyond the flows.
    pub gain: Decimal,
    /// Of the start value and the flows; 1.25 is 1.25 %.
    pub gain_percent: Decimal,
    /// One for each day, ascending.
    pub points: Vec<PerformancePoint>,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct PerformanceResponse {
    pub data: Option<Performance>,
    pub code: String,
}

/// Daily closes of a symbol by the start of their day, and what one unit of its currency is worth in the account's.
#[derive(Debug, Clone, Default)]
struct Closes {
    by_day: BTreeMap<i64, i64>,
    fx_micros: Option<i64>,
}

/// Everything that a series is reckoned from.
#[derive(Debug, Default)]
struct Past {
    cash_now: i64,
    shares_now: BTreeMap<String, i64>,
    /// When and how much, in any order.
    cash_changes: Vec<(i64, i64)>,
    share_changes: Vec<(i64, String, i64)>,
    closes: BTreeMap<String, Closes>,
}

fn value_of(quantity_e4: i64, price_e4: i64, fx_micros: Option<i64>) -> i128 {
    let notional = i128::from(quantity_e4) * i128::from(price_e4) / 100;
    fx_micros.map_or(notional, |rate| notional * i128::from(rate) / 1_000_000)
}

impl Past {
    /// Cash and worth of the shares, in micros, at the end of each day from `first_us` to `last_us` (starts of days).
    fn series(&self, first_us: i64, last_us: i64) -> Option<Vec<(i64, i64, i64)>> {
        let mut days = Vec::new();
        let mut day = first_us;
        while day <= last_us {
            let end = day + DAY_US;
            let mut cash = i128::from(self.cash_now);
            for (_, change) in self.cash_changes.iter().filter(|(at, _)| *at >= end) {
                cash -= i128::from(*change);
            }
            let mut shares = self.shares_now.clone();
            for (_, symbol, change) in self.share_changes.iter().filter(|(at, _, _)| *at >= end) {
                let held = shares.entry(symbol.clone()).or_default();
                *held = held.checked_sub(*change)?;
            }
            let worth: i128 = shares
                .iter()
                .filter_map(|(symbol, quantity)| {
                    let closes = self.closes.get(symbol)?;
                    let (_, close) = closes.by_day.range(..end).next_back()?;
                    Some(value_of(*quantity, *close, closes.fx_micros))
                })
                .sum();
            days.push((day, i64::try_from(cash).ok()?, i64::try_from(worth).ok()?));
            day = end;
        }
        Some(days)
    }
}

#[derive(Default)]
pub struct Performances;

#[Object]
impl Performances {
    /// How the value of an account of the caller went; periods 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX in any case.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn portfolio_performance(
        &self,
        ctx: &Context<'_>,
        account_id: String,
        period: Option<String>,
    ) -> Result<PerformanceResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let account_id = id_of("accountId", &account_id)?;
            let period = period.unwrap_or_else(|| "1M".to_owned()).trim().to_ascii_uppercase();
            let known = PERIODS.iter().find(|(name, _)| *name == period);
            let (name, days) = *known.ok_or_else(|| {
                Status::from(Refusal::invalid(
                    "PERIOD_UNKNOWN",
                    "period must be one of 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX",
                ))
            })?;
            gateway.performance(session, &account_id, name, days).await
        };
        let (data, code) = error::outcome(asked.await)?;
        Ok(PerformanceResponse { data, code })
    }
}

impl Gateway {
    async fn performance(
        &self,
        session: &Session,
        id: &str,
        period: &str,
        days: i64,
    ) -> std::result::Result<Performance, Status> {
        let account = self.account(session, id).await?;
        let today = self.ctx.clock.now_us().div_euclid(DAY_US) * DAY_US;
        let opened = account.created_us.div_euclid(DAY_US) * DAY_US;
        let first = (today - days * DAY_US).max(opened.min(today));

        let rows = self.transactions_since(session, id, first).await?;
        let user_id = session.user.to_string();
        let request = v1::AccountRequest { user_id: user_id.clone(), account_id: id.to_owned() };
        let mut portfolio = self.ctx.clients.portfolio(&session.caller());
        let holdings = portfolio.holdings(request).await?.into_inner().holdings;
        let request = v1::ListFillsRequest { user_id, symbol: String::new(), limit: FILLS_MAX };
        let mut orders = self.ctx.clients.order(&session.caller());
        let fills = orders.list_fills(request).await?.into_inner().fills;
        if fills.len() >= FILLS_MAX as usize && fills.last().is_some_and(|f| f.time_us >= first) {
            let text = format!("the period has more than {FILLS_MAX} fills; choose a shorter one");
            return Err(Refusal::exhausted("PERIOD_TOO_LONG", text).into());
        }

        // A fill is this account's when a transaction of the account refers to its order.
        let own: HashSet<&str> = rows.iter().map(|t| t.reference_id.as_str()).collect();
        let mut past = Past {
            cash_now: account.balance_micros,
            cash_changes: rows.iter().map(|t| (t.created_us, signed(t))).collect(),
            ..Past::default()
        };
        for holding in holdings {
            past.shares_now.insert(holding.symbol, holding.quantity_e4);
        }
        for fill in fills.iter().filter(|f| f.time_us >= first && own.contains(f.order_id.as_str())) {
            let change = if fill.side() == v1::Side::Buy { fill.quantity_e4 } else { -fill.quantity_e4 };
            past.share_changes.push((fill.time_us, fill.symbol.clone(), change));
            past.shares_now.entry(fill.symbol.clone()).or_default();
        }
        past.closes = self.closes(session, &account, past.shares_now.keys(), period).await?;
        let series = past.series(first, today).ok_or_else(|| Status::internal("a value beyond 64 bits"))?;

        use v1::TransactionType::*;
        let flows = rows
            .iter()
            .filter(|t| t.created_us >= first + DAY_US)
            .filter(|t| matches!(t.r#type(), Deposit | TransferIn | TransferOut))
            .fold(0i64, |sum, t| sum.saturating_add(signed(t)));
        let value =
            |point: Option<&(i64, i64, i64)>| point.map_or(0, |(_, cash, worth)| cash.saturating_add(*worth));
        let (start, end) = (value(series.first()), value(series.last()));
        let gain = end.saturating_sub(start).saturating_sub(flows);
        Ok(Performance {
            account_id: account.id,
            currency: account.currency,
            period: period.to_owned(),
            start_value: Decimal::micros(start),
            end_value: Decimal::micros(end),
            net_flows: Decimal::micros(flows),
            gain: Decimal::micros(gain),
            gain_percent: Decimal::e4(percent_e4(gain, start.saturating_add(flows))),
            points: series
                .into_iter()
                .map(|(day, cash, worth)| PerformancePoint {
                    date: date(day),
                    value: Decimal::micros(cash.saturating_add(worth)),
                    cash: Decimal::micros(cash),
                    holdings: Decimal::micros(worth),
                })
                .collect(),
        })
    }

    /// The daily closes of symbols, the newest being the last trade.
    async fn closes(
        &self,
        session: &Session,
        account: &v1::Account,
        symbols: impl Iterator<Item = &String>,
        period: &str,
    ) -> std::result::Result<BTreeMap<String, Closes>, Status> {
        let symbols: Vec<Symbol> = symbols.filter_map(|s| Symbol::parse(s).ok()).collect();
        if symbols.len() > SYMBOLS_MAX {
            let text = format!("the account has traded more than {SYMBOLS_MAX} symbols in the period");
            return Err(Refusal::exhausted("TOO_MANY_SYMBOLS", text).into());
        }
        let quotes = self.quotes(session, &symbols).await?;
        let prices: HashMap<&str, i64> = quotes.iter().map(|q| (q.symbol.as_str(), q.price_e4)).collect();
        let now = self.ctx.clock.now_us();
        let mut closes = BTreeMap::new();
        for symbol in &symbols {
            let symbol = symbol.to_string();
            let request = v1::HistoryRequest { symbol: symbol.clone(), period: period.to_owned() };
            let mut stock = self.ctx.clients.stock(&session.caller());
            let history = stock.history(request).await?.into_inner();
            let mut by_day: BTreeMap<i64, i64> =
                history.candles.iter().map(|c| (c.time_us, c.close_e4)).collect();
            if let Some(price) = prices.get(symbol.as_str()) {
                by_day.insert(now, *price);
            }
            let fx_micros = self.fx(&history.currency, &account.currency);
            closes.insert(symbol, Closes { by_day, fx_micros });
        }
        Ok(closes)
    }

    /// What one unit of a listing's currency is worth in an account's, in micros; `None` when they are the same.
    pub fn fx(&self, listing: &str, account: &str) -> Option<i64> {
        let usd_cad = money::parse_micros(&self.ctx.settings.portfolio.usd_cad).unwrap_or(0);
        match (listing, account) {
            ("USD", "CAD") => Some(usd_cad),
            ("CAD", "USD") if usd_cad > 0 => Some(1_000_000_000_000 / usd_cad),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cash_and_shares_are_reckoned_back_day_by_day() {
        let mut past = Past { cash_now: 800_000_000, ..Past::default() };
        past.shares_now.insert("A".into(), 20_000);
        // Day 2: bought 2 at 100. Day 0: deposited 1000.
        past.cash_changes = vec![(2 * DAY_US + 5, -200_000_000), (5, 1_000_000_000)];
        past.share_changes = vec![(2 * DAY_US + 5, "A".into(), 20_000)];
        let by_day = BTreeMap::from([(DAY_US, 900_000), (2 * DAY_US, 1_000_000), (3 * DAY_US, 1_100_000)]);
        past.closes.insert("A".into(), Closes { by_day, fx_micros: None });
        let series = past.series(DAY_US, 4 * DAY_US).unwrap();
        assert_eq!(
            series,
            [
                (DAY_US, 1_000_000_000, 0),
                (2 * DAY_US, 800_000_000, 200_000_000),
                (3 * DAY_US, 800_000_000, 220_000_000),
                (4 * DAY_US, 800_000_000, 220_000_000),
            ]
        );
    }
}
