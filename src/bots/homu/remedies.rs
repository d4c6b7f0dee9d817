//! The requests that homu understands, one row each: precondition, request, effect, deadline.
//!
//! Never `force`: it stops every builder's work, and is a server error where there is no Buildbot.
//! Never `clean`: while pending it leaves a build that nothing can end.

use std::time::Duration;

use serde_json::{Value, json};
use url::Url;

use super::Homu;
use super::cfg::RepoCfg;
use super::database::{self, Fork, Rows};
use super::github::Pull;
use super::replay::{self, PullText, build_finished, build_started, signature};
use crate::http::Request;
use crate::journal::Permit;
use crate::model::{
    CiSystem, Effect, Outcome, ProbeError, ProbeFailure, RemedyRow, RepoName, Sha, Step, StepKind,
};

/// The rust-lang fork sleeps a minute before it starts a build, and another before it merges
/// (`main.py`: `create_merge`).
const SLOW_START: Duration = Duration::from_secs(300);

/// The rows of a homu that starts builds at once, or after a minute.
pub fn rows(slow: bool) -> Vec<RemedyRow> {
    let start = if slow { SLOW_START } else { Duration::ZERO };
    let row = |kind, effect, deadline_min| RemedyRow {
        kind,
        effect,
        deadline_min,
    };
    vec![
        row(StepKind::ReleaseSlot, Effect::None, Duration::ZERO),
        row(
            StepKind::ReplayResult,
            Effect::ResultKnownOrLeftPending,
            Duration::ZERO,
        ),
        row(
            StepKind::ForgetGreen,
            Effect::GreenForgottenOrLeftPending,
            Duration::ZERO,
        ),
        row(StepKind::Retry, Effect::NewRunOrLeftPending, start),
        row(StepKind::Nudge, Effect::SomethingPending, start),
        row(
            StepKind::ReplayClosed,
            Effect::AgreesWithGithub,
            Duration::ZERO,
        ),
        row(
            StepKind::ReplaySynchronize,
            Effect::AgreesWithGithub,
            Duration::ZERO,
        ),
    ]
}

/// Sends the permit's one request.
pub async fn send(homu: &Homu, permit: Permit) -> Outcome {
    let repo = permit.attempt().target.repo().clone();
    let Some(cfg) = homu.cfg.repos.get(&repo) else {
        return Outcome::NotSent(format!("homu's configuration has no repository {repo}"));
    };
    let request = match request(homu, &repo, cfg, &permit).await {
        Ok(request) => request,
        Err(why) => return Outcome::NotSent(why),
    };
    let request = match homu.canonical_host() {
        Some(host) => request.host(&host),
        None => request,
    };
    match homu.client.send(request).await {
        Ok(answer) if answer.status.is_success() => {
            Outcome::Accepted(format!("HTTP {}", answer.status.as_u16()))
        }
        Ok(answer) => Outcome::Refused(
            answer
                .success()
                .err()
                .map_or_else(String::new, |error| error.detail),
        ),
        Err(error) if certainly_not_sent(&error) => Outcome::NotSent(error.to_string()),
        Err(error) => Outcome::Unanswered(error.to_string()),
    }
}

/// Checks the precondition and makes the request; an unmet one is told in words.
async fn request(
    homu: &Homu,
    repo: &RepoName,
    cfg: &RepoCfg,
    permit: &Permit,
) -> Result<Request, String> {
    match permit.step() {
        Step::ReleaseSlot { shas } => {
            let packets: Vec<Value> = shas
                .iter()
                .map(|sha| build_started(&homu.nobody, sha, 0))
                .collect();
            // An unknown builder's packet is not asked for the secret, so any will do.
            let secret = cfg.buildbot.as_ref().or_else(|| {
                homu.cfg
                    .repos
                    .values()
                    .find_map(|repo| repo.buildbot.as_ref())
            });
            Ok(packets_request(
                homu,
                &packets,
                secret.map_or("", |b| b.secret.expose()),
            ))
        }
        Step::ReplayResult {
            pull,
            sha,
            builder,
            system,
            report,
        } => {
            if *system != CiSystem::Buildbot {
                return Err(format!(
                    "results of {} cannot be replayed yet",
                    system.as_str()
                ));
            }
            if report.number.is_none() {
                return Err("the provider has no number for this run".to_owned());
            }
            let buildbot = cfg
                .buildbot
                .as_ref()
                .ok_or("homu's configuration has no buildbot here")?;
            still_pending(homu, repo, *pull, Some(sha)).await?;
            let packet = build_finished(builder, sha, report);
            Ok(packets_request(homu, &[packet], buildbot.secret.expose()))
        }
        Step::ForgetGreen {
            pull,
            sha,
            builders,
        } => {
            let buildbot = cfg
                .buildbot
                .as_ref()
                .ok_or("homu's configuration has no buildbot here")?;
            still_pending(homu, repo, *pull, Some(sha)).await?;
            let packets: Vec<Value> = builders
                .iter()
                .map(|(builder, url)| {
                    let number = url.trim_end_matches('/').rsplit('/').next();
                    let number = number.and_then(|number| number.parse().ok()).unwrap_or(0);
                    build_started(builder.as_str(), sha, number)
                })
                .collect();
            Ok(packets_request(homu, &packets, buildbot.secret.expose()))
        }
        Step::Retry { pull } => {
            let sha = permit.intent().merge_sha.as_ref();
            let rows = still_pending(homu, repo, *pull, sha).await?;
            command(homu, repo, cfg, *pull, &rows, "retry").await
        }
        Step::Nudge { pull } => {
            let rows = read(homu).await?;
            // A command that is parsed and changes nothing makes homu look at its queue.
            let nudge = match rows.fork {
                Some(Fork::Servo | Fork::RustLang) => "ping",
                Some(Fork::Pypi | Fork::Barosl) | None => "p=",
            };
            command(homu, repo, cfg, *pull, &rows, nudge).await
        }
        Step::ReplayClosed { pull } => pull_request(homu, cfg, *pull, "closed", None).await,
        Step::ReplaySynchronize { pull, head } => {
            pull_request(homu, cfg, *pull, "synchronize", Some(head)).await
        }
    }
}

