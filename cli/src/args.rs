//! The command line: what can be said. What it does is in `commands/`.

mod look;

pub use look::*;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::TypedValueParser as _};
use fafnir_market::Mood;
use std::path::PathBuf;

/// A stock exchange and brokerage in one binary, with a trading terminal.
#[derive(Debug, Parser)]
#[command(
    name = "fafnir",
    version,
    propagate_version = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub struct Cli {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Args)]
pub struct Global {
    /// Configuration file, instead of ./fafnir.toml
    #[arg(long, global = true, value_name = "FILE", help_heading = "Global options")]
    pub config: Option<PathBuf>,
    /// Where databases, journal, broker store and secrets live [default: $XDG_DATA_HOME/fafnir]
    #[arg(long, global = true, value_name = "DIR", help_heading = "Global options")]
    pub data_dir: Option<PathBuf>,
    /// Accept that ./fafnir.toml says where passwords and tokens go
    #[arg(long, global = true, help_heading = "Global options")]
    pub trust_directory: bool,
    /// Print data as JSON
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// When to colour
    #[arg(long, global = true, value_name = "WHEN", default_value = "auto", help_heading = "Global options")]
    pub color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Color {
    Auto,
    Always,
    Never,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the whole platform in one process
    Up(Up),
    /// Stop the platform that runs on this data directory
    Down,
    /// Show what runs and where
    Status,
    /// Watch what a platform does: requests and their times, who is behind, what its processes take
    Top(Top),
    /// Ask the door for operations at this port of this machine whether its service is ready
    Ready(Ready),
    /// Show the log of a platform
    Logs(Logs),
    /// Look for what keeps a platform from running well; fails on a finding
    Doctor,
    /// The only public door: REST, GraphQL, WebSocket and the terminal's gRPC
    Gateway(ServiceArgs),
    /// Users, passwords, sessions and tokens
    AuthService(ServiceArgs),
    /// Roles, permissions, and the audit log
    SecurityService(ServiceArgs),
    /// Profiles
    UserService(ServiceArgs),
    /// Instruments, quotes, candles, history and search
    StockService(ServiceArgs),
    /// The door for orders, and the read model of orders and fills
    OrderService(ServiceArgs),
    /// The door for accounts and money, the books of account, watchlists
    PortfolioService(ServiceArgs),
    /// The exchange: journal, orders and money, market data
    TradeEngine(ServiceArgs),
    /// The embedded NATS and JetStream server alone, or a look inside one
    Broker(Broker),
    /// The simulated market alone, against services that run elsewhere
    Sim(Sim),
    /// Bring every database to the newest schema
    Migrate,
    /// Make the databases of orders and of the books anew from the fact log; on a stack that is stopped
    Rebuild(Rebuild),
    /// Have a record of the journal passed over that breaks each start; on a stack that is stopped
    #[command(subcommand)]
    Journal(Journal),
    /// Copy a platform, also a running one, into a new directory
    Backup(Backup),
    /// Bring a backup into an empty data directory (and onto the server of database.url), audited before it is used
    Restore(Restore),
    /// Make and rotate certificates, passwords and keys
    #[command(subcommand)]
    Secrets(Secrets),
    /// Fill the databases with users, instruments, accounts and histories; idempotent
    Seed(Seed),
    /// Bring daily or minute bars of a symbol from a CSV file of Yahoo, Stooq, Alpaca, Binance or Polygon
    Import(Import),
    /// Open the trading terminal
    Trade(Trade),
    /// Try the terminal on a platform of its own that leaves nothing behind
    Demo(Demo),
    /// Make an account of your own on the platform
    Register(Register),
    /// Sign in; the session is kept for later commands
    Login(Login),
    /// Sign out
    Logout(Where),
    /// Show who is signed in, and what it may do
    Whoami(Where),
    /// Make, list and revoke API keys: bots need no password
    #[command(subcommand)]
    Key(Key),
    /// List and end your sessions
    #[command(subcommand)]
    Session(SessionCommand),
    /// Users, roles and the platform at a glance: for administrators
    #[command(subcommand)]
    Admin(Admin),
    /// Show the audit log: who did what, from where, and what became of it
    AuditLog(AuditLog),
    /// Place, change, cancel and list orders
    #[command(subcommand)]
    Order(Order),
    /// Show the live book of a symbol
    Book(Book),
    /// Show quotes
    Quote(Quote),
    /// Show daily bars of a symbol
    History(History),
    /// Show bars of a symbol, of seconds to months
    Candles(Candles),
    /// Show trades in a symbol
    Trades(Trades),
    /// Show what a year says of a symbol: range, volume, volatility, beta
    Statistics(InstrumentOf),
    /// Show what was traded at each price today
    Volume(VolumeOf),
    /// Look for symbols
    Search(Search),
    /// Show the listing of a symbol
    Instrument(InstrumentOf),
    /// Print what changes, as JSON lines: quotes, a book, trades, your orders, your portfolio
    Watch(Watch),
    /// List your fills, newest first
    Fills(Fills),
    /// Show accounts and positions
    Portfolio(Portfolio),
    /// Open accounts, deposit, withdraw and transfer
    #[command(subcommand)]
    Account(Account),
    /// Show an account's statement
    Statement(Statement),
    /// Show how the value of an account went
    Performance(Performance),
    /// Show what a position was bought in
    Lots(Lots),
    /// Report how an account went: equity, returns, gains, trades, flows, fees
    Report(Report),
    /// Show and change the watchlist
    Watchlist(Watchlist),
    /// Set alerts that the terminal rings, or wait for one here
    #[command(subcommand)]
    Alert(Alert),
    /// Check the invariants of a running stack
    Audit(Audit),
    /// Halt, resume and inspect a market: for operators, who need the permission manage_market
    Market(MarketCommand),
    /// Measure the matching core on the common order flow
    Bench(Bench),
    /// Put a platform under load and measure it: throughput and latency
    Load(Load),
    /// Replay a journal, or an order flow, and show what it comes to
    Replay(Replay),
    /// Show the configuration in force
    Config(Config),
    /// Print the schema of the GraphQL API in its own language
    Schema,
    /// Print what makes a shell complete commands and values: `source <(fafnir completions bash)`
    Completions(Completions),
    /// Print the manual page of a command, or write all of them
    Man(Man),
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Up {
    /// Secure every door by certificates of a private authority in the data directory, made where there are none
    #[arg(long)]
    pub tls: bool,
    /// `auto`: let the system pick free ports
    #[arg(long, value_name = "auto", value_parser = ["auto"])]
    pub ports: Option<String>,
    /// Port of the gateway
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of the embedded broker
    #[arg(long, value_name = "PORT")]
    pub broker_port: Option<u16>,
    /// Port of the embedded broker's monitoring
    #[arg(long, value_name = "PORT")]
    pub monitor_port: Option<u16>,
    /// Run without the simulated market
    #[arg(long)]
    pub no_sim: bool,
    /// Multiply the simulated market's activity (0 to 100)
    #[arg(long, value_name = "FACTOR")]
    pub sim_rate: Option<String>,
    /// Symbols that the simulated market trades, separated by commas [default: all]
    #[arg(long, value_name = "SYMBOLS")]
    pub sim_symbols: Option<String>,
    /// How the simulated market is [default: normal]
    #[arg(long, value_name = "MOOD", value_parser = moods())]
    pub market: Option<Mood>,
    /// Seed of every random choice of the simulated market
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
    /// A recorded day becomes the market of a symbol: order events, messages of LOBSTER, or bars (gzip or not)
    #[arg(long, value_name = "FILE")]
    pub market_file: Option<PathBuf>,
    /// Its symbol [default: the first word of the file's name]
    #[arg(long, value_name = "SYMBOL", requires = "market_file")]
    pub market_symbol: Option<String>,
    /// How fast its time passes, 0.01 to 1000 [default: 1]
    #[arg(long, value_name = "FACTOR", requires = "market_file")]
    pub speed: Option<String>,
    /// Where it begins: a time of its day (10:30), or a moment (2026-11-30T10:30:00Z) [default: its beginning]
    #[arg(long, value_name = "TIME", requires = "market_file")]
    pub from: Option<String>,
    /// Start with an empty data directory: what is in it is deleted
    #[arg(long)]
    pub fresh: bool,
    /// Leave it running in the background, once it is ready
    #[arg(long)]
    pub detach: bool,
    /// This is the process that `--detach` started
    #[arg(long, hide = true)]
    pub background: bool,
    /// This is the process that `fafnir demo` started: it ends with it, and its directory too
    #[arg(long, hide = true, requires = "background")]
    pub with_parent: bool,
    /// Only these services, in one process; the others answer where the configuration says
    #[arg(value_name = "SERVICE", value_parser = services(), conflicts_with_all = ["detach", "fresh"])]
    pub services: Vec<String>,
}

/// The names of the table of services.
fn services() -> clap::builder::PossibleValuesParser {
    fafnir_services::ALL.iter().map(|service| service.name).collect::<Vec<_>>().into()
}

#[derive(Debug, Args)]
pub struct Logs {
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long)]
    pub follow: bool,
    /// Show so many of the last lines that fit
    #[arg(short = 'n', long, value_name = "N", default_value_t = 100)]
    pub lines: usize,
    /// Only lines of this service; may be given more than once
    #[arg(long, value_name = "SERVICE")]
    pub service: Vec<String>,
    /// Only lines at least so severe
    #[arg(long, value_name = "LEVEL", default_value = "trace", value_parser = ["error", "warn", "info", "debug", "trace"])]
    pub level: String,
}

