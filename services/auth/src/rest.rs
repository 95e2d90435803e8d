//! The REST door `/auth/*` (public-api §3 and §4): strict JSON in, the envelope for every failure, cookies.

use super::{
    domain::{NewUser, Password},
    operations::{self, Client, Kind, Operations, SignedIn},
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware,
    response::{IntoResponse, Response},
    routing::{delete, get, post},
};
use fafnir_platform::{
    caller, csrf,
    envelope::Failure,
    token::{self, Presented},
};
use fafnir_proto::{
    client,
    id::{SessionId, UserId},
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};
use tower_http::limit::RequestBodyLimitLayer;

/// Bytes of a request.
const BODY_MAX: usize = 16 * 1024;
/// Asks for the tokens themselves beside the cookies.
const TOKEN_MEDIA_TYPE: &str = "application/vnd.fafnir.token+json";
/// Set by the gateway, believed only with the service token.
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// The router of `/auth/*` and of the public keys.
pub fn router(operations: Operations) -> Router {
    Router::new()
        .route("/auth/register", post(register))
        .route("/auth/login", post(login))
        .route("/auth/refresh", post(refresh))
        .route("/auth/logout", delete(logout))
        .route("/auth/delete", delete(delete_user))
        .route("/auth/me", get(me))
        .route("/auth/password", post(change_password))
        .route("/.well-known/jwks.json", get(jwks))
        .fallback(|| async { Failure::new(StatusCode::NOT_FOUND, "there is nothing here") })
        .method_not_allowed_fallback(|| async {
            Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here")
        })
        .layer(RequestBodyLimitLayer::new(BODY_MAX))
        .layer(middleware::map_response(in_the_envelope))
        .layer(middleware::from_fn(traced))
        .with_state(operations)
}

/// What the request came with is told along with every call made on the way.
async fn traced(request: axum::extract::Request, next: middleware::Next) -> Response {
    client::from(client::Origin::of(request.headers()), next.run(request)).await
}

/// A body that is too large is refused before a handler sees it, without our envelope.
async fn in_the_envelope(response: Response) -> Response {
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        let text = format!("the body must have at most {BODY_MAX} bytes");
        return Failure::new(StatusCode::PAYLOAD_TOO_LARGE, text).into_response();
    }
    response
}

impl From<operations::Failure> for Failure {
    fn from(f: operations::Failure) -> Self {
        let retry_after_s = f.retry_after_s();
        let failure = Self::from(fafnir_platform::Error::from(f));
        Self { retry_after_s: retry_after_s.or(failure.retry_after_s), ..failure }
    }
}

/// Where a request comes from.
struct Origin {
    client: Client,
    /// The client came over TLS.
    secure: bool,
}

impl FromRequestParts<Operations> for Origin {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, operations: &Operations) -> Result<Self, Infallible> {
        let headers = &parts.headers;
        let text = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("").trim();
        let mut ip = parts
            .extensions
            .get::<ConnectInfo<SocketAddr>>()
            .map_or(IpAddr::from([0, 0, 0, 0]), |ConnectInfo(peer)| peer.ip());
        let mut secure = false;
        if caller::has_token(headers, &operations.ctx.secrets.service_token) {
            let nearest = text(FORWARDED_FOR).rsplit(',').next().unwrap_or("").trim();
            ip = nearest.parse().unwrap_or(ip);
            secure = text(FORWARDED_PROTO).eq_ignore_ascii_case("https");
        }
        Ok(Self { client: Client { ip, user_agent: text("user-agent").to_owned() }, secure })
    }
}

/// A request whose token is genuine and whose session is alive.
struct SignedInUser {
    user: UserId,
    session: SessionId,
    bearer: bool,
}

impl SignedInUser {
    /// Reads the token of a request. `unsafe_method`: a cookie then needs its CSRF token.
    async fn of(operations: &Operations, headers: &HeaderMap, unsafe_method: bool) -> Result<Self, Failure> {
        let not_signed_in = || Failure::unauthorized("sign in first");
        let presented = token::presented(headers).ok_or_else(not_signed_in)?;
        let claims = operations
            .signing()
            .keys
            .verify(presented.token(), operations.ctx.clock.now_us())
            .map_err(|_| not_signed_in())?;
        let (user, _) = operations.session(claims.sid).await?.ok_or_else(not_signed_in)?;
        if user != claims.sub {
            return Err(not_signed_in());
        }
        let bearer = matches!(presented, Presented::Bearer(_));
        if unsafe_method && !bearer {
            let key = &operations.ctx.secrets.csrf_key;
            if !csrf::is_valid(key, headers, claims.sid) {
                return Err(Failure::unauthorized("the CSRF token is missing or wrong"));
            }
        }
        Ok(Self { user, session: claims.sid, bearer })
    }
}

