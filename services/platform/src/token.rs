//! Access tokens: what they claim and how anybody verifies them with auth-service's public keys.
//!
//! Tokens are EdDSA (Ed25519) JWTs. auth-service alone signs (it alone has a [`SigningKey`]); everybody else holds
//! [`Keys`] read from its JWKS document. Time is handed in: this file never reads a clock.

use super::clock::SECOND_US;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fafnir_proto::id::{SessionId, UserId};
use http::{HeaderMap, header};
use jsonwebtoken::{
    Algorithm, DecodingKey, EncodingKey, Header, Validation,
    crypto::{CryptoProvider, JwtSigner, JwtVerifier, KeyUtils},
    errors::ErrorKind,
    signature,
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::{collections::BTreeMap, fmt, sync::Once};
use uuid::Uuid;

/// `iss` of every access token.
pub const ISSUER: &str = "fafnir-auth";
/// `aud` of every access token.
pub const AUDIENCE: &str = "fafnir";
/// `typ` of every access token (RFC 9068).
pub const TYPE: &str = "at+jwt";
/// Clocks may differ by this much, in seconds.
pub const LEEWAY_S: i64 = 5;
/// A token longer than this many bytes is refused unread.
pub const TOKEN_LEN_MAX: usize = 2048;
/// Keys of a JWKS document that are read.
const KEYS_MAX: usize = 16;
/// Cookie that carries the access token of a browser.
pub const TOKEN_COOKIE: &str = "auth_token";

/// What an access token says; every field is required. Times are seconds since 1970 UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    pub iss: String,
    pub aud: String,
    /// The user.
    pub sub: UserId,
    /// The session; ask auth-service whether it is still alive.
    pub sid: SessionId,
    pub jti: Uuid,
    pub iat: i64,
    pub nbf: i64,
    pub exp: i64,
}

impl Claims {
    /// Refuses what has expired or is not valid yet at `now_us`, give or take [`LEEWAY_S`].
    pub fn check_times(&self, now_us: i64) -> Result<(), Error> {
        let now_s = now_us.div_euclid(SECOND_US);
        if self.exp.saturating_add(LEEWAY_S) <= now_s {
            return Err(Error::Expired);
        }
        let latest = now_s.saturating_add(LEEWAY_S);
        if self.nbf > latest || self.iat > latest {
            return Err(Error::NotYet);
        }
        Ok(())
    }
}

/// Why a token is refused. All of them mean "not signed in" to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the token is malformed")]
    Malformed,
    #[error("the token's algorithm or type is not accepted")]
    Algorithm,
    /// Nobody here knows the key: fetch the JWKS again, at most once in a while.
    #[error("the token was signed with an unknown key")]
    UnknownKey,
    #[error("the token's signature is wrong")]
    Signature,
    #[error("the token is for somebody else")]
    Audience,
    #[error("the token has expired")]
    Expired,
    #[error("the token is not valid yet")]
    NotYet,
}

/// The public keys that verify access tokens, by `kid`.
#[derive(Clone, Default)]
pub struct Keys(BTreeMap<String, DecodingKey>);

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Keys").field(&self.0.keys().collect::<Vec<_>>()).finish()
    }
}

#[derive(Serialize, Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Serialize, Deserialize)]
struct Jwk {
    kty: String,
    crv: String,
    alg: String,
    #[serde(rename = "use")]
    usage: String,
    kid: String,
    x: String,
}

impl Keys {
    /// Reads a JWKS document (`Auth.Jwks`, `/.well-known/jwks.json`); keys of other kinds are skipped.
    pub fn from_jwks(json: &str) -> Result<Self, Error> {
        let set: JwkSet = serde_json::from_str(json).map_err(|_| Error::Malformed)?;
        let mut keys = BTreeMap::new();
        for jwk in set.keys.into_iter().take(KEYS_MAX) {
            if jwk.kty == "OKP" && jwk.crv == "Ed25519" {
                let key = DecodingKey::from_ed_components(&jwk.x).map_err(|_| Error::Malformed)?;
                keys.insert(jwk.kid, key);
            }
        }
        Ok(Self(keys))
    }

    /// The claims of a token that is genuine, ours and valid at `now_us`. Whether its session is still alive is
    /// another question (`Auth.Session`).
    pub fn verify(&self, token: &str, now_us: i64) -> Result<Claims, Error> {
        let claims = self.genuine(token)?;
        claims.check_times(now_us)?;
        Ok(claims)
    }

