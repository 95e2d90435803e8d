//! Whether a service can do its work: what its door for operations answers at `/readyz`.

use super::tasks::{Schedule, Tasks};
use fafnir_proto::deadline;
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fmt::Display,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How often something is asked for that a service cannot do its work without.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// Without an answer for so long the service is not ready.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// No answer came at once: there is nobody to say anything.
const SILENT_FROM: Duration = Duration::from_secs(1);

/// The health of one service. Cheap to clone; every clone is of the same service.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    started: bool,
    stuck: Option<String>,
    damaged: Option<String>,
    /// What is away that it cannot do its work without.
    lacks: BTreeMap<&'static str, String>,
}

impl Health {
    /// The service takes requests from here on.
    pub fn started(&self) {
        self.0.write().started = true;
    }

    /// Something that a person must look at keeps the service from its work; one sentence.
    pub fn stuck(&self, why: &str) {
        self.0.write().stuck = Some(why.to_owned());
    }

    /// What kept it is over.
    pub fn recovered(&self) {
        // Asked for first: this is called at every step that goes well.
        if self.0.read().stuck.is_some() {
            self.0.write().stuck = None;
        }
    }

    /// It cannot do its work for want of `what`, which comes back by itself; one sentence.
    pub fn lacks(&self, what: &'static str, why: &str) {
        self.0.write().lacks.insert(what, why.to_owned());
    }

    /// `what` is there.
    pub fn has(&self, what: &'static str) {
        if self.0.read().lacks.contains_key(what) {
            self.0.write().lacks.remove(what);
        }
    }

    /// Asks `what` now and then whether it is there. The first word against it counts for nothing: it is how one hears of the
    /// connections that a restart has cut.
    pub fn needs<A, E>(
        &self,
        tasks: &Tasks,
        service: &'static str,
        what: &'static str,
        ask: impl Fn() -> A + Send + 'static,
    ) where
        A: Future<Output = Result<(), E>> + Send,
        E: Display + Send,
    {
        let (health, failures) = (self.clone(), Arc::new(AtomicU32::new(0)));
        tasks.every(format!("{service}: ask {what}"), Schedule::after(ASK_EVERY), move || {
            let (health, failures, began) = (health.clone(), Arc::clone(&failures), Instant::now());
            let asking = deadline::within(ANSWER_WITHIN, ask());
            async move {
                match asking.await {
                    Ok(()) => {
                        failures.store(0, Ordering::Relaxed);
                        health.has(what);
                    }
                    Err(_)
                        if failures.fetch_add(1, Ordering::Relaxed) == 0 && began.elapsed() < SILENT_FROM => {
                    }
                    Err(e) => health.lacks(what, &format!("{what} cannot be used: {e}")),
                }
                Ok::<(), Infallible>(())
            }
        });
    }

    /// What it stores is damaged: it only reads from here on, until it is started on a sound store. One sentence.
    pub fn damaged(&self, why: &str) {
        self.0.write().damaged.get_or_insert_with(|| why.to_owned());
    }

    /// Whether it is ready.
    ///
    /// # Errors
    /// Why it is not, in a few words.
    pub fn ready(&self) -> Result<(), String> {
        let state = self.0.read();
        let lacking = state.lacks.values().next();
        match state.damaged.as_ref().or(state.stuck.as_ref()).or(lacking) {
            Some(why) => Err(why.clone()),
            None if state.started => Ok(()),
            None => Err("starting".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_ready_when_it_has_started_and_nothing_keeps_it() {
        let health = Health::default();
        assert_eq!(health.ready(), Err("starting".to_owned()));
        health.started();
        assert_eq!(health.ready(), Ok(()));
        health.clone().stuck("a fact cannot be");
        assert_eq!(health.ready(), Err("a fact cannot be".to_owned()));
        health.recovered();
        assert_eq!(health.ready(), Ok(()));
        health.lacks("a", "a is away");
        health.lacks("b", "b is away");
        assert_eq!(health.ready(), Err("a is away".to_owned()));
        health.has("a");
        health.recovered();
        assert_eq!(health.ready(), Err("b is away".to_owned()));
        health.has("b");
        assert_eq!(health.ready(), Ok(()));
        health.damaged("page 7 is damaged");
        health.damaged("page 9 is damaged");
        health.recovered();
        assert_eq!(health.ready(), Err("page 7 is damaged".to_owned()));
    }
}
