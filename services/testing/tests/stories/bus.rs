//! The story of the bus, the same on the embedded broker and on a nats-server.

use crate::stack as testing;
use crate::stack::{DEADLINE, Stack};
use bytes::Bytes;
use fafnir_platform::{
    Error,
    bus::{Bus, StreamSpec},
    secrets::market_login,
};
use fafnir_proto::{id::SessionId, subject};
use fafnir_services::broker;
use futures::StreamExt as _;
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _},
    sync::mpsc,
};

async fn embedded() -> Stack {
    Stack::start(&[&broker::SERVICE]).await
}

async fn nats_server() -> Option<Stack> {
    let url = testing::external("FAFNIR_TEST_NATS_URL")?;
    // The users of the server's configuration are in the URL; without any the services connect without a password.
    Some(Stack::start_with(&[], |s| s.nats.url = url).await)
}

macro_rules! on_both {
    ($($story:ident),* $(,)?) => {
        mod on_embedded { $(
            #[tokio::test]
            async fn $story() { super::$story(super::embedded().await).await; }
        )* }
        mod on_nats_server { $(
            #[tokio::test]
            async fn $story() {
                if let Some(stack) = super::nats_server().await { super::$story(stack).await; }
            }
        )* }
    };
}
on_both!(
    a_fact_is_stored_once_and_followed_in_order,
    facts_whose_effect_failed_come_again,
    core_messages_reach_who_listens,
    a_stream_of_states_keeps_the_newest_of_each_subject,
    a_stream_that_the_broker_lost_is_made_again_by_its_owner,
);

/// A stream of this test alone.
fn stream(one_per_subject: bool) -> StreamSpec {
    let name: &'static str = Box::leak(format!("test_{}", uuid::Uuid::new_v4().simple()).into_boxed_str());
    let subjects: &'static [&'static str] =
        Box::leak(Box::new([&*Box::leak(format!("{name}.*").into_boxed_str())]));
    StreamSpec { name, subjects, one_per_subject, has_copy: false }
}

async fn remove(stack: Stack, bus: &Bus, spec: StreamSpec) {
    bus.jetstream().delete_stream(spec.name).await.unwrap();
    stack.stop().await;
}

async fn next<T>(receiver: &mut mpsc::UnboundedReceiver<T>) -> T {
    tokio::time::timeout(DEADLINE, receiver.recv()).await.expect("in time").expect("open")
}

/// Waits until the broker has taken everything that this connection sent before.
async fn round_trip(bus: &Bus) {
    assert!(bus.jetstream().get_stream("none").await.is_err());
}

async fn publish(bus: &Bus, spec: StreamSpec, id: &str) -> u64 {
    let subject = format!("{}.x", spec.name);
    bus.publish_fact(spec.name, &subject, id, Bytes::from(id.to_owned())).await.unwrap()
}

async fn a_fact_is_stored_once_and_followed_in_order(stack: Stack) {
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    let spec = stream(false);
    bus.ensure_stream(spec).await.unwrap();
    bus.ensure_stream(spec).await.expect("idempotent");
    assert_eq!(publish(&bus, spec, "a").await, 1);
    assert_eq!(publish(&bus, spec, "b").await, 2);
    assert_eq!(publish(&bus, spec, "a").await, 1, "the same fact again is the same message");
    let elsewhere = bus.publish_fact("another_stream", &format!("{}.x", spec.name), "c", Bytes::new()).await;
    assert!(elsewhere.is_err(), "a fact never lands in another stream");

    let (sender, mut received) = mpsc::unbounded_channel();
    bus.follow(ctx, spec, move |facts| {
        for (subject, payload) in facts {
            sender.send((subject, String::from_utf8(payload.to_vec()).unwrap())).unwrap();
        }
        async { Ok(()) }
    })
    .await
    .unwrap();
    for i in 0..300 {
        publish(&bus, spec, &format!("n{i}")).await;
    }
    let mut seen = Vec::new();
    while seen.len() < 302 {
        let (subject, payload) = next(&mut received).await;
        assert_eq!(subject, format!("{}.x", spec.name));
        seen.push(payload);
    }
    let expected: Vec<String> =
        ["a".to_owned(), "b".to_owned()].into_iter().chain((0..300).map(|i| format!("n{i}"))).collect();
    assert_eq!(seen, expected);
    remove(stack, &bus, spec).await;
}

