//! The same story as nine processes on a real Postgres, Redis and nats-server.

use crate::harness::{Answer, Process, Shell, binary};
use std::{collections::BTreeMap, net::TcpListener, process::Command};

/// The external servers, or a word why this test does not run.
fn external() -> Option<(String, String, String)> {
    let get = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let all = (get("FAFNIR_TEST_POSTGRES_URL"), get("FAFNIR_TEST_NATS_URL"), get("FAFNIR_TEST_REDIS_URL"));
    if let (Some(postgres), Some(nats), Some(redis)) = all {
        return Some((postgres, nats, redis));
    }
    assert!(
        get("FAFNIR_TEST_REQUIRE_EXTERNAL").is_none_or(|v| v != "1"),
        "FAFNIR_TEST_{{POSTGRES,NATS,REDIS}}_URL must be set"
    );
    println!("skipped: FAFNIR_TEST_POSTGRES_URL, FAFNIR_TEST_NATS_URL and FAFNIR_TEST_REDIS_URL are not set");
    None
}

const SERVICES: [(&str, &str, &str); 8] = [
    ("security-service", "security-service", "SECURITY"),
    ("user-service", "user-service", "USER"),
    ("stock-service", "stock-service", "STOCK"),
    ("portfolio-service", "portfolio-service", "PORTFOLIO"),
    ("trade-engine", "trade-engine", "ENGINE"),
    ("order-service", "order-service", "ORDER"),
    ("auth-service", "auth-service", "AUTH"),
    ("gateway", "api-gateway", "GATEWAY"),
];

#[test]
fn nine_processes_on_postgres_redis_and_nats_tell_the_same_story() {
    let Some((postgres, nats, redis)) = external() else { return };
    let dir = tempfile::tempdir().unwrap();
    delete_streams(&nats);
    // Each address must be known before its process starts: reserve the ports, then let go of them.
    let reserved: Vec<_> = (0..16).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    let port = |i: usize| reserved[i].local_addr().unwrap().port();
    let mut environment: BTreeMap<String, String> = BTreeMap::new();
    for (i, (_, _, key)) in SERVICES.iter().enumerate() {
        environment.insert(format!("FAFNIR_ADDRESSES_{key}"), format!("http://127.0.0.1:{}", port(i)));
    }
    let prefix = format!("t{}_", std::process::id());
    environment.insert("FAFNIR_DATABASE_URL".into(), postgres.clone());
    environment.insert("FAFNIR_DATABASE_PREFIX".into(), prefix.clone());
    environment.insert("FAFNIR_NATS_URL".into(), nats.clone());
    environment.insert("FAFNIR_REDIS_URL".into(), redis);
    environment.insert("FAFNIR_SIM_SYMBOLS".into(), "AAPL,F".into());
    environment.insert("FAFNIR_DATA_DIR".into(), dir.path().join("data").to_string_lossy().into_owned());
    let command = |args: &[&str]| {
        let mut command = binary();
        command.args(args).current_dir(dir.path()).env("HOME", dir.path()).envs(&environment);
        command
    };
    let ports: Vec<u16> = (0..SERVICES.len()).map(port).collect();
    drop(reserved);
    // They wait for each other: none is ready before what it needs, so they start side by side.
    let mut starting = Vec::new();
    for ((name, _, key), port) in SERVICES.iter().zip(&ports) {
        let mut command: Command = command(&[name, "--json", "--port", &port.to_string()]);
        command.env("FAFNIR_PORTS_OPERATIONS_OFFSET", "0");
        let log = dir.path().join(format!("{key}.log"));
        starting.push(std::thread::spawn(move || Process::start(command, log)));
    }
    let services: Vec<Process> = starting.into_iter().map(|t| t.join().unwrap()).collect();
    let seeded = Answer::of(command(&["seed", "--json"]).output().unwrap());
    assert_eq!(seeded.code, 0, "{seeded:?}");
    let sim = Process::start(command(&["sim", "--json"]), dir.path().join("sim.log"));

    let gateway = services[7].address("api-gateway");
    let shell = |user: &str| {
        let shell =
            Shell { home: dir.path().join(user), url: gateway.clone(), data_dir: dir.path().join("data") };
        shell.sign_in(user);
        shell
    };
    let (seller, buyer) = (shell("admin@test.com"), shell("user@test.com"));
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
    drop(sim);
    // At rest: the same invariants, asked of the services themselves.
    let until = std::time::Instant::now() + crate::harness::WITHIN;
    loop {
        let audit = Answer::of(command(&["audit", "--json"]).output().unwrap());
        if audit.code == 0 {
            break;
        }
        assert!(std::time::Instant::now() < until, "{audit:?}");
    }
    drop(services);
    delete_streams(&nats);
    drop_databases(&postgres, &prefix);
}

/// The streams of an earlier stack on the same server are not this one's.
fn delete_streams(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        for name in ["users", "facts", "instruments"] {
            // One that is not there is as good as deleted.
            drop(jetstream.delete_stream(name).await);
        }
    });
}

/// Leaves the server as it was found; without psql the databases stay for the server's own end.
fn drop_databases(url: &str, prefix: &str) {
    for name in ["auth", "security", "user", "stock", "order", "portfolio"] {
        let sql = format!("DROP DATABASE IF EXISTS \"{prefix}{name}_db\" WITH (FORCE)");
        drop(Command::new("psql").args([&format!("{url}postgres"), "-qc", &sql]).output());
    }
}
