//! TLS for doors and clients: certificates and keys from files, looked at again at every handshake.
//!
//! A file that was replaced is in force from the next handshake on; one that cannot be used leaves what was there before,
//! and is told once. Nothing here has a task or a clock of its own, but for what a certificate's times are held against.

mod client;
mod identity;
pub mod make;
mod sentence;
mod server;
mod stream;
mod watched;

pub use client::{Check, Client, Connector, Refused};
pub use identity::{ends_at, file_ends_at, name_of, uri_of};
pub use sentence::sentence;
pub use server::{SPEAK_TLS, Server, Unsecured, refuse_plain};
pub use stream::Stream;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio_rustls::rustls::{
    RootCertStore,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};

/// How the first message of TLS begins; neither HTTP nor NATS begins so.
pub const FIRST_BYTE: u8 = 0x16;

/// What says that files or an authority cannot be used; one sentence that names the file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {why}", file.display())]
pub struct Error {
    pub file: PathBuf,
    pub why: String,
}

impl Error {
    fn of(file: &Path, why: impl std::fmt::Display) -> Self {
        Self { file: file.to_owned(), why: why.to_string() }
    }
}

/// PEM files of a certificate, with those it is signed by, and its private key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// Whose signature makes a certificate believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trust {
    /// The authorities of this machine (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else the system's own).
    System,
    /// The authorities in a PEM file, and nobody else.
    Authority(PathBuf),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|e| Error::of(path, pem_sentence(&e)))?;
    if chain.is_empty() { Err(Error::of(path, "holds no certificate in PEM")) } else { Ok(chain) }
}

fn pem_sentence(e: &tokio_rustls::rustls::pki_types::pem::Error) -> String {
    use tokio_rustls::rustls::pki_types::pem::Error as Pem;
    match e {
        Pem::Io(e) => e.to_string(),
        Pem::NoItemsFound => "holds no private key in PEM".to_owned(),
        e => format!("is no PEM file: {e}"),
    }
}

impl Files {
    fn load(&self) -> Result<CertifiedKey, Error> {
        let chain = certificates(&self.certificate)?;
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|e| Error::of(&self.key, pem_sentence(&e)))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider()).map_err(|e| {
            use tokio_rustls::rustls::{Error as Tls, InconsistentKeys};
            match e {
                Tls::InconsistentKeys(InconsistentKeys::KeyMismatch) => Error::of(
                    &self.key,
                    format!("is not the key of the certificate in {}", self.certificate.display()),
                ),
                e => Error::of(&self.certificate, format!("cannot be used: {e}")),
            }
        })
    }
}

impl Trust {
    fn load(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        match self {
            Self::System => {
                let found = rustls_native_certs::load_native_certs();
                for error in found.errors {
                    tracing::debug!(%error, "an authority of the system cannot be read");
                }
                roots.add_parsable_certificates(found.certs);
                if roots.is_empty() {
                    let why = "the system has no certificate authorities; name one of your own";
                    return Err(Error::of(Path::new("$SSL_CERT_FILE"), why));
                }
            }
            Self::Authority(path) => {
                for certificate in certificates(path)? {
                    roots.add(certificate).map_err(|e| Error::of(path, e))?;
                }
            }
        }
        Ok(roots)
    }

    fn paths(&self) -> Vec<PathBuf> {
        match self {
            Self::System => Vec::new(),
            Self::Authority(path) => vec![path.clone()],
        }
    }
}

#[cfg(test)]
mod tests;
