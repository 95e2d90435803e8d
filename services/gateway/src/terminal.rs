//! The gRPC door of the terminal and the command line: `fafnir.v1.Terminal` on the public port.

use super::{
    Gateway,
    audit::money,
    credentials::Life,
    graphql::{price, transport::Charge},
    private::{self, Event, Start},
    session::{Act, Permission, Session},
};
use fafnir_platform::{
    Refusal,
    audit::Action,
    clock,
    config::Mode,
    error::{refusal_of, unavailable_of},
};
use fafnir_proto::{
    client, deadline,
    id::{SessionId, UserId},
    reason::Reason,
    v1::{self, terminal_server::Terminal},
};
use futures::{Stream, StreamExt as _, future::try_join_all};
use std::{net::IpAddr, pin::Pin, sync::Arc};
use tokio::time::Instant;
use tonic::{Code, Request, Response, Status};

/// Longest e-mail address and password that are passed on, in bytes.
const CREDENTIAL_LEN_MAX: usize = 1024;

/// The door; every method finds the caller in the metadata.
#[derive(Debug, Clone)]
pub struct Door(pub Arc<Gateway>);

type Reply<T> = Result<Response<T>, Status>;

/// What leaves this port: refusals as they are, faults as a clean sentence. Only our own metadata key goes out.
fn outward(status: Status) -> Status {
    match refusal_of(&status).or_else(|| unavailable_of(&status)) {
        Some(refusal) => refusal.into(),
        None => match status.code() {
            Code::Unavailable => Status::unavailable("the service cannot answer just now; try again"),
            Code::DeadlineExceeded | Code::Cancelled => {
                Status::deadline_exceeded("the service did not answer in time; look before trying again")
            }
            code => {
                tracing::error!(
                    trace = client::trace_id(),
                    ?code,
                    cause = status.message(),
                    "terminal call failed"
                );
                Status::internal("the service failed; the log has the cause")
            }
        },
    }
}

impl Door {
    async fn session<T>(&self, request: &Request<T>) -> Result<Session, Status> {
        let mut headers = request.metadata().clone().into_headers();
        // A cookie is for browsers: this door takes Bearer tokens and API keys.
        headers.remove(axum::http::header::COOKIE);
        self.0.sessions.of(&headers, self.peer_of(request)).await
    }

    async fn allowed<T>(
        &self,
        request: &Request<T>,
        act: Act,
        permission: Permission,
    ) -> Result<Session, Status> {
        let session = self.session(request).await?;
        self.0.sessions.require(&session, act, permission).await?;
        Ok(session)
    }

    /// The address that a call came from.
    fn peer_of<T>(&self, request: &Request<T>) -> IpAddr {
        self.0.client(request.metadata().as_ref(), request.extensions()).ip
    }

    async fn started(&self, tokens: v1::Tokens) -> Result<v1::TerminalSession, Status> {
        let malformed = |_| Status::internal("the service failed; the log has the cause");
        let session = Session {
            user: UserId::parse(&tokens.user_id).map_err(malformed)?,
            id: SessionId::parse(&tokens.session_id).map_err(malformed)?,
            expires_us: i64::MAX,
            by_cookie: false,
            key: None,
        };
        Ok(v1::TerminalSession {
            access_token: tokens.access_token,
            refresh_token: tokens.refresh_token,
            expires_in_s: tokens.expires_in_s,
            email: tokens.email,
            ..self.described(&session).await?
        })
    }

    /// Who somebody is, without tokens.
    async fn described(&self, session: &Session) -> Result<v1::TerminalSession, Status> {
        let (gateway, user) = (&self.0, session.user);
        let mut users = gateway.ctx.clients.user(&gateway.ctx.system());
        let request = v1::GetProfileRequest { user_id: user.to_string() };
        let (profile, permissions) =
            tokio::join!(users.get_profile(request), gateway.sessions.permissions(user));
        let profile = match profile {
            Ok(profile) => profile.into_inner(),
            // The name is decoration: signing in works while user-service does not.
            Err(status) => {
                tracing::warn!(code = ?status.code(), cause = status.message(), "no profile at sign-in");
                v1::Profile::default()
            }
        };
        let access = gateway.market_access(session.id, user, Life::of(session)).await;
        Ok(v1::TerminalSession {
            user_id: user.to_string(),
            email: profile.email,
            first_name: profile.first_name,
            last_name: profile.last_name,
            permissions: permissions?.iter().filter(|p| session.may_use(p)).cloned().collect(),
            market_data_url: access.map_or_else(String::new, |access| access.url_with_login()),
            ..v1::TerminalSession::default()
        })
    }

