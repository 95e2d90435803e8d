//! Other people's libraries ride through what happens to a connection: npm's graphql-ws and PyPI's gql follow orders and
//! trades while tokens expire and processes are killed, and see every update once.
//!
//! FAFNIR_TEST_NODE_MODULES holds `node_modules` with graphql-ws, graphql and ws; FAFNIR_TEST_PYTHON has gql[websockets].

use crate::{
    cluster::{Cluster, External, GATEWAY, SERVICES},
    harness::{Shell, Stack, WITHIN},
};
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    io::{self, BufRead as _, BufReader},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{Arc, mpsc},
    time::Instant,
};

const EMAIL: &str = "user@test.com";
const PASSWORD: &str = "Password123";
/// What is traded all the time.
const SYMBOL: &str = "AAPL";
/// Orders between two things that happen.
const ORDERS: usize = 4;

/// One address for what is started anew elsewhere: it carries bytes to wherever that is now.
struct Address {
    here: SocketAddr,
    there: Arc<Mutex<String>>,
}

impl Address {
    fn of(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let here = listener.local_addr().unwrap();
        let there = Arc::new(Mutex::new(String::new()));
        let this = Self { here, there: Arc::clone(&there) };
        this.is_now(url);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let there = there.lock().clone();
                // Nobody is there: the client sees it go.
                let Ok(server) = TcpStream::connect(there) else { continue };
                for (from, to) in [(&client, &server), (&server, &client)] {
                    let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    std::thread::spawn(move || {
                        // Either end may go at any time.
                        drop(io::copy(&mut from, &mut to));
                        drop(to.shutdown(Shutdown::Both));
                        drop(from.shutdown(Shutdown::Both));
                    });
                }
            }
        });
        this
    }

    fn is_now(&self, url: &str) {
        *self.there.lock() = url.strip_prefix("http://").unwrap().to_owned();
    }

    fn url(&self) -> String {
        format!("http://{}", self.here)
    }
}

/// A library at work, and what it has said.
struct Rider {
    name: &'static str,
    child: Child,
    lines: mpsc::Receiver<String>,
    connections: usize,
    orders: Vec<u64>,
    ids: BTreeSet<String>,
    trades: Vec<u64>,
    /// As long as it is open, the rider rides.
    _input: ChildStdin,
}

impl Rider {
    /// graphql-ws and gql, those that are here.
    fn all(base: &str) -> Vec<Self> {
        let riders = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/riders");
        let is_set = |name| std::env::var(name).ok().filter(|v: &String| !v.is_empty());
        let mut all = Vec::new();
        match is_set("FAFNIR_TEST_NODE_MODULES") {
            Some(modules) if Path::new(&modules).join("node_modules/graphql-ws").is_dir() => {
                all.push(Self::start("graphql-ws", Command::new("node").arg(riders.join("ride.cjs")), base));
            }
            _ => println!("skipped: FAFNIR_TEST_NODE_MODULES has no graphql-ws"),
        }
        match is_set("FAFNIR_TEST_PYTHON") {
            Some(python) if has_gql(&python) => {
                all.push(Self::start("gql", Command::new(python).arg(riders.join("ride.py")), base));
            }
            _ => println!("skipped: FAFNIR_TEST_PYTHON has no gql"),
        }
        all
    }

    fn start(name: &'static str, command: &mut Command, base: &str) -> Self {
        command.args([base, EMAIL, PASSWORD, SYMBOL]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            stdout.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let input = child.stdin.take().unwrap();
        let (orders, ids, trades) = (Vec::new(), BTreeSet::new(), Vec::new());
        Self { name, child, lines, connections: 0, orders, ids, trades, _input: input }
    }

    /// Reads on until it is so.
    fn until(&mut self, what: &str, so: impl Fn(&Self) -> bool) {
        let until = Instant::now() + WITHIN;
        while !so(self) {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!(
                    "{}: {what} did not come; {} connections, orders {:?}",
                    self.name, self.connections, self.orders
                );
            };
            self.take(&line);
        }
    }

