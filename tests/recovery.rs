//! `kill -9` and restart: nothing acknowledged is lost, nothing happens twice.

use crate::harness::{Answer, Stack, WITHIN, binary};
use std::{
    fs,
    process::Stdio,
    time::{Duration, Instant},
};

#[test]
fn what_was_acknowledged_survives_kill_9() {
    let mut stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    let sell = seller.json(&["order", "place", "sell", "NVDA", "30", "--price", "148.00"]);
    let buy = buyer.json(&["order", "place", "buy", "NVDA", "10", "--price", "148.00", "--wait", "20"]);
    assert_eq!(buy["state"], "FILLED");
    // Orders under way while the process dies; each has an id of its own to ask for it again.
    let children: Vec<_> = (0..8)
        .map(|i| {
            let id = format!("crash-{i}");
            let mut command = buyer.command(&[
                "order",
                "place",
                "buy",
                "NVDA",
                "1",
                "--price",
                "147.50",
                "--client-order-id",
                &id,
                "--json",
            ]);
            command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        })
        .collect();
    let before = Instant::now();
    while before.elapsed() < Duration::from_millis(30) {
        std::thread::yield_now();
    }
    stack.process.kill();
    let answers: Vec<Answer> =
        children.into_iter().map(|c| Answer::of(c.wait_with_output().unwrap())).collect();
    stack.restart(&["--no-sim"]);

    let (seller, buyer) = (stack.shell("admin@test.com"), stack.shell("user@test.com"));
    // The gateway has other ports now: sign in again.
    seller.sign_in("admin@test.com");
    buyer.sign_in("user@test.com");
    let kept = seller.until(&["order", "show", sell["id"].as_str().unwrap()], "the resting order", |o| {
        o["filled"] == "10"
    });
    assert_eq!(kept["state"], "PARTIALLY_FILLED");
    for (i, answer) in answers.iter().enumerate().filter(|(_, a)| a.code == 0) {
        let order = buyer.json(&["order", "show", answer.json()["id"].as_str().unwrap()]);
        assert_eq!((&order["state"], &order["clientOrderId"]), (&"NEW".into(), &format!("crash-{i}").into()));
    }
    // Sending all of them again makes each exist exactly once.
    for i in 0..8 {
        buyer.json(&[
            "order",
            "place",
            "buy",
            "NVDA",
            "1",
            "--price",
            "147.50",
            "--client-order-id",
            &format!("crash-{i}"),
        ]);
    }
    buyer.until(&["order", "list", "--open"], "eight open orders", |list| {
        list.as_array().unwrap().len() == 8 && list.as_array().unwrap().iter().all(|o| o["state"] == "NEW")
    });
    let audit = buyer.audit();
    assert_eq!((&audit["trades"], &audit["openOrders"]), (&1.into(), &9.into()));
    stack.process.kill();
    stack.restart(&["--no-sim"]);
    let again = stack.shell("user@test.com").audit();
    for what in ["position", "openOrders", "transactions", "trades"] {
        assert_eq!(again[what], audit[what], "{what} is the same");
    }
}

#[test]
fn ctrl_c_drains_and_a_restart_finds_everything() {
    let mut stack = Stack::up(&["--no-sim"]);
    let buyer = stack.signed_in("user@test.com");
    let order = buyer.json(&["order", "place", "buy", "KO", "7", "--price", "60.00"]);
    assert_eq!(stack.process.interrupt(), Some(0), "{}", stack.process.log());
    stack.restart(&["--no-sim"]);
    let buyer = stack.signed_in("user@test.com");
    let kept = buyer.json(&["order", "show", order["id"].as_str().unwrap()]);
    assert_eq!((&kept["state"], &kept["quantity"]), (&"NEW".into(), &"7".into()));
}

