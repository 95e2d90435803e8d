//! The story of security-service: roles, permissions, who may change them.

use super::{events, store};
use crate::{
    broker,
    platform::{
        Clock,
        bus::USERS,
        db::Db,
        tasks::Tasks,
        testing::{self, Stack},
    },
    security,
};
use fafnir_proto::{client::Caller, v1};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use uuid::Uuid;

/// A database without its service.
async fn database(dir: &tempfile::TempDir) -> (Db, Tasks) {
    let tasks = Tasks::new(CancellationToken::new());
    let path = dir.path().join("security.sqlite");
    let db = Db::open_sqlite(path, "security-service", store::MIGRATIONS, &tasks, &Clock::wall()).await;
    (db.unwrap(), tasks)
}

#[tokio::test]
async fn the_table_of_roles_and_permissions() {
    let dir = tempfile::tempdir().unwrap();
    let (db, tasks) = database(&dir).await;
    let roles = db.read(|tx| Ok(store::roles(tx)?)).await.unwrap();
    let table: Vec<String> =
        roles.iter().flat_map(|(role, all)| all.iter().map(move |p| format!("{role}: {p}"))).collect();
    insta::assert_snapshot!(table.join("\n"), @r"
    admin: deactivate_users
    admin: manage_own_profile
    admin: manage_roles
    admin: reactivate_users
    admin: view_admin_dashboard
    admin: view_audit_logs
    admin: view_users
    member: manage_own_accounts
    member: manage_own_portfolio
    member: manage_own_profile
    member: manage_own_watchlist
    member: order_stocks
    member: view_stocks
    ");
    tasks.shutdown().cancel();
}

/// security-service with the stream that auth-service owns.
async fn start() -> Stack {
    let stack = Stack::start(&[broker::SERVICE]).await;
    stack.running.context.bus().await.unwrap().ensure_stream(USERS).await.unwrap();
    stack.restart(&[broker::SERVICE, security::SERVICE], |_| {}).await
}

#[tokio::test]
async fn roles_are_granted_and_revoked_by_those_who_may() {
    let stack = start().await;
    let clients = stack.running.context.clients.clone();
    let mut system = clients.security(&testing::system());
    let [admin, member, stranger] = [(); 3].map(|()| Uuid::new_v4());
    let role = |user: Uuid, role: &str| v1::GrantRequest { user_id: user.to_string(), role: role.into() };
    for request in [role(admin, "admin"), role(admin, "member"), role(member, "member")] {
        system.grant(request.clone()).await.unwrap();
        system.grant(request).await.expect("idempotent");
    }
    assert_eq!(system.grant(role(member, "king")).await.unwrap_err().code(), Code::NotFound);
    assert_eq!(system.grant(role(member, "'; --")).await.unwrap_err().code(), Code::InvalidArgument);

    let check = async |caller: &Caller, user: Uuid, permission: &str| -> Result<bool, Status> {
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

#[tokio::test]
async fn a_deleted_user_has_no_roles_however_often_the_fact_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (db, tasks) = database(&dir).await;
    let [gone, other] = [(); 2].map(|()| Uuid::new_v4());
    db.write(move |tx| {
        store::grant(tx, gone, "member", "system test", 1)?;
        store::grant(tx, other, "member", "system test", 1)?;
        Ok(())
    })
    .await
    .unwrap();
    let fact = v1::UserDeleted { user_id: gone.to_string(), time_us: 2 }.encode_to_vec();
    let facts = vec![
        ("users.registered".to_owned(), vec![0xff].into()),
        ("users.deleted".to_owned(), fact.into()),
        ("users.deleted".to_owned(), vec![0xff].into()),
    ];
    for _ in 0..3 {
        events::apply(&db, facts.clone(), 3).await.unwrap();
    }
    let (of_gone, of_other, buried) = db
        .read(move |tx| {
            let buried = crate::platform::db::inbox::buried(tx)?;
            Ok((store::roles_of(tx, gone)?, store::roles_of(tx, other)?, buried))
        })
        .await
        .unwrap();
    assert!(of_gone.is_empty());
    assert_eq!(of_other, ["member"]);
    assert_eq!(buried, 3, "what cannot be read is kept for a person");
    tasks.shutdown().cancel();
}
