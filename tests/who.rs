//! Who may: keys in place of passwords, the first administrator, the audit log after `kill -9`.

use crate::harness::{Answer, Process, Shell, Stack, WITHIN, binary};
use std::{
    fs,
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
    time::Instant,
};

#[test]
fn a_key_opens_the_command_line_and_what_was_done_is_in_a_log_that_survives_kill_9() {
    let mut stack = Stack::up(&["--no-sim"]);
    let (admin, user) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    let account = user.account()["id"].as_str().unwrap().to_owned();
    let key = user.json(&["key", "create", "bot", "--scope", "trade", "--account", &account]);
    let pair = format!("{}:{}", key["id"].as_str().unwrap(), key["secret"].as_str().unwrap());
    assert_eq!(key["accountId"], account.as_str());

    // A shell that never signed in.
    let bot = stack.shell("bot");
    let by_key = |args: &[&str]| {
        Answer::of(bot.command(args).env("FAFNIR_KEY", &pair).stdin(Stdio::null()).output().unwrap())
    };
    let placed = by_key(&["order", "place", "buy", "KO", "1", "--price", "60.00", "--json"]).json();
    assert_eq!(placed["accountId"], account.as_str(), "{placed}");
    let file = bot.home.join("key");
    fs::write(&file, format!("{pair}\n")).unwrap();
    assert_eq!(bot.run(&["order", "list", "--key-file", file.to_str().unwrap()]).code, 0);
    let denied = by_key(&["account", "deposit", &account, "5"]);
    assert_eq!(denied.code, 5, "{denied:?}");
    assert!(denied.stderr.contains("no API key may do this"), "{denied:?}");
    assert_eq!(bot.run(&["order", "list"]).code, 4, "without the key nobody is signed in");
    let wrong = Answer::of(bot.command(&["order", "list"]).env("FAFNIR_KEY", "PK1").output().unwrap());
    assert_eq!(wrong.code, 2, "{wrong:?}");

    // Money until it dies, in the midst of it; every answer that came is in the log.
    let acked = deposits_until_killed(&user, &account, &mut stack.process);
    stack.restart(&["--no-sim"]);
    let (admin, user) = (
        Shell { url: stack.process.address("api-gateway"), ..admin },
        Shell { url: stack.process.address("api-gateway"), ..user },
    );
    admin.sign_in("admin@test.com");
    user.sign_in("user@test.com");
    let verdict = admin.json(&["audit-log", "--verify"]);
    assert_eq!(verdict["sound"], true);
    let log = admin.json(&["audit-log", "-n", "1000", "--action", "money.deposit"]);
    let asked = log.as_array().unwrap().iter().filter(|row| row["outcome"] == "ASKED").count();
    assert!(asked >= acked, "{asked} of {acked}");
    let until = Instant::now() + WITHIN;
    loop {
        let log = admin.json(&["audit-log", "-n", "1000"]);
        let has = |action: &str| log.as_array().unwrap().iter().any(|row| row["action"] == action);
        if has("key.create") && has("session.open") {
            break;
        }
        assert!(Instant::now() < until, "{log}");
    }
    // What was written down before still stands; another's is not.
    let head = verdict["head"].as_str().unwrap();
    assert_eq!(admin.run(&["audit-log", "--verify", "--head", head]).code, 0);
    let (rows, hash) = head.split_once(':').unwrap();
    let foreign = format!("{rows}:{}", hash.chars().rev().collect::<String>());
    let broken = admin.run(&["audit-log", "--verify", "--head", &foreign]);
    assert!(broken.code == 1 && broken.stderr.contains("was tampered with"), "{broken:?}");
    assert_eq!(user.run(&["audit-log"]).code, 5, "not for everybody");

    // The key is gone at once.
    assert_eq!(user.run(&["key", "revoke", key["id"].as_str().unwrap()]).code, 0);
    let until = Instant::now() + WITHIN;
    let bot = stack.shell("bot");
    let refused = || {
        Answer::of(
            bot.command(&["order", "list"]).env("FAFNIR_KEY", &pair).stdin(Stdio::null()).output().unwrap(),
        )
        .code
            == 4
    };
    while !refused() {
        assert!(Instant::now() < until, "a revoked key still opens");
    }
}

/// Deposits, one after the other, until none is answered: `kill -9` comes while they go on. How many were answered.
fn deposits_until_killed(user: &Shell, account: &str, process: &mut Process) -> usize {
    const BEFORE: usize = 5;
    let (answered, answers) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let deposits = scope.spawn(move || {
            let deposit = || user.run(&["account", "deposit", account, "1.00"]).code == 0;
            let mut acked = 0;
            while deposit() {
                acked += 1;
                // Nobody waits for the later ones.
                let _unheard = answered.send(());
            }
            acked
        });
        for _ in 0..BEFORE {
            answers.recv_timeout(WITHIN).expect("a deposit is answered");
        }
        process.kill();
        deposits.join().unwrap()
    })
}

