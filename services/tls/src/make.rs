//! A private authority, and certificates that it signs: for platforms whose services know one another and nobody else.

use super::identity;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use std::net::IpAddr;
use time::{Duration, OffsetDateTime};
use x509_cert::{
    Certificate,
    der::{DecodePem as _, asn1::ObjectIdentifier},
};

/// RFC 5280, A.1: id-at-commonName.
const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Clocks may differ by this much: what is made is valid a little earlier.
const EARLIER: Duration = Duration::minutes(5);

/// What cannot be made; one sentence.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Error(String);

impl From<rcgen::Error> for Error {
    fn from(e: rcgen::Error) -> Self {
        Self(e.to_string())
    }
}

/// A certificate and its key, in PEM.
#[derive(Debug, Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

/// An authority that signs.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Authority")
    }
}

fn named(common_name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    params
}

fn lasting(mut params: CertificateParams, from: OffsetDateTime, days: u32) -> CertificateParams {
    params.not_before = from - EARLIER;
    params.not_after = from + Duration::days(i64::from(days));
    params
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = named(name);
    // It signs what is at the ends, and no further authority.
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// A new authority of this name, valid from `now` for so many days.
///
/// # Errors
/// Where the system has no randomness.
pub fn authority(name: &str, now: OffsetDateTime, days: u32) -> Result<Pair, Error> {
    let params = lasting(authority_params(name), now, days);
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
}

impl Authority {
    /// Reads one that [`authority`] made.
    ///
    /// # Errors
    /// Where certificate or key cannot be read.
    pub fn read(pair: &Pair) -> Result<Self, Error> {
        let key = KeyPair::from_pem(&pair.key)?;
        let unreadable = |why: &dyn std::fmt::Display| Error(format!("the authority's certificate: {why}"));
        let certificate = Certificate::from_pem(&pair.certificate).map_err(|e| unreadable(&e))?;
        let of = certificate.tbs_certificate;
        if of.subject_public_key_info.subject_public_key.as_bytes() != Some(key.public_key_raw()) {
            return Err(Error("the authority's key is not that of its certificate".into()));
        }
        let name = of.subject.0.iter().flat_map(|names| names.0.iter()).find(|name| name.oid == COMMON_NAME);
        let name = name.and_then(|name| std::str::from_utf8(name.value.value()).ok());
        let name = name.ok_or_else(|| unreadable(&"it has no common name"))?;
        // What it signs names it, and the hash of its key.
        Ok(Self { issuer: Issuer::new(authority_params(name), key) })
    }

    /// A certificate of the component `name` for these hosts (names or addresses), valid from `now` for so many days; it
    /// serves at both ends of a connection.
    ///
    /// # Errors
    /// Where a host is no name.
    pub fn sign(&self, name: &str, hosts: &[String], now: OffsetDateTime, days: u32) -> Result<Pair, Error> {
        let mut params = lasting(named(name), now, days);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        for host in hosts {
            params.subject_alt_names.push(match host.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    host.as_str().try_into().map_err(|_| Error(format!("{host:?} is no host")))?,
                ),
            });
        }
        let uri = identity::uri_of(name);
        let uri =
            uri.as_str().try_into().map_err(|_| Error(format!("{name:?} is no name of a component")))?;
        params.subject_alt_names.push(SanType::URI(uri));
        let key = KeyPair::generate()?;
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(Pair { certificate: certificate.pem(), key: key.serialize_pem() })
    }
}
