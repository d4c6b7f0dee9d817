//! A small scene for the tests of the core: one bot, one repository, two builders, and a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::health::Tick;
use super::ledger::Routes;
use super::plan::{Attempt, Hold};
use super::policy::{Mode, Policy};
use super::{Core, Decision, Look, Setup};
use crate::model::{
    ApprovedPull, BotName, BotSnapshot, BuildId, BuildKey, BuildKind, BuilderName, CiSystem,
    Closing, Effect, Expectation, GithubState, History, Intent, IntentId, Knock, MergeSha, Moment,
    Outcome, PendingBuild, Pool, ProbeError, ProbeFailure, ProviderName, ProviderSnapshot,
    PullOnGithub, Quota, Record, Remedy, RemedyRow, RepoSnapshot, Run, RunId, RunState, Sha,
    Sighting, Step, StepKind, Told, Verdict, Witnesses, Worker,
};

/// The pull request that is pending.
pub(crate) const PULL: u64 = 7;

/// A scene that tests change between two ticks.
pub(crate) struct Scene {
    pub(crate) core: Core,
    pub(crate) bot: Result<BotSnapshot, ProbeError>,
    pub(crate) ci: Result<ProviderSnapshot, ProbeError>,
    /// A second master with the same builders, where a test sets one up.
    pub(crate) second: Option<Result<ProviderSnapshot, ProbeError>>,
    /// What is found by who knocks at the bot and its GitHub; `None`: nobody knocks.
    pub(crate) knock: Option<Knock>,
    pub(crate) records: Vec<Record>,
    pub(crate) seconds: u64,
    next: i64,
}

/// The second `seconds` of watched time.
pub(crate) fn at(seconds: u64) -> Moment {
    Moment::from_millis(seconds * 1000)
}

pub(crate) fn homu() -> BotName {
    "homu".into()
}

pub(crate) fn buildbot() -> ProviderName {
    "buildbot".into()
}

pub(crate) fn second() -> ProviderName {
    "second".into()
}

pub(crate) fn failed() -> ProbeError {
    ProbeError::new(ProbeFailure::Timeout, "no answer")
}

pub(crate) fn key() -> BuildKey {
    BuildKey {
        bot: homu(),
        repo: "servo".into(),
        pull: PULL,
        kind: BuildKind::Auto,
    }
}

pub(crate) fn build(generation: u32) -> BuildId {
    BuildId {
        key: key(),
        generation,
    }
}

pub(crate) fn url(number: u64) -> String {
    format!("http://ci/builders/x/builds/{number}")
}

/// A pull request that is pending on `merge1`, made from `head1`, on `linux` and `mac`.
pub(crate) fn pending() -> PendingBuild {
    PendingBuild {
        pull: PULL,
        kind: BuildKind::Auto,
        merge_sha: MergeSha::Known("merge1".into()),
        head_sha: Some("head1".into()),
        witnesses: Witnesses::Agree,
        github: open("head1"),
        expectations: ["linux", "mac"]
            .into_iter()
            .map(|builder| Expectation {
                builder: builder.into(),
                system: CiSystem::Buildbot,
                told: Told::Nothing,
            })
            .collect(),
        title: String::new(),
        url: String::new(),
    }
}

pub(crate) fn open(head: &str) -> PullOnGithub {
    PullOnGithub::Open { head: head.into() }
}

pub(crate) fn approved(pull: u64) -> ApprovedPull {
    ApprovedPull {
        pull,
        head_sha: Some("other".into()),
        github: open("other"),
        mergeable: Some(true),
        priority: 0,
        title: String::new(),
        url: String::new(),
    }
}

/// A bot with this build pending and nothing approved.
pub(crate) fn bot_with(pending: Vec<PendingBuild>) -> BotSnapshot {
    let repo = RepoSnapshot {
        pending,
        ..RepoSnapshot::default()
    };
    BotSnapshot {
        repos: BTreeMap::from([("servo".into(), repo)]),
        github: GithubState::Good(Some(Quota {
            limit: 5000,
            remaining: 4000,
            reset: 0,
        })),
        warnings: Vec::new(),
    }
}

/// A CI system with two able workers for each builder, no runs, and the whole history of `merge1`.
pub(crate) fn idle_ci() -> ProviderSnapshot {
    let worker = Worker {
        connected: true,
        paused: false,
        graceful: false,
    };
    let pool = |builder: &str| {
        let names = ["1", "2"].map(|number| format!("{builder}-{number}").as_str().into());
        Pool {
            workers: names.into_iter().map(|name| (name, worker)).collect(),
        }
    };
    ProviderSnapshot {
        pools: ["linux", "mac"]
            .into_iter()
            .map(|builder| (builder.into(), pool(builder)))
            .collect(),
        runs: Vec::new(),
        history: BTreeMap::from([("merge1".into(), History::Complete)]),
        version: None,
    }
}

