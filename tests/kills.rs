//! `kill -9` at random points of a mixed traffic, the broker's store wiped too: what was acknowledged is there, and what was
//! asked for without an answer has one effect when it is asked for again. Of the whole in one process, and of each of nine
//! processes by itself while the others go on.
//!
//! FAFNIR_TEST_KILLS is how many points; 20 of the whole and each of the nine once by default.

use crate::{
    cluster::{Cluster, ENGINE, External, PROCESSES, SIMULATOR},
    harness::{Answer, Stack, WITHIN, binary},
    refusals::Api,
};
use fafnir_services::platform::rng::Rng;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;

pub const CONFIG: &str = "[gateway]\norders_per_second = 10000\norders_burst = 10000\n\n\
    [engine]\nsnapshot_every_commands = 300\n";
const PEOPLE: [&str; 2] = ["admin@test.com", "user@test.com"];
/// Requests of a person under way at a time.
const LINES: usize = 4;
/// Requests between two kills.
const REQUESTS: (i64, i64) = (90, 170);
/// Requests that are answered after the one process is back.
const REQUESTS_AFTER: u64 = 16;
/// Of the nine processes, the broker is wiped with every so many kills.
const WIPED_EVERY: usize = 3;
/// A token is renewed before it ends.
const TOKEN_MAX: Duration = Duration::from_mins(4);

const PLACE: &str = "mutation($r:CreateOrderRequest!){op:createOrder(request:$r){code data{id state filledQuantity version}}}";
const REPLACE: &str =
    "mutation($r:ReplaceOrderRequest!){op:replaceOrder(request:$r){code data{id state version}}}";
const CANCEL: &str = "mutation($o:String!){op:cancelOrder(orderId:$o){code}}";
const DEPOSIT: &str = "mutation($r:DepositRequest!){op:deposit(request:$r){code}}";
const WITHDRAW: &str = "mutation($r:WithdrawRequest!){op:withdraw(request:$r){code}}";
const TRANSFER: &str = "mutation($r:TransferRequest!){op:transfer(request:$r){code}}";
const OPEN: &str = "mutation($r:CreateAccountRequest!){op:createAccount(request:$r){code data{id}}}";
const CLOSE: &str = "mutation($a:String!){deleteAccount(accountId:$a)}";
const ORDERS: &str = "query($a:String){op:getOrders(first:1000,after:$a){code endCursor hasMore \
    data{id clientOrderId state filledQuantity version}}}";
const ACCOUNTS: &str = "{op:getPortfolioSummary{code accounts{id type currency}}}";
const TRANSACTIONS: &str =
    "query($r:GetTransactionsRequest!){op:getTransactions(request:$r,first:1000){code data{amount}}}";

/// What became of a request.
#[derive(Debug, Clone)]
enum Told {
    Done(Value),
    Refused,
    /// Nobody knows.
    Unknown,
}

#[derive(Debug, Clone)]
enum What {
    Place {
        key: String,
    },
    Replace {
        order: String,
    },
    Cancel {
        order: String,
    },
    /// An amount that no other request has, micros, and the account in whose books it stands.
    Money {
        amount: i64,
        account: String,
    },
    Open,
    Close {
        account: String,
    },
}

#[derive(Debug, Clone)]
struct Request {
    what: What,
    query: &'static str,
    variables: Value,
    told: Told,
}

impl Request {
    /// Sent again, it has no second effect.
    fn has_key(&self) -> bool {
        matches!(self.what, What::Place { .. } | What::Money { .. } | What::Open)
    }
}

fn told(answer: Option<Value>) -> Told {
    const NOBODY_KNOWS: [&str; 6] =
        ["UNAVAILABLE", "INTERNAL", "DEADLINE_EXCEEDED", "UNKNOWN", "CANCELLED", "ABORTED"];
    let Some(answer) = answer else { return Told::Unknown };
    if answer["data"]["deleteAccount"] == true {
        return Told::Done(Value::Null);
    }
    let op = &answer["data"]["op"];
    let code = op["code"].as_str().or(answer["errors"][0]["extensions"]["code"].as_str());
    match code {
        Some("OK") => Told::Done(op["data"].clone()),
        Some(code) if !NOBODY_KNOWS.contains(&code) => Told::Refused,
        _ => Told::Unknown,
    }
}

