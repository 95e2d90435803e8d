//! Client connections between the services: one address directory, a service token, the caller, a deadline.

use crate::{
    connection::{Answer, Connection},
    deadline,
    id::UserId,
    in_process::{self, Place, TIMEOUT_KEY},
    tls,
    trace::Trace,
    v1,
};
use parking_lot::RwLock;
use std::{
    collections::BTreeMap,
    fmt,
    net::IpAddr,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tonic::{
    body::Body,
    codegen::{
        Service, StdError,
        http::{self, HeaderName, HeaderValue},
    },
    transport::{Channel, Endpoint},
};

/// Metadata key of the token that every internal call carries.
pub const TOKEN_KEY: &str = "x-fafnir-token";
/// Metadata key of the end user on whose behalf a call is made.
pub const USER_KEY: &str = "x-fafnir-user";
/// Metadata key of the component that calls on its own behalf.
pub const SYSTEM_KEY: &str = "x-fafnir-system";
/// Metadata key of the end client's address.
pub const ADDRESS_KEY: &str = "x-fafnir-address";
/// Header and metadata key of the trace that a request belongs to (W3C Trace Context).
pub const TRACE_KEY: &str = "traceparent";
/// Metadata key of a position: a reader's, what the answer must know at least; an answer's, what it knows.
pub const POSITION_KEY: &str = "x-fafnir-position";
/// Metadata key of the machine code of a refusal.
pub const REASON_KEY: &str = "x-fafnir-reason";
/// The least time that a call is given.
const CALL_TIME_MIN: Duration = Duration::from_millis(1);
/// A message larger than this is refused by either side.
pub const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
static TOKEN: HeaderName = HeaderName::from_static(TOKEN_KEY);
static USER: HeaderName = HeaderName::from_static(USER_KEY);
static SYSTEM: HeaderName = HeaderName::from_static(SYSTEM_KEY);
static POSITION: HeaderName = HeaderName::from_static(POSITION_KEY);
static ADDRESS: HeaderName = HeaderName::from_static(ADDRESS_KEY);
static TRACE: HeaderName = HeaderName::from_static(TRACE_KEY);
pub(crate) static TIMEOUT: HeaderName = HeaderName::from_static(TIMEOUT_KEY);
/// [`deadline::CALL`] as the protocol writes it.
static TIMEOUT_DEFAULT: HeaderValue = HeaderValue::from_static("2S");

tokio::task_local! {
    /// Where the request that this task answers came from.
    static ORIGIN: Origin;
}

/// Where a request came from: told along with every call that is made on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Origin {
    /// `None`: not known.
    pub trace: Option<Trace>,
    /// The end client's address, where it is known.
    pub address: Option<IpAddr>,
}

impl Origin {
    /// What the headers of a request tell; believed from the platform's own components alone.
    pub fn of(headers: &http::HeaderMap) -> Self {
        let text = |name: &HeaderName| headers.get(name).and_then(|v| v.to_str().ok());
        Self {
            trace: text(&TRACE).and_then(Trace::parse),
            address: text(&ADDRESS).and_then(|t| t.parse().ok()),
        }
    }

    /// Puts it into the headers of a call.
    pub fn put(&self, headers: &mut http::HeaderMap) {
        if let Some(value) = self.trace.and_then(|trace| HeaderValue::from_str(&trace.to_string()).ok()) {
            headers.insert(&TRACE, value);
        }
        if let Some(value) = self.address.and_then(|ip| HeaderValue::from_str(&ip.to_string()).ok()) {
            headers.insert(&ADDRESS, value);
        }
    }
}

/// Answers a request that came from there.
pub async fn from<F: Future>(origin: Origin, answering: F) -> F::Output {
    ORIGIN.scope(origin, answering).await
}

/// Where the request that this task answers came from; nowhere for work of the platform's own.
pub fn origin() -> Origin {
    ORIGIN.try_with(|origin| *origin).unwrap_or_default()
}

/// The id of the trace that the request which this task answers belongs to, for a line of the log.
pub fn trace_id() -> Option<String> {
    origin().trace.map(Trace::id_text)
}

/// The time of a call: what it asks for, and less than the caller of the request under way waits.
fn time_of(headers: &http::HeaderMap) -> HeaderValue {
    let asked = in_process::deadline(headers);
    let Some(left) = deadline::left() else {
        return headers.get(&TIMEOUT).unwrap_or(&TIMEOUT_DEFAULT).clone();
    };
    as_header(asked.unwrap_or(deadline::CALL).min(left))
}

