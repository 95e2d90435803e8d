//! The facts that security-service follows: a deleted user has no roles.

use super::store;
use fafnir_platform::{
    Context, Result,
    db::{Db, Tx},
    users,
};
use fafnir_proto::id::UserId;

/// Follows stream `users` until shutdown.
pub async fn follow(ctx: &Context, db: Db) -> Result<()> {
    users::follow_deleted(ctx, db, revoke_all).await
}

/// What the end of a user is here.
pub fn revoke_all(tx: &mut dyn Tx, user: UserId, _now_us: i64) -> Result<()> {
    store::revoke_all(tx, user)?;
    Ok(())
}