async fn facts_whose_effect_failed_come_again(stack: Stack) {
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    let spec = stream(false);
    bus.ensure_stream(spec).await.unwrap();
    publish(&bus, spec, "a").await;
    let failures = Arc::new(AtomicU32::new(0));
    let (sender, mut received) = mpsc::unbounded_channel();
    let counter = Arc::clone(&failures);
    bus.follow(ctx, spec, move |facts| {
        let fail = counter.fetch_add(1, Ordering::SeqCst) < 2;
        for (_, payload) in &facts {
            sender.send((payload.clone(), fail)).unwrap();
        }
        async move { if fail { Err(Error::unavailable("the database is away")) } else { Ok(()) } }
    })
    .await
    .unwrap();
    let mut tries = Vec::new();
    while tries.last().is_none_or(|(_, failed)| *failed) {
        tries.push(next(&mut received).await);
    }
    assert_eq!(
        tries.iter().map(|(p, failed)| (&p[..], *failed)).collect::<Vec<_>>(),
        [(&b"a"[..], true), (&b"a"[..], true), (&b"a"[..], false)]
    );
    publish(&bus, spec, "b").await;
    assert_eq!(next(&mut received).await.0, "b", "what was applied does not come again");
    remove(stack, &bus, spec).await;
}

async fn core_messages_reach_who_listens(stack: Stack) {
    let bus = stack.running.context.bus().await.unwrap();
    let other = stack.running.context.bus().await.unwrap();
    let random = uuid::Uuid::new_v4().simple();
    bus.publish(format!("market.book.{random}"), Bytes::from_static(b"nobody"))
        .await
        .expect("nobody must listen");
    round_trip(&bus).await;
    let mut subscription = other.subscribe(format!("market.*.{random}")).await.unwrap();
    round_trip(&other).await;
    bus.publish(format!("market.book.{random}"), Bytes::from_static(b"image")).await.unwrap();
    let message = tokio::time::timeout(DEADLINE, subscription.next()).await.unwrap().unwrap();
    assert_eq!(
        (message.subject.to_string(), &message.payload[..]),
        (format!("market.book.{random}"), &b"image"[..])
    );
    stack.stop().await;
}

async fn a_stream_of_states_keeps_the_newest_of_each_subject(stack: Stack) {
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    let spec = stream(true);
    bus.ensure_stream(spec).await.unwrap();
    for id in ["old", "older", "newest"] {
        publish(&bus, spec, id).await;
    }
    let (sender, mut received) = mpsc::unbounded_channel();
    bus.follow(ctx, spec, move |facts| {
        for (_, payload) in facts {
            sender.send(payload).unwrap();
        }
        async { Ok(()) }
    })
    .await
    .unwrap();
    assert_eq!(next(&mut received).await, "newest");
    remove(stack, &bus, spec).await;
}

async fn a_stream_that_the_broker_lost_is_made_again_by_its_owner(stack: Stack) {
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    let spec = stream(false);
    bus.keep_stream(ctx, spec).await.unwrap();
    bus.jetstream().delete_stream(spec.name).await.unwrap();
    // Who comes then waits for it.
    let (sender, mut received) = mpsc::unbounded_channel();
    let following = bus.follow(ctx, spec, move |facts| {
        for (_, payload) in facts {
            sender.send(payload).unwrap();
        }
        async { Ok(()) }
    });
    tokio::time::timeout(DEADLINE, following).await.expect("in time").unwrap();
    assert_eq!(publish(&bus, spec, "a").await, 1);
    assert_eq!(next(&mut received).await, "a");
    stack.running.tasks.shutdown().cancel();
    assert!(stack.running.tasks.drain().await, "nobody keeps it any more");
    remove(stack, &bus, spec).await;
}

