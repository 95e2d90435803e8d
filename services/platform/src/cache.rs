//! A cache that may lose everything: in memory by default, Redis at scale.

use super::{config::Settings, error::Error, tls::Trust};
use bytes::Bytes;
use fafnir_proto::deadline;
use parking_lot::Mutex;
use std::{fmt, future::Future, sync::Arc, time::Duration};
use tokio::time::Instant;

/// Entries that the in-memory cache keeps.
const ENTRIES_MAX: u64 = 10_000;

/// Key → bytes with a time to live per cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Backend);

#[derive(Clone)]
enum Backend {
    Memory(moka::future::Cache<String, Bytes>),
    Redis(Redis),
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Backend::Memory(_) => "Cache(memory)",
            Backend::Redis(_) => "Cache(redis)",
        })
    }
}

/// What is not refreshed for this long is gone.
const TIME_TO_LIVE: Duration = Duration::from_hours(1);
/// A server that did not answer is left alone for this long: requests go on without the cache.
const REDIS_REST: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Redis {
    manager: redis::aio::ConnectionManager,
    resting_until: Arc<Mutex<Option<Instant>>>,
}

impl Redis {
    /// Asks the server; nothing when it does not answer.
    async fn query<T>(&self, question: impl Future<Output = redis::RedisResult<T>>) -> Option<T> {
        let resting = || self.resting_until.lock();
        if resting().is_some_and(|until| Instant::now() < until) {
            return None;
        }
        match tokio::time::timeout(deadline::CACHE, question).await {
            Ok(Ok(answer)) => Some(answer),
            failed => {
                let error = failed.map_or_else(
                    |_| "no answer".to_owned(),
                    |r| r.err().map_or_else(String::new, |e| e.to_string()),
                );
                tracing::warn!(error, "the cache does not answer");
                *resting() = Some(Instant::now() + REDIS_REST);
                None
            }
        }
    }
}

impl Cache {
    /// The cache with this logical database number.
    #[expect(clippy::unused_async, reason = "Redis's client is made inside a runtime")]
    pub async fn connect(settings: &Settings, database: u8) -> Result<Self, Error> {
        if settings.redis.url.is_empty() {
            let cache =
                moka::future::Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(TIME_TO_LIVE).build();
            return Ok(Self(Backend::Memory(cache)));
        }
        let url = format!("{}/{database}", settings.redis.url.trim_end_matches('/'));
        let unavailable = |e: redis::RedisError| Error::unavailable(format!("redis: {e}"));
        let client = match crate::tls::trust(settings, &settings.redis.authority) {
            Trust::Authority(path) if url.starts_with("rediss://") => {
                let root = std::fs::read(&path)
                    .map_err(|e| Error::unavailable(format!("redis.authority: {}: {e}", path.display())))?;
                let certificates = redis::TlsCertificates { client_tls: None, root_cert: Some(root) };
                redis::Client::build_with_tls(url, certificates).map_err(unavailable)?
            }
            _ => redis::Client::open(url).map_err(unavailable)?,
        };
        let config = redis::aio::ConnectionManagerConfig::new()
            .set_connection_timeout(Some(deadline::CACHE))
            .set_response_timeout(Some(deadline::CACHE))
            .set_number_of_retries(1);
        // Connects at the first use and again whenever it must: a cache that is not there stops nobody.
        let manager = client.get_connection_manager_lazy(config).map_err(unavailable)?;
        Ok(Self(Backend::Redis(Redis { manager, resting_until: Arc::default() })))
    }

    /// The value, or nothing: also when the cache does not answer.
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        match &self.0 {
            Backend::Memory(cache) => cache.get(key).await,
            Backend::Redis(redis) => {
                let mut connection = redis.manager.clone();
                let question = async move { redis::cmd("GET").arg(key).query_async(&mut connection).await };
                redis.query::<Option<Vec<u8>>>(question).await.flatten().map(Bytes::from)
            }
        }
    }

    /// Keeps the value if it can; a cache that does not answer loses it.
    pub async fn put(&self, key: &str, value: Bytes) {
        match &self.0 {
            Backend::Memory(cache) => cache.insert(key.to_owned(), value).await,
            Backend::Redis(redis) => {
                let mut connection = redis.manager.clone();
                let question = async move {
                    let mut set = redis::cmd("SET");
                    set.arg(key).arg(&value[..]).arg("EX").arg(TIME_TO_LIVE.as_secs());
                    set.query_async(&mut connection).await
                };
                // A value that is not kept is asked for again from its owner.
                let _kept: Option<()> = redis.query(question).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;
    use fafnir_testing as testing;

    async fn story(url: &str) {
        let settings = Settings {
            redis: config::Redis { url: url.to_owned(), ..config::Redis::default() },
            ..Settings::default()
        };
        let cache = Cache::connect(&settings, 0).await.unwrap();
        let key = uuid::Uuid::new_v4().to_string();
        assert_eq!(cache.get(&key).await, None);
        cache.put(&key, Bytes::from_static(b"one\0\xff")).await;
        assert_eq!(cache.get(&key).await.as_deref(), Some(&b"one\0\xff"[..]));
        cache.put(&key, Bytes::new()).await;
        assert_eq!(cache.get(&key).await.as_deref(), Some(&b""[..]), "a newer value replaces an older one");
        // Another handle of the same database sees it on a server, its own memory does not.
        let again = Cache::connect(&settings, 0).await.unwrap();
        assert_eq!(again.get(&key).await.is_some(), !url.is_empty());
        let other = Cache::connect(&settings, 1).await.unwrap();
        assert_eq!(other.get(&key).await, None, "databases are apart");
    }

    #[tokio::test]
    async fn a_value_is_kept_in_memory() {
        story("").await;
    }

    #[tokio::test]
    async fn a_value_is_kept_on_redis() {
        if let Some(url) = testing::external("FAFNIR_TEST_REDIS_URL") {
            story(&url).await;
        }
    }

    #[tokio::test]
    async fn a_value_is_kept_on_redis_over_tls_with_whom_is_believed() {
        let (Some(url), Some(authority)) =
            (testing::external("FAFNIR_TEST_TLS_REDIS_URL"), testing::external("FAFNIR_TEST_TLS_AUTHORITY"))
        else {
            return;
        };
        for (authority, is_kept) in [(authority.as_str(), true), ("system", false)] {
            let redis = config::Redis { url: url.clone(), authority: authority.to_owned() };
            let settings = Settings { redis, ..Settings::default() };
            let cache = Cache::connect(&settings, 0).await.unwrap();
            let key = uuid::Uuid::new_v4().to_string();
            cache.put(&key, Bytes::from_static(b"one")).await;
            assert_eq!(cache.get(&key).await.is_some(), is_kept, "{authority}");
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_costs_time_once_and_nothing_else() {
        let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("redis://{}", closed.local_addr().unwrap());
        drop(closed);
        let settings =
            Settings { redis: config::Redis { url, ..config::Redis::default() }, ..Settings::default() };
        let cache = Cache::connect(&settings, 0).await.expect("starts without it");
        let started = Instant::now();
        for _ in 0..50 {
            cache.put("k", Bytes::from_static(b"v")).await;
            assert_eq!(cache.get("k").await, None);
        }
        assert!(started.elapsed() < deadline::CACHE * 10, "{:?}", started.elapsed());
    }
}
