//! API keys at every door: what each scope opens, where it ends, and that it ends within a second where it is connected.

use super::permissions::operations;
use super::subscriptions::connect;
use super::whole::{Ids, SELLER_ACCOUNT, operations_with, place, whole};
use super::*;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::time::{Duration, Instant};
use tonic::{Request, metadata::MetadataValue};

/// Both halves.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub secret: String,
}

impl Key {
    pub fn basic(&self) -> String {
        format!("Basic {}", STANDARD.encode(format!("{}:{}", self.id, self.secret)))
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        for (name, value) in [("apca-api-key-id", &self.id), ("apca-api-secret-key", &self.secret)] {
            let value: MetadataValue<_> = value.parse().unwrap();
            request.metadata_mut().insert(name, value);
        }
        request
    }
}

impl Door {
    /// A new key of whoever's token it is; `more` are further fields of the request.
    pub async fn key(&self, token: &str, scope: &str, more: &str) -> Key {
        let query = format!(
            "mutation {{ createApiKey(request: {{label: \"bot\", scopes: [{scope}]{more}}}) \
             {{ code reason secret data {{ id }} }} }}"
        );
        let answer = self.ask_as(token, &query, json!({})).await.json();
        let made = &answer["data"]["createApiKey"];
        assert_eq!(made["code"], "OK", "{answer}");
        let text = |v: &Value| v.as_str().unwrap().to_owned();
        Key { id: text(&made["data"]["id"]), secret: text(&made["secret"]) }
    }

    pub async fn ask_with_key(&self, key: &Key, query: &str) -> Answer {
        let headers = [
            ("content-type", "application/json"),
            ("apca-api-key-id", key.id.as_str()),
            ("apca-api-secret-key", key.secret.as_str()),
        ];
        self.send(Method::POST, "/graphql", &headers, &json!({"query": query}).to_string()).await
    }

    /// What becomes of a key is in force within a second: until then an earlier answer about it may be believed.
    pub async fn opens_to(&self, key: &Key, status: u16) {
        let since = Instant::now();
        while self.ask_with_key(key, "{ health }").await.status != status {
            assert!(since.elapsed() < Duration::from_secs(1), "not {status} after a second");
        }
    }

    async fn revoke(&self, token: &str, key: &Key) -> Instant {
        let query = format!("mutation {{ revokeApiKey(keyId: \"{}\") {{ code }} }}", key.id);
        let answer = self.ask_as(token, &query, json!({})).await.json();
        assert_eq!(answer["data"]["revokeApiKey"]["code"], "OK", "{answer}");
        Instant::now()
    }
}

