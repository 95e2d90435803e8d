//! Layered configuration: flags > `FAFNIR_*` > `fafnir.toml` > user file > defaults.
//!
//! A key's type is the type of its default. Files are checked strictly: an unknown key or a wrong type is an error that
//! names file, line and key.

mod explained;

pub use explained::explained;

use super::telemetry::LogFormat;
use fafnir_rules::calendar::Calendar;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fmt, fs, io,
    path::{Path, PathBuf},
};
use toml::{Table, Value};

/// What `engine.recent_ids` may be.
const RECENT_IDS_MIN: u32 = 16;
const RECENT_IDS_MAX: u32 = 1 << 24;
/// Longest that `engine.behind_s_max` may be.
const BEHIND_S_MAX: u32 = 60;
/// Longest that `engine.volatility_pause_s` and `engine.volatility_end_s` may be.
const PAUSE_S_MAX: u32 = 3_600;

/// Everything that can be configured; the defaults are the embedded development platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// `development` (GraphiQL, introspection) or `production`.
    pub mode: Mode,
    /// Where databases, journal, broker store and secrets live. Empty: `$XDG_DATA_HOME/fafnir`.
    pub data_dir: String,
    pub bind: Bind,
    pub tls: Tls,
    pub ports: Ports,
    pub addresses: Addresses,
    pub database: Database,
    pub disk: Disk,
    pub nats: Nats,
    pub broker: Broker,
    pub redis: Redis,
    pub log: Log,
    pub traces: Traces,
    pub gateway: Gateway,
    pub auth: Auth,
    pub order: Order,
    pub portfolio: Portfolio,
    pub engine: Engine,
    pub sim: Sim,
    pub terminal: Terminal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    Development,
    Production,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Bind {
    /// Address that the doors for clients listen on: the gateway's, and the embedded broker's.
    pub host: String,
    /// Address that the services' own doors listen on, and those for operations.
    pub inner_host: String,
    /// Doors that other machines reach may be without TLS. Said at every start.
    pub insecure: bool,
    /// Every port 0: the system picks free ones (`--ports auto`).
    pub auto: bool,
    /// Services of one process call each other directly; `false`: over their sockets, as services in processes of
    /// their own do.
    pub in_process: bool,
}

/// Certificates of the platform, in PEM: of whose authority, and what this process shows. Files are read again when they
/// change.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Tls {
    /// What `fafnir secrets tls` fills: `ca.crt`, and of each service `<service>/tls.crt` and `<service>/tls.key`.
    pub dir: String,
    /// In place of the one in `dir`: the certificate of this process, with those it is signed by.
    pub certificate: String,
    /// The key of `certificate`.
    pub key: String,
    /// In place of `ca.crt` in `dir`: the authorities that services, and clients of the gateway, believe. `system`: those
    /// of this machine, for the gateway's clients alone.
    pub authority: String,
}

/// Ports by service. The operations door of each is its port + `operations_offset`; 0 picks a free one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Ports {
    /// Port of the gateway: GraphQL, WebSockets, `/auth`, the terminal's gRPC.
    pub gateway: u16,
    /// Port of auth-service.
    pub auth: u16,
    /// Port of security-service.
    pub security: u16,
    /// Port of user-service.
    pub user: u16,
    /// Port of stock-service.
    pub stock: u16,
    /// Port of order-service.
    pub order: u16,
    /// Port of portfolio-service.
    pub portfolio: u16,
    /// Port of trade-engine.
    pub engine: u16,
    /// The simulated market has no door but that for operations, where it is a process of its own.
    pub simulator: u16,
    /// Port of the embedded broker for clients of NATS.
    pub broker: u16,
    /// Port of the embedded broker's monitoring.
    pub broker_monitor: u16,
    /// Port of the embedded broker for WebSockets.
    pub broker_websocket: u16,
    /// The operations door of a service is at its port + this.
    pub operations_offset: u16,
}

