//! Sessions as their owner sees them, what administrators do, and that all of it stands in the audit log.

use super::subscriptions::connect;
use super::*;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const SECOND_ADMIN: &str = "ff9fe8c1-0000-4000-8000-000000000002";

impl Door {
    async fn payload(&self, token: &str, field: &str, query: &str) -> Value {
        let answer = self.ask_as(token, query, json!({})).await.json();
        assert!(answer.get("errors").is_none(), "{query}: {answer}");
        answer["data"][field].clone()
    }

    async fn reason(&self, token: &str, field: &str, arguments: &str) -> Value {
        let payload = self
            .payload(token, field, &format!("mutation {{ {field}({arguments}) {{ code reason }} }}"))
            .await;
        if payload["code"] == "OK" { json!("OK") } else { payload["reason"].clone() }
    }

    async fn is_out(&self, token: &str) {
        let since = Instant::now();
        while self.ask_as(token, "{ health }", json!({})).await.status != 401 {
            assert!(since.elapsed() < Duration::from_secs(1), "still signed in");
        }
    }

    async fn log(&self) -> Vec<Value> {
        let query = "{ auditLog(first: 1000) { data { sequence action outcome actor subject source trace detail keyId } } }";
        let mut rows = self.payload(&self.admin, "auditLog", query).await["data"].as_array().unwrap().clone();
        rows.reverse();
        rows
    }

    /// Waits until a row is there that fits.
    async fn logged(&self, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let rows = self.log().await;
            if let Some(row) = rows.iter().find(|row| fits(row)) {
                return row.clone();
            }
            assert!(since.elapsed() < testing::DEADLINE, "{what} is not in the log: {rows:#?}");
        }
    }
}

#[tokio::test]
async fn sessions_are_listed_and_ended_by_their_owner() {
    let door = Door::open().await;
    let other = door.sign_in("user@test.com").await.access_token;
    let (cookies, _) = door.browser().await;
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&other).await;
    let list = "{ sessions { code data { id current browser address userAgent createdAt expiresAt } } }";
    let sessions = door.payload(&door.member, "sessions", list).await["data"].as_array().unwrap().clone();
    assert_eq!(sessions.len(), 3, "{sessions:?}");
    assert_eq!(sessions.iter().filter(|s| s["current"] == true).count(), 1);
    assert_eq!(sessions.iter().filter(|s| s["browser"] == true).count(), 1);
    assert!(sessions.iter().all(|s| s["address"] == "127.0.0.1"), "{sessions:?}");
    let own = door.payload(&other, "sessions", list).await["data"].as_array().unwrap().clone();
    let own = own.iter().find(|s| s["current"] == true).unwrap()["id"].as_str().unwrap().to_owned();

    // Another user's is as unknown as one that does not exist.
    for (token, id) in [(&door.admin, own.as_str()), (&door.member, "33333333-0000-4000-8000-000000000003")] {
        assert_eq!(
            door.reason(token, "revokeSession", &format!("sessionId: \"{id}\"")).await,
            "SESSION_NOT_FOUND"
        );
    }
    assert_eq!(door.reason(&door.member, "revokeSession", "sessionId: \"x\"").await, "ID_MALFORMED");
    assert_eq!(door.ask_as(&other, "{ health }", json!({})).await.status, 200);
    let revoked = Instant::now();
    assert_eq!(door.reason(&door.member, "revokeSession", &format!("sessionId: \"{own}\"")).await, "OK");
    assert_eq!(socket.closed_with().await, 4403);
    assert!(revoked.elapsed() < Duration::from_millis(1_500));
    door.is_out(&other).await;

    let ended = door
        .payload(&door.member, "revokeOtherSessions", "mutation { revokeOtherSessions { revoked } }")
        .await;
    assert_eq!(ended["revoked"], 1);
    let headers = [("cookie", cookies.as_str())];
    assert_eq!(door.send(Method::GET, "/auth/me", &headers, "").await.status, 401);
    assert_eq!(
        door.ask_as(&door.member, "{ health }", json!({})).await.status,
        200,
        "the one that asks stays"
    );
    door.stack.stop().await;
}

