//! API keys at the door: how a request carries one, and what caller it makes.

use super::session::Session;
use axum::http::{HeaderMap, HeaderName, header};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fafnir_platform::Refusal;
use fafnir_proto::{
    id::{SessionId, UserId},
    v1,
};
use ring::digest;
use std::{fmt, net::IpAddr, sync::Arc};

/// The two halves in headers of their own, as bots for Alpaca send them (alpaca.md §2).
pub const ID_HEADER: HeaderName = HeaderName::from_static("apca-api-key-id");
pub const SECRET_HEADER: HeaderName = HeaderName::from_static("apca-api-secret-key");
/// Longest half that is looked at, in bytes.
const HALF_LEN_MAX: usize = 128;

/// Both halves of a key as a request carries them.
#[derive(Clone, PartialEq, Eq)]
pub struct Presented {
    pub id: String,
    pub secret: String,
}

impl fmt::Debug for Presented {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Presented").field("id", &self.id).field("secret", &"****").finish()
    }
}

impl Presented {
    pub fn new(id: &str, secret: &str) -> Result<Self, Refusal> {
        if id.len() > HALF_LEN_MAX || secret.len() > HALF_LEN_MAX {
            return Err(Refusal::unauthenticated("the API key is not valid here"));
        }
        Ok(Self { id: id.trim().to_owned(), secret: secret.trim().to_owned() })
    }

    /// Out of what stands behind `Basic ` (RFC 7617).
    pub fn basic(text: &str) -> Result<Self, Refusal> {
        let malformed = || Refusal::unauthenticated("Basic takes the base64 of KEY_ID:SECRET");
        let bytes = STANDARD.decode(text.trim()).map_err(|_| malformed())?;
        let text = String::from_utf8(bytes).map_err(|_| malformed())?;
        let (id, secret) = text.split_once(':').ok_or_else(malformed)?;
        Self::new(id, secret)
    }
}

/// The key that the headers carry, if any. Headers of its own win over `Authorization`, which wins over a cookie.
pub fn presented(headers: &HeaderMap) -> Result<Option<Presented>, Refusal> {
    let text = |name: &HeaderName| headers.get(name).map(|v| v.to_str().unwrap_or(""));
    match (text(&ID_HEADER), text(&SECRET_HEADER)) {
        (None, None) => {}
        (Some(id), Some(secret)) => return Presented::new(id, secret).map(Some),
        _ => {
            return Err(Refusal::unauthenticated(format!(
                "a key needs both {ID_HEADER} and {SECRET_HEADER}"
            )));
        }
    }
    match text(&header::AUTHORIZATION).and_then(|v| v.split_once(' ')) {
        Some((scheme, text)) if scheme.eq_ignore_ascii_case("basic") => Presented::basic(text).map(Some),
        _ => Ok(None),
    }
}

/// A key that somebody presented, without its secret: what an answer is remembered by.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Asked {
    id: String,
    secret_hash: Vec<u8>,
    from: IpAddr,
}

impl Asked {
    pub fn new(presented: &Presented, from: IpAddr) -> Self {
        let secret_hash = digest::digest(&digest::SHA256, presented.secret.as_bytes());
        Self { id: presented.id.clone(), secret_hash: secret_hash.as_ref().to_vec(), from }
    }
}

/// What a caller's key is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The public half.
    pub id: String,
    /// It has the scope `trade`; every key has `read`.
    pub trades: bool,
    /// The only account that it reaches; `None`: every one of its user.
    pub account: Option<String>,
}

/// The caller that a key makes; `None` where it does not open.
pub fn session(reply: v1::KeyReply) -> Option<Session> {
    let key = reply.key.filter(|_| reply.active)?;
    Some(Session {
        user: UserId::parse(&key.user_id).ok()?,
        id: SessionId::parse(&reply.session_id).ok()?,
        expires_us: if key.expires_us == 0 { i64::MAX } else { key.expires_us },
        by_cookie: false,
        key: Some(Arc::new(Key {
            trades: key.scopes.iter().any(|s| s == "trade"),
            account: (!key.account_id.is_empty()).then_some(key.account_id),
            id: key.id,
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(k, v)| (HeaderName::from_static(k), v.parse().unwrap())).collect()
    }

    #[test]
    fn a_key_comes_in_two_headers_or_as_basic_and_else_there_is_none() {
        let key = Presented { id: "PK1".to_owned(), secret: "s:2".to_owned() };
        let both = headers(&[
            ("apca-api-key-id", "PK1"),
            ("apca-api-secret-key", "s:2"),
            ("authorization", "Bearer t"),
        ]);
        assert_eq!(presented(&both), Ok(Some(key.clone())));
        let basic = format!("bAsIc {}", STANDARD.encode("PK1:s:2"));
        assert_eq!(presented(&headers(&[("authorization", &basic)])), Ok(Some(key)));
        for none in [&[][..], &[("authorization", "Bearer t")], &[("authorization", "Basic")]] {
            assert_eq!(presented(&headers(none)), Ok(None));
        }
        for bad in [
            &[("apca-api-key-id", "PK1")][..],
            &[("apca-api-secret-key", "s")],
            &[("authorization", "Basic !!")],
            &[("authorization", "Basic UEsx")],
        ] {
            assert!(presented(&headers(bad)).is_err(), "{bad:?}");
        }
        let long = "x".repeat(HALF_LEN_MAX + 1);
        assert!(presented(&headers(&[("apca-api-key-id", &long), ("apca-api-secret-key", "s")])).is_err());
    }

    #[test]
    fn a_secret_is_not_shown() {
        assert!(!format!("{:?}", Presented::new("PK1", "hush").unwrap()).contains("hush"));
    }
}