/// Where the services are, when they are not in this process, as `https://host:port` where they have certificates. Empty:
/// on their ports of this machine.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Addresses {
    /// Where the gateway is.
    pub gateway: String,
    /// Where auth-service is.
    pub auth: String,
    /// Where security-service is.
    pub security: String,
    /// Where user-service is.
    pub user: String,
    /// Where stock-service is.
    pub stock: String,
    /// Where order-service is.
    pub order: String,
    /// Where portfolio-service is.
    pub portfolio: String,
    /// Where trade-engine is.
    pub engine: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Database {
    /// `postgres://user:password@host:port/` without a database name; each service uses `<name>_db`. Empty: SQLite.
    pub url: String,
    /// Put before each database name, so that several stacks can share a server.
    pub prefix: String,
    /// PEM file of who signs the server's certificate; empty: as `tls.authority`; `system`: whom this machine believes.
    pub authority: String,
}

/// Free room of the data directory's disk, MiB, below which a stage begins; each at most the one before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Disk {
    /// It is told, loudly.
    pub alarm_mib: u32,
    /// Only cancels are taken.
    pub cancel_only_mib: u32,
    /// Nothing that writes is taken.
    pub read_only_mib: u32,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Nats {
    /// `nats://host:port`, `tls://` over TLS; the servers of a cluster parted by commas: of three or more, three keep each
    /// stream that is made. Empty: the embedded broker.
    pub url: String,
    /// Handed to terminals; empty: the same as the first of `url`.
    pub public_url: String,
    /// Handed to pages: `ws://host:port` or `wss://`; empty: the embedded broker's WebSocket door, if it is open.
    pub public_websocket_url: String,
    /// User of the services; empty: the generated user of the embedded broker. Ignored when the URL has a user.
    pub user: String,
    /// File that holds the password.
    pub password_file: String,
    /// How terminals sign in at nats-server: `session` (a credential of each session, which ends with it; 2.10 or newer)
    /// or `static` (one user `market` for all). At the embedded broker always by session.
    pub market_credentials: String,
    /// As `database.authority`.
    pub authority: String,
}

impl Nats {
    /// Whether each session has a credential of its own.
    pub fn by_session(&self) -> bool {
        self.url.is_empty() || self.market_credentials != "static"
    }
}

/// Doors of the embedded broker.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Broker {
    /// Whether browsers may connect over WebSockets, on `ports.broker_websocket`.
    pub websocket: bool,
    /// PEM file of a certificate, with those it is signed by. With it clients from other machines have to use TLS, and
    /// WebSockets are `wss`.
    pub tls_certificate: String,
    /// PEM file of its key.
    pub tls_key: String,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Redis {
    /// `redis://host:port`, `rediss://` over TLS. Empty: in memory.
    pub url: String,
    /// As `database.authority`.
    pub authority: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `human` or `json`.
    pub format: LogFormat,
    /// Filter as in `RUST_LOG`.
    pub filter: String,
}

/// Spans of requests, for a collector of OpenTelemetry.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Traces {
    /// Where the collector takes OTLP over gRPC, as `http://127.0.0.1:4317` or `https://host:port`. Empty: no spans.
    pub endpoint: String,
    /// Of the requests that bring no `traceparent` one in so many is recorded; 0: none of them. Those that bring one say
    /// it themselves.
    pub one_in: u32,
}

