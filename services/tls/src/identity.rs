//! Who a certificate names: a component of the platform, by a SPIFFE id in its subject alternative names.

use super::Error;
use std::path::Path;
use tokio_rustls::rustls::pki_types::CertificateDer;
use webpki::EndEntityCert;
use x509_cert::{Certificate, der::Decode as _};

/// Before the name of a component in the URI of its certificate.
const SPIFFE: &str = "spiffe://fafnir/";

/// The URI that stands for a component in its certificate, such as `spiffe://fafnir/order-service`.
pub fn uri_of(name: &str) -> String {
    format!("{SPIFFE}{name}")
}

/// The component that a certificate names; `None` where it names none, or more than one.
pub fn name_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    let mut names = certificate.valid_uri_names().filter_map(|uri| uri.strip_prefix(SPIFFE));
    let name = names.next()?;
    (names.next().is_none() && !name.is_empty()).then(|| name.to_owned())
}

/// When the first certificate of a PEM file ends, seconds since 1970.
///
/// # Errors
/// Where the file cannot be read.
pub fn file_ends_at(path: &Path) -> Result<u64, Error> {
    let chain = super::certificates(path)?;
    chain.first().and_then(ends_at).ok_or_else(|| Error::of(path, "holds a certificate that cannot be read"))
}

/// When a certificate ends, seconds since 1970; `None` where it cannot be read.
pub fn ends_at(certificate: &CertificateDer<'_>) -> Option<u64> {
    let certificate = Certificate::from_der(certificate).ok()?;
    Some(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}
