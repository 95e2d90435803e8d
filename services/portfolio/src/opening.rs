//! Books that begin with what a snapshot holds, because what came before is gone.

use super::store::{self, Names};
use fafnir_platform::{
    db::{Db, Migration},
    error::{Error, Result},
};
use fafnir_proto::v1::Fact;
use std::sync::Arc;

/// The schema of the books.
pub const MIGRATIONS: &[Migration] = store::MIGRATIONS;

/// Puts an opening into empty books: facts that end at a position, and the hash that their chain begins with.
///
/// # Errors
/// The books are not empty, or the facts do not fit before the position.
pub async fn open(db: &Db, position: u64, origin: [u8; 16], facts: Vec<Fact>) -> Result<()> {
    let facts = Arc::new(facts);
    let from = position
        .checked_sub(facts.len() as u64)
        .ok_or_else(|| Error::internal("the opening has more facts than there were"))?;
    db.write(move |tx| {
        store::begin_at(tx, from, position, &origin)?;
        store::apply(tx, &mut Names::default(), from, &facts)
    })
    .await?;
    Ok(())
}
