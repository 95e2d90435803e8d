//! `fafnir broker`: the embedded broker alone, and a look inside a running one.

use crate::{
    args::{Broker, BrokerConsumers, BrokerLook, BrokerStreams, Global},
    output::{Error, Exit, Out, Result, table},
    run, settings, stack,
};
use fafnir_proto::reason::Reason;
use fafnir_services::{
    broker::{
        MONITOR, Tls, WEBSOCKET,
        alone::{self, Alone, Store},
        inspect, monitor_host,
    },
    compose::PortError,
    platform::{
        Settings,
        config::is_loopback,
        secrets::{Secret, services_user},
        tasks::Tasks,
        telemetry, tls,
    },
};
use serde_json::json;
use std::path::Path;
use tokio_util::sync::CancellationToken;

/// What scripts read: one line, in this order.
#[derive(serde::Serialize)]
struct Ready<'a> {
    nats: &'a str,
    monitor: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<&'a str>,
}

pub async fn broker(global: &Global, args: &Broker, out: Out) -> Result {
    match &args.look {
        None => serve(global, args, out).await,
        Some(BrokerLook::Streams(args)) => streams(global, args, out).await,
        Some(BrokerLook::Consumers(args)) => consumers(global, args, out).await,
    }
}

async fn serve(global: &Global, args: &Broker, out: Out) -> Result {
    let settings = settings::settings(global, &[("ports.broker", args.port.map(|p| p.to_string()))])?;
    telemetry::init(settings.log.format, &settings.log.filter, out.colour);
    let any_port = settings.bind.auto || args.port == Some(0);
    let (store, lock) = match &args.store_dir {
        Some(dir) => (Store::Own(dir.clone()), None),
        None => (Store::Platform(settings.data_dir()), Some(stack::lock(&settings.data_dir(), &["broker"])?)),
    };
    let configured = || {
        let port = if any_port { 0 } else { settings.ports.broker_websocket };
        settings.broker.websocket.then_some(port)
    };
    let given = args.tls_certificate.clone().zip(args.tls_key.clone());
    let tls = match given {
        // The platform's own processes on this machine connect in the clear.
        Some((certificate, key)) => {
            Some(Tls { certificate, key, loopback_in_clear: args.store_dir.is_none() })
        }
        None => fafnir_services::broker::tls(&settings),
    };
    exposed(&settings, tls.is_some())?;
    let alone = Alone {
        host: settings.bind.bare_host().to_owned(),
        monitor_host: monitor_host(&settings).to_owned(),
        port: if any_port { 0 } else { settings.ports.broker },
        monitor_port: args.monitor_port.unwrap_or(if any_port { 0 } else { settings.ports.broker_monitor }),
        websocket_port: args.websocket_port.or_else(configured),
        tls,
        store,
    };
    let tasks = Tasks::new(CancellationToken::new());
    let signals = run::watch_signals(tasks.shutdown().clone())?;
    let answers = alone::start(alone, &tasks).await.map_err(|e| match e.downcast::<PortError>() {
        Ok(port) => port_taken(&port),
        Err(e) => store_refused(e),
    })?;
    let websocket = answers.websocket.as_deref();
    let ready = Ready { nats: &answers.nats, monitor: &answers.monitor, websocket };
    let ready = serde_json::to_string(&ready).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    out.line(&ready, || {
        let mut rows = vec![("nats", answers.nats.as_str()), ("monitor", answers.monitor.as_str())];
        rows.extend(websocket.map(|address| ("websocket", address)));
        let rows: Vec<_> =
            rows.into_iter().map(|(name, address)| vec![name.into(), address.into()]).collect();
        format!("{}\nready; Ctrl-C stops\n", table(&["DOOR", "ADDRESS"], &rows))
    });
    tasks.shutdown().cancelled().await;
    let in_order = tasks.drain().await;
    signals.abort();
    drop(lock);
    if in_order {
        Ok(())
    } else {
        Err(Error::new(Exit::Failure, "the broker failed; the log above has the cause"))
    }
}

