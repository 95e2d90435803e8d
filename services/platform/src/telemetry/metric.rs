//! The metrics of the process: what each tells, and their text for Prometheus.

use crate::{
    http::files,
    tasks::{Schedule, Tasks},
};
use Kind::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::{convert::Infallible, sync::OnceLock, time::Duration};

static METRICS: OnceLock<Option<PrometheusHandle>> = OnceLock::new();

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
    let Some(recorder) = recorder() else { return String::new() };
    #[cfg(target_os = "linux")]
    process();
    recorder.render()
}

/// Installs the recorder, once per process.
pub fn recorder() -> &'static Option<PrometheusHandle> {
    METRICS.get_or_init(|| {
        PrometheusBuilder::new()
            .set_buckets(&[0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0])
            .ok()
            .and_then(|b| b.install_recorder().ok())
            .inspect(|_| {
                describe();
                metrics::gauge!("fafnir_build_info", "version" => env!("CARGO_PKG_VERSION")).set(1.0);
            })
    })
}

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// Every metric of the platform and what it tells; those of the process are `process_*` by Prometheus' convention.
const METRICS_TOLD: &[(&str, Kind, &str)] = &[
    ("fafnir_audit_findings", Gauge, "What the last audit found wrong, by check"),
    ("fafnir_audit_looked", Gauge, "What the last audit looked at, by check"),
    ("fafnir_broker_api_errors_total", Counter, "Requests of JetStream's API that were refused"),
    ("fafnir_broker_api_requests_total", Counter, "Requests of JetStream's API"),
    ("fafnir_broker_commit_seconds", Histogram, "Time of a commit of the embedded broker's store"),
    ("fafnir_broker_connections", Gauge, "Connections of the embedded broker"),
    ("fafnir_broker_consumers", Gauge, "Consumers of the embedded broker"),
    ("fafnir_broker_in_bytes_total", Counter, "Bytes of the messages that clients published"),
    ("fafnir_broker_in_messages_total", Counter, "Messages that clients published"),
    ("fafnir_broker_out_bytes_total", Counter, "Bytes of the messages that clients were sent"),
    ("fafnir_broker_out_messages_total", Counter, "Messages that clients were sent"),
    (
        "fafnir_broker_slow_consumers_total",
        Counter,
        "Connections that were ended because they read too slowly",
    ),
    ("fafnir_broker_store_changes_unsynced", Gauge, "Changes of the broker's store that are not durable yet"),
    ("fafnir_broker_store_has_room", Gauge, "1 while the broker's store takes messages"),
    ("fafnir_broker_stored_messages", Gauge, "Messages that the broker keeps"),
    ("fafnir_broker_streams", Gauge, "Streams of the embedded broker"),
    ("fafnir_broker_stored_bytes", Gauge, "Bytes of the messages that the broker keeps"),
    ("fafnir_broker_subscriptions", Gauge, "Subscriptions of the embedded broker"),
    ("fafnir_build_info", Gauge, "1, with the version of the program"),
    (
        "fafnir_bus_answers",
        Gauge,
        "1 while the broker has the stream that a service owns, 0 while it does not answer",
    ),
    ("fafnir_connections", Gauge, "Open connections of a door, by service"),
    ("fafnir_connections_displaced_total", Counter, "Idle connections that made room for new ones"),
    ("fafnir_connections_refused_total", Counter, "Connections that a door had no place for, by service"),
    ("fafnir_db_commit_seconds", Histogram, "Time of a commit of a SQLite store, by service"),
    (
        "fafnir_db_connections",
        Gauge,
        "Connections to Postgres of this process, by database and whether they are used",
    ),
    ("fafnir_disk_free_bytes", Gauge, "Room left where the process keeps its data"),
    ("fafnir_disk_stage", Gauge, "0 enough room, 1 alarm, 2 only cancels are taken, 3 nothing is written"),
    (
        "fafnir_facts_applied_total",
        Counter,
        "Facts that a service has stored the effects of, by service and stream",
    ),
    ("fafnir_facts_published_total", Counter, "Facts that the engine has published"),
    ("fafnir_follower_lag", Gauge, "Facts that a follower has not said to have stored, by follower"),
    (
        "fafnir_log_sync_seconds",
        Histogram,
        "Time until a write of the journal or the fact log was durable, by log",
    ),
    ("fafnir_market_data_dropped_total", Counter, "Messages of market data that there was no room for"),
    ("fafnir_passwords_waiting", Gauge, "Sign-ins and registrations that wait for a thread that hashes"),
    ("fafnir_position", Gauge, "Position of the exchange: facts so far"),
    ("fafnir_ready", Gauge, "1 while a service is ready, 0 while it is not, as its /readyz says"),
    ("fafnir_request_seconds", Histogram, "Time until a request was answered, by service, method and status"),
    ("fafnir_settled_trades_total", Counter, "Trades that the books have settled"),
    ("fafnir_sign_ins_total", Counter, "Sign-ins by result"),
    ("fafnir_spans_total", Counter, "Spans of traces, by service and whether the collector took them"),
    ("fafnir_store_damaged", Gauge, "1 where a store was found damaged, by service"),
    ("fafnir_transaction_retries_total", Counter, "Transactions that Postgres had run again"),
    ("fafnir_websockets", Gauge, "Open WebSockets of the gateway"),
];