/// A time as the protocol writes it.
pub(crate) fn as_header(time: Duration) -> HeaderValue {
    let millis = time.max(CALL_TIME_MIN).as_millis();
    HeaderValue::from_str(&format!("{millis}m")).unwrap_or_else(|_| TIMEOUT_DEFAULT.clone())
}

/// On whose behalf a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A signed-in user, as the gateway established it.
    User(UserId),
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

/// A connection that adds token, caller and deadline to every call.
#[derive(Clone)]
pub struct Authorised {
    connection: Connection,
    token: HeaderValue,
    key: &'static HeaderName,
    caller: HeaderValue,
    position: Option<HeaderValue>,
}

impl fmt::Debug for Authorised {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorised").field("connection", &self.connection).finish_non_exhaustive()
    }
}

impl Service<http::Request<Body>> for Authorised {
    type Response = http::Response<Body>;
    type Error = StdError;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StdError>> {
        self.connection.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Answer {
        let headers = request.headers_mut();
        let time = time_of(headers);
        headers.insert(&TIMEOUT, time);
        headers.insert(&TOKEN, self.token.clone());
        headers.insert(self.key, self.caller.clone());
        origin().put(headers);
        if let Some(position) = &self.position {
            headers.insert(&POSITION, position.clone());
        }
        self.connection.call(request)
    }
}

/// Where the services are: service name → connection. Over a socket it is made on first use.
#[derive(Clone)]
pub struct Clients {
    connections: Arc<BTreeMap<String, Connection>>,
    token: Arc<RwLock<HeaderValue>>,
    position: Option<HeaderValue>,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients")
            .field("services", &self.connections.keys().collect::<Vec<_>>())
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

/// The time that the caller of a request waits for its answer, where it says so.
pub fn time_left(metadata: &tonic::metadata::MetadataMap) -> Option<Duration> {
    in_process::deadline(metadata.as_ref())
}

/// The same from a request's headers.
pub fn time_left_of(headers: &http::HeaderMap) -> Option<Duration> {
    in_process::deadline(headers)
}

/// A connection with our time limits, made at the first call; `https://` as [`tls::Client::default`] secures it.
pub fn connection(url: &str) -> Result<Connection, tonic::transport::Error> {
    Connection::to(url, &tls::Client::default())
}

/// A lazily connected channel with our time limits; `https://` is secured as `tls` says.
pub fn secured_channel(url: &str, tls: &tls::Client) -> Result<Channel, tonic::transport::Error> {
    Ok(Endpoint::from_shared(url.to_owned())?
        .connect_timeout(deadline::CONNECT)
        .http2_keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .connect_with_connector_lazy(tls.connector().http2()))
}

/// What an answer knows; `None` where it does not say.
pub fn position_of<T>(answer: &tonic::Response<T>) -> Option<u64> {
    answer.metadata().get(POSITION_KEY)?.to_str().ok()?.parse().ok()
}

macro_rules! client {
    ($method:ident, $service:literal, $module:ident :: $client:ident) => {
        #[doc = concat!("The client of ", $service, " for this caller.")]
        pub fn $method(&self, caller: &Caller) -> v1::$module::$client<Authorised> {
            v1::$module::$client::new(self.authorised($service, caller))
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX)
        }
    };
}

impl Clients {
    /// Builds the directory from service name → `http://host:port`; those `in_process` are called directly once they
    /// serve. Must run inside a tokio runtime.
    pub fn new(
        addresses: &BTreeMap<String, String>,
        in_process: &[&str],
        token: &str,
    ) -> Result<Self, Error> {
        Self::secured(addresses, in_process, token, &tls::Client::default())
    }

    /// The same, whose `https://` addresses are reached as `tls` says.
    pub fn secured(
        addresses: &BTreeMap<String, String>,
        in_process: &[&str],
        token: &str,
        tls: &tls::Client,
    ) -> Result<Self, Error> {
        let mut connections = BTreeMap::new();
        for (service, url) in addresses {
            let connection = if in_process.contains(&service.as_str()) {
                Connection::InProcess(Arc::new(Place::new(service.clone())))
            } else {
                let address = |_| Error::Address { service: service.clone(), url: url.clone() };
                Connection::to(url, tls).map_err(address)?
            };
            connections.insert(service.clone(), connection);
        }
        let token = HeaderValue::from_str(token).map_err(|_| Error::Token)?;
        let token = Arc::new(RwLock::new(token));
        Ok(Self { connections: Arc::new(connections), token, position: None })
    }

