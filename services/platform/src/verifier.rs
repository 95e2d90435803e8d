//! Access tokens verified once: the same token costs one check of its signature, not one a request.

use super::token::{Claims, Error, Keys, TOKEN_LEN_MAX};
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc};

/// Tokens that are remembered, about 300 bytes each; the one that was not used for longest goes first.
const VERIFIED_MAX: u64 = 20_000;

/// A set of keys, and the claims of the tokens that it has verified.
///
/// A token is known by the SHA-256 of its whole text, signature included: whoever wants another text to be taken for it
/// needs a second preimage of 256 bits, and the texts themselves are not kept. What is remembered is only what the
/// signature covers and does not change: `exp`, `nbf` and `iat` are held against the clock at each use. Refused tokens are
/// not remembered, so nobody without a token fills the memory. Other keys are another `Verifier`, which knows nothing yet.
pub struct Verifier {
    keys: Keys,
    verified: moka::sync::Cache<[u8; 32], Arc<Claims>>,
}

impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("keys", &self.keys).finish_non_exhaustive()
    }
}

impl Default for Verifier {
    fn default() -> Self {
        Self::new(Keys::default())
    }
}

impl Verifier {
    pub fn new(keys: Keys) -> Self {
        Self::with_room(keys, VERIFIED_MAX)
    }

    fn with_room(keys: Keys, verified_max: u64) -> Self {
        let lru = moka::policy::EvictionPolicy::lru();
        let verified = moka::sync::Cache::builder().max_capacity(verified_max).eviction_policy(lru).build();
        Self { keys, verified }
    }

    /// As [`Keys::verify`].
    pub fn verify(&self, token: &str, now_us: i64) -> Result<Arc<Claims>, Error> {
        if token.len() > TOKEN_LEN_MAX {
            return Err(Error::Malformed);
        }
        let hash: [u8; 32] = Sha256::digest(token).into();
        if let Some(claims) = self.verified.get(&hash) {
            let checked = claims.check_times(now_us);
            if checked == Err(Error::Expired) {
                self.verified.invalidate(&hash);
            }
            return checked.map(|()| claims);
        }
        let claims = Arc::new(self.keys.verify(token, now_us)?);
        self.verified.insert(hash, Arc::clone(&claims));
        Ok(claims)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SECOND_US, token::SigningKey};
    use fafnir_proto::id::{SessionId, UserId};
    use ring::{rand::SystemRandom, signature::Ed25519KeyPair};
    use uuid::Uuid;

    const NOW_US: i64 = 1_800_000_000 * SECOND_US;

    fn key() -> SigningKey {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        SigningKey::from_pkcs8(pkcs8.as_ref()).unwrap()
    }

    fn token(key: &SigningKey) -> String {
        key.sign(UserId::new(Uuid::new_v4()), SessionId::new(Uuid::new_v4()), NOW_US, 600).unwrap()
    }

    fn known(verifier: &Verifier) -> u64 {
        verifier.verified.run_pending_tasks();
        verifier.verified.entry_count()
    }

    #[test]
    fn a_known_token_is_valid_from_its_issue_to_its_expiry_and_then_forgotten() {
        let key = key();
        let verifier = Verifier::new(Keys::from_jwks(&key.jwks()).unwrap());
        let token = token(&key);
        let first = verifier.verify(&token, NOW_US).unwrap();
        let again = verifier.verify(&token, NOW_US + 604 * SECOND_US).unwrap();
        assert!(Arc::ptr_eq(&first, &again), "verified once");
        assert_eq!(verifier.verify(&token, NOW_US - 6 * SECOND_US), Err(Error::NotYet));
        assert_eq!(known(&verifier), 1);
        assert_eq!(verifier.verify(&token, NOW_US + 605 * SECOND_US), Err(Error::Expired));
        assert_eq!(known(&verifier), 0);
        assert_eq!(verifier.verify(&token, NOW_US + 605 * SECOND_US), Err(Error::Expired));
        assert_eq!(known(&verifier), 0, "one that has expired is not remembered again");
    }

    #[test]
    fn a_refused_token_is_not_remembered_nor_taken_for_the_one_it_resembles() {
        let key = key();
        let verifier = Verifier::new(Keys::from_jwks(&key.jwks()).unwrap());
        let good = token(&key);
        verifier.verify(&good, NOW_US).unwrap();
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let mut other = signature.to_owned();
        let first = if other.remove(0) == 'A' { 'B' } else { 'A' };
        other.insert(0, first);
        let foreign = token(&self::key());
        for _ in 0..2 {
            let changed = format!("{signed}.{other}");
            assert_eq!(verifier.verify(&changed, NOW_US), Err(Error::Signature));
            assert_eq!(verifier.verify(signed, NOW_US), Err(Error::Malformed));
            assert_eq!(verifier.verify(&foreign, NOW_US), Err(Error::UnknownKey));
            assert_eq!(verifier.verify(&"a".repeat(TOKEN_LEN_MAX + 1), NOW_US), Err(Error::Malformed));
        }
        assert_eq!(known(&verifier), 1);
    }

    #[test]
    fn other_keys_know_no_token_of_the_earlier_ones() {
        let (old, new) = (key(), key());
        let token = token(&old);
        let before = Verifier::new(Keys::from_jwks(&old.jwks()).unwrap());
        assert!(before.verify(&token, NOW_US).is_ok());
        let after = Verifier::new(Keys::from_jwks(&new.jwks()).unwrap());
        assert_eq!(after.verify(&token, NOW_US), Err(Error::UnknownKey));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let key = key();
        let verifier = Verifier::with_room(Keys::from_jwks(&key.jwks()).unwrap(), 4);
        for _ in 0..20 {
            verifier.verify(&token(&key), NOW_US).unwrap();
        }
        assert!(known(&verifier) <= 4);
    }
}