/// Other machines reach it over TLS, or by a word of the configuration.
fn exposed(settings: &Settings, has_tls: bool) -> Result {
    let bind = &settings.bind;
    if has_tls || is_loopback(&bind.host) {
        return Ok(());
    }
    let doors = vec!["broker".to_owned()];
    let exposed = tls::Exposed { setting: "bind.host", host: bind.host.clone(), doors };
    if bind.insecure {
        tracing::warn!("bind.insecure: {exposed}");
        return Ok(());
    }
    Err(Error::new(Exit::Usage, exposed.to_string()).code(Reason::CONFIGURATION).hint(
        "--tls-certificate and --tls-key name one; or listen on 127.0.0.1, or write bind.insecure = true",
    ))
}

fn port_taken(e: &PortError) -> Error {
    let flag = match e.service {
        MONITOR => "--monitor-port",
        WEBSOCKET => "--websocket-port",
        _ => "--port",
    };
    let message = format!("{} cannot listen on {}:{}: {}", e.service, e.host, e.port, e.source);
    Error::new(Exit::Failure, message)
        .code(Reason::PORT_TAKEN)
        .hint(format!("choose another with {flag}, or let the system choose with `{flag} 0`"))
}

fn store_refused(e: anyhow::Error) -> Error {
    match e.downcast_ref::<fafnir_services::broker::Error>() {
        Some(fafnir_services::broker::Error::InUse { .. }) => Error::from(e)
            .code(Reason::STORE_IN_USE)
            .hint("stop that one, or name another directory with --store-dir"),
        Some(fafnir_services::broker::Error::Store { .. }) => Error::from(e).code(Reason::STORE),
        _ => Error::from(e),
    }
}

/// Where to look, and as whom: the URL that was given, the configured one, the running stack's, the default port.
async fn connect(global: &Global, url: Option<&String>) -> Result<inspect::Broker> {
    let settings = settings::settings(global, &[])?;
    let configured = Some(settings.nats.url.clone()).filter(|url| !url.is_empty());
    let running = || stack::running(&settings.data_dir()).map(|run| run.nats);
    let own = || Some(format!("nats://{}:{}", settings.bind.host_in_url(), settings.ports.broker));
    let explicit = url.cloned().or(configured);
    // The generated password goes only to the broker that it was generated for.
    let user =
        if explicit.is_some() { configured_user(&settings)? } else { generated_user(&settings.data_dir()) };
    let url = explicit.or_else(running).or_else(own).unwrap_or_default();
    Ok(inspect::Broker::connect(&settings, &url, user).await?)
}

/// User and password that the configuration names for nats-server, if it does.
pub fn configured_user(settings: &Settings) -> Result<Option<inspect::User>> {
    let nats = &settings.nats;
    if nats.password_file.is_empty() {
        return Ok(None);
    }
    let password = std::fs::read_to_string(&nats.password_file)
        .map_err(|e| Error::new(Exit::Failure, format!("{}: {e}", nats.password_file)))?;
    Ok(Some((nats.user.clone(), password.trim().to_owned())))
}

fn generated_user(data_dir: &Path) -> Option<inspect::User> {
    let password = std::env::var("FAFNIR_SECRET_NATS_SERVICES")
        .ok()
        .or_else(|| std::fs::read_to_string(data_dir.join("secrets").join("nats_services")).ok())?;
    let password = Secret::new(password.trim());
    Some((services_user(&password), password.expose().to_owned()))
}

impl From<inspect::Error> for Error {
    fn from(e: inspect::Error) -> Self {
        let message = e.to_string();
        match e {
            inspect::Error::Absent { .. } => Self::new(Exit::NotRunning, message)
                .code(Reason::NOT_RUNNING)
                .hint("start one with `fafnir up` or `fafnir broker`, or name another with --url"),
            inspect::Error::Refused { .. } => Self::new(Exit::SignIn, message)
                .code(Reason::UNAUTHENTICATED)
                .hint("name both with --url nats://user:password@host:port"),
            inspect::Error::Address { .. } => Self::usage(message),
            inspect::Error::Api(_) => Self::new(Exit::Precondition, message).code(Reason::BROKER),
        }
    }
}

