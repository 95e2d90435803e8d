//! The promises of the one journal over real doors: one effect per key, reads that know what their user was told.

use crate::stack::{Stack, system};
use fafnir_platform::{Service, Settings};
use fafnir_proto::{
    client::{Authorised, Caller, REASON_KEY, position_of},
    id::UserId,
    v1::{
        self, AccountRequest, AccountType, CreateAccountRequest, DepositRequest, Empty, EndowRequest,
        GetOrderRequest, Instrument, InstrumentType, OrderState, OrderType, PlaceOrderRequest,
        SeedAccountRequest, Side, TradingState, TransferRequest, UserRequest,
        order_service_client::OrderServiceClient, portfolio_client::PortfolioClient,
    },
};
use fafnir_services::by_name;
use futures::future::join_all;
use std::collections::BTreeSet;
use tonic::Status;
use uuid::Uuid;

const USD: i64 = 1_000_000;
const E4: i64 = 10_000;
/// Requests with one key at a time.
const TIMES: usize = 100;

fn services() -> Vec<&'static Service> {
    let names =
        ["broker", "auth-service", "security-service", "user-service", "stock-service", "trade-engine"];
    let doors = ["portfolio-service", "order-service"];
    names.iter().chain(&doors).map(|name| by_name(name).unwrap()).collect()
}

fn reason(status: &Status) -> String {
    status.metadata().get(REASON_KEY).map_or("", |v| v.to_str().unwrap()).to_owned()
}

struct Story {
    stack: Stack,
    user: UserId,
    account: String,
    second: String,
}

impl Story {
    async fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let stack = Stack::start_with(&services(), change).await;
        let (user, account, second) =
            (UserId::new(Uuid::new_v4()), Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
        let story = Self { stack, user, account, second };
        let clients = &story.stack.running.context.clients;
        let instrument = Instrument {
            symbol: "AAPL".into(),
            name: "Apple".into(),
            exchange: "TEST".into(),
            exchange_full_name: "Test".into(),
            currency: "USD".into(),
            r#type: InstrumentType::Equity.into(),
            tick_e4: 100,
            lot_e4: E4,
            state: TradingState::Open.into(),
            previous_close_e4: 100 * E4,
            ..Instrument::default()
        };
        clients.stock(&system()).upsert_instrument(instrument).await.unwrap();
        for account in [&story.account, &story.second] {
            let seed = SeedAccountRequest {
                account_id: account.clone(),
                user_id: story.user.to_string(),
                r#type: AccountType::Investment.into(),
                currency: "USD".into(),
            };
            clients.portfolio(&system()).seed_account(seed).await.unwrap();
        }
        let endow = EndowRequest {
            key: "seed".into(),
            account_id: story.account.clone(),
            symbol: "AAPL".into(),
            quantity_e4: 1_000 * E4,
            cost_price_e4: 50 * E4,
            currency: "USD".into(),
            amount_micros: 1_000_000 * USD,
        };
        clients.portfolio(&system()).endow(endow).await.unwrap();
        story
    }

    /// The same after a restart, without directories that were lost.
    async fn restarted(self, lost: &[&str], change: impl FnOnce(&mut Settings)) -> Self {
        let stack = self.stack.restart_without(lost, &services(), change).await;
        Self { stack, ..self }
    }

    fn me(&self) -> Caller {
        Caller::User(self.user)
    }

    fn orders(&self) -> OrderServiceClient<Authorised> {
        self.stack.running.context.clients.order(&self.me())
    }

    fn portfolio(&self) -> PortfolioClient<Authorised> {
        self.stack.running.context.clients.portfolio(&self.me())
    }

    fn buy(&self, client_order_id: &str, shares: i64) -> PlaceOrderRequest {
        PlaceOrderRequest {
            user_id: self.user.to_string(),
            account_id: self.account.clone(),
            symbol: "AAPL".into(),
            side: Side::Buy.into(),
            r#type: OrderType::Limit.into(),
            quantity_e4: shares * E4,
            price_e4: 90 * E4,
            client_order_id: client_order_id.into(),
            ..PlaceOrderRequest::default()
        }
    }

    async fn place(&self, request: PlaceOrderRequest) -> Result<String, Status> {
        let order = self.orders().place(request).await?.into_inner().order.unwrap();
        Ok(order.id)
    }

    async fn deposit(&self, key: &str, dollars: i64) -> Result<String, Status> {
        let request = DepositRequest {
            user_id: self.user.to_string(),
            account_id: self.account.clone(),
            amount_micros: dollars * USD,
            currency: "USD".into(),
            idempotency_key: key.into(),
        };
        Ok(self.portfolio().deposit(request).await?.into_inner().transaction_id)
    }

    async fn transfer(&self, key: &str, dollars: i64) -> Result<(), Status> {
        let request = TransferRequest {
            user_id: self.user.to_string(),
            from_account_id: self.account.clone(),
            to_account_id: self.second.clone(),
            amount_micros: dollars * USD,
            currency: "USD".into(),
            idempotency_key: key.into(),
        };
        self.portfolio().transfer(request).await.map(drop)
    }

    async fn open(&self, key: &str) -> Result<String, Status> {
        let request = CreateAccountRequest {
            user_id: self.user.to_string(),
            r#type: AccountType::Savings.into(),
            currency: "CAD".into(),
            idempotency_key: key.into(),
        };
        Ok(self.portfolio().create_account(request).await?.into_inner().id)
    }

