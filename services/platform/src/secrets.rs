//! Secrets: from the environment, or files that the first run generates with mode 0600.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use fafnir_proto::id::SessionId;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes of entropy in a generated secret.
const SECRET_BYTES: usize = 32;
/// A configured secret shorter than this is refused.
pub const SECRET_LEN_MIN: usize = 16;

/// A text that never appears in a log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("****")
    }
}

/// The secrets that the services share.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Carried by every internal gRPC call.
    pub service_token: Secret,
    /// Password of the NATS user `services`.
    pub nats_services: Secret,
    /// Password of the one NATS user `market` where sessions have no credentials of their own: it is handed to everybody.
    pub nats_market: Secret,
    /// Key of the passwords with which sessions sign in to watch `market.>`, and of the answers to nats-server's callout.
    pub nats_sessions: Secret,
    /// Ed25519 key that signs access tokens, PKCS#8. auth-service alone uses it.
    pub jwt_key_pkcs8: Vec<u8>,
    /// Key of the HMAC that binds a CSRF token to its session.
    pub csrf_key: Secret,
}

impl Secrets {
    /// Reads `dir`, creating what is missing. An environment variable `FAFNIR_SECRET_<NAME>` wins over the file.
    pub fn load_or_create(dir: &Path) -> io::Result<Self> {
        create_private_dir(dir)?;
        Ok(Self {
            service_token: text(dir, "service_token")?,
            nats_services: text(dir, "nats_services")?,
            nats_market: text(dir, "nats_market")?,
            nats_sessions: text(dir, "nats_sessions")?,
            jwt_key_pkcs8: jwt_key(dir)?,
            csrf_key: text(dir, "csrf_key")?,
        })
    }
}

/// Bits that a secret must have in production: 32 bytes.
const STRONG_BITS: usize = 256;
/// What stands in secrets that somebody meant to replace, lower case.
const PLACEHOLDERS: [&str; 9] = [
    "changeme",
    "change-me",
    "change_me",
    "replace",
    "placeholder",
    "example",
    "password",
    "default",
    "fafnir",
];

impl Secrets {
    /// Refuses placeholders and secrets of less than 32 bytes of entropy; names the first that is too weak.
    pub fn check_strength(&self) -> Result<(), String> {
        let all = [
            ("service_token", &self.service_token),
            ("nats_services", &self.nats_services),
            ("nats_market", &self.nats_market),
            ("nats_sessions", &self.nats_sessions),
            ("csrf_key", &self.csrf_key),
        ];
        match all.into_iter().find(|(_, secret)| !is_strong(secret.expose())) {
            None => Ok(()),
            Some((name, _)) => Err(format!(
                "the secret {name} is a placeholder or has less than 32 bytes of entropy, which production mode does not \
                 take; make one with `openssl rand -hex 32`"
            )),
        }
    }
}

/// Whether a text can have 32 bytes of entropy: long enough for its alphabet, no repetition, no placeholder. It cannot be
/// measured; this is what no random text fails and what people type does.
fn is_strong(text: &str) -> bool {
    let lower = text.to_lowercase();
    if PLACEHOLDERS.iter().any(|word| lower.contains(word)) {
        return false;
    }
    let bytes = text.as_bytes();
    let hex = bytes.iter().filter(|b| b.is_ascii_hexdigit()).count();
    // Hexadecimal digits, also behind a prefix, have 4 bits each; base64 has 6.
    let bits_each = if hex * 10 >= bytes.len() * 8 { 4 } else { 6 };
    let distinct = bytes.iter().collect::<std::collections::BTreeSet<_>>().len();
    let repeats = (1..=bytes.len() / 2).any(|n| bytes.iter().skip(n).zip(bytes).all(|(a, b)| a == b));
    // Of 64 random hexadecimal digits all but never fewer than 10 differ.
    bytes.len() * bits_each >= STRONG_BITS && distinct >= 10 && !repeats
}

/// The password with which a session watches market data: the same every time, of no use to another.
pub fn market_password(nats_sessions: &Secret, session: SessionId) -> Secret {
    let message = [b"market:".as_slice(), session.uuid().as_bytes()].concat();
    Secret(URL_SAFE_NO_PAD.encode(derived(nats_sessions, &message)))
}

/// Seed of the Ed25519 key with which nats-server's auth callout is answered: every gateway has the same.
pub fn callout_seed(nats_sessions: &Secret) -> hmac::Tag {
    derived(nats_sessions, b"callout")
}

fn derived(key: &Secret, purpose: &[u8]) -> hmac::Tag {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key.expose().as_bytes()), purpose)
}