impl Default for Traces {
    fn default() -> Self {
        Self { endpoint: String::new(), one_in: 100 }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Gateway {
    /// PEM file of its certificate, with those it is signed by; empty: as `[tls]`.
    pub tls_certificate: String,
    /// PEM file of its key.
    pub tls_key: String,
    /// Origins that browsers may call from; empty: same origin only.
    pub cors_origins: Vec<String>,
    /// Orders a second per user.
    pub orders_per_second: u32,
    /// Orders of a user at once.
    pub orders_burst: u32,
    /// Connections of one address at a time; 0: no bound of its own.
    pub connections_per_address: u32,
    /// New connections of one address a second; 0: no bound of its own.
    pub connections_per_second: u32,
    /// Proxies before the gateway, as addresses or networks: only their `X-Forwarded-For` and `X-Forwarded-Proto` are
    /// believed, and the limits of an address are not theirs.
    pub trusted_proxies: Vec<String>,
    /// What a user's queries may cost a second, about a row each; 0: no bound.
    pub cost_per_second: u32,
    /// What a user's queries may cost at once.
    pub cost_burst: u32,
    /// WebSockets of one user at a time; 0: no bound.
    pub sockets_per_user: u32,
    /// WebSockets of one address at a time; 0: no bound.
    pub sockets_per_address: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Auth {
    /// Access token of a Bearer caller, seconds.
    pub bearer_ttl_s: u32,
    /// Access token in the cookie, seconds.
    pub cookie_ttl_s: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Order {
    /// Open orders per user.
    pub open_orders_max: u32,
    /// Hours that terminal orders of the simulator's agents are kept.
    pub agent_retention_h: u32,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Portfolio {
    /// Paper money that a new account opens with, in its currency.
    pub opening_deposit: String,
    /// Fee of the side that rested, in basis points of the notional, at most 1000.
    pub maker_fee_bp: u32,
    /// Fee of the side that came to it, in basis points of the notional, at most 1000.
    pub taker_fee_bp: u32,
    /// CAD for one USD, at most 6 decimals.
    pub usd_cad: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Engine {
    /// `covered` (segments go when a verified snapshot and every follower are past them) or `all`.
    pub journal_keep: String,
    /// A snapshot of the exchange is written after so many commands.
    pub snapshot_every_commands: u64,
    /// And after so many seconds, where there were commands.
    pub snapshot_every_s: u64,
    /// `24x7` (continuous trading, the day ends at 00:00 UTC) or `xnys` (the sessions of the New York Stock Exchange).
    pub calendar: String,
    /// Seconds that a volatility pause lasts, and once more where its auction would be beyond twice the band.
    pub volatility_pause_s: u32,
    /// Its auction runs within so many seconds from then on, at a moment that nobody chooses.
    pub volatility_end_s: u32,
    /// Largest deposit, in the account's currency.
    pub deposit_max: String,
    /// Largest sum of a user's deposits of a UTC day, in each currency.
    pub deposits_per_day_max: String,
    /// A deposit is refused that would leave more cash than this in its account.
    pub account_max: String,
    /// Ids of recent commands that are remembered, so that a repetition has no second effect.
    pub recent_ids: u32,
    /// `recent` (facts of 7 days or 2 GiB, and what a follower still lacks) or `all`.
    pub facts_keep: String,
    /// order- or portfolio-service behind by so many seconds: only cancels are taken. At most 60.
    pub behind_s_max: u32,
    /// order- or portfolio-service behind by so many facts: only cancels are taken.
    pub behind_facts_max: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Sim {
    /// Whether agents trade.
    pub enabled: bool,
    /// Multiplies the agents' activity; `"1"` is about 15 commands a second in all.
    pub rate: String,
    /// Seed of every random choice.
    pub seed: u64,
    /// Symbols to trade; empty: every listed one.
    pub symbols: Vec<String>,
    /// How the market is: `quiet`, `normal`, `volatile` or `crash`.
    pub market: String,
    /// A recorded day that is the market of a symbol: order events, messages of LOBSTER, or bars; empty: none.
    pub market_file: String,
    /// Its symbol; empty: the first word of the file's name.
    pub market_symbol: String,
    /// How fast its time passes: 0.01 to 1000.
    pub market_speed: String,
    /// Where it begins: a time of its day (`10:30`), or a moment (`2026-11-30T10:30:00Z`); empty: its beginning.
    pub market_from: String,
}

/// The trading terminal of whoever reads this configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Terminal {
    /// Order sizes of the keys 1 to 4.
    pub sizes: Vec<String>,
    /// Largest notional of a one-key order, in the listing's currency.
    pub one_key_max: String,
    /// `blue-orange`, `green-red` or `red-up`.
    pub theme: String,
    /// Clicks and the wheel are the terminal's; `false`: the emulator's.
    pub mouse: bool,
    /// Other keys for actions, such as `flatten=f9`; `fafnir config --help` names the actions.
    pub keys: Vec<String>,
    /// Columns of the tables below the ladder and their order, such as `orders=id,side,symbol,qty,price,state`;
    /// `fafnir config --help` names them.
    pub columns: Vec<String>,
    /// In which clocks show and times are read: `local`, `UTC` or a name such as `America/New_York`.
    pub time_zone: String,
}

impl Default for Terminal {
    fn default() -> Self {
        Self {
            sizes: ["1", "5", "10", "50"].map(str::to_owned).to_vec(),
            one_key_max: "10000".into(),
            theme: "blue-orange".into(),
            mouse: true,
            keys: Vec::new(),
            columns: Vec::new(),
            time_zone: "local".into(),
        }
    }
}

impl Terminal {
    /// Order sizes of the keys 1 to 4, e4; none where they are no four quantities.
    pub fn sizes_e4(&self) -> Option<[i64; 4]> {
        let size = |text: &String| fafnir_rules::money::parse_e4(text).ok().filter(|size| *size > 0);
        self.sizes.iter().map(size).collect::<Option<Vec<_>>>()?.try_into().ok()
    }

    /// Largest notional of a one-key order in micros; none where it is no amount.
    pub fn one_key_max_micros(&self) -> Option<i64> {
        fafnir_rules::money::parse_micros(&self.one_key_max).ok().filter(|most| *most >= 0)
    }

    fn check(&self) -> Result<(), Error> {
        if self.sizes_e4().is_none() {
            return bad("terminal.sizes", "must be four quantities above 0, for the keys 1 to 4");
        }
        if self.one_key_max_micros().is_none() {
            return bad("terminal.one_key_max", "must be an amount of at least 0 with at most 6 decimals");
        }
        if !matches!(self.theme.as_str(), "blue-orange" | "green-red" | "red-up") {
            return bad("terminal.theme", "must be blue-orange, green-red or red-up");
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Development,
            data_dir: String::new(),
            bind: Bind::default(),
            tls: Tls::default(),
            ports: Ports::default(),
            addresses: Addresses::default(),
            database: Database::default(),
            disk: Disk::default(),
            nats: Nats::default(),
            broker: Broker::default(),
            redis: Redis::default(),
            log: Log::default(),
            traces: Traces::default(),
            gateway: Gateway::default(),
            auth: Auth::default(),
            order: Order::default(),
            portfolio: Portfolio::default(),
            engine: Engine::default(),
            sim: Sim::default(),
            terminal: Terminal::default(),
        }
    }
}
impl Default for Bind {
    fn default() -> Self {
        Self {
            host: "127.0.0.1".into(),
            inner_host: "127.0.0.1".into(),
            insecure: false,
            auto: false,
            in_process: true,
        }
    }
}

impl Bind {
    /// The host without the brackets that an IPv6 address has in a URL.
    pub fn bare_host(&self) -> &str {
        bare(&self.host)
    }

    /// The same of the services' own doors.
    pub fn bare_inner_host(&self) -> &str {
        bare(&self.inner_host)
    }

    /// The host as a URL has it, reachable from this machine.
    pub fn host_in_url(&self) -> String {
        in_url(self.bare_host())
    }

    /// The same of the services' own doors.
    pub fn inner_host_in_url(&self) -> String {
        in_url(self.bare_inner_host())
    }
}

fn bare(host: &str) -> &str {
    host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host)
}

/// "Any address" is no address to connect to.
fn in_url(bare: &str) -> String {
    match bare.parse::<std::net::IpAddr>() {
        Ok(ip) if ip.is_unspecified() && ip.is_ipv4() => "127.0.0.1".to_owned(),
        Ok(ip) if ip.is_unspecified() => "[::1]".to_owned(),
        Ok(std::net::IpAddr::V6(ip)) => format!("[{ip}]"),
        _ => bare.to_owned(),
    }
}

/// Whether only this machine reaches a door that listens on this host.
pub fn is_loopback(host: &str) -> bool {
    let host = bare(host);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

impl Default for Ports {
    fn default() -> Self {
        Self {
            gateway: 8080,
            auth: 8081,
            security: 8082,
            user: 8083,
            stock: 8084,
            order: 8085,
            portfolio: 8086,
            engine: 8087,
            simulator: 8088,
            broker: 4222,
            broker_monitor: 8222,
            broker_websocket: 8223,
            operations_offset: 1000,
        }
    }
}
impl Default for Disk {
    fn default() -> Self {
        Self { alarm_mib: 2_048, cancel_only_mib: 1_024, read_only_mib: 256 }
    }
}
impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Human, filter: "info,async_nats=warn".into() }
    }
}
impl Default for Gateway {
    fn default() -> Self {
        Self {
            tls_certificate: String::new(),
            tls_key: String::new(),
            cors_origins: Vec::new(),
            orders_per_second: 20,
            orders_burst: 40,
            connections_per_address: 256,
            connections_per_second: 64,
            trusted_proxies: Vec::new(),
            cost_per_second: 10_000,
            cost_burst: 20_000,
            sockets_per_user: 16,
            sockets_per_address: 64,
        }
    }
}
impl Default for Auth {
    fn default() -> Self {
        Self { bearer_ttl_s: 600, cookie_ttl_s: 3600 }
    }
}
impl Default for Order {
    fn default() -> Self {
        Self { open_orders_max: 1000, agent_retention_h: 24 }
    }
}
impl Default for Portfolio {
    fn default() -> Self {
        Self { opening_deposit: "500.00".into(), maker_fee_bp: 0, taker_fee_bp: 0, usd_cad: "1.37".into() }
    }
}
impl Engine {
    fn check(&self) -> Result<(), Error> {
        if !matches!(self.journal_keep.as_str(), "covered" | "all") {
            return bad("engine.journal_keep", "must be \"covered\" or \"all\"");
        }
        if !matches!(self.facts_keep.as_str(), "recent" | "all") {
            return bad("engine.facts_keep", "must be \"recent\" or \"all\"");
        }
        for (key, amount) in [
            ("engine.deposit_max", &self.deposit_max),
            ("engine.deposits_per_day_max", &self.deposits_per_day_max),
            ("engine.account_max", &self.account_max),
        ] {
            if !fafnir_rules::money::parse_micros(amount).is_ok_and(|amount| amount > 0) {
                return bad(key, "must be an amount above 0 with at most 6 decimals");
            }
        }
        if !(RECENT_IDS_MIN..=RECENT_IDS_MAX).contains(&self.recent_ids) {
            return bad("engine.recent_ids", "must be from 16 to 16777216");
        }
        if Calendar::parse(&self.calendar).is_none() {
            return bad("engine.calendar", "must be \"24x7\" or \"xnys\"");
        }
        let pauses = (1..=PAUSE_S_MAX).contains(&self.volatility_pause_s);
        if !pauses {
            return bad("engine.volatility_pause_s", "must be from 1 to 3600 seconds");
        }
        if self.volatility_end_s > PAUSE_S_MAX {
            return bad("engine.volatility_end_s", "must be at most 3600 seconds");
        }
        if !(1..=BEHIND_S_MAX).contains(&self.behind_s_max) {
            return bad("engine.behind_s_max", "must be from 1 to 60 seconds");
        }
        if self.behind_facts_max == 0 {
            return bad("engine.behind_facts_max", "must be above 0");
        }
        Ok(())
    }

    /// When there are sessions; a calendar that there is not was refused with the configuration.
    pub fn calendar(&self) -> Calendar {
        Calendar::parse(&self.calendar).unwrap_or_default()
    }
}

impl Default for Engine {
    fn default() -> Self {
        Self {
            journal_keep: "covered".into(),
            snapshot_every_commands: 100_000,
            snapshot_every_s: 60,
            calendar: Calendar::Always.name().into(),
            volatility_pause_s: 120,
            volatility_end_s: 30,
            deposit_max: "10000000".into(),
            deposits_per_day_max: "100000000".into(),
            account_max: "1000000000".into(),
            recent_ids: 262_144,
            facts_keep: "recent".into(),
            behind_s_max: 30,
            behind_facts_max: 200_000,
        }
    }
}
impl Default for Sim {
    fn default() -> Self {
        Self {
            enabled: true,
            rate: "1".into(),
            seed: 42,
            symbols: Vec::new(),
            market: "normal".into(),
            market_file: String::new(),
            market_symbol: String::new(),
            market_speed: "1".into(),
            market_from: String::new(),
        }
    }
}

/// Where a value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    Default,
    File(PathBuf),
    Environment(String),
    Flag,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Environment(name) => f.write_str(name),
            Self::Flag => f.write_str("flag"),
        }
    }
}

