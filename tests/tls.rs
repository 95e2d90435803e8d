//! TLS end to end with a private authority: one process and nine of them; who is refused, and by what words.

use crate::{
    harness::{Answer, Process, Shell, Stack, WITHIN, binary, port_to_name},
    live::Person,
    rotation::Load,
};
use fafnir_proto::{
    client::{Caller, Clients},
    connection::Connection,
    v1::{Empty, PermissionsRequest, PositionRequest, SymbolRequest},
};
use fafnir_services::platform::tls::{
    self, Client, Files, Stream, Trust,
    make::{self, Authority, Pair},
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::Instant,
};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Runtime,
};

const HERE: &str = "127.0.0.1";

/// A directory with what `fafnir secrets tls` makes.
struct House {
    dir: TempDir,
}

impl House {
    fn new() -> Self {
        let house = Self { dir: tempfile::tempdir().unwrap() };
        let made = house.make(&[]);
        assert_eq!(made["authority"], "made");
        house
    }
    fn make(&self, more: &[&str]) -> serde_json::Value {
        let mut command = binary();
        command.args(["secrets", "tls", "--json"]).arg(self.tls()).args(more).current_dir(self.dir.path());
        Answer::of(command.output().unwrap()).json()
    }
    fn tls(&self) -> PathBuf {
        self.dir.path().join("tls")
    }
    fn authority(&self) -> PathBuf {
        self.tls().join("ca.crt")
    }
    fn files(&self, name: &str) -> Files {
        let dir = self.tls().join(name);
        Files { certificate: dir.join("tls.crt"), key: dir.join("tls.key") }
    }
    fn trust(&self) -> Trust {
        Trust::Authority(self.authority())
    }
    /// A client that shows the certificate of a component.
    fn client(&self, shows: Option<&str>) -> Client {
        Client::open(self.trust(), shows.map(|name| self.files(name)).as_ref()).unwrap()
    }
    fn config(&self) -> String {
        format!("[tls]\ndir = {:?}\n", self.tls().display().to_string())
    }
    /// Puts a certificate of this house's authority in a component's place.
    fn put(&self, name: &str, from: OffsetDateTime, days: u32) {
        let read = |name: &str| fs::read_to_string(self.tls().join(name)).unwrap();
        let authority = Authority::read(&Pair { certificate: read("ca.crt"), key: read("ca.key") }).unwrap();
        let pair = authority.sign(name, &[HERE.into()], from, days).unwrap();
        fs::write(self.files(name).key, pair.key).unwrap();
        fs::write(self.files(name).certificate, pair.certificate).unwrap();
    }
}

fn port_of(url: &str) -> u16 {
    url.trim_end_matches('/').rsplit(':').next().unwrap().parse().unwrap()
}

/// Status line, headers and body of one HTTP/1.1 exchange.
fn exchange(client: &Client, url: &str, request: &str) -> Result<String, String> {
    Runtime::new().unwrap().block_on(async {
        let asked = async {
            let mut stream = client.connect(HERE, port_of(url), url.starts_with("https://")).await?;
            stream.write_all(request.as_bytes()).await?;
            let mut bytes = Vec::new();
            // A WebSocket goes on: its head is enough.
            while !(request.contains("Upgrade") && bytes.windows(4).any(|w| w == b"\r\n\r\n")) {
                if stream.read_buf(&mut bytes).await? == 0 {
                    break;
                }
            }
            std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        let asked = tokio::time::timeout(WITHIN, asked).await.expect("in time");
        asked.map_err(|e| tls::sentence(&e).unwrap_or_else(|| e.to_string()))
    })
}

fn get(client: &Client, url: &str, path: &str) -> Result<String, String> {
    exchange(client, url, &format!("GET {path} HTTP/1.1\r\nHost: {HERE}\r\nConnection: close\r\n\r\n"))
}

pub fn post(client: &Client, url: &str, path: &str, headers: &str, body: &str) -> Result<String, String> {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {HERE}\r\nConnection: close\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n{headers}\r\n{body}"
    );
    exchange(client, url, &head)
}