    /// Takes what a read asks for, in rows, from what its user may ask for.
    fn charge(&self, session: &Session, rows: u64) -> Result<(), Status> {
        let units = u32::try_from(rows.max(1)).unwrap_or(u32::MAX);
        let taken = self.0.cost.take(session.user, units, Instant::now());
        taken.map_err(|e| Charge::Later { seconds: e.retry_after_s() }.refusal().into())
    }

    fn take_order(&self, session: &Session) -> Result<(), Status> {
        self.0.orders.take(session.user, 1, Instant::now()).map_err(|exceeded| {
            Refusal::exhausted(
                Reason::RATE_LIMITED,
                format!(
                    "more than {} orders a second; try again in {} ms",
                    self.0.ctx.settings.gateway.orders_per_second,
                    exceeded.retry_after.as_millis().max(1)
                ),
            )
            .into()
        })
    }
}

/// What a read asks for, in rows; a page without a length is the service's own.
fn rows(limit: u32) -> u64 {
    if limit == 0 { 500 } else { u64::from(limit.min(1000)) }
}

/// What a request names is within what its caller's key reaches.
trait Bind {
    /// Binds the request to the account of the key, or refuses what it names of another one.
    async fn bind(&mut self, gateway: &Gateway, session: &Session) -> Result<(), Status>;
}

/// A request about an account: none named is the key's own.
macro_rules! bind_account {
    ($($request:ident),*) => {$(
        impl Bind for v1::$request {
            async fn bind(&mut self, _: &Gateway, session: &Session) -> Result<(), Status> {
                self.account_id = session.account(std::mem::take(&mut self.account_id))?;
                Ok(())
            }
        }
    )*};
}
bind_account!(
    PlaceOrderRequest,
    FlattenRequest,
    TransactionsRequest,
    StatementRequest,
    PerformanceRequest,
    GainsRequest,
    ReportRequest,
    LotsRequest
);

/// A request about an order.
macro_rules! bind_order {
    ($($request:ident),*) => {$(
        impl Bind for v1::$request {
            async fn bind(&mut self, gateway: &Gateway, session: &Session) -> Result<(), Status> {
                gateway.reach_order(session, &self.order_id).await
            }
        }
    )*};
}
bind_order!(GetOrderRequest, CancelOrderRequest, ReplaceOrderRequest, OrderHistoryRequest);

/// A request about what belongs to no account, or that no key may make.
macro_rules! bind_nothing {
    ($($request:ident),*) => {$(
        impl Bind for v1::$request {
            async fn bind(&mut self, _: &Gateway, _: &Session) -> Result<(), Status> {
                Ok(())
            }
        }
    )*};
}
bind_nothing!(GetProfileRequest, WatchlistRequest, ListKeysRequest, RevokeKeyRequest, RevokeSessionRequest);

impl Bind for v1::ListOrdersRequest {
    async fn bind(&mut self, _: &Gateway, session: &Session) -> Result<(), Status> {
        self.account_id = session.listed_account(std::mem::take(&mut self.account_id));
        Ok(())
    }
}

impl Bind for v1::CancelGroupRequest {
    async fn bind(&mut self, gateway: &Gateway, session: &Session) -> Result<(), Status> {
        gateway.reach_group(session, &self.group_id).await
    }
}

impl Bind for v1::PlaceGroupRequest {
    async fn bind(&mut self, gateway: &Gateway, session: &Session) -> Result<(), Status> {
        for order in &mut self.orders {
            order.bind(gateway, session).await?;
        }
        Ok(())
    }
}

/// A read of the caller's own rows: permission, `user_id` from the token, the owner's answer, which knows everything that
/// the caller was told.
macro_rules! own {
    ($self:ident, $request:ident, $permission:ident, $service:ident . $method:ident, $rows:expr) => {{
        let session = $self.allowed(&$request, Act::Read, Permission::$permission).await.map_err(outward)?;
        let mut message = $request.into_inner();
        $self.charge(&session, $rows(&message))?;
        message.user_id = session.user.to_string();
        message.bind(&$self.0, &session).await.map_err(outward)?;
        let mut client = $self.0.reads(&session).await.$service(&session.caller());
        let reply = client.$method(message).await.map_err(outward)?;
        Ok(Response::new(reply.into_inner()))
    }};
}

