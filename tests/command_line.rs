//! The command line as its specification: help, outputs and refusals under snapshots.

use crate::harness::{Answer, Shell, Stack, binary};
use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt as _, path::Path};

fn run(dir: &Path, args: &[&str]) -> Answer {
    Answer::of(binary().args(args).current_dir(dir).env("HOME", dir).output().unwrap())
}

/// A snapshot of an answer without the paths of this run.
fn snapshot(name: &str, dir: &Path, answer: &Answer) {
    let text = format!("exit {}\n--- stdout\n{}--- stderr\n{}", answer.code, answer.stdout, answer.stderr);
    let text = text.replace(&dir.display().to_string(), "[DIR]");
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true,
        filters => vec![
            (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[ID]"),
            (r"\d{4}-\d\d-\d\dT[\d:.]+Z", "[TIME]"),
            (r"127\.0\.0\.1:\d+", "[ADDRESS]"),
            (r"process \d+", "process [PID]"),
            (r"\d+\.\d GiB", "[N] GiB"),
            (r"at most \d+\n", "at most [N]\n"),
            (r"\d+ records replayed", "[N] records replayed"),
        ]}, {
        insta::assert_snapshot!(name, text);
    });
}

/// Every command whose help is a part of the specification.
const COMMANDS: [&str; 81] = [
    "",
    "up",
    "down",
    "status",
    "ready",
    "logs",
    "doctor",
    "gateway",
    "order-service",
    "broker",
    "load",
    "broker streams",
    "broker consumers",
    "sim",
    "migrate",
    "rebuild",
    "journal",
    "journal skip",
    "backup",
    "restore",
    "secrets",
    "secrets tls",
    "secrets init",
    "secrets rotate",
    "secrets issuer",
    "seed",
    "trade",
    "login",
    "logout",
    "key",
    "key create",
    "key list",
    "key revoke",
    "session",
    "session list",
    "session revoke",
    "admin",
    "admin create",
    "admin users",
    "admin deactivate",
    "admin reactivate",
    "admin end-sessions",
    "admin roles",
    "admin grant",
    "admin revoke",
    "admin dashboard",
    "admin halts",
    "audit-log",
    "order",
    "order place",
    "order group",
    "order cancel",
    "order replace",
    "order flatten",
    "order list",
    "order show",
    "order why",
    "book",
    "quote",
    "history",
    "portfolio",
    "report",
    "account",
    "account open",
    "account deposit",
    "account withdraw",
    "account transfer",
    "account transactions",
    "watchlist",
    "audit",
    "market",
    "market state",
    "market volatility",
    "market cancel",
    "market show",
    "market queue",
    "bench",
    "replay",
    "config",
    "schema",
    "completions",
];

#[test]
fn help_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    for command in COMMANDS {
        let mut args: Vec<&str> = command.split_whitespace().collect();
        args.push("--help");
        let answer = run(dir.path(), &args);
        assert_eq!(answer.code, 0, "{answer:?}");
        all.push_str(&format!("$ fafnir {}\n{}\n", args.join(" "), answer.stdout));
    }
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("help", all);
    });
}

