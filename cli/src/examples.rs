//! Examples below the help of every command; a test reads each of them as a command line.

use fafnir_tui::columns::{Column, Table};

/// A command and lines that a shell takes, without the program's name.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "up",
        &[
            "up",
            "up --ports auto --no-sim",
            "up --market crash",
            "up auth-service user-service",
            "up --detach --data-dir /srv/fafnir",
        ],
    ),
    ("down", &["down", "down --data-dir /srv/fafnir"]),
    ("status", &["status", "status --json"]),
    ("top", &["top", "top --interval 5", "top --count 1 --json"]),
    ("ready", &["ready 9080"]),
    ("logs", &["logs -f", "logs --service order-service --level warn -n 500"]),
    ("doctor", &["doctor", "doctor --json"]),
    ("gateway", &["gateway", "gateway --port 8080"]),
    ("auth-service", &["auth-service --port 0"]),
    ("security-service", &["security-service --port 0"]),
    ("user-service", &["user-service --port 0"]),
    ("stock-service", &["stock-service --port 0"]),
    ("order-service", &["order-service --port 0"]),
    ("portfolio-service", &["portfolio-service --port 0"]),
    ("trade-engine", &["trade-engine --port 0"]),
    ("broker", &["broker --port 4222", "broker streams"]),
    ("broker streams", &["broker streams", "broker streams --json"]),
    ("broker consumers", &["broker consumers", "broker consumers facts"]),
    ("sim", &["sim", "sim --rate 5 --symbols AAPL,MSFT", "sim --market volatile --seed 7"]),
    (
        "sim check",
        &["sim check", "sim check --sessions 5 --seed 3 --symbols AAPL,KO", "sim check --record market.csv"],
    ),
    ("migrate", &["migrate", "migrate --data-dir /srv/fafnir"]),
    ("rebuild", &["rebuild", "rebuild order-service --from /backup/monday"]),
    ("journal skip", &["journal skip 4711"]),
    ("backup", &["backup /backup/monday"]),
    ("restore", &["restore /backup/monday --data-dir /srv/fafnir"]),
    ("secrets tls", &["secrets tls /srv/tls --host exchange.example --days 90"]),
    ("secrets init", &["secrets init deployments/compose"]),
    ("secrets rotate", &["secrets rotate signing-key", "secrets rotate service-token --overlap-s 30"]),
    ("secrets issuer", &["secrets issuer"]),
    ("seed", &["seed", "seed --dry-run", "seed --only instruments --file my-seeds --replace"]),
    (
        "import",
        &[
            "import KO.csv --symbol KO --dry-run",
            "import klines.csv --symbol BTC --list Bitcoin --lot 0.0001 --round",
        ],
    ),
    (
        "trade",
        &["trade", "trade --demo --up", "trade --symbol MSFT --read-only", "trade --replay yesterday.rec"],
    ),
    ("demo", &["demo", "demo --symbol MSFT"]),
    ("register", &["register --email ada@example.com --first-name Ada --last-name Byron"]),
    ("login", &["login", "login --demo", "login --email ada@example.com --password-stdin"]),
    ("logout", &["logout"]),
    ("whoami", &["whoami", "whoami --json"]),
    ("key create", &["key create my-bot --scope trade --days 90 --from 10.0.0.0/8"]),
    ("key list", &["key list"]),
    ("key revoke", &["key revoke PKDEVEL"]),
    ("session list", &["session list"]),
    ("session revoke", &["session revoke 01a2", "session revoke --others"]),
    ("admin create", &["admin create --email root@example.com --password-stdin"]),
    ("admin users", &["admin users", "admin users ada --state active"]),
    ("admin deactivate", &["admin deactivate ada@example.com"]),
    ("admin reactivate", &["admin reactivate ada@example.com"]),
    ("admin end-sessions", &["admin end-sessions ada@example.com"]),
    ("admin roles", &["admin roles", "admin roles ada@example.com"]),
    ("admin grant", &["admin grant ada@example.com admin"]),
    ("admin revoke", &["admin revoke ada@example.com admin"]),
    ("admin dashboard", &["admin dashboard"]),
    ("admin halts", &["admin halts"]),
    ("audit-log", &["audit-log -n 20", "audit-log --verify", "audit-log -f --action session.open"]),
    (
        "order place",
        &[
            "order place buy AAPL 10 --price 231.05",
            "order place sell AAPL 10 --stop 225 --tif day",
            "order place buy AAPL --notional 1000 --wait 10",
            "order place buy AAPL 10 --price 231.05 --dry-run",
            "order place sell AAPL 100 --price 240 --display 10 --client-order-id exit-1",
        ],
    ),
    (
        "order group",
        &[
            "order group bracket AAPL 10 --price 231 --target 240 --stop 225",
            "order group oto AAPL 10 --stop 225",
            "order group oco AAPL 10 --target 240 --trail-percent 2 --tif day",
            "order cancel --group ID",
        ],
    ),
    ("order cancel", &["order cancel 8f3a", "order cancel --all --symbol AAPL"]),
    ("order replace", &["order replace 8f3a --price 231.10", "order replace 8f3a --quantity 5"]),
    ("order flatten", &["order flatten AAPL"]),
    ("order list", &["order list --open", "order list --symbol AAPL --state filled --limit 100 --json"]),
    ("order show", &["order show 8f3a"]),
    ("order why", &["order why 8f3a"]),
    ("order watch", &["order watch 8f3a", "order watch --count 10"]),
    ("book", &["book AAPL", "book AAPL --depth 50 --json"]),
    ("quote", &["quote AAPL MSFT"]),
    ("history", &["history AAPL --period 1Y"]),
    ("candles", &["candles AAPL", "candles AAPL --interval 15m --limit 32 --json"]),
    ("statistics", &["statistics AAPL"]),
    ("trades", &["trades AAPL", "trades AAPL --after 4711 --limit 500 --json"]),
    ("volume", &["volume AAPL"]),
    ("search", &["search apple", "search bank --limit 3"]),
    ("instrument", &["instrument AAPL"]),
    ("watch quotes", &["watch quotes AAPL MSFT"]),
    ("watch book", &["watch book AAPL --count 1"]),
    ("watch trades", &["watch trades AAPL"]),
    ("watch orders", &["watch orders"]),
    ("watch portfolio", &["watch portfolio"]),
    ("fills", &["fills", "fills --symbol AAPL --limit 100 --json"]),
    ("portfolio", &["portfolio", "portfolio --period 1M"]),
    ("account list", &["account list"]),
    ("account open", &["account open investment USD"]),
    ("account close", &["account close ID --yes"]),
    ("account deposit", &["account deposit ID 1000"]),
    ("account withdraw", &["account withdraw ID 250.50"]),
    ("account transfer", &["account transfer FROM TO 100"]),
    ("account transactions", &["account transactions ID --limit 100"]),
    ("statement", &["statement", "statement --from 2026-01-01 --to 2026-03-31 --json"]),
    ("performance", &["performance", "performance --period 1Y"]),
    ("lots", &["lots AAPL", "lots AAPL --at 2026-06-30"]),
    ("report", &["report", "report --period 1Y --format html --output year.html"]),
    ("watchlist", &["watchlist", "watchlist --add NVDA --remove KO"]),
    ("alert list", &["alert list"]),
    (
        "alert add",
        &[
            "alert add AAPL 235",
            "alert add AAPL spread 0.05",
            "alert add AAPL pnl -500",
            "alert add AAPL stale 10",
        ],
    ),
    ("alert remove", &["alert remove AAPL", "alert remove AAPL pnl -500"]),
    ("alert wait", &["alert wait AAPL 235 --timeout 3600"]),
    ("audit", &["audit", "audit --watch"]),
    ("market state", &["market state AAPL halted", "market state AAPL open"]),
    ("market volatility", &["market volatility AAPL --bps 500", "market volatility AAPL --off"]),
    ("market news", &["market news TSLA -4.5", "market news AAPL +2 --halt 60"]),
    ("market recording", &["market recording", "market recording step 10", "market recording speed 50"]),
    ("market play", &["market play flash-crash", "market play squeeze --symbol NVDA"]),
    ("market cancel", &["market cancel AAPL"]),
    ("market show", &["market show AAPL --levels 20"]),
    ("market queue", &["market queue ID"]),
    ("bench", &["bench"]),
    ("load", &["load orders --clients 64 --duration 30", "load quotes --rate 5000"]),
    ("replay", &["replay", "replay --symbol AAPL --at 2026-11-30T14:00:00Z"]),
    ("config", &["config", "config --show-origin", "config --explain"]),
    ("schema", &["schema"]),
    ("completions", &["completions bash", "completions zsh"]),
    ("man", &["man", "man order place", "man --dir /usr/local/share/man/man1"]),
];

