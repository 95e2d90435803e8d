//! `fafnir demo`: a platform that nobody keeps, the terminal on it, and nothing of either afterwards.

use super::trade;
use crate::{
    args::{Demo, Global},
    background,
    client::{Client, Gateway},
    output::{Error, Exit, Out, Result},
    stack::RunFile,
};
use fafnir_services::platform::tls;
use rustix::process::{Pid, Signal, kill_process};
use std::{
    ffi::OsString,
    path::Path,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// How long the platform may take to stop before it is ended.
const STOP_WAIT_MAX: Duration = Duration::from_secs(10);
const POLL: Duration = Duration::from_millis(20);
/// What the directory of a demonstration is called.
const PREFIX: &str = "fafnir-demo-";

/// Removes the directory of a demonstration whose own process cannot do it any more.
pub fn remove_left(dir: &Path) {
    let is_ours = dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(PREFIX));
    if is_ours && let Err(e) = std::fs::remove_dir_all(dir) {
        tracing::warn!(error = %e, path = %dir.display(), "the directory cannot be removed");
    }
}

/// The platform's process; gone when this is dropped, however that comes.
struct Stack {
    process: Pid,
}

impl Drop for Stack {
    fn drop(&mut self) {
        let until = Instant::now() + STOP_WAIT_MAX;
        let mut signal = Signal::TERM;
        while kill_process(self.process, signal).is_ok() && !is_reaped(self.process) {
            std::thread::sleep(POLL);
            signal = if Instant::now() < until { Signal::CONT } else { Signal::KILL };
        }
    }
}

/// Takes the end of a child, where it has ended.
fn is_reaped(process: Pid) -> bool {
    let ended = rustix::process::waitpid(Some(process), rustix::process::WaitOptions::NOHANG);
    !matches!(ended, Ok(None))
}

pub async fn demo(global: &Global, args: &Demo, out: Out) -> Result {
    trade::needs_terminal()?;
    // What is wrong in the configuration is told before anything starts.
    trade::configured(global, &mut fafnir_tui::Options::new(String::new()))?;
    let dir = TempDir::with_prefix(PREFIX)?;
    let mut arguments: Vec<OsString> = ["up", "--ports", "auto", "--data-dir"].map(Into::into).to_vec();
    arguments.push(dir.path().into());
    // What the machine is configured for is not this platform's.
    let config = dir.path().join("fafnir.toml");
    std::fs::write(&config, "")?;
    arguments.extend(["--config".into(), config.into()]);
    // Held until the terminal has ended.
    let (run, _child) = background::start_with(dir.path(), &arguments, out).await?;
    let process = i32::try_from(run.pid).ok().and_then(Pid::from_raw);
    let stack = Stack { process: process.ok_or_else(|| Error::new(Exit::Failure, "no process"))? };
    let ended = terminal(global, args, &run).await;
    out.note("stopping the platform and removing what it kept");
    drop(stack);
    match dir.close() {
        // The platform removes it as well, for a process that cannot do it any more.
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => ended,
    }
}

async fn terminal(global: &Global, args: &Demo, run: &RunFile) -> Result {
    let url = run.services.get("api-gateway").cloned();
    let url = url.ok_or_else(|| Error::new(Exit::Failure, "the platform has no gateway"))?;
    let gateway = Gateway { url: url.clone(), tls: tls::Client::default() };
    // The session is kept nowhere.
    let mut options = fafnir_tui::Options::new(url);
    options.session = Some(Client::new(&gateway)?.demo_session().await?);
    options.symbol = args.symbol.clone().unwrap_or_default();
    trade::configured(global, &mut options)?;
    options.theme = trade::theme(global, args.ascii, args.theme)?;
    options.welcome = true;
    trade::ended(fafnir_tui::run(options).await?)
}
