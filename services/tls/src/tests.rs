//! Both ends over loopback, with authorities made here.

use super::{
    Check, Client, Files, SPEAK_TLS, Server, Trust, ends_at,
    make::{self, Authority, Pair},
    refuse_plain, sentence,
};
use std::{fs, path::Path, time::Duration};
use time::OffsetDateTime;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject as _};

const WITHIN: Duration = Duration::from_secs(20);
const HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

struct House {
    dir: tempfile::TempDir,
    authority: Pair,
}

impl House {
    fn new() -> Self {
        let house = Self {
            dir: tempfile::tempdir().unwrap(),
            authority: make::authority("test", now(), 30).unwrap(),
        };
        house.write("ca.crt", &house.authority.certificate);
        house
    }
    fn write(&self, name: &str, text: &str) {
        let new = self.dir.path().join(format!("{name}.new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, self.dir.path().join(name)).unwrap();
    }
    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }
    fn pair(&self, name: &str, hosts: &[&str], from: OffsetDateTime, days: u32) -> Pair {
        let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
        Authority::read(&self.authority).unwrap().sign(name, &hosts, from, days).unwrap()
    }
    /// Puts a certificate in place.
    fn files(&self, name: &str, pair: &Pair) -> Files {
        self.write(&format!("{name}.key"), &pair.key);
        self.write(&format!("{name}.crt"), &pair.certificate);
        Files { certificate: self.path(&format!("{name}.crt")), key: self.path(&format!("{name}.key")) }
    }
    fn good(&self, name: &str) -> Files {
        self.files(name, &self.pair(name, &HOSTS, now(), 1))
    }
    fn trust(&self) -> Trust {
        Trust::Authority(self.path("ca.crt"))
    }
    fn client(&self, shows: Option<&Files>) -> Client {
        Client::open(self.trust(), shows).unwrap()
    }
}

/// Serves one connection after the other: answers whom it took the caller for. The port, and what was said of refusals.
async fn door(server: Server) -> (u16, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (told, refusals) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            match server.accept(stream).await {
                Ok((mut stream, name)) => {
                    let mut asked = [0; 1];
                    if stream.read_exact(&mut asked).await.is_ok() {
                        stream
                            .write_all(format!("hello {}", name.unwrap_or_default()).as_bytes())
                            .await
                            .unwrap();
                        stream.shutdown().await.unwrap();
                    }
                }
                Err(unsecured) => {
                    let why = unsecured.linger().await;
                    // Not every test listens.
                    let _unheard = told.send(sentence(&why).unwrap_or_else(|| why.to_string()));
                }
            }
        }
    });
    (port, refusals)
}

/// What a client hears, or why not.
async fn ask(client: &Client, host: &str, port: u16) -> Result<String, String> {
    let asked = async {
        let mut stream = client.connect(host, port, true).await?;
        // What is under way when the alert comes.
        stream.write_all(&[b'?'; 4096]).await?;
        let mut heard = String::new();
        stream.read_to_string(&mut heard).await?;
        std::io::Result::Ok(heard)
    };
    let asked = tokio::time::timeout(WITHIN, asked).await.expect("in time");
    asked.map_err(|e| sentence(&e).unwrap_or_else(|| e.to_string()))
}

#[tokio::test]
async fn a_caller_is_known_by_its_certificate() {
    let house = House::new();
    let server = Server::open(&house.good("order-service"), Some(house.path("ca.crt"))).unwrap();
    let (port, mut refusals) = door(server).await;
    let caller = house.good("api-gateway");
    assert_eq!(ask(&house.client(Some(&caller)), "127.0.0.1", port).await.unwrap(), "hello api-gateway");

    let none = ask(&house.client(None), "127.0.0.1", port).await.unwrap_err();
    assert!(none.contains("demands a certificate"), "{none}");
    assert!(refusals.recv().await.unwrap().contains("showed no certificate"));

    let other = House::new();
    let foreign = other.good("api-gateway");
    let said = ask(&house.client(Some(&foreign)), "127.0.0.1", port).await.unwrap_err();
    assert!(said.contains("refused our certificate"), "{said}");
    assert!(refusals.recv().await.unwrap().contains("signed by no authority"));

    let old = house.files("old", &house.pair("api-gateway", &HOSTS, now() - time::Duration::days(3), 1));
    let said = ask(&house.client(Some(&old)), "127.0.0.1", port).await.unwrap_err();
    assert!(said.contains("it has ended"), "{said}");
    assert!(refusals.recv().await.unwrap().contains("its certificate ended on "));
}

#[tokio::test]
async fn a_server_is_believed_for_its_authority_its_name_and_its_time() {
    let house = House::new();
    let serve = async |files: &Files| door(Server::open(files, None).unwrap()).await.0;
    let (client, unchecked) =
        (house.client(None), |check| Client::checking(house.trust(), check, None).unwrap());

    let port = serve(&house.good("gateway")).await;
    assert_eq!(ask(&client, "localhost", port).await.unwrap(), "hello ");
    let foreign = House::new().client(None);
    assert!(ask(&foreign, "127.0.0.1", port).await.unwrap_err().contains("signed by no authority"));
    assert!(
        ask(&Client::checking(Trust::System, Check::Nothing, None).unwrap(), "127.0.0.1", port).await.is_ok()
    );

    let named = house.files("named", &house.pair("gateway", &["exchange.example"], now(), 1));
    let port = serve(&named).await;
    let said = ask(&client, "127.0.0.1", port).await.unwrap_err();
    assert!(
        said.contains("is for exchange.example, not for 127.0.0.1") || said.contains("not for 127.0.0.1"),
        "{said}"
    );
    assert!(ask(&unchecked(Check::Authority), "127.0.0.1", port).await.is_ok());

    let old = house.files("old", &house.pair("gateway", &HOSTS, now() - time::Duration::days(3), 1));
    let port = serve(&old).await;
    assert!(ask(&client, "127.0.0.1", port).await.unwrap_err().contains("its certificate ended on "));
    assert!(ask(&unchecked(Check::Authority), "127.0.0.1", port).await.is_err());

    let early = house.files("early", &house.pair("gateway", &HOSTS, now() + time::Duration::days(3), 1));
    let port = serve(&early).await;
    assert!(ask(&client, "127.0.0.1", port).await.unwrap_err().contains("is not valid before "));
}