/// Puts the examples below the help of every command that has some.
pub fn with_examples(mut root: clap::Command) -> clap::Command {
    let actions: Vec<String> = fafnir_tui::keys::BINDINGS.iter().map(|row| row.action.name()).collect();
    let actions = format!("Actions that terminal.keys gives other keys:\n  {}", actions.join(" "));
    let mut named = format!("{actions}\nColumns that terminal.columns chooses:");
    for table in Table::ALL {
        let names: Vec<String> = table.columns().iter().map(Column::name).collect();
        named.push_str(&format!("\n  {}: {}", table.name(), names.join(" ")));
    }
    root = root.mut_subcommand("config", |config| config.after_help(named));
    for (path, lines) in EXAMPLES {
        let mut text = "Examples:".to_owned();
        for line in *lines {
            text.push_str("\n  fafnir ");
            text.push_str(line);
        }
        root = at(root, &path.split(' ').collect::<Vec<_>>(), &text);
    }
    root
}

fn at(command: clap::Command, path: &[&str], text: &str) -> clap::Command {
    match path {
        [] => {
            let before = command.get_after_help().map(ToString::to_string);
            let whole = before.map_or_else(|| text.to_owned(), |before| format!("{before}\n\n{text}"));
            command.after_help(whole)
        }
        [first, rest @ ..] if command.find_subcommand(first).is_some() => {
            command.mut_subcommand(first, |below| at(below, rest, text))
        }
        // Its test finds a row without a command.
        _ => command,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Cli;
    use clap::{CommandFactory as _, Parser as _};

    fn leaves(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for below in command.get_subcommands().filter(|c| c.get_name() != "help") {
            let path = format!("{path} {}", below.get_name());
            if !below.has_subcommands() {
                found.push(path.trim().to_owned());
            }
            leaves(below, &path, found);
        }
    }

    #[test]
    fn every_command_has_examples_and_each_of_them_is_one() {
        let root = Cli::command();
        let mut found = Vec::new();
        leaves(&root, "", &mut found);
        for path in &found {
            assert!(EXAMPLES.iter().any(|(at, _)| at == path), "`fafnir {path}` has no example");
        }
        for (path, lines) in EXAMPLES {
            let below = path.split(' ').try_fold(&root, |command, name| command.find_subcommand(name));
            assert!(below.is_some(), "there is no `fafnir {path}`");
            for line in *lines {
                let words = std::iter::once("fafnir").chain(line.split(' '));
                assert!(Cli::try_parse_from(words).is_ok(), "fafnir {line}");
            }
        }
        let help = with_examples(root).find_subcommand_mut("quote").map(|c| c.render_help().to_string());
        assert!(help.is_some_and(|text| text.contains("Examples:\n  fafnir quote AAPL MSFT")));
    }
}
