//! Orders: what a request must be of itself, and what a batch of facts makes of the read model. No I/O, no clock, no float.

pub mod changes;
pub mod history;
pub mod new_order;
#[cfg(test)]
mod tests;

pub use fafnir_platform::Refusal as Error;
