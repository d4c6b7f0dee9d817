//! From what is known to verdicts, each with its evidence: of builds, and of what a build waits for.

mod hearing;
mod runs;

use std::collections::BTreeSet;
use std::time::Duration;

use self::hearing::{bot_silence, witnesses};
use self::runs::judge_at;
use super::history::History;
use super::ledger::{Ledger, Routes};
use super::policy::{Policy, Timeouts};
use super::tracked::{Tracked, lacking, waits_for_nothing};
use crate::model::{
    BuildId, BuilderName, CiSystem, Evidence, Expectation, Fact, Moment, ProviderName,
    PullOnGithub, Run, RunId, RunReport, Sha, Told, Verdict, Witnesses, WorkerName,
};

/// What is known of one expectation.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The builder or context.
    pub builder: BuilderName,
    /// The kind of CI system that must report it.
    pub system: CiSystem,
    /// The provider that serves it, where one does.
    pub provider: Option<ProviderName>,
    /// The verdict.
    pub verdict: Verdict,
    /// The facts that it rests on.
    pub evidence: Evidence,
    /// When the next start, heartbeat or report is due, or was.
    pub deadline: Option<Moment>,
    /// When the last sign of life was, as far as one was seen: from here a detection is timed.
    pub last_sign: Moment,
    /// Whether it can never end by itself: its verdict is dead, or it was told without effect.
    pub dead: bool,
    /// Whether the bot lacks its result.
    pub lacking: bool,
    /// Whether it lives although its build is older than any may be: people should look.
    pub overdue: bool,
    /// The run that was judged.
    pub run: Option<Run>,
    /// When that run's last heartbeat was seen.
    pub heartbeat: Option<Moment>,
    /// The worker that was lost, where the verdict is that one was.
    pub lost_worker: Option<WorkerName>,
    /// The result to replay, where the verdict is `unreported`.
    pub report: Option<RunReport>,
    /// The start that the bot should have heard of by now and did not: when that was due.
    pub start_unheard_since: Option<Moment>,
    /// Since when people should know of it, where it is queued, starved or unknown.
    pub waiting_since: Option<Moment>,
}

/// What is known of one pending build.
#[derive(Clone, Debug)]
pub struct BuildJudgement {
    /// The build.
    pub id: BuildId,
    /// The commit under test, as last known.
    pub merge_sha: Option<Sha>,
    /// The head under test, as last known.
    pub head_sha: Option<Sha>,
    /// When this generation was first seen.
    pub first_seen: Moment,
    /// The worst verdict, of the build itself or of an expectation that it lacks.
    pub verdict: Verdict,
    /// The verdict of the build itself, where it has one.
    pub own: Option<Verdict>,
    /// The facts about the build as a whole.
    pub evidence: Evidence,
    /// When the build's own verdict is due.
    pub deadline: Option<Moment>,
    /// One for each expectation.
    pub expectations: Vec<Judgement>,
    /// Whether the pull request is closed, or its head is not the one under test.
    pub outdated: bool,
    /// Every run of its commit that is known.
    pub runs: BTreeSet<RunId>,
}

impl BuildJudgement {
    /// The law of reruns: nothing of the build can be alive. At least one expectation is lacking,
    /// and every lacking one is dead.
    pub fn rerun_is_lawful(&self) -> bool {
        if self.own == Some(Verdict::Orphaned) {
            return true;
        }
        let mut lacking = self.expectations.iter().filter(|e| e.lacking).peekable();
        lacking.peek().is_some() && lacking.all(|e| e.dead)
    }

    /// Whether it may be about to start, so that it may rightly hold its bot's start slot. What no
    /// provider serves holds none.
    pub fn may_be_starting(&self) -> bool {
        self.expectations.iter().any(|e| match e.verdict {
            Verdict::Starting | Verdict::Queued | Verdict::Starved => true,
            Verdict::Unknown => e.provider.is_some(),
            Verdict::Reported
            | Verdict::Alive
            | Verdict::Unreported
            | Verdict::Outdated
            | Verdict::Wedged
            | Verdict::Orphaned
            | Verdict::Stalled
            | Verdict::WorkerLost
            | Verdict::NoShow => false,
        })
    }

    /// Whether anything of it is dead.
    pub fn any_dead(&self) -> bool {
        self.own == Some(Verdict::Orphaned) || self.expectations.iter().any(|e| e.dead)
    }
}

/// All that judging needs.
#[derive(Clone, Copy)]
pub struct Bench<'a> {
    /// What is known.
    pub ledger: &'a Ledger,
    /// What was done.
    pub history: &'a History,
    /// The limits.
    pub policy: &'a Policy,
    /// Which provider serves what.
    pub routes: &'a Routes,
    /// Now.
    pub now: Moment,
}

