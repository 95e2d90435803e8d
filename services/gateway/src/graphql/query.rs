//! The queries of public-api.md §6, and ours beyond the reference.

use super::{Needs, error, of, rows::Rows, types::*};
use crate::{
    Gateway,
    credentials::Life,
    market,
    session::{Permission::*, Session},
};
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_proto::{reason::Reason, v1};
use fafnir_rules::symbol::Symbol;
use std::collections::BTreeMap;
use tonic::Status;

/// Results of a search without a limit, or with one outside 1–20.
const SEARCH_LIMIT_DEFAULT: i32 = 8;
const SEARCH_LIMIT_MAX: i32 = 20;
/// Symbols in one batch of quotes.
const BATCH_MAX: usize = 100;
/// Rows of a list without `first`.
const FIRST_DEFAULT: i32 = 500;
const FIRST_MAX: i32 = 1000;
/// Rows asked of a service at a time.
pub const PAGE: u32 = 500;
const DEPTH_DEFAULT: i32 = 10;
const DEPTH_MAX: i32 = 50;

/// `first` within its bounds.
pub fn first_of(first: Option<i32>) -> Result<usize> {
    match first.unwrap_or(FIRST_DEFAULT) {
        n if (1..=FIRST_MAX).contains(&n) => Ok(n as usize),
        _ => Err(error::invalid(Reason::FIRST_OUT_OF_RANGE, format!("first must be from 1 to {FIRST_MAX}"))),
    }
}

/// A UUID in its canonical form; anything else cannot exist.
pub fn id_of(field: &str, text: &str) -> std::result::Result<String, Status> {
    uuid::Uuid::try_parse(text).map(|id| id.to_string()).map_err(|_| {
        fafnir_platform::Refusal::invalid(Reason::ID_MALFORMED, format!("{field} must be a UUID")).into()
    })
}

/// Trades of a symbol.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(complex)]
pub struct TradeConnection {
    /// The answer; null where it was refused.
    pub data: Option<Rows<Trade>>,
    /// There are more, after the last one.
    #[graphql(skip)]
    pub has_more: bool,
    /// There are some before the first one.
    #[graphql(skip)]
    pub has_before: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

#[derive(Default)]
pub struct Stocks;

#[Object]
impl Stocks {
    /// Whether the API answers.
    async fn health(&self) -> &'static str {
        "OK"
    }