/// A session as the broker is told of it.
fn session(n: u128) -> SessionId {
    SessionId::new(uuid::Uuid::from_u128(n))
}

/// Tells the broker of sessions, as a gateway does.
async fn tell(bus: &Bus, what: &str, sessions: &[SessionId]) {
    let text = sessions.iter().fold(what.to_owned(), |text, session| format!("{text} {session}"));
    let told = async {
        // Who does it may not listen yet.
        while bus.client().request(subject::GUESTS, text.clone().into()).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.unwrap();
}

/// Signs in to watch the market with a session's password; what the server says meanwhile goes to `refusals`.
async fn watch(
    stack: &Stack,
    session: SessionId,
    password_of: SessionId,
    refusals: &mpsc::UnboundedSender<String>,
) -> Result<async_nats::Client, async_nats::ConnectError> {
    let ctx = &stack.running.context;
    let key = ctx.secrets.nats_sessions.current();
    let password = market_login(&key, password_of).1.expose().to_owned();
    let sender = refusals.clone();
    let options = async_nats::ConnectOptions::with_user_and_password(market_login(&key, session).0, password)
        .max_reconnects(1)
        .event_callback(move |event| {
            let sender = sender.clone();
            async move {
                match event {
                    async_nats::Event::ServerError(e) => drop(sender.send(e.to_string().to_lowercase())),
                    async_nats::Event::Disconnected => drop(sender.send("disconnected".to_owned())),
                    _ => {}
                }
            }
        });
    tokio::time::timeout(DEADLINE, options.connect(&ctx.addresses["nats"])).await.expect("in time")
}

#[tokio::test]
async fn a_session_watches_market_data_and_does_nothing_else() {
    let stack = embedded().await;
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    let (sender, mut refusals) = mpsc::unbounded_channel();
    tell(&bus, subject::GUESTS_ADMIT, &[session(1)]).await;
    let market = watch(&stack, session(1), session(1), &sender).await.unwrap();
    let mut books = market.subscribe("market.book.*").await.unwrap();
    // Every other subject of the bus, what answers and acks pass on, and patterns that would take in more.
    let others = [
        subject::USERS,
        subject::FACTS,
        subject::INSTRUMENTS,
        subject::GUESTS,
        "_INBOX.>",
        "_INBOX.*",
        "_INBOX.a.b",
        "$JS.API.>",
        "$JS.ACK.>",
        "$JS.>",
        "$SYS.>",
        "$KV.>",
        ">",
        "*",
        "*.>",
        "*.book.AAPL",
        "MARKET.>",
        "market",
    ];
    for forbidden in others {
        let _subscription = market.subscribe(forbidden).await.unwrap();
        market.flush().await.unwrap();
        let refusal = next(&mut refusals).await;
        assert!(refusal.contains("permissions violation"), "{forbidden}: {refusal}");
    }
    // The broker answers in order: by now it knows of the first subscription.
    bus.publish("market.book.AAPL".into(), Bytes::from_static(b"image")).await.unwrap();
    let image = tokio::time::timeout(DEADLINE, books.next()).await.unwrap().unwrap();
    assert_eq!(&image.payload[..], b"image");
    let mut heard = bus.subscribe("market.>".into()).await.unwrap();
    market.publish("market.book.AAPL", Bytes::from_static(b"forged")).await.unwrap();
    market.flush().await.unwrap();
    assert!(next(&mut refusals).await.contains("permissions violation"));
    market.publish(subject::GUESTS, "admit ff9fe8c1-d6bf-4a39-a89e-3c6dbec82819".into()).await.unwrap();
    market.flush().await.unwrap();
    assert!(next(&mut refusals).await.contains("permissions violation"));
    bus.publish("market.book.AAPL".into(), Bytes::from_static(b"genuine")).await.unwrap();
    let message = tokio::time::timeout(DEADLINE, heard.next()).await.unwrap().unwrap();
    assert_eq!(&message.payload[..], b"genuine");
    drop(market);
    stack.stop().await;
}

/// Every subject of the contract, as its file has them.
fn subjects() -> Vec<&'static str> {
    let text = include_str!("../../../../proto/src/subject.rs");
    let constants = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.strip_suffix("\";"));
    let subjects = constants.filter_map(|line| Some(line.split_once(": &str = \"")?.1));
    // Names of streams, of headers and of what is asked are no subjects.
    let other =
        [subject::USERS_STREAM, subject::INSTRUMENTS_STREAM, subject::GUESTS_ADMIT, subject::GUESTS_DISMISS];
    subjects.filter(|text| !other.contains(text) && !text.starts_with("Fafnir-")).collect()
}

