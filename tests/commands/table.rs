//! The commands, in an order in which each finds what it needs.

/// Whose shell it is.
#[derive(Debug, Clone, Copy)]
pub enum Who {
    User,
    Admin,
    /// Not signed in.
    Nobody,
}

/// A command with what follows it. Words in braces stand for something of the stack.
#[derive(Debug)]
pub struct Row {
    pub path: &'static str,
    pub who: Who,
    pub args: &'static str,
    /// The same used wrongly.
    pub wrong: &'static str,
    /// What it prints depends on the day or the machine: only its shape is kept.
    pub shape: bool,
    /// It waits for something to happen.
    pub stirs: bool,
    /// Why it is not run here but for the wrong use; empty: it is.
    pub why: &'static str,
}

const fn row(who: Who, path: &'static str, args: &'static str, wrong: &'static str) -> Row {
    Row { path, who, args, wrong, shape: false, stirs: false, why: "" }
}

const fn shape(row: Row) -> Row {
    Row { shape: true, ..row }
}

/// Of what comes as it happens.
const fn stirs(path: &'static str, args: &'static str, wrong: &'static str) -> Row {
    Row { stirs: true, ..shape(row(Who::User, path, args, wrong)) }
}

const fn not_run(path: &'static str, wrong: &'static str, why: &'static str) -> Row {
    Row { why, ..row(Who::Nobody, path, "", wrong) }
}

/// Nobody listens there.
const NOWHERE: &str = "--url http://127.0.0.1:1";
const ELSEWHERE: &str = "AAPL --url http://127.0.0.1:1";
const SERVICE: &str = "serves until it is stopped; tests/processes.rs runs it";

/// Two daily bars.
pub const BARS: &str = "Date,Open,High,Low,Close,Volume\n2020-01-02,55.00,55.60,54.90,55.50,1000\n\
                        2020-01-03,55.50,55.70,54.80,54.90,1200\n";

use Who::{Admin, Nobody, User};