#[tokio::test]
async fn a_new_certificate_is_shown_from_the_next_handshake_on_and_a_bad_one_never() {
    let house = House::new();
    let files = house.good("gateway");
    let server = Server::open(&files, None).unwrap();
    let first = server.ends_at().unwrap();
    let (port, _) = door(server.clone()).await;
    let client = house.client(None);
    assert!(ask(&client, "127.0.0.1", port).await.is_ok());

    for (name, text) in [
        ("gateway.crt", "nothing of a certificate".to_owned()),
        ("gateway.key", String::new()),
        ("gateway.key", house.pair("gateway", &HOSTS, now(), 1).key),
    ] {
        house.write(name, &text);
        assert!(ask(&client, "127.0.0.1", port).await.is_ok(), "{name}");
        assert_eq!(server.ends_at(), Some(first));
    }
    house.files("gateway", &house.pair("gateway", &HOSTS, now(), 9));
    assert!(ask(&client, "127.0.0.1", port).await.is_ok());
    assert!(server.ends_at().unwrap() > first + 7 * 86_400, "the new one is shown");

    // Another authority: the client believes it as soon as its file is another.
    let other = House::new();
    house.files("gateway", &other.pair("gateway", &HOSTS, now(), 1));
    assert!(ask(&client, "127.0.0.1", port).await.is_err());
    house.write("ca.crt", &other.authority.certificate);
    assert!(ask(&client, "127.0.0.1", port).await.is_ok());
}

#[tokio::test]
async fn a_caller_of_a_former_authority_is_refused_from_the_next_handshake_on() {
    let house = House::new();
    let server = Server::open(&house.good("order-service"), Some(house.path("ca.crt"))).unwrap();
    let (port, _) = door(server).await;
    let caller = house.good("api-gateway");
    house.write("believed.crt", &house.authority.certificate);
    let client = Client::open(Trust::Authority(house.path("believed.crt")), Some(&caller)).unwrap();
    assert!(ask(&client, "127.0.0.1", port).await.is_ok());
    house.write("ca.crt", &House::new().authority.certificate);
    assert!(ask(&client, "127.0.0.1", port).await.is_err());
}

#[tokio::test]
async fn who_speaks_another_language_is_told() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            drop(refuse_plain(stream).await);
        }
    });
    let (settings, request) = ("\0\0\0\x04\0\0\0\0\0", "\0\0\x01\x01\x05\0\0\0\x01\u{2}");
    let preface = format!("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n{settings}");
    for (said, then, heard) in [
        ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", "", "HTTP/1.1 400 "),
        (preface.as_str(), request, "\0\0\0\x04"),
        // One that asks for nothing is told as well.
        (preface.as_str(), "", "\0\0\0\x04"),
    ] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(said.as_bytes()).await.unwrap();
        if !then.is_empty() {
            // Nothing but settings before there is a request.
            let mut first = [0; 9];
            stream.read_exact(&mut first).await.unwrap();
            assert_eq!(first, settings.as_bytes());
            assert_eq!(stream.try_read(&mut first).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        }
        stream.write_all(then.as_bytes()).await.unwrap();
        let mut answer = if then.is_empty() { Vec::new() } else { settings.as_bytes().to_vec() };
        tokio::time::timeout(WITHIN, stream.read_to_end(&mut answer)).await.expect("in time").unwrap();
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(heard) && answer.contains(SPEAK_TLS), "{answer:?}");
    }

    let plain = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = plain.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = plain.accept().await.unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    });
    let said = ask(&House::new().client(None), "127.0.0.1", port).await.unwrap_err();
    assert!(said.contains("does not speak TLS: use http://"), "{said}");
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let house = House::new();
    let good = house.good("gateway");
    let refused = |files: &Files| Server::open(files, None).unwrap_err().to_string();
    let with = |certificate: &Path, key: &Path| Files { certificate: certificate.into(), key: key.into() };
    assert!(refused(&with(Path::new("/not/there.crt"), &good.key)).starts_with("/not/there.crt: "));
    assert!(refused(&with(&good.certificate, &good.certificate)).contains("no private key"));
    assert!(refused(&with(&good.key, &good.key)).contains("no certificate"));
    let other = house.good("other");
    assert!(refused(&with(&good.certificate, &other.key)).contains("is not the key of the certificate in "));
    let foreign = Pair {
        certificate: house.authority.certificate.clone(),
        key: fs::read_to_string(&other.key).unwrap(),
    };
    assert!(Authority::read(&foreign).unwrap_err().to_string().contains("not that of its certificate"));
}

#[test]
fn a_certificate_says_when_it_ends() {
    let house = House::new();
    let pair = house.pair("gateway", &HOSTS, now(), 5);
    let der = CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap();
    let left = ends_at(&der).unwrap() - u64::try_from(now().unix_timestamp()).unwrap();
    assert!((5 * 86_400 - 60..=5 * 86_400).contains(&left), "{left}");
}