/// When the certificate that a door shows ends.
fn shown(client: &Client, url: &str) -> u64 {
    Runtime::new().unwrap().block_on(async {
        let stream = client.connect(HERE, port_of(url), true).await.unwrap();
        let Stream::Secured(stream) = stream else { panic!("in the clear") };
        tls::ends_at(&stream.get_ref().1.peer_certificates().unwrap()[0]).unwrap()
    })
}

fn refusal(shell: &Shell) -> String {
    let answer =
        shell.with_input(&["login", "--email", "user@test.com", "--password-stdin"], "Password123\n");
    assert_ne!(answer.code, 0, "{answer:?}");
    answer.stderr
}

#[test]
fn one_process_over_tls_and_what_its_clients_are_told() {
    let house = House::new();
    let stack = Stack::configured(&house.config(), &["--no-sim"]);
    let url = stack.process.address("api-gateway");
    assert!(url.starts_with("https://"), "{url}");

    // The command line, which finds the authority with the running stack, or is told.
    let mut buyer = stack.signed_in("user@test.com");
    buyer.authority = Some(house.authority());
    let order = buyer.json(&["order", "place", "buy", "NVDA", "1", "--price", "120.00"]);
    assert_eq!(order["state"], "NEW", "{order}");
    let status = buyer.run(&["status"]);
    assert_eq!(status.code, 0, "{status:?}");

    // Sign-in, GraphQL and WebSocket over HTTP/1.1.
    let client = house.client(None);
    let login = r#"{"email":"user@test.com","password":"Password123"}"#;
    let signed_in =
        post(&client, &url, "/auth/login", "Accept: application/vnd.fafnir.token+json\r\n", login).unwrap();
    let token = signed_in.split("\"accessToken\":\"").nth(1).and_then(|t| t.split('"').next()).unwrap();
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let answer = post(&client, &url, "/graphql", &bearer, r#"{"query":"{ __typename }"}"#);
    assert!(answer.as_ref().is_ok_and(|a| a.starts_with("HTTP/1.1 200")), "{answer:?}");
    let by_cookie = post(&client, &url, "/auth/login", "", login).unwrap().to_lowercase();
    assert!(by_cookie.contains("set-cookie: auth_token=") && by_cookie.contains("; secure"), "{by_cookie}");
    let upgrade = "GET /graphql/ws HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                   Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n";
    assert!(exchange(&client, &url, upgrade).unwrap().starts_with("HTTP/1.1 101"));

    // The doors for operations.
    let run: serde_json::Value =
        serde_json::from_slice(&fs::read(stack.data_dir().join("run.json")).unwrap()).unwrap();
    let door = run["operations"]["order-service"].as_str().unwrap();
    assert!(get(&client, door, "/readyz").unwrap().starts_with("HTTP/1.1 200"));

    // In the clear: a sentence at each, over both versions of HTTP.
    for secured in [url.as_str(), door] {
        let plain = secured.replace("https://", "http://");
        let said = get(&client, &plain, "/").unwrap();
        assert!(
            said.starts_with("HTTP/1.1 400") && said.contains("this door speaks TLS: use https://"),
            "{said}"
        );
    }
    let plain = Shell { url: url.replace("https://", "http://"), ..buyer.clone() };
    let said = refusal(&plain);
    assert!(said.contains("this door speaks TLS: use https://"), "{said}");

    // Nobody believes it unasked, nor another house's authority.
    let stranger = Shell { data_dir: stack.dir.path().join("elsewhere"), authority: None, ..buyer.clone() };
    let said = refusal(&stranger);
    assert!(said.contains("signed by no authority") || said.contains("no certificate authorities"), "{said}");
    let foreign = House::new();
    let said = refusal(&Shell { authority: Some(foreign.authority()), ..stranger.clone() });
    assert!(said.contains("signed by no authority that is believed here"), "{said}");
    let missing = Shell { authority: Some("/not/there.pem".into()), ..stranger };
    assert!(refusal(&missing).contains("/not/there.pem"));

    market_data(&house, &buyer, &stack);
}

/// Market data over TLS, as a terminal takes it.
fn market_data(house: &House, buyer: &Shell, stack: &Stack) {
    let kept: serde_json::Value =
        serde_json::from_slice(&fs::read(buyer.home.join(".local/state/fafnir/session.json")).unwrap())
            .unwrap();
    let address = kept[&stack.process.address("api-gateway")]["market_data_url"].as_str().unwrap().to_owned();
    assert!(address.starts_with("tls://"), "{address}");
    let (login, host) = address.trim_start_matches("tls://").rsplit_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let connect = |authority: PathBuf| {
        let options =
            async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
                .add_root_certificates(authority);
        let url = format!("tls://{host}");
        async move { options.connect(url).await.map(drop).map_err(|e| tls::sentence(&e).unwrap_or_default()) }
    };
    let runtime = Runtime::new().unwrap();
    runtime.block_on(connect(house.authority())).unwrap();
    let said = runtime.block_on(connect(House::new().authority())).unwrap_err();
    assert!(said.contains("signed by no authority"), "{said}");
}

/// One connection after the other, before it happens, meanwhile and afterwards; none may fail.
fn while_clients_connect(client: &Client, url: &str, it_happens: impl FnOnce()) {
    const EACH: usize = 20;
    let (is_over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let load = scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                get(client, url, "/healthz").unwrap();
                answered.fetch_add(1, Ordering::Relaxed);
            }
        });
        let more = || {
            let enough = answered.load(Ordering::Relaxed) + EACH;
            while answered.load(Ordering::Relaxed) < enough && !load.is_finished() {
                std::thread::yield_now();
            }
        };
        more();
        it_happens();
        more();
        is_over.store(true, Ordering::Relaxed);
        load.join().expect("every connection is secured");
    });
}