/// A command that is killed when it goes out of scope.
struct Following(Child);

impl Drop for Following {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn the_audit_log_is_followed_row_by_row_until_ctrl_c() {
    // Shorter than the time before its end at which a token is renewed: each look is with another one.
    let stack = Stack::configured("[auth]\nbearer_ttl_s = 2\n", &["--no-sim"]);
    let (admin, user) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    let account = user.account()["id"].as_str().unwrap().to_owned();
    let mut command = admin.command(&["audit-log", "--follow", "--json", "-n", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut following = Following(command.spawn().unwrap());
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(following.0.stdout.take().unwrap());
    std::thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| send.send(line)));
    let next = || -> serde_json::Value {
        let line = lines.recv_timeout(WITHIN).expect("a row comes");
        serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line}"))
    };
    let mut last = 0;
    for amount in ["3.00", "4.00"] {
        assert_eq!(user.run(&["account", "deposit", &account, amount]).code, 0);
        loop {
            let row = next();
            let sequence = row["sequence"].as_u64().unwrap();
            assert!(last == 0 || sequence == last + 1, "after row {last}: {row}");
            last = sequence;
            let detail = row["detail"].as_str().unwrap();
            if row["action"] == "money.deposit" && row["outcome"] == "OK" && detail.starts_with(amount) {
                break;
            }
        }
    }
    let id = following.0.id().to_string();
    assert!(Command::new("kill").args(["-INT", &id]).status().unwrap().success());
    let until = Instant::now() + WITHIN;
    let status = loop {
        if let Some(status) = following.0.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < until, "it goes on after Ctrl-C");
        std::thread::yield_now();
    };
    assert_eq!(status.code(), Some(130));
}

#[test]
fn the_first_administrator_of_a_platform_that_seeds_nobody() {
    let stack = Stack::configured("mode = \"production\"\n", &["--no-sim"]);
    let shell = stack.shell("first");
    assert_eq!(shell.run(&["login", "--demo"]).code, 4, "nobody is seeded");
    let create = |email: &str, password: &str| {
        shell.with_input(&["admin", "create", "--email", email, "--password-stdin"], &format!("{password}\n"))
    };
    let weak = create("root@example.com", "Password123");
    assert!(weak.code == 5 && weak.stderr.contains("commonest passwords"), "{weak:?}");
    assert_eq!(create("root@example.com", "engine of brass and bone").code, 0);
    let taken = create("root@example.com", "engine of brass and bone");
    assert!(taken.code == 5 && taken.stderr.contains("EMAIL_TAKEN"), "{taken:?}");
    let login = shell.with_input(
        &["login", "--email", "root@example.com", "--password-stdin"],
        "engine of brass and bone\n",
    );
    assert_eq!(login.code, 0, "{login:?}");
    let users = shell.json(&["admin", "users"]);
    assert_eq!(
        (users.as_array().unwrap().len(), &users[0]["email"]),
        (1, &"root@example.com".into()),
        "{users}"
    );
    let dashboard = shell.json(&["admin", "dashboard"]);
    assert!(dashboard["activeUsers"] == 1 && dashboard["symbols"].as_u64().unwrap() > 5, "{dashboard}");
    // What it may: take no access from itself, run the market.
    let last = shell.run(&["admin", "deactivate", "root@example.com"]);
    assert!(last.code == 5 && last.stderr.contains("LAST_ADMIN"), "{last:?}");
    assert_eq!(shell.json(&["market", "state", "nvda", "halted"])["state"], "HALTED");
    let halts = shell.json(&["admin", "halts"]);
    assert_eq!(halts, serde_json::json!([{"symbol": "NVDA", "state": "HALTED"}]));
    let log = shell.json(&["audit-log", "--action", "market.state"]);
    assert_eq!((&log[0]["subject"], &log[0]["outcome"]), (&"NVDA".into(), &"ASKED".into()), "{log}");
}

#[test]
fn production_takes_no_secret_that_is_a_placeholder_or_short() {
    let dir = tempfile::tempdir().unwrap();
    for weak in [
        "changemechangemechangemechangeme",
        "0123456789abcdef0123",
        "ssssssssssssssssssssssssssssssssssssssssssssssssssssssssss",
    ] {
        let mut command = binary();
        command.args(["up", "--no-sim", "--ports", "auto", "--data-dir"]).arg(dir.path().join("data"));
        command.current_dir(dir.path()).env("FAFNIR_MODE", "production").env("FAFNIR_SECRET_CSRF_KEY", weak);
        let answer = Answer::of(command.stdin(Stdio::null()).output().unwrap());
        assert!(
            answer.code == 1 && answer.stderr.contains("the secret csrf_key is a placeholder"),
            "{answer:?}"
        );
        assert!(!answer.stderr.contains(weak), "a secret is not shown");
    }
}
