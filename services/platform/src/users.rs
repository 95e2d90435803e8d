//! Following the users: what a service does when one is deleted.

use super::{
    bus::USERS,
    context::Context,
    db::{Db, Tx, inbox},
    error::Result,
};
use bytes::Bytes;
use fafnir_proto::{id::UserId, subject::USER_DELETED, v1::UserDeleted};
use prost::Message as _;

/// Follows stream `users` until shutdown; `effect` takes the transaction, the deleted user and the time, µs. It may see
/// a user again.
pub async fn follow_deleted<F>(ctx: &Context, db: Db, effect: F) -> Result<()>
where
    F: FnMut(&mut dyn Tx, UserId, i64) -> Result<()> + Clone + Send + Sync + 'static,
{
    let clock = ctx.clock.clone();
    let bus = ctx.bus().await?;
    bus.follow(ctx, USERS, move |facts| {
        let (db, now_us, effect) = (db.clone(), clock.now_us(), effect.clone());
        async move { apply(&db, facts, now_us, effect).await }
    })
    .await
}

/// Applies facts in one transaction.
pub async fn apply<F>(db: &Db, facts: Vec<(String, Bytes)>, now_us: i64, mut effect: F) -> Result<()>
where
    F: FnMut(&mut dyn Tx, UserId, i64) -> Result<()> + Send + 'static,
{
    db.write(move |tx| deleted(tx, &facts, now_us)?.into_iter().try_for_each(|user| effect(tx, user, now_us)))
        .await
}

/// The users that these facts tell to be deleted. What cannot be read is a dead letter.
pub fn deleted(tx: &mut dyn Tx, facts: &[(String, Bytes)], now_us: i64) -> Result<Vec<UserId>> {
    let mut users = Vec::new();
    for (subject, payload) in facts.iter().filter(|(subject, _)| subject == USER_DELETED) {
        let user = UserDeleted::decode(payload.clone())
            .map_err(|e| e.to_string())
            .and_then(|f| UserId::parse(&f.user_id).map_err(|e| e.to_string()));
        match user {
            Ok(user) => users.push(user),
            Err(e) => {
                tracing::error!(subject, error = %e, "a deleted user is undecodable");
                inbox::dead_letter_put(tx, subject, payload, &e, now_us)?;
            }
        }
    }
    Ok(users)
}
