//! The stories of the gateway over real HTTP, WebSocket and gRPC: auth, security and user are real, the rest is played.

mod admin;
mod api;
mod attacks;
mod callout;
mod keys;
mod permissions;
mod subscriptions;
mod terminal;
mod whole;

use crate::stack as testing;
use crate::stack::{Answer, Stack, decode};
use axum::http::Method;
use fafnir_platform::Settings;
use fafnir_proto::{
    client::{Caller, REASON_KEY},
    connection::Connection,
    v1,
};
use fafnir_services::{auth, broker, gateway, security, user};
use prost::Message as _;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use tonic::{Code, Status};
use uuid::Uuid;

static SERVICES: [&fafnir_platform::Service; 5] =
    [&broker::SERVICE, &auth::SERVICE, &security::SERVICE, &user::SERVICE, &gateway::SERVICE];
const PASSWORD: &str = "Password123";
const MEMBER: &str = "5d684a32-8ba4-4ec3-8ce3-68df382341a2";
const ADMIN: &str = "ff9fe8c1-d6bf-4a39-a89e-3c6dbec82819";
const ACCOUNT: &str = "11111111-2222-4333-8444-555555555555";

/// What the played services know and were asked.
#[derive(Default)]
struct World {
    orders: Vec<v1::Order>,
    order_updates: Vec<v1::OrderUpdate>,
    /// The first order update that is kept.
    kept_from: u64,
    portfolio_updates: Vec<v1::PortfolioUpdate>,
    trades: Vec<v1::Trade>,
    /// Method and the user that the request names, of every call to order and portfolio.
    asked: Vec<(String, String)>,
    placed: Vec<v1::PlaceOrderRequest>,
    /// `place` answers this.
    refuse_orders: Option<Status>,
    reject_orders: bool,
}

type Shared = Arc<Mutex<World>>;
type Played = Result<Vec<u8>, Status>;

fn refusal(code: Code, reason: &'static str, message: &str) -> Status {
    let mut status = Status::new(code, message);
    status.metadata_mut().insert(REASON_KEY, reason.parse().unwrap());
    status
}

fn order_service(world: &mut World, method: &str, request: bytes::Bytes) -> Played {
    let owner = decode::<v1::UserRequest>(request.clone()).user_id;
    world.asked.push((method.to_owned(), owner.clone()));
    match method {
        "Place" => {
            let r: v1::PlaceOrderRequest = decode(request);
            if let Some(status) = &world.refuse_orders {
                return Err(status.clone());
            }
            let state =
                if world.reject_orders { v1::OrderState::Rejected } else { v1::OrderState::PendingNew };
            let order = v1::Order {
                id: Uuid::new_v4().to_string(),
                user_id: r.user_id.clone(),
                account_id: ACCOUNT.to_owned(),
                symbol: r.symbol.clone(),
                side: r.side,
                r#type: r.r#type,
                state: state.into(),
                quantity_e4: r.quantity_e4,
                open_e4: r.quantity_e4,
                price_e4: r.price_e4,
                version: 1,
                currency: "USD".to_owned(),
                ..Default::default()
            };
            world.placed.push(r);
            world.orders.insert(0, order.clone());
            Ok(v1::OrderReply { order: Some(order) }.encode_to_vec())
        }
        "Get" | "Cancel" => {
            let r: v1::GetOrderRequest = decode(request);
            let order = world.orders.iter_mut().find(|o| o.id == r.order_id && o.user_id == r.user_id);
            let order = order.ok_or_else(|| refusal(Code::NotFound, "ORDER_NOT_FOUND", "no such order"))?;
            if method == "Cancel" {
                order.state = v1::OrderState::Canceled.into();
            }
            Ok(v1::OrderReply { order: Some(order.clone()) }.encode_to_vec())
        }
        "List" => {
            let r: v1::ListOrdersRequest = decode(request);
            let mine = world.orders.iter().filter(|o| o.user_id == r.user_id);
            let after = mine.skip_while(|o| !r.before_id.is_empty() && o.id != r.before_id);
            let orders: Vec<_> = after
                .skip(usize::from(!r.before_id.is_empty()))
                .filter(|o| !r.open_only || o.open_e4 > 0)
                .take(r.limit as usize + 1)
                .cloned()
                .collect();
            let (count, user_seq) = (world.orders.len() as u64, world.order_updates.len() as u64);
            let more = orders.len() > r.limit as usize;
            let orders = orders.into_iter().take(r.limit as usize).collect();
            Ok(v1::ListOrdersReply { orders, user_seq, more, count }.encode_to_vec())
        }
        "ListFills" => Ok(v1::ListFillsReply::default().encode_to_vec()),
        "Flatten" => Ok(v1::FlattenReply { canceled: 2, ..Default::default() }.encode_to_vec()),
        "CancelAll" => Ok(v1::CancelAllReply { requested: 2 }.encode_to_vec()),
        "UpdatesSince" => {
            let r: v1::UpdatesSinceRequest = decode(request);
            let last_seq = world.order_updates.len() as u64;
            let reset = r.limit > 1 && r.after_seq + 1 < world.kept_from;
            let after = world.order_updates.iter().filter(|u| u.user_seq > r.after_seq);
            let updates: Vec<_> = after.take(r.limit as usize).cloned().collect();
            let more = updates.last().is_some_and(|u| u.user_seq < last_seq);
            Ok(v1::UpdatesSinceReply { updates, last_seq, more, reset }.encode_to_vec())
        }
        "Status" => Ok(v1::OrderStatusReply::default().encode_to_vec()),
        _ => Err(refusal(Code::NotFound, "ORDER_NOT_FOUND", "no such order")),
    }
}