#[tokio::test]
async fn an_administrator_takes_a_users_access_and_gives_it_back() {
    let door = Door::open().await;
    let key = door.key(&door.member, "read", "").await;
    let user = format!("userId: \"{MEMBER}\"");
    let state = async || {
        let query = "{ users(query: \"USER@test\") { data { userId state email } hasMore } }";
        let found = door.payload(&door.admin, "users", query).await["data"].clone();
        assert_eq!(found.as_array().unwrap().len(), 1, "{found}");
        found[0]["state"].as_str().unwrap().to_owned()
    };
    assert_eq!(state().await, "ACTIVE");
    // Ends the sessions; nothing else.
    let other = door.sign_in("user@test.com").await.access_token;
    let ended = door
        .payload(
            &door.admin,
            "endSessions",
            &format!("mutation {{ endSessions({user}) {{ code revoked }} }}"),
        )
        .await;
    assert_eq!(ended, json!({"code": "OK", "revoked": 2}));
    door.is_out(&other).await;
    assert_eq!(door.ask_with_key(&key, "{ health }").await.status, 200, "a key is no session");

    let again = door.sign_in("user@test.com").await.access_token;
    for _ in 0..2 {
        assert_eq!(door.reason(&door.admin, "deactivateUser", &user).await, "OK", "again changes nothing");
    }
    door.is_out(&again).await;
    door.opens_to(&key, 401).await;
    assert_eq!(state().await, "DEACTIVATED");
    let request =
        v1::TerminalSignInRequest { email: "user@test.com".to_owned(), password: PASSWORD.to_owned() };
    let refused = door.terminal().await.sign_in(request).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "e-mail or password is wrong"));
    assert_eq!(door.reason(&door.admin, "reactivateUser", &user).await, "OK");
    assert_eq!(state().await, "ACTIVE");
    let back = door.sign_in("user@test.com").await.access_token;
    assert_eq!(door.ask_as(&back, "{ health }", json!({})).await.status, 200);
    door.opens_to(&key, 200).await;
    // What cannot be.
    let nobody = "userId: \"33333333-0000-4000-8000-000000000003\"";
    for field in ["deactivateUser", "reactivateUser", "endSessions"] {
        assert_eq!(door.reason(&door.admin, field, nobody).await, "USER_NOT_FOUND", "{field}");
        assert_eq!(door.reason(&door.admin, field, "userId: \"x\"").await, "ID_MALFORMED", "{field}");
        let denied =
            door.ask_as(&back, &format!("mutation {{ {field}({user}) {{ code }} }}"), json!({})).await.json();
        assert_eq!(denied["errors"][0]["extensions"]["code"], "PERMISSION_DENIED", "{field}");
    }
    // Straight at auth-service, with the platform's token and as a user without the permission.
    let clients = &door.stack.running.context.clients;
    let mut auth = clients.auth(&Caller::User(MEMBER.parse().unwrap()));
    let admin = v1::UserStateRequest { user_id: ADMIN.to_owned() };
    assert_eq!(auth.deactivate(admin.clone()).await.unwrap_err().code(), Code::PermissionDenied);
    assert_eq!(auth.reactivate(admin).await.unwrap_err().code(), Code::PermissionDenied);
    let theirs = v1::RevokeSessionsRequest { user_id: ADMIN.to_owned(), ..Default::default() };
    assert_eq!(auth.revoke_sessions(theirs).await.unwrap_err().code(), Code::PermissionDenied);
    let all = v1::SearchUsersRequest::default();
    assert_eq!(auth.search_users(all).await.unwrap_err().code(), Code::PermissionDenied);
    let mut security = clients.security(&Caller::User(MEMBER.parse().unwrap()));
    let log = v1::AuditLogRequest::default();
    assert_eq!(security.audit_log(log).await.unwrap_err().code(), Code::PermissionDenied);
    let verify = v1::VerifyAuditRequest::default();
    assert_eq!(security.verify_audit(verify).await.unwrap_err().code(), Code::PermissionDenied);
    let forged = v1::RecordRequest { entries: vec![v1::AuditEntry::default()] };
    assert_eq!(security.record(forged).await.unwrap_err().code(), Code::PermissionDenied);
    // A wildcard is a character.
    let query = "{ users(query: \"%\") { data { userId } } }";
    assert_eq!(door.payload(&door.admin, "users", query).await["data"], json!([]));
    door.stack.stop().await;
}