    /// The claims of a token that one of these keys signed for us, whenever it is valid.
    fn genuine(&self, token: &str) -> Result<Claims, Error> {
        install_provider();
        if token.len() > TOKEN_LEN_MAX {
            return Err(Error::Malformed);
        }
        // An algorithm that the library does not know (`none` among them) is already an error here.
        let header = jsonwebtoken::decode_header(token).map_err(|e| match e.kind() {
            ErrorKind::Json(_) | ErrorKind::InvalidAlgorithmName => Error::Algorithm,
            _ => Error::Malformed,
        })?;
        let own_key = header.jku.is_some() || header.jwk.is_some() || header.x5u.is_some();
        if header.alg != Algorithm::EdDSA
            || own_key
            || header.x5c.is_some()
            || header.crit.is_some()
            || header.typ.as_deref() != Some(TYPE)
        {
            return Err(Error::Algorithm);
        }
        let key = header.kid.and_then(|kid| self.0.get(&kid)).ok_or(Error::UnknownKey)?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[ISSUER]);
        validation.set_required_spec_claims(&["exp", "nbf", "aud", "iss", "sub"]);
        // Times are another check, against the clock that the caller hands in.
        validation.validate_exp = false;
        let decoded = jsonwebtoken::decode::<Claims>(token, key, &validation);
        let token = decoded.map_err(|e| match e.kind() {
            ErrorKind::InvalidSignature => Error::Signature,
            ErrorKind::InvalidAudience | ErrorKind::InvalidIssuer => Error::Audience,
            ErrorKind::InvalidAlgorithm => Error::Algorithm,
            _ => Error::Malformed,
        })?;
        Ok(token.claims)
    }
}

/// The private key of auth-service.
pub struct SigningKey {
    key: EncodingKey,
    kid: String,
    x: String,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey").field("kid", &self.kid).finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads an Ed25519 key in PKCS#8 (DER). `kid` is its RFC 7638 thumbprint.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, Error> {
        install_provider();
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).map_err(|_| Error::Malformed)?;
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
        let kid = URL_SAFE_NO_PAD.encode(Sha256::digest(canonical));
        Ok(Self { key: EncodingKey::from_ed_der(pkcs8), kid, x })
    }

    /// The public half as a JWKS document.
    pub fn jwks(&self) -> String {
        Self::jwks_of(&[self])
    }

    /// The public halves of several as one document.
    #[expect(clippy::expect_used, reason = "the document holds plain strings")]
    pub fn jwks_of(keys: &[&Self]) -> String {
        let jwk = |key: &&Self| Jwk {
            kty: "OKP".into(),
            crv: "Ed25519".into(),
            alg: "EdDSA".into(),
            usage: "sig".into(),
            kid: key.kid.clone(),
            x: key.x.clone(),
        };
        let set = JwkSet { keys: keys.iter().map(jwk).collect() };
        serde_json::to_string(&set).expect("invariant: plain strings serialise")
    }

    /// Signs a token for a session, valid for `ttl_s` seconds from `now_us`.
    pub fn sign(&self, user: UserId, session: SessionId, now_us: i64, ttl_s: u32) -> Result<String, Error> {
        let now_s = now_us.div_euclid(SECOND_US);
        let claims = Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: user,
            sid: session,
            jti: Uuid::new_v4(),
            iat: now_s,
            nbf: now_s,
            exp: now_s.saturating_add(i64::from(ttl_s)),
        };
        self.sign_claims(&claims)
    }

    /// Signs any claims.
    pub fn sign_claims(&self, claims: &Claims) -> Result<String, Error> {
        let mut header = Header::new(Algorithm::EdDSA);
        header.typ = Some(TYPE.to_owned());
        header.kid = Some(self.kid.clone());
        jsonwebtoken::encode(&header, claims, &self.key).map_err(|_| Error::Malformed)
    }
}

/// A token as a request carries it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presented<'a> {
    /// `Authorization: Bearer …`: the terminal, the command line, bots. Needs no CSRF token.
    Bearer(&'a str),
    /// The browser's cookie: unsafe requests need the CSRF token (see [`super::csrf`]).
    Cookie(&'a str),
}

impl<'a> Presented<'a> {
    pub fn token(self) -> &'a str {
        match self {
            Self::Bearer(token) | Self::Cookie(token) => token,
        }
    }
}

/// The token that a request carries, if any. An `Authorization` header wins over a cookie, so that a request with both
/// is judged by the one that a page cannot make a browser send.
pub fn presented(headers: &HeaderMap) -> Option<Presented<'_>> {
    if let Some(value) = headers.get(header::AUTHORIZATION) {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        return scheme.eq_ignore_ascii_case("bearer").then(|| Presented::Bearer(token.trim()));
    }
    cookie(headers, TOKEN_COOKIE).map(Presented::Cookie)
}

