//! Hashing of passwords (argon2id) on threads of its own: 20 ms of a core and 19 MiB each, which the thread keeps for the
//! next one until it rests.

use super::{
    domain::Password,
    queue::{For, Queue},
};
use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{
        self, CustomizedPasswordHasher, PasswordHasher, PasswordVerifier as _,
        phc::{Output, ParamsString, PasswordHash, Salt},
    },
};
use fafnir_platform::error::Error;
use fafnir_proto::deadline;
use std::{cell::RefCell, sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::timeout};

/// Threads at least: one that is held up holds nobody else up.
const THREADS_MIN: usize = 2;
/// Time without work after which a thread gives its memory back.
const REST_AFTER: Duration = Duration::from_secs(10);
/// Verified in place of an unknown user's hash, so that both cost the same. Nobody's password.
const DUMMY_HASH: &str = "$argon2id$v=19$m=19456,t=2,p=1$ZmFmbmlyLWR1bW15LXNhbHQ$\
                          AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

/// Threads that hash: one less than the cores, at least [`THREADS_MIN`]. Cheap to clone; they end with the last clone.
#[derive(Debug, Clone)]
pub struct Pool(Arc<Threads>);

#[derive(Debug)]
struct Threads(Arc<Queue>);

impl Drop for Threads {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Too many wait; it can be tried again after this.
    #[error("too many sign-ins at a time")]
    Busy(Duration),
    #[error(transparent)]
    Platform(#[from] Error),
}

/// The answer of [`Pool::verify`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    pub matches: bool,
    /// The hash was made with weaker parameters than today's: make a new one while the password is at hand.
    pub outdated: bool,
}

impl Pool {
    /// Starts the threads. Fails where the system refuses one.
    pub fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = cores.saturating_sub(1).max(THREADS_MIN);
        let queue = Arc::new(Queue::new(u32::try_from(threads).unwrap_or(u32::MAX), deadline::HASHING));
        let pool = Self(Arc::new(Threads(Arc::clone(&queue))));
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            std::thread::Builder::new()
                .name("argon2".to_owned())
                .spawn(move || queue.work(REST_AFTER, forget))?;
        }
        Ok(pool)
    }

    /// Hashes a new password into a PHC string.
    pub async fn hash(&self, whom: For, password: Password) -> Result<String, Failure> {
        Ok(self.run(whom, move || hash(&password)).await??)
    }

    /// Compares a password with a user's hash; without one it takes as long and fails.
    pub async fn verify(
        &self,
        whom: For,
        password: Password,
        stored: Option<String>,
    ) -> Result<Verdict, Failure> {
        self.run(whom, move || verify(&password, stored.as_deref())).await
    }

    async fn run<T: Send + 'static>(
        &self,
        whom: For,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (reply, answer) = oneshot::channel();
        let job = Box::new(move || {
            // Whoever waited too long has been answered.
            if !reply.is_closed() {
                let _gone = reply.send(work());
            }
        });
        self.0.0.add(whom, job).map_err(|busy| Failure::Busy(busy.retry_after))?;
        let done = timeout(deadline::HASHED, answer).await;
        let done = done.map_err(|_| Failure::Busy(Duration::from_secs(1)))?;
        Ok(done.map_err(|_| Error::internal("a thread that hashes passwords has ended"))?)
    }
}

thread_local! {
    static MEMORY: RefCell<Vec<Block>> = const { RefCell::new(Vec::new()) };
}

/// Gives the thread's memory back.
fn forget() {
    MEMORY.set(Vec::new());
}

/// Argon2 in its default parameters, in the thread's own memory.
struct Hasher;

impl CustomizedPasswordHasher<PasswordHash> for Hasher {
    type Params = Params;

    fn hash_password_customized(
        &self,
        password: &[u8],
        salt: &[u8],
        algorithm: Option<&str>,
        version: Option<u32>,
        params: Params,
    ) -> password_hash::Result<PasswordHash> {
        let algorithm = algorithm.map(Algorithm::try_from).transpose()?.unwrap_or_default();
        let version = version.map(Version::try_from).transpose()?.unwrap_or_default();
        let argon2 = Argon2::new(algorithm, version, params);
        let params = argon2.params();
        let mut buffer = [0; Output::MAX_LENGTH];
        let out = buffer
            .get_mut(..params.output_len().unwrap_or(Params::DEFAULT_OUTPUT_LEN))
            .ok_or(password_hash::Error::OutputSize)?;
        MEMORY.with_borrow_mut(|memory| {
            memory.resize(params.block_count(), Block::default());
            argon2.hash_password_into_with_memory(password, salt, out, memory)
        })?;
        Ok(PasswordHash {
            algorithm: algorithm.ident(),
            version: Some(version.into()),
            params: ParamsString::try_from(params)?,
            salt: Some(Salt::new(salt)?),
            hash: Some(Output::new(out)?),
        })
    }
}

impl PasswordHasher<PasswordHash> for Hasher {
    fn hash_password_with_salt(&self, password: &[u8], salt: &[u8]) -> password_hash::Result<PasswordHash> {
        self.hash_password_customized(password, salt, None, None, Params::default())
    }
}

fn hash(password: &Password) -> Result<String, Error> {
    let hash = Hasher
        .hash_password(password.as_bytes())
        .map_err(|e| Error::internal(format!("hashing a password failed: {e}")))?;
    Ok(hash.to_string())
}

fn verify(password: &Password, stored: Option<&str>) -> Verdict {
    let matches = |hash: &PasswordHash| Hasher.verify_password(password.as_bytes(), hash).is_ok();
    let Some(known) = stored.and_then(|s| PasswordHash::new(s).ok()) else {
        let matches = PasswordHash::new(DUMMY_HASH).is_ok_and(|dummy| matches(&dummy));
        debug_assert!(!matches, "nobody's password");
        return Verdict { matches: false, outdated: false };
    };
    let matches = matches(&known);
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
        assert!(Argon2::default().verify_password(right.as_bytes(), stored.as_str()).is_ok());
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