#[test]
fn certificates_are_replaced_without_a_restart() {
    let house = House::new();
    let mut stack = Stack::configured(&house.config(), &["--no-sim"]);
    let url = stack.process.address("api-gateway");
    let client = house.client(None);
    let first = shown(&client, &url);
    while_clients_connect(&client, &url, || {
        for days in ["90", "60", "30"] {
            assert_eq!(house.make(&["--days", days])["authority"], "kept");
        }
    });
    let second = shown(&client, &url);
    assert!(second + 50 * 86_400 < first, "{second} {first}");

    fs::write(house.files("api-gateway").certificate, "half a certifica").unwrap();
    assert_eq!(shown(&client, &url), second, "what cannot be used is not used");
    assert!(stack.process.log().contains("replaced files cannot be used; the earlier ones stay"));

    // One that has ended is shown, since that is what was put there; nobody believes it.
    house.put("api-gateway", OffsetDateTime::now_utc() - Duration::days(4), 2);
    let said = get(&client, &url, "/healthz").unwrap_err();
    assert!(said.contains("its certificate ended on "), "{said}");
    house.put("api-gateway", OffsetDateTime::now_utc(), 2);
    assert!(get(&client, &url, "/healthz").is_ok());
    assert_eq!(stack.process.interrupt(), Some(0));

    // At a start there is nothing that could stay.
    fs::write(house.files("order-service").key, "").unwrap();
    let mut command = binary();
    command.args(["up", "--no-sim", "--ports", "auto", "--data-dir"]).arg(stack.data_dir());
    let said = Answer::of(command.current_dir(stack.dir.path()).output().unwrap());
    assert_eq!(said.code, 2, "{said:?}");
    assert!(said.stderr.contains("order-service/tls.key: holds no private key"), "{said:?}");
}

/// Subcommand, key of the configuration, and port of each service.
const SERVICES: [(&str, &str); 8] = [
    ("auth-service", "AUTH"),
    ("security-service", "SECURITY"),
    ("user-service", "USER"),
    ("stock-service", "STOCK"),
    ("order-service", "ORDER"),
    ("portfolio-service", "PORTFOLIO"),
    ("trade-engine", "ENGINE"),
    ("gateway", "GATEWAY"),
];

/// Nine processes on one data directory, each with its own certificate and no other.
pub struct Nine {
    house: House,
    environment: BTreeMap<String, String>,
    ports: BTreeMap<&'static str, u16>,
    /// As long as this lives.
    processes: Vec<Process>,
}

/// Postgres, nats-server and Redis that speak TLS, and who signed their certificates.
struct Servers {
    postgres: String,
    nats: String,
    redis: String,
    authority: String,
}

