//! The requests that homu understands, one row each.
//!
//! | request | precondition, read anew | what is sent | effect |
//! |---|---|---|---|
//! | release of the slot | none, it is harmless where it is wrong | `POST /buildbot`, `buildStarted` of each commit under a builder that nobody has | none |
//! | replay of a result | page and database say pending on the commit, and the result is lacking | `POST /buildbot`, `buildFinished` | the row is set, or the build left pending |
//! | forgetting what is green | the same, and these builders are green | `POST /buildbot`, `buildStarted` of each | no longer green, or left pending |
//! | retry | either says pending, and it is on the commit that was judged, or has none yet as then | `POST /github`, signed comment `@BOT retry` | a new run, or left pending |
//! | nudge | nothing that blocks the queue is pending, and the pull request is listed | `POST /github`, signed comment `@BOT p=` (servo, rust-lang: `@BOT ping`) | something is pending |
//! | replay of `closed` | the pull request is listed, and closed on GitHub | `POST /github`, signed `pull_request` | homu agrees with GitHub |
//! | replay of `synchronize` | it is listed with another head than GitHub's, and that is the one to tell | `POST /github`, signed `pull_request` | homu agrees with GitHub |
//!
//! Where the rust-lang fork must start a build, the effect needs five minutes.
//!
//! A 4xx or a redirection is a refusal. A 5xx is none: whether homu did the work is not known then,
//! as after no answer at all.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;
use url::Url;

use super::asked::Asked;
use super::config::{Buildbot, RepoCfg};
use super::database::{Fork, PullText};
use super::github::{Place, Pull};
use super::replay::{self, Action, Command, build_finished, build_started, signature};
use super::{Fresh, Homu};
use crate::http::Request;
use crate::journal::Permit;
use crate::model::{
    BuildKind, BuilderName, CiSystem, Effect, Intent, Outcome, PendingBuild, ProbeError,
    ProbeFailure, PullOnGithub, RemedyRow, RepoName, Sha, Step, StepKind, Target, Told, Witnesses,
};

/// How long the precondition may be looked at; a request that is later than this is not sent.
const CHECK_DEADLINE: Duration = Duration::from_secs(4);
/// The rust-lang fork sleeps a minute before it starts a build, and another before it merges
/// (`main.py`: `create_merge`; `server.py`: `report_build_res`), all in one request after the other.
const SLOW_START: Duration = Duration::from_secs(300);

/// A restart is a command on this machine, which the loop runs.
const NO_REQUEST: &str = "a restart is no request to homu";

/// Each kind of request, the effect that proves it, and whether that is the start of a build.
const TABLE: [(StepKind, Effect, bool); 7] = [
    (StepKind::ReleaseSlot, Effect::None, false),
    (
        StepKind::ReplayResult,
        Effect::ResultKnownOrLeftPending,
        false,
    ),
    (
        StepKind::ForgetGreen,
        Effect::GreenForgottenOrLeftPending,
        false,
    ),
    (StepKind::Retry, Effect::NewRunOrLeftPending, true),
    (StepKind::Nudge, Effect::SomethingPending, true),
    (StepKind::ReplayClosed, Effect::AgreesWithGithub, false),
    (StepKind::ReplaySynchronize, Effect::AgreesWithGithub, false),
];

/// What the core knows of the rows, of a homu that starts builds at once or after a minute.
pub fn rows(slow: bool) -> Vec<RemedyRow> {
    let known = |(kind, effect, starts)| RemedyRow {
        kind,
        effect,
        deadline_min: if slow && starts {
            SLOW_START
        } else {
            Duration::ZERO
        },
    };
    TABLE.map(known).to_vec()
}

/// Sends the permit's one request, if its precondition still holds.
pub async fn send(homu: &Homu, permit: Permit) -> Outcome {
    let request = tokio::time::timeout(CHECK_DEADLINE, prepare(homu, permit.intent())).await;
    let request = match request {
        Ok(Ok(request)) => request,
        Ok(Err(why)) => return Outcome::NotSent(why),
        Err(_) => {
            return Outcome::NotSent(format!(
                "its precondition could not be looked at within {}",
                humantime::format_duration(CHECK_DEADLINE)
            ));
        }
    };
    match homu.client.send(homu.to_host(request)).await {
        Ok(answer) if answer.status.is_success() => {
            Outcome::Accepted(format!("HTTP {}", answer.status.as_u16()))
        }
        Ok(answer) if answer.status.is_redirection() => Outcome::Refused(format!(
            "{} answered {}: homu takes messages only at its web.canonical_url; is `url` right?",
            answer.shown_url, answer.status
        )),
        Ok(answer) => {
            // A proxy gives up on a homu that is still at work, and homu itself fails in the middle
            // of it (`database is locked`, after it has pushed a merge).
            let in_doubt = answer.status.is_server_error();
            let refusal = answer.success().map(|_| ()).err();
            let why = refusal.map_or_else(String::new, |error| error.detail);
            if in_doubt {
                Outcome::Unanswered(why)
            } else {
                Outcome::Refused(why)
            }
        }
        Err(error) if never_left(&error) => Outcome::NotSent(error.to_string()),
        Err(error) => Outcome::Unanswered(error.to_string()),
    }
}

