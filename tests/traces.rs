//! What a collector of OpenTelemetry and a reader of the logs see of one order.

use crate::{
    cluster::{Cluster, External, SERVICES},
    harness::{Shell, Stack, WITHIN},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::{KeyValue, any_value::Value as Attribute},
};
use parking_lot::Mutex;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Instant,
};
use tonic::{Request, Response, Status};

/// Who has to do with an order that rests or trades, each with its line of the log at DEBUG.
const CONCERNED: [(&str, &str); 5] = [
    ("api-gateway", "answered"),
    ("order-service", "stored"),
    ("portfolio-service", "stored"),
    ("stock-service", "stored"),
    ("trade-engine", "stepped"),
];

#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    began_ns: u64,
    ended_ns: u64,
    order: String,
}

/// Takes spans, as a collector does.
#[derive(Debug, Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|a| a.key == key).and_then(|a| a.value.as_ref()?.value.as_ref());
    if let Some(Attribute::StringValue(text)) = found { text.clone() } else { String::new() }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for of in request.into_inner().resource_spans {
            let service = text(&of.resource.unwrap().attributes, "service.name");
            let spans = of.scope_spans.into_iter().flat_map(|scope| scope.spans).map(|span| Span {
                service: service.clone(),
                order: text(&span.attributes, "order"),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                began_ns: span.start_time_unix_nano,
                ended_ns: span.end_time_unix_nano,
            });
            self.0.lock().extend(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    /// Serves on a free port for as long as the test runs.
    fn serve(&self) -> (tokio::runtime::Runtime, String) {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = TraceServiceServer::new(self.clone());
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        (runtime, address)
    }

    /// The spans of the trace of an order, as soon as everybody concerned has sent its own.
    fn trace_of(&self, order: &str) -> Vec<Span> {
        let until = Instant::now() + WITHIN;
        loop {
            let spans = self.0.lock().clone();
            let trace = spans.iter().find(|span| span.order == order).map(|span| span.trace.clone());
            let of_it: Vec<Span> = spans.into_iter().filter(|s| Some(&s.trace) == trace.as_ref()).collect();
            let services: BTreeSet<&str> = of_it.iter().map(|span| span.service.as_str()).collect();
            if CONCERNED.iter().all(|(service, _)| services.contains(service)) {
                return of_it;
            }
            assert!(Instant::now() < until, "{services:?} alone have sent spans of {order}: {of_it:?}");
            std::thread::yield_now();
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes)
}

/// One tree: the gateway's span above all, each other within the one that caused it. Answers the trace's id.
fn check_tree(spans: &[Span]) -> String {
    let by_id: BTreeMap<&[u8], &Span> = spans.iter().map(|span| (&span.id[..], span)).collect();
    assert_eq!(by_id.len(), spans.len(), "an id names one span: {spans:?}");
    let parent = |span: &Span| by_id.get(&span.parent[..]).map_or("", |parent| parent.name.as_str());
    let roots: Vec<_> = spans.iter().filter(|span| parent(span).is_empty()).collect();
    assert!(matches!(roots[..], [root] if root.service == "api-gateway"), "{roots:?}");
    let named = |name: &str| {
        spans.iter().find(|s| s.name.ends_with(name)).unwrap_or_else(|| panic!("{name}: {spans:?}"))
    };
    assert_eq!(parent(named("OrderService/Place")), roots[0].name);
    assert!(parent(named("TradeEngine/Execute")).ends_with("OrderService/Place"));
    for part in ["journal written", "commands stepped"] {
        assert!(parent(named(part)).ends_with("TradeEngine/Execute"), "{part}: {spans:?}");
    }
    for span in spans.iter().filter(|span| span.name == "facts stored") {
        assert!(parent(span).ends_with("TradeEngine/Execute"), "{span:?}");
        assert!(span.began_ns >= named("commands stepped").began_ns && span.ended_ns >= span.began_ns);
    }
    hex(&spans[0].trace)
}

/// One line at INFO in all, one at DEBUG for each service concerned, and every line that names the order names its trace.
fn check_log(log: &str, order: &str, trace: &str) {
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let of_it: Vec<&Value> = lines.iter().filter(|line| line["order"] == order).collect();
    assert!(of_it.iter().all(|line| line["trace"] == trace), "{trace}: {of_it:#?}");
    let at = |level: &str| of_it.iter().filter(|line| line["level"] == level).copied().collect::<Vec<_>>();
    let info = at("INFO");
    assert!(
        matches!(info[..], [line] if line["message"] == "accepted" && line["symbol"] == "NVDA"),
        "{info:#?}"
    );
    let debug = at("DEBUG");
    let who = |line: &Value| {
        let target = line["target"].as_str().unwrap_or_default().split("::").next().unwrap_or_default();
        let named = line["service"].as_str().map(str::to_owned);
        let service = named.unwrap_or_else(|| match target {
            "fafnir_gateway" => "api-gateway".to_owned(),
            other => other.trim_start_matches("fafnir_").replace('_', "-"),
        });
        (service, line["message"].as_str().unwrap_or_default().to_owned())
    };
    let mut told: Vec<_> = debug.iter().map(|line| who(line)).collect();
    told.sort();
    let expected: Vec<_> = CONCERNED.iter().map(|(s, m)| ((*s).to_owned(), (*m).to_owned())).collect();
    assert_eq!(told, expected);
    assert_eq!(of_it.len(), info.len() + debug.len(), "{of_it:#?}");
}

/// Each hop: how long after the request came it began, how long it lasted.
fn print(title: &str, spans: &[Span]) {
    let mut spans = spans.to_vec();
    spans.sort_by_key(|span| span.began_ns);
    println!("{title}, microseconds after the request came, and how long it lasted:");
    for span in &spans {
        let (after, lasted) = (span.began_ns - spans[0].began_ns, span.ended_ns - span.began_ns);
        println!("{:>8} {:>8}  {:<18} {}", after / 1_000, lasted / 1_000, span.service, span.name);
    }
}

fn place(shell: &Shell) -> String {
    let order = shell.json(&["order", "place", "buy", "NVDA", "1", "--price", "120.00"]);
    order["id"].as_str().unwrap().to_owned()
}

#[test]
fn one_order_leaves_one_trace_and_a_line_of_each_service() {
    let collector = Collector::default();
    let (_runtime, address) = collector.serve();
    let config = format!(
        "[traces]\nendpoint = \"{address}\"\none_in = 1\n[log]\nformat = \"json\"\nfilter = \"info,fafnir=debug\"\n"
    );
    let stack = Stack::configured(&config, &["--no-sim"]);
    let order = place(&stack.signed_in("user@test.com"));
    let spans = collector.trace_of(&order);
    print("one process", &spans);
    let trace = check_tree(&spans);
    check_log(&stack.process.log(), &order, &trace);
}

#[test]
fn one_order_leaves_one_trace_through_nine_processes() {
    let Some(external) = External::named() else { return };
    let collector = Collector::default();
    let (_runtime, address) = collector.serve();
    let cluster = Cluster::up(
        external,
        &[
            ("FAFNIR_TRACES_ENDPOINT", &address),
            ("FAFNIR_TRACES_ONE_IN", "1"),
            ("FAFNIR_LOG_FORMAT", "json"),
            ("FAFNIR_LOG_FILTER", "info,fafnir=debug"),
        ],
    );
    let shell = cluster.signed_in("user@test.com");
    // The first one opens connections.
    place(&shell);
    let order = place(&shell);
    let spans = collector.trace_of(&order);
    print("nine processes", &spans);
    let trace = check_tree(&spans);
    let log: String = (0..SERVICES.len()).map(|i| cluster.log(i)).collect();
    check_log(&log, &order, &trace);
}
