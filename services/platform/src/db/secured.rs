//! How a connection to Postgres is secured: `sslmode` and `sslrootcert` of its URL, as libpq words them.

use super::Error;
use fafnir_tls::{Check, Trust};
use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use tokio_postgres::{Client, Config, Connection, Socket, config::SslMode, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

const SSLMODE: &str = "sslmode";
const SSLROOTCERT: &str = "sslrootcert";
/// What would end a value in the query of a URL, or be read as an escape.
const OF_A_VALUE: &AsciiSet = &CONTROLS.add(b'%').add(b'&').add(b'?').add(b'#');

/// What drives a connection.
pub type Driver = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Where a server is, as whom, and how the connection to it is secured.
#[derive(Clone)]
pub struct Server {
    pub config: Config,
    pub tls: MakeRustlsConnect,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("hosts", &self.config.get_hosts()).finish_non_exhaustive()
    }
}

/// Takes what is libpq's about TLS out of the query of a URL: the rest, `sslmode`, `sslrootcert`.
fn split(url: &str) -> (String, Option<String>, Option<String>) {
    let Some((base, query)) = url.split_once('?') else { return (url.to_owned(), None, None) };
    let (mut mode, mut root, mut rest) = (None, None, Vec::new());
    for part in query.split('&') {
        match part.split_once('=') {
            Some((SSLMODE, value)) => mode = Some(value.to_owned()),
            Some((SSLROOTCERT, value)) => {
                root = Some(percent_decode_str(value).decode_utf8_lossy().into_owned());
            }
            _ => rest.push(part),
        }
    }
    let query = rest.join("&");
    (if query.is_empty() { base.to_owned() } else { format!("{base}?{query}") }, mode, root)
}

/// The URL with the authority in it, where it names none and `authority` is one.
pub fn with_authority(url: &str, authority: &str) -> String {
    let (_, _, root) = split(url);
    if url.is_empty() || authority.is_empty() || root.is_some() {
        return url.to_owned();
    }
    let escaped = utf8_percent_encode(authority, OF_A_VALUE);
    format!("{url}{}{SSLROOTCERT}={escaped}", if url.contains('?') { '&' } else { '?' })
}

impl Server {
    /// Reads a URL. Without `sslmode` it is `prefer`: TLS where the server has it, and nobody's word checked.
    pub fn parse(url: &str) -> Result<Self, Error> {
        let unusable = |why: String| Error::Statement(format!("database.url: {why}"));
        let (url, mode, root) = split(url);
        let trust = match root.as_deref() {
            None | Some("system") => Trust::System,
            Some(path) => Trust::Authority(path.into()),
        };
        let (mode, check) = match (mode.as_deref().unwrap_or("prefer"), &trust) {
            ("disable", _) => (SslMode::Disable, Check::Nothing),
            ("prefer", _) => (SslMode::Prefer, Check::Nothing),
            // As libpq: an authority that is named is looked at.
            ("require", Trust::System) => (SslMode::Require, Check::Nothing),
            ("require" | "verify-ca", _) => (SslMode::Require, Check::Authority),
            ("verify-full", _) => (SslMode::Require, Check::Full),
            (other, _) => {
                let modes = "disable, prefer, require, verify-ca or verify-full";
                return Err(unusable(format!("sslmode must be {modes}, not {other:?}")));
            }
        };
        let mut config: Config = url.parse().map_err(|e| unusable(super::postgres::redacted(&e)))?;
        config.ssl_mode(mode);
        let tls = fafnir_tls::Client::checking(trust, check, None).and_then(|client| client.config());
        let tls = tls.map_err(|e| unusable(e.to_string()))?;
        Ok(Self { config, tls: MakeRustlsConnect::new((*tls).clone()) })
    }

    /// Connects; the connection is the caller's to drive.
    pub async fn connect(&self) -> Result<(Client, Driver), tokio_postgres::Error> {
        self.config.connect(self.tls.clone()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_libpqs_is_taken_out_of_the_url() {
        let case = |url: &str| split(url);
        assert_eq!(case("postgres://h/"), ("postgres://h/".into(), None, None));
        let (rest, mode, root) =
            case("postgres://u:p@h:1/d?sslmode=verify-full&connect_timeout=3&sslrootcert=/a%20b.pem");
        assert_eq!(rest, "postgres://u:p@h:1/d?connect_timeout=3");
        assert_eq!((mode.as_deref(), root.as_deref()), (Some("verify-full"), Some("/a b.pem")));
    }

    #[test]
    fn the_modes_are_libpqs() {
        let mode = |query: &str| {
            Server::parse(&format!("postgres://u:p@127.0.0.1/?{query}")).map(|s| s.config.get_ssl_mode())
        };
        assert_eq!(mode("").unwrap(), SslMode::Prefer);
        assert_eq!(mode("sslmode=disable").unwrap(), SslMode::Disable);
        assert_eq!(mode("sslmode=require").unwrap(), SslMode::Require);
        let refused = mode("sslmode=strict").unwrap_err().to_string();
        assert!(refused.contains("disable, prefer, require, verify-ca or verify-full"), "{refused}");
        let missing = mode("sslmode=verify-full&sslrootcert=/not/there.pem").unwrap_err().to_string();
        assert!(missing.contains("/not/there.pem") && !missing.contains("u:p"), "{missing}");
    }

    #[test]
    fn an_authority_of_the_settings_stands_behind_one_of_the_url() {
        assert_eq!(with_authority("", "/ca.pem"), "");
        assert_eq!(with_authority("postgres://h/", "/ca.pem"), "postgres://h/?sslrootcert=/ca.pem");
        assert_eq!(
            with_authority("postgres://h/?sslmode=require", "/c"),
            "postgres://h/?sslmode=require&sslrootcert=/c"
        );
        let own = "postgres://h/?sslrootcert=/own.pem";
        assert_eq!(with_authority(own, "/ca.pem"), own);
    }
}