/// Somebody with two accounts in USD.
struct Person {
    api: Api,
    trades: String,
    saves: String,
}

impl Person {
    async fn signed_in(url: &str, email: &str) -> Self {
        let api = Api::signed_in(url, email).await;
        let opened = json!({"r": {"type": "SAVINGS", "currency": "USD", "idempotencyKey": "kills"}});
        let saves = api.graphql(OPEN, opened).await["data"]["op"]["data"]["id"].as_str().unwrap().to_owned();
        let accounts = api.graphql(ACCOUNTS, json!({})).await["data"]["op"]["accounts"].clone();
        let trades =
            accounts.as_array().unwrap().iter().find(|a| a["type"] == "INVESTMENT" && a["currency"] == "USD");
        Self { trades: trades.unwrap()["id"].as_str().unwrap().to_owned(), saves, api }
    }

    /// A read that must succeed.
    async fn read(&self, query: &str, variables: Value) -> Value {
        let answer = self.api.graphql(query, variables).await;
        assert_eq!(answer["data"]["op"]["code"], "OK", "{answer}");
        answer["data"]["op"].clone()
    }

    async fn orders(&self, all: bool) -> Vec<Value> {
        let (mut found, mut after) = (Vec::new(), Value::Null);
        loop {
            let page = self.read(ORDERS, json!({"a": after})).await;
            found.extend(page["data"].as_array().unwrap().iter().cloned());
            if !all || page["hasMore"] != true {
                return found;
            }
            after = page["endCursor"].clone();
        }
    }

    async fn accounts(&self) -> BTreeSet<String> {
        let answer = self.read(ACCOUNTS, json!({})).await;
        let accounts = answer["accounts"].as_array().unwrap().iter();
        accounts.map(|a| a["id"].as_str().unwrap().to_owned()).collect()
    }

    /// How often each amount moved the newest of an account's transactions.
    async fn amounts(&self, account: &str) -> BTreeMap<i64, usize> {
        let asked = json!({"r": {"accountId": account}});
        let answer = self.read(TRANSACTIONS, asked).await;
        let mut found = BTreeMap::new();
        for row in answer["data"].as_array().unwrap() {
            *found.entry((row["amount"].as_f64().unwrap() * 1e6).round() as i64).or_default() += 1;
        }
        found
    }
}

/// Where the traffic of one point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Before,
    /// What was killed is back.
    After,
    End,
}

/// One request after the other; where one has no answer, the next one waits until what was killed is back.
struct Line {
    person: usize,
    rng: Rng,
    open: Vec<String>,
    opened: Vec<String>,
    sent: Vec<Request>,
}

