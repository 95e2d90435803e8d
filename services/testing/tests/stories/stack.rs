//! A stack on free ports in its own directory, and a clock that a test moves.

pub use fafnir_testing::*;

use bytes::Bytes;
use fafnir_platform::{Clock, Context, Service, Settings, bus::Bus, clock::SECOND_US};
use fafnir_proto::client::Caller;
use fafnir_services::compose::{self, Running};
use futures::StreamExt as _;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

/// How long a message that was published is waited for before it is published again.
const AGAIN: Duration = Duration::from_millis(50);

/// The rows of a stack, as the table has them.
pub type Rows<'a> = &'a [&'static Service];

/// Services that run for one test.
#[derive(Debug)]
pub struct Stack {
    pub running: Running,
    pub time: Time,
    dir: TempDir,
    /// Databases on a Postgres server in place of files: its URL, and what their names begin with.
    databases: Option<(String, String)>,
}

/// The wall clock, moved by the test.
#[derive(Debug, Clone, Default)]
pub struct Time(Arc<AtomicI64>);

impl Time {
    pub fn advance(&self, seconds: i64) {
        self.0.fetch_add(seconds * SECOND_US, Ordering::SeqCst);
    }
    pub fn clock(&self) -> Clock {
        let (wall, offset) = (Clock::wall(), Arc::clone(&self.0));
        Clock::from_fn(move || wall.now_us() + offset.load(Ordering::SeqCst))
    }
}

impl Stack {
    /// Starts services on free ports in a new directory.
    pub async fn start(services: Rows<'_>) -> Self {
        Self::start_with(services, |_| {}).await
    }

    /// The same with other settings.
    pub async fn start_with(services: Rows<'_>, change: impl FnOnce(&mut Settings)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        // Every story also runs on Postgres: FAFNIR_TEST_STACKS=postgres.
        let on_postgres = std::env::var("FAFNIR_TEST_STACKS").is_ok_and(|v| v == "postgres");
        let databases = on_postgres.then(|| external("FAFNIR_TEST_POSTGRES_URL")).flatten().map(|url| {
            let prefix = format!("stack_{}_", uuid::Uuid::new_v4().simple());
            (url, prefix)
        });
        Self::start_in(dir, databases, services, Time::default(), change).await
    }

    async fn start_in(
        dir: TempDir,
        databases: Option<(String, String)>,
        services: Rows<'_>,
        time: Time,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let data_dir = dir.path().to_string_lossy().into_owned();
        let mut settings = Settings { data_dir, ..Settings::default() };
        settings.bind.auto = true;
        if let Some((url, prefix)) = &databases {
            (settings.database.url, settings.database.prefix) = (url.clone(), prefix.clone());
        }
        change(&mut settings);
        let starting = compose::start(services, settings, time.clock(), CancellationToken::new());
        let running = tokio::time::timeout(DEADLINE, starting).await.expect("ready in time").expect("starts");
        Self { running, time, dir, databases }
    }

    /// Stops everything and starts it again on the same directory.
    pub async fn restart(self, services: Rows<'_>, change: impl FnOnce(&mut Settings)) -> Self {
        self.restart_without(&[], services, change).await
    }

    /// The same after directories of the data directory were lost.
    pub async fn restart_without(
        self,
        lost: &[&str],
        services: Rows<'_>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let Self { running, time, dir, databases } = self;
        running.tasks.shutdown().cancel();
        assert!(running.wait().await, "a task failed or hung");
        drop(running);
        for lost in lost {
            std::fs::remove_dir_all(dir.path().join(lost)).unwrap();
        }
        Self::start_in(dir, databases, services, time, change).await
    }

    /// `http://host:port` of a service.
    pub fn url(&self, service: &str) -> &str {
        &self.running.addresses[service]
    }

    pub fn data_dir(&self) -> std::path::PathBuf {
        self.dir.path().to_owned()
    }

    /// Whether its databases are on a Postgres server.
    pub fn is_on_server(&self) -> bool {
        self.databases.is_some()
    }

    /// Stops everything and hands out what it left, where that is files alone.
    pub async fn ended(self) -> TempDir {
        self.running.tasks.shutdown().cancel();
        assert!(self.running.wait().await, "a task failed or hung");
        drop(self.running);
        self.dir
    }

    /// Stops everything; fails the test when a task failed.
    pub async fn stop(self) {
        self.running.tasks.shutdown().cancel();
        assert!(self.running.wait().await, "a task failed or hung");
        drop(self.running);
        if let Some((url, prefix)) = self.databases {
            drop_databases(&url, &prefix).await;
        }
    }
}

/// Waits until it is so. Asks again whenever a message passes the broker: a follower's ack comes after its effect.
pub async fn until(ctx: &Context, what: &str, so: impl AsyncFn() -> bool) {
    let bus = ctx.bus().await.unwrap();
    let mut traffic = bus.subscribe(">".to_owned()).await.unwrap();
    let waiting = async {
        while !so().await {
            traffic.next().await.expect("the broker runs");
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "not in time: {what}");
}

/// The first message of a subscription that the server may not know of yet (who only watches cannot ask): it is published
/// until it comes.
pub async fn heard(
    bus: &Bus,
    subject: &str,
    payload: &'static str,
    feed: &mut async_nats::Subscriber,
) -> Bytes {
    let publishing = async {
        loop {
            bus.publish(subject.to_owned(), Bytes::from_static(payload.as_bytes())).await.unwrap();
            if let Ok(message) = tokio::time::timeout(AGAIN, feed.next()).await {
                return message.expect("subscribed").payload;
            }
        }
    };
    tokio::time::timeout(DEADLINE, publishing).await.expect("in time")
}

/// The caller that tests are.
pub fn system() -> Caller {
    Caller::system("test")
}