#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Port to listen on; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Broker {
    #[command(subcommand)]
    pub look: Option<BrokerLook>,
    /// Port to listen on; 0 picks a free one [default: 4222]
    #[arg(long, value_name = "PORT")]
    pub port: Option<u16>,
    /// Port of the monitoring over HTTP; 0 picks a free one [default: 8222, or a free one with --port 0]
    #[arg(long, value_name = "PORT")]
    pub monitor_port: Option<u16>,
    /// Let browsers connect over WebSockets on this port; 0 picks a free one
    #[arg(long, value_name = "PORT")]
    pub websocket_port: Option<u16>,
    /// Certificate with which clients have to secure their connections, as a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_certificate: Option<PathBuf>,
    /// Private key of the certificate, as a PEM file
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    pub tls_key: Option<PathBuf>,
    /// Where streams and password are kept, apart from any platform [default: <data-dir>/broker]
    #[arg(long, value_name = "DIR")]
    pub store_dir: Option<PathBuf>,
}

/// What of a running broker is shown.
#[derive(Debug, Subcommand)]
pub enum BrokerLook {
    /// List the streams of a running broker
    Streams(BrokerStreams),
    /// List the consumers of a running broker
    Consumers(BrokerConsumers),
}

#[derive(Debug, Args)]
pub struct BrokerStreams {
    /// nats://user:password@host:port of the broker [default: the running stack's]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
}

#[derive(Debug, Args)]
pub struct BrokerConsumers {
    /// nats://user:password@host:port of the broker [default: the running stack's]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Only the consumers of this stream
    pub stream: Option<String>,
}