/// A configuration that cannot be used; the text is one line for a person.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}:{line}: {message}", file.display())]
    File { file: PathBuf, line: usize, message: String },
    #[error("{}: {source}", file.display())]
    Read { file: PathBuf, source: io::Error },
    #[error("{name}: {message}")]
    Environment { name: String, message: String },
    #[error("{key}: {message}")]
    Key { key: String, message: String },
}

/// The merged layers.
#[derive(Debug, Clone)]
pub struct Layers {
    values: BTreeMap<String, (Value, Origin)>,
}

impl Default for Layers {
    #[expect(clippy::expect_used, reason = "the defaults are constants; a test reads them")]
    fn default() -> Self {
        let defaults = Table::try_from(Settings::default()).expect("invariant: the defaults are a table");
        let mut values = BTreeMap::new();
        flatten("", &defaults, &mut |key, value| {
            values.insert(key, (value.clone(), Origin::Default));
        });
        Self { values }
    }
}

impl Layers {
    /// Puts a file on top. A file that does not exist changes nothing.
    pub fn file(&mut self, path: &Path) -> Result<(), Error> {
        let text = match fs::read_to_string(path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(source) => return Err(Error::Read { file: path.to_owned(), source }),
        };
        let refused = |e: &toml::de::Error| {
            let start = e.span().map_or(0, |s| s.start).min(text.len());
            let line = text[..start].matches('\n').count() + 1;
            let key =
                text.lines().nth(line - 1).and_then(|l| l.split_once('=')).map_or("", |(k, _)| k.trim());
            let message = e.message().replace('\n', " ");
            let message = if key.is_empty() || message.contains(&format!("`{key}`")) {
                message
            } else {
                format!("{key}: {message}")
            };
            Error::File { file: path.to_owned(), line, message }
        };
        // Strict: unknown keys and wrong types carry a span here.
        toml::from_str::<Settings>(&text).map_err(|e| refused(&e))?;
        let table: Table = toml::from_str(&text).map_err(|e| refused(&e))?;
        let origin = Origin::File(path.to_owned());
        flatten("", &table, &mut |key, value| {
            self.values.insert(key, (value.clone(), origin.clone()));
        });
        Ok(())
    }

