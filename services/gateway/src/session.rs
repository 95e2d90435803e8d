//! Who is signed in and what they may do: tokens against the JWKS, sessions and permissions believed for a moment.

use super::{
    Gateway,
    graphql::id_of,
    key::{self, Key},
};
use axum::http::HeaderMap;
use fafnir_platform::{
    Context, Refusal, csrf,
    token::{self, Keys, Presented},
    verifier::Verifier,
};
use fafnir_proto::{
    client::Caller,
    id::{SessionId, UserId},
    reason::Reason,
    v1,
};
use parking_lot::RwLock;
use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
    time::Instant,
};
use tonic::Status;

/// How long an answer about a session or a permission is believed; a revocation takes effect within 1 s.
const BELIEVED: Duration = Duration::from_millis(400);
/// Time between two looks at what a stream depends on; with [`BELIEVED`] it ends within 1 s.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A stream goes on for so long while nobody can say whether it may.
const UNCHECKED_MAX: Duration = Duration::from_secs(5);
/// How long the same new token is handed to a browser that asks many things at once.
const RENEWED: Duration = Duration::from_secs(30);
/// Sessions and users that are cached.
const CACHED_MAX: u64 = 50_000;
/// The JWKS is fetched at most this often because of an unknown key.
const KEYS_INTERVAL: Duration = Duration::from_secs(5);

/// What a user may be allowed to do; names as security-service has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Permission {
    ViewStocks,
    OrderStocks,
    ManageOwnPortfolio,
    ManageOwnWatchlist,
    ManageOwnAccounts,
    ManageOwnProfile,
    ViewUsers,
    ViewAdminDashboard,
    ManageRoles,
    ViewAuditLogs,
    DeactivateUsers,
    ReactivateUsers,
    ManageMarket,
}

impl Permission {
    pub fn name(self) -> &'static str {
        match self {
            Self::ViewStocks => "view_stocks",
            Self::OrderStocks => "order_stocks",
            Self::ManageOwnPortfolio => "manage_own_portfolio",
            Self::ManageOwnWatchlist => "manage_own_watchlist",
            Self::ManageOwnAccounts => "manage_own_accounts",
            Self::ManageOwnProfile => "manage_own_profile",
            Self::ViewUsers => "view_users",
            Self::ViewAdminDashboard => "view_admin_dashboard",
            Self::ManageRoles => "manage_roles",
            Self::ViewAuditLogs => "view_audit_logs",
            Self::DeactivateUsers => "deactivate_users",
            Self::ReactivateUsers => "reactivate_users",
            Self::ManageMarket => "manage_market",
        }
    }
}

/// What a caller does with what it asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    /// Changes nothing.
    Read,
    /// Places and cancels orders, changes the watchlist.
    Trade,
    /// Whatever else changes something, and what concerns the user itself or others: no key does it.
    Manage,
}

/// A signed-in caller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    pub user: UserId,
    pub id: SessionId,
    /// When its token ends, microseconds since 1970 UTC; `i64::MAX`: never.
    pub expires_us: i64,
    /// The token came in a cookie: unsafe requests need the CSRF token.
    pub by_cookie: bool,
    /// An API key, in place of a sign-in.
    pub key: Option<Arc<Key>>,
}

impl Session {
    /// How the services see this user.
    pub fn caller(&self) -> Caller {
        Caller::User(self.user)
    }

    /// Refuses what this caller's key is not for; a sign-in is for everything.
    pub fn check_act(&self, act: Act) -> Result<(), Refusal> {
        let Some(key) = &self.key else { return Ok(()) };
        match act {
            Act::Read => Ok(()),
            Act::Trade if key.trades => Ok(()),
            Act::Trade => Err(Refusal::denied("this needs a key with the scope trade")),
            Act::Manage => Err(Refusal::denied("no API key may do this; sign in")),
        }
    }

    /// Whether the caller's key leaves it a permission whole.
    pub fn may_use(&self, permission: &str) -> bool {
        let Some(key) = &self.key else { return true };
        let whole: &[Permission] = if key.trades {
            &[Permission::ViewStocks, Permission::OrderStocks, Permission::ManageOwnWatchlist]
        } else {
            &[Permission::ViewStocks]
        };
        whole.iter().any(|p| p.name() == permission)
    }

