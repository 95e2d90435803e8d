//! A door's side: the handshake, whose certificate the caller showed, and a word for who does not speak TLS.

use super::{Error, Files, Stream, Trust, identity, provider, watched::Watched};
use std::{fmt, io, path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
        client::danger::HandshakeSignatureValid,
        pki_types::{CertificateDer, UnixTime},
        server::{
            ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
            danger::{ClientCertVerified, ClientCertVerifier},
        },
        sign::CertifiedKey,
    },
};

/// What HTTP doors speak, the better one first.
const HTTP: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Of what somebody says who is refused so much is read before the connection ends, and for so long.
const REST_MAX: u64 = 64 << 10;
const REST_TIME: Duration = Duration::from_millis(500);
/// Who speaks HTTP/2 in the clear asks for something within this time, or is told before it does.
const REQUEST_TIME: Duration = Duration::from_secs(2);
/// HTTP/2: settings that change nothing (RFC 9113 §6.5).
const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
/// HTTP/2: how a client begins; the rest of its preface; the head of a frame; the frame that asks for something.
const HTTP2: [u8; 4] = *b"PRI ";
const PREFACE_REST_LEN: usize = 20;
const FRAME_HEAD_LEN: usize = 9;
const HEADERS: u8 = 1;

/// How a door's connections are secured. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Server {
    config: Arc<ServerConfig>,
    shows: Arc<Watched<CertifiedKey>>,
    demands: bool,
}

impl Server {
    /// A door that shows this certificate. Where `callers` is the file of an authority, whoever comes must show a
    /// certificate that it signed.
    pub fn open(files: &Files, callers: Option<PathBuf>) -> Result<Self, Error> {
        let own = files.clone();
        let paths = vec![files.certificate.clone(), files.key.clone()];
        let shows = Arc::new(Watched::open(paths, move || own.load())?);
        let demands = callers.is_some();
        let builder = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::of(&files.certificate, e))?;
        let builder = match callers {
            Some(authority) => builder.with_client_cert_verifier(Arc::new(Callers::open(authority)?)),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Shown(Arc::clone(&shows))));
        if demands {
            // Each handshake is judged by the authority and the times of now.
            config.session_storage = Arc::new(NoServerSessionStorage {});
        }
        Ok(Self { config: Arc::new(config), shows, demands })
    }

    /// The same door, where HTTP is spoken: 2 or 1.1, as the client can.
    #[must_use]
    pub fn http(mut self) -> Self {
        let mut config = ServerConfig::clone(&self.config);
        config.alpn_protocols = HTTP.map(<[u8]>::to_vec).to_vec();
        self.config = Arc::new(config);
        self
    }

    /// Who does the handshakes.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }

    /// Whether callers must show a certificate.
    pub fn demands_certificate(&self) -> bool {
        self.demands
    }

    /// When the certificate that is shown now ends, seconds since 1970.
    pub fn ends_at(&self) -> Option<u64> {
        identity::ends_at(self.shows.current().cert.first()?)
    }

    /// Secures a connection. Answers it, and the component that the caller's certificate names.
    ///
    /// # Errors
    /// Where the handshake fails; the caller has not heard why before [`Unsecured::linger`].
    pub async fn accept(&self, stream: TcpStream) -> Result<(Stream, Option<String>), Unsecured> {
        let accepted = self.acceptor().accept(stream).into_fallible().await;
        let secured = accepted.map_err(|(why, stream)| Unsecured { why, stream })?;
        let shown = secured.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let name = shown.and_then(identity::name_of);
        Ok((Stream::Secured(Box::new(secured.into())), name))
    }
}

/// A connection whose handshake failed.
#[derive(Debug)]
pub struct Unsecured {
    pub why: io::Error,
    stream: TcpStream,
}

impl Unsecured {
    /// Has the caller hear why: what it was writing meanwhile is read, so that the alert arrives.
    pub async fn linger(self) -> io::Error {
        // One that is gone needs no word.
        drop(end(self.stream).await);
        self.why
    }
}

