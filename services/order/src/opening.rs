//! A read model that begins with the open orders of a snapshot, because what came before is gone.

use super::{
    MIGRATIONS as OURS,
    domain::changes::Changes,
    store::{self, projection::Rows},
};
use fafnir_platform::{
    db::{Db, Migration},
    error::{Error, Result},
};
use fafnir_proto::v1::Fact;

/// The schema of the read model.
pub const MIGRATIONS: &[Migration] = OURS;

/// Puts an opening into an empty read model: facts that end at a position.
///
/// # Errors
/// It is not empty, or the facts do not fit before the position.
pub async fn open(db: &Db, position: u64, facts: Vec<Fact>) -> Result<()> {
    let from = position
        .checked_sub(facts.len() as u64)
        .ok_or_else(|| Error::internal("the opening has more facts than there were"))?;
    let changes = Changes::read(from, facts).map_err(|e| Error::internal(e.to_string()))?;
    let rows = Rows::new(changes);
    db.write(move |tx| {
        store::begin_at(tx, from, position)?;
        rows.write(tx)
    })
    .await
}
