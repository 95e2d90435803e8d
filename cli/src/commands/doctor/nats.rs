//! What nats-server lacks of what the platform wants of it: `sync_interval: always` and auth callout, both of 2.10.

use super::{Check, finding, note, ok};
use crate::commands::broker::configured_user;
use fafnir_services::{
    broker::inspect::{self, Callout},
    gateway,
    platform::{Settings, secrets},
};
use std::path::Path;

const NAME: &str = "nats";
/// The first version that has both.
const WANTED: (u32, u32) = (2, 10);

/// Looks at the server that the configuration names, if it names one.
pub async fn server(settings: &Settings, dir: &Path) -> Option<Check> {
    if settings.nats.url.is_empty() {
        return None;
    }
    let reached = match configured_user(settings) {
        Ok(user) => {
            inspect::Broker::connect(settings, &settings.nats.url, user).await.map_err(|e| e.to_string())
        }
        Err(e) => Err(e.message),
    };
    let broker = match reached {
        Ok(broker) => broker,
        Err(e) => {
            let hint =
                "is it running, and is its address right? `fafnir config --show-origin` says where it is set";
            return Some(finding(NAME, e, hint));
        }
    };
    let callout = broker.callout().await;
    Some(judge(&broker.version(), callout, settings.nats.by_session(), &issuer(dir)))
}

/// The public key that the server's configuration needs, or what to do to have it.
fn issuer(dir: &Path) -> String {
    let is_there = std::env::var_os("FAFNIR_SECRET_NATS_SESSIONS").is_some()
        || dir.join("secrets/nats_sessions").exists();
    let secret = is_there.then(|| secrets::secret(&dir.join("secrets"), "nats_sessions").ok()).flatten();
    let issuer = secret.and_then(|secret| gateway::issuer(&secret).ok());
    issuer.unwrap_or_else(|| "made at the gateway's first start".to_owned())
}

fn judge(version: &str, callout: Callout, by_session: bool, issuer: &str) -> Check {
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let number = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let shared = "all terminals share one password, which does not end with a session";
    let unsynced = "it has no `sync_interval: always`: what it acknowledged may be lost with the power";
    let newer = "deployments/nats/nats.conf wants 2.10 or newer";
    match (number < WANTED, by_session, callout) {
        (_, _, Callout::Open) => note(NAME, format!("{version} asks nobody for a password"), newer),
        (true, true, _) => finding(
            NAME,
            format!("{version} has no auth callout: no terminal can watch market data; {unsynced}"),
            format!("set nats.market_credentials to \"static\" (deployments/nats/nats-2.9.conf); {newer}"),
        ),
        (true, false, _) => note(NAME, format!("{version} has no auth callout: {shared}; {unsynced}"), newer),
        (false, false, _) => note(
            NAME,
            format!(
                "{version} could ask for each session, but nats.market_credentials is \"static\": {shared}"
            ),
            newer,
        ),
        (false, true, Callout::None) => finding(
            NAME,
            format!("{version} has no auth callout configured: no terminal can watch market data"),
            format!("configure it as in deployments/nats/nats.conf, with the issuer {issuer}"),
        ),
        (false, true, Callout::Asks) => ok(NAME, format!("{version} asks for each session; issuer {issuer}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::doctor::State;

    #[test]
    fn what_a_server_lacks_is_said() {
        let check = |version, callout, by_session, state, words: &[&str]| {
            let check = judge(version, callout, by_session, "ABC");
            assert_eq!(check.state, state, "{}", check.detail);
            for word in words {
                assert!(check.detail.contains(word) || check.hint.contains(word), "{word}: {}", check.detail);
            }
        };
        let both: &[&str] = &["auth callout", "sync_interval"];
        check("2.9.10", Callout::None, true, State::Finding, both);
        check("2.9.10", Callout::None, false, State::Note, both);
        check("2.15.1", Callout::None, true, State::Finding, &["auth callout", "ABC"]);
        check("2.15.1", Callout::Asks, true, State::Ok, &["ABC"]);
        check("2.10.0", Callout::None, false, State::Note, &["share one password"]);
        check("2.15.1", Callout::Open, true, State::Note, &["nobody"]);
    }
}