/// The certificate of now.
#[derive(Debug)]
struct Shown(Arc<Watched<CertifiedKey>>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
}

/// Judges callers by the authority of now.
struct Callers(Watched<Arc<dyn ClientCertVerifier>>);

impl fmt::Debug for Callers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Callers")
    }
}

impl Callers {
    fn open(authority: PathBuf) -> Result<Self, Error> {
        let paths = vec![authority.clone()];
        let load = move || {
            let roots = Arc::new(Trust::Authority(authority.clone()).load()?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider()).build();
            verifier.map_err(|e| Error::of(&authority, e))
        };
        Ok(Self(Watched::open(paths, load)?))
    }
}

impl ClientCertVerifier for Callers {
    /// None: what is believed may be another authority by the next handshake.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }
    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, tokio_rustls::rustls::Error> {
        self.0.current().verify_client_cert(end_entity, intermediates, now)
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        self.0.current().verify_tls12_signature(message, cert, dss)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        self.0.current().verify_tls13_signature(message, cert, dss)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.current().supported_verify_schemes()
    }
}

/// What a caller is told that does not speak TLS at a door that does.
pub const SPEAK_TLS: &str = "this door speaks TLS: use https:// (wss:// for WebSocket)";

/// Tells a client that speaks HTTP in the clear what to do, as its protocol has it, and ends the connection.
///
/// # Errors
/// Where the client is gone.
pub async fn refuse_plain(mut stream: TcpStream) -> io::Result<()> {
    let mut first = [0; HTTP2.len()];
    let read = timeout(REST_TIME, stream.read_exact(&mut first)).await;
    if read.is_ok_and(|read| read.is_ok()) && first == HTTP2 {
        stream.write_all(&SETTINGS).await?;
        // A goodbye before anything was asked is no answer: the client would connect again.
        drop(timeout(REQUEST_TIME, request(&mut stream)).await);
        stream.write_all(&goodbye()).await?;
    } else {
        let text = format!(
            "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{SPEAK_TLS}\n",
            SPEAK_TLS.len() + 1
        );
        stream.write_all(text.as_bytes()).await?;
    }
    end(stream).await
}

/// Reads the rest of an HTTP/2 client's preface, and its frames up to the head of the first that asks for something.
async fn request(stream: &mut TcpStream) -> io::Result<()> {
    let mut said = stream.take(REST_MAX);
    said.read_exact(&mut [0; PREFACE_REST_LEN]).await?;
    loop {
        let mut head = [0; FRAME_HEAD_LEN];
        said.read_exact(&mut head).await?;
        let [a, b, c, kind, ..] = head;
        if kind == HEADERS {
            return Ok(());
        }
        let length = u32::from_be_bytes([0, a, b, c]).into();
        tokio::io::copy(&mut (&mut said).take(length), &mut tokio::io::sink()).await?;
    }
}

/// Ends a connection whose other end has still to read something: what it says is read for a while, because a
/// connection that ends with unread bytes takes the answer along.
async fn end(mut stream: TcpStream) -> io::Result<()> {
    stream.shutdown().await?;
    let mut rest = stream.take(REST_MAX);
    // Whoever goes on talking is not waited for.
    drop(timeout(REST_TIME, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await);
    Ok(())
}

/// HTTP/2: `GOAWAY` with `INADEQUATE_SECURITY` and the sentence (RFC 9113 §6.8).
fn goodbye() -> Vec<u8> {
    const GOAWAY: u8 = 7;
    const INADEQUATE_SECURITY: u8 = 12;
    let len = SPEAK_TLS.len() as u32 + 8;
    let mut bytes = len.to_be_bytes()[1..].to_vec();
    bytes.extend_from_slice(&[GOAWAY, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&[0, 0, 0, INADEQUATE_SECURITY]);
    bytes.extend_from_slice(SPEAK_TLS.as_bytes());
    bytes
}
