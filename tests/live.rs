//! What a person sees of the one journal through several doors: reads that know what was written, repetitions that have one
//! effect while a projection is held back, replicas that take over.
//!
//! FAFNIR_TEST_ROUNDS is how many rounds of reads; 50 by default.

use crate::{
    cluster::{Cluster, External, GATEWAY, ORDER},
    harness::{Stack, WITHIN},
};
use fafnir_proto::{
    client::{REASON_KEY, connection},
    connection::Connection,
    v1::{
        Account, AccountType, CancelAllRequest, CancelOrderRequest, DepositRequest, Empty, GetOrderRequest,
        ListOrdersRequest, Order, OrderState, OrderType, PlaceOrderRequest, PrivateRequest, PrivateUpdate,
        Side, TerminalSignInRequest, TimeInForce, TransactionsRequest, private_update::Kind,
        terminal_client::TerminalClient,
    },
};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tonic::{Request, Status, Streaming};

const MICROS: i64 = 1_000_000;
/// More than one round needs.
pub const CASH: i64 = 100_000 * MICROS;
/// Orders that push a key out of the window of the smallest size.
const ORDERS_BEYOND: usize = 20;

/// Somebody at one gateway.
#[derive(Clone)]
pub struct Person {
    pub terminal: TerminalClient<Connection>,
    token: String,
    account: String,
}

impl Person {
    pub async fn signed_in(url: &str, email: &str) -> Self {
        Self::signed_in_over(connection(url).unwrap(), email).await
    }

    /// The same over a connection of the caller's.
    pub async fn signed_in_over(connection: Connection, email: &str) -> Self {
        let mut terminal = TerminalClient::new(connection);
        let password = "Password123".to_owned();
        let request = TerminalSignInRequest { email: email.into(), password };
        let token = terminal.sign_in(request).await.unwrap().into_inner().access_token;
        let mut person = Self { terminal, token, account: String::new() };
        person.account = person.account_now().await.id;
        person
    }

    /// The same person at another gateway.
    pub fn at(&self, url: &str) -> Self {
        Self { terminal: TerminalClient::new(connection(url).unwrap()), ..self.clone() }
    }

    pub fn ask<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(WITHIN);
        let bearer = format!("Bearer {}", self.token).parse().unwrap();
        request.metadata_mut().insert("authorization", bearer);
        request
    }

    pub async fn place(&mut self, order: PlaceOrderRequest) -> Result<Order, Status> {
        let request = self.ask(order);
        Ok(self.terminal.place(request).await?.into_inner().order.unwrap())
    }

    async fn cancel(&mut self, order: &str) -> Result<Order, Status> {
        let request =
            self.ask(CancelOrderRequest { order_id: order.into(), ..CancelOrderRequest::default() });
        Ok(self.terminal.cancel(request).await?.into_inner().order.unwrap())
    }

    pub async fn cancel_all(&mut self) {
        let request = self.ask(CancelAllRequest::default());
        self.terminal.cancel_all(request).await.unwrap();
    }

    async fn order(&mut self, id: &str) -> Result<Order, Status> {
        let request = self.ask(GetOrderRequest { order_id: id.into(), ..GetOrderRequest::default() });
        Ok(self.terminal.order(request).await?.into_inner().order.unwrap())
    }

    /// The orders that a client order id made.
    async fn orders_of(&mut self, client_order_id: &str) -> usize {
        self.client_orders(client_order_id).await.iter().filter(|id| *id == client_order_id).count()
    }

    /// The client order ids of all orders that begin so, in order.
    pub async fn client_orders(&mut self, prefix: &str) -> Vec<String> {
        let (mut found, mut before_id) = (Vec::new(), String::new());
        loop {
            let request =
                self.ask(ListOrdersRequest { limit: 500, before_id, ..ListOrdersRequest::default() });
            let page = self.terminal.orders(request).await.unwrap().into_inner();
            let ids = page.orders.iter().map(|order| order.client_order_id.clone());
            found.extend(ids.filter(|id| id.starts_with(prefix)));
            match page.orders.last() {
                Some(last) if page.more => before_id = last.id.clone(),
                _ => break,
            }
        }
        found.sort();
        found
    }

    /// The USD investment account.
    async fn account_now(&mut self) -> Account {
        let request = self.ask(Empty {});
        let accounts = self.terminal.accounts(request).await.unwrap().into_inner().accounts;
        let is_it = |a: &Account| a.r#type() == AccountType::Investment && a.currency == "USD";
        accounts.into_iter().find(is_it).unwrap()
    }

    async fn shares(&mut self, symbol: &str) -> i64 {
        let request = self.ask(Empty {});
        let holdings = self.terminal.positions(request).await.unwrap().into_inner().holdings;
        holdings.iter().filter(|h| h.symbol == symbol).map(|h| h.quantity_e4).sum()
    }

    pub async fn deposit(&mut self, amount_micros: i64, key: &str) -> Result<i64, Status> {
        let request = self.ask(DepositRequest {
            account_id: self.account.clone(),
            amount_micros,
            currency: "USD".into(),
            idempotency_key: key.into(),
            ..DepositRequest::default()
        });
        Ok(self.terminal.deposit(request).await?.into_inner().new_balance_micros)
    }

    /// How often an amount stands in the account's books.
    async fn deposits_of(&mut self, amount_micros: i64) -> usize {
        let account_id = self.account.clone();
        let request =
            self.ask(TransactionsRequest { account_id, limit: 100, ..TransactionsRequest::default() });
        let all = self.terminal.transactions(request).await.unwrap().into_inner().transactions;
        all.iter().filter(|t| t.amount_micros == amount_micros).count()
    }

    /// Own orders and positions as they change from now on.
    async fn pushes(&mut self) -> Streaming<PrivateUpdate> {
        let mut request = self.ask(PrivateRequest { from_now: true, ..PrivateRequest::default() });
        request.metadata_mut().remove("grpc-timeout");
        let mut stream = self.terminal.private(request).await.unwrap().into_inner();
        // The first heartbeat says that the stream stands.
        stream.message().await.unwrap().unwrap();
        stream
    }
}

