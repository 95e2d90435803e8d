//! The story of auth-service over real HTTP and gRPC; order and portfolio are played by the test.

use crate::stack as testing;
use crate::stack::{Answer, Stack};
use axum::http::{Method, StatusCode};
use fafnir_platform::{
    clock::SECOND_US,
    token::{AUDIENCE, Claims, ISSUER, SigningKey},
};
use fafnir_proto::id::{SessionId, UserId};
use fafnir_proto::v1;
use fafnir_services::{auth, broker, security, user};
use futures::{StreamExt as _, future::join_all};
use prost::Message as _;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, Ordering},
};
use tonic::Code;
use uuid::Uuid;

static SERVICES: [&fafnir_platform::Service; 4] =
    [&broker::SERVICE, &auth::SERVICE, &security::SERVICE, &user::SERVICE];
const EMAIL: &str = "ada@example.com";
const PASSWORD: &str = "Password123";

struct Auth {
    stack: Stack,
    url: String,
}

/// A browser's cookies and its CSRF token.
#[derive(Clone, Debug)]
struct Browser {
    cookies: String,
    csrf: String,
}

impl Auth {
    async fn start() -> Self {
        Self::over(Stack::start(&SERVICES).await)
    }

    fn over(stack: Stack) -> Self {
        let url = stack.url("auth-service").to_owned();
        Self { stack, url }
    }

    async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: &str) -> Answer {
        testing::request(method, &format!("{}{path}", self.url), headers, body).await
    }

    async fn post(&self, path: &str, body: serde_json::Value) -> Answer {
        let json = [("content-type", "application/json")];
        self.send(Method::POST, path, &json, &body.to_string()).await
    }

    async fn register(&self, email: &str) -> Answer {
        let body = serde_json::json!({"email": email, "password": PASSWORD, "firstName": "Ada", "lastName": "Byron"});
        self.post("/auth/register", body).await
    }

    async fn login(&self, email: &str, password: &str) -> Answer {
        self.post("/auth/login", serde_json::json!({"email": email, "password": password})).await
    }

    async fn browser(&self, email: &str) -> Browser {
        let answer = self.login(email, PASSWORD).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        let cookies: Vec<String> =
            set_cookies(&answer).iter().map(|c| c.split(';').next().unwrap().to_owned()).collect();
        let csrf = cookies.iter().find_map(|c| c.strip_prefix("csrf_token=")).unwrap().to_owned();
        Browser { cookies: cookies.join("; "), csrf }
    }

    async fn tokens(&self, email: &str) -> (String, String) {
        let headers = [
            ("content-type", "application/json"),
            ("accept", "application/vnd.fafnir.token+json, application/json;q=0.5"),
        ];
        let body = serde_json::json!({"email": email, "password": PASSWORD}).to_string();
        let answer = self.send(Method::POST, "/auth/login", &headers, &body).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(set_cookies(&answer).len(), 2);
        pair(&answer)
    }

    async fn me(&self, header: (&str, &str)) -> Answer {
        self.send(Method::GET, "/auth/me", &[header], "").await
    }

    async fn me_bearer(&self, token: &str) -> StatusCode {
        self.me(("authorization", &format!("Bearer {token}"))).await.status
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("/auth/refresh", serde_json::json!({"refreshToken": token})).await
    }
}

fn pair(answer: &Answer) -> (String, String) {
    let json = answer.json();
    assert_eq!(json["expiresIn"], 600);
    let text = |name: &str| json[name].as_str().unwrap().to_owned();
    (text("accessToken"), text("refreshToken"))
}

