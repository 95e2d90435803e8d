//! Subscriptions over graphql-transport-ws.

use super::*;
use axum::http::{HeaderValue, StatusCode};
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _, protocol::frame::coding::CloseCode},
};

struct Socket(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

async fn connect(door: &Door, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
    let url = format!("{}/graphql/ws", door.url.replace("http", "ws"));
    let mut request = url.into_client_request().unwrap();
    let all = request.headers_mut();
    all.insert("sec-websocket-protocol", HeaderValue::from_static("graphql-transport-ws"));
    for (name, value) in headers {
        all.insert(*name, value.parse().unwrap());
    }
    Ok(Socket(connect_async(request).await?.0))
}

impl Socket {
    async fn say(&mut self, message: Value) {
        self.0.send(Message::text(message.to_string())).await.unwrap();
    }

    async fn receive(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(testing::DEADLINE, self.0.next()).await.expect("in time");
            match next.expect("open").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn closed_with(&mut self) -> u16 {
        loop {
            let next = tokio::time::timeout(testing::DEADLINE, self.0.next()).await.expect("in time");
            if let Message::Close(frame) = next.expect("a close frame").unwrap() {
                return frame.map_or(CloseCode::Status, |f| f.code).into();
            }
        }
    }

    async fn init(&mut self, token: &str) {
        self.say(json!({"type": "connection_init", "payload": {"Authorization": format!("Bearer {token}")}}))
            .await;
        assert_eq!(self.receive().await["type"], "connection_ack");
    }

    async fn subscribe(&mut self, id: &str, query: &str) {
        self.say(json!({"type": "subscribe", "id": id, "payload": {"query": query}})).await;
    }
}

#[tokio::test]
async fn books_trades_and_own_orders_are_pushed() {
    let door = Door::open().await;
    let bus = door.stack.running.context.bus().await.unwrap();
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    socket
        .subscribe("b", "subscription { orderBookUpdates(symbol: \"aapl\") { sequence bids { price } } }")
        .await;
    let first = socket.receive().await;
    assert_eq!((&first["type"], &first["id"]), (&json!("next"), &json!("b")));
    assert_eq!(
        first["payload"]["data"]["orderBookUpdates"],
        json!({"sequence": 10, "bids": [{"price": 231.06}]})
    );
    // An older image is not shown.
    for book_seq in [9, 12] {
        let image = v1::BookImage { symbol: "AAPL".into(), epoch: 1, book_seq, ..Default::default() };
        bus.publish(fafnir_proto::subject::book("AAPL"), image.encode_to_vec().into()).await.unwrap();
    }
    assert_eq!(socket.receive().await["payload"]["data"]["orderBookUpdates"]["sequence"], 12);
    socket.say(json!({"type": "complete", "id": "b"})).await;

    door.world.lock().unwrap().order_updates.push(v1::OrderUpdate {
        user_id: MEMBER.to_owned(),
        user_seq: 1,
        order: Some(v1::Order { id: "o".into(), price_e4: 1, ..Default::default() }),
        fill: None,
    });
    socket.subscribe("o", "subscription { orderUpdates(after: 0) { sequence order { id price } } }").await;
    assert_eq!(
        socket.receive().await["payload"]["data"]["orderUpdates"],
        json!({"sequence": 1, "order": {"id": "o", "price": 0.0001}})
    );
    socket.say(json!({"type": "complete", "id": "o"})).await;

    // A gap between what was seen and what is printed is filled.
    let trade =
        |trade_no| v1::Trade { symbol: "AAPL".into(), trade_no, price_e4: 10_000, ..Default::default() };
    door.world.lock().unwrap().trades = (1..=3).map(trade).collect();
    socket.subscribe("t", "subscription { tradeUpdates(symbol: \"AAPL\", after: 2) { tradeNo } }").await;
    assert_eq!(socket.receive().await["payload"]["data"]["tradeUpdates"]["tradeNo"], 3);
    door.world.lock().unwrap().trades = (1..=6).map(trade).collect();
    let print = v1::TradePrint { symbol: "AAPL".into(), epoch: 1, trades: vec![trade(6)] };
    bus.publish(fafnir_proto::subject::trades("AAPL"), print.encode_to_vec().into()).await.unwrap();
    for want in 4..=6 {
        assert_eq!(socket.receive().await["payload"]["data"]["tradeUpdates"]["tradeNo"], want);
    }
    socket.say(json!({"type": "complete", "id": "t"})).await;

    socket.subscribe("q", "subscription { quoteUpdates(symbols: [\"AAPL\"]) { symbol price } }").await;
    assert_eq!(
        socket.receive().await["payload"]["data"]["quoteUpdates"],
        json!({"symbol": "AAPL", "price": 231.07})
    );
    door.stack.stop().await;
}

#[tokio::test]
async fn what_is_refused_is_refused_in_the_words_of_the_protocol() {
    let door = Door::open().await;
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.subscribe("1", "subscription { orderUpdates { sequence } }").await;
    assert_eq!(socket.closed_with().await, 4401);
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.say(json!({"type": "connection_init"})).await;
    assert_eq!(socket.closed_with().await, 4401);
    let mut socket = connect(&door, &[]).await.unwrap();
    assert_eq!(socket.closed_with().await, 4408, "nothing was said");

    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    socket.say(json!({"type": "ping"})).await;
    assert_eq!(socket.receive().await["type"], "pong");
    for (id, query, code) in [
        ("1", "{ health }", "INVALID_ARGUMENT"),
        ("2", "mutation { cancelAllOrders { code } }", "INVALID_ARGUMENT"),
        ("3", "subscription { nothing }", "GRAPHQL_VALIDATION_FAILED"),
        ("4", "subscription {", "GRAPHQL_PARSE_FAILED"),
    ] {
        socket.subscribe(id, query).await;
        let answer = socket.receive().await;
        assert_eq!((&answer["type"], &answer["id"]), (&json!("error"), &json!(id)), "{answer}");
        assert_eq!(answer["payload"][0]["extensions"]["code"], code, "{answer}");
    }
    socket.subscribe("5", "subscription { orderBookUpdates(symbol: \"NOPE\") { sequence } }").await;
    let answer = socket.receive().await;
    assert_eq!(answer["payload"]["errors"][0]["extensions"]["code"], "NOT_FOUND", "{answer}");
    assert_eq!(socket.receive().await, json!({"type": "complete", "id": "5"}));
    socket.subscribe("6", "subscription { portfolioUpdates { sequence } }").await;
    socket.subscribe("6", "subscription { portfolioUpdates { sequence } }").await;
    assert_eq!(socket.closed_with().await, 4409);

    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.admin).await;
    socket.subscribe("1", "subscription { orderUpdates { sequence } }").await;
    let answer = socket.receive().await;
    let errors = if answer["type"] == "error" { &answer["payload"] } else { &answer["payload"]["errors"] };
    assert_eq!(errors[0]["extensions"]["code"], "PERMISSION_DENIED", "{answer}");
    door.stack.stop().await;
}

#[tokio::test]
async fn a_foreign_page_cannot_use_the_cookie() {
    let door = Door::open().await;
    let (cookies, _) = door.browser().await;
    let foreign = [("cookie", cookies.as_str()), ("origin", "https://evil.example")];
    match connect(&door, &foreign).await {
        Err(Error::Http(response)) => assert_eq!(response.status(), StatusCode::UNAUTHORIZED),
        other => panic!("{:?}", other.map(|_| "connected")),
    }
    let mut socket = connect(&door, &[("cookie", cookies.as_str())]).await.unwrap();
    socket.say(json!({"type": "connection_init"})).await;
    assert_eq!(socket.receive().await["type"], "connection_ack");
    door.stack.stop().await;
}

#[tokio::test]
async fn a_subscription_ends_when_its_session_does() {
    let door = Door::open().await;
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    socket.subscribe("1", "subscription { orderBookUpdates(symbol: \"AAPL\") { sequence } }").await;
    assert_eq!(socket.receive().await["type"], "next");
    door.stack.time.advance(700);
    let answer = socket.receive().await;
    assert_eq!(answer["payload"]["errors"][0]["extensions"]["code"], "UNAUTHENTICATED", "{answer}");
    assert_eq!(socket.receive().await["type"], "complete");
    door.stack.stop().await;
}
