//! Tests of the engine across its files: rules, crashes, replay, questions, figures.

mod crash;
mod figures;
mod fuzz;
pub mod kill;
mod million;
mod replay;
mod rules;
mod support;
mod volatility;
