//! `/auth/*` → auth-service: path, body and answer unchanged; the caller's address is told, our own headers are not
//! believed.

use super::{Gateway, body};
use axum::{
    body::Body,
    extract::{ConnectInfo, Request, State},
    response::{IntoResponse, Response},
};
use fafnir_platform::{
    csrf,
    envelope::Failure,
    http::is_secured,
    tls::{self, Connector},
    token,
};
use fafnir_proto::{
    client::{self, TOKEN_KEY},
    deadline,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use http_body_util::Full;
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Bytes of a body that is passed on.
const BODY_MAX: usize = 64 * 1024;
/// Seconds after which a request can be tried again that was not answered within it.
const RETRY_AFTER_S: u64 = 1;
/// A connection that was idle for longer is not used again: well before auth-service would close it.
const POOL_IDLE_MAX: Duration = Duration::from_secs(20);
/// Headers that concern one hop only (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

pub type HttpClient = Client<Connector, Full<axum::body::Bytes>>;

/// A client that keeps connections to auth-service.
pub fn client(tls: &tls::Client) -> HttpClient {
    Client::builder(TokioExecutor::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(POOL_IDLE_MAX)
        .build(tls.connector())
}

/// Passes a request on.
pub async fn forward(State(gateway): State<Arc<Gateway>>, request: Request) -> Response {
    match pass(&gateway, request).await {
        Ok(response) => response,
        Err(failure) => failure.into_response(),
    }
}

async fn pass(gateway: &Gateway, request: Request) -> Result<Response, Failure> {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip());
    let is_secure = is_secured(request.extensions());
    let (parts, body) = request.into_parts();
    let base = gateway.ctx.addresses.get("auth-service").map_or("", String::as_str);
    let path = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let uri: Uri =
        format!("{base}{path}").parse().map_err(|_| Failure::bad_request("the path is malformed"))?;
    let is_safe = matches!(parts.method, Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_safe && !csrf::origin_is_ours(&parts.headers, &gateway.ctx.settings.gateway.cors_origins) {
        return Err(Failure::unauthorized("this page may not call from its origin"));
    }
    let content = body::read(&parts.headers, body, BODY_MAX).await?;
    let signing_out = parts.method == Method::DELETE;
    let presented = token::presented(&parts.headers).filter(|_| signing_out);
    let session = match presented {
        Some(presented) => gateway.sessions.of_token(presented).await.ok(),
        None => None,
    };

    let mut headers = parts.headers;
    strip(&mut headers);
    // hyper sets both for the request that it sends.
    let host = headers.remove(header::HOST);
    headers.remove(header::CONTENT_LENGTH);
    if let Some(host) = host {
        headers.insert(FORWARDED_HOST, host);
    } else if let Some(host) = parts.uri.authority().and_then(|a| HeaderValue::from_str(a.as_str()).ok()) {
        headers.insert(FORWARDED_HOST, host);
    }
    let from = peer.map(|ip| gateway.proxies.client(&headers, ip));
    for name in [FORWARDED_FOR, REAL_IP, FORWARDED_PROTO] {
        headers.remove(name);
    }
    if let Some(ip) = from.and_then(|from| HeaderValue::from_str(&from.ip.to_string()).ok()) {
        headers.insert(FORWARDED_FOR, ip.clone());
        headers.insert(REAL_IP, ip);
    }
    if is_secure || from.is_some_and(|from| from.secure) {
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    }
    // auth-service believes the caller's address from a bearer of the service token alone.
    let token = HeaderValue::from_str(gateway.ctx.secrets.service_token.current().expose());
    if let Ok(mut token) = token {
        token.set_sensitive(true);
        headers.insert(TOKEN_KEY, token);
    }
    client::origin().put(&mut headers);
    let mut onward = hyper::Request::new(Full::new(content));
    *onward.method_mut() = parts.method;
    *onward.uri_mut() = uri;
    *onward.headers_mut() = headers;
    let unreachable = |why: &dyn std::fmt::Display| {
        tracing::warn!(error = %why, "auth-service");
        Failure::new(StatusCode::BAD_GATEWAY, "auth-service cannot be reached; try again")
    };
    let response = match tokio::time::timeout(deadline::FORWARDED, gateway.http.request(onward)).await {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => return Err(unreachable(&e)),
        Err(_) => {
            tracing::warn!(deadline = ?deadline::FORWARDED, "auth-service has not answered");
            let busy = Failure::new(StatusCode::SERVICE_UNAVAILABLE, "auth-service is busy; try again");
            return Err(Failure { retry_after_s: Some(RETRY_AFTER_S), ..busy });
        }
    };
    if let Some(session) = session.filter(|_| response.status().is_success()) {
        gateway.sessions.forget(session.id).await;
    }
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// Takes off what concerns one hop only, and our own names, which no client may use.
fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in listed {
        headers.remove(name);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    let own: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with("x-fafnir-")).cloned().collect();
    for name in own {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_one_hop_and_our_own_do_not_pass() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, X-Secret"),
            ("x-secret", "1"),
            ("x-fafnir-token", "t"),
            ("x-fafnir-system", "admin"),
            ("te", "trailers"),
            ("cookie", "auth_token=t"),
            ("x-csrf-token", "c"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["cookie", "x-csrf-token"]);
    }
}
