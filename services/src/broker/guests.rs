//! Who watches market data: sessions that the gateway has let in, each with a credential of its own.

use super::service;
use async_nats::{ConnectOptions, Message};
use fafnir_broker::{GuestList, Guests, Limits, User};
use fafnir_platform::{
    bus::own_login,
    secrets::{Rotating, Secret, Secrets, market_login, services_user},
    tasks::Tasks,
};
use fafnir_proto::{id::SessionId, subject};
use futures::StreamExt as _;
use std::{collections::HashMap, net::SocketAddr, time::Duration};
use tokio::time::Instant;

/// What a session may take up.
const LIMITS: Limits =
    Limits { connections: 4, subscriptions: subject::GUEST_SUBSCRIPTIONS_MAX, pending: 4 << 20 };
/// Time between two tries to reach the broker, which is about to serve.
const RETRY: Duration = Duration::from_millis(50);
/// Time between two looks for sessions that nobody speaks for any more.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Has the broker at this address, which is about to serve, let in whom the gateway names.
pub fn spawn(address: SocketAddr, secrets: &Secrets, tasks: &Tasks) -> GuestList {
    let (guests, list) = Guests::new();
    let options =
        own_login(secrets).name("guests").retry_on_initial_connect().reconnect_delay_callback(|_| RETRY);
    let book = Book {
        key: secrets.nats_sessions.clone(),
        keys: secrets.nats_sessions.accepted(),
        services: secrets.nats_services.clone(),
        passwords: secrets.nats_services.accepted(),
        guests,
        leases: HashMap::new(),
    };
    tasks.spawn_until_shutdown("market-data guests", serve(address, options, book));
    list
}

async fn serve(
    address: SocketAddr,
    options: ConnectOptions,
    mut book: Book,
) -> Result<(), async_nats::Error> {
    let client = options.connect(address.to_string()).await?;
    let mut asked = client.subscribe(subject::GUESTS).await?;
    let mut looks = tokio::time::interval(LOOK_EVERY);
    loop {
        tokio::select! {
            message = asked.next() => match message {
                Some(message) => {
                    let reply = message.reply.clone();
                    book.take(&message, Instant::now()).await?;
                    if let Some(reply) = reply {
                        client.publish(reply, "ok".into()).await?;
                    }
                }
                None => return Ok(()),
            },
            _ = looks.tick() => {
                book.look_at_secrets().await?;
                book.end_leases(Instant::now()).await;
            }
        }
    }
}

/// Who is let in, and until when.
struct Book {
    key: Rotating,
    /// Those of which guests have their passwords.
    keys: Vec<Secret>,
    services: Rotating,
    /// Those with which services are let in.
    passwords: Vec<Secret>,
    guests: Guests,
    leases: HashMap<SessionId, Instant>,
}

impl Book {
    async fn take(&mut self, message: &Message, now: Instant) -> Result<(), fafnir_broker::Error> {
        let text = String::from_utf8_lossy(&message.payload);
        let mut words = text.split_whitespace();
        let what = words.next().unwrap_or_default();
        for session in words.filter_map(|word| SessionId::parse(word).ok()) {
            match what {
                subject::GUESTS_ADMIT => {
                    if self.leases.insert(session, now + subject::GUESTS_LEASE).is_none() {
                        self.admit(session).await?;
                    }
                }
                subject::GUESTS_DISMISS => {
                    self.leases.remove(&session);
                    self.dismiss(session).await;
                }
                _ => tracing::warn!(what, "the broker was asked for something else"),
            }
        }
        Ok(())
    }

    async fn end_leases(&mut self, now: Instant) {
        let over: Vec<_> = self.leases.extract_if(|_, until| *until <= now).collect();
        for (session, _) in over {
            self.dismiss(session).await;
        }
    }

    async fn admit(&self, session: SessionId) -> Result<(), fafnir_broker::Error> {
        for key in &self.keys {
            self.guests.admit(user(key, session)).await?;
        }
        Ok(())
    }

    async fn dismiss(&self, session: SessionId) {
        for key in &self.keys {
            self.guests.dismiss(market_login(key, session).0).await;
        }
    }

    /// Lets in who has a password that takes the place of another; one that is no longer accepted is dismissed.
    async fn look_at_secrets(&mut self) -> Result<(), fafnir_broker::Error> {
        self.services.look();
        self.key.look();
        let passwords = self.services.accepted();
        for new in passwords.iter().filter(|new| !self.passwords.contains(new)) {
            self.guests.admit(service(new)).await?;
        }
        for old in self.passwords.iter().filter(|old| !passwords.contains(old)) {
            self.guests.dismiss(services_user(old)).await;
        }
        self.passwords = passwords;
        let keys = self.key.accepted();
        if keys != self.keys {
            let sessions: Vec<SessionId> = self.leases.keys().copied().collect();
            let gone: Vec<Secret> = self.keys.iter().filter(|key| !keys.contains(key)).cloned().collect();
            self.keys = keys;
            for session in sessions {
                for key in &gone {
                    self.guests.dismiss(market_login(key, session).0).await;
                }
                self.admit(session).await?;
            }
        }
        Ok(())
    }
}

fn login(key: &Secret, session: SessionId) -> User {
    let (name, password) = market_login(key, session);
    User::new(name, password.expose())
}

/// A session as the broker knows it: it may subscribe market data, and publish nothing.
fn user(key: &Secret, session: SessionId) -> User {
    User { subscribe: vec![subject::MARKET.to_owned()], limits: Some(LIMITS), ..login(key, session) }
}