fn set_cookies(answer: &Answer) -> Vec<String> {
    answer.headers.get_all("set-cookie").iter().map(|v| v.to_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_user_registers_signs_in_and_out() {
    let auth = Auth::start().await;
    let registered = auth.register(EMAIL).await;
    assert_eq!(registered.status, StatusCode::CREATED, "{registered:?}");
    assert!(set_cookies(&registered).is_empty());
    let user_id = registered.json()["userId"].as_str().unwrap().to_owned();
    assert!(registered.json()["message"].is_string());
    assert_eq!(Uuid::parse_str(&user_id).unwrap().to_string(), user_id);

    // Role and profile exist before the answer.
    let clients = &auth.stack.running.context.clients;
    let request = v1::PermissionsRequest { user_id: user_id.clone() };
    let granted = clients.security(&testing::system()).permissions(request).await.unwrap().into_inner();
    assert_eq!(granted.roles, ["member"]);
    let request = v1::GetProfileRequest { user_id: user_id.clone() };
    let profile = clients.user(&testing::system()).get_profile(request).await.unwrap().into_inner();
    assert_eq!((profile.first_name.as_str(), profile.last_name.as_str()), ("Ada", "Byron"));

    // Other spellings of the address meet the same account.
    for email in ["ADA@Example.COM", "ａｄａ@example.com", " ada@example.com "] {
        let again = auth.register(email).await;
        assert_eq!((again.status, again.code()), (StatusCode::CONFLICT, "CONFLICT".into()), "{email}");
        assert_eq!(auth.login(email, PASSWORD).await.status, StatusCode::OK, "{email}");
    }

    let answer = auth.login(EMAIL, PASSWORD).await;
    assert!(answer.json()["message"].is_string());
    assert!(answer.json().get("accessToken").is_none());
    let cookies = set_cookies(&answer);
    assert!(cookies[0].starts_with("auth_token="), "{cookies:?}");
    assert!(cookies[0].ends_with("; Path=/; Max-Age=86400; HttpOnly; SameSite=Lax"), "{cookies:?}");
    assert!(cookies[1].starts_with("csrf_token="), "{cookies:?}");
    assert!(cookies[1].ends_with("; Path=/; Max-Age=86400; SameSite=Lax"), "{cookies:?}");

    let browser = auth.browser(EMAIL).await;
    let me = auth.me(("cookie", &browser.cookies)).await;
    assert_eq!(me.status, StatusCode::OK);
    assert_eq!(me.json(), serde_json::json!({"userId": user_id, "email": EMAIL}));

    let out = auth
        .send(
            Method::DELETE,
            "/auth/logout",
            &[("cookie", &browser.cookies), ("x-csrf-token", &browser.csrf)],
            "",
        )
        .await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    assert_eq!(
        set_cookies(&out),
        [
            "auth_token=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax",
            "csrf_token=; Path=/; Max-Age=0; SameSite=Lax"
        ]
    );
    let me = auth.me(("cookie", &browser.cookies)).await;
    assert_eq!((me.status, me.code()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()));
    auth.stack.stop().await;
}

#[tokio::test]
async fn an_unsafe_request_with_a_cookie_needs_the_csrf_token_of_its_session() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    let (mine, other) = (auth.browser(EMAIL).await, auth.browser(EMAIL).await);
    let foreign = mine.cookies.replace(&mine.csrf, &other.csrf);
    for headers in [
        vec![("cookie", mine.cookies.as_str())],
        vec![("cookie", mine.cookies.as_str()), ("x-csrf-token", "")],
        vec![("cookie", mine.cookies.as_str()), ("x-csrf-token", other.csrf.as_str())],
        vec![("cookie", foreign.as_str()), ("x-csrf-token", other.csrf.as_str())],
    ] {
        for path in ["/auth/logout", "/auth/delete"] {
            let refused = auth.send(Method::DELETE, path, &headers, "").await;
            assert_eq!((refused.status, refused.code()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()));
        }
    }
    assert_eq!(auth.me(("cookie", &mine.cookies)).await.status, StatusCode::OK);
    // A Bearer caller needs none.
    let (access, _) = auth.tokens(EMAIL).await;
    let bearer = format!("Bearer {access}");
    let out = auth.send(Method::DELETE, "/auth/logout", &[("authorization", &bearer)], "").await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    auth.stack.stop().await;
}

#[tokio::test]
async fn a_refresh_token_works_once_and_its_reuse_ends_the_family() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    let (access, first) = auth.tokens(EMAIL).await;
    assert_eq!(auth.me_bearer(&access).await, StatusCode::OK);
    let (access, second) = pair(&auth.refresh(&first).await);
    assert_ne!(first, second);
    assert_eq!(auth.me_bearer(&access).await, StatusCode::OK);
    auth.stack.time.advance(11);
    assert_eq!(auth.refresh(&first).await.status, StatusCode::UNAUTHORIZED);
    // The family is gone: the newer refresh token and the access token as well.
    assert_eq!(auth.refresh(&second).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.me_bearer(&access).await, StatusCode::UNAUTHORIZED);
    for nonsense in ["", "x", &"y".repeat(5000), "' OR 1=1 --"] {
        assert_eq!(auth.refresh(nonsense).await.status, StatusCode::UNAUTHORIZED, "{nonsense}");
    }

    // Idle for more than 24 hours, or older than 14 days, it is void.
    let (_, idle) = auth.tokens(EMAIL).await;
    let (_, mut busy) = auth.tokens(EMAIL).await;
    auth.stack.time.advance(23 * 3600);
    (_, busy) = pair(&auth.refresh(&busy).await);
    auth.stack.time.advance(2 * 3600);
    assert_eq!(auth.refresh(&idle).await.status, StatusCode::UNAUTHORIZED);
    for _ in 0..13 {
        (_, busy) = pair(&auth.refresh(&busy).await);
        auth.stack.time.advance(23 * 3600 + 1800);
    }
    auth.stack.time.advance(1800);
    assert_eq!(auth.refresh(&busy).await.status, StatusCode::UNAUTHORIZED);
    auth.stack.stop().await;
}