    /// The account that the caller is bound to.
    pub fn bound_to(&self) -> Option<&str> {
        self.key.as_ref()?.account.as_deref()
    }

    /// Whether the caller reaches an account of its user.
    pub fn reaches(&self, account_id: &str) -> bool {
        self.bound_to().is_none_or(|bound| bound == account_id)
    }

    /// The same for what a client wrote: a UUID, or nothing.
    pub fn own_account(&self, account_id: Option<&str>) -> Result<String, Status> {
        let id = account_id.map(|id| id_of("accountId", id)).transpose()?;
        Ok(self.account(id.unwrap_or_default())?)
    }

    /// The account whose orders are listed, empty: of every one; one out of reach has none, as one that does not exist.
    pub fn listed_account(&self, account_id: String) -> String {
        self.account(account_id).unwrap_or_else(|_| uuid::Uuid::nil().to_string())
    }

    /// The account that a request names; one that the caller does not reach is as unknown as another user's. Left out, it
    /// is the one that the caller is bound to.
    pub fn account(&self, account_id: String) -> Result<String, Refusal> {
        match self.bound_to() {
            Some(bound) if account_id.is_empty() => Ok(bound.to_owned()),
            Some(bound) if bound != account_id => {
                let text = format!("account_id {account_id} is not an account of this user");
                Err(Refusal::not_found(Reason::ACCOUNT_NOT_FOUND, text))
            }
            _ => Ok(account_id),
        }
    }
}

type Allowed = Arc<BTreeSet<String>>;

/// Verifies tokens and remembers for a moment what auth-service and security-service said.
pub struct Sessions {
    ctx: Context,
    verifier: RwLock<Arc<Verifier>>,
    jwks: RwLock<Arc<str>>,
    fetched: Mutex<Option<Instant>>,
    alive: moka::future::Cache<SessionId, Option<UserId>>,
    /// New tokens of browsers' sessions, by session and end of the old one: many requests at once bring one.
    renewed: moka::future::Cache<(SessionId, i64), Arc<str>>,
    allowed: moka::future::Cache<UserId, Allowed>,
    keys: moka::future::Cache<key::Asked, Option<Session>>,
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sessions")
    }
}

fn unavailable(what: &str, status: &Status) -> Status {
    tracing::warn!(code = ?status.code(), cause = status.message(), "{what} cannot be asked");
    Status::unavailable("your session cannot be checked just now; try again")
}

impl Sessions {
    pub fn new(ctx: Context) -> Self {
        let cache = || moka::future::Cache::builder().max_capacity(CACHED_MAX).time_to_live(BELIEVED);
        Self {
            ctx,
            verifier: RwLock::default(),
            jwks: RwLock::new(Arc::from("{\"keys\":[]}")),
            fetched: Mutex::default(),
            alive: cache().build(),
            renewed: moka::future::Cache::builder().max_capacity(CACHED_MAX).time_to_live(RENEWED).build(),
            allowed: moka::future::Cache::builder().max_capacity(CACHED_MAX).time_to_live(BELIEVED).build(),
            keys: moka::future::Cache::builder().max_capacity(CACHED_MAX).time_to_live(BELIEVED).build(),
        }
    }

    /// The caller that the headers of a request from this address prove: by an API key or a token.
    pub async fn of(&self, headers: &HeaderMap, from: IpAddr) -> Result<Session, Status> {
        self.given(headers, from)
            .await?
            .ok_or_else(|| Refusal::unauthenticated("you are not signed in").into())
    }

    /// The same; `None` where the headers carry neither.
    pub async fn given(&self, headers: &HeaderMap, from: IpAddr) -> Result<Option<Session>, Status> {
        if let Some(presented) = key::presented(headers)? {
            return self.of_key(presented, from).await.map(Some);
        }
        match token::presented(headers) {
            Some(presented) => self.of_token(presented).await.map(Some),
            None => Ok(None),
        }
    }

    /// The caller that both halves of an API key prove.
    pub async fn of_key(&self, presented: key::Presented, from: IpAddr) -> Result<Session, Status> {
        let asked = key::Asked::new(&presented, from);
        let ask = async {
            let request = v1::KeyRequest {
                key_id: presented.id,
                secret: presented.secret,
                client_ip: from.to_canonical().to_string(),
            };
            let reply = self.ctx.clients.auth(&self.ctx.system()).key(request).await?.into_inner();
            Ok::<_, Status>(key::session(reply))
        };
        match self.keys.try_get_with(asked, ask).await {
            Ok(Some(session)) => Ok(session),
            Ok(None) => Err(Refusal::unauthenticated("the API key is not valid here").into()),
            Err(status) => Err(unavailable("auth-service", &status)),
        }
    }

