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
    admin: manage_market
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

async fn log_of(dir: &tempfile::TempDir) -> (Db, Tasks, super::audit::Log) {
    let (db, tasks) = database(dir).await;
    let log = super::audit::Log::of(db.clone(), b"a key of this test");
    (db, tasks, log)
}

fn entries(numbers: std::ops::Range<u32>) -> Vec<v1::AuditEntry> {
    let one = |n| v1::AuditEntry {
        id: format!("00000000-0000-4000-8000-{n:012}"),
        time_us: i64::from(n),
        action: "session.open".to_owned(),
        outcome: "OK".to_owned(),
        detail: format!("entry {n}"),
        ..Default::default()
    };
    numbers.map(one).collect()
}

#[tokio::test]
async fn what_is_recorded_again_stands_once_and_the_chain_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (_db, tasks, log) = log_of(&dir).await;
    let nothing = log.verify(v1::VerifyAuditRequest::default()).await.unwrap();
    assert!(nothing.sound && nothing.seq == 0, "{nothing:?}");
    for _ in 0..3 {
        log.record(entries(0..2_500)).await.unwrap_err();
        log.record(entries(0..500)).await.unwrap();
        log.record(entries(400..1_200)).await.unwrap();
    }
    let whole = log.verify(v1::VerifyAuditRequest::default()).await.unwrap();
    assert!(whole.sound && whole.seq == 1_200, "{whole:?}");
    let page = log.rows(v1::AuditLogRequest { limit: 3, ..Default::default() }).await.unwrap();
    assert_eq!(page.iter().map(|r| r.seq).collect::<Vec<_>>(), [1_200, 1_199, 1_198]);
    let page = log.rows(v1::AuditLogRequest { after: 5, forward: true, limit: 2, ..Default::default() });
    assert_eq!(page.await.unwrap().iter().map(|r| r.seq).collect::<Vec<_>>(), [6, 7]);
    // A head that was written down is still there.
    let known = v1::VerifyAuditRequest { seq: whole.seq, hash: whole.hash.clone() };
    log.record(entries(1_200..1_300)).await.unwrap();
    assert!(log.verify(known).await.unwrap().sound);
    tasks.shutdown().cancel();
}

#[tokio::test]
async fn a_row_that_is_changed_removed_reordered_or_added_is_found() {
    // Each is planted by whoever has the database and not the key.
    let plants: [(&str, &[&str], &str); 9] = [
        ("changed", &["UPDATE audit_log SET detail = 'nothing' WHERE seq = 7"], "row 7 is not what"),
        ("its time", &["UPDATE audit_log SET time_us = 0 WHERE seq = 7"], "row 7 is not what"),
        ("its hash", &["UPDATE audit_log SET hash = zeroblob(32) WHERE seq = 7"], "row 7 is not what"),
        ("removed", &["DELETE FROM audit_log WHERE seq = 7"], "row 7 is missing"),
        ("the first", &["DELETE FROM audit_log WHERE seq = 1"], "row 1 is missing"),
        ("the last", &["DELETE FROM audit_log WHERE seq = 20"], "the log ends with row 19"),
        (
            "reordered",
            &[
                "UPDATE audit_log SET seq = 99 WHERE seq = 7",
                "UPDATE audit_log SET seq = 7 WHERE seq = 8",
                "UPDATE audit_log SET seq = 8 WHERE seq = 99",
            ],
            "row 7 is not what",
        ),
        (
            "removed and closed up",
            &[
                "DELETE FROM audit_log WHERE seq = 20",
                "UPDATE audit_head SET seq = 19, hash = (SELECT hash FROM audit_log WHERE seq = 19)",
            ],
            // Only who wrote the head down knows.
            "the log ends with row 19",
        ),
        (
            "added",
            &[
                "INSERT INTO audit_log SELECT 21, 'x', time_us, action, outcome, actor, subject, source, trace, detail, \
               key_id, hash FROM audit_log WHERE seq = 20",
            ],
            "the log ends with row 21",
        ),
    ];
    for (what, statements, found) in plants {
        let dir = tempfile::tempdir().unwrap();
        let (db, tasks, log) = log_of(&dir).await;
        log.record(entries(0..20)).await.unwrap();
        let before = log.verify(v1::VerifyAuditRequest::default()).await.unwrap();
        assert!(before.sound, "{before:?}");
        db.write(move |tx| statements.iter().try_for_each(|sql| Ok(tx.execute(sql, &[]).map(drop)?)))
            .await
            .unwrap();
        let known = v1::VerifyAuditRequest { seq: before.seq, hash: before.hash };
        let after = log.verify(known).await.unwrap();
        assert!(!after.sound && after.broken.contains(found), "{what}: {after:?}");
        tasks.shutdown().cancel();
    }
}
