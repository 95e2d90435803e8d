//! A look inside a running broker through its JetStream API: the same for the embedded one and for nats-server.

use fafnir_platform::{Settings, bus, tls};
use futures::StreamExt as _;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{pin::pin, time::Duration};

/// Longest wait for the broker's answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most pages of one list that are asked for.
const PAGES_MAX: usize = 10_000;

/// Where nats-server asks who somebody is.
const CALLOUT: &str = "$SYS.REQ.USER.AUTH";
/// Longest wait for a question.
const CALLOUT_MAX: Duration = Duration::from_secs(1);

/// Why nothing can be shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody answers there.
    #[error("no broker answers at {address}: {reason}")]
    Absent { address: String, reason: String },
    /// User or password are not the broker's.
    #[error("the broker at {address} refuses this user and password")]
    Refused { address: String },
    /// Not a URL.
    #[error("{url} is not an address of a broker: {reason}")]
    Address { url: String, reason: String },
    /// What the API says, e.g. `stream not found`.
    #[error("{0}")]
    Api(String),
}

/// A user of a broker: name and password.
pub type User = (String, String);

/// A stream as the API describes it: the parts that matter here.
#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    pub config: StreamConfig,
    pub state: StreamState,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StreamConfig {
    pub name: String,
    #[serde(default)]
    pub subjects: Vec<String>,
    pub retention: String,
    pub storage: String,
}

#[derive(Debug, Clone, Deserialize)]
pub struct StreamState {
    pub messages: u64,
    /// Bytes that the messages count for.
    pub bytes: u64,
    pub first_seq: u64,
    pub last_seq: u64,
    pub consumer_count: u64,
}

/// A consumer as the API describes it: the parts that matter here.
#[derive(Debug, Clone, Deserialize)]
pub struct Consumer {
    pub stream_name: String,
    pub name: String,
    pub config: ConsumerConfig,
    pub delivered: Position,
    pub ack_floor: Position,
    pub num_ack_pending: u64,
    pub num_redelivered: u64,
    pub num_waiting: u64,
    pub num_pending: u64,
}

#[derive(Debug, Clone, Deserialize)]
pub struct ConsumerConfig {
    pub ack_policy: String,
    #[serde(default)]
    pub filter_subject: String,
    #[serde(default)]
    pub filter_subjects: Vec<String>,
    pub deliver_subject: Option<String>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
pub struct Position {
    pub consumer_seq: u64,
    pub stream_seq: u64,
}

/// A connection to a broker.
#[derive(Debug)]
pub struct Broker {
    client: async_nats::Client,
    settings: Box<Settings>,
    address: String,
}

/// How a server finds out who somebody is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Callout {
    /// It asks the gateway.
    Asks,
    /// It knows its users and nobody else.
    None,
    /// It lets everybody in.
    Open,
}

