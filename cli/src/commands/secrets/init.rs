//! `fafnir secrets init`: `.env` and `tls/` for the Compose files.

use super::{Readers, certificates::make_all, replace};
use crate::{
    args::SecretsInit,
    output::{Error, Exit, Out, Result},
};
use fafnir_services::{
    gateway,
    platform::secrets::{self, Secret},
};
use serde_json::json;

/// The names, and what each is.
const EXAMPLE: &str = include_str!("../../../../deployments/compose/env.example");
/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;
/// Days that the certificates are valid, and their authority.
const DAYS: (u32, u32) = (397, 3650);

pub fn init(args: &SecretsInit, out: Out) -> Result {
    let path = args.dir.join(".env");
    if path.exists() {
        return Err(Error::new(Exit::Failure, format!("{} is there already", path.display())).hint(
            "what it opens (databases, sessions) would be locked: move it away only with the volumes",
        ));
    }
    if !args.dir.is_dir() {
        return Err(Error::usage(format!("{} is no directory", args.dir.display()))
            .hint("name the directory of docker-compose.yaml"));
    }
    let text = filled(EXAMPLE)?;
    let tls = args.dir.join("tls");
    make_all(&tls, &args.hosts, DAYS.0, DAYS.1, Readers::Mounted)?;
    replace(&path, &text, 0o600)?;
    out.data(&json!({"env": path, "tls": tls}), || {
        format!("{} has fresh secrets, {} certificates; keep both\n", path.display(), tls.display())
    });
    Ok(())
}

/// The example with a fresh secret for each of its names.
fn filled(example: &str) -> Result<String> {
    let mut text = String::new();
    let mut sessions = None;
    for line in example.lines() {
        let Some(name) = line.strip_suffix('=').filter(|name| !name.starts_with('#')) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let value = match name {
            "FAFNIR_JWT_KEY" => secrets::new_signing_key()?,
            "NATS_CALLOUT_ISSUER" => {
                let sessions = sessions.as_ref().ok_or_else(|| {
                    Error::new(Exit::Failure, "NATS_SESSIONS_KEY must stand before NATS_CALLOUT_ISSUER")
                })?;
                gateway::issuer(sessions)?
            }
            _ => readable()?,
        };
        if name == "NATS_SESSIONS_KEY" {
            sessions = Some(Secret::new(value.clone()));
        }
        text.push_str(&format!("{name}={value}\n"));
    }
    Ok(text)
}

/// A secret that begins with a letter, because nats-server takes digits alone for a number, and needs no escape in a URL.
fn readable() -> Result<String> {
    Ok(format!("s{}", secrets::random_text(SECRET_BYTES)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_has_a_value_of_its_own() {
        let text = filled(EXAMPLE).unwrap();
        let names = |text: &str| -> Vec<String> {
            text.lines()
                .filter(|l| !l.starts_with('#'))
                .filter_map(|l| Some(l.split_once('=')?.0.to_owned()))
                .collect()
        };
        assert_eq!(names(&text), names(EXAMPLE));
        let values: std::collections::BTreeSet<_> = text
            .lines()
            .filter(|l| !l.starts_with('#'))
            .filter_map(|l| l.split_once('='))
            .map(|(_, v)| v)
            .collect();
        assert_eq!(values.len(), names(EXAMPLE).len());
        assert!(values.iter().all(|v| v.len() >= 32));
    }
}
