//! The HTTP server: metrics, health, the API and the page, all views of the latest report.
//!
//! | path | |
//! |---|---|
//! | `GET /` | the status page |
//! | `GET /metrics` | Prometheus' text format |
//! | `GET /-/healthy` | 200 while the loop ticks |
//! | `GET /-/ready` | 200 while the journal can be written and every source was looked at |
//! | `POST /-/reload` | reads the configuration again; needs the token |
//! | `GET /api/v1/{status,builds,builds/ID,providers,attempts}` | the report as JSON |
//! | `POST /api/v1/builds/ID/{retry,reset}`, `/api/v1/bots/BOT/release-slot` | a repair by hand |
//! | `POST /api/v1/{pause,resume,exclude,include}` | an operator's order |

mod api;
mod guard;
mod hand;
mod page;
mod server;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use tokio::sync::oneshot;

use crate::app::{HandReport, Health, Instruction, OrderWish, Shared};
use crate::config::Token;
use crate::decision::hand::{Refusal, Wish};
use crate::metrics::Metrics;
use crate::report::Report;

pub use guard::{BODY_MAX, BODY_TIMEOUT, HEAD_MAX};
pub use server::{CONNECTION_MAX, CONNECTIONS_MAX, HEADER_TIMEOUT, serve};

/// The longest that a request to reload waits for the loop, which heeds it between two ticks.
const RELOAD_PATIENCE: Duration = Duration::from_secs(60);

/// What the server needs of the loop.
pub trait Daemon: Send + Sync {
    /// The latest tick's report.
    fn report(&self) -> Arc<Report>;

    /// Whether this process does its job, now.
    fn health(&self) -> Health;

    /// What changing endpoints ask for now; without it they are off.
    fn token(&self) -> Option<Arc<Token>>;

    /// Asks for the configuration to be read again; answered with the mistakes where there are some.
    fn request_reload(&self) -> oneshot::Receiver<Result<(), String>>;

    /// Asks for a repair; with a dry run only for what it would be.
    fn request_by_hand(
        &self,
        wish: Wish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<HandReport, Refusal>>;

    /// Orders to leave something alone, or to go on; with a dry run nothing changes.
    fn request_order(
        &self,
        wish: OrderWish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>>;
}

impl Daemon for Shared {
    fn report(&self) -> Arc<Report> {
        Shared::report(self)
    }

    fn health(&self) -> Health {
        Shared::health(self)
    }

    fn token(&self) -> Option<Arc<Token>> {
        Shared::token(self)
    }

    fn request_reload(&self) -> oneshot::Receiver<Result<(), String>> {
        Shared::request_reload(self)
    }

    fn request_by_hand(
        &self,
        wish: Wish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<HandReport, Refusal>> {
        Shared::request_by_hand(self, wish, dry_run)
    }

    fn request_order(
        &self,
        wish: OrderWish,
        dry_run: bool,
    ) -> oneshot::Receiver<Result<Instruction, Refusal>> {
        Shared::request_order(self, wish, dry_run)
    }
}

/// What the handlers read.
pub struct Web {
    /// The loop's latest report, health and token.
    pub shared: Arc<dyn Daemon>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
}

/// The routes, with the guards that every answer passes.
pub fn router(web: Arc<Web>) -> Router {
    guard::begin(&web.metrics);
    Router::new()
        .route("/", get(page::page))
        .route("/style.css", get(page::style))
        .route("/metrics", get(metrics))
        .route("/-/healthy", get(healthy))
        .route("/-/ready", get(ready))
        .route("/-/reload", post(reload))
        .route("/api/v1/status", get(api::status))
        .route("/api/v1/builds", get(api::builds))
        .route("/api/v1/builds/{id}", get(api::build))
        .route("/api/v1/providers", get(api::providers))
        .route("/api/v1/attempts", get(api::attempts))
        .route("/api/v1/builds/{id}/retry", post(hand::retry))
        .route("/api/v1/builds/{id}/reset", post(hand::reset))
        .route("/api/v1/bots/{bot}/release-slot", post(hand::release_slot))
        .route("/api/v1/pause", post(hand::pause))
        .route("/api/v1/resume", post(hand::resume))
        .route("/api/v1/exclude", post(hand::exclude))
        .route("/api/v1/include", post(hand::include))
        .fallback(nothing_here)
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&web),
            guard::guard,
        ))
        .with_state(web)
}

async fn metrics(State(web): State<Arc<Web>>) -> Response {
    let text = web.metrics.render(&web.shared.report());
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

async fn healthy(State(web): State<Arc<Web>>) -> Response {
    let health = web.shared.health();
    answer(health.loop_alive, "healthy", &health.reasons)
}

async fn ready(State(web): State<Arc<Web>>) -> Response {
    let health = web.shared.health();
    let ready = health.loop_alive && health.journal_writable && health.sources_seen;
    answer(ready, "ready", &health.reasons)
}

async fn reload(State(web): State<Arc<Web>>) -> Response {
    let Ok(answer) = tokio::time::timeout(RELOAD_PATIENCE, web.shared.request_reload()).await
    else {
        let text = "asked, and the loop is still busy with a tick; what came of it will be in the \
                    log and in ci_watchdog_config_last_reload_successful\n";
        return (StatusCode::ACCEPTED, text).into_response();
    };
    match answer {
        Ok(Ok(())) => (StatusCode::OK, "reloaded\n").into_response(),
        Ok(Err(mistakes)) => (
            StatusCode::UNPROCESSABLE_ENTITY,
            format!("not reloaded, the configuration from before stays in force:\n{mistakes}\n"),
        )
            .into_response(),
        Err(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the watchdog is stopping\n",
        )
            .into_response(),
    }
}

async fn nothing_here() -> Response {
    (StatusCode::NOT_FOUND, "nothing here; see /\n").into_response()
}

fn answer(good: bool, word: &str, reasons: &[String]) -> Response {
    if good {
        return (StatusCode::OK, format!("{word}\n")).into_response();
    }
    let text = format!("not {word}: {}\n", reasons.join("; "));
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
