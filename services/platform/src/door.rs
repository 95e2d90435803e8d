//! The way of a command into the one journal: it is sent until its outcome is known, as long as its caller waits.
//!
//! The same command sent twice has one effect: by the client's key, or by the id that the door gives it.

use super::{
    clock::Clock,
    context::Context,
    error::{Error, Result},
    refusal::{Kind, Refusal},
};
use fafnir_proto::{
    client::{self, POSITION_KEY},
    deadline as waits,
    reason::AnyReason,
    v1::{Command, Done, ExecuteRequest, Refused, execute_reply::Outcome},
};
use parking_lot::Mutex;
use std::{sync::Arc, time::Duration};
use tokio::time::Instant;
use tonic::{Code, Request, Response};
use uuid::{ContextV7, Timestamp, Uuid};

/// What a door keeps of its caller's time to answer in: a tenth, within these.
const MARGIN_MIN: Duration = Duration::from_millis(10);
const MARGIN_MAX: Duration = Duration::from_millis(200);
/// Pause before a command is sent again; doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(5);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// A service's door into the journal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Door {
    ctx: Context,
    ids: Ids,
}

/// Gives ids that grow, also within a millisecond. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Ids {
    clock: Clock,
    last: Arc<Mutex<ContextV7>>,
}

/// What became of a command.
#[derive(Debug)]
pub struct Answer {
    /// What a projection that stands here knows of it.
    pub position: u64,
    /// Done, or refused: nothing changed.
    pub outcome: Result<Done, Refused>,
    /// It was sent more than once: an earlier one may have been carried out.
    pub is_repeated: bool,
}

impl Ids {
    pub fn new(clock: Clock) -> Self {
        Self { clock, last: Arc::new(Mutex::new(ContextV7::new())) }
    }

    /// The next UUIDv7.
    pub fn next(&self) -> Uuid {
        let now_us = u64::try_from(self.clock.now_us()).unwrap_or(0);
        let (seconds, nanos) = (now_us / 1_000_000, (now_us % 1_000_000) as u32 * 1_000);
        let last = self.last.lock();
        Uuid::new_v7(Timestamp::from_unix(&*last, seconds, nanos))
    }
}

impl Door {
    pub fn new(ctx: &Context) -> Self {
        Self { ctx: ctx.clone(), ids: Ids::new(ctx.clock.clone()) }
    }

    /// A new id, for a command or for what it makes.
    pub fn new_id(&self) -> Uuid {
        self.ids.next()
    }

    /// Has a command carried out; one without an id or a key is given an id.
    ///
    /// # Errors
    /// Transient where the outcome is not known at the deadline: it is found later, by the command's id or key.
    pub async fn execute(&self, mut command: Command, deadline: Instant) -> Result<Answer> {
        if command.id.is_empty() && command.key.is_none() {
            command.id = self.new_id().as_bytes().to_vec();
        }
        let request = ExecuteRequest { command: Some(command) };
        let (mut pause, mut is_repeated) = (PAUSE_MIN, false);
        loop {
            let mut attempt = Request::new(request.clone());
            attempt.set_timeout(deadline.saturating_duration_since(Instant::now()));
            let mut engine = self.ctx.clients.engine(&self.ctx.system());
            let status = match tokio::time::timeout_at(deadline, engine.execute(attempt)).await {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    let outcome = match reply.outcome {
                        Some(Outcome::Done(done)) => Ok(done),
                        Some(Outcome::Refused(refused)) => Err(refused),
                        None => return Err(Error::internal("the engine answered neither done nor refused")),
                    };
                    return Ok(Answer { position: reply.position, outcome, is_repeated });
                }
                Ok(Err(status)) => Error::from(status),
                Err(_) => Error::unavailable("the engine did not answer in time"),
            };
            if !status.is_transient() || Instant::now() + pause >= deadline {
                return Err(status);
            }
            tracing::debug!(trace = client::trace_id(), error = %status, "a command is sent again");
            tokio::time::sleep(pause).await;
            (pause, is_repeated) = ((pause * 2).min(PAUSE_MAX), true);
        }
    }
}

/// When the answer to a request must be on its way: a little before its caller stops waiting.
pub fn deadline<T>(request: &Request<T>) -> Instant {
    let time = client::time_left(request.metadata()).unwrap_or(waits::CALL);
    let margin = (time / 10).clamp(MARGIN_MIN, MARGIN_MAX);
    Instant::now() + time.saturating_sub(margin)
}

/// An answer that says from which position on a projection knows of it.
pub fn answered<T>(reply: T, position: u64) -> Response<T> {
    let mut response = Response::new(reply);
    response.metadata_mut().insert(POSITION_KEY, position.into());
    response
}

/// The engine's refusal as this service's own.
impl From<Refused> for Refusal {
    fn from(refused: Refused) -> Self {
        let kind = match Code::from(i32::try_from(refused.code).unwrap_or_default()) {
            Code::InvalidArgument => Kind::Invalid,
            Code::OutOfRange => Kind::OutOfRange,
            Code::NotFound => Kind::NotFound,
            Code::AlreadyExists => Kind::Exists,
            Code::PermissionDenied => Kind::Denied,
            Code::ResourceExhausted => Kind::Exhausted,
            Code::Unavailable => Kind::Unavailable,
            _ => Kind::Precondition,
        };
        Self { kind, reason: AnyReason::read(&refused.reason), message: refused.message }
    }
}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_ids_are_greater_also_within_a_millisecond_and_when_the_clock_goes_back() {
        let time = Arc::new(std::sync::atomic::AtomicI64::new(1_700_000_000_000_000));
        let now = Arc::clone(&time);
        let ids = Ids::new(Clock::from_fn(move || now.load(std::sync::atomic::Ordering::Relaxed)));
        let mut last = ids.next();
        for turn in 0..1_000 {
            time.fetch_add(if turn == 500 { -5_000_000 } else { 100 }, std::sync::atomic::Ordering::Relaxed);
            let next = ids.next();
            assert!(next > last, "{turn}");
            last = next;
        }
    }

    #[tokio::test]
    async fn a_hop_has_less_time_than_its_caller() {
        for (given, at_most) in [(2_000, 1_800), (100, 90), (15, 5), (5, 0)] {
            let mut request = Request::new(());
            request.set_timeout(Duration::from_millis(given));
            let left = deadline(&request).saturating_duration_since(Instant::now());
            assert!(left <= Duration::from_millis(at_most), "{given}: {left:?}");
            assert!(left + Duration::from_millis(50) > Duration::from_millis(at_most), "{given}: {left:?}");
        }
    }

    #[test]
    fn a_refusal_keeps_its_code_reason_and_sentence() {
        for code in [3, 5, 6, 8, 9, 11, 14] {
            let refused =
                Refused { code, reason: "PRICE_OFF_TICK".into(), message: "off".into(), order: None };
            let refusal = Refusal::from(refused);
            assert_eq!(Code::from(refusal.kind) as u32, code);
            assert_eq!((refusal.reason.as_str(), refusal.message.as_str()), ("PRICE_OFF_TICK", "off"));
        }
    }
}
