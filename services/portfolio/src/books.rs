//! The books as a projection of the engine's facts.

use super::store::{self, Names};
use fafnir_platform::{db::Db, error::Result, facts::Projection};
use fafnir_proto::v1::Fact;
use parking_lot::Mutex;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub struct Books {
    db: Db,
    names: Arc<Mutex<Names>>,
}

impl Books {
    pub fn new(db: Db) -> Self {
        Self { db, names: Arc::default() }
    }
}

impl Projection for Books {
    fn database(&self) -> Option<&Db> {
        Some(&self.db)
    }

    async fn position(&self) -> Result<u64> {
        self.db.read(|tx| Ok(store::position(tx)?)).await
    }

    async fn lead(&self) -> Result<bool> {
        self.db.lead().await
    }

    async fn resign(&self) {
        self.db.resign().await;
    }

    async fn apply(&self, from: u64, facts: Vec<Fact>) -> Result<()> {
        let names = Arc::clone(&self.names);
        let trades = self.db.write(move |tx| store::apply(tx, &mut names.lock(), from, &facts)).await?;
        self.names.lock().committed();
        metrics::counter!("fafnir_settled_trades_total").increment(trades);
        Ok(())
    }
}
