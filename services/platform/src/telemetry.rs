//! Logs for people or as JSON, and the metrics of the process.

use super::{
    log_file::LogFile,
    tasks::{Schedule, Tasks},
};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{
    convert::Infallible,
    sync::{Mutex, OnceLock},
    time::Duration,
};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

/// Where the log goes.
#[derive(Debug, Default)]
pub struct Sinks {
    /// Nothing goes to stderr: nobody reads it.
    pub silent: bool,
    /// JSON lines go here too.
    pub file: Option<LogFile>,
}

/// Starts logging to stderr. A second call changes nothing.
pub fn init(format: LogFormat, filter: &str, colour: bool) {
    init_to(Sinks::default(), format, filter, colour);
}

/// Starts logging. A second call changes nothing.
pub fn init_to(sinks: Sinks, format: LogFormat, filter: &str, colour: bool) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let file = sinks.file.map(|file| {
        fmt::layer().json().flatten_event(true).with_writer(Mutex::new(file)).log_internal_errors(false)
    });
    let registry = tracing_subscriber::registry().with(filter).with(file);
    let result = match format {
        _ if sinks.silent => registry.try_init(),
        LogFormat::Human => {
            let stderr = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
            // A full disk takes no line: nothing ends for that.
            registry.with(stderr.log_internal_errors(false)).try_init()
        }
        LogFormat::Json => {
            let stderr = fmt::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(stderr.log_internal_errors(false)).try_init()
        }
    };
    drop(result);
}

/// How often what was recorded since the last scrape is put into its buckets.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Keeps what the metrics hold bounded, also where nobody scrapes them: until then every recorded time is kept.
pub fn spawn_upkeep(tasks: &Tasks) {
    tasks.every("metrics", Schedule::after(UPKEEP_EVERY), || async {
        if let Some(metrics) = recorder() {
            metrics.run_upkeep();
        }
        Ok::<(), Infallible>(())
    });
}

/// The metrics of this process in Prometheus' text format.
pub fn render_metrics() -> String {
    recorder().as_ref().map_or_else(String::new, PrometheusHandle::render)
}

/// Installs the recorder, once per process.
pub fn recorder() -> &'static Option<PrometheusHandle> {
    METRICS.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets(&[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0])
            .ok()
            .and_then(|b| b.install_recorder().ok())
    })
}
