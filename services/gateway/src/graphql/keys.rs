//! The caller's API keys: listed, made, revoked; never by a key itself.

use super::{
    Manages,
    enums::{KeyScope, name, word},
    error, of,
    scalars::{DateTime, Uuid},
    types::*,
};
use crate::session::Permission::*;
use async_graphql::{Context, InputObject, Object, Result, SimpleObject};
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, v1};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tonic::Status;

/// What a new API key is to be for.
#[derive(InputObject, Debug)]
pub struct CreateApiKeyRequest {
    /// What it is called in lists, 1 to 64 characters.
    pub label: String,
    /// What it may do; `trade` includes `read`.
    #[graphql(default_with = "vec![KeyScope::Read]")]
    pub scopes: Vec<KeyScope>,
    /// The only account that the key reaches, an INVESTMENT one of the caller; left out, it reaches all of them.
    pub account_id: Option<Uuid>,
    /// Left out, the key does not expire.
    pub expires_at: Option<DateTime>,
    /// From where the key opens: at most 16 addresses and networks such as 10.0.0.0/8; left out, from anywhere.
    pub addresses: Option<Vec<String>>,
}

/// An API key without its secret.
#[derive(SimpleObject, Clone, Debug)]
pub struct ApiKey {
    /// The public half, sent as `APCA-API-KEY-ID` or as the user name of HTTP Basic.
    pub id: String,
    /// What its user calls it.
    pub label: String,
    /// What it may do.
    pub scopes: Vec<KeyScope>,
    /// The only account that it reaches; null: every one of its user.
    pub account_id: Option<Uuid>,
    /// From where it opens; empty: from anywhere.
    pub addresses: Vec<String>,
    /// When it was made.
    pub created_at: DateTime,
    /// When it ends; null: never.
    pub expires_at: Option<DateTime>,
    /// When it was last used, to the minute; null: never.
    pub last_used_at: Option<DateTime>,
}

impl From<v1::ApiKey> for ApiKey {
    fn from(k: v1::ApiKey) -> Self {
        Self {
            id: k.id,
            label: k.label,
            scopes: k.scopes.iter().map(|scope| word(scope)).collect(),
            account_id: Uuid::optional(k.account_id),
            addresses: k.addresses,
            created_at: DateTime::of(k.created_us),
            expires_at: DateTime::of_some(k.expires_us),
            last_used_at: DateTime::of_some(k.last_used_us),
        }
    }
}

/// The caller's API keys.
#[derive(SimpleObject, Clone, Debug)]
pub struct ApiKeysResponse {
    /// Newest first; revoked ones are not among them.
    pub data: Option<Vec<ApiKey>>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// A new API key.
#[derive(SimpleObject, Clone, Debug)]
pub struct CreateApiKeyResponse {
    /// The key.
    pub data: Option<ApiKey>,
    /// The secret half, sent as `APCA-API-SECRET-KEY` or as the password of HTTP Basic. It is shown here and never again.
    pub secret: Option<String>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

#[derive(Default)]
pub struct KeyQuery;

#[Object]
impl KeyQuery {
    /// The caller's API keys, newest first. No API key may ask.
    #[graphql(guard = "Manages(ManageOwnProfile)")]
    async fn api_keys(&self, ctx: &Context<'_>) -> Result<ApiKeysResponse> {
        let (gateway, session) = of(ctx)?;
        let request = v1::ListKeysRequest { user_id: session.user.to_string() };
        let asked = gateway.ctx.clients.auth(&session.caller()).list_keys(request).await;
        let (reply, outcome) = error::outcome(asked)?;
        let data = reply.map(|r| r.into_inner().keys.into_iter().map(ApiKey::from).collect());
        Ok(ApiKeysResponse { data, outcome })
    }
}

#[derive(Default)]
pub struct KeyMutation;

#[Object]
impl KeyMutation {
    /// Makes an API key of the caller, at most 20; its secret is in this answer and nowhere else.
    #[graphql(guard = "Manages(ManageOwnProfile)")]
    async fn create_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "what the key is to be for")] request: CreateApiKeyRequest,
    ) -> Result<CreateApiKeyResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::CreateKeyRequest {
                user_id: session.user.to_string(),
                label: request.label,
                scopes: request.scopes.into_iter().map(|scope| name(scope).to_owned()).collect(),
                account_id: session.own_account(request.account_id.as_ref().map(|Uuid(id)| id.as_str()))?,
                addresses: request.addresses.unwrap_or_default(),
                expires_us: request.expires_at.map_or(Ok(0), |DateTime(text)| expiry(&text))?,
            };
            let mut auth = gateway.reads(session).await.auth(&session.caller());
            Ok(auth.create_key(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        let (key, secret) = reply.map_or((None, None), |r| (r.key, Some(r.secret)));
        Ok(CreateApiKeyResponse { data: key.map(ApiKey::from), secret, outcome })
    }

    /// Ends an API key of the caller at every door within a second, also where it is connected; again changes nothing.
    #[graphql(guard = "Manages(ManageOwnProfile)")]
    async fn revoke_api_key(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the public half")] key_id: String,
    ) -> Result<CodeResponse> {
        let (gateway, session) = of(ctx)?;
        let request = v1::RevokeKeyRequest { user_id: session.user.to_string(), key_id };
        let asked = gateway.ctx.clients.auth(&session.caller()).revoke_key(request).await;
        let (_, outcome) = error::outcome(asked)?;
        Ok(CodeResponse { outcome })
    }
}

fn expiry(text: &str) -> std::result::Result<i64, Status> {
    let at = OffsetDateTime::parse(text.trim(), &Rfc3339).ok();
    let micros = at.and_then(|at| i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000)).ok());
    // 0 would mean that there is none.
    micros.filter(|us| *us != 0).ok_or_else(|| {
        Refusal::invalid(Reason::TIME_MALFORMED, "expiresAt must be a time as in RFC 3339").into()
    })
}
