//! Facts on their way to the bus: stored with the change that they tell of, published afterwards, never before.

use super::{Db, Error, Tx};
use crate::{
    bus::Bus,
    context::Context,
    error, params,
    tasks::{Next, Schedule, Wake},
};
use bytes::Bytes;
use std::time::Duration;

/// Include this in the first migration of a service that publishes facts.
pub const SCHEMA: &str = "CREATE TABLE outbox (id INTEGER PRIMARY KEY, stream TEXT NOT NULL, subject TEXT NOT NULL, \
                          msg_id TEXT NOT NULL, payload BLOB NOT NULL, created_us INTEGER NOT NULL) STRICT";

/// Rows published per round.
const BATCH: u32 = 256;
/// The safety net behind [`Wake`].
const POLL: Duration = Duration::from_secs(1);

/// Stores a fact. `msg_id` lets the broker trim duplicates; consumers do not rely on it.
pub fn put(
    tx: &mut dyn Tx,
    stream: &str,
    subject: &str,
    msg_id: &str,
    payload: Vec<u8>,
    now_us: i64,
) -> Result<(), Error> {
    tx.execute(
        "INSERT INTO outbox (stream, subject, msg_id, payload, created_us) VALUES (?1, ?2, ?3, ?4, ?5)",
        params![stream, subject, msg_id, payload, now_us],
    )?;
    Ok(())
}

/// Publishes what is in the outbox, in order, until shutdown; a row goes when the broker has it on disk. `wake` tells of
/// a commit after which there may be something to publish.
pub fn spawn_relay(ctx: &Context, db: Db, bus: Bus, wake: Wake) {
    let name = format!("{}: outbox relay", ctx.service);
    ctx.tasks.every(name, Schedule::at_once(POLL).or_on(&wake), move || {
        let (db, bus) = (db.clone(), bus.clone());
        async move { Ok::<_, error::Error>(Next::at_once_if(relay_once(&db, &bus).await? == u64::from(BATCH))) }
    });
}

async fn relay_once(db: &Db, bus: &Bus) -> error::Result<u64> {
    let rows = db
        .read(|tx| {
            Ok(tx.query(
                "SELECT id, stream, subject, msg_id, payload FROM outbox ORDER BY id LIMIT ?1",
                params![BATCH],
            )?)
        })
        .await?;
    let count = rows.len() as u64;
    for row in rows {
        let id: i64 = row.get(0)?;
        let (stream, subject, msg_id): (String, String, String) = (row.get(1)?, row.get(2)?, row.get(3)?);
        let payload: Vec<u8> = row.get(4)?;
        bus.publish_fact(&stream, &subject, &msg_id, Bytes::from(payload)).await?;
        db.write_anyway(move |tx| Ok(tx.execute("DELETE FROM outbox WHERE id = ?1", params![id])?)).await?;
    }
    Ok(count)
}
