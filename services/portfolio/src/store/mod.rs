//! The tables of portfolio-service; the only SQL.

mod accounts;
mod audit;
mod books;
mod lists;

pub use accounts::*;
pub use audit::*;
pub use books::*;
pub use lists::*;

use fafnir_platform::{
    db::{Error, Migration, Tx, Value},
    migration,
};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[migration!("0001_init")];

/// Runs a statement once for each row of `columns` values.
fn for_each_row(tx: &mut dyn Tx, sql: &str, columns: usize, values: &[Value]) -> Result<(), Error> {
    values.chunks(columns).try_for_each(|row| tx.execute(sql, row).map(|_| ()))
}
