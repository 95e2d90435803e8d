//! The rules of the exchange that everybody shares, each in its only home: pure, integers only, no dependency.

pub mod calendar;
pub mod check;
pub mod limits;
pub mod money;
pub mod order;
pub mod pause;
pub mod price;
pub mod rng;
pub mod symbol;
