//! What a shell is offered where a value is wanted: names that stand, and what the platform of the command line knows.
//!
//! A shell waits for this at every Tab: nothing is asked, nothing is told, and a platform that is slow offers nothing.

use crate::{
    args::{Cli, Color, Global, Where},
    client::{Client, gateway_unasked},
    commands::scenario,
    output::{Error, Result},
};
use clap::CommandFactory as _;
use clap_complete::{
    CompleteEnv, Shell,
    engine::{ArgValueCompleter, CompletionCandidate},
    env::Shells,
};
use fafnir_proto::v1::{Empty, ListOrdersRequest, Order};
use fafnir_rules::{
    money::{CURRENCIES as CODES, format_e4},
    order as rules,
};
use std::{
    collections::BTreeSet,
    ffi::{OsStr, OsString},
    path::{Path, PathBuf},
    time::Duration,
};

/// In the environment of a question: the shell that asks.
pub const VARIABLE: &str = "FAFNIR_COMPLETE";
/// A platform has so long to say that it is there, and then so long to answer.
const PATIENCE: Duration = Duration::from_millis(700);
/// Orders that are offered at most, the newest.
const ORDERS_MAX: u32 = 200;

/// What is offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Values {
    /// These.
    Words(&'static [&'static str]),
    /// The states of an order.
    States,
    /// The services of the table.
    Services,
    /// The scenarios that come with the program.
    Scenarios,
    /// Listed symbols.
    Symbols,
    /// Symbols of the caller's watchlist.
    Watched,
    /// The caller's orders that can still trade.
    Open,
    /// The caller's orders.
    Orders,
    /// Groups of those that can still trade.
    Groups,
    /// The caller's open accounts.
    Accounts,
    Keys,
    Sessions,
}

const PERIODS: Values = Values::Words(&["1D", "1W", "1M", "3M", "6M", "1Y", "2Y", "5Y", "MAX"]);
const POINTS: Values = Values::Words(&["1m", "5m", "15m", "1h", "1d"]);
const CURRENCIES: Values = Values::Words(&CODES);

/// The arguments whose values are known: the command that one is of (empty: of any), its id.
const KNOWN: &[(&str, &str, Values)] = &[
    ("watchlist", "remove", Values::Watched),
    ("watchlist", "add", Values::Symbols),
    ("", "symbol", Values::Symbols),
    ("", "symbols", Values::Symbols),
    ("", "sim_symbols", Values::Symbols),
    ("", "market_symbol", Values::Symbols),
    ("order cancel", "order_id", Values::Open),
    ("order replace", "order_id", Values::Open),
    ("market queue", "order", Values::Open),
    ("", "order_id", Values::Orders),
    ("order list", "before", Values::Orders),
    ("order cancel", "group", Values::Groups),
    ("", "account", Values::Accounts),
    ("", "account_id", Values::Accounts),
    ("", "from_account_id", Values::Accounts),
    ("", "to_account_id", Values::Accounts),
    ("key revoke", "key", Values::Keys),
    ("session revoke", "session", Values::Sessions),
    ("logs", "service", Values::Services),
    ("order list", "state", Values::States),
    ("order list", "side", Values::Words(&["buy", "sell"])),
    ("order group", "tif", Values::Words(&["day", "gtc"])),
    ("account open", "type", Values::Words(&["investment", "savings", "chequing"])),
    ("", "currency", CURRENCIES),
    ("", "period", PERIODS),
    ("performance", "interval", POINTS),
    ("report", "interval", POINTS),
    ("market play", "scenario", Values::Scenarios),
];

/// What is known of an argument.
fn known(path: &str, id: &str) -> Option<Values> {
    let fits = |(command, argument, _): &&(&str, &str, Values)| {
        (command.is_empty() || *command == path) && *argument == id
    };
    KNOWN.iter().find(fits).map(|(.., values)| *values)
}

/// Answers a shell, where one asks. True: nothing else is to be done.
pub fn answer() -> Result<bool> {
    let here = std::env::current_dir().ok();
    let question = CompleteEnv::with_factory(|| with_values(Cli::command(), "")).var(VARIABLE);
    question.try_complete(std::env::args_os(), here.as_deref()).map_err(|e| {
        Error::usage(format!("{VARIABLE}: {e}")).hint("`fafnir completions` prints what sets it")
    })
}

