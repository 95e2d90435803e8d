//! Who may watch market data at the bus: each session by a credential of its own, which ends with it.
//!
//! The embedded broker is told whom to let in and whom no longer. A nats-server of its own asks by itself
//! ([`super::callout`]); there a credential is looked at again every few minutes.

use super::{Gateway, callout, session::Session};
use fafnir_platform::{
    secrets::{Secret, constant_time_eq, market_login, market_session},
    tasks::Schedule,
    tls,
};
use fafnir_proto::{
    id::{SessionId, UserId},
    subject, v1,
};
use futures::StreamExt as _;
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Sessions that are let in at a time.
const SESSIONS_MAX: usize = 10_000;
/// Sessions of one user that are let in at a time; one more, and the one that was heard of longest ago is not.
const SESSIONS_PER_USER_MAX: usize = 32;
/// A session that is not heard of for so many lives of its token is let in no longer: whoever watches renews it.
const LIVES: u32 = 2;
/// Time between two looks at them: a credential ends within a second of its session.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Sessions that are looked at at a time.
const LOOKS_MAX: usize = 16;
/// How often the broker is told again who is let in; within [`subject::GUESTS_LEASE`].
const TELL_EVERY: Duration = Duration::from_secs(15);
/// Sessions in one message to the broker.
const TOLD_MAX: usize = 1_000;
/// Longest wait for the broker.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// Where and as whom a session watches market data.
#[derive(Debug)]
pub struct Access {
    scheme: String,
    address: String,
    pub user: String,
    pub password: Secret,
    /// Where pages connect, if they may.
    pub web_socket_url: Option<String>,
}

impl Access {
    /// Where programs connect.
    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// The same with user and password in it.
    pub fn url_with_login(&self) -> String {
        let password = percent_encoded(self.password.expose());
        format!("{}://{}:{password}@{}", self.scheme, self.user, self.address)
    }
}

/// How long a session is let in that is not heard of again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Life {
    /// [`LIVES`] lives of its token.
    Token,
    /// As long as the API key opens: it has no token to renew.
    Key,
}

impl Life {
    pub fn of(session: &Session) -> Self {
        if session.key.is_some() { Self::Key } else { Self::Token }
    }
}

/// A session that is let in.
#[derive(Debug, Clone, Copy)]
struct Guest {
    user: UserId,
    life: Life,
    /// When it was last heard of.
    heard: Instant,
    /// When the broker was last told.
    told: Option<Instant>,
}

/// The sessions that the embedded broker lets in.
#[derive(Debug, Default)]
pub struct Credentials {
    guests: Mutex<HashMap<SessionId, Guest>>,
    /// How often the bus had been connected to at the last look: after one more it may be another broker.
    connects: AtomicU64,
}

impl Credentials {
    /// Notes that a session is to be let in; whether the broker does not know it yet.
    fn admit(&self, session: SessionId, user: UserId, life: Life, now: Instant) -> bool {
        let mut guests = self.guests.lock();
        if let Some(known) = guests.get_mut(&session) {
            known.heard = now;
            return known.told.is_none();
        }
        let of_user: Vec<_> =
            guests.iter().filter(|(_, g)| g.user == user).map(|(s, g)| (g.heard, *s)).collect();
        let oldest = if of_user.len() >= SESSIONS_PER_USER_MAX {
            of_user.into_iter().min()
        } else if guests.len() >= SESSIONS_MAX {
            guests.iter().map(|(s, g)| (g.heard, *s)).min()
        } else {
            None
        };
        // The broker's lease of the one that goes runs out.
        if let Some((_, oldest)) = oldest {
            guests.remove(&oldest);
        }
        guests.insert(session, Guest { user, life, heard: now, told: None });
        true
    }

    fn known(&self) -> Vec<(SessionId, Guest)> {
        self.guests.lock().iter().map(|(session, guest)| (*session, *guest)).collect()
    }

    fn told(&self, sessions: &[SessionId], now: Instant) {
        let mut guests = self.guests.lock();
        for session in sessions {
            if let Some(guest) = guests.get_mut(session) {
                guest.told = Some(now);
            }
        }
    }

