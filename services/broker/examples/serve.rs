//! This broker alone, for suites of other people's clients: `cargo run -p fafnir-broker --example serve -- --store-dir DIR`.
//!
//! Understands the arguments of `fafnir broker` that such suites use and prints its URLs as one line of JSON. Nobody has
//! to sign in, unless `--user NAME --password WORD` name somebody.
#![expect(
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a tool for tests prints and stops at a surprise"
)]

use fafnir_broker::{Config, Tls, User, serve};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The value after an argument.
fn value(name: &str) -> Option<String> {
    let mut arguments = std::env::args().skip_while(|argument| argument != name);
    arguments.next().and_then(|_| arguments.next())
}

async fn bind(argument: &str, otherwise: &str) -> TcpListener {
    let port = value(argument).unwrap_or_else(|| otherwise.into());
    TcpListener::bind(format!("127.0.0.1:{port}")).await.unwrap()
}

#[tokio::main]
async fn main() {
    let listener = bind("--port", "4222").await;
    let monitor = bind("--monitor-port", "0").await;
    let websocket = bind("--websocket-port", "0").await;
    let dir = value("--store-dir").unwrap_or_else(|| "broker".into());
    let (ready, is_ready) = tokio::sync::oneshot::channel();
    let urls = serde_json::json!({
        "nats": fafnir_broker::url(listener.local_addr().unwrap(), None),
        "monitor": format!("http://{}", monitor.local_addr().unwrap()),
        "websocket": format!("ws://{}", websocket.local_addr().unwrap()),
    });
    let stop = CancellationToken::new();
    let users = value("--user").map(|name| User::all(name, value("--password").unwrap_or_default()));
    let tls = value("--tls-certificate").map(|certificate| Tls {
        certificate: certificate.into(),
        key: value("--tls-key").unwrap_or_default().into(),
        loopback_in_clear: false,
    });
    let config = Config {
        users: users.into_iter().collect(),
        tls,
        monitor: Some(monitor),
        websocket: Some(websocket),
        ready: Some(ready),
        ..Config::new(dir)
    };
    let running = tokio::spawn(serve(listener, config, stop.clone()));
    if is_ready.await.is_ok() {
        println!("{urls}");
    }
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
    stop.cancel();
    running.await.unwrap().unwrap();
}
