//! The one composition: `fafnir up` starts every row of the table, `fafnir order-service` starts one, the same way.
//!
//! All listeners are bound first, so that the address directory is complete before anything starts; then all services
//! start side by side and wait for each other through their own clients.

use anyhow::Context as _;
use fafnir_platform::{
    Clock, Context, Service, Settings,
    config::is_loopback,
    db::Db,
    disk::Disk,
    health::Health,
    secrets::Secrets,
    server,
    tasks::Tasks,
    telemetry,
    tls::{self, Tls},
};
use fafnir_proto::client::Clients;
use futures::future::try_join_all;
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, Ipv6Addr},
    sync::Arc,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Services that are ready.
#[derive(Debug)]
pub struct Running {
    pub addresses: BTreeMap<String, String>,
    /// Service name → address of its operations door.
    pub operations: BTreeMap<String, String>,
    pub tasks: Tasks,
    /// What the others stand on until they have ended.
    base: Tasks,
    /// For more parts that run in the same process (seeding, the simulator).
    pub context: Context,
}

impl Running {
    /// Waits until the process is asked to stop, or a part fails; then ends every part. `false` when one failed.
    pub async fn wait(&self) -> bool {
        tokio::select! {
            () = self.tasks.shutdown().cancelled() => {}
            // What all stand on failed: nothing works without it.
            () = self.base.shutdown().cancelled() => self.tasks.shutdown().cancel(),
        }
        let in_order = self.tasks.drain().await;
        self.base.shutdown().cancel();
        let in_order = self.base.drain().await && in_order;
        // It waits for the collector, off the threads that serve; a thread that panicked has lost its spans.
        let _lost = tokio::task::spawn_blocking(telemetry::trace::finish).await;
        in_order
    }
}

/// A port that cannot be bound.
#[derive(Debug, thiserror::Error)]
#[error("{service} cannot listen on {host}:{port}: {source}")]
pub struct PortError {
    pub service: &'static str,
    /// Flag of the command line that chooses another one.
    pub flag: &'static str,
    pub host: String,
    pub port: u16,
    pub source: io::Error,
}

/// Opens the door for operations of a component that is no service and has this process for itself.
///
/// # Errors
/// [`PortError`], [`tls::Exposed`] or [`tls::Error`].
pub async fn open_operations(running: &mut Running, ctx: &mut Context, port: u16) -> anyhow::Result<()> {
    let settings = Arc::clone(&ctx.settings);
    let host = settings.bind.bare_inner_host();
    let doors = vec![format!("{}'s operations", ctx.service)];
    let is_open = tls::between_services(&settings) || settings.bind.insecure || is_loopback(host);
    if !is_open {
        return Err(tls::Exposed { setting: "bind.inner_host", host: host.to_owned(), doors }.into());
    }
    ctx.tls = ctx.tls.clone().beside(&settings, ctx.service)?;
    let port = operations_port(&settings, port);
    let door = bind((ctx.service, "FAFNIR_PORTS_SIMULATOR"), &settings, host, port).await?;
    running.operations.insert(ctx.service.to_owned(), address(operations_scheme(&settings), &door)?);
    server::serve_operations(ctx, door);
    Ok(())
}

/// The port for operations beside another one. Offset 0: any free port.
fn operations_port(settings: &Settings, port: u16) -> u16 {
    let offset = settings.ports.operations_offset;
    if offset == 0 { 0 } else { port.saturating_add(offset) }
}

fn operations_scheme(settings: &Settings) -> &'static str {
    if tls::between_services(settings) { "https" } else { "http" }
}

/// Where a service listens: where clients come, or where the platform's own do.
fn host<'a>(service: &Service, settings: &'a Settings) -> &'a str {
    let bind = &settings.bind;
    if service.public { bind.bare_host() } else { bind.bare_inner_host() }
}

async fn bind(
    (service, flag): (&'static str, &'static str),
    settings: &Settings,
    host: &str,
    port: u16,
) -> Result<TcpListener, PortError> {
    let port = if settings.bind.auto { 0 } else { port };
    TcpListener::bind((host, port)).await.map_err(|source| PortError {
        service,
        flag,
        host: host.to_owned(),
        port,
        source,
    })
}

/// The address of a bound door as this machine reaches it.
fn address(scheme: &str, listener: &TcpListener) -> io::Result<String> {
    let mut at = listener.local_addr()?;
    if at.ip().is_unspecified() {
        at.set_ip(if at.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() });
    }
    Ok(format!("{scheme}://{at}"))
}

/// Where each service is, by its name in the directory: as configured, else on its own port of this host.
pub fn directory(settings: &Settings) -> BTreeMap<String, String> {
    let mut addresses = BTreeMap::new();
    for service in crate::ALL {
        let configured = (service.address)(settings);
        let address = if configured.is_empty() {
            let bind = &settings.bind;
            let host = if service.public { bind.host_in_url() } else { bind.inner_host_in_url() };
            let scheme = tls::scheme(settings, service);
            format!("{scheme}://{host}:{}", (service.port)(settings))
        } else {
            configured.to_owned()
        };
        addresses.insert(service.directory.to_owned(), address);
    }
    addresses
}

/// Starts one service; it is ready when this resolves, and its door for operations says so.
async fn start_one(
    service: &Service,
    ctx: Context,
    listener: TcpListener,
    door: TcpListener,
) -> anyhow::Result<()> {
    let health = ctx.health.clone();
    server::serve_operations(&ctx, door);
    let started = tokio::time::Instant::now();
    (service.start)(ctx, listener).await.with_context(|| format!("{} did not start", service.name))?;
    tracing::debug!(service = service.name, ms = started.elapsed().as_millis() as u64, "ready");
    health.started();
    Ok(())
}