#[test]
fn an_interrupted_seeding_is_finished_by_the_next_start() {
    let mut stack = Stack::up(&["--no-sim"]);
    let fresh = stack.signed_in("user@test.com");
    let whole = (fresh.json(&["portfolio"])["holdings"].clone(), fresh.json(&["watchlist"]));
    let data = stack.data_dir();
    stack.process.kill();
    for pause in [0, 150, 400] {
        fs::remove_dir_all(&data).unwrap();
        let mut command = binary();
        command.args(["up", "--json", "--ports", "auto", "--no-sim", "--data-dir"]).arg(&data);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut first = command.spawn().unwrap();
        let until = Instant::now() + WITHIN;
        while !data.join("seeding").exists() {
            assert!(Instant::now() < until, "no seeding begins");
            std::thread::yield_now();
        }
        std::thread::sleep(Duration::from_millis(pause));
        first.kill().unwrap();
        first.wait().unwrap();
        stack.restart(&["--no-sim"]);
        assert!(!data.join("seeding").exists());
        let user = stack.signed_in("user@test.com");
        let there = user.json(&["portfolio"])["holdings"].clone();
        let symbols = |holdings: &serde_json::Value| {
            let all = holdings.as_array().unwrap().iter();
            all.map(|h| (h["symbol"].clone(), h["quantity"].clone())).collect::<Vec<_>>()
        };
        assert_eq!(symbols(&there), symbols(&whole.0));
        let watched = |list: &serde_json::Value| {
            list.as_array().unwrap().iter().map(|i| i["symbol"].clone()).collect::<Vec<_>>()
        };
        assert_eq!(watched(&user.json(&["watchlist"])), watched(&whole.1));
        stack.process.kill();
    }
}

#[test]
fn a_data_directory_of_the_former_program_is_refused_in_one_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    fs::create_dir_all(data.join("engine")).unwrap();
    fs::write(data.join("engine/journal-00000000000000000001.log"), b"FAFJRNL1").unwrap();
    for command in ["up", "trade-engine", "migrate", "seed"] {
        let mut run = binary();
        run.args([command, "--data-dir"]).arg(&data).current_dir(dir.path()).env("HOME", dir.path());
        let answer = Answer::of(run.output().unwrap());
        assert_eq!(answer.code, 1, "{answer:?}");
        assert!(
            answer.stderr.contains("DATA_DIR_FORMER") && answer.stderr.contains("back it up"),
            "{answer:?}"
        );
    }
    assert!(!data.join("db").exists(), "nothing is touched");
}

#[test]
fn orders_and_books_are_made_anew_from_the_facts() {
    let mut stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in("admin@test.com"), stack.signed_in("user@test.com"));
    seller.json(&["order", "place", "sell", "NVDA", "30", "--price", "148.00"]);
    let buy = ["order", "place", "buy", "NVDA", "10", "--price", "148.00", "--client-order-id", "anew"];
    let bought = buyer.json(&buy);
    let account = buyer.account()["id"].as_str().unwrap().to_owned();
    buyer.json(&["account", "deposit", &account, "12.5", "--idempotency-key", "anew"]);
    let look = |shell: &crate::harness::Shell| {
        let transactions = ["account", "transactions", account.as_str()];
        [shell.json(&["order", "list"]), shell.portfolio(), shell.json(&transactions)]
    };
    // What shares are worth goes by the quote: market data, which follows the trade by itself.
    buyer.until(&["quote", "NVDA"], "the quote of the trade", |q| q[0]["price"] == "148");
    let (before, audit) = (look(&buyer), buyer.audit());
    let rebuild = |stack: &Stack, args: &[&str]| {
        let mut command = binary();
        command.args([&["rebuild", "--json"], args].concat()).arg("--data-dir").arg(stack.data_dir());
        Answer::of(command.output().unwrap())
    };
    let running = rebuild(&stack, &[]);
    assert!(running.code == 1 && running.stderr.contains("DATA_DIR_IN_USE"), "{running:?}");
    let backup = stack.dir.path().join("backup");
    stack.process.kill();
    fs::create_dir(&backup).unwrap();
    for name in ["order-service.sqlite", "order-service.sqlite-wal"] {
        fs::copy(stack.data_dir().join("db").join(name), backup.join(name)).unwrap();
    }
    let nothing = rebuild(&stack, &["portfolio-service", "--from", backup.to_str().unwrap()]);
    assert!(nothing.code == 5 && nothing.stderr.contains("BACKUP_UNUSABLE"), "{nothing:?}");
    for args in [&[][..], &["order-service", "--from", backup.to_str().unwrap()]] {
        let done = rebuild(&stack, args).json();
        assert!(done[0]["kept"].as_str().is_some_and(|kept| fs::exists(kept).unwrap()), "{done}");
        stack.restart(&["--no-sim"]);
        let buyer = stack.signed_in("user@test.com");
        assert_eq!(look(&buyer), before);
        let again = buyer.audit();
        for what in ["position", "openOrders", "transactions", "trades"] {
            assert_eq!(again[what], audit[what], "{what} is the same");
        }
        // Keys are from the facts too.
        assert_eq!(buyer.json(&buy)["id"], bought["id"]);
        buyer.json(&["account", "deposit", &account, "12.5", "--idempotency-key", "anew"]);
        assert_eq!(look(&buyer), before);
        stack.process.kill();
    }
}