/// The moods of the simulated market, each with a few words.
fn moods() -> impl clap::builder::TypedValueParser<Value = Mood> {
    let about = |mood| match mood {
        Mood::Quiet => "Less than half of the usual volatility",
        Mood::Normal => "Each symbol is as volatile as its daily bars say",
        Mood::Volatile => "More than twice the usual volatility",
        Mood::Crash => "Volatile, and within minutes everything loses a tenth, of which half comes back",
    };
    let values = Mood::ALL.map(|mood| clap::builder::PossibleValue::new(mood.name()).help(about(mood)));
    clap::builder::PossibleValuesParser::new(values)
        .try_map(|name| Mood::parse(&name).ok_or_else(|| format!("{name} is no mood")))
}

#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Sim {
    #[command(subcommand)]
    pub look: Option<SimLook>,
    /// How the market is [default: normal]
    #[arg(long, value_name = "MOOD", value_parser = moods())]
    pub market: Option<Mood>,
    /// Multiply the simulated market's activity (0 to 100)
    #[arg(long, value_name = "FACTOR")]
    pub rate: Option<String>,
    /// Symbols to trade, separated by commas [default: all]
    #[arg(long, value_name = "SYMBOLS")]
    pub symbols: Option<String>,
    /// Seed of every random choice
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,
}

/// What is done with the simulated market beside running it.
#[derive(Debug, Subcommand)]
pub enum SimLook {
    /// Play sessions of the simulated market by itself and compare it with what is known of real ones
    Check(SimCheck),
}

#[derive(Debug, Args)]
pub struct SimCheck {
    /// Sessions of 6.5 hours
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub sessions: u64,
    /// Seed of every random choice
    #[arg(long, default_value_t = 1, value_name = "NUMBER")]
    pub seed: u64,
    /// Symbols that are looked at, separated by commas; all are played
    #[arg(long, default_value = "AAPL,MSFT,NVDA,TSLA,AMZN", value_name = "SYMBOLS")]
    pub symbols: String,
    /// Directory with instruments.csv, instead of the built-in seeds
    #[arg(long, value_name = "DIR")]
    pub file: Option<PathBuf>,
    /// Write what those symbols publish to this file as CSV: trades, and the best prices of each minute
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Audit {
    /// Keep looking, every 10 s, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
}

#[derive(Debug, Args)]
pub struct Backup {
    /// Where the backup goes; a new directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
}

#[derive(Debug, Args)]
pub struct Restore {
    /// The backup
    #[arg(value_name = "DIR")]
    pub backup: PathBuf,
}

#[derive(Debug, Args)]
pub struct Rebuild {
    /// Whose database [default: both]
    #[arg(value_name = "SERVICE")]
    pub service: Vec<Projected>,
    /// A backup of the data directory to begin from, where the fact log does not reach to the beginning
    #[arg(long, value_name = "DIR")]
    pub from: Option<PathBuf>,
    /// Begin with what the oldest snapshot holds: orders that ended before it, trades and movements of money are lost
    #[arg(long, conflicts_with = "from")]
    pub accept_loss: bool,
}

#[derive(Debug, Subcommand)]
pub enum Journal {
    /// Pass over a record that breaks the exchange each time; no other can be
    Skip {
        /// Its number, as the start says it
        #[arg(value_name = "RECORD")]
        record: u64,
    },
}

/// A service whose database follows from the facts alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Projected {
    OrderService,
    PortfolioService,
}

impl Projected {
    pub fn name(self) -> &'static str {
        match self {
            Self::OrderService => "order-service",
            Self::PortfolioService => "portfolio-service",
        }
    }
}

#[derive(Debug, Args)]
pub struct Seed {
    /// Seed only this part; may be given several times
    #[arg(long, value_name = "PART")]
    pub only: Vec<SeedPart>,
    /// Directory with users.toml, instruments.csv and accounts.toml, instead of the built-in seeds
    #[arg(long, value_name = "DIR")]
    pub file: Option<PathBuf>,
    /// Apply what a row says otherwise than what is stored, which stays otherwise
    #[arg(long)]
    pub replace: bool,
    /// Read and check the seeds, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Import {
    /// The file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Whose bars they are, in any case; rows of other symbols are passed over
    #[arg(long, value_name = "SYMBOL")]
    pub symbol: String,
    /// What a column is called that is not recognised: time, clock, open, high, low, close, volume or symbol
    #[arg(long, value_name = "FIELD=NAME", value_parser = column)]
    pub column: Vec<(String, String)>,
    /// Round prices with more than four decimals, which are refused otherwise
    #[arg(long)]
    pub round: bool,
    /// Replace bars that are there, which stay otherwise
    #[arg(long)]
    pub replace: bool,
    /// List the symbol under this name, where it is not listed
    #[arg(long, value_name = "NAME")]
    pub list: Option<String>,
    /// Currency of the listing
    #[arg(long, value_name = "CURRENCY", default_value = "USD", requires = "list")]
    pub currency: String,
    /// Price step of the listing
    #[arg(long, value_name = "PRICE", default_value = "0.01", requires = "list")]
    pub tick: String,
    /// Smallest quantity of the listing
    #[arg(long, value_name = "QUANTITY", default_value = "1", requires = "list")]
    pub lot: String,
    /// Read and check the file, change nothing
    #[arg(long)]
    pub dry_run: bool,
}