    fn remove(&self, sessions: &[SessionId]) {
        let mut guests = self.guests.lock();
        for session in sessions {
            guests.remove(session);
        }
    }
}

impl Gateway {
    /// Where and as whom a session gets public market data; `None` where nobody knows.
    pub async fn market_access(&self, session: SessionId, user: UserId, life: Life) -> Option<Access> {
        let nats = &self.ctx.settings.nats;
        let url = match self.ctx.addresses.get("nats") {
            Some(url) if nats.public_url.is_empty() => url,
            _ => &nats.public_url,
        };
        let url = url.split(',').next().unwrap_or_default().trim();
        let (scheme, address) = url.split_once("://").unwrap_or(("nats", url));
        let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
        if address.is_empty() {
            return None;
        }
        let (name, password) = if nats.by_session() {
            self.admit(session, user, life).await;
            market_login(&self.ctx.secrets.nats_sessions.current(), session)
        } else {
            ("market".to_owned(), self.ctx.secrets.nats_market.clone())
        };
        // The embedded broker speaks TLS with whoever asks for it, also on this machine.
        let is_secured = nats.public_url.is_empty() && self.broker_is_secured();
        let scheme = if is_secured { "tls" } else { scheme };
        let (scheme, address) = (scheme.to_owned(), address.to_owned());
        let web_socket_url = self.web_socket_url(&address);
        Some(Access { scheme, address, user: name, password, web_socket_url })
    }

    /// Whether the embedded broker, where it is that one, has a certificate.
    fn broker_is_secured(&self) -> bool {
        let settings = &self.ctx.settings;
        settings.nats.url.is_empty() && tls::public_files(settings, "broker").is_some()
    }

    /// Where browsers connect to the bus, if they may.
    fn web_socket_url(&self, address: &str) -> Option<String> {
        let settings = &self.ctx.settings;
        if !settings.nats.public_websocket_url.is_empty() {
            return Some(settings.nats.public_websocket_url.clone());
        }
        let is_ours = settings.nats.url.is_empty() && settings.broker.websocket;
        // A port that the system picked is in the log alone.
        if !is_ours || settings.bind.auto {
            return None;
        }
        let (host, _) = address.rsplit_once(':')?;
        let scheme = if self.broker_is_secured() { "wss" } else { "ws" };
        Some(format!("{scheme}://{host}:{}", settings.ports.broker_websocket))
    }

    /// Has the embedded broker let a session in, and keeps it in from now on.
    pub async fn admit(&self, session: SessionId, user: UserId, life: Life) {
        let nats = &self.ctx.settings.nats;
        if nats.url.is_empty() && self.credentials.admit(session, user, life, Instant::now()) {
            self.let_in(&[session]).await;
        }
    }

    async fn let_in(&self, sessions: &[SessionId]) {
        if self.tell_broker(subject::GUESTS_ADMIT, sessions).await {
            self.credentials.told(sessions, Instant::now());
        }
    }

    /// Whether the broker has done it.
    async fn tell_broker(&self, what: &str, sessions: &[SessionId]) -> bool {
        let text = sessions.iter().fold(what.to_owned(), |text, session| format!("{text} {session}"));
        let request = self.bus.client().request(subject::GUESTS, text.into());
        match tokio::time::timeout(ANSWER_MAX, request).await {
            Ok(Ok(_)) => return true,
            Ok(Err(e)) => tracing::warn!(error = %e, what, "the broker was not told who watches market data"),
            Err(_) => tracing::warn!(what, "the broker did not answer in time"),
        }
        false
    }

