//! A stack of the real binary for one test, and the command line as a person uses it.

use serde_json::Value;
use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A stack must be ready within this, on a busy machine and in the dev profile.
const READY_WITHIN: Duration = Duration::from_mins(2);
/// What a test waits for must come within this.
pub const WITHIN: Duration = Duration::from_secs(30);

/// The program: the one that was built with the tests, or FAFNIR_BIN.
pub fn binary() -> Command {
    let other = std::env::var_os("FAFNIR_BIN");
    let mut command = Command::new(other.unwrap_or_else(|| env!("CARGO_BIN_EXE_fafnir").into()));
    // Nothing of the machine's own configuration reaches a test.
    for (name, _) in std::env::vars() {
        if name.starts_with("FAFNIR_") || name.starts_with("XDG_") {
            command.env_remove(name);
        }
    }
    command.env("NO_COLOR", "1");
    command
}

/// From a port of [`port_to_name`] to the one for operations that belongs to it.
pub const OPERATIONS_OFFSET: u16 = 1;
/// Ports that the system gives to nobody who asks for any, at Linux' default.
const NAMED_FIRST: u32 = 10_240;
const NAMED_PAIRS: u32 = 10_000;

/// A free port for a process whose address must be known before it starts, and the one beside it for operations. A port
/// that the system picks could be given to another process until this one has started.
pub fn port_to_name() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    loop {
        let pair = std::process::id().wrapping_mul(97).wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed));
        let port = u16::try_from(NAMED_FIRST + pair % NAMED_PAIRS * 2).unwrap();
        let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free(port) && is_free(port + OPERATIONS_OFFSET) {
            return port;
        }
    }
}

/// One process, killed when it goes out of scope.
#[derive(Debug)]
pub struct Process {
    child: Child,
    pub ready: Value,
    log: PathBuf,
}

