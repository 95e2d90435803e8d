//! The facts that user-service follows: the profile of a deleted user is blank.

use super::store;
use bytes::Bytes;
use fafnir_platform::{
    Context, Error, Result,
    bus::USERS,
    db::{Db, inbox},
};
use fafnir_proto::{id::UserId, subject::USER_DELETED, v1};
use prost::Message as _;

/// Follows stream `users` until shutdown.
pub async fn follow(ctx: &Context, db: Db) -> Result<()> {
    let clock = ctx.clock.clone();
    let bus = ctx.bus().await?;
    bus.follow(ctx, USERS, move |facts| {
        let (db, now_us) = (db.clone(), clock.now_us());
        async move { apply(&db, facts, now_us).await }
    })
    .await
}

/// Applies facts in one transaction; each may come again.
pub async fn apply(db: &Db, facts: Vec<(String, Bytes)>, now_us: i64) -> Result<()> {
    db.write(move |tx| {
        for (subject, payload) in &facts {
            if subject != USER_DELETED {
                continue;
            }
            let user = v1::UserDeleted::decode(payload.clone())
                .map_err(|e| e.to_string())
                .and_then(|f| UserId::parse(&f.user_id).map_err(|e| e.to_string()));
            match user {
                Ok(user) => {
                    store::erase(tx, user, now_us)?;
                }
                Err(e) => inbox::bury(tx, subject, payload, &e, now_us)?,
            }
        }
        Ok::<(), Error>(())
    })
    .await
}
