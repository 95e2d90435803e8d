//! The attacks of security.md that concern the public port, against a live stack.

use super::*;
use axum::http::StatusCode;
use std::time::{Duration, Instant};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const JSON: (&str, &str) = ("content-type", "application/json");
const MUTATION: &str = r#"{"query":"mutation { cancelAllOrders { code } }"}"#;

#[tokio::test]
async fn nobody_who_is_not_signed_in_gets_past_the_door() {
    let door = Door::open().await;
    for headers in [
        vec![JSON],
        vec![JSON, ("authorization", "Bearer x.y.z")],
        vec![JSON, ("authorization", "Basic dXNlcjpwYXNz")],
        vec![JSON, ("cookie", "auth_token=nonsense")],
    ] {
        for (method, path, body) in [
            (Method::POST, "/graphql", r#"{"query":"{ health }"}"#),
            (Method::GET, "/graphql?query=%7Bhealth%7D", ""),
        ] {
            let answer = door.send(method, path, &headers, body).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {headers:?}");
            assert_eq!(answer.code(), "UNAUTHORIZED");
        }
    }
    door.stack.stop().await;
}

/// Fragments that name one another: refused after it was read.
const CYCLE: &str = "{ getOrders { ...f0 } } fragment f0 on OrdersResponse { ...f1 ...f1 } \
                     fragment f1 on OrdersResponse { ...f0 }";

#[tokio::test]
async fn who_is_refused_all_the_time_is_not_read_and_can_still_cancel() {
    let door = Door::open().await;
    let ask = async |token: &str, query: &str| door.ask_as(token, query, json!({})).await;
    assert_eq!(ask(&door.member, "{ health }").await.status, 200);
    // A burst is no attack.
    for _ in 0..20 {
        assert_eq!(ask(&door.member, CYCLE).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    // What is long costs more to read: four of these are all that is read at once, and none more a second.
    let long = format!("{CYCLE}{}", " ".repeat(60_000));
    let mut tries = 0;
    let asked = Instant::now();
    let refused = loop {
        let answer = ask(&door.member, &long).await;
        if answer.status == StatusCode::TOO_MANY_REQUESTS {
            break answer;
        }
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{answer:?}");
        tries += 1;
        assert!(tries < 1_000, "it is read for ever");
    };
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(refused.json()["error"]["message"].as_str().unwrap().contains("are refused"), "{refused:?}");
    assert!(asked.elapsed() >= Duration::from_secs(1), "who does not listen comes no faster");
    // What ran before runs, another user is another, and cancels pass, in a text that nobody has seen.
    assert_eq!(ask(&door.member, "{ health }").await.status, 200);
    assert_eq!(ask(&door.admin, CYCLE).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    ask(&door.member, CYCLE).await;
    let cancel = ask(&door.member, "mutation { a: cancelAllOrders { code } }").await;
    assert_eq!(cancel.json()["data"]["a"]["code"], "OK", "{cancel:?}");
    door.stack.stop().await;
}

#[tokio::test]
async fn what_costs_too_much_to_run_is_refused_and_not_at_once() {
    let door = Door::open().await;
    let list = |n| format!("a{n}: getStockHistoricalData(symbol: \"AAPL\", period: \"MAX\") {{ code }} ");
    let dear = format!("{{ {} }}", (0..15).map(list).collect::<String>());
    let asked = Instant::now();
    let all = (0..8).map(|_| door.ask_as(&door.member, &dear, json!({})));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.json()["error"]["details"], "QUERY_TOO_DEAR", "{answer:?}");
    }
    assert!(asked.elapsed() >= Duration::from_secs(1), "who asks again at once comes no faster");
    assert_eq!(door.ask("{ health }").await["health"], "OK");
    door.stack.stop().await;
}

#[tokio::test]
async fn a_mutation_of_a_cookie_session_needs_its_csrf_token_and_a_query_needs_none() {
    let door = Door::open().await;
    let (cookies, csrf) = door.browser().await;
    let post = async |headers: &[(&str, &str)], body: &str| {
        let mut all = vec![JSON, ("cookie", cookies.as_str())];
        all.extend_from_slice(headers);
        door.send(Method::POST, "/graphql", &all, body).await
    };
    assert_eq!(post(&[], r#"{"query":"{ health }"}"#).await.status, StatusCode::OK);
    // Decided on the parsed operation, never on how the text begins.
    for query in [
        "mutation { cancelAllOrders { code } }",
        "# {\n mutation M { cancelAllOrders { code } }",
        "query Q { health } mutation M { cancelAllOrders { code } }",
        "fragment f on CancelAllOrdersResponse { code } mutation M { cancelAllOrders { ...f } }",
    ] {
        let body = json!({"query": query, "operationName": query.contains(" M ").then_some("M")}).to_string();
        let answer = post(&[], &body).await;
        assert_eq!(
            (answer.status, answer.code()),
            (StatusCode::UNAUTHORIZED, "UNAUTHORIZED".into()),
            "{query}"
        );
        assert_eq!(post(&[("x-csrf-token", "wrong")], &body).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(post(&[("x-csrf-token", &csrf)], &body).await.status, StatusCode::OK, "{query}");
        let foreign = [("x-csrf-token", csrf.as_str()), ("origin", "https://evil.example")];
        assert_eq!(post(&foreign, &body).await.status, StatusCode::UNAUTHORIZED);
        let foreign = [("x-csrf-token", csrf.as_str()), ("sec-fetch-site", "cross-site")];
        assert_eq!(post(&foreign, &body).await.status, StatusCode::UNAUTHORIZED);
    }
    // The other operation of the same document is a query.
    let both =
        r#"{"query":"query Q { health } mutation M { cancelAllOrders { code } }","operationName":"Q"}"#;
    assert_eq!(post(&[], both).await.status, StatusCode::OK);
    // The token of another session.
    let (_, other) = door.browser().await;
    let stolen = cookies.split("; ").find(|c| c.starts_with("auth_token=")).unwrap();
    let mixed = format!("{stolen}; csrf_token={other}");
    let headers = [JSON, ("cookie", mixed.as_str()), ("x-csrf-token", other.as_str())];
    let answer = door.send(Method::POST, "/graphql", &headers, MUTATION).await;
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
    door.stack.stop().await;
}

#[tokio::test]
async fn mutations_travel_by_post_as_json_alone() {
    let door = Door::open().await;
    let bearer = format!("Bearer {}", door.member);
    let auth = ("authorization", bearer.as_str());
    for content_type in
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""]
    {
        let headers = [auth, ("content-type", content_type)];
        let answer = door.send(Method::POST, "/graphql", &headers, MUTATION).await;
        assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{content_type}");
    }
    let answer = door.send(Method::POST, "/graphql", &[auth], MUTATION).await;
    assert_eq!(answer.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let path = "/graphql?query=mutation%7BcancelAllOrders%7Bcode%7D%7D";
    let answer = door.send(Method::GET, path, &[auth], "").await;
    assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers["allow"], "POST");
    let answer = door.send(Method::GET, "/graphql?query=%7Bhealth%7D", &[auth], "").await;
    assert_eq!((answer.status, &answer.json()["data"]["health"]), (StatusCode::OK, &json!("OK")));
    assert!(door.world.lock().unwrap().asked.iter().all(|(method, _)| method != "CancelAll"));
    let headers = [auth, ("content-type", "application/json; charset=utf-8")];
    assert_eq!(door.send(Method::POST, "/graphql", &headers, MUTATION).await.status, StatusCode::OK);
    door.stack.stop().await;
}

#[tokio::test]
async fn documents_that_would_cost_too_much_are_refused_before_they_do() {
    let door = Door::open().await;
    let mut bomb = String::from("{ getOrders { ...f0 } }");
    for i in 0..10 {
        let next = if i == 9 { "code".to_owned() } else { format!("...f{0} ...f{0} ...f{0}", i + 1) };
        bomb.push_str(&format!(" fragment f{i} on OrdersResponse {{ {next} }}"));
    }
    let many = |n: usize, field: &str| (0..n).map(|i| format!("a{i}: {field}")).collect::<Vec<_>>().join(" ");
    let aliases = format!("{{ {} }}", many(4_000, "health"));
    let mutations = format!("mutation {{ {} }}", many(16, "cancelAllOrders { code }"));
    let deep = format!("{}{}", "{ a ".repeat(10_000), "}".repeat(10_000));
    let list = format!("{{ getStockQuoteBatch(symbols: {}) {{ code }} }}", "[".repeat(20_000));
    let cycle = "{ getOrders { ...f } } fragment f on OrdersResponse { ...f }".to_owned();
    let directives = format!("{{ health {} }}", "@include(if: true) ".repeat(5));
    for query in [bomb, aliases, mutations, deep, list, cycle, directives] {
        let start: String = query.chars().take(60).collect();
        // Two users: long documents that are refused soon make one's next ones wait.
        for token in [&door.member, &door.admin] {
            let started = Instant::now();
            let answer = door.ask_as(token, &query, json!({})).await;
            let took = started.elapsed();
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{start}");
            let error = &answer.json()["errors"][0];
            assert_eq!(error["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED", "{start}");
            assert!(took < Duration::from_secs(1), "{start}: {took:?}");
        }
    }
    assert!(door.world.lock().unwrap().asked.is_empty(), "nothing was executed");
    door.stack.stop().await;
}

#[tokio::test]
async fn malformed_requests_are_refused_without_an_echo() {
    let door = Door::open().await;
    let bearer = format!("Bearer {}", door.member);
    let headers = [JSON, ("authorization", bearer.as_str())];
    for body in [
        "",
        "{",
        "[]",
        r#"[{"query":"{ health }"},{"query":"{ health }"}]"#,
        r#"{"query":1}"#,
        r#"{"query":"{ health }","variables":[1]}"#,
        r#"{"query":"{ health }","variables":{"a":1e999}}"#,
        r#"{"query":"{ health }","variables":{"a":0.1000000000000000055}}"#,
    ] {
        let answer = door.send(Method::POST, "/graphql", &headers, body).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{body}");
        assert_eq!(answer.code(), "INVALID_INPUT", "{body}");
    }
    let long = format!("{{ health {} ", "(".repeat(40) + &"x ".repeat(2_500));
    let name = format!("{{ {} }}", "x".repeat(5_000));
    for (query, code) in [
        ("", "GRAPHQL_PARSE_FAILED"),
        ("{ health", "GRAPHQL_PARSE_FAILED"),
        (long.as_str(), "GRAPHQL_PARSE_FAILED"),
        (name.as_str(), "GRAPHQL_VALIDATION_FAILED"),
        ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ health { x } }", "GRAPHQL_VALIDATION_FAILED"),
        ("subscription { orderUpdates { sequence } }", "GRAPHQL_VALIDATION_FAILED"),
        ("query A { health } query B { health }", "GRAPHQL_VALIDATION_FAILED"),
        ("{ getOrders(first: 99999999999999999999) { code } }", "GRAPHQL_VALIDATION_FAILED"),
        (
            "mutation { createOrder(request: {symbol: \"A\", side: \"BUY\", type: \"LIMIT\", quantity: \"1\"}) { code } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
        (
            "mutation { createOrder(request: {symbol: \"A\", side: \"BUY\", type: \"LIMIT\", quantity: NaN}) { code } }",
            "GRAPHQL_VALIDATION_FAILED",
        ),
    ] {
        for (accept, status) in [
            ("*/*", StatusCode::UNPROCESSABLE_ENTITY),
            ("application/graphql-response+json", StatusCode::BAD_REQUEST),
        ] {
            let headers = [JSON, ("authorization", bearer.as_str()), ("accept", accept)];
            let body = json!({"query": query}).to_string();
            let answer = door.send(Method::POST, "/graphql", &headers, &body).await;
            let json = answer.json();
            assert_eq!(answer.status, status, "{query}: {json}");
            assert_eq!(json["errors"][0]["extensions"]["code"], code, "{query}: {json}");
            assert!(answer.body.len() < 1000, "{query}: {} bytes", answer.body.len());
        }
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn an_oversized_body_is_413_however_it_comes() {
    let door = Door::open().await;
    let bearer = format!("Bearer {}", door.member);
    let headers = [JSON, ("authorization", bearer.as_str())];
    for size in [64 * 1024 + 1, 20 * 1024 * 1024] {
        for path in ["/graphql", "/auth/login"] {
            let answer = door.send(Method::POST, path, &headers, &"x".repeat(size)).await;
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{path} {size}");
            assert_eq!(answer.code(), "INVALID_INPUT");
        }
    }
    // Without a declared length.
    let mut stream = TcpStream::connect(door.url.trim_start_matches("http://")).await.unwrap();
    let head = format!(
        "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nauthorization: {bearer}\r\n\
         transfer-encoding: chunked\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    for _ in 0..3 {
        stream.write_all(chunk.as_bytes()).await.unwrap();
    }
    stream.write_all(b"0\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    tokio::time::timeout(testing::DEADLINE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    door.stack.stop().await;
}

#[tokio::test]
async fn connections_that_do_not_finish_what_they_begin_are_closed() {
    let door = Door::open().await;
    let address = door.url.trim_start_matches("http://").to_owned();
    let mut slow = Vec::new();
    for begun in ["", "G", "PRI * HT", "POST /graphql HTTP/1.1\r\nhost: x\r\ncontent-type: a"] {
        let mut stream = TcpStream::connect(&address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        slow.push((begun, stream));
    }
    let started = Instant::now();
    assert_eq!(door.ask("{ health }").await["health"], "OK", "others are served meanwhile");
    for (begun, mut stream) in slow {
        let mut rest = Vec::new();
        let closed = tokio::time::timeout(Duration::from_secs(12), stream.read_to_end(&mut rest)).await;
        assert!(closed.is_ok(), "{begun:?} is still open");
    }
    assert!(started.elapsed() >= Duration::from_secs(4), "{:?}", started.elapsed());
    door.stack.stop().await;
}

#[tokio::test]
async fn a_known_path_with_a_wrong_method_is_405_and_anything_else_404() {
    let door = Door::open().await;
    for (method, path, status) in [
        (Method::GET, "/healthz", 200),
        (Method::GET, "/.well-known/jwks.json", 200),
        (Method::GET, "/", 200),
        (Method::POST, "/", 405),
        (Method::DELETE, "/graphql", 405),
        (Method::PUT, "/graphql", 405),
        (Method::POST, "/healthz", 405),
        (Method::POST, "/.well-known/jwks.json", 405),
        (Method::POST, "/graphql/ws", 405),
        (Method::GET, "/graphql/ws", 426),
        (Method::GET, "/nothing", 404),
        (Method::GET, "/metrics", 404),
        (Method::GET, "/readyz", 404),
        (Method::GET, "/fafnir.v1.OrderService/Place", 404),
        (Method::GET, "/auth/nothing", 404),
        (Method::GET, "/auth/login", 405),
    ] {
        let answer = door.send(method.clone(), path, &[], "").await;
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        if status == 404 || status == 405 {
            answer.code();
        }
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn a_document_that_ran_before_is_still_held_against_its_variables_and_its_sender() {
    let door = Door::open().await;
    let quote = "query one($s: String!, $more: Boolean! = true) \
                 { op: getStockQuote(symbol: $s) { code @include(if: $more) data { symbol } } } \
                 query two($l: Int) { searchStocks(query: \"A\", limit: $l) { symbol } }";
    let ask = async |token: &str, name: Option<&str>, variables: serde_json::Value| {
        let body = json!({"query": quote, "operationName": name, "variables": variables}).to_string();
        let bearer = format!("Bearer {token}");
        let headers = [JSON, ("authorization", bearer.as_str())];
        door.send(Method::POST, "/graphql", &headers, &body).await
    };
    for _ in 0..3 {
        let good = ask(&door.member, Some("one"), json!({"s": "AAPL", "more": true})).await;
        assert_eq!((good.status, &good.json()["data"]["op"]["code"]), (StatusCode::OK, &json!("OK")));
        let less = ask(&door.member, Some("one"), json!({"s": "AAPL", "more": false})).await;
        assert_eq!(less.json()["data"]["op"], json!({"data": {"symbol": "AAPL"}}));
        assert_eq!(ask(&door.member, Some("two"), json!({"l": 3})).await.status, StatusCode::OK);
        for wrong in [json!({"s": 7}), json!({"s": null}), json!({"s": ["AAPL"]})] {
            let answer = ask(&door.member, Some("one"), wrong.clone()).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{wrong}");
            assert_eq!(answer.json()["errors"][0]["extensions"]["code"], "GRAPHQL_VALIDATION_FAILED");
        }
        assert!(ask(&door.member, Some("one"), json!({})).await.json()["errors"][0]["message"].is_string());
        for name in [None, Some("three")] {
            let answer = ask(&door.member, name, json!({"s": "AAPL"})).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{name:?}");
        }
        assert_eq!(ask("nobody", Some("one"), json!({"s": "AAPL"})).await.status, StatusCode::UNAUTHORIZED);
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn in_production_there_is_no_playground_and_no_introspection() {
    let door = Door::open_with(|s| s.mode = fafnir_platform::config::Mode::Production).await;
    assert_eq!(door.send(Method::GET, "/", &[], "").await.status, StatusCode::NOT_FOUND);
    for query in ["{ __schema { types { name } } }", "{ __type(name: \"Order\") { name } }"] {
        for _ in 0..2 {
            let answer = door.ask_as(&door.member, query, json!({})).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
        }
    }
    assert_eq!(door.ask("{ __typename health }").await["health"], "OK");
    door.stack.stop().await;
}

#[tokio::test]
async fn more_orders_than_the_rate_allows_are_refused_whole() {
    let door = Door::open_with(|s| (s.gateway.orders_per_second, s.gateway.orders_burst) = (1, 3)).await;
    let order =
        "createOrder(request: {symbol: \"AAPL\", side: \"BUY\", type: \"MARKET\", quantity: 1}) { code }";
    let four = format!("mutation {{ a: {order} b: {order} c: {order} d: {order} }}");
    let answer = door.ask_as(&door.member, &four, json!({})).await;
    assert_eq!((answer.status, answer.code()), (StatusCode::TOO_MANY_REQUESTS, "RATE_LIMITED".into()));
    let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=2).contains(&seconds), "{seconds}");
    assert!(door.world.lock().unwrap().placed.is_empty());
    door.ask(&format!("mutation {{ {order} }}")).await;
    // Among other fields it is an error of the field.
    let many = (0..9).map(|i| format!("a{i}: {order}")).collect::<Vec<_>>().join(" ");
    let mixed = format!("mutation {{ cancelAllOrders {{ code }} {many} }}");
    let answer = door.ask_as(&door.member, &mixed, json!({})).await;
    assert_eq!(answer.json()["errors"][0]["extensions"]["code"], "RESOURCE_EXHAUSTED");
    door.stack.stop().await;
}

#[tokio::test]
async fn an_unreachable_auth_service_is_502_and_nobody_is_believed() {
    let [nowhere, here] = [TcpListener::bind("127.0.0.1:0").await, TcpListener::bind("127.0.0.1:0").await]
        .map(|listener| listener.unwrap().local_addr().unwrap());
    let url = format!("http://{here}");
    // It is not ready without auth-service, and answers.
    let starting = tokio::spawn(async move {
        let alone = [&broker::SERVICE, &gateway::SERVICE];
        Stack::start_with(&alone, |s| {
            s.addresses.auth = format!("http://{nowhere}");
            (s.bind.auto, s.ports.gateway, s.ports.operations_offset) = (false, here.port(), 0);
            (s.ports.broker, s.ports.broker_monitor, s.ports.broker_websocket) = (0, 0, 0);
        })
        .await
    });
    let connecting = async { while TcpStream::connect(here).await.is_err() {} };
    tokio::time::timeout(testing::DEADLINE, connecting).await.expect("a door in time");
    let answer = testing::request(Method::POST, &format!("{url}/auth/login"), &[JSON], "{}").await;
    assert_eq!((answer.status, answer.code()), (StatusCode::BAD_GATEWAY, "INTERNAL_ERROR".into()));
    let headers =
        [JSON, ("authorization", "Bearer eyJhbGciOiJFZERTQSIsInR5cCI6ImF0K2p3dCIsImtpZCI6ImsifQ.e30.c2ln")];
    let answer =
        testing::request(Method::POST, &format!("{url}/graphql"), &headers, r#"{"query":"{health}"}"#).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(!starting.is_finished(), "it is ready");
    starting.abort();
}