/// A service with its listener and that of its door for operations.
type Bound = (&'static Service, TcpListener, TcpListener);

/// Binds every door; the addresses are put into the directory. Answers the doors for operations beside them.
async fn bind_all(
    services: &[&'static Service],
    settings: &Settings,
    addresses: &mut BTreeMap<String, String>,
) -> anyhow::Result<(Vec<Bound>, BTreeMap<String, String>)> {
    let mut bound = Vec::new();
    let mut operations = BTreeMap::new();
    for service in services {
        let port = (service.port)(settings);
        let whose = (service.name, service.port_flag);
        let listener = bind(whose, settings, host(service, settings), port).await?;
        let at = address(tls::scheme(settings, service), &listener)?;
        addresses.insert(service.directory.to_owned(), at);
        let port = operations_port(settings, port);
        let door = bind(whose, settings, settings.bind.bare_inner_host(), port).await?;
        operations.insert(service.name.to_owned(), address(operations_scheme(settings), &door)?);
        bound.push((*service, listener, door));
    }
    Ok((bound, operations))
}

/// Sends the spans of these services, and of the simulator where it can be beside them, to the collector that is named.
fn record_spans(ctx: &Context, services: &[&'static Service]) -> anyhow::Result<()> {
    let simulator = (services.len() != 1).then_some("simulator");
    let named = services.iter().map(|service| service.name).chain(simulator);
    Ok(telemetry::trace::start(&ctx.settings.traces, named, ctx.tls.client())?)
}

/// Starts `services` and resolves when every one is ready. A process of one service is that component; one of several, or of
/// none, is the platform.
///
/// # Errors
/// [`PortError`], [`tls::Exposed`], [`tls::Error`], or why a service did not start.
pub async fn start(
    services: &[&'static Service],
    settings: Settings,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    let who = if let [service] = services { service.name } else { tls::PLATFORM };
    start_as(who, services, settings, clock, shutdown).await
}

/// The same, as this component.
///
/// # Errors
/// As [`start`].
pub async fn start_as(
    who: &str,
    services: &[&'static Service],
    settings: Settings,
    clock: Clock,
    shutdown: CancellationToken,
) -> anyhow::Result<Running> {
    for exposed in tls::exposed(&settings, services) {
        if !settings.bind.insecure {
            return Err(exposed.into());
        }
        tracing::warn!("bind.insecure: {exposed}");
    }
    fafnir_platform::http::files::raise_limit();
    let settings = Arc::new(settings);
    let secrets_dir = settings.data_dir().join("secrets");
    let secrets = Secrets::load_or_create(&secrets_dir)
        .with_context(|| format!("the secrets in {} cannot be used", secrets_dir.display()))?;
    if settings.mode == fafnir_platform::config::Mode::Production {
        secrets.check_strength().map_err(|why| anyhow::anyhow!(why))?;
    }

    let certificates = Tls::open(&settings, who, services)?;

    let mut addresses = directory(&settings);
    let (bound, operations) = bind_all(services, &settings, &mut addresses).await?;

    let tasks = Tasks::new(shutdown);
    let base = Tasks::new(CancellationToken::new());
    let http_addresses: BTreeMap<_, _> = addresses
        .iter()
        .filter(|(_, url)| url.starts_with("http"))
        .map(|(k, v)| (k.clone(), v.clone()))
        .collect();
    let in_process: Vec<_> =
        services.iter().filter(|_| settings.bind.in_process).map(|service| service.directory).collect();
    let secrets = Arc::new(secrets);
    let token = secrets.service_token.current();
    let clients = Clients::secured(&http_addresses, &in_process, token.expose(), certificates.client())?;
    let told = clients.clone();
    secrets.watch(&tasks, move |token| told.set_token(token));
    let disk = Disk::of(&settings);
    let context = Context {
        service: "fafnir",
        settings,
        secrets,
        tls: certificates,
        clients,
        clock,
        tasks: tasks.clone(),
        health: Health::default(),
        disk,
        addresses: Arc::new(addresses.clone()),
    };
    record_spans(&context, services)?;
    context.disk.watch(&tasks);
    telemetry::spawn_upkeep(&tasks);
    let starting = bound.into_iter().map(|(service, listener, door)| {
        let tasks = if service.foundation { base.clone() } else { tasks.clone() };
        let health = Health::default();
        let ctx = Context { service: service.name, tasks, health, ..context.clone() };
        start_one(service, ctx, listener, door)
    });
    let stopped = tasks.shutdown().clone();
    let outcome = tokio::select! {
        result = try_join_all(starting) => result.map(drop),
        () = stopped.cancelled() => Err(anyhow::anyhow!("stopped before everything was ready")),
    };
    if let Err(e) = outcome {
        tasks.shutdown().cancel();
        // Nobody waits any longer for one that did not come to serve.
        context.clients.close();
        tasks.drain().await;
        base.shutdown().cancel();
        base.drain().await;
        return Err(e);
    }
    Ok(Running { addresses, operations, tasks, base, context })
}

/// Brings the database of every service to its newest schema. Answers how many migrations each has.
pub async fn migrate(settings: &Settings) -> anyhow::Result<Vec<(&'static str, usize)>> {
    let tasks = Tasks::new(CancellationToken::new());
    let mut applied = Vec::new();
    for service in crate::ALL.iter().filter(|s| !s.migrations.is_empty()) {
        Db::open(settings, service.name, service.migrations, &tasks, &Clock::wall())
            .await
            .with_context(|| format!("the database of {} cannot be migrated", service.name))?;
        applied.push((service.name, service.migrations.len()));
    }
    tasks.shutdown().cancel();
    tasks.drain().await;
    Ok(applied)
}
