//! Answers of reads, kept in memory for as long as nothing has been written.

use super::{Db, Tx};
use crate::error;
use std::{fmt, hash::Hash};

/// Answers to one question by key, of a database that is read far more often than it is written.
///
/// An answer is tagged with the number of commits before it was read, and is believed only while that number stands: the
/// first commit after it, whatever it changed, makes everything be read again. So an answer is never older than the last
/// write that somebody was told of (a data directory belongs to one process alone: `cli/stack.rs` locks it). On Postgres,
/// where other processes write too, nothing is kept and every question is a read.
pub struct Copies<K, V> {
    db: Db,
    kept: moka::sync::Cache<K, (u64, V)>,
}

impl<K, V> fmt::Debug for Copies<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Copies")
    }
}

impl<K, V> Copies<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Copies of at most `kept_max` answers.
    pub fn new(db: Db, kept_max: u64) -> Self {
        Self { db, kept: moka::sync::Cache::new(kept_max) }
    }

    /// The answer for `key`: the one that is kept, or what `work` reads.
    pub async fn read<F>(&self, key: K, work: F) -> error::Result<V>
    where
        F: FnMut(&mut dyn Tx) -> error::Result<V> + Send + 'static,
    {
        // Counted before the read: a commit between the two makes the answer count as older than it is.
        let commits = self.db.commits();
        if let (Some(now), Some((then, answer))) = (commits, self.kept.get(&key))
            && then == now
        {
            return Ok(answer);
        }
        let answer = self.db.read(work).await?;
        if let Some(commits) = commits {
            self.kept.insert(key, (commits, answer.clone()));
        }
        Ok(answer)
    }
}
