//! From what is known to verdicts, each with its evidence.

use std::collections::BTreeSet;
use std::time::Duration;

use super::history::History;
use super::ledger::{Ledger, Routes, Source, SourceHealth, bot_source, provider_source};
use super::policy::{Policy, Timeouts};
use super::tracked::{Tracked, lacking};
use crate::model::{
    BotName, BuildId, BuilderName, CiSystem, Evidence, Expectation, Fact, History as Reach,
    MergeSha, Moment, ProviderName, ProviderSnapshot, PullOnGithub, Run, RunId, RunReport,
    RunState, Sha, SourceName, Told, Verdict, Witnesses, WorkerName,
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

/// A green result that the bot was made to forget for a rerun is not lost, as long as all the rest
/// that is lacking is dead. If something of the rest shows life, the rerun is off, and the result is
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
    if rest.peek().is_none() || !rest.all(|(e, _)| e.dead) {
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
                    Verdict::Alive | Verdict::Queued | Verdict::Starved => true,
                    Verdict::Unknown => e.provider.is_none() || e.waiting_since.is_some(),
                    Verdict::Reported
                    | Verdict::Starting
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

/// What one provider's fresh word comes to.
fn judge_at(
    bench: Bench<'_>,
    tracked: &Tracked,
    expectation: &Expectation,
    look: &LookAt<'_>,
    mut judgement: Judgement,
) -> Judgement {
    judgement.provider = Some(look.provider.clone());
    let timeouts = bench
        .policy
        .timeouts
        .builder(&tracked.id.key.repo, &expectation.builder);
    match &expectation.told {
        Told::Nothing => judgement.evidence.0.push(Fact::BotHasNothing),
        Told::Started { url } => judgement
            .evidence
            .0
            .push(Fact::BotHasStart { url: url.clone() }),
        Told::Red { url } => judgement
            .evidence
            .0
            .push(Fact::RedRowFromBefore { url: url.clone() }),
        Told::Green { .. } => {}
    }
    if !tracked.before.is_empty() {
        judgement.evidence.0.push(Fact::RunsFromBefore {
            runs: tracked.before.len(),
        });
    }
    let counting: Vec<&Run> = tracked
        .runs_of(look.snapshot, &expectation.builder)
        .filter(|run| !before_red_row(&expectation.told, run))
        .collect();
    if counting.is_empty() {
        judge_absence(bench, tracked, timeouts, look, &mut judgement);
    } else {
        let judge = |run: &&Run| {
            let mut one = judgement.clone();
            judge_run(bench, tracked, expectation, timeouts, look, run, &mut one);
            one
        };
        judgement = of_runs(counting.iter().rev().map(judge)).unwrap_or(judgement);
        doubt_vanished(tracked, look, &mut judgement);
    }
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

/// The newest run's judgement, unless that is dead and an older run is alive or green: the bot takes
/// the result of any run of the commit.
fn of_runs(newest_first: impl Iterator<Item = Judgement>) -> Option<Judgement> {
    let mut newest = None;
    for judgement in newest_first {
        let red = judgement
            .report
            .as_ref()
            .is_some_and(|report| !report.green);
        match newest {
            None if judgement.dead => newest = Some(judgement),
            None => return Some(judgement),
            Some(_) if judgement.dead || red || judgement.verdict == Verdict::Unknown => {}
            Some(_) => return Some(judgement),
        }
    }
    newest
}

/// A dead run is not the last word where a newer one has left open work, so that it is over, and the
/// history that would tell its result was not asked.
fn doubt_vanished(tracked: &Tracked, look: &LookAt<'_>, judgement: &mut Judgement) {
    let judged = judgement
        .run
        .as_ref()
        .and_then(|run| tracked.runs.get(&run.id));
    let (true, Some(judged), Some(fact)) = (judgement.dead, judged, incomplete(look)) else {
        return;
    };
    let vanished = tracked.runs.iter().any(|(id, run)| {
        let without_result = match run.state {
            RunState::Ended(end) => end.green().is_none(),
            RunState::Queued | RunState::Preparing | RunState::Running => false,
        };
        run.builder == judgement.builder
            && run.first_seen > judged.first_seen
            && !without_result
            && !tracked.before.contains(id)
            && !look.snapshot.runs.iter().any(|run| &run.id == id)
    });
    if vanished {
        judgement.verdict = Verdict::Unknown;
        judgement.dead = false;
        judgement.evidence.0.push(fact);
        judgement.waiting_since = Some(judged.state_since);
    }
}

/// The provider's fresh word on an expectation.
struct LookAt<'a> {
    provider: &'a ProviderName,
    snapshot: &'a ProviderSnapshot,
    sha: &'a Sha,
}

/// Why an expectation is unknown.
struct Silence {
    provider: Option<ProviderName>,
    fact: Fact,
    since: Option<Moment>,
}

/// What every provider says that has the builder.
struct Hearing<'a> {
    looks: Vec<LookAt<'a>>,
    /// One that may have it, and does not answer.
    silent: Option<Silence>,
}

/// Everything that must be known before anything is concluded.
fn witnesses<'a>(
    bench: Bench<'a>,
    tracked: &'a Tracked,
    expectation: &Expectation,
) -> Result<Hearing<'a>, Silence> {
    let unknown = |fact, since| Silence {
        provider: None,
        fact,
        since,
    };
    if let Some((fact, since)) = bot_silence(bench, &tracked.id.key.bot) {
        return Err(unknown(fact, since));
    }
    let candidates = bench.routes.providers(expectation.system);
    if candidates.is_empty() {
        let system = expectation.system.as_str();
        return Err(unknown(Fact::NoProvider { system }, None));
    }
    let Some(sha) = &tracked.merge_sha else {
        let fact = match tracked.pending.merge_sha {
            MergeSha::Missing => Fact::MergeShaMissing,
            MergeSha::NotStored | MergeSha::Known(_) => Fact::MergeShaUnknown,
        };
        return Err(Silence {
            provider: candidates.first().cloned(),
            fact,
            since: None,
        });
    };
    let mut looks = Vec::new();
    let mut silent = None;
    for provider in candidates {
        let source = bench.ledger.provider(provider);
        let fresh = source.and_then(|s| s.fresh(bench.now, bench.policy.snapshot_life()));
        match fresh {
            Some(snapshot) if snapshot.pools.contains_key(&expectation.builder) => {
                looks.push(LookAt {
                    provider,
                    snapshot,
                    sha,
                });
            }
            Some(_) => {}
            None if lacked(source, &expectation.builder) => {}
            None => {
                let (fact, since) = silence(
                    bench.now,
                    provider_source(provider),
                    source.map(|s| &s.health),
                );
                silent.get_or_insert(Silence {
                    provider: Some(provider.clone()),
                    fact,
                    since,
                });
            }
        }
    }
    if !looks.is_empty() {
        return Ok(Hearing { looks, silent });
    }
    Err(silent.unwrap_or_else(|| Silence {
        provider: candidates.first().cloned(),
        fact: Fact::NoSuchBuilder {
            builder: expectation.builder.clone(),
        },
        since: None,
    }))
}

