//! Two people trade with each other, to the micro.

use crate::harness::Stack;
use fafnir_rules::money::parse_micros;
use serde_json::Value;

const SELLER: &str = "admin@test.com";
const BUYER: &str = "user@test.com";

fn micros(value: &Value) -> i64 {
    parse_micros(value.as_str().unwrap()).unwrap()
}

#[test]
fn a_crossing_buy_trades_at_the_resting_price_and_both_sides_are_exact() {
    let stack = Stack::up(&["--no-sim"]);
    let (seller, buyer) = (stack.signed_in(SELLER), stack.signed_in(BUYER));
    let (seller_before, buyer_before) = (seller.account(), buyer.account());

    let sell = seller.json(&["order", "place", "sell", "AAPL", "10", "--price", "231.00"]);
    let id = sell["id"].as_str().unwrap();
    seller.until(&["order", "show", id], "the resting order", |o| o["state"] == "NEW");
    assert_eq!(seller.position("AAPL"), ("500".into(), "10".into()), "the shares are held");

    let buy = buyer.json(&["order", "place", "buy", "AAPL", "4", "--price", "231.50", "--wait", "20"]);
    assert_eq!((&buy["state"], &buy["averagePrice"]), (&"FILLED".into(), &"231".into()), "{buy}");
    let resting = seller.until(&["order", "show", id], "the partial fill", |o| o["filled"] == "4");
    assert_eq!((&resting["state"], &resting["open"]), (&"PARTIALLY_FILLED".into(), &"6".into()));

    // 4 × 231.00, no fee; the buyer's price improvement is released.
    let notional = 924_000_000;
    let seller_after = seller.until(&["account", "list"], "the seller's cash", |accounts| {
        accounts
            .as_array()
            .unwrap()
            .iter()
            .any(|a| micros(&a["balance"]) == micros(&seller_before["balance"]) + notional)
    });
    assert!(seller_after.is_array());
    buyer.until(&["account", "list"], "the buyer's cash", |accounts| {
        accounts.as_array().unwrap().iter().any(|a| {
            a["id"] == buyer_before["id"]
                && micros(&a["balance"]) == micros(&buyer_before["balance"]) - notional
                && micros(&a["held"]) == 0
        })
    });
    assert_eq!(buyer.position("AAPL"), ("104".into(), "0".into()));
    assert_eq!(seller.position("AAPL"), ("496".into(), "6".into()));

    let canceled = seller.json(&["order", "cancel", id]);
    assert_eq!((&canceled["state"], &canceled["filled"]), (&"CANCELED".into(), &"4".into()));
    let again = seller.run(&["order", "cancel", id]);
    assert_eq!(again.code, 5, "{again:?}");

    let audit = seller.audit();
    assert_eq!((&audit["ok"], &audit["trades"], &audit["openOrders"]), (&true.into(), &1.into(), &0.into()));
    assert_eq!(seller.position("AAPL"), ("496".into(), "0".into()), "the rest of the hold is released");
}

#[test]
fn an_order_beyond_the_funds_is_rejected_and_moves_nothing() {
    let stack = Stack::up(&["--no-sim"]);
    let buyer = stack.signed_in(BUYER);
    let before = buyer.account();
    let refused = buyer.run(&["order", "place", "buy", "MSFT", "1000", "--price", "411.00", "--json"]);
    assert_eq!(refused.code, 5, "{refused:?}");
    assert!(refused.stderr.contains("INSUFFICIENT_FUNDS"), "{refused:?}");
    let order: Value = serde_json::from_str(&refused.stdout).unwrap();
    assert_eq!(order["state"], "REJECTED");
    let short = buyer.run(&["order", "place", "sell", "TSLA", "1", "--price", "342.00", "--json"]);
    assert!(short.code == 5 && short.stderr.contains("INSUFFICIENT_SHARES"), "{short:?}");
    assert_eq!(buyer.account()["available"], before["available"]);
    assert_eq!(buyer.audit()["openOrders"], 0);
}

#[test]
fn the_same_client_order_id_is_one_order_and_another_payload_is_refused() {
    let stack = Stack::up(&["--no-sim"]);
    let buyer = stack.signed_in(BUYER);
    let place = |quantity: &str| {
        buyer.run(&[
            "order",
            "place",
            "buy",
            "F",
            quantity,
            "--price",
            "11.00",
            "--client-order-id",
            "mine-1",
            "--json",
        ])
    };
    let first = place("5").json();
    assert_eq!(place("5").json()["id"], first["id"]);
    let other = place("6");
    assert!(
        other.code == 5 && other.stderr.contains("ALREADY_EXISTS")
            || other.stderr.contains("CLIENT_ORDER_ID"),
        "{other:?}"
    );
    assert_eq!(buyer.json(&["order", "list", "--open"]).as_array().unwrap().len(), 1);
}

#[test]
fn the_simulated_market_quotes_both_sides_and_a_market_order_fills() {
    let stack = Stack::up(&["--sim-symbols", "AAPL,MSFT,F"]);
    let buyer = stack.signed_in(BUYER);
    let book = buyer.until(&["book", "AAPL", "--depth", "50"], "ten levels a side", |book| {
        book["bids"].as_array().unwrap().len() >= 10 && book["asks"].as_array().unwrap().len() >= 10
    });
    assert_eq!(book["symbol"], "AAPL");
    let order = buyer.json(&["order", "place", "buy", "AAPL", "3", "--wait", "20"]);
    assert_eq!(order["state"], "FILLED", "{order}");
    buyer.until(&["quote", "AAPL"], "a trade in the quote", |q| q[0]["volume"] != "0");
}