/// Judges every pending build, in the order of their places.
pub fn judge_builds(bench: Bench<'_>) -> Vec<BuildJudgement> {
    bench
        .ledger
        .builds()
        .map(|tracked| judge_build(bench, tracked))
        .collect()
}

fn judge_build(bench: Bench<'_>, tracked: &Tracked) -> BuildJudgement {
    let mut expectations: Vec<Judgement> = tracked
        .pending
        .expectations
        .iter()
        .map(|expectation| judge_expectation(bench, tracked, expectation))
        .collect();
    spare_forgotten(bench, tracked, &mut expectations);
    let (own, evidence, deadline) = judge_whole(bench, tracked, &expectations);
    let worst = expectations
        .iter()
        .filter(|e| e.lacking)
        .map(|e| e.verdict)
        .max();
    let verdict = match own {
        Some(own) => own,
        None => worst.unwrap_or(Verdict::Reported),
    };
    BuildJudgement {
        id: tracked.id.clone(),
        merge_sha: tracked.merge_sha.clone(),
        head_sha: tracked.head_sha.clone(),
        first_seen: tracked.first_seen,
        verdict,
        own,
        evidence,
        deadline,
        expectations,
        outdated: tracked.outdated_since.is_some(),
        runs: tracked
            .runs
            .keys()
            .chain(&tracked.before)
            .cloned()
            .collect(),
    }
}

/// A green result that the bot was made to forget for a rerun is not lost, as long as nothing of the
/// rest that is lacking shows life. If something of the rest shows life, the rerun is off, and the result is
/// to be replayed like any other.
fn spare_forgotten(bench: Bench<'_>, tracked: &Tracked, expectations: &mut [Judgement]) {
    let forgotten: Vec<bool> = expectations
        .iter()
        .map(|e| {
            e.report.as_ref().is_some_and(|report| report.green)
                && bench.history.forgotten(&tracked.id, &e.builder)
        })
        .collect();
    let mut rest = expectations
        .iter()
        .zip(&forgotten)
        .filter(|(e, forgotten)| e.lacking && !**forgotten)
        .peekable();
    // What waits for a successor, or for its first run, shows no life yet.
    let lifeless = |e: &Judgement| e.dead || e.verdict == Verdict::Starting;
    if rest.peek().is_none() || !rest.all(|(e, _)| lifeless(e)) {
        return;
    }
    for (expectation, _) in expectations
        .iter_mut()
        .zip(&forgotten)
        .filter(|(_, forgotten)| **forgotten)
    {
        expectation.verdict = Verdict::Reported;
        expectation.dead = false;
        expectation.lacking = false;
        expectation.report = None;
        expectation.evidence.0.push(Fact::ForgottenOnPurpose);
    }
}

/// The verdict on a build before its expectations are looked at: `outdated`, `orphaned`, or none.
fn judge_whole(
    bench: Bench<'_>,
    tracked: &Tracked,
    expectations: &[Judgement],
) -> (Option<Verdict>, Evidence, Option<Moment>) {
    let key = &tracked.id.key;
    let builders = expectations.iter().map(|e| &e.builder);
    let timeouts = bench.policy.timeouts.of(&key.repo, builders);
    // Of what differs between its builders, the whole goes by the longest.
    let longest = |time: fn(&Timeouts) -> Duration| {
        timeouts.iter().map(|it| time(it)).max().unwrap_or_default()
    };
    if bot_silence(bench, &key.bot).is_some() {
        return (None, Evidence::default(), None);
    }
    if let Some(since) = tracked.outdated_since {
        let fact = match (&tracked.pending.github, &tracked.head_sha) {
            (PullOnGithub::Open { head }, Some(bot)) => Fact::HeadMoved {
                bot: bot.clone(),
                github: head.clone(),
            },
            (PullOnGithub::Open { .. } | PullOnGithub::Closed | PullOnGithub::Unknown, _) => {
                Fact::PullClosed
            }
        };
        let deadline = since + longest(|timeouts| timeouts.outdated);
        let own = (bench.now >= deadline).then_some(Verdict::Outdated);
        return (own, Evidence::of(fact), Some(deadline));
    }
    let Some(since) = tracked.orphaned_since else {
        return (None, Evidence::default(), None);
    };
    let fact = match &tracked.pending.witnesses {
        Witnesses::Agree if waits_for_nothing(&tracked.pending) => Fact::WaitsForNothing,
        Witnesses::Agree => Fact::MergeShaMissing,
        Witnesses::DatabaseOnly { page } => Fact::WitnessesDisagree {
            database: "pending".to_owned(),
            page: page.clone(),
        },
        Witnesses::PageOnly { database } => Fact::WitnessesDisagree {
            database: database.clone(),
            page: "pending".to_owned(),
        },
    };
    let deadline = since + longest(|timeouts| timeouts.orphaned);
    // Without a merge SHA nothing can be looked up; a run of a commit that is known may live.
    let maybe_alive = tracked.merge_sha.is_some()
        && expectations.iter().any(|e| {
            e.lacking
                && match e.verdict {
                    // What is about to start, or waits for a successor, has its time too.
                    Verdict::Alive | Verdict::Queued | Verdict::Starved | Verdict::Starting => true,
                    Verdict::Unknown => e.provider.is_none() || e.waiting_since.is_some(),
                    Verdict::Reported
                    | Verdict::Unreported
                    | Verdict::Outdated
                    | Verdict::Wedged
                    | Verdict::Orphaned
                    | Verdict::Stalled
                    | Verdict::WorkerLost
                    | Verdict::NoShow => false,
                }
        });
    let own = if bench.now >= deadline && !maybe_alive {
        Verdict::Orphaned
    } else {
        Verdict::Unknown
    };
    (Some(own), Evidence::of(fact), Some(deadline))
}

