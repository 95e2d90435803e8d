//! The client commands' connection to the gateway, and the session that `fafnir login` keeps.

mod directory;
pub mod ids;

use crate::{
    args::{Global, Where},
    output::{Error, Exit, Result},
    settings, stack,
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fafnir_disk::whole;
use fafnir_proto::{
    connection::Connection,
    reason::Reason,
    v1::{
        Empty, TerminalRefreshRequest, TerminalSession, TerminalSignInRequest,
        terminal_client::TerminalClient,
    },
};
use fafnir_services::platform::{
    Clock,
    clock::SECOND_US,
    tls::{self, Trust},
};
use fafnir_tui::{Scheme, Session, SessionLock, SessionStore, backend::rpc::outcome, msg::Outcome};
use rustix::fs::{FlockOperation, flock};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
    time::Duration,
};
use tokio::time::{Instant, sleep};
use tonic::{Request, Response, Status};

/// Deadline of one call.
const DEADLINE: Duration = Duration::from_secs(5);
/// Who asks for more at a time than the gateway allows waits so long, and gives up after so long.
const LIMITED_PAUSE: Duration = Duration::from_millis(500);
const LIMITED_MAX: Duration = Duration::from_secs(30);
/// An access token is renewed when it has less than this to live.
const RENEW_BEFORE_S: u64 = 30;
/// An API key, `ID:SECRET`: in the environment, because the command line is everybody's to read.
const KEY_VARIABLE: &str = "FAFNIR_KEY";
const DEMO_EMAIL: &str = "user@test.com";
const DEMO_PASSWORD: &str = "Password123";

/// A kept session; the file has one per gateway.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    pub email: String,
    pub user_id: String,
    pub access_token: String,
    pub refresh_token: String,
    /// Seconds since 1970 at which the access token ends.
    pub expires_s: u64,
    /// How long an access token lives.
    lifetime_s: u32,
    name: [String; 2],
    permissions: Vec<String>,
    /// With the password of the market-data user.
    market_data_url: String,
}

/// A gateway and, once signed in, a token.
#[derive(Clone)]
pub struct Client {
    pub url: String,
    pub terminal: TerminalClient<Connection>,
    /// What goes into the metadata `authorization`.
    authorization: String,
}

/// Asks until the gateway's limit lets the question through.
pub async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T, Status>) -> Result<T> {
    let until = Instant::now() + LIMITED_MAX;
    loop {
        let error = match ask().await {
            Ok(answer) => return Ok(answer),
            Err(status) => Error::from(status),
        };
        if error.code != Reason::RATE_LIMITED.as_str() || Instant::now() >= until {
            return Err(error);
        }
        sleep(LIMITED_PAUSE).await;
    }
}

/// The key of a request that changes something: the one that is given, else a new one.
pub fn key_of(given: Option<&String>) -> String {
    given.map_or_else(|| uuid::Uuid::new_v4().to_string(), Clone::clone)
}

/// An answer to such a request; where it leaves open whether the request was taken, the error says how to ask again.
pub fn keyed<T>(answer: Result<Response<T>, Status>, option: &str, key: &str) -> Result<T> {
    answer.map(Response::into_inner).map_err(|status| {
        let is_open = matches!(outcome::<()>(&status), Outcome::Unknown(_));
        let error = Error::from(status);
        // Nobody was there to take it.
        if is_open && error.exit != Exit::NotRunning { error.repeat_with(option, key) } else { error }
    })
}

/// Where a gateway is, and how it is reached.
#[derive(Debug, Clone)]
pub struct Gateway {
    pub url: String,
    pub tls: tls::Client,
}

impl From<tls::Error> for Error {
    fn from(e: tls::Error) -> Self {
        Self::new(Exit::Usage, e.to_string()).code(Reason::CONFIGURATION).hint(
            "--authority and tls.* name PEM files; `fafnir config --show-origin` says where they are set",
        )
    }
}

