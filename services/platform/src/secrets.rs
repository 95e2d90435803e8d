//! Secrets: from the environment, or files that the first run generates with mode 0600.
//!
//! One that several processes share takes the place of another without a moment at which they disagree: beside the secret
//! that is used there may be one that is accepted too (`<name>.also`, `FAFNIR_SECRET_<NAME>_ALSO`), before it is used or
//! after. Files are looked at again every [`LOOK_EVERY`], and at once where what somebody shows is neither.

use super::tasks::{Schedule, Tasks};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use data_encoding::HEXLOWER;
use fafnir_proto::id::SessionId;
use parking_lot::RwLock;
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use std::{
    fmt,
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

/// Bytes of entropy in a generated secret.
const SECRET_BYTES: usize = 32;
/// Bytes of what tells one secret from another; an HMAC-SHA-256 has 32.
const MARK_BYTES: usize = 4;
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

/// How often files are looked at, and the least time between two looks.
pub const LOOK_EVERY: Duration = Duration::from_millis(500);
const LOOK_MIN: Duration = Duration::from_millis(50);
/// What the file of the other one is called.
pub const ALSO: &str = "also";

/// A secret that may be replaced while it is used. Cheap to clone; every clone is the same one.
#[derive(Debug, Clone)]
pub struct Rotating(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Where its files are, and its name; none: it stays as it is.
    source: Option<(PathBuf, &'static str)>,
    state: RwLock<State>,
}

#[derive(Debug)]
struct State {
    current: Secret,
    also: Option<Secret>,
    stamps: [Option<SystemTime>; 2],
    looked: Instant,
}

impl Rotating {
    /// One that stays.
    pub fn fixed(current: Secret) -> Self {
        Self::of(None, current, None)
    }

    fn of(source: Option<(PathBuf, &'static str)>, current: Secret, also: Option<Secret>) -> Self {
        let stamps = source.as_ref().map_or([None; 2], stamps);
        let state = RwLock::new(State { current, also, stamps, looked: Instant::now() });
        Self(Arc::new(Inner { source, state }))
    }

    /// The one that is used.
    pub fn current(&self) -> Secret {
        self.0.state.read().current.clone()
    }

    /// Every one that is accepted, the one that is used first.
    pub fn accepted(&self) -> Vec<Secret> {
        let state = self.0.state.read();
        std::iter::once(state.current.clone()).chain(state.also.clone()).collect()
    }

    /// Whether somebody shows one that is accepted.
    pub fn accepts(&self, given: &[u8]) -> bool {
        let is_known = || {
            let state = self.0.state.read();
            let fits = |secret: &Secret| constant_time_eq(given, secret.expose().as_bytes());
            fits(&state.current) | state.also.as_ref().is_some_and(fits)
        };
        is_known() || (self.look() && is_known())
    }

    /// Looks at the files, at most every [`LOOK_MIN`]; whether something is another now.
    pub fn look(&self) -> bool {
        let Some(source) = &self.0.source else { return false };
        {
            let state = self.0.state.read();
            if state.looked.elapsed() < LOOK_MIN || stamps(source) == state.stamps {
                return false;
            }
        }
        let seen = stamps(source);
        let mut state = self.0.state.write();
        state.looked = Instant::now();
        let (dir, name) = source;
        match (read_text(dir, name), read_text(dir, &also_of(name))) {
            (Ok(Some(current)), Ok(mut also)) => {
                // The two are changing places: the former is about to be put beside.
                if also.as_ref() == Some(&current) && state.current != current {
                    also = Some(state.current.clone());
                }
                let is_another = current != state.current || also != state.also;
                (state.current, state.also, state.stamps) = (current, also, seen);
                is_another
            }
            (Err(e), _) | (_, Err(e)) => {
                state.stamps = seen;
                tracing::error!(secret = name, error = %e, "a replaced secret cannot be used; the earlier one stays");
                false
            }
            // Between two files for a moment.
            (Ok(None), _) => false,
        }
    }
}

/// The name of the file of the other one.
pub fn also_of(name: &str) -> String {
    format!("{name}.{ALSO}")
}

fn stamps((dir, name): &(PathBuf, &'static str)) -> [Option<SystemTime>; 2] {
    let changed = |name: &str| fs::metadata(dir.join(name)).and_then(|found| found.modified()).ok();
    [changed(name), changed(&also_of(name))]
}

/// A secret's file, where there is one.
fn read_text(dir: &Path, name: &str) -> io::Result<Option<Secret>> {
    match fs::read_to_string(dir.join(name)) {
        Ok(text) if text.trim().len() >= SECRET_LEN_MIN => Ok(Some(Secret(text.trim().to_owned()))),
        Ok(_) => Err(damaged(dir, name)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// The secrets that the services share.
#[derive(Debug, Clone)]
pub struct Secrets {
    /// Carried by every internal gRPC call.
    pub service_token: Rotating,
    /// Password of the NATS user `services`.
    pub nats_services: Rotating,
    /// Password of the one NATS user `market` where sessions have no credentials of their own: it is handed to everybody.
    pub nats_market: Secret,
    /// Key of the passwords with which sessions sign in to watch `market.>`, and of the answers to nats-server's callout.
    pub nats_sessions: Rotating,
    /// Key of the HMAC that binds a CSRF token to its session.
    pub csrf_key: Rotating,
}

impl Secrets {
    /// Reads `dir`, creating what is missing. An environment variable `FAFNIR_SECRET_<NAME>` wins over the file.
    pub fn load_or_create(dir: &Path) -> io::Result<Self> {
        create_private_dir(dir)?;
        Ok(Self {
            service_token: rotating(dir, "service_token")?,
            nats_services: rotating(dir, "nats_services")?,
            nats_market: text(dir, "nats_market")?,
            nats_sessions: rotating(dir, "nats_sessions")?,
            csrf_key: rotating(dir, "csrf_key")?,
        })
    }

    /// Looks at the files until shutdown; `token` is told the service token when it is another.
    pub fn watch(self: &Arc<Self>, tasks: &Tasks, token: impl Fn(&str) + Send + Sync + 'static) {
        let (secrets, token) = (Arc::clone(self), Arc::new(token));
        tasks.every("secrets", Schedule::after(LOOK_EVERY), move || {
            let (secrets, token) = (Arc::clone(&secrets), Arc::clone(&token));
            async move {
                secrets.service_token.look();
                token(secrets.service_token.current().expose());
                for secret in [&secrets.nats_services, &secrets.nats_sessions, &secrets.csrf_key] {
                    secret.look();
                }
                Ok::<_, io::Error>(())
            }
        });
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
            ("service_token", self.service_token.accepted()),
            ("nats_services", self.nats_services.accepted()),
            ("nats_market", vec![self.nats_market.clone()]),
            ("nats_sessions", self.nats_sessions.accepted()),
            ("csrf_key", self.csrf_key.accepted()),
        ];
        let is_weak = |secrets: &[Secret]| secrets.iter().any(|secret| !is_strong(secret.expose()));
        match all.into_iter().find(|(_, secrets)| is_weak(secrets)) {
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

/// The keys that sign access tokens, Ed25519 in PKCS#8: the one that signs, and one that verifies beside it.
///
/// # Errors
/// Where a file or a variable cannot be read. Whether they are keys is another question.
pub fn signing_keys(dir: &Path) -> io::Result<(Vec<u8>, Option<Vec<u8>>)> {
    create_private_dir(dir)?;
    if let Some(current) = jwt_variable("FAFNIR_SECRET_JWT_KEY")? {
        return Ok((current, jwt_variable("FAFNIR_SECRET_JWT_KEY_ALSO")?));
    }
    let current = file(dir, JWT_KEY, signing_key)?;
    let also = match fs::read(dir.join(also_of(JWT_KEY))) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        read => Some(read?),
    };
    Ok((current, also))
}

/// The file of the key that signs access tokens.
pub const JWT_KEY: &str = "jwt_ed25519.pk8";

/// Name and password with which a session watches market data: the same every time, of no use to another. The name tells
/// which key they are made of.
pub fn market_login(nats_sessions: &Secret, session: SessionId) -> (String, Secret) {
    let message = [b"market:".as_slice(), session.uuid().as_bytes()].concat();
    let password = Secret(URL_SAFE_NO_PAD.encode(derived(nats_sessions, &message)));
    (format!("{session}.{}", mark(nats_sessions)), password)
}

/// The session of such a name.
pub fn market_session(name: &str) -> Option<SessionId> {
    SessionId::parse(name.split_once('.')?.0).ok()
}

/// Name of the user of the services that has this password, where there may be two: one user has one password.
pub fn services_user(nats_services: &Secret) -> String {
    format!("services-{}", mark(nats_services))
}

/// Tells one secret from another, and nothing of it.
fn mark(secret: &Secret) -> String {
    let tag = derived(secret, b"mark");
    HEXLOWER.encode(&tag.as_ref()[..MARK_BYTES])
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

/// What a variable of the environment says of a secret.
fn variable(name: &str) -> io::Result<Option<Secret>> {
    let variable = format!("FAFNIR_SECRET_{}", name.to_uppercase());
    match std::env::var(&variable) {
        Ok(value) if value.len() < SECRET_LEN_MIN => {
            let message = format!("{variable} must have at least {SECRET_LEN_MIN} characters");
            Err(io::Error::new(io::ErrorKind::InvalidInput, message))
        }
        Ok(value) => Ok(Some(Secret(value))),
        Err(_) => Ok(None),
    }
}

/// Whether the environment has a secret, and not a file.
pub fn is_given(name: &str) -> bool {
    std::env::var_os(format!("FAFNIR_SECRET_{}", name.to_uppercase())).is_some()
}

fn rotating(dir: &Path, name: &'static str) -> io::Result<Rotating> {
    if let Some(current) = variable(name)? {
        return Ok(Rotating::of(None, current, variable(&format!("{name}_also"))?));
    }
    let current = text(dir, name)?;
    Ok(Rotating::of(Some((dir.to_owned(), name)), current, read_text(dir, &also_of(name))?))
}

fn text(dir: &Path, name: &str) -> io::Result<Secret> {
    if let Some(value) = variable(name)? {
        return Ok(value);
    }
    let bytes = file(dir, name, || Ok(random_text(SECRET_BYTES)?.into_bytes()))?;
    let text = String::from_utf8(bytes).map_err(|_| damaged(dir, name))?;
    let text = text.trim().to_owned();
    if text.len() < SECRET_LEN_MIN { Err(damaged(dir, name)) } else { Ok(Secret(text)) }
}

fn jwt_variable(name: &str) -> io::Result<Option<Vec<u8>>> {
    let Ok(value) = std::env::var(name) else { return Ok(None) };
    let key = base64::engine::general_purpose::STANDARD.decode(value.trim()).map_err(|_| {
        let message = format!("{name} must be an Ed25519 PKCS#8 key in base64");
        io::Error::new(io::ErrorKind::InvalidInput, message)
    });
    key.map(Some)
}

/// A fresh Ed25519 key, PKCS#8.
pub fn signing_key() -> io::Result<Vec<u8>> {
    let key = ring::signature::Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|_| io::Error::other("the system has no randomness"))?;
    Ok(key.as_ref().to_vec())
}

/// The same in base64, as `FAFNIR_SECRET_JWT_KEY` takes it.
pub fn new_signing_key() -> io::Result<String> {
    Ok(base64::engine::general_purpose::STANDARD.encode(signing_key()?))
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
            let hex = HEXLOWER.encode(&random_bytes(32).unwrap());
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
        assert_eq!(first.service_token.current(), again.service_token.current());
        assert_ne!(first.nats_market, first.nats_services.current());
        assert!(!dir.path().join(JWT_KEY).exists(), "auth-service alone has one");
        let (key, also) = signing_keys(dir.path()).unwrap();
        assert_eq!((&signing_keys(dir.path()).unwrap().0, &also), (&key, &None));
        let (one, two) = (SessionId::new(uuid::Uuid::from_u128(1)), SessionId::new(uuid::Uuid::from_u128(2)));
        let login = |secrets: &Secrets, session| market_login(&secrets.nats_sessions.current(), session);
        assert_eq!(login(&first, one), login(&again, one));
        assert_ne!(login(&first, one).1, login(&first, two).1);
        assert_eq!(market_session(&login(&first, two).0), Some(two));
        for entry in fs::read_dir(dir.path()).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert!(format!("{:?}", first.service_token).contains("****"));
        assert!(!format!("{first:?}").contains(first.service_token.current().expose()));
    }

    #[test]
    fn a_secret_takes_the_place_of_another_while_both_are_accepted() {
        let dir = tempfile::tempdir().unwrap();
        let secrets = Secrets::load_or_create(dir.path()).unwrap();
        let (token, old) = (&secrets.service_token, secrets.service_token.current());
        let new = Secret::new(random_text(32).unwrap());
        let put = |name: &str, text: &str| {
            fs::write(dir.path().join("new"), text).unwrap();
            fs::rename(dir.path().join("new"), dir.path().join(name)).unwrap();
        };
        assert!(token.accepts(old.expose().as_bytes()) && !token.accepts(new.expose().as_bytes()));
        put("service_token.also", new.expose());
        std::thread::sleep(LOOK_MIN);
        assert!(token.accepts(new.expose().as_bytes()), "it looks when it does not know");
        assert_eq!(token.current(), old, "accepted, and not used yet");
        put("service_token", new.expose());
        put("service_token.also", old.expose());
        std::thread::sleep(LOOK_MIN);
        assert!(token.look());
        assert_eq!(token.current(), new);
        assert!(token.accepts(old.expose().as_bytes()) && token.accepts(new.expose().as_bytes()));
        put("service_token", "short");
        std::thread::sleep(LOOK_MIN);
        assert!(!token.look());
        assert_eq!(token.current(), new, "what cannot be used is not used");
        fs::remove_file(dir.path().join("service_token.also")).unwrap();
        put("service_token", new.expose());
        std::thread::sleep(LOOK_MIN);
        assert!(token.look() && !token.accepts(old.expose().as_bytes()));
    }
}