#[tokio::test]
async fn the_last_administrator_stays_whatever_it_does_and_of_two_one_does() {
    let door = Door::open().await;
    let admin = format!("userId: \"{ADMIN}\"");
    let role = format!("{admin}, role: \"admin\"");
    let bearer = format!("Bearer {}", door.admin);
    let delete = async |bearer: &str| {
        door.send(Method::DELETE, "/auth/delete", &[("authorization", bearer)], "").await
    };
    assert_eq!(door.reason(&door.admin, "deactivateUser", &admin).await, "LAST_ADMIN");
    assert_eq!(door.reason(&door.admin, "revokeRole", &role).await, "LAST_ADMIN");
    let refused = delete(&bearer).await;
    assert_eq!(refused.json()["error"]["details"], "LAST_ADMIN", "{refused:?}");
    assert_eq!(
        door.ask_as(&door.admin, "{ roles { code } }", json!({})).await.json()["data"]["roles"]["code"],
        "OK"
    );

    // A second one: each takes the other's access at once, and one of them stays.
    door.seed(SECOND_ADMIN, "second@test.com", &["admin"]).await;
    let second = door.sign_in("second@test.com").await.access_token;
    let of_second = format!("userId: \"{SECOND_ADMIN}\"");
    let takes_the_first = format!("mutation {{ deactivateUser({admin}) {{ code reason }} }}");
    let (one, two) = futures::join!(
        door.reason(&door.admin, "deactivateUser", &of_second),
        door.ask_as(&second, &takes_the_first, json!({}))
    );
    let two = two.json();
    let left: Vec<_> = [ADMIN, SECOND_ADMIN].into_iter().collect();
    let mut active = 0;
    for id in left {
        let mut auth = door.stack.running.context.clients.auth(&Caller::system("test"));
        let asked = v1::SearchUsersRequest { query: id.to_owned(), ..Default::default() };
        active +=
            usize::from(auth.search_users(asked).await.unwrap().into_inner().users[0].state == "ACTIVE");
    }
    assert_eq!(active, 1, "{one} {two}");
    door.stack.stop().await;
}