/// Whether a provider that is silent now did not have a builder when it last answered.
fn lacked(source: Option<&Source<ProviderSnapshot>>, builder: &BuilderName) -> bool {
    source
        .and_then(|source| source.snapshot.as_ref())
        .is_some_and(|(_, snapshot)| !snapshot.pools.contains_key(builder))
}

fn bot_silence(bench: Bench<'_>, bot: &BotName) -> Option<(Fact, Option<Moment>)> {
    let source = bench.ledger.bot(bot);
    let fresh = source.and_then(|s| s.fresh(bench.now, bench.policy.snapshot_life()));
    match fresh {
        Some(_) => None,
        None => Some(silence(
            bench.now,
            bot_source(bot),
            source.map(|s| &s.health),
        )),
    }
}

fn silence(
    now: Moment,
    source: SourceName,
    health: Option<&SourceHealth>,
) -> (Fact, Option<Moment>) {
    let since = health.and_then(|health| health.failing_since);
    match health.and_then(|health| health.error.as_ref()) {
        Some(error) => (
            Fact::SourceSilent {
                source,
                detail: error.to_string(),
                since: since.map_or(Duration::ZERO, |since| now.since(since)),
            },
            since,
        ),
        None => (Fact::SourceNotSeen { source }, since),
    }
}