fn column(text: &str) -> Result<(String, String), String> {
    const FIELDS: [&str; 8] = ["time", "clock", "open", "high", "low", "close", "volume", "symbol"];
    let (field, name) = text.split_once('=').ok_or("must be FIELD=NAME")?;
    if FIELDS.contains(&field) {
        Ok((field.to_owned(), name.to_owned()))
    } else {
        Err(format!("the field must be one of {}", FIELDS.join(", ")))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum SeedPart {
    Instruments,
    Histories,
    Users,
    Accounts,
    Watchlists,
}

/// Which platform a client command talks to.
#[derive(Debug, Args, Clone, Default)]
pub struct Where {
    /// Address of the gateway [default: the running stack's, else http://127.0.0.1:8080]
    #[arg(long, env = "FAFNIR_URL", value_name = "URL")]
    pub url: Option<String>,
    /// File with an API key, ID:SECRET, in place of a sign-in [default: the key in FAFNIR_KEY, where it is set]
    #[arg(long, env = "FAFNIR_KEY_FILE", value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// PEM file of the authority that the gateway's certificate is believed by [default: tls.authority, else the system's]
    #[arg(long, env = "FAFNIR_AUTHORITY", value_name = "FILE")]
    pub authority: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Ready {
    /// The service's port + 1000: 9080 of the gateway
    pub port: u16,
}

#[derive(Debug, Subcommand)]
pub enum Secrets {
    /// Make a private authority, and certificates of every service and client; again: new certificates of the same one
    Tls(SecretsTls),
    /// Write .env and tls/ for the Compose files into their directory
    Init(SecretsInit),
    /// Put a new secret in the place of one, with no moment at which a session ends or a call is refused
    Rotate(SecretsRotate),
    /// Print the public key that nats-server's auth callout needs (NATS_CALLOUT_ISSUER), made of the secret nats_sessions
    Issuer,
}

#[derive(Debug, Args)]
pub struct SecretsTls {
    /// Where ca.crt, ca.key, and a directory of each component with tls.crt, tls.key and ca.crt go (tls.dir)
    pub dir: PathBuf,
    /// One more host that each is reached by, name or address; {} stands for the component
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
    /// Days that the certificates are valid
    #[arg(long, default_value_t = 90, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=825))]
    pub days: u32,
    /// Days that the authority is valid, when it is made
    #[arg(long, default_value_t = 3650, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=7300))]
    pub authority_days: u32,
}

#[derive(Debug, Args)]
pub struct SecretsRotate {
    /// Which one
    pub secret: RotatedSecret,
    /// Seconds that the new one is accepted before it is used
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub overlap_s: u64,
    /// Accept the one before it no longer, and make no new one
    #[arg(long)]
    pub end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RotatedSecret {
    /// What services know one another by
    ServiceToken,
    /// The key that signs access tokens
    SigningKey,
    /// What binds a browser's CSRF token to its session
    CsrfKey,
    /// Password of the services at the embedded broker
    NatsServices,
    /// Makes the passwords with which sessions watch market data
    NatsSessions,
}

#[derive(Debug, Args)]
pub struct SecretsInit {
    /// The directory of the Compose files
    #[arg(default_value = "deployments/compose")]
    pub dir: PathBuf,
    /// One more host that the gateway and nats-server are reached by, name or address
    #[arg(long = "host", value_name = "HOST")]
    pub hosts: Vec<String>,
}

#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct Trade {
    #[command(flatten)]
    pub at: Where,
    /// Sign in as the seeded user user@test.com
    #[arg(long)]
    pub demo: bool,
    /// Start a platform in the background when none runs
    #[arg(long)]
    pub up: bool,
    /// Symbol to open with
    #[arg(long, value_name = "SYMBOL")]
    pub symbol: Option<String>,
    /// Look, but never send an order
    #[arg(long)]
    pub read_only: bool,
    /// Only ASCII characters
    #[arg(long)]
    pub ascii: bool,
    /// Colours of the two sides [default: terminal.theme]
    #[arg(long, value_name = "NAME")]
    pub theme: Option<ThemeName>,
    /// Leave the mouse to the terminal emulator
    #[arg(long)]
    pub no_mouse: bool,
    /// Record the session into a new file; passwords are never in it
    #[arg(long, value_name = "FILE")]
    pub record: Option<PathBuf>,
    /// Play a recorded session; nothing is sent anywhere
    #[arg(long, value_name = "FILE", conflicts_with_all = ["record", "up", "demo"])]
    pub replay: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Demo {
    /// Symbol to open with
    #[arg(long, value_name = "SYMBOL")]
    pub symbol: Option<String>,
    /// Only ASCII characters
    #[arg(long)]
    pub ascii: bool,
    /// Colours of the two sides [default: terminal.theme]
    #[arg(long, value_name = "NAME")]
    pub theme: Option<ThemeName>,
}

#[derive(Debug, Args)]
pub struct Register {
    #[command(flatten)]
    pub at: Where,
    /// E-mail to sign in with
    #[arg(long, value_name = "EMAIL")]
    pub email: String,
    /// First name
    #[arg(long, value_name = "NAME")]
    pub first_name: String,
    /// Last name
    #[arg(long, value_name = "NAME")]
    pub last_name: String,
    /// Read the password from standard input instead of asking
    #[arg(long)]
    pub password_stdin: bool,
}

/// Which colour is which side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ThemeName {
    BlueOrange,
    GreenRed,
    RedUp,
}

#[derive(Debug, Args)]
pub struct Login {
    #[command(flatten)]
    pub at: Where,
    /// E-mail; asked for when left out
    #[arg(long)]
    pub email: Option<String>,
    /// Read the password from standard input instead of asking
    #[arg(long)]
    pub password_stdin: bool,
    /// Sign in as the seeded user user@test.com
    #[arg(long)]
    pub demo: bool,
}

#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key; its secret is printed once and kept nowhere
    Create(KeyCreate),
    /// List the keys that were not revoked, newest first
    List(Where),
    /// End a key at every door within a second
    Revoke {
        #[command(flatten)]
        at: Where,
        /// The public half, or its beginning
        #[arg(value_name = "KEY")]
        key: String,
    },
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    #[command(flatten)]
    pub at: Where,
    /// What it is called in lists
    #[arg(value_name = "LABEL")]
    pub label: String,
    /// What it may do; trade includes read
    #[arg(long, value_name = "SCOPE", default_value = "read")]
    pub scope: KeyScope,
    /// The only account that it reaches, by its id or the beginning of it [default: all of them]
    #[arg(long, value_name = "ACCOUNT")]
    pub account: Option<String>,
    /// Days until it expires [default: never]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    pub days: Option<u32>,
    /// Address or network from where it opens, such as 10.0.0.0/8; may be given several times [default: anywhere]
    #[arg(long, value_name = "ADDRESS")]
    pub from: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum KeyScope {
    /// Look at everything of its user
    Read,
    /// Place and cancel orders and change the watchlist as well
    Trade,
}

#[derive(Debug, Subcommand)]
pub enum SessionCommand {
    /// List the sessions that have not ended, newest first
    List(Where),
    /// End a session, or all but this one, at every door within a second
    Revoke {
        #[command(flatten)]
        at: Where,
        /// The session's id, or its beginning or end
        #[arg(value_name = "SESSION", required_unless_present = "others")]
        session: Option<String>,
        /// Every session but this one
        #[arg(long, conflicts_with = "session")]
        others: bool,
    },
}

#[derive(Debug, Subcommand)]
pub enum Admin {
    /// Make an administrator: on the data directory of a running platform, which needs no sign-in
    Create(AdminCreate),
    /// List users, or those with these words in name, e-mail or id
    Users {
        #[command(flatten)]
        at: Where,
        /// A part of name, e-mail or id
        #[arg(value_name = "WORDS")]
        query: Option<String>,
        /// Only users in this state
        #[arg(long, value_name = "STATE")]
        state: Option<UserStateName>,
    },
    /// Take a user's access: sessions and keys end within a second; orders and money stay
    Deactivate(AdminUser),
    /// Give a user's access back
    Reactivate(AdminUser),
    /// End every session of a user; it may sign in again
    EndSessions(AdminUser),
    /// Show every role and what it permits, or the roles of a user
    Roles {
        #[command(flatten)]
        at: Where,
        /// The user's e-mail or id
        #[arg(value_name = "USER")]
        user: Option<String>,
    },
    /// Give a user a role
    Grant(AdminRole),
    /// Take a role from a user
    Revoke(AdminRole),
    /// Show the platform at a glance
    Dashboard(Where),
    /// Show the symbols that are not open
    Halts(Where),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum UserStateName {
    /// Registration is under way
    Pending,
    /// May sign in
    Active,
    /// An administrator took its access
    Deactivated,
    /// Deletion is under way
    Closing,
    /// Gone
    Deleted,
}

#[derive(Debug, Args)]
pub struct AdminCreate {
    /// E-mail of the new administrator
    #[arg(long, value_name = "EMAIL")]
    pub email: String,
    /// First name
    #[arg(long, value_name = "NAME", default_value = "Platform")]
    pub first_name: String,
    /// Last name
    #[arg(long, value_name = "NAME", default_value = "Administrator")]
    pub last_name: String,
    /// Read the password from standard input instead of asking
    #[arg(long)]
    pub password_stdin: bool,
}

#[derive(Debug, Args)]
pub struct AdminUser {
    #[command(flatten)]
    pub at: Where,
    /// The user's e-mail or id
    #[arg(value_name = "USER")]
    pub user: String,
}

#[derive(Debug, Args)]
pub struct AdminRole {
    #[command(flatten)]
    pub at: Where,
    /// The user's e-mail or id
    #[arg(value_name = "USER")]
    pub user: String,
    /// The role, such as admin
    #[arg(value_name = "ROLE")]
    pub role: String,
}

#[derive(Debug, Args)]
pub struct AuditLog {
    #[command(flatten)]
    pub at: Where,
    /// Go on with what comes, until Ctrl-C
    #[arg(short, long, conflicts_with = "verify")]
    pub follow: bool,
    /// Read the whole log and say whether a row was changed, removed, added or put elsewhere; fails where one was
    #[arg(long)]
    pub verify: bool,
    /// With --verify: a head that was written down, NUMBER:HASH, which the log must still hold
    #[arg(long, value_name = "HEAD", requires = "verify")]
    pub head: Option<String>,
    /// Show so many of the newest rows
    #[arg(short = 'n', long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub lines: u32,
    /// Only this action, such as session.open
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// Only what this user did, or what is about it: its id
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum Order {
    /// Place an order
    Place(Box<Place>),
    /// Buy with exits that follow its fills, or place exits alone
    Group(Box<Group>),
    /// Cancel an order, a group, or all of them
    Cancel(Cancel),
    /// Change quantity or price of an open order
    Replace(Replace),
    /// Cancel an account's orders in a symbol and sell all that it has of it
    Flatten(Flatten),
    /// List orders, newest first
    List(OrderList),
    /// Show one order with its fills
    Show(OrderShow),
    /// Show what happened to an order, step by step, and what it waits for
    Why(OrderWhy),
    /// Print an order as it changes, until it has ended
    Watch(OrderWatch),
}

#[derive(Debug, Args)]
pub struct Place {
    #[command(flatten)]
    pub at: Where,
    #[arg(value_parser = ["buy", "sell"], ignore_case = true)]
    pub side: String,
    pub symbol: String,
    /// Shares; or --notional
    #[arg(required_unless_present = "notional")]
    pub quantity: Option<String>,
    /// Buy or sell for this much of the listing's currency, rounded down to the lot
    #[arg(long, value_name = "AMOUNT", conflicts_with = "quantity")]
    pub notional: Option<String>,
    /// Limit price; without one the order is a market order
    #[arg(long, value_name = "PRICE")]
    pub price: Option<String>,
    /// Its type [default: limit with --price, stop with --stop, else market]
    #[arg(long, value_name = "TYPE", ignore_case = true, value_parser = ["market", "limit", "stop", "stop-limit", "trailing-stop"])]
    pub r#type: Option<String>,
    /// Stop price
    #[arg(long, value_name = "PRICE")]
    pub stop: Option<String>,
    /// Distance of a trailing stop
    #[arg(long, value_name = "AMOUNT")]
    pub trail: Option<String>,
    /// Distance of a trailing stop in percent
    #[arg(long, value_name = "PERCENT")]
    pub trail_percent: Option<String>,
    /// How long it stands; opg and cls: the next opening, or closing, auction only
    #[arg(long, value_name = "TIF", ignore_case = true, value_parser = ["day", "gtc", "ioc", "fok", "gtd", "opg", "cls"])]
    pub tif: Option<String>,
    /// When a gtd order expires, RFC 3339
    #[arg(long, value_name = "TIME")]
    pub expires: Option<String>,
    /// Refuse the order where it would trade at once
    #[arg(long)]
    pub post_only: bool,
    /// Show only this much of the quantity in the book
    #[arg(long, value_name = "QUANTITY")]
    pub display: Option<String>,
    /// Account to trade from [default: the oldest investment account in the listing's currency]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Your own id: sending the same order again with it changes nothing
    #[arg(long, value_name = "ID")]
    pub client_order_id: Option<String>,
    /// Wait until the order is done, or for this many seconds
    #[arg(long, value_name = "SECONDS")]
    pub wait: Option<u64>,
    /// Check it and show what it would need; send nothing
    #[arg(long, conflicts_with = "wait")]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Cancel {
    #[command(flatten)]
    pub at: Where,
    /// Id of the order
    #[arg(required_unless_present_any = ["all", "group"], conflicts_with_all = ["all", "group"])]
    pub order_id: Option<String>,
    /// Cancel every open order of this group
    #[arg(long, value_name = "ID", conflicts_with = "all")]
    pub group: Option<String>,
    /// Cancel every open order
    #[arg(long)]
    pub all: bool,
    /// With --all: only in this symbol
    #[arg(long, requires = "all", value_name = "SYMBOL")]
    pub symbol: Option<String>,
}

/// How the orders of a group depend on each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GroupKind {
    /// Buy, then sell what was bought: at the target or by the stop
    Bracket,
    /// Buy, then sell what was bought: by one exit
    Oto,
    /// Sell shares that are there: at the target or by the stop
    Oco,
}

#[derive(Debug, Args)]
pub struct Group {
    #[command(flatten)]
    pub at: Where,
    pub kind: GroupKind,
    pub symbol: String,
    pub quantity: String,
    /// Limit price of the entry; without one it is a market order
    #[arg(long, value_name = "PRICE")]
    pub price: Option<String>,
    /// Limit price at which to sell
    #[arg(long, value_name = "PRICE")]
    pub target: Option<String>,
    /// Stop price below which to sell
    #[arg(long, value_name = "PRICE")]
    pub stop: Option<String>,
    /// With --stop: the lowest price at which to sell
    #[arg(long, value_name = "PRICE", requires = "stop")]
    pub stop_limit: Option<String>,
    /// Sell by a trailing stop instead: its distance in the currency
    #[arg(long, value_name = "AMOUNT", conflicts_with = "stop")]
    pub trail: Option<String>,
    /// The same in percent
    #[arg(long, value_name = "PERCENT", conflicts_with_all = ["stop", "trail"])]
    pub trail_percent: Option<String>,
    /// day or gtc: of the entry, or of oco's exits [default: gtc]
    #[arg(long, value_name = "TIF")]
    pub tif: Option<String>,
    /// Account that trades [default: the oldest investment account in the listing's currency]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Your own id: sending the same group again with it changes nothing
    #[arg(long, value_name = "ID")]
    pub client_order_id: Option<String>,
    /// Check it and show what it would need; send nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Replace {
    #[command(flatten)]
    pub at: Where,
    /// Id of the order
    pub order_id: String,
    /// New total quantity
    #[arg(long)]
    pub quantity: Option<String>,
    /// New limit price
    #[arg(long)]
    pub price: Option<String>,
    /// New stop price
    #[arg(long)]
    pub stop: Option<String>,
    /// Trailing stop: new distance in the currency
    #[arg(long, value_name = "AMOUNT")]
    pub trail: Option<String>,
    /// Trailing stop: new distance in percent
    #[arg(long, value_name = "PERCENT", conflicts_with = "trail")]
    pub trail_percent: Option<String>,
    /// Check it and show what it would be; send nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct Flatten {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// Account that sells [default: the oldest investment account in the symbol's currency]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Show what would be canceled and sold; send nothing
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Debug, Args)]
pub struct OrderList {
    #[command(flatten)]
    pub at: Where,
    /// Only orders that can still trade
    #[arg(long)]
    pub open: bool,
    /// Only this symbol
    #[arg(long)]
    pub symbol: Option<String>,
    /// Only of this account
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// Only buy, or only sell
    #[arg(long)]
    pub side: Option<String>,
    /// Only in this state, e.g. filled or partially-filled; may be given several times
    #[arg(long, value_name = "STATE")]
    pub state: Vec<String>,
    /// Only orders older than this one: the last of the page before
    #[arg(long, value_name = "ID")]
    pub before: Option<String>,
    /// At most this many
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct OrderWhy {
    #[command(flatten)]
    pub at: Where,
    /// Id of the order
    pub order_id: String,
}

#[derive(Debug, Args)]
pub struct OrderWatch {
    #[command(flatten)]
    pub at: Where,
    /// Id of the order, or its beginning or end [default: every order, as JSON lines]
    pub order_id: Option<String>,
    /// End after this many lines
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
}

#[derive(Debug, Args)]
pub struct OrderShow {
    #[command(flatten)]
    pub at: Where,
    /// Id of the order
    pub order_id: String,
}

#[derive(Debug, Args)]
pub struct Book {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// Levels on each side
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=50))]
    pub depth: u32,
}

#[derive(Debug, Args)]
pub struct Quote {
    #[command(flatten)]
    pub at: Where,
    #[arg(required = true)]
    pub symbols: Vec<String>,
}

#[derive(Debug, Args)]
pub struct History {
    #[command(flatten)]
    pub at: Where,
    pub symbol: String,
    /// 1D, 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y or MAX
    #[arg(long, default_value = "1M")]
    pub period: String,
}

#[derive(Debug, Subcommand)]
pub enum Account {
    /// List accounts
    List(Where),
    /// Open an account
    Open(AccountOpen),
    /// Close an account: its orders are canceled, what is left in it goes to the house
    Close(AccountClose),
    /// Put paper money into an account
    Deposit(AccountDeposit),
    /// Take paper money out of an account
    Withdraw(AccountWithdraw),
    /// Move money between two of your accounts
    Transfer(AccountTransfer),
    /// List the transactions of an account
    Transactions(AccountTransactions),
}

#[derive(Debug, Args)]
pub struct AccountOpen {
    #[command(flatten)]
    pub at: Where,
    /// investment, savings or chequing
    pub r#type: String,
    /// USD or CAD
    pub currency: String,
    /// Your own id: sending the same request again with it opens nothing more
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct AccountClose {
    #[command(flatten)]
    pub at: Where,
    /// Id of the account
    pub account_id: String,
    /// Do it: a closed account does not open again
    #[arg(long)]
    pub yes: bool,
}

#[derive(Debug, Args)]
pub struct AccountDeposit {
    #[command(flatten)]
    pub at: Where,
    /// Id of the account
    pub account_id: String,
    pub amount: String,
    /// Your own id: sending the same deposit again with it changes nothing
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct AccountWithdraw {
    #[command(flatten)]
    pub at: Where,
    /// Id of the account
    pub account_id: String,
    pub amount: String,
    /// Your own id: sending the same withdrawal again with it changes nothing
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct AccountTransfer {
    #[command(flatten)]
    pub at: Where,
    pub from_account_id: String,
    pub to_account_id: String,
    pub amount: String,
    /// Your own id: sending the same transfer again with it changes nothing
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct AccountTransactions {
    #[command(flatten)]
    pub at: Where,
    /// Id of the account
    pub account_id: String,
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=500))]
    pub limit: u32,
}

#[derive(Debug, Args)]
pub struct Portfolio {
    #[command(flatten)]
    pub at: Where,
    /// Of the closed positions and the totals: 1D (today), 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y or MAX
    #[arg(long, default_value = "MAX")]
    pub period: String,
    #[command(flatten)]
    pub span: Span,
}

#[derive(Debug, Args)]
pub struct Report {
    #[command(flatten)]
    pub at: Where,
    /// Id of the account, open or closed [default: the oldest investment account]
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,
    /// 1D (today), 1W, 1M, 3M, 6M, 1Y, 2Y, 5Y or MAX
    #[arg(long, default_value = "1M")]
    pub period: String,
    #[command(flatten)]
    pub span: Span,
    /// Distance of the points of the equity curve: 1m, 5m, 15m, 1h or 1d
    #[arg(long, default_value = "1d")]
    pub interval: String,
    /// What it looks like
    #[arg(long, value_enum, default_value = "table")]
    pub format: ReportFormat,
    /// Write it to this file instead of the screen
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// What a report looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ReportFormat {
    /// Aligned columns, the newest rows
    Table,
    /// One table with every row
    Csv,
    /// One document with every row
    Json,
    /// One page that needs nothing else, with plots
    Html,
}

#[derive(Debug, Args)]
pub struct Watchlist {
    #[command(flatten)]
    pub at: Where,
    /// Add this symbol
    #[arg(long, value_name = "SYMBOL")]
    pub add: Vec<String>,
    /// Remove this symbol
    #[arg(long, value_name = "SYMBOL")]
    pub remove: Vec<String>,
}

#[derive(Debug, Args)]
pub struct MarketCommand {
    #[command(flatten)]
    pub at: Where,
    #[command(subcommand)]
    pub what: Market,
}

/// What is done with a recorded market.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RecordingAction {
    /// Its time stands
    Pause,
    /// Its time passes again
    Resume,
    /// It is paused, and does so many steps
    Step,
    /// Its time passes so fast
    Speed,
}

#[derive(Debug, Subcommand)]
pub enum Market {
    /// Change what a symbol does
    State {
        /// The symbol, in any case
        #[arg(value_name = "SYMBOL")]
        symbol: String,
        /// What it does from now on
        #[arg(value_name = "STATE")]
        state: MarketState,
    },
    /// Set the band around the reference price; a trade outside pauses the symbol until an auction reopens it
    #[command(group = clap::ArgGroup::new("width").required(true))]
    Volatility {
        /// The symbol, in any case
        #[arg(value_name = "SYMBOL")]
        symbol: String,
        /// Width to either side in basis points of the reference (1 to 9999)
        #[arg(long, value_name = "BPS", group = "width", value_parser = clap::value_parser!(u32).range(1..))]
        bps: Option<u32>,
        /// No band
        #[arg(long, group = "width")]
        off: bool,
    },
    /// Cancel every open order of everybody in a symbol
    Cancel {
        /// The symbol, in any case
        #[arg(value_name = "SYMBOL")]
        symbol: String,
    },
    /// Tell the simulated market that a symbol is worth more or less from now on
    #[command(allow_negative_numbers = true)]
    News {
        /// The symbol, in any case
        #[arg(value_name = "SYMBOL")]
        symbol: String,
        /// By so many percent: -3.5, +2 (-90 to 100)
        #[arg(value_name = "PERCENT", allow_hyphen_values = true)]
        change: String,
        /// Halt the symbol for so long first; orders gather in the last third, and an auction opens it (3 to 3600)
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(3..=3600))]
        halt: Option<u64>,
    },
    /// Pause a recorded market (`up --market-file`), let it go on, or see how far it is
    Recording {
        /// What it does from now on [default: what it did]
        #[arg(value_name = "ACTION")]
        action: Option<RecordingAction>,
        /// Of `step`, how many (at most 100000) [default: 1]; of `speed`, the factor
        #[arg(value_name = "NUMBER", requires = "action")]
        number: Option<String>,
    },
    /// Play a scenario for the simulated market, step by step at its times
    Play {
        /// opening-cross, flash-crash, squeeze, circuit-breaker, or a file like those in seeds/scenarios
        #[arg(value_name = "SCENARIO")]
        scenario: String,
        /// The symbol that it is played with, instead of its own
        #[arg(long, value_name = "SYMBOL")]
        symbol: Option<String>,
    },
    /// Show levels, orders in their queues and, in a call, what the auction would give
    Show {
        /// The symbol, in any case
        #[arg(value_name = "SYMBOL")]
        symbol: String,
        /// Levels per side (at most 1000)
        #[arg(long, value_name = "LEVELS", default_value_t = 10)]
        levels: u32,
        /// Orders per side (at most 1000)
        #[arg(long, value_name = "ORDERS", default_value_t = 10)]
        orders: u32,
    },
    /// Show where an order stands in its queue
    Queue {
        /// Id of the order
        #[arg(value_name = "ORDER")]
        order: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MarketState {
    /// Continuous trading; from a call the auction runs first
    Open,
    /// Orders may only be canceled
    Halted,
    /// Orders may only be canceled; from a call the closing auction runs first
    Closed,
    /// A call: orders gather, nothing trades
    PreOpen,
    /// The call before an auction
    Auction,
}

/// What the clients of a load do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scenario {
    /// Place limit orders that rest
    Orders,
    /// 50 % resting orders, 40 % cancels, 8 % market orders, 2 % replaces
    Mix,
    /// Send a market order and wait until both sides are settled and the client has been told
    RoundTrip,
    /// Ask for quotes
    Quotes,
}

