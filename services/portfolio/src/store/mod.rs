//! The tables of portfolio-service; the only SQL.

mod accounts;
mod audit;
mod books;
mod figures;
mod kept;
mod lists;

pub use accounts::*;
pub use audit::*;
pub use books::*;
pub use figures::*;
pub use lists::*;

use fafnir_platform::{db::Migration, migration};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001_init"), migration!("0002_figures")];
