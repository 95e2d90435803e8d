//! The scenario suites of nats-py and @nats-io: scripts run against the embedded broker and, where there is one,
//! against a real nats-server; their transcripts are compared.

use crate::support::{TestBroker, nats_server};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Longest run of one script.
const RUN_MAX: Duration = Duration::from_mins(2);

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

async fn transcript(mut command: Command, url: &str) -> String {
    command.arg(url).stdin(Stdio::null());
    let running = tokio::task::spawn_blocking(move || command.output());
    let output =
        tokio::time::timeout(RUN_MAX, running).await.expect("the script ends in time").unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    text
}

async fn compare(make: impl Fn() -> Command) {
    let broker = TestBroker::start().await;
    let ours = transcript(make(), &broker.url()).await;
    if let Some(url) = nats_server() {
        let theirs = transcript(make(), &url).await;
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
