//! Spans on their way to a collector, by OTLP over gRPC: what a request passed, and how long it took there.
//!
//! A span is made when it ends, and only where a collector is named and the request's trace is recorded: until then a
//! request carries 25 bytes. Nothing waits for a collector; what it does not take in time is dropped and counted.

use crate::{clock, config};
use fafnir_proto::{client, tls, trace::Trace};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{
        BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanEvents, SpanExporter, SpanLinks,
        SpanProcessor as _,
    },
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, SystemTime},
};

/// Spans of one service that wait to be sent; further ones are dropped.
const QUEUE_MAX: usize = 4_096;
/// Spans sent together.
const BATCH_MAX: usize = 512;
/// A span waits at most so long to be sent.
const SEND_EVERY: Duration = Duration::from_secs(1);
/// A collector answers within this.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// At the end of the process what waits is sent within this.
const FINISH_MAX: Duration = Duration::from_secs(2);

static EXPORT: OnceLock<Export> = OnceLock::new();

struct Export {
    services: BTreeMap<&'static str, BatchSpanProcessor>,
    one_in: u32,
    requests: AtomicU32,
}

/// `traces.endpoint` is not an address.
#[derive(Debug, thiserror::Error)]
#[error("traces.endpoint: {0:?} is not an address such as http://127.0.0.1:4317")]
pub struct Malformed(String);

/// Sends the spans of these services from now on, where the settings name a collector; the first call of a process
/// counts. Must run inside a tokio runtime.
///
/// # Errors
/// [`Malformed`].
pub fn start(
    settings: &config::Traces,
    services: impl Iterator<Item = &'static str>,
    tls: &tls::Client,
) -> Result<(), Malformed> {
    if settings.endpoint.is_empty() || EXPORT.get().is_some() {
        return Ok(());
    }
    let malformed = || Malformed(settings.endpoint.clone());
    if !["http://", "https://"].iter().any(|scheme| settings.endpoint.starts_with(scheme)) {
        return Err(malformed());
    }
    let channel = client::secured_channel(&settings.endpoint, tls).map_err(|_| malformed())?;
    let mut found = BTreeMap::new();
    for service in services {
        let exporter = opentelemetry_otlp::SpanExporter::builder().with_tonic().with_channel(channel.clone());
        let exporter = exporter.with_timeout(ANSWER_MAX).build().map_err(|_| malformed())?;
        let exporter = Told { exporter, service, is_failing: AtomicBool::new(false) };
        let config = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE_MAX)
            .with_max_export_batch_size(BATCH_MAX)
            .with_scheduled_delay(SEND_EVERY);
        let mut processor = BatchSpanProcessor::builder(exporter).with_batch_config(config.build()).build();
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let instance = KeyValue::new("service.instance.id", std::process::id().to_string());
        let named = Resource::builder_empty().with_service_name(service).with_attributes([version, instance]);
        processor.set_resource(&named.build());
        found.insert(service, processor);
    }
    let export = Export { services: found, one_in: settings.one_in, requests: AtomicU32::new(0) };
    let _first_counts = EXPORT.set(export);
    Ok(())
}

/// Sends what waits, at the end of the process; waits for it.
pub fn finish() {
    let Some(export) = EXPORT.get() else { return };
    for processor in export.services.values() {
        // What a collector does not take now is lost: the process ends.
        let _lost = processor.shutdown_with_timeout(FINISH_MAX);
    }
}

/// The trace of a request that comes in from outside: the one that it names, else a new one, of which one in
/// `traces.one_in` is recorded.
pub fn of_request(given: Option<Trace>) -> Trace {
    given.unwrap_or_else(|| {
        Trace::begin(EXPORT.get().is_some_and(|export| {
            export.one_in > 0 && export.requests.fetch_add(1, Ordering::Relaxed) % export.one_in == 0
        }))
    })
}

/// Whether spans are recorded at all.
pub fn is_on() -> bool {
    EXPORT.get().is_some()
}

