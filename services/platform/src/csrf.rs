//! Cross-site request forgery: a token bound to the session by HMAC, and where a browser says a request comes from.
//!
//! A caller with a cookie needs the token for every unsafe REST method and for GraphQL mutations (decided on the parsed
//! operation); a Bearer caller needs none. A failure answers 401 UNAUTHORIZED.

use super::{
    secrets::{Rotating, Secret, constant_time_eq},
    token,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fafnir_proto::id::SessionId;
use http::{HeaderMap, HeaderValue, header};
use ring::hmac;

/// Cookie that a script of our own page reads.
pub const COOKIE: &str = "csrf_token";
/// Seconds that both cookies of a session live.
pub const COOKIE_MAX_AGE_S: u32 = 86_400;
/// Header in which it sends the token back.
pub const HEADER: &str = "x-csrf-token";

fn message(session: SessionId) -> Vec<u8> {
    [b"csrf:".as_slice(), session.uuid().as_bytes()].concat()
}

/// The CSRF token of a session: the same every time, of no use to anybody but that session.
pub fn token_of(key: &Secret, session: SessionId) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes());
    URL_SAFE_NO_PAD.encode(hmac::sign(&key, &message(session)))
}

/// Both cookies of a session as `Set-Cookie` has them; a `max_age_s` of 0 takes them away.
#[expect(clippy::expect_used, reason = "a token is URL-safe base64 and dots")]
pub fn cookies(token: &str, csrf_token: &str, max_age_s: u32, secure: bool) -> [HeaderValue; 2] {
    let end = if secure { "; Secure" } else { "" };
    let (access, csrf) = (token::TOKEN_COOKIE, COOKIE);
    [
        format!("{access}={token}; Path=/; Max-Age={max_age_s}; HttpOnly; SameSite=Lax{end}"),
        format!("{csrf}={csrf_token}; Path=/; Max-Age={max_age_s}; SameSite=Lax{end}"),
    ]
    .map(|cookie| HeaderValue::try_from(cookie).expect("invariant: tokens are URL-safe base64 and dots"))
}

/// Whether the request's `X-CSRF-Token` equals its cookie and belongs to the session.
pub fn is_valid(key: &Rotating, headers: &HeaderMap, session: SessionId) -> bool {
    let mut given = headers.get_all(HEADER).iter();
    let (Some(sent), None) = (given.next().and_then(|v| v.to_str().ok()), given.next()) else {
        return false;
    };
    let Some(cookie) = token::cookie(headers, COOKIE) else {
        return false;
    };
    let fits = |key: &Secret| constant_time_eq(sent.as_bytes(), token_of(key, session).as_bytes());
    let is_known = key.accepted().iter().fold(false, |known, key| known | fits(key));
    constant_time_eq(sent.as_bytes(), cookie.as_bytes()) & is_known
}

/// Whether `Origin` and `Sec-Fetch-Site`, where present, name a page that may call. The public door checks this for
/// every request that a browser can make a user send; `allowed` are the configured CORS origins.
///
/// An origin passes when it is configured, when its authority is the request's own `Host`, or when both are loopback
/// (a development server beside ours).
pub fn origin_is_ours(headers: &HeaderMap, allowed: &[String]) -> bool {
    let text = |name| headers.get(name).map(|v: &HeaderValue| v.to_str().unwrap_or("invalid"));
    let Some(origin) = text(header::ORIGIN) else {
        return text(http::HeaderName::from_static("sec-fetch-site")) != Some("cross-site");
    };
    if allowed.iter().any(|o| o.trim_end_matches('/').eq_ignore_ascii_case(origin)) {
        return true;
    }
    let Some(authority) = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://")) else {
        return false;
    };
    text(header::HOST).is_some_and(|host| {
        host.eq_ignore_ascii_case(authority) || (is_loopback(host) && is_loopback(authority))
    })
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
        _ => authority,
    };
    host.eq_ignore_ascii_case("localhost") || host == "127.0.0.1" || host == "[::1]"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, String)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(http::HeaderName::from_static(name), value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn a_token_must_come_twice_and_belong_to_the_session() {
        let (key, rotating) = {
            let key = Secret::new("0123456789abcdef");
            (key.clone(), Rotating::fixed(key))
        };
        let (mine, other) = (SessionId::new(uuid::Uuid::new_v4()), SessionId::new(uuid::Uuid::new_v4()));
        let good = token_of(&key, mine);
        let foreign = token_of(&key, other);
        let case = |header: &str, cookie: &str| {
            let h = headers(&[("x-csrf-token", header.into()), ("cookie", format!("csrf_token={cookie}"))]);
            is_valid(&rotating, &h, mine)
        };
        assert!(case(&good, &good));
        assert!(!case(&good, &foreign));
        assert!(!case(&foreign, &good));
        assert!(!case(&foreign, &foreign), "double submit alone is not enough");
        assert!(!case("", ""));
        assert!(!is_valid(&rotating, &headers(&[("cookie", format!("csrf_token={good}"))]), mine));
        assert!(!is_valid(&rotating, &headers(&[("x-csrf-token", good.clone())]), mine));
        let twice = headers(&[
            ("x-csrf-token", good.clone()),
            ("x-csrf-token", good.clone()),
            ("cookie", format!("csrf_token={good}")),
        ]);
        assert!(!is_valid(&rotating, &twice, mine));
        assert!(!is_valid(&Rotating::fixed(Secret::new("another key here")), &headers(&[]), mine));
    }

    #[test]
    fn a_foreign_page_is_told_by_its_origin() {
        let allowed = vec!["https://app.example".to_owned()];
        let case = |pairs: &[(&'static str, &str)]| {
            let pairs: Vec<_> = pairs.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
            origin_is_ours(&headers(&pairs), &allowed)
        };
        assert!(case(&[]));
        assert!(case(&[("host", "fafnir.example"), ("origin", "https://fafnir.example")]));
        assert!(case(&[("host", "localhost:8080"), ("origin", "http://localhost:5173")]));
        assert!(case(&[("host", "[::1]:8080"), ("origin", "http://127.0.0.1:5173")]));
        assert!(case(&[("host", "api.example"), ("origin", "https://app.example")]));
        assert!(!case(&[("host", "fafnir.example"), ("origin", "https://evil.example")]));
        assert!(!case(&[("host", "fafnir.example"), ("origin", "http://localhost:5173")]));
        assert!(!case(&[("host", "fafnir.example"), ("origin", "null")]));
        assert!(!case(&[("host", "localhost:8080"), ("origin", "http://localhost.evil.example")]));
        assert!(!case(&[("sec-fetch-site", "cross-site")]));
        assert!(case(&[("sec-fetch-site", "same-origin")]));
    }
}
