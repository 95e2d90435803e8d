//! The terminal's gRPC door: sign-in, refusals, the private stream.

use super::*;
use fafnir_platform::bus::FACTS;
use fafnir_proto::subject;
use std::time::Duration;
use tonic::{Request, Streaming, metadata::MetadataValue};
use v1::private_update::Kind;

fn with_token<T>(message: T, token: &str) -> Request<T> {
    let mut request = Request::new(message);
    let value: MetadataValue<_> = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// Signs in where a session is told that the market is.
async fn market(
    url: &str,
    lost: tokio::sync::mpsc::UnboundedSender<()>,
) -> Result<async_nats::Client, async_nats::ConnectError> {
    let (login, address) = url.strip_prefix("nats://").unwrap().split_once('@').unwrap();
    let (user, password) = login.split_once(':').unwrap();
    let options = async_nats::ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned())
        .max_reconnects(1)
        .event_callback(move |event| {
            if matches!(event, async_nats::Event::Disconnected) {
                lost.send(()).ok();
            }
            async {}
        });
    tokio::time::timeout(testing::DEADLINE, options.connect(address)).await.expect("in time")
}

fn update(seq: u64) -> v1::OrderUpdate {
    v1::OrderUpdate { user_id: MEMBER.to_owned(), user_seq: seq, ..Default::default() }
}

/// The next sequence of an order update; heartbeats and the portfolio are skipped.
async fn next_order(stream: &mut Streaming<v1::PrivateUpdate>) -> Result<u64, Status> {
    let next = async {
        loop {
            let message = stream.message().await?.ok_or_else(|| Status::aborted("ended"))?;
            if let Some(Kind::Order(update)) = message.kind {
                return Ok(update.user_seq);
            }
        }
    };
    tokio::time::timeout(testing::DEADLINE, next).await.expect("in time")
}

#[tokio::test]
async fn a_terminal_signs_in_and_is_told_where_the_market_is() {
    let door = Door::open().await;
    let mut terminal = door.terminal().await;
    let info = terminal.info(v1::Empty {}).await.unwrap().into_inner();
    assert_eq!(info.mode, "development");
    let session = door.sign_in("user@test.com").await;
    assert_eq!((session.user_id.as_str(), session.first_name.as_str()), (MEMBER, "Ada"));
    assert!(session.permissions.contains(&"order_stocks".to_owned()));
    let (sender, mut lost) = tokio::sync::mpsc::unbounded_channel();
    let watching = market(&session.market_data_url, sender).await.unwrap();
    let mut feed = watching.subscribe(fafnir_proto::subject::book("AAPL")).await.unwrap();
    let bus = door.stack.running.context.bus().await.unwrap();
    let message = testing::heard(&bus, &fafnir_proto::subject::book("AAPL"), "x", &mut feed).await;
    assert_eq!(message, "x");

    let request = v1::TerminalRefreshRequest { refresh_token: session.refresh_token.clone() };
    let renewed = terminal.refresh(request).await.unwrap().into_inner();
    assert_ne!(renewed.refresh_token, session.refresh_token);
    assert_eq!(renewed.market_data_url, session.market_data_url, "nobody is cut off by a new token");
    // Another session of the same user has another.
    let other = door.sign_in("user@test.com").await;
    assert_ne!(other.market_data_url, session.market_data_url);
    terminal.sign_out(with_token(v1::Empty {}, &renewed.access_token)).await.unwrap();
    let status = terminal.accounts(with_token(v1::Empty {}, &renewed.access_token)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    // The market data ends with the session.
    tokio::time::timeout(testing::DEADLINE, lost.recv()).await.expect("in time").unwrap();
    let (sender, _) = tokio::sync::mpsc::unbounded_channel();
    assert!(market(&session.market_data_url, sender.clone()).await.is_err());
    assert!(market(&other.market_data_url, sender).await.is_ok());

    let wrong = v1::TerminalSignInRequest { email: "user@test.com".to_owned(), password: "no".to_owned() };
    assert_eq!(terminal.sign_in(wrong).await.unwrap_err().code(), Code::Unauthenticated);
    door.stack.stop().await;
}

#[tokio::test]
async fn refusals_carry_their_machine_code_and_nobody_acts_for_another() {
    let door = Door::open().await;
    let mut terminal = door.terminal().await;
    let place = || v1::PlaceOrderRequest {
        // Not the caller: the token decides.
        user_id: ADMIN.to_owned(),
        symbol: "AAPL".to_owned(),
        side: v1::Side::Buy.into(),
        r#type: v1::OrderType::Limit.into(),
        quantity_e4: 10_000,
        price_e4: 2_310_700,
        ..Default::default()
    };
    let status = terminal.place(place()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unauthenticated);
    let status = terminal.place(with_token(place(), &door.admin)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied);
    let order = terminal.place(with_token(place(), &door.member)).await.unwrap().into_inner().order.unwrap();
    assert_eq!(order.user_id, MEMBER);
    door.world.lock().unwrap().refuse_orders =
        Some(refusal(Code::InvalidArgument, "PRICE_OFF_TICK", "price must be a multiple of 0.01"));
    let status = terminal.place(with_token(place(), &door.member)).await.unwrap_err();
    assert_eq!(
        (status.code(), status.message()),
        (Code::InvalidArgument, "price must be a multiple of 0.01")
    );
    assert_eq!(status.metadata().get("x-fafnir-reason").unwrap(), "PRICE_OFF_TICK");
    door.world.lock().unwrap().refuse_orders = Some(Status::internal("select secret"));
    let status = terminal.place(with_token(place(), &door.member)).await.unwrap_err();
    assert_eq!(status.message(), "the service failed; the log has the cause");

    let positions = terminal.positions(with_token(v1::Empty {}, &door.member)).await.unwrap().into_inner();
    assert_eq!(positions.holdings[0].symbol, "AAPL");
    let book = v1::BookRequest { symbol: "AAPL".to_owned(), depth: 0 };
    assert_eq!(terminal.book(with_token(book, &door.member)).await.unwrap().into_inner().book_seq, 10);
    // A cookie does not open this door.
    let mut request = Request::new(v1::Empty {});
    request.metadata_mut().insert("cookie", format!("auth_token={}", door.member).parse().unwrap());
    assert_eq!(terminal.accounts(request).await.unwrap_err().code(), Code::Unauthenticated);
    // A message larger than the bound.
    let large = v1::SearchRequest { query: "x".repeat(300 * 1024), limit: 1 };
    let status = terminal.search(with_token(large, &door.member)).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange);
    door.stack.stop().await;
}

