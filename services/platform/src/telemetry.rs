//! Logs for people or as JSON, and the metrics of the process.

mod metric;
pub mod trace;

pub use metric::{recorder, render_metrics, spawn_upkeep};

use super::log_file::LogFile;
use std::sync::Mutex;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter,
    fmt::{
        self, FmtContext,
        format::{FormatEvent, FormatFields, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    util::SubscriberInitExt as _,
};

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    Human,
    Json,
}

/// Where the log goes.
#[derive(Debug, Default)]
pub struct Sinks {
    /// Nothing goes to stderr: nobody reads it.
    pub silent: bool,
    /// JSON lines go here too.
    pub file: Option<LogFile>,
    /// The service whose code wrote a line, by its module.
    pub names: Option<fn(&str) -> &str>,
}

/// Columns of a service's name in a line.
const NAME_COLUMNS: usize = 17;

/// A line for people: `12:04:31 order-service      accepted … key=value`, in UTC. The level stands there where it is
/// not INFO; the module never does.
struct Lines {
    names: Option<fn(&str) -> &str>,
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let (level, target) = (event.metadata().level(), event.metadata().target());
        let module = target.split("::").next().unwrap_or(target);
        let name = self.names.map_or(module, |names| names(target));
        let now = time::OffsetDateTime::now_utc();
        let (hour, minute, second) = (now.hour(), now.minute(), now.second());
        let (dim, mark, reset) = match (writer.has_ansi_escapes(), *level) {
            (false, _) => ("", "", ""),
            (true, Level::ERROR) => ("\x1b[2m", "\x1b[1;31m", "\x1b[0m"),
            (true, Level::WARN) => ("\x1b[2m", "\x1b[1;33m", "\x1b[0m"),
            (true, _) => ("\x1b[2m", "\x1b[2m", "\x1b[0m"),
        };
        write!(writer, "{dim}{hour:02}:{minute:02}:{second:02} {name:<NAME_COLUMNS$}{reset} ")?;
        if *level != Level::INFO {
            write!(writer, "{mark}{level}{reset} ")?;
        }
        context.field_format().format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
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
            let stderr = stderr.event_format(Lines { names: sinks.names });
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
