//! The HTTP server under clients that hold it up.

use crate::stack::{self as testing, DEADLINE, Stack};
use axum::{Router, extract::ConnectInfo, routing::get};
use fafnir_platform::{
    config,
    http::{Door, HEADER_TIMEOUT, serve_http},
};
use http::Method;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

#[tokio::test]
async fn a_client_that_does_not_say_what_it_wants_is_cut_off_and_others_are_served() {
    let stack = Stack::start(&[]).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/", get(|ConnectInfo(peer): ConnectInfo<SocketAddr>| async move { peer.ip().to_string() }));
    let door = Door::public(&config::Gateway::default()).unwrap();
    serve_http(&stack.running.context, "test", door, listener, router);
    // The preface, settings, and a request's head: without its end, and cut off amid its first frame.
    let settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\u{4}\0\0\0\0\0";
    let endless = format!("{settings}\0\0\u{1}\u{1}\0\0\0\0\u{1}\u{2}");
    let half = format!("{settings}\0\0\u{9}\u{1}\u{4}\0\0\0\u{1}\u{2}");
    let silent = ["", "P", "PRI * HTTP/2.0\r\n", "G", "GET / HTTP/1.1\r\nhost: x\r\n", "\u{16}\u{3}\u{1}"];
    let silent = silent.into_iter().chain([endless.as_str(), half.as_str()]);
    let started = Instant::now();
    let waiting = silent.map(|text| async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // The end of the stream, or a reset.
        drop(tokio::time::timeout(DEADLINE, stream.read_to_end(&mut answer)).await.expect("cut off"));
        (text, String::from_utf8_lossy(&answer).into_owned())
    });
    let waiting = futures::future::join_all(waiting);
    let served = async {
        let mut worst = Duration::ZERO;
        for _ in 0..20 {
            let asked = Instant::now();
            let answer = testing::request(Method::GET, &format!("http://{address}/"), &[], "").await;
            assert_eq!(&answer.body[..], b"127.0.0.1");
            worst = worst.max(asked.elapsed());
        }
        worst
    };
    let (ended, worst) = futures::join!(waiting, served);
    assert!(worst < HEADER_TIMEOUT, "{worst:?}");
    assert!(started.elapsed() < HEADER_TIMEOUT * 3, "{:?}", started.elapsed());
    for (text, answer) in ended {
        assert!(!answer.contains("200 OK"), "{text:?}: {answer}");
    }
    stack.stop().await;
}
