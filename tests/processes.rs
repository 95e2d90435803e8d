//! The same story as nine processes on a real Postgres, Redis and nats-server.

use crate::cluster::{Cluster, External};

#[test]
fn nine_processes_on_postgres_redis_and_nats_tell_the_same_story() {
    let Some(external) = External::named() else { return };
    let mut cluster = Cluster::up_with_market(external, &[]);
    let (seller, buyer) = (cluster.signed_in("admin@test.com"), cluster.signed_in("user@test.com"));
    buyer.until(&["book", "AAPL", "--depth", "50"], "ten levels a side", |book| {
        book["bids"].as_array().unwrap().len() >= 10 && book["asks"].as_array().unwrap().len() >= 10
    });
    // A symbol that the simulated market leaves alone: the two trade with each other.
    let sell = seller.json(&["order", "place", "sell", "NVDA", "10", "--price", "148.00"]);
    let buy = buyer.json(&["order", "place", "buy", "NVDA", "4", "--price", "148.20", "--wait", "20"]);
    assert_eq!((&buy["state"], &buy["averagePrice"]), (&"FILLED".into(), &"148".into()), "{buy}");
    seller
        .until(&["order", "show", sell["id"].as_str().unwrap()], "the partial fill", |o| o["filled"] == "4");
    let market = buyer.json(&["order", "place", "buy", "AAPL", "2", "--wait", "20"]);
    assert_eq!(market["state"], "FILLED", "{market}");
    seller.json(&["order", "cancel", sell["id"].as_str().unwrap()]);
    buyer.until(&["portfolio"], "the position", |p| {
        p["holdings"].as_array().unwrap().iter().any(|h| h["symbol"] == "NVDA" && h["quantity"] == "4")
    });
    cluster.stop(crate::cluster::SIMULATOR);
    // At rest: the same invariants, asked of the services themselves.
    cluster.audit();
}
