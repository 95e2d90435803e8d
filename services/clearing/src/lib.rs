//! The exchange as a state machine: accounts, balances, holds, fees, conversion and settlement around the books.
//!
//! [`step`] takes a command and its time and gives facts and an answer. No I/O, no clock, no randomness, no float; the
//! same commands give the same facts and the same canonical state everywhere. It checks everything, then changes: the
//! second half cannot fail (journal.md §1).

pub mod account;
pub mod codec;
pub mod command;
mod encode;
pub mod fact;
pub mod group;
pub mod hold;
pub mod market;
pub mod money;
pub mod order;
mod orders;
pub mod recent;
pub mod reference;
pub mod refusal;
mod settle;
mod state;
mod step;
pub mod terms;

pub use state::{State, account_after};
pub use step::{pass, step};

#[cfg(test)]
mod tests;
