//! The broker without the platform: `fafnir broker`.

use super::{MONITOR, MONITOR_FLAG, SERVICES_USER, Tls, WEBSOCKET, bind, guests, users};
use anyhow::Context as _;
use fafnir_broker::{Config, User};
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

/// Flag of the command line that chooses the port of the WebSocket door.
const WEBSOCKET_FLAG: &str = "--websocket-port";

/// How it runs.
#[derive(Debug, Clone)]
pub struct Alone {
    pub host: String,
    /// 0: any free port.
    pub port: u16,
    /// Where the monitoring door listens, which has no TLS.
    pub monitor_host: String,
    /// 0: any free port.
    pub monitor_port: u16,
    /// Where browsers connect, if they may; 0: any free port.
    pub websocket_port: Option<u16>,
    /// Certificate and key with which connections are secured.
    pub tls: Option<Tls>,
    pub store: Store,
}

/// A broker that answers.
#[derive(Debug)]
pub struct Answers {
    /// URL with a user who may do everything.
    pub nats: String,
    /// URL of the monitoring door.
    pub monitor: String,
    /// URL of the WebSocket door.
    pub websocket: Option<String>,
}

/// Starts the broker as a task and resolves when it answers.
///
/// # Errors
/// [`crate::compose::PortError`] for a port that is taken, [`fafnir_broker::Error`] for a store that cannot be used.
pub async fn start(alone: Alone, tasks: &Tasks) -> anyhow::Result<Answers> {
    let listener = bind(super::SERVICE.name, super::SERVICE.port_flag, &alone.host, alone.port).await?;
    let monitor = bind(MONITOR, MONITOR_FLAG, &alone.monitor_host, alone.monitor_port).await?;
    let websocket = match alone.websocket_port {
        Some(port) => Some(bind(WEBSOCKET, WEBSOCKET_FLAG, &alone.host, port).await?),
        None => None,
    };
    let unusable = |dir: &PathBuf| format!("the secrets in {} cannot be used", dir.display());
    let mut guests = None;
    let (dir, users) = match alone.store {
        Store::Platform(dir) => {
            let secrets_dir = dir.join("secrets");
            let secrets = Secrets::load_or_create(&secrets_dir).with_context(|| unusable(&secrets_dir))?;
            guests = Some(guests::spawn(listener.local_addr()?, &secrets, tasks));
            (dir.join("broker"), users(&secrets))
        }
        Store::Own(dir) => {
            let password = secret(&dir, "nats_services").with_context(|| unusable(&dir))?;
            (dir, vec![User::all(SERVICES_USER, password.expose())])
        }
    };
    telemetry::recorder();
    let (ready, is_ready) = oneshot::channel();
    let answers = Answers {
        nats: fafnir_broker::url(listener.local_addr()?, users.first()),
        monitor: format!("http://{}", monitor.local_addr()?),
        websocket: match &websocket {
            Some(door) if alone.tls.is_some() => Some(format!("wss://{}", door.local_addr()?)),
            Some(door) => Some(format!("ws://{}", door.local_addr()?)),
            None => None,
        },
    };
    let config = Config {
        note: Some((dir.join("note"), [0; 16])),
        users,
        tls: alone.tls,
        websocket,
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
