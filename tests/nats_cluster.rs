//! A cluster of three nats-servers: each stream lives on all of them, and any of them may go.

use crate::harness::{Stack, WITHIN, port_to_name};
use async_nats::jetstream::{self, stream};
use std::{
    fs,
    process::{Child, Command, Stdio},
};
use tempfile::TempDir;

const SERVERS: usize = 3;
const STREAMS: [&str; 3] = ["users", "facts", "instruments"];

struct Servers {
    dir: TempDir,
    /// Of each its port for clients; the one beside it is for the others.
    ports: Vec<u16>,
    processes: Vec<Child>,
}

impl Drop for Servers {
    fn drop(&mut self) {
        for process in &mut self.processes {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

impl Servers {
    /// None, and a word, where no nats-server is on the path.
    fn up() -> Option<Self> {
        if Command::new("nats-server").arg("--version").output().is_err() {
            let required = std::env::var("FAFNIR_TEST_REQUIRE_EXTERNAL").is_ok_and(|v| v == "1");
            assert!(!required, "nats-server must be on the path");
            println!("skipped: no nats-server is on the path");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let ports: Vec<u16> = (0..SERVERS).map(|_| port_to_name()).collect();
        let routes: Vec<String> =
            ports.iter().map(|port| format!("nats-route://127.0.0.1:{}", port + 1)).collect();
        let mut this = Self { dir, ports, processes: Vec::new() };
        for (i, port) in this.ports.iter().enumerate() {
            let store = this.dir.path().join(format!("store-{i}"));
            let config = format!(
                "listen: 127.0.0.1:{port}\nserver_name: n{i}\n\
                 jetstream {{ store_dir: \"{}\", max_memory_store: 64MB, max_file_store: 2GB }}\n\
                 cluster {{ name: three, listen: 127.0.0.1:{}, routes: {routes:?} }}\n",
                store.display(),
                port + 1
            );
            let file = this.dir.path().join(format!("n{i}.conf"));
            fs::write(&file, config).unwrap();
            let log = fs::File::create(this.dir.path().join(format!("n{i}.log"))).unwrap();
            let mut command = Command::new("nats-server");
            command.arg("--config").arg(&file).stdin(Stdio::null()).stderr(log);
            this.processes.push(command.spawn().unwrap());
        }
        Some(this)
    }

    fn url(&self) -> String {
        let urls: Vec<String> = self.ports.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
        urls.join(",")
    }

    async fn client(&self) -> jetstream::Context {
        let addresses: Vec<async_nats::ServerAddr> =
            self.url().split(',').map(|url| url.parse().unwrap()).collect();
        let connected = soon("a connection", async || async_nats::connect(&addresses[..]).await.ok()).await;
        jetstream::new(connected)
    }
}

/// Asks until there is an answer.
async fn soon<T>(what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WITHIN, asking).await.unwrap_or_else(|_| panic!("{what} did not come"))
}

async fn info(js: &jetstream::Context, name: &str) -> stream::Info {
    soon(name, async || js.get_stream(name).await.ok()?.get_info().await.ok()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_live_on_three_servers_and_one_of_them_may_go() {
    let Some(mut servers) = Servers::up() else { return };
    let js = servers.client().await;
    // The three have found each other.
    let probe = || stream::Config { name: "probe".into(), num_replicas: SERVERS, ..Default::default() };
    soon("a leader", async || js.create_stream(probe()).await.ok()).await;
    js.delete_stream("probe").await.unwrap();

    let stack = Stack::configured(&format!("[nats]\nurl = {:?}\n", servers.url()), &["--no-sim"]);
    let user = stack.signed_in("user@test.com");
    for name in STREAMS {
        assert_eq!(info(&js, name).await.config.num_replicas, SERVERS, "{name}");
    }
    // The one that leads the facts goes, whoever is connected with it.
    let facts = info(&js, "facts").await;
    let leader = facts.cluster.unwrap().leader.unwrap();
    let at: usize = leader.trim_start_matches('n').parse().unwrap();
    servers.processes[at].kill().unwrap();
    let told = facts.state.last_sequence;
    // Orders come in all the time; what the servers were not told meanwhile is asked of the engine.
    let more = async || {
        let order = user.json(&["order", "place", "buy", "NVDA", "1", "--price", "120.00"]);
        user.until(&["order", "list", "--open"], "the order", |orders| orders[0]["id"] == order["id"]);
        (info(&js, "facts").await.state.last_sequence > told).then_some(())
    };
    soon("facts at the two that are left", more).await;
    user.audit();
}