    /// Puts `FAFNIR_*` variables on top: `FAFNIR_SIM_RATE` is `sim.rate`.
    pub fn environment(&mut self, variables: impl Iterator<Item = (String, String)>) -> Result<(), Error> {
        let by_name: BTreeMap<String, String> =
            self.values.keys().map(|key| (environment_name(key), key.clone())).collect();
        for (name, text) in variables {
            if let Some(key) = by_name.get(&name) {
                let value = self
                    .parse(key, &text)
                    .map_err(|message| Error::Environment { name: name.clone(), message })?;
                self.values.insert(key.clone(), (value, Origin::Environment(name)));
            }
        }
        Ok(())
    }

    /// Puts one flag on top.
    pub fn flag(&mut self, key: &str, text: &str) -> Result<(), Error> {
        let value = self.parse(key, text).map_err(|message| Error::Key { key: key.to_owned(), message })?;
        self.values.insert(key.to_owned(), (value, Origin::Flag));
        Ok(())
    }

    /// The settings that the layers amount to.
    pub fn settings(&self) -> Result<Settings, Error> {
        let mut root = Table::new();
        for (key, (value, _)) in &self.values {
            insert(&mut root, key, value.clone());
        }
        let mut settings: Settings = Value::Table(root).try_into().map_err(|e: toml::de::Error| {
            Error::Key { key: "configuration".into(), message: e.message().to_owned() }
        })?;
        settings.check()?;
        let authority = match crate::tls::trust(&settings, &settings.database.authority) {
            fafnir_tls::Trust::Authority(path) => path.to_string_lossy().into_owned(),
            fafnir_tls::Trust::System => "system".to_owned(),
        };
        if authority != "system" || !settings.database.authority.is_empty() {
            settings.database.url = crate::db::with_authority(&settings.database.url, &authority);
        }
        Ok(settings)
    }

