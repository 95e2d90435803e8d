//! Subscriptions over graphql-transport-ws.

use super::*;
use axum::http::{HeaderValue, StatusCode};
use futures::{SinkExt as _, StreamExt as _};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        Error, Message,
        client::IntoClientRequest as _,
        protocol::frame::{
            Frame,
            coding::{CloseCode, Data, OpCode},
        },
    },
};

pub struct Socket(WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>);

pub async fn connect(door: &Door, headers: &[(&'static str, &str)]) -> Result<Socket, Error> {
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

    pub async fn receive(&mut self) -> Value {
        loop {
            let next = tokio::time::timeout(testing::DEADLINE, self.0.next()).await.expect("in time");
            match next.expect("open").unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    /// The data of a subscription's next message; what was on its way of one that was completed is passed over.
    async fn next_of(&mut self, id: &str) -> Value {
        loop {
            let message = self.receive().await;
            if message["id"] == id {
                assert_eq!(message["type"], "next", "{message}");
                return message["payload"]["data"].clone();
            }
        }
    }

    pub async fn closed_with(&mut self) -> u16 {
        loop {
            let next = tokio::time::timeout(testing::DEADLINE, self.0.next()).await.expect("in time");
            if let Message::Close(frame) = next.expect("a close frame").unwrap() {
                return frame.map_or(CloseCode::Status, |f| f.code).into();
            }
        }
    }

    pub async fn init(&mut self, token: &str) {
        self.init_with(json!({"Authorization": format!("Bearer {token}")})).await;
    }

    pub async fn init_with(&mut self, payload: Value) {
        self.say(json!({"type": "connection_init", "payload": payload})).await;
        assert_eq!(self.receive().await["type"], "connection_ack");
    }

    pub async fn subscribe(&mut self, id: &str, query: &str) {
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
    // A quote that comes again says nothing new, in whatever version.
    let quote = async |price_e4: i64, version: u64| {
        let quote = v1::Quote { symbol: "AAPL".into(), price_e4, version, ..Default::default() };
        bus.publish(fafnir_proto::subject::quotes("AAPL"), quote.encode_to_vec().into()).await.unwrap();
    };
    quote(2_400_000, 1).await;
    assert_eq!(socket.receive().await["payload"]["data"]["quoteUpdates"]["price"], json!(240));
    quote(2_400_000, 1).await;
    quote(2_400_000, 2).await;
    quote(2_410_000, 3).await;
    assert_eq!(socket.receive().await["payload"]["data"]["quoteUpdates"]["price"], json!(241));
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
    assert_eq!(socket.closed_with().await, 4403);
    door.stack.stop().await;
}

#[tokio::test]
async fn a_signed_out_session_hears_nothing_more() {
    let door = Door::open().await;
    let session = door.sign_in("user@test.com").await;
    let open = async || {
        let mut socket = connect(&door, &[]).await.unwrap();
        socket.init(&session.access_token).await;
        socket
    };
    let (mut idle, mut busy) = (open().await, open().await);
    busy.subscribe("b", "subscription { orderBookUpdates(symbol: \"AAPL\") { sequence } }").await;
    assert_eq!(busy.receive().await["type"], "next");
    let bearer = format!("Bearer {}", session.access_token);
    let out = door.send(Method::DELETE, "/auth/logout", &[("authorization", &bearer)], "").await;
    assert_eq!(out.status, StatusCode::NO_CONTENT);
    let revoked = std::time::Instant::now();
    // Asked at once, it is not served any more.
    idle.subscribe("o", "subscription { orderUpdates(after: 0) { sequence } }").await;
    assert_eq!(idle.closed_with().await, 4403);
    assert_eq!(busy.closed_with().await, 4403);
    assert!(revoked.elapsed() < std::time::Duration::from_secs(1), "{:?}", revoked.elapsed());
    // Client libraries ask for another token and come again where a token is refused.
    for token in [session.access_token.as_str(), "stale.token.x"] {
        let mut socket = connect(&door, &[]).await.unwrap();
        let payload = json!({"Authorization": format!("Bearer {token}")});
        socket.say(json!({"type": "connection_init", "payload": payload})).await;
        assert_eq!(socket.closed_with().await, 4403, "{token}");
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn a_user_and_an_address_have_so_many_sockets() {
    let door =
        Door::open_with(|s| (s.gateway.sockets_per_user, s.gateway.sockets_per_address) = (2, 4)).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut socket = connect(&door, &[]).await.unwrap();
        socket.init(&door.member).await;
        held.push(socket);
    }
    let mut third = connect(&door, &[]).await.unwrap();
    let payload = json!({"Authorization": format!("Bearer {}", door.member)});
    third.say(json!({"type": "connection_init", "payload": payload})).await;
    assert_eq!(third.closed_with().await, 1013);
    drop(third);
    let mut other = connect(&door, &[]).await.unwrap();
    other.init(&door.admin).await;
    held.push(other);
    held.push(connect(&door, &[]).await.unwrap());
    // The one that was closed may still be leaving: from some moment on there is no fifth.
    let refused = loop {
        match connect(&door, &[]).await {
            Ok(more) => held.push(more),
            Err(Error::Http(response)) => break response,
            Err(e) => panic!("{e}"),
        }
        assert!(held.len() < 6);
    };
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    door.stack.stop().await;
}

#[tokio::test]
async fn the_tape_resumes_from_any_number_without_waiting_for_a_trade() {
    let door = Door::open().await;
    let trade = |trade_no| v1::Trade { symbol: "AAPL".into(), trade_no, ..Default::default() };
    // 300 are no longer kept.
    door.world.lock().unwrap().trades = (301..=1_565).map(trade).collect();
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    let query = |after: u64| {
        format!("subscription {{ tradeUpdates(symbol: \"AAPL\", after: {after}) {{ tradeNo reset }} }}")
    };
    for (id, after, first) in [("all", 0, 301), ("kept", 700, 701)] {
        socket.subscribe(id, &query(after)).await;
        for want in first..=1_565_u64 {
            let got = socket.receive().await["payload"]["data"]["tradeUpdates"].clone();
            assert_eq!(got, json!({"tradeNo": want, "reset": want == 301}), "{id}");
        }
        socket.say(json!({"type": "complete", "id": id})).await;
    }
    for (id, query) in [
        ("t", "subscription { tradeUpdates(symbol: \"NOPE\") { tradeNo } }"),
        ("q", "subscription { quoteUpdates(symbols: [\"AAPL\", \"NOPE\"]) { price } }"),
    ] {
        socket.subscribe(id, query).await;
        let answer = socket.receive().await;
        assert_eq!(answer["payload"]["errors"][0]["extensions"]["code"], "NOT_FOUND", "{answer}");
        assert_eq!(socket.receive().await["type"], "complete");
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn a_snapshot_that_is_cut_off_comes_again_and_then_the_sequence_to_go_on_from() {
    let door = Door::open().await;
    let order =
        |n: u64| v1::Order { id: format!("o{n}"), user_id: MEMBER.into(), open_e4: 1, ..Default::default() };
    let update =
        |n: u64| v1::OrderUpdate { user_id: MEMBER.into(), user_seq: n, order: Some(order(n)), fill: None };
    {
        let mut world = door.world.lock().unwrap();
        // Newest first, as the service lists them; the updates before 900 are gone.
        world.orders = (1..=1_200).rev().map(order).collect();
        world.order_updates = (1..=1_200).map(update).collect();
        world.kept_from = 900;
    }
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    let query = |after: u64| {
        format!("subscription {{ orderUpdates(after: {after}) {{ sequence reset order {{ id }} }} }}")
    };
    socket.subscribe("cut", &query(5)).await;
    let first = socket.next_of("cut").await["orderUpdates"].clone();
    assert_eq!((&first["sequence"], &first["reset"]), (&json!(5), &json!(true)), "{first}");
    socket.say(json!({"type": "complete", "id": "cut"})).await;
    // Resumed by the sequence that it told.
    socket.subscribe("again", &query(first["sequence"].as_u64().unwrap())).await;
    let mut seen = std::collections::BTreeSet::new();
    let last = loop {
        let got = socket.next_of("again").await["orderUpdates"].clone();
        assert_eq!(got["reset"], true, "{got}");
        match got["order"]["id"].as_str() {
            Some(id) => {
                assert_eq!(got["sequence"], 5);
                assert!(seen.insert(id.to_owned()), "{id} twice");
            }
            None => break got["sequence"].as_u64().unwrap(),
        }
    };
    assert_eq!((seen.len(), last), (1_200, 1_200), "every open order");
    socket.say(json!({"type": "complete", "id": "again"})).await;
    // What is kept comes as it was.
    socket.subscribe("kept", &query(950)).await;
    for want in 951..=1_200_u64 {
        let got = socket.next_of("kept").await["orderUpdates"].clone();
        assert_eq!(got, json!({"sequence": want, "reset": false, "order": {"id": format!("o{want}")}}));
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn every_subscription_asks_for_its_permission() {
    let door = Door::open().await;
    let subscriptions = [
        ("orderUpdates", "orderUpdates { sequence }"),
        ("portfolioUpdates", "portfolioUpdates { sequence }"),
        ("orderBookUpdates", "orderBookUpdates(symbol: \"AAPL\") { sequence }"),
        ("tradeUpdates", "tradeUpdates(symbol: \"AAPL\") { tradeNo }"),
        ("quoteUpdates", "quoteUpdates(symbols: [\"AAPL\"]) { price }"),
    ];
    let data = door.ask("{ __schema { subscriptionType { fields { name } } } }").await;
    let fields = data["__schema"]["subscriptionType"]["fields"].as_array().unwrap().clone();
    let mut known: Vec<_> = fields.iter().map(|f| f["name"].as_str().unwrap().to_owned()).collect();
    let mut covered: Vec<_> = subscriptions.iter().map(|(name, _)| (*name).to_owned()).collect();
    known.sort();
    covered.sort();
    assert_eq!(covered, known, "a subscription of the schema is missing above");
    // The administrator has no permission of a member: every one is refused before anything is told.
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.admin).await;
    for (name, query) in subscriptions {
        socket.subscribe(name, &format!("subscription {{ {query} }}")).await;
        let answer = socket.receive().await;
        let errors =
            if answer["type"] == "error" { &answer["payload"] } else { &answer["payload"]["errors"] };
        assert_eq!(errors[0]["extensions"]["code"], "PERMISSION_DENIED", "{name}: {answer}");
        assert!(answer["payload"]["data"].is_null(), "{name}: {answer}");
        if answer["type"] == "next" {
            assert_eq!(socket.receive().await["type"], "complete");
        }
    }
    door.stack.stop().await;
}

#[tokio::test]
async fn a_message_comes_in_many_frames_and_not_in_frames_without_end() {
    let door = Door::open().await;
    let mut socket = connect(&door, &[]).await.unwrap();
    socket.init(&door.member).await;
    let frame = |text: &'static str, data: Data, is_final: bool| {
        Message::Frame(Frame::message(text.as_bytes(), OpCode::Data(data), is_final))
    };
    for _ in 0..3 {
        socket.0.feed(frame("{\"type\":", Data::Text, false)).await.unwrap();
        for _ in 0..1_000 {
            socket.0.feed(frame(" ", Data::Continue, false)).await.unwrap();
        }
        socket.0.send(frame("\"ping\"}", Data::Continue, true)).await.unwrap();
        assert_eq!(socket.receive().await["type"], "pong");
    }
    // Empty ones add nothing to a message, which never becomes too long.
    socket.0.feed(frame("{", Data::Text, false)).await.unwrap();
    let flood = async {
        loop {
            for _ in 0..10_000 {
                if socket.0.feed(frame("", Data::Continue, false)).await.is_err() {
                    return;
                }
            }
            if socket.0.flush().await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(testing::DEADLINE, flood).await.expect("the connection ends");
    door.stack.stop().await;
}