impl Line {
    fn next(&mut self, person: &Person, numbers: &AtomicU64) -> Request {
        let n = numbers.fetch_add(1, Ordering::Relaxed);
        let key = format!("kill-{n}");
        let price = 148.0 + self.rng.between(-150, 150) as f64 / 100.0;
        let request = |what, query, variables| Request { what, query, variables, told: Told::Unknown };
        // An amount by which the request is found in the books.
        let amount = |units: i64| units * 1_000_000 + n as i64;
        let money = |units: i64| amount(units) as f64 / 1e6;
        match self.rng.below(100) {
            0..15 if !self.open.is_empty() => {
                let order = self.open.swap_remove(self.rng.index(self.open.len()));
                request(What::Cancel { order: order.clone() }, CANCEL, json!({"o": order}))
            }
            15..30 if !self.open.is_empty() => {
                let order = self.open[self.rng.index(self.open.len())].clone();
                let quantity = self.rng.between(5, 9);
                let r = json!({"orderId": order, "quantity": quantity, "price": price});
                request(What::Replace { order }, REPLACE, json!({"r": r}))
            }
            30..37 => {
                let what = What::Money { amount: amount(2_000), account: person.trades.clone() };
                let r = json!({"accountId": person.trades, "amount": money(2_000), "currency": "USD", "idempotencyKey": key});
                request(what, DEPOSIT, json!({"r": r}))
            }
            37..41 => {
                let what = What::Money { amount: amount(100), account: person.trades.clone() };
                let r = json!({"accountId": person.trades, "amount": money(100), "currency": "USD", "idempotencyKey": key});
                request(what, WITHDRAW, json!({"r": r}))
            }
            41..46 => {
                let what = What::Money { amount: amount(10), account: person.saves.clone() };
                let r = json!({"fromAccountId": person.trades, "toAccountId": person.saves, "amount": money(10), "currency": "USD",
                    "idempotencyKey": key});
                request(what, TRANSFER, json!({"r": r}))
            }
            46..49 if !self.opened.is_empty() => {
                let account = self.opened.swap_remove(0);
                request(What::Close { account: account.clone() }, CLOSE, json!({"a": account}))
            }
            46..49 => {
                let r = json!({"type": "SAVINGS", "currency": "CAD", "idempotencyKey": key});
                request(What::Open, OPEN, json!({"r": r}))
            }
            _ => {
                let side = if self.rng.chance(500) { "BUY" } else { "SELL" };
                let quantity = self.rng.between(1, 4);
                let r = json!({"symbol": "NVDA", "side": side, "type": "LIMIT", "quantity": quantity, "price": price,
                    "clientOrderId": key, "accountId": person.trades});
                request(What::Place { key }, PLACE, json!({"r": r}))
            }
        }
    }

    fn learn(&mut self, request: Request) {
        if let Told::Done(data) = &request.told {
            let id = || data["id"].as_str().unwrap().to_owned();
            match &request.what {
                What::Place { .. }
                    if ["NEW", "PARTIALLY_FILLED"].contains(&data["state"].as_str().unwrap()) =>
                {
                    self.open.push(id());
                }
                What::Open => self.opened.push(id()),
                _ => {}
            }
        }
        self.sent.push(request);
    }

    async fn run(
        mut self,
        person: Arc<Person>,
        numbers: Arc<AtomicU64>,
        answered: Arc<watch::Sender<u64>>,
        mut stage: watch::Receiver<Stage>,
    ) -> Self {
        loop {
            let now = *stage.borrow_and_update();
            if now == Stage::End {
                return self;
            }
            let mut request = self.next(&person, &numbers);
            request.told = told(person.api.try_graphql(request.query, request.variables.clone()).await);
            let is_known = !matches!(request.told, Told::Unknown);
            self.learn(request);
            if is_known {
                answered.send_modify(|n| *n += 1);
            } else if stage.wait_for(|stage| *stage > now).await.is_err() {
                return self;
            }
        }
    }

    /// Sends again what has no answer and can be sent again.
    async fn ask_again(&mut self, person: &Person) {
        let sent = std::mem::take(&mut self.sent);
        for mut request in sent {
            let until = Instant::now() + WITHIN;
            let was_unknown = matches!(request.told, Told::Unknown);
            while matches!(request.told, Told::Unknown) && request.has_key() {
                request.told = told(person.api.try_graphql(request.query, request.variables.clone()).await);
                assert!(Instant::now() < until, "no answer: {request:?}");
            }
            if was_unknown {
                self.learn(request);
            } else {
                self.sent.push(request);
            }
        }
    }
}

