//! The embedded broker as clients see it: one binary, so that everything in `support` is used.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

mod support;

mod clients;
mod core_nats;
mod crash;
mod errors;
mod full_disk;
mod hostile;
mod jetstream;
mod kv;
mod operations;
mod scale;
mod scenarios;
mod secured;
mod slow;
mod transcript;
