//! Every refusal of exchange-rules §7, over the command line and over GraphQL: a machine code, a sentence, no change.

use crate::harness::{Stack, WITHIN};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, body::Bytes, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};

/// A browser-like caller with a Bearer token.
pub struct Api {
    client: Client<hyper_util::client::legacy::connect::HttpConnector, Full<Bytes>>,
    url: String,
    token: String,
}

impl Api {
    pub async fn signed_in(url: &str, email: &str) -> Self {
        let client = Client::builder(TokioExecutor::new()).build_http();
        let mut api = Self { client, url: url.to_owned(), token: String::new() };
        let body = json!({"email": email, "password": "Password123"});
        let request = Request::post(format!("{url}/auth/login"))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, "application/vnd.fafnir.token+json")
            .body(Full::from(body.to_string()))
            .unwrap();
        let (status, answer) = api.send(request).await;
        assert_eq!(status, 200, "{answer}");
        api.token = answer["accessToken"].as_str().unwrap().to_owned();
        api
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> (u16, Value) {
        self.try_send(request).await.unwrap()
    }

    async fn try_send(&self, request: Request<Full<Bytes>>) -> Option<(u16, Value)> {
        let answer = tokio::time::timeout(WITHIN, self.client.request(request)).await.ok()?.ok()?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }

    /// The same person at another door.
    pub fn at(&self, url: &str) -> Self {
        Self { client: self.client.clone(), url: url.to_owned(), token: self.token.clone() }
    }

    pub async fn graphql(&self, query: &str, variables: Value) -> Value {
        self.try_graphql(query, variables).await.unwrap()
    }

    /// `None` where no answer came.
    pub async fn try_graphql(&self, query: &str, variables: Value) -> Option<Value> {
        let request = Request::post(format!("{}/graphql", self.url))
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::AUTHORIZATION, format!("Bearer {}", self.token))
            .body(Full::from(json!({"query": query, "variables": variables}).to_string()))
            .unwrap();
        self.try_send(request).await.map(|(_, answer)| answer)
    }
}

/// What is asked on the command line, the same as a GraphQL input, and the code of the refusal.
const TABLE: &[(&[&str], &str)] = &[
    (
        &["buy", "NOPE", "1", "--price", "10"],
        r#"{"symbol":"NOPE","side":"BUY","type":"LIMIT","quantity":1,"price":10}"#,
    ),
    (
        &["buy", "AAPL", "0", "--price", "231"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":0,"price":231}"#,
    ),
    (
        &["buy", "KO", "0.5", "--price", "62"],
        r#"{"symbol":"KO","side":"BUY","type":"LIMIT","quantity":0.5,"price":62}"#,
    ),
    (
        &["buy", "AAPL", "--notional", "0.01", "--price", "231"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","notional":0.01,"price":231}"#,
    ),
    (
        &["buy", "AAPL", "--notional", "100", "--stop", "240"],
        r#"{"symbol":"AAPL","side":"BUY","type":"STOP","notional":100,"stopPrice":240}"#,
    ),
    (
        &["buy", "AAPL", "10000001", "--price", "231"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":10000001,"price":231}"#,
    ),
    (
        &["buy", "AAPL", "1", "--price", "231.005"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":1,"price":231.005}"#,
    ),
    (
        &["buy", "AAPL", "1", "--type", "limit"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":1}"#,
    ),
    (
        &["buy", "AAPL", "1", "--price", "1000"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":1,"price":1000}"#,
    ),
    (&["buy", "AAPL", "1", "--type", "stop"], r#"{"symbol":"AAPL","side":"BUY","type":"STOP","quantity":1}"#),
    (
        &["buy", "AAPL", "1", "--type", "market", "--price", "231"],
        r#"{"symbol":"AAPL","side":"BUY","type":"MARKET","quantity":1,"price":231}"#,
    ),
    (
        &["buy", "AAPL", "1", "--price", "231", "--account", "00000000-0000-4000-8000-000000000000"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":1,"price":231,"accountId":"00000000-0000-4000-8000-000000000000"}"#,
    ),
    (
        &["buy", "AAPL", "100000", "--price", "231"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":100000,"price":231}"#,
    ),
    (
        &["sell", "TSLA", "1", "--price", "342"],
        r#"{"symbol":"TSLA","side":"SELL","type":"LIMIT","quantity":1,"price":342}"#,
    ),
    (
        &["buy", "AAPL", "1", "--price", "231", "--tif", "opg"],
        r#"{"symbol":"AAPL","side":"BUY","type":"LIMIT","quantity":1,"price":231,"timeInForce":"OPG"}"#,
    ),
    (
        &["sell", "AAPL", "1", "--type", "market", "--tif", "cls"],
        r#"{"symbol":"AAPL","side":"SELL","type":"MARKET","quantity":1,"timeInForce":"cls"}"#,
    ),
    (
        &["buy", "AAPL", "1", "--post-only"],
        r#"{"symbol":"AAPL","side":"BUY","type":"MARKET","quantity":1,"postOnly":true}"#,
    ),
];

#[test]
fn each_refusal_gives_its_code_and_sentence_on_both_doors() {
    let stack = Stack::up(&["--no-sim"]);
    let shell = stack.signed_in("user@test.com");
    let before = shell.account();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut text = String::new();
    let api = runtime.block_on(Api::signed_in(&stack.process.address("api-gateway"), "user@test.com"));
    for (args, input) in TABLE {
        let mut line = vec!["order", "place"];
        line.extend_from_slice(args);
        let answer = shell.run(&line);
        assert_eq!(answer.code, 5, "{line:?} {answer:?}");
        text.push_str(&format!("$ fafnir {}\n{}", line.join(" "), answer.stderr));
        let query = "mutation($r: CreateOrderRequest!) { createOrder(request: $r) { code data { status state rejectReason } } }";
        let input: Value = serde_json::from_str(input).unwrap();
        let mut answer = runtime.block_on(api.graphql(query, json!({"r": input})));
        if let Some(errors) = answer["errors"].as_array_mut() {
            for error in errors {
                error.as_object_mut().unwrap().remove("locations");
            }
        }
        text.push_str(&format!("graphql {answer}\n\n"));
    }
    insta::with_settings!({snapshot_path => "snapshots", prepend_module_to_snapshot => false, omit_expression => true}, {
        insta::assert_snapshot!("refusals", text);
    });
    // Infinities and NaN cannot be said in JSON; as text they are malformed.
    for quantity in ["NaN", "inf", "-1", "1e999", "9223372036854775807", "1.0000001", "１"] {
        let answer = shell.run(&["order", "place", "--price", "231", "buy", "AAPL", "--", quantity]);
        assert_eq!(answer.code, 5, "{quantity} {answer:?}");
    }
    let after = shell.account();
    assert_eq!((&after["balance"], &after["held"]), (&before["balance"], &before["held"]));
    assert_eq!(shell.audit()["openOrders"], 0);
}