fn limit(symbol: &str, side: Side, shares: i64, price_e4: i64) -> PlaceOrderRequest {
    PlaceOrderRequest {
        symbol: symbol.into(),
        side: side.into(),
        r#type: OrderType::Limit.into(),
        quantity_e4: shares * 10_000,
        price_e4,
        ..PlaceOrderRequest::default()
    }
}

/// An order to buy that rests.
pub fn resting() -> PlaceOrderRequest {
    limit("KO", Side::Buy, 1, 60_0000)
}

fn reason(status: &Status) -> String {
    let reason = status.metadata().get(REASON_KEY).and_then(|r| r.to_str().ok());
    reason.unwrap_or_default().to_owned()
}

fn rounds() -> usize {
    std::env::var("FAFNIR_TEST_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(50)
}

fn p50(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}

pub const UNTHROTTLED: [(&str, &str); 2] =
    [("FAFNIR_GATEWAY_ORDERS_PER_SECOND", "10000"), ("FAFNIR_GATEWAY_ORDERS_BURST", "10000")];

/// Reads what one person has just written through the other door, and what was pushed to it, in turn.
async fn read_what_was_written(doors: [&str; 2], rounds: usize) {
    let mut member = {
        let first = Person::signed_in(doors[0], "user@test.com").await;
        [first.clone(), first.at(doors[1])]
    };
    let mut other = Person::signed_in(doors[1], "admin@test.com").await;
    member[0].deposit(CASH, "live").await.unwrap();
    let held = member[1].account_now().await.held_micros;
    let (mut placed, mut pushed) = (Vec::new(), Vec::new());
    let start = Instant::now();
    for round in 0..rounds {
        let (here, there) = (round % 2, 1 - round % 2);
        let order = member[here].place(resting()).await.unwrap();
        let began = Instant::now();
        let read = member[there].order(&order.id).await.unwrap_or_else(|e| panic!("{round}: {e}"));
        placed.push(began.elapsed());
        assert_eq!((read.state(), read.version), (OrderState::New, order.version), "{round}");
        let began = Instant::now();
        let account = member[there].account_now().await;
        placed.push(began.elapsed());
        assert_eq!(account.held_micros - held, 60 * MICROS, "{round}");
        member[here].cancel(&order.id).await.unwrap();
        assert_eq!(member[there].account_now().await.held_micros, held, "{round}");
        assert_eq!(member[there].order(&order.id).await.unwrap().state(), OrderState::Canceled, "{round}");
    }
    let wrote_in = start.elapsed();
    // The member's order rests: only the push tells of its fill. Shares go there and back again.
    let mut pushes = member[0].pushes().await;
    let began = Instant::now();
    for round in 0..rounds {
        let (sides, gained) = match round / 2 % 2 {
            0 => ([Side::Buy, Side::Sell], 10_000),
            _ => ([Side::Sell, Side::Buy], -10_000),
        };
        let had = member[0].shares("NVDA").await;
        let order = member[1].place(limit("NVDA", sides[0], 1, 148_0000)).await.unwrap();
        let taken = other.place(limit("NVDA", sides[1], 1, 148_0000)).await.unwrap();
        assert_eq!(taken.state(), OrderState::Filled, "{round}");
        loop {
            let update =
                tokio::time::timeout(WITHIN, pushes.message()).await.expect("pushed").unwrap().unwrap();
            if let Some(Kind::Order(update)) = update.kind
                && update.order.is_some_and(|o| o.id == order.id && o.state() == OrderState::Filled)
            {
                break;
            }
        }
        let began = Instant::now();
        assert_eq!(member[round % 2].shares("NVDA").await, had + gained, "{round}");
        pushed.push(began.elapsed());
    }
    println!(
        "{rounds} x place, then order and account at the other gateway: p50 {:?}, {:?} a round of six calls; {rounds} x a \
         pushed fill, then the positions: p50 {:?}, {:?} a round; none stale",
        p50(&mut placed),
        wrote_in / rounds as u32,
        p50(&mut pushed),
        began.elapsed() / rounds as u32
    );
}

#[test]
fn what_a_user_wrote_or_was_told_is_in_the_next_read_at_another_gateway() {
    let Some(external) = External::named() else { return };
    let cluster = Cluster::up(external, &UNTHROTTLED);
    let other = cluster.replica(GATEWAY, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let doors = [cluster.gateway(), other.address("api-gateway")];
    runtime.block_on(read_what_was_written([&doors[0], &doors[1]], rounds()));
    cluster.audit();
}

#[test]
fn of_two_replicas_of_order_service_one_follows_and_the_other_takes_over() {
    let Some(external) = External::named() else { return };
    let mut cluster = Cluster::up(external, &UNTHROTTLED);
    let second = cluster.replica(ORDER, &[]);
    let at_second = ("FAFNIR_ADDRESSES_ORDER", second.address("order-service"));
    let gateway = cluster.replica(GATEWAY, &[(at_second.0, &at_second.1)]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut one = Person::signed_in(&cluster.gateway(), "user@test.com").await;
        let mut two = one.at(&gateway.address("api-gateway"));
        one.deposit(CASH, "live").await.unwrap();
        for round in 0..10 {
            let order = one.place(resting()).await.unwrap();
            let read = two.order(&order.id).await.unwrap_or_else(|e| panic!("{round}: {e}"));
            assert_eq!(read.state(), OrderState::New);
        }
        let leads = "SELECT string_agg(pid::text, ' ') FROM pg_locks WHERE locktype = 'advisory' AND granted \
                     AND database = (SELECT oid FROM pg_database WHERE datname = current_database())";
        let leader = cluster.sql("order", leads);
        assert!(leader.parse::<u32>().is_ok(), "one process has the lead: {leader}");
        cluster.kill(ORDER);
        for round in 0..10 {
            let keyed = PlaceOrderRequest { client_order_id: format!("over-{round}"), ..resting() };
            let order = two.place(keyed.clone()).await.unwrap_or_else(|e| panic!("{round}: {e}"));
            let read = two.order(&order.id).await.unwrap_or_else(|e| panic!("{round}: {e}"));
            assert_eq!(read.state(), OrderState::New);
            assert_eq!(two.place(keyed).await.unwrap().id, order.id, "{round}");
        }
        let other = cluster.sql("order", leads);
        assert!(other.parse::<u32>().is_ok() && other != leader, "another one has it: {other}");
        cluster.start(ORDER);
        for round in 0..10 {
            let order = two.place(resting()).await.unwrap();
            let read = one.order(&order.id).await.unwrap_or_else(|e| panic!("{round}: {e}"));
            assert_eq!(read.state(), OrderState::New);
        }
        one.cancel_all().await;
        assert_eq!(cluster.sql("order", leads), other, "it keeps it");
    });
    cluster.audit();
}

/// A database in which nothing can be written for a while, though it is read.
enum Held {
    File(rusqlite::Connection),
    /// A session of psql with an open transaction.
    Server(Child),
}

impl Held {
    fn file(path: &Path) -> Self {
        let connection = rusqlite::Connection::open(path).unwrap();
        connection.busy_timeout(WITHIN).unwrap();
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        Self::File(connection)
    }

    fn server(url: &str, table: &str) -> Self {
        let mut command = Command::new("psql");
        command.args([url, "-qAt"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut session = command.spawn().unwrap();
        let statements = format!("BEGIN;\nLOCK TABLE {table} IN EXCLUSIVE MODE;\n\\echo held\n");
        session.stdin.as_mut().unwrap().write_all(statements.as_bytes()).unwrap();
        let mut line = String::new();
        BufReader::new(session.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "held\n");
        Self::Server(session)
    }

    fn release(self) {
        match self {
            Self::File(connection) => connection.execute_batch("ROLLBACK").unwrap(),
            Self::Server(mut session) => {
                drop(session.stdin.take());
                assert!(session.wait().unwrap().success());
            }
        }
    }
}

/// Keys of orders and money again, beyond the window of the core and before the projections know them; then the exchange
/// that is cancel-only because they do not catch up, and its recovery.
async fn keys_while_the_projections_are_held_back(url: &str, hold: impl FnOnce() -> Vec<Held>) {
    const ODD: i64 = 1_234_567;
    let mut person = Person::signed_in(url, "user@test.com").await;
    person.deposit(CASH, "live").await.unwrap();
    let open = person.place(resting()).await.unwrap();
    let keyed = PlaceOrderRequest { client_order_id: "held-back".into(), ..resting() };

    let held = hold();
    let made = person.place(keyed.clone()).await.unwrap();
    person.deposit(ODD, "held-back").await.unwrap();
    for _ in 0..ORDERS_BEYOND {
        person.place(resting()).await.unwrap();
    }
    for refused in
        [person.place(keyed.clone()).await.map(drop), person.deposit(ODD, "held-back").await.map(drop)]
    {
        let refused = refused.unwrap_err();
        assert_eq!(
            (refused.code(), reason(&refused).as_str()),
            (tonic::Code::Unavailable, "PROJECTION_BEHIND")
        );
    }
    // Behind for too long: only what takes away is let in.
    let until = Instant::now() + WITHIN;
    loop {
        match person.place(resting()).await {
            Ok(order) => {
                assert!(Instant::now() < until, "never cancel-only");
                person.cancel(&order.id).await.unwrap();
            }
            Err(e) => {
                let is = (e.code(), reason(&e));
                assert_eq!(is, (tonic::Code::ResourceExhausted, "CANCEL_ONLY".into()), "{e:?}");
                break;
            }
        }
    }
    assert_eq!(reason(&person.deposit(1, "late").await.unwrap_err()), "CANCEL_ONLY");
    assert_eq!(person.cancel(&open.id).await.unwrap().state(), OrderState::Canceled);

    held.into_iter().for_each(Held::release);
    let until = Instant::now() + WITHIN;
    while let Err(e) = person.place(resting()).await {
        assert_eq!(reason(&e), "CANCEL_ONLY");
        assert!(Instant::now() < until, "still cancel-only");
    }
    assert_eq!(person.place(keyed).await.unwrap().id, made.id);
    person.deposit(ODD, "held-back").await.unwrap();
    assert_eq!((person.orders_of("held-back").await, person.deposits_of(ODD).await), (1, 1));
    person.cancel_all().await;
}

fn told_of_it(log: &str) {
    for sentence in ["only cancels are accepted", "orders are accepted again"] {
        assert!(log.contains(sentence), "{log}");
    }
}

#[test]
fn a_key_has_one_effect_while_the_databases_of_one_process_are_held_back() {
    let config = "[gateway]\norders_per_second = 10000\norders_burst = 10000\n\n[engine]\nrecent_ids = 16\nbehind_s_max = 8\n";
    let stack = Stack::configured(config, &["--no-sim"]);
    let files: Vec<PathBuf> = ["order-service", "portfolio-service"]
        .iter()
        .map(|name| stack.data_dir().join("db").join(format!("{name}.sqlite")))
        .collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let url = stack.process.address("api-gateway");
    runtime.block_on(keys_while_the_projections_are_held_back(&url, || {
        files.iter().map(|path| Held::file(path)).collect()
    }));
    told_of_it(&stack.process.log());
    stack.shell("nobody").audit();
}

#[test]
fn a_key_has_one_effect_while_the_databases_of_nine_processes_are_held_back() {
    let Some(external) = External::named() else { return };
    let small = [("FAFNIR_ENGINE_RECENT_IDS", "16"), ("FAFNIR_ENGINE_BEHIND_S_MAX", "8")];
    let cluster = Cluster::up(external, &[&UNTHROTTLED[..], &small[..]].concat());
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(keys_while_the_projections_are_held_back(&cluster.gateway(), || {
        vec![
            Held::server(&cluster.database("order"), "position"),
            Held::server(&cluster.database("portfolio"), "projection"),
        ]
    }));
    told_of_it(&cluster.log(crate::cluster::ENGINE));
    cluster.audit();
}

/// Whether acceptance waits for Postgres: its p50 beside a server that answers each question 2 ms later, without a client
/// order id and with one, which is looked up once in an index. Prints; run with `-- --ignored --nocapture`.
#[test]
#[ignore = "figures"]
fn acceptance_beside_a_slower_postgres() {
    const SLOWER: Duration = Duration::from_millis(2);
    const SAMPLES: usize = 100;
    const TURNS: usize = 5;
    let Some(external) = External::named() else { return };
    let delay = Delayed::before(&external.postgres);
    let cluster = Cluster::up(External { postgres: delay.url.clone(), ..external }, &UNTHROTTLED);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut times: [Vec<Duration>; 4] = Default::default();
    runtime.block_on(async {
        let mut person = Person::signed_in(&cluster.gateway(), "user@test.com").await;
        person.deposit(CASH, "live").await.unwrap();
        for turn in 0..TURNS {
            for (which, times) in times.iter_mut().enumerate() {
                let (slower, keyed) = (which % 2 == 1, which >= 2);
                delay.set(if slower { SLOWER } else { Duration::ZERO });
                for n in 0..SAMPLES {
                    let client_order_id = if keyed { format!("{turn}-{which}-{n}") } else { String::new() };
                    let order = PlaceOrderRequest { client_order_id, ..resting() };
                    let began = Instant::now();
                    person.place(order).await.unwrap();
                    times.push(began.elapsed());
                }
                delay.set(Duration::ZERO);
                person.cancel_all().await;
            }
        }
    });
    let [plain, plain_slower, keyed, keyed_slower] =
        times.each_mut().map(|times| p50(times).as_secs_f64() * 1e3);
    for (what, p50, slower) in
        [("without a client order id", plain, plain_slower), ("with one", keyed, keyed_slower)]
    {
        println!(
            "accepted {what}: p50 {p50:.2} ms, with Postgres 2 ms slower {slower:.2} ms: {:+.2} ms",
            slower - p50
        );
    }
    let slower_by = SLOWER.as_secs_f64() * 1e3;
    assert!(plain_slower - plain < slower_by / 2.0, "an order without a client order id waits for Postgres");
    assert!(
        keyed_slower - keyed < slower_by * 1.5,
        "one with a client order id waits for more than one read"
    );
}

/// A way to a server on which everything that goes there waits a while.
struct Delayed {
    url: String,
    delay_us: Arc<AtomicU64>,
}

impl Delayed {
    /// Before the server of a URL `scheme://[user@]host:port/`.
    fn before(url: &str) -> Self {
        let address = url.split("://").nth(1).unwrap().split(['@', '/']).find(|part| part.contains(':'));
        let address = address.unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap().to_string();
        let delay_us = Arc::new(AtomicU64::new(0));
        let (url, delay) = (url.replace(&address, &here), Arc::clone(&delay_us));
        // Ends with the test's process.
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let far = TcpStream::connect(&address).unwrap();
                for (from, to, delay) in
                    [(near.try_clone(), far.try_clone(), Some(Arc::clone(&delay))), (Ok(far), Ok(near), None)]
                {
                    let (from, to) = (from.unwrap(), to.unwrap());
                    to.set_nodelay(true).unwrap();
                    std::thread::spawn(move || carry(from, to, delay));
                }
            }
        });
        Self { url, delay_us }
    }

    fn set(&self, delay: Duration) {
        self.delay_us.store(delay.as_micros() as u64, Ordering::Relaxed);
    }
}