/// At 231.07, 31.07 above what a share cost.
fn valued(holding: v1::Holding) -> v1::ValuedHolding {
    v1::ValuedHolding {
        holding: Some(holding),
        market_price_e4: 2_310_700,
        market_value_micros: 2_310_700_000,
        unrealized_pnl_micros: 310_700_000,
    }
}

fn account() -> v1::Account {
    v1::Account {
        id: ACCOUNT.to_owned(),
        user_id: MEMBER.to_owned(),
        account_number: "100000001234".to_owned(),
        r#type: v1::AccountType::Investment.into(),
        currency: "USD".to_owned(),
        balance_micros: 9_007_199_254_740_993,
        available_micros: 9_007_199_254_740_993,
        ..Default::default()
    }
}

fn holding() -> v1::Holding {
    v1::Holding {
        id: Uuid::nil().to_string(),
        account_id: ACCOUNT.to_owned(),
        symbol: "AAPL".to_owned(),
        quantity_e4: 100_000,
        available_e4: 100_000,
        cost_micros: 2_000_000_000,
        avg_cost_micros: 200_000_000,
        currency: "USD".to_owned(),
        ..Default::default()
    }
}

fn opening_deposit() -> v1::Transaction {
    v1::Transaction {
        id: Uuid::nil().to_string(),
        account_id: ACCOUNT.to_owned(),
        r#type: v1::TransactionType::Deposit.into(),
        amount_micros: 500_000_000,
        description: "Opening deposit".to_owned(),
        ..Default::default()
    }
}