/// What one person was told against what is there.
async fn check(person: &Person, sent: &[&Request]) {
    let mut orders = BTreeMap::new();
    for order in person.orders(false).await {
        if let Some(key) = order["clientOrderId"].as_str() {
            assert!(orders.insert(key.to_owned(), order.clone()).is_none(), "twice: {order}");
        }
    }
    let by_id: BTreeMap<&str, &Value> = orders.values().map(|o| (o["id"].as_str().unwrap(), o)).collect();
    let books = BTreeMap::from([
        (person.trades.as_str(), person.amounts(&person.trades).await),
        (person.saves.as_str(), person.amounts(&person.saves).await),
    ]);
    let accounts = person.accounts().await;
    let mut closed = BTreeSet::new();
    for request in sent {
        let number = |value: &Value| value.as_f64().unwrap();
        match (&request.what, &request.told) {
            (What::Place { key }, Told::Done(data)) => {
                let order = orders.get(key).unwrap_or_else(|| panic!("lost: {request:?}"));
                assert_eq!(order["id"], data["id"], "{request:?}");
                assert!(
                    number(&order["filledQuantity"]) >= number(&data["filledQuantity"]),
                    "{request:?} {order}"
                );
            }
            (What::Replace { order }, Told::Done(data)) => {
                if let Some(order) = by_id.get(order.as_str()) {
                    assert!(number(&order["version"]) >= number(&data["version"]), "{request:?} {order}");
                }
            }
            (What::Cancel { order }, Told::Done(_)) => {
                if let Some(order) = by_id.get(order.as_str()) {
                    assert_eq!(order["state"], "CANCELED", "{request:?}");
                }
            }
            (What::Money { amount, account }, Told::Done(_)) => {
                let found = books[account.as_str()].get(amount).copied();
                assert_eq!(found, Some(1), "{request:?}");
            }
            (What::Money { amount, account }, Told::Refused) => {
                assert_eq!(books[account.as_str()].get(amount), None, "{request:?}");
            }
            (What::Close { account }, Told::Done(_)) => {
                assert!(!accounts.contains(account), "{request:?}");
            }
            // Whether it was closed, nobody was told.
            (What::Close { account }, _) => {
                closed.insert(account.clone());
            }
            _ => {}
        }
    }
    let is_gone = |id: &str| {
        let closes = |r: &&&Request| matches!(&r.what, What::Close { account } if account == id);
        sent.iter().any(|r| closes(&r))
    };
    for request in sent {
        if let (What::Open, Told::Done(data)) = (&request.what, &request.told) {
            let id = data["id"].as_str().unwrap();
            assert!(accounts.contains(id) || is_gone(id), "lost: {request:?}");
        }
    }
}

/// What is killed.
pub enum Exchange {
    /// One process.
    Whole(Stack),
    /// One of nine.
    Nine(Cluster),
}

impl Exchange {
    fn gateway(&self) -> String {
        match self {
            Self::Whole(stack) => stack.process.address("api-gateway"),
            Self::Nine(cluster) => cluster.gateway(),
        }
    }

    fn audit(&self) {
        match self {
            Self::Whole(stack) => stack.shell("nobody").audit(),
            Self::Nine(cluster) => cluster.audit(),
        };
    }
}

/// An exchange under traffic that is killed again and again.
pub struct Killed {
    runtime: tokio::runtime::Runtime,
    exchange: Exchange,
    rng: Rng,
    people: [Arc<Person>; PEOPLE.len()],
    signed_in: Instant,
    lines: Vec<Line>,
    numbers: Arc<AtomicU64>,
    /// Who and under which key.
    placed: BTreeSet<(usize, String)>,
    unknown: usize,
    points: usize,
}

fn sign_in(runtime: &tokio::runtime::Runtime, exchange: &Exchange) -> [Arc<Person>; PEOPLE.len()] {
    let url = exchange.gateway();
    PEOPLE.map(|email| Arc::new(runtime.block_on(Person::signed_in(&url, email))))
}

impl Killed {
    /// Traffic on a stack that is there.
    pub fn on(stack: Stack) -> Self {
        Self::new(Exchange::Whole(stack))
    }