#[tokio::test]
async fn a_deactivated_administrator_is_nobodys_last_one() {
    let door = Door::open().await;
    door.seed(SECOND_ADMIN, "second@test.com", &["admin"]).await;
    let second = format!("userId: \"{SECOND_ADMIN}\"");
    assert_eq!(door.reason(&door.admin, "deactivateUser", &second).await, "OK");
    let own = format!("userId: \"{ADMIN}\"");
    assert_eq!(door.reason(&door.admin, "deactivateUser", &own).await, "LAST_ADMIN");
    assert_eq!(
        door.reason(&door.admin, "revokeRole", &format!("{own}, role: \"admin\"")).await,
        "LAST_ADMIN"
    );
    assert_eq!(door.reason(&door.admin, "reactivateUser", &second).await, "OK");
    assert_eq!(door.reason(&door.admin, "revokeRole", &format!("{own}, role: \"admin\"")).await, "OK");
    door.stack.stop().await;
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one log: everything that it must tell, and that it tells nothing else"
)]
async fn what_matters_stands_in_the_audit_log_with_its_trace() {
    let door = Door::open().await;
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    let bearer = format!("Bearer {}", door.member);
    let traced = async |query: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("authorization", bearer.as_str()),
            ("traceparent", parent.as_str()),
        ];
        door.send(Method::POST, "/graphql", &headers, &json!({"query": query}).to_string()).await.json()
    };
    let money = |field: &str, amount: &str| {
        format!(
            "mutation {{ {field}(request: {{accountId: \"{ACCOUNT}\", amount: {amount}, currency: \"USD\"}}) {{ code }} }}"
        )
    };
    traced(&money("deposit", "12.5")).await;
    traced(&money("withdraw", "-1")).await;
    traced("mutation { createAccount(request: {type: \"SAVINGS\", currency: \"USD\"}) { code } }").await;
    let key = door.key(&door.member, "trade", "").await;
    door.ask(&format!("mutation {{ revokeApiKey(keyId: \"{}\") {{ code }} }}", key.id)).await;
    let role = format!("userId: \"{MEMBER}\", role: \"admin\"");
    assert_eq!(door.reason(&door.admin, "grantRole", &role).await, "OK");
    assert_eq!(door.reason(&door.admin, "revokeRole", &role).await, "OK");
    // Refused sign-ins: of somebody, and of nobody.
    let json_headers = [("content-type", "application/json"), ("traceparent", parent.as_str())];
    let login = async |email: &str| {
        let body = json!({"email": email, "password": "wrong password"}).to_string();
        door.send(Method::POST, "/auth/login", &json_headers, &body).await
    };
    for _ in 0..5 {
        assert_eq!(login("user@test.com").await.status, 401);
    }
    assert_eq!(login("quixotic.zebra@example.com").await.status, 401);
    assert_eq!(login("user@test.com").await.status, 429);
    let body =
        json!({"email": "new@example.com", "password": PASSWORD, "firstName": "New", "lastName": "One"});
    let registered = door.send(Method::POST, "/auth/register", &json_headers, &body.to_string()).await;
    let new_id = registered.json()["userId"].as_str().unwrap().to_owned();

    let by = |action: &'static str, outcome: &'static str| {
        move |row: &Value| row["action"] == action && row["outcome"] == outcome
    };
    let asked = door.logged("a deposit", by("money.deposit", "ASKED")).await;
    let done = door.logged("what became of it", by("money.deposit", "OK")).await;
    for row in [&asked, &done] {
        assert_eq!(
            (&row["trace"], &row["subject"], &row["source"]),
            (&json!(TRACE), &json!(MEMBER), &json!("127.0.0.1")),
            "{row}"
        );
        assert_eq!(row["actor"], format!("user {MEMBER}"));
        assert_eq!(row["detail"], format!("12.50 USD into {ACCOUNT}"));
    }
    let refused = door.logged("a refused withdrawal", by("money.withdraw", "AMOUNT")).await;
    assert_eq!(refused["trace"], TRACE);
    door.logged("an account", by("account.open", "OK")).await;
    let made = door.logged("a key", by("key.create", "OK")).await;
    assert!(
        made["detail"].as_str().unwrap().contains(&key.id) && made["actor"] == format!("user {MEMBER}"),
        "{made}"
    );
    door.logged("its end", by("key.revoke", "OK")).await;
    let granted = door.logged("a role", by("role.grant", "OK")).await;
    let roles = door.log().await;
    assert!(
        roles.iter().any(|r| r["action"] == "role.grant"
            && r["actor"] == format!("user {ADMIN}")
            && r["subject"] == MEMBER
            && r["detail"] == "admin"),
        "{granted}"
    );
    door.logged("its end", by("role.revoke", "OK")).await;
    let failed = door
        .logged("a refused sign-in", |r| by("session.open", "UNAUTHENTICATED")(r) && r["subject"] == MEMBER)
        .await;
    assert_eq!(
        (&failed["actor"], &failed["source"], &failed["trace"]),
        (&json!("nobody"), &json!("127.0.0.1"), &json!(TRACE)),
        "{failed}"
    );
    let unknown =
        door.logged("nobody's", |r| by("session.open", "UNAUTHENTICATED")(r) && r["subject"] == "").await;
    assert_eq!(unknown["actor"], "nobody");
    let throttled = door.logged("a throttle", by("session.throttle", "TOO_MANY_FAILED_SIGN_INS")).await;
    assert_eq!(throttled["subject"], MEMBER);
    door.logged("a registration", |r| r["action"] == "user.register" && r["subject"] == new_id).await;
    door.logged("a sign-in", |r| by("session.open", "OK")(r) && r["subject"] == MEMBER).await;

    let rows = door.log().await;
    let sequences: Vec<_> = rows.iter().map(|r| r["sequence"].as_u64().unwrap()).collect();
    assert_eq!(sequences, (1..=rows.len() as u64).collect::<Vec<_>>(), "without a gap");
    // Nothing personal: the log is for ever.
    let text = json!(rows).to_string();
    for personal in ["user@test.com", "Ada", "Byron", "zebra", "new@example.com", PASSWORD, &key.secret] {
        assert!(!text.contains(personal), "{personal}");
    }
    // Narrowed down, and page by page.
    let query = format!(
        "{{ auditLog(userId: \"{MEMBER}\", action: \"key.create\") {{ data {{ action subject }} }} }}"
    );
    let found = door.payload(&door.admin, "auditLog", &query).await["data"].clone();
    assert_eq!(found, json!([{"action": "key.create", "subject": MEMBER}]));
    let (mut seen, mut after) = (BTreeSet::new(), String::new());
    loop {
        let page = door
            .payload(
                &door.admin,
                "auditLog",
                &format!("{{ auditLog(first: 3{after}) {{ data {{ sequence }} endCursor hasMore }} }}"),
            )
            .await;
        seen.extend(page["data"].as_array().unwrap().iter().map(|r| r["sequence"].as_u64().unwrap()));
        after = format!(", after: {}", page["endCursor"]);
        if page["hasMore"] == false {
            break;
        }
    }
    assert!(seen.len() >= rows.len());
    let verdict = door
        .payload(&door.admin, "verifyAuditLog", "{ verifyAuditLog { code data { sound sequence broken } } }")
        .await;
    assert_eq!(
        (&verdict["data"]["sound"], &verdict["data"]["broken"]),
        (&json!(true), &Value::Null),
        "{verdict}"
    );
    door.stack.stop().await;
}
