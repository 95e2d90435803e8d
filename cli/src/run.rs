//! Composes services in this process: `up` is every row of the table, a single service is one, the same way.

use crate::{
    commands,
    output::{Error, Exit, Out, Result},
    ports, seed,
    stack::{self, RunFile},
};
use fafnir_proto::reason::Reason;
use fafnir_services::platform::config::without_password;
use fafnir_services::{
    ALL, Service,
    compose::{self, PortError, Running},
    platform::{
        Clock, Context, Settings,
        config::Mode,
        health::Health,
        log_file::{self, LogFile},
        secrets::create_private_dir,
        telemetry::{self, Sinks},
        tls,
    },
    simulator,
};
use std::{collections::BTreeMap, path::Path, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What runs beside the services.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is asked for by itself")]
pub struct Beside {
    /// Fill an empty directory with the built-in seeds.
    pub seed: bool,
    pub simulator: bool,
    /// Write `run.json` and a log file, so that other commands find this stack.
    pub announce: bool,
    /// No terminal reads stderr.
    pub background: bool,
}

/// What scripts read: one line, in this order.
#[derive(serde::Serialize)]
#[expect(clippy::struct_field_names, reason = "scripts read them")]
struct Ready<'a> {
    ready: bool,
    pid: u32,
    data_dir: &'a std::path::Path,
    nats: &'a str,
    services: &'a BTreeMap<String, String>,
}

/// The services of `up`: with a broker elsewhere, all but the embedded one.
pub fn all_services(settings: &Settings) -> Vec<&'static Service> {
    ALL.iter().copied().filter(|s| s.starts_here(settings)).collect()
}