#[tokio::test]
async fn refreshes_at_once_leave_the_session_and_a_late_one_ends_it() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    let (_, refresh) = auth.tokens(EMAIL).await;
    let answers = join_all((0..50).map(|_| auth.refresh(&refresh))).await;
    let (mut accesses, mut refreshes) = (Vec::new(), std::collections::BTreeSet::new());
    for answer in &answers {
        assert_eq!(answer.status, StatusCode::OK, "two windows of one user");
        let (access, next) = pair(answer);
        accesses.push(access);
        refreshes.insert(next);
    }
    assert_eq!(refreshes.len(), 50, "each has a token of its own");
    for access in &accesses[..5] {
        assert_eq!(auth.me_bearer(access).await, StatusCode::OK);
    }
    auth.stack.time.advance(11);
    assert_eq!(auth.refresh(&refresh).await.status, StatusCode::UNAUTHORIZED, "a thief comes later");
    assert_eq!(auth.me_bearer(&accesses[0]).await, StatusCode::UNAUTHORIZED, "the family is revoked");
    auth.stack.stop().await;
}

#[tokio::test]
async fn a_flood_of_sign_ins_is_fair_and_says_how_long_to_wait() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    auth.register("flood@example.com").await;
    let token = auth.stack.running.context.secrets.service_token.current().expose().to_owned();
    let from = async |ip: &str, email: &str| {
        let headers = [
            ("content-type", "application/json"),
            ("x-fafnir-token", token.as_str()),
            ("x-forwarded-for", ip),
        ];
        let body = serde_json::json!({"email": email, "password": PASSWORD}).to_string();
        auth.send(Method::POST, "/auth/login", &headers, &body).await
    };
    // More of one account than are hashed one after the other in the time that anybody waits.
    let flood = join_all((0..300).map(|_| from("203.0.113.7", "flood@example.com")));
    let victim = async {
        let mut worst = std::time::Duration::ZERO;
        for _ in 0..3 {
            let asked = std::time::Instant::now();
            assert_eq!(from("203.0.113.8", EMAIL).await.status, StatusCode::OK);
            worst = worst.max(asked.elapsed());
        }
        worst
    };
    let (flood, worst) = futures::join!(flood, victim);
    assert!(worst < std::time::Duration::from_secs(8), "{worst:?}");
    for answer in flood {
        if answer.status != StatusCode::OK {
            assert_eq!(
                (answer.status, answer.code()),
                (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED".into())
            );
            let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
            assert!((1..=60).contains(&wait), "{wait}");
        }
    }
    auth.stack.stop().await;
}

