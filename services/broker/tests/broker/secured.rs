//! TLS: what is sent after INFO is secret, and who does not know how is not served.

use crate::support::{certificate, round_trip, soon};
use async_nats::ConnectOptions;
use fafnir_broker::{Config, Tls, User, serve};
use futures::{SinkExt, StreamExt};
use std::sync::Arc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tokio_tungstenite::tungstenite::Message;
use tokio_util::sync::CancellationToken;

#[tokio::test]
async fn clients_and_browsers_use_tls_where_it_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tls) = certificate(dir.path()) else {
        println!("skipped: no openssl here");
        return;
    };
    let (listener, door) =
        (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let (address, websocket) = (listener.local_addr().unwrap(), door.local_addr().unwrap());
    let config = Config {
        users: vec![User::all("a", "secret")],
        tls: Some(tls.clone()),
        websocket: Some(door),
        ..Config::new(dir.path().join("store"))
    };
    let stop = CancellationToken::new();
    let broker = tokio::spawn(serve(listener, config, stop.clone()));

    let options = ConnectOptions::with_user_and_password("a".into(), "secret".into());
    let options = options.add_root_certificates(tls.certificate.clone());
    let client = soon(options.connect(format!("tls://localhost:{}", address.port()))).await.unwrap();
    let mut subscription = client.subscribe("x.>").await.unwrap();
    client.publish("x.1", "hello".repeat(100_000).into()).await.unwrap();
    assert_eq!(soon(subscription.next()).await.unwrap().payload.len(), 500_000);

    // In the clear: told that TLS is required, at first and at last.
    let mut plain = TcpStream::connect(address).await.unwrap();
    let mut seen = vec![0; 4096];
    let count = soon(plain.read(&mut seen)).await.unwrap();
    assert!(String::from_utf8_lossy(&seen[..count]).contains("\"tls_required\":true"));
    plain.write_all(b"CONNECT {\"user\":\"a\",\"pass\":\"secret\"}\r\nPING\r\n").await.unwrap();
    let mut rest = Vec::new();
    let _ = soon(plain.read_to_end(&mut rest)).await;
    assert_eq!(String::from_utf8_lossy(&rest), "-ERR 'Secure Connection - TLS Required'\r\n");

    let secured = soon(connect(&tls, websocket)).await;
    let url = format!("wss://localhost:{}", websocket.port());
    let (mut socket, _) = Box::pin(soon(tokio_tungstenite::client_async(url, secured))).await.unwrap();
    assert!(
        matches!(soon(socket.next()).await, Some(Ok(Message::Binary(info))) if info.starts_with(b"INFO {"))
    );
    let hello = "CONNECT {\"user\":\"a\",\"pass\":\"secret\"}\r\nPING\r\n";
    soon(socket.send(Message::Binary(hello.into()))).await.unwrap();
    assert_eq!(soon(socket.next()).await.unwrap().unwrap(), Message::Binary("PONG\r\n".into()));
    stop.cancel();
    soon(broker).await.unwrap().unwrap();
}

#[tokio::test]
async fn clients_on_this_machine_may_do_without_tls_where_that_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let Some(tls) = certificate(dir.path()) else {
        println!("skipped: no openssl here");
        return;
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = Config {
        users: vec![User::all("a", "secret")],
        tls: Some(Tls { loopback_in_clear: true, ..tls.clone() }),
        ..Config::new(dir.path().join("store"))
    };
    let stop = CancellationToken::new();
    let broker = tokio::spawn(serve(listener, config, stop.clone()));
    let options = || ConnectOptions::with_user_and_password("a".into(), "secret".into());
    let plain = soon(options().connect(format!("nats://127.0.0.1:{port}"))).await.unwrap();
    let info = plain.server_info();
    let secured = options().require_tls(true).add_root_certificates(tls.certificate.clone());
    let secured = soon(secured.connect(format!("nats://localhost:{port}"))).await.unwrap();
    let mut subscription = plain.subscribe("x").await.unwrap();
    round_trip(&plain).await;
    secured.publish("x", "hello".into()).await.unwrap();
    assert_eq!(&*soon(subscription.next()).await.unwrap().payload, b"hello");
    assert!(!info.tls_required);
    stop.cancel();
    soon(broker).await.unwrap().unwrap();
}

async fn connect(tls: &Tls, address: std::net::SocketAddr) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(&tls.certificate).unwrap()).unwrap();
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots).with_no_client_auth();
    let socket = TcpStream::connect(address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.unwrap()
}