impl Process {
    /// Starts a command that prints one ready line, and reads it.
    pub fn start(mut command: Command, log: PathBuf) -> Self {
        let file = fs::File::create(&log).unwrap();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(file).spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut line = String::new();
            drop(BufReader::new(stdout).read_line(&mut line));
            drop(send.send(line));
        });
        let line = receive.recv_timeout(READY_WITHIN).unwrap_or_default();
        match serde_json::from_str(&line) {
            Ok(ready) => Self { child, ready, log },
            Err(e) => {
                drop(child.kill());
                drop(child.wait());
                panic!("not ready ({e}): {line:?}\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
        }
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    pub fn address(&self, service: &str) -> String {
        self.ready["services"][service]
            .as_str()
            .unwrap_or_else(|| panic!("{service}: {}", self.ready))
            .to_owned()
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// A figure of its memory in bytes, by its name in /proc: VmRSS now, VmHWM at most.
    pub fn resident_bytes(&self, name: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
        let kib: usize = line.trim().trim_end_matches(" kB").parse().unwrap();
        kib * 1024
    }

    /// From now on VmHWM is of what comes.
    pub fn forget_peak(&self) {
        fs::write(format!("/proc/{}/clear_refs", self.child.id()), "5").unwrap();
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Ctrl-C, and the exit code.
    pub fn interrupt(&mut self) -> Option<i32> {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let until = Instant::now() + WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "still running:\n{}", self.log());
            std::thread::yield_now();
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(30).collect();
            eprintln!("--- {} (newest first)\n{}", self.log.display(), tail.join("\n"));
        }
    }
}

/// `fafnir up` on its own directory, with one shell (its own kept session) per user.
#[derive(Debug)]
pub struct Stack {
    pub dir: TempDir,
    pub process: Process,
}

impl Stack {
    pub fn up(flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let process = Self::start(dir.path(), flags);
        Self { dir, process }
    }

    /// With a configuration file, which [`Self::configure`] can replace before a restart.
    pub fn configured(config: &str, flags: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("fafnir.toml"), config).unwrap();
        let process = Self::start(dir.path(), flags);
        Self { dir, process }
    }

    /// The same in a directory of the caller's, which goes with the stack.
    pub fn configured_in(dir: TempDir, config: &str, flags: &[&str]) -> Self {
        fs::write(dir.path().join("fafnir.toml"), config).unwrap();
        let process = Self::start(dir.path(), flags);
        Self { dir, process }
    }

    /// The same with variables in its environment.
    pub fn surrounded_in(dir: TempDir, config: &str, flags: &[&str], environment: &[(&str, &Path)]) -> Self {
        fs::write(dir.path().join("fafnir.toml"), config).unwrap();
        let mut command = Self::command(dir.path(), flags);
        command.envs(environment.iter().copied());
        let process = Process::start(command, dir.path().join("up.log"));
        Self { dir, process }
    }

    pub fn configure(&self, config: &str) {
        fs::write(self.dir.path().join("fafnir.toml"), config).unwrap();
    }

    fn start(dir: &Path, flags: &[&str]) -> Process {
        Process::start(Self::command(dir, flags), dir.join("up.log"))
    }

    fn command(dir: &Path, flags: &[&str]) -> Command {
        let mut command = binary();
        command.args(["up", "--json", "--ports", "auto", "--data-dir"]).arg(dir.join("data")).args(flags);
        command.current_dir(dir);
        command
    }

    /// Starts again on the same directory.
    pub fn restart(&mut self, flags: &[&str]) {
        self.process = Self::start(self.dir.path(), flags);
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn shell(&self, user: &str) -> Shell {
        Shell {
            home: self.dir.path().join("home").join(user),
            url: self.process.address("api-gateway"),
            data_dir: self.data_dir(),
            authority: None,
        }
    }

    /// A shell that is signed in.
    pub fn signed_in(&self, email: &str) -> Shell {
        let shell = self.shell(email);
        shell.sign_in(email);
        shell
    }
}

/// A person's shell: its own home directory, pointed at one gateway.
#[derive(Debug, Clone)]
pub struct Shell {
    pub home: PathBuf,
    pub url: String,
    pub data_dir: PathBuf,
    /// Whom its commands believe over TLS.
    pub authority: Option<PathBuf>,
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Answer {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Answer {
    pub fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
    pub fn json(&self) -> Value {
        assert_eq!(self.code, 0, "{self:?}");
        serde_json::from_str(&self.stdout).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }
}

impl Shell {
    pub fn command(&self, args: &[&str]) -> Command {
        fs::create_dir_all(&self.home).unwrap();
        let mut command = binary();
        command.args(args).current_dir(&self.home).env("HOME", &self.home).env("FAFNIR_URL", &self.url);
        command.env("FAFNIR_DATA_DIR", &self.data_dir);
        if let Some(authority) = &self.authority {
            command.env("FAFNIR_AUTHORITY", authority);
        }
        command
    }

    pub fn run(&self, args: &[&str]) -> Answer {
        Answer::of(self.command(args).stdin(Stdio::null()).output().unwrap())
    }

    /// Runs a command with `--json` that must succeed.
    pub fn json(&self, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.push("--json");
        self.run(&args).json()
    }

    pub fn sign_in(&self, email: &str) {
        let answer = self.with_input(&["login", "--email", email, "--password-stdin"], "Password123\n");
        assert_eq!(answer.code, 0, "{answer:?}");
    }

    pub fn with_input(&self, args: &[&str], input: &str) -> Answer {
        use std::io::Write as _;
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        Answer::of(child.wait_with_output().unwrap())
    }

    /// Repeats a question until the answer fits.
    pub fn until(&self, args: &[&str], what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let until = Instant::now() + WITHIN;
        loop {
            let answer = self.json(args);
            if fits(&answer) {
                return answer;
            }
            assert!(Instant::now() < until, "{what} did not come: {answer}");
        }
    }

    /// The USD investment account.
    pub fn account(&self) -> Value {
        let accounts = self.json(&["account", "list"]);
        let found =
            accounts.as_array().unwrap().iter().find(|a| a["type"] == "INVESTMENT" && a["currency"] == "USD");
        found.unwrap_or_else(|| panic!("{accounts}")).clone()
    }

    /// Accounts, positions and what they gained, but for the moment up to which gains are counted: now.
    pub fn portfolio(&self) -> Value {
        let mut portfolio = self.json(&["portfolio"]);
        for name in ["closed", "totals"] {
            for row in portfolio[name].as_array_mut().unwrap() {
                assert!(row.as_object_mut().unwrap().remove("to").is_some(), "{row}");
            }
        }
        portfolio
    }

    /// Shares held of a symbol in all accounts, as `(quantity, held)`.
    pub fn position(&self, symbol: &str) -> (String, String) {
        let portfolio = self.json(&["portfolio"]);
        let found = portfolio["holdings"].as_array().unwrap().iter().find(|h| h["symbol"] == symbol).cloned();
        found.map_or(("0".into(), "0".into()), |h| {
            (h["quantity"].as_str().unwrap().to_owned(), h["held"].as_str().unwrap().to_owned())
        })
    }

    /// The audit of a stack at rest: repeats until the followers have caught up.
    pub fn audit(&self) -> Value {
        let until = Instant::now() + WITHIN;
        loop {
            let answer = self.run(&["audit", "--json"]);
            if answer.code == 0 {
                return answer.json();
            }
            assert!(Instant::now() < until, "{answer:?}");
        }
    }
}
