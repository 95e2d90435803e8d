//! The agents of the simulated market as a state machine, and a market of their own to play in.
//!
//! No I/O, no clock, no thread: facts, answers and steps go into the [`Core`], requests come out. The same seed and the
//! same order of inputs give the same requests. The live market carries the requests out through the doors of the platform;
//! [`Play`] carries them out against the real book, for the history of a new platform and for `fafnir sim check`.
//!
//! Prices follow from a value that moves ([`value`]), from makers who quote around it, and from the orders of everybody.
//! Floats are for what agents believe; what they ask for is integers.

mod check;
mod core;
mod draw;
pub mod import;
mod ladder;
mod listing;
mod measure;
mod play;
pub mod recorded;
mod symbol;
mod traders;
mod value;

#[cfg(test)]
mod tests;

pub use check::{Check, Published, Row, check};
pub use core::daily_volume_e4;
pub use core::{Agent, Answer, Core, Event, OrderId, Request, STEPS_PER_SECOND, Standing};
pub use draw::exp;
/// Of an order.
pub use fafnir_matching::Side;
pub use ladder::{LEVELS, Ladder, Quote, Stage};
pub use listing::Listing;
pub use play::{Bar, Play};
pub use symbol::{
    MAKER_QUOTES, TRADER_CASH_MICROS, TRADER_QUOTES, TRADERS, maker_cash_micros, quote_e4, quote_worth,
};
pub use value::{Mood, SESSION_STEPS, daily_returns};
