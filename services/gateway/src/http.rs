//! What is where on the public port (public-api.md §2): REST, GraphQL, WebSocket, gRPC; everything else is 404.

use super::{Gateway, graphql::transport, proxy, terminal, ws};
use axum::{
    Router,
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    middleware::{self, Next},
    response::{Html, IntoResponse, Response},
    routing::{any, any_service, get},
};
use fafnir_platform::{
    config::Mode,
    envelope::Failure,
    telemetry::trace::{self, Kind, Open},
};
use fafnir_proto::{client, trace::Trace, v1::terminal_server::TerminalServer};
use prost::Message as _;
use prost_types::FileDescriptorSet;
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tower_http::{
    compression::{
        CompressionLayer, Predicate as _,
        predicate::{NotForContentType, SizeAbove},
    },
    cors::{AllowOrigin, CorsLayer},
};

/// Bytes of one gRPC message of a client.
const GRPC_MESSAGE_MAX: usize = 256 * 1024;
/// Answers from this many bytes on are compressed for whoever takes that.
const COMPRESSED_FROM: u64 = 1024;
/// Characters of a path in the name of a span.
const PATH_TOLD_MAX: usize = 64;
/// How long a browser remembers what it may send from another origin.
const CORS_MAX_AGE: Duration = Duration::from_hours(1);
const GRAPHIQL: &str = include_str!("graphiql.html");
/// The page runs its own script and style and talks to its own origin; nothing else.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src \
                           'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// Everything that the port serves.
pub async fn router(gateway: &Arc<Gateway>) -> anyhow::Result<Router> {
    let api = transport::Endpoint::new(gateway);
    let graphql = Router::new()
        .route("/graphql", get(transport::get).post(transport::post))
        .route("/graphql/ws", get(ws::upgrade))
        .with_state(api);

    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    health.set_service_status("fafnir.v1.Terminal", tonic_health::ServingStatus::Serving).await;
    let door =
        TerminalServer::new(terminal::Door(gateway.clone())).max_decoding_message_size(GRPC_MESSAGE_MAX);
    let grpc = Router::new()
        .route("/fafnir.v1.Terminal/{method}", any_service(door))
        .route("/grpc.health.v1.Health/{method}", any_service(health_service));
    let is_development = gateway.ctx.settings.mode == Mode::Development;
    let grpc = if is_development { grpc.merge(reflection()?) } else { grpc };

    let mut router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/.well-known/jwks.json", get(jwks))
        .route("/schema.graphql", get(schema))
        .route("/auth/{*path}", any(proxy::forward))
        .route("/openapi.json", get(proxy::forward))
        .with_state(gateway.clone())
        .merge(graphql)
        .merge(grpc);
    if is_development {
        let page = || async { ([(header::CONTENT_SECURITY_POLICY, PAGE_POLICY)], Html(GRAPHIQL)) };
        router = router.route("/", get(page));
    }
    let router = router
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(middleware::from_fn(around))
        .layer(middleware::from_fn_with_state(gateway.clone(), told));
    let router = match cors(gateway)? {
        Some(cors) => router.layer(cors),
        None => router,
    };
    // What is compressed for everybody is of no secret: no token stands in a body beside what a page chooses.
    let large = SizeAbove::new(COMPRESSED_FROM).and(NotForContentType::GRPC);
    Ok(router.layer(CompressionLayer::new().compress_when(large)))
}

/// What the Terminal service has, for tools; nothing of the services behind this door.
fn reflection() -> anyhow::Result<Router> {
    let mut files = FileDescriptorSet::decode(fafnir_proto::FILE_DESCRIPTORS)?;
    for file in &mut files.file {
        file.service.retain(|service| service.name() == "Terminal");
    }
    let builder = || {
        tonic_reflection::server::Builder::configure()
            .register_file_descriptor_set(files.clone())
            .with_service_name("fafnir.v1.Terminal")
    };
    Ok(Router::new()
        .route("/grpc.reflection.v1.ServerReflection/{method}", any_service(builder().build_v1()?))
        .route("/grpc.reflection.v1alpha.ServerReflection/{method}", any_service(builder().build_v1alpha()?)))
}

async fn schema() -> Response {
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], super::graphql::sdl()).into_response()
}

