//! The tables of portfolio-service; the only SQL.
//!
//! Everything that moves money or shares goes through a [`Session`], which keeps what it touches in memory, checks it,
//! and writes it once at the end of the transaction.

mod accounts;
mod audit;
mod lists;
mod session;

pub use accounts::*;
pub use audit::*;
pub use lists::*;
pub use session::{Failure, HoldRow, Outcome, Session};

use crate::{
    migration,
    platform::db::{Error, Migration, Tx, Value},
};

/// The schema.
pub const MIGRATIONS: &[Migration] = &[migration!("portfolio", "0001_init")];

/// Rows of one `INSERT`, largest first: few texts, so that prepared statements are found again.
const CHUNKS: [usize; 3] = [16, 4, 1];

/// Inserts rows of `columns` values each, many per statement.
fn insert_many(
    tx: &mut dyn Tx,
    head: &str,
    columns: usize,
    tail: &str,
    values: &[Value],
) -> Result<(), Error> {
    let mut rest = values;
    for chunk in CHUNKS {
        while rest.len() >= chunk * columns {
            let (now, later) = rest.split_at(chunk * columns);
            let mut sql = String::with_capacity(head.len() + tail.len() + chunk * columns * 5);
            sql.push_str(head);
            for row in 0..chunk {
                sql.push_str(if row == 0 { " (" } else { ", (" });
                for column in 0..columns {
                    if column > 0 {
                        sql.push_str(", ");
                    }
                    sql.push('?');
                    sql.push_str(&(row * columns + column + 1).to_string());
                }
                sql.push(')');
            }
            sql.push_str(tail);
            tx.execute(&sql, now)?;
            rest = later;
        }
    }
    Ok(())
}