    /// Listings by symbol prefix, then name.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn search_stocks(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "words to look for")] query: String,
        #[graphql(default = 8, desc = "1 to 20; anything else is 8")] limit: Option<i32>,
    ) -> Result<Vec<StockSearchResult>> {
        let (gateway, session) = of(ctx)?;
        if query.trim().is_empty() {
            return Err(error::invalid(Reason::QUERY_BLANK, "query must not be blank"));
        }
        let limit = limit.filter(|n| (1..=SEARCH_LIMIT_MAX).contains(n)).unwrap_or(SEARCH_LIMIT_DEFAULT);
        let request = v1::SearchRequest { query: query.trim().to_owned(), limit: limit as u32 };
        let mut stock = gateway.ctx.clients.stock(&session.caller());
        let found = stock.search(request).await.map_err(error::of)?.into_inner().instruments;
        Ok(found.into_iter().map(StockSearchResult::from).collect())
    }

    /// How this session watches `market.>` with a NATS client, from a page over a WebSocket too.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn market_data(&self, ctx: &Context<'_>) -> Result<MarketDataResponse> {
        let (gateway, session) = of(ctx)?;
        let access = gateway.market_access(session.id, session.user, Life::of(session)).await;
        let access = access.ok_or_else(|| Status::unavailable("nobody knows where the market data is"));
        let (access, outcome) = error::outcome(access)?;
        let data = access.map(|access| MarketData {
            url: access.url(),
            web_socket_url: access.web_socket_url,
            user: access.user,
            password: access.password.expose().to_owned(),
        });
        Ok(MarketDataResponse { data, outcome })
    }

    /// What is known of an instrument. A malformed symbol is INVALID_ARGUMENT, one that is not listed NOT_FOUND.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn get_stock_metadata(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
    ) -> Result<StockMetadataResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&symbol)?.to_string();
            let mut stock = gateway.ctx.clients.stock(&session.caller());
            Ok(stock.get_instrument(v1::SymbolRequest { symbol }).await?.into_inner())
        };
        let (instrument, outcome) = error::outcome(asked.await)?;
        Ok(StockMetadataResponse { data: instrument.map(StockData::from), outcome })
    }

    /// The quote of a symbol. A malformed symbol is INVALID_ARGUMENT, one that is not listed NOT_FOUND.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn get_stock_quote(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
    ) -> Result<StockQuoteResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&symbol)?;
            let quote = gateway.quotes(session, &[symbol]).await?.pop();
            quote.ok_or_else(|| Status::not_found("no such symbol"))
        };
        let (quote, outcome) = error::outcome(asked.await)?;
        Ok(StockQuoteResponse { data: quote.map(StockPriceData::from), outcome })
    }

    /// Quotes in the order of the symbols; unknown symbols are left out.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn get_stock_quote_batch(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "listed symbols, in any case")] symbols: Vec<String>,
    ) -> Result<StockQuoteBatchResponse> {
        let (gateway, session) = of(ctx)?;
        if symbols.len() > BATCH_MAX {
            let text = format!("symbols must have at most {BATCH_MAX} elements");
            return Err(error::invalid(Reason::TOO_MANY_SYMBOLS, text));
        }
        let symbols: Vec<_> = symbols.iter().filter_map(|s| Symbol::parse(s).ok()).collect();
        let (quotes, outcome) = error::outcome(gateway.quotes(session, &symbols).await)?;
        let data = quotes.map(|q| q.into_iter().map(StockPriceData::from).collect());
        Ok(StockQuoteBatchResponse { data, outcome })
    }

    /// Daily bars, ascending; periods 1D 1W 1M 3M 6M 1Y 2Y 5Y MAX in any case.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn get_stock_historical_data(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "1D, 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y or MAX in any case; 1M when left out")]
        period: Option<String>,
    ) -> Result<StockHistoricalDataResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&symbol)?.to_string();
            let period = period.map(|p| p.trim().to_ascii_uppercase()).filter(|p| !p.is_empty());
            let period = period.unwrap_or_else(|| "1M".to_owned());
            let mut stock = gateway.ctx.clients.stock(&session.caller());
            Ok(stock.history(v1::HistoryRequest { symbol, period }).await?.into_inner().candles)
        };
        let (candles, outcome) = error::outcome(asked.await)?;
        let data = candles.map(|c| c.into_iter().map(StockHistoricalData::from).collect());
        Ok(StockHistoricalDataResponse { data, outcome })
    }

    /// The book of a symbol, best prices first, at most 50 levels a side.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn order_book(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "levels a side, 1 to 50; 10 when left out")] depth: Option<i32>,
    ) -> Result<OrderBookResponse> {
        let (gateway, session) = of(ctx)?;
        let depth = depth.unwrap_or(DEPTH_DEFAULT);
        if !(1..=DEPTH_MAX).contains(&depth) {
            return Err(error::invalid(
                Reason::DEPTH_OUT_OF_RANGE,
                format!("depth must be from 1 to {DEPTH_MAX}"),
            ));
        }
        let asked = async {
            let symbol = market::symbol(&symbol)?.to_string();
            let mut engine = gateway.ctx.clients.engine(&session.caller());
            Ok(engine.book(v1::BookRequest { symbol, depth: depth as u32 }).await?.into_inner())
        };
        let (book, outcome) = error::outcome(asked.await)?;
        Ok(OrderBookResponse { data: book.map(OrderBook::from), outcome })
    }

    /// Trades of a symbol: the newest, newest last, or those after a trade number.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn trades(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "at most 1000; 500 when left out")] first: Option<i32>,
        #[graphql(desc = "the cursor or sequence to go on after")] after: Option<super::scalars::Int64>,
    ) -> Result<TradeConnection> {
        let (gateway, session) = of(ctx)?;
        let wanted = first_of(first.or(Some(100)))?;
        let asked = async {
            let symbol = market::symbol(&symbol)?;
            gateway.require_listed(session, &symbol).await?;
            let request = v1::TradesRequest {
                symbol: symbol.to_string(),
                after_trade_no: after.map_or(0, |n| n.0.max(0) as u64),
                // One more tells whether there are more.
                limit: wanted as u32 + u32::from(after.is_some()),
                latest: after.is_none(),
            };
            let mut engine = gateway.ctx.clients.engine(&session.caller());
            Ok(engine.trades(request).await?.into_inner().trades)
        };
        let (trades, outcome) = error::outcome(asked.await)?;
        let has_more = trades.as_ref().is_some_and(|trades| trades.len() > wanted);
        // The first trade of all is 1.
        let has_before = trades.iter().flatten().next().is_some_and(|trade| trade.trade_no > 1);
        let data = trades.map(|t| t.into_iter().take(wanted).map(Trade::from).collect());
        Ok(TradeConnection { data, has_more, has_before, outcome })
    }

    /// Bars of an interval, ascending, UTC; weeks begin on Monday. Without a limit the newest 500. Bars of seconds are
    /// there for two hours, of minutes and hours for ten days.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn candles(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(
            default_with = "String::from(\"1m\")",
            desc = "1s, 5s, 15s, 30s, 1m, 5m, 15m, 30m, 1h, 4h, 1d, 1w or 1M: a small m is a minute, a capital one a month"
        )]
        interval: String,
        #[graphql(desc = "at most 1000; 500 when left out")] first: Option<i32>,
    ) -> Result<CandlesResponse> {
        let (gateway, session) = of(ctx)?;
        let limit = first_of(first)? as u32;
        let asked = async {
            let symbol = market::symbol(&symbol)?.to_string();
            let request = v1::CandlesRequest { symbol, interval, from_us: 0, to_us: 0, limit };
            let mut stock = gateway.ctx.clients.stock(&session.caller());
            Ok(stock.candles(request).await?.into_inner().candles)
        };
        let (candles, outcome) = error::outcome(asked.await)?;
        Ok(CandlesResponse { data: candles.map(|c| c.into_iter().map(Candle::from).collect()), outcome })
    }

    /// What the daily bars of the last 52 weeks say of a symbol.
    #[graphql(guard = "Needs(ViewStocks)")]
    async fn statistics(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
    ) -> Result<StatisticsResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&symbol)?.to_string();
            let mut stock = gateway.ctx.clients.stock(&session.caller());
            Ok(stock.statistics(v1::SymbolRequest { symbol }).await?.into_inner())
        };
        let (statistics, outcome) = error::outcome(asked.await)?;
        Ok(StatisticsResponse { data: statistics.map(Statistics::from), outcome })
    }
}

