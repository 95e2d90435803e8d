//! RPCs of security-service.

use super::{
    audit::{self, Log},
    domain, store,
};
use fafnir_platform::{
    Context, Refusal,
    audit::{Action, More as _, entry},
    caller,
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
    log: Log,
}

impl Api {
    pub fn new(ctx: Context, db: Db, log: Log) -> Self {
        Self { ctx, granted: Copies::new(db.clone(), USERS_KEPT_MAX), db, log }
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

impl Api {
    /// A component of the platform may read the audit log; a user needs the permission.
    async fn check_viewer(&self, caller: Caller) -> fafnir_platform::Result<()> {
        let Caller::User(id) = caller else { return Ok(()) };
        let may = self.db.read(move |tx| Ok(store::has_permission(tx, id, domain::VIEW_AUDIT_LOGS)?)).await?;
        if may == Some(true) {
            return Ok(());
        }
        Err(Refusal::denied(format!("this needs the permission {}", domain::VIEW_AUDIT_LOGS)).into())
    }
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
        let chain = self.log.chain.clone();
        let told = entry(Action::RoleGrant, caller.clone(), user, now_us).with_detail(&role);
        self.log
            .write(move |tx| {
                check_manager(tx, &caller)?;
                if !store::role_exists(tx, &role)? {
                    return Err(unknown_role(&role).into());
                }
                if store::grant(tx, user, &role, &caller.to_string(), now_us)? {
                    store::audit::append(tx, &chain, &told)?;
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
        let chain = self.log.chain.clone();
        let now_us = self.ctx.clock.now_us();
        let told = entry(Action::RoleRevoke, caller.clone(), user, now_us).with_detail(&role);
        self.log
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
                    store::audit::append(tx, &chain, &told)?;
                    tracing::info!(%user, %role, by = %caller, "role revoked");
                }
                Ok(())
            })
            .await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn suspend(&self, request: Request<v1::SuspendRequest>) -> Result<Response<v1::Empty>, Status> {
        caller::system(&request)?;
        let user = parse_user(&request.get_ref().user_id)?;
        let now_us = self.ctx.clock.now_us();
        self.db
            .write(move |tx| {
                let is_new = store::suspend(tx, user, now_us)?;
                let is_admin = store::has_role(tx, user, domain::ADMIN)?;
                if is_new && is_admin && store::holders(tx, domain::ADMIN)? == 0 {
                    let text = "the last admin stays: somebody must be able to grant roles";
                    return Err(Refusal::precondition(Reason::LAST_ADMIN, text).into());
                }
                Ok(())
            })
            .await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn resume(&self, request: Request<v1::SuspendRequest>) -> Result<Response<v1::Empty>, Status> {
        caller::system(&request)?;
        let user = parse_user(&request.get_ref().user_id)?;
        self.db.write(move |tx| Ok(store::resume(tx, user)?)).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn record(&self, request: Request<v1::RecordRequest>) -> Result<Response<v1::Empty>, Status> {
        caller::system(&request)?;
        self.log.record(request.into_inner().entries).await?;
        Ok(Response::new(v1::Empty {}))
    }

    async fn audit_log(
        &self,
        request: Request<v1::AuditLogRequest>,
    ) -> Result<Response<v1::AuditLogReply>, Status> {
        self.check_viewer(caller::of(&request)?).await?;
        let rows = self.log.rows(request.into_inner()).await?;
        Ok(Response::new(v1::AuditLogReply { rows: rows.into_iter().map(audit::wire).collect() }))
    }

    async fn verify_audit(
        &self,
        request: Request<v1::VerifyAuditRequest>,
    ) -> Result<Response<v1::VerifyAuditReply>, Status> {
        self.check_viewer(caller::of(&request)?).await?;
        Ok(Response::new(self.log.verify(request.into_inner()).await?))
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