/// Starts everything, says so, and waits for Ctrl-C.
pub async fn run(services: Vec<&'static Service>, beside: Beside, settings: Settings, out: Out) -> Result {
    let started = std::time::Instant::now();
    let dir = settings.data_dir();
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let mut names: Vec<&str> = services.iter().map(|s| s.name).collect();
    if names.is_empty() {
        names.push("sim");
    }
    stack::check(&dir)?;
    stack::secure(&dir)?;
    let lock = stack::lock(&dir, &names)?;
    start_log(&dir, beside, &settings, out)?;
    let shutdown = CancellationToken::new();
    let signals = watch_signals(shutdown.clone())?;
    let said = settings.clone();
    let authority = authority(&settings);
    let result = Box::pin(start(&services, beside, settings, shutdown.clone(), out)).await;
    let running = match result {
        Ok(running) => running,
        Err(e) => {
            shutdown.cancel();
            return Err(e);
        }
    };
    let nats = running.addresses.get("nats").cloned().unwrap_or_default();
    let addresses: BTreeMap<String, String> = running
        .addresses
        .iter()
        .filter(|(name, _)| names.contains(&name.as_str()))
        .map(|(n, a)| (n.clone(), a.clone()))
        .collect();
    let run = RunFile {
        pid: std::process::id(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        nats,
        services: addresses,
        operations: running.operations.clone(),
        authority,
    };
    if beside.announce {
        stack::write_run_file(&dir, &run)?;
    }
    say_ready(&run, &said, &dir, started.elapsed(), "Ctrl-C stops", out)?;
    let in_order = running.wait().await;
    if beside.announce {
        stack::remove_run_file(&dir);
    }
    signals.abort();
    drop(lock);
    if in_order {
        Ok(())
    } else {
        Err(Error::new(Exit::Failure, "a part failed; the log above has the cause"))
    }
}

/// By whom the commands of this machine believe this stack.
fn authority(settings: &Settings) -> Option<std::path::PathBuf> {
    match tls::trust(settings, "") {
        tls::Trust::Authority(path) => Some(std::path::absolute(&path).unwrap_or(path)),
        tls::Trust::System => None,
    }
}

/// A stack that others find has a log file; what runs alone logs to stderr only.
fn start_log(dir: &Path, beside: Beside, settings: &Settings, out: Out) -> Result {
    let file = if beside.announce {
        let path = log_file::path(dir);
        create_private_dir(&dir.join("logs"))?;
        Some(LogFile::open(&path)?)
    } else {
        None
    };
    let sinks = Sinks { silent: beside.background, file, names: Some(commands::service_of) };
    telemetry::init_to(sinks, settings.log.format, &settings.log.filter, out.colour);
    Ok(())
}

/// What to do with a platform that is ready: the terminal, the page of GraphQL, a line for a shell. `key`: the seeded user's,
/// in development.
fn what_next(url: &str, dir: &Path, key: Option<&str>) -> String {
    let dir = dir.display();
    let Some(key) = key else { return format!("terminal  fafnir --data-dir {dir} trade\n") };
    let query = r#"{"query":"{ getStockQuote(symbol: \"AAPL\") { data { price } } }"}"#;
    format!(
        "terminal  fafnir --data-dir {dir} trade --demo\n\
         GraphQL   {url}/\n\
         curl      curl -u {key} -H 'Content-Type: application/json' -d '{query}' {url}/graphql\n\n"
    )
}

/// The addresses of a stack that is ready.
pub fn say_ready(
    run: &RunFile,
    settings: &Settings,
    dir: &Path,
    took: Duration,
    hint: &str,
    out: Out,
) -> Result {
    let is_whole = run.services.contains_key("api-gateway") && run.services.contains_key("auth-service");
    let key = if is_whole && settings.mode == Mode::Development { seed::development_key()? } else { None };
    let nats = without_password(&run.nats);
    let ready = Ready { ready: true, pid: run.pid, data_dir: dir, nats: &nats, services: &run.services };
    let ready = serde_json::to_string(&ready).map_err(|e| Error::new(Exit::Failure, e.to_string()))?;
    out.line(&ready, || {
        let mut rows: Vec<Vec<String>> =
            run.services.iter().map(|(n, a)| vec![n.clone(), a.clone()]).collect();
        rows.push(vec!["nats".into(), nats.clone()]);
        rows.push(vec!["data".into(), dir.display().to_string()]);
        if let Some(key) = &key {
            rows.push(vec!["API key".into(), key.clone()]);
        }
        let table = crate::output::table(&["SERVICE", "ADDRESS"], &rows);
        let next = run.services.get("api-gateway").filter(|_| is_whole);
        let next = next.map_or_else(String::new, |url| what_next(url, dir, key.as_deref()));
        format!("{table}\n{next}ready in {} ms; {hint}\n", took.as_millis())
    });
    Ok(())
}

async fn start(
    services: &[&'static Service],
    beside: Beside,
    settings: Settings,
    shutdown: CancellationToken,
    out: Out,
) -> Result<Running> {
    let who = match services {
        [] if beside.simulator => simulator::NAME,
        [service] => service.name,
        _ => tls::PLATFORM,
    };
    let starting = compose::start_as(who, services, settings, Clock::wall(), shutdown);
    let mut running = starting.await.map_err(refused)?;
    if beside.seed {
        seed::first_run(&running.context, out).await?;
    }
    if beside.simulator {
        let health = Health::default();
        let of_platform = running.context.clone();
        let mut ctx = Context { service: simulator::NAME, health: health.clone(), ..of_platform };
        if services.is_empty() {
            let port = ctx.settings.ports.simulator;
            compose::open_operations(&mut running, &mut ctx, port).await.map_err(refused)?;
        }
        let stopped = running.tasks.shutdown().clone();
        tokio::select! {
            result = simulator::start(ctx) => result?,
            () = stopped.cancelled() => return Err(Error::new(Exit::Interrupted, "interrupted")),
        }
        health.started();
    }
    if beside.seed && beside.simulator {
        // It takes seconds, and nothing that is ready waits for it.
        let sessions = seed::play_sessions(running.context.clone());
        running.tasks.spawn_until_shutdown("sessions before the first", sessions);
    }
    Ok(running)
}

/// Why something did not start: a port, what the configuration of TLS does not allow, or its own reason.
fn refused(e: anyhow::Error) -> Error {
    let e = match e.downcast::<PortError>() {
        Ok(port) => return port_taken(&port),
        Err(e) => e,
    };
    let e = match e.downcast::<tls::Exposed>() {
        Ok(exposed) => {
            return Error::new(Exit::Usage, exposed.to_string())
                .code(Reason::CONFIGURATION)
                .hint(tls::EXPOSED_HINT);
        }
        Err(e) => e,
    };
    match e.downcast::<tls::Error>() {
        Ok(file) => Error::new(Exit::Usage, file.to_string()).code(Reason::CONFIGURATION).hint(
            "`fafnir secrets tls DIR` makes certificates; `fafnir config --show-origin` shows the settings",
        ),
        Err(e) => Error::from(e),
    }
}

/// Names the port, its service and the flag that changes it.
fn port_taken(e: &PortError) -> Error {
    let owner = ports::owner_of(e.port).map(|owner| format!(", taken by {owner}")).unwrap_or_default();
    let message = format!("{} cannot listen on {}:{}: {}{owner}", e.service, e.host, e.port, e.source);
    Error::new(Exit::Failure, message)
        .code(Reason::PORT_TAKEN)
        .hint(format!("choose another with {}, or let the system choose all with `--ports auto`", e.flag))
}

/// First Ctrl-C or SIGTERM drains, the second ends at once.
pub fn watch_signals(shutdown: CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if shutdown.is_cancelled() {
                std::process::exit(Exit::Interrupted as i32);
            }
            tracing::info!("stopping; Ctrl-C again ends at once");
            shutdown.cancel();
        }
    }))
}
