//! What a service is given when it starts.

use super::{
    bus::Bus,
    cache::Cache,
    clock::Clock,
    config::Settings,
    db::{Db, Migration},
    disk::Disk,
    error::Error,
    health::Health,
    secrets::Secrets,
    tasks::Tasks,
    tls::Tls,
};
use fafnir_proto::client::{Caller, Clients};
use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

/// Everything that a service may reach. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Context {
    /// Name of the service that owns this context, e.g. `order-service`.
    pub service: &'static str,
    pub settings: Arc<Settings>,
    pub secrets: Arc<Secrets>,
    /// What this process shows, and whom it believes.
    pub tls: Tls,
    pub clients: Clients,
    pub clock: Clock,
    pub tasks: Tasks,
    pub health: Health,
    /// The disk of the data directory.
    pub disk: Disk,
    /// Service name → address, as everybody in this stack sees it; `nats` is the broker.
    pub addresses: Arc<BTreeMap<String, String>>,
}

impl Context {
    /// The caller that this service is when it acts on its own behalf.
    pub fn system(&self) -> Caller {
        Caller::system(self.service)
    }

    /// Repeats an operation that needs another service until that is there, however long it takes: shutdown drops the
    /// start that waits. Says now and then what it waits for.
    pub async fn wait_for<T, F, Fut>(&self, what: &str, mut operation: F) -> Result<T, Error>
    where
        F: FnMut() -> Fut,
        Fut: Future<Output = Result<T, Error>>,
    {
        loop {
            match retry(PATIENCE, &mut operation).await {
                Err(e) if e.is_transient() => {
                    tracing::warn!(service = self.service, what, error = %e, "waiting");
                }
                result => return result,
            }
        }
    }

    /// Opens this service's own database and brings it to the newest migration.
    pub async fn database(&self, migrations: &'static [Migration]) -> Result<Db, Error> {
        let db = Db::open(&self.settings, self.service, migrations, &self.tasks, &self.clock).await?;
        db.watch(self.service, &self.tasks, &self.health);
        Ok(db.minding(self.disk.clone()))
    }

    /// The same for a database that is made from the facts alone ([`Db::open_projection`]).
    pub async fn projection(&self, migrations: &'static [Migration]) -> Result<Db, Error> {
        let opened = Db::open_projection(&self.settings, self.service, migrations, &self.tasks, &self.clock);
        let db = opened.await?;
        db.watch(self.service, &self.tasks, &self.health);
        Ok(db)
    }

    /// Connects to the bus as the user `services`.
    pub async fn bus(&self) -> Result<Bus, Error> {
        Bus::connect(self).await
    }

    /// The cache with this logical database number (0 stock, 1 engine).
    pub async fn cache(&self, database: u8) -> Result<Cache, Error> {
        Cache::connect(&self.settings, database).await
    }
}

/// How often somebody is told what a start waits for.
const PATIENCE: Duration = Duration::from_secs(10);
/// First wait between two tries of [`retry`]; doubles up to [`RETRY_WAIT_MAX`].
const RETRY_WAIT_MIN: Duration = Duration::from_millis(10);
const RETRY_WAIT_MAX: Duration = Duration::from_millis(250);

/// Repeats an operation while it fails transiently, until the deadline.
pub async fn retry<T, F, Fut>(deadline: Duration, mut operation: F) -> Result<T, Error>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, Error>>,
{
    let until = tokio::time::Instant::now() + deadline;
    let mut wait = RETRY_WAIT_MIN;
    loop {
        match operation().await {
            Err(e) if e.is_transient() && tokio::time::Instant::now() + wait < until => {
                tracing::debug!(error = %e, "trying again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_WAIT_MAX);
            }
            result => return result,
        }
    }
}