/// The gateway that a command talks to: the one that the flag names, the running stack of the data directory, the configured
/// one. A `fafnir.toml` of the current directory that has a word in it is asked about ([`directory`]).
pub fn gateway(global: &Global, at: &Where) -> Result<Gateway> {
    find(global, at, true)
}

/// The same without a question: where one would be asked there is none.
pub fn gateway_unasked(global: &Global, at: &Where) -> Result<Gateway> {
    find(global, at, false)
}

fn find(global: &Global, at: &Where, may_ask: bool) -> Result<Gateway> {
    let layers = settings::layers(global, &[])?;
    let settings = layers.settings()?;
    let mut said = Vec::new();
    let running = stack::running(&settings.data_dir());
    let running = running.and_then(|run| {
        let trust = run.authority.map_or(Trust::System, Trust::Authority);
        Some((run.services.get("api-gateway")?.clone(), trust))
    });
    let given = at.url.as_ref().map(|url| url.trim_end_matches('/').to_owned());
    let (url, known) = match (given, running) {
        (Some(given), Some((url, trust))) if given == url => (given, Some(trust)),
        (Some(given), _) => (given, None),
        (None, Some((url, trust))) => {
            said.push("data_dir");
            (url, Some(trust))
        }
        (None, None) if !settings.addresses.gateway.is_empty() => {
            said.extend(["data_dir", "addresses.gateway"]);
            (settings.addresses.gateway.clone(), None)
        }
        (None, None) => {
            said.extend(["data_dir", "bind.host", "ports.gateway"]);
            let scheme = tls::scheme(&settings, &fafnir_services::gateway::SERVICE);
            (format!("{scheme}://{}:{}", settings.bind.host_in_url(), settings.ports.gateway), None)
        }
    };
    let trust = match (&at.authority, known) {
        (Some(file), _) => Trust::Authority(file.clone()),
        (None, Some(trust)) => trust,
        (None, None) => {
            said.extend(["tls.authority", "tls.dir"]);
            tls::trust(&settings, "")
        }
    };
    directory::check(global, &layers, &said, &url, &trust, may_ask)?;
    let secured = url.starts_with("https://");
    let tls = if secured { tls::Client::open(trust, None)? } else { tls::Client::default() };
    Ok(Gateway { url, tls })
}

/// The API key that the command line or the environment gives, as HTTP Basic has it.
fn given_key(at: &Where) -> Result<Option<String>> {
    let (whence, text) = match &at.key_file {
        Some(path) => {
            let text = fs::read_to_string(path).map_err(|e| {
                Error::usage(format!("{}: {e}", path.display())).hint("--key-file names a file")
            })?;
            (path.display().to_string(), text)
        }
        None => match std::env::var(KEY_VARIABLE) {
            Ok(text) if !text.trim().is_empty() => (KEY_VARIABLE.to_owned(), text),
            _ => return Ok(None),
        },
    };
    let text = text.trim();
    let is_key = text.split_once(':').is_some_and(|(id, secret)| !id.is_empty() && !secret.is_empty());
    if !is_key || text.contains(char::is_whitespace) {
        return Err(Error::usage(format!("{whence} has no API key such as PK…:SECRET"))
            .hint("`fafnir key create` makes one"));
    }
    Ok(Some(STANDARD.encode(text)))
}

impl Client {
    /// Prepares a connection; nothing is sent yet.
    pub fn new(gateway: &Gateway) -> Result<Self> {
        let url = &gateway.url;
        let connection = Connection::to(url, &gateway.tls).map_err(|_| {
            Error::usage(format!("{url:?} is not an address"))
                .hint("--url takes one such as http://127.0.0.1:8080")
        })?;
        Ok(Self {
            url: url.to_owned(),
            terminal: TerminalClient::new(connection),
            authorization: String::new(),
        })
    }