/// The first cookie with this name.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find_map(|(key, value)| (key == name && !value.is_empty()).then_some(value))
}

/// Gives jsonwebtoken its cryptography: Ed25519 on ring, nothing else.
fn install_provider() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |algorithm, key| match algorithm {
            Algorithm::EdDSA => {
                let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.as_bytes())
                    .map_err(|_| ErrorKind::InvalidKeyFormat)?;
                Ok(Box::new(Signer(pair)))
            }
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        },
        verifier_factory: |algorithm, key| match algorithm {
            Algorithm::EdDSA => {
                Ok(Box::new(Verifier(UnparsedPublicKey::new(&ED25519, key.try_get_as_bytes()?.to_vec()))))
            }
            _ => Err(ErrorKind::InvalidAlgorithm.into()),
        },
        key_utils: KeyUtils::new_unimplemented(),
    };
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Fails only when another provider is there; signatures then fail closed.
        if PROVIDER.install_default().is_err() {
            tracing::error!("another cryptography provider for tokens is installed");
        }
    });
}

struct Signer(Ed25519KeyPair);

impl signature::Signer<Vec<u8>> for Signer {
    fn try_sign(&self, message: &[u8]) -> Result<Vec<u8>, signature::Error> {
        Ok(self.0.sign(message).as_ref().to_vec())
    }
}