    /// The caller that a token proves.
    pub async fn of_token(&self, presented: Presented<'_>) -> Result<Session, Status> {
        let claims = self.verify(presented.token()).await?;
        let session = Session {
            user: claims.sub,
            id: claims.sid,
            expires_us: claims.exp.saturating_mul(fafnir_platform::clock::SECOND_US),
            by_cookie: matches!(presented, Presented::Cookie(_)),
            key: None,
        };
        self.check(&session).await?;
        Ok(session)
    }

    async fn verify(&self, text: &str) -> Result<Arc<token::Claims>, Status> {
        let now = self.ctx.clock.now_us();
        let verifier = || self.verifier.read().clone();
        let mut result = verifier().verify(text, now);
        if matches!(result, Err(token::Error::UnknownKey)) {
            self.refresh_keys().await?;
            result = verifier().verify(text, now);
        }
        result.map_err(|e| {
            tracing::debug!(error = %e, "token refused");
            let message = match e {
                token::Error::Expired => "your session has expired; sign in again",
                _ => "you are not signed in",
            };
            Refusal::unauthenticated(message).into()
        })
    }

    async fn refresh_keys(&self) -> Result<(), Status> {
        let fetched = self.fetched.lock().await;
        if fetched.is_some_and(|at| at.elapsed() < KEYS_INTERVAL) {
            return Ok(());
        }
        self.fetch_keys(fetched).await
    }

    /// Asks for the keys whether or not a token needs one: a new one is known before anything is signed with it.
    pub async fn look_at_keys(&self) -> Result<(), Status> {
        self.fetch_keys(self.fetched.lock().await).await
    }

    async fn fetch_keys(&self, mut fetched: MutexGuard<'_, Option<Instant>>) -> Result<(), Status> {
        let reply = self.ctx.clients.auth(&self.ctx.system()).jwks(v1::Empty {}).await;
        let json = reply.map_err(|s| unavailable("auth-service", &s))?.into_inner().json;
        // The same keys keep what they verified: an unknown `kid`, which anybody can send, empties nothing.
        if *json == **self.jwks.read() {
            *fetched = Some(Instant::now());
            return Ok(());
        }
        let keys = Keys::from_jwks(&json).map_err(|e| {
            tracing::error!(error = %e, "the JWKS of auth-service");
            Status::unavailable("your session cannot be checked just now; try again")
        })?;
        *self.verifier.write() = Arc::new(Verifier::new(keys));
        *self.jwks.write() = Arc::from(json);
        *fetched = Some(Instant::now());
        drop(fetched);
        Ok(())
    }

    /// Whether auth-service can say of a session whether it lives: of one that is nobody's.
    pub async fn reach_auth(&self) -> Result<(), Status> {
        let request = v1::SessionRequest { session_id: uuid::Uuid::nil().to_string() };
        self.ctx.clients.auth(&self.ctx.system()).session(request).await.map(drop)
    }

    /// Whether security-service can say what a user may do: one that is nobody.
    pub async fn reach_security(&self) -> Result<(), Status> {
        let request = v1::PermissionsRequest { user_id: uuid::Uuid::nil().to_string() };
        self.ctx.clients.security(&self.ctx.system()).permissions(request).await.map(drop)
    }

    /// The public keys as a JWKS document.
    pub async fn jwks(&self) -> Result<Arc<str>, Status> {
        let known = self.fetched.lock().await.is_some();
        if !known {
            self.refresh_keys().await?;
        }
        Ok(self.jwks.read().clone())
    }

