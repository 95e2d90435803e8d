//! A client's side: whom it believes, what it shows, and the connector for HTTP.

use super::{Error, Files, Stream, Trust, provider, sentence::sentence, watched::Watched};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::{
    fmt,
    future::Future,
    io,
    path::Path,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};
use tokio::{io::AsyncBufReadExt as _, net::TcpStream, time::timeout};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        CertificateError, ClientConfig, DigitallySignedStruct, SignatureScheme,
        client::{
            ResolvesClientCert, Resumption, WebPkiServerVerifier,
            danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        },
        crypto::{verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
        sign::CertifiedKey,
    },
};

/// Time for a connection and its handshake.
const CONNECT_TIME: Duration = Duration::from_secs(5);
/// Of it, for a server to say that it takes the caller.
const VERDICT_TIME: Duration = Duration::from_secs(1);

/// How far a server's certificate is looked at, as `sslmode` of libpq has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Check {
    /// Signed by whom is believed, and of the name that was asked for.
    #[default]
    Full,
    /// Signed by whom is believed.
    Authority,
    /// Not at all: nobody listens, but anybody may answer.
    Nothing,
}

/// How a client secures its connections. Cheap to clone.
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    trust: Trust,
    check: Check,
    shows: Option<Arc<Watched<CertifiedKey>>>,
    /// Made at the first use: the system's authorities are some hundred files.
    config: OnceLock<Result<Arc<ClientConfig>, Error>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("trust", &self.0.trust)
            .field("check", &self.0.check)
            .finish_non_exhaustive()
    }
}

impl Default for Client {
    /// Believes the authorities of this machine, and shows nothing.
    fn default() -> Self {
        Self::made(Trust::System, Check::Full, None)
    }
}

impl Client {
    fn made(trust: Trust, check: Check, shows: Option<Arc<Watched<CertifiedKey>>>) -> Self {
        Self(Arc::new(Inner { trust, check, shows, config: OnceLock::new() }))
    }

    /// A client that believes `trust`, and shows a certificate where it has one. Files are read here, but for the
    /// system's authorities.
    pub fn open(trust: Trust, shows: Option<&Files>) -> Result<Self, Error> {
        Self::checking(trust, Check::Full, shows)
    }

    /// The same, that looks at the server's certificate so far.
    pub fn checking(trust: Trust, check: Check, shows: Option<&Files>) -> Result<Self, Error> {
        let shows = match shows {
            None => None,
            Some(files) => {
                let own = files.clone();
                let paths = vec![files.certificate.clone(), files.key.clone()];
                Some(Arc::new(Watched::open(paths, move || own.load())?))
            }
        };
        let is_file = matches!(trust, Trust::Authority(_)) && check != Check::Nothing;
        let client = Self::made(trust, check, shows);
        if is_file {
            client.config()?;
        }
        Ok(client)
    }

    /// Whether it believes an authority of its own, and not those of this machine.
    pub fn is_private(&self) -> bool {
        matches!(self.0.trust, Trust::Authority(_))
    }

    /// For libraries that take rustls's own: whom it believes and what it shows are of each handshake's moment.
    pub fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        self.0.config.get_or_init(|| self.0.make().map(Arc::new)).clone()
    }

    /// Connects to a host, and secures the connection where `secured`.
    pub async fn connect(&self, host: &str, port: u16, secured: bool) -> io::Result<Stream> {
        self.speaking(host, port, secured, false).await
    }

    async fn speaking(&self, host: &str, port: u16, secured: bool, http2: bool) -> io::Result<Stream> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let stream = TcpStream::connect((bare, port)).await?;
        stream.set_nodelay(true)?;
        if !secured {
            return Ok(Stream::Plain(stream));
        }
        let refused = |why: String| io::Error::other(Refused { host: format!("{host}:{port}"), why });
        let mut config = self.config().map_err(|e| refused(e.to_string()))?;
        if http2 {
            Arc::make_mut(&mut config).alpn_protocols = vec![b"h2".to_vec()];
        }
        let name = ServerName::try_from(bare.to_owned()).map_err(|e| refused(e.to_string()))?;
        let connected = async {
            let mut secured = TlsConnector::from(config).connect(name, stream).await?;
            // A server judges our certificate when our part of the handshake is over: a request that was sent meanwhile
            // would fail without a word. HTTP/2 begins with the server's settings; one that waits for ours is let be.
            if http2 && let Ok(first) = timeout(VERDICT_TIME, secured.fill_buf()).await {
                first?;
            }
            io::Result::Ok(Stream::Secured(Box::new(secured.into())))
        };
        connected.await.map_err(|e| match sentence(&e) {
            Some(why) => refused(why),
            None => e,
        })
    }

    /// The connector for HTTP: `https` is secured, `http` is not.
    pub fn connector(&self) -> Connector {
        Connector { client: self.clone(), http2: false }
    }
}