/// A run of `merge1` on the builder's first worker.
pub(crate) fn run(id: u64, builder: &str, state: RunState) -> Run {
    Run {
        id: RunId::new(id.to_string()),
        builder: builder.into(),
        sha: "merge1".into(),
        state,
        number: Some(id),
        url: Some(url(id)),
        worker: Some(format!("{builder}-1").as_str().into()),
        progress: String::new(),
        detail: String::new(),
        behind: None,
    }
}

/// What homu understands.
pub(crate) fn rows() -> Vec<RemedyRow> {
    [
        (StepKind::ReleaseSlot, Effect::None),
        (StepKind::ReplayResult, Effect::ResultKnownOrLeftPending),
        (StepKind::ForgetGreen, Effect::GreenForgottenOrLeftPending),
        (StepKind::Retry, Effect::NewRunOrLeftPending),
        (StepKind::Nudge, Effect::SomethingPending),
        (StepKind::ReplayClosed, Effect::AgreesWithGithub),
        (StepKind::ReplaySynchronize, Effect::AgreesWithGithub),
    ]
    .into_iter()
    .map(|(kind, effect)| RemedyRow {
        kind,
        effect,
        deadline_min: Duration::ZERO,
    })
    .collect()
}

pub(crate) fn routes() -> Routes {
    Routes(BTreeMap::from([(CiSystem::Buildbot, vec![buildbot()])]))
}

/// A set-up in which a second master serves the same kind of CI system.
pub(crate) fn setup_of_two() -> Setup {
    let masters = vec![buildbot(), second()];
    Setup {
        routes: Routes(BTreeMap::from([(CiSystem::Buildbot, masters)])),
        ..setup()
    }
}

pub(crate) fn setup() -> Setup {
    Setup {
        routes: routes(),
        rows: BTreeMap::from([(homu(), rows())]),
        own_timeouts: BTreeMap::new(),
        restarts: BTreeMap::new(),
    }
}

pub(crate) fn acting() -> Policy {
    Policy {
        mode: Mode::Act,
        ..Policy::default()
    }
}

impl Scene {
    /// One pending build, an idle CI system, a policy that acts; nothing was looked at yet.
    pub(crate) fn new() -> Self {
        Self::with(acting())
    }

    pub(crate) fn with(policy: Policy) -> Self {
        Self {
            core: Core::new(policy, setup(), &[], at(0)),
            bot: Ok(bot_with(vec![pending()])),
            ci: Ok(idle_ci()),
            second: None,
            knock: Some(Knock {
                bot: Err(failed()),
                github: GithubState::Good(None),
            }),
            records: Vec::new(),
            seconds: 0,
            next: 1,
        }
    }

    /// The same after a restart: what the journal kept, and nothing else.
    pub(crate) fn restart(&mut self) {
        self.core = Core::new(
            self.core.policy().clone(),
            setup(),
            &self.records,
            self.now(),
        );
    }

    pub(crate) fn now(&self) -> Moment {
        at(self.seconds)
    }

    /// Goes on for so long, looking every 10 s; gives back what was decided last.
    pub(crate) fn wait(&mut self, seconds: u64) -> Decision {
        let end = self.seconds + seconds;
        loop {
            self.seconds = (self.seconds + 10).min(end);
            let decision = self.look();
            if self.seconds >= end {
                return decision;
            }
        }
    }

    /// One tick, now.
    pub(crate) fn look(&mut self) -> Decision {
        self.see();
        let good = usize::from(self.bot.is_ok()) + usize::from(self.ci.is_ok());
        let tick = Tick {
            late: false,
            good,
            bad: 2 - good,
        };
        self.core.record_tick(self.now(), tick);
        for ending in self.core.endings(self.now()) {
            self.write(Record::Ending(ending));
        }
        self.settle();
        let decision = self.core.decide(self.now(), Look::Tick);
        for finding in &decision.found {
            self.write(Record::Finding(finding.clone()));
        }
        decision
    }

    /// Looks at both sources, and no more.
    pub(crate) fn see(&mut self) {
        let now = self.now();
        for sighting in self.core.record_bot(now, &homu(), self.bot.clone()) {
            self.write(Record::Sighting(sighting));
        }
        if let Some(knock) = &self.knock
            && self.core.restart_is_near(&homu(), now)
        {
            self.core.record_knock(now, &homu(), knock.clone());
        }
        self.core.record_provider(now, &buildbot(), self.ci.clone());
        if let Some(look) = &self.second {
            self.core.record_provider(now, &second(), look.clone());
        }
    }

    pub(crate) fn settle(&mut self) -> Vec<(IntentId, Closing)> {
        let now = self.now();
        let closed = self.core.settle(now);
        for (id, closing) in &closed {
            let generation = self.core.open_generation(now, *id, *closing);
            self.write(Record::Closed {
                id: *id,
                at: now,
                closing: *closing,
            });
            if let Some(sighting) = generation {
                self.write(Record::Sighting(sighting));
            }
        }
        closed
    }

    pub(crate) fn write(&mut self, record: Record) {
        self.core.record(&record);
        self.records.push(record);
    }

    /// Sends one step of an attempt now.
    pub(crate) fn send(&mut self, attempt: &Attempt, step: &Step, outcome: Outcome) -> IntentId {
        self.intend(attempt.intent(step), Some(outcome))
    }

