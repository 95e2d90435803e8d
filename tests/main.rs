//! End-to-end: the real binary, on its own data directory and free ports.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::assigning_clones,
    reason = "a test target"
)]

mod audit;
mod broker;
mod cluster;
mod command_line;
mod commands;
mod damage;
mod directions;
mod disk;
mod first_client;
mod groups;
mod harness;
mod kills;
mod live;
mod load;
mod markets;
mod moving_up;
mod nats_cluster;
mod outages;
mod processes;
mod proxy;
mod recovery;
mod refusals;
mod replay;
mod replicas;
mod ride;
mod rotation;
mod server;
mod tls;
mod traces;
mod trader;
mod trading;
mod who;