/// What the service answers about the member's account.
fn about_the_account(method: &str, request: bytes::Bytes) -> Played {
    match method {
        "Holdings" => Ok(v1::HoldingsReply { holdings: vec![holding()] }.encode_to_vec()),
        "Valuation" => {
            let r: v1::ValuationRequest = decode(request);
            if r.symbol.is_empty() || r.symbol == "AAPL" {
                Ok(v1::ValuationReply { holdings: vec![valued(holding())] }.encode_to_vec())
            } else {
                Err(refusal(Code::NotFound, "HOLDING_NOT_FOUND", "no such holding"))
            }
        }
        "Statement" => Ok(v1::StatementReply {
            account_id: ACCOUNT.to_owned(),
            currency: account().currency,
            to_us: 1,
            ..Default::default()
        }
        .encode_to_vec()),
        "Performance" => Ok(v1::PerformanceReply {
            account_id: ACCOUNT.to_owned(),
            currency: account().currency,
            ..Default::default()
        }
        .encode_to_vec()),
        "Gains" => {
            Ok(v1::GainsReply { account_id: ACCOUNT.to_owned(), ..Default::default() }.encode_to_vec())
        }
        "Report" => {
            Ok(v1::ReportReply { account_id: ACCOUNT.to_owned(), ..Default::default() }.encode_to_vec())
        }
        "Lots" => Ok(v1::LotsReply { account_id: ACCOUNT.to_owned(), ..Default::default() }.encode_to_vec()),
        "CloseAccount" => Ok(v1::Account { closed: true, ..account() }.encode_to_vec()),
        _ => Ok(v1::TransactionsReply { transactions: vec![opening_deposit()] }.encode_to_vec()),
    }
}

fn portfolio_service(world: &mut World, method: &str, request: bytes::Bytes) -> Played {
    let owner = decode::<v1::UserRequest>(request.clone()).user_id;
    world.asked.push((method.to_owned(), owner.clone()));
    let mine = owner == MEMBER;
    let not_found = || refusal(Code::NotFound, "ACCOUNT_NOT_FOUND", "no such account");
    match method {
        "ListAccounts" => {
            let accounts = if mine { vec![account()] } else { vec![] };
            Ok(v1::ListAccountsReply { accounts }.encode_to_vec())
        }
        "Value" => {
            let r: v1::ValueRequest = decode(request);
            Ok(valued(r.holding.unwrap_or_default()).encode_to_vec())
        }
        "Holdings" | "Valuation" | "Statement" | "Performance" | "Gains" | "Report" | "Lots"
        | "Transactions" | "CloseAccount" => {
            let r: v1::AccountRequest = decode(request.clone());
            if !mine || r.account_id != ACCOUNT {
                return Err(not_found());
            }
            about_the_account(method, request)
        }
        "CreateAccount" => Ok(v1::Account { user_id: owner, ..account() }.encode_to_vec()),
        "Deposit" | "Withdraw" => {
            let r: v1::DepositRequest = decode(request);
            if !mine || r.account_id != ACCOUNT {
                return Err(not_found());
            }
            if r.amount_micros <= 0 {
                return Err(refusal(Code::InvalidArgument, "AMOUNT", "amount must be greater than 0"));
            }
            let reply = v1::DepositReply {
                new_balance_micros: r.amount_micros,
                transaction_id: Uuid::nil().to_string(),
            };
            Ok(reply.encode_to_vec())
        }
        "Transfer" if !mine => Err(not_found()),
        "Transfer" => Ok(v1::Empty {}.encode_to_vec()),
        "UpdatesSince" => {
            let r: v1::UpdatesSinceRequest = decode(request);
            let last_seq = world.portfolio_updates.len() as u64;
            let after = world.portfolio_updates.iter().filter(|u| u.user_seq > r.after_seq);
            let updates = after.cloned().collect();
            Ok(v1::PortfolioUpdatesReply { updates, last_seq, more: false, reset: false }.encode_to_vec())
        }
        "Status" => Ok(v1::PortfolioStatusReply::default().encode_to_vec()),
        _ => Err(not_found()),
    }
}

fn instrument() -> v1::Instrument {
    v1::Instrument {
        symbol: "AAPL".to_owned(),
        name: "Apple Inc.".to_owned(),
        exchange: "NASDAQ".to_owned(),
        exchange_full_name: "NASDAQ Global Select".to_owned(),
        r#type: v1::InstrumentType::Equity.into(),
        currency: "USD".to_owned(),
        tick_e4: 100,
        lot_e4: 10_000,
        state: v1::TradingState::Open.into(),
        ..Default::default()
    }
}

