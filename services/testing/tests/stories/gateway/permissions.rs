//! The contract as committed snapshots: the schema, and who may use which field.

use super::*;
use std::fmt::Write as _;

/// An operation for every root field, with arguments that pass its parser.
#[expect(clippy::too_many_lines, reason = "a row for each field")]
pub fn operations() -> Vec<(&'static str, String)> {
    let id = ACCOUNT;
    let user = MEMBER;
    let query = |field: &'static str, text: &str| (field, format!("{{ {field}{text} }}"));
    let mutation = |field: &'static str, text: &str| (field, format!("mutation {{ {field}{text} }}"));
    let order = r#"(request: {symbol: "AAPL", side: "BUY", type: "LIMIT", quantity: 1, price: 1})"#;
    vec![
        query("health", ""),
        query("checkPermission", r#"(request: {permission: "view_stocks"}) { code }"#),
        query("getProfileData", " { code }"),
        query("searchStocks", r#"(query: "A") { symbol }"#),
        query("marketData", " { code }"),
        query("getStockMetadata", r#"(symbol: "AAPL") { code }"#),
        query("getStockQuote", r#"(symbol: "AAPL") { code }"#),
        query("getStockQuoteBatch", r#"(symbols: ["AAPL"]) { code }"#),
        query("getStockHistoricalData", r#"(symbol: "AAPL") { code }"#),
        query("orderBook", r#"(symbol: "AAPL") { code }"#),
        query("trades", r#"(symbol: "AAPL") { code }"#),
        query("candles", r#"(symbol: "AAPL") { code }"#),
        query("statistics", r#"(symbol: "AAPL") { code }"#),
        query("getOrders", " { code }"),
        query("getOrderByOrderID", &format!(r#"(request: {{orderId: "{id}"}}) {{ code }}"#)),
        query("getPortfolioSummary", " { code }"),
        query("getHoldings", &format!(r#"(request: {{accountId: "{id}"}}) {{ code }}"#)),
        query("getHolding", &format!(r#"(request: {{accountId: "{id}", symbol: "AAPL"}}) {{ code }}"#)),
        query("getWatchlist", " { code }"),
        query("getTransactions", &format!(r#"(request: {{accountId: "{id}"}}) {{ code }}"#)),
        query("orderHistory", &format!(r#"(orderId: "{id}") {{ code }}"#)),
        query("realizedGains", &format!(r#"(accountId: "{id}") {{ code }}"#)),
        query("report", &format!(r#"(accountId: "{id}") {{ code }}"#)),
        query("lots", &format!(r#"(accountId: "{id}", symbol: "AAPL") {{ code }}"#)),
        query("statement", &format!(r#"(accountId: "{id}") {{ code }}"#)),
        query("portfolioPerformance", &format!(r#"(accountId: "{id}") {{ code }}"#)),
        query("users", " { code }"),
        query("roles", " { code }"),
        query("userPermissions", &format!(r#"(userId: "{user}") {{ code }}"#)),
        query("platformStatus", " { code }"),
        query("apiKeys", " { code }"),
        query("sessions", " { code }"),
        query("halts", " { code }"),
        query("auditLog", " { code }"),
        query("verifyAuditLog", " { code }"),
        mutation("revokeSession", &format!(r#"(sessionId: "{id}") {{ code }}"#)),
        mutation("revokeOtherSessions", " { code }"),
        mutation("deactivateUser", &format!(r#"(userId: "{id}") {{ code }}"#)),
        mutation("reactivateUser", &format!(r#"(userId: "{id}") {{ code }}"#)),
        mutation("endSessions", &format!(r#"(userId: "{id}") {{ code }}"#)),
        mutation("setTradingState", r#"(symbol: "AAPL", state: OPEN) { code }"#),
        mutation("setVolatilityBand", r#"(symbol: "AAPL", bps: 0) { code }"#),
        mutation("cancelSymbolOrders", r#"(symbol: "AAPL") { code }"#),
        mutation("createApiKey", r#"(request: {label: "bot"}) { code }"#),
        mutation("revokeApiKey", r#"(keyId: "PK000000000000000000") { code }"#),
        mutation("createOrder", &format!("{order} {{ code }}")),
        mutation("createOrderGroup", r#"(request: {kind: "OTO", orders: []}) { code }"#),
        mutation("cancelOrderGroup", &format!(r#"(groupId: "{id}") {{ code }}"#)),
        mutation("cancelOrder", &format!(r#"(orderId: "{id}") {{ code }}"#)),
        mutation("replaceOrder", &format!(r#"(request: {{orderId: "{id}"}}) {{ code }}"#)),
        mutation("cancelAllOrders", " { code }"),
        mutation("flatten", r#"(symbol: "MSFT") { code }"#),
        mutation("createAccount", r#"(request: {type: "SAVINGS", currency: "USD"}) { code }"#),
        mutation(
            "deposit",
            &format!(r#"(request: {{accountId: "{id}", amount: 1, currency: "USD"}}) {{ code }}"#),
        ),
        mutation(
            "withdraw",
            &format!(r#"(request: {{accountId: "{id}", amount: 1, currency: "USD"}}) {{ code }}"#),
        ),
        mutation(
            "transfer",
            &format!(
                r#"(request: {{fromAccountId: "{id}", toAccountId: "{id}", amount: 1, currency: "USD"}}) {{ code }}"#
            ),
        ),
        mutation("addToWatchlist", r#"(request: {symbol: "AAPL"}) { code }"#),
        mutation("removeFromWatchlist", r#"(request: {symbol: "AAPL"}) { code }"#),
        mutation("deleteAccount", &format!(r#"(accountId: "{id}")"#)),
        mutation("grantRole", &format!(r#"(userId: "{user}", role: "member") {{ code }}"#)),
        mutation("revokeRole", &format!(r#"(userId: "{}", role: "member") {{ code }}"#, Uuid::nil())),
    ]
}

async fn root_fields(door: &Door, root: &str) -> Vec<String> {
    let data = door.ask(&format!("{{ __schema {{ {root} {{ fields {{ name }} }} }} }}")).await;
    let fields = data["__schema"][root]["fields"].as_array().unwrap().clone();
    fields.iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn every_field_asks_for_its_permission() {
    let door = Door::open().await;
    let mut known: Vec<_> = root_fields(&door, "queryType").await;
    known.extend(root_fields(&door, "mutationType").await);
    let operations = operations();
    let mut covered: Vec<_> = operations.iter().map(|(field, _)| (*field).to_owned()).collect();
    known.sort();
    covered.sort();
    assert_eq!(covered, known, "an operation of the schema is missing above");

    let (member, admin) = (format!("Bearer {}", door.member), format!("Bearer {}", door.admin));
    let read = door.key(&door.member, "read", "").await.basic();
    let trade = door.key(&door.member, "trade", "").await.basic();
    let admins = door.key(&door.admin, "trade", "").await.basic();
    // Sessions of both roles; keys of the member with each scope, and the widest that an administrator can have.
    let callers =
        [("member", &member), ("admin", &admin), ("read", &read), ("trade", &trade), ("admin key", &admins)];
    let mut matrix = format!("{:<24}", "field");
    for (caller, _) in callers {
        write!(matrix, "{caller:>10}").unwrap();
    }
    matrix.push('\n');
    for (field, query) in &operations {
        write!(matrix, "{field:<24}").unwrap();
        for (role, authorization) in callers {
            let headers = [("content-type", "application/json"), ("authorization", authorization.as_str())];
            let body = json!({ "query": query }).to_string();
            let answer = door.send(Method::POST, "/graphql", &headers, &body).await;
            let json = answer.json();
            assert_eq!(answer.status, 200, "{role} {field}: {json}");
            let denied = json["errors"][0]["extensions"]["code"] == "PERMISSION_DENIED";
            assert!(!denied || json["data"].is_null(), "{role} {field}: {json}");
            write!(matrix, "{:>10}", if denied { "-" } else { "yes" }).unwrap();
        }
        matrix.push('\n');
    }
    insta::assert_snapshot!("permission_matrix", matrix);
    door.stack.stop().await;
}

#[tokio::test]
async fn a_role_change_and_a_sign_out_take_effect_within_a_second() {
    let door = Door::open().await;
    let change = async |field: &str| {
        let query = format!("mutation {{ {field}(userId: \"{MEMBER}\", role: \"admin\") {{ code }} }}");
        let answer = door.ask_as(&door.admin, &query, json!({})).await.json();
        assert_eq!(answer["data"][field]["code"], "OK", "{answer}");
    };
    let may = async || door.error_of("{ users { code } }").await.0 != "PERMISSION_DENIED";
    assert!(!may().await);
    change("grantRole").await;
    assert!(may().await);
    change("revokeRole").await;
    assert!(!may().await);

    let session = door.sign_in("user@test.com").await;
    assert_eq!(door.ask_as(&session.access_token, "{ health }", json!({})).await.status, 200);
    // Behind the gateway's back.
    let claims = session.access_token.split('.').nth(1).unwrap();
    let claims = base64::Engine::decode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, claims).unwrap();
    let claims: Value = serde_json::from_slice(&claims).unwrap();
    let request = v1::SignOutRequest { session_id: claims["sid"].as_str().unwrap().to_owned() };
    let clients = &door.stack.running.context.clients;
    clients.auth(&Caller::system("test")).sign_out(request).await.unwrap();
    let revoked = std::time::Instant::now();
    while door.ask_as(&session.access_token, "{ health }", json!({})).await.status != 401 {
        assert!(revoked.elapsed() < std::time::Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn the_user_that_the_services_are_told_is_the_one_who_is_signed_in() {
    let door = Door::open().await;
    for (_, query) in operations() {
        door.ask_as(&door.member, &query, json!({})).await;
    }
    let asked = std::mem::take(&mut door.world.lock().unwrap().asked);
    for (method, user) in asked.iter().filter(|(method, _)| method != "Status") {
        assert_eq!(user, MEMBER, "{method}");
    }
    assert!(asked.len() > 15);
    door.stack.stop().await;
}

#[test]
fn the_schema_is_the_contract() {
    // Every field, argument and type, in a form that reads in a diff.
    insta::assert_snapshot!("schema", fafnir_services::gateway::sdl());
}

/// Types, fields, arguments and inputs of the schema that say nothing about themselves.
fn without_description(schema: &Value) -> Vec<String> {
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &Value| value["name"].as_str().unwrap_or_default().to_owned();
    let is_silent = |value: &Value| value["description"].as_str().is_none_or(|text| text.trim().is_empty());
    let mut found = Vec::new();
    // The library registers GraphQL's own ID, which nothing here uses.
    let is_ours = |kind: &&Value| !name(kind).starts_with("__") && name(kind) != "ID";
    for kind in list(&schema["types"]).iter().filter(is_ours) {
        if is_silent(kind) {
            found.push(name(kind));
        }
        for part in ["fields", "inputFields", "enumValues"] {
            for field in list(&kind[part]) {
                let path = format!("{}.{}", name(kind), name(&field));
                if is_silent(&field) {
                    found.push(path.clone());
                }
                let args = list(&field["args"]);
                found.extend(args.iter().filter(|a| is_silent(a)).map(|a| format!("{path}({})", name(a))));
            }
        }
    }
    found
}

#[tokio::test]
async fn everything_in_the_schema_says_what_it_is() {
    let door = Door::open().await;
    let query = "{ __schema { types { name description enumValues { name description } \
                 inputFields { name description } \
                 fields { name description args { name description } } } } }";
    let mut schema = door.ask(query).await["__schema"].clone();
    assert_eq!(without_description(&schema), Vec::<String>::new());
    // And it finds what is silent: a type, a field, an argument.
    let types = schema["types"].as_array_mut().unwrap();
    let order = types.iter_mut().find(|t| t["name"] == "Order").unwrap();
    order["description"] = json!(" ");
    order["fields"][0]["description"] = Value::Null;
    let field = order["fields"][0]["name"].as_str().unwrap().to_owned();
    let queries = types.iter_mut().find(|t| t["name"] == "Query").unwrap();
    let quote =
        queries["fields"].as_array_mut().unwrap().iter_mut().find(|f| f["name"] == "getStockQuote").unwrap();
    quote["args"][0]["description"] = json!("");
    assert_eq!(
        without_description(&schema).into_iter().collect::<std::collections::BTreeSet<_>>(),
        ["Order".to_owned(), format!("Order.{field}"), "Query.getStockQuote(symbol)".to_owned()].into()
    );
    door.stack.stop().await;
}
