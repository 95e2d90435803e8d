//! The schema of every service, on both back ends.

use crate::stack::{DEADLINE, drop_databases, external};
use fafnir_platform::{
    Clock,
    db::{Db, postgres_name},
    tasks::Tasks,
};
use futures::future::join_all;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn every_service_has_a_schema_for_sqlite() {
    let dir = tempfile::tempdir().unwrap();
    for service in fafnir_services::ALL {
        let tasks = Tasks::new(CancellationToken::new());
        let path = dir.path().join(service.name);
        Db::open_sqlite(path, service.name, service.migrations, &tasks, &Clock::wall()).await.unwrap();
        tasks.shutdown().cancel();
    }
}

/// The real migrations run once, also from three processes at a time.
#[tokio::test]
async fn every_service_has_a_schema_for_postgres() {
    let Some(url) = external("FAFNIR_TEST_POSTGRES_URL") else { return };
    let prefix = format!("test_{}_", uuid::Uuid::new_v4().simple());
    for service in fafnir_services::ALL.iter().filter(|s| !s.migrations.is_empty()) {
        let name = postgres_name(&prefix, service.name);
        let clock = Clock::wall();
        let opening = (0..3).map(|_| Db::open_postgres(&url, &name, service.migrations, &clock));
        let opened = tokio::time::timeout(DEADLINE, join_all(opening)).await.expect("in time");
        for db in opened {
            db.unwrap_or_else(|e| panic!("{}: {e}", service.name));
        }
    }
    drop_databases(&url, &prefix).await;
}
