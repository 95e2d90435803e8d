//! Read your writes: how much of the journal a user's next read must know.
//!
//! It is the greatest of what the user was answered through this gateway, what this gateway pushed to the user, and the
//! last fact that touched the user as the engine has it in memory. While the engine is away nothing happens, and what
//! this gateway knows is enough.

use super::{Gateway, session::Session};
use fafnir_proto::{
    client::{self, Clients},
    id::UserId,
    v1::PositionRequest,
};
use parking_lot::Mutex;
use std::{collections::HashMap, mem, time::Duration};
use tokio::time::{Instant, timeout};
use tonic::Response;

/// Users whose positions are remembered one by one, twice.
const USERS_MAX: usize = 50_000;
/// Longest wait for the engine's word; it answers from memory.
const ASK_MAX: Duration = Duration::from_millis(250);
/// An engine that does not answer is left alone for so long.
const AWAY: Duration = Duration::from_millis(250);

/// What users know, as far as this gateway told them.
#[derive(Debug, Default)]
pub struct Positions {
    known: Mutex<Known>,
    /// Until when the engine is not asked.
    away_until: Mutex<Option<Instant>>,
}

/// Two generations of users; whoever is in neither knows at most `forgotten`.
#[derive(Debug, Default)]
struct Known {
    young: HashMap<UserId, u64>,
    old: HashMap<UserId, u64>,
    forgotten: u64,
}

impl Known {
    fn get(&self, user: UserId) -> u64 {
        self.young.get(&user).or_else(|| self.old.get(&user)).copied().unwrap_or(self.forgotten)
    }

    fn learn(&mut self, user: UserId, position: u64, users_max: usize) {
        let before = self.get(user);
        if before >= position && self.young.contains_key(&user) {
            return;
        }
        if self.young.len() >= users_max && !self.young.contains_key(&user) {
            let gone = mem::replace(&mut self.old, mem::take(&mut self.young));
            self.forgotten = gone.into_values().fold(self.forgotten, u64::max);
        }
        self.young.insert(user, before.max(position));
    }
}

impl Positions {
    /// The user was told something of this position.
    pub fn learn(&self, user: UserId, position: u64) {
        if position > 0 {
            self.known.lock().learn(user, position, USERS_MAX);
        }
    }

    fn get(&self, user: UserId) -> u64 {
        self.known.lock().get(user)
    }

    fn is_away(&self) -> bool {
        self.away_until.lock().is_some_and(|until| Instant::now() < until)
    }
}

impl Gateway {
    /// The services as a user must read them: whoever is asked waits until it knows what the user knows.
    pub async fn reads(&self, session: &Session) -> Clients {
        let told = if self.positions.is_away() { 0 } else { self.position_of(session).await };
        let position = self.positions.get(session.user).max(told);
        self.ctx.clients.at(position)
    }

    async fn position_of(&self, session: &Session) -> u64 {
        let request = PositionRequest { user_id: session.user.to_string() };
        let mut engine = self.ctx.clients.engine(&self.ctx.system());
        let Ok(Ok(reply)) = timeout(ASK_MAX, engine.position(request)).await else {
            *self.positions.away_until.lock() = Some(Instant::now() + AWAY);
            return 0;
        };
        reply.into_inner().position
    }

    /// What a service answered to a user's command; the user knows of it from here on.
    pub fn told<T>(&self, session: &Session, answer: Response<T>) -> T {
        if let Some(position) = client::position_of(&answer) {
            self.positions.learn(session.user, position);
        }
        answer.into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(n: u128) -> UserId {
        UserId::new(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn a_user_never_knows_less_than_before_however_many_others_there_are() {
        let mut known = Known::default();
        known.learn(user(1), 70, 3);
        known.learn(user(1), 50, 3);
        assert_eq!((known.get(user(1)), known.get(user(2))), (70, 0));
        for n in 2..20 {
            known.learn(user(n), u64::try_from(n).unwrap(), 3);
            assert!(known.get(user(1)) >= 70, "{n}");
            assert!(known.get(user(n)) >= u64::try_from(n).unwrap());
            assert!(known.young.len() <= 3 && known.old.len() <= 3);
        }
        assert_eq!(known.forgotten, 70);
        // Who comes back keeps what is known of him.
        known.learn(user(1), 80, 3);
        assert_eq!(known.get(user(1)), 80);
    }
}