#[tokio::test]
async fn failed_sign_ins_are_throttled_and_say_nothing() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    let unknown = auth.login("nobody@example.com", PASSWORD).await;
    let wrong = auth.login(EMAIL, "Password124").await;
    assert_eq!((unknown.status, unknown.code()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()));
    assert_eq!((unknown.status, &unknown.body), (wrong.status, &wrong.body));
    assert_eq!(unknown.headers.len(), wrong.headers.len());
    for _ in 0..10 {
        assert_eq!(auth.login(EMAIL, PASSWORD).await.status, StatusCode::OK, "successes are not counted");
    }
    for _ in 0..5 {
        assert_eq!(auth.login(EMAIL, "Password124").await.status, StatusCode::UNAUTHORIZED);
    }
    let throttled = auth.login(EMAIL, PASSWORD).await;
    assert_eq!((throttled.status, throttled.code()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED".into()));
    let wait: i64 = throttled.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((55..=60).contains(&wait), "{wait}");
    // An address that a client claims without the service token is not believed.
    let json = [("content-type", "application/json"), ("x-forwarded-for", "203.0.113.7")];
    let body = serde_json::json!({"email": EMAIL, "password": PASSWORD}).to_string();
    let answer = auth.send(Method::POST, "/auth/login", &json, &body).await;
    assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
    // The gateway's word is.
    let token = auth.stack.running.context.secrets.service_token.current().expose().to_owned();
    let headers = [json[0], json[1], ("x-fafnir-token", &token), ("x-forwarded-proto", "https")];
    let answer = auth.send(Method::POST, "/auth/login", &headers, &body).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert!(set_cookies(&answer).iter().all(|c| c.ends_with("; Secure")));
    auth.stack.time.advance(61);
    assert_eq!(auth.login(EMAIL, PASSWORD).await.status, StatusCode::OK);
    auth.stack.stop().await;
}

#[tokio::test]
async fn in_production_what_is_guessed_first_is_no_password() {
    let auth = Auth::over(
        Stack::start_with(&SERVICES, |s| s.mode = fafnir_platform::config::Mode::Production).await,
    );
    let register = async |email: &str, password: &str| {
        let body =
            serde_json::json!({"email": email, "password": password, "firstName": "A", "lastName": "B"});
        auth.post("/auth/register", body).await
    };
    for password in ["Password123", "123456", "ada.byron", "ada.byron@example.com"] {
        let refused = register("Ada.Byron@example.com", password).await;
        assert_eq!((refused.status, refused.code()), (StatusCode::BAD_REQUEST, "INVALID_INPUT".into()));
        assert_eq!(refused.json()["error"]["details"], "PASSWORD_GUESSABLE", "{password}");
    }
    assert_eq!(register("ada.byron@example.com", "engine of brass").await.status, StatusCode::CREATED);
    auth.stack.stop().await;
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_in_the_envelope() {
    let auth = Auth::start().await;
    let json = [("content-type", "application/json")];
    let answer = auth.send(Method::POST, "/auth/login", &json, &"x".repeat(20_000)).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::PAYLOAD_TOO_LARGE, "INVALID_INPUT".into()));
    let answer = auth.send(Method::GET, "/auth/me", &[], "").await;
    assert_eq!(
        (answer.status, &answer.headers["www-authenticate"]),
        (StatusCode::UNAUTHORIZED, &"Bearer".parse().unwrap())
    );
    auth.stack.stop().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_the_envelope() {
    let auth = Auth::start().await;
    let good =
        serde_json::json!({"email": EMAIL, "password": PASSWORD, "firstName": "Ada", "lastName": "Byron"});
    for (field, value) in [
        ("email", serde_json::json!("no address")),
        ("email", serde_json::json!(1)),
        ("email", serde_json::json!("a@b.c\r\nX: y")),
        ("password", serde_json::json!("12345")),
        ("password", serde_json::json!("x".repeat(257))),
        ("password", serde_json::json!(null)),
        ("firstName", serde_json::json!("")),
        ("firstName", serde_json::json!("a\u{1b}[2J")),
        ("lastName", serde_json::json!("x".repeat(101))),
        ("isAdmin", serde_json::json!(true)),
        ("first_name", serde_json::json!("Ada")),
    ] {
        let mut body = good.clone();
        body[field] = value;
        let refused = auth.post("/auth/register", body.clone()).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::BAD_REQUEST, "INVALID_INPUT".into()),
            "{body}"
        );
    }
    for field in ["email", "password", "firstName", "lastName"] {
        let mut body = good.clone();
        body.as_object_mut().unwrap().remove(field);
        assert_eq!(auth.post("/auth/register", body).await.status, StatusCode::BAD_REQUEST, "{field}");
    }
    let json = [("content-type", "application/json")];
    for body in ["", "{", "[]", "null", "\"x\"", "{\"email\":\"a@b.c\",\"password\":\"p\",\"x\":1}", "\u{0}"]
    {
        let refused = auth.send(Method::POST, "/auth/login", &json, body).await;
        assert_eq!(
            (refused.status, refused.code()),
            (StatusCode::BAD_REQUEST, "INVALID_INPUT".into()),
            "{body}"
        );
    }
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
        let headers = [("content-type", media_type)];
        let refused = auth.send(Method::POST, "/auth/login", &headers, &good.to_string()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{media_type}");
    }
    let large = format!("{{\"email\":\"{}\"}}", "a".repeat(20_000));
    let refused = auth.send(Method::POST, "/auth/login", &json, &large).await;
    assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(auth.send(Method::GET, "/auth/nothing", &[], "").await.code(), "NOT_FOUND");
    assert_eq!(auth.send(Method::GET, "/auth/login", &[], "").await.status, StatusCode::METHOD_NOT_ALLOWED);
    // Nothing of it registered anybody.
    assert_eq!(auth.register(EMAIL).await.status, StatusCode::CREATED);
    auth.stack.stop().await;
}

