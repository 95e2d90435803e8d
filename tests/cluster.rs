//! Nine processes on a real Postgres, Redis and nats-server.

use crate::harness::{Answer, OPERATIONS_OFFSET, Process, Shell, WITHIN, binary, port_to_name};
use parking_lot::{Mutex, MutexGuard};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Instant,
};
use tempfile::TempDir;

/// Subcommand, name and key of the configuration.
pub const SERVICES: [(&str, &str, &str); 8] = [
    ("security-service", "security-service", "SECURITY"),
    ("user-service", "user-service", "USER"),
    ("stock-service", "stock-service", "STOCK"),
    ("portfolio-service", "portfolio-service", "PORTFOLIO"),
    ("trade-engine", "trade-engine", "ENGINE"),
    ("order-service", "order-service", "ORDER"),
    ("auth-service", "auth-service", "AUTH"),
    ("gateway", "api-gateway", "GATEWAY"),
];
pub const SECURITY: usize = 0;
pub const USER: usize = 1;
pub const STOCK: usize = 2;
pub const PORTFOLIO: usize = 3;
pub const ENGINE: usize = 4;
pub const ORDER: usize = 5;
pub const AUTH: usize = 6;
pub const GATEWAY: usize = 7;
/// The ninth process.
pub const SIMULATOR: usize = SERVICES.len();
pub const PROCESSES: usize = SIMULATOR + 1;
/// Streams have one name each on a server: one cluster at a time.
static ALONE: Mutex<()> = parking_lot::const_mutex(());
static CLUSTERS: AtomicU32 = AtomicU32::new(0);
static REPLICAS: AtomicU32 = AtomicU32::new(0);

/// The external servers.
#[derive(Debug, Clone)]
pub struct External {
    pub postgres: String,
    pub nats: String,
    pub redis: String,
}

impl External {
    /// None, and a word, where the tests do not name them.
    pub fn named() -> Option<Self> {
        let get = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
        let all =
            (get("FAFNIR_TEST_POSTGRES_URL"), get("FAFNIR_TEST_NATS_URL"), get("FAFNIR_TEST_REDIS_URL"));
        if let (Some(postgres), Some(nats), Some(redis)) = all {
            return Some(Self { postgres, nats, redis });
        }
        assert!(
            get("FAFNIR_TEST_REQUIRE_EXTERNAL").is_none_or(|v| v != "1"),
            "FAFNIR_TEST_{{POSTGRES,NATS,REDIS}}_URL must be set"
        );
        println!(
            "skipped: FAFNIR_TEST_POSTGRES_URL, FAFNIR_TEST_NATS_URL and FAFNIR_TEST_REDIS_URL are not set"
        );
        None
    }
}

/// The processes, seeded and ready. Leaves the servers as they were found.
#[derive(Debug)]
pub struct Cluster {
    pub dir: TempDir,
    pub external: External,
    environment: BTreeMap<String, String>,
    ports: Vec<u16>,
    processes: Vec<Option<Process>>,
    prefix: String,
    _alone: MutexGuard<'static, ()>,
}

impl Cluster {
    /// Starts all but the simulator; `settings` are `FAFNIR_*` variables.
    pub fn up(external: External, settings: &[(&str, &str)]) -> Self {
        Self::up_behind(external, settings, <[String]>::to_vec)
    }

    /// The same, reached at other addresses than their own.
    pub fn up_behind(
        external: External,
        settings: &[(&str, &str)],
        behind: impl FnOnce(&[String]) -> Vec<String>,
    ) -> Self {
        let mut cluster = Self::configured(external, settings, behind);
        cluster.start_services();
        let seeded = Answer::of(cluster.command(&["seed", "--json"]).output().unwrap());
        assert_eq!(seeded.code, 0, "{seeded:?}");
        cluster
    }

