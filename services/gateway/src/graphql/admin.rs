//! What administrators see and change, each behind its own permission.

use super::{
    Manages,
    enums::{TradingState, UserState, given, name, word},
    error, of,
    query::{first_of, id_of},
    rows::Rows,
    scalars::{DateTime, Int64, Uuid},
    sessions::RevokeSessionsResponse,
    types::{CodeResponse, Outcome, optional},
};
use crate::{market, session::Permission::*};
use async_graphql::{Context, Object, Result, SimpleObject};
use data_encoding::HEXLOWER;
use fafnir_platform::Refusal;
use fafnir_proto::{reason::Reason, v1};
use fafnir_rules::order as rules;
use tonic::Status;

/// Longest name of a role.
const ROLE_LEN_MAX: usize = 64;

/// A user as administrators see it.
#[derive(SimpleObject, Clone, Debug)]
pub struct User {
    /// The user's id.
    pub user_id: Uuid,
    /// As the user wrote it.
    pub email: String,
    /// As the user wrote it.
    pub first_name: String,
    /// As the user wrote it.
    pub last_name: String,
    /// When it registered.
    pub created_at: DateTime,
    /// Whether it may sign in.
    pub state: UserState,
}

/// A page of users.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(complex)]
pub struct UserConnection {
    /// The answer; null where it was refused.
    pub data: Option<Rows<User>>,
    /// Hand it back as `after` for the next page.
    pub end_cursor: Option<Uuid>,
    /// There are more.
    pub has_more: bool,
    /// The page follows another one.
    #[graphql(skip)]
    pub has_before: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// A role and what it permits.
#[derive(SimpleObject, Clone, Debug)]
pub struct Role {
    /// The role's name.
    pub name: String,
    /// Names of permissions, in alphabetical order.
    pub permissions: Vec<String>,
}

/// Every role.
#[derive(SimpleObject, Clone, Debug)]
pub struct RolesResponse {
    /// The answer; null where it was refused.
    pub data: Option<Vec<Role>>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// What a user may do.
#[derive(SimpleObject, Clone, Debug)]
pub struct UserPermissions {
    /// Names of roles, in alphabetical order.
    pub roles: Vec<String>,
    /// Names of permissions, in alphabetical order.
    pub permissions: Vec<String>,
}

/// Roles and permissions of a user.
#[derive(SimpleObject, Clone, Debug)]
pub struct UserPermissionsResponse {
    /// The answer; null where it was refused.
    pub data: Option<UserPermissions>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// Counters of the running platform.
#[derive(SimpleObject, Clone, Debug)]
pub struct PlatformStatus {
    /// When it was asked.
    pub time: DateTime,
    /// Orders that can still trade.
    pub open_orders: Int64,
    /// Trades since the exchange began.
    pub trades: Int64,
    /// Commands in the exchange's journal.
    pub journal_sequence: Int64,
    /// Trades that are in the books.
    pub settled_trades: Int64,
    /// Facts that the books could not take; a person has to look.
    pub portfolio_dead_letters: Int64,
    /// Users who may sign in.
    pub active_users: Int64,
    /// Users whose access an administrator took.
    pub deactivated_users: Int64,
    /// Users whose registration or deletion is under way.
    pub unfinished_users: Int64,
    /// Sign-ins that have not ended.
    pub sessions: Int64,
    /// API keys that have not ended.
    pub api_keys: Int64,
    /// Open accounts of clients.
    pub accounts: Int64,
    /// Facts of the exchange that the slowest of the services has not yet stored.
    pub facts_behind: Int64,
    /// The exchange takes cancels alone.
    pub cancel_only: bool,
    /// What keeps the exchange from taking everything, or soon will.
    pub notice: Option<String>,
    /// Listed symbols.
    pub symbols: Int64,
    /// Symbols that are not open for continuous trading.
    pub not_open: Vec<SymbolState>,
    /// The newest row of the audit log.
    pub audit_sequence: Int64,
}

/// What a symbol does.
#[derive(SimpleObject, Clone, Debug)]
pub struct SymbolState {
    /// The listed symbol, such as AAPL.
    pub symbol: String,
    /// What the exchange does with it.
    pub state: TradingState,
    /// It is in a volatility pause: an auction reopens it.
    pub volatility_pause: bool,
    /// Width of the volatility band in basis points of its reference; 0: none.
    pub volatility_band_bps: u32,
}

impl From<v1::Instrument> for SymbolState {
    fn from(i: v1::Instrument) -> Self {
        Self {
            state: given(i.state().known()),
            symbol: i.symbol,
            volatility_pause: i.volatility_pause,
            volatility_band_bps: i.volatility_band_bps,
        }
    }
}

/// Symbols that are not open.
#[derive(SimpleObject, Clone, Debug)]
pub struct HaltsResponse {
    /// The answer; null where it was refused.
    pub data: Option<Vec<SymbolState>>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// A symbol after a change.
#[derive(SimpleObject, Clone, Debug)]
pub struct SymbolStateResponse {
    /// The answer; null where it was refused.
    pub data: Option<SymbolState>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// One thing that was done, or tried.
#[derive(SimpleObject, Clone, Debug)]
pub struct AuditRow {
    /// From 1, without a gap.
    pub sequence: Int64,
    /// When it was written down.
    pub time: DateTime,
    /// What was done, e.g. `session.open`, `money.deposit`, `role.grant`.
    pub action: String,
    /// OK, ASKED (about to be tried; another row tells what became of it), or the machine code of a refusal.
    pub outcome: String,
    /// Who did it: `user <id>`, `system <name>`, `nobody`.
    pub actor: String,
    /// Whom or what it is about: a user's id, a symbol.
    pub subject: String,
    /// The client's address.
    pub source: String,
    /// The trace id of the request (W3C Trace Context).
    pub trace: String,
    /// Ids and numbers beside it.
    pub detail: String,
    /// The API key that was used.
    pub key_id: Option<String>,
    /// The chain's hash up to this row, in hexadecimal.
    pub hash: String,
}

impl From<v1::AuditRow> for AuditRow {
    fn from(row: v1::AuditRow) -> Self {
        let e = row.entry.unwrap_or_default();
        Self {
            sequence: row.seq.into(),
            time: DateTime::of(e.time_us),
            action: e.action,
            outcome: e.outcome,
            actor: e.actor,
            subject: e.subject,
            source: e.source,
            trace: e.trace,
            detail: e.detail,
            key_id: optional(e.key_id),
            hash: HEXLOWER.encode(&row.hash),
        }
    }
}

/// A page of the audit log.
#[derive(SimpleObject, Clone, Debug)]
#[graphql(complex)]
pub struct AuditLogConnection {
    /// Newest first.
    pub data: Option<Rows<AuditRow>>,
    /// Hand it back as `after` for the next page.
    pub end_cursor: Option<Int64>,
    /// There are more.
    pub has_more: bool,
    /// The page follows another one.
    #[graphql(skip)]
    pub has_before: bool,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// Whether the audit log is what was written.
#[derive(SimpleObject, Clone, Debug)]
pub struct AuditVerdict {
    /// Every row is what was written, where it was written.
    pub sound: bool,
    /// The last row that was read.
    pub sequence: Int64,
    /// The chain's hash up to it, in hexadecimal: written down elsewhere it proves later that nothing before it is gone.
    pub hash: String,
    /// Where the chain is broken, and how.
    pub broken: Option<String>,
}

/// What reading the audit log through came to.
#[derive(SimpleObject, Clone, Debug)]
pub struct VerifyAuditLogResponse {
    /// The answer; null where it was refused.
    pub data: Option<AuditVerdict>,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// How many open orders were canceled.
#[derive(SimpleObject, Clone, Debug)]
pub struct CancelSymbolResponse {
    /// How many.
    pub requested: u32,
    #[graphql(flatten)]
    pub outcome: Outcome,
}

/// The platform at a glance.
#[derive(SimpleObject, Clone, Debug)]
pub struct PlatformStatusResponse {
    /// The answer; null where it was refused.
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
    /// The users of the platform, by id: all but the deleted ones, or those with these words in name, e-mail or id.
    #[graphql(guard = "Manages(ViewUsers)")]
    async fn users(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "at most 1000; 100 when left out")] first: Option<i32>,
        #[graphql(desc = "a user's id: only later ones")] after: Option<Uuid>,
        #[graphql(desc = "a part of name, e-mail or id, in any case")] query: Option<String>,
        #[graphql(desc = "only in this state")] state: Option<UserState>,
    ) -> Result<UserConnection> {
        let (gateway, session) = of(ctx)?;
        let (wanted, has_before) = (first_of(first.or(Some(100)))?, after.is_some());
        let asked = async {
            let request = v1::SearchUsersRequest {
                query: query.unwrap_or_default(),
                state: state.map(|state| name(state).to_owned()).unwrap_or_default(),
                after_id: after.map(|Uuid(id)| id_of("after", &id)).transpose()?.unwrap_or_default(),
                limit: wanted as u32,
            };
            let mut auth = gateway.ctx.clients.auth(&session.caller());
            Ok(auth.search_users(request).await?.into_inner())
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        let Some(reply) = reply else {
            return Ok(UserConnection { data: None, end_cursor: None, has_more: false, has_before, outcome });
        };
        let users = reply.users.into_iter().map(|u| User {
            user_id: Uuid(u.user_id),
            email: u.email,
            first_name: u.first_name,
            last_name: u.last_name,
            created_at: DateTime::of(u.created_us),
            state: word(&u.state),
        });
        let users: Vec<_> = users.collect();
        let end_cursor = users.last().map(|u| u.user_id.clone());
        Ok(UserConnection { data: Some(users.into()), end_cursor, has_more: reply.more, has_before, outcome })
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
    async fn user_permissions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the user's id")] user_id: Uuid,
    ) -> Result<UserPermissionsResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async { gateway.permissions_of(session, id_of("userId", &user_id.0)?).await };
        let (reply, outcome) = error::outcome(asked.await)?;
        let data = reply.map(|r| UserPermissions { roles: r.roles, permissions: r.permissions });
        Ok(UserPermissionsResponse { data, outcome })
    }