/// Looks at the precondition, and writes the request; an unmet one is told in words.
async fn prepare(homu: &Homu, intent: &Intent) -> Result<Request, String> {
    let repos = &homu.cfg.repos;
    let (label, cfg) = match intent.attempt.target.repo() {
        Some(label) => repos
            .get_key_value(label)
            .ok_or_else(|| format!("homu's configuration has no repository {label}"))?,
        // The one start slot is that of all repositories: a message about any of them serves.
        None => repos
            .first_key_value()
            .ok_or("homu's configuration has no repository")?,
    };
    let sending = Sending {
        homu,
        intent,
        label,
        cfg,
    };
    let fresh = sending.check().await?;
    sending.write(fresh.as_ref()).await
}

/// A request in the making.
struct Sending<'a> {
    homu: &'a Homu,
    intent: &'a Intent,
    label: &'a RepoName,
    cfg: &'a RepoCfg,
}

impl Sending<'_> {
    /// Reads the witnesses anew and looks whether the step's precondition holds.
    async fn check(&self) -> Result<Option<Fresh>, String> {
        match self.intent.step.kind() {
            StepKind::ReleaseSlot => return Ok(None),
            StepKind::Restart => return Err(NO_REQUEST.to_owned()),
            StepKind::ReplayResult
            | StepKind::ForgetGreen
            | StepKind::Retry
            | StepKind::Nudge
            | StepKind::ReplayClosed
            | StepKind::ReplaySynchronize => {}
        }
        let fresh = self
            .homu
            .fresh(self.label)
            .await
            .map_err(|error| format!("homu could not be read anew: {error}"))?;
        match &self.intent.step {
            Step::ReleaseSlot { .. } | Step::Restart { .. } => {}
            Step::ReplayResult {
                pull, sha, builder, ..
            } => {
                let build = self.pending_on(&fresh, *pull, sha).await?;
                match told(&build, builder) {
                    Some(Told::Green { .. }) => {
                        return Err(format!("homu has the result of {builder} already"));
                    }
                    // A red one is left from before a partial rebuild.
                    Some(Told::Nothing | Told::Started { .. } | Told::Red { .. }) => {}
                    None => return Err(format!("homu does not wait for {builder}")),
                }
            }
            Step::ForgetGreen {
                pull,
                sha,
                builders,
            } => {
                let build = self.pending_on(&fresh, *pull, sha).await?;
                let not_green = builders.iter().find(|(builder, _)| {
                    !matches!(told(&build, builder), Some(Told::Green { .. }))
                });
                if let Some((builder, _)) = not_green {
                    return Err(format!("homu has no green result of {builder} any more"));
                }
            }
            Step::Retry { pull } => {
                let build = self.pending(&fresh, *pull).await?;
                same_commit(&build, self.intent.merge_sha.as_ref())?;
            }
            Step::Nudge { pull } => {
                let blocking = |row: &&super::page::PageRow| row.is_pending() && !row.is_try;
                if let Some(row) = fresh.page.iter().find(blocking) {
                    return Err(format!("{}#{} is pending meanwhile", self.label, row.num));
                }
                self.listed(&fresh, *pull)?;
            }
            Step::ReplayClosed { pull } => {
                self.listed(&fresh, *pull)?;
                match self.on_github(*pull).await?.state {
                    PullOnGithub::Closed => {}
                    PullOnGithub::Open { .. } | PullOnGithub::Unknown => {
                        return Err("it is open on GitHub meanwhile".to_owned());
                    }
                }
            }
            Step::ReplaySynchronize { pull, head } => {
                self.listed(&fresh, *pull)?;
                match self.on_github(*pull).await?.state {
                    PullOnGithub::Open { head: now } if &now == head => {}
                    PullOnGithub::Open { .. } | PullOnGithub::Closed | PullOnGithub::Unknown => {
                        return Err("it has changed on GitHub meanwhile".to_owned());
                    }
                }
                let asked = self.asked();
                let known = fresh.of(self.homu, self.label, self.cfg);
                match known.head_in_homu(*pull, &asked).await {
                    Some(known) if !head.as_str().starts_with(known.as_str()) => {}
                    Some(_) => return Err("homu has this head already".to_owned()),
                    None => {
                        return Err("the head that homu has is not known any more".to_owned());
                    }
                }
            }
        }
        Ok(Some(fresh))
    }

    async fn write(&self, fresh: Option<&Fresh>) -> Result<Request, String> {
        match &self.intent.step {
            Step::ReleaseSlot { shas } => {
                let packets: Vec<Value> = shas
                    .iter()
                    .map(|sha| build_started(&self.homu.nobody, sha, 0))
                    .collect();
                // Of an unknown builder homu asks no secret (`server.py`: `buildbot`).
                let secret = self.cfg.buildbot.as_ref().map(|it| it.secret.expose());
                Ok(self.packets(&packets, secret.unwrap_or_default()))
            }
            Step::ReplayResult {
                sha,
                builder,
                system,
                report,
                ..
            } => match system {
                CiSystem::Buildbot => {
                    let packet = build_finished(builder, sha, report).ok_or_else(|| {
                        format!("the run {} has no number, or no result", report.run)
                    })?;
                    Ok(self.packets(&[packet], self.buildbot()?.secret.expose()))
                }
                CiSystem::Travis | CiSystem::Status | CiSystem::Check => Err(format!(
                    "a result of kind {} cannot be replayed yet",
                    system.as_str()
                )),
            },
            Step::ForgetGreen { sha, builders, .. } => {
                let mut packets = Vec::new();
                for (builder, url) in builders {
                    let number = replay::run_number(url)
                        .ok_or_else(|| format!("{url} does not tell the number of a run"))?;
                    packets.push(build_started(builder.as_str(), sha, number));
                }
                Ok(self.packets(&packets, self.buildbot()?.secret.expose()))
            }
            Step::Retry { pull } => self.command(*pull, Command::Retry).await,
            Step::Nudge { pull } => {
                let command = match fresh.map(|fresh| fresh.fork) {
                    Some(Fork::Servo | Fork::RustLang) => Command::Ping,
                    Some(Fork::Pypi | Fork::Barosl) | None => Command::NoPriority,
                };
                self.command(*pull, command).await
            }
            Step::ReplayClosed { pull } => self.told_of(*pull, Action::Closed).await,
            Step::ReplaySynchronize { pull, .. } => self.told_of(*pull, Action::Synchronize).await,
            Step::Restart { .. } => Err(NO_REQUEST.to_owned()),
        }
    }

    /// The build, pending in both witnesses on this commit.
    async fn pending_on(
        &self,
        fresh: &Fresh,
        pull: u64,
        sha: &Sha,
    ) -> Result<PendingBuild, String> {
        let build = self.pending(fresh, pull).await?;
        match &build.witnesses {
            Witnesses::Agree => {}
            Witnesses::DatabaseOnly { .. } | Witnesses::PageOnly { .. } => {
                return Err("homu's database and page disagree about it".to_owned());
            }
        }
        same_commit(&build, Some(sha))?;
        Ok(build)
    }

    /// The build, pending in either witness, and of the same kind.
    async fn pending(&self, fresh: &Fresh, pull: u64) -> Result<PendingBuild, String> {
        let gone = || format!("{}#{pull} is not pending any more", self.label);
        // What GitHub would add is not needed here, and must not keep a repair back.
        let asked = Asked::new(None, None, Instant::now());
        let known = fresh.of(self.homu, self.label, self.cfg);
        let build = known.build(pull, &asked).await.ok_or_else(gone)?;
        match self.kind() {
            Some(kind) if kind != build.kind => Err(gone()),
            Some(_) | None => Ok(build),
        }
    }

    fn kind(&self) -> Option<BuildKind> {
        match &self.intent.attempt.target {
            Target::Expectation { build, .. } | Target::Build(build) => Some(build.key.kind),
            Target::Pull { .. } | Target::Queue { .. } | Target::Bot(_) => None,
        }
    }

    fn listed(&self, fresh: &Fresh, pull: u64) -> Result<(), String> {
        if fresh.page.iter().any(|row| row.num == pull) {
            Ok(())
        } else {
            Err(format!("homu has no {}#{pull} any more", self.label))
        }
    }

    fn asked(&self) -> Asked<'_> {
        let until = Instant::now() + CHECK_DEADLINE;
        Asked::new(
            self.homu.github.as_ref(),
            self.homu.mention.as_deref(),
            until,
        )
    }

    /// A signed comment that holds this one command.
    async fn command(&self, pull: u64, command: Command) -> Result<Request, String> {
        let mention = self
            .homu
            .mention()
            .await
            .map_err(|error| format!("the name that homu answers to is not known: {error}"))?;
        let login = self.homu.login.as_deref().unwrap_or(&mention);
        let text = self.text(pull).await?;
        let event = replay::comment(self.place(), pull, &text, login, &mention, command);
        Ok(self.webhook("issue_comment", &event))
    }

    /// The pull request's own title and text, from homu where it stores them.
    async fn text(&self, pull: u64) -> Result<PullText, String> {
        let stored = self.homu.database.text(self.label, pull).await;
        let stored =
            stored.map_err(|error| format!("homu's database could not be read: {error}"))?;
        if let Some(text) = stored {
            return Ok(text);
        }
        let pull = self.on_github(pull).await?;
        Ok(PullText {
            title: pull.title,
            body: pull.body,
        })
    }

    async fn told_of(&self, num: u64, action: Action) -> Result<Request, String> {
        let pull = self.on_github(num).await?;
        let event = replay::pull_event(self.place(), num, &pull, action);
        Ok(self.webhook("pull_request", &event))
    }

    async fn on_github(&self, num: u64) -> Result<Pull, String> {
        let github = self.homu.github.as_ref().ok_or(
            "homu's cfg.toml has no github.access_token, so the pull request cannot be read",
        )?;
        github
            .pull(self.place(), num)
            .await
            .map_err(|error| format!("the pull request could not be read from GitHub: {error}"))?
            .ok_or_else(|| "GitHub shows no such pull request to homu's token".to_owned())
    }

    fn webhook(&self, event: &str, body: &Value) -> Request {
        let body = body.to_string().into_bytes();
        let signature = signature(self.cfg.webhook_secret.expose(), &body);
        Request::json(endpoint(&self.homu.url, "github"), body)
            .header("x-github-event", event)
            .header("x-hub-signature", &signature)
    }

    fn packets(&self, packets: &[Value], secret: &str) -> Request {
        let packets = json!(packets).to_string();
        Request::form(
            endpoint(&self.homu.url, "buildbot"),
            &[("packets", &packets), ("secret", secret)],
        )
    }

    fn buildbot(&self) -> Result<&Buildbot, String> {
        let missing = || format!("homu's cfg.toml has no Buildbot for {}", self.label);
        self.cfg.buildbot.as_ref().ok_or_else(missing)
    }

    fn place(&self) -> Place<'_> {
        Place {
            owner: &self.cfg.owner,
            name: &self.cfg.name,
        }
    }
}

