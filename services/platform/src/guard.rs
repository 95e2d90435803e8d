//! What stands before every gRPC server of the platform: the token check, the caller, the count and time of each method.

use super::{caller, context::Context, secrets::Secrets, telemetry::trace, tls::Callers};
use fafnir_proto::{client, deadline};
use http::HeaderValue;
use metrics::Histogram;
use parking_lot::RwLock;
use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Future, ready},
    pin::Pin,
    sync::Arc,
    task,
    time::Instant,
};
use tonic::{Status, body::Body, server::NamedService};
use tower::Service;

/// Methods of one service that are counted by name; no service has as many.
const METHODS_MAX: usize = 64;
/// What further ones are counted as.
const OTHER: &str = "other";
/// Where a gRPC answer of its head alone has its code.
const GRPC_STATUS: &str = "grpc-status";

type Request = http::Request<Body>;
type Answering = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Infallible>> + Send>>;

/// A server as `fafnir_proto` generates it.
pub trait GrpcServer:
    Service<Request, Response = http::Response<Body>, Error = Infallible, Future = Answering>
    + NamedService
    + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> GrpcServer for S where
    S: Service<Request, Response = http::Response<Body>, Error = Infallible, Future = Answering>
        + NamedService
        + Clone
        + Send
        + Sync
        + 'static
{
}

/// A server that only the platform's own components reach. Its handlers find the caller by [`caller::of`].
#[derive(Debug, Clone)]
pub struct Guarded<S> {
    server: S,
    secrets: Arc<Secrets>,
    callers: Callers,
    methods: Arc<Methods>,
}

impl<S> Guarded<S> {
    pub fn new(ctx: &Context, service: &'static str, server: S) -> Self {
        let methods = Arc::new(Methods { service, by_path: RwLock::default() });
        Self { server, secrets: Arc::clone(&ctx.secrets), callers: ctx.tls.callers(service), methods }
    }
}

impl<S: GrpcServer> Service<Request> for Guarded<S> {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut task::Context<'_>) -> task::Poll<Result<(), Infallible>> {
        self.server.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Answering {
        let started = Instant::now();
        match caller::authenticate(request.headers(), &self.secrets.service_token) {
            Ok(caller) => {
                if let Err(refusal) = self.callers.admit(request.extensions(), request.uri().path(), &caller)
                {
                    return Box::pin(ready(Ok(Status::from(refusal).into_http())));
                }
                request.extensions_mut().insert(caller)
            }
            Err(refusal) => return Box::pin(ready(Ok(Status::from(refusal).into_http()))),
        };
        let seconds = self.methods.seconds(request.uri().path());
        let time = client::time_left_of(request.headers());
        let origin = client::Origin::of(request.headers());
        let span = trace::Open::begin(self.methods.service, origin.trace)
            .map(|span| (span, request.uri().path().trim_start_matches('/').to_owned()));
        let within = span.as_ref().map(|(span, _)| span.trace()).or(origin.trace);
        let answering = client::from(client::Origin { trace: within, ..origin }, self.server.call(request));
        Box::pin(async move {
            let answer = match time {
                Some(time) => deadline::within(time, answering).await,
                None => answering.await,
            };
            // A refusal is an answer of its head alone; what ends later ends after the time that is measured here.
            let code = answer.as_ref().map_or(None, |answer| answer.headers().get(GRPC_STATUS));
            seconds.of(code).record(started.elapsed().as_secs_f64());
            if let Some((span, name)) = span {
                let code = code.and_then(|code| code.to_str().ok()).filter(|code| *code != "0");
                let failed = code.map(|code| ("error", format!("gRPC status {code}")));
                span.end(name, trace::Kind::Server, failed.as_slice());
            }
            answer
        })
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

/// The time of each method of one service, looked up in the registry once where it answers well.
#[derive(Debug)]
struct Methods {
    service: &'static str,
    by_path: RwLock<HashMap<String, Arc<Method>>>,
}

#[derive(Debug)]
struct Method {
    service: &'static str,
    name: String,
    ok: Histogram,
}

impl Method {
    fn new(service: &'static str, name: &str) -> Self {
        Self { service, name: name.to_owned(), ok: seconds(service, name, "0") }
    }

    /// The times of answers with this code; without one it is OK.
    fn of(&self, code: Option<&HeaderValue>) -> Histogram {
        match code.and_then(|code| code.to_str().ok()) {
            None | Some("0") => self.ok.clone(),
            Some(code) => seconds(self.service, &self.name, code),
        }
    }
}

fn seconds(service: &'static str, method: &str, status: &str) -> Histogram {
    let labels =
        [("service", service.to_owned()), ("method", method.to_owned()), ("status", status.to_owned())];
    metrics::histogram!("fafnir_request_seconds", &labels)
}

impl Methods {
    fn seconds(&self, path: &str) -> Arc<Method> {
        if let Some(known) = self.by_path.read().get(path) {
            return Arc::clone(known);
        }
        let mut by_path = self.by_path.write();
        let room = by_path.len() < METHODS_MAX;
        let name = if room { path.rsplit('/').next().unwrap_or_default() } else { OTHER };
        let method = Arc::new(Method::new(self.service, name));
        if room {
            by_path.insert(path.to_owned(), Arc::clone(&method));
        }
        method
    }
}
