//! An embedded broker for tests: own directory, own port, stopped and restarted at will.

use fafnir_broker::{Config, Error, Tls, User, serve};
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::sync::{Mutex, MutexGuard};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything in a test.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Held by the test that uses the real server: it lists what is there, so others must not be at it.
static REAL: Mutex<()> = Mutex::const_new(());

/// The current nats-server that a test compares with, for this test alone; without one the test is skipped. Debian's is
/// too old: it lacks what is advertised here.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub async fn nats_server() -> Option<(String, MutexGuard<'static, ()>)> {
    let url = std::env::var("FAFNIR_TEST_NATS_CURRENT_URL").ok().filter(|url| !url.is_empty());
    if let Some(url) = url {
        Some((url, REAL.lock().await))
    } else {
        eprintln!("skipped: no nats-server to compare with (FAFNIR_TEST_NATS_CURRENT_URL names none)");
        None
    }
}

/// Waits for a future, but not for ever.
pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("it happens within the deadline")
}

/// Waits until the broker has taken everything that this client sent before: a message to itself comes back. A flush of the
/// client only says that all was sent.
pub async fn round_trip(client: &async_nats::Client) {
    let inbox = client.new_inbox();
    let mut own = soon(client.subscribe(inbox.clone())).await.unwrap();
    client.publish(inbox, "".into()).await.unwrap();
    soon(futures::StreamExt::next(&mut own)).await.expect("the broker answers");
}

pub struct TestBroker {
    pub address: SocketAddr,
    pub websocket: SocketAddr,
    pub dir: tempfile::TempDir,
    users: Vec<User>,
    shutdown: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

/// A certificate for this machine, its own authority, and its key; nothing where there is no openssl.
pub fn certificate(dir: &Path) -> Option<Tls> {
    let (certificate, key) = (dir.join("certificate.pem"), dir.join("key.pem"));
    let arguments = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost \
                     -addext subjectAltName=DNS:localhost,IP:127.0.0.1 -addext basicConstraints=critical,CA:false";
    let mut command = std::process::Command::new("openssl");
    command.args(arguments.split_whitespace()).arg("-keyout").arg(&key).arg("-out").arg(&certificate);
    command.output().ok()?.status.success().then_some(Tls { certificate, key, loopback_in_clear: false })
}

async fn start(
    dir: &Path,
    users: Vec<User>,
    port: u16,
) -> (SocketAddr, SocketAddr, CancellationToken, JoinHandle<Result<(), Error>>) {
    let listener = loop {
        match tokio::net::TcpListener::bind(("127.0.0.1", port)).await {
            Ok(listener) => break listener,
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => tokio::task::yield_now().await,
            Err(error) => panic!("bind: {error}"),
        }
    };
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let door = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let websocket = door.local_addr().unwrap();
    let config = Config { users, websocket: Some(door), ..Config::new(dir) };
    (address, websocket, shutdown.clone(), tokio::spawn(serve(listener, config, shutdown)))
}

impl TestBroker {
    pub async fn start() -> Self {
        Self::start_with(Vec::new()).await
    }

    pub async fn start_with(users: Vec<User>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (address, websocket, shutdown, task) = start(dir.path(), users.clone(), 0).await;
        Self { address, websocket, dir, users, shutdown, task }
    }

    pub fn url(&self) -> String {
        format!("nats://{}", self.address)
    }

    pub async fn connect(&self) -> async_nats::Client {
        soon(async_nats::connect(self.url())).await.unwrap()
    }

    pub async fn connect_as(
        &self,
        name: &str,
        password: &str,
    ) -> Result<async_nats::Client, async_nats::ConnectError> {
        let options = async_nats::ConnectOptions::with_user_and_password(name.into(), password.into());
        soon(options.connect(self.url())).await
    }

    pub async fn stop(&mut self) {
        self.shutdown.cancel();
        soon(&mut self.task).await.unwrap().unwrap();
    }

    /// Stops and starts again on the same port with the same store.
    pub async fn restart(&mut self) {
        self.stop().await;
        let (_, websocket, shutdown, task) =
            start(self.dir.path(), self.users.clone(), self.address.port()).await;
        self.websocket = websocket;
        self.shutdown = shutdown;
        self.task = task;
    }
}