fn told<'a>(build: &'a PendingBuild, builder: &BuilderName) -> Option<&'a Told> {
    let expectation = build.expectations.iter().find(|it| &it.builder == builder);
    expectation.map(|it| &it.told)
}

/// Whether a build is still on the commit that was judged. One that has got a commit meanwhile has
/// only just started; one whose commit only GitHub tells, which is not asked here, may pass.
fn same_commit(build: &PendingBuild, sha: Option<&Sha>) -> Result<(), String> {
    match (build.merge_sha.known(), sha) {
        (Some(now), Some(sha)) if now != sha => {
            Err(format!("it is pending on another commit, {}", now.short()))
        }
        (Some(now), None) => Err(format!("it has got a commit meanwhile, {}", now.short())),
        (Some(_), Some(_)) | (None, Some(_) | None) => Ok(()),
    }
}

/// A path below homu's address.
pub fn endpoint(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop_if_empty().extend(path.split('/'));
    }
    url
}

/// Whether a failure lies certainly before the request's first byte.
fn never_left(error: &ProbeError) -> bool {
    match error.failure {
        ProbeFailure::Dns => true,
        // A refused connection was never one; a reset one may have carried the request.
        ProbeFailure::Connect => error.detail.contains("refused"),
        // A connection that ends in the middle of TLS may have carried it too; of a certificate
        // that is not trusted nothing was sent.
        ProbeFailure::Tls => error.detail.contains("invalid peer certificate"),
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
