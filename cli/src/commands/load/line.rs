//! One client's own connection to the gateway, kept alive: no pool, no task of its own, nothing built twice.

use super::door::{ANSWER_MAX, DEADLINE, Outcome, outcome};
use crate::client::Gateway;
use bytes::Bytes;
use fafnir_services::platform::tls::{self, Stream};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header, request};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use std::{
    future::{Future as _, poll_fn},
    io,
    pin::{Pin, pin},
    task::Poll,
};

type Connection = http1::Connection<TokioIo<Stream>, Full<Bytes>>;
/// Status, seconds of `Retry-After`, body.
type Answer = (StatusCode, Option<u64>, Bytes);

/// What a request of the load carries, built once per token.
#[derive(Debug, Clone)]
pub struct Bearer(HeaderValue);

impl Bearer {
    /// A token that is no header's value, which none of ours is, is sent as nothing and refused.
    pub fn new(token: &str) -> Self {
        let value = HeaderValue::try_from(format!("Bearer {token}"));
        Self(value.unwrap_or_else(|_| HeaderValue::from_static("Bearer")))
    }

    /// As it is sent.
    pub fn text(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }
}

/// Why an exchange failed, and whether the request certainly did not go out.
struct Broken {
    unsent: bool,
    why: String,
}

/// An open connection: where requests go in, and what drives it.
type Open = (SendRequest<Full<Bytes>>, Pin<Box<Connection>>);

/// A connection that is opened when it is first needed and again after it broke.
#[derive(Debug)]
pub struct Line {
    tls: tls::Client,
    secured: bool,
    host: String,
    port: u16,
    path: Uri,
    headers: HeaderMap,
    open: Option<Open>,
}

impl Line {
    /// A line to the GraphQL door at `http://host:port`; nothing is sent yet.
    pub fn new(gateway: &Gateway) -> Self {
        let uri: Uri = gateway.url.parse().unwrap_or_default();
        let secured = uri.scheme_str() == Some("https");
        let host = uri.host().unwrap_or_default();
        let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
        let path = format!("{}/graphql", uri.path().trim_end_matches('/'));
        let mut headers = HeaderMap::new();
        if let Some(Ok(authority)) = uri.authority().map(|a| HeaderValue::from_str(a.as_str())) {
            headers.insert(header::HOST, authority);
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        Self {
            tls: gateway.tls.clone(),
            secured,
            host: host.to_owned(),
            port,
            path: path.parse().unwrap_or_default(),
            headers,
            open: None,
        }
    }

    /// A GraphQL request that is counted: what became of its field `op`.
    pub async fn operate(&mut self, bearer: &Bearer, body: Bytes) -> Outcome {
        let exchange = async {
            // The gateway may have closed an idle connection; what certainly did not go out goes again, once.
            match self.exchange(bearer, body.clone()).await {
                Err(Broken { unsent: true, .. }) => self.exchange(bearer, body).await,
                result => result,
            }
        };
        match tokio::time::timeout(DEADLINE, exchange).await {
            Ok(Ok((status, retry, body))) => outcome(status, retry, &body),
            Ok(Err(broken)) => Outcome::Failed(broken.why),
            Err(_) => Outcome::Failed(format!("no answer within {} s", DEADLINE.as_secs())),
        }
    }

    async fn exchange(&mut self, bearer: &Bearer, body: Bytes) -> Result<Answer, Broken> {
        let (mut sender, mut connection) = match self.open.take() {
            Some(open) => open,
            None => self.connect().await.map_err(|why| Broken { unsent: false, why })?,
        };
        let request = self.request(bearer, body);
        let result = {
            let mut asking = pin!(ask(&mut sender, request));
            // The connection is driven by who waits for it: no task to wake on another thread.
            poll_fn(|cx| {
                if let Poll::Ready(result) = asking.as_mut().poll(cx) {
                    return Poll::Ready(result);
                }
                let ended = connection.as_mut().poll(cx);
                match asking.as_mut().poll(cx) {
                    Poll::Pending if ended.is_ready() => Poll::Ready(Err(Broken {
                        unsent: false,
                        why: "the gateway closed the connection".to_owned(),
                    })),
                    asked => asked,
                }
            })
            .await
        };
        if result.is_ok() {
            self.open = Some((sender, connection));
        }
        result
    }

    async fn connect(&self) -> Result<Open, String> {
        let open = async {
            let stream = self.tls.connect(&self.host, self.port, self.secured).await?;
            http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)
        };
        let (sender, connection) = open.await.map_err(|e| format!("cannot connect: {e}"))?;
        Ok((sender, Box::pin(connection)))
    }

    fn request(&self, bearer: &Bearer, body: Bytes) -> Request<Full<Bytes>> {
        let (mut parts, ()): (request::Parts, ()) = Request::new(()).into_parts();
        parts.method = Method::POST;
        parts.uri = self.path.clone();
        parts.headers = self.headers.clone();
        parts.headers.insert(header::AUTHORIZATION, bearer.0.clone());
        Request::from_parts(parts, Full::new(body))
    }
}

async fn ask(sender: &mut SendRequest<Full<Bytes>>, request: Request<Full<Bytes>>) -> Result<Answer, Broken> {
    let broken = |unsent: bool, e: hyper::Error| Broken { unsent, why: e.to_string() };
    sender.ready().await.map_err(|e| broken(true, e))?;
    let response = sender.send_request(request).await.map_err(|e| broken(e.is_canceled(), e))?;
    let status = response.status();
    let retry = response.headers().get(header::RETRY_AFTER);
    let retry = retry.and_then(|v| v.to_str().ok()).and_then(|v| v.parse().ok());
    let body = Limited::new(response.into_body(), ANSWER_MAX).collect().await;
    let body = body.map_err(|e| Broken { unsent: false, why: e.to_string() })?;
    Ok((status, retry, body.to_bytes()))
}
