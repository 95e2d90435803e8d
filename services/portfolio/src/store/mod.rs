//! The tables of portfolio-service; the only SQL.

mod accounts;
mod audit;
mod books;
mod lists;

pub use accounts::*;
pub use audit::*;
pub use books::*;
pub use lists::*;

use fafnir_platform::{db::Migration, migration};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001_init")];
