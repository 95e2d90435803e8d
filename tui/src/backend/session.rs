//! A signed-in session and where it is kept between runs.

use fafnir_proto::v1;

/// Tokens are renewed when this part of their life is left, in percent.
const RENEW_PERCENT: i64 = 20;

/// How a session's token is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scheme {
    /// An access token, which is renewed.
    #[default]
    Bearer,
    /// An API key, `ID:SECRET` in base64: there is nothing to renew.
    Basic,
}

/// What signing in gives. Its `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Session {
    pub scheme: Scheme,
    pub access_token: String,
    pub refresh_token: String,
    /// When the access token ends, microseconds since 1970 UTC.
    pub expires_us: i64,
    /// How long an access token lives, in seconds.
    pub lifetime_s: u32,
    pub user_id: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub permissions: Vec<String>,
    /// `nats://user:password@host:port` of the market data.
    pub market_data_url: String,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("user_id", &self.user_id)
            .field("email", &self.email)
            .field("expires_us", &self.expires_us)
            .field("access_token", &"****")
            .field("refresh_token", &"****")
            .field("market_data_url", &"****")
            .finish_non_exhaustive()
    }
}

impl Session {
    /// From the gateway's answer at a time in microseconds since 1970 UTC.
    pub fn new(reply: v1::TerminalSession, now_us: i64) -> Self {
        Self {
            expires_us: now_us.saturating_add(i64::from(reply.expires_in_s) * 1_000_000),
            lifetime_s: reply.expires_in_s,
            scheme: Scheme::Bearer,
            access_token: reply.access_token,
            refresh_token: reply.refresh_token,
            user_id: reply.user_id,
            email: reply.email,
            first_name: reply.first_name,
            last_name: reply.last_name,
            permissions: reply.permissions,
            market_data_url: reply.market_data_url,
        }
    }

    /// Of an API key, by what the gateway says of it; `token` is what is sent.
    pub fn of_key(reply: v1::TerminalSession, token: String) -> Self {
        Self { scheme: Scheme::Basic, access_token: token, expires_us: i64::MAX, ..Self::new(reply, 0) }
    }

    /// What goes into the metadata `authorization`.
    pub fn authorization(&self) -> String {
        match self.scheme {
            Scheme::Bearer => format!("Bearer {}", self.access_token),
            Scheme::Basic => format!("Basic {}", self.access_token),
        }
    }

    /// When it should be renewed, microseconds since 1970 UTC.
    pub fn renew_us(&self) -> i64 {
        self.expires_us - i64::from(self.lifetime_s) * 1_000_000 / 100 * RENEW_PERCENT
    }

    /// What the gateway leaves empty at a renewal stays as it was.
    pub(crate) fn or_else(mut self, old: &Self) -> Self {
        for (new, old) in [
            (&mut self.refresh_token, &old.refresh_token),
            (&mut self.user_id, &old.user_id),
            (&mut self.email, &old.email),
            (&mut self.first_name, &old.first_name),
            (&mut self.last_name, &old.last_name),
            (&mut self.market_data_url, &old.market_data_url),
        ] {
            if new.is_empty() {
                new.clone_from(old);
            }
        }
        if self.permissions.is_empty() {
            self.permissions.clone_from(&old.permissions);
        }
        self
    }
}

/// Where sessions are kept. Several processes may share it: a refresh token is used once, so renewing happens under
/// its lock, after a look at what another process may have stored meanwhile.
#[expect(
    clippy::module_name_repetitions,
    reason = "the crate's root has it, where nothing else says session"
)]
pub trait SessionStore: Send + Sync + 'static {
    /// Takes the lock; may block for a moment.
    fn lock(&self) -> anyhow::Result<Box<dyn SessionLock>>;
}

/// The store while its lock is held.
#[expect(
    clippy::module_name_repetitions,
    reason = "the crate's root has it, where nothing else says session"
)]
pub trait SessionLock: Send {
    /// What is stored for this gateway.
    fn load(&mut self) -> anyhow::Result<Option<Session>>;
    /// Replaces what is stored for this gateway.
    fn store(&mut self, session: &Session) -> anyhow::Result<()>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_hides_its_secrets_and_is_renewed_in_time() {
        let reply = v1::TerminalSession {
            access_token: "secret-a".into(),
            refresh_token: "secret-r".into(),
            expires_in_s: 600,
            market_data_url: "nats://market:secret-m@localhost:4222".into(),
            ..Default::default()
        };
        let session = Session::new(reply, 1_000_000);
        assert!(!format!("{session:?}").contains("secret"));
        assert_eq!(session.renew_us(), 481_000_000);
    }
}