    /// Starts all but the simulator on what a backup has. Answers what `restore` said, too.
    pub fn restored(external: External, backup: &Path) -> (Self, Answer) {
        let mut cluster = Self::configured(external, &[], <[String]>::to_vec);
        let restored = cluster.command(&["restore", "--json", backup.to_str().unwrap()]).output().unwrap();
        let restored = Answer::of(restored);
        assert_eq!(restored.code, 0, "{restored:?}");
        cluster.start_services();
        (cluster, restored)
    }

    /// Nothing runs, and nothing is stored.
    fn configured(
        external: External,
        settings: &[(&str, &str)],
        behind: impl FnOnce(&[String]) -> Vec<String>,
    ) -> Self {
        let alone = ALONE.lock();
        let dir = tempfile::tempdir().unwrap();
        delete_streams(&external.nats);
        let ports: Vec<u16> = (0..PROCESSES).map(|_| port_to_name()).collect();
        let prefix = format!("t{}_{}_", std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let own: Vec<String> =
            ports[..SIMULATOR].iter().map(|port| format!("http://127.0.0.1:{port}")).collect();
        let mut environment: BTreeMap<String, String> = SERVICES
            .iter()
            .zip(behind(&own))
            .map(|((_, _, key), address)| (format!("FAFNIR_ADDRESSES_{key}"), address))
            .collect();
        let data = dir.path().join("data").to_string_lossy().into_owned();
        let mut set = |name: &str, value: &str| environment.insert(name.to_owned(), value.to_owned());
        set("FAFNIR_DATABASE_URL", &external.postgres);
        set("FAFNIR_DATABASE_PREFIX", &prefix);
        set("FAFNIR_NATS_URL", &external.nats);
        set("FAFNIR_REDIS_URL", &external.redis);
        set("FAFNIR_SIM_SYMBOLS", "AAPL,F");
        set("FAFNIR_DATA_DIR", &data);
        set("FAFNIR_PORTS_OPERATIONS_OFFSET", &OPERATIONS_OFFSET.to_string());
        set("FAFNIR_PORTS_SIMULATOR", &ports[SIMULATOR].to_string());
        for (name, value) in settings {
            set(name, value);
        }
        let processes = (0..PROCESSES).map(|_| None).collect();
        Self { dir, external, environment, ports, processes, prefix, _alone: alone }
    }

    /// The same with the simulator.
    pub fn up_with_market(external: External, settings: &[(&str, &str)]) -> Self {
        let mut cluster = Self::up(external, settings);
        cluster.start(SIMULATOR);
        cluster
    }

    /// A command in the cluster's environment.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = binary();
        command.args(args).current_dir(self.dir.path()).env("HOME", self.dir.path()).envs(&self.environment);
        command
    }

    fn service(&self, i: usize) -> (Command, PathBuf) {
        let Some((subcommand, name, _)) = SERVICES.get(i) else {
            return (self.command(&["sim", "--json"]), self.dir.path().join("sim.log"));
        };
        let command = self.command(&[subcommand, "--json", "--port", &self.ports[i].to_string()]);
        (command, self.dir.path().join(format!("{name}.log")))
    }

    /// Starts one process, which must become ready.
    pub fn start(&mut self, i: usize) {
        let (command, log) = self.service(i);
        self.processes[i] = Some(Process::start(command, log));
    }

    /// Starts all but the simulator. They wait for each other: none is ready before what it needs, so they start side by
    /// side.
    pub fn start_services(&mut self) {
        let starting: Vec<_> = (0..SERVICES.len())
            .map(|i| {
                let (command, log) = self.service(i);
                std::thread::spawn(move || Process::start(command, log))
            })
            .collect();
        for (i, process) in starting.into_iter().enumerate() {
            self.processes[i] = Some(process.join().unwrap());
        }
    }