fn quote() -> v1::Quote {
    v1::Quote {
        symbol: "AAPL".to_owned(),
        currency: "USD".to_owned(),
        price_e4: 2_310_700,
        previous_close_e4: 2_300_000,
        volume_e4: 12_345_670_000,
        market_cap_units: 3_400_000_000_000,
        state: v1::TradingState::Open.into(),
        ..Default::default()
    }
}

fn stock_service(method: &str, request: bytes::Bytes) -> Played {
    let unknown = || refusal(Code::NotFound, "UNKNOWN_SYMBOL", "there is no such symbol");
    match method {
        "GetInstrument" => match decode::<v1::SymbolRequest>(request).symbol.as_str() {
            "AAPL" => Ok(instrument().encode_to_vec()),
            _ => Err(unknown()),
        },
        "Search" | "ListInstruments" => {
            Ok(v1::ListInstrumentsReply { instruments: vec![instrument()] }.encode_to_vec())
        }
        "Quotes" => {
            let asked = decode::<v1::QuotesRequest>(request).symbols;
            let quotes = asked.iter().filter(|s| *s == "AAPL").map(|_| quote()).collect();
            Ok(v1::QuotesReply { quotes }.encode_to_vec())
        }
        "Statistics" => {
            let statistics = v1::StatisticsReply { symbol: "AAPL".to_owned(), ..Default::default() };
            Ok(statistics.encode_to_vec())
        }
        "History" | "Candles" => {
            let bar = v1::Candle {
                symbol: "AAPL".to_owned(),
                open_e4: 2_300_000,
                close_e4: 2_310_700,
                volume_e4: 50_000,
                ..Default::default()
            };
            Ok(v1::CandlesReply { candles: vec![bar], currency: "USD".to_owned() }.encode_to_vec())
        }
        _ => Err(unknown()),
    }
}

fn engine(world: &mut World, method: &str, request: bytes::Bytes) -> Played {
    match method {
        "Book" => {
            let symbol = decode::<v1::BookRequest>(request).symbol;
            if symbol != "AAPL" {
                return Err(refusal(Code::NotFound, "UNKNOWN_SYMBOL", "there is no such symbol"));
            }
            let level = |price_e4| v1::Level { price_e4, quantity_e4: 10_000, orders: 1 };
            let image = v1::BookImage {
                symbol,
                epoch: 1,
                book_seq: 10,
                bids: vec![level(2_310_600)],
                asks: vec![level(2_310_700)],
                state: v1::TradingState::Open.into(),
                ..Default::default()
            };
            Ok(image.encode_to_vec())
        }
        "Trades" => {
            let r: v1::TradesRequest = decode(request);
            let trades: Vec<_> = if r.latest {
                let skip = world.trades.len().saturating_sub(r.limit as usize);
                world.trades[skip..].to_vec()
            } else {
                let after = world.trades.iter().filter(|t| t.trade_no > r.after_trade_no);
                after.take(r.limit as usize).cloned().collect()
            };
            Ok(v1::TradesReply { trades }.encode_to_vec())
        }
        "Status" => Ok(v1::EngineStatusReply::default().encode_to_vec()),
        _ => Err(Status::unimplemented("not played")),
    }
}

/// A gateway with a member and an administrator who may do nothing else.
struct Door {
    stack: Stack,
    url: String,
    world: Shared,
    member: String,
    admin: String,
}

