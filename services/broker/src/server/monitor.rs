//! Monitoring over HTTP: `/varz`, `/connz`, `/jsz`, `/healthz`, asked of the core's task, and `/metrics`.

use super::Event;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

/// Longest wait for the core's answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is asked.
#[derive(Debug, Clone, Copy)]
pub enum Question {
    Varz,
    Connz { offset: usize, subscriptions: bool },
    Subsz,
    Jsz { details: bool },
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Options {
    offset: usize,
    subs: String,
    streams: String,
    consumers: String,
}

/// Answers until shutdown.
pub async fn serve(
    listener: TcpListener,
    events: mpsc::Sender<Event>,
    metrics: Option<fn() -> String>,
    shutdown: CancellationToken,
) {
    let ask = |question: fn(Options) -> Question| {
        get(move |State(events): State<mpsc::Sender<Event>>, Query(options): Query<Options>| {
            answer(events, question(options))
        })
    };
    let router = Router::new()
        .route("/varz", get(varz))
        .route("/subsz", ask(|_| Question::Subsz))
        .route(
            "/connz",
            ask(|options| Question::Connz { offset: options.offset, subscriptions: is_set(&options.subs) }),
        )
        .route(
            "/jsz",
            ask(|options| Question::Jsz { details: is_set(&options.streams) || is_set(&options.consumers) }),
        )
        .route("/healthz", get(healthz))
        .route("/readyz", get(healthz))
        .with_state(events);
    let router = match metrics {
        Some(render) => router.route("/metrics", get(move || async move { render() })),
        None => router,
    };
    let served = axum::serve(listener, router).with_graceful_shutdown(shutdown.clone().cancelled_owned());
    tokio::select! {
        outcome = served.into_future() => {
            if let Err(error) = outcome {
                tracing::error!(%error, "monitoring ended");
            }
        }
        () = async { shutdown.cancelled().await; tokio::time::sleep(PATIENCE).await } => {}
    }
}

async fn question(events: &mpsc::Sender<Event>, question: Question) -> Option<Value> {
    let (reply, answer) = oneshot::channel();
    let asked = async {
        events.send(Event::Question { question, reply }).await.ok()?;
        answer.await.ok()
    };
    tokio::time::timeout(PATIENCE, asked).await.ok()?
}

async fn answer(events: mpsc::Sender<Event>, asked: Question) -> Response {
    match question(&events, asked).await {
        Some(value) => Json(value).into_response(),
        None => unavailable(),
    }
}

fn is_set(option: &str) -> bool {
    matches!(option, "1" | "true" | "detail")
}

/// What the core tells, and what only the system knows: memory of the process in bytes, processors.
async fn varz(State(events): State<mpsc::Sender<Event>>) -> Response {
    match question(&events, Question::Varz).await {
        Some(mut value) => {
            value["mem"] = resident_bytes().into();
            value["cores"] = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).into();
            Json(value).into_response()
        }
        None => unavailable(),
    }
}

/// Resident memory as Linux tells it; 0 elsewhere.
fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
    pages * rustix::param::page_size() as u64
}

fn unavailable() -> Response {
    let body = json!({"status": "unavailable", "error": "the broker's core does not answer"});
    (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
}

async fn healthz(State(events): State<mpsc::Sender<Event>>) -> Response {
    match question(&events, Question::Varz).await {
        Some(_) => Json(json!({"status": "ok"})).into_response(),
        None => unavailable(),
    }
}
