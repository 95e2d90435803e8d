//! Databases on a Postgres server beside an embedded engine: what is lost, foreign or old is refused, and what follows from
//! the facts is made again.

use crate::harness::{Answer, Shell, Stack, binary};
use fafnir_services::trade_engine::{
    log::{FACTS, JOURNAL},
    seglog::{self, SegLog},
};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
};

static SHELVES: AtomicU32 = AtomicU32::new(0);
const NO_MARKET: [&str; 1] = ["--no-sim"];

/// One process whose databases are on the server; they go with it.
struct Shelf {
    stack: Stack,
    url: String,
    prefix: String,
}

impl Shelf {
    /// `None`, and a word, where the tests name no server.
    fn up() -> Option<Self> {
        let url = std::env::var("FAFNIR_TEST_POSTGRES_URL").ok().filter(|url| !url.is_empty());
        let Some(url) = url else {
            assert!(
                std::env::var("FAFNIR_TEST_REQUIRE_EXTERNAL").map_or(true, |v| v != "1"),
                "FAFNIR_TEST_POSTGRES_URL must be set"
            );
            println!("skipped: FAFNIR_TEST_POSTGRES_URL is not set");
            return None;
        };
        let prefix = format!("s{}_{}_", std::process::id(), SHELVES.fetch_add(1, Ordering::Relaxed));
        let stack = Stack::configured(&Self::config(&url, &prefix), &NO_MARKET);
        Some(Self { stack, url, prefix })
    }

    fn config(url: &str, prefix: &str) -> String {
        format!("[database]\nurl = \"{url}\"\nprefix = \"{prefix}\"\n")
    }

    fn name(&self, service: &str) -> String {
        format!("{}{service}_db", self.prefix)
    }

    fn psql(url: &str, database: &str, sql: &str) -> String {
        let answer = Command::new("psql").args([&format!("{url}{database}"), "-qAtc", sql]).output().unwrap();
        let answer = Answer::of(answer);
        assert_eq!(answer.code, 0, "{sql}: {answer:?}");
        answer.stdout.trim().to_owned()
    }

    /// In the database of a service.
    fn sql(&self, service: &str, sql: &str) -> String {
        Self::psql(&self.url, &self.name(service), sql)
    }

    /// Outside of all of them.
    fn administer(&self, sql: &str) {
        Self::psql(&self.url, "postgres", sql);
    }

