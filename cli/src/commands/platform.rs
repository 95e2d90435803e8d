//! Commands that run services, or look at those that run.

use super::{demo, doctor, secrets::certificates, sim_check};
use crate::{
    args::{Global, Ready, Seed, ServiceArgs, Sim, SimLook, Up},
    background, doors,
    output::{Error, Exit, Out, Result, table},
    run::{self, Beside},
    seed::{self, How, Seeds},
    settings, stack,
};
use fafnir_proto::reason::Reason;
use fafnir_services::platform::config::without_password;
use fafnir_services::{
    ALL, by_name, compose,
    platform::{Clock, Context, Settings, disk::Stage, telemetry, tls},
};
use serde_json::json;
use std::{
    fs,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// How long `down` waits for a stack to drain (reliability.md: at most 25 s).
const DOWN_WAIT_MAX: Duration = Duration::from_secs(30);
const POLL: Duration = Duration::from_millis(50);

fn text(value: Option<impl ToString>) -> Option<String> {
    value.map(|v| v.to_string())
}

/// Whole, so that it is the same file for whoever runs elsewhere.
fn market_file(args: &Up) -> Result<Option<String>> {
    let Some(path) = &args.market_file else { return Ok(None) };
    let whole = fs::canonicalize(path).map_err(|e| {
        Error::new(Exit::Usage, format!("--market-file {}: {e}", path.display())).code(Reason::SEEDS)
    })?;
    let text = whole.to_str().map(str::to_owned);
    text.map(Some)
        .ok_or_else(|| Error::new(Exit::Usage, "--market-file: its path must be UTF-8").code(Reason::SEEDS))
}

pub async fn up(global: &Global, args: &Up, out: Out) -> Result {
    let mut settings = settings::settings(
        global,
        &[
            ("bind.auto", args.ports.as_ref().map(|_| "true".to_owned())),
            ("ports.gateway", text(args.port)),
            ("ports.broker", text(args.broker_port)),
            ("ports.broker_monitor", text(args.monitor_port)),
            ("sim.enabled", args.no_sim.then(|| "false".to_owned())),
            ("sim.rate", args.sim_rate.clone()),
            ("sim.symbols", args.sim_symbols.clone()),
            ("sim.market", args.market.map(|mood| mood.name().to_owned())),
            ("sim.seed", text(args.seed)),
            ("sim.market_file", market_file(args)?),
            ("sim.market_symbol", args.market_symbol.clone()),
            ("sim.market_speed", args.speed.clone()),
            ("sim.market_from", args.from.clone()),
        ],
    )?;
    if args.detach {
        return detach(&settings, out).await;
    }
    if args.background {
        background::leave_terminal()?;
    }
    if args.with_parent {
        background::stop_with_parent()?;
    }
    if args.fresh {
        let names: Vec<&str> = ALL.iter().map(|s| s.name).collect();
        let _lock = stack::lock(&settings.data_dir(), &names)?;
        stack::clear(&settings.data_dir())?;
    }
    if args.tls {
        certificates::of_platform(&mut settings)?;
    }
    if !args.services.is_empty() {
        let services = ALL.iter().copied().filter(|s| args.services.iter().any(|name| name == s.name));
        return run::run(services.collect(), Beside::default(), settings, out).await;
    }
    let beside =
        Beside { seed: true, simulator: settings.sim.enabled, announce: true, background: args.background };
    let dir = settings.data_dir();
    let ended = run::run(run::all_services(&settings), beside, settings, out).await;
    if args.with_parent {
        demo::remove_left(&dir);
    }
    ended
}

/// The same command again without `--detach`, in the background.
async fn detach(settings: &Settings, out: Out) -> Result {
    let dir = &settings.data_dir();
    if let Some(run) = stack::running(dir) {
        return Err(Error::new(
            Exit::Failure,
            format!("a platform runs on {} already, in process {}", dir.display(), run.pid),
        )
        .code(Reason::DATA_DIR_IN_USE)
        .hint("stop it with `fafnir down`, or name another directory with --data-dir"));
    }
    let started = Instant::now();
    let arguments: Vec<_> = std::env::args_os().skip(1).filter(|a| a != "--detach").collect();
    let run = background::start(dir, &arguments, out).await?;
    let hint = "`fafnir logs -f` follows it, `fafnir down` stops it";
    run::say_ready(&run, settings, dir, started.elapsed(), hint, out)
}

pub async fn service(global: &Global, name: &str, port_key: &str, args: &ServiceArgs, out: Out) -> Result {
    let settings = settings::settings(global, &[(port_key, text(args.port))])?;
    let service = by_name(name)
        .ok_or_else(|| Error::new(Exit::Failure, format!("{name} is not in the table of services")))?;
    run::run(vec![service], Beside::default(), settings, out).await
}

pub async fn sim(global: &Global, args: &Sim, out: Out) -> Result {
    if let Some(SimLook::Check(check)) = &args.look {
        return sim_check::run(check, out);
    }
    let settings = settings::settings(
        global,
        &[
            ("sim.rate", args.rate.clone()),
            ("sim.symbols", args.symbols.clone()),
            ("sim.market", args.market.map(|mood| mood.name().to_owned())),
            ("sim.seed", text(args.seed)),
        ],
    )?;
    run::run(Vec::new(), Beside { simulator: true, ..Beside::default() }, settings, out).await
}

/// Opens every database, which brings it to the newest schema.
pub async fn migrate(global: &Global, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    telemetry::init(settings.log.format, &settings.log.filter, out.colour);
    let names: Vec<&str> = ALL.iter().map(|s| s.name).collect();
    stack::check(&settings.data_dir())?;
    let _lock = stack::lock(&settings.data_dir(), &names)?;
    let applied = compose::migrate(&settings).await?;
    let document: Vec<_> =
        applied.iter().map(|(service, n)| json!({"service": service, "migrations": n})).collect();
    out.data(&json!(document), || {
        let rows: Vec<_> = applied.iter().map(|(s, n)| vec![(*s).to_owned(), n.to_string()]).collect();
        table(&["SERVICE", ">MIGRATIONS"], &rows)
    });
    Ok(())
}

pub async fn seed(global: &Global, args: &Seed, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let seeds = match &args.file {
        Some(dir) => Seeds::from_dir(dir)?,
        None => Seeds::of(settings.mode)?,
    };
    if args.dry_run {
        seed::print(&seeds.plan(&args.only), out);
        return Ok(());
    }
    let how = How { only: &args.only, replace: args.replace, no_bar: false };
    let loaded = with_services(settings, out, async |ctx| seed::load(ctx, &seeds, how, out).await);
    seed::print(&loaded.await?, out);
    Ok(())
}

/// Does something with the services of the data directory: a running stack is used as it is; else they are started here,
/// without gateway and simulator.
pub(super) async fn with_services<T>(
    mut settings: Settings,
    out: Out,
    work: impl AsyncFnOnce(&Context) -> Result<T>,
) -> Result<T> {
    telemetry::init(settings.log.format, &settings.log.filter, out.colour);
    let running = stack::running(&settings.data_dir());
    let elsewhere = running.is_some() || !settings.addresses.stock.is_empty();
    let mut services = Vec::new();
    let mut lock = None;
    if let Some(run) = &running {
        adopt(&mut settings, run);
    } else if !elsewhere {
        services = run::all_services(&settings).into_iter().filter(|s| s.name != "api-gateway").collect();
        settings.bind.auto = true;
        stack::check(&settings.data_dir())?;
        lock = Some(stack::lock(&settings.data_dir(), &services.iter().map(|s| s.name).collect::<Vec<_>>())?);
    }
    let shutdown = CancellationToken::new();
    let running = compose::start(&services, settings, Clock::wall(), shutdown.clone()).await?;
    let result = work(&running.context).await;
    shutdown.cancel();
    running.wait().await;
    drop(lock);
    result
}

/// Points the address directory at a running stack.
fn adopt(settings: &mut Settings, run: &stack::RunFile) {
    // Its certificates, where the configuration names none: this process is the platform.
    if !tls::between_services(settings)
        && let Some(dir) = run.authority.as_deref().and_then(std::path::Path::parent)
        && dir.join(tls::PLATFORM).is_dir()
    {
        settings.tls.dir = dir.display().to_string();
    }
    let of = |name: &str| run.services.get(name).cloned().unwrap_or_default();
    let a = &mut settings.addresses;
    a.gateway = of("api-gateway");
    a.auth = of("auth-service");
    a.security = of("security-service");
    a.user = of("user-service");
    a.stock = of("stock-service");
    a.order = of("order-service");
    a.portfolio = of("portfolio-service");
    a.engine = of("trade-engine");
}

/// A context of the running stack, for commands that ask the services themselves.
pub async fn adopted(global: &Global) -> Result<compose::Running> {
    let mut settings = settings::settings(global, &[])?;
    match stack::running(&settings.data_dir()) {
        Some(run) => adopt(&mut settings, &run),
        None if settings.addresses.stock.is_empty() => return Err(doors::not_running(&settings)),
        None => {}
    }
    Ok(compose::start(&[], settings, Clock::wall(), CancellationToken::new()).await?)
}

pub async fn status(global: &Global, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let doors = doors::find(&settings)?;
    let mut rows = Vec::new();
    for door in &doors.each {
        rows.push((door, doors.ready(door).await));
    }
    let services: serde_json::Map<_, _> = rows
        .iter()
        .map(|(door, r)| (door.service.clone(), json!({"address": door.address, "ready": r.is_ok(), "why": r.as_ref().err(), "operations": door.operations})))
        .collect();
    let all_ready = rows.iter().all(|(_, r)| r.is_ok());
    let run = doors.run.as_ref();
    let nats = run.map_or(&settings.nats.url, |run| &run.nats);
    // Processes by themselves have a disk each.
    let disk = if run.is_some() { doctor::room_told(&doors).await } else { None };
    let document = json!({
        "pid": run.map(|r| r.pid), "version": run.map(|r| &r.version), "data_dir": settings.data_dir(),
        "nats": without_password(nats), "ready": all_ready, "services": services,
        "disk": disk.as_ref().map(|(stage, words)| json!({"takes": doctor::takes(*stage), "detail": words})),
    });
    out.data(&document, || {
        let cells: Vec<_> = rows
            .iter()
            .map(|(door, r)| {
                let state =
                    r.as_ref().map_or_else(|why| format!("not ready: {why}"), |()| "ready".to_owned());
                vec![door.service.clone(), door.address.clone(), state]
            })
            .collect();
        let whose = run.map_or_else(
            || "processes of the configuration".to_owned(),
            |run| format!("process {}, data {}", run.pid, settings.data_dir().display()),
        );
        let disk = disk.as_ref().map_or_else(String::new, |(_, words)| format!("disk {words}\n"));
        format!("{whose}\n{disk}\n{}", table(&["SERVICE", "ADDRESS", "STATE"], &cells))
    });
    match disk {
        _ if !all_ready => Err(Error::new(Exit::Failure, "a service is not ready")),
        Some((Stage::CancelOnly | Stage::ReadOnly, words)) => {
            Err(Error::new(Exit::Failure, format!("disk {words}"))
                .code(Reason::DISK_FULL)
                .hint("make room, or move the data directory to another disk"))
        }
        _ => Ok(()),
    }
}

/// What a container's healthcheck asks.
pub async fn ready(global: &Global, args: &Ready, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let port = format!(":{}", args.port);
    let of_stack = stack::running(&settings.data_dir()).and_then(|run| {
        let door = run.operations.values().find(|door| door.ends_with(&port))?.clone();
        Some((door, run))
    });
    let (door, tls) = if let Some((door, run)) = of_stack {
        (door, stack::client(&run)?)
    } else {
        let scheme = if tls::between_services(&settings) { "https" } else { "http" };
        (format!("{scheme}://{}{port}", settings.bind.inner_host_in_url()), tls::client(&settings)?)
    };
    match doors::ready(&door, &tls).await {
        Ok(()) => {
            out.data(&json!({"ready": true}), || "ready\n".to_owned());
            Ok(())
        }
        Err(why) => Err(Error::new(Exit::Failure, format!("not ready: {why}"))),
    }
}

pub async fn down(global: &Global, out: Out) -> Result {
    let settings = settings::settings(global, &[])?;
    let dir = settings.data_dir();
    let run = stack::running(&dir).ok_or_else(|| doors::not_running(&settings))?;
    let pid = i32::try_from(run.pid).ok().and_then(rustix::process::Pid::from_raw);
    let pid = pid.ok_or_else(|| Error::new(Exit::Failure, "run.json names no process"))?;
    rustix::process::kill_process(pid, rustix::process::Signal::TERM)
        .map_err(|e| Error::new(Exit::Failure, format!("process {} cannot be stopped: {e}", run.pid)))?;
    let until = Instant::now() + DOWN_WAIT_MAX;
    while stack::running(&dir).is_some() {
        if Instant::now() > until {
            return Err(Error::new(
                Exit::Timeout,
                format!("process {} has not stopped after {} s", run.pid, DOWN_WAIT_MAX.as_secs()),
            ));
        }
        tokio::time::sleep(POLL).await;
    }
    out.data(&json!({"stopped": true, "pid": run.pid}), || format!("process {} has stopped\n", run.pid));
    Ok(())
}