impl JwtSigner for Signer {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

struct Verifier(UnparsedPublicKey<Vec<u8>>);

impl signature::Verifier<Vec<u8>> for Verifier {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Verifier {
    fn algorithm(&self) -> Algorithm {
        Algorithm::EdDSA
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ring::rand::SystemRandom;

    const NOW_US: i64 = 1_800_000_000 * SECOND_US;

    fn key() -> SigningKey {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        SigningKey::from_pkcs8(pkcs8.as_ref()).unwrap()
    }

    fn claims() -> Claims {
        let now = NOW_US / SECOND_US;
        Claims {
            iss: ISSUER.into(),
            aud: AUDIENCE.into(),
            sub: UserId::new(Uuid::new_v4()),
            sid: SessionId::new(Uuid::new_v4()),
            jti: Uuid::new_v4(),
            iat: now,
            nbf: now,
            exp: now + 600,
        }
    }

    fn part(json: &serde_json::Value) -> String {
        URL_SAFE_NO_PAD.encode(json.to_string())
    }

    /// A token with this header, over these claims, signed with this key whatever the header says.
    fn forged(header: &serde_json::Value, claims: &Claims, key: &SigningKey) -> String {
        let message = format!("{}.{}", part(header), part(&serde_json::to_value(claims).unwrap()));
        let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.key.as_bytes()).unwrap();
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())))
    }

    #[test]
    fn a_token_is_valid_from_its_issue_to_its_expiry() {
        let key = key();
        let keys = Keys::from_jwks(&key.jwks()).unwrap();
        let (user, session) = (UserId::new(Uuid::new_v4()), SessionId::new(Uuid::new_v4()));
        let token = key.sign(user, session, NOW_US, 600).unwrap();
        let read = keys.verify(&token, NOW_US).unwrap();
        assert_eq!((read.sub, read.sid, read.exp - read.iat), (user, session, 600));
        assert!(keys.verify(&token, NOW_US + 604 * SECOND_US).is_ok());
        assert_eq!(keys.verify(&token, NOW_US + 605 * SECOND_US), Err(Error::Expired));
        assert!(keys.verify(&token, NOW_US - 5 * SECOND_US).is_ok());
        assert_eq!(keys.verify(&token, NOW_US - 6 * SECOND_US), Err(Error::NotYet));
    }

    #[test]
    fn another_algorithm_is_refused_whatever_it_is_signed_with() {
        let key = key();
        let keys = Keys::from_jwks(&key.jwks()).unwrap();
        let body = part(&serde_json::to_value(claims()).unwrap());
        let kid = &key.kid;
        for alg in ["none", "None", "NONE", "nOnE"] {
            let header = part(&serde_json::json!({"alg": alg, "typ": TYPE, "kid": kid}));
            assert_eq!(keys.verify(&format!("{header}.{body}."), NOW_US), Err(Error::Algorithm), "{alg}");
        }
        // HS256 with the public key as the secret.
        let header = part(&serde_json::json!({"alg": "HS256", "typ": TYPE, "kid": kid}));
        let message = format!("{header}.{body}");
        for secret in [URL_SAFE_NO_PAD.decode(&key.x).unwrap(), key.x.clone().into_bytes()] {
            let mac =
                ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret), message.as_bytes());
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(mac));
            assert_eq!(keys.verify(&token, NOW_US), Err(Error::Algorithm));
        }
    }

    #[test]
    fn a_header_that_brings_its_own_key_or_another_type_is_refused() {
        let key = key();
        let keys = Keys::from_jwks(&key.jwks()).unwrap();
        let good = serde_json::json!({"alg": "EdDSA", "typ": TYPE, "kid": key.kid});
        assert!(keys.verify(&forged(&good, &claims(), &key), NOW_US).is_ok());
        for (name, value) in [
            ("jku", serde_json::json!("http://evil.example/jwks")),
            ("x5u", serde_json::json!("http://evil.example/x5u")),
            ("jwk", serde_json::json!({"kty": "OKP", "crv": "Ed25519", "x": key.x})),
            ("x5c", serde_json::json!(["AAAA"])),
            ("crit", serde_json::json!(["exp"])),
            ("typ", serde_json::json!("JWT")),
            ("typ", serde_json::json!(null)),
        ] {
            let mut header = good.clone();
            header[name] = value;
            let refused = keys.verify(&forged(&header, &claims(), &key), NOW_US);
            assert_eq!(refused, Err(Error::Algorithm), "{header}");
        }
        let mut header = good.clone();
        header["kid"] = serde_json::json!("../../etc/passwd");
        assert_eq!(keys.verify(&forged(&header, &claims(), &key), NOW_US), Err(Error::UnknownKey));
        let header = serde_json::json!({"alg": "EdDSA", "typ": TYPE});
        assert_eq!(keys.verify(&forged(&header, &claims(), &key), NOW_US), Err(Error::UnknownKey));
    }

    #[test]
    fn a_changed_or_foreign_token_is_refused() {
        let (key, other) = (key(), key());
        let keys = Keys::from_jwks(&key.jwks()).unwrap();
        let good = serde_json::json!({"alg": "EdDSA", "typ": TYPE, "kid": key.kid});
        assert_eq!(keys.verify(&forged(&good, &claims(), &other), NOW_US), Err(Error::Signature));
        let theirs = other.sign_claims(&claims()).unwrap();
        assert_eq!(keys.verify(&theirs, NOW_US), Err(Error::UnknownKey));
        for (aud, iss) in [("other", ISSUER), (AUDIENCE, "evil"), ("", ISSUER)] {
            let wrong = Claims { aud: aud.into(), iss: iss.into(), ..claims() };
            assert_eq!(keys.verify(&key.sign_claims(&wrong).unwrap(), NOW_US), Err(Error::Audience));
        }
        for text in ["", ".", "..", "...", "a.b.c", "é.é.é", &"a".repeat(TOKEN_LEN_MAX + 1)] {
            assert!(keys.verify(text, NOW_US).is_err(), "{text}");
        }
        // Every claim is required.
        let whole = serde_json::to_value(claims()).unwrap();
        for name in ["iss", "aud", "sub", "sid", "jti", "iat", "nbf", "exp"] {
            let mut body = whole.clone();
            body.as_object_mut().unwrap().remove(name);
            let message = format!("{}.{}", part(&good), part(&body));
            let pair = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.key.as_bytes()).unwrap();
            let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(pair.sign(message.as_bytes())));
            assert!(keys.verify(&token, NOW_US).is_err(), "without {name}");
        }
    }

    #[test]
    fn a_request_presents_a_bearer_token_or_a_cookie() {
        let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
            pairs.iter().map(|(k, v)| (http::HeaderName::from_static(k), v.parse().unwrap())).collect()
        };
        let cookies = headers(&[("cookie", "a=1; auth_token=t; csrf_token=c")]);
        assert_eq!(presented(&cookies), Some(Presented::Cookie("t")));
        assert_eq!(cookie(&cookies, "csrf_token"), Some("c"));
        assert_eq!(cookie(&cookies, "token"), None);
        let both = headers(&[("cookie", "auth_token=t"), ("authorization", "bearer b")]);
        assert_eq!(presented(&both), Some(Presented::Bearer("b")));
        assert_eq!(presented(&headers(&[("authorization", "Basic b"), ("cookie", "auth_token=t")])), None);
        assert_eq!(presented(&headers(&[("cookie", "auth_token=")])), None);
    }
}