/// The secret of this name alone; creates it when it is missing.
pub fn secret(dir: &Path, name: &str) -> io::Result<Secret> {
    create_private_dir(dir)?;
    text(dir, name)
}

/// Fresh randomness.
pub fn random_bytes(bytes: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; bytes];
    SystemRandom::new().fill(&mut buffer).map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(buffer)
}

/// Fresh randomness as URL-safe text of `bytes` bytes of entropy.
pub fn random_text(bytes: usize) -> io::Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes(bytes)?))
}

/// Compares without telling by the time how much agrees.
pub fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let differing = a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y));
    a.len() == b.len() && differing == 0
}

/// Creates a directory that only its owner can enter.
pub fn create_private_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

fn text(dir: &Path, name: &str) -> io::Result<Secret> {
    if let Ok(value) = std::env::var(format!("FAFNIR_SECRET_{}", name.to_uppercase())) {
        if value.len() < SECRET_LEN_MIN {
            let message = format!(
                "FAFNIR_SECRET_{} must have at least {SECRET_LEN_MIN} characters",
                name.to_uppercase()
            );
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        return Ok(Secret(value));
    }
    let bytes = file(dir, name, || Ok(random_text(SECRET_BYTES)?.into_bytes()))?;
    let text = String::from_utf8(bytes).map_err(|_| damaged(dir, name))?;
    let text = text.trim().to_owned();
    if text.len() < SECRET_LEN_MIN { Err(damaged(dir, name)) } else { Ok(Secret(text)) }
}

fn jwt_key(dir: &Path) -> io::Result<Vec<u8>> {
    if let Ok(value) = std::env::var("FAFNIR_SECRET_JWT_KEY") {
        return base64::engine::general_purpose::STANDARD.decode(value.trim()).map_err(|_| {
            io::Error::new(
                io::ErrorKind::InvalidInput,
                "FAFNIR_SECRET_JWT_KEY must be an Ed25519 PKCS#8 key in base64",
            )
        });
    }
    file(dir, "jwt_ed25519.pk8", || {
        let key = ring::signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
            .map_err(|_| io::Error::other("the system has no randomness"))?;
        Ok(key.as_ref().to_vec())
    })
}

/// Reads a file, or creates it whole (temporary name, fsync, link): two processes that start at once agree on one.
fn file(dir: &Path, name: &str, make: impl FnOnce() -> io::Result<Vec<u8>>) -> io::Result<Vec<u8>> {
    let path = dir.join(name);
    match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {}
        read => return read.map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display()))),
    }
    let temporary = dir.join(format!(".{name}.{}", random_text(8)?));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
    file.write_all(&make()?)?;
    file.sync_all()?;
    let linked = fs::hard_link(&temporary, &path);
    fs::remove_file(&temporary)?;
    match linked {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
        _ => {}
    }
    fs::File::open(dir)?.sync_all()?;
    fs::read(&path)
}

fn damaged(dir: &Path, name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{} is damaged", dir.join(name).display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn what_people_type_is_not_strong_and_what_is_random_is() {
        for _ in 0..2_000 {
            let base64 = random_text(32).unwrap();
            assert!(is_strong(&base64), "{base64}");
            let hex: String =
                random_bytes(32).unwrap().iter().fold(String::new(), |t, b| t + &format!("{b:02x}"));
            assert!(is_strong(&hex) && is_strong(&format!("s{hex}")), "{hex}");
            // 24 bytes.
            assert!(!is_strong(&base64[..32]) && !is_strong(&format!("s{}", &hex[..48])));
        }
        let random = random_text(64).unwrap();
        for weak in [
            "",
            "hunter2",
            "0123456789abcdef",
            &"a".repeat(200),
            &"0123456789abcdef".repeat(8),
            &"correct horse battery staple ".repeat(3),
            &format!("change-me-{random}"),
            &format!("{random}PASSWORD"),
        ] {
            assert!(!is_strong(weak), "{weak}");
        }
    }

    #[test]
    fn secrets_are_generated_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let first = Secrets::load_or_create(dir.path()).unwrap();
        let again = Secrets::load_or_create(dir.path()).unwrap();
        assert_eq!(first.service_token, again.service_token);
        assert_eq!(first.jwt_key_pkcs8, again.jwt_key_pkcs8);
        assert_ne!(first.nats_market, first.nats_services);
        let (one, two) = (SessionId::new(uuid::Uuid::from_u128(1)), SessionId::new(uuid::Uuid::from_u128(2)));
        let password = |secrets: &Secrets, session| market_password(&secrets.nats_sessions, session);
        assert_eq!(password(&first, one), password(&again, one));
        assert_ne!(password(&first, one), password(&first, two));
        for entry in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(format!("{:?}", first.service_token), "****");
    }
}
