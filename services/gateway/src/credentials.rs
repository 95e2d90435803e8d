//! Who may watch market data at the bus: each session by a credential of its own, which ends with it.
//!
//! The embedded broker is told whom to let in and whom no longer. A nats-server of its own asks by itself
//! ([`super::callout`]); there a credential is looked at again every few minutes.

use super::{Gateway, callout};
use fafnir_platform::tasks::Schedule;
use fafnir_proto::{
    id::{SessionId, UserId},
    subject, v1,
};
use parking_lot::Mutex;
use std::{collections::HashMap, sync::Arc, time::Duration};

/// Sessions that are let in at a time.
const SESSIONS_MAX: usize = 10_000;
/// Time between two looks at them: a credential ends within a second of its session.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Longest wait for the broker.
const ANSWER_MAX: Duration = Duration::from_secs(1);

/// The sessions that the embedded broker lets in.
#[derive(Debug, Default)]
pub struct Credentials(Mutex<HashMap<SessionId, UserId>>);

impl Gateway {
    /// Where a session gets public market data, with its credential; empty where nobody knows.
    pub async fn market_data_url(&self, session: SessionId, user: UserId) -> String {
        let nats = &self.ctx.settings.nats;
        let url = match self.ctx.addresses.get("nats") {
            Some(url) if nats.public_url.is_empty() => url,
            _ => &nats.public_url,
        };
        let address = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest);
        let address = address.rsplit_once('@').map_or(address, |(_, host)| host);
        if address.is_empty() {
            return String::new();
        }
        if !nats.by_session() {
            let password = percent_encoded(self.ctx.secrets.nats_market.expose());
            return format!("nats://market:{password}@{address}");
        }
        self.admit(session, user).await;
        format!("nats://{session}:{}@{address}", self.ctx.secrets.market_password(session).expose())
    }

    /// Has the embedded broker let a session in; again changes nothing.
    pub async fn admit(&self, session: SessionId, user: UserId) {
        let nats = &self.ctx.settings.nats;
        if !nats.url.is_empty() || !nats.by_session() {
            return;
        }
        {
            let mut sessions = self.credentials.0.lock();
            if sessions.len() >= SESSIONS_MAX && !sessions.contains_key(&session) {
                tracing::warn!("{SESSIONS_MAX} sessions watch market data; one more is not let in");
                return;
            }
            sessions.insert(session, user);
        }
        self.tell_broker("admit", session).await;
    }

    async fn tell_broker(&self, what: &str, session: SessionId) {
        let request = self.bus.client().request(subject::GUESTS, format!("{what} {session}").into());
        match tokio::time::timeout(ANSWER_MAX, request).await {
            Ok(Ok(_)) => {}
            Ok(Err(e)) => tracing::warn!(error = %e, what, "the broker was not told"),
            Err(_) => tracing::warn!(what, "the broker did not answer in time"),
        }
    }

    /// Ends the credentials of sessions that have ended.
    async fn dismiss_ended(&self) {
        let known: Vec<_> = self.credentials.0.lock().iter().map(|(s, u)| (*s, *u)).collect();
        for (session, user) in known {
            if self.sessions.lives(session, user).await == Some(false) {
                self.tell_broker("dismiss", session).await;
                self.credentials.0.lock().remove(&session);
            }
        }
    }

    /// Whether a name and a password are a living session's.
    pub async fn is_credential(&self, name: &str, password: &str) -> bool {
        let Ok(session) = SessionId::parse(name) else { return false };
        let right = self.ctx.secrets.market_password(session);
        let same = fafnir_platform::secrets::constant_time_eq(
            password.as_bytes(),
            right.expose().as_bytes(),
        );
        if !same {
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
            this.dismiss_ended().await;
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
    fn a_password_in_a_url_is_percent_encoded() {
        assert_eq!(percent_encoded("aZ0-._~"), "aZ0-._~");
        assert_eq!(percent_encoded("p@s:/é"), "p%40s%3A%2F%C3%A9");
    }
}
