//! RPCs of security-service.

use super::{domain, store};
use fafnir_platform::{
    Context, Refusal, caller,
    db::{Copies, Db, Tx},
};
use fafnir_proto::{
    client::Caller,
    id::UserId,
    reason::Reason,
    v1::{self, security_server::Security},
};
use tonic::{Request, Response, Status};

/// Users whose permissions are kept in memory.
const USERS_KEPT_MAX: u64 = 50_000;

/// The service behind the door.
#[derive(Debug)]
pub struct Api {
    ctx: Context,
    db: Db,
    granted: Copies<UserId, v1::PermissionsReply>,
}

impl Api {
    pub fn new(ctx: Context, db: Db) -> Self {
        Self { ctx, granted: Copies::new(db.clone(), USERS_KEPT_MAX), db }
    }
}

fn parse_user(text: &str) -> Result<UserId, Refusal> {
    UserId::parse(text).map_err(|_| Refusal::invalid(Reason::ID_MALFORMED, "user_id must be a UUID"))
}

/// A component of the platform may manage roles; a user needs the permission.
fn check_manager(tx: &mut dyn Tx, caller: &Caller) -> fafnir_platform::Result<()> {
    match caller {
        Caller::System(_) => Ok(()),
        Caller::User(id) if store::has_permission(tx, *id, domain::MANAGE_ROLES)? == Some(true) => Ok(()),
        Caller::User(_) => Err(Refusal::denied("this needs the permission manage_roles").into()),
    }
}

fn unknown_role(role: &str) -> Refusal {
    Refusal::not_found(Reason::ROLE_UNKNOWN, format!("there is no role {role}"))
}

#[tonic::async_trait]
impl Security for Api {
    async fn check_permission(
        &self,
        request: Request<v1::CheckPermissionRequest>,
    ) -> Result<Response<v1::CheckPermissionReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let permission = domain::parse_name("permission", &request.get_ref().permission)?;
        let known = self.db.read(move |tx| Ok(store::has_permission(tx, user, &permission)?)).await?;
        let has_permission = known
            .ok_or_else(|| Refusal::invalid(Reason::PERMISSION_UNKNOWN, "there is no such permission"))?;
        Ok(Response::new(v1::CheckPermissionReply { has_permission }))
    }

    async fn permissions(
        &self,
        request: Request<v1::PermissionsRequest>,
    ) -> Result<Response<v1::PermissionsReply>, Status> {
        let user = caller::owner(&request, &request.get_ref().user_id)?;
        let work = move |tx: &mut dyn Tx| {
            let (permissions, roles) = (store::permissions_of(tx, user)?, store::roles_of(tx, user)?);
            Ok(v1::PermissionsReply { permissions, roles })
        };
        Ok(Response::new(self.granted.read(user, work).await?))
    }

    async fn grant(&self, request: Request<v1::GrantRequest>) -> Result<Response<v1::Empty>, Status> {
        let caller = caller::of(&request)?;
        let user = parse_user(&request.get_ref().user_id)?;
        let role = domain::parse_name("role", &request.get_ref().role)?;
        let now_us = self.ctx.clock.now_us();
        self.db
            .write(move |tx| {
                check_manager(tx, &caller)?;
                if !store::role_exists(tx, &role)? {
                    return Err(unknown_role(&role).into());
                }
                if store::grant(tx, user, &role, &caller.to_string(), now_us)? {
                    tracing::info!(%user, %role, by = %caller, "role granted");
                }
                Ok(())
            })
            .await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn revoke(&self, request: Request<v1::GrantRequest>) -> Result<Response<v1::Empty>, Status> {
        let caller = caller::of(&request)?;
        let user = parse_user(&request.get_ref().user_id)?;
        let role = domain::parse_name("role", &request.get_ref().role)?;
        self.db
            .write(move |tx| {
                check_manager(tx, &caller)?;
                if !store::role_exists(tx, &role)? {
                    return Err(unknown_role(&role).into());
                }
                if store::revoke(tx, user, &role)? {
                    if role == domain::ADMIN && store::holders(tx, domain::ADMIN)? == 0 {
                        return Err(Refusal::precondition(
                            Reason::LAST_ADMIN,
                            "the last admin keeps the role admin",
                        )
                        .into());
                    }
                    tracing::info!(%user, %role, by = %caller, "role revoked");
                }
                Ok(())
            })
            .await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn list_roles(&self, request: Request<v1::Empty>) -> Result<Response<v1::ListRolesReply>, Status> {
        let caller = caller::of(&request)?;
        let roles = self
            .db
            .read(move |tx| {
                check_manager(tx, &caller)?;
                Ok(store::roles(tx)?)
            })
            .await?;
        let roles = roles.into_iter().map(|(name, permissions)| v1::Role { name, permissions }).collect();
        Ok(Response::new(v1::ListRolesReply { roles }))
    }
}