impl Door {
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    async fn open_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::open_on(&SERVICES, change).await
    }

    async fn open_on(services: testing::Rows<'_>, change: impl FnOnce(&mut Settings)) -> Self {
        let world = Shared::default();
        let (w1, w2, w3) = (world.clone(), world.clone(), world.clone());
        let order = testing::play(move |m, r| order_service(&mut w1.lock().unwrap(), m, r)).await;
        let portfolio = testing::play(move |m, r| portfolio_service(&mut w2.lock().unwrap(), m, r)).await;
        let trade_engine = testing::play(move |m, r| engine(&mut w3.lock().unwrap(), m, r)).await;
        let stock = testing::play(stock_service).await;
        let stack = Stack::start_with(services, |s| {
            s.addresses.order = order;
            s.addresses.portfolio = portfolio;
            s.addresses.engine = trade_engine;
            s.addresses.stock = stock;
            change(s);
        })
        .await;
        let mut this = Self {
            url: stack.url("api-gateway").to_owned(),
            stack,
            world,
            member: String::new(),
            admin: String::new(),
        };
        this.seed(MEMBER, "user@test.com", &["member"]).await;
        this.seed(ADMIN, "admin@test.com", &["admin"]).await;
        this.member = this.sign_in("user@test.com").await.access_token;
        this.admin = this.sign_in("admin@test.com").await.access_token;
        this
    }

    async fn seed(&self, id: &str, email: &str, roles: &[&str]) {
        let request = v1::SeedUserRequest {
            user_id: id.to_owned(),
            email: email.to_owned(),
            password: PASSWORD.to_owned(),
            first_name: "Ada".to_owned(),
            last_name: "Byron".to_owned(),
            roles: roles.iter().map(|r| (*r).to_owned()).collect(),
            ..Default::default()
        };
        let clients = &self.stack.running.context.clients;
        let mut request = tonic::Request::new(request);
        request.set_timeout(testing::DEADLINE);
        clients.auth(&Caller::system("test")).seed(request).await.unwrap();
    }

    #[expect(clippy::unused_async, reason = "a connection wants a runtime to be made in")]
    async fn terminal(&self) -> v1::terminal_client::TerminalClient<Connection> {
        let connection = fafnir_proto::client::connection(&self.url).unwrap();
        v1::terminal_client::TerminalClient::new(connection)
    }

    async fn sign_in(&self, email: &str) -> v1::TerminalSession {
        let request = v1::TerminalSignInRequest { email: email.to_owned(), password: PASSWORD.to_owned() };
        self.terminal().await.sign_in(request).await.unwrap().into_inner()
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        testing::request(method, &format!("{}{path}", self.url), headers, body).await
    }

    /// A GraphQL request of a Bearer caller.
    async fn ask_as(&self, token: &str, query: &str, variables: Value) -> Answer {
        let bearer = format!("Bearer {token}");
        let headers = [("content-type", "application/json"), ("authorization", bearer.as_str())];
        let body = json!({"query": query, "variables": variables}).to_string();
        self.send(Method::POST, "/graphql", &headers, &body).await
    }

    /// The answer to the member, which must be a success.
    async fn ask(&self, query: &str) -> Value {
        let answer = self.ask_as(&self.member, query, json!({})).await;
        let json = answer.json();
        assert_eq!(answer.status, 200, "{query}: {json}");
        assert!(json.get("errors").is_none(), "{query}: {json}");
        json["data"].clone()
    }

    /// The first error of the member's query: its code, reason and sentence.
    async fn error_of(&self, query: &str) -> (String, String, String) {
        let answer = self.ask_as(&self.member, query, json!({})).await;
        let json = answer.json();
        assert_eq!(answer.status, 200, "{query}: {json}");
        let error = &json["errors"][0];
        let text = |v: &Value| v.as_str().unwrap_or("").to_owned();
        (text(&error["extensions"]["code"]), text(&error["extensions"]["reason"]), text(&error["message"]))
    }

    /// Cookies and CSRF token of a browser session of the member.
    async fn browser(&self) -> (String, String) {
        let body = json!({"email": "user@test.com", "password": PASSWORD}).to_string();
        let answer =
            self.send(Method::POST, "/auth/login", &[("content-type", "application/json")], &body).await;
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        let cookies: Vec<_> = answer
            .headers
            .get_all("set-cookie")
            .iter()
            .map(|v| v.to_str().unwrap().split(';').next().unwrap().to_owned())
            .collect();
        let csrf = cookies.iter().find_map(|c| c.strip_prefix("csrf_token=")).unwrap().to_owned();
        (cookies.join("; "), csrf)
    }
}
