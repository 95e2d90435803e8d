//! The owner of every background task: sees its error, ends it at shutdown.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::{borrow::Cow, convert::Infallible, fmt, fmt::Display, future::Future, sync::Arc, time::Duration};
use tokio::{sync::Notify, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Longest that a shutdown waits for the tasks (reliability.md).
pub const DRAIN_MAX: Duration = Duration::from_secs(20);

/// Longest that all that is left to the end may take.
const LAST_MAX: Duration = Duration::from_secs(3);

/// What is done when every task has ended.
#[derive(Clone, Default)]
struct Last(Arc<Mutex<Vec<BoxFuture<'static, ()>>>>);

impl fmt::Debug for Last {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Last")
    }
}

/// Tells a repeated task that there may be something to do before its interval is over. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    pub fn notify(&self) {
        self.0.notify_one();
    }
}

/// When the turns of a repeated task come.
#[derive(Debug, Clone)]
pub struct Schedule {
    interval: Duration,
    at_once: bool,
    wake: Wake,
}

impl Schedule {
    /// The first turn now, the next one every `interval` (more than 0).
    pub fn at_once(interval: Duration) -> Self {
        Self { interval, at_once: true, wake: Wake::default() }
    }

    /// Every `interval` (more than 0), the first turn after one.
    pub fn after(interval: Duration) -> Self {
        Self { at_once: false, ..Self::at_once(interval) }
    }

    /// Also when it is woken: the interval is the safety net then.
    #[must_use]
    pub fn or_on(self, wake: &Wake) -> Self {
        Self { wake: wake.clone(), ..self }
    }
}

/// When the next turn comes, as this one found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// As scheduled.
    Scheduled,
    /// After this, neither earlier nor later.
    After(Duration),
}

impl Next {
    /// At once if this turn left something to do.
    pub fn at_once_if(is_more: bool) -> Self {
        if is_more { Self::After(Duration::ZERO) } else { Self::Scheduled }
    }
}

impl From<()> for Next {
    fn from((): ()) -> Self {
        Self::Scheduled
    }
}

/// Tasks of one process. A task that fails stops the whole process in order: half a platform is worse than none.
#[derive(Debug, Clone)]
pub struct Tasks {
    tracker: TaskTracker,
    shutdown: CancellationToken,
    failed: CancellationToken,
    last: Last,
}

impl Tasks {
    pub fn new(shutdown: CancellationToken) -> Self {
        Self {
            tracker: TaskTracker::new(),
            shutdown,
            failed: CancellationToken::new(),
            last: Last::default(),
        }
    }