fn judge_run(
    bench: Bench<'_>,
    tracked: &Tracked,
    expectation: &Expectation,
    timeouts: &Timeouts,
    look: &LookAt<'_>,
    run: &Run,
    judgement: &mut Judgement,
) {
    let now = bench.now;
    let Some(watch) = tracked.runs.get(&run.id) else {
        // Every run of a snapshot was folded into the ledger with it.
        judgement.evidence.0.push(Fact::SourceNotSeen {
            source: provider_source(look.provider),
        });
        return;
    };
    judgement.run = Some(run.clone());
    judgement.heartbeat = Some(watch.heartbeat);
    judgement.last_sign = watch.heartbeat;
    let evidence = &mut judgement.evidence.0;
    let under_way = Fact::RunUnderWay {
        run: run.id.clone(),
        worker: run.worker.clone(),
        detail: run.detail.clone(),
    };
    match run.state {
        RunState::Queued => {
            let pool = look.snapshot.pools.get(&run.builder);
            let configured = pool.map_or(0, |pool| pool.workers.len());
            let able = pool.map_or(0, |pool| pool.workers.values().filter(|w| w.able()).count());
            evidence.push(Fact::RunQueued {
                run: run.id.clone(),
                waited: now.since(watch.state_since),
            });
            evidence.push(Fact::Workers { able, configured });
            if let Some(behind) = &run.behind {
                evidence.push(Fact::BehindRun {
                    run: behind.clone(),
                });
            }
            judgement.verdict = if able == 0 {
                Verdict::Starved
            } else {
                Verdict::Queued
            };
            judgement.waiting_since = Some(watch.state_since);
        }
        RunState::Preparing | RunState::Running => {
            evidence.push(under_way);
            let dead = match (watch.worker_gone, &run.worker) {
                (Some(since), Some(worker)) => {
                    evidence.push(Fact::WorkerGone {
                        worker: worker.clone(),
                        since: now.since(since),
                    });
                    judgement.lost_worker = Some(worker.clone());
                    judgement.last_sign = since;
                    (Verdict::WorkerLost, since + timeouts.worker_lost)
                }
                (Some(_), None) | (None, Some(_) | None) => {
                    if run.state == RunState::Preparing {
                        evidence.push(Fact::Pinging {
                            waited: now.since(watch.state_since),
                        });
                        (Verdict::Stalled, watch.state_since + timeouts.pinging)
                    } else {
                        evidence.push(Fact::Heartbeat {
                            ago: now.since(watch.heartbeat),
                        });
                        (Verdict::Stalled, watch.heartbeat + timeouts.heartbeat)
                    }
                }
            };
            settle(judgement, now, dead, Verdict::Alive);
            judgement.start_unheard_since = unheard(expectation, watch.started, timeouts);
        }
        RunState::Ended(end) => {
            let ended = Fact::RunEnded {
                run: run.id.clone(),
                end,
                ago: now.since(watch.state_since),
            };
            evidence.push(ended);
            match end.green() {
                Some(green) => {
                    judgement.report = Some(RunReport {
                        run: run.id.clone(),
                        green,
                        end,
                        number: run.number,
                        url: run.url.clone(),
                    });
                    let deadline = watch.state_since + timeouts.report;
                    settle(
                        judgement,
                        now,
                        (Verdict::Unreported, deadline),
                        Verdict::Alive,
                    );
                    judgement.dead = false;
                    judgement.start_unheard_since = unheard(expectation, watch.started, timeouts);
                    let told = bench.history.told_without_effect(&tracked.id, &run.builder);
                    if judgement.verdict == Verdict::Unreported && told >= Policy::TELLS_MAX {
                        judgement
                            .evidence
                            .0
                            .push(Fact::ToldWithoutEffect { times: told });
                        judgement.dead = true;
                    }
                }
                None => {
                    if let Some(fact) = incomplete(look) {
                        evidence.push(fact);
                        judgement.waiting_since = Some(watch.state_since);
                        return;
                    }
                    judgement.lost_worker.clone_from(&run.worker);
                    let deadline = watch.state_since + timeouts.worker_lost;
                    settle(
                        judgement,
                        now,
                        (Verdict::WorkerLost, deadline),
                        Verdict::Starting,
                    );
                }
            }
        }
    }
}