#[derive(Debug, Args)]
pub struct Load {
    #[arg(value_enum, default_value = "orders")]
    pub scenario: Scenario,
    /// Requests under way at a time, 1 to 1,000 [default: 64; round-trip: 1]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub clients: Option<u32>,
    /// Requests a second on a schedule: an open loop, whose latencies count from when a request was due [default: a
    /// closed loop, where each client sends when its last answer came]
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub rate: Option<u32>,
    /// Seconds to measure, 1 to 3,600
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=3_600))]
    pub duration: u64,
    /// Seconds before that which do not count
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = clap::value_parser!(u64).range(0..=600))]
    pub warmup: u64,
    /// Signed-in users, at least one per client; a user may send 20 orders a second [default: one per 10 orders a
    /// second; closed loop: 4 per client; quotes and round-trip: 1 per client]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=2_000))]
    pub users: Option<u32>,
    /// Symbols to trade, separated by commas [default: every open one in USD]
    #[arg(long, value_name = "SYMBOLS", value_delimiter = ',')]
    pub symbols: Vec<String>,
    /// Which of the gateway's doors is asked
    #[arg(long, value_name = "DOOR", default_value = "graphql")]
    pub door: LoadDoor,
    /// Allow a gateway that is not on this machine
    #[arg(long)]
    pub remote: bool,
    #[command(flatten)]
    pub at: Where,
}