impl Servers {
    /// `None`, and a word, where the tests name none.
    fn named() -> Option<Self> {
        let get =
            |name: &str| std::env::var(format!("FAFNIR_TEST_TLS_{name}")).ok().filter(|v| !v.is_empty());
        let all = (get("POSTGRES_URL"), get("NATS_URL"), get("REDIS_URL"), get("AUTHORITY"));
        if let (Some(postgres), Some(nats), Some(redis), Some(authority)) = all {
            return Some(Self { postgres, nats, redis, authority });
        }
        let required = std::env::var("FAFNIR_TEST_REQUIRE_EXTERNAL").is_ok_and(|v| v == "1");
        assert!(!required, "FAFNIR_TEST_TLS_{{POSTGRES_URL,NATS_URL,REDIS_URL,AUTHORITY}} must be set");
        println!("skipped: FAFNIR_TEST_TLS_* name no servers");
        None
    }

    /// Streams of another stack are not this one's.
    fn delete_streams(&self) {
        Runtime::new().unwrap().block_on(async {
            let options =
                async_nats::ConnectOptions::new().add_root_certificates(self.authority.clone().into());
            let jetstream = async_nats::jetstream::new(options.connect(&self.nats).await.unwrap());
            for name in ["users", "facts", "instruments"] {
                // One that is not there is as good as deleted.
                drop(jetstream.delete_stream(name).await);
            }
        });
    }

    fn drop_databases(&self, prefix: &str) {
        for name in ["auth", "security", "user", "stock", "order", "portfolio", "manifest"] {
            let sql = format!("DROP DATABASE IF EXISTS \"{prefix}{name}_db\" WITH (FORCE)");
            let mut psql = Command::new("psql");
            psql.args([&format!("{}postgres?sslmode=require", self.postgres), "-qc", &sql]);
            drop(psql.output());
        }
    }
}

impl Nine {
    pub fn up() -> Self {
        Self::up_on(None)
    }

    fn up_on(servers: Option<&Servers>) -> Self {
        let house = House::new();
        let ports: BTreeMap<_, _> = SERVICES.iter().map(|(name, _)| (*name, port_to_name())).collect();
        let mut environment = BTreeMap::from([
            ("FAFNIR_DATA_DIR".to_owned(), house.dir.path().join("data").display().to_string()),
            ("FAFNIR_PORTS_OPERATIONS_OFFSET".to_owned(), "0".to_owned()),
            ("HOME".to_owned(), house.dir.path().display().to_string()),
        ]);
        for (name, key) in SERVICES {
            environment.insert(format!("FAFNIR_ADDRESSES_{key}"), format!("https://{HERE}:{}", ports[name]));
        }
        let mut nine = Self { house, environment, ports, processes: Vec::new() };
        let broker = if let Some(servers) = servers {
            let mut set =
                |name: &str, value: &str| nine.environment.insert(name.to_owned(), value.to_owned());
            set("FAFNIR_NATS_URL", &servers.nats);
            set("FAFNIR_REDIS_URL", &servers.redis);
            set("FAFNIR_DATABASE_URL", &format!("{}?sslmode=verify-full", servers.postgres));
            set("FAFNIR_DATABASE_PREFIX", &format!("n{}_", std::process::id()));
            for server in ["DATABASE", "NATS", "REDIS"] {
                set(&format!("FAFNIR_{server}_AUTHORITY"), &servers.authority);
            }
            None
        } else {
            let broker = nine.command("broker", &["broker", "--port", "0", "--monitor-port", "0", "--json"]);
            let broker = Process::start(broker, nine.house.dir.path().join("broker.log"));
            let nats = broker.ready["nats"].as_str().unwrap().replace("nats://", "tls://");
            nine.environment.insert("FAFNIR_NATS_URL".to_owned(), nats);
            Some(broker)
        };
        let starting: Vec<_> = SERVICES
            .map(|(name, _)| {
                let (command, log) = nine.service(name);
                std::thread::spawn(move || Process::start(command, log))
            })
            .into_iter()
            .collect();
        nine.processes = starting.into_iter().map(|process| process.join().unwrap()).collect();
        nine.processes.extend(broker);
        let seeded = Answer::of(nine.command("platform", &["seed", "--json"]).output().unwrap());
        assert_eq!(seeded.code, 0, "{seeded:?}");
        nine
    }

    /// What starts a service, and its log.
    fn service(&self, name: &str) -> (Command, PathBuf) {
        let port = self.ports[name].to_string();
        let command = self.command(component(name), &[name, "--json", "--port", &port]);
        (command, self.house.dir.path().join(format!("{name}.log")))
    }

