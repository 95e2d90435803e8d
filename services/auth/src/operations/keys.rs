//! API keys: made, found by their two halves, revoked.

use super::Operations;
use crate::{
    domain::key::{KEYS_MAX, KeyId, NewKey, SECRET_LEN, secret_of_random},
    store::{
        self,
        keys::{Key, Place},
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fafnir_platform::{
    Refusal, Result,
    audit::{self, Action, More as _},
    clock::SECOND_US,
    config::Mode,
    db::Tx,
    error::Error,
    http::address::Networks,
    secrets::{constant_time_eq, random_bytes},
};
use fafnir_proto::{
    client::Caller,
    id::{AccountId, SessionId, UserId},
    reason::Reason,
    v1,
};
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use uuid::Uuid;

/// Random bytes for one half of a key: three times the characters, since some are left out.
const RANDOM_BYTES: usize = 3 * SECRET_LEN;
/// That a key was used is noted once in so long.
const USED_EVERY_US: i64 = 60 * SECOND_US;
/// What the ids of keys begin with that the seeds bring and everybody knows; production mode takes none of them.
const DEVELOPMENT_PREFIX: &str = "PKDEVELOPMENT";

fn hash_of(secret: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(secret))
}

fn random() -> Result<impl Iterator<Item = u8>> {
    Ok(random_bytes(RANDOM_BYTES).map_err(|e| Error::internal(e.to_string()))?.into_iter())
}

impl Operations {
    /// The key that these two halves open from this address, where they do.
    pub async fn key(&self, id: &str, secret: &str, from: Option<IpAddr>) -> Result<Option<Key>> {
        let Some(id) = KeyId::parse(id) else { return Ok(None) };
        let now_us = self.ctx.clock.now_us();
        let wanted = id.clone();
        let known = self.keys_kept.read(id, move |tx| Ok(store::keys::live(tx, &wanted, now_us)?)).await?;
        let right = constant_time_eq(
            hash_of(secret).as_bytes(),
            known.as_ref().map_or("", |key| key.secret_hash.as_str()).as_bytes(),
        );
        let Some(key) = known.filter(|key| right && (key.expires_us == 0 || key.expires_us > now_us)) else {
            return Ok(None);
        };
        if key.id.starts_with(DEVELOPMENT_PREFIX) && self.ctx.settings.mode == Mode::Production {
            return Ok(None);
        }
        if !key.addresses.is_empty() {
            let networks = Networks::parse(&key.addresses).map_err(|e| Error::internal(e.to_string()))?;
            if !from.is_some_and(|ip| networks.contains(ip)) {
                return Ok(None);
            }
        }
        if now_us.saturating_sub(key.last_used_us) >= USED_EVERY_US {
            let id = key.id.clone();
            // Nobody waits for a note.
            let db = self.db.clone();
            self.ctx.tasks.spawn_until_shutdown("use of a key", async move {
                let noted = db.write(move |tx| Ok(store::keys::used(tx, &id, now_us)?)).await;
                drop(noted.inspect_err(|e| tracing::debug!(error = %e, "the use of a key is not noted")));
                Ok::<(), Error>(())
            });
        }
        Ok(Some(key))
    }

    /// Makes a key; answers it and its secret. `position` is what the user knows of the books: an account of a moment ago
    /// is there.
    pub async fn create_key(
        &self,
        user: UserId,
        new: NewKey,
        account: Option<AccountId>,
        position: u64,
    ) -> Result<(Key, String)> {
        if let Some(account) = account {
            self.check_account(user, account, position).await?;
        }
        let secret = secret_of_random(random()?);
        let place = Place {
            id: KeyId::of_random(random()?),
            session_id: SessionId::new(Uuid::now_v7()),
            user_id: user,
            secret_hash: hash_of(&secret),
            account_id: account.map_or_else(String::new, |id| id.to_string()),
        };
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::KeyCreate, Caller::User(user), user, now_us).with_detail(format!(
            "{} {} {}",
            place.id,
            new.scope.name(),
            place.account_id
        ));
        let key = self
            .db
            .write(move |tx| {
                let is_active =
                    store::user_by_id(tx, user)?.is_some_and(|u| u.state == store::UserState::Active);
                if !is_active {
                    return Err(Refusal::not_found(Reason::USER_NOT_FOUND, "no such user").into());
                }
                if store::keys::count(tx, user, now_us)? >= KEYS_MAX {
                    let text = format!("a user has at most {KEYS_MAX} keys; revoke one");
                    return Err(Refusal::exhausted(Reason::TOO_MANY_KEYS, text).into());
                }
                if !store::keys::insert(tx, &place, &new, now_us)? {
                    return Err(Error::internal("an id of a key was met twice"));
                }
                audit::put(tx, &entry)?;
                store::keys::live(tx, &place.id, now_us)?
                    .ok_or_else(|| Error::internal("a key that was just stored is missing"))
            })
            .await;
        let key = self.written(key)?;
        tracing::info!(%user, key = key.id, scope = key.scope.name(), "key created");
        Ok((key, secret))
    }

    /// A key is for an INVESTMENT account of its user.
    async fn check_account(&self, user: UserId, account: AccountId, position: u64) -> Result<()> {
        let mut portfolio = self.ctx.clients.at(position).portfolio(&self.ctx.system());
        let request = v1::UserRequest { user_id: user.to_string() };
        let accounts = portfolio.list_accounts(request).await?.into_inner().accounts;
        let id = account.to_string();
        let is_fit = |a: &v1::Account| a.id == id && !a.closed && a.r#type() == v1::AccountType::Investment;
        if accounts.iter().any(is_fit) {
            return Ok(());
        }
        let text = format!("account_id {account} is not an investment account of this user");
        Err(Refusal::not_found(Reason::ACCOUNT_NOT_FOUND, text).into())
    }

    /// A user's keys, newest first.
    pub async fn keys_of(&self, user: UserId) -> Result<Vec<Key>> {
        self.db.read(move |tx| Ok(store::keys::of_user(tx, user)?)).await
    }

    /// Ends a key at every door within a second; again changes nothing.
    pub async fn revoke_key(&self, user: UserId, id: &str) -> Result<()> {
        let unknown = || Refusal::not_found(Reason::KEY_NOT_FOUND, "no such key");
        let id = KeyId::parse(id).ok_or_else(unknown)?;
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::KeyRevoke, Caller::User(user), user, now_us).with_detail(&id);
        let revoke = move |tx: &mut dyn Tx| {
            let revoked = store::keys::revoke(tx, user, &id, now_us)?.ok_or_else(unknown)?;
            if revoked {
                audit::put(tx, &entry)?;
            }
            Ok((revoked, id.clone()))
        };
        let (revoked, id) = self.written(self.db.write(revoke).await)?;
        if revoked {
            tracing::info!(%user, key = %id, "key revoked");
        }
        Ok(())
    }

    /// Brings the key of a seed user, which may trade; one that is there stays as it is.
    pub async fn seed_key(&self, user: UserId, id: &str, secret: &str) -> Result<()> {
        if self.ctx.settings.mode == Mode::Production {
            return Err(Refusal::denied("production mode takes no key that everybody knows").into());
        }
        let malformed = || {
            let text = format!("key_id must be an id of a key that begins with {DEVELOPMENT_PREFIX}");
            Refusal::invalid(Reason::ID_MALFORMED, text)
        };
        let id = KeyId::parse(id)
            .filter(|id| id.as_str().starts_with(DEVELOPMENT_PREFIX))
            .ok_or_else(malformed)?;
        let now_us = self.ctx.clock.now_us();
        let new = NewKey::parse("development", &["trade".to_owned()], &[], 0, now_us)?;
        let place = Place {
            id,
            session_id: SessionId::new(Uuid::now_v7()),
            user_id: user,
            secret_hash: hash_of(secret),
            account_id: String::new(),
        };
        self.db.write(move |tx| Ok(store::keys::insert(tx, &place, &new, now_us)?)).await.map(drop)
    }
}
