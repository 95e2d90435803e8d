//! What can be done with users and sessions, the same behind the REST and the gRPC door.

mod keys;
mod people;

use super::{
    domain::{Email, NewUser, Password, Throttle, key::KeyId},
    events,
    password::{self, Pool},
    queue::{For, Purpose},
    store::{self, User, UserState},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fafnir_platform::{
    Context, Refusal, Result, Settings,
    audit::{self, Action, Actor, More as _},
    clock::SECOND_US,
    config::Mode,
    context::retry,
    csrf,
    db::{Copies, Db},
    error::Error,
    http::address::Source,
    secrets::{random_text, signing_keys},
    tasks::Wake,
    token::{self, Keys, SigningKey},
};
use fafnir_proto::{
    client::Caller,
    id::{SessionId, UserId},
    reason::Reason,
    v1,
};
use parking_lot::{Mutex, RwLock};
use sha2::{Digest as _, Sha256};
use std::{net::IpAddr, sync::Arc, time::Duration};
use uuid::Uuid;

/// A refresh token that is not used for this long is void.
const REFRESH_IDLE_US: i64 = 24 * 3600 * SECOND_US;
/// A session with refresh ends after this long, however busy.
const SESSION_MAX_US: i64 = 14 * 24 * 3600 * SECOND_US;
const REFRESH_BYTES: usize = 32;
/// Characters of a user agent that are kept.
const USER_AGENT_LEN_MAX: usize = 200;
/// Sessions of a user whose addresses are looked at, the newest first.
const ADDRESSES_LOOKED_AT: u32 = 100;
/// A refresh token that was exchanged a moment ago is exchanged again: two windows of one user asked at once, or the
/// answer was lost.
const REFRESH_GRACE_US: i64 = 10 * SECOND_US;
/// Sessions whose state is kept in memory.
const SESSIONS_KEPT_MAX: u64 = 50_000;
/// How long an answer waits for role and profile, or for accounts to close.
const FINISH_DEADLINE: Duration = Duration::from_secs(5);

/// The role of every user.
pub const MEMBER: &str = "member";

/// Everything that the doors need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operations {
    pub ctx: Context,
    pub db: Db,
    pub wake: Wake,
    pub audit_wake: Wake,
    sessions: Arc<Copies<SessionId, Option<(UserId, i64)>>>,
    keys_kept: Arc<Copies<KeyId, Option<store::keys::Key>>>,
    signing: Arc<RwLock<Arc<Signing>>>,
    pool: Pool,
    throttle: Arc<Mutex<Throttle>>,
}

/// Why a sign-in (or another operation with a password) did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Platform(#[from] Error),
    #[error("too many failed sign-ins; try again in {retry_after_s} s")]
    Throttled { retry_after_s: u64 },
    #[error("too many sign-ins at a time; try again in {retry_after_s} s")]
    Busy { retry_after_s: u64 },
}

impl Failure {
    /// Seconds after which trying again can help, where that is known.
    pub fn retry_after_s(&self) -> Option<u64> {
        match self {
            Self::Platform(_) => None,
            Self::Throttled { retry_after_s } | Self::Busy { retry_after_s } => Some(*retry_after_s),
        }
    }
}

impl From<Failure> for Error {
    fn from(f: Failure) -> Self {
        let text = f.to_string();
        match f {
            Failure::Platform(e) => e,
            Failure::Throttled { .. } => Refusal::exhausted(Reason::TOO_MANY_FAILED_SIGN_INS, text).into(),
            Failure::Busy { .. } => Refusal::exhausted(Reason::SIGN_IN_BUSY, text).into(),
        }
    }
}

