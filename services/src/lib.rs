//! The services of fafnir and the platform that they stand on.
//!
//! [`ALL`] is the table of services; [`compose::start`] runs any of them. A service never imports another one.

pub mod auth;
pub mod broker;
pub mod compose;
pub mod gateway;
pub mod order;
pub mod platform;
pub mod portfolio;
pub mod security;
pub mod simulator;
pub mod stock;
pub mod trade_engine;
pub mod user;

use futures::future::BoxFuture;
use platform::{Context, Settings, db::Migration};
use tokio::net::TcpListener;

/// A row of the table of services.
#[derive(Clone, Copy)]
pub struct Service {
    /// Name in the address directory and on the command line.
    pub name: &'static str,
    /// Its port in the settings.
    pub port: fn(&Settings) -> u16,
    /// Its configured address elsewhere; empty when it has none.
    pub address: fn(&Settings) -> &str,
    /// One line for `--help`.
    pub about: &'static str,
    /// The schema of its database, in order; empty when it has none.
    pub migrations: &'static [Migration],
    /// Starts it on a bound listener; resolves when it is ready. Its tasks are the context's.
    pub start: fn(Context, TcpListener) -> BoxFuture<'static, anyhow::Result<()>>,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// Every service that can be composed, the broker first.
pub const ALL: &[Service] = &[
    broker::SERVICE,
    auth::SERVICE,
    security::SERVICE,
    user::SERVICE,
    stock::SERVICE,
    order::SERVICE,
    portfolio::SERVICE,
    trade_engine::SERVICE,
    gateway::SERVICE,
];

/// The service with this name.
pub fn by_name(name: &str) -> Option<Service> {
    ALL.iter().copied().find(|s| s.name == name)
}