    /// The platform at a glance.
    #[graphql(guard = "Manages(ViewAdminDashboard)")]
    async fn platform_status(&self, ctx: &Context<'_>) -> Result<PlatformStatusResponse> {
        let (gateway, _) = of(ctx)?;
        let (reply, outcome) = error::outcome(gateway.dashboard().await)?;
        let data = reply.map(|d| {
            let users = d.users.unwrap_or_default();
            PlatformStatus {
                time: DateTime::of(d.time_us),
                open_orders: d.open_orders.into(),
                trades: d.trades.into(),
                journal_sequence: d.journal_seq.into(),
                settled_trades: d.settled.into(),
                portfolio_dead_letters: d.dead_letters.into(),
                active_users: users.active.into(),
                deactivated_users: users.deactivated.into(),
                unfinished_users: users.unfinished.into(),
                sessions: users.sessions.into(),
                api_keys: users.keys.into(),
                accounts: d.accounts.into(),
                facts_behind: d.behind.into(),
                cancel_only: d.cancel_only,
                notice: optional(d.notice),
                symbols: d.symbols.into(),
                not_open: d.halted.into_iter().map(SymbolState::from).collect(),
                audit_sequence: d.audit_seq.into(),
            }
        });
        Ok(PlatformStatusResponse { data, outcome })
    }