#[tokio::test]
async fn a_leaked_read_key_writes_nothing_and_a_trade_key_moves_no_money() {
    let door = Door::open().await;
    let (read, trade) = (door.key(&door.member, "read", "").await, door.key(&door.member, "trade", "").await);
    let admins = door.key(&door.admin, "trade", "").await;
    door.world.lock().unwrap().asked.clear();
    for (field, query) in operations().iter().filter(|(_, query)| query.starts_with("mutation")) {
        let answer = door.ask_with_key(&read, query).await.json();
        let code = &answer["errors"][0]["extensions"]["code"];
        assert_eq!((code, &answer["data"]), (&json!("PERMISSION_DENIED"), &Value::Null), "{field}: {answer}");
    }
    let asked = std::mem::take(&mut door.world.lock().unwrap().asked);
    let written: Vec<_> = asked.iter().filter(|(method, _)| method != "Status").collect();
    assert!(written.is_empty(), "a read key's mutations reached {written:?}");
    // In one request with queries, under an alias and in a fragment it is no different.
    for query in [
        "mutation { a: cancelAllOrders { code } }",
        "mutation { ...f } fragment f on Mutation { cancelAllOrders { code } }",
    ] {
        let answer = door.ask_with_key(&read, query).await.json();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "PERMISSION_DENIED", "{query}: {answer}");
    }
    // What an administrator's key must not do either: it is not the administrator.
    for query in
        ["{ users { code } }", "{ roles { code } }", "{ platformStatus { code } }", "{ apiKeys { code } }"]
    {
        let answer = door.ask_with_key(&admins, query).await.json();
        assert_eq!(answer["errors"][0]["extensions"]["code"], "PERMISSION_DENIED", "{query}: {answer}");
    }
    // The terminal's door: every command.
    let mut terminal = door.terminal().await;
    macro_rules! denied {
        ($key:expr; $($method:ident($request:ty)),* $(,)?) => {$(
            let status = terminal.$method($key.request(<$request>::default())).await.unwrap_err();
            assert_eq!(status.code(), Code::PermissionDenied, "{}: {status}", stringify!($method));
        )*};
    }
    denied!(read;
        place(v1::PlaceOrderRequest), place_group(v1::PlaceGroupRequest), cancel_group(v1::CancelGroupRequest),
        cancel(v1::CancelOrderRequest), cancel_all(v1::CancelAllRequest), replace(v1::ReplaceOrderRequest),
        flatten(v1::FlattenRequest), add_to_watchlist(v1::SymbolRequest), remove_from_watchlist(v1::SymbolRequest),
    );
    for key in [&read, &trade, &admins] {
        denied!(key;
            create_account(v1::CreateAccountRequest), deposit(v1::DepositRequest), withdraw(v1::WithdrawRequest),
            transfer(v1::TransferRequest), create_key(v1::CreateKeyRequest), keys(v1::Empty),
            revoke_key(v1::RevokeKeyRequest), sign_out(v1::Empty),
        );
    }
    let asked = std::mem::take(&mut door.world.lock().unwrap().asked);
    assert!(asked.iter().all(|(method, _)| method == "Status"), "{asked:?}");
    // A key signs in nowhere else: the REST door knows sessions alone.
    let basic = read.basic();
    for (method, path) in
        [(Method::GET, "/auth/me"), (Method::DELETE, "/auth/delete"), (Method::DELETE, "/auth/logout")]
    {
        let headers = [
            ("authorization", basic.as_str()),
            ("apca-api-key-id", &read.id),
            ("apca-api-secret-key", &read.secret),
        ];
        assert_eq!(door.send(method, path, &headers, "").await.status, 401, "{path}");
    }
    door.stack.stop().await;
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "every door is open at the moment of the end")]
async fn a_key_opens_every_door_and_ends_at_each_within_a_second() {
    let door = Door::open().await;
    let key = door.key(&door.member, "trade", "").await;
    let answer = door.ask_with_key(&key, "{ getProfileData { data { userId } } }").await.json();
    assert_eq!(answer["data"]["getProfileData"]["data"]["userId"], MEMBER, "{answer}");
    let basic = key.basic();
    let headers = [("content-type", "application/json"), ("authorization", basic.as_str())];
    let body = json!({"query": "{ health }"}).to_string();
    assert_eq!(door.send(Method::POST, "/graphql", &headers, &body).await.status, 200);
    assert_eq!(door.send(Method::GET, "/graphql?query=%7Bhealth%7D", &headers[1..], "").await.status, 200);
    // A wrong half, half a key, another's id.
    for (id, secret) in [
        (key.id.as_str(), "wrong"),
        (&key.id, ""),
        ("PK000000000000000000", &key.secret),
        ("", &key.secret),
        (&key.secret, &key.id),
    ] {
        let wrong = Key { id: id.to_owned(), secret: secret.to_owned() };
        assert_eq!(door.ask_with_key(&wrong, "{ health }").await.status, 401, "{id} {secret}");
    }
    let half = [("content-type", "application/json"), ("apca-api-key-id", key.id.as_str())];
    assert_eq!(door.send(Method::POST, "/graphql", &half, &body).await.status, 401);

    let mut terminal = door.terminal().await;
    let who = terminal.whoami(key.request(v1::Empty {})).await.unwrap().into_inner();
    assert_eq!(
        (who.user_id.as_str(), who.access_token.as_str(), who.refresh_token.as_str()),
        (MEMBER, "", "")
    );
    assert_eq!(who.permissions, ["manage_own_watchlist", "order_stocks", "view_stocks"]);
    let (login, address) = who.market_data_url.strip_prefix("nats://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    let market = options.max_reconnects(1).connect(address).await.unwrap();
    market.flush().await.unwrap();

    // By its headers, and by its first message.
    let mut by_headers =
        connect(&door, &[("apca-api-key-id", &key.id), ("apca-api-secret-key", &key.secret)]).await.unwrap();
    by_headers.init_with(json!({})).await;
    let mut by_payload = connect(&door, &[]).await.unwrap();
    by_payload.init_with(json!({"APCA-API-KEY-ID": key.id, "APCA-API-SECRET-KEY": key.secret})).await;
    let mut by_basic = connect(&door, &[]).await.unwrap();
    by_basic.init_with(json!({"Authorization": basic})).await;
    let query = "subscription { orderBookUpdates(symbol: \"AAPL\") { symbol } }";
    for socket in [&mut by_headers, &mut by_payload, &mut by_basic] {
        socket.subscribe("book", query).await;
        assert_eq!(socket.receive().await["payload"]["data"]["orderBookUpdates"]["symbol"], "AAPL");
    }
    let mut stream = terminal
        .private(key.request(v1::PrivateRequest { from_now: true, ..Default::default() }))
        .await
        .unwrap()
        .into_inner();
    stream.message().await.unwrap().expect("a heartbeat");

    let revoked = door.revoke(&door.member, &key).await;
    let ended = async {
        while stream.message().await.is_ok_and(|m| m.is_some()) {}
        revoked.elapsed()
    };
    let (one, two, three, private) =
        futures::join!(by_headers.closed_with(), by_payload.closed_with(), by_basic.closed_with(), ended);
    assert_eq!([one, two, three], [4403; 3]);
    let took = revoked.elapsed();
    assert!(
        took < Duration::from_millis(1_500) && private < Duration::from_millis(1_500),
        "{took:?} {private:?}"
    );
    assert_eq!(door.ask_with_key(&key, "{ health }").await.status, 401);
    let status = terminal.whoami(key.request(v1::Empty {})).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let dismissed = async {
        while market.connection_state() == async_nats::connection::State::Connected {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(testing::DEADLINE, dismissed).await.expect("the market data ends with the key");
    door.stack.stop().await;
}

#[tokio::test]
async fn a_key_ends_at_its_time_opens_where_it_may_and_goes_with_its_user() {
    let door = Door::open().await;
    let in_an_hour = fafnir_platform::Clock::wall().now_us() + 3_600_000_000;
    let in_an_hour = fafnir_platform::clock::rfc3339(in_an_hour);
    let expiring = door.key(&door.member, "read", &format!(", expiresAt: \"{in_an_hour}\"")).await;
    let here = door.key(&door.member, "read", ", addresses: [\"127.0.0.0/8\"]").await;
    let elsewhere = door.key(&door.member, "read", ", addresses: [\"10.0.0.0/8\", \"2001:db8::/32\"]").await;
    let status = async |key: &Key| door.ask_with_key(key, "{ health }").await.status.as_u16();
    assert_eq!([status(&expiring).await, status(&here).await, status(&elsewhere).await], [200, 200, 401]);
    let list = "{ apiKeys { data { id label scopes addresses expiresAt lastUsedAt accountId } } }";
    let keys = door.ask(list).await["apiKeys"]["data"].clone();
    assert_eq!(keys.as_array().unwrap().len(), 3);
    assert!(!keys.to_string().contains(&here.secret));
    let refused = async |request: &str| {
        let query = format!("mutation {{ createApiKey(request: {{{request}}}) {{ code reason secret }} }}");
        door.ask(&query).await["createApiKey"].clone()
    };
    for (request, reason) in [
        ("label: \"\"", "KEY_LABEL"),
        ("label: \"b\", scopes: []", "KEY_SCOPE_UNKNOWN"),
        ("label: \"b\", expiresAt: \"2020-01-01T00:00:00Z\"", "KEY_EXPIRY"),
        ("label: \"b\", expiresAt: \"soon\"", "TIME_MALFORMED"),
        ("label: \"b\", addresses: [\"here\"]", "KEY_ADDRESSES"),
        ("label: \"b\", accountId: \"22222222-0000-4000-8000-000000000002\"", "ACCOUNT_NOT_FOUND"),
        ("label: \"b\", accountId: \"x\"", "ID_MALFORMED"),
    ] {
        let answer = refused(request).await;
        assert_eq!(
            (&answer["reason"], &answer["secret"]),
            (&json!(reason), &Value::Null),
            "{request}: {answer}"
        );
    }
    for _ in 3..20 {
        door.key(&door.member, "read", "").await;
    }
    assert_eq!(refused("label: \"one more\"").await["reason"], "TOO_MANY_KEYS");
    // Another user's key is as unknown as one that does not exist.
    let theirs = door.key(&door.admin, "read", "").await;
    for id in [theirs.id.as_str(), "PK000000000000000000", "", "' OR 1=1 --"] {
        let answer = door
            .ask(&format!("mutation {{ revokeApiKey(keyId: \"{id}\") {{ code reason message }} }}"))
            .await;
        let answer = &answer["revokeApiKey"];
        assert_eq!(
            (&answer["reason"], &answer["message"]),
            (&json!("KEY_NOT_FOUND"), &json!("no such key")),
            "{id}"
        );
    }
    assert_eq!(status(&theirs).await, 200);

    let db = std::fs::read(door.stack.data_dir().join("db/auth-service.sqlite-wal")).unwrap_or_default();
    let has = |text: &str| db.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(door.stack.is_on_server() || (has(&here.id) && !has(&here.secret)), "a secret is kept nowhere");

    door.stack.time.advance(3601);
    let member = door.sign_in("user@test.com").await.access_token;
    door.opens_to(&expiring, 401).await;
    assert_eq!(status(&here).await, 200);
    // A restart keeps keys; the end of their user ends them.
    let bearer = format!("Bearer {member}");
    let deleted = door.send(Method::DELETE, "/auth/delete", &[("authorization", &bearer)], "").await;
    assert!(deleted.status.is_success(), "{deleted:?}");
    door.opens_to(&here, 401).await;
    door.stack.stop().await;
}

#[tokio::test]
async fn production_takes_no_key_that_everybody_knows() {
    let seed = async |door: &Door| {
        let request = v1::SeedUserRequest {
            user_id: MEMBER.to_owned(),
            email: "user@test.com".to_owned(),
            password: PASSWORD.to_owned(),
            first_name: "Ada".to_owned(),
            last_name: "Byron".to_owned(),
            roles: vec!["member".to_owned()],
            key_id: "PKDEVELOPMENT0000001".to_owned(),
            key_secret: "developmentKeyOfUserAtTestDotComNoSecret".to_owned(),
        };
        door.stack.running.context.clients.auth(&Caller::system("test")).seed(request).await
    };
    let key = Key {
        id: "PKDEVELOPMENT0000001".to_owned(),
        secret: "developmentKeyOfUserAtTestDotComNoSecret".to_owned(),
    };
    let door = Door::open().await;
    seed(&door).await.unwrap();
    assert_eq!(door.ask_with_key(&key, "{ health }").await.status, 200);
    // The same directory in production: what is there opens no more, and no other is taken.
    let Door { stack, world, member, admin, .. } = door;
    let stack = stack.restart(&SERVICES, |s| s.mode = fafnir_platform::config::Mode::Production).await;
    let door = Door { url: stack.url("api-gateway").to_owned(), stack, world, member, admin };
    assert_eq!(door.ask_with_key(&key, "{ health }").await.status, 401);
    assert_eq!(seed(&door).await.unwrap_err().code(), Code::PermissionDenied);
    door.stack.stop().await;
}

#[tokio::test]
#[expect(
    clippy::too_many_lines,
    reason = "one stack: every operation on what the key does not reach, then on what it does"
)]
async fn a_key_of_one_account_reaches_no_other_of_its_user() {
    const SECOND: &str = "33333333-0000-4000-8000-000000000003";
    let (door, seller) = whole().await;
    let clients = door.stack.running.context.clients.clone();
    let account = v1::SeedAccountRequest {
        account_id: SECOND.to_owned(),
        user_id: MEMBER.to_owned(),
        r#type: v1::AccountType::Investment.into(),
        currency: "USD".to_owned(),
    };
    clients.portfolio(&Caller::system("seed")).seed_account(account).await.unwrap();
    let key = door.key(&door.member, "trade", &format!(", accountId: \"{SECOND}\"")).await;
    // An order of the other account, and one of the seller.
    let own =
        place(&door, &door.member, "BUY", "1", "230.00").await["data"]["id"].as_str().unwrap().to_owned();
    let theirs =
        place(&door, &seller, "SELL", "1", "232.00").await["data"]["id"].as_str().unwrap().to_owned();
    let before = door.ask("{ getOrders { data { id price version quantity } } }").await;
    let random = Uuid::new_v4().to_string();
    let nobodys = Ids::all(&random);
    let (of_user, of_seller) = (
        Ids { order: &own, account: ACCOUNT, ..nobodys },
        Ids { order: &theirs, account: SELLER_ACCOUNT, ..nobodys },
    );
    let operations = [of_user, of_seller].into_iter().flat_map(operations_with);
    for (text, unknown) in operations.zip(operations_with(nobodys).into_iter().cycle()) {
        let (got, want) =
            (door.ask_with_key(&key, &text).await.json(), door.ask_with_key(&key, &unknown).await.json());
        let sign = |answer: &Value| {
            let text = answer.to_string();
            (
                text.contains("\"OK\""),
                answer["errors"][0]["extensions"]["code"].clone(),
                answer["errors"][0]["extensions"]["reason"].clone(),
            )
        };
        assert_eq!(sign(&got), sign(&want), "{text}: {got} {want}");
        assert!(!got.to_string().contains("\"OK\""), "{text}: {got}");
    }
    let answer = door
        .ask_with_key(
            &key,
            &format!(
                "{{ all: getOrders {{ count }} other: getOrders(accountId: \"{ACCOUNT}\") {{ count }} \
         getPortfolioSummary {{ accounts {{ id }} }} }}"
            ),
        )
        .await
        .json();
    assert_eq!(
        (&answer["data"]["all"]["count"], &answer["data"]["other"]["count"]),
        (&json!(0), &json!(0)),
        "{answer}"
    );
    assert_eq!(answer["data"]["getPortfolioSummary"]["accounts"], json!([{"id": SECOND}]));
    // Over gRPC.
    let mut terminal = door.terminal().await;
    let accounts = terminal.accounts(key.request(v1::Empty {})).await.unwrap().into_inner().accounts;
    assert_eq!(accounts.iter().map(|a| a.id.as_str()).collect::<Vec<_>>(), [SECOND]);
    let cancel = v1::CancelOrderRequest { order_id: own.clone(), ..Default::default() };
    assert_eq!(terminal.cancel(key.request(cancel)).await.unwrap_err().code(), Code::NotFound);
    let orders = terminal.orders(key.request(v1::ListOrdersRequest::default())).await.unwrap().into_inner();
    assert!(orders.orders.is_empty());
    let all = v1::CancelAllRequest::default();
    assert_eq!(terminal.cancel_all(key.request(all)).await.unwrap().into_inner().requested, 0);
    assert_eq!(
        door.ask("{ getOrders { data { id price version quantity } } }").await,
        before,
        "nothing was changed"
    );

    // What it places goes to its own account, and its stream tells of that alone.
    let deposit = format!(
        "mutation {{ deposit(request: {{accountId: \"{SECOND}\", amount: 1000, currency: \"USD\"}}) {{ code }} }}"
    );
    assert_eq!(door.ask(&deposit).await["deposit"]["code"], "OK");
    let request = v1::PrivateRequest { from_now: true, ..Default::default() };
    let mut stream = terminal.private(key.request(request)).await.unwrap().into_inner();
    stream.message().await.unwrap().expect("a heartbeat");
    let text = "mutation { createOrder(request: {symbol: \"AAPL\", side: \"BUY\", type: \"LIMIT\", quantity: 1, price: 229}) \
                { code data { id accountId } } }";
    let other =
        place(&door, &door.member, "BUY", "1", "228.00").await["data"]["id"].as_str().unwrap().to_owned();
    let placed = door.ask_with_key(&key, text).await.json();
    assert_eq!(placed["data"]["createOrder"]["data"]["accountId"], SECOND, "{placed}");
    let id = placed["data"]["createOrder"]["data"]["id"].as_str().unwrap().to_owned();
    let mut seen = Vec::new();
    while !seen.contains(&id) {
        let message = tokio::time::timeout(testing::DEADLINE, stream.message())
            .await
            .expect("in time")
            .unwrap()
            .unwrap();
        match message.kind.unwrap() {
            v1::private_update::Kind::Order(u) => seen.push(u.order.unwrap().id),
            v1::private_update::Kind::Portfolio(u) => assert!(u.account.is_none_or(|a| a.id == SECOND)),
            v1::private_update::Kind::Heartbeat(_) => {}
        }
    }
    assert!(!seen.contains(&other), "{seen:?}");
    assert_eq!(
        terminal
            .cancel_all(key.request(v1::CancelAllRequest::default()))
            .await
            .unwrap()
            .into_inner()
            .requested,
        1
    );
    let open = door.ask("{ getOrders(openOnly: true) { data { id } } }").await["getOrders"]["data"].clone();
    assert_eq!(open.as_array().unwrap().len(), 2, "the other account's orders stand: {open}");
    door.stack.stop().await;
}