#[derive(Default)]
pub struct People;

#[Object]
impl People {
    /// Whether the caller has a permission. Unknown → false and INVALID_ARGUMENT; denied → false and
    /// PERMISSION_DENIED.
    async fn check_permission(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: HasPermissionRequest,
    ) -> Result<HasPermissionResponse> {
        let (gateway, session) = of(ctx)?;
        let asked_for = request.permission.clone();
        let asked =
            v1::CheckPermissionRequest { user_id: session.user.to_string(), permission: request.permission };
        let mut security = gateway.ctx.clients.security(&session.caller());
        let (reply, outcome) = error::outcome(security.check_permission(asked).await)?;
        let has_permission =
            reply.is_some_and(|r| r.into_inner().has_permission) && session.may_use(&asked_for);
        let outcome = if !has_permission && outcome == Outcome::ok() {
            Outcome::refused(fafnir_platform::Refusal::denied("the caller does not have this permission"))
        } else {
            outcome
        };
        Ok(HasPermissionResponse { data: SecurityPermission { has_permission }, outcome })
    }

    /// The caller's own name.
    #[graphql(guard = "Needs(ManageOwnProfile)")]
    async fn get_profile_data(&self, ctx: &Context<'_>) -> Result<ProfileDataResponse> {
        let (gateway, session) = of(ctx)?;
        let mut users = gateway.ctx.clients.user(&session.caller());
        let request = v1::GetProfileRequest { user_id: session.user.to_string() };
        let (profile, outcome) = error::outcome(users.get_profile(request).await)?;
        let data = profile.map(|p| {
            let p = p.into_inner();
            ProfileData { user_id: p.user_id, first_name: p.first_name, last_name: p.last_name }
        });
        Ok(ProfileDataResponse { data, outcome })
    }
}