    /// Calls carry this token from now on; one that is no ASCII changes nothing.
    pub fn set_token(&self, token: &str) {
        if *self.token.read() != token
            && let Ok(token) = HeaderValue::from_str(token)
        {
            *self.token.write() = token;
        }
    }

    /// The same directory for a reader: whoever is called waits until it knows this position; 0 waits for nothing.
    #[must_use]
    pub fn at(&self, position: u64) -> Self {
        Self { position: (position > 0).then(|| position.into()), ..self.clone() }
    }

    /// Where this service takes the calls of its own process, when it runs in it.
    pub fn place(&self, service: &str) -> Option<&Arc<Place>> {
        match self.connections.get(service)? {
            Connection::InProcess(place) => Some(place),
            Connection::Socket(_) => None,
        }
    }

    /// Ends every place: also a service that never came to serve refuses from now on.
    pub fn close(&self) {
        for service in self.connections.keys() {
            if let Some(place) = self.place(service) {
                place.close();
            }
        }
    }

    fn authorised(&self, service: &str, caller: &Caller) -> Authorised {
        // A service without an address answers UNAVAILABLE at the first call, like one that is down.
        let nowhere = || Connection::Socket(Endpoint::from_static("http://127.0.0.1:1").connect_lazy());
        let connection = self.connections.get(service).cloned().unwrap_or_else(nowhere);
        let (key, value) = match caller {
            Caller::User(id) => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                (&USER, HeaderValue::from_str(id.uuid().hyphenated().encode_lower(&mut text)))
            }
            Caller::System(name) => (&SYSTEM, HeaderValue::from_str(name)),
        };
        let caller = value.unwrap_or_else(|_| HeaderValue::from_static("invalid"));
        let position = self.position.clone();
        Authorised { connection, token: self.token.read().clone(), key, caller, position }
    }

    client!(auth, "auth-service", auth_client::AuthClient);
    client!(security, "security-service", security_client::SecurityClient);
    client!(user, "user-service", user_client::UserClient);
    client!(stock, "stock-service", stock_client::StockClient);
    client!(order, "order-service", order_service_client::OrderServiceClient);
    client!(portfolio, "portfolio-service", portfolio_client::PortfolioClient);
    client!(engine, "trade-engine", trade_engine_client::TradeEngineClient);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_as_it_was_put() {
        let mut answer = tonic::Response::new(());
        answer.metadata_mut().insert(POSITION_KEY, u64::MAX.into());
        assert_eq!(position_of(&answer), Some(u64::MAX));
        assert_eq!(position_of(&tonic::Response::new(())), None);
    }

    #[test]
    fn the_default_deadline_is_what_goes_over_the_wire() {
        let headers = http::HeaderMap::from_iter([(TIMEOUT.clone(), TIMEOUT_DEFAULT.clone())]);
        assert_eq!(in_process::deadline(&headers), Some(deadline::CALL));
    }

    #[tokio::test]
    async fn a_call_tells_where_its_request_came_from() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let mut headers = http::HeaderMap::from_iter([
            (TRACE.clone(), HeaderValue::from_static(parent)),
            (ADDRESS.clone(), HeaderValue::from_static("192.0.2.7")),
        ]);
        let origin_of_request = Origin::of(&headers);
        assert_eq!(origin_of_request.trace.map(|trace| trace.to_string()).as_deref(), Some(parent));
        from(origin_of_request, async {
            headers.clear();
            origin().put(&mut headers);
            assert_eq!(Origin::of(&headers), origin_of_request);
            assert_eq!(trace_id().as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        })
        .await;
        assert_eq!((origin(), trace_id()), (Origin::default(), None));
    }

    #[tokio::test]
    async fn each_hop_has_less_time_than_its_caller() {
        let time = |headers: &http::HeaderMap| {
            let set = http::HeaderMap::from_iter([(TIMEOUT.clone(), time_of(headers))]);
            in_process::deadline(&set).unwrap()
        };
        let none = http::HeaderMap::new();
        assert_eq!(time(&none), deadline::CALL);
        deadline::within(Duration::from_secs(1), async {
            assert!(time(&none) <= Duration::from_millis(950), "{:?}", time(&none));
            let asked = http::HeaderMap::from_iter([(TIMEOUT.clone(), HeaderValue::from_static("9S"))]);
            assert!(time(&asked) <= Duration::from_millis(950));
            let asked = http::HeaderMap::from_iter([(TIMEOUT.clone(), HeaderValue::from_static("9m"))]);
            assert_eq!(time(&asked), Duration::from_millis(9));
        })
        .await;
        deadline::within(Duration::ZERO, async { assert_eq!(time(&none), CALL_TIME_MIN) }).await;
    }
}
