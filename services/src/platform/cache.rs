//! A cache that may lose everything: in memory by default, Redis at scale.

use super::{config::Settings, error::Error};
use bytes::Bytes;
use std::{fmt, time::Duration};

/// Entries that the in-memory cache keeps.
const ENTRIES_MAX: u64 = 10_000;

/// Key → bytes with a time to live per cache. Cheap to clone.
#[derive(Clone)]
pub struct Cache(Backend);

#[derive(Clone)]
enum Backend {
    Memory(moka::future::Cache<String, Bytes>),
    Redis(redis::aio::ConnectionManager),
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
const REDIS_TIMEOUT: Duration = Duration::from_millis(500);

impl Cache {
    /// The cache with this logical database number.
    pub async fn connect(settings: &Settings, database: u8) -> Result<Self, Error> {
        if settings.redis.url.is_empty() {
            let cache =
                moka::future::Cache::builder().max_capacity(ENTRIES_MAX).time_to_live(TIME_TO_LIVE).build();
            return Ok(Self(Backend::Memory(cache)));
        }
        let url = format!("{}/{database}", settings.redis.url.trim_end_matches('/'));
        let unavailable = |e: redis::RedisError| Error::unavailable(format!("redis: {e}"));
        let client = redis::Client::open(url).map_err(unavailable)?;
        let config = redis::aio::ConnectionManagerConfig::new()
            .set_connection_timeout(Some(REDIS_TIMEOUT))
            .set_response_timeout(Some(REDIS_TIMEOUT));
        let manager = client.get_connection_manager_with_config(config).await.map_err(unavailable)?;
        Ok(Self(Backend::Redis(manager)))
    }

    /// The value, or nothing: also when the cache does not answer.
    pub async fn get(&self, key: &str) -> Option<Bytes> {
        match &self.0 {
            Backend::Memory(cache) => cache.get(key).await,
            Backend::Redis(manager) => {
                let answer: redis::RedisResult<Option<Vec<u8>>> =
                    redis::cmd("GET").arg(key).query_async(&mut manager.clone()).await;
                answer.inspect_err(|e| tracing::debug!(error = %e, "cache")).ok().flatten().map(Bytes::from)
            }
        }
    }

    /// Keeps the value if it can; a cache that does not answer loses it.
    pub async fn put(&self, key: &str, value: Bytes) {
        match &self.0 {
            Backend::Memory(cache) => cache.insert(key.to_owned(), value).await,
            Backend::Redis(manager) => {
                let answer: redis::RedisResult<()> = redis::cmd("SET")
                    .arg(key)
                    .arg(&value[..])
                    .arg("EX")
                    .arg(TIME_TO_LIVE.as_secs())
                    .query_async(&mut manager.clone())
                    .await;
                if let Err(e) = answer {
                    tracing::debug!(error = %e, "cache");
                }
            }
        }
    }
}