/// What tells a shell to ask this program.
pub fn script(shell: Shell) -> Result<String> {
    let name = std::env::args_os().next().unwrap_or_else(|| "fafnir".into());
    // Called by its path, it is asked by its path.
    let program = match Path::new(&name).components().count() {
        0 | 1 => name,
        _ => std::path::absolute(&name)?.into_os_string(),
    };
    let mut text = Vec::new();
    let shells = Shells::builtins();
    let asks = shells.completer(&shell.to_string());
    let asks = asks.ok_or_else(|| Error::usage(format!("{shell} cannot ask")))?;
    asks.write_registration(VARIABLE, "fafnir", "fafnir", &program.to_string_lossy(), &mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// The command with what is known of its values.
fn with_values(command: clap::Command, path: &str) -> clap::Command {
    let valued = command.mut_args(|arg| match known(path, arg.get_id().as_str()) {
        // Names that the parser itself knows come from there.
        Some(values) if arg.get_possible_values().is_empty() => {
            arg.add(ArgValueCompleter::new(move |typed: &OsStr| offered(values, typed)))
        }
        _ => arg,
    });
    valued.mut_subcommands(|below| {
        let path = format!("{path} {}", below.get_name());
        with_values(below, path.trim())
    })
}

/// What begins as what is typed; symbols in any case, and behind a comma.
fn offered(values: Values, typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let is_symbol = matches!(values, Values::Symbols | Values::Watched);
    let (before, begun) = match typed.rfind(',').filter(|_| is_symbol) {
        Some(comma) => typed.split_at(comma + 1),
        None => ("", &*typed),
    };
    let begun = if is_symbol { begun.to_uppercase() } else { begun.to_owned() };
    let mut all: Vec<_> = match values {
        Values::Words(words) => words.iter().map(CompletionCandidate::new).collect(),
        Values::Services => {
            fafnir_services::ALL.iter().map(|service| CompletionCandidate::new(service.name)).collect()
        }
        Values::Scenarios => scenario::names().map(CompletionCandidate::new).collect(),
        Values::States => {
            let name = |state: &rules::OrderState| state.name().to_ascii_lowercase().replace('_', "-");
            rules::OrderState::ALL.iter().map(|state| CompletionCandidate::new(name(state))).collect()
        }
        _ => asked(values).unwrap_or_default(),
    };
    all.retain(|candidate| candidate.get_value().to_string_lossy().starts_with(&begun));
    if before.is_empty() { all } else { all.into_iter().map(|c| c.add_prefix(before)).collect() }
}

/// What stands on the command line that a shell asks about, behind the `--` that ends the question.
fn words() -> Vec<String> {
    let behind = std::env::args_os().skip_while(|word| word != "--").skip(1);
    behind.map(|word: OsString| word.to_string_lossy().into_owned()).collect()
}

/// The value of an option among words.
pub fn said(words: &[String], option: &str) -> Option<String> {
    words.iter().enumerate().find_map(|(at, word)| match word.strip_prefix(option)? {
        "" => words.get(at + 1).cloned(),
        rest => rest.strip_prefix('=').map(str::to_owned),
    })
}

fn asked(values: Values) -> Option<Vec<CompletionCandidate>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().ok()?;
    runtime.block_on(ask(values, &words()))
}

/// Asks the platform that the words name; none where none answers, or nobody is signed in there.
async fn ask(values: Values, words: &[String]) -> Option<Vec<CompletionCandidate>> {
    let given = |option: &str, variable: &str| {
        let set = || std::env::var(variable).ok().filter(|text| !text.is_empty());
        said(words, option).or_else(set)
    };
    let path = |option: &str| said(words, option).map(PathBuf::from);
    let global = Global {
        config: path("--config"),
        data_dir: path("--data-dir"),
        trust_directory: false,
        json: false,
        color: Color::Never,
    };
    let at = Where {
        url: given("--url", "FAFNIR_URL"),
        key_file: given("--key-file", "FAFNIR_KEY_FILE").map(PathBuf::from),
        authority: given("--authority", "FAFNIR_AUTHORITY").map(PathBuf::from),
    };
    let gateway = gateway_unasked(&global, &at).ok()?;
    let mut stranger = Client::new(&gateway).ok()?;
    let greeting = stranger.request(Empty {});
    tokio::time::timeout(PATIENCE, stranger.terminal.info(greeting)).await.ok()?.ok()?;
    // Not given up half-way: a session that is renewed is stored.
    let mut client = Client::signed_in_at(&gateway, &at).await.ok()?;
    tokio::time::timeout(PATIENCE, values.of(&mut client)).await.ok()?.ok()
}

fn told(value: impl Into<OsString>, about: String) -> CompletionCandidate {
    CompletionCandidate::new(value).help(Some(crate::output::printable(&about).into()))
}

/// An order in few words: `BUY 5 AAPL @ 231.05 NEW`.
fn about(order: &Order) -> String {
    let (quantity, side, state) = (format_e4(order.quantity_e4), order.side().name(), order.state().name());
    match order.price_e4 {
        0 => format!("{side} {quantity} {} {state}", order.symbol),
        price => format!("{side} {quantity} {} @ {} {state}", order.symbol, format_e4(price)),
    }
}

impl Values {
    async fn of(self, client: &mut Client) -> Result<Vec<CompletionCandidate>> {
        let empty = client.request(Empty {});
        let terminal = &mut client.terminal;
        Ok(match self {
            Self::Words(_) | Self::States | Self::Services | Self::Scenarios => Vec::new(),
            Self::Symbols => {
                let listed = terminal.instruments(empty).await?.into_inner().instruments;
                listed.into_iter().map(|i| told(i.symbol, i.name)).collect()
            }
            Self::Watched => {
                let items = terminal.watchlist(empty).await?.into_inner().items;
                items.into_iter().map(|i| CompletionCandidate::new(i.symbol)).collect()
            }
            Self::Open | Self::Orders | Self::Groups => self.of_orders(client).await?,
            Self::Accounts => {
                let accounts = terminal.accounts(empty).await?.into_inner().accounts;
                let open = accounts.into_iter().filter(|a| !a.closed);
                open.map(|a| {
                    let kind = a.r#type().as_str_name().trim_start_matches("ACCOUNT_TYPE_").to_lowercase();
                    let about = format!("{kind} {}", a.currency);
                    told(a.id, about)
                })
                .collect()
            }
            Self::Keys => {
                let keys = terminal.keys(empty).await?.into_inner().keys;
                keys.into_iter().map(|k| told(k.id, k.label)).collect()
            }
            Self::Sessions => {
                let sessions = terminal.sessions(empty).await?.into_inner().sessions;
                sessions
                    .into_iter()
                    .map(|s| told(s.id, format!("{} {}", s.client_ip, s.user_agent)))
                    .collect()
            }
        })
    }

    async fn of_orders(self, client: &mut Client) -> Result<Vec<CompletionCandidate>> {
        let open_only = self != Self::Orders;
        let request = ListOrdersRequest { open_only, limit: ORDERS_MAX, ..Default::default() };
        let request = client.request(request);
        let orders = client.terminal.orders(request).await?.into_inner().orders;
        if self == Self::Groups {
            let groups: BTreeSet<String> = orders.into_iter().map(|o| o.group_id).collect();
            return Ok(groups
                .into_iter()
                .filter(|id| !id.is_empty())
                .map(CompletionCandidate::new)
                .collect());
        }
        Ok(orders.iter().map(|order| told(&order.id, about(order))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments whose values only the user knows, or that are files, numbers, addresses.
    const FREE: &[&str] = &[
        "action",
        "after",
        "amount",
        "at",
        "authority_days",
        "bps",
        "broker_port",
        "change",
        "client_order_id",
        "clients",
        "column",
        "command",
        "count",
        "days",
        "depth",
        "display",
        "duration",
        "email",
        "expires",
        "first_name",
        "from",
        "halt",
        "head",
        "hosts",
        "idempotency_key",
        "interval",
        "label",
        "last_name",
        "levels",
        "limit",
        "lines",
        "list",
        "lot",
        "market_from",
        "moment",
        "monitor_port",
        "notional",
        "number",
        "orders",
        "overlap_s",
        "port",
        "price",
        "quantity",
        "query",
        "rate",
        "record",
        "role",
        "sessions",
        "seed",
        "sim_rate",
        "speed",
        "stop",
        "stop_limit",
        "stream",
        "target",
        "tick",
        "timeout",
        "to",
        "trail",
        "trail_percent",
        "url",
        "user",
        "users",
        "wait",
        "warmup",
        "websocket_port",
        "when",
    ];

    fn unknown(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for arg in command.get_arguments().filter(|arg| arg.get_action().takes_values()) {
            let id = arg.get_id().as_str();
            let names = !arg.get_possible_values().is_empty();
            let is_path = arg.get_value_hint() != clap::ValueHint::Unknown;
            if !names && !is_path && known(path, id).is_none() && !FREE.contains(&id) {
                found.push(format!("{path}: {id}"));
            }
        }
        for below in command.get_subcommands() {
            unknown(below, format!("{path} {}", below.get_name()).trim(), found);
        }
    }

    #[test]
    fn each_argument_is_offered_values_or_said_to_have_none() {
        let mut root = Cli::command();
        root.build();
        let mut found = Vec::new();
        unknown(&root, "", &mut found);
        assert!(found.is_empty(), "what is there to offer? {found:#?}");
        for (path, id, _) in KNOWN.iter().filter(|(path, ..)| !path.is_empty()) {
            let command = path.split(' ').try_fold(&root, |command, name| command.find_subcommand(name));
            let has = command.is_some_and(|command| command.get_arguments().any(|arg| arg.get_id() == *id));
            assert!(has, "`fafnir {path}` has no {id}");
        }
    }

    #[test]
    fn what_is_typed_chooses_and_stands_before_what_is_offered() {
        let of = |values, typed: &str| -> Vec<String> {
            let all = offered(values, OsStr::new(typed));
            all.iter().map(|c| c.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(of(PERIODS, "1"), ["1D", "1W", "1M", "1Y"]);
        assert_eq!(of(Values::States, "part"), ["partially-filled"]);
        assert_eq!(of(Values::Services, "portfolio"), ["portfolio-service"]);
    }

    #[test]
    fn options_are_read_in_both_forms() {
        let words: Vec<String> =
            ["fafnir", "--data-dir=/a", "quote", "--url", "http://b"].map(Into::into).into();
        assert_eq!(said(&words, "--data-dir").as_deref(), Some("/a"));
        assert_eq!(said(&words, "--url").as_deref(), Some("http://b"));
        assert_eq!(said(&words, "--ur"), None);
    }
}
