//! What stands before every gRPC server of the platform: the token check, the caller, the count and time of each method.

use super::{caller, context::Context, secrets::Secrets, tls::Callers};
use fafnir_proto::client;
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
        let answering = client::from(origin, self.server.call(request));
        Box::pin(async move {
            let answer = match time {
                Some(time) => client::within(time, answering).await,
                None => answering.await,
            };
            seconds.record(started.elapsed().as_secs_f64());
            answer
        })
    }
}

impl<S: NamedService> NamedService for Guarded<S> {
    const NAME: &'static str = S::NAME;
}

/// The time of each method of one service, looked up in the registry once.
#[derive(Debug)]
struct Methods {
    service: &'static str,
    by_path: RwLock<HashMap<String, Histogram>>,
}

impl Methods {
    fn seconds(&self, path: &str) -> Histogram {
        if let Some(known) = self.by_path.read().get(path) {
            return known.clone();
        }
        let mut by_path = self.by_path.write();
        let room = by_path.len() < METHODS_MAX;
        let method = if room { path.rsplit('/').next().unwrap_or_default() } else { OTHER };
        let seconds = metrics::histogram!(
            "fafnir_request_seconds", "service" => self.service, "method" => method.to_owned()
        );
        if room {
            by_path.insert(path.to_owned(), seconds.clone());
        }
        seconds
    }
}
