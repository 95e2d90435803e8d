//! The service as it runs: over gRPC, with the broker, the listings and the engine beside it.

use crate::stack::{Stack, drop_databases, external, system, until};
use fafnir_platform::{Service, Settings};
use fafnir_proto::{
    client::{Authorised, Caller, position_of},
    id::UserId,
    subject,
    v1::{
        self, AccountRequest, AccountType, CreateAccountRequest, DepositRequest, Empty, EndowRequest,
        ExecuteRequest, HoldingRequest, Instrument, InstrumentType, OrderType, PlaceCommand, ReplaceCommand,
        SeedAccountRequest, Side, TimeInForce, TradingState, TransactionsRequest, TransferRequest,
        UpdatesSinceRequest, UserDeleted, UserRequest, WithdrawRequest, command::What,
        execute_reply::Outcome, portfolio_client::PortfolioClient,
    },
};
use fafnir_services::by_name;
use futures::future::join_all;
use prost::Message as _;
use tonic::{Code, Status};
use uuid::Uuid;

const USD: i64 = 1_000_000;
const SHARE: i64 = 10_000;
const DOLLAR: i64 = 10_000;

fn services() -> Vec<&'static Service> {
    ["broker", "auth-service", "security-service", "user-service", "stock-service", "trade-engine"]
        .iter()
        .map(|name| by_name(name).unwrap())
        .chain([by_name("portfolio-service").unwrap()])
        .collect()
}

fn reason(status: &Status) -> &str {
    status.metadata().get("x-fafnir-reason").map_or("", |v| v.to_str().unwrap())
}

/// Where the databases are.
enum Place {
    Files,
    Server { url: String, prefix: String },
}

impl Place {
    fn server() -> Option<Self> {
        let url = external("FAFNIR_TEST_POSTGRES_URL")?;
        Some(Self::Server { url, prefix: format!("test_{}_", Uuid::new_v4().simple()) })
    }

    fn configure(&self, settings: &mut Settings) {
        if let Self::Server { url, prefix } = self {
            (settings.database.url, settings.database.prefix) = (url.clone(), prefix.clone());
        }
    }

    async fn remove(self) {
        if let Self::Server { url, prefix } = self {
            drop_databases(&url, &prefix).await;
        }
    }
}

struct Story {
    stack: Stack,
}

impl Story {
    /// On the embedded databases, or on a Postgres server with this prefix.
    async fn start(place: &Place) -> Self {
        let stack = Stack::start_with(&services(), |s| place.configure(s)).await;
        let story = Self { stack };
        let mut stock = story.stack.running.context.clients.stock(&system());
        for (symbol, currency) in [("AAPL", "USD"), ("SHOP.TO", "CAD")] {
            let instrument = Instrument {
                symbol: symbol.into(),
                name: symbol.into(),
                exchange: "TEST".into(),
                exchange_full_name: "Test".into(),
                currency: currency.into(),
                r#type: InstrumentType::Equity.into(),
                tick_e4: 100,
                lot_e4: 10_000,
                state: TradingState::Open.into(),
                previous_close_e4: 10 * DOLLAR,
                ..Instrument::default()
            };
            stock.upsert_instrument(instrument).await.unwrap();
        }
        story
    }

    fn portfolio(&self, caller: &Caller) -> PortfolioClient<Authorised> {
        self.stack.running.context.clients.portfolio(caller)
    }