pub const ROWS: &[Row] = &[
    // Before anything else is in the log.
    shape(row(Nobody, "logs", "-n 1 --service trade-engine", "--service exchange")),
    // Who one is.
    row(User, "whoami", "", "--key-file /dev/null"),
    row(
        Nobody,
        "register",
        "--email {fresh} --first-name Ada --last-name Byron --password-stdin",
        "--email nobody --first-name Ada --last-name Byron --password-stdin",
    ),
    row(Nobody, "login", "--demo", "--email user@test.com"),
    row(User, "key create", "bot --days 30", "bot --days 0"),
    row(User, "key list", "", NOWHERE),
    row(User, "key revoke", "{key}", "PKNOPE"),
    shape(row(User, "session list", "", NOWHERE)),
    row(User, "session revoke", "{session}", "ffff"),
    // A market.
    row(User, "book", "AAPL", "NOPE"),
    shape(row(User, "quote", "AAPL KO", "NOPE")),
    shape(row(User, "history", "AAPL --period 1W", "AAPL --period 9Y")),
    shape(row(User, "candles", "AAPL --interval 1d --limit 2", "NOPE")),
    row(User, "trades", "AAPL --limit 1", "NOPE"),
    shape(row(User, "statistics", "AAPL", "NOPE")),
    row(User, "volume", "AAPL", "NOPE"),
    row(User, "search", "apple", "apple --limit 0"),
    row(User, "instrument", "AAPL", "NOPE"),
    stirs("watch quotes", "AAPL --count 1", ELSEWHERE),
    stirs("watch book", "AAPL --count 1", ELSEWHERE),
    stirs("watch trades", "AAPL --count 1", ELSEWHERE),
    stirs("watch orders", "--count 1", "--count 0"),
    stirs("watch portfolio", "--count 1", "--count 0"),
    // Orders.
    row(User, "order place", "buy AAPL 1 --price 200 --client-order-id {fresh}", "buy NOPE 1 --price 200"),
    row(User, "order group", "bracket AAPL 1 --price 200 --target 240 --stop 190", "oto AAPL 1 --price 200"),
    row(User, "order cancel", "{order}", "ffffffff"),
    row(User, "order replace", "{order} --price 201", "{order}"),
    row(User, "order flatten", "KO", "MSFT"),
    row(User, "order list", "--limit 2", "--state lost"),
    row(User, "order show", "{ended}", "ffffffff"),
    row(User, "order why", "{ended}", "ffffffff"),
    row(User, "order watch", "{ended}", "ffffffff"),
    shape(row(User, "fills", "--limit 1", "--limit 0")),
    // Money.
    shape(row(User, "portfolio", "", "--period 9Y")),
    shape(row(User, "account list", "", NOWHERE)),
    row(User, "account open", "savings USD", "pension USD"),
    row(User, "account close", "{opened} --yes", "{opened}"),
    row(User, "account deposit", "{opened} 10", "{opened} ten"),
    row(User, "account transfer", "{usd} {opened} 10", "{usd} {usd} 10"),
    row(User, "account withdraw", "{chequing} 10", "{chequing} 1000000"),
    row(User, "account transactions", "{chequing} --limit 2", "ffffffff"),
    shape(row(User, "statement", "", "--from yesterday")),
    shape(row(User, "performance", "--period 1W", "--period 9Y")),
    shape(row(User, "lots", "AAPL", "AAPL --at noon")),
    shape(row(User, "report", "--period 1W", "--format pdf")),
    row(User, "watchlist", "--add KO", "--add NOPE"),
    row(User, "alert add", "AAPL 300", "AAPL soon"),
    row(User, "alert list", "", NOWHERE),
    row(User, "alert remove", "AAPL {alert}", "NOPE"),
    shape(row(User, "alert wait", "AAPL <=100000 --timeout 20", "AAPL 300 --timeout 1")),
    // What operators do.
    row(Admin, "admin create", "--email {fresh} --password-stdin", "--email nobody --password-stdin"),
    row(Admin, "admin users", "user@test.com", "--state lost"),
    row(Admin, "admin deactivate", "{stranger}", "nobody@example.com"),
    row(Admin, "admin reactivate", "{stranger}", "nobody@example.com"),
    row(Admin, "admin end-sessions", "{stranger}", "nobody@example.com"),
    row(Admin, "admin roles", "user@test.com", "nobody@example.com"),
    row(Admin, "admin grant", "{stranger} admin", "{stranger} king"),
    row(Admin, "admin revoke", "{stranger} member", "nobody@example.com member"),
    shape(row(Admin, "admin dashboard", "", NOWHERE)),
    row(Admin, "market state", "KO halted", "NOPE halted"),
    row(Admin, "admin halts", "", NOWHERE),
    row(Admin, "market volatility", "KO --bps 500", "KO"),
    row(Admin, "market cancel", "KO", "NOPE"),
    row(Admin, "market news", "MSFT +2", "MSFT +200"),
    row(Admin, "market recording", "", "speed fast"),
    Row { why: "a scenario takes a minute and more", ..row(Admin, "market play", "", "nothing") },
    shape(row(Admin, "market show", "AAPL", "NOPE")),
    shape(row(Admin, "market queue", "{order}", "ffffffff")),
    shape(row(Admin, "audit-log", "-n 1", "-n 0")),
    shape(row(User, "audit", "", "--data-dir nowhere")),
    shape(row(Nobody, "status", "", "--data-dir nowhere")),
    shape(row(Nobody, "top", "--count 1", "--count 0")),
    row(Nobody, "ready", "{operations}", "1"),
    shape(row(Nobody, "doctor", "", "--nothing")),
    shape(row(Nobody, "broker streams", "", "--url nats://127.0.0.1:1")),
    shape(row(Nobody, "broker consumers", "facts", "--url nats://127.0.0.1:1")),
    shape(row(Nobody, "backup", "{new}", "{bars}")),
    row(Nobody, "secrets tls", "{new}", "{new} --days 0"),
    row(Nobody, "secrets init", "{made}", "{new}"),
    row(Nobody, "secrets issuer", "", "--data-dir nowhere"),
    row(Nobody, "seed", "--dry-run", "--file nowhere"),
    row(Nobody, "import", "{bars} --symbol KO --dry-run", "nowhere.csv --symbol KO"),
    row(Nobody, "config", "", "--config nowhere.toml"),
    row(Nobody, "man", "quote", "nothing"),
    not_run("schema", "--nothing", "services/gateway has it under a snapshot"),
    not_run("completions", "tcsh", "a script of the library's"),
    not_run("load", NOWHERE, "tests/load.rs runs it"),
    not_run("bench", "--flow nowhere", "what it measures takes long, and is no two times the same"),
    not_run("replay", "nowhere", "tests/replay.rs runs it"),
    not_run("sim check", "--symbols NOPE", "five sessions of a market take a minute in debug"),
    not_run("trade", "", "needs a terminal; tui/tests has its screens"),
    not_run("demo", "", "needs a terminal; tests/trader.rs runs it"),
    not_run("up", "", "runs meanwhile; tests/command_line.rs has its output"),
    not_run("gateway", "--port 99999", SERVICE),
    not_run("auth-service", "--port 99999", SERVICE),
    not_run("security-service", "--port 99999", SERVICE),
    not_run("user-service", "--port 99999", SERVICE),
    not_run("stock-service", "--port 99999", SERVICE),
    not_run("order-service", "--port 99999", SERVICE),
    not_run("portfolio-service", "--port 99999", SERVICE),
    not_run("trade-engine", "--port 99999", SERVICE),
    not_run("broker", "--tls-key nowhere", SERVICE),
    not_run("sim", "--market wild", SERVICE),
    not_run("migrate", "", "a stack that runs has migrated"),
    not_run("rebuild", "", "needs a stack that is stopped; tests/recovery.rs runs it"),
    not_run("journal skip", "1", "needs a journal that breaks; tests/replay.rs runs it"),
    not_run("restore", "nowhere", "needs a stack that is stopped; tests/disk.rs runs it"),
    not_run("secrets rotate", "nothing", "tests/rotation.rs runs it under load"),
    row(User, "logout", "", NOWHERE),
    row(Nobody, "down", "", "--data-dir nowhere"),
];
