//! The embedded broker as clients see it: one binary, so that everything in `support` is used.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

mod core_nats;
mod jetstream;
mod kv;
mod scenarios;
mod transcript;