    fn new(exchange: Exchange) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let line = |i: usize| Line {
            person: i % PEOPLE.len(),
            rng: Rng::new(i as u64),
            open: Vec::new(),
            opened: Vec::new(),
            sent: Vec::new(),
        };
        Self {
            people: sign_in(&runtime, &exchange),
            signed_in: Instant::now(),
            lines: (0..PEOPLE.len() * LINES).map(line).collect(),
            rng: Rng::new(0x006b_696c_6c73),
            numbers: Arc::new(AtomicU64::new(1)),
            placed: BTreeSet::new(),
            unknown: 0,
            points: 0,
            runtime,
            exchange,
        }
    }

    /// Traffic until so many requests are answered, then the end of the whole, or of one of nine which comes back under
    /// the traffic of the others.
    fn kill_under_traffic(&mut self) {
        self.traffic(|exchange, points, stage, answered, wait| match exchange {
            Exchange::Whole(stack) => stack.process.kill(),
            Exchange::Nine(cluster) => {
                let which = points % PROCESSES;
                cluster.kill(which);
                if points.is_multiple_of(WIPED_EVERY) {
                    cluster.wipe_broker();
                }
                cluster.start(which);
                stage.send_replace(Stage::After);
                let so_far = *answered.borrow();
                wait(so_far + REQUESTS_AFTER);
            }
        });
    }

    /// Traffic on one process until so many requests are answered, then something that ends it: each line ends with the
    /// first request that has no answer, or when that is done.
    pub fn under_traffic(&mut self, then: impl FnOnce(&mut Stack)) {
        self.traffic(|exchange, _, _, _, _| match exchange {
            Exchange::Whole(stack) => then(stack),
            Exchange::Nine(_) => unreachable!("one process is under traffic"),
        });
    }

    fn traffic(
        &mut self,
        then: impl FnOnce(&mut Exchange, usize, &watch::Sender<Stage>, &watch::Sender<u64>, &dyn Fn(u64)),
    ) {
        let (answered, stage) = (Arc::new(watch::Sender::new(0)), watch::Sender::new(Stage::Before));
        let target = self.rng.between(REQUESTS.0, REQUESTS.1) as u64;
        let running: Vec<_> = self
            .lines
            .drain(..)
            .map(|line| {
                let (person, numbers) = (Arc::clone(&self.people[line.person]), Arc::clone(&self.numbers));
                self.runtime.spawn(line.run(person, numbers, Arc::clone(&answered), stage.subscribe()))
            })
            .collect();
        let wait = |target: u64| {
            let mut seen = answered.subscribe();
            let all =
                async move { tokio::time::timeout(WITHIN, seen.wait_for(|n| *n >= target)).await.is_ok() };
            assert!(self.runtime.block_on(all), "too slow: {} of {target}", *answered.borrow());
        };
        wait(target);
        then(&mut self.exchange, self.points, &stage, &answered, &wait);
        self.points += 1;
        stage.send_replace(Stage::End);
        self.lines = running.into_iter().map(|line| self.runtime.block_on(line).unwrap()).collect();
    }

    /// The whole starts again, without what the broker had.
    fn restart(&mut self) {
        if let Exchange::Whole(stack) = &mut self.exchange {
            std::fs::remove_dir_all(stack.data_dir().join("broker")).unwrap();
            stack.restart(&["--no-sim"]);
        }
        if self.signed_in.elapsed() > TOKEN_MAX {
            (self.people, self.signed_in) = (sign_in(&self.runtime, &self.exchange), Instant::now());
            return;
        }
        let url = self.exchange.gateway();
        for person in &mut self.people {
            let (trades, saves) = (person.trades.clone(), person.saves.clone());
            *person = Arc::new(Person { api: person.api.at(&url), trades, saves });
        }
    }

    pub fn check(&mut self) {
        for line in &mut self.lines {
            self.unknown += line.sent.iter().filter(|r| matches!(r.told, Told::Unknown)).count();
            self.runtime.block_on(line.ask_again(&self.people[line.person]));
        }
        for (number, person) in self.people.iter().enumerate() {
            let of = self.lines.iter().filter(|l| l.person == number);
            let sent: Vec<&Request> = of.flat_map(|l| &l.sent).collect();
            self.runtime.block_on(check(person, &sent));
        }
        self.exchange.audit();
        for line in &mut self.lines {
            for request in line.sent.drain(..) {
                if let (What::Place { key }, Told::Done(_)) = (request.what, request.told) {
                    self.placed.insert((line.person, key));
                }
            }
        }
    }

    /// The keys of the orders of somebody that are there.
    pub fn keys_of(&self, person: usize) -> BTreeSet<String> {
        let orders = self.runtime.block_on(self.people[person].orders(true));
        orders.iter().filter_map(|o| o["clientOrderId"].as_str().map(ToOwned::to_owned)).collect()
    }

    /// The keys that were acknowledged so far.
    pub fn placed(&self) -> BTreeSet<(usize, String)> {
        self.placed.clone()
    }

    /// Whether an order is taken just now.
    pub fn takes_an_order(&mut self) -> Result<(), String> {
        let key = format!("try-{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let person = &self.people[0];
        let r = json!({"symbol": "NVDA", "side": "BUY", "type": "LIMIT", "quantity": 1, "price": 120.0,
            "clientOrderId": key, "accountId": person.trades});
        match self.runtime.block_on(person.api.try_graphql(PLACE, json!({"r": r}))) {
            Some(answer) if answer["data"]["op"]["code"] == "OK" => Ok(()),
            other => Err(other.map_or_else(|| "no answer".to_owned(), |answer| answer.to_string())),
        }
    }

    /// The stack that is under traffic.
    pub fn stack(&mut self) -> &mut Stack {
        match &mut self.exchange {
            Exchange::Whole(stack) => stack,
            Exchange::Nine(_) => unreachable!("one process is under traffic"),
        }
    }

    /// The same stack started anew.
    pub fn at(&mut self, stack: Stack) {
        self.exchange = Exchange::Whole(stack);
        (self.people, self.signed_in) = (sign_in(&self.runtime, &self.exchange), Instant::now());
    }

    /// Every order of every point is there once.
    pub fn check_all(&self) {
        for (number, person) in self.people.iter().enumerate() {
            let orders = self.runtime.block_on(person.orders(true));
            let keys = orders.iter().filter_map(|o| o["clientOrderId"].as_str());
            let mut keys: Vec<String> = keys.map(ToOwned::to_owned).collect();
            let all = keys.len();
            keys.sort();
            keys.dedup();
            assert_eq!(keys.len(), all, "an order is there twice");
            for (_, key) in self.placed.iter().filter(|(n, _)| *n == number) {
                assert!(keys.binary_search(key).is_ok(), "lost: {key}");
            }
        }
    }
}

