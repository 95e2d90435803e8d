//! Serving: gRPC with health, reflection and the token check; the operations door with /metrics, /healthz, /readyz.

use super::{
    context::Context,
    guard::{GrpcServer, Guarded},
    http, telemetry,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use fafnir_proto::in_process::CONCURRENT_CALLS_MAX;
use std::{convert::Infallible, time::Duration};
use tokio::net::TcpListener;
use tonic::{service::Routes, transport::server::TcpIncoming};
use tonic_health::server::HealthReporter;
use tower::{Service as _, ServiceExt as _};

const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(20);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves `server` behind the token check, with health and reflection, until shutdown: on the socket, and to its own
/// process directly. Returns at once; the server is one of the context's tasks.
pub async fn serve_grpc(
    ctx: &Context,
    service: &'static str,
    listener: TcpListener,
    server: impl GrpcServer,
) -> anyhow::Result<()> {
    let (health, router) = guarded(ctx, service, server).await?;
    let shutdown = ctx.tasks.shutdown().clone();
    // Of tonic's own settings only those of the incoming connections reach them. With Nagle's algorithm on, now and then
    // an answer would wait 40 ms for the client's delayed acknowledgement.
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let server = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(Some(CONCURRENT_CALLS_MAX))
        .add_routes(router)
        .serve_with_incoming_shutdown(incoming, async move {
            shutdown.cancelled().await;
            health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        });
    ctx.tasks.spawn(service, server);
    Ok(())
}

/// `server` behind the token check, with health and reflection. The calls of its own process need no router.
async fn guarded(
    ctx: &Context,
    service: &'static str,
    server: impl GrpcServer,
) -> anyhow::Result<(HealthReporter, Routes)> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_service_status("", tonic_health::ServingStatus::Serving).await;
    health.set_service_status(service, tonic_health::ServingStatus::Serving).await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(fafnir_proto::FILE_DESCRIPTORS)
        .build_v1()?;
    let guarded = Guarded::new(ctx, service, server);
    serve_in_process(ctx, service, guarded.clone());
    Ok((health, Routes::new(guarded).add_service(health_service).add_service(reflection)))
}

/// Takes the calls of this process from now on, until shutdown; those under way then end in order.
fn serve_in_process(ctx: &Context, service: &'static str, guarded: Guarded<impl GrpcServer>) {
    let Some(place) = ctx.clients.place(service).cloned() else { return };
    place.serve(Box::new(move |request| guarded.clone().call(request)));
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("calls in process", async move {
        shutdown.cancelled().await;
        place.close();
        place.closed().await;
        Ok::<(), Infallible>(())
    });
}

/// Serves REST and gRPC on one port until shutdown: a request whose content type is `application/grpc…` goes to
/// `server` (behind the token check, with health and reflection), every other one to `rest`. Returns at once.
pub async fn serve_both(
    ctx: &Context,
    service: &'static str,
    listener: TcpListener,
    rest: Router,
    server: impl GrpcServer,
) -> anyhow::Result<()> {
    let (health, grpc) = guarded(ctx, service, server).await?;
    let grpc = grpc.prepare().into_axum_router();
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("health", async move {
        shutdown.cancelled().await;
        health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        Ok::<(), Infallible>(())
    });
    http::serve_http(ctx, service, listener, by_content_type(rest, grpc));
    Ok(())
}

/// One router out of two, told apart by the content type of gRPC.
pub fn by_content_type(rest: Router, grpc: Router) -> Router {
    rest.layer(middleware::from_fn(move |request: Request, next: Next| {
        let grpc = grpc.clone();
        async move {
            let content_type = request.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
            if content_type.is_some_and(|t| t.starts_with(b"application/grpc")) {
                grpc.oneshot(request).await.into_response()
            } else {
                next.run(request).await
            }
        }
    }))
}

/// Serves /metrics, /healthz (alive) and /readyz (ready) until shutdown.
pub fn serve_operations(ctx: &Context, listener: TcpListener) {
    telemetry::recorder();
    let (health, disk) = (ctx.health.clone(), ctx.disk.clone());
    let router = Router::new()
        .route("/metrics", get(|| async { telemetry::render_metrics() }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let ready = health.ready().and_then(|()| disk.trouble().map_or(Ok(()), Err));
                async move {
                    match ready {
                        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                    }
                }
            }),
        );
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("operations", async move {
        axum::serve(listener, router).with_graceful_shutdown(async move { shutdown.cancelled().await }).await
    });
}
