//! A row of the table of services: all that the composition, the command line and the doctor know of a service.

use crate::{Context, Settings, db::Migration};
use futures::future::BoxFuture;
use tokio::net::TcpListener;

/// A service on its way: resolves when it is ready.
pub type Starting = BoxFuture<'static, anyhow::Result<()>>;

/// What a service's port speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// REST or gRPC.
    Http,
    /// The NATS protocol.
    Nats,
}

/// A component that may call a service: all of its methods, or these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MayCall {
    pub caller: &'static str,
    /// Empty: every method, and what is no gRPC.
    pub methods: &'static [&'static str],
}

impl MayCall {
    /// Every method.
    pub const fn everything(caller: &'static str) -> Self {
        Self { caller, methods: &[] }
    }
    /// These methods alone.
    pub const fn only(caller: &'static str, methods: &'static [&'static str]) -> Self {
        Self { caller, methods }
    }
}

/// A row of the table of services.
#[derive(Clone, Copy)]
pub struct Service {
    /// Name on the command line, in logs and metrics.
    pub name: &'static str,
    /// Path of its code, as log lines have it in `target`.
    pub module: &'static str,
    /// Name in the address directory.
    pub directory: &'static str,
    pub speaks: Speaks,
    /// Its port in the settings.
    pub port: fn(&Settings) -> u16,
    /// Flag of the command line that chooses that port.
    pub port_flag: &'static str,
    /// Its configured address elsewhere; empty when it has none.
    pub address: fn(&Settings) -> &str,
    /// One line for `--help`.
    pub about: &'static str,
    /// The others stand on it: it ends after them, and does not start where one elsewhere is configured.
    pub foundation: bool,
    /// Clients from anywhere come to its door: it listens on `bind.host`, and demands no certificate.
    pub public: bool,
    /// Who may call it, by the component that a certificate names, and what: where certificates are demanded.
    pub callers: &'static [MayCall],
    /// The schema of its database, in order; empty when it has none.
    pub migrations: &'static [Migration],
    /// Starts it on a bound listener. Its tasks are the context's.
    pub start: fn(Context, TcpListener) -> Starting,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

impl Service {
    /// A row with what most services have in common.
    pub const fn new(
        name: &'static str,
        about: &'static str,
        start: fn(Context, TcpListener) -> Starting,
    ) -> Self {
        Self {
            name,
            module: "",
            directory: name,
            speaks: Speaks::Http,
            port: |_| 0,
            port_flag: "--ports auto",
            address: |_| "",
            about,
            foundation: false,
            public: false,
            callers: &[],
            migrations: &[],
            start,
        }
    }

    /// Whether a stack with these settings starts it itself.
    pub fn starts_here(&self, settings: &Settings) -> bool {
        !self.foundation || (self.address)(settings).is_empty()
    }
}