    /// The symbols that are not open for continuous trading, and what they do.
    #[graphql(guard = "Manages(ManageMarket)")]
    async fn halts(&self, ctx: &Context<'_>) -> Result<HaltsResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = gateway.ctx.clients.stock(&session.caller()).list_instruments(v1::Empty {}).await;
        let (reply, outcome) = error::outcome(asked)?;
        let data = reply.map(|r| {
            let all = r.into_inner().instruments.into_iter();
            all.filter(|i| i.state() != v1::TradingState::Open || i.volatility_pause)
                .map(SymbolState::from)
                .collect()
        });
        Ok(HaltsResponse { data, outcome })
    }

    /// The audit log, newest first: who did what, from where, and what became of it.
    #[graphql(guard = "Manages(ViewAuditLogs)")]
    async fn audit_log(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "at most 1000; 100 when left out")] first: Option<i32>,
        #[graphql(desc = "a row's number: only older ones")] after: Option<Int64>,
        #[graphql(desc = "only this action, such as session.open")] action: Option<String>,
        #[graphql(desc = "only what this user did, or what is about it")] user_id: Option<Uuid>,
    ) -> Result<AuditLogConnection> {
        let (gateway, session) = of(ctx)?;
        let (wanted, has_before) = (first_of(first.or(Some(100)))?, after.is_some());
        let asked = async {
            let request = v1::AuditLogRequest {
                before: after.map_or(0, |n| n.0.max(1) as u64),
                limit: wanted as u32,
                action: action.unwrap_or_default(),
                user_id: user_id.map(|Uuid(id)| id_of("userId", &id)).transpose()?.unwrap_or_default(),
                ..v1::AuditLogRequest::default()
            };
            let mut security = gateway.ctx.clients.security(&session.caller());
            Ok(security.audit_log(request).await?.into_inner().rows)
        };
        let (rows, outcome) = error::outcome(asked.await)?;
        let rows: Option<Vec<_>> = rows.map(|rows| rows.into_iter().map(AuditRow::from).collect());
        let (end_cursor, has_more) = rows.as_ref().map_or((None, false), |rows| {
            let last = rows.last().map(|row| row.sequence);
            // The first row of all is 1.
            (last, rows.len() >= wanted && last.is_some_and(|n| n.0 > 1))
        });
        Ok(AuditLogConnection { data: rows.map(Into::into), end_cursor, has_more, has_before, outcome })
    }

