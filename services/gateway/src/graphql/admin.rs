//! What administrators see and change, each behind its own permission.

use super::{
    Manages, error, of,
    query::{first_of, id_of},
    scalars::Int64,
    types::{CodeResponse, Outcome},
};
use crate::session::Permission::*;
use async_graphql::{Context, Object, Result, SimpleObject};
use fafnir_platform::{Refusal, clock::rfc3339};
use fafnir_proto::{reason::Reason, v1};
use tonic::Status;

/// Longest name of a role.
const ROLE_LEN_MAX: usize = 64;

#[derive(SimpleObject, Clone, Debug)]
pub struct User {
    pub user_id: String,
    pub email: String,
    pub first_name: String,
    pub last_name: String,
    pub created_at: String,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct UsersResponse {
    pub data: Option<Vec<User>>,
    pub end_cursor: Option<String>,
    pub has_more: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct Role {
    pub name: String,
    pub permissions: Vec<String>,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct RolesResponse {
    pub data: Option<Vec<Role>>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct UserPermissions {
    pub roles: Vec<String>,
    pub permissions: Vec<String>,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct UserPermissionsResponse {
    pub data: Option<UserPermissions>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// Counters of the running platform.
#[derive(SimpleObject, Clone, Debug)]
pub struct PlatformStatus {
    pub time: String,
    pub open_orders: Int64,
    pub trades: Int64,
    pub journal_sequence: Int64,
    pub settled_trades: Int64,
    pub portfolio_dead_letters: Int64,
}

#[derive(SimpleObject, Clone, Debug)]
pub struct PlatformStatusResponse {
    pub data: Option<PlatformStatus>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

fn role_of(text: &str) -> std::result::Result<String, Status> {
    let role = text.trim();
    if role.is_empty() || role.len() > ROLE_LEN_MAX {
        let text = format!("role must have 1 to {ROLE_LEN_MAX} characters");
        return Err(Refusal::invalid(Reason::NAME_MALFORMED, text).into());
    }
    Ok(role.to_owned())
}

#[derive(Default)]
pub struct AdminQuery;

#[Object]
impl AdminQuery {
    /// The users of the platform, by id.
    #[graphql(guard = "Manages(ViewUsers)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        first: Option<i32>,
        after: Option<String>,
    ) -> Result<UsersResponse> {
        let (gateway, session) = of(ctx)?;
        let wanted = first_of(first.or(Some(100)))?;
        let asked = async {
            let after_id = after.map(|id| id_of("after", &id)).transpose()?.unwrap_or_default();
            let request = v1::ListProfilesRequest { after_id, limit: wanted as u32 };
            let mut users = gateway.ctx.clients.user(&session.caller());
            Ok(users.list_profiles(request).await?.into_inner().profiles)
        };
        let (profiles, outcome) = error::outcome(asked.await)?;
        let Some(profiles) = profiles else {
            return Ok(UsersResponse { data: None, end_cursor: None, has_more: false, outcome });
        };
        Ok(UsersResponse {
            end_cursor: profiles.last().map(|p| p.user_id.clone()),
            has_more: profiles.len() >= wanted,
            data: Some(
                profiles
                    .into_iter()
                    .map(|p| User {
                        user_id: p.user_id,
                        email: p.email,
                        first_name: p.first_name,
                        last_name: p.last_name,
                        created_at: rfc3339(p.created_us),
                    })
                    .collect(),
            ),
            outcome,
        })
    }

    /// Every role and what it permits.
    #[graphql(guard = "Manages(ManageRoles)")]
    async fn roles(&self, ctx: &Context<'_>) -> Result<RolesResponse> {
        let (gateway, session) = of(ctx)?;
        let mut security = gateway.ctx.clients.security(&session.caller());
        let (reply, outcome) = error::outcome(security.list_roles(v1::Empty {}).await)?;
        let data = reply.map(|r| {
            let roles = r.into_inner().roles.into_iter();
            roles.map(|r| Role { name: r.name, permissions: r.permissions }).collect()
        });
        Ok(RolesResponse { data, outcome })
    }

    /// The roles and permissions of a user; both empty for an unknown one.
    #[graphql(guard = "Manages(ViewUsers)")]
    async fn user_permissions(&self, ctx: &Context<'_>, user_id: String) -> Result<UserPermissionsResponse> {
        let (gateway, _) = of(ctx)?;
        let asked = async {
            let user_id = id_of("userId", &user_id)?;
            let mut security = gateway.ctx.clients.security(&gateway.ctx.system());
            Ok(security.permissions(v1::PermissionsRequest { user_id }).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        let data = reply.map(|r| UserPermissions { roles: r.roles, permissions: r.permissions });
        Ok(UserPermissionsResponse { data, outcome })
    }

    /// Counters of the running platform.
    #[graphql(guard = "Manages(ViewAdminDashboard)")]
    async fn platform_status(&self, ctx: &Context<'_>) -> Result<PlatformStatusResponse> {
        let (gateway, _) = of(ctx)?;
        let caller = gateway.ctx.system();
        let clients = &gateway.ctx.clients;
        let (mut engine, mut order, mut portfolio) =
            (clients.engine(&caller), clients.order(&caller), clients.portfolio(&caller));
        let (engine, order, portfolio) = tokio::join!(
            engine.status(v1::Empty {}),
            order.status(v1::Empty {}),
            portfolio.status(v1::Empty {})
        );
        let asked = (|| Ok((engine?.into_inner(), order?.into_inner(), portfolio?.into_inner())))();
        let (replies, outcome) = error::outcome(asked)?;
        let data = replies.map(|(engine, order, portfolio)| PlatformStatus {
            time: rfc3339(gateway.ctx.clock.now_us()),
            open_orders: order.open_orders.into(),
            trades: engine.trades.into(),
            journal_sequence: engine.journal_seq.into(),
            settled_trades: portfolio.settled.into(),
            portfolio_dead_letters: portfolio.dead_letters.into(),
        });
        Ok(PlatformStatusResponse { data, outcome })
    }
}

#[derive(Default)]
pub struct AdminMutation;

#[Object]
impl AdminMutation {
    /// Gives a user a role; again changes nothing. Takes effect within a second.
    #[graphql(guard = "Manages(ManageRoles)")]
    async fn grant_role(&self, ctx: &Context<'_>, user_id: String, role: String) -> Result<CodeResponse> {
        change_role(ctx, &user_id, &role, true).await
    }

    /// Takes a role from a user; again changes nothing. Takes effect within a second.
    #[graphql(guard = "Manages(ManageRoles)")]
    async fn revoke_role(&self, ctx: &Context<'_>, user_id: String, role: String) -> Result<CodeResponse> {
        change_role(ctx, &user_id, &role, false).await
    }
}

async fn change_role(ctx: &Context<'_>, user_id: &str, role: &str, grant: bool) -> Result<CodeResponse> {
    let (gateway, session) = of(ctx)?;
    let asked = async {
        let request = v1::GrantRequest { user_id: id_of("userId", user_id)?, role: role_of(role)? };
        if grant {
            // Nobody holds a role without being somebody: a typing error is told, not stored.
            let user_id = request.user_id.clone();
            gateway
                .ctx
                .clients
                .user(&gateway.ctx.system())
                .get_profile(v1::GetProfileRequest { user_id })
                .await?;
        }
        let mut security = gateway.ctx.clients.security(&session.caller());
        tracing::info!(by = %session.user, user = request.user_id, role = request.role, grant, "role change");
        if grant { security.grant(request).await } else { security.revoke(request).await }
    };
    let (_, outcome) = error::outcome(asked.await)?;
    if let Ok(user) = fafnir_proto::id::UserId::parse(user_id) {
        gateway.sessions.forget_permissions(user).await;
    }
    Ok(CodeResponse { outcome })
}
