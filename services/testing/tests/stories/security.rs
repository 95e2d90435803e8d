//! The story of security-service: roles, permissions, who may change them.

use crate::stack::{self as testing, Stack};
use fafnir_platform::bus::USERS;
use fafnir_proto::id::UserId;
use fafnir_proto::{client::Caller, v1};
use fafnir_services::{broker, security};
use tonic::{Code, Status};
use uuid::Uuid;

/// security-service with the stream that auth-service owns.
async fn start() -> Stack {
    let stack = Stack::start(&[&broker::SERVICE]).await;
    stack.running.context.bus().await.unwrap().ensure_stream(USERS).await.unwrap();
    stack.restart(&[&broker::SERVICE, &security::SERVICE], |_| {}).await
}

#[tokio::test]
async fn roles_are_granted_and_revoked_by_those_who_may() {
    let stack = start().await;
    let clients = stack.running.context.clients.clone();
    let mut system = clients.security(&testing::system());
    let [admin, member, stranger] = [(); 3].map(|()| UserId::new(Uuid::new_v4()));
    let role = |user: UserId, role: &str| v1::GrantRequest { user_id: user.to_string(), role: role.into() };
    for request in [role(admin, "admin"), role(admin, "member"), role(member, "member")] {
        system.grant(request.clone()).await.unwrap();
        system.grant(request).await.expect("idempotent");
    }
    assert_eq!(system.grant(role(member, "king")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(system.grant(role(member, "'; --")).await.unwrap_err().code(), Code::InvalidArgument);

    let check = async |caller: &Caller, user: UserId, permission: &str| -> Result<bool, Status> {
        let request = v1::CheckPermissionRequest { user_id: user.to_string(), permission: permission.into() };
        let reply = clients.security(caller).check_permission(request).await?;
        Ok(reply.into_inner().has_permission)
    };
    let platform = testing::system();
    assert!(check(&platform, admin, "manage_roles").await.unwrap());
    assert!(check(&platform, member, "order_stocks").await.unwrap());
    assert!(!check(&platform, member, "manage_roles").await.unwrap());
    assert!(!check(&platform, stranger, "view_stocks").await.unwrap());
    let unknown = check(&platform, member, "fly").await.unwrap_err();
    assert_eq!(unknown.code(), Code::InvalidArgument);
    // A user asks for itself; somebody else's id answers like an unknown one.
    let me = Caller::User(member);
    assert!(check(&me, member, "view_stocks").await.unwrap());
    assert_eq!(check(&me, admin, "view_stocks").await.unwrap_err().code(), Code::NotFound);
    assert_eq!(check(&me, stranger, "view_stocks").await.unwrap_err().code(), Code::NotFound);

    // A member may not change roles, an admin may, and the last admin stays one.
    let mut as_member = clients.security(&me);
    assert_eq!(as_member.grant(role(member, "admin")).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(as_member.list_roles(v1::Empty {}).await.unwrap_err().code(), Code::PermissionDenied);
    let mut as_admin = clients.security(&Caller::User(admin));
    assert_eq!(as_admin.list_roles(v1::Empty {}).await.unwrap().into_inner().roles.len(), 2);
    as_admin.revoke(role(member, "member")).await.unwrap();
    as_admin.revoke(role(member, "member")).await.expect("idempotent");
    assert!(!check(&platform, member, "view_stocks").await.unwrap(), "takes effect at once");
    let last = as_admin.revoke(role(admin, "admin")).await.unwrap_err();
    assert_eq!(last.code(), Code::FailedPrecondition);
    assert!(check(&platform, admin, "manage_roles").await.unwrap(), "the refusal changed nothing");
    stack.stop().await;
}