    /// Reads the whole audit log and says whether its chain holds: whether a row was changed, removed, added or put
    /// elsewhere.
    #[graphql(guard = "Manages(ViewAuditLogs)")]
    async fn verify_audit_log(&self, ctx: &Context<'_>) -> Result<VerifyAuditLogResponse> {
        let (gateway, session) = of(ctx)?;
        let mut security = gateway.ctx.clients.security(&session.caller());
        let (reply, outcome) =
            error::outcome(security.verify_audit(v1::VerifyAuditRequest::default()).await)?;
        let data = reply.map(|r| {
            let r = r.into_inner();
            AuditVerdict {
                sound: r.sound,
                sequence: r.seq.into(),
                hash: HEXLOWER.encode(&r.hash),
                broken: optional(r.broken),
            }
        });
        Ok(VerifyAuditLogResponse { data, outcome })
    }
}

#[derive(Default)]
pub struct AdminMutation;

#[Object]
impl AdminMutation {
    /// Gives a user a role; again changes nothing. Takes effect within a second.
    #[graphql(guard = "Manages(ManageRoles)")]
    async fn grant_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the user's id")] user_id: Uuid,
        #[graphql(desc = "the role's name, such as admin")] role: String,
    ) -> Result<CodeResponse> {
        change_role(ctx, &user_id.0, &role, true).await
    }