#[tokio::test]
async fn forged_and_stale_tokens_are_refused() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    let (access, _) = auth.tokens(EMAIL).await;
    let dir = auth.stack.running.context.settings.data_dir().join("secrets");
    let (pkcs8, _) = fafnir_platform::secrets::signing_keys(&dir).unwrap();
    let key = SigningKey::from_pkcs8(&pkcs8).unwrap();
    let ctx = &auth.stack.running.context;
    let keys = fafnir_platform::token::Keys::from_jwks(&key.jwks()).unwrap();
    let claims = keys.verify(&access, ctx.clock.now_us()).unwrap();
    assert_eq!((claims.iss.as_str(), claims.aud.as_str()), (ISSUER, AUDIENCE));
    let forged = |change: &dyn Fn(&mut Claims)| {
        let mut claims = claims.clone();
        change(&mut claims);
        key.sign_claims(&claims).unwrap()
    };
    assert_eq!(auth.me_bearer(&forged(&|_| {})).await, StatusCode::OK);
    for (name, token) in [
        ("wrong audience", forged(&|c| c.aud = "other".into())),
        ("wrong issuer", forged(&|c| c.iss = "other".into())),
        ("expired", forged(&|c| c.exp = c.iat - 60)),
        ("not yet", forged(&|c| c.nbf = c.iat + 600)),
        ("another user's session", forged(&|c| c.sub = UserId::new(Uuid::new_v4()))),
        ("no such session", forged(&|c| c.sid = SessionId::new(Uuid::new_v4()))),
        ("no signature", access.rsplit_once('.').unwrap().0.to_owned() + "."),
        ("changed", access.replacen('.', ".e", 1)),
        ("empty", String::new()),
    ] {
        assert_eq!(auth.me_bearer(&token).await, StatusCode::UNAUTHORIZED, "{name}");
        let cookie = auth.me(("cookie", &format!("auth_token={token}"))).await;
        assert_eq!(cookie.status, StatusCode::UNAUTHORIZED, "{name} as a cookie");
    }
    auth.stack.time.advance(600 + 6);
    assert_eq!(auth.me_bearer(&access).await, StatusCode::UNAUTHORIZED, "ten minutes later");
    let jwks = auth.send(Method::GET, "/.well-known/jwks.json", &[], "").await;
    assert_eq!(jwks.json()["keys"][0]["crv"], "Ed25519");
    assert!(jwks.json()["keys"][0].get("d").is_none());
    auth.stack.stop().await;
}

