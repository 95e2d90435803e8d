//! Who watches market data: sessions that the gateway has let in, each with a credential of its own.

use fafnir_broker::{Guests, Limits, User};
use fafnir_platform::secrets::{Secret, market_password};
use fafnir_proto::{id::SessionId, subject};
use futures::StreamExt as _;
use std::time::Duration;

/// What a session may take up.
const LIMITS: Limits = Limits { connections: 4, subscriptions: 64, pending: 4 << 20 };
/// Time between two tries to reach the broker that is about to serve.
const RETRY: Duration = Duration::from_millis(50);

/// A session as the broker knows it: it may subscribe market data, and publish nothing.
fn user(key: &Secret, session: SessionId) -> User {
    User {
        subscribe: vec![subject::MARKET.to_owned()],
        limits: Some(LIMITS),
        ..User::new(&session.to_string(), market_password(key, session).expose())
    }
}

/// Does what the gateway asks for until the connection is gone for good.
pub async fn serve(
    address: String,
    (name, password): (String, String),
    key: Secret,
    guests: Guests,
) -> Result<(), async_nats::Error> {
    let client = loop {
        let options = async_nats::ConnectOptions::new().name("guests").user_and_password(name.clone(), password.clone());
        match options.connect(&address).await {
            Ok(client) => break client,
            Err(e) => {
                tracing::debug!(error = %e, "the broker does not serve yet");
                tokio::time::sleep(RETRY).await;
            }
        }
    };
    let mut asked = client.subscribe(subject::GUESTS).await?;
    while let Some(message) = asked.next().await {
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let session = text.split_once(' ').and_then(|(what, id)| Some((what, SessionId::parse(id).ok()?)));
        match session {
            Some(("admit", session)) => guests.admit(user(&key, session)).await?,
            Some(("dismiss", session)) => guests.dismiss(session.to_string()).await,
            _ => tracing::warn!("the broker was asked for something else"),
        }
        if let Some(reply) = message.reply {
            client.publish(reply, "ok".into()).await?;
        }
    }
    Ok(())
}
