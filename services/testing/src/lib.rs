//! What the tests of several crates share: servers they may also run on, an HTTP client, services played by the test.
//!
//! It knows no crate of the platform, so that any of them may use it. The stories of the services are in `tests/stories`.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr, reason = "tests only")]

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use prost::Message;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

/// No answer may take longer than this.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Drops every database of a server whose name begins with `prefix`.
pub async fn drop_databases(url: &str, prefix: &str) {
    let config: tokio_postgres::Config =
        format!("{}/postgres", url.trim_end_matches('/')).parse().expect("a URL without a database");
    let (client, connection) = config.connect(tokio_postgres::NoTls).await.unwrap();
    let connection = tokio::spawn(connection);
    let rows = client
        .query("SELECT datname::text FROM pg_database WHERE starts_with(datname::text, $1)", &[&prefix])
        .await
        .unwrap();
    for row in rows {
        let name: String = row.get(0);
        client.batch_execute(&format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await.unwrap();
    }
    connection.abort();
}

/// The address of a server that a story also runs on. Without it the test is skipped, or fails where
/// `FAFNIR_TEST_REQUIRE_EXTERNAL` is 1.
pub fn external(variable: &str) -> Option<String> {
    let url = std::env::var(variable).ok().filter(|url| !url.is_empty());
    if url.is_none() {
        let required = std::env::var("FAFNIR_TEST_REQUIRE_EXTERNAL").is_ok_and(|v| v == "1");
        assert!(!required, "{variable} must name a server");
        eprintln!("skipped: {variable} names no server");
    }
    url
}

/// An answer of the HTTP client.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or(serde_json::Value::Null)
    }
    /// `error.code` of the envelope, after checking that all of it are strings.
    pub fn code(&self) -> String {
        let error = self.json()["error"].clone();
        for field in ["code", "message", "details"] {
            assert!(error[field].is_string(), "{field} in {error}");
        }
        error["code"].as_str().unwrap().to_owned()
    }
}

/// One request of its own connection pool.
pub async fn request(method: Method, url: &str, headers: &[(&str, &str)], body: &str) -> Answer {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
    let answer = tokio::time::timeout(DEADLINE, client.request(request)).await.expect("in time").unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer { status: parts.status, headers: parts.headers, body }
}

type Reply = Box<dyn FnMut(&str, Bytes) -> Result<Vec<u8>, tonic::Status> + Send>;

/// A gRPC service that the test plays: `reply(method, request)` gives the encoded answer. Answers its URL.
pub async fn play(
    reply: impl FnMut(&str, Bytes) -> Result<Vec<u8>, tonic::Status> + Send + 'static,
) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let reply: Arc<Mutex<Reply>> = Arc::new(Mutex::new(Box::new(reply)));
    let router = axum::Router::new().fallback(move |request: axum::extract::Request| {
        let reply = Arc::clone(&reply);
        async move {
            let method = request.uri().path().rsplit('/').next().unwrap().to_owned();
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let answer = (reply.lock().unwrap())(&method, body.slice(5..));
            match answer {
                Err(status) => status.into_http::<Body>(),
                Ok(message) => grpc_response(&message),
            }
        }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn grpc_response(message: &[u8]) -> Response<Body> {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", "0".parse().unwrap());
    let frames: [Result<Frame<Bytes>, std::convert::Infallible>; 2] =
        [Ok(Frame::data(frame.freeze())), Ok(Frame::trailers(trailers))];
    Response::builder()
        .header("content-type", "application/grpc")
        .body(Body::new(StreamBody::new(futures::stream::iter(frames))))
        .unwrap()
}

/// Reads a request that [`play`] was given.
pub fn decode<M: Message + Default>(request: Bytes) -> M {
    M::decode(request).unwrap()
}