#[tokio::test]
async fn a_new_password_ends_every_other_session() {
    let auth = Auth::start().await;
    auth.register(EMAIL).await;
    let (mine, other) = (auth.browser(EMAIL).await, auth.browser(EMAIL).await);
    let change = |current: &str, new: &str| serde_json::json!({"current": current, "new": new}).to_string();
    let headers = [
        ("content-type", "application/json"),
        ("cookie", mine.cookies.as_str()),
        ("x-csrf-token", mine.csrf.as_str()),
    ];
    let wrong =
        auth.send(Method::POST, "/auth/password", &headers, &change("Password124", "Password999")).await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    let short = auth.send(Method::POST, "/auth/password", &headers, &change(PASSWORD, "12345")).await;
    assert_eq!(short.status, StatusCode::BAD_REQUEST);
    let done = auth.send(Method::POST, "/auth/password", &headers, &change(PASSWORD, "Password999")).await;
    assert_eq!(done.status, StatusCode::NO_CONTENT);
    assert_eq!(auth.me(("cookie", &mine.cookies)).await.status, StatusCode::OK);
    assert_eq!(auth.me(("cookie", &other.cookies)).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.login(EMAIL, PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.login(EMAIL, "Password999").await.status, StatusCode::OK);
    auth.stack.stop().await;
}

#[tokio::test]
async fn a_deleted_user_leaves_no_open_account_and_frees_the_address() {
    let calls: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = Arc::clone(&calls);
    let mut tries = 0;
    let played = testing::play(move |method, _| {
        heard.lock().unwrap().push(method.to_owned());
        tries += 1;
        if tries == 1 { Err(tonic::Status::unavailable("not yet")) } else { Ok(Vec::new()) }
    })
    .await;
    let stack = Stack::start_with(&SERVICES, |s| s.addresses.portfolio.clone_from(&played)).await;
    let auth = Auth::over(stack);
    let id = auth.register(EMAIL).await.json()["userId"].as_str().unwrap().to_owned();
    let bus = auth.stack.running.context.bus().await.unwrap();
    let mut deleted = bus.subscribe(fafnir_proto::subject::USER_DELETED.into()).await.unwrap();
    // An answered request: the broker knows of the subscription.
    async_nats::jetstream::new(bus.client().clone())
        .get_stream(fafnir_proto::subject::USERS_STREAM)
        .await
        .unwrap();

    let browser = auth.browser(EMAIL).await;
    let (access, refresh) = auth.tokens(EMAIL).await;
    let gone = auth
        .send(
            Method::DELETE,
            "/auth/delete",
            &[("cookie", &browser.cookies), ("x-csrf-token", &browser.csrf)],
            "",
        )
        .await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert!(set_cookies(&gone).iter().all(|c| c.contains("Max-Age=0")));
    assert_eq!(*calls.lock().unwrap(), ["CloseUser"; 2]);

    assert_eq!(auth.me_bearer(&access).await, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.refresh(&refresh).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.login(EMAIL, PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    let fact = tokio::time::timeout(testing::DEADLINE, deleted.next()).await.unwrap().unwrap();
    assert_eq!(v1::UserDeleted::decode(fact.payload).unwrap().user_id, id);
    let again = auth.register(EMAIL).await;
    assert_eq!(again.status, StatusCode::CREATED);
    assert_ne!(again.json()["userId"].as_str().unwrap(), id, "a new user, not the old one");
    auth.stack.stop().await;
}

#[tokio::test]
async fn what_was_interrupted_is_finished_at_sign_in_and_at_restart() {
    let works = Arc::new(AtomicBool::new(false));
    let switch = Arc::clone(&works);
    // Whether somebody is the last administrator must be known before a deletion begins.
    let played = testing::play(move |method, _| {
        let works = method == "Suspend" || switch.load(Ordering::SeqCst);
        if works { Ok(Vec::new()) } else { Err(tonic::Status::internal("not now")) }
    })
    .await;
    let change = |s: &mut fafnir_platform::Settings| {
        let a = &mut s.addresses;
        for address in [&mut a.security, &mut a.user, &mut a.portfolio] {
            address.clone_from(&played);
        }
    };
    let services = [&broker::SERVICE, &auth::SERVICE];
    let auth = Auth::over(Stack::start_with(&services, change).await);
    let list = |auth: &Auth| {
        let mut client = auth.stack.running.context.clients.auth(&testing::system());
        async move { client.list_users(v1::ListUsersRequest::default()).await.unwrap().into_inner().users }
    };
    let failed = auth.register(EMAIL).await;
    assert_eq!((failed.status, failed.code()), (StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL_ERROR".into()));
    assert!(!failed.json().to_string().contains("not now"), "no internals");
    assert_eq!(auth.login(EMAIL, PASSWORD).await.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(list(&auth).await.is_empty());
    works.store(true, Ordering::SeqCst);
    let (access, _) = auth.tokens(EMAIL).await;
    assert_eq!(list(&auth).await.len(), 1);

    // A deletion that cannot reach the other services is signed out at once and goes on after a restart.
    works.store(false, Ordering::SeqCst);
    let bearer = format!("Bearer {access}");
    let gone = auth.send(Method::DELETE, "/auth/delete", &[("authorization", &bearer)], "").await;
    assert_eq!(gone.status, StatusCode::NO_CONTENT);
    assert_eq!(auth.me_bearer(&access).await, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.login(EMAIL, PASSWORD).await.status, StatusCode::UNAUTHORIZED);
    assert_eq!(auth.register(EMAIL).await.status, StatusCode::CONFLICT, "still closing");
    works.store(true, Ordering::SeqCst);
    let stack = auth.stack.restart(&services, change).await;
    let bus = stack.running.context.bus().await.unwrap();
    // The fact stays in the stream: a new reader sees registration and deletion.
    let jetstream = async_nats::jetstream::new(bus.client().clone());
    let stream = jetstream.get_stream(fafnir_proto::subject::USERS_STREAM).await.unwrap();
    let consumer = stream
        .create_consumer(async_nats::jetstream::consumer::pull::OrderedConfig::default())
        .await
        .unwrap();
    let mut facts = consumer.messages().await.unwrap();
    let mut subjects = Vec::new();
    while subjects.last().is_none_or(|s| s != "users.deleted") {
        let fact = tokio::time::timeout(testing::DEADLINE, facts.next()).await.unwrap().unwrap().unwrap();
        subjects.push(fact.subject.to_string());
    }
    assert_eq!(subjects, ["users.registered", "users.deleted"]);
    let auth = Auth::over(stack);
    assert_eq!(auth.register(EMAIL).await.status, StatusCode::CREATED);
    auth.stack.stop().await;
}

#[tokio::test]
async fn the_grpc_door_is_for_the_platform() {
    let auth = Auth::start().await;
    let clients = &auth.stack.running.context.clients;
    let mut client = clients.auth(&testing::system());
    let id = "5d684a32-8ba4-4ec3-8ce3-68df382341a2";
    let seed = v1::SeedUserRequest {
        user_id: id.into(),
        email: "user@test.com".into(),
        password: PASSWORD.into(),
        first_name: "Regular".into(),
        last_name: "User".into(),
        roles: vec!["member".into(), "admin".into()],
        ..Default::default()
    };
    let reply = client.seed(seed.clone()).await.unwrap().into_inner();
    assert_eq!((reply.created, reply.user_id.as_str()), (true, id));
    let reply = client.seed(seed.clone()).await.unwrap().into_inner();
    assert!(!reply.created, "idempotent by id");
    let other = v1::SeedUserRequest { user_id: Uuid::new_v4().to_string(), ..seed.clone() };
    let reply = client.seed(other).await.unwrap().into_inner();
    assert_eq!((reply.created, reply.user_id.as_str()), (false, id), "idempotent by e-mail");
    let users = client.list_users(v1::ListUsersRequest::default()).await.unwrap().into_inner().users;
    assert_eq!(users.iter().map(|u| u.user_id.as_str()).collect::<Vec<_>>(), [id]);

    let sign_in = v1::SignInRequest {
        email: "user@test.com".into(),
        password: PASSWORD.into(),
        client_ip: "203.0.113.9".into(),
        user_agent: "fafnir trade".into(),
    };
    let tokens = client.sign_in(sign_in.clone()).await.unwrap().into_inner();
    assert_eq!((tokens.user_id.as_str(), tokens.expires_in_s), (id, 600));
    let session = v1::SessionRequest { session_id: tokens.session_id.clone() };
    let reply = client.session(session.clone()).await.unwrap().into_inner();
    assert!(reply.active && reply.user_id == id && reply.expires_us > 1_000_000 * SECOND_US);
    let next = client
        .refresh(v1::RefreshRequest { refresh_token: tokens.refresh_token })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(next.session_id, tokens.session_id);
    client.sign_out(v1::SignOutRequest { session_id: tokens.session_id }).await.unwrap();
    assert!(!client.session(session).await.unwrap().into_inner().active);
    let garbage = v1::SessionRequest { session_id: "garbage".into() };
    assert!(!client.session(garbage).await.unwrap().into_inner().active);

    for _ in 0..5 {
        let wrong = v1::SignInRequest { password: "wrong password".into(), ..sign_in.clone() };
        assert_eq!(client.sign_in(wrong).await.unwrap_err().code(), Code::Unauthenticated);
    }
    assert_eq!(client.sign_in(sign_in.clone()).await.unwrap_err().code(), Code::ResourceExhausted);

    // A user may not use it, a stranger without the token even less.
    let mut as_user = clients.auth(&fafnir_proto::client::Caller::User(UserId::parse(id).unwrap()));
    assert_eq!(as_user.seed(seed).await.unwrap_err().code(), Code::PermissionDenied);
    let connection = fafnir_proto::client::connection(&auth.url).unwrap();
    let mut stranger = v1::auth_client::AuthClient::new(connection);
    assert_eq!(stranger.jwks(v1::Empty {}).await.unwrap_err().code(), Code::Unauthenticated);
    auth.stack.stop().await;
}

#[tokio::test]
async fn an_account_is_deleted_over_a_token_with_the_password_or_a_young_sign_in() {
    let auth = Auth::start().await;
    for email in [EMAIL, "young@example.com", "page@example.com"] {
        auth.register(email).await;
    }
    let delete = async |headers: &[(&str, &str)], body: &str| {
        auth.send(Method::DELETE, "/auth/delete", headers, body).await
    };
    let (token, _) = auth.tokens(EMAIL).await;
    let browser = auth.browser("page@example.com").await;
    auth.stack.time.advance(9 * 60 + 50);
    let (young, _) = auth.tokens("young@example.com").await;
    let young = format!("Bearer {young}");
    auth.stack.time.advance(11);
    let bearer = format!("Bearer {token}");
    // Renewed it is no younger.
    let refused = delete(&[("authorization", &bearer)], "").await;
    assert!(
        refused.status == StatusCode::FORBIDDEN || refused.status == StatusCode::UNAUTHORIZED,
        "{refused:?}"
    );
    let (token, refresh) = auth.tokens(EMAIL).await;
    auth.stack.time.advance(8 * 60);
    let (renewed, _) = pair(&auth.refresh(&refresh).await);
    auth.stack.time.advance(3 * 60);
    let bearer = format!("Bearer {renewed}");
    let refused = delete(&[("authorization", &bearer)], "").await;
    assert_eq!((refused.status, refused.code()), (StatusCode::FORBIDDEN, "FORBIDDEN".into()), "{refused:?}");
    assert_eq!(refused.json()["error"]["details"], "PASSWORD_NEEDED");
    drop(token);
    let json_headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
    let wrong = delete(&json_headers, "{\"password\": \"nonsense\"}").await;
    assert_eq!((wrong.status, wrong.code()), (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()));
    let malformed = delete(&json_headers, "{\"passwort\": \"x\"}").await;
    assert_eq!(malformed.status, StatusCode::BAD_REQUEST);
    assert_eq!(auth.me(("authorization", &bearer)).await.status, StatusCode::OK, "nothing has happened");
    let deleted = delete(&json_headers, &format!("{{\"password\": \"{PASSWORD}\"}}")).await;
    assert_eq!(deleted.status, StatusCode::NO_CONTENT, "{deleted:?}");
    drop(young);
    let (young, _) = auth.tokens("young@example.com").await;
    let young = format!("Bearer {young}");
    assert_eq!(delete(&[("authorization", &young)], "").await.status, StatusCode::NO_CONTENT);
    // The page of the contract's client, however long ago it signed in.
    let cookie = [("cookie", browser.cookies.as_str()), ("x-csrf-token", browser.csrf.as_str())];
    assert_eq!(delete(&cookie, "").await.status, StatusCode::NO_CONTENT);
    auth.stack.stop().await;
}

#[tokio::test]
async fn what_the_audit_log_must_tell_reaches_it_once_and_in_order_whoever_is_away() {
    // Security-service as it may be: it takes entries and its answer is lost, it is away, it takes them again.
    let taken = Arc::new(Mutex::new(Vec::<v1::AuditEntry>::new()));
    let (kept, calls) = (Arc::clone(&taken), Arc::new(std::sync::atomic::AtomicUsize::new(0)));
    let security = testing::play(move |method, request| {
        if method != "Record" {
            return Ok(Vec::new());
        }
        let call = calls.fetch_add(1, Ordering::SeqCst);
        if call % 3 == 1 {
            return Err(tonic::Status::unavailable("away"));
        }
        let entries = testing::decode::<v1::RecordRequest>(request).entries;
        let mut kept = kept.lock().unwrap();
        for entry in entries {
            // As the log does: an id that is there changes nothing.
            if kept.iter().all(|k| k.id != entry.id) {
                kept.push(entry);
            }
        }
        if call % 3 == 0 { Err(tonic::Status::unavailable("the answer is lost")) } else { Ok(Vec::new()) }
    })
    .await;
    let services = [&broker::SERVICE, &auth::SERVICE, &user::SERVICE];
    let auth = Auth::over(Stack::start_with(&services, |s| s.addresses.security = security).await);
    auth.register(EMAIL).await;
    for round in 0..4 {
        let password = if round % 2 == 0 { PASSWORD } else { "wrong" };
        auth.login(EMAIL, password).await;
    }
    let all = async || taken.lock().unwrap().len() == 5;
    let since = std::time::Instant::now();
    while !all().await {
        assert!(since.elapsed() < testing::DEADLINE, "{:?}", taken.lock().unwrap());
        tokio::task::yield_now().await;
    }
    let entries = taken.lock().unwrap().clone();
    let told: Vec<_> = entries.iter().map(|e| (e.action.as_str(), e.outcome.as_str())).collect();
    let (opened, refused) = (("session.open", "OK"), ("session.open", "UNAUTHENTICATED"));
    assert_eq!(told, [("user.register", "OK"), opened, refused, opened, refused]);
    auth.stack.stop().await;
}
