//! `fafnir secrets rotate`: a new secret in the place of another, both of which are accepted for a while.
//!
//! First the new one is accepted beside the one that is used; when every process has seen it, the two change places, and the
//! former is accepted until `--end` or the next rotation.

use super::{failed, replace};
use crate::{
    args::{Global, RotatedSecret, SecretsRotate},
    output::{Error, Exit, Out, Result},
    settings,
};
use fafnir_proto::reason::Reason;
use fafnir_services::platform::secrets::{JWT_KEY, also_of, is_given, random_text, signing_key};
use serde_json::json;
use std::{fs, time::Duration};

/// Bytes of randomness in a secret.
const SECRET_BYTES: usize = 32;

/// Name of its file, and of its variable.
fn names(secret: RotatedSecret) -> (&'static str, &'static str) {
    match secret {
        RotatedSecret::ServiceToken => ("service_token", "service_token"),
        RotatedSecret::SigningKey => (JWT_KEY, "jwt_key"),
        RotatedSecret::CsrfKey => ("csrf_key", "csrf_key"),
        RotatedSecret::NatsServices => ("nats_services", "nats_services"),
        RotatedSecret::NatsSessions => ("nats_sessions", "nats_sessions"),
    }
}

pub async fn rotate(global: &Global, args: &SecretsRotate, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let (file, variable) = names(args.secret);
    let dir = settings.data_dir().join("secrets");
    let is_nats = matches!(args.secret, RotatedSecret::NatsServices | RotatedSecret::NatsSessions);
    if is_given(variable) || (is_nats && !settings.nats.url.is_empty()) {
        let what = if is_nats { "nats-server's configuration" } else { "the environment" };
        return Err(Error::new(Exit::Precondition, format!("{variable} is given by {what}, not by a file"))
            .code(Reason::CONFIGURATION)
            .hint("deployments/README.md, \"Rotation\", says how to change it there"));
    }
    let (current, also) = (dir.join(file), dir.join(also_of(file)));
    let before = fs::read(&current).map_err(|e| {
        failed(&current, &e).hint("it is made at the first start; there is nothing to rotate before")
    })?;
    if args.end {
        match fs::remove_file(&also) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(&also, &e)),
            _ => {}
        }
        out.data(&json!({"secret": variable, "ended": true}), || {
            format!("{variable}: only the one that is used is accepted\n")
        });
        return Ok(());
    }
    let new = match args.secret {
        RotatedSecret::SigningKey => signing_key()?,
        _ => random_text(SECRET_BYTES)?.into_bytes(),
    };
    replace(&also, &new, 0o600)?;
    tokio::time::sleep(Duration::from_secs(args.overlap_s)).await;
    // In between the former is nowhere for a moment: a process that looks then keeps what it has.
    replace(&current, &new, 0o600)?;
    replace(&also, &before, 0o600)?;
    out.data(&json!({"secret": variable, "rotated": true}), || {
        format!("{variable}: the new one is used, the former still accepted; `--end` ends that\n")
    });
    Ok(())
}