    /// A client of the API key that is given, or of the kept session, renewed when it is about to end.
    pub async fn signed_in(global: &Global, at: &Where) -> Result<Self> {
        Self::signed_in_at(&gateway(global, at)?, at).await
    }

    /// The same of a gateway that is found.
    pub async fn signed_in_at(gateway: &Gateway, at: &Where) -> Result<Self> {
        let mut client = Self::new(gateway)?;
        client.authorization = match given_key(at)? {
            Some(key) => format!("Basic {key}"),
            None => match client.session().await {
                Ok(kept) => format!("Bearer {}", kept.access_token),
                Err(e) => return Err(client.if_running(e).await),
            },
        };
        Ok(client)
    }

    /// The session of the API key that is given, where one is.
    pub async fn key_session(&mut self, at: &Where) -> Result<Option<Session>> {
        let Some(key) = given_key(at)? else { return Ok(None) };
        self.authorization = format!("Basic {key}");
        let request = self.request(Empty {});
        Ok(Some(Session::of_key(self.terminal.whoami(request).await?.into_inner(), key)))
    }

    /// A client of a session that the caller keeps.
    pub fn with_token(gateway: &Gateway, token: &str) -> Result<Self> {
        Ok(Self { authorization: format!("Bearer {token}"), ..Self::new(gateway)? })
    }

    /// The kept session for this gateway, renewed under a lock so that two shells do not use one refresh token.
    pub async fn session(&mut self) -> Result<Kept> {
        let not_signed_in = || {
            Error::new(Exit::SignIn, format!("not signed in at {}", self.url))
                .code(Reason::UNAUTHENTICATED)
                .hint("sign in with `fafnir login`")
        };
        let _lock = lock_sessions()?;
        let mut sessions = read_sessions();
        let kept = sessions.get(&self.url).cloned().ok_or_else(not_signed_in)?;
        if kept.expires_s > now_s() + RENEW_BEFORE_S {
            return Ok(kept);
        }
        let request = timed(TerminalRefreshRequest { refresh_token: kept.refresh_token.clone() });
        match self.terminal.refresh(request).await {
            Ok(session) => {
                let kept = Kept::of(&Session::new(session.into_inner(), now_us()));
                sessions.insert(self.url.clone(), kept.clone());
                write_sessions(&sessions)?;
                Ok(kept)
            }
            Err(status) if status.code() == tonic::Code::Unauthenticated => {
                sessions.remove(&self.url);
                write_sessions(&sessions)?;
                Err(not_signed_in())
            }
            Err(status) => Err(status.into()),
        }
    }

    /// What to say to somebody who is not signed in: where nothing runs, that comes first.
    async fn if_running(&mut self, error: Error) -> Error {
        match self.terminal.info(timed(Empty {})).await.map_err(Error::from) {
            Err(absent) if absent.exit == Exit::NotRunning => absent,
            _ => error,
        }
    }

    /// Signs in and keeps the session.
    pub async fn sign_in(&mut self, email: &str, password: &str) -> Result<TerminalSession> {
        let request = timed(TerminalSignInRequest { email: email.to_owned(), password: password.to_owned() });
        let session = self.terminal.sign_in(request).await.map_err(|status| {
            let error = Error::from(status);
            if error.exit == Exit::SignIn { error.hint("check e-mail and password") } else { error }
        })?;
        let session = session.into_inner();
        self.authorization = format!("Bearer {}", session.access_token);
        let _lock = lock_sessions()?;
        let mut sessions = read_sessions();
        sessions.insert(self.url.clone(), Kept::of(&Session::new(session.clone(), now_us())));
        write_sessions(&sessions)?;
        Ok(session)
    }

    /// A session of the seeded user that is kept nowhere.
    pub async fn demo_session(&mut self) -> Result<Session> {
        let request = TerminalSignInRequest { email: DEMO_EMAIL.into(), password: DEMO_PASSWORD.into() };
        Ok(Session::new(self.terminal.sign_in(timed(request)).await?.into_inner(), now_us()))
    }