fn judge_absence(
    bench: Bench<'_>,
    tracked: &Tracked,
    timeouts: &Timeouts,
    look: &LookAt<'_>,
    judgement: &mut Judgement,
) {
    if let Some(fact) = incomplete(look) {
        judgement.evidence.0.push(fact);
        judgement.waiting_since = Some(tracked.first_seen);
        return;
    }
    judgement.evidence.0.push(Fact::NoRunInHistory {
        sha: look.sha.clone(),
    });
    judgement.evidence.0.push(Fact::NoRunFor {
        waited: bench.now.since(tracked.start_from),
    });
    let deadline = tracked.start_from + timeouts.start;
    settle(
        judgement,
        bench.now,
        (Verdict::NoShow, deadline),
        Verdict::Starting,
    );
}

/// The verdict once its deadline has passed, else the one before it.
fn settle(
    judgement: &mut Judgement,
    now: Moment,
    (after, deadline): (Verdict, Moment),
    before: Verdict,
) {
    judgement.deadline = Some(deadline);
    judgement.verdict = if now >= deadline { after } else { before };
    judgement.dead = judgement.verdict.dead();
}

/// When the bot should have heard of a start, where it shows no sign of it. Only systems whose
/// start messages the bot records can lack one.
fn unheard(
    expectation: &Expectation,
    started: Option<Moment>,
    timeouts: &Timeouts,
) -> Option<Moment> {
    match (expectation.system, &expectation.told) {
        (CiSystem::Buildbot, Told::Nothing) => started.map(|at| at + timeouts.report),
        (CiSystem::Buildbot, Told::Started { .. } | Told::Green { .. } | Told::Red { .. })
        | (CiSystem::Travis | CiSystem::Status | CiSystem::Check, _) => None,
    }
}

/// Why the provider's answer on a commit does not prove an absence, where it does not.
fn incomplete(look: &LookAt<'_>) -> Option<Fact> {
    let detail = match look.snapshot.history.get(look.sha) {
        Some(Reach::Complete) => return None,
        Some(Reach::Partial(reason)) => reason.clone(),
        None => "it was not asked".to_owned(),
    };
    Some(Fact::HistoryIncomplete {
        sha: look.sha.clone(),
        detail,
    })
}

/// Whether a run came before a red row that is left from before, or is the one that the row is about:
/// the row's page ends in the run's number, and a builder's numbers grow.
fn before_red_row(told: &Told, run: &Run) -> bool {
    let Told::Red { url } = told else {
        return false;
    };
    let over = match run.state {
        RunState::Ended(_) => true,
        RunState::Queued | RunState::Preparing | RunState::Running => false,
    };
    let red = url.trim_end_matches('/').rsplit('/').next();
    let red: Option<u64> = red.and_then(|number| number.parse().ok());
    let after = match (run.number, red) {
        (Some(run), Some(red)) => run > red,
        (Some(_) | None, Some(_) | None) => true,
    };
    over && !after
}

#[cfg(test)]
mod tests;
