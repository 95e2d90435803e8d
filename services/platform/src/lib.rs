//! What every service stands on: configuration, database, bus, cache, caller, clock, errors, random numbers, server, telemetry.

pub mod agents;
pub mod bus;
pub mod cache;
pub mod caller;
pub mod clock;
pub mod config;
pub mod context;
pub mod csrf;
pub mod db;
pub mod door;
pub mod envelope;
pub mod error;
pub mod facts;
pub mod guard;
pub mod health;
pub mod http;
pub mod log_file;
pub mod manifest;
pub mod names;
pub mod refusal;
pub mod rng;
pub mod row;
pub mod secrets;
pub mod server;
pub mod tasks;
pub mod telemetry;
pub mod token;
pub mod users;
pub mod verifier;

pub use caller::Caller;
pub use clock::Clock;
pub use config::Settings;
pub use context::Context;
pub use error::{Error, Result};
pub use refusal::Refusal;
pub use row::{Service, Speaks, Starting};
