//! The stories of the services as they run: over their own doors, on a stack of their own.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test target")]

mod auth;
mod bus;
mod erasure;
mod gateway;
mod http;
mod journal;
mod migrations;
mod order;
mod portfolio;
mod security;
mod simulator;
mod stack;
mod stock;
mod trade_engine;
mod user;
mod wire;