    /// Whether the session still lives: token not expired, session not revoked, user not closed. Fails closed.
    pub async fn check(&self, session: &Session) -> Result<(), Status> {
        let leeway = token::LEEWAY_S * fafnir_platform::clock::SECOND_US;
        if session.expires_us.saturating_add(leeway) <= self.ctx.clock.now_us() {
            return Err(Refusal::unauthenticated("your session has expired; sign in again").into());
        }
        let ask = async {
            let request = v1::SessionRequest { session_id: session.id.to_string() };
            let reply = self.ctx.clients.auth(&self.ctx.system()).session(request).await?.into_inner();
            Ok::<_, Status>(reply.active.then(|| UserId::parse(&reply.user_id).ok()).flatten())
        };
        let owner = self.alive.try_get_with(session.id, ask).await;
        match owner {
            Ok(Some(user)) if user == session.user => Ok(()),
            Ok(_) => Err(Refusal::unauthenticated("your session has ended; sign in again").into()),
            Err(status) => Err(unavailable("auth-service", &status)),
        }
    }

    /// Whether a session lives, whatever token it has; `None`: nobody can say just now.
    pub async fn lives(&self, id: SessionId, user: UserId) -> Option<bool> {
        match self.check(&Session { user, id, expires_us: i64::MAX, by_cookie: false, key: None }).await {
            Ok(()) => Some(true),
            Err(status) => (status.code() != tonic::Code::Unavailable).then_some(false),
        }
    }

    /// A new token for a browser's session whose token is past half its life; `None` where there is nothing to do, or
    /// nobody to ask just now: the old one is still good.
    pub async fn renew(&self, session: &Session) -> Option<Arc<str>> {
        let half_us = i64::from(self.ctx.settings.auth.cookie_ttl_s) * fafnir_platform::clock::SECOND_US / 2;
        let left_us = session.expires_us.saturating_sub(self.ctx.clock.now_us());
        if !session.by_cookie || left_us > half_us {
            return None;
        }
        let ask = async {
            let request = v1::RenewRequest { session_id: session.id.to_string() };
            let tokens = self.ctx.clients.auth(&self.ctx.system()).renew(request).await?.into_inner();
            Ok::<Arc<str>, Status>(tokens.access_token.into())
        };
        let renewed = self.renewed.try_get_with((session.id, session.expires_us), ask).await;
        renewed.inspect_err(|e| tracing::debug!(cause = e.message(), "a session is not renewed")).ok()
    }

    /// Forgets what is believed about a session: it was signed out through this door.
    pub async fn forget(&self, session: SessionId) {
        self.alive.invalidate(&session).await;
    }

    /// Forgets what is believed about a user's permissions: a role was changed through this door.
    pub async fn forget_permissions(&self, user: UserId) {
        self.allowed.invalidate(&user).await;
    }

    /// Everything that a user may do.
    pub async fn permissions(&self, user: UserId) -> Result<Allowed, Status> {
        let ask = async {
            let request = v1::PermissionsRequest { user_id: user.to_string() };
            let reply = self.ctx.clients.security(&self.ctx.system()).permissions(request).await?;
            Ok::<_, Status>(Arc::new(reply.into_inner().permissions.into_iter().collect()))
        };
        self.allowed.try_get_with(user, ask).await.map_err(|status| {
            tracing::warn!(code = ?status.code(), cause = status.message(), "security-service cannot be asked");
            Status::unavailable("your permissions cannot be checked just now; try again")
        })
    }

    /// Refuses a caller who lacks a permission, or whose key is not for this.
    pub async fn require(&self, session: &Session, act: Act, permission: Permission) -> Result<(), Status> {
        session.check_act(act)?;
        if self.permissions(session.user).await?.contains(permission.name()) {
            return Ok(());
        }
        Err(Refusal::denied(format!("you need the permission {}", permission.name())).into())
    }

    /// Refuses an unsafe request of a cookie session without the CSRF token, or from a foreign page.
    pub fn check_csrf(&self, session: &Session, headers: &HeaderMap) -> Result<(), Status> {
        if !session.by_cookie {
            return Ok(());
        }
        let ours = csrf::origin_is_ours(headers, &self.ctx.settings.gateway.cors_origins);
        if ours && csrf::is_valid(&self.ctx.secrets.csrf_key, headers, session.id) {
            return Ok(());
        }
        Err(Refusal::unauthenticated(
            "X-CSRF-Token must equal the csrf_token cookie and belong to your session",
        )
        .into())
    }
}

/// What a stream depends on for as long as it lasts: token, session, permissions.
#[derive(Debug)]
pub struct Watch {
    gateway: Arc<Gateway>,
    session: Session,
    needs: Vec<Permission>,
    looks: Looks,
    /// When it was last known to be allowed.
    allowed_at: Instant,
}