    fn drop_database(&self, name: &str) {
        self.administer(&format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
    }

    fn rename(&self, from: &str, to: &str) {
        self.administer(&format!("ALTER DATABASE \"{from}\" RENAME TO \"{to}\""));
    }

    fn stop(&mut self) {
        assert_eq!(self.stack.process.interrupt(), Some(0), "{}", self.stack.process.log());
    }

    fn command(&self, args: &[&str]) -> Answer {
        let mut command = binary();
        command.args(args).args(["--json", "--data-dir"]).arg(self.stack.data_dir());
        Answer::of(command.current_dir(self.stack.dir.path()).output().unwrap())
    }

    /// Why it does not start.
    fn refusal(&self) -> String {
        let said = self.command(&["up", "--no-sim", "--ports", "auto"]);
        assert_eq!(said.code, 1, "{said:?}");
        said.stderr
    }
}

impl Drop for Shelf {
    fn drop(&mut self) {
        let sql = format!("SELECT datname FROM pg_database WHERE starts_with(datname, '{}')", self.prefix);
        for name in Self::psql(&self.url, "postgres", &sql).lines() {
            self.administer(&format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)"));
        }
    }
}

/// A trade, an open order and a deposit.
fn trade(stack: &Stack) -> Shell {
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    seller.json(&["order", "place", "sell", "NVDA", "30", "--price", "148.00"]);
    buyer.json(&["order", "place", "buy", "NVDA", "10", "--price", "148.00"]);
    buyer.json(&["order", "place", "buy", "NVDA", "1", "--price", "120.00"]);
    let account = buyer.account()["id"].as_str().unwrap().to_owned();
    buyer.json(&["account", "deposit", &account, "12.5"]);
    buyer.until(&["quote", "NVDA"], "the quote of the trade", |q| q[0]["price"] == "148");
    buyer
}

/// What a person sees of orders, shares and cash.
fn look(stack: &Stack) -> [Value; 3] {
    let buyer = stack.signed_in("user@test.com");
    buyer.until(&["quote", "NVDA"], "the quote of the trade", |q| q[0]["price"] == "148");
    let account = buyer.account();
    [buyer.json(&["order", "list"]), buyer.portfolio(), account]
}

#[test]
fn orders_and_books_on_a_server_are_made_anew_from_facts_or_from_a_backup() {
    let Some(mut shelf) = Shelf::up() else { return };
    let audit = trade(&shelf.stack).audit();
    let before = look(&shelf.stack);
    let backup = shelf.stack.dir.path().join("backup");
    let backup = backup.to_str().unwrap();
    let said = shelf.command(&["backup", backup]);
    assert_eq!(said.code, 0, "{said:?}");
    for args in [&["rebuild"][..], &["rebuild", "portfolio-service", "--from", backup]] {
        shelf.stack.process.kill();
        let done = shelf.command(args).json();
        for one in done.as_array().unwrap() {
            let kept = one["kept"].as_str().unwrap();
            assert!(!Shelf::psql(&shelf.url, kept, "SELECT id FROM store").is_empty(), "{done}");
        }
        shelf.stack.restart(&NO_MARKET);
        assert_eq!(look(&shelf.stack), before);
        let again = shelf.stack.shell("nobody").audit();
        for what in ["position", "openOrders", "transactions", "trades"] {
            assert_eq!(again[what], audit[what], "{what} is the same");
        }
    }
    shelf.stop();
}

/// Goes on in a new segment of the journal.
fn roll_journal(data_dir: &Path) {
    let (mut journal, _) = SegLog::open(JOURNAL, &data_dir.join("exchange"), 1).unwrap();
    journal.begin_segment().unwrap();
}

/// The exchange without the facts, and the commands, of before its last snapshot.
fn forget_facts(data_dir: &Path) {
    let dir = data_dir.join("exchange");
    let facts = seglog::segments(FACTS, &dir).unwrap();
    let commands = seglog::segments(JOURNAL, &dir).unwrap();
    for segment in facts.iter().chain(&commands[..commands.len() - 1]) {
        fs::remove_file(&segment.path).unwrap();
    }
}

/// Gives up what was before the fact log: `rebuild` answers a command, `restart` starts anew.
fn accepted_loss(stack: &mut Stack, lose: impl Fn(&Stack), command: impl Fn(&Stack, &[&str]) -> Answer) {
    trade(stack);
    assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
    roll_journal(&stack.data_dir());
    stack.restart(&NO_MARKET);
    stack.signed_in("user@test.com").json(&["order", "place", "buy", "NVDA", "1", "--price", "121.00"]);
    let before = &look(stack);
    assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
    forget_facts(&stack.data_dir());
    // The engine makes the log again, from its snapshot on.
    stack.restart(&NO_MARKET);
    assert_eq!(&look(stack), before);
    assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
    lose(stack);
    let refused = command(stack, &["up", "--no-sim", "--ports", "auto"]);
    assert!(refused.code == 1 && refused.stderr.contains("rebuild"), "{refused:?}");
    let refused = command(stack, &["rebuild"]);
    assert!(refused.code == 5 && refused.stderr.contains("REBUILD_NEEDS_BACKUP"), "{refused:?}");
    let done = command(stack, &["rebuild", "--accept-loss"]);
    assert_eq!(done.code, 0, "{done:?}");
    stack.restart(&NO_MARKET);
    let now = look(stack);
    // The open order, the shares and the cash are there; what was before is not.
    let open = |orders: &Value| -> Vec<Value> {
        orders.as_array().unwrap().iter().filter(|o| o["state"] == "NEW").cloned().collect()
    };
    assert_eq!(open(&now[0]), open(&before[0]));
    assert_eq!(now[0].as_array().unwrap().len(), open(&now[0]).len(), "history is lost: {}", now[0]);
    for what in ["balance", "held", "available"] {
        assert_eq!(now[2][what], before[2][what], "{what}");
    }
    let shares = |portfolio: &Value| -> Vec<(Value, Value)> {
        let all = portfolio["holdings"].as_array().unwrap().iter();
        all.map(|h| (h["symbol"].clone(), h["quantity"].clone())).collect()
    };
    assert_eq!(shares(&now[1]), shares(&before[1]));
    stack.shell("nobody").audit();
    // It trades on, and its books add up.
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    buyer.json(&["order", "place", "buy", "NVDA", "3", "--price", "148.00", "--wait", "20"]);
    seller.json(&["order", "list"]);
    buyer.audit();
}

#[test]
fn a_loss_that_is_accepted_begins_with_what_the_exchange_has() {
    let mut stack = Stack::configured("", &NO_MARKET);
    let lose = |stack: &Stack| {
        for name in ["order-service", "portfolio-service"] {
            for end in ["", "-wal", "-shm", "-sums"] {
                drop(fs::remove_file(stack.data_dir().join(format!("db/{name}.sqlite{end}"))));
            }
        }
    };
    let command = |stack: &Stack, args: &[&str]| {
        let mut command = binary();
        command.args(args).args(["--json", "--data-dir"]).arg(stack.data_dir());
        Answer::of(command.current_dir(stack.dir.path()).output().unwrap())
    };
    accepted_loss(&mut stack, lose, command);
}

#[test]
fn a_loss_that_is_accepted_on_a_server_begins_with_what_the_exchange_has() {
    let Some(mut shelf) = Shelf::up() else { return };
    let (url, names) = (shelf.url.clone(), [shelf.name("order"), shelf.name("portfolio")]);
    let lose = |_: &Stack| {
        for name in &names {
            Shelf::psql(&url, "postgres", &format!("DROP DATABASE \"{name}\" WITH (FORCE)"));
        }
    };
    let command = |stack: &Stack, args: &[&str]| {
        let mut command = binary();
        command.args(args).args(["--json", "--data-dir"]).arg(stack.data_dir());
        Answer::of(command.current_dir(stack.dir.path()).output().unwrap())
    };
    accepted_loss(&mut shelf.stack, lose, command);
    shelf.stop();
}

#[test]
fn a_database_of_a_server_that_is_lost_foreign_or_old_is_refused_and_a_projection_made_again() {
    let Some(mut shelf) = Shelf::up() else { return };
    trade(&shelf.stack);
    let before = look(&shelf.stack);
    let said = shelf.command(&["doctor"]);
    assert!(said.stdout.contains("postgres pages"), "{said:?}");
    shelf.stop();
    let (user, kept) = (shelf.name("user"), format!("{}kept", shelf.prefix));
    // An older copy.
    shelf.administer(&format!("CREATE DATABASE \"{kept}\" TEMPLATE \"{user}\""));
    shelf.stack.restart(&NO_MARKET);
    shelf.stack.signed_in("user@test.com").json(&["watchlist", "--add", "F"]);
    shelf.stop();
    let newer = format!("{}newer", shelf.prefix);
    shelf.rename(&user, &newer);
    shelf.rename(&kept, &user);
    let said = shelf.refusal();
    assert!(said.contains(&user) && said.contains("has lost what it had"), "{said}");
    // Gone.
    shelf.rename(&user, &kept);
    let said = shelf.refusal();
    assert!(said.contains(&format!("{user} is gone: user-service")), "{said}");
    assert!(said.contains("fafnir restore"), "{said}");
    // Another one.
    shelf.rename(&newer, &user);
    let id = shelf.sql("user", "SELECT id FROM store");
    shelf.sql("user", "UPDATE store SET id = decode(repeat('07', 16), 'hex')");
    let said = shelf.refusal();
    assert!(said.contains("is another store than the manifest names"), "{said}");
    shelf.sql("user", &format!("UPDATE store SET id = '{id}'"));
    // All of them are of another exchange.
    let exchange = shelf.sql("manifest", "SELECT follows FROM store");
    shelf.sql("manifest", "UPDATE store SET follows = decode(repeat('07', 16), 'hex')");
    let said = shelf.refusal();
    assert!(said.contains("follows exchange 07070707"), "{said}");
    shelf.sql("manifest", &format!("UPDATE store SET follows = '{exchange}'"));
    // The manifest itself, and with it whatever was on the server.
    let (manifest, aside) = (shelf.name("manifest"), format!("{}aside", shelf.prefix));
    shelf.rename(&manifest, &aside);
    let said = shelf.refusal();
    assert!(said.contains(&format!("{manifest} is gone")), "{said}");
    shelf.rename(&aside, &manifest);
    // What follows from the facts comes again.
    shelf.drop_database(&shelf.name("portfolio"));
    shelf.stack.restart(&NO_MARKET);
    assert!(shelf.stack.process.log().contains("is made again from the facts"));
    assert_eq!(look(&shelf.stack)[1..], before[1..]);
    shelf.stack.shell("nobody").audit();
    shelf.stop();
}
