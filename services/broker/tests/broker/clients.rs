//! The scenario suites of nats-py and @nats-io: scripts run against the embedded broker and, where there is one,
//! against a real nats-server; their transcripts are compared.

use crate::support::{TestBroker, nats_server, soon};
use fafnir_broker::User;
use futures::{SinkExt, StreamExt};
use std::process::{Command, Stdio};
use std::time::Duration;
use tokio_tungstenite::tungstenite::{self, Message};

/// Longest run of one script.
const RUN_MAX: Duration = Duration::from_mins(2);

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

async fn transcript(mut command: Command) -> String {
    command.stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output =
        tokio::time::timeout(RUN_MAX, running).await.expect("the script ends in time").unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

async fn compare(make: impl Fn() -> Command) {
    let broker = TestBroker::start().await;
    let run = async |url: &str| {
        let mut command = make();
        command.arg(url);
        transcript(command).await
    };
    let ours = run(&broker.url()).await;
    if let Some((url, _alone)) = nats_server().await {
        let theirs = run(&url).await;
        let differences: Vec<String> = ours
            .lines()
            .zip(theirs.lines())
            .filter(|(ours, theirs)| ours != theirs)
            .map(|(ours, theirs)| format!("ours   {ours}\ntheirs {theirs}"))
            .collect();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
        assert_eq!(ours.lines().count(), theirs.lines().count(), "{ours}\n{theirs}");
    }
}

/// `FAFNIR_TEST_PYTHON` is a Python that has nats-py.
#[tokio::test]
async fn nats_py_sees_the_same_on_the_embedded_broker_and_on_a_real_server() {
    let Ok(python) = std::env::var("FAFNIR_TEST_PYTHON") else {
        skipped("no Python with nats-py (FAFNIR_TEST_PYTHON is not set)");
        return;
    };
    compare(|| {
        let mut command = Command::new(&python);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/scenarios.py"));
        command
    })
    .await;
}

/// `FAFNIR_TEST_NODE_MODULES` is the directory that holds `node_modules` with the three packages.
#[tokio::test]
async fn nats_js_sees_the_same_on_the_embedded_broker_and_on_a_real_server() {
    if std::env::var("FAFNIR_TEST_NODE_MODULES").is_err() {
        skipped("no @nats-io packages (FAFNIR_TEST_NODE_MODULES is not set)");
        return;
    }
    compare(|| {
        let mut command = Command::new("node");
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/scenarios.cjs"));
        command
    })
    .await;
}

fn market() -> Vec<User> {
    vec![
        User::all("services", "long secret"),
        User {
            subscribe: vec!["market.>".into(), "_INBOX.>".into()],
            publish: vec!["$JS.API.INFO".into()],
            ..User::new("market", "other secret")
        },
    ]
}

/// Publishes a quote every few milliseconds.
async fn quotes(broker: &TestBroker) -> tokio::task::JoinHandle<()> {
    let client = broker.connect_as("services", "long secret").await.unwrap();
    tokio::spawn(async move {
        for number in 0_u64.. {
            client.publish("market.quote", number.to_string().into()).await.unwrap();
            client.publish("orders.secret", "x".into()).await.unwrap();
            client.flush().await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
}

#[tokio::test]
async fn a_browser_watches_the_market_over_a_websocket() {
    if std::env::var("FAFNIR_TEST_NODE_MODULES").is_err() {
        skipped("no @nats-io packages (FAFNIR_TEST_NODE_MODULES is not set)");
        return;
    }
    let broker = TestBroker::start_with(market()).await;
    let publishing = quotes(&broker).await;
    let mut command = Command::new("node");
    command.arg("--experimental-websocket");
    command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/websocket.cjs"));
    command.arg(format!("ws://{}", broker.websocket)).args(["market", "other secret"]);
    let seen = transcript(command).await;
    publishing.abort();
    assert_eq!(seen, "quotes 20 in order true\norders refused\nwrong password refused\n");
}

/// The next bytes of the protocol on a WebSocket.
async fn next(socket: &mut (impl StreamExt<Item = Result<Message, tungstenite::Error>> + Unpin)) -> String {
    match soon(socket.next()).await {
        Some(Ok(Message::Binary(bytes))) => String::from_utf8(bytes.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn a_websocket_carries_the_same_protocol_users_and_subjects() {
    let broker = TestBroker::start_with(market()).await;
    let url = format!("ws://{}", broker.websocket);
    let (mut socket, _) = soon(tokio_tungstenite::connect_async(&url)).await.unwrap();
    assert!(next(&mut socket).await.starts_with("INFO {"));
    let hello = "CONNECT {\"user\":\"market\",\"pass\":\"other secret\"}\r\nSUB market.> 1\r\nPING\r\n";
    // Cut anywhere: a message is not a line.
    for part in [&hello[..30], &hello[30..]] {
        soon(socket.send(Message::Binary(part.to_owned().into()))).await.unwrap();
    }
    assert_eq!(next(&mut socket).await, "PONG\r\n");
    let services = broker.connect_as("services", "long secret").await.unwrap();
    let large = "x".repeat(500_000);
    services.publish("market.a", large.clone().into()).await.unwrap();
    services.flush().await.unwrap();
    let mut got = String::new();
    while got.len() < large.len() {
        got.push_str(&next(&mut socket).await);
    }
    assert_eq!(got, format!("MSG market.a 1 500000\r\n{large}\r\n"));
    soon(socket.send(Message::Binary("SUB orders.> 2\r\n".into()))).await.unwrap();
    assert!(next(&mut socket).await.starts_with("-ERR 'Permissions Violation"));
    let (mut stranger, _) = soon(tokio_tungstenite::connect_async(&url)).await.unwrap();
    assert!(next(&mut stranger).await.starts_with("INFO {"));
    let wrong = "CONNECT {\"user\":\"market\",\"pass\":\"no\"}\r\nPING\r\n";
    soon(stranger.send(Message::Binary(wrong.into()))).await.unwrap();
    assert_eq!(next(&mut stranger).await, "-ERR 'Authorization Violation'\r\n");
}