    /// Ends a service and starts it again: whoever is connected with it has to connect anew.
    fn restart(&mut self, name: &str) {
        let at = SERVICES.iter().position(|(service, _)| *service == name).unwrap();
        assert_eq!(self.processes[at].interrupt(), Some(0));
        let (command, log) = self.service(name);
        self.processes[at] = Process::start(command, log);
    }

    /// When the certificates end that the services show.
    fn shown(&self) -> BTreeMap<&'static str, u64> {
        let client = self.house.client(Some("api-gateway"));
        let url = |name: &str| format!("https://{HERE}:{}", self.ports[name]);
        SERVICES.iter().map(|(name, _)| (*name, shown(&client, &url(name)))).collect()
    }

    /// A command that is this component.
    pub fn command(&self, component: &str, args: &[&str]) -> Command {
        let mut command = binary();
        let files = self.house.files(component);
        command.args(args).current_dir(self.house.dir.path()).envs(&self.environment);
        command.env("FAFNIR_TLS_CERTIFICATE", files.certificate).env("FAFNIR_TLS_KEY", files.key);
        command.env("FAFNIR_TLS_AUTHORITY", self.house.authority()).stdin(Stdio::null());
        command
    }

    pub fn shell(&self, email: &str) -> Shell {
        let shell = Shell {
            home: self.house.dir.path().join("home").join(email),
            url: self.environment["FAFNIR_ADDRESSES_GATEWAY"].clone(),
            data_dir: self.house.dir.path().join("nobody's"),
            authority: Some(self.house.authority()),
        };
        shell.sign_in(email);
        shell
    }

    /// A connection to the gateway.
    pub fn connection(&self) -> Connection {
        let url = &self.environment["FAFNIR_ADDRESSES_GATEWAY"];
        Connection::to(url, &self.house.client(None)).unwrap()
    }

    /// Whoever has the service token, with this certificate.
    fn caller(&self, tls: &Client) -> Clients {
        let addresses = [("security-service", "security-service"), ("trade-engine", "trade-engine")]
            .map(|(directory, name)| (directory.to_owned(), format!("https://{HERE}:{}", self.ports[name])));
        let token = fs::read_to_string(self.house.dir.path().join("data/secrets/service_token")).unwrap();
        Clients::secured(&BTreeMap::from(addresses), &[], token.trim(), tls).unwrap()
    }
}

/// The component that a subcommand is.
fn component(subcommand: &str) -> &str {
    if subcommand == "gateway" { "api-gateway" } else { subcommand }
}

#[test]
fn nine_processes_know_one_another_by_their_certificates() {
    let nine = Nine::up();
    let mut market = nine.command("simulator", &["sim", "--symbols", "AAPL,F", "--json"]);
    market.env("FAFNIR_DATA_DIR", nine.house.dir.path().join("sim"));
    let token = fs::read_to_string(nine.house.dir.path().join("data/secrets/service_token")).unwrap();
    market.env("FAFNIR_SECRET_SERVICE_TOKEN", token.trim());
    let market = Process::start(market, nine.house.dir.path().join("sim.log"));
    let (seller, buyer) = (nine.shell("admin@test.com"), nine.shell("user@test.com"));
    let bought = buyer.json(&["order", "place", "buy", "AAPL", "1", "--wait", "20"]);
    assert_eq!(bought["state"], "FILLED", "the market trades: {bought}");
    drop(market);
    seller.json(&["order", "place", "sell", "NVDA", "3", "--price", "148.00"]);
    let bought = buyer.json(&["order", "place", "buy", "NVDA", "2", "--price", "148.00", "--wait", "20"]);
    assert_eq!(bought["state"], "FILLED", "{bought}");
    buyer.until(&["portfolio"], "the shares", |p| {
        p["holdings"].as_array().unwrap().iter().any(|h| h["symbol"] == "NVDA" && h["quantity"] == "2")
    });
    let until = Instant::now() + WITHIN;
    loop {
        let audit = Answer::of(nine.command("platform", &["audit", "--json"]).output().unwrap());
        if audit.code == 0 {
            break;
        }
        assert!(Instant::now() < until, "{audit:?}");
    }
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        // user-service asks stock-service whether there is such a symbol.
        let mut person = Person::signed_in_over(nine.connection(), "user@test.com").await;
        let request = person.ask(SymbolRequest { symbol: "F".into() });
        person.terminal.add_to_watchlist(request).await.unwrap();
        refused_callers(&nine).await;
    });
}