impl From<password::Failure> for Failure {
    fn from(f: password::Failure) -> Self {
        match f {
            password::Failure::Busy(time) => Self::Busy { retry_after_s: time.as_secs().max(1) },
            password::Failure::Platform(e) => e.into(),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(r: Refusal) -> Self {
        Self::Platform(r.into())
    }
}

/// Who asks, for the throttle and the list of sessions.
#[derive(Debug, Clone)]
pub struct Client {
    pub ip: IpAddr,
    pub user_agent: String,
}

/// What a sign-in gives.
#[derive(Debug, Clone)]
pub struct SignedIn {
    pub user_id: UserId,
    pub email: String,
    pub session_id: SessionId,
    pub access_token: String,
    pub expires_in_s: u32,
    /// Empty for a browser session.
    pub refresh_token: String,
}

/// The key that signs access tokens, and those that verify them.
#[derive(Debug)]
pub struct Signing {
    key: SigningKey,
    jwks: String,
    /// The file of the other one has the same.
    is_changing: bool,
    pub keys: Keys,
}

impl Signing {
    fn read(settings: &Settings) -> anyhow::Result<Self> {
        let (current, also) = signing_keys(&settings.data_dir().join("secrets"))?;
        let read = |pkcs8: &[u8]| {
            SigningKey::from_pkcs8(pkcs8).map_err(|_| {
                anyhow::anyhow!("the key that signs access tokens is not an Ed25519 key in PKCS#8")
            })
        };
        let is_changing = also.as_ref() == Some(&current);
        let (key, also) = (read(&current)?, also.as_deref().map(read).transpose()?);
        let all: Vec<&SigningKey> = std::iter::once(&key).chain(&also).collect();
        let jwks = SigningKey::jwks_of(&all);
        Ok(Self { keys: Keys::from_jwks(&jwks)?, jwks, is_changing, key })
    }
}

/// What kind of session a sign-in opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Lives in the browser's cookie, as long as it is used.
    Cookie,
    /// A short token and a refresh token.
    Bearer,
}

fn wrong_credentials() -> Refusal {
    Refusal::unauthenticated("e-mail or password is wrong")
}

fn refresh_hash(token: &str) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(token))
}

impl Operations {
    pub fn new(ctx: &Context, db: Db) -> anyhow::Result<Self> {
        Ok(Self {
            signing: Arc::new(RwLock::new(Arc::new(Signing::read(&ctx.settings)?))),
            ctx: ctx.clone(),
            sessions: Arc::new(Copies::new(db.clone(), SESSIONS_KEPT_MAX)),
            keys_kept: Arc::new(Copies::new(db.clone(), SESSIONS_KEPT_MAX)),
            db,
            wake: Wake::default(),
            audit_wake: Wake::default(),
            pool: Pool::start()?,
            throttle: Arc::default(),
        })
    }

    /// The keys that verify access tokens.
    pub fn signing(&self) -> Arc<Signing> {
        Arc::clone(&self.signing.read())
    }

    /// Looks whether there are other keys.
    pub fn look_at_keys(&self) -> anyhow::Result<()> {
        let read = Signing::read(&self.ctx.settings)?;
        // The two are changing places: the former is about to be put beside.
        if read.is_changing {
            return Ok(());
        }
        if read.jwks != self.signing.read().jwks {
            tracing::info!("other keys sign and verify access tokens");
            *self.signing.write() = Arc::new(read);
        }
        Ok(())
    }

    /// The public keys as a JWKS document.
    pub fn jwks(&self) -> String {
        self.signing.read().jwks.clone()
    }

    /// Registers a user; its role and its profile exist when this answers `Ok`.
    pub async fn register(&self, new: NewUser, client: &Client) -> Result<UserId, Failure> {
        self.check_strength("password", &new.password, &new.email)?;
        let id = UserId::new(Uuid::now_v7());
        self.insert(id, new, Source::of(client.ip)).await?;
        let user = self.db.read(move |tx| Ok(store::user_by_id(tx, id)?)).await?;
        let user = user.ok_or_else(|| Error::internal("a user that was just stored is missing"))?;
        self.finish_registration(&user, &[MEMBER]).await?;
        Ok(id)
    }

    /// In production nobody may have a password that is guessed first.
    fn check_strength(&self, field: &str, password: &Password, email: &Email) -> Result<(), Refusal> {
        match self.ctx.settings.mode {
            Mode::Production => password.check_strength(field, email),
            Mode::Development => Ok(()),
        }
    }

