//! The exchange as a state machine: accounts, balances, holds, fees, conversion and settlement around the books.
//!
//! [`step`] takes a command and its time and gives facts and an answer. No I/O, no clock, no randomness, no float; the
//! same commands give the same facts and the same canonical state everywhere. It checks everything, then changes: the
//! second half cannot fail (journal.md §1).
//!
//! # Life of a bracket
//! One command places it: exits asleep outside the book (`HELD`, nothing held), then the entry with its cash. Each fill of
//! the entry wakes its exits or makes them grow by as much; they hold those shares once. What the target sells the stop
//! loses in the same step; the trigger of the stop ends the target. The entry's end leaves exits for what it bought, or
//! takes them with it where it bought nothing; exits that are out of shares end what is left of the entry.

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