    /// A user with an account; from the position on everybody knows of it.
    async fn seeded(&self, currency: &str, cash: i64, shares: i64) -> (UserId, String, u64) {
        let (user, account) = (UserId::new(Uuid::new_v4()), Uuid::new_v4().to_string());
        let mut house = self.portfolio(&system());
        let seed = SeedAccountRequest {
            account_id: account.clone(),
            user_id: user.to_string(),
            r#type: AccountType::Investment.into(),
            currency: currency.into(),
        };
        for created in [true, false] {
            assert_eq!(house.seed_account(seed.clone()).await.unwrap().into_inner().created, created);
        }
        let endowment = EndowRequest {
            key: format!("seed:{account}"),
            account_id: account.clone(),
            symbol: "AAPL".into(),
            quantity_e4: shares,
            cost_price_e4: 8 * DOLLAR,
            currency: currency.into(),
            amount_micros: cash,
        };
        let mut position = 0;
        for applied in [true, false] {
            let answer = house.endow(endowment.clone()).await.unwrap();
            position = position.max(position_of(&answer).unwrap());
            assert_eq!(answer.into_inner().applied, applied);
        }
        (user, account, position)
    }

    /// What a reader sees who knows this position.
    fn portfolio_at(&self, position: u64, caller: &Caller) -> PortfolioClient<Authorised> {
        self.stack.running.context.clients.at(position).portfolio(caller)
    }

    /// Has the engine carry a command out; answers what became of it and the position from which on all know of it.
    async fn execute(&self, user: UserId, what: What) -> (Outcome, u64) {
        let id = Uuid::now_v7().as_bytes().to_vec();
        let command = v1::Command { id, user_id: user.to_string(), key: None, what: Some(what) };
        let mut engine = self.stack.running.context.clients.engine(&system());
        let request = ExecuteRequest { command: Some(command) };
        let reply = engine.execute(request).await.unwrap().into_inner();
        (reply.outcome.unwrap(), reply.position)
    }

    /// Places a limit order; answers its id and the position.
    async fn order(
        &self,
        user: UserId,
        account: &str,
        side: Side,
        quantity: i64,
        price: i64,
    ) -> (String, u64) {
        let order_id = Uuid::new_v4().to_string();
        let place = PlaceCommand {
            order_id: order_id.clone(),
            account_id: account.to_owned(),
            symbol: "AAPL".into(),
            side: side.into(),
            r#type: OrderType::Limit.into(),
            time_in_force: TimeInForce::Gtc.into(),
            quantity_e4: quantity,
            price_e4: price,
            ..PlaceCommand::default()
        };
        let (outcome, position) = self.execute(user, What::Place(place)).await;
        assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
        (order_id, position)
    }

