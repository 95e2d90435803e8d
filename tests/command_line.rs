//! The command line as its specification: help, outputs and refusals under snapshots.

use crate::harness::{Answer, Shell, Stack, binary};
use serde_json::Value;
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

/// The commands that a help lists.
fn listed(help: &str) -> Vec<String> {
    let lines = help.lines().skip_while(|l| *l != "Commands:").skip(1).take_while(|l| !l.is_empty());
    // A line of its own is a command's; one that goes on is further in.
    let names = lines.filter(|l| l.starts_with("  ") && !l.starts_with("   "));
    names.filter_map(|l| l.split_whitespace().next()).filter(|n| *n != "help").map(str::to_owned).collect()
}

#[test]
fn help_of_every_command() {
    let dir = tempfile::tempdir().unwrap();
    let mut all = String::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(path) = open.pop() {
        let mut args: Vec<&str> = path.iter().map(String::as_str).collect();
        args.push("--help");
        let answer = run(dir.path(), &args);
        assert_eq!(answer.code, 0, "{answer:?}");
        all.push_str(&format!("$ fafnir {}\n{}\n", args.join(" "), answer.stdout));
        let below = listed(&answer.stdout).into_iter().rev();
        open.extend(below.map(|name| path.iter().cloned().chain([name]).collect()));
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
        "nothing_runs",
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
    snapshot("not_signed_in", d, &shell.run(&["order", "place", "buy", "AAPL", "1"]));
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
    let waited = shell.run(&["order", "place", "buy", "AAPL", "2", "--price", "230.10", "--wait", "0"]);
    assert_eq!(waited.code, 6, "{waited:?}");
    assert!(
        waited.stderr.contains("TIMEOUT: the order is ") && waited.stderr.contains("order show"),
        "{waited:?}"
    );
    assert_eq!(shell.run(&["order", "cancel", &waited.stdout.lines().nth(1).unwrap()[..36]]).code, 0);
    a_shell_is_offered_what_the_platform_knows(&shell, &stack.shell("nobody"));
    snapshot("seed_again_changes_nothing", d, &shell.run(&["seed"]));
    let status = shell.json(&["status"]);
    assert_eq!(status["ready"], true, "{status}");
    assert_eq!(status["services"].as_object().unwrap().len(), 8, "{status}");
    assert_eq!(shell.run(&["down"]).code, 0);
    assert_eq!(shell.run(&["status"]).code, 3);
}

/// What bash is offered for the last of the words.
fn offered(shell: &Shell, words: &[&str]) -> Answer {
    let mut command = shell.command(&[&["--", "fafnir"], words].concat());
    command.env("FAFNIR_COMPLETE", "bash").env("_CLAP_IFS", "\n");
    Answer::of(command.env("_CLAP_COMPLETE_INDEX", words.len().to_string()).output().unwrap())
}

fn a_shell_is_offered_what_the_platform_knows(shell: &Shell, stranger: &Shell) {
    let orders = shell.json(&["order", "list", "--open"]);
    let id = orders[0]["id"].as_str().unwrap();
    for (words, wanted) in [
        (&["quote", "KO", "aap"][..], "AAPL"),
        (&["up", "--sim-symbols", "KO,aap"], "KO,AAPL"),
        (&["order", "cancel", &id[..30]], id),
        (&["order", "list", "--state", "part"], "partially-filled"),
        (&["watchlist", "--remove", "SHO"], "SHOP.TO"),
        // Nothing runs there.
        (&["quote", "--url", "http://127.0.0.1:1", "A"], ""),
    ] {
        let answer = offered(shell, words);
        assert_eq!((answer.code, &*answer.stdout, &*answer.stderr), (0, wanted, ""), "{words:?}");
    }
    let answer = offered(stranger, &["quote", "aap"]);
    assert_eq!((answer.code, &*answer.stdout, &*answer.stderr), (0, "", ""), "nobody is signed in");
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
fn a_start_that_fails_is_a_line_of_the_log_where_logs_are_json() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for (config, args, code, exit) in [
        ("", &["broker", "--port", &port][..], "PORT_TAKEN", 1),
        ("[traces]\nendpoint = \"collector:4317\"\n", &["up", "--no-sim", "--ports", "auto"], "", 1),
        ("[order]\nopen_orders_max = \"many\"\n", &["order-service"], "CONFIGURATION", 2),
        ("[orders]\nmax = 1\n", &["gateway"], "CONFIGURATION", 2),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("fafnir.toml"), format!("[log]\nformat = \"json\"\n{config}")).unwrap();
        let answer = run(dir.path(), args);
        let lines = answer.stderr.lines().map(serde_json::from_str::<Value>).collect::<Result<Vec<_>, _>>();
        let last = lines.unwrap_or_else(|e| panic!("{e}: {answer:?}")).pop().unwrap();
        assert_eq!(
            (answer.code, &last["level"], &last["code"]),
            (exit, &"ERROR".into(), &code.into()),
            "{answer:?}"
        );
        assert!(last["timestamp"].as_str().is_some_and(|time| time.ends_with('Z')), "{last}");
        assert!(last["message"].as_str().is_some_and(|message| !message.is_empty()), "{last}");
    }
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
fn what_cannot_be_printed_is_a_failure_and_a_reader_that_went_away_is_none() {
    let dir = tempfile::tempdir().unwrap();
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut schema = binary();
    schema.arg("schema").current_dir(dir.path()).env("HOME", dir.path());
    let output = schema.stdout(full).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output cannot be written: No space left on device"), "{said}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(schema.stdout(writer).output().unwrap().status.code(), Some(0));
}

/// A gateway that takes every connection and never answers.
fn silent_gateway() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn an_order_without_an_answer_says_how_to_ask_again() {
    let dir = tempfile::tempdir().unwrap();
    let (_listener, url) = silent_gateway();
    let place = |more: &[&str]| {
        let mut command = binary();
        command.args(["order", "place", "buy", "AAPL", "1", "--url", &url]).args(more);
        command.current_dir(dir.path()).env("HOME", dir.path()).env("FAFNIR_KEY", "PKTEST:secret");
        Answer::of(command.output().unwrap())
    };
    std::thread::scope(|scope| {
        let own = scope.spawn(|| place(&["--client-order-id", "mine-1"]));
        let answer = place(&["--json"]);
        assert_eq!(answer.code, 6, "{answer:?}");
        let told: serde_json::Value = serde_json::from_str(&answer.stderr).unwrap();
        let repeat = told["error"]["repeatWith"].as_str().unwrap();
        assert_eq!(repeat.strip_prefix("--client-order-id ").map(str::len), Some(36), "{told}");
        let own = own.join().unwrap();
        assert_eq!(own.code, 6, "{own:?}");
        assert!(
            own.stderr.contains("the same command with --client-order-id mine-1 is safe to repeat"),
            "{own:?}"
        );
    });
}

#[test]
fn completions_and_manual_page_are_printed() {
    let dir = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let answer = run(dir.path(), &["completions", shell]);
        assert!(answer.code == 0 && answer.stdout.contains("FAFNIR_COMPLETE"), "{answer:?}");
    }
    assert!(run(dir.path(), &["man"]).stdout.starts_with(".ie"));
}
