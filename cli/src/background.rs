//! A platform as a process of its own, in the background.

use crate::{
    output::{Error, Exit, Out, Result},
    stack::{self, RunFile},
};
use fafnir_proto::reason::Reason;
use fafnir_services::platform::secrets::create_private_dir;
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{Read as _, Seek as _},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// A platform in the background gets this long to be ready, its first seeding included.
const UP_WAIT_MAX: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(50);

/// What the process says beside its log, why it did not start, in one line. By the open file: `--fresh` deletes its name.
fn last_words(mut said: File) -> String {
    let mut words = String::new();
    // Whatever cannot be read is not said; that it did not start is said anyway.
    drop(said.rewind().and_then(|()| said.read_to_string(&mut words)));
    let lines = words.lines().map(|line| line.trim().trim_start_matches("error: "));
    lines.filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Starts `fafnir up` with these arguments (`up` is the first) and waits until it is ready.
pub async fn start(dir: &Path, arguments: &[OsString], out: Out) -> Result<RunFile> {
    launch(dir, arguments, Stdio::null(), out).await.map(|(run, _)| run)
}

/// The same for a platform that ends with this process, however that ends: it notices that nobody holds the other end of
/// the pipe any more, which is what is returned beside it.
pub async fn start_with(dir: &Path, arguments: &[OsString], out: Out) -> Result<(RunFile, Child)> {
    let mut arguments = arguments.to_vec();
    arguments.push("--with-parent".into());
    launch(dir, &arguments, Stdio::piped(), out).await
}

async fn launch(dir: &Path, arguments: &[OsString], stdin: Stdio, out: Out) -> Result<(RunFile, Child)> {
    stack::secure(dir)?;
    create_private_dir(&dir.join("logs"))?;
    let path = dir.join("logs").join("up.err");
    let said = OpenOptions::new().create(true).truncate(true).read(true).write(true).open(path)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments).arg("--background");
    command.stdin(stdin).stdout(Stdio::null()).stderr(said.try_clone()?);
    let mut child = command.spawn()?;
    out.note(format_args!("starting a platform in process {}; `fafnir down` stops it", child.id()));
    let until = Instant::now() + UP_WAIT_MAX;
    loop {
        if let Some(run) = stack::running(dir).filter(|run| run.pid == child.id()) {
            return Ok((run, child));
        }
        if let Some(status) = child.try_wait()? {
            let exit = if status.code() == Some(Exit::Usage as i32) { Exit::Usage } else { Exit::Failure };
            return Err(Error::new(exit, format!("the platform did not start: {}", last_words(said)))
                .code(Reason::NOT_STARTED)
                .hint("`fafnir logs` has more, `fafnir doctor` looks for the cause"));
        }
        let interrupted = tokio::time::timeout(POLL, tokio::signal::ctrl_c()).await.is_ok();
        if interrupted || Instant::now() > until {
            // It is this process's own child and has not ended.
            child.kill()?;
            child.wait()?;
            return Err(if interrupted {
                Error::new(Exit::Interrupted, "interrupted; the platform was stopped")
            } else {
                let s = UP_WAIT_MAX.as_secs();
                Error::new(Exit::Timeout, format!("the platform was not ready in {s} s and was stopped"))
                    .hint("`fafnir logs` has the cause")
            });
        }
    }
}

/// Asks this process to stop when the one that started it is gone: the pipe that is its standard input ends then.
pub fn stop_with_parent() -> Result {
    let watch = || {
        // Nothing is ever written into it.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        // Where it fails there is nobody to tell.
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::TERM);
    };
    std::thread::Builder::new().name("parent".to_owned()).spawn(watch)?;
    Ok(())
}

/// The process that was started leaves the terminal's session: neither its Ctrl-C nor its end reaches it.
pub fn leave_terminal() -> Result {
    rustix::process::setsid()
        .map(drop)
        .map_err(|e| Error::new(Exit::Failure, format!("no session of its own: {e}")))
}
