//! Everything that the GraphQL API offers has a command, or a reason why it has none.

use crate::args::Cli;
use clap::CommandFactory as _;
use std::collections::BTreeSet;

/// What serves a root field.
enum Served {
    By(&'static str),
    /// No command, and why.
    Not(&'static str),
}
use Served::{By, Not};

/// Root fields of the schema and the commands that do the same.
const FIELDS: &[(&str, Served)] = &[
    ("addToWatchlist", By("watchlist")),
    ("apiKeys", By("key list")),
    ("auditLog", By("audit-log")),
    ("cancelAllOrders", By("order cancel")),
    ("cancelOrder", By("order cancel")),
    ("cancelOrderGroup", By("order cancel")),
    ("cancelSymbolOrders", By("market cancel")),
    ("candles", By("candles")),
    ("checkPermission", By("whoami")),
    ("createAccount", By("account open")),
    ("createApiKey", By("key create")),
    ("createOrder", By("order place")),
    ("createOrderGroup", By("order group")),
    ("deactivateUser", By("admin deactivate")),
    ("deleteAccount", By("account close")),
    ("deposit", By("account deposit")),
    ("endSessions", By("admin end-sessions")),
    ("flatten", By("order flatten")),
    ("getHolding", By("portfolio")),
    ("getHoldings", By("portfolio")),
    ("getOrderByOrderID", By("order show")),
    ("getOrders", By("order list")),
    ("getPortfolioSummary", By("portfolio")),
    ("getProfileData", By("whoami")),
    ("getStockHistoricalData", By("history")),
    ("getStockMetadata", By("instrument")),
    ("getStockQuote", By("quote")),
    ("getStockQuoteBatch", By("quote")),
    ("getTransactions", By("account transactions")),
    ("getWatchlist", By("watchlist")),
    ("grantRole", By("admin grant")),
    ("halts", By("admin halts")),
    ("health", By("status")),
    ("lots", By("lots")),
    (
        "marketData",
        Not("hands a browser its market-data address; `watch` and `trade` are given theirs at sign-in"),
    ),
    ("orderBook", By("book")),
    ("orderBookUpdates", By("watch book")),
    ("orderHistory", By("order why")),
    ("orderUpdates", By("watch orders")),
    ("platformStatus", By("admin dashboard")),
    ("portfolioPerformance", By("performance")),
    ("portfolioUpdates", By("watch portfolio")),
    ("quoteUpdates", By("watch quotes")),
    ("reactivateUser", By("admin reactivate")),
    ("realizedGains", By("portfolio")),
    ("removeFromWatchlist", By("watchlist")),
    ("replaceOrder", By("order replace")),
    ("report", By("report")),
    ("revokeApiKey", By("key revoke")),
    ("revokeOtherSessions", By("session revoke")),
    ("revokeRole", By("admin revoke")),
    ("revokeSession", By("session revoke")),
    ("roles", By("admin roles")),
    ("searchStocks", By("search")),
    ("sessions", By("session list")),
    ("setTradingState", By("market state")),
    ("setVolatilityBand", By("market volatility")),
    ("statement", By("statement")),
    ("statistics", By("statistics")),
    ("tradeUpdates", By("watch trades")),
    ("trades", By("trades")),
    ("transfer", By("account transfer")),
    ("userPermissions", By("admin roles")),
    ("users", By("admin users")),
    ("verifyAuditLog", By("audit-log")),
    ("withdraw", By("account withdraw")),
];

/// The fields of the three root types, by the indentation of their first line.
fn root_fields(schema: &str) -> BTreeSet<String> {
    let mut fields = BTreeSet::new();
    let (mut inside, mut in_text, mut depth) = (false, false, 0i32);
    for line in schema.lines() {
        let text = line.trim();
        if text.starts_with("\"\"\"") || (in_text && text.ends_with("\"\"\"")) {
            // A text on one line begins and ends there.
            in_text = !(in_text || (text.len() > 3 && text.ends_with("\"\"\"")));
            continue;
        }
        if in_text {
            continue;
        }
        if let Some(rest) = text.strip_prefix("type ") {
            inside =
                ["Query", "Mutation", "Subscription"].contains(&rest.split_whitespace().next().unwrap_or(""));
        } else if text == "}" {
            inside = false;
        } else if inside {
            let name: String = text.chars().take_while(char::is_ascii_alphanumeric).collect();
            if depth == 0 && !name.is_empty() {
                fields.insert(name);
            }
            depth += text.matches('(').count() as i32 - text.matches(')').count() as i32;
        }
    }
    fields
}

#[test]
fn everything_that_graphql_offers_has_a_command_or_a_reason() {
    let schema = root_fields(&fafnir_services::gateway::sdl());
    assert!(schema.len() > 50, "{schema:?}");
    let told: BTreeSet<String> = FIELDS.iter().map(|(field, _)| (*field).to_owned()).collect();
    assert_eq!(schema, told, "a field that is new needs a row here, and a command; one that went has none");
    let root = Cli::command();
    for (field, served) in FIELDS {
        match served {
            By(path) => {
                let found = path.split(' ').try_fold(&root, |command, name| command.find_subcommand(name));
                assert!(found.is_some(), "{field}: there is no `fafnir {path}`");
            }
            Not(why) => assert!(why.len() > 20, "{field} needs a reason"),
        }
    }
}