async fn streams(global: &Global, args: &BrokerStreams, out: Out) -> Result {
    let all = connect(global, args.url.as_ref()).await?.streams().await?;
    let document: Vec<_> = all
        .iter()
        .map(|s| {
            json!({
                "name": s.config.name, "subjects": s.config.subjects, "storage": s.config.storage,
                "retention": s.config.retention, "messages": s.state.messages, "bytes": s.state.bytes,
                "first_seq": s.state.first_seq, "last_seq": s.state.last_seq, "consumers": s.state.consumer_count,
            })
        })
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = all
            .iter()
            .map(|s| {
                vec![
                    s.config.name.clone(),
                    s.config.subjects.join(" "),
                    s.config.storage.clone(),
                    s.config.retention.clone(),
                    s.state.messages.to_string(),
                    s.state.bytes.to_string(),
                    s.state.first_seq.to_string(),
                    s.state.last_seq.to_string(),
                    s.state.consumer_count.to_string(),
                ]
            })
            .collect();
        let header = [
            "STREAM",
            "SUBJECTS",
            "STORAGE",
            "RETENTION",
            ">MESSAGES",
            ">BYTES",
            ">FIRST",
            ">LAST",
            ">CONSUMERS",
        ];
        table(&header, &rows)
    });
    Ok(())
}

async fn consumers(global: &Global, args: &BrokerConsumers, out: Out) -> Result {
    let broker = connect(global, args.url.as_ref()).await?;
    let names = match &args.stream {
        Some(stream) => vec![stream.clone()],
        None => broker.streams().await?.into_iter().map(|s| s.config.name).collect(),
    };
    let mut all = Vec::new();
    for name in &names {
        all.append(&mut broker.consumers(name).await?);
    }
    let filters = |c: &inspect::Consumer| -> Vec<String> {
        let one = Some(c.config.filter_subject.clone()).filter(|f| !f.is_empty());
        one.into_iter().chain(c.config.filter_subjects.iter().cloned()).collect()
    };
    let kind = |c: &inspect::Consumer| if c.config.deliver_subject.is_some() { "push" } else { "pull" };
    let document: Vec<_> = all
        .iter()
        .map(|c| {
            json!({
                "stream": c.stream_name, "name": c.name, "kind": kind(c), "ack_policy": c.config.ack_policy,
                "filters": filters(c), "delivered": c.delivered.stream_seq, "ack_floor": c.ack_floor.stream_seq,
                "ack_pending": c.num_ack_pending, "redelivered": c.num_redelivered, "pending": c.num_pending,
                "waiting": c.num_waiting,
            })
        })
        .collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = all
            .iter()
            .map(|c| {
                let mut cells = vec![
                    c.stream_name.clone(),
                    c.name.clone(),
                    kind(c).to_owned(),
                    c.config.ack_policy.clone(),
                ];
                cells.push(filters(c).join(" "));
                let numbers = [
                    c.delivered.stream_seq,
                    c.ack_floor.stream_seq,
                    c.num_ack_pending,
                    c.num_redelivered,
                    c.num_pending,
                    c.num_waiting,
                ];
                cells.extend(numbers.map(|n| n.to_string()));
                cells
            })
            .collect();
        let header = [
            "STREAM",
            "CONSUMER",
            "KIND",
            "ACKS",
            "FILTERS",
            ">DELIVERED",
            ">ACK FLOOR",
            ">UNACKED",
            ">REDELIVERED",
            ">PENDING",
            ">WAITING",
        ];
        table(&header, &rows)
    });
    Ok(())
}