fn describe() {
    for (name, kind, text) in METRICS_TOLD {
        match kind {
            Counter => metrics::describe_counter!(*name, *text),
            Gauge => metrics::describe_gauge!(*name, *text),
            Histogram => metrics::describe_histogram!(*name, *text),
        }
    }
    for (name, text) in [
        ("process_open_fds", "Open files"),
        ("process_max_fds", "Open files at most"),
        ("process_resident_memory_bytes", "Memory in use"),
        ("process_virtual_memory_bytes", "Memory reserved"),
        ("process_start_time_seconds", "When the process began, as Unix time"),
        ("process_threads", "Threads"),
    ] {
        metrics::describe_gauge!(name, text);
    }
    metrics::describe_counter!("process_cpu_seconds_total", "Whole seconds of a core that were spent");
}

/// Puts what the system says of this process where it is scraped. What it does not say stays as it was.
#[cfg(target_os = "linux")]
fn process() {
    use procfs::{WithCurrentSystemInfo as _, process::Process};
    let Ok(process) = Process::myself() else { return };
    if let Ok(open) = process.fd_count() {
        metrics::gauge!("process_open_fds").set(open as f64);
    }
    metrics::gauge!("process_max_fds").set(files::limit().map_or(f64::INFINITY, |limit| limit as f64));
    let Ok(stat) = process.stat() else { return };
    let ticks = procfs::ticks_per_second() as f64;
    let spent = (stat.utime + stat.stime) / procfs::ticks_per_second();
    metrics::counter!("process_cpu_seconds_total").absolute(spent);
    metrics::gauge!("process_resident_memory_bytes").set(stat.rss_bytes().get() as f64);
    metrics::gauge!("process_virtual_memory_bytes").set(stat.vsize as f64);
    metrics::gauge!("process_threads").set(stat.num_threads as f64);
    if let Ok(boot) = procfs::boot_time_secs() {
        metrics::gauge!("process_start_time_seconds").set(boot as f64 + stat.starttime as f64 / ticks);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, path::Path};

    fn names(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() && path.file_name().is_some_and(|name| name != "tests" && name != "target") {
                names(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") && !path.ends_with("telemetry/metric.rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
                for rest in text.split("\"fafnir_").skip(1) {
                    let (name, after) = rest.split_at(rest.find(|c| !is_name(c)).unwrap_or(rest.len()));
                    if after.starts_with('"') {
                        found.insert(format!("fafnir_{name}"));
                    }
                }
            }
        }
    }

    #[test]
    fn every_metric_of_the_program_is_described_and_nothing_else() {
        let (told, mut found) = (METRICS_TOLD.iter().map(|told| told.0.to_owned()), BTreeSet::new());
        names(&Path::new(env!("CARGO_MANIFEST_DIR")).join(".."), &mut found);
        found.insert("fafnir_build_info".to_owned());
        // The name of the crate.
        found.remove("fafnir_broker");
        let told: BTreeSet<String> = told.collect();
        assert_eq!(told.symmetric_difference(&found).collect::<Vec<_>>(), Vec::<&String>::new());
    }

    #[test]
    fn what_is_scraped_has_its_help_and_the_figures_of_the_process() {
        recorder();
        let text = render_metrics();
        for name in ["fafnir_build_info", "process_resident_memory_bytes", "process_open_fds"] {
            assert!(text.contains(&format!("# HELP {name} ")), "{text}");
            assert!(text.lines().any(|line| line.starts_with(name)), "{text}");
        }
    }
}