impl Inner {
    fn make(&self) -> Result<ClientConfig, Error> {
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::of(Path::new("its TLS"), e))?
            .dangerous();
        let believed = match self.check {
            Check::Nothing => None,
            Check::Full | Check::Authority => {
                let trust = self.trust.clone();
                let paths = trust.paths();
                let load = move || {
                    let verifier =
                        WebPkiServerVerifier::builder_with_provider(Arc::new(trust.load()?), provider())
                            .build();
                    verifier.map_err(|e| match &trust {
                        Trust::Authority(path) => Error::of(path, e),
                        Trust::System => Error::of(Path::new("$SSL_CERT_FILE"), e),
                    })
                };
                Some(Watched::open(paths, load)?)
            }
        };
        let verifier = Believed { check: self.check, verifier: believed };
        let builder = builder.with_custom_certificate_verifier(Arc::new(verifier));
        let mut config = match &self.shows {
            Some(shows) => builder.with_client_cert_resolver(Arc::new(Shown(Arc::clone(shows)))),
            None => builder.with_no_client_auth(),
        };
        // A resumed session would not be judged again.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The certificate of now.
#[derive(Debug)]
struct Shown(Arc<Watched<CertifiedKey>>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.current())
    }
    fn has_certs(&self) -> bool {
        true
    }
}

/// Judges servers by the authority of now.
#[derive(Debug)]
struct Believed {
    check: Check,
    verifier: Option<Watched<Arc<WebPkiServerVerifier>>>,
}

impl ServerCertVerifier for Believed {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, tokio_rustls::rustls::Error> {
        let Some(verifier) = &self.verifier else { return Ok(ServerCertVerified::assertion()) };
        let judged =
            verifier.current().verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        match judged {
            // The name is looked at last: all else is as it should be.
            Err(tokio_rustls::rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if self.check == Check::Authority => Ok(ServerCertVerified::assertion()),
            judged => judged,
        }
    }
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls12_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }
    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, tokio_rustls::rustls::Error> {
        verify_tls13_signature(message, cert, dss, &provider().signature_verification_algorithms)
    }
    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A server that was reached and is not believed, or does not speak TLS. One sentence.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{host}: {why}")]
pub struct Refused {
    pub host: String,
    pub why: String,
}

/// Connects for HTTP.
#[derive(Debug, Clone)]
pub struct Connector {
    client: Client,
    http2: bool,
}

impl Connector {
    /// For who speaks HTTP/2 alone, as gRPC does.
    #[must_use]
    pub fn http2(self) -> Self {
        Self { http2: true, ..self }
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<TokioIo<Stream>>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let this = self.clone();
        Box::pin(async move {
            let secured = uri.scheme_str() == Some("https");
            let host = uri.host().ok_or_else(|| io::Error::other("the address names no host"))?;
            let port = uri.port_u16().unwrap_or(if secured { 443 } else { 80 });
            let connected = this.client.speaking(host, port, secured, this.http2);
            match timeout(CONNECT_TIME, connected).await {
                Ok(connected) => connected.map(TokioIo::new),
                Err(_) => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}
