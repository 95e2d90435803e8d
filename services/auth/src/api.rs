//! The gRPC door `Auth`: for the gateway and the seeds; every call needs the service token.

use super::{
    domain::{NewUser, key::NewKey},
    operations::{Client, Failure, Kind, Operations, SignedIn},
    store::keys::Key,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fafnir_platform::{Caller, Error, Refusal, caller};
use fafnir_proto::{
    client::POSITION_KEY,
    id::{self, SessionId, UserId},
    reason::Reason,
    v1::{self, auth_server::Auth},
};
use sha2::{Digest as _, Sha256};
use std::{
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};
use tonic::{Request, Response, Status};

/// Users of one page.
const LIST_MAX: u32 = 1000;

/// The service behind the door.
#[derive(Debug)]
pub struct Api(pub Operations);

impl From<Failure> for Status {
    fn from(f: Failure) -> Self {
        Error::from(f).into()
    }
}

impl From<SignedIn> for v1::Tokens {
    fn from(s: SignedIn) -> Self {
        Self {
            access_token: s.access_token,
            refresh_token: s.refresh_token,
            expires_in_s: s.expires_in_s,
            user_id: s.user_id.to_string(),
            email: s.email,
            session_id: s.session_id.to_string(),
        }
    }
}

impl From<Key> for v1::ApiKey {
    fn from(k: Key) -> Self {
        Self {
            id: k.id,
            user_id: k.user_id.to_string(),
            label: k.label,
            scopes: k.scope.names(),
            account_id: k.account_id,
            addresses: k.addresses,
            created_us: k.created_us,
            expires_us: k.expires_us,
            last_used_us: k.last_used_us,
        }
    }
}

fn parse_id<T: FromStr<Err = id::Malformed>>(field: &'static str, text: &str) -> Result<T, Status> {
    text.parse().map_err(|e| Refusal::invalid(Reason::ID_MALFORMED, format!("{field} {e}")).into())
}

#[tonic::async_trait]
impl Auth for Api {
    async fn session(
        &self,
        request: Request<v1::SessionRequest>,
    ) -> Result<Response<v1::SessionReply>, Status> {
        caller::system(&request)?;
        let inactive = v1::SessionReply::default();
        let Ok(id) = SessionId::parse(&request.get_ref().session_id) else {
            return Ok(Response::new(inactive));
        };
        let Some((user, expires_us)) = self.0.session(id).await? else {
            return Ok(Response::new(inactive));
        };
        let csrf_hash = URL_SAFE_NO_PAD.encode(Sha256::digest(self.0.csrf_token(id)));
        Ok(Response::new(v1::SessionReply { active: true, user_id: user.to_string(), expires_us, csrf_hash }))
    }

    async fn sign_in(&self, request: Request<v1::SignInRequest>) -> Result<Response<v1::Tokens>, Status> {
        caller::system(&request)?;
        let r = request.into_inner();
        // Who does not say where its client is shares one throttle.
        let ip = r.client_ip.parse().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let client = Client { ip, user_agent: r.user_agent };
        let signed_in = self.0.sign_in(&r.email, &r.password, Kind::Bearer, &client).await?;
        Ok(Response::new(signed_in.into()))
    }

    async fn refresh(&self, request: Request<v1::RefreshRequest>) -> Result<Response<v1::Tokens>, Status> {
        caller::system(&request)?;
        Ok(Response::new(self.0.refresh(&request.get_ref().refresh_token).await?.into()))
    }

    async fn sign_out(&self, request: Request<v1::SignOutRequest>) -> Result<Response<v1::Empty>, Status> {
        caller::system(&request)?;
        let id = parse_id("session_id", &request.get_ref().session_id)?;
        self.0.sign_out(id).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::Tokens>, Status> {
        caller::system(&request)?;
        let id = parse_id("session_id", &request.get_ref().session_id)?;
        Ok(Response::new(self.0.renew(id).await?.into()))
    }

    async fn key(&self, request: Request<v1::KeyRequest>) -> Result<Response<v1::KeyReply>, Status> {
        caller::system(&request)?;
        let r = request.into_inner();
        let found = self.0.key(&r.key_id, &r.secret, r.client_ip.parse().ok()).await?;
        let reply = found.map_or_else(v1::KeyReply::default, |key| v1::KeyReply {
            active: true,
            session_id: key.session_id.to_string(),
            key: Some(key.into()),
        });
        Ok(Response::new(reply))
    }

    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Result<Response<v1::CreateKeyReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let position = request.metadata().get(POSITION_KEY).and_then(|v| v.to_str().ok()?.parse().ok());
        let r = request.into_inner();
        let now_us = self.0.ctx.clock.now_us();
        let new = NewKey::parse(&r.label, &r.scopes, &r.addresses, r.expires_us, now_us)?;
        let account =
            if r.account_id.is_empty() { None } else { Some(parse_id("account_id", &r.account_id)?) };
        let (key, secret) = self.0.create_key(user, new, account, position.unwrap_or(0)).await?;
        Ok(Response::new(v1::CreateKeyReply { key: Some(key.into()), secret }))
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Result<Response<v1::ListKeysReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let keys = self.0.keys_of(user).await?.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListKeysReply { keys }))
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Result<Response<v1::Empty>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        self.0.revoke_key(user, &request.get_ref().key_id).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn list_sessions(
        &self,
        request: Request<v1::ListSessionsRequest>,
    ) -> Result<Response<v1::ListSessionsReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let sessions = self.0.sessions_of(user).await?.into_iter().map(|s| v1::UserSession {
            id: s.id.to_string(),
            created_us: s.created_us,
            expires_us: s.expires_us,
            client_ip: s.client_ip,
            user_agent: s.user_agent,
            browser: s.browser,
        });
        Ok(Response::new(v1::ListSessionsReply { sessions: sessions.collect() }))
    }

    async fn revoke_session(
        &self,
        request: Request<v1::RevokeSessionRequest>,
    ) -> Result<Response<v1::Empty>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let session = parse_id("session_id", &request.get_ref().session_id)?;
        self.0.revoke_session(&caller::of(&request)?, user, session).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn revoke_sessions(
        &self,
        request: Request<v1::RevokeSessionsRequest>,
    ) -> Result<Response<v1::RevokeSessionsReply>, Status> {
        let user: UserId = parse_id("user_id", &request.get_ref().user_id)?;
        let by = caller::of(&request)?;
        if by != Caller::User(user) {
            caller::permitted(&self.0.ctx, &request, "deactivate_users").await?;
        }
        let r = request.into_inner();
        let except = match r.except_session_id.as_str() {
            "" => None,
            id => Some(parse_id("except_session_id", id)?),
        };
        let revoked = self.0.revoke_sessions(&by, user, except).await?;
        Ok(Response::new(v1::RevokeSessionsReply { revoked }))
    }

    async fn search_users(
        &self,
        request: Request<v1::SearchUsersRequest>,
    ) -> Result<Response<v1::SearchUsersReply>, Status> {
        caller::permitted(&self.0.ctx, &request, "view_users").await?;
        let r = request.into_inner();
        let limit = if r.limit == 0 { LIST_MAX } else { r.limit.min(LIST_MAX) };
        let (users, more) = self.0.search(&r.query, &r.state, r.after_id, limit).await?;
        let users = users.into_iter().map(|u| v1::UserAccount {
            user_id: u.id.to_string(),
            email: u.email,
            first_name: u.first_name,
            last_name: u.last_name,
            state: u.state.as_str().to_owned(),
            created_us: u.created_us,
        });
        Ok(Response::new(v1::SearchUsersReply { users: users.collect(), more }))
    }

    async fn deactivate(
        &self,
        request: Request<v1::UserStateRequest>,
    ) -> Result<Response<v1::Empty>, Status> {
        let by = caller::permitted(&self.0.ctx, &request, "deactivate_users").await?;
        let user = parse_id("user_id", &request.get_ref().user_id)?;
        self.0.deactivate(&by, user).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn reactivate(
        &self,
        request: Request<v1::UserStateRequest>,
    ) -> Result<Response<v1::Empty>, Status> {
        let by = caller::permitted(&self.0.ctx, &request, "reactivate_users").await?;
        let user = parse_id("user_id", &request.get_ref().user_id)?;
        self.0.reactivate(&by, user).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn figures(&self, request: Request<v1::Empty>) -> Result<Response<v1::AuthFigures>, Status> {
        caller::system(&request)?;
        let f = self.0.figures().await?;
        Ok(Response::new(v1::AuthFigures {
            active: f.active,
            deactivated: f.deactivated,
            unfinished: f.unfinished,
            sessions: f.sessions,
            keys: f.keys,
        }))
    }

    async fn jwks(&self, _: Request<v1::Empty>) -> Result<Response<v1::JwksReply>, Status> {
        Ok(Response::new(v1::JwksReply { json: self.0.jwks() }))
    }

    async fn seed(
        &self,
        request: Request<v1::SeedUserRequest>,
    ) -> Result<Response<v1::SeedUserReply>, Status> {
        caller::system(&request)?;
        let r = request.into_inner();
        let new = NewUser::parse(&r.email, &r.password, &r.first_name, &r.last_name)?;
        if r.user_id.is_empty() {
            let id = self.0.create(new, &r.roles).await?;
            return Ok(Response::new(v1::SeedUserReply { created: true, user_id: id.to_string() }));
        }
        let id = parse_id("user_id", &r.user_id)?;
        let (id, created) = self.0.seed(id, new, &r.roles).await?;
        if !r.key_id.is_empty() {
            self.0.seed_key(id, &r.key_id, &r.key_secret).await?;
        }
        Ok(Response::new(v1::SeedUserReply { created, user_id: id.to_string() }))
    }

    async fn list_users(
        &self,
        request: Request<v1::ListUsersRequest>,
    ) -> Result<Response<v1::ListUsersReply>, Status> {
        caller::system(&request)?;
        let v1::ListUsersRequest { after_id, limit } = request.into_inner();
        let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
        let users = self.0.db.read(move |tx| Ok(super::store::active_users(tx, &after_id, limit)?)).await;
        let users = users.map_err(|e: Error| Status::from(e))?.into_iter().map(|u| v1::UserRegistered {
            user_id: u.id.to_string(),
            email: u.email,
            first_name: u.first_name,
            last_name: u.last_name,
            time_us: u.created_us,
        });
        Ok(Response::new(v1::ListUsersReply { users: users.collect() }))
    }
}
