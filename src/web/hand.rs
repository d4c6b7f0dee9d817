//! What people ask for through the API: repairs by hand, and orders to leave something alone.
//!
//! Each is a `POST` with the token and a JSON body. `by`, the name of who asks, is always in it; with
//! `dry_run` nothing is done. A refusal is `{"error": …, "gate": …}` with 404 where what it is about is
//! gone, 409 where a gate binds people too (`law_of_reruns` opens with `even_if_alive`), 422 where the
//! body is not what is asked for, and 503 where asking again helps.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::Web;
use crate::app::OrderWish;
use crate::decision::hand::{Refusal, Repair, Wish};
use crate::model::{
    BotName, BuildId, BuildKey, BuildKind, BuilderName, Gate, RepoName, Scope, StopKind,
};
use crate::report::BuildReport;

/// The longest that a request waits for the loop, which heeds it between two ticks and looks again
/// before each of its steps. A connection lasts longer.
const PATIENCE: Duration = Duration::from_secs(100);
/// The longest name of a person, characters.
const NAME_MAX: usize = 100;
/// The longest reason, characters.
const REASON_MAX: usize = 500;
/// The longest pause; what lasts longer is an exclusion.
const PAUSE_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// A repair, as it is asked for.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RepairBody {
    by: String,
    #[serde(default)]
    dry_run: bool,
    #[serde(default)]
    even_if_alive: bool,
}

/// The beginning of a stop.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopBody {
    by: String,
    reason: String,
    /// For how long, as humantime reads it: `2h`.
    #[serde(default, rename = "for")]
    lasts: Option<String>,
    #[serde(default)]
    repo: Option<RepoName>,
    #[serde(default)]
    pull: Option<u64>,
    #[serde(default)]
    builder: Option<BuilderName>,
    #[serde(default)]
    dry_run: bool,
}

/// The end of one stop, or of all of its kind.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GoBody {
    by: String,
    #[serde(default)]
    repo: Option<RepoName>,
    #[serde(default)]
    pull: Option<u64>,
    #[serde(default)]
    builder: Option<BuilderName>,
    #[serde(default)]
    dry_run: bool,
}

#[derive(Serialize)]
struct Problem<'a> {
    error: &'a str,
    gate: Option<Gate>,
}

pub(super) async fn retry(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    rebuild(&web, &id, &body, Repair::Retry).await
}

pub(super) async fn reset(
    State(web): State<Arc<Web>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    rebuild(&web, &id, &body, Repair::Reset).await
}

pub(super) async fn release_slot(
    State(web): State<Arc<Web>>,
    Path(bot): Path<String>,
    body: Bytes,
) -> Response {
    repair(&web, &body, Repair::ReleaseSlot(BotName::new(bot))).await
}

pub(super) async fn pause(State(web): State<Arc<Web>>, body: Bytes) -> Response {
    stop(&web, &body, StopKind::Pause).await
}

pub(super) async fn resume(State(web): State<Arc<Web>>, body: Bytes) -> Response {
    go(&web, &body, StopKind::Pause).await
}

pub(super) async fn exclude(State(web): State<Arc<Web>>, body: Bytes) -> Response {
    stop(&web, &body, StopKind::Exclusion).await
}

pub(super) async fn include(State(web): State<Arc<Web>>, body: Bytes) -> Response {
    go(&web, &body, StopKind::Exclusion).await
}

async fn rebuild(web: &Web, id: &str, body: &[u8], of: fn(BuildId) -> Repair) -> Response {
    let report = web.shared.report();
    match report.builds.iter().find(|build| build.id == id) {
        Some(build) => repair(web, body, of(build_id(build))).await,
        None => refused(&Refusal::Gone(format!(
            "no pending build {id}; /api/v1/builds lists them"
        ))),
    }
}

async fn repair(web: &Web, body: &[u8], repair: Repair) -> Response {
    match wish(body, repair) {
        Ok((wish, dry_run)) => answered(web.shared.request_by_hand(wish, dry_run)).await,
        Err(why) => bad(&why),
    }
}

fn wish(body: &[u8], repair: Repair) -> Result<(Wish, bool), String> {
    let body: RepairBody = read(body)?;
    let wish = Wish {
        repair,
        even_if_alive: body.even_if_alive,
        by: text("by", &body.by, NAME_MAX)?,
    };
    Ok((wish, body.dry_run))
}

async fn stop(web: &Web, body: &[u8], kind: StopKind) -> Response {
    order(web, stop_order(body, kind)).await
}

async fn go(web: &Web, body: &[u8], kind: StopKind) -> Response {
    order(web, go_order(body, kind)).await
}

