//! The contract of fafnir: generated messages and clients, value types, client connections.
//!
//! Units: `*_e4` is a signed 64-bit integer of scale 10⁻⁴, `*_micros` of scale 10⁻⁶ in one currency, `*_us`
//! microseconds since 1970-01-01 UTC.

#[expect(clippy::all, clippy::pedantic, reason = "generated code")]
pub mod v1 {
    tonic::include_proto!("fafnir.v1");
}
pub mod client;
pub mod connection;
pub mod deadline;
pub mod id;
pub mod in_process;
pub mod listing;
pub mod order;
pub mod reason;
pub mod subject;
pub mod trace;

pub use fafnir_tls as tls;

/// The encoded descriptors of every proto file, for gRPC reflection.
pub const FILE_DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/fafnir.v1.bin"));