    /// One more process of a service, with the same secrets and a data directory of its own, on any port.
    pub fn replica(&self, i: usize, settings: &[(&str, &str)]) -> Process {
        let (subcommand, name, _) = SERVICES[i];
        let replica = REPLICAS.fetch_add(1, Ordering::Relaxed);
        let dir = self.dir.path().join(format!("{name}-{replica}"));
        let secrets = dir.join("secrets");
        fs::create_dir_all(&secrets).unwrap();
        for secret in fs::read_dir(self.data_dir().join("secrets")).unwrap() {
            let secret = secret.unwrap();
            fs::copy(secret.path(), secrets.join(secret.file_name())).unwrap();
        }
        for private in [&dir, &secrets] {
            fs::set_permissions(private, fs::Permissions::from_mode(0o700)).unwrap();
        }
        let mut command = self.command(&[subcommand, "--json"]);
        command.env("FAFNIR_BIND_AUTO", "true").env("FAFNIR_DATA_DIR", &dir).envs(settings.iter().copied());
        Process::start(command, self.dir.path().join(format!("{name}-{replica}.log")))
    }

    /// The URL of a service's database.
    pub fn database(&self, service: &str) -> String {
        format!("{}{}{service}_db", self.external.postgres, self.prefix)
    }

    /// What a service's database answers, in one line.
    pub fn sql(&self, service: &str, sql: &str) -> String {
        let answer = Command::new("psql").args([&self.database(service), "-qAtc", sql]).output().unwrap();
        Answer::of(answer).stdout.trim().to_owned()
    }

    /// What one process has logged since its start.
    pub fn log(&self, i: usize) -> String {
        self.processes[i].as_ref().unwrap().log()
    }

    /// `kill -9` of one process.
    pub fn kill(&mut self, i: usize) {
        self.processes[i].take().unwrap().kill();
    }

    /// A signal to one process, such as STOP, CONT.
    pub fn signal(&self, i: usize, name: &str) {
        let pid = self.processes[i].as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Where one of the services is asked whether it is ready.
    pub fn operations(&self, i: usize) -> u16 {
        self.ports[i] + OPERATIONS_OFFSET
    }

    /// Ends one process in order.
    pub fn stop(&mut self, i: usize) {
        let mut process = self.processes[i].take().unwrap();
        assert_eq!(process.interrupt(), Some(0), "{}", process.log());
    }

    /// What the broker kept is gone, under everybody's feet.
    pub fn wipe_broker(&self) {
        delete_streams(&self.external.nats);
    }

    pub fn gateway(&self) -> String {
        self.own_address(GATEWAY)
    }

    /// Where the process of a service is that was started first.
    pub fn own_address(&self, i: usize) -> String {
        format!("http://127.0.0.1:{}", self.ports[i])
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// A shell that is signed in.
    pub fn signed_in(&self, email: &str) -> Shell {
        let home = self.dir.path().join("home").join(email);
        let shell = Shell { home, url: self.gateway(), data_dir: self.data_dir(), authority: None };
        shell.sign_in(email);
        shell
    }

    /// The audit: repeats until the followers have caught up.
    pub fn audit(&self) -> Value {
        let until = Instant::now() + WITHIN;
        loop {
            let answer = Answer::of(self.command(&["audit", "--json"]).output().unwrap());
            if answer.code == 0 {
                return answer.json();
            }
            assert!(Instant::now() < until, "{answer:?}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.processes.clear();
        delete_streams(&self.external.nats);
        drop_databases(&self.external.postgres, &self.prefix);
    }
}

/// The streams of an earlier stack on the same server are not this one's.
fn delete_streams(url: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let jetstream = async_nats::jetstream::new(async_nats::connect(url).await.unwrap());
        for name in ["users", "facts", "instruments"] {
            // One that is not there is as good as deleted.
            drop(jetstream.delete_stream(name).await);
        }
    });
}

/// Without psql the databases stay for the server's own end.
fn drop_databases(url: &str, prefix: &str) {
    for name in ["auth", "security", "user", "stock", "order", "portfolio", "manifest"] {
        let sql = format!("DROP DATABASE IF EXISTS \"{prefix}{name}_db\" WITH (FORCE)");
        drop(Command::new("psql").args([&format!("{url}postgres"), "-qc", &sql]).output());
    }
}
