//! What a trader and an operator do on the command line beside orders: look ahead, set alerts, watch, seed again, try.

use crate::harness::{Answer, Stack, WITHIN, binary};
use serde_json::Value;
use std::{
    fs,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

/// The refusal's code.
fn code(answer: &Answer) -> String {
    let told: Value = serde_json::from_str(&answer.stderr).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    told["error"]["code"].as_str().unwrap_or_default().to_owned()
}

#[test]
fn a_dry_run_says_what_an_order_would_be_and_sends_nothing() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.signed_in("user@test.com");
    let last = shell.json(&["quote", "AAPL"])[0]["price"].as_str().unwrap().to_owned();
    let place = |more: &[&str]| {
        let mut args = vec!["--json", "order", "place"];
        args.extend(more);
        args.push("--dry-run");
        shell.run(&args)
    };
    let seen: Value = serde_json::from_str(&place(&["buy", "AAPL", "10", "--price", &last]).stdout).unwrap();
    let order = &seen["orders"][0];
    assert_eq!((&seen["dryRun"], &order["quantity"]), (&true.into(), &"10".into()), "{seen}");
    let (cost, price): (f64, f64) =
        (order["needs"].as_str().unwrap().parse().unwrap(), last.parse().unwrap());
    assert!((cost - price * 10.0).abs() < 0.000_001, "{seen}");
    let off_tick = place(&["buy", "AAPL", "10", "--price", "1.001"]);
    assert_eq!((off_tick.code, code(&off_tick).as_str()), (5, "PRICE_OFF_TICK"), "{off_tick:?}");
    let short = place(&["sell", "NFLX", "90000", "--price", "1"]);
    assert_eq!(short.code, 5, "{short:?}");
    let group = [
        "--json", "order", "group", "bracket", "AAPL", "1", "--price", &last, "--target", "9999", "--stop",
        "1",
    ];
    let group = shell.run(&[&group[..], &["--dry-run"]].concat());
    assert!([0, 5].contains(&group.code), "{group:?}");
    assert_eq!(shell.json(&["order", "list"]), serde_json::json!([]), "nothing was sent");

    let placed = shell.json(&["order", "place", "buy", "AAPL", "10", "--price", &last]);
    let id = placed["id"].as_str().unwrap();
    let seen = shell.json(&["order", "replace", id, "--quantity", "5", "--dry-run"]);
    assert_eq!(seen["orders"][0]["quantity"], "5", "{seen}");
    let seen = shell.json(&["order", "flatten", "AAPL", "--dry-run"]);
    assert_eq!(seen["cancels"], 1, "{seen}");
    let open = shell.json(&["order", "show", id]);
    assert_eq!((&open["state"], &open["quantity"]), (&"NEW".into(), &"10".into()), "{open}");

    std::thread::scope(|scope| {
        let watching = scope.spawn(|| shell.run(&["order", "watch", id]));
        let canceled = shell.run(&["order", "cancel", id]);
        assert_eq!(canceled.code, 0, "{canceled:?}");
        let watched = watching.join().unwrap();
        let last = watched.stdout.lines().last().unwrap_or_default();
        assert!(watched.code == 0 && last.contains(" CANCELED"), "{watched:?}");
    });
}

#[test]
fn alerts_are_kept_for_the_terminal_and_can_be_waited_for() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.signed_in("user@test.com");
    assert_eq!(shell.json(&["alert", "list"]), serde_json::json!([]));
    assert_eq!(shell.run(&["alert", "add", "AAPL", ">= 99999"]).code, 0);
    assert_eq!(shell.run(&["alert", "add", "aapl", "pnl", "-500"]).code, 0);
    let listed = shell.json(&["alert", "list"]);
    assert_eq!(
        (&listed[0]["when"], &listed[1]["when"]),
        (&">= 99999".into(), &"pnl -500".into()),
        "{listed}"
    );
    let wrong = shell.run(&["alert", "add", "AAPL", "soon"]);
    assert_eq!(wrong.code, 2, "{wrong:?}");
    assert_eq!(shell.run(&["alert", "add", "NOWHERE", "1"]).code, 5);
    assert_eq!(shell.run(&["alert", "remove", "AAPL", "pnl", "-500"]).code, 0);
    assert_eq!(shell.json(&["alert", "list"]).as_array().unwrap().len(), 1);
    assert_eq!(shell.run(&["alert", "wait", "AAPL", "<= 99999", "--timeout", "20"]).code, 0);
    let late = shell.run(&["alert", "wait", "AAPL", ">= 99999", "--timeout", "1"]);
    assert_eq!(late.code, 6, "{late:?}");
}

fn copy_seeds(to: &Path) {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../seeds");
    for name in ["users.toml", "instruments.csv", "accounts.toml"] {
        fs::copy(from.join(name), to.join(name)).unwrap();
    }
}

#[test]
fn a_row_of_the_seeds_that_changed_is_told_and_applied_when_asked() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.signed_in("user@test.com");
    let seeds = stack.dir.path().join("mine");
    fs::create_dir(&seeds).unwrap();
    copy_seeds(&seeds);
    let file = seeds.join("instruments.csv");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("Apple Inc.", "Apple Incorporated", 1)).unwrap();
    let seed = |more: &[&str]| {
        let mut command = binary();
        command.args(["seed", "--json", "--only", "instruments", "--file"]).arg(&seeds).args(more);
        command.arg("--data-dir").arg(stack.data_dir()).env("HOME", stack.dir.path());
        Answer::of(command.output().unwrap())
    };
    let name = || shell.json(&["instrument", "AAPL"])["name"].as_str().unwrap().to_owned();
    let changed = |answer: &Answer| answer.json()[0]["changed"].as_u64();
    let told = seed(&[]);
    assert!(told.stderr.contains("AAPL: name changed, not applied"), "{told:?}");
    assert_eq!(changed(&told), Some(1), "{told:?}");
    assert_eq!(name(), "Apple Inc.");
    let told = seed(&["--replace"]);
    assert!(told.code == 0 && told.stderr.contains("AAPL: name applied"), "{told:?}");
    assert_eq!(name(), "Apple Incorporated");
    assert_eq!(changed(&seed(&[])), Some(0));
}

#[test]
fn a_demonstration_whose_terminal_is_killed_leaves_nothing_behind() {
    let dir = tempfile::Builder::new().prefix("fafnir-demo-").tempdir().unwrap();
    let mut command = binary();
    command.args([
        "up",
        "--json",
        "--ports",
        "auto",
        "--no-sim",
        "--background",
        "--with-parent",
        "--data-dir",
    ]);
    command.arg(dir.path()).current_dir(dir.path()).env("HOME", dir.path());
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut process = command.spawn().unwrap();
    let until = Instant::now() + WITHIN;
    while !dir.path().join("run.json").exists() {
        assert!(Instant::now() < until && process.try_wait().unwrap().is_none(), "it does not start");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    // As the end of its parent closes the pipe.
    drop(process.stdin.take());
    while process.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it goes on without its parent");
        std::thread::park_timeout(Duration::from_millis(20));
    }
    assert!(!dir.path().exists(), "its directory is left");
}
