//! The broker without the platform: `fafnir broker`.

use super::{MONITOR, MONITOR_FLAG, SERVICES_USER, bind, guests, users};
use anyhow::Context as _;
use fafnir_broker::{Config, Guests, User};
use fafnir_platform::{
    secrets::{Secrets, secret},
    tasks::Tasks,
    telemetry,
};
use std::path::PathBuf;
use tokio::sync::oneshot;

/// Where its store and its passwords are.
#[derive(Debug, Clone)]
pub enum Store {
    /// The platform's: `broker/` and `secrets/` below this data directory.
    Platform(PathBuf),
    /// A directory of its own, with one user who may do everything; the password is in the file `nats_services`.
    Own(PathBuf),
}

/// How it runs.
#[derive(Debug, Clone)]
pub struct Alone {
    pub host: String,
    /// 0: any free port.
    pub port: u16,
    /// 0: any free port.
    pub monitor_port: u16,
    pub store: Store,
}

/// A broker that answers.
#[derive(Debug)]
pub struct Answers {
    /// URL with a user who may do everything.
    pub nats: String,
    /// URL of the monitoring door.
    pub monitor: String,
}

/// Starts the broker as a task and resolves when it answers.
///
/// # Errors
/// [`crate::compose::PortError`] for a port that is taken, [`fafnir_broker::Error`] for a store that cannot be used.
pub async fn start(alone: Alone, tasks: &Tasks) -> anyhow::Result<Answers> {
    let listener = bind(super::SERVICE.name, super::SERVICE.port_flag, &alone.host, alone.port).await?;
    let monitor = bind(MONITOR, MONITOR_FLAG, &alone.host, alone.monitor_port).await?;
    let unusable = |dir: &PathBuf| format!("the secrets in {} cannot be used", dir.display());
    let mut guests_of = None;
    let (dir, users) = match alone.store {
        Store::Platform(dir) => {
            let secrets_dir = dir.join("secrets");
            let secrets = Secrets::load_or_create(&secrets_dir).with_context(|| unusable(&secrets_dir))?;
            guests_of = Some(secrets.clone());
            (dir.join("broker"), users(&secrets))
        }
        Store::Own(dir) => {
            let password = secret(&dir, "nats_services").with_context(|| unusable(&dir))?;
            (dir, vec![User::all(SERVICES_USER, password.expose())])
        }
    };
    telemetry::recorder();
    let (ready, is_ready) = oneshot::channel();
    let address = listener.local_addr()?.to_string();
    let answers = Answers {
        nats: fafnir_broker::url(listener.local_addr()?, users.first()),
        monitor: format!("http://{}", monitor.local_addr()?),
    };
    let guests = guests_of.map(|secrets| {
        let (guests, list) = Guests::new();
        let address = address.clone();
        let services = (SERVICES_USER.to_owned(), secrets.nats_services.expose().to_owned());
        tasks.spawn_until_shutdown(
            "market-data guests",
            guests::serve(address, services, secrets.nats_market.clone(), guests),
        );
        list
    });
    let config = Config {
        note: Some((dir.join("note"), [0; 16])),
        users,
        guests,
        monitor: Some(monitor),
        metrics: Some(telemetry::render_metrics),
        ready: Some(ready),
        ..Config::new(dir)
    };
    let (failed, failure) = oneshot::channel();
    let shutdown = tasks.shutdown().child_token();
    tasks.spawn("broker", async move {
        match fafnir_broker::serve(listener, config, shutdown).await {
            // Before it answered, the error is the caller's.
            Err(error) => match failed.send(error) {
                Ok(()) => Ok(()),
                Err(error) => Err(error),
            },
            Ok(()) => Ok(()),
        }
    });
    tokio::select! {
        biased;
        Ok(()) = is_ready => Ok(answers),
        Ok(error) = failure => Err(error.into()),
        else => anyhow::bail!("stopped before the broker answered"),
    }
}