/// What a span is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// An answer to a call.
    Server,
    /// What a message brought.
    Consumer,
    /// A part of another span.
    Internal,
}

/// A span under way.
#[derive(Debug, Clone, Copy)]
pub struct Open {
    service: &'static str,
    trace: Trace,
    parent: Option<u64>,
    began: SystemTime,
}

impl Open {
    /// A span of `service` that begins now, as part of `parent`; `None` where it would not be recorded.
    pub fn begin(service: &'static str, parent: Option<Trace>) -> Option<Self> {
        let parent = parent.filter(|trace| trace.is_sampled && EXPORT.get().is_some())?;
        Some(Self { service, trace: parent.child(), parent: Some(parent.span), began: clock::moment() })
    }

    /// The first span of a trace that began here; `None` where it would not be recorded.
    pub fn first(service: &'static str, trace: Trace) -> Option<Self> {
        let is_recorded = trace.is_sampled && EXPORT.get().is_some();
        is_recorded.then(|| Self { service, trace, parent: None, began: clock::moment() })
    }

    /// The same span, which began then.
    #[must_use]
    pub fn since(self, began: SystemTime) -> Self {
        Self { began, ..self }
    }

    /// What spans within this one are part of.
    pub fn trace(&self) -> Trace {
        self.trace
    }

    /// The span has ended.
    pub fn end(self, name: impl Into<Cow<'static, str>>, kind: Kind, told: &[(&'static str, String)]) {
        self.end_at(clock::moment(), name, kind, told);
    }

    /// The span ended then. An attribute `error` tells why it failed.
    pub fn end_at(
        self,
        ended: SystemTime,
        name: impl Into<Cow<'static, str>>,
        kind: Kind,
        told: &[(&'static str, String)],
    ) {
        let Some(processor) = EXPORT.get().and_then(|export| export.services.get(self.service)) else {
            return;
        };
        let context = |span| {
            let (id, span) = (TraceId::from_bytes(self.trace.id.to_be_bytes()), span_id(span));
            SpanContext::new(id, span, TraceFlags::SAMPLED, false, TraceState::NONE)
        };
        let failed = told.iter().find(|(key, _)| *key == "error");
        processor.on_end(SpanData {
            span_context: context(self.trace.span),
            parent_span_id: self.parent.map_or(SpanId::INVALID, span_id),
            parent_span_is_remote: kind != Kind::Internal,
            span_kind: match kind {
                Kind::Server => SpanKind::Server,
                Kind::Consumer => SpanKind::Consumer,
                Kind::Internal => SpanKind::Internal,
            },
            name: name.into(),
            start_time: self.began,
            end_time: ended.max(self.began),
            attributes: told.iter().map(|(key, value)| KeyValue::new(*key, value.clone())).collect(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: failed.map_or(Status::Unset, |(_, why)| Status::error(why.clone())),
            instrumentation_scope: InstrumentationScope::builder("fafnir").build(),
        });
    }
}

fn span_id(span: u64) -> SpanId {
    SpanId::from_bytes(span.to_be_bytes())
}

/// An exporter that says when its collector does not take spans, once, and counts them.
#[derive(Debug)]
struct Told {
    exporter: opentelemetry_otlp::SpanExporter,
    service: &'static str,
    is_failing: AtomicBool,
}

impl SpanExporter for Told {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len() as u64;
        let sent = self.exporter.export(batch).await;
        let result = if sent.is_ok() { "sent" } else { "lost" };
        metrics::counter!("fafnir_spans_total", "service" => self.service, "result" => result)
            .increment(count);
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(e) if !was_failing => {
                tracing::warn!(service = self.service, error = %e, "the collector of traces takes no spans; they are lost");
            }
            Ok(()) if was_failing => {
                tracing::info!(service = self.service, "the collector of traces takes spans again");
            }
            _ => {}
        }
        sent
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
