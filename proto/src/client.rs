//! Client connections between the services: one address directory, a service token, the caller, a deadline.

use crate::v1;
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};
use uuid::Uuid;

/// Metadata key of the token that every internal call carries.
pub const TOKEN_KEY: &str = "x-fafnir-token";
/// Metadata key of the end user on whose behalf a call is made.
pub const USER_KEY: &str = "x-fafnir-user";
/// Metadata key of the component that calls on its own behalf.
pub const SYSTEM_KEY: &str = "x-fafnir-system";
/// Metadata key of the machine code of a refusal.
pub const REASON_KEY: &str = "x-fafnir-reason";
/// Deadline of a call that does not set its own.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(2);
/// A message larger than this is refused by either side.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// On whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A signed-in user, as the gateway established it.
    User(Uuid),
    /// A component of the platform itself, by name.
    System(String),
}

impl Caller {
    pub fn system(name: &str) -> Self {
        Self::System(name.to_owned())
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(id) => write!(f, "user {id}"),
            Self::System(name) => write!(f, "system {name}"),
        }
    }
}

/// Adds token, caller and deadline to every call.
#[derive(Clone)]
pub struct Credentials {
    token: AsciiMetadataValue,
    key: &'static str,
    caller: AsciiMetadataValue,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials(****)")
    }
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if !request.metadata().contains_key("grpc-timeout") {
            request.set_timeout(DEADLINE_DEFAULT);
        }
        request.metadata_mut().insert(TOKEN_KEY, self.token.clone());
        request.metadata_mut().insert(self.key, self.caller.clone());
        Ok(request)
    }
}

/// A channel with our credentials on it.
pub type Authorised = InterceptedService<Channel, Credentials>;

/// Where the services are: service name → connection, made on first use.
#[derive(Clone)]
pub struct Clients {
    channels: Arc<BTreeMap<String, Channel>>,
    token: AsciiMetadataValue,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("services", &self.channels.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// An address that is not a URL, or a token that is not ASCII.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{service}: {url:?} is not an address such as http://127.0.0.1:8082")]
    Address { service: String, url: String },
    #[error("the service token must be visible ASCII")]
    Token,
}

/// A lazily connected channel with our time limits.
pub fn channel(url: &str) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(CONNECT_TIMEOUT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .tcp_nodelay(true)
        .connect_lazy())
}

macro_rules! client {
    ($method:ident, $service:literal, $module:ident :: $client:ident) => {
        #[doc = concat!("The client of ", $service, " for this caller.")]
        pub fn $method(&self, caller: &Caller) -> v1::$module::$client<Authorised> {
            let service = InterceptedService::new(self.channel_of($service), self.credentials(caller));
            v1::$module::$client::new(service)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        }
    };
}

impl Clients {
    /// Builds the directory from service name → `http://host:port`. Must run inside a tokio runtime.
    pub fn new(addresses: &BTreeMap<String, String>, token: &str) -> Result<Self, Error> {
        let mut channels = BTreeMap::new();
        for (service, url) in addresses {
            let channel =
                channel(url).map_err(|_| Error::Address { service: service.clone(), url: url.clone() })?;
            channels.insert(service.clone(), channel);
        }
        let token = token.parse().map_err(|_| Error::Token)?;
        Ok(Self { channels: Arc::new(channels), token })
    }

    fn channel_of(&self, service: &str) -> Channel {
        // A service without an address answers UNAVAILABLE at the first call, like one that is down.
        self.channels
            .get(service)
            .cloned()
            .unwrap_or_else(|| Endpoint::from_static("http://127.0.0.1:1").connect_lazy())
    }

    fn credentials(&self, caller: &Caller) -> Credentials {
        let (key, text) = match caller {
            Caller::User(id) => (USER_KEY, id.to_string()),
            Caller::System(name) => (SYSTEM_KEY, name.clone()),
        };
        let caller = text.parse().unwrap_or_else(|_| AsciiMetadataValue::from_static("invalid"));
        Credentials { token: self.token.clone(), key, caller }
    }

    client!(auth, "auth-service", auth_client::AuthClient);
    client!(security, "security-service", security_client::SecurityClient);
    client!(user, "user-service", user_client::UserClient);
    client!(stock, "stock-service", stock_client::StockClient);
    client!(order, "order-service", order_service_client::OrderServiceClient);
    client!(portfolio, "portfolio-service", portfolio_client::PortfolioClient);
    client!(engine, "trade-engine", trade_engine_client::TradeEngineClient);
}