/// A command, or what no fact is about: permission, `user_id` from the token, the owner's answer.
macro_rules! command {
    ($self:ident, $request:ident, $act:ident, $permission:ident, $service:ident . $method:ident) => {{
        let session = $self.allowed(&$request, Act::$act, Permission::$permission).await.map_err(outward)?;
        let mut message = $request.into_inner();
        message.user_id = session.user.to_string();
        message.bind(&$self.0, &session).await.map_err(outward)?;
        let mut client = $self.0.ctx.clients.$service(&session.caller());
        let reply = client.$method(message).await.map_err(outward)?;
        Ok(Response::new($self.0.told(&session, reply)))
    }};
}

/// What an administrator does, or an operator of the market: no key, a permission, the owner's answer.
macro_rules! admin {
    ($self:ident, $request:ident, $permission:ident, $service:ident . $method:ident) => {{
        let session =
            $self.allowed(&$request, Act::Manage, Permission::$permission).await.map_err(outward)?;
        let mut client = $self.0.ctx.clients.$service(&session.caller());
        let reply = client.$method($request.into_inner()).await.map_err(outward)?;
        Ok(Response::new(reply.into_inner()))
    }};
}

/// A call about public data: permission, then the owner's answer.
macro_rules! public {
    ($self:ident, $request:ident, $service:ident . $method:ident, $rows:expr) => {{
        let session = $self.allowed(&$request, Act::Read, Permission::ViewStocks).await.map_err(outward)?;
        let message = $request.into_inner();
        $self.charge(&session, $rows(&message))?;
        let mut client = $self.0.ctx.clients.$service(&session.caller());
        let reply = client.$method(message).await.map_err(outward)?;
        Ok(Response::new(reply.into_inner()))
    }};
}

#[tonic::async_trait]
impl Terminal for Door {
    async fn info(&self, _: Request<v1::Empty>) -> Reply<v1::InfoReply> {
        let ctx = &self.0.ctx;
        let mode = match ctx.settings.mode {
            Mode::Development => "development",
            Mode::Production => "production",
        };
        Ok(Response::new(v1::InfoReply {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            mode: mode.to_owned(),
            server_time: clock::rfc3339(ctx.clock.now_us()),
        }))
    }

    async fn sign_in(&self, request: Request<v1::TerminalSignInRequest>) -> Reply<v1::TerminalSession> {
        let client_ip = self.peer_of(&request).to_string();
        let agent = request.metadata().get("user-agent").and_then(|v| v.to_str().ok()).unwrap_or("");
        let user_agent: String = agent.chars().take(200).collect();
        let message = request.into_inner();
        if message.email.len() > CREDENTIAL_LEN_MAX || message.password.len() > CREDENTIAL_LEN_MAX {
            let text = format!("email and password must have at most {CREDENTIAL_LEN_MAX} bytes");
            return Err(Refusal::invalid(Reason::CREDENTIALS_TOO_LONG, text).into());
        }
        let request =
            v1::SignInRequest { email: message.email, password: message.password, client_ip, user_agent };
        let mut auth = self.0.ctx.clients.auth(&self.0.ctx.system());
        let mut request = Request::new(request);
        // Hashing a password takes its time, and may wait in a queue.
        request.set_timeout(deadline::SIGN_IN);
        let tokens = auth.sign_in(request).await.map_err(outward)?.into_inner();
        Ok(Response::new(self.started(tokens).await.map_err(outward)?))
    }

    async fn refresh(&self, request: Request<v1::TerminalRefreshRequest>) -> Reply<v1::TerminalSession> {
        let refresh_token = request.into_inner().refresh_token;
        let mut auth = self.0.ctx.clients.auth(&self.0.ctx.system());
        let tokens = auth.refresh(v1::RefreshRequest { refresh_token }).await.map_err(outward)?.into_inner();
        Ok(Response::new(self.started(tokens).await.map_err(outward)?))
    }

    async fn sign_out(&self, request: Request<v1::Empty>) -> Reply<v1::Empty> {
        let session = self.session(&request).await.map_err(outward)?;
        session.check_act(Act::Manage)?;
        let mut auth = self.0.ctx.clients.auth(&self.0.ctx.system());
        auth.sign_out(v1::SignOutRequest { session_id: session.id.to_string() }).await.map_err(outward)?;
        self.0.sessions.forget(session.id).await;
        Ok(Response::new(v1::Empty {}))
    }

    async fn whoami(&self, request: Request<v1::Empty>) -> Reply<v1::TerminalSession> {
        let session = self.session(&request).await.map_err(outward)?;
        Ok(Response::new(self.described(&session).await.map_err(outward)?))
    }

