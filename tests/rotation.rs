//! Each secret takes the place of another while the platform is used: nobody is signed out, no call is refused.

use crate::{
    harness::{Answer, Shell, Stack, WITHIN},
    live::Person,
    tls::{Nine, post},
};
use fafnir_proto::{
    client::connection,
    connection::Connection,
    v1::{CancelOrderRequest, Empty, OrderType, PlaceOrderRequest, Side},
};
use fafnir_services::platform::tls::Client;
use serde_json::Value;
use std::{
    fs,
    io::{Seek as _, Write as _},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tokio::{runtime::Runtime, sync::watch};
use tonic::Status;

/// Time between two questions, and between two orders: below what one user may.
const QUESTIONS: Duration = Duration::from_millis(10);
const ORDERS: Duration = Duration::from_millis(150);
/// Answers that must come after each rotation.
const MORE: u64 = 100;

/// A write to the disk that takes longer says that the machine stands still: half of what a reader waits for a position.
const STALL: Duration = Duration::from_millis(500);
/// What a service takes at most to come forward again after that.
const AFTERMATH: Duration = Duration::from_secs(3);
const PROBES: Duration = Duration::from_millis(20);

/// A time and what it was about.
struct Span {
    from: Instant,
    to: Instant,
    what: String,
}

/// What somebody does all the time, and every answer that was none.
pub struct Load {
    runtime: Runtime,
    stop: Arc<AtomicBool>,
    answered: watch::Receiver<u64>,
    tasks: Vec<tokio::task::JoinHandle<Vec<Span>>>,
    /// When the machine stood still: a platform whose writes wait for seconds refuses calls whatever is rotated.
    stalls: std::thread::JoinHandle<Vec<Span>>,
    /// The probe ends with it.
    probing: mpsc::Sender<()>,
}

/// Writes to the disk that the stacks of tests are on until the other end of `probing` is gone, and tells which writes took
/// long.
fn probe(probing: &mpsc::Receiver<()>) -> Vec<Span> {
    let (mut file, mut stalls) = (tempfile::tempfile().unwrap(), Vec::new());
    loop {
        let from = Instant::now();
        if probing.recv_timeout(PROBES) != Err(mpsc::RecvTimeoutError::Timeout) {
            return stalls;
        }
        file.rewind().and_then(|()| file.write_all(b"probe")).and_then(|()| file.sync_data()).unwrap();
        if from.elapsed() > STALL {
            stalls.push(Span { from, to: Instant::now(), what: format!("{:?}", from.elapsed()) });
        }
    }
}

async fn look(person: &mut Person) -> Result<(), Status> {
    let request = person.ask(Empty {});
    person.terminal.positions(request).await.map(drop)
}

async fn trade(person: &mut Person) -> Result<(), Status> {
    let order = PlaceOrderRequest {
        symbol: "NVDA".into(),
        side: Side::Buy.into(),
        r#type: OrderType::Limit.into(),
        quantity_e4: 10_000,
        price_e4: 1_200_000,
        ..PlaceOrderRequest::default()
    };
    let request = person.ask(order);
    let placed = person.terminal.place(request).await?.into_inner().order.unwrap_or_default();
    let request = person.ask(CancelOrderRequest { order_id: placed.id, ..CancelOrderRequest::default() });
    person.terminal.cancel(request).await.map(drop)
}

impl Load {
    /// Over connections to a gateway.
    pub fn start(connected: impl Fn() -> Connection) -> Self {
        let runtime = Runtime::new().unwrap();
        let person = {
            let _inside = runtime.enter();
            runtime.block_on(Person::signed_in_over(connected(), "user@test.com"))
        };
        let stop = Arc::new(AtomicBool::new(false));
        let (count, answered) = watch::channel(0);
        let mut tasks = Vec::new();
        for (every, trades) in [(QUESTIONS, false), (ORDERS, true)] {
            let (mut person, stop, count) = (person.clone(), Arc::clone(&stop), count.clone());
            tasks.push(runtime.spawn(async move {
                let (mut pace, mut refused) = (tokio::time::interval(every), Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    pace.tick().await;
                    let from = Instant::now();
                    let done = if trades { trade(&mut person).await } else { look(&mut person).await };
                    match done {
                        Ok(()) => count.send_modify(|count| *count += 1),
                        Err(status) => {
                            let what = format!("trades: {trades}: {status}");
                            refused.push(Span { from, to: Instant::now(), what });
                        }
                    }
                }
                refused
            }));
        }
        let (probing, until) = mpsc::channel();
        let stalls = std::thread::spawn(move || probe(&until));
        Self { runtime, stop, answered, tasks, stalls, probing }
    }

    /// Waits for more answers.
    pub fn goes_on(&self) {
        let mut answered = self.answered.clone();
        let enough = *answered.borrow() + MORE;
        let come = self.runtime.block_on(async {
            let come = answered.wait_for(|count| *count >= enough);
            tokio::time::timeout(WITHIN, come).await.is_ok_and(|count| count.is_ok())
        });
        assert!(come, "no answers any more");
    }

    /// Ends it: every answer that was none while the machine went on.
    pub fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.probing);
        let stalls = self.stalls.join().unwrap();
        self.runtime.block_on(async {
            let mut refused = Vec::new();
            for task in self.tasks {
                refused.extend(task.await.unwrap());
            }
            refused.retain(|call| {
                let stall = stalls.iter().find(|s| call.from <= s.to + AFTERMATH && s.from <= call.to);
                if let Some(stall) = stall {
                    println!("the machine stood still for {}: {}", stall.what, call.what);
                }
                stall.is_none()
            });
            refused.into_iter().map(|call| call.what).collect()
        })
    }
}