impl Broker {
    /// Connects to one of the servers of `url`; user and password in it win over `user`.
    pub async fn connect(settings: &Settings, url: &str, user: Option<User>) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Address { url: url.to_owned(), reason };
        let servers = bus::servers(url).map_err(|e| wrong(e.to_string()))?;
        let shown = |server: &async_nats::ServerAddr| {
            let scheme = if server.tls_required() { "tls" } else { "nats" };
            format!("{scheme}://{}:{}", server.host(), server.port())
        };
        let address = servers.iter().map(shown).collect::<Vec<_>>().join(", ");
        let first = servers.first().ok_or_else(|| wrong("it names no server".to_owned()))?;
        let own = first.username().map(|name| (name, first.password().unwrap_or_default()));
        let user = own.map(|(name, password)| (name.to_owned(), password.to_owned())).or(user);
        let mut options = async_nats::ConnectOptions::new()
            .name("fafnir broker")
            .connection_timeout(PATIENCE)
            .request_timeout(Some(PATIENCE));
        if let Some((name, password)) = user {
            options = options.user_and_password(name, password);
        }
        let options = bus::secure(options, settings, url).map_err(|e| wrong(e.to_string()))?;
        match options.connect(servers).await {
            Ok(client) => Ok(Self { client, settings: Box::new(settings.clone()), address }),
            Err(e) if e.kind() == async_nats::ConnectErrorKind::AuthorizationViolation => {
                Err(Error::Refused { address })
            }
            Err(e) => {
                let reason = tls::sentence(&e).unwrap_or_else(|| e.to_string());
                Err(Error::Absent { address, reason })
            }
        }
    }

    /// The server's version.
    pub fn version(&self) -> String {
        self.client.server_info().version
    }

    /// Whether the server asks the gateway about users that it does not know: a stranger knocks, and the question is
    /// listened for.
    pub async fn callout(&self) -> Callout {
        let Ok(mut questions) = self.client.subscribe(CALLOUT).await else { return Callout::None };
        if self.client.flush().await.is_err() {
            return Callout::None;
        }
        let stranger = Some(("doctor".to_owned(), "knocks".to_owned()));
        let knock = async move { Self::connect(&self.settings, &self.address, stranger).await.is_ok() };
        let asked = tokio::time::timeout(CALLOUT_MAX, questions.next());
        let (mut knock, mut asked) = (pin!(knock), pin!(asked));
        tokio::select! {
            biased;
            question = &mut asked => if matches!(question, Ok(Some(_))) { Callout::Asks } else { Callout::None },
            is_in = &mut knock => match is_in {
                true => Callout::Open,
                // The question was sent before the answer.
                false if matches!(asked.await, Ok(Some(_))) => Callout::Asks,
                false => Callout::None,
            },
        }
    }

    /// All streams by name.
    pub async fn streams(&self) -> Result<Vec<Stream>, Error> {
        let mut all: Vec<Stream> = self.list("STREAM.LIST", "streams").await?;
        all.sort_by(|a, b| a.config.name.cmp(&b.config.name));
        Ok(all)
    }

    /// All consumers of a stream by name.
    pub async fn consumers(&self, stream: &str) -> Result<Vec<Consumer>, Error> {
        let mut all: Vec<Consumer> = self.list(&format!("CONSUMER.LIST.{stream}"), "consumers").await?;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }

    async fn list<T: serde::de::DeserializeOwned>(
        &self,
        operation: &str,
        member: &str,
    ) -> Result<Vec<T>, Error> {
        let mut all = Vec::new();
        for _ in 0..PAGES_MAX {
            let mut page = self.request(operation, &json!({"offset": all.len()})).await?;
            let total = page["total"].as_u64().unwrap_or(0) as usize;
            // An empty list may be null.
            let items =
                Some(page[member].take()).filter(|items| !items.is_null()).unwrap_or_else(|| json!([]));
            let items: Vec<T> = serde_json::from_value(items).map_err(|e| Error::Api(e.to_string()))?;
            let more = !items.is_empty();
            all.extend(items);
            if !more || all.len() >= total {
                break;
            }
        }
        Ok(all)
    }

    async fn request(&self, operation: &str, body: &Value) -> Result<Value, Error> {
        let request = self.client.request(format!("$JS.API.{operation}"), body.to_string().into());
        let answer = request.await.map_err(|e| match e.kind() {
            async_nats::RequestErrorKind::NoResponders => {
                Error::Api(format!("the broker at {} has no JetStream", self.address))
            }
            async_nats::RequestErrorKind::InvalidSubject => Error::Api("no such name is possible".to_owned()),
            _ => Error::Absent { address: self.address.clone(), reason: e.to_string() },
        })?;
        let answer: Value = serde_json::from_slice(&answer.payload).map_err(|e| Error::Api(e.to_string()))?;
        match answer.pointer("/error/description").and_then(Value::as_str) {
            Some(description) => Err(Error::Api(description.to_owned())),
            None => Ok(answer),
        }
    }
}
