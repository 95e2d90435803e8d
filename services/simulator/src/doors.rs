//! What the agents ask of the platform: the same doors as everybody's, and the system's door for endowments.

use super::facts::side_of;
use fafnir_market::{
    Agent, Answer, Listing, MAKER_QUOTES, Request, Side, Standing, TRADER_CASH_MICROS, TRADER_QUOTES,
    TRADERS, maker_cash_micros, quote_e4, quote_worth,
};
use fafnir_platform::{Context, Error, Result, agents::agent_id, context::retry, error::refusal_of};
use fafnir_proto::id::{AccountId, UserId};
use fafnir_proto::reason::Reason;
use fafnir_proto::v1::{self, AccountType, InstrumentType, OrderState, OrderType, TimeInForce};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};
use tonic::Code;
use uuid::Uuid;

/// Calls under way at a time while the agents are set up.
const SETUP_CALLS_MAX: usize = 32;
/// How long a service may take to be there at the start.
const START_DEADLINE: Duration = Duration::from_secs(30);
/// How long an agent waits for the answer to an order.
const ORDER_DEADLINE: Duration = Duration::from_secs(8);
/// Open orders read of one agent.
pub const ORDERS_MAX: u32 = 1_000;
/// An agent that has less than this part of what one begins with is given that once: what one begins with may have grown.
const POOR_PART: i64 = 20;
/// Agent numbers: the role in the high byte, so that a maker's number depends on its symbol alone.
const MAKER_NUMBERS: u32 = 1 << 24;
const TRADER_NUMBERS: u32 = 2 << 24;
/// Daily bars from which a symbol's volatility is taken, and how many it takes.
const VOLATILITY_PERIOD: &str = "2Y";
const VOLATILITY_BARS_MIN: usize = 20;
/// Of a symbol with fewer bars, and bounds of what is believed, basis points of a session.
const VOLATILITY_BP: u32 = 150;
const VOLATILITY_BP_BOUNDS: (f64, f64) = (5.0, 2_000.0);
/// First bytes of an agent's account id.
const ACCOUNT_PREFIX: [u8; 4] = *b"agac";

/// The number of an agent.
fn number(agent: Agent, listings: &[Listing]) -> u32 {
    match agent {
        Agent::Maker(market) => {
            MAKER_NUMBERS | (crc32c::crc32c(listings[market].symbol.as_bytes()) & 0x00FF_FFFF)
        }
        Agent::Trader(trader) => TRADER_NUMBERS | trader as u32,
    }
}