#[test]
fn certificates_of_nine_processes_are_replaced_under_load() {
    let mut nine = Nine::up();
    let before = nine.shown();
    let load = Load::start(|| nine.connection());
    for days in ["90", "60", "30"] {
        assert_eq!(nine.house.make(&["--days", days])["authority"], "kept");
        load.goes_on();
    }
    for (name, ends) in nine.shown() {
        assert!(ends + 50 * 86_400 < before[name], "{name} shows {ends}, and showed {}", before[name]);
    }
    assert_eq!(load.end(), Vec::<String>::new(), "no call was refused");

    // Who connects shows the new one, too: order-service, which goes on, one that has ended, to an engine that starts anew.
    let shell = nine.shell("user@test.com");
    let place = || shell.run(&["order", "place", "buy", "NVDA", "1", "--price", "120.00"]).code;
    nine.house.put("order-service", OffsetDateTime::now_utc() - Duration::days(4), 2);
    nine.restart("trade-engine");
    let log = nine.house.dir.path().join("trade-engine.log");
    let refused = || fs::read_to_string(&log).unwrap().contains("refused why=\"its certificate ended on ");
    let until = Instant::now() + WITHIN;
    while !refused() {
        place();
        assert!(Instant::now() < until, "order-service shows the one that has ended");
    }
    nine.house.put("order-service", OffsetDateTime::now_utc(), 2);
    let until = Instant::now() + WITHIN;
    while place() != 0 {
        assert!(Instant::now() < until, "order-service shows one that has not ended");
    }
}

#[test]
fn nine_processes_on_servers_over_tls() {
    let Some(servers) = Servers::named() else { return };
    servers.delete_streams();
    let nine = Nine::up_on(Some(&servers));
    let (seller, buyer) = (nine.shell("admin@test.com"), nine.shell("user@test.com"));
    seller.json(&["order", "place", "sell", "NVDA", "3", "--price", "148.00"]);
    let bought = buyer.json(&["order", "place", "buy", "NVDA", "2", "--price", "148.00", "--wait", "20"]);
    assert_eq!(bought["state"], "FILLED", "{bought}");
    buyer.until(&["quote", "NVDA"], "the quote of the trade", |q| q[0]["price"] == "148");
    // Nobody's connection is in the clear.
    let sql = "SELECT count(*) FILTER (WHERE ssl), count(*) FILTER (WHERE NOT ssl) FROM pg_stat_ssl \
               JOIN pg_stat_activity USING (pid) WHERE application_name = 'fafnir'";
    let url = format!("{}postgres?sslmode=require", servers.postgres);
    let counted = Answer::of(Command::new("psql").args([&url, "-qAtc", sql]).output().unwrap());
    let (secured, plain) = counted.stdout.trim().split_once('|').unwrap();
    assert!(secured.parse::<u32>().unwrap() > 6 && plain == "0", "{counted:?}");
    // And the image of the book is on Redis.
    let authority = ["-u", &servers.redis, "--cacert", &servers.authority, "-n", "1", "dbsize"];
    let until = Instant::now() + WITHIN;
    loop {
        let keys = Answer::of(Command::new("redis-cli").args(authority).output().unwrap());
        if keys.stdout.trim().parse::<u32>().unwrap() > 0 {
            break;
        }
        assert!(Instant::now() < until, "{keys:?}");
    }
    // Another authority: one sentence, and no start.
    for (server, says) in [("DATABASE", "Postgres: "), ("NATS", "bus: ")] {
        let mut command = nine.command("security-service", &["security-service", "--port", "0", "--json"]);
        command.env("FAFNIR_DATA_DIR", nine.house.dir.path().join(server));
        command.env(format!("FAFNIR_{server}_AUTHORITY"), nine.house.authority());
        let said = Answer::of(command.output().unwrap());
        assert_ne!(said.code, 0, "{said:?}");
        let sentence = format!("{says}its certificate is signed by no authority that is believed here");
        assert!(said.stderr.contains(&sentence), "{said:?}");
    }
    let prefix = nine.environment["FAFNIR_DATABASE_PREFIX"].clone();
    drop(nine);
    servers.delete_streams();
    servers.drop_databases(&prefix);
}