#[tokio::test]
async fn every_subject_is_the_services_and_market_data_alone_a_sessions() {
    let stack = embedded().await;
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    tell(&bus, subject::GUESTS_ADMIT, &[session(1)]).await;
    let (user, password) = market_login(&ctx.secrets.nats_sessions.current(), session(1));
    let pass = password.expose();
    let address = ctx.addresses["nats"].split_once("://").unwrap().1;
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut lines = tokio::io::BufReader::new(socket);
    let mut may = async |line: String| {
        lines.get_mut().write_all(format!("{line}\r\nPING\r\n").as_bytes()).await.unwrap();
        let mut said = String::new();
        while !said.ends_with("PONG\r\n") {
            let read = tokio::time::timeout(DEADLINE, lines.read_line(&mut said)).await.unwrap().unwrap();
            assert!(read > 0, "{line}: {said}");
        }
        assert!(!said.contains("-ERR") || said.contains("Permissions Violation"), "{line}: {said}");
        !said.contains("-ERR")
    };
    assert!(may(format!("CONNECT {{\"user\":\"{user}\",\"pass\":\"{pass}\"}}")).await);
    let mut matrix = format!("{:<20}{:>10}{:>10}\n", "session", "publish", "subscribe");
    for subject in subjects() {
        let publish = may(format!("PUB {} 0\r\n", subject.replace(['*', '>'], "X"))).await;
        let subscribe = may(format!("SUB {subject} 1")).await;
        let word = |may| if may { "yes" } else { "-" };
        matrix.push_str(&format!("{subject:<20}{:>10}{:>10}\n", word(publish), word(subscribe)));
    }
    insta::assert_snapshot!("nats_permission_matrix", matrix);
    stack.stop().await;
}

#[tokio::test]
async fn a_sessions_credential_is_its_own_and_ends_with_it() {
    let stack = embedded().await;
    let ctx = &stack.running.context;
    let bus = ctx.bus().await.unwrap();
    let (sender, mut events) = mpsc::unbounded_channel();
    tell(&bus, subject::GUESTS_ADMIT, &[session(1), session(2)]).await;
    let one = watch(&stack, session(1), session(1), &sender).await.unwrap();
    let two = watch(&stack, session(2), session(2), &mpsc::unbounded_channel().0).await.unwrap();
    // Neither another's password, nor a session that nobody has let in, nor the services without theirs.
    assert!(watch(&stack, session(1), session(2), &sender).await.is_err());
    assert!(watch(&stack, session(3), session(3), &sender).await.is_err());
    for password in ["", "wrong"] {
        let options = async_nats::ConnectOptions::new().user_and_password("services".into(), password.into());
        assert!(options.connect(&ctx.addresses["nats"]).await.is_err());
    }
    assert!(async_nats::connect(&ctx.addresses["nats"]).await.is_err());

    tell(&bus, subject::GUESTS_DISMISS, &[session(1)]).await;
    while next(&mut events).await != "disconnected" {}
    assert!(watch(&stack, session(1), session(1), &sender).await.is_err());
    two.flush().await.expect("the other goes on");
    tell(&bus, subject::GUESTS_ADMIT, &[session(1)]).await;
    assert!(watch(&stack, session(1), session(1), &sender).await.is_ok(), "let in again");
    drop((one, two));
    stack.stop().await;
}
