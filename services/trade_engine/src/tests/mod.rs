//! Tests of the exchange across its files.

mod bench;
mod crash;
mod end_to_end;
mod figures;
mod fuzz;
pub mod kill;
mod million;
mod replay;
mod rules;
mod sessions;
mod skipped;
mod standing;
mod support;
mod volatility;
