//! GraphQL over HTTP (public-api.md §5): who may send what how, and which status the answer has.

use super::{
    Api,
    documents::{Documents, Found, Shape},
    error::{self, VALIDATION_FAILED},
    json, lexical,
    mutation::OrdersCounted,
    schema,
};
use crate::{Gateway, body, session::Session};
use async_graphql::{Response, ServerError, ValidationMode, Variables, parser::types::OperationType};
use axum::{
    body::Body,
    extract::{RawQuery, Request, State},
    response::IntoResponse,
};
use fafnir_platform::{Refusal, config::Mode, csrf, envelope::Failure, http::place::Place};
use fafnir_proto::reason::Reason;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use serde::Deserialize;
use std::{sync::Arc, time::Duration};
use tokio::time::{self, Instant};

/// How long a user waits for the word that it asks for too much: who does not listen to it comes no faster than that. As long
/// as it is told to stay away, at least.
const HELD_BACK: Duration = Duration::from_secs(1);
/// Bytes of a request's body and of a query in a URL.
const BODY_MAX: usize = 64 * 1024;
/// So many bytes of a refused document count as another one.
const REFUSED_BYTES: usize = 1024;
const JSON: &str = "application/json";
const RESPONSE_JSON: &str = "application/graphql-response+json";

/// What the handlers share.
#[derive(Clone)]
pub struct Endpoint {
    pub gateway: Arc<Gateway>,
    /// Validates what it executes.
    pub api: Api,
    /// The same schema, for what needs no validation again.
    trusting: Api,
    documents: Arc<Documents>,
}

/// A request as it was sent.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Sent {
    pub query: Option<String>,
    pub operation_name: Option<String>,
    pub variables: Option<Variables>,
}

impl Sent {
    /// Reads a request in JSON; numbers that could not be read exactly are refused.
    pub fn from_json(content: &[u8]) -> Result<Self, Failure> {
        let malformed = |e: serde_json::Error| {
            let (line, column) = (e.line(), e.column());
            Failure::bad_request(format!("the body is not a GraphQL request (line {line}, column {column})"))
        };
        let text = std::str::from_utf8(content).map_err(|_| Failure::bad_request("the body is not UTF-8"))?;
        lexical::check(text).map_err(|e| Failure::bad_request(e.to_string()))?;
        serde_json::from_str(text).map_err(malformed)
    }
}

/// A request that was parsed, costed and is allowed to run.
pub struct Prepared {
    pub request: async_graphql::Request,
    pub shape: Shape,
    found: Found,
    /// The validation would find nothing.
    is_valid: bool,
    /// What it asks for, in rows.
    price: u64,
    /// How long its text is.
    bytes: usize,
}

/// Why a request is not run although nothing is wrong with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Charge {
    #[error("the query asks for {price} rows, more than {max}")]
    TooDear { price: u64, max: u32 },
    #[error("your queries ask for too much at a time; try again in {seconds} s")]
    Later { seconds: u64 },
    #[error("too many of your queries are refused; try again in {seconds} s")]
    Refused { seconds: u64 },
}

impl Charge {
    /// As subscribers are told.
    pub fn refusal(self) -> Refusal {
        let reason = match self {
            Self::TooDear { .. } => Reason::QUERY_TOO_DEAR,
            Self::Later { .. } | Self::Refused { .. } => Reason::RATE_LIMITED,
        };
        Refusal::exhausted(reason, self.to_string())
    }
}

impl From<Charge> for Failure {
    fn from(charge: Charge) -> Self {
        let failure = Self::from(charge.refusal());
        match charge {
            // Waiting does not help.
            Charge::TooDear { .. } => {
                Self { status: StatusCode::BAD_REQUEST, retry_after_s: None, ..failure }
            }
            Charge::Later { seconds } | Charge::Refused { seconds } => {
                Self { retry_after_s: Some(seconds), ..failure }
            }
        }
    }
}

/// Why a request is not run: something is wrong with it, or with how much its user asks for.
#[derive(Debug)]
pub enum Unready {
    Invalid(Invalid),
    Charge(Charge),
}

impl From<Invalid> for Unready {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid(invalid)
    }
}

impl From<Charge> for Unready {
    fn from(charge: Charge) -> Self {
        Self::Charge(charge)
    }
}

/// Why a request cannot be run.
#[derive(Debug)]
pub struct Invalid {
    pub code: &'static str,
    pub message: String,
}

impl Invalid {
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        let mut message = message.into();
        error::truncate(&mut message);
        Self { code, message }
    }

    pub fn response(self) -> Response {
        let mut error = ServerError::new(self.message, None);
        error.extensions.get_or_insert_default().set("code", self.code);
        Response::from_errors(vec![error])
    }
}