#[test]
fn wrong_input_answers_one_clear_line_and_the_right_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    snapshot("not_running", d, &run(d, &["status"]));
    snapshot(
        "not_signed_in",
        d,
        &run(d, &["order", "place", "buy", "AAPL", "1", "--url", "http://127.0.0.1:1"]),
    );
    snapshot("nobody_answers", d, &run(d, &["login", "--demo", "--url", "http://127.0.0.1:1"]));
    snapshot("not_an_address", d, &run(d, &["login", "--demo", "--url", "::"]));
    snapshot("unknown_side", d, &run(d, &["order", "place", "hold", "AAPL", "1"]));
    snapshot("malformed_quantity", d, &run(d, &["order", "place", "buy", "AAPL", "one"]));
    snapshot("missing_config_file", d, &run(d, &["config", "--config", "nowhere.toml"]));
    fs::write(d.join("fafnir.toml"), "[sim]\nrate = \"1\"\nspeed = 3\n").unwrap();
    snapshot("broken_config_file", d, &run(d, &["up"]));
    fs::write(d.join("fafnir.toml"), "[sim]\nrate = \"fast\"\n").unwrap();
    snapshot("wrong_config_value", d, &run(d, &["up"]));
    fs::remove_file(d.join("fafnir.toml")).unwrap();
    fs::write(d.join("file"), "").unwrap();
    snapshot("data_directory_is_a_file", d, &run(d, &["up", "--data-dir", "file/data"]));
    fs::create_dir(d.join("mine")).unwrap();
    fs::write(d.join("mine/thesis.txt"), "").unwrap();
    snapshot("fresh_spares_what_is_not_ours", d, &run(d, &["up", "--fresh", "--data-dir", "mine"]));
    assert!(d.join("mine/thesis.txt").exists());
    snapshot("seed_plan", d, &run(d, &["seed", "--dry-run"]));
    snapshot("seed_from_nowhere", d, &run(d, &["seed", "--file", "nowhere"]));
    snapshot("replay_of_nothing", d, &run(d, &["replay", "nowhere"]));
    snapshot("replay_without_a_journal", d, &run(d, &["replay", "mine"]));
    snapshot("replay_at_no_time", d, &run(d, &["replay", "mine", "--at", "noon"]));
    snapshot("replay_of_no_flow", d, &run(d, &["replay", "--flow", "mine/thesis.txt"]));
}

#[test]
fn a_taken_port_names_the_port_and_the_flag() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    // Only the broker's port can be met: it is bound first.
    let answer = run(dir.path(), &["up", "--data-dir", "data", "--broker-port", &port]);
    assert_eq!(answer.code, 1, "{answer:?}");
    assert!(answer.stderr.contains(&port) && answer.stderr.contains("--broker-port"), "{answer:?}");
}

#[test]
fn a_running_stack_is_found_used_and_stopped() {
    let stack = Stack::up(&["--no-sim"]);
    let d = stack.dir.path();
    let shell: Shell = stack.shell("somebody");
    let second = shell.run(&["up", "--ports", "auto"]);
    snapshot("second_up_on_the_same_directory", d, &second);
    let wrong = shell.with_input(&["login", "--email", "user@test.com", "--password-stdin"], "wrong\n");
    snapshot("wrong_password", d, &wrong);
    snapshot("login_demo", d, &shell.run(&["login", "--demo"]));
    snapshot("unknown_symbol", d, &shell.run(&["order", "place", "buy", "NOPE", "1", "--price", "10"]));
    snapshot("unknown_symbol_quote", d, &shell.run(&["quote", "NOPE"]));
    snapshot("order_placed", d, &shell.run(&["order", "place", "buy", "AAPL", "2", "--price", "230.10"]));
    shell.until(&["order", "list"], "the order in the book", |l| l[0]["state"] == "NEW");
    snapshot("order_list", d, &shell.run(&["order", "list"]));
    snapshot("portfolio", d, &shell.run(&["portfolio"]));
    shell.until(&["book", "AAPL"], "the bid in the book", |b| b["bids"][0]["price"] == "230.1");
    snapshot("book", d, &shell.run(&["book", "AAPL"]));
    snapshot("quote_without_a_trade", d, &shell.run(&["quote", "KO", "SHOP.TO"]));
    snapshot("watchlist", d, &shell.run(&["watchlist"]));
    snapshot("seed_again_changes_nothing", d, &shell.run(&["seed"]));
    let status = shell.json(&["status"]);
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["services"].as_object().unwrap().len(), 8, "{status}");
    assert_eq!(shell.run(&["down"]).code, 0);
    assert_eq!(shell.run(&["status"]).code, 3);
}

/// Stops the platform of a directory, whatever becomes of the test.
struct Background<'a>(&'a Path);

impl Drop for Background<'_> {
    fn drop(&mut self) {
        run(self.0, &["down", "--data-dir", "data"]);
    }
}