fn judge_expectation(bench: Bench<'_>, tracked: &Tracked, expectation: &Expectation) -> Judgement {
    let mut judgement = Judgement {
        builder: expectation.builder.clone(),
        system: expectation.system,
        provider: None,
        verdict: Verdict::Unknown,
        evidence: Evidence::default(),
        deadline: None,
        last_sign: tracked.first_seen,
        dead: false,
        lacking: lacking(&expectation.told),
        overdue: false,
        run: None,
        heartbeat: None,
        lost_worker: None,
        report: None,
        start_unheard_since: None,
        waiting_since: None,
    };
    if let Told::Green { url } = &expectation.told {
        judgement.verdict = Verdict::Reported;
        judgement.evidence = Evidence::of(Fact::BotHasResult {
            green: true,
            url: url.clone(),
        });
        judgement.provider = bench.routes.providers(expectation.system).first().cloned();
        return judgement;
    }
    match witnesses(bench, tracked, expectation) {
        Err(unknown) => {
            judgement.provider = unknown.provider;
            judgement.evidence = Evidence::of(unknown.fact);
            judgement.waiting_since = Some(unknown.since.unwrap_or(tracked.first_seen));
        }
        Ok(hearing) => {
            let heard = hearing
                .looks
                .iter()
                .map(|look| judge_at(bench, tracked, expectation, look, judgement.clone()));
            if let Some(liveliest) = heard.min_by_key(liveliness) {
                judgement = liveliest;
            }
            if let (true, Some(silence)) = (judgement.dead, hearing.silent) {
                judgement.verdict = Verdict::Unknown;
                judgement.dead = false;
                judgement.evidence.0.push(silence.fact);
                judgement.waiting_since = Some(silence.since.unwrap_or(tracked.first_seen));
            }
        }
    }
    mark_overdue(bench, tracked, &mut judgement);
    judgement
}

/// Orders the words of several providers that have one builder: the run may be at any of them, so
/// the liveliest counts, and nothing is dead before it is dead at all of them.
fn liveliness(judgement: &Judgement) -> u8 {
    if judgement.dead {
        // One that had a run says more than one that never had.
        return if judgement.run.is_some() { 6 } else { 7 };
    }
    let green = judgement.report.as_ref().map(|report| report.green);
    match judgement.verdict {
        Verdict::Unreported if green == Some(true) => 0,
        Verdict::Alive | Verdict::Reported => 1,
        Verdict::Queued | Verdict::Starved => 2,
        Verdict::Unreported => 3,
        Verdict::Unknown => 4,
        Verdict::Starting
        | Verdict::Outdated
        | Verdict::Wedged
        | Verdict::Orphaned
        | Verdict::Stalled
        | Verdict::WorkerLost
        | Verdict::NoShow => 5,
    }
}

/// A run may show life for ever; people are told once its build is older than any may be.
fn mark_overdue(bench: Bench<'_>, tracked: &Tracked, judgement: &mut Judgement) {
    let repo = &tracked.id.key.repo;
    let total = bench
        .policy
        .timeouts
        .builder(repo, &judgement.builder)
        .total;
    let age = bench.now.since(tracked.first_seen);
    if judgement.lacking && judgement.verdict == Verdict::Alive && age >= total {
        judgement.overdue = true;
        judgement.evidence.0.push(Fact::OlderThanAny { age, total });
    }
}

#[cfg(test)]
mod tests;