    /// Takes a user's access: its sessions and API keys end within a second and it cannot sign in; orders and money stay as
    /// they are. Again changes nothing. The last administrator keeps it.
    #[graphql(guard = "Manages(DeactivateUsers)")]
    async fn deactivate_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the user's id")] user_id: Uuid,
    ) -> Result<CodeResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::UserStateRequest { user_id: id_of("userId", &user_id.0)? };
            gateway.ctx.clients.auth(&session.caller()).deactivate(request).await
        };
        let (_, outcome) = error::outcome(asked.await)?;
        Ok(CodeResponse { outcome })
    }

    /// Gives a user's access back; again changes nothing.
    #[graphql(guard = "Manages(ReactivateUsers)")]
    async fn reactivate_user(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the user's id")] user_id: Uuid,
    ) -> Result<CodeResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::UserStateRequest { user_id: id_of("userId", &user_id.0)? };
            gateway.ctx.clients.auth(&session.caller()).reactivate(request).await
        };
        let (_, outcome) = error::outcome(asked.await)?;
        Ok(CodeResponse { outcome })
    }

    /// Ends every session of a user within a second; it may sign in again.
    #[graphql(guard = "Manages(DeactivateUsers)")]
    async fn end_sessions(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the user's id")] user_id: Uuid,
    ) -> Result<RevokeSessionsResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::RevokeSessionsRequest {
                user_id: id_of("userId", &user_id.0)?,
                ..v1::RevokeSessionsRequest::default()
            };
            gateway.ctx.clients.auth(&session.caller()).revoke_sessions(request).await
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(RevokeSessionsResponse { revoked: reply.map_or(0, |r| r.into_inner().revoked), outcome })
    }

    /// Changes what the exchange does with a symbol.
    #[graphql(guard = "Manages(ManageMarket)")]
    async fn set_trading_state(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "what it does from now on")] state: TradingState,
    ) -> Result<SymbolStateResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let state = v1::TradingState::from(rules::TradingState::from(state)).into();
            let request = v1::SetTradingStateRequest { symbol: market::symbol(&symbol)?.to_string(), state };
            gateway.set_trading_state(session, request).await
        };
        let (changed, outcome) = error::outcome(asked.await)?;
        Ok(SymbolStateResponse { data: changed.map(SymbolState::from), outcome })
    }

    /// Sets the band around a symbol's reference price; a trade outside pauses it until an auction reopens it.
    #[graphql(guard = "Manages(ManageMarket)")]
    async fn set_volatility_band(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
        #[graphql(desc = "width to either side in basis points of the reference, 1 to 9999; 0: no band")] bps: u32,
    ) -> Result<SymbolStateResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let symbol = market::symbol(&symbol)?.to_string();
            let request = v1::SetVolatilityBandRequest { symbol, volatility_band_bps: bps };
            gateway.set_band(session, request).await
        };
        let (changed, outcome) = error::outcome(asked.await)?;
        Ok(SymbolStateResponse { data: changed.map(SymbolState::from), outcome })
    }

    /// Cancels every open order of everybody in a symbol.
    #[graphql(guard = "Manages(ManageMarket)")]
    async fn cancel_symbol_orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the listed symbol, in any case")] symbol: String,
    ) -> Result<CancelSymbolResponse> {
        let (gateway, session) = of(ctx)?;
        let asked = async {
            let request = v1::SymbolOrdersRequest { symbol: market::symbol(&symbol)?.to_string() };
            gateway.cancel_symbol(session, request).await
        };
        let (reply, outcome) = error::outcome(asked.await)?;
        Ok(CancelSymbolResponse { requested: reply.map_or(0, |r| r.requested), outcome })
    }

    /// Takes a role from a user; again changes nothing. Takes effect within a second.
    #[graphql(guard = "Manages(ManageRoles)")]
    async fn revoke_role(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "the user's id")] user_id: Uuid,
        #[graphql(desc = "the role's name, such as admin")] role: String,
    ) -> Result<CodeResponse> {
        change_role(ctx, &user_id.0, &role, false).await
    }
}

async fn change_role(ctx: &Context<'_>, user_id: &str, role: &str, grant: bool) -> Result<CodeResponse> {
    let (gateway, session) = of(ctx)?;
    let asked = async {
        let request = v1::GrantRequest { user_id: id_of("userId", user_id)?, role: role_of(role)? };
        gateway.change_role(session, request, grant).await
    };
    let (_, outcome) = error::outcome(asked.await)?;
    Ok(CodeResponse { outcome })
}