#[derive(Default)]
pub struct Portfolio;

#[Object]
impl Portfolio {
    /// The caller's accounts. `totalBalance` adds the balances as they are; `balances` has them by currency.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn get_portfolio_summary(&self, ctx: &Context<'_>) -> Result<GetPortfolioSummaryResponse> {
        let (gateway, session) = of(ctx)?;
        let (accounts, outcome) = error::outcome(gateway.accounts(session).await)?;
        let accounts = accounts.unwrap_or_default();
        let mut by_currency: BTreeMap<&str, (i64, i64)> = BTreeMap::new();
        let mut total: i64 = 0;
        for account in &accounts {
            let entry = by_currency.entry(&account.currency).or_default();
            let sum = |a: i64, b: i64| a.checked_add(b).ok_or_else(too_large);
            *entry = (sum(entry.0, account.balance_micros)?, sum(entry.1, account.available_micros)?);
            total = sum(total, account.balance_micros)?;
        }
        let balances = by_currency
            .into_iter()
            .map(|(currency, (balance, available))| CurrencyBalance {
                currency: currency.to_owned(),
                balance: super::scalars::Decimal::micros(balance),
                available: super::scalars::Decimal::micros(available),
            })
            .collect();
        Ok(GetPortfolioSummaryResponse {
            balances,
            accounts: Some(accounts.into_iter().map(Account::from).collect()),
            total_balance: super::scalars::Decimal::micros(total),
            outcome,
        })
    }

    /// The shares of an account of the caller.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn get_holdings(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: GetHoldingsRequest,
    ) -> Result<GetHoldingsResponse> {
        let (gateway, session) = of(ctx)?;
        let account_id = session.own_account(Some(&request.account_id)).map_err(error::of)?;
        let symbol = String::new();
        let request = v1::ValuationRequest { user_id: session.user.to_string(), account_id, symbol };
        let mut client = gateway.reads(session).await.portfolio(&session.caller());
        let holdings = client.valuation(request).await.map_err(error::of)?.into_inner().holdings;
        let holdings = holdings.into_iter().map(Holding::from).collect();
        Ok(GetHoldingsResponse { data: Some(holdings), outcome: Outcome::ok() })
    }

    /// The shares of one symbol in an account of the caller.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn get_holding(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: GetHoldingRequest,
    ) -> Result<GetHoldingResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::ValuationRequest {
                user_id: session.user.to_string(),
                account_id: session.own_account(Some(&request.account_id))?,
                symbol: market::symbol(&request.symbol)?.to_string(),
            };
            let mut client = gateway.reads(session).await.portfolio(&session.caller());
            let found = client.valuation(request).await?.into_inner().holdings.pop();
            found.map(Holding::from).ok_or_else(|| Status::not_found("no such holding"))
        };
        let (data, outcome) = error::outcome(asked.await)?;
        Ok(GetHoldingResponse { data, outcome })
    }

    /// The symbols that the caller watches, newest first.
    #[graphql(guard = "Needs(ManageOwnWatchlist)")]
    async fn get_watchlist(&self, ctx: &Context<'_>) -> Result<GetWatchlistResponse> {
        let (gateway, session) = of(ctx)?;
        let mut client = gateway.ctx.clients.user(&session.caller());
        let request = v1::GetProfileRequest { user_id: session.user.to_string() };
        let (reply, outcome) = error::outcome(client.watchlist(request).await)?;
        let data = reply.map(|r| {
            let items = r.into_inner().items.into_iter();
            items
                .map(|i| WatchlistItem {
                    symbol: i.symbol,
                    added_at: fafnir_platform::clock::rfc3339(i.added_us),
                })
                .collect()
        });
        Ok(GetWatchlistResponse { data, outcome })
    }

    /// What moved the cash of an account of the caller, newest first.
    #[graphql(guard = "Needs(ManageOwnPortfolio)")]
    async fn get_transactions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what is asked for")] request: GetTransactionsRequest,
        #[graphql(desc = "at most 1000; 500 when left out")] first: Option<i32>,
        #[graphql(desc = "a transaction's id: only older ones")] after: Option<String>,
    ) -> Result<GetTransactionsResponse> {
        let (gateway, session) = of(ctx)?;
        let (wanted, has_before) = (first_of(first)?, after.is_some());
        let asked = async {
            let account_id = session.own_account(Some(&request.account_id))?;
            let before = after.map(|id| id_of("after", &id)).transpose()?.unwrap_or_default();
            gateway.transactions(session, &account_id, before, wanted + 1).await
        };
        let (rows, outcome) = error::outcome(asked.await)?;
        let Some(mut rows) = rows else {
            return Ok(GetTransactionsResponse {
                data: None,
                end_cursor: None,
                has_more: false,
                has_before,
                outcome,
            });
        };
        let has_more = rows.len() > wanted;
        rows.truncate(wanted);
        Ok(GetTransactionsResponse {
            end_cursor: rows.last().map(|t| t.id.clone()),
            has_more,
            has_before,
            data: Some(rows.into_iter().map(Transaction::from).collect()),
            outcome,
        })
    }
}