#[tokio::test]
async fn more_orders_than_the_rate_allows_are_refused() {
    let door = Door::open_with(|s| (s.gateway.orders_per_second, s.gateway.orders_burst) = (1, 2)).await;
    let mut terminal = door.terminal().await;
    let mut passed = 0;
    let status = loop {
        let order = v1::PlaceOrderRequest { symbol: "AAPL".into(), ..Default::default() };
        match terminal.place(with_token(order, &door.member)).await {
            Ok(_) => passed += 1,
            Err(status) => break status,
        }
        assert!(passed < 100);
    };
    assert!(passed >= 2);
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(status.metadata().get("x-fafnir-reason").unwrap(), "RATE_LIMITED");
    door.stack.stop().await;
}

#[tokio::test]
async fn private_updates_come_in_order_without_gap_or_repeat() {
    let door = Door::open().await;
    let bus = door.stack.running.context.bus().await.unwrap();
    bus.ensure_stream(FACTS).await.unwrap();
    let fact = async |position: u64, seq: u64| {
        let fact = v1::Fact { position, orders: vec![update(seq)], ..Default::default() };
        let payload = v1::FactBatch { facts: vec![fact] }.encode_to_vec().into();
        let id = Uuid::new_v4().to_string();
        bus.publish_fact(subject::FACTS_STREAM, subject::FACTS, &id, payload).await.unwrap();
    };
    let publish = async |seq: u64, live: bool| {
        door.world.lock().unwrap().order_updates.push(update(seq));
        if live {
            fact(10 * seq, seq).await;
        }
    };
    for seq in 1..=3 {
        publish(seq, false).await;
    }
    let mut terminal = door.terminal().await;
    let request = v1::PrivateRequest { after_order_seq: 1, after_portfolio_seq: 0, from_now: false };
    let mut stream = terminal.private(with_token(request, &door.member)).await.unwrap().into_inner();
    assert_eq!(next_order(&mut stream).await.unwrap(), 2);
    assert_eq!(next_order(&mut stream).await.unwrap(), 3);
    publish(4, true).await;
    assert_eq!(next_order(&mut stream).await.unwrap(), 4);
    // The bus lost 5 and repeats 4: the stream asks for 5.
    publish(5, false).await;
    fact(40, 4).await;
    publish(6, true).await;
    assert_eq!(next_order(&mut stream).await.unwrap(), 5);
    assert_eq!(next_order(&mut stream).await.unwrap(), 6);
    // Nobody tells of 7: the stream asks by itself.
    publish(7, false).await;
    assert_eq!(next_order(&mut stream).await.unwrap(), 7);

    let request = v1::PrivateRequest { from_now: true, ..Default::default() };
    let mut fresh = terminal.private(with_token(request, &door.member)).await.unwrap().into_inner();
    let first = tokio::time::timeout(testing::DEADLINE, fresh.message()).await.unwrap().unwrap().unwrap();
    let Some(Kind::Heartbeat(heartbeat)) = first.kind else { panic!("{first:?}") };
    assert_eq!(heartbeat.order_seq, 7);
    door.stack.stop().await;
}

#[tokio::test]
async fn a_private_stream_ends_when_the_session_does() {
    let door = Door::open().await;
    let mut terminal = door.terminal().await;
    let session = door.sign_in("user@test.com").await;
    let request = v1::PrivateRequest { from_now: true, ..Default::default() };
    let mut revoked =
        terminal.private(with_token(request, &session.access_token)).await.unwrap().into_inner();
    let mut expired = terminal.private(with_token(request, &door.member)).await.unwrap().into_inner();
    terminal.sign_out(with_token(v1::Empty {}, &session.access_token)).await.unwrap();
    let at = std::time::Instant::now();
    assert_eq!(next_order(&mut revoked).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(at.elapsed() < Duration::from_secs(2), "{:?}", at.elapsed());
    door.stack.time.advance(700);
    assert_eq!(next_order(&mut expired).await.unwrap_err().code(), Code::Unauthenticated);
    door.stack.stop().await;
}

#[tokio::test]
async fn health_and_reflection_are_served_and_unknown_services_are_not() {
    let door = Door::open().await;
    let connection = fafnir_proto::client::connection(&door.url).unwrap();
    // The internal services are not behind this port.
    let mut order = v1::order_service_client::OrderServiceClient::new(connection);
    let status = order.status(v1::Empty {}).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    let mut terminal = door.terminal().await;
    terminal.info(v1::Empty {}).await.unwrap();
    door.stack.stop().await;
}
