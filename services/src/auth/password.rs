//! Hashing of passwords (argon2id) on a bounded pool of blocking threads: 20 ms of a core and 19 MiB each.

use super::domain::Password;
use crate::platform::{Refusal, Result, error::Error};
use argon2::{
    Argon2, Params,
    password_hash::{PasswordHasher as _, PasswordVerifier as _, phc::PasswordHash},
};
use std::{sync::Arc, time::Duration};
use tokio::sync::Semaphore;

/// Hashes that wait for a thread; one more is refused.
const QUEUE_MAX: usize = 64;
/// Longest that one waits.
const WAIT_MAX: Duration = Duration::from_secs(5);
/// Verified in place of an unknown user's hash, so that both cost the same. Nobody's password.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$ZmFmbmlyLWR1bW15LXNhbHQ$\
                          AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Threads that hash. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Pool {
    threads: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// The answer of [`Pool::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub matches: bool,
    /// The hash was made with weaker parameters than today's: make a new one while the password is at hand.
    pub outdated: bool,
}

impl Default for Pool {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.saturating_sub(1).max(1);
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            room: Arc::new(Semaphore::new(threads + QUEUE_MAX)),
        }
    }
}

impl Pool {
    /// Hashes a new password into a PHC string.
    pub async fn hash(&self, password: Password) -> Result<String> {
        self.run(move || hash(&password)).await?
    }

    /// Compares a password with a user's hash; without one it takes as long and fails.
    pub async fn verify(&self, password: Password, stored: Option<String>) -> Result<Verdict> {
        self.run(move || verify(&password, stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let busy =
            || Refusal::exhausted("SIGN_IN_BUSY", "too many sign-ins at a time; try again in a second");
        let _room = self.room.try_acquire().map_err(|_| busy())?;
        let thread = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.threads).acquire_owned())
            .await
            .map_err(|_| busy())?
            .map_err(|e| Error::internal(e.to_string()))?;
        tokio::task::spawn_blocking(move || {
            let result = work();
            drop(thread);
            result
        })
        .await
        .map_err(|e| Error::internal(format!("hashing a password failed: {e}")))
    }
}

fn hash(password: &Password) -> Result<String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| Error::internal(format!("hashing a password failed: {e}")))?;
    Ok(hash.to_string())
}

fn verify(password: &Password, stored: Option<&str>) -> Verdict {
    let argon2 = Argon2::default();
    let known = stored.and_then(|s| PasswordHash::new(s).ok());
    let Some(known) = known else {
        let matches = argon2.verify_password(password.as_bytes(), DUMMY_HASH).is_ok();
        debug_assert!(!matches, "nobody's password");
        return Verdict { matches: false, outdated: false };
    };
    let matches = argon2.verify_password(password.as_bytes(), &known).is_ok();
    let outdated = Params::try_from(&known)
        .map_or(true, |p| p.m_cost() < Params::DEFAULT_M_COST || p.t_cost() < Params::DEFAULT_T_COST);
    Verdict { matches, outdated: outdated || known.algorithm.as_str() != "argon2id" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_verifies_only_its_password_and_the_dummy_nothing() {
        let right = Password::parse("password", "correct horse").unwrap();
        let wrong = Password::parse("password", "wrong horse").unwrap();
        let stored = hash(&right).unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{stored}");
        assert_eq!(verify(&right, Some(&stored)), Verdict { matches: true, outdated: false });
        assert!(!verify(&wrong, Some(&stored)).matches);
        assert!(!verify(&right, None).matches);
        assert!(!verify(&right, Some("")).matches);
        assert!(PasswordHash::new(DUMMY_HASH).is_ok(), "the dummy costs a real verification");
    }

    #[test]
    fn a_hash_with_weaker_parameters_is_outdated() {
        let password = Password::parse("password", "correct horse").unwrap();
        let weak = Argon2::from(Params::new(8 * 1024, 1, 1, None).unwrap());
        let stored: PasswordHash = weak.hash_password(password.as_bytes()).unwrap();
        assert_eq!(verify(&password, Some(&stored.to_string())), Verdict { matches: true, outdated: true });
    }
}