fn too_large() -> async_graphql::Error {
    error::refused(fafnir_platform::Refusal::out_of_range(
        Reason::SUM_TOO_LARGE,
        "the sum of the balances is too large",
    ))
}

impl Gateway {
    /// Quotes in the order of the symbols; unknown ones are left out.
    pub async fn quotes(
        &self,
        session: &Session,
        symbols: &[Symbol],
    ) -> std::result::Result<Vec<v1::Quote>, Status> {
        if symbols.is_empty() {
            return Ok(Vec::new());
        }
        let symbols = symbols.iter().map(ToString::to_string).collect();
        let mut stock = self.ctx.clients.stock(&session.caller());
        Ok(stock.quotes(v1::QuotesRequest { symbols }).await?.into_inner().quotes)
    }

    /// The caller's open accounts.
    pub async fn accounts(&self, session: &Session) -> std::result::Result<Vec<v1::Account>, Status> {
        let request = v1::UserRequest { user_id: session.user.to_string() };
        let mut client = self.reads(session).await.portfolio(&session.caller());
        let mut accounts = client.list_accounts(request).await?.into_inner().accounts;
        accounts.retain(|a| !a.closed && session.reaches(&a.id));
        Ok(accounts)
    }

    /// At most `wanted` transactions of an account, newest first, older than `before_id`.
    pub async fn transactions(
        &self,
        session: &Session,
        account_id: &str,
        mut before_id: String,
        wanted: usize,
    ) -> std::result::Result<Vec<v1::Transaction>, Status> {
        let mut client = self.reads(session).await.portfolio(&session.caller());
        let mut rows: Vec<v1::Transaction> = Vec::new();
        while rows.len() < wanted {
            let limit = PAGE.min((wanted - rows.len()) as u32);
            let request = v1::TransactionsRequest {
                user_id: session.user.to_string(),
                account_id: account_id.to_owned(),
                limit,
                before_id: before_id.clone(),
            };
            let page = client.transactions(request).await?.into_inner().transactions;
            let is_last = page.len() < limit as usize;
            rows.extend(page);
            match rows.last() {
                Some(row) if !is_last => before_id.clone_from(&row.id),
                _ => break,
            }
        }
        Ok(rows)
    }
}
