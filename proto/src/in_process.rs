//! Calls to a service of the same process: its guarded server, called directly, as one over a socket would be.
//!
//! The messages are the same, encoded and decoded; so are the metadata, the deadline and what the server checks. What
//! HTTP/2 gives besides is here: how many calls are under way at a time, waiting for a service that is not ready yet,
//! UNAVAILABLE when it has stopped, a panic that ends the call and not the caller. A caller that goes away drops the
//! handler where it waits, as a reset stream does.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::OnceLock,
    task::Poll,
    time::Duration,
};
use tokio::sync::{Semaphore, SemaphorePermit, TryAcquireError};
use tokio_util::task::TaskTracker;
use tonic::{Status, TimeoutExpired, body::Body, codegen::http};

/// Calls under way at a time: per connection over a socket, per service in the same process.
pub const CONCURRENT_CALLS_MAX: u32 = 200;
/// Calls that may wait for one of those places; one more is refused.
pub const WAITING_CALLS_MAX: usize = 1024;

/// Metadata key of the time that a call has.
pub(crate) const TIMEOUT_KEY: &str = "grpc-timeout";

type Error = Box<dyn std::error::Error + Send + Sync>;
/// An answer on its way.
pub type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;
/// A service's server with all that guards it.
pub type Callee = Box<dyn Fn(http::Request<Body>) -> Answering + Send + Sync>;

/// Where a service of this process takes calls: not before it serves, and no more once it has stopped.
pub struct Place {
    service: String,
    callee: OnceLock<Callee>,
    /// One permit per call under way: none before the service serves, closed when it has stopped.
    under_way: Semaphore,
    waiting: Semaphore,
    calls: TaskTracker,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("service", &self.service).finish_non_exhaustive()
    }
}

impl Place {
    pub fn new(service: impl Into<String>) -> Self {
        Self {
            service: service.into(),
            callee: OnceLock::new(),
            under_way: Semaphore::new(0),
            waiting: Semaphore::new(WAITING_CALLS_MAX),
            calls: TaskTracker::new(),
        }
    }

    /// Takes calls from now on, first those that wait. A second callee changes nothing.
    pub fn serve(&self, callee: Callee) {
        if self.callee.set(callee).is_ok() {
            self.under_way.add_permits(CONCURRENT_CALLS_MAX as usize);
        }
    }

    /// Refuses calls from now on, also those that wait.
    pub fn close(&self) {
        self.under_way.close();
        self.calls.close();
    }

    /// Resolves when the place is closed and the calls that were under way have ended.
    pub async fn closed(&self) {
        self.calls.wait().await;
    }

    /// The answer to one call, within its deadline. Errors are those that tonic's channel has.
    pub(crate) async fn call(&self, request: http::Request<Body>) -> Result<http::Response<Body>, Error> {
        let _under_way = self.calls.token();
        let deadline = deadline(request.headers());
        let answering = async {
            // A call is a step of its task: a loop of calls that are answered at once lets others run too.
            tokio::task::coop::consume_budget().await;
            let _place = self.enter().await?;
            let callee = self.callee.get().ok_or_else(|| self.unavailable("does not serve"))?;
            self.unless_it_panics(callee(request)).await
        };
        let answer = match deadline {
            Some(time) => tokio::time::timeout(time, answering).await.map_err(|_| TimeoutExpired(()))?,
            None => answering.await,
        };
        answer.map_err(Error::from)
    }

    async fn enter(&self) -> Result<SemaphorePermit<'_>, Status> {
        let stopped = |_| self.unavailable("has stopped");
        match self.under_way.try_acquire() {
            Ok(place) => Ok(place),
            Err(TryAcquireError::Closed) => Err(self.unavailable("has stopped")),
            Err(TryAcquireError::NoPermits) => {
                let _turn =
                    self.waiting.try_acquire().map_err(|_| self.unavailable("has too many callers"))?;
                self.under_way.acquire().await.map_err(stopped)
            }
        }
    }

    fn unavailable(&self, what: &str) -> Status {
        Status::unavailable(format!("{} {what}", self.service))
    }

    /// A handler that panics ends its own call: over a socket it would end the task of its stream.
    async fn unless_it_panics(&self, mut answering: Answering) -> Result<http::Response<Body>, Status> {
        let outcome = poll_fn(|cx| match catch_unwind(AssertUnwindSafe(|| answering.as_mut().poll(cx))) {
            Ok(poll) => poll.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        });
        match outcome.await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(never)) => match never {},
            Err(panic) => Err(self.panicked(&*panic)),
        }
    }

    fn panicked(&self, panic: &(dyn Any + Send)) -> Status {
        let message = panic.downcast_ref::<&str>().copied();
        let message =
            message.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("panic");
        tracing::error!(service = self.service, error = message, "a handler panicked");
        Status::cancelled("the call was cut off")
    }
}

/// The time that a call has, from `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout").
/// Like tonic's: a malformed one is none.
pub(crate) fn deadline(headers: &http::HeaderMap) -> Option<Duration> {
    let text = headers.get(TIMEOUT_KEY)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > 8 {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(amount * 3600),
        "M" => Duration::from_secs(amount * 60),
        "S" => Duration::from_secs(amount),
        "m" => Duration::from_millis(amount),
        "u" => Duration::from_micros(amount),
        "n" => Duration::from_nanos(amount),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_is_read_as_the_protocol_has_it() {
        let read = |text: &str| {
            let mut headers = http::HeaderMap::new();
            headers.insert(TIMEOUT_KEY, text.parse().unwrap());
            deadline(&headers)
        };
        assert_eq!(deadline(&http::HeaderMap::new()), None);
        for (text, ms) in [("2000000u", 2000), ("15m", 15), ("2S", 2000), ("1M", 60_000), ("1H", 3_600_000)] {
            assert_eq!(read(text), Some(Duration::from_millis(ms)), "{text}");
        }
        assert_eq!(read("7n"), Some(Duration::from_nanos(7)));
        assert_eq!(read("99999999H"), Some(Duration::from_hours(99_999_999)));
        for malformed in ["", "S", "2", "2s", "-2S", "123456789S", "zweiS"] {
            assert_eq!(read(malformed), None, "{malformed:?}");
        }
    }
}
