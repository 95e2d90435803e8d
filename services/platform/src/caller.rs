//! Who calls: the service token is checked once per request, the caller is read from the metadata.

use super::{context::Context, refusal::Refusal, secrets::Rotating};
use fafnir_proto::{
    client::{SYSTEM_KEY, TOKEN_KEY, USER_KEY},
    id::UserId,
    reason::Reason,
    v1::CheckPermissionRequest,
};
use http::HeaderMap;
use tonic::{Request, Status};

pub use fafnir_proto::client::Caller;

/// Whether a request carries the service token: it comes from a component of the platform.
pub fn has_token(headers: &HeaderMap, token: &Rotating) -> bool {
    let given = headers.get(TOKEN_KEY).map_or(&b""[..], |v| v.as_bytes());
    token.accepts(given)
}

/// Reads the caller from the headers of a request that carries the right service token.
pub fn authenticate(headers: &HeaderMap, token: &Rotating) -> Result<Caller, Refusal> {
    let text = |key: &str| headers.get(key).and_then(|v| v.to_str().ok());
    if !has_token(headers, token) {
        return Err(Refusal::unauthenticated("this door is for the services of the platform"));
    }
    if let Some(id) = text(USER_KEY) {
        let id = UserId::parse(id).map_err(|_| Refusal::unauthenticated("the caller's id is malformed"))?;
        return Ok(Caller::User(id));
    }
    match text(SYSTEM_KEY) {
        Some(name) => Ok(Caller::System(name.to_owned())),
        None => Err(Refusal::unauthenticated("the call names no caller")),
    }
}

/// The caller of a request that came through [`super::server`].
pub fn of<T>(request: &Request<T>) -> Result<Caller, Status> {
    request
        .extensions()
        .get::<Caller>()
        .cloned()
        .ok_or_else(|| Refusal::unauthenticated("the call names no caller").into())
}

/// The user whose rows are touched: a user may only name itself, a component of the platform may name any.
/// Another user's id answers like an unknown one (security.md).
pub fn owner<T>(request: &Request<T>, user_id: &str) -> Result<UserId, Status> {
    let named = || {
        UserId::parse(user_id)
            .map_err(|_| Status::from(Refusal::invalid(Reason::ID_MALFORMED, "user_id must be a UUID")))
    };
    match of(request)? {
        Caller::System(_) => named(),
        Caller::User(me) if user_id.is_empty() || named()? == me => Ok(me),
        Caller::User(_) => Err(Refusal::not_found(Reason::USER_NOT_FOUND, "no such user").into()),
    }
}

/// The caller, where it is a component of the platform or a user with this permission: security-service is asked.
pub async fn permitted<T>(ctx: &Context, request: &Request<T>, permission: &str) -> Result<Caller, Status> {
    let caller = of(request)?;
    if let Caller::User(id) = &caller {
        let question = CheckPermissionRequest { user_id: id.to_string(), permission: permission.to_owned() };
        let answer = ctx.clients.security(&caller).check_permission(question).await?;
        if !answer.into_inner().has_permission {
            return Err(Refusal::denied(format!("this needs the permission {permission}")).into());
        }
    }
    Ok(caller)
}

/// The name of the calling component; users are refused.
pub fn system<T>(request: &Request<T>) -> Result<String, Status> {
    match of(request)? {
        Caller::System(name) => Ok(name),
        Caller::User(_) => Err(Refusal::denied("only the platform itself may do this").into()),
    }
}
