//! An embedded NATS and JetStream server: what it acknowledges is on disk.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use fafnir_broker::{Config, User, serve};
//! use tokio_util::sync::CancellationToken;
//!
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let address = listener.local_addr()?;
//! let config = Config {
//!     users: vec![
//!         User::all("platform", "long secret"),
//!         User { subscribe: vec!["market.>".into()], ..User::new("market", "other secret") },
//!     ],
//!     ..Config::new("/var/lib/fafnir/broker")
//! };
//! let shutdown = CancellationToken::new();
//! // The listener is bound: clients may connect at once and are answered when the store is open.
//! let broker = tokio::spawn(serve(listener, config, shutdown.clone()));
//! println!("nats://platform:secret@{address}");
//! shutdown.cancel();
//! broker.await??;
//! # Ok(()) }
//! ```
//!
//! `core` is a state machine without I/O or clock; `server` is the tokio adapter and the SQLite store around it.

pub mod core;
#[cfg(feature = "fuzz")]
pub mod fuzz;
mod guests;
mod server;

pub use crate::core::net::Limits;
pub use guests::{GuestList, Guests};
pub use server::{ConsumerSummary, StreamSummary, serve, store_check, store_list};

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Why the broker ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store cannot be read or written; nothing unwritten was acknowledged.
    #[error("broker store {path}: {reason}")]
    Store { path: PathBuf, reason: String },
    /// Another broker has this store open.
    #[error("broker store {path} is in use by process {pid}")]
    InUse { path: PathBuf, pid: String },
    /// The listener failed.
    #[error("broker listener: {0}")]
    Listen(#[from] std::io::Error),
    /// The configuration cannot be used.
    #[error("broker configuration: {0}")]
    Config(String),
    /// A task of the broker ended unexpectedly.
    #[error("broker task ended: {0}")]
    Task(String),
}

/// Somebody who may sign in.
#[derive(Clone, Default)]
pub struct User {
    /// Name at sign-in.
    pub name: String,
    /// Password; never shown.
    pub password: String,
    /// Patterns of subjects that may be published to.
    pub publish: Vec<String>,
    /// Patterns that subscriptions must lie within.
    pub subscribe: Vec<String>,
    /// What it may take up; nothing means as much as the broker has, and that places are kept for it.
    pub limits: Option<Limits>,
}

impl User {
    /// A user who may do nothing yet.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into(), ..Self::default() }
    }

    /// A user who may do everything.
    pub fn all(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { publish: vec![">".into()], subscribe: vec![">".into()], ..Self::new(name, password) }
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("User")
            .field("name", &self.name)
            .field("password", &"****")
            .field("publish", &self.publish)
            .field("subscribe", &self.subscribe)
            .field("limits", &self.limits)
            .finish()
    }
}

/// Certificate and key with which connections are secured (TLS 1.3), as PEM files.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate and those it is signed by.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Whether clients on this machine may do without.
    pub loopback_in_clear: bool,
}

/// How the broker runs. [`Config::new`] has the original's defaults.
#[derive(Debug)]
pub struct Config {
    /// Directory of the store; made if missing, one broker at a time.
    pub store_dir: PathBuf,
    /// Name in INFO.
    pub server_name: String,
    /// Where it is noted once a second how far the store had come, and the store's id in the notes.
    pub note: Option<(PathBuf, [u8; 16])>,
    /// Who may sign in; with nobody listed anybody may do everything.
    pub users: Vec<User>,
    /// Users that come and go while it runs.
    pub guests: Option<GuestList>,
    /// Largest payload with header, in bytes; at most 64 MiB.
    pub max_payload: usize,
    /// Most connections at once.
    pub max_connections: usize,
    /// Most subscriptions of one connection.
    pub max_subscriptions: usize,
    /// Bytes that may wait for one client before it is ended as a slow consumer.
    pub max_pending: usize,
    /// Most streams.
    pub max_streams: usize,
    /// Most consumers in all streams together.
    pub max_consumers: usize,
    /// Free bytes on the disk of the store below which new messages are refused, so that acks and deletions still fit.
    pub min_free: u64,
    /// Time to sign in.
    pub auth_timeout: Duration,
    /// Time between keepalive pings.
    pub ping_interval: Duration,
    /// With it clients use TLS, after INFO as NATS does; WebSockets are `wss`.
    pub tls: Option<Tls>,
    /// Where WebSocket clients connect: the same protocol, subjects and users in binary messages.
    pub websocket: Option<TcpListener>,
    /// Where `/varz`, `/connz`, `/jsz` and `/healthz` are served.
    pub monitor: Option<TcpListener>,
    /// What the monitor serves at `/metrics`: the process' metrics in Prometheus' text format.
    pub metrics: Option<fn() -> String>,
    /// Told once, when the store is open and clients are answered.
    pub ready: Option<oneshot::Sender<()>>,
}

impl Config {
    /// The defaults with a store in this directory.
    pub fn new(store_dir: impl Into<PathBuf>) -> Self {
        Self {
            store_dir: store_dir.into(),
            note: None,
            server_name: "fafnir".into(),
            users: Vec::new(),
            guests: None,
            max_payload: 1 << 20,
            max_connections: 4096,
            max_subscriptions: 200_000,
            max_pending: 64 << 20,
            max_streams: 1024,
            max_consumers: 16_384,
            min_free: 64 << 20,
            auth_timeout: Duration::from_secs(2),
            ping_interval: Duration::from_mins(2),
            tls: None,
            websocket: None,
            monitor: None,
            metrics: None,
            ready: None,
        }
    }
}

/// The URL that clients connect to.
pub fn url(address: SocketAddr, user: Option<&User>) -> String {
    match user {
        Some(user) => format!("nats://{}:{}@{address}", user.name, user.password),
        None => format!("nats://{address}"),
    }
}