/// Looks again and again. A look that has begun goes on, in a task of its own, where its caller was dropped: on a stream that
/// always has something to do it would otherwise never come to its end, and who asks for the same session meanwhile (the
/// caller itself, at a subscribe) waits for the one who asked first.
struct Looks {
    timer: tokio::time::Interval,
    under_way: Option<JoinHandle<Result<(), Status>>>,
}

impl fmt::Debug for Looks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Looks")
    }
}

impl Looks {
    fn every(period: Duration) -> Self {
        let mut timer = tokio::time::interval(period);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        Self { timer, under_way: None }
    }

    /// What the next look saw. May be dropped and called again.
    async fn next<F>(&mut self, look: impl FnOnce() -> F) -> Result<(), Status>
    where
        F: Future<Output = Result<(), Status>> + Send + 'static,
    {
        let under_way = match &mut self.under_way {
            Some(under_way) => under_way,
            none => {
                self.timer.tick().await;
                none.insert(tokio::spawn(look()))
            }
        };
        let seen = under_way.await;
        self.under_way = None;
        seen.unwrap_or_else(|e| Err(Status::unavailable(format!("the session was not looked at: {e}"))))
    }
}

impl Watch {
    pub fn new(gateway: &Arc<Gateway>, session: &Session, needs: Vec<Permission>) -> Self {
        let looks = Looks::every(LOOK_EVERY);
        Self { gateway: gateway.clone(), session: session.clone(), needs, looks, allowed_at: Instant::now() }
    }

    /// Resolves with the reason when the stream must end. May be dropped and called again.
    pub async fn ended(&mut self) -> Status {
        loop {
            let (gateway, session, needs) = (&self.gateway, &self.session, &self.needs);
            let look = || look(Arc::clone(gateway), session.clone(), needs.clone());
            match self.looks.next(look).await {
                Ok(()) => self.allowed_at = Instant::now(),
                Err(status) if status.code() != tonic::Code::Unavailable => return status,
                Err(status) if self.allowed_at.elapsed() > UNCHECKED_MAX => return status,
                Err(_) => {}
            }
        }
    }
}

async fn look(gateway: Arc<Gateway>, session: Session, needs: Vec<Permission>) -> Result<(), Status> {
    gateway.sessions.check(&session).await?;
    for permission in needs {
        gateway.sessions.require(&session, Act::Read, permission).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::sync::atomic::{AtomicU32, Ordering};
    use tokio::sync::Notify;

    #[tokio::test]
    async fn a_look_comes_to_its_end_however_often_its_caller_turns_to_something_else() {
        let (begun, answer) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let mut looks = Looks::every(Duration::from_millis(1));
        let look = || {
            begun.fetch_add(1, Ordering::Relaxed);
            let answer = Arc::clone(&answer);
            async move {
                answer.notified().await;
                Err(Status::unauthenticated("ended"))
            }
        };
        let mut turns = 0;
        let busy = async {
            while begun.load(Ordering::Relaxed) == 0 || turns < 1_000 {
                tokio::select! {
                    biased;
                    seen = looks.next(look) => panic!("nothing was answered: {seen:?}"),
                    () = tokio::task::yield_now() => turns += 1,
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(10), busy).await.unwrap();
        answer.notify_one();
        let seen = tokio::time::timeout(Duration::from_secs(10), looks.next(look)).await.unwrap();
        assert_eq!(seen.unwrap_err().code(), tonic::Code::Unauthenticated);
        assert_eq!(begun.load(Ordering::Relaxed), 1, "one look");
    }

    #[tokio::test]
    async fn a_look_goes_on_while_nobody_waits_for_it() {
        let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let mut looks = Looks::every(Duration::from_millis(1));
        let look = || {
            begun.fetch_add(1, Ordering::Relaxed);
            let ended = Arc::clone(&ended);
            async move {
                tokio::task::yield_now().await;
                ended.notify_one();
                Ok(())
            }
        };
        // As a caller leaves it that turns to something else, and may itself wait for what the look holds.
        while begun.load(Ordering::Relaxed) == 0 {
            assert!(looks.next(look).now_or_never().is_none(), "it has not ended when it begins");
            tokio::task::yield_now().await;
        }
        tokio::time::timeout(Duration::from_secs(10), ended.notified()).await.unwrap();
    }
}