    /// Ends the credentials of sessions that have ended; keeps the others.
    async fn look_at_guests(&self) {
        let connects = self.bus.client().statistics().connects.load(Ordering::Relaxed);
        let is_anew = self.credentials.connects.swap(connects, Ordering::Relaxed) != connects;
        let life = Duration::from_secs(self.ctx.settings.auth.bearer_ttl_s.into()) * LIVES;
        let looks = futures::stream::iter(self.credentials.known()).map(|(session, guest)| async move {
            let is_heard_of = guest.life == Life::Key || guest.heard.elapsed() < life;
            let is_in = is_heard_of && self.sessions.lives(session, guest.user).await != Some(false);
            (session, guest, is_in)
        });
        let seen: Vec<_> = looks.buffer_unordered(LOOKS_MAX).collect().await;
        let ended: Vec<_> = seen.iter().filter(|(.., is_in)| !is_in).map(|(session, ..)| *session).collect();
        for some in ended.chunks(TOLD_MAX) {
            if self.tell_broker(subject::GUESTS_DISMISS, some).await {
                self.credentials.remove(some);
            }
        }
        let is_due = |guest: &Guest| is_anew || guest.told.is_none_or(|at| at.elapsed() >= TELL_EVERY);
        let due: Vec<_> = seen.iter().filter(|(_, g, is_in)| *is_in && is_due(g)).map(|(s, ..)| *s).collect();
        for some in due.chunks(TOLD_MAX) {
            self.let_in(some).await;
        }
    }

    /// Whether a name and a password are a living session's.
    pub async fn is_credential(&self, name: &str, password: &str) -> bool {
        let Some(session) = market_session(name) else { return false };
        let keys = self.ctx.secrets.nats_sessions.accepted();
        let is_of = |key: &Secret| {
            let (right_name, right) = market_login(key, session);
            name == right_name && constant_time_eq(password.as_bytes(), right.expose().as_bytes())
        };
        if !keys.iter().any(is_of) {
            return false;
        }
        let request = v1::SessionRequest { session_id: session.to_string() };
        let mut auth = self.ctx.clients.auth(&self.ctx.system());
        auth.session(request).await.is_ok_and(|reply| reply.into_inner().active)
    }
}

/// Looks at the credentials until shutdown, or answers nats-server's questions.
pub fn spawn(gateway: &Arc<Gateway>) -> anyhow::Result<()> {
    let nats = &gateway.ctx.settings.nats;
    if !nats.by_session() {
        return Ok(());
    }
    if !nats.url.is_empty() {
        return callout::spawn(gateway);
    }
    let this = Arc::clone(gateway);
    gateway.ctx.tasks.every("market-data credentials", Schedule::after(LOOK_EVERY), move || {
        let this = Arc::clone(&this);
        async move {
            this.look_at_guests().await;
            Ok::<(), fafnir_platform::Error>(())
        }
    });
    Ok(())
}

/// Everything but RFC 3986's unreserved characters as `%XX`.
fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_and_a_users_own_go_first() {
        let credentials = Credentials::default();
        let (user, other) = (UserId::new(uuid::Uuid::from_u128(1)), UserId::new(uuid::Uuid::from_u128(2)));
        let session = |n| SessionId::new(uuid::Uuid::from_u128(n));
        let start = Instant::now();
        assert!(credentials.admit(session(1_000), other, Life::Token, start));
        for n in 0..=SESSIONS_PER_USER_MAX as u128 {
            let now = start + Duration::from_secs(1 + n as u64);
            assert!(credentials.admit(session(n), user, Life::Token, now));
        }
        let known: HashMap<_, _> = credentials.known().into_iter().collect();
        assert_eq!(known.len(), SESSIONS_PER_USER_MAX + 1);
        assert!(known.contains_key(&session(1_000)) && !known.contains_key(&session(0)), "its own oldest");
        credentials.told(&[session(5)], start);
        assert!(!credentials.admit(session(5), user, Life::Token, start), "told already");
        assert!(credentials.admit(session(6), user, Life::Token, start), "not told yet: again");
        credentials.remove(&[session(5), session(6)]);
        assert_eq!(credentials.known().len(), SESSIONS_PER_USER_MAX - 1);
    }

    #[test]
    fn a_password_in_a_url_is_percent_encoded() {
        assert_eq!(percent_encoded("aZ0-._~"), "aZ0-._~");
        assert_eq!(percent_encoded("p@s:/é"), "p%40s%3A%2F%C3%A9");
    }
}