    /// Open orders, cash of both accounts in dollars, accounts.
    async fn effects(&self) -> (usize, i64, i64, usize) {
        let clients = &self.stack.running.context.clients;
        let request =
            v1::OpenOrdersRequest { user_id: self.user.to_string(), limit: 1_000, ..Default::default() };
        let open = clients.engine(&system()).open_orders(request).await.unwrap().into_inner();
        let request = UserRequest { user_id: self.user.to_string() };
        let accounts = clients
            .at(open.position)
            .portfolio(&self.me())
            .list_accounts(request)
            .await
            .unwrap()
            .into_inner()
            .accounts;
        let cash = |id: &str| accounts.iter().find(|a| a.id == id).unwrap().balance_micros / USD;
        (open.orders.len(), cash(&self.account), cash(&self.second), accounts.len())
    }

    /// Everything that has a key, many times at once; what each answered.
    async fn everything(&self) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
        let orders = join_all((0..TIMES).map(|_| self.place(self.buy("once", 1))));
        let deposits = join_all((0..TIMES).map(|_| self.deposit("once", 7)));
        let transfers = join_all((0..TIMES).map(|_| self.transfer("once-more", 3)));
        let accounts = join_all((0..TIMES).map(|_| self.open("an account")));
        let (orders, deposits, transfers, accounts) = tokio::join!(orders, deposits, transfers, accounts);
        transfers.into_iter().collect::<Result<Vec<_>, _>>().unwrap();
        let all = |answers: Vec<Result<String, Status>>| answers.into_iter().map(Result::unwrap).collect();
        (all(orders), all(deposits), all(accounts))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_one_effect_at_once_after_a_restart_without_the_broker_and_behind_the_window() {
    const RECENT: u32 = 16;
    let mut story = Story::start(|s| s.engine.recent_ids = RECENT).await;
    let first = story.everything().await;
    assert_eq!((first.0.len(), first.1.len(), first.2.len()), (1, 1, 1), "{first:?}");
    let effects = story.effects().await;
    assert_eq!(effects, (1, 1_000_004, 3, 3));
    // Again, and with the window pushed past the keys.
    assert_eq!(story.everything().await, first);
    for n in 0..=RECENT {
        story.deposit(&format!("other {n}"), 1).await.unwrap();
    }
    assert_eq!(story.everything().await, first);
    story = story.restarted(&[], |s| s.engine.recent_ids = RECENT).await;
    assert_eq!(story.everything().await, first);
    // The broker has lost everything: nothing of it is in the broker alone.
    story = story.restarted(&["broker"], |s| s.engine.recent_ids = RECENT).await;
    assert_eq!(story.everything().await, first);
    assert_eq!(story.effects().await, (1, 1_000_004 + i64::from(RECENT) + 1, 3, 3));
    // The same key for something else is refused at every door.
    let other = [
        story.place(story.buy("once", 2)).await.unwrap_err(),
        story.deposit("once", 8).await.unwrap_err(),
        story.transfer("once-more", 4).await.unwrap_err(),
    ];
    assert_eq!(
        other.iter().map(reason).collect::<Vec<_>>(),
        ["CLIENT_ORDER_ID_REUSED", "IDEMPOTENCY_KEY_REUSED", "IDEMPOTENCY_KEY_REUSED"]
    );
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_with_a_position_never_sees_less() {
    const ROUNDS: usize = 200;
    let story = Story::start(|_| {}).await;
    let clients = &story.stack.running.context.clients;
    for round in 0..ROUNDS {
        let (side, price) = if round % 2 == 0 { (Side::Sell, 95) } else { (Side::Buy, 90) };
        let request = PlaceOrderRequest {
            side: side.into(),
            price_e4: price * E4,
            ..story.buy(&format!("r{round}"), 1)
        };
        let placed = story.orders().place(request).await.unwrap();
        let position = position_of(&placed).expect("a command's answer has a position");
        let order = placed.into_inner().order.unwrap();
        let knowing = clients.at(position);
        let get = GetOrderRequest { user_id: story.user.to_string(), order_id: order.id.clone() };
        let read = knowing.order(&story.me()).get(get).await.unwrap().into_inner().order.unwrap();
        assert_eq!((read.state(), read.version), (order.state(), order.version));
        let request = UserRequest { user_id: story.user.to_string() };
        let accounts =
            knowing.portfolio(&story.me()).list_accounts(request).await.unwrap().into_inner().accounts;
        let account = accounts.iter().find(|a| a.id == story.account).unwrap();
        let buys = i64::try_from(round.div_ceil(2)).unwrap();
        assert_eq!(account.held_micros, buys * 90 * USD, "round {round}");
    }
    story.stack.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_an_account_cancels_its_orders_and_the_default_account_is_another_at_once() {
    let story = Story::start(|_| {}).await;
    let order = story.place(story.buy("", 1)).await.unwrap();
    let request = AccountRequest { user_id: story.user.to_string(), account_id: story.account.clone() };
    let closed = story.portfolio().close_account(request).await.unwrap();
    let position = position_of(&closed).expect("a command's answer has a position");
    assert!(closed.into_inner().closed);
    let request = GetOrderRequest { user_id: story.user.to_string(), order_id: order };
    let knowing = story.stack.running.context.clients.at(position);
    let ended = knowing.order(&story.me()).get(request).await.unwrap().into_inner().order.unwrap();
    assert_eq!(ended.state(), OrderState::Canceled);
    assert_eq!(ended.reject_code, "ACCOUNT_CLOSING");
    let placed =
        story.orders().place(PlaceOrderRequest { account_id: String::new(), ..story.buy("", 1) }).await;
    let order = placed.unwrap().into_inner().order.unwrap();
    assert_eq!((order.account_id.clone(), order.state()), (story.second.clone(), OrderState::Rejected));
    let audit =
        story.stack.running.context.clients.portfolio(&system()).audit(Empty {}).await.unwrap().into_inner();
    assert!(audit.sums.iter().all(|s| s.sum == 0), "{audit:?}");
    story.stack.stop().await;
}