async fn order(web: &Web, asked: Result<(OrderWish, bool), String>) -> Response {
    match asked {
        Ok((wish, dry_run)) => answered(web.shared.request_order(wish, dry_run)).await,
        Err(why) => bad(&why),
    }
}

fn stop_order(body: &[u8], kind: StopKind) -> Result<(OrderWish, bool), String> {
    let body: StopBody = read(body)?;
    let scope = scope(body.repo, body.pull, body.builder)?;
    if kind == StopKind::Exclusion && scope == Scope::default() {
        return Err(
            "what is excluded must be named: a repo, one pull of it, or a builder; to \
                    stop everything, pause"
                .to_owned(),
        );
    }
    let wish = OrderWish::Stop {
        kind,
        scope,
        reason: text("reason", &body.reason, REASON_MAX)?,
        by: text("by", &body.by, NAME_MAX)?,
        lasts: body.lasts.as_deref().map(duration).transpose()?,
    };
    Ok((wish, body.dry_run))
}

fn go_order(body: &[u8], kind: StopKind) -> Result<(OrderWish, bool), String> {
    let body: GoBody = read(body)?;
    let scope = scope(body.repo, body.pull, body.builder)?;
    let wish = OrderWish::Go {
        kind,
        scope: (scope != Scope::default()).then_some(scope),
        by: text("by", &body.by, NAME_MAX)?,
    };
    Ok((wish, body.dry_run))
}

/// Waits for the loop's answer.
async fn answered<T: Serialize>(answer: oneshot::Receiver<Result<T, Refusal>>) -> Response {
    match tokio::time::timeout(PATIENCE, answer).await {
        Ok(Ok(Ok(done))) => Json(done).into_response(),
        Ok(Ok(Err(refusal))) => refused(&refusal),
        Ok(Err(_)) => refused(&Refusal::Busy("the watchdog is stopping".to_owned())),
        Err(_) => problem(
            StatusCode::GATEWAY_TIMEOUT,
            "the loop is busy with slow sources; where it was begun /api/v1/attempts tells of it, \
             else it was dropped",
            None,
        ),
    }
}

fn refused(refusal: &Refusal) -> Response {
    let (status, gate) = match refusal {
        Refusal::Gone(_) => (StatusCode::NOT_FOUND, None),
        Refusal::Nothing(_) => (StatusCode::CONFLICT, None),
        Refusal::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, None),
        // It opens by itself.
        Refusal::Shut {
            gate: gate @ Gate::Confirming,
            ..
        } => (StatusCode::SERVICE_UNAVAILABLE, Some(*gate)),
        Refusal::Shut { gate, .. } => (StatusCode::CONFLICT, Some(*gate)),
    };
    problem(status, refusal.reason(), gate)
}

fn bad(error: &str) -> Response {
    problem(StatusCode::UNPROCESSABLE_ENTITY, error, None)
}

fn problem(status: StatusCode, error: &str, gate: Option<Gate>) -> Response {
    (status, Json(Problem { error, gate })).into_response()
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    serde_json::from_slice(body)
        .map_err(|error| format!("the body is not the JSON that is asked for: {error}"))
}

/// A text for people: on one line, not empty, not too long.
fn text(key: &str, text: &str, max: usize) -> Result<String, String> {
    let text = text.trim();
    let length = text.chars().count();
    if length == 0 || length > max || text.chars().any(char::is_control) {
        return Err(format!(
            "{key:?} must hold 1 to {max} characters on one line"
        ));
    }
    Ok(text.to_owned())
}

fn scope(
    repo: Option<RepoName>,
    pull: Option<u64>,
    builder: Option<BuilderName>,
) -> Result<Scope, String> {
    if pull.is_some() && repo.is_none() {
        return Err("a pull belongs to a repo: name both".to_owned());
    }
    Ok(Scope {
        repo,
        pull,
        builder,
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let lasts = humantime::parse_duration(text)
        .map_err(|error| format!("\"for\": {text:?} is no duration such as 2h: {error}"))?;
    if lasts.is_zero() || lasts > PAUSE_MAX {
        return Err(format!(
            "\"for\" must be longer than nothing and at most {}",
            humantime::format_duration(PAUSE_MAX)
        ));
    }
    Ok(lasts)
}

fn build_id(build: &BuildReport) -> BuildId {
    BuildId {
        key: BuildKey {
            bot: BotName::new(&build.bot),
            repo: RepoName::new(&build.repo),
            pull: build.pull,
            kind: if build.is_try {
                BuildKind::Try
            } else {
                BuildKind::Auto
            },
        },
        generation: build.generation,
    }
}
