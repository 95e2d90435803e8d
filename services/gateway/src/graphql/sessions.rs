//! The caller's sessions: listed and ended by their owner; never by an API key.

use super::{
    Manages, error, of,
    query::id_of,
    scalars::{DateTime, Uuid},
    types::*,
};
use crate::session::Permission::*;
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_proto::v1;

/// A sign-in that has not ended.
#[derive(SimpleObject, Clone, Debug)]
pub struct UserSession {
    /// Hand it to `revokeSession`.
    pub id: Uuid,
    /// It is the one that asks.
    pub current: bool,
    /// When it began.
    pub created_at: DateTime,
    /// When it ends unless it is renewed.
    pub expires_at: DateTime,
    /// The address that signed in.
    pub address: String,
    /// The program that signed in, as it calls itself.
    pub user_agent: String,
    /// It lives in a browser's cookie.
    pub browser: bool,
}

/// The caller's sessions.
#[derive(SimpleObject, Clone, Debug)]
pub struct SessionsResponse {
    /// Newest first.
    pub data: Option<Vec<UserSession>>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// How many sessions were ended.
#[derive(SimpleObject, Clone, Debug)]
pub struct RevokeSessionsResponse {
    /// Those that had not ended before.
    pub revoked: u32,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

#[derive(Default)]
pub struct SessionQuery;

#[Object]
impl SessionQuery {
    /// The caller's sessions that have not ended, newest first.
    #[graphql(guard = "Manages(ManageOwnProfile)")]
    async fn sessions(&self, ctx: &Context<'_>) -> Result<SessionsResponse> {
        let (gateway, session) = of(ctx)?;
        let request = v1::ListSessionsRequest { user_id: session.user.to_string() };
        let asked = gateway.ctx.clients.auth(&session.caller()).list_sessions(request).await;
        let (reply, outcome) = error::outcome(asked)?;
        let own = session.id.to_string();
        let data = reply.map(|r| {
            let sessions = r.into_inner().sessions.into_iter();
            sessions
                .map(|s| UserSession {
                    current: s.id == own,
                    id: Uuid(s.id),
                    created_at: DateTime::of(s.created_us),
                    expires_at: DateTime::of(s.expires_us),
                    address: s.client_ip,
                    user_agent: s.user_agent,
                    browser: s.browser,
                })
                .collect()
        });
        Ok(SessionsResponse { data, outcome })
    }
}

#[derive(Default)]
pub struct SessionMutation;

#[Object]
impl SessionMutation {
    /// Ends a session of the caller at every door within a second; again changes nothing.
    #[graphql(guard = "Manages(ManageOwnProfile)")]
    async fn revoke_session(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the session's id")] session_id: Uuid,
    ) -> Result<CodeResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let session_id = id_of("sessionId", &session_id.0)?;
            let request = v1::RevokeSessionRequest { user_id: session.user.to_string(), session_id };
            gateway.ctx.clients.auth(&session.caller()).revoke_session(request).await
        };
        let (_, outcome) = error::outcome(asked.await)?;
        Ok(CodeResponse { outcome })
    }

    /// Ends every other session of the caller.
    #[graphql(guard = "Manages(ManageOwnProfile)")]
    async fn revoke_other_sessions(&self, ctx: &Context<'_>) -> Result<RevokeSessionsResponse> {
        let (gateway, session) = of(ctx)?;
        let request = v1::RevokeSessionsRequest {
            user_id: session.user.to_string(),
            except_session_id: session.id.to_string(),
        };
        let asked = gateway.ctx.clients.auth(&session.caller()).revoke_sessions(request).await;
        let (reply, outcome) = error::outcome(asked)?;
        Ok(RevokeSessionsResponse { revoked: reply.map_or(0, |r| r.into_inner().revoked), outcome })
    }
}