impl Endpoint {
    pub fn new(gateway: &Arc<Gateway>) -> Self {
        let introspection = gateway.ctx.settings.mode == Mode::Development;
        let api = schema(gateway, ValidationMode::Strict);
        let documents = Arc::new(Documents::new(&api.sdl(), introspection));
        Self { gateway: gateway.clone(), trusting: schema(gateway, ValidationMode::Fast), api, documents }
    }

    /// Refuses a request before anything expensive is done with it; a text that ran before is not even parsed, and one of
    /// a user who is refused all the time is not read.
    pub fn prepare(&self, session: &Session, sent: Sent) -> Result<Prepared, Unready> {
        let text = sent.query.as_deref().unwrap_or_default();
        if !is_short_mutation(text) && !self.documents.knows(text) {
            let has_one = self.gateway.refused.has_one(session.user, Instant::now());
            has_one.map_err(|e| Charge::Refused { seconds: e.retry_after_s() })?;
        }
        let bytes = text.len();
        self.read(sent).map_err(|invalid| {
            self.was_refused(session, bytes);
            invalid.into()
        })
    }

    /// One refused document more of a user: the longer it is, the more it cost to read.
    fn was_refused(&self, session: &Session, bytes: usize) {
        let documents = u32::try_from(1 + bytes / REFUSED_BYTES).unwrap_or(u32::MAX);
        self.gateway.refused.drain(session.user, documents, Instant::now());
    }

    fn read(&self, sent: Sent) -> Result<Prepared, Invalid> {
        let text = sent.query.unwrap_or_default();
        let bytes = text.len();
        let found = self.documents.find(text)?;
        let shape = found.parsed.operation(sent.operation_name.as_deref())?;
        // The library needs no text where it has the document.
        let mut request = async_graphql::Request::new(String::new());
        request.operation_name = sent.operation_name;
        request.variables = sent.variables.unwrap_or_default();
        request.set_parsed_query(found.parsed.document.clone());
        if self.gateway.ctx.settings.mode != Mode::Development {
            request = request.disable_introspection();
        }
        found.parsed.check_variables(request.operation_name.as_deref(), &request.variables)?;
        let is_valid = self.documents.is_valid(&found, &request.variables);
        let price = found.parsed.price(request.operation_name.as_deref(), &request.variables);
        Ok(Prepared { request, shape, found, is_valid, price, bytes })
    }

    /// Lets a user wait before it is told that it asks for too much. Where too many wait already nobody else does: what
    /// waits takes room, and an answer at once takes none.
    /// `place`: its connection's, which others may have meanwhile.
    pub async fn hold_back(&self, charge: Charge, place: Option<&Arc<Place>>) -> Charge {
        if let Ok(_held_back) = self.gateway.held_back.try_acquire() {
            let _waiting = place.map(Place::waits);
            time::sleep(HELD_BACK).await;
        }
        charge
    }

    /// Takes what a request asks for from what its user may ask for. One that is refused was read, too.
    pub fn charge(&self, session: &Session, prepared: &Prepared) -> Result<(), Charge> {
        self.take(session, prepared).inspect_err(|_| self.was_refused(session, prepared.bytes))
    }

    fn take(&self, session: &Session, prepared: &Prepared) -> Result<(), Charge> {
        let (limiter, price) = (&self.gateway.cost, prepared.price);
        if limiter.is_beyond(price) {
            return Err(Charge::TooDear { price, max: self.gateway.ctx.settings.gateway.cost_burst });
        }
        let units = u32::try_from(price).unwrap_or(u32::MAX);
        limiter
            .take(session.user, units, Instant::now())
            .map_err(|e| Charge::Later { seconds: e.retry_after_s() })
    }

    async fn run(
        &self,
        session: Session,
        headers: &HeaderMap,
        mut prepared: Prepared,
        place: Option<&Arc<Place>>,
    ) -> Result<Response, Failure> {
        if prepared.shape.kind == OperationType::Mutation {
            self.gateway.sessions.check_csrf(&session, headers)?;
        }
        if prepared.shape.only_orders {
            let orders = u32::try_from(prepared.shape.orders).unwrap_or(u32::MAX);
            self.gateway.orders.take(session.user, orders, Instant::now()).map_err(|exceeded| {
                let limit = self.gateway.ctx.settings.gateway.orders_per_second;
                let text = format!("more than {limit} orders a second; try again later");
                let mut failure = Failure::new(StatusCode::TOO_MANY_REQUESTS, text);
                failure.retry_after_s = Some(exceeded.retry_after_s());
                failure
            })?;
            prepared.request = prepared.request.data(OrdersCounted);
        }
        if let Err(charge) = self.charge(&session, &prepared) {
            return Err(self.hold_back(charge, place).await.into());
        }
        let api = if prepared.is_valid { &self.trusting } else { &self.api };
        let name = prepared.request.operation_name.clone();
        let mut response = api.execute(prepared.request.data(session.clone())).await;
        prepared.found.parsed.put_in_order(name.as_deref(), &mut response.data);
        if response.errors.is_empty() {
            self.documents.remember(prepared.found);
        }
        let was_executed = was_executed(&response);
        if !was_executed {
            self.was_refused(&session, prepared.bytes);
        }
        for error in &mut response.errors {
            error::finish(error, was_executed);
        }
        Ok(response)
    }
}