    async fn insert(&self, id: UserId, new: NewUser, source: Source) -> Result<(), Failure> {
        let whom = For { purpose: Purpose::Register, source, account: new.email.clone() };
        let hash = self.pool.hash(whom, new.password.clone()).await?;
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::Register, Caller::User(id), id, now_us);
        let stored = self
            .db
            .write(move |tx| {
                store::insert_user(tx, id, &new, &hash, now_us)?;
                audit::put(tx, &entry)?;
                Ok(events::registered(tx, id, &new, now_us)?)
            })
            .await;
        match self.written(stored) {
            Err(Error::Db(e)) if store::is_email_taken(&e) => {
                Err(Refusal::exists(Reason::EMAIL_TAKEN, "a user with this email exists already").into())
            }
            result => Ok(result?),
        }
    }

    /// Creates a user with a given id and roles, and whatever of them is missing. Answers the id that the address has
    /// and whether it is new.
    pub async fn seed(&self, id: UserId, new: NewUser, roles: &[String]) -> Result<(UserId, bool)> {
        let email = new.email.clone();
        let find = move |tx: &mut dyn fafnir_platform::db::Tx| {
            let by_id = store::user_by_id(tx, id)?;
            Ok(if by_id.is_some() { by_id } else { store::user_by_email(tx, &email)? })
        };
        let mut known = self.db.read(find.clone()).await?;
        let created = known.is_none();
        if created {
            self.insert(id, new, Source::of(IpAddr::from([0, 0, 0, 0]))).await?;
            known = self.db.read(find).await?;
        }
        let user = known.ok_or_else(|| Error::internal("a user that was just stored is missing"))?;
        if matches!(user.state, UserState::Pending | UserState::Active) {
            let roles: Vec<&str> = roles.iter().map(String::as_str).collect();
            self.finish_registration(&user, &roles).await?;
        }
        Ok((user.id, created))
    }

    /// Gives a PENDING user its roles and its profile (both idempotent), then makes it ACTIVE.
    async fn finish_registration(&self, user: &User, roles: &[&str]) -> Result<()> {
        let system = self.ctx.system();
        let security = self.ctx.clients.security(&system);
        let users = self.ctx.clients.user(&system);
        for role in roles {
            let request = v1::GrantRequest { user_id: user.id.to_string(), role: (*role).to_owned() };
            retry(FINISH_DEADLINE, || {
                let mut security = security.clone();
                let request = request.clone();
                async move { Ok(security.grant(request).await.map(drop)?) }
            })
            .await?;
        }
        let profile = v1::Profile {
            user_id: user.id.to_string(),
            first_name: user.first_name.clone(),
            last_name: user.last_name.clone(),
            email: user.email.clone(),
            created_us: user.created_us,
            updated_us: user.created_us,
        };
        retry(FINISH_DEADLINE, || {
            let mut users = users.clone();
            let profile = profile.clone();
            async move { Ok(users.create_profile(profile).await.map(drop)?) }
        })
        .await?;
        let (id, now_us) = (user.id, self.ctx.clock.now_us());
        self.db
            .write(move |tx| Ok(store::move_user(tx, id, UserState::Pending, UserState::Active, now_us)?))
            .await?;
        Ok(())
    }

    /// Whether a user has signed in from there before: a session of it that is still kept says so.
    async fn is_known(&self, email: &Email, user: Option<&User>, source: Source) -> Result<bool> {
        let Some(id) = user.map(|user| user.id) else { return Ok(false) };
        // Looked up where it matters alone.
        if !self.throttle.lock().is_guarded(email) {
            return Ok(false);
        }
        let addresses = self.db.read(move |tx| Ok(store::addresses_of(tx, id, ADDRESSES_LOOKED_AT)?)).await?;
        Ok(addresses.iter().filter_map(|a| a.parse().ok()).any(|ip| Source::of(ip) == source))
    }

    fn check_throttle(&self, email: &Email, source: Source, is_known: bool) -> Result<(), Failure> {
        let now_us = self.ctx.clock.now_us();
        self.throttle.lock().check(email, source, is_known, now_us).map_err(|retry_after_s| {
            metrics::counter!("fafnir_sign_ins_total", "result" => "throttled").increment(1);
            Failure::Throttled { retry_after_s }
        })
    }

    /// Compares a password under the throttle. The same answer, in the same time, for an unknown user.
    async fn check_password(
        &self,
        email: &Email,
        password: &str,
        user: Option<User>,
        client: &Client,
        action: Action,
    ) -> Result<User, Failure> {
        let known = user.as_ref().map(|u| u.id);
        let source = Source::of(client.ip);
        let is_known = self.is_known(email, user.as_ref(), source).await?;
        self.check_throttle(email, source, is_known)?;
        let whom = For { purpose: Purpose::SignIn, source, account: email.clone() };
        let stored = user.as_ref().map(|u| u.password_hash.clone());
        // A password that cannot be anybody's costs as much as a wrong one.
        let (given, possible) = match Password::given(password) {
            Some(given) => (given, true),
            None => (Password::given("").ok_or_else(wrong_credentials)?, false),
        };
        let verdict = self.pool.verify(whom.clone(), given.clone(), stored).await?;
        // Tries that were under way when the limit was reached learn nothing either.
        self.check_throttle(email, source, is_known)?;
        let alive = |u: &User| matches!(u.state, UserState::Pending | UserState::Active);
        let Some(mut user) = user.filter(|u| alive(u) && verdict.matches && possible) else {
            let now_us = self.ctx.clock.now_us();
            let waits = self.throttle.lock().failed(email, source, now_us);
            metrics::counter!("fafnir_sign_ins_total", "result" => "failed").increment(1);
            // An address that nobody has is not written down: it may be anybody's, and the log is for ever.
            let subject = known.map_or_else(String::new, |id| id.to_string());
            let refused = |action, outcome: Reason| {
                audit::entry(action, Actor::Nobody, &subject, now_us)
                    .with_outcome(outcome.as_str())
                    .at_address(client.ip)
            };
            self.note(refused(action, Reason::UNAUTHENTICATED)).await;
            if waits {
                self.note(refused(Action::Throttle, Reason::TOO_MANY_FAILED_SIGN_INS)).await;
            }
            return Err(wrong_credentials().into());
        };
        self.throttle.lock().succeeded(email, source);
        if verdict.outdated {
            let (id, old, now_us) = (user.id, user.password_hash.clone(), self.ctx.clock.now_us());
            let new = self.pool.hash(whom, given).await?;
            user.password_hash.clone_from(&new);
            self.db.write(move |tx| Ok(store::replace_password(tx, id, &old, &new, now_us)?)).await?;
        }
        Ok(user)
    }

    /// Opens a session for the right password.
    pub async fn sign_in(
        &self,
        email: &str,
        password: &str,
        kind: Kind,
        client: &Client,
    ) -> Result<SignedIn, Failure> {
        let email = Email::fold(email);
        let wanted = email.clone();
        let user = self.db.read(move |tx| Ok(store::user_by_email(tx, &wanted)?)).await?;
        let user = self.check_password(&email, password, user, client, Action::SignIn).await?;
        if user.state == UserState::Pending {
            self.finish_registration(&user, &[MEMBER]).await?;
        }
        let now_us = self.ctx.clock.now_us();
        let settings = &self.ctx.settings.auth;
        let life_us = match kind {
            Kind::Cookie => self.cookie_life_us(),
            Kind::Bearer => SESSION_MAX_US,
        };
        let session = store::Session {
            id: SessionId::new(Uuid::now_v7()),
            user_id: user.id,
            created_us: now_us,
            expires_us: now_us.saturating_add(life_us),
            client_ip: client.ip.to_canonical().to_string(),
            user_agent: client
                .user_agent
                .chars()
                .filter(|c| !c.is_control())
                .take(USER_AGENT_LEN_MAX)
                .collect(),
        };
        let session_id = session.id;
        let refresh_token = match kind {
            Kind::Cookie => String::new(),
            Kind::Bearer => Self::new_refresh_token()?,
        };
        let hash = refresh_hash(&refresh_token);
        let with_refresh = kind == Kind::Bearer;
        let entry = audit::entry(Action::SignIn, Caller::User(user.id), user.id, now_us)
            .at_address(client.ip)
            .with_detail(session_id);
        let open = self
            .db
            .write(move |tx| {
                // The user may have gone, or have a new password, since the old one was compared.
                let now = store::user_by_id(tx, user.id)?;
                if now.is_none_or(|u| u.state != UserState::Active || u.password_hash != user.password_hash) {
                    return Ok(false);
                }
                store::insert_session(tx, &session)?;
                if with_refresh {
                    store::insert_refresh(tx, &hash, session.id, now_us, now_us + REFRESH_IDLE_US)?;
                }
                audit::put(tx, &entry)?;
                Ok(true)
            })
            .await;
        let open = self.written(open)?;
        if !open {
            return Err(wrong_credentials().into());
        }
        metrics::counter!("fafnir_sign_ins_total", "result" => "ok").increment(1);
        let expires_in_s = match kind {
            Kind::Cookie => settings.cookie_ttl_s,
            Kind::Bearer => settings.bearer_ttl_s,
        };
        Ok(SignedIn {
            user_id: user.id,
            email: user.email,
            session_id,
            access_token: self.sign(user.id, session_id, now_us, expires_in_s)?,
            expires_in_s,
            refresh_token,
        })
    }

    fn sign(&self, user: UserId, session: SessionId, now_us: i64, ttl_s: u32) -> Result<String> {
        self.signing
            .read()
            .key
            .sign(user, session, now_us, ttl_s)
            .map_err(|e| Error::internal(format!("signing a token failed: {e}")))
    }

    fn new_refresh_token() -> Result<String> {
        random_text(REFRESH_BYTES).map_err(|e| Error::internal(e.to_string()))
    }

    /// Exchanges a refresh token for a new pair. A token that was used before revokes its whole family: either the
    /// caller or a thief holds the newer one, and nobody can tell who.
    pub async fn refresh(&self, refresh_token: &str) -> Result<SignedIn> {
        let refused = || Error::from(Refusal::unauthenticated("the refresh token is not valid any more"));
        let now_us = self.ctx.clock.now_us();
        let (old, next) = (refresh_hash(refresh_token), Self::new_refresh_token()?);
        let next_hash = refresh_hash(&next);
        let reuse = audit::entry(Action::RefreshReuse, Actor::Nobody, "", now_us);
        let rotated = self
            .db
            .write(move |tx| {
                let Some(known) = store::refresh_by_hash(tx, &old, now_us)? else {
                    return Ok(None);
                };
                let is_again = known.used_us.is_some_and(|at| now_us - at <= REFRESH_GRACE_US);
                let is_reused = known.used_us.is_some() && !is_again;
                if is_reused || (known.alive && !is_again && !store::use_refresh(tx, &old, now_us)?) {
                    if store::revoke_session(tx, known.session_id, now_us)? {
                        tracing::warn!(user = %known.user_id, session = %known.session_id, "refresh token reused");
                        let entry = v1::AuditEntry { subject: known.user_id.to_string(), ..reuse.clone() };
                        audit::put(tx, &entry.with_detail(known.session_id))?;
                    }
                    return Ok(None);
                }
                if !known.alive {
                    return Ok(None);
                }
                store::insert_refresh(tx, &next_hash, known.session_id, now_us, now_us + REFRESH_IDLE_US)?;
                Ok(Some(known))
            })
            .await;
        let rotated = self.written(rotated)?.ok_or_else(refused)?;
        let expires_in_s = self.ctx.settings.auth.bearer_ttl_s;
        Ok(SignedIn {
            user_id: rotated.user_id,
            email: rotated.email,
            session_id: rotated.session_id,
            access_token: self.sign(rotated.user_id, rotated.session_id, now_us, expires_in_s)?,
            expires_in_s,
            refresh_token: next,
        })
    }

    /// A browser's session goes on, with a new token: as long as it is used, at most [`SESSION_MAX_US`] in all.
    pub async fn renew(&self, id: SessionId) -> Result<SignedIn> {
        let now_us = self.ctx.clock.now_us();
        let expires_in_s = self.ctx.settings.auth.cookie_ttl_s;
        let expires_us = now_us.saturating_add(self.cookie_life_us());
        let extend = move |tx: &mut dyn fafnir_platform::db::Tx| {
            Ok(store::extend_session(tx, id, now_us, expires_us, SESSION_MAX_US)?)
        };
        let (user_id, email) = self
            .db
            .write(extend)
            .await?
            .ok_or_else(|| Refusal::unauthenticated("your session has ended; sign in again"))?;
        Ok(SignedIn {
            user_id,
            email,
            session_id: id,
            access_token: self.sign(user_id, id, now_us, expires_in_s)?,
            expires_in_s,
            refresh_token: String::new(),
        })
    }

    /// How long a browser's session lives without being renewed.
    fn cookie_life_us(&self) -> i64 {
        (i64::from(self.ctx.settings.auth.cookie_ttl_s) + token::LEEWAY_S) * SECOND_US
    }

    /// User and end of a session that is alive; a key's is as long as it opens, and may have no end (`i64::MAX`).
    pub async fn session(&self, id: SessionId) -> Result<Option<(UserId, i64)>> {
        let now_us = self.ctx.clock.now_us();
        let alive = self.sessions.read(id, move |tx| {
            if let Some(session) = store::live_session(tx, id, now_us)? {
                return Ok(Some(session));
            }
            let key = store::keys::live_session(tx, id, now_us)?;
            Ok(key.map(|(user, expires_us)| (user, if expires_us == 0 { i64::MAX } else { expires_us })))
        });
        Ok(alive.await?.filter(|(_, expires_us)| *expires_us > now_us))
    }

    pub async fn sign_out(&self, session: SessionId) -> Result<()> {
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::SignOut, Actor::Nobody, "", now_us).with_detail(session);
        let end = move |tx: &mut dyn fafnir_platform::db::Tx| {
            let Some((user, _)) = store::live_session(tx, session, now_us)? else {
                return Ok(store::revoke_session(tx, session, now_us)?);
            };
            let (actor, subject) = (Caller::User(user).to_string(), user.to_string());
            audit::put(tx, &v1::AuditEntry { actor, subject, ..entry.clone() })?;
            Ok(store::revoke_session(tx, session, now_us)?)
        };
        self.written(self.db.write(end).await).map(drop)
    }

    pub async fn user(&self, id: UserId) -> Result<Option<User>> {
        self.db.read(move |tx| Ok(store::user_by_id(tx, id)?)).await
    }

    /// Changes a password; every other session of the user ends.
    pub async fn change_password(
        &self,
        user: UserId,
        session: SessionId,
        current: &str,
        new: Password,
        client: &Client,
    ) -> Result<(), Failure> {
        let user = self.user(user).await?.ok_or_else(wrong_credentials)?;
        let email = Email::fold(&user.email);
        self.check_strength("new", &new, &email)?;
        let user = self.check_password(&email, current, Some(user), client, Action::Password).await?;
        let whom = For { purpose: Purpose::SignIn, source: Source::of(client.ip), account: email };
        let hash = self.pool.hash(whom, new).await?;
        let now_us = self.ctx.clock.now_us();
        let entry =
            audit::entry(Action::Password, Caller::User(user.id), user.id, now_us).at_address(client.ip);
        let changed = self
            .db
            .write(move |tx| {
                let changed = store::replace_password(tx, user.id, &user.password_hash, &hash, now_us)?;
                if changed {
                    store::revoke_sessions(tx, user.id, Some(session), now_us)?;
                    audit::put(tx, &entry)?;
                }
                Ok(changed)
            })
            .await;
        if self.written(changed)? { Ok(()) } else { Err(wrong_credentials().into()) }
    }

    /// Closes a user: signed out for good at once and for ever; orders and accounts follow, at the latest after a
    /// restart. `false` when there is no such user.
    pub async fn delete(&self, user: UserId) -> Result<bool> {
        // The last administrator stays: somebody must be able to grant.
        self.suspend(user).await?;
        let now_us = self.ctx.clock.now_us();
        let entry = audit::entry(Action::Delete, Caller::User(user), user, now_us);
        let closing = self
            .db
            .write(move |tx| {
                let closing = store::move_user(tx, user, UserState::Active, UserState::Closing, now_us)?;
                store::revoke_sessions(tx, user, None, now_us)?;
                if closing {
                    audit::put(tx, &entry)?;
                }
                Ok(closing)
            })
            .await;
        let closing = self.written(closing)?;
        if closing && let Err(e) = self.finish_deletion(user).await {
            tracing::warn!(%user, error = %e, "a user's accounts are not closed yet");
        }
        Ok(closing)
    }

    /// Closes a CLOSING user at the exchange, orders and accounts in one step (exchange-rules §5), then says that it is
    /// gone.
    async fn finish_deletion(&self, user: UserId) -> Result<()> {
        let portfolio = self.ctx.clients.portfolio(&self.ctx.system());
        retry(FINISH_DEADLINE, || {
            let mut portfolio = portfolio.clone();
            let request = v1::UserRequest { user_id: user.to_string() };
            async move { Ok(portfolio.close_user(request).await.map(drop)?) }
        })
        .await?;
        let now_us = self.ctx.clock.now_us();
        self.db
            .write(move |tx| {
                if store::erase_user(tx, user, now_us)? {
                    events::deleted(tx, user, now_us)?;
                }
                Ok(())
            })
            .await?;
        self.wake.notify();
        Ok(())
    }

    /// Finishes registrations and deletions that were interrupted, those untouched since `before_us`. Answers how many
    /// are left.
    pub async fn finish_interrupted(&self, before_us: i64) -> Result<u64> {
        let users = self.db.read(move |tx| Ok(store::unfinished_users(tx, before_us, FINISH_BATCH)?)).await?;
        let mut left = 0;
        for user in users {
            let finished = match user.state {
                UserState::Pending => self.finish_registration(&user, &[MEMBER]).await,
                _ => self.finish_deletion(user.id).await,
            };
            if let Err(e) = finished {
                tracing::warn!(user = %user.id, state = ?user.state, error = %e, "a user is not finished yet");
                left += 1;
            }
        }
        Ok(left)
    }

    /// The CSRF token of a session.
    pub fn csrf_token(&self, session: SessionId) -> String {
        csrf::token_of(&self.ctx.secrets.csrf_key.current(), session)
    }
}

/// Interrupted users that one round takes up.
const FINISH_BATCH: u32 = 100;