/// Still pending, on that commit: read anew, right before the request.
async fn still_pending(
    homu: &Homu,
    repo: &RepoName,
    pull: u64,
    sha: Option<&Sha>,
) -> Result<Rows, String> {
    let rows = read(homu).await?;
    let row = rows
        .pulls
        .iter()
        .find(|row| &row.repo == repo && row.num == pull)
        .ok_or_else(|| format!("homu has no pull request {repo}#{pull} any more"))?;
    if row.status != "pending" {
        return Err(format!(
            "{repo}#{pull} is not pending any more, but {:?}",
            row.status
        ));
    }
    match (&row.merge_sha, sha) {
        (Some(stored), Some(sha)) if stored != sha => {
            Err(format!("{repo}#{pull} is pending on another commit"))
        }
        // 0.2.0 stores no commit of a try build.
        (Some(_) | None, Some(_) | None) => Ok(rows),
    }
}

async fn read(homu: &Homu) -> Result<Rows, String> {
    database::read_async(homu.database.clone())
        .await
        .map_err(|error| format!("homu's database could not be read: {error}"))
}

/// A signed comment that holds this one command.
async fn command(
    homu: &Homu,
    repo: &RepoName,
    cfg: &RepoCfg,
    pull: u64,
    rows: &Rows,
    command: &str,
) -> Result<Request, String> {
    let mention = homu
        .mention()
        .await
        .map_err(|error| format!("the name that homu answers to is not known: {error}"))?;
    let stored = rows
        .pulls
        .iter()
        .find(|row| &row.repo == repo && row.num == pull)
        .and_then(|row| row.text.clone());
    // homu takes title and body from the message, so they must be the pull request's own.
    let text = match stored {
        Some((title, body)) => PullText {
            title,
            body: Some(body),
        },
        None => {
            let true_one = true_pull(homu, cfg, pull).await?;
            PullText {
                title: true_one.title,
                body: true_one.body,
            }
        }
    };
    let login = homu.login.clone().unwrap_or_else(|| mention.clone());
    let body = format!("@{mention} {command}");
    let event = replay::comment(&cfg.owner, &cfg.name, pull, &text, &login, &body);
    Ok(webhook(homu, cfg, "issue_comment", &event))
}

async fn pull_request(
    homu: &Homu,
    cfg: &RepoCfg,
    num: u64,
    action: &str,
    head: Option<&Sha>,
) -> Result<Request, String> {
    let pull = true_pull(homu, cfg, num).await?;
    let agrees = match (&pull.state, head) {
        (crate::model::PullOnGithub::Open { head }, Some(wanted)) => head == wanted,
        (crate::model::PullOnGithub::Closed, None) => true,
        (
            crate::model::PullOnGithub::Open { .. }
            | crate::model::PullOnGithub::Closed
            | crate::model::PullOnGithub::Unknown,
            _,
        ) => false,
    };
    if !agrees {
        return Err(format!("#{num} has changed on GitHub meanwhile"));
    }
    let event = replay::pull_event(&cfg.owner, &cfg.name, num, &pull, action);
    Ok(webhook(homu, cfg, "pull_request", &event))
}

async fn true_pull(homu: &Homu, cfg: &RepoCfg, num: u64) -> Result<Pull, String> {
    let github = homu
        .github
        .as_ref()
        .ok_or("homu's configuration has no GitHub token, so the pull request cannot be read")?;
    github
        .pull(&cfg.owner, &cfg.name, num)
        .await
        .map_err(|error| format!("the pull request could not be read from GitHub: {error}"))
}

fn webhook(homu: &Homu, cfg: &RepoCfg, event: &str, body: &Value) -> Request {
    let body = body.to_string().into_bytes();
    let signature = signature(cfg.webhook_secret.expose(), &body);
    Request::json(endpoint(&homu.url, "github"), body)
        .header("x-github-event", event)
        .header("x-hub-signature", &signature)
}

fn packets_request(homu: &Homu, packets: &[Value], secret: &str) -> Request {
    let packets = json!(packets).to_string();
    Request::form(
        endpoint(&homu.url, "buildbot"),
        &[("packets", &packets), ("secret", secret)],
    )
}

/// A path below homu's address.
pub fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

/// Whether a failure lies before the request's first byte.
fn certainly_not_sent(error: &ProbeError) -> bool {
    match error.failure {
        ProbeFailure::Dns | ProbeFailure::Tls => true,
        // A refused connection was never one; a reset one may have carried the request.
        ProbeFailure::Connect => error.detail.contains("refused"),
        ProbeFailure::Timeout
        | ProbeFailure::HttpStatus
        | ProbeFailure::Auth
        | ProbeFailure::RateLimited
        | ProbeFailure::Parse
        | ProbeFailure::TooLarge
        | ProbeFailure::Partial
        | ProbeFailure::Io => false,
    }
}
