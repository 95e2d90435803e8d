//! What stock-service has the engine do: listings and trading states, which are in force when it answers.
//!
//! A listing is stored with a row that says that the engine lacks it; it is sent until it is answered. A trading state is
//! stored nowhere here: it is the engine's alone, and comes back as a fact.

use super::{
    domain::{Instrument, State},
    store, wire,
};
use fafnir_platform::{
    Context, Result,
    db::Db,
    door::{Answer, Door},
    tasks::{Schedule, Wake},
};
use fafnir_proto::v1::{Command, SetInstrumentCommand, SetStateCommand, command::What};
use futures::future::BoxFuture;
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc, time::Duration};
use tokio::time::Instant;

/// The safety net behind the wake.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// Listings read at once.
const TELL_BATCH: u32 = 256;
/// How long the engine is waited for at a time.
const TELL_WAIT: Duration = Duration::from_secs(2);

type Execute = dyn Fn(Command, Instant) -> BoxFuture<'static, Result<Answer>> + Send + Sync;

/// The way into the journal. Cheap to clone.
#[derive(Clone)]
pub struct Journal {
    db: Db,
    execute: Arc<Execute>,
    wake: Wake,
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Journal")
    }
}

impl Journal {
    pub fn new(ctx: &Context, db: &Db) -> Self {
        let door = Door::new(ctx);
        Self::through(db, move |command, deadline| {
            let door = door.clone();
            Box::pin(async move { door.execute(command, deadline).await })
        })
    }

    /// A journal behind some other door (tests).
    pub fn through(
        db: &Db,
        execute: impl Fn(Command, Instant) -> BoxFuture<'static, Result<Answer>> + Send + Sync + 'static,
    ) -> Self {
        Self { db: db.clone(), execute: Arc::new(execute), wake: Wake::default() }
    }

    /// Sends what the engine lacks, until shutdown.
    pub fn spawn(&self, ctx: &Context) {
        let this = self.clone();
        let (ctx2, schedule) = (ctx.clone(), Schedule::at_once(TELL_EVERY).or_on(&self.wake));
        ctx.tasks.every("listings for the engine", schedule, move || {
            let (this, ctx) = (this.clone(), ctx2.clone());
            async move { ctx.wait_for("the engine's answer to a listing", || this.tell_all()).await }
        });
    }

    /// Tells the engine of everything that it lacks.
    pub async fn tell_all(&self) -> Result<()> {
        let untold = self.db.read(|tx| Ok(store::untold_list(tx, TELL_BATCH)?)).await?;
        for instrument in untold {
            self.tell(&instrument, Instant::now() + TELL_WAIT).await?;
        }
        Ok(())
    }

    /// Tells the engine of a listing that is stored as untold. Where that fails, it is told later.
    pub async fn tell(&self, instrument: &Instrument, deadline: Instant) -> Result<()> {
        let (symbol, version) = (instrument.symbol.clone(), instrument.version);
        let command = Command {
            id: id_of(&symbol, version),
            what: Some(What::SetInstrument(SetInstrumentCommand {
                instrument: Some(wire::instrument(instrument)),
            })),
            ..Command::default()
        };
        let told = (self.execute)(command, deadline).await.inspect_err(|_| self.wake.notify())?;
        if let Err(refused) = told.outcome {
            // What is checked there is checked here before: a defect, and no reason to ask again.
            tracing::error!(symbol, version, reason = refused.reason, "{}", refused.message);
        }
        self.db.write(move |tx| Ok(store::untold_delete(tx, &symbol, version)?)).await
    }

    /// Sets the trading state of a symbol; in force when this answers. Answers the position of it.
    pub async fn set_state(&self, symbol: &str, state: State, deadline: Instant) -> Result<u64> {
        let state = wire::state(state).into();
        let set = SetStateCommand { symbol: symbol.to_owned(), state, reason: String::new() };
        let command = Command { what: Some(What::SetState(set)), ..Command::default() };
        let answer = (self.execute)(command, deadline).await?;
        answer.outcome?;
        Ok(answer.position)
    }
}

/// The same version of a listing has the same id, however often it is sent.
fn id_of(symbol: &str, version: u64) -> Vec<u8> {
    Sha256::digest(format!("{symbol}:{version}"))[..16].to_vec()
}