/// Waits until security-service has said this in its log: a caller may hear it before.
async fn written_down(nine: &Nine, text: &str) {
    let until = Instant::now() + WITHIN;
    loop {
        let log = fs::read_to_string(nine.house.dir.path().join("security-service.log")).unwrap();
        if log.contains(text) {
            return;
        }
        assert!(Instant::now() < until, "{text}: {log}");
        tokio::task::yield_now().await;
    }
}

/// Each has the service token; what each may do is its certificate's.
async fn refused_callers(nine: &Nine) {
    let house = &nine.house;
    let user = || PermissionsRequest { user_id: "7d0bd2a4-3f8f-4d0c-9a26-5f6cd1c3d001".into() };
    let ask = async |tls: &Client, caller: Caller| {
        let mut security = nine.caller(tls).security(&caller);
        security
            .permissions(user())
            .await
            .map(drop)
            .map_err(|status| tls::sentence(&status).unwrap_or_else(|| status.message().to_owned()))
    };
    let gateway = house.client(Some("api-gateway"));
    ask(&gateway, Caller::system("api-gateway")).await.unwrap();
    ask(&house.client(Some("platform")), Caller::system("seed")).await.unwrap();

    // A service's own certificate opens what is in the caller list, under its own name.
    let order = house.client(Some("order-service"));
    let said = ask(&order, Caller::system("order-service")).await.unwrap_err();
    assert_eq!(said, "order-service may not call Permissions of security-service");
    let said = ask(&gateway, Caller::system("auth-service")).await.unwrap_err();
    assert_eq!(said, "api-gateway says that it is auth-service");
    let engine = async |caller: Caller| {
        let mut engine = nine.caller(&order).engine(&caller);
        engine.position(PositionRequest::default()).await.map(drop).map_err(|s| s.message().to_owned())
    };
    engine(Caller::system("order-service")).await.unwrap();
    let id = fafnir_proto::id::UserId::parse(&user().user_id).unwrap();
    assert_eq!(engine(Caller::User(id)).await.unwrap_err(), "order-service speaks for no user");
    for server in ["redis", "nats"] {
        assert!(ask(&house.client(Some(server)), Caller::system(server)).await.is_err(), "{server}");
    }

    // The service says why in its log, and the caller hears as much as an alert can say.
    let foreign = House::new();
    let stolen = Client::open(house.trust(), Some(&foreign.files("api-gateway"))).unwrap();
    house.put("simulator", OffsetDateTime::now_utc() - Duration::days(4), 2);
    let refusals = [
        (
            house.client(None),
            "the caller showed no certificate, and this door demands one",
            "it demands a certificate, and none was shown",
        ),
        (
            stolen,
            "its certificate is signed by no authority that is believed here",
            "it refused our certificate: signed by no authority that it believes",
        ),
        (
            house.client(Some("simulator")),
            "its certificate ended on ",
            "it refused our certificate: it has ended, or begins later",
        ),
    ];
    for (tls, why, heard) in refusals {
        let said = ask(&tls, Caller::system("api-gateway")).await.unwrap_err();
        assert!(said.ends_with(heard), "{said}");
        written_down(nine, &format!("a caller is refused why=\"{why}")).await;
    }
    let said = ask(&foreign.client(Some("api-gateway")), Caller::system("api-gateway")).await.unwrap_err();
    assert!(said.contains("signed by no authority that is believed here"), "{said}");

    // In the clear, REST and gRPC.
    let port = nine.ports["security-service"];
    let plain = BTreeMap::from([("security-service".to_owned(), format!("http://{HERE}:{port}"))]);
    let clients = Clients::new(&plain, &[], "whatever it is").unwrap();
    let status = clients.security(&Caller::system("api-gateway")).list_roles(Empty {}).await.unwrap_err();
    let said = tls::sentence(&status).unwrap_or_else(|| format!("{status:?}"));
    assert!(said.contains("this door speaks TLS: use https://"), "{said}");
}