    /// Writes an intent now, and its outcome where it is known.
    pub(crate) fn intend(&mut self, intent: Intent, outcome: Option<Outcome>) -> IntentId {
        let id = IntentId(self.next);
        self.next += 1;
        let at = self.now();
        self.write(Record::Intent { id, at, intent });
        if let Some(outcome) = outcome {
            self.write(Record::Outcome { id, at, outcome });
        }
        id
    }

    pub(crate) fn bot_mut(&mut self) -> &mut BotSnapshot {
        self.bot.as_mut().expect("the bot answers in this test")
    }

    pub(crate) fn repo_mut(&mut self) -> &mut RepoSnapshot {
        let repos = &mut self.bot_mut().repos;
        repos.get_mut("servo").expect("it is in the scene")
    }

    pub(crate) fn pending_mut(&mut self) -> &mut PendingBuild {
        let pending = &mut self.repo_mut().pending;
        pending.first_mut().expect("it is pending in this test")
    }

    pub(crate) fn ci_mut(&mut self) -> &mut ProviderSnapshot {
        self.ci
            .as_mut()
            .expect("the CI system answers in this test")
    }

    pub(crate) fn told(&mut self, builder: &str, told: Told) {
        let expectations = &mut self.pending_mut().expectations;
        let one = expectations
            .iter_mut()
            .find(|one| one.builder.as_str() == builder);
        one.expect("it is expected").told = told;
    }

    /// Puts a run into the CI system, in place of the one of the same id.
    pub(crate) fn runs(&mut self, id: u64, builder: &str, state: RunState) {
        let one = run(id, builder, state);
        let runs = &mut self.ci_mut().runs;
        match runs.iter_mut().find(|run| run.id == one.id) {
            Some(run) => *run = one,
            None => runs.push(one),
        }
    }

    /// Every run shows progress.
    pub(crate) fn beat(&mut self) {
        let now = self.seconds;
        for run in &mut self.ci_mut().runs {
            run.progress = format!("line {now}");
        }
    }

    /// Waits, while the runs show progress at every look.
    pub(crate) fn wait_beating(&mut self, seconds: u64) -> Decision {
        let end = self.seconds + seconds;
        loop {
            self.beat();
            let decision = self.wait(10.min(end - self.seconds));
            if self.seconds >= end {
                return decision;
            }
        }
    }

    pub(crate) fn workers(&mut self, builder: &str, change: impl Fn(&mut Worker)) {
        let pool = self.ci_mut().pools.get_mut(builder).expect("it is there");
        pool.workers.values_mut().for_each(change);
    }

    pub(crate) fn worker(&mut self, builder: &str, name: &str, change: impl Fn(&mut Worker)) {
        let pool = self.ci_mut().pools.get_mut(builder).expect("it is there");
        change(pool.workers.get_mut(name).expect("it is there"));
    }
}

/// The verdict on a builder.
#[track_caller]
pub(crate) fn verdict(decision: &Decision, builder: &str) -> Verdict {
    decision.builds[0]
        .expectations
        .iter()
        .find(|one| one.builder.as_str() == builder)
        .expect("it is expected")
        .verdict
}

/// The hold of a remedy.
pub(crate) fn hold(decision: &Decision, remedy: Remedy) -> Option<&Hold> {
    decision
        .plan
        .holds
        .iter()
        .find(|hold| hold.attempt.id.remedy == remedy)
}

/// The planned attempt of a remedy.
pub(crate) fn attempt(decision: &Decision, remedy: Remedy) -> Option<&Attempt> {
    let attempts = &decision.plan.attempts;
    attempts.iter().find(|attempt| attempt.id.remedy == remedy)
}

/// The kinds of an attempt's steps.
pub(crate) fn steps(attempt: &Attempt) -> Vec<StepKind> {
    attempt.steps.iter().map(Step::kind).collect()
}

pub(crate) fn accepted() -> Outcome {
    Outcome::Accepted("HTTP 200".to_owned())
}

/// An intent for a rerun of a generation of the build.
pub(crate) fn retry_intent(generation: u32, ordinal: u32) -> Intent {
    Intent {
        attempt: crate::model::AttemptId {
            target: crate::model::Target::Build(build(generation)),
            remedy: Remedy::Rerun,
            ordinal,
        },
        step: Step::Retry { pull: PULL },
        verdict: Verdict::NoShow,
        evidence: Vec::new(),
        merge_sha: Some("merge1".into()),
        head_sha: Some("head1".into()),
        runs: BTreeSet::new(),
        zones: BTreeSet::from([(buildbot(), BuilderName::from("linux"))]),
        lost_workers: BTreeSet::new(),
        by: None,
    }
}

/// A sighting of a generation of the build.
pub(crate) fn sighting(generation: u32, sha: Option<&str>, second: u64) -> Sighting {
    Sighting {
        build: build(generation),
        merge_sha: sha.map(Sha::from),
        head_sha: Some("head1".into()),
        at: at(second),
        cause: crate::model::SightingCause::First,
        before: BTreeSet::new(),
    }
}