#[test]
fn a_platform_in_the_background_is_found_looked_at_and_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let up = ["up", "--detach", "--json", "--no-sim", "--ports", "auto", "--data-dir", "data"];
    let _stop = Background(d);
    let ready = run(d, &up).json();
    assert_eq!(ready["ready"], true, "{ready}");
    let status = run(d, &["status", "--json", "--data-dir", "data"]).json();
    assert_eq!((&status["pid"], &status["ready"]), (&ready["pid"], &true.into()), "{status}");
    snapshot("second_detached_up", d, &run(d, &up[..2].iter().chain(&up[3..]).copied().collect::<Vec<_>>()));

    let logs = |args: &[&str]| run(d, &[&["logs", "--data-dir", "data"], args].concat());
    let engine = logs(&["--service", "trade-engine"]);
    assert!(engine.stdout.contains("INFO trade-engine: the exchange stands"), "{engine:?}");
    assert!(engine.stdout.lines().all(|l| l.contains(" trade-engine: ")), "{engine:?}");
    let last = logs(&["-n", "1", "--json"]);
    assert!(last.json()["timestamp"].is_string(), "{last:?}");
    assert_eq!(logs(&["--level", "error"]).stdout, "");
    snapshot("logs_of_no_service", d, &logs(&["--service", "exchange"]));

    let doctor = |args: &[&str]| {
        let mut command = binary();
        command.args(["doctor", "--data-dir", "data"]).args(args).current_dir(d).env("HOME", d);
        Answer::of(command.env("TERM", "xterm").env("LC_ALL", "C.UTF-8").output().unwrap())
    };
    snapshot("doctor_of_a_running_stack", d, &doctor(&[]));
    assert_eq!(run(d, &["down", "--data-dir", "data"]).code, 0);
    assert_eq!(run(d, &["status", "--data-dir", "data"]).code, 3);
    assert!(logs(&["--service", "trade-engine"]).stdout.contains("the exchange stands"), "the log stays");

    fs::set_permissions(d.join("data/secrets"), fs::Permissions::from_mode(0o755)).unwrap();
    let answer = doctor(&["--json"]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let document: serde_json::Value = serde_json::from_str(&answer.stdout).unwrap();
    let found = document["checks"].as_array().unwrap().iter().find(|c| c["name"] == "private files").unwrap();
    assert_eq!((&document["healthy"], &found["state"]), (&false.into(), &"finding".into()), "{document}");
}

#[test]
fn a_platform_in_the_background_that_cannot_start_says_why() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let answer =
        run(dir.path(), &["up", "--detach", "--fresh", "--data-dir", "data", "--broker-port", &port]);
    assert_eq!(answer.code, 1, "{answer:?}");
    let owner =
        format!("{port}: Address already in use (os error 98), taken by process {}", std::process::id());
    assert!(answer.stderr.contains(&owner) && answer.stderr.contains("--broker-port"), "{answer:?}");
    snapshot("no_log", dir.path(), &run(dir.path(), &["logs", "--data-dir", "nowhere"]));
}

#[test]
fn an_unreadable_data_directory_is_one_clear_line() {
    if is_superuser() {
        println!("skipped: the superuser may read everything");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir(&data).unwrap();
    fs::set_permissions(&data, fs::Permissions::from_mode(0o000)).unwrap();
    let answer = run(dir.path(), &["up", "--ports", "auto", "--data-dir", "data"]);
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).unwrap();
    snapshot("data_directory_unreadable", dir.path(), &answer);
}

fn is_superuser() -> bool {
    fs::metadata("/proc/self").is_ok_and(|m| std::os::unix::fs::MetadataExt::uid(&m) == 0)
}

#[test]
fn completions_and_manual_page_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish"] {
        let answer = run(dir.path(), &["completions", shell]);
        assert!(answer.code == 0 && answer.stdout.contains("fafnir"), "{answer:?}");
    }
    assert!(run(dir.path(), &["man"]).stdout.starts_with(".ie"));
}