    /// Is cancelled when the process is asked to stop.
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs a task until it ends by itself (it watches [`Self::shutdown`]). An error is logged and stops the process.
    pub fn spawn<F, E>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let (this, name) = (self.clone(), name.into());
        self.tracker.spawn(async move {
            let inner = tokio::spawn(task);
            let failure = match inner.await {
                Ok(Ok(())) => return,
                Ok(Err(e)) => e.to_string(),
                Err(e) => e.to_string(),
            };
            tracing::error!(task = %name, error = %failure, "task failed, stopping");
            this.failed.cancel();
            this.shutdown.cancel();
        });
    }

    /// Runs a task that is dropped at shutdown wherever it is: for loops that own nothing that must be flushed.
    pub fn spawn_until_shutdown<F, E>(&self, name: impl Into<Cow<'static, str>>, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Display + Send + 'static,
    {
        let shutdown = self.shutdown.clone();
        self.spawn(name, async move {
            tokio::select! {
                () = shutdown.cancelled() => Ok(()),
                result = task => result,
            }
        });
    }

    /// Repeats `work` until shutdown, which drops a turn wherever it is. Turns never overlap; one that fails is logged
    /// with the task's name, and the next comes as scheduled.
    pub fn every<W, F, N, E>(&self, name: impl Into<Cow<'static, str>>, schedule: Schedule, work: W)
    where
        W: FnMut() -> F + Send + 'static,
        F: Future<Output = Result<N, E>> + Send,
        N: Into<Next> + Send,
        E: Display + Send,
    {
        let (name, shutdown) = (name.into(), self.shutdown.clone());
        self.spawn(name.clone(), async move {
            tokio::select! {
                () = shutdown.cancelled() => Ok::<(), Infallible>(()),
                never = turns(&name, schedule, work) => match never {},
            }
        });
    }

    /// Leaves something to the end of a stop in order: it is done when every task has ended.
    pub fn at_end(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.last.0.lock().push(Box::pin(work));
    }

    /// Waits until every task has ended, at most [`DRAIN_MAX`]. `false`: a task failed or did not end in time.
    pub async fn drain(&self) -> bool {
        self.tracker.close();
        let in_time = tokio::time::timeout(DRAIN_MAX, self.tracker.wait()).await.is_ok();
        if !in_time {
            tracing::warn!(tasks = self.tracker.len(), "tasks did not end in time");
        }
        let last = std::mem::take(&mut *self.last.0.lock());
        if tokio::time::timeout(LAST_MAX, futures::future::join_all(last)).await.is_err() {
            tracing::warn!("what is left to the end did not end in time");
        }
        in_time && !self.failed.is_cancelled()
    }
}

async fn turns<W, F, N, E>(name: &str, schedule: Schedule, mut work: W) -> Infallible
where
    W: FnMut() -> F,
    F: Future<Output = Result<N, E>>,
    N: Into<Next>,
    E: Display,
{
    let Schedule { interval, at_once, wake } = schedule;
    let mut due = Instant::now();
    if !at_once {
        due += interval;
    }
    loop {
        if due > Instant::now() {
            // Elapsed or woken: both are a reason.
            let _elapsed = tokio::time::timeout_at(due, wake.0.notified()).await;
        }
        while let Next::After(pause) = turn(name, &mut work).await {
            tokio::time::sleep(pause).await;
        }
        due = due_after(due, Instant::now(), interval);
    }
}

async fn turn<W, F, N, E>(name: &str, work: &mut W) -> Next
where
    W: FnMut() -> F,
    F: Future<Output = Result<N, E>>,
    N: Into<Next>,
    E: Display,
{
    match work().await {
        Ok(next) => next.into(),
        Err(e) => {
            tracing::warn!(task = name, error = %e, "task failed, it will be repeated");
            Next::Scheduled
        }
    }
}

/// The next point later than `now` on the grid of `due` and `interval`: turns do not drift by what they take, and one
/// that takes long is not followed by those that it missed.
fn due_after(due: Instant, now: Instant, interval: Duration) -> Instant {
    if due > now {
        return due;
    }
    let missed = now.duration_since(due).as_nanos() / interval.as_nanos().max(1);
    due + interval * u32::try_from(missed + 1).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc;

    const SOON: Duration = Duration::from_millis(1);
    const NEVER: Duration = Duration::from_hours(1);
    const DEADLINE: Duration = Duration::from_secs(10);

    /// Runs a task that answers `answers` in turn and then as scheduled; gives `count` turns back.
    async fn turns_of(schedule: Schedule, answers: Vec<Result<Next, &'static str>>, count: usize) -> Tasks {
        let tasks = Tasks::new(CancellationToken::new());
        let (sender, mut seen) = mpsc::unbounded_channel();
        let mut answers = answers.into_iter();
        tasks.every("test", schedule, move || {
            sender.send(()).expect("the test listens");
            std::future::ready(answers.next().unwrap_or(Ok(Next::Scheduled)))
        });
        for _ in 0..count {
            tokio::time::timeout(DEADLINE, seen.recv()).await.expect("in time");
        }
        tasks
    }

    #[tokio::test]
    async fn the_first_turn_comes_at_once_or_after_the_interval() {
        turns_of(Schedule::at_once(NEVER), vec![], 1).await;
        turns_of(Schedule::after(SOON), vec![], 3).await;
    }

    #[tokio::test]
    async fn a_turn_that_fails_is_followed_by_the_next() {
        turns_of(Schedule::at_once(SOON), vec![Err("away"), Err("still")], 4).await;
    }

    #[tokio::test]
    async fn a_turn_asks_for_another_and_a_wake_does() {
        turns_of(Schedule::at_once(NEVER), vec![Ok(Next::at_once_if(true)), Ok(Next::After(SOON))], 3).await;
        let wake = Wake::default();
        wake.notify();
        turns_of(Schedule::after(NEVER).or_on(&wake), vec![], 1).await;
    }

    #[tokio::test]
    async fn shutdown_ends_it_in_the_middle_of_a_turn() {
        let tasks = Tasks::new(CancellationToken::new());
        let (sender, mut begun) = mpsc::unbounded_channel();
        tasks.every("test", Schedule::at_once(SOON), move || {
            sender.send(()).expect("the test listens");
            std::future::pending::<Result<(), Infallible>>()
        });
        tokio::time::timeout(DEADLINE, begun.recv()).await.expect("in time");
        tasks.shutdown().cancel();
        assert!(tasks.drain().await);
    }

    #[test]
    fn turns_stay_on_their_grid() {
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let at = |ms| start + Duration::from_millis(ms);
        for (now, expected) in [(0, 1_000), (999, 1_000), (1_000, 2_000), (7_300, 8_000)] {
            assert_eq!(due_after(start, at(now), second), at(expected), "{now}");
        }
        assert_eq!(due_after(at(2_000), at(1_500), second), at(2_000), "woken before it was due");
    }
}