fn cors(gateway: &Gateway) -> anyhow::Result<Option<CorsLayer>> {
    let origins = &gateway.ctx.settings.gateway.cors_origins;
    if origins.is_empty() {
        return Ok(None);
    }
    let origins = origins
        .iter()
        .map(|origin| {
            HeaderValue::from_str(origin.trim_end_matches('/'))
                .map_err(|_| anyhow::anyhow!("gateway.cors_origins: {origin:?} is not an origin"))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    Ok(Some(
        CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_credentials(true)
            .max_age(CORS_MAX_AGE)
            .expose_headers([header::RETRY_AFTER])
            .allow_methods([Method::GET, Method::POST, Method::DELETE])
            .allow_headers([
                header::CONTENT_TYPE,
                header::ACCEPT,
                header::AUTHORIZATION,
                fafnir_platform::csrf::HEADER.parse()?,
                super::key::ID_HEADER,
                super::key::SECRET_HEADER,
            ]),
    ))
}

async fn jwks(State(gateway): State<Arc<Gateway>>) -> Response {
    match gateway.sessions.jwks().await {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json.to_string()).into_response(),
        Err(_) => Failure::new(StatusCode::SERVICE_UNAVAILABLE, "auth-service cannot be reached; try again")
            .into_response(),
    }
}

fn is_grpc(request: &Request) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok());
    content_type.is_some_and(|t| t.starts_with("application/grpc"))
}

async fn not_found(request: Request) -> Response {
    if is_grpc(&request) {
        return tonic::Status::unimplemented("there is no such service here").into_http::<axum::body::Body>();
    }
    Failure::new(StatusCode::NOT_FOUND, "there is nothing here").into_response()
}

async fn method_not_allowed() -> Response {
    Failure::new(StatusCode::METHOD_NOT_ALLOWED, "this method is not allowed here").into_response()
}

/// Where a request came from is told along with every call made on the way: its trace, or a new one, and its address.
async fn told(State(gateway): State<Arc<Gateway>>, request: Request, next: Next) -> Response {
    let address = gateway.client(request.headers(), request.extensions()).ip;
    let given = request.headers().get(client::TRACE_KEY).and_then(|v| v.to_str().ok()).and_then(Trace::parse);
    let trace = trace::of_request(given);
    let span = match given {
        Some(_) => Open::begin(super::SERVICE.name, given),
        None => Open::first(super::SERVICE.name, trace),
    };
    let named = |span| {
        let path = request.uri().path().chars().take(PATH_TOLD_MAX);
        (span, format!("{} {}", request.method(), path.collect::<String>()))
    };
    let span = span.map(named);
    let trace = span.as_ref().map_or(trace, |(span, _)| span.trace());
    let origin = client::Origin { trace: Some(trace), address: Some(address) };
    let response = client::from(origin, next.run(request)).await;
    if let Some((span, name)) = span {
        let status = response.status();
        let failed = status.is_server_error().then(|| ("error", status.to_string()));
        span.end(name, Kind::Server, failed.as_slice());
    }
    response
}

/// Around every request: what a browser must not do with an answer, and how long it took.
async fn around(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let path = request.uri().path().to_owned();
    let grpc = is_grpc(&request);
    let mut response = next.run(request).await;
    // Only paths that exist become labels: what clients make up stays out of the metrics.
    let label = match path.as_str() {
        "/graphql" | "/graphql/ws" | "/healthz" | "/" => path.as_str(),
        path if path.starts_with("/auth/") => "/auth",
        path if path.starts_with("/fafnir.v1.Terminal/") => {
            let answered = grpc && !response.headers().contains_key("grpc-status");
            if answered { path } else { "/fafnir.v1.Terminal refused" }
        }
        _ => "other",
    };
    let code = response.status();
    let status = if grpc {
        // A refusal is an answer of its head alone.
        response.headers().get("grpc-status").and_then(|code| code.to_str().ok()).unwrap_or("0")
    } else {
        code.as_str()
    };
    let labels =
        [("service", "api-gateway".to_owned()), ("method", label.to_owned()), ("status", status.to_owned())];
    metrics::histogram!("fafnir_request_seconds", &labels).record(started.elapsed().as_secs_f64());
    if !grpc {
        let headers = response.headers_mut();
        for (name, value) in [
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CACHE_CONTROL, "no-store"),
        ] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
    }
    response
}
