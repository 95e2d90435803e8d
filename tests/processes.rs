//! The same story as nine processes on a real Postgres, Redis and nats-server.

use crate::{
    cluster::{Cluster, External, GATEWAY, SIMULATOR},
    harness::Answer,
    outages::ask,
};

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
    looked_at_from_outside(&mut cluster);
    // The market tells of itself, too.
    assert_eq!(ask(cluster.operations(SIMULATOR), "/readyz"), Some((200, "ready".into())));
    let (_, metrics) = ask(cluster.operations(SIMULATOR), "/metrics").unwrap();
    assert!(metrics.contains(r#"fafnir_ready{service="simulator"} 1"#), "{metrics}");
    cluster.stop(SIMULATOR);
    // At rest: the same invariants, asked of the services themselves.
    cluster.audit();
}

/// `status`, `doctor`, `top` and `logs` of a platform whose processes the configuration names.
fn looked_at_from_outside(cluster: &mut Cluster) {
    let run = |args: &[&str]| Answer::of(cluster.command(args).output().unwrap());
    let status = run(&["status", "--json"]);
    assert_eq!((status.code, &status.json()["ready"]), (0, &true.into()), "{status:?}");
    assert_eq!(status.json()["services"].as_object().unwrap().len(), 8, "{status:?}");
    let doctor = run(&["doctor", "--json"]).json();
    let services = doctor["checks"].as_array().unwrap().iter().find(|c| c["name"] == "services").unwrap();
    assert_eq!(services["detail"], "8 ready in processes of their own", "{doctor}");
    let top = run(&["top", "--count", "1", "--interval", "2", "--json"]);
    assert_eq!(top.code, 0, "{top:?}");
    let page = top.json();
    // The market trades meanwhile.
    assert!(page["services"]["order-service"]["requestsPerSecond"].as_f64().unwrap() > 0.0, "{page}");
    assert!(page["factsPerSecond"].as_f64().unwrap() > 0.0, "{page}");
    assert_eq!(page["processes"].as_array().unwrap().len(), 8, "{page}");
    let logs = run(&["logs"]);
    assert!(logs.code == 3 && logs.stderr.contains("writes its own to stderr"), "{logs:?}");
    cluster.kill(GATEWAY);
    let run = |args: &[&str]| Answer::of(cluster.command(args).output().unwrap());
    let status = run(&["status"]);
    assert_eq!(status.code, 1, "{status:?}");
    assert!(status.stdout.contains("not ready: it does not answer"), "{status:?}");
    assert_eq!(run(&["top", "--count", "1", "--interval", "1"]).code, 1);
    cluster.start(GATEWAY);
}
