//! Whether a service can do its work: what its door for operations answers at `/readyz`.

use parking_lot::RwLock;
use std::sync::Arc;

/// The health of one service. Cheap to clone; every clone is of the same service.
#[derive(Debug, Clone, Default)]
pub struct Health(Arc<RwLock<State>>);

#[derive(Debug, Default)]
struct State {
    started: bool,
    stuck: Option<String>,
    damaged: Option<String>,
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
        match state.damaged.as_ref().or(state.stuck.as_ref()) {
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
        health.damaged("page 7 is damaged");
        health.damaged("page 9 is damaged");
        health.recovered();
        assert_eq!(health.ready(), Err("page 7 is damaged".to_owned()));
    }
}