fn parse<T: DeserializeOwned>(headers: &HeaderMap, body: &Bytes) -> Result<T, Failure> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(Failure::bad_request("the content type must be application/json"));
    }
    serde_json::from_slice(body).map_err(|e| {
        // The place of the error is of use, an echo of the body is not.
        let text = e.to_string();
        let message =
            if e.is_data() { text.chars().take(200).collect() } else { "the body is not JSON".to_owned() };
        Failure::bad_request(message)
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Registration {
    email: String,
    password: String,
    first_name: String,
    last_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Registered {
    user_id: UserId,
    message: &'static str,
}

async fn register(
    State(operations): State<Operations>,
    origin: Origin,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let r: Registration = parse(&headers, &body)?;
    let new = NewUser::parse(&r.email, &r.password, &r.first_name, &r.last_name)?;
    let user_id = operations.register(new, &origin.client).await?;
    Ok((StatusCode::CREATED, Json(Registered { user_id, message: "registered; sign in to go on" }))
        .into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credentials {
    email: String,
    password: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TokenPair {
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'static str>,
    access_token: String,
    refresh_token: String,
    expires_in: u32,
}

impl TokenPair {
    fn new(s: SignedIn, message: Option<&'static str>) -> Self {
        Self {
            message,
            access_token: s.access_token,
            refresh_token: s.refresh_token,
            expires_in: s.expires_in_s,
        }
    }
}

const SIGNED_IN: &str = "signed in";

async fn login(
    State(operations): State<Operations>,
    origin: Origin,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let r: Credentials = parse(&headers, &body)?;
    if r.email.trim().is_empty() || r.password.is_empty() {
        return Err(Failure::bad_request("email and password must not be empty"));
    }
    let wants_tokens = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case(TOKEN_MEDIA_TYPE));
    let kind = if wants_tokens { Kind::Bearer } else { Kind::Cookie };
    let signed_in = operations.sign_in(&r.email, &r.password, kind, &origin.client).await?;
    let session = signed_in.session_id;
    let token = signed_in.access_token.clone();
    let mut response = if wants_tokens {
        let mut response = Json(TokenPair::new(signed_in, Some(SIGNED_IN))).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(TOKEN_MEDIA_TYPE));
        response
    } else {
        Json(serde_json::json!({ "message": SIGNED_IN })).into_response()
    };
    set_cookies(
        &mut response,
        &token,
        &operations.csrf_token(session),
        csrf::COOKIE_MAX_AGE_S,
        origin.secure,
    );
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct RefreshBody {
    refresh_token: String,
}

async fn refresh(
    State(operations): State<Operations>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let r: RefreshBody = parse(&headers, &body)?;
    let pair = TokenPair::new(operations.refresh(&r.refresh_token).await?, None);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(pair)).into_response())
}

async fn logout(
    State(operations): State<Operations>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let user = SignedInUser::of(&operations, &headers, true).await?;
    operations.sign_out(user.session).await?;
    Ok(gone(origin.secure))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Deletion {
    password: String,
}

async fn delete_user(
    State(operations): State<Operations>,
    origin: Origin,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let user = SignedInUser::of(&operations, &headers, true).await?;
    // A browser's page has asked its user; who holds a token may have found it.
    if user.bearer {
        let given = if body.is_empty() { None } else { Some(parse::<Deletion>(&headers, &body)?) };
        let password = given.as_ref().map(|d| d.password.as_str());
        operations.check_deletion(user.user, user.session, password, &origin.client).await?;
    }
    if operations.delete(user.user).await? {
        Ok(gone(origin.secure))
    } else {
        Err(Failure::new(StatusCode::NOT_FOUND, "there is no such user"))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Me {
    user_id: UserId,
    email: String,
}

async fn me(State(operations): State<Operations>, headers: HeaderMap) -> Result<Response, Failure> {
    let user = SignedInUser::of(&operations, &headers, false).await?;
    let found = operations.user(user.user).await?;
    let found = found.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "there is no such user"))?;
    Ok(Json(Me { user_id: found.id, email: found.email }).into_response())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PasswordChange {
    current: String,
    new: String,
}

async fn change_password(
    State(operations): State<Operations>,
    origin: Origin,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let user = SignedInUser::of(&operations, &headers, true).await?;
    let r: PasswordChange = parse(&headers, &body)?;
    let new = Password::parse("new", &r.new)?;
    operations.change_password(user.user, user.session, &r.current, new, &origin.client).await?;
    tracing::info!(user = %user.user, bearer = user.bearer, "password changed");
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn jwks(State(operations): State<Operations>) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], Body::from(operations.jwks())).into_response()
}

/// 204, and both cookies expired.
fn gone(secure: bool) -> Response {
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookies(&mut response, "", "", 0, secure);
    response
}

fn set_cookies(response: &mut Response, token: &str, csrf_token: &str, max_age_s: u32, secure: bool) {
    for value in csrf::cookies(token, csrf_token, max_age_s, secure) {
        response.headers_mut().append(header::SET_COOKIE, value);
    }
}