    async fn create_key(&self, request: Request<v1::CreateKeyRequest>) -> Reply<v1::CreateKeyReply> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnProfile).await.map_err(outward)?;
        let message = v1::CreateKeyRequest { user_id: session.user.to_string(), ..request.into_inner() };
        let mut auth = self.0.reads(&session).await.auth(&session.caller());
        Ok(Response::new(auth.create_key(message).await.map_err(outward)?.into_inner()))
    }
    async fn keys(&self, request: Request<v1::Empty>) -> Reply<v1::ListKeysReply> {
        let request = request.map(|_| v1::ListKeysRequest::default());
        command!(self, request, Manage, ManageOwnProfile, auth.list_keys)
    }
    async fn revoke_key(&self, request: Request<v1::RevokeKeyRequest>) -> Reply<v1::Empty> {
        command!(self, request, Manage, ManageOwnProfile, auth.revoke_key)
    }

    async fn sessions(&self, request: Request<v1::Empty>) -> Reply<v1::TerminalSessions> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnProfile).await.map_err(outward)?;
        let request = v1::ListSessionsRequest { user_id: session.user.to_string() };
        let mut auth = self.0.ctx.clients.auth(&session.caller());
        let sessions = auth.list_sessions(request).await.map_err(outward)?.into_inner().sessions;
        Ok(Response::new(v1::TerminalSessions { sessions, current_id: session.id.to_string() }))
    }
    async fn revoke_session(&self, request: Request<v1::RevokeSessionRequest>) -> Reply<v1::Empty> {
        command!(self, request, Manage, ManageOwnProfile, auth.revoke_session)
    }
    async fn revoke_sessions(
        &self,
        request: Request<v1::RevokeSessionsRequest>,
    ) -> Reply<v1::RevokeSessionsReply> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnProfile).await.map_err(outward)?;
        let mut message = request.into_inner();
        let own = session.user.to_string();
        if message.user_id.is_empty() || message.user_id == own {
            message = v1::RevokeSessionsRequest { user_id: own, except_session_id: session.id.to_string() };
        }
        let mut auth = self.0.ctx.clients.auth(&session.caller());
        Ok(Response::new(auth.revoke_sessions(message).await.map_err(outward)?.into_inner()))
    }

    async fn users(&self, request: Request<v1::SearchUsersRequest>) -> Reply<v1::SearchUsersReply> {
        admin!(self, request, ViewUsers, auth.search_users)
    }
    async fn deactivate(&self, request: Request<v1::UserStateRequest>) -> Reply<v1::Empty> {
        admin!(self, request, DeactivateUsers, auth.deactivate)
    }
    async fn reactivate(&self, request: Request<v1::UserStateRequest>) -> Reply<v1::Empty> {
        admin!(self, request, ReactivateUsers, auth.reactivate)
    }
    async fn roles(&self, request: Request<v1::Empty>) -> Reply<v1::ListRolesReply> {
        admin!(self, request, ManageRoles, security.list_roles)
    }
    async fn user_roles(&self, request: Request<v1::PermissionsRequest>) -> Reply<v1::PermissionsReply> {
        let session = self.allowed(&request, Act::Manage, Permission::ViewUsers).await.map_err(outward)?;
        let reply = self.0.permissions_of(&session, request.into_inner().user_id).await.map_err(outward)?;
        Ok(Response::new(reply))
    }
    async fn grant_role(&self, request: Request<v1::GrantRequest>) -> Reply<v1::Empty> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageRoles).await.map_err(outward)?;
        self.0.change_role(&session, request.into_inner(), true).await.map_err(outward)?;
        Ok(Response::new(v1::Empty {}))
    }
    async fn revoke_role(&self, request: Request<v1::GrantRequest>) -> Reply<v1::Empty> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageRoles).await.map_err(outward)?;
        self.0.change_role(&session, request.into_inner(), false).await.map_err(outward)?;
        Ok(Response::new(v1::Empty {}))
    }
    async fn dashboard(&self, request: Request<v1::Empty>) -> Reply<v1::DashboardReply> {
        self.allowed(&request, Act::Manage, Permission::ViewAdminDashboard).await.map_err(outward)?;
        Ok(Response::new(self.0.dashboard().await.map_err(outward)?))
    }
    async fn audit_log(&self, request: Request<v1::AuditLogRequest>) -> Reply<v1::AuditLogReply> {
        admin!(self, request, ViewAuditLogs, security.audit_log)
    }
    async fn verify_audit(&self, request: Request<v1::VerifyAuditRequest>) -> Reply<v1::VerifyAuditReply> {
        admin!(self, request, ViewAuditLogs, security.verify_audit)
    }

    async fn set_trading_state(&self, request: Request<v1::SetTradingStateRequest>) -> Reply<v1::Instrument> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        Ok(Response::new(self.0.set_trading_state(&session, request.into_inner()).await.map_err(outward)?))
    }
    async fn set_volatility_band(
        &self,
        request: Request<v1::SetVolatilityBandRequest>,
    ) -> Reply<v1::Instrument> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        Ok(Response::new(self.0.set_band(&session, request.into_inner()).await.map_err(outward)?))
    }
    async fn cancel_symbol(&self, request: Request<v1::SymbolOrdersRequest>) -> Reply<v1::CancelAllReply> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        Ok(Response::new(self.0.cancel_symbol(&session, request.into_inner()).await.map_err(outward)?))
    }
    async fn publish_news(&self, request: Request<v1::News>) -> Reply<v1::Empty> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        self.0.news(&session, request.into_inner()).await.map_err(outward)?;
        Ok(Response::new(v1::Empty {}))
    }
    async fn playback(&self, request: Request<v1::PlaybackRequest>) -> Reply<v1::PlaybackReply> {
        let session = self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        Ok(Response::new(self.0.playback(&session, request.into_inner()).await.map_err(outward)?))
    }
    async fn depth(&self, request: Request<v1::DepthRequest>) -> Reply<v1::DepthReply> {
        self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        let mut engine = self.0.ctx.clients.engine(&self.0.ctx.system());
        Ok(Response::new(engine.depth(request.into_inner()).await.map_err(outward)?.into_inner()))
    }
    async fn queue_position(
        &self,
        request: Request<v1::QueuePositionRequest>,
    ) -> Reply<v1::QueuePositionReply> {
        self.allowed(&request, Act::Manage, Permission::ManageMarket).await.map_err(outward)?;
        let mut engine = self.0.ctx.clients.engine(&self.0.ctx.system());
        Ok(Response::new(engine.queue_position(request.into_inner()).await.map_err(outward)?.into_inner()))
    }

    async fn place(&self, request: Request<v1::PlaceOrderRequest>) -> Reply<v1::OrderReply> {
        let session = self.allowed(&request, Act::Trade, Permission::OrderStocks).await.map_err(outward)?;
        self.take_order(&session)?;
        let mut message = v1::PlaceOrderRequest { user_id: session.user.to_string(), ..request.into_inner() };
        message.bind(&self.0, &session).await.map_err(outward)?;
        let mut client = self.0.ctx.clients.order(&session.caller());
        let reply = client.place(message).await.map_err(outward)?;
        if let Some(order) = &reply.get_ref().order {
            crate::tell_placed(order);
        }
        Ok(Response::new(self.0.told(&session, reply)))
    }

    async fn place_group(&self, request: Request<v1::PlaceGroupRequest>) -> Reply<v1::OrderGroupReply> {
        let session = self.allowed(&request, Act::Trade, Permission::OrderStocks).await.map_err(outward)?;
        self.take_order(&session)?;
        let mut message = v1::PlaceGroupRequest { user_id: session.user.to_string(), ..request.into_inner() };
        message.bind(&self.0, &session).await.map_err(outward)?;
        let mut client = self.0.ctx.clients.order(&session.caller());
        let reply = client.place_group(message).await.map_err(outward)?;
        for order in &reply.get_ref().orders {
            crate::tell_placed(order);
        }
        Ok(Response::new(self.0.told(&session, reply)))
    }

    async fn cancel_group(&self, request: Request<v1::CancelGroupRequest>) -> Reply<v1::CancelAllReply> {
        command!(self, request, Trade, OrderStocks, order.cancel_group)
    }

    async fn replace(&self, request: Request<v1::ReplaceOrderRequest>) -> Reply<v1::OrderReply> {
        let session = self.allowed(&request, Act::Trade, Permission::OrderStocks).await.map_err(outward)?;
        self.take_order(&session)?;
        let mut message =
            v1::ReplaceOrderRequest { user_id: session.user.to_string(), ..request.into_inner() };
        message.bind(&self.0, &session).await.map_err(outward)?;
        let mut client = self.0.ctx.clients.order(&session.caller());
        let reply = client.replace(message).await.map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }

    async fn cancel(&self, request: Request<v1::CancelOrderRequest>) -> Reply<v1::OrderReply> {
        command!(self, request, Trade, OrderStocks, order.cancel)
    }
    async fn cancel_all(&self, request: Request<v1::CancelAllRequest>) -> Reply<v1::CancelAllReply> {
        let session = self.allowed(&request, Act::Trade, Permission::OrderStocks).await.map_err(outward)?;
        let requested = self.0.cancel_all(&session, request.into_inner().symbol).await.map_err(outward)?;
        Ok(Response::new(v1::CancelAllReply { requested }))
    }
    async fn flatten(&self, request: Request<v1::FlattenRequest>) -> Reply<v1::FlattenReply> {
        let session = self.allowed(&request, Act::Trade, Permission::OrderStocks).await.map_err(outward)?;
        self.take_order(&session)?;
        let mut message = v1::FlattenRequest { user_id: session.user.to_string(), ..request.into_inner() };
        message.bind(&self.0, &session).await.map_err(outward)?;
        let mut client = self.0.ctx.clients.order(&session.caller());
        let reply = client.flatten(message).await.map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }
    async fn orders(&self, request: Request<v1::ListOrdersRequest>) -> Reply<v1::ListOrdersReply> {
        own!(self, request, OrderStocks, order.list, |r: &v1::ListOrdersRequest| rows(r.limit))
    }
    async fn order(&self, request: Request<v1::GetOrderRequest>) -> Reply<v1::OrderReply> {
        own!(self, request, OrderStocks, order.get, |_| 1)
    }
    async fn fills(&self, request: Request<v1::ListFillsRequest>) -> Reply<v1::ListFillsReply> {
        let session = self.allowed(&request, Act::Read, Permission::OrderStocks).await.map_err(outward)?;
        let user_id = session.user.to_string();
        let message = v1::ListFillsRequest { user_id, ..request.into_inner() };
        self.charge(&session, rows(message.limit))?;
        let mut client = self.0.reads(&session).await.order(&session.caller());
        let mut reply = client.list_fills(message).await.map_err(outward)?.into_inner();
        self.0.keep_fills(&session, &mut reply.fills).await.map_err(outward)?;
        Ok(Response::new(reply))
    }
    async fn order_history(&self, request: Request<v1::OrderHistoryRequest>) -> Reply<v1::OrderHistoryReply> {
        own!(self, request, OrderStocks, order.history, |r: &v1::OrderHistoryRequest| rows(r.limit))
    }

    async fn accounts(&self, request: Request<v1::Empty>) -> Reply<v1::ListAccountsReply> {
        let session =
            self.allowed(&request, Act::Read, Permission::ManageOwnPortfolio).await.map_err(outward)?;
        self.charge(&session, 1)?;
        let request = v1::UserRequest { user_id: session.user.to_string() };
        let mut client = self.0.reads(&session).await.portfolio(&session.caller());
        let mut reply = client.list_accounts(request).await.map_err(outward)?.into_inner();
        reply.accounts.retain(|account| session.reaches(&account.id));
        Ok(Response::new(reply))
    }
    async fn create_account(&self, request: Request<v1::CreateAccountRequest>) -> Reply<v1::Account> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnAccounts).await.map_err(outward)?;
        let mut message = request.into_inner();
        message.user_id = session.user.to_string();
        let detail = format!("{} {}", message.r#type().as_str_name(), message.currency);
        let mut client = self.0.ctx.clients.portfolio(&session.caller());
        let act = client.create_account(message);
        let reply = self
            .0
            .audited(&session, Action::AccountOpen, session.user, detail, act)
            .await
            .map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }
    async fn close_account(&self, request: Request<v1::AccountRequest>) -> Reply<v1::Account> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnAccounts).await.map_err(outward)?;
        let mut message = request.into_inner();
        message.user_id = session.user.to_string();
        let detail = message.account_id.clone();
        let mut client = self.0.ctx.clients.portfolio(&session.caller());
        let act = client.close_account(message);
        let reply = self
            .0
            .audited(&session, Action::AccountClose, session.user, detail, act)
            .await
            .map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }
    async fn deposit(&self, request: Request<v1::DepositRequest>) -> Reply<v1::DepositReply> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnAccounts).await.map_err(outward)?;
        let mut message = request.into_inner();
        message.user_id = session.user.to_string();
        let detail =
            format!("{} into {}", money(message.amount_micros, &message.currency), message.account_id);
        let mut client = self.0.ctx.clients.portfolio(&session.caller());
        let act = client.deposit(message);
        let reply =
            self.0.audited(&session, Action::Deposit, session.user, detail, act).await.map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }
    async fn withdraw(&self, request: Request<v1::WithdrawRequest>) -> Reply<v1::DepositReply> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnAccounts).await.map_err(outward)?;
        let mut message = request.into_inner();
        message.user_id = session.user.to_string();
        let detail =
            format!("{} out of {}", money(message.amount_micros, &message.currency), message.account_id);
        let mut client = self.0.ctx.clients.portfolio(&session.caller());
        let act = client.withdraw(message);
        let reply =
            self.0.audited(&session, Action::Withdraw, session.user, detail, act).await.map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }
    async fn transfer(&self, request: Request<v1::TransferRequest>) -> Reply<v1::Empty> {
        let session =
            self.allowed(&request, Act::Manage, Permission::ManageOwnAccounts).await.map_err(outward)?;
        let mut message = request.into_inner();
        message.user_id = session.user.to_string();
        let detail = format!(
            "{} from {} to {}",
            money(message.amount_micros, &message.currency),
            message.from_account_id,
            message.to_account_id
        );
        let mut client = self.0.ctx.clients.portfolio(&session.caller());
        let act = client.transfer(message);
        let reply =
            self.0.audited(&session, Action::Transfer, session.user, detail, act).await.map_err(outward)?;
        Ok(Response::new(self.0.told(&session, reply)))
    }
    async fn positions(&self, request: Request<v1::Empty>) -> Reply<v1::HoldingsReply> {
        let session =
            self.allowed(&request, Act::Read, Permission::ManageOwnPortfolio).await.map_err(outward)?;
        let holdings = self.0.holdings_of_all_accounts(&session).await.map_err(outward)?;
        Ok(Response::new(v1::HoldingsReply { holdings }))
    }
    async fn transactions(&self, request: Request<v1::TransactionsRequest>) -> Reply<v1::TransactionsReply> {
        own!(self, request, ManageOwnPortfolio, portfolio.transactions, |r: &v1::TransactionsRequest| rows(
            r.limit
        ))
    }
    async fn statement(&self, request: Request<v1::StatementRequest>) -> Reply<v1::StatementReply> {
        own!(self, request, ManageOwnPortfolio, portfolio.statement, |_| price::REPORT)
    }
    async fn performance(&self, request: Request<v1::PerformanceRequest>) -> Reply<v1::PerformanceReply> {
        own!(self, request, ManageOwnPortfolio, portfolio.performance, |_| price::REPORT)
    }
    async fn gains(&self, request: Request<v1::GainsRequest>) -> Reply<v1::GainsReply> {
        own!(self, request, ManageOwnPortfolio, portfolio.gains, |_| price::REPORT)
    }
    async fn report(&self, request: Request<v1::ReportRequest>) -> Reply<v1::ReportReply> {
        own!(self, request, ManageOwnPortfolio, portfolio.report, |r: &v1::ReportRequest| {
            if r.lines_only { price::REPORT } else { price::WHOLE_REPORT }
        })
    }
    async fn lots(&self, request: Request<v1::LotsRequest>) -> Reply<v1::LotsReply> {
        own!(self, request, ManageOwnPortfolio, portfolio.lots, |r: &v1::LotsRequest| rows(r.limit))
    }
    async fn watchlist(&self, request: Request<v1::Empty>) -> Reply<v1::WatchlistReply> {
        let request = request.map(|_| v1::GetProfileRequest::default());
        command!(self, request, Read, ManageOwnWatchlist, user.watchlist)
    }
    async fn add_to_watchlist(&self, request: Request<v1::SymbolRequest>) -> Reply<v1::Empty> {
        let request = request.map(|r| v1::WatchlistRequest { symbol: r.symbol, user_id: String::new() });
        command!(self, request, Trade, ManageOwnWatchlist, user.add_to_watchlist)
    }
    async fn remove_from_watchlist(&self, request: Request<v1::SymbolRequest>) -> Reply<v1::Empty> {
        let request = request.map(|r| v1::WatchlistRequest { symbol: r.symbol, user_id: String::new() });
        command!(self, request, Trade, ManageOwnWatchlist, user.remove_from_watchlist)
    }

    async fn instruments(&self, request: Request<v1::Empty>) -> Reply<v1::ListInstrumentsReply> {
        public!(self, request, stock.list_instruments, |_| 100)
    }
    async fn search(&self, request: Request<v1::SearchRequest>) -> Reply<v1::ListInstrumentsReply> {
        public!(self, request, stock.search, |_| 20)
    }
    async fn quotes(&self, request: Request<v1::QuotesRequest>) -> Reply<v1::QuotesReply> {
        public!(self, request, stock.quotes, |r: &v1::QuotesRequest| r.symbols.len() as u64)
    }
    async fn book(&self, request: Request<v1::BookRequest>) -> Reply<v1::BookImage> {
        public!(self, request, engine.book, |_| 20)
    }
    async fn trades(&self, request: Request<v1::TradesRequest>) -> Reply<v1::TradesReply> {
        public!(self, request, engine.trades, |r: &v1::TradesRequest| rows(r.limit))
    }
    async fn candles(&self, request: Request<v1::CandlesRequest>) -> Reply<v1::CandlesReply> {
        public!(self, request, stock.candles, |r: &v1::CandlesRequest| rows(r.limit))
    }
    async fn history(&self, request: Request<v1::HistoryRequest>) -> Reply<v1::CandlesReply> {
        public!(self, request, stock.history, |r: &v1::HistoryRequest| price::rows_of_period(&r.period))
    }
    async fn statistics(&self, request: Request<v1::SymbolRequest>) -> Reply<v1::StatisticsReply> {
        public!(self, request, stock.statistics, |_| price::STATISTICS)
    }
    async fn volume_at_price(&self, request: Request<v1::SymbolRequest>) -> Reply<v1::VolumeAtPriceReply> {
        public!(self, request, stock.volume_at_price, |_| 500)
    }

    type PrivateStream = Pin<Box<dyn Stream<Item = Result<v1::PrivateUpdate, Status>> + Send>>;

    async fn private(&self, request: Request<v1::PrivateRequest>) -> Reply<Self::PrivateStream> {
        let session = self.allowed(&request, Act::Read, Permission::OrderStocks).await.map_err(outward)?;
        let needs = Permission::ManageOwnPortfolio;
        self.0.sessions.require(&session, Act::Read, needs).await.map_err(outward)?;
        // A gateway that was started anew lets the session in again where it watches market data.
        self.0.admit(session.id, session.user, Life::of(&session)).await;
        let message = request.into_inner();
        let start = |seq| if message.from_now { Start::Now } else { Start::After(seq) };
        let updates = private::updates(
            self.0.clone(),
            session,
            start(message.after_order_seq),
            start(message.after_portfolio_seq),
        );
        let stream = private::stream(updates).map(|event| {
            use v1::private_update::Kind;
            let (kind, reset) = match event.map_err(outward)? {
                Event::Order { update, reset } => (Kind::Order(*update), reset),
                Event::Portfolio { update, reset } => (Kind::Portfolio(*update), reset),
                Event::Heartbeat(heartbeat) => (Kind::Heartbeat(heartbeat), false),
            };
            Ok(v1::PrivateUpdate { kind: Some(kind), reset })
        });
        Ok(Response::new(Box::pin(stream)))
    }
}