    /// Every key with its value and origin, in order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value, &Origin)> {
        self.values.iter().map(|(key, (value, origin))| (key.as_str(), value, origin))
    }

    /// Reads a text as the type that the key has.
    fn parse(&self, key: &str, text: &str) -> Result<Value, String> {
        let (current, _) = self.values.get(key).ok_or_else(|| "is not a known key".to_owned())?;
        match current {
            Value::Integer(_) => {
                text.parse().map(Value::Integer).map_err(|_| format!("{text:?} is not a whole number"))
            }
            Value::Boolean(_) => {
                text.parse().map(Value::Boolean).map_err(|_| format!("{text:?} is not true or false"))
            }
            Value::Array(_) => Ok(Value::Array(
                text.split(',')
                    .map(str::trim)
                    .filter(|s| !s.is_empty())
                    .map(|s| Value::String(s.to_owned()))
                    .collect(),
            )),
            _ => Ok(Value::String(text.to_owned())),
        }
    }
}

/// A value that cannot be used.
fn bad(key: &str, message: &str) -> Result<(), Error> {
    Err(Error::Key { key: key.into(), message: message.into() })
}

impl Settings {
    fn check(&self) -> Result<(), Error> {
        match fafnir_rules::money::parse_e4(&self.sim.rate) {
            Ok(rate) if (0..=100_0000).contains(&rate) => {}
            _ => return bad("sim.rate", "must be a decimal from 0 to 100 with at most 4 decimals"),
        }
        match fafnir_rules::money::parse_micros(&self.portfolio.opening_deposit) {
            Ok(amount) if amount >= 0 => {}
            _ => {
                return bad(
                    "portfolio.opening_deposit",
                    "must be an amount of at least 0 with at most 6 decimals",
                );
            }
        }
        match fafnir_rules::money::parse_micros(&self.portfolio.usd_cad) {
            Ok(rate) if rate > 0 => {}
            _ => return bad("portfolio.usd_cad", "must be a rate above 0 with at most 6 decimals"),
        }
        self.engine.check()?;
        self.terminal.check()?;
        if !matches!(self.nats.market_credentials.as_str(), "" | "session" | "static") {
            return bad("nats.market_credentials", "must be \"session\" or \"static\"");
        }
        if self.disk.cancel_only_mib > self.disk.alarm_mib {
            return bad("disk.cancel_only_mib", "must be at most disk.alarm_mib");
        }
        if self.disk.read_only_mib > self.disk.cancel_only_mib {
            return bad("disk.read_only_mib", "must be at most disk.cancel_only_mib");
        }
        for (key, certificate, secret) in [
            ("tls", &self.tls.certificate, &self.tls.key),
            ("gateway.tls", &self.gateway.tls_certificate, &self.gateway.tls_key),
            ("broker.tls", &self.broker.tls_certificate, &self.broker.tls_key),
        ] {
            if certificate.is_empty() != secret.is_empty() {
                return bad(key, "a certificate needs its key, and a key its certificate");
            }
        }
        if !self.tls.certificate.is_empty()
            && matches!(self.tls.authority.as_str(), "" | "system")
            && self.tls.dir.is_empty()
        {
            return bad(
                "tls.authority",
                "must name the authority that services know one another by, since tls.certificate is set",
            );
        }
        if let Err(e) = crate::http::address::Proxies::parse(&self.gateway.trusted_proxies) {
            return bad("gateway.trusted_proxies", &e.to_string());
        }
        if self.portfolio.maker_fee_bp > 1000 || self.portfolio.taker_fee_bp > 1000 {
            return bad("portfolio.taker_fee_bp", "fees must be at most 1000 basis points");
        }
        Ok(())
    }

