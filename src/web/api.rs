//! The report as JSON.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Web;
use crate::decision::policy::Mode;
use crate::report::{
    JournalReport, QueueReport, Report, SourceReport, SourceRole, Stamp, StopReport, ZoneReport,
};

/// `/api/v1/status`: everything but the builds themselves.
#[derive(Serialize)]
struct Status<'a> {
    version: &'static str,
    mode: Mode,
    at: Stamp,
    started: Stamp,
    tick: u64,
    settled: bool,
    not_settled: Option<&'a str>,
    pending: usize,
    stuck: usize,
    held: usize,
    sources: &'a [SourceReport],
    queues: &'a [QueueReport],
    zones: &'a [ZoneReport],
    stops: &'a [StopReport],
    journal: &'a JournalReport,
    warnings: &'a [String],
}

#[derive(Serialize)]
struct Problem {
    error: String,
}

pub(super) async fn status(State(web): State<Arc<Web>>) -> Response {
    let report = web.shared.report();
    Json(summary(&report)).into_response()
}

pub(super) async fn builds(State(web): State<Arc<Web>>) -> Response {
    Json(&web.shared.report().builds).into_response()
}

pub(super) async fn build(State(web): State<Arc<Web>>, Path(id): Path<String>) -> Response {
    let report = web.shared.report();
    match report.builds.iter().find(|build| build.id == id) {
        Some(build) => Json(build).into_response(),
        None => {
            let error = format!("no pending build {id}; /api/v1/builds lists them");
            (StatusCode::NOT_FOUND, Json(Problem { error })).into_response()
        }
    }
}

pub(super) async fn providers(State(web): State<Arc<Web>>) -> Response {
    let report = web.shared.report();
    let providers: Vec<&SourceReport> = report
        .sources
        .iter()
        .filter(|source| source.role == SourceRole::Provider)
        .collect();
    Json(providers).into_response()
}

pub(super) async fn attempts(State(web): State<Arc<Web>>) -> Response {
    Json(&web.shared.report().attempts).into_response()
}

fn summary(report: &Report) -> Status<'_> {
    Status {
        version: report.version,
        mode: report.mode,
        at: report.at,
        started: report.started,
        tick: report.tick,
        settled: report.not_settled.is_none(),
        not_settled: report.not_settled.as_deref(),
        pending: report.builds.len(),
        stuck: report.builds.iter().filter(|build| build.stuck).count(),
        held: report
            .builds
            .iter()
            .filter(|build| build.hold.is_some())
            .count(),
        sources: &report.sources,
        queues: &report.queues,
        zones: &report.zones,
        stops: &report.stops,
        journal: &report.journal,
        warnings: &report.warnings,
    }
}
