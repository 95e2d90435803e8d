//! `fafnir secrets tls`: a private authority, and a certificate of each component.

use super::{Readers, failed, make_dir, replace};
use crate::{
    args::SecretsTls,
    output::{Error, Exit, Out, Result, table},
    stack,
};
use fafnir_services::{
    ALL,
    platform::{
        Settings,
        secrets::{create_private_dir, random_text},
        tls::{
            self, AUTHORITY_FILE, CERTIFICATE_FILE, KEY_FILE, PLATFORM,
            make::{self, Authority, Pair},
        },
    },
    simulator,
};
use serde_json::json;
use std::{fs, path::Path};
use time::OffsetDateTime;

/// The authority's key: nobody needs it but this command.
const AUTHORITY_KEY_FILE: &str = "ca.key";
/// The servers that services stand on, as the Compose files and the chart name them.
const SERVERS: [&str; 3] = ["postgres", "nats", "redis"];
/// By what everything on this machine is reached.
const LOOPBACK: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl From<make::Error> for Error {
    fn from(e: make::Error) -> Self {
        Self::new(Exit::Failure, e.to_string())
    }
}

pub fn tls(args: &SecretsTls, out: Out) -> Result {
    let made = make_all(&args.dir, &args.hosts, args.days, args.authority_days, Readers::Owner)?;
    out.data(&json!({"dir": args.dir, "authority": made.authority, "components": made.components}), || {
        let rows: Vec<_> = made
            .components
            .iter()
            .map(|name| vec![name.clone(), args.dir.join(name).join(CERTIFICATE_FILE).display().to_string()])
            .collect();
        format!(
            "{}\n{} {}; the certificates are valid for {} days\n\
             use them: tls.dir = {:?}; clients: --authority {}; keep {AUTHORITY_KEY_FILE} where no service is\n",
            table(&["COMPONENT", "CERTIFICATE"], &rows),
            args.dir.join(AUTHORITY_FILE).display(),
            made.authority,
            args.days,
            args.dir.display().to_string(),
            args.dir.join(AUTHORITY_FILE).display(),
        )
    });
    Ok(())
}

/// Days that certificates of `fafnir up --tls` are valid, and that they have left when they are made anew at a start.
const UP_DAYS: u32 = 397;
const UP_DAYS_LEFT: i64 = 60;
/// Days of its authority.
const UP_AUTHORITY_DAYS: u32 = 3650;

/// Has `up` use the certificates of the data directory, where no others are configured; makes what is missing.
pub fn of_platform(settings: &mut Settings) -> Result {
    if tls::between_services(settings) {
        return Ok(());
    }
    let dir = settings.data_dir().join(stack::TLS);
    settings.tls.dir = dir.display().to_string();
    let until = OffsetDateTime::now_utc().unix_timestamp() + UP_DAYS_LEFT * 86_400;
    let lasts = ALL.iter().all(|service| {
        let ends =
            tls::files(settings, service.name).and_then(|files| tls::file_ends_at(&files.certificate).ok());
        ends.is_some_and(|ends| i64::try_from(ends).is_ok_and(|ends| ends > until))
    });
    if lasts {
        return Ok(());
    }
    create_private_dir(&settings.data_dir())?;
    make_all(&dir, &[], UP_DAYS, UP_AUTHORITY_DAYS, Readers::Owner).map(drop)
}

/// What was made.
pub struct Made {
    /// `made` or `kept`.
    pub authority: &'static str,
    pub components: Vec<String>,
}

/// Makes the authority where none is, and certificates of every component, over those that are there.
pub fn make_all(
    dir: &Path,
    hosts: &[String],
    days: u32,
    authority_days: u32,
    readers: Readers,
) -> Result<Made> {
    let (inner_mode, file_mode) = readers.modes();
    make_dir(dir, 0o700)?;
    let now = OffsetDateTime::now_utc();
    let (authority, state) = authority(dir, now, authority_days, file_mode)?;
    let signer = Authority::read(&authority)?;
    let mut components: Vec<String> = ALL.iter().map(|s| s.name.to_owned()).collect();
    components.extend([PLATFORM, simulator::NAME].map(ToOwned::to_owned));
    components.extend(SERVERS.map(ToOwned::to_owned));
    for name in &components {
        let own = [name.clone(), name.trim_start_matches("api-").to_owned()];
        let given = hosts.iter().map(|host| host.replace("{}", own[1].as_str()));
        let mut hosts: Vec<String> =
            own.iter().cloned().chain(LOOPBACK.map(ToOwned::to_owned)).chain(given).collect();
        hosts.dedup();
        let pair = signer.sign(name, &hosts, now, days)?;
        let dir = dir.join(name);
        make_dir(&dir, inner_mode)?;
        replace(&dir.join(AUTHORITY_FILE), &authority.certificate, file_mode)?;
        // One after the other: a service that looks in between keeps what it has, and looks again.
        replace(&dir.join(KEY_FILE), &pair.key, file_mode)?;
        replace(&dir.join(CERTIFICATE_FILE), &pair.certificate, file_mode)?;
    }
    Ok(Made { authority: state, components })
}

/// The authority that is there, or a new one.
fn authority(dir: &Path, now: OffsetDateTime, days: u32, mode: u32) -> Result<(Pair, &'static str)> {
    let (certificate, key) = (dir.join(AUTHORITY_FILE), dir.join(AUTHORITY_KEY_FILE));
    match (certificate.exists(), key.exists()) {
        (true, true) => {
            let read = |path: &Path| fs::read_to_string(path).map_err(|e| failed(path, &e));
            Ok((Pair { certificate: read(&certificate)?, key: read(&key)? }, "kept"))
        }
        (true, false) => Err(Error::new(
            Exit::Failure,
            format!(
                "{} is there, and its key {} is not: nothing can be signed",
                certificate.display(),
                key.display()
            ),
        )
        .hint("bring the key back, or name another directory for a new authority")),
        (false, _) => {
            let pair = make::authority(&format!("fafnir authority {}", random_text(6)?), now, days)?;
            replace(&key, &pair.key, 0o600)?;
            replace(&certificate, &pair.certificate, mode)?;
            Ok((pair, "made"))
        }
    }
}