    /// The data directory: the configured one, else `$XDG_DATA_HOME/fafnir`, else `~/.local/share/fafnir`.
    pub fn data_dir(&self) -> PathBuf {
        if !self.data_dir.is_empty() {
            return PathBuf::from(&self.data_dir);
        }
        let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        set("XDG_DATA_HOME")
            .unwrap_or_else(|| set("HOME").unwrap_or_else(|| PathBuf::from(".")).join(".local/share"))
            .join("fafnir")
    }
}

/// A text as it may be shown: the password of a URL in it is left out, and those of several parted by commas.
pub fn without_password(text: &str) -> String {
    // A comma may stand in a password as well.
    if text.contains(',') && text.split(',').all(|one| one.contains("://")) {
        return text.split(',').map(of_one_url).collect::<Vec<_>>().join(",");
    }
    of_one_url(text)
}

fn of_one_url(text: &str) -> String {
    let hidden = || {
        let (scheme, rest) = text.split_once("://")?;
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        // A password may hold an `@` that should have been escaped: the last one ends it.
        let (user, host) = rest[..end].rsplit_once('@')?;
        let (name, _) = user.split_once(':')?;
        Some(format!("{scheme}://{name}:****@{host}{}", &rest[end..]))
    };
    hidden().unwrap_or_else(|| text.to_owned())
}