/// An agent's account in a currency.
pub fn account_id(number: u32, currency: &str) -> AccountId {
    let mut bytes = [0; 16];
    bytes[..4].copy_from_slice(&ACCOUNT_PREFIX);
    for (to, from) in bytes[4..8].iter_mut().zip(currency.bytes()) {
        *to = from;
    }
    bytes[12..].copy_from_slice(&number.to_be_bytes());
    AccountId::new(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// The doors, with everything that an agent says when it knocks.
#[derive(Debug, Clone)]
pub struct Doors {
    ctx: Context,
    listings: Vec<Listing>,
}

fn price_of(quote: Option<&v1::Quote>, previous_close_e4: i64) -> i64 {
    quote.map(|q| q.price_e4).filter(|p| *p > 0).unwrap_or(previous_close_e4)
}

/// The symbols that the agents trade, in the order of their names.
pub async fn listings(ctx: &Context) -> Result<Vec<Listing>> {
    let wanted: BTreeSet<&str> = ctx.settings.sim.symbols.iter().map(String::as_str).collect();
    let stock = || ctx.clients.stock(&ctx.system());
    let all =
        retry(START_DEADLINE, || async { Ok(stock().list_instruments(v1::Empty {}).await?.into_inner()) })
            .await?
            .instruments;
    let mut chosen: Vec<v1::Instrument> = all
        .into_iter()
        .filter(|i| wanted.is_empty() || wanted.contains(i.symbol.as_str()))
        .filter(|i| i.tick_e4 > 0 && i.lot_e4 > 0 && i.previous_close_e4 > 0)
        .collect();
    chosen.sort_by(|a, b| a.symbol.cmp(&b.symbol));
    for symbol in wanted.iter().filter(|w| chosen.iter().all(|i| i.symbol != **w)) {
        tracing::warn!(symbol, "sim.symbols names a symbol that is not listed or has no previous close");
    }
    let mut quotes = HashMap::new();
    for symbols in chosen.chunks(100) {
        let symbols = symbols.iter().map(|i| i.symbol.clone()).collect();
        let reply = stock().quotes(v1::QuotesRequest { symbols }).await?.into_inner();
        quotes.extend(reply.quotes.into_iter().map(|q| (q.symbol.clone(), q)));
    }
    let quotes = &quotes;
    stream::iter(chosen)
        .map(|i| async move {
            let volatility_bp = volatility_bp(ctx, &i.symbol).await?;
            let last_e4 = price_of(quotes.get(&i.symbol), i.previous_close_e4);
            Ok(Listing {
                last_e4,
                close_e4: i.previous_close_e4,
                volatility_bp,
                is_fund: i.r#type() == InstrumentType::Etf,
                worth: (i128::from(i.shares_outstanding) * i128::from(last_e4) / 10_000)
                    .try_into()
                    .unwrap_or(i64::MAX),
                is_open: matches!(i.trading_state(), v1::TradingState::Open | v1::TradingState::Unspecified),
                symbol: i.symbol,
                currency: i.currency,
                exchange: i.exchange,
                sector: i.sector,
                tick_e4: i.tick_e4,
                lot_e4: i.lot_e4,
            })
        })
        .buffered(SETUP_CALLS_MAX)
        .try_collect()
        .await
}

/// How volatile a symbol is: the standard deviation of its daily returns, which are the seed's or whatever was imported.
async fn volatility_bp(ctx: &Context, symbol: &str) -> Result<u32> {
    let request = v1::HistoryRequest { symbol: symbol.to_owned(), period: VOLATILITY_PERIOD.to_owned() };
    let mut stock = ctx.clients.stock(&ctx.system());
    let closes: Vec<f64> = stock
        .history(request)
        .await?
        .into_inner()
        .candles
        .iter()
        .filter(|bar| bar.close_e4 > 0)
        .map(|bar| bar.close_e4 as f64)
        .collect();
    Ok(deviation_bp(&closes))
}

fn deviation_bp(closes: &[f64]) -> u32 {
    let returns: Vec<f64> = closes.windows(2).map(|w| (w[1] / w[0]).ln()).collect();
    if returns.len() < VOLATILITY_BARS_MIN {
        return VOLATILITY_BP;
    }
    let square = returns.iter().map(|r| r * r).sum::<f64>() / returns.len() as f64;
    let (low, high) = VOLATILITY_BP_BOUNDS;
    (square.sqrt() * 10_000.0).clamp(low, high).round() as u32
}

/// An agent as it was found, or made.
#[derive(Debug)]
pub struct Ready {
    pub agent: Agent,
    /// Cash over all accounts of a maker.
    pub cash_micros: i64,
    /// Market → shares.
    pub shares: Vec<(usize, i64)>,
    /// Market → orders that stood at `position`.
    pub standing: Vec<(usize, Standing)>,
    pub position: u64,
}

impl Doors {
    pub fn new(ctx: &Context, listings: Vec<Listing>) -> Self {
        Self { ctx: ctx.clone(), listings }
    }

    pub fn listings(&self) -> &[Listing] {
        &self.listings
    }

    fn user(&self, agent: Agent) -> UserId {
        agent_id(number(agent, &self.listings))
    }

    fn account(&self, agent: Agent, market: usize) -> AccountId {
        account_id(number(agent, &self.listings), &self.listings[market].currency)
    }

    fn agents(&self) -> impl Iterator<Item = Agent> + use<> {
        let makers = (0..self.listings.len()).map(Agent::Maker);
        makers.chain((0..TRADERS).map(Agent::Trader))
    }

    /// User id → agent.
    pub fn by_user(&self) -> HashMap<String, Agent> {
        self.agents().map(|a| (self.user(a).to_string(), a)).collect()
    }

    /// Makes sure that every agent has its accounts, cash and shares, and learns what it has and which orders stand: not
    /// before a position of the journal.
    pub async fn set_up(&self, position: u64) -> Result<Vec<Ready>> {
        stream::iter(self.agents())
            .map(|agent| self.set_up_agent(agent, position))
            .buffer_unordered(SETUP_CALLS_MAX)
            .try_collect()
            .await
    }

    async fn set_up_agent(&self, agent: Agent, position: u64) -> Result<Ready> {
        let (user, number) = (self.user(agent), number(agent, &self.listings));
        let markets: Vec<usize> = match agent {
            Agent::Maker(market) => vec![market],
            Agent::Trader(_) => (0..self.listings.len()).collect(),
        };
        let mut by_currency: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for market in markets {
            by_currency.entry(&self.listings[market].currency).or_default().push(market);
        }
        let (cash_micros, quotes) = match agent {
            Agent::Maker(market) => (maker_cash_micros(&self.listings[market]), MAKER_QUOTES),
            Agent::Trader(_) => (TRADER_CASH_MICROS, TRADER_QUOTES),
        };
        let (standing, at) = self.standing(agent, "").await?;
        let mut ready = Ready { agent, cash_micros: 0, shares: Vec::new(), standing, position: at };
        let accounts = retry(START_DEADLINE, || async {
            let request = v1::UserRequest { user_id: user.to_string() };
            Ok(self.books_at(position).list_accounts(request).await?.into_inner().accounts)
        })
        .await?;
        for (currency, markets) in by_currency {
            let account = account_id(number, currency).to_string();
            let known = accounts.iter().find(|a| a.id == account);
            let mut holdings = Vec::new();
            if known.is_some() {
                let request = v1::AccountRequest { user_id: user.to_string(), account_id: account.clone() };
                holdings = self.books_at(position).holdings(request).await?.into_inner().holdings;
            } else {
                self.open(user, &account, currency).await?;
            }
            ready.cash_micros += known.map_or(0, |a| a.balance_micros);
            if known.is_none_or(|a| a.balance_micros < cash_micros / POOR_PART) {
                let endowment = v1::EndowRequest {
                    key: format!("sim:{number}:{currency}:{cash_micros}"),
                    account_id: account.clone(),
                    currency: currency.to_owned(),
                    amount_micros: cash_micros,
                    ..Default::default()
                };
                ready.cash_micros += if self.endow(endowment).await? { cash_micros } else { 0 };
            }
            for market in markets {
                let listing = &self.listings[market];
                let held_e4 =
                    holdings.iter().find(|h| h.symbol == listing.symbol).map_or(0, |h| h.quantity_e4);
                let quantity_e4 = quote_e4(listing) * quotes;
                if held_e4 >= quantity_e4 / POOR_PART {
                    ready.shares.push((market, held_e4));
                    continue;
                }
                let endowment = v1::EndowRequest {
                    key: format!("sim:{number}:{}:{quotes}:{}", listing.symbol, quote_worth(listing)),
                    account_id: account.clone(),
                    symbol: listing.symbol.clone(),
                    quantity_e4,
                    cost_price_e4: listing.close_e4,
                    ..Default::default()
                };
                let given = self.endow(endowment).await?;
                ready.shares.push((market, held_e4 + if given { quantity_e4 } else { 0 }));
            }
        }
        Ok(ready)
    }

    pub async fn open(&self, user: UserId, account: &str, currency: &str) -> Result<()> {
        let request = v1::SeedAccountRequest {
            account_id: account.to_owned(),
            user_id: user.to_string(),
            r#type: AccountType::Investment.into(),
            currency: currency.to_owned(),
        };
        retry(START_DEADLINE, || async { Ok(self.portfolio().seed_account(request.clone()).await?) }).await?;
        Ok(())
    }

    /// Whether it was not given before. A symbol that was just listed may be on its way to the engine.
    pub async fn endow(&self, request: v1::EndowRequest) -> Result<bool> {
        retry(START_DEADLINE, || async {
            self.portfolio().endow(request.clone()).await.map(|r| r.into_inner().applied).map_err(|status| {
                match refusal_of(&status) {
                    Some(refusal) if refusal.reason == Reason::UNKNOWN_SYMBOL => {
                        Error::unavailable(refusal.message)
                    }
                    _ => Error::from(status),
                }
            })
        })
        .await
    }

    /// The open orders of an agent, in one symbol or in all, as the core has them, and at which position.
    async fn standing(&self, agent: Agent, symbol: &str) -> Result<(Vec<(usize, Standing)>, u64)> {
        let request = v1::OpenOrdersRequest {
            user_id: self.user(agent).to_string(),
            symbol: symbol.to_owned(),
            after_id: String::new(),
            limit: ORDERS_MAX,
        };
        let listed = retry(START_DEADLINE, || async {
            let mut engine = self.ctx.clients.engine(&self.ctx.system());
            Ok(engine.open_orders(request.clone()).await?.into_inner())
        })
        .await?;
        let standing = |o: &v1::Order| {
            let market = self.listings.iter().position(|l| l.symbol == o.symbol)?;
            let is_limit = o.r#type() == OrderType::Limit;
            let order = Uuid::parse_str(&o.id).ok().filter(|_| is_limit && !o.state().has_ended())?.as_u128();
            let (total_e4, filled_e4) = (o.quantity_e4, o.filled_e4);
            let side = side_of(o.side())?;
            Some((market, Standing { order, side, price_e4: o.price_e4, total_e4, filled_e4 }))
        };
        Ok((listed.orders.iter().filter_map(standing).collect(), listed.position))
    }

    /// The position of the last fact.
    pub async fn last_position(&self) -> Result<u64> {
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        Ok(engine.position(v1::PositionRequest::default()).await?.into_inner().last)
    }

    /// The books of account, not before a position.
    fn books_at(
        &self,
        position: u64,
    ) -> v1::portfolio_client::PortfolioClient<fafnir_proto::client::Authorised> {
        self.ctx.clients.at(position).portfolio(&self.ctx.system())
    }

    fn portfolio(&self) -> v1::portfolio_client::PortfolioClient<fafnir_proto::client::Authorised> {
        self.ctx.clients.portfolio(&self.ctx.system())
    }

    fn orders(&self) -> v1::order_service_client::OrderServiceClient<fafnir_proto::client::Authorised> {
        self.ctx.clients.order(&self.ctx.system())
    }

    /// Carries a request out. What fails without a refusal is unknown: the core looks it up.
    pub async fn carry_out(&self, request: Request) -> Option<Answer> {
        match request {
            Request::Place { ticket, agent, market, side, quantity_e4, price_e4, stands } => {
                let order = self.new_order(agent, market, side, quantity_e4, price_e4, stands);
                Some(self.place(ticket, agent, market, stands, order).await)
            }
            Request::Replace { agent, market, order, quantity_e4, price_e4 } => {
                let request = v1::ReplaceOrderRequest {
                    user_id: self.user(agent).to_string(),
                    order_id: Uuid::from_u128(order).to_string(),
                    quantity_e4,
                    price_e4,
                    ..Default::default()
                };
                Some(match self.orders().replace(patient(request)).await {
                    Ok(_) => Answer::Replaced { market, order },
                    Err(status) => {
                        tracing::debug!(order = %Uuid::from_u128(order), status = %status.message(), "a replace was refused");
                        Answer::ChangeRefused { agent, market, order }
                    }
                })
            }
            Request::Cancel { agent, market, order } => {
                let user_id = self.user(agent).to_string();
                let request =
                    v1::CancelOrderRequest { user_id, order_id: Uuid::from_u128(order).to_string() };
                match self.orders().cancel(patient(request)).await {
                    Ok(_) => None,
                    Err(_) => Some(Answer::ChangeRefused { agent, market, order }),
                }
            }
            Request::LookUp { market } => {
                let symbol = self.listings[market].symbol.clone();
                match self.standing(Agent::Maker(market), &symbol).await {
                    Ok((found, position)) => {
                        let standing = found.into_iter().map(|(_, s)| s).collect();
                        Some(Answer::LookedUp { market, standing, position })
                    }
                    Err(e) => {
                        tracing::warn!(symbol, error = %e, "a maker's orders could not be read");
                        Some(Answer::LookUpFailed { market })
                    }
                }
            }
            Request::Refill { agent, market, quantity_e4, price_e4, amount_micros } => {
                self.refill(agent, market, quantity_e4, price_e4, amount_micros).await;
                None
            }
        }
    }

    /// At the market where the price is 0.
    fn new_order(
        &self,
        agent: Agent,
        market: usize,
        side: Side,
        quantity_e4: i64,
        price_e4: i64,
        stands: bool,
    ) -> v1::PlaceOrderRequest {
        let is_market = price_e4 == 0;
        v1::PlaceOrderRequest {
            user_id: self.user(agent).to_string(),
            account_id: self.account(agent, market).to_string(),
            symbol: self.listings[market].symbol.clone(),
            side: match side {
                Side::Buy => v1::Side::Buy,
                Side::Sell => v1::Side::Sell,
            }
            .into(),
            r#type: if is_market { OrderType::Market } else { OrderType::Limit }.into(),
            time_in_force: if stands { TimeInForce::Gtc } else { TimeInForce::Ioc }.into(),
            quantity_e4,
            price_e4,
            ..Default::default()
        }
    }

    async fn place(
        &self,
        ticket: u64,
        agent: Agent,
        market: usize,
        stands: bool,
        order: v1::PlaceOrderRequest,
    ) -> Answer {
        match self.orders().place(patient(order)).await.map(|r| r.into_inner().order.unwrap_or_default()) {
            Ok(order) if order.state() != OrderState::Rejected => {
                let open = stands && !order.state().has_ended();
                let order = Uuid::parse_str(&order.id).unwrap_or_default().as_u128();
                Answer::Placed { ticket, agent, market, order, open }
            }
            Ok(order) => {
                tracing::debug!(
                    symbol = order.symbol,
                    why = order.reject_reason,
                    "an agent's order was rejected"
                );
                Answer::PlaceRefused { ticket, agent, market }
            }
            Err(status) if refusal_of(&status).is_some() => {
                if status.code() != Code::FailedPrecondition {
                    tracing::warn!(?agent, status = %status.message(), "an agent's order was refused");
                }
                Answer::PlaceRefused { ticket, agent, market }
            }
            Err(status) => {
                tracing::debug!(?agent, status = %status.message(), "an agent's order has no answer");
                Answer::PlaceLost { ticket, agent, market }
            }
        }
    }

    async fn refill(&self, agent: Agent, market: usize, quantity_e4: i64, price_e4: i64, amount_micros: i64) {
        let (listing, number) = (&self.listings[market], number(agent, &self.listings));
        let now_us = self.ctx.clock.now_us();
        tracing::info!(
            symbol = listing.symbol,
            quantity_e4,
            amount_micros,
            "a maker runs low and is refilled"
        );
        let request = v1::EndowRequest {
            key: format!("sim:{number}:{}:{now_us}", listing.symbol),
            account_id: self.account(agent, market).to_string(),
            symbol: if quantity_e4 > 0 { listing.symbol.clone() } else { String::new() },
            quantity_e4,
            cost_price_e4: price_e4,
            currency: if amount_micros > 0 { listing.currency.clone() } else { String::new() },
            amount_micros,
        };
        if let Err(e) = self.endow(request).await {
            tracing::warn!(symbol = listing.symbol, error = %e, "a maker could not be refilled");
        }
    }
}

/// An agent waits longer than a person would: an order without an answer has to be looked up.
pub fn patient<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(ORDER_DEADLINE);
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_volatility_is_that_of_the_daily_bars() {
        let closes: Vec<f64> = (0..100).map(|day| if day % 2 == 0 { 100.0 } else { 102.0 }).collect();
        assert_eq!(deviation_bp(&closes), 198);
        assert_eq!(deviation_bp(&closes[..10]), VOLATILITY_BP);
        assert_eq!(deviation_bp(&[100.0; 100]), 5);
    }
}