    async fn audit(&self) -> v1::AuditReply {
        let audit = self.portfolio(&system()).audit(Empty {}).await.unwrap().into_inner();
        assert!(audit.sums.iter().all(|s| s.sum == 0), "{audit:?}");
        assert_eq!(
            (audit.unbalanced_transactions, audit.negative_available, audit.hold_mismatches),
            (0, 0, 0)
        );
        assert_eq!((audit.balance_mismatches, audit.chain_breaks, audit.core_mismatches), (0, 0, 0));
        assert!(audit.holds_compared, "with the core");
        audit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn valuation_statement_and_performance_are_this_services() {
    let story = Story::start(&Place::Files).await;
    let (user, account, position) = story.seeded("CAD", 1_000 * USD, 5 * SHARE).await;
    let mut me = story.portfolio_at(position, &Caller::User(user));
    let user_id = user.to_string();
    let asked =
        v1::ValuationRequest { user_id: user_id.clone(), account_id: account.clone(), symbol: String::new() };
    let mut valued = me.valuation(asked.clone()).await.unwrap().into_inner().holdings;
    let holding = valued.pop().unwrap();
    // 5 shares at the previous close of 10 USD, 68.50 CAD at 1.37.
    assert_eq!((holding.market_price_e4, holding.market_value_micros), (10 * DOLLAR, 68_500_000));
    let cost = holding.holding.as_ref().unwrap().cost_micros;
    assert_eq!(holding.unrealized_pnl_micros, 68_500_000 - cost);
    let given = v1::ValueRequest { user_id: user_id.clone(), holding: holding.holding.clone() };
    assert_eq!(me.value(given).await.unwrap().into_inner(), holding);
    let unheld = v1::ValuationRequest { symbol: "SHOP.TO".into(), ..asked.clone() };
    assert_eq!(reason(&me.valuation(unheld).await.unwrap_err()), "HOLDING_NOT_FOUND");

    let span = |from: Option<&str>| v1::StatementRequest {
        user_id: user_id.clone(),
        account_id: account.clone(),
        from: from.map(str::to_owned),
        ..v1::StatementRequest::default()
    };
    let statement = me.statement(span(None)).await.unwrap().into_inner();
    assert_eq!((statement.opening_micros, statement.closing_micros), (0, 1_000 * USD));
    assert_eq!(statement.entries.iter().map(|e| e.change_micros).sum::<i64>(), 1_000 * USD);
    let early = me.statement(span(Some("2026-02-30"))).await.unwrap_err();
    assert_eq!(reason(&early), "DATE_MALFORMED");
    let late = me.statement(span(Some("9000-01-01"))).await.unwrap_err();
    assert_eq!(reason(&late), "PERIOD_EMPTY");

    let period = |period: &str| v1::PerformanceRequest {
        user_id: user_id.clone(),
        account_id: account.clone(),
        period: period.into(),
        ..v1::PerformanceRequest::default()
    };
    let went = me.performance(period("1w")).await.unwrap().into_inner();
    assert_eq!((went.period.as_str(), went.currency.as_str()), ("1W", "CAD"));
    assert_eq!(went.end_micros, 1_000 * USD + 68_500_000);
    assert_eq!(went.points.last().unwrap().value_micros, went.end_micros);
    assert_eq!(reason(&me.performance(period("4M")).await.unwrap_err()), "PERIOD_UNKNOWN");

    // Somebody else's account is as unknown as none.
    let other = UserId::new(Uuid::new_v4());
    let mut they = story.portfolio(&Caller::User(other));
    let theirs = v1::StatementRequest { user_id: other.to_string(), ..span(None) };
    assert_eq!(reason(&they.statement(theirs).await.unwrap_err()), "ACCOUNT_NOT_FOUND");
    let theirs = v1::PerformanceRequest { user_id: other.to_string(), ..period("1M") };
    assert_eq!(reason(&they.performance(theirs).await.unwrap_err()), "ACCOUNT_NOT_FOUND");
    let theirs = v1::ValuationRequest { user_id: other.to_string(), ..asked };
    assert_eq!(reason(&they.valuation(theirs).await.unwrap_err()), "ACCOUNT_NOT_FOUND");
    story.stack.stop().await;
}

#[tokio::test]
async fn two_users_trade_through_the_engine_and_everything_survives_a_restart() {
    trading(Place::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_users_trade_on_postgres() {
    if let Some(place) = Place::server() {
        trading(place).await;
    }
}

#[tokio::test]
async fn users_open_accounts_deposit_withdraw_transfer_and_close() {
    banking(Place::Files).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn users_bank_on_postgres() {
    if let Some(place) = Place::server() {
        banking(place).await;
    }
}

async fn trading(place: Place) {
    let story = Story::start(&place).await;
    let (seller, sells_from, _) = story.seeded("USD", 0, 10 * SHARE).await;
    let (buyer, buys_from, _) = story.seeded("USD", 1_000 * USD, 0).await;

    let (sell, _) = story.order(seller, &sells_from, Side::Sell, 10 * SHARE, 10 * DOLLAR).await;
    let (buy, position) = story.order(buyer, &buys_from, Side::Buy, 4 * SHARE, 11 * DOLLAR).await;

    // Who knows the position of the answer reads what it did: nobody waits or asks again.
    let mut mine = story.portfolio_at(position, &Caller::User(buyer));
    let account = AccountRequest { user_id: buyer.to_string(), account_id: buys_from.clone() };
    let holding = mine.holdings(account.clone()).await.unwrap().into_inner().holdings.pop().unwrap();
    assert_eq!((holding.quantity_e4, holding.avg_cost_micros), (4 * SHARE, 10 * USD));
    let accounts = mine.list_accounts(UserRequest { user_id: buyer.to_string() }).await.unwrap().into_inner();
    let cash = &accounts.accounts[0];
    assert_eq!((cash.balance_micros, cash.held_micros, cash.available_micros), (960 * USD, 0, 960 * USD));
    let lines = TransactionsRequest { account_id: buys_from.clone(), ..TransactionsRequest::default() };
    let lines = mine.transactions(lines).await.unwrap().into_inner().transactions;
    assert_eq!((lines[0].amount_micros, &lines[0].reference_id), (40 * USD, &buy));

    // What the user was told: in order, without a gap, the last of it what is read.
    let updates = mine.updates_since(UpdatesSinceRequest::default()).await.unwrap().into_inner();
    let seqs: Vec<_> = updates.updates.iter().map(|u| u.user_seq).collect();
    assert_eq!(seqs, (1..=updates.last_seq).collect::<Vec<_>>());
    assert_eq!(updates.updates.last().unwrap().holding.as_ref(), Some(&holding));
    let since = UpdatesSinceRequest { after_seq: updates.last_seq - 1, ..UpdatesSinceRequest::default() };
    let since = mine.updates_since(since).await.unwrap().into_inner();
    assert_eq!((since.updates.len(), since.more, since.reset), (1, false, false));

    // A replace that needs more holds it.
    let (second, _) = story.order(buyer, &buys_from, Side::Buy, 2 * SHARE, 9 * DOLLAR).await;
    let replace = ReplaceCommand {
        order_id: second.clone(),
        quantity_e4: 3 * SHARE,
        price_e4: 9_50 * DOLLAR / 100,
        ..ReplaceCommand::default()
    };
    let (outcome, _) = story.execute(buyer, What::Replace(replace)).await;
    assert!(matches!(outcome, Outcome::Done(_)), "{outcome:?}");
    let audit = story.audit().await;
    let mut open: Vec<_> =
        audit.open_holds.iter().map(|h| (h.order_id.clone(), h.cash_micros, h.shares_e4)).collect();
    open.sort_by_key(|h| h.1);
    assert_eq!(open, [(sell, 0, 6 * SHARE), (second, 28_500_000, 0)]);
    let before = story.portfolio(&system()).status(Empty {}).await.unwrap().into_inner();
    assert_eq!((before.settled, before.dead_letters), (1, 0));

    let stack = story.stack.restart(&services(), |s| place.configure(s)).await;
    let story = Story { stack };
    let after = story.portfolio(&system()).status(Empty {}).await.unwrap().into_inner();
    assert_eq!((after.settled, after.dead_letters), (1, 0));
    assert!(after.position >= before.position);
    assert_eq!(story.audit().await.open_holds, audit.open_holds);

    // An account with an open order closes: the order is canceled with it.
    let mut mine = story.portfolio(&Caller::User(buyer));
    let closed = mine.close_account(account.clone()).await.unwrap();
    let position = position_of(&closed).unwrap();
    assert!(closed.into_inner().closed);
    let mut mine = story.portfolio_at(position, &Caller::User(buyer));
    let left = mine.list_accounts(UserRequest::default()).await.unwrap().into_inner();
    assert_eq!(left.accounts, []);
    // Again it stays closed, and its lines are kept.
    assert!(mine.close_account(account).await.unwrap().into_inner().closed);
    let lines = TransactionsRequest { account_id: buys_from, ..TransactionsRequest::default() };
    assert_eq!(mine.transactions(lines).await.unwrap().into_inner().transactions.len(), 4);
    assert_eq!(story.audit().await.open_holds.len(), 1);

    user_deleted(&story, seller, &sells_from).await;
    story.stack.stop().await;
    place.remove().await;
}

/// Who is gone has no account, no order, and gets none.
async fn user_deleted(story: &Story, user: UserId, account: &str) {
    let bus = story.stack.running.context.bus().await.unwrap();
    let told = UserDeleted { user_id: user.to_string(), ..UserDeleted::default() };
    bus.publish_fact(subject::USERS_STREAM, subject::USER_DELETED, "gone", told.encode_to_vec().into())
        .await
        .unwrap();
    let mut house = story.portfolio(&system());
    let asked = UserRequest { user_id: user.to_string() };
    until(&story.stack.running.context, "the accounts of a deleted user close", async || {
        let mut house = story.portfolio(&system());
        house.list_accounts(asked.clone()).await.unwrap().into_inner().accounts.is_empty()
    })
    .await;
    let deposit = DepositRequest {
        user_id: user.to_string(),
        account_id: account.to_owned(),
        amount_micros: USD,
        currency: "USD".into(),
        ..DepositRequest::default()
    };
    let refused = house.deposit(deposit).await.unwrap_err();
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "USER_CLOSED"));
    house.close_user(asked).await.unwrap();
    let audit = story.audit().await;
    assert_eq!(audit.open_holds, []);
}

async fn banking(place: Place) {
    let story = Story::start(&place).await;
    let user = UserId::new(Uuid::new_v4());
    let mut mine = story.portfolio(&Caller::User(user));
    let create = |kind: AccountType, currency: &str, key: &str| CreateAccountRequest {
        r#type: kind.into(),
        currency: currency.into(),
        idempotency_key: key.into(),
        ..CreateAccountRequest::default()
    };
    let usd = mine.create_account(create(AccountType::Investment, "USD", "a")).await.unwrap().into_inner();
    assert_eq!((usd.balance_micros, usd.account_number.len()), (500 * USD, 10));
    let again = mine.create_account(create(AccountType::Investment, "USD", "a")).await.unwrap().into_inner();
    assert_eq!(again, usd);
    let other = mine.create_account(create(AccountType::Savings, "USD", "a")).await.unwrap_err();
    assert_eq!((other.code(), reason(&other)), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    for (kind, currency, code) in [
        (AccountType::House, "USD", "ACCOUNT_TYPE_UNKNOWN"),
        (AccountType::Unspecified, "USD", "ACCOUNT_TYPE_UNKNOWN"),
        (AccountType::Savings, "EUR", "CURRENCY_UNKNOWN"),
    ] {
        let refused = mine.create_account(create(kind, currency, "")).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, code));
    }
    let cad = mine.create_account(create(AccountType::Savings, "CAD", "")).await.unwrap().into_inner();

    depositing(&story, &usd, &mut mine).await;

    let transfer = TransferRequest {
        from_account_id: usd.id.clone(),
        to_account_id: cad.id.clone(),
        amount_micros: 100 * USD,
        currency: "USD".into(),
        idempotency_key: "t".into(),
        ..TransferRequest::default()
    };
    for _ in 0..2 {
        mine.transfer(transfer.clone()).await.unwrap();
    }
    let position = position_of(&mine.transfer(transfer).await.unwrap()).unwrap();
    let mut reader = story.portfolio_at(position, &Caller::User(user));
    let accounts = reader.list_accounts(UserRequest::default()).await.unwrap().into_inner().accounts;
    let balances: Vec<_> = accounts.iter().map(|a| a.balance_micros).collect();
    assert_eq!(balances, [400 * USD, 637 * USD]);

    // Another user sees none of it, and answers tell nothing.
    let mut other = story.portfolio(&Caller::User(UserId::new(Uuid::new_v4())));
    let theirs = AccountRequest { account_id: usd.id.clone(), ..AccountRequest::default() };
    assert_eq!(other.holdings(theirs.clone()).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(other.close_account(theirs.clone()).await.unwrap_err().code(), Code::NotFound);
    let named = UserRequest { user_id: user.to_string() };
    assert_eq!(other.list_accounts(named).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(other.audit(Empty {}).await.unwrap_err().code(), Code::PermissionDenied);
    let none =
        HoldingRequest { account_id: usd.id.clone(), symbol: "AAPL".into(), ..HoldingRequest::default() };
    assert_eq!(mine.holding(none).await.unwrap_err().code(), Code::NotFound);

    let closed = mine.close_account(theirs).await.unwrap();
    let position = position_of(&closed).unwrap();
    let closed = closed.into_inner();
    assert_eq!((closed.closed, closed.balance_micros), (true, 0));
    let mut reader = story.portfolio_at(position, &Caller::User(user));
    assert_eq!(reader.list_accounts(UserRequest::default()).await.unwrap().into_inner().accounts.len(), 1);
    story.audit().await;
    story.stack.stop().await;
    place.remove().await;
}

async fn depositing(story: &Story, usd: &v1::Account, mine: &mut PortfolioClient<Authorised>) {
    let deposit = |amount_micros: i64, currency: &str, key: &str| DepositRequest {
        account_id: usd.id.clone(),
        amount_micros,
        currency: currency.into(),
        idempotency_key: key.into(),
        ..DepositRequest::default()
    };
    // A hundred times at once: one effect, one answer.
    let all = join_all((0..100).map(|_| {
        let (mut mine, request) = (mine.clone(), deposit(25 * USD, "USD", "d"));
        async move { mine.deposit(request).await.unwrap().into_inner() }
    }));
    let all = all.await;
    assert_eq!(all[0].new_balance_micros, 525 * USD);
    assert!(all.iter().all(|answer| *answer == all[0]), "{all:?}");
    let other = mine.deposit(deposit(26 * USD, "USD", "d")).await.unwrap_err();
    assert_eq!((other.code(), reason(&other)), (Code::AlreadyExists, "IDEMPOTENCY_KEY_REUSED"));
    let wrong = mine.deposit(deposit(USD, "CAD", "")).await.unwrap_err();
    assert_eq!((wrong.code(), reason(&wrong)), (Code::InvalidArgument, "CURRENCY_MISMATCH"));
    for (amount, code) in
        [(0, "AMOUNT_OUT_OF_RANGE"), (-1, "AMOUNT_OUT_OF_RANGE"), (i64::MAX, "AMOUNT_OUT_OF_RANGE")]
    {
        let refused = mine.deposit(deposit(amount, "USD", "")).await.unwrap_err();
        assert_eq!((refused.code(), reason(&refused)), (Code::InvalidArgument, code));
    }

    let withdraw = |amount_micros: i64, key: &str| WithdrawRequest {
        account_id: usd.id.clone(),
        amount_micros,
        currency: "USD".into(),
        idempotency_key: key.into(),
        ..WithdrawRequest::default()
    };
    let first = mine.withdraw(withdraw(25 * USD, "w")).await.unwrap();
    let position = position_of(&first).unwrap();
    let first = first.into_inner();
    assert_eq!(first.new_balance_micros, 500 * USD);
    assert_eq!(mine.withdraw(withdraw(25 * USD, "w")).await.unwrap().into_inner(), first);
    let too_much = mine.withdraw(withdraw(501 * USD, "")).await.unwrap_err();
    assert_eq!((too_much.code(), reason(&too_much)), (Code::FailedPrecondition, "INSUFFICIENT_FUNDS"));
    let owner = Caller::User(UserId::parse(&usd.user_id).unwrap());
    let lines = TransactionsRequest { account_id: usd.id.clone(), ..TransactionsRequest::default() };
    let lines = story.portfolio_at(position, &owner).transactions(lines).await.unwrap().into_inner();
    let newest = &lines.transactions[0];
    assert_eq!((&newest.id, newest.description.as_str()), (&first.transaction_id, "Withdrawal"));
}
