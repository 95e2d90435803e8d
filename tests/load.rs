//! `fafnir load` against a real stack: what it counts has happened, and nothing is left behind.

use crate::harness::{Answer, Shell, Stack};
use serde_json::Value;

fn load(shell: &Shell, args: &[&str]) -> Answer {
    let all: Vec<&str> =
        ["load"].iter().chain(args).chain(&["--warmup", "0", "--duration", "1"]).copied().collect();
    shell.run(&[&all[..], &["--json"]].concat())
}

fn operation<'a>(figures: &'a Value, name: &str) -> &'a Value {
    let all = figures["operations"].as_array().unwrap();
    all.iter().find(|o| o["name"] == name).unwrap_or_else(|| panic!("{figures}"))
}

/// The code of the refusal and its sentence.
fn refusal(answer: &Answer) -> (String, String) {
    let body: Value = serde_json::from_str(&answer.stderr).unwrap_or_else(|e| panic!("{e}: {answer:?}"));
    let text = |key: &str| body["error"][key].as_str().unwrap().to_owned();
    (text("code"), text("message"))
}

#[test]
fn what_a_load_counts_is_in_the_books_and_nothing_stands_afterwards() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.shell("operator");
    let figures = load(&shell, &["orders", "--clients", "2", "--users", "2"]).json();
    let placed = operation(&figures, "createOrder");
    let done = placed["done"].as_u64().unwrap();
    assert!(done > 0 && placed["failed"] == serde_json::json!({}), "{figures}");
    assert!(placed["p50Ms"].as_f64().unwrap() > 0.0, "{figures}");
    assert!(figures["stack"]["residentBytes"].as_u64().unwrap() > 0, "{figures}");
    assert!(figures["caughtUp"]["processorUsEach"].as_f64().unwrap() > 0.0, "{figures}");
    // The engine has seen each of them, and the books are empty again.
    let audit = shell.audit();
    assert_eq!(audit["openOrders"], 0, "{audit}");

    // The users of the first run come back, and a mix finds no fault either.
    let mix = load(&shell, &["mix", "--rate", "20", "--users", "2", "--clients", "2"]).json();
    let count: u64 = mix["operations"].as_array().unwrap().iter().map(|o| o["done"].as_u64().unwrap()).sum();
    assert!(count > 0, "{mix}");
    assert_eq!((&mix["rate"], &mix["users"]), (&20.into(), &2.into()));
    assert_eq!(shell.audit()["openOrders"], 0);

    let grpc = load(&shell, &["mix", "--door", "grpc", "--users", "2", "--clients", "2"]).json();
    let placed = operation(&grpc, "createOrder");
    assert!(placed["done"].as_u64().unwrap() > 0 && placed["failed"] == serde_json::json!({}), "{grpc}");
    assert_eq!((&grpc["door"], &shell.audit()["openOrders"]), (&"grpc".into(), &0.into()));

    let quotes = load(&shell, &["quotes", "--clients", "2", "--symbols", "aapl,msft"]).json();
    assert!(operation(&quotes, "getStockQuote")["done"].as_u64().unwrap() > 0, "{quotes}");
}

#[test]
fn a_round_trip_ends_when_the_client_knows_its_new_position() {
    let stack = Stack::up(&["--sim-symbols", "AAPL"]);
    let shell = stack.shell("operator");
    let figures = load(&shell, &["round-trip", "--symbols", "AAPL", "--rate", "10"]).json();
    let of = |name: &str| {
        let o = operation(&figures, name);
        (o["done"].as_u64().unwrap(), o["p50Ms"].as_f64().unwrap(), o["failed"].clone())
    };
    let (accepted, filled, settled) = (of("1 accepted"), of("2 filled"), of("3 settled"));
    assert!(accepted.0 > 0 && settled.0 > 0, "{figures}");
    // A trade is told as soon as it is durable: its push may be there before the answer is read.
    assert!(filled.1 <= settled.1, "{figures}");
    assert_eq!(settled.2, serde_json::json!({}));
}

#[test]
fn a_load_refuses_what_it_cannot_or_must_not_do() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.shell("operator");
    let far = load(&shell, &["--url", "http://192.0.2.1:8080"]);
    assert_eq!((far.code, refusal(&far).0.as_str()), (5, "NOT_LOOPBACK"));
    let few = load(&shell, &["--clients", "4", "--users", "2"]);
    assert_eq!(few.code, 2);
    assert!(refusal(&few).1.contains("at least one per client"), "{few:?}");
    let unknown = load(&shell, &["--clients", "1", "--users", "1", "--symbols", "NOPE"]);
    assert_eq!((unknown.code, refusal(&unknown).0.as_str()), (5, "SYMBOL"));
    assert_eq!(load(&shell, &["--clients", "0"]).code, 2);
    assert_eq!(load(&shell, &["--rate", "x"]).code, 2);
    let nobody = load(&shell, &["--url", "http://127.0.0.1:1"]);
    assert_eq!((nobody.code, refusal(&nobody).0.as_str()), (3, "NOT_RUNNING"));
}