/// One that is read whatever its user did before: cancels pass always. It has no fragments that could multiply.
fn is_short_mutation(text: &str) -> bool {
    const LEN_MAX: usize = 1024;
    text.len() <= LEN_MAX && text.trim_start().starts_with("mutation") && !text.contains("fragment")
}

/// Resolvers have a path; what the validation found has none.
pub fn was_executed(response: &Response) -> bool {
    response.errors.is_empty() || response.errors.iter().any(|e| !e.path.is_empty())
}

/// `POST /graphql`.
pub async fn post(State(endpoint): State<Endpoint>, request: Request) -> axum::response::Response {
    let media_type = answer_type(request.headers());
    match posted(&endpoint, request, media_type).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn posted(
    endpoint: &Endpoint,
    request: Request,
    media_type: &'static str,
) -> Result<axum::response::Response, Failure> {
    let (parts, body) = request.into_parts();
    if !is_json(&parts.headers) {
        let text = format!("the content type must be {JSON}");
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text));
    }
    let content = body::read(&parts.headers, body, BODY_MAX).await?;
    let from = endpoint.gateway.client(&parts.headers, &parts.extensions).ip;
    let session = endpoint.gateway.sessions.of(&parts.headers, from).await?;
    let first = content.iter().find(|b| !b.is_ascii_whitespace());
    if first == Some(&b'[') {
        return Err(Failure::bad_request("batches of queries are not accepted"));
    }
    let sent = Sent::from_json(&content)?;
    let came = endpoint.came(&parts.headers, &parts.extensions, false);
    answer(endpoint, session, &parts.headers, sent, media_type, came).await
}

/// `GET /graphql`: queries only.
pub async fn get(
    State(endpoint): State<Endpoint>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    extensions: Extensions,
) -> axum::response::Response {
    let media_type = answer_type(&headers);
    let came = endpoint.came(&headers, &extensions, true);
    let got = async {
        let from = endpoint.gateway.client(&headers, &extensions).ip;
        let session = endpoint.gateway.sessions.of(&headers, from).await?;
        let sent = from_query(query.as_deref().unwrap_or(""))?;
        answer(&endpoint, session, &headers, sent, media_type, came).await
    };
    got.await.unwrap_or_else(Failure::into_response)
}

/// How a request came.
#[derive(Debug, Clone)]
struct Came {
    by_get: bool,
    is_secure: bool,
    /// Its connection's.
    place: Option<Arc<Place>>,
}

impl Endpoint {
    fn came(&self, headers: &HeaderMap, extensions: &Extensions, by_get: bool) -> Came {
        let is_secure = self.gateway.client(headers, extensions).secure;
        Came { by_get, is_secure, place: extensions.get().cloned() }
    }
}