fn rotate(mut command: Command, more: &[&str]) {
    command.args(more).arg("--json");
    let said = Answer::of(command.output().unwrap()).json();
    assert!(said["rotated"] == true || said["ended"] == true, "{said}");
}

/// What the gateway says to a cookie and its CSRF token: the status line.
fn by_cookie(shell: &Shell, cookies: &str) -> String {
    let csrf = cookies.split("csrf_token=").nth(1).unwrap().split(';').next().unwrap();
    let body =
        r#"{"query":"mutation { cancelOrder(orderId: \"7d0bd2a4-3f8f-4d0c-9a26-5f6cd1c3d001\") { code } }"}"#;
    let headers = format!("Cookie: {cookies}\r\nX-CSRF-Token: {csrf}\r\n");
    let answer = post(&Client::default(), &shell.url, "/graphql", &headers, body).unwrap();
    answer.lines().next().unwrap().to_owned()
}

/// A browser's cookies.
fn cookies(shell: &Shell) -> String {
    let login = r#"{"email":"user@test.com","password":"Password123"}"#;
    let answer = post(&Client::default(), &shell.url, "/auth/login", "", login).unwrap();
    let set = answer.lines().filter_map(|line| line.split_once(": "));
    let set = set.filter(|(name, _)| name.eq_ignore_ascii_case("set-cookie"));
    set.map(|(_, cookie)| cookie.split(';').next().unwrap().to_owned()).collect::<Vec<_>>().join("; ")
}

/// Whether a session's credential opens the embedded broker.
fn watches(url: &str) -> bool {
    let (login, host) = url.split_once("://").unwrap().1.split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    Runtime::new().unwrap().block_on(async {
        tokio::time::timeout(WITHIN, options.connect(host)).await.expect("in time").is_ok()
    })
}

fn market_url(shell: &Shell) -> String {
    let file = shell.home.join(".local/state/fafnir/session.json");
    let kept: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    kept[&shell.url]["market_data_url"].as_str().unwrap().to_owned()
}

#[test]
fn every_secret_is_rotated_under_load_in_one_process() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.signed_in("user@test.com");
    let (cookies_before, market_before) = (cookies(&shell), market_url(&shell));
    assert_eq!(by_cookie(&shell, &cookies_before), "HTTP/1.1 200 OK");
    let load = Load::start(|| connection(&shell.url).unwrap());
    let secrets = ["service-token", "signing-key", "csrf-key", "nats-services", "nats-sessions"];
    let read = |name: &str| fs::read(stack.data_dir().join("secrets").join(name)).unwrap();
    let files = ["service_token", "jwt_ed25519.pk8", "csrf_key", "nats_services", "nats_sessions"];
    for (secret, file) in secrets.iter().zip(files) {
        let before = read(file);
        rotate(shell.command(&["secrets", "rotate", secret, "--overlap-s", "3"]), &[]);
        assert!(read(file) != before && read(&format!("{file}.also")) == before, "{secret}");
        load.goes_on();
    }
    // What was handed out before is worth what it was, and so is what is handed out now.
    assert_eq!(by_cookie(&shell, &cookies_before), "HTTP/1.1 200 OK");
    assert_eq!(by_cookie(&shell, &cookies(&shell)), "HTTP/1.1 200 OK");
    assert!(watches(&market_before));
    let again = stack.shell("again");
    again.sign_in("user@test.com");
    assert!(market_url(&again) != market_before && watches(&market_url(&again)));
    assert_eq!(shell.run(&["order", "list"]).code, 0, "nobody was signed out");
    assert_eq!(shell.run(&["broker", "streams"]).code, 0, "the new password of the services");
    assert_eq!(load.end(), Vec::<String>::new());

    // The end of the former ones.
    for secret in ["csrf-key", "nats-sessions", "service-token", "nats-services"] {
        rotate(shell.command(&["secrets", "rotate", secret]), &["--end"]);
    }
    let until = Instant::now() + WITHIN;
    while by_cookie(&shell, &cookies_before) == "HTTP/1.1 200 OK" || watches(&market_before) {
        assert!(Instant::now() < until, "the former ones are still accepted");
    }
    assert_eq!(shell.run(&["order", "list"]).code, 0);
}

#[test]
fn service_token_and_signing_key_are_rotated_under_load_in_nine_processes() {
    let nine = Nine::up();
    let shell = nine.shell("user@test.com");
    let load = Load::start(|| nine.connection());
    for secret in ["service-token", "signing-key", "csrf-key", "service-token"] {
        rotate(nine.command("platform", &["secrets", "rotate", secret, "--overlap-s", "3"]), &[]);
        load.goes_on();
    }
    assert_eq!(shell.run(&["order", "list"]).code, 0, "nobody was signed out");
    assert_eq!(nine.shell("admin@test.com").run(&["portfolio"]).code, 0, "and everybody can sign in");
    assert_eq!(load.end(), Vec::<String>::new());
    let refused =
        Answer::of(nine.command("platform", &["secrets", "rotate", "nats-services"]).output().unwrap());
    assert!(refused.code == 5 && refused.stderr.contains("nats-server's configuration"), "{refused:?}");
}