    fn take(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words[..] {
            ["connected"] => self.connections += 1,
            ["order", sequence, "false", id] => {
                self.orders.push(sequence.parse().unwrap());
                self.ids.insert(id.to_owned());
            }
            ["trade", number, "false", _] => self.trades.push(number.parse().unwrap()),
            _ => panic!("{}: {line}", self.name),
        }
    }

    /// Each once, in order, without a gap.
    fn check(&self) {
        for (what, seen) in [("orders", &self.orders), ("trades", &self.trades)] {
            let gap = seen.windows(2).find(|pair| pair[1] != pair[0] + 1);
            assert_eq!((seen.first(), gap), (Some(&1), None), "{}: {what}", self.name);
        }
    }
}

impl Drop for Rider {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn has_gql(python: &str) -> bool {
    let output = Command::new(python).args(["-c", "import gql, websockets"]).output();
    output.is_ok_and(|output| output.status.success())
}

/// Places orders, and waits until every rider has seen them and one trade more.
fn trade(shell: &Shell, riders: &mut [Rider]) {
    let before: Vec<_> = riders.iter().map(|r| r.trades.last().copied().unwrap_or(0)).collect();
    let ids: Vec<_> = (0..ORDERS)
        .map(|_| {
            let order = shell.json(&["order", "place", "buy", SYMBOL, "1", "--price", "215.00"]);
            let id = order["id"].as_str().unwrap().to_owned();
            shell.json(&["order", "cancel", &id]);
            id
        })
        .collect();
    for (rider, before) in riders.iter_mut().zip(before) {
        rider.until("the order", |r| ids.iter().all(|id| r.ids.contains(id)));
        rider.until("a trade", |r| r.trades.last().is_some_and(|last| *last > before));
        rider.check();
    }
}

/// How often each has connected.
fn connections(riders: &[Rider]) -> Vec<usize> {
    riders.iter().map(|r| r.connections).collect()
}

/// Until each has connected once more.
fn connected_again(riders: &mut [Rider], before: &[usize]) {
    for (rider, before) in riders.iter_mut().zip(before) {
        rider.until("another connection", |r| r.connections > *before);
    }
}

#[test]
fn libraries_ride_through_expired_tokens_and_a_killed_platform() {
    // With the leeway of the clock a token lives for seven seconds.
    let flags = ["--sim-rate", "10"];
    let mut stack = Stack::configured("[auth]\nbearer_ttl_s = 2\n", &flags);
    let address = Address::of(&stack.process.address("api-gateway"));
    let mut riders = Rider::all(&address.url());
    if riders.is_empty() {
        return;
    }
    trade(&stack.signed_in(EMAIL), &mut riders);
    for _ in 0..2 {
        let before = connections(&riders);
        connected_again(&mut riders, &before);
        trade(&stack.signed_in(EMAIL), &mut riders);
    }
    for in_order in [false, true] {
        let before = connections(&riders);
        if in_order {
            assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
        } else {
            stack.process.kill();
        }
        stack.restart(&flags);
        address.is_now(&stack.process.address("api-gateway"));
        connected_again(&mut riders, &before);
        trade(&stack.signed_in(EMAIL), &mut riders);
    }
}

#[test]
fn libraries_ride_through_a_killed_gateway_and_nine_killed_processes() {
    let Some(external) = External::named() else { return };
    let mut cluster = Cluster::up_with_market(external, &[("FAFNIR_SIM_RATE", "10")]);
    let mut riders = Rider::all(&cluster.gateway());
    if riders.is_empty() {
        return;
    }
    trade(&cluster.signed_in(EMAIL), &mut riders);
    for stop in [Cluster::kill, Cluster::stop] {
        let before = connections(&riders);
        stop(&mut cluster, GATEWAY);
        cluster.start(GATEWAY);
        connected_again(&mut riders, &before);
        trade(&cluster.signed_in(EMAIL), &mut riders);
    }
    let before = connections(&riders);
    for i in 0..SERVICES.len() {
        cluster.kill(i);
    }
    cluster.start_services();
    connected_again(&mut riders, &before);
    trade(&cluster.signed_in(EMAIL), &mut riders);
}