/// Carries bytes until either side ends; each arrives a while after it came, however many others are on their way.
fn carry(mut from: TcpStream, mut to: TcpStream, delay: Option<Arc<AtomicU64>>) {
    let (way, arriving) = mpsc::channel::<(Instant, Vec<u8>)>();
    let (near, far) = (from.try_clone().unwrap(), to.try_clone().unwrap());
    std::thread::spawn(move || {
        for (due, bytes) in arriving {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&bytes).is_err() {
                break;
            }
        }
        // The other direction ends too.
        drop(near.shutdown(Shutdown::Both));
        drop(far.shutdown(Shutdown::Both));
    });
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).unwrap_or(0);
        let delay_us = delay.as_ref().map_or(0, |delay| delay.load(Ordering::Relaxed));
        let due = Instant::now() + Duration::from_micros(delay_us);
        if read == 0 || way.send((due, bytes[..read].to_vec())).is_err() {
            break;
        }
    }
}

/// What the whole list of one account's orders takes of the process that answers it, and of time. FAFNIR_TEST_ORDERS is
/// how many. Prints; run with `-- --ignored --nocapture`.
#[test]
#[ignore = "figures"]
fn a_whole_list_of_orders_is_answered_in_bounded_memory() {
    const CLIENTS: usize = 32;
    const MIB: usize = 1024 * 1024;
    let orders: usize =
        std::env::var("FAFNIR_TEST_ORDERS").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000);
    let config = "[gateway]\norders_per_second = 100000\norders_burst = 100000\n";
    let stack = Stack::configured(config, &["--no-sim"]);
    let url = stack.process.address("api-gateway");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let began = Instant::now();
    let token = runtime.block_on(async {
        let person = Person::signed_in(&url, "user@test.com").await;
        let left = Arc::new(AtomicU64::new(orders as u64));
        let clients = (0..CLIENTS).map(|_| {
            let (mut person, left) = (person.clone(), Arc::clone(&left));
            async move {
                // Nobody sells: it ends at once.
                let order = PlaceOrderRequest { time_in_force: TimeInForce::Ioc.into(), ..resting() };
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                    person.place(order.clone()).await.unwrap();
                }
            }
        });
        futures::future::join_all(clients).await;
        person.token
    });
    println!("{orders} orders placed in {:?}", began.elapsed());
    let fields = "id userId symbol side type status quantity price stopPrice filledQuantity avgFillPrice createdAt \
                  updatedAt state pending accountId timeInForce clientOrderId rejectReason rejectCode openQuantity \
                  version postOnly displayQuantity trailAmount trailPercent expiresAt currency heldCash heldQuantity \
                  fills { execId }";
    // Once for what is allocated once.
    whole_list(&url, &token, "id", orders.min(1_000));
    for fields in ["id symbol side quantity price status", fields] {
        let before = stack.process.resident_bytes("VmRSS");
        stack.process.forget_peak();
        let began = Instant::now();
        let (answer, first) = whole_list(&url, &token, fields, orders);
        let took = began.elapsed();
        let (peak, after) = (stack.process.resident_bytes("VmHWM"), stack.process.resident_bytes("VmRSS"));
        println!(
            "{orders} orders with {} fields each: {} MiB in {took:?}, the first byte after {first:?}; resident {} MiB \
             before, at most {} MiB meanwhile, {} MiB after",
            fields.split_whitespace().count(),
            answer / MIB,
            before / MIB,
            peak / MIB,
            after / MIB
        );
        assert!(peak.saturating_sub(before) < 2 * answer + 64 * MIB, "more than the text and the pages");
    }
}

/// Reads every order over GraphQL, at least `expected` of them: the bytes of the answer, and when the first came.
fn whole_list(url: &str, token: &str, fields: &str, expected: usize) -> (usize, Duration) {
    let address = url.strip_prefix("http://").unwrap();
    let query =
        serde_json::json!({"query": format!("{{ getOrders {{ code count hasMore data {{ {fields} }} }} }}")});
    let body = query.to_string();
    let began = Instant::now();
    let mut connection = TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(WITHIN * 10)).unwrap();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Authorization: Bearer {token}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    connection.write_all(head.as_bytes()).unwrap();
    let mut answer = vec![0];
    connection.read_exact(&mut answer).unwrap();
    let first = began.elapsed();
    connection.read_to_end(&mut answer).unwrap();
    let answer = String::from_utf8(answer).unwrap();
    let (head, text) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert!(text.starts_with("{\"data\":{\"getOrders\":{\"code\":\"OK\",\"count\":"), "{text:.200}");
    assert!(text.contains("\"hasMore\":false") && text.ends_with("]}}}"), "{text:.200}");
    assert!(text.matches("{\"id\":").count() >= expected, "all of them");
    (text.len(), first)
}
