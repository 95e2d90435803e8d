//! The owner of every background task: sees its error, ends it at shutdown.

use std::{future::Future, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest that a shutdown waits for the tasks (reliability.md).
pub const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Tasks of one process. A task that fails stops the whole process in order: half a platform is worse than none.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    failed: CancellationToken,
}

impl Tasks {
    pub fn new(shutdown: CancellationToken) -> Self {
        Self { tracker: TaskTracker::new(), shutdown, failed: CancellationToken::new() }
    }

    /// Is cancelled when the process is asked to stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs a task until it ends by itself (it watches [`Self::shutdown`]). An error is logged and stops the process.
    pub fn spawn<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let this = self.clone();
        self.tracker.spawn(async move {
            let inner = tokio::spawn(task);
            let failure = match inner.await {
                Ok(Ok(())) => return,
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            tracing::error!(task = name, error = %failure, "task failed, stopping");
            this.failed.cancel();
            this.shutdown.cancel();
        });
    }

    /// Runs a task that is dropped at shutdown wherever it is: for loops that own nothing that must be flushed.
    pub fn spawn_until_shutdown<F, E>(&self, name: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                result = task => result,
            }
        });
    }

    /// Waits until every task has ended, at most [`DRAIN_MAX`]. `false`: a task failed or did not end in time.
    pub async fn drain(&self) -> bool {
        self.tracker.close();
        let in_time = tokio::time::timeout(DRAIN_MAX, self.tracker.wait()).await.is_ok();
        if !in_time {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
        in_time && !self.failed.is_cancelled()
    }
}