/// `sim.rate` → `FAFNIR_SIM_RATE`.
pub fn environment_name(key: &str) -> String {
    format!("FAFNIR_{}", key.to_uppercase().replace(['.', '-'], "_"))
}

fn flatten(prefix: &str, table: &Table, put: &mut impl FnMut(String, &Value)) {
    for (name, value) in table {
        let key = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value {
            Value::Table(inner) => flatten(&key, inner, put),
            other => put(key, other),
        }
    }
}

fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((head, rest)) => {
            let inner = table.entry(head.to_owned()).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_layer_wins_and_the_origin_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fafnir.toml");
        fs::write(&file, "[sim]\nrate = \"2\"\nseed = 7\n").unwrap();
        let mut layers = Layers::default();
        layers.file(&file).unwrap();
        layers.environment([("FAFNIR_SIM_SEED".to_owned(), "9".to_owned())].into_iter()).unwrap();
        layers.flag("sim.enabled", "false").unwrap();
        let settings = layers.settings().unwrap();
        assert_eq!((settings.sim.rate.as_str(), settings.sim.seed, settings.sim.enabled), ("2", 9, false));
        let origin = |key: &str| layers.entries().find(|(k, _, _)| *k == key).unwrap().2.clone();
        assert_eq!(origin("sim.rate"), Origin::File(file));
        assert_eq!(origin("sim.seed"), Origin::Environment("FAFNIR_SIM_SEED".into()));
        assert_eq!(origin("sim.enabled"), Origin::Flag);
        assert_eq!(origin("ports.gateway"), Origin::Default);
    }

    #[test]
    fn a_broken_file_names_file_line_and_key() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("fafnir.toml");
        for (text, line, key) in [
            ("mode = \"production\"\n[ports]\ngatewai = 1\n", 3, "gatewai"),
            ("[ports]\n\ngateway = \"x\"\n", 3, "gateway"),
            ("[ports\n", 1, ""),
        ] {
            fs::write(&file, text).unwrap();
            let error = Layers::default().file(&file).unwrap_err().to_string();
            assert!(error.starts_with(&format!("{}:{line}: ", file.display())), "{error}");
            assert!(error.contains(key), "{error}");
        }
    }

    #[test]
    fn a_password_in_a_url_is_not_shown() {
        for (given, shown) in [
            ("postgres://fafnir:s3cret@db:5432/", "postgres://fafnir:****@db:5432/"),
            ("nats://a:p@ss@h:4222", "nats://a:****@h:4222"),
            ("redis://:s3cret@h", "redis://:****@h"),
            ("nats://token@h:4222", "nats://token@h:4222"),
            ("nats://a:b@h1,tls://a:c@h2:1", "nats://a:****@h1,tls://a:****@h2:1"),
            ("nats://a:b,c@h1", "nats://a:****@h1"),
            ("nats://a:b@h1,a:c@h2", "nats://a:****@h2"),
            ("http://h/a:b@c", "http://h/a:b@c"),
            ("a:b@c", "a:b@c"),
        ] {
            assert_eq!(without_password(given), shown);
        }
    }

    #[test]
    fn a_host_is_written_with_brackets_or_without() {
        let words = |host: &str| {
            let bind = Bind { host: host.into(), ..Bind::default() };
            (bind.bare_host().to_owned(), bind.host_in_url())
        };
        for host in ["::1", "[::1]"] {
            assert_eq!(words(host), ("::1".to_owned(), "[::1]".to_owned()));
        }
        assert_eq!(words("127.0.0.1"), ("127.0.0.1".to_owned(), "127.0.0.1".to_owned()));
    }

    #[test]
    fn a_wrong_value_in_the_environment_names_the_variable() {
        let error = Layers::default()
            .environment([("FAFNIR_PORTS_GATEWAY".to_owned(), "eighty".to_owned())].into_iter())
            .unwrap_err();
        assert_eq!(error.to_string(), "FAFNIR_PORTS_GATEWAY: \"eighty\" is not a whole number");
    }
}
