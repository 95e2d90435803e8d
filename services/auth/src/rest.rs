//! The REST door `/auth/*` (public-api §3 and §4): strict JSON in, the envelope for every failure, cookies.

mod body;
mod openapi;

use super::{
    domain::{NewUser, Password},
    operations::{self, Client, Kind, Operations},
};
use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{ConnectInfo, FromRequestParts, State},
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use body::{
    Credentials, Deletion, Me, Message, PasswordChange, RefreshBody, Registered, Registration, TokenPair,
};
use fafnir_platform::{
    caller, csrf,
    envelope::{Envelope, Failure},
    token::{self, Presented},
};
use fafnir_proto::{
    client,
    id::{SessionId, UserId},
};
use openapi::Frame;
use serde::de::DeserializeOwned;
use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};
use tower_http::limit::RequestBodyLimitLayer;
use utoipa::OpenApi as _;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Where the OpenAPI document is.
const OPENAPI_PATH: &str = "/openapi.json";
/// Bytes of a request.
const BODY_MAX: usize = 16 * 1024;
/// Asks for the tokens themselves beside the cookies.
const TOKEN_MEDIA_TYPE: &str = "application/vnd.fafnir.token+json";
/// Set by the gateway, believed only with the service token.
const FORWARDED_FOR: &str = "x-forwarded-for";
const FORWARDED_PROTO: &str = "x-forwarded-proto";

/// Each route with what it says of itself.
fn routes() -> OpenApiRouter<Operations> {
    OpenApiRouter::with_openapi(Frame::openapi())
        .routes(routes!(register))
        .routes(routes!(login))
        .routes(routes!(refresh))
        .routes(routes!(logout))
        .routes(routes!(delete_user))
        .routes(routes!(me))
        .routes(routes!(change_password))
        .routes(routes!(jwks))
}

/// The OpenAPI document of these routes, as it is served and committed.
pub fn openapi() -> String {
    text_of(&routes().into_openapi())
}

fn text_of(document: &utoipa::openapi::OpenApi) -> String {
    // Strings and maps with string keys: nothing that JSON has not.
    document.to_pretty_json().map_or_else(|_| String::new(), |json| json + "\n")
}

/// The router of `/auth/*`, of the public keys, and of what describes them.
pub fn router(operations: Operations) -> Router {
    let (router, document) = routes().split_for_parts();
    let document = text_of(&document);
    router
        .route(
            OPENAPI_PATH,
            get(move || async move { ([(header::CONTENT_TYPE, "application/json")], document) }),
        )
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

/// Registers a user: signed in it is not yet.
#[utoipa::path(
    post,
    path = "/auth/register",
    request_body = Registration,
    responses(
        (status = 201, body = Registered, description = "registered, for good"),
        (status = 400, body = Envelope, description = "INVALID_INPUT: names the field and its limit"),
        (status = 409, body = Envelope, description = "CONFLICT: the e-mail has a user already"),
        (status = 429, body = Envelope, description = "RATE_LIMITED: too many at a time; Retry-After says when"),
    )
)]
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

const SIGNED_IN: &str = "signed in";

/// Signs in: both cookies, and the tokens themselves for whoever accepts `application/vnd.fafnir.token+json`.
#[utoipa::path(
    post,
    path = "/auth/login",
    request_body = Credentials,
    responses(
        (
            status = 200,
            description = "signed in: the cookies auth_token and csrf_token are set",
            content((Message = "application/json"), (TokenPair = "application/vnd.fafnir.token+json"))
        ),
        (status = 400, body = Envelope, description = "INVALID_INPUT: a field is missing or empty"),
        (status = 401, body = Envelope, description = "UNAUTHORIZED: e-mail or password is wrong"),
        (status = 429, body = Envelope, description = "RATE_LIMITED: too many tries; Retry-After says when"),
    )
)]
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
        Json(Message { message: SIGNED_IN }).into_response()
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

/// Exchanges a refresh token for a new pair; used twice it ends its session.
#[utoipa::path(
    post,
    path = "/auth/refresh",
    request_body = RefreshBody,
    responses(
        (status = 200, body = TokenPair, description = "a new pair"),
        (status = 400, body = Envelope, description = "INVALID_INPUT: the body is malformed"),
        (status = 401, body = Envelope, description = "UNAUTHORIZED: the token is unknown, used or too old"),
    )
)]
async fn refresh(
    State(operations): State<Operations>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let r: RefreshBody = parse(&headers, &body)?;
    let pair = TokenPair::new(operations.refresh(&r.refresh_token).await?, None);
    Ok(([(header::CACHE_CONTROL, "no-store")], Json(pair)).into_response())
}

/// Ends the session.
#[utoipa::path(
    delete,
    path = "/auth/logout",
    security(("bearer" = []), ("cookie" = [], "csrf" = [])),
    responses(
        (status = 204, description = "signed out: both cookies are expired"),
        (status = 401, body = Envelope, description = "UNAUTHORIZED: nobody is signed in, or the CSRF token is wrong"),
    )
)]
async fn logout(
    State(operations): State<Operations>,
    origin: Origin,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let user = SignedInUser::of(&operations, &headers, true).await?;
    operations.sign_out(user.session).await?;
    Ok(gone(origin.secure))
}

/// Closes the accounts of the user and deletes it.
///
/// A Bearer caller whose sign-in is older than ten minutes gives the
/// password.
#[utoipa::path(
    delete,
    path = "/auth/delete",
    request_body = Option<Deletion>,
    security(("bearer" = []), ("cookie" = [], "csrf" = [])),
    responses(
        (status = 204, description = "deleted: both cookies are expired"),
        (status = 400, body = Envelope, description = "INVALID_INPUT: it cannot be deleted now, and why"),
        (status = 401, body = Envelope, description = "UNAUTHORIZED: nobody is signed in, or the password is missing or wrong"),
        (status = 404, body = Envelope, description = "NOT_FOUND: there is no such user"),
        (status = 429, body = Envelope, description = "RATE_LIMITED: too many tries; Retry-After says when"),
    )
)]
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

/// Who is signed in.
#[utoipa::path(
    get,
    path = "/auth/me",
    security(("bearer" = []), ("cookie" = [])),
    responses(
        (status = 200, body = Me, description = "the user of the token"),
        (status = 401, body = Envelope, description = "UNAUTHORIZED: nobody is signed in"),
        (status = 404, body = Envelope, description = "NOT_FOUND: there is no such user"),
    )
)]
async fn me(State(operations): State<Operations>, headers: HeaderMap) -> Result<Response, Failure> {
    let user = SignedInUser::of(&operations, &headers, false).await?;
    let found = operations.user(user.user).await?;
    let found = found.ok_or_else(|| Failure::new(StatusCode::NOT_FOUND, "there is no such user"))?;
    Ok(Json(Me { user_id: found.id, email: found.email }).into_response())
}

/// Changes the password, and ends every other session of the user.
#[utoipa::path(
    post,
    path = "/auth/password",
    request_body = PasswordChange,
    security(("bearer" = []), ("cookie" = [], "csrf" = [])),
    responses(
        (status = 204, description = "changed"),
        (status = 400, body = Envelope, description = "INVALID_INPUT: names the field and its limit"),
        (status = 401, body = Envelope, description = "UNAUTHORIZED: nobody is signed in, or the current password is wrong"),
        (status = 429, body = Envelope, description = "RATE_LIMITED: too many tries; Retry-After says when"),
    )
)]
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

/// The public keys that verify access tokens (RFC 7517).
#[utoipa::path(
    get,
    path = "/.well-known/jwks.json",
    responses((status = 200, body = Object, description = "a JWK set"))
)]
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