async fn answer(
    endpoint: &Endpoint,
    session: Session,
    headers: &HeaderMap,
    sent: Sent,
    media_type: &'static str,
    came: Came,
) -> Result<axum::response::Response, Failure> {
    let invalid_status =
        if media_type == JSON { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::BAD_REQUEST };
    let prepared = match endpoint.prepare(&session, sent) {
        Ok(prepared) => prepared,
        Err(Unready::Charge(charge)) => {
            return Err(endpoint.hold_back(charge, came.place.as_ref()).await.into());
        }
        Err(Unready::Invalid(invalid)) => return Ok(reply(invalid_status, media_type, &invalid.response())),
    };
    match prepared.shape.kind {
        OperationType::Mutation if came.by_get => {
            let mut response =
                Failure::new(StatusCode::METHOD_NOT_ALLOWED, "a mutation must be sent by POST")
                    .into_response();
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
            return Ok(response);
        }
        OperationType::Subscription => {
            let invalid = Invalid::new(VALIDATION_FAILED, "subscriptions are served on /graphql/ws");
            return Ok(reply(invalid_status, media_type, &invalid.response()));
        }
        _ => {}
    }
    let renewed = endpoint.gateway.sessions.renew(&session).await;
    let id = session.id;
    let response = endpoint.run(session, headers, prepared, came.place.as_ref()).await?;
    let status = if was_executed(&response) { StatusCode::OK } else { invalid_status };
    let mut reply = reply(status, media_type, &response);
    if let Some(token) = renewed {
        let csrf_token = csrf::token_of(&endpoint.gateway.ctx.secrets.csrf_key.current(), id);
        for cookie in csrf::cookies(&token, &csrf_token, csrf::COOKIE_MAX_AGE_S, came.is_secure) {
            reply.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    Ok(reply)
}

fn reply(status: StatusCode, media_type: &'static str, response: &Response) -> axum::response::Response {
    let mut reply = axum::response::Response::new(Body::new(json::response(response)));
    *reply.status_mut() = status;
    reply.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    reply
}

fn is_json(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next().and_then(|v| v.to_str().ok()), values.next()) else {
        return false;
    };
    value.split(';').next().is_some_and(|t| t.trim().eq_ignore_ascii_case(JSON))
}

/// The media type of the answer: what `Accept` prefers of the two; `application/json` where it does not say.
fn answer_type(headers: &HeaderMap) -> &'static str {
    let mut best = (JSON, 0u32);
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok());
    for range in values.flat_map(|v| v.split(',')) {
        let mut parts = range.split(';').map(str::trim);
        let media_type = match parts.next().unwrap_or("").to_ascii_lowercase().as_str() {
            RESPONSE_JSON => RESPONSE_JSON,
            JSON => JSON,
            _ => continue,
        };
        let quality = parts.find_map(|p| p.strip_prefix("q=")).map_or(1000, quality_of);
        if quality > best.1 {
            best = (media_type, quality);
        }
    }
    best.0
}

/// Thousandths of a `q` (RFC 9110 §12.4.2); what is malformed counts as nothing.
fn quality_of(text: &str) -> u32 {
    fafnir_rules::money::parse_scaled(text, 3).ok().and_then(|q| u32::try_from(q).ok()).unwrap_or(0).min(1000)
}

/// The parameters of a GET.
fn from_query(query: &str) -> Result<Sent, Failure> {
    if query.len() > BODY_MAX {
        return Err(Failure::new(StatusCode::URI_TOO_LONG, "the query is too long"));
    }
    let mut sent = Sent::default();
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = || {
            percent_decoded(value)
                .ok_or_else(|| Failure::bad_request(format!("the parameter {name} is malformed")))
        };
        match name {
            "query" => sent.query = Some(value()?),
            "operationName" => sent.operation_name = Some(value()?).filter(|v| !v.is_empty()),
            "variables" => {
                let text = value()?;
                if !text.is_empty() {
                    lexical::check(&text).map_err(|e| Failure::bad_request(e.to_string()))?;
                    sent.variables = serde_json::from_str(&text)
                        .map_err(|_| Failure::bad_request("variables must be a JSON object"))?;
                }
            }
            _ => {}
        }
    }
    Ok(sent)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'+' => b' ',
            b'%' => {
                let digit = |b: Option<u8>| char::from(b?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                (high * 16 + low) as u8
            }
            other => other,
        });
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_has_the_type_that_is_preferred() {
        let case = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, accept.parse().unwrap());
            answer_type(&headers)
        };
        assert_eq!(answer_type(&HeaderMap::new()), JSON);
        assert_eq!(case("*/*"), JSON);
        assert_eq!(case("application/json"), JSON);
        assert_eq!(case("application/graphql-response+json"), RESPONSE_JSON);
        assert_eq!(case("application/graphql-response+json, application/json;q=0.9"), RESPONSE_JSON);
        assert_eq!(case("application/graphql-response+json;q=0.5, application/json;q=0.9"), JSON);
        assert_eq!(case("Application/GraphQL-Response+JSON; q=1"), RESPONSE_JSON);
        assert_eq!(case("text/html"), JSON);
    }

    #[test]
    fn the_parameters_of_a_get_are_decoded() {
        let sent = from_query("query=%7Bhealth%7D+&operationName=&variables=%7B%22a%22%3A1%7D&x=1").unwrap();
        assert_eq!(sent.query.as_deref(), Some("{health} "));
        assert_eq!(sent.operation_name, None);
        assert_eq!(sent.variables.unwrap().len(), 1);
        for bad in ["query=%", "query=%zz", "query=%ff", "variables=[1]", "variables=x"] {
            assert_eq!(from_query(bad).unwrap_err().status, StatusCode::BAD_REQUEST, "{bad}");
        }
    }
}
