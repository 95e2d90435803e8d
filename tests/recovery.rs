//! `kill -9` and restart: nothing acknowledged is lost, nothing happens twice.

use crate::harness::{Answer, Stack};
use std::{
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