/// What a start with these variables ends with.
fn start(dir: &Path, environment: &[(&str, &str)]) -> Answer {
    let mut command = binary();
    command.args(["up", "--no-sim", "--ports", "auto", "--data-dir"]).arg(dir.join("data")).current_dir(dir);
    command.envs(environment.iter().copied());
    Answer::of(command.output().unwrap())
}

#[test]
fn doors_that_other_machines_reach_need_certificates_or_a_word() {
    let dir = tempfile::tempdir().unwrap();
    let said = start(dir.path(), &[("FAFNIR_BIND_HOST", "0.0.0.0")]);
    assert_eq!(said.code, 2, "{said:?}");
    for word in
        ["api-gateway", "broker", "0.0.0.0 (bind.host) without TLS", "bind.insecure = true", "secrets tls"]
    {
        assert!(said.stderr.contains(word), "{word}: {}", said.stderr);
    }
    let said = start(dir.path(), &[("FAFNIR_BIND_INNER_HOST", "0.0.0.0")]);
    assert!(said.code == 2 && said.stderr.contains("order-service's operations"), "{said:?}");

    let insecure = "[bind]\nhost = \"0.0.0.0\"\ninsecure = true\n";
    let stack = Stack::configured(insecure, &["--no-sim"]);
    assert!(stack.process.log().contains("bind.insecure: "), "{}", stack.process.log());
    assert!(stack.process.address("api-gateway").starts_with("http://127.0.0.1:"));
    drop(stack);

    let house = House::new();
    let secured = format!("[bind]\nhost = \"0.0.0.0\"\n{}", house.config());
    let stack = Stack::configured(&secured, &["--no-sim"]);
    assert!(!stack.process.log().contains("bind.insecure"), "{}", stack.process.log());
    assert!(get(&house.client(None), &stack.process.address("api-gateway"), "/healthz").is_ok());
}

#[test]
fn a_configuration_of_the_current_directory_is_asked_about_before_anything_is_sent() {
    let stack = Stack::up(&["--no-sim"]);
    let mut shell = stack.shell("user@test.com");
    let toml = format!("[addresses]\ngateway = \"{}\"\n", shell.url);
    fs::create_dir_all(&shell.home).unwrap();
    fs::write(shell.home.join("fafnir.toml"), &toml).unwrap();
    shell.data_dir = stack.dir.path().join("elsewhere");
    let login = |more: &[&str]| {
        let args = [&["login", "--email", "user@test.com", "--password-stdin"], more].concat();
        let mut command = shell.command(&args);
        command.env_remove("FAFNIR_URL").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // One that refuses does not read it.
        drop(child.stdin.take().unwrap().write_all(b"Password123\n"));
        Answer::of(child.wait_with_output().unwrap())
    };
    let refused = login(&[]);
    assert_eq!(refused.code, 2, "{refused:?}");
    for word in ["fafnir.toml (addresses.gateway) has this go to ", &shell.url, "--trust-directory"] {
        assert!(refused.stderr.contains(word), "{word}: {}", refused.stderr);
    }
    assert_eq!(login(&["--trust-directory"]).code, 0);
    assert_eq!(login(&[]).code, 0, "it was agreed to");
    fs::write(shell.home.join("fafnir.toml"), toml.replace("127.0.0.1", "localhost")).unwrap();
    assert_eq!(login(&[]).code, 2, "another address is another question");
    // The caller's own word needs no other.
    let named = shell.with_input(&["login", "--email", "user@test.com", "--password-stdin"], "Password123\n");
    assert_eq!(named.code, 0, "{named:?}");
}

#[test]
fn an_authority_without_its_key_signs_nothing() {
    let house = House::new();
    fs::remove_file(house.tls().join("ca.key")).unwrap();
    let mut command = binary();
    command.args(["secrets", "tls"]).arg(house.tls());
    let said = Answer::of(command.output().unwrap());
    assert_eq!(said.code, 1, "{said:?}");
    assert!(said.stderr.contains("nothing can be signed"), "{said:?}");
    let pair = make::authority("another", OffsetDateTime::now_utc(), 1).unwrap();
    fs::write(house.tls().join("ca.key"), pair.key).unwrap();
    let said = Answer::of(command.output().unwrap());
    assert!(said.code == 1 && said.stderr.contains("not that of its certificate"), "{said:?}");
}