    /// Signs in as the seeded user.
    pub async fn sign_in_demo(&mut self) -> Result<TerminalSession> {
        self.sign_in(DEMO_EMAIL, DEMO_PASSWORD).await
    }

    /// Forgets the kept session.
    pub fn forget(&self) -> Result {
        let _lock = lock_sessions()?;
        let mut sessions = read_sessions();
        sessions.remove(&self.url);
        write_sessions(&sessions)
    }

    /// A request with the token and the deadline.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = self.stream(message);
        request.set_timeout(DEADLINE);
        request
    }

    /// A request with the token for a stream that goes on until one side ends it.
    pub fn stream<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Ok(value) = self.authorization.parse() {
            request.metadata_mut().insert("authorization", value);
        }
        request
    }
}

/// The kept sessions as the terminal sees them: one gateway's, under the same lock as the commands.
#[derive(Debug)]
pub struct Store {
    pub url: String,
}

struct Locked {
    url: String,
    _lock: File,
}

impl SessionStore for Store {
    fn lock(&self) -> anyhow::Result<Box<dyn SessionLock>> {
        let lock = lock_sessions().map_err(|e| anyhow::anyhow!(e.message))?;
        Ok(Box::new(Locked { url: self.url.clone(), _lock: lock }))
    }
}

impl SessionLock for Locked {
    fn load(&mut self) -> anyhow::Result<Option<Session>> {
        Ok(read_sessions().get(&self.url).map(Kept::session))
    }

    fn store(&mut self, session: &Session) -> anyhow::Result<()> {
        let mut sessions = read_sessions();
        sessions.insert(self.url.clone(), Kept::of(session));
        write_sessions(&sessions).map_err(|e| anyhow::anyhow!(e.message))
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

impl Kept {
    fn of(s: &Session) -> Self {
        Self {
            email: s.email.clone(),
            user_id: s.user_id.clone(),
            access_token: s.access_token.clone(),
            refresh_token: s.refresh_token.clone(),
            expires_s: u64::try_from(s.expires_us / SECOND_US).unwrap_or(0),
            lifetime_s: s.lifetime_s,
            name: [s.first_name.clone(), s.last_name.clone()],
            permissions: s.permissions.clone(),
            market_data_url: s.market_data_url.clone(),
        }
    }

    /// As the terminal takes it.
    pub fn session(&self) -> Session {
        let [first_name, last_name] = self.name.clone();
        Session {
            scheme: Scheme::Bearer,
            access_token: self.access_token.clone(),
            refresh_token: self.refresh_token.clone(),
            expires_us: i64::try_from(self.expires_s).unwrap_or(0).saturating_mul(SECOND_US),
            lifetime_s: self.lifetime_s,
            user_id: self.user_id.clone(),
            email: self.email.clone(),
            first_name,
            last_name,
            permissions: self.permissions.clone(),
            market_data_url: self.market_data_url.clone(),
        }
    }
}

fn now_us() -> i64 {
    Clock::wall().now_us()
}

fn now_s() -> u64 {
    u64::try_from(now_us() / SECOND_US).unwrap_or(0)
}

fn sessions_file() -> PathBuf {
    settings::state_dir().join("session.json")
}

fn lock_sessions() -> Result<File> {
    let dir = settings::state_dir();
    fafnir_services::platform::secrets::create_private_dir(&dir)?;
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(dir.join("session.lock"))?;
    flock(&file, FlockOperation::LockExclusive).map_err(std::io::Error::from)?;
    Ok(file)
}

/// The kept sessions; a file that cannot be read counts as none, a new sign-in mends it.
fn read_sessions() -> BTreeMap<String, Kept> {
    fs::read(sessions_file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn write_sessions(sessions: &BTreeMap<String, Kept>) -> Result {
    let text = serde_json::to_vec_pretty(sessions).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    Ok(whole::write(&sessions_file(), &text, whole::PRIVATE)?)
}
