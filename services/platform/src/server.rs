//! Serving: gRPC with health, reflection and the token check; the operations door with /metrics, /healthz, /readyz.

use super::{
    context::Context,
    envelope::Failure,
    guard::{GrpcServer, Guarded},
    http::{self, Door},
    tasks::Schedule,
    telemetry,
};
use axum::{
    Router,
    extract::Request,
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    middleware::{self, Next},
    response::IntoResponse,
    routing::get,
};
use fafnir_proto::deadline;
use std::{convert::Infallible, sync::LazyLock, time::Duration};
use tokio::net::TcpListener;
use tonic::service::Routes;
use tonic_health::server::HealthReporter;
use tower::{Service as _, ServiceExt as _};

/// How often the metrics are told whether a service is ready.
const READY_EVERY: Duration = Duration::from_secs(1);

/// Reflection: the descriptors are those of every service, so a process of many keeps them once.
static REFLECTION: LazyLock<Result<Routes, tonic_reflection::server::Error>> = LazyLock::new(|| {
    let files = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(fafnir_proto::FILE_DESCRIPTORS);
    Ok(Routes::new(files.build_v1()?))
});

/// Serves `server` behind the token check, with health and reflection, until shutdown: on the socket, and to its own
/// process directly. Returns at once; the server is one of the context's tasks.
pub async fn serve_grpc(
    ctx: &Context,
    service: &'static str,
    listener: TcpListener,
    server: impl GrpcServer,
) -> anyhow::Result<()> {
    let (health, routes) = guarded(ctx, service, server).await?;
    tell_health_of_shutdown(ctx, service, health);
    http::serve_http(
        ctx,
        service,
        Door::inner().secured(ctx.tls.door(service)),
        listener,
        routes.prepare().into_axum_router(),
    );
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
    let guarded = Guarded::new(ctx, service, server);
    serve_in_process(ctx, service, guarded.clone());
    Ok((health, REFLECTION.as_ref()?.clone().add_service(guarded).add_service(health_service)))
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
    tell_health_of_shutdown(ctx, service, health);
    let callers = ctx.tls.callers(service);
    let rest = rest.layer(middleware::from_fn(move |request: Request, next: Next| async move {
        match callers.admit_rest(request.extensions()) {
            Ok(()) => next.run(request).await,
            Err(refusal) => Failure::from(refusal).into_response(),
        }
    }));
    let router = by_content_type(rest, grpc.prepare().into_axum_router());
    let door = Door::inner().secured(ctx.tls.door(service)).answering(deadline::FORWARDED_ANSWER);
    http::serve_http(ctx, service, door, listener, router);
    Ok(())
}

/// Whoever watches the health of a service learns that it stops.
fn tell_health_of_shutdown(ctx: &Context, service: &'static str, health: HealthReporter) {
    let shutdown = ctx.tasks.shutdown().clone();
    ctx.tasks.spawn("health", async move {
        shutdown.cancelled().await;
        health.set_service_status(service, tonic_health::ServingStatus::NotServing).await;
        Ok::<(), Infallible>(())
    });
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
    let ready = move || health.ready().and_then(|()| disk.trouble().map_or(Ok(()), Err));
    let (told, gauge) = (ready.clone(), metrics::gauge!("fafnir_ready", "service" => ctx.service));
    // By itself: one door tells the metrics of all services of its process.
    ctx.tasks.every(format!("{}: readiness", ctx.service), Schedule::at_once(READY_EVERY), move || {
        gauge.set(if told().is_ok() { 1.0 } else { 0.0 });
        std::future::ready(Ok::<(), Infallible>(()))
    });
    let router = Router::new()
        .route("/metrics", get(|| async { telemetry::render_metrics() }))
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || {
                let ready = ready();
                async move {
                    match ready {
                        Ok(()) => (StatusCode::OK, "ready\n".to_owned()),
                        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
                    }
                }
            }),
        );
    http::serve_http(
        ctx,
        "operations",
        Door::operations().secured(ctx.tls.operations(ctx.service)),
        listener,
        router,
    );
}
