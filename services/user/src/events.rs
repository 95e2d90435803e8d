//! The facts that user-service follows: the profile of a deleted user is blank.

use super::store;
use fafnir_platform::{
    Context, Result,
    db::{Db, Tx},
    users,
};
use fafnir_proto::id::UserId;

/// Follows stream `users` until shutdown.
pub async fn follow(ctx: &Context, db: Db) -> Result<()> {
    users::follow_deleted(ctx, db, erase).await
}

/// What the end of a user is here.
pub fn erase(tx: &mut dyn Tx, user: UserId, now_us: i64) -> Result<()> {
    store::erase(tx, user, now_us)?;
    Ok(())
}