/// Kills at so many points; answers what was killed.
fn kill(points: usize, exchange: Exchange) -> Exchange {
    let mut killed = Killed::new(exchange);
    for _ in 0..points {
        killed.kill_under_traffic();
        killed.restart();
        killed.check();
    }
    killed.check_all();
    let (requests, orders) = (killed.numbers.load(Ordering::Relaxed), killed.placed.len());
    println!("{points} kills: {requests} requests, {orders} orders, {} without an answer", killed.unknown);
    killed.exchange
}

fn points(default: usize) -> usize {
    std::env::var("FAFNIR_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(default)
}

/// Journal, snapshots and facts agree.
fn replay(data_dir: &Path) {
    Answer::of(binary().args(["replay", "--json"]).arg(data_dir).output().unwrap()).json();
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_happens_twice_wherever_the_process_dies() {
    let whole = Exchange::Whole(Stack::configured(CONFIG, &["--no-sim"]));
    let Exchange::Whole(mut stack) = kill(points(20), whole) else { unreachable!() };
    assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
    replay(&stack.data_dir());
}

#[test]
fn nothing_acknowledged_is_lost_and_nothing_happens_twice_whichever_of_nine_processes_dies() {
    let Some(external) = External::named() else { return };
    let settings = [
        ("FAFNIR_GATEWAY_ORDERS_PER_SECOND", "10000"),
        ("FAFNIR_GATEWAY_ORDERS_BURST", "10000"),
        ("FAFNIR_ENGINE_SNAPSHOT_EVERY_COMMANDS", "300"),
    ];
    let nine = Exchange::Nine(Cluster::up_with_market(external, &settings));
    let Exchange::Nine(mut cluster) = kill(points(PROCESSES), nine) else { unreachable!() };
    cluster.stop(SIMULATOR);
    cluster.audit();
    cluster.stop(ENGINE);
    replay(&cluster.data_dir());
}