/// A door of the gateway that a load asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LoadDoor {
    /// GraphQL over HTTP, as a browser does
    Graphql,
    /// gRPC, as the terminal does
    Grpc,
}

impl LoadDoor {
    pub fn name(self) -> &'static str {
        match self {
            Self::Graphql => "graphql",
            Self::Grpc => "grpc",
        }
    }
}

#[derive(Debug, Args)]
pub struct Bench {
    /// A flow file; may be given several times [default: every flow, generated]
    #[arg(long, value_name = "FILE")]
    pub flow: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Replay {
    /// A data directory, its engine directory or a segment of the journal [default: the data directory]
    #[arg(value_name = "JOURNAL")]
    pub journal: Option<PathBuf>,
    /// Stop behind this record
    #[arg(long, value_name = "SEQUENCE")]
    pub to: Option<u64>,
    /// Stop behind the last record up to this time (RFC 3339)
    #[arg(long, value_name = "TIME")]
    pub at: Option<String>,
    /// Show the book of this symbol too
    #[arg(long, value_name = "SYMBOL")]
    pub symbol: Option<String>,
    /// Levels of the book per side
    #[arg(long, value_name = "LEVELS", default_value_t = 10, requires = "symbol")]
    pub depth: usize,
    /// Replay another journal beside it and show where the two part
    #[arg(long, value_name = "JOURNAL", conflicts_with = "symbol")]
    pub against: Option<PathBuf>,
    /// Replay an order flow straight into the book: the binary form, or a recorded CSV (also gzipped)
    #[arg(long, value_name = "FILE", conflicts_with_all = ["journal", "to", "at", "symbol", "against"])]
    pub flow: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Top {
    /// Seconds between two looks
    #[arg(long, default_value_t = 2, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub interval: u32,
    /// End after so many looks; without it Ctrl-C ends it
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub count: Option<u32>,
}

#[derive(Debug, Args)]
pub struct Config {
    /// Show where each value comes from
    #[arg(long)]
    pub show_origin: bool,
    /// Print every setting with its default and what it is for, as a fafnir.toml to start from
    #[arg(long, conflicts_with = "show_origin")]
    pub explain: bool,
}

#[derive(Debug, Args)]
pub struct Man {
    /// The command, such as order place [default: fafnir itself]
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    pub command: Vec<String>,
    /// Write the page of every command into this directory
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Completions {
    pub shell: clap_complete::Shell,
}