impl Gateway {
    /// The holdings of every open account of the caller.
    pub async fn holdings_of_all_accounts(&self, session: &Session) -> Result<Vec<v1::Holding>, Status> {
        let client = self.reads(session).await.portfolio(&session.caller());
        let user_id = session.user.to_string();
        let request = v1::UserRequest { user_id: user_id.clone() };
        let accounts = client.clone().list_accounts(request).await?.into_inner().accounts;
        let replies = accounts.into_iter().filter(|a| !a.closed && session.reaches(&a.id)).map(|account| {
            let request = v1::AccountRequest { user_id: user_id.clone(), account_id: account.id };
            let mut client = client.clone();
            async move { Ok::<_, Status>(client.holdings(request).await?.into_inner().holdings) }
        });
        Ok(try_join_all(replies).await?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_leave_without_internals() {
        let status = outward(Status::internal("select failed at /var/lib"));
        assert_eq!(status.message(), "the service failed; the log has the cause");
        let status = outward(Status::unknown("boom"));
        assert_eq!(status.code(), Code::Internal);
        let refusal: Status =
            Refusal::invalid(Reason::PRICE_OFF_TICK, "price must be a multiple of 0.01").into();
        let status = outward(refusal);
        assert_eq!(status.message(), "price must be a multiple of 0.01");
        assert_eq!(status.metadata().get("x-fafnir-reason").unwrap(), "PRICE_OFF_TICK");
    }
}
