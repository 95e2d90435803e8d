//! The story of security-service: roles, permissions, who may change them.

use super::{events, store};
use fafnir_platform::{Clock, db::Db, tasks::Tasks, users};
use fafnir_proto::{id::UserId, v1};
use prost::Message as _;
use tokio_util::sync::CancellationToken;
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

#[tokio::test]
async fn a_deleted_user_has_no_roles_however_often_the_fact_comes() {
    let dir = tempfile::tempdir().unwrap();
    let (db, tasks) = database(&dir).await;
    let [gone, other] = [(); 2].map(|()| UserId::new(Uuid::new_v4()));
    db.write(move |tx| {
        store::grant(tx, gone, "member", "system test", 1)?;
        store::grant(tx, other, "member", "system test", 1)?;
        Ok(())
    })
    .await
    .unwrap();
    let fact = v1::UserDeleted { user_id: gone.to_string(), time_us: 2 }.encode_to_vec();
    let facts = vec![
        (fafnir_proto::subject::USER_REGISTERED.to_owned(), vec![0xff].into()),
        (fafnir_proto::subject::USER_DELETED.to_owned(), fact.into()),
        (fafnir_proto::subject::USER_DELETED.to_owned(), vec![0xff].into()),
    ];
    for _ in 0..3 {
        users::apply(&db, facts.clone(), 3, events::revoke_all).await.unwrap();
    }
    let (of_gone, of_other, dead_letters) = db
        .read(move |tx| {
            let dead_letters = fafnir_platform::db::inbox::dead_letter_count(tx)?;
            Ok((store::roles_of(tx, gone)?, store::roles_of(tx, other)?, dead_letters))
        })
        .await
        .unwrap();
    assert!(of_gone.is_empty());
    assert_eq!(of_other, ["member"]);
    assert_eq!(dead_letters, 3, "what cannot be read is kept for a person");
    tasks.shutdown().cancel();
}
