//! The gateway's public HTTP door as a client sees it: REST to sign in, GraphQL for what is not counted, and what an
//! answer means.

use crate::client::Gateway;
use bytes::Bytes;
use fafnir_services::platform::tls::Connector;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

/// Deadline of one request, so that a stack that hangs is a failure and not a wait.
pub const DEADLINE: Duration = Duration::from_secs(10);
/// Bytes of an answer.
pub const ANSWER_MAX: usize = 1024 * 1024;
/// Pause after a 429 that names none.
const RETRY_AFTER_S: u64 = 1;

/// A pool of connections to one gateway.
#[derive(Debug, Clone)]
pub struct Door {
    client: Client<Connector, Full<Bytes>>,
    gateway: Gateway,
}

/// How one request ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Done, with the `id` of what it answered, if that has one.
    Done(Option<String>),
    /// The platform's rules said no: the machine code.
    Refused(String),
    /// Too many requests; when the caller may come again.
    Shed(Duration),
    /// No answer, or one that a client cannot use.
    Failed(String),
}

/// A REST answer.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub body: Value,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(default)]
    data: Option<Data>,
    #[serde(default)]
    errors: Vec<Fault>,
}
/// The one field that a request asks for has the alias `op`.
#[derive(Deserialize)]
struct Data {
    op: Option<Op>,
}
#[derive(Deserialize)]
struct Op {
    #[serde(default)]
    code: String,
    #[serde(default)]
    data: Option<Row>,
}
#[derive(Deserialize)]
struct Row {
    #[serde(default)]
    id: Option<String>,
}
#[derive(Deserialize)]
struct Fault {
    message: String,
    #[serde(default)]
    extensions: Extensions,
}
#[derive(Deserialize, Default)]
struct Extensions {
    #[serde(default)]
    code: String,
}

impl Door {
    /// A door at `http://host:port`; nothing is sent yet.
    pub fn new(gateway: &Gateway) -> Self {
        let client = Client::builder(TokioExecutor::new()).build(gateway.tls.connector());
        Self { client, gateway: gateway.clone() }
    }

    /// Where it is.
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// Whether the address is of this machine alone.
    pub fn is_loopback(&self) -> bool {
        let host = self.gateway.url.parse::<Uri>().ok().and_then(|u| u.host().map(ToOwned::to_owned));
        host.is_some_and(|host| {
            let bare = host.trim_start_matches('[').trim_end_matches(']');
            bare == "localhost" || bare.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
        })
    }

    async fn send(
        &self,
        path: &str,
        token: Option<&str>,
        accept: &str,
        body: String,
    ) -> Result<(StatusCode, Bytes), String> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(format!("{}{path}", self.gateway.url))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(Full::from(body)).map_err(|e| e.to_string())?;
        let exchange = async {
            let response = self.client.request(request).await.map_err(|e| chain(&e))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
            Ok((status, body.map_err(|e| e.to_string())?.to_bytes()))
        };
        tokio::time::timeout(DEADLINE, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {} s", DEADLINE.as_secs())))
    }

    /// A REST request that asks for the tokens themselves.
    pub async fn rest(&self, path: &str, body: &Value) -> Result<Answer, String> {
        let accept = "application/vnd.fafnir.token+json";
        let (status, body) = self.send(path, None, accept, body.to_string()).await?;
        Ok(Answer { status, body: serde_json::from_slice(&body).unwrap_or(Value::Null) })
    }

    /// A GraphQL request; its answer as it came.
    pub async fn query(&self, token: &str, body: &Value) -> Result<Value, String> {
        let (status, bytes) =
            self.send("/graphql", Some(token), "application/json", body.to_string()).await?;
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        let problem = answer["errors"][0]["message"].as_str().or(answer["error"]["message"].as_str());
        match problem {
            Some(text) => Err(text.to_owned()),
            None if status.is_success() => Ok(answer),
            None => Err(format!("HTTP {}", status.as_u16())),
        }
    }
}

/// What an answer of `/graphql` means.
pub fn outcome(status: StatusCode, retry_after_s: Option<u64>, body: &[u8]) -> Outcome {
    let shed = || Outcome::Shed(Duration::from_secs(retry_after_s.unwrap_or(RETRY_AFTER_S)));
    if status == StatusCode::TOO_MANY_REQUESTS {
        return shed();
    }
    if !status.is_success() {
        return Outcome::Failed(format!("HTTP {}", status.as_u16()));
    }
    let Ok(reply) = serde_json::from_slice::<Reply>(body) else {
        return Outcome::Failed("an answer that is not GraphQL's".to_owned());
    };
    if let Some(fault) = reply.errors.into_iter().next() {
        return match fault.extensions.code.as_str() {
            "RESOURCE_EXHAUSTED" => shed(),
            "" | "INTERNAL" | "UNAVAILABLE" | "UNKNOWN" | "DEADLINE_EXCEEDED" | "UNAUTHENTICATED" => {
                Outcome::Failed(fault.message)
            }
            code => Outcome::Refused(code.to_owned()),
        };
    }
    match reply.data.and_then(|d| d.op) {
        Some(op) if op.code == "OK" => Outcome::Done(op.data.and_then(|row| row.id)),
        Some(op) => Outcome::Refused(op.code),
        None => Outcome::Failed("an answer without data".to_owned()),
    }
}

/// An error with its causes in one line.
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use fafnir_services::platform::tls;

    #[test]
    fn an_answer_is_done_refused_shed_or_failed() {
        let of =
            |status, body: &str| outcome(StatusCode::from_u16(status).unwrap(), Some(3), body.as_bytes());
        let done = r#"{"data":{"op":{"code":"OK","data":{"id":"7"}}}}"#;
        assert_eq!(of(200, done), Outcome::Done(Some("7".into())));
        assert_eq!(of(200, r#"{"data":{"op":{"code":"OK"}}}"#), Outcome::Done(None));
        let rejected = r#"{"data":{"op":{"code":"FAILED_PRECONDITION","data":{"id":"7"}}}}"#;
        assert_eq!(of(200, rejected), Outcome::Refused("FAILED_PRECONDITION".into()));
        let error = |code: &str| {
            format!(r#"{{"data":null,"errors":[{{"message":"no","extensions":{{"code":"{code}"}}}}]}}"#)
        };
        assert_eq!(of(200, &error("NOT_FOUND")), Outcome::Refused("NOT_FOUND".into()));
        assert_eq!(of(200, &error("INTERNAL")), Outcome::Failed("no".into()));
        assert_eq!(of(200, &error("RESOURCE_EXHAUSTED")), Outcome::Shed(Duration::from_secs(3)));
        assert_eq!(of(429, "{}"), Outcome::Shed(Duration::from_secs(3)));
        assert_eq!(of(502, "<html>"), Outcome::Failed("HTTP 502".into()));
        assert!(matches!(of(200, "<html>"), Outcome::Failed(_)));
        assert!(matches!(of(200, r#"{"data":null}"#), Outcome::Failed(_)));
    }

    #[test]
    fn only_addresses_of_this_machine_are_loopback() {
        let is = |url: &str| {
            Door::new(&Gateway { url: url.to_owned(), tls: tls::Client::default() }).is_loopback()
        };
        assert!(is("http://127.0.0.1:8080") && is("http://localhost:1") && is("http://[::1]:8080"));
        assert!(
            !is("http://10.0.0.1:8080") && !is("http://example.org") && !is("http://localhost.example.org")
        );
    }
}
